"""What commands that ask are told of."""

from __future__ import annotations

import argparse
from typing import Any


def add_sources(parser: argparse.ArgumentParser, answers: bool = True) -> None:
    """The options of `Asker.open`, for every command that asks; `answers`: also those of the answer list."""
    parser.add_argument("--detector", metavar="WEIGHTS", help="what finds the regions of pictures")
    parser.add_argument("--store", metavar="FILE", action="append", default=[], help="region store, for image ids")
    parser.add_argument("--pictures", metavar="FOLDER", help="pictures of the store's images, to be shown")
    parser.add_argument(
        "--names", metavar="FOLDER", help="objects_vocab.txt and attributes_vocab.txt of the store"
    )
    parser.add_argument("--tokenizer", help="vocabulary of weights that have none beside them")
    if answers:
        parser.add_argument(
            "--answers", metavar="FILE", help="answer list of weights that have none, in label order"
        )
    parser.add_argument("--device", default="cpu", help="where model and detector run (cpu)")


def sources_of(options: argparse.Namespace) -> dict[str, Any]:
    """What was given of them, as `Asker.open` takes it."""
    names = ("detector", "store", "pictures", "names", "tokenizer", "answers", "device")
    return {name: getattr(options, name) for name in names if hasattr(options, name)}
