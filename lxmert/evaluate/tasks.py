"""The benchmarks, each described once: its submission, its split's ids, its makers' files, its score.

Data modules name theirs (`task`); the run that writes predictions, the commands that score and check them, and
ensembles read the description, and nothing else tells one benchmark from another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxmert.evaluate.classes import score_classes
from lxmert.evaluate.files import (
    is_list,
    read_attentions,
    read_json,
    read_lines,
    read_nlvr2_predictions,
    read_questions,
    read_statements,
)
from lxmert.evaluate.gqa import score_gqa
from lxmert.evaluate.labels import score_labels
from lxmert.evaluate.nlvr2 import score_nlvr2
from lxmert.evaluate.refcoco import is_box, score_regions
from lxmert.evaluate.scores import ScoreReport, ScoringError, some
from lxmert.evaluate.vizwiz import VIZWIZ_RULE, score_vizwiz
from lxmert.evaluate.vqa import VQA_RULE, AnnotatorRule, score_vqa
from lxmert.files import shorten


def _same_id(id_: Any, image: str) -> Any:
    return id_


def _is_text(answer: Any) -> bool:
    return isinstance(answer, str)


def _file_of(id_: Any, image: str) -> str:
    return f"{image}.jpg"


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Args:
        name: as data modules and commands call it.
        id_key, id_types, answer_key: a submission's entries are {id_key: id, answer_key: str}, with ids of the
            first type, or of another where those of the split's questions are.
        entry: an entry, for messages.
        wrong_id: what becomes of an id of another type.
        score: the makers' metrics of a submission, by the file of the truth, further files by name and, where the
            truth is of more than the split, the split's ids.
        truth: what the file of the truth has, by which data modules name it, and what it is called.
        further: name of a further file -> what it is.
        answers: the allowed ones; none: any that `takes`.
        lines: a submission is lines `id,answer`, and no JSON list.
        header: a submission is a table with these columns, in this order.
        probability_key: of an entry's probabilities, {answer: probability} in JSON, that of `positive` in a table;
            none where they are not part of a submission.
        positive: the answer whose probability a table has.
        row_key: of an id in the LXMERT release's rows.
        rows: what a file of the split's questions or statements holds.
        ids_are_names: the makers' questions are an object of id -> question.
        id_of: how a submission calls an example, by the id and the image that the data module has for it.
        rule: how an answer is compared with those of annotators, where they are known.
        takes: whether something is an answer ...
        answer_kind: ... and what these are, for messages.
    """

    name: str
    id_key: str
    id_types: tuple[type, ...]
    answer_key: str
    entry: str
    wrong_id: str
    score: Callable[[Path, Path, Mapping[str, Path], Collection[Any] | None], ScoreReport]
    truth: tuple[str, str]
    further: Mapping[str, str] = field(default_factory=dict)
    answers: tuple[str, ...] = ()
    lines: bool = False
    header: tuple[str, ...] = ()
    probability_key: str = ""
    positive: str = ""
    row_key: str = "question_id"
    rows: Callable[[Path], Any] = read_json
    ids_are_names: bool = False
    id_of: Callable[[Any, str], Any] = _same_id
    rule: AnnotatorRule = VQA_RULE
    takes: Callable[[Any], bool] = _is_text
    answer_kind: str = "a string"

    @property
    def suffix(self) -> str:
        """Of a submission's file."""
        return ".csv" if self.lines or self.header else ".json"

    def submission_text(
        self, answers: Mapping[Any, Any], probabilities: Mapping[Any, Mapping[str, float]] | None = None
    ) -> str:
        """The submission file of `answers`, id -> answer, in their order.

        Args:
            answers: the file's.
            probabilities: id -> answer -> probability, for tasks with a `probability_key`. A table needs that of
                `positive` for each id.
        """
        if self.lines:
            return "".join(f"{id_},{answer}\n" for id_, answer in answers.items())
        rows: list[dict[str, Any]] = [
            {self.id_key: id_, self.answer_key: answer} for id_, answer in answers.items()
        ]
        if self.probability_key and probabilities is not None:
            for row in rows:
                given = probabilities[row[self.id_key]]
                row[self.probability_key] = given[self.positive] if self.header else dict(given)
        if self.header:
            lines = [self.header, *([str(row[name]) for name in self.header] for row in rows)]
            return "".join(f"{','.join(line)}\n" for line in lines)
        return json.dumps(rows, allow_nan=False) + "\n"

    def read_submission(self, path: Path) -> Any:
        """A submission file for `check_submission`: its entries, and a line as text where it is none.

        Raises:
            ScoringError: not JSON, not text.
            OSError: it cannot be read.
        """
        if self.header:
            return _table(path, self)
        if not self.lines:
            return read_json(path)
        lines = [(line, line.split(",")) for _, line in read_lines(path)]
        return [{self.id_key: f[0], self.answer_key: f[1]} if len(f) == 2 else line for line, f in lines]


