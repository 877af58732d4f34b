"""Writing a region store image by image, from any source that can tell its images first.

A conversion first goes over the source to learn its images and check its structure, then allocates
the whole store, then fills it image by image, noting how far it has come: what it holds in memory is
one image and about 200 bytes for each other. Killed at any moment, it goes on from its last note;
failed, it leaves nothing.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

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
    open_store,
    publish,
    read_attribute,
)
from datamodules.stores.region_checks import (
    BOTTOM_UP_ATTENTION,
    NAMES,
    Handling,
    ImageError,
    box_fractions,
    check_features,
    label_columns,
)
from datamodules.stores.regions import BOX_CONVENTION, FORMAT_VERSION, OF_REGIONS, RegionStore, read_facts
from lxmert.files import InputError, read_json

log = logging.getLogger(__name__)

_IMAGES_PER_NOTE = 128
# What may decide how a source is read beside the source itself: what the user says of it, and other files. Stores
# made before conversions looked at these files do not tell of them, and are current nevertheless.
_SAID = ("columns", "features_order", "ids_sha256")
_BESIDE = ("ids_beside_sha256", "chunks_sha256")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_AS_IT_IS = Handling()


@dataclass
class Index:
    """What a pass over the source tells: enough to lay out the store and to find every image again.

    Args:
        skip: go on after images that cannot be used.
    """

    feature_dim: int = 0
    sha256: str = ""
    image_ids: list[bytes] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width, height
    counts: list[int] = field(default_factory=list)
    places: list[Any] = field(default_factory=list)  # a line's first byte, a file, or a row of a file
    skip: bool = False
    skipped: list[ImageError] = field(default_factory=list)  # why, of each image left out

    def add(self, image_id: bytes, size: tuple[int, int], count: int, place: Any) -> None:
        """Note an image; `check_id` has been called."""
        self.image_ids.append(image_id)
        self.sizes.append(size)
        self.counts.append(count)
        self.places.append(place)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around what is done for one image: whether it may fail is up to `skip`."""
        try:
            yield
        except ImageError as error:
            if not self.skip:
                raise
            self.skipped.append(error.bare())

    def leave_out(self, images: Iterable[int]) -> None:
        """Forget images, given by number."""
        gone = set(images)
        for name in ("image_ids", "sizes", "counts", "places"):
            setattr(self, name, [value for number, value in enumerate(getattr(self, name)) if number not in gone])


@dataclass
class Regions:
    """One image as its source has it; `where` it stands is for messages."""

    where: str
    size: tuple[int, int]  # width, height; 1, 1 where the source has fractions alone and no sizes
    features: np.ndarray  # (n, F) float32
    boxes: np.ndarray  # (n, 4) float32, pixels
    labels: dict[str, np.ndarray] = field(default_factory=dict)  # by the store's names; those that there are
    fractions: bool = False  # the boxes are fractions already

    def columns(
        self, handling: Handling = _AS_IT_IS, names: Mapping[str, int] | None = None
    ) -> dict[str, np.ndarray]:
        """The image's part of each column of the store.

        Args:
            handling: what is done about boxes that are a little outside.
            names: how many names the detector has, where that is known (`label_columns`).

        Raises:
            ImageError: a value is wrong.
        """
        check_features(self.features, self.where)
        return {
            # torch casts to fp16 ten times faster than numpy
            "features": torch.from_numpy(self.features).half().numpy(),
            "boxes": self._boxes(handling),
            **label_columns(self.labels, len(self.boxes), self.where, names),
        }

    def errors(self, handling: Handling = _AS_IT_IS, names: Mapping[str, int] | None = None) -> list[ImageError]:
        """All that `columns` would raise: of the features, the boxes, the labels."""
        found = []
        for check in (
            lambda: check_features(self.features, self.where),
            lambda: self._boxes(handling),
            lambda: label_columns(self.labels, len(self.boxes), self.where, names),
        ):
            try:
                check()
            except ImageError as error:
                found.append(error)
        return found

    def _boxes(self, handling: Handling) -> np.ndarray:
        return box_fractions(self.boxes, self.size, self.where, fractions=self.fractions, clip=handling.clip)


# -------------------------------------------------------------------------------------- conversion


