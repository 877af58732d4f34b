"""What a run leaves behind besides weights: prediction files, speed, W&B tables, the report page."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from lightning import Callback, Trainer
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from lxmert.batch import Batch
from lxmert.evaluate import ScoringError, score_gqa, score_nlvr2
from lxmert.evaluate.files import read_json, read_questions, read_statements
from lxmert.evaluate.submissions import Task, check_submission, read_submission, submission_text
from lxmert.files import replacing, write_text
from lxmert.objectives.base import Result
from lxmert.objectives.metrics import log_safe
from lxmert.report.curves import draw_losses
from lxmert.report.page import Example, View, draw_curves, write_report

log = logging.getLogger(__name__)


class PredictionFiles(Callback):
    """Writes, after test and predict, the official submission and a file with scores; adds the makers' metrics.

    `<split>.json` (NLVR2: `.csv`) is what the evaluation server takes, by ascending identifier;
    `<split>_scores.npz` holds `question_id` (n,), `answer` (n, top) indices into `answers` (A,) and
    their `probability` (n, top), best first: what `python -m lxmert.evaluate ensemble` averages. Where the
    makers' own files of the split are in the data folder, a test also logs their metrics as
    `test/official/<metric>`; a warning says why where these files and the predictions do not go together.

    Args:
        folder: where the files go.
        top: answers kept per question in the score file.
    """

    def __init__(self, folder: str, top: int = 32) -> None:
        self.folder = Path(folder)
        self.top = top
        self.parts: list[tuple[list[Any], np.ndarray, np.ndarray]] = []

    def _collect(self, learner: Any, results: dict[str, Result], batch: Batch) -> None:
        name = answering(results)
        scores = results[name].predictions["answer_scores"]
        best = scores.topk(min(self.top, scores.shape[1])).indices
        probability = learner.objectives[name].probabilities(scores).gather(1, best)
        self.parts.append((batch.example_ids, best.int().cpu().numpy(), probability.cpu().numpy()))

    def _write(self, trainer: Any, learner: Any, splits: list[str]) -> Path | None:
        """Write both files on the first process; the submission."""
        gathered = gather(self.parts)
        self.parts = []
        if not trainer.is_global_zero:
            return None
        rows = [part for parts in gathered for part in parts]
        ids = [example for part_ids, _, _ in rows for example in part_ids]
        answers = np.concatenate([part for _, part, _ in rows])
        probability = np.concatenate([part for _, _, part in rows])
        order = sorted(range(len(ids)), key=ids.__getitem__)
        texts = learner.model.config.answers
        task = trainer.datamodule.task
        self.folder.mkdir(parents=True, exist_ok=True)
        name = "+".join(splits)
        submission = self.folder / f"{name}.{'csv' if task == 'nlvr2' else 'json'}"
        write_text(submission, submission_text(task, {ids[i]: texts[answers[i, 0]] for i in order}))
        for problem in check_submission(task, read_submission(task, submission), ids):
            log.warning("%s: the server would refuse this file: %s", submission, problem)
        with replacing(self.folder / f"{name}_scores.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                question_id=np.array([ids[i] for i in order]),
                answer=answers[order],
                probability=probability[order],
                answers=np.array(texts),
            )
        return submission

    def on_test_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect."""
        self._collect(pl_module, outputs, batch)

    def on_predict_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect."""
        self._collect(pl_module, outputs, batch)

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write, and score by the makers' files."""
        splits = trainer.datamodule.splits["test"]
        submission = self._write(trainer, pl_module, splits)
        files = trainer.datamodule.scoring_files(splits[0]) if len(splits) == 1 else {}
        scores: dict[str, float] = {}
        if files and submission:
            try:
                scores = official_scores(trainer.datamodule.task, submission, files)
            except ScoringError as error:  # what else the run has measured is not to be lost
                given = "".join(f"\n  {what}: {path}" for what, path in files.items())
                log.warning("%s is not scored by the makers' rules: %s%s", submission, error, given)
        for name, value in trainer.strategy.broadcast(scores).items():
            pl_module.log(f"test/official/{name}", value, sync_dist=True)

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Write."""
        self._write(trainer, pl_module, trainer.datamodule.splits["predict"])


def answering(results: dict[str, Result]) -> str:
    """The objective whose predictions are answers."""
    return next(name for name, result in results.items() if "answer_scores" in result.predictions)


def official_scores(task: Task, submission: Path, files: dict[str, Path]) -> dict[str, float]:
    """The makers' metrics of a submission by name, in 0..1 (GQA's distribution is what it is).

    Those of a part are called `<metric>/<kind>/<part>`, such as accuracy/structural/query or
    consistency/subset/balanced.

    Args:
        task: "gqa" or "nlvr2".
        submission: the file.
        files: the makers' files by what they are, as `scoring_files` of the data module names them.

    Raises:
        ScoringError: the files are not of these predictions, or damaged.
    """
    predictions = read_submission(task, submission)
    if task == "gqa":
        report = score_gqa(
            predictions,
            read_questions(files["questions"]),
            choices=read_json(files["choices"]) if "choices" in files else None,
            all_questions=read_questions(files["all_questions"]) if "all_questions" in files else None,
        )
    else:
        subsets = {what: read_statements(files[what]) for what in ("balanced", "unbalanced") if what in files}
        report = score_nlvr2(predictions, read_statements(files["statements"]), **subsets)
    scores = {}
    for name, value in report.metrics.items():
        subset, _, metric = name.rpartition("/")
        name = f"{metric}/subset/{subset}" if subset else metric
        scores[name] = value if metric == "distribution" else value / 100
    for group, values in report.groups.items():
        scores |= {f"accuracy/{log_safe(group)}/{log_safe(v)}": each.score / 100 for v, each in values.items()}
    return scores


def gather(value: Any) -> list[Any]:
    """The value of every process, in rank order; on processes other than the first, nothing of use."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.gather_object(value, values if torch.distributed.get_rank() == 0 else None)
    return values


