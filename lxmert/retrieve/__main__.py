"""Find images by their captions and captions by their images, with a model that has a matching head.

python -m lxmert.retrieve CHECKPOINT dataset_flickr30k.json --store data/stores/flickr30k_imgfeat/test.h5 --out
FOLDER

CHECKPOINT is a run's folder, pre-trained (zero-shot) or fine-tuned, a weights file or folder, or a hub name;
captions are Karpathy's dataset_*.json or VOLTA's *_ann.jsonl. Every caption of the split is scored with every
image, or with its candidates. Prints recall, median and mean rank both ways, and leaves in FOLDER the scores
(scores.npy, scores.json), the first ten of each (rankings.json), the numbers (metrics.json) and a page to look at
(report.html). Stopped, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from datamodules.layout import find_picture
from datamodules.progress import progress_bar
from datamodules.retrieval import Captions
from lxmert.ask import open_checkpoint
from lxmert.files import InputError, write_text
from lxmert.heads import MatchingHead
from lxmert.model import Lxmert
from lxmert.report import write_report
from lxmert.retrieve import (
    NOTE,
    ScoreFile,
    fingerprint_of,
    found_examples,
    ranks_of,
    read_candidates,
    score_pairs,
    summarize,
    write_results,
)
from lxmert.runs import usable


def main(arguments: Sequence[str] | None = None) -> int:
    """Score and rank; 0, or 1 with one message."""
    options = _parser().parse_args(arguments)
    try:
        for name, least in (("devices", 1), ("rows", 1), ("max_length", 3)):
            if (value := getattr(options, name)) is not None and value < least:
                raise InputError(f"--{name.replace('_', '-')} {value}: expected {least} or more")
        model, head, captions = _open(options)
        candidates = None
        if options.candidates is not None:
            candidates = read_candidates(options.candidates, captions, count_missed=options.count_missed)
        weights = fingerprint_of(model.state_dict(), head.state_dict())
        file = ScoreFile.make(options.out, "scores", captions, weights, candidates)
        if options.devices == 1:
            _score(options, file, model, head, captions)
        else:
            _spread(options, file)
        scores = file.open()
        metrics = summarize(ranks_of(scores, captions.image_of))
        write_results(options.out / "rankings.json", captions, scores)
        write_text(options.out / "metrics.json", json.dumps(metrics, indent=1) + "\n")
        _write_page(options, captions, scores, metrics)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    missed = int(np.isneginf(scores[np.arange(len(scores)), captions.image_of]).sum())
    told = f", {missed:,} whose image is no candidate" if missed else ""
    _print(f"{len(captions.texts):,} captions{told}, {len(captions.image_ids):,} images", metrics)
    print(f"written: {options.out}")
    return 0


def _open(options: argparse.Namespace, rank: int = 0) -> tuple[Lxmert, MatchingHead, Captions]:
    """The model on process `rank`'s device, its matching head, and what is scored.

    Raises:
        InputError: it has no matching head, or what cannot be read.
        FileNotFoundError: nothing of that name.
    """
    device = usable(f"cuda:{rank}" if options.device == "cuda" and options.devices > 1 else options.device)
    run = open_checkpoint(options.checkpoint, options.tokenizer)
    cls: Any = getattr(run.model, "cls", None)
    if cls is None or not run.model.config.task_matched:
        raise InputError(
            f"{options.checkpoint} has no matching head. Give a pre-trained model, or what experiment=retrieval "
            "has trained"
        )
    model: Any = run.model.to(device).eval()
    length = options.max_length or run.max_length
    if length > run.model.config.max_position_embeddings:
        raise InputError(
            f"--max-length {length}: the model has {run.model.config.max_position_embeddings} positions"
        )
    captions = Captions.open(options.captions, options.store, options.split, run.tokenizer, length)
    for store in captions.dataset.regions:
        store.check_feature_dim(run.model.config.visual_feat_dim)
    return model.lxmert, model.cls.seq_relationship, captions


def _score(
    options: argparse.Namespace,
    file: ScoreFile,
    model: Lxmert,
    head: MatchingHead,
    captions: Captions,
    rank: int = 0,
) -> None:
    scores = file.open()
    mine = scores[rank :: options.devices]
    done = mine.size - int(np.isnan(mine).sum())
    with progress_bar("pairs", mine.size, "pair", done=done, shown=rank == 0) as bar:
        score_pairs(
            model, head, captions, scores, rows=options.rows, share=(rank, options.devices), done=bar.update
        )
    scores.flush()


def _spread(options: argparse.Namespace, file: ScoreFile) -> None:
    """Score in as many processes as there are devices; each fills in its part of one file.

    Raises:
        InputError: one of them failed, and has told why.
    """
    context = multiprocessing.get_context("spawn")  # CUDA does not cross a fork
    # Run as a command this module is called __main__, where a new process does not find it.
    work = import_module("lxmert.retrieve.__main__")._work
    processes = [context.Process(target=work, args=(options, file, rank)) for rank in range(options.devices)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill() if process.is_alive() else None
    if any(process.exitcode for process in processes):
        raise InputError("a process has failed. The same command goes on with what the others have scored")


def _work(options: argparse.Namespace, file: ScoreFile, rank: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(torch.get_num_threads() // options.devices, 1))
    _score(options, file, *_open(options, rank), rank)


def _end_with_parent() -> None:
    """Of a killed command no process goes on."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _write_page(options: argparse.Namespace, captions: Captions, scores: np.ndarray, metrics: Any) -> None:
    pictures = options.pictures
    examples = found_examples(captions, scores, lambda image: find_picture(pictures, image) if pictures else None)
    named = {
        f"test/retrieval/{way}/{name}": value for way, values in metrics.items() for name, value in values.items()
    }
    title = f"{options.captions.name}, {options.split}: {options.checkpoint}"
    write_report(options.out / "report.html", named, title, "", examples, note=NOTE)


def _print(title: str, metrics: dict[str, dict[str, float]]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for way in metrics:
        table.add_column(way.replace("_", " "), justify="right")
    for name in next(iter(metrics.values())):
        unit = " (%)" if name.startswith("recall") else ""
        table.add_row(name.replace("_", " ") + unit, *(f"{values[name]:.2f}" for values in metrics.values()))
    Console(markup=False, highlight=False).print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lxmert.retrieve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a model with a matching head")
    parser.add_argument("captions", metavar="CAPTIONS", type=Path, help="Karpathy's or VOLTA's file")
    parser.add_argument("--store", metavar="FILE", type=Path, action="append", required=True, help="region store")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="where the results go")
    parser.add_argument("--split", default="test", help="of Karpathy's file (test)")
    parser.add_argument(
        "--candidates", metavar="FILE", type=Path, help="JSON, caption id -> image ids: score these pairs alone"
    )
    parser.add_argument(
        "--count-missed", action="store_true", help="rank captions last whose image is no candidate, go on"
    )
    parser.add_argument("--rows", type=int, default=1024, help="pairs at once (1024)")
    parser.add_argument("--devices", type=int, default=1, help="processes, with --device cuda a GPU each (1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--tokenizer", help="vocabulary of weights that have none beside them")
    parser.add_argument("--max-length", type=int, help="tokens of a caption (as in training; of weights alone 20)")
    parser.add_argument("--pictures", metavar="FOLDER", type=Path, help="to be shown on the page")
    return parser


if __name__ == "__main__":
    sys.exit(main())
