"""Released feature files -> region store: the LXMERT release's TSV, folders of npz files, GQA's object features.

A conversion first goes over the source to learn its images and check its structure, then allocates
the whole store, then fills it image by image, noting how far it has come: what it holds in memory is
one image and about 200 bytes for each other. Killed at any moment, it goes on from its last note;
failed, it leaves nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pybase64
import torch
from tqdm import tqdm

from datamodules.features import BOX_CONVENTION, FORMAT_VERSION, OF_REGIONS, UNKNOWN_LABEL, RegionStore
from datamodules.hdf5 import (
    REMAKE,
    Column,
    Source,
    StoreError,
    allocate,
    check_free_space,
    clear_write_errors,
    is_current,
    locked,
    map_datasets,
    offsets_of,
    publish,
    sha256_of,
)
from lxmert.errors import InputError
from lxmert.files import read_json

BOTTOM_UP_ATTENTION = "bottom-up-attention Faster R-CNN, ResNet-101, Visual Genome 1600-400"
GQA_OBJECTS = "GQA object features, Faster R-CNN, ResNet-101, trained on GQA"

_TSV_COLUMNS = (
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
)
_LABELS = {  # the sources' names -> the store's
    "objects_id": "object_ids",
    "objects_conf": "object_conf",
    "attrs_id": "attribute_ids",
    "attrs_conf": "attribute_conf",
}
_GQA_INFO = ("width", "height", "objectsNum", "idx", "file")
_BLOCK = 1 << 22
_LONGEST_LINE = _LARGEST_ARRAY = 1 << 27  # bytes
_LONGEST_ID = 255  # bytes
_LARGEST_NUMBER = 2**31 - 1  # of what a source counts
_BOM = b"\xef\xbb\xbf"
_NOT_IN_IDS = re.compile(rb"[\x00-\x1f\x7f]|" + _BOM)
_IMAGES_PER_NOTE = 128
_LARGEST_FP16 = 65504.0
BOX_TOLERANCE = 1e-5  # of a box, as a fraction of the image's side; that of the original code


def convert_tsv(source: Path, store: Path, *, detector: str = BOTTOM_UP_ATTENTION, progress: bool = True) -> Path:
    """Convert one TSV of the original LXMERT release to a region store.

    Rows have ten columns without a header: img_id, img_h, img_w, objects_id (int64), objects_conf
    (float32), attrs_id (int64), attrs_conf (float32), num_boxes, boxes (float32, num_boxes x 4, pixels
    x1 y1 x2 y2), features (float32, num_boxes x F); arrays in base64. F comes from the first row.
    Boxes are divided by the image's size and checked with the tolerance of the original code's loader.

    Args:
        source: the TSV file.
        store: the file to make; kept when it was made from `source` as it is now. One process makes
            it, others that ask for it at the same time wait.
        detector: what made the features, for the store's contract.
        progress: show progress bars.

    Returns:
        `store`.

    Raises:
        StoreError: a bad row (naming file, line and image), a full disk, no permission.
    """
    return _convert(Path(source), Path(store), detector, progress, _index_tsv, _read_tsv)


def convert_npz(folder: Path, store: Path, *, detector: str = BOTTOM_UP_ATTENTION, progress: bool = True) -> Path:
    """Convert a folder of `<image id>.jpg.npz` files, one an image, to a region store.

    Each file holds x (F, num_bbox) features, bbox (num_bbox, 4) in pixels x1 y1 x2 y2, image_w, image_h
    and num_bbox; and objects_id, objects_conf, attrs_id, attrs_conf (num_bbox,) where there are labels.
    Arguments, result and errors are those of `convert_tsv`.
    """
    return _convert(Path(folder), Path(store), detector, progress, _index_npz, _read_npz)


def convert_gqa_objects(folder: Path, store: Path, *, detector: str = GQA_OBJECTS, progress: bool = True) -> Path:
    """Convert the object features that the makers of GQA publish to a region store.

    The folder holds `gqa_objects_info.json`, image id -> width, height, objectsNum, idx and file, and the chunks
    `gqa_objects_<file>.h5` with features (n, 100, F) and bboxes (n, 100, 4) in pixels x1 y1 x2 y2. Of an image's
    100 places the first objectsNum count. There are no object names: they are unknown in the store. The info
    file stands for the folder in the store's source stamp.

    Arguments, result and errors are those of `convert_tsv`; InputError where the info file is not JSON.
    """
    info = Path(folder) / "gqa_objects_info.json"
    return _convert(info, Path(store), detector, progress, _index_gqa, _read_gqa)


# ------------------------------------------------------------------------------- index and regions


@dataclass
class _Index:
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
        _reject(self.where, f"feature {place} of region {region} is {value}, expected -65504 to 65504 to fit fp16")

    def _fractions(self) -> np.ndarray:
        width, height = self.size
        with np.errstate(invalid="ignore"):
            boxes = self.boxes / np.array([width, height, width, height], np.float32)
        in_order = (boxes[:, 2:] >= boxes[:, :2]).all(1)
        # NaN fails every comparison
        if boxes.min() > -BOX_TOLERANCE and boxes.max() < 1 + BOX_TOLERANCE and in_order.all():
            if in_fractions(self.boxes, width):
                _reject(self.where, "boxes in fractions of the image, expected pixels")
            return boxes
        inside = ((boxes < 1 + BOX_TOLERANCE) & (boxes > -BOX_TOLERANCE)).all(1)
        wrong = np.flatnonzero(~(inside & in_order))[0]
        _reject(
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
                _reject(self.where, f"{kind} ids from {ids.min()} to {ids.max()}, expected 0 or more")
            if not np.isfinite(conf).all():
                _reject(self.where, f"{kind} confidences hold NaN or infinity, expected numbers")
            columns[f"{kind}_ids"] = ids.astype(np.int32)
            columns[f"{kind}_conf"] = conf.astype(np.float32)
        return columns


def in_fractions(boxes: np.ndarray, width: float) -> bool:
    """Whether all boxes (n, 4) of an image lie in its first pixel: nobody's pixels, but fractions."""
    return width > 2 and bool(boxes.max() <= 1 + BOX_TOLERANCE)


