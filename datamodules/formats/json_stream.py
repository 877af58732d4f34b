"""Reading large JSON files piece by piece, in constant memory.

A file's text goes through a buffer of some megabytes; the standard library's scanner reads one value at
the buffer's place, and where a value does not end within the buffer, the buffer grows and the value is
read again. Values, and what is refused, are those of `lxmert.files.read_json`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any, NoReturn

from datamodules.formats.opening import Progress, opened
from lxmert.files import InputError, check_characters, may_hold_halves, refuse_constant, refuse_repeats

CHUNK = 1 << 22  # bytes; large enough to make reading a value twice rare

_SPACE = re.compile(r"[ \t\n\r]*").match
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*").match
# No word, escape or unfinished number that the end of a chunk cuts off is longer.
_CUT_OFF = 16


def items(path: Path, *, chunk: int = CHUNK, progress: Progress | None = None) -> Iterator[Any]:
    """The elements of a file that is a JSON list.

    Args:
        path: the file, UTF-8, plain or compressed by gzip.
        chunk: bytes to read at once.
        progress: called with the number of bytes read of the file, after each read.

    Raises:
        InputError: the file is broken, truncated, not a list or holds what is no JSON; names the file and the
            byte.
    """
    with _reading(path, chunk, progress) as reader:
        reader.open("[", "a JSON list")
        yield from reader.elements()
        reader.finish()


def entries(path: Path, *, chunk: int = CHUNK, progress: Progress | None = None) -> Iterator[tuple[str, Any]]:
    """The names and values of a file that is a JSON object, as they come; arguments and errors as `items`."""
    with _reading(path, chunk, progress) as reader:
        reader.open("{", "a JSON object")
        for name in reader.names():
            yield name, reader.value()
        reader.finish()


def member(path: Path, name: str, *, chunk: int = CHUNK, progress: Progress | None = None) -> Iterator[Any]:
    """The elements of the list `name` in a file that is a JSON object, such as "annotations" of COCO's.

    The other members are read and forgotten element by element, those after it too, so that a truncated
    file is noticed. Arguments and errors as `items`; InputError also when there is no such list.
    """
    with _reading(path, chunk, progress) as reader:
        reader.open("{", f"a JSON object with a list {name!r}")
        others: list[str] = []
        for found in reader.names():
            if found in others:
                raise InputError(f"{path}: {found[:80]!a} is there twice. Keep one of each.")
            if found == name:
                reader.open("[", f"a list as {name!r}")
                yield from reader.elements()
            else:
                reader.skip()
            others.append(found)
        reader.finish()
    if name not in others:
        raise InputError(f"{path}: no list {name!r}, only {_some(others)}. Is it the right file?")


def outline(path: Path, *, chunk: int = CHUNK) -> Iterator[tuple[str, Any]]:
    """As `entries`, with an empty list in place of each list, which is passed element by element."""
    with _reading(path, chunk, None) as reader:
        reader.open("{", "a JSON object")
        for name in reader.names():
            if reader.at_list():
                yield name, []
                reader.skip()
            else:
                yield name, reader.value()
        reader.finish()


def _some(names: list[str]) -> str:
    listed = ", ".join(name[:40] for name in names[:8]) + (", ..." if len(names) > 8 else "")
    return listed or "nothing"


@contextmanager
def _reading(path: Path, chunk: int, progress: Progress | None) -> Iterator[_Reader]:
    with opened(path, progress) as file:
        yield _Reader(path, file.read, chunk)


class _Reader:
    """A place in a JSON text, of which a part is in memory."""

    def __init__(self, path: Path, read: Callable[[int], bytes], chunk: int) -> None:
        self.path, self.chunk = path, chunk
        self.text, self.place = "", 0
        self._read = read
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        decoder = json.JSONDecoder(object_pairs_hook=refuse_repeats, parse_constant=refuse_constant)
        self._scan = decoder.scan_once  # type: ignore[attr-defined]  # what raw_decode calls
        self._halves = False  # whether a text in the buffer may hold half a character
        self._dropped = 0  # bytes of the text that is no longer in memory
        self._bytes = 0  # bytes read
        self._ended = False

    # -------------------------------------------------------------------------------------- reading

    def open(self, bracket: str, what: str) -> None:
        """Pass the bracket that opens a list or an object."""
        if self._peek() != bracket:
            self._fail(self.place, f"expected {what}")
        self.place += 1

    def elements(self) -> Iterator[Any]:
        """The elements of the list that has been opened."""
        if self._closed("]"):
            return
        comma = ", "  # as it is written in this file, with the space after it
        while True:
            # Most of the time the buffer holds the next elements whole: as few calls for each as can be.
            text, scan, whole = self.text, self._scan, not self._halves
            try:
                while whole:
                    value, end = scan(text, self.place)
                    if text.startswith(comma, end):
                        self.place = end + len(comma)
                    elif (found := _COMMA(text, end)) and found.end() < len(text):
                        comma, self.place = found.group(), found.end()
                    else:
                        break
                    yield value
            except (StopIteration, ValueError, RecursionError):
                pass  # cut off by the end of the buffer, or wrong: `value` knows
            yield self.value()
            if self._next("]"):
                return

    def names(self) -> Iterator[str]:
        """The names in the object that has been opened; read each one's value before the next."""
        if self._closed("}"):
            return
        while True:
            if self._peek() != '"':
                self._fail(self.place, "expected a name in double quotes")
            name = self.value()
            if self._peek() != ":":
                self._fail(self.place, "expected :")
            self.place += 1
            yield name
            if self._next("}"):
                return

    def value(self) -> Any:
        """The next value, whole: the mark that follows it is in the buffer."""
        self._peek()
        while True:
            try:
                value, end = self._scan(self.text, self.place)
            except StopIteration as stop:
                wrong, what, cut_off = stop.value, "expected a value", False
            except JSONDecodeError as error:
                wrong, what = error.pos, error.msg
                cut_off = what.startswith("Unterminated string")
            except RecursionError:
                self._refuse("nested too deeply for a file of this kind")
            except ValueError as error:
                self._refuse(str(error))
            else:
                wrong, what, cut_off = _SPACE(self.text, end).end(), "expected , : ] or }", False  # type: ignore[union-attr]
                if self.text[wrong : wrong + 1] in (*",:]}", "") and (wrong < len(self.text) or self._ended):
                    self._check_characters(value, end)
                    self.place = end
                    return value
            if (not cut_off and wrong < len(self.text.rstrip()) - _CUT_OFF) or not self._grow():
                self._fail(wrong, what)

    def _check_characters(self, value: Any, end: int) -> None:
        if self._halves:
            try:
                check_characters(self.text[self.place : end], value)
            except (ValueError, RecursionError) as error:
                self._refuse(str(error))

    def at_list(self) -> bool:
        """Whether the next value is a list."""
        return self._peek() == "["

    def skip(self) -> None:
        """Pass the next value, holding one element of a list or object at a time."""
        mark = self._peek()
        if mark == "[":
            self.place += 1
            for _ in self.elements():
                pass
        elif mark == "{":
            self.place += 1
            for _ in self.names():
                self.value()
        else:
            self.value()

    def finish(self) -> None:
        """Check that nothing follows."""
        if self._peek():
            self._fail(self.place, "expected nothing more")

    # --------------------------------------------------------------------------------- the buffer

    def _closed(self, bracket: str) -> bool:
        """Whether the list or object that has been opened is empty; passes its end."""
        if self._peek() != bracket:
            return False
        self.place += 1
        return True

    def _next(self, bracket: str) -> bool:
        """Pass a comma and the space after it, or the closing bracket; whether it was the latter."""
        mark = self._peek()
        if mark not in (",", bracket):
            self._fail(self.place, f"expected , or {bracket}")
        self.place += 1
        if mark == ",":
            self._peek()
        return mark == bracket

    def _peek(self) -> str:
        """The next character that is no space, without passing it; nothing at the end of the file."""
        while True:
            self.place = _SPACE(self.text, self.place).end()  # type: ignore[union-attr]  # matches anywhere
            if self.place < len(self.text):
                return self.text[self.place]
            if not self._grow():
                return ""

    def _grow(self) -> bool:
        """Forget what lies before the place and read on, as much as there is left; False at the end."""
        if self._ended:
            return False
        rest = self.text[self.place :]
        self._dropped += len(self.text[: self.place].encode())
        # A value longer than the buffer is read again each time: double, or long ones take forever.
        data = self._read(max(self.chunk, len(rest), len(codecs.BOM_UTF8)))
        if not self._bytes and data.startswith(codecs.BOM_UTF8):
            self._bytes = self._dropped = len(codecs.BOM_UTF8)
            data = data[self._bytes :] or self._read(self.chunk)
        cut_off = len(self._decoder.getstate()[0])
        try:
            more = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            place = self._bytes - cut_off + error.start
            raise InputError(f"{self.path}: not UTF-8 text at byte {place:,}. Get the file again.") from error
        self._bytes += len(data)
        self.text, self.place, self._ended = rest + more, 0, not data
        self._halves = may_hold_halves(self.text)
        return True

    def _refuse(self, what: str) -> NoReturn:
        """Refuse the value at the place, which is JSON or nearly."""
        byte = self._dropped + len(self.text[: self.place].encode())
        raise InputError(f"{self.path}: in the value at byte {byte:,}: {what}. Mend or remove that value.")

    def _fail(self, place: int, what: str) -> NoReturn:
        size = self._bytes if self._ended else self.path.stat().st_size
        byte = self._dropped + len(self.text[:place].encode())
        raise InputError(
            f"{self.path}: broken JSON at byte {byte:,} of {max(size, self._bytes):,}: {what}. "
            + ("It is cut off: get" if byte >= size else "Get")
            + " the file again."
        )
