"""Pre-training losses by epoch, beside those that others logged with the original code."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lxmert.files import InputError

LOSSES = ("masked_language", "matching", "object", "attribute", "feature", "question_answering")


@dataclass(frozen=True)
class Published:
    """Losses of one run of the original code, as somebody posted them.

    Args:
        name: where, among the issues of the original's repository or of one built on it.
        train: epoch, counted from 0 -> total and LOSSES in their order; the latter may be absent.
        valid: the same on the validation split.
    """

    name: str
    train: Mapping[int, tuple[float, ...]]
    valid: Mapping[int, tuple[float, ...]]


# Labels of all regions weighted by confidence (`recipe=released`), but for the second run: masked regions alone.
ORIGINAL = (
    Published(
        "#22, from BERT",
        {1: (7.40, 1.70, 0.334, 1.55, 0.525, 0.298, 2.99), 17: (2.96, 1.09, 0.170, 0.132, 0.093, 0.209, 1.26)},
        {1: (5.38, 1.50, 0.287, 0.632, 0.260, 0.245, 2.46), 17: (4.56, 1.17, 0.224, 0.729, 0.258, 0.205, 1.97)},
    ),
    Published(
        "#41, labels of masked regions",
        {0: (9.65, 2.92, 0.432, 1.60, 1.20, 0.302, 3.20), 1: (6.09, 1.75, 0.295, 0.750, 0.709, 0.244, 2.34)},
        {0: (6.64, 1.87, 0.300, 0.891, 0.812, 0.249, 2.52), 1: (5.96, 1.65, 0.273, 0.797, 0.736, 0.237, 2.27)},
    ),
    Published(
        "lxmertcatt#9",
        {0: (8.26, 2.65, 0.403, 1.01, 0.724, 0.161, 3.31), 19: (2.98, 1.23, 0.181, 0.180, 0.195, 0.115, 1.08)},
        {0: (5.69,), 19: (4.25,)},
    ),
)
REFERENCES: dict[str, tuple[Published, ...]] = {"original": ORIGINAL}


def read_metrics(table: Path) -> list[dict[str, float]]:
    """The numbers of a run's `logs/metrics.csv`, a dictionary a row; NaN for what is not finite.

    Empty cells are left out, and what a run that was killed or resumed may leave: rows cut off, repeated headers.
    """
    if not table.is_file():
        return []
    rows = []
    header: list[str] = []
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        for cells in csv.reader(file):
            if "step" in cells or not header:
                header = cells
                continue
            numbers = {name: _number(cell) for name, cell in zip(header, cells, strict=False)}
            rows.append({name: number for name, number in numbers.items() if number is not None})
    return rows


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else math.nan


def columns_of(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Names that any row has, in their order."""
    return list(dict.fromkeys(name for row in rows for name in row))


def points_of(rows: Sequence[Mapping[str, float]], along: str, name: str) -> list[tuple[float, float]]:
    """Where `name` stands along "step" or "epoch"; nothing when it is never a number."""
    points = [(row[along], row[name]) for row in rows if name in row and math.isfinite(row.get(along, math.nan))]
    return points if any(math.isfinite(value) for _, value in points) else []


def read_losses(table: Path, along: str = "epoch") -> dict[str, dict[str, dict[int, float]]]:
    """Mean losses from a run's `logs/metrics.csv`: stage ("train", "val") -> loss -> epoch or step -> mean.

    The sum of all losses is called "total". A loss that was no number at a time is none in its mean.
    """
    rows = read_metrics(table)
    losses: dict[str, dict[str, dict[int, float]]] = {"train": {}, "val": {}}
    for column in columns_of(rows):
        stage, _, name = column.partition("/loss")
        if stage not in losses or not column.startswith(f"{stage}/loss"):
            continue
        values: dict[int, list[float]] = defaultdict(list)
        for place, value in points_of(rows, along, column):
            values[int(place)].append(value)
        if values:
            losses[stage][name.removeprefix("/") or "total"] = {
                place: float(np.mean(found)) for place, found in values.items()
            }
    return losses


def draw_losses(table: Path, reference: str | None = None) -> str:
    """Every loss by epoch as SVG, training and validation; nothing when none is logged yet.

    A run of one epoch is drawn by step, unless others' losses by epoch are to stand beside it.

    Args:
        table: `logs/metrics.csv` of a run.
        reference: "original" draws the published losses of the original code beside them.

    Raises:
        InputError: an unknown reference.
    """
    if reference is not None and reference not in REFERENCES:
        raise InputError(f"logger.reference={reference}; expected one of {', '.join(REFERENCES)}, or null")
    along, losses = "epoch", read_losses(table)
    if reference is None and len({epoch for each in losses["train"].values() for epoch in each}) < 2:
        along, losses = "step", read_losses(table, "step")
    names = [name for name in ("total", *LOSSES) if name in losses["train"] or name in losses["val"]]
    if not names:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.6 * -(-len(names) // 4)), layout="constrained")
    axes = figure.subplots(-(-len(names) // 4), 4, squeeze=False).flatten()
    for axis, name in zip(axes, names, strict=False):
        for stage, style in (("train", "-"), ("val", "--")):
            points = sorted(losses[stage].get(name, {}).items())
            label = {"train": "training", "val": "validation"}[stage]
            places, values = [place + (along == "epoch") for place, _ in points], [value for _, value in points]
            axis.plot(places, values, style, marker="." if len(points) < 100 else None, label=label, color="C0")
        for number, run in enumerate(REFERENCES[reference] if reference else (), start=1):
            _draw_published(axis, run, ("total", *LOSSES).index(name), f"C{number}")
        axis.set(title=name.replace("_", " "), xlabel=along, ylim=(0, None))
        finish(axis)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    return svg_of(figure)


def finish(axis: Any) -> None:
    """Grid and whole-numbered ticks below."""
    axis.grid(alpha=0.3)
    axis.locator_params(axis="x", integer=True)


def svg_of(figure: Any) -> str:
    """A figure as an element of a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue()[text.getvalue().index("<svg") :]


def _draw_published(axis, run: Published, place: int, color: str) -> None:  # noqa: ANN001  # a matplotlib Axes
    for stage, points, style, marker in (("training", run.train, "-", "o"), ("validation", run.valid, "--", "x")):
        known = [(epoch + 1, values[place]) for epoch, values in points.items() if place < len(values)]
        if known:
            label = f"original {run.name}, {stage}"
            axis.plot(*zip(*known, strict=True), style, marker=marker, color=color, alpha=0.7, label=label)
