"""Where the layouts of the published files keep what the network needs, and in which order.

All hold the same network: `assemble` asks a layout for its parts and works out the sizes. Parts are called as in
`FasterRCNN`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.detector.config import STRIDE, DetectorConfig
from datamodules.detector.weights.arrays import Arrays
from lxmert.files import InputError

_EPSILON = 1e-5  # of batch normalisation, in all of them
_ANCHORS = len(DetectorConfig().anchor_scales) * len(DetectorConfig().anchor_ratios)
Shape = tuple[int | None, ...]


class Layout(ABC):
    """What the layouts have in common: Caffe's orders.

    Args:
        arrays: what the file holds.

    Attributes:
        title: for messages and the report.
        background_first: the class 0 is background and the attribute 0 none; else they are the last ones.
        pairs: an anchor has a logit for background (the first A) and one for an object; else their difference.
    """

    title: ClassVar[str]
    background_first: ClassVar[bool] = True
    pairs: ClassVar[bool] = True
    _layers: ClassVar[Mapping[str, str]]  # of what follows the backbone, and of the stem
    _ends: ClassVar[tuple[str, str]]  # of the names of a layer's weight and bias

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    def holds(self, part: str) -> bool:
        """Whether there is such a convolution of the backbone or res5."""
        return f"{self._convolution(part)}{self._ends[0]}" in self.arrays

    def convolution(self, part: str, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias of a convolution of the backbone or res5, its normalisation included."""
        weight = self.arrays.take(f"{self._convolution(part)}{self._ends[0]}", shape)
        return fold(weight, *self._normalisation(part, (len(weight),)))

    def plain(self, part: str, shape: Shape, bias: bool = True) -> list[np.ndarray]:
        """Weight, and bias where there is one, of a layer of the proposals or heads."""
        name = self._layers[part]
        weight = self.arrays.take(f"{name}{self._ends[0]}", shape)
        return [weight, self.arrays.take(f"{name}{self._ends[1]}", (len(weight),))] if bias else [weight]

    def anchor_order(self) -> np.ndarray:
        """(A,) which of the file's anchors is our first, second, ..."""
        return np.arange(_ANCHORS)

    @abstractmethod
    def _convolution(self, part: str) -> str:
        """What a convolution's entries are called."""

    @abstractmethod
    def _normalisation(self, part: str, channels: Shape) -> tuple[np.ndarray, ...]:
        """Gamma, beta, mean and variance."""


class Caffe(Layout):
    """`resnet101_faster_rcnn_final*.caffemodel`: layers conv1, bn_conv1, scale_conv1, res2a_branch1, ..."""

    title = "Caffe, as published by bottom-up attention"
    _ends = (":0", ":1")
    _layers: ClassVar = {
        "rpn_conv": "rpn_conv/3x3",
        "rpn_objectness": "rpn_cls_score",
        "rpn_deltas": "rpn_bbox_pred",
        "object_score": "cls_score",
        "object_embedding": "cls_embedding",
        "attribute_hidden": "fc_attr",
        "attribute_score": "attr_score",
    }
    _branches: ClassVar = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}

    def _convolution(self, part: str) -> str:
        return "conv1" if part == "stem" else f"res{self._block(part)}"

    def _block(self, part: str) -> str:
        """What follows res, bn and scale in the names of a convolution's three layers."""
        stage, block, branch = part.split(".")
        letter = "abcdefghijklmnopqrstuvwxyz"[int(block) : int(block) + 1]
        names = [f"{stage[3:]}{each}_{self._branches[branch]}" for each in (letter, f"b{block}")]
        return next((name for name in names if f"res{name}:0" in self.arrays), names[0])

    def _normalisation(self, part: str, channels: Shape) -> tuple[np.ndarray, ...]:
        name = "_conv1" if part == "stem" else self._block(part)
        gamma, beta = (self.arrays.take(f"scale{name}:{number}", channels) for number in (0, 1))
        sums = [self.arrays.take(f"bn{name}:{number}", channels) for number in (0, 1)]
        batches = self.arrays.take(f"bn{name}:2", (1,))[0]  # that the sums of means and variances are of
        mean, variance = (each / batches if batches else np.zeros_like(each) for each in sums)
        return gamma, beta, mean, variance


class Detectron2(Layout):
    """`faster_rcnn_from_caffe_attr*.pkl`, and `unc-nlp/frcnn-vg-finetuned` on the Hub, of the same names."""

    title = "detectron2, as converted by py-bottom-up-attention and on the Hub"
    background_first = False
    pairs = False
    _ends = (".weight", ".bias")
    _layers: ClassVar = {
        "rpn_conv": "proposal_generator.rpn_head.conv",
        "rpn_objectness": "proposal_generator.rpn_head.objectness_logits",
        "rpn_deltas": "proposal_generator.rpn_head.anchor_deltas",
        "object_score": "roi_heads.box_predictor.cls_score",
        "object_embedding": "roi_heads.box_predictor.cls_embedding",
        "attribute_hidden": "roi_heads.box_predictor.fc_attr",
        "attribute_score": "roi_heads.box_predictor.attr_score",
    }
    _cell_anchors = "proposal_generator.anchor_generator.cell_anchors.0"

    def _convolution(self, part: str) -> str:
        if part == "stem":
            return "backbone.stem.conv1"
        return f"roi_heads.{part}" if part.startswith("res5.") else f"backbone.{part}"

    def _normalisation(self, part: str, channels: Shape) -> tuple[np.ndarray, ...]:
        names = ("weight", "bias", "running_mean", "running_var")
        return tuple(self.arrays.take(f"{self._convolution(part)}.norm.{name}", channels) for name in names)

    def anchor_order(self) -> np.ndarray:
        """By the anchors in the file; without them as detectron2 has it: the ratios of the first size, ..."""
        config = DetectorConfig()
        if self._cell_anchors not in self.arrays:
            return np.arange(_ANCHORS).reshape(len(config.anchor_scales), len(config.anchor_ratios)).T.flatten()
        boxes = self.arrays.take(self._cell_anchors, (_ANCHORS, 4))
        sides = boxes[:, 2:] - boxes[:, :2]
        wanted = [
            (scale * STRIDE / np.sqrt(ratio), scale * STRIDE * np.sqrt(ratio))
            for ratio in config.anchor_ratios
            for scale in config.anchor_scales
        ]
        # Caffe's rounded anchors are up to 6 % off the exact sides; the next ratio is 41 % away.
        with np.errstate(divide="ignore", invalid="ignore"):
            near = np.abs(np.log(sides[None] / np.array(wanted)[:, None])).max(-1) < 0.15
        if not (near.sum(0) == 1).all() or not (near.sum(1) == 1).all():
            raise InputError(
                f"{self.arrays.where}: {self._cell_anchors} are not the anchors of the published model, sides of "
                "64 to 512 pixels in the ratios 1:2, 1:1 and 2:1"
            )
        return near.argmax(1)


class Milvlg(Detectron2):
    """`bua-caffe-frcn-*.pth` of bottom-up-attention.pytorch: detectron2's names, Caffe's orders."""

    title = "bottom-up-attention.pytorch (MILVLG), in Caffe's mode"
    background_first = True
    pairs = True
    _layers: ClassVar = {
        **Detectron2._layers,
        "object_embedding": "roi_heads.box_predictor.cls_embed",
        "attribute_hidden": "roi_heads.box_predictor.attr_linear1",
        "attribute_score": "roi_heads.box_predictor.attr_linear2",
    }

    def anchor_order(self) -> np.ndarray:
        """Caffe's."""
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
    blocks: list[int] = []
    widths: list[int] = []
    expansion = 0
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
