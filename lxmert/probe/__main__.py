"""Score a pre-trained model on probing sets, without training.

python -m lxmert.probe CHECKPOINT FILE ... --store REGIONS.h5 [--by {matching,likelihood,text}]
                       [--max-length N] [--json OUT.json] [--page OUT.html]

FILE is one of VALSE's, FOIL's or Winoground's, as their makers publish them, or rows of one's own: caption, foil,
image and, for parts of the set, piece (CSV, JSON lines, JSON list). docs/matching.md tells what is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datamodules.formats.probes import read_probes
from datamodules.progress import progress_bar
from lxmert.ask import add_sources, sources_of
from lxmert.files import InputError, write_text
from lxmert.match import Matcher
from lxmert.probe import WAYS, Probed, probe, summary
from lxmert.report import Example, Facts, View, write_report

SHOWN = 24  # examples of a page
NOTE = (
    "Beside each sentence: how well it fits the picture, as a probability; below, the one that does. Of several "
    "pieces, all is their mean."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Score; 0, or 1 with one message."""
    options = _parser().parse_args(arguments)
    try:
        for path, ending in ((options.page, ".html"), (options.json, ".json")):
            if path is not None and (path.suffix != ending or not path.parent.is_dir()):
                raise InputError(f"{path}: expected a file that ends in {ending}, in a folder that is there")
        if twice := [str(file) for file in options.files if options.files.count(file) > 1]:
            raise InputError(f"{twice[0]} is named {len(twice)} times; name each file once")
        probes = [each for file in options.files for each in read_probes(file)]
        matcher = Matcher.open(options.checkpoint, **sources_of(options))
        results = []
        with progress_bar("probes", len(probes), "example") as bar:
            for each in probe(matcher, probes, options.by, max_length=options.max_length):
                results.append(each)
                bar.update()
        metrics, notes = summary(results), notes_of(results)
        if options.json is not None:
            content = {
                "checkpoint": str(options.checkpoint),
                "by": options.by,
                "metrics": {
                    part: {name: round(v, 2) for name, v in each.items()} for part, each in metrics.items()
                },
                "notes": notes,
                "examples": [each.to_dict() for each in results],
            }
            write_text(options.json, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        if options.page is not None:
            write_page(options.page, results, metrics, f"probes by {options.by}: {options.checkpoint}")
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _print(metrics, results, notes)
    for path in filter(None, (options.json, options.page)):
        print(f"written: {path}")
    return 0


def notes_of(results: Sequence[Probed]) -> list[str]:
    """What is to be said beside the scores."""
    equal = sum(each.equal for each in results)
    return [f"{equal} examples' sentences are the same after the cut: raise --max-length."] if equal else []


def write_page(
    page: Path, results: Sequence[Probed], metrics: Mapping[str, Mapping[str, float]], title: str
) -> None:
    """Scores and examples, spread over the set: each picture with both sentences and how well each fits."""
    pieces = [each.probe.piece for each in results]
    sizes = {"all": len(results)} | {f"piece: {piece}": pieces.count(piece) for piece in metrics}
    several = len(metrics) > 1
    named = {
        f"test/probe/{name}" + (f"/piece/{piece}" if several and piece != "mean" else ""): value / 100
        for piece, values in metrics.items()
        for name, value in values.items()
    }
    each = max(1, len(results) // SHOWN)
    shown = [example for result in results[::each][:SHOWN] for example in examples_of(result)]
    write_report(page, named, title, "", shown, Facts({}, sizes), note=NOTE)


def examples_of(result: Probed) -> list[Example]:
    """One for each picture of an example."""
    chances = chances_of(result)
    examples = []
    for place, seen in enumerate(result.seen):
        said = sorted(zip(result.probe.sentences, chances[:, place].tolist(), strict=True), key=lambda s: -s[1])
        view = View(seen.picture, seen.boxes.tolist(), [0.0] * len(seen))
        right = {result.probe.sentences[place]: 1.0}
        name = (
            result.probe.id
            if result.probe.piece in result.probe.id
            else f"{result.probe.piece}: {result.probe.id}"
        )
        examples.append(Example(name, [view], said, right))
    return examples


def chances_of(result: Probed) -> np.ndarray:
    """(2, P): how well each sentence fits each picture, as a probability: of itself, or of the two sentences."""
    scores = result.scores.astype(np.float64)
    if result.logits is not None:
        return 1 / (1 + np.exp(-scores))
    shares = np.exp(scores - scores.max(0))
    return shares / shares.sum(0)


def _print(metrics: Mapping[str, Mapping[str, float]], results: Sequence[Probed], notes: Sequence[str]) -> None:
    pieces = [each.probe.piece for each in results]
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    table = Table(title=f"{len(results):,} examples", title_justify="left")
    for column in ("piece", *names, "examples"):
        table.add_column(escape(column.replace("_", " ")), justify="left" if column == "piece" else "right")
    for piece, values in metrics.items():
        count = f"{pieces.count(piece):,}" if piece in pieces else ""
        table.add_row(escape(piece), *(f"{values[name]:.2f}" for name in names), count)
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note, highlight=False, markup=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lxmert.probe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="what was pre-trained")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="probing sets")
    add_sources(parser, answers=False)
    parser.add_argument("--by", choices=WAYS, default=WAYS[0], help="how sentences are compared (matching)")
    parser.add_argument(
        "--max-length", type=int, help="cut sentences to so many word pieces; VALSE's makers to 30 (whole)"
    )
    parser.add_argument("--json", metavar="OUT.json", type=Path, help="write scores and all examples")
    parser.add_argument("--page", metavar="OUT.html", type=Path, help="write a page with scores and examples")
    return parser


if __name__ == "__main__":
    sys.exit(main())
