"""Explaining the answer to one question at the published size, against its plain forward pass.

    python -m benchmarks.explain

One question of 20 words about 36 regions, random weights: the model's answer, and what each method of
`lxmert.explain` takes for the answer and its explanation together. All run in turn, round by round, in one
process; a ratio is the median of the rounds' ratios. On a CPU what counts is the processor time of all threads;
the run fails there when relevancy takes more than 5 times as long as the answer alone.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.inference import ANSWERS, REGIONS, answer
from benchmarks.timing import parse, seconds
from lxmert import LxmertConfig, LxmertForQuestionAnswering
from lxmert.batch import Batch
from lxmert.explain import METHODS, explain

WORDS = 20
AT_MOST = 5


def question(seed: int, device: torch.device) -> Batch:
    """One row with random words and regions, nothing padded."""
    make = torch.Generator().manual_seed(seed)
    ids = torch.randint(1000, 30522, (1, WORDS), generator=make)
    ids[0, 0], ids[0, -1] = 101, 102
    return Batch(
        token_ids=ids,
        token_mask=torch.ones(1, WORDS, dtype=torch.bool),
        region_features=(torch.rand(1, REGIONS, 2048, generator=make) * 3 - 1).clamp(min=0),
        region_boxes=torch.rand(1, REGIONS, 2, 2, generator=make).sort(2).values.flatten(2),
        region_mask=torch.ones(1, REGIONS, dtype=torch.bool),
        row_sentence=torch.tensor([0]),
        row_image=torch.tensor([0]),
    ).to(device)


def main() -> None:
    """Run all in turn and print the table."""
    options = parse(__doc__.splitlines()[0], rounds=15)
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = LxmertForQuestionAnswering(LxmertConfig(num_qa_labels=ANSWERS)).to(device).eval()

    def plain(batch: Batch) -> Tensor:
        with torch.inference_mode():
            return answer(model, batch)

    def explained(method: str, batch: Batch) -> Tensor:
        return explain(model, batch, method=method).regions

    ways: dict[str, Callable[[Batch], Tensor]] = {"answer": plain}
    ways |= {method: functools.partial(explained, method) for method in METHODS}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-2, options.rounds):  # two to warm up
        batch = question(number + 2, device)
        for name in list(ways)[:: -1 if number % 2 else 1]:
            duration, _ = seconds(functools.partial(ways[name], batch), device)
            if number >= 0:
                times[name].append(duration)

    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {options.threads} thread(s)"
    table = Table(title=f"one question, {WORDS} words, {REGIONS} regions, {options.rounds} rounds, {where}")
    for column in ("", "ms", "times the answer (min-max)"):
        table.add_column(column, justify="right" if column else "left")
    medians = {}
    for name, own in times.items():
        ratios = [one / other for one, other in zip(own, times["answer"], strict=True)]
        medians[name] = statistics.median(ratios)
        table.add_row(
            name,
            f"{1000 * statistics.median(own):.0f}",
            f"{medians[name]:.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
        )
    Console(width=100).print(table)
    if device.type == "cpu" and medians["relevancy"] > AT_MOST:
        raise SystemExit(f"expected relevancy in at most {AT_MOST} times the time of the answer")


if __name__ == "__main__":
    main()
