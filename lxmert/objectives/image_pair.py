"""Statements about two images or more, true or false (NLVR2, paper section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lxmert.batch import Batch
from lxmert.config import LxmertConfig
from lxmert.heads import PairHead
from lxmert.model import Lxmert
from lxmert.objectives.base import Objective, ObjectiveMetrics, Result, check_smoothing
from lxmert.objectives.metrics import GroupedMean, group_codes
from lxmert.outputs import LxmertModelOutput


class ImagePair(Objective):
    """Two-way cross-entropy on the pooled outputs of a statement's rows, as in the released code.

    (The paper says sigmoid.) Rows n e + k are statement e with its image k of n = `config.num_images`, of two the
    left and the right one; reads the target `statement` (E,) int64, 1 where it is true.

    Args:
        config: sizes; `num_images`; `answers` are the two labels, false first.
        label_smoothing: s; in training the right label counts 1 - s / 2 and the other s / 2.

    Raises:
        InputError: `label_smoothing` is not in [0, 1).
    """

    outputs_needed = frozenset({"pooled"})
    head_name = "pair_head"

    def __init__(self, config: LxmertConfig, label_smoothing: float = 0.0) -> None:
        super().__init__()
        check_smoothing("image_pair", label_smoothing)
        self.label_smoothing = label_smoothing
        self.answers = config.answers or ["False", "True"]
        self.head = PairHead(config)

    def forward(self, output: LxmertModelOutput, batch: Batch, model: Lxmert) -> Result:
        """Loss, and scores (E, 2)."""
        scores = self.head(cast(Tensor, output.pooled_output)).float()
        targets = batch.targets.get("statement")
        smoothing = self.label_smoothing if self.training else 0.0
        losses = {}
        if targets is not None:
            losses["image_pair"] = F.cross_entropy(scores, targets, label_smoothing=smoothing)
        return Result(losses, {"answer_scores": scores.detach()})

    def probabilities(self, scores: Tensor) -> Tensor:
        """(E, 2) scores as probabilities."""
        return scores.softmax(1)

    def make_metrics(self, label_names: Mapping[str, Sequence[str]]) -> ObjectiveMetrics:
        """Accuracy, also by what `label_names` tells apart: types of one's own data, splits."""
        return ImagePairMetrics({name: values for name, values in label_names.items() if values})


class ImagePairMetrics(ObjectiveMetrics):
    """`accuracy`, also by group; consistency is among the makers' metrics, which a test adds."""

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.groups = list(groups)
        self.accuracy = GroupedMean("accuracy", groups)

    def update(self, result: Result, batch: Batch) -> None:
        """Add a batch."""
        if "statement" not in batch.targets:
            return
        truth = batch.targets["statement"]
        right = result.predictions["answer_scores"].argmax(1) == truth
        self.accuracy.update(right, torch.ones_like(right), group_codes(batch, self.groups, truth))
