"""From the rows of features to features: in the stores, or in a table on the device that trains.

A batch is read in two parts. Loader processes read texts, boxes and labels, which take time and are small, and
note which rows of the stores its features are; these are large, and are read once, by whoever sends them on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from datamodules.progress import progress_bar
from datamodules.stores import RegionStore
from lxmert.batch import Batch
from lxmert.files import InputError

PIECE = 1 << 26  # bytes copied at once


def with_features(batch: Batch, look_up: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with features in place of their rows, those of replacements (I, F) among its targets too.

    Args:
        batch: with rows, as `ExampleDataset.by_row` gives it.
        look_up: from rows (I, N, 1) int64 to features (I, N, F) float16.
    """
    targets = batch.targets
    if (rows := targets.get("replacement_features")) is not None:
        targets = targets | {"replacement_features": look_up(rows[:, None]).squeeze(1)}
    return replace(batch, region_features=look_up(batch.region_features), targets=targets)


class FeatureTable:
    """The features of several region stores in one tensor (1 + T, F) float16 on a device, copied there once.

    Row 0 is zero, for padding to look up. What is looked up has the numbers that the stores would have given.

    Args:
        stores: the stores; one that is there twice is copied once.
        device: where to.
        shown: whether to show how far the copying is.

    Raises:
        InputError: a GPU has not as much memory free; nothing has been copied then.
    """

    def __init__(self, stores: Sequence[RegionStore], device: torch.device, *, shown: bool = True) -> None:
        self.device = device
        self._first: dict[str, int] = {}
        distinct = {str(store.path): store for store in stores}
        rows = 1
        for path, store in distinct.items():
            self._first[path] = rows
            rows += store.contract["num_regions"]
        width = stores[0].feature_dim
        self._features = self._allocate(rows, width)
        self._features[0] = 0
        at_once = max(PIECE // (2 * width), 1)
        # Page-locked: the driver would copy anything else through a small buffer of its own, in more steps. Each
        # copy is waited for, so that one buffer will do; reading the store takes longer than sending it.
        buffer = torch.empty(min(at_once, rows), width, dtype=torch.float16, pin_memory=device.type == "cuda")
        with progress_bar(f"Copying region features to {device}", (rows - 1) * 2 * width, shown=shown) as bar:
            for path, store in distinct.items():
                for start in range(0, store.contract["num_regions"], at_once):
                    piece = buffer[: store.contract["num_regions"] - start]
                    store.copy_features(start, piece)
                    row = self._first[path] + start
                    self._features[row : row + len(piece)].copy_(piece)
                    bar.update(piece.nbytes)

    def holds(self, stores: Sequence[RegionStore], device: torch.device) -> bool:
        """Whether the features of all of these are there, on this device."""
        return device == self.device and all(str(store.path) in self._first for store in stores)

    def first_rows(self, stores: Sequence[RegionStore]) -> list[int]:
        """The row of each store's first region."""
        return [self._first[str(store.path)] for store in stores]

    def fill(self, batch: Batch) -> Batch:
        """A batch on the device with features in place of their rows."""
        return with_features(batch, self.look_up)

    def look_up(self, rows: Tensor) -> Tensor:
        """(I, N, F) float16: the features of `rows` (I, N, 1) int64 on the table's device; waits for nothing."""
        return self._features.index_select(0, rows.flatten()).view(*rows.shape[:-1], -1)

    def _allocate(self, rows: int, width: int) -> Tensor:
        needed = rows * width * 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what nothing uses any more is free too
            free, total = torch.cuda.mem_get_info(self.device)
            if needed > free:
                raise InputError(
                    f"data.regions_on_device=true: the region features of {len(self._first)} store(s) take "
                    f"{needed:,} bytes, and {self.device} has {free:,} free of its {total:,}. Leave it out "
                    "(data.regions_on_device=false: batches bring the features), or use a GPU with more memory."
                )
        return torch.empty(rows, width, dtype=torch.float16, device=self.device)
