import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from datamodules.formats.release_vqa import convert_vqa
from datamodules.prepare.__main__ import main
from datamodules.prepare.preparation import Preparation
from datamodules.stores.texts import ExampleStore
from lxmert.evaluate import vqa_soft_scores

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
real = pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not there: no real files to try")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def copy(source, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(source.read_bytes())


def rows_of(path):
    """All that is in a store, by identifier."""
    store = ExampleStore(path)
    got = store.read(np.arange(len(store)))
    answers, images = store.table("answers"), store.table("image")
    ten = store.table("annotator_answers") if store.annotated else []
    ends = np.cumsum(got.answer_counts)
    spans = [slice(end - count, end) for count, end in zip(got.answer_counts, ends, strict=True)]
    return {
        identifier: {
            "text": got.texts[i],
            "image": images[got.image[i]],
            "label": {
                answers[c]: round(float(s), 6)
                for c, s in zip(got.answers[spans[i]], got.scores[spans[i]], strict=True)
            },
            **{name: store.table(name)[codes[i]] for name, codes in got.groups.items()},
            **({"ten": [ten[c] for c in got.annotator_answers[i]]} if store.annotated else {}),
        }
        for i, identifier in enumerate(got.ids)
    }


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())["stores"]


# --------------------------------------------------------------------------------------------- VQA


