"""NLVR2: the makers' statements -> text stores."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.formats.checks import Where, no_repeat, take
from datamodules.formats.json_stream import Progress
from datamodules.formats.release_nlvr2 import RIGHT
from datamodules.prepare.preparation import Counts, Preparation
from datamodules.prepare.rows import shown, writing_rows
from lxmert.files import InputError, parse_json, shorten

MAKERS = {"train": "train.json", "valid": "dev.json", "test": "test1.json"}
IDENTIFIER = re.compile(r"(?P<pair>\w+-\d+-\d+)-\d+", re.ASCII)  # split, set, pair of images, sentence


class Statement(NamedTuple):
    """A statement and its two images, as the release calls them; the label is True or False."""

    text: str
    identifier: str
    left: str
    right: str
    label: str


def prepare_nlvr2(preparation: Preparation, splits: Sequence[str]) -> None:
    """Make `nlvr2/{train,valid,test}.h5`: statements about a left image and, as the group `RIGHT`, a right one.

    The identifier is the makers'; the label is {"True": 1.0} or {"False": 1.0}. Images are named as in the
    release: the identifier without its sentence, and -img0 (left) or -img1 (right).

    Args:
        preparation: of the task "nlvr2".
        splits: of train, valid and test.

    Raises:
        FileNotFoundError, InputError: files are missing, broken or have a statement twice.
    """
    files = preparation.find({MAKERS[split]: f"statements of {split}" for split in splits})
    for split in splits:
        source = files[MAKERS[split]]
        preparation.make([split], [source], lambda store, s=source: [_convert(s, store)])


def _convert(source: Path, store: Path) -> Counts:
    seen: set[str] = set()
    true = 0
    with writing_rows(store, sources=[source], groups=[RIGHT]) as rows:
        for where, row in shown(read_lines, source):
            statement = take_statement(row, where)
            no_repeat(seen, statement.identifier, where)
            true += statement.label == "True"
            label = {statement.label: 1.0}
            rows.add(statement.text, statement.identifier, statement.left, label, [statement.right])
    return rows.counts() | {"True": true}


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
