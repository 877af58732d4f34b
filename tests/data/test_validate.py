"""The report on data files: real ones are in order, and each thing that can be wrong with one is named."""

import base64
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules.convert import convert_tsv
from datamodules.formats.release_vqa import convert_vqa
from datamodules.toy.files import ToyParameters, generate
from datamodules.validate.__main__ import main, validate
from lxmert.files import InputError

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is absent")
WIDTH, HEIGHT, DIM = 640, 480, 8


def region_line(name="COCO_train2014_000000000001", count=3, seed=0, **changes):
    """A line of a region file; `changes` replace columns, arrays not yet encoded."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2)), axis=1) * [WIDTH, HEIGHT]
    columns = {
        "img_id": name,
        "img_h": HEIGHT,
        "img_w": WIDTH,
        "objects_id": rng.integers(0, 1600, count),
        "objects_conf": rng.random(count, np.float32),
        "attrs_id": rng.integers(0, 400, count),
        "attrs_conf": rng.random(count, np.float32),
        "num_boxes": count,
        "boxes": corners.reshape(count, 4).astype(np.float32),
        "features": rng.gamma(1, 1, (count, DIM)).astype(np.float32),
    } | changes
    encoded = [
        base64.b64encode(value.tobytes()).decode() if isinstance(value, np.ndarray) else str(value)
        for value in columns.values()
    ]
    return "\t".join(encoded) + "\n"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def problems(path):
    return [problem for report in validate(path)[0] for problem in report.problems]


def the_problem(path):
    """The one problem of a file."""
    found = problems(path)
    assert len(found) == 1, found
    return found[0]


def facts(path):
    (report,) = validate(path)[0]
    return {what: found for what, found, _ in report.facts} | {"kind": report.kind}


QUESTION = {
    "question_id": 1,
    "img_id": "COCO_train2014_000000000001",
    "sent": "what is it?",
    "label": {"cat": 1.0},
    "answer_type": "other",
    "question_type": "what is",
}
STATEMENT = {
    "identifier": "dev-1-0-0",
    "img0": "dev-1-0-img0",
    "img1": "dev-1-0-img1",
    "label": 1,
    "sent": "it is a cat",
    "uid": "nlvr2_valid_0",
}
OFFICIAL_STATEMENT = {"identifier": "dev-1-0-0", "sentence": "it is a cat", "label": "True"}
ENTRY = {
    "img_id": "COCO_train2014_000000000001",
    "sentf": {"mscoco": ["a cat"], "vqa": ["what is it?"]},
    "labelf": {"vqa": [{"cat": 1.0}]},
}
GQA_QUESTION = {"question": "is it a cat?", "imageId": "7", "isBalanced": True, "answer": "yes", "types": {}}
ANNOTATION = {
    "question_id": 1,
    "image_id": 1,
    "question_type": "what is",
    "multiple_choice_answer": "cat",
    "answer_type": "other",
    "answers": [{"answer": "cat", "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)],
}
OFFICIAL_QUESTION = {"question_id": 1, "image_id": 1, "question": "what is it?"}


def annotations(*rows):
    return {"info": {}, "data_subtype": "train2014", "annotations": list(rows)}


def official_questions(*rows):
    return {"info": {}, "data_subtype": "train2014", "questions": list(rows)}


# ------------------------------------------------------------------------------------- real files


@needs_data
@pytest.mark.parametrize("folder", ["coco10", "vqa_mini", "nlvr2", "vocab"])
def test_real_files_have_no_problems(folder, capsys):
    assert main([str(DATA / folder)]) == 0
    assert "no problems" in capsys.readouterr().out


@needs_data
def test_real_features_are_reported_beside_the_originals(tmp_path):
    found = facts(DATA / "coco10" / "train2014_obj36.tsv")
    assert found["images looked into"] == "10 of 10"
    assert found["regions an image"] == "36"
    assert found["least feature"] == "0"
    assert 25 <= float(found["largest feature"]) <= 36
    assert 0.5 <= float(found["mean of the features"]) <= 0.84
    assert found["share of zeros"] == "34 %"
    store = convert_tsv(DATA / "coco10" / "train2014_obj36.tsv", tmp_path / "train2014_obj36.h5", progress=False)
    assert problems(store) == []
    assert facts(store)["mean of the features"] == found["mean of the features"]


@needs_data
def test_the_kinds_of_the_real_files_are_recognised():
    kinds = {report.path.name: report.kind for report in validate(DATA)[0]}
    assert kinds["train2014_obj36.tsv"] == "regions of the LXMERT release"
    assert kinds["coco10.json"] == "pre-training texts of the LXMERT release"
    assert kinds["train.json"] == "questions of the LXMERT release"
    assert kinds["questions.json"] == "official questions of VQA v2"
    assert kinds["v2_mscoco_train2014_annotations.json"] == "official annotations of VQA v2"
    assert kinds["captions.json"] == "official captions of COCO"
    assert kinds["dev_400.json"] == "official statements of NLVR2"
    assert kinds["all_ans.json"] == "answer table of pre-training"
    assert kinds["vqa_trainval_label2ans.json"] == "answer list"


def test_a_whole_data_folder_with_its_stores_has_no_problems(tmp_path):
    root = tmp_path / "toy"
    generate(root, ToyParameters(train=6, minival=2, nominival=2, test=2, feature_dim=8, pictures=0))
    convert_tsv(root / "mscoco_imgfeat" / "train2014_obj36.tsv", root / "stores" / "train2014.h5", progress=False)
    convert_vqa(root / "vqa" / "train.json", root / "stores" / "train.h5")
    reports, _ = validate(root)
    assert {report.path.name: report.problems for report in reports if report.problems} == {}
    assert {"region store", "text store"} <= {report.kind for report in reports}


# ----------------------------------------------------------------------------------------- regions


def test_good_regions_have_no_problems(tmp_path):
    path = write(tmp_path / "a.tsv", region_line("a") + region_line("b", count=5, seed=1))
    assert problems(path) == []
    assert facts(path)["regions an image"] == "3 to 5, mostly 3"


def box(*corners):
    return np.array([corners] * 3, np.float32)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"boxes": box(0.1, 0.1, 0.5, 0.9)}, "boxes in fractions of the image, expected pixels"),
        ({"boxes": box(300, 10, 100, 200)}, "perhaps x y width height"),
        ({"boxes": box(0, 0, 470, 630)}, "boxes that fit when width and height are exchanged"),
        ({"boxes": box(0, 0, 900, 20)}, "boxes outside the image"),
        ({"boxes": box(0, 0, np.nan, 20)}, "boxes that are not numbers"),
        ({"objects_id": np.array([0, 1600, 3])}, "object ids outside the detector's 1,600 names"),
        ({"attrs_id": np.array([0, -7, 3])}, "attribute ids outside the detector's 400 names"),
        ({"features": np.full((3, DIM), np.inf, np.float32)}, "NaN or infinite features: 24 of 48"),
        ({"features": np.ones((3, DIM - 1), np.float32)}, "features has 112 base64 characters, expected 128"),
        ({"img_w": "wide"}, "img_w is 'wide'"),
        ({"num_boxes": 4}, "base64 characters"),
    ],
)
def test_each_thing_wrong_with_a_line_is_named(tmp_path, changes, expected):
    path = write(tmp_path / "a.tsv", region_line("a") + region_line("b", **changes))
    found = the_problem(path)
    assert expected in found
    assert "line 2" in found or "NaN" in found


def test_truncated_lines_and_repeated_images_are_named(tmp_path):
    whole = region_line("a")
    assert "features has" in the_problem(write(tmp_path / "cut.tsv", whole + region_line("b")[:-20]))
    assert "columns, expected 10" in the_problem(write(tmp_path / "columns.tsv", whole + "b\t480\t640\n"))
    assert "images that are there twice: line 2, image a" in problems(write(tmp_path / "two.tsv", whole * 2))
    assert the_problem(write(tmp_path / "empty.tsv", "")) == "empty file"


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (lambda good: good - 5, "least feature is -"),
        (lambda good: good * 10, "mean of the features is"),
        (lambda good: np.zeros_like(good), "share of zeros is 100 %"),
        (lambda good: good / good.max(), "largest feature is 1"),
    ],
)
def test_features_unlike_the_originals_are_a_problem(tmp_path, features, expected):
    rng = np.random.default_rng(0)
    good = np.where(rng.random((3, 2048)) < 0.3, 0, rng.gamma(0.25, 3.2, (3, 2048))).astype(np.float32)
    assert problems(write(tmp_path / "good.tsv", region_line(features=good))) == []
    found = problems(write(tmp_path / "bad.tsv", region_line(features=features(good).astype(np.float32))))
    assert any(expected in problem and "in the original release" in problem for problem in found)


def test_a_sample_is_looked_into_and_its_size_told(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.validate.regions.SAMPLE", 5)
    path = write(tmp_path / "a.tsv", "".join(region_line(f"image{n:02}", seed=n) for n in range(20)))
    assert facts(path)["images looked into"] == "5 of 20"
    store = convert_tsv(path, tmp_path / "a.h5", progress=False)
    assert facts(store)["images looked into"] == "5 of 20"
    assert facts(store)["images"] == "20"


def test_a_store_with_wrong_boxes_or_labels_is_named(tmp_path):
    store = convert_tsv(write(tmp_path / "a.tsv", region_line("a")), tmp_path / "a.h5", progress=False)
    assert problems(store) == []
    with h5py.File(store, "r+") as file:
        file["boxes"][0] = [0, 0, 300, 200]
        file["object_ids"][0] = 1600
    found = problems(store)
    assert any("boxes in pixels, expected fractions of the image: image a" in problem for problem in found)
    assert any("object ids outside" in problem for problem in found)
    store.write_bytes(store.read_bytes()[:-100])
    assert "Delete it and convert" in the_problem(store)


def test_gqas_own_object_features_are_recognised(tmp_path):
    with h5py.File(tmp_path / "gqa_objects_0.h5", "w") as file:
        file["features"], file["bboxes"] = np.ones((2, 100, 16), np.float32), np.ones((2, 100, 4), np.float32)
    assert facts(tmp_path / "gqa_objects_0.h5")["regions an image"] == "up to 100"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.ones(3)
    assert "neither a region store nor a text store" in the_problem(tmp_path / "other.h5")


# ------------------------------------------------------------------------------------------- texts

GOOD = {
    "questions.json": [QUESTION],
    "statements.json": [STATEMENT],
    "pretraining.json": [ENTRY],
    "official_questions.json": official_questions(OFFICIAL_QUESTION),
    "annotations.json": annotations(ANNOTATION),
    "captions.json": {
        "images": [{"id": 1, "file_name": "COCO_train2014_000000000001.jpg"}],
        "annotations": [{"id": 5, "image_id": 1, "caption": "a cat"}],
    },
    "official_statements.json": json.dumps(OFFICIAL_STATEMENT) + "\n",
    "gqa_questions.json": {"12": GQA_QUESTION},
    "choices.json": {"12": {"valid": ["yes", "no"], "plausible": ["yes"]}},
    "image_data.json": [{"image_id": 7, "url": "x", "width": 3, "height": 2, "coco_id": None}],
    "region_descriptions.json": [{"id": 7, "regions": [{"phrase": "a cat", "image_id": 7}]}],
    "question_answers.json": [{"id": 7, "qas": [{"question": "what?", "answer": "cat"}]}],
    "all_ans.json": [{"ans": "cat", "dsets": ["vqa"]}],
    "trainval_label2ans.json": ["cat", ""],
    "trainval_ans2label.json": {"cat": 0, "": 1},
    "vqa_predictions.json": [{"question_id": 1, "answer": "cat"}],
    "gqa_predictions.json": [{"questionId": "12", "prediction": "yes"}],
    "nlvr2_predictions.csv": "dev-1-0-0,True\n",
    "dataset_flickr30k.json": {
        "images": [
            {"filename": "7.jpg", "split": "restval", "sentences": [{"raw": "a cat", "sentid": 5, "imgid": 0}]},
            {"filename": "8.jpg", "split": "test", "sentences": [{"raw": "a dog", "sentid": 6, "imgid": 1}]},
        ],
        "dataset": "flickr30k",
    },
    "train_ann.jsonl": '{"id": 0, "img_path": "7.jpg", "sentences": ["a cat"]}\n',
    "foilv1.0_test_2017.json": {
        "images": [{"id": 7, "file_name": "COCO_val2014_000000000007.jpg"}],
        "annotations": [
            {"image_id": 7, "id": 1, "foil_id": -1, "foil": False, "caption": "a cat"},
            {"image_id": 7, "id": 1, "foil_id": 9, "foil": True, "caption": "a dog"},
        ],
    },
    "dev_seen.jsonl": '{"id": 42953, "img": "img/42953.png", "label": 0, "text": "its ok"}\n',
    "own.json": '{"question": "what?", "image": 7, "answer": "cat"}\n' * 2,
    "boxes.json": [{"id": 1, "img_id": "a", "sent": "the cat", "box": [1, 2, 3, 4]}],
}


@pytest.mark.parametrize("name", GOOD)
def test_each_kind_of_text_file_is_recognised_and_good(tmp_path, name):
    path = write(tmp_path / name, GOOD[name])
    assert problems(path) == []
    assert facts(path)["kind"]
    assert main([str(path)]) == 0


def test_what_comes_before_the_rows_may_be_long(tmp_path):
    content = {"info": {"contributors": ["x" * 100] * 2000}, **GOOD["official_questions.json"]}
    assert facts(write(tmp_path / "q.json", content))["kind"] == "official questions of VQA v2"


def test_the_kinds_are_all_different(tmp_path):
    assert len({facts(write(tmp_path / name, content))["kind"] for name, content in GOOD.items()}) == len(GOOD)


def test_captions_are_counted_by_split(tmp_path):
    path = write(tmp_path / "dataset_flickr30k.json", GOOD["dataset_flickr30k.json"])
    assert facts(path)["images by split"] == "train 1, test 1"
    write(path, {"images": [{**image, "sentences": []} for image in GOOD[path.name]["images"]]})
    assert the_problem(path) == "image 0: 7 has no captions. Mend or remove that row."


VALSE = {"caption": "a cat", "foil": "a dog", "image_file": "7.jpg", "mturk": {"caption": 3}}
WINOGROUND = {"id": 0, "image_0": "a", "image_1": "b", "caption_0": "a cat", "caption_1": "cat a"}


@pytest.mark.parametrize(
    ("name", "good", "broken", "problem"),
    [
        ("existence.json", {"e_0": VALSE}, {"e_0": {**VALSE, "foil": ""}}, "example e_0: foil is ''"),
        (
            "examples.jsonl",
            json.dumps(WINOGROUND),
            json.dumps({**WINOGROUND, "image_1": None}),
            "line 1: image_1 is None",
        ),
        ("own.csv", "caption,foil,image\na,b,7.jpg\n", "caption,foil,image\na,a,7.jpg\n", "are both 'a'"),
        ("own.tsv", "caption\tfoil\timage\na\tb\t7\n", "caption\tfoil\timage\na\ta\t7\n", "are both 'a'"),
    ],
)
def test_sets_to_probe_with_are_read_as_they_are_for_it(tmp_path, name, good, broken, problem):
    path = write(tmp_path / name, good)
    assert problems(path) == [] and facts(path)["kind"] == "sentences to tell apart"
    assert problem in the_problem(write(path, broken))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([QUESTION, QUESTION], "row 1 (question 1): duplicate question_id, first used in row 0"),
        (
            [QUESTION, {**QUESTION, "question_id": "2"}],
            "question_id must be an integer or a string, of one type in the whole",
        ),
        (
            [QUESTION, {**QUESTION, "question_id": 2, "sent": " "}],
            "row 1 (question 2): empty question: sent is ' '",
        ),
        (
            [QUESTION, {**QUESTION, "question_id": 2, "label": {"cat": 3}}],
            "row 1 (question 2): the score of answer 'cat' is 3",
        ),
        ([QUESTION, {**QUESTION, "question_id": None}], "row 1 (question None): question_id must be"),
        (
            [QUESTION, {"question_id": 2, "img_id": "a", "sent": "b"}],
            "row 1 (question 2): label, answer_type, question_type missing",
        ),
        (
            [STATEMENT, {**STATEMENT, "label": "True", "identifier": "dev-1-0-1"}],
            "label is 'True', expected 0 or 1",
        ),
        ([STATEMENT, STATEMENT], "duplicate identifier, first used in row 0"),
        (
            [{"ans": "cat", "dsets": ["vqa"]}, {"ans": "dog", "dsets": "vqa"}],
            "answer 1: its sources, dsets, are 'vqa'",
        ),
        ([ENTRY, ENTRY], "image that is there twice: entry 1"),
        ([{**ENTRY, "labelf": {"vqa": []}}], "entries that cannot be used: entry 0"),
        (
            official_questions(OFFICIAL_QUESTION, OFFICIAL_QUESTION),
            "question_id that is there twice: question 1, 1",
        ),
        (
            annotations({**ANNOTATION, "answers": ANNOTATION["answers"][:9]}),
            "annotation 0 (question 1): expected 10 answers",
        ),
        (
            {**GOOD["captions.json"], "images": []},
            "captions of images that the file does not list: annotation 0, 1",
        ),
        (
            {"12": {**GQA_QUESTION, "question": ""}, "13": GQA_QUESTION},
            "questions that cannot be used: question 12: question is ''",
        ),
        ('{"12": {"question": "a", "imageId": "7"}, "12": {"question": "a", "imageId": "7"}}', "there twice"),
        ({"12": {"valid": ["yes"], "plausible": "yes"}}, "questions without the lists valid and plausible: 12"),
        (json.dumps({**OFFICIAL_STATEMENT, "label": True}), "line 1: label is True, expected a text as label"),
        (
            json.dumps({**OFFICIAL_STATEMENT, "identifier": "dev"}),
            "expected split-set-pair-sentence and True or False",
        ),
        (
            [{"id": 7, "regions": [{"phrase": 3}]}],
            "regions that cannot be used: regions 7: phrase is 3, expected a text",
        ),
        ([{"question_id": "1", "answer": "cat"}], "question_id that is not an integer, as the server expects"),
        ([{"questionId": 12, "prediction": "yes"}], "questionId that is not a text, as the server expects"),
        ([{"question_id": 1, "answer": 3}], "answer that is not a text: row 0, 3"),
        ([{"question_id": 1, "answer": "a"}] * 2, "question_id that is there twice: row 1, 1"),
    ],
)
def test_each_thing_wrong_with_a_text_file_is_named(tmp_path, content, expected):
    path = write(tmp_path / "a.json", content)
    assert expected in the_problem(path)
    assert main([str(path)]) == 1


def test_a_prediction_line_that_the_server_would_not_take_is_named(tmp_path):
    path = write(tmp_path / "a.csv", "dev-1-0-0,True\ndev-1-0-1,1\n")
    assert "lines other than identifier,True or identifier,False: line 2" in the_problem(path)


def test_answer_lists_have_each_answer_once(tmp_path):
    assert "answer 2: the answer 'a' is there twice, first as answer 0" in the_problem(
        write(tmp_path / "label2ans.json", ["a", "b", "a"])
    )
    assert "without gaps" in the_problem(write(tmp_path / "ans2label.json", {"a": 0, "b": 2}))
    found = problems(write(tmp_path / "ans2label.json", {"a": 0, "b": 0}))
    assert any("number that is there twice" in problem for problem in found)


def test_answers_outside_the_list_beside_the_file_are_a_problem(tmp_path):
    write(tmp_path / "trainval_label2ans.json", ["dog", "bird"])
    path = write(tmp_path / "train.json", [QUESTION, {**QUESTION, "question_id": 2, "label": {"dog": 1}}])
    assert the_problem(path) == "answers that are not in the answer list: 'cat'"
    assert facts(path)["answers outside trainval_label2ans.json"] == "1, given 1 times"


def test_answers_outside_the_pre_training_table_are_only_counted(tmp_path):
    write(tmp_path / "all_ans.json", [{"ans": "dog", "dsets": ["vqa"]}])
    labels = {"vqa": [{"cat": 0.3, "A dog.": 0.9}]}
    path = write(tmp_path / "mscoco_train.json", [{**ENTRY, "labelf": labels}])
    assert problems(path) == []
    assert facts(path)["answers outside all_ans.json"] == "1, given 1 times"


def test_broken_json_is_named_with_its_place(tmp_path):
    path = write(tmp_path / "train.json", json.dumps([QUESTION, {**QUESTION, "question_id": 2}])[:-20])
    assert f"broken or truncated JSON at line 1, column {path.stat().st_size - 7} " in the_problem(path)


def test_a_text_store_whose_codes_or_scores_are_wrong_is_named(tmp_path):
    store = convert_vqa(write(tmp_path / "train.json", [QUESTION]), tmp_path / "train.h5")
    assert problems(store) == []
    with h5py.File(store, "r+") as file:
        file["answer/score"][0] = 2
    assert the_problem(store) == "scores outside 0 to 1: 2 to 2"
    with h5py.File(store, "r+") as file:
        file["image"][0] = 9
    assert "dataset 'image' has values from 9 to 9, expected 0 to 0. Delete it" in the_problem(store)


# --------------------------------------------------------------------------------- files together


def test_images_without_regions_are_named_where_there_are_regions(tmp_path):
    write(tmp_path / "vqa" / "train.json", [QUESTION, {**QUESTION, "question_id": 2, "img_id": "elsewhere"}])
    write(tmp_path / "vqa" / "annotations.json", annotations({**ANNOTATION, "image_id": 1}))
    write(tmp_path / "nlvr2" / "dev.json", json.dumps(OFFICIAL_STATEMENT))
    assert problems(tmp_path) == []
    write(tmp_path / "mscoco_imgfeat" / "train2014_obj36.tsv", region_line("COCO_train2014_000000000001"))
    assert sorted(problems(tmp_path)) == [
        "images without regions in this folder (of 2), 2: dev-1-0-img0; dev-1-0-img1",
        "images without regions in this folder (of 2): elsewhere",
    ]


def test_images_are_called_as_training_finds_them(tmp_path):
    write(tmp_path / "mine_imgfeat" / "all.tsv", region_line("1") + region_line("2"))
    texts = tmp_path / "mine" / "train.csv"
    write(texts, "question,image,answer\nred?,img/1.png,yes\nred?,2.jpg,no\n")
    assert problems(tmp_path) == []
    write(texts, "question,image,answer\nred?,a/1.png,yes\nred?,b/1.png,no\n")  # two images, one of which it is
    assert the_problem(tmp_path) == "images without regions in this folder (of 2), 2: a/1.png; b/1.png"


def test_annotations_without_a_question_are_named(tmp_path):
    write(tmp_path / "questions.json", official_questions(OFFICIAL_QUESTION))
    write(tmp_path / "annotations.json", annotations(ANNOTATION, {**ANNOTATION, "question_id": 2}))
    assert the_problem(tmp_path) == "annotations without a question: 2"


def test_a_folder_s_other_files_are_mentioned_and_are_no_problem(tmp_path, capsys):
    write(tmp_path / "config.json", {"hidden_size": 768})
    write(tmp_path / "train.json", [QUESTION])
    write(tmp_path / ".hidden" / "train.json", "{")
    write(tmp_path / "notes.md", "hello")
    assert main([str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "1 other file(s), of no kind that is known here: config.json" in output
    assert main([str(tmp_path / "config.json")]) == 1
    assert main([str(tmp_path / "notes.md")]) == 1
    assert "of no kind that is known here" in capsys.readouterr().out


def test_many_problems_of_one_sort_are_counted_and_the_first_shown(tmp_path, capsys):
    path = write(tmp_path / "train.json", [QUESTION] * 1001)
    assert main([str(path)]) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "1 problem(s)" in output
    assert (
        "rows that cannot be used, 1,000: row 1 (question 1): duplicate question_id, first used in row 0; row 2"
        in output
    )


def test_a_path_that_is_not_there_or_has_nothing_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "no such file or folder" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 1
    assert "no files of a kind that is known here" in capsys.readouterr().out


# ------------------------------------------------------------------------- an experiment of one's own


def own_experiment(folder, **data):
    (folder / "data" / "mine").mkdir(parents=True)
    return write(
        folder / "own" / "experiment" / "mine.yaml", {"defaults": ["own"], "data": {"folder": "mine", **data}}
    )


def test_the_experiment_of_ones_own_data_says_what_its_columns_are_and_where_its_regions(
    tmp_path, capsys, monkeypatch
):
    path = own_experiment(tmp_path, columns={"text": "Frage", "image": "Bild", "answer": None})
    monkeypatch.chdir(tmp_path)
    texts = write(Path("data/mine/train.csv"), "Frage,Bild,answer\nrot?,a.jpg,ja\nblau?,b,nein\ngelb?,a,Ja.\n")
    assert "of no kind that is known" in the_problem(texts)
    Path("data/mine/vocab.txt").write_text("[PAD]")
    regions = Path("data/mine_imgfeat/some.tsv")
    write(regions, region_line("a") + region_line("b"))
    assert main([str(path)]) == 0 and "no problems" in capsys.readouterr().out
    reports = validate(path)[0]
    assert {str(report.path): report.kind for report in reports} == {
        "data/mine/train.csv": "texts of your own",
        str(regions): "regions of the LXMERT release",
    }
    assert ("columns", "Bild (image), Frage (text), answer (answer)", "") in reports[0].facts
    store = Path("data/stores/mine_imgfeat/some.h5")
    convert_tsv(regions, store)
    write(regions, region_line("a")).rename("data/stores/other.tsv")  # no file of the experiment
    store.unlink()
    write(regions, region_line("a"))
    write(Path("data/mine/valid.csv"), "Frage,Bild\nrot?,\n")
    write(Path("data/mine/trainval_label2ans.json"), ["ja", "nein"])
    *others, row = problems(path)
    assert others == [
        "answers that are not in the answer list: 'Ja.'",
        "images without regions in this folder (of 3): b",
    ]
    assert row.startswith("rows that cannot be used: line 2: Bild is '', expected a text")
    again = write(Path("data/mine_imgfeat/more.tsv"), region_line("a") + region_line("b"))
    assert "images that another file has regions of too: a" in problems(path)
    again.unlink()
    normalized = {"text": "Frage", "image": "Bild", "normalized_answer": "answer"}
    write(path, {"data": {"folder": "mine", "columns": normalized}})
    assert problems(path)[0].startswith("images without regions")
    monkeypatch.chdir("/")
    assert main([str(path)]) == 1
    assert (
        "data/mine: no texts. Where paths.data is another folder, name it with --data" in capsys.readouterr().err
    )
    assert main([str(path), "--data", str(tmp_path / "data")]) == 1
    assert "2 problem(s)" in capsys.readouterr().out


def test_statements_about_three_images_are_counted_with_all_of_them(tmp_path, monkeypatch):
    path = own_experiment(tmp_path, columns={"img2": "back"})
    monkeypatch.chdir(tmp_path)
    write(Path("data/mine/train.csv"), "text,left,right,back,answer\nall red,a,b,c,1\n")
    write(Path("data/mine_imgfeat/some.tsv"), region_line("a") + region_line("b"))
    [report, _] = validate(path)[0]
    assert [fact[:2] for fact in report.facts][1:3] == [("statements about 3 images", "1"), ("images", "3")]
    assert report.problems == ["images without regions in this folder (of 3): c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data: [", "no YAML: "),
        ("model: {}", r"no data\.folder; expected what `python -m datamodules\.init` writes"),
        ("- 1", r"no data\.folder"),
    ],
)
def test_a_yaml_that_is_no_experiment_of_ones_own_data_is_refused(tmp_path, content, message):
    path = write(tmp_path / "mine.yaml", content)
    with pytest.raises(InputError, match=message):
        validate(path)
