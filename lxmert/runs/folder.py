"""The folder of a run: one of its own, enough to know what happened, to go on and to do it again."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from lxmert.files import InputError, write_text
from lxmert.report import score_table
from lxmert.runs.resume import environment_of, own_run, runs_of

log = logging.getLogger(__name__)

PACKAGES = ("torch", "lightning", "hydra-core", "tokenizers", "h5py", "numpy")
# What a run leaves in its folder; one that has any of it belongs to a run.
LEFT = ("environment.json", "config.yaml", "summary.json", "checkpoints", "predictions", "report.html")


def run_folder(outputs: str, experiment: str, resume: str | None) -> str:
    """The folder of the run that is about to start: a new one, or that of the run that goes on.

    Args:
        outputs: where runs are.
        experiment: its name.
        resume: as the root key says.
    """
    if resume in ("last", "auto"):
        runs = runs_of(Path(outputs), experiment)[:1]
        found = own_run(Path(outputs), experiment, sys.argv) if resume == "auto" else next(iter(runs), None)
        if found:
            return str(found)
    elif resume and Path(resume).is_dir():
        return str(Path(resume).resolve())
    return new_folder(Path(outputs) / experiment)


def new_folder(parent: Path) -> str:
    """A folder that nobody else has: named after the time, or under SLURM after the job, whose ranks agree on it.

    Raises:
        InputError: processes that somebody else started, which each would make their own.
    """
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    if job and step:  # the same after the job was requeued
        return str(parent / f"slurm-{job}-{step}")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise InputError("torchrun starts processes that do not know of each other: name the run's folder for all "
                         "of them, hydra.run.dir=outputs/my_run")  # fmt: skip
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(cannot_write(parent, error)) from error
    for number in range(1, 10_000):
        folder = parent / (name if number == 1 else f"{name}_{number}")
        try:
            folder.mkdir()  # the one that makes it has it
            return str(folder)
        except FileExistsError:
            continue
    raise InputError(f"{parent} has 10,000 runs of this second")


def cannot_write(folder: Path, error: OSError) -> str:
    """What is said of a folder in which no run can be."""
    why = f"a run's files cannot be written there ({error.strerror})"
    return f"{folder}: {why}. Choose another place with paths.outputs="


class RunFolder:
    """The folder while its run is going on: no other process may have it.

    Args:
        path: the folder.
        goes_on: whether the run in it goes on; else nothing may be there of another.

    Raises:
        InputError: another run is there, finished or going on.
        PermissionError: it cannot be written.
    """

    def __init__(self, path: Path, *, goes_on: bool) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / ".lock", is_singleton=False)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{path} belongs to a run that is going on. Wait for its end, or choose another folder with "
                "hydra.run.dir="
            ) from None
        except OSError as error:
            raise PermissionError(cannot_write(path, error)) from error
        there = [name for name in LEFT if (path / name).exists()]
        if there and not goes_on:
            self.close()
            raise InputError(
                f"{path} holds another run already ({', '.join(there)}), and nothing of it is overwritten: "
                "resume=auto goes on with it; another hydra.run.dir= starts a new one"
            )

    def close(self) -> None:
        """Leave the folder to others."""
        self._lock.release()

    def write_start(self, config: DictConfig, experiment: str) -> None:
        """Write `config.yaml`, resolved, and `environment.json`: command, versions, commit, the run's id."""
        before = environment_of(self.path)  # of a run that is gone on with
        training = training_of(config) if config.action == "fit" else {}
        if config.resume and (started := before.get("training", {}).get("started from")):
            training["started from"] = started
        gone_on = [*before.get("gone_on_by", []), sys.argv] if before.get("command") else []
        write_text(self.path / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
        environment = {
            "id": before.get("id") or secrets.token_hex(4),  # of the W&B run too
            "experiment": experiment,
            "command": before.get("command") or sys.argv,
            "gone_on_by": gone_on,
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "git_commit": git_commit(),
            "seed": config.seed,
            "training": training,
        }
        write_text(self.path / "environment.json", json_text(environment))
        (self.path / "summary.json").unlink(missing_ok=True)  # of an end that is none any more


def training_of(config: DictConfig) -> dict[str, Any]:
    """What the report tells of how a model is trained."""
    found = {
        "learning rate": config.optimizer.get("lr"),
        "batch size": config.data.get("batch_size"),
        "epochs": config.trainer.get("max_epochs"),
        "started from": config.init or "random weights",
    }
    return {what: value for what, value in found.items() if value is not None}


def git_commit() -> str | None:
    """The commit of this code, "+changes" behind it if there are any; None outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def link_latest(folder: Path, outputs: Path) -> None:
    """Let `latest` among the outputs point to the newest run, wherever that is."""
    latest = outputs / "latest"
    outputs.mkdir(parents=True, exist_ok=True)
    inside = folder.resolve().is_relative_to(outputs.resolve())
    target = os.path.relpath(folder.resolve(), outputs.resolve()) if inside else folder.resolve()
    temporary = outputs / f".latest.{os.getpid()}"
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target, target_is_directory=True)
        temporary.replace(latest)
    except OSError as error:  # Windows allows links to some users alone; a folder of this name may be the user's
        log.warning("%s does not point to this run (%s); resume=%s finds it", latest, error.strerror, folder)


def json_text(value: Any) -> str:
    """Valid JSON: what is not finite is null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_summary(folder: Path, action: str, metrics: Mapping[str, float], facts: Mapping[str, Any]) -> None:
    """Write `summary.json`: the final metrics by their logged names, and what they belong to."""
    write_text(
        folder / "summary.json", json_text({"action": action, "metrics": dict(sorted(metrics.items())), **facts})
    )


def print_results(folder: Path, metrics: Mapping[str, float], baselines: Mapping[str, float], title: str) -> None:
    """Print the last evaluation's scores as a table, and where the rest is.

    Args:
        folder: of the run.
        metrics: by logged name.
        baselines: accuracy of guesses that learn nothing, by what they are.
        title: what was evaluated.
    """
    columns, rows = score_table(metrics)
    table = Table(title=title, title_justify="left")
    table.add_column("examples")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for name, values in rows.items():
        table.add_row(name, *(f"{values[column]:.3f}" if column in values else "" for column in columns))
        if name == "all":
            table.add_section()
    console = Console(markup=False)  # a question type is a text
    if columns:
        console.print(table)
    for name, accuracy in baselines.items():
        console.print(f"{name}: {accuracy:.3f}")
    for name, what in (
        ("report.html", "page to look at"),
        ("predictions", "predictions"),
        ("checkpoints", "checkpoints"),
        ("summary.json", "summary"),
    ):
        if (folder / name).is_file() or any((folder / name).glob("*")):
            console.print(f"{what}: {os.path.relpath(folder / name)}", soft_wrap=True)
