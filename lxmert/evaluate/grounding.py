"""GQA grounding: how much attention lies on the objects that a question and its answer mention.

The makers' script cannot run this metric on boxes: it reads the attention from a name that it never sets, and
looks for questions about the whole scene among the keys of an operation, where "scene" never is. This is its
formula with both mended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lxmert.evaluate.scores import ScoringError, some
from lxmert.files import shorten

LARGEST = 1e6  # what a corner, a weight or a side of an image may be
WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)


def grounding_score(
    id_: str,
    question: Mapping[str, Any],
    scene_graphs: Mapping[str, Mapping[str, Any]],
    attention: Sequence[Sequence[float]],
) -> float:
    """The attention on the boxes, each times the share of its area inside a mentioned object, summed.

    Every mentioned object counts by itself, so that objects which overlap can make it more than 1.

    Args:
        id_: the question's, for messages.
        question: with `imageId`, `semantic` and `annotations` as in the official file.
        scene_graphs: the official file: image id -> width, height, objects.
        attention: n rows x0, y0, x1, y1, weight; corners in 0..1, weights of a question adding up to 1. A box
            without area has no share inside anything.

    Raises:
        ScoringError: attention of another form, or an image or object that the scene graphs lack.
    """
    boxes = _boxes(id_, attention)
    regions = np.array(_regions(id_, question, scene_graphs), dtype=float).reshape(-1, 4)
    low = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = np.minimum(boxes[:, None, 2:4], regions[None, :, 2:])
    inside = (high - low).clip(min=0).prod(axis=2)  # (boxes, regions)
    area = (boxes[:, 2:4] - boxes[:, :2]).prod(axis=1)
    share = np.divide(inside, area[:, None], out=np.zeros_like(inside), where=area[:, None] > 0)
    return float(boxes[:, 4] @ share.sum(axis=1))


def _boxes(id_: str, attention: Sequence[Sequence[float]]) -> np.ndarray:
    try:
        boxes = np.asarray(attention)
    except (TypeError, ValueError, OverflowError, RecursionError):
        boxes = np.empty(0)
    # NaN fails every comparison.
    if (
        boxes.ndim != 2
        or boxes.shape[1] != 5
        or boxes.dtype.kind not in "iuf"
        or not (boxes[:, 2:4] >= boxes[:, :2]).all()
        or not (np.abs(boxes) <= LARGEST).all()
    ):
        raise ScoringError(
            f"attentions: those of question {some([id_])} are {shorten(attention)}, expected rows "
            "[x0, y0, x1, y1, weight] with x0 <= x1 and y0 <= y1"
        )
    return boxes.astype(float)


def _regions(
    id_: str, question: Mapping[str, Any], scene_graphs: Mapping[str, Mapping[str, Any]]
) -> list[tuple[float, float, float, float]]:
    """The boxes of what question and answer mention, as fractions of the image's sides."""
    image, annotations = question.get("imageId"), question.get("annotations")
    if not isinstance(annotations, Mapping) or not isinstance(image, str) or image not in scene_graphs:
        raise ScoringError(
            f"scene graphs: no image {shorten(image)} for question {some([id_])}, or the question has no "
            "annotations; grounding needs the official questions and scene graphs of one split"
        )
    width, height, objects = _scene(image, scene_graphs[image])
    regions = []
    for part in ("question", "fullAnswer"):
        mentioned = annotations.get(part)
        if not isinstance(mentioned, Mapping) or not all(isinstance(name, str) for name in mentioned.values()):
            raise ScoringError(
                f"annotations: question {some([id_])} has as annotations of its {part} {shorten(mentioned)}, "
                "expected an object of words and the objects they mention"
            )
        for object_id in mentioned.values():
            if object_id not in objects:
                raise ScoringError(f"scene graphs: image {some([image])} has no object {shorten(object_id)}")
            x, y, w, h = _sides(f"object {some([object_id])} of image {some([image])}", objects[object_id], "xywh")
            regions.append((x / width, y / height, (x + w) / width, (y + h) / height))
    if any("scene" in f"{step['operation']}: {step['argument']}" for step in question["semantic"]):
        regions.append(WHOLE_IMAGE)
    return regions


def _scene(image: str, scene: Any) -> tuple[float, float, Mapping[str, Any]]:
    width, height = _sides(f"image {some([image])}", scene, ("width", "height"))
    if width <= 0 or height <= 0 or not isinstance(scene.get("objects"), Mapping):
        raise ScoringError(f"scene graphs: image {some([image])} is {shorten(scene)}, expected sides and objects")
    return width, height, scene["objects"]


def _sides(what: str, value: Any, names: Sequence[str]) -> list[float]:
    sides: list[Any] = [value.get(name) for name in names] if isinstance(value, Mapping) else []
    if not sides or not all(type(side) in (int, float) and abs(side) <= LARGEST for side in sides):
        raise ScoringError(
            f"scene graphs: {what} is {shorten(value)}, expected the numbers {', '.join(names)} of pixels"
        )
    return sides
