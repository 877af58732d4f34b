"""Questions in the files of the LXMERT release (VQA v2, GQA and their like) -> text store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datamodules.formats.checks import TYPES, identifier_of, name_of, no_repeat, question_problem, take, take_ten
from datamodules.formats.json_stream import member
from datamodules.stores.texts import write_examples
from lxmert.files import InputError, read_json, shorten


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
    with write_examples(
        store,
        groups=groups,
        labelled="label" in optional,
        annotated=annotated,
        sources=[source, *annotations.values()],
    ) as writer:
        for start in range(0, len(rows), 10_000):
            chunk = rows[start : start + 10_000]
            writer.append(
                texts=[row["sent"] for row in chunk],
                ids=[row["question_id"] for row in chunk],
                images=[row["img_id"] for row in chunk],
                labels=[row.get("label", {}) for row in chunk],
                groups={name: [row[name] for row in chunk] for name in groups},
                annotator_answers=[ten.get(row["question_id"]) for row in chunk] if annotated else None,
            )
    return store


def read_rows(source: Path, what: str, problem_of: Callable[..., str | None]) -> list[dict[str, Any]]:
    """The rows of a file of the release, checked.

    Args:
        source: a JSON list of objects.
        what: its rows are, for messages.
        problem_of: what is wrong with a row, such as `checks.question_problem`.

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
