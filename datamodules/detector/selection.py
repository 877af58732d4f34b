"""Which of the proposals are the regions of a picture."""

from __future__ import annotations

import numpy as np

from datamodules.detector.config import BoxRule
from datamodules.detector.proposals import overlap


def confidences(boxes: np.ndarray, probabilities: np.ndarray, threshold: float, pixel: int = 1) -> np.ndarray:
    """How sure the detector is of each region: the best probability of a class for which the region is kept.

    For each class alone, the regions are suppressed in the order of its probability, as `proposals.suppress` does;
    here all classes take a step together.

    Args:
        boxes: (n, 4) float32, in pixels of the original picture.
        probabilities: (n, C) float32 of the classes, background left out.
        threshold: intersection over union at which the less probable region is suppressed.
        pixel: that a box is wider than its ends are apart.

    Returns:
        (n,) float32; 0 for a region that no class keeps.
    """
    number = len(boxes)
    # Which regions each one suppresses, as bits.
    rivals = np.packbits(overlap(boxes, boxes, pixel) >= np.float64(threshold), axis=1, bitorder="little")
    suppressed = np.zeros((probabilities.shape[1], rivals.shape[1]), np.uint8)
    classes = np.arange(len(suppressed))
    best = np.zeros(number, np.float32)
    for regions in np.argsort(-probabilities, axis=0, kind="stable"):  # the first of each class, the second, ...
        free = (suppressed[classes, regions >> 3] >> (regions & 7)) & 1 == 0
        np.maximum.at(best, regions[free], probabilities[regions[free], classes[free]])
        suppressed[free] |= rivals[regions[free]]
    return best


def select(confidence: np.ndarray, rule: BoxRule, threshold: float) -> np.ndarray:
    """The numbers of the regions that are kept.

    In their own order when those of at least `threshold` are as many as the rule wants, else as many of the most
    confident as it wants at least or at most, best first; of equals the first.
    """
    sure = np.flatnonzero(confidence >= threshold)
    if rule.fewest <= len(sure) <= rule.most:
        return sure
    most = rule.fewest if len(sure) < rule.fewest else rule.most
    return np.argsort(-confidence, kind="stable")[:most]
