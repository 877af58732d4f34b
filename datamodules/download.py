"""Fetch the data sets and weights: the files of `downloads.yaml`, from the first server that has them.

python -m datamodules.download {vqa,gqa,nlvr2,pretrain,weights} [FILE ...] [--to data] [--list]

A file is written beside its place as `NAME.part` and renamed when its size and hash are right, so what has its
name is whole. A run that ends early is continued by the next from where it was; what is there is not fetched
again.
"""

from __future__ import annotations

import argparse
import errno
import fnmatch
import json
import shutil
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from datamodules.hdf5 import StoreError, locked, publish, sha256_of
from lxmert.errors import InputError
from lxmert.files import fetch, write_text

LIST = Path(__file__).with_name("downloads.yaml")
SETS = ("vqa", "gqa", "nlvr2", "pretrain", "weights")
HUB_FILES = (["config.json"], ["vocab.txt"], ["model.safetensors", "pytorch_model.bin"])
TIMEOUT = 60.0  # seconds without an answer
RETRY_WAITS = (1.0, 5.0, 20.0)  # seconds before each further try of a broken connection, from its last progress on
BLOCK = 1 << 20

_DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR),
)


class DownloadError(InputError):
    """A file could not be had. The message tells what was tried and what to do."""


class _NoFile(Exception):
    """Why one server did not give a file."""


# ----------------------------------------------------------------------------------------- the list


@dataclass(frozen=True)
class Download:
    """One file of a server.

    Args:
        urls: its addresses, to be tried in order.
        targets: what becomes of it below the data folder: itself, or what is taken out of an archive.
        unpack: whether it is an archive.
        size: bytes; None where unknown.
        exact: whether `size` is to be checked.
        unpacked: bytes of the targets; None where unknown.
        sha256: hexadecimal digest; empty where unknown.
        extra: only fetched when named.
        by_hand: what to do when no server answers; may be empty.
    """

    urls: tuple[str, ...]
    targets: tuple[str, ...]
    unpack: bool
    size: int | None
    exact: bool
    unpacked: int | None
    sha256: str
    extra: bool
    by_hand: str

    @property
    def name(self) -> str:
        """Its name at the servers."""
        return PurePosixPath(urlsplit(self.urls[0]).path).name

    def path(self, folder: Path) -> Path:
        """Where it lies in the data folder while, or once, it is whole."""
        first = folder / self.targets[0]
        return first.with_name(self.name) if self.unpack else first

    def missing(self, folder: Path) -> list[str]:
        """The targets that are not there."""
        return [target for target in self.targets if not (folder / target).exists()]


@dataclass(frozen=True)
class HubRepository:
    """Weights of the Hugging Face hub, which the hub's library fetches into its own cache."""

    name: str
    size: int


def read_list(name: str, path: Path = LIST) -> tuple[list[Download], list[HubRepository]]:
    """The files and hub repositories of the set `name`."""
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    downloads = [
        Download(
            urls=tuple(f"{base}/{entry['path']}" for base in content["servers"][entry["server"]]),
            targets=tuple(entry.get("unpack") or [entry["to"]]),
            unpack="unpack" in entry,
            size=entry.get("bytes") or _bytes(entry.get("gb")),
            exact="bytes" in entry,
            unpacked=_bytes(entry.get("unpacked")),
            sha256=entry.get("sha256", ""),
            extra=entry.get("extra", False),
            by_hand=content.get("by_hand", {}).get(entry["server"], ""),
        )
        for entry in content["files"]
        if name in entry["for"]
    ]
    hub = [
        HubRepository(e["repository"], _bytes(e["gb"]) or 0) for e in content.get("hub", []) if name in e["for"]
    ]
    return downloads, hub


def _bytes(gb: float | None) -> int | None:
    return None if gb is None else int(gb * 1e9)


