"""VQA-CP v2, OK-VQA and VizWiz: the makers' files as stores, training on them, no selection on a test split."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml
from folders import F, features_of, write_regions, write_rows, write_vocabulary
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from runs import ROOT, TINY, checkpoint, summary, train, weights

from datamodules.prepare.__main__ import main
from datamodules.stores.texts import ExampleStore
from datamodules.vqa import VqaDataModule
from lxmert.evaluate.__main__ import main as evaluate

TEN = ("cat", "cat", "cat", "cat.", "dog", "dog", "a cat", "red", "", "cat")


def ten(answers=TEN):
    return [{"answer": answer, "answer_confidence": "yes", "answer_id": i + 1} for i, answer in enumerate(answers)]


def question(number, **further):
    return {"image_id": number // 10, "question": "what is red ?", "question_id": number, **further}


def annotation(number, **further):
    return {
        "question_id": number,
        "image_id": number // 10,
        "answers": ten(),
        "answer_type": "other",
        "question_type": "what is",
        **further,
    }


def write_okvqa(root):
    """20 questions of 10 images in train2014, 4 of 2 in val2014; as its makers, without multiple_choice_answer."""
    for folder, numbers in {"train2014": range(20), "val2014": range(100, 120, 5)}.items():
        rows = {"info": {}, "questions": [question(n) for n in numbers]}
        write_rows(root / "okvqa" / f"OpenEnded_mscoco_{folder}_questions.json", rows)
        annotations = [annotation(n, confidence=3) for n in numbers]
        write_rows(root / "okvqa" / f"mscoco_{folder}_annotations.json", {"annotations": annotations})


def write_vqacp(root):
    """Lists; 20 questions to train, 4 to test, of images of both folders."""
    for split, numbers in {"train": range(20), "test": range(100, 120, 5)}.items():
        folders = {n: ("train2014", "val2014")[n // 10 % 2] for n in numbers}
        questions = [question(n, coco_split=folder) for n, folder in folders.items()]
        most = {"train": "Cat,", "test": "seven"}[split]
        annotations = [
            annotation(n, coco_split=folder, multiple_choice_answer=most) for n, folder in folders.items()
        ]
        write_rows(root / "vqacp" / f"vqacp_v2_{split}_questions.json", questions)
        write_rows(root / "vqacp" / f"vqacp_v2_{split}_annotations.json", annotations)


def vizwiz_ten(number):
    return (*["the cat"] * 5, *[f"cup {number} of {place}" for place in range(5)])


def write_vizwiz(root):
    """A question an image: 20 to train, 4 to validate, 2 without answers. "the cat" is all that many say."""
    for split, count in {"train": 20, "val": 4, "test": 2}.items():
        rows = [{"image": f"VizWiz_{split}_{n:08d}.jpg", "question": "what is red ?"} for n in range(count)]
        if split != "test":
            given = {"answer_type": "other", "answerable": 1}
            rows = [row | given | {"answers": ten(vizwiz_ten(n))} for n, row in enumerate(rows)]
        write_rows(root / "vizwiz" / "official" / f"{split}.json", rows)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder whose data folder has the makers' files, the stores made of them, and regions."""
    root = tmp_path_factory.mktemp("like") / "data"
    write_okvqa(root)
    write_vqacp(root)
    write_vizwiz(root)
    for task in ("okvqa", "vqacp", "vizwiz"):
        assert main([task, str(root)]) == 0
    write_vocabulary(root / "vocab.txt")
    for folder in ("train2014", "val2014"):
        images = {f"COCO_{folder}_{n:012d}": n for n in range(12)}
        write_regions(root / "mscoco_imgfeat" / f"{folder}_obj36.tsv", images)
    for split, count in {"train": 20, "val": 4, "test": 2}.items():
        images = {f"VizWiz_{split}_{n:08d}": n for n in range(count)}
        write_regions(root / "vizwiz_imgfeat" / f"{split}_obj36.tsv", images)
    return root


