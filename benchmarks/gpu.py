"""What a GPU does with it: training steps and inference, eager, compiled, as CUDA graphs, beside `transformers`.

    python -m benchmarks.gpu              (a GPU; about 8 minutes)
    python -m benchmarks.gpu --tiny       (any machine: the same way through, at sizes that say nothing)

Full size, 36 regions, bfloat16, dropout on, whole steps: forward, losses, backward, clipping, fused optimiser.
The ways take turns; speed is the median over the rounds of rows a second, its ratio to `transformers` as its users
run it (eager, autocast) in the same round. The share is of what a large bfloat16 product reaches on the same GPU,
of the operations that the batch needs (`transformers`' own for it); memory is what a step takes beside weights and
optimiser; kernels are those of one step. After the first table `train.py` runs the published pre-training through
the data modules, on a generated set with features of full size. The most important comes first: what does not fit
into `--minutes` is named and left out.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.autograd import DeviceType
from torch.nn.utils import clip_grad_norm_, get_total_norm
from transformers.models.lxmert import modeling_lxmert as reference
from transformers.utils.logging import disable_progress_bar

from benchmarks import inference, pretraining_step
from benchmarks.pretraining_data import write_set
from benchmarks.timing import flops, peak_flops, peak_memory
from lxmert import LxmertConfig
from lxmert.batch import Batch
from lxmert.heads import answer_loss
from lxmert.learner import LxmertLearner
from lxmert.model import Lxmert
from lxmert.objectives.answering import Answering
from lxmert.objectives.shapes import BARE, Shapes, compiled, with_features
from lxmert.optim import bert_adam, scale_in_step

ROOT = Path(__file__).parents[1]
THEIRS, THEIRS_COMPILED = "transformers", "transformers, compiled"
EAGER, COMPILED, GRAPHS = "eager", "compiled", "CUDA graphs"
ROUNDS, BATCHES, SECONDS = 3, 3, 0.7  # the seconds of each way in a round
TOKENS, CLIP = 20, 1.0
TINY = {
    "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 48, "l_layers": 1, "r_layers": 1,
    "x_layers": 1,
}  # fmt: skip
COMPILING = 100  # seconds that a compilation of full size is expected to take


@dataclass
class Case:
    """One table: the same batches in several ways.

    Args:
        title: what is done.
        rows: of a batch.
        ways: name -> makes a function that does the work with a batch of that number, and returns a scalar.
    """

    title: str
    rows: int
    ways: dict[str, Callable[[], Callable[[int], Tensor]]]


@dataclass
class Found:
    """What was measured of one way."""

    speeds: list[float] = field(default_factory=list)  # rows a second, a round each
    memory: int = 0
    kernels: int = 0
    operations: int = 0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="after which nothing new is begun")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the script out")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU; --tiny goes through it on a CPU")
    disable_progress_bar()  # of transformers, while it loads weights
    until = time.monotonic() + 60 * options.minutes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    peak = peak_flops(device) if device.type == "cuda" else None
    print(f"{name}, torch {torch.__version__}, bfloat16" + (f", peak {peak / 1e12:.0f} TFLOP/s" if peak else ""))
    sizes = (4, 8, 8) if options.tiny else (32, 256, 1024)
    for number, case in enumerate(cases(sizes, options.tiny, device)):
        if found := measure(case, until, device):
            table(case, found, peak)
        if number == 0:
            run_through_data(options.tiny, device)
    return 0


# ------------------------------------------------------------------------------------------------ measuring


def measure(case: Case, until: float, device: torch.device) -> dict[str, Found]:
    """Each way of a case, in turn."""
    steps: dict[str, Callable[[int], Tensor]] = {}
    found: dict[str, Found] = {}
    for name, make in case.ways.items():
        slow = name in (THEIRS_COMPILED, COMPILED, GRAPHS)
        if time.monotonic() + COMPILING * slow > until:
            print(f"{case.title}, {case.rows} rows, {name}: left out, --minutes are over")
            continue
        torch._dynamo.reset()
        step = make()
        found[name] = Found()
        if not slow:
            found[name].operations, _ = flops(lambda step=step: step(0))  # type: ignore[misc]
        for number in range(2 * BATCHES):
            step(number % BATCHES)
        steps[name] = step
    for round_ in range(ROUNDS):
        for name in list(steps)[:: -1 if round_ % 2 else 1]:
            found[name].speeds.append(case.rows * rate(steps[name], device))
    for name, step in steps.items():
        found[name].memory = peak_memory(lambda step=step: step(0), device)  # type: ignore[misc]
        found[name].kernels = kernels(lambda step=step: step(0)) if device.type == "cuda" else 0  # type: ignore[misc]
        own = THEIRS if name == THEIRS_COMPILED else EAGER
        found[name].operations = found[name].operations or found.get(own, Found()).operations
    return found


def rate(step: Callable[[int], Tensor], device: torch.device) -> float:
    """Steps a second."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    wait()
    start, number = time.perf_counter(), 0
    while True:
        for _ in range(BATCHES):
            step(number % BATCHES)
            number += 1
        wait()
        if (passed := time.perf_counter() - start) > SECONDS:
            return number / passed