def check_id(image_id: bytes, where: str) -> None:
    """Refuse what is no id: a store could not keep it, or nobody ask for it."""
    if not image_id:
        _reject(where, "img_id is empty, expected the image's id")
    if len(image_id) > _LONGEST_ID:
        _reject(where, f"img_id is of {len(image_id):,} bytes, expected at most {_LONGEST_ID}")
    if found := _NOT_IN_IDS.search(image_id):
        _reject(where, f"img_id holds {found[0]!r}, expected no control characters")
    try:
        image_id.decode()
    except UnicodeDecodeError:
        _reject(where, f"img_id is {image_id!r}, expected UTF-8 text")


def _shown(image_id: bytes) -> str:
    """An image's id in a message."""
    text = image_id[:80].decode(errors="replace")
    return text if text.isprintable() else ascii(text)


def _reject(where: str, what: str) -> NoReturn:
    raise StoreError(f"{where}: {what}. The file is damaged or of another format: get it again or mend this row.")


# -------------------------------------------------------------------------------------- conversion


def _convert(
    source: Path,
    store: Path,
    detector: str,
    progress: bool,
    make_index: Callable[[Path, tqdm], _Index],
    read: Callable[[Path, _Index, int], Iterable[Regions]],
) -> Path:
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
            with tqdm(total=total, desc=title, unit="B", unit_scale=True, disable=not progress) as bar:
                index = make_index(source, bar)
            layout = _resume(store, partial, note, index, replace(stamp, sha256=index.sha256), detector)
            title, total, done = f"{source.name}: convert", len(index.counts), layout.done
            with tqdm(total=total, initial=done, desc=title, unit="image", disable=not progress) as bar:
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


def _check_file(path: Path) -> None:
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
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(note)


def _resume(store: Path, partial: Path, note: Path, index: _Index, stamp: Source, detector: str) -> _Layout:
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


# --------------------------------------------------------------------------------------------- TSV


