"""A VQA training step at the published size against `transformers`: forward, loss, backward.

    python -m benchmarks.training_step

The optimiser is left out: both libraries use the same one. Same weights, same questions, dropout on, a
batch of 32 rows; ours once with an image of its own for each row, once with 4 questions an image (which
then share the dropout of the image's encoder). The reference does the same work either way, so one run
of it a round serves both ratios. See `benchmarks/timing.py` for how the runs are compared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.inference import ANSWERS, Work, answer, models, questions
from benchmarks.timing import parse, peak_flops, peak_memory, print_table, seconds, table_row, warm_up
from lxmert.pretrained import answer_loss


def main() -> None:
    """Run the steps in turn and print the table."""
    options = parse(__doc__.splitlines()[0], rows=32, per_image=4, rounds=2)
    if options.rows % options.per_image:
        raise SystemExit(f"--rows {options.rows} is not a multiple of --per-image {options.per_image}")
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    theirs, ours = models(device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    labels = (torch.rand(options.rows, ANSWERS, device=device) - 0.999).clamp(min=0) * 1000

    def step(score: Callable[[], Tensor]) -> Tensor:
        with autocast:
            scores = score()
            loss = answer_loss(scores, labels[: len(scores)])
        loss.backward()
        return loss.detach()

    grouped = f"ours, {options.per_image} questions an image"
    ways: dict[str, Callable[[Work, Work], Tensor]] = {
        "transformers": lambda distinct, shared: step(lambda: theirs(**distinct.call).question_answering_score),
        "ours, distinct images": lambda distinct, shared: step(lambda: answer(ours, distinct.batch)),
        grouped: lambda distinct, shared: step(lambda: answer(ours, shared.batch)),
    }

    def draw(rows: int, seed: int) -> tuple[Work, Work]:
        return (
            questions(rows, 1, seed, device),
            questions(rows // options.per_image, options.per_image, seed, device),
        )

    trained = [theirs, ours]

    def clear() -> None:  # outside the timing, as an optimiser's zero_grad would be
        for model in trained:
            model.zero_grad()

    # A few rows suffice to warm up and to count operations, which on a CPU take as long as a round.
    few = 2 * options.per_image
    # Without dropout, so that losses can be compared.
    counts, losses = warm_up({name: functools.partial(way, *draw(few, 0)) for name, way in ways.items()})
    operations = {name: count * options.rows // few for name, count in counts.items()}
    theirs_alone, ours_alone = (losses[name].item() for name in list(ways)[:2])
    for model in trained:
        model.train()

    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds):
        work = draw(options.rows, number + 1)
        for name in list(ways)[:: -1 if number % 2 else 1]:
            clear()
            times[name].append(seconds(functools.partial(ways[name], *work), device)[0])

    memory = {}
    for name, way in ways.items():
        clear()
        memory[name] = peak_memory(functools.partial(way, *work), device)
    peak = peak_flops(device) if device.type == "cuda" else None
    print_table(
        f"VQA training step: {options.rounds} rounds of {options.rows} rows",
        [
            table_row(name, options.rows, times[name], times["transformers"], operations[name], peak, memory[name])
            for name in ways
        ],
        device,
        options.threads,
    )
    difference = abs(theirs_alone - ours_alone)
    print(f"loss without dropout: {theirs_alone:.4f} and {ours_alone:.4f}, difference {difference:.1e}")


if __name__ == "__main__":
    main()
