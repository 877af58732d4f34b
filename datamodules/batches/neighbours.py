"""Which images look alike: by the mean of their regions' features."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from datamodules.progress import progress_bar
from datamodules.stores import RegionStore, locked
from lxmert.files import replacing

log = logging.getLogger(__name__)

NEAREST = 100  # of a small split its nearest tenth; VOLTA's list comes ready-made, its code does not tell how
AT_ONCE = 512


def nearest_images(path: Path, regions: Sequence[RegionStore], images: np.ndarray) -> np.ndarray:
    """(n, k) int32: for each image the k others that are most alike, nearest first, as places among `images`.

    Alike is what has a high cosine of the mean region features; of equally near ones the first comes first.
    Computed once and kept in a file, by one process at a time.

    Args:
        path: the file; one that was made of other images or stores, or is damaged, is made again.
        regions: the region stores, one after the other.
        images: (n,) places over all of them, two or more.

    Raises:
        StoreError: the file cannot be written.
    """
    kept = min(NEAREST, max(len(images) // 10, 1))
    made_of = hashlib.sha256(images.astype(np.int64).tobytes())
    made_of.update(repr((kept, [store.contract["source_sha256"] for store in regions])).encode())
    if (known := _read(path, made_of.hexdigest(), quiet=True)) is not None:
        return known  # without a lock, for which a folder that is only read has no place
    with locked(path):
        if (known := _read(path, made_of.hexdigest())) is not None:
            return known
        log.info("Looking for the images that are most alike, once: %s", path)
        found = _nearest(_mean_features(regions, images), kept)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, nearest=found, made_of=made_of.hexdigest())
    return found


def _read(path: Path, made_of: str, *, quiet: bool = False) -> np.ndarray | None:
    """What a file holds, if it is there and was made of that."""
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            return file["nearest"] if str(file["made_of"]) == made_of else None
    except Exception as error:  # of zip archives and numpy's headers there are a dozen
        if not quiet:
            log.warning("%s is damaged (%s) and is made again", path, error)
        return None


def _mean_features(regions: Sequence[RegionStore], images: np.ndarray) -> np.ndarray:
    """(n, F) float32 of length 1: the mean features of each image."""
    starts = np.cumsum([0, *map(len, regions)])
    owners = np.searchsorted(starts, images, side="right") - 1
    means = np.empty((len(images), regions[0].feature_dim), np.float32)
    for number in np.unique(owners).tolist():
        for where in _blocks(np.flatnonzero(owners == number)):
            features, _, mask = regions[number].read(images[where] - starts[number])
            means[where] = features.float().sum(1).numpy() / mask.sum(1, keepdim=True).numpy()
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return means / np.where(lengths > 0, lengths, 1)


def _nearest(means: np.ndarray, kept: int) -> np.ndarray:
    found = np.empty((len(means), kept), np.int32)
    with progress_bar("images alike", len(means), "image") as bar:
        for where in _blocks(np.arange(len(means))):
            likeness = means[where] @ means.T
            likeness[np.arange(len(where)), where] = -np.inf  # an image is no neighbour of itself
            found[where] = _highest(likeness, kept)
            bar.update(len(where))
    return found


def _highest(likeness: np.ndarray, kept: int) -> np.ndarray:
    """(m, kept) places of the highest numbers of each row, of equal ones the first."""
    highest, places = (each.numpy() for each in torch.from_numpy(likeness).topk(kept, dim=1))
    places = np.take_along_axis(places, np.lexsort((places, -highest)), 1)
    # Sorting whole rows takes forty times as long, and is needed where equal ones do not all find a place.
    for row in np.flatnonzero((likeness >= highest[:, -1:]).sum(1) > kept).tolist():
        places[row] = np.argsort(-likeness[row], kind="stable")[:kept]
    return places


def _blocks(places: np.ndarray) -> list[np.ndarray]:
    return np.array_split(places, range(AT_ONCE, len(places), AT_ONCE))