def options(name):
    """What conf/data/<name>.yaml says beside what it takes over from vqa.yaml."""
    return {
        key: value
        for key, value in yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text()).items()
        if key != "defaults"
    }


def open_data(root, name, **changes):
    return VqaDataModule(root, root / "vocab.txt", **options(name), feature_dim=F, batch_size=4, **changes)


# ------------------------------------------------------------------------------------- makers' files


def rows_of(store):
    got = store.read(np.arange(len(store)))
    return {i: store.table("image")[code] for i, code in zip(got.ids, got.image, strict=True)}


def test_the_answers_are_those_to_train_on_by_the_rule_of_each_data_set(root):
    lists = {
        name: json.loads((root / name / "trainval_label2ans.json").read_text())
        for name in ("okvqa", "vqacp", "vizwiz")
    }
    # All that annotators gave, as they are, each to twenty questions; or the most given, normalised.
    every = sorted(set(TEN))
    assert lists == {"okvqa": every, "vqacp": ["cat"], "vizwiz": ["the cat"]}


def test_images_are_called_as_in_their_region_files(root):
    stores = {
        name: ExampleStore(root / "stores" / f"{name}.h5")
        for name in ("okvqa/val", "vqacp/test", "vizwiz/train", "vizwiz/test")
    }
    assert rows_of(stores["okvqa/val"]) == {n: f"COCO_val2014_{n // 10:012d}" for n in range(100, 120, 5)}
    assert rows_of(stores["vqacp/test"]) == {
        n: f"COCO_{'train2014' if n < 110 else 'val2014'}_{n // 10:012d}" for n in range(100, 120, 5)
    }
    assert rows_of(stores["vizwiz/train"]) == {n: f"VizWiz_train_{n:08d}" for n in range(20)}
    assert not stores["vizwiz/test"].labelled and stores["vqacp/test"].labelled


def test_scores_and_ten_answers_are_as_annotated(root):
    for name, label in {
        "okvqa": {"cat": 1.0, "cat.": 0.3, "dog": 0.6, "a cat": 0.3, "red": 0.3, "": 0.3},
        "vqacp": {"cat": 1.0},
        "vizwiz": {"the cat": 1.0},
    }.items():
        store = ExampleStore(root / "stores" / name / "train.h5")
        got = store.read(np.array([3]))
        answers, table = store.table("answers"), store.table("annotator_answers")
        scores = zip([answers[code] for code in got.answers], got.scores.tolist(), strict=True)
        assert {answer: round(score, 6) for answer, score in scores} == label
        written = vizwiz_ten(3) if name == "vizwiz" else TEN
        assert tuple(table[code] for code in got.annotator_answers[0]) == written


def fails(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 1
    return capsys.readouterr().err


def test_missing_files_are_listed_with_their_makers_page(tmp_path, capsys):
    assert "okvqa.allenai.org" in fails(capsys, "okvqa", tmp_path)
    said = fails(capsys, "vizwiz", tmp_path)
    assert "3 file(s) are missing" in said and "vizwiz.org" in said and "datamodules.download.__main__" not in said


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("vqacp", "vqacp_v2_train_questions.json", {"coco_split": "test"}, "question 0: coco_split is 'test'"),
        ("vqacp", "vqacp_v2_train_questions.json", {"coco_split": None}, "question 0: coco_split is None"),
        ("vqacp", "vqacp_v2_test_annotations.json", {"coco_split": "test2015"}, "do not belong together"),
        ("vizwiz", "official/val.json", {"image": "1.jpg"}, "question 0: image is '1.jpg', expected a name"),
        ("vizwiz", "official/val.json", {"image": "VizWiz_val_00000001.jpg"}, "question 1: 1 is there a second"),
        ("vizwiz", "official/train.json", {"answers": ten()[:3]}, "annotation 0: expected 10 answers that are"),
    ],
)
def test_a_bad_row_is_refused_by_file_and_number(tmp_path, capsys, name, file, change, message):
    {"vqacp": write_vqacp, "vizwiz": write_vizwiz}[name](tmp_path)
    path = tmp_path / name / file
    rows = json.loads(path.read_text())
    write_rows(path, [rows[0] | change, *rows[1:]])
    said = fails(capsys, name, tmp_path)
    assert message in said and str(path) in said


