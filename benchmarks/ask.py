"""Fifty questions about one picture with `Asker`, against fifty calls of the reference library's class.

    python -m benchmarks.ask

Full size, random weights, the same features. The reference is called one question after the other, padded to 20
tokens, as the original and its demo do, and without padding; ours is one call of `ask`, which tokenises, encodes
the picture once and returns texts with probabilities. They run in turn, round by round; CPU time; the run fails
when a score differs.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.models.lxmert import modeling_lxmert as reference

from benchmarks.inference import ANSWERS, QUESTION_LENGTHS, REFERENCE_TOKENS, REGIONS
from benchmarks.timing import parse, seconds
from lxmert import Asker, LxmertConfig, LxmertForQuestionAnswering, LxmertTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def main() -> None:
    """Run both in turn and print the ratio."""
    options = parse(__doc__.splitlines()[0], questions=50, rounds=3)
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    choose = random.Random(0)
    words = [f"word{i}" for i in range(30522 - len(SPECIAL))]
    lengths = choose.choices(list(QUESTION_LENGTHS), list(QUESTION_LENGTHS.values()), k=options.questions)
    questions = [" ".join(choose.choices(words, k=length - 2)) for length in lengths]
    features = (torch.rand(REGIONS, 2048) * 3 - 1).clamp(min=0)
    boxes = torch.rand(REGIONS, 2, 2).sort(1).values.flatten(1)
    with tempfile.TemporaryDirectory() as name:
        # Wider than the published 0.02: random models answer every question alike with that.
        config = LxmertConfig(num_qa_labels=ANSWERS, initializer_range=0.05)
        config.answers = [f"answer {i}" for i in range(ANSWERS)]
        LxmertForQuestionAnswering(config).save_pretrained(name)
        (Path(name) / "vocab.txt").write_text("\n".join([*SPECIAL, *words]))
        theirs = reference.LxmertForQuestionAnswering.from_pretrained(name).to(device).eval()
        asker = Asker.open(name, device=device)
        tokenizer = LxmertTokenizer.from_pretrained(name)

    @torch.inference_mode()
    def one_by_one(**padding: Any) -> Tensor:
        visual = {"visual_feats": features[None].to(device), "visual_pos": boxes[None].to(device)}
        calls = (tokenizer(question, return_tensors="pt", **padding).to(device) for question in questions)
        return torch.cat([theirs(**call, **visual).question_answering_score for call in calls])

    def padded() -> Tensor:
        return one_by_one(padding="max_length", max_length=REFERENCE_TOKENS)

    def together() -> Tensor:
        replies = asker.ask((features, boxes), questions)
        return torch.stack([torch.from_numpy(reply.scores) for reply in replies])

    expected, got = padded().cpu(), together()
    difference = (got - expected).abs().max().item()
    ratios: dict[str, list[float]] = {"padded to 20 tokens": [], "without padding": []}
    for _ in range(options.rounds):
        ours = seconds(together, device)[0]
        for way, peer in zip(ratios, (padded, one_by_one), strict=True):
            ratios[way].append(seconds(peer, device)[0] / ours)
    print(f"{options.questions} questions in {ours:.2f} s; largest difference of a score {difference:.1e}")
    for way, found in ratios.items():
        print(
            f"  against single calls {way}: {statistics.median(found):.2f} x ({min(found):.2f}-{max(found):.2f})"
        )
    if difference > 1e-3:
        raise SystemExit("expected a difference below 1e-3")


if __name__ == "__main__":
    main()
