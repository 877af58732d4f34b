"""Padding of encodings that are already there, as data collators ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def as_columns(inputs: Any, main: str) -> dict[str, Any]:
    """Encodings by name, of one mapping or of a list of them (examples).

    Raises:
        TypeError: they are neither.
        ValueError: there are none, without `main`, or of different names.
    """
    if isinstance(inputs, Mapping):
        columns = dict(inputs.items())
    elif isinstance(inputs, list | tuple) and all(isinstance(example, Mapping) for example in inputs):
        if not inputs:
            raise ValueError("nothing to pad: the list is empty")
        names = list(inputs[0].keys())
        for i, example in enumerate(inputs):
            if set(example.keys()) != set(names):
                raise ValueError(
                    f"example {i} has {', '.join(map(str, example.keys()))}, example 0 has {', '.join(names)}: "
                    "give all the same"
                )
        columns = {name: [example[name] for example in inputs] for name in names}
    else:
        raise TypeError(f"give an encoding or a list of encodings, got {type(inputs).__name__}")
    if main not in columns:
        raise ValueError(f"an encoding to pad must have {main}, this has {', '.join(map(str, columns))}")
    return columns


def as_rows(columns: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The encodings of `count` rows, of columns that are as long."""
    for name, values in columns.items():
        if len(values) != count:
            raise ValueError(f"{len(values)} of {name} but {count} rows: give one for each")
    return [{name: values[i] for name, values in columns.items()} for i in range(count)]


def kind_of(ids: Any) -> str | None:
    """Of what the ids are: tensors ("pt"), arrays ("np") or lists (None)."""
    while isinstance(ids, list | tuple) and len(ids):
        ids = next((item for item in ids if not isinstance(item, list | tuple) or item), None)
    if torch.is_tensor(ids):
        return "pt"
    return "np" if isinstance(ids, np.ndarray | np.generic) else None


def plain(value: Any) -> Any:
    """Lists and numbers of tensors and arrays, and of lists of them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def pad_rows(
    rows: list[dict[str, Any]], main: str, fills: dict[str, int], length: int | None, side: str
) -> list[dict[str, Any]]:
    """The rows with every field of `fills` brought to `length` with its fill; longer ones stay as they are.

    Raises:
        ValueError: a field has another length than `main`.
    """
    padded = []
    for i, row in enumerate(rows):
        count = len(row[main])
        missing = max((length or 0) - count, 0)
        row = dict(row)
        for name in fills.keys() & row.keys() if missing else ():
            if not isinstance(row[name], list | tuple) or len(row[name]) != count:
                raise ValueError(f"example {i}: {name} must be a list as long as {main} ({count}) to be padded")
            added = [fills[name]] * missing
            row[name] = [*row[name], *added] if side == "right" else [*added, *row[name]]
        padded.append(row)
    return padded
