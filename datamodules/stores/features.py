"""The features of images of several region stores, read into one buffer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datamodules.stores.regions import Buffers, RegionStore, blocks_read


class StoredFeatures:
    """The features of some region stores by their rows: the regions of one store follow those of the one before.

    Row 0 is zero: it is that of padding.

    Args:
        stores: the stores; they may be many, and one of them there twice.

    Attributes:
        first_rows: the row of each store's first region.
    """

    def __init__(self, stores: Sequence[RegionStore]) -> None:
        self.stores = list(stores)
        ends = 1 + np.cumsum([0, *(store.contract["num_regions"] for store in stores)])
        self.first_rows: list[int] = ends[:-1].tolist()
        self._buffers = Buffers()
        self._cold = True

    def look_up(self, rows: Tensor, *, pinned: bool = False) -> Tensor:
        """(I, N, F) float16: the features of images, copied once, from the page cache to where they are sent from.

        Args:
            rows: (I, N, 1) int64, an image's rows one after the other, then those of its padding.
            pinned: into page-locked memory of torch's allocator: it notes which copies to a device read a tensor,
                and gives its memory away again when these have ended. The buffers used otherwise come back as
                soon as nobody holds the tensor, which an unfinished copy does not.
        """
        spans = rows.squeeze(-1).numpy()
        counts, shape = (spans > 0).sum(1), (*spans.shape, self.stores[0].feature_dim)
        if pinned:
            features = torch.empty(shape, dtype=torch.float16, pin_memory=True)
        else:
            features = self._buffers.take(shape, np.float16)
        starts = spans[:, 0] if spans.size else np.empty(0, np.int64)
        owners = np.searchsorted(self.first_rows, starts, side="right") - 1  # -1: all of it is padding
        places = starts - np.array([*self.first_rows, 0])[owners]
        before = blocks_read()
        if self._cold:
            for number in np.unique(owners[owners >= 0]).tolist():
                there = owners == number
                self.stores[number].read_ahead(places[there], counts[there])
        columns, out = [store.features for store in self.stores], features.numpy()
        # One slice after the other keeps up with a plain copy, and other threads run beside it.
        for image, (owner, place, count) in enumerate(
            zip(owners.tolist(), places.tolist(), counts.tolist(), strict=True)
        ):
            if count == shape[1]:
                out[image] = columns[owner][place : place + count]
            else:
                out[image, :count] = columns[owner][place : place + count]
                out[image, count:] = 0
        self._cold = blocks_read() > before  # see RegionStore.read
        return features
