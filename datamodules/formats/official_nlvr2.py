"""NLVR2's statements, as their makers publish them: a JSON object a line."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from datamodules.formats.checks import Where, take
from lxmert.files import InputError, shorten

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
