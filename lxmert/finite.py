"""Finding NaN and infinity in losses and gradients without waiting for the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor


class NotFiniteError(ArithmeticError):
    """A loss, a gradient or a weight is NaN or infinite: training on would lose the model."""


class FiniteWatch:
    """Checks flags that are computed on the device: at once on a CPU, on a GPU when their copies have arrived.

    A GPU so trains a few steps on before it is stopped. Nothing is saved meanwhile: who saves asks
    `check(wait=True)` first.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[Tensor, torch.cuda.Event | None, Callable[[], str]]] = deque()

    def add(self, finite: Tensor, tell: Callable[[], str]) -> None:
        """Watch the bool scalar `finite`; `tell` says what happened should it be False.

        Raises:
            NotFiniteError: it, or an earlier one, is known to be False.
        """
        event = None
        if finite.device.type == "cuda":
            pinned = torch.empty((), dtype=torch.bool, pin_memory=True)
            finite = pinned.copy_(finite.detach(), non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._pending.append((finite, event, tell))
        self.check()

    def check(self, *, wait: bool = False) -> None:
        """Look at the flags that have arrived, in order, with `wait` at all.

        Raises:
            NotFiniteError: one is False.
        """
        while self._pending:
            finite, event, tell = self._pending[0]
            if event is not None:
                if wait:
                    event.synchronize()
                elif not event.query():
                    return
            self._pending.popleft()
            if not finite:
                self._pending.clear()
                raise NotFiniteError(tell())
