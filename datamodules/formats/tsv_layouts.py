"""Which columns the TSV files of the bottom-up-attention family have: each project writes others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datamodules.stores import BOM, StoreError

RELEASE = (
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
)
NEEDED = ("img_id", "img_h", "img_w", "num_boxes", "boxes", "features")
LABELS = ("objects_id", "objects_conf", "attrs_id", "attrs_conf")  # read where a layout has all of a pair
_ALSO_CALLED = {
    **{"image_id": "img_id", "product_id": "img_id", "item_id": "img_id"},
    **{"image_h": "img_h", "image_w": "img_w", "height": "img_h", "width": "img_w"},
}
_SIX = ("img_id", "img_w", "img_h", "num_boxes", "boxes", "features")
_LINES = 3  # that are looked at
_LONGEST = 1 << 24  # bytes of one


class TsvLayout(NamedTuple):
    """The columns of a TSV, by the release's names, others by any; and whether its first line names them."""

    name: str
    columns: tuple[str, ...]
    header: bool = False

    def said(self) -> dict[str, str]:
        """What the user said of the columns, for the store; nothing where the file tells them."""
        return {} if self.header or self in LAYOUTS else {"columns": ",".join(self.columns)}


LAYOUTS = (
    TsvLayout("regions of the LXMERT release", RELEASE),
    TsvLayout("six-column TSV of bottom-up-attention", _SIX),
    TsvLayout("seven-column TSV of bottom-up-attention, as ViLBERT's", (*_SIX, "cls_prob")),
    TsvLayout(
        "eight-column TSV of bottom-up-attention, as VL-BERT's",
        ("img_id", "img_h", "img_w", "num_boxes", "boxes", "features", "cls_prob", "classes"),
    ),
    TsvLayout(
        "nine-column TSV with queries, as of KDD Cup 2020",
        ("img_id", "img_h", "img_w", "num_boxes", "boxes", "features", "class_labels", "query", "query_id"),
    ),
    TsvLayout("thirteen-column TSV of VOLTA", (*RELEASE, "cls_prob", "attrs", "classes")),
)


def tsv_layout(path: Path, columns: Sequence[str] = ()) -> TsvLayout:
    """The layout of a TSV: as its first line names it, or by how many columns there are and which are numbers.

    Args:
        path: the file.
        columns: the columns' names, from the user; "" takes what is known.

    Raises:
        StoreError: none that is known, or named columns without those that are needed.
    """
    lines = _first_lines(path)
    count = len(lines[0])
    if named := canonical(columns):
        check_columns(named, f"{path}: --columns")
        if len(named) != count:
            raise StoreError(f"{path}: --columns names {len(named)} columns, its first line has {count}.")
        return TsvLayout("TSV with the columns that you named", named)
    names = canonical([field.decode(errors="replace") for field in lines[0]])
    if {"num_boxes", "boxes", "features"} <= set(names):
        check_columns(names, f"{path}: line 1, the names of its columns")
        return TsvLayout("TSV whose first line names its columns", names, header=True)
    for fields in lines:  # of which some may be damaged
        for layout in LAYOUTS:
            if len(layout.columns) == len(fields) and _whole(layout) <= _numbers(fields):
                return layout
    shown = ", ".join(str(place + 1) for place in sorted(_numbers(lines[0]))) or "none"
    raise StoreError(
        f"{path}: a TSV of {count} columns, whole numbers in column {shown}: no layout that is known. Name its "
        f"columns with --columns A,B,...: {', '.join(NEEDED)} are needed, {', '.join(LABELS)} are read, any other "
        "name leaves a column out."
    )


def canonical(columns: Sequence[str]) -> tuple[str, ...]:
    """Names of columns as the release has them."""
    return tuple(_ALSO_CALLED.get(name.strip(), name.strip()) for name in columns)


def check_columns(columns: Sequence[str], where: str) -> None:
    """Raise StoreError unless those needed are there, none of them twice."""
    for name in (*NEEDED, *LABELS):
        if columns.count(name) > 1 or (name in NEEDED and name not in columns):
            found = columns.count(name)
            raise StoreError(f"{where}: {found} columns {name}, expected one. Name {', '.join(NEEDED)}.")


def _whole(layout: TsvLayout) -> set[int]:
    """The places of the columns that are whole numbers in every line."""
    return {place for place, name in enumerate(layout.columns) if name in ("img_h", "img_w", "num_boxes")}


def _numbers(fields: Sequence[bytes]) -> set[int]:
    """The places of the columns that are whole numbers in this line."""
    return {place for place, field in enumerate(fields) if field.isdigit()}


def _first_lines(path: Path) -> list[list[bytes]]:
    """The columns of the first lines that are not blank, one at least; of an endless one its begin."""
    lines: list[bytes] = []
    with path.open("rb") as file:
        while len(lines) < _LINES and (line := file.readline(_LONGEST)):
            lines += [line.rstrip(b"\r\n")] if line.strip(b"\r\n") else []
    if not lines:
        raise StoreError(f"{path}: the file is empty, expected a line for each image. Check the path.")
    lines[0] = lines[0].removeprefix(BOM)
    return [line.split(b"\t") for line in lines]
