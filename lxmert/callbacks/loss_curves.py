"""The report page: of a pre-training, every loss by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer

from lxmert.files import InputError
from lxmert.report import PUBLISHED, Example, draw_losses, write_report


class LossCurves(Callback):
    """Draws every loss by epoch on the report page after each validation, and what a test measured in the end.

    Args:
        page: the HTML page to write.
        published: "original" draws the losses beside them that users of the original code posted.

    Raises:
        InputError: an unknown `published`.
    """

    def __init__(self, page: str, published: str | None = None) -> None:
        if published is not None and published not in PUBLISHED:
            raise InputError(f"callbacks.curves.published={published}; expected {' or '.join(PUBLISHED)}, or null")
        self.page = Path(page)
        self.published = PUBLISHED[published] if published else ()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the page."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        for logger in trainer.loggers:
            logger.save()  # the curves are drawn from the table
        write_page(self.page, trainer, draw_losses(self.page.parent / "logs" / "metrics.csv", self.published))

    on_test_end = on_validation_end


def write_page(page: Path, trainer: Trainer, curves: str, examples: Sequence[Example] = ()) -> None:
    """Write the report page of what `trainer` has just validated or tested.

    Args:
        page: HTML file.
        trainer: with its data module.
        curves: SVG of the training; may be empty.
        examples: shown as cards.
    """
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    splits = ", ".join(datamodule.splits["test" if trainer.testing else "valid"])
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    write_report(page, metrics, f"{datamodule.title}: {splits}", curves, examples)
