"""Files out of zip archives that others made."""

from __future__ import annotations

import errno
import hashlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from datamodules.download.fetching import DownloadError, part_of, plain, require_space, size_of, size_text
from datamodules.progress import progress_bar

BLOCK = 1 << 20
_NOT_THEIRS = "This is not the file its makers published: remove it and get it elsewhere."
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others take the memory that their headers ask for
MOST_RATIO = 100  # content to archive; the texts here have up to 20, regions in base64 under 3
HARMLESS = 100_000_000  # bytes that may come out of an archive however small


class _Damaged(Exception):
    """What is wrong with an archive's bytes."""


@dataclass(frozen=True)
class Unpacked:
    """A whole file, still under its partial name."""

    path: Path
    part: Path
    size: int
    sha256: str


def unpack(archive: Path, paths: Sequence[Path], size: int | None, title: str) -> Iterator[Unpacked]:
    """Take the files called like `paths` out of an archive, wherever in it they are.

    Args:
        archive: the archive; removed when it is damaged.
        paths: where the files belong.
        size: bytes that they have together, roughly; None where unknown.
        title: for the progress bar.

    Raises:
        DownloadError: it is damaged, or of no kind that is known here, lacks one of the files, holds what no data
            set does (paths outside of it, links, a name twice), or unpacks to far more than expected.
        OSError: what is taken out cannot be written.
    """
    try:
        with _open(archive) as content:
            members = _members(content, archive, paths)
            total = sum(member.file_size for member in members.values())
            most = 2 * size if size else max(MOST_RATIO * size_of(archive), HARMLESS)
            if total > most:
                raise DownloadError(
                    f"{archive}: what is wanted of it would take {size_text(total)}, expected at most "
                    f"{size_text(most)}; nothing was unpacked. {_NOT_THEIRS}"
                )
            require_space(archive.parent, total, f"what {archive.name} holds")
            with progress_bar(f"{title}: unpack", total) as bar:
                for path, member in members.items():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    yield _take(content, member, path, bar)
    except _Damaged as error:
        archive.unlink()
        raise DownloadError(f"{archive}: damaged ({error}), and removed. Fetch it again.") from error


def _open(archive: Path) -> zipfile.ZipFile:
    with _damage():
        return zipfile.ZipFile(archive)


def _take(content: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, bar: tqdm) -> Unpacked:
    part, digest, size = part_of(path), hashlib.sha256(), 0
    with _damage():
        source = content.open(member)
    with source, part.open("wb") as file:
        while True:
            with _damage():  # zipfile stops at the declared size, and compares the CRC there
                block = source.read(BLOCK)
            if not block:
                break
            file.write(block)
            digest.update(block)
            size += len(block)
            bar.update(len(block))
    if size != member.file_size:
        raise _Damaged(f"{path.name} has {size:,} bytes, its header says {member.file_size:,}")
    return Unpacked(path, part, size, digest.hexdigest())


def _members(content: zipfile.ZipFile, archive: Path, paths: Sequence[Path]) -> dict[Path, zipfile.ZipInfo]:
    """The member for each path, found by its name in whatever folder of the archive."""
    by_name: dict[str, list[zipfile.ZipInfo]] = {}
    seen = set()
    for member in content.infolist():
        if fault := _fault(member) or ("the same name twice" if member.filename in seen else None):
            raise DownloadError(
                f"{archive}: holds {plain(member.filename)!r}, {fault}; nothing was unpacked. {_NOT_THEIRS}"
            )
        seen.add(member.filename)
        if not member.is_dir():
            by_name.setdefault(PurePosixPath(member.filename).name, []).append(member)
    return {path: _member(by_name, archive, path) for path in paths}


def _member(by_name: dict[str, list[zipfile.ZipInfo]], archive: Path, path: Path) -> zipfile.ZipInfo:
    candidates, problem = by_name.get(path.name, []), None
    if len(candidates) != 1:
        held = plain(", ".join(sorted(by_name)[:10])) or "nothing"
        problem = f"holds {len(candidates)} files called {path.name}, expected one, and {held}"
    elif candidates[0].flag_bits & 1:
        problem = f"holds {path.name} encrypted"
    elif (method := candidates[0].compress_type) not in METHODS:
        problem = f"holds {path.name} compressed by method {method}, which is not known here"
    if problem:
        raise DownloadError(f"{archive}: {problem}. Unpack it by hand as {path}, then remove it.")
    return candidates[0]


def _fault(member: zipfile.ZipInfo) -> str | None:
    """What of a member no data set has."""
    place = PurePosixPath(member.filename.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or ":" in member.filename:
        return "a path outside of it"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link" if kind == stat.S_IFLNK else "neither a file nor a folder"
    return None


@contextmanager
def _damage() -> Iterator[None]:
    """What zipfile raises on broken bytes, as one error."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError) as error:
        raise _Damaged(plain(error)) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the file's beginning
            raise
        raise _Damaged(plain(error)) from error
