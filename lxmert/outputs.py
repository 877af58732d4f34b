"""What the models return: the reference library's output classes, and what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor


@dataclass
class ModelOutput:
    """Fields readable as attributes, by name (`output["loss"]`) or by place among those that are set."""

    def keys(self) -> list[str]:
        """Names of the fields that are set: a class's own before those it shares, as in the reference."""
        names = [field.name for field in fields(self)]
        own = type(self).__annotations__
        ordered = [name for name in names if name in own] + [name for name in names if name not in own]
        return [name for name in ordered if getattr(self, name) is not None]

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are set, in order."""
        return tuple(getattr(self, key) for key in self.keys())

    def __getitem__(self, key: str | int | slice) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]

    def __len__(self) -> int:
        return len(self.keys())


@dataclass
class Internals(ModelOutput):
    """Hidden states and attentions, each None unless asked for.

    The first five fields are the reference's. Hidden states start after the first layer there; the
    embeddings have fields of their own here. Attention probabilities are those the model used, before
    dropout, so `retain_grad()` on them gives their gradients.

    `language_*` before the cross-modality layers belongs to the S distinct sentences and `vision_*` to
    the I distinct images of a batch (in the reference's call S = I = R, one per row).

    Args:
        language_hidden_states: l_layers of (S, L, D), then x_layers of (R, L, D). Zero on padding.
        vision_hidden_states: r_layers of (I, N, D), then x_layers of (R, N, D). Zero on padding.
        language_attentions: l_layers of (S, H, L, L).
        vision_attentions: r_layers of (I, H, N, N).
        cross_encoder_attentions: x_layers of (R, H, L, N): words look at regions.
        vision_to_language_attentions: x_layers of (R, H, N, L): regions look at words.
        cross_language_attentions: x_layers of (R, H, L, L): self-attention of the words there.
        cross_vision_attentions: x_layers of (R, H, N, N): self-attention of the regions there.
        language_embeddings: (S, L, D), what the first language layer reads.
        vision_embeddings: (I, N, D), what the first object-relationship layer reads.
    """

    language_hidden_states: tuple[Tensor, ...] | None = None
    vision_hidden_states: tuple[Tensor, ...] | None = None
    language_attentions: tuple[Tensor, ...] | None = None
    vision_attentions: tuple[Tensor, ...] | None = None
    cross_encoder_attentions: tuple[Tensor, ...] | None = None
    vision_to_language_attentions: tuple[Tensor, ...] | None = None
    cross_language_attentions: tuple[Tensor, ...] | None = None
    cross_vision_attentions: tuple[Tensor, ...] | None = None
    language_embeddings: Tensor | None = None
    vision_embeddings: Tensor | None = None


@dataclass
class LxmertModelOutput(Internals):
    """Output of LxmertModel; a field that nobody reads is None.

    Args:
        language_output: (R, L, D), zero on padding.
        vision_output: (R, N, D), zero on padding.
        pooled_output: (R, D), from the [CLS] token.
    """

    language_output: Tensor | None = None
    vision_output: Tensor | None = None
    pooled_output: Tensor | None = None


@dataclass
class LxmertForQuestionAnsweringOutput(Internals):
    """Output of LxmertForQuestionAnswering.

    Args:
        loss: scalar, when labels were given.
        question_answering_score: (R, num_qa_labels) logits.
    """

    loss: Tensor | None = None
    question_answering_score: Tensor | None = None


@dataclass
class LxmertForVisualReasoningOutput(Internals):
    """Output of LxmertForVisualReasoning; row n e + k of its internals is statement e with image k of n.

    Args:
        loss: scalar, when labels were given.
        logits: (E, 2); index 1: the statement is true of its images.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


@dataclass
class LxmertForPreTrainingOutput(Internals):
    """Output of LxmertForPreTraining.

    Args:
        loss: scalar, the sum of the losses whose labels were given.
        prediction_logits: (R, L, vocab_size) scores of the masked-language head.
        cross_relationship_score: (R, 2) scores of the matching head; index 1: the sentence belongs to the image.
        question_answering_score: (R, num_qa_labels) logits; None without `task_qa`.
    """

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None
    cross_relationship_score: Tensor | None = None
    question_answering_score: Tensor | None = None
