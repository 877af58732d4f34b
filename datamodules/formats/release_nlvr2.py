"""NLVR2's statements in text stores, and those of the LXMERT release -> text store."""

from __future__ import annotations

from pathlib import Path

from datamodules.formats.checks import statement_problem
from datamodules.formats.release_vqa import read_rows
from datamodules.stores.texts import write_examples

RIGHT = "right"  # the group of a text store that holds a statement's right image
ANSWERS = ["False", "True"]
CHUNK = 10_000  # statements written at once


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
    with write_examples(store, groups=[RIGHT], labelled=labelled, sources=[source]) as writer:
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            writer.append(
                texts=[row["sent"] for row in chunk],
                ids=[row["identifier"] for row in chunk],
                images=[row["img0"] for row in chunk],
                labels=[{ANSWERS[row["label"]]: 1.0} if labelled else {} for row in chunk],
                groups={RIGHT: [row["img1"] for row in chunk]},
            )
    return store
