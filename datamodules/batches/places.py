"""Where the images of text stores are among the region stores of a data set."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from datamodules.layout import Layout
from datamodules.stores import RegionStore


class Places:
    """Region stores one after the other; an image's place counts over all of them.

    Args:
        stores: the open stores by the names of their files.
        layout: which file an id names.
    """

    def __init__(self, stores: dict[str, RegionStore], layout: Layout) -> None:
        self.stores, self.layout = stores, layout
        self._starts = np.cumsum([0, *map(len, stores.values())]).tolist()

    def of(self, images: list[str]) -> np.ndarray:
        """(len(images),) int64 place of each image, -1 without regions.

        An image is looked for in the file that its id names; in all, when it names none.
        """
        places = np.full(len(images), -1, np.int64)
        named = np.array([self.layout.file_of(image) or "" for image in images])
        for (name, store), start in zip(self.stores.items(), self._starts, strict=False):
            here = np.flatnonzero((named == name) | (named == "") & (places < 0))
            found = store.index([images[i] for i in here])
            places[here] = np.where(found >= 0, found + start, -1)
        return places

    def searched(self, images: Iterable[str]) -> set[str]:
        """The names of the files that these images were looked for in."""
        named = {self.layout.file_of(image) for image in images}
        return {name for name in named if name} | (set(self.stores) if None in named else set())
