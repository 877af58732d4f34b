"""Data sets of one's own, of every kind: converted, described, trained on, predicted, scored, shown."""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from folders import write_regions
from runs import NO_PAGE, ROOT, checkpoint, latest, said, summary, train

from datamodules.convert.__main__ import main as convert
from datamodules.init.__main__ import main as init
from lxmert import load_run
from lxmert.evaluate.__main__ import main as evaluate
from lxmert.runs.build import open_split

PAGE = ROOT / "docs" / "own_data.md"
TINY = [
    "trainer=cpu", "model.hidden_size=8", "model.num_attention_heads=2", "model.intermediate_size=12",
    "model.l_layers=1", "model.r_layers=1", "model.x_layers=1", "trainer.max_epochs=2",
    "trainer.log_every_n_steps=3", "data.batch_size=4", "data.workers=0", "optimizer=adamw",
]  # fmt: skip
TEN = ["red", "red", "red", "blue", "blue", "green", "one", "two", "many", "Red"]


# ------------------------------------------------------------------------------------------ the texts


def json_list(rows):
    return json.dumps(rows, ensure_ascii=False)


def json_lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(rows, delimiter=","):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)  # lines end in CR LF
    writer.writeheader()
    cells = ({k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in rows)
    writer.writerows(cells)
    return text.getvalue()


WRITERS: dict[str, Callable[[list[dict]], str]] = {
    "json": json_list,
    "jsonl": json_lines,
    "csv": table,
    "tsv": lambda rows: table(rows, "\t"),
}


# ----------------------------------------------------------------------------------------- the regions


def release_tsv(folder, images):
    """The release's TSV, three or four regions an image."""
    write_regions(folder / "data" / "mine_imgfeat" / "any name.tsv", {name: n for n, name in enumerate(images)})


def grids(folder, images):
    """A grid of cells an image, saved by numpy."""
    for number, name in enumerate(images):
        path = folder / "features" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.random.default_rng(number).random((2, 3, 7), np.float32))
    converted(folder)


def one_box(folder, images):
    """A whole image as one region, of three features."""
    for number, name in enumerate(images):
        path = folder / "features" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"bbox": np.float32([[0, 0, 40, 30]]), "num_bbox": 1, "image_w": 40, "image_h": 30}
        np.savez(path, x=np.float32([[number], [1], [2]]), **facts)
    converted(folder, "--features", "Fxn")


def many_boxes(folder, images):
    """1 to 120 regions an image, padded in HDF5."""
    counts = [1 + 17 * n % 120 for n in range(len(images))]
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((len(images), 120, 2, 2), np.float32), axis=2).reshape(len(images), 120, 4)
    with h5py.File(folder / "features.h5", "w") as file:
        file["features"] = rng.random((len(images), 120, 9), np.float32)
        file["boxes"] = corners * np.float32([40, 30, 40, 30])
        file["image_w"], file["image_h"] = [40] * len(images), [30] * len(images)
        file["num_boxes"], file["image_ids"] = counts, list(images)
    converted(folder, source="features.h5")


def converted(folder, *options, source="features"):
    store = folder / "data" / "stores" / "mine_imgfeat" / "mine.h5"
    assert convert([str(folder / source), str(store), "--detector", "a test's numbers", *options]) == 0


# ------------------------------------------------------------------------------------------- the kinds


