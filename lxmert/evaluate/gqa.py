"""GQA: the official metrics.

GQA-OOD is scored by the same rules: its ood_testdev_{all,head,tail}.json are question files, and one prediction
file for all of testdev serves the three.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lxmert.evaluate.grounding import grounding_score
from lxmert.evaluate.scores import (
    ScoreReport,
    ScoringError,
    identifier_problem,
    ignored_predictions,
    index_predictions,
    percent,
    require_all,
    score_groups,
    some,
)
from lxmert.files import shorten

FIELDS = ("question", "answer", "isBalanced", "types", "semantic", "groups", "entailed")
TYPES = ("structural", "semantic", "detailed")
# Operations that only read the result out and so are not counted as reasoning steps.
READ_OUT = ("exist", "query: name", "choose name")


def score_gqa(
    predictions: Sequence[Mapping[str, Any]],
    questions: Mapping[str, Mapping[str, Any]],
    *,
    choices: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    all_questions: Mapping[str, Mapping[str, Any]] | None = None,
    attentions: Mapping[str, Sequence[Sequence[float]]] | None = None,
    scene_graphs: Mapping[str, Mapping[str, Any]] | None = None,
) -> ScoreReport:
    """Score predictions as the official GQA script does.

    Args:
        predictions: `{"questionId": str, "prediction": str}`. Those for other questions are ignored, as
            officially (one submission file covers several splits), and counted in the notes.
        questions: the official questions file, balanced or all; the balanced ones are scored.
        choices: the official choices file, for validity and plausibility.
        all_questions: the official file of all questions, for consistency; every one needs a prediction.
        attentions: question id -> boxes with their attention, see `grounding_score`; for every balanced
            question. With it goes
        scene_graphs: the official scene graphs of the split. The two are for the optional grounding, by the
            official formula with its errors mended.

    Returns:
        Metrics `accuracy`, `binary`, `open`, `validity`, `plausibility`, `consistency`, `grounding` in percent
        and `distribution` (lower is better); groups `structural`, `semantic`, `detailed`, `steps`, `words`.
        Without a file or anything to average, a metric is left out; the official script prints 0 for it.

    Raises:
        ScoringError: a malformed, repeated or missing prediction, or malformed annotations.
    """
    predicted = index_predictions(predictions, "questionId", str, "prediction")
    _check_questions(questions)
    balanced = {id_: question for id_, question in questions.items() if question["isBalanced"]}
    if not balanced:
        raise ScoringError("annotations: none of the questions is balanced, and GQA scores balanced ones alone")
    require_all(predicted, balanced, "balanced questions")
    correct = {id_: float(predicted[id_] == question["answer"]) for id_, question in balanced.items()}

    metrics = {"accuracy": percent(list(correct.values()))}
    for name, is_open in (("binary", False), ("open", True)):
        scores = [correct[id_] for id_, q in balanced.items() if (q["types"]["structural"] == "query") == is_open]
        if scores:
            metrics[name] = percent(scores)
    if choices is not None:
        if not isinstance(choices, Mapping):
            raise ScoringError("choices: expected an object of question id -> valid and plausible answers")
        for name, field in (("validity", "valid"), ("plausibility", "plausible")):
            metrics[name] = percent([_belongs(predicted[i], q, i, choices, field) for i, q in balanced.items()])
    if all_questions is not None:
        _check_questions(all_questions)
        require_all(predicted, all_questions, "of all questions, which consistency asks for")
        consistency = _consistency(predicted, balanced, correct, all_questions)
        if consistency:
            metrics["consistency"] = percent(consistency)
    distribution = _distribution(predicted, balanced.items())
    if distribution is not None:
        metrics["distribution"] = distribution
    if attentions is not None and scene_graphs is not None:
        metrics["grounding"] = percent(_grounding(balanced, attentions, scene_graphs))

    groups = {
        kind: score_groups((q["types"][kind], correct[id_]) for id_, q in balanced.items()) for kind in TYPES
    }
    groups["steps"] = score_groups((_steps(q), correct[id_]) for id_, q in balanced.items())
    groups["words"] = score_groups((len(q["question"].split()), correct[id_]) for id_, q in balanced.items())
    notes = ignored_predictions(predicted, questions, all_questions or {})
    return ScoreReport(len(correct), metrics, groups, notes)


def _belongs(
    prediction: str,
    question: Mapping[str, Any],
    id_: str,
    choices: Mapping[str, Mapping[str, Sequence[str]]],
    field: str,
) -> float:
    # "What do they have in common?" is answered by the kind of attribute, which the choices do not list.
    if "Common" in question["types"]["detailed"]:
        return float(prediction in ("color", "material", "shape"))
    chosen = choices.get(id_)
    if not isinstance(chosen, Mapping) or not _are_texts(chosen.get(field)):
        raise ScoringError(
            f"choices: no {field!r} answers for question {some([id_])}; use the choices file of this split"
        )
    return float(prediction in chosen[field])


def _consistency(
    predicted: Mapping[str, str],
    balanced: Mapping[str, Mapping[str, Any]],
    correct: Mapping[str, float],
    all_questions: Mapping[str, Mapping[str, Any]],
) -> list[float]:
    """For each question answered right that entails others: the share of those others answered right."""
    scores = []
    for id_, question in balanced.items():
        entailed = [other for other in question["entailed"] if other != id_]
        if not correct[id_] or not entailed:
            continue
        absent = [other for other in entailed if other not in all_questions]
        if absent:
            raise ScoringError(
                f"all questions: question {some([id_])} entails {some(absent)}, which the file lacks; "
                "use the *_all_questions file of the same split"
            )
        hits = [float(predicted[other] == all_questions[other]["answer"]) for other in entailed]
        scores.append(sum(hits) / len(hits))
    return scores


def _distribution(predicted: Mapping[str, str], balanced: Iterable[tuple[str, Mapping[str, Any]]]) -> float | None:
    """Chi-square of predicted against true answer counts per global group, weighted by size, over 100."""
    gold: defaultdict[str, Counter[str]] = defaultdict(Counter)
    given: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for id_, question in balanced:
        group = question["groups"]["global"]
        if group is not None:
            gold[group][question["answer"]] += 1
            given[group][predicted[id_]] += 1
    if not gold:
        return None
    total = 0.0
    for group, counts in gold.items():
        chi_square = sum((given[group][answer] - count) ** 2 / count for answer, count in counts.items())
        total += chi_square * counts.total()
    return total / sum(counts.total() for counts in gold.values()) / 100


def _grounding(
    balanced: Mapping[str, Mapping[str, Any]],
    attentions: Mapping[str, Sequence[Sequence[float]]],
    scene_graphs: Mapping[str, Mapping[str, Any]],
) -> list[float]:
    for name, content in (("attentions", attentions), ("scene graphs", scene_graphs)):
        if not isinstance(content, Mapping):
            raise ScoringError(f"{name}: found {shorten(content)}, expected an object, as in the official file")
    absent = [id_ for id_ in balanced if id_ not in attentions]
    if absent:
        raise ScoringError(f"attentions: none for {len(absent)} balanced questions: {some(absent)}; give all")
    return [grounding_score(id_, q, scene_graphs, attentions[id_]) for id_, q in balanced.items()]


def _steps(question: Mapping[str, Any]) -> int:
    operations = (f"{step['operation']}: {step['argument']}" for step in question["semantic"])
    return sum(not any(name in operation for name in READ_OUT) for operation in operations)


def _check_questions(questions: Mapping[str, Mapping[str, Any]]) -> None:
    if not isinstance(questions, Mapping) or not questions:
        raise ScoringError("annotations: expected an object of question id -> question, as in the official file")
    for id_, question in questions.items():
        absent = [f for f in FIELDS if f not in question] if isinstance(question, Mapping) else FIELDS
        if absent:
            raise ScoringError(f"annotations[{shorten(id_)}]: {shorten(question)} lacks {', '.join(absent)}")
        if problem := identifier_problem(id_, str):
            raise ScoringError(f"annotations[{shorten(id_)}]: the question id is {problem}")
        for field, (is_right, expected) in _CHECKS.items():
            if not is_right(question[field]):
                raise ScoringError(
                    f"annotations[{shorten(id_)}]: expected {expected}, found {field} {shorten(question[field])}"
                )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_types(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(kind), str) for kind in TYPES)


def _are_groups(value: Any) -> bool:
    return isinstance(value, Mapping) and "global" in value and isinstance(value["global"], str | None)


def _are_steps(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(step, Mapping) and all(isinstance(step.get(name), str) for name in ("operation", "argument"))
        for step in value
    )


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "question": (_is_text, "a text as question"),
    "answer": (_is_text, "a text as answer"),
    "isBalanced": (lambda value: isinstance(value, bool), "true or false as isBalanced"),
    "types": (_are_types, f"types {', '.join(TYPES)} that are texts"),
    "semantic": (_are_steps, "a list of steps with operation and argument as semantic"),
    "groups": (_are_groups, "a global group, a text or null"),
    "entailed": (_are_texts, "a list of question ids as entailed"),
}
