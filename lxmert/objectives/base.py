"""What every objective offers the learner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from lxmert.batch import Batch
from lxmert.evaluate import TASKS, Task
from lxmert.files import InputError
from lxmert.model import Lxmert
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
    """Metrics of one objective over one pass of a split, the modules among its attributes (metrics.py)."""

    @property
    def names(self) -> list[str]:
        """Of all values that a pass may have."""
        return [name for metric in self._parts() for name in metric.keys]

    @abstractmethod
    def update(self, result: Result, batch: Batch) -> None:
        """Add a batch."""

    def compute(self) -> dict[str, Tensor]:
        """Values by name over all processes; no key for what was not measured."""
        return {name: value for metric in self._parts() for name, value in metric.compute().items()}

    def reset(self) -> None:
        """Start anew."""
        for metric in self._parts():
            metric.reset()

    def _parts(self) -> Iterator[Any]:
        return self.children()


class Objective(nn.Module, ABC):
    """One thing the model is trained to do.

    `outputs_needed` says which outputs of the model it reads: some of "pooled", "language", "vision".
    `head_name` is what its `head` is called among weights under the reference's names. The learner sets `task`,
    the benchmark by whose rules metrics measure.

    Of its targets, for whoever makes batches of fixed sizes (lxmert/objectives/shapes.py): `lists` are those that
    `prepare_batch` makes as long as each batch wants, with the entry that stands for nothing, which losses ignore;
    `of_regions` are (I, N) and `of_images` (I, ...).
    """

    outputs_needed: frozenset[str]
    head_name: str
    lists: ClassVar[Mapping[str, int]] = MappingProxyType({})
    of_regions: ClassVar[Collection[str]] = ()
    of_images: ClassVar[Collection[str]] = ()
    task: Task = TASKS["vqa"]

    def advance(self, progress: float) -> None:
        """Told before each training step which fraction of all of them is done."""

    def prepare_batch(self, batch: Batch, seed: int) -> Batch:
        """Choose what the model is to find, and note it among the targets.

        Runs on the CPU, before the batch moves: finding what was selected would wait for a GPU. All random
        choices are counted (lxmert/hash_random.py) from `seed` and the batch's keys.
        """
        return batch

    def hide(self, batch: Batch) -> Batch:
        """The batch without the features that `prepare_batch` chose; runs on the device."""
        return batch

    @abstractmethod
    def forward(self, output: LxmertModelOutput, batch: Batch, model: Lxmert) -> Result:
        """Losses and predictions of one batch; `model` made the output."""

    @abstractmethod
    def make_metrics(self, label_names: Mapping[str, Sequence[str]]) -> ObjectiveMetrics:
        """Fresh metrics; `label_names` names the codes in the batch's targets."""


def check_smoothing(objective: str, smoothing: float) -> None:
    """Raise InputError unless the `label_smoothing` of an objective is a share: 0, or more and below 1."""
    if not 0 <= smoothing < 1:
        raise InputError(
            f"objective.{objective}.label_smoothing={smoothing}; expected 0, or more and below 1: 0.1"
        )


def source_groups(label_names: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """The grouping by source, for metrics, of data that has several (pre-training)."""
    return {"source": label_names["source"]} if label_names.get("source") else {}
