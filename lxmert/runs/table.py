"""A run's table of what was logged, `logs/metrics.csv`, which a kill at no moment loses."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lxmert.files import replacing


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table, atomically."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def cut_log(table: Path, step: int, *, validated: bool) -> None:
    """Drop from a run's table what was logged after the checkpoint that it goes on from.

    A row that was cut off is of after it, too: before a checkpoint is written all rows are.

    Args:
        table: `logs/metrics.csv`.
        step: optimiser steps done at the checkpoint.
        validated: whether a validation due after that step was done before it.
    """
    if not table.exists():
        return
    whole = table.read_bytes().rpartition(b"\n")[0].decode("utf-8")
    reader = csv.DictReader(io.StringIO(whole, newline=""))
    rows, columns = list(reader), reader.fieldnames or []

    def kept(row: dict[str, str]) -> bool:
        of_validation = any(value for name, value in row.items() if name.startswith("val/"))
        return int(row["step"]) < step - (of_validation and not validated)

    if columns:
        write_table(table, columns, (row for row in rows if kept(row)))
    else:
        table.unlink()
