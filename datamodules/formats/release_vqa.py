"""Questions in the files of the LXMERT release (VQA v2, GQA and their like) -> text store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datamodules.formats.checks import is_text, label_problem, no_repeat, take
from datamodules.formats.json_stream import member
from datamodules.formats.official_vqa import take_ten
from datamodules.stores import writing_rows
from lxmert.evaluate import identifier_problem
from lxmert.files import InputError, read_json, shorten

TYPES = ("label", "answer_type", "question_type")  # of a question: in all rows of a file or in none


def convert_vqa(source: Path, store: Path, annotations: Mapping[str, Path] | None = None) -> Path:
    """Convert a question file of the LXMERT release to a text store.

    The file is a JSON list of `{question_id, img_id, sent, label: {answer: score}, answer_type,
    question_type}`. The last three may be absent from a whole file, as in the test split, but not from
    some of its rows. The largest one (train, 120 MB) is read as a whole, which takes less than 1 GB.

    Args:
        source: the JSON file.
        store: where to write.
        annotations: official VQA v2 annotation files by the image folder that they cover, such as
            train2014. Those whose folder no image id names are not read. Their ten answers per question
            are stored with the questions.

    Returns:
        `store`.

    Raises:
        InputError: a row that cannot be used, naming file, row (from 0) and question.
        StoreError: the store cannot be written.
    """
    rows = read_rows(source, "questions", question_problem)
    optional = [key for key in TYPES if key in rows[0]]
    ten: dict[Any, tuple[str, ...]] = {}
    annotations = annotations or {}
    for folder, file in annotations.items():
        if any(folder in row["img_id"] for row in rows):
            ten |= _read_annotations(file)
    annotated = any(row["question_id"] in ten for row in rows)
    groups = [key for key in optional if key != "label"]
    with writing_rows(
        store,
        groups=groups,
        labelled="label" in optional,
        annotated=annotated,
        sources=[source, *annotations.values()],
    ) as written:
        for row in rows:
            question, types = row["question_id"], [row[name] for name in groups]
            written.add(row["sent"], question, row["img_id"], row.get("label", {}), types, ten.get(question))
    return store


def read_rows(source: Path, what: str, problem_of: Callable[..., str | None]) -> list[dict[str, Any]]:
    """The rows of a file of the release, checked.

    Args:
        source: a JSON list of objects.
        what: its rows are, for messages.
        problem_of: what is wrong with a row, such as `question_problem`.

    Raises:
        InputError: a row that cannot be used, naming file, row (from 0) and identifier.
    """
    rows = read_json(source)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{source}: expected a JSON list of {what}, found {shorten(rows)}. Is it the right file?")
    first = rows[0] if isinstance(rows[0], dict) else {}
    seen: dict[Any, int] = {}
    for number, row in enumerate(rows):
        if problem := problem_of(row, first, seen):
            raise InputError(f"{source}: row {number} ({name_of(row)}): {problem}. Mend or remove that row.")
        seen[identifier_of(row)] = number
    return rows


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


def identifier_of(row: Mapping[str, Any]) -> Any:
    """The id of a question or statement of the release."""
    return row["question_id"] if "question_id" in row else row["identifier"]


def name_of(row: Any) -> str:
    """A question or statement of the release, as a message calls it."""
    if isinstance(row, dict) and "question_id" in row:
        return f"question {shorten(row['question_id'])}"
    return shorten(row["identifier"]) if isinstance(row, dict) and "identifier" in row else "without id"


def _read_annotations(path: Path) -> dict[Any, tuple[str, ...]]:
    """Question id -> the ten annotators' answers."""
    ten: dict[Any, tuple[str, ...]] = {}
    for number, row in enumerate(member(path, "annotations")):
        where = (path, "annotation", number)
        [question] = take(row, where, question_id=int)
        if question in ten:
            no_repeat(set(ten), question, where)
        ten[question] = take_ten(row, where)
    return ten
