"""How far work is: a bar on a terminal, a line at its start and one at its end in a log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOBase

from tqdm import tqdm

log = logging.getLogger(__name__)

LARGE, MANY = 50_000_000, 10_000  # bytes, and what else is counted, that take long enough to be told of in a log


class _Nowhere(TextIOBase):
    """Takes what is written, so that a bar counts that is not drawn."""

    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def progress_bar(
    title: str, total: int | None = None, unit: str = "B", *, done: int = 0, shown: bool = True, leave: bool = True
) -> Iterator[tqdm]:
    """A bar to `update` by what has been done; it counts whether it is drawn or not.

    Args:
        title: what is worked on.
        total: how much there is to do, None where that is not known yet.
        unit: "B" for bytes, else what is counted.
        done: how much of it was done before.
        shown: False for no bar and no lines.
        leave: whether the full bar stays.
    """
    drawn = sys.stderr.isatty()  # elsewhere a bar would be thousands of lines with carriage returns
    told = shown and not drawn and (total or 0) >= (LARGE if unit == "B" else MANY)
    if told:
        log.info("%s: %s", title, f"{total:,} {'bytes' if unit == 'B' else f'{unit}s'}")
    with tqdm(
        total=total,
        initial=done,
        desc=title,
        unit=unit,
        unit_scale=unit == "B",
        leave=leave,
        file=sys.stderr if drawn and shown else _Nowhere(),
    ) as bar:
        yield bar
    if told:
        log.info("%s: done", title)
