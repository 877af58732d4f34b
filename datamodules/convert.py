"""Released feature files -> region store: the LXMERT release's TSV, folders of npz files, GQA's object features.

A conversion first goes over the source to learn its images and check its structure, then allocates
the whole store, then fills it image by image, noting how far it has come: what it holds in memory is
one image and about 200 bytes for each other. Killed at any moment, it goes on from its last note;
failed, it leaves nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import pybase64
import torch
from tqdm import tqdm

from datamodules.features import BOX_CONVENTION, FORMAT_VERSION, UNKNOWN_LABEL, RegionStore
from datamodules.hdf5 import (
    Source,
    StoreError,
    allocate,
    check_free_space,
    clear_write_errors,
    is_current,
    locked,
    publish,
    sha256_of,
)

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
_LONGEST_LINE = 1 << 27
_IMAGES_PER_NOTE = 128
_LARGEST_FP16 = 65504.0
_BOX_TOLERANCE = 1e-5


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

    Arguments, result and errors are those of `convert_tsv`.
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
        self.image_ids.append(image_id)
        self.sizes.append(size)
        self.counts.append(count)
        self.places.append(place)


@dataclass
class _Regions:
    """One image as its source has it; `where` it stands is for messages."""

    where: str
    size: tuple[int, int]  # width, height
    features: np.ndarray  # (n, F) float32
    boxes: np.ndarray  # (n, 4) float32, pixels
    labels: dict[str, np.ndarray]  # by the store's names; none where the source has none

    def columns(self) -> dict[str, np.ndarray]:
        """The image's part of each column of the store; StoreError where a value is wrong."""
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
        boxes = self.boxes / np.array([width, height, width, height], np.float32)
        in_order = (boxes[:, 2:] >= boxes[:, :2]).all(1)
        # NaN fails every comparison
        if boxes.min() > -_BOX_TOLERANCE and boxes.max() < 1 + _BOX_TOLERANCE and in_order.all():
            return boxes
        inside = ((boxes < 1 + _BOX_TOLERANCE) & (boxes > -_BOX_TOLERANCE)).all(1)
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


def _reject(where: str, what: str) -> NoReturn:
    raise StoreError(f"{where}: {what}. The file is damaged or of another format: get it again or mend this row.")


# -------------------------------------------------------------------------------------- conversion


def _convert(
    source: Path,
    store: Path,
    detector: str,
    progress: bool,
    make_index: Callable[[Path, tqdm], _Index],
    read: Callable[[Path, _Index, int], Iterable[_Regions]],
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


@dataclass
class _Layout:
    """The note beside an unfinished store: what it will be, where its columns begin, what is done."""

    contract: dict[str, Any]
    size: int
    column_offsets: dict[str, int]
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
        **{f"source_{name}": value for name, value in asdict(stamp).items()},
        "num_images": len(index.counts),
        "num_regions": regions,
        "min_regions": min(index.counts),
        "max_regions": max(index.counts),
    }
    if partial.exists() and note.exists():
        noted = json.loads(note.read_text())
        if noted["contract"] == contract and noted["size"] == partial.stat().st_size:
            return _Layout(**noted)
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
    needed = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in columns.values())
    check_free_space(store, needed)
    column_offsets = allocate(partial, arrays, columns, contract)
    layout = _Layout(contract, partial.stat().st_size, column_offsets)
    layout.write(note)
    return layout


def _fill(
    partial: Path, note: Path, layout: _Layout, counts: list[int], images: Iterable[_Regions], bar: tqdm
) -> None:
    """Write the regions of every image not yet done to their places in each column."""
    region = sum(counts[: layout.done])
    noted: Future[None] | None = None
    file = os.open(partial, os.O_WRONLY)
    try:
        # The disk takes its time: the next images are decoded meanwhile.
        with ThreadPoolExecutor(1) as pool:
            for regions in images:
                for name, rows in regions.columns().items():
                    _write_at(file, rows, layout.column_offsets[name] + region * rows[0].nbytes)
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
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


# --------------------------------------------------------------------------------------------- TSV


