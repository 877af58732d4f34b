"""Batches of a handful of sizes, for steps that are compiled for each set of sizes.

How many sentences, words and images a batch has, how many words are hidden in it and how many of its rows are
answered, differs from batch to batch. A batch is filled up to the smallest level at which all of that fits: with
sentences and images that no row asks about, with list entries that losses ignore, and with padding that is
computed as words are. What the batch says stays the same, and so does every loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, pstdev
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lxmert.batch import Batch, Packing
from lxmert.objectives.base import Objective

# What fits at the first levels: so many standard deviations above the mean of the batches that were looked at.
# Each further level has twice the room of the one before it.
DEVIATIONS = (3.0, 6.0)
LEVELS = 8
MULTIPLE = 8  # of places and list entries, as matrix products like it
# Without what a step does not read, and would be compiled anew for.
BARE: dict[str, Any] = {
    "example_ids": [], "example_places": [], "image_ids": [], "sentence_keys": None, "image_keys": None,
}  # fmt: skip
PACKINGS = ("token_packing", "row_token_packing", "region_packing", "row_region_packing")


class Shapes:
    """The few sets of sizes that the batches of a training have.

    Use `lengthen` before the objectives prepare a batch, since they note places among words and regions, and
    `fill` after it.

    Args:
        tokens: L of all batches.
        regions: N of all batches.
        objectives: whose targets differ in size (`lists`), and which tell of images (`of_images`, `of_regions`).

    Attributes:
        levels: what has room at each level, by name: sentences, images, elements of packings, entries of lists.
        full: the packings that have no padding.
    """

    def __init__(self, tokens: int, regions: int, objectives: Iterable[Objective]) -> None:
        self.tokens, self.regions = tokens, regions
        self.lists = {name: entry for objective in objectives for name, entry in objective.lists.items()}
        self.of_regions = {name for objective in objectives for name in objective.of_regions}
        self.of_images = {name for objective in objectives for name in objective.of_images} | self.of_regions
        self.levels: list[dict[str, int]] = []
        self.full: set[str] = set()

    def measure(self, batches: Sequence[Batch]) -> None:
        """Set the levels by some batches of the training, lengthened and prepared."""
        self.full = {name for name in PACKINGS if all(getattr(batch, name).full for batch in batches)}
        seen = [self.sizes(batch) for batch in batches]
        rows = max(batch.num_rows for batch in batches)
        for level in range(LEVELS):
            wide, times = DEVIATIONS[min(level, len(DEVIATIONS) - 1)], 2 ** max(0, level + 1 - len(DEVIATIONS))
            room: dict[str, int] = {}
            for name in seen[0]:
                found = [each[name] for each in seen]
                size = math.ceil((fmean(found) + wide * pstdev(found)) * times)
                # A row has one sentence and one image.
                one_a_row = name in ("sentences", "images")
                room[name] = min(size, rows) if one_a_row else -(-size // MULTIPLE) * MULTIPLE
            self.levels.append(room)

    def sizes(self, batch: Batch) -> dict[str, int]:
        """What of a batch differs from one to the next."""
        sizes = {"sentences": len(batch.token_mask), "images": len(batch.region_mask)}
        sizes |= {name: int(getattr(batch, name).mask.sum()) for name in PACKINGS if name not in self.full}
        return sizes | {name: len(batch.targets[name]) for name in self.lists}

    def lengthen(self, batch: Batch) -> Batch:
        """The batch with `tokens` places a sentence and `regions` an image."""
        words, boxes = self.tokens - batch.token_mask.shape[1], self.regions - batch.region_mask.shape[1]
        changes: dict[str, Any] = {"targets": dict(batch.targets)}
        for name in ("token_ids", "token_mask", "token_types"):
            changes[name] = _more(getattr(batch, name), words, dim=1)
        for name in ("region_features", "region_boxes", "region_mask"):
            changes[name] = _more(getattr(batch, name), boxes, dim=1)
        for name in self.of_regions & batch.targets.keys():
            changes["targets"][name] = _more(batch.targets[name], boxes, dim=1)
        return _with_masks(batch, changes)

    def fill(self, batch: Batch) -> Batch:
        """The batch filled up to the first level that has room for it; as it is, where there is none.

        Its features are not: `with_features` does that on the device, where it costs no second copy in memory that
        the device reads from.
        """
        sizes = self.sizes(batch)
        for room in self.levels:
            # Sentences and images that no row asks about have an element each.
            unasked = {name: room[name] - sizes[name] for name in ("sentences", "images")}
            elements = {"token_packing": unasked["sentences"], "region_packing": unasked["images"]}
            if all(sizes[name] + max(elements.get(name, 0), 0) <= room[name] for name in sizes):
                return self._filled(batch, room)
        return batch

    def _filled(self, batch: Batch, room: Mapping[str, int]) -> Batch:
        sentences, images = room["sentences"] - len(batch.token_mask), room["images"] - len(batch.region_mask)
        changes: dict[str, Any] = {"targets": dict(batch.targets)}
        for name in ("token_ids", "token_mask", "token_types"):
            changes[name] = _more(getattr(batch, name), sentences)
        for name in ("region_boxes", "region_mask"):
            changes[name] = _more(getattr(batch, name), images)
        # Attention over nothing would be NaN.
        changes["token_mask"][len(batch.token_mask) :, 0] = True
        changes["region_mask"][len(batch.region_mask) :, : None if "region_packing" in self.full else 1] = True
        for name in self.of_images & batch.targets.keys():
            changes["targets"][name] = _more(batch.targets[name], images)
        for name, entry in self.lists.items():
            target = batch.targets[name]
            changes["targets"][name] = _more(target, room[name] - len(target), value=entry)
        return _with_masks(batch, changes, {name: room.get(name) for name in PACKINGS})


def with_features(batch: Batch) -> Batch:
    """A filled batch with features, of zeros, for the images that no row asks about."""
    features = batch.region_features
    missing = len(batch.region_mask) - len(features)
    # By torch.cat autocast, which Lightning has around a step, would refuse to join float16.
    return replace(batch, region_features=F.pad(features, (0, 0, 0, 0, 0, missing))) if missing else batch


def compiled(
    losses_of: Callable[[Batch], dict[str, Tensor]], *, cuda_graphs: bool = False, recomputed: bool = False
) -> Callable[[Batch], dict[str, Tensor]]:
    """`losses_of` as one graph for each set of sizes, with its backward pass.

    Args:
        losses_of: the losses of a batch, without a step aside into Python.
        cuda_graphs: replay the graph's kernels instead of starting each.
        recomputed: layers are computed again for their gradients (`LxmertConfig.gradient_checkpointing`).
    """
    # A set of sizes more is no fault; the default gives up at eight graphs of one function.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * LEVELS)
    if recomputed:
        # The graph holds the casts of a layer's weights, and nothing is left of them behind the layer.
        torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint = True
        # It cannot cut such a graph into DDP's buckets: gradients are sent when all of them are there.
        torch._dynamo.config.optimize_ddp = False
    mode = "reduce-overhead" if cuda_graphs else "default"
    graph = torch.compile(losses_of, fullgraph=True, dynamic=False, mode=mode)

    def call(batch: Batch) -> dict[str, Tensor]:
        if cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        losses = graph(with_features(replace(batch, **BARE)))
        # What a CUDA graph gives is overwritten by its next replay.
        return {name: loss.clone() for name, loss in losses.items()} if cuda_graphs else losses

    return call


def _with_masks(batch: Batch, changes: Mapping[str, Any], room: Mapping[str, int | None] | None = None) -> Batch:
    """The batch with other masks, and with packings of these, which list so many places."""
    tokens, regions = changes["token_mask"], changes["region_mask"]
    masks = (tokens, tokens[batch.row_sentence], regions, regions[batch.row_image])
    packings: dict[str, Any] = {}
    for name, mask in zip(PACKINGS, masks, strict=True):
        size = room.get(name) if room else None
        packings[name] = Packing.of(mask) if size is None else _listing(mask, size)
    return replace(batch, **changes, **packings)


def _listing(mask: Tensor, size: int) -> Packing:
    """The packing of a mask that lists `size` places, or all: those of real elements, then of padding."""
    flat = mask.flatten()
    real = flat.nonzero().squeeze(1)
    spare = (~flat).nonzero().squeeze(1)[: size - len(real)]
    return Packing(mask, torch.cat([real, spare]), full=False)


def _more(tensor: Tensor | None, number: int, dim: int = 0, value: float = 0) -> Tensor | None:
    """With `number` more entries."""
    if tensor is None or not number:
        return tensor
    return F.pad(tensor, (0, 0) * (tensor.ndim - 1 - dim) + (0, number), value=value)
