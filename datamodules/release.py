"""Data sets in the LXMERT release's files: an existing data folder, converted once, as batches."""

from __future__ import annotations

import logging
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.base import ExampleDataModule, convert_once
from datamodules.batches.dataset import ExampleDataset, Part, translation
from datamodules.formats.answer_lists import read_answer_list
from datamodules.formats.release_tsv import convert_tsv
from datamodules.stores.hdf5 import is_current
from datamodules.stores.regions import RegionStore
from datamodules.stores.texts import ExampleStore
from lxmert.files import InputError
from lxmert.tokenization import LxmertTokenizer

log = logging.getLogger(__name__)

# Image ids that tell their region file, `<name>_obj36.tsv` below the data folder; and the released archive.
REGION_FILES = (
    ("train2014", "mscoco_imgfeat/train2014", "train2014_obj36.zip (17 GB)"),
    ("val2014", "mscoco_imgfeat/val2014", "val2014_obj36.zip (8 GB)"),
    ("test2015", "mscoco_imgfeat/test2015", "test2015_obj36.zip (16 GB)"),
    (r"^\d+$", "vg_gqa_imgfeat/vg_gqa", "vg_gqa_obj36.zip (30 GB)"),
    (r"^n\d+$", "vg_gqa_imgfeat/gqa_testdev", "gqa_testdev_obj36.zip"),
    (r"^train-.*-img[01]$", "nlvr2_imgfeat/train", "train_obj36.zip (21 GB)"),
    (r"^dev-.*-img[01]$", "nlvr2_imgfeat/valid", "valid_obj36.zip (1.6 GB)"),
    (r"^test1-.*-img[01]$", "nlvr2_imgfeat/test", "test_obj36.zip (1.6 GB)"),
)
ARCHIVES = {name: archive for _, name, archive in REGION_FILES}
_REGION_FILE = re.compile("|".join(f"({pattern})" for pattern, _, _ in REGION_FILES))
ROLES = {"fit": ("train", "valid"), "validate": ("valid",), "test": ("test",), "predict": ("predict",)}
RELEASE = (
    "They are part of the LXMERT release, https://github.com/airsplay/lxmert, whose README links them. Set "
    "paths.data to the folder that has them."
)
TRUNCATION_SAMPLE = 10_000  # sentences of a split whose length is looked at; tokenizing takes its time


