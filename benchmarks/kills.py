"""Whether what is killed at a random moment, and started again, ends as if nothing had happened.

    python -m benchmarks.kills {convert,prepare,download,train,train_workers,train_processes,validate,test}

The command runs once to its end and is timed. Then, for each try, in a folder of its own: all of its processes
are killed (-9) at a random moment of that time, and the same command runs again, to its end. What it leaves behind
must be the same, bit for bit, as after the uninterrupted run: files; of a training the weights, the optimiser, the
predictions and the metrics. Exit code 1 with the names of what differs; the folders are then kept. Of `train*`,
`validate` and `test`, further arguments are overrides for train.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.conversion import write_tsv

ROOT = Path(__file__).parents[1]
IMAGES, QUESTIONS, DOWNLOAD = 3000, 30_000, 30_000_000  # sizes of what is converted, prepared, fetched (bytes)
RATE = 10_000_000  # bytes per second that the server sends
TIMED = ("train/rows_per_s", "train/data_wait")
TINY = [
    "experiment=toy_vqa", "trainer=cpu", "callbacks.progress=null", "callbacks.last.every_n_train_steps=3",
    "model.hidden_size=32", "model.num_attention_heads=2", "model.intermediate_size=64", "model.l_layers=1",
    "model.x_layers=1", "data.world.train=80", "data.world.minival=16", "data.world.nominival=8",
    "data.world.test=8", "data.batch_size=16", "trainer.max_epochs=4",
]  # fmt: skip

Result = dict[str, Any]  # name -> what must be the same


@dataclass(frozen=True)
class Case:
    """What is killed.

    Args:
        command: of a try's folder.
        result: what the command has left in it.
    """

    command: Callable[[Path], list[str]]
    result: Callable[[Path], Result]


def main() -> int:
    """Run the tries; 0 when none differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=CASES)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_intermixed_args()
    if not hasattr(os, "killpg"):
        parser.error("needs a system that can kill a group of processes: Linux or macOS")
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    case = CASES[options.what](folder, options.overrides)
    differing = try_all(case, folder, options.tries, random.Random(options.seed))
    print(f"{options.what}: {options.tries} tries, {differing} with differences")
    if differing:
        print(f"kept: {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if differing else 0


def try_all(case: Case, folder: Path, tries: int, chance: random.Random) -> int:
    """The number of tries that do not end as the uninterrupted run."""
    seconds, code = run(case, folder / "whole")
    if code:
        raise SystemExit(f"the uninterrupted run failed:\n{said(folder / 'whole')}")
    truth, differing = case.result(folder / "whole"), 0
    print(f"uninterrupted: {seconds:.1f} s, {len(truth)} results")
    for number in range(1, tries + 1):
        place, code = folder / f"try-{number}", 0
        while code != -signal.SIGKILL:  # another moment when it had ended before
            shutil.rmtree(place, ignore_errors=True)
            moment = chance.uniform(0, seconds)
            _, code = run(case, place, moment)
        again, code = run(case, place)
        found = [f"it failed:\n{said(place)}"] if code else differences(truth, case.result(place))
        differing += bool(found)
        print(f"{number}: killed after {moment:.1f} s, then {again:.1f} s: {len(found)} differences", flush=True)
        for difference in found[:10]:
            print(f"    {difference}")
        if not found:
            shutil.rmtree(place)
    return differing


def run(case: Case, place: Path, moment: float | None = None) -> tuple[float, int]:
    """Run the command, killed after `moment` seconds; its seconds and exit code."""
    place.mkdir(exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    with (place / "said.txt").open("a") as file:
        process = subprocess.Popen(
            case.command(place), cwd=place, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # workers and other ranks with it
        process.wait()
    return time.perf_counter() - began, process.returncode


def said(place: Path) -> str:
    """The end of what the command printed."""
    return (place / "said.txt").read_text(errors="replace")[-3000:]


def differences(truth: Result, found: Result) -> list[str]:
    """Names of what is not the same."""
    names = sorted(truth.keys() | found.keys())
    missing = "nothing"
    return [
        f"{name}: {found.get(name, missing)!s:.80} instead of {truth.get(name, missing)!s:.80}"
        for name in names
        if name not in truth or name not in found or truth[name] != found[name]
    ]


# --------------------------------------------------------------------------------- files from files


def convert(folder: Path, _: list[str]) -> Case:
    """A TSV of regions to a store."""
    source = folder / "regions.tsv"
    write_tsv(source, IMAGES, 36, 256)
    script = "import sys; from datamodules.convert import convert_tsv; convert_tsv(*sys.argv[1:])"
    return Case(lambda place: [sys.executable, "-c", script, str(source), str(place / "data" / "a.h5")], files)


def prepare(folder: Path, _: list[str]) -> Case:
    """The makers' VQA files to text stores."""
    official = folder / "official"
    official.mkdir()
    for number, split in enumerate(("train2014", "val2014", "test2015")):
        ids = range(number * QUESTIONS, (number + 1) * QUESTIONS)
        questions = [{"question_id": i, "image_id": i // 5, "question": f"How many are {i}?"} for i in ids]
        write_json(official / f"v2_OpenEnded_mscoco_{split}_questions.json", {"questions": questions})
        write_json(official / f"v2_mscoco_{split}_annotations.json", {"annotations": [annotation(i) for i in ids]})
    command = [sys.executable, "-m", "datamodules.prepare.__main__", "vqa"]
    return Case(lambda place: [*command, str(place / "data"), "--official", str(official)], files)


def annotation(number: int) -> dict[str, Any]:
    """An annotation as VQA's makers write it, of one of 50 answers."""
    answers = [
        {"answer": str((number + i // 7) % 50), "answer_confidence": "yes", "answer_id": i} for i in range(10)
    ]
    kinds = {"answer_type": "number", "question_type": "how many"}
    return {
        "question_id": number,
        "image_id": number // 5,
        "multiple_choice_answer": str(number % 50),
        "answers": answers,
        **kinds,
    }


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content), encoding="utf-8")


def files(place: Path) -> Result:
    """Every file below `data`, leftovers too, by its hash."""
    found = (path for path in (place / "data").rglob("*") if path.is_file())
    return {path.relative_to(place).as_posix(): digest(path) for path in found}


def digest(path: Path) -> str:
    """Of the bytes of a file, without the times at which it and what it was made from were written."""
    content = re.sub(rb'"mtime_ns": \d+|"time": "[^"]+"', b"", path.read_bytes())
    return hashlib.sha256(content).hexdigest()


# ----------------------------------------------------------------------------------------- download


def download(folder: Path, _: list[str]) -> Case:
    """A file and an archive, from a slow server in a thread."""
    served = folder / "served"
    served.mkdir()
    for name in ("a.bin", "b.bin", "c.bin"):
        (served / name).write_bytes(random.Random(name).randbytes(DOWNLOAD // 3))
    with zipfile.ZipFile(served / "bc.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("b.bin", "c.bin"):
            archive.write(served / name, f"inner/{name}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowHandler)
    server.folder = served  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    entries = [
        {"for": ["vqa"], "server": "here", "path": "a.bin", "to": "vqa/a.bin"},
        {"for": ["vqa"], "server": "here", "path": "bc.zip", "unpack": ["vqa/b.bin", "vqa/c.bin"]},
    ]
    listing = folder / "list.yaml"
    address = f"http://127.0.0.1:{server.server_port}"
    listing.write_text(yaml.safe_dump({"servers": {"here": [address]}, "files": entries}))
    script = (
        "import sys; from pathlib import Path; from datamodules.download.__main__ import main\n"
        "sys.exit(main(['vqa', '--to', sys.argv[2]], Path(sys.argv[1])))"
    )
    return Case(lambda place: [sys.executable, "-c", script, str(listing), str(place / "data")], files)


class SlowHandler(BaseHTTPRequestHandler):
    """Sends a file, or its rest, at `RATE`."""

    def do_GET(self) -> None:
        """Answer."""
        content = (self.server.folder / self.path[1:]).read_bytes()  # type: ignore[attr-defined]
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", '"1"')
        self.end_headers()
        try:
            for place in range(start, len(content), RATE // 100):
                self.wfile.write(content[place : place + RATE // 100])
                time.sleep(0.01)
        except ConnectionError:
            pass  # the other side was killed

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


# ----------------------------------------------------------------------------------------- training


def train(folder: Path, overrides: list[str]) -> Case:
    """A training on a tiny toy, in one process."""
    data = generate(folder, overrides)
    return Case(lambda place: training(place, data, ["resume=auto", *overrides]), trained)


def train_workers(folder: Path, overrides: list[str]) -> Case:
    """The same with two processes that read."""
    return train(folder, ["data.workers=2", *overrides])


def train_processes(folder: Path, overrides: list[str]) -> Case:
    """The same on two ranks."""
    return train(folder, ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", *overrides])


def validate(folder: Path, overrides: list[str]) -> Case:
    """A validation of a checkpoint."""
    return evaluation("validate", folder, overrides)


def test(folder: Path, overrides: list[str]) -> Case:
    """A test of a checkpoint, with its predictions."""
    return evaluation("test", folder, overrides)


def evaluation(action: str, folder: Path, overrides: list[str]) -> Case:
    """A checkpoint, evaluated."""
    data = generate(folder, overrides)
    more = [
        f"action={action}",
        f"checkpoint={folder / 'generated' / 'run' / 'checkpoints' / 'best.ckpt'}",
        *overrides,
    ]
    return Case(lambda place: command(place, data, more), trained)  # each in a folder of its own, as by default


def generate(folder: Path, overrides: list[str]) -> Path:
    """The data folder of all tries, which a first training makes."""
    case = Case(lambda place: training(place, folder / "data", overrides), trained)
    if run(case, folder / "generated")[1]:
        raise SystemExit(f"the first training failed:\n{said(folder / 'generated')}")
    return folder / "data"


def training(place: Path, data: Path, overrides: list[str]) -> list[str]:
    """The command line of train.py, its run in a folder that stays the same."""
    return command(place, data, [f"hydra.run.dir={place}/run", *overrides])


def command(place: Path, data: Path, overrides: list[str]) -> list[str]:
    """The command line of train.py."""
    paths = [f"paths.data={data}", f"paths.outputs={place}/outputs"]
    return [sys.executable, str(ROOT / "train.py"), *TINY, *paths, *overrides]


def trained(place: Path) -> Result:
    """Of all checkpoints each weight and each number of the optimiser; predictions; metrics without times."""
    folder, found = (place / "outputs" / "latest").resolve(), {}
    for path in folder.glob("checkpoints/*.ckpt"):
        content = torch.load(path, weights_only=True, map_location="cpu")
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            found |= {f"{path.name} {name}": value for name, value in numbers(content[key], key)}
    found |= {f"predictions/{path.name}": digest(path) for path in folder.glob("predictions/*")}
    metrics = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["metrics"]
    return found | {f"metric {name}": value for name, value in metrics.items() if name not in TIMED}


def numbers(value: Any, name: str) -> list[tuple[str, Any]]:
    """All that is in nested dicts and lists, tensors by the hash of their bytes."""
    if isinstance(value, torch.Tensor):
        content = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        return [(name, f"{tuple(value.shape)} {value.dtype} {hashlib.sha256(content).hexdigest()}")]
    inner = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    )
    if inner is None:
        return [(name, value)]
    return [found for key, item in inner for found in numbers(item, f"{name}.{key}")]


CASES: dict[str, Callable[[Path, list[str]], Case]] = {
    function.__name__: function
    for function in (convert, prepare, download, train, train_workers, train_processes, validate, test)
}

if __name__ == "__main__":
    sys.exit(main())
