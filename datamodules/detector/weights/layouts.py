"""Where the layouts of the published files keep what the network needs, and in which order.

All hold the same network: `assemble` asks a layout for its parts and works out the sizes. Parts are called as in
`FasterRCNN`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from datamodules.detector.config import STRIDE, DetectorConfig
from datamodules.detector.weights.arrays import Arrays
from lxmert.files import InputError

_EPSILON = 1e-5  # of batch normalisation, in all of them
_ANCHORS = len(DetectorConfig().anchor_scales) * len(DetectorConfig().anchor_ratios)
Shape = tuple[int | None, ...]


class Layout(Protocol):
    """A layout's names and orders.

    Attributes:
        title: for messages and the report.
        arrays: what the file holds.
        background_first: the class 0 is background and the attribute 0 none; else they are the last ones.
        pairs: an anchor has a logit for background (the first A) and one for an object; else their difference.
    """

    title: str
    arrays: Arrays
    background_first: bool
    pairs: bool

    def holds(self, part: str) -> bool:
        """Whether there is such a convolution of the backbone or res5."""

    def convolution(self, part: str, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias of a convolution of the backbone or res5, its normalisation included."""

    def plain(self, part: str, shape: Shape, bias: bool = True) -> list[np.ndarray]:
        """Weight, and bias where there is one, of a layer of the proposals or heads."""

    def anchor_order(self) -> np.ndarray:
        """(A,) which of the file's anchors is our first, second, ..."""


