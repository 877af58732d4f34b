"""Data loaders of whole batches, and where training goes on after a resume."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from datamodules.batches.sampling import BatchSampler
from datamodules.stores import allow_open_files
from lxmert.files import InputError


def loader_options(sampler: BatchSampler, workers: int, seed: int) -> dict[str, Any]:
    """The arguments of a DataLoader beside its data set.

    Args:
        sampler: yields the rows of whole batches.
        workers: loader processes; 0 reads in this process.
        seed: of the loader's own generator.
    """
    if workers:
        allow_open_files(2 * workers)  # those of training wait while those of validation work
        # Its threads do not cross a fork; the loader's processes are the parallelism.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return {
        "sampler": sampler,
        "batch_size": None,  # the sampler yields whole batches, the data set reads them whole
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
        # A loader draws a seed for its workers at each pass. Not from the global generator: dropout
        # after a resume would differ from the uninterrupted run.
        "generator": torch.Generator().manual_seed(seed),
    }


class TrainLoader(DataLoader):
    """A loader whose checkpoint says what its order depends on.

    Where to go on is for the sampler (`resume_position`). Lightning saves and restores this state, and
    takes a loader that has one for resumable.
    """

    def state_dict(self) -> dict[str, Any]:
        """What decides the order of the batches."""
        return self._order().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare with the run that is resumed.

        Raises:
            InputError: the rest of the epoch would not be what the interrupted run had left.
        """
        now = self.state_dict()
        changed = [f"{key} was {state.get(key)}, is {now[key]}" for key in now if state.get(key) != now[key]]
        if changed:
            raise InputError(
                f"The checkpoint was saved in the middle of an epoch with another order of the data: "
                f"{'; '.join(changed)}. Resume with the same settings, or start a new run from its weights."
            )

    def _order(self) -> BatchSampler:
        assert isinstance(self.sampler, BatchSampler)
        return self.sampler


def resume_position(trainer: Trainer) -> tuple[int, int]:
    """(epoch, batches of it already trained) from where training goes on; (0, 0) in a new run.

    Read when Lightning asks for the training loader, which is after it has restored its counters from a
    checkpoint and before it repairs them. Of these, `processed` is the one to trust: a checkpoint saved
    at the end of a step is saved before `completed` is counted.

    Raises:
        InputError: a checkpoint saved at the end of an epoch, resumed with `max_steps`: Lightning 2.6
            counts that epoch twice, and all later ones would have another order.
    """
    epoch: Any = trainer.fit_loop.epoch_progress.current
    batch: Any = trainer.fit_loop.epoch_loop.batch_progress
    if trainer.max_steps != -1 and epoch.started == epoch.processed > epoch.completed:
        raise InputError(
            "This checkpoint was saved at the end of an epoch and cannot be continued exactly with "
            "trainer.max_steps. Set trainer.max_epochs instead, or resume from a checkpoint saved after a step."
        )
    if epoch.started == epoch.processed:  # saved, or stopped, between two epochs
        return epoch.processed, 0
    if batch.is_last_batch:  # saved after the last step of an epoch, which is over for the data
        return epoch.processed + 1, 0
    return epoch.processed, batch.current.processed
