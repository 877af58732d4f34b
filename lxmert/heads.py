"""Heads: from the encoder's outputs to scores, and the losses on them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lxmert.config import LxmertConfig
from lxmert.model import LAYER_NORM_EPS, initialize


class AnswerHead(nn.Sequential):
    """(R, D) pooled output -> (R, num_qa_labels) logits: D -> 2D -> GELU -> layer norm -> answers.

    The original's head for VQA, GQA and pre-training; no dropout.
    """

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__(
            nn.Linear(config.hidden_size, 2 * config.hidden_size),
            nn.GELU(),
            nn.LayerNorm(2 * config.hidden_size, eps=LAYER_NORM_EPS),
            nn.Linear(2 * config.hidden_size, config.num_qa_labels),
        )
        initialize(self, config.initializer_range)


def answer_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Loss of answer scores (R, A) against class indices (R,) or soft scores (R, A); a scalar.

    Raises:
        ValueError: labels of another shape or type.
    """
    if labels.shape == scores.shape and labels.is_floating_point():
        # The original multiplies the mean by the number of answers, which sets the scale of its
        # gradients against the clipping at 5.
        return F.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype)) * scores.shape[1]
    if labels.shape == scores.shape[:1] and not labels.is_floating_point():
        total = F.cross_entropy(scores, labels.long(), reduction="sum")  # a mean over nothing would be NaN
        return total / (labels != -100).sum().clamp(min=1)
    raise ValueError(
        f"labels of shape {tuple(labels.shape)} and type {labels.dtype}; expected {tuple(scores.shape[:1])} class "
        f"indices or {tuple(scores.shape)} soft scores in a floating-point type"
    )
