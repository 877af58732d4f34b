"""Sentences that mean one thing of a picture, with its box: a JSON list, and the text store that it becomes.

`{"id": 7, "img_id": "COCO_train2014_000000581857", "sent": "the lady with the blue shirt", "box": [x, y, width,
height]}`, boxes in pixels; `"size": [width, height]` of the picture that these are of, where it is known;
`"others": [box, ...]`, where the choice is among boxes that are given, the wrong ones. Without `box` a file can be
predicted alone. A field that is optional is in all rows of a file, or in none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.formats.checks import Identifiers, Where, check_identifier, place_of, take
from datamodules.formats.json_stream import items
from datamodules.stores import writing_rows
from lxmert.files import InputError, shorten, write_text

Box = tuple[float, float, float, float]  # x, y, width, height in pixels
SLACK = 1.0  # pixels that a box may lie outside of its picture: some annotations count them from 1


class Referring(NamedTuple):
    """A sentence and what it means; `others` are the wrong boxes of a choice."""

    id: int | str
    image: str
    text: str
    box: Box | None
    size: tuple[int, int] | None = None
    others: tuple[Box, ...] = ()

    def to_row(self) -> dict[str, Any]:
        """As the JSON file has it."""
        row = {"id": self.id, "img_id": self.image, "sent": self.text} | ({"box": self.box} if self.box else {})
        return row | ({"size": self.size} if self.size else {}) | ({"others": self.others} if self.others else {})


def take_box(value: Any, where: Where, size: tuple[int, int] | None, name: str = "box") -> Box:
    """A box within its picture, cut at its edges.

    Args:
        value: x, y, width and height.
        where: of messages.
        size: the picture's width and height; unknown, the left and the upper edge alone are looked at.
        name: of the box, for messages.

    Raises:
        InputError: no such numbers, nothing of the box within the picture, or it is further outside than `SLACK`.
    """
    numbers = isinstance(value, list | tuple) and len(value) == 4 and all(map(_is_number, value))
    x, y, width, height = map(float, value if numbers else (0, 0, 0, 0))
    right, bottom = map(float, size or (math.inf, math.inf))
    of = f" of {right:g} x {bottom:g} pixels" if size else ""
    if min(x, y) < -SLACK or x + width > right + SLACK or y + height > bottom + SLACK:
        raise InputError(
            f"{place_of(where)}: {name} {shorten(value)} (x, y, width, height) reaches out of its picture{of}. "
            "Mend or remove that row; where all rows are so, the boxes are of pictures of another size."
        )
    left, top = max(x, 0.0), max(y, 0.0)
    box = left, top, min(width + (x - left), right - left), min(height + (y - top), bottom - top)
    if not min(box[2:]) > 0:  # as it is, or because the slack is all of it
        raise InputError(
            f"{place_of(where)}: {name} is {shorten(value)}, expected x, y, width and height in pixels, the last "
            f"two above 0 within its picture{of}. Mend or remove that row."
        )
    return box


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e18  # neither NaN nor what no float holds


def read_referring(path: Path) -> list[Referring]:
    """The rows of a JSON file; InputError, naming the row, where one cannot be used."""
    rows: list[Referring] = []
    identifiers = Identifiers()
    for number, row in enumerate(items(path)):
        where = (path, "row", number)
        text, image = take(row, where, sent=str, img_id=str)
        check_identifier(image, "img_id", where)
        identifier = identifiers.take(row.get("id"), "id", where)
        size = take_size(row["size"], where) if "size" in row else None
        boxes = row.get("others", [])
        if not isinstance(boxes, list):
            raise InputError(f"{place_of(where)}: others is {shorten(boxes)}, expected a list of boxes. Mend it.")
        box = take_box(row["box"], where, size) if "box" in row else None
        others = [take_box(each, where, size, "others") for each in boxes]
        if others and box is None:
            raise InputError(f"{place_of(where)}: others without a box, the right one. Give both or neither.")
        rows.append(Referring(identifier, image, text, box, size, tuple(others)))
    return rows


def take_size(value: Any, where: Where) -> tuple[int, int]:
    """A picture's width and height in pixels; InputError where it is something else."""
    sides = isinstance(value, list | tuple) and len(value) == 2
    if not sides or any(type(n) is not int or not 1 <= n < 2**31 for n in value):
        raise InputError(
            f"{place_of(where)}: size is {shorten(value)}, expected the picture's width and height in pixels. "
            "Mend or remove that row."
        )
    return value[0], value[1]


def convert_referring(source: Path, store: Path) -> None:
    """A JSON file to a text store.

    Raises:
        InputError: a row that cannot be used, or rows with different fields.
        StoreError: the store cannot be written.
    """
    write_referring(store, read_referring(source), [source])


def write_referring(store: Path, rows: Sequence[Referring], sources: Sequence[Path]) -> dict[str, int]:
    """Write a text store with the numbers `box`, `size` and `others` (3 boxes: 12); how much is in it.

    Raises:
        InputError: there are no rows, or their optional fields differ.
        StoreError: the store cannot be written.
    """
    first = rows[0] if rows else None
    numbers = {"box": 4} if first and first.box else {}
    numbers |= {"size": 2} if first and first.size else {}
    numbers |= {"others": 4 * len(first.others)} if first and first.others else {}
    with writing_rows(store, sources=sources, numbers=numbers, labelled=False) as written:
        for row in rows:
            values = [value for value in (row.box, row.size, tuple(chain(*row.others))) if value]
            if [*map(len, values)] != [*numbers.values()]:
                raise InputError(
                    f"{sources[0]}: the row with id {shorten(row.id)} has other fields than the first, or another "
                    "number of others: give box and size to all rows or to none, and as many others"
                )
            written.add(row.text, row.id, row.image, {}, numbers=values)
    return written.counts()


def write_rows(path: Path, rows: Iterable[Referring]) -> None:
    """Write the JSON file of rows, atomically."""
    write_text(path, json.dumps([row.to_row() for row in rows], ensure_ascii=False, allow_nan=False) + "\n")
