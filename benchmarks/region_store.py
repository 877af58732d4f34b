"""How fast the region store reads random batches, against RAM and against the original loader's way.

    python benchmarks/region_store.py

Everything is measured in one run, the readers taking turns, on one synthetic feature file: images per
CPU second, which other people's work on the machine disturbs least, and per second of wall-clock time;
the median over rounds. The cold figure is wall-clock time, as its cost is waiting. Two ratios, of the
CPU figures, must hold: the store reads at least 15 x
what the original loader does and 0.8 x what a gather of the same bytes from RAM does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

sys.path.insert(0, str(Path(__file__).parents[1]))

from datamodules.stores import BOX_CONVENTION, RegionStore, Source, allocate, map_dataset

BATCH, BATCHES = 256, 4  # images in a batch; batches in a measurement
RAM, STORE, H5PY, ORIGINAL = "gather from RAM", "region store", "h5py, one slice an image", "the original loader"
AT_LEAST_ORIGINAL, AT_LEAST_RAM = 15, 0.8


def main() -> int:
    """Make the file, measure, print; 1 where a ratio does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--regions", type=int, default=36)
    parser.add_argument("--feature-dim", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "regions.h5"
        make_store(path, options.images, options.regions, options.feature_dim)
        print(
            f"{options.images} images x {options.regions} regions x {options.feature_dim} features, "
            f"{path.stat().st_size / 1e6:.0f} MB, random batches of {BATCH}, one thread\n"
        )
        print_memory(path)
        print(f"\ncold file: {cold_rate(path):,.0f} images/s, first reads after leaving the page cache\n")
        holds = print_rates(path, options.rounds)
        # Last: a process that has used several threads should not be forked any more.
        torch.set_num_threads(os.cpu_count() or 1)
        print(f"\nthe same with torch's default, {torch.get_num_threads()} threads\n")
        print_rates(path, options.rounds)
        return 0 if holds else 1


def make_store(path: Path, images: int, regions: int, dim: int, ids: list[str] | None = None) -> None:
    """A store of random features with the distribution of real ones: non-negative, a third zeros; sorted `ids`."""
    total = images * regions
    arrays = {
        "offsets": np.arange(images + 1) * regions,
        "image_ids": np.array(ids or [f"IMAGE_{i:012d}" for i in range(images)], np.bytes_),
        "image_size": np.tile(np.array([[640, 480]], np.int32), (images, 1)),
        "id_order": np.arange(images),
    }
    labels = ("object_ids", "object_conf", "attribute_ids", "attribute_conf")
    columns: dict[str, tuple[tuple[int, ...], Any]] = {
        "boxes": ((total, 4), np.float32),
        **{n: ((total,), np.float32 if n.endswith("_conf") else np.int32) for n in labels},
    }
    columns["features"] = ((total, dim), np.float16)
    contract = {
        "kind": "regions",
        "format_version": 1,
        "feature_dim": dim,
        "num_images": images,
        "num_regions": total,
        "min_regions": regions,
        "max_regions": regions,
        "box_convention": BOX_CONVENTION,
        "detector": "random numbers",
        **{f"source_{name}": value for name, value in asdict(Source("none", 0, 0)).items()},
    }
    allocate(path, arrays, columns, contract)
    rng = np.random.default_rng(0)
    with h5py.File(path, "r+") as file:
        for name in labels:
            file[name][...] = 0
        corners = np.sort(rng.random((total, 2, 2), np.float32), axis=1)
        file["boxes"][...] = corners.reshape(total, 4)
        for start in range(0, total, 16 * regions):
            rows = file["features"][start : start + 16 * regions].shape
            values = torch.from_numpy(rng.standard_normal(rows, np.float32)).add_(0.4).relu_()
            file["features"][start : start + 16 * regions] = values.half().numpy()


# ---------------------------------------------------------------------------------------- readers


class OriginalLoader:
    """The original project's way: everything decoded into RAM, each item checked, then collated.

    Per item it copies the boxes and features, divides the boxes by the image's size and asserts that
    they lie in 0..1 within 1e-5 with numpy's testing functions; the loader collates item by item.
    """

    def __init__(self, path: Path) -> None:
        with h5py.File(path) as file:
            offsets, sizes = file["offsets"][()], file["image_size"][()]
            pixels = np.concatenate([sizes, sizes], 1)
            self.images = [
                {
                    "img_w": int(sizes[i, 0]),
                    "img_h": int(sizes[i, 1]),
                    "num_boxes": int(end - start),
                    "boxes": file["boxes"][start:end] * pixels[i].astype(np.float32),
                    "features": file["features"][start:end].astype(np.float32),
                }
                for i, (start, end) in enumerate(pairwise(offsets))
            ]

    def item(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """One image, as the original data set's `__getitem__` prepares it."""
        info = self.images[image]
        features, boxes = info["features"].copy(), info["boxes"].copy()
        assert len(features) == len(boxes) == info["num_boxes"]
        boxes[:, (0, 2)] /= info["img_w"]
        boxes[:, (1, 3)] /= info["img_h"]
        np.testing.assert_array_less(boxes, 1 + 1e-5)
        np.testing.assert_array_less(-boxes, 0 + 1e-5)
        return features, boxes

    def read(self, images: np.ndarray) -> torch.Tensor:
        """A batch, as torch's default collate builds it from items."""
        return default_collate([self.item(image) for image in images])[0]


def readers(path: Path) -> dict[str, Callable[[np.ndarray], torch.Tensor]]:
    """Name -> function from image numbers to float16 features (the original's: float32)."""
    store = RegionStore(path)
    ram = torch.from_numpy(np.array(map_dataset(path, "features"))).view(len(store), -1, store.feature_dim)
    buffer = torch.empty(BATCH, *ram.shape[1:], dtype=torch.float16)
    original = OriginalLoader(path)
    file = h5py.File(path)  # open until the process ends
    features, regions = file["features"], ram.shape[1]

    def gather(images: np.ndarray) -> torch.Tensor:
        return torch.index_select(ram, 0, torch.from_numpy(images), out=buffer)

    def by_h5py(images: np.ndarray) -> torch.Tensor:
        out = buffer.numpy()
        for place, image in enumerate(images):
            out[place] = features[image * regions : (image + 1) * regions]
        return buffer

    return {RAM: gather, STORE: lambda images: store.read(images)[0], H5PY: by_h5py, ORIGINAL: original.read}


# ----------------------------------------------------------------------------------- measurements


def batches(images: int, seed: int) -> Iterator[np.ndarray]:
    """Random batches of image numbers, with repeats as in a training run."""
    rng = np.random.default_rng(seed)
    for _ in range(BATCHES):
        yield rng.integers(0, images, BATCH)


def print_rates(path: Path, rounds: int) -> bool:
    """Measure every reader in turn, print the table and the two ratios; whether both hold."""
    images, by_name = len(RegionStore(path)), readers(path)
    fp32 = torch.empty(BATCH, *by_name[RAM](np.zeros(BATCH, np.int64)).shape[1:])
    cases = [(name, kind) for name in by_name for kind in ("fp16", "fp32") if (name, kind) != (ORIGINAL, "fp16")]
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {case: [] for case in cases}
    for number in range(rounds + 1):  # the first warms up and does not count
        for name, kind in cases:
            cpu, wall = time.process_time(), time.perf_counter()
            for batch in batches(images, number):
                features = by_name[name](batch)
                if kind == "fp32" and features.dtype == torch.float16:
                    fp32.copy_(features)
            if number:
                seconds[name, kind].append((time.process_time() - cpu, time.perf_counter() - wall))
    print(f"{'images per':28}{'CPU second':>24}{'second':>24}")
    print(f"{'':28}" + f"{'to fp16':>12}{'to fp32':>12}" * 2)
    for name in by_name:
        cells = [
            f"{BATCHES * BATCH / statistics.median(times[clock] for times in seconds[name, kind]):,.0f}"
            if (name, kind) in seconds
            else "-"
            for clock in (0, 1)
            for kind in ("fp16", "fp32")
        ]
        print(f"{name:28}" + "".join(f"{cell:>12}" for cell in cells))

    def ratio(ours: tuple[str, str], theirs: tuple[str, str], clock: int = 0) -> float:
        """The median over rounds of how many times faster `ours` is than `theirs` in the same round."""
        pairs = zip(seconds[ours], seconds[theirs], strict=True)
        return statistics.median(b[clock] / a[clock] for a, b in pairs)

    store16, store32, original = (STORE, "fp16"), (STORE, "fp32"), (ORIGINAL, "fp32")
    against_original, against_ram = ratio(store16, original), ratio(store16, (RAM, "fp16"))
    print(f"\nstore / original loader {against_original:6.1f} x, at least {AT_LEAST_ORIGINAL}")
    print(f"    by the wall clock {ratio(store16, original, 1):.1f} x; to fp32 {ratio(store32, original):.1f} x")
    print(f"store / gather from RAM {against_ram:6.2f} x, at least {AT_LEAST_RAM}")
    print(f"    by the wall clock {ratio(store16, (RAM, 'fp16'), 1):.2f} x")
    holds = against_original >= AT_LEAST_ORIGINAL and against_ram >= AT_LEAST_RAM
    print("both hold" if holds else "NOT MET")
    return holds


def cold_rate(path: Path) -> float:
    """Images per second of reads from a file that is not in the page cache."""
    store = RegionStore(path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    order = np.random.default_rng(0).permutation(len(store))[: 4 * BATCH]
    start = time.perf_counter()
    for first in range(0, len(order), BATCH):
        store.read(order[first : first + BATCH])
    return len(order) / (time.perf_counter() - start)


class Batches(Dataset):
    """Batches of a store for a DataLoader; each tells its process's anonymous memory."""

    def __init__(self, store: RegionStore, images: int) -> None:
        self.store, self.images = store, images

    def __len__(self) -> int:
        return 4 * self.images // BATCH

    def __getitem__(self, number: int) -> int:
        self.store.read(np.random.default_rng(number).integers(0, self.images, BATCH))
        return anonymous_memory()


def anonymous_memory() -> int:
    """Bytes of this process that no file backs: what it would hold of the features, if it held any."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def memory_of(path: Path, images: int, workers: int, result: multiprocessing.Queue) -> None:
    """Read 4 x `images` random images and report by how much the reading process has grown."""
    before = anonymous_memory()
    loader = DataLoader(Batches(RegionStore(path), images), batch_size=None, num_workers=workers)
    result.put(max(loader) - before)


def print_memory(path: Path) -> None:
    """Print how much memory a reading process takes, by images read and workers."""
    images = len(RegionStore(path))
    print(f"{'anonymous memory of a reader':32}{'0 workers':>12}{'2 workers':>12}")
    fork = multiprocessing.get_context("fork")
    for share in (images // 4, images):
        grown = []
        for workers in (0, 2):
            result = fork.Queue()
            process = fork.Process(target=memory_of, args=(path, share, workers, result))
            process.start()
            grown.append(result.get())
            process.join()
        size = share * path.stat().st_size / images / 1e6
        label = f"{share} images ({size:.0f} MB of file)"
        print(f"{label:32}" + "".join(f"{value / 1e6:>9.0f} MB" for value in grown))


if __name__ == "__main__":
    sys.exit(main())
