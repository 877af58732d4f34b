"""Checks of values that the rows of several formats share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lxmert.evaluate import identifier_problem
from lxmert.evaluate import label_problem as label_problem
from lxmert.files import InputError, shorten

KINDS = {int: "an integer", str: "a text", list: "a list", dict: "an object", bool: "true or false"}
BLANK = "\0\ufeff" + "".join(character for character in map(chr, range(0x3001)) if character.isspace())
Where = tuple[Path, str, Any]  # the file, what its rows are, and the row's number (from 0) or id


def is_text(value: Any) -> bool:
    """Whether `value` is a text that is not blank."""
    return isinstance(value, str) and bool(value.strip(BLANK))


def take(row: Any, where: Where, **kinds: type) -> list[Any]:
    """The named fields of a row, each of the given type, no text blank and no integer of more than 64 bits.

    Args:
        row: an element of a JSON file.
        where: the file, what its rows are, and the row's number (from 0) or id; for messages.
        kinds: name -> type.

    Raises:
        InputError: a field is missing or of another type.
    """
    values = []
    for name, kind in kinds.items():
        value = row.get(name) if isinstance(row, dict) else None
        if (
            type(value) is not kind
            or (kind is str and not is_text(value))
            or (isinstance(value, int) and not -(2**63) <= value < 2**63)
        ):
            found = f"{name} is {shorten(value)}" if isinstance(row, dict) else f"found {shorten(row)}"
            raise InputError(
                f"{place_of(where)}: {found}, expected {KINDS[kind]} as {name}. Mend or remove that row."
            )
        values.append(value)
    return values


def take_ids(row: Any, where: Where, *names: str) -> list[str]:
    """The named fields of a row that are texts which identify something; errors as of `take`."""
    values = take(row, where, **dict.fromkeys(names, str))
    for name, value in zip(names, values, strict=True):
        check_identifier(value, name, where)
    return values


def check_identifier(value: str, name: str, where: Where) -> None:
    """Raise InputError unless the text `value` can identify something."""
    if problem := identifier_problem(value, str):
        raise InputError(f"{place_of(where)}: {name} is {shorten(value)}, {problem}. Mend or remove that row.")


def no_repeat(seen: set[Any], identifier: Any, where: Where) -> None:
    """Add an identifier to those seen; InputError when it is there already."""
    if identifier in seen:
        raise InputError(f"{place_of(where)}: {str(identifier)[:80]} is there a second time. Remove one.")
    seen.add(identifier)


class Identifiers:
    """The ids of a file's rows: integers or texts, as the first one is, each once.

    A store has them as texts where they are mixed: 1 and "1" would be the same.
    """

    def __init__(self) -> None:
        self._kind: type | None = None
        self._seen: set[int | str] = set()

    def take(self, value: Any, name: str, where: Where) -> int | str:
        """The id `value`; InputError where it is none, of another type, or there already."""
        self._kind = self._kind or (type(value) if type(value) in (int, str) else str)
        if problem := identifier_problem(value, self._kind):
            raise InputError(
                f"{place_of(where)}: {name} is {shorten(value)}, {problem} as in the first row. Mend or remove "
                "that row."
            )
        no_repeat(self._seen, value, where)
        return value


def place_of(where: Where) -> str:
    """A row's place, as a message calls it."""
    file, rows, number = where
    return f"{file}: {rows} {number if isinstance(number, int) else number[:80]}"
