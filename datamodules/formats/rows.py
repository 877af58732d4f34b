"""Rows of a text file in a form of one's own: JSON list, JSON lines, CSV, TSV; each also compressed by gzip.

A line ends at a line feed, with or without a carriage return before it, and nowhere else: what Unicode calls
line separators are part of the text. A byte order mark at the start is passed.
"""

from __future__ import annotations

import codecs
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datamodules.formats.checks import Where
from datamodules.formats.json_stream import items
from datamodules.formats.opening import Progress, opened
from lxmert.files import InputError, parse_json, shorten

ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".json.gz", ".jsonl.gz", ".csv.gz", ".tsv.gz")
Row = tuple[Where, Any]  # where it is, and what it is: an object in JSON, texts by column in CSV and TSV


def read_rows(path: Path, *, progress: Progress | None = None) -> Iterator[Row]:
    """The rows of a file, by its ending and, where that is .json, by its first mark.

    Args:
        path: .json (a list, or an object a line), .jsonl, .csv or .tsv (with the columns' names in the first
            line), each also with .gz.
        progress: called with the number of bytes read, after each read.

    Raises:
        InputError: broken, not UTF-8, or rows of another form; names the file and the place.
    """
    kind = _kind(path)
    if is_table(path):
        yield from table_rows(path, "," if kind == "csv" else "\t", progress=progress)
    elif kind == "jsonl" or first_mark(path) == "{":
        yield from json_lines(path, progress=progress)
    else:
        for number, row in enumerate(items(path, progress=progress)):
            yield (path, "row", number), row


def is_table(path: Path) -> bool:
    """Whether a file's values are all texts: CSV or TSV."""
    return _kind(path) in ("csv", "tsv")


def _kind(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[2]


def first_mark(path: Path) -> str:
    """The first character of a file that is no space, such as [ of a list; nothing of a blank file."""
    with opened(path) as file:
        return file.read(1 << 16).decode("utf-8-sig", "replace").lstrip()[:1]


def json_lines(path: Path, *, progress: Progress | None = None) -> Iterator[Row]:
    """The values of a file with one a line, lines counted from 1; blank lines are passed.

    Raises:
        InputError: a line is not JSON; names it.
    """
    with opened(path, progress) as file:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if content.strip():
                yield (path, "line", number), parse_json(content.rstrip(), f"{path}: line {number}")


def table_rows(path: Path, delimiter: str, *, progress: Progress | None = None) -> Iterator[Row]:
    """The rows of a CSV or TSV file as texts by column; lines are counted from 1, blank ones passed.

    Raises:
        InputError: no or repeated names of columns, a row with more or fewer fields, a quote that does not end.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with opened(path, progress) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            names = [name.strip() for name in next(reader, [])]
            _check_names(path, names, delimiter)
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(names):
                    raise InputError(
                        f"{path}: line {reader.line_num}: {len(fields)} fields, expected {len(names)} as in the "
                        f"first line: {', '.join(names)}. Put a text that has a {_named(delimiter)} in it into "
                        "double quotes."
                    )
                yield (path, "line", reader.line_num), dict(zip(names, fields, strict=True))
        except csv.Error as error:
            what = str(error).replace("\t", "tab")
            raise InputError(
                f"{path}: line {reader.line_num}: {what}. Put a text that has double quotes in it into double "
                'quotes, and write each of its own twice: "he said ""stop""".'
            ) from error
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: not UTF-8 text after line {reader.line_num} ({error.reason}). Save it as UTF-8."
            ) from error


def _check_names(path: Path, names: Sequence[str], delimiter: str) -> None:
    if not any(names):
        raise InputError(f"{path}: empty, expected the names of the columns in the first line.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: two columns are called {shorten(twice[0])}. Give each a name of its own.")
    if len(names) == 1:
        raise InputError(
            f"{path}: one column, {shorten(names[0])}; expected several, with a {_named(delimiter)} between them."
        )


def _named(delimiter: str) -> str:
    return "comma" if delimiter == "," else "tab"
