"""The data side at full size: region features, and whole batches of pre-training, beside what a GPU takes.

    python -m benchmarks.data_speed

A generated set in the release's layout: 3,000 images x 36 regions x 2048 float16 in the three region stores of
pre-training, 442 MB, and the sentences of Table 1 of the paper about them. First the features alone: reading the
batches' rows into the buffers that are sent from, against a plain copy of as many bytes, in turn, round by round.
Then what a batch of 256 rows costs in the process that trains and in loader processes, in processor time, which
other people's work disturbs least, and what comes out by the clock with 0 loader processes and with 2. The run
fails when the features are slower than 0.85 of the copy.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer

from benchmarks.pretraining_data import REGION_FILES, SPLITS, WORDS, image_of, made_up_words, sentence_maker
from benchmarks.region_store import make_store
from datamodules.pretrain import PretrainDataModule
from lxmert.batch import Batch
from lxmert.config import LxmertConfig
from lxmert.objectives.masked_language import MaskedLanguage
from lxmert.objectives.masked_region import MaskedRegion
from lxmert.objectives.matching import Matching
from lxmert.objectives.question_answering import QuestionAnswering

REGIONS, FEATURES = 36, 2048
GPU = 13_000  # rows a second that one is to train on
SHARE = 0.85  # of the speed of a copy, at least
WARM = 8  # batches that do not count: caches, buffers, loader processes
TICK = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Make the set, measure, print; 1 where the features are too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=15, help="of features against a copy, and of passes")
    parser.add_argument("--batches", type=int, default=60, help="of 256 rows, in a pass")
    parser.add_argument("--folder", type=Path, help="keep the set there, or use the one that is there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        write_set(folder, options.images)
        fast = print_features(open_data(folder), options.rounds)
        print_stages(open_data(folder), options.batches)
        print_passes(folder, options.batches, max(options.rounds // 5, 1))
    return 0 if fast else 1


def write_set(folder: Path, images: int) -> None:
    """Write texts and stores; a set of that size that is there is kept."""
    size = folder / "full_size.txt"
    if size.exists() and size.read_text() == str(images):
        return
    random, words = np.random.default_rng(0), made_up_words()
    (folder / "lxmert").mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
    answers = words[:9500]
    (folder / "lxmert" / "all_ans.json").write_text(
        json.dumps([{"ans": answer, "dsets": ["vqa"]} for answer in answers])
    )
    make = sentence_maker(words[:12_000], answers, random)
    made = [image_of(number) for number in range(images)]
    for split in SPLITS:
        entries = [{"img_id": image.name} | make(image.sentences) for image in made if image.split == split]
        (folder / "lxmert" / f"{split}.json").write_text(json.dumps(entries))
    for name in REGION_FILES:
        path = folder / "stores" / f"{name}_obj36.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = sorted(image.name for image in made if image.regions == name)
        make_store(path, len(ids), REGIONS, FEATURES, ids)
    size.write_text(str(images))


def open_data(folder: Path, workers: int = 0, *, on_device: bool = False) -> PretrainDataModule:
    """The published pre-training on the set; `on_device` keeps the features in this process's memory."""
    data = PretrainDataModule(
        folder,
        folder / "vocab.txt",
        sources=dict.fromkeys(WORDS, 1.0),
        mismatched=0.5,
        valid=[],
        workers=workers,
        regions_on_device=on_device,
    )
    data.prepare_data("fit")
    if on_device:
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.setup("fit")
    return data


def objectives() -> list[Any]:
    """The published ones; how wide their heads are does not matter to what they do to a batch."""
    config = LxmertConfig(hidden_size=24, num_attention_heads=4, mask_token_id=4)
    return [Matching(config), MaskedLanguage(config), MaskedRegion(config), QuestionAnswering(config)]


# ------------------------------------------------------------------------------------ features alone


