"""Loggers that go on where a run was."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from lxmert.files import replacing


class CsvLogger(CSVLogger):
    """`metrics.csv` that a resumed run appends to, where Lightning's would delete it."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of the table."""
        if self._experiment is not None:
            return self._experiment
        table = Path(self.log_dir) / "metrics.csv"
        kept = table.read_bytes() if table.exists() else b""
        if kept:
            table.unlink()
        writer = super().experiment
        if kept:
            table.write_bytes(kept)
            writer.metrics_keys = next(csv.reader(kept.decode().splitlines()), [])
        return writer


def cut_log(table: Path, step: int, *, validated: bool) -> None:
    """Drop from a run's table what was logged after the checkpoint that it goes on from.

    Args:
        table: `logs/metrics.csv`.
        step: optimiser steps done at the checkpoint.
        validated: whether a validation due after that step was done before it.
    """
    if not table.exists():
        return
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), reader.fieldnames or []

    def kept(row: dict[str, str]) -> bool:
        of_validation = any(value for name, value in row.items() if name and name.startswith("val/"))
        return int(row["step"]) < step - (of_validation and not validated)

    with replacing(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(row for row in rows if kept(row))
