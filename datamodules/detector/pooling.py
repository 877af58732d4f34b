"""RoIPool: the maximum of the feature map in each bin of a region, with Caffe's bins."""

from __future__ import annotations

import torch
from torch import Tensor


def bins(starts: Tensor, ends: Tensor, size: int, limit: int) -> tuple[Tensor, Tensor]:
    """Where the bins of regions begin and end along one side of the map.

    A region's last cell belongs to it; it may lie one beyond the map. Bins share cells where the region's length
    is no multiple of their number. Computed in float32, as Caffe does: of the lengths up to 63 with 14 bins, 57
    and 62 get other bins than exact fractions give.

    Args:
        starts: (n,) int64 first cells of the regions.
        ends: (n,) int64 last cells.
        size: bins a region.
        limit: cells of the map.

    Returns:
        (n, size) int64 first cell and the one after the last of each bin, within the map; equal in an empty bin.
    """
    length = (ends - starts + 1).clamp(min=1)
    step = (length.float() / size)[:, None]
    number = torch.arange(size + 1, dtype=torch.float32, device=starts.device)
    begin = (number[:-1] * step).floor().long() + starts[:, None]
    end = (number[1:] * step).ceil().long() + starts[:, None]
    return begin.clamp(0, limit), end.clamp(0, limit)


def to_cells(coordinates: Tensor, stride: int) -> Tensor:
    """The cells that coordinates in pixels fall on, halves away from zero as C rounds."""
    cells = coordinates / stride
    return (cells.sign() * _round_half_up(cells.abs())).long()


def _round_half_up(x: Tensor) -> Tensor:
    whole = x.floor()
    return whole + (x - whole >= 0.5)


class RegionPool:
    """Pools regions of one map; the maxima of 1, 2, 4, ... neighbouring cells are made once for all of them.

    Any stretch is covered by two, overlapping ones whose length is a power of 2, any bin by four.

    Args:
        feature_map: (1, C, h, w) float32.
        size: bins a side of a region.
        stride: pixels a cell.
    """

    def __init__(self, feature_map: Tensor, size: int, stride: int) -> None:
        self.size, self.stride = size, stride
        self.height, self.width = feature_map.shape[2:]
        # Cells' channels lie together: what a bin reads are whole rows of `maxima`.
        cells = feature_map[0].permute(1, 2, 0)
        rows = _doublings(cells, 0, self.levels(self.height))
        self.maxima = torch.stack([torch.stack(_doublings(row, 1, self.levels(self.width))) for row in rows])
        self.maxima = self.maxima.flatten(0, 3)

    def levels(self, cells: int) -> int:
        """How many powers of 2 the longest bin of a map with so many cells a side needs."""
        longest = -(-(cells + 1) // self.size) + 2
        return longest.bit_length()

    def __call__(self, boxes: Tensor) -> Tensor:
        """Regions (n, 4), x1 y1 x2 y2 in pixels -> (n, C, size, size), 0 in empty bins."""
        cells = to_cells(boxes, self.stride)
        top, bottom = bins(cells[:, 1], cells[:, 3], self.size, self.height)
        left, right = bins(cells[:, 0], cells[:, 2], self.size, self.width)
        level_y, first_y, second_y = _cover(top, bottom)
        level_x, first_x, second_x = _cover(left, right)
        levels_x = self.levels(self.width)
        found: Tensor | None = None
        for y in (first_y, second_y):
            for x in (first_x, second_x):
                table = level_y[:, :, None] * levels_x + level_x[:, None, :]
                place = (table * self.height + y[:, :, None]) * self.width + x[:, None, :]
                part = self.maxima.index_select(0, place.flatten())
                found = part if found is None else torch.maximum(found, part)
        assert found is not None
        pooled = found.view(len(boxes), self.size, self.size, -1)
        empty = (top == bottom)[:, :, None] | (left == right)[:, None, :]
        return pooled.masked_fill(empty[..., None], 0).permute(0, 3, 1, 2)


def _doublings(cells: Tensor, side: int, levels: int) -> list[Tensor]:
    """Maxima of 1, 2, 4, ... neighbours along `side`, at the first of them; none are beyond the end."""
    found = [cells]
    for level in range(levels - 1):
        step, last = 1 << level, found[-1]
        kept = max(last.shape[side] - step, 0)
        later = last.narrow(side, last.shape[side] - kept, kept)
        both = torch.maximum(last.narrow(side, 0, kept), later)
        found.append(torch.cat([both, last.narrow(side, kept, last.shape[side] - kept)], side))
    return found


def _cover(begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The power of 2 and the two places at which stretches of that length cover begin to end; 0 where empty."""
    length = (end - begin).clamp(min=1)
    level = (length.float().log2()).floor().long()  # exact for numbers below 2 ** 20
    first = torch.where(end > begin, begin, 0)
    return level, first, first + length - (1 << level)