def _table(path: Path, task: Task) -> list[Any]:
    """The entries of a table, with ids and probabilities as numbers; a line as text where it is none."""
    lines = [line for _, line in read_lines(path) if line]
    names = [name.strip() for name in lines[0].split(",")] if lines else []
    rows: list[Any] = []
    for line in lines if set(names) != set(task.header) else lines[1:]:
        fields = [field.strip() for field in line.split(",")]
        row: dict[str, Any] = dict(zip(names, fields, strict=False))
        if row.keys() != set(task.header) or len(fields) != len(names):
            rows.append(line)
            continue
        if int in task.id_types and row[task.id_key].isdecimal():
            row[task.id_key] = int(row[task.id_key])
        row[task.probability_key] = _number(row[task.probability_key])
        rows.append(row)
    return rows


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # in no range


def chosen(rows: Iterable[Any], key: str, only: Collection[Any] | None) -> list[Any]:
    """The rows of the truth whose id, under `key`, is among `only`; all of them where this is None.

    Raises:
        ScoringError: the truth is no list, or lacks some of these ids.
    """
    if not isinstance(rows, Iterable) or isinstance(rows, str):
        raise ScoringError(f"annotations: {shorten(rows)}, expected a list of rows with {key}")
    if only is None:
        return list(rows)
    found = [row for row in rows if isinstance(row, Mapping) and _is_among(row.get(key), only)]
    lacking = set(only) - {row[key] for row in found}
    if lacking:
        raise ScoringError(
            f"annotations: {len(lacking)} ids of the split are not in it: {some(sorted(lacking), 5)}. Give the "
            "annotations that the split is a part of."
        )
    return found


def _is_among(id_: Any, only: Collection[Any]) -> bool:
    return isinstance(id_, int | str) and id_ in only


# -------------------------------------------------------------------------- VQA, VizWiz, one's own


def _score_vqa(
    predictions: Path, annotations: Path, further: Mapping[str, Path], only: Collection[Any] | None
) -> ScoreReport:
    rows = _annotations(annotations)
    first = rows[0] if rows and isinstance(rows[0], dict) else {}
    if "image" in first and "question_id" not in first:
        return _score_vizwiz(predictions, annotations, further, only)
    rows = chosen(rows, "question_id", only)
    if "label" in first and "answers" not in first:
        report = score_labels(read_json(predictions), rows)
        report.notes.append("By the labels' soft scores: the makers' accuracy needs their annotations.")
        return report
    return score_vqa(read_json(predictions), rows)


def _score_vizwiz(
    predictions: Path, annotations: Path, further: Mapping[str, Path], only: Collection[Any] | None
) -> ScoreReport:
    rows = chosen(_annotations(annotations), "image", only)
    answerability = read_json(further["answerability"]) if "answerability" in further else None
    return score_vizwiz(read_json(predictions), rows, answerability)


def _annotations(path: Path) -> list[Any]:
    content = read_json(path)
    rows = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise ScoringError(
            "annotations: expected the official annotation file, an object with `annotations` (VQA, OK-VQA) or a "
            "list of them (VQA-CP, VizWiz)"
        )
    return rows


