"""What the splits of training and validation share and should not."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.stores import ExampleStore
from lxmert.files import shorten

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """A split as it is compared with others.

    Args:
        name: of the split.
        store: its texts.
        rows: places of the examples that are used.
        images: the codes and the ids of each image of an example.
    """

    name: str
    store: ExampleStore
    rows: np.ndarray
    images: Sequence[tuple[np.ndarray, list[str]]]


def compare_splits(
    train: Sequence[Split], valid: Sequence[Split], file_of: Callable[[str], Path], own_ids: bool
) -> None:
    """Warn of examples of validation that are trained on, and of ids that two splits have.

    Args:
        train: splits to train on.
        valid: splits to validate on.
        file_of: a split -> its file.
        own_ids: ids are the files' own.
    """
    for split in valid:
        repeated = repeated_rows(train, split)
        if len(repeated):
            log.warning(
                "%s: %d of its %d examples are trained on too, with the same sentence and image, such as %s: "
                "what is scored on them says little. Remove them from one of the splits.",
                *(file_of(split.name), len(repeated), len(split.rows)),
                shorten(split.store.texts(repeated[:1])[0]),
            )
    distinct = list({split.name: split for split in (*train, *valid)}.values())
    for one, other, count, example in shared_ids(distinct) if own_ids else []:
        log.warning(
            "%s and %s share %d ids, such as %s. If they are not the same questions, give each an id of its own: "
            "predictions and pages tell them apart by it.",
            *(file_of(one), file_of(other), count, shorten(example)),
        )


def repeated_rows(train: Sequence[Split], valid: Split) -> np.ndarray:
    """Places of the examples of `valid` whose sentence and images an example of `train` has too."""
    tables = [{text: code for code, text in enumerate(table)} for _, table in valid.images]
    shared = (
        known.keys() & set(table) for each in train for known, (_, table) in zip(tables, each.images, strict=True)
    )
    if not any(shared):
        return valid.rows[:0]  # as of the released splits: quickly seen
    keys, rows = _row_keys(valid, tables)
    return rows[_among(keys, np.concatenate([_row_keys(split, tables)[0] for split in train]))]


def _row_keys(split: Split, tables: Sequence[Mapping[str, int]]) -> tuple[np.ndarray, np.ndarray]:
    """A number for the sentence and the images of each used row whose images are all in `tables`; their places."""
    rows, images = split.rows, []
    for (codes, table), known in zip(split.images, tables, strict=True):
        images.append(np.array([known.get(text, -1) for text in table], np.int64)[codes])
        rows = rows[images[-1][rows] >= 0]
    keys = split.store.hashes("text")[rows]
    for image in images:
        keys = keys * _ODD + image[rows].astype(np.uint64)
    return keys, rows


_ODD = np.uint64(0xD1B54A32D192ED03)


def shared_ids(splits: Sequence[Split]) -> list[tuple[str, str, int, Any]]:
    """Pairs of splits that share identifiers: both names, how many, and one of them.

    Not counted are identifiers that are no more than their image's number, as VizWiz has them, or their row's.
    """
    hashes = [split.store.hashes("id") for split in splits]
    found = []
    for (one, ours), (other, theirs) in combinations(zip(splits, hashes, strict=True), 2):
        rows = np.flatnonzero(_among(ours, theirs))
        if len(rows) and not (_number_their_images(one, rows) or _number_rows(one, rows)):
            found.append((one.name, other.name, len(rows), one.store.read(rows[:1]).ids[0]))
    return found


def _among(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of `values` are among `others`; half the time of `np.isin`."""
    ordered = np.append(np.sort(others), np.uint64(0))
    return ordered[np.searchsorted(ordered[:-1], values)] == values if len(others) else np.zeros(len(values), bool)


def _number_rows(split: Split, rows: np.ndarray) -> bool:
    return split.store.read(rows).ids == rows.tolist()


def _number_their_images(split: Split, rows: np.ndarray) -> bool:
    codes, table = split.images[0]
    ids = split.store.read(rows).ids
    images = (re.search(r"0*(\d+)$", table[code]) for code in codes[rows].tolist())
    return all(number is not None and number[1] == str(each) for each, number in zip(ids, images, strict=True))
