"""NLVR2 in the LXMERT release's files: statements about two images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.base import convert_once
from datamodules.collate import ExampleDataset, Part, distinct
from datamodules.examples import examples_are_current, is_text, read_json, shorten, write_examples
from datamodules.features import RegionStore
from datamodules.release import ReleaseDataModule
from datamodules.sampling import Rows
from lxmert.batch import Batch

ANSWERS = ["False", "True"]
CHUNK = 10_000  # statements written at once
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
    image_groups = ("right",)
    region_folders = ("nlvr2_imgfeat",)

    def __init__(self, root: str | Path, tokenizer: str | Path, **release: Any) -> None:
        super().__init__(root, tokenizer, **release)
        self.answers = list(ANSWERS)

    def convert_examples(self, split: str, source: Path, store: Path) -> None:
        """Make the text store of a split."""
        convert_once(store, lambda: examples_are_current(store, [source]), lambda: convert_nlvr2(source, store))

    def _answer_splits(self, stage: str | None) -> list[str]:
        return []

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
        right: code of the group "right" -> the place of that image over all region stores.
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
        right = np.concatenate([part.right[part.examples.column("groups/right")] for part in self.parts])
        return np.where(right < 0, -1, left)

    def __getitem__(self, rows: Rows | np.ndarray | Sequence[int]) -> Batch:
        rows = rows if isinstance(rows, Rows) else Rows(np.asarray(rows, np.int64))
        read = self._read(rows.indices)
        pair = np.empty((len(rows.indices), 2), np.int64)
        pair[:, 0] = read.images
        for number, where, places in self._owners(rows.indices):
            part = self.parts[number]
            pair[where, 1] = part.right[part.examples.column("groups/right")[places]]
        read.images = pair.ravel()
        scores = read.targets.pop("answer_scores", None)
        if scores is not None:
            read.targets["statement"] = scores.argmax(1)
        first_row, row_sentence = distinct(read.texts.astype(np.str_))
        return self._batch(rows, read, read.texts[first_row], np.repeat(row_sentence, 2), rows.indices[first_row])

    __getitems__ = __getitem__


def convert_nlvr2(source: Path, store: Path) -> Path:
    """Convert a statement file of the LXMERT release to a text store.

    The file is a JSON list of `{identifier, img0, img1, sent, label, uid}`; label is 0 or 1, and absent
    from all rows of a hidden split. The store has the left image as `image`, the right one as the group
    "right", and the answers "False" and "True".

    Raises:
        ValueError: a row that cannot be used, naming file, row (from 0) and identifier.
        StoreError: the store cannot be written.
    """
    rows = read_json(source)
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
        raise ValueError(f"{source}: expected a JSON list of statements, found {shorten(rows)}.")
    labelled = "label" in rows[0]
    check_statements(source, rows, labelled)
    with write_examples(store, groups=["right"], labelled=labelled, sources=[source]) as writer:
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            writer.append(
                texts=[row["sent"] for row in chunk],
                ids=[row["identifier"] for row in chunk],
                images=[row["img0"] for row in chunk],
                labels=[{ANSWERS[row["label"]]: 1.0} if labelled else {} for row in chunk],
                groups={"right": [row["img1"] for row in chunk]},
            )
    return store


def check_statements(source: Path, rows: list[Any], labelled: bool) -> None:
    """Raise ValueError naming the first row of a release's statement file that cannot be used."""
    seen: dict[str, int] = {}
    for number, row in enumerate(rows):
        problem = None
        texts = ("identifier", "img0", "img1", "sent")
        if not isinstance(row, dict):
            problem = f"expected an object, found {shorten(row)}"
        elif bad := [key for key in texts if not is_text(row.get(key))]:
            problem = f"{bad[0]} is {shorten(row.get(bad[0]))}, expected a text"
        elif ("label" in row) != labelled:
            problem = "has a label and row 0 has none" if not labelled else "has no label and row 0 has one"
        elif labelled and not (isinstance(row["label"], int) and row["label"] in (0, 1)):
            problem = f"label is {shorten(row['label'])}, expected 0 or 1"
        elif row["identifier"] in seen:
            problem = f"duplicate identifier, first used in row {seen[row['identifier']]}"
        if problem:
            name = row.get("identifier") if isinstance(row, dict) else None
            raise ValueError(f"{source}: row {number} ({name}): {problem}. Mend or remove that row.")
        seen[row["identifier"]] = number
