"""Region features of one's own pictures, as a store that training, prediction and asking read.

python -m datamodules.extract PICTURES STORE.h5 --weights DETECTOR.safetensors
python -m datamodules.extract PICTURES RELEASED.tsv --weights DETECTOR.safetensors --verify

PICTURES is a folder, or a text file with a picture's path a line; a picture's name without its ending is its image
id. Killed at any moment, the same command goes on. --verify compares what the detector finds in pictures with what
a released TSV has of them, and says what is probably wrong where they differ.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from datamodules.detector import BoxRule, Detector
from datamodules.extract.extraction import Extraction, extract
from datamodules.extract.given import read_boxes
from datamodules.extract.pictures import find_pictures
from datamodules.extract.verify import print_verdict, verify
from datamodules.stores import RegionStore, skipped_list
from lxmert.files import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Extract, or verify; 0, or 1 with one message, or where what is verified does not match."""
    options = _parser().parse_args(arguments)
    try:
        pictures = find_pictures(options.pictures)
        detector = Detector.open(options.weights, options.device)
        if options.verify:
            return 0 if print_verdict(verify(detector, pictures, options.out)) else 1
        work = Extraction(
            pictures,
            options.pictures.resolve().name,
            detector,
            None if options.boxes is None else BoxRule.parse(options.boxes),
            None if options.given_boxes is None else read_boxes(options.given_boxes),
            options.on_error == "skip",
        )
        start = time.monotonic()
        extract(work, options.out, options.tsv)
        store = RegionStore(options.out)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    minutes = (time.monotonic() - start) / 60
    print(
        f"{options.out}: {len(store):,} images, {store.feature_dim} features a region, in {minutes:.1f} minutes, "
        "of"
    )
    print(f"  {store.contract['detector']}")
    if skipped_list(options.out).exists():
        print(f"{len(work.failed):,} pictures were left out, see {skipped_list(options.out)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.extract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pictures", metavar="PICTURES", type=Path, help="a folder, or a file that lists pictures")
    parser.add_argument(
        "out", metavar="STORE", type=Path, help="the .h5 file to make; with --verify a released TSV"
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="of `python -m datamodules.detector`")
    parser.add_argument(
        "--boxes", metavar="36|10-100", help="how many a picture, where not as the weights' file says"
    )
    parser.add_argument(
        "--given-boxes",
        type=Path,
        metavar="JSON",
        help="{image id: [[x1, y1, x2, y2], ...]} to describe, in pixels",
    )
    parser.add_argument("--device", default="cpu", help="where the detector runs (cpu)")
    parser.add_argument("--tsv", type=Path, metavar="FILE", help="write the released format too")
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="skip leaves pictures that cannot be used out, into STORE.skipped.txt",
    )
    parser.add_argument("--verify", action="store_true", help="compare with a released TSV instead")
    return parser


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
