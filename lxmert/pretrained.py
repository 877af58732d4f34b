"""LXMERT as the reference library offers it, with heads and files: plain PyTorch, no trainer needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, replace
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from lxmert.base import LxmertPreTrainedModel
from lxmert.batch import Batch, Packing, is_recorded
from lxmert.config import LxmertConfig
from lxmert.heads import (
    AnswerHead,
    MaskedLanguageHead,
    MatchingHead,
    PairHead,
    RegionHead,
    answer_loss,
    index_loss,
    region_losses,
)
from lxmert.model import OUTPUTS, Holder, Lxmert, initialize
from lxmert.outputs import (
    Internals,
    LxmertForPreTrainingOutput,
    LxmertForQuestionAnsweringOutput,
    LxmertForVisualReasoningOutput,
    LxmertModelOutput,
)

log = logging.getLogger(__name__)

INTERNALS = tuple(field.name for field in fields(Internals))
ENCODERS = ("embeddings.", "encoder.", "pooler.")


class LxmertModel(Lxmert, LxmertPreTrainedModel):
    """LXMERT without heads, called as the reference library's: one sentence and one image a row."""

    _boxes_seen = False  # whether those of a call have been looked at

    def _reference_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # A subclass may have added a head of its own.
        return {f"lxmert.{name}" if name.startswith(ENCODERS) else name: each for name, each in state.items()}

    def forward(
        self,
        input_ids: Tensor | None = None,
        visual_feats: Tensor | None = None,
        visual_pos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        visual_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **unused: Any,
    ) -> LxmertModelOutput | tuple:
        """The reference's call: row r is sentence r and image r.

        A side with one row goes with all rows of the other: one picture and many questions encode it once.

        Args:
            input_ids: (R, L) token ids, [CLS] first.
            visual_feats: (R, N, F) region features.
            visual_pos: (R, N, 4) boxes, x1 y1 x2 y2 as fractions of the image's sides.
            attention_mask: (R, L), non-zero on real tokens; default all.
            visual_attention_mask: (R, N), non-zero on real regions; default all.
            token_type_ids: (R, L) segments; default 0.
            inputs_embeds: (R, L, D) instead of `input_ids`.
            output_attentions: return all attentions.
            output_hidden_states: return all hidden states.
            return_dict: False returns a tuple.
            unused: anything else is reported in one warning.

        Returns:
            The output; positions whose mask is 0 are not computed and are zero.

        Raises:
            ValueError: an input is missing, of the wrong shape, or masks a row's [CLS] or all its regions.
        """
        self.check_unused(unused)
        output = self.encode_call(
            OUTPUTS, input_ids, visual_feats, visual_pos, attention_mask, visual_attention_mask, token_type_ids,
            inputs_embeds, output_attentions, output_hidden_states,
        )  # fmt: skip
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def encode_call(
        self,
        outputs_needed: Collection[str],
        input_ids: Tensor | None,
        visual_feats: Tensor | None,
        visual_pos: Tensor | None,
        attention_mask: Tensor | None,
        visual_attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
    ) -> LxmertModelOutput:
        """`encode` for a call in the reference's style, whose arguments `forward` explains."""
        self.check_boxes(visual_pos)
        config = self.config
        packing: Callable[[Tensor], Packing] = Packing.of
        if not is_recorded() and has_hooks_within(self):
            # They are written for the reference's tensors, in which padding stands, and for a whole last layer.
            packing, outputs_needed = Packing.padded, OUTPUTS
        batch = batch_from_call(
            config, input_ids, visual_feats, visual_pos, attention_mask, visual_attention_mask, token_type_ids,
            inputs_embeds, packing,
        )  # fmt: skip
        if output_attentions is None:
            output_attentions = config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        if inputs_embeds is not None:  # a mask or segments of many rows may go with one sentence
            inputs_embeds = inputs_embeds.expand(batch.token_mask.shape[0], -1, -1)
        return self.encode(
            batch,
            outputs_needed,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            inputs_embeds=inputs_embeds,
        )

    def check_boxes(self, visual_pos: Tensor | None) -> None:
        """Warn of boxes that seem to be pixels, at the first call that is run: each look waits for the GPU."""
        if self._boxes_seen or type(visual_pos) is not Tensor or visual_pos.is_meta or not visual_pos.numel():
            return
        if is_recorded():
            return
        self._boxes_seen = True
        if visual_pos.shape[-1] == 4 and (largest := float(visual_pos.max())) > 2:
            log.warning(
                "visual_pos has values up to %.0f, which seem to be pixels; the model expects x1 y1 x2 y2 as "
                "fractions of the image's sides, from 0 to 1. Divide x by the image's width and y by its height.",
                largest,
            )


