"""LXMERT with heads, as the reference library offers it: plain PyTorch, no trainer needed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

import torch
from torch import Tensor, nn

from lxmert.checkpoint import Pretrained
from lxmert.config import LxmertConfig
from lxmert.heads import AnswerHead, answer_loss
from lxmert.model import LxmertModel, batch_from_call, initialize
from lxmert.outputs import Internals, LxmertForQuestionAnsweringOutput, LxmertModelOutput


class LxmertForQuestionAnswering(Pretrained):
    """LXMERT with an answer head on the pooled output."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.config = config
        self.lxmert = LxmertModel(config)
        self.answer_head = AnswerHead(config)

    @property
    def num_qa_labels(self) -> int:
        """Outputs of the answer head."""
        return self.config.num_qa_labels

    def get_qa_logit_layer(self) -> nn.Linear:
        """The answer head's last layer."""
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
        batch = batch_from_call(
            config, input_ids, visual_feats, visual_pos, attention_mask, visual_attention_mask, token_type_ids,
            inputs_embeds,
        )  # fmt: skip
        encoded = self.lxmert.encode(
            batch,
            {"pooled"},
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=config.output_hidden_states
            if output_hidden_states is None
            else output_hidden_states,
            inputs_embeds=inputs_embeds,
        )
        scores = self.answer_head(encoded.pooled_output)
        output = LxmertForQuestionAnsweringOutput(
            loss=None if labels is None else answer_loss(scores, labels),
            question_answering_score=scores,
            **internals(encoded),
        )
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()


def internals(output: LxmertModelOutput) -> dict[str, Any]:
    """Hidden states and attentions of an output, to hand on."""
    return {field.name: getattr(output, field.name) for field in fields(Internals)}
