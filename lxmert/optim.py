"""Optimisers and the learning-rate schedule of the original training code."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter

# AdamW divides its moments by 1 - beta ** step. At this count both corrections are exactly 1 in
# float32, and counting goes on exactly (float32 holds integers up to 16.7 million).
STEPS_WITHOUT_BIAS_CORRECTION = 1e6
# A fused optimiser says that under mixed precision it removes the gradients' scale in its step. Lightning
# refuses to clip such gradients; asked not to, they are unscaled before they are clipped.
STEP_UNSCALES = False


class BertAdam(torch.optim.AdamW):
    """The original's optimiser: Adam without bias correction, decay on every parameter.

    It is PyTorch's fused AdamW started as if a million steps had passed: after 50 steps within 2e-7 of
    the original's rule, at several times the speed of a Python loop over the parameters. Gradient
    clipping is the trainer's. Source: `lxrt/optimization.py` of the original code.

    Args:
        params: parameters or groups.
        lr: peak learning rate.
        betas: decay rates of the two moments.
        eps: added to the root of the second moment.
        weight_decay: times the learning rate, subtracted from every parameter, biases and layer norms too.
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
        self._step_supports_amp_scaling = STEP_UNSCALES
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "step": torch.tensor(STEPS_WITHOUT_BIAS_CORRECTION, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }


def bert_adam(
    named_parameters: Iterable[tuple[str, Parameter]], lr: float, weight_decay: float = 0.01
) -> BertAdam:
    """The original's optimiser over all of `named_parameters`."""
    return BertAdam([parameter for _, parameter in named_parameters], lr=lr, weight_decay=weight_decay)


def adamw(
    named_parameters: Iterable[tuple[str, Parameter]], lr: float, weight_decay: float = 0.01
) -> torch.optim.AdamW:
    """AdamW as most use it today: bias correction, no decay on biases and layer norms."""
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for _, parameter in named_parameters:
        (decayed if parameter.ndim > 1 else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=True)
    optimizer._step_supports_amp_scaling = STEP_UNSCALES
    return optimizer


def linear_warmup_decay(step: int, total: int, warmup: float) -> float:
    """Factor on the learning rate at a step counted from 0: up to 1 over `warmup`, then down to 0.

    Args:
        step: optimiser steps done.
        total: optimiser steps of the whole run.
        warmup: fraction of `total` spent rising; 0.1 in fine-tuning, 0.05 in pre-training.
    """
    progress = step / total
    if progress < warmup:
        return progress / warmup
    return max((1.0 - progress) / (1.0 - warmup), 0.0)
