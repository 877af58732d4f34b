"""Score, check and average prediction files of any system by the makers' rules, without a model.

python -m lxmert.evaluate vqa PREDICTIONS ANNOTATIONS [--json OUT]
python -m lxmert.evaluate gqa PREDICTIONS QUESTIONS [--choices FILE] [--all-questions FILE]
                              [--attentions FILE --scene-graphs FILE] [--json OUT]
python -m lxmert.evaluate nlvr2 PREDICTIONS STATEMENTS [--balanced FILE] [--unbalanced FILE] [--json OUT]
python -m lxmert.evaluate check {vqa,gqa,nlvr2} PREDICTIONS QUESTIONS
python -m lxmert.evaluate ensemble SCORES SCORES ... --out OUT

`vqa` also takes the annotations of OK-VQA, VQA-CP and VizWiz (whose predictions are {"image", "answer"}), `gqa`
the questions of GQA-OOD: score its files all, head and tail one after the other. `check` tells what an evaluation
server would object to. `ensemble` averages the `*_scores.npz` that runs leave, and writes the submission OUT and
the averaged scores beside it, as <OUT>_scores.npz.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lxmert.evaluate import ScoreReport, ScoringError, score_gqa, score_nlvr2, score_vizwiz, score_vqa
from lxmert.evaluate.ensemble import Scores, average_scores, read_scores, write_scores
from lxmert.evaluate.files import read_json, read_nlvr2_predictions, read_questions, read_statements
from lxmert.evaluate.scores import identifier_problem, some
from lxmert.evaluate.submissions import FORMATS, Task, check_submission, read_ids, read_submission, submission_text
from lxmert.files import shorten, write_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what one command says; 0, or 1 with one message when the files do not allow it."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ScoringError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        for name, value in vars(options).items():
            if isinstance(value, Path) and name not in ("json", "out"):
                print(f"  {name.replace('_', ' ')}: {value}", file=sys.stderr)
        return 1


# ------------------------------------------------------------------------------------------ scores


def _score(options: argparse.Namespace) -> int:
    report = options.score(options)
    if options.json is not None:
        content = {"task": options.command} | report.to_dict()
        write_text(options.json, json.dumps(content, indent=2, allow_nan=False) + "\n")
    _print(options.command, report)
    return 0


def _vqa(options: argparse.Namespace) -> ScoreReport:
    content = read_json(options.annotations)
    rows = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise ScoringError(
            "annotations: expected the official annotation file, an object with `annotations` (VQA, OK-VQA) or a "
            "list of them (VQA-CP, VizWiz)"
        )
    is_vizwiz = rows and isinstance(rows[0], dict) and "image" in rows[0] and "question_id" not in rows[0]
    return (score_vizwiz if is_vizwiz else score_vqa)(read_json(options.predictions), rows)


def _gqa(options: argparse.Namespace) -> ScoreReport:
    if (options.attentions is None) != (options.scene_graphs is None):
        raise ScoringError("grounding: needs both --attentions and --scene-graphs")
    questions = read_questions(options.annotations)
    all_questions = None
    if options.all_questions is not None:
        # The official file of all questions is a gigabyte; reading it once is enough.
        same = options.all_questions.resolve() == options.annotations.resolve()
        all_questions = questions if same else read_questions(options.all_questions)
    return score_gqa(
        read_json(options.predictions),
        questions,
        choices=None if options.choices is None else read_json(options.choices),
        all_questions=all_questions,
        attentions=None if options.attentions is None else _read_attentions(options.attentions),
        scene_graphs=None if options.scene_graphs is None else read_questions(options.scene_graphs),
    )


def _read_attentions(path: Path) -> dict[str, Any]:
    """An object of question id -> boxes, or the makers' list of {"questionId", "attention"} as one."""
    content = read_json(path)
    if isinstance(content, dict):
        return content
    expected = 'an object of question id -> boxes or a list of {"questionId", "attention"}'
    if not isinstance(content, list):
        raise ScoringError(f"{path}: found {shorten(content)}, expected {expected}")
    attentions: dict[str, Any] = {}
    for place, row in enumerate(content):
        if not isinstance(row, dict) or not {"questionId", "attention"} <= row.keys():
            raise ScoringError(f"{path}: row {place} is {shorten(row)}, expected {expected}")
        if problem := identifier_problem(row["questionId"], str):
            raise ScoringError(f"{path}: row {place}: questionId is {shorten(row['questionId'])}, {problem}")
        if row["questionId"] in attentions:
            raise ScoringError(f"{path}: row {place}: {some([row['questionId']])} is there a second time")
        attentions[row["questionId"]] = row["attention"]
    return attentions


