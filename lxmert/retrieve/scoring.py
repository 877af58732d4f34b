"""Scoring captions against images in blocks: each is encoded once a block, pairs go through the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from lxmert.batch import Batch
from lxmert.files import InputError
from lxmert.heads import MatchingHead
from lxmert.model import Lxmert

SIDE = 256  # captions and images of a block, which are kept encoded: 50 MB at base size
ROWS = 1024  # pairs at once


class Collection(Protocol):
    """Captions and images that are scored against each other, as data modules make them (`captions_of`).

    Of C captions and I images: `caption_ids`, `texts` (C), `image_ids` (I), and `image_of` (C,), the place of each
    caption's image. `batch` gives captions and images by their places, in this order, in a batch whose rows have
    no meaning; `fingerprint` differs where anything does that scores depend on.
    """

    caption_ids: list[Any]
    texts: list[str]
    image_ids: list[str]
    image_of: np.ndarray

    def batch(self, captions: np.ndarray, images: np.ndarray) -> Batch: ...  # noqa: D102

    def fingerprint(self) -> str: ...  # noqa: D102


def _nothing(done: int) -> None:
    pass


@torch.inference_mode()
def score_pairs(
    model: Lxmert,
    head: MatchingHead,
    collection: Collection,
    scores: np.ndarray,
    *,
    rows: int = ROWS,
    share: tuple[int, int] = (0, 1),
    done: Callable[[int], object] = _nothing,
) -> None:
    """Fill in the scores that are missing, in float32.

    Memory does not grow with the number of captions and images. A score does not depend on `rows` and `share` but
    for rounding, some 1e-6.

    Args:
        model: in evaluation mode; its device is used.
        head: the score of a pair is its logit for "belongs together" less that for "does not".
        collection: C captions and I images.
        scores: (C, I) float32, NaN where one is missing; may be memory-mapped, and shared with other processes.
        rows: pairs that go through the cross-modality layers at once.
        share: this process's number, and how many there are: of the captions it takes every so manieth.
        done: called with the number of pairs of each step.

    Raises:
        InputError: `rows` is below 1; a score is no number.
    """
    if rows < 1:
        raise InputError(f"rows={rows}; expected how many pairs to score at once, 1 or more")
    device = model.pooler.dense.weight.device
    rank, processes = share
    for image in _groups(np.arange(scores.shape[1])):
        encoded = None
        for caption in _groups(np.arange(rank, len(scores), processes)):
            missing = np.argwhere(np.isnan(scores[np.ix_(caption, image)]))
            if not len(missing):
                continue
            batch = collection.batch(caption, image).to(device)
            encoded = model.encode_images(batch) if encoded is None else encoded
            sentences = model.encode_sentences(batch)
            for pairs in np.split(missing, range(rows, len(missing), rows)):
                row_sentence, row_image = torch.from_numpy(pairs.T.copy()).to(device)
                output = model.encode_rows(batch.pair(row_sentence, row_image), sentences, encoded, {"pooled"})
                assert output.pooled_output is not None
                found = head.score(output.pooled_output).cpu().numpy()
                if not np.isfinite(found).all():  # NaN would count as missing, for ever
                    raise InputError(
                        "the model's scores are not finite (NaN or infinite): its weights, or the features of "
                        "these regions, are too large to compute with. Are they of the same detector?"
                    )
                scores[caption[pairs[:, 0]], image[pairs[:, 1]]] = found
                done(len(pairs))


def _groups(places: np.ndarray) -> Sequence[np.ndarray]:
    return np.array_split(places, range(SIDE, len(places), SIDE)) if len(places) else []
