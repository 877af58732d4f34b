"""Writing a region store image by image, from any source that can tell its images first.

A conversion first goes over the source to learn its images and check its structure, then allocates
the whole store, then fills it image by image, noting how far it has come: what it holds in memory is
one image and about 200 bytes for each other. Killed at any moment, it goes on from its last note;
failed, it leaves nothing.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from tqdm import tqdm

from datamodules.progress import progress_bar
from datamodules.stores.hdf5 import (
    Source,
    StoreError,
    allocate,
    check_free_space,
    clear_write_errors,
    is_current,
    locked,
    offsets_of,
    publish,
)
from datamodules.stores.regions import BOX_CONVENTION, FORMAT_VERSION, OF_REGIONS, UNKNOWN_LABEL, RegionStore
from lxmert.files import InputError, read_json

BOTTOM_UP_ATTENTION = "bottom-up-attention Faster R-CNN, ResNet-101, Visual Genome 1600-400"
BOX_TOLERANCE = 1e-5  # of a box, as a fraction of the image's side; that of the original code
LARGEST_ARRAY = 1 << 27  # bytes
LARGEST_NUMBER = 2**31 - 1  # of what a source counts
LONGEST_ID = 255  # bytes
BOM = b"\xef\xbb\xbf"
_NOT_IN_IDS = re.compile(rb"[\x00-\x1f\x7f]|" + BOM)
_IMAGES_PER_NOTE = 128
_LARGEST_FP16 = 65504.0


@dataclass
class Index:
    """What a pass over the source tells: enough to lay out the store and to find every image again."""

    feature_dim: int = 0
    sha256: str = ""
    image_ids: list[bytes] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width, height
    counts: list[int] = field(default_factory=list)
    places: list[Any] = field(default_factory=list)  # a line's first byte, a file, or a row of a file

    def add(self, image_id: bytes, size: tuple[int, int], count: int, place: Any) -> None:
        """Note an image; `check_id` has been called."""
        self.image_ids.append(image_id)
        self.sizes.append(size)
        self.counts.append(count)
        self.places.append(place)


@dataclass
class Regions:
    """One image as its source has it; `where` it stands is for messages."""

    where: str
    size: tuple[int, int]  # width, height
    features: np.ndarray  # (n, F) float32
    boxes: np.ndarray  # (n, 4) float32, pixels
    labels: dict[str, np.ndarray]  # by the store's names; none where the source has none

    def columns(self) -> dict[str, np.ndarray]:
        """The image's part of each column of the store.

        Raises:
            StoreError: a value is wrong.
        """
        self._check_features()
        return {
            # torch casts to fp16 ten times faster than numpy
            "features": torch.from_numpy(self.features).half().numpy(),
            "boxes": self._fractions(),
            **self._labels(),
        }

    def _check_features(self) -> None:
        # NaN fails both comparisons
        if self.features.min() >= -_LARGEST_FP16 and self.features.max() <= _LARGEST_FP16:
            return
        region, place = np.argwhere(~(np.abs(self.features) <= _LARGEST_FP16))[0]
        value = self.features[region, place]
        reject(self.where, f"feature {place} of region {region} is {value}, expected -65504 to 65504 to fit fp16")

    def _fractions(self) -> np.ndarray:
        width, height = self.size
        with np.errstate(invalid="ignore"):
            boxes = self.boxes / np.array([width, height, width, height], np.float32)
        in_order = (boxes[:, 2:] >= boxes[:, :2]).all(1)
        # NaN fails every comparison
        if boxes.min() > -BOX_TOLERANCE and boxes.max() < 1 + BOX_TOLERANCE and in_order.all():
            if in_fractions(self.boxes, width):
                reject(self.where, "boxes in fractions of the image, expected pixels")
            return boxes
        inside = ((boxes < 1 + BOX_TOLERANCE) & (boxes > -BOX_TOLERANCE)).all(1)
        wrong = np.flatnonzero(~(inside & in_order))[0]
        reject(
            self.where,
            f"box {wrong} is {self.boxes[wrong].tolist()}, expected pixels x1 <= x2, y1 <= y2 in "
            f"an image {width} wide and {height} high",
        )

    def _labels(self) -> dict[str, np.ndarray]:
        columns = {}
        for kind in ("object", "attribute"):
            ids = self.labels.get(f"{kind}_ids")
            conf = self.labels.get(f"{kind}_conf")
            if conf is None:
                conf = np.zeros(len(self.boxes))
            if ids is None:
                ids = np.full(len(self.boxes), UNKNOWN_LABEL)
            elif ids.min() < 0 or ids.max() > np.iinfo(np.int32).max:
                reject(self.where, f"{kind} ids from {ids.min()} to {ids.max()}, expected 0 or more")
            if not np.isfinite(conf).all():
                reject(self.where, f"{kind} confidences hold NaN or infinity, expected numbers")
            columns[f"{kind}_ids"] = ids.astype(np.int32)
            columns[f"{kind}_conf"] = conf.astype(np.float32)
        return columns


def in_fractions(boxes: np.ndarray, width: float) -> bool:
    """Whether all boxes (n, 4) of an image lie in its first pixel: nobody's pixels, but fractions."""
    return width > 2 and bool(boxes.max() <= 1 + BOX_TOLERANCE)


