"""Optimisers, the learning-rate schedule of the original training code, and which weights learn how fast."""

from __future__ import annotations

import difflib
import fnmatch
import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter

from lxmert.files import InputError

log = logging.getLogger(__name__)

# AdamW divides its moments by 1 - beta ** step. At this count both corrections are exactly 1 in
# float32, and counting goes on exactly (float32 holds integers up to 16.7 million).
STEPS_WITHOUT_BIAS_CORRECTION = 1e6
# A fused optimiser says that under mixed precision it removes the gradients' scale in its step. Lightning
# refuses to clip such gradients; asked not to, they are unscaled before they are clipped.
STEP_UNSCALES = False
# Biases and layer norms; a classifier's third module is one. By name: under FSDP parameters have no shape of their
# own.
UNDECAYED = re.compile(r"(\bbias|norm\.weight|logit_fc\.2\.weight)$", re.IGNORECASE)


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


def scale_in_step(optimizer: torch.optim.Optimizer, norm: torch.Tensor, most: float | None) -> bool:
    """Let a fused optimiser clip in its next step, which reads every gradient anyway.

    A step whose gradients are not finite then changes nothing, also where that is found out later.

    Args:
        optimizer: it is told by the attributes that are meant for gradient scalers.
        norm: of all gradients, a scalar.
        most: what it is to be at most; None: whatever it is.

    Returns:
        False where the optimiser is not fused: nothing was done.
    """
    if not optimizer.defaults.get("fused"):
        return False
    fused: Any = optimizer
    norm = norm.float()
    fused.grad_scale = ((norm + 1e-6) / most).clamp(min=1) if most else torch.ones_like(norm)
    fused.found_inf = (~norm.isfinite()).to(norm.dtype)
    return True


def bert_adam(
    named_parameters: Iterable[tuple[str, Parameter]],
    lr: float,
    weight_decay: float = 0.01,
    layer_decay: float = 1.0,
) -> BertAdam:
    """The original's optimiser.

    Args:
        named_parameters: all of a learner's; those that need no gradient are left out.
        lr: peak learning rate.
        weight_decay: times the learning rate, subtracted from every parameter.
        layer_decay: see `by_depth`.

    Raises:
        InputError: `layer_decay` is not in (0, 1].
    """
    by_rate = by_depth(named_parameters, lr, layer_decay)
    groups = [{"params": [parameter for _, parameter in named]} | rest for named, rest in by_rate]
    return BertAdam(groups, lr=lr, weight_decay=weight_decay)


def adamw(
    named_parameters: Iterable[tuple[str, Parameter]],
    lr: float,
    weight_decay: float = 0.01,
    layer_decay: float = 1.0,
) -> torch.optim.AdamW:
    """AdamW as most use it today: bias correction, no decay on biases and layer norms.

    Args:
        named_parameters: all of a learner's; those that need no gradient are left out.
        lr: peak learning rate.
        weight_decay: times the learning rate, subtracted from every matrix.
        layer_decay: see `by_depth`.

    Raises:
        InputError: `layer_decay` is not in (0, 1].
    """
    groups: list[dict[str, Any]] = []
    for named, rest in by_depth(named_parameters, lr, layer_decay):
        matrices = [parameter for name, parameter in named if not UNDECAYED.search(name)]
        others = [parameter for name, parameter in named if UNDECAYED.search(name)]
        groups.append({"params": matrices, "weight_decay": weight_decay} | rest)
        groups.append({"params": others, "weight_decay": 0.0} | rest)
        if layer_decay < 1:
            groups[-1]["name"] += "_undecayed"
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=True)
    optimizer._step_supports_amp_scaling = STEP_UNSCALES
    return optimizer


def linear_warmup_decay(step: int, total: int, warmup: float) -> float:
    """Factor on the learning rate at a step counted from 0: up to 1 over `warmup`, then down to 0.

    Args:
        step: optimiser steps done.
        total: optimiser steps of the whole run.
        warmup: fraction of `total` spent rising, from 0 to below 1; 0.1 in fine-tuning, 0.05 in pre-training.
    """
    progress = step / total
    if progress < warmup:
        return progress / warmup
    return max((1.0 - progress) / (1.0 - warmup), 0.0)


