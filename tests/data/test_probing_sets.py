"""Probing sets in their makers' files, and files that are none."""

import json

import pytest

from datamodules.formats.probes import Probe, read_probes
from lxmert.files import InputError

VALSE = {
    "actions_0": {
        "dataset": "SWiG",
        "linguistic_phenomena": "actions",
        "image_file": "exercising_255.jpg",
        "caption": "A man exercises his torso.",
        "foil": "A torso exercises for a man.",
        "mturk": {"foil": 0, "caption": 3, "other": 0},
    },
    "actions_1": {
        "linguistic_phenomena": "actions",
        "image_file": "b.jpg",
        "caption": "Judged otherwise.",
        "foil": "By two of three.",
        "mturk": {"foil": 2, "caption": 1, "other": 0},
    },
    "noun_2": {"image_file": "c.jpg", "caption": ["First.", "Second."], "foil": "F.", "mturk": {"caption": 2}},
}
FOIL = {
    "info": {},
    "images": [
        {"id": 25, "file_name": "COCO_val2014_000000000025.jpg"},
        {"id": 7, "file_name": "COCO_val2014_000000000007.jpg"},
    ],
    "annotations": [
        {"image_id": 25, "id": 1, "foil_id": 90, "foil": True, "caption": "a fork", "foil_word": "fork"},
        {"image_id": 7, "id": 2, "foil_id": 91, "foil": False, "caption": "a bus", "foil_word": "ORIG"},
        {"image_id": 25, "id": 1, "foil_id": 92, "foil": False, "caption": "a spoon", "foil_word": "ORIG"},
        {"image_id": 25, "id": 1, "foil_id": 93, "foil": True, "caption": "a knife", "foil_word": "knife"},
    ],
}
QUADRUPLE = {
    "id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "some plants surrounding a lightbulb",
    "caption_1": "a lightbulb surrounding some plants", "collapsed_tag": "Object", "num_main_preds": 1,
}  # fmt: skip


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_valse_is_read_with_the_examples_that_annotators_found_valid(tmp_path):
    assert read_probes(written(tmp_path / "actant-swap.json", VALSE)) == [
        Probe(
            "actions_0",
            "actions",
            ("exercising_255.jpg",),
            ("A man exercises his torso.", "A torso exercises for a man."),
        ),
        Probe("noun_2", "actant-swap", ("c.jpg",), ("First.", "F.")),
    ]


def test_foil_pairs_each_foil_with_the_caption_it_was_made_of(tmp_path):
    image = ("COCO_val2014_000000000025.jpg",)
    assert read_probes(written(tmp_path / "foilv1.0_test_2017.json", FOIL)) == [
        Probe("1/90", "foilv1.0_test_2017", image, ("a spoon", "a fork")),
        Probe("1/93", "foilv1.0_test_2017", image, ("a spoon", "a knife")),
    ]


def test_winoground_has_two_pictures_and_two_sentences(tmp_path):
    rows = [QUADRUPLE, {**QUADRUPLE, "id": 1, "collapsed_tag": ""}]
    path = written(tmp_path / "examples.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    sentences = (QUADRUPLE["caption_0"], QUADRUPLE["caption_1"])
    assert read_probes(path) == [
        Probe("0", "Object", ("ex_0_img_0", "ex_0_img_1"), sentences),
        Probe("1", "examples", ("ex_0_img_0", "ex_0_img_1"), sentences),
    ]


def test_one_s_own_rows_need_a_caption_a_foil_and_an_image(tmp_path):
    path = written(
        tmp_path / "mine.csv", "caption,foil,image,piece\na cat,a dog,7.jpg,animals\na bus,a car,8.jpg,\n"
    )
    assert read_probes(path) == [
        Probe("0", "animals", ("7.jpg",), ("a cat", "a dog")),
        Probe("1", "mine", ("8.jpg",), ("a bus", "a car")),
    ]
    rows = [{"id": 3, "image": 7, "caption": "a cat", "foil": "a dog"}]  # called by numbers
    assert read_probes(written(tmp_path / "mine.json", rows)) == [Probe("3", "mine", ("7",), ("a cat", "a dog"))]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("v.json", {"a": {**VALSE["actions_0"], "mturk": None}}, r"v.json: example a: mturk is None"),
        ("v.json", {"a": {**VALSE["actions_0"], "foil": ""}}, r"example a: foil is '', expected a text"),
        ("v.json", {"a": {**VALSE["actions_0"], "caption": []}}, r"example a: caption is \[\]"),
        ("v.json", {"a": {**VALSE["actions_0"], "image_file": 3}}, r"example a: image_file is 3"),
        ("v.json", {"a": {**VALSE["actions_0"], "foil": "A man exercises his torso."}}, "foil are both"),
        ("v.json", {"a": VALSE["actions_1"]}, "no example to use"),
        ("v.json", {"a": 3}, "example a: found 3"),
        ("f.json", {**FOIL, "images": []}, "annotation 0: no image 25"),
        ("f.json", {**FOIL, "annotations": FOIL["annotations"][:2]}, "0: no caption with foil false has"),
        ("f.json", {**FOIL, "annotations": [{**FOIL["annotations"][0], "foil": 1}]}, "foil is 1, expected true"),
        ("f.json", {"annotations": FOIL["annotations"]}, "no list 'images'"),
        ("w.jsonl", json.dumps({**QUADRUPLE, "image_1": None}), "line 1: image_1 is None"),
        ("w.jsonl", f"{json.dumps(QUADRUPLE)}\n{json.dumps(QUADRUPLE)}", "line 2: 0 is there a second time"),
        ("o.csv", "caption,image\na,b\n", "line 2: it has .caption, image.; expected caption, foil and image"),
        ("o.csv", "caption,foil\na,b\n", "line 2: image_file is None, expected a text as image_file"),
        ("o.json", "[3]", "row 0: found 3"),
        ("o.json", "[]", "no example to use"),
        ("o.json", '{"a": {"caption"', "cut off"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_are_named_with_the_row(tmp_path, name, content, says):
    with pytest.raises(InputError, match=says):
        read_probes(written(tmp_path / name, content))