def batch_from_call(
    config: LxmertConfig,
    input_ids: Tensor | None,
    visual_feats: Tensor | None,
    visual_pos: Tensor | None,
    attention_mask: Tensor | None,
    visual_attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    packing: Callable[[Tensor], Packing] = Packing.of,
) -> Batch:
    """The Batch of a call in the reference's style, checked; arguments as in `LxmertModel.forward`."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("pass either input_ids or inputs_embeds")
    if visual_feats is None or visual_pos is None:
        raise ValueError("LXMERT needs region features and boxes: pass visual_feats and visual_pos")
    shape = cast(Tensor, input_ids).shape if inputs_embeds is None else inputs_embeds.shape[:-1]
    if len(shape) != 2:
        raise ValueError(f"token shape {tuple(shape)}; expected (rows, tokens)")
    length, regions = shape[1], visual_feats.shape[1:2]
    if length > config.max_position_embeddings:
        raise ValueError(f"{length} tokens; the model has {config.max_position_embeddings} positions: truncate")
    sentence: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "input_ids": (input_ids, (length,)),
        "attention_mask": (attention_mask, (length,)),
        "token_type_ids": (token_type_ids, (length,)),
        "inputs_embeds": (inputs_embeds, (length, config.hidden_size)),
    }
    image: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "visual_feats": (visual_feats, (*regions, config.visual_feat_dim)),
        "visual_pos": (visual_pos, (*regions, config.visual_pos_dim)),
        "visual_attention_mask": (visual_attention_mask, regions),
    }
    given = [tensor.shape[0] for tensor, _ in (*sentence.values(), *image.values()) if tensor is not None]
    rows = next((number for number in given if number != 1), given[0])
    for name, (tensor, expected) in (*sentence.items(), *image.items()):
        if tensor is not None and (tensor.shape[1:] != expected or tensor.shape[0] not in (1, rows)):
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected {(rows, *expected)}")
    if not length or not regions[0]:
        raise ValueError(f"{length} tokens and {regions[0]} regions a row; a row needs at least one of each")
    ids, token_mask, types, embeds = _alike(*(tensor for tensor, _ in sentence.values()))
    features, boxes, region_mask = _alike(*(tensor for tensor, _ in image.values()))
    device = visual_feats.device
    sentences, images = cast(Tensor, embeds if ids is None else ids), cast(Tensor, features)
    token_mask = _whole(sentences) if token_mask is None else token_mask != 0
    region_mask = _whole(images) if region_mask is None else region_mask != 0
    if not is_recorded():
        if attention_mask is not None and not token_mask[:, 0].all():
            raise ValueError("attention_mask hides the first token ([CLS]) of a row; pad sentences on the right")
        if visual_attention_mask is not None and not region_mask.any(1).all():
            raise ValueError("visual_attention_mask hides all regions of a row; each row needs at least one")
    tokens, regions_at = packing(token_mask), packing(region_mask)
    identity = torch.arange(rows, device=device)
    row_sentence = identity if sentences.shape[0] == rows else torch.zeros_like(identity)
    row_image = identity if images.shape[0] == rows else torch.zeros_like(identity)
    return Batch(
        token_ids=torch.zeros(sentences.shape[:2], dtype=torch.long, device=device) if ids is None else ids,
        token_mask=token_mask,
        token_types=types,
        region_features=images,
        region_boxes=cast(Tensor, boxes),
        region_mask=region_mask,
        row_sentence=row_sentence,
        row_image=row_image,
        token_packing=tokens,
        row_token_packing=tokens if row_sentence is identity else packing(token_mask[row_sentence]),
        region_packing=regions_at,
        row_region_packing=regions_at if row_image is identity else packing(region_mask[row_image]),
    )


def _whole(side: Tensor) -> Tensor:
    """(B, L) bool: nothing is padding."""
    return side.new_ones(side.shape[:2], dtype=torch.bool)


def _alike(*tensors: Tensor | None) -> list[Tensor | None]:
    """What tells of one side, each with as many rows as the one with most."""
    given = [tensor.shape[0] for tensor in tensors if tensor is not None]
    rows = next((number for number in given if number != 1), given[0])
    return [
        tensor if tensor is None or tensor.shape[0] == rows else tensor.expand(rows, *tensor.shape[1:])
        for tensor in tensors
    ]


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody looks at a module's calls."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def has_hooks_within(module: nn.Module) -> bool:
    """Whether somebody looks at the calls of a module or of one in it."""
    rest: list[nn.Module | None] = [module]  # `modules()` takes five times as long, at each call
    while rest:
        part = rest.pop()
        if part is not None:
            if has_hooks(part):
                return True
            rest += part._modules.values()
    return False


class WithHeads(LxmertPreTrainedModel):
    """What models with heads share."""

    lxmert: LxmertModel

    def _encoded(self, outputs_needed: Collection[str], *call: Any) -> LxmertModelOutput:
        """The encoders' outputs, of which only those needed are computed.

        All are, by an ordinary call, where somebody hooks `lxmert` or has put another class or `forward` there.
        """
        body = self.lxmert
        plain = type(body).forward is LxmertModel.forward and "forward" not in vars(body)
        if plain and not has_hooks(body):
            return body.encode_call(outputs_needed, *call)
        return body(*call, return_dict=True)


class WithAnswerHead(WithHeads):
    """What models with an answer head share."""

    answer_head: AnswerHead
    loss = nn.CrossEntropyLoss()  # for models of one's own; `answer_loss` takes soft scores too

    @property
    def num_qa_labels(self) -> int:
        """Outputs of the answer head; to be set by whoever puts another last layer there."""
        return self.config.num_qa_labels

    @num_qa_labels.setter
    def num_qa_labels(self, number: int) -> None:
        self.config.num_qa_labels = number

    def get_qa_logit_layer(self) -> nn.Linear:
        """The answer head's last layer.

        Raises:
            ValueError: the config's `task_qa` left the head out.
        """
        if not hasattr(self, "answer_head"):
            raise ValueError("this model has no answer head: config.task_qa is False")
        return cast(nn.Linear, self.answer_head.logit_fc[-1])

    def resize_num_qa_labels(self, num_labels: int | None) -> nn.Linear:
        """Give the answer head `num_labels` outputs, keeping the first ones, as the reference does.

        Labels keep their place, not their text: to move a head to another answer list, match by text
        (`lxmert.weights.match_answer_head`). The config's `answers` are dropped when the number changes.

        Returns:
            The last layer; the same one when `num_labels` is None or the present number.
        """
        old = self.get_qa_logit_layer()
        if num_labels is None or num_labels == old.out_features:
            return old
        new = nn.Linear(old.in_features, num_labels, device=old.weight.device, dtype=old.weight.dtype)
        initialize(new, self.config.initializer_range)
        kept = min(num_labels, old.out_features)
        with torch.no_grad():
            new.weight[:kept] = old.weight[:kept]
            new.bias[:kept] = old.bias[:kept]
        self.answer_head.logit_fc[-1] = new
        self.config.num_qa_labels = num_labels
        return new


class LxmertForQuestionAnswering(WithAnswerHead):
    """LXMERT with an answer head on the pooled output."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__(config)
        self.lxmert = LxmertModel(config)
        self.answer_head = AnswerHead(config)

    def forward(
        self,
        input_ids: Tensor | None = None,
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
        **unused: Any,
    ) -> LxmertForQuestionAnsweringOutput | tuple:
        """As `LxmertModel.forward`, plus the answers.

        `labels` are (R,) or (R, 1) int64 class indices (cross-entropy, as the reference; -100 is ignored), or
        (R, num_qa_labels) soft scores in 0..1 (binary cross-entropy x number of labels, as the original
        trains VQA and GQA).

        Returns:
            `loss` when labels are given, and `question_answering_score` (R, num_qa_labels). The loss is
            zero, with gradients of zero, when every label is ignored.
        """
        self.check_unused(unused)
        config = self.config
        encoded = self._encoded(
            {"pooled"}, input_ids, visual_feats, visual_pos, attention_mask, visual_attention_mask, token_type_ids,
            inputs_embeds, output_attentions, output_hidden_states,
        )  # fmt: skip
        scores = self.answer_head(encoded.pooled_output)
        output = LxmertForQuestionAnsweringOutput(
            loss=None if labels is None else answer_loss(scores, labels),
            question_answering_score=scores,
            **internals(encoded),
        )
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()


