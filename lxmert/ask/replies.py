"""What comes of asking."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lxmert.ask.seeing import DIGITS, Seen


@dataclass
class Guess:
    """What the masked-language head puts in a [MASK].

    Args:
        place: among the word pieces.
        words: (word piece, probability), best first.
    """

    place: int
    words: list[tuple[str, float]]


@dataclass
class Reply:
    """The answer to one question, and what led to it as far as it was asked for.

    Args:
        question: as it was asked.
        words: its L word pieces as the model reads them, from [CLS] to [SEP].
        answers: (text, probability), best first.
        scores: (A,) float32, the model's score of each answer.
        seen: its picture, or pictures.
        fits: probability that sentence and picture belong together, by the matching head; None without one.
        guesses: for each [MASK], where the model has a masked-language head.
        explained: the answer that the two next tell of; None without.
        word_scores: (L,) float32, how much each word led to that answer, 0..1.
        region_scores: for each picture (N,) float32.
        attentions: by the names of `LxmertModelOutput`'s fields a list of one array for each layer: (H, queries,
            keys) for one picture, (P, H, queries, keys) for P of them. None unless asked for.
        warnings: what stands against trusting it.
    """

    question: str
    words: list[str]
    answers: list[tuple[str, float]]
    scores: np.ndarray = field(repr=False)
    seen: tuple[Seen, ...]
    fits: float | None = None
    guesses: list[Guess] = field(default_factory=list)
    method: str | None = None
    explained: str | None = None
    word_scores: np.ndarray | None = field(default=None, repr=False)
    region_scores: tuple[np.ndarray, ...] | None = field(default=None, repr=False)
    attentions: dict[str, list[np.ndarray]] | None = field(default=None, repr=False)
    warnings: list[str] = field(default_factory=list)

    @property
    def answer(self) -> str:
        """The best one; "" of a model without answers."""
        return self.answers[0][0] if self.answers else ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: plain numbers, lists and texts. Boxes are fractions of the picture's sides."""
        return {
            "question": self.question,
            "words": self.words,
            "answers": [{"answer": text, "probability": _number(value)} for text, value in self.answers],
            "fits": None if self.fits is None else _number(self.fits),
            "guesses": [
                {"place": guess.place, "words": [{"word": w, "probability": _number(p)} for w, p in guess.words]}
                for guess in self.guesses
            ],
            "method": self.method,
            "explained": self.explained,
            "word_scores": _numbers(self.word_scores),
            "pictures": [self._picture(place) for place in range(len(self.seen))],
            "attentions": self.attentions
            and {name: [_numbers(layer) for layer in layers] for name, layers in self.attentions.items()},
            "warnings": self.warnings,
        }

    def _picture(self, place: int) -> dict[str, Any]:
        scores = None if self.region_scores is None else _numbers(self.region_scores[place])
        return {**self.seen[place].to_dict(), "region_scores": scores}


def _number(value: float) -> float:
    return round(float(value), DIGITS)


def _numbers(values: np.ndarray | None) -> Any:
    return None if values is None else np.round(values.astype(np.float64), DIGITS).tolist()