def _score_own(
    predictions: Path, labels: Path, further: Mapping[str, Path], only: Collection[Any] | None
) -> ScoreReport:
    rows = read_json(labels)
    return score_labels(read_json(predictions), chosen(rows, "question_id", only) if only else rows)


def _score_classes(
    predictions: Path, labels: Path, further: Mapping[str, Path], only: Collection[Any] | None
) -> ScoreReport:
    rows = read_json(labels)
    return score_classes(read_json(predictions), chosen(rows, "question_id", only) if only else rows)


VQA = Task(
    name="vqa",
    id_key="question_id",
    id_types=(int, str),
    answer_key="answer",
    entry='{"question_id": int, "answer": str}',
    wrong_id="the server refuses the file",
    score=_score_vqa,
    truth=("annotations", "official annotations, or rows with labels as in the LXMERT release"),
)

VIZWIZ = Task(
    name="vizwiz",
    id_key="image",
    id_types=(str,),
    answer_key="answer",
    entry='{"image": str, "answer": str}',
    wrong_id="the server refuses the file",
    score=_score_vizwiz,
    truth=("annotations", "official questions with answers"),
    further={"answerability": 'list of {"image": str, "answerable": 0..1}: adds its average precision and F1'},
    row_key="image",
    id_of=_file_of,
    rule=VIZWIZ_RULE,
)

OWN = Task(
    name="own",
    id_key="question_id",
    id_types=(int, str),
    answer_key="answer",
    entry='{"question_id": int or str, "answer": str}',
    wrong_id="no match",
    score=_score_own,
    truth=("labels", "rows with question_id and label {answer: score}, as in the LXMERT release"),
)


# -------------------------------------------------------------------------------------------- classes

CLASSES = Task(
    name="classes",
    id_key="question_id",
    id_types=(int, str),
    answer_key="answer",
    entry='{"question_id": int or str, "answer": str, "probabilities": {class: 0..1}}',
    wrong_id="no match",
    score=_score_classes,
    truth=("labels", "SNLI-VE's JSON lines, or texts of your own with their classes"),
    probability_key="probabilities",
)


def _score_hateful_memes(
    predictions: Path, memes: Path, further: Mapping[str, Path], only: Collection[Any] | None
) -> ScoreReport:
    truth = []
    for row in chosen(read_statements(memes, "id and label"), "id", only):
        if type(row.get("label")) is not int or row["label"] not in (0, 1):
            raise ScoringError(
                f"annotations: the label of {some([row.get('id')])} is {shorten(row.get('label'))}, not 0 or 1"
            )
        truth.append({"question_id": row.get("id"), "label": {str(row["label"]): 1.0}})
    given = []
    for row in HATEFUL_MEMES.read_submission(predictions):
        if not isinstance(row, Mapping):
            raise ScoringError(
                f"predictions: {shorten(row)}, expected {HATEFUL_MEMES.entry}, and these names in line 1"
            )
        given.append(
            {
                "question_id": row["id"],
                "answer": row["label"],
                "probabilities": {HATEFUL_MEMES.positive: row["proba"]},
            }
        )
    return score_classes(given, truth)


HATEFUL_MEMES = Task(
    name="hateful_memes",
    id_key="id",
    id_types=(int,),
    answer_key="label",
    entry="id,proba,label",
    wrong_id="no match",
    score=_score_hateful_memes,
    truth=("memes", "the makers' JSON lines with labels"),
    answers=("0", "1"),
    header=("id", "proba", "label"),
    probability_key="proba",
    positive="1",
    row_key="id",
    rows=lambda path: read_statements(path, "id"),
)


# ------------------------------------------------------------------------------------------------ GQA


