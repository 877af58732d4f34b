"""What all data modules share: their arguments, the splits of each stage, answers, loaders."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from datamodules.batches import (
    BatchSampler,
    ExampleDataset,
    ExampleLoader,
    FeatureTable,
    Part,
    Places,
    TrainLoader,
    loader_options,
    resume_position,
    translation,
)
from datamodules.formats.answer_lists import read_answer_list
from datamodules.release import ReleaseFolder, listed
from datamodules.sense import (
    Split,
    check_answers,
    check_sentences,
    check_spelling,
    check_vocabulary,
    compare_splits,
    report_unknown,
)
from datamodules.statistics import frequent_answers, known_labels, look_at_sentences, without_answer
from datamodules.stores import ExampleStore, RegionStore
from lxmert.batch import Batch
from lxmert.evaluate import TASKS
from lxmert.files import InputError, shorten
from lxmert.tokenization import LxmertTokenizer

log = logging.getLogger(__name__)

ROLES = {"fit": ("train", "valid"), "validate": ("valid",), "test": ("test",), "predict": ("predict",)}


class Tokenizer:
    """The argument `tokenizer` of a data module: given by name or file, loaded when it is first read.

    A toy's vocabulary is generated after its data module is made.
    """

    def __get__(self, module: ExampleDataModule | None, owner: type) -> LxmertTokenizer:
        if module is None:
            raise AttributeError("it has no default")  # asked by dataclass
        if "_tokenizer" not in vars(module):
            vocabulary = vars(module)["_vocabulary"]
            tokenizer = vars(module)["_tokenizer"] = LxmertTokenizer.from_pretrained(vocabulary)
            check_vocabulary(tokenizer, vocabulary)
        return vars(module)["_tokenizer"]

    def __set__(self, module: ExampleDataModule, vocabulary: str | Path) -> None:
        vars(module)["_vocabulary"] = vocabulary


@dataclass(eq=False, repr=False)
class ExampleDataModule(LightningDataModule):
    """Examples of a release folder's splits as batches.

    `prepare_data` converts what the coming stage needs, once; `setup` opens it. A subclass says what its files
    are called and how their rows become examples. Subclasses are dataclasses, so that each has all of these
    arguments by name. Use them with `Trainer(use_distributed_sampler=False)`: the sampler shares batches out.

    Args:
        root: the data folder.
        tokenizer: vocab.txt, a folder or a hub name, for `LxmertTokenizer.from_pretrained`.
        train, valid, test, predict: splits, a list or separated by commas; None for those of the release.
        stores: folder of the converted files; None for `root`/stores.
        batch_size: rows of a training batch, all processes together.
        eval_batch_size: rows of a batch of validation, test and prediction, all processes together.
        max_length: tokens of a sentence, [CLS] and [SEP] included.
        workers: loader processes; 0 reads in the training process.
        seed: decides the order of the training examples.
        rows_per_image: up to this many training examples of one image stay together.
        feature_dim: size of a region's feature vector, as the model expects it.
        missing_images: what to do with examples whose image has no regions: "stop" or "drop".
        unknown_labels: what to do with examples none of whose labels is among the answers: None keeps them, of
            which nothing is learnt, "stop" or "drop". With "stop" they may be in what is predicted.
        regions_on_device: under a trainer, copy all region features of a stage to the device at its start, and
            look them up there; batches are the same, and a GPU needs the memory.

    Attributes:
        title: what the data is, for tables and pages.
        task: the benchmark whose rules, formats and files are the data's (`lxmert.evaluate.TASKS`).
        splits: role ("train", "valid", "test", "predict") -> splits.
        datasets: role -> data set, from `setup` on.
        answers: A answer texts: those of the list file; without it the training labels, most frequent
            first; those of the model where the training texts are not there, either.
        model_answers: those of a model that is evaluated; empty in training. To be set before a stage is prepared.
        label_names: the texts behind coded targets; of "split", where several are validated or tested at once.
            Codes stay the same when a later stage adds texts.
    """

    root: str | Path
    tokenizer: Tokenizer = Tokenizer()
    _: KW_ONLY
    train: str | Sequence[str] | None = None
    valid: str | Sequence[str] | None = None
    test: str | Sequence[str] | None = None
    predict: str | Sequence[str] | None = None
    stores: str | Path | None = None
    batch_size: int = 32
    eval_batch_size: int = 256
    max_length: int = 20
    workers: int = 0
    seed: int = 9595
    rows_per_image: int = 1
    feature_dim: int = 2048
    missing_images: str = "stop"
    unknown_labels: str | None = None
    regions_on_device: bool = False

    title: str = field(init=False)
    task: str = field(init=False, default="own")
    answer_file: ClassVar[str] = "trainval_label2ans"  # among the text files
    most_answers: ClassVar[int | None] = None  # of those made from the labels
    released_splits: ClassVar[Mapping[str, Sequence[str]]]  # by role, as the release uses them
    own_ids: ClassVar[bool] = True  # an example's id is the file's, and not its place there
    has_answers: ClassVar[bool] = True  # else the model has no answer list
    needs_answers: ClassVar[bool] = True  # nothing is learnt of examples whose answers are all unknown

    def __post_init__(self) -> None:
        super().__init__()
        if self.task not in TASKS:
            raise InputError(f"data.task={self.task}; expected one of {', '.join(TASKS)}")
        if self.missing_images not in ("stop", "drop"):
            raise InputError(f"data.missing_images={self.missing_images}; expected stop or drop")
        if self.unknown_labels not in (None, "stop", "drop"):
            raise InputError(f"data.unknown_labels={self.unknown_labels}; expected stop, drop or null")
        if not isinstance(self.regions_on_device, bool):
            raise InputError(f"data.regions_on_device={self.regions_on_device}; expected true or false")
        if self.max_length < 3:
            raise InputError(f"data.max_length={self.max_length}; expected 3 or more: [CLS], a word and [SEP]")
        given = {"train": self.train, "valid": self.valid, "test": self.test, "predict": self.predict}
        self.splits = {
            role: split_names(self.released_splits[role] if names is None else names)
            for role, names in given.items()
        }
        for role, splits in self.splits.items():
            if wrong := [split for split in splits if split in (".", "..") or set(split) & set("/\\")]:
                raise InputError(
                    f"data.{role} names {shorten(wrong[0])}; expected a file of texts without its folder and its "
                    "ending, such as train"
                )
            if role != "train" and (twice := {split for split in splits if splits.count(split) > 1}):
                raise InputError(f"data.{role} names {listed(sorted(twice))} twice; name each split once")
        self.release = self.release_folder()
        self.datasets: dict[str, ExampleDataset] = {}
        self.answers: list[str] = []
        self.model_answers: list[str] = []
        self.label_names: dict[str, list[str]] = {}
        self._examples: dict[str, ExampleStore] = {}
        self._report: dict[str, dict[str, Any]] = {}
        self._table: FeatureTable | None = None
        self._compared = False

    @abstractmethod
    def release_folder(self) -> ReleaseFolder:
        """The data set's files."""

    # ----------------------------------------------------------------------------- preparing, opening

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
        roles = ROLES[stage] if stage else self.splits
        splits = dict.fromkeys(split for role in roles for split in self.splits[role])
        self.release.prepare(splits, only_texts=self.answer_splits(stage))

    def setup(self, stage: str | None = None) -> None:
        """Open what a stage needs ("fit", "validate", "test", "predict"; None for all) and log `report`.

        Raises:
            InputError: images without regions or with those of two files, regions of another size than the model
                expects, training examples without answers, no training split; answers or sentences of which
                nothing is known; features that the device has no room for; splits to evaluate on that the
                trainer's processes cannot share.
        """
        if stage == "fit" and not self.splits["train"]:
            raise InputError("data.train names no split to train on.")
        evaluated = [self.splits["valid"], self.splits["test"]]
        if any(len(splits) > 1 for splits in evaluated):  # scores are told of each apart
            self.label_names.setdefault("split", list(dict.fromkeys(chain(*evaluated))))
        labels = [self._open(split) for split in self.answer_splits(stage)]
        path = self.release.answer_list(self.answer_file)
        if not self.answers and path.exists():
            self.answers = self.read_answers(path)
        self.answers = self.answers or frequent_answers(labels, self.spell_answer, self.most_answers)
        self.answers = self.answers or self.model_answers
        for role in ROLES[stage] if stage else self.splits:
            if role not in self.datasets and self.splits[role]:
                self.datasets[role] = self._make_role(role)
        if self.trainer:  # what cannot be shared out is missed before a training, not after it
            for role in [each for each in self.datasets if each != "train"]:
                self._evaluation_sampler(role)
        if self.trainer is None or self.trainer.is_global_zero:
            self._log_report()
            self._compare_splits()
        if self.regions_on_device and self.trainer:
            self._place_features(self.trainer, ROLES[stage] if stage else tuple(self.splits))

    def _place_features(self, trainer: Trainer, roles: Sequence[str]) -> None:
        """Have the features of these roles on the trainer's device."""
        stores = [store for role in roles if role in self.datasets for store in self.datasets[role].regions]
        device = trainer.strategy.root_device
        if stores and not (self._table and self._table.holds(stores, device)):
            self._table = None  # frees the memory of another stage's
            self._table = FeatureTable(stores, device, shown=trainer.is_global_zero)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """The batch with the features of its regions, where these are on the device already."""
        return self._table.fill(batch) if self._table else batch

    def _open(self, split: str) -> ExampleStore:
        if split not in self._examples:
            store = self._examples[split] = ExampleStore(self.release.text_store(split))
            for name in (*self.groups_of(store), *(["annotator_answers"] if store.annotated else [])):
                table = self.label_names.setdefault(name, [])
                known = set(table)
                table += [text for text in store.table(name) if text not in known]
        return self._examples[split]

    def _make_role(self, role: str) -> ExampleDataset:
        splits = self.splits[role]
        stores = [self._open(split) for split in splits]
        if role in ("valid", "test") and self.has_answers and self.needs_answers:
            self._check_scored(role)
        regions = self.release.open_regions(splits, self.feature_dim)
        parts = [
            self.make_part(store, self._place_images(split, store, regions))
            for split, store in zip(splits, stores, strict=True)
        ]
        if role in ("valid", "test") and "split" in self.label_names:
            for part, split in zip(parts, splits, strict=True):
                part.split = self.label_names["split"].index(split)
        dataset = self.make_dataset(role, parts, list(regions.stores.values()))
        if role != "predict":
            files = listed(str(self.release.text_file(split)) for split in splits)
            check_answers(parts, self.answers, role, files, self.needs_answers)
        self._settle_unknown(role, dataset)
        return dataset

    def _settle_unknown(self, role: str, dataset: ExampleDataset) -> None:
        """Do as `unknown_labels` says with the examples none of whose labels is among the answers."""
        if self.unknown_labels is None or (self.unknown_labels == "stop" and role == "predict"):
            return
        known = np.ones(len(dataset), np.float32)
        for split, part, start in zip(self.splits[role], dataset.parts, dataset.starts, strict=False):
            if part.examples.labelled:
                unknown = np.flatnonzero(without_answer(part.examples, part.answers))
                report_unknown(part, unknown, self.answers, self.release.text_file(split), self.unknown_labels)
                known[start + unknown] = 0
        if not known.all():
            dataset.weights = known if dataset.weights is None else known * dataset.weights

    def _place_images(self, split: str, store: ExampleStore, regions: Places) -> list[np.ndarray]:
        """For each image column of a split: the place of each of its images over all region stores."""
        columns = self.release.image_columns(store)
        found = [regions.of(images, split) for images in columns]
        lost = list(
            dict.fromkeys(
                image
                for images, places in zip(columns, found, strict=True)
                for image in np.array(images, object)[places < 0]
            )
        )
        if lost:
            searched = sorted(str(self.release.region_store(name)) for name in regions.searched(lost, split))
            without = [places[codes] < 0 for codes, places in zip(self.image_codes(store), found, strict=True)]
            message = (
                f"{self.release.text_file(split)}: {len(lost)} of its {len(set().union(*columns))} images have no "
                f"regions in {listed(searched)}, the first being {listed(lost[:5])}. "
                f"{np.any(without, 0).sum()} of its {len(store)} examples need them."
            )
            if self.missing_images == "stop":
                raise InputError(
                    f"{message} Convert a feature file that has them, remove their rows, or go on without "
                    "them with data.missing_images=drop."
                )
            log.warning("%s They are left out.", message)
        return found

    def image_codes(self, store: ExampleStore) -> list[np.ndarray]:
        """The codes of each image of an example, beside `release.image_columns`."""
        return [store.column("image")]

    def groups_of(self, store: ExampleStore) -> list[str]:
        """The groups of a store that are coded targets."""
        return list(store.groups)

    def make_part(self, store: ExampleStore, images: list[np.ndarray]) -> Part:
        """A split as part of a data set; `images` translates each of its image columns' codes to places."""
        codes = {name: {text: i for i, text in enumerate(table)} for name, table in self.label_names.items()}
        return Part(
            store,
            images[0],
            self.translate_answers(store),
            {name: translation(store.table(name), codes[name]) for name in self.groups_of(store)},
            translation(store.table("annotator_answers"), codes["annotator_answers"]) if store.annotated else None,
        )

    def make_dataset(self, role: str, parts: list[Part], regions: list[RegionStore]) -> ExampleDataset:
        """The data set of a role."""
        if role == "train":
            self.check_labelled()
        return ExampleDataset(
            parts, regions, self.tokenizer, num_answers=len(self.answers), max_length=self.max_length
        )

    # --------------------------------------------------------------------------------------- answers

    def read_answers(self, path: Path) -> list[str]:
        """The answers of the list file."""
        return read_answer_list(path)

    def spell_answer(self, answer: str) -> str:
        """An answer of the files as the answer list spells it."""
        return answer

    def translate_answers(self, store: ExampleStore) -> np.ndarray:
        """The answer codes of a store to places in `answers`."""
        spelt = [self.spell_answer(answer) for answer in store.table("answers")]
        return translation(spelt, {text: i for i, text in enumerate(self.answers)})

    def answer_splits(self, stage: str | None) -> list[str]:
        """The splits whose labels are the answers: the training splits when there is no list file."""
        if self.release.answer_list(self.answer_file).exists():
            return []
        splits = self.splits["train"]
        if stage == "predict" or (stage != "fit" and self.model_answers):
            # A model has its own answers; count them only where it costs no file.
            return splits if all(map(self.release.has, splits)) else []
        return splits

    def check_labelled(self) -> None:
        """InputError when a training split has no labels."""
        without = [split for split in self.splits["train"] if not self._examples[split].labelled]
        if without:
            files = listed(str(self.release.text_file(split)) for split in without)
            raise InputError(
                f"{files}: no labels to train on. Choose other splits for data.train, or, for texts of your own, "
                "name the column of the answers: data.columns.answer=NAME."
            )

    def _check_scored(self, role: str) -> None:
        """InputError when there is nothing to validate on, or some splits alone could be scored."""
        without = [split for split in self.splits[role] if not self._examples[split].labelled]
        if without and (role == "valid" or len(without) < len(self.splits[role])):
            files = listed(str(self.release.text_file(split)) for split in without)
            raise InputError(
                f"{files}: no labels to score by. Leave {listed(without)} out of data.{role}, and predict it with "
                "data.predict; or, for texts of your own, name the column of answers: data.columns.answer=NAME."
            )

    # ---------------------------------------------------------------------------------------- looking

    def report(self) -> dict[str, dict[str, Any]]:
        """What is in the opened splits.

        Returns:
            split -> examples, images, truncated (sentences longer than `max_length` tokens, of the
            truncated_of that were looked at), labels_without_answer (answers of labels that are not among
            `answers`), annotated (ten answers known).
        """
        for role in self.datasets:
            for split, rows in self._used(role):
                if split not in self._report:
                    self._report[split] = self.describe(split, rows)
        return self._report

    def _used(self, role: str) -> Iterator[tuple[str, np.ndarray]]:
        """The splits of a role, and the places of the examples that are used: all but those of weight 0."""
        start = 0
        for split in self.splits[role] if role in self.datasets else []:
            end = start + len(self._examples[split])
            weights = self.datasets[role].weights
            yield split, np.arange(end - start) if weights is None else np.flatnonzero(weights[start:end])
            start = end

    def describe(self, split: str, rows: np.ndarray) -> dict[str, Any]:
        """What is in the examples of a split that are used, those at `rows`; see `report`."""
        store = self._examples[split]
        seen = look_at_sentences(store, rows, self.tokenizer, self.max_length)
        check_sentences(self.release.text_file(split), seen, self.max_length, split in self.splits["train"])
        labels, known = known_labels(store, rows, self.translate_answers(store))
        used = zip(self.image_codes(store), self.release.image_columns(store), strict=True)
        images = {table[code] for codes, table in used for code in np.unique(codes[rows]).tolist()}
        return {
            "examples": len(rows),
            "images": len(images),
            "truncated": seen.truncated,
            "truncated_of": seen.seen,
            "labels_without_answer": labels - known,
            "annotated": store.annotated,
        }

    def _log_report(self) -> None:
        logged = set(self._report)
        for split, facts in self.report().items():
            if split not in logged:
                log.info("%s: %s", split, ", ".join(f"{key} {value}" for key, value in facts.items()))

    def group_sizes(self, role: str) -> dict[str, dict[str, int]]:
        """Group -> value -> how many examples of a role have it; those that are left out do not count."""
        dataset = self.datasets[role]
        kept = np.ones(len(dataset), bool) if dataset.weights is None else dataset.weights > 0
        sizes: dict[str, Counter[str]] = {}
        ends = np.cumsum([len(part.examples) for part in dataset.parts])
        for part, here in zip(dataset.parts, np.split(kept, ends[:-1]), strict=True):
            if part.split is not None:
                sizes.setdefault("split", Counter())[self.label_names["split"][part.split]] = int(here.sum())
            for name in part.groups:
                codes, texts = part.examples.column(f"groups/{name}")[here], part.examples.table(name)
                numbers = np.bincount(codes[codes >= 0], minlength=len(texts)).tolist()
                sizes.setdefault(name, Counter()).update(dict(zip(texts, numbers, strict=True)))
        return {name: dict(counts) for name, counts in sizes.items()}

    def _compare_splits(self) -> None:
        """Look at the answers, and at what training and validation share; once."""
        if self._compared or "train" not in self.datasets:
            return
        self._compared = True
        check_spelling(self.answers)
        train, valid = ([self._split(*each) for each in self._used(role)] for role in ("train", "valid"))
        compare_splits(train, valid, self.release.text_file, self.own_ids)

    def _split(self, name: str, rows: np.ndarray) -> Split:
        store = self._examples[name]
        columns = zip(self.image_codes(store), self.release.image_columns(store), strict=True)
        return Split(name, store, rows, list(columns))

    def baselines(self) -> dict[str, float]:
        """Validation accuracy (0..1) of guesses that learn nothing, by what they are; to judge a model by."""
        return {}

    def scoring_files(self, split: str) -> dict[str, Path]:
        """The makers' own files of a split that are there, by what they are, for their metrics after a test."""
        return {}

    @property
    def detector(self) -> str | None:
        """What found the regions, as the opened stores tell it."""
        return " and ".join(self.release.detectors) or None

    @property
    def most_regions(self) -> int:
        """Regions of the training image that has most."""
        return max(store.contract["max_regions"] for store in self.datasets["train"].regions)

    def sample(self, number: int = 8) -> Iterator[Batch]:
        """Some training batches of the first epoch, without features: the first process's share of each."""
        sampler = self._train_sampler(0, 0, rank=0)
        wanted = set(np.linspace(0, len(sampler) - 1, number).astype(int).tolist())
        return (self.datasets["train"].read(rows) for rows in sampler if rows.batch in wanted)

    @property
    def num_images(self) -> int | None:
        """How many images a statement has; None where examples are about one."""
        return None

    def picture(self, image_id: str) -> Path | None:
        """The picture of an image; see `ReleaseFolder.picture`."""
        return self.release.picture(image_id)

    # ---------------------------------------------------------------------------------------- loaders

    def train_dataloader(self) -> DataLoader:
        """Shuffled anew each epoch, the last partial batch dropped; starts where a checkpoint left off."""
        epoch, first_batch = resume_position(self.trainer) if self.trainer else (0, 0)
        options = loader_options(self._train_sampler(epoch, first_batch), self.workers, self.seed)
        return TrainLoader(self._by_row(self.datasets["train"]), **options)

    def _train_sampler(self, epoch: int, first_batch: int, **process: int) -> BatchSampler:
        dataset = self.datasets["train"]
        return BatchSampler(
            len(dataset),
            self.batch_size,
            seed=self.seed,
            shuffle=True,
            drop_last=True,
            image=dataset.images if self.rows_per_image > 1 else None,
            rows_per_image=self.rows_per_image,
            weights=dataset.weights,
            epoch=epoch,
            first_batch=first_batch,
            **{**self._process(), **process},
        )

    def val_dataloader(self) -> DataLoader | list:
        """Every example once, ordered by image."""
        return self._evaluation("valid")

    def test_dataloader(self) -> DataLoader | list:
        """Every example once, ordered by image."""
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader | list:
        """Every example once, ordered by image."""
        return self._evaluation("predict")

    def _evaluation(self, role: str) -> DataLoader | list:
        dataset = self.datasets.get(role)
        if dataset is None:
            return []
        options = loader_options(self._evaluation_sampler(role), self.workers, self.seed)
        return ExampleLoader(self._by_row(dataset), **options)

    def _evaluation_sampler(self, role: str) -> BatchSampler:
        dataset = self.datasets[role]
        try:
            return BatchSampler(
                len(dataset),
                self.eval_batch_size,
                seed=self.seed,
                shuffle=False,
                drop_last=False,
                image=dataset.images,
                weights=dataset.weights,
                **self._process(),
            )
        except InputError as error:
            raise InputError(f"data.{role}={','.join(self.splits[role])}: {error}") from None

    def _by_row(self, dataset: ExampleDataset) -> ExampleDataset:
        """A data set as loaders read it: with rows of the table, where the features are on the device."""
        return dataset.by_row(self._table.first_rows(dataset.regions) if self._table else None)

    def _process(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}


def split_names(splits: str | Sequence[str]) -> list[str]:
    """Splits given as a list, or separated by commas."""
    names = str(splits).split(",") if isinstance(splits, str | int) else splits  # 2014 is a number there
    return [name.strip() for name in map(str, names) if name.strip()]
