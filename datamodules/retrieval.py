"""Image and text retrieval: captions and their images, in Karpathy's or VOLTA's files (Flickr30k, COCO)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.base import ExampleDataModule
from datamodules.batches import ExampleDataset, Part, Places, Rows, distinct, nearest_images
from datamodules.formats.captions import LINES, convert_captions, read_captions
from datamodules.layout import COCO, Layout
from datamodules.release import ReleaseFolder, listed
from datamodules.stores import RegionStore
from lxmert.batch import Batch
from lxmert.files import InputError
from lxmert.hash_random import below
from lxmert.tokenization import LxmertTokenizer

RELEASED_SPLITS: Mapping[str, Sequence[str]] = {
    "train": ["train"],
    "valid": ["val"],
    "test": ["test"],
    "predict": [],
}
NEGATIVES = ("options", "batch")
COCO_FOLDER = "mscoco_imgfeat"
ORIGIN = "docs/retrieval.md says where the captions come from, and what makes the regions of Flickr30k."


@dataclass(eq=False, repr=False)
class RetrievalDataModule(ExampleDataModule):
    """Captions, each with the image it was written of and with others that it is to be told from.

    `root` is a data folder:

        flickr30k/dataset_flickr30k.json    Karpathy's captions, of all splits; or VOLTA's, SPLIT_ann.jsonl
        flickr30k_imgfeat/*.tsv             regions; not needed any more once converted
        images/                             optional: pictures, to look at

    COCO has coco/dataset_coco.json and the regions of the LXMERT release in mscoco_imgfeat.

    A batch of E captions has the target options (Q, K) int64: Q questions of which of K rows fits, the true one
    first, -1 for no row. With options as negatives there are E questions of four rows, as VOLTA's code trains:
    the caption with its image; a caption of another image with that image; the caption with another image; and,
    with its image, a caption of an image that looks much like it (`nearest_images`). With those of the batch all
    captions meet all images of this process's share, E * E rows, and there are 2 E questions: which image has the
    caption, and which caption has the image; other captions of the same image are no wrong answers. Validation
    and tests have four options, which are the same at each pass.

    Args, beside those of ExampleDataModule, whose batch sizes count captions here:
        folder: of the captions and their stores.
        region_folder: of the regions: in mscoco_imgfeat ids name their file; in another any file may have any
            image.
        negatives: of training: options or batch.

    Raises:
        InputError: other negatives, or captions of fewer than two images.
    """

    title = "retrieval"
    released_splits = RELEASED_SPLITS
    needs_answers = False
    has_answers = False

    _: KW_ONLY
    folder: str = "flickr30k"
    region_folder: str = "flickr30k_imgfeat"
    negatives: str = "options"
    batch_size: int = 64
    max_length: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negatives not in NEGATIVES:
            raise InputError(f"data.negatives={self.negatives}; expected one of {', '.join(NEGATIVES)}")
        if type(self).title == RetrievalDataModule.title:
            self.title = f"{self.folder} retrieval"

    def release_folder(self) -> ReleaseFolder:
        """The captions and regions."""
        return CaptionFolder(
            self.root,
            self.stores,
            folder=self.folder,
            layout=Layout(
                COCO if self.region_folder == COCO_FOLDER else (),
                (self.region_folder,),
                {split: () for splits in RELEASED_SPLITS.values() for split in splits},
            ),
            convert=lambda source, store: convert_captions(source, store, store.stem),
            data_set=f"{self.folder} retrieval",
            toy="toy_retrieval",
            origin=ORIGIN,
        )

    def answer_splits(self, stage: str | None) -> list[str]:
        """None: nothing is answered."""
        return []

    def make_dataset(self, role: str, parts: list[Part], regions: list[RegionStore]) -> RetrievalDataset:
        """The data set of a role."""
        return RetrievalDataset(
            parts,
            regions,
            self.tokenizer,
            max_length=self.max_length,
            seed=self.seed,
            negatives=self.negatives if role == "train" else "options",
            nearest=self.release.stores / self.folder / f"{'+'.join(self.splits[role])}_nearest.npz",
        )

    def captions_of(self, role: str, number: int) -> Captions:
        """All captions and images of a role's split, to be scored against each other."""
        dataset = self.datasets[role]
        part, rows = dataset.parts[number], dataset.used(number) - dataset.starts[number]
        codes, image_of = np.unique(part.examples.image_codes(rows), return_inverse=True)
        read, table = part.examples.read(rows), part.examples.table("image")
        return Captions(
            read.ids, read.texts, [table[code] for code in codes.tolist()], image_of, part.images[codes], dataset
        )


class CaptionFolder(ReleaseFolder):
    """The files of a data set whose captions are those of all splits in one file, or one file a split."""

    def text_file(self, split: str) -> Path:
        """The file that has a split's captions, whether it is there or not; VOLTA's script calls val valid.

        Karpathy's archive has the files of three data sets: that of this folder's name is the one.

        Raises:
            InputError: several could be.
        """
        folder = self.root / self.folder
        own = folder / f"dataset_{self.folder}.json"
        names = (split, "valid") if split == "val" else (split,)
        found = [path for name in names for ending in LINES if (path := folder / f"{name}_ann{ending}").exists()]
        found += [own] if own.exists() else sorted(folder.glob("dataset_*.json"))
        if len(found) > 1:
            raise InputError(f"{listed(map(str, found))} are all the captions of {split}. Leave one.")
        return found[0] if found else own


class RetrievalDataset(ExampleDataset):
    """Captions with what they are to be told from; see `RetrievalDataModule`.

    Args:
        parts, regions, tokenizer, max_length: see ExampleDataset.
        seed: with the epoch and the caption it decides what is drawn.
        negatives: options or batch.
        nearest: file of the images that are most alike.

    Raises:
        InputError: captions of fewer than two images.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        regions: Sequence[RegionStore],
        tokenizer: LxmertTokenizer,
        *,
        max_length: int,
        seed: int,
        negatives: str,
        nearest: Path,
    ) -> None:
        super().__init__(parts, regions, tokenizer, num_answers=0, max_length=max_length)
        self.seed, self.negatives = seed, negatives
        images = self.images
        captions = np.flatnonzero(images >= 0)
        # The images, in the order of their place, and the captions of each.
        self.pool, counts = np.unique(images[captions], return_counts=True)
        if len(self.pool) < 2:
            files = listed(str(part.examples.path) for part in parts)
            raise InputError(f"{files}: captions of {len(self.pool)} image(s); retrieval wants two or more.")
        self._captions = captions[np.argsort(images[captions], kind="stable")]
        self._counts, self._first = counts, np.cumsum(counts) - counts
        self.nearest = nearest_images(nearest, regions, self.pool) if negatives == "options" else None

    def read(self, rows: Rows) -> Batch:
        """The batch of these captions, without features."""
        read = self._read(rows.indices)
        return self._with_options(rows, read) if self.nearest is not None else self._with_each_other(rows, read)

    def _with_options(self, rows: Rows, read: Any) -> Batch:
        """Four rows a caption."""
        own = np.searchsorted(self.pool, read.images)
        others, image, alike = self._draw(rows, own)
        captions = np.concatenate([others, alike])
        texts = np.concatenate([read.texts, self._texts(captions)])
        first, sentence = distinct(texts.astype(np.str_))
        own_sentence, other, similar = np.split(sentence, 3)
        row_sentence = np.stack([own_sentence, other, own_sentence, similar], 1)
        read.images = self.pool[np.stack([own, own, image, own], 1)].ravel()
        read.targets["options"] = np.arange(row_sentence.size).reshape(row_sentence.shape)
        keys = np.concatenate([rows.indices, captions])[first]
        return self._batch(rows, read, texts[first], row_sentence.ravel(), keys)

    def _draw(self, rows: Rows, own: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each caption, given the place of its image in `pool`, what it is to be told from.

        Returns:
            The place of a caption of another image, the place in `pool` of another image, and the place of a
            caption of a similar image, (E,) int64 each.
        """
        assert self.nearest is not None
        images = len(self.pool)

        def drawn(limit: np.ndarray | int, purpose: str) -> np.ndarray:
            return below(limit, self.seed, purpose, rows.epoch, rows.indices)

        def caption_of(image: np.ndarray, purpose: str) -> np.ndarray:
            return self._captions[self._first[image] + drawn(self._counts[image], purpose)]

        # A step of 1 to n - 1 around the circle of all images leads to any other one, each as likely.
        writer = (own + 1 + drawn(images - 1, "image of another caption")) % images
        image = (own + 1 + drawn(images - 1, "another image")) % images
        similar = self.nearest[own, drawn(self.nearest.shape[1], "similar image")]
        return caption_of(writer, "another caption"), image, caption_of(similar, "caption of a similar image")

    def _texts(self, indices: np.ndarray) -> np.ndarray:
        texts = np.empty(len(indices), object)
        for number, where, places in self._owners(indices):
            texts[where] = self.parts[number].examples.texts(places)
        return texts

    def _with_each_other(self, rows: Rows, read: Any) -> Batch:
        """Row e * E + f is caption e with the image of caption f."""
        captions = len(rows.indices)
        first, sentence = distinct(read.texts.astype(np.str_))
        read.targets["options"] = each_other(read.images)
        read.images = np.tile(read.images, captions)
        return self._batch(rows, read, read.texts[first], np.repeat(sentence, captions), rows.indices[first])


def each_other(images: np.ndarray) -> np.ndarray:
    """The questions of a batch in which all captions meet all images.

    Args:
        images: (E,) the image of each caption.

    Returns:
        (2 E, E) int64 rows, of which e * E + f is caption e with image f: first of each caption with all images,
        then of each image with all captions; the caption's own image first, -1 in place of the same image again.
    """
    size = len(images)
    place = np.arange(size)
    again = (images[:, None] == images) & ~np.eye(size, dtype=bool)
    rows = np.where(again, -1, place[:, None] * size + place)
    from_own = (place + place[:, None]) % size
    return np.concatenate([np.take_along_axis(each, from_own, 1) for each in (rows, rows.T)])


@dataclass
class Captions:
    """C captions and I images that are scored against each other (`lxmert.retrieve`).

    Args:
        caption_ids: C, int or str.
        texts: C.
        image_ids: I.
        image_of: (C,) int64, the place of each caption's own image.
        places: (I,) places of the images over all region stores ...
        dataset: ... of this data set, which reads them.
    """

    caption_ids: list[Any]
    texts: list[str]
    image_ids: list[str]
    image_of: np.ndarray
    places: np.ndarray = field(repr=False)
    dataset: ExampleDataset = field(repr=False)

    @classmethod
    def open(
        cls, path: Path, stores: Sequence[Path], split: str, tokenizer: LxmertTokenizer, max_length: int
    ) -> Captions:
        """Those of a split of a file, without converting it.

        Args:
            path: see `read_captions`.
            stores: region stores that have the images.
            split: see `read_captions`.
            tokenizer: of the model.
            max_length: tokens of a sentence, [CLS] and [SEP] included.

        Raises:
            InputError: as of `read_captions`; images that no store has.
            FileNotFoundError: no such file.
        """
        read = list(read_captions(path, split))
        regions = {str(store): RegionStore(store) for store in stores}
        images = [each.image for each in read]
        places = Places(regions, Layout((), (), {})).of(images, split)
        if lost := [image for image, place in zip(images, places, strict=True) if place < 0]:
            raise InputError(
                f"{path}: {len(lost)} of its {len(images)} images of {split} have no regions in "
                f"{listed(regions)}, the first being {listed(lost[:5])}. Name further stores, or make one "
                "that has them: python -m datamodules.convert."
            )
        ids, texts = zip(*(caption for each in read for caption in each.captions), strict=True)
        image_of = np.repeat(np.arange(len(read)), [len(each.captions) for each in read])
        dataset = ExampleDataset([], list(regions.values()), tokenizer, num_answers=0, max_length=max_length)
        return cls(list(ids), list(texts), images, image_of, places, dataset)

    def batch(self, captions: np.ndarray, images: np.ndarray) -> Batch:
        """Captions and images by their places, in this order, in rows of no meaning."""
        return self.dataset.of([self.texts[place] for place in captions], self.places[images])

    def fingerprint(self) -> str:
        """Of all that scores depend on beside the model."""
        dataset = self.dataset
        regions = [store.contract["source_sha256"] for store in dataset.regions]
        facts = (self.caption_ids, self.texts, self.image_ids, self.image_of.tolist(), regions, dataset.max_length)
        return hashlib.sha256(repr(facts).encode()).hexdigest()