def choose(downloads: Sequence[Download], patterns: Sequence[str]) -> list[Download]:
    """Those whose name or a target fits one of the patterns; without patterns all but the extra ones.

    Raises:
        DownloadError: a pattern fits nothing.
    """
    if not patterns:
        return [download for download in downloads if not download.extra]
    chosen = []
    for pattern in patterns:
        found = [d for d in downloads if any(fnmatch.fnmatch(name, pattern) for name in (d.name, *d.targets))]
        if not found:
            raise DownloadError(f"no file called {pattern} in this set. --list shows them all.")
        chosen += [download for download in found if download not in chosen]
    return chosen


# ------------------------------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None, path: Path = LIST) -> int:
    """Fetch what is missing, or list it; 0 when everything is there, 1 with what failed, and why."""
    options = _parser().parse_intermixed_args(arguments)  # FILEs may follow options
    try:
        downloads, hub = read_list(options.set, path)
        if options.list:
            listed = choose(downloads, options.files) if options.files else downloads
            _print_list(options.set, listed, [] if options.files else hub, options.to)
            return 0
        failures = download(choose(downloads, options.files), options.to)
        failures += [] if options.files else _fetch_hub(hub)
    except (DownloadError, StoreError) as error:
        failures = [str(error)]
    except KeyboardInterrupt:
        failures = ["stopped"]
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if failures:
        print("What was fetched is kept: run the same command again to go on.", file=sys.stderr)
    return 1 if failures else 0


def download(downloads: Sequence[Download], folder: Path) -> list[str]:
    """Fetch what is missing of these into the data folder.

    One process at a time; another one waits and then finds the files there.

    Returns:
        What could not be had, as messages; the others are fetched nevertheless.

    Raises:
        DownloadError: too little free disk space.
        StoreError: the folder cannot be written.
    """
    failures = []
    with locked(folder / "download"):
        missing = [one for one in downloads if one.missing(folder)]
        _check_space(missing, folder)
        for number, one in enumerate(missing, 1):
            try:
                with _disk_errors(folder):
                    _get(one, folder, f"{number}/{len(missing)} {one.name}")
            except DownloadError as error:
                failures.append(str(error))
    return failures


def _fetch_hub(repositories: Sequence[HubRepository]) -> list[str]:
    failures = []
    for repository in repositories:
        try:
            for names in HUB_FILES:
                fetch(repository.name, names)
        except FileNotFoundError as error:
            failures.append(str(error))
    return failures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.download", description="Fetch the files of a data set, or weights."
    )
    parser.add_argument("set", choices=SETS)
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="only these, by a name of --list; * and ? stand for other letters"
    )
    parser.add_argument("--to", type=Path, default=Path("data"), metavar="FOLDER", help="the data folder (data)")
    parser.add_argument("--list", action="store_true", help="show files and sizes; asks no server")
    return parser


def _print_list(title: str, downloads: Sequence[Download], hub: Sequence[HubRepository], folder: Path) -> None:
    table = Table(title=f"{title}, into {folder}")
    for column in ("file", "fetched as", "size", "unpacked", "here", "from"):
        table.add_column(column, justify="right" if column in ("size", "unpacked") else "left", overflow="fold")
    for one in downloads:
        more = f" and {len(one.targets) - 1} more" if len(one.targets) > 1 else ""
        hosts = dict.fromkeys(urlsplit(url).hostname or "" for url in one.urls)
        table.add_row(
            one.targets[0] + more + (" (only when named)" if one.extra else ""),
            one.name,
            _text(one.size),
            _text(one.unpacked) if one.unpack else "",
            _state(one, folder),
            ", ".join(hosts),
        )
    for repository in hub:
        table.add_row(repository.name, "the hub's cache", _text(repository.size), "", "", "huggingface.co")
    table.add_section()
    counted = [one for one in downloads if not one.extra]
    table.add_row(
        "together",
        "",
        _text(sum(one.size or 0 for one in counted) + sum(repository.size for repository in hub)),
        _text(sum(one.unpacked or 0 for one in counted if one.unpack)),
        "",
        f"{sum(one.size is None for one in counted)} of unknown size not counted",
    )
    console = Console()
    console.print(table)
    for text in dict.fromkeys(one.by_hand for one in downloads if one.by_hand):
        console.print(text, highlight=False)


def _text(size: int | None) -> str:
    if size is None:
        return "?"
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} B"


