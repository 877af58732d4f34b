"""How far a run is: a bar in a terminal, a line every few minutes in a log."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from lightning import Callback
from lightning.pytorch.callbacks import RichProgressBar

log = logging.getLogger(__name__)


def progress_bar(every_seconds: float) -> Callback:
    """A progress bar where it can be drawn; elsewhere a line of progress every `every_seconds`."""
    return RichProgressBar() if sys.stdout.isatty() else ProgressLines(every_seconds)


class ProgressLines(Callback):
    """Logs epoch, step, loss, speed and the time that is left.

    Args:
        every_seconds: between two lines; the first comes after the first step.
    """

    def __init__(self, every_seconds: float) -> None:
        self.every_seconds = every_seconds
        self._said = float("-inf")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The steps of this process count from here."""
        self._began, self._first = time.monotonic(), trainer.global_step
        self._said = float("-inf")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log a line when it is time."""
        now = time.monotonic()
        if not trainer.is_global_zero or now - self._said < self.every_seconds:
            return
        self._said = now
        done, total = trainer.global_step, pl_module.total_steps
        parts = [f"epoch {trainer.current_epoch + 1}", f"step {done:,} of {total:,}"]
        shown = {"train/loss": "loss", "val/loss": "validation loss", "train/rows_per_s": "rows/s"}
        metrics = trainer.callback_metrics
        parts += [f"{name} {float(metrics[key]):.4g}" for key, name in shown.items() if key in metrics]
        if done > self._first + 1:
            left = (total - done) * (now - self._began) / (done - self._first)
            parts.append(f"{duration(left)} left, validation not counted")
        log.info(", ".join(parts))

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """A validation may take long too."""
        if trainer.is_global_zero and not trainer.sanity_checking:
            log.info("validation after step %s", f"{trainer.global_step:,}")


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
