"""VQA inference at the published size, five questions an image, against `transformers`.

    python -m benchmarks.inference

Both libraries get the same weights and the same questions. The reference pads to its fixed 20 tokens and
encodes an image again for each of its questions; ours encodes each image once and computes no padding.
The two run in turn, round by round, in one process; the ratio is the median of the rounds' ratios, so
that a busy machine disturbs both alike. On a CPU: float32, CPU time, and the run fails when an answer
differs or the ratio is below 1.9. On a GPU: bfloat16 autocast, wall time; `benchmarks.gpu` does more there.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.models.lxmert import modeling_lxmert as reference

from benchmarks.timing import parse, peak_flops, peak_memory, print_table, seconds, table_row, warm_up
from lxmert import LxmertConfig, LxmertForQuestionAnswering
from lxmert.batch import Batch

REFERENCE_TOKENS = 20  # the original's fixed length
REGIONS = 36
ANSWERS = 3129  # of VQA v2
AT_LEAST = 1.9
# Share in percent of each length among questions, [CLS] and [SEP] included: VQA v2's mean is about 9.
QUESTION_LENGTHS = {6: 8, 7: 18, 8: 22, 9: 19, 10: 13, 11: 9, 12: 5, 13: 3, 14: 3}


@dataclass
class Work:
    """The same questions for both libraries."""

    batch: Batch  # ours
    call: dict[str, Tensor]  # the reference's


def models(device: torch.device) -> tuple[torch.nn.Module, LxmertForQuestionAnswering]:
    """The reference's and our model of the published size with the same random weights."""
    torch.manual_seed(0)
    # Wider than the published 0.02: random models answer every question alike with that.
    ours = LxmertForQuestionAnswering(LxmertConfig(num_qa_labels=ANSWERS, initializer_range=0.05))
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        theirs = reference.LxmertForQuestionAnswering.from_pretrained(folder)
    return theirs.to(device).eval(), ours.to(device).eval()


def questions(images: int, per_image: int, seed: int, device: torch.device) -> Work:
    """`images` times `per_image` rows with random words and regions, of realistic lengths."""
    make = torch.Generator().manual_seed(seed)
    rows = images * per_image
    lengths, shares = (torch.tensor(list(side)) for side in (QUESTION_LENGTHS, QUESTION_LENGTHS.values()))
    drawn = lengths[torch.multinomial(shares.float(), rows, replacement=True, generator=make)]
    mask = torch.arange(REFERENCE_TOKENS) < drawn[:, None]
    ids = torch.randint(1000, 30522, (rows, REFERENCE_TOKENS), generator=make) * mask
    ids[:, 0] = 101
    ids[torch.arange(rows), drawn - 1] = 102
    # About a third of a real detector's numbers are zero.
    features = (torch.rand(images, REGIONS, 2048, generator=make) * 3 - 1).clamp(min=0)
    boxes = torch.rand(images, REGIONS, 2, 2, generator=make).sort(2).values.flatten(2)
    row_image = torch.arange(images).repeat_interleave(per_image)
    longest = int(drawn.max())
    batch = Batch(
        token_ids=ids[:, :longest],
        token_mask=mask[:, :longest],
        region_features=features,
        region_boxes=boxes,
        region_mask=torch.ones(images, REGIONS, dtype=torch.bool),
        row_sentence=torch.arange(rows),
        row_image=row_image,
    )
    call = {
        "input_ids": ids,
        "attention_mask": mask.long(),
        "visual_feats": features[row_image],
        "visual_pos": boxes[row_image],
    }
    return Work(batch.to(device), {name: tensor.to(device) for name, tensor in call.items()})


def answer(model: LxmertForQuestionAnswering, batch: Batch) -> Tensor:
    """(R, answers) scores of a batch."""
    return model.answer_head(model.lxmert.encode(batch, {"pooled"}).pooled_output)


@torch.inference_mode()
def main() -> None:
    """Run both libraries in turn and print the table."""
    options = parse(__doc__.splitlines()[0], images=6, per_image=5, rounds=4)
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    theirs, ours = models(device)
    rows = options.images * options.per_image
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    ways: dict[str, Callable[[Work], Tensor]] = {
        "transformers": lambda work: theirs(**work.call).question_answering_score,
        "ours": lambda work: answer(ours, work.batch),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    difference, same, answers = 0.0, 0, set()
    with autocast:
        work = questions(options.images, options.per_image, 0, device)
        operations, _ = warm_up({name: functools.partial(way, work) for name, way in ways.items()})
        for number in range(options.rounds):
            work = questions(options.images, options.per_image, number + 1, device)
            scores = {}
            order = list(ways)[:: -1 if number % 2 else 1]
            for name in order:
                duration, scores[name] = seconds(functools.partial(ways[name], work), device)
                times[name].append(duration)
            difference = max(difference, (scores["ours"] - scores["transformers"]).abs().max().item())
            best = {name: score.argmax(1) for name, score in scores.items()}
            same += int((best["ours"] == best["transformers"]).sum())
            answers.update(best["ours"].tolist())

        memory = {name: peak_memory(functools.partial(ways[name], work), device) for name in ways}

    peak = peak_flops(device) if device.type == "cuda" else None
    print_table(
        f"VQA inference: {options.rounds} rounds of {options.images} images x {options.per_image} questions",
        [
            table_row(name, rows, times[name], times["transformers"], operations[name], peak, memory[name])
            for name in ways
        ],
        device,
        options.threads,
    )
    total = rows * options.rounds
    print(f"same answer: {same} of {total} rows ({len(answers)} different answers)")
    print(f"largest difference of a score: {difference:.1e}")
    if device.type == "cpu":
        ratio = statistics.median(
            other / own for own, other in zip(times["ours"], times["transformers"], strict=True)
        )
        if same != total or ratio < AT_LEAST:
            raise SystemExit(f"expected the same answers and a ratio of at least {AT_LEAST}")


if __name__ == "__main__":
    main()
