"""A run's metrics as a table, for the terminal and for the page."""

from __future__ import annotations

import re
from collections.abc import Mapping


def score_table(metrics: Mapping[str, float]) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Metrics of the last evaluation as a table: by what is measured across, by group down.

    With several objectives, each has rows of its own.

    Args:
        metrics: by logged name, `<stage>/<objective>/<metric>[/<group>/<value>]`; others are left out.

    Returns:
        The metrics' names, and for "all" (with several objectives, for each) and each "<group>: <value>" its
        values by metric. Test comes before validation when both are there.
    """
    stage = "test" if any(name.startswith("test/") for name in metrics) else "val"
    ordered = sorted(
        metrics, key=lambda name: re.sub(r"\d+", lambda number: number[0].zfill(9), name)
    )  # 9 before 10
    named = [(name.split("/"), metrics[name]) for name in ordered]
    kept = [
        (parts, value) for parts, value in named if len(parts) > 2 and parts[0] == stage and parts[1] != "loss"
    ]
    several = len({parts[1] for parts, _ in kept}) > 1
    rows: dict[str, dict[str, float]] = {} if several else {"all": {}}
    for (_, objective, metric, *group), value in kept:
        row = ": ".join(part.replace("_", " ") for part in group) or "all"
        if several:
            name = objective.replace("_", " ")
            row = f"{name}, {row}" if group else name
        rows.setdefault(row, {})[metric] = value
    return sorted({metric for values in rows.values() for metric in values}), rows