def _index_tsv(source: Path, bar: tqdm) -> _Index:
    """Check the structure of every line, down to the length of its arrays; decode none."""
    _check_file(source)
    index, digest, place = _Index(), hashlib.sha256(), 0
    lines_of: dict[bytes, int] = {}
    with source.open("rb", buffering=0) as file:
        for number, line in enumerate(tsv_lines(file, source), 1):
            digest.update(line.content)
            bar.update(len(line.content))
            row = tsv_row(line, source, number, index.feature_dim)
            index.feature_dim = row.feature_dim
            if row.image_id in lines_of:
                _reject(row.where, f"line {lines_of[row.image_id]} is of the same image, expected one line each")
            lines_of[row.image_id] = number
            index.add(row.image_id, row.size, row.count, place)
            place += len(line.content)
    if not index.counts:
        raise StoreError(f"{source}: the file is empty. Get it again.")
    index.sha256 = digest.hexdigest()
    return index


def _read_tsv(source: Path, index: _Index, start: int) -> Iterator[Regions]:
    """Decode the images from number `start` on."""
    with source.open("rb", buffering=0) as file:
        if start < len(index.places):
            file.seek(index.places[start])
        numbers = range(start, len(index.counts))
        for number, line in zip(numbers, tsv_lines(file, source), strict=False):
            row = tsv_row(line, source, number + 1, index.feature_dim)
            if (row.image_id, row.count) != (index.image_ids[number], index.counts[number]):
                raise StoreError(f"{source}: changed while it was converted. Run the conversion again.")
            yield row.regions()


@dataclass
class Line:
    """A line, its end included, in a buffer that the next line may overwrite."""

    buffer: bytearray
    begin: int
    end: int

    @property
    def content(self) -> memoryview:
        """Its bytes, not copied."""
        return memoryview(self.buffer)[self.begin : self.end]


def tsv_lines(file: FileIO, source: Path) -> Iterator[Line]:
    """The lines of an unbuffered file. Python's own, and splitting them, would cost more than the decoding."""
    buffer = bytearray(_BLOCK)
    begin = end = 0
    while True:
        after = buffer.find(b"\n", begin, end) + 1
        if after:
            yield Line(buffer, begin, after)
            begin = after
            continue
        rest = buffer[begin:end]
        if len(rest) == len(buffer):
            if len(buffer) >= _LONGEST_LINE:
                raise StoreError(f"{source}: a line of {_LONGEST_LINE} bytes or more, not a TSV of regions.")
            buffer = bytearray(2 * len(buffer))
        buffer[: len(rest)] = rest
        begin, end = 0, len(rest)
        read = file.readinto(memoryview(buffer)[end:])
        if not read:
            if rest:
                yield Line(buffer, 0, end)
            return
        end += read


@dataclass
class TsvRow:
    """A line of a TSV whose structure is right, its arrays still in base64."""

    where: str
    image_id: bytes
    size: tuple[int, int]  # width, height
    count: int
    feature_dim: int
    fields: dict[str, Any]

    def regions(self) -> Regions:
        """Decode the arrays; StoreError where they are not base64."""
        arrays = {
            column: _decode(self.fields, column, dtype, (self.count, values), self.where)
            for column, (dtype, values) in _array_columns(self.feature_dim).items()
        }
        labels = {name: arrays[column][:, 0] for column, name in _LABELS.items()}
        return Regions(self.where, self.size, arrays["features"], arrays["boxes"], labels)


def tsv_row(line: Line, source: Path, number: int, feature_dim: int) -> TsvRow:
    """Check the structure of a line, down to the length of its arrays.

    Args:
        line: the line, whose buffer the row's fields share.
        source: the file, for messages.
        number: of the line, from 1.
        feature_dim: F of the lines before; 0 takes this one's.

    Raises:
        StoreError: a column that is absent, no number, or of another length.
    """
    where, fields = _split(line, source, number)
    height, width, count = (_whole(fields, name, where) for name in ("img_h", "img_w", "num_boxes"))
    feature_dim = feature_dim or _feature_dim(fields["features"], count, where)
    for column, (dtype, values) in _array_columns(feature_dim).items():
        expected = (count * values * np.dtype(dtype).itemsize + 2) // 3 * 4
        if len(fields[column]) != expected:
            _reject(
                where,
                f"{column} has {len(fields[column])} base64 characters, expected {expected} for {count} boxes and "
                f"the first line's {feature_dim} features",
            )
    return TsvRow(where, fields["img_id"], (width, height), count, feature_dim, fields)