def by_depth(
    named_parameters: Iterable[tuple[str, Parameter]], lr: float, layer_decay: float
) -> list[tuple[list[tuple[str, Parameter]], dict[str, Any]]]:
    """Parameters that need a gradient, with their rate: `lr` times `layer_decay` to the power of the depth.

    The depth of a parameter is the number of layers from the heads down to it. Heads and pooler have depth 0, the
    topmost cross-modality layer 1, the lowest x. The language and the vision encoder both end below that: their
    topmost layers have depth x + 1, and the embeddings lie one below the lowest layer of their side. In the
    published model (9 language, 5 vision, 5 cross-modality layers) cross layer 0 has depth 5, language layer 0
    depth 14, the words' embeddings 15, vision layer 0 depth 10, the regions' embedding 11. The schedule multiplies
    all rates alike, so their ratio stays.

    Args:
        named_parameters: all of a learner's, also frozen ones: the layers are counted by name.
        lr: peak learning rate at depth 0.
        layer_decay: 0.9 is usual; 1: all parameters are one group with the optimiser's own rate.

    Returns:
        For each depth, from the heads down, the parameters and what else their group holds: its rate, and its name
        (`depth_0`, ...), by which the rate is logged. Without a decay a single group and nothing else.

    Raises:
        InputError: `layer_decay` is not in (0, 1].
    """
    if not 0 < layer_decay <= 1:
        raise InputError(f"optimizer.layer_decay={layer_decay}; expected above 0 and at most 1: 0.9")
    named = [(readable(name), parameter) for name, parameter in named_parameters]
    learnt = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    if layer_decay == 1:
        return [(learnt, {})]
    names = [name for name, _ in named]
    layers = {part: number_of_layers(part, names) for part in ("layer", "r_layers", "x_layers")}
    if not layers["x_layers"]:
        raise InputError("optimizer.layer_decay needs a learner's parameters, such as model.encoder.x_layers.0.*")
    groups: dict[int, list[tuple[str, Parameter]]] = {}
    for name, parameter in learnt:
        groups.setdefault(depth(name, layers), []).append((name, parameter))
    return [(groups[each], {"lr": lr * layer_decay**each, "name": f"depth_{each}"}) for each in sorted(groups)]


def readable(name: str) -> str:
    """A parameter's name without what FSDP adds."""
    return name.replace("_fsdp_wrapped_module.", "")


def number_of_layers(part: str, names: Iterable[str]) -> int:
    """How many layers `part` ("layer", "r_layers" or "x_layers") has, by the names of its parameters."""
    numbers = (re.match(rf"model\.encoder\.{part}\.(\d+)\.", name) for name in names)
    return max((int(number[1]) + 1 for number in numbers if number), default=0)


def depth(name: str, layers: dict[str, int]) -> int:
    """How many layers a learner's parameter `name` lies below the heads; `layers` is the number of each part."""
    found = re.match(r"model\.encoder\.(layer|r_layers|x_layers)\.(\d+)\.", name)
    if found:
        below = 0 if found[1] == "x_layers" else layers["x_layers"]
        return below + layers[found[1]] - int(found[2])
    if name.startswith("model.embeddings."):
        return layers["x_layers"] + layers["layer"] + 1
    if name.startswith("model.encoder.visn_fc."):
        return layers["x_layers"] + layers["r_layers"] + 1
    return 0


def freeze(learner: nn.Module, patterns: Sequence[str]) -> None:
    """Keep the parameters that `patterns` choose as they are: they get no gradient.

    A pattern is a parameter's name or its beginning up to a dot: `model.embeddings`, `model.encoder.layer.0`,
    `model.encoder.x_layers.4.lang_self_att.self.key.bias`; `*` stands for anything and `?` for one character:
    `model.*.bias`, `model.encoder.layer.[0-4]`. Dropout stays active in frozen layers, as everywhere else in
    training. Must be called before the learner is wrapped for several processes, which wait for every gradient.

    Args:
        learner: whose parameters.
        patterns: any number; a parameter is frozen if one of them fits.

    Raises:
        InputError: a pattern fits no parameter, or nothing is left to learn.
    """
    parameters = dict(learner.named_parameters())
    for pattern in patterns:
        chosen = [name for name in parameters if fits(name, pattern)]
        if not chosen:
            raise InputError(f"freeze: {pattern} fits no parameter; {close_to(pattern, list(parameters))}")
        for name in chosen:
            parameters[name].requires_grad_(False)
    learnt = sum(each.numel() for each in parameters.values() if each.requires_grad)
    if not learnt:
        raise InputError(f"freeze={list(patterns)} leaves nothing to learn; freeze less")
    if patterns:
        total = sum(each.numel() for each in parameters.values())
        log.info("freeze: %.2f of %.2f million weights are learnt", learnt / 1e6, total / 1e6)


def fits(name: str, pattern: str) -> bool:
    """Whether `pattern` is the parameter `name` or its beginning up to a dot."""
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")


def close_to(pattern: str, names: Sequence[str]) -> str:
    """What there is that `pattern` may have meant."""
    parts = {".".join(name.split(".")[:size]) for name in names for size in range(1, name.count(".") + 2)}
    close = difflib.get_close_matches(pattern, sorted(parts), n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"the parts are {', '.join(sorted({'.'.join(name.split('.')[:2]) for name in names}))}"