def print_features(data: PretrainDataModule, rounds: int) -> bool:
    """Print how fast features are read, and whether that is fast enough."""
    loader: Any = data.train_dataloader()
    dataset, order = loader.dataset, list(islice(iter(loader.sampler), rounds + WARM))
    everything = np.concatenate([np.asarray(store.features) for store in dataset.regions])
    for store in dataset.regions:
        store.read(np.arange(len(store)))  # its pages are mapped then
    random, buffer = np.random.default_rng(0), np.empty((256 * REGIONS, FEATURES), np.float16)
    found: list[tuple[int, list[float], list[float]]] = []
    for number, batch in enumerate([dataset[rows] for rows in order]):  # without features
        regions = len(batch.region_mask) * REGIONS
        start = int(random.integers(len(everything) - regions))
        ways = [
            partial(np.copyto, buffer[:regions], everything[start : start + regions]),
            partial(dataset.stored.look_up, batch.region_features),
        ]
        turn = 1 if number % 2 else -1  # who comes second finds the processor's cache as the first left it
        copied, read = [timed(way) for way in ways[::turn]][::turn]
        found.append((regions // REGIONS, copied, read))
    del found[:WARM]
    print(f"features of a batch, {len(everything) // REGIONS:,} images of {REGIONS} x {FEATURES} float16")
    print(f"{'':38}{'images/s':>20}{'GB/s':>8}")
    shares = []
    for clock, what in enumerate(("by the clock", "by processor time")):
        for way, name in ((1, "plain copy"), (2, "region stores to a buffer")):
            rates = [each[0] / each[way][clock] for each in found]
            gigabytes = statistics.median(rates) * REGIONS * FEATURES * 2 / 1e9
            print(f"{name + ', ' + what:38}{statistics.median(rates):>20,.0f}{gigabytes:>8.1f}")
        ratios = [copied[clock] / read[clock] for _, copied, read in found]
        shares.append(statistics.median(ratios))
        print(f"  share: {shares[-1]:.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    print(f"at least {SHARE} by processor time: {'met' if shares[1] >= SHARE else 'NOT MET'}\n")
    return shares[1] >= SHARE


def timed(work: Callable[[], Any]) -> list[float]:
    """Seconds that `work` takes: by the clock, and of processor time."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return [time.perf_counter() - clock, time.process_time() - processor]


# ------------------------------------------------------------------------------------- the whole side


def print_stages(data: PretrainDataModule, batches: int) -> None:
    """Print what each step of a batch costs in one process."""
    loader: Any = data.train_dataloader()
    dataset = loader.dataset
    steps: dict[str, list[float]] = {}
    made = objectives()
    options = {"padding": True, "truncation": True, "max_length": dataset.max_length, "return_tensors": "pt"}
    tokens_of = partial(dataset.tokenizer, **options)

    def step(name: str, work: Callable[..., Any], *args: Any) -> Any:
        start = time.process_time()
        result = work(*args)
        steps.setdefault(name, []).append(time.process_time() - start)
        return result

    for rows in islice(iter(loader.sampler), batches + WARM):
        batch: Batch = step("texts, tokens, boxes, labels", dataset.read, rows)
        words = dataset.parts[0].examples.texts(rows.indices % len(dataset.parts[0].examples))
        step("  of which tokens", tokens_of, words)
        batch = step("features", dataset.fill, batch)
        for objective in made:
            batch = step(f"prepare_batch of {type(objective).__name__}", objective.prepare_batch, batch, 1)
    print("a batch of 256 rows in one process, median of processor time")
    for name, seconds in steps.items():
        median = statistics.median(seconds[WARM:])
        print(f"  {name:36}{median * 1e3:>8.2f} ms{256 / median:>14,.0f} rows/s")
    print()


def print_passes(folder: Path, batches: int, rounds: int) -> None:
    """Print rows a second of loaders."""
    ways = [(workers, on_device) for workers in (0, 2) for on_device in (False, True)]
    found: dict[tuple[int, bool], list[tuple[float, float, float]]] = {way: [] for way in ways}
    fork = multiprocessing.get_context("fork")
    for _ in range(rounds):
        for way in ways:
            result = fork.Queue()
            process = fork.Process(target=go_through, args=(folder, *way, batches, result))
            process.start()
            found[way].append(result.get())
            process.join()
    print(
        f"loaders with prepare_batch, {rounds} pass(es) of {batches} batches in turn, {os.cpu_count()} processors"
    )
    print(f"{'':44}{'rows/s (lowest-highest)':>26}{'cores at 13,000 rows/s':>26}")
    for (workers, on_device), passes in found.items():
        rates, own, theirs = zip(*passes, strict=True)
        name = f"{workers} loader processes, features {'on the device' if on_device else 'read'}"
        rate = f"{statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"
        cores = [GPU * statistics.median(each) for each in (own, theirs)]
        loaders = f" + {cores[1]:.2f} of loaders" if workers else ""
        print(f"{name:44}{rate:>26}{f'{cores[0]:.2f}{loaders}':>26}")
    print(f"a GPU is to take {GPU:,} rows/s")


def go_through(folder: Path, workers: int, on_device: bool, batches: int, result: Any) -> None:
    """Tell rows a second, and the processor seconds of a row, in this process and in loader processes."""
    data = open_data(folder, workers, on_device=on_device)
    loader: Any = data.train_dataloader()
    made = objectives()
    reading: Iterator[Batch] = iter(loader)

    def use(number: int) -> int:
        rows = 0
        for batch in islice(reading, number):
            for objective in made:
                batch = objective.prepare_batch(batch, 1)
            rows += batch.num_rows
        return rows

    use(WARM)
    processes = [process.pid for process in getattr(loader._iterator, "_workers", [])]
    start, own, theirs = time.perf_counter(), time.process_time(), sum(map(processor_seconds, processes))
    rows = use(batches)
    took = time.perf_counter() - start
    result.put(
        (
            rows / took,
            (time.process_time() - own) / rows,
            (sum(map(processor_seconds, processes)) - theirs) / rows,
        )
    )


def processor_seconds(process: int) -> float:
    """Of a process that is running."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


if __name__ == "__main__":
    sys.exit(main())
