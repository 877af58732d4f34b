"""Toy RefCOCO: its files against each other, and its expressions against readings that share no code with them."""

import json
from collections import Counter
from random import Random

import pytest

from datamodules.formats.refer import read_refer
from datamodules.formats.referring import Referring
from datamodules.toy import refcoco as toy_refcoco
from datamodules.toy.expressions import EXPRESSION_KINDS, refer
from datamodules.toy.refcoco import (
    POINTING,
    SPLITS,
    ToyRefcocoParameters,
    generate,
    nearest_accuracy,
    text_only_accuracy,
)
from datamodules.toy.world import COLORS, SHAPES, SIZES, draw_scenes
from lxmert.evaluate import box_iou
from lxmert.tokenization import LxmertTokenizer

SMALL = ToyRefcocoParameters(train=12, val=6, testA=5, testB=4, regions=8, feature_dim=16, pictures=2, seed=7)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("toy") / "refcoco", SMALL, progress=False)


@pytest.fixture(scope="module")
def said():
    """(scene, the thing that is meant, the expression)."""
    rng = Random("expressions")
    return [
        (scene, scene.things[place], text)
        for scene in draw_scenes(["any"] * 400, rng)
        for place, text in refer(scene, 5, rng)
    ]


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def rows_of(root, split):
    return json.loads((root / "refcoco" / f"{split}.json").read_text())


# --------------------------------------------------------------------------------- files


def test_the_folder_holds_these_files_and_the_same_parameters_give_the_same(root, tmp_path):
    assert {name for name in contents(root) if not name.startswith("images/")} == {
        "refcoco/refs(unc).p", "refcoco/instances.json", *(f"refcoco/{split}.json" for split in SPLITS),
        "visual7w/dataset_v7w_pointing.json", *(f"visual7w/{split}.json" for split in POINTING.values()),
        "mscoco_imgfeat/train2014_obj36.tsv", "vocab.txt", "toy.json",
    }  # fmt: skip
    assert len(list((root / "images").iterdir())) == 2 + 6 + 5 + 4
    assert contents(generate(tmp_path / "again", SMALL, progress=False)) == contents(root)
    assert generate(root, SMALL, progress=False) == root


def test_the_rows_are_what_the_makers_files_say_each_scene_in_one_split(root):
    read = read_refer(root / "refcoco" / "refs(unc).p", root / "refcoco" / "instances.json")
    assert tuple(read) == SPLITS
    images = {}
    for split in SPLITS:
        rows = rows_of(root, split)
        assert [row["id"] for row in rows] == [each.id for each in read[split]]
        images[split] = {row["img_id"] for row in rows}
        assert len(images[split]) <= getattr(SMALL, split)
        assert max(Counter(row["img_id"] for row in rows).values()) <= SMALL.expressions
    assert sum(map(len, images.values())) == len(set().union(*images.values()))
    lines = (root / "mscoco_imgfeat" / "train2014_obj36.tsv").read_bytes().splitlines()
    assert {line.split(b"\t")[0].decode() for line in lines} >= set().union(*images.values())


def test_the_vocabulary_is_that_of_the_other_toys_and_has_every_word(root, tmp_path):
    from datamodules.toy.files import ToyParameters
    from datamodules.toy.files import generate as generate_toy

    sizes = {name: 1 for name in ("train", "minival", "nominival", "test")}
    other = generate_toy(
        tmp_path / "toy", ToyParameters(**sizes, regions=8, feature_dim=16, pictures=0), progress=False
    )
    assert (other / "vocab.txt").read_bytes() == (root / "vocab.txt").read_bytes()
    tokenizer = LxmertTokenizer.from_pretrained(root / "vocab.txt")
    for split in SPLITS:
        for row in rows_of(root, split):
            assert len(tokenizer.tokenize(row["sent"])) == len(row["sent"].split())


def test_pointing_asks_the_same_among_four_things_of_a_scene(root):
    boxes = {}
    for each in json.loads((root / "refcoco" / "instances.json").read_text())["annotations"]:
        boxes.setdefault(f"COCO_train2014_{each['image_id']:012d}", []).append(each["bbox"])
    for split, name in POINTING.items():
        asked = json.loads((root / "visual7w" / f"{name}.json").read_text())
        said = {(row["img_id"], row["sent"]): row["box"] for row in rows_of(root, split)}
        assert [each["id"] for each in asked] == sorted({each["id"] for each in asked})
        for each in asked:
            given = [each["box"], *each["others"]]
            assert len(given) == 4 and all(given.count(box) == 1 and box in boxes[each["img_id"]] for box in given)
            assert said[each["img_id"], each["sent"]] == each["box"]
        assert len(asked) == sum(len(boxes[image]) >= 4 for image, _ in said)


# ---------------------------------------------------------------------------- expressions


