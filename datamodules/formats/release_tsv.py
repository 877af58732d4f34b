"""The region files of the LXMERT release: lines of ten columns, arrays in base64."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pybase64
from tqdm import tqdm

from datamodules.formats.tsv_layouts import LAYOUTS, RELEASE, TsvLayout, tsv_layout
from datamodules.stores import (
    BOM,
    BOTTOM_UP_ATTENTION,
    LARGEST_NUMBER,
    LONGEST_ID,
    Handling,
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
_BLOCK = 1 << 22
_LONGEST_LINE = 1 << 27  # bytes


def convert_tsv(
    source: Path,
    store: Path,
    *,
    detector: str = BOTTOM_UP_ATTENTION,
    progress: bool = True,
    layout: TsvLayout = LAYOUTS[0],
    handling: Handling = Handling(),  # noqa: B008  # frozen
) -> Path:
    """Convert one TSV of the original LXMERT release, or of another layout, to a region store.

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
        layout: which columns there are (`tsv_layout`).
        handling: what is done about images that are not as they should be.

    Returns:
        `store`.

    Raises:
        StoreError: a bad row (naming file, line and image), a full disk, no permission.
    """
    index, read = partial(index_tsv, layout=layout), partial(read_tsv, layout=layout)
    source, store = Path(source), Path(store)
    return convert_regions(
        source, store, detector, progress, index, read, handling, reading=lambda _: layout.said()
    )


def index_tsv(source: Path, bar: tqdm, index: Index, layout: TsvLayout = LAYOUTS[0]) -> None:
    """Check the structure of every line, down to the length of its arrays; decode none."""
    check_file(source)
    _refuse_other_layouts(source, layout)
    digest, place, is_header = hashlib.sha256(), 0, layout.header
    lines_of: dict[bytes, int] = {}
    with source.open("rb", buffering=0) as file:
        for number, line in enumerate(tsv_lines(file, source), 1):
            digest.update(line.content)
            bar.update(len(line.content))
            if line.is_blank:
                pass
            elif is_header:
                is_header = False
            else:
                with index.attempt():
                    row = tsv_row(line, source, number, index.feature_dim, layout.columns)
                    if row.image_id in lines_of:
                        first = f"line {lines_of[row.image_id]} is of the same image, expected one line each"
                        reject(row.where, first, "images that are there twice")
                    index.feature_dim = row.feature_dim
                    lines_of[row.image_id] = number
                    index.add(row.image_id, row.size, row.count, (place, number))
            place += len(line.content)
    if not index.counts and not index.skipped:
        raise StoreError(f"{source}: the file is empty, expected a line for each image. Check the path.")
    index.sha256 = digest.hexdigest()


def _refuse_other_layouts(source: Path, layout: TsvLayout) -> None:
    """Say what a TSV is that has another project's columns, where the release's are expected."""
    try:
        found = tsv_layout(source)
    except StoreError:
        return  # none that is known: its lines are refused one by one
    if layout == LAYOUTS[0] and found in LAYOUTS[1:]:
        raise StoreError(
            f"{source}: {found.name}, expected {layout.name}. Convert it with `python -m datamodules.convert "
            "SOURCE STORE --detector NAME`."
        )


def read_tsv(
    source: Path, index: Index, start: int, layout: TsvLayout = LAYOUTS[0]
) -> Generator[Regions, None, None]:
    """Decode the images from number `start` on."""
    for image, number, line in indexed_lines(source, index, start):
        row = tsv_row(line, source, number, index.feature_dim, layout.columns)
        if (row.image_id, row.count) != (index.image_ids[image], index.counts[image]):
            raise StoreError(f"{source}: changed while it was converted. Run the conversion again.")
        yield row.regions()


def indexed_lines(source: Path, index: Index, start: int) -> Iterator[tuple[int, int, Line]]:
    """From image `start` on: the image, its line's number, the line.

    The index has as places where lines begin and their numbers; the lines of other images are passed over.
    """
    if start >= len(index.places):
        return
    place, image = index.places[start][0], start
    with source.open("rb", buffering=0) as file:
        file.seek(place)
        for line in tsv_lines(file, source):
            begin, number = index.places[image]
            if place == begin:
                yield image, number, line
                image += 1
            if image == len(index.places):
                return
            place += len(line.content)
    raise StoreError(f"{source}: changed while it was converted. Run the conversion again.")


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
    return b"\t".join(fields[name] for name in RELEASE) + b"\r\n"


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

    @property
    def is_blank(self) -> bool:
        """Whether it is but an end, which Python's csv passes over."""
        return self.end - self.begin <= 2 and not bytes(self.content).strip(b"\r\n")


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
            if column in self.fields
        }
        labels = {name: arrays[column][:, 0] for column, name in LABEL_COLUMNS.items() if column in arrays}
        return Regions(self.where, self.size, arrays["features"], arrays["boxes"], labels)


def tsv_row(line: Line, source: Path, number: int, feature_dim: int, columns: Sequence[str] = RELEASE) -> TsvRow:
    """Check the structure of a line, down to the length of its arrays.

    Args:
        line: the line, whose buffer the row's fields share.
        source: the file, for messages.
        number: of the line, from 1.
        feature_dim: F of the lines before; 0 takes this one's.
        columns: their names (`TsvLayout`).

    Raises:
        StoreError: a column that is absent, no number, or of another length.
    """
    where, fields = _split(line, source, number, columns)
    height, width, count = (_whole(fields, name, where) for name in ("img_h", "img_w", "num_boxes"))
    feature_dim = feature_dim or _feature_dim(fields["features"], count, where)
    for column, (dtype, values) in _array_columns(feature_dim).items():
        if column not in fields:
            continue
        expected = (count * values * np.dtype(dtype).itemsize + 2) // 3 * 4
        if len(fields[column]) != expected:
            reject(
                where,
                f"{column} has {len(fields[column])} base64 characters, expected {expected} for {count} boxes and "
                f"the first line's {feature_dim} features",
            )
    return TsvRow(where, fields["img_id"], (width, height), count, feature_dim, fields)


def _split(line: Line, source: Path, number: int, columns: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Where a row stands, for messages, and its columns by name: bytes, the last without a copy."""
    content = line.content
    while len(content) and content[-1] in b"\r\n":
        content = content[:-1]
    fields: list[Any] = []
    begin = len(BOM) if number == 1 and bytes(content[: len(BOM)]) == BOM else 0
    for _ in columns[1:]:
        tab = line.buffer.find(b"\t", line.begin + begin, line.end) - line.begin
        if tab < 0:
            break
        fields.append(bytes(content[begin:tab]))
        begin = tab + 1
    # Whatever follows the last tab is taken for the last column: features are refused for their length then.
    fields.append(content[begin:])
    place = min(columns.index("img_id"), len(fields) - 1)
    where = f"{source}: line {number}, image {shown_id(bytes(fields[place][: LONGEST_ID + 1])) or '(no id)'}"
    if len(fields) != len(columns):
        reject(where, f"{len(fields)} columns, expected {len(columns)}; the line may be truncated")
    found = dict(zip(columns, fields, strict=True))
    found["img_id"] = bytes(found["img_id"])
    check_id(found["img_id"], where)
    return where, found


def _whole(row: dict[str, Any], column: str, where: str) -> int:
    text = bytes(row[column])
    if not text.isdigit() or len(text) > 10 or not 0 < int(text) <= LARGEST_NUMBER:
        reject(where, f"{column} is {text[:20].decode(errors='replace')!r}, expected a whole number above 0")
    return int(text)


def _feature_dim(text: memoryview | bytes, count: int, where: str) -> int:
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
