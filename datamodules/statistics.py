"""What text stores hold: how often each answer, how many sentences that are too long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from datamodules.stores import ExampleStore
from lxmert.tokenization import LxmertTokenizer

TRUNCATION_SAMPLE = 10_000  # sentences of a store whose length is looked at; tokenizing takes its time
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


def count_truncated(store: ExampleStore, tokenizer: LxmertTokenizer, max_length: int) -> tuple[int, int]:
    """How many sentences have more than `max_length` tokens, of how many that were looked at, evenly spaced."""
    step = -(-len(store) // TRUNCATION_SAMPLE)
    places = np.arange(0, len(store), step)
    count = 0
    for start in range(0, len(places), _AT_ONCE):
        texts = store.texts(places[start : start + _AT_ONCE])
        tokens = tokenizer(texts, truncation=False, return_attention_mask=False, return_length=True)
        count += sum(length > max_length for length in tokens["length"])
    return count, len(places)
