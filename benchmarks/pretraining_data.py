"""Pre-training data of the published size: how soon the first batch is there, memory, rows a second.

    python -m benchmarks.pretraining_data

A generated set in the release's files, with the sentences of Table 1 of the paper: 180,000 images have 9.2
million. Its words mean nothing, and an image has 4 regions of 16 features instead of 36 of 2,048: the regions of
the real set are 27 GB in the page cache, which the region store's benchmark is about. Processes of their own
convert the set once, then open it, go through a part of an epoch and start another, with one sentence an image
and with four together. Measured from the start of the process, imports and the data module's `setup` included,
to the first batch. Resident memory is all of it, the mapped pages of the stores too, which processes share; its
own is the rest. The run fails when a goal is missed.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.pretrain import PretrainDataModule

FIRST_BATCH, RESIDENT = 20, 1.5  # the goals: seconds, and GB
GROWTH = 0.02  # GB that the memory of its own may grow by during a pass: the allocator breathes
REGIONS, FEATURES = 4, 16
DISTINCT = 64  # images whose regions are made; the files repeat them under new ids
LOOKS = 8  # at the memory during a pass
# Table 1: thousands of images of each kind, and the sentences of one by source.
KINDS = (
    ("COCO", 72, {"mscoco": 5, "vqa": 5}),
    ("both", 51, {"mscoco": 5, "vg": 50, "vqa": 5, "gqa": 10, "visual7w": 14}),
    ("Visual Genome", 57, {"vg": 50, "gqa": 10, "visual7w": 13}),
)
TURNS = [kind for kind in KINDS for _ in range(kind[1])]
WORDS = {"mscoco": 10, "vg": 5, "vqa": 6, "gqa": 8, "visual7w": 6}  # of a sentence
ANSWERS = {"vqa": (1.0, 0.6, 0.3), "gqa": (1.0,), "visual7w": (1.0,)}  # the scores of a question's answers
SPLITS = ("mscoco_train", "mscoco_nominival", "vgnococo", "mscoco_minival")
REGION_FILES = ("mscoco_imgfeat/train2014", "mscoco_imgfeat/val2014", "vg_gqa_imgfeat/vg_gqa")


def main() -> int:
    """Make the set, convert it, go through it, print; 1 where a goal is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=180_000)
    parser.add_argument("--batches", type=int, default=8_000, help="of 256 rows in a pass; an epoch has 35,000")
    parser.add_argument("--folder", type=Path, help="keep the set there, or use the one that is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        write_set(folder, options.images)
        converted = in_new_process(convert, folder)
        print(f"converted in {converted.seconds:.0f} s, peak memory {converted.peak:.2f} GB\n")
        return (
            0 if all([print_pass(in_new_process(go_through, folder, n, options.batches)) for n in (1, 4)]) else 1
        )


# ---------------------------------------------------------------------------------------- the set


@dataclass
class Image:
    """An image of the set: what it is called, its files, the number of its sentences by source."""

    name: str
    split: str
    regions: str
    sentences: dict[str, int]


def image_of(number: int) -> Image:
    """Image `number` of the set; the kinds take turns."""
    kind, _, sentences = TURNS[number % len(TURNS)]
    if kind == "Visual Genome":
        return Image(str(number), "vgnococo", REGION_FILES[2], sentences)
    if number % 3:
        return Image(f"COCO_train2014_{number:012d}", "mscoco_train", REGION_FILES[0], sentences)
    split = "mscoco_nominival" if number % 8 else "mscoco_minival"
    return Image(f"COCO_val2014_{number:012d}", split, REGION_FILES[1], sentences)


def write_set(folder: Path, images: int, regions: int = REGIONS, features: int = FEATURES) -> None:
    """Write the files of a data folder, one image after the other; a set of that size that is there is kept."""
    size = folder / "images.txt"
    if size.exists() and size.read_text() == str(images):
        return
    shutil.rmtree(folder / "stores", ignore_errors=True)
    start = time.perf_counter()
    words = made_up_words()
    for place in {folder / "lxmert", *(folder / name for name in REGION_FILES)}:
        (place if place.name == "lxmert" else place.parent).mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
    answers = words[:9500]
    table = [{"ans": answer, "dsets": ["vqa"]} for answer in answers]
    (folder / "lxmert" / "all_ans.json").write_text(json.dumps(table))
    random = np.random.default_rng(0)
    make = sentence_maker(words[:12_000], answers, random)
    encoded = encoded_regions(random, regions, features)
    counts = dict.fromkeys(SPLITS, 0)
    with ExitStack() as files:
        texts = {name: files.enter_context((folder / f"lxmert/{name}.json").open("w")) for name in SPLITS}
        tables = {name: files.enter_context((folder / f"{name}_obj36.tsv").open("wb")) for name in REGION_FILES}
        for number in range(images):
            image = image_of(number)
            file = texts[image.split]
            file.write(",\n" if file.tell() else "[\n")
            file.write(json.dumps({"img_id": image.name} | make(image.sentences)))
            counts[image.split] += sum(image.sentences.values())
            fields = [image.name.encode(), b"480", b"640", *encoded[number % DISTINCT]]
            tables[image.regions].write(b"\t".join(fields) + b"\n")
        for file in texts.values():
            file.write("\n]\n")
    size.write_text(str(images))
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9
    print(
        f"{sum(counts.values()):,} sentences of {images:,} images made in {time.perf_counter() - start:.0f} s, "
        f"{written:.1f} GB: " + ", ".join(f"{name} {count:,}" for name, count in counts.items())
    )


def made_up_words() -> list[str]:
    """As many words as BERT's vocabulary has, of two syllables, then of three."""
    syllables = ["".join(pair) for pair in product("bcdfghjklmnprstwz", "aeiou")]
    return list(islice(("".join(word) for n in (2, 3) for word in product(syllables, repeat=n)), 30_517))


def sentence_maker(
    words: list[str], answers: list[str], random: np.random.Generator
) -> Callable[[dict[str, int]], dict[str, Any]]:
    """A function from the numbers of sentences by source to an entry's `sentf` and `labelf`.

    A sentence is two of some thousand phrases: few are alike, and making them takes no longer than writing them.
    """
    halves = sorted({half for n in WORDS.values() for half in (n // 2, n - n // 2)})
    pool = 4096
    phrases = {
        n: [" ".join(words[i] for i in random.integers(len(words), size=n)) for _ in range(pool)] for n in halves
    }

    def make(sentences: dict[str, int]) -> dict[str, Any]:
        entry: dict[str, Any] = {"sentf": {}, "labelf": {}}
        for source, count in sentences.items():
            first, second = phrases[WORDS[source] // 2], phrases[WORDS[source] - WORDS[source] // 2]
            pairs = random.integers(pool, size=(count, 2)).tolist()
            entry["sentf"][source] = [f"{first[i]} {second[j]}" for i, j in pairs]
            if scores := ANSWERS.get(source):
                chosen = random.integers(len(answers), size=(count, len(scores))).tolist()
                entry["labelf"][source] = [
                    {answers[i]: score for i, score in zip(row, scores, strict=True)} for row in chosen
                ]
        return entry

    return make


def encoded_regions(random: np.random.Generator, regions: int, features: int) -> list[list[bytes]]:
    """The last seven columns of lines of a feature file."""
    rows = []
    for _ in range(DISTINCT):
        corners = np.sort(random.random((regions, 2, 2), np.float32), axis=1) * np.array([640, 480], np.float32)
        labels = (
            random.integers(1600, size=regions),
            random.random(regions, np.float32),
            random.integers(400, size=regions),
            random.random(regions, np.float32),
        )
        found = random.random((regions, features), np.float32)
        columns = [base64.b64encode(array.tobytes()) for array in (*labels, corners.reshape(-1, 4), found)]
        rows.append([*columns[:4], b"%d" % regions, *columns[4:]])
    return rows


# ------------------------------------------------------------------------------------- measuring


@dataclass
class Memory:
    """Resident memory of this process in GB: all of it, and what no file backs."""

    total: float
    own: float

    @classmethod
    def now(cls) -> Memory:
        """As it is."""
        return cls(status("VmRSS"), status("RssAnon"))


def status(name: str) -> float:
    """A line of this process's status, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e9


@dataclass
class Conversion:
    """What converting took."""

    seconds: float
    peak: float


@dataclass
class Pass:
    """What a start and a part of an epoch took; `steps` in seconds and CPU seconds from the start."""

    rows_per_image: int
    rows: int
    epoch_rows: int
    steps: dict[str, tuple[float, float]]
    seconds: float
    cpu_seconds: float
    looks: list[tuple[int, Memory]]  # after how many batches
    next_epoch: Memory
    peak: float


def in_new_process(work: Callable[..., Any], *args: Any) -> Any:
    """What `work` finds in a process that knows nothing yet; its first argument is when that was started."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, time.monotonic(), *args).result()


def open_data(folder: Path, rows_per_image: int = 1) -> PretrainDataModule:
    """The data module of the published pre-training, on the set."""
    return PretrainDataModule(
        folder,
        folder / "vocab.txt",
        sources=dict.fromkeys(WORDS, 1.0),
        mismatched=0.5,
        rows_per_image=rows_per_image,
        feature_dim=FEATURES,
    )


def convert(started: float, folder: Path) -> Conversion:
    """Convert the set."""
    torch.set_num_threads(1)
    open_data(folder).prepare_data("fit")
    return Conversion(time.monotonic() - started, status("VmHWM"))


def go_through(started: float, folder: Path, per_image: int, batches: int) -> Pass:
    """Open the converted set and read some batches of its first epoch."""
    torch.set_num_threads(1)
    steps = {"imports": (time.monotonic() - started, time.process_time())}
    data = open_data(folder, per_image)
    data.prepare_data("fit")
    data.setup("fit")
    steps["setup"] = (time.monotonic() - started, time.process_time())
    loader = data.train_dataloader()
    reading = iter(loader)
    next(reading)
    steps["first batch"] = (time.monotonic() - started, time.process_time())
    looks = [(1, Memory.now())]
    batches = min(batches, len(loader))
    rows, start, cpu = 0, time.perf_counter(), time.process_time()
    for number, batch in enumerate(islice(reading, batches - 1), 2):
        rows += batch.num_rows
        if number % max(batches // LOOKS, 1) == 0:
            looks.append((number, Memory.now()))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    loader.sampler.set_epoch(1)
    next(iter(loader))  # makes the order of an epoch with all pages mapped, and the last order still there
    return Pass(
        per_image, rows, len(data.datasets["train"]), steps, seconds, cpu_seconds, looks, Memory.now(),
        status("VmHWM"),
    )  # fmt: skip


def print_pass(found: Pass) -> bool:
    """Print what was measured; whether the goals are met."""
    print(f"rows_per_image={found.rows_per_image}, an epoch of {found.epoch_rows:,} sentences")
    steps = ", ".join(f"{name} {wall:.1f} ({cpu:.1f} of CPU)" for name, (wall, cpu) in found.steps.items())
    print(f"  seconds from the start: {steps}")
    print(f"  {'batches':>10}{'resident GB':>14}{'its own GB':>14}")
    for when, memory in [
        *((f"{number:,}", look) for number, look in found.looks),
        ("next epoch", found.next_epoch),
    ]:
        print(f"  {when:>10}{memory.total:>14.3f}{memory.own:>14.3f}")
    print(
        f"  {found.rows / found.seconds:,.0f} rows/s, {found.rows / found.cpu_seconds:,.0f} per CPU second "
        f"({found.rows / found.epoch_rows:.0%} of an epoch)"
    )
    settled = found.looks[1:] or found.looks
    goals = list(goals_of(found.steps["first batch"][0], found.peak, settled[-1][1].own - settled[0][1].own))
    for what, value, goal in goals:
        print(f"  {what:34}{value:>8.3f}, below {goal}: {'met' if value < goal else 'NOT MET'}")
    print(flush=True)
    return all(value < goal for _, value, goal in goals)


def goals_of(first_batch: float, peak: float, growth: float) -> Iterator[tuple[str, float, float]]:
    """What must hold: name, value, and what it must be below."""
    yield "seconds to the first batch", first_batch, FIRST_BATCH
    yield "peak of resident memory, GB", peak, RESIDENT
    yield "growth of its own during the pass", growth, GROWTH


if __name__ == "__main__":
    sys.exit(main())