def _score_gqa(
    predictions: Path, questions: Path, further: Mapping[str, Path], only: Collection[Any] | None
) -> ScoreReport:
    if ("attentions" in further) != ("scene_graphs" in further):
        raise ScoringError("grounding: needs both --attentions and --scene-graphs")
    content = read_questions(questions)
    all_questions = None
    if everything := further.get("all_questions"):
        # The official file of all questions is a gigabyte; reading it once is enough.
        same = everything.resolve() == questions.resolve()
        all_questions = content if same else read_questions(everything)
    return score_gqa(
        read_json(predictions),
        content if only is None else {id_: content[id_] for id_ in _ids_in(content, only)},
        choices=read_json(further["choices"]) if "choices" in further else None,
        all_questions=all_questions,
        attentions=read_attentions(further["attentions"]) if "attentions" in further else None,
        scene_graphs=read_questions(further["scene_graphs"]) if "scene_graphs" in further else None,
    )


def _ids_in(questions: Mapping[str, Any], only: Collection[Any]) -> list[str]:
    return [row["id"] for row in chosen(({"id": id_} for id_ in questions), "id", only)]


def _gqa_rows(path: Path) -> Any:
    return read_questions(path) if path.is_dir() else read_json(path)


GQA = Task(
    name="gqa",
    id_key="questionId",
    id_types=(str,),
    answer_key="prediction",
    entry='{"questionId": str, "prediction": str}',
    wrong_id="the server scores 0",
    score=_score_gqa,
    truth=("questions", "official questions, or folder of chunks"),
    further={
        "choices": "official choices: adds validity and plausibility",
        "all_questions": "official *_all_questions: adds consistency",
        "attentions": "question id -> [[x0, y0, x1, y1, weight], ...]: with the next adds grounding",
        "scene_graphs": "official scene graphs of the split",
    },
    rows=_gqa_rows,
    ids_are_names=True,
)


# ---------------------------------------------------------------------------------------------- NLVR2


def _score_nlvr2(
    predictions: Path, statements: Path, further: Mapping[str, Path], only: Collection[Any] | None
) -> ScoreReport:
    subsets = {name: read_statements(path) for name, path in further.items()}
    if only is not None:  # a subset of all may have statements of other splits
        subsets = {
            name: [row for row in rows if _is_among(row.get("identifier"), only)] for name, rows in subsets.items()
        }
    truth = chosen(read_statements(statements), "identifier", only)
    return score_nlvr2(read_nlvr2_predictions(predictions), truth, **subsets)


def _nlvr2_rows(path: Path) -> Any:
    return read_json(path) if is_list(path) else read_statements(path)


NLVR2 = Task(
    name="nlvr2",
    id_key="identifier",
    id_types=(str,),
    answer_key="label",
    entry="identifier,True|False",
    wrong_id="no match",
    score=_score_nlvr2,
    truth=("statements", "official JSON lines with labels"),
    further={
        "balanced": "the makers' balanced subset of the split",
        "unbalanced": "the makers' unbalanced subset of the split",
    },
    answers=("True", "False"),
    lines=True,
    row_key="identifier",
    rows=_nlvr2_rows,
)

# -------------------------------------------------------------------- RefCOCO and its like, pointing


def _score_regions(
    predictions: Path, truth: Path, further: Mapping[str, Path], only: Collection[Any] | None
) -> ScoreReport:
    return score_regions(read_json(predictions), chosen(read_json(truth), "id", only))


REFCOCO = Task(
    name="refcoco",
    id_key="id",
    id_types=(int, str),
    answer_key="box",
    entry='{"id": int or str, "box": [x, y, width, height]}',
    wrong_id="no match",
    score=_score_regions,
    truth=("truth", "rows with id and box, as `prepare` writes them beside its stores"),
    row_key="id",
    takes=is_box,
    answer_kind="a box [x, y, width, height]",
)

TASKS = {task.name: task for task in (VQA, VIZWIZ, GQA, NLVR2, CLASSES, HATEFUL_MEMES, REFCOCO, OWN)}


def task_of(ids_are_texts: bool, answers: set[str]) -> Task:
    """The task that score files are of which do not name it, by their ids and answers."""
    if not ids_are_texts:
        return VQA
    return NLVR2 if answers == set(NLVR2.answers) else GQA
