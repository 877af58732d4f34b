"""COCO's images and captions, as their makers publish them."""

from __future__ import annotations

import sys
from typing import Any

from datamodules.formats.checks import Where, place_of, take
from lxmert.files import InputError

FOLDERS = ("train2014", "val2014", "test2015")  # of images


def image_name(folder: str, number: int) -> str:
    """An image as the release calls it, such as COCO_train2014_000000458752."""
    return sys.intern(f"COCO_{folder}_{number:012d}")


def take_image(row: Any, where: Where) -> int:
    """The number of a row's COCO image; errors as of `take`."""
    [image] = take(row, where, image_id=int)
    if image < 0:
        raise InputError(f"{place_of(where)}: image_id is {image}, expected 0 or more. Mend or remove that row.")
    return image