@dataclass
class Kind:
    """A kind of data set.

    Args:
        about: what it is, as the page's table says.
        form: ending of the text files.
        rows: number -> a row, the image's name being its own.
        images: their names in the texts.
        regions: what writes their regions.
        splits: split -> how many rows.
        columns: of unusual names.
        hidden: splits without the answer.
        files: further files beside the texts.
        options: of the run.
    """

    about: str
    form: str
    rows: Callable[[int, str], dict[str, Any]]
    images: list[Any]
    regions: Callable[[Path, list[str]], None] = release_tsv
    splits: dict[str, int] = field(default_factory=lambda: {"train": 14, "valid": 7})
    columns: dict[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


def asked(number, image, **answer):
    return {"question": f"is it {['red', 'one', 'two'][number % 3]} ?", "image": image, **answer}


def answered(number):
    return ["red", "blue", "two"][number % 3]


def pair(number, image):
    return {"text": "both are red", "left": image, "right": "left one", "answer": number % 2 == 0}


PLAIN = ["kitchen", "garden", "street"]
KINDS = {
    "integers": Kind(
        "JSON list; integers as ids of questions and images; several answers with scores",
        "json",
        lambda n, i: asked(n, i, id=1000 + n, label={answered(n): 1, "blue ": 0.3}),
        [1, 23, 4567],
    ),
    "unicode": Kind(
        "JSON lines; ids in Unicode with slashes and spaces; single answers",
        "jsonl",
        lambda n, i: asked(n, i, qid=f"frage/ä {n}", answer=answered(n)),
        ["küche/1", "猫 2", "rue d'été"],
    ),
    "no ids": Kind(
        "CSV without ids of questions; images by file name, regions without their endings",
        "csv",
        lambda n, i: asked(n, f"{i}.jpg", answer=answered(n)),
        PLAIN,
    ),
    "ten annotators": Kind(
        "TSV; ten annotators' answers, the official accuracy",
        "tsv",
        lambda n, i: asked(n, i, id=n + 7, answers=TEN[n % 3 :] + TEN[: n % 3]),
        PLAIN,
    ),
    "classes": Kind(
        "CSV in gzip; classes by number, their names in an answer list",
        "csv.gz",
        lambda n, i: {**asked(n, i), "class": n % 3},
        PLAIN,
        files={"trainval_label2ans.json": '["red", "blue", "two"]'},
    ),
    "classes without names": Kind(
        "JSON in gzip; classes by number, without names",
        "json.gz",
        lambda n, i: {**asked(n, i), "class": n % 3},
        PLAIN,
    ),
    "one class is right": Kind(
        "JSON lines; classification, of whose classes one is right",
        "jsonl",
        lambda n, i: asked(n, i, answer=answered(n)),
        PLAIN,
        options=("objective=[classification]", "data.classes=[two,blue,red]"),
    ),
    "own language": Kind(
        "CSV; columns, language and vocabulary of one's own, answers normalized",
        "csv",
        lambda n, i: {
            "Frage": "Ist das über rot?",
            "Bild": i,
            "Antwort": ["jein", "Grün", "nö", "grün.", "Jein"][n % 5],
        },
        PLAIN,
        columns={"text": "Frage", "image": "Bild", "normalized_answer": "Antwort"},
    ),
    "types": Kind(
        "JSON lines; accuracy by types of question",
        "jsonl",
        lambda n, i: asked(n, i, id=f"q{n}", answer=answered(n), question_type=["which", "how many"][n % 2]),
        PLAIN,
    ),
    "grids": Kind(
        "CSV; grid features, cells as regions",
        "csv",
        lambda n, i: asked(n, i, answer=answered(n)),
        PLAIN,
        grids,
    ),
    "one region": Kind(
        "JSON list; one region an image, of three features",
        "json",
        lambda n, i: asked(n, i, id=n, answer=answered(n)),
        PLAIN,
        one_box,
    ),
    "many regions": Kind(
        "CSV; 1 to 120 regions an image, from HDF5",
        "csv",
        lambda n, i: asked(n, i, id=f"v{n}", answer=answered(n)),
        [*PLAIN, "attic", "cellar", "roof", "tree", "lake"],
        many_boxes,
    ),
    "hidden test": Kind(
        "JSON lines; a test split without answers, to predict",
        "jsonl",
        lambda n, i: asked(n, i, id=n, Antwort=answered(n)),
        PLAIN,
        columns={"answer": "Antwort"},
        splits={"train": 14, "valid": 7, "test": 5},
        hidden=("test",),
    ),
    "repeated ids": Kind(
        "CSV; two test splits with the same ids",
        "csv",
        lambda n, i: asked(n, i, id=n, answer=answered(n)),
        PLAIN,
        splits={"train": 14, "valid": 7, "easy": 6, "hard": 5},
        options=("data.test=[easy,hard]", "data.predict=[easy,hard]"),
    ),
    "no validation": Kind(
        "CSV; no split to validate or test on",
        "csv",
        lambda n, i: asked(n, i, answer=answered(n)),
        PLAIN,
        splits={"train": 14},
    ),
    "pairs": Kind(
        "CSV; two images a statement, true or false",
        "csv",
        lambda n, i: {**pair(n, i), "id": f"s{n}", "question_type": ["both", "either or"][n % 2]},
        ["left one", "right/one", "3"],
    ),
    "pairs, hidden": Kind(
        "JSON lines; two images a statement, a test split without answers",
        "jsonl",
        lambda n, i: {**pair(n, i), "id": n},
        ["left one", "right one", "other"],
        splits={"train": 14, "valid": 7, "test": 5},
        hidden=("test",),
    ),
    "three images": Kind(
        "CSV; three images a statement, columns of one's own",
        "csv",
        lambda n, i: {"text": "all are red", "img0": i, "img1": "2", "back": "side", "true": n % 2, "id": n},
        ["front", "side", "2"],
        columns={"img2": "back", "answer": "true"},
        splits={"train": 14, "valid": 7, "test": 5},
        hidden=("test",),
    ),
}


def write(folder, kind):
    """Its files; rows by split."""
    names = [str(image) for image in kind.images]
    kind.regions(folder, names)
    written = {}
    for place, (split, count) in enumerate(kind.splits.items()):
        rows = [kind.rows(n, kind.images[(n + place) % len(names)]) for n in range(count)]
        if split in kind.hidden:
            rows = [{k: v for k, v in row.items() if k not in ("answer", "Antwort", "true")} for row in rows]
        content = WRITERS[kind.form.removesuffix(".gz")](rows).encode()
        path = folder / "data" / "mine" / f"{split}.{kind.form}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if kind.form.endswith(".gz") else content)
        written[split] = rows
    for name, text in kind.files.items():
        (folder / "data" / "mine" / name).write_text(text)
    return written


def predicted(run, split, count):
    """The table of a split, which has every row of it, as its submission has."""
    with (run / "predictions" / f"{split}_answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(json.loads((run / "predictions" / f"{split}.json").read_text())) == count
    return rows


@pytest.mark.parametrize("name", KINDS)
def test_a_data_set_of_ones_own_is_trained_on_and_every_row_of_it_predicted_and_scored(
    tmp_path, monkeypatch, capsys, name
):
    kind, folder = KINDS[name], tmp_path
    rows = write(folder, kind)
    monkeypatch.chdir(folder)
    columns = ["--columns", *(f"{what}={column}" for what, column in kind.columns.items())] if kind.columns else []
    assert init(["data/mine", "--vocabulary", *columns]) == 0, capsys.readouterr().err
    command = ["experiment=mine", *TINY, *kind.options]
    run = train(*command, "--config-dir", f"{folder}/own", folder=folder)
    tested = [split for split in kind.splits if split not in ("train", *kind.hidden)]
    tested = ["easy", "hard"] if "easy" in tested else tested
    told = summary(run)
    assert told["data"]["train"]["examples"] == len(rows["train"])
    assert checkpoint(run)["global_step"] == 2 * 3 and (run / "report.html").is_file() == bool(tested)
    for split in tested:
        table = predicted(run, split, len(rows[split]))
        assert all(row["truth"] and row["answer_1"] for row in table)
        truth = f"data/mine/{split}.{kind.form}"
        assert evaluate(["check", "own", f"{run}/predictions/{split}.json", truth, *columns]) == 0
        assert evaluate(["own", f"{run}/predictions/{split}.json", truth, "--json", "scores.json", *columns]) == 0
    if len(tested) == 1:
        score = json.loads(Path("scores.json").read_text())["metrics"]["accuracy"] / 100
        [measured] = [v for k, v in told["metrics"].items() if re.fullmatch(r"test/\w+/accuracy", k)]
        assert score == pytest.approx(measured, abs=1e-4)  # a percentage of two digits
    assert ("test/answering/official_accuracy" in told["metrics"]) == (name == "ten annotators")
    if name == "one class is right":
        assert load_run(run).answers == ["two", "blue", "red"] and load_run(run).reading == "softmax"
        assert "val/classification/accuracy/class/blue" in told["metrics"]
    if name == "own language":
        assert load_run(run).answers == ["grün", "jein", "nö"]
        assert {row["truth"] for row in table} == {"grün", "jein", "nö"}
    if name == "pairs":
        assert "test/image_pair/accuracy/question_type/either_or" in told["metrics"]
    if name == "three images":
        model = load_run(run).model
        features, boxes = torch.rand(2, 3, 4, model.config.visual_feat_dim), torch.rand(2, 3, 4, 4)
        assert model(torch.ones(2, 5).long(), features, boxes).logits.shape == (2, 2)
    if name == "repeated ids":
        for split in tested:
            evaluate(["own", f"{run}/predictions/{split}.json", f"data/mine/{split}.csv", "--json", "scores.json"])
            score = json.loads(Path("scores.json").read_text())["metrics"]["accuracy"] / 100
            measured = told["metrics"][f"test/answering/accuracy/split/{split}"]
            assert score == pytest.approx(measured, abs=1e-4)
        assert "<td>split: easy</td>" in (run / "report.html").read_text().replace("\n", "")
    if name == "types":
        assert "test/answering/accuracy/question_type/how_many" in told["metrics"]
    for split in kind.hidden:
        used = f"checkpoint={run}/checkpoints/last.ckpt"
        run = train(
            *command, "action=predict", f"split={split}", used, "--config-dir", f"{folder}/own", folder=folder
        )
        assert [row["truth"] for row in predicted(run, split, len(rows[split]))] == [""] * len(rows[split])


def test_a_data_set_of_ones_own_goes_on_where_it_stopped_on_two_processes(tmp_path, monkeypatch):
    kind = KINDS["unicode"]
    rows = write(tmp_path, kind)
    monkeypatch.chdir(tmp_path)
    assert init(["data/mine", "--vocabulary"]) == 0
    command = ["experiment=mine", *TINY, NO_PAGE, "trainer.devices=2"]
    own = ["--config-dir", f"{tmp_path}/own"]
    train(*command, "trainer.max_steps=4", *own, folder=tmp_path)
    run = train(*command, "trainer.max_steps=6", "resume=last", *own, folder=tmp_path)
    assert checkpoint(run)["global_step"] == 6 and run == latest(tmp_path)
    predicted(run, "valid", len(rows["valid"]))


def test_the_pages_table_has_these_kinds():
    lines = [f"| {kind.about} |" for kind in KINDS.values()]
    assert [line for line in PAGE.read_text().splitlines() if line in lines] == lines


# ------------------------------------------------------------------------------------ what init writes


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "train", "valid", "test", "predict"),
    [
        (("Train", "Valid", "Test"), (), ["Train"], ["Valid"], ["Test"], ["Test"]),
        (
            ("dev_seen", "extra", "test_a", "testB", "train", "train2", "val"),
            ("ask",),
            ["train", "train2"],
            ["dev_seen", "val"],
            ["testB", "test_a"],
            ["ask"],
        ),
        (("questions",), ("test",), ["questions"], [], [], ["test"]),
    ],
)
def test_splits_are_used_by_their_names_and_no_other_one_is_trained_on(
    tmp_path, monkeypatch, capsys, labelled, unlabelled, train, valid, test, predict
):
    monkeypatch.chdir(tmp_path)
    for split in (*labelled, *unlabelled):
        answer = {"answer": "red"} if split in labelled else {}
        path = tmp_path / "data" / "mine" / f"{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json_list([asked(1, "a", **answer)]))
    assert init(["data/mine"]) == 0
    given = yaml.safe_load(Path("own/experiment/mine.yaml").read_text())["data"]
    roles = [given[role] for role in ("train", "valid", "test", "predict")]
    assert [sorted(splits) for splits in roles] == [train, valid, test, predict]
    told = [line for line in capsys.readouterr().out.splitlines() if "data.train" in line]
    assert [line.split(":")[0] for line in told] == (["extra"] if "extra" in labelled else [])


