"""GQA grounding: how much attention lies on the objects that a question and its answer mention.

The makers' script cannot run this metric on boxes: it reads the attention from a name that it never sets, and
looks for questions about the whole scene among the keys of an operation, where "scene" never is. This is its
formula with both mended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lxmert.scoring.report import ScoringError, shorten

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
        boxes = np.asarray(attention, dtype=float)
    except (TypeError, ValueError):
        boxes = np.empty(0)
    # NaN fails every comparison.
    if boxes.ndim != 2 or boxes.shape[1] != 5 or not (boxes[:, 2:4] >= boxes[:, :2]).all():
        raise ScoringError(
            f"attentions: those of question {id_} are {shorten(attention)}, expected rows "
            "[x0, y0, x1, y1, weight] with x0 <= x1 and y0 <= y1"
        )
    return boxes


def _regions(
    id_: str, question: Mapping[str, Any], scene_graphs: Mapping[str, Mapping[str, Any]]
) -> list[tuple[float, float, float, float]]:
    """The boxes of what question and answer mention, as fractions of the image's sides."""
    if "annotations" not in question or question.get("imageId") not in scene_graphs:
        raise ScoringError(
            f"scene graphs: no image {question.get('imageId')!r} for question {id_}, or the question has no "
            "annotations; grounding needs the official questions and scene graphs of one split"
        )
    scene = scene_graphs[question["imageId"]]
    regions = []
    for part in ("question", "fullAnswer"):
        for object_id in question["annotations"][part].values():
            if object_id not in scene["objects"]:
                raise ScoringError(f"scene graphs: image {question['imageId']} has no object {object_id!r}")
            place = scene["objects"][object_id]
            regions.append(
                (
                    place["x"] / scene["width"],
                    place["y"] / scene["height"],
                    (place["x"] + place["w"]) / scene["width"],
                    (place["y"] + place["h"]) / scene["height"],
                )
            )
    if any("scene" in f"{step['operation']}: {step['argument']}" for step in question["semantic"]):
        regions.append(WHOLE_IMAGE)
    return regions
