"""The sizes and rules of a detector. The defaults are those of the published model in its original code."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lxmert.files import InputError, shown

STRIDE = 16  # pixels of the resized picture a cell of the feature map


@dataclass(frozen=True)
class BoxRule:
    """How many boxes of a picture are kept.

    At least `fewest`, or all where there are fewer; at most `most`; between them those that the detector is sure
    of.
    """

    fewest: int = 36
    most: int = 36

    def __post_init__(self) -> None:
        if not 1 <= self.fewest <= self.most:
            raise InputError(f"box rule {self}: expected 1 or more boxes, the fewest first, such as 36 or 10-100")

    @classmethod
    def parse(cls, text: str) -> BoxRule:
        """The rule of "36", always that many, or "10-100".

        Raises:
            InputError: it is neither.
        """
        found = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", text)
        if not found:
            raise InputError(f"box rule {shown(text)}: expected a number of boxes, such as 36, or two: 10-100")
        return cls(int(found[1]), int(found[2] or found[1]))

    def __str__(self) -> str:
        return f"{self.fewest}" if self.fewest == self.most else f"{self.fewest}-{self.most}"


@dataclass(frozen=True)
class DetectorConfig:
    """What a detector is built from, and how it is used.

    Attributes:
        stem_width: channels of the first convolution.
        blocks: bottleneck blocks of res2 to res5.
        widths: channels within the blocks of res2 to res5.
        expansion: a block's output has that many times its width.
        res5_dilation: of the 3 x 3 convolutions of res5, which keeps the bins of a region as they are.
        rpn_width: channels of the proposal head.
        anchor_scales: sides of the square anchors, in cells of the feature map.
        anchor_ratios: height to width.
        objects: object classes, background not counted.
        attributes: attribute classes, "none" not counted.
        embedding_width: of the object class that the attribute head is told.
        attribute_width: hidden units of the attribute head.
        pixel_mean: blue, green, red; subtracted before resizing.
        short_side: pixels to which the short side of a picture is resized ...
        long_side: ... unless the long one would be longer than this.
        min_size: smallest side of a proposal, in pixels of the original picture.
        proposals_scored: so many best proposals go into non-maximum suppression ...
        proposals: ... and at most so many come out.
        proposal_overlap: intersection over union at which a proposal is suppressed.
        roi_size: a region is pooled to so many bins a side.
        class_overlap: as `proposal_overlap`, among the regions as one object class.
        confidence: a region is sure when the probability of some class for which it is kept is as high.
        box_rule: how many boxes of a picture are kept.
    """

    stem_width: int = 64
    blocks: tuple[int, ...] = (3, 4, 23, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    expansion: int = 4
    res5_dilation: int = 2
    rpn_width: int = 512
    anchor_scales: tuple[float, ...] = (4, 8, 16, 32)
    anchor_ratios: tuple[float, ...] = (0.5, 1, 2)
    objects: int = 1600
    attributes: int = 400
    embedding_width: int = 256
    attribute_width: int = 512
    pixel_mean: tuple[float, ...] = (102.9801, 115.9465, 122.7717)
    short_side: int = 600
    long_side: int = 1000
    min_size: int = 16
    proposals_scored: int = 6000
    proposals: int = 300
    proposal_overlap: float = 0.7
    roi_size: int = 14
    class_overlap: float = 0.3
    confidence: float = 0.2
    box_rule: BoxRule = BoxRule()

    def __post_init__(self) -> None:
        for name, what, right in _KINDS:
            value = getattr(self, name)
            if not right(value):
                raise InputError(f"detector configuration: {name} is {shown(value)}; expected {what}")
        if self.short_side > self.long_side:
            raise InputError(
                f"detector configuration: short_side {self.short_side} is above long_side {self.long_side}"
            )

    @property
    def feature_dim(self) -> int:
        """F, the numbers that describe a region."""
        return self.widths[-1] * self.expansion

    @property
    def anchors(self) -> int:
        """A, anchors a cell of the feature map."""
        return len(self.anchor_scales) * len(self.anchor_ratios)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON; the box rule as text."""
        return {**asdict(self), "box_rule": str(self.box_rule)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DetectorConfig:
        """What `to_dict` made.

        Raises:
            InputError: a value is missing, unknown or of another kind; named.
        """
        names = [field.name for field in fields(cls)]
        if missing := [name for name in names if name not in values]:
            raise InputError(f"detector configuration: {missing[0]} is missing")
        if unknown := [name for name in values if name not in names]:
            raise InputError(
                f"detector configuration: {shown(unknown[0])} is not known; known are {', '.join(names)}"
            )
        read: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        if not isinstance(read["box_rule"], str):
            raise InputError(f"detector configuration: box_rule is {shown(read['box_rule'])}; expected a text")
        return cls(**{**read, "box_rule": BoxRule.parse(read["box_rule"])})


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 1_000_000


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _is_share(value: Any) -> bool:
    return _is_number(value) and value <= 1


def _tuple_of(is_kind: Any, length: int | None = None) -> Any:
    def right(value: Any) -> bool:
        if not isinstance(value, tuple) or not value or (length and len(value) != length):
            return False
        return all(map(is_kind, value))

    return right


def _is_side(value: Any) -> bool:
    return _is_number(value) and value > 0


_COUNTS = (
    *("stem_width", "expansion", "res5_dilation", "rpn_width", "objects", "attributes", "embedding_width"),
    *("attribute_width", "short_side", "long_side", "min_size", "proposals_scored", "proposals", "roi_size"),
)
_KINDS = (  # name, what is expected in words and as a function
    *((name, "a whole number above 0", _is_count) for name in _COUNTS),
    *((name, "four whole numbers above 0", _tuple_of(_is_count, 4)) for name in ("blocks", "widths")),
    *((name, "numbers above 0", _tuple_of(_is_side)) for name in ("anchor_scales", "anchor_ratios")),
    ("pixel_mean", "three numbers", _tuple_of(_is_number, 3)),
    *((name, "a number from 0 to 1", _is_share) for name in ("proposal_overlap", "class_overlap", "confidence")),
    ("box_rule", "a BoxRule", lambda value: isinstance(value, BoxRule)),
)
