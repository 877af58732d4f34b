"""Region files: the release's TSV, region stores, the makers' object features of GQA."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datamodules.formats.gqa_objects import gqa_chunk
from datamodules.formats.release_tsv import tsv_lines, tsv_row
from datamodules.stores import (
    BOTTOM_UP_ATTENTION,
    BOX_TOLERANCE,
    Regions,
    RegionStore,
    StoreError,
    in_fractions,
    map_dataset,
)
from datamodules.validate.findings import Findings, progress

SAMPLE = 1000  # images whose regions are looked at
BATCH = 50
LABELS = {"object": 1600, "attribute": 400}  # names of the detector
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


def box_problem(boxes: np.ndarray, width: float, height: float) -> str | None:
    """What is wrong with the boxes (n, 4) of an image, if anything; x1 y1 x2 y2 in the unit of its sides."""
    sides = np.array([width, height, width, height])
    slack = BOX_TOLERANCE * sides
    if not np.isfinite(boxes).all():
        return "boxes that are not numbers"
    if in_fractions(boxes, width):
        return "boxes in fractions of the image, expected pixels"
    if width == 1 and boxes.max() > 2:
        return "boxes in pixels, expected fractions of the image"
    if (boxes[:, 2:] < boxes[:, :2]).any():
        return "boxes that end before they begin: perhaps x y width height, expected x1 y1 x2 y2"
    if (boxes >= -slack).all() and (boxes <= sides + slack).all():
        return None
    turned = sides[[1, 0, 3, 2]]
    if (boxes >= -slack).all() and (boxes <= turned * (1 + BOX_TOLERANCE)).all():
        return "boxes that fit when width and height are exchanged"
    return "boxes outside the image"


def check_tsv(path: Path, found: Findings) -> None:
    """The structure of every line; boxes, labels and features of about `SAMPLE` images, evenly spaced.

    A line that conversion refuses is a problem here, by the same checks.
    """
    found.kind = "regions of the LXMERT release"
    seen: dict[bytes, int] = {}
    counts: Counter[int] = Counter()
    statistics, dim, step, sampled, number = Statistics(), 0, 1, 0, 0
    labels = {name: -1 for name in LABELS}
    with path.open("rb", buffering=0) as file, progress(path) as bar:
        for number, line in enumerate(tsv_lines(file, path), 1):
            length = len(line.content)
            bar.update(length)
            if number == 1:
                step = max(1, path.stat().st_size // length // SAMPLE)
            try:
                row = tsv_row(line, path, number, dim)
                dim = row.feature_dim
                first = seen.setdefault(row.image_id, number)
                if first != number:
                    found.wrong(
                        "images that are there twice", f"{row.image_id.decode()}, lines {first} and {number}"
                    )
                counts[row.count] += 1
                if (number - 1) % step:
                    continue
                regions = row.regions()
            except StoreError as error:
                found.wrong("lines that cannot be used", _short(error, path))
                continue
            sampled += 1
            _look_into(regions, f"line {number}", path, labels, statistics, found)
    if not number:
        found.wrong("empty file")
    found.region_images = {name.decode() for name in seen}
    _note_regions(path, found, len(seen), counts, dim)
    found.fact("images looked into", f"{sampled:,} of {number:,}")
    _note_labels(labels, found)
    statistics.report(found, compare=dim == FEATURE_DIM)


def _look_into(
    regions: Regions, where: str, path: Path, most: dict[str, int], statistics: Statistics, found: Findings
) -> None:
    """What is wrong with the values of an image: in words for its sort, or else in those of the conversion."""
    finite = statistics.add(regions.features)
    if what := box_problem(regions.boxes, *regions.size):
        found.wrong(what, f"{where}, image {regions.where.rpartition(', image ')[2]}")
    ids = {name: regions.labels[f"{name}_ids"] for name in LABELS}
    if _check_labels(ids, most, where, found) and finite and not what:
        try:
            regions.columns()
        except StoreError as error:
            found.wrong("lines that cannot be used", _short(error, path))


def _check_labels(ids: Mapping[str, np.ndarray], most: dict[str, int], where: str, found: Findings) -> bool:
    """Note ids that the detector has no names for, keep the largest in `most`; whether all are in order."""
    good = True
    for name, values in ids.items():
        low, high = int(values.min()), int(values.max())
        most[name] = max(most[name], high)
        if low < -1 or high >= LABELS[name]:
            good = False
            found.wrong(
                f"{name} ids outside the detector's {LABELS[name]:,} names (0 to {LABELS[name] - 1:,})",
                f"{where}, {low if low < -1 else high}",
            )
    return good


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
        found.fact(f"largest {name} id", "none" if value < 0 else value, LABELS[name] - 1)


def check_region_store(path: Path, found: Findings) -> None:
    """All ids and labels; boxes and features of about `SAMPLE` images, evenly spaced."""
    found.kind = "region store"
    store = RegionStore(path)
    found.region_images = {name.decode() for name in store.image_ids.tolist()}
    sizes = np.diff(np.asarray(map_dataset(path, "offsets")))
    _note_regions(path, found, len(store), Counter(sizes.tolist()), store.feature_dim)
    found.fact("detector", store.contract["detector"], BOTTOM_UP_ATTENTION)
    found.fact("made from", store.contract["source_name"])
    labels = {name: -1 for name in LABELS}
    for name in LABELS:
        _check_labels({name: np.asarray(map_dataset(path, f"{name}_ids"))}, labels, "its labels", found)
        if not np.isfinite(np.asarray(map_dataset(path, f"{name}_conf"))).all():
            found.wrong(f"{name} confidences that are not numbers")
    images = np.unique(np.linspace(0, len(store) - 1, min(SAMPLE, len(store))).astype(np.int64))
    found.fact("images looked into", f"{len(images):,} of {len(store):,}")
    _note_labels(labels, found)
    statistics = Statistics()
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        features, boxes, mask = store.read(batch)
        statistics.add(features[mask].float().numpy())
        for image, image_boxes, real in zip(batch, boxes.numpy(), mask.numpy(), strict=True):
            if what := box_problem(image_boxes[real], 1, 1):
                found.wrong(what, f"image {store.image_ids[image].decode()}")
    original = store.feature_dim == FEATURE_DIM and store.contract["detector"] == BOTTOM_UP_ATTENTION
    statistics.report(found, compare=original)


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


def _short(error: StoreError, path: Path) -> str:
    """An error's message without what the report says anyway."""
    return re.sub(r"\. The file is damaged.*", "", str(error).removeprefix(f"{path}: "))
