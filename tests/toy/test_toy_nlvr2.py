"""Toy NLVR2: its files against each other, and its statements against readings that share no code with them."""

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from datamodules.toy import nlvr2 as toy_nlvr2
from datamodules.toy.nlvr2 import SPLITS, ToyNlvr2Parameters, generate
from datamodules.toy.statements import STATEMENT_KINDS, WORDS, count_things, state
from datamodules.toy.world import COLORS, SHAPES, draw_scenes
from lxmert.evaluate import score_nlvr2
from lxmert.tokenization import LxmertTokenizer

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "nlvr2"
SMALL = ToyNlvr2Parameters(train=10, valid=8, test=6, statements=4, regions=8, feature_dim=16, pictures=1, seed=7)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("toy") / "nlvr2", SMALL, progress=False)


@pytest.fixture(scope="module")
def stated():
    """(pairs of scenes, statement, its truth for each pair)."""
    rng = Random("statements")
    sets = []
    for _ in range(150):
        scenes = list(draw_scenes(["any"] * 8, rng))
        pairs = list(zip(scenes[::2], scenes[1::2], strict=True))
        sets += [(pairs, text, truths) for text, truths in state(pairs, 4, rng)]
    return sets


def small(**changes):
    return ToyNlvr2Parameters(**{**vars(SMALL), **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def released(root: Path, split: str) -> list[dict]:
    return json.loads((root / "nlvr2" / f"{split}.json").read_text())


def official(root: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (root / "nlvr2" / "official" / f"{name}.json").read_text().splitlines()]


# ------------------------------------------------------------------------------------------ files


def test_the_folder_holds_these_files_and_nothing_else(root):
    names = (
        "train",
        "dev",
        "test1",
        *(f"{subset}_{n}" for subset in ("balanced", "unbalanced") for n in ("dev", "test1")),
    )
    assert {n for n in contents(root) if not n.startswith("images/")} == {
        *(f"nlvr2/{split}.json" for split in SPLITS),
        *(f"nlvr2/official/{name}.json" for name in names),
        *(f"nlvr2_imgfeat/{split}_obj36.tsv" for split in SPLITS),
        "vocab.txt",
        "toy.json",
    }


@pytest.mark.parametrize(("split", "name"), SPLITS.items())
def test_the_release_s_rows_are_the_makers_statements(root, split, name):
    rows, statements = released(root, split), official(root, name)
    assert len(rows) == len(statements) == getattr(SMALL, split) * 16
    for place, (row, statement) in enumerate(zip(rows, statements, strict=True)):
        identifier = statement["identifier"]
        stem = "-".join(identifier.split("-")[:3])
        assert re.fullmatch(rf"{name}-\d+-[0-3]-[0-3]", identifier)
        assert row == {
            "identifier": identifier,
            "img0": f"{stem}-img0",
            "img1": f"{stem}-img1",
            "label": ["False", "True"].index(statement["label"]),
            "sent": statement["sentence"],
            "uid": f"nlvr2_{split}_{place}",
        }
        assert statement["left_url"] == f"images/{stem}-img0.png"
        assert statement["right_url"] == f"images/{stem}-img1.png"
        assert set(statement["validation"].values()) == {statement["label"]}
    assert len({row["identifier"] for row in rows}) == len(rows)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no test data at {REAL}")
@pytest.mark.parametrize("name", ["dev", "test1"])
def test_statements_have_the_members_and_types_of_real_ones(root, name):
    with (REAL / f"{name}_400.json").open() as lines:
        real = json.loads(next(lines))
    for statement in official(root, name):
        assert {key: type(value) for key, value in statement.items()} == {k: type(v) for k, v in real.items()}
    assert all("directory" in statement for statement in official(root, "train"))


@pytest.mark.parametrize("split", SPLITS)
def test_the_region_file_has_the_images_of_the_rows(root, split):
    lines = (root / "nlvr2_imgfeat" / f"{split}_obj36.tsv").read_bytes().removesuffix(b"\r\n").split(b"\r\n")
    images = [line.split(b"\t")[0].decode() for line in lines]
    assert len(set(images)) == len(images) == getattr(SMALL, split) * 8
    assert set(images) == {row[side] for row in released(root, split) for side in ("img0", "img1")}


def test_a_sentence_is_said_of_four_pairs_and_true_of_two(root):
    for name in SPLITS.values():
        groups = defaultdict(list)
        for statement in official(root, name):
            split, number, _pair, sentence = statement["identifier"].split("-")
            groups[split, number, sentence].append(statement)
        assert len(groups) == len(official(root, name)) / 4
        for group in groups.values():
            assert len({statement["sentence"] for statement in group}) == 1
            assert Counter(statement["label"] for statement in group) == {"True": 2, "False": 2}


@pytest.mark.parametrize("name", ["dev", "test1"])
def test_the_subsets_part_the_statements_by_their_pairs(root, name):
    everything = official(root, name)
    subsets = [official(root, f"{subset}_{name}") for subset in ("balanced", "unbalanced")]
    labels = defaultdict(set)
    for statement in everything:
        labels[statement["left_url"]].add(statement["label"])
    for subset, truths in zip(subsets, (2, 1), strict=True):
        assert subset == [statement for statement in everything if len(labels[statement["left_url"]]) == truths]
        assert subset


def test_pictures_are_those_of_the_first_sets(root):
    pictures = sorted(path.stem for path in (root / "images").glob("*.png"))
    assert pictures == sorted(
        f"{name}-0-{pair}-img{side}" for name in SPLITS.values() for pair in range(4) for side in (0, 1)
    )
    with Image.open(root / "images" / f"{pictures[0]}.png") as picture:
        assert picture.mode == "RGB"


def test_every_sentence_has_tokens_and_fits_into_twenty(root):
    tokenizer = LxmertTokenizer.from_pretrained(root / "vocab.txt")
    for ids in tokenizer([row["sent"] for row in released(root, "train")])["input_ids"]:
        assert tokenizer.unk_token_id not in ids and len(ids) <= 20


# ------------------------------------------------------------------------------------- statements


def number_of(scene, words: str) -> int:
    things = list(scene.things)
    for word in words.split():
        bare = (
            word if word == "cross" else word.removesuffix("es") if word == "crosses" else word.removesuffix("s")
        )
        assert bare in (*SHAPES, *COLORS, "thing"), word
        things = [t for t in things if bare in (t.shape, t.color, "thing")]
    return len(things)


def is_true(text: str, left, right) -> bool:
    def says(pattern: str):
        found = re.fullmatch(pattern, text)
        return found and found.groups()

    sides = {"left": left, "right": right}
    if found := says(r"The (left|right) picture (?:has|shows) a (.+) and the (left|right) picture does not\."):
        assert found[0] != found[2]
        return number_of(sides[found[0]], found[1]) > 0 and number_of(sides[found[2]], found[1]) == 0
    if found := says(r"The left picture (?:has|shows) a (.+) and the right picture (?:has|shows) a (.+)\."):
        return number_of(left, found[0]) > 0 and number_of(right, found[1]) > 0
    if found := says(r"The (left|right) picture (?:has|shows) more (.+) than the (left|right) picture\."):
        assert found[0] != found[2]
        return number_of(sides[found[0]], found[1]) > number_of(sides[found[2]], found[1])
    if found := says(r"The (left|right) picture (?:has|shows) a (.+)\."):
        return number_of(sides[found[0]], found[1]) > 0
    if found := says(r"(Both|Neither|At least one|Only one) pictures? (?:has|shows?|have) a (.+)\."):
        pictures = sum(number_of(scene, found[1]) > 0 for scene in (left, right))
        return pictures in {"Both": (2,), "Neither": (0,), "At least one": (1, 2), "Only one": (1,)}[found[0]]
    if found := says(r"There are (two|three|four) (.+) in total\."):
        wanted = {"two": 2, "three": 3, "four": 4}[found[0]]
        return number_of(left, found[1]) + number_of(right, found[1]) == wanted
    raise AssertionError(f"no reading of {text!r}")


def test_truth_values_are_those_of_the_pictures(stated):
    for pairs, text, truths in stated:
        assert truths == [is_true(text, left, right) for left, right in pairs], text
        assert sum(truths) == 2


def test_every_kind_is_stated_and_most_need_existence_alone(stated):
    starts = Counter(re.match(r"(The \w+ picture|\w+)", text)[0] for _, text, _ in stated)
    assert set(starts) == {"The left picture", "The right picture", "Both", "Neither", "At", "Only", "There"}
    assert sum(" more " in text for _, text, _ in stated) < 0.1 * len(stated)
    assert sum(share for _, share in STATEMENT_KINDS.values()) == pytest.approx(1)


def test_words_are_those_that_are_declared(stated):
    rng = Random("more")
    texts = [text for _, text, _ in stated]
    scenes = list(draw_scenes(["any"] * 2, rng))
    pair = (count_things(scenes[0]), count_things(scenes[1]))
    used = set(re.findall(r"[a-z]+", " ".join(texts).lower()))
    rare = {
        statement.text
        for draw, _ in STATEMENT_KINDS.values()
        for statement in [draw(pair, rng) for _ in range(40)]
    }
    used |= set(re.findall(r"[a-z]+", " ".join(rare).lower()))
    assert used <= set(WORDS)
    assert set(WORDS) - used <= {plural for plural in WORDS if plural.endswith("s")}


# ----------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("name", ["dev", "test1"])
def test_the_true_labels_score_full_marks_on_every_metric(root, name):
    statements = official(root, name)
    report = score_nlvr2(
        [{"identifier": s["identifier"], "label": s["label"]} for s in statements],
        statements,
        balanced=official(root, f"balanced_{name}"),
        unbalanced=official(root, f"unbalanced_{name}"),
    )
    names = ("", "balanced/", "unbalanced/")
    assert report.metrics == {f"{n}{metric}": 100 for n in names for metric in ("accuracy", "consistency")}


def test_a_guess_from_the_sentence_alone_is_right_half_of_the_time(root):
    statements = official(root, "dev")
    report = score_nlvr2(
        [{"identifier": s["identifier"], "label": str(len(s["sentence"]) % 2 == 0)} for s in statements],
        statements,
    )
    assert report.metrics == {"accuracy": 50, "consistency": 0}
    assert json.loads((root / "toy.json").read_text())["question_only_accuracy"] == 0.5


# ------------------------------------------------------------------------ same, other, interrupted


def test_the_same_parameters_give_the_same_bytes_in_another_process(root, tmp_path):
    script = f"from datamodules.toy.nlvr2 import *; generate({str(tmp_path / 'toy')!r}, {SMALL!r})"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=ROOT)
    assert contents(tmp_path / "toy") == contents(root)


def test_another_seed_gives_other_statements_and_regions(root, tmp_path):
    ours, theirs = contents(root), contents(generate(tmp_path / "toy", small(seed=8), progress=False))
    assert set(ours) == set(theirs)
    assert [name for name in ours if ours[name] == theirs[name] and name != "vocab.txt"] == []


def test_a_second_call_writes_nothing(root):
    before = {f: f.stat().st_mtime_ns for f in root.rglob("*")}
    generate(root, SMALL, progress=False)
    assert {f: f.stat().st_mtime_ns for f in root.rglob("*")} == before


def test_a_failing_generation_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_nlvr2, "write_vocabulary", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        generate(tmp_path / "toy", small(train=1, valid=1, test=1), progress=False)
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []


def test_another_toy_is_left_alone(tmp_path):
    (tmp_path / "toy.json").write_text('{"version": 2}')
    with pytest.raises(FileExistsError, match="holds another toy"):
        generate(tmp_path, SMALL, progress=False)


@pytest.mark.parametrize(("change", "says"), [({"valid": 0}, "valid"), ({"regions": 3}, "at least 7 regions")])
def test_impossible_parameters_are_named(tmp_path, change, says):
    with pytest.raises(ValueError, match=says):
        generate(tmp_path / "toy", small(**change), progress=False)
    assert not (tmp_path / "toy").exists()
