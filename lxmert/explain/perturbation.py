"""The perturbation test: what becomes of answers when words or regions go in the order of an explanation.

Of Chefer, Gur and Wolf (ICCV 2021), section 4. Positive perturbation takes what is most relevant first: the
faster the accuracy falls, the better the explanation. Negative perturbation takes what is least relevant first:
the longer it stays, the better.

Shapes: E examples, R rows (E, or n E where an example has n images), L tokens, N regions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lxmert.batch import Batch
from lxmert.explain.explanation import METHODS, evaluating, explain, parts_of
from lxmert.hash_random import uniform

REMOVED = (0, 25, 50, 75, 80, 85, 90, 95, 100)  # percent of the words, or of the regions
RANDOM = "random"
ORDERS = (*METHODS, RANDOM)
SIDES = ("words", "regions")
DIRECTIONS = ("positive", "negative")
ROWS = 512  # of a forward pass


class Removal(NamedTuple):
    """Words or regions taken away in an order.

    order: one of ORDERS.
    side: "words" or "regions".
    direction: "positive", the most relevant first, or "negative".
    """

    order: str
    side: str
    direction: str


def perturb(
    model: nn.Module,
    batch: Batch,
    truth: Tensor,
    places: Sequence[int],
    orders: Sequence[str] = ORDERS,
    seed: int = 0,
) -> dict[Removal, Tensor]:
    """The accuracy of the best answer of each example, while more and more is removed.

    At each step the share (100 - percent) / 100 of the words between [CLS] and [SEP] is left, rounded down, in
    their order, or of the regions. [CLS] and [SEP] stay. Where no region is left the words attend to nothing (the
    mixed values are zero), so that the answer comes of the sentence alone. What is equally relevant goes at
    random. What is explained is the answer that the model gives to the whole.

    Args:
        model: as for `explain`, on the batch's device.
        batch: E examples.
        truth: (E, A) score of each answer, 0 to 1.
        places: E numbers that stand for the examples: what is random depends on them and on `seed` alone.
        orders: some of ORDERS.
        seed: of what is random.

    Returns:
        (E, 9) float32 for each removal, of REMOVED.
    """
    test = _Test(model, batch, truth, places, seed)
    found: dict[Removal, Tensor] = {}
    for side in SIDES:
        scores = {order: test.relevance(order, side) for order in orders}
        removals = [Removal(order, side, direction) for order in orders for direction in DIRECTIONS]
        rankings = [test.ranking(scores[each.order], each) for each in removals]
        # What is left of all, and of nothing, is the same in any order.
        left = [test.left(rankings[0], side, 0), test.left(rankings[0], side, 100)]
        left += [test.left(ranking, side, percent) for ranking in rankings for percent in REMOVED[1:-1]]
        whole, nothing, *between = test.accuracies(side, left)
        steps = len(REMOVED) - 2
        for number, removal in enumerate(removals):
            own = between[number * steps : (number + 1) * steps]
            found[removal] = torch.stack([whole, *own, nothing], 1)
    return found


def areas(accuracy: Tensor) -> Tensor:
    """The area under curves (..., 9) over the share that is removed, by trapezoids; a constant's is itself."""
    return torch.trapezoid(accuracy, torch.tensor(REMOVED, device=accuracy.device) / 100)


