"""Runs of train.py, each a process of its own, and what they leave behind."""

import csv
import functools
import json
import multiprocessing
import os
import re
import runpy
import signal
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import torch
from hydra._internal.hydra import Hydra
from lightning.pytorch.strategies.launchers import subprocess_script
from lightning.pytorch.utilities.rank_zero import rank_zero_only

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
TINY = [
    "model.hidden_size=32",
    "model.num_attention_heads=2",
    "model.intermediate_size=64",
    "model.l_layers=1",
    "model.x_layers=1",
]
# For runs whose page no test looks at: a good part of a short one's time is drawing it.
NO_PAGE = "callbacks.examples=null"
# Most of a short run's time is importing: runs are forks of a process that has done it, and so are the processes
# that Lightning starts for them.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *("train", "lxmert.runs.build", "datamodules.toy.modules", "torch.distributed", "torch._dynamo"),
        *("torch.profiler", "matplotlib.backends.backend_svg", "PIL.ImageDraw", "pybase64"),
        *(f"lxmert.objectives.{path.stem}" for path in sorted((ROOT / "lxmert/objectives").glob("[!_]*.py"))),
        "tests.frozen",
    ]
)


def arguments(*overrides, folder):
    return [
        str(ROOT / "train.py"),
        f"paths.data={folder}/data",
        f"paths.outputs={folder}/outputs",
        "callbacks.progress.every_seconds=0",
        *overrides,
    ]


def environment(folder):
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_DATA_DIR": str(folder / "wandb"),
    }


def start(*overrides, folder, variables=None):
    """A running process of train.py with further environment variables; what it says goes to `folder`/said.txt."""
    (folder / "said.txt").write_text("")
    process = FORKS.Process(target=_run, args=(arguments(*overrides, folder=folder), folder, variables or {}))
    with mock.patch.dict(os.environ, environment(folder)):  # the first fork's parent imports in it
        process.start()
    return process


def _run(argv, folder, variables):
    os.setpgrp()  # a shell gives each command a group of its own, to which Ctrl-C goes
    os.environ.update(variables)
    _as_command(argv, folder, folder / "said.txt")


def _as_command(argv, folder, said):
    """What a shell's process of `python *argv` does, in this fork."""
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as in a command's process
    with said.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    sys.argv = argv
    launched = mock.Mock(Popen=functools.partial(Launched, said))
    with (
        mock.patch.object(subprocess_script, "subprocess", launched),
        # Hydra composes all twice, first for a hydra.mode that no command here sets.
        mock.patch.object(Hydra, "get_mode", return_value=None),
    ):
        runpy.run_path(argv[0], run_name="__main__")


class Launched:
    """A process that Lightning starts, as a fork: what its launcher and train.py use of a Popen."""

    def __init__(self, said, command, env, cwd):
        folder = cwd or str(Path.cwd())
        self._process = FORKS.Process(target=_run_launched, args=(command[1:], env, folder, os.getpgrp(), said))
        # Whoever is a fork already would start another such process.
        with mock.patch.object(forkserver._forkserver, "ensure_running", lambda: None):
            self._process.start()
        self.pid, self.returncode = self._process.pid, None
        self._one = threading.Lock()  # Lightning asks in a thread of its own

    def poll(self):
        with self._one:
            self.returncode = self._process.exitcode
        return self.returncode

    def send_signal(self, signum):
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def _run_launched(argv, variables, folder, group, said):
    os.setpgid(0, group)
    os.environ.clear()
    os.environ.update(variables)
    rank_zero_only.rank = int(variables["LOCAL_RANK"])  # it is read when lightning is imported
    _as_command(argv, folder, said)


def train(*overrides, folder, fails=False, variables=None):
    """Run train.py; the run's folder, or what it said when it was to fail."""
    process = start(*overrides, folder=folder, variables=variables)
    process.join()
    assert (process.exitcode != 0) == fails, said(folder)
    return re.sub(r"\s+", " ", said(folder)) if fails else latest(folder)


def stopped(*overrides, folder, at, by=signal.SIGTERM, variables=None, group=False):
    """The exit status of a run that got a signal, or its whole group did, once it had said `at`."""
    process = start(*overrides, folder=folder, variables=variables)
    until = time.monotonic() + 120
    while at not in said(folder) and process.is_alive() and time.monotonic() < until:
        time.sleep(0.005)
    (os.killpg if group else os.kill)(process.pid, by)
    process.join(120)
    return process.exitcode


def said(folder):
    """What the last run printed and logged."""
    return (folder / "said.txt").read_text()


def kill_and_resume(*overrides, folder):
    """The folder of a run that went on from the last checkpoint of one that was killed."""
    folder = folder / "killed"
    folder.mkdir()
    (folder / "data").symlink_to("../data")
    overrides = [*overrides, "callbacks.last.every_n_train_steps=3"]
    for attempt in range(3):
        process = start(*overrides, folder=folder)
        until = time.monotonic() + 120
        while not list(folder.glob("outputs/*/*/checkpoints/last.ckpt")) and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.1 * attempt)
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            return train(*overrides, "resume=last", folder=folder)
    raise AssertionError("the run ended before it could be killed: " + said(folder))


def latest(folder):
    return (folder / "outputs" / "latest").resolve()


def summary(run):
    return json.loads((run / "summary.json").read_text())


def metrics(run):
    with (run / "logs" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def checkpoint(run, name="last"):
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True, map_location="cpu")


def weights(run, name="last"):
    return checkpoint(run, name)["state_dict"]
