"""What every objective offers the learner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from lxmert.batch import Batch
from lxmert.outputs import LxmertModelOutput


@dataclass
class Result:
    """What an objective makes of a batch.

    Args:
        losses: scalars by name, to be added up; empty when the batch has no targets.
        predictions: tensors by name, for metrics and prediction files.
    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    predictions: dict[str, Tensor] = field(default_factory=dict)


class ObjectiveMetrics(nn.Module, ABC):
    """Metrics of one objective over one pass of a split."""

    @abstractmethod
    def update(self, result: Result, batch: Batch) -> None:
        """Add a batch."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Values by name over all processes; no key for what was not measured."""

    @abstractmethod
    def reset(self) -> None:
        """Start anew."""


class Objective(nn.Module, ABC):
    """One thing the model is trained to do.

    `reads` says which outputs of the model it needs: some of "pooled", "language", "vision".
    """

    reads: frozenset[str]

    @abstractmethod
    def forward(self, output: LxmertModelOutput, batch: Batch) -> Result:
        """Losses and predictions of one batch."""

    @abstractmethod
    def make_metrics(self, tables: Mapping[str, Sequence[str]]) -> ObjectiveMetrics:
        """Fresh metrics; `tables` names the codes in the batch's targets."""
