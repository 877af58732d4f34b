"""Reading the makers' files: questions, statements, predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lxmert.evaluate.scores import ScoringError, identifier_problem, some
from lxmert.files import InputError, parse_json, shorten


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        ScoringError: it is not JSON (with the position), or has a key twice in one object.
        OSError: it cannot be read.
    """
    return _parse(path.read_bytes(), str(path))


def _parse(content: bytes, where: str) -> Any:
    try:
        return parse_json(content, where)
    except InputError as error:
        raise ScoringError(str(error)) from error


def read_questions(path: Path) -> dict[str, Any]:
    """A GQA questions file, or the folder of its chunks (`train_all_questions/*.json`) as one.

    Raises:
        ScoringError: not JSON objects, a question id twice, or an empty folder.
        OSError: it cannot be read.
    """
    chunks = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not chunks:
        raise ScoringError(f"annotations: the folder {path} holds no .json file")
    questions: dict[str, Any] = {}
    for chunk in chunks:
        content = read_json(chunk)
        if not isinstance(content, dict):
            raise ScoringError(f"{chunk}: expected an object of question id -> question")
        repeated = sorted(questions.keys() & content.keys())
        if repeated:
            raise ScoringError(
                f"{chunk}: {len(repeated)} question ids that another file of {path} has too: {some(repeated)}. "
                "Keep the makers' chunks alone in that folder."
            )
        questions |= content
    return questions


def read_statements(path: Path, members: str = "identifier and label") -> list[dict[str, Any]]:
    """The rows of a file with one JSON object a line, such as NLVR2's.

    Args:
        path: the file.
        members: for messages, what the objects have.

    Raises:
        ScoringError: a line is not a JSON object.
        OSError: it cannot be read.
    """
    rows = []
    for number, line in read_lines(path):
        if not line.strip():
            continue
        row = _parse(line.encode(), f"{path}, line {number}")
        if not isinstance(row, dict):
            raise ScoringError(f"{path}, line {number}: expected a JSON object with {members}")
        rows.append(row)
    return rows


def read_nlvr2_predictions(path: Path) -> list[dict[str, str]]:
    """An NLVR2 submission, `identifier,True` or `identifier,False` a line.

    Raises:
        ScoringError: a line is not two fields.
        OSError: it cannot be read.
    """
    rows = []
    for number, line in read_lines(path):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 2:
            raise ScoringError(
                f"{path}, line {number}: {shorten(line)}, expected identifier,True or identifier,False"
            )
        rows.append({"identifier": fields[0], "label": fields[1]})
    return rows


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a UTF-8 text file, with their numbers from 1; ScoringError where it is none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ScoringError(f"{path}: not UTF-8 text at byte {error.start}. Get the file again.") from error
    # Not splitlines: a text may hold other marks that it takes for the end of a line.
    return list(enumerate((line.rstrip("\r") for line in text.removesuffix("\n").split("\n")), 1))


def read_attentions(path: Path) -> dict[str, Any]:
    """An object of question id -> boxes, or the makers' list of {"questionId", "attention"} as one."""
    content = read_json(path)
    if isinstance(content, dict):
        return content
    expected = 'an object of question id -> boxes or a list of {"questionId", "attention"}'
    if not isinstance(content, list):
        raise ScoringError(f"{path}: found {shorten(content)}, expected {expected}")
    attentions: dict[str, Any] = {}
    for place, row in enumerate(content):
        if not isinstance(row, dict) or not {"questionId", "attention"} <= row.keys():
            raise ScoringError(f"{path}: row {place} is {shorten(row)}, expected {expected}")
        if problem := identifier_problem(row["questionId"], str):
            raise ScoringError(f"{path}: row {place}: questionId is {shorten(row['questionId'])}, {problem}")
        if row["questionId"] in attentions:
            raise ScoringError(f"{path}: row {place}: {some([row['questionId']])} is there a second time")
        attentions[row["questionId"]] = row["attention"]
    return attentions


def is_list(path: Path) -> bool:
    """Whether a file begins as a JSON list."""
    return next((line.lstrip().startswith("[") for _, line in read_lines(path) if line.strip()), False)
