"""Cross-modality matching: whether the sentence belongs to the image (paper section 3.1.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from lxmert.batch import Batch
from lxmert.config import LxmertConfig
from lxmert.files import InputError
from lxmert.heads import MatchingHead, index_loss
from lxmert.model import Lxmert
from lxmert.objectives.base import Objective, ObjectiveMetrics, Result, source_groups
from lxmert.objectives.metrics import GroupedMean
from lxmert.outputs import LxmertModelOutput


class Matching(Objective):
    """Cross-entropy on the target `matched` (R,) bool, mean over rows; the data exchanges the sentences.

    Args:
        config: sizes.
    """

    outputs_needed = frozenset({"pooled"})
    head_name = "cls.seq_relationship"

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.head = MatchingHead(config)

    def prepare_batch(self, batch: Batch, seed: int) -> Batch:
        """Nothing to hide.

        Raises:
            InputError: the batch does not say which rows match.
        """
        if "matched" not in batch.targets:
            raise InputError(
                "matching needs the target `matched`, which rows kept their own sentence; this data module gives "
                "none. Use data=pretrain, or drop matching from objective=[...]"
            )
        return batch

    def forward(self, output: LxmertModelOutput, batch: Batch, model: Lxmert) -> Result:
        """Loss, and (R,) bool guesses."""
        scores = self.head(output.pooled_output).float()
        loss = index_loss(scores, batch.targets["matched"].long())
        return Result({"matching": loss}, {"matched": scores.detach().argmax(1).bool()})

    def make_metrics(self, label_names: Mapping[str, Sequence[str]]) -> ObjectiveMetrics:
        """Accuracy, by source too."""
        return MatchingMetrics(source_groups(label_names))


class MatchingMetrics(ObjectiveMetrics):
    """`accuracy`, also by group."""

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.groups = list(groups)
        self.accuracy = GroupedMean("accuracy", groups)

    def update(self, result: Result, batch: Batch) -> None:
        """Add a batch."""
        right = result.predictions["matched"] == batch.targets["matched"]
        self.accuracy.update(right, torch.ones_like(right), {name: batch.targets[name] for name in self.groups})
