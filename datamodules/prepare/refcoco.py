"""RefCOCO, RefCOCO+, RefCOCOg and Visual7W pointing: the makers' files -> text stores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import chain
from pathlib import Path

from datamodules.formats.json_stream import member
from datamodules.formats.refer import read_refer
from datamodules.formats.referring import Referring, write_referring, write_rows
from datamodules.formats.visual7w import boxes_to_describe, read_visual7w
from datamodules.prepare.preparation import Counts, Preparation, shown
from lxmert.files import InputError, write_text

UNC, UMD = ("train", "val", "testA", "testB"), ("train", "val", "test")
# data set: who divided it, by default, and the splits of that
DIVIDED = {"refcoco": ("unc", UNC), "refcoco+": ("unc", UNC), "refcocog": ("umd", UMD)}
DIVISIONS = ("unc", "umd", "google")  # google's splits are others in each data set
KNOWN = tuple(dict.fromkeys((*UNC, *UMD)))  # splits of any division
POINTING = ("train", "val", "test")


def prepare_refer(
    preparation: Preparation, splits: Sequence[str] | None = None, division: str | None = None
) -> None:
    """Make a store for each split, and `<split>_truth.json`, by which predictions are scored.

    The identifier is REFER's sent_id; images are named as COCO's in the release.

    Args:
        preparation: of one of the tasks of `DIVIDED`.
        splits: of `KNOWN`; None for those of the usual division, or those that the file of another one has.
        division: whose, of `DIVISIONS`; None for the usual one of the task.

    Raises:
        FileNotFoundError, InputError: files are missing or broken, or have no such split.
    """
    usual, expected = DIVIDED[preparation.task]
    refs = f"refs({division or usual}).p"
    files = preparation.find({refs: "the expressions", "instances.json": "the boxes and the sizes of the images"})
    sources = [files[refs], files["instances.json"]]
    read = cache(lambda: read_refer(files[refs], files["instances.json"], partial(shown, member)))
    if splits is None:
        there = [split for split in KNOWN if split in read()] if division not in (None, usual) else []
        splits = there or expected

    def write(*stores: Path) -> list[Counts]:
        for split in set(read()) - {*KNOWN}:
            preparation.notes.append(
                f"{files[refs]}: {len(read()[split])} sentences of a split {split} are left out."
            )
        return [_write(read(), store, sources) for store in stores]

    preparation.make(splits, sources, write, _truths(preparation, splits))


def prepare_visual7w(preparation: Preparation, splits: Sequence[str]) -> None:
    """As `prepare_refer`, and boxes.json: those to choose among, of which regions are to be made.

    Raises:
        FileNotFoundError, InputError: the file is missing or broken, or has no such split.
    """
    name = "dataset_v7w_pointing.json"
    source = preparation.find({name: "the questions and their boxes"})[name]
    boxes = preparation.folder / "boxes.json"

    def write(*stores: Path) -> list[Counts]:
        rows = read_visual7w(source, partial(shown, member))
        write_text(boxes, json.dumps(boxes_to_describe(chain(*rows.values()))) + "\n")
        return [_write(rows, store, [source]) for store in stores]

    preparation.make(splits, [source], write, [boxes, *_truths(preparation, splits)])
    preparation.notes.append(
        f"{boxes}: the boxes to choose among, for `python -m datamodules.extract PICTURES STORE.h5 --given-boxes`."
    )


def _truths(preparation: Preparation, splits: Sequence[str]) -> list[Path]:
    return [_truth(preparation.folder / f"{split}.h5") for split in splits]


def _truth(store: Path) -> Path:
    return store.with_name(f"{store.stem}_truth.json")


def _write(rows: Mapping[str, Sequence[Referring]], store: Path, sources: Sequence[Path]) -> Counts:
    split = store.stem
    if split not in rows:
        raise InputError(f"{sources[0]}: no split {split}, only {', '.join(rows)}. Choose some with --splits.")
    write_rows(_truth(store), rows[split])
    return write_referring(store, rows[split], sources)