def convert_regions(
    source: Path,
    store: Path,
    detector: str,
    progress: bool,
    make_index: Callable[[Path, tqdm, Index], None],
    read: Callable[[Path, Index, int], Generator[Regions, None, None]],
    handling: Handling = _AS_IT_IS,
    facts: Mapping[str, str] | None = None,
    reading: Callable[[Path], Mapping[str, str]] = lambda _: {},
) -> Path:
    """Make a region store of a source that was not made of it, in this way, as it is now.

    One process makes it; others that ask for it at the same time wait. Images left out are listed in
    `skipped_list(store)`, a line each with the reason.

    Args:
        source: the file or folder, whose state the store keeps.
        store: the file to make.
        detector: what made the features, for the store's contract.
        progress: show progress bars.
        make_index: goes over the source, moving the bar by its bytes, and tells its images to an index.
        read: gives the images of an index, from a number on.
        handling: what is done about images that are not as they should be.
        facts: attributes of the store beside its contract, such as `FACTS`.
        reading: gives of a source what decides how it is read beside what is in it: `_SAID`, `_BESIDE`.

    Returns:
        `store`.

    Raises:
        StoreError: what `make_index`, `read` and `Regions` refuse, a file in the store's place that no
            conversion made, a full disk, no permission.
    """
    partial = store.with_name(f".{store.name}.partial")
    note = store.with_name(f".{store.name}.partial.json")
    names = NAMES if detector == BOTTOM_UP_ATTENTION else None
    with locked(store), clear_write_errors(store):
        _refuse_others(store, source)
        read_as = reading(source) if source.exists() else None
        if is_current(store, source) and _is_made_as(store, detector, handling, read_as):
            log.info("%s: kept, as it is current", store)
            return store
        if store.exists() and "detector_sha256" in read_facts(store).keys() - (facts or {}).keys():
            raise _in_the_way(store, "extracted from pictures")
        if not source.exists():
            raise StoreError(f"{source}: no such file or folder. Check the path, or get the features first.")
        stamp = Source.of(source)
        try:
            index = Index(skip=handling.skip)
            title, total = f"{source.name}: index", stamp.size
            with progress_bar(title, total, shown=progress) as bar:
                make_index(source, bar, index)
            if handling.skip:
                title, total = f"{source.name}: check", len(index.counts)
                with progress_bar(title, total, "image", shown=progress) as bar:
                    _leave_out_bad(source, index, read, handling, names, bar)
            if not index.counts:
                first = f" The first: {index.skipped[0]}" if index.skipped else ""
                raise StoreError(f"{source}: no image in it can be used.{first}")
            made = {"handling": str(handling), "left_out": len(index.skipped)} if str(handling) else {}
            made |= {**(facts or {}), **(read_as or {})}
            layout = _resume(store, partial, note, index, replace(stamp, sha256=index.sha256), detector, made)
            title, total, done = f"{source.name}: convert", len(index.counts), layout.done
            bar_of_images = progress_bar(title, total, "image", done=done, shown=progress)
            with bar_of_images as bar, closing(read(source, index, done)) as images:
                columns = (regions.columns(handling, names) for regions in images)
                _fill(partial, note, layout, index.counts, columns, bar)
            RegionStore(partial)  # what is published can be opened
            if not Source.of(source).same_file(stamp) or reading(source) != read_as:
                raise StoreError(f"{source}: changed while it was converted. Run the conversion again.")
            _list_skipped(store, index.skipped)
            publish(partial, store)
        except Exception:
            # Only a kill or an interruption leaves the unfinished store, which the next run completes.
            partial.unlink(missing_ok=True)
            note.unlink(missing_ok=True)
            raise
        note.unlink(missing_ok=True)
    return store


def _refuse_others(store: Path, source: Path) -> None:
    """Raise StoreError where what has the store's name is the source, or anything else than a region store."""
    if not store.exists():
        return
    if source.exists() and store.samefile(source):
        raise StoreError(f"{store}: is the source itself. Give the store another name.")
    with store.open("rb") as content:
        is_store = content.read(len(_HDF5)) == _HDF5
    if is_store:
        with open_store(store) as file:
            is_store = str(read_attribute(file, "kind")) == "regions"
    if not is_store:
        raise _in_the_way(store, "no region store")


def _in_the_way(store: Path, what: str) -> StoreError:
    return StoreError(
        f"{store}: is there already, {what}, and is not overwritten. Give the store another name, or remove that "
        "file if it is not needed."
    )


def skipped_list(store: Path) -> Path:
    """The text file beside a store that names the images left out; there are none where it is absent."""
    return store.with_name(f"{store.name}.skipped.txt")


def _list_skipped(store: Path, skipped: list[ImageError]) -> None:
    path = skipped_list(store)
    if not skipped:
        path.unlink(missing_ok=True)
        return
    temporary = path.with_name(f".{path.name}.tmp")
    lines = ("".join(c if c.isprintable() else ascii(c)[1:-1] for c in f"{e.place}: {e.what}") for e in skipped)
    temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="backslashreplace")
    temporary.replace(path)


def _is_made_as(store: Path, detector: str, handling: Handling, read_as: Mapping[str, str] | None) -> bool:
    """Whether a store is of this detector, with this handling, its source read in this way; None: any."""
    with open_store(store) as file:
        there = {name: read_attribute(file, name) for name in ("handling", *_SAID, *_BESIDE)}
    if (RegionStore(store).contract["detector"], str(there["handling"] or "")) != (detector, str(handling)):
        return False
    if read_as is None:
        return True
    untold = [name for name in _BESIDE if there[name] is None or name not in read_as]  # also: removed since
    return all(there[name] == read_as.get(name) for name in (*_SAID, *_BESIDE) if name not in untold)


def _leave_out_bad(
    source: Path,
    index: Index,
    read: Callable[[Path, Index, int], Generator[Regions, None, None]],
    handling: Handling,
    names: Mapping[str, int] | None,
    bar: tqdm,
) -> None:
    """Take the images whose values are wrong out of the index; the store has no place for them."""
    bad, number = [], 0
    while number < len(index.counts):
        try:
            with closing(read(source, index, number)) as images:
                for regions in images:
                    regions.columns(handling, names)
                    number += 1
                    bar.update()
        except ImageError as error:
            index.skipped.append(error.bare())
            bad.append(number)
            number += 1
            bar.update()
    index.leave_out(bad)


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


def _resume(
    store: Path, partial: Path, note: Path, index: Index, stamp: Source, detector: str, made: dict[str, Any]
) -> _Layout:
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
        **made,
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
    partial: Path,
    note: Path,
    layout: _Layout,
    counts: list[int],
    images: Iterable[dict[str, np.ndarray]],
    bar: tqdm,
) -> None:
    """Write the regions of every image not yet done to their places in each column."""
    region = sum(counts[: layout.done])
    noted: Future[None] | None = None
    offsets = offsets_of(partial, OF_REGIONS)
    file = os.open(partial, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    try:
        # The disk takes its time: the next images are decoded meanwhile.
        with ThreadPoolExecutor(1) as pool:
            for columns in images:
                for name, rows in columns.items():
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
