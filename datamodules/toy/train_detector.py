"""Train the detector of toy pictures, which is shipped beside this file.

python -m datamodules.toy.train_detector [OUT.safetensors] [--steps N]

The toy's region stores are made up (`world.Detector`): a picture has nothing to do with them. A network of the kind
that is used on photographs, only much smaller, learns here to find in a picture what those stores say of its scene.
The proposals learn the boxes of things. Regions learn by how much they overlap with a thing: their features are to
be those that the stores would have on average at such a quality, their classes as sure as the stores are.

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

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.detector import (
    STRIDE,
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
    blocks=(1, 1, 2, 1),
    widths=(12, 24, 48, 64),
    expansion=2,
    res5_dilation=1,
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
STEPS = 2500
BATCH = 8  # pictures of one size
SEED = "toy detector 1"
# What quality the stores give a region whose box overlaps with its thing by as much; below, it is background.
OVERLAPS, QUALITIES = (0.3, 0.45, 0.7, 0.85, 1.0), (0.0, 0.45, 0.65, 0.85, 1.0)
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


class Targets:
    """What regions should say.

    Args:
        looks: the made-up detector, whose features are to be seen in pictures.
    """

    def __init__(self, looks: Detector) -> None:
        self.looks = looks

    def of_regions(self, regions: np.ndarray, scenes: Scenes, picture: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For regions (n, 4): features (n, F), classes (n, objects + 1), colours (n, attributes + 1), class ids."""
        found = overlap(regions, scenes.boxes[picture])
        thing, best = found.argmax(1), found.max(1)
        quality = np.interp(best, OVERLAPS, QUALITIES)
        shape, color, size = scenes.codes[picture][thing].T
        ground = np.full(len(regions), scenes.grounds[picture])
        features = self.looks.expect(quality, shape, color, size, ground)
        sure = THING * quality
        pale = BACKGROUND * (1 - quality / QUALITIES[1]).clip(min=0)
        rows = np.arange(len(regions))
        objects = np.zeros((len(regions), CONFIG.objects + 1), np.float32)
        objects[rows, 1 + shape] = sure
        objects[:, -1] = pale
        attributes = np.zeros((len(regions), CONFIG.attributes + 1), np.float32)
        attributes[rows, 1 + color] = sure * COLOR
        attributes[:, -1] = pale * COLOR
        for chances in (objects, attributes):
            chances[:, 0] = 1 - chances[:, 1:].sum(1)
        told = objects.argmax(1)
        return (*(torch.from_numpy(part) for part in (features, objects, attributes)), torch.from_numpy(told))


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


def losses(network: FasterRCNN, scenes: Scenes, targets: Targets, rng: np.random.Generator) -> dict[str, Tensor]:
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
        scores, moved = logits[picture].detach(), deltas[picture].detach()
        # Half of them as the best proposals are, the others any: those of background, at the end.
        some = torch.cat([scores.topk(60).indices[rng.permutation(60)[:6]], torch.from_numpy(rng.integers(0, len(scores), 6))])
        proposals = clip(decode(places[some], moved[some]).numpy(), size)
        regions = np.concatenate([proposals, clip(around(boxes, rng), size)])
        wanted.append(targets.of_regions(regions, scenes, picture))
        pool = RegionPool(maps[picture : picture + 1], CONFIG.roi_size, STRIDE)
        pooled.append(pool(torch.from_numpy(regions)))
    features, objects, attributes, told = (torch.cat(parts) for parts in zip(*wanted, strict=True))
    seen = network.features(torch.cat(pooled))
    scores, attribute_scores = network.heads(seen, told)
    return {
        **{name: torch.stack(each).mean() for name, each in found.items()},
        "features": F.mse_loss(seen, features),
        "classes": F.cross_entropy(scores, objects),
        "colours": F.cross_entropy(attribute_scores, attributes),
    }


def initialised(seed: int) -> FasterRCNN:
    """The network with random weights whose numbers keep their size from block to block."""
    torch.manual_seed(seed)
    network = FasterRCNN(CONFIG)
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
            torch.nn.init.zeros_(module.bias)
            if name.endswith("conv3"):
                module.weight.data *= 0.3
    network.stem.weight.data /= 64  # pixels are not near 1
    for head in (network.rpn_objectness, network.rpn_deltas):
        torch.nn.init.normal_(head.weight, std=0.01)
    return network.to(memory_format=torch.channels_last)


def train(steps: int) -> FasterRCNN:
    """A trained network; prints its losses."""
    network, targets, rng = initialised(0), Targets(Detector()), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    start, sums = time.time(), defaultdict(float)
    for step, scenes in zip(range(1, steps + 1), batches(SEED), strict=False):
        found = losses(network, scenes, targets, rng)
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
    return network.eval()


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
