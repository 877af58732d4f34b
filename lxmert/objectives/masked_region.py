"""Masked regions: find what hidden regions show and their features (paper section 3.1.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

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
    (M,), the hidden regions' flat places over rows and regions (R * N), `features` (D, F), what was hidden, once
    for all rows of an image, and `feature` (M,), the place of each among them.

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
        """Hide regions, in the memory of the batch's own features.

        Raises:
            InputError: the batch lacks what is needed.
        """
        self._check(batch)
        size, number = batch.region_mask.shape
        keys = (cast(Tensor, batch.image_keys).numpy()[:, None], np.arange(number))
        chosen = batch.region_mask & torch.from_numpy(uniform(seed, "regions to find", *keys) < self.rate)
        way = torch.from_numpy(uniform(seed, "ways to hide regions", *keys))
        features = batch.region_features
        rows = chosen[batch.row_image].flatten()
        places = rows.nonzero().squeeze(1)
        targets = {"masked_region/places": places}
        if self.features:
            order = chosen.flatten().cumsum(0).view(size, number) - 1
            targets["masked_region/features"] = features[chosen]
            targets["masked_region/feature"] = order[batch.row_image].flatten()[places]
        features[chosen & (way < self.zeroed)] = 0
        if self.replaced:
            image, region = (chosen & (way >= self.zeroed) & (way < self.zeroed + self.replaced)).nonzero().T
            features[image, region] = batch.targets["replacement_features"][image]
        return replace(batch, targets={**batch.targets, **targets})

    def forward(self, output: LxmertModelOutput, batch: Batch, model: Lxmert) -> Result:
        """Losses, and per hidden region the best labels and the feature's error."""
        vision, real = cast(Tensor, output.vision_output), batch.row_region_packing
        places = batch.targets["masked_region/places"]
        number = real.mask.numel() if real.index is None else len(real.index)

        def hidden(padded: Tensor) -> Tensor:
            return padded.flatten(0, 1).index_select(0, places)

        read = real.pack if self.everywhere else hidden
        prepared = self.head.transform(read(vision))  # (T, D) of all real regions, or (M, D) of the hidden ones
        result = Result()
        for name in self.labels:
            scores = self.head.decoder_dict[OUTPUTS[name]](prepared).float()
            losses = index_losses(scores, read(batch.targets[f"{name}_ids"][batch.row_image]))
            best = scores.detach().argmax(1)
            if self.everywhere:
                losses = losses * read(batch.targets[f"{name}_conf"][batch.row_image])
                best = hidden(real.pad(best))
            result.losses[name] = losses.sum() / number / self.rate
            result.predictions[name] = best
        if self.features:
            prepared = hidden(real.pad(prepared)) if self.everywhere else prepared
            wanted = batch.targets["masked_region/features"].index_select(
                0, batch.targets["masked_region/feature"]
            )
            found = self.head.decoder_dict["feat"](prepared).float()
            losses = self.feature_loss(found, wanted.float(), reduction="none").mean(1)
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
