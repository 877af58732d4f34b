"""Test explanations of a run's answers, or write them down for a whole split.

python -m lxmert.explain perturb RUN --split SPLIT [--count N] [--seed N] [--methods NAME ...] [--out FILE.json]
python -m lxmert.explain export RUN --split SPLIT --out FILE.json|FILE.jsonl [--method NAME] [--answer TEXT]
                              [--data data.KEY=VALUE ...] [--device DEVICE]    (both)

RUN is the folder of a training, outputs/<experiment>/<time>; its data is read as its config.yaml says, but for
what `--data` changes. `perturb` takes words and regions away in the order of each method, and at random, and says
what is left of the accuracy; without `--out` it writes RUN/explain/<split>_perturbation.json. `export` says what
each word piece and region is to the best answer, or to the answer TEXT. docs/explain.md tells how to read both.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from datamodules.progress import progress_bar  # a command may know data
from lxmert.batch import Batch
from lxmert.explain import METHODS, ORDERS, REMOVED, Removal, areas, explain, perturb
from lxmert.explain.explanation import parts_of
from lxmert.files import InputError, replacing, write_text
from lxmert.runs import TrainedRun, load_run, usable
from lxmert.runs.build import open_split

EXAMPLES = 16  # of a batch: the graph of gradients takes 40 MB a row at the published size


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what one command says; 0, or 1 with one message when the files do not allow it."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        options.run(options)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


class Opened:
    """A run, and a split of its data.

    Raises:
        FileNotFoundError: as of `load_run` and `open_split`.
        InputError: the run's model answers nothing, or the split cannot be used.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.trained: TrainedRun = load_run(options.folder)
        parts_of(self.trained.model)
        self.device = usable(options.device)
        self.trained.model.to(self.device)
        self.data = open_split(options.folder, options.split, self.trained.answers, options.data)
        self.dataset = self.data.datasets["test"]
        self.places = self.dataset.used(0)

    def batches(self, places: np.ndarray) -> Iterator[Batch]:
        """The examples at `places`, on the device."""
        for start in range(0, len(places), EXAMPLES):
            yield self.dataset[places[start : start + EXAMPLES]].to(self.device)


# ------------------------------------------------------------------------------------------- perturbation


def _perturb(options: argparse.Namespace) -> None:
    opened = Opened(options)
    places = np.random.default_rng(options.seed).permutation(opened.places)[: options.count]
    places.sort()  # the questions of a picture are near each other
    orders = [order for order in ORDERS if order in (*options.methods, "random")]
    parts: dict[Removal, list[Tensor]] = {}
    with progress_bar("questions", len(places), "question") as bar:
        for batch in opened.batches(places):
            truth = truth_of(batch, len(opened.trained.answers), options.split)
            found = perturb(opened.trained.model, batch, truth, batch.example_places, orders, options.seed)
            for removal, accuracy in found.items():
                parts.setdefault(removal, []).append(accuracy.cpu())
            bar.update(len(truth))
    if not parts:
        raise InputError(f"{options.split} has no examples whose images have regions")
    curves = {removal: torch.cat(each) for removal, each in parts.items()}
    out = options.out or options.folder / "explain" / f"{options.split}_perturbation.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "run": str(options.folder),
        "split": options.split,
        "seed": options.seed,
        "examples": len(places),
        "removed": [percent / 100 for percent in REMOVED],
        "no_regions": "attention to no region gives zeros: the answer comes of the sentence alone",
        "curves": [described(curves, removal) for removal in curves],
    }
    write_text(out, json.dumps(content, indent=2, allow_nan=False) + "\n")
    _print(options.split, curves, orders)
    print(f"written: {out}")


def truth_of(batch: Batch, answers: int, split: str) -> Tensor:
    """(E, A) scores of the answers of a batch's examples.

    Raises:
        InputError: it has no labels.
    """
    if "statement" in batch.targets:
        return torch.nn.functional.one_hot(batch.targets["statement"], answers).float()
    if "answer_scores" not in batch.targets:
        raise InputError(f"{split} has no labels, by which answers could be right; take a split that has")
    return batch.targets["answer_scores"]


def described(curves: dict[Removal, Tensor], removal: Removal) -> dict[str, Any]:
    """A removal for the JSON file: its curve and area, in percent, and its area less that of random order."""
    area, difference = areas(curves[removal]), than_random(curves, removal)
    entry: dict[str, Any] = {
        **removal._asdict(),
        "accuracy": [round(each, 4) for each in (100 * curves[removal].mean(0)).tolist()],
        "area": round(100 * float(area.mean()), 4),
        "area_standard_error": round(100 * standard_error(area), 4),
    }
    if removal.order != "random":
        entry["less_random"] = round(100 * float(difference.mean()), 4)
        entry["less_random_standard_error"] = round(100 * standard_error(difference), 4)
    return entry


def than_random(curves: dict[Removal, Tensor], removal: Removal) -> Tensor:
    """(examples,): the area less that of random order."""
    return areas(curves[removal]) - areas(curves[removal._replace(order="random")])


