"""What the heads of pre-training say of a sentence and a picture together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lxmert.ask import Asker, Seen, batch_of
from lxmert.batch import Batch
from lxmert.files import InputError
from lxmert.outputs import LxmertModelOutput
from lxmert.pretrained import LxmertForPreTraining

ROWS = 64  # computed at once


@dataclass
class Match:
    """Whether a sentence fits a picture.

    Args:
        sentence: as it was given.
        logits: (2,) float32 of the matching head: does not fit, fits.
        warnings: what stands against trusting it.
    """

    sentence: str
    logits: np.ndarray
    warnings: list[str]

    @property
    def probability(self) -> float:
        """That it fits."""
        return float(1 / (1 + np.exp(-self.margin)))

    @property
    def margin(self) -> float:
        """How much more it fits than not, the difference of the logits."""
        return float(self.logits[1]) - float(self.logits[0])


@dataclass
class Likelihood:
    """How likely the masked-language head finds a sentence, each word piece given all others.

    Args:
        sentence: as it was given.
        words: its n word pieces, without [CLS] and [SEP].
        logs: (n,) float32, the natural logarithm of each one's probability where it alone is masked.
    """

    sentence: str
    words: list[str]
    logs: np.ndarray

    @property
    def total(self) -> float:
        """The pseudo-log-likelihood, the sum over the word pieces (Salazar et al., ACL 2020)."""
        return float(self.logs.sum(dtype=np.float64))


@dataclass
class Ablation:
    """What each modality tells of the other: mean cross-entropies in nats, lower where more is told.

    Args:
        words: of masked word pieces, one at a time, where the picture's features are there ...
        words_alone: ... and where all of them are zero, as masked regions are in pre-training; boxes stay.
        regions: of the detector's object labels of masked regions, one at a time, where the sentence is there ...
        regions_alone: ... and where each of its word pieces is [MASK].
    """

    words: float
    words_alone: float
    regions: float
    regions_alone: float


class Matcher:
    """A pre-trained model that tells whether sentences fit pictures.

    matcher = Matcher.open("outputs/latest", store="data/stores/toy/mscoco_imgfeat/val2014_obj36.h5")
    matcher.match("TOY_val2014_000000004001", "there is a red star in the picture").probability

    Args:
        asker: a model of the class LxmertForPreTraining, and what its pictures come from.

    Raises:
        InputError: a model without a matching head.
    """

    def __init__(self, asker: Asker) -> None:
        if not (isinstance(asker.model, LxmertForPreTraining) and asker.config.task_matched):
            raise InputError(
                f"this model ({type(asker.model).__name__}) has no matching head. Use a checkpoint of "
                "pre-training, such as unc-nlp/lxmert-base-uncased"
            )
        self.asker = asker
        self.model: Any = asker.model

    @classmethod
    def open(cls, checkpoint: str | Path, **sources: Any) -> Matcher:
        """Open a checkpoint; `sources` are those of `Asker.open`.

        Raises:
            FileNotFoundError: nothing of that name.
            InputError: what cannot be read, does not fit together, or has no matching head.
        """
        return cls(Asker.open(checkpoint, **sources))

    def match(self, picture: Any, sentences: str | Sequence[str], *, max_length: int | None = None) -> Any:
        """Whether sentences fit a picture, which is encoded once for all of them.

        Args:
            picture: what `Eyes.see` takes.
            sentences: one, or many.
            max_length: word pieces to cut them to, [CLS] and [SEP] included; None: they stay whole.

        Returns:
            A `Match`, or a list of them where `sentences` is a list.

        Raises:
            FileNotFoundError: no such picture.
            InputError: no picture, no sentence, or no word of one is known.
        """
        given = [sentences] if isinstance(sentences, str) else list(sentences)
        seen = self.asker.see(picture)
        tokens, warnings = self.tokens(given, max_length)
        rows = torch.arange(len(given))
        logits = self.logits([seen], tokens, rows, torch.zeros_like(rows))
        different = list(filter(None, [self.asker.eyes.warning(seen)]))
        found = [
            Match(sentence, each, [*different, *said])
            for sentence, each, said in zip(given, logits.numpy(), warnings, strict=True)
        ]
        return found[0] if isinstance(sentences, str) else found

    def tokens(self, sentences: Sequence[str], max_length: int | None = None) -> tuple[Any, list[list[str]]]:
        """The encoded sentences, whole or cut to `max_length` word pieces, and what is to be said of each."""
        whole = self.asker.config.max_position_embeddings
        return self.asker.tokens(sentences, whole if max_length is None else max_length)

    @torch.inference_mode()
    def logits(self, pictures: Sequence[Seen], tokens: Any, row_sentence: Tensor, row_image: Tensor) -> Tensor:
        """(R, 2) float32 on the CPU: what the matching head gives for rows that pair these; see `batch_of`.

        Each sentence and each picture is encoded once; `ROWS` rows are computed at once.
        """
        body = self.model.lxmert
        batch = batch_of(pictures, tokens, row_sentence, row_image).to(self.asker.device)
        encoded = body.encode_sentences(batch), body.encode_images(batch)
        found = []
        for start in range(0, len(row_sentence), ROWS):
            rows = slice(start, start + ROWS)
            part = batch.pair(batch.row_sentence[rows], batch.row_image[rows])
            pooled = body.encode_rows(part, *encoded, {"pooled"}).pooled_output
            found.append(self.model.cls.seq_relationship(pooled).float().cpu())
        return torch.cat(found) if found else torch.empty(0, 2)

    # -------------------------------------------------------------------------- one modality at a time

    @torch.inference_mode()
    def likelihood(
        self, picture: Any, sentence: str, *, blind: bool = False, max_length: int | None = None
    ) -> Likelihood:
        """The pseudo-log-likelihood of a sentence.

        Args:
            picture: what `Eyes.see` takes.
            sentence: a text.
            blind: all of the picture's features are zero, as those of masked regions in pre-training.
            max_length: as of `match`.

        Raises:
            FileNotFoundError: no such picture.
            InputError: no picture, no sentence, no word of it is known, or a model that guesses no words.
        """
        if not self.asker.config.task_mask_lm:
            raise InputError("this model has no masked-language head: it was trained without masked_language")
        seen = self.asker.see(picture)
        seen = _blind(seen) if blind else seen
        tokens, _ = self.tokens([sentence], max_length)
        ids = tokens["input_ids"][0]
        places = torch.arange(1, len(ids) - 1)  # without [CLS] and [SEP]
        logs = []
        for some in places.split(ROWS):
            masked = ids.repeat(len(some), 1)
            masked[torch.arange(len(some)), some] = self.asker.tokenizer.mask_token_id
            rows = torch.arange(len(some))
            output = self._encode([seen], masked, rows, torch.zeros_like(rows), {"language"})
            hidden: Any = output.language_output[rows, some]  # type: ignore[index]
            words = self.model.lxmert.embeddings.word_embeddings.weight
            scores = self.model.cls.predictions(hidden, words).float().log_softmax(-1).cpu()
            logs.append(scores.gather(1, ids[some][:, None]).squeeze(1))
        pieces = self.asker.tokenizer.convert_ids_to_tokens(ids[places].tolist())
        return Likelihood(sentence, pieces, torch.cat(logs).numpy())

    @torch.inference_mode()
    def ablate(self, picture: Any, sentence: str, *, max_length: int | None = None) -> Ablation:
        """What picture and sentence tell of each other, by taking one of them away.

        The cross-modal input ablation of Frank, Bugliarello and Elliott (EMNLP 2021) with all of a modality taken
        away; of regions they measure the divergence from all of the detector's probabilities, which stores do not
        have: here it is the cross-entropy of the label that they keep.

        Args:
            picture: what `Eyes.see` takes.
            sentence: a text.
            max_length: as of `match`.

        Raises:
            FileNotFoundError: no such picture.
            InputError: as of `likelihood`; a model that names no objects, or regions without labels.
        """
        config, seen = self.asker.config, self.asker.see(picture)
        if not (config.task_obj_predict and config.visual_obj_loss):
            raise InputError(
                "this model has no head that names the objects of regions: it was pre-trained without"
            )
        known = seen.object_ids if seen.object_ids is not None else torch.full((len(seen),), -1)
        if not bool((known >= 0).any()):
            raise InputError(
                "the regions of this picture have no object labels. Use those of a detector or of a store that "
                "kept its labels"
            )
        tokens, _ = self.tokens([sentence], max_length)
        ids = tokens["input_ids"]
        told = torch.cat([ids, ids])
        told[1, 1:-1] = self.asker.tokenizer.mask_token_id
        sums = torch.zeros(2, dtype=torch.float64)
        for some in (known >= 0).nonzero().squeeze(1).split(ROWS // 2):
            hidden = [_blind(seen, int(place)) for place in some]
            rows, places = torch.arange(2).repeat_interleave(len(some)), torch.arange(len(some)).repeat(2)
            output = self._encode(hidden, told, rows, places, {"vision"})
            vision: Any = output.vision_output[torch.arange(len(rows)), some.repeat(2)]  # type: ignore[index]
            scores = self.model.obj_predict_head(vision)["obj"].float().cpu()
            losses = F.cross_entropy(scores, known[some].repeat(2), reduction="none")
            sums += losses.double().view(2, -1).sum(1)
        regions = (sums / (known >= 0).sum()).tolist()
        words = [
            -float(self.likelihood(seen, sentence, blind=blind, max_length=max_length).logs.mean(dtype=np.float64))
            for blind in (False, True)
        ]
        return Ablation(*words, *regions)

    def _encode(
        self, pictures: Sequence[Seen], ids: Tensor, row_sentence: Tensor, row_image: Tensor, needed: set[str]
    ) -> LxmertModelOutput:
        """Of sentences without padding."""
        tokens = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        batch: Batch = batch_of(pictures, tokens, row_sentence, row_image).to(self.asker.device)
        return self.model.lxmert.encode(batch, needed)


def _blind(seen: Seen, region: int | None = None) -> Seen:
    """The picture with one region's features zero, or those of all."""
    features = seen.features.clone()
    features[slice(None) if region is None else region] = 0
    return replace(seen, features=features)