def question(number, text="What is it?"):
    return {"image_id": number // 1000, "question": text, "question_id": number}


def annotation(number, answers=("cat",) * 10, most="cat"):
    entries = [{"answer": a, "answer_confidence": "yes", "answer_id": i + 1} for i, a in enumerate(answers)]
    return {
        "question_id": number,
        "image_id": number // 1000,
        "answers": entries,
        "multiple_choice_answer": most,
        "answer_type": "other",
        "question_type": "what is",
    }


def makers(root, folder, questions, annotations=None):
    write(root / "vqa" / f"v2_OpenEnded_mscoco_{folder}_questions.json", {"info": {}, "questions": questions})
    if annotations is not None:
        write(root / "vqa" / f"v2_mscoco_{folder}_annotations.json", {"annotations": annotations, "info": {}})


@pytest.fixture
def vqa(tmp_path):
    """A data folder of 9 questions in train2014, 3 images in val2014 and one question in test2015."""
    train, val = [i * 1000 for i in range(1, 10)], [20_000, 20_001, 21_000, 22_000]
    ten = ("cat", "cat", "dog", "cat.", "cat", "Cat", "a cat", "dog", "dog", "bird")
    makers(tmp_path, "train2014", [question(n) for n in train], [annotation(n, ten, "Cat,") for n in train])
    makers(tmp_path, "val2014", [question(n) for n in val], [annotation(n, most="rare") for n in val[::-1]])
    makers(tmp_path, "test2015", [question(30_000)])
    return tmp_path


def test_vqa_becomes_stores_and_an_answer_list(vqa, capsys):
    assert main(["vqa", str(vqa)]) == 0
    # "Cat," of nine questions, normalised; "rare" has four.
    assert json.loads((vqa / "vqa" / "trainval_label2ans.json").read_text()) == ["cat"]
    stores = vqa / "stores" / "vqa"
    train, val, test = (rows_of(stores / f"{name}.h5") for name in ("train", "val", "test"))
    assert train[1000] == {
        "text": "What is it?",
        "image": "COCO_train2014_000000000001",
        "label": {"cat": 0.9},  # three of the ten, as they wrote it
        "answer_type": "other",
        "question_type": "what is",
        "ten": ["cat", "cat", "dog", "cat.", "cat", "Cat", "a cat", "dog", "dog", "bird"],
    }
    assert list(val) == [20_000, 20_001, 21_000, 22_000] and val[20_001]["label"] == {"cat": 1.0}
    assert test == {30_000: {"text": "What is it?", "image": "COCO_test2015_000000000030", "label": {}}}
    assert not ExampleStore(stores / "test.h5").labelled
    assert "--minival divides it" in capsys.readouterr().out


def test_minival_is_the_questions_of_the_images_that_a_file_tells(vqa, capsys):
    by_list = write(vqa / "vqa" / "minival.json", [{"img_id": "COCO_val2014_000000000020", "question_id": 20_000}])
    by_features = write(vqa / "features.tsv", "COCO_val2014_000000000020\tx\nCOCO_val2014_000000000022\ty\n")
    stores = vqa / "stores" / "vqa"
    for file, minival, nominival in ((by_list, 2, 2), (by_features, 3, 1)):
        assert main(["vqa", str(vqa), "--minival", str(file)]) == 0
        counts = {name: entry["counts"]["examples"] for name, entry in manifest(stores).items()}
        assert (counts["minival"], counts["nominival"]) == (minival, nominival)
    assert set(rows_of(stores / "minival.h5")) == {20_000, 20_001, 22_000}
    assert not (stores / "val.h5").exists()


def test_only_five_thousand_images_of_a_feature_file_are_minival(vqa, monkeypatch):
    monkeypatch.setattr("datamodules.prepare.vqa.MINIVAL_IMAGES", 1)
    features = write(vqa / "f.tsv", "COCO_val2014_000000000022\tx\nCOCO_val2014_000000000020\tx\n")
    assert main(["vqa", str(vqa), "--minival", str(features), "--splits", "val"]) == 0
    assert set(rows_of(vqa / "stores" / "vqa" / "minival.h5")) == {22_000}


def test_the_answer_list_is_that_of_train_and_val_whichever_split_is_made(vqa, capsys):
    assert main(["vqa", str(vqa), "--splits", "val"]) == 0
    assert json.loads((vqa / "vqa" / "trainval_label2ans.json").read_text()) == ["cat"]  # of train alone
    assert not (vqa / "stores" / "vqa" / "train.h5").exists()
    (vqa / "vqa" / "v2_mscoco_train2014_annotations.json").unlink()
    assert main(["vqa", str(vqa), "--splits", "val"]) == 0  # it is there
    (vqa / "vqa" / "trainval_label2ans.json").unlink()
    said = fails(capsys, "vqa", vqa, "--splits", "val")
    assert "1 file(s) are missing" in said and "annotations of train2014, for the answer list" in said
    assert main(["vqa", str(vqa), "--splits", "test"]) == 0  # has no answers, and needs no list


def test_the_manifest_tells_sources_and_counts(vqa):
    main(["vqa", str(vqa)])
    entry = manifest(vqa / "stores" / "vqa")["train"]
    assert entry["counts"] == {"examples": 9, "images": 9, "without answer": 0}
    names = ["v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"]
    assert [source["name"] for source in entry["sources"]] == [*names, "trainval_label2ans.json"]
    for source in entry["sources"]:
        content = (vqa / "vqa" / source["name"]).read_bytes()
        assert (source["size"], source["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_only_what_changed_is_made_again(vqa, capsys):
    main(["vqa", str(vqa)])
    stores = {name: vqa / "stores" / "vqa" / f"{name}.h5" for name in ("train", "val", "test")}
    before = {name: path.stat().st_mtime_ns for name, path in stores.items()}
    makers(vqa, "test2015", [question(30_000), question(31_000)])
    stores["val"].unlink()
    capsys.readouterr()
    assert main(["vqa", str(vqa)]) == 0
    lines = [line.replace("┃", " ").replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "val", "test"] in lines and ["kept", "made", "made"] in lines
    assert stores["train"].stat().st_mtime_ns == before["train"]
    assert len(rows_of(stores["test"])) == 2


def fails(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 1
    return capsys.readouterr().err


def test_all_missing_files_are_listed_at_once(tmp_path, capsys):
    message = fails(capsys, "vqa", tmp_path, "--minival", tmp_path / "minival.json")
    assert message.count("2014_questions.json") == 2 and message.count("annotations.json") == 2
    assert "6 file(s) are missing" in message and "the images of minival" in message
    message = fails(capsys, "pretrain", tmp_path)
    assert "captions_val2014.json" in message and "python -m datamodules.prepare vqa --minival" in message


def test_a_file_that_is_there_twice_is_refused(vqa, capsys):
    copy(
        vqa / "vqa" / "v2_OpenEnded_mscoco_test2015_questions.json",
        vqa / "vqa" / "old" / "v2_OpenEnded_mscoco_test2015_questions.json",
    )
    assert "is there 2 times" in fails(capsys, "vqa", vqa)


def test_a_truncated_file_is_named_with_the_byte(vqa, capsys):
    path = vqa / "vqa" / "v2_mscoco_train2014_annotations.json"
    path.write_bytes(path.read_bytes()[:-500])
    message = fails(capsys, "vqa", vqa)
    assert f"{path}: broken JSON at byte " in message and "It is cut off" in message
    assert not list((vqa / "stores").rglob("*.h5"))


@pytest.mark.parametrize(
    ("questions", "annotations", "message"),
    [
        ([1000, 1000], [1000], "questions.json: question 1: 1000 is there a second time"),
        ([1000], [1000, 1000], "annotations.json: annotation 1: 1000 is there a second time"),
        (
            [1000],
            [1000, 2000],
            "0 have no annotation of their image, 1 questions (2000) of the annotations have no",
        ),
        ([1000, 2000], [1000], "1 questions (2000) have no annotation of their image, 0 of the annotations"),
    ],
)
def test_questions_and_annotations_must_belong_together(vqa, capsys, questions, annotations, message):
    makers(vqa, "train2014", [question(n) for n in questions], [annotation(n) for n in annotations])
    write(vqa / "vqa" / "trainval_label2ans.json", ["cat"])
    assert message in fails(capsys, "vqa", vqa)
    assert not (vqa / "stores" / "vqa" / "train.h5").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "x"}, "question 0: image_id is 'x', expected an integer as image_id"),
        ({"question": " "}, "question 0: question is ' ', expected a text as question"),
        ({"question_id": None}, "question 0: question_id is None"),
    ],
)
def test_a_bad_question_is_refused_by_file_and_number(vqa, capsys, change, message):
    makers(vqa, "test2015", [question(1000) | change])
    assert message in fails(capsys, "vqa", vqa)


