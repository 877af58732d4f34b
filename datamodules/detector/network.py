"""The network: Faster R-CNN on a ResNet of four stages ("C4"), with an attribute head, for one picture at a time.

As `resnet101_faster_rcnn_final` of bottom-up attention (Anderson et al., CVPR 2018) runs in Caffe. Batch
normalisation is only ever used with its final statistics there, and is part of the convolutions here. The
regression of final boxes is left out: features are of the proposals.

Shapes: H, W a resized picture's sides; h, w the feature map's, of `STRIDE` pixels a cell; A anchors a cell; n
regions; F = `config.feature_dim`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from datamodules.detector.config import STRIDE, DetectorConfig
from datamodules.detector.pooling import RegionPool

AT_ONCE = 25  # regions in res5: 40 MB a tensor at the published size


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 with a shortcut around; Caffe's kind, whose first convolution has the stride."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, stride)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv3 = nn.Conv2d(width, outputs, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs or stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h / stride, w / stride)."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        x = F.relu(self.conv1(x), inplace=True)
        x = F.relu(self.conv2(x), inplace=True)
        return F.relu(self.conv3(x).add_(shortcut), inplace=True)


class FasterRCNN(nn.Module):
    """Picture -> feature map -> proposals, and regions of the map -> features -> object and attribute.

    Proposals are made of what `rpn` says by `proposals.py`; `Detector` puts the parts together. All parts can be
    trained: `describe` passes gradients to the map.

    Args:
        config: sizes.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        outputs = [width * config.expansion for width in config.widths]
        self.stem = nn.Conv2d(3, config.stem_width, 7, stride=2, padding=3)
        self.res2 = self._stage(0, config.stem_width)
        self.res3 = self._stage(1, outputs[0], stride=2)
        self.res4 = self._stage(2, outputs[1], stride=2)
        self.res5 = self._stage(3, outputs[2], dilation=config.res5_dilation)
        self.rpn_conv = nn.Conv2d(outputs[2], config.rpn_width, 3, padding=1)
        self.rpn_objectness = nn.Conv2d(config.rpn_width, config.anchors, 1)
        self.rpn_deltas = nn.Conv2d(config.rpn_width, 4 * config.anchors, 1)
        self.object_score = nn.Linear(config.feature_dim, config.objects + 1)
        self.object_embedding = nn.Embedding(config.objects + 1, config.embedding_width)
        self.attribute_hidden = nn.Linear(config.feature_dim + config.embedding_width, config.attribute_width)
        self.attribute_score = nn.Linear(config.attribute_width, config.attributes + 1)

    def _stage(self, number: int, inputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
        width = self.config.widths[number]
        outputs = width * self.config.expansion
        first = Bottleneck(inputs, width, outputs, stride, dilation)
        # Caffe's first block of a stage has a shortcut of its own even where the sizes would not need it.
        first.shortcut = first.shortcut or nn.Conv2d(inputs, outputs, 1, stride)
        others = range(self.config.blocks[number] - 1)
        return nn.Sequential(first, *(Bottleneck(outputs, width, outputs, 1, dilation) for _ in others))

    def backbone(self, image: Tensor) -> Tensor:
        """The feature map of a resized picture without its mean, BGR: (1, 3, H, W) -> (1, C, h, w)."""
        x = F.relu(self.stem(image), inplace=True)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return self.res4(self.res3(self.res2(x)))

    def rpn(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """What each anchor says, in the order y, x, anchor, for a map (1, C, h, w).

        Returns:
            (h w A) logits of being an object, whose sigmoid is Caffe's softmax over background and foreground;
            (h w A, 4) dx dy dw dh to the object's box.
        """
        x = F.relu(self.rpn_conv(feature_map), inplace=True)
        logits = self.rpn_objectness(x).permute(0, 2, 3, 1)
        deltas = self.rpn_deltas(x).permute(0, 2, 3, 1)
        return logits.reshape(-1), deltas.reshape(-1, 4)

    def describe(self, feature_map: Tensor, boxes: Tensor) -> Tensor:
        """The features (n, F) of boxes (n, 4), x1 y1 x2 y2 in the resized picture."""
        pool = RegionPool(feature_map, self.config.roi_size, STRIDE)
        return torch.cat([self.features(pool(some)) for some in boxes.split(AT_ONCE)])

    def features(self, pooled: Tensor) -> Tensor:
        """Pooled regions (n, C, roi_size, roi_size) -> features (n, F), 0 or above."""
        return self.res5(pooled).mean((2, 3))

    def heads(self, features: Tensor, objects: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What regions are, from their features (n, F).

        Args:
            features: of the regions.
            objects: (n,) classes that the attribute head is told, 0 background; None: the best ones.

        Returns:
            (n, objects + 1) logits, the first background; (n, attributes + 1) logits, the first none.
        """
        scores = self.object_score(features)
        objects = scores.argmax(1) if objects is None else objects
        told = torch.cat([features, self.object_embedding(objects)], 1)
        return scores, self.attribute_score(F.relu(self.attribute_hidden(told)))


def without_memory(config: DetectorConfig) -> FasterRCNN:
    """A network of which only the shapes exist: weights are assigned to it."""
    with torch.device("meta"), _Uninitialized():
        return FasterRCNN(config)


class _Uninitialized(TorchFunctionMode):
    """Modules made in it get no initial weights; to draw those without memory, torch would load its compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
