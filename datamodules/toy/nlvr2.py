"""Toy NLVR2's files: statements about pairs of generated scenes, as the makers and the LXMERT release have them.

What is stated: `statements.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from datamodules.progress import progress_bar
from datamodules.toy.folder import check_sizes, write_whole
from datamodules.toy.questions import plural
from datamodules.toy.statements import state
from datamodules.toy.world import Detector, Scene
from datamodules.toy.writing import (
    SCENES_AT_ONCE,
    question_only_accuracy,
    write_json,
    write_scenes,
    write_vocabulary,
)

VERSION = 1  # raise it whenever the same parameters no longer give the same files
# split in the release: in the makers' files and identifiers
SPLITS = {"train": "train", "valid": "dev", "test": "test1"}
PAIRS = 4  # pairs of pictures in a set, as in NLVR2
SCENES = 2 * PAIRS  # in a set


@dataclass(frozen=True)
class ToyNlvr2Parameters:
    """What the files of toy NLVR2 depend on, and nothing else.

    Attributes:
        train, valid, test: sets of each split; a set is four pairs of scenes.
        statements: sentences about a set; each is said of its four pairs, and true of two.
        regions: boxes an image.
        feature_dim: length of a region's feature.
        pictures: how many sets of each split have their scenes rendered.
        seed: of everything. Shapes and colours look as in the toy world of the same seed, so that weights
            pre-trained there understand these features.
    """

    train: int = 600
    valid: int = 80
    test: int = 80
    statements: int = 4
    regions: int = 16
    feature_dim: int = 128
    pictures: int = 12
    seed: int = 1

    def __post_init__(self) -> None:
        check_sizes("toy NLVR2", self)


def generate(root: Path | str, parameters: ToyNlvr2Parameters | None = None, *, progress: bool = True) -> Path:
    """Write the files of toy NLVR2 into `root`, unless those of the same parameters are there.

        nlvr2/{train,valid,test}.json            the format of the LXMERT release
        nlvr2/official/{train,dev,test1}.json    the makers' JSON lines: the same statements
        nlvr2/official/{balanced,unbalanced}_{dev,test1}.json    those about pairs with both truth values,
                                                 and those about pairs with one
        nlvr2_imgfeat/{train,valid,test}_obj36.tsv    the release's region features
        images/IMAGE.png                         rendered pictures
        vocab.txt                                the toys' WordPiece vocabulary
        toy.json                                 the parameters, and the statement-only accuracy on valid

    The same parameters give the same bytes. The folder appears whole or not at all.

    Raises:
        InputError: an impossible parameter.
        StoreError: `root` cannot be written.
        FileExistsError: `root` holds something else; it is left alone.
    """
    parameters = parameters or ToyNlvr2Parameters()
    detector = Detector(parameters.regions, parameters.feature_dim, parameters.seed)
    made_from = {"toy": "nlvr2", "version": VERSION, "parameters": asdict(parameters)}
    return write_whole(Path(root), made_from, lambda folder: _write(folder, parameters, detector, progress))


def _write(folder: Path, parameters: ToyNlvr2Parameters, detector: Detector, progress: bool) -> dict[str, Any]:
    for name in ("nlvr2/official", "nlvr2_imgfeat", "images"):
        (folder / name).mkdir(parents=True)
    rows: dict[str, list[dict[str, Any]]] = {}
    total = sum(getattr(parameters, split) for split in SPLITS) * SCENES
    with progress_bar("toy NLVR2 scenes", total, "scene", shown=progress) as bar:
        for order, (split, name) in enumerate(SPLITS.items()):
            rng = Random(f"toy nlvr2 {parameters.seed} {split}")
            sets = range(getattr(parameters, split))
            scenes = write_scenes(
                folder,
                f"nlvr2_imgfeat/{split}_obj36.tsv",
                [f"{name}-{n}-{pair}-img{side}" for n in sets for pair in range(PAIRS) for side in (0, 1)],
                detector,
                rng,
                np.random.default_rng([parameters.seed, 4, order]),
                pictures=parameters.pictures * SCENES,
                bar=bar,
                at_once=SCENES_AT_ONCE // SCENES * SCENES,
            )
            official: list[dict[str, Any]] = []
            for number, these in zip(sets, zip(*[scenes] * SCENES, strict=True), strict=True):
                official += _statements(f"{name}-{number}", these, parameters.statements, rng)
            rows[split] = [_row(statement, split, place) for place, statement in enumerate(official)]
            write_json(folder / "nlvr2" / f"{split}.json", rows[split])
            _write_official(folder / "nlvr2" / "official", name, official)
    write_vocabulary(folder / "vocab.txt")
    guessable = {
        split: [{**row, "label": {row["label"]: 1.0}, "question_type": ""} for row in rows[split]]
        for split in rows
    }
    accuracy = question_only_accuracy(guessable["train"], guessable["valid"])
    return {"question_only_accuracy": round(accuracy, 4)}


def _statements(name: str, scenes: Sequence[Scene], count: int, rng: Random) -> list[dict[str, Any]]:
    """The makers' rows about one set: `count` sentences, each said of every pair."""
    pairs = list(zip(scenes[::2], scenes[1::2], strict=True))
    shapes = Counter(thing.shape for scene in scenes for thing in scene.things)
    synset = max(shapes, key=lambda shape: shapes[shape])
    rows = []
    for sentence, (text, truths) in enumerate(state(pairs, count, rng)):
        for pair, (left, right) in enumerate(pairs):
            label = str(truths[pair])
            row: dict[str, Any] = {
                "validation": {"1": label},
                "sentence": text,
                "left_url": f"images/{left.image_id}.png",
                "writer": "0",
                "label": label,
                "right_url": f"images/{right.image_id}.png",
                "synset": synset,
                "query": f"some {plural(synset)}",
                "identifier": f"{name}-{pair}-{sentence}",
            }
            row |= {"directory": 0} if name.startswith("train") else {"extra_validations": {"2": label}}
            rows.append(row)
    return rows


def _row(statement: dict[str, Any], split: str, place: int) -> dict[str, Any]:
    """The release's row of a maker's row."""
    stem = statement["identifier"].rpartition("-")[0]
    return {
        "identifier": statement["identifier"],
        "img0": f"{stem}-img0",
        "img1": f"{stem}-img1",
        "label": int(statement["label"] == "True"),
        "sent": statement["sentence"],
        "uid": f"nlvr2_{split}_{place}",
    }


def _write_official(folder: Path, name: str, statements: Sequence[dict[str, Any]]) -> None:
    """The makers' JSON lines, and their two subsets of what is not for training."""
    files = {name: list(statements)}
    if name != "train":
        truths: dict[tuple[str, str], set[str]] = {}
        for row in statements:
            truths.setdefault((row["left_url"], row["right_url"]), set()).add(row["label"])
        for subset, values in (("balanced", 2), ("unbalanced", 1)):
            files[f"{subset}_{name}"] = [
                row for row in statements if len(truths[row["left_url"], row["right_url"]]) == values
            ]
    for file, those in files.items():
        (folder / f"{file}.json").write_text("".join(f"{json.dumps(row)}\n" for row in those), encoding="utf-8")
