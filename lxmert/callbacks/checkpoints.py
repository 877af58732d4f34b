"""`best.ckpt` and `last.ckpt`: whole or absent, finite, and such that a resumed run is the uninterrupted one."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy

from lxmert.callbacks.interrupts import Interrupted, Interrupts
from lxmert.callbacks.stopping import EarlyStopping
from lxmert.files import InputError
from lxmert.finite import NotFiniteError
from lxmert.weights import upgrade

log = logging.getLogger(__name__)


class CheckpointFile(TorchCheckpointIO):
    """Writes a checkpoint beside its place, syncs it, and renames it: killed at any moment it leaves the old one.

    What a killed process leaves beside it is written over by the next.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`.

        Raises:
            InputError: the disk is full or cannot be written.
        """
        path = Path(path)
        temporary = partial_path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
            publish(temporary, path)
        except OSError as error:
            kept = "The one before it is whole. " if path.exists() else ""
            raise InputError(
                f"{path}: the checkpoint could not be written: {error.strerror or error}. {kept}Free some space, "
                f"or choose another disk with paths.outputs, then go on with resume={path.parents[1]}"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Read a checkpoint, one of before modules had the reference's names too."""
        return upgrade(super().load_checkpoint(path, *arguments, **options))


def partial_path(path: Path) -> Path:
    """Where `path` is written before it is whole."""
    return path.with_name(f".{path.name}.partial")


def publish(temporary: Path, path: Path) -> None:
    """Rename a complete file to its final name, its bytes and then its name safely on the disk."""
    with temporary.open("r+b") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def save(trainer: Any, path: Path) -> None:
    """Save the run's state to `path`, after what was logged; every process calls it.

    Raises:
        NotFiniteError: a weight is not finite; nothing is written.
    """
    learner = trainer.lightning_module
    learner.watch.check(wait=True)
    broken = [name for name, each in learner.named_parameters() if not torch.isfinite(each).all()]
    if not trainer.strategy.reduce_boolean_decision(not broken, all=True):
        raise NotFiniteError(
            f"step {trainer.global_step}: {len(broken)} of the weights hold NaN or infinity, the first being "
            f"{', '.join(broken[:3])}; {path} is not written"
        )
    for logger in trainer.loggers:
        logger.save()  # what a run that goes on from here does not log again
    if not isinstance(trainer.strategy, FSDPStrategy):
        trainer.save_checkpoint(path)
        return
    trainer.save_checkpoint(partial_path(path))  # it writes in its own way, to TMPDIR first
    if trainer.is_global_zero:
        publish(partial_path(path), path)
    trainer.strategy.barrier()


def validation_due(trainer: Any) -> bool:
    """Whether a validation follows the step that has just been done."""
    loop = trainer.fit_loop.epoch_loop
    limit = trainer.limit_val_batches
    return (
        bool(limit)
        and bool(trainer.datamodule.datasets.get("valid"))
        and loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
    )


def validate_between_steps(trainer: Any) -> None:
    """Let validations come where an optimiser step is done: no checkpoint has gradients that are added up.

    Raises:
        InputError: they come after some time, or after so many batches of ragged epochs.
    """
    each, epoch = trainer.accumulate_grad_batches, trainer.num_training_batches
    if each == 1 or trainer.val_check_batch == float("inf"):
        return
    by_time, across = trainer._val_check_time_interval is not None, trainer.check_val_every_n_epoch is None
    if by_time or (across and epoch % each):
        raise InputError(
            f"trainer.accumulate_grad_batches={each} adds up batches to a step, and trainer.val_check_interval "
            "validates in between: from there a resumed run would be another one. Validate after a share of an "
            "epoch, such as trainer.val_check_interval=0.5"
        )
    between = trainer.val_check_batch
    if between % each and (across or between < epoch):
        trainer.val_check_batch = between - between % each or min(each, epoch)
        log.info("validations come every %d batches, so that each follows a whole step", trainer.val_check_batch)


class BestCheckpoint(ModelCheckpoint):
    """The checkpoint with the best value of `monitor`, one of the metrics of a validation.

    A run that goes on from another's file begins with a copy of that run's best.

    Args:
        dirpath: folder of `best.ckpt`.
        monitor: a validation metric's logged name.
        mode: "max" or "min".
    """

    def __init__(self, dirpath: str, monitor: str, mode: str) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_on_train_epoch_end=False,  # after a validation: without one nothing is best
            enable_version_counter=False,
        )
        self.stage = ""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Note what is done."""
        self.stage = stage
        super().setup(trainer, pl_module, stage)

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        save(trainer, Path(filepath))
        self._last_global_step_saved = trainer.global_step
        self._last_checkpoint_saved = filepath

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best so far; an evaluation of a checkpoint has no use for it."""
        if self.stage != "fit":
            return
        before, folder = Path(state_dict["best_model_path"]), Path(str(self.dirpath))
        here = folder / "best.ckpt"
        if not state_dict["best_model_path"]:
            return
        if not before.is_file() and not here.is_file():
            log.warning("%s is gone, the best checkpoint so far: the best is looked for from here on", before)
            return
        if not here.is_file():  # what is there is its own, also where the run is a copy of another
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f".best.ckpt.{os.getpid()}"  # each process of a run makes the same copy
            shutil.copyfile(before, temporary)
            publish(temporary, here)
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": str(here),
                "kth_best_model_path": str(here),
                "best_k_models": {str(here): state_dict["best_model_score"]},
            }
        )


class LastCheckpoint(Checkpoint):
    """`last.ckpt`, from which a run goes on exactly: every so many steps, after each validation, at every end.

    A fit that is asked to stop (see `Interrupts`) stops here, after a step or within a validation, which the
    resumed run then does first.

    Args:
        dirpath: folder of `last.ckpt`.
        every_n_train_steps: what a killed run loses at most.
    """

    def __init__(self, dirpath: str, every_n_train_steps: int = 1000) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_train_steps = every_n_train_steps
        self.interrupts = Interrupts()
        self._saved: int | None = None  # the step of the file that is there
        self.metrics: dict[str, float] = {}  # of the fit that goes on, which may have ended already
        self._validation_due = False  # in the file that is being written or was read

    @property
    def saved(self) -> str:
        """What the last good checkpoint is, for messages."""
        return "none was saved yet" if self._saved is None else f"{self.path}, of step {self._saved}"

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """All processes speak of the first one's file."""
        self.path = Path(trainer.strategy.broadcast(str(self.path)))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take the signals from Lightning, whose handlers save or wait in the middle of a step.

        Raises:
            InputError: validations would come between the batches that are added up to a step.
        """
        validate_between_steps(trainer)
        if any(isinstance(each, EarlyStopping) and each.is_over for each in trainer.early_stopping_callbacks):
            trainer.should_stop = True  # as it was when the run that goes on ended
            trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step  # which loggers count by
        self.interrupts.deferred = True
        self.interrupts.install()
        if trainer.received_sigterm:
            self.interrupts.noted = signal.SIGTERM
        if self._validation_due:
            self._validate(trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save after some steps, and where a fit ends or is stopped within an epoch."""
        if trainer.fit_loop.epoch_loop._should_accumulate():
            return
        due = validation_due(trainer)
        step = trainer.global_step
        stops = self.interrupts.agreed(trainer.world_size)
        ends = step == trainer.max_steps or trainer.should_stop
        # Before a validation: Lightning would leave it out when it goes on from there.
        saves = not due and (ends or step % self.every_n_train_steps == 0)
        if stops or saves:
            # Lightning logs a step after this; what goes on from here does not log it again.
            trainer._logger_connector.update_train_step_metrics()
        if stops:
            self._stop(trainer, due)
        if saves:
            self._save(trainer)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop within a validation."""
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if fitting and self.interrupts.agreed(trainer.world_size):
            self._stop(trainer, True)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Save with what the validation has decided."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the end of the fit unless it is saved."""
        if self._saved != trainer.global_step and trainer.global_step:
            self._save(trainer)
        self._release()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Name what is left of the run."""
        asked = isinstance(exception, Interrupted | SystemExit)  # the latter on the other processes
        if trainer.state.fn == "fit" and trainer.global_step and not asked:
            log.error("the fit ends at step %d; last good checkpoint: %s", trainer.global_step, self.saved)
        self._release()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Note what the loop's counters do not tell."""
        checkpoint["validation_due"] = self._validation_due
        checkpoint["processes"] = trainer.world_size
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        checkpoint["metrics"] = self.metrics | logged

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Say what has changed, and go on before a validation that was stopped."""
        if trainer.state.fn != "fit":
            return
        self._validation_due = checkpoint.get("validation_due", False)
        self.metrics = checkpoint.get("metrics", {})
        self._saved = checkpoint["global_step"] if self.path.exists() else None
        before = checkpoint.get("processes", trainer.world_size)
        if before != trainer.world_size:
            log.warning(
                "trained by %d process(es) up to here, goes on with %d: the same batches, other dropout",
                before,
                trainer.world_size,
            )
        if self._validation_due:
            forget_validation(checkpoint["loops"]["fit_loop"])

    def _release(self) -> None:
        self.interrupts.deferred = False

    def _save(self, trainer: Any, *, validation_due: bool = False) -> None:
        self._validation_due = validation_due
        try:
            save(trainer, self.path)
        finally:
            self._validation_due = False
        self._saved = trainer.global_step

    def _stop(self, trainer: Any, validation_due: bool) -> None:
        self._save(trainer, validation_due=validation_due)
        interrupts = self.interrupts
        assert interrupts.noted is not None
        if trainer.is_global_zero:
            go_on = f"go on with resume={self.path.parents[1]}"
            log.warning(
                "stopped by %s after step %d, which is saved as %s; %s",
                signal.Signals(interrupts.noted).name,
                self._saved,
                self.path,
                "SLURM starts the job again" if interrupts.requeue() else go_on,
            )
            raise Interrupted(interrupts.noted)
        raise SystemExit(0)  # the first process tells of the signal; a failure here would have it killed

    def _validate(self, trainer: Any) -> None:
        """Do the validation that was due when the run was stopped, as of the epoch that it belonged to."""
        loop = trainer.fit_loop.epoch_loop
        epochs = trainer.fit_loop.epoch_progress.current
        completed = epochs.completed
        if loop.batch_progress.is_last_batch:  # Lightning counts its epoch as completed by now
            epochs.completed = max(completed - 1, 0)
        self._validation_due = False
        trainer.validating = True
        loop.val_loop.run()
        trainer.training = True
        epochs.completed = completed


def forget_validation(fit_loop: dict[str, Any]) -> None:
    """Make the counters of a fit that was stopped within a validation those of the step before it."""
    batches = fit_loop["epoch_loop.batch_progress"]
    for kind in ("total", "current"):
        batches[kind]["completed"] = batches[kind]["processed"] - 1
    validated = fit_loop["epoch_loop.val_loop.batch_progress"]
    validated["is_last_batch"] = False
    for kind in ("total", "current"):
        validated[kind] = dict.fromkeys(validated[kind], 0)
