"""Toy SNLI-VE's files: hypotheses about generated scenes, in the makers' format.

A hypothesis is about the only thing of a look: "the star is red". A picture whose one star is red entails it, one
whose one star has another colour contradicts it, and one without a star is neutral: it tells nothing of stars.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from datamodules.progress import progress_bar
from datamodules.toy.captions import captions
from datamodules.toy.folder import check_sizes, write_whole
from datamodules.toy.questions import describe, matches
from datamodules.toy.world import COLORS, SHAPES, SIZES, Detector, Scene
from datamodules.toy.writing import question_only_accuracy, write_scenes, write_vocabulary
from lxmert.files import InputError

VERSION = 1  # raise it whenever the same parameters no longer give the same files
SPLITS = ("train", "dev", "test")
CLASSES = ("entailment", "neutral", "contradiction")
# What is known of the thing, what is said of it: how often.
KINDS = {("shape", "color"): 0.45, ("color", "shape"): 0.35, ("shape", "size"): 0.1, ("color", "size"): 0.1}
_VALUES = {"shape": SHAPES, "color": COLORS, "size": SIZES}


@dataclass(frozen=True)
class ToySnliVeParameters:
    """What the files of toy SNLI-VE depend on, and nothing else.

    Attributes:
        train, dev, test: scenes of each split.
        hypotheses: of each class; a scene has three times as many in the mean.
        regions: boxes an image.
        feature_dim: length of a region's feature.
        pictures: how many scenes of each split are rendered.
        seed: of everything. Shapes and colours look as in the toy world of the same seed, so that weights
            pre-trained there understand these features.
    """

    train: int = 3000
    dev: int = 400
    test: int = 400
    hypotheses: int = 1
    regions: int = 16
    feature_dim: int = 128
    pictures: int = 50
    seed: int = 1

    def __post_init__(self) -> None:
        check_sizes("toy SNLI-VE", self)


class Hypothesis(NamedTuple):
    """Of the only thing with the look `known`, such as {"shape": "star"}, it is `said`: {"color": "red"}."""

    known: dict[str, str]
    said: dict[str, str]

    @property
    def text(self) -> str:
        """Such as "the star is red", "the red thing is a star", "the star is large"."""
        [(what, value)] = self.said.items()
        return f"The {describe(self.known)} is {'a ' if what == 'shape' else ''}{value}."

    def label(self, scene: Scene) -> str | None:
        """The class of the pair; None where several things have the look."""
        things = [thing for thing in scene.things if matches(thing, self.known)]
        if len(things) > 1:
            return None
        return "neutral" if not things else "entailment" if matches(things[0], self.said) else "contradiction"


def hypotheses(known: str, said: str) -> list[Hypothesis]:
    """All of a kind."""
    return [Hypothesis({known: one}, {said: other}) for one, other in product(_VALUES[known], _VALUES[said])]


def generate(root: Path | str, parameters: ToySnliVeParameters | None = None, *, progress: bool = True) -> Path:
    """Write the files of toy SNLI-VE into `root`, unless those of the same parameters are there.

        snli_ve/snli_ve_{train,dev,test}.jsonl       the makers' JSON lines, without the parses
        flickr30k_imgfeat/{train,dev,test}_obj36.tsv the release's region features
        images/IMAGE.png                             rendered pictures
        vocab.txt                                    the toys' WordPiece vocabulary
        toy.json                                     the parameters, and the hypothesis-only accuracy on dev

    Each hypothesis is said of three pictures at a time, one of each class: the text alone tells nothing. The same
    parameters give the same bytes. The folder appears whole or not at all.

    Raises:
        InputError: an impossible parameter, or too few scenes.
        StoreError: `root` cannot be written.
        FileExistsError: `root` holds something else; it is left alone.
    """
    parameters = parameters or ToySnliVeParameters()
    detector = Detector(parameters.regions, parameters.feature_dim, parameters.seed)
    made_from = {"toy": "snli_ve", "version": VERSION, "parameters": asdict(parameters)}
    return write_whole(Path(root), made_from, lambda folder: _write(folder, parameters, detector, progress))


def _write(folder: Path, parameters: ToySnliVeParameters, detector: Detector, progress: bool) -> dict[str, Any]:
    for name in ("snli_ve", "flickr30k_imgfeat", "images"):
        (folder / name).mkdir(parents=True)
    guessable: dict[str, list[dict[str, Any]]] = {}
    total = sum(getattr(parameters, split) for split in SPLITS)
    with progress_bar("toy SNLI-VE scenes", total, "scene", shown=progress) as bar:
        for order, split in enumerate(SPLITS):
            rng, count = Random(f"toy snli_ve {parameters.seed} {split}"), getattr(parameters, split)
            scenes = list(
                write_scenes(
                    folder,
                    f"flickr30k_imgfeat/{split}_obj36.tsv",
                    [str(1_000_000 * (order + 1) + number) for number in range(count)],
                    detector,
                    rng,
                    np.random.default_rng([parameters.seed, 5, order]),
                    pictures=parameters.pictures,
                    bar=bar,
                )
            )
            rows = _rows(scenes, count * parameters.hypotheses, rng)
            lines = "".join(f"{json.dumps(row)}\n" for row in rows)
            (folder / "snli_ve" / f"snli_ve_{split}.jsonl").write_text(lines, encoding="utf-8")
            guessable[split] = [
                {"sent": row["sentence2"], "question_type": "", "label": {row["gold_label"]: 1.0}} for row in rows
            ]
    write_vocabulary(folder / "vocab.txt")
    accuracy = question_only_accuracy(guessable["train"], guessable["dev"])
    return {"question_only_accuracy": round(accuracy, 4)}


def pair(scenes: Sequence[Scene], count: int, rng: Random) -> list[tuple[Hypothesis, dict[str, Scene]]]:
    """`count` hypotheses, some of them alike, each with a scene for each class that it is not yet said of.

    The kinds are in the shares of `KINDS`.

    Raises:
        InputError: there are not enough scenes.
    """
    fitting: dict[tuple[str, str], list[tuple[Hypothesis, dict[str, list[Scene]]]]] = {}
    for kind in KINDS:
        for hypothesis in hypotheses(*kind):
            by_class: dict[str, list[Scene]] = {name: [] for name in CLASSES}
            for scene in rng.sample(scenes, len(scenes)):
                if label := hypothesis.label(scene):
                    by_class[label].append(scene)
            fitting.setdefault(kind, []).append((hypothesis, by_class))
    found: list[tuple[Hypothesis, dict[str, Scene]]] = []
    for kind in rng.choices(list(KINDS), list(KINDS.values()), k=count):
        left = [each for each in fitting[kind] if all(each[1].values())]
        if not left:
            raise InputError(
                f"there are not {count} hypotheses of each class to say of {len(scenes)} toy scenes; have more "
                "scenes or fewer hypotheses"
            )
        hypothesis, by_class = rng.choice(left)
        found.append((hypothesis, {name: by_class[name].pop() for name in CLASSES}))
    return found


def _rows(scenes: Sequence[Scene], count: int, rng: Random) -> list[dict[str, Any]]:
    """The makers' rows, in no order."""
    rows = []
    for number, (hypothesis, by_class) in enumerate(pair(scenes, count, rng)):
        for label, scene in by_class.items():
            caption = f"{scene.image_id}.jpg#0"
            rows.append(
                {
                    "annotator_labels": [label],
                    "captionID": caption,
                    "gold_label": label,
                    "pairID": f"{caption}r{number}{label[0]}",
                    "sentence1": captions(scene, 1, rng)[0],
                    "sentence2": hypothesis.text,
                    "Flickr30K_ID": scene.image_id,
                }
            )
    rng.shuffle(rows)
    return rows
