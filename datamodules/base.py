"""What all data modules share: data loaders, their order after a resume, and converting once."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from datamodules.batches.dataset import ExampleDataset
from datamodules.batches.sampling import BatchSampler
from datamodules.stores.hdf5 import allow_open_files, locked
from lxmert.files import InputError

log = logging.getLogger(__name__)


class ExampleDataModule(LightningDataModule):
    """Loaders over `datasets["train" | "valid" | "test" | "predict"]`, which a subclass fills in `setup`.

    Use it with `Trainer(use_distributed_sampler=False)`: its sampler shares batches out by itself.

    Args:
        batch_size: rows of a training batch, all processes together.
        eval_batch_size: rows of a batch of validation, test and prediction, all processes together.
        workers: loader processes; 0 reads in the training process.
        seed: decides the order of the training examples.
        rows_per_image: up to this many training examples of one image stay together.

    Attributes:
        title: what the data is, for tables and pages.
    """

    title: str

    def __init__(
        self, *, batch_size: int, eval_batch_size: int, workers: int, seed: int, rows_per_image: int
    ) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.workers, self.seed, self.rows_per_image = workers, seed, rows_per_image
        self.datasets: dict[str, ExampleDataset] = {}

    def baselines(self) -> dict[str, float]:
        """Validation accuracy (0..1) of guesses that learn nothing, by what they are; to judge a model by."""
        return {}

    def train_dataloader(self) -> DataLoader:
        """Shuffled anew each epoch, the last partial batch dropped; starts where a checkpoint left off."""
        epoch, first_batch = resume_position(self.trainer) if self.trainer else (0, 0)
        dataset = self.datasets["train"]
        sampler = BatchSampler(
            len(dataset),
            self.batch_size,
            seed=self.seed,
            shuffle=True,
            drop_last=True,
            image=dataset.images if self.rows_per_image > 1 else None,
            rows_per_image=self.rows_per_image,
            weights=dataset.weights,
            epoch=epoch,
            first_batch=first_batch,
            **self._process(),
        )
        return TrainLoader(dataset, **self._options(sampler))

    def val_dataloader(self) -> DataLoader | list:
        """Every example once, ordered by image."""
        return self._evaluation("valid")

    def test_dataloader(self) -> DataLoader | list:
        """Every example once, ordered by image."""
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader | list:
        """Every example once, ordered by image."""
        return self._evaluation("predict")

    def _evaluation(self, role: str) -> DataLoader | list:
        dataset = self.datasets.get(role)
        if dataset is None:
            return []
        sampler = BatchSampler(
            len(dataset),
            self.eval_batch_size,
            seed=self.seed,
            shuffle=False,
            drop_last=False,
            image=dataset.images,
            weights=dataset.weights,
            **self._process(),
        )
        return DataLoader(dataset, **self._options(sampler))

    def _process(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def _options(self, sampler: BatchSampler) -> dict[str, Any]:
        if self.workers:
            allow_open_files(2 * self.workers)  # those of training wait while those of validation work
            # Its threads do not cross a fork; the loader's processes are the parallelism.
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return {
            "sampler": sampler,
            "batch_size": None,  # the sampler yields whole batches, the data set reads them whole
            "num_workers": self.workers,
            "persistent_workers": self.workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # A loader draws a seed for its workers at each pass. Not from the global generator: dropout
            # after a resume would differ from the uninterrupted run.
            "generator": torch.Generator().manual_seed(self.seed),
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


def convert_once(store: Path, current: Callable[[], bool], convert: Callable[[], object]) -> None:
    """Make `store` with `convert` unless it is `current`.

    One process at a time; a process that had to wait finds the work done.

    Raises:
        PermissionError: the store's folder cannot be written.
    """
    if current():
        return
    check_writable(store.parent)
    with locked(store):
        if not current():
            log.info("Making %s, once.", store)
            convert()


def check_writable(folder: Path) -> None:
    """Make `folder`, and raise PermissionError unless files can be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(
            f"{folder}: stores cannot be written there ({error.strerror}). Set paths.stores to a folder that can "
            "be written, such as paths.stores=$HOME/lxmert_stores."
        ) from error
