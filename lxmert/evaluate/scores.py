"""What every scorer returns, and the checks every scorer makes of a prediction file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar

from lxmert.files import InputError, shorten

Id = TypeVar("Id", int, str)


class ScoringError(InputError):
    """Predictions or annotations that cannot be scored; the message begins with which of them it is."""


class GroupScore(NamedTuple):
    """The score of one group of examples, and how many they are."""

    score: float
    examples: int


@dataclass
class ScoreReport:
    """The scores of one prediction file, in percent unless a scorer says otherwise, not rounded.

    Args:
        examples: how many examples `metrics["accuracy"]` averages.
        metrics: the makers' figures by name; one that has nothing to average is left out.
        groups: kind of group -> its value -> accuracy within it.
        notes: what a reader must know about these figures, one sentence each.
    """

    examples: int
    metrics: dict[str, float]
    groups: dict[str, dict[str, GroupScore]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types, rounded to two decimals as the makers print their scores.

        A group becomes `{"score": ..., "examples": ...}`.
        """
        groups = {
            kind: {
                value: {"score": round(group.score, 2), "examples": group.examples}
                for value, group in values.items()
            }
            for kind, values in self.groups.items()
        }
        metrics = {name: round(score, 2) for name, score in self.metrics.items()}
        return {**asdict(self), "metrics": metrics, "groups": groups}


def percent(scores: Sequence[float]) -> float:
    """The mean of scores in 0..1 (at least one), x100."""
    return 100 * float(sum(scores)) / len(scores)


def score_groups(scores: Iterable[tuple[Any, float]]) -> dict[str, GroupScore]:
    """The score of each group, in the groups' order, from (group, score in 0..1) pairs."""
    members: defaultdict[Any, list[float]] = defaultdict(list)
    for group, score in scores:
        members[group].append(score)
    return {str(group): GroupScore(percent(members[group]), len(members[group])) for group in sorted(members)}


def index_predictions(
    predictions: Sequence[Mapping[str, Any]], id_key: str, id_type: type[Id], answer_key: str
) -> dict[Id, str]:
    """Predictions by example, in the order given.

    Raises:
        ScoringError: not a list of `{id_key: id_type, answer_key: str}`, or an example answered twice.
    """
    wanted = f'{{"{id_key}": {id_type.__name__}, "{answer_key}": str}}'
    if not isinstance(predictions, Sequence) or isinstance(predictions, str):
        raise ScoringError(f"predictions: a {type(predictions).__name__}, expected a list of {wanted}")
    indexed: dict[Id, str] = {}
    for place, prediction in enumerate(predictions):
        where = f"predictions[{place}]"
        if not isinstance(prediction, Mapping) or not {id_key, answer_key} <= prediction.keys():
            raise ScoringError(f"{where}: {shorten(prediction)}, expected {wanted}")
        example, answer = prediction[id_key], prediction[answer_key]
        if type(example) is not id_type:  # not isinstance: True would pass as an int
            raise ScoringError(
                f"{where}: {id_key} {shorten(example)} is a {type(example).__name__}; "
                f"the submission format wants {id_type.__name__}"
            )
        if problem := identifier_problem(example, id_type):
            raise ScoringError(f"{where}: {id_key} {shorten(example)}; {problem}")
        if not isinstance(answer, str):
            raise ScoringError(
                f"{where}: {answer_key} of {id_key} {shorten(example)} is {shorten(answer)}, "
                f"a {type(answer).__name__}; the submission format wants a string"
            )
        if example in indexed:
            raise ScoringError(
                f"{where}: {id_key} {shorten(example)} is answered a second time; keep one answer each"
            )
        indexed[example] = answer
    return indexed


def identifier_problem(value: Any, kind: type) -> str | None:
    """What is wrong with the identifier of a question or an image, as a message goes on; `kind` is int or str."""
    # Not isinstance: True would pass as an int.
    if type(value) is not kind or not isinstance(value, int | str):
        return f"expected {'an integer' if kind is int else 'a text'}"
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else "expected an integer of 64 bits"
    if not value or value != value.strip() or not value.isprintable():
        return "expected a text without blanks at its ends, line breaks, NUL or other marks that do not show"
    return None


def id_type_of(rows: Any, id_key: str) -> type:
    """Of which type the ids of a file's rows are, by its first one: text or, also where there is none, integer."""
    first = rows[0] if isinstance(rows, Sequence) and rows else None
    return str if isinstance(first, Mapping) and isinstance(first.get(id_key), str) else int


def require_all(predictions: Collection[Id], examples: Iterable[Id], what: str) -> None:
    """Refuse an incomplete prediction file, as every maker's script does.

    Raises:
        ScoringError: naming the examples without a prediction.
    """
    missing = [example for example in examples if example not in predictions]
    if missing:
        raise ScoringError(
            f"predictions: no prediction for {len(missing)} {what}: {some(missing)}. "
            "The official script scores complete files only: predict every one of them."
        )


def refuse_unknown(predictions: Iterable[Id], examples: Collection[Id], what: str) -> None:
    """Refuse predictions for examples that are not in the annotations.

    Raises:
        ScoringError: naming them.
    """
    unknown = [example for example in predictions if example not in examples]
    if unknown:
        raise ScoringError(
            f"predictions: {len(unknown)} {what} are not in the annotations: {some(unknown)}. "
            "Score the file against the annotations of the split it was made for."
        )


def ignored_predictions(predictions: Iterable[Id], *known: Collection[Id]) -> list[str]:
    """The note on predictions for other examples than the `known`, which some makers' scripts ignore."""
    ignored = [example for example in predictions if not any(example in examples for examples in known)]
    if not ignored:
        return []
    return [
        f"Ignored as officially: {len(ignored)} predictions for examples outside the given files: "
        f"{some(ignored, 5)}."
    ]


def some(items: Sequence[Any], most: int = 20) -> str:
    """The first items, for an error message."""
    texts = (str(item) for item in items[:most])
    listed = ", ".join(text if len(text) <= 80 else f"{text[:80]}..." for text in texts)
    return f"{listed}, ..." if len(items) > most else listed
