"""The object features that the makers of GQA publish: one JSON of facts, features in HDF5 chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datamodules.stores import (
    LARGEST_ARRAY,
    LARGEST_NUMBER,
    REMAKE,
    Column,
    Handling,
    Index,
    Regions,
    Source,
    StoreError,
    check_file,
    check_id,
    convert_regions,
    map_datasets,
    reject,
    sha256_of,
    shown_id,
)
from lxmert.files import read_json

GQA_OBJECTS = "GQA object features, Faster R-CNN, ResNet-101, trained on GQA"
_FACTS = ("width", "height", "objectsNum", "idx", "file")


def convert_gqa_objects(
    folder: Path,
    store: Path,
    *,
    detector: str = GQA_OBJECTS,
    progress: bool = True,
    handling: Handling = Handling(),  # noqa: B008  # frozen
) -> Path:
    """Convert the object features that the makers of GQA publish to a region store.

    The folder holds `gqa_objects_info.json`, image id -> width, height, objectsNum, idx and file, and the chunks
    `gqa_objects_<file>.h5` with features (n, 100, F) and bboxes (n, 100, 4) in pixels x1 y1 x2 y2. Of an image's
    100 places the first objectsNum count. There are no object names: they are unknown in the store. The info
    file stands for the folder in the store's source stamp; a chunk of another size or time makes another store.

    Arguments, result and errors are those of `convert_tsv`; InputError where the info file is not JSON.
    """
    info = Path(folder) / "gqa_objects_info.json"
    store, reading = Path(store), reading_gqa
    return convert_regions(info, store, detector, progress, index_gqa, read_gqa, handling, reading=reading)


def reading_gqa(source: Path) -> dict[str, str]:
    """The chunks' names, sizes and times as one hash, as of `convert_regions`; nothing where some are missing."""
    check_file(source)
    infos = read_json(source)
    told = infos.values() if isinstance(infos, dict) else ()
    files = [info.get("file") for info in told if isinstance(info, dict)]
    found = {file for file in files if type(file) is int and 0 <= file <= LARGEST_NUMBER}
    chunks = [_gqa_file(source, number) for number in sorted(found)]
    if not chunks or not all(chunk.is_file() for chunk in chunks):
        return {}
    stamps = [Source.of(chunk) for chunk in chunks]
    facts = "".join(f"{stamp.name} {stamp.size} {stamp.mtime_ns}\n" for stamp in stamps)
    return {"chunks_sha256": hashlib.sha256(facts.encode()).hexdigest()}


def index_gqa(source: Path, bar: tqdm, index: Index) -> None:
    """Check the info of every image and the shapes of every chunk; read no features."""
    check_file(source)
    index.sha256 = sha256_of(source)
    shapes: dict[int, tuple[int, ...]] = {}
    image_in: dict[tuple[int, int], str] = {}
    infos = _gqa_infos(source, index)
    # In the order of the chunks, which are then read from end to end.
    for image_id in sorted(infos, key=lambda name: (infos[name]["file"], infos[name]["idx"])):
        width, height, count, row, file = (infos[image_id][name] for name in _FACTS)
        where = f"{source}: image {image_id}"
        if file not in shapes:
            shapes[file] = gqa_chunk(_gqa_file(source, file))[0].shape
        rows, most, dim = shapes[file]
        with index.attempt():
            if index.feature_dim and dim != index.feature_dim:
                reject(where, f"chunk {file} has {dim} features, expected {index.feature_dim} as in the first")
            if row >= rows or count > most:
                reject(where, f"idx {row} and objectsNum {count}, expected less than {rows} and at most {most}")
            if (file, row) in image_in:
                reject(where, f"image {image_in[file, row]} is in the same place, expected one each")
            image_in[file, row] = image_id
            index.feature_dim = dim
            index.add(image_id.encode(), (width, height), count, (file, row))
    bar.update(source.stat().st_size)


def read_gqa(source: Path, index: Index, start: int) -> Generator[Regions, None, None]:
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


def _gqa_infos(source: Path, index: Index) -> dict[str, dict[str, int]]:
    infos = read_json(source)
    if not isinstance(infos, dict) or not infos:
        raise StoreError(f"{source}: expected an object of image id -> {', '.join(_FACTS)}. Check the path.")
    good = {}
    for image_id, info in infos.items():
        with index.attempt():
            where = f"{source}: image {shown_id(image_id.encode()) or '(no id)'}"
            check_id(image_id.encode(), where)
            numbers = [info.get(name) if isinstance(info, dict) else None for name in _FACTS]
            least = (1, 1, 1, 0, 0)
            if any(
                type(number) is not int or not low <= number <= LARGEST_NUMBER
                for number, low in zip(numbers, least, strict=True)
            ):
                reject(where, f"{info!r:.80}, expected counts {', '.join(_FACTS)}")
            good[image_id] = info
    return good


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
    if len(shape) != 3 or boxes.shape != (*shape[:2], 4) or 0 in shape or shape[1] * shape[2] > LARGEST_ARRAY // 4:
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
