"""Region features of one's own pictures, as a store that training, prediction and asking read.

python -m datamodules.extract PICTURES STORE.h5 --weights DETECTOR.safetensors
python -m datamodules.extract PICTURES RELEASED.tsv --weights DETECTOR.safetensors --verify

PICTURES is a folder, a text file with a picture's path a line, or a picture; a picture's name without its ending
is its image id. Killed at any moment, the same command goes on. --verify compares what the detector finds in
pictures with what a released TSV has of them, and says what is probably wrong where they differ.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from datamodules.detector import BoxRule, Detector
from datamodules.extract.extraction import Extraction, extract
from datamodules.extract.given import read_boxes
from datamodules.extract.pictures import find_pictures
from datamodules.extract.verify import print_verdict, verify
from datamodules.stores import RegionStore, skipped_list
from lxmert.files import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Extract, or verify; 0, or 1 with one message, or where what is verified does not match."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.boxes and options.given_boxes:
        parser.error("--boxes is for boxes that are searched for, --given-boxes for those that are not")
    if options.verify and (options.given_boxes or options.tsv or options.on_error == "skip"):
        parser.error("--verify compares; --given-boxes, --tsv and --on-error are for extracting")
    try:
        if options.verify and options.out.suffix == ".h5":
            raise InputError(f"{options.out}: a store, expected a TSV of the released format to verify against")
        if not options.verify and options.out.suffix == ".tsv":
            raise InputError(
                f"{options.out}: expected the store to make, a name in .h5; --tsv FILE writes the released "
                "format too"
            )
        pictures = find_pictures(options.pictures)
        rule = None if options.boxes is None else BoxRule.parse(options.boxes)
        boxes = None if options.given_boxes is None else read_boxes(options.given_boxes)
        detector = Detector.open(options.weights, _device(options.device))
        if options.verify:
            return 0 if print_verdict(verify(detector, pictures, options.out, rule)) else 1
        title = options.pictures.resolve().name or "pictures"
        work = Extraction(pictures, title, detector, rule, boxes, options.on_error == "skip")
        start = time.monotonic()
        extract(work, options.out, options.tsv)
        store = RegionStore(options.out)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped" if options.verify else "stopped; the same command goes on", file=sys.stderr)
        return 130
    minutes = (time.monotonic() - start) / 60
    regions, width = store.contract["num_regions"], store.feature_dim
    print(
        f"{options.out}: {len(store):,} images, {regions:,} regions of {width} features, in {minutes:.1f} minutes"
    )
    print(f"  of {store.contract['detector']}")
    if boxes is not None and (others := boxes.keys() - pictures.keys()):
        print(f"{options.given_boxes}: boxes of {len(others):,} images that are not among the pictures")
    if skipped_list(options.out).exists():
        with skipped_list(options.out).open(encoding="utf-8") as lines:
            print(f"{sum(1 for _ in lines):,} pictures were left out, see {skipped_list(options.out)}")
    return 0


def _device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        InputError: it is none, or not in this machine.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"--device {name}: {str(error).splitlines()[0]}. Use cpu, or cuda where there is a GPU."
        ) from error
    return device


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