def _split(line: Line, source: Path, number: int) -> tuple[str, dict[str, Any]]:
    """Where a row stands, for messages, and its ten columns by name: bytes, the features without a copy."""
    content = line.content
    while len(content) and content[-1] in b"\r\n":
        content = content[:-1]
    fields: list[Any] = []
    begin = len(_BOM) if number == 1 and bytes(content[: len(_BOM)]) == _BOM else 0
    for _ in _TSV_COLUMNS[1:]:
        tab = line.buffer.find(b"\t", line.begin + begin, line.end) - line.begin
        if tab < 0:
            break
        fields.append(bytes(content[begin:tab]))
        begin = tab + 1
    # Whatever follows the ninth tab is taken for features, and refused for its length if it is not.
    fields.append(content[begin:])
    image_id = bytes(fields[0][: _LONGEST_ID + 1])
    where = f"{source}: line {number}, image {_shown(image_id) or '(no id)'}"
    if len(fields) != len(_TSV_COLUMNS):
        _reject(where, f"{len(fields)} columns, expected {len(_TSV_COLUMNS)}; the line may be truncated")
    check_id(fields[0], where)
    return where, dict(zip(_TSV_COLUMNS, fields, strict=True))


def _whole(row: dict[str, Any], column: str, where: str) -> int:
    text = row[column]
    if not text.isdigit() or len(text) > 10 or not 0 < int(text) <= _LARGEST_NUMBER:
        _reject(where, f"{column} is {text[:20].decode(errors='replace')!r}, expected a whole number above 0")
    return int(text)


def _feature_dim(text: memoryview, count: int, where: str) -> int:
    size = len(text) // 4 * 3 - bytes(text[-2:]).count(b"=")
    if size == 0 or len(text) % 4 or size % (4 * count):
        _reject(where, f"features has {len(text)} base64 characters, expected {count} float32 vectors")
    return size // (4 * count)


def _array_columns(feature_dim: int) -> dict[str, tuple[str, int]]:
    """Column -> dtype, values per box."""
    return {
        "objects_id": ("<i8", 1),
        "objects_conf": ("<f4", 1),
        "attrs_id": ("<i8", 1),
        "attrs_conf": ("<f4", 1),
        "boxes": ("<f4", 4),
        "features": ("<f4", feature_dim),
    }


def _decode(row: dict[str, Any], column: str, dtype: str, shape: tuple[int, int], where: str) -> np.ndarray:
    try:
        data = pybase64.b64decode_as_bytearray(row[column], validate=True)
        return np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:  # binascii.Error is one
        _reject(where, f"{column} ({error}), expected base64 of {shape[0]} x {shape[1]} {np.dtype(dtype).name}")


# --------------------------------------------------------------------------------------------- npz


# What kinds of numbers each array may hold, by numpy's letters.
_NPZ = {
    **dict.fromkeys(("num_bbox", "image_w", "image_h", "objects_id", "attrs_id"), "iu"),
    **dict.fromkeys(("x", "bbox", "objects_conf", "attrs_conf"), "fiu"),
}