def test_the_answer_list_is_never_made_of_a_test_split(tmp_path, capsys):
    write_vqacp(tmp_path)
    assert main(["vqacp", str(tmp_path), "--splits", "test"]) == 0
    answers = tmp_path / "vqacp" / "trainval_label2ans.json"
    assert json.loads(answers.read_text()) == ["cat"]  # of train
    answers.unlink()
    (tmp_path / "vqacp" / "vqacp_v2_train_annotations.json").unlink()
    assert "annotations of train, for the answer list" in fails(capsys, "vqacp", tmp_path, "--splits", "test")


# ---------------------------------------------------------------------------------------- data module


@pytest.mark.parametrize("name", ["okvqa", "vqacp", "vizwiz"])
def test_every_row_has_the_regions_of_its_image(root, name):
    data = open_data(root, name)
    data.prepare_data()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch.num_rows == 4
    for image, features, mask in zip(batch.image_ids, batch.region_features, batch.region_mask, strict=True):
        np.testing.assert_allclose(features[mask].float(), features_of(int(image[-4:])), rtol=1e-3)
    assert sorted(i for b in data.test_dataloader() for i in b.example_ids) == (
        [0, 1, 2, 3] if name == "vizwiz" else [100, 105, 110, 115]
    )


@pytest.mark.parametrize("splits", [{"valid": "test"}, {"valid": ["train", "test"]}, {"train": "train,test"}])
def test_a_split_to_test_on_is_refused_for_training_and_validation(root, splits):
    with pytest.raises(ValueError, match=r"data\.(valid|train) names test, which is for testing only"):
        VqaDataModule(root, root / "vocab.txt", **options("vqacp") | splits)


def test_a_folder_without_texts_says_how_they_are_made(root, tmp_path):
    data = VqaDataModule(tmp_path, root / "vocab.txt", **options("okvqa"))
    with pytest.raises(FileNotFoundError, match=r"no texts of okvqa.*python -m datamodules\.prepare"):
        data.prepare_data("fit")


# ------------------------------------------------------------------------------- without validation


