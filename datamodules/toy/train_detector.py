"""Train the detector of toy pictures, which is shipped beside this file.

python -m datamodules.toy.train_detector [OUT.safetensors] [--steps N]

The toy's region stores are made up (`world.Detector`): no picture was looked at for them. A network of the kind
that is used on photographs, only much smaller, learns here to find in a picture what those stores tell of it.
Proposals learn the boxes of things. Regions learn by how much they overlap with a thing: their features are those
that the stores have at such a quality, without the noise, and their classes as sure as the stores are.

Its scenes are drawn from a seed of their own: no picture of a toy's splits is among them, except by chance.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from datamodules.detector import (
    STRIDE,
    Bottleneck,
    BoxRule,
    DetectorConfig,
    FasterRCNN,
    RegionPool,
    anchors,
    decode,
    overlap,
    write_detector,
)
from datamodules.toy.detector import PATH, detector_name
from datamodules.toy.world import (
    ATTRIBUTE_NAMES,
    BACKGROUNDS,
    OBJECT_NAMES,
    Detector,
    Scene,
    as_arrays,
    draw_scenes,
    render,
)
from lxmert.files import InputError

CONFIG = DetectorConfig(
    stem_width=12,
    blocks=(1, 1, 2, 2),
    widths=(12, 24, 48, 64),
    expansion=2,
    rpn_width=64,
    # Of things, 23 to 72 pixels in the picture, which is enlarged by up to a quarter; the last for background.
    anchor_scales=(2.5, 4.5, 9),
    anchor_ratios=(1,),
    objects=len(OBJECT_NAMES),
    attributes=len(ATTRIBUTE_NAMES),
    embedding_width=8,
    attribute_width=32,
    short_side=250,
    long_side=310,
    proposals_scored=300,
    proposals=64,
    roi_size=5,
    box_rule=BoxRule(16, 16),
)
STEPS = 700
BATCH = 8  # pictures of one size
RATE = 4e-3  # the highest learning rate
SCALE = 4  # features are learnt smaller by this: of the size of weights, which change by so much a step
SEED = "toy detector 1"
# The quality, as the stores have it, of a region that overlaps with its thing by as much. Regions are pooled from
# whole cells of the map: small differences of overlap cannot be seen.
OVERLAPS, QUALITIES = (0.3, 0.5, 0.7, 1.0), (0.0, 0.5, 0.85, 1.0)
THING, BACKGROUND, COLOR = 0.95, 0.3, 0.7  # the stores' confidences, as in `world.Detector.detect`


@dataclass
class Scenes:
    """Pictures of one size with what is in them."""

    images: Tensor  # (P, 3, H, W) as the network takes them
    scale: float
    boxes: list[np.ndarray]  # of each picture (things, 4), x1 y1 x2 y2 in the resized picture
    codes: list[np.ndarray]  # (things, 3) shape, colour, size
    grounds: list[int]


def batches(seed: str) -> Iterator[Scenes]:
    """Newly drawn scenes without end, of one picture size each time."""
    rng = Random(seed)
    waiting: dict[tuple[int, int], list[Scene]] = defaultdict(list)
    while True:
        for scene in draw_scenes([""] * BATCH, rng):
            some = waiting[scene.width, scene.height]
            some.append(scene)
            if len(some) == BATCH:
                yield prepare(some)
                some.clear()


def prepare(scenes: Sequence[Scene]) -> Scenes:
    """Render and resize scenes of one picture size; the ratio is exact, so this is what `Detector` does."""
    width, height = scenes[0].width, scenes[0].height
    scale = CONFIG.short_side / min(width, height)
    pictures = np.stack([np.asarray(render(scene))[..., ::-1] for scene in scenes])
    images = torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2).float()
    images -= torch.tensor(CONFIG.pixel_mean)[:, None, None]
    size = round(height * scale), round(width * scale)
    images = F.interpolate(images, size, mode="bilinear").contiguous(memory_format=torch.channels_last)
    *codes, boxes = as_arrays(scenes)
    counts = [len(scene.things) for scene in scenes]
    return Scenes(
        images,
        scale,
        [(box[:count] * scale).astype(np.float32) for box, count in zip(boxes, counts, strict=True)],
        [np.stack([code[i, :count] for code in codes], 1) for i, count in enumerate(counts)],
        [BACKGROUNDS.index(scene.background) for scene in scenes],
    )


class Wanted(NamedTuple):
    """What n regions should say."""

    features: Tensor  # (n, F)
    objects: Tensor  # (n, objects + 1) probabilities, the first of none
    attributes: Tensor  # (n, attributes + 1), likewise
    told: Tensor  # (n,) the most probable object, for the attribute head


def of_regions(regions: np.ndarray, scenes: Scenes, picture: int, looks: Detector) -> Wanted:
    """What regions (n, 4) of a picture should say, in features that `looks` makes up."""
    found = overlap(regions, scenes.boxes[picture])
    quality = np.interp(found.max(1), OVERLAPS, QUALITIES)
    shape, color, size = scenes.codes[picture][found.argmax(1)].T
    features = looks.expect(quality, shape, color, size, np.full(len(regions), scenes.grounds[picture]))
    sure, pale = THING * quality, BACKGROUND * (1 - 2 * covered(regions, scenes.boxes[picture])).clip(min=0)
    objects = _chances(CONFIG.objects, shape, sure, pale)
    attributes = _chances(CONFIG.attributes, color, COLOR * sure, COLOR * pale)
    return Wanted(torch.from_numpy(features), objects, attributes, objects.argmax(1))


def covered(regions: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """How much of regions (n, 4) the boxes of things cover: (n,) 0..1."""
    sides = np.minimum(regions[:, None, 2:], boxes[:, 2:]) - np.maximum(regions[:, None, :2], boxes[:, :2])
    shares = sides.clip(min=0).prod(-1).sum(1) / (regions[:, 2:] - regions[:, :2] + 1).prod(-1)
    return shares.clip(max=1)


def _chances(number: int, best: np.ndarray, sure: np.ndarray, pale: np.ndarray) -> Tensor:
    """(n, 1 + number) that each is `best`, that it is background, the last of them, and the rest for none."""
    found = np.zeros((len(best), 1 + number), np.float32)
    found[np.arange(len(best)), 1 + best] = sure
    found[:, -1] = pale
    found[:, 0] = 1 - sure - pale
    return torch.from_numpy(found)


def of_anchors(boxes: np.ndarray, places: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """What anchors (n, 4) should say.

    Returns:
        (n,) 1 at a thing, 0 at background, -1 between; (n,) whether its deltas count; (n, 4) deltas.
    """
    found = overlap(places, boxes)
    best, thing = found.max(1), boxes[found.argmax(1)]
    near = best >= 0.5
    near[found.argmax(0)] = True  # a thing's best, however little that is
    label = np.where(near, 1, np.where(best < 0.35, 0, -1))
    sides, wanted = places[:, 2:] - places[:, :2] + 1, thing[:, 2:] - thing[:, :2] + 1
    moved = (thing[:, :2] + wanted / 2 - places[:, :2] - sides / 2) / sides
    deltas = np.concatenate([moved, np.log(wanted / sides)], 1).astype(np.float32)
    return torch.from_numpy(label), torch.from_numpy(near), torch.from_numpy(deltas)


def sample(logits: Tensor, rng: np.random.Generator) -> Tensor:
    """Some anchors: half of them among the best, which become the regions of things, half from anywhere."""
    best = logits.topk(60).indices
    return torch.cat([best[rng.permutation(60)[:6]], torch.from_numpy(rng.integers(0, len(logits), 6))])


def around(boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Boxes near things, from very near to hardly."""
    boxes = np.repeat(boxes, 2, 0)
    worse = rng.uniform(0, 0.6, (len(boxes), 1))
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + sides * (0.5 + 0.5 * worse * rng.uniform(-1, 1, sides.shape))
    halves = sides / 2 * np.exp(worse * rng.uniform(-1, 1, sides.shape))
    return np.concatenate([centres - halves, centres + halves], 1)


