"""The detector as it is used: a picture in, its regions out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.detector.config import BoxRule
from datamodules.detector.files import DetectorFile, read_detector
from datamodules.detector.network import without_memory
from datamodules.detector.proposals import propose
from datamodules.detector.resizing import Resized, resize
from datamodules.detector.selection import confidences, select
from datamodules.detector.winograd import WinogradConv
from lxmert.files import InputError, shown

_WORTH_IT = 256  # channels of res5 from which Winograd's convolution is faster than the direct one


@dataclass
class Detections:
    """The n regions of one picture.

    Attributes:
        size: width and height of the picture in pixels.
        features: (n, F) float32, 0 or above.
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels of the picture, both ends within.
        labels: object_ids (n,) int64 and object_conf (n,) float32: the best class, background left out, and its
            probability; attribute_ids and attribute_conf likewise.
    """

    size: tuple[int, int]
    features: np.ndarray
    boxes: np.ndarray
    labels: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.boxes)


class Detector:
    """Finds the regions of pictures, one picture at a time: in a batch, padding would change the features.

    Args:
        file: name, sizes and weights.
        device: where the network runs.
    """

    pixel = 1  # that a box is wider than its ends are apart; of the original's rule for boxes

    def __init__(self, file: DetectorFile, device: torch.device | str = "cpu") -> None:
        self.name, self.config, self.sha256 = file.name, file.config, file.sha256
        self.object_names, self.attribute_names = file.object_names, file.attribute_names
        self.device = torch.device(device)
        network = without_memory(file.config)
        network.load_state_dict({key: tensor.float() for key, tensor in file.state.items()}, assign=True)
        network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.requires_grad_(False).eval()
        if self.device.type == "cpu" and file.config.widths[-1] >= _WORTH_IT:
            for block in network.res5:
                block.conv2 = WinogradConv(block.conv2, file.config.roi_size)

    @classmethod
    def open(cls, path: Path | str, device: torch.device | str = "cpu") -> Detector:
        """The detector of a file that `write_detector` wrote; errors as of `read_detector`."""
        return cls(read_detector(path), device)

    @property
    def feature_dim(self) -> int:
        """F, the numbers that describe a region."""
        return self.config.feature_dim

    def told(self, boxes: BoxRule | str | None = None) -> str:
        """What stores say made their regions: the name, the weights' hash, how many boxes.

        Args:
            boxes: the rule, or "given"; None: as the detector's configuration says.
        """
        return f"{self.name} [weights {self.sha256[:12]}, boxes {boxes or self.config.box_rule}]"

    def detect(
        self, picture: np.ndarray, rule: BoxRule | None = None, boxes: np.ndarray | None = None
    ) -> Detections:
        """The regions of a picture.

        Args:
            picture: (h, w, 3) uint8, blue, green, red.
            rule: how many; None: as the detector's configuration says.
            boxes: (n, 4) in pixels of the picture: describe these, all of them in their order, and look for none.

        Returns:
            One region or more. A picture whose short side is below `config.min_size` pixels has no proposal of
            that size, and where no proposal is left the whole picture is its one region.

        Raises:
            InputError: no such array, a picture that is too long and thin, a box that is not in it.
        """
        height, width = _checked_picture(picture)
        image, scale = self.prepare(picture)
        with torch.inference_mode(), _exact():
            tensor = torch.from_numpy(image)[None].to(self.device).to(memory_format=torch.channels_last)
            feature_map = self.network.backbone(tensor)
            if boxes is None:
                regions = self._propose(feature_map, image.shape[1:], scale)
            else:
                given = _checked_boxes(boxes, width, height)
                regions = torch.from_numpy((given * scale).astype(np.float32)).to(self.device)
            features = self.network.describe(feature_map, regions)
            scores, attribute_scores = self.network.heads(features)
            objects = scores.softmax(1)[:, 1:].cpu().numpy()
            attributes = attribute_scores.softmax(1)[:, 1:].cpu().numpy()
            found = given.astype(np.float32) if boxes is not None else regions.cpu().numpy() / np.float32(scale)
            kept = np.arange(len(found))
            if boxes is None:
                sure = confidences(found, objects, self.config.class_overlap, self.pixel)
                kept = select(sure, rule or self.config.box_rule, self.config.confidence)
            features = features[torch.from_numpy(kept).to(self.device)].cpu()
        objects, attributes = objects[kept], attributes[kept]
        labels = {
            "object_ids": objects.argmax(1),
            "object_conf": objects.max(1),
            "attribute_ids": attributes.argmax(1),
            "attribute_conf": attributes.max(1),
        }
        return Detections((width, height), features.numpy(), found[kept], labels)

    def prepare(self, picture: np.ndarray) -> Resized:
        """The picture (h, w, 3) as the network takes it, and its scale."""
        return resize(picture, self.config)

    def _propose(self, feature_map: Tensor, size: tuple[int, ...], scale: float) -> Tensor:
        logits, deltas = self.network.rpn(feature_map)
        height, width = size
        map_size = feature_map.shape[2], feature_map.shape[3]
        found = propose(logits, deltas, map_size, (height, width), scale, self.config, self.pixel)
        return found if len(found) else torch.tensor([[0.0, 0.0, width - 1, height - 1]], device=self.device)


@contextmanager
def _exact() -> Iterator[None]:
    """On a GPU: float32 as it is, not cut to TF32's ten bits, and the same numbers every time."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def _checked_picture(picture: np.ndarray) -> tuple[int, int]:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise InputError(
            f"a picture is an array of {picture.dtype}, {picture.shape}; expected uint8, (height, width, 3), in "
            "the order blue, green, red"
        )
    return picture.shape[0], picture.shape[1]


def _checked_boxes(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise InputError(f"boxes are an array {boxes.shape}; expected (n, 4), one box or more")
    inside = (boxes[:, :2] >= 0) & (boxes[:, 2:] <= (width, height)) & (boxes[:, :2] <= boxes[:, 2:])
    for number in np.flatnonzero(~inside.all(1)):
        raise InputError(
            f"box {number} is {shown(boxes[number].tolist())}; expected x1 y1 x2 y2 in pixels of a picture of "
            f"{width} x {height}"
        )
    return boxes