@pytest.mark.parametrize("splits", [("test",), ("val", "test"), ("first", "second")])
def test_nothing_is_trained_on_that_is_not_called_so(tmp_path, monkeypatch, capsys, splits):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "mine").mkdir(parents=True)
    for split in splits:
        (tmp_path / "data" / "mine" / f"{split}.json").write_text(json_list([asked(1, "a", answer="red")]))
    assert init(["data/mine"]) == 1
    assert "no split to train on: expected one with answers" in capsys.readouterr().err
    assert not Path("own").exists()


def test_a_vocabulary_that_is_there_is_used_and_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "mine" / "train.json").write_text(json_list([asked(1, "a", answer="red")]))
    own = tmp_path / "data" / "mine" / "vocab.txt"
    own.write_text("[PAD]\nmine\n")
    assert init(["data/mine", "--vocabulary"]) == 1
    assert "vocab.txt: it is there already" in capsys.readouterr().err and not Path("own").exists()
    assert init(["data/mine"]) == 0 and own.read_text() == "[PAD]\nmine\n"
    assert "mine/vocab.txt" in Path("own/experiment/mine.yaml").read_text()


# ------------------------------------------------------------------------------ the page's own example


def test_the_pages_example_runs_as_it_is_written_but_shorter(tmp_path, monkeypatch):
    blocks = re.findall(r"```(python|yaml|)\n(.*?)```", PAGE.read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    scripts = [code for language, code in blocks if language == "python"]
    exec(compile(scripts[0].replace("1000", "30").replace("200", "9"), "make_pictures.py", "exec"), {})
    exec(compile(scripts[1], "make_features.py", "exec"), {})
    commands = [line for language, code in blocks if not language for line in code.splitlines() if line]
    [converting] = [line for line in commands if "datamodules.convert" in line]
    assert convert(["features", "data/stores/mine_imgfeat/grid.h5", "--detector", "4 x 4 cells"]) == 0
    assert converting.split(" --detector")[0].endswith("convert features data/stores/mine_imgfeat/grid.h5")
    assert "python -m datamodules.init data/mine --vocabulary" in commands
    assert init(["data/mine", "--vocabulary"]) == 0
    [training] = [
        line.split()
        for line in commands
        if line.startswith("python train.py experiment=mine") and "action" not in line
    ]
    overrides = [each for each in training[2:] if each not in ("--config-dir", "own")]
    run = train(
        *overrides, "trainer.max_epochs=1", *TINY[1:7], "--config-dir", str(tmp_path / "own"), folder=tmp_path
    )
    html = (run / "report.html").read_text()
    assert "best guess from the text alone" in html and "data:image/png" in html and "Confusions" in html
    assert [path.name for path in Path("own/experiment").iterdir()] == ["mine.yaml"]
    assert len(predicted(run, "valid", 27)) == 27
    [asking] = [line.split() for line in commands if "action=predict" in line]
    asking = [each.replace("outputs/mine/<time>", str(run)) for each in asking]
    Path("data/mine/ask.csv").write_text("question,image\nWhat colour is the square?,valid 0.png\n")
    asked = [each for each in asking[2:] if each not in ("--config-dir", "own")]
    run = train(*asked, *TINY[1:7], "--config-dir", str(tmp_path / "own"), folder=tmp_path)
    assert predicted(run, "ask", 1)[0]["question"] == "What colour is the square?"


def test_a_run_is_tested_where_the_training_texts_are_not_by_the_answers_it_has(tmp_path, monkeypatch):
    write(tmp_path, KINDS["types"])
    monkeypatch.chdir(tmp_path)
    assert init(["data/mine", "--vocabulary"]) == 0
    command = ["experiment=mine", *TINY, NO_PAGE, "--config-dir", f"{tmp_path}/own"]
    run = train(*command, folder=tmp_path)
    test = [*command, "action=test", f"checkpoint={run}"]
    scores = summary(train(*test, folder=tmp_path))["metrics"]
    assert scores["test/answering/accuracy"] > 0
    texts = Path("data/mine/train.jsonl")
    rows = texts.read_text()
    texts.write_text(rows.replace('"red"', '"mauve"'))  # where they are there, they are compared
    assert "only in the data (1): ['mauve']" in train(*test, folder=tmp_path, fails=True)
    texts.unlink()
    Path("data/stores/mine/train.h5").unlink()
    for more in ([], ["data.train=[]"]):
        assert summary(train(*test, *more, folder=tmp_path))["metrics"] == scores
    assert len(open_split(run, "valid", checkpoint(run)["lxmert_config"]["answers"]).datasets["test"]) > 0


def test_weights_of_another_detectors_regions_are_told_of_in_one_line(tmp_path, monkeypatch):
    kind = KINDS["one region"]
    write(tmp_path, kind)
    monkeypatch.chdir(tmp_path)
    assert init(["data/mine", "--vocabulary"]) == 0
    command, own = ["experiment=mine", *TINY, NO_PAGE], ["--config-dir", f"{tmp_path}/own"]
    run = train(*command, *own, folder=tmp_path)
    assert checkpoint(run)["lxmert_config"]["detector"] == "a test's numbers"
    assert "trained on regions" not in said(tmp_path)
    store = "data/stores/mine_imgfeat/mine.h5"
    Path(store).unlink()
    assert convert(["features", store, "--detector", "another", "--features", "Fxn"]) == 0
    line = "trained on regions of \"a test's numbers\", and these are of 'another'"
    for more in (["action=test", f"checkpoint={run}"], [f"init={run}", "trainer.max_steps=1"]):
        train(*command, *more, *own, folder=tmp_path)
        assert said(tmp_path).count(line) == 1
