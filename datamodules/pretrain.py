"""Pre-training: sentences of five sources about COCO and Visual Genome images (paper section 3.2, Table 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.base import ExampleDataModule
from datamodules.batches import ExampleDataset, Part, Rows
from datamodules.formats.release_pretrain import convert_pretraining
from datamodules.layout import COCO, VG_GQA, VISUAL_GENOME, Layout
from datamodules.release import ReleaseFolder
from datamodules.stores import Examples, RegionStore
from lxmert.batch import Batch
from lxmert.evaluate import canonical_answer
from lxmert.files import InputError
from lxmert.hash_random import below, uniform
from lxmert.tokenization import LxmertTokenizer

PARTNER_DRAWS = 20  # an exchange for a sentence of another image is tried again this often
RELEASED_SPLITS = {
    "train": ["mscoco_train", "mscoco_nominival", "vgnococo"],
    "valid": ["mscoco_minival"],
    "test": ["mscoco_minival"],
    "predict": [],
}
LAYOUT = Layout(
    files=(*COCO, *VISUAL_GENOME),
    folders=("mscoco_imgfeat", "vg_gqa_imgfeat"),
    splits={
        "mscoco_train": ["mscoco_imgfeat/train2014_obj36"],
        "mscoco_nominival": ["mscoco_imgfeat/val2014_obj36"],
        "mscoco_minival": ["mscoco_imgfeat/val2014_obj36"],
        "vgnococo": [VG_GQA],
    },
)


@dataclass(eq=False, repr=False)
class PretrainDataModule(ExampleDataModule):
    """All sentences of the images, each one row, some of them exchanged for another image's.

    `root` is a data folder as the LXMERT release lays it out:

        lxmert/{split}.json                            img_id, sentf {source: [...]}, labelf {source: [...]}
        lxmert/all_ans.json                            optional: the answer table; else made from the labels
        mscoco_imgfeat/{train2014,val2014}_obj36.tsv   regions of COCO images
        vg_gqa_imgfeat/vg_gqa_obj36.tsv                regions of the other Visual Genome images

    Batches have one sentence a row, and the targets
        matched (R,) bool, False where the sentence belongs to another image;
        answer (R,) one answer of the row's own question, drawn by its scores anew each epoch, -1 if none;
        label_answers (R, K) and label_scores (R, K), all of its answers, -1 and 0 in the padding;
        labelled (R,) bool, whether it is a question; source (R,) code into `label_names["source"]`;
        object_ids, attribute_ids (I, N), -1 unknown, object_conf, attribute_conf (I, N);
        replacement_features (I, F), one region of another image for each image.
    Answers outside the table are dropped as the original does; `report` counts them.

    Args, beside those of ExampleDataModule:
        sources: source -> how often an epoch holds each of its sentences (0 or absent: never).
        mismatched: share of rows whose sentence is exchanged, for the matching objective.
        num_objects: object labels of the model; ids beyond are refused.
        num_attributes: the same of attributes.
    """

    title = "pre-training"
    answer_file = "all_ans"
    most_answers = 9500  # as many as the released table has
    released_splits = RELEASED_SPLITS
    own_ids = False
    needs_answers = False  # a sentence is learnt from without them, too

    _: KW_ONLY
    sources: Mapping[str, float]
    mismatched: float = 0.0
    num_objects: int = 1600
    num_attributes: int = 400
    batch_size: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        sources = self.sources = dict(self.sources)
        if not any(sources.values()) or min(sources.values()) < 0:
            raise InputError(f"data.sources={sources}; expected weights of 0 or more, not all of them 0")
        if not 0 <= self.mismatched < 1:
            raise InputError(f"data.mismatched={self.mismatched}; expected a share of rows below 1, such as 0.5")
        self.label_names = {"source": []}

    def release_folder(self) -> ReleaseFolder:
        """The pre-training files."""
        return ReleaseFolder(
            self.root,
            self.stores,
            folder="lxmert",
            layout=LAYOUT,
            convert=convert_pretraining,
            data_set="the pre-training data",
            toy="toy_pretrain",
        )

    def spell_answer(self, answer: str) -> str:
        """The answer table's spelling."""
        return canonical_answer(answer)

    def make_dataset(self, role: str, parts: list[Part], regions: list[RegionStore]) -> PretrainDataset:
        """The data set of a role."""
        self._check_sources(role)
        for store in regions:
            store.check_labels({"object_ids": self.num_objects, "attribute_ids": self.num_attributes})
        dataset = PretrainDataset(
            parts,
            regions,
            self.tokenizer,
            num_answers=len(self.answers),
            max_length=self.max_length,
            mismatched=self.mismatched,
            seed=self.seed,
        )
        weights = np.array([*(self.sources.get(name, 0) for name in self.label_names["source"]), 0], np.float32)
        if role != "train":  # a weight says how often to train on a sentence; to evaluate, once is enough
            weights = (weights > 0).astype(np.float32)
        if (weights[:-1] != 1).any():
            source = np.concatenate(
                [weights[p.groups["source"][p.examples.column("groups/source")]] for p in parts]
            )
            dataset.weights = source if dataset.weights is None else source * dataset.weights
        return dataset

    def _check_sources(self, role: str) -> None:
        there = self.label_names["source"]
        for name in there:
            if name not in self.sources:
                raise InputError(
                    f"the sentences have a source {name!r} that data.sources does not name. Say how often to use "
                    f"them with +data.sources.{name}=1, or 0 for never."
                )
        for name, weight in self.sources.items():
            if weight and name not in there and role == "train":
                raise InputError(
                    f"data.sources.{name}={weight}, but {', '.join(self.splits[role])} have no such sentences, "
                    f"only {', '.join(there)}. Set data.sources.{name}=0, or correct the name."
                )

    def describe(self, split: str, rows: np.ndarray) -> dict[str, Any]:
        """What is in a split; see `report`. Also the number of sentences by source."""
        store = self._examples[split]
        counts = np.bincount(store.column("groups/source")[rows], minlength=len(store.table("source"))).tolist()
        facts = super().describe(split, rows)
        del facts["annotated"]
        return facts | {"sources": dict(zip(store.table("source"), counts, strict=True))}


