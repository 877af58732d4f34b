"""What both stores share: mapping an HDF5 file into memory, its source stamp, writing it atomically.

A store is written once, under another name, and renamed when it is complete; after that it is only
read. Readers map contiguous datasets straight from the file, so the bytes live in the page cache,
once per machine, whatever the number of processes.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
from filelock import FileLock

from lxmert.files import InputError


class StoreError(InputError):
    """A store, or what it is made from, cannot be used. The message names the file and the remedy."""


LIBVER = "v110"  # the oldest form of HDF5 whose own structure has checksums throughout
REMAKE = "Delete it and convert its source again."


# ---------------------------------------------------------------------------------------- reading

# zlib packs at most 1,032 bytes into one; nothing that claims more is true.
_BEST_COMPRESSION = 1100
_FILTERS = frozenset(
    getattr(h5py.h5z, f"FILTER_{name}") for name in ("DEFLATE", "SHUFFLE", "FLETCHER32", "SZIP", "LZF")
)
# What h5py raises over a damaged file is any of these, whatever the damage.
_READ_ERRORS = (
    *(OSError, KeyError, IndexError, RuntimeError, TypeError, ValueError, AttributeError),
    *(ArithmeticError, MemoryError, SystemError),
)


@contextmanager
def open_store(path: Path | str) -> Iterator[h5py.File]:
    """An HDF5 file open for reading.

    Raises:
        StoreError: the file is missing, held by a writer, or not a complete HDF5 file; also when
            reading inside the block fails or an expected dataset or attribute is absent.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"{path}: no such store. Convert its source file first.")
    with _clear_read_errors(path), _open(path) as file:
        yield file


def _open(path: Path) -> h5py.File:
    # "best-effort": a file that somebody writes in place is refused, not read half-done, and file
    # systems without locks (some network ones) still work. Finished stores are never locked.
    return h5py.File(path, "r", locking="best-effort")


@contextmanager
def _clear_read_errors(path: Path, name: str = "") -> Iterator[None]:
    """Turn whatever reading a file, or its dataset `name`, may raise into a StoreError."""
    try:
        yield
    except InputError:
        raise
    except _READ_ERRORS as error:
        if reason := _READ_REASONS.get(_errno(error)):
            raise StoreError(f"{path}: {reason}") from error
        what = f"dataset {name!r} cannot be read" if name else "not a complete HDF5 store"
        raise StoreError(f"{path}: {what} ({_words(error)}). {REMAKE}") from error


