"""Score, check and average prediction files of any system by the makers' rules, without a model.

python -m lxmert.evaluate vqa PREDICTIONS ANNOTATIONS
python -m lxmert.evaluate vizwiz PREDICTIONS ANNOTATIONS [--answerability FILE]
python -m lxmert.evaluate gqa PREDICTIONS QUESTIONS [--choices FILE] [--all-questions FILE]
                              [--attentions FILE --scene-graphs FILE]
python -m lxmert.evaluate nlvr2 PREDICTIONS STATEMENTS [--balanced FILE] [--unbalanced FILE]
python -m lxmert.evaluate classes PREDICTIONS LABELS
python -m lxmert.evaluate hateful_memes PREDICTIONS MEMES
python -m lxmert.evaluate own PREDICTIONS LABELS
python -m lxmert.evaluate refcoco PREDICTIONS TRUTH
                              [--split QUESTIONS] [--json OUT]    (all of these)
python -m lxmert.evaluate check {vqa,vizwiz,gqa,nlvr2,classes,hateful_memes,refcoco,own} PREDICTIONS QUESTIONS
python -m lxmert.evaluate ensemble SCORES SCORES ... --out OUT

`vqa` also takes the annotations of OK-VQA, VQA-CP and VizWiz, `gqa` the questions of GQA-OOD: score its files
all, head and tail one after the other. `own` scores by labels, {answer: score}, in the files that a run is trained
on; `vqa` does where it is given them. `classes` takes the same files, SNLI-VE's among them, where one class is
right: accuracy, by class too, and AUROC of two classes whose probabilities are predicted. `refcoco` is for
RefCOCO+, RefCOCOg and Visual7W pointing, too. `--split` scores on the questions of that file alone, such as
minival.json, where ANNOTATIONS is of more. `check` tells what an evaluation server would object to. `ensemble`
averages the `*_scores.npz` that runs leave, and writes the submission OUT and the averaged scores beside it, as
<OUT>_scores.npz.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lxmert.evaluate import (
    TASKS,
    ScoreReport,
    ScoringError,
    check_submission,
    read_ids,
    score_classes,
    score_labels,
)
from lxmert.evaluate.classes import UNDECIDED
from lxmert.evaluate.ensemble import average_scores, read_scores, write_scores
from lxmert.evaluate.files import read_json
from lxmert.evaluate.tasks import CLASSES, OWN, Task, chosen
from lxmert.files import InputError, write_text


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


SCORERS = {OWN.name: score_labels, CLASSES.name: score_classes}  # of tasks whose truth is in texts of one's own


# ------------------------------------------------------------------------------------------ scores


def _score(options: argparse.Namespace) -> int:
    task = _task(options.command, options.columns)
    given = {name: getattr(options, name) for name in task.further}
    further = {name: path for name, path in given.items() if path is not None}
    only = None if options.split is None else set(read_ids(task, options.split))
    report = task.score(options.predictions, options.annotations, further, only)
    if only is not None:
        report.notes.append(f"On the {len(only):,} ids of {options.split} alone.")
    if options.json is not None:
        content = {"task": options.command} | report.to_dict()
        write_text(options.json, json.dumps(content, indent=2, allow_nan=False) + "\n")
    _print(options.command, report)
    return 0


def _task(name: str, columns: Sequence[str]) -> Task:
    """A task; one's own read the truth as training does, from CSV and JSON lines too; `columns` are WHAT=NAME."""
    if name not in SCORERS:
        return TASKS[name]
    from datamodules.formats.answer_lists import normalized, spelt_alike  # a command may know files
    from datamodules.formats.own import NORMALIZED, named_columns, truth_rows

    def read(path: Path, labelled: bool = False) -> list[dict[str, Any]]:
        try:
            return truth_rows(path, named_columns(columns), labelled=labelled)
        except InputError as error:
            raise ScoringError(str(error)) from error

    def score(predictions: Path, truth: Path, further: Mapping[str, Path], only: Any) -> ScoreReport:
        rows, given = chosen(read(truth, labelled=True), "question_id", only), read_json(predictions)
        if NORMALIZED in named_columns(columns) and isinstance(given, list):
            given = [_with_answer(row, normalized) for row in given]
        report = SCORERS[name](given, rows)
        if alike := spelt_alike(dict.fromkeys(answer for row in rows for answer in row["label"])):
            report.notes.append(
                f"Answers that differ in capitals, blanks or marks at the end count as different: {alike[0]}. "
                "Where they were trained on as one: --columns normalized_answer=NAME."
            )
        return report

    def to_answer(path: Path) -> list[dict[str, Any]]:
        return [row for row in read(path) if name == OWN.name or row.get("label") != {UNDECIDED: 1.0}]

    return replace(TASKS[name], score=score, rows=to_answer)


