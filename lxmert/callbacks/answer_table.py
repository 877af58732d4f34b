"""Predictions as a table to read: a row a question, with its text, the truth and the best answers."""

from __future__ import annotations

import csv
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
