"""Masked regions: find what hidden regions show and their features (paper section 3.1.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lxmert.batch import Batch
from lxmert.config import LxmertConfig
from lxmert.files import InputError
from lxmert.hash_random import uniform
from lxmert.heads import RegionHead, index_losses
from lxmert.model import Lxmert
from lxmert.objectives.base import Objective, ObjectiveMetrics, Result
from lxmert.objectives.metrics import GroupedMean
from lxmert.outputs import LxmertModelOutput

OUTPUTS = {"object": "obj", "attribute": "attr"}  # of RegionHead, by loss
FEATURE_LOSSES = {"smooth_l1": F.smooth_l1_loss, "l2": F.mse_loss}


class MaskedRegion(Objective):
    """Object and attribute labels, and features, of regions; boxes are never hidden.

    Reads the targets object_ids, attribute_ids (I, N), -1 where unknown, object_conf, attribute_conf (I, N), the
    detector's confidences, and replacement_features (I, F). `prepare_batch` adds, under `masked_region/`: `places`
    (M,), the regions to find as flat places over rows and regions (R * N), and `changes` (I, N), what happens to
    each region: 0 nothing, 1 it becomes zero, 2 another image's. `hide` does it and adds `features` (I, N, F), as
    they were.

    Each loss is a sum over regions / all real regions of all rows / `rate`: about a mean over hidden regions.

    Args:
        config: sizes.
        losses: some of object, attribute, feature.
        label_weight: which regions' labels count: "confidence", all of them, times the detector's confidence, as
            in the released code; "masked", hidden ones alone, as in the paper.
        feature_loss: "smooth_l1" (released code) or "l2" (paper), mean over a feature's F numbers; on hidden
            regions alone.
        rate: share of the regions to hide.
        zeroed: share of those whose features become zero.
        replaced: share of those whose features become another image's; the rest is kept.

    Raises:
        InputError: an unknown choice.
    """

    outputs_needed = frozenset({"vision"})
    head_name = "obj_predict_head"
    lists: ClassVar = {"masked_region/places": -1}
    of_regions = ("object_ids", "object_conf", "attribute_ids", "attribute_conf", "masked_region/changes")
    of_images = ("replacement_features",)

    def __init__(
        self,
        config: LxmertConfig,
        losses: Sequence[str] = ("object", "attribute", "feature"),
        label_weight: str = "confidence",
        feature_loss: str = "smooth_l1",
        rate: float = 0.15,
        zeroed: float = 0.8,
        replaced: float = 0.1,
    ) -> None:
        super().__init__()
        check_choices("losses", losses, ("object", "attribute", "feature"))
        check_choices("label_weight", [label_weight], ("confidence", "masked"))
        check_choices("feature_loss", [feature_loss], tuple(FEATURE_LOSSES))
        if not 0 < rate <= 1 or not 0 <= zeroed <= zeroed + replaced <= 1:
            raise InputError(
                f"objective.masked_region has rate={rate}, zeroed={zeroed}, replaced={replaced}; expected shares, "
                "the last two together at most 1"
            )
        self.labels = [name for name in OUTPUTS if name in losses]
        self.features = "feature" in losses
        self.everywhere = label_weight == "confidence" and bool(self.labels)
        self.feature_loss = FEATURE_LOSSES[feature_loss]
        self.rate, self.zeroed, self.replaced = rate, zeroed, replaced
        self.head = RegionHead(
            replace(
                config,
                visual_obj_loss="object" in losses,
                visual_attr_loss="attribute" in losses,
                visual_feat_loss=self.features,
            )
        )

    def prepare_batch(self, batch: Batch, seed: int) -> Batch:
        """Choose regions.

        Raises:
            InputError: the batch lacks what is needed.
        """
        self._check(batch)
        keys = (cast(Tensor, batch.image_keys).numpy()[:, None], np.arange(batch.region_mask.shape[1]))
        chosen = batch.region_mask & torch.from_numpy(uniform(seed, "regions to find", *keys) < self.rate)
        way = torch.from_numpy(uniform(seed, "ways to hide regions", *keys))
        zeroed = chosen & (way < self.zeroed)
        replaced = chosen & ~zeroed & (way < self.zeroed + self.replaced)
        targets = {
            "masked_region/places": chosen[batch.row_image].flatten().nonzero().squeeze(1),
            "masked_region/changes": zeroed.to(torch.int8) + 2 * replaced.to(torch.int8),
        }
        return replace(batch, targets={**batch.targets, **targets})

    def hide(self, batch: Batch) -> Batch:
        """The batch with features in which those chosen are changed."""
        features, changes = batch.region_features, batch.targets["masked_region/changes"][..., None]
        hidden = features.masked_fill(changes == 1, 0)
        if self.replaced:
            others = batch.targets["replacement_features"].to(features.dtype)
            hidden = torch.where(changes == 2, others[:, None], hidden)
        return replace(
            batch, region_features=hidden, targets={**batch.targets, "masked_region/features": features}
        )

    def forward(self, output: LxmertModelOutput, batch: Batch, model: Lxmert) -> Result:
        """Losses, and per hidden region the best labels and the feature's error."""
        vision, real = cast(Tensor, output.vision_output), batch.row_region_packing
        places, each_image = batch.targets["masked_region/places"], batch.region_mask.shape[1]
        counted, places = places >= 0, places.clamp(min=0)
        number = real.mask.numel() if real.full else real.mask.sum()

        def hidden(padded: Tensor) -> Tensor:
            return padded.flatten(0, 1).index_select(0, places)

        read = real.pack if self.everywhere else hidden
        prepared = self.head.transform(read(vision))  # (T, D) of all real regions, or (M, D) of the hidden ones
        result = Result()
        for name in self.labels:
            scores = self.head.decoder_dict[OUTPUTS[name]](prepared).float()
            labels = read(batch.targets[f"{name}_ids"][batch.row_image])
            losses = index_losses(scores, labels if self.everywhere else labels.where(counted, -1))
            best = scores.detach().argmax(1)
            if self.everywhere:
                losses = losses * read(batch.targets[f"{name}_conf"][batch.row_image])
                best = hidden(real.pad(best))
            result.losses[name] = losses.sum() / number / self.rate
            result.predictions[name] = best
        if self.features:
            prepared = hidden(real.pad(prepared)) if self.everywhere else prepared
            of_images = batch.row_image[places // each_image] * each_image + places % each_image
            wanted = batch.targets["masked_region/features"].flatten(0, 1).index_select(0, of_images)
            found = self.head.decoder_dict["feat"](prepared).float()
            losses = self.feature_loss(found, wanted.float(), reduction="none").mean(1) * counted
            result.losses["feature"] = losses.sum() / number / self.rate
            result.predictions["feature"] = losses.detach()
        return result

    def make_metrics(self, label_names: Mapping[str, Sequence[str]]) -> ObjectiveMetrics:
        """Label accuracies and feature error on hidden regions."""
        return MaskedRegionMetrics()

    def _check(self, batch: Batch) -> None:
        needed = [f"{name}_{what}" for name in self.labels for what in ("ids", "conf")]
        needed += ["replacement_features"] if self.replaced else []
        missing = [name for name in needed if name not in batch.targets]
        if missing or batch.image_keys is None:
            raise InputError(
                f"masked_region needs Batch.image_keys and the targets {', '.join(needed)}; this data module does "
                "not give them. Use data=pretrain, or drop masked_region from objective=[...]"
            )


class MaskedRegionMetrics(ObjectiveMetrics):
    """`object_accuracy` and `attribute_accuracy` where the label is known, and `feature_loss`."""

    def __init__(self) -> None:
        super().__init__()
        self.object = GroupedMean("object_accuracy")
        self.attribute = GroupedMean("attribute_accuracy")
        self.feature = GroupedMean("feature_loss")

    def update(self, result: Result, batch: Batch) -> None:
        """Add a batch."""
        places = batch.targets["masked_region/places"]
        for name, metric in (("object", self.object), ("attribute", self.attribute)):
            if name in result.predictions:
                labels = batch.targets[f"{name}_ids"][batch.row_image].flatten()[places]
                metric.update(result.predictions[name] == labels, labels >= 0, {})
        if "feature" in result.predictions:
            losses = result.predictions["feature"]
            self.feature.update(losses, torch.ones_like(losses, dtype=torch.bool), {})


def check_choices(parameter: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError unless `given` is among `known`, and something."""
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        raise InputError(
            f"masked_region.{parameter}: {', '.join(unknown) or 'nothing'}; expected {', '.join(known)}"
        )