class ReleaseDataModule(ExampleDataModule):
    """What data modules on the release's files share: converting, opening, placing images, answers.

    A data folder has text files `<folder>/{split}.json` and region files `<name>_obj36.tsv`; neither is
    needed any more once converted. `prepare_data` converts what the coming stage needs, once; `setup`
    opens it. A subclass says what its files are called and how their rows become examples.

    Args:
        root: the data folder.
        tokenizer: vocab.txt, a folder or a hub name, for `LxmertTokenizer.from_pretrained`.
        train, valid, test, predict: splits, a list or separated by commas; None for those of the release.
        stores: folder of the converted files; None for `root`/stores.
        batch_size: rows of a training batch, all processes together.
        eval_batch_size: the same in evaluation.
        max_length: tokens of a sentence, [CLS] and [SEP] included.
        workers: loader processes; 0 reads in the training process.
        seed: decides the order of the training examples.
        rows_per_image: up to this many training examples of one image stay together.
        feature_dim: size of a region's feature vector, as the model expects it.
        missing_images: what to do with examples whose image has no regions: "stop" or "drop".

    Attributes:
        answers: A answer texts: those of the list file; without it the training labels, most frequent
            first. Empty when predicting with neither there.
        tables: the texts behind coded targets. Codes stay the same when a later stage adds texts.
    """

    data_set: str  # for messages
    origin: str = RELEASE
    toy: str  # the experiment that needs no files
    task: str  # whose submission format predictions have: vqa, gqa, nlvr2
    folder: str  # of the text files
    answer_file: str  # in that folder
    most_answers: int | None = None  # of those made from the labels
    released_splits: Mapping[str, Sequence[str]]  # by role, as the release uses them
    split_regions: Mapping[str, Sequence[str]]  # the released splits and the region files they need
    image_groups: Sequence[str] = ()  # groups of the text stores that are further images
    region_folders: Sequence[str]  # where the regions may be of images whose ids name no file

    def __init__(
        self,
        root: str | Path,
        tokenizer: str | Path,
        *,
        train: str | Sequence[str] | None = None,
        valid: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
        predict: str | Sequence[str] | None = None,
        stores: str | Path | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 256,
        max_length: int = 20,
        workers: int = 0,
        seed: int = 9595,
        rows_per_image: int = 1,
        feature_dim: int = 2048,
        missing_images: str = "stop",
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            workers=workers,
            seed=seed,
            rows_per_image=rows_per_image,
        )
        if missing_images not in ("stop", "drop"):
            raise InputError(f"data.missing_images={missing_images}; expected stop or drop")
        self.root = Path(root)
        self.stores = Path(stores) if stores else self.root / "stores"
        given = {"train": train, "valid": valid, "test": test, "predict": predict}
        self.splits = {
            role: split_names(self.released_splits[role] if names is None else names)
            for role, names in given.items()
        }
        self.max_length, self.feature_dim, self.missing_images = max_length, feature_dim, missing_images
        self.answers: list[str] = []
        self.tables: dict[str, list[str]] = {}
        self._tokenizer = tokenizer
        self._examples: dict[str, ExampleStore] = {}
        self._regions: dict[Path, RegionStore] = {}
        self._report: dict[str, dict[str, Any]] = {}

    @cached_property
    def tokenizer(self) -> LxmertTokenizer:
        """The tokenizer of the sentences."""
        return LxmertTokenizer.from_pretrained(self._tokenizer)

    # ------------------------------------------------------------------------------------ converting

    @abstractmethod
    def convert_examples(self, split: str, source: Path, store: Path) -> None:
        """Make the text store of a split unless it is current."""

    def prepare_data(self, stage: str | None = None) -> None:
        """Convert what a stage needs and is not current.

        Args:
            stage: "fit", "validate", "test" or "predict"; None for the trainer's, and without a trainer
                for all of them.

        Raises:
            FileNotFoundError: files are missing; lists all of them and where they come from.
            InputError: a split that is not there, a row that cannot be used.
            PermissionError: the stores cannot be written.
        """
        if stage is None and self.trainer and self.trainer.state.fn:
            stage = self.trainer.state.fn.value
        splits = self._splits_of(stage)
        missing: dict[Path, str] = {}
        for split in _unique([*splits, *self._answer_splits(stage)]):
            self._prepare_examples(split, missing)
        for name in self._region_names(splits):
            self._prepare_regions(name, missing)
        if missing:
            lines = "".join(f"\n  {path}: {what}" for path, what in missing.items())
            raise FileNotFoundError(
                f"{len(missing)} file(s) of {self.data_set} are missing:{lines}\n{self.origin} `python train.py "
                f"experiment={self.toy}` needs none."
            )

    def _prepare_examples(self, split: str, missing: dict[Path, str]) -> None:
        source, store = self._example_file(split), self._example_store(split)
        if source.exists():
            self.convert_examples(split, source, store)
        elif not store.exists():
            if split not in self.split_regions:
                present = sorted({*self._names_in(source.parent, ".json"), *self._names_in(store.parent, ".h5")})
                raise InputError(
                    f"unknown split {split!r}: {source} does not exist. Splits present: {_list(present)}."
                )
            missing[source] = f"texts of the split {split}"

    def _prepare_regions(self, name: str, missing: dict[Path, str]) -> None:
        source, store = self._region_file(name), self._region_store(name)
        if source.exists():
            convert_once(store, lambda: is_current(store, source), lambda: convert_tsv(source, store))
        elif not store.exists():
            missing[source] = (
                f"regions of the {Path(name).name} images, from {ARCHIVES[name]}"
                if name in ARCHIVES
                else "regions of images whose ids name no image folder, in any file of such a name"
            )

    def image_columns(self, store: ExampleStore) -> list[list[str]]:
        """The image ids of a store, a table for each image of an example."""
        return [store.table(name) for name in ("image", *self.image_groups)]

    def _region_names(self, splits: Iterable[str]) -> list[str]:
        """The region files that these splits need; the usual ones of a split that is missing."""
        names: list[str] = []
        for split in splits:
            path = self._example_store(split)
            if not path.exists():
                names += self.split_regions[split]
                continue
            store = ExampleStore(path)
            named = {region_file_of(image) for table in self.image_columns(store) for image in table}
            names += [name for name in ARCHIVES if name in named]
            if None in named:  # such images may be anywhere
                names += self._region_names_present() or [f"{self.region_folders[0]}/*"]
        return _unique(names)

    def _region_names_present(self) -> list[str]:
        return sorted(
            f"{folder}/{name}"
            for folder in self.region_folders
            for name in {
                *self._names_in(self.root / folder, "_obj36.tsv"),
                *self._names_in(self.stores / folder, "_obj36.h5"),
            }
        )

    # --------------------------------------------------------------------------------------- opening

    def setup(self, stage: str | None = None) -> None:
        """Open what a stage needs ("fit", "validate", "test", "predict"; None for all) and log `report`.

        Raises:
            InputError: images without regions, regions of another size than the model expects,
                training examples without answers, no training split.
        """
        if stage == "fit" and not self.splits["train"]:
            raise InputError("data.train names no split to train on.")
        for split in self._answer_splits(stage):
            self._open(split)
        if not self.answers:
            self.answers = self.read_answers(self._answer_path) or self.count_answers(self._answer_splits(stage))
        for role in ROLES[stage] if stage else self.splits:
            if role in self.datasets or not self.splits[role]:
                continue
            for split in self.splits[role]:
                self._open(split)
            self.datasets[role] = self._dataset(role)
        if self.trainer is None or self.trainer.is_global_zero:
            self._log_report()

    def _open(self, split: str) -> None:
        if split in self._examples:
            return
        store = self._examples[split] = ExampleStore(self._example_store(split))
        for name in (*self._groups_of(store), *(["annotator_answers"] if store.annotated else [])):
            table = self.tables.setdefault(name, [])
            known = set(table)
            table += [text for text in store.table(name) if text not in known]

    def _groups_of(self, store: ExampleStore) -> list[str]:
        return [name for name in store.groups if name not in self.image_groups]

    def _dataset(self, role: str) -> ExampleDataset:
        splits = self.splits[role]
        regions = {name: self._open_regions(self._region_store(name)) for name in self._region_names(splits)}
        starts = dict(zip(regions, np.cumsum([0, *map(len, regions.values())]).tolist(), strict=False))
        parts = [self.make_part(split, self._place_images(split, regions, starts)) for split in splits]
        return self.make_dataset(role, parts, list(regions.values()))

    def make_part(self, split: str, images: list[np.ndarray]) -> Part:
        """A split as part of a data set; `images` translates each of its image columns' codes to places."""
        store = self._examples[split]
        tables = {name: {text: i for i, text in enumerate(table)} for name, table in self.tables.items()}
        return Part(
            store,
            images[0],
            self.translate_answers(store),
            {name: translation(store.table(name), tables[name]) for name in self._groups_of(store)},
            translation(store.table("annotator_answers"), tables["annotator_answers"])
            if store.annotated
            else None,
        )

    def make_dataset(self, role: str, parts: list[Part], regions: list[RegionStore]) -> ExampleDataset:
        """The data set of a role."""
        if role == "train":
            self._check_labelled()
        return ExampleDataset(
            parts, regions, self.tokenizer, num_answers=len(self.answers), max_length=self.max_length
        )

    def _open_regions(self, path: Path) -> RegionStore:
        if path not in self._regions:
            self._regions[path] = RegionStore(path)
            self._regions[path].check_feature_dim(self.feature_dim)
        return self._regions[path]

    def _place_images(
        self, split: str, regions: dict[str, RegionStore], starts: dict[str, int]
    ) -> list[np.ndarray]:
        """For each image column of a split: the place of each of its images over all region stores."""
        tables = self.image_columns(self._examples[split])
        found = [self._places(table, regions, starts) for table in tables]
        lost = _unique(
            image
            for table, places in zip(tables, found, strict=True)
            for image in np.array(table, object)[places < 0]
        )
        if lost:
            searched = {name for image in lost for name in _searched(region_file_of(image), regions)}
            total = len(set().union(*tables))
            message = (
                f"{self._example_file(split)}: {len(lost)} of its {total} images have no regions in "
                f"{_list(sorted(str(self._region_store(name)) for name in searched))}, the first being "
                f"{_list(lost[:5])}."
            )
            if self.missing_images == "stop":
                raise InputError(
                    f"{message} Convert a feature file that has them, remove their rows, or go on without "
                    "them with data.missing_images=drop."
                )
            log.warning("%s Their examples are left out.", message)
        return found

    def _places(self, images: list[str], regions: dict[str, RegionStore], starts: dict[str, int]) -> np.ndarray:
        places = np.full(len(images), -1, np.int64)
        named = np.array([region_file_of(image) or "" for image in images])
        for name, store in regions.items():
            here = np.flatnonzero((named == name) | (named == "") & (places < 0))
            found = store.index([images[i] for i in here])
            places[here] = np.where(found >= 0, found + starts[name], -1)
        return places

    # --------------------------------------------------------------------------------------- answers

    def spell_answer(self, answer: str) -> str:
        """An answer of the files as the answer list spells it."""
        return answer

    def translate_answers(self, store: ExampleStore) -> np.ndarray:
        """The answer codes of a store to places in `answers`."""
        spelt = [self.spell_answer(answer) for answer in store.table("answers")]
        return translation(spelt, {text: i for i, text in enumerate(self.answers)})

    def _answer_splits(self, stage: str | None) -> list[str]:
        """The splits whose labels are the answers: the training splits when there is no list file."""
        if self._answer_path.exists():
            return []
        if stage == "predict":  # a checkpoint has its own answers; count them only where it costs no file
            return [
                s
                for s in self.splits["train"]
                if self._example_file(s).exists() or self._example_store(s).exists()
            ]
        return self.splits["train"]

    def read_answers(self, path: Path) -> list[str]:
        """The answer list of a file, empty without one."""
        return read_answer_list(path) if path.exists() else []

    def count_answers(self, splits: Iterable[str]) -> list[str]:
        """The answers of these splits, by descending number of examples, then text; at most `most_answers`."""
        counts: dict[str, int] = {}
        for split in splits:
            store = self._examples[split]
            texts = store.table("answers")
            numbers = np.bincount(store.column("answer/code"), minlength=len(texts)).tolist()
            for text, number in zip(texts, numbers, strict=True):
                spelt = self.spell_answer(text)
                counts[spelt] = counts.get(spelt, 0) + number
        return sorted(counts, key=lambda text: (-counts[text], text))[: self.most_answers]

    def _check_labelled(self) -> None:
        without = [split for split in self.splits["train"] if not self._examples[split].labelled]
        if without:
            files = _list(str(self._example_file(split)) for split in without)
            raise InputError(f"{files}: no labels to train on. Choose other splits for data.train.")

    # ---------------------------------------------------------------------------------------- looking

    def report(self) -> dict[str, dict[str, Any]]:
        """What is in the opened splits.

        Returns:
            split -> examples, images, truncated (sentences longer than `max_length` tokens),
            answers_outside (labels that are not among `answers`), annotated (ten answers known).
        """
        for split in _unique(split for role in self.datasets for split in self.splits[role]):
            if split not in self._report:
                self._report[split] = self.describe(self._examples[split])
        return self._report

    def describe(self, store: ExampleStore) -> dict[str, Any]:
        """What is in a store; see `report`."""
        truncated, sample = self._count_truncated(store)
        outside = int((self.translate_answers(store)[store.column("answer/code")] < 0).sum())
        return {
            "examples": len(store),
            "images": len(set().union(*self.image_columns(store))),
            "truncated" if sample == len(store) else f"truncated_of_{sample}": truncated,
            "answers_outside": outside,
            "annotated": store.annotated,
        }

    def _count_truncated(self, store: ExampleStore) -> tuple[int, int]:
        """How many sentences are too long, of how many that were looked at, evenly spaced."""
        step = -(-len(store) // TRUNCATION_SAMPLE)
        places = np.arange(0, len(store), step)
        count = 0
        for start in range(0, len(places), 10_000):
            tokens = self.tokenizer(
                store.texts(places[start : start + 10_000]),
                truncation=False,
                return_attention_mask=False,
                return_length=True,
            )
            count += sum(length > self.max_length for length in tokens["length"])
        return count, len(places)

    def _log_report(self) -> None:
        logged = set(self._report)
        for split, facts in self.report().items():
            if split not in logged:
                log.info("%s: %s", split, ", ".join(f"{key} {value}" for key, value in facts.items()))

    def scoring_files(self, split: str) -> dict[str, Path]:
        """The makers' own files of a split that are there, by what they are, for their metrics after a test."""
        return {}

    def picture(self, image_id: str) -> Path | None:
        """The picture of an image, `images/<image_id>.jpg|jpeg|png` or in a folder there; None without one.

        An id is a name: nothing outside the folder images (which may be a link itself) is looked at, neither
        by `..` or an absolute path nor by a link that leads out of it.
        """
        images = self.root / "images"
        for folder in (images, *sorted(images.glob("*/"))):
            for ending in (".jpg", ".jpeg", ".png"):
                path = folder / f"{image_id}{ending}"
                try:
                    if path.is_file() and path.resolve().is_relative_to(images.resolve()):
                        return path
                except (OSError, ValueError):  # what no file can be called: too long, with a NUL
                    return None
        return None

    # ------------------------------------------------------------------------------------------ files

    @property
    def _answer_path(self) -> Path:
        return self.root / self.folder / self.answer_file

    def _example_file(self, split: str) -> Path:
        return self.root / self.folder / f"{split}.json"

    def _example_store(self, split: str) -> Path:
        return self.stores / self.folder / f"{split}.h5"

    def _region_file(self, name: str) -> Path:
        return self.root / f"{name}_obj36.tsv"

    def _region_store(self, name: str) -> Path:
        return self.stores / f"{name}_obj36.h5"

    def _splits_of(self, stage: str | None) -> list[str]:
        return _unique(split for role in (ROLES[stage] if stage else self.splits) for split in self.splits[role])

    def _names_in(self, folder: Path, ending: str) -> list[str]:
        names = (path.name.removesuffix(ending) for path in folder.glob(f"[!.]*{ending}"))
        other = ("_annotations", "_label2ans", "_ans", "_questions", "_choices", "_sceneGraphs")
        return sorted(name for name in names if not name.endswith(other))


def region_file_of(image_id: str) -> str | None:
    """The region file that an id names, such as mscoco_imgfeat/train2014 for COCO_train2014_000000458752."""
    found = _REGION_FILE.search(image_id)  # one search for all patterns: start-up asks this of every image
    return REGION_FILES[found.lastindex - 1][1] if found and found.lastindex else None


def split_names(splits: str | Sequence[str]) -> list[str]:
    """Splits given as a list, or separated by commas."""
    names = splits.split(",") if isinstance(splits, str) else splits
    return [name.strip() for name in names if name.strip()]


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _list(values: Iterable[str]) -> str:
    return ", ".join(values) or "none"


def _searched(name: str | None, regions: Iterable[str]) -> set[str]:
    return {name} if name else set(regions)
