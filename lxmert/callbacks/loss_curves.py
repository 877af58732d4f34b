"""The report page: of a pre-training, every loss by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import Callback

from lxmert.callbacks.pages import write_page
from lxmert.files import InputError
from lxmert.report import PUBLISHED, draw_losses


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