@real
def test_the_real_vqa_questions_get_the_released_scores(tmp_path):
    names = ("v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json")
    for name in names:
        copy(SHARED / "vqa_mini" / name, tmp_path / "vqa" / name)
    copy(SHARED / "vocab" / "vqa_trainval_label2ans.json", tmp_path / "vqa" / "trainval_label2ans.json")
    assert main(["vqa", str(tmp_path), "--splits", "train"]) == 0
    vocabulary = set(json.loads((SHARED / "vocab" / "vqa_trainval_label2ans.json").read_text()))
    rows = rows_of(tmp_path / "stores" / "vqa" / "train.h5")
    annotations = json.loads((SHARED / "vqa_mini" / names[1]).read_text())["annotations"]
    assert len(rows) == len(annotations) == 7
    for row in annotations:
        answers = [entry["answer"] for entry in row["answers"]]
        assert rows[row["question_id"]]["ten"] == answers
        assert rows[row["question_id"]]["label"] == vqa_soft_scores(answers, vocabulary)
    assert rows[458752000]["label"] == {"net": 1.0}  # eight of ten; netting and mesh are not among the 3,129


@real
def test_the_makers_files_and_the_release_give_equal_stores(tmp_path):
    coco10 = SHARED / "coco10"
    copy(coco10 / "official/questions.json", tmp_path / "vqa/v2_OpenEnded_mscoco_train2014_questions.json")
    copy(coco10 / "official/annotations.json", tmp_path / "vqa/v2_mscoco_train2014_annotations.json")
    released = {
        name: convert_vqa(
            coco10 / "vqa" / f"{name}.json",
            tmp_path / f"{name}.h5",
            {"train2014": coco10 / "official/annotations.json"},
        )
        for name in ("train", "minival")
    }
    expected = rows_of(released["train"]) | rows_of(released["minival"])
    answers = sorted({answer for row in expected.values() for answer in row["label"]})
    write(tmp_path / "vqa" / "trainval_label2ans.json", answers)
    assert main(["vqa", str(tmp_path), "--splits", "train"]) == 0
    assert rows_of(tmp_path / "stores" / "vqa" / "train.h5") == expected


# --------------------------------------------------------------------------------------------- GQA


def gqa_question(image, text="Is it red?", answer="yes", balanced=True):
    types = {"structural": "verify", "semantic": "attr", "detailed": "verifyAttrC"}
    return {
        "question": text,
        "answer": answer,
        "fullAnswer": f"{answer}, it is.",
        "imageId": image,
        "isBalanced": balanced,
        "types": types,
        "groups": {"global": None, "local": "1"},
        "entailed": [],
        "equivalent": [],
        "semantic": [],
    }


