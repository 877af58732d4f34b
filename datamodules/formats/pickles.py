"""Reading pickles that other projects keep arrays in, without running anything that they say.

A pickle names functions to call. Here it may name those alone that make numpy arrays, numbers and bytes; these
are our own, which look at what they get.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NoReturn

import numpy as np

_NUMBERS = frozenset("biufSUO")  # kinds of dtype; objects are what the same pickle holds
_DEEPEST = 32  # containers within each other
_SHARED = 10  # values that may stand for a byte, as one that is written once may be named in many places


def safe_loads(content: bytes | memoryview, encoding: str = "latin1") -> Any:
    """The value of a pickle of dicts, lists, numbers, texts, bytes and numpy arrays.

    Args:
        content: the pickle.
        encoding: of what Python 2 wrote as str; "bytes" leaves it as bytes.

    Raises:
        pickle.UnpicklingError: it names anything else, is damaged in any way, or makes containers that contain
            themselves, lie more than 32 deep or hold more than its length lets expect.
    """
    try:
        found = _Unpickler(io.BytesIO(content), encoding=encoding).load()
        _check_extent(found, _SHARED * len(content))
        return found
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # whatever a damaged one makes of the unpickler
        raise pickle.UnpicklingError(f"damaged pickle ({error!r:.100})") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise pickle.UnpicklingError(
                f"the pickle names {module}.{name}, expected numpy arrays and plain values"
            )
        return found

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("the pickle refers to something outside of it")


def _check_extent(value: Any, most: int) -> None:
    """That whoever goes through all of a value comes to an end soon, however often its parts are shared."""
    known: dict[int, tuple[int, int]] = {}

    def extent(part: Any, depth: int) -> tuple[int, int]:
        """How many values it stands for, and how many containers lie within each other."""
        parts: Iterable[Any]
        if isinstance(part, np.ndarray) and part.dtype.hasobject:
            parts = part.ravel().tolist()
        elif isinstance(part, dict):
            parts = chain(part.keys(), part.values())
        elif isinstance(part, list | tuple | set | frozenset):
            parts = part
        else:
            return 1, 0
        if depth > _DEEPEST:
            raise pickle.UnpicklingError(f"the pickle holds containers more than {_DEEPEST} deep")
        if id(part) not in known:
            values, height = 1, 0
            for each in parts:
                more, inner = extent(each, depth + 1)
                values, height = values + more, max(height, inner)
            known[id(part)] = values, height + 1
        values, height = known[id(part)]
        if values > most or height > _DEEPEST:
            raise pickle.UnpicklingError(
                f"the pickle stands for {values:,} values, {height} containers deep; expected fewer"
            )
        return values, height

    extent(value, 0)


def _dtype(kind: Any, align: bool = False, copy: bool = True, **_: Any) -> np.dtype:
    found = np.dtype(kind)
    if found.kind not in _NUMBERS or found.fields or found.shape:
        raise pickle.UnpicklingError(f"the pickle holds arrays of {found}, expected numbers")
    return found


def _reconstruct(kind: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if kind != _NDARRAY or shape != (0,):
        raise pickle.UnpicklingError("the pickle makes an array in an unusual way")
    return np.empty(0, np.int8)  # filled by its state, which comes next


def _frombuffer(buffer: Any, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(bytes(buffer), dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: np.dtype, content: Any = b"") -> Any:
    content = content.encode("latin1") if isinstance(content, str) else content
    if dtype.kind not in "biuf" or len(content) != dtype.itemsize:
        raise pickle.UnpicklingError("the pickle holds a number of an unusual kind")
    return np.frombuffer(content, dtype)[0]


def _encode(text: str, encoding: str = "") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("the pickle encodes text, expected bytes")
    return text.encode("latin1")


_NDARRAY = "numpy.ndarray"  # only ever what `_reconstruct` is given: not the class, which could be called
_ALLOWED: dict[tuple[str, str], Callable[..., Any] | str] = {
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
}
