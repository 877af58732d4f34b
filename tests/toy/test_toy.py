"""The toy world: what it writes, read back without its own code, and what it claims about its scenes."""

import base64
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from datamodules.toy import files as toy_files
from datamodules.toy import writing
from datamodules.toy.captions import captions, phrases
from datamodules.toy.files import ToyParameters, generate, question_only_accuracy
from datamodules.toy.foils import PIECES, foils
from datamodules.toy.folder import read_manifest
from datamodules.toy.modules import ToyPretrainDataModule, ToyVqaDataModule
from datamodules.toy.questions import LOOKALIKES, QUESTION_KINDS, RELATION_KINDS, ask, ask_relations
from datamodules.toy.world import COLORS, OBJECT_NAMES, SHAPES, Detector, draw_scenes
from lxmert.tokenization import LxmertTokenizer

SMALL = ToyParameters(
    train=40, minival=12, nominival=6, test=5, questions=5, regions=10, feature_dim=24, pictures=3, seed=7
)
IMAGES = {"train2014": 40, "val2014": 18, "test2015": 5}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("toy") / "toy", SMALL, progress=False)


@pytest.fixture(scope="module")
def scenes():
    return list(draw_scenes([f"scene {i}" for i in range(300)], Random("scenes")))


def small(**changes):
    return ToyParameters(**{**vars(SMALL), **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def rows_of(root: Path, split: str) -> list[dict]:
    return json.loads((root / "vqa" / f"{split}.json").read_text())


def read_tsv(path: Path) -> dict[str, dict]:
    images = {}
    for line in path.read_bytes().removesuffix(b"\r\n").split(b"\r\n"):
        name, height, width, *arrays, boxes, features = line.split(b"\t")
        *labels, count = arrays
        types = ("int64", "float32", "int64", "float32")
        keys = ("object_ids", "object_conf", "attribute_ids", "attribute_conf")
        images[name.decode()] = {
            "size": np.array([int(width), int(height)]),
            "count": int(count),
            "boxes": np.frombuffer(base64.b64decode(boxes), "float32").reshape(int(count), 4),
            "features": np.frombuffer(base64.b64decode(features), "float32").reshape(int(count), -1),
            **{k: np.frombuffer(base64.b64decode(a), t) for k, a, t in zip(keys, labels, types, strict=True)},
        }
    return images


# ------------------------------------------------------------------------------------------ files


def test_the_folder_holds_the_files_of_a_release_and_nothing_else(root):
    names = set(contents(root))
    assert {n for n in names if not n.startswith("images/")} == {
        "toy.json",
        "vocab.txt",
        *(f"vqa/{split}.json" for split in ("train", "minival", "nominival", "test", "train_tenth")),
        *(f"vqa/gqa_{split}.json" for split in ("train", "minival", "nominival")),
        *(f"vqa/v2_mscoco_{images}_annotations.json" for images in ("train2014", "val2014")),
        *(f"lxmert/mscoco_{split}.json" for split in ("train", "minival", "nominival")),
        *(f"mscoco_imgfeat/{images}_obj36.tsv" for images in IMAGES),
        *(f"probes/{piece}.json" for piece in PIECES),
    }


@pytest.mark.parametrize("images", IMAGES)
def test_region_files_parse_as_the_released_ones(root, images):
    parsed = read_tsv(root / "mscoco_imgfeat" / f"{images}_obj36.tsv")
    assert len(parsed) == IMAGES[images]
    for name, image in parsed.items():
        assert re.fullmatch(rf"TOY_{images}_\d{{12}}", name)
        assert image["count"] == 10
        assert image["features"].shape == (10, 24)
        corner, opposite = image["boxes"][:, :2], image["boxes"][:, 2:]
        assert (corner >= 0).all() and (corner + 4 < opposite).all() and (opposite <= image["size"]).all()
        assert all(len(image[key]) == 10 for key in ("object_ids", "object_conf", "attribute_ids"))
        for key in ("object_conf", "attribute_conf"):
            assert (image[key] > 0).all() and (image[key] < 1).all()


def test_questions_name_images_of_their_region_file(root):
    ids = []
    for split, images in toy_files.SPLITS.items():
        known = read_tsv(root / "mscoco_imgfeat" / f"{images}_obj36.tsv")
        rows = rows_of(root, split)
        assert len(rows) == 5 * getattr(SMALL, split)
        assert {row["img_id"] for row in rows} <= set(known)
        assert all(row["question_id"] // 1000 == int(row["img_id"][-12:]) for row in rows)
        ids += [row["question_id"] for row in rows]
    assert len(set(ids)) == len(ids)


def test_test_questions_have_no_answers(root):
    assert all(set(row) == {"question_id", "img_id", "sent"} for row in rows_of(root, "test"))


def test_pictures_are_small_pngs_of_the_size_that_the_region_file_tells(root):
    regions = {images: read_tsv(root / "mscoco_imgfeat" / f"{images}_obj36.tsv") for images in IMAGES}
    pictures = sorted((root / "images").glob("*.png"))
    assert Counter(p.name.split("_")[1] for p in pictures) == {**IMAGES, "train2014": 3}
    for path in pictures:
        size = regions[path.name.split("_")[1]][path.stem]["size"]
        with Image.open(path) as picture:
            assert picture.mode == "RGB" and picture.size == tuple(size)
            assert len(picture.getcolors(maxcolors=1 << 17)) > 50  # smooth edges and background
        assert path.stat().st_size < 20_000


def test_the_vocabulary_spells_what_is_not_of_the_toy_without_unknown_tokens(root):
    tokens = (root / "vocab.txt").read_text().splitlines()
    assert tokens[0] == "[PAD]" and {"[UNK]", "[CLS]", "[SEP]", "[MASK]"} <= set(tokens)
    assert len(set(tokens)) == len(tokens)
    tokenizer = LxmertTokenizer.from_pretrained(root / "vocab.txt")
    pieces = tokenizer("Would a zebra, quite possibly, juggle 9 xylophones?")["input_ids"]
    assert tokens.index("[UNK]") not in pieces
    assert tokenizer.tokenize("stars crosses is as") == ["star", "##s", "cross", "##e", "##s", "is", "as"]


def test_the_words_of_every_toy_text_are_whole_pieces_and_plurals_their_singular(root, scenes):
    tokenizer = LxmertTokenizer.from_pretrained(root / "vocab.txt")
    rng = Random("words")
    texts = {text for scene in scenes for kind in (captions, phrases) for text in kind(scene, 5, rng)}
    texts |= {text for scene in scenes for q in ask(scene, 6, rng) for text in (q.text, q.answer, *q.mistakes)}
    for word in writing.WORDS.union(*(re.findall(r"\w+", text.lower()) for text in texts)):
        piece, *ending = tokenizer.tokenize(word)
        assert len(piece) > 1 or not ending, word
        assert ending in ([], ["##s"], ["##e", "##s"]), word
    for plural in (*(f"{shape}s" for shape in SHAPES if shape != "cross"), "crosses", "things"):
        assert tokenizer.tokenize(plural)[0] in (*SHAPES, "thing")
    assert max(len(tokenizer.tokenize(text)) for text in texts) <= 18


def test_every_world_has_the_same_vocabulary(root, tmp_path):
    other = generate(tmp_path / "toy", ToyParameters(2, 1, 1, 1, questions=1, pictures=0, seed=99), progress=False)
    assert (other / "vocab.txt").read_bytes() == (root / "vocab.txt").read_bytes()


# -------------------------------------------------------------------------------- the ten answers


def test_soft_scores_and_types_agree_with_the_ten_answers(root):
    rows = {r["question_id"]: r for split in ("train", "minival", "nominival") for r in rows_of(root, split)}
    seen = set()
    for images in ("train2014", "val2014"):
        official = json.loads((root / "vqa" / f"v2_mscoco_{images}_annotations.json").read_text())
        assert official["data_subtype"] == images
        for annotation in official["annotations"]:
            row = rows[annotation["question_id"]]
            seen.add(annotation["question_id"])
            assert [a["answer_id"] for a in annotation["answers"]] == list(range(1, 11))
            counts = Counter(a["answer"] for a in annotation["answers"])
            assert row["label"] == {a: {1: 0.3, 2: 0.6, 3: 0.9}.get(n, 1.0) for a, n in counts.items()}
            assert counts[annotation["multiple_choice_answer"]] == max(counts.values())
            assert annotation["image_id"] == int(row["img_id"][-12:])
            for key in ("answer_type", "question_type"):
                assert annotation[key] == row[key]
            assert row["sent"].lower().startswith(row["question_type"])
    assert seen == set(rows)
    scores = {score for row in rows.values() for score in row["label"].values()}
    assert {0.3, 1.0} <= scores


# ------------------------------------------------------------------------------- region features


def test_features_look_like_those_of_a_detector(scenes):
    regions = Detector(16, 128, seed=3).detect(scenes, np.random.default_rng(0))
    features = regions.features
    assert features.shape == (300, 16, 128) and features.min() == 0
    assert 0.27 < (features == 0).mean() < 0.40
    assert 10 < features.max() < 60


def test_every_thing_has_a_tight_box_with_its_labels(scenes):
    regions = Detector(16, 32, seed=3).detect(scenes, np.random.default_rng(0))
    several = 0
    for i, scene in enumerate(scenes):
        for thing in scene.things:
            outline = thing.outline()
            truth = np.array([*outline.min(0), *outline.max(0)])
            overlap = intersection_over_union(truth, regions.boxes[i])
            best = int(overlap.argmax())
            assert overlap[best] > 0.7
            assert SHAPES[regions.object_ids[i, best]] in (thing.shape, *LOOKALIKES[thing.shape])
            several += int((overlap > 0.3).sum())
    assert several > 1.5 * sum(len(scene.things) for scene in scenes)


def test_the_detector_errs_on_weak_boxes_alone(scenes):
    regions = Detector(16, 32, seed=3).detect(scenes, np.random.default_rng(0))
    wrong, confidence = [], []
    for i, scene in enumerate(scenes):
        looks = {(thing.shape, thing.color) for thing in scene.things}
        for n in range(16):
            if OBJECT_NAMES[regions.object_ids[i, n]] != "background":
                look = SHAPES[regions.object_ids[i, n]], COLORS[regions.attribute_ids[i, n]]
                wrong.append(look not in looks)
                confidence.append(regions.object_conf[i, n])
    wrong, confidence = np.array(wrong), np.array(confidence)
    assert 0.01 < wrong.mean() < 0.2
    assert not wrong[confidence > 0.77].any()


def intersection_over_union(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = sides.clip(0).prod(1)
    return common / ((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - common)


# ------------------------------------------------------------------------------------- questions


def things_named(scene, words: str) -> list:
    """What in the scene fits "large red stars"; an oracle that shares no code with the generator."""
    fitting = list(scene.things)
    for word in words.split():
        bare = {"crosses": "cross"}.get(word, word if word == "cross" else word.removesuffix("s"))
        assert bare in (*SHAPES, *COLORS, "small", "large", "thing"), word
        if bare != "thing":
            fitting = [t for t in fitting if bare in (t.shape, t.color, t.size)]
    return fitting


def the(scene, words: str):
    [thing] = things_named(scene, words)  # a name fits one thing or the question is a bad one
    return thing


def true_answer(scene, text: str) -> str:
    def says(pattern: str) -> tuple[str, ...] | None:
        found = re.fullmatch(pattern, text)
        return found and found.groups()

    def yes(truth: bool) -> str:
        return "yes" if truth else "no"

    if found := says(r"What (?:color is|is the color of) the (.+)\?"):
        return the(scene, found[0]).color
    if found := says(r"What (?:shape )?is the (.+)\?"):
        return the(scene, found[0]).shape
    if found := says(r"(?:Is there|Do you see) a (.+?)(?: in the picture)?\?"):
        return yes(bool(things_named(scene, found[0])))
    if found := says(r"Are there any (.+?)(?: in the picture)?\?"):
        return yes(bool(things_named(scene, found[0])))
    if found := says(r"How many (.+) are (?:there|in the picture)\?"):
        return str(len(things_named(scene, found[0])))
    if found := says(r"(?:What size is the (.+)|Is the (.+) small or large)\?"):
        return the(scene, found[0] or found[1]).size
    if found := says(r"Is the (.+) to the left or to the right(?: in the picture)?\?"):
        x = the(scene, found[0]).x - scene.width / 2
        assert abs(x) > 10
        return "left" if x < 0 else "right"
    if found := says(r"Is the (.+) above or below(?: in the picture)?\?"):
        y = the(scene, found[0]).y - scene.height / 2
        assert abs(y) > 10
        return "above" if y < 0 else "below"
    if found := says(r"Is the (.+) to the left or to the right of the (.+)\?"):
        a, b = the(scene, found[0]), the(scene, found[1])
        assert abs(a.x - b.x) > 20
        return "left" if a.x < b.x else "right"
    if found := says(r"Is the (.+) above or below the (.+)\?"):
        a, b = the(scene, found[0]), the(scene, found[1])
        assert abs(a.y - b.y) > 20
        return "above" if a.y < b.y else "below"
    if found := says(r"Is the (.+) to the (left|right) of the (.+)\?"):
        a, b = the(scene, found[0]), the(scene, found[2])
        assert abs(a.x - b.x) > 20
        return yes(a.x < b.x if found[1] == "left" else a.x > b.x)
    if found := says(r"Is the (.+) (above|below) the (.+)\?"):
        a, b = the(scene, found[0]), the(scene, found[2])
        assert abs(a.y - b.y) > 20
        return yes(a.y < b.y if found[1] == "above" else a.y > b.y)
    if found := says(r"Are the (.+) and the (.+) the same (color|size)\?"):
        a, b, what = the(scene, found[0]), the(scene, found[1]), found[2]
        return yes(getattr(a, what) == getattr(b, what))
    if found := says(r"Is the (.+) the same (color|size) as the (.+)\?"):
        a, what, b = the(scene, found[0]), found[1], the(scene, found[2])
        return yes(getattr(a, what) == getattr(b, what))
    if found := says(r"Which is (larger|smaller), the (.+) or the (.+)\?"):
        a, b = the(scene, found[1]), the(scene, found[2])
        return (a if (a.radius > b.radius) == (found[0] == "larger") else b).shape
    if found := says(r"Is the (.+) (larger|smaller) than the (.+)\?"):
        a, b = the(scene, found[0]), the(scene, found[2])
        return yes((a.radius > b.radius) == (found[1] == "larger"))
    if found := says(r"Are there more (.+) than (.+)\?"):
        return yes(len(things_named(scene, found[0])) > len(things_named(scene, found[1])))
    raise AssertionError(f"no reading of {text!r}")


@pytest.mark.parametrize(("asking", "kinds"), [(ask, QUESTION_KINDS), (ask_relations, RELATION_KINDS)])
def test_answers_are_true_of_their_scenes(scenes, asking, kinds):
    rng = Random("questions")
    met = Counter()
    for scene in scenes:
        for question in asking(scene, 6, rng):
            assert question.answer == true_answer(scene, question.text), (question, scene)
            assert question.mistakes and question.answer not in question.mistakes
            met[question.kind] += 1
    assert set(met) == set(kinds)


def test_things_of_a_scene_stand_apart_and_inside(scenes):
    for scene in scenes:
        boxes = [(*t.outline().min(0), *t.outline().max(0)) for t in scene.things]
        assert all(x1 >= 0 and y1 >= 0 and x2 <= scene.width and y2 <= scene.height for x1, y1, x2, y2 in boxes)
        for i, box in enumerate(boxes[1:], start=1):
            assert intersection_over_union(np.array(box), np.array(boxes[:i])).max() < 0.12


def test_questions_alone_give_less_than_half_of_the_answers():
    rng = Random("balance")
    rows = [
        {"sent": q.text, "question_type": q.question_type, "label": {q.answer: 1.0}, "kind": q.kind}
        for scene in draw_scenes(["any"] * 2400, rng)
        for q in ask(scene, 5, rng)
    ]
    train, valid = rows[:10_000], rows[10_000:]
    assert 0.33 < question_only_accuracy(train, valid) < 0.45
    yes_no = Counter(a for row in rows for a in row["label"] if row["kind"] == "relation")
    assert abs(yes_no["yes"] - yes_no["no"]) < 0.15 * yes_no.total()


def test_questions_about_places_and_sizes_have_each_answer_equally_often():
    rng = Random("places")
    answers: dict[str, Counter] = defaultdict(Counter)
    few = 0
    for scene in draw_scenes(["any"] * 800, rng):
        questions = ask_relations(scene, 6, rng)
        few += len(questions) < 6
        for question in questions:
            answers[question.kind][question.answer] += 1
    assert few < 0.1 * 800
    sides = {"left", "right", "above", "below"}
    for kind, expected in {
        "side of the picture": sides,
        "side of a thing": sides,
        "relation": {"yes", "no"},
        "size": {"small", "large"},
        "same": {"yes", "no"},
    }.items():
        even = answers[kind].total() / len(expected)
        assert set(answers[kind]) == expected
        assert all(abs(number - even) < 4 * even**0.5 for number in answers[kind].values()), (kind, answers[kind])


def test_the_question_only_guess_backs_off_from_text_to_type_to_all():
    def row(sent, question_type, **label):
        return {"sent": sent, "question_type": question_type, "label": label}

    train = [row("a?", "is", yes=1), row("a?", "is", no=0.6), row("b?", "is", no=1), row("c?", "is", no=1)]
    train += [row("d?", "how many", two=1)] * 5
    assert question_only_accuracy(train, [row("a?", "is", yes=0.9)]) == pytest.approx(0.9)
    assert question_only_accuracy(train, [row("new?", "is", no=1)]) == 1
    assert question_only_accuracy(train, [row("new?", "why", two=0.3)]) == pytest.approx(0.3)


def test_a_question_that_was_asked_is_not_asked_again_in_other_words(scenes):
    def subjects(questions) -> set[str]:
        color = r"What (?:color is|is the color of) the (.+)\?"
        count = r"(How many .+) are (?:there|in the picture)\?"
        found = (re.fullmatch(pattern, q.text) for q in questions for pattern in (color, count))
        return {match[1] for match in found if match}

    rng = Random("again")
    met = 0
    for scene in scenes:
        first = ask(scene, 5, rng)
        again = ask(scene, 3, rng, without={question.text for question in first})
        assert not subjects(first) & subjects(again)
        met += len(subjects(first) & subjects(ask(scene, 3, rng)))
    assert met > 20  # without `without`


# ------------------------------------------------------------- sentences for pre-training


def pretraining_of(root: Path, split: str) -> list[dict]:
    return json.loads((root / "lxmert" / f"mscoco_{split}.json").read_text())


@pytest.mark.parametrize("split", ["train", "minival", "nominival"])
def test_pretraining_files_have_the_scenes_of_their_split_in_the_released_format(root, split):
    images = pretraining_of(root, split)
    questions = defaultdict(list)
    for row in rows_of(root, split):
        questions[row["img_id"]].append(row)
    assert [image["img_id"] for image in images] == list(questions)
    for image in images:
        assert set(image) == {"img_id", "sentf", "labelf"}
        counts = {source: len(texts) for source, texts in image["sentf"].items()}
        assert counts == {"mscoco": 3, "vg": 4, "vqa": 5, "gqa": 5}
        assert {source: len(labels) for source, labels in image["labelf"].items()} == {"vqa": 5, "gqa": 5}
        own = questions[image["img_id"]]
        assert image["sentf"]["vqa"] == [row["sent"] for row in own]
        assert image["labelf"]["vqa"] == [row["label"] for row in own]
        assert all(list(label.values()) == [1.0] for label in image["labelf"]["gqa"])
        texts = [text for source in image["sentf"].values() for text in source]
        assert len(set(texts)) == len(texts)


def test_the_gqa_questions_of_pretraining_are_also_there_as_rows_to_finetune_on(root):
    asked = {row["question_id"] for split in toy_files.SPLITS for row in rows_of(root, split)}
    for split in ("train", "minival", "nominival"):
        images = pretraining_of(root, split)
        rows = rows_of(root, f"gqa_{split}")
        assert [(row["img_id"], row["sent"], row["label"]) for row in rows] == [
            (image["img_id"], text, label)
            for image in images
            for text, label in zip(image["sentf"]["gqa"], image["labelf"]["gqa"], strict=True)
        ]
        assert all(set(row) == set(rows_of(root, split)[0]) for row in rows)
        ids = {row["question_id"] for row in rows}
        assert len(ids) == len(rows) and not ids & asked
        asked |= ids


def test_questions_about_places_and_sizes_are_added_to_the_pretraining_files_alone(root, tmp_path):
    more = generate(tmp_path / "toy", small(visual7w=4), progress=False)
    without, files = contents(root), contents(more)
    assert {name for name in files if files[name] != without[name]} == {
        "toy.json",
        *(f"lxmert/mscoco_{split}.json" for split in ("train", "minival", "nominival")),
    }
    for split in ("train", "minival", "nominival"):
        images = pretraining_of(more, split)
        texts, labels = ([image[key].pop("visual7w") for image in images] for key in ("sentf", "labelf"))
        assert images == pretraining_of(root, split)
        assert max(map(len, texts)) == 4 and [*map(len, texts)] == [*map(len, labels)]
        assert all(list(label.values()) == [1.0] for own in labels for label in own)
        assert not any(set(own) & set(image["sentf"]["vqa"]) for own, image in zip(texts, images, strict=True))


def test_a_tenth_of_the_training_questions_is_those_of_a_tenth_of_the_scenes(root):
    tenth, train = rows_of(root, "train_tenth"), rows_of(root, "train")
    assert tenth == train[: len(tenth)]
    assert len(tenth) == 20 and len({row["img_id"] for row in tenth}) == 4


def test_nothing_of_a_held_out_scene_is_in_the_training_file(root):
    held_out = {row["img_id"] for split in ("minival", "nominival", "test") for row in rows_of(root, split)}
    assert not held_out & {image["img_id"] for image in pretraining_of(root, "train")}


def is_true(scene, text: str) -> bool:
    """Whether a caption or phrase holds; an oracle that shares no code with the generator."""

    def says(pattern: str) -> tuple[str, ...] | None:
        found = re.fullmatch(pattern, text)
        return found and found.groups()

    def part(words: str) -> list:
        """What "a red star" or "two stars" refers to: all that fit, as many as it says."""
        number, rest = words.split(" ", 1)
        things = things_named(scene, rest)
        assert len(things) == NUMBERS[number], (words, scene)
        return things

    def amount(words: str) -> bool:
        number, rest = words.split(" ", 1)
        there = len(things_named(scene, rest))
        return there >= 1 if number == "a" else there == NUMBERS[number]

    text = text[0].lower() + text.removesuffix(".")[1:]
    if found := says(r"(?:there are )?(more|fewer) (.+) than (.+)"):
        one, other = (len(things_named(scene, words)) for words in found[1:])
        return one > other if found[0] == "more" else one < other
    if found := says(r"the (.+) is (larger|smaller) than the (.+)"):
        a, b = the(scene, found[0]), the(scene, found[2])
        return a.size != b.size and (a.radius > b.radius) == (found[1] == "larger")
    if found := says(r"the (.+) is( not)? the same (color|size) as the (.+)"):
        one, no, what, other = found
        return (getattr(the(scene, one), what) == getattr(the(scene, other), what)) == (no is None)
    if found := says(r"the (.+) and the (.+) are( not)? the same (color|size)"):
        one, other, no, what = found
        return (getattr(the(scene, one), what) == getattr(the(scene, other), what)) == (no is None)
    if found := says(r"(?:there is )?(.+?) (?:is )?(to the left of|to the right of|above|below) (.+)"):
        pairs = [(a, b) for a in part(found[0]) for b in part(found[2])]
        clear = {
            "to the left of": lambda a, b: b.x - a.x > 20,
            "to the right of": lambda a, b: a.x - b.x > 20,
            "above": lambda a, b: b.y - a.y > 20,
            "below": lambda a, b: a.y - b.y > 20,
        }
        return all(clear[found[1]](a, b) for a, b in pairs)
    if found := says(r"the color of the (.+) is (.+)"):
        return the(scene, found[0]).color == found[1]
    if found := says(r"the (.+) is (?:a )?(.+)"):
        thing = the(scene, found[0])
        return found[1] in (thing.color, thing.shape, thing.size) and found[1] not in found[0]
    text = re.sub(r"^there (is|are) | in the picture$", "", text)
    return all(amount(words) for words in re.split(r", | and ", text))


def last_word(words: str) -> str:
    return words.removesuffix(".").removesuffix(" is").split()[-1].lower()


NUMBERS = {"no": 0, "a": 1, "the": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
NUMBERS |= {str(n): n for n in range(6)}


def test_captions_and_phrases_are_true_of_their_scenes(scenes):
    rng = Random("sentences")
    texts = [(scene, text) for scene in scenes for kind in (captions, phrases) for text in kind(scene, 6, rng)]
    assert [(text, scene) for scene, text in texts if not is_true(scene, text)] == []


@pytest.mark.parametrize("piece", PIECES)
def test_of_two_probing_sentences_the_first_holds_and_the_second_does_not(scenes, piece):
    examples = foils(scenes, piece, Random("foils"))
    assert len(examples) > len(scenes) / 3
    by_id = {scene.image_id: scene for scene in scenes}
    for example in examples.values():
        scene = by_id[example["image_file"].removesuffix(".png")]
        assert is_true(scene, example["caption"]) and not says_truly(scene, example["foil"]), (example, scene)


def says_truly(scene, text: str) -> bool:
    """As `is_true`, of what may speak of more or fewer things than there are."""
    try:
        return is_true(scene, text)
    except AssertionError:
        return False


def test_sentences_in_the_files_are_true_of_the_scene_they_stand_beside(tmp_path, monkeypatch):
    drawn = {}

    def remember(image_ids, rng):
        scenes = list(draw_scenes(image_ids, rng))
        drawn.update((scene.image_id, scene) for scene in scenes)
        return scenes

    monkeypatch.setattr(writing, "draw_scenes", remember)
    folder = generate(tmp_path / "toy", small(pictures=0, visual7w=3), progress=False)
    for split in ("train", "minival", "nominival"):
        for image in pretraining_of(folder, split):
            scene, texts = drawn[image["img_id"]], image["sentf"]
            assert all(is_true(scene, text) for text in texts["mscoco"] + texts["vg"])
            for source in ("gqa", "visual7w"):
                answers = [max(label, key=label.get) for label in image["labelf"][source]]
                assert answers == [true_answer(scene, question) for question in texts[source]]


@pytest.mark.parametrize("kind", [captions, phrases])
def test_the_words_around_a_direction_do_not_tell_it(kind):
    rng = Random("balance")
    texts = [text for scene in draw_scenes(["any"] * 1500, rng) for text in kind(scene, 5, rng)]
    found = [re.fullmatch(r"(.+) (to the left of|to the right of|above|below) (.+)", text) for text in texts]
    told = [(f[2], last_word(f[1]), last_word(f[3])) for f in found if f]
    directions = Counter(direction for direction, _, _ in told)
    assert len(told) > 2000 and max(directions.values()) < 1.15 * min(directions.values())
    learn, guess = told[: len(told) // 2], told[len(told) // 2 :]
    seen: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for direction, one, other in learn:
        seen[one, other][direction] += 1
    best = {words: max(counts, key=lambda d: counts[d]) for words, counts in seen.items()}
    right = sum(best.get((one, other)) == direction for direction, one, other in guess)
    assert right / len(guess) < 0.32


def test_what_can_be_said_two_ways_is_said_both_ways_equally_often(scenes):
    rng = Random("both ways")
    texts = [text for scene in scenes * 4 for text in phrases(scene, 5, rng)]
    for one, other in (
        (r"\bmore\b", r"\bfewer\b"),
        (r"\blarger\b", r"\bsmaller\b"),
        (r"(is|are) the same", r"(is|are) not the same"),
        (r"there is a .+", r"there is no .+"),
        (r".+ to the left of .+", r".+ to the right of .+"),
        (r".+ above .+", r".+ below .+"),
    ):
        a, b = (sum(bool(re.search(pattern, text)) for text in texts) for pattern in (one, other))
        assert a + b > 100 and abs(a - b) < 4 * (a + b) ** 0.5, (one, a, b)


# ------------------------------------------------------------------------ same, other, interrupted


def test_the_same_parameters_give_the_same_bytes_in_another_process(root, tmp_path):
    script = f"from datamodules.toy.files import *; generate({str(tmp_path / 'toy')!r}, {SMALL!r})"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=Path(__file__).parents[2])
    assert contents(tmp_path / "toy") == contents(root)


def test_another_seed_gives_other_questions_regions_and_pictures(root, tmp_path):
    ours, theirs = contents(root), contents(generate(tmp_path / "toy", small(seed=8), progress=False))
    assert set(ours) == set(theirs)
    assert [name for name in ours if ours[name] == theirs[name] and name != "vocab.txt"] == []


def test_a_second_call_writes_nothing_and_a_changed_parameter_writes_all_anew(tmp_path):
    folder = generate(tmp_path / "toy", small(train=8), progress=False)
    before = {f: f.stat().st_mtime_ns for f in folder.rglob("*")}
    generate(folder, small(train=8), progress=False)
    assert {f: f.stat().st_mtime_ns for f in folder.rglob("*")} == before
    generate(folder, small(train=9), progress=False)
    assert len(rows_of(folder, "train")) == 45
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == ["toy"]


def test_an_older_version_is_written_anew(tmp_path, monkeypatch):
    folder = generate(tmp_path / "toy", small(train=8), progress=False)
    monkeypatch.setattr(toy_files, "VERSION", toy_files.VERSION + 1)
    generate(folder, small(train=8), progress=False)
    assert read_manifest(folder)["version"] == toy_files.VERSION


def test_a_failing_generation_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_files, "write_vocabulary", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        generate(tmp_path / "toy", small(train=8), progress=False)
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []


def test_a_killed_generation_leaves_the_old_toy_whole_and_the_next_one_cleans_up(tmp_path):
    folder = generate(tmp_path / "toy", small(train=8), progress=False)
    before = contents(folder)
    script = f"from datamodules.toy.files import *; generate({str(folder)!r}, {small(train=100_000)!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2]
    )
    partial = tmp_path / ".toy.partial" / "mscoco_imgfeat" / "train2014_obj36.tsv"
    deadline = time.monotonic() + 120
    while not partial.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.exists()
    assert contents(folder) == before
    generate(folder, small(train=9), progress=False)
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == ["toy"]


def test_a_folder_that_is_no_toy_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="not a toy world"):
        generate(tmp_path, SMALL, progress=False)
    assert (tmp_path / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize(("change", "says"), [({"train": 0}, "train"), ({"regions": 3}, "at least 7 regions")])
def test_impossible_parameters_are_named(tmp_path, change, says):
    with pytest.raises(ValueError, match=says):
        generate(tmp_path / "toy", small(**change), progress=False)
    assert not (tmp_path / "toy").exists()


# ------------------------------------------------------------------------------------ data module


def test_the_data_module_generates_converts_and_batches(tmp_path):
    data = ToyVqaDataModule(
        tmp_path / "toy",
        world={"train": 12, "minival": 6, "nominival": 4, "test": 3, "regions": 9, "pictures": 0},
        feature_dim=16,
        stores=tmp_path / "stores",
        batch_size=10,
    )
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.num_rows == 10
    assert batch.region_features.shape[1:] == (9, 16)
    assert batch.targets["answer_scores"].shape == (10, len(data.answers))
    assert batch.targets["annotator_answers"].min() >= 0
    assert (batch.targets["answer_scores"].max(1).values == 1).all()
    [accuracy] = data.baselines().values()
    assert accuracy == pytest.approx(
        question_only_accuracy(rows_of(data.root, "train"), rows_of(data.root, "minival")), abs=1e-4
    )
    assert data.tokenizer.vocab_size == len((tmp_path / "toy" / "vocab.txt").read_text().splitlines())


def test_questions_about_places_and_sizes_are_a_source_of_pretraining(tmp_path):
    def source(name: str, **world: int) -> ToyPretrainDataModule:
        data = ToyPretrainDataModule(
            tmp_path / "toy",
            world={"train": 12, "minival": 6, "nominival": 4, "test": 3, "regions": 9, "pictures": 0, **world},
            feature_dim=16,
            sources={"mscoco": 0, "vg": 0, "vqa": 0, "gqa": 0, "visual7w": 0, name: 1},
            batch_size=5,
            train="mscoco_train",
            valid="mscoco_minival",
            num_objects=7,
            num_attributes=7,
        )
        data.prepare_data()
        data.setup("fit")
        return data

    data = source("visual7w", visual7w=3)
    texts = [text for image in pretraining_of(data.root, "train") for text in image["sentf"]["visual7w"]]
    assert sum(batch.num_rows for batch in data.train_dataloader()) == len(texts) // 5 * 5  # whole batches
    with pytest.raises(ValueError, match="visual7w"):  # the toy without such questions
        source("visual7w")


@pytest.mark.parametrize("wrong", [{"batchsize": 3}, {"world": {"scenes": 3}}])
def test_a_misspelt_key_is_refused(tmp_path, wrong):
    with pytest.raises(TypeError, match=r"batchsize|scenes"):
        ToyVqaDataModule(tmp_path, **wrong)