class _Test:
    """A batch, and what is removed from it."""

    def __init__(self, model: nn.Module, batch: Batch, truth: Tensor, places: Sequence[int], seed: int) -> None:
        self.model, self.batch, self.truth = model, batch, truth
        self.encoder, self.head = parts_of(model)
        self.each = batch.num_rows // len(truth)  # rows of an example
        self.places, self.seed = np.asarray(places, np.int64), seed
        tokens = batch.token_mask[
            batch.row_sentence[:: self.each]
        ]  # (E, L): rows of an example share its sentence
        last = tokens.sum(1) - 1
        number = torch.arange(tokens.shape[1], device=tokens.device)
        self.real = {"words": tokens, "regions": batch.region_mask[batch.row_image]}
        inner = tokens & (number > 0) & (number != last[:, None])
        self.removable = {"words": inner, "regions": self.real["regions"]}
        self._found: dict[str, dict[str, Tensor]] = {}

    def relevance(self, order: str, side: str) -> Tensor:
        """(E, L) of words or (R, N) of regions, by one of ORDERS."""
        if order == RANDOM:
            return self.noise(side, "order")
        if order not in self._found:
            found = explain(self.model, self.batch, method=order)
            words = found.words.unflatten(0, (-1, self.each)).mean(1)
            self._found[order] = {"words": words, "regions": found.regions}
        return self._found[order][side]

    def noise(self, side: str, purpose: str) -> Tensor:
        """Random numbers as `relevance` is shaped."""
        rows, length = self.real[side].shape
        each = rows // len(self.places)
        places, number = np.repeat(self.places, each), np.tile(np.arange(each), len(self.places))
        keys = places[:, None], number[:, None], np.arange(length)
        drawn = uniform(self.seed, f"perturbation {side} {purpose}", *keys)
        return torch.from_numpy(drawn).to(self.truth.device)

    def ranking(self, scores: Tensor, removal: Removal) -> Tensor:
        """Each place's rank, 0 for what is removed last; what is not to be removed comes after all others."""
        scores = -scores if removal.direction == "positive" else scores
        scores = scores.masked_fill(~self.removable[removal.side], -torch.inf)
        shuffled = self.noise(removal.side, "ties").argsort(1)
        by_score = scores.gather(1, shuffled).argsort(dim=1, descending=True, stable=True)
        return shuffled.gather(1, by_score).argsort(1)

    def left(self, ranking: Tensor, side: str, percent: int) -> Tensor:
        """What stays, as a mask of `ranking`'s shape."""
        removable = self.removable[side]
        count = removable.sum(1, keepdim=True) * (100 - percent) // 100
        return (ranking < count) & removable | (self.real[side] & ~removable)

    def accuracies(self, side: str, left: Sequence[Tensor]) -> Iterator[Tensor]:
        """(E,) for each mask of what stays; many masks are one forward pass."""
        at_once = max(1, ROWS // self.batch.num_rows)
        make = self.with_words if side == "words" else self.with_regions
        for start in range(0, len(left), at_once):
            masks = torch.cat(list(left[start : start + at_once]))
            best = self.best(make(masks), bool((~masks.any(1)).any())).view(-1, len(self.truth))
            yield from (self.truth.gather(1, answers[:, None])[:, 0] for answers in best)

    @torch.inference_mode()
    def best(self, batch: Batch, some_empty: bool) -> Tensor:
        """The best answer of each example; of attention to nothing only one kernel promises to give zeros."""
        kernel = sdpa_kernel(SDPBackend.MATH) if some_empty else nullcontext()
        with kernel, evaluating(self.encoder, self.head):
            return self.head(self.encoder.encode(batch, {"pooled"}).pooled_output).argmax(1)

    def with_words(self, left: Tensor) -> Batch:
        """The examples, as many times as masks (E, L) were put together, with the words that are left."""
        times = len(left) // len(self.truth)
        own = self.batch.row_sentence[:: self.each].repeat(times)
        order = (~left).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(left.sum(1).max())]
        types = self.batch.token_types
        sentences = torch.arange(len(left), device=left.device)
        return Batch(
            token_ids=self.batch.token_ids[own].gather(1, order),
            token_mask=left.gather(1, order),
            token_types=None if types is None else types[own].gather(1, order),
            region_features=self.batch.region_features,
            region_boxes=self.batch.region_boxes,
            region_mask=self.batch.region_mask,
            row_sentence=sentences.repeat_interleave(self.each),
            row_image=self.batch.row_image.repeat(times),
        )

    def with_regions(self, left: Tensor) -> Batch:
        """The rows, as many times as masks (R, N) were put together, with the regions that are left."""
        times = len(left) // self.batch.num_rows
        own = self.batch.row_image.repeat(times)
        return Batch(
            token_ids=self.batch.token_ids,
            token_mask=self.batch.token_mask,
            token_types=self.batch.token_types,
            region_features=self.batch.region_features[own],
            region_boxes=self.batch.region_boxes[own],
            region_mask=left,
            row_sentence=self.batch.row_sentence.repeat(times),
            row_image=torch.arange(len(left), device=left.device),
        )
