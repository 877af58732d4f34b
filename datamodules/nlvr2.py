"""NLVR2 in the LXMERT release's files, statements about two images, and data sets of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

import numpy as np

from datamodules.base import ExampleDataModule
from datamodules.batches import ExampleDataset, Part, Rows, distinct
from datamodules.formats.release_nlvr2 import ANSWERS, convert_nlvr2, image_groups
from datamodules.layout import NLVR2, Layout
from datamodules.release import ReleaseFolder, own_folder, several_images
from datamodules.stores import ExampleStore, RegionStore
from lxmert.batch import Batch
from lxmert.files import InputError

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

    Statements of one's own have their texts in a `folder` of their own, as `convert_own` reads them. They are
    about two images or more; with n, rows n e to n e + n - 1 are statement e.

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
            image_columns=several_images,
        )

    def answer_splits(self, stage: str | None) -> list[str]:
        """None: the answers are known."""
        return []

    def image_codes(self, store: ExampleStore) -> list[np.ndarray]:
        """The codes of the left and the right images, and of further ones."""
        return [store.column(name) for name in image_names(store)]

    def groups_of(self, store: ExampleStore) -> list[str]:
        """The groups of a store that are coded targets: all but images."""
        return [name for name in store.groups if name not in image_groups(store.groups)]

    @property
    def num_images(self) -> int | None:
        """How many images a statement has, as the opened splits tell it; None before."""
        return next((len(image_names(store)) for store in self._examples.values()), None)

    def make_part(self, store: ExampleStore, images: list[np.ndarray]) -> Part:
        """A split as part of a data set."""
        part = super().make_part(store, images)
        return PairPart(part.examples, part.images, part.answers, part.groups, further=images[1:])

    def make_dataset(self, role: str, parts: list[Part], regions: list[RegionStore]) -> PairDataset:
        """The data set of a role."""
        if role == "train":
            self.check_labelled()
        self.check_images()
        return PairDataset(
            parts, regions, self.tokenizer, num_answers=len(self.answers), max_length=self.max_length
        )

    def check_images(self) -> None:
        """InputError when the statements of two splits have not as many images."""
        counts = {split: len(image_names(store)) for split, store in self._examples.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{self.release.text_file(split)} has {count}" for split, count in counts.items())
            raise InputError(f"different numbers of images a statement: {told}. Give all files as many columns.")

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


def image_names(store: ExampleStore) -> list[str]:
    """The columns of a store that hold the images of its examples."""
    return ["image", *(f"groups/{name}" for name in image_groups(store.groups))]


@dataclass(kw_only=True)
class PairPart(Part):
    """A part whose examples have several images.

    Args:
        further: for each image beside the first, its code in the store -> its place over all region stores.
    """

    further: list[np.ndarray]

    @property
    def incomplete(self) -> bool:
        """Whether some images have no regions."""
        return super().incomplete or any(bool((places < 0).any()) for places in self.further)

    def image_names(self) -> dict[str, list[str]]:
        """The names of the images, by the columns that hold their codes."""
        return {name: self.examples.table(name.removeprefix("groups/")) for name in image_names(self.examples)}

    def places_of(self, rows: np.ndarray | slice) -> np.ndarray:
        """(R, n) int64: the images of the examples at `rows`, as their places over all region stores."""
        columns = zip(image_names(self.examples), (self.images, *self.further), strict=True)
        return np.stack([places[self.examples.column(name)[rows]] for name, places in columns], 1)


class PairDataset(ExampleDataset):
    """Statements with several images each, as `Nlvr2DataModule` describes their batches."""

    parts: list[PairPart]  # type: ignore[assignment]

    @property
    def images(self) -> np.ndarray:
        """(len,) int64: the first image of every example; -1 where one of its images has no regions."""
        places = np.concatenate([part.places_of(slice(None)) for part in self.parts])
        return np.where((places < 0).any(1), -1, places[:, 0])

    def read(self, rows: Rows) -> Batch:
        """The batch of these rows, without features."""
        read = self._read(rows.indices)
        images = np.empty((len(rows.indices), 1 + len(self.parts[0].further)), np.int64)
        for number, where, places in self._owners(rows.indices):
            images[where] = self.parts[number].places_of(places)
        read.images = images.ravel()
        scores = read.targets.pop("answer_scores", None)
        if scores is not None:
            read.targets["statement"] = scores.argmax(1)
        first_row, row_sentence = distinct(read.texts.astype(np.str_))
        return self._batch(
            rows, read, read.texts[first_row], np.repeat(row_sentence, images.shape[1]), rows.indices[first_row]
        )
