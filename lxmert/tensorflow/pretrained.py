"""LXMERT in Keras as the reference's TensorFlow classes offer it: calls, files, `fit`.

Weights are read by the PyTorch class of the same name and copied, so that whatever it opens opens here, with the
same report and the same errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import keras
import torch
from keras import ops

from lxmert import pretrained
from lxmert.base import LxmertPreTrainedModel
from lxmert.config import LxmertConfig
from lxmert.tensorflow.heads import (
    AnswerHead,
    PreTrainingHeads,
    RegionHead,
    answer_loss,
    index_loss,
    region_losses,
)
from lxmert.tensorflow.model import Lxmert
from lxmert.tensorflow.outputs import (
    ModelOutput,
    TFLxmertForPreTrainingOutput,
    TFLxmertForQuestionAnsweringOutput,
    TFLxmertModelOutput,
)
from lxmert.weights import is_transposed, torch_name, write_folder, write_tf_h5

Tensor = Any  # of whichever backend Keras runs on


class Pretrained(keras.Model):
    """A model that opens and saves the reference library's folders.

    Args:
        config: sizes.
        name: of the Keras model; the reference's by default.
    """

    twin: ClassVar[type[LxmertPreTrainedModel]]  # its PyTorch class
    reference_name: ClassVar[str]  # what the reference calls it in a `tf_model.h5`
    call_class: ClassVar[type[ModelOutput]]

    def __init__(self, config: LxmertConfig, name: str | None = None) -> None:
        # The layers cast what they read; labels and losses stay as they are.
        super().__init__(name=name or self.reference_name, autocast=False)
        self.config = config
        self.lxmert = Lxmert(config, "lxmert")
        self.parts = [self.lxmert, *self.make_heads(config)]
        self.build()

    def make_heads(self, config: LxmertConfig) -> Iterable[keras.layers.Layer]:
        """Make the heads, and return them."""
        return []

    def build(self) -> None:
        """Make all variables: a model is whole when it is made."""
        for part in self.parts:
            part.build()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path | None, **options: Any) -> Any:
        """Open whatever the PyTorch class opens; what is missing begins as it begins there, from torch's seed.

        Args:
            pretrained_model_name_or_path: a folder or hub name with `config.json` and `model.safetensors`,
                `pytorch_model.bin` or `tf_model.h5`, a run's folder or checkpoint, or a weights file.
            options: those of `lxmert.LxmertPreTrainedModel.from_pretrained`. `from_pt` is not needed.

        Raises:
            FileNotFoundError: nothing of that name, here or on the hub.
            InputError: a file cannot be read, or config and weights do not fit.
        """
        options.pop("from_pt", None)
        found = cls.twin.from_pretrained(pretrained_model_name_or_path, **options)
        twin, *info = found if isinstance(found, tuple) else (found,)
        model = cls(twin.config)
        model.load_reference_state(twin.reference_state())
        return (model, *info) if info else model

    def named_weights(self) -> dict[str, keras.Variable]:
        """Its variables under the reference's names; a kernel is its PyTorch parameter transposed."""
        return {torch_name(weight.path.removeprefix(f"{self.path}/")): weight for weight in self.weights}

    def load_reference_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over the weights of a model of the same config, as its `reference_state` gives them."""
        for name, weight in self.named_weights().items():
            tensor = state[name].detach().float().cpu()
            weight.assign((tensor.t() if is_transposed(weight.path) else tensor).numpy())

    def reference_state(self) -> dict[str, torch.Tensor]:
        """A copy of its weights under the names they have in the reference's PyTorch models with heads."""
        state = {}
        for name, weight in self.named_weights().items():
            tensor = torch.from_numpy(ops.convert_to_numpy(weight.value).copy())
            state[name] = tensor.t().contiguous() if is_transposed(weight.path) else tensor
        return state

    def save_pretrained(self, folder: str | Path, *, tf_h5: bool = False) -> None:
        """Write `config.json` and `model.safetensors`, readable by the PyTorch classes and the reference.

        Args:
            folder: made where it does not exist.
            tf_h5: also write `tf_model.h5`, which the reference's TensorFlow classes read.
        """
        state = self.reference_state()
        write_folder(Path(folder), self.config.to_dict(), state, self.twin.__name__)
        if tf_h5:
            write_tf_h5(Path(folder) / "tf_model.h5", state, self.reference_name)

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to make the model again."""
        return {"config": self.config.to_dict(), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The model that `get_config` tells of."""
        return cls(LxmertConfig.from_dict(config["config"]), name=config["name"])

    def get_build_config(self) -> None:
        """Nothing: a model is whole when it is made."""

    def encode(self, given: Mapping[str, Any], training: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """The encoders' outputs for a call's arguments, and the fields that the call asks for beside them.

        Raises:
            ValueError: an input is missing or of the wrong shape.
        """
        check_inputs(self.config, given)
        token_mask, region_mask = given["attention_mask"], given["visual_attention_mask"]
        encoded = self.lxmert(
            given["input_ids"],
            given["inputs_embeds"],
            given["token_type_ids"],
            given["visual_feats"],
            given["visual_pos"],
            None if token_mask is None else ops.cast(token_mask, "bool"),
            None if region_mask is None else ops.cast(region_mask, "bool"),
            training=training,
        )
        fields = {}
        if self._asked(given, "output_hidden_states"):
            fields["language_hidden_states"] = encoded["language"]
            fields["vision_hidden_states"] = encoded["vision"]
        if self._asked(given, "output_attentions"):
            fields["language_attentions"] = encoded["language_maps"]
            fields["vision_attentions"] = encoded["vision_maps"]
            fields["cross_encoder_attentions"] = encoded["cross_maps"]
        return encoded, fields

    def returned(self, output: ModelOutput, given: Mapping[str, Any]) -> Any:
        """The output as the call wants it."""
        return output if self._asked(given, "return_dict") else output.to_tuple()

    def _asked(self, given: Mapping[str, Any], switch: str) -> bool:
        return getattr(self.config, switch) if given[switch] is None else given[switch]


def arguments(first: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name.

    Args:
        first: `input_ids`, or a dictionary of arguments, or a list of them in their order.
        given: the other arguments in their order.

    Raises:
        ValueError: an argument of no such name, too many, or one given twice.
    """
    if isinstance(first, Mapping):
        named = dict(first)
    elif isinstance(first, list | tuple):
        if len(first) > len(given) + 1:
            raise ValueError(f"a list of {len(first)} inputs; expected {', '.join(['input_ids', *given])}")
        named = dict(zip(["input_ids", *given], first, strict=False))
    else:
        named = {"input_ids": first}
    if unknown := sorted(set(named) - {"input_ids", *given}):
        raise ValueError(f"unknown inputs {', '.join(unknown)}; expected {', '.join(['input_ids', *given])}")
    if twice := [name for name in named if given.get(name) is not None]:
        raise ValueError(f"{', '.join(twice)} given twice: in the first argument and by name")
    return {"input_ids": None, **given, **named}


def check_inputs(config: LxmertConfig, given: Mapping[str, Any]) -> None:
    """Raise ValueError where inputs are missing or their shapes, as far as they are known, do not fit."""
    ids, words = given["input_ids"], given["inputs_embeds"]
    features, boxes = given["visual_feats"], given["visual_pos"]
    if (ids is None) == (words is None):
        raise ValueError("pass either input_ids or inputs_embeds")
    if features is None or boxes is None:
        raise ValueError("LXMERT needs region features and boxes: pass visual_feats and visual_pos")
    shape = tuple(ids.shape) if words is None else tuple(words.shape)[:-1]
    if len(shape) != 2:
        raise ValueError(f"token shape {shape}; expected (rows, tokens)")
    rows, length = shape
    if length is not None and length > config.max_position_embeddings:
        raise ValueError(f"{length} tokens; the model has {config.max_position_embeddings} positions: truncate")
    regions = tuple(features.shape)[1] if len(features.shape) == 3 else None
    for name, expected in (
        ("visual_feats", (rows, regions, config.visual_feat_dim)),
        ("visual_pos", (rows, regions, config.visual_pos_dim)),
        ("attention_mask", (rows, length)),
        ("visual_attention_mask", (rows, regions)),
        ("token_type_ids", (rows, length)),
        ("inputs_embeds", (rows, length, config.hidden_size)),
    ):
        if given[name] is None:
            continue
        found = tuple(given[name].shape)
        known = zip(found, expected, strict=False)
        if len(found) != len(expected) or any(None not in (a, b) and a != b for a, b in known):
            raise ValueError(f"{name} has shape {found}; expected {expected}")
    if length == 0 or regions == 0:
        raise ValueError(f"{length} tokens and {regions} regions a row; a row needs at least one of each")


@keras.saving.register_keras_serializable("lxmert")
class TFLxmertModel(Pretrained):
    """LXMERT without heads: one sentence and one image a row."""

    twin = pretrained.LxmertModel
    reference_name = "tf_lxmert_model"

    def call(
        self,
        input_ids: Tensor | Mapping[str, Any] | list | tuple | None = None,
        visual_feats: Tensor | None = None,
        visual_pos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        visual_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> TFLxmertModelOutput | tuple:
        """The reference's call: row r is sentence r and image r. Arrays of NumPy are welcome.

        Args:
            input_ids: (R, L) token ids, [CLS] first; or a dictionary of the arguments, or a list in their order.
            visual_feats: (R, N, F) region features.
            visual_pos: (R, N, 4) boxes, x1 y1 x2 y2 as fractions of the image's sides.
            attention_mask: (R, L), non-zero on real tokens; default all.
            visual_attention_mask: (R, N), non-zero on real regions; default all.
            token_type_ids: (R, L) segments; default 0.
            inputs_embeds: (R, L, D) instead of `input_ids`.
            output_attentions: return attentions; default as the config says.
            output_hidden_states: return hidden states; default as the config says.
            return_dict: False returns a tuple; default as the config says.
            training: with dropout.

        Returns:
            The output; positions whose mask is 0 are zero.

        Raises:
            ValueError: an input is missing or of the wrong shape.
        """
        given = arguments(
            input_ids,
            {
                "visual_feats": visual_feats,
                "visual_pos": visual_pos,
                "attention_mask": attention_mask,
                "visual_attention_mask": visual_attention_mask,
                "token_type_ids": token_type_ids,
                "inputs_embeds": inputs_embeds,
                "output_attentions": output_attentions,
                "output_hidden_states": output_hidden_states,
                "return_dict": return_dict,
            },
        )
        encoded, fields = self.encode(given, training)
        output = TFLxmertModelOutput(
            language_output=encoded["language"][-1],
            vision_output=encoded["vision"][-1],
            pooled_output=encoded["pooled"],
            **fields,
        )
        return self.returned(output, given)


class WithLoss(Pretrained):
    """What models with losses share: `fit` needs no loss in `compile`."""

    scores: ClassVar[str]  # of the output: what metrics and a compiled loss compare with the labels

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The model's own loss of labels `y`, or of those among the inputs; one given to `compile` goes before.

        Raises:
            ValueError: there are no labels.
        """
        if self.loss is not None:
            return super().compute_loss(x, y, self._scored(y_pred), sample_weight, training)
        if sample_weight is not None:
            raise ValueError("the model's own loss knows no sample_weight; give a loss to compile()")
        if self._scored(y_pred) is not None and y is not None:
            return self.loss_of(y_pred, y)
        if y_pred.loss is None:
            raise ValueError("no labels to learn from: put them among the inputs, under their names in call()")
        return y_pred.loss

    def loss_of(self, output: Any, labels: Any) -> Tensor:
        """The loss of labels that stand beside the inputs."""
        raise ValueError(f"{type(self).__name__} takes its labels among the inputs, under their names in call()")

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Metrics given to `compile`, of the scores."""
        return super().compute_metrics(x, y, self._scored(y_pred), sample_weight)

    def _scored(self, output: Any) -> Tensor:
        if not isinstance(output, ModelOutput):
            raise ValueError("fit reads outputs by name: return_dict is False in the config or the inputs")
        return output.get(self.scores)


@keras.saving.register_keras_serializable("lxmert")
class TFLxmertForQuestionAnswering(WithLoss):
    """LXMERT with an answer head on the pooled output; not among the reference's TensorFlow classes."""

    twin = pretrained.LxmertForQuestionAnswering
    reference_name = "tf_lxmert_for_question_answering"
    scores = "question_answering_score"

    def make_heads(self, config: LxmertConfig) -> Iterable[keras.layers.Layer]:
        """The answer head."""
        self.answer_head = AnswerHead(config, "answer_head")
        return [self.answer_head]

    def call(
        self,
        input_ids: Tensor | Mapping[str, Any] | list | tuple | None = None,
        visual_feats: Tensor | None = None,
        visual_pos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        visual_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> TFLxmertForQuestionAnsweringOutput | tuple:
        """As `TFLxmertModel.call`, plus the answers.

        `labels` are (R,) class indices (cross-entropy; negative ones are ignored), or (R, num_qa_labels) soft
        scores in 0..1 (binary cross-entropy x number of labels, as the original trains VQA and GQA). `fit` takes
        them beside the inputs too.

        Returns:
            `loss` when labels are given, and `question_answering_score` (R, num_qa_labels).
        """
        given = arguments(
            input_ids,
            {
                "visual_feats": visual_feats,
                "visual_pos": visual_pos,
                "attention_mask": attention_mask,
                "visual_attention_mask": visual_attention_mask,
                "token_type_ids": token_type_ids,
                "inputs_embeds": inputs_embeds,
                "labels": labels,
                "output_attentions": output_attentions,
                "output_hidden_states": output_hidden_states,
                "return_dict": return_dict,
            },
        )
        encoded, fields = self.encode(given, training)
        scores = self.answer_head(encoded["pooled"])
        output = TFLxmertForQuestionAnsweringOutput(
            loss=None if given["labels"] is None else answer_loss(scores, given["labels"]),
            question_answering_score=scores,
            **fields,
        )
        return self.returned(output, given)

    def loss_of(self, output: Any, labels: Any) -> Tensor:
        """The loss of labels that stand beside the inputs."""
        return answer_loss(output.question_answering_score, labels)


@keras.saving.register_keras_serializable("lxmert")
class TFLxmertForPreTraining(WithLoss):
    """LXMERT with the heads of all pre-training objectives (paper section 3.1)."""

    twin = pretrained.LxmertForPreTraining
    reference_name = "tf_lxmert_for_pre_training"
    scores = "prediction_logits"

    def make_heads(self, config: LxmertConfig) -> Iterable[keras.layers.Layer]:
        """The heads that the config's `task_*` ask for."""
        self.cls = PreTrainingHeads(config, "cls")
        self.obj_predict_head = RegionHead(config, "obj_predict_head") if config.task_obj_predict else None
        self.answer_head = AnswerHead(config, "answer_head") if config.task_qa else None
        return [head for head in (self.cls, self.obj_predict_head, self.answer_head) if head is not None]

    def call(
        self,
        input_ids: Tensor | Mapping[str, Any] | list | tuple | None = None,
        visual_feats: Tensor | None = None,
        visual_pos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        visual_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        masked_lm_labels: Tensor | None = None,
        obj_labels: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        matched_label: Tensor | None = None,
        ans: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> TFLxmertForPreTrainingOutput | tuple:
        """As `TFLxmertModel.call`, plus the objectives; hiding tokens and regions is the caller's job.

        Args:
            input_ids: see `TFLxmertModel.call`.
            visual_feats: see there.
            visual_pos: see there.
            attention_mask: see there.
            visual_attention_mask: see there.
            token_type_ids: see there.
            inputs_embeds: see there.
            masked_lm_labels: (R, L) the hidden tokens' ids, negative elsewhere.
            obj_labels: "obj" and "attr": ((R, N) class indices, (R, N) weights); "feat": ((R, N, F) features,
                (R, N) weights); those that the config's `visual_*_loss` name.
            matched_label: (R,) 1 where the sentence belongs to the image, 0 where not, negative to ignore.
            ans: (R,) answer indices, negative to ignore, or (R, num_qa_labels) soft scores.
            output_attentions: see there.
            output_hidden_states: see there.
            return_dict: see there.
            training: see there.

        Returns:
            Scores of the heads, and `loss` when any labels were given. A loss whose labels are all ignored is 0.

        Raises:
            ValueError: `obj_labels` lacks a name, or inputs do not fit.
        """
        given = arguments(
            input_ids,
            {
                "visual_feats": visual_feats,
                "visual_pos": visual_pos,
                "attention_mask": attention_mask,
                "visual_attention_mask": visual_attention_mask,
                "token_type_ids": token_type_ids,
                "inputs_embeds": inputs_embeds,
                "masked_lm_labels": masked_lm_labels,
                "obj_labels": obj_labels,
                "matched_label": matched_label,
                "ans": ans,
                "output_attentions": output_attentions,
                "output_hidden_states": output_hidden_states,
                "return_dict": return_dict,
            },
        )
        config = self.config
        encoded, fields = self.encode(given, training)
        tokens, matching = self.cls(
            encoded["language"][-1], encoded["pooled"], self.lxmert.embeddings.word_embeddings.table.value
        )
        answers = None if self.answer_head is None else self.answer_head(encoded["pooled"])
        losses = []
        if given["masked_lm_labels"] is not None and config.task_mask_lm:
            losses.append(index_loss(tokens, given["masked_lm_labels"]))
        if given["matched_label"] is not None and config.task_matched:
            losses.append(index_loss(matching, given["matched_label"]))
        if given["obj_labels"] is not None and self.obj_predict_head is not None:
            scores = self.obj_predict_head(encoded["vision"][-1])
            losses += region_losses(scores, given["obj_labels"], config.visual_loss_normalizer).values()
        if given["ans"] is not None and answers is not None:
            losses.append(answer_loss(answers, given["ans"]))
        output = TFLxmertForPreTrainingOutput(
            loss=sum(losses) if losses else None,
            prediction_logits=tokens,
            cross_relationship_score=matching,
            question_answering_score=answers,
            **fields,
        )
        return self.returned(output, given)
