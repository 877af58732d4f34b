"""Rows to Batch: reads the text and region stores for a whole batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batches.features import with_features
from datamodules.batches.sampling import Rows
from datamodules.stores import ANNOTATORS, Examples, ExampleStore, RegionStore, StoredFeatures
from lxmert.batch import Batch
from lxmert.hash_random import key
from lxmert.tokenization import LxmertTokenizer

BLOCK = 16_384  # examples looked up at once: some 20 MB


@dataclass
class Known:
    """What is known of some examples beside their features: R of each.

    Args:
        ids: identifiers, int or str as in the source.
        images: names; an example's several ones one after the other, blanks between them.
        texts: sentences as written.
        answers: the answer with the best score, "" where none is known.
    """

    ids: list[Any]
    images: list[str]
    texts: list[str]
    answers: list[str]


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
        split: its code, where splits are scored apart.
    """

    examples: ExampleStore
    images: np.ndarray
    answers: np.ndarray
    groups: dict[str, np.ndarray]
    annotator_answers: np.ndarray | None = None
    split: int | None = None

    @property
    def incomplete(self) -> bool:
        """Whether some images have no regions."""
        return bool((self.images < 0).any())

    def known(self, places: np.ndarray) -> Iterator[Known]:
        """What is known of the examples at `places` of the store, block by block."""
        names, answers = self.image_names(), self.examples.table("answers")
        for start in range(0, len(places), BLOCK):
            rows = places[start : start + BLOCK]
            read = self.examples.read(rows)
            images = (
                map(table.__getitem__, self.examples.column(name)[rows].tolist()) for name, table in names.items()
            )
            yield Known(
                read.ids, [" ".join(each) for each in zip(*images, strict=True)], read.texts, _best(read, answers)
            )

    def image_names(self) -> dict[str, list[str]]:
        """The names of the images, by the columns that hold their codes."""
        return {"image": self.examples.table("image")}


def _best(read: Examples, answers: Sequence[str]) -> list[str]:
    """The answer of each example that has the best score, the first of equal ones."""
    rows = np.repeat(np.arange(len(read.ids)), read.answer_counts)
    order = np.lexsort((-read.scores, rows))
    labelled = read.answer_counts > 0
    first = (np.cumsum(read.answer_counts) - read.answer_counts)[labelled]
    best = np.full(len(read.ids), "", object)
    best[labelled] = np.array([*answers, ""], object)[read.answers[order[first]]]
    return best.tolist()


def translation(table: Sequence[str], index: Mapping[str, int]) -> np.ndarray:
    """(len(table) + 1,) int64: the place of each text of a store's table in `index`; -1 if absent, and for -1."""
    return np.array([*(index.get(text, -1) for text in table), -1], np.int64)


@dataclass
class _Read:
    """What the text stores hold of R rows: sentences, identifiers, places of the images, targets."""

    texts: np.ndarray
    ids: np.ndarray
    images: np.ndarray
    targets: dict[str, np.ndarray]


