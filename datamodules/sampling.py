"""Which examples make a batch: a function of the seed, the epoch and the batch number alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class BatchSampler:
    """Yields the example indices of each batch, this process's share of them.

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
        epoch: the epoch of the first pass; not 0 when training is resumed.
        first_batch: where the pass over `epoch` starts when it is resumed in its middle. Other epochs
            start at 0.

    Raises:
        ValueError: sizes that cannot be shared out among the processes.
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
        epoch: int = 0,
        first_batch: int = 0,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"batch_size={batch_size} is the global batch and must be a positive multiple of the "
                f"{world_size} processes. Use {max(batch_size // world_size, 1) * world_size} or "
                f"{(batch_size // world_size + 1) * world_size}."
            )
        if rows_per_image < 1 or (rows_per_image > 1 and image is None):
            raise ValueError(
                f"rows_per_image={rows_per_image} must be at least 1, and above 1 needs the examples' images."
            )
        if image is not None and len(image) != num_examples:
            raise ValueError(f"image has {len(image)} entries for {num_examples} examples.")
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        self.shuffle, self.drop_last = shuffle, drop_last
        self.rank, self.world_size = rank, world_size
        self.image, self.rows_per_image = image, rows_per_image
        self.epoch, self.first = epoch, (epoch, first_batch)
        if len(self) == 0 or num_examples // len(self) < world_size:
            raise ValueError(
                f"{num_examples} examples do not make batches of batch_size={batch_size} for {world_size} "
                f"process(es){', the last one being dropped' if drop_last else ''}. Use fewer processes or "
                "another batch size."
            )

    def __len__(self) -> int:
        """Batches of a whole epoch, also when this pass starts later: progress is counted against it."""
        if self.drop_last:
            return self.num_examples // self.batch_size
        return -(-self.num_examples // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[np.ndarray]:
        # The order is fixed here and not at the first batch: worker processes prefetch, and an epoch
        # must not depend on when they do.
        order = self.order(self.epoch)
        first = self.first[1] if self.epoch == self.first[0] else 0
        return (order[self._share(number)] for number in range(first, len(self)))

    def order(self, epoch: int) -> np.ndarray:
        """(num_examples,) int64: all examples in the order of `epoch`."""
        if not self.shuffle:
            if self.image is None:
                return np.arange(self.num_examples)
            return np.argsort(self.image, kind="stable")
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(self.num_examples)
        if self.rows_per_image == 1 or self.image is None:
            return order
        order = order[np.argsort(self.image[order], kind="stable")]
        image = self.image[order]
        starts = np.flatnonzero(np.r_[True, image[1:] != image[:-1]])
        place = np.arange(self.num_examples) - np.repeat(starts, np.diff(np.r_[starts, self.num_examples]))
        group = np.cumsum(place % self.rows_per_image == 0) - 1
        return order[np.argsort(random.permutation(group[-1] + 1)[group], kind="stable")]

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