def kernels(run: Callable[[], Tensor]) -> int:
    """How many a GPU does in one step, copies included."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    return sum(event.device_type == DeviceType.CUDA for event in profile.events())


def table(case: Case, found: dict[str, Found], peak: float | None) -> None:
    """Print what was found."""
    shown = Table(title=f"{case.title}, {case.rows} rows")
    for column in ("", "rows/s", "GFLOP/row", "speed (lowest-highest)", "share of peak", "memory", "kernels"):
        shown.add_column(column, justify="right" if column else "left")
    peer = found[THEIRS].speeds if THEIRS in found else None
    for name, each in found.items():
        speed, ratio, share = statistics.median(each.speeds), "-", "-"
        if peer:
            ratios = [a / b for a, b in zip(each.speeds, peer, strict=True)]
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        if peak and each.operations:
            share = f"{each.operations / case.rows * speed / peak:.0%}"
        shown.add_row(
            name, f"{speed:,.0f}", f"{each.operations / case.rows / 1e9:.1f}", ratio, share,
            f"{each.memory / 1e9:.2f} GB", str(each.kernels or "-"),
        )  # fmt: skip
    Console(width=120).print(shown)


# ------------------------------------------------------------------------------------------------ the work


def cases(sizes: tuple[int, int, int], tiny: bool, device: torch.device) -> Iterator[Case]:
    """What is measured, the most important first."""
    graphs = [GRAPHS] if device.type == "cuda" else []
    few, many, most = sizes
    yield pretraining(many, [THEIRS, EAGER, COMPILED, *graphs, THEIRS_COMPILED], tiny, device)
    yield vqa(few, [THEIRS, EAGER, COMPILED, *graphs], tiny, device)
    yield answering(most, [THEIRS, EAGER, COMPILED], tiny, device)
    yield pretraining(most, [THEIRS, EAGER, COMPILED], tiny, device)
    yield vqa(many, [THEIRS, EAGER, COMPILED, *graphs], tiny, device)
    yield pretraining(few, [THEIRS, EAGER, *graphs], tiny, device)
    yield vqa(most, [THEIRS, EAGER], tiny, device)
    yield answering(many, [THEIRS, EAGER], tiny, device)


def pretraining(rows: int, ways: list[str], tiny: bool, device: torch.device) -> Case:
    """A pre-training step with all of the published losses, an image of its own for each row."""
    theirs, ours = pretraining_step.models(device, **(TINY if tiny else {}))
    ours.compute_in(torch.bfloat16)
    raw = [pretraining_step.captions(rows, 1, seed) for seed in range(BATCHES)]
    calls = [pretraining_step.masked(ours, batch, device).call for batch in raw]
    batches = filled(ours, raw, device)
    return Case(
        "pre-training step",
        rows,
        {
            name: (lambda: their_training(theirs, lambda n: theirs(**calls[n]).loss, device))
            if name == THEIRS
            else (lambda: their_compiled_training(theirs, calls, device))
            if name == THEIRS_COMPILED
            else (lambda name=name: our_training(ours, batches, name))  # type: ignore[misc]
            for name in ways
        },
    )


def vqa(rows: int, ways: list[str], tiny: bool, device: torch.device) -> Case:
    """A VQA step, an image of its own for each row."""
    theirs, ours, raw, calls = question_answering(rows, 1, tiny, device)
    labels = (torch.rand(rows, inference.ANSWERS, device=device) - 0.999).clamp(min=0) * 1000
    raw = [replace(batch, targets={"answer_scores": labels.cpu()}) for batch in raw]
    batches = filled(ours, raw, device)

    def loss(number: int) -> Tensor:
        return answer_loss(theirs(**calls[number]).question_answering_score, labels)

    return Case(
        "VQA step",
        rows,
        {
            name: (lambda: their_training(theirs, loss, device))
            if name == THEIRS
            else (lambda name=name: our_training(ours, batches, name))  # type: ignore[misc]
            for name in ways
        },
    )


def answering(rows: int, ways: list[str], tiny: bool, device: torch.device) -> Case:
    """Inference, four questions an image."""
    theirs, ours, raw, calls = question_answering(rows // 4, 4, tiny, device)
    batches = filled(ours, raw, device)

    def scores(batch: Batch) -> dict[str, Tensor]:
        return ours(batch)["answering"].predictions

    def infer(name: str) -> Callable[[int], Tensor]:
        ours.eval()
        theirs.eval()
        ask = compiled(scores, cuda_graphs=False) if name == COMPILED else scores

        @torch.inference_mode()
        def run(number: int) -> Tensor:
            if name == THEIRS:
                with torch.autocast(device.type, torch.bfloat16):
                    return theirs(**calls[number]).question_answering_score.sum()
            return ask(batches[number])["answer_scores"].sum()

        return run

    return Case("inference, 4 questions an image", rows, {name: (lambda name=name: infer(name)) for name in ways})  # type: ignore[misc]


def question_answering(
    images: int, per_image: int, tiny: bool, device: torch.device
) -> tuple[reference.LxmertForQuestionAnswering, LxmertLearner, list[Batch], list[dict[str, Tensor]]]:
    """The reference, our learner with other weights, our batches, not yet filled, and the same as its calls."""
    answers = [str(number) for number in range(inference.ANSWERS)]
    sizes = TINY if tiny else {}
    config = LxmertConfig(num_qa_labels=len(answers), answers=answers, **sizes)
    theirs = reference.LxmertForQuestionAnswering(reference.LxmertConfig(num_qa_labels=len(answers), **sizes))
    objectives = {"answering": Answering(config)}
    ours = LxmertLearner(Lxmert(config), objectives, bert_adam, warmup=0.1, label_names={}, seed=0)
    work = [inference.questions(images, per_image, seed, device) for seed in range(BATCHES)]
    ours.to(device).compute_in(torch.bfloat16)
    return theirs.to(device), ours, [each.batch.to("cpu") for each in work], [each.call for each in work]


def filled(learner: LxmertLearner, raw: list[Batch], device: torch.device) -> list[Batch]:
    """Batches as a compiled training has them."""
    shapes = Shapes(TOKENS, inference.REGIONS, learner.objectives.values())  # type: ignore[arg-type]
    ready = [learner.train().on_before_batch_transfer(shapes.lengthen(batch), 0) for batch in raw]
    shapes.measure(ready)
    return [with_features(replace(shapes.fill(batch), **BARE).to(device)) for batch in ready]


def their_training(
    model: torch.nn.Module, loss_of: Callable[[int], Tensor], device: torch.device
) -> Callable[[int], Tensor]:
    """A step as its users do it."""
    model.train()
    optimizer = bert_adam(list(model.named_parameters()), 1e-6)

    def step(number: int) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            loss = loss_of(number)
        loss.backward()
        clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def their_compiled_training(
    model: torch.nn.Module, calls: list[dict[str, Tensor]], device: torch.device
) -> Callable[[int], Tensor]:
    """The same with its model compiled."""
    graph = torch.compile(model, dynamic=False)
    return their_training(model, lambda number: graph(**calls[number]).loss, device)


def our_training(learner: LxmertLearner, batches: list[Batch], way: str) -> Callable[[int], Tensor]:
    """A step as the learner's trainer does it."""
    learner.train()
    optimizer = bert_adam(list(learner.named_parameters()), 1e-6)
    learnt = [each for each in learner.parameters() if each.requires_grad]
    losses_of = learner._compute_losses
    if way != EAGER:
        losses_of = compiled(losses_of, cuda_graphs=way == GRAPHS)

    def step(number: int) -> Tensor:
        loss = torch.stack(list(losses_of(batches[number]).values())).sum()
        loss.backward()
        scale_in_step(optimizer, get_total_norm([each.grad for each in learnt if each.grad is not None]), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


# ------------------------------------------------------------------------------------------------ the whole


def run_through_data(tiny: bool, device: torch.device) -> None:
    """Pre-training by `train.py` on generated data, with and without the features on the device."""
    images, features = (200, 16) if tiny else (2000, 2048)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_set(folder, images, inference.REGIONS, features)
        for on_device in (False, True):
            outputs = folder / f"outputs_{on_device}"
            command = [sys.executable, str(ROOT / "train.py"), f"paths.data={folder}", f"paths.outputs={outputs}"]
            start = time.perf_counter()
            run = [*command, *overrides(folder, features, on_device, tiny, device)]
            done = subprocess.run(run, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{' '.join(run)} failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            where = "on the device" if on_device else "read and sent"
            [log] = outputs.glob("pretrain/*/logs/metrics.csv")
            said = throughput(log)
            print(f"train.py, features {where}: {said}; {time.perf_counter() - start:.0f} s in all")


def overrides(folder: Path, features: int, on_device: bool, tiny: bool, device: torch.device) -> list[str]:
    """What `train.py` is asked for, beside its folders."""
    rows, steps = (8, 12) if tiny else (256, 300)
    on_gpu = device.type == "cuda"
    return [
        *("experiment=pretrain", f"data.tokenizer={folder}/vocab.txt", "data.train=mscoco_train"),
        *(f"data.batch_size={rows}", f"model.visual_feat_dim={features}", f"trainer.max_steps={steps}"),
        *("trainer.num_sanity_val_steps=0", "trainer.limit_val_batches=0", "trainer.limit_test_batches=0"),
        *("trainer=gpu" if on_gpu else "trainer=cpu", f"compile={'cuda_graphs' if on_gpu else 'false'}"),
        *(f"trainer.log_every_n_steps={steps // 6}", "trainer.precision=bf16-mixed"),
        *(
            f"data.regions_on_device={on_device}",
            *(f"model.{name}={value}" for name, value in TINY.items() if tiny),
        ),
    ]


def throughput(log: Path) -> str:
    """Rows a second of a run and the share of its time without data, by what it logged."""
    with log.open(newline="") as file:
        logged = [row for row in csv.DictReader(file) if row.get("train/rows_per_s")][2:]  # the first ones compile
    speeds, waits = ([float(row[f"train/{name}"]) for row in logged] for name in ("rows_per_s", "data_wait"))
    return (
        f"{statistics.median(speeds):,.0f} rows/s ({min(speeds):,.0f}-{max(speeds):,.0f}), "
        f"{statistics.median(waits):.0%} of the time without data"
    )


if __name__ == "__main__":
    sys.exit(main())
