"""Heads of the twins, and the losses of lxmert/heads.py on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from lxmert.config import LxmertConfig
from lxmert.tensorflow.model import activation, dense, layer_norm

Tensor = Any  # of whichever backend Keras runs on


class AnswerHead(keras.layers.Layer):
    """(R, D) pooled output -> (R, num_qa_labels) logits: D -> 2D -> GELU -> layer norm -> answers; no dropout."""

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.width = config.hidden_size
        self.inner = dense(config, 2 * self.width, "logit_fc_0")
        self.norm = layer_norm("logit_fc_2")
        self.outer = dense(config, config.num_qa_labels, "logit_fc_3")

    def build(self) -> None:
        """Make the three layers."""
        self.inner.build((None, self.width))
        self.norm.build((None, 2 * self.width))
        self.outer.build((None, 2 * self.width))

    def call(self, pooled: Tensor) -> Tensor:
        """Logits."""
        return self.outer(self.norm(activation("gelu", self.inner(pooled))))


class Transform(keras.layers.Layer):
    """(..., D) -> (..., D): dense, activation, layer norm; BERT's preparation of a prediction."""

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.width, self.activation = config.hidden_size, config.hidden_act
        self.dense = dense(config, self.width, "dense")
        self.norm = layer_norm("LayerNorm")

    def build(self) -> None:
        """Make projection and norm."""
        self.dense.build((None, self.width))
        self.norm.build((None, self.width))

    def call(self, hidden: Tensor) -> Tensor:
        """Prepared for a projection."""
        return self.norm(activation(self.activation, self.dense(hidden)))


class MaskedLanguageHead(keras.layers.Layer):
    """(R, L, D) hidden states of tokens -> (R, L, vocab_size) logits, with the word embeddings as weights."""

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.vocab_size = config.vocab_size
        self.transform = Transform(config, "transform")

    def build(self) -> None:
        """Make the bias and the transform."""
        self.bias = self.add_weight((self.vocab_size,), initializer="zeros", name="bias")
        self.transform.build()

    def call(self, hidden: Tensor, word_embeddings: Tensor) -> Tensor:
        """Logits; `word_embeddings` is (vocab_size, D)."""
        prepared = self.transform(hidden)
        return ops.matmul(prepared, ops.transpose(ops.cast(word_embeddings, prepared.dtype))) + self.bias


class PreTrainingHeads(keras.layers.Layer):
    """The two heads that BERT has."""

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.width = config.hidden_size
        self.predictions = MaskedLanguageHead(config, "predictions")
        self.seq_relationship = dense(config, 2, "seq_relationship")

    def build(self) -> None:
        """Make both heads."""
        self.predictions.build()
        self.seq_relationship.build((None, self.width))

    def call(self, hidden: Tensor, pooled: Tensor, word_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of words (R, L, vocab_size) and of matching (R, 2)."""
        return self.predictions(hidden, word_embeddings), self.seq_relationship(pooled)


class RegionHead(keras.layers.Layer):
    """(R, N, D) hidden states of regions -> object and attribute logits, reconstructed features."""

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.width = config.hidden_size
        sizes = {
            "obj": config.num_object_labels if config.visual_obj_loss else 0,
            "attr": config.num_attr_labels if config.visual_attr_loss else 0,
            "feat": config.visual_feat_dim if config.visual_feat_loss else 0,
        }
        self.transform = Transform(config, "transform")
        self.names = [name for name, size in sizes.items() if size]
        self.decoders = [dense(config, sizes[name], f"decoder_dict_{name}") for name in self.names]

    def build(self) -> None:
        """Make the transform and a projection for each output."""
        self.transform.build()
        for decoder in self.decoders:
            decoder.build((None, self.width))

    def call(self, hidden: Tensor) -> dict[str, Tensor]:
        """Scores by name: "obj", "attr", "feat", as far as the config has them."""
        prepared = self.transform(hidden)
        return {name: decoder(prepared) for name, decoder in zip(self.names, self.decoders, strict=True)}


def answer_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Loss of answer scores (R, A) against class indices (R,) or soft scores (R, A); a scalar.

    Raises:
        ValueError: labels of another shape or type.
    """
    soft = keras.backend.is_float_dtype(keras.backend.standardize_dtype(labels.dtype))
    if len(labels.shape) == 2 and labels.shape[1] == scores.shape[1] and soft:
        labels, scores = ops.cast(labels, "float32"), ops.cast(scores, "float32")
        return ops.mean(ops.binary_crossentropy(labels, scores, from_logits=True)) * scores.shape[1]
    if len(labels.shape) == 1 and not soft:
        return index_loss(scores, labels)
    raise ValueError(
        f"labels of shape {tuple(labels.shape)} and type {labels.dtype}; expected {tuple(scores.shape[:1])} class "
        f"indices or {tuple(scores.shape)} soft scores in a floating-point type"
    )


def index_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of scores (..., C) against class indices (...) over the labels that are not negative.

    With nothing left the loss is 0.
    """
    counted = ops.sum(ops.cast(ops.greater_equal(labels, 0), "float32"))
    return ops.sum(index_losses(scores, labels)) / ops.maximum(counted, 1.0)


def index_losses(scores: Tensor, labels: Tensor) -> Tensor:
    """(...): each cross-entropy of scores (..., C) against class indices (...); 0 where the label is negative."""
    scores = ops.cast(scores, "float32")
    known = ops.greater_equal(labels, 0)
    index = ops.cast(ops.where(known, labels, ops.zeros_like(labels)), "int32")
    right = ops.squeeze(ops.take_along_axis(scores, index[..., None], axis=-1), -1)
    losses = ops.logsumexp(scores, axis=-1) - right
    return ops.where(known, losses, ops.zeros_like(losses))


def region_losses(
    scores: Mapping[str, Tensor], labels: Mapping[str, tuple[Tensor, Tensor]], normalizer: float
) -> dict[str, Tensor]:
    """The original's losses on masked regions, each a mean over all regions times `normalizer`.

    Args:
        scores: of `RegionHead`, (R, N, C) each.
        labels: by the same names (label, weight): class indices (R, N) for "obj" and "attr" (negative ones count
            as 0), the features (R, N, F) for "feat"; weights (R, N) multiply each region's loss.
        normalizer: `visual_loss_normalizer` of the config.

    Raises:
        ValueError: `labels` lacks a name.
    """
    if missing := sorted(set(scores) - set(labels)):
        raise ValueError(
            f"obj_labels lacks {', '.join(missing)}; give (labels, weights) for each, or switch them off with the "
            "config's visual_obj_loss, visual_attr_loss, visual_feat_loss"
        )
    losses = {}
    for name, score in scores.items():
        label, weight = labels[name]
        if name == "feat":
            error = ops.abs(ops.cast(score, "float32") - ops.cast(label, "float32"))
            each = ops.mean(ops.where(error < 1, ops.square(error) / 2, error - 0.5), axis=-1)
        else:
            each = index_losses(score, label)
        losses[name] = ops.mean(each * ops.cast(weight, "float32")) * normalizer
    return losses
