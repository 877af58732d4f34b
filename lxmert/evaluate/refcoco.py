"""RefCOCO, RefCOCO+, RefCOCOg, Visual7W pointing: whether the chosen box is the one that a sentence means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lxmert.evaluate.scores import (
    ScoreReport,
    ScoringError,
    id_type_of,
    identifier_problem,
    percent,
    refuse_unknown,
    require_all,
    some,
)
from lxmert.files import shorten

HIT = 0.5
Box = Sequence[float]  # x, y, width, height


def score_regions(predictions: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]]) -> ScoreReport:
    """Score chosen boxes: the share that overlaps what is meant by more than 0.5.

    Where the truth has `others`, the choice was among these and the right box: right is then what none of them
    overlaps more.

    Args:
        predictions: `{"id": int or str, "box": [x, y, width, height]}` in pixels, one for every sentence.
        truth: `{"id", "box"}` and perhaps `"others": [box, ...]`, as of datamodules/formats/referring.py.

    Returns:
        `metrics["accuracy"]`, and `metrics["iou"]`, the mean intersection over union, both in percent.

    Raises:
        ScoringError: a malformed, repeated, unknown or missing prediction, or malformed truth.
    """
    id_type = id_type_of(truth, "id")
    right = _indexed(truth, "truth", id_type)
    chosen = _indexed(predictions, "predictions", id_type)
    refuse_unknown(chosen, right, "ids")
    require_all(chosen, right, "sentences")
    hits, ious = [], []
    for identifier, row in right.items():
        box, others = chosen[identifier]["box"], row.get("others", ())
        if not isinstance(others, Sequence) or not all(map(is_box, others)):
            raise ScoringError(f"truth: others of {some([identifier])} is {shorten(others)}, expected boxes")
        iou = box_iou(box, row["box"])
        hits.append(float(iou > HIT and all(box_iou(box, other) <= iou for other in others)))
        ious.append(iou)
    return ScoreReport(len(hits), {"accuracy": percent(hits), "iou": percent(ious)})


def box_iou(box: Box, other: Box) -> float:
    """Intersection over union of two boxes x, y, width, height in pixels.

    With sides a pixel longer, as VOLTA computes it. MAttNet and UNITER do without, which differs by a few
    thousandths for boxes of a hundred pixels.
    """
    width, height = (
        min(box[side] + box[side + 2], other[side] + other[side + 2]) - max(box[side], other[side]) + 1
        for side in (0, 1)
    )
    both = max(width, 0) * max(height, 0)
    return both / ((box[2] + 1) * (box[3] + 1) + (other[2] + 1) * (other[3] + 1) - both)


def is_box(value: Any) -> bool:
    """Whether it is x, y, width and height, the last two not below 0."""
    numbers = isinstance(value, list | tuple) and len(value) == 4 and all(type(n) in (int, float) for n in value)
    return numbers and all(abs(each) < 1e18 for each in value) and min(value[2:]) >= 0


def _indexed(rows: Any, name: str, id_type: type) -> dict[Any, Mapping[str, Any]]:
    expected = f'{{"id": {id_type.__name__}, "box": [x, y, width, height]}}'
    if not isinstance(rows, Sequence) or isinstance(rows, str) or (not rows and name == "truth"):
        raise ScoringError(f"{name}: found {shorten(rows)}, expected a list of {expected}")
    indexed: dict[Any, Mapping[str, Any]] = {}
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping) or not {"id", "box"} <= row.keys():
            raise ScoringError(f"{name}[{place}]: {shorten(row)}, expected {expected}")
        if problem := identifier_problem(row["id"], id_type):
            raise ScoringError(f"{name}[{place}]: id is {shorten(row['id'])}, {problem}")
        if not is_box(row["box"]):
            raise ScoringError(
                f"{name}[{place}]: box of {some([row['id']])} is {shorten(row['box'])}, expected {expected}"
            )
        if row["id"] in indexed:
            raise ScoringError(f"{name}[{place}]: id {some([row['id']])} is there a second time")
        indexed[row["id"]] = row
    return indexed
