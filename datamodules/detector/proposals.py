"""Where objects may be: anchors, the boxes that the network makes of them, non-maximum suppression.

Boxes are x1 y1 x2 y2 in pixels, both ends within: a box is x2 - x1 + `pixel` wide, `pixel` being 1. (Ports of the
original take boxes for lines between pixels: 0.) All is counted in float32, as in the
original; thresholds are compared in double precision, as its compiled code does.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from datamodules.detector.config import STRIDE, DetectorConfig


def base_anchors(config: DetectorConfig) -> np.ndarray:
    """(A, 4) float32: the anchors of the map's first cell, the ratio changing slowest.

    Each is a square cell stretched to the ratio, its sides rounded, then made larger around the centre.
    """
    centre = (STRIDE - 1) / 2
    found = []
    for ratio in config.anchor_ratios:
        width = np.round(np.sqrt(STRIDE * STRIDE / ratio))
        sides = np.array([width, np.round(width * ratio)])
        for scale in config.anchor_scales:
            half = (sides * scale - 1) / 2
            found.append(np.concatenate([centre - half, centre + half]))
    return np.array(found, np.float32)


def anchors(config: DetectorConfig, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """(height width A, 4) float32: the anchors of a map, in the order y, x, anchor."""
    y = torch.arange(height, device=device, dtype=torch.float32)[:, None].expand(height, width)
    x = torch.arange(width, device=device, dtype=torch.float32)[None, :].expand(height, width)
    shifts = torch.stack([x, y, x, y], -1) * STRIDE
    return (shifts[:, :, None] + torch.from_numpy(base_anchors(config)).to(device)).reshape(-1, 4)


def decode(boxes: Tensor, deltas: Tensor, pixel: int = 1) -> Tensor:
    """Boxes (n, 4) moved by shares of their sides, dx and dy, and stretched by exp(dw), exp(dh): (n, 4)."""
    sides = boxes[:, 2:] - boxes[:, :2] + pixel
    centres = boxes[:, :2] + 0.5 * sides
    centres = deltas[:, :2] * sides + centres
    halves = 0.5 * (deltas[:, 2:].exp() * sides)
    return torch.cat([centres - halves, centres + halves], 1)


def propose(
    logits: Tensor,
    deltas: Tensor,
    map_size: tuple[int, int],
    size: tuple[int, int],
    scale: float,
    config: DetectorConfig,
    pixel: int = 1,
) -> Tensor:
    """The boxes that may hold an object.

    Args:
        logits: (h w A,) of each anchor, in the order of `anchors`.
        deltas: (h w A, 4) of each anchor.
        map_size: h, w.
        size: height and width of the resized picture.
        scale: pixels of it a pixel of the original.
        config: thresholds.
        pixel: that a box is wider than its ends are apart.

    Returns:
        (n, 4) in the resized picture, the best first, at most `config.proposals`. None in a picture whose short
        side is less than `config.min_size` pixels.
    """
    boxes = decode(anchors(config, *map_size, logits.device), deltas, pixel)
    limits = torch.tensor([size[1] - pixel, size[0] - pixel] * 2, dtype=torch.float32, device=boxes.device)
    boxes = torch.minimum(boxes.clamp(min=0), limits)
    sides = boxes[:, 2:] - boxes[:, :2] + pixel
    large = (sides >= float(np.float32(config.min_size * scale))).all(1)
    boxes, logits = boxes[large], logits[large]
    best = logits.sort(descending=True, stable=True).indices[: config.proposals_scored]
    boxes = boxes[best]
    kept = suppress(boxes.cpu().numpy(), config.proposal_overlap, config.proposals, pixel)
    return boxes[torch.from_numpy(kept).to(boxes.device)]


def suppress(boxes: np.ndarray, threshold: float, most: int, pixel: int = 1) -> np.ndarray:
    """Greedy non-maximum suppression.

    Args:
        boxes: (n, 4) float32, the best first.
        threshold: intersection over union with a better one that is kept at which a box is not.
        most: stop at so many.
        pixel: as of `propose`.

    Returns:
        Numbers of those kept, int64, in order.
    """
    left = np.arange(len(boxes))
    kept: list[int] = []
    while len(left) and len(kept) < most:
        kept.append(left[0])
        others = left[1:]
        left = others[overlap(boxes[left[0]], boxes[others], pixel) < np.float64(threshold)]
    return np.array(kept, np.int64)


def overlap(box: np.ndarray, boxes: np.ndarray, pixel: int = 1) -> np.ndarray:
    """Intersection over union of boxes (..., 4) with boxes (n, 4): (..., n) float32."""
    box = box[..., None, :]
    sides = np.minimum(box[..., 2:], boxes[:, 2:]) - np.maximum(box[..., :2], boxes[:, :2]) + np.float32(pixel)
    inside = sides.clip(min=0).prod(-1)
    return inside / (_area(box, pixel) + _area(boxes, pixel) - inside)


def _area(boxes: np.ndarray, pixel: int) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2] + np.float32(pixel)).prod(-1)
