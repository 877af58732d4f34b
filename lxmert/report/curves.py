"""Curves of a run; in pre-training beside the losses that others logged with the original code."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

PUBLISHED_LOSSES = ("total", "masked_language", "matching", "object", "attribute", "feature", "question_answering")


@dataclass(frozen=True)
class Published:
    """Losses of one run of the original code, as somebody posted them.

    Args:
        name: where, among the issues of the original's repository or of one built on it.
        train: epoch, counted from 0 -> PUBLISHED_LOSSES in their order; all but the first may be absent.
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
PUBLISHED: dict[str, tuple[Published, ...]] = {"original": ORIGINAL}


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


@dataclass(frozen=True)
class Line:
    """What is drawn of one series.

    Args:
        label: in the legend.
        points: (x, y), in the order in which they are joined.
        style: how, as matplotlib's `Axes.plot` takes it: linestyle, marker, color.
    """

    label: str
    points: Sequence[tuple[float, float]]
    style: Mapping[str, Any] = field(default_factory=dict)


def draw_lines(axes: Any, lines: Iterable[Line], *, title: str, xlabel: str) -> None:
    """Draw `lines` with title, label and grid into matplotlib's `axes`; steps and epochs are whole numbers."""
    for line in lines:
        axes.plot([x for x, _ in line.points], [y for _, y in line.points], label=line.label, **line.style)
    axes.set(title=title, xlabel=xlabel)
    axes.grid(alpha=0.3)
    if xlabel in ("step", "epoch"):
        axes.locator_params(axis="x", integer=True)


def svg_of(figure: Any) -> str:
    """A matplotlib figure as an element of a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def draw_curves(table: Path) -> str:
    """Losses and validation accuracy by step as SVG; nothing when the log `logs/metrics.csv` holds neither."""
    rows = read_metrics(table)
    # <stage>/<objective>/accuracy, not that of a group
    accuracies = [name for name in columns_of(rows) if re.fullmatch(r"val/[^/]+/accuracy", name)]
    panels = [{"training loss": "train/loss", "validation loss": "val/loss"}]
    panels += [{"validation accuracy": name} for name in accuracies]
    drawn = []
    for panel in panels:
        lines = []
        for label, name in panel.items():
            if points := points_of(rows, "step", name):
                style = {"marker": "o" if len(points) < 30 else None, "markersize": 3}
                lines.append(Line(label, points, style))
        if lines:
            drawn.append(lines)
    if not drawn:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.8), layout="constrained")
    for axes, lines in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        draw_lines(axes, lines, title=", ".join(line.label for line in lines), xlabel="step")
        if len(lines) > 1:
            axes.legend(fontsize="small")
    return svg_of(figure)


def draw_losses(table: Path, published: Sequence[Published] = ()) -> str:
    """Every loss by epoch as SVG, training and validation; nothing when none is logged yet.

    A run of one epoch is drawn by step, unless others' losses by epoch are to stand beside it.

    Args:
        table: `logs/metrics.csv` of a run.
        published: losses of others, drawn beside them.
    """
    along, losses = "epoch", read_losses(table)
    if not published and len({epoch for each in losses["train"].values() for epoch in each}) < 2:
        along, losses = "step", read_losses(table, "step")
    names = sorted({**losses["train"], **losses["val"]}, key=lambda name: name != "total")
    if not names:
        return ""
    from matplotlib.figure import Figure

    rows = -(-len(names) // 4)
    figure = Figure(figsize=(11, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, 4, squeeze=False).flatten()
    for axes, name in zip(panels, names, strict=False):
        lines = []
        for stage, label, linestyle in (("train", "training", "-"), ("val", "validation", "--")):
            points = [(at + (along == "epoch"), loss) for at, loss in sorted(losses[stage].get(name, {}).items())]
            marker = "." if len(points) < 100 else None
            lines.append(Line(label, points, {"linestyle": linestyle, "marker": marker, "color": "C0"}))
        for number, run in enumerate(published, start=1):
            lines += published_lines(run, name, f"C{number}")
        draw_lines(axes, lines, title=name.replace("_", " "), xlabel=along)
        axes.set_ylim(0, None)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    return svg_of(figure)


def published_lines(run: Published, name: str, color: str) -> list[Line]:
    """The loss called `name` of a published run, as far as it tells it."""
    if name not in PUBLISHED_LOSSES:
        return []
    lines, place = [], PUBLISHED_LOSSES.index(name)
    for stage, losses, linestyle, marker in (
        ("training", run.train, "-", "o"),
        ("validation", run.valid, "--", "x"),
    ):
        points = [(epoch + 1, values[place]) for epoch, values in losses.items() if place < len(values)]
        if points:
            style = {"linestyle": linestyle, "marker": marker, "color": color, "alpha": 0.7}
            lines.append(Line(f"original {run.name}, {stage}", points, style))
    return lines
