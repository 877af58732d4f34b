"""The arrays of a foreign file by name, of which it is known afterwards which were read."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from lxmert.files import InputError, shown

# What no region needs, and what the normalisation counts while it is trained.
_UNUSED = re.compile(
    r"(.*\.)?(bbox_pred|heatmap_\w+|fc_rel1|fc_subject|fc_object|rel_merge|rel_score)[.:]\w+|.*\.num_batches_tracked"
)


class Arrays:
    """The arrays of a file.

    Args:
        where: the file and its layout, for messages.
        content: name -> array.
    """

    def __init__(self, where: str, content: Mapping[str, np.ndarray]) -> None:
        self.where, self.content = where, content
        self.read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.content

    def take(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """The array `name` in double precision; None in `shape` stands for any number.

        Raises:
            InputError: there is none, or one of another shape or of no numbers.
        """
        wanted = " x ".join("n" if side is None else str(side) for side in shape)
        if name not in self.content:
            raise InputError(f"{self.where}: {name} ({wanted}) is missing; get the file again, or the right one")
        array = self.content[name]
        extra = array.ndim - len(shape)
        if extra > 0 and array.shape[:extra] == (1,) * extra:  # Caffe's first format gave all arrays four sides
            array = array.reshape(array.shape[extra:])
        fits = array.ndim == len(shape) and all(s in (None, n) for s, n in zip(shape, array.shape, strict=True))
        if not fits or not array.size:
            sides = " x ".join(map(str, array.shape)) or "one number"
            raise InputError(f"{self.where}: {name} is {sides}; expected {wanted or 'one number'}")
        if array.dtype.kind != "f":
            raise InputError(f"{self.where}: {name} holds {array.dtype}; expected floating-point numbers")
        self.read.add(name)
        return array.astype(np.float64)

    def left(self) -> dict[str, bool]:
        """The arrays that were not read: name -> whether it is known that features do not need it.

        Raises:
            InputError: one belongs to a layer that was read, so that the layer is not what it is taken for.
        """
        layers = {_layer(name) for name in self.read}
        left = {name: bool(_UNUSED.fullmatch(name)) for name in self.content if name not in self.read}
        for name, unused in left.items():
            if not unused and _layer(name) in layers:
                raise InputError(
                    f"{self.where}: {shown(name, str)} belongs to a layer that has no such part in the published "
                    "model: a detector of another kind"
                )
        return left


def _layer(name: str) -> str:
    return re.sub(r"[.:][^.:]*$", "", name)