def _index_tsv(source: Path, bar: tqdm) -> _Index:
    """Check the structure of every line, down to the length of its arrays; decode none."""
    index, digest, place = _Index(), hashlib.sha256(), 0
    lines_of: dict[bytes, int] = {}
    with source.open("rb", buffering=0) as file:
        for number, line in enumerate(_lines(file, source), 1):
            digest.update(line.content)
            bar.update(len(line.content))
            where, row = _split(line, source, number)
            height, width, count = (_whole(row, name, where) for name in ("img_h", "img_w", "num_boxes"))
            if not index.feature_dim:
                index.feature_dim = _feature_dim(row["features"], count, where)
            for column, (dtype, values) in _array_columns(index.feature_dim).items():
                expected = (count * values * np.dtype(dtype).itemsize + 2) // 3 * 4
                if len(row[column]) != expected:
                    _reject(
                        where,
                        f"{column} has {len(row[column])} base64 characters, expected {expected} for {count} "
                        f"boxes and the first line's {index.feature_dim} features",
                    )
            if row["img_id"] in lines_of:
                _reject(where, f"line {lines_of[row['img_id']]} is of the same image, expected one line each")
            lines_of[row["img_id"]] = number
            index.add(row["img_id"], (width, height), count, place)
            place += len(line.content)
    if not index.counts:
        raise StoreError(f"{source}: the file is empty. Get it again.")
    index.sha256 = digest.hexdigest()
    return index


def _read_tsv(source: Path, index: _Index, start: int) -> Iterator[_Regions]:
    """Decode the images from number `start` on."""
    columns = _array_columns(index.feature_dim)
    with source.open("rb", buffering=0) as file:
        if start < len(index.places):
            file.seek(index.places[start])
        numbers = range(start, len(index.counts))
        for number, line in zip(numbers, _lines(file, source), strict=False):
            where, row = _split(line, source, number + 1)
            count = index.counts[number]
            arrays = {
                column: _decode(row, column, dtype, (count, values), where)
                for column, (dtype, values) in columns.items()
            }
            labels = {name: arrays[column][:, 0] for column, name in _LABELS.items()}
            yield _Regions(where, index.sizes[number], arrays["features"], arrays["boxes"], labels)


@dataclass
class _Line:
    """A line, its end included, in a buffer that the next line may overwrite."""

    buffer: bytearray
    begin: int
    end: int

    @property
    def content(self) -> memoryview:
        return memoryview(self.buffer)[self.begin : self.end]


def _lines(file: FileIO, source: Path) -> Iterator[_Line]:
    """The lines of an unbuffered file. Python's own, and splitting them, would cost more than the decoding."""
    buffer = bytearray(_BLOCK)
    begin = end = 0
    while True:
        after = buffer.find(b"\n", begin, end) + 1
        if after:
            yield _Line(buffer, begin, after)
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
                yield _Line(buffer, 0, end)
            return
        end += read


def _split(line: _Line, source: Path, number: int) -> tuple[str, dict[str, Any]]:
    """Where a row stands, for messages, and its ten columns by name: bytes, the features without a copy."""
    content = line.content
    while len(content) and content[-1] in b"\r\n":
        content = content[:-1]
    fields: list[Any] = []
    begin = 0
    for _ in _TSV_COLUMNS[1:]:
        tab = line.buffer.find(b"\t", line.begin + begin, line.end) - line.begin
        if tab < 0:
            break
        fields.append(bytes(content[begin:tab]))
        begin = tab + 1
    # Whatever follows the ninth tab is taken for features, and refused for its length if it is not.
    fields.append(content[begin:])
    image_id = bytes(fields[0][:80])
    where = f"{source}: line {number}, image {image_id.decode(errors='replace') or '(no id)'}"
    if len(fields) != len(_TSV_COLUMNS):
        _reject(where, f"{len(fields)} columns, expected {len(_TSV_COLUMNS)}; the line may be truncated")
    if not image_id:
        _reject(where, "img_id is empty, expected the image's id")
    return where, dict(zip(_TSV_COLUMNS, fields, strict=True))


def _whole(row: dict[str, Any], column: str, where: str) -> int:
    text = row[column]
    if not text.isdigit() or int(text) == 0:
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


def _index_npz(source: Path, bar: tqdm) -> _Index:
    """Read the ids, sizes and counts of every file, and the feature size of the first."""
    index = _Index()
    files_of: dict[str, str] = {}
    for path in sorted(source.glob("*.npz")):
        image_id = path.name.removesuffix(".npz").removesuffix(".jpg").removesuffix(".png")
        where = f"{path}: image {image_id}"
        names = ("bbox", "num_bbox", "image_w", "image_h", *(() if index.counts else ("x",)))
        content = _load(path, where, *names)
        _check_shapes(content, where, num_bbox=(), image_w=(), image_h=())
        count, width, height = (int(content[name]) for name in ("num_bbox", "image_w", "image_h"))
        if min(count, width, height) < 1:
            _reject(where, f"{count} boxes on {width} x {height} pixels, expected 1 or more of each")
        _check_shapes(content, where, bbox=(count, 4))
        if not index.counts:
            index.feature_dim = len(np.atleast_1d(content["x"]))
        if image_id in files_of:
            _reject(where, f"{files_of[image_id]} is of the same image, expected one file each")
        files_of[image_id] = path.name
        index.add(image_id.encode(), (width, height), count, path)
        bar.update(path.stat().st_size)
    if not index.counts:
        raise StoreError(f"{source}: no .npz files in this folder. Check the path.")
    index.sha256 = sha256_of(source)
    return index


