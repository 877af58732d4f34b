"""What the regions of an image must be like: one set of checks, which conversion and the report on files run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from datamodules.stores.hdf5 import StoreError
from datamodules.stores.regions import UNKNOWN_LABEL

BOTTOM_UP_ATTENTION = "bottom-up-attention Faster R-CNN, ResNet-101, Visual Genome 1600-400"
NAMES = {"object": 1600, "attribute": 400}  # of that detector
BOX_TOLERANCE = 1e-5  # of a box, as a fraction of the image's side; that of the original code
MOST_CLIPPED = 0.01  # as a fraction of the image's side
LARGEST_ARRAY = 1 << 27  # bytes
LARGEST_NUMBER = 2**31 - 1  # of what a source counts
LONGEST_ID = 255  # bytes
BOM = b"\xef\xbb\xbf"
MEND = (
    "Mend or remove this row, or get the file again if it was cut off or damaged; `--on-error skip` of "
    "datamodules.convert leaves such images out."
)
NOT_FINITE = "features that are not finite, or beyond float16"
_NOT_IN_IDS = re.compile(rb"[\x00-\x1f\x7f]|" + BOM)
_LARGEST_FP16 = 65504.0


class ImageError(StoreError):
    """An image of a source cannot be used; the others may be.

    Attributes:
        sort: what is wrong, in words that hold for every image of which it is.
        place, what: the parts of the message before its advice.
    """

    def __init__(self, place: str, what: str, sort: str = "") -> None:
        super().__init__(f"{place}: {what}. {MEND}")
        self.place, self.what, self.sort = place, what, sort

    def bare(self) -> ImageError:
        """The same without its traceback, which holds the image's arrays."""
        return ImageError(self.place, self.what, self.sort)


def reject(where: str, what: str, sort: str = "") -> NoReturn:
    """Refuse what stands at a place of a source."""
    raise ImageError(where, what, sort)


@dataclass(frozen=True)
class Handling:
    """What is done about images that are not as they should be.

    Args:
        clip: move boxes that are outside of the image by up to `MOST_CLIPPED` of its sides to its border.
        skip: leave out images that cannot be used, and list them; else stop at the first.
    """

    clip: bool = False
    skip: bool = False

    def __str__(self) -> str:
        return ", ".join(["boxes clipped"] * self.clip + ["bad images skipped"] * self.skip)


# ------------------------------------------------------------------------------------------------ ids


def check_id(image_id: bytes, where: str) -> None:
    """Refuse what is no id: a store could not keep it, or nobody ask for it."""
    if not image_id:
        reject(where, "img_id is empty, expected the image's id")
    if len(image_id) > LONGEST_ID:
        reject(where, f"img_id is of {len(image_id):,} bytes, expected at most {LONGEST_ID}")
    if found := _NOT_IN_IDS.search(image_id):
        reject(where, f"img_id holds {found[0]!r}, expected no control characters")
    try:
        image_id.decode()
    except UnicodeDecodeError:
        reject(where, f"img_id is {image_id!r}, expected UTF-8 text")


def shown_id(image_id: bytes) -> str:
    """An image's id in a message."""
    text = image_id[:80].decode(errors="replace")
    return text if text.isprintable() else ascii(text)


# -------------------------------------------------------------------------------------- values


def check_features(features: np.ndarray, where: str) -> None:
    """Refuse features (n, F) that float16 cannot hold."""
    # NaN fails both comparisons
    if features.min() >= -_LARGEST_FP16 and features.max() <= _LARGEST_FP16:
        return
    region, place = np.argwhere(~(np.abs(features) <= _LARGEST_FP16))[0]
    reject(
        where,
        f"feature {place} of region {region} is {features[region, place]}, expected -65504 to 65504 to fit fp16",
        NOT_FINITE,
    )


