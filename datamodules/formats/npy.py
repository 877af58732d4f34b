"""Folders of `<image id>.npy` files, one an image: grids of features, or MMF's regions with `_info.npy` beside.

A grid (H, W, F), of a convolutional network or of the patches of a transformer, becomes H x W regions in reading
order, each with its cell as its box.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from tqdm import tqdm

from datamodules.formats.arrays import Header, checked_header, image_id_of, read_array
from datamodules.stores import (
    LARGEST_NUMBER,
    Handling,
    Index,
    Regions,
    StoreError,
    check_file,
    check_id,
    convert_regions,
    reject,
    sha256_of,
    shown_id,
)

INFO = "_info.npy"
_MOST_CELLS = 1 << 14


def convert_npy(
    folder: Path,
    store: Path,
    *,
    detector: str,
    progress: bool = True,
    handling: Handling = Handling(),  # noqa: B008  # frozen
) -> Path:
    """Convert a folder of `<image id>.npy` files to a region store.

    Each is a grid (H, W, F) of an image; or (n, F) with `<image id>_info.npy` beside it, a dict that has bbox
    (n, 4) in pixels x1 y1 x2 y2, image_width and image_height. Sizes of grids' images are unknown: 1 x 1 in the
    store.

    Arguments, result and errors are those of `convert_npz`.
    """
    return convert_regions(Path(folder), Path(store), detector, progress, index_npy, read_npy, handling)


def index_npy(source: Path, bar: tqdm, index: Index) -> None:
    """Read the shape of every array, and the info of MMF's."""
    files_of: dict[str, str] = {}
    for path in sorted(source.glob("*.npy")):
        if path.name.endswith(INFO) and path.with_name(f"{path.name.removesuffix(INFO)}.npy").exists():
            continue
        image_id = image_id_of(path.name, ".npy")
        where = _place(path, os.fsencode(image_id))
        with index.attempt():
            check_id(os.fsencode(image_id), where)
            check_file(path)
            shape = _header(path, where).shape
            if image_id in files_of:
                reject(where, f"{files_of[image_id]} is of the same image, expected one file each")
            size, count = _size_and_count(path, shape, where)
            if index.feature_dim and shape[-1] != index.feature_dim:
                reject(where, f"{shape[-1]} features, expected {index.feature_dim} as in the first file")
            files_of[image_id] = path.name
            index.feature_dim = shape[-1]
            index.add(image_id.encode(), size, count, path)
        bar.update(path.stat().st_size)
    if not index.counts and not index.skipped:
        raise StoreError(f"{source}: no .npy files in this folder. Check the path.")
    index.sha256 = sha256_of(source)


def read_npy(source: Path, index: Index, start: int) -> Generator[Regions, None, None]:
    """Read the images from number `start` on."""
    for number in range(start, len(index.counts)):
        path, count = index.places[number], index.counts[number]
        where = _place(path, index.image_ids[number])
        array = _read(path, where, "f")
        if array.ndim == 3:
            boxes = cells(*array.shape[:2])
            features = array.reshape(count, -1)
        else:
            boxes, features = _info(path, where)["bbox"], array
            if boxes.shape != (count, 4):
                reject(where, f"bbox is of shape {boxes.shape}, expected ({count}, 4) as there are features")
        if features.shape != (count, index.feature_dim):
            raise StoreError(f"{source}: changed while it was converted. Run the conversion again.")
        features, boxes = (np.array(each, np.float32, order="C") for each in (features, boxes))
        yield Regions(where, index.sizes[number], features, boxes, fractions=array.ndim == 3)


def cells(height: int, width: int) -> np.ndarray:
    """The boxes (height * width, 4), x1 y1 x2 y2 in fractions, of a grid's cells in reading order."""
    y, x = np.divmod(np.arange(height * width), width)
    return np.stack([x / width, y / height, (x + 1) / width, (y + 1) / height], 1).astype(np.float32)


def _size_and_count(path: Path, shape: tuple[int, ...], where: str) -> tuple[tuple[int, int], int]:
    if 0 in shape or len(shape) not in (2, 3):
        reject(where, f"an array of shape {shape}, expected a grid (H, W, F), or (n, F) with {INFO}")
    if len(shape) == 3:
        if shape[0] * shape[1] > _MOST_CELLS:
            reject(where, f"a grid of {shape[0]} x {shape[1]} cells, expected (H, W, F): perhaps it is (F, H, W)")
        return (1, 1), shape[0] * shape[1]
    info = _info(path, where)
    return (info["image_width"], info["image_height"]), shape[0]


def _info(path: Path, where: str) -> dict[str, Any]:
    """What MMF notes beside the features of an image."""
    beside = path.with_name(path.name.removesuffix(".npy") + INFO)
    if not beside.is_file():
        reject(
            where,
            f"(n, F) features without boxes, and no {beside.name} beside: regions without boxes are of no use to "
            "LXMERT. Write a grid as (H, W, F), or regions as npz files with x, bbox, image_w, image_h",
        )
    found = _read(beside, where, "O")
    info = found.item() if found.shape == () else None
    if not isinstance(info, dict):
        reject(where, f"{beside.name} holds no dict, expected bbox, image_width and image_height")
    boxes, sizes = info.get("bbox"), {}
    for name in ("image_width", "image_height"):
        value = info.get(name)
        if not isinstance(value, (int, np.integer)) or not 1 <= value <= LARGEST_NUMBER:
            reject(where, f"{beside.name} has no {name} above 0, expected the image's size in pixels")
        sizes[name] = int(value)
    if not isinstance(boxes, np.ndarray) or boxes.dtype.kind not in "fiu":
        reject(where, f"{beside.name} has no bbox, expected an array of numbers (n, 4)")
    return {**sizes, "bbox": boxes}


def _header(path: Path, where: str) -> Header:
    try:
        with path.open("rb") as stream:
            return checked_header(stream, path.name, path.stat().st_size, "f")
    except Exception as error:  # numpy's reader of headers has a dozen classes
        _unreadable(error, where)


def _read(path: Path, where: str, kinds: str) -> np.ndarray:
    try:
        with path.open("rb") as stream:
            return read_array(stream, path.name, path.stat().st_size, kinds)
    except Exception as error:
        _unreadable(error, where)


def _unreadable(error: Exception, where: str) -> NoReturn:
    reject(where, f"cannot be read ({error!r:.200}), expected the array of an image, floating-point numbers")


def _place(path: Path, image_id: bytes) -> str:
    return f"{os.fsencode(path).decode(errors='replace')}: image {shown_id(image_id)}"
