"""One file of an HTTP server, into a partial file that a later call continues.

Nothing that a server says is taken on trust: what is too large is stopped where it shows, and pages, encoded
bodies, other schemes and headers that contradict themselves are refused in words.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

from lxmert.files import InputError, read_json, write_text

TIMEOUT = 60.0  # seconds without an answer
RETRY_WAITS = (1.0, 5.0, 20.0)  # seconds before each further try of a broken connection, from its last progress on
BLOCK = 1 << 18
PAGES = ("text/html", "application/xhtml+xml", "text/xml", "application/xml")  # none of our files is one
_STRONG_TAG = re.compile(r'"[\x21\x23-\x7e]{1,1000}"')
_EXTENT = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)", re.ASCII)
_MARK = b"\xef\xbb\xbf"  # a byte order mark


class DownloadError(InputError):
    """A file could not be had. The message tells what was tried and what to do."""


class NoFile(Exception):
    """Why one server did not give a file."""


class _Broken(Exception):
    """Why a connection ended; it may be tried again."""


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is fetched.

    Args:
        least: bytes that it has at least.
        most: bytes that it has at most; fetching stops there.
        size: the same in words.
        json: whether it is JSON.
        hashed: whether its hash is known: then it does not matter where a partial file came from.
    """

    least: int
    most: int
    size: str
    json: bool
    hashed: bool

    def objection(self, size: int) -> str | None:
        """What is wrong with a size in bytes."""
        return None if self.least <= size <= self.most else f"{size:,} bytes, expected {self.size}"


def fetch_from(url: str, part: Path, expected: Expected, bar: tqdm) -> None:
    """Fetch the rest of a file into `part`; a connection that breaks is taken up again.

    Raises:
        NoFile: the server does not give it.
        DownloadError: too little free disk space.
        OSError: `part` cannot be written.
    """
    progress, waits = -1, iter(RETRY_WAITS)
    while True:
        try:
            _read_from(url, part, expected, bar)
            return
        except _Broken as error:
            reason = error
            if progress < 0 and not bar.n - bar.initial:
                raise NoFile(str(reason)) from error  # it never answered
        if bar.n > progress:
            progress, waits = bar.n, iter(RETRY_WAITS)
        wait = next(waits, None)
        if wait is None:
            raise NoFile(
                f"the connection broke at byte {size_of(part):,} and could not be taken up again: {reason}"
            )
        time.sleep(wait)