def box_fractions(
    boxes: np.ndarray, size: tuple[int, int], where: str, *, fractions: bool = False, clip: bool = False
) -> np.ndarray:
    """The boxes (n, 4), x1 y1 x2 y2, of an image as fractions of its sides.

    Args:
        boxes: float32, in pixels or, with `fractions`, in fractions already.
        size: the image's width and height in pixels.
        where: the image's place, for messages.
        fractions: the boxes' unit.
        clip: see `Handling`.

    Raises:
        ImageError: they are not in order, outside of the image, or in another unit.
    """
    width, height = size
    with np.errstate(invalid="ignore", over="ignore"):
        found = boxes if fractions else boxes / np.array([width, height, width, height], np.float32)
    problem = ""
    if not fractions and in_fractions(boxes, width):
        problem = "boxes in fractions of the image, expected pixels"
    if not problem and _in_order(found).all():
        # NaN fails every comparison
        if found.min() > -BOX_TOLERANCE and found.max() < 1 + BOX_TOLERANCE:
            return found
        clipped = found.clip(0, 1)
        near = bool(np.abs(clipped - found).max() <= MOST_CLIPPED)
        if near and clip:
            return clipped
        problem = _outside(boxes, size, fractions)
        problem += "; `--boxes clip` moves boxes so little outside to the border" if near else ""
    sort = (problem or _disorder(found)).partition(";")[0]
    inside = ((found < 1 + BOX_TOLERANCE) & (found > -BOX_TOLERANCE)).all(1)
    wrong = np.flatnonzero(~(inside & _in_order(found)))
    first = f"box {wrong[0]} is {boxes[wrong[0]].tolist()}, expected " if len(wrong) else "expected "
    unit = "fractions" if fractions else "pixels"
    reject(
        where,
        f"{problem or sort}: {first}{unit} x1 <= x2, y1 <= y2 in an image {width} wide and {height} high",
        sort,
    )


def in_fractions(boxes: np.ndarray, width: float) -> bool:
    """Whether all boxes (n, 4) of an image lie in its first pixel: nobody's pixels, but fractions."""
    return width > 2 and bool(boxes.max() <= 1 + BOX_TOLERANCE)


def _in_order(boxes: np.ndarray) -> Any:
    return (boxes[:, 2:] >= boxes[:, :2]).all(1)


def _disorder(boxes: np.ndarray) -> str:
    if not np.isfinite(boxes).all():
        return "boxes that are not numbers"
    return "boxes that end before they begin, perhaps x y width height"


def _outside(boxes: np.ndarray, size: tuple[int, int], fractions: bool) -> str:
    if not np.isfinite(boxes).all():
        return "boxes that are not numbers"
    if fractions:
        return "boxes in pixels, expected fractions of the image" if boxes.max() > 2 else "boxes outside the image"
    height, width = size
    turned = np.array([width, height, width, height])
    if (boxes >= -BOX_TOLERANCE * turned).all() and (boxes <= turned * (1 + BOX_TOLERANCE)).all():
        return "boxes that fit when width and height are exchanged; of a TSV, --columns can say so"
    return "boxes outside the image"


def label_columns(
    labels: Mapping[str, np.ndarray], count: int, where: str, names: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """The four columns of labels (n,) that a store has of an image; unknown where its source has none.

    Args:
        labels: object_ids, object_conf, attribute_ids, attribute_conf, or some of them.
        count: n.
        where: the image's place, for messages.
        names: "object" and "attribute" -> how many names the detector has, where that is known.

    Raises:
        ImageError: an id without a name, a confidence that is no number.
    """
    columns = {}
    for kind in ("object", "attribute"):
        ids, conf = labels.get(f"{kind}_ids"), labels.get(f"{kind}_conf")
        if ids is None:
            ids = np.full(count, UNKNOWN_LABEL)
        else:
            check_ids(ids, kind, where, names)
        if conf is None:
            conf = np.zeros(count)
        elif not np.isfinite(conf).all():
            what = f"{kind} confidences hold NaN or infinity, expected numbers"
            reject(where, what, f"{kind} confidences that are not numbers")
        columns[f"{kind}_ids"] = ids.astype(np.int32)
        columns[f"{kind}_conf"] = conf.astype(np.float32)
    return columns


def check_ids(
    ids: np.ndarray, kind: str, where: str, names: Mapping[str, int] | None = None, *, least: int = 0
) -> None:
    """Refuse ids of a "object" or "attribute" that have no name; arguments as of `label_columns`."""
    most = names[kind] - 1 if names else np.iinfo(np.int32).max
    if ids.min() < least or ids.max() > most:
        sort = f"{kind} ids outside the detector's {names[kind]:,} names (0 to {most:,})" if names else ""
        advice = ", its detector's names; of another one, convert them with --detector NAME" if names else ""
        what = f"{kind} ids from {ids.min()} to {ids.max()}, expected {least} to {most:,}{advice}"
        reject(where, what, sort or f"{kind} ids below {least} or beyond 32 bits")
