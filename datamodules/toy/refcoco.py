"""Toy RefCOCO's files: expressions that mean one thing of a generated scene, in REFER's format and Visual7W's.

How things are called: `expressions.py`.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from datamodules.formats.coco import image_name
from datamodules.formats.refer import read_refer
from datamodules.formats.referring import Referring, write_rows
from datamodules.formats.visual7w import read_visual7w
from datamodules.progress import progress_bar
from datamodules.toy.expressions import refer
from datamodules.toy.folder import check_sizes, write_whole
from datamodules.toy.world import SHAPES, Detector, Scene
from datamodules.toy.writing import write_json, write_scenes, write_vocabulary

VERSION = 1  # raise it whenever the same parameters no longer give the same files
SPLITS = ("train", "val", "testA", "testB")
POINTING = {"train": "train", "val": "val", "testA": "test"}  # its splits in Visual7W
CHOICES = 4  # boxes of a question there
MOST_GUESSES = 300  # boxes that the best guess is looked for among


@dataclass(frozen=True)
class ToyRefcocoParameters:
    """What the files of toy RefCOCO depend on, and nothing else.

    Attributes:
        train, val, testA, testB: scenes of each split.
        expressions: up to so many a scene.
        regions: boxes an image.
        feature_dim: length of a region's feature.
        pictures: how many of the train scenes are rendered; those of the other splits all are.
        seed: of everything. Shapes and colours look as in the toy world of the same seed, so that weights
            pre-trained there understand these features.
    """

    train: int = 2500
    val: int = 250
    testA: int = 250
    testB: int = 250
    expressions: int = 5
    regions: int = 16
    feature_dim: int = 128
    pictures: int = 50
    seed: int = 1

    def __post_init__(self) -> None:
        check_sizes("toy RefCOCO", self)


def generate(root: Path | str, parameters: ToyRefcocoParameters | None = None, *, progress: bool = True) -> Path:
    """Write the files of toy RefCOCO into `root`, unless those of the same parameters are there.

        refcoco/refs(unc).p, instances.json     REFER's files; the images' names are COCO's, as the makers' are
        refcoco/{train,val,testA,testB}.json    what datamodules/formats/refer.py reads in these
        visual7w/dataset_v7w_pointing.json      Visual7W's file: the same, in scenes of four things and more
        visual7w/{train,val,test}.json          what datamodules/formats/visual7w.py reads in it; test is testA
        mscoco_imgfeat/train2014_obj36.tsv      the release's region features
        images/IMAGE.png                        rendered pictures
        vocab.txt                               the toys' WordPiece vocabulary
        toy.json                                the parameters, and the accuracies of guesses on val

    The same parameters give the same bytes. The folder appears whole or not at all.

    Raises:
        InputError: an impossible parameter.
        StoreError: `root` cannot be written.
        FileExistsError: `root` holds something else; it is left alone.
    """
    parameters = parameters or ToyRefcocoParameters()
    detector = Detector(parameters.regions, parameters.feature_dim, parameters.seed)
    made_from = {"toy": "refcoco", "version": VERSION, "parameters": asdict(parameters)}
    return write_whole(Path(root), made_from, lambda folder: _write(folder, parameters, detector, progress))


def _write(folder: Path, parameters: ToyRefcocoParameters, detector: Detector, progress: bool) -> dict[str, Any]:
    for name in ("refcoco", "visual7w", "mscoco_imgfeat", "images"):
        (folder / name).mkdir(parents=True)
    refs: list[dict[str, Any]] = []
    instances: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    pointing: list[dict[str, Any]] = []
    sentence_ids, question_ids, chances = count(1), count(1), []
    first = 1
    with progress_bar(
        "toy RefCOCO scenes", sum(getattr(parameters, split) for split in SPLITS), "scene", shown=progress
    ) as bar:
        for order, split in enumerate(SPLITS):
            rng = Random(f"toy refcoco {parameters.seed} {split}")
            numbers = range(first, first + getattr(parameters, split))
            first = numbers.stop
            scenes = write_scenes(
                folder,
                "mscoco_imgfeat/train2014_obj36.tsv",
                [image_name("train2014", number) for number in numbers],
                detector,
                rng,
                np.random.default_rng([parameters.seed, 5, order]),
                pictures=parameters.pictures if split == "train" else len(numbers),
                bar=bar,
            )
            for number, scene in zip(numbers, scenes, strict=True):
                instances["images"].append(_image(scene, number))
                instances["annotations"] += _annotations(scene, number)
                found = refer(scene, parameters.expressions, rng)
                refs += _refs(scene, number, split, found, sentence_ids)
                chances += [1 / len(scene.things)] * len(found) if split == "val" else []
                if split in POINTING and len(scene.things) >= CHOICES:
                    pointing.append(_pointing(scene, number, POINTING[split], found, question_ids, rng))
    for number, ref in enumerate(refs, 1):
        ref["ref_id"] = number
    files = folder / "refcoco" / "refs(unc).p", folder / "refcoco" / "instances.json"
    files[0].write_bytes(pickle.dumps(refs, protocol=2))  # the makers wrote it with Python 2
    categories = [{"id": number, "name": shape, "supercategory": "toy"} for number, shape in enumerate(SHAPES, 1)]
    write_json(
        files[1],
        {"info": {"description": "toy: generated scenes, not COCO"}, **instances, "categories": categories},
    )
    rows = read_refer(*files)
    for split in SPLITS:
        write_rows(folder / "refcoco" / f"{split}.json", rows[split])
    boxes = [
        {"box_id": each["id"], **dict(zip(("x", "y", "width", "height"), each["bbox"], strict=True))}
        for each in instances["annotations"]
    ]
    file = folder / "visual7w" / "dataset_v7w_pointing.json"
    write_json(file, {"dataset": "toy: generated scenes, not Visual7W", "images": pointing, "boxes": boxes})
    questions = read_visual7w(file)
    for split in POINTING.values():
        write_rows(folder / "visual7w" / f"{split}.json", questions[split])
    write_vocabulary(folder / "vocab.txt")
    guesses = {
        "refcoco": {
            "best guess from the text alone": text_only_accuracy(rows["train"], rows["val"]),
            "any thing of the picture": float(np.mean(chances)),
        },
        "visual7w": {
            "best guess from the text and the boxes alone": nearest_accuracy(questions["train"], questions["val"]),
            "any of the boxes": 1 / CHOICES,
        },
    }
    return {"guesses": {name: {w: round(a, 4) for w, a in each.items()} for name, each in guesses.items()}}


def _image(scene: Scene, number: int) -> dict[str, Any]:
    return {"id": number, "file_name": f"{scene.image_id}.jpg", "width": scene.width, "height": scene.height}


def _annotation_id(number: int, place: int) -> int:
    return number * 10 + place


def _annotations(scene: Scene, number: int) -> list[dict[str, Any]]:
    rows = []
    for place, thing in enumerate(scene.things):
        (left, top), (right, bottom) = thing.outline().min(0), thing.outline().max(0)
        rows.append(
            {
                "id": _annotation_id(number, place),
                "image_id": number,
                "category_id": SHAPES.index(thing.shape) + 1,
                "bbox": [round(float(side), 2) for side in (left, top, right - left, bottom - top)],
                "iscrowd": 0,
            }
        )
    return rows


def _refs(
    scene: Scene, number: int, split: str, found: Sequence[tuple[int, str]], sentence_ids: Iterable[int]
) -> list[dict[str, Any]]:
    """The makers' rows: one for each thing, with all that it is called."""
    texts: dict[int, list[str]] = defaultdict(list)
    for place, text in found:
        texts[place].append(text)
    rows = []
    for place, those in texts.items():
        sentences = [
            {"tokens": text.split(), "raw": text, "sent_id": identifier, "sent": text}
            for text, identifier in zip(those, sentence_ids, strict=False)
        ]
        rows.append(
            {
                "sent_ids": [sentence["sent_id"] for sentence in sentences],
                "file_name": f"{scene.image_id}_{place}.jpg",
                "ann_id": _annotation_id(number, place),
                "image_id": number,
                "split": split,
                "category_id": SHAPES.index(scene.things[place].shape) + 1,
                "sentences": sentences,
            }
        )
    return rows


