"""A region store from region features in any format that we know, recognised by what is there.

python -m datamodules.convert SOURCE STORE [--detector NAME]
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from datamodules.formats.npz import ORDERS
from datamodules.formats.region_formats import KNOWN, Hints, RegionFormat, recognise
from datamodules.stores import BOTTOM_UP_ATTENTION, Handling, RegionStore, convert_regions, skipped_list
from lxmert.files import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert SOURCE; 0, or 1 with one message when it cannot be used."""
    options = _parser().parse_args(arguments)
    columns = tuple(options.columns.split(",")) if options.columns else ()
    handling = Handling(clip=options.boxes == "clip", skip=options.on_error == "skip")
    try:
        found = recognise(options.source, Hints(columns, options.features or "", options.ids))
        print(f"{options.source}: {found.name}")
        detector = options.detector or _detector_of(found)
        options.store.parent.mkdir(parents=True, exist_ok=True)
        made = (found.index, found.read, handling)
        convert_regions(found.source, options.store, detector, True, *made, reading=found.reading)
        store = RegionStore(options.store)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.store}: {len(store):,} images, {store.feature_dim} features a region, of the detector")
    print(f"  {store.contract['detector']}")
    if skipped_list(options.store).exists():
        with skipped_list(options.store).open(encoding="utf-8") as lines:
            print(f"{sum(1 for _ in lines):,} images were left out, see {skipped_list(options.store)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.convert",
        description="A region store from region features. Known are:\n"
        + "".join(f"  {name}: {looks}\n" for name, looks in KNOWN),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="a file or a folder of a known format")
    parser.add_argument("store", type=Path, help="the .h5 file to make; kept when it is current")
    parser.add_argument("--detector", help="what made the features, to be written into the store")
    parser.add_argument(
        "--boxes",
        choices=("refuse", "clip"),
        default="refuse",
        help="clip moves boxes up to 1 %% outside to the border",
    )
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="skip leaves bad images out, into STORE.skipped.txt",
    )
    parser.add_argument("--columns", metavar="A,B,...", help="the names of a TSV's columns, where they are others")
    parser.add_argument("--features", choices=ORDERS, help="of npz files: whether a row or a column is a region")
    parser.add_argument("--ids", type=Path, metavar="FILE", help="of HDF5: a pickle or JSON of image id -> row")
    return parser


def _detector_of(found: RegionFormat) -> str:
    """What made the features, where their format tells.

    Raises:
        InputError: it does not.
    """
    if found.detector is None:
        raise InputError(
            f"{found.source}: {found.name}: nothing tells what made the features, which decides what they are "
            f'good for. Name it: --detector "{BOTTOM_UP_ATTENTION}" if it was that one in its original code, else '
            "a name of your own, such as --detector mine."
        )
    return found.detector


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
