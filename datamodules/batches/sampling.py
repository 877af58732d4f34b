"""Which examples make a batch: a function of the seed, the epoch and the batch number alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lxmert.files import InputError


@dataclass(frozen=True)
class Rows:
    """The examples of a batch, this process's share of them, and which batch it is.

    Args:
        indices: (R,) int64 places in the data set.
        epoch: the epoch; always 0 in evaluation, whose random choices so are the same at every pass.
        batch: the number of the batch in its epoch.
    """

    indices: np.ndarray
    epoch: int = 0
    batch: int = 0


class BatchSampler:
    """Yields the `Rows` of each batch.

    Batches are cut from one order of all examples, whatever the number of processes: two processes
    with a global batch of 32 see together, batch by batch, what one process sees.

    - Training (`shuffle`): a new order every epoch. With `rows_per_image` above 1, up to that many
      examples of one image stay next to each other and these groups are shuffled; a group on the
      border of a batch is cut.
    - Evaluation: one order, by image where `image` is given, so that the questions of an image share
      a batch. Without `drop_last` every example comes exactly once over all processes and batch sizes
      differ by at most one, so that every process has equally many batches (a process without its
      last batch would leave the others waiting in a collective call).

    For `DataLoader(dataset, sampler=..., batch_size=None)`: it yields whole batches. Lightning finds
    `set_epoch` there and calls it before each epoch.

    Args:
        num_examples: examples in the data set.
        batch_size: the global batch, all processes together.
        seed: with the epoch it decides the order.
        shuffle: training order; else the fixed order of evaluation.
        drop_last: leave out the examples that do not fill a last batch.
        rank: this process.
        world_size: number of processes.
        image: (num_examples,) integer code of each example's image.
        rows_per_image: see above; needs `image`.
        weights: (num_examples,) how often an epoch holds each example, 1 each when left out. Of 2.5 the half
            falls to other examples of that weight each epoch, so that all epochs are equally long.
        epoch: the epoch of the first pass; not 0 when training is resumed.
        first_batch: where the pass over `epoch` starts when it is resumed in its middle. Other epochs
            start at 0.

    Raises:
        InputError: sizes that cannot be shared out among the processes.
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        rank: int = 0,
        world_size: int = 1,
        image: np.ndarray | None = None,
        rows_per_image: int = 1,
        weights: np.ndarray | None = None,
        epoch: int = 0,
        first_batch: int = 0,
    ) -> None:
        option = "data.batch_size" if drop_last else "data.eval_batch_size"
        # In training equal shares: a gradient is the mean over processes. Evaluation adds up and takes any.
        if batch_size < 1 or (drop_last and batch_size % world_size):
            raise InputError(
                f"{option}={batch_size} is the global batch and must be a positive multiple of the "
                f"{world_size} processes. Use {max(batch_size // world_size, 1) * world_size} or "
                f"{(batch_size // world_size + 1) * world_size}."
            )
        if rows_per_image < 1 or (rows_per_image > 1 and image is None):
            raise InputError(
                f"data.rows_per_image={rows_per_image} must be at least 1, and above 1 needs the examples' images."
            )
        if image is not None and len(image) != num_examples:
            raise InputError(f"image has {len(image)} entries for {num_examples} examples.")
        self.weights, self.population = weights, num_examples
        if weights is not None:
            whole = np.floor(weights)
            num_examples = int(whole.sum(dtype=np.float64)) + round((weights - whole).sum(dtype=np.float64))
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        self.shuffle, self.drop_last = shuffle, drop_last
        self.rank, self.world_size = rank, world_size
        self.image, self.rows_per_image = image, rows_per_image
        self.epoch, self.first = epoch, (epoch, first_batch)
        if len(self) == 0 or num_examples // len(self) < world_size:
            most = num_examples - num_examples % world_size if drop_last else 0
            mend = f"Set {option} to {most} or less" if most else "Use fewer processes or another batch size"
            raise InputError(
                f"{num_examples} examples do not make batches of {option}={batch_size} for {world_size} "
                f"process(es){', the last one being dropped' if drop_last else ''}. {mend}."
            )

    def __len__(self) -> int:
        """Batches of a whole epoch, also when this pass starts later: progress is counted against it."""
        if self.drop_last:
            return self.num_examples // self.batch_size
        return -(-self.num_examples // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Rows]:
        # The order is fixed here and not at the first batch: worker processes prefetch, and an epoch
        # must not depend on when they do.
        order = self.order(self.epoch)
        first = self.first[1] if self.epoch == self.first[0] else 0
        epoch = self.epoch if self.shuffle else 0
        return (
            Rows(order[self._share(number)].astype(np.int64), epoch, number) for number in range(first, len(self))
        )

    def order(self, epoch: int) -> np.ndarray:
        """(num_examples,) int32: the examples of `epoch` in their order."""
        random = np.random.default_rng([self.seed, epoch if self.shuffle else 0])
        order = self._population(random)
        if not self.shuffle:
            return order if self.image is None else order[stable_order(self.image[order])]
        random.shuffle(order)
        if self.rows_per_image == 1 or self.image is None:
            return order
        order = order[stable_order(self.image[order])]
        image = self.image[order]
        ends = np.r_[np.flatnonzero(image[1:] != image[:-1]) + 1, len(order)]  # of each image's examples
        counts = np.diff(ends, prepend=0)
        del image  # as soon as possible, here and in stable_order: these arrays are the peak of memory
        groups = -(-counts // self.rows_per_image)
        sizes = np.full(groups.sum(), self.rows_per_image)
        sizes[np.cumsum(groups) - 1] -= groups * self.rows_per_image - counts  # an image's last group
        starts = np.cumsum(sizes) - sizes
        shuffled = np.argsort(random.permutation(len(sizes)))
        starts, sizes = starts[shuffled], sizes[shuffled]
        places = np.repeat((starts - (np.cumsum(sizes) - sizes)).astype(np.int32), sizes)
        places += np.arange(len(order), dtype=np.int32)
        return order[places]

    def _population(self, random: np.random.Generator) -> np.ndarray:
        """The examples of one epoch, in no particular order."""
        every = np.arange(self.population, dtype=np.int32)
        if self.weights is None:
            return every
        whole = np.floor(self.weights)
        always = np.repeat(every, whole.astype(np.int32))
        count = self.num_examples - len(always)
        if not count:
            return always
        part = self.weights - whole
        sometimes = random.permutation(np.flatnonzero(part).astype(np.int32))
        # Equal steps along the summed weights: as many examples every epoch, each as likely as its weight says.
        ends = np.cumsum(part[sometimes], dtype=np.float64)
        steps = (np.arange(count) + random.random()) * (ends[-1] / count)
        return np.r_[always, sometimes[np.searchsorted(ends, steps, side="right").clip(max=len(ends) - 1)]]

    def state_dict(self) -> dict[str, int | bool]:
        """What the order depends on."""
        return {
            "num_examples": self.num_examples,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "rows_per_image": self.rows_per_image,
        }

    def _share(self, number: int) -> slice:
        """Where this process's part of batch `number` lies in the order."""
        if self.drop_last:
            start, end = number * self.batch_size, (number + 1) * self.batch_size
        else:
            start = number * self.num_examples // len(self)
            end = (number + 1) * self.num_examples // len(self)
        size = end - start
        return slice(
            start + self.rank * size // self.world_size, start + (self.rank + 1) * size // self.world_size
        )


def stable_order(values: np.ndarray) -> np.ndarray:
    """What `np.argsort(values, kind="stable")` gives, several times as fast, of integers below 2 ** 31.

    Values and their places are sorted as one number each: nine million in a third of a second instead of two.
    """
    keys = values.astype(np.int64) << 32
    keys |= np.arange(len(keys), dtype=np.int32)
    keys.sort()
    keys &= 0xFFFFFFFF
    return keys