@pytest.fixture
def gqa(tmp_path):
    """A data folder with GQA's files: two questions in train, one balanced question in each other split."""
    folder = tmp_path / "gqa"
    train = {"02": gqa_question("1", answer="red"), "03": gqa_question("2")}
    write(folder / "train_balanced_questions.json", train)
    write(folder / "val_balanced_questions.json", {"04": gqa_question("3", answer="red")})
    write(folder / "testdev_balanced_questions.json", {"05": gqa_question("n9", answer="no")})
    write(
        folder / "submission_all_questions.json",
        {"06": {"question": "Who?", "imageId": "n8", "isBalanced": False}},
    )
    write(folder / "val_all_questions.json", {"04": gqa_question("3"), "07": gqa_question("3", balanced=False)})
    write(folder / "testdev_all_questions.json", {"05": gqa_question("n9")})
    for number, identifier in ((10, "11"), (2, "08"), (0, "02")):
        chunk = folder / "train_all_questions" / f"train_all_questions_{number}.json"
        write(chunk, {identifier: gqa_question("1", balanced=identifier == "02")})
    write(folder / "train_choices.json", {"02": {}, "03": {}})
    write(folder / "val_choices.json", {})
    return tmp_path


def test_gqa_becomes_stores_and_an_answer_list(gqa, capsys):
    assert main(["gqa", str(gqa), "--all"]) == 0
    stores = gqa / "stores" / "gqa"
    row = {
        "text": "Is it red?",
        "image": "1",
        "label": {"red": 1.0},
        "structural": "verify",
        "semantic": "attr",
        "detailed": "verifyAttrC",
    }
    assert rows_of(stores / "train.h5") == {"02": row, "03": row | {"image": "2", "label": {"yes": 1.0}}}
    assert rows_of(stores / "submit.h5") == {"06": {"text": "Who?", "image": "n8", "label": {}}}
    everything = rows_of(stores / "train_all.h5")
    assert list(everything) == ["02", "08", "11"]  # the chunks by their numbers
    assert [row["balanced"] for row in everything.values()] == ["yes", "no", "no"]
    assert json.loads((gqa / "gqa" / "trainval_label2ans.json").read_text()) == ["red", "yes"]
    output = capsys.readouterr().out.replace("\n", " ")
    assert "1 questions of valid have no choices, the first being 04" in output
    assert "of train have no choices" not in output


@pytest.mark.parametrize("split", ["train", "valid"])
def test_the_answer_list_of_gqa_is_that_of_train_and_valid_whichever_is_made(gqa, capsys, split):
    assert main(["gqa", str(gqa), "--splits", split]) == 0
    answers = gqa / "gqa" / "trainval_label2ans.json"
    assert json.loads(answers.read_text()) == ["red", "yes"]
    answers.unlink()
    (gqa / "gqa" / f"{'val' if split == 'train' else 'train'}_balanced_questions.json").unlink()
    assert "for the answer list" in fails(capsys, "gqa", gqa, "--splits", split)
    assert not answers.exists()


def test_a_gqa_question_in_two_chunks_is_refused(gqa, capsys):
    write(gqa / "gqa/train_all_questions/train_all_questions_11.json", {"08": gqa_question("1")})
    assert "train_all_questions_11.json: question 08: 08 is there a second time" in fails(
        capsys, "gqa", gqa, "--all"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imageId": 7}, "question 02: imageId is 7, expected a text"),
        ({"answer": None}, "question 02: answer is None"),
        ({"types": []}, "question 02: types is [], expected an object"),
    ],
)
def test_a_bad_gqa_question_is_refused_by_file_and_id(gqa, capsys, change, message):
    path = write(gqa / "gqa/train_balanced_questions.json", {"02": gqa_question("1") | change})
    assert f"{path}: {message}" in fails(capsys, "gqa", gqa)


# ------------------------------------------------------------------------------------------- NLVR2


