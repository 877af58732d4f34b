"""The folder of a run: enough to know what happened and to do it again."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from lxmert.files import write_text
from lxmert.report import score_table

PACKAGES = ("torch", "lightning", "hydra-core", "tokenizers", "h5py", "numpy")


def write_start(folder: Path, config: DictConfig) -> None:
    """Write `config.yaml`, resolved, and `environment.json`: command, versions, commit."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    environment = {
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "git_commit": git_commit(),
        "seed": config.seed,
    }
    write_text(folder / "environment.json", json.dumps(environment, indent=2) + "\n")


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


def link_latest(folder: Path) -> None:
    """Let `outputs/latest` point to the newest run."""
    latest = folder.parents[1] / "latest"
    temporary = latest.with_name(f".latest.{folder.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.relative_to(latest.parent), target_is_directory=True)
    temporary.replace(latest)


def newest_checkpoint(folder: Path) -> str:
    """The newest `last.ckpt` among the runs of the same experiment as the run in `folder`.

    Raises:
        FileNotFoundError: no run of it has left one.
    """
    found = sorted(folder.parent.glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"resume=last: no checkpoints/last.ckpt below {folder.parent}; nothing to resume")
    return str(found[-1])


def write_summary(folder: Path, action: str, metrics: Mapping[str, float], facts: Mapping[str, Any]) -> None:
    """Write `summary.json`: the final metrics by their logged names, and what they belong to."""
    summary = {"action": action, "metrics": dict(sorted(metrics.items())), **facts}
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")


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
    table.add_column("questions")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for name, values in rows.items():
        table.add_row(name, *(f"{values[column]:.3f}" if column in values else "" for column in columns))
        if name == "all":
            table.add_section()
    console = Console()
    if columns:
        console.print(table)
    for name, accuracy in baselines.items():
        console.print(f"{name}: {accuracy:.3f}")
    for name, what in (
        ("report.html", "page to look at"),
        ("predictions", "predictions"),
        ("summary.json", "summary"),
    ):
        if (folder / name).exists():
            console.print(f"{what}: {os.path.relpath(folder / name)}", soft_wrap=True)
