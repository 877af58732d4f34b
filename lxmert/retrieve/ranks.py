"""Where the right image and the right caption stand, and the usual numbers of it (Karpathy and Fei-Fei, 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lxmert.files import InputError

TOLERANCE = 1e-4  # scores of one pair differ by some 1e-6, as the pairs beside it do that are computed with it
AT_ONCE = 1 << 22  # scores that are looked at
RECALLS = (1, 5, 10)


@dataclass(frozen=True)
class Ranks:
    """Of C captions and I images, from 1.

    Args:
        images: (C,) int64, of each caption's image among all images.
        texts: (I,) int64, of each image's best caption among all captions.
    """

    images: np.ndarray
    texts: np.ndarray


def ranks_of(scores: np.ndarray, image_of: np.ndarray, tolerance: float = TOLERANCE) -> Ranks:
    """The ranks by a matrix of scores, which may be memory-mapped: it is read in blocks of rows.

    What is scored as high as the right one, or lower by no more than `tolerance`, is counted as standing before
    it: who scores all alike is last and not first. An image's own captions do not stand before each other.

    Args:
        scores: (C, I), -inf where a pair is no candidate.
        image_of: (C,) the place of each caption's image; each image has one caption or more.
        tolerance: 0 or more.

    Raises:
        InputError: pairs without a score.
    """
    captions, images = scores.shape
    best = np.full(images, -np.inf)
    unscored = 0
    for rows in blocks(scores):
        block = scores[rows].astype(np.float64)
        unscored += int(np.isnan(block).sum())
        if unscored:
            continue
        np.maximum.at(best, image_of[rows], block[np.arange(len(block)), image_of[rows]])
    if unscored:
        raise InputError(
            f"{unscored:,} of {scores.size:,} pairs have no score yet; the same command again goes on with them"
        )
    of_images, of_texts = np.empty(captions, np.int64), np.ones(images, np.int64)
    for rows in blocks(scores):
        block = scores[rows].astype(np.float64)
        own = np.arange(len(block)), image_of[rows]
        of_images[rows] = (block >= block[own][:, None] - tolerance).sum(1)  # it is among them itself
        before = block >= best - tolerance
        before[own] = False
        of_texts += before.sum(0)
    return Ranks(of_images, of_texts)


def summarize(ranks: Ranks) -> dict[str, dict[str, float]]:
    """The usual numbers of `image_retrieval` and of `text_retrieval`.

    Each has recall_at_1, recall_at_5, recall_at_10 in percent, median_rank and mean_rank.
    """
    return {
        name: {
            **{f"recall_at_{most}": 100 * float((found <= most).mean()) for most in RECALLS},
            "median_rank": float(np.median(found)),
            "mean_rank": float(found.mean()),
        }
        for name, found in (("image_retrieval", ranks.images), ("text_retrieval", ranks.texts))
    }


def blocks(scores: np.ndarray) -> Iterator[slice]:
    """The rows of a matrix, some at a time."""
    step = max(AT_ONCE // scores.shape[1], 1)
    return (slice(start, min(start + step, len(scores))) for start in range(0, len(scores), step))
