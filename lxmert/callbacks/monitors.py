"""What callbacks watch must be there: found out before the first step and not after the first epoch."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from lightning import Callback

from lxmert.files import InputError

LOWER_IS_BETTER = frozenset({"loss", "perplexity"})


class MonitorCheck(Callback):
    """Refuses a `monitor` that no validation logs, where possible after the one batch that comes first."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse to wait for a metric of a validation that never comes, and to keep what is worst.

        Raises:
            InputError: early stopping without validation data, or a loss that is to be as high as possible.
        """
        if stage != "fit":
            return
        if trainer.early_stopping_callbacks and not trainer.datamodule.datasets.get("valid"):
            raise InputError(
                "early stopping needs a validation, and data.valid names no split: name one, or go without"
            )
        for callback, monitor in monitored(trainer):
            if getattr(callback, "mode", None) == "max" and LOWER_IS_BETTER & {*monitor.split("/")}:
                raise InputError(
                    f"{type(callback).__name__} monitors {monitor!r}, of which the lowest is the best, and would "
                    "take the highest (mode: max): add callbacks.best.mode=min"
                )

    def on_sanity_check_end(self, trainer: Any, pl_module: Any) -> None:
        """Compare with what that batch has logged, and with what it had no rows for: a group, one of two classes.

        Raises:
            InputError: names the metrics there are.
        """
        logged = [name for name in trainer.callback_metrics if name.startswith("val/")]
        known = sorted({*logged, *pl_module.metric_names("val")})
        for callback, monitor in monitored(trainer) if logged else ():
            if monitor not in known:
                refuse(callback, monitor, known)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Look once more, after a whole validation.

        Raises:
            InputError: what is monitored is none of its metrics, or it had no rows for it.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        known = sorted({*trainer.callback_metrics, *pl_module.metric_names("val")})
        for callback, monitor in monitored(trainer):
            if monitor not in known:
                refuse(callback, monitor, known)
            if monitor not in trainer.callback_metrics:
                raise InputError(
                    f"{type(callback).__name__} monitors {monitor!r}, which the rows of this validation do not "
                    "measure: they have none of its group, or none of a class. Monitor another metric "
                    "(callbacks.best.monitor=val/loss callbacks.best.mode=min), or validate on other data"
                )


def monitored(trainer: Any) -> list[tuple[Any, str]]:
    """Each callback that watches a metric, with its name."""
    return [(each, name) for each in trainer.callbacks if (name := getattr(each, "monitor", None)) is not None]


def refuse(callback: Any, monitor: str, known: Sequence[str]) -> NoReturn:
    """InputError: `monitor` is none of the `known` metrics."""
    known = [name for name in known if name.startswith("val/")]
    near = difflib.get_close_matches(monitor, known, 3)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    raise InputError(
        f"{type(callback).__name__} monitors {monitor!r}, which no validation logs.{meant} There are: "
        f"{', '.join(name for name in known if name.count('/') <= 2)}; the best checkpoint's is "
        "set by callbacks.best.monitor"
    )
