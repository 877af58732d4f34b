"""The pictures that a page may ask about, by names of its own: no path comes from outside."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from datamodules.formats.arrays import PICTURES
from datamodules.layout import find_picture
from lxmert.ask import Eyes, Seen
from lxmert.files import InputError, shown

SHOWN = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")  # by browsers
KEPT = 256  # pictures whose regions are in memory: 75 MB of 36 regions, 2048 features
Entry = tuple[str, ...]


class Gallery:
    """Images of region stores, and picture files at which a detector looks when they are asked about.

    Args:
        eyes: what sees them.
        each: pictures that one question is about.
        folder: of the files; None for none.
        questions: of a split: its images, as many together as a question is about -> (question, right answer or
            ""). They are then all that is listed of the stores. None for every image of the stores.

    Attributes:
        entries: what is asked about, in order; each as many image ids as a question is about.

    Raises:
        InputError: there is nothing to ask about.
    """

    def __init__(
        self,
        eyes: Eyes,
        each: int = 1,
        *,
        folder: str | Path | None = None,
        questions: Mapping[Entry, Sequence[tuple[str, str]]] | None = None,
    ) -> None:
        self.eyes, self.each = eyes, each
        self.questions = questions or {}
        self.files = {} if folder is None else picture_files(Path(folder).expanduser())
        ids = [name.decode(errors="replace") for store in eyes.stores for name in store.image_ids.tolist()]
        stored = set(ids)
        self.files = {name: path for name, path in self.files.items() if path.stem not in stored}
        if self.files and eyes.detector is None:
            if not stored:
                raise InputError(
                    f"{folder}: there is no detector to find the regions of its pictures with. Name the weights "
                    "of one (--detector)"
                )
            self.files = {}  # they are there to be shown beside the stores' regions
        listed = list(questions) if questions is not None else neighbours(ids, each)
        self.entries = [*listed, *neighbours(list(self.files), each)]
        if not self.entries:
            raise InputError(
                f"no pictures to ask about{'' if folder is None else f' in {folder}'}. Name a region store "
                "(--store), a split of the run's data (--split), or a folder of pictures with a detector "
                "(--pictures, --detector)"
            )
        self.places = {entry: place for place, entry in enumerate(self.entries)}
        self._seen: OrderedDict[str, Seen] = OrderedDict()

    def known(self, image_id: str) -> bool:
        """Whether it is the name of an image here."""
        return image_id in self.files or any(store.index([image_id])[0] >= 0 for store in self.eyes.stores)

    def see(self, image_id: str) -> Seen:
        """The regions of an image; kept, as a detector takes its time and a model its encoding.

        Raises:
            FileNotFoundError: none of this name.
            InputError: a file that is no picture.
        """
        if image_id not in self._seen:
            if not self.known(image_id):
                raise FileNotFoundError(f"{shown(image_id)}: no image of this name here")
            seen = self.eyes.see(self.files.get(image_id, image_id))
            self._seen[image_id] = replace(seen, image_id=image_id)
        self._seen.move_to_end(image_id)
        while len(self._seen) > KEPT:
            self._seen.popitem(last=False)
        return self._seen[image_id]

    def picture(self, image_id: str) -> Path | None:
        """The file of an image, to be shown; None where there is none that browsers show."""
        if image_id in self.files:
            path = self.files[image_id]
            return path if path.suffix.lower() in SHOWN else None
        folder = self.eyes.pictures
        return find_picture(folder, image_id) if folder is not None and self.known(image_id) else None


def neighbours(ids: Sequence[str], each: int) -> list[Entry]:
    """`each` ids together, each followed by those after it."""
    return [tuple(ids[place : place + each]) for place in range(len(ids) - each + 1)]


def picture_files(folder: Path) -> dict[str, Path]:
    """The pictures in a folder and those in it, by their paths there; no link leads out of it.

    Raises:
        FileNotFoundError: no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of pictures")
    inside = folder.resolve()
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURES and path.name[0] != "." and path.is_file()
    )
    return {path.relative_to(folder).as_posix(): path for path in found if path.resolve().is_relative_to(inside)}
