"""The LightningModule: a model, its objectives, an optimiser."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import LambdaLR

from lxmert.batch import Batch
from lxmert.casting import prepare, weights_in
from lxmert.config import FIELDS, detector_difference
from lxmert.evaluate import TASKS
from lxmert.files import InputError
from lxmert.finite import FiniteWatch
from lxmert.model import Lxmert
from lxmert.objectives.base import Objective, Result
from lxmert.objectives.shapes import Shapes, compiled
from lxmert.optim import freeze as freeze_parameters
from lxmert.optim import linear_warmup_decay, scale_in_step
from lxmert.weights import reference_names

log = logging.getLogger(__name__)


class LxmertLearner(LightningModule):
    """Encodes a batch once and sums the losses of its objectives.

    Logged: `train/loss`, the sum, `train/loss/<loss>` and `train/grad_norm`, before clipping, by step; `val/loss`,
    `val/loss/<loss>` and `val/<objective>/<metric>` once per pass, the same under `test/`. A loss or a gradient
    that is not finite ends the run before the step that would take it over (`NotFiniteError`).

    Args:
        model: the three encoders.
        objectives: what the model learns, by name.
        optimizer: makes the optimiser from named parameters.
        warmup: fraction of all steps over which the learning rate rises.
        label_names: texts behind the integer codes in the batches' targets.
        seed: with the epoch, the batch and the process it seeds dropout.
        task: the benchmark that the data is of, by whose rules metrics measure (`lxmert.evaluate.TASKS`).
        freeze: patterns of parameters that stay as they are (`lxmert.optim.freeze`).
        settings: of the run, as plain values; a resumed run must have the same ones where they decide what it
            learns (lxmert/runs/resume.py).
        compile_step: compile the training step, forward and backward, for a handful of sizes; "cuda_graphs" also
            replays it as CUDA graphs. Evaluation is not compiled.
    """

    def __init__(
        self,
        model: Lxmert,
        objectives: Mapping[str, Objective],
        optimizer: Callable[..., torch.optim.Optimizer],
        *,
        warmup: float,
        label_names: Mapping[str, Sequence[str]],
        seed: int,
        task: str = "vqa",
        freeze: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        compile_step: bool | str = False,
    ) -> None:
        super().__init__()
        if not 0 <= warmup < 1:
            raise InputError(f"warmup={warmup}; expected the share of steps in which the rate rises, such as 0.1")
        self.compute_dtype: torch.dtype | None = None
        self.compile_step = compile_step
        self.shapes: Shapes | None = None  # of compiled steps
        self._losses_of: Callable[[Batch], dict[str, Tensor]] = self._compute_losses
        self.settings = dict(settings or {})
        self.watch = FiniteWatch()
        self._told = ""  # of the detector of a checkpoint
        self._since_step: list[Trained] = []  # batches whose gradients are added up
        self.model = model
        self.objectives = nn.ModuleDict(objectives)
        self.make_optimizer = optimizer
        self.warmup = warmup
        self.seed = seed
        self.total_steps = 1  # known once training starts
        self.outputs_needed = frozenset().union(*(objective.outputs_needed for objective in objectives.values()))
        # DDP waits for every parameter that may get a gradient; these never do.
        for parameter in model.unused_parameters(self.outputs_needed):
            parameter.requires_grad_(False)
        freeze_parameters(self, freeze)
        for objective in objectives.values():
            objective.task = TASKS[task]
        self.metrics = nn.ModuleDict(
            {
                stage: nn.ModuleDict({name: each.make_metrics(label_names) for name, each in objectives.items()})
                for stage in ("val", "test")
            }
        )

    def heads(self) -> dict[str, str]:
        """What each objective's head is called in the reference's names."""
        return {name: objective.head_name for name, objective in self.objectives.items()}  # type: ignore[misc]

    def reference_state(self) -> dict[str, Tensor]:
        """Its weights, not copied, under the reference's names.

        Raises:
            InputError: two of them would have the same name.
        """
        state = {name: each for name, each in self.state_dict().items() if not name.startswith("metrics.")}
        names = reference_names(state, self.heads())
        return {names[name]: tensor for name, tensor in state.items()}

    def forward(self, batch: Batch) -> dict[str, Result]:
        """Result of each objective."""
        dtype = self.compute_dtype
        plain = nullcontext() if dtype is None else torch.autocast(self.device.type, enabled=False)
        with plain, self.model.computing_in(dtype):
            for objective in self._objectives():
                batch = objective.hide(batch)
            output = self.model.encode(batch, self.outputs_needed)
            results = {}
            for name, objective in self.objectives.items():
                with weights_in(objective, dtype):
                    results[name] = objective(output, batch, self.model)
        return results

    def setup(self, stage: str) -> None:
        """Compute in bfloat16 with weights that are cast once a step, instead of by autocast.

        FSDP gathers its weights in bfloat16 already; float16 wants more care than this takes.
        """
        half = self.trainer.precision == "bf16-mixed" and not isinstance(self.trainer.strategy, FSDPStrategy)
        self.compute_in(torch.bfloat16 if half else None)

    def compute_in(self, dtype: torch.dtype | None) -> None:
        """Compute in `dtype`, None: float32, from now on; weights, gradients and losses stay in float32."""
        self.compute_dtype = dtype
        self.model.prepare_casts()
        for objective in self.objectives.values():
            prepare(objective)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """What the objectives make of a batch before the model sees it, in every stage."""
        shapes = self.shapes if self.training else None
        batch = self._prepared(batch, shapes)
        batch = shapes.fill(batch) if shapes else batch
        # What they added is in pageable memory, whose transfer would wait for the GPU to be idle.
        return batch.pin_memory() if self.device.type == "cuda" else batch

    def _prepared(self, batch: Batch, shapes: Shapes | None) -> Batch:
        batch = shapes.lengthen(batch) if shapes else batch
        for objective in self._objectives():
            batch = objective.prepare_batch(batch, self.seed)
        return batch

    def on_fit_start(self) -> None:
        """Compile the training step at its first call."""
        if self.compile_step:
            self.shapes = self._measure_shapes()
            self._losses_of = compiled(
                self._compute_losses,
                cuda_graphs=self.compile_step == "cuda_graphs",
                recomputed=self.model.config.gradient_checkpointing,
            )

    def _measure_shapes(self) -> Shapes:
        """The sizes of this training's batches, the same on every process."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None:
            raise InputError("a compiled step wants a data module, which tells the sizes of its batches")
        shapes = Shapes(data.max_length, data.most_regions, self._objectives())
        shapes.measure([self._prepared(batch, shapes) for batch in data.sample()])
        log.info(
            "the training step is compiled at its first batch, and for further sizes of batches: it takes minutes"
        )
        log.debug("sizes: %s", shapes.levels)
        return shapes

    def on_train_start(self) -> None:
        """Fix the schedule's length.

        Not when the optimiser is made: Lightning would load the training data to count its batches, before
        it knows at which of them a resumed run goes on.

        Raises:
            InputError: the training has no last step, at which the rate would be 0.
        """
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise InputError(
                "the learning rate falls to 0 at the last step, and this training has none: set "
                "trainer.max_epochs or trainer.max_steps; trainer.max_time may end it before"
            )
        self.total_steps = int(steps)
        log.info(
            "schedule: %d optimiser steps, %d of them warm-up",
            self.total_steps,
            round(self.total_steps * self.warmup),
        )
        if self.total_steps < self.trainer.log_every_n_steps:  # type: ignore[attr-defined]
            # A short run has a curve too.
            self.trainer.log_every_n_steps = max(1, self.total_steps // 10)  # type: ignore[attr-defined]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout by what is trained, not by what came before: a resumed run draws the same."""
        place = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(zlib.crc32(repr(place).encode()))
        for objective in self._objectives():
            objective.advance(self.global_step / self.total_steps)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of all losses, a scalar."""
        losses = self._losses_of(batch)
        self._since_step.append(Trained.of(batch, losses))
        return self._log_losses("train", losses, batch) * self._share_of_step(batch_idx)

    def _share_of_step(self, batch_idx: int) -> float:
        """1, but in the last step of an epoch that adds up fewer batches than the trainer divides by."""
        each, batches = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        if each == 1 or batches == float("inf") or batch_idx < batches - batches % each:
            return 1.0
        return each / (batches % each)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Result]:
        """Results, after adding them to the metrics."""
        return self._evaluation_step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Result]:
        """Results, after adding them to the metrics."""
        return self._evaluation_step("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Result]:
        """Results."""
        return self(batch)

    def _evaluation_step(self, stage: str, batch: Batch) -> dict[str, Result]:
        results = self(batch)
        for name, result in results.items():
            self._metrics(stage)[name].update(result, batch)
        losses = self._losses(results)
        if losses:
            total = self._log_losses(stage, losses, batch)
            place = f"{'validation' if stage == 'val' else stage} after step {self.global_step}"
            self.watch.add(torch.isfinite(total), lambda: describe(place, [Trained.of(batch, losses)]))
        return results

    def _compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        return self._losses(self(batch))

    def _losses(self, results: Mapping[str, Result]) -> dict[str, Tensor]:
        return {name: loss for result in results.values() for name, loss in result.losses.items()}

    def _log_losses(self, stage: str, losses: Mapping[str, Tensor], batch: Batch) -> Tensor:
        total = torch.stack(list(losses.values())).sum()
        # Lightning refuses a metric that is logged in two ways, and each costs milliseconds and a message to
        # every process: in training, the steps that the logger takes.
        if stage != "train" or self._logged_step:
            # Lightning divides the sum of all processes' weights by their number, as integers: what is left over
            # would be missing.
            weight = batch.num_rows * self.trainer.world_size
            self.log(f"{stage}/loss", total, prog_bar=stage == "train", batch_size=weight, sync_dist=True)
            for name, loss in losses.items():
                self.log(f"{stage}/loss/{name}", loss, batch_size=weight, sync_dist=True)
        return total

    @property
    def _logged_step(self) -> bool:
        """Whether the logger takes the values of the step that is being done."""
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    def on_validation_epoch_end(self) -> None:
        """Log the pass's metrics."""
        self.watch.check(wait=True)
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the pass's metrics."""
        self.watch.check(wait=True)
        self._log_metrics("test")

    def _objectives(self) -> Iterable[Any]:
        return self.objectives.values()

    def _metrics(self, stage: str) -> Any:
        return self.metrics[stage]

    def metric_names(self, stage: str) -> list[str]:
        """What a pass of `stage` (val, test) may log beside losses, by its logged names."""
        return [f"{stage}/{name}/{key}" for name, metrics in self._metrics(stage).items() for key in metrics.names]

    def _log_metrics(self, stage: str) -> None:
        for name, metrics in self._metrics(stage).items():
            for metric, value in metrics.compute().items():
                # Each process holds the value over all of them already.
                shown = metric == "accuracy"
                self.log(f"{stage}/{name}/{metric}", value.float(), prog_bar=shown, sync_dist=True)
            metrics.reset()

    def configure_optimizers(self) -> Any:
        """The optimiser over what learns, with linear warm-up and decay by step."""
        optimizer = self.make_optimizer(list(self.named_parameters()))
        schedule = LambdaLR(optimizer, lambda step: linear_warmup_decay(step, self.total_steps, self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm over all processes, and stop where it is not finite, before the step.

        Under FSDP only the sharded model knows the norm. A gradient scaler (16-mixed) skips steps whose gradients
        overflow, so there the losses alone decide.
        """
        if isinstance(self.trainer.strategy, FSDPStrategy):
            sharded: Any = self.trainer.strategy.model
            norm = sharded.clip_grad_norm_(gradient_clip_val or float("inf"))
        else:
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            norm = get_total_norm([each.grad for each in parameters if each.grad is not None])
            if gradient_clip_val and gradient_clip_algorithm != "norm":
                self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            elif not scale_in_step(optimizer, norm, gradient_clip_val) and gradient_clip_val:
                clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        if self._logged_step:
            self.log("train/grad_norm", norm)
        batches, self._since_step = self._since_step, []
        losses = torch.stack([loss for each in batches for loss in each.losses.values()])
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        watched = losses if scaled else torch.cat([losses, norm.reshape(1).to(losses)])
        place = f"step {self.global_step + 1}"
        self.watch.add(
            torch.isfinite(watched).all(), lambda: describe(place, batches, None if scaled else float(norm))
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the architecture and the answer list with the weights."""
        checkpoint["lxmert_config"] = self.model.config.to_dict()
        checkpoint["heads"] = self.heads()
        checkpoint["settings"] = self.settings

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another architecture, vocabulary or answer list; warn of another detector, once.

        Raises:
            InputError: what differs, and how to mend it.
        """
        listed = self.settings.get("model") or {}
        differences = config_differences(checkpoint.get("lxmert_config"), self.model.config.to_dict(), listed)
        differences += objective_differences(checkpoint.get("heads"), self.heads())
        if differences:
            raise InputError("the checkpoint does not fit this run:\n  " + "\n  ".join(differences))
        trained_on = checkpoint["lxmert_config"].get("detector")
        if (difference := detector_difference(trained_on, self.model.config.detector)) != self._told:
            log.warning("the checkpoint %s", difference)
            self._told = difference


@dataclass(frozen=True)
class Trained:
    """What is told of a batch whose losses are not finite."""

    examples: Sequence[Any]
    images: Sequence[str]
    losses: dict[str, Tensor]

    @classmethod
    def of(cls, batch: Batch, losses: Mapping[str, Tensor]) -> Trained:
        """Without the batch's tensors, which a GPU has no room to keep."""
        return cls(batch.example_ids, batch.image_ids, {name: loss.detach() for name, loss in losses.items()})


def describe(place: str, batches: Sequence[Trained], norm: float | None = None) -> str:
    """What was not finite, where, and of which examples.

    Under several processes each tells its own part of the batch.
    """
    parts = [] if norm is None else [f"gradient norm {norm:g}"]
    guilty = [each for each in batches if not all(map(torch.isfinite, each.losses.values()))] or batches
    for each in guilty:
        told = ", ".join(f"{name} {float(loss):g}" for name, loss in each.losses.items())
        ids, images = (", ".join(map(str, names)) for names in (each.examples, each.images))
        parts.append(f"losses: {told}\n  examples: {ids}\n  images: {images}")
    lines = "\n  ".join(parts)
    return (
        f"{place} is not finite:\n  {lines}\nLook at these examples, or lower optimizer.lr, raise warmup or "
        "lower trainer.gradient_clip_val; then go on from the last good checkpoint."
    )


# Fields that change neither the shape nor the meaning of the weights.
FREE_FIELDS = {
    "detector", "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "output_attentions",
    "output_hidden_states", "return_dict", "gradient_checkpointing", "visual_loss_normalizer", "mask_token_id",
}  # fmt: skip


def config_differences(
    saved: dict[str, Any] | None, current: dict[str, Any], listed: Collection[str] = ()
) -> list[str]:
    """Where two configs (as `LxmertConfig.to_dict` gives them) disagree, a line each.

    `listed` are the keys of the run's configuration; Hydra wants a + before others.
    """
    if saved is None:
        return ["it holds no lxmert_config: it was not written by this project's train.py (use init= for weights)"]
    saved = {"num_images": 2} | saved  # in checkpoints from before it was kept
    lines = []
    for key in sorted(FIELDS & (set(saved) | set(current))):
        there, here = saved.get(key), current.get(key)
        if key in FREE_FIELDS or there == here:
            continue
        if key == "answers":
            lines.append(answer_difference(there or [], here or []))
        elif key == "vocab_sha256":
            if there and here:  # checkpoints from before it was kept have none
                lines.append(vocabulary_difference(saved, current))
        elif key == "vocab_size" and saved.get("vocab_sha256"):
            continue  # told by the vocabulary
        elif key == "vocab_size":
            lines.append(vocabulary_difference(saved, current))
        elif key == "num_qa_labels":
            continue  # told by the answers
        elif key == "num_images":
            lines.append(
                f"{there} images a statement in the checkpoint, {here} in the data; use data of {there} of them"
            )
        else:
            option = f"model.{key}" if key in listed else f"+model.{key}"
            lines.append(f"{key}: {there} in the checkpoint, {here} in this run; set {option}={there}")
    return lines


def objective_differences(saved: Mapping[str, str] | None, current: Mapping[str, str]) -> list[str]:
    """A line where a checkpoint's objectives, whose heads it has, are not a run's; `saved` None: not known."""
    if saved is None or set(saved) == set(current):
        return []
    there, here = (", ".join(sorted(each)) for each in (saved, current))
    return [
        f"objectives: {there} in the checkpoint, {here} in this run; take its own experiment, or start a new fit "
        "from its weights with init="
    ]


def vocabulary_difference(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """How two configs' vocabularies differ, in one line."""
    there, here = (
        f"{each['vocab_size']} word pieces, SHA-256 {str(each.get('vocab_sha256'))[:12]}"
        for each in (saved, current)
    )
    return (
        f"vocabulary: {there} in the checkpoint, {here} in this run (pieces, their order, or how words are "
        "cased); its word embeddings would mean other words. Use that of the training: the folder of its run "
        "has it, data.tokenizer=outputs/<experiment>/<time>"
    )


def answer_difference(saved: Sequence[str], current: Sequence[str]) -> str:
    """How two answer lists differ, in one line."""
    gone = [answer for answer in saved if answer not in set(current)]
    new = [answer for answer in current if answer not in set(saved)]
    if not gone and not new:
        return f"answers: the same {len(saved)} answers in another order; use the list of the training run"
    return (
        f"answers: {len(saved)} in the checkpoint, {len(current)} in the data; only in the checkpoint "
        f"({len(gone)}): {gone[:5]}; only in the data ({len(new)}): {new[:5]}. Use the answer list "
        "(trainval_label2ans.json, or data.classes) of the training run, or start from the weights with init="
    )
