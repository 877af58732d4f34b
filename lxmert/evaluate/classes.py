"""Scoring of classes, of which one is right: accuracy, also by class, and of two the area under the ROC curve.

For Hateful Memes as its challenge does (AUROC, accuracy), for SNLI-VE (accuracy), and for one's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lxmert.evaluate.labels import label_problem, score_labels
from lxmert.evaluate.scores import ScoreReport, ScoringError, score_groups, some
from lxmert.files import shorten

UNDECIDED = (
    "-"  # SNLI's mark, in place of a class, where the annotators do not agree; its makers leave such pairs out
)


def area_under_roc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """How often a positive has a higher score than a negative, of all pairs of one with the other; a tie is half.

    Args:
        scores: (n,) finite numbers.
        positive: (n,) bool.

    Returns:
        0..1, exact up to the last division; None where one of the two kinds is missing.
    """
    values, place = np.unique(scores, return_inverse=True)
    positives = np.bincount(place[positive], minlength=len(values))
    negatives = np.bincount(place[~positive], minlength=len(values))
    pairs = int(positives.sum()) * int(negatives.sum())
    twice = int((positives * (2 * np.cumsum(negatives) - negatives)).sum())
    return twice / (2 * pairs) if pairs else None


def score_classes(predictions: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> ScoreReport:
    """Score classes by labels.

    Args:
        predictions: `{"question_id": int or str, "answer": str}`, one for every row; for the AUROC all of them
            with `"probabilities": {class: 0..1}`. The ids are of the type that those of the rows are.
        rows: `{"question_id", "label": {class: score}}`. Those without a class, which SNLI marks "-", do not
            count.

    Returns:
        `metrics["accuracy"]`, by `class` each one's recall, the groups of `score_labels`; where rows and
        predictions have two classes, and probabilities are given, `metrics["auroc"]`, which is the same whichever
        of the two is the positive one as long as their probabilities add up to 1 (else: the last by the alphabet).

    Raises:
        ScoringError: a malformed, repeated, unknown or missing prediction, probabilities that are none or not
            everywhere, malformed rows, or none with a class.
    """
    undecided = {_id(row) for row in rows if _class(row) == UNDECIDED} if isinstance(rows, Sequence) else set()
    if undecided and isinstance(predictions, Sequence):
        rows = [row for row in rows if _class(row) != UNDECIDED]
        predictions = [each for each in predictions if _id(each) not in undecided]
        if not rows:
            raise ScoringError("labels: no row has a class")
    report = score_labels(predictions, rows)
    answers = {each["question_id"]: each["answer"] for each in predictions}
    truths = {row["question_id"]: _class(row) for row in rows}
    right = ((truths[row["question_id"]], row["label"].get(answers[row["question_id"]], 0.0)) for row in rows)
    report.groups = {"class": score_groups(right)} | report.groups
    classes = sorted({*truths.values(), *answers.values()})
    given = _probabilities(predictions)
    if given and len(classes) == 2:
        scores = np.array([_of(classes[1], given, id_) for id_ in truths])
        area = area_under_roc(scores, np.array([truth == classes[1] for truth in truths.values()]))
        report.metrics |= {} if area is None else {"auroc": 100 * area}
    if undecided:
        report.notes.append(f"Not scored: {len(undecided)} rows without a class.")
    return report


def probability_problem(value: Any) -> str | None:
    """What is wrong with the probabilities of classes, if anything."""
    if not isinstance(value, Mapping):
        return f"{shorten(value)}, expected an object of class and probability"
    for name, each in value.items():
        if type(each) not in (int, float) or not 0 <= each <= 1:
            return f"{shorten(each)} of {shorten(name)}, expected a number from 0 to 1"
    return None


def _probabilities(predictions: Sequence[Mapping[str, Any]]) -> dict[Any, Mapping[str, float]]:
    """Probabilities by id; none where no prediction has some."""
    given = {each["question_id"]: each["probabilities"] for each in predictions if "probabilities" in each}
    for id_, value in given.items():
        if problem := probability_problem(value):
            raise ScoringError(f"predictions: probabilities of {some([id_])}: {problem}")
    lacking = [each["question_id"] for each in predictions if each["question_id"] not in given]
    if given and lacking:
        raise ScoringError(
            f"predictions: {len(lacking)} have no probabilities and the others do: {some(lacking, 5)}. Give all "
            "or none."
        )
    return given


def _of(positive: str, given: Mapping[Any, Mapping[str, float]], id_: Any) -> float:
    if positive not in given[id_]:
        raise ScoringError(
            f"predictions: probabilities of {some([id_])} lack {shorten(positive)}, which the AUROC is by; they "
            f"have {shorten(list(given[id_]))}"
        )
    return given[id_][positive]


def _id(row: Any) -> Any:
    id_ = row.get("question_id") if isinstance(row, Mapping) else None
    return id_ if isinstance(id_, int | str) else None


def _class(row: Any) -> str:
    """The class of a row, of several the one with the best score; nothing where the row is malformed."""
    label = row.get("label") if isinstance(row, Mapping) else None
    if not isinstance(label, Mapping) or label_problem(label):
        return ""
    return max(label, key=label.__getitem__, default=UNDECIDED)
