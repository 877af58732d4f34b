"""Masked language modelling: find hidden words from the sentence and the image (paper section 3.1.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from lxmert.batch import Batch
from lxmert.config import LxmertConfig
from lxmert.files import InputError
from lxmert.hash_random import below, uniform
from lxmert.heads import MaskedLanguageHead, index_losses
from lxmert.model import Lxmert
from lxmert.objectives.base import Objective, ObjectiveMetrics, Result, source_groups
from lxmert.objectives.metrics import GroupedMean, Perplexity
from lxmert.outputs import LxmertModelOutput

# Of the words to find, the share that is [MASK], and the share that is some other word; the rest is kept.
MASKED, REPLACED = 0.8, 0.1


class MaskedLanguage(Objective):
    """Cross-entropy on the words to find, mean over those of a batch; 0 if there are none.

    `prepare_batch` adds the targets `masked_language/positions` (M,), flat over rows and tokens (R * L), and
    `masked_language/labels` (M,), what stood there. Random words come from the whole vocabulary, special and
    unused entries too, as in the original.

    Args:
        config: sizes and `mask_token_id`.
        rate: share of a sentence's words to find; [CLS] and [SEP] are never among them.
    """

    outputs_needed = frozenset({"language"})
    head_name = "cls.predictions"
    lists: ClassVar = {"masked_language/positions": 0, "masked_language/labels": -100}

    def __init__(self, config: LxmertConfig, rate: float = 0.15) -> None:
        super().__init__()
        self.vocab_size, self.mask_token_id = config.vocab_size, config.mask_token_id
        self.rate = rate
        self.head = MaskedLanguageHead(config)

    def prepare_batch(self, batch: Batch, seed: int) -> Batch:
        """Hide words.

        Raises:
            InputError: the batch has no `sentence_keys`.
        """
        if batch.sentence_keys is None:
            raise InputError(
                "masked_language needs Batch.sentence_keys, on which its random choices depend; this data module "
                "gives none. Use data=pretrain, or drop masked_language from objective=[...]"
            )
        places = np.arange(batch.token_ids.shape[1])
        keys = (batch.sentence_keys.numpy()[:, None], places)
        last = (batch.token_mask * torch.from_numpy(places)).amax(1, keepdim=True)
        inner = batch.token_mask & torch.from_numpy(places > 0) & (torch.from_numpy(places) < last)
        chosen = inner & torch.from_numpy(uniform(seed, "words to find", *keys) < self.rate)
        way = torch.from_numpy(uniform(seed, "ways to hide words", *keys))
        words = torch.from_numpy(below(self.vocab_size, seed, "random words", *keys))
        words = words.where(way >= MASKED, self.mask_token_id).where(way < MASKED + REPLACED, batch.token_ids)
        found = chosen[batch.row_sentence].flatten().nonzero().squeeze(1)
        targets = {
            "masked_language/positions": found,
            "masked_language/labels": batch.token_ids[batch.row_sentence].flatten()[found],
        }
        return replace(batch, token_ids=words.where(chosen, batch.token_ids), targets={**batch.targets, **targets})

    def forward(self, output: LxmertModelOutput, batch: Batch, model: Lxmert) -> Result:
        """Loss, and per word to find its cross-entropy and the best guess."""
        positions, labels = batch.targets["masked_language/positions"], batch.targets["masked_language/labels"]
        hidden = cast(Tensor, output.language_output).flatten(0, 1).index_select(0, positions)
        scores = self.head(hidden, model.embeddings.word_embeddings.weight).float()  # (M, vocab_size)
        each = index_losses(scores, labels)
        return Result(
            {"masked_language": each.sum() / (labels >= 0).sum().clamp(min=1)},
            {"losses": each.detach(), "words": scores.detach().argmax(1)},
        )

    def make_metrics(self, label_names: Mapping[str, Sequence[str]]) -> ObjectiveMetrics:
        """Accuracy and perplexity on the words to find, by source too."""
        return MaskedLanguageMetrics(source_groups(label_names))


class MaskedLanguageMetrics(ObjectiveMetrics):
    """`accuracy`, and `perplexity` over all words of the pass; also by group."""

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.groups = list(groups)
        self.accuracy = GroupedMean("accuracy", groups)
        self.perplexity = Perplexity(groups)

    def update(self, result: Result, batch: Batch) -> None:
        """Add a batch."""
        positions, labels = batch.targets["masked_language/positions"], batch.targets["masked_language/labels"]
        rows = positions // batch.token_ids.shape[1]
        codes = {name: batch.targets[name][rows] for name in self.groups}
        counted = torch.ones_like(labels, dtype=torch.bool)
        self.accuracy.update(result.predictions["words"] == labels, counted, codes)
        self.perplexity.update(result.predictions["losses"], counted, codes)
