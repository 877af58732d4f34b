"""Serve one page, on this machine alone, to ask a model about pictures and to see why it answers so.

python -m lxmert.serve outputs/latest --split minival                        (a run: its own data)
python -m lxmert.serve CHECKPOINT [CHECKPOINT2] --store REGIONS.h5 [--pictures FOLDER]
python -m lxmert.serve CHECKPOINT --pictures FOLDER --detector WEIGHTS

CHECKPOINT is a run's folder, a weights file or folder, or a hub name; two are shown side by side, with their
difference. Of a store every image is there, and its picture where the folder has one of its name; with a detector
every picture of the folder, looked at when it is asked about. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

from lxmert.ask import Asker, add_sources
from lxmert.files import InputError, run_of
from lxmert.runs.build import open_split
from lxmert.serve import Entry, Gallery, Server, Service
from lxmert.weights import read_answers

PORT = 8008


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; 0, or 1 with one message."""
    parser = options_parser()
    options = parser.parse_args(arguments)
    if len(options.checkpoints) > 2:
        parser.error(f"{len(options.checkpoints)} checkpoints; expected one, or two to be compared")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        server = Server(open_service(options), options.port)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with server:
        try:  # who reads the line may end it at once
            print(f"{server.url}  (Ctrl-C ends it)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nended")
    return 0


def open_service(options: argparse.Namespace) -> Service:
    """The models and pictures that the options name."""
    folder, stores, data = options.pictures, list(options.store), None
    first, *others = options.checkpoints
    if options.split is not None:
        run = run_of(first)
        data = open_split(run, options.split, read_answers(run) or [], options.data)
        stores += [store.path for store in data.datasets["test"].regions]
        folder = folder or data.release.root / "images"
    elif options.data:
        raise InputError(f"--data {options.data[0]} changes the data of a split; name one with --split")
    asker = Asker.open(
        first,
        detector=options.detector,
        store=stores,
        pictures=folder,
        names=options.names,
        tokenizer=options.tokenizer,
        answers=options.answers,
        device=options.device,
    )
    askers = {first: asker}
    for each in others:
        # What it is asked about, the first one's eyes have seen.
        askers[name_beside(each, askers)] = Asker.open(
            each, tokenizer=options.tokenizer, answers=options.answers, device=options.device
        )
    questions = None if data is None else questions_of(data.datasets["test"], asker.num_pictures)
    return Service(askers, Gallery(asker.eyes, asker.num_pictures, folder=options.pictures, questions=questions))


def questions_of(dataset: Any, each: int) -> dict[Entry, list[tuple[str, str]]]:
    """The images of a split, `each` together, with what it asks about them and the right answer."""
    questions: dict[Entry, list[tuple[str, str]]] = {}
    for known in dataset.known(0, dataset.used(0)):
        for images, text, answer in zip(known.images, known.texts, known.answers, strict=True):
            entry = (images,) if each == 1 else tuple(images.split(" "))
            questions.setdefault(entry, []).append((text, answer))
    return questions


def name_beside(name: str, others: dict[str, Asker]) -> str:
    """A name of its own for what is compared with itself."""
    return f"{name} (again)" if name in others else name


def options_parser() -> argparse.ArgumentParser:
    """Of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m lxmert.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", metavar="CHECKPOINT", nargs="+", help="what was trained; one or two")
    add_sources(parser)
    parser.add_argument("--split", metavar="NAME", help="of the run's data: its images and questions")
    parser.add_argument(
        "--data",
        metavar="data.KEY=VALUE",
        action="append",
        default=[],
        help="what differs now from the run's config.yaml, such as data.root=/other/place",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"0 for any free one ({PORT})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
