"""Regions of one picture by the detector of the published size, stage by stage, against plain PyTorch.

    python -m benchmarks.extract --threads 2

The weights are random, tamed so that numbers and proposals are like those of the trained ones; the picture is
noise, 600 x 800 pixels when resized, with 300 proposals. The plain version does the same with what is at hand:
convolutions as PyTorch has them, RoIPool as adaptive pooling of each region's crop, suppression class by class.
Both run in turn, stage by stage. On a CPU seconds are those of all threads together, the clock's are beside. The
run fails when results differ, the ratio is below 1 or memory is above 3 GB.
"""

from __future__ import annotations

import functools
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import parse, seconds
from datamodules.detector import STRIDE, Detector, DetectorConfig, DetectorFile, FasterRCNN
from datamodules.detector.network import AT_ONCE
from datamodules.detector.pooling import RegionPool, to_cells
from datamodules.detector.proposals import propose, suppress
from datamodules.detector.resizing import resize
from datamodules.detector.selection import confidences

PICTURE, SIZE = (480, 640), (600, 800)
CHUNK = 50  # regions of the plain version
MOST_MEMORY = 3e9


def tamed(config: DetectorConfig) -> FasterRCNN:
    """Random weights with which the network's numbers stay near 1, and its proposals near their anchors."""
    torch.manual_seed(0)
    network = FasterRCNN(config)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)
            module.weight.data *= {"stem": 1 / 64, "conv3": 0.2}.get(name.rpartition(".")[2], 1)
    for module in (network.rpn_objectness, network.rpn_deltas):
        module.weight.data *= 0.1
    return network.requires_grad_(False).eval()


class Ways:
    """The stages by both ways; each takes what ours before it made."""

    def __init__(self, device: torch.device) -> None:
        plain = tamed(DetectorConfig())
        self.ours = Detector(DetectorFile("random", plain.config, plain.state_dict()), device)
        self.plain, self.config, self.device = plain.to(device), plain.config, device
        self.picture = np.random.default_rng(0).integers(0, 256, (*PICTURE, 3), np.uint8)

    def resize(self, plain: bool) -> Tensor:
        """The picture as the network takes it."""
        if plain:
            image = torch.from_numpy(self.picture).float() - torch.tensor(self.config.pixel_mean)
            image = F.interpolate(image.permute(2, 0, 1)[None], scale_factor=1.25, mode="bilinear")
            return image.to(self.device)
        image, self.scale = resize(self.picture, self.config)
        self.image = torch.from_numpy(image)[None].to(self.device)
        return self.image

    def backbone(self, plain: bool) -> Tensor:
        """The feature map."""
        if plain:
            return self.plain.backbone(self.image)
        self.map = self.ours.network.backbone(self.image.to(memory_format=torch.channels_last))
        return self.map

    def rpn(self, plain: bool) -> Tensor:
        """The proposals."""
        network = self.plain if plain else self.ours.network
        found = propose(*network.rpn(self.map), tuple(self.map.shape[2:]), SIZE, self.scale, self.config)
        self.boxes = found
        return found

    def pool(self, plain: bool) -> Tensor:
        """Their bins."""
        if not plain:
            self.pooled = RegionPool(self.map, self.config.roi_size, STRIDE)(self.boxes)
            return self.pooled
        found = []
        for left, top, right, bottom in to_cells(self.boxes, STRIDE).tolist():
            crop = self.map[:, :, top : max(bottom, top) + 1, left : max(right, left) + 1]
            missing = max(right, left) + 1 - left - crop.shape[3], max(bottom, top) + 1 - top - crop.shape[2]
            crop = F.pad(crop, (0, missing[0], 0, missing[1]), value=-torch.inf)
            found.append(F.adaptive_max_pool2d(crop, self.config.roi_size))
        return torch.cat(found).clamp(min=0)  # empty bins; a map has nothing below 0

    def res5(self, plain: bool) -> Tensor:
        """Their features."""
        if plain:
            chunks = self.pooled.contiguous().split(CHUNK)
            return torch.cat([self.plain.features(chunk) for chunk in chunks])
        chunks = self.pooled.split(AT_ONCE)
        self.features = torch.cat([self.ours.network.features(chunk) for chunk in chunks])
        return self.features

    def heads(self, plain: bool) -> Tensor:
        """What they are."""
        scores, attributes = (self.plain if plain else self.ours.network).heads(self.features)
        self.probabilities = scores.softmax(1)[:, 1:]
        return attributes.softmax(1)

    def select(self, plain: bool) -> Tensor:
        """How sure that is, which decides which are kept."""
        boxes, probabilities = self.boxes.cpu().numpy(), self.probabilities.cpu().numpy()
        if not plain:
            return torch.from_numpy(confidences(boxes, probabilities, self.config.class_overlap))
        best = np.zeros(len(boxes), np.float32)
        for of_class in probabilities.T:
            order = np.argsort(-of_class, kind="stable")
            kept = order[suppress(boxes[order], self.config.class_overlap, len(order))]
            best[kept] = np.maximum(best[kept], of_class[kept])
        return torch.from_numpy(best)