def _state(one: Download, folder: Path) -> str:
    missing = len(one.missing(folder))
    if not missing:
        return "yes"
    if missing < len(one.targets):
        return f"{len(one.targets) - missing} of {len(one.targets)}"
    if one.path(folder).exists():
        return "not unpacked"
    part = _size(_part(one.path(folder)))
    return f"{_text(part)} of it" if part else "no"


# --------------------------------------------------------------------------------------- disk space


def _check_space(missing: Sequence[Download], folder: Path) -> None:
    """An archive is removed once it is unpacked, so what counts is the highest sum on the way."""
    kept = peak = 0
    for one in missing:
        part, whole = _size(_part(one.path(folder))), _size(one.path(folder))
        fetched = 0 if whole else max((one.size or 0) - part, 0)
        # An archive's content is no smaller than the archive.
        content = (one.unpacked or one.size or whole) if one.unpack else 0
        peak = max(peak, kept + fetched + content)
        kept += content - part - whole if one.unpack else fetched
    _require_space(folder, peak, f"{len(missing)} file(s), unpacked")


def _require_space(folder: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"{folder}: {what}, need {_text(needed)} or more, and {_text(free)} are free there. Free some space, "
            "choose another disk with --to, or name fewer files."
        )


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        where = error.filename or folder
        raise DownloadError(
            f"{where}: cannot be written: {error.strerror}. Mend that, or choose another folder with --to."
        ) from error


# ---------------------------------------------------------------------------------------- one file


def _get(one: Download, folder: Path, title: str) -> None:
    """Fetch one file, check it, unpack it; what a former run has done of this is not done again."""
    path = one.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _fetch(one, path, title)
    if one.unpack:
        _unpack(one, path, folder, title)
        path.unlink()


def _fetch(one: Download, path: Path, title: str) -> None:
    part, reasons = _part(path), []
    for url in one.urls:
        # A partial file may be of something else than the server has now. When it does not come out right,
        # that is found out by fetching all of it.
        for start_anew in (False, True):
            if start_anew:
                _remove(part)
            before = _size(part)
            try:
                with tqdm(desc=title, unit="B", unit_scale=True) as bar:
                    _fetch_from(url, part, one, bar)
                _check(part, one)
            except _NoFile as reason:
                reasons.append(f"\n  {url}: {reason}")
                if not before or _size(part):
                    break
                continue
            publish(part, path)
            _remove(part)
            return
    raise DownloadError(
        f"{path}: no server gave it:{''.join(reasons)}" + (f"\n{one.by_hand}" if one.by_hand else "")
    )


def _check(part: Path, one: Download) -> None:
    problem = None
    if one.exact and _size(part) != one.size:
        problem = f"it is of {_size(part):,} bytes, expected {one.size:,}"
    elif one.sha256 and (found := sha256_of(part)) != one.sha256:
        problem = f"its SHA-256 is {found}, expected {one.sha256}"
    elif one.unpack and not zipfile.is_zipfile(part):
        problem = "it is no zip archive, or is damaged"
    if problem:
        _remove(part)
        raise _NoFile(problem)


def _fetch_from(url: str, part: Path, one: Download, bar: tqdm) -> None:
    """Fetch the rest of a file into `part`; a connection that breaks is taken up again."""
    progress, waits = -1, iter(RETRY_WAITS)
    while True:
        try:
            _read_from(url, part, one, bar)
            return
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise
            reason = _reason(error)
            if progress < 0 and not bar.n - bar.initial:
                raise _NoFile(reason) from error  # it never answered
        if bar.n > progress:
            progress, waits = bar.n, iter(RETRY_WAITS)
        wait = next(waits, None)
        if wait is None:
            raise _NoFile(
                f"the connection broke at byte {_size(part):,} and could not be taken up again: {reason}"
            )
        time.sleep(wait)