def _pointing(
    scene: Scene,
    number: int,
    split: str,
    found: Sequence[tuple[int, str]],
    question_ids: Iterator[int],
    rng: Random,
) -> dict[str, Any]:
    """The makers' image, with a question for each expression."""
    questions = []
    for place, text in found:
        others = [other for other in range(len(scene.things)) if other != place]
        wrong = [_annotation_id(number, other) for other in rng.sample(others, CHOICES - 1)]
        questions.append(
            {
                "qa_id": next(question_ids),
                "image_id": number,
                "type": "which",
                "question": text,
                "answer": _annotation_id(number, place),
                "multiple_choices": wrong,
            }
        )
    return {"image_id": number, "split": split, "filename": f"{scene.image_id}.jpg", "qa_pairs": questions}


def text_only_accuracy(train: Iterable[Referring], valid: Sequence[Referring]) -> float:
    """Share in 0..1 of `valid` that the best guess gets right which never looks at the picture.

    For each text the place, in parts of the picture's sides, where most of what it means in `train` is; for a text
    that is not there the same over all of `train`. It may be any place, not only that of a region.
    """
    places: dict[str, list[np.ndarray]] = defaultdict(list)
    for row in train:
        for key in (row.text, ""):
            places[key].append(_fractions(row))
    best = {text: _most_like_others(np.array(those[:MOST_GUESSES])) for text, those in places.items()}
    right = [_overlap(best.get(row.text, best[""]), _fractions(row)) > 0.5 for row in valid]
    return float(np.mean(right))


def nearest_accuracy(train: Iterable[Referring], valid: Iterable[Referring]) -> float:
    """Share in 0..1 of `valid` whose right box is the nearest one to where the text's boxes are in `train`.

    That is their mean centre, in pixels; of a text that is not there, the mean of all.
    """
    centres: dict[str, list[np.ndarray]] = defaultdict(list)
    for row in train:
        assert row.box is not None
        for key in (row.text, ""):
            centres[key].append(_centre(row.box))
    means = {text: np.mean(those, 0) for text, those in centres.items()}
    right = []
    for row in valid:
        assert row.box is not None
        away = [np.linalg.norm(_centre(box) - means.get(row.text, means[""])) for box in (row.box, *row.others)]
        right.append(np.argmin(away) == 0)
    return float(np.mean(right))


def _centre(box: Sequence[float]) -> np.ndarray:
    return np.array(box[:2]) + np.array(box[2:]) / 2


def _fractions(row: Referring) -> np.ndarray:
    assert row.size is not None and row.box is not None
    x, y, width, height = row.box
    return np.array([x, y, x + width, y + height]) / (*row.size, *row.size)


def _most_like_others(boxes: np.ndarray) -> np.ndarray:
    hits = (_overlap(boxes[:, None], boxes[None]) > 0.5).sum(1)
    return boxes[hits.argmax()]


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union, in whatever unit the sides have."""
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    both = sides.clip(0).prod(-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(-1) for each in (boxes, others)]
    return both / (areas[0] + areas[1] - both)
