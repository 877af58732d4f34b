"""The 3 x 3 convolutions of res5 with a third of the multiplications, for CPUs: half of the time is there.

Winograd's F(4, 3), as of Lavin & Gray (2016): four neighbouring outputs need six products instead of twelve, along
each side. A convolution of dilation d is d x d plain ones, each over every d-th cell; the cells of a region are
few, so that picking them, padding them and the transform are one small matrix. Sums are rounded in another order:
in float32 the result differs from the direct one by about 1e-5 of the largest output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_OUTPUTS, _INPUTS = 4, 6
_OF_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_OF_WEIGHT = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OF_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


class WinogradConv(nn.Module):
    """A 3 x 3 convolution, padded by its dilation, of maps of one size; for inference.

    Args:
        conv: what it computes.
        size: sides of the maps.
    """

    def __init__(self, conv: nn.Conv2d, size: int) -> None:
        super().__init__()
        of_weight = torch.tensor(_OF_WEIGHT, dtype=torch.float64)
        weight = torch.einsum("au,ocuv,bv->abco", of_weight, conv.weight.double(), of_weight)
        self.weight = weight.flatten(0, 1).float().contiguous()
        self.bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias
        self.into, self.out = _along_a_side(size, conv.dilation[0])

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, size, size) -> (n, outputs, size, size), both with their channels last in memory."""
        number, channels, size = x.shape[:3]
        tiles = len(self.into) // _INPUTS
        cells = x.permute(0, 2, 3, 1).reshape(number, size, -1)
        cells = (self.into @ cells).view(number, -1, size, channels)
        cells = (self.into @ cells).view(number, _INPUTS, tiles, _INPUTS, tiles, channels)
        products = cells.permute(1, 3, 0, 2, 4, 5).reshape(len(self.weight), -1, channels) @ self.weight
        products = products.view(_INPUTS, _INPUTS, number, tiles, tiles, -1).permute(2, 0, 3, 1, 4, 5)
        rows = (self.out @ products.reshape(number, _INPUTS * tiles, -1)).view(number, size, _INPUTS * tiles, -1)
        return (self.out @ rows).add_(self.bias).permute(0, 3, 1, 2)


def _along_a_side(size: int, dilation: int) -> tuple[Tensor, Tensor]:
    """What transforms one side of a map: (6 tiles, size) into products, and (size, 6 tiles) out of them.

    A tile is four cells of the same remainder by the dilation.
    """
    into, out = [], []
    for remainder in range(min(dilation, size)):
        for first in range(remainder, size, _OUTPUTS * dilation):
            places = [first + (place - 1) * dilation for place in range(_INPUTS)]
            begin, end = torch.zeros(_INPUTS, size), torch.zeros(size, _INPUTS)
            for place, cell in enumerate(places):
                if 0 <= cell < size:
                    begin[:, cell] = torch.tensor(_OF_INPUT, dtype=torch.float32)[:, place]
            for place, cell in enumerate(places[1:-1]):
                if cell < size:
                    end[cell] = torch.tensor(_OF_OUTPUT, dtype=torch.float32)[place]
            into.append(begin)
            out.append(end)
    return torch.stack(into, 1).reshape(-1, size), torch.stack(out, 2).reshape(size, -1)