class Recorder(LightningModule):
    """Remembers what it was trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch.example_ids))
        return (self.weight - 1).square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_without_validation_a_finished_training_goes_on_as_if_it_had_not_stopped(root, tmp_path):
    def fit(epochs, folder, resume=None):
        callback = ModelCheckpoint(folder, "last", every_n_epochs=1, save_on_train_epoch_end=True)
        trainer = Trainer(
            accelerator="cpu", devices=1, max_epochs=epochs, use_distributed_sampler=False, logger=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[callback],
        )  # fmt: skip
        recorder = Recorder()
        trainer.fit(recorder, open_data(root, "vqacp"), ckpt_path=resume, weights_only=True)
        return recorder.seen

    whole = fit(3, tmp_path / "whole")
    assert len(whole) == 15
    assert fit(1, tmp_path / "first") + fit(3, tmp_path / "rest", tmp_path / "first" / "last.ckpt") == whole


def overrides(root, name):
    return [
        f"experiment={name}", *TINY, "model.r_layers=1", f"model.visual_feat_dim={F}", "trainer=cpu",
        "trainer.max_epochs=1", "trainer.limit_train_batches=2", "data.batch_size=4", "data.workers=0",
        f"data.tokenizer={root}/vocab.txt",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def vqacp_run(root):
    return train(*overrides(root, "vqacp"), folder=root.parent)


def test_without_validation_the_last_weights_are_kept_and_tested(vqacp_run):
    assert not (vqacp_run / "checkpoints" / "best.ckpt").exists()
    found = summary(vqacp_run)
    assert found["checkpoint"] == str(vqacp_run / "checkpoints" / "last.ckpt")
    assert checkpoint(vqacp_run)["global_step"] == 2
    assert {"test/answering/accuracy", "test/answering/official_accuracy"} <= found["metrics"].keys()
    assert not any(name.startswith("val/") for name in found["metrics"])
    predictions = json.loads((vqacp_run / "predictions" / "test.json").read_text())
    assert [row["question_id"] for row in predictions] == [100, 105, 110, 115]


def test_a_finished_run_without_validation_can_be_resumed(root, vqacp_run):
    before = weights(vqacp_run)
    run = train(*overrides(root, "vqacp"), "resume=last", "trainer.max_epochs=2", folder=root.parent)
    assert checkpoint(run)["global_step"] == 4
    assert summary(run)["checkpoint"] == str(run / "checkpoints" / "last.ckpt")
    assert run == vqacp_run
    after = weights(run)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_vqacp_is_not_validated_on_its_test_split(root, vqacp_run):
    last = f"checkpoint={vqacp_run}/checkpoints/last.ckpt"
    said = train(*overrides(root, "vqacp"), "action=validate", "split=test", last, folder=root.parent, fails=True)
    assert "data.valid names test, which is for testing only" in said


def test_okvqa_trains_too(root):
    run = train(*overrides(root, "okvqa"), folder=root.parent)
    assert summary(run)["checkpoint"] == str(run / "checkpoints" / "last.ckpt")
    predictions = json.loads((run / "predictions" / "val.json").read_text())
    assert len(predictions) == 4 and predictions[0]["question_id"] == 100


def test_vizwiz_is_scored_by_its_own_rule_and_written_in_its_own_format(root, tmp_path):
    """Trained; two splits with the same ids predicted on two processes; scored and checked without the model."""
    run = train(*overrides(root, "vizwiz"), folder=root.parent)
    assert summary(run)["checkpoint"] == str(run / "checkpoints" / "best.ckpt")
    predictions, truth = run / "predictions" / "val.json", root / "vizwiz" / "official" / "val.json"
    rows = json.loads(predictions.read_text())
    assert [row["image"] for row in rows] == [f"VizWiz_val_{n:08d}.jpg" for n in range(4)]

    assert evaluate(["check", "vizwiz", str(predictions), str(truth)]) == 0
    assert evaluate(["vizwiz", str(predictions), str(truth), "--json", str(tmp_path / "scores.json")]) == 0
    # VizWiz normalises the answer alone: "cat" is none of the ten. By VQA's rule it would be right.
    assert json.loads((tmp_path / "scores.json").read_text())["metrics"] == {"accuracy": 0.0}
    measured = summary(run)["metrics"]
    assert [measured[f"{stage}/answering/accuracy"] for stage in ("val", "test")] == [1.0, 1.0]
    assert [measured[f"{stage}/answering/official_accuracy"] for stage in ("val", "test")] == [0.0, 0.0]

    best = f"checkpoint={run}/checkpoints/best.ckpt"
    command = [*overrides(root, "vizwiz"), "action=predict", best, "data.predict=[val,test]", "trainer.devices=2"]
    two = train(*command, folder=root.parent) / "predictions"
    assert sorted(path.name for path in two.iterdir()) == [
        f"{split}{ending}" for split in ("test", "val") for ending in (".json", "_answers.csv", "_scores.npz")
    ]
    assert json.loads((two / "val.json").read_text()) == rows  # of one process and one split
    with (two / "test_answers.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    submitted = {row["image"]: row["answer"] for row in json.loads((two / "test.json").read_text())}
    assert submitted == {f"{row['image']}.jpg": row["answer_1"] for row in table}
    assert [(row["id"], row["question"], row["truth"]) for row in table] == [
        ("0", "what is red ?", ""),
        ("1", "what is red ?", ""),
    ]