class Throughput(Callback):
    """Logs `train/rows_per_s` over all processes and `train/data_wait`, the share of time without a batch."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self.began = self.ended = time.perf_counter()
        self.rows = 0
        self.waited = 0.0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start counting; validation between epochs does not count."""
        self._restart()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """The time since the last batch ended was spent waiting."""
        self.waited += time.perf_counter() - self.ended

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log every `log_every_n_steps` batches."""
        self.ended = time.perf_counter()
        self.rows += batch.num_rows * trainer.world_size
        if (batch_idx + 1) % trainer.log_every_n_steps == 0:
            elapsed = self.ended - self.began
            pl_module.log("train/rows_per_s", self.rows / elapsed, prog_bar=True)
            pl_module.log("train/data_wait", self.waited / elapsed)
            self._restart()


class Examples(Callback):
    """Picks examples spread over an evaluated split, with the attention that led to their answers.

    They fill the report page after a test and, with the W&B logger, a table after each validation.

    Args:
        page: the HTML page to write.
        count: examples to show.
    """

    def __init__(self, page: str, count: int = 24) -> None:
        self.page = Path(page)
        self.count = count
        self.examples: list[Example] = []

    def _collect(self, trainer: Any, learner: Any, outputs: Any, batch: Batch, role: str) -> None:
        if not trainer.is_global_zero or len(self.examples) >= self.count:
            return
        batches = trainer.num_val_batches if role == "valid" else trainer.num_test_batches
        number, num_batches = len(batch.example_ids), batches[0]
        wanted = min(-(-self.count // num_batches), self.count - len(self.examples), number)
        examples = torch.linspace(0, number - 1, wanted).long().tolist()
        attentions = learner.model.encode(
            batch, learner.outputs_needed, output_attentions=True
        ).cross_encoder_attentions
        looked_at = attentions[-1].float().mean(1)[:, 0].cpu()  # (R, N): what [CLS] sees in the last layer
        self.examples += [
            make_example(trainer.datamodule, role, learner, outputs, batch, example, looked_at)
            for example in examples
        ]

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the last pass."""
        self.examples = []

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the last pass."""
        self.examples = []

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect, if a table will be logged."""
        if wandb_logger(trainer) is not None:
            self._collect(trainer, pl_module, outputs, batch, "valid")

    def on_test_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect."""
        self._collect(trainer, pl_module, outputs, batch, "test")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the table."""
        logger = wandb_logger(trainer)
        if logger is not None and self.examples and not trainer.sanity_checking:
            log_table(logger, self.examples)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the page."""
        if self.examples:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            data = trainer.datamodule
            curves = draw_curves(self.page.parent / "logs" / "metrics.csv")
            write_report(self.page, metrics, report_title(data, "test"), curves, self.examples)


class LossCurves(Callback):
    """Draws every loss by epoch on the report page after each validation, and what a test measured in the end.

    Args:
        page: the HTML page to write.
        reference: "original" draws the published losses of the original code beside them.
    """

    def __init__(self, page: str, reference: str | None = None) -> None:
        self.page, self.reference = Path(page), reference

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse an unknown reference before the training and not after it."""
        draw_losses(Path(), self.reference)

    def _write(self, trainer: Any, role: str) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        for logger in trainer.loggers:
            logger.save()  # the curves are drawn from the table
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        curves = draw_losses(self.page.parent / "logs" / "metrics.csv", self.reference)
        write_report(self.page, metrics, report_title(trainer.datamodule, role), curves)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the page."""
        self._write(trainer, "valid")

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the page."""
        self._write(trainer, "test")


