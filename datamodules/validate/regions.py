"""Region files: region stores, all formats that become one, the makers' object features of GQA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datamodules.formats.gqa_objects import gqa_chunk
from datamodules.formats.region_formats import RegionFormat
from datamodules.stores import (
    BOTTOM_UP_ATTENTION,
    NAMES,
    NOT_FINITE,
    ImageError,
    Index,
    RegionStore,
    box_fractions,
    check_ids,
    map_dataset,
)
from datamodules.validate.findings import Findings, progress

SAMPLE = 1000  # images whose regions are looked at
BATCH = 50
UNKNOWN = -1  # as the label of a region
IMAGES = {"train2014": 82_783, "val2014": 40_504, "test2015": 81_434}  # by part of the file name
FEATURE_DIM = 2048
# Of the original's features: what ten real images have, and how far a whole file's may be from that.
ORIGINAL = {
    "least feature": ("0", 0.0, 0.0),
    "largest feature": ("25 to 35", 15.0, 200.0),
    "mean of the features": ("0.50 to 0.84", 0.3, 1.2),
    "share of zeros": ("24 to 39 % an image", 0.15, 0.5),
}


class Statistics:
    """Range, mean and share of zeros of the features it is given."""

    def __init__(self) -> None:
        self.count = self.zeros = self.not_finite = 0
        self.total, self.low, self.high = 0.0, np.inf, -np.inf

    def add(self, features: np.ndarray) -> bool:
        """Take in an array of features of any shape; whether all are finite."""
        finite = features[np.isfinite(features)]
        self.not_finite += features.size - finite.size
        self.count += finite.size
        self.zeros += int((finite == 0).sum())
        self.total += float(finite.sum(dtype=np.float64))
        if finite.size:
            self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))
        return finite.size == features.size

    def report(self, found: Findings, compare: bool) -> None:
        """Note the statistics; as a problem where they are unlike the original's and `compare` is set."""
        if self.not_finite:
            found.wrong("NaN or infinite features", f"{self.not_finite:,} of {self.not_finite + self.count:,}")
        if not self.count:
            return
        values = (self.low, self.high, self.total / self.count, self.zeros / self.count)
        for (what, (original, low, high)), value in zip(ORIGINAL.items(), values, strict=True):
            text = f"{value:.0%}".replace("%", " %") if what == "share of zeros" else f"{value:.4g}"
            found.fact(what, text, original if compare else "")
            if compare and not low <= value <= high:
                found.wrong(
                    f"{what} is {text}, {original} in the original release: features of another detector, or "
                    "damaged"
                )


def check_regions(form: RegionFormat, path: Path, found: Findings) -> None:
    """The structure of every image; boxes, labels and features of about `SAMPLE` images, evenly spaced.

    An image that conversion refuses is a problem here, by the same checks.
    """
    found.kind = form.name
    index = Index(skip=True)
    with progress(form.source) as bar:
        form.index(form.source, bar, index)
    for error in index.skipped:
        _note(error, path, found)
    found.region_images = {name.decode() for name in index.image_ids}
    _note_regions(path, found, len(index.counts), Counter(index.counts), index.feature_dim)
    images = np.unique(np.linspace(0, len(index.counts) - 1, min(SAMPLE, len(index.counts))).astype(np.int64))
    found.fact("images looked into", f"{len(images):,} of {len(index.counts) + len(index.skipped):,}")
    names = NAMES if form.detector == BOTTOM_UP_ATTENTION else None
    statistics, most = Statistics(), dict.fromkeys(NAMES, UNKNOWN)
    for image in images.tolist():
        try:
            regions = next(iter(form.read(form.source, index, image)))
        except ImageError as error:
            _note(error, path, found)
            continue
        finite = statistics.add(regions.features)
        for name in NAMES:
            if (ids := regions.labels.get(f"{name}_ids")) is not None:
                most[name] = max(most[name], int(ids.max()))
        for each in regions.errors(names=names):
            if finite or each.sort != NOT_FINITE:  # which the statistics count
                _note(each, path, found)
    _note_labels(most, found)
    statistics.report(found, compare=names is not None and index.feature_dim == FEATURE_DIM)


def _note(error: ImageError, path: Path, found: Findings) -> None:
    place = error.place.removeprefix(f"{path}: ").removeprefix(f"{path}/")
    if error.sort:
        found.wrong(error.sort, place)
    else:
        found.wrong("images that cannot be used", f"{place}: {error.what}")


def _note_regions(path: Path, found: Findings, images: int, counts: Counter[int], dim: int) -> None:
    known = next((n for name, n in IMAGES.items() if name in path.name), "")
    found.fact("images", images, known)
    if counts:
        usual, _ = counts.most_common(1)[0]
        span = f"{usual}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}, mostly {usual}"
        found.fact("regions an image", span, "36")
    found.fact("features a region", dim, FEATURE_DIM)


def _note_labels(most: Mapping[str, int], found: Findings) -> None:
    for name, value in most.items():
        found.fact(f"largest {name} id", "none" if value < 0 else value, NAMES[name] - 1)


def check_region_store(path: Path, found: Findings) -> None:
    """All ids and labels; boxes and features of about `SAMPLE` images, evenly spaced."""
    found.kind = "region store"
    store = RegionStore(path)
    found.region_images = {name.decode() for name in store.image_ids.tolist()}
    sizes = np.diff(np.asarray(map_dataset(path, "offsets")))
    _note_regions(path, found, len(store), Counter(sizes.tolist()), store.feature_dim)
    original = store.contract["detector"] == BOTTOM_UP_ATTENTION
    found.fact("detector", store.contract["detector"], BOTTOM_UP_ATTENTION)
    found.fact("made from", store.contract["source_name"])
    most = {}
    for name in NAMES:
        ids = np.asarray(map_dataset(path, f"{name}_ids"))
        most[name] = int(ids.max())
        try:
            check_ids(ids, name, f"{path}: its labels", NAMES if original else None, least=UNKNOWN)
        except ImageError as error:
            _note(error, path, found)
        if not np.isfinite(np.asarray(map_dataset(path, f"{name}_conf"))).all():
            found.wrong(f"{name} confidences that are not numbers")
    images = np.unique(np.linspace(0, len(store) - 1, min(SAMPLE, len(store))).astype(np.int64))
    found.fact("images looked into", f"{len(images):,} of {len(store):,}")
    _note_labels(most, found)
    statistics = Statistics()
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        features, boxes, mask = store.read(batch)
        statistics.add(features[mask].float().numpy())
        for image, image_boxes, real in zip(batch, boxes.numpy(), mask.numpy(), strict=True):
            place = f"{path}: image {store.image_ids[image].decode()}"
            try:
                box_fractions(image_boxes[real], (1, 1), place, fractions=True)
            except ImageError as error:
                _note(error, path, found)
    statistics.report(found, compare=original and store.feature_dim == FEATURE_DIM)


def check_gqa_objects(path: Path, found: Findings) -> None:
    """A chunk of the makers' object features of GQA; which images it holds is told by its info file."""
    found.kind = "object features of GQA, one file of several"
    features, _ = gqa_chunk(path)
    found.fact("images", features.shape[0])
    found.fact("regions an image", f"up to {features.shape[1]}")
    found.fact("features a region", features.shape[2])
    sample = np.unique(np.linspace(0, len(features) - 1, min(BATCH, len(features))).astype(np.int64))
    found.fact("images looked into", f"{len(sample):,} of {len(features):,}")
    statistics = Statistics()
    for image in sample:
        statistics.add(np.asarray(features[int(image)]))
    statistics.report(found, compare=False)
