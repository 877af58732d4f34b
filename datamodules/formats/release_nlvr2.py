"""NLVR2's statements in text stores, and those of the LXMERT release -> text store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datamodules.formats.checks import is_text
from datamodules.formats.release_vqa import read_rows
from datamodules.stores import writing_rows
from lxmert.evaluate import identifier_problem
from lxmert.files import shorten

RIGHT = "right"  # the group of a text store that holds a statement's right image
_FURTHER = re.compile("img[1-9][0-9]*")  # those that hold further ones, img2 the third
ANSWERS = ["False", "True"]


def image_groups(groups: Iterable[str]) -> list[str]:
    """Those groups of a text store that hold the images of a statement beside its first one."""
    return [name for name in groups if name == RIGHT or _FURTHER.fullmatch(name)]


def convert_nlvr2(source: Path, store: Path) -> Path:
    """Convert a statement file of the LXMERT release to a text store.

    The file is a JSON list of `{identifier, img0, img1, sent, label, uid}`; label is 0 or 1, and absent
    from all rows of a hidden split. The store has the left image as `image`, the right one as the group
    `RIGHT`, and the answers "False" and "True".

    Raises:
        InputError: a row that cannot be used, naming file, row (from 0) and identifier.
        StoreError: the store cannot be written.
    """
    rows = read_rows(source, "statements", statement_problem)
    labelled = "label" in rows[0]
    with writing_rows(store, groups=[RIGHT], labelled=labelled, sources=[source]) as written:
        for row in rows:
            label = {ANSWERS[row["label"]]: 1.0} if labelled else {}
            written.add(row["sent"], row["identifier"], row["img0"], label, [row["img1"]])
    return store


def statement_problem(row: Any, first: Mapping[str, Any], seen: dict[Any, int]) -> str | None:
    """What is wrong with a statement of the release, if anything; arguments as of `question_problem`."""
    if not isinstance(row, dict):
        return f"expected an object, found {shorten(row)}"
    labelled = "label" in first
    if bad := [key for key in ("identifier", "img0", "img1", "sent") if not is_text(row.get(key))]:
        return f"{bad[0]} is {shorten(row.get(bad[0]))}, expected a text"
    for key in ("identifier", "img0", "img1"):
        if problem := identifier_problem(row[key], str):
            return f"{key} is {shorten(row[key])}, {problem}"
    if ("label" in row) != labelled:
        return "has no label and row 0 has one" if labelled else "has a label and row 0 has none"
    if labelled and not (type(row["label"]) is int and row["label"] in (0, 1)):
        return f"label is {shorten(row['label'])}, expected 0 or 1"
    if row["identifier"] in seen:
        return f"duplicate identifier, first used in row {seen[row['identifier']]}"
    return None
