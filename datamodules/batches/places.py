"""Where the images of text stores are among the region stores of a data set."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable

import numpy as np

from datamodules.layout import Layout, spellings, stem_of
from datamodules.stores import RegionStore
from lxmert.files import InputError, shorten


class Places:
    """Region stores one after the other; an image's place counts over all of them.

    Args:
        stores: the open stores by the names of their files.
        layout: which files an id names.
        used: name of a store -> for each of its images what texts call it that call it otherwise, None before one
            does; it is filled in. The same for all splits of a data set.
    """

    def __init__(
        self, stores: dict[str, RegionStore], layout: Layout, used: dict[str, np.ndarray] | None = None
    ) -> None:
        self.stores, self.layout = stores, layout
        self._used = {} if used is None else used
        self._starts = np.cumsum([0, *map(len, stores.values())]).tolist()

    def of(self, images: list[str], split: str) -> np.ndarray:
        """(len(images),) int64 place of each image of a split, -1 without regions.

        An image is looked for in the files that its id names; in all, when it names none, and there in all its
        `spellings`.

        Raises:
            InputError: an image that names no file is in two of them; two pictures would have the same regions.
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
                which = np.flatnonzero(anywhere & (places < 0))
                places[which] = self._anywhere([spelt[i] for i in which], split)
                if spelt != images:
                    self._use([images[i] for i in which], places[which], split)
        return places

    def _look(self, images: list[str], files: np.ndarray, places: np.ndarray) -> None:
        """Look for images that have no place yet in the file named for each."""
        for name in self.stores:
            which = np.flatnonzero((files == name) & (places < 0))
            places[which] = self._find([images[i] for i in which], name)

    def _anywhere(self, ids: list[str], split: str) -> np.ndarray:
        """The place of each id in the one store that has it, -1 where none has."""
        places = np.full(len(ids), -1, np.int64)
        for name in self.stores:
            found = self._find(ids, name)
            twice = np.flatnonzero((found >= 0) & (places >= 0))
            if len(twice):
                other = self._owner(places[twice[0]])
                raise InputError(
                    f"{len(twice)} images of {split}, such as {shorten(ids[twice[0]])}, are in "
                    f"{self.stores[other].path} and in {self.stores[name].path} too: nothing tells which regions "
                    "are meant. Remove one of these files with what it was made of, or give the pictures of each "
                    "ids of their own, such as train/1 and valid/1, in texts and regions."
                )
            places = np.maximum(places, found)
        return places

    def _find(self, ids: list[str], name: str) -> np.ndarray:
        """The place of each id in a store, -1 where it is not."""
        found = self.stores[name].index(ids)
        return np.where(found >= 0, found + self._starts[list(self.stores).index(name)], -1)

    def _owner(self, place: int) -> str:
        """The store that a place is in."""
        return list(self.stores)[bisect(self._starts, place) - 1]

    def _use(self, images: list[str], places: np.ndarray, split: str) -> None:
        """Refuse two pictures that are at one place, of this split and of those before."""
        for name, start in zip(self.stores, self._starts, strict=False):
            store = self.stores[name]
            used = self._used.setdefault(name, np.full(len(store), None, object))
            here = np.flatnonzero((places >= start) & (places < start + len(store)))
            for image, number in zip([images[i] for i in here], (places[here] - start).tolist(), strict=True):
                other = used[number]
                if other is not None and other != image and not may_be_one(image, other):
                    raise InputError(
                        f"{shorten(other)} and {shorten(image)}, an image of {split}, would both have the "
                        f"regions of {shorten(store.image_ids[number].decode())} in {store.path}. Make regions "
                        f"that tell them apart, with ids such as {shorten(stem_of(image))}; if it is one picture, "
                        "give it one id in all texts."
                    )
                if other is None or len(image) > len(other):  # of two ids the one that tells more
                    used[number] = image

    def searched(self, images: Iterable[str], split: str) -> set[str]:
        """The names of the files that these images were looked for in."""
        named = {self.layout.files_of(image, split) for image in images}
        return {name for names in named for name in names if name in self.stores} | (
            set(self.stores) if () in named else set()
        )


def may_be_one(image: str, other: str) -> bool:
    """Whether two ids can be of one picture: neither their endings nor their folders differ, as far as given."""
    stems = stem_of(image), stem_of(other)
    endings = {name[len(stem) :].lower() for name, stem in zip((image, other), stems, strict=True)} - {""}
    short, long = sorted((f"/{stem}" for stem in stems), key=len)
    return len(endings) < 2 and long.endswith(short)
