"""A region store from region features in any format that we know, recognised by what is there.

python -m datamodules.convert SOURCE STORE [--detector NAME]
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from datamodules.convert import convert_gqa_objects, convert_npz, convert_tsv
from datamodules.stores import RegionStore
from lxmert.files import InputError


class Format(NamedTuple):
    """A format of region features: what it is called, what it looks like, and what converts it."""

    name: str
    looks: str
    recognise: Callable[[Path], bool]
    convert: Callable[..., Path]


FORMATS = (
    Format(
        "regions of the LXMERT release",
        "a file NAME.tsv",
        lambda path: path.is_file() and path.suffix == ".tsv",
        convert_tsv,
    ),
    Format(
        "object features of GQA",
        "a folder with gqa_objects_info.json",
        lambda path: (path / "gqa_objects_info.json").is_file(),
        convert_gqa_objects,
    ),
    Format(
        "bottom-up-attention npz files",
        "a folder of IMAGE.jpg.npz, one an image",
        lambda path: path.is_dir() and next(path.glob("*.npz"), None) is not None,
        convert_npz,
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert SOURCE; 0, or 1 with one message when it cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.convert", description="A region store from region features."
    )
    parser.add_argument("source", type=Path, help="; ".join(f"{each.looks} ({each.name})" for each in FORMATS))
    parser.add_argument("store", type=Path, help="the .h5 file to make; kept when it is current")
    parser.add_argument("--detector", help="what made the features, to be written into the store (as the format)")
    options = parser.parse_args(arguments)
    named = {"detector": options.detector} if options.detector else {}
    try:
        found = recognise(options.source)
        print(f"{options.source}: {found.name}")
        options.store.parent.mkdir(parents=True, exist_ok=True)
        store = RegionStore(found.convert(options.source, options.store, **named))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.store}: {len(store):,} images, {store.feature_dim} features a region, of the detector")
    print(f"  {store.contract['detector']}")
    return 0


def recognise(source: Path) -> Format:
    """The format of a source.

    Raises:
        InputError: there is no such file or folder, or it is of none of `FORMATS`.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder. Check the path, or get the features first.")
    for each in FORMATS:
        if each.recognise(source):
            return each
    known = "".join(f"\n  {each.name}: {each.looks}" for each in FORMATS)
    raise InputError(f"{source}: no region features that we know. These are known:{known}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