def fits(thing, words):
    """Whether a description such as "large red star" or "blue thing" is true of a thing."""
    *looks, noun = words.split()
    assert set(looks) <= {*COLORS, *SIZES} and noun in (*SHAPES, "thing")
    return noun in (thing.shape, "thing") and all(look in (thing.color, thing.size) for look in looks)


def meant(scene, text):
    """The things that an expression fits, by a reading of its words alone."""
    words = text.removeprefix("the ")
    for relation, sign, side in (
        (" to the left of the ", -1, "x"), (" to the right of the ", 1, "x"), (" above the ", -1, "y"),
        (" below the ", 1, "y"),
    ):  # fmt: skip
        if relation in words:
            what, landmark = words.split(relation)
            [other] = [thing for thing in scene.things if fits(thing, landmark)]
            there = [t for t in scene.things if sign * (getattr(t, side) - getattr(other, side)) > 0]
            return [thing for thing in there if fits(thing, what)]
    for start, end, sign, side in (
        ("left ", " to the left", 1, "x"), ("right ", " to the right", -1, "x"), (None, " above", 1, "y"),
        (None, " below", -1, "y"),
    ):  # fmt: skip
        if words.endswith(end) or (start and words.startswith(start)):
            what = words.removesuffix(end).removeprefix(start or "")
            alike = [thing for thing in scene.things if fits(thing, what)]
            assert len(alike) > 1  # else the side would be idle talk
            return [min(alike, key=lambda thing: sign * getattr(thing, side))]
    return [thing for thing in scene.things if fits(thing, words)]


def test_an_expression_fits_the_thing_that_is_meant_and_no_other(said):
    for scene, thing, text in said:
        assert meant(scene, text) == [thing], text


def test_expressions_are_of_all_kinds_and_have_others_beside_them(said):
    kinds = Counter(
        "relation" if " the " in text.removeprefix("the ") and not text.endswith((" left", " right"))
        else "side" if {"left", "right", "above", "below"} & set(text.split())
        else "name"
        for _, _, text in said
    )  # fmt: skip
    assert set(kinds) == set(EXPRESSION_KINDS)
    assert min(kinds.values()) > 0.07 * len(said)
    alone = [
        not any(o is not thing and (o.shape == thing.shape or o.color == thing.color) for o in scene.things)
        for scene, thing, _ in said
    ]
    assert sum(alone) < len(said) / 2
    texts = [(id(scene), text.removeprefix("the ")) for scene, _, text in said]
    assert len(set(texts)) == len(texts)


# --------------------------------------------------------------------------------- guesses


def row(text, box, size=(100, 100)):
    return Referring(0, "i", text, tuple(map(float, box)), size)


def test_the_best_guess_from_the_text_alone_knows_where_things_mostly_are():
    train = [row("a", [0, 0, 20, 20])] * 3 + [row("a", [60, 60, 20, 20])] * 2 + [row("b", [70, 70, 20, 20])]
    assert text_only_accuracy(train, [row("a", [0, 0, 20, 20]), row("a", [60, 60, 20, 20])]) == 0.5
    assert text_only_accuracy(train, [row("a", [0, 0, 40, 20], (200, 100))]) == 1  # in parts of the picture
    assert text_only_accuracy(train, [row("unknown", [1, 0, 20, 20])]) == 1  # as of all texts


def test_the_nearest_of_the_boxes_is_a_guess_too():
    others = ((80.0, 80.0, 10.0, 10.0),)
    train = [row("a", [0, 0, 10, 10]), row("a", [20, 0, 10, 10]), row("b", [90, 90, 10, 10])]
    near, far = row("a", [8, 0, 10, 10]), row("a", [85, 85, 10, 10])
    assert (
        nearest_accuracy(train, [near._replace(others=others), far._replace(others=((0.0, 0.0, 9.0, 9.0),))])
        == 0.5
    )
    assert nearest_accuracy(train, [row("c", [40, 40, 10, 10])._replace(others=others)]) == 1


def test_the_manifest_tells_what_guesses_get_on_val(root):
    manifest = json.loads((root / "toy.json").read_text())
    guesses = manifest["guesses"]["refcoco"]
    instances = json.loads((root / "refcoco" / "instances.json").read_text())
    things = Counter(each["image_id"] for each in instances["annotations"])
    val = rows_of(root, "val")
    chances = [1 / things[int(each["img_id"].rpartition("_")[2])] for each in val]
    assert guesses["any thing of the picture"] == pytest.approx(sum(chances) / len(chances), abs=1e-4)
    assert 0 <= guesses["best guess from the text alone"] < guesses["any thing of the picture"]
    boxes = [each["bbox"] for each in instances["annotations"]]
    assert all(any(box_iou(each["box"], box) > 0.99 for box in boxes) for each in val)
    assert manifest["version"] == toy_refcoco.VERSION
