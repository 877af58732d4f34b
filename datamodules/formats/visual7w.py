"""Visual7W's pointing questions, as their makers publish them: dataset_v7w_pointing.json.

`{"images": [{split, filename, qa_pairs: [{qa_id, question, answer, multiple_choices}]}], "boxes": [{box_id, x, y,
width, height}]}`, where the answer and the wrong choices are ids of boxes, in pixels of the makers' pictures. The
fields are those that VOLTA's and others' readers use; the file itself was not at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datamodules.formats.checks import Where, no_repeat, place_of, take
from datamodules.formats.json_stream import member
from datamodules.formats.referring import Box, Referring, take_box
from lxmert.files import InputError, shorten


def read_visual7w(path: Path, read: Callable[[Path, str], Iterator[Any]] = member) -> dict[str, list[Referring]]:
    """The questions of each split; an image is called as its picture, without the ending: v7w_2358727.

    Args:
        path: the JSON file.
        read: as `member`, for who shows how far it is.

    Raises:
        InputError: a row that cannot be used, a box that is not there or lies outside of its picture.
    """
    boxes: dict[Any, Box] = {}
    for number, row in enumerate(read(path, "boxes")):
        where = (path, "box", number)
        [identifier] = take(row, where, box_id=int)
        if identifier in boxes:
            raise InputError(f"{place_of(where)}: box_id {identifier} is there a second time. Get the file again.")
        boxes[identifier] = take_box([row.get(name) for name in ("x", "y", "width", "height")], where, None)
    splits: dict[str, list[Referring]] = {}
    seen: set[int] = set()
    for number, row in enumerate(read(path, "images")):
        where = (path, "image", number)
        split, picture, questions = take(row, where, split=str, filename=str, qa_pairs=list)
        for question in questions:
            identifier, text, answer, others = take(
                question, where, qa_id=int, question=str, answer=int, multiple_choices=list
            )
            named: Where = (path, "qa_id", identifier)
            no_repeat(seen, identifier, named)
            if lost := [each for each in (answer, *others) if type(each) is not int or each not in boxes]:
                raise InputError(f"{place_of(named)}: {shorten(lost[0])} is the id of no box. Get the file again.")
            if not others or answer in others:
                raise InputError(
                    f"{place_of(named)}: multiple_choices is {shorten(others)}, expected wrong boxes."
                )
            choice = tuple(boxes[each] for each in others)
            splits.setdefault(split, []).append(
                Referring(identifier, Path(picture).stem, text, boxes[answer], others=choice)
            )
    return splits


def boxes_to_describe(rows: Iterator[Referring]) -> dict[str, list[list[float]]]:
    """Image -> its distinct boxes x1, y1, x2, y2, which `python -m datamodules.extract --given-boxes` reads."""
    found: dict[str, dict[Box, None]] = {}
    for row in rows:
        boxes = (row.box, *row.others) if row.box else row.others
        found.setdefault(row.image, {}).update(dict.fromkeys(boxes))
    return {image: [[x, y, x + w, y + h] for x, y, w, h in boxes] for image, boxes in found.items()}
