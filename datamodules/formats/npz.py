"""Folders of `<image id>.jpg.npz` files, as bottom-up-attention in PyTorch writes them."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datamodules.formats.release_tsv import LABEL_COLUMNS
from datamodules.stores import (
    BOTTOM_UP_ATTENTION,
    LARGEST_ARRAY,
    LARGEST_NUMBER,
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
_NPZ = {
    **dict.fromkeys(("num_bbox", "image_w", "image_h", "objects_id", "attrs_id"), "iu"),
    **dict.fromkeys(("x", "bbox", "objects_conf", "attrs_conf"), "fiu"),
}


def convert_npz(folder: Path, store: Path, *, detector: str = BOTTOM_UP_ATTENTION, progress: bool = True) -> Path:
    """Convert a folder of `<image id>.jpg.npz` files, one an image, to a region store.

    Each file holds x (F, num_bbox) features, bbox (num_bbox, 4) in pixels x1 y1 x2 y2, image_w, image_h
    and num_bbox; and objects_id, objects_conf, attrs_id, attrs_conf (num_bbox,) where there are labels.
    Arguments, result and errors are those of `convert_tsv`.
    """
    return convert_regions(Path(folder), Path(store), detector, progress, _index_npz, _read_npz)


def _index_npz(source: Path, bar: tqdm) -> Index:
    """Read the ids, sizes and counts of every file, and the feature size of the first."""
    index = Index()
    files_of: dict[str, str] = {}
    for path in sorted(source.glob("*.npz")):
        image_id = path.name.removesuffix(".npz").removesuffix(".jpg").removesuffix(".png")
        where = _npz_place(path, os.fsencode(image_id))
        check_id(os.fsencode(image_id), where)
        check_file(path)
        names = ("bbox", "num_bbox", "image_w", "image_h", *(() if index.counts else ("x",)))
        content = _load(path, where, *names)
        _check_shapes(content, where, num_bbox=(), image_w=(), image_h=())
        count, width, height = (int(content[name]) for name in ("num_bbox", "image_w", "image_h"))
        if not 1 <= min(count, width, height) <= max(count, width, height) <= LARGEST_NUMBER:
            reject(where, f"{count} boxes on {width} x {height} pixels, expected 1 or more of each")
        _check_shapes(content, where, bbox=(count, 4))
        if not index.counts:
            index.feature_dim = len(np.atleast_1d(content["x"])) or 1
        if image_id in files_of:
            reject(where, f"{files_of[image_id]} is of the same image, expected one file each")
        files_of[image_id] = path.name
        index.add(image_id.encode(), (width, height), count, path)
        bar.update(path.stat().st_size)
    if not index.counts:
        raise StoreError(f"{source}: no .npz files in this folder. Check the path.")
    index.sha256 = sha256_of(source)
    return index


def _read_npz(source: Path, index: Index, start: int) -> Iterator[Regions]:
    """Read the images from number `start` on."""
    for number in range(start, len(index.counts)):
        path, count = index.places[number], index.counts[number]
        where = _npz_place(path, index.image_ids[number])
        content = _load(path, where, "x", "bbox")
        labels = {name: content[column] for column, name in LABEL_COLUMNS.items() if column in content}
        _check_shapes(content, where, x=(index.feature_dim, count), bbox=(count, 4))
        _check_shapes(labels, where, **dict.fromkeys(labels, (count,)))
        features = np.array(content["x"].T, np.float32, order="C")
        yield Regions(where, index.sizes[number], features, content["bbox"].astype(np.float32), labels)


def _npz_place(path: Path, image_id: bytes) -> str:
    return f"{os.fsencode(path).decode(errors='replace')}: image {shown_id(image_id)}"


def _check_shapes(content: dict[str, np.ndarray], where: str, **expected: tuple[int, ...]) -> None:
    for name, shape in expected.items():
        if content[name].shape != shape:
            reject(where, f"{name} is of shape {content[name].shape}, expected {shape}")


def _load(path: Path, where: str, *required: str) -> dict[str, np.ndarray]:
    """The required arrays of an npz file, and its labels where it has them."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            names = [*required, *(name for name in LABEL_COLUMNS if name in members)]
            return {name: _array(archive, members[name], _NPZ[name]) for name in names}
    # zipfile, its three decompressors and numpy's reader of headers have a dozen classes between them.
    except Exception as error:
        reject(where, f"cannot be read ({error!r:.200}), expected an npz file with {', '.join(required)}")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, kinds: str) -> np.ndarray:
    """An array of an npz file; what it is and its size are checked before it is unpacked."""
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(member) as stream:
        shape, by_column, dtype = headers[np.lib.format.read_magic(stream)](stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in kinds:
            raise TypeError(f"{member.filename} holds {dtype}, expected {'whole ' * (kinds == 'iu')}numbers")
        if size != member.file_size - stream.tell() or size > LARGEST_ARRAY:
            raise StoreError(
                f"{member.filename} unpacks to {member.file_size} bytes, expected its header's {size} and at most "
                f"{LARGEST_ARRAY}"
            )
        return np.frombuffer(stream.read(), dtype).reshape(shape, order="F" if by_column else "C")