def _read_from(url: str, part: Path, one: Download, bar: tqdm) -> None:
    note = _note(part)
    noted = json.loads(note.read_text()) if note.exists() else {}
    done = _size(part) if one.sha256 or noted.get("url") == url else 0
    headers = {"User-Agent": "lxmert-lightning", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
        if noted.get("url") == url and noted.get("etag"):
            headers["If-Range"] = noted["etag"]
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{done}":
            return  # nothing is left to fetch
        if error.code == 416:
            _remove(part)
        raise
    with response:
        start, total = _extent(response, done)
        if response.headers.get_content_type() == "text/html":
            raise _NoFile("the server answers with a web page")
        if one.exact and total is not None and total != one.size:
            raise _NoFile(f"the server has {total:,} bytes, expected {one.size:,}")
        _require_space(part.parent, (total or one.size or 0) - start, part.name.removesuffix(".part"))
        if not start:
            part.unlink(missing_ok=True)  # before the note, which must never speak of another file's bytes
        etag = response.headers.get("ETag", "")
        write_text(note, json.dumps({"url": url, "etag": "" if etag.startswith("W/") else etag}))
        bar.total, bar.initial, bar.n = total, start, start
        with part.open("ab") as file:
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
    if total is not None and bar.n != total:
        raise ConnectionError(f"the server stopped after {bar.n:,} of {total:,} bytes")


def _extent(response: HTTPResponse, done: int) -> tuple[int, int | None]:
    """Where in the file an answer begins, and the size of the whole, None where it is not told."""
    if response.status != 206:  # without ranges, or the file has changed: all of it comes
        length = response.headers.get("Content-Length")
        return 0, int(length) if length else None
    extent = response.headers.get("Content-Range", "")
    if not extent.startswith(f"bytes {done}-"):
        raise _NoFile(f"asked for bytes from {done:,} on, the server sent {extent or 'others'}")
    total = extent.rpartition("/")[2]
    return done, int(total) if total.isdigit() else None


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"{error.code} {error.reason}"
    return str(getattr(error, "reason", "") or error) or type(error).__name__


# ---------------------------------------------------------------------------------------- unpacking


def _unpack(one: Download, archive: Path, folder: Path, title: str) -> None:
    """Take the missing targets out of an archive, each written under another name and renamed when whole."""
    try:
        with zipfile.ZipFile(archive) as content:
            members = _members(one, content, archive, folder)
            size = sum(member.file_size for member in members.values())
            _require_space(folder, size, f"what {archive.name} holds")
            with tqdm(total=size, desc=f"{title}: unpack", unit="B", unit_scale=True) as bar:
                for target, member in members.items():
                    path = folder / target
                    path.parent.mkdir(parents=True, exist_ok=True)
                    part = _part(path)
                    with content.open(member) as source, part.open("wb") as file:
                        while block := source.read(BLOCK):
                            file.write(block)
                            bar.update(len(block))
                    publish(part, path)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        # A RuntimeError: it is encrypted, or packed in a way that zipfile does not know.
        archive.unlink()
        raise DownloadError(f"{archive}: damaged ({error}), and removed. Fetch it again.") from error


def _members(one: Download, content: zipfile.ZipFile, archive: Path, folder: Path) -> dict[str, zipfile.ZipInfo]:
    """The member of each missing target, found by its name in whatever folder of the archive."""
    by_name: dict[str, list[zipfile.ZipInfo]] = {}
    for member in content.infolist():
        place = PurePosixPath(member.filename.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or ":" in member.filename:
            raise DownloadError(
                f"{archive}: holds {member.filename!r}, a path outside of it; nothing was unpacked. This is not "
                "the file its makers published: remove it and get it elsewhere."
            )
        if not member.is_dir():
            by_name.setdefault(place.name, []).append(member)
    found = {}
    for target in one.missing(folder):
        name = PurePosixPath(target).name
        candidates = by_name.get(name, [])
        if len(candidates) != 1:
            held = ", ".join(sorted(by_name)[:10]) or "nothing"
            raise DownloadError(
                f"{archive}: holds {len(candidates)} files called {name}, expected one, and {held}. Unpack it "
                f"by hand as {folder / target}, then remove it."
            )
        found[target] = candidates[0]
    return found


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _note(part: Path) -> Path:
    """Beside a partial file: the address it comes from, so that it is not continued from another's."""
    return part.with_name(f"{part.name}.json")


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
