"""Toy SNLI-VE: its files, and its classes against a reading of the text that shares no code with them."""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from datamodules.toy.snli_ve import (
    CLASSES,
    KINDS,
    SPLITS,
    Hypothesis,
    ToySnliVeParameters,
    generate,
    hypotheses,
    pair,
)
from datamodules.toy.world import COLORS, SHAPES, SIZES, draw_scenes
from datamodules.toy.writing import WORDS
from lxmert.files import InputError
from lxmert.tokenization import LxmertTokenizer

SMALL = ToySnliVeParameters(train=60, dev=30, test=25, hypotheses=1, regions=8, feature_dim=16, pictures=2, seed=7)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("toy") / "snli_ve", SMALL, progress=False)


@pytest.fixture(scope="module")
def said():
    """(hypothesis, class -> scene)."""
    rng = Random("hypotheses")
    return pair(list(draw_scenes(map(str, range(300)), rng)), 600, rng)


def rows(root: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (root / "snli_ve" / f"snli_ve_{split}.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_the_folder_holds_these_files_and_nothing_else(root):
    assert {name for name in contents(root) if not name.startswith("images/")} == {
        *(f"snli_ve/snli_ve_{split}.jsonl" for split in SPLITS),
        *(f"flickr30k_imgfeat/{split}_obj36.tsv" for split in SPLITS),
        "vocab.txt",
        "toy.json",
    }
    pictures = sorted(path.stem for path in (root / "images").iterdir())
    assert pictures == ["1000000", "1000001", "2000000", "2000001", "3000000", "3000001"]
    with Image.open(root / "images" / "1000000.png") as picture:
        assert picture.mode == "RGB"


@pytest.mark.parametrize("split", SPLITS)
def test_rows_have_the_makers_keys_and_images_of_their_split(root, split):
    found = rows(root, split)
    assert len(found) == 3 * getattr(SMALL, split)
    tsv = (root / "flickr30k_imgfeat" / f"{split}_obj36.tsv").read_bytes().split(b"\r\n")
    images = {line.split(b"\t")[0].decode() for line in tsv if line}
    for row in found:
        assert row.keys() == {
            *("annotator_labels", "captionID", "gold_label", "pairID", "sentence1", "sentence2", "Flickr30K_ID")
        }
        assert row["captionID"] == f"{row['Flickr30K_ID']}.jpg#0" and row["Flickr30K_ID"] in images
        assert re.fullmatch(rf"{row['captionID']}r\d+{row['gold_label'][0]}", row["pairID"])
        assert row["annotator_labels"] == [row["gold_label"]]
    assert len({row["pairID"] for row in found}) == len(found)
    assert len({(row["sentence2"], row["Flickr30K_ID"]) for row in found}) == len(found)


def test_each_sentence_is_as_often_of_each_class_so_that_the_text_tells_nothing(root):
    for split in SPLITS:
        classes = defaultdict(Counter)
        for row in rows(root, split):
            classes[row["sentence2"]][row["gold_label"]] += 1
        assert all(set(counts) == set(CLASSES) and len(set(counts.values())) == 1 for counts in classes.values())
    assert json.loads((root / "toy.json").read_text())["question_only_accuracy"] == pytest.approx(1 / 3, abs=1e-4)


def reading(text: str, scene) -> str:
    """The class of a sentence and a scene, from the words."""
    subject, predicate = re.fullmatch(r"The (.+) is (?:a )?(\w+)\.", text).groups()
    words = set(subject.split()) - {"thing"}
    things = [thing for thing in scene.things if words <= {thing.shape, thing.color, thing.size}]
    if not things:
        return "neutral"
    [thing] = things
    return "entailment" if predicate in (thing.shape, thing.color, thing.size) else "contradiction"


def test_classes_are_those_of_the_pictures(said):
    for hypothesis, by_class in said:
        assert {name: reading(hypothesis.text, scene) for name, scene in by_class.items()} == {
            n: n for n in CLASSES
        }
    assert len({(h.text, scene.image_id) for h, by_class in said for scene in by_class.values()}) == 3 * len(said)


def test_what_several_things_have_in_common_has_no_class():
    for scene in draw_scenes(map(str, range(50)), Random("several")):
        shapes = Counter(thing.shape for thing in scene.things)
        for shape in SHAPES:
            label = Hypothesis({"shape": shape}, {"color": "red"}).label(scene)
            assert (label is None) == (shapes[shape] > 1)


def test_all_that_can_be_said_has_tokens_and_every_kind_is_said_in_its_share(root, said):
    everything = [each.text for kind in KINDS for each in hypotheses(*kind)]
    assert len(set(everything)) == len(everything) == 2 * 36 + 2 * len(SIZES) * 6
    assert set(re.findall("[a-z]+", " ".join(everything).lower())) <= WORDS
    tokenizer = LxmertTokenizer.from_pretrained(root / "vocab.txt")
    assert all(tokenizer.unk_token_id not in ids and len(ids) <= 20 for ids in tokenizer(everything)["input_ids"])
    shares = Counter((*each.known, *each.said) for each, _ in said)
    assert {kind: shares[kind] / len(said) for kind in KINDS} == pytest.approx(KINDS, abs=0.06)
    assert {"The star is red.", "The red thing is a star.", "The star is large."} < set(everything)
    assert "The black thing is a cross." in everything and "black" in COLORS


def test_the_same_parameters_give_the_same_bytes_and_another_seed_others(root, tmp_path):
    assert contents(generate(tmp_path / "same", SMALL, progress=False)) == contents(root)
    other = contents(
        generate(tmp_path / "other", ToySnliVeParameters(**{**vars(SMALL), "seed": 8}), progress=False)
    )
    assert [name for name, content in contents(root).items() if content == other[name]] == ["vocab.txt"]


def test_impossible_parameters_are_named(tmp_path):
    with pytest.raises(InputError, match="toy SNLI-VE's dev must be at least 1"):
        generate(tmp_path / "toy", ToySnliVeParameters(dev=0), progress=False)
    with pytest.raises(InputError, match="there are not 60 hypotheses of each class to say of 2 toy scenes"):
        generate(tmp_path / "toy", ToySnliVeParameters(train=2, hypotheses=30), progress=False)
    assert not (tmp_path / "toy").exists()
