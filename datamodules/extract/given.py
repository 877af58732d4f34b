"""Boxes of one's own, to be described instead of those that a detector would find."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datamodules.stores import LARGEST_NUMBER
from lxmert.files import InputError, read_json, shown


def read_boxes(path: Path) -> dict[str, np.ndarray]:
    """Image id -> boxes (n, 4) float32 of a JSON object {image id: [[x1, y1, x2, y2], ...]}, in pixels.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is something else; the image and box are named.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: {shown(content)}; expected an object {{image id: [[x1, y1, x2, y2], ...]}}")
    return {image: _boxes(boxes, f"{path}: image {image}") for image, boxes in content.items()}


def _boxes(boxes: object, where: str) -> np.ndarray:
    if not isinstance(boxes, list) or not boxes:
        raise InputError(
            f"{where}: {shown(boxes)}; expected a list of one box or more, [x1, y1, x2, y2] in pixels"
        )
    for number, box in enumerate(boxes):
        kinds = (int, float)
        if not isinstance(box, list) or len(box) != 4 or not all(type(value) in kinds for value in box):
            raise InputError(f"{where}: box {number} is {shown(box)}; expected [x1, y1, x2, y2] in pixels")
        if not all(abs(value) < LARGEST_NUMBER for value in box):
            raise InputError(f"{where}: box {number} is {shown(box)}; no picture is so large")
    return np.array(boxes, np.float32)
