"""Data loaders of whole batches, and where training goes on after a resume."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.batches.dataset import ExampleDataset
from datamodules.batches.sampling import BatchSampler
from datamodules.stores import allow_open_files
from lxmert.batch import Batch
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
        "collate_fn": packed if workers else None,
        # A loader draws a seed for its workers at each pass. Not from the global generator: dropout
        # after a resume would differ from the uninterrupted run.
        "generator": torch.Generator().manual_seed(seed),
    }


class ExampleLoader(DataLoader):
    """A loader of the batches of `ExampleDataset.by_row()`, with their features.

    Loader processes hand on what is small. The features of a batch are read by this process, in a thread, while
    the batches before are used: between processes they would be copied twice more, each time into fresh memory.
    """

    _ahead: Ahead | None = None

    def __iter__(self) -> Any:
        if self._ahead:
            self._ahead.close()  # a pass that ended early, whose next batch is on its way
        dataset: Any = self.dataset  # by_row
        self._ahead = Ahead(
            super().__iter__(), partial(finished, dataset=dataset, pinned=torch.cuda.is_available())
        )
        return self._ahead


def finished(batch: Batch | Tensor, dataset: ExampleDataset, *, pinned: bool) -> Batch:
    """A batch as it is used, of what a data set's `by_row` read in a loader process (`packed`) or in this one.

    Page-locked where there is a GPU: only from there a copy to it runs beside computation.
    """
    whole: Batch = pickle.loads(batch.numpy().tobytes()) if isinstance(batch, Tensor) else batch
    whole = dataset.fill(whole, pinned=pinned)
    return whole.pin_memory() if pinned else whole


def packed(batch: Batch) -> Tensor:
    """A batch as a loader process sends it, (bytes,) uint8; torch sends each tensor as a file of its own."""
    file = BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(batch)
    return torch.frombuffer(file.getbuffer(), dtype=torch.uint8)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, Tensor) else NotImplemented


class Ahead:
    """Goes through batches one ahead of who asks for them, in a thread that ends with it.

    Args:
        batches: what to go through, by nobody else.
        work: what is done to each in the thread, too.
    """

    def __init__(self, batches: Iterator[Any], work: Callable[[Any], Any]) -> None:
        self._asked: SimpleQueue[bool] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._ended: BaseException | None = None
        device = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        # A daemon: it may wait for loader processes that end before this one.
        arguments = (batches, work, self._asked, self._answers, device)
        self._thread = Thread(target=_read_ahead, args=arguments, name="features", daemon=True)
        self._thread.start()
        self._asked.put(True)

    def __iter__(self) -> Ahead:
        return self

    def __next__(self) -> Any:
        if self._ended is None:
            batch, self._ended = self._answers.get()
        if self._ended is not None:
            raise self._ended
        self._asked.put(True)
        return batch

    def close(self) -> None:
        """Wait until nothing is read any more."""
        self._asked.put(False)
        self._thread.join()

    def __del__(self) -> None:
        self._asked.put(False)


def _read_ahead(
    batches: Iterator[Any],
    work: Callable[[Any], Any],
    asked: SimpleQueue[bool],
    answers: SimpleQueue[tuple[Any, BaseException | None]],
    device: int | None,
) -> None:
    """Answer each question with the next batch, and the last one with an error, StopIteration at the end."""
    try:
        if device is not None:  # what page-locks memory in a thread would else take the first GPU for it
            torch.cuda.set_device(device)
        while asked.get():
            answers.put((work(next(batches)), None))
    except BaseException as error:
        answers.put((None, error))


class TrainLoader(ExampleLoader):
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
