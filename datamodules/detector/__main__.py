"""A detector's file from published weights.

python -m datamodules.detector SOURCE OUT.safetensors [--objects FILE] [--attributes FILE] [--boxes 36|10-100]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from datamodules.detector.config import BoxRule
from datamodules.detector.weights import KNOWN, convert_weights
from lxmert.files import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert SOURCE and say what was read; 0, or 1 with one message when it cannot be used."""
    options = _parser().parse_args(arguments)
    try:
        report = convert_weights(
            options.source,
            options.out,
            objects=options.objects,
            attributes=options.attributes,
            rule=BoxRule.parse(options.boxes),
            name=options.name,
        )
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report)
    print(f"{options.out}: written")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.detector",
        description=f"A detector's file from published weights. Known are:\n{KNOWN}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="the published weights")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    parser.add_argument("--objects", type=Path, metavar="FILE", help="objects_vocab.txt: the classes' names")
    parser.add_argument("--attributes", type=Path, metavar="FILE", help="attributes_vocab.txt")
    parser.add_argument("--boxes", default="36", metavar="36|10-100", help="how many boxes a picture has")
    parser.add_argument("--name", help="what region stores call the detector, where it is not the release's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
