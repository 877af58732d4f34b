"""NLVR2: the makers' statements -> text stores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datamodules.formats.checks import no_repeat
from datamodules.formats.official_nlvr2 import take_statement
from datamodules.formats.release_nlvr2 import RIGHT
from datamodules.formats.rows import json_lines
from datamodules.prepare.preparation import Counts, Preparation, shown
from datamodules.stores import writing_rows

MAKERS = {"train": "train.json", "valid": "dev.json", "test": "test1.json", "test2": "test2.json"}
BY_DEFAULT = ("train", "valid", "test")  # the release has no texts and no regions of test2, long a hidden one


def prepare_nlvr2(preparation: Preparation, splits: Sequence[str]) -> None:
    """Make `nlvr2/{train,valid,test,test2}.h5`: statements about a left image and, the group `RIGHT`, a right one.

    The identifier is the makers'; the label is {"True": 1.0} or {"False": 1.0}. Images are named as in the
    release: the identifier without its sentence, and -img0 (left) or -img1 (right).

    Args:
        preparation: of the task "nlvr2".
        splits: of train, valid, test and test2.

    Raises:
        FileNotFoundError, InputError: files are missing, broken or have a statement twice.
    """
    files = preparation.find({MAKERS[split]: f"statements of {split}" for split in splits})
    for split in splits:
        source = files[MAKERS[split]]
        preparation.make([split], [source], lambda store, s=source: [_convert(s, store)])


def _convert(source: Path, store: Path) -> Counts:
    seen: set[str] = set()
    true = 0
    with writing_rows(store, sources=[source], groups=[RIGHT]) as rows:
        for where, row in shown(json_lines, source):
            statement = take_statement(row, where)
            no_repeat(seen, statement.identifier, where)
            true += statement.label == "True"
            label = {statement.label: 1.0}
            rows.add(statement.text, statement.identifier, statement.left, label, [statement.right])
    return rows.counts() | {"True": true}