def check_id(image_id: bytes, where: str) -> None:
    """Refuse what is no id: a store could not keep it, or nobody ask for it."""
    if not image_id:
        reject(where, "img_id is empty, expected the image's id")
    if len(image_id) > LONGEST_ID:
        reject(where, f"img_id is of {len(image_id):,} bytes, expected at most {LONGEST_ID}")
    if found := _NOT_IN_IDS.search(image_id):
        reject(where, f"img_id holds {found[0]!r}, expected no control characters")
    try:
        image_id.decode()
    except UnicodeDecodeError:
        reject(where, f"img_id is {image_id!r}, expected UTF-8 text")


def shown_id(image_id: bytes) -> str:
    """An image's id in a message."""
    text = image_id[:80].decode(errors="replace")
    return text if text.isprintable() else ascii(text)


def reject(where: str, what: str) -> NoReturn:
    """Refuse what stands at a place of a source."""
    raise StoreError(f"{where}: {what}. The file is damaged or of another format: get it again or mend this row.")


# -------------------------------------------------------------------------------------- conversion


def convert_regions(
    source: Path,
    store: Path,
    detector: str,
    progress: bool,
    make_index: Callable[[Path, tqdm], Index],
    read: Callable[[Path, Index, int], Iterable[Regions]],
) -> Path:
    """Make a region store of a source that was not made of it as it is now.

    One process makes it; others that ask for it at the same time wait.

    Args:
        source: the file or folder, whose state the store keeps.
        store: the file to make.
        detector: what made the features, for the store's contract.
        progress: show progress bars.
        make_index: goes over the source, moving the bar by its bytes, and tells its images.
        read: gives the images of an index, from a number on.

    Returns:
        `store`.

    Raises:
        StoreError: what `make_index`, `read` and `Regions` refuse, a full disk, no permission.
    """
    partial = store.with_name(f".{store.name}.partial")
    note = store.with_name(f".{store.name}.partial.json")
    with locked(store), clear_write_errors(store):
        if is_current(store, source) and RegionStore(store).contract["detector"] == detector:
            return store
        if not source.exists():
            raise StoreError(f"{source}: no such file or folder. Check the path, or get the features first.")
        stamp = Source.of(source)
        try:
            title, total = f"{source.name}: index", stamp.size
            with progress_bar(title, total, shown=progress) as bar:
                index = make_index(source, bar)
            layout = _resume(store, partial, note, index, replace(stamp, sha256=index.sha256), detector)
            title, total, done = f"{source.name}: convert", len(index.counts), layout.done
            with progress_bar(title, total, "image", done=done, shown=progress) as bar:
                _fill(partial, note, layout, index.counts, read(source, index, done), bar)
            RegionStore(partial)  # what is published can be opened
            if not Source.of(source).same_file(stamp):
                raise StoreError(f"{source}: changed while it was converted. Run the conversion again.")
            publish(partial, store)
        except Exception:
            # Only a kill or an interruption leaves the unfinished store, which the next run completes.
            partial.unlink(missing_ok=True)
            note.unlink(missing_ok=True)
            raise
        note.unlink(missing_ok=True)
    return store