def clip(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes (n, 4) within a picture of this height and width."""
    return boxes.clip(0, np.array([size[1] - 1, size[0] - 1] * 2)).astype(np.float32)


def losses(network: FasterRCNN, scenes: Scenes, looks: Detector, rng: np.random.Generator) -> dict[str, Tensor]:
    """The network's errors on some pictures, each the mean over its pictures."""
    maps = network.backbone(scenes.images)
    size = scenes.images.shape[2], scenes.images.shape[3]
    map_size = maps.shape[2], maps.shape[3]
    places = anchors(CONFIG, *map_size)
    wanted, pooled = [], []
    found: dict[str, list[Tensor]] = defaultdict(list)
    logits, deltas = (part.view(len(maps), -1, *part.shape[1:]) for part in network.rpn(maps))
    for picture, boxes in enumerate(scenes.boxes):
        label, near, moves = of_anchors(boxes, places.numpy())
        error = F.binary_cross_entropy_with_logits(logits[picture], (label == 1).float(), reduction="none")
        found["objectness"].append((error[label == 1].mean() + error[label == 0].mean()) / 2)
        found["boxes"].append(F.smooth_l1_loss(deltas[picture, near], moves[near], beta=0.02))
        some = sample(logits[picture].detach(), rng)
        proposals = decode(places[some], deltas[picture, some].detach()).numpy()
        regions = clip(np.concatenate([proposals, around(boxes, rng)]), size)
        wanted.append(of_regions(regions, scenes, picture, looks))
        pool = RegionPool(maps[picture : picture + 1], CONFIG.roi_size, STRIDE)
        pooled.append(pool(torch.from_numpy(regions)))
    regions_wanted = Wanted(*map(torch.cat, zip(*wanted, strict=True)))
    seen = network.features(torch.cat(pooled))
    scores, attribute_scores = network.heads(seen, regions_wanted.told)
    return {
        **{name: torch.stack(each).mean() for name, each in found.items()},
        "features": 4 * F.mse_loss(seen, regions_wanted.features / SCALE),
        "classes": F.cross_entropy(scores, regions_wanted.objects),
        "colours": F.cross_entropy(attribute_scores, regions_wanted.attributes),
    }


def initialised() -> FasterRCNN:
    """The network with random weights and batch normalisation, without which so few steps would not do."""
    torch.manual_seed(0)
    network = FasterRCNN(CONFIG)
    for parent, name, conv in convolutions(network, nn.Conv2d):
        nn.init.kaiming_normal_(conv.weight)
        conv.bias = None
        setattr(parent, name, nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels)))
    for head in (network.rpn_objectness, network.rpn_deltas):
        nn.init.normal_(head.weight, std=0.01)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def folded(network: FasterRCNN) -> FasterRCNN:
    """The network with its normalisation in the convolutions, and with features of their full size."""
    network.eval()
    for parent, name, (conv, norm) in convolutions(network, nn.Sequential):
        setattr(parent, name, fuse_conv_bn_eval(conv, norm))
    block: Any
    with torch.no_grad():
        for number, block in enumerate(network.res5):
            scaled = [block.conv3.weight, block.conv3.bias]
            if number == 0:
                scaled += [block.shortcut.weight, block.shortcut.bias]
            else:
                block.conv1.weight /= SCALE
            for part in scaled:
                part *= SCALE
        network.object_score.weight /= SCALE
        network.attribute_hidden.weight[:, : CONFIG.feature_dim] /= SCALE
    return network


