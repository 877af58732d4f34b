"""From a picture to what the network looks at: OpenCV's bilinear resizing, in two taps a side.

`torch.nn.functional.interpolate` with a size takes the ratio of the rounded sides for the scale, Pillow averages
over many pixels: on photographs both differ from OpenCV by some grey levels, enough for other features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datamodules.detector.config import DetectorConfig
from lxmert.files import InputError


class Resized(NamedTuple):
    """A picture as the network takes it.

    Attributes:
        image: (3, H, W) float32, blue, green, red, without their mean.
        scale: pixels of it a pixel of the original.
    """

    image: np.ndarray
    scale: float


def resize(picture: np.ndarray, config: DetectorConfig) -> Resized:
    """Resize to `config.short_side`, or to less where the other side would be above `config.long_side`.

    Args:
        picture: (h, w, 3) uint8, blue, green, red.
        config: sides and mean.

    Raises:
        InputError: so long and thin that hardly a pixel is left of the short side.
    """
    height, width = picture.shape[:2]
    scale = config.short_side / min(height, width)
    if round(scale * max(height, width)) > config.long_side:
        scale = config.long_side / max(height, width)
    sides = round(height * scale), round(width * scale)
    if min(sides) < 4:  # the first layers would leave nothing of it
        raise InputError(
            f"a picture of {width} x {height} pixels is too long and thin: resized to {sides[1]} x {sides[0]}, it "
            "shows nothing. Cut it into parts."
        )
    top, bottom, down = _taps(sides[0], height, scale)
    left, right, across = _taps(sides[1], width, scale)
    mean = np.array(config.pixel_mean, np.float32)

    def rows(places: np.ndarray) -> np.ndarray:
        begin, end = picture[np.ix_(places, left)] - mean, picture[np.ix_(places, right)] - mean
        return begin * (1 - across)[:, None] + end * across[:, None]

    image = rows(top) * (1 - down)[:, None, None] + rows(bottom) * down[:, None, None]
    return Resized(np.ascontiguousarray(image.transpose(2, 0, 1)), scale)


def _taps(size: int, length: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `size` pixels the two of `length` that it lies between, and the weight of the second."""
    place = (np.arange(size) + 0.5) / scale - 0.5
    first = np.floor(place).astype(np.int64)
    weight = (place - first).astype(np.float32)
    weight[(first < 0) | (first >= length - 1)] = 0
    first = first.clip(0, length - 1)
    return first, (first + 1).clip(max=length - 1), weight
