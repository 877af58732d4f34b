"""Visual Genome's images, region descriptions and questions, as their makers publish them."""

from __future__ import annotations

from typing import Any

from datamodules.formats.checks import Where, take


def take_image(row: Any, where: Where) -> int:
    """The number of the image that a row is of, `image_id` or, as in version 1.0, `id`; errors as of `take`."""
    name = "id" if isinstance(row, dict) and "image_id" not in row else "image_id"
    return take(row, where, **{name: int})[0]


def take_coco_id(row: dict[str, Any], where: Where) -> int:
    """The COCO image that an image is, -1 where it is none; errors as of `take`."""
    return -1 if row.get("coco_id") is None else take(row, where, coco_id=int)[0]


def take_text(row: Any, where: Where, name: str) -> str:
    """A text that may be blank: some are; errors as of `take`."""
    if isinstance(row, dict) and isinstance(row.get(name), str):
        return row[name]
    return take(row, where, **{name: str})[0]