class LxmertForVisualReasoning(LxmertPreTrainedModel):
    """LXMERT for statements about n images, `config.num_images`; not in the reference.

    With two, as for NLVR2, it is the original's NLVR2Model.
    """

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__(config)
        self.lxmert = LxmertModel(config)
        self.pair_head = PairHead(config)

    def forward(
        self,
        input_ids: Tensor,
        visual_feats: Tensor,
        visual_pos: Tensor,
        attention_mask: Tensor | None = None,
        visual_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> LxmertForVisualReasoningOutput | tuple:
        """Whether each statement is true of its images.

        Args:
            input_ids: (E, L) token ids, [CLS] first; each statement is encoded once.
            visual_feats: (E, n, N, F); of two the left and the right image.
            visual_pos: (E, n, N, 4).
            attention_mask: (E, L), non-zero on real tokens; default all.
            visual_attention_mask: (E, n, N), non-zero on real regions; default all.
            token_type_ids: (E, L) segments; default 0.
            labels: (E,) int64, 1 for true, 0 for false; negative ones are ignored.
            output_attentions: return all attentions.
            output_hidden_states: return all hidden states.
            return_dict: False returns a tuple.

        Raises:
            ValueError: inputs that do not fit together.
        """
        n = self.config.num_images
        if (
            visual_feats.ndim != 4
            or visual_feats.shape[:2] != (len(input_ids), n)
            or visual_pos.shape[:3] != visual_feats.shape[:3]
        ):
            raise ValueError(
                f"input_ids {tuple(input_ids.shape)}, visual_feats {tuple(visual_feats.shape)} and visual_pos "
                f"{tuple(visual_pos.shape)}; expected (statements, tokens), (statements, {n}, regions, features) "
                f"and (statements, {n}, regions, 4)"
            )

        def for_each(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.repeat_interleave(n, 0)

        config = self.config
        self.lxmert.check_boxes(visual_pos)
        batch = batch_from_call(
            config,
            for_each(input_ids),
            visual_feats.flatten(0, 1),
            visual_pos.flatten(0, 1),
            for_each(attention_mask),
            None if visual_attention_mask is None else visual_attention_mask.flatten(0, 1),
            for_each(token_type_ids),
            None,
        )
        batch = replace(
            batch,
            token_ids=input_ids,
            token_mask=batch.token_mask[::n],
            token_types=token_type_ids,
            row_sentence=batch.row_image // n,
            token_packing=Packing.of(batch.token_mask[::n]),
        )
        encoded = self.lxmert.encode(
            batch,
            {"pooled"},
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=(
                config.output_hidden_states if output_hidden_states is None else output_hidden_states
            ),
        )
        scores = self.pair_head(cast(Tensor, encoded.pooled_output))
        output = LxmertForVisualReasoningOutput(
            loss=None if labels is None else index_loss(scores, labels), logits=scores, **internals(encoded)
        )
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()


class PreTrainingHeads(Holder):
    """The two heads that BERT has."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.predictions = MaskedLanguageHead(config)
        self.seq_relationship = MatchingHead(config)


class LxmertForPreTraining(WithAnswerHead):
    """LXMERT with the heads of all pre-training objectives (paper section 3.1)."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__(config)
        self.lxmert = LxmertModel(config)
        self.cls = PreTrainingHeads(config)
        if config.task_obj_predict:
            self.obj_predict_head = RegionHead(config)
        if config.task_qa:
            self.answer_head = AnswerHead(config)

    def forward(
        self,
        input_ids: Tensor | None = None,
        visual_feats: Tensor | None = None,
        visual_pos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        visual_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        obj_labels: dict[str, tuple[Tensor, Tensor]] | None = None,
        matched_label: Tensor | None = None,
        ans: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **unused: Any,
    ) -> LxmertForPreTrainingOutput | tuple:
        """As `LxmertModel.forward`, plus the objectives; hiding tokens and regions is the caller's job.

        Args:
            input_ids: see `LxmertModel.forward`.
            visual_feats: see there.
            visual_pos: see there.
            attention_mask: see there.
            visual_attention_mask: see there.
            token_type_ids: see there.
            inputs_embeds: see there.
            labels: (R, L) the hidden tokens' ids, negative elsewhere.
            obj_labels: "obj" and "attr": ((R, N) class indices, (R, N) weights); "feat": ((R, N, F) features,
                (R, N) weights); those that the config's `visual_*_loss` name.
            matched_label: (R,) 1 where the sentence belongs to the image, 0 where not, negative to ignore.
            ans: (R,) answer indices, negative to ignore, or (R, num_qa_labels) soft scores.
            output_attentions: see there.
            output_hidden_states: see there.
            return_dict: see there.
            unused: see there; `masked_lm_labels` is another name of `labels`.

        Returns:
            Scores of every head, and `loss` when any labels were given. A loss whose labels are all
            ignored is 0. The switches `task_*` of the config leave objectives out.

        Raises:
            ValueError: `obj_labels` lacks a name, or inputs do not fit.
        """
        if labels is None:
            labels = unused.pop("masked_lm_labels", None)  # as the TensorFlow classes, and older ones, call them
        self.check_unused(unused)
        config = self.config
        encoded = self._encoded(
            OUTPUTS, input_ids, visual_feats, visual_pos, attention_mask, visual_attention_mask, token_type_ids,
            inputs_embeds, output_attentions, output_hidden_states,
        )  # fmt: skip
        tokens = self.cls.predictions(encoded.language_output, self.lxmert.embeddings.word_embeddings.weight)
        matching = self.cls.seq_relationship(encoded.pooled_output)
        answers = self.answer_head(encoded.pooled_output) if config.task_qa else None
        losses = []
        if labels is not None and config.task_mask_lm:
            losses.append(index_loss(tokens.flatten(0, 1), labels.flatten()))
        if matched_label is not None and config.task_matched:
            losses.append(index_loss(matching, matched_label.flatten()))
        if obj_labels is not None and config.task_obj_predict:
            losses += self._region_losses(encoded.vision_output, obj_labels)
        if ans is not None and answers is not None:
            losses.append(answer_loss(answers, ans))
        output = LxmertForPreTrainingOutput(
            loss=torch.stack(losses).sum() if losses else None,
            prediction_logits=tokens,
            cross_relationship_score=matching,
            question_answering_score=answers,
            **internals(encoded),
        )
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """As of every model; the masked-language head's bias follows, with the mean for new word pieces."""
        words = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        head, kept = self.cls.predictions, min(words.num_embeddings, len(self.cls.predictions.bias))
        if len(head.bias) != words.num_embeddings:
            bias = head.bias.detach()
            new = (bias.mean() if mean_resizing else bias.new_zeros(())).repeat(words.num_embeddings)
            new[:kept] = bias[:kept]
            head.bias = nn.Parameter(new, head.bias.requires_grad)
        return words

    def _region_losses(
        self, vision_output: Tensor | None, labels: dict[str, tuple[Tensor, Tensor]]
    ) -> list[Tensor]:
        scores = self.obj_predict_head(cast(Tensor, vision_output).flatten(0, 1))
        missing = sorted(set(scores) - set(labels))
        if missing:
            raise ValueError(
                f"obj_labels lacks {', '.join(missing)}; give (labels, weights) for each, or switch them off with "
                "the config's visual_obj_loss, visual_attr_loss, visual_feat_loss"
            )
        flat = {
            name: (label.flatten(0, 1), weight.flatten())
            for name, (label, weight) in labels.items()
            if name in scores
        }
        return list(region_losses(scores, flat, self.config.visual_loss_normalizer).values())


def internals(output: LxmertModelOutput) -> dict[str, Any]:
    """Hidden states and attentions of an output, to hand on."""
    return {name: getattr(output, name) for name in INTERNALS}


Architecture: TypeAlias = (
    LxmertForPreTraining | LxmertForQuestionAnswering | LxmertForVisualReasoning | LxmertModel
)


def heads_of(weights: Mapping[str, Tensor]) -> set[str]:
    """Names of the heads in `weights`."""
    return {name.split(".")[0] for name in weights} - {"lxmert"}


def architecture_of(weights: Mapping[str, Tensor]) -> type[Architecture]:
    """The class that has the heads in `weights`."""
    heads = heads_of(weights)
    if heads & {"cls", "obj_predict_head"}:
        return LxmertForPreTraining
    if "pair_head" in heads:
        return LxmertForVisualReasoning
    return LxmertForQuestionAnswering if "answer_head" in heads else LxmertModel


def with_heads(config: LxmertConfig, weights: Mapping[str, Tensor]) -> LxmertConfig:
    """`config` with its switches as the heads in `weights` are."""
    heads = heads_of(weights)
    if heads & {"cls", "obj_predict_head"}:
        config = config.replace(
            task_mask_lm="cls.predictions.bias" in weights,
            task_matched="cls.seq_relationship.bias" in weights,
            task_obj_predict="obj_predict_head" in heads,
            task_qa="answer_head" in heads,
        )
    if "obj_predict_head" in heads:
        config = config.replace(
            visual_obj_loss="obj_predict_head.decoder_dict.obj.bias" in weights,
            visual_attr_loss="obj_predict_head.decoder_dict.attr.bias" in weights,
            visual_feat_loss="obj_predict_head.decoder_dict.feat.bias" in weights,
        )
    return config