def _nlvr2(options: argparse.Namespace) -> ScoreReport:
    return score_nlvr2(
        read_nlvr2_predictions(options.predictions),
        read_statements(options.annotations),
        balanced=None if options.balanced is None else read_statements(options.balanced),
        unbalanced=None if options.unbalanced is None else read_statements(options.unbalanced),
    )


def _print(task: str, report: ScoreReport) -> None:
    table = Table(title=f"{task}: {report.examples:,} examples")
    table.add_column("metric")
    table.add_column("score", justify="right")
    table.add_column("examples", justify="right")
    for name, score in report.metrics.items():
        table.add_row(name, f"{score:.2f}", "")
    for kind, values in report.groups.items():
        table.add_section()
        for value, group in values.items():
            table.add_row(escape(f"{kind}: {value}"), f"{group.score:.2f}", f"{group.examples:,}")
    console = Console()
    console.print(table)
    for note in report.notes:
        console.print(note, highlight=False, markup=False)


# --------------------------------------------------------------------------- submissions, ensembles


def _check(options: argparse.Namespace) -> int:
    ids = read_ids(options.task, options.questions)
    rows = read_submission(options.task, options.predictions)
    problems = check_submission(options.task, rows, ids)
    if not problems:
        print(f"{options.predictions}: valid for {options.task}, {len(ids):,} ids answered")
        return 0
    print(f"{options.predictions}: not valid for {options.task}, {len(ids):,} ids expected:")
    for problem in problems:
        print(f"  {problem}")
    return 1


def _ensemble(options: argparse.Namespace) -> int:
    scores = average_scores({str(path): read_scores(path) for path in options.scores})
    beside = options.out.with_name(f"{options.out.stem}_scores.npz")
    write_text(options.out, submission_text(_task_of(scores), scores.best()))
    write_scores(beside, scores)
    print(f"{len(options.scores)} score files, {len(scores.question_id):,} questions: {options.out}, {beside}")
    return 0


def _task_of(scores: Scores) -> Task:
    if scores.question_id.dtype.kind != "U":
        return "vqa"
    return "nlvr2" if set(scores.answers.tolist()) == {"True", "False"} else "gqa"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lxmert.evaluate", description="Score, check and average prediction files."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    truths: dict[Task, tuple[Callable[[argparse.Namespace], ScoreReport], str]] = {
        "vqa": (_vqa, "official annotations"),
        "gqa": (_gqa, "official questions, or folder of chunks"),
        "nlvr2": (_nlvr2, "official JSON lines with labels"),
    }
    for name, (score, truth) in truths.items():
        task = commands.add_parser(name, help=f"score predictions: {FORMATS[name].entry}")
        task.set_defaults(run=_score, score=score)
        task.add_argument("predictions", type=Path, help=FORMATS[name].entry)
        task.add_argument("annotations", type=Path, help=truth)
        task.add_argument("--json", type=Path, metavar="OUT", help="also write the scores here")
        if name == "gqa":
            task.add_argument("--choices", type=Path, help="official choices: adds validity and plausibility")
            task.add_argument("--all-questions", type=Path, help="official *_all_questions: adds consistency")
            boxes = "question id -> [[x0, y0, x1, y1, weight], ...]: with the next adds grounding"
            task.add_argument("--attentions", type=Path, help=boxes)
            task.add_argument("--scene-graphs", type=Path, help="official scene graphs of the split")
        if name == "nlvr2":
            task.add_argument("--balanced", type=Path, help="the makers' balanced subset of the split")
            task.add_argument("--unbalanced", type=Path, help="the makers' unbalanced subset of the split")
    check = commands.add_parser("check", help="what an evaluation server would object to")
    check.set_defaults(run=_check)
    check.add_argument("task", choices=FORMATS, help="whose server")
    check.add_argument("predictions", type=Path, help="the submission file")
    check.add_argument(
        "questions", type=Path, help="all questions of the split, the makers' file or the release's"
    )
    ensemble = commands.add_parser("ensemble", help="average score files")
    ensemble.set_defaults(run=_ensemble)
    ensemble.add_argument("scores", type=Path, nargs="+", help="*_scores.npz")
    ensemble.add_argument("--out", type=Path, required=True, help="the submission to write")
    return parser


if __name__ == "__main__":
    sys.exit(main())