def convolutions(network: FasterRCNN, kind: type[nn.Module]) -> list[tuple[nn.Module, str, Any]]:
    """The modules of a kind in the stem and the blocks, with where they are."""
    return [
        (parent, name, child)
        for parent in (network, *(module for module in network.modules() if isinstance(module, Bottleneck)))
        for name, child in parent.named_children()
        if isinstance(child, kind) and not name.startswith(("rpn", "res"))
    ]


def train(steps: int) -> FasterRCNN:
    """A trained network; prints its losses."""
    network, looks, rng = initialised(), Detector(), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.15)
    start = time.time()
    sums: dict[str, float] = defaultdict(float)
    for step, scenes in zip(range(1, steps + 1), batches(SEED), strict=False):
        found = losses(network, scenes, looks, rng)
        optimizer.zero_grad()
        sum(found.values(), torch.zeros(())).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10)
        optimizer.step()
        schedule.step()
        for name, value in found.items():
            sums[name] += value.item()
        if step % 25 == 0 or step == steps:
            told = "  ".join(f"{name} {value / ((step - 1) % 25 + 1):.4f}" for name, value in sums.items())
            print(f"{step:5} of {steps}  {told}  {(time.time() - start) / 60:.1f} min", flush=True)
            sums.clear()
    return folded(network)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write; 0, or 1 with one message."""
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.toy.train_detector",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", nargs="?", type=Path, default=PATH, help=f"the file to write ({PATH.name})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of {BATCH} pictures ({STEPS})")
    options = parser.parse_args(arguments)
    if not options.out.parent.is_dir():  # before the minutes of training
        print(f"error: {options.out.parent}: no such folder to write {options.out.name} into", file=sys.stderr)
        return 1
    network = train(options.steps)
    try:
        write_detector(
            options.out,
            CONFIG,
            {key: tensor.half() for key, tensor in network.state_dict().items()},
            name=detector_name(),
            object_names=OBJECT_NAMES,
            attribute_names=ATTRIBUTE_NAMES,
            source=f"python -m datamodules.toy.train_detector --steps {options.steps}",
        )
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
