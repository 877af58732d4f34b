"""What callbacks watch must be there: found out before the first step and not after the first epoch."""

from __future__ import annotations

import difflib
from typing import Any

from lightning import Callback

from lxmert.files import InputError


class MonitorCheck(Callback):
    """Refuses a `monitor` that no validation logs, where possible after the one batch that comes first."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse to wait for a metric of a validation that never comes.

        Raises:
            InputError: early stopping without validation data.
        """
        if stage == "fit" and trainer.early_stopping_callbacks and not trainer.datamodule.datasets.get("valid"):
            raise InputError(
                "early stopping needs a validation, and data.valid names no split: name one, or go without"
            )

    def on_sanity_check_end(self, trainer: Any, pl_module: Any) -> None:
        """Compare with what that batch has logged, and with what it had no rows for: a group, one of two classes.

        Raises:
            InputError: names the metrics there are.
        """
        logged = [name for name in trainer.callback_metrics if name.startswith("val/")]
        if not logged:
            return
        logged = sorted({*logged, *pl_module.metric_names("val")})
        for callback in trainer.callbacks:
            monitor = getattr(callback, "monitor", None)
            if monitor is None or monitor in logged:
                continue
            near = difflib.get_close_matches(monitor, logged, 3)
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            raise InputError(
                f"{type(callback).__name__} monitors {monitor!r}, which no validation logs.{meant} There are: "
                f"{', '.join(name for name in logged if name.count('/') <= 2)}; the best checkpoint's is "
                "set by callbacks.best.monitor"
            )

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Look once more, after a whole validation.

        Raises:
            InputError: it had no rows for what is monitored.
        """
        for callback in () if trainer.sanity_checking else trainer.callbacks:
            monitor = getattr(callback, "monitor", None)
            if monitor in pl_module.metric_names("val") and monitor not in trainer.callback_metrics:
                raise InputError(
                    f"{type(callback).__name__} monitors {monitor!r}, which the rows of this validation do not "
                    "measure: they have none of its group, or none of a class. Monitor another metric "
                    "(callbacks.best.monitor=val/loss), or validate on other data"
                )
