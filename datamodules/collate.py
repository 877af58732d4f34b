"""Rows to Batch: reads the text and region stores for a whole batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.examples import ANNOTATORS, Examples, ExampleStore
from datamodules.features import RegionStore
from lxmert.batch import Batch
from lxmert.tokenization import LxmertTokenizer


@dataclass
class Part:
    """A text store as part of a data set: its codes, and what they mean there.

    Each array translates a code of the store (its last entry the code -1) to the data set's:

    Args:
        examples: the text store.
        images: to the image's place over all region stores of the data set.
        answers: to the index among the data set's answers, -1 outside them.
        groups: name -> to the index in the data set's table of that name.
        annotator_answers: to the index in the data set's table, None where the store has none.
    """

    examples: ExampleStore
    images: np.ndarray
    answers: np.ndarray
    groups: dict[str, np.ndarray]
    annotator_answers: np.ndarray | None = None


def translation(table: Sequence[str], index: Mapping[str, int]) -> np.ndarray:
    """(len(table) + 1,) int64: the place of each text of a store's table in `index`; -1 if absent, and for -1."""
    return np.array([*(index.get(text, -1) for text in table), -1], np.int64)


class ExampleDataset(Dataset[Batch]):
    """Text stores one after the other, with the regions of their images: `dataset[indices]` is a Batch.

    For `DataLoader(dataset, sampler=BatchSampler(...), batch_size=None)`. Crosses to worker processes
    without its data: the stores map their files there anew.

    Targets, each only where some store of the data set has it (the answers: where all have):
        answer_scores      (R, A) float32 soft score of each answer
        <group>            (R,) int64, such as answer_type; -1 unknown
        annotator_answers  (R, 10) int64, -1 unknown

    Args:
        parts: the text stores and the translations of their codes.
        regions: the region stores that the images are in.
        tokenizer: called with the distinct sentences of a batch.
        num_answers: A.
        max_length: tokens of a sentence, [CLS] and [SEP] included; longer ones lose their end, as in
            the original.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        regions: Sequence[RegionStore],
        tokenizer: LxmertTokenizer,
        *,
        num_answers: int,
        max_length: int = 20,
    ) -> None:
        self.parts, self.regions, self.tokenizer = list(parts), list(regions), tokenizer
        self.num_answers, self.max_length = num_answers, max_length
        self._starts = np.cumsum([0, *(len(part.examples) for part in parts)])
        self._region_starts = np.cumsum([0, *(len(store) for store in regions)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def images(self) -> np.ndarray:
        """(len,) int64: the image of every example, as its place over all region stores."""
        return np.concatenate([part.images[part.examples.column("image")] for part in self.parts])

    def __getitem__(self, indices: np.ndarray | Sequence[int]) -> Batch:
        indices = np.asarray(indices, np.int64)
        rows = len(indices)
        texts, ids, images = np.empty(rows, object), np.empty(rows, object), np.empty(rows, np.int64)
        targets = self._empty_targets(rows)
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(owner):
            part, where = self.parts[number], np.flatnonzero(owner == number)
            examples = part.examples.read(indices[where] - self._starts[number])
            texts[where], ids[where] = examples.texts, examples.ids
            images[where] = part.images[examples.image]
            _fill_targets(targets, where, part, examples)

        first_row, row_sentence = distinct(texts.astype(np.str_))
        tokens = self.tokenizer(
            texts[first_row].tolist(),
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        first_row, row_image = distinct(images)
        images = images[first_row]
        features, boxes, mask = self._read_regions(images)
        return Batch(
            token_ids=tokens["input_ids"],
            token_mask=tokens["attention_mask"].bool(),
            region_features=features,
            region_boxes=boxes,
            region_mask=mask,
            row_sentence=torch.from_numpy(row_sentence),
            row_image=torch.from_numpy(row_image),
            targets={name: torch.from_numpy(target) for name, target in targets.items()},
            example_ids=ids.tolist(),
            image_ids=self._image_ids(images),
        )

    # torch calls this one when it forms the list of indices itself.
    __getitems__ = __getitem__

    def _empty_targets(self, rows: int) -> dict[str, np.ndarray]:
        targets: dict[str, np.ndarray] = {}
        if all(part.examples.labelled for part in self.parts):
            targets["answer_scores"] = np.zeros((rows, self.num_answers), np.float32)
        for name in {name: None for part in self.parts for name in part.groups}:
            targets[name] = np.full(rows, -1, np.int64)
        if any(part.annotator_answers is not None for part in self.parts):
            targets["annotator_answers"] = np.full((rows, ANNOTATORS), -1, np.int64)
        return targets

    def _read_regions(self, images: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Features, boxes and mask of images given by their place over all region stores."""
        if len(self.regions) == 1:
            return self.regions[0].read(images)
        owner = np.searchsorted(self._region_starts, images, side="right") - 1
        pieces = [
            (
                torch.from_numpy(np.flatnonzero(owner == number)),
                self.regions[number].read(images[owner == number] - start),
            )
            for number, start in enumerate(self._region_starts[:-1])
            if (owner == number).any()
        ]
        if len(pieces) == 1:
            return pieces[0][1]
        most = max(mask.shape[1] for _, (_, _, mask) in pieces)
        features, boxes, mask = (
            _scatter([(where, tensors[i]) for where, tensors in pieces], most) for i in range(3)
        )
        return features, boxes, mask

    def _image_ids(self, images: np.ndarray) -> list[str]:
        owner = np.searchsorted(self._region_starts, images, side="right") - 1
        places = images - self._region_starts[owner]
        return [
            self.regions[number].image_ids[place].decode()
            for number, place in zip(owner.tolist(), places.tolist(), strict=True)
        ]


def distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values in the order in which they first appear.

    Returns:
        (D,) where each is first found, and (len(values),) which of the D each value is.
    """
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[inverse]


def _fill_targets(targets: dict[str, np.ndarray], where: np.ndarray, part: Part, examples: Examples) -> None:
    if "answer_scores" in targets:
        answers = part.answers[examples.answers]
        known = answers >= 0
        rows = np.repeat(where, examples.answer_counts)
        targets["answer_scores"][rows[known], answers[known]] = examples.scores[known]
    for name, codes in part.groups.items():
        targets[name][where] = codes[examples.groups[name]]
    if part.annotator_answers is not None:
        targets["annotator_answers"][where] = part.annotator_answers[examples.annotator_answers]


def _scatter(pieces: Sequence[tuple[Tensor, Tensor]], most: int) -> Tensor:
    """One tensor (I, most, ...) from pieces (i, n, ...) and the places of their rows, zero in the padding."""
    like: Any = pieces[0][1]
    shape = (sum(len(where) for where, _ in pieces), most, *like.shape[2:])
    padded = any(piece.shape[1] < most for _, piece in pieces)
    whole = like.new_zeros(shape) if padded else like.new_empty(shape)
    for where, piece in pieces:
        whole[where, : piece.shape[1]] = piece
    return whole
