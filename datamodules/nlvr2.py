"""NLVR2 in the LXMERT release's files: statements about two images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.base import convert_once
from datamodules.batches.dataset import ExampleDataset, Part, distinct
from datamodules.batches.sampling import Rows
from datamodules.formats.release_nlvr2 import ANSWERS, RIGHT, convert_nlvr2
from datamodules.release import ReleaseDataModule
from datamodules.stores.hdf5 import StoreError
from datamodules.stores.regions import RegionStore
from datamodules.stores.texts import ExampleStore, examples_are_current
from lxmert.batch import Batch

RELEASED_SPLITS = {"train": ["train"], "valid": ["valid"], "test": ["test"], "predict": ["test"]}
SPLIT_REGIONS = {
    "train": ["nlvr2_imgfeat/train"],
    "valid": ["nlvr2_imgfeat/valid"],
    "test": ["nlvr2_imgfeat/test"],
}


class Nlvr2DataModule(ReleaseDataModule):
    """Statements that are true or false of a pair of images: two rows an example, sharing one sentence.

    `root` is a data folder as the LXMERT release lays it out:

        nlvr2/{split}.json                            identifier, img0, img1, sent, label 0 or 1 (or none)
        nlvr2_imgfeat/{train,valid,test}_obj36.tsv    regions; not needed any more once converted
        nlvr2/official/{dev,test1,...}.json           optional: the makers' files, for their metrics after a test

    A batch of E statements has 2E rows: rows 2e and 2e + 1 are statement e with its left and its right
    image; `example_ids` are the E identifiers and the target `statement` (E,) int64 is 1 where it is true.

    Its arguments are those of ReleaseDataModule; batch sizes count statements.
    """

    title = "NLVR2"
    data_set = "NLVR2"
    toy = "toy_nlvr2"
    task = "nlvr2"
    folder = "nlvr2"
    answer_file = "trainval_label2ans.json"
    released_splits = RELEASED_SPLITS
    split_regions = SPLIT_REGIONS
    image_groups = (RIGHT,)
    region_folders = ("nlvr2_imgfeat",)

    def __init__(self, root: str | Path, tokenizer: str | Path, **release: Any) -> None:
        super().__init__(root, tokenizer, **release)
        self.answers = list(ANSWERS)

    def convert_examples(self, split: str, source: Path, store: Path) -> None:
        """Make the text store of a split."""
        convert_once(store, lambda: examples_are_current(store, [source]), lambda: convert_nlvr2(source, store))

    def _answer_splits(self, stage: str | None) -> list[str]:
        return []

    def image_columns(self, store: ExampleStore) -> list[list[str]]:
        """The left and the right images' ids.

        Raises:
            StoreError: the store names the right images otherwise, as one from before they had one name.
        """
        if RIGHT not in store.groups:
            raise StoreError(
                f"{store.path}: it has no right images: an older version made it. Delete it, then make it again "
                "with `python -m datamodules.prepare nlvr2`."
            )
        return super().image_columns(store)

    def make_part(self, split: str, images: list[np.ndarray]) -> Part:
        """A split as part of a data set."""
        part = super().make_part(split, images)
        return PairPart(part.examples, part.images, part.answers, part.groups, right=images[1])

    def make_dataset(self, role: str, parts: list[Part], regions: list[RegionStore]) -> PairDataset:
        """The data set of a role."""
        if role == "train":
            self._check_labelled()
        return PairDataset(
            parts, regions, self.tokenizer, num_answers=len(self.answers), max_length=self.max_length
        )

    def scoring_files(self, split: str) -> dict[str, Path]:
        """The makers' statements of a split and their two subsets, as far as they are there.

        Nothing without the statements.
        """
        name = {"valid": "dev", "test": "test1"}.get(split, split)
        files = {
            "statements": self.root / "nlvr2" / "official" / f"{name}.json",
            "balanced": self.root / "nlvr2" / "official" / f"balanced_{name}.json",
            "unbalanced": self.root / "nlvr2" / "official" / f"unbalanced_{name}.json",
        }
        there = {what: file for what, file in files.items() if file.exists()}
        return there if "statements" in there else {}


@dataclass(kw_only=True)
class PairPart(Part):
    """A part whose examples have two images.

    Args:
        right: code of the group `RIGHT` -> the place of that image over all region stores.
    """

    right: np.ndarray

    @property
    def incomplete(self) -> bool:
        """Whether some images have no regions."""
        return super().incomplete or bool((self.right < 0).any())


class PairDataset(ExampleDataset):
    """Statements with two images each, as `Nlvr2DataModule` describes their batches."""

    parts: list[PairPart]  # type: ignore[assignment]

    @property
    def images(self) -> np.ndarray:
        """(len,) int64: the left image of every example; -1 where the left or the right has no regions."""
        left = super().images
        right = np.concatenate([part.right[part.examples.column(f"groups/{RIGHT}")] for part in self.parts])
        return np.where(right < 0, -1, left)

    def __getitem__(self, rows: Rows | np.ndarray | Sequence[int]) -> Batch:
        rows = rows if isinstance(rows, Rows) else Rows(np.asarray(rows, np.int64))
        read = self._read(rows.indices)
        pair = np.empty((len(rows.indices), 2), np.int64)
        pair[:, 0] = read.images
        for number, where, places in self._owners(rows.indices):
            part = self.parts[number]
            pair[where, 1] = part.right[part.examples.column(f"groups/{RIGHT}")[places]]
        read.images = pair.ravel()
        scores = read.targets.pop("answer_scores", None)
        if scores is not None:
            read.targets["statement"] = scores.argmax(1)
        first_row, row_sentence = distinct(read.texts.astype(np.str_))
        return self._batch(rows, read, read.texts[first_row], np.repeat(row_sentence, 2), rows.indices[first_row])

    __getitems__ = __getitem__