def standard_error(values: Tensor) -> float:
    """Of the mean of (n,); 0 of a single one."""
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _print(split: str, curves: dict[Removal, Tensor], orders: Sequence[str]) -> None:
    some = next(iter(curves.values()))
    table = Table(
        title=f"{split}, {len(some):,} examples, accuracy {100 * float(some[:, 0].mean()):.2f}: area under the "
        "accuracy while words or regions are removed (its difference to random order ± standard error)"
    )
    columns = [(side, direction) for side in ("words", "regions") for direction in ("positive", "negative")]
    table.add_column("order")
    for side, direction in columns:
        better = "lower" if direction == "positive" else "higher"
        table.add_column(f"{side}, {direction}\n({better} is better)", justify="right")
    for order in orders:
        cells = []
        for side, direction in columns:
            removal = Removal(order, side, direction)
            cell = f"{100 * float(areas(curves[removal]).mean()):.2f}"
            if order != "random":
                than = than_random(curves, removal)
                cell += f" ({100 * float(than.mean()):+.2f} ± {100 * standard_error(than):.2f})"
            cells.append(cell)
        table.add_row(order, *cells)
    Console(width=120).print(table)


# ------------------------------------------------------------------------------------------------- export


def _export(options: argparse.Namespace) -> None:
    if options.out.suffix not in (".json", ".jsonl"):
        raise InputError(f"--out {options.out}: expected a name that ends in .json (one list) or .jsonl (lines)")
    opened = Opened(options)
    label = None if options.answer is None else opened.trained.label_of(options.answer)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    before, between, after = ("", "\n", "\n") if options.out.suffix == ".jsonl" else ("[\n", ",\n", "\n]\n")
    number = 0
    writing: AbstractContextManager[Path] = replacing(options.out)
    with (
        writing as path,
        path.open("w", encoding="utf-8") as file,
        progress_bar("examples", len(opened.places), "example") as bar,
    ):
        file.write(before)
        for batch in opened.batches(opened.places):
            for entry in entries(opened, batch, label, options.method):
                file.write(between if number else "")
                file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False))
                number += 1
                bar.update()
        file.write(after if number or after != "\n" else "")
    print(f"{options.out}: {number:,} examples of {options.split}")


def entries(opened: Opened, batch: Batch, label: int | None, method: str) -> Iterator[dict[str, Any]]:
    """What is written of each example of a batch."""
    answers = None if label is None else torch.full((batch.num_rows,), label, device=batch.row_sentence.device)
    found = explain(opened.trained.model, batch, answers, method)
    probabilities = opened.trained.probabilities(found.scores)
    each = batch.num_rows // len(batch.example_ids)
    for number, example in enumerate(batch.example_ids):
        first, image_entries = number * each, []
        for row in range(first, first + each):
            regions = found.region_mask[row]
            image = int(batch.row_image[row])
            image_entries.append(
                {
                    "image_id": batch.image_ids[image],
                    "boxes": rounded(batch.region_boxes[image][regions]),
                    "regions": rounded(found.regions[row][regions]),
                    "words": rounded(found.words[row][found.word_mask[row]]),
                }
            )
        tokens = batch.token_ids[batch.row_sentence[first]][found.word_mask[first]]
        answer = int(found.answers[first])
        yield {
            "id": example,
            "question": opened.dataset.sentence(batch.example_places[number]),
            "answer": opened.trained.answers[answer] if opened.trained.answers else answer,
            "probability": rounded(probabilities[first][answer]),
            "method": method,
            "pieces": opened.trained.tokenizer.convert_ids_to_tokens(tokens.tolist()),
            "images": image_entries,
        }


def rounded(values: Tensor) -> Any:
    """Numbers of six digits."""

    def short(value: Any) -> Any:
        return [short(each) for each in value] if isinstance(value, list) else float(f"{value:.6g}")

    return short(values.tolist())


# ------------------------------------------------------------------------------------------- command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lxmert.explain", description="Test or write down explanations of a run's answers."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    test = commands.add_parser("perturb", help="what is left of the accuracy when words or regions are removed")
    test.set_defaults(run=_perturb)
    test.add_argument("--count", type=_positive, help="as many examples, chosen at random; default: all")
    test.add_argument("--seed", type=int, default=0, help="of the choice and of random order")
    test.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="default: all")
    test.add_argument("--out", type=Path, metavar="FILE.json")
    export = commands.add_parser("export", help="what each word piece and region is to the answers of a split")
    export.set_defaults(run=_export)
    export.add_argument("--method", choices=METHODS, default=METHODS[0])
    export.add_argument("--answer", metavar="TEXT", help="explain this answer; default: each example's best")
    export.add_argument("--out", type=Path, metavar="FILE.json|FILE.jsonl", required=True)
    for command in (test, export):
        command.add_argument("folder", metavar="RUN", type=Path, help="outputs/<experiment>/<time>")
        command.add_argument("--split", required=True, help="of the run's data, such as minival")
        command.add_argument("--data", nargs="+", default=[], metavar="data.KEY=VALUE", help="what differs now")
        command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
