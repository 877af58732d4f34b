"""VQA v2 in the LXMERT release's files: an existing data folder, converted once, as batches."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.base import ExampleDataModule, convert_once
from datamodules.collate import ExampleDataset, Part, translation
from datamodules.convert import convert_tsv
from datamodules.examples import ExampleStore, convert_vqa, examples_are_current
from datamodules.features import RegionStore
from datamodules.hdf5 import is_current
from lxmert.tokenization import LxmertTokenizer

log = logging.getLogger(__name__)

# The image folders of the released splits. An image's features are in the file of the folder that its id names.
FOLDERS = {"train2014": "17 GB", "val2014": "8 GB", "test2015": "16 GB"}
SPLIT_FOLDERS = {"train": "train2014", "nominival": "val2014", "minival": "val2014", "test": "test2015"}
ROLES = {"fit": ("train", "valid"), "validate": ("valid",), "test": ("test",), "predict": ("predict",)}
RELEASE = "the LXMERT release, https://github.com/airsplay/lxmert"


class VqaDataModule(ExampleDataModule):
    """Questions about images, with soft answer scores.

    `root` is a data folder as the LXMERT release lays it out, with the names of this class's splits:

        vqa/{split}.json                                  questions
        mscoco_imgfeat/{train2014,...}_obj36.tsv          regions; not needed any more once converted
        vqa/trainval_label2ans.json                       optional: the answers, a list
        vqa/v2_mscoco_{train2014,...}_annotations.json    optional: official annotations, ten answers each
        images/                                           optional: pictures, to look at

    `prepare_data` converts what the coming stage needs, once; `setup` opens it. Batches have the targets
    answer_scores (R, A) over `answers`; answer_type, question_type (R,) and annotator_answers (R, 10),
    codes into `tables`, -1 where unknown. Splits without labels have no answer_scores.

    Args:
        root: the data folder.
        tokenizer: vocab.txt, a folder or a hub name, for `LxmertTokenizer.from_pretrained`.
        train, valid, test, predict: splits, a list or separated by commas.
        stores: folder of the converted files; None for `root`/stores.
        batch_size: rows of a training batch, all processes together.
        eval_batch_size: the same in evaluation.
        max_length: tokens of a question, [CLS] and [SEP] included.
        workers: loader processes; 0 reads in the training process.
        seed: decides the order of the training questions.
        rows_per_image: up to this many training questions of one image stay together.
        feature_dim: size of a region's feature vector, as the model expects it.

    Attributes:
        answers: A answer texts: those of the list file; without it the training labels, most frequent
            first. Empty when predicting with neither there.
        tables: the texts behind coded targets. Codes stay the same when a later stage adds texts.
    """

    title = "VQA"

    def __init__(
        self,
        root: str | Path,
        tokenizer: str | Path,
        *,
        train: str | Sequence[str] = ("train", "nominival"),
        valid: str | Sequence[str] = ("minival",),
        test: str | Sequence[str] = ("minival",),
        predict: str | Sequence[str] = ("test",),
        stores: str | Path | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 256,
        max_length: int = 20,
        workers: int = 0,
        seed: int = 9595,
        rows_per_image: int = 1,
        feature_dim: int = 2048,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            workers=workers,
            seed=seed,
            rows_per_image=rows_per_image,
        )
        self.root = Path(root)
        self.stores = Path(stores) if stores else self.root / "stores"
        self.splits = {
            "train": _names(train),
            "valid": _names(valid),
            "test": _names(test),
            "predict": _names(predict),
        }
        self.max_length, self.feature_dim = max_length, feature_dim
        self.answers: list[str] = []
        self.tables: dict[str, list[str]] = {"answer_type": [], "question_type": [], "annotator_answers": []}
        self._tokenizer = tokenizer
        self._examples: dict[str, ExampleStore] = {}
        self._regions: dict[Path, RegionStore] = {}
        self._report: dict[str, dict[str, int | bool]] = {}

    @cached_property
    def tokenizer(self) -> LxmertTokenizer:
        """The tokenizer of the questions."""
        return LxmertTokenizer.from_pretrained(self._tokenizer)

    # ------------------------------------------------------------------------------------ converting

    def prepare_data(self, stage: str | None = None) -> None:
        """Convert what a stage needs and is not current.

        Args:
            stage: "fit", "validate", "test" or "predict"; None for the trainer's, and without a trainer
                for all of them.

        Raises:
            FileNotFoundError: files are missing; lists all of them and where they come from.
            ValueError: a split that is not there, a row that cannot be used.
            PermissionError: the stores cannot be written.
        """
        if stage is None and self.trainer and self.trainer.state.fn:
            stage = self.trainer.state.fn.value
        splits = self._splits_of(stage)
        missing: dict[Path, str] = {}
        for split in _unique([*splits, *self._answer_splits(stage)]):
            self._prepare_questions(split, missing)
        for folder in self._folders_of(splits):
            self._prepare_regions(folder, missing)
        if missing:
            lines = "".join(f"\n  {path}: {what}" for path, what in missing.items())
            raise FileNotFoundError(
                f"{len(missing)} file(s) of VQA v2 are missing:{lines}\nThey are part of {RELEASE}, whose README "
                "links them. Set paths.data to the folder that has them. `python train.py experiment=toy_vqa` "
                "needs none."
            )

    def _prepare_questions(self, split: str, missing: dict[Path, str]) -> None:
        source, store = self._question_file(split), self._question_store(split)
        if source.exists():
            files = {name: self.root / "vqa" / f"v2_mscoco_{name}_annotations.json" for name in FOLDERS}
            annotations = {name: file for name, file in files.items() if file.exists()}
            convert_once(
                store,
                lambda: examples_are_current(store, [source, *annotations.values()]),
                lambda: convert_vqa(source, store, annotations),
            )
        elif not store.exists():
            if split not in SPLIT_FOLDERS:
                present = sorted({*self._names_in(source.parent, ".json"), *self._names_in(store.parent, ".h5")})
                raise ValueError(
                    f"unknown split {split!r}: {source} does not exist. Splits present: {_list(present)}."
                )
            missing[source] = f"questions of the split {split}"

    def _prepare_regions(self, folder: str, missing: dict[Path, str]) -> None:
        source, store = self._region_file(folder), self._region_store(folder)
        if source.exists():
            convert_once(store, lambda: is_current(store, source), lambda: convert_tsv(source, store))
        elif not store.exists():
            known = folder in FOLDERS
            missing[source] = (
                f"regions of the {folder} images, from {folder}_obj36.zip ({FOLDERS[folder]})"
                if known
                else "regions of images whose ids name no image folder, in any file of such a name"
            )

    def _folders_of(self, splits: Iterable[str]) -> list[str]:
        """The image folders whose regions these splits need; the usual ones of a split that is missing."""
        folders: list[str] = []
        for split in splits:
            store = self._question_store(split)
            if not store.exists():
                folders.append(SPLIT_FOLDERS[split])
                continue
            named = {_folder(image) for image in ExampleStore(store).table("image")}
            folders += [name for name in FOLDERS if name in named]
            if None in named:  # such images may be anywhere
                folders += self._all_folders() or ["*"]
        return _unique(folders)

    def _all_folders(self) -> list[str]:
        features = "mscoco_imgfeat"
        names = {
            *self._names_in(self.root / features, "_obj36.tsv"),
            *self._names_in(self.stores / features, "_obj36.h5"),
        }
        return sorted(names)

    # --------------------------------------------------------------------------------------- opening

    def setup(self, stage: str | None = None) -> None:
        """Open what a stage needs ("fit", "validate", "test", "predict"; None for all) and log `report`.

        Raises:
            ValueError: images without regions, regions of another size than the model expects,
                training questions without answers, no training split.
        """
        if stage == "fit" and not self.splits["train"]:
            raise ValueError("data.train names no split to train on.")
        for split in self._answer_splits(stage):
            self._open(split)
        if not self.answers:
            self.answers = self._read_answers() or self._count_answers(self._answer_splits(stage))
        for role in ROLES[stage] if stage else self.splits:
            if role in self.datasets or not self.splits[role]:
                continue
            for split in self.splits[role]:
                self._open(split)
            self.datasets[role] = self._dataset(self.splits[role])
            if role == "train":
                self._check_labelled()
        if self.trainer is None or self.trainer.is_global_zero:
            self._log_report()

    def _open(self, split: str) -> None:
        if split in self._examples:
            return
        store = self._examples[split] = ExampleStore(self._question_store(split))
        for name in ("answer_type", "question_type", "annotator_answers"):
            if name in store.groups or (name == "annotator_answers" and store.annotated):
                table = self.tables[name]
                known = set(table)
                table += [text for text in store.table(name) if text not in known]

    def _dataset(self, splits: Sequence[str]) -> ExampleDataset:
        stores = {folder: self._region_store(folder) for folder in self._folders_of(splits)}
        regions = {folder: self._open_regions(path) for folder, path in stores.items()}
        starts = dict(zip(regions, np.cumsum([0, *map(len, regions.values())]).tolist(), strict=False))
        answers = {text: i for i, text in enumerate(self.answers)}
        tables = {name: {text: i for i, text in enumerate(table)} for name, table in self.tables.items()}
        parts = []
        for split in splits:
            store = self._examples[split]
            parts.append(
                Part(
                    store,
                    self._place_images(split, regions, starts),
                    translation(store.table("answers"), answers),
                    {name: translation(store.table(name), tables[name]) for name in store.groups},
                    translation(store.table("annotator_answers"), tables["annotator_answers"])
                    if store.annotated
                    else None,
                )
            )
        return ExampleDataset(
            parts,
            list(regions.values()),
            self.tokenizer,
            num_answers=len(self.answers),
            max_length=self.max_length,
        )

    def _open_regions(self, path: Path) -> RegionStore:
        if path not in self._regions:
            self._regions[path] = RegionStore(path)
            self._regions[path].check_feature_dim(self.feature_dim)
        return self._regions[path]

    def _place_images(self, split: str, regions: dict[str, RegionStore], starts: dict[str, int]) -> np.ndarray:
        """Each image of a split -> its place over all region stores."""
        images = self._examples[split].table("image")
        folders = np.array([_folder(image) or "" for image in images])
        places = np.full(len(images), -1, np.int64)
        for folder, store in regions.items():
            here = np.flatnonzero((folders == folder) | (folders == "") & (places < 0))
            found = store.index([images[i] for i in here])
            places[here] = np.where(found >= 0, found + starts[folder], -1)
        lost = np.flatnonzero(places < 0)
        if len(lost):
            searched = sorted({str(self._region_store(folder)) for folder in _searched(folders[lost], regions)})
            raise ValueError(
                f"{self._question_file(split)}: {len(lost)} of its {len(images)} images have no regions in "
                f"{_list(searched)}, the first being {_list([images[i] for i in lost[:5]])}. Convert a feature "
                "file that has them, or remove their questions."
            )
        return places

    # --------------------------------------------------------------------------------------- answers

    def _answer_splits(self, stage: str | None) -> list[str]:
        """The splits whose labels are the answers: the training splits when there is no list file."""
        if self._answer_file.exists():
            return []
        if stage == "predict":  # a checkpoint has its own answers; count them only where it costs no file
            return [
                s
                for s in self.splits["train"]
                if self._question_file(s).exists() or self._question_store(s).exists()
            ]
        return self.splits["train"]

    def _read_answers(self) -> list[str]:
        path = self._answer_file
        if not path.exists():
            return []
        try:
            answers = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error}). It should be a list of answer texts.") from error
        if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
            raise ValueError(f"{path}: expected a JSON list of answer texts.")
        if len(set(answers)) < len(answers):
            twice = next(answer for i, answer in enumerate(answers) if answer in answers[:i])
            raise ValueError(f"{path}: the answer {twice!r} is there twice. Remove one.")
        return answers

    def _count_answers(self, splits: Iterable[str]) -> list[str]:
        """All answers of these splits, by descending number of questions, then text."""
        counts: dict[str, int] = {}
        for split in splits:
            store = self._examples[split]
            texts = store.table("answers")
            numbers = np.bincount(store.column("answer/code"), minlength=len(texts)).tolist()
            for text, number in zip(texts, numbers, strict=True):
                counts[text] = counts.get(text, 0) + number
        return sorted(counts, key=lambda text: (-counts[text], text))

    def _check_labelled(self) -> None:
        without = [split for split in self.splits["train"] if not self._examples[split].labelled]
        if without:
            files = _list(str(self._question_file(split)) for split in without)
            raise ValueError(f"{files}: no labels to train on. Choose other splits for data.train.")

    # ---------------------------------------------------------------------------------------- looking

    def report(self) -> dict[str, dict[str, int | bool]]:
        """What is in the opened splits.

        Returns:
            split -> examples, images, truncated (questions longer than `max_length` tokens),
            answers_outside (labels that are not among `answers`), annotated (ten answers known).
        """
        for split in _unique(split for role in self.datasets for split in self.splits[role]):
            store = self._examples[split]
            if split not in self._report:
                known = translation(store.table("answers"), {text: i for i, text in enumerate(self.answers)})
                self._report[split] = {
                    "examples": len(store),
                    "images": len(store.table("image")),
                    "truncated": self._count_truncated(store),
                    "answers_outside": int((known[store.column("answer/code")] < 0).sum()),
                    "annotated": store.annotated,
                }
        return self._report

    def _count_truncated(self, store: ExampleStore) -> int:
        count = 0
        for start in range(0, len(store), 10_000):
            tokens = self.tokenizer(
                store.texts(start, start + 10_000),
                truncation=False,
                return_attention_mask=False,
                return_length=True,
            )
            count += sum(length > self.max_length for length in tokens["length"])
        return count

    def _log_report(self) -> None:
        logged = set(self._report)
        for split, facts in self.report().items():
            if split not in logged:
                log.info("%s: %s", split, ", ".join(f"{key} {value}" for key, value in facts.items()))

    def picture(self, image_id: str) -> Path | None:
        """The picture of an image, `images/<image_id>.jpg|jpeg|png` or in a folder there; None without one."""
        images = self.root / "images"
        for folder in (images, *sorted(images.glob("*/"))):
            for ending in (".jpg", ".jpeg", ".png"):
                if (path := folder / f"{image_id}{ending}").is_file():
                    return path
        return None

    # ------------------------------------------------------------------------------------------ files

    @property
    def _answer_file(self) -> Path:
        return self.root / "vqa" / "trainval_label2ans.json"

    def _question_file(self, split: str) -> Path:
        return self.root / "vqa" / f"{split}.json"

    def _question_store(self, split: str) -> Path:
        return self.stores / "vqa" / f"{split}.h5"

    def _region_file(self, folder: str) -> Path:
        return self.root / "mscoco_imgfeat" / f"{folder}_obj36.tsv"

    def _region_store(self, folder: str) -> Path:
        return self.stores / "mscoco_imgfeat" / f"{folder}_obj36.h5"

    def _splits_of(self, stage: str | None) -> list[str]:
        return _unique(split for role in (ROLES[stage] if stage else self.splits) for split in self.splits[role])

    def _names_in(self, folder: Path, ending: str) -> list[str]:
        names = (path.name.removesuffix(ending) for path in folder.glob(f"[!.]*{ending}"))
        return sorted(name for name in names if not name.endswith(("_annotations", "_label2ans")))


def _names(splits: str | Sequence[str]) -> list[str]:
    names = splits.split(",") if isinstance(splits, str) else splits
    return [name.strip() for name in names if name.strip()]


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _list(values: Iterable[str]) -> str:
    return ", ".join(values) or "none"


def _folder(image_id: str) -> str | None:
    """The image folder that an id names, such as train2014 in COCO_train2014_000000458752."""
    return next((folder for folder in FOLDERS if folder in image_id), None)


def _searched(folders: Iterable[str], regions: Iterable[str]) -> set[str]:
    return {name for folder in folders for name in ([folder] if folder else regions)}
