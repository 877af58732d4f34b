"""Batch: the one contract between data and model.

A batch holds distinct sentences, distinct images, and the rows that pair them. The model's two
single-modality encoders run once per distinct sentence and image; only the cross-modality layers
run per row.

Shapes, here and everywhere: R rows, S sentences, I images, L tokens, N regions, F region feature
size, D hidden size, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor


def is_recorded() -> bool:
    """Whether calls are compiled, exported, traced or captured as a CUDA graph now.

    Nothing may depend on the numbers in a tensor then.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


@dataclass
class Packing:
    """Where the real elements of a padded `(B, L, ...)` tensor lie, to compute on those alone.

    Build it with `Packing.of` in the collator: on a GPU finding the real elements synchronises.
    """

    mask: Tensor  # (B, L) bool, True where real
    # (T,) int64, flat places of the real elements, row by row, then of some padding where T is a fixed size
    # (lxmert/objectives/shapes.py); None: all places are computed.
    index: Tensor | None
    full: bool  # there is no padding
    flat: bool = True  # packed tensors are (T, ...); else they stay (B, L, ...), padding and all
    bias: Tensor | None = None  # (B, 1, 1, L), -inf on padding: what attention adds to its scores; see `biased`

    @classmethod
    def of(cls, mask: Tensor) -> Packing:
        """The packing of a (B, L) bool mask.

        Where a call is recorded instead of run, all places are computed, whatever the mask holds then: the record
        is for other masks too.
        """
        if is_recorded():
            return cls(mask, None, full=False, flat=False)
        full = bool(mask.all())
        return cls(mask, None if full else mask.flatten().nonzero().squeeze(1), full)

    @classmethod
    def padded(cls, mask: Tensor) -> Packing:
        """A packing that leaves tensors as they are: for whoever looks at layers from outside."""
        return cls(mask, None, full=not is_recorded() and bool(mask.all()), flat=False)

    def biased(self, dtype: torch.dtype) -> Packing:
        """The same with the mask as attention adds it, made once for all layers; without padding there is none."""
        if self.full or (self.bias is not None and self.bias.dtype == dtype):
            return self
        bias = torch.zeros_like(self.mask, dtype=dtype).masked_fill(~self.mask, -math.inf)
        return replace(self, bias=bias[:, None, None, :])

    def pack(self, padded: Tensor) -> Tensor:
        """`(B, L, ...)` to `(T, ...)`: the real elements alone."""
        if not self.flat:
            return padded
        flat = padded.flatten(0, 1)
        return flat if self.index is None else flat.index_select(0, self.index)

    def pad(self, packed: Tensor) -> Tensor:
        """`(T, ...)` to `(B, L, ...)`, zero where there is padding that `index` does not list."""
        if not self.flat:
            unseen = ~self.mask[(..., *[None] * (packed.ndim - 2))]
            return packed if self.full else packed.masked_fill(unseen, 0)
        if self.index is None:
            return packed.unflatten(0, self.mask.shape)
        flat = packed.new_zeros(self.mask.numel(), *packed.shape[1:])
        return flat.index_copy(0, self.index, packed).unflatten(0, self.mask.shape)

    def first(self, packed: Tensor) -> Tensor:
        """`(T, ...)` to `(B, ...)`: each sequence's first element."""
        if not self.flat:
            return packed[:, 0]
        lengths = self.mask.sum(1)
        return packed.index_select(0, lengths.cumsum(0) - lengths)


@dataclass
class Batch:
    """Sentences, images and the rows that pair them.

    Args:
        token_ids: (S, L) int64, starting with [CLS].
        token_mask: (S, L) bool, True on real tokens.
        region_features: (I, N, F) float16 or float32. In a batch that is on its way to the device that has them,
            (I, N, 1) int64: their rows there, 0 in the padding (datamodules/batches/features.py).
        region_boxes: (I, N, 4) float32, x1 y1 x2 y2 as fractions of the image's width and height.
        region_mask: (I, N) bool, True on real regions.
        row_sentence: (R,) int64; row r asks sentence `row_sentence[r]` ...
        row_image: (R,) int64; ... about image `row_image[r]`.
        token_types: (S, L) int64 segment of each token; None means all 0.
        targets: what objectives and metrics read; objectives read their own keys. (R, ...) each, or
            (I, ...) where it tells of images.
        example_ids: E identifiers of the examples as the data set writes them (int or str): one for each row, or
            for each n rows where an example has n images.
        example_places: E places of the examples in the data set. Ids may occur in several of its splits.
        image_ids: I image identifiers.
        sentence_keys: (S,) int64 ...
        image_keys: (I,) int64: what an objective's random choices about a sentence or an image depend on
            besides the seed (lxmert/hash_random.py); the epoch is part of it.
        token_packing, row_token_packing, region_packing, row_region_packing: derived from the masks
            when left out.
    """

    token_ids: Tensor
    token_mask: Tensor
    region_features: Tensor
    region_boxes: Tensor
    region_mask: Tensor
    row_sentence: Tensor
    row_image: Tensor
    token_types: Tensor | None = None
    targets: dict[str, Tensor] = field(default_factory=dict)
    example_ids: list[Any] = field(default_factory=list)
    image_ids: list[str] = field(default_factory=list)
    sentence_keys: Tensor | None = None
    image_keys: Tensor | None = None
    example_places: list[int] = field(default_factory=list)
    token_packing: Packing = None  # type: ignore[assignment]  # never None after __post_init__, nor below
    row_token_packing: Packing = None  # type: ignore[assignment]
    region_packing: Packing = None  # type: ignore[assignment]
    row_region_packing: Packing = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.token_packing = self.token_packing or Packing.of(self.token_mask)
        self.region_packing = self.region_packing or Packing.of(self.region_mask)
        self.row_token_packing = self.row_token_packing or Packing.of(self.token_mask[self.row_sentence])
        self.row_region_packing = self.row_region_packing or Packing.of(self.region_mask[self.row_image])

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.row_sentence)

    def pair(self, row_sentence: Tensor, row_image: Tensor) -> Batch:
        """The same sentences and images in other rows, without targets.

        Args:
            row_sentence: (R,) int64.
            row_image: (R,) int64.
        """
        return replace(
            self,
            row_sentence=row_sentence,
            row_image=row_image,
            targets={},
            example_ids=[],
            example_places=[],
            row_token_packing=Packing.of(self.token_mask[row_sentence]),
            row_region_packing=Packing.of(self.region_mask[row_image]),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch with every tensor on `device`."""
        return self._apply(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; torch calls this, as it cannot pin a dataclass itself."""
        return self._apply(lambda tensor: tensor.pin_memory())

    def _apply(self, function: Callable[[Tensor], Tensor]) -> Batch:
        def convert(value: Any) -> Any:
            if isinstance(value, Tensor):
                return function(value)
            if isinstance(value, Packing):
                return replace(value, mask=convert(value.mask), index=convert(value.index))
            if isinstance(value, dict):
                return {key: convert(item) for key, item in value.items()}
            return value

        return replace(self, **{f.name: convert(getattr(self, f.name)) for f in fields(self)})
