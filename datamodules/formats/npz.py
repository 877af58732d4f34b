"""Folders of `<image id>.jpg.npz` files, one an image, as the bottom-up-attention ports and UNITER write them.

| keys | of |
|---|---|
| x, bbox, image_w, image_h, num_bbox | bottom-up-attention in PyTorch; x: F x n or n x F; sizes may be in info |
| features, norm_bb | UNITER: n x F, boxes in fractions, no sizes |
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from tqdm import tqdm

from datamodules.formats.arrays import Archive, image_id_of
from datamodules.formats.release_tsv import LABEL_COLUMNS
from datamodules.stores import (
    LARGEST_NUMBER,
    Handling,
    ImageError,
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

# What kinds of numbers each array may hold, by numpy's letters.
_KINDS = {
    **dict.fromkeys(("num_bbox", "image_w", "image_h", "objects_id", "attrs_id"), "iu"),
    **dict.fromkeys(("x", "bbox", "objects_conf", "attrs_conf", "features", "norm_bb"), "fiu"),
    "info": "O",
}
ORDERS = ("nxF", "Fxn")  # of the features' axes


@dataclass
class NpzReader:
    """Reads such a folder. What its files have, and the order of their features, the first that tells decides.

    Args:
        order: "nxF" or "Fxn"; "" takes the one that fits.
    """

    order: str = ""
    keys: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._said = {"features_order": self.order} if self.order else {}

    def reading(self, source: Path) -> dict[str, str]:
        """The order that the user said, as of `convert_regions`."""
        return self._said

    def index(self, source: Path, bar: tqdm, index: Index) -> None:
        """Read the ids, sizes, counts and shapes of every file, no features."""
        files_of: dict[str, str] = {}
        square = []
        for path in sorted(source.glob("*.npz")):
            image_id = image_id_of(path.name, ".npz")
            where = _place(path, os.fsencode(image_id))
            with index.attempt():
                check_id(os.fsencode(image_id), where)
                check_file(path)
                content, shape = self._facts(path, where)
                size, count = self._size_and_count(content, where)
                if not index.counts or self.order == "":
                    dim = self._feature_dim(shape, count, where)
                    square += [where] if dim == count and not self.order else []
                    index.feature_dim = index.feature_dim or dim
                if image_id in files_of:
                    reject(where, f"{files_of[image_id]} is of the same image, expected one file each")
                files_of[image_id] = path.name
                index.add(image_id.encode(), size, count, path)
            bar.update(path.stat().st_size)
        if not index.counts and not index.skipped:
            raise StoreError(f"{source}: no .npz files in this folder. Check the path.")
        if square and not self.order:
            n = index.feature_dim
            raise StoreError(
                f"{square[0]}: {n} features of {n} regions in every file, which could lie either way. Say with "
                "--features nxF that a row is a region, or with --features Fxn that a column is."
            )
        index.sha256 = sha256_of(source)

    def read(self, source: Path, index: Index, start: int) -> Generator[Regions, None, None]:
        """Read the images from number `start` on."""
        for number in range(start, len(index.counts)):
            path, count = index.places[number], index.counts[number]
            where = _place(path, index.image_ids[number])
            yield self.regions(path, where, index.feature_dim, count, index.sizes[number])

    def regions(self, file: Path | IO[bytes], where: str, dim: int, count: int, size: tuple[int, int]) -> Regions:
        """The regions of a file, `dim` and `count` as the index has them."""
        uniter = "norm_bb" in self.keys
        content = _load(file, where, *(("features", "norm_bb") if uniter else ("x", "bbox")))
        labels = {name: content[column] for column, name in LABEL_COLUMNS.items() if column in content}
        _check_shapes(labels, where, **dict.fromkeys(labels, (count,)))
        if uniter:
            _check_shapes(content, where, features=(count, dim))
            features, boxes = _float32(content["features"]), _float32(content["norm_bb"][:, :4])
            return Regions(where, size, features, boxes, fractions=True)
        by_region = self.order == "nxF"
        _check_shapes(content, where, x=(count, dim) if by_region else (dim, count), bbox=(count, 4))
        features = content["x"] if by_region else content["x"].T
        return Regions(where, size, _float32(features), _float32(content["bbox"]), labels)

    def _facts(self, path: Path, where: str) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
        """Boxes, sizes and count of a file, and its features' shape."""
        required = self.keys
        try:
            with Archive(path) as archive:
                required = self.keys = self.keys or _keys(archive.names, where)
                features = "features" if "norm_bb" in required else "x"
                return archive.read_all(required, _KINDS), archive.header(features, _KINDS[features]).shape
        except ImageError:
            raise
        except Exception as error:
            _unreadable(error, where, required)

    def _size_and_count(self, content: dict[str, Any], where: str) -> tuple[tuple[int, int], int]:
        if "norm_bb" in content:
            shape = content["norm_bb"].shape
            if len(shape) != 2 or 0 in shape or shape[1] < 4:
                reject(where, f"norm_bb is of shape {shape}, expected x1 y1 x2 y2 and more of each region")
            return (1, 1), shape[0]
        if "info" in content:
            content = {**_of_info(content["info"], where), **content}
        _check_shapes(
            content, where, **{name: () for name in content if name in ("num_bbox", "image_w", "image_h")}
        )
        width, height = (int(content[name]) for name in ("image_w", "image_h"))
        count = int(content["num_bbox"]) if "num_bbox" in content else len(np.atleast_1d(content["bbox"]))
        if not 1 <= min(count, width, height) <= max(count, width, height) <= LARGEST_NUMBER:
            reject(where, f"{count} boxes on {width} x {height} pixels, expected 1 or more of each")
        _check_shapes(content, where, bbox=(count, 4))
        return (width, height), count

    def _feature_dim(self, shape: tuple[int, ...], count: int, where: str) -> int:
        """F; sets the order where the shape tells it."""
        if len(shape) != 2 or count not in shape or 0 in shape:
            reject(where, f"its features are of shape {shape}, expected F x {count} or {count} x F")
        if "norm_bb" in self.keys:
            self.order = "nxF"
        elif not self.order and shape[0] != shape[1]:
            self.order = "nxF" if shape[0] == count else "Fxn"
        return shape[1] if self.order == "nxF" else shape[0]


