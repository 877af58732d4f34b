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
_HEAD = 1 << 16  # bytes: of longer first lines the columns before the arrays are enough


class TsvLayout(NamedTuple):
    """The columns of a TSV, by the release's names, others by any; and whether its first line names them."""

    name: str
    columns: tuple[str, ...]
    header: bool = False


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
    fields, lengths = _first_line(path)
    named = canonical(columns)
    if named:
        check_columns(named, f"{path}: --columns")
        if len(named) != len(lengths):
            raise StoreError(f"{path}: --columns names {len(named)} columns, its first line has {len(lengths)}.")
        return TsvLayout("TSV with the columns that you named", named)
    names = canonical([field.decode(errors="replace").strip() for field in fields])
    if {"num_boxes", "boxes", "features"} <= set(names):
        check_columns(names, f"{path}: line 1, the names of its columns")
        return TsvLayout("TSV whose first line names its columns", names, header=True)
    numbers = {place for place, field in enumerate(fields) if field.isdigit()}
    for layout in LAYOUTS:
        whole = {place for place, name in enumerate(layout.columns) if name in ("img_h", "img_w", "num_boxes")}
        if len(layout.columns) == len(lengths) and whole <= numbers:
            return layout
    raise StoreError(
        f"{path}: a TSV of {len(lengths)} columns, whole numbers in {_listed(numbers)}: no layout that is known. "
        f"Name its columns with --columns A,B,...: {', '.join(NEEDED)} are needed, {', '.join(LABELS)} are read, "
        "any other name leaves a column out."
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


def _first_line(path: Path) -> tuple[list[bytes], list[int]]:
    """The columns of the first line, long ones cut off, and how long each is."""
    fields, lengths = [b""], [0]
    with path.open("rb") as file:
        while block := file.read(_HEAD):
            line, end, _ = block.partition(b"\n")
            for number, part in enumerate(line.split(b"\t")):
                if number:
                    fields.append(b"")
                    lengths.append(0)
                fields[-1] += part[: 256 - len(fields[-1])]
                lengths[-1] += len(part)
                if len(fields) > 100:
                    break
            if end or len(fields) > 100:
                break
    fields[0] = fields[0].removeprefix(BOM)
    fields[-1] = fields[-1].rstrip(b"\r")
    return fields, lengths


def _listed(places: set[int]) -> str:
    return "column " + ", ".join(str(place + 1) for place in sorted(places)) if places else "none"
