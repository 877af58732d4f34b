"""A detector's file: weights, sizes and names in one safetensors file, with a hash of them all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from datamodules.detector.config import DetectorConfig
from datamodules.detector.network import without_memory
from lxmert.files import InputError, is_unicode, parse_json, replacing, shown

FORMAT = "lxmert detector 1"
HOW_TO_CONVERT = "Foreign weights are converted by `python -m datamodules.detector SOURCE OUT.safetensors`."
_TEXTS = ("name", "source", "config", "objects", "attributes", "sha256")


@dataclass(frozen=True)
class DetectorFile:
    """What a detector's file holds.

    Attributes:
        name: what the region stores call the detector.
        config: its sizes and rules.
        state: weights by the names of `FasterRCNN`, float32 or float16.
        object_names: of the classes 0 to `config.objects` - 1; empty where nobody told them.
        attribute_names: likewise.
        source: what the weights were converted from, or how they were made.
    """

    name: str
    config: DetectorConfig
    state: Mapping[str, Tensor]
    object_names: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()
    source: str = ""

    @cached_property
    def sha256(self) -> str:
        """A hash of sizes, rules and weights: of all that decides over the features, not of names."""
        digest = hashlib.sha256(json.dumps(self.config.to_dict(), sort_keys=True).encode())
        for key in sorted(self.state):
            tensor = self.state[key].contiguous()
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().data)
        return digest.hexdigest()


def write_detector(
    path: Path | str,
    config: DetectorConfig,
    state: Mapping[str, Tensor],
    *,
    name: str,
    object_names: Sequence[str] = (),
    attribute_names: Sequence[str] = (),
    source: str = "",
) -> str:
    """Write a detector's file, whole or not at all; arguments as of `DetectorFile`.

    Returns:
        Its hash, by which stores and checkpoints know it.

    Raises:
        InputError: the weights or names are not those of a detector of these sizes; the first wrong one is named.
    """
    path = Path(path)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    file = DetectorFile(name, config, tensors, tuple(object_names), tuple(attribute_names), source)
    _check(file, str(path))
    metadata = {
        "format": FORMAT,
        "name": name,
        "source": source,
        "config": json.dumps(config.to_dict()),
        "objects": json.dumps(file.object_names),
        "attributes": json.dumps(file.attribute_names),
        "sha256": file.sha256,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata)
    return metadata["sha256"]


def read_detector(path: Path | str) -> DetectorFile:
    """What `write_detector` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: no detector's file, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no detector {path}")
    try:
        with safe_open(path, "pt") as content:
            metadata = content.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(
                    f"{path}: a safetensors file, but no detector's: its format is "
                    f"{shown(metadata.get('format'))}, expected {FORMAT!r}. {HOW_TO_CONVERT}"
                )
            # Copies: the file is mapped, and may be replaced while the detector is used.
            state = {key: content.get_tensor(key).clone() for key in content.keys()}  # noqa: SIM118  no dict
    except InputError:
        raise
    except Exception as error:  # safetensors' own, and what torch makes of sizes that cannot be
        if _is_other(path):
            raise InputError(f"{path}: no safetensors file, expected a detector's. {HOW_TO_CONVERT}") from error
        raise InputError(f"{path}: damaged or cut off ({shown(error, str)}). Get or convert it again.") from error
    return _parsed(path, metadata, state)


def _is_other(path: Path) -> bool:
    """Whether a file does not even begin as safetensors do: eight bytes of length, then a JSON object."""
    with path.open("rb") as file:
        return file.read(9)[8:] not in (b"{", b"")


def _parsed(path: Path, metadata: Mapping[str, str], state: dict[str, Tensor]) -> DetectorFile:
    if missing := [key for key in _TEXTS if key not in metadata]:
        raise InputError(f"{path}: damaged: its header lacks {missing[0]}. Get or convert it again.")
    values = {key: parse_json(metadata[key].encode(errors="replace"), f"{path}: {key}") for key in _TEXTS[2:5]}
    if not isinstance(values["config"], dict):
        raise InputError(f"{path}: damaged: its config is {shown(values['config'])}. Get or convert it again.")
    try:
        config = DetectorConfig.from_dict(values["config"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    objects, attributes = (_names(values[key], f"{path}: {key}") for key in ("objects", "attributes"))
    file = DetectorFile(metadata["name"], config, state, objects, attributes, metadata["source"])
    _check(file, str(path))
    if file.sha256 != metadata["sha256"]:
        raise InputError(f"{path}: damaged: its weights are not those that its hash was made of. Get it again.")
    return file


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{where}: {shown(value)}; expected a list of names")
    return tuple(value)


def _check(file: DetectorFile, where: str) -> None:
    """Raise InputError unless weights and names fit the configuration."""
    for what, names, size in (
        ("object", file.object_names, file.config.objects),
        ("attribute", file.attribute_names, file.config.attributes),
    ):
        if names and len(names) != size:
            raise InputError(f"{where}: {len(names)} {what} names for a detector of {size} {what} classes")
    texts = (file.name, file.source, *file.object_names, *file.attribute_names)
    if not file.name.strip() or not all(map(is_unicode, texts)):
        raise InputError(f"{where}: a detector needs a name, and all names must be text: {shown(file.name)}")
    check_state(file.state, file.config, where)


def check_state(state: Mapping[str, Tensor], config: DetectorConfig, where: str) -> None:
    """Raise InputError unless all weights of these sizes are there, finite, float32 or float16."""
    expected = shapes(config, where)
    for key in dict.fromkeys((*expected, *state)):
        if key not in state:
            raise InputError(f"{where}: the weights {key} {expected[key]} are missing")
        tensor = state[key]
        if key not in expected:
            raise InputError(f"{where}: the weights {shown(key, str)} {tuple(tensor.shape)} belong to no part")
        if tuple(tensor.shape) != expected[key]:
            raise InputError(f"{where}: {key} is {tuple(tensor.shape)}; expected {expected[key]}")
        if tensor.dtype not in (torch.float32, torch.float16):
            raise InputError(f"{where}: {key} is {tensor.dtype}; expected float32 or float16")
        if not torch.stack(tensor.aminmax()).isfinite().all():
            raise InputError(f"{where}: {key} holds numbers that are not finite. Get the weights again.")


def shapes(config: DetectorConfig, where: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a detector's weights."""
    if sum(config.blocks) > 1000:  # the published one has 33
        raise InputError(f"{where}: {sum(config.blocks)} blocks; expected at most 1000")
    return {key: tuple(tensor.shape) for key, tensor in without_memory(config).state_dict().items()}
