"""Retrieval: which of several pairs of sentence and image belong together, as ViLBERT and VOLTA fine-tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lxmert.batch import Batch
from lxmert.config import LxmertConfig
from lxmert.files import InputError
from lxmert.heads import MatchingHead
from lxmert.model import Lxmert
from lxmert.objectives.base import Objective, ObjectiveMetrics, Result
from lxmert.objectives.metrics import GroupedMean
from lxmert.outputs import LxmertModelOutput


class Retrieval(Objective):
    """Cross-entropy over the rows that a question has to choose from, by the score of the matching head.

    Reads the target `options` (Q, K) int64, of each of Q questions the rows that may be right: the one that is
    first, then others, -1 in place of none. The head is that of pre-training, so that this starts from what
    matching has learnt. (VOLTA trains a new one with one output; the difference of two is as much.)

    Args:
        config: sizes.
    """

    outputs_needed = frozenset({"pooled"})
    head_name = "cls.seq_relationship"

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.head = MatchingHead(config)
        # The softmax takes it out: what gradient it gets is rounding, which AdamW would enlarge to full steps.
        self.head.bias.requires_grad_(False)

    def prepare_batch(self, batch: Batch, seed: int) -> Batch:
        """Nothing to hide.

        Raises:
            InputError: the batch does not say what there is to choose from.
        """
        if "options" not in batch.targets:
            raise InputError(
                "retrieval needs the target `options`, which rows there are to choose from; this data module "
                "gives none. Use data=retrieval, or drop retrieval from objective=[...]"
            )
        return batch

    def forward(self, output: LxmertModelOutput, batch: Batch, model: Lxmert) -> Result:
        """Loss, and (Q, K) scores, -inf where there is no row."""
        options = batch.targets["options"]
        scores = self.head.score(cast(Tensor, output.pooled_output))[options.clamp(min=0)]
        scores = scores.masked_fill(options < 0, -torch.inf)
        loss = F.cross_entropy(scores, options.new_zeros(len(options)))
        return Result({"retrieval": loss}, {"option_scores": scores.detach()})

    def make_metrics(self, label_names: Mapping[str, Sequence[str]]) -> ObjectiveMetrics:
        """Accuracy, also by split."""
        return RetrievalMetrics({name: label_names[name] for name in ("split",) if label_names.get(name)})


class RetrievalMetrics(ObjectiveMetrics):
    """`accuracy`: how often the right row has the best score, and no other has it too; also by group."""

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.groups = list(groups)
        self.accuracy = GroupedMean("accuracy", groups)

    def update(self, result: Result, batch: Batch) -> None:
        """Add a batch."""
        scores = result.predictions["option_scores"]
        right = (scores[:, :1] > scores[:, 1:]).all(1)
        self.accuracy.update(right, torch.ones_like(right), {name: batch.targets[name] for name in self.groups})
