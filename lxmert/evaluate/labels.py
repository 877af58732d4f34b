"""Scoring by labels, the soft scores of each question's answers: how a run's `accuracy` is measured.

For data that has no benchmark's rule, such as one's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lxmert.evaluate.scores import (
    ScoreReport,
    ScoringError,
    id_type_of,
    identifier_problem,
    index_predictions,
    percent,
    refuse_unknown,
    require_all,
    score_groups,
    some,
)
from lxmert.files import shorten

KINDS = ("answer_type", "question_type")


def score_labels(predictions: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> ScoreReport:
    """Score answers by the labels of the LXMERT release's rows; an answer that a label lacks scores 0.

    Args:
        predictions: `{"question_id": int or str, "answer": str}`, one for every question; the ids are of the type
            that those of the rows are.
        rows: `{"question_id", "label": {answer: score}, ...}`, as in the files that a run is trained on.

    Returns:
        `metrics["accuracy"]`, and the groups `answer_type` and `question_type` where all rows have them.

    Raises:
        ScoringError: a malformed, repeated, unknown or missing prediction, or malformed rows.
    """
    id_type = id_type_of(rows, "question_id")
    questions = _index_rows(rows, id_type)
    predicted = index_predictions(predictions, "question_id", id_type, "answer")
    refuse_unknown(predicted, questions, "question ids")
    require_all(predicted, questions, "questions")
    scores = {id_: float(question["label"].get(predicted[id_], 0.0)) for id_, question in questions.items()}
    kinds = [kind for kind in KINDS if all(isinstance(row.get(kind), str) for row in questions.values())]
    groups = {kind: score_groups((row[kind], scores[id_]) for id_, row in questions.items()) for kind in kinds}
    return ScoreReport(len(scores), {"accuracy": percent(list(scores.values()))}, groups)


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


def _index_rows(rows: Sequence[Mapping[str, Any]], id_type: type) -> dict[Any, Mapping[str, Any]]:
    expected = 'a list of {"question_id", "label": {answer: score}}, as the files of the LXMERT release are'
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise ScoringError(f"labels: found {shorten(rows)}, expected {expected}")
    questions: dict[Any, Mapping[str, Any]] = {}
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping) or not {"question_id", "label"} <= row.keys():
            raise ScoringError(f"labels[{place}]: {shorten(row)}, expected {expected}")
        if problem := identifier_problem(row["question_id"], id_type):
            raise ScoringError(f"labels[{place}]: question_id is {shorten(row['question_id'])}, {problem}")
        if problem := label_problem(row["label"]):
            raise ScoringError(f"labels[{place}] (question {some([row['question_id']])}): {problem}")
        if row["question_id"] in questions:
            raise ScoringError(f"labels[{place}]: question_id {some([row['question_id']])} occurs a second time")
        questions[row["question_id"]] = row
    return questions
