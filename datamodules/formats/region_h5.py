"""Region features in HDF5: arrays of all images, as bottom-up-attention-vqa's, or a group an image, as VOLTA's.

| datasets | of |
|---|---|
| image_features, image_bb, spatial_features | bottom-up-attention-vqa, 36 boxes: (N, n, ...) |
| the same and pos_boxes | its 10 to 100 boxes: rows of all images, and where each image's begin and end |
| features, boxes, image_w, image_h, num_boxes if some are padding | (N, n, ...), (N,) |
| ID/features, ID/boxes, ID/img_w, ID/img_h, ID/obj_id ... | VOLTA |

The ids are in image_id, image_ids or ids, or in a file: a pickled or JSON object of id -> row.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from datamodules.formats.pickles import safe_loads
from datamodules.stores import (
    LARGEST_ARRAY,
    LARGEST_NUMBER,
    REMAKE,
    Column,
    Handling,
    ImageError,
    Index,
    Regions,
    StoreError,
    check_id,
    convert_regions,
    map_datasets,
    open_store,
    read_texts,
    reject,
    sha256_of,
    shown_id,
)
from lxmert.files import InputError, read_json

_FEATURES, _BOXES = ("image_features", "features"), ("image_bb", "boxes", "bboxes", "bbox")
_IDS = ("image_ids", "image_id", "ids")
_GROUP = ("features", "boxes", "img_w", "img_h")
_GROUP_LABELS = {
    "obj_id": "object_ids",
    "obj_conf": "object_conf",
    "attr_id": "attribute_ids",
    "attr_conf": "attribute_conf",
}
_LARGEST_IDS = 1 << 28  # bytes


@dataclass
class H5Reader:
    """Reads such a file.

    Args:
        ids: the file of ids; none takes those in the file, or `<name>_imgid2idx.pkl` beside it.
    """

    ids: Path | None = None
    columns: dict[str, Column] = field(default_factory=dict)

    def index(self, source: Path, bar: tqdm, index: Index) -> None:
        """Find the places of all images' regions; read no features."""
        with _of_source(source):
            names = h5_names(source)
            if is_grouped(source, names):
                self._index_groups(source, names, bar, index)
            else:
                self._index_rows(source, names, bar, index)
        index.sha256 = sha256_of(source)

    def read(self, source: Path, index: Index, start: int) -> Generator[Regions, None, None]:
        """Read the images from number `start` on."""
        for number in range(start, len(index.counts)):
            place, count = index.places[number], index.counts[number]
            where = _place(source, index.image_ids[number])
            if isinstance(place, str):
                yield _group(source, place, where, index, number)
                continue
            with _of_source(source):
                features, boxes = (_rows(self.columns[name], place, count) for name in ("features", "boxes"))
            fractions = "fractions" in self.columns
            yield Regions(where, index.sizes[number], features, boxes[:, :4], {}, fractions)

    def reading(self, source: Path) -> dict[str, str]:
        """The hash of the file of ids that is used, as of `convert_regions`."""
        if self.ids is not None:
            return {"ids_sha256": sha256_of(self.ids)} if self.ids.is_file() else {}
        with _of_source(source):
            names = h5_names(source)
        if has_rows(names) and not names & set(_IDS) and _beside(source).is_file():
            return {"ids_beside_sha256": sha256_of(_beside(source))}
        return {}

    def _index_rows(self, source: Path, names: set[str], bar: tqdm, index: Index) -> None:
        columns = self.columns = _columns(source, names)
        features = columns["features"]
        spans = _spans(source, columns)
        index.feature_dim = features.shape[-1]
        ids = self._ids(source, names, len(spans))
        for row, (image_id, (place, count)) in enumerate(zip(ids, spans, strict=True)):
            bar.update(source.stat().st_size // len(spans))
            if image_id is None:  # room that no image has taken
                continue
            where = _place(source, image_id)
            with index.attempt():
                check_id(image_id, where)
                end = place if isinstance(place, tuple) else place + count
                if count < 1 or (not isinstance(end, tuple) and not 0 <= place < end <= len(features)):
                    reject(where, f"rows {place} to {end} of {len(features)}, expected 1 or more among them")
                size = _size(columns, row, place, count, where)
                index.add(image_id, size, count, place)

    def _ids(self, source: Path, names: set[str], count: int) -> list[bytes | None]:
        """The id of each row; None where it has none."""
        inside = next((name for name in _IDS if name in names), None)
        beside = self.ids or _beside(source)
        if self.ids is None and inside:
            texts = read_texts(source, inside)
            column = np.array(texts) if texts else np.asarray(map_datasets(source, [inside])[inside])
            if column.ndim != 1 or len(column) != count or column.dtype.kind not in "iuS":
                raise StoreError(f"{source}: {inside} is {column.dtype} {column.shape}, expected {count} ids.")
            rows = dict(enumerate(column.tolist()))
        elif beside.is_file():
            rows = _rows_of_ids(beside)
        else:
            raise StoreError(
                f"{source}: the rows of its images' regions, without the images' ids. Give the file that has "
                f"them, such as {beside.name}, with --ids FILE: a pickle or JSON of id -> row."
            )
        ids: list[bytes | None] = [None] * count
        seen: set[bytes] = set()
        for row, name in rows.items():
            image_id = name if isinstance(name, bytes) else str(name).encode(errors="surrogatepass")
            if not 0 <= row < count or image_id in seen:
                raise StoreError(
                    f"{beside if not inside else source}: image {shown_id(image_id)} twice, or in row {row} of "
                    f"{count}. The ids are of another file: check --ids."
                )
            seen.add(image_id)
            ids[row] = image_id
        return ids

    def _index_groups(self, source: Path, names: set[str], bar: tqdm, index: Index) -> None:
        for name in sorted(names):
            bar.update(source.stat().st_size // len(names))
            where = _place(source, name.encode(errors="surrogatepass"))
            with index.attempt():
                check_id(name.encode(errors="surrogatepass"), where)
                columns = _group_columns(source, name, where)
                shape = columns["features"].shape
                if len(shape) != 2 or 0 in shape:
                    reject(where, f"features are of shape {shape}, expected (n, F)")
                if index.feature_dim and shape[1] != index.feature_dim:
                    reject(where, f"{shape[1]} features, expected {index.feature_dim} as in the first image")
                size = (_number(columns["img_w"], where), _number(columns["img_h"], where))
                index.feature_dim = shape[1]
                index.add(name.encode(), size, shape[0], name)


def convert_h5(
    source: Path,
    store: Path,
    *,
    detector: str,
    progress: bool = True,
    ids: Path | None = None,
    handling: Handling = Handling(),  # noqa: B008  # frozen
) -> Path:
    """Convert an HDF5 file of region features to a region store.

    Args:
        source: the file; `spatial_features` are fractions, other boxes pixels.
        store: as of `convert_tsv`.
        detector: what made the features.
        progress: show progress bars.
        ids: the file of the images' ids, where they are not in the source or beside it.
        handling: what is done about images that are not as they should be.

    Returns and raises as `convert_tsv`.
    """
    reader = H5Reader(ids)
    source, store, index, read = Path(source), Path(store), reader.index, reader.read
    return convert_regions(source, store, detector, progress, index, read, handling, reading=reader.reading)


def _beside(source: Path) -> Path:
    """The file of ids that bottom-up-attention-vqa writes beside its features."""
    return source.with_name(f"{source.stem}_imgid2idx.pkl")


def h5_names(path: Path) -> set[str]:
    """What lies at the top of an HDF5 file.

    Raises:
        StoreError: it cannot be read, or a name is no text.
    """
    with open_store(path) as file:
        names = set(file)
    if strange := [name for name in names if not isinstance(name, str)]:  # h5py's way with what is no UTF-8
        raise StoreError(f"{path}: {strange[0]!r} is no name in UTF-8. Check that the file is whole.")
    return names


def is_grouped(path: Path, names: set[str]) -> bool:
    """Whether a file has a group for each image, with features and boxes, judging by one of them."""
    with open_store(path) as file:
        first: Any = file[min(names)] if names else None
        return hasattr(first, "keys") and {"features", "boxes"} <= set(first)


def has_rows(names: set[str]) -> bool:
    """Whether a file has features and boxes of all images in one dataset each."""
    return any(name in names for name in _FEATURES) and any(name in names for name in _BOXES)


def _columns(source: Path, names: set[str]) -> dict[str, Column]:
    """The datasets by what they are: features, boxes (which are fractions or in pixels), sizes, spans."""
    wanted = {
        "features": next(name for name in _FEATURES if name in names),
        "boxes": next(name for name in _BOXES if name in names),
    }
    if "spatial_features" in names:
        wanted |= {"pixels": wanted["boxes"], "boxes": "spatial_features", "fractions": "spatial_features"}
    elif {"image_w", "image_h"} <= names:
        wanted |= {"image_w": "image_w", "image_h": "image_h"}
    else:
        raise StoreError(
            f"{source}: boxes in pixels ({wanted['boxes']}) without the images' sizes, from which no fractions "
            "can be made. Add the datasets image_w and image_h, a number for each image, or spatial_features."
        )
    wanted |= {name: name for name in ("pos_boxes", "num_boxes") if name in names}
    found = map_datasets(source, set(wanted.values()))
    columns = {what: found[name] for what, name in wanted.items()}
    features = columns["features"]
    axes = 2 if "pos_boxes" in columns else 3
    for what in ("boxes", "pixels") if "pixels" in columns else ("boxes",):
        boxes = columns[what]
        if len(features.shape) != axes or features.shape[:-1] != boxes.shape[:-1] or boxes.shape[-1] < 4:
            raise StoreError(
                f"{source}: {wanted['features']} {features.shape} and {wanted[what]} {boxes.shape}, expected "
                f"{'(N, n, F) and (N, n, 4)' if axes == 3 else '(T, F) and (T, 4), as there is pos_boxes'}."
            )
    images = columns.get("pos_boxes", features).shape[:1]
    for name in {"image_w", "image_h"} & columns.keys():
        if columns[name].shape != images:
            raise StoreError(
                f"{source}: {name} {columns[name].shape}, expected a number for each image, {images}."
            )
    if 0 in features.shape or features.shape[-1] * (features.shape[1] if axes == 3 else 1) > LARGEST_ARRAY // 4:
        raise StoreError(f"{source}: {wanted['features']} {features.shape}, expected some regions of an image.")
    if any(column.dtype.kind not in "fiu" for column in columns.values()) or features.dtype.kind != "f":
        raise StoreError(f"{source}: {wanted['features']} are {features.dtype}, expected floating-point numbers.")
    return columns


def _spans(source: Path, columns: dict[str, Column]) -> list[tuple[Any, int]]:
    """Of each image where its regions are, a row of all regions or (image,), and how many."""
    features = columns["features"]
    if "pos_boxes" in columns:
        spans = np.asarray(columns["pos_boxes"])
        if spans.ndim != 2 or spans.shape[1] != 2 or spans.dtype.kind not in "iu":
            raise StoreError(f"{source}: pos_boxes {spans.dtype} {spans.shape}, expected (N, 2), begin and end.")
        return [(int(begin), int(end) - int(begin)) for begin, end in spans]
    counts = np.asarray(columns.get("num_boxes", np.full(len(features), features.shape[1])))
    if counts.shape != (len(features),) or (counts % 1 != 0).any() or counts.max() > features.shape[1]:
        most = features.shape[1]
        raise StoreError(
            f"{source}: num_boxes {counts.dtype} {counts.shape}, expected {len(features)} whole numbers of {most} "
            "or less."
        )
    return [((row,), int(count)) for row, count in enumerate(counts)]


def _size(columns: dict[str, Column], row: int, place: Any, count: int, where: str) -> tuple[int, int]:
    """Width and height of an image; of pixels and fractions of the same boxes from their quotient."""
    if "image_w" in columns:
        sizes = [columns[name][row] for name in ("image_w", "image_h")]
        if any(not 1 <= size <= LARGEST_NUMBER for size in sizes):
            reject(where, f"image_w and image_h are {sizes}, expected 1 or more")
        return int(sizes[0]), int(sizes[1])
    fractions, pixels = (_rows(columns[name], place, count)[:, 2:4].max(0) for name in ("boxes", "pixels"))
    with np.errstate(all="ignore"):
        sizes = (pixels / fractions).round()
    if not (np.isfinite(sizes) & (sizes >= 1) & (sizes <= LARGEST_NUMBER)).all():
        reject(where, f"boxes up to {pixels.tolist()} pixels, {fractions.tolist()} of its sides: no size fits")
    return int(sizes[0]), int(sizes[1])


def _rows(column: Column, place: Any, count: int) -> np.ndarray:
    rows = column[place[0], :count] if isinstance(place, tuple) else column[place : place + count]
    return np.array(rows, np.float32, order="C")


def _group_columns(source: Path, name: str, where: str, *, labels: bool = False) -> dict[str, Column]:
    names = [f"{name}/{part}" for part in _GROUP]
    with open_store(source) as file:
        inside = set(file[name]) if hasattr(file[name], "keys") else set()
    if missing := [part for part in _GROUP if part not in inside]:
        reject(where, f"a group of {', '.join(sorted(map(str, inside)))[:200]}, without {', '.join(missing)}")
    names += [f"{name}/{part}" for part in _GROUP_LABELS if labels and part in inside]
    try:
        return {key.rpartition("/")[2]: column for key, column in map_datasets(source, names).items()}
    except StoreError as error:
        reject(where, str(error).removeprefix(f"{source}: ").removesuffix(REMAKE).strip(" ."))


def _group(source: Path, name: str, where: str, index: Index, number: int) -> Regions:
    found = _group_columns(source, name, where, labels=True)
    columns = {part: np.asarray(column) for part, column in found.items()}
    count = index.counts[number]
    features, boxes = columns["features"], columns["boxes"]
    if features.shape != (count, index.feature_dim) or boxes.shape != (count, 4):
        reject(where, f"features {features.shape} and boxes {boxes.shape}, expected ({count}, F) and ({count}, 4)")
    if features.dtype.kind != "f" or boxes.dtype.kind not in "fiu":
        reject(where, f"features {features.dtype} and boxes {boxes.dtype}, expected floating-point numbers")
    labels = {label: columns[part] for part, label in _GROUP_LABELS.items() if part in columns}
    for label, values in labels.items():
        if values.shape != (count,) or values.dtype.kind not in ("iu" if label.endswith("ids") else "fiu"):
            reject(where, f"{label} are {values.dtype} {values.shape}, expected a number for each region")
    features, boxes = (np.array(each, np.float32, order="C") for each in (features, boxes))
    return Regions(where, index.sizes[number], features, boxes, labels)


def _number(column: Column, where: str) -> int:
    value = np.asarray(column)
    if value.size != 1 or value.dtype.kind not in "iu" or not 1 <= value.item() <= LARGEST_NUMBER:
        reject(where, f"a side is {value.tolist()!r:.60}, expected a whole number above 0")
    return int(value.item())


def _rows_of_ids(path: Path) -> dict[int, Any]:
    """Row -> id, of a pickle or JSON of id -> row."""
    try:
        found = read_json(path) if path.suffix == ".json" else safe_loads(path.read_bytes()[:_LARGEST_IDS])
    except (InputError, json.JSONDecodeError, pickle.UnpicklingError) as error:
        raise StoreError(f"{path}: cannot be read ({error}), expected a pickle or JSON of id -> row.") from error
    if not isinstance(found, dict) or not all(type(row) is int for row in found.values()):
        raise StoreError(f"{path}: expected id -> row, as bottom-up-attention-vqa writes. Check --ids.")
    rows = {row: name for name, row in found.items()}
    if len(rows) != len(found):
        raise StoreError(f"{path}: two ids of one row, expected one each. Check --ids.")
    return rows


@contextmanager
def _of_source(path: Path) -> Iterator[None]:
    """Errors about a file that is no store, and cannot be made again from another one."""
    try:
        yield
    except ImageError:
        raise
    except StoreError as error:
        if not str(error).endswith(REMAKE):
            raise
        what = str(error).removeprefix(f"{path}: ").removesuffix(REMAKE).strip(" .")
        raise StoreError(f"{path}: cannot be read ({what}). Check that the file is whole.") from error


def _place(path: Path, image_id: bytes) -> str:
    return f"{path}: image {shown_id(image_id)}"