def check_file(path: Path) -> None:
    """Raise StoreError unless a source is a file that can be read."""
    if not path.is_file():  # a pipe would be waited for
        raise StoreError(f"{path}: not a file. Check the path.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}). Check its owner and mode.") from error


@dataclass
class _Layout:
    """The note beside an unfinished store: what it will be, its bytes, how many images are done."""

    contract: dict[str, Any]
    size: int
    done: int = 0

    def write(self, note: Path) -> None:
        temporary = note.with_name(f"{note.name}.tmp")
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        temporary.replace(note)


def _resume(store: Path, partial: Path, note: Path, index: Index, stamp: Source, detector: str) -> _Layout:
    """The unfinished store that a killed run left of the same source, or a newly allocated one."""
    offsets = np.concatenate([[0], np.cumsum(index.counts)])
    regions = int(offsets[-1])
    contract = {
        "kind": "regions",
        "format_version": FORMAT_VERSION,
        "feature_dim": index.feature_dim,
        "box_convention": BOX_CONVENTION,
        "detector": detector,
        **stamp.attributes(),
        "num_images": len(index.counts),
        "num_regions": regions,
        "min_regions": min(index.counts),
        "max_regions": max(index.counts),
    }
    if (noted := _noted(note, partial, contract)) is not None:
        return noted
    note.unlink(missing_ok=True)
    partial.unlink(missing_ok=True)
    image_ids = np.array(index.image_ids, np.bytes_)
    arrays = {
        "offsets": offsets.astype(np.int64),
        "image_ids": image_ids,
        "image_size": np.array(index.sizes, np.int32),
        "id_order": np.argsort(image_ids, kind="stable"),
    }
    columns: dict[str, tuple[tuple[int, ...], Any]] = {
        "boxes": ((regions, 4), np.float32),
        "object_ids": ((regions,), np.int32),
        "object_conf": ((regions,), np.float32),
        "attribute_ids": ((regions,), np.int32),
        "attribute_conf": ((regions,), np.float32),
        "features": ((regions, index.feature_dim), np.float16),
    }
    needed = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in columns.values())
    check_free_space(store, needed)
    allocate(partial, arrays, columns, contract)
    layout = _Layout(contract, partial.stat().st_size)
    layout.write(note)
    return layout


def _noted(note: Path, partial: Path, contract: dict[str, Any]) -> _Layout | None:
    """What a killed run noted, where it fits the unfinished store beside it and the store to be made."""
    try:
        noted = read_json(note)
        RegionStore(partial)
        layout = _Layout(noted["contract"], noted["size"], noted["done"])
        fits = layout.contract == contract and layout.size == partial.stat().st_size
        return layout if fits and 0 <= layout.done <= contract["num_images"] and type(layout.done) is int else None
    except (InputError, OSError, TypeError, KeyError):  # damaged, or none: the store is begun anew
        return None


def _fill(
    partial: Path, note: Path, layout: _Layout, counts: list[int], images: Iterable[Regions], bar: tqdm
) -> None:
    """Write the regions of every image not yet done to their places in each column."""
    region = sum(counts[: layout.done])
    noted: Future[None] | None = None
    offsets = offsets_of(partial, OF_REGIONS)
    file = os.open(partial, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    try:
        # The disk takes its time: the next images are decoded meanwhile.
        with ThreadPoolExecutor(1) as pool:
            for regions in images:
                for name, rows in regions.columns().items():
                    _write_at(file, rows, offsets[name] + region * rows[0].nbytes)
                region += counts[layout.done]
                layout.done += 1
                bar.update()
                if layout.done % _IMAGES_PER_NOTE == 0:
                    if noted is not None:
                        noted.result()
                    noted = pool.submit(_note, file, note, replace(layout))
            if noted is not None:
                noted.result()
    finally:
        os.close(file)


def _note(file: int, note: Path, layout: _Layout) -> None:
    os.fsync(file)  # should the machine stop, the note must not tell of lost rows
    layout.write(note)


def _write_at(file: int, rows: np.ndarray, offset: int) -> None:
    data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
    while data:  # a nearly full disk takes a part before it refuses the rest
        if hasattr(os, "pwrite"):
            written = os.pwrite(file, data, offset)
        else:  # Windows
            os.lseek(file, offset, os.SEEK_SET)
            written = os.write(file, data)
        data, offset = data[written:], offset + written
