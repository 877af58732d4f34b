"""Submission files: what the evaluation servers of VQA, GQA and NLVR2 take, written and checked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lxmert.evaluate.files import read_json, read_lines, read_questions, read_statements
from lxmert.evaluate.scores import ScoringError, identifier_problem, some
from lxmert.files import shorten

Task = Literal["vqa", "gqa", "nlvr2"]


@dataclass(frozen=True)
class _Format:
    """What a server takes: entries {id_key: id_type, answer_key: str}."""

    id_key: str
    id_type: type
    answer_key: str
    answers: tuple[str, ...]  # the allowed ones; none: any
    entry: str  # an entry, for messages
    wrong_id: str  # what the server makes of an id of another type


FORMATS: dict[Task, _Format] = {
    "vqa": _Format(
        "question_id", int, "answer", (), '{"question_id": int, "answer": str}', "the server refuses the file"
    ),
    "gqa": _Format(
        "questionId", str, "prediction", (), '{"questionId": str, "prediction": str}', "the server scores 0"
    ),
    "nlvr2": _Format("identifier", str, "label", ("True", "False"), "identifier,True|False", "no match"),
}


def submission_text(task: Task, answers: Mapping[Any, str]) -> str:
    """The submission file of `answers`, id -> answer, in their order: JSON, or lines for NLVR2."""
    form = FORMATS[task]
    if task == "nlvr2":
        return "".join(f"{identifier},{label}\n" for identifier, label in answers.items())
    rows = [{form.id_key: id_, form.answer_key: answer} for id_, answer in answers.items()]
    return json.dumps(rows, allow_nan=False) + "\n"


def check_submission(task: Task, rows: Any, ids: Collection[Any]) -> list[str]:
    """What the server would object to, one sentence each; nothing when the submission is valid.

    Args:
        task: whose server.
        rows: the content of the file as `read_submission` returns it.
        ids: of the questions or statements of the split, each of which must be answered once.
    """
    form = FORMATS[task]
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        return [f"a {type(rows).__name__}, expected a list of {form.entry}"]
    # Ids are compared as texts: one of the wrong type is one problem, not a missing and an unknown id as well.
    expected = {str(id_) for id_ in ids}
    counts: Counter[str] = Counter()
    malformed, wrong_ids, wrong_answers = [], [], []
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping) or not {form.id_key, form.answer_key} <= row.keys():
            malformed.append(
                f"line {place + 1}: {shorten(row)}" if task == "nlvr2" else f"[{place}]: {shorten(row)}"
            )
            continue
        id_, answer = row[form.id_key], row[form.answer_key]
        counts[str(id_)] += 1
        if type(id_) is not form.id_type:  # not isinstance: True would pass as an int
            wrong_ids.append(shorten(id_))
        if not isinstance(answer, str) or (form.answers and answer not in form.answers):
            wrong_answers.append(f"{shorten(answer)} for {id_}")
    allowed = " or ".join(form.answers) or "a string"
    found = {
        f"entries are not {form.entry}": malformed,
        f"ids are not {form.id_type.__name__} ({form.wrong_id})": wrong_ids,
        f"answers are not {allowed}": wrong_answers,
        "ids are answered more than once": [id_ for id_, count in counts.items() if count > 1],
        "ids are not of this split": [id_ for id_ in counts if id_ not in expected],
        "ids are not answered": [id_ for id_ in dict.fromkeys(map(str, ids)) if id_ not in counts],
    }
    return [f"{len(items)} {what}: {some(items, 5)}" for what, items in found.items() if items]


def read_submission(task: Task, path: Path) -> Any:
    """A submission file for `check_submission`; NLVR2 lines as entries, and as text where they are none.

    Raises:
        ScoringError: not JSON, not text.
        OSError: it cannot be read.
    """
    if task != "nlvr2":
        return read_json(path)
    lines = [(line, line.split(",")) for _, line in read_lines(path)]
    return [{"identifier": f[0], "label": f[1]} if len(f) == 2 else line for line, f in lines]


def read_ids(task: Task, path: Path) -> list[Any]:
    """The ids of a split: from the makers' file (GQA: or folder of chunks), or the LXMERT release's list of rows.

    Raises:
        ScoringError: a file of another form, or an id twice.
        OSError: it cannot be read.
    """
    if task == "gqa" and path.is_dir():
        return list(read_questions(path))
    lines = task == "nlvr2" and not _is_list(path)
    content = read_statements(path) if lines else read_json(path)
    if task == "gqa" and isinstance(content, dict):
        return list(content)
    if isinstance(content, dict):
        content = content.get("questions")
    key = "identifier" if task == "nlvr2" else "question_id"
    if not isinstance(content, list) or not content:
        raise ScoringError(f"{path}: no questions; expected the makers' questions of {task}, or rows with {key}")
    for place, row in enumerate(content):
        if not isinstance(row, dict) or key not in row:
            raise ScoringError(f"{path}: question {place} is {shorten(row)}, expected an object with {key}")
    ids = [row[key] for row in content]
    kind = type(ids[0]) if type(ids[0]) in (int, str) else FORMATS[task].id_type
    for place, id_ in enumerate(ids):
        if problem := identifier_problem(id_, kind):
            raise ScoringError(f"{path}: question {place}: {key} is {shorten(id_)}, {problem}")
    repeated = [id_ for id_, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ScoringError(f"{path}: {len(repeated)} ids occur twice: {some(repeated, 5)}; keep one of each")
    return ids


def _is_list(path: Path) -> bool:
    return next((line.lstrip().startswith("[") for _, line in read_lines(path) if line.strip()), False)