def convert_npz(
    folder: Path,
    store: Path,
    *,
    detector: str,
    progress: bool = True,
    order: str = "",
    handling: Handling = Handling(),  # noqa: B008  # frozen
) -> Path:
    """Convert a folder of `<image id>.jpg.npz` files, one an image, to a region store.

    Each file holds x (F, n) or (n, F) features, bbox (n, 4) in pixels x1 y1 x2 y2, image_w and image_h (or info
    with both); and num_bbox, objects_id, objects_conf, attrs_id, attrs_conf (n,) where they are known. Or
    UNITER's features (n, F) and norm_bb (n, 6), fractions. All files are of the kind of the first.

    Args:
        folder: of the files.
        store: as of `convert_tsv`.
        detector: what made the features: nothing in these files tells.
        progress: show progress bars.
        order: of the axes of x, "nxF" or "Fxn", where both are possible.
        handling: what is done about images that are not as they should be.

    Returns and raises as `convert_tsv`.
    """
    reader = NpzReader(order)
    folder, store, index, read = Path(folder), Path(store), reader.index, reader.read
    return convert_regions(folder, store, detector, progress, index, read, handling, reading=reader.reading)


def npz_names(folder: Path) -> list[str]:
    """What the arrays of the first file of a folder are called; none where it cannot be read."""
    try:
        with Archive(min(path for path in folder.glob("*.npz") if path.is_file())) as archive:
            return archive.names
    except Exception:  # as many classes as `_unreadable` knows; the reader says which
        return []


def _keys(names: list[str], where: str) -> list[str]:
    """The arrays that tell the regions' sizes and counts, of a file that has `names`."""
    if {"features", "norm_bb"} <= set(names):
        return ["norm_bb"]
    sizes = ["info"] if "info" in names and not {"image_w", "image_h"} <= set(names) else ["image_w", "image_h"]
    wanted = ["bbox", *(["num_bbox"] if "num_bbox" in names else []), *sizes]
    if missing := [name for name in ("x", *wanted) if name not in names]:
        reject(
            where,
            f"an npz file of {', '.join(names)[:200] or 'nothing'}, without {', '.join(missing)}: expected x, "
            "bbox, image_w, image_h, or features, norm_bb; regions without boxes are of no use to LXMERT",
        )
    return wanted


def _of_info(info: np.ndarray, where: str) -> dict[str, np.ndarray]:
    facts = info.item() if info.shape == () else None
    found = {name: facts.get(name) for name in ("image_w", "image_h")} if isinstance(facts, dict) else {}
    if not found or any(not isinstance(value, (int, np.integer)) for value in found.values()):
        reject(where, "info has no whole numbers image_w and image_h, expected the image's size")
    return {name: np.array(value) for name, value in found.items()}


def _place(path: Path, image_id: bytes) -> str:
    return f"{os.fsencode(path).decode(errors='replace')}: image {shown_id(image_id)}"


def _check_shapes(content: dict[str, np.ndarray], where: str, **expected: tuple[int, ...]) -> None:
    for name, shape in expected.items():
        if content[name].shape != shape:
            reject(where, f"{name} is of shape {content[name].shape}, expected {shape}")


def _float32(array: np.ndarray) -> np.ndarray:
    return np.array(array, np.float32, order="C")


def _load(file: Path | IO[bytes], where: str, *required: str) -> dict[str, np.ndarray]:
    """The required arrays of an npz file, and its labels where it has them."""
    try:
        with Archive(file) as archive:
            labels = [name for name in LABEL_COLUMNS if name in archive.names]
            return archive.read_all([*required, *labels], _KINDS)
    except Exception as error:
        _unreadable(error, where, required)


def _unreadable(error: Exception, where: str, required: Sequence[str]) -> NoReturn:
    # zipfile, its three decompressors and numpy's reader of headers have a dozen classes between them.
    reject(where, f"cannot be read ({error!r:.200}), expected an npz file with {', '.join(required)}")
