"""Weights averaged over the steps of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning import Callback
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lxmert.files import InputError

TRAINED = "trained_weights"  # of a checkpoint: what training goes on from


class AveragedWeights(Callback):
    """An exponential moving average (EMA) of the weights that learn: validated, saved, tested in their place.

    After optimiser step t the average becomes d * average + (1 - d) * weights, where d is the smaller of `decay`
    and (1 + t) / (10 + t): early steps are forgotten fast. A checkpoint's `state_dict` is the average, which is so
    what `init=`, `checkpoint=` and the export take; to go on with, it also keeps the weights themselves.

    (Not Lightning's EMAWeightAveraging: in 2.6.6 a test after the training loads the weights that are not
    averaged, and on a GPU it keeps the average on the CPU.)

    Args:
        decay: how much of the average is kept each step, in [0, 1): 0.999 remembers about a thousand steps.

    Raises:
        InputError: another `decay`; or, as training starts, weights that are sharded.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"callbacks.ema.decay={decay}; expected at least 0 and below 1, such as 0.999")
        self.decay = decay
        self.weights: dict[str, Tensor] = {}
        self.average: dict[str, Tensor] = {}
        self.trained: dict[str, Tensor] = {}
        self.step = 0
        self.exchanged = False  # the learner holds the average, `average` the weights

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse sharded weights before the training and not in it."""
        if stage == "fit" and isinstance(trainer.strategy, FSDPStrategy):
            raise InputError("callbacks=ema averages whole weights, trainer=fsdp shards them; use trainer=ddp")

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Note what a resumed training goes on from; a test takes the average, which the learner has loaded."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.trained = checkpoint.get(TRAINED, {})

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Start from the learner's weights, on its device; those become the ones that a resume noted."""
        self.weights = {name: each.detach() for name, each in pl_module.named_parameters() if each.requires_grad}
        self.average = {name: each.clone() for name, each in self.weights.items()}
        for name, trained in self.trained.items():
            pl_module.get_parameter(name).detach().copy_(trained)
        self.trained = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The optimiser steps that are done."""
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Average, after a batch that ended in an optimiser step."""
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        get_ema_multi_avg_fn(decay)(list(self.average.values()), list(self.weights.values()), None)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Validate the average."""
        self._exchange()

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Train the weights on; before checkpoints are written."""
        self._exchange()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Put the average in the place of the weights, also where a validation was interrupted."""
        weights = checkpoint["state_dict"]
        at_work = {name: weights[name] for name in self.average}
        trained, average = (self.average, at_work) if self.exchanged else (at_work, self.average)
        checkpoint[TRAINED] = trained
        checkpoint["state_dict"] = {**weights, **average}

    def _exchange(self) -> None:
        for name, average in self.average.items():
            kept = self.weights[name].clone()
            self.weights[name].copy_(average)
            average.copy_(kept)
        self.exchanged = not self.exchanged


def check_averaging(state: Mapping[str, Any], callbacks: Mapping[str, Any]) -> None:
    """Refuse to train averaged weights on as if they were the trained ones.

    Raises:
        InputError: the checkpoint `state` has both, and none of the configured callbacks tells them apart.
    """
    named = [node["_target_"].rpartition(".")[2] for node in callbacks.values() if node]
    if TRAINED in state and AveragedWeights.__name__ not in named:
        raise InputError(
            "the run that is resumed averages its weights: add callbacks=ema, or start a new run from the average "
            "with init="
        )