def _with_answer(row: Any, spell: Callable[[str], str]) -> Any:
    """A prediction whose answer is spelt anew, where it is one."""
    known = isinstance(row, dict) and isinstance(row.get("answer"), str)
    return {**row, "answer": spell(row["answer"])} if known else row


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
    task = _task(options.task, options.columns)
    ids = read_ids(task, options.questions)
    problems = check_submission(task, task.read_submission(options.predictions), ids)
    if not problems:
        print(f"{options.predictions}: valid for {options.task}, {len(ids):,} ids answered")
        return 0
    print(f"{options.predictions}: not valid for {options.task}, {len(ids):,} ids expected:")
    for problem in problems:
        print(f"  {problem}")
    return 1


def _ensemble(options: argparse.Namespace) -> int:
    beside = options.out.with_name(f"{options.out.stem}_scores.npz")
    for path in options.scores:
        if path.resolve() in (options.out.resolve(), beside.resolve()):
            raise ScoringError(
                f"{path} is to be averaged, and --out {options.out} would replace it: choose another"
            )
    scores = average_scores({str(path): read_scores(path) for path in options.scores})
    task = scores.described_by()
    probabilities = scores.probabilities() if task.probability_key else None
    write_text(options.out, task.submission_text(scores.best(), probabilities))
    write_scores(beside, scores)
    print(f"{len(options.scores)} score files, {len(scores.question_id):,} questions: {options.out}, {beside}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lxmert.evaluate", description="Score, check and average prediction files."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, task in TASKS.items():
        score = commands.add_parser(name, help=f"score predictions: {task.entry}")
        score.set_defaults(run=_score)
        score.add_argument("predictions", type=Path, help=task.entry)
        score.add_argument("annotations", type=Path, help=task.truth[1])
        score.add_argument("--split", type=Path, metavar="QUESTIONS", help="score on this file's questions alone")
        score.add_argument("--json", type=Path, metavar="OUT", help="also write the scores here")
        _add_columns(score) if name in SCORERS else score.set_defaults(columns=[])
        for further, about in task.further.items():
            score.add_argument(f"--{further.replace('_', '-')}", type=Path, help=about)
    check = commands.add_parser("check", help="what an evaluation server would object to")
    check.set_defaults(run=_check)
    check.add_argument("task", choices=TASKS, help="whose server")
    check.add_argument("predictions", type=Path, help="the submission file")
    check.add_argument(
        "questions", type=Path, help="all questions of the split, the makers' file or the release's"
    )
    _add_columns(check)
    ensemble = commands.add_parser("ensemble", help="average score files")
    ensemble.set_defaults(run=_ensemble)
    ensemble.add_argument("scores", type=Path, nargs="+", help="*_scores.npz")
    ensemble.add_argument("--out", type=Path, required=True, help="the submission to write")
    return parser


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--columns", nargs="+", default=[], metavar="WHAT=NAME", help="of your own truth, such as answer=Antwort"
    )


if __name__ == "__main__":
    sys.exit(main())
