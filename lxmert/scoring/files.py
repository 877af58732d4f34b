"""Reading the makers' files: questions, statements, predictions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from lxmert.scoring.report import ScoringError, some


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        ScoringError: it is not JSON (with the position), or has a key twice in one object.
        OSError: it cannot be read.
    """
    return parse_json(read_text(path), str(path))


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


def read_statements(path: Path) -> list[dict[str, Any]]:
    """The rows of an NLVR2 file, one JSON object a line.

    Raises:
        ScoringError: a line is not a JSON object.
        OSError: it cannot be read.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise ScoringError(f"{path}, line {number}: expected a JSON object with identifier and label")
        rows.append(row)
    return rows


def read_nlvr2_predictions(path: Path) -> list[dict[str, str]]:
    """An NLVR2 submission, `identifier,True` or `identifier,False` a line.

    Raises:
        ScoringError: a line is not two fields.
        OSError: it cannot be read.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 2:
            raise ScoringError(f"{path}, line {number}: {line!r}, expected identifier,True or identifier,False")
        rows.append({"identifier": fields[0], "label": fields[1]})
    return rows


def read_text(path: Path) -> str:
    """A UTF-8 text file; ScoringError where it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ScoringError(f"{path}: not a UTF-8 text file: {error}") from error


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text, `where` naming it; errors as of `read_json`."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise ScoringError(
            f"{where}: not JSON: {error}. If the file ends there, it was cut off: get it again."
        ) from error
    except _KeyTwiceError as error:
        raise ScoringError(f"{where}: {error} twice in one object; keep one of each") from error


class _KeyTwiceError(ValueError):
    """A JSON object has a key more than once, of which Python would keep the last in silence."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _KeyTwiceError(some([repr(key) for key, count in counts.items() if count > 1]))
    return content
