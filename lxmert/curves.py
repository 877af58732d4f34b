"""Pre-training losses by epoch, beside those that others logged with the original code."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


def read_losses(table: Path) -> dict[str, dict[str, dict[int, float]]]:
    """Mean losses by epoch from a run's `logs/metrics.csv`: stage ("train", "val") -> loss -> epoch -> mean.

    The sum of all losses is called "total".
    """
    values: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for column, value in row.items():
                stage, _, name = column.partition("/loss")
                if value and stage in ("train", "val") and column.startswith(f"{stage}/loss"):
                    values[stage, name.removeprefix("/") or "total", int(row["epoch"])].append(float(value))
    losses: dict[str, dict[str, dict[int, float]]] = {"train": {}, "val": {}}
    for (stage, name, epoch), found in values.items():
        losses[stage].setdefault(name, {})[epoch] = float(np.mean(found))
    return losses


def draw_losses(table: Path, reference: str | None = None) -> str:
    """Every loss by epoch as SVG, training and validation; nothing when none is logged yet.

    Args:
        table: `logs/metrics.csv` of a run.
        reference: "original" draws the published losses of the original code beside them.

    Raises:
        ValueError: an unknown reference.
    """
    if reference is not None and reference not in REFERENCES:
        raise ValueError(f"logger.reference={reference}; expected one of {', '.join(REFERENCES)}, or null")
    losses = read_losses(table) if table.is_file() else {"train": {}, "val": {}}
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
            epochs, values = [epoch + 1 for epoch, _ in points], [value for _, value in points]
            axis.plot(epochs, values, style, marker=".", label=label, color="C0")
        for number, run in enumerate(REFERENCES[reference] if reference else (), start=1):
            _draw_published(axis, run, ("total", *LOSSES).index(name), f"C{number}")
        axis.set(title=name.replace("_", " "), xlabel="epoch", ylim=(0, None))
        axis.grid(alpha=0.3)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue()[text.getvalue().index("<svg") :]


def _draw_published(axis, run: Published, place: int, color: str) -> None:  # noqa: ANN001  # a matplotlib Axes
    for stage, points, style, marker in (("training", run.train, "-", "o"), ("validation", run.valid, "--", "x")):
        known = [(epoch + 1, values[place]) for epoch, values in points.items() if place < len(values)]
        if known:
            label = f"original {run.name}, {stage}"
            axis.plot(*zip(*known, strict=True), style, marker=marker, color=color, alpha=0.7, label=label)
