"""Arrays in `.npy` and `.npz`: what they are and how large is checked before they are read."""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from datamodules.formats.pickles import safe_loads
from datamodules.stores import LARGEST_ARRAY, StoreError

_HEADERS: Mapping[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


class Header(NamedTuple):
    """What an array is: its shape, whether it lies column by column, its dtype."""

    shape: tuple[int, ...]
    by_column: bool
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def image_id_of(name: str, ending: str) -> str:
    """The image whose file is called `name`: without `ending`, and without a picture's ending before it."""
    name = name.removesuffix(ending)
    picture = next((each for each in PICTURES if name.lower().endswith(each)), "")
    return name[: len(name) - len(picture)]


def read_header(stream: IO[bytes]) -> Header:
    """The header of a `.npy` stream, which then stands at the array's first byte."""
    return Header(*_HEADERS[np.lib.format.read_magic(stream)](stream))


def checked_header(stream: IO[bytes], name: str, length: int, kinds: str) -> Header:
    """The header of a `.npy` stream that is of these kinds and as long as it says; as of `read_array`."""
    header = read_header(stream)
    left = length - stream.tell()
    if header.dtype.kind not in kinds:
        raise TypeError(f"{name} holds {header.dtype}, expected {'whole ' * (kinds == 'iu')}numbers")
    if left > LARGEST_ARRAY or (header.dtype.kind != "O" and header.size != left):
        raise StoreError(
            f"{name} unpacks to {length} bytes, expected its header's {header.size} and at most {LARGEST_ARRAY}"
        )
    return header


def read_array(stream: IO[bytes], name: str, length: int, kinds: str) -> np.ndarray:
    """The array of a `.npy` stream; an object that was pickled into it where `kinds` is O.

    Args:
        stream: at its begin.
        name: of the array, for messages.
        length: bytes of the whole stream.
        kinds: what kinds of numbers it may hold, by numpy's letters.

    Raises:
        TypeError, StoreError, and what numpy raises over a damaged one.
    """
    header = checked_header(stream, name, length, kinds)
    begin = stream.tell()
    content = stream.read(length - begin)
    if header.dtype.kind == "O":
        found = safe_loads(content)
        if not isinstance(found, np.ndarray):
            raise pickle.UnpicklingError(f"{name} holds no array")
        return found
    return np.frombuffer(content, header.dtype).reshape(header.shape, order="F" if header.by_column else "C")


class Archive:
    """The arrays of an npz file, read one by one; a context manager."""

    def __init__(self, file: Path | IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file)
        self._members = {info.filename.removesuffix(".npy"): info for info in self._zip.infolist()}

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        """What its arrays are called."""
        return list(self._members)

    def header(self, name: str, kinds: str) -> Header:
        """What an array is, which is not read; arguments and errors as of `read_array`."""
        member = self._members[name]
        with self._zip.open(member) as stream:
            return checked_header(stream, member.filename, member.file_size, kinds)

    def read(self, name: str, kinds: str) -> np.ndarray:
        """An array; arguments and errors as of `read_array`."""
        member = self._members[name]
        with self._zip.open(member) as stream:
            return read_array(stream, member.filename, member.file_size, kinds)

    def read_all(self, names: Iterable[str], kinds: Mapping[str, str]) -> dict[str, np.ndarray]:
        """Several arrays by name."""
        return {name: self.read(name, kinds[name]) for name in names}
