"""NLVR2: the makers' statements -> text stores."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datamodules.official.preparation import Counts, Preparation
from datamodules.official.rows import no_repeat, take, writing_rows

MAKERS = {"train": "train.json", "valid": "dev.json", "test": "test1.json"}
IDENTIFIER = re.compile(r"(?P<pair>\w+-\d+-\d+)-\d+")  # split, set, pair of images, sentence


def prepare_nlvr2(preparation: Preparation, splits: Sequence[str]) -> None:
    """Make `nlvr2/{train,valid,test}.h5`: statements about a left image and, as group "image1", a right one.

    The identifier is the makers'; the label is {"True": 1.0} or {"False": 1.0}. Images are named as in the
    release: the identifier without its sentence, and -img0 (left) or -img1 (right).

    Args:
        preparation: of the task "nlvr2".
        splits: of train, valid and test.

    Raises:
        FileNotFoundError, ValueError: files are missing, broken or have a statement twice.
    """
    files = preparation.find({MAKERS[split]: f"statements of {split}" for split in splits})
    for split in splits:
        source = files[MAKERS[split]]
        preparation.make([split], [source], lambda store, s=source: [_convert(s, store)])


def _convert(source: Path, store: Path) -> Counts:
    seen: set[str] = set()
    true = 0
    with writing_rows(store, sources=[source], groups=["image1"]) as rows:
        for where, row in _lines(source):
            identifier, sentence, label = take(row, where, identifier=str, sentence=str, label=str)
            match = IDENTIFIER.fullmatch(identifier)
            if match is None or label not in ("True", "False"):
                raise ValueError(
                    f"{source}: line {where[2]}: identifier {identifier!r} and label {label!r}, expected "
                    "split-set-pair-sentence and True or False. Mend or remove that line."
                )
            no_repeat(seen, identifier, where)
            true += label == "True"
            pair = match["pair"]
            rows.add(sentence, identifier, f"{pair}-img0", {label: 1.0}, [f"{pair}-img1"])
    return rows.counts() | {"True": true}


def _lines(source: Path) -> Iterator[tuple[tuple[Path, str, int], Any]]:
    """Where it is (lines from 1), and the object, for each line that is not blank."""
    start = 0
    with (
        tqdm(total=source.stat().st_size, desc=source.name, unit="B", unit_scale=True) as bar,
        source.open("rb") as file,
    ):
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line.rstrip())
                except json.JSONDecodeError as error:
                    place = start + len(error.doc[: error.pos].encode())
                    raise ValueError(
                        f"{source}: broken JSON at byte {place:,}, in line {number}: {error.msg}. "
                        "Get the file again."
                    ) from error
                except UnicodeDecodeError as error:
                    place = start + error.start
                    raise ValueError(f"{source}: not UTF-8 text at byte {place:,}. Get the file again.") from error
                yield (source, "line", number), row
            start += len(line)
            bar.update(len(line))