def report_title(datamodule: Any, role: str) -> str:
    """What was evaluated."""
    return f"{datamodule.title}: {', '.join(datamodule.splits[role])}"


def make_example(
    datamodule: Any,
    role: str,
    learner: Any,
    results: dict[str, Result],
    batch: Batch,
    number: int,
    attention: torch.Tensor,
) -> Example:
    """One example of a batch of `role` (valid, test), as the report shows it; `attention` is (R, N)."""
    name = answering(results)
    answers = learner.model.config.answers
    each = batch.num_rows // len(batch.example_ids)  # rows of an example: one for each of its images
    rows = range(number * each, (number + 1) * each)
    scores = results[name].predictions["answer_scores"][number : number + 1]
    best = learner.objectives[name].probabilities(scores)[0].topk(min(5, len(answers)))
    views = []
    for row in rows:
        image = int(batch.row_image[row])
        regions = batch.region_mask[image].cpu()
        views.append(
            View(
                datamodule.picture(batch.image_ids[image]),
                batch.region_boxes[image].cpu()[regions].tolist(),
                attention[row][regions].tolist(),
            )
        )
    return Example(
        question=datamodule.datasets[role].sentence(batch.example_ids[number]),
        views=views,
        predictions=[(answers[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)],
        answers=known_answers(batch, number, answers),
    )


def known_answers(batch: Batch, number: int, answers: list[str]) -> dict[str, float]:
    """The right answers of an example with their scores; none where they are unknown."""
    if "statement" in batch.targets:
        return {answers[int(batch.targets["statement"][number])]: 1.0}
    if "answer_scores" not in batch.targets:
        return {}
    scores = batch.targets["answer_scores"][number].cpu()
    return {answers[i]: float(scores[i]) for i in scores.nonzero().flatten().tolist()}


def wandb_logger(trainer: Trainer) -> WandbLogger | None:
    """The run's W&B logger, if it has one."""
    return next((logger for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)


def finish_wandb(failed: bool) -> None:
    """End this process's W&B run, if it has one: the next job of a sweep has its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=int(failed))


def log_table(logger: WandbLogger, examples: list[Example]) -> None:
    """Log `examples` as the table `val/examples`: picture with boxes, question, answers, prediction."""
    import wandb

    rows = []
    for example in examples:
        annotated = []
        for view in example.views:
            boxes = [
                {
                    "position": {"minX": x1, "minY": y1, "maxX": x2, "maxY": y2},
                    "class_id": 0,
                    "scores": {"attention": weight},
                }
                for (x1, y1, x2, y2), weight in zip(view.boxes, view.attention, strict=True)
            ]
            picture = Image.open(view.picture) if view.picture else Image.new("RGB", (320, 240), "lightgray")
            overlay = {"regions": {"box_data": boxes, "class_labels": {0: "region"}}}
            annotated.append(wandb.Image(picture, boxes=overlay))
        answers = ", ".join(f"{answer} ({score:.1f})" for answer, score in example.answers.items())
        prediction, probability = example.predictions[0]
        rows.append([*annotated, example.question, answers, prediction, probability])
    pictures = ["picture"] if len(examples[0].views) == 1 else ["left picture", "right picture"]
    logger.log_table(
        "val/examples", columns=[*pictures, "question", "answers", "prediction", "probability"], data=rows
    )