STAGES = ("resize", "backbone", "rpn", "pool", "res5", "heads", "select")


def clocked(run: Callable[[], Tensor], device: torch.device) -> tuple[float, float, Tensor]:
    """Seconds as the benchmarks count them, seconds of the clock, the result."""
    start = time.perf_counter()
    counted, result = seconds(run, device)
    return counted, time.perf_counter() - start, result


@torch.inference_mode()
def main() -> None:
    """Run both ways in turn, stage by stage, and print the table."""
    options = parse(__doc__.splitlines()[0], rounds=2)
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False
    ways = Ways(device)
    times: dict[tuple[str, bool], list[tuple[float, float]]] = defaultdict(list)
    different: dict[str, float] = {}
    for number in range(options.rounds):
        for stage in STAGES:
            results: dict[bool, Any] = {}
            for plain in (False, True) if number % 2 else (True, False):
                counted, clock, results[plain] = clocked(functools.partial(getattr(ways, stage), plain), device)
                times[stage, plain].append((counted, clock))
            one, other = results[False], results[True]
            different[stage] = float((one - other).abs().max() / other.abs().max())
    table = Table(title=f"One picture of {SIZE[0]} x {SIZE[1]}, {len(ways.boxes)} proposals, {device}")
    for column in ("stage", "seconds", "plain", "ratio", "clock", "largest difference"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    totals = np.zeros(3)
    for stage in STAGES:
        ours, plain = (np.median(times[stage, way], axis=0) for way in (False, True))
        totals += (ours[0], plain[0], ours[1])
        table.add_row(
            stage, f"{ours[0]:.2f}", f"{plain[0]:.2f}", f"{plain[0] / ours[0]:.2f}", f"{ours[1]:.2f}",
            f"{different[stage]:.0e}",
        )  # fmt: skip
    table.add_row(
        "all", f"{totals[0]:.2f}", f"{totals[1]:.2f}", f"{totals[1] / totals[0]:.2f}", f"{totals[2]:.2f}", ""
    )
    Console(width=110).print(table)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"images/s by the clock: {1 / totals[2]:.3f}; memory at most {memory / 1e9:.2f} GB, both ways together")
    ratio = statistics.median(
        sum(times[s, True][n][0] for s in STAGES) / sum(times[s, False][n][0] for s in STAGES)
        for n in range(options.rounds)
    )
    if max(different.values()) > 1e-3 or ratio < 1 or (device.type == "cpu" and memory > MOST_MEMORY):
        raise SystemExit(f"expected the same features, a ratio of at least 1 and {MOST_MEMORY / 1e9:.0f} GB")


if __name__ == "__main__":
    main()
