"""A trained model that is asked about pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lxmert.ask.batches import batch_of
from lxmert.ask.opening import open_checkpoint, outputs_of
from lxmert.ask.replies import Guess, Reply
from lxmert.ask.seeing import Eyes, Seen
from lxmert.batch import Batch, Packing
from lxmert.config import LxmertConfig
from lxmert.explain import METHODS
from lxmert.explain import explain as explain_rows
from lxmert.files import InputError, is_unicode, shorten, shown
from lxmert.outputs import LxmertModelOutput
from lxmert.pretrained import LxmertForPreTraining, LxmertForVisualReasoning
from lxmert.runs import TrainedRun, usable

AT_ONCE = 64  # questions
LONGEST = 2000  # characters of a question; what is longer is no question but a mistake
_MASK = re.compile(r"\[mask\]", re.IGNORECASE)
ATTENTIONS = {
    # field -> whether its queries and keys are words
    "language_attentions": (True, True),
    "vision_attentions": (False, False),
    "cross_encoder_attentions": (True, False),
    "vision_to_language_attentions": (False, True),
    "cross_language_attentions": (True, True),
    "cross_vision_attentions": (False, False),
}


class Asker:
    """A model, its vocabulary and answers, and what its pictures come from.

    asker = Asker.open("outputs/latest", store="data/stores/toy/mscoco_imgfeat/val2014_obj36.h5")
    asker.ask("TOY_val2014_000000004001", "what color is the star?").answer

    `Asker.open` is the usual way to make one.

    Args:
        run: model, tokenizer, answers.
        eyes: where regions come from.
        device: of the model.
    """

    def __init__(self, run: TrainedRun, eyes: Eyes, device: str | torch.device = "cpu") -> None:
        self.run, self.eyes = run, eyes
        self.device = usable(device)
        self.model = run.model.to(self.device).eval()
        self._encoded: tuple[Seen, tuple[int, ...] | None, Tensor] | None = None  # the last picture

    @classmethod
    def open(
        cls,
        checkpoint: str | Path,
        *,
        detector: str | Path | None = None,
        store: str | Path | Sequence[str | Path] = (),
        pictures: str | Path | None = None,
        names: str | Path | None = None,
        tokenizer: str | Path | None = None,
        answers: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> Asker:
        """Open a trained model, to be asked.

        Args:
            checkpoint: a run's folder, a weights file or folder, or a hub name; see `open_checkpoint`.
            detector: see `Eyes`.
            store: region store, or several; see `Eyes`.
            pictures: see `Eyes`.
            names: see `Eyes`.
            tokenizer: see `open_checkpoint`.
            answers: see `open_checkpoint`.
            device: of the model and the detector: "cpu", "cuda", ...

        Raises:
            FileNotFoundError: nothing of that name.
            InputError: what cannot be read, or does not fit together.
        """
        device = usable(device)
        run = open_checkpoint(checkpoint, tokenizer, answers)
        config = run.model.config
        eyes = Eyes(
            config.visual_feat_dim,
            config.detector,
            detector=detector,
            stores=[store] if isinstance(store, str | Path) else store,
            pictures=pictures,
            names=names,
            device=device,
        )
        return cls(run, eyes, device)

    @property
    def config(self) -> LxmertConfig:
        """Of the model."""
        return self.model.config

    @property
    def tokenizer(self) -> Any:
        """Of the run."""
        return self.run.tokenizer

    @property
    def answers(self) -> list[str]:
        """In label order."""
        return self.run.answers

    @property
    def num_pictures(self) -> int:
        """How many a question is about: 1, or as many as the model's statements have."""
        return self.config.num_images if isinstance(self.model, LxmertForVisualReasoning) else 1

    def see(self, picture: Any) -> Seen:
        """The regions of a picture; see `Eyes.see`."""
        return self.eyes.see(picture)

    def ask(
        self,
        picture: Any,
        questions: str | Sequence[str],
        *,
        top: int = 5,
        explain: str | None = None,
        answer: str | None = None,
        attentions: bool = False,
        regions: Sequence[int] | None = None,
    ) -> Any:
        """Ask about a picture, which is encoded once for all its questions.

        Args:
            picture: what `see` takes; of a model of statements about n pictures, a list of n of them.
            questions: one, or many. As in training they are cut to the run's `max_length` word pieces, with a
                warning.
            top: answers to give of each.
            explain: a method of `lxmert.explain.METHODS`: what led to the answer.
            answer: the one to explain, in any case; None for each question's best.
            attentions: give all attention maps.
            regions: numbers of the regions that are looked at; None for all. Scores and maps of the others are 0.

        Returns:
            A `Reply`, or a list of them where `questions` is a list.

        Raises:
            FileNotFoundError: no such picture.
            InputError: no picture, no question, no word of one is known, an answer that is not in the list, or
                a model without answers.
        """
        seen = self._pictures(picture)
        if not isinstance(questions, str | Sequence):
            raise InputError(f"{shown(questions)} is no question; expected a text, or a list of texts")
        asked = [questions] if isinstance(questions, str) else list(questions)
        if type(top) is not int or top < 1:
            raise InputError(f"top={shown(top)}; expected how many answers to give, 1 or more")
        label = None if answer is None else self.run.label_of(str(answer))
        explain = METHODS[0] if explain is None and label is not None else explain
        self.check_answers(explain)
        kept = None if regions is None else self._kept(regions, seen)
        replies: list[Reply] = []
        for start in range(0, len(asked), AT_ONCE):
            replies += self._ask(seen, asked[start : start + AT_ONCE], kept, top, explain, label, attentions)
        return replies[0] if isinstance(questions, str) else replies

    # ------------------------------------------------------------------------------------------ input

    def _pictures(self, picture: Any) -> tuple[Seen, ...]:
        if self.num_pictures == 1:
            if isinstance(picture, tuple | list) and any(
                isinstance(p, str | bytes | Path | Seen) for p in picture
            ):
                raise InputError(f"{len(picture)} pictures; this model is asked about one. Ask about each")
            return (self.see(picture),)
        if not isinstance(picture, tuple | list) or len(picture) != self.num_pictures:
            number = len(picture) if isinstance(picture, tuple | list) else 1
            raise InputError(f"{number} pictures; this model's statements are about {self.num_pictures}")
        return tuple(self.see(each) for each in picture)

    def _kept(self, regions: Sequence[int], seen: tuple[Seen, ...]) -> tuple[int, ...]:
        """The regions that are looked at, in order."""
        if len(seen) > 1:
            raise InputError(
                f"regions= is for models that are asked about one picture; this one about {len(seen)}"
            )
        numbers = np.asarray(regions)
        if numbers.ndim != 1 or (numbers.dtype.kind not in "iu" and numbers.size):
            raise InputError(f"regions={shorten(regions)}; expected a list of region numbers")
        if not numbers.size:
            raise InputError("regions=[]: no region is left to look at; keep at least one")
        if numbers.min() < 0 or numbers.max() >= len(seen[0]):
            raise InputError(f"regions={shorten(regions)}; expected numbers from 0 to {len(seen[0]) - 1}")
        return tuple(np.unique(numbers).tolist())

    def check_answers(self, explain: str | None) -> None:
        """Refuse a model that has nothing to say; one of pre-training may have no answers but its other heads.

        Args:
            explain: the method that answers are to be explained by; there have to be answers then.

        Raises:
            InputError: it cannot be asked.
        """
        head = outputs_of(self.run)
        others = isinstance(self.model, LxmertForPreTraining) and (self._guesses_words or self.config.task_matched)
        if not head and (explain is not None or not others):
            raise InputError(
                f"this model ({type(self.model).__name__}) has no answer head: it was not trained to answer. Use "
                "a checkpoint of a fine-tuned model"
            )
        if head and not self.answers:
            raise InputError(
                f"the texts of this model's {head} answers are not known: its weights have no list with them. "
                "Name that of its training (--answers), such as the release's trainval_label2ans.json"
            )

    def tokens(self, questions: Sequence[str], limit: int | None = None) -> tuple[Any, list[list[str]]]:
        """The encoded questions and what is to be said of each.

        Args:
            questions: texts.
            limit: word pieces to cut to; None: as training did.

        Raises:
            InputError: no text, none of its words is known, or a limit that leaves no room for one.
        """
        if limit is not None and limit < 3:
            raise InputError(f"sentences cut to {limit} word pieces; expected 3 or more: [CLS], a word and [SEP]")
        warnings: list[list[str]] = []
        unknown = self.tokenizer.unk_token
        where = "" if limit else ": training cut there too"
        limit = min(limit or self.run.max_length, self.config.max_position_embeddings)
        for question in questions:
            if not isinstance(question, str) or not is_unicode(question) or not question.strip():
                raise InputError(f"{shown(question)} is no question; expected a text")
            if len(question) > LONGEST:
                raise InputError(
                    f"a question of {len(question):,} characters; expected {LONGEST:,} or fewer. The model reads "
                    f"{limit} word pieces"
                )
        # Only what stands alone is special to the tokenizer; who asks for a word's place means it anywhere.
        masked = [_MASK.sub(f" {self.tokenizer.mask_token} ", question) for question in questions]
        typed = self.tokenizer.as_typed(masked)
        special = {*self.tokenizer.all_special_tokens} - {self.tokenizer.mask_token}
        for question, pieces in zip(questions, (self.tokenizer.tokenize(text) for text in typed), strict=True):
            said = []
            if not any(any(map(str.isalnum, piece)) for piece in pieces if piece not in special):
                raise InputError(
                    f"{shown(question)}: no word of it is in the model's vocabulary. It may be in a language that "
                    "the model was not trained on"
                )
            if self.tokenizer.mask_token in pieces and not self._guesses_words:
                said.append("this model has no head that guesses words: [MASK] is a word like any other to it")
            letters = sum(len(piece) == 3 and piece[:2] == "##" and piece[2].isalpha() for piece in pieces)
            if letters > 3 and 3 * letters > len(pieces):
                said.append(
                    f"{letters} of its {len(pieces)} word pieces are single letters: it has words that the "
                    "model's vocabulary does not have"
                )
            if number := pieces.count(unknown):
                said.append(
                    f"{number} of its {len(pieces)} word pieces are not in the model's vocabulary ({unknown}): it "
                    "may be in a language, or about things, that the model was not trained on"
                )
            if len(pieces) > limit - 2:
                left = len(pieces) - limit + 2
                said.append(f"its last {left} of {len(pieces)} word pieces are not read{where}")
            warnings.append(said)
        tokens = self.tokenizer(
            typed, padding=True, padding_side="right", truncation=True, max_length=limit, return_tensors="pt"
        )
        return tokens, warnings

    def _batch(self, seen: tuple[Seen, ...], tokens: Any, kept: tuple[int, ...] | None) -> Batch:
        """S questions about P pictures: P rows each."""
        questions, pictures = len(tokens["input_ids"]), len(seen)
        batch = batch_of(
            seen,
            tokens,
            torch.arange(questions).repeat_interleave(pictures),
            torch.arange(pictures).repeat(questions),
        )
        if kept is not None:
            mask = torch.zeros_like(batch.region_mask)
            mask[:, list(kept)] = True
            batch = replace(
                batch,
                region_mask=mask,
                region_packing=Packing.of(mask),
                row_region_packing=Packing.of(mask[batch.row_image]),
            )
        return batch.to(self.device)

    # ---------------------------------------------------------------------------------------- output

    def _ask(
        self,
        seen: tuple[Seen, ...],
        questions: Sequence[str],
        kept: tuple[int, ...] | None,
        top: int,
        method: str | None,
        label: int | None,
        attentions: bool,
    ) -> list[Reply]:
        tokens, warnings = self.tokens(questions)
        batch = self._batch(seen, tokens, kept)
        with torch.inference_mode():
            encoded = self._encode(batch, seen, kept, attentions)
            scores, fits, words = self._heads(encoded)
        chances = self.run.probabilities(scores)
        best = chances.topk(min(top, scores.shape[-1]))
        different = list(filter(None, dict.fromkeys(map(self.eyes.warning, seen))))
        replies = []
        for row, question in enumerate(questions):
            length = int(tokens["attention_mask"][row].sum())
            ids = tokens["input_ids"][row, :length].tolist()
            pieces = self.tokenizer.convert_ids_to_tokens(ids)
            replies.append(
                Reply(
                    question,
                    pieces,
                    [
                        (self.answers[index], chance)
                        for index, chance in zip(
                            best.indices[row].tolist(), best.values[row].tolist(), strict=True
                        )
                    ],
                    scores[row].cpu().numpy(),
                    seen,
                    None if fits is None else float(fits[row]),
                    [] if words is None else self._guesses(ids, words[row], top),
                    attentions=self._maps(encoded, row, length, seen) if attentions else None,
                    warnings=[*different, *warnings[row]],
                )
            )
        if method is not None:
            labels = scores.argmax(1) if label is None else torch.full_like(scores[:, 0], label, dtype=torch.long)
            self._explain(replies, batch, labels, method)
        return replies

    def _encode(
        self, batch: Batch, seen: tuple[Seen, ...], kept: tuple[int, ...] | None, attentions: bool
    ) -> LxmertModelOutput:
        body: Any = self.model.lxmert
        needed = {"pooled"}
        if self._guesses_words and bool((batch.token_ids == self.tokenizer.mask_token_id).any()):
            needed.add("language")
        if attentions:
            return body.encode(batch, needed, output_attentions=True)
        sentences = body.encode_sentences(batch)
        if len(seen) > 1:
            return body.encode_rows(batch, sentences, body.encode_images(batch), needed)
        if self._encoded is None or self._encoded[0] is not seen[0] or self._encoded[1] != kept:
            self._encoded = (seen[0], kept, body.encode_images(batch))
        return body.encode_rows(batch, sentences, self._encoded[2], needed)

    @property
    def _guesses_words(self) -> bool:
        return isinstance(self.model, LxmertForPreTraining) and self.config.task_mask_lm

    def _heads(self, encoded: LxmertModelOutput) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Answer scores (S, A), chance of fitting (S,), word logits (S, L, V), as far as there are heads."""
        model: Any = self.model
        pooled: Any = encoded.pooled_output
        if isinstance(model, LxmertForVisualReasoning):
            return model.pair_head(pooled).float(), None, None
        scores = model.answer_head(pooled).float() if outputs_of(self.run) else pooled.new_zeros(len(pooled), 0)
        if not isinstance(model, LxmertForPreTraining):
            return scores, None, None
        fits = model.cls.seq_relationship(pooled).float().softmax(1)[:, 1] if self.config.task_matched else None
        words = None
        if self._guesses_words and encoded.language_output is not None:
            embeddings = model.lxmert.embeddings.word_embeddings.weight
            words = model.cls.predictions(encoded.language_output, embeddings).float()
        return scores, fits, words

    def _guesses(self, ids: list[int], logits: Tensor, top: int) -> list[Guess]:
        guesses = []
        for place in (place for place, id_ in enumerate(ids) if id_ == self.tokenizer.mask_token_id):
            best = logits[place].softmax(-1).topk(min(top, logits.shape[-1]))
            words = self.tokenizer.convert_ids_to_tokens(best.indices.tolist())
            guesses.append(Guess(place, list(zip(words, best.values.tolist(), strict=True))))
        return guesses

    def _maps(
        self, encoded: LxmertModelOutput, row: int, length: int, seen: tuple[Seen, ...]
    ) -> dict[str, list[np.ndarray]]:
        """The attention maps of one question, without padding between its words."""
        pictures, most = len(seen), max(len(each) for each in seen)
        found = {}
        for name, (queries, keys) in ATTENTIONS.items():
            layers = []
            for layer in getattr(encoded, name):
                # Before the cross-modality layers, maps are of distinct sentences and pictures.
                if name == "language_attentions":
                    maps = layer[row : row + 1].expand(pictures, *layer.shape[1:])
                elif name == "vision_attentions":
                    maps = layer
                else:
                    maps = layer[row * pictures : (row + 1) * pictures]
                maps = maps[..., : length if queries else most, : length if keys else most].float().cpu().numpy()
                layers.append(maps[0] if pictures == 1 else maps)
            found[name] = layers
        return found

    def _explain(self, replies: list[Reply], batch: Batch, labels: Tensor, method: str) -> None:
        pictures = len(replies[0].seen)
        found = explain_rows(self.model, batch, labels.repeat_interleave(pictures), method)
        words, regions = found.words_scaled.cpu().numpy(), found.regions_scaled.cpu().numpy()
        for place, (reply, label) in enumerate(zip(replies, labels.tolist(), strict=True)):
            rows = range(place * pictures, (place + 1) * pictures)
            reply.method, reply.explained = method, self.answers[label]
            reply.word_scores = words[rows.start : rows.stop, : len(reply.words)].mean(0)
            reply.region_scores = tuple(
                regions[row, : len(seen)] for row, seen in zip(rows, reply.seen, strict=True)
            )