@real
def test_real_statements_become_rows_with_two_images(tmp_path):
    for name, source in (("dev", "dev_400"), ("test1", "test1_400")):
        copy(SHARED / "nlvr2" / f"{source}.json", tmp_path / "nlvr2/official" / f"{name}.json")
    assert main(["nlvr2", str(tmp_path), "--splits", "valid", "test"]) == 0
    statements = [json.loads(line) for line in (SHARED / "nlvr2/dev_400.json").read_text().splitlines()]
    rows = rows_of(tmp_path / "stores/nlvr2/valid.h5")
    assert list(rows) == [statement["identifier"] for statement in statements] and len(rows) == 400
    assert [row["text"] for row in rows.values()] == [statement["sentence"] for statement in statements]
    assert [row["label"] for row in rows.values()] == [{s["label"]: 1.0} for s in statements]
    first = rows["dev-850-0-0"]
    assert (first["image"], first["right"]) == ("dev-850-0-img0", "dev-850-0-img1")
    counts = manifest(tmp_path / "stores/nlvr2")
    assert counts["valid"]["counts"]["True"] == Counter(s["label"] for s in statements)["True"]
    assert counts["test"]["counts"]["examples"] == 400


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('{"identifier": "dev-1-0-0", "sen', "line 2: broken or truncated JSON at line 1, column 29"),
        ('{"identifier": "dev-1-0-0", "sentence": "B.", "label": "True"}', "dev-1-0-0 is there a second time"),
        (
            '{"identifier": "dév-1-0-1" "sen',
            "line 2: broken or truncated JSON at line 1, column 28 (character 27)",
        ),
        ('{"identifier": "dev-1-0", "sentence": "B.", "label": "True"}', "line 2: identifier 'dev-1-0'"),
        (
            '{"identifier": "dev-1-0-1", "sentence": "B.", "label": "1"}',
            "line 2: identifier 'dev-1-0-1' and label '1'",
        ),
        ('{"identifier": "dev-1-0-1", "sentence": "B.", "label": true}', "line 2: label is True, expected a text"),
    ],
)
def test_a_bad_statement_is_refused_by_its_line(tmp_path, capsys, second, message):
    first = '{"identifier": "dev-1-0-0", "sentence": "A.", "label": "True"}'
    write(tmp_path / "nlvr2/official/dev.json", f"{first}\n{second}\n")
    assert message in fails(capsys, "nlvr2", tmp_path, "--splits", "valid")


# ------------------------------------------------------------------------------------ pre-training


@pytest.fixture
def mixture(vqa, gqa):
    """VQA's and GQA's stores, and COCO's and Visual Genome's files about the same images (both in one folder)."""
    write(vqa / "vqa" / "minival.json", [{"img_id": "COCO_val2014_000000000020"}])
    assert main(["vqa", str(vqa), "--minival", str(vqa / "vqa" / "minival.json")]) == 0
    assert main(["gqa", str(vqa)]) == 0
    for folder, images in (("train2014", range(1, 10)), ("val2014", (20, 21, 22))):
        captions = [{"id": i, "image_id": i, "caption": f"Caption of {i}."} for i in images]
        content = {"info": {}, "images": [{"id": i} for i in images], "licenses": [], "annotations": captions}
        write(vqa / "coco" / f"captions_{folder}.json", content)
    # 1 is in train2014, 2 in minival, 3 only in Visual Genome, 4 of COCO's other images.
    coco = {1: 5, 2: 20, 3: None, 4: 999}
    write(vqa / "vg" / "image_data.json", [{"image_id": i, "coco_id": c} for i, c in coco.items()])
    regions = [
        {"id" if i % 2 else "image_id": i, "regions": [{"phrase": f"region of {i}"}, {"phrase": " "}]}
        for i in coco
    ]
    write(vqa / "vg" / "region_descriptions.json", regions)
    answers = ("A Cat.", "the grey", "Two.", "unheard")
    asked = [{"id": i, "qas": [{"question": f"VG {i}?", "answer": answer} for answer in answers]} for i in coco]
    write(vqa / "vg" / "question_answers.json", asked)
    return vqa


STORES = ("mscoco_train", "mscoco_nominival", "mscoco_minival", "vgnococo")


def sentences(root):
    return {
        name: [
            (r["source"], r["image"], r["text"], r["label"])
            for r in rows_of(root / f"stores/lxmert/{name}.h5").values()
        ]
        for name in STORES
    }


