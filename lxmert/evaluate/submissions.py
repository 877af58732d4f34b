"""What is wrong with a submission, as its evaluation server would say, and the ids that it has to answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lxmert.evaluate.classes import probability_problem
from lxmert.evaluate.scores import ScoringError, identifier_problem, some
from lxmert.evaluate.tasks import Task
from lxmert.files import shorten


def check_submission(task: Task, rows: Any, ids: Collection[Any]) -> list[str]:
    """What the server would object to, one sentence each; nothing when the submission is valid.

    Args:
        task: whose server.
        rows: the content of the file as `task.read_submission` gives it.
        ids: of the questions or statements of the split, each of which must be answered once.
    """
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        return [f"a {type(rows).__name__}, expected a list of {task.entry}"]
    # Text ids are right where the questions have them, and the benchmark does not forbid them.
    id_type = next((type(id_) for id_ in ids if type(id_) in task.id_types), task.id_types[0])
    # Ids are compared as texts: one of the wrong type is one problem, not a missing and an unknown id as well.
    expected = {str(id_) for id_ in ids}
    counts: Counter[str] = Counter()
    malformed, wrong_ids, wrong_answers, wrong_probabilities = [], [], [], []
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping) or not {task.id_key, task.answer_key} <= row.keys():
            malformed.append(f"line {place + 1}: {shorten(row)}" if task.lines else f"[{place}]: {shorten(row)}")
            continue
        id_, answer = row[task.id_key], row[task.answer_key]
        counts[str(id_)] += 1
        if type(id_) is not id_type:  # not isinstance: True would pass as an int
            wrong_ids.append(shorten(id_))
        if not task.takes(answer) or (task.answers and answer not in task.answers):
            wrong_answers.append(f"{shorten(answer)} for {id_}")
        if task.probability_key in row:
            given = row[task.probability_key]
            if problem := probability_problem({task.positive: given} if task.header else given):
                wrong_probabilities.append(f"{problem} for {id_}")
    allowed = " or ".join(task.answers) or task.answer_kind
    found = {
        f"entries are not {task.entry}": malformed,
        f"ids are not {id_type.__name__} ({task.wrong_id})": wrong_ids,
        f"answers are not {allowed}": wrong_answers,
        "probabilities are none": wrong_probabilities,
        "ids are answered more than once": [id_ for id_, count in counts.items() if count > 1],
        "ids are not of this split": [id_ for id_ in counts if id_ not in expected],
        "ids are not answered": [id_ for id_ in dict.fromkeys(map(str, ids)) if id_ not in counts],
    }
    return [f"{len(items)} {what}: {some(items, 5)}" for what, items in found.items() if items]


def read_ids(task: Task, path: Path) -> list[Any]:
    """The ids of a split: from the makers' file (GQA: or folder of chunks), or the LXMERT release's list of rows.

    Raises:
        ScoringError: a file of another form, or an id twice.
        OSError: it cannot be read.
    """
    content, key = task.rows(path), task.row_key
    if isinstance(content, dict) and task.ids_are_names:
        return list(content)
    if isinstance(content, dict):
        content = content.get("questions")
    if not isinstance(content, list) or not content:
        raise ScoringError(
            f"{path}: no questions; expected the makers' questions of {task.name}, or rows with {key}"
        )
    for place, row in enumerate(content):
        if not isinstance(row, dict) or key not in row:
            raise ScoringError(f"{path}: question {place} is {shorten(row)}, expected an object with {key}")
    ids = [row[key] for row in content]
    kind = type(ids[0]) if type(ids[0]) in (int, str) else task.id_types[0]
    for place, id_ in enumerate(ids):
        if problem := identifier_problem(id_, kind):
            raise ScoringError(f"{path}: question {place}: {key} is {shorten(id_)}, {problem}")
    repeated = [id_ for id_, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ScoringError(f"{path}: {len(repeated)} ids occur twice: {some(repeated, 5)}; keep one of each")
    return ids
