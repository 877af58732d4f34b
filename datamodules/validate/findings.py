"""What is found in one file: its kind, facts, problems, and what it says of images and questions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from datamodules.progress import LARGE, progress_bar
from datamodules.stores import Source

SHOWN = 3  # examples of a problem
LONGEST = 300  # characters of one


class Fact(NamedTuple):
    """Something counted or measured, and the same in the original release where that is known."""

    what: str
    found: str
    original: str


@dataclass
class Findings:
    """What is found in a file.

    Attributes:
        kind: what sort of file it is; empty while not recognised.
        images: ids of the images that its texts are about, as region files name them, or what follows the
            first underscore of these.
        region_images: ids of the images that it has regions of.
        asks, answers: ids of the questions that an official VQA file asks, and of those that one answers, with
            the numbers of their images.
        subset: of an official VQA file, such as train2014.
    """

    path: Path
    kind: str = ""
    facts: list[Fact] = field(default_factory=list)
    images: set[str] = field(default_factory=set)
    region_images: set[str] = field(default_factory=set)
    asks: dict[int, int] = field(default_factory=dict)
    answers: dict[int, int] = field(default_factory=dict)
    subset: str = ""
    _wrong: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def fact(self, what: str, found: str | int, original: str | int = "") -> None:
        """Note a fact; whole numbers get thousands separators."""
        self.facts.append(Fact(what, *(f"{v:,}" if isinstance(v, int) else v for v in (found, original))))

    def wrong(self, what: str, where: str = "") -> None:
        """Count a problem of the sort `what`, and keep where the first few are."""
        count, examples = self._wrong.get(what, (0, []))
        where = where if len(where) <= LONGEST else f"{where[:LONGEST]}..."
        self._wrong[what] = (count + 1, [*examples, where] if where and len(examples) < SHOWN else examples)

    def wrong_all(self, what: str, examples: Iterable[object]) -> None:
        """As `wrong` for each of the examples."""
        for example in examples:
            self.wrong(what, str(example))

    @property
    def problems(self) -> list[str]:
        """One line for each sort of problem: how many, and the first few."""
        lines = []
        for what, (count, examples) in self._wrong.items():
            shown = "; ".join(examples) + ("; ..." if count > len(examples) > 0 else "")
            lines.append(what + (f", {count:,}" if count > 1 else "") + (f": {shown}" if shown else ""))
        return lines


@contextmanager
def progress(path: Path) -> Iterator[tqdm]:
    """A bar over the bytes of a file, or of those in a folder, shown where they are many."""
    size = Source.of(path).size
    with progress_bar(path.name, size, shown=size >= LARGE, leave=False) as bar:
        yield bar
