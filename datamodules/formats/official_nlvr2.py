"""NLVR2's statements, as their makers publish them: a JSON object a line."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.formats.checks import Where, take
from datamodules.formats.json_stream import Progress
from lxmert.files import InputError, parse_json, shorten

IDENTIFIER = re.compile(r"(?P<pair>\w+-\d+-\d+)-\d+", re.ASCII)  # split, set, pair of images, sentence


class Statement(NamedTuple):
    """A statement and its two images, as the release calls them; the label is True or False."""

    text: str
    identifier: str
    left: str
    right: str
    label: str


def take_statement(row: Any, where: Where) -> Statement:
    """A statement of the makers; InputError, naming the line, when it cannot be used."""
    identifier, sentence, label = take(row, where, identifier=str, sentence=str, label=str)
    match = IDENTIFIER.fullmatch(identifier)
    if match is None or label not in ("True", "False"):
        raise InputError(
            f"{where[0]}: line {where[2]}: identifier {shorten(identifier)} and label {shorten(label)}, expected "
            "split-set-pair-sentence and True or False. Mend or remove that line."
        )
    return Statement(sentence, identifier, f"{match['pair']}-img0", f"{match['pair']}-img1", label)


def read_lines(source: Path, *, progress: Progress | None = None) -> Iterator[tuple[Where, Any]]:
    """Where it is (lines from 1), and the object, for each line that is not blank; `progress` as of `items`.

    Raises:
        InputError: a line is not JSON; names it.
    """
    with source.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if content.strip():
                yield (source, "line", number), parse_json(content.rstrip(), f"{source}: line {number}")
            if progress:
                progress(len(line))
