"""How many operations a training step starts: eager in bfloat16, by autocast and by ours, and compiled.

    python -m benchmarks.operations
    python -m benchmarks.operations --compile    (minutes)

Counted by a dispatch mode: every operation that computes or moves numbers, forward and backward, without views and
without the optimiser. A GPU starts a kernel or several for each, so their number bounds a step of little
arithmetic.
Compiled: the kernels and library calls in the programs that Inductor writes, for a CPU where there is no GPU. The
published depth at a small width, since width changes none of it, and attention without dropout, which a CPU would
compute openly. The run fails above the goals.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.pretraining_step import captions
from lxmert import LxmertConfig
from lxmert.batch import Batch
from lxmert.learner import LxmertLearner
from lxmert.model import Lxmert
from lxmert.objectives.answering import Answering
from lxmert.objectives.masked_language import MaskedLanguage
from lxmert.objectives.masked_region import MaskedRegion
from lxmert.objectives.matching import Matching
from lxmert.objectives.question_answering import QuestionAnswering
from lxmert.objectives.shapes import BARE, Shapes, with_features
from lxmert.optim import bert_adam

EAGER, COMPILED = 1800, 1000  # the goals: operations, kernels
ANSWERS = [str(number) for number in range(20)]
CONVERSIONS = ("_to_copy", "_foreach_copy_")
# What takes memory or looks at it alone.
NOTHING = {"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "detach", "alias"}


class Counted(TorchDispatchMode):
    """Counts operations by name in `counts` while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if not func.is_view and name not in NOTHING and "view" not in name:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def learners() -> dict[str, LxmertLearner]:
    """Of the published depth, by what they learn."""
    config = LxmertConfig(
        hidden_size=24,
        num_attention_heads=2,
        intermediate_size=48,
        attention_probs_dropout_prob=0.0,
        num_qa_labels=len(ANSWERS),
        answers=ANSWERS,
    )
    tasks: dict[str, dict[str, Any]] = {
        "VQA": {"answering": Answering},
        "pre-training": {
            "matching": Matching,
            "masked_language": MaskedLanguage,
            "masked_region": MaskedRegion,
            "question_answering": QuestionAnswering,
        },
    }
    return {
        task: LxmertLearner(
            Lxmert(config),
            {name: make(config) for name, make in objectives.items()},
            bert_adam,
            warmup=0.05,
            label_names={},
            seed=0,
        ).train()
        for task, objectives in tasks.items()
    }


def batch_of(seed: int = 0) -> Batch:
    """16 captions and questions."""
    batch = captions(16, 1, seed)
    targets = {"answer": batch.targets["answer"].clamp(max=len(ANSWERS) - 1)}
    targets["answer_scores"] = torch.rand(batch.num_rows, len(ANSWERS))
    return replace(batch, targets={**batch.targets, **targets})


def prepared(learner: LxmertLearner, batch: Batch) -> Batch:
    """As it comes to the learner's `forward`."""
    return learner.on_before_batch_transfer(batch, 0)


def operations(learner: LxmertLearner, *, autocast: bool) -> Counter[str]:
    """Of an eager step."""
    batch = prepared(learner, batch_of())
    with Counted() as counted, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = torch.stack(list(learner._compute_losses(batch).values())).sum()
        loss.backward()
    return counted.counts


def kernels(learner: LxmertLearner) -> Counter[str]:
    """Of a compiled step, by library call; those that Inductor writes are "written"."""
    from torch._inductor.utils import run_and_get_code  # it takes seconds to import

    shapes = Shapes(20, 36, learner.objectives.values())  # type: ignore[arg-type]
    ready = [prepared(learner, shapes.lengthen(batch_of(seed))) for seed in range(4)]
    shapes.measure(ready)
    batch = with_features(replace(shapes.fill(ready[0]), **BARE))
    step = torch.compile(learner._compute_losses, fullgraph=True, dynamic=False)

    def run() -> Tensor:
        loss = torch.stack(list(step(batch).values())).sum()
        loss.backward()
        return loss

    _, programs = run_and_get_code(run)
    found: Counter[str] = Counter()
    call = re.compile(
        r"^\s+(?:\w+ = )?(?:(extern_kernels\.\w+|torch\.ops\.[\w.]+)|(?:\w*_fused_\w+?)(?:\.run)?)\(", re.M
    )
    for program in programs:
        for match in call.finditer(program[program.index("def call(") :]):
            found[match[1] or "written"] += 1
    return found


def main() -> int:
    """Count and print; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile", action="store_true", help="count kernels too")
    options = parser.parse_args()
    met = True
    for task, learner in learners().items():
        half = copy.deepcopy(learner)
        half.compute_in(torch.bfloat16)
        for name, counts in (
            ("autocast", operations(learner, autocast=True)),
            ("weights cast once", operations(half, autocast=False)),
        ):
            total, conversions = sum(counts.values()), sum(counts[each] for each in CONVERSIONS)
            print(f"{task}, eager, {name}: {total:,} operations, {conversions} of them conversions")
        met &= total <= EAGER
        if options.compile:
            counts = kernels(half)
            total = sum(counts.values())
            print(
                f"{task}, compiled: {total} kernels: "
                + ", ".join(f"{n} {each}" for each, n in counts.most_common())
            )
            met &= total <= COMPILED
    print(f"goals, at most {EAGER:,} and {COMPILED:,}: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
