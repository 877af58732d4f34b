"""What the benchmarks of model speed share: timing two ways in turn, counting operations, the table.

Ways run in turn, round by round, in one process; a ratio is the median of the rounds' ratios, so that a busy
machine disturbs all alike. On a CPU what counts is the processor time of all threads, on a GPU the clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


def seconds(run: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    """Duration and result of `run`; on a CPU the time of all its threads, whoever else is busy."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        result = run()
        torch.cuda.synchronize()
        return time.perf_counter() - start, result
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def flops(run: Callable[[], Tensor]) -> tuple[int, Tensor]:
    """Floating-point operations of the matrix products in `run`, and its result."""
    with FlopCounterMode(display=False) as counter:
        result = run()
    return counter.get_total_flops(), result


def warm_up(ways: Mapping[str, Callable[[], Tensor]]) -> tuple[dict[str, int], dict[str, Tensor]]:
    """Operations and results of each way."""
    counted = {name: flops(way) for name, way in ways.items()}
    return {name: each[0] for name, each in counted.items()}, {name: each[1] for name, each in counted.items()}


def peak_flops(device: torch.device) -> float:
    """Operations a second of a large bfloat16 matrix product: what this GPU reaches at best."""
    matrix = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    times = [seconds(lambda: matrix @ matrix, device)[0] for _ in range(10)]
    return 2 * 8192**3 / min(times)


def peak_memory(run: Callable[[], Tensor], device: torch.device) -> int:
    """The most bytes that `run` takes of a GPU, beside those that are taken already; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def parse(description: str, **defaults: int) -> argparse.Namespace:
    """The command line: a device, threads, and one integer option per default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    return parser.parse_args()


def print_table(title: str, rows: list[list[str]], device: torch.device, threads: int) -> None:
    """Print one row per way of computing, under the usual columns."""
    where = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {threads} thread(s) of {os.cpu_count()}"
    )
    precision = "bfloat16 autocast" if device.type == "cuda" else "float32"
    table = Table(title=f"{title}\n{where}, {precision}, torch {torch.__version__}")
    columns = ["", "rows/s", "GFLOP/row", "TFLOP/s", "ratio (min-max)"]
    columns += ["share of peak", "memory"] if device.type == "cuda" else []
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)


def table_row(
    name: str,
    rows: int,
    times: list[float],
    peer: list[float],
    operations: int,
    peak: float | None,
    memory: int,
) -> list[str]:
    """One line of the table: a way's times against those of the reference in the same rounds."""
    ratios = [other / own for own, other in zip(times, peer, strict=True)]
    rate = operations / statistics.median(times)
    return [
        name,
        f"{rows / statistics.median(times):,.1f}",
        f"{operations / rows / 1e9:.2f}",
        f"{rate / 1e12:.3g}",
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
    ] + ([f"{rate / peak:.0%}", f"{memory / 1e9:.2f} GB"] if peak else [])
