"""Which run goes on, from which of its files, and whether it is still what was asked for."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lxmert.files import InputError, read_json
from lxmert.weights import open_weights, upgrade

log = logging.getLogger(__name__)

CHECKPOINTS = ("last.ckpt", "best.ckpt")
# Settings that change neither what is learnt nor in which order: these may differ in a resumed run.
FREE = {
    "data": {
        "root", "stores", "tokenizer", "workers", "eval_batch_size", "valid", "test", "predict", "test_only",
        "task", "regions_on_device",
    },
    "model": {"gradient_checkpointing"},
}  # fmt: skip
# Keys that data modules had no names for, with what they did: a run from before has done the same.
SINCE = {"Nlvr2DataModule": {"folder": "nlvr2", "region_folder": "nlvr2_imgfeat"}}
FIXED = ("optimizer", "objective", "recipe", "warmup", "seed", "freeze", "model", "data")


def runs_of(outputs: Path, experiment: str) -> list[Path]:
    """The folders of an experiment's runs that have a checkpoint, the newest first.

    A sweep's jobs are not among them, but for the one that `latest` names.
    """
    folders = {path.parent for path in (outputs / experiment).glob("*/checkpoints")}
    latest = outputs / "latest"
    if latest.is_dir() and environment_of(latest).get("experiment") == experiment:
        folders.add(latest.resolve())
    dated = [(newest.stat().st_mtime_ns, folder) for folder in folders if (newest := _newest_file(folder))]
    return [folder for _, folder in sorted(dated, reverse=True)]


def own_run(outputs: Path, experiment: str, command: Sequence[str]) -> Path | None:
    """The newest unfinished run that the same command began, under SLURM in the same job."""
    for folder in runs_of(outputs, experiment):
        began = environment_of(folder)
        same = began.get("command") == list(command) and began.get("slurm_job") == os.environ.get("SLURM_JOB_ID")
        if same and not (folder / "summary.json").exists():
            return folder
    return None


def environment_of(folder: Path) -> dict[str, Any]:
    """What a run noted of its start; nothing where that is missing or damaged."""
    try:
        noted = read_json(folder / "environment.json")
    except (OSError, InputError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _newest_file(folder: Path) -> Path | None:
    files = [path for name in CHECKPOINTS if (path := folder / "checkpoints" / name).is_file()]
    return max(files, key=lambda path: path.stat().st_mtime_ns, default=None)


def whole_checkpoint(folder: Path) -> Path:
    """The checkpoint that a run goes on from: `last.ckpt`, or the newest whole one where that is damaged.

    Raises:
        FileNotFoundError: the run has none.
        InputError: none of its checkpoints is whole.
    """
    files = [path for name in CHECKPOINTS if (path := folder / "checkpoints" / name).is_file()]
    if not files:
        raise FileNotFoundError(f"{folder} has no checkpoints/last.ckpt; there is nothing to resume")
    problems: list[str] = []
    for path in files:
        try:
            read_state(path)
        except InputError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            log.warning("%s Going on from %s.", problem, path)
        return path
    raise InputError("\n".join([*problems, "No checkpoint of this run is whole: start anew, or from a copy."]))


def read_state(path: Path) -> dict[str, Any]:
    """The state of a run, its tensors left on the disk; every part has its checksum.

    Raises:
        InputError: the file is damaged, or is none of train.py's.
    """
    state = upgrade(open_weights(path))
    if not isinstance(state, dict) or not {"loops", "global_step", "state_dict"} <= state.keys():
        raise InputError(
            f"{path} holds weights and not the state of a run: resume= takes checkpoints/last.ckpt of one; init= "
            "starts from weights."
        )
    return state


def settings_of(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's settings its checkpoints keep, as plain values."""
    return {name: json.loads(json.dumps(nodes.get(name), default=str)) for name in (*FIXED, "trainer", "init")}


def compare_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Say which settings of the trainer have changed since a checkpoint; they are used from here on.

    Raises:
        InputError: others differ: the checkpoint's optimiser, or the order of the data, would go on as it was.
    """
    if not before:
        log.warning("the checkpoint is of an older version and does not tell its settings: they are not compared")
        return
    data = before.get("data") or {}
    for name, values in SINCE.items():
        if str(data.get("_target_")).endswith(name):
            before = {**before, "data": {**values, **data}}
    differences = {
        key: (old, new)
        for name in (*FIXED, "trainer")
        for key, (old, new) in _differences(name, before.get(name), now.get(name)).items()
        if not set(key.split(".")[1:2]) & FREE.get(name, set())
    }
    refused = {key: values for key, values in differences.items() if not key.startswith("trainer.")}
    if refused:
        lines = "".join(f"\n  {key}: {old} in the checkpoint, {new} now" for key, (old, new) in refused.items())
        raise InputError(
            f"the run that is resumed was asked for something else:{lines}\nGive the same settings, or start a "
            "new run from its weights with init="
        )
    for key, (old, new) in differences.items():
        log.warning("%s was %s until here and is %s from here on", key, old, new)


def _differences(key: str, before: Any, now: Any) -> dict[str, tuple[Any, Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = [*before, *(name for name in now if name not in before)]
        found = [_differences(f"{key}.{name}", before.get(name), now.get(name)) for name in names]
        return {name: values for each in found for name, values in each.items()}
    return {} if before == now else {key: (before, now)}
