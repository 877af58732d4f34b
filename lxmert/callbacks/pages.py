"""The report page of a pass: its scores, and what else is known of the run and its data."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer

from lxmert.callbacks.answer_table import confusions
from lxmert.files import read_json
from lxmert.objectives.metrics import log_safe
from lxmert.report import Example, Facts, write_report


def write_page(
    page: Path,
    trainer: Trainer,
    curves: str,
    examples: Sequence[Example] = (),
    note: str = "",
) -> None:
    """Write the report page of what `trainer` has just validated or tested.

    Args:
        page: HTML file, in the run's folder.
        trainer: with its data module.
        curves: SVG of the training; may be empty.
        examples: shown as cards.
        note: what they show; empty where it is what led to answers.
    """
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    role = "test" if trainer.testing else "valid"
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    splits = datamodule.splits[role]
    tables = [page.parent / "predictions" / f"{split}_answers.csv" for split in splits] if trainer.testing else []
    facts = Facts(facts_of(page.parent, datamodule), sizes_of(datamodule, role), confusions(tables))
    write_report(page, metrics, f"{datamodule.title}: {', '.join(splits)}", curves, examples, facts, note)


def facts_of(folder: Path, datamodule: Any) -> dict[str, str]:
    """How a run was started and trains, what it is measured against, and how large its splits are."""
    noted = read_json(folder / "environment.json") if (folder / "environment.json").exists() else {}
    facts = {}
    if noted.get("command"):
        program, *arguments = noted["command"]
        facts["command"] = shlex.join(["python", Path(program).name, *arguments])
    facts |= {what: str(value) for what, value in noted.get("training", {}).items()}
    facts |= {guess: f"accuracy {accuracy:.3f}" for guess, accuracy in datamodule.baselines().items()}
    for split, has in datamodule.report().items():
        facts[split] = f"{has['examples']:,} examples, {has['images']:,} images"
    return facts


def sizes_of(datamodule: Any, role: str) -> dict[str, int]:
    """Row of the score table -> how many examples of a role it is over."""
    sizes = {"all": len(datamodule.datasets[role])}
    for group, counts in datamodule.group_sizes(role).items():
        sizes |= {f"{shown(group)}: {shown(value)}": number for value, number in counts.items()}
    return sizes


def shown(name: str) -> str:
    """A group or its value as the score table calls it."""
    return log_safe(name).replace("_", " ")
