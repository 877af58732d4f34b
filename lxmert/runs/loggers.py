"""Loggers that go on where a run was."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment


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