def _index_npz(source: Path, bar: tqdm) -> _Index:
    """Read the ids, sizes and counts of every file, and the feature size of the first."""
    index = _Index()
    files_of: dict[str, str] = {}
    for path in sorted(source.glob("*.npz")):
        image_id = path.name.removesuffix(".npz").removesuffix(".jpg").removesuffix(".png")
        where = _npz_place(path, os.fsencode(image_id))
        check_id(os.fsencode(image_id), where)
        _check_file(path)
        names = ("bbox", "num_bbox", "image_w", "image_h", *(() if index.counts else ("x",)))
        content = _load(path, where, *names)
        _check_shapes(content, where, num_bbox=(), image_w=(), image_h=())
        count, width, height = (int(content[name]) for name in ("num_bbox", "image_w", "image_h"))
        if not 1 <= min(count, width, height) <= max(count, width, height) <= _LARGEST_NUMBER:
            _reject(where, f"{count} boxes on {width} x {height} pixels, expected 1 or more of each")
        _check_shapes(content, where, bbox=(count, 4))
        if not index.counts:
            index.feature_dim = len(np.atleast_1d(content["x"])) or 1
        if image_id in files_of:
            _reject(where, f"{files_of[image_id]} is of the same image, expected one file each")
        files_of[image_id] = path.name
        index.add(image_id.encode(), (width, height), count, path)
        bar.update(path.stat().st_size)
    if not index.counts:
        raise StoreError(f"{source}: no .npz files in this folder. Check the path.")
    index.sha256 = sha256_of(source)
    return index


def _read_npz(source: Path, index: _Index, start: int) -> Iterator[Regions]:
    """Read the images from number `start` on."""
    for number in range(start, len(index.counts)):
        path, count = index.places[number], index.counts[number]
        where = _npz_place(path, index.image_ids[number])
        content = _load(path, where, "x", "bbox")
        labels = {name: content[column] for column, name in _LABELS.items() if column in content}
        _check_shapes(content, where, x=(index.feature_dim, count), bbox=(count, 4))
        _check_shapes(labels, where, **dict.fromkeys(labels, (count,)))
        features = np.array(content["x"].T, np.float32, order="C")
        yield Regions(where, index.sizes[number], features, content["bbox"].astype(np.float32), labels)


def _npz_place(path: Path, image_id: bytes) -> str:
    return f"{os.fsencode(path).decode(errors='replace')}: image {_shown(image_id)}"


def _check_shapes(content: dict[str, np.ndarray], where: str, **expected: tuple[int, ...]) -> None:
    for name, shape in expected.items():
        if content[name].shape != shape:
            _reject(where, f"{name} is of shape {content[name].shape}, expected {shape}")