def _read_npz(source: Path, index: _Index, start: int) -> Iterator[_Regions]:
    """Read the images from number `start` on."""
    for number in range(start, len(index.counts)):
        path, count = index.places[number], index.counts[number]
        where = f"{path}: image {index.image_ids[number].decode()}"
        content = _load(path, where, "x", "bbox")
        labels = {name: content[column] for column, name in _LABELS.items() if column in content}
        _check_shapes(content, where, x=(index.feature_dim, count), bbox=(count, 4))
        _check_shapes(labels, where, **dict.fromkeys(labels, (count,)))
        features = np.ascontiguousarray(content["x"].T, np.float32)
        yield _Regions(where, index.sizes[number], features, content["bbox"].astype(np.float32), labels)


def _check_shapes(content: dict[str, np.ndarray], where: str, **expected: tuple[int, ...]) -> None:
    for name, shape in expected.items():
        if content[name].shape != shape:
            _reject(where, f"{name} is of shape {content[name].shape}, expected {shape}")


def _load(path: Path, where: str, *required: str) -> dict[str, np.ndarray]:
    """The required arrays of an npz file, and its labels where it has them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = [*required, *(name for name in _LABELS if name in file)]
            return {name: file[name] for name in names}
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        _reject(where, f"cannot be read ({error}), expected an npz file with {', '.join(required)}")


# --------------------------------------------------------------------------------------------- GQA


def _index_gqa(source: Path, bar: tqdm) -> _Index:
    """Check the info of every image and the shapes of every chunk; read no features."""
    index = _Index(sha256=sha256_of(source))
    shapes: dict[int, tuple[int, int, int]] = {}
    image_in: dict[tuple[int, int], str] = {}
    infos = _gqa_infos(source)
    # In the order of the chunks, which are then read from end to end.
    for image_id in sorted(infos, key=lambda name: (infos[name]["file"], infos[name]["idx"])):
        width, height, count, row, file = (infos[image_id][name] for name in _GQA_INFO)
        where = f"{source}: image {image_id}"
        if file not in shapes:
            shapes[file] = _gqa_shape(_gqa_chunk(source, file))
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


def _read_gqa(source: Path, index: _Index, start: int) -> Iterator[_Regions]:
    """Read the images from number `start` on, one chunk open at a time."""
    number, chunk = -1, None
    try:
        for image in range(start, len(index.counts)):
            file, row = index.places[image]
            if chunk is None or file != number:
                if chunk is not None:
                    chunk.close()
                number, chunk = file, h5py.File(_gqa_chunk(source, file), "r", locking="best-effort")
            where = f"{chunk.filename}: image {index.image_ids[image].decode()}"
            try:
                features, boxes = (
                    chunk[name][row, : index.counts[image]].astype(np.float32) for name in ("features", "bboxes")
                )
            except OSError as error:
                _reject(where, f"cannot be read ({error}), expected a whole HDF5 file")
            yield _Regions(where, index.sizes[image], features, boxes, {})
    finally:
        if chunk is not None:
            chunk.close()


def _gqa_infos(source: Path) -> dict[str, dict[str, int]]:
    try:
        infos = json.loads(source.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8 or not JSON
        raise StoreError(f"{source}: not JSON ({error}). Get the file again.") from error
    if not isinstance(infos, dict) or not infos:
        raise StoreError(f"{source}: expected an object of image id -> {', '.join(_GQA_INFO)}. Check the path.")
    for image_id, info in infos.items():
        numbers = [info.get(name) if isinstance(info, dict) else None for name in _GQA_INFO]
        least = (1, 1, 1, 0, 0)
        if any(type(number) is not int or number < low for number, low in zip(numbers, least, strict=True)):
            _reject(f"{source}: image {image_id}", f"{info!r:.80}, expected counts {', '.join(_GQA_INFO)}")
    return infos


def _gqa_chunk(source: Path, file: int) -> Path:
    return source.with_name(f"gqa_objects_{file}.h5")


def _gqa_shape(path: Path) -> tuple[int, int, int]:
    """The images, boxes an image and features of a chunk."""
    try:
        with h5py.File(path, "r", locking="best-effort") as chunk:
            features, boxes = chunk["features"].shape, chunk["bboxes"].shape
    except (OSError, KeyError) as error:
        raise StoreError(
            f"{path}: cannot be read ({error}), expected features and bboxes. Get it again."
        ) from error
    if len(features) != 3 or boxes != (*features[:2], 4) or 0 in features:
        raise StoreError(f"{path}: features {features} and bboxes {boxes}, expected (n, 100, F) and (n, 100, 4).")
    return features
