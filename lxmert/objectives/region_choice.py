"""Choosing the region that a sentence means (RefCOCO and its like, Visual7W pointing)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lxmert.batch import Batch
from lxmert.config import LxmertConfig
from lxmert.files import InputError
from lxmert.heads import ChoiceHead
from lxmert.model import Lxmert
from lxmert.objectives.base import Objective, ObjectiveMetrics, Result
from lxmert.objectives.metrics import GroupedMean, group_codes
from lxmert.outputs import LxmertModelOutput

HIT = 0.5  # a region of which more overlaps is the right one


class RegionChoice(Objective):
    """Binary cross-entropy of each region's score with how much it overlaps what is meant: VOLTA's loss.

    The soft label is the region's intersection over union with the right box, not cut off; a row's loss is the sum
    over its regions (VOLTA: the mean times their number), the loss the mean over rows. Padding does not count.
    Where boxes are given to choose among, the same loss is over their regions alone, with the label 1 of the right
    one and 0 of the others. (VOLTA labels these by their overlap with the right one, where it is 0.5 or more.)

    Reads the targets `box` (R, 4): x, y, width, height of what is meant, in pixels; `image_size` (I, 2), the width
    and height that these are of; and, where there is a choice, `others` (R, 4 k), the wrong boxes. A given box is
    the region that overlaps it most.

    Args:
        config: sizes.
    """

    outputs_needed = frozenset({"vision"})
    head_name = "choice_head"
    of_images = ("image_size",)

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.head = ChoiceHead(config)

    def prepare_batch(self, batch: Batch, seed: int) -> Batch:
        """Nothing to hide.

        Raises:
            InputError: the batch is not of sentences that mean a region.
        """
        if "image_size" not in batch.targets:
            raise InputError(
                "region_choice needs the target image_size, and box to learn from; this data module gives none. "
                "Use data=refcoco or one of its kind, or drop region_choice from objective=[...]"
            )
        return batch

    def forward(self, output: LxmertModelOutput, batch: Batch, model: Lxmert) -> Result:
        """Loss and predictions.

        These are `scores` (R, N), -inf of what cannot be chosen; `region` (R,) the best, and `box` (R, 4) where it
        is, as in `Batch.region_boxes`. Where it is known what is meant, a loss, and what scores are measured by,
        `ious` and `labels` (R, N) as of `Goals`.
        """
        scores = self.head(cast(Tensor, output.vision_output)).float()
        goal = goals(batch) if "box" in batch.targets else None
        choice = batch.region_mask[batch.row_image] if goal is None else goal.choice
        shown = scores.detach().masked_fill(~choice, -torch.inf)
        region = shown.argmax(1)
        boxes = batch.region_boxes[batch.row_image]
        chosen = boxes.gather(1, region[:, None, None].expand(-1, 1, 4)).squeeze(1)
        result = Result({}, {"scores": shown, "region": region, "box": chosen})
        if goal is not None:
            losses = F.binary_cross_entropy_with_logits(scores, goal.labels, reduction="none")
            result.losses["region_choice"] = (losses * choice).sum() / len(scores)
            result.predictions |= {"ious": goal.ious, "labels": goal.labels}
        return result

    def make_metrics(self, label_names: Mapping[str, Sequence[str]]) -> ObjectiveMetrics:
        """Accuracy, overlap, what is within reach and what chance gives; also by split."""
        groups = {"split": label_names["split"]} if label_names.get("split") else {}
        return RegionChoiceMetrics(groups)


class Goals(NamedTuple):
    """What each region of each row is to its sentence, (R, N) each.

    Args:
        choice: bool, whether it can be chosen.
        labels: what its score is trained towards, 0 to 1.
        ious: its intersection over union with what is meant, 0 in padding.
    """

    choice: Tensor
    labels: Tensor
    ious: Tensor


def goals(batch: Batch) -> Goals:
    """The goals of a batch with `box`, `image_size` and perhaps `others` among its targets."""
    sides = batch.targets["image_size"][batch.row_image].repeat(1, 2)[:, None]  # width, height, width, height
    regions = batch.region_boxes[batch.row_image].float() * sides
    real = batch.region_mask[batch.row_image]
    given = torch.cat([batch.targets["box"], *([batch.targets["others"]] if "others" in batch.targets else [])], 1)
    given = given.unflatten(1, (-1, 4))
    given = torch.cat([given[..., :2], given[..., :2] + given[..., 2:]], 2)  # (R, k + 1, 4) x1 y1 x2 y2
    overlaps = overlap(regions, given).masked_fill(~real[..., None], 0)
    ious = overlaps[..., 0]
    if given.shape[1] == 1:
        return Goals(real, ious, ious)
    places = torch.arange(real.shape[1], device=real.device)
    chosen = overlaps.argmax(1)[..., None] == places  # (R, k + 1, N): the region of each given box
    return Goals(chosen.any(1), chosen[:, 0].float(), ious)


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """(..., N, 4) and (..., K, 4), x1 y1 x2 y2 in pixels -> (..., N, K) intersections over unions.

    Sides are counted a pixel longer than their ends are apart, as VOLTA does it.
    """
    boxes, others = boxes[..., :, None, :], others[..., None, :, :]
    width, height = (
        torch.minimum(boxes[..., side + 2], others[..., side + 2])
        - torch.maximum(boxes[..., side], others[..., side])
        + 1
        for side in (0, 1)
    )
    both = width.clamp(min=0) * height.clamp(min=0)
    return both / (_area(boxes) + _area(others) - both)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0] + 1) * (boxes[..., 3] - boxes[..., 1] + 1)


class RegionChoiceMetrics(ObjectiveMetrics):
    """Over rows, each also by group.

    `accuracy`: the chosen region overlaps what is meant by more than `HIT`, or is the right one of those given;
    `iou` of the chosen one; `reachable`: there is such a region; `chance`: the share of regions that are such.
    """

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.groups = list(groups)
        self.accuracy = GroupedMean("accuracy", groups)
        self.iou = GroupedMean("iou", groups)
        self.reachable = GroupedMean("reachable", groups)
        self.chance = GroupedMean("chance", groups)

    def update(self, result: Result, batch: Batch) -> None:
        """Add a batch."""
        found = result.predictions
        region, ious = found["region"][:, None], found["ious"]
        hits, choice = found["labels"] > HIT, found["scores"] > -torch.inf
        # Of a given box that no region is near the nearest one stands in: it is not the box.
        near = (hits & (ious > HIT)).any(1)
        codes = group_codes(batch, self.groups, found["region"])
        for metric, values in (
            (self.accuracy, hits.gather(1, region).squeeze(1)),
            (self.iou, ious.gather(1, region).squeeze(1)),
            (self.reachable, near),
            (self.chance, (hits & choice).sum(1) / choice.sum(1)),
        ):
            metric.update(values, torch.ones_like(near), codes)