class LazyDataset:
    """A chunked or compressed dataset, read through h5py and indexed as h5py indexes.

    The file is opened at the first read of each process: an HDF5 handle crosses neither a pickle nor
    a fork (after a fork both processes would move one file position).
    """

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.path, self.name, self.shape, self.dtype = path, name, shape, dtype
        self._file: h5py.File | None = None
        self._process = -1

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        with _clear_read_errors(self.path, self.name):
            if self._file is None or self._process != os.getpid():
                self._file = _open(self.path)
                self._process = os.getpid()
            return self._file[self.name][key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[()], dtype=dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_process": -1}


Column = np.ndarray | LazyDataset


def map_dataset(path: Path | str, name: str) -> Column:
    """One dataset of a store, without reading it; as `map_datasets`."""
    return map_datasets(path, [name])[name]


def map_datasets(path: Path | str, names: Iterable[str]) -> dict[str, Column]:
    """Datasets of a store, without reading them; all share one mapping of the file, which is one open file.

    Returns:
        name -> a read-only `np.memmap` of a contiguous dataset (an empty array where it has no elements),
        or a `LazyDataset` where it is chunked, compressed or compact.

    Raises:
        StoreError: the file is missing or damaged, has no such dataset, or one that is not data in this
            file: a link or a reference to elsewhere, values of no fixed size, more than the file can hold.
    """
    path = Path(path)
    with open_store(path) as file:
        places = {name: _locate(file, path, name) for name in names}
        _check_apart(path, places)
        memory = np.memmap(path, np.uint8, mode="r")
    return {name: place.column(path, name, memory) for name, place in places.items()}


def read_texts(path: Path | str, name: str) -> list[bytes] | None:
    """The values of a list of texts of any length, as h5py writes them; None where the dataset is no such list.

    Raises:
        StoreError: the file is missing or damaged.
    """
    path = Path(path)
    with open_store(path) as file, _clear_read_errors(path, name):
        dataset = _follow(file, path, name)
        kind = h5py.check_string_dtype(dataset.dtype)
        if kind is None or kind.length is not None or dataset.ndim != 1 or dataset.external or dataset.is_virtual:
            return None
        return [text if isinstance(text, bytes) else str(text).encode() for text in dataset[()]]


def offsets_of(path: Path, names: Iterable[str]) -> dict[str, int]:
    """Where in the file contiguous datasets begin, in bytes; StoreError where one is not as it was allocated."""
    with open_store(path) as file:
        places = {name: _locate(file, path, name) for name in names}
        _check_apart(path, places)
    return {name: place.offset for name, place in places.items() if place.offset is not None}


@dataclass(frozen=True)
class _Place:
    """Where a dataset's data lie in a file; `offset` is None where they are not in one piece."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int | None

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def column(self, path: Path, name: str, memory: np.memmap) -> Column:
        if not self.size:
            return np.empty(self.shape, self.dtype)
        if self.offset is None:
            return LazyDataset(path, name, self.shape, self.dtype)
        return memory[self.offset : self.offset + self.size].view(self.dtype).reshape(self.shape)


def _locate(file: h5py.File, path: Path, name: str) -> _Place:
    """Find a dataset through hard links alone, and check that all its data are in this file."""
    with _clear_read_errors(path, name):
        dataset = _follow(file, path, name)
        layout = dataset.id.get_create_plist()
        if layout.get_external_count() or layout.get_layout() == h5py.h5d.VIRTUAL:
            _refuse(path, name, "takes its data from other files, expected them in this one")
        shape, dtype = dataset.shape, dataset.dtype
        if shape is None or dtype.hasobject or not dtype.itemsize:
            _refuse(path, name, "has values of no fixed size, expected numbers or plain bytes")
        for number in range(layout.get_nfilters()):
            code, _, _, title = layout.get_filter(number)
            if code not in _FILTERS:
                shown = title.decode(errors="replace") or "without a name"
                _refuse(path, name, f"is compressed by a plugin, filter {code} ({shown}), expected gzip or none")
        place = _Place(shape, dtype, dataset.id.get_offset())
        stored, size = dataset.id.get_storage_size(), path.stat().st_size
        if place.offset is not None and place.offset + place.size > size:
            _refuse(path, name, f"ends at byte {place.offset + place.size}, the file at {size}")
        if place.size > stored * (_BEST_COMPRESSION if layout.get_nfilters() else 1) or stored > size:
            _refuse(path, name, f"is of {place.size} bytes, of which the file has {stored}")
    return place


def _follow(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    found: Any = file
    for part in name.split("/"):
        if not isinstance(found, h5py.Group) or not found.id.links.exists(part.encode()):
            raise StoreError(f"{path}: no dataset {name!r}. {REMAKE}")
        if found.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            _refuse(path, name, "is a link to elsewhere, expected the data themselves")
        found = found[part]
    if not isinstance(found, h5py.Dataset):
        _refuse(path, name, "is no dataset")
    return found


def _check_apart(path: Path, places: dict[str, _Place]) -> None:
    """Refuse datasets that share bytes: one of them is not where it was written."""
    pieces = sorted((p.offset, p.offset + p.size, n) for n, p in places.items() if p.offset is not None and p.size)
    for (_, end, before), (start, _, name) in pairwise(pieces):
        if start < end:
            _refuse(path, name, f"begins at byte {start}, before the end of {before!r} at {end}")


def _refuse(path: Path, name: str, what: str) -> NoReturn:
    raise StoreError(f"{path}: dataset {name!r} {what}. {REMAKE}")


def allow_open_files(workers: int) -> None:
    """Have this process be allowed the open files that a loader with so many workers needs.

    Without them it would end in the middle of starting these.

    Raises:
        InputError: the system does not allow so many.
    """
    if not workers or sys.platform == "win32":  # which has no such limit
        return
    import resource  # here, as Windows has no such module

    needed = FILES_OF_A_PROCESS + workers * FILES_OF_A_WORKER
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != most < needed:
        raise InputError(
            f"{workers} loader workers need some {needed} open files, this process may have {most}. Allow it more "
            f"(`ulimit -n {needed}`), or use fewer workers (data.workers=0)."
        )
    if resource.RLIM_INFINITY != allowed < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


FILES_OF_A_PROCESS = 48  # stores, logs, libraries
FILES_OF_A_WORKER = 6  # its pipes


def has_dataset(file: h5py.File, name: str) -> bool:
    """Whether a store's top level has an entry of that name; a link is not followed."""
    return file.id.links.exists(name.encode())


def read_attributes(file: h5py.File, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Attributes of a store as plain values.

    Args:
        file: the open store.
        kinds: name -> int, str or bool.

    Raises:
        StoreError: one is absent or of another type.
    """
    found = {}
    for name, kind in kinds.items():
        value = read_attribute(file, name)
        # What is not UTF-8 is handed on as halves of surrogate pairs, which nothing can print.
        if type(value) is not kind or (isinstance(value, str) and not _is_printable(value)):
            raise StoreError(
                f"{file.filename}: its attribute {name} is {_words(value)}, expected {_KINDS[kind]}. {REMAKE}"
            )
        found[name] = value
    return found


def read_attribute(file: h5py.File, name: str) -> Any:
    """An attribute of a store as a plain value, whatever it is; None where there is none."""
    if name not in file.attrs:
        return None
    value = file.attrs[name]  # not by `get`, to which a damaged one is absent
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value


def write_attributes(file: h5py.File, values: Mapping[str, Any]) -> None:
    """Write attributes of a store: texts at their length, which lie in the part of the file that has checksums.

    Where h5py puts a Python text has none, and HDF5 itself may search it forever when it is damaged.
    """
    for name, value in values.items():
        if isinstance(value, str):
            content = value.encode(errors="surrogateescape")
            value = np.array(content, h5py.string_dtype("utf-8", max(1, len(content))))
        file.attrs[name] = value


_KINDS = {int: "a whole number", str: "a text", bool: "true or false"}


def check_column(path: Path, name: str, column: Column, dtype: Any, shape: tuple[int, ...]) -> None:
    """Raise StoreError unless a dataset has this dtype and shape; reads nothing."""
    if column.dtype != np.dtype(dtype) or column.shape != shape:
        _refuse(path, name, f"is {column.dtype} {column.shape}, expected {np.dtype(dtype)} {shape}")


def check_offsets(path: Path, name: str, offsets: np.ndarray, total: int, *, least: int = 0) -> None:
    """Raise StoreError unless offsets go from 0 to `total` in steps of `least`, 0 or 1, and more."""
    ascending = np.greater if least else np.greater_equal
    if offsets[0] != 0 or offsets[-1] != total or not ascending(offsets[1:], offsets[:-1]).all():
        _refuse(path, name, f"does not ascend from 0 to {total}")


def check_codes(path: Path, name: str, codes: np.ndarray, least: int, end: int) -> None:
    """Raise StoreError unless all values are at least `least` and below `end`."""
    if codes.size and not least <= codes.min() <= codes.max() < end:
        _refuse(path, name, f"has values from {codes.min()} to {codes.max()}, expected {least} to {end - 1}")


def _is_printable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _words(value: object) -> str:
    """A value or an error as a message can show it: printable and short."""
    text = str(value) if isinstance(value, Exception) else "absent" if value is None else repr(value)
    text = " ".join(text.encode(errors="replace").decode().split())
    return text if len(text) <= 300 else f"{text[:300]}..."


# ----------------------------------------------------------------------------------- source stamps


@dataclass(frozen=True)
class Source:
    """What a store was made from: a file, or a folder of `.npz` or `.npy` files or an LMDB taken as one.

    Args:
        name: the file's or folder's name, without its path.
        size: bytes.
        mtime_ns: time of the last change, in nanoseconds; of a folder a number made of
            its files' names, sizes and times.
        sha256: hexadecimal digest of the content; empty while not yet known.
    """

    name: str
    size: int
    mtime_ns: int
    sha256: str = ""

    @classmethod
    def of(cls, path: Path | str, sha256: str = "") -> Source:
        """The stamp of `path`; cheap, as it does not compute the digest."""
        path = Path(path)
        files = {file.name: file.stat() for file in _source_files(path)}
        name = path.resolve().name.encode(errors="surrogateescape")
        return cls(
            name.decode(errors="backslashreplace"),  # a store holds texts alone
            sum(stat.st_size for stat in files.values()),
            _state(files) if path.is_dir() else files[path.name].st_mtime_ns,
            sha256,
        )

    @classmethod
    def read(cls, file: h5py.File) -> Source | None:
        """The stamp in a store's attributes, None where there is none."""
        if read_attribute(file, "source_name") is None:
            return None
        kinds = {"source_name": str, "source_size": int, "source_mtime_ns": int, "source_sha256": str}
        return cls(*read_attributes(file, kinds).values())

    def attributes(self) -> dict[str, Any]:
        """The stamp as attributes: `source_name`, `source_size`, `source_mtime_ns`, `source_sha256`."""
        return {f"source_{key}": value for key, value in asdict(self).items()}

    def same_file(self, other: Source) -> bool:
        """Whether name, size and time agree: the same file, unchanged."""
        return (self.name, self.size, self.mtime_ns) == (other.name, other.size, other.mtime_ns)


def _state(files: Mapping[str, os.stat_result]) -> int:
    """A number that is another one when a file has another name, size or time; stores hold 63 bits of it."""
    told = "".join(f"{name}\0{stat.st_size} {stat.st_mtime_ns}\n" for name, stat in files.items())
    return int.from_bytes(hashlib.sha256(os.fsencode(told)).digest()[:8]) >> 1


def sha256_of(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file; of a folder that of its files' names and digests, in order."""
    path = Path(path)
    if path.is_dir():
        total = hashlib.sha256()
        for file in _source_files(path):
            total.update(os.fsencode(f"{file.name}\0{sha256_of(file)}\n"))
        return total.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_current(store: Path | str, source: Path | str) -> bool:
    """Whether `store` exists and was made from `source` as it is now.

    Name, size and time decide; when only the time differs (a copied or touched file) the content
    does. A source that has been removed since leaves its store current.

    Raises:
        StoreError: the store exists and is damaged.
    """
    if not Path(store).exists():
        return False
    with open_store(store) as file:
        stamp = Source.read(file)
    if stamp is None:
        return False
    if not Path(source).exists():
        return True
    now = Source.of(source)
    if (stamp.name, stamp.size) != (now.name, now.size):
        return False
    return stamp.mtime_ns == now.mtime_ns or stamp.sha256 == sha256_of(source)


def _source_files(path: Path) -> list[Path]:
    """The files that make up a source: of a folder its arrays, or its data base."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in (".npz", ".npy") or file.name == "data.mdb")


# ----------------------------------------------------------------------------------------- writing


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Hold the right to write the store `path`; other processes wait here. May be nested.

    Makes the store's folder. Raises StoreError as `clear_write_errors` does.
    """
    path = Path(path)
    with clear_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writing(path: Path | str) -> Iterator[Path]:
    """Write a store atomically: yields a temporary path in the same folder, renamed at the end.

    The temporary file is removed when the block fails, and `path` is left as it was. One process at
    a time gets in.

    Raises:
        StoreError: disk full, no permission, not a folder (see `clear_write_errors`).
    """
    path = Path(path)
    with locked(path), clear_write_errors(path):
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            yield temporary
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def allocate(
    path: Path,
    arrays: dict[str, np.ndarray],
    columns: dict[str, tuple[tuple[int, ...], Any]],
    attributes: Any,
) -> None:
    """Create an HDF5 file with room for `columns`, closed again so that plain writes can fill them.

    Filling a file through h5py leaves it unopenable when the process is killed; filling allocated,
    contiguous datasets at their offsets cannot damage its structure.

    Args:
        path: the file to create; replaced where it exists.
        arrays: datasets written at once.
        columns: name -> (shape, dtype) of contiguous datasets to allocate, the largest aligned to
            4,096 bytes so that its rows lie on whole pages; their content is undefined.
        attributes: name -> value, of the whole file.
    """
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in columns.values()]
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)  # the same source gives the same bytes
    with h5py.File(path, "w", libver=LIBVER, alignment_threshold=max(sizes), alignment_interval=4096) as file:
        write_attributes(file, attributes)
        for name, array in arrays.items():
            file[name] = array
        for name, (shape, dtype) in columns.items():
            kind, space = h5py.h5t.py_create(np.dtype(dtype)), h5py.h5s.create_simple(shape)
            h5py.h5d.create(file.id, name.encode(), kind, space, layout)


def publish(temporary: Path, path: Path) -> None:
    """Rename a complete temporary file to its final name, its bytes safely on the disk first."""
    with temporary.open("r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def clear_write_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about writing `path` into a StoreError that says what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # h5py raises the latter when closing a file fails
        reason = _WRITE_ERRORS.get(_errno(error))
        # An error that names another file, such as an unreadable source, is not about this store.
        named = Path(getattr(error, "filename", None) or path)
        if reason is None or not (path.name in named.name or named in path.parents):
            raise
        raise StoreError(f"{path}: cannot write into {path.parent}: {reason}") from error


def check_free_space(path: Path, needed: int) -> None:
    """Raise StoreError unless the file system of `path`'s folder has `needed` bytes free."""
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise StoreError(
            f"{path}: cannot write into {path.parent}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB "
            "free. Free some space or put the store on another disk."
        )


_READ_REASONS: dict[int | None, str] = {
    errno.EAGAIN: "another process is writing it. Try again when it has ended.",
    errno.EACCES: "no permission to read it. Check the file's owner and mode.",
    errno.EPERM: "no permission to read it. Check the file's owner and mode.",
    errno.EMFILE: "this process has too many open files. Allow it more (`ulimit -n 1024`), or use fewer workers.",
    errno.ENFILE: "this machine has too many open files. Close some, or use fewer workers.",
}
_WRITE_ERRORS: dict[int | None, str] = {
    errno.ENOSPC: "the disk is full. Free some space or put the store on another disk, then run it again.",
    errno.EDQUOT: "the disk quota is used up. Free some space or choose another disk, then run it again.",
    errno.EFBIG: "the file grew beyond what the file system or a limit allows. Choose another disk.",
    errno.EACCES: "no permission. Change the folder's mode or owner, or choose another folder.",
    errno.EPERM: "no permission. Change the folder's mode or owner, or choose another folder.",
    errno.EROFS: "the file system is read-only. Choose another folder.",
    errno.ENOTDIR: "a part of that path is a file, not a folder. Choose another folder.",
    errno.EEXIST: "a part of that path is a file, not a folder. Choose another folder.",
    errno.EMFILE: "too many open files. Allow this process more (`ulimit -n 1024`), or use fewer workers.",
}


def _errno(error: Exception) -> int | None:
    """Find the operating system's error number; h5py often leaves it in the message alone."""
    number = getattr(error, "errno", None)
    found = re.search(r"errno = (\d+)", str(error))
    return number if number is not None else int(found[1]) if found else None