class Caffe:
    """`resnet101_faster_rcnn_final*.caffemodel`: layers conv1, bn_conv1, scale_conv1, res2a_branch1, ..."""

    title = "Caffe, as published by bottom-up attention"
    background_first = True
    pairs = True
    _PLAIN = {
        "rpn_conv": "rpn_conv/3x3",
        "rpn_objectness": "rpn_cls_score",
        "rpn_deltas": "rpn_bbox_pred",
        "object_score": "cls_score",
        "object_embedding": "cls_embedding",
        "attribute_hidden": "fc_attr",
        "attribute_score": "attr_score",
    }
    _BRANCHES = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    def _layer(self, part: str) -> str:
        """What follows res, bn and scale in the names of a convolution's three layers."""
        stage, block, branch = part.split(".")
        letter = chr(ord("a") + int(block)) if int(block) < 26 else ""
        names = [f"{stage[3:]}{block}_{self._BRANCHES[branch]}" for block in (letter, f"b{block}")]
        return next((name for name in names if f"res{name}:0" in self.arrays), names[0])

    def holds(self, part: str) -> bool:
        return f"res{self._layer(part)}:0" in self.arrays

    def convolution(self, part: str, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
        stem = part == "stem"
        name = "_conv1" if stem else self._layer(part)
        weight = self.arrays.take("conv1:0" if stem else f"res{name}:0", shape)
        channels = (len(weight),)
        factor = self.arrays.take(f"bn{name}:2", (1,))[0]  # how many batches the two sums are of
        mean, variance = (
            self.arrays.take(f"bn{name}:{number}", channels) * (1 / factor if factor else 0) for number in (0, 1)
        )
        gamma, beta = (self.arrays.take(f"scale{name}:{number}", channels) for number in (0, 1))
        return fold(weight, gamma, beta, mean, variance)

    def plain(self, part: str, shape: Shape, bias: bool = True) -> list[np.ndarray]:
        name = self._PLAIN[part]
        weight = self.arrays.take(f"{name}:0", shape)
        return [weight, self.arrays.take(f"{name}:1", (len(weight),))] if bias else [weight]

    def anchor_order(self) -> np.ndarray:
        return np.arange(_ANCHORS)


class Detectron2:
    """`faster_rcnn_from_caffe_attr*.pkl`, and `unc-nlp/frcnn-vg-finetuned` on the Hub, of the same names."""

    title = "detectron2, as converted by py-bottom-up-attention and on the Hub"
    background_first = False
    pairs = False
    _RPN, _ROI = "proposal_generator.rpn_head", "roi_heads.box_predictor"
    _PLAIN = {
        "rpn_conv": f"{_RPN}.conv",
        "rpn_objectness": f"{_RPN}.objectness_logits",
        "rpn_deltas": f"{_RPN}.anchor_deltas",
        "object_score": f"{_ROI}.cls_score",
        "object_embedding": f"{_ROI}.cls_embedding",
        "attribute_hidden": f"{_ROI}.fc_attr",
        "attribute_score": f"{_ROI}.attr_score",
    }
    _CELL_ANCHORS = "proposal_generator.anchor_generator.cell_anchors.0"

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    @staticmethod
    def _layer(part: str) -> str:
        if part == "stem":
            return "backbone.stem.conv1"
        return f"roi_heads.{part}" if part.startswith("res5.") else f"backbone.{part}"

    def holds(self, part: str) -> bool:
        return f"{self._layer(part)}.weight" in self.arrays

    def convolution(self, part: str, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
        name = self._layer(part)
        weight = self.arrays.take(f"{name}.weight", shape)
        norm = ("weight", "bias", "running_mean", "running_var")
        return fold(weight, *(self.arrays.take(f"{name}.norm.{each}", (len(weight),)) for each in norm))

    def plain(self, part: str, shape: Shape, bias: bool = True) -> list[np.ndarray]:
        name = self._PLAIN[part]
        weight = self.arrays.take(f"{name}.weight", shape)
        return [weight, self.arrays.take(f"{name}.bias", (len(weight),))] if bias else [weight]

    def anchor_order(self) -> np.ndarray:
        config = DetectorConfig()
        if (
            self._CELL_ANCHORS not in self.arrays
        ):  # detectron2 goes through the sizes, and for each through the ratios
            scales, ratios = len(config.anchor_scales), len(config.anchor_ratios)
            return np.arange(_ANCHORS).reshape(scales, ratios).T.flatten()
        boxes = self.arrays.take(self._CELL_ANCHORS, (_ANCHORS, 4))
        sides = boxes[:, 2:] - boxes[:, :2]
        wanted = [
            (scale * STRIDE / np.sqrt(ratio), scale * STRIDE * np.sqrt(ratio))
            for ratio in config.anchor_ratios
            for scale in config.anchor_scales
        ]
        # Caffe's rounded anchors are up to 6 % off the exact sides, the next size or ratio is 41 %.
        with np.errstate(divide="ignore", invalid="ignore"):
            near = np.abs(np.log(sides[None] / np.array(wanted)[:, None])).max(-1) < 0.15
        if not (near.sum(0) == 1).all() or not (near.sum(1) == 1).all():
            raise InputError(
                f"{self.arrays.where}: {self._CELL_ANCHORS} are not the anchors of the published model, sides of 64 "
                "to 512 pixels in the ratios 1:2, 1:1 and 2:1"
            )
        return near.argmax(1)


class Milvlg(Detectron2):
    """`bua-caffe-frcn-*.pth` of bottom-up-attention.pytorch: detectron2's names, Caffe's orders."""

    title = "bottom-up-attention.pytorch (MILVLG), in Caffe's mode"
    background_first = True
    pairs = True
    _PLAIN = {
        **Detectron2._PLAIN,
        "object_embedding": "roi_heads.box_predictor.cls_embed",
        "attribute_hidden": "roi_heads.box_predictor.attr_linear1",
        "attribute_score": "roi_heads.box_predictor.attr_linear2",
    }

    def anchor_order(self) -> np.ndarray:
        return np.arange(_ANCHORS)


def fold(
    weight: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A convolution without bias and the normalisation after it as one convolution: its weight and bias."""
    with np.errstate(invalid="ignore"):  # a negative variance: refused as not finite when it is written
        scale = gamma / np.sqrt(variance + _EPSILON)
    return weight * scale[:, None, None, None], beta - mean * scale


def assemble(layout: Layout) -> tuple[DetectorConfig, dict[str, Tensor]]:
    """Sizes and weights of the network that a file holds.

    Raises:
        InputError: an array is missing or has another shape than it should; the first one is named.
    """
    state: dict[str, np.ndarray] = {}

    def convolution(part: str, shape: Shape) -> int:
        state[f"{part}.weight"], state[f"{part}.bias"] = layout.convolution(part, shape)
        return len(state[f"{part}.weight"])

    outputs = stem = convolution("stem", (None, 3, 7, 7))
    blocks, widths, expansion = [], [], 0
    for stage in ("res2", "res3", "res4", "res5"):
        number = 0
        while number == 0 or layout.holds(f"{stage}.{number}.conv1"):
            inputs, part = outputs, f"{stage}.{number}"
            width = convolution(f"{part}.conv1", (widths[-1] if number else None, inputs, 1, 1))
            convolution(f"{part}.conv2", (width, width, 3, 3))
            outputs = convolution(f"{part}.conv3", (width * expansion or None, width, 1, 1))
            expansion = expansion or outputs // width
            if number == 0:
                widths.append(width)
                convolution(f"{part}.shortcut", (outputs, inputs, 1, 1))
            number += 1
        blocks.append(number)

    plain = layout.plain
    channels = widths[2] * expansion
    state["rpn_conv.weight"], state["rpn_conv.bias"] = plain("rpn_conv", (None, channels, 3, 3))
    rpn_width = len(state["rpn_conv.weight"])
    order = layout.anchor_order()
    for name, array in zip(
        ("weight", "bias"), plain("rpn_objectness", (_ANCHORS * (1 + layout.pairs), rpn_width, 1, 1)), strict=True
    ):
        objectness = array[_ANCHORS:] - array[:_ANCHORS] if layout.pairs else array
        state[f"rpn_objectness.{name}"] = objectness[order]
    for name, array in zip(("weight", "bias"), plain("rpn_deltas", (4 * _ANCHORS, rpn_width, 1, 1)), strict=True):
        state[f"rpn_deltas.{name}"] = array.reshape(_ANCHORS, 4, *array.shape[1:])[order].reshape(array.shape)

    def first(array: np.ndarray) -> np.ndarray:
        return array if layout.background_first else np.roll(array, 1, axis=0)

    score = plain("object_score", (None, outputs))
    (embedding,) = plain("object_embedding", (len(score[0]), None), bias=False)
    hidden = plain("attribute_hidden", (None, outputs + embedding.shape[1]))
    attribute = plain("attribute_score", (None, len(hidden[0])))
    state["object_embedding.weight"] = first(embedding)
    for part, arrays in (("object_score", map(first, score)), ("attribute_hidden", hidden)):
        state[f"{part}.weight"], state[f"{part}.bias"] = arrays
    state["attribute_score.weight"], state["attribute_score.bias"] = map(first, attribute)

    config = DetectorConfig(
        stem_width=stem,
        blocks=tuple(blocks),
        widths=tuple(widths),
        expansion=expansion,
        rpn_width=rpn_width,
        objects=len(embedding) - 1,
        attributes=len(attribute[0]) - 1,
        embedding_width=embedding.shape[1],
        attribute_width=len(hidden[0]),
    )
    return config, {name: torch.from_numpy(array.astype(np.float32)) for name, array in state.items()}
