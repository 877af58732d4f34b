"""What text stores hold: how often each answer, sentences that are cut or unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from datamodules.stores import ExampleStore
from lxmert.tokenization import LxmertTokenizer

TRUNCATION_SAMPLE = 10_000  # sentences of a store that are looked at; tokenizing takes its time
_AT_ONCE = 10_000


def frequent_answers(stores: Iterable[ExampleStore], spell: Callable[[str], str], most: int | None) -> list[str]:
    """The answers of these stores, by descending number of examples, then text.

    Args:
        stores: the text stores, with labels.
        spell: an answer of the stores -> as the answer list spells it.
        most: how many at most, None for all.
    """
    counts: Counter[str] = Counter()
    for store in stores:
        texts = store.table("answers")
        numbers = np.bincount(store.column("answer/code"), minlength=len(texts)).tolist()
        for text, number in zip(texts, numbers, strict=True):
            counts[spell(text)] += number
    return sorted(counts, key=lambda text: (-counts[text], text))[:most]


@dataclass(frozen=True)
class Sentences:
    """What was seen of some of a store's sentences.

    Args:
        seen: how many, evenly spaced.
        truncated: those with more tokens than the longest sentence may have.
        unknown: those of which more than half of the tokens, [CLS] and [SEP] aside, are [UNK].
        longest: tokens of the longest.
        example: one that is mostly unknown, or an empty text.
    """

    seen: int = 0
    truncated: int = 0
    unknown: int = 0
    longest: int = 0
    example: str = ""


def look_at_sentences(
    store: ExampleStore, rows: np.ndarray, tokenizer: LxmertTokenizer, max_length: int
) -> Sentences:
    """Tokenize at most `TRUNCATION_SAMPLE` of the sentences at `rows`."""
    places = rows[:: max(-(-len(rows) // TRUNCATION_SAMPLE), 1)]
    truncated = unknown = longest = 0
    example = ""
    for start in range(0, len(places), _AT_ONCE):
        texts = store.texts(places[start : start + _AT_ONCE])
        tokens = tokenizer(tokenizer.as_typed(texts), truncation=False, return_attention_mask=False)["input_ids"]
        lengths = list(map(len, tokens))
        truncated += sum(length > max_length for length in lengths)
        longest = max(longest, *lengths)
        mostly = [2 * ids.count(tokenizer.unk_token_id) > len(ids) - 2 for ids in tokens]
        unknown += sum(mostly)
        example = example or next((text for text, bad in zip(texts, mostly, strict=True) if bad), "")
    return Sentences(len(places), truncated, unknown, longest, example)


def known_labels(store: ExampleStore, rows: np.ndarray, answers: np.ndarray) -> tuple[int, int]:
    """How many labels the examples at `rows` have, and how many of them are among the answers.

    Args:
        store: with labels.
        rows: places of examples.
        answers: to each code of the store's answers, the place in the answer list, -1 outside it.
    """
    known = answers[store.column("answer/code")] >= 0
    if len(rows) < len(store):
        used = np.zeros(len(store), bool)
        used[rows] = True
        known = known[np.repeat(used, np.diff(store.column("answer/offsets")))]
    return len(known), int(known.sum())


Used = tuple[ExampleStore, np.ndarray]  # a store and the places of those of its examples that are used


def without_answer(store: ExampleStore, answers: np.ndarray) -> np.ndarray:
    """(n,) bool: the examples none of whose labels is among the answers; `answers` as of `known_labels`."""
    known = np.append(0, np.cumsum(answers[store.column("answer/code")] >= 0))
    return np.diff(known[store.column("answer/offsets")]) == 0


def guess_accuracy(train: Iterable[Used], valid: Iterable[Used]) -> float:
    """The mean score of guessing from the text alone: a model that looks at pictures should be above it.

    Args:
        train: of labelled stores. To a text of theirs the guess is the answer with the most score there; to any
            other text, that with the most score of all.
        valid: of labelled stores, those that are guessed.
    """
    by_text: dict[str, Counter[str]] = {}
    overall: Counter[str] = Counter()
    for text, label in _labels(train):
        by_text.setdefault(text, Counter()).update(label)
        overall.update(label)
    usual = max(overall, key=overall.__getitem__, default="")
    guesses = {text: max(scores, key=scores.__getitem__, default=usual) for text, scores in by_text.items()}
    scores = [label.get(guesses.get(text, usual), 0.0) for text, label in _labels(valid)]
    return sum(scores) / max(len(scores), 1)


def _labels(used: Iterable[Used]) -> Iterator[tuple[str, dict[str, float]]]:
    """The text, lower-cased, and the label of every example."""
    for store, places in used:
        answers = store.table("answers")
        for start in range(0, len(places), _AT_ONCE):
            read = store.read(places[start : start + _AT_ONCE])
            given = zip(read.answers.tolist(), read.scores.tolist(), strict=True)
            for text, number in zip(read.texts, read.answer_counts.tolist(), strict=True):
                yield text.lower(), {answers[code]: score for code, score in islice(given, number)}
