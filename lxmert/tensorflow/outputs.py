"""What the twins return: the reference's output classes, which TensorFlow, JAX and PyTorch can take apart."""

from __future__ import annotations

from typing import Any, TypeVar

import keras

Tensor = Any  # of whichever backend Keras runs on
Output = TypeVar("Output", bound="type[ModelOutput]")


class ModelOutput(dict):
    """A dictionary of the fields that are set, readable as attributes (None where not set) and by place too.

    A dictionary, as `tf.function` and SavedModel return nothing else that has names; TensorFlow makes it anew from
    pairs.
    """

    def __init__(self, pairs: Any = (), /, **fields: Any) -> None:
        given = dict(pairs, **fields)
        names = type(self).__annotations__
        if unknown := sorted(set(given) - set(names)):
            raise TypeError(f"{type(self).__name__} has no field {', '.join(unknown)}; it has {', '.join(names)}")
        super().__init__({name: given[name] for name in names if given.get(name) is not None})

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are set, in order."""
        return tuple(self.values())

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __getattr__(self, name: str) -> Any:
        if name in type(self).__annotations__:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}")


def as_tree(cls: Output) -> Output:
    """Tell what takes nested structures apart how to do it with `cls`; which it is depends on Keras' backend.

    TensorFlow's own takes any dictionary apart.
    """

    def flatten(output: Any) -> tuple[list[Any], tuple[str, ...]]:
        return list(output.values()), tuple(output)

    def unflatten(names: Any, values: Any) -> Any:
        return cls(**dict(zip(names, values, strict=True)))

    if keras.backend.backend() == "torch":
        from torch.utils import _pytree

        _pytree.register_pytree_node(cls, flatten, lambda values, names: unflatten(names, values))
    else:
        import optree

        optree.register_pytree_node(cls, flatten, unflatten, namespace="keras")
    if keras.backend.backend() == "jax":
        import jax

        jax.tree_util.register_pytree_node(cls, flatten, unflatten)
    return cls


@as_tree
class TFLxmertModelOutput(ModelOutput):
    """Output of TFLxmertModel.

    Shapes: R rows, L tokens, N regions, D hidden size, H heads. Outputs and hidden states are zero on padding.

    Args:
        language_output: (R, L, D).
        vision_output: (R, N, D).
        pooled_output: (R, D), from the [CLS] token.
        language_hidden_states: of the language and then the cross-modality layers, (R, L, D) each, if asked for.
        vision_hidden_states: of the object-relationship and then the cross-modality layers, (R, N, D) each.
        language_attentions: of the language layers, (R, H, L, L) each, before dropout.
        vision_attentions: of the object-relationship layers, (R, H, N, N) each.
        cross_encoder_attentions: of the cross-modality layers, (R, H, L, N) each: words look at regions.
    """

    language_output: Tensor
    vision_output: Tensor
    pooled_output: Tensor
    language_hidden_states: tuple[Tensor, ...] | None
    vision_hidden_states: tuple[Tensor, ...] | None
    language_attentions: tuple[Tensor, ...] | None
    vision_attentions: tuple[Tensor, ...] | None
    cross_encoder_attentions: tuple[Tensor, ...] | None


@as_tree
class TFLxmertForQuestionAnsweringOutput(ModelOutput):
    """Output of TFLxmertForQuestionAnswering; what is not explained is as in TFLxmertModelOutput.

    Args:
        loss: scalar, when labels were given.
        question_answering_score: (R, num_qa_labels) logits.
        language_hidden_states: see there.
        vision_hidden_states: see there.
        language_attentions: see there.
        vision_attentions: see there.
        cross_encoder_attentions: see there.
    """

    loss: Tensor
    question_answering_score: Tensor
    language_hidden_states: tuple[Tensor, ...] | None
    vision_hidden_states: tuple[Tensor, ...] | None
    language_attentions: tuple[Tensor, ...] | None
    vision_attentions: tuple[Tensor, ...] | None
    cross_encoder_attentions: tuple[Tensor, ...] | None


@as_tree
class TFLxmertForPreTrainingOutput(ModelOutput):
    """Output of TFLxmertForPreTraining; what is not explained is as in TFLxmertModelOutput.

    Args:
        loss: scalar, the sum of the losses whose labels were given.
        prediction_logits: (R, L, vocab_size) scores of the masked-language head.
        cross_relationship_score: (R, 2) scores of the matching head; index 1: the sentence belongs to the image.
        question_answering_score: (R, num_qa_labels) logits; None without `task_qa`.
        language_hidden_states: see there.
        vision_hidden_states: see there.
        language_attentions: see there.
        vision_attentions: see there.
        cross_encoder_attentions: see there.
    """

    loss: Tensor
    prediction_logits: Tensor
    cross_relationship_score: Tensor
    question_answering_score: Tensor
    language_hidden_states: tuple[Tensor, ...] | None
    vision_hidden_states: tuple[Tensor, ...] | None
    language_attentions: tuple[Tensor, ...] | None
    vision_attentions: tuple[Tensor, ...] | None
    cross_encoder_attentions: tuple[Tensor, ...] | None
