"""Weights in a smaller type for one pass, cast together: what autocast does in a thousand operations.

Master weights stay float32, and so do their gradients; what is computed with, is a copy of a layer's weights in
`dtype`, made when the layer is run. The copies of one layer are made by one operation, and their gradients are
brought back by one, so that the gradients of a layer are there as soon as it has been walked back (DDP sends them
meanwhile). What reads the same input becomes one matrix: query, key and value are one product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn


@contextmanager
def weights_in(module: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """While it lasts, `module` has its weights in `dtype`; None: as they are.

    Args:
        module: prepared by `prepare`.
        dtype: bfloat16.
    """
    if dtype is None:
        yield
        return
    singles, joins = cast(Casts, module.casts)
    kept: list[Any] = [owner._parameters[name] for owner, name in singles]
    groups: list[list[Tensor]] = [[weight] for weight in kept]
    groups += [group for _, parts in joins for group in joined_weights(parts)]
    tensors = cast_together(dtype, groups)
    for (owner, name), tensor in zip(singles, tensors[: len(singles)], strict=True):
        owner._parameters[name] = tensor  # type: ignore[assignment]  # it is not to be learnt
    rest = tensors[len(singles) :]
    for owner, parts in joins:
        owner.joined = [(rest[2 * i], rest[2 * i + 1]) for i in range(len(parts))]
        rest = rest[2 * len(parts) :]
    try:
        yield
    finally:
        for (owner, name), weight in zip(singles, kept, strict=True):
            owner._parameters[name] = weight
        for owner, _ in joins:
            owner.joined = None


# The parameters of a module, each where it is kept; and the modules whose linear layers are joined, with these.
Casts = tuple[list[tuple[nn.Module, str]], list[tuple[Any, list[list[nn.Linear]]]]]


def prepare(module: nn.Module) -> None:
    """Note at `module` what `weights_in` casts; once, before the first pass.

    Modules with an attribute `joined` say by `joins()` which of their linear layers read the same input.
    """
    joins = [(part, part.joins()) for part in module.modules() if hasattr(part, "joined")]  # type: ignore[operator]
    within = {each for part, _ in joins for each in part.modules()}
    singles = [
        (part, name)
        for part in module.modules()
        if part not in within
        for name, weight in part._parameters.items()
        if weight is not None
    ]
    module.casts = (singles, joins)  # type: ignore[assignment]


def joined_weights(parts: Sequence[Sequence[nn.Linear]]) -> list[list[Tensor]]:
    """Weights, then biases, of each group of linear layers."""
    return [[getattr(each, name) for each in group] for group in parts for name in ("weight", "bias")]


def cast_together(dtype: torch.dtype, groups: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Each group's tensors in `dtype`, one below the other."""
    if torch.compiler.is_compiling():
        # It makes kernels of its own of these, and DDP's buckets of the weights that it sees.
        return tuple(torch.cat([each.to(dtype) for each in group]) for group in groups)
    return _Cast.apply(dtype, [len(group) for group in groups], *(each for group in groups for each in group))


class _Cast(torch.autograd.Function):
    """`cast_together` in one operation, and one for its gradients."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, counts: list[int], *weights: Tensor) -> tuple[Tensor, ...]:
        outputs, pieces, start = [], [], 0
        for count in counts:
            group = weights[start : start + count]
            rows = [len(each) for each in group]
            output = group[0].new_empty((sum(rows), *group[0].shape[1:]), dtype=dtype)
            pieces += output.split(rows)
            outputs.append(output)
            if not any(each.requires_grad for each in group):
                ctx.mark_non_differentiable(output)
            start += count
        torch._foreach_copy_(pieces, list(weights))
        ctx.set_materialize_grads(False)
        ctx.counts = counts
        ctx.likes = [(len(each), each.dtype) for each in weights]
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        found: list[Tensor | None] = []
        pieces: list[Tensor] = []
        results: list[Tensor] = []
        for count, gradient in zip(ctx.counts, gradients, strict=True):
            likes = ctx.likes[len(found) : len(found) + count]
            needed = ctx.needs_input_grad[2 + len(found) : 2 + len(found) + count]
            parts: Sequence[Tensor | None] = [None] * count
            if gradient is not None:
                parts = gradient.split([rows for rows, _ in likes])
            for part, (_, dtype), wanted in zip(parts, likes, needed, strict=True):
                result = torch.empty_like(part, dtype=dtype) if wanted and part is not None else None
                found.append(result)
                if part is not None and result is not None:
                    pieces.append(part)
                    results.append(result)
        if results:
            torch._foreach_copy_(results, pieces)
        return None, None, *found
