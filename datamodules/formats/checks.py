"""What the rows of text files must be: the checks that conversion and `datamodules.validate` share."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.stores.texts import ANNOTATORS
from lxmert.evaluate.scores import identifier_problem
from lxmert.files import InputError, shorten

KINDS = {int: "an integer", str: "a text", list: "a list", dict: "an object", bool: "true or false"}
TYPES = ("label", "answer_type", "question_type")  # of a question of the release: in all rows or in none
BLANK = "\0\ufeff" + "".join(character for character in map(chr, range(0x3001)) if character.isspace())
Where = tuple[Path, str, Any]  # the file, what its rows are, and the row's number (from 0) or id
GQA_TYPES = ("structural", "semantic", "detailed")  # of a question


class Annotation(NamedTuple):
    """What the makers of VQA say of a question; `image` is its number, `groups` answer type and question type."""

    question: int
    image: int
    groups: tuple[str, str]
    answers: tuple[str, ...]


# ------------------------------------------------------------------------------------------ values


def is_text(value: Any) -> bool:
    """Whether `value` is a text that is not blank."""
    return isinstance(value, str) and bool(value.strip(BLANK))


def label_problem(label: Any) -> str | None:
    """What is wrong with a label of the release, if anything."""
    if not isinstance(label, dict):
        return f"label is {shorten(label)}, expected an object of answer texts with their scores"
    for answer, score in label.items():
        if type(score) not in (int, float) or not 0 < score <= 1:
            return (
                f"the score of answer {shorten(answer)} is {shorten(score)}, expected a number above 0 and up to 1"
            )
    return None


# --------------------------------------------------------------------------- the release's own rows


def question_problem(row: Any, first: Mapping[str, Any], seen: dict[Any, int]) -> str | None:
    """What is wrong with a question of the release, if anything.

    Args:
        row: the question.
        first: the file's first row, whose fields and type of id all others have.
        seen: the ids of the rows before it, and which rows those are.
    """
    if not isinstance(row, dict):
        return f"expected an object, found {shorten(row)}"
    optional = [key for key in TYPES if key in first]
    required = ("question_id", "img_id", "sent", *optional)
    if missing := [key for key in required if key not in row]:
        return f"{', '.join(missing)} missing; every row of this file needs {', '.join(required)}"
    if extra := [key for key in TYPES if key in row and key not in optional]:
        return f"has {', '.join(extra)}, which row 0 does not have; give it to all rows or none"
    question = row["question_id"]
    if type(question) is not type(first.get("question_id")) or type(question) not in (int, str):
        return (
            f"question_id must be an integer or a string, of one type in the whole file; found {shorten(question)}"
        )
    for key in ("question_id", "img_id"):
        if problem := identifier_problem(row[key], type(question) if key == "question_id" else str):
            return f"{key} is {shorten(row[key])}, {problem}"
    if question in seen:
        return f"duplicate question_id, first used in row {seen[question]}"
    if not is_text(row["sent"]):
        return f"empty question: sent is {shorten(row['sent'])}, expected a text"
    if other := [key for key in optional if key != "label" and not is_text(row[key])]:
        return f"{other[0]} is {shorten(row[other[0]])}, expected a text"
    return label_problem(row["label"]) if "label" in optional else None


def statement_problem(row: Any, first: Mapping[str, Any], seen: dict[Any, int]) -> str | None:
    """What is wrong with a statement of the release, if anything; arguments as of `question_problem`."""
    if not isinstance(row, dict):
        return f"expected an object, found {shorten(row)}"
    labelled = "label" in first
    if bad := [key for key in ("identifier", "img0", "img1", "sent") if not is_text(row.get(key))]:
        return f"{bad[0]} is {shorten(row.get(bad[0]))}, expected a text"
    for key in ("identifier", "img0", "img1"):
        if problem := identifier_problem(row[key], str):
            return f"{key} is {shorten(row[key])}, {problem}"
    if ("label" in row) != labelled:
        return "has no label and row 0 has one" if labelled else "has a label and row 0 has none"
    if labelled and not (type(row["label"]) is int and row["label"] in (0, 1)):
        return f"label is {shorten(row['label'])}, expected 0 or 1"
    if row["identifier"] in seen:
        return f"duplicate identifier, first used in row {seen[row['identifier']]}"
    return None


def identifier_of(row: Mapping[str, Any]) -> Any:
    """The id of a question or statement of the release."""
    return row["question_id"] if "question_id" in row else row["identifier"]


def name_of(row: Any) -> str:
    """A question or statement of the release, as a message calls it."""
    if isinstance(row, dict) and "question_id" in row:
        return f"question {shorten(row['question_id'])}"
    return shorten(row["identifier"]) if isinstance(row, dict) and "identifier" in row else "without id"


# ------------------------------------------------------------------------------------ makers' rows


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
                f"{_place(where)}: {found}, expected {KINDS[kind]} as {name}. Mend or remove that row."
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
        raise InputError(f"{_place(where)}: {name} is {shorten(value)}, {problem}. Mend or remove that row.")


def no_repeat(seen: set[Any], identifier: Any, where: Where) -> None:
    """Add an identifier to those seen; InputError when it is there already."""
    if identifier in seen:
        raise InputError(f"{_place(where)}: {str(identifier)[:80]} is there a second time. Remove one.")
    seen.add(identifier)


def take_ten(row: Any, where: Where) -> tuple[str, ...]:
    """The answers of the ten annotators of a row, as they gave them; InputError where they are not ten texts."""
    [answers] = take(row, where, answers=list)
    given = [entry.get("answer") if isinstance(entry, dict) else None for entry in answers]
    if len(given) != ANNOTATORS or not all(isinstance(answer, str) for answer in given):
        question = f" (question {shorten(row['question_id'])})" if "question_id" in row else ""
        raise InputError(
            f"{_place(where)}{question}: expected {ANNOTATORS} answers that are texts, found {shorten(given)}. "
            "Get the file again."
        )
    return tuple(sys.intern(str(answer)) for answer in given)  # the same few come a million times


def take_annotation(row: Any, where: Where) -> Annotation:
    """The annotation of a VQA question; errors as of `take`."""
    question, answer_type, question_type = take(row, where, question_id=int, answer_type=str, question_type=str)
    # The same few types come a million times.
    groups = (sys.intern(answer_type), sys.intern(question_type))
    return Annotation(question, take_image(row, where), groups, take_ten(row, where))


def take_image(row: Any, where: Where) -> int:
    """The number of a row's COCO image; errors as of `take`."""
    [image] = take(row, where, image_id=int)
    if image < 0:
        raise InputError(f"{_place(where)}: image_id is {image}, expected 0 or more. Mend or remove that row.")
    return image


def take_gqa(question: Any, where: Where, labelled: bool) -> tuple[str, str, str | None, list[str | None]]:
    """Text, image, answer and types of a question of GQA; no answer and no types where none are asked for."""
    check_identifier(where[2], "question id", where)
    [text], [image] = take(question, where, question=str), take_ids(question, where, "imageId")
    if not labelled:
        return text, image, None, []
    answer, types = take(question, where, answer=str, types=dict)
    values = [types.get(name) for name in GQA_TYPES]
    for name, value in zip(GQA_TYPES, values, strict=True):
        if value is not None and not is_text(value):
            raise InputError(
                f"{_place(where)}: its type {name} is {shorten(value)}, expected a text or null. Mend or remove "
                "that row."
            )
    return text, image, answer, values


def _place(where: Where) -> str:
    file, rows, number = where
    return f"{file}: {rows} {number if isinstance(number, int) else number[:80]}"


def some(ids: Sequence[Any]) -> str:
    """How many questions these are, and the first few."""
    listed = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
    return f"{len(ids)} questions ({listed})" if ids else "0"
