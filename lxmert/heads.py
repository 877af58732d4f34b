"""Heads: from the encoder's outputs to scores, and the losses on them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lxmert.config import LxmertConfig
from lxmert.model import LAYER_NORM_EPS, activation, initialize


class AnswerHead(nn.Module):
    """(R, D) pooled output -> (R, num_qa_labels) logits: D -> 2D -> GELU -> layer norm -> answers.

    The original's head for VQA, GQA and pre-training; no dropout.
    """

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.logit_fc = classifier(config.hidden_size, 2 * config.hidden_size, config.num_qa_labels)
        initialize(self, config.initializer_range)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits."""
        return self.logit_fc(pooled)


class PairHead(nn.Module):
    """(n E, D) pooled outputs, a statement's n rows side by side -> (E, 2) logits; index 1: it is true.

    With n = 2, the default of `config.num_images`, the original's head for NLVR2: the outputs concatenated,
    n D -> n D -> GELU -> layer norm -> 2.
    """

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.width = config.num_images * config.hidden_size
        self.logit_fc = classifier(self.width, self.width, 2)
        initialize(self, config.initializer_range)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits."""
        return self.logit_fc(pooled.view(-1, self.width))


def classifier(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """(..., inputs) -> (..., outputs), by way of a hidden layer."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.GELU(), nn.LayerNorm(hidden, eps=LAYER_NORM_EPS), nn.Linear(hidden, outputs)
    )


class Transform(nn.Module):
    """(..., D) -> (..., D): dense, activation, layer norm; BERT's preparation of a prediction."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.transform_act_fn = activation(config.hidden_act)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)

    def forward(self, hidden: Tensor) -> Tensor:
        """Prepared for a projection."""
        return self.LayerNorm(self.transform_act_fn(self.dense(hidden)))


class MaskedLanguageHead(nn.Module):
    """(M, D) hidden states of tokens -> (M, vocab_size) logits, with the word embeddings as weights."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.transform = Transform(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        initialize(self, config.initializer_range)
        self.register_load_state_dict_pre_hook(_without_decoder)

    def forward(self, hidden: Tensor, word_embeddings: Tensor) -> Tensor:
        """Logits; `word_embeddings` is (vocab_size, D)."""
        return F.linear(self.transform(hidden), word_embeddings.to(hidden.dtype), self.bias)


def _without_decoder(head: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Take the reference's decoder, which is the word embeddings and the bias again, out of its state dict."""
    state.pop(f"{prefix}decoder.weight", None)
    bias = state.pop(f"{prefix}decoder.bias", None)
    if bias is not None:
        state.setdefault(f"{prefix}bias", bias)


class MatchingHead(nn.Linear):
    """(R, D) pooled output -> (R, 2) logits; index 1 means that the sentence belongs to the image."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__(config.hidden_size, 2)
        initialize(self, config.initializer_range)

    def score(self, pooled: Tensor) -> Tensor:
        """(R,) float32: by how much the sentence rather belongs to the image; its sigmoid is the probability."""
        logits = self(pooled).float()
        return logits[:, 1] - logits[:, 0]


class RegionHead(nn.Module):
    """(M, D) hidden states of regions -> object and attribute logits, reconstructed features.

    Args:
        config: sizes; `visual_obj_loss`, `visual_attr_loss` and `visual_feat_loss` choose the outputs.
    """

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        sizes = {
            "obj": config.num_object_labels if config.visual_obj_loss else 0,
            "attr": config.num_attr_labels if config.visual_attr_loss else 0,
            "feat": config.visual_feat_dim if config.visual_feat_loss else 0,
        }
        self.transform = Transform(config)
        self.decoder_dict = nn.ModuleDict(
            {name: nn.Linear(config.hidden_size, size) for name, size in sizes.items() if size}
        )
        initialize(self, config.initializer_range)

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        """Scores by name: "obj" (M, 1600), "attr" (M, 400), "feat" (M, F), as far as the config has them."""
        prepared = self.transform(hidden)
        return {name: output(prepared) for name, output in self.decoder_dict.items()}


class ChoiceHead(nn.Module):
    """(..., D) hidden states of regions -> (...,) the score of choosing each.

    VOLTA's classifier of two layers: D -> 2 D -> GELU -> layer norm -> 1.
    """

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.logit_fc = classifier(config.hidden_size, 2 * config.hidden_size, 1)
        initialize(self, config.initializer_range)

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores."""
        return self.logit_fc(hidden).squeeze(-1)


def answer_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Loss of answer scores (R, A) against class indices (R,) or (R, 1), or soft scores (R, A); a scalar.

    Raises:
        ValueError: labels of another shape or type.
    """
    if labels.shape == scores.shape and labels.is_floating_point():
        # The original multiplies the mean by the number of answers, which sets the scale of its
        # gradients against the clipping at 5.
        return F.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype)) * scores.shape[1]
    if labels.numel() == len(scores) and not labels.is_floating_point():
        return index_loss(scores, labels.flatten())
    raise ValueError(
        f"labels of shape {tuple(labels.shape)} and type {labels.dtype}; expected {tuple(scores.shape[:1])} class "
        f"indices or {tuple(scores.shape)} soft scores in a floating-point type"
    )


def index_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of scores (M, C) against class indices (M,) over the labels that are not negative.

    Negative labels (-100 in the reference, -1 in the original) are ignored; with nothing left the loss is
    0, where a mean over nothing would be NaN.
    """
    return index_losses(scores, labels).sum() / (labels >= 0).sum().clamp(min=1)


def index_losses(scores: Tensor, labels: Tensor) -> Tensor:
    """(M,): each cross-entropy of scores (M, C) against class indices (M,); 0 where the label is negative."""
    index = labels.long().where(labels >= 0, -100)
    return F.cross_entropy(scores, index, reduction="none", ignore_index=-100)


def region_losses(
    scores: dict[str, Tensor], labels: dict[str, tuple[Tensor, Tensor]], normalizer: float
) -> dict[str, Tensor]:
    """The original's losses on masked regions, each a mean over all M regions times `normalizer`.

    Args:
        scores: of `RegionHead`, (M, C) each.
        labels: by the same names, (label, weight): class indices (M,) for "obj" and "attr" (negative
            ones count as 0), the features (M, F) for "feat"; weights (M,) multiply each region's loss.
            The original weights labels by the detector's confidence on all regions, features by whether
            the region was masked.
        normalizer: 6.67 in the reference, 1/0.15 in the original.
    """
    losses = {}
    for name, score in scores.items():
        label, weight = labels[name]
        if name == "feat":
            each = F.smooth_l1_loss(score, label.to(score.dtype), reduction="none").mean(1)
        else:
            each = index_losses(score, label)
        losses[name] = (each * weight.to(each.dtype)).mean() * normalizer
    return losses