def _read_from(url: str, part: Path, expected: Expected, bar: tqdm) -> None:
    noted = _read_note(part)
    done = size_of(part) if expected.hashed or noted.get("url") == url else 0
    headers = {"User-Agent": "lxmert-lightning", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
        if noted.get("url") == url and noted["etag"]:
            headers["If-Range"] = noted["etag"]
    try:
        with _network():
            response = build_opener(_HttpOnly).open(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{done}":
            return  # nothing is left to fetch
        if error.code == 416:
            remove(part)
        raise _Broken(plain(f"{error.code} {error.reason}")) from error
    with response:
        start, total = _extent(response, done, expected)
        if start and noted.get("url") == url and noted["total"] not in (None, total):
            remove(part)
            raise NoFile("the file has changed since its first part was fetched")
        if total is not None and (objection := expected.objection(total)):
            raise NoFile(f"the server has {objection}")
        require_space(part.parent, (total or expected.least) - start, part.name.removesuffix(".part"))
        block = _read(response)
        if not start:
            if is_page(block):
                raise NoFile("the server answers with a web page")
            part.unlink(missing_ok=True)  # before the note, which must never speak of another file's bytes
        etag = response.headers.get("ETag", "")
        tag = etag if _STRONG_TAG.fullmatch(etag) else ""
        write_text(_note(part), json.dumps({"url": url, "etag": tag, "total": total}))
        bar.total, bar.initial, bar.n = total, start, start
        most = expected.most if total is None else total
        with part.open("ab") as file:
            while block:
                if bar.n + len(block) > most:
                    remove(part)
                    raise NoFile(f"the server sends more than {most:,} bytes, expected {expected.size}; stopped")
                file.write(block)
                bar.update(len(block))
                block = _read(response)
    if total is not None and bar.n != total:
        raise _Broken(f"the server stopped after {bar.n:,} of {total:,} bytes")


class _HttpOnly(HTTPRedirectHandler):
    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        fp.close()  # or urllib reads the page that comes with it, however long it is
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise NoFile(plain(f"it sends on to {newurl}, which is no http address"))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _network() -> Iterator[None]:
    """Tell what goes wrong with the connection from what goes wrong with the disk."""
    try:
        yield
    except HTTPError:
        raise
    # The last two: an address or a number in a header that cannot be read, and one of no port.
    except (OSError, HTTPException, ValueError, OverflowError) as error:
        raise _Broken(plain(getattr(error, "reason", "") or error) or type(error).__name__) from error


def _read(response: HTTPResponse) -> bytes:
    # Not `read`, which takes a negative length of a chunk for "all there is".
    with _network():
        return response.read1(BLOCK)


def _extent(response: HTTPResponse, done: int, expected: Expected) -> tuple[int, int | None]:
    """Where in the file an answer begins, and the size of the whole, None where it is not told."""
    headers = response.headers
    if response.status not in (200, 206):
        raise NoFile(f"the server answers with status {response.status} in place of the file")
    kind = headers.get_content_type()
    if kind in PAGES or (kind.endswith("json") and not expected.json):
        raise NoFile(f"the server answers with a web page or a message ({plain(kind)})")
    for name, allowed in (("Content-Encoding", ("identity",)), ("Transfer-Encoding", ("identity", "chunked"))):
        value = headers.get(name)
        if value and value.strip().lower() not in allowed:
            raise NoFile(f"the server sends it encoded, {name}: {plain(value)}, which it was asked not to do")
    length = None if headers.get("Transfer-Encoding") else _length(headers.get_all("Content-Length") or [])
    if response.status == 200:  # without ranges, or the file has changed: all of it comes
        return 0, length
    extent = headers.get("Content-Range", "")
    found = _EXTENT.fullmatch(extent)
    if not found or int(found[1]) != done:
        raise NoFile(f"asked for bytes from {done:,} on, the server sent {plain(extent) or 'others'}")
    end = int(found[2]) + 1
    total = end if found[3] == "*" else int(found[3])
    if not done < end <= total or length not in (None, end - done):
        raise NoFile(f"the server contradicts itself: {plain(extent)}, of length {length}")
    return done, total


def _length(values: list[str]) -> int | None:
    if not values:
        return None
    if len(set(values)) > 1 or not re.fullmatch(r"[0-9]{1,15}", values[0].strip()):
        raise NoFile(f"the server tells a length that is none: {plain(', '.join(values))}")
    return int(values[0])


def is_page(head: bytes) -> bool:
    """Whether a file that begins like this is HTML or XML, which none of ours is."""
    return head.removeprefix(_MARK).lstrip().startswith(b"<")


def looks_like_json(path: Path) -> bool:
    """Whether a file begins and ends as arrays and objects do; one of hundreds of MB is not parsed for it."""
    with path.open("rb") as file:
        head = file.read(100).removeprefix(_MARK).lstrip()
        file.seek(max(size_of(path) - 100, 0))
        tail = file.read().rstrip()
    return head[:1] in (b"[", b"{") and tail[-1:] in (b"]", b"}")


def plain(text: Any) -> str:
    """What a server or an archive says, fit for a message: printable and short."""
    text = " ".join(str(text).split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text[:301])
    return text if len(text) <= 300 else text[:300] + "..."


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise DownloadError unless `needed` bytes are free in the folder."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"{folder}: {what}, need {size_text(needed)} or more, and {size_text(free)} are free there. Free some "
            "space, choose another disk with --to, or name fewer files."
        )


def size_text(size: int | None) -> str:
    """A number of bytes for people."""
    if size is None:
        return "?"
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} B"


# ---------------------------------------------------------------------------------- the partial file


def part_of(path: Path) -> Path:
    """What `path` is called until it is whole."""
    return path.with_name(f"{path.name}.part")


def size_of(path: Path) -> int:
    """Bytes; 0 where there is no such file."""
    return path.stat().st_size if path.exists() else 0


def remove(part: Path) -> None:
    """Remove a partial file and the note on it."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    """Beside a partial file: the address it comes from, so that it is not continued from another's."""
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> dict[str, Any]:
    """The note on a partial file; empty where there is none, or a damaged one: the file then starts anew."""
    note = _note(part)
    try:
        noted = read_json(note) if note.exists() else {}
    except InputError:
        return {}
    known = isinstance(noted, dict) and {"url", "etag", "total"} <= noted.keys()
    tag = noted["etag"] if known else None
    return noted if isinstance(tag, str) and (not tag or _STRONG_TAG.fullmatch(tag)) else {}
