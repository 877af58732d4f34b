"""NLVR2: accuracy, and consistency over the image pairs of a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lxmert.evaluate.scores import (
    ScoreReport,
    ScoringError,
    identifier_problem,
    ignored_predictions,
    index_predictions,
    percent,
    require_all,
    some,
)
from lxmert.files import shorten

TRUTH = {"true": True, "false": False}


def score_nlvr2(
    predictions: Sequence[Mapping[str, Any]],
    statements: Sequence[Mapping[str, Any]],
    *,
    balanced: Sequence[Mapping[str, Any]] | None = None,
    unbalanced: Sequence[Mapping[str, Any]] | None = None,
) -> ScoreReport:
    """Score predictions as the official NLVR2 script does, in percent.

    Args:
        predictions: `{"identifier": str, "label": "True" or "False" in any case}`, one for every statement.
            Those for other statements are ignored, as officially, and counted in the notes.
        statements: the rows of the official JSON lines file.
        balanced: the rows of the makers' balanced subset of the same split.
        unbalanced: the rows of their unbalanced subset.

    Returns:
        Metrics `accuracy` (the script calls it precision) and `consistency` (sentences that are right about
        every image pair), and with a subset the same two as `balanced/accuracy` and so on.

    Raises:
        ScoringError: a malformed, repeated or missing prediction, or malformed statements.
    """
    texts = index_predictions(predictions, "identifier", str, "label")
    for identifier, text in texts.items():
        if text.lower() not in TRUTH:
            raise ScoringError(
                f"predictions: {some([identifier])} is predicted {shorten(text)}, expected True or False"
            )
    predicted = {identifier: TRUTH[text.lower()] for identifier, text in texts.items()}
    labels = _index_statements(statements, "annotations")
    require_all(predicted, labels, "statements")
    metrics = _accuracy_and_consistency(predicted, labels)
    for name, rows in (("balanced", balanced), ("unbalanced", unbalanced)):
        if rows is not None:
            subset = _index_statements(rows, name)
            require_all(predicted, subset, f"{name} statements")
            metrics |= {
                f"{name}/{key}": value for key, value in _accuracy_and_consistency(predicted, subset).items()
            }
    return ScoreReport(len(labels), metrics, notes=ignored_predictions(predicted, labels))


def _accuracy_and_consistency(predicted: Mapping[str, bool], labels: Mapping[str, bool]) -> dict[str, float]:
    sentences: dict[tuple[str, ...], bool] = {}
    correct = []
    for identifier, label in labels.items():
        split, image_set, _pair, sentence = identifier.split("-")
        key = (split, image_set, sentence)
        correct.append(float(predicted[identifier] == label))
        sentences[key] = sentences.get(key, True) and predicted[identifier] == label
    return {
        "accuracy": percent(correct),
        "consistency": percent([float(right) for right in sentences.values()]),
    }


def _index_statements(statements: Sequence[Mapping[str, Any]], name: str) -> dict[str, bool]:
    if not isinstance(statements, Sequence) or isinstance(statements, str) or not statements:
        raise ScoringError(f"{name}: no statements; expected the rows of the official JSON lines file")
    labels: dict[str, bool] = {}
    for place, row in enumerate(statements):
        where = f"{name}[{place}]"
        if not isinstance(row, Mapping):
            raise ScoringError(f"{where}: {shorten(row)}, expected an object with identifier and label")
        identifier, label = row.get("identifier"), row.get("label")
        if identifier_problem(identifier, str) or str(identifier).count("-") != 3:
            raise ScoringError(f"{where}: identifier {shorten(identifier)}, expected split-set-pair-sentence")
        if not isinstance(label, str) or label.lower() not in TRUTH:
            raise ScoringError(
                f"{where}: label of {some([identifier])} is {shorten(label)}, expected the text True or False"
            )
        if identifier in labels:
            raise ScoringError(f"{where}: {some([identifier])} occurs a second time")
        labels[str(identifier)] = TRUTH[label.lower()]
    return labels
