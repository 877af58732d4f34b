"""Caffe's weights: a protobuf message, of which a reader of the wire format needs five field numbers.

NetParameter: layer = 100. LayerParameter: name = 1, blobs = 7. BlobProto: data = 5 (packed float32), shape = 7; in
older files num, channels, height, width = 1 to 4. BlobShape: dim = 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lxmert.files import InputError

_LAYER, _NAME, _BLOBS, _DATA, _SHAPE, _DIM = 100, 1, 7, 5, 7, 1
_OLD_LAYER = 2  # of Caffe before 2015, with other numbers inside
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_LARGEST_SIDE = 1 << 31


class _DamageError(ValueError):
    """The bytes are no protobuf message of this kind."""


def read_caffemodel(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .caffemodel: the blobs of a layer as LAYER:0, LAYER:1, ...

    Raises:
        InputError: no such file, or a damaged one.
    """
    content = memoryview(path.read_bytes())
    arrays: dict[str, np.ndarray] = {}
    fields: set[int] = set()
    try:
        for number, value in _fields(content):
            fields.add(number)
            if number == _LAYER:
                arrays.update(_layer(_bytes(value)))
    except (_DamageError, UnicodeDecodeError) as error:
        if not arrays:
            raise InputError(
                f"{path}: no weights of Caffe, PyTorch, detectron2 or safetensors ({error}). Expected the "
                "detector's weights themselves; get the file again."
            ) from error
        raise InputError(
            f"{path}: damaged or cut off after {len(arrays)} arrays of Caffe's ({error}). Get the file again."
        ) from error
    if not arrays:
        old = " but layers as Caffe wrote them before 2015: let its upgrade_net_proto_binary rewrite them"
        raise InputError(
            f"{path}: no layer with weights in it{old * (_OLD_LAYER in fields)}. Get the weights again."
        )
    return arrays


def _layer(content: memoryview) -> dict[str, np.ndarray]:
    name, blobs = "", []
    for number, value in _fields(content):
        if number == _NAME:
            name = bytes(_bytes(value)).decode()
        elif number == _BLOBS:
            blobs.append(_blob(_bytes(value)))
    return {f"{name}:{place}": blob for place, blob in enumerate(blobs)}


def _blob(content: memoryview) -> np.ndarray:
    data, shape, old = memoryview(b""), None, [1, 1, 1, 1]
    for number, value in _fields(content):
        if number == _DATA:
            data = _bytes(value)
        elif number == _SHAPE:
            shape = _dims(_bytes(value))
        elif 1 <= number <= 4 and isinstance(value, int):
            old[number - 1] = value
    sides = old if shape is None else shape
    if len(data) % 4 or any(side >= _LARGEST_SIDE for side in sides) or math.prod(sides) != len(data) // 4:
        raise _DamageError(f"an array of {len(data)} bytes for the shape {tuple(sides)}")
    return np.frombuffer(data, "<f4").reshape(sides)


def _dims(content: memoryview) -> list[int]:
    found: list[int] = []
    for number, value in _fields(content):
        if number == _DIM and isinstance(value, int):
            found.append(value)
        elif number == _DIM and not isinstance(value, int):  # packed
            place = 0
            while place < len(value):
                dim, place = _varint(value, place)
                found.append(dim)
        if len(found) > 8:
            raise _DamageError("an array of more than 8 sides")
    return found


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: number and value, a number or bytes."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        number, kind = key >> 3, key & 7
        value: int | memoryview
        if kind == _VARINT:
            value, place = _varint(content, place)
        else:
            if kind == _BYTES:
                size, place = _varint(content, place)
            elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
                size = 8 if kind == _EIGHT_BYTES else 4
            else:
                raise _DamageError(f"no protobuf at byte {place}")
            if not number or size > len(content) - place:
                raise _DamageError(f"a field that ends beyond its message, at byte {place}")
            value, place = content[place : place + size], place + size
        yield number, value


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if place >= len(content):
            raise _DamageError("cut off within a number")
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise _DamageError(f"no number at byte {place}")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _DamageError("a number where a message should be")
    return value
