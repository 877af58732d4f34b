"""VizWiz: the accuracy of answers, and how well it is told which questions can be answered.

The rules are those of the makers' evaluation code. A question is called by its image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from lxmert.evaluate.scores import (
    ScoreReport,
    ScoringError,
    identifier_problem,
    index_predictions,
    require_all,
    some,
)
from lxmert.evaluate.vqa import AnnotatorRule, index_annotations, normalise_vqa_answer, score_answers
from lxmert.files import shorten

# The answer is always normalised and the annotators' never are.
VIZWIZ_RULE = AnnotatorRule(agreed=(normalise_vqa_answer, str), disagreed=(normalise_vqa_answer, str))


def vizwiz_accuracy(prediction: str, annotator_answers: Sequence[str]) -> float:
    """The accuracy of one answer by the evaluation code of VizWiz, in 0..1.

    As for VQA, but the prediction is always normalised and the annotators' answers never are.

    Raises:
        ScoringError: there are no annotators' answers.
    """
    return VIZWIZ_RULE.accuracy(prediction, annotator_answers)


def score_vizwiz(
    predictions: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    answerability: Sequence[Mapping[str, Any]] | None = None,
) -> ScoreReport:
    """Score answers to VizWiz questions as its evaluation code does.

    Args:
        predictions: `{"image": str, "answer": str}`, one for every image: each has one question.
        annotations: the rows of the official file, `{"image", "answers", "answer_type", "answerable", ...}`.
        answerability: `{"image": str, "answerable": 0..1}`, how surely each question can be answered.

    Returns:
        `metrics["accuracy"]` and the group `answer_type`; with `answerability` its `average_precision` and
        `f1`, both, as in the makers' code, of the questions that cannot be answered.

    Raises:
        ScoringError: as `score_vqa`; a question without 0 or 1 as `answerable`, where this is scored.
    """
    predicted = index_predictions(predictions, "image", str, "answer")
    questions = index_annotations(annotations, "image", str, ("answer_type",))
    report = score_answers(predicted, questions, "images", VIZWIZ_RULE, ("answer_type",))
    if answerability is not None:
        report.metrics |= _score_answerability(answerability, questions)
    return report


def _score_answerability(
    predictions: Sequence[Mapping[str, Any]], questions: Mapping[str, Mapping[str, Any]]
) -> dict[str, float]:
    surely = _index_answerability(predictions)
    require_all(surely, questions, "images' answerability")
    unanswerable = []
    for image, question in questions.items():
        if type(question.get("answerable")) is not int or question["answerable"] not in (0, 1):
            raise ScoringError(
                f"annotations: answerable of image {some([image])} is {shorten(question.get('answerable'))}, "
                "expected 0 or 1"
            )
        unanswerable.append((1.0 - surely[image], question["answerable"] == 0))
    if not any(truth for _, truth in unanswerable):
        raise ScoringError("annotations: every question can be answered, so answerability cannot be scored")
    found = sum(truth for score, truth in unanswerable if score > 0.5)
    called = sum(score > 0.5 for score, _ in unanswerable)
    true = sum(truth for _, truth in unanswerable)
    return {
        "answerability/average_precision": 100 * average_precision(unanswerable),
        "answerability/f1": 100 * 2 * found / (called + true),
    }


def average_precision(scores: Sequence[tuple[float, bool]]) -> float:
    """The precision at each distinct score, weighted by the recall it adds: 0..1, as scikit-learn's.

    Args:
        scores: (score, whether it is one to be found), of which at least one is.
    """
    total = sum(truth for _, truth in scores)
    seen = found = 0
    area = 0.0
    for _, equal in groupby(sorted(scores, key=lambda pair: -pair[0]), key=lambda pair: pair[0]):
        truths = [truth for _, truth in equal]
        seen, found = seen + len(truths), found + sum(truths)
        area += sum(truths) / total * found / seen
    return area


def _index_answerability(predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    wanted = '{"image": str, "answerable": 0..1}'
    if not isinstance(predictions, Sequence) or isinstance(predictions, str):
        raise ScoringError(f"answerability: a {type(predictions).__name__}, expected a list of {wanted}")
    indexed: dict[str, float] = {}
    for place, row in enumerate(predictions):
        image = row.get("image") if isinstance(row, Mapping) else None
        score = row.get("answerable") if isinstance(row, Mapping) else None
        if identifier_problem(image, str) or type(score) not in (int, float) or not 0 <= score <= 1:  # type: ignore[operator]
            raise ScoringError(f"answerability[{place}]: {shorten(row)}, expected {wanted}")
        if image in indexed:
            raise ScoringError(f"answerability[{place}]: image {some([image])} is there a second time")
        indexed[str(image)] = float(score)  # type: ignore[arg-type]
    return indexed