class PretrainDataset(ExampleDataset):
    """Rows for pre-training; its targets are explained at PretrainDataModule.

    Args:
        parts, regions, tokenizer, num_answers, max_length: see ExampleDataset.
        mismatched: share of rows whose sentence is exchanged for one of another image.
        seed: with the epoch and the example it decides what is drawn.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        regions: Sequence[RegionStore],
        tokenizer: LxmertTokenizer,
        *,
        num_answers: int,
        max_length: int,
        mismatched: float,
        seed: int,
    ) -> None:
        super().__init__(parts, regions, tokenizer, num_answers=num_answers, max_length=max_length)
        self.mismatched, self.seed = mismatched, seed
        # A source of questions is one with answers; some of its questions may have none left.
        self.questions = np.zeros(max(part.groups["source"].max() for part in parts) + 2, bool)
        for part in parts:
            answered = np.diff(part.examples.column("answer/offsets")) > 0
            self.questions[np.unique(part.groups["source"][part.examples.column("groups/source")[answered]])] = (
                True
            )

    def read(self, rows: Rows) -> Batch:
        """The batch of these rows, without features."""
        read = self._read(rows.indices)
        read.targets["answer"] = self._draw_answers(rows, read.targets)
        partners = self._draw_partners(rows, read.images)
        exchanged = np.flatnonzero(partners >= 0)
        read.targets["matched"] = partners < 0
        for number, where, places in self._owners(partners[exchanged]):
            read.texts[exchanged[where]] = self.parts[number].examples.texts(places)
        # One sentence a row, alike or not: each has its own mask.
        return self._batch(rows, read, read.texts, np.arange(len(rows.indices)), rows.indices)

    def _draw_partners(self, rows: Rows, images: np.ndarray) -> np.ndarray:
        """(R,) the example whose sentence takes the place of each row's own, -1 where that stays."""
        own = np.full(len(images), -1, np.int64)
        drawn = uniform(self.seed, "exchange", rows.epoch, rows.indices) < self.mismatched
        for attempt in range(PARTNER_DRAWS):
            if not drawn.any():
                return own
            partners = below(len(self), self.seed, "partner", rows.epoch, rows.indices[drawn], attempt)
            there = np.flatnonzero(drawn)
            usable = self._images_of(partners) != images[drawn]
            if self.weights is not None:
                usable &= self.weights[partners] > 0
            own[there[usable]] = partners[usable]
            drawn[there[usable]] = False
        return own  # a row that found no other image in so many draws keeps its sentence

    def _images_of(self, indices: np.ndarray) -> np.ndarray:
        images = np.empty(len(indices), np.int64)
        for number, where, places in self._owners(indices):
            part = self.parts[number]
            images[where] = part.images[part.examples.image_codes(places)]
        return images

    def _draw_answers(self, rows: Rows, targets: dict[str, np.ndarray]) -> np.ndarray:
        """(R,) one of each row's answers, in proportion to their scores, -1 where it has none."""
        ends = np.cumsum(targets["label_scores"], axis=1)
        point = uniform(self.seed, "answer", rows.epoch, rows.indices) * ends[:, -1]
        place = (ends <= point[:, None]).sum(1).clip(max=ends.shape[1] - 1)
        return np.where(ends[:, -1] > 0, targets["label_answers"][np.arange(len(place)), place], -1)

    def _empty_targets(self, rows: int) -> dict[str, np.ndarray]:
        return {
            "labelled": np.zeros(rows, bool),
            "source": np.full(rows, -1, np.int64),
            "label_answers": np.full((rows, 1), -1, np.int64),
            "label_scores": np.zeros((rows, 1), np.float32),
        }

    def _fill_targets(
        self, targets: dict[str, np.ndarray], where: np.ndarray, part: Part, examples: Examples
    ) -> None:
        targets["source"][where] = part.groups["source"][examples.groups["source"]]
        targets["labelled"][where] = self.questions[targets["source"][where]]
        answers = part.answers[examples.answers]
        known = np.flatnonzero(answers >= 0)
        rows = np.repeat(np.arange(len(where)), examples.answer_counts)
        # Stores from before spellings were merged may have an answer twice: the last counts.
        _, last = np.unique((rows * self.num_answers + answers)[known[::-1]], return_index=True)
        known = known[np.sort(len(known) - 1 - last)]
        rows = rows[known]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)  # among the known answers of its row
        missing = int(place.max(initial=0)) + 1 - targets["label_answers"].shape[1]
        if missing > 0:
            for name, fill in (("label_answers", -1), ("label_scores", 0)):
                targets[name] = np.pad(targets[name], ((0, 0), (0, missing)), constant_values=fill)
        targets["label_answers"][where[rows], place] = answers[known]
        targets["label_scores"][where[rows], place] = examples.scores[known]

    def _image_targets(self, rows: Rows, images: np.ndarray) -> dict[str, Tensor]:
        names = ("object_ids", "object_conf", "attribute_ids", "attribute_conf")
        labels = self._gather(images, lambda n, places: self.regions[n].labels(places), (-1, 0, -1, 0))
        return dict(zip(names, labels, strict=True)) | {
            "replacement_features": self._read_replacements(rows, images)
        }

    def _read_replacements(self, rows: Rows, images: np.ndarray) -> Tensor:
        """(I, 1) int64: the row of a region of a random image for each image, seldom the same one."""
        total = int(self._region_starts[-1])
        drawn = below(total, self.seed, "spare image", rows.epoch, rows.batch, images)
        drawn = np.where(drawn == images, (drawn + 1) % total, drawn)
        fraction = uniform(self.seed, "spare region", rows.epoch, rows.batch, images)
        picked = np.empty((len(images), 1), np.int64)
        for number, where, places in self._region_owners(drawn):
            picked[where, 0] = self.regions[number].pick_rows(places, fraction[where]) + self.first_rows[number]
        return torch.from_numpy(picked)
