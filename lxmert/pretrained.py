"""LXMERT with heads, as the reference library offers it: plain PyTorch, no trainer needed."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from lxmert.batch import Packing
from lxmert.checkpoint import Pretrained
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
from lxmert.model import READABLE, LxmertModel, batch_from_call, initialize
from lxmert.outputs import (
    Internals,
    LxmertForPreTrainingOutput,
    LxmertForQuestionAnsweringOutput,
    LxmertForVisualReasoningOutput,
    LxmertModelOutput,
)


class WithAnswerHead(Pretrained):
    """What models with an answer head share."""

    answer_head: AnswerHead

    @property
    def num_qa_labels(self) -> int:
        """Outputs of the answer head."""
        return self.config.num_qa_labels

    def get_qa_logit_layer(self) -> nn.Linear:
        """The answer head's last layer.

        Raises:
            ValueError: the config's `task_qa` left the head out.
        """
        if not hasattr(self, "answer_head"):
            raise ValueError("this model has no answer head: config.task_qa is False")
        return cast(nn.Linear, self.answer_head[-1])

    def resize_num_qa_labels(self, num_labels: int | None) -> nn.Linear:
        """Give the answer head `num_labels` outputs, keeping the first ones, as the reference does.

        Labels keep their place, not their text: to move a head to another answer list, match by text
        (`lxmert.checkpoint`). The config's `answers` are dropped when the number changes.

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
        self.answer_head[-1] = new
        self.config.answers = None
        self.config.num_qa_labels = num_labels
        return new


class LxmertForQuestionAnswering(WithAnswerHead):
    """LXMERT with an answer head on the pooled output."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.config = config
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
    ) -> LxmertForQuestionAnsweringOutput | tuple:
        """As `LxmertModel.forward`, plus the answers.

        `labels` are (R,) int64 class indices (cross-entropy, as the reference; -100 is ignored), or
        (R, num_qa_labels) soft scores in 0..1 (binary cross-entropy x number of labels, as the original
        trains VQA and GQA).

        Returns:
            `loss` when labels are given, and `question_answering_score` (R, num_qa_labels). The loss is
            zero, with gradients of zero, when every label is ignored.
        """
        config = self.config
        encoded = self.lxmert.encode_call(
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


class LxmertForVisualReasoning(Pretrained):
    """LXMERT for statements about two images (NLVR2), as the original's NLVR2Model; not in the reference."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.config = config
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
        """Whether each statement is true of its two images.

        Args:
            input_ids: (E, L) token ids, [CLS] first; each statement is encoded once.
            visual_feats: (E, 2, N, F), the left and the right image.
            visual_pos: (E, 2, N, 4).
            attention_mask: (E, L), non-zero on real tokens; default all.
            visual_attention_mask: (E, 2, N), non-zero on real regions; default all.
            token_type_ids: (E, L) segments; default 0.
            labels: (E,) int64, 1 for true, 0 for false; negative ones are ignored.
            output_attentions: return all attentions.
            output_hidden_states: return all hidden states.
            return_dict: False returns a tuple.

        Raises:
            ValueError: inputs that do not fit together.
        """
        if (
            visual_feats.ndim != 4
            or visual_feats.shape[:2] != (len(input_ids), 2)
            or visual_pos.shape[:3] != visual_feats.shape[:3]
        ):
            raise ValueError(
                f"input_ids {tuple(input_ids.shape)}, visual_feats {tuple(visual_feats.shape)} and visual_pos "
                f"{tuple(visual_pos.shape)}; expected (statements, tokens), (statements, 2, regions, features) "
                "and (statements, 2, regions, 4)"
            )

        def twice(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.repeat_interleave(2, 0)

        config = self.config
        batch = batch_from_call(
            config,
            twice(input_ids),
            visual_feats.flatten(0, 1),
            visual_pos.flatten(0, 1),
            twice(attention_mask),
            None if visual_attention_mask is None else visual_attention_mask.flatten(0, 1),
            twice(token_type_ids),
            None,
        )
        batch = replace(
            batch,
            token_ids=input_ids,
            token_mask=batch.token_mask[::2],
            token_types=token_type_ids,
            row_sentence=batch.row_image // 2,
            token_packing=Packing.of(batch.token_mask[::2]),
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


class LxmertForPreTraining(WithAnswerHead):
    """LXMERT with the heads of all pre-training objectives (paper section 3.1)."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.config = config
        self.lxmert = LxmertModel(config)
        self.mlm_head = MaskedLanguageHead(config)
        self.matching_head = MatchingHead(config)
        if config.task_obj_predict:
            self.region_head = RegionHead(config)
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

        Returns:
            Scores of every head, and `loss` when any labels were given. A loss whose labels are all
            ignored is 0. The switches `task_*` of the config leave objectives out.

        Raises:
            ValueError: `obj_labels` lacks a name, or inputs do not fit.
        """
        config = self.config
        encoded = self.lxmert.encode_call(
            READABLE, input_ids, visual_feats, visual_pos, attention_mask, visual_attention_mask, token_type_ids,
            inputs_embeds, output_attentions, output_hidden_states,
        )  # fmt: skip
        tokens = self.mlm_head(encoded.language_output, self.lxmert.embeddings.word.weight)
        matching = self.matching_head(encoded.pooled_output)
        answers = self.answer_head(encoded.pooled_output) if config.task_qa else None
        losses = []
        if labels is not None and config.task_mask_lm:
            losses.append(index_loss(tokens.flatten(0, 1), labels.flatten()))
        if matched_label is not None and config.task_matched:
            losses.append(index_loss(matching, matched_label))
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

    def _region_losses(
        self, vision_output: Tensor | None, labels: dict[str, tuple[Tensor, Tensor]]
    ) -> list[Tensor]:
        scores = self.region_head(cast(Tensor, vision_output).flatten(0, 1))
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
    return {field.name: getattr(output, field.name) for field in fields(Internals)}
