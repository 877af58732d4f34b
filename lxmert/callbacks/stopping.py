"""Early stopping across a resume."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import callbacks


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, which takes the patience of the run that goes on, and not the one that is asked for now."""

    @property
    def is_over(self) -> bool:
        """Whether it has waited long enough."""
        return self.wait_count >= self.patience

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on waiting."""
        super().load_state_dict({**state_dict, "patience": self.patience, "stopped_epoch": 0})
