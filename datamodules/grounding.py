"""RefCOCO, RefCOCO+, RefCOCOg, Visual7W pointing and their like: sentences that mean one thing of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.base import ExampleDataModule
from datamodules.batches import ExampleDataset, Part, Rows
from datamodules.formats.referring import SLACK, convert_referring
from datamodules.layout import COCO, COCO_FOLDER, Layout
from datamodules.release import ReleaseFolder
from datamodules.stores import ExampleStore, RegionStore
from lxmert.files import InputError

SPLITS = ("train", "val", "test", "testA", "testB")
RELEASED_SPLITS = {"train": ["train"], "valid": ["val"], "test": ["val"], "predict": ["val"]}


@dataclass(eq=False, repr=False)
class GroundingDataModule(ExampleDataModule):
    """Sentences about images, each with the box of what it means.

    `root` is a data folder, in which these are once `python -m datamodules.prepare` has read the makers' files:

        stores/{folder}/{split}.h5                        the sentences and boxes
        stores/{folder}/{split}_truth.json                the same to score predictions by, as `{split}.json` below
        mscoco_imgfeat/train2014_obj36.tsv                regions; not needed any more once converted
        images/                                           optional: pictures, to look at

    Sentences of one's own are `{folder}/{split}.json`, as datamodules/formats/referring.py says.

    Batches have the targets box (R, 4) and, where the choice is among boxes that are given, others (R, 4 k), the
    wrong ones: x, y, width, height each, in pixels; and image_size (I, 2), the width and height that these are of.
    They have no answers.

    Args, beside those of ExampleDataModule:
        task: whose rule scores predictions: refcoco, of all of these.
        folder: of the text files and their stores.
        region_folder: of the region files. In the release's, mscoco_imgfeat, COCO's ids name their file; in
            another, any file may have any image.

    Raises:
        InputError: an example without a box, boxes that lie outside of their pictures, or that are of pictures of
            another size than the regions (in `setup`).
    """

    title = "referring expressions"
    released_splits = RELEASED_SPLITS
    has_answers = False

    _: KW_ONLY
    task: str = "refcoco"
    folder: str = "refcoco"
    region_folder: str = COCO_FOLDER

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self) is GroundingDataModule:
            self.title = self.folder

    def release_folder(self) -> ReleaseFolder:
        """The data set's files."""
        coco = self.region_folder == COCO_FOLDER
        needed = [file.name for file in COCO[:1]] if coco else []
        return ReleaseFolder(
            self.root,
            self.stores,
            folder=self.folder,
            layout=Layout(COCO if coco else (), (self.region_folder,), dict.fromkeys(SPLITS, needed)),
            convert=convert_referring,
            data_set=self.folder,
            toy="toy_refcoco",
            origin=f"`python -m datamodules.prepare {self.folder}` makes the texts of the makers' files, your own "
            "are JSON lists: docs/grounding.md says how, and where the regions come from.",
        )

    def answer_splits(self, stage: str | None) -> list[str]:
        """None: there are no answers."""
        return []

    def make_dataset(self, role: str, parts: list[Part], regions: list[RegionStore]) -> GroundingDataset:
        """The data set of a role.

        Raises:
            InputError: some splits alone have boxes to choose among, or another number of them; as `check_boxes`.
        """
        given = [part.examples.numbers.get("others", 0) // 4 for part in parts]
        if len(set(given)) > 1:
            told = ", ".join(
                f"{self.release.text_file(split)} has {count} others"
                for split, count in zip(self.splits[role], given, strict=True)
            )
            raise InputError(
                f"data.{role}: not as many boxes to choose among: {told}. Give all rows as many, or use one "
                "of these files at a time."
            )
        dataset = GroundingDataset(parts, regions, self.tokenizer, num_answers=0, max_length=self.max_length)
        for part in parts:
            check_boxes(part.examples, dataset.sizes_of(part), needed=role != "predict")
        return dataset

    def scoring_files(self, split: str) -> dict[str, Path]:
        """The boxes of a split, to score predictions by, where they are there."""
        files = (self.release.text_file(split), self.release.text_store(split).with_name(f"{split}_truth.json"))
        return next(({"truth": file} for file in files if file.exists()), {})


class GroundingDataset(ExampleDataset):
    """Sentences with boxes in pixels, and the sizes of the pictures that these are of.

    Of region stores that do not know these (1 x 1), those that the sentences' file tells.
    """

    @cached_property
    def _told(self) -> dict[int, np.ndarray]:
        told: dict[int, np.ndarray] = {}
        for part in self.parts:
            if "size" in part.examples.numbers:
                places, first = np.unique(part.images[part.examples.column("image")], return_index=True)
                told |= dict(zip(places.tolist(), part.examples.column("numbers/size")[first], strict=True))
        return told

    def sizes_of(self, part: Part) -> np.ndarray:
        """(n, 2): width and height of the picture of each example of a part, 0 where it has no regions."""
        places = part.images[part.examples.column("image")]
        sizes = np.zeros((len(places), 2), np.float32)
        known = np.flatnonzero(places >= 0)
        sizes[known] = self._sizes(places[known])
        return sizes

    def _sizes(self, images: np.ndarray) -> np.ndarray:
        sizes = np.empty((len(images), 2), np.float32)
        for number, where, places in self._region_owners(images):
            sizes[where] = self.regions[number].image_size(places).numpy()
        for place in np.flatnonzero((sizes == 1).all(1)).tolist():
            sizes[place] = self._told.get(int(images[place]), sizes[place])
        return sizes

    def _image_targets(self, rows: Rows, images: np.ndarray) -> dict[str, Tensor]:
        return {"image_size": torch.from_numpy(self._sizes(images))}


def check_boxes(store: ExampleStore, sizes: np.ndarray, *, needed: bool = True) -> None:
    """Refuse boxes that are not of the pictures in which regions were found.

    Args:
        store: the examples.
        sizes: (n, 2) width and height of each one's picture, as its regions tell; 0 where it has none.
        needed: there have to be boxes.

    Raises:
        InputError: there are no boxes; sizes are not known; or names the first that is of a picture of another
            size, or reaches out.
    """
    if needed and store.numbers.get("box") != 4:
        raise InputError(
            f"{store.path}: no boxes of what its sentences mean. Make it with `python -m datamodules.prepare`, or "
            "of rows as docs/grounding.md describes them."
        )
    known = sizes[:, 0] > 0
    if (unknown := (sizes == 1).all(1)).any():
        raise InputError(
            f"{store.path}: of {unknown.sum()} of {len(store)} examples the regions do not tell how large the "
            'pictures are in whose pixels boxes are. Give "size": [width, height] in each row, or use regions '
            "that tell it."
        )
    if "box" not in store.numbers:
        return
    told = store.column("numbers/size") if "size" in store.numbers else sizes
    names = [name for name in ("box", "others") if name in store.numbers]
    boxes = np.concatenate([store.column(f"numbers/{name}") for name in names], 1).reshape(len(store), -1, 4)
    ends = boxes[..., :2] + boxes[..., 2:]
    outside = (boxes[..., :2] < -SLACK).any((1, 2)) | (ends > sizes[:, None] + SLACK).any((1, 2))
    wrong = np.flatnonzero(known & (outside | (told != sizes).any(1)))
    if len(wrong):
        first = wrong[:1]
        width, height = sizes[first[0]].tolist()
        raise InputError(
            f"{store.path}: {len(wrong)} of {len(store)} examples have boxes that do not fit their pictures, the "
            f"first {store.read(first).ids[0]}: {_listed(boxes[first[0]])} (x, y, width, height) of a picture of "
            f"{' x '.join(f'{side:g}' for side in told[first[0]].tolist())} pixels, where its regions are of one "
            f"of {width:g} x {height:g}. Use regions of the makers' own pictures, in their size."
        )


def _listed(boxes: Sequence[Sequence[float]]) -> str:
    return ", ".join(f"[{', '.join(f'{value:g}' for value in box)}]" for box in boxes)
