"""Score a prediction file of any system by the makers' rules, without a model.

python -m lxmert.evaluate vqa PREDICTIONS ANNOTATIONS [--json OUT]
python -m lxmert.evaluate gqa PREDICTIONS QUESTIONS [--choices FILE] [--all-questions FILE] [--json OUT]
python -m lxmert.evaluate nlvr2 PREDICTIONS STATEMENTS [--balanced FILE] [--unbalanced FILE] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lxmert.files import write_text
from lxmert.scoring import ScoreReport, ScoringError, score_gqa, score_nlvr2, score_vqa


def main(arguments: Sequence[str] | None = None) -> int:
    """Score one file and print a table; 0, or 1 with one message when the files cannot be scored."""
    options = _parser().parse_args(arguments)
    try:
        report = options.score(options)
        if options.json is not None:
            write_text(options.json, json.dumps({"task": options.task} | report.to_dict(), indent=2) + "\n")
    except (ScoringError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        for name in ("predictions", "annotations", "choices", "all_questions", "balanced", "unbalanced"):
            if getattr(options, name, None) is not None:
                print(f"  {name.replace('_', ' ')}: {getattr(options, name)}", file=sys.stderr)
        return 1
    _print(options.task, report)
    return 0


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        ScoringError: it is not JSON.
        OSError: it cannot be read.
    """
    return _parse(_read_text(path), str(path))


def read_questions(path: Path) -> dict[str, Any]:
    """A GQA questions file, or the folder of its chunks (`train_all_questions/*.json`) as one.

    Raises:
        ScoringError: not JSON objects, or an empty folder.
        OSError: it cannot be read.
    """
    chunks = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not chunks:
        raise ScoringError(f"annotations: the folder {path} holds no .json file")
    questions: dict[str, Any] = {}
    for chunk in chunks:
        content = read_json(chunk)
        if not isinstance(content, dict):
            raise ScoringError(f"{chunk}: expected an object of question id -> question")
        questions |= content
    return questions


def read_statements(path: Path) -> list[dict[str, Any]]:
    """The rows of an NLVR2 file, one JSON object a line.

    Raises:
        ScoringError: a line is not a JSON object.
        OSError: it cannot be read.
    """
    rows = []
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        row = _parse(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise ScoringError(f"{path}, line {number}: expected a JSON object with identifier and label")
        rows.append(row)
    return rows


def read_nlvr2_predictions(path: Path) -> list[dict[str, str]]:
    """An NLVR2 submission, `identifier,True` or `identifier,False` a line.

    Raises:
        ScoringError: a line is not two fields.
        OSError: it cannot be read.
    """
    rows = []
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 2:
            raise ScoringError(f"{path}, line {number}: {line!r}, expected identifier,True or identifier,False")
        rows.append({"identifier": fields[0], "label": fields[1]})
    return rows


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ScoringError(f"{path}: not a UTF-8 text file: {error}") from error


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ScoringError(f"{where}: not JSON: {error}") from error


def _vqa(options: argparse.Namespace) -> ScoreReport:
    content = read_json(options.annotations)
    if not isinstance(content, dict) or "annotations" not in content:
        raise ScoringError("annotations: expected the official annotation file, an object with `annotations`")
    return score_vqa(read_json(options.predictions), content["annotations"])


def _gqa(options: argparse.Namespace) -> ScoreReport:
    questions = read_questions(options.annotations)
    all_questions = None
    if options.all_questions is not None:
        # The official file of all questions is a gigabyte; reading it once is enough.
        same = options.all_questions.resolve() == options.annotations.resolve()
        all_questions = questions if same else read_questions(options.all_questions)
    choices = None if options.choices is None else read_json(options.choices)
    return score_gqa(read_json(options.predictions), questions, choices=choices, all_questions=all_questions)


def _nlvr2(options: argparse.Namespace) -> ScoreReport:
    return score_nlvr2(
        read_nlvr2_predictions(options.predictions),
        read_statements(options.annotations),
        balanced=None if options.balanced is None else read_statements(options.balanced),
        unbalanced=None if options.unbalanced is None else read_statements(options.unbalanced),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lxmert.evaluate", description="Score a prediction file.")
    tasks = parser.add_subparsers(dest="task", required=True)
    formats = {
        "vqa": (_vqa, 'list of {"question_id": int, "answer": str}', "official annotations"),
        "gqa": (
            _gqa,
            'list of {"questionId": str, "prediction": str}',
            "official questions, or folder of chunks",
        ),
        "nlvr2": (_nlvr2, "lines of identifier,True|False", "official JSON lines with labels"),
    }
    for name, (score, predictions, truth) in formats.items():
        task = tasks.add_parser(name, help=f"predictions: {predictions}")
        task.set_defaults(score=score)
        task.add_argument("predictions", type=Path, help=predictions)
        task.add_argument("annotations", type=Path, help=truth)
        task.add_argument("--json", type=Path, metavar="OUT", help="also write the scores here")
        if name == "gqa":
            task.add_argument("--choices", type=Path, help="official choices: adds validity and plausibility")
            task.add_argument("--all-questions", type=Path, help="official *_all_questions: adds consistency")
        if name == "nlvr2":
            task.add_argument("--balanced", type=Path, help="the makers' balanced subset of the split")
            task.add_argument("--unbalanced", type=Path, help="the makers' unbalanced subset of the split")
    return parser


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
        console.print(note, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
