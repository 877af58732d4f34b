"""Questions and annotations of VQA v2 and data sets of its kind, as their makers publish them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.formats.checks import Where, place_of, take
from datamodules.formats.coco import FOLDERS, image_name, take_image
from datamodules.formats.json_stream import items, member
from datamodules.formats.opening import Progress
from datamodules.formats.rows import first_mark
from datamodules.stores import ANNOTATORS
from lxmert.files import InputError, shorten

VIZWIZ_IMAGE = re.compile(r"(VizWiz_[a-z]+_(\d{1,18}))\.jpg", re.ASCII)


class Annotation(NamedTuple):
    """What the makers of VQA say of a question; `image` is its number, `groups` answer type and question type."""

    question: int
    image: int
    groups: tuple[str, str]
    answers: tuple[str, ...]


def read_rows(path: Path, name: str, *, progress: Progress | None = None) -> Iterator[Any]:
    """The rows of a file: the list `name` of an object, or the file is the list (VQA-CP, VizWiz)."""
    return items(path, progress=progress) if first_mark(path) == "[" else member(path, name, progress=progress)


def take_question(row: Any, where: Where) -> tuple[int, str, int]:
    """The id, the text and the number of the image of a question; errors as of `take`."""
    identifier, text = take(row, where, question_id=int, question=str)
    return identifier, text, take_image(row, where)


def take_annotation(row: Any, where: Where) -> Annotation:
    """The annotation of a VQA question; errors as of `take`."""
    question, answer_type, question_type = take(row, where, question_id=int, answer_type=str, question_type=str)
    # The same few types come a million times.
    groups = (sys.intern(answer_type), sys.intern(question_type))
    return Annotation(question, take_image(row, where), groups, take_ten(row, where))


def take_ten(row: Any, where: Where) -> tuple[str, ...]:
    """The answers of the ten annotators of a row, as they gave them; InputError where they are not ten texts."""
    [answers] = take(row, where, answers=list)
    given = [entry.get("answer") if isinstance(entry, dict) else None for entry in answers]
    if len(given) != ANNOTATORS or not all(isinstance(answer, str) for answer in given):
        question = f" (question {shorten(row['question_id'])})" if "question_id" in row else ""
        raise InputError(
            f"{place_of(where)}{question}: expected {ANNOTATORS} answers that are texts, found {shorten(given)}. "
            "Get the file again."
        )
    return tuple(sys.intern(str(answer)) for answer in given)  # the same few come a million times


def image_of(row: Any, where: Where, folder: str) -> str:
    """The image of a row as the release calls it; VQA-CP's rows themselves tell its folder."""
    image = take_image(row, where)
    if folder not in FOLDERS:
        [folder] = take(row, where, coco_split=str)
        if folder not in FOLDERS:
            raise InputError(
                f"{where[0]}: {where[1]} {where[2]}: coco_split is {shorten(folder)}, expected one of "
                f"{', '.join(FOLDERS)}. Mend or remove that row."
            )
    return image_name(folder, image)


def take_vizwiz_image(row: Any, where: Where) -> tuple[str, int]:
    """An image of VizWiz and its number, which stands for its one question.

    Raises:
        InputError: it is no name such as VizWiz_train_00000000.jpg.
    """
    [image] = take(row, where, image=str)
    name = VIZWIZ_IMAGE.fullmatch(image)
    if name is None:
        raise InputError(
            f"{where[0]}: {where[1]} {where[2]}: image is {shorten(image)}, expected a name such as "
            "VizWiz_train_00000000.jpg. Get the file of the present release."
        )
    return name[1], int(name[2])
