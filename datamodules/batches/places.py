"""Where the images of text stores are among the region stores of a data set."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from datamodules.layout import Layout, spellings
from datamodules.stores import RegionStore


class Places:
    """Region stores one after the other; an image's place counts over all of them.

    Args:
        stores: the open stores by the names of their files.
        layout: which files an id names.
    """

    def __init__(self, stores: dict[str, RegionStore], layout: Layout) -> None:
        self.stores, self.layout = stores, layout
        self._starts = np.cumsum([0, *map(len, stores.values())]).tolist()

    def of(self, images: list[str], split: str) -> np.ndarray:
        """(len(images),) int64 place of each image of a split, -1 without regions.

        An image is looked for in the files that its id names; in all, when it names none, and there in all its
        `spellings`.
        """
        places = np.full(len(images), -1, np.int64)
        named = [self.layout.files_of(image, split) for image in images]
        first = np.array([names[0] if names else "" for names in named])
        self._look(images, first, places)
        if any(len(names) > 1 for names in named):
            self._look(images, np.array([names[1] if len(names) > 1 else "" for names in named]), places)
        anywhere = first == ""
        if anywhere.any():
            for spelt in spellings(images):
                for name in self.stores:
                    self._find(spelt, name, np.flatnonzero(anywhere & (places < 0)), places)
        return places

    def _look(self, images: list[str], files: np.ndarray, places: np.ndarray) -> None:
        """Look for images that have no place yet in the file named for each."""
        for name in self.stores:
            self._find(images, name, np.flatnonzero((files == name) & (places < 0)), places)

    def _find(self, images: list[str], name: str, which: np.ndarray, places: np.ndarray) -> None:
        """Fill in the places of those images that are in a store."""
        if len(which):
            start = self._starts[list(self.stores).index(name)]
            found = self.stores[name].index([images[i] for i in which])
            places[which] = np.where(found >= 0, found + start, -1)

    def searched(self, images: Iterable[str], split: str) -> set[str]:
        """The names of the files that these images were looked for in."""
        named = {self.layout.files_of(image, split) for image in images}
        return {name for names in named for name in names if name in self.stores} | (
            set(self.stores) if () in named else set()
        )
