"""Captions against images with `score_pairs`, against the reference library's class for each pair.

    python -m benchmarks.retrieval

Full size, random weights, captions of 8 to 20 tokens, 36 regions, 20 captions x 20 images. The reference is called
with each pair alone and without padding: its class with a matching head, which computes its other heads too; its
model with the matching head alone; and that with a caption and all images as one batch. They run in turn, round by
round; CPU time; the run fails when a score differs or the ratio to its class is below 3.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers.models.lxmert import modeling_lxmert as reference

from benchmarks.timing import parse, seconds
from lxmert import LxmertConfig, LxmertForPreTraining
from lxmert.batch import Batch
from lxmert.retrieve import score_pairs

REGIONS = 36
TOKENS = (8, 20)
AT_LEAST = 3.0
CLASS = "each pair alone, its class"


@dataclass
class Pairs:
    """Random captions and images, as `lxmert.retrieve.Collection`."""

    batch_of_all: Batch
    caption_ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    image_ids: list[str] = field(default_factory=list)
    image_of: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def random(cls, captions: int, images: int) -> Pairs:
        """Of realistic lengths."""
        make = torch.Generator().manual_seed(0)
        lengths = torch.randint(TOKENS[0], TOKENS[1] + 1, (captions,), generator=make)
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.randint(1000, 30522, mask.shape, generator=make) * mask
        ids[:, 0] = 101
        ids[torch.arange(captions), lengths - 1] = 102
        return cls(
            Batch(
                token_ids=ids,
                token_mask=mask,
                region_features=(torch.rand(images, REGIONS, 2048, generator=make) * 3 - 1).clamp(min=0),
                region_boxes=torch.rand(images, REGIONS, 2, 2, generator=make).sort(2).values.flatten(2),
                region_mask=torch.ones(images, REGIONS, dtype=torch.bool),
                row_sentence=torch.zeros(images, dtype=torch.int64),
                row_image=torch.arange(images),
            )
        )

    def batch(self, captions: np.ndarray, images: np.ndarray) -> Batch:
        """All of them: there is one block."""
        return self.batch_of_all

    def fingerprint(self) -> str:
        """Nothing is kept."""
        return ""


@torch.inference_mode()
def main() -> None:
    """Run all ways in turn and print the ratios."""
    options = parse(__doc__.splitlines()[0], captions=20, images=20, rounds=2)
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    # Wider than the published 0.02: random models score all pairs alike with that.
    ours = LxmertForPreTraining(LxmertConfig(initializer_range=0.05)).eval()
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        theirs = reference.LxmertForPreTraining.from_pretrained(folder).to(device).eval()
    ours.to(device)
    pairs = Pairs.random(options.captions, options.images)
    whole = pairs.batch_of_all.to(device)
    lengths = whole.token_mask.sum(1).tolist()

    def score(caption: int, image: slice, *, whole_class: bool) -> Tensor:
        features, boxes = whole.region_features[image], whole.region_boxes[image]
        ids = whole.token_ids[caption, : lengths[caption]].expand(len(features), -1)
        if whole_class:
            logits = theirs(input_ids=ids, visual_feats=features, visual_pos=boxes).cross_relationship_score
        else:
            encoded = theirs.lxmert(input_ids=ids, visual_feats=features, visual_pos=boxes)
            logits = theirs.cls.seq_relationship(encoded.pooled_output)
        return logits[:, 1] - logits[:, 0]

    def alone(*, whole_class: bool) -> Tensor:
        each = (slice(image, image + 1) for _ in range(options.captions) for image in range(options.images))
        scores = [score(n // options.images, image, whole_class=whole_class) for n, image in enumerate(each)]
        return torch.cat(scores).view(options.captions, options.images)

    def by_caption() -> Tensor:
        return torch.stack([score(c, slice(None), whole_class=False) for c in range(options.captions)])

    def together() -> Tensor:
        scores = np.full((options.captions, options.images), np.nan, np.float32)
        score_pairs(ours.lxmert, ours.cls.seq_relationship, pairs, scores)
        return torch.from_numpy(scores)

    ways = {
        CLASS: lambda: alone(whole_class=True),
        "each pair alone, its model and the matching head": lambda: alone(whole_class=False),
        "a caption and all images a batch, its model and the matching head": by_caption,
    }
    got = together()
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    difference, ours_took = 0.0, []
    for _ in range(options.rounds):
        ours_took.append(seconds(together, device)[0])
        for name, way in ways.items():
            took, expected = seconds(way, device)
            ratios[name].append(took / ours_took[-1])
            difference = max(difference, (got - expected.cpu()).abs().max().item())
    number = options.captions * options.images
    print(
        f"{options.captions} captions x {options.images} images: {number / statistics.median(ours_took):.1f} "
        f"pairs/s; largest difference of a score {difference:.1e}"
    )
    for name, found in ratios.items():
        print(f"  against {name}: {statistics.median(found):.2f} x ({min(found):.2f}-{max(found):.2f})")
    if difference > 1e-3:
        raise SystemExit("expected a difference below 1e-3")
    if statistics.median(ratios[CLASS]) < AT_LEAST:
        raise SystemExit(f"expected {AT_LEAST} x pairs alone")


if __name__ == "__main__":
    main()
