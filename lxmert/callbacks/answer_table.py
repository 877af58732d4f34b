"""Predictions as a table to read: a row a question, with its text, the truth and the best answers."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lxmert.files import replacing

SHOWN = 5  # answers of a question
COLUMNS = [
    *("id", "image", "question", "truth"),
    *(f"answer_{place}" for place in range(1, SHOWN + 1)),
    *(f"probability_{place}" for place in range(1, SHOWN + 1)),
]


def confusions(paths: Iterable[Path], most: int = 10) -> list[tuple[str, str, int]]:
    """(right answer, the model's, how often) where these differ, of tables that are there, most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in paths:
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                pairs = ((row["truth"], row["answer_1"]) for row in csv.DictReader(file))
                counts.update((right, given) for right, given in pairs if right and right != given)
    return [(*pair, count) for pair, count in counts.most_common(most)]


def write_answer_table(
    path: Path, known: Iterable[Any], answer: np.ndarray, probability: np.ndarray, answers: list[str]
) -> list[tuple[Any, str]]:
    """Write a CSV file of `COLUMNS`, in UTF-8; the id and the image of every row.

    Args:
        path: the file.
        known: blocks of ids, images, texts and answers, as `ExampleDataset.known` of the data modules gives them.
        answer: (n, top) indices into `answers`, best first, of all rows of these blocks ...
        probability: ... and (n, top) what the model gives them.
        answers: texts.
    """
    texts, start = np.array(answers, object), 0
    names: list[tuple[Any, str]] = []
    blanks = [""] * (SHOWN - min(SHOWN, answer.shape[1]))
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for block in known:
            rows = slice(start, start + len(block.ids))
            best = texts[answer[rows, :SHOWN]].tolist()
            given = probability[rows, :SHOWN].astype(np.float64).round(6).tolist()
            facts = zip(block.ids, block.images, block.texts, block.answers, best, given, strict=True)
            writer.writerows((*four, *five, *blanks, *fractions, *blanks) for *four, five, fractions in facts)
            names += zip(block.ids, block.images, strict=True)
            start = rows.stop
    return names
