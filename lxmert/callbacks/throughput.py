"""How fast a training is, and how much of it is spent waiting for data."""

from __future__ import annotations

import time
from typing import Any

from lightning import Callback

from lxmert.batch import Batch


class Throughput(Callback):
    """Logs `train/rows_per_s` over all processes and `train/data_wait`, the share of time without a batch."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self.began = self.ended = time.perf_counter()
        self.rows = 0
        self.waited = 0.0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start counting; validation between epochs does not count."""
        self._restart()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """The time since the last batch ended was spent waiting."""
        self.waited += time.perf_counter() - self.ended

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log every `log_every_n_steps` batches."""
        self.ended = time.perf_counter()
        self.rows += batch.num_rows * trainer.world_size
        if (batch_idx + 1) % trainer.log_every_n_steps == 0:
            elapsed = self.ended - self.began
            pl_module.log("train/rows_per_s", self.rows / elapsed, prog_bar=True)
            pl_module.log("train/data_wait", self.waited / elapsed)
            self._restart()
