"""A toy's folder of generated files: it appears whole or not at all, and is not written twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datamodules.stores import locked
from lxmert.files import InputError

MANIFEST = "toy.json"


def check_sizes(toy: str, parameters: Any) -> None:
    """Raise InputError unless the sizes of a toy's world, a dataclass of integers, are large enough."""
    for name, value in asdict(parameters).items():
        least = 0 if name in ("pictures", "seed", "visual7w") else 1
        if value < least:
            raise InputError(f"{toy}'s {name} must be at least {least}, not {value}")


def read_manifest(root: Path) -> dict[str, Any]:
    """What a toy was made from and what is known of it; empty where there is no toy."""
    path = root / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def is_current(root: Path, made_from: dict[str, Any]) -> bool:
    """Whether `root` holds the whole toy that is made from this."""
    manifest = read_manifest(root)
    return bool(manifest) and all(manifest.get(key) == value for key, value in made_from.items())


def write_whole(root: Path, made_from: dict[str, Any], write: Callable[[Path], dict[str, Any]]) -> Path:
    """Let `write` fill the toy's folder, unless what is there was made from the same.

    It is written beside `root` and moved there at the end; processes that come at the same time wait.

    Args:
        root: the toy's own folder.
        made_from: all that the files depend on, as JSON has it; the first entries of the manifest. Its
            "toy" tells the toys from each other.
        write: writes the files into the folder that it is given; what it returns is added to the manifest.

    Raises:
        StoreError: `root` cannot be written.
        FileExistsError: `root` holds something that is not this toy; it is left alone.
    """
    if is_current(root, made_from):
        return root
    with locked(root):  # processes that wait here find the work done
        if is_current(root, made_from):
            return root
        _refuse_others(root, made_from)
        partial, outdated = (root.with_name(f".{root.name}.{end}") for end in ("partial", "outdated"))
        for leftover in (partial, outdated):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            partial.mkdir()
            manifest = {**made_from, **write(partial)}
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            if root.exists():
                root.replace(outdated)
            partial.replace(root)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(outdated, ignore_errors=True)
    return root


def _refuse_others(root: Path, made_from: dict[str, Any]) -> None:
    if not root.exists() or not any(root.iterdir()):
        return
    if not (root / MANIFEST).exists():
        raise FileExistsError(
            f"{root} is not empty and has no {MANIFEST}, so it is not a toy world and is not "
            "overwritten: give the toy another folder, or empty this one"
        )
    if read_manifest(root).get("toy") != made_from.get("toy"):
        raise FileExistsError(
            f"{root} holds another toy (see its {MANIFEST}) and is not overwritten: "
            "give each toy a folder of its own"
        )
