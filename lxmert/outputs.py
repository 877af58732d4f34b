"""What the models return: the reference library's output classes, and what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor
from torch.utils._pytree import register_pytree_node


class ModelOutput(dict[str, Any]):
    """Fields readable as attributes, as a dictionary's values, or by place among those that are set.

    The dictionary holds what the reference's output of that name holds, in its order, as far as it is set. What
    goes beyond the reference is an attribute alone: `output[-1]` and `output.to_tuple()` are the reference's.
    A field may be set, also to None; a dictionary, or pairs, as the only argument set several, as what gathers
    outputs over devices does.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]  # subclasses are dataclasses

    def __init_subclass__(cls) -> None:
        # What exports a model, or gathers its outputs, has to know what they are made of.
        register_pytree_node(
            cls, _parts, partial(_made_of, cls), serialized_type_name=f"{cls.__module__}.{cls.__name__}"
        )

    def __post_init__(self) -> None:
        first = next(name for name in type(self).__annotations__ if name in self.__dataclass_fields__)
        value = getattr(self, first)
        if value is not None and not isinstance(value, Tensor | tuple):
            setattr(self, first, None)
            for name, each in dict(value).items():
                self[name] = each
        self._arrange()

    def to_tuple(self) -> tuple[Any, ...]:
        """The values in order."""
        return tuple(self.values())

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self.__dataclass_fields__:
            raise KeyError(f"{type(self).__name__} has no field {key!r}")
        setattr(self, key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        changed = name in vars(self)  # else it is being made
        super().__setattr__(name, value)
        if changed:
            self._arrange()

    def _arrange(self) -> None:
        """Make the dictionary hold what the attributes say."""
        own = type(self).__annotations__
        ordered = [*own, *(name for name in Internals.__annotations__ if name not in own)]
        values = {name: getattr(self, name) for name in ordered if name not in BEYOND}
        super().clear()
        super().update({name: value for name, value in values.items() if value is not None})

    def __reduce__(self) -> Any:
        values, names = _parts(self)
        return _made_of, (type(self), values, names)

    def _fixed(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"the fields of a {type(self).__name__} are fixed; set one, to None to leave it out")

    __delitem__ = pop = popitem = clear = setdefault = update = _fixed  # type: ignore[assignment]


def _parts(output: ModelOutput) -> tuple[list[Any], list[str]]:
    """The values that are set, and their names."""
    found = {name: value for name, value in vars(output).items() if value is not None}
    return list(found.values()), list(found)


def _made_of(cls: type[ModelOutput], values: Any, names: Any) -> ModelOutput:
    """The output of `_parts`."""
    return cls(**dict(zip(names, values, strict=True)))


# Of `Internals`, what the reference does not have.
BEYOND = frozenset({
    "vision_to_language_attentions", "cross_language_attentions", "cross_vision_attentions",
    "language_embeddings", "vision_embeddings",
})  # fmt: skip


@dataclass(kw_only=True)  # a class's own fields come first
class Internals(ModelOutput):
    """Hidden states and attentions, each None unless asked for.

    The first five fields are the reference's; the others are attributes alone. Hidden states start after the
    first layer, as there; the embeddings have fields of their own. Attention probabilities are those the model
    used, before dropout. States and probabilities are on the way to the outputs: `retain_grad()` on one gives its
    gradient.

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
