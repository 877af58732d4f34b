"""NLVR2 in the LXMERT release's files: statements about two images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

import numpy as np

from datamodules.base import ExampleDataModule
from datamodules.batches import ExampleDataset, Part, Rows, distinct
from datamodules.formats.release_nlvr2 import ANSWERS, RIGHT, convert_nlvr2
from datamodules.layout import NLVR2, Layout
from datamodules.release import ReleaseFolder, left_and_right, own_folder
from datamodules.stores import ExampleStore, RegionStore
from lxmert.batch import Batch

RELEASED_SPLITS = {"train": ["train"], "valid": ["valid"], "test": ["test"], "predict": ["test"]}
REGION_FOLDER = "nlvr2_imgfeat"
LAYOUT = Layout(
    files=NLVR2,
    folders=(REGION_FOLDER,),
    splits={
        "train": ["nlvr2_imgfeat/train_obj36"],
        "valid": ["nlvr2_imgfeat/valid_obj36"],
        "test": ["nlvr2_imgfeat/test_obj36"],
    },
)


@dataclass(eq=False, repr=False)
class Nlvr2DataModule(ExampleDataModule):
    """Statements that are true or false of a pair of images: two rows an example, sharing one sentence.

    `root` is a data folder as the LXMERT release lays it out:

        nlvr2/{split}.json                            identifier, img0, img1, sent, label 0 or 1 (or none)
        nlvr2_imgfeat/{train,valid,test}_obj36.tsv    regions; not needed any more once converted
        nlvr2/official/{dev,test1,...}.json           optional: the makers' files, for their metrics after a test

    A batch of E statements has 2E rows: rows 2e and 2e + 1 are statement e with its left and its right
    image; `example_ids` are the E identifiers and the target `statement` (E,) int64 is 1 where it is true.

    Pairs of one's own have their texts in a `folder` of their own, as `convert_own` reads them.

    Args, beside those of ExampleDataModule, whose batch sizes count statements here:
        task: whose submission format and score predictions have: nlvr2, or own.
        folder: of the text files and their stores.
        region_folder: of the regions of images whose ids name no file of the release's; any may have any image.
        columns: as of VqaDataModule; None for the release's format.
    """

    title = "NLVR2"
    released_splits = RELEASED_SPLITS

    _: KW_ONLY
    task: str = "nlvr2"
    folder: str = "nlvr2"
    region_folder: str = REGION_FOLDER
    columns: Mapping[str, str | None] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.columns is not None:
            self.title = self.folder
            self.label_names = {"answer_type": [], "question_type": []}
        self.answers = list(ANSWERS)

    def release_folder(self) -> ReleaseFolder:
        """NLVR2's files, or those of one's own."""
        if self.columns is not None:
            return own_folder(self.root, self.stores, self.folder, self.region_folder, self.columns, pairs=True)
        return ReleaseFolder(
            self.root,
            self.stores,
            folder=self.folder,
            layout=replace(LAYOUT, folders=(self.region_folder,)),
            convert=convert_nlvr2,
            data_set="NLVR2",
            toy="toy_nlvr2",
            image_columns=left_and_right,
        )

    def answer_splits(self, stage: str | None) -> list[str]:
        """None: the answers are known."""
        return []

    def image_codes(self, store: ExampleStore) -> list[np.ndarray]:
        """The codes of the left and the right images."""
        return [store.column("image"), store.column(f"groups/{RIGHT}")]

    def groups_of(self, store: ExampleStore) -> list[str]:
        """The groups of a store that are coded targets: all but the right images."""
        return [name for name in store.groups if name != RIGHT]

    def make_part(self, store: ExampleStore, images: list[np.ndarray]) -> Part:
        """A split as part of a data set."""
        part = super().make_part(store, images)
        return PairPart(part.examples, part.images, part.answers, part.groups, right=images[1])

    def make_dataset(self, role: str, parts: list[Part], regions: list[RegionStore]) -> PairDataset:
        """The data set of a role."""
        if role == "train":
            self.check_labelled()
        return PairDataset(
            parts, regions, self.tokenizer, num_answers=len(self.answers), max_length=self.max_length
        )

    def scoring_files(self, split: str) -> dict[str, Path]:
        """The makers' statements of a split and their two subsets, as far as they are there.

        Nothing without the statements.
        """
        name = {"valid": "dev", "test": "test1"}.get(split, split)
        files = {
            "statements": self.release.root / "nlvr2" / "official" / f"{name}.json",
            "balanced": self.release.root / "nlvr2" / "official" / f"balanced_{name}.json",
            "unbalanced": self.release.root / "nlvr2" / "official" / f"unbalanced_{name}.json",
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

    def image_names(self) -> dict[str, list[str]]:
        """The names of the left and of the right images."""
        return super().image_names() | {f"groups/{RIGHT}": self.examples.table(RIGHT)}


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
