"""The benchmarks, each described once: its submission, its split's ids, its makers' files, its score.

Data modules name theirs (`task`); the run that writes predictions, the commands that score and check them, and
ensembles read the description, and nothing else tells one benchmark from another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from lxmert.evaluate.nlvr2 import score_nlvr2
from lxmert.evaluate.scores import ScoreReport, ScoringError
from lxmert.evaluate.vqa import score_vizwiz, score_vqa


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Args:
        name: as data modules and commands call it.
        id_key, id_type, answer_key: a submission's entries are {id_key: id_type, answer_key: str}.
        entry: an entry, for messages.
        wrong_id: what the server makes of an id of another type.
        score: the makers' metrics of a submission, by the file of the truth and further files by name.
        truth: what the file of the truth has, by which data modules name it, and what it is called.
        further: name of a further file -> what it is.
        answers: the allowed ones; none: any.
        lines: a submission is lines `id,answer`, and no JSON list.
        row_key: of an id in the LXMERT release's rows.
        rows: what a file of the split's questions or statements holds.
        ids_are_names: the makers' questions are an object of id -> question.
    """

    name: str
    id_key: str
    id_type: type
    answer_key: str
    entry: str
    wrong_id: str
    score: Callable[[Path, Path, Mapping[str, Path]], ScoreReport]
    truth: tuple[str, str]
    further: Mapping[str, str] = field(default_factory=dict)
    answers: tuple[str, ...] = ()
    lines: bool = False
    row_key: str = "question_id"
    rows: Callable[[Path], Any] = read_json
    ids_are_names: bool = False

    @property
    def suffix(self) -> str:
        """Of a submission's file."""
        return ".csv" if self.lines else ".json"

    def submission_text(self, answers: Mapping[Any, str]) -> str:
        """The submission file of `answers`, id -> answer, in their order."""
        if self.lines:
            return "".join(f"{id_},{answer}\n" for id_, answer in answers.items())
        rows = [{self.id_key: id_, self.answer_key: answer} for id_, answer in answers.items()]
        return json.dumps(rows, allow_nan=False) + "\n"

    def read_submission(self, path: Path) -> Any:
        """A submission file for `check_submission`: its entries, and a line as text where it is none.

        Raises:
            ScoringError: not JSON, not text.
            OSError: it cannot be read.
        """
        if not self.lines:
            return read_json(path)
        lines = [(line, line.split(",")) for _, line in read_lines(path)]
        return [{self.id_key: f[0], self.answer_key: f[1]} if len(f) == 2 else line for line, f in lines]


# ------------------------------------------------------------------------------------------------ VQA


def _score_vqa(predictions: Path, annotations: Path, further: Mapping[str, Path]) -> ScoreReport:
    content = read_json(annotations)
    rows = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise ScoringError(
            "annotations: expected the official annotation file, an object with `annotations` (VQA, OK-VQA) or a "
            "list of them (VQA-CP, VizWiz)"
        )
    is_vizwiz = rows and isinstance(rows[0], dict) and "image" in rows[0] and "question_id" not in rows[0]
    return (score_vizwiz if is_vizwiz else score_vqa)(read_json(predictions), rows)


VQA = Task(
    name="vqa",
    id_key="question_id",
    id_type=int,
    answer_key="answer",
    entry='{"question_id": int, "answer": str}',
    wrong_id="the server refuses the file",
    score=_score_vqa,
    truth=("annotations", "official annotations"),
)


# ------------------------------------------------------------------------------------------------ GQA


def _score_gqa(predictions: Path, questions: Path, further: Mapping[str, Path]) -> ScoreReport:
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
        content,
        choices=read_json(further["choices"]) if "choices" in further else None,
        all_questions=all_questions,
        attentions=read_attentions(further["attentions"]) if "attentions" in further else None,
        scene_graphs=read_questions(further["scene_graphs"]) if "scene_graphs" in further else None,
    )


def _gqa_rows(path: Path) -> Any:
    return read_questions(path) if path.is_dir() else read_json(path)


GQA = Task(
    name="gqa",
    id_key="questionId",
    id_type=str,
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


def _score_nlvr2(predictions: Path, statements: Path, further: Mapping[str, Path]) -> ScoreReport:
    subsets = {name: read_statements(path) for name, path in further.items()}
    return score_nlvr2(read_nlvr2_predictions(predictions), read_statements(statements), **subsets)


def _nlvr2_rows(path: Path) -> Any:
    return read_json(path) if is_list(path) else read_statements(path)


NLVR2 = Task(
    name="nlvr2",
    id_key="identifier",
    id_type=str,
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

TASKS = {task.name: task for task in (VQA, GQA, NLVR2)}


def task_of(ids_are_texts: bool, answers: set[str]) -> Task:
    """The task that score files are of, by their ids and answers."""
    if not ids_are_texts:
        return VQA
    return NLVR2 if answers == set(NLVR2.answers) else GQA