def test_the_mixture_puts_every_sentence_with_its_image(mixture, capsys):
    write(mixture / "lxmert/all_ans.json", [{"ans": a, "dsets": []} for a in ("cat", "gray", "2", "red", "yes")])
    assert main(["pretrain", str(mixture)]) == 0
    got = sentences(mixture)
    labels = [{"cat": 1.0}, {"gray": 1.0}, {"2": 1.0}, {}]

    def of_visual_genome(number, image):
        questions = [("visual7w", image, f"VG {number}?", label) for label in labels]
        return [("vg", image, f"region of {number}", {}), *questions]

    five, twenty = "COCO_train2014_000000000005", "COCO_val2014_000000000020"
    assert [s for s in got["mscoco_train"] if s[0] in ("vg", "visual7w")] == of_visual_genome(1, five)
    assert ("gqa", five, "Is it red?", {"red": 1.0}) in got["mscoco_train"]
    assert Counter(s[0] for s in got["mscoco_train"]) == dict(mscoco=9, vg=1, vqa=9, gqa=1, visual7w=4)
    minival = [("mscoco", twenty, "Caption of 20.", {}), *[("vqa", twenty, "What is it?", {"cat": 1.0})] * 2]
    minival += [("gqa", twenty, "Is it red?", {"yes": 1.0}), *of_visual_genome(2, twenty)]
    assert sorted(got["mscoco_minival"], key=str) == sorted(minival, key=str)
    assert {s[1] for s in got["mscoco_nominival"]} == {f"COCO_val2014_0000000000{i}" for i in (21, 22)}
    expected = [*of_visual_genome(3, "3"), *of_visual_genome(4, "4"), ("gqa", "3", "Is it red?", {"red": 1.0})]
    assert sorted(got["vgnococo"], key=str) == sorted(expected, key=str)
    counts = {name: entry["counts"] for name, entry in manifest(mixture / "stores/lxmert").items()}
    assert (counts["vgnococo"]["answers dropped"], counts["vgnococo"]["blank"]) == (2, 2)
    output = " ".join(capsys.readouterr().out.split())
    assert "Nothing about the 1 images of mscoco_minival or the 1 of GQA testdev is in the other stores" in output
    assert "1 images of Visual Genome have a coco_id of neither folder" in output


def test_without_a_table_it_is_made_of_the_training_answers(mixture):
    assert main(["pretrain", str(mixture)]) == 0
    table = {row["ans"]: row["dsets"] for row in json.loads((mixture / "lxmert/all_ans.json").read_text())}
    assert table == {
        "cat": ["visual7w", "vqa"],
        "red": ["gqa"],
        **{answer: ["visual7w"] for answer in ("gray", "2", "unheard")},
    }  # not "yes", which only minival has
    assert next(iter(table)) == "cat"


def test_the_same_mixture_is_kept_and_another_table_makes_it_anew(mixture, capsys):
    main(["pretrain", str(mixture)])
    capsys.readouterr()
    main(["pretrain", str(mixture)])
    assert re.findall("kept |made ", capsys.readouterr().out) == ["kept "] * 4
    write(mixture / "lxmert/all_ans.json", ["cat"])
    main(["pretrain", str(mixture)])
    assert re.findall("kept |made ", capsys.readouterr().out) == ["made "] * 4
    assert manifest(mixture / "stores/lxmert")["vgnococo"]["counts"]["answers dropped"] == 7


def test_images_of_gqa_testdev_are_left_out_of_training(mixture):
    write(mixture / "gqa/testdev_balanced_questions.json", {"05": gqa_question("1")})
    assert main(["gqa", str(mixture)]) == 0 and main(["pretrain", str(mixture)]) == 0
    assert not any("000000000005" in image for _, image, _, _ in sentences(mixture)["mscoco_train"])
    counts = manifest(mixture / "stores/lxmert")["mscoco_train"]["counts"]
    assert counts["held out"] == 1 + 1 + 1 + 1 + 4  # caption, region, VQA, GQA, Visual Genome's questions


def test_what_does_not_belong_together_is_refused(mixture, capsys):
    data = mixture / "vg" / "image_data.json"
    rows = json.loads(data.read_text())
    write(data, rows[:2])
    assert f"image 3 is not in {data}" in fails(capsys, "pretrain", mixture)
    write(data, rows)
    captions = {"images": [{"id": 21}], "annotations": [{"image_id": 21, "caption": "A."}]}
    write(mixture / "coco/captions_val2014.json", captions)
    assert "1 of its images are in none of captions_train2014.json" in fails(capsys, "pretrain", mixture)
    assert not list((mixture / "stores/lxmert").glob("*.h5"))


def test_where_the_makers_files_are_can_be_said(vqa, tmp_path):
    preparation = Preparation("vqa", tmp_path / "elsewhere", official=vqa)
    name = "v2_mscoco_val2014_annotations.json"
    assert preparation.find({name: ""}) == {name: vqa / "vqa" / name}
