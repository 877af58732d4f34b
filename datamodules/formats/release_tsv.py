"""The region files of the LXMERT release: lines of ten columns, arrays in base64."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pybase64
from tqdm import tqdm

from datamodules.stores import (
    BOM,
    BOTTOM_UP_ATTENTION,
    LARGEST_NUMBER,
    LONGEST_ID,
    Index,
    Regions,
    StoreError,
    check_file,
    check_id,
    convert_regions,
    reject,
    shown_id,
)

LABEL_COLUMNS = {  # the sources' names -> the store's
    "objects_id": "object_ids",
    "objects_conf": "object_conf",
    "attrs_id": "attribute_ids",
    "attrs_conf": "attribute_conf",
}
_TSV_COLUMNS = (
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
)
_BLOCK = 1 << 22
_LONGEST_LINE = 1 << 27  # bytes


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
    return convert_regions(Path(source), Path(store), detector, progress, _index_tsv, _read_tsv)


def _index_tsv(source: Path, bar: tqdm) -> Index:
    """Check the structure of every line, down to the length of its arrays; decode none."""
    check_file(source)
    index, digest, place = Index(), hashlib.sha256(), 0
    lines_of: dict[bytes, int] = {}
    with source.open("rb", buffering=0) as file:
        for number, line in enumerate(tsv_lines(file, source), 1):
            digest.update(line.content)
            bar.update(len(line.content))
            row = tsv_row(line, source, number, index.feature_dim)
            index.feature_dim = row.feature_dim
            if row.image_id in lines_of:
                reject(row.where, f"line {lines_of[row.image_id]} is of the same image, expected one line each")
            lines_of[row.image_id] = number
            index.add(row.image_id, row.size, row.count, place)
            place += len(line.content)
    if not index.counts:
        raise StoreError(f"{source}: the file is empty. Get it again.")
    index.sha256 = digest.hexdigest()
    return index


def _read_tsv(source: Path, index: Index, start: int) -> Iterator[Regions]:
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


def tsv_line(
    image_id: str,
    width: int,
    height: int,
    objects_id: np.ndarray,
    objects_conf: np.ndarray,
    attrs_id: np.ndarray,
    attrs_conf: np.ndarray,
    boxes: np.ndarray,
    features: np.ndarray,
) -> bytes:
    """A line, CRLF at its end as in the released files; arrays (N,), boxes (N, 4) in pixels, features (N, F)."""
    arrays = {
        "objects_id": objects_id,
        "objects_conf": objects_conf,
        "attrs_id": attrs_id,
        "attrs_conf": attrs_conf,
        "boxes": boxes,
        "features": features,
    }
    numbers = {"img_h": height, "img_w": width, "num_boxes": len(boxes)}
    fields = {"img_id": image_id.encode()} | {name: str(number).encode() for name, number in numbers.items()}
    for name, (dtype, _) in _array_columns(features.shape[1]).items():
        fields[name] = pybase64.b64encode(np.ascontiguousarray(arrays[name], dtype).tobytes())
    return b"\t".join(fields[name] for name in _TSV_COLUMNS) + b"\r\n"


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
        labels = {name: arrays[column][:, 0] for column, name in LABEL_COLUMNS.items()}
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
            reject(
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
    begin = len(BOM) if number == 1 and bytes(content[: len(BOM)]) == BOM else 0
    for _ in _TSV_COLUMNS[1:]:
        tab = line.buffer.find(b"\t", line.begin + begin, line.end) - line.begin
        if tab < 0:
            break
        fields.append(bytes(content[begin:tab]))
        begin = tab + 1
    # Whatever follows the ninth tab is taken for features, and refused for its length if it is not.
    fields.append(content[begin:])
    image_id = bytes(fields[0][: LONGEST_ID + 1])
    where = f"{source}: line {number}, image {shown_id(image_id) or '(no id)'}"
    if len(fields) != len(_TSV_COLUMNS):
        reject(where, f"{len(fields)} columns, expected {len(_TSV_COLUMNS)}; the line may be truncated")
    check_id(fields[0], where)
    return where, dict(zip(_TSV_COLUMNS, fields, strict=True))


def _whole(row: dict[str, Any], column: str, where: str) -> int:
    text = row[column]
    if not text.isdigit() or len(text) > 10 or not 0 < int(text) <= LARGEST_NUMBER:
        reject(where, f"{column} is {text[:20].decode(errors='replace')!r}, expected a whole number above 0")
    return int(text)


def _feature_dim(text: memoryview, count: int, where: str) -> int:
    size = len(text) // 4 * 3 - bytes(text[-2:]).count(b"=")
    if size == 0 or len(text) % 4 or size % (4 * count):
        reject(where, f"features has {len(text)} base64 characters, expected {count} float32 vectors")
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
        reject(where, f"{column} ({error}), expected base64 of {shape[0]} x {shape[1]} {np.dtype(dtype).name}")