def _load(path: Path, where: str, *required: str) -> dict[str, np.ndarray]:
    """The required arrays of an npz file, and its labels where it has them."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            names = [*required, *(name for name in _LABELS if name in members)]
            return {name: _array(archive, members[name], _NPZ[name]) for name in names}
    # zipfile, its three decompressors and numpy's reader of headers have a dozen classes between them.
    except Exception as error:
        _reject(where, f"cannot be read ({error!r:.200}), expected an npz file with {', '.join(required)}")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, kinds: str) -> np.ndarray:
    """An array of an npz file; what it is and its size are checked before it is unpacked."""
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(member) as stream:
        shape, by_column, dtype = headers[np.lib.format.read_magic(stream)](stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in kinds:
            raise TypeError(f"{member.filename} holds {dtype}, expected {'whole ' * (kinds == 'iu')}numbers")
        if size != member.file_size - stream.tell() or size > _LARGEST_ARRAY:
            raise ValueError(
                f"{member.filename} unpacks to {member.file_size} bytes, expected its header's {size} and at most "
                f"{_LARGEST_ARRAY}"
            )
        return np.frombuffer(stream.read(), dtype).reshape(shape, order="F" if by_column else "C")


# --------------------------------------------------------------------------------------------- GQA


def _index_gqa(source: Path, bar: tqdm) -> _Index:
    """Check the info of every image and the shapes of every chunk; read no features."""
    _check_file(source)
    index = _Index(sha256=sha256_of(source))
    shapes: dict[int, tuple[int, ...]] = {}
    image_in: dict[tuple[int, int], str] = {}
    infos = _gqa_infos(source)
    # In the order of the chunks, which are then read from end to end.
    for image_id in sorted(infos, key=lambda name: (infos[name]["file"], infos[name]["idx"])):
        width, height, count, row, file = (infos[image_id][name] for name in _GQA_INFO)
        where = f"{source}: image {image_id}"
        if file not in shapes:
            shapes[file] = gqa_chunk(_gqa_file(source, file))[0].shape
        rows, most, dim = shapes[file]
        index.feature_dim = index.feature_dim or dim
        if dim != index.feature_dim:
            _reject(where, f"chunk {file} has {dim} features, expected {index.feature_dim} as in the first")
        if row >= rows or count > most:
            _reject(where, f"idx {row} and objectsNum {count}, expected less than {rows} and at most {most}")
        if (file, row) in image_in:
            _reject(where, f"image {image_in[file, row]} is in the same place, expected one each")
        image_in[file, row] = image_id
        index.add(image_id.encode(), (width, height), count, (file, row))
    bar.update(source.stat().st_size)
    return index


def _read_gqa(source: Path, index: _Index, start: int) -> Iterator[Regions]:
    """Read the images from number `start` on, one chunk open at a time."""
    number, path = -1, source
    chunk: tuple[Column, ...] = ()
    for image in range(start, len(index.counts)):
        file, row = index.places[image]
        if file != number:
            number, path = file, _gqa_file(source, file)
            chunk = gqa_chunk(path)
        with _of_source(path):
            features, boxes = [np.array(column[row, : index.counts[image]], np.float32) for column in chunk]
        where = f"{path}: image {index.image_ids[image].decode()}"
        yield Regions(where, index.sizes[image], features, boxes, {})


def _gqa_infos(source: Path) -> dict[str, dict[str, int]]:
    infos = read_json(source)
    if not isinstance(infos, dict) or not infos:
        raise StoreError(f"{source}: expected an object of image id -> {', '.join(_GQA_INFO)}. Check the path.")
    for image_id, info in infos.items():
        where = f"{source}: image {_shown(image_id.encode()) or '(no id)'}"
        check_id(image_id.encode(), where)
        numbers = [info.get(name) if isinstance(info, dict) else None for name in _GQA_INFO]
        least = (1, 1, 1, 0, 0)
        if any(
            type(number) is not int or not low <= number <= _LARGEST_NUMBER
            for number, low in zip(numbers, least, strict=True)
        ):
            _reject(where, f"{info!r:.80}, expected counts {', '.join(_GQA_INFO)}")
    if source.read_bytes().count(b'"objectsNum"') > len(infos):
        json.loads(source.read_bytes(), object_pairs_hook=lambda pairs: _refuse_repeated(source, pairs))
    return infos


def _refuse_repeated(source: Path, pairs: list[tuple[str, Any]]) -> None:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise StoreError(f"{source}: {name} is there twice, expected each name once. Remove one.")
        names.add(name)


def _gqa_file(source: Path, file: int) -> Path:
    return source.with_name(f"gqa_objects_{file}.h5")


def gqa_chunk(path: Path) -> tuple[Column, Column]:
    """The features (n, 100, F) and the boxes (n, 100, 4) of a chunk of GQA's object features, not yet read.

    Raises:
        StoreError: it is missing, damaged, or holds something else.
    """
    with _of_source(path):
        if not path.is_file():
            raise StoreError(f"{path}: no such file")
        features, boxes = map_datasets(path, ("features", "bboxes")).values()
    shape = features.shape
    if (
        len(shape) != 3
        or boxes.shape != (*shape[:2], 4)
        or 0 in shape
        or shape[1] * shape[2] > _LARGEST_ARRAY // 4
    ):
        raise StoreError(
            f"{path}: features {shape} and bboxes {boxes.shape}, expected (n, 100, F) and (n, 100, 4)."
        )
    if features.dtype.kind != "f" or boxes.dtype.kind not in "fiu":
        raise StoreError(f"{path}: features {features.dtype} and bboxes {boxes.dtype}, expected float32 of both.")
    return features, boxes


@contextmanager
def _of_source(path: Path) -> Iterator[None]:
    """Errors about a file that cannot be made again from another one."""
    try:
        yield
    except StoreError as error:
        what = str(error).removeprefix(f"{path}: ").removesuffix(REMAKE).strip(" .")
        raise StoreError(
            f"{path}: cannot be read ({what}), expected features and bboxes. Get it again."
        ) from error
