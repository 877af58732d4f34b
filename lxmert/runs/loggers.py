"""Loggers that go on where a run was."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment

from lxmert.runs.table import write_table


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
        if self._experiment is None:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = _Writer(self.log_dir)
        return self._experiment


class _Writer(ExperimentWriter):
    """Keeps the table that is there, and has no moment in which a kill would lose it."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        table = Path(self.metrics_file_path)
        if table.exists():
            with table.open(newline="", encoding="utf-8") as file:
                self.metrics_keys = next(csv.reader(file), [])

    def _check_log_dir_exists(self) -> None:
        pass  # what Lightning's removes

    def _rewrite_with_new_header(self, fieldnames: Sequence[str]) -> None:
        table = Path(self.metrics_file_path)
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        write_table(table, fieldnames, rows)
