"""What comes of a matrix of scores: the first ten of each, and examples to look at."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lxmert.files import write_text
from lxmert.report import Example, View
from lxmert.retrieve.ranks import blocks
from lxmert.retrieve.scoring import Collection

FIRST = 10  # that are kept of each ranking
SHOWN = 5  # that are shown
NOTE = (
    "Each caption with its own picture, then the five that fit it best; below, the matching head's probability "
    "that they belong together (fine-tuning trains the order, not this number), and last its own."
)


def write_results(path: Path, collection: Collection, scores: np.ndarray) -> None:
    """Write the best `FIRST` of every ranking, as JSON.

    An object of `images`, caption id -> [[image id, score], ...], best first, and `texts`, image id -> [[caption
    id, score], ...]. Pairs that were no candidates are not in it.

    Args:
        path: the file.
        collection: C captions and I images.
        scores: (C, I), which may be memory-mapped.
    """
    images: dict[str, Any] = {}
    for rows in blocks(scores):
        for caption, row in zip(collection.caption_ids[rows], scores[rows], strict=True):
            images[str(caption)] = best(row, collection.image_ids)
    texts: dict[str, Any] = {}
    for columns in blocks(scores.T):
        for image, column in zip(collection.image_ids[columns], scores[:, columns].T, strict=True):
            texts[image] = best(column, collection.caption_ids)
    write_text(path, json.dumps({"images": images, "texts": texts}) + "\n")


def best(scores: np.ndarray, ids: list[Any], most: int = FIRST) -> list[tuple[Any, float]]:
    """The ids of the highest scores with these, best first; of equal ones the first comes first."""
    order = np.argsort(-scores, kind="stable")[:most]
    return [(ids[place], round(float(scores[place]), 4)) for place in order.tolist() if scores[place] > -math.inf]


def found_examples(
    collection: Collection, scores: np.ndarray, picture: Callable[[str], Path | None], count: int = 24
) -> list[Example]:
    """Captions spread over all of them, with their own picture and the `SHOWN` that fit best, for a page.

    Args:
        collection: C captions and I images.
        scores: (C, I).
        picture: image id -> its file, None where there is none.
        count: of captions.
    """
    examples = []
    for caption in np.linspace(0, len(scores) - 1, min(count, len(scores))).astype(int).tolist():
        own = collection.image_ids[collection.image_of[caption]]
        found = best(scores[caption], collection.image_ids, SHOWN)
        views = [View(picture(own), [], [], label="its own")]
        views += [
            View(picture(image), [], [], label=f"{place}{', its own' if image == own else ''}")
            for place, (image, _) in enumerate(found, 1)
        ]
        fits = [(image, 1 / (1 + math.exp(-score)) if score > -500 else 0.0) for image, score in found]
        examples.append(Example(collection.texts[caption], views, fits, {own: 1.0}))
    return examples
