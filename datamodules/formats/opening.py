"""Opening text files, plain or compressed by gzip."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from lxmert.files import InputError

Progress = Callable[[int], object]
GZIP = b"\x1f\x8b"  # what a file of gzip begins with


class _Counted(io.FileIO):
    """A file that tells how many bytes of it are read: of a compressed one, of what lies on the disk."""

    progress: Progress | None = None

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        count = super().readinto(buffer)
        if self.progress and count:
            self.progress(count)
        return count


@contextmanager
def opened(path: Path, progress: Progress | None = None) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where gzip made it, whatever it is called.

    Args:
        path: the file.
        progress: called with the number of bytes read of the file, after each read.

    Raises:
        InputError: what gzip made is damaged or cut off; raised within the block, where it is read.
        OSError: it cannot be read.
    """
    with _Counted(path) as raw:
        compressed = raw.read(len(GZIP)) == GZIP
        raw.seek(0)
        raw.progress = progress
        file = io.BufferedReader(raw)
        if not compressed:
            yield cast(BinaryIO, file)
            return
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast(BinaryIO, unpacked)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{path}: damaged or cut off where gzip made it ({error}). Get it again.") from error
