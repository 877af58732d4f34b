"""Loggers that go on where a run was."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment


class CsvLogger(CSVLogger):
    """`metrics.csv` that a resumed run appends to, where Lightning's would delete it.

    What is logged a second time at once is the same row: a checkpoint has its step's values logged before it.
    """

    _logged: tuple[Any, ...] = ()

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:  # type: ignore[override]
        """Add a row."""
        row = (step, dict(metrics))
        if row != self._logged:
            self._logged = row
            super().log_metrics(metrics, step)

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
