"""How fast a TSV of regions becomes a region store, against merely reading and decoding the same lines.

    python -m benchmarks.conversion

The floor: every line read once, its six arrays decoded with pybase64 (three times as fast as the standard
library's) and dropped. The conversion reads the file twice, checks every value, computes its SHA-256, casts to
float16 and has the store on the disk when it ends. The two run in turn on one synthetic file: lines per CPU
second, which other people's work on the machine disturbs least, and per second of wall-clock time; the median
over rounds. The ratio of the CPU figures must be at least 0.5, and memory may not grow with the file.
"""

from __future__ import annotations

import argparse
import base64
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pybase64
import torch

from datamodules.convert import convert_tsv

AT_LEAST = 0.5
ENCODED = (3, 4, 5, 6, 8, 9)  # the columns in base64
DISTINCT = 64  # images made; the file repeats their arrays under new ids
MOST_GROWTH = 0.05  # of the file's growth: the index grows by some 200 bytes a line, and the allocator breathes


def main() -> int:
    """Make the file, measure, print; 1 where the ratio or the memory does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--regions", type=int, default=36)
    parser.add_argument("--feature-dim", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        source, quarter = Path(folder) / "regions.tsv", Path(folder) / "quarter.tsv"
        write_tsv(source, options.images, options.regions, options.feature_dim)
        write_tsv(quarter, options.images // 4, options.regions, options.feature_dim)
        print(
            f"{options.images} lines of {options.regions} regions x {options.feature_dim} features, "
            f"{source.stat().st_size / 1e6:.0f} MB, one thread\n"
        )
        constant = print_memory([quarter, source])
        holds = print_rates(source, options.images, options.rounds)
        return 0 if constant and holds else 1


def write_tsv(path: Path, images: int, regions: int, dim: int) -> None:
    """A TSV as the LXMERT release writes it, its features distributed as real ones: a third zeros."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(min(images, DISTINCT)):
        corners = np.sort(rng.random((regions, 2, 2), np.float32), axis=1) * np.array([640, 480], np.float32)
        arrays: list[np.ndarray] = [
            rng.integers(0, 1600, regions),
            rng.random(regions, np.float32),
            rng.integers(0, 400, regions),
            rng.random(regions, np.float32),
            corners.reshape(regions, 4),
            (rng.standard_normal((regions, dim), np.float32) + 0.4).clip(min=0),
        ]
        rows.append([base64.b64encode(array.tobytes()) for array in arrays])
    with path.open("wb") as file:
        for image in range(images):
            *labels, boxes, features = rows[image % DISTINCT]
            fields = [b"IMAGE_%012d" % image, b"480", b"640", *labels, b"%d" % regions, boxes, features]
            file.write(b"\t".join(fields) + b"\r\n")


def read_and_decode(source: Path) -> None:
    """The floor: nothing but reading and decoding."""
    with source.open("rb") as file:
        for line in file:
            fields = line.split(b"\t")
            for column in ENCODED:
                pybase64.b64decode_as_bytearray(fields[column].rstrip(), validate=True)


def convert(source: Path) -> None:
    """A whole conversion."""
    convert_tsv(source, source.with_suffix(".h5"), progress=False)


def print_rates(source: Path, lines: int, rounds: int) -> bool:
    """Measure both in turn and print the table; whether the ratio holds."""
    ways: dict[str, Callable[[Path], None]] = {"read + decode": read_and_decode, "conversion": convert}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first warms up and does not count
        for name in list(ways)[:: -1 if number % 2 else 1]:
            source.with_suffix(".h5").unlink(missing_ok=True)
            cpu, wall = time.process_time(), time.perf_counter()
            ways[name](source)
            if number:
                seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    print(f"{'lines per':20}{'CPU second':>12}{'second':>12}")
    for name, times in seconds.items():
        rates = [lines / statistics.median(time_[clock] for time_ in times) for clock in (0, 1)]
        print(f"{name:20}" + "".join(f"{rate:>12,.0f}" for rate in rates))
    pairs = list(zip(seconds["read + decode"], seconds["conversion"], strict=True))
    by_cpu, by_wall = ([floor[clock] / ours[clock] for floor, ours in pairs] for clock in (0, 1))
    ratio = statistics.median(by_cpu)
    print(
        f"\nconversion / read + decode {ratio:.2f} x ({min(by_cpu):.2f}-{max(by_cpu):.2f}), at least {AT_LEAST}; "
        f"by the wall clock {statistics.median(by_wall):.2f} x"
    )
    print("holds" if ratio >= AT_LEAST else "NOT MET")
    return ratio >= AT_LEAST


def anonymous_peak(source: Path, result: multiprocessing.Queue) -> None:
    """Convert and report by how many bytes this process's peak of resident memory has grown."""
    before = peak_memory()
    convert(source)
    result.put(peak_memory() - before)


def peak_memory() -> int:
    """The most bytes of memory that this process has had resident so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def print_memory(sources: list[Path]) -> bool:
    """Print the peak memory of a conversion of each file; whether it stays the same as they grow."""
    fork = multiprocessing.get_context("fork")
    grown = []
    for source in sources:
        result = fork.Queue()
        process = fork.Process(target=anonymous_peak, args=(source, result))
        process.start()
        grown.append(result.get())
        process.join()
        size = source.stat().st_size
        print(f"memory of a conversion of {size / 1e6:5.0f} MB: {grown[-1] / 1e6:5.1f} MB more than before it")
    constant = grown[-1] - grown[0] < MOST_GROWTH * (sources[-1].stat().st_size - sources[0].stat().st_size)
    print(f"memory is {'constant' if constant else 'NOT CONSTANT'}\n")
    return constant


if __name__ == "__main__":
    sys.exit(main())