class ExampleDataset(Dataset[Batch]):
    """Text stores one after the other, with the regions of their images: `dataset[rows]` is a Batch.

    For `DataLoader(dataset, sampler=BatchSampler(...), batch_size=None)`. Crosses to worker processes
    without its data: the stores map their files there anew.

    Targets, each only where some store of the data set has it (the answers: where all have):
        answer_scores      (R, A) float32 soft score of each answer
        <group>            (R,) int64, such as answer_type; -1 unknown
        split              (R,) int64
        annotator_answers  (R, 10) int64, -1 unknown
        <number>           (R, k) float32, such as a box; where all stores have it

    Args:
        parts: the text stores and the translations of their codes.
        regions: the region stores that the images are in.
        tokenizer: called with the distinct sentences of a batch.
        num_answers: A.
        max_length: tokens of a sentence, [CLS] and [SEP] included; longer ones lose their end, as in
            the original.

    Attributes:
        starts: the place of each part's first example, then the number of all examples.
        weights: (len,) how often an epoch holds each example, 0 where its image has no regions; None for
            once each.
        first_rows: of each region store, the row of its first region.
        in_table: whether these are a `FeatureTable`'s, which has the features then.
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
        self.starts = np.cumsum([0, *(len(part.examples) for part in parts)])
        self._region_starts = np.cumsum([0, *(len(store) for store in regions)])
        self.weights: np.ndarray | None = None
        self.stored = StoredFeatures(self.regions)
        self.first_rows = self.stored.first_rows
        self.in_table, self._fills = False, True
        if any(part.incomplete for part in parts):
            self.weights = (self.images >= 0).astype(np.float32)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def images(self) -> np.ndarray:
        """(len,) int32: the image of every example, as its place over all region stores."""
        return np.concatenate([part.images.astype(np.int32)[part.examples.column("image")] for part in self.parts])

    def used(self, number: int) -> np.ndarray:
        """The places of the examples of part `number`, without those whose images have no regions."""
        places = np.arange(self.starts[number], self.starts[number + 1])
        return places if self.weights is None else places[self.weights[places] > 0]

    def known(self, number: int, places: np.ndarray) -> Iterator[Known]:
        """What is known of the examples at `places`, all in part `number`, block by block."""
        return self.parts[number].known(places - self.starts[number])

    def sentence(self, place: int) -> str:
        """The text of an example as it was written."""
        [(number, _, places)] = self._owners(np.array([place]))
        return self.parts[number].examples.texts(places)[0]

    def by_row(self, first_rows: Sequence[int] | None = None) -> ExampleDataset:
        """The same data set, whose batches have the rows of features in their place.

        That is `region_features` (I, N, 1) int64, 0 in the padding: for `with_features`, once the batch has left
        the process that read its texts.

        Args:
            first_rows: of each region store, the row of its first region in a `FeatureTable`. None: `fill` is to
                read them from the stores.
        """
        other = copy(self)
        other._fills, other.in_table = False, first_rows is not None
        other.first_rows = list(first_rows or self.stored.first_rows)
        return other

    def fill(self, batch: Batch, *, pinned: bool = False) -> Batch:
        """A batch of `by_row` with its features as the stores have them, `pinned` in page-locked memory."""
        return batch if self.in_table else with_features(batch, partial(self.stored.look_up, pinned=pinned))

    def __getitem__(self, rows: Rows | np.ndarray | Sequence[int]) -> Batch:
        batch = self.read(rows if isinstance(rows, Rows) else Rows(np.asarray(rows, np.int64)))
        return self.fill(batch) if self._fills else batch

    # torch calls this one when it forms the list of indices itself.
    __getitems__ = __getitem__

    def read(self, rows: Rows) -> Batch:
        """The batch of these rows, without features."""
        read = self._read(rows.indices)
        first_row, row_sentence = distinct(read.texts.astype(np.str_))
        return self._batch(rows, read, read.texts[first_row], row_sentence, rows.indices[first_row])

    def of(self, sentences: Sequence[str], images: np.ndarray) -> Batch:
        """Any sentences and images, to be paired by `Batch.pair`; its rows are the first sentence with each image.

        Args:
            sentences: S texts.
            images: (I,) places over all region stores, each once.
        """
        read = _Read(np.empty(0, object), np.empty(0, object), images, {})
        no_rows = Rows(np.empty(0, np.int64))
        keys, first = np.arange(len(sentences)), np.zeros(len(images), np.int64)
        return self.fill(self._batch(no_rows, read, np.array(sentences, object), first, keys))

    def _read(self, indices: np.ndarray) -> _Read:
        """What the text stores hold of the rows."""
        rows = len(indices)
        read = _Read(
            np.empty(rows, object), np.empty(rows, object), np.empty(rows, np.int64), self._empty_targets(rows)
        )
        for number, where, places in self._owners(indices):
            part = self.parts[number]
            examples = part.examples.read(places)
            read.texts[where], read.ids[where] = examples.texts, examples.ids
            read.images[where] = part.images[examples.image]
            self._fill_targets(read.targets, where, part, examples)
        return read

    def _owners(self, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For each store that holds some: its number, which of `indices` are there, and their places in it."""
        owner = np.searchsorted(self.starts, indices, side="right") - 1
        for number in np.unique(owner):
            where = np.flatnonzero(owner == number)
            yield int(number), where, indices[where] - self.starts[number]

    def _batch(
        self, rows: Rows, read: _Read, sentences: np.ndarray, row_sentence: np.ndarray, keys: np.ndarray
    ) -> Batch:
        """The batch of what was read, with these S sentences; `keys` are the places that they stand for."""
        tokens = self.tokenizer(
            self.tokenizer.as_typed(sentences.tolist()),
            padding=True,
            padding_side="right",  # of the model, whose first token is [CLS], whatever the tokenizer's file says
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        first_row, row_image = distinct(read.images)
        images = read.images[first_row]
        feature_rows, boxes, mask = self._read_regions(images)
        return Batch(
            token_ids=tokens["input_ids"],
            token_mask=tokens["attention_mask"].bool(),
            region_features=feature_rows,
            region_boxes=boxes,
            region_mask=mask,
            row_sentence=torch.from_numpy(row_sentence),
            row_image=torch.from_numpy(row_image),
            targets={name: torch.from_numpy(target) for name, target in read.targets.items()}
            | self._image_targets(rows, images),
            example_ids=read.ids.tolist(),
            example_places=rows.indices.tolist(),
            image_ids=self._image_ids(images),
            sentence_keys=torch.from_numpy(key("sentence", rows.epoch, keys)),
            image_keys=torch.from_numpy(key("image", rows.epoch, rows.batch, images)),
        )

    def _image_targets(self, rows: Rows, images: np.ndarray) -> dict[str, Tensor]:
        return {}

    def _empty_targets(self, rows: int) -> dict[str, np.ndarray]:
        targets: dict[str, np.ndarray] = {}
        if all(part.examples.labelled for part in self.parts):
            targets["answer_scores"] = np.zeros((rows, self.num_answers), np.float32)
        for name in {name: None for part in self.parts for name in part.groups}:
            targets[name] = np.full(rows, -1, np.int64)
        if any(part.split is not None for part in self.parts):
            targets["split"] = np.full(rows, -1, np.int64)
        if any(part.annotator_answers is not None for part in self.parts):
            targets["annotator_answers"] = np.full((rows, ANNOTATORS), -1, np.int64)
        for name, width in self.parts[0].examples.numbers.items():
            if all(part.examples.numbers.get(name) == width for part in self.parts):
                targets[name] = np.zeros((rows, width), np.float32)
        return targets

    def _fill_targets(
        self, targets: dict[str, np.ndarray], where: np.ndarray, part: Part, examples: Examples
    ) -> None:
        if "answer_scores" in targets:
            answers = part.answers[examples.answers]
            known = answers >= 0
            rows = np.repeat(where, examples.answer_counts)
            targets["answer_scores"][rows[known], answers[known]] = examples.scores[known]
        for name, codes in part.groups.items():
            targets[name][where] = codes[examples.groups[name]]
        if part.split is not None:
            targets["split"][where] = part.split
        if part.annotator_answers is not None:
            targets["annotator_answers"][where] = part.annotator_answers[examples.annotator_answers]
        for name, values in examples.numbers.items():
            if name in targets:
                targets[name][where] = values

    def _read_regions(self, images: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of features, boxes and mask of images given by their place over all region stores."""

        def read(number: int, places: np.ndarray) -> tuple[Tensor, ...]:
            return self.regions[number].read_rows(places, self.first_rows[number])

        rows, boxes, mask = self._gather(images, read, (0, 0, False))
        return rows, boxes, mask

    def _gather(
        self,
        images: np.ndarray,
        read: Callable[[int, np.ndarray], tuple[Tensor, ...]],
        fills: Sequence[float],
    ) -> tuple[Tensor, ...]:
        """What `read` gives of images of each region store, each tensor with its fill in the padding."""
        pieces = [
            (torch.from_numpy(where), read(number, places))
            for number, where, places in self._region_owners(images)
        ]
        if len(pieces) == 1:
            return pieces[0][1]
        most = max(tensors[0].shape[1] for _, tensors in pieces)
        return tuple(
            _scatter([(where, tensors[i]) for where, tensors in pieces], most, fill)
            for i, fill in enumerate(fills)
        )

    def _region_owners(self, images: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For each region store that holds some: its number, which of `images`, and their places in it."""
        owner = np.searchsorted(self._region_starts, images, side="right") - 1
        for number in np.unique(owner):
            where = np.flatnonzero(owner == number)
            yield int(number), where, images[where] - self._region_starts[number]

    def _image_ids(self, images: np.ndarray) -> list[str]:
        owner = np.searchsorted(self._region_starts, images, side="right") - 1
        places = images - self._region_starts[owner]
        tables = [store.image_ids for store in self.regions]
        return [
            tables[number][place].decode() for number, place in zip(owner.tolist(), places.tolist(), strict=True)
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


def _scatter(pieces: Sequence[tuple[Tensor, Tensor]], most: int, fill: float) -> Tensor:
    """One tensor (I, most, ...) from pieces (i, n, ...) and the places of their rows, `fill` in the padding."""
    like: Any = pieces[0][1]
    shape = (sum(len(where) for where, _ in pieces), most, *like.shape[2:])
    padded = any(piece.shape[1] < most for _, piece in pieces)
    whole = like.new_full(shape, fill) if padded else like.new_empty(shape)
    for where, piece in pieces:
        whole[where, : piece.shape[1]] = piece
    return whole
