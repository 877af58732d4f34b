"""What a run leaves behind besides weights: prediction files, speed, W&B tables, the report page."""

from __future__ import annotations

import json
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
from lxmert.files import replacing, write_text
from lxmert.objectives.base import Result
from lxmert.report import Example, write_report


class PredictionFiles(Callback):
    """Writes, after test and predict, the official submission and a file with scores.

    `<split>.json` is a list of {"question_id", "answer"} in the order of the split;
    `<split>_scores.npz` holds `question_id` (n,), `answer` (n, top) indices into `answers` (A,) and
    their `probability` (n, top), best first: what an ensemble needs.

    Args:
        folder: where the files go.
        top: answers kept per question in the score file.
    """

    def __init__(self, folder: str, top: int = 32) -> None:
        self.folder = Path(folder)
        self.top = top
        self.parts: list[tuple[list[Any], np.ndarray, np.ndarray]] = []

    def _collect(self, results: dict[str, Result], batch: Batch) -> None:
        scores = results["answering"].predictions["answer_scores"]
        best = scores.topk(min(self.top, scores.shape[1]))
        answers, logits = best.indices.int().cpu().numpy(), best.values.sigmoid().cpu().numpy()
        self.parts.append((batch.example_ids, answers, logits))

    def _write(self, trainer: Any, learner: Any, splits: list[str]) -> None:
        gathered = gather(self.parts)
        self.parts = []
        if not trainer.is_global_zero:
            return
        rows = [part for parts in gathered for part in parts]
        ids = [example for part_ids, _, _ in rows for example in part_ids]
        answers = np.concatenate([part for _, part, _ in rows])
        probability = np.concatenate([part for _, _, part in rows])
        order = sorted(range(len(ids)), key=ids.__getitem__)
        texts = learner.objectives["answering"].answers
        submission = [{"question_id": ids[i], "answer": texts[answers[i, 0]]} for i in order]
        self.folder.mkdir(parents=True, exist_ok=True)
        name = "+".join(splits)
        write_text(self.folder / f"{name}.json", json.dumps(submission) + "\n")
        with replacing(self.folder / f"{name}_scores.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                question_id=np.array([ids[i] for i in order]),
                answer=answers[order],
                probability=probability[order],
                answers=np.array(texts),
            )

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
        self._collect(outputs, batch)

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
        self._collect(outputs, batch)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Write."""
        self._write(trainer, pl_module, trainer.datamodule.splits["test"])

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Write."""
        self._write(trainer, pl_module, trainer.datamodule.splits["predict"])


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

    def _collect(self, trainer: Any, learner: Any, outputs: Any, batch: Batch, num_batches: int) -> None:
        if not trainer.is_global_zero or len(self.examples) >= self.count:
            return
        wanted = min(-(-self.count // num_batches), self.count - len(self.examples), batch.num_rows)
        rows = torch.linspace(0, batch.num_rows - 1, wanted).long().tolist()
        attentions = learner.model.encode(batch, learner.reads, output_attentions=True).cross_encoder_attentions
        looked_at = attentions[-1].float().mean(1)[:, 0].cpu()  # (R, N): what [CLS] sees in the last layer
        self.examples += [
            make_example(trainer.datamodule, learner, outputs["answering"], batch, row, looked_at[row])
            for row in rows
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
            self._collect(trainer, pl_module, outputs, batch, trainer.num_val_batches[0])

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
        self._collect(trainer, pl_module, outputs, batch, trainer.num_test_batches[0])

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
            write_report(self.page, metrics, self.examples, f"{data.title}: {', '.join(data.splits['test'])}")


def make_example(
    datamodule: Any, learner: Any, result: Result, batch: Batch, row: int, attention: torch.Tensor
) -> Example:
    """One row of a batch, as the report shows it."""
    answers = learner.objectives["answering"].answers
    image, sentence = int(batch.row_image[row]), int(batch.row_sentence[row])
    regions = batch.region_mask[image].cpu()
    best = result.predictions["answer_scores"][row].sigmoid().topk(min(5, len(answers)))
    targets = batch.targets["answer_scores"][row].cpu() if "answer_scores" in batch.targets else torch.zeros(0)
    return Example(
        question=datamodule.tokenizer.decode(batch.token_ids[sentence].tolist(), skip_special_tokens=True),
        picture=datamodule.picture(batch.image_ids[image]),
        boxes=batch.region_boxes[image].cpu()[regions].tolist(),
        attention=attention[regions].tolist(),
        predictions=[(answers[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)],
        answers={answers[i]: float(targets[i]) for i in targets.nonzero().flatten().tolist()},
    )


def wandb_logger(trainer: Trainer) -> WandbLogger | None:
    """The run's W&B logger, if it has one."""
    return next((logger for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)


def log_table(logger: WandbLogger, examples: list[Example]) -> None:
    """Log `examples` as the table `val/examples`: picture with boxes, question, answers, prediction."""
    import wandb

    rows = []
    for example in examples:
        boxes = [
            {
                "position": {"minX": x1, "minY": y1, "maxX": x2, "maxY": y2},
                "class_id": 0,
                "scores": {"attention": weight},
            }
            for (x1, y1, x2, y2), weight in zip(example.boxes, example.attention, strict=True)
        ]
        picture = Image.open(example.picture) if example.picture else Image.new("RGB", (320, 240), "lightgray")
        annotated = wandb.Image(picture, boxes={"regions": {"box_data": boxes, "class_labels": {0: "region"}}})
        answers = ", ".join(f"{answer} ({score:.1f})" for answer, score in example.answers.items())
        prediction, probability = example.predictions[0]
        rows.append([annotated, example.question, answers, prediction, probability])
    logger.log_table(
        "val/examples", columns=["picture", "question", "answers", "prediction", "probability"], data=rows
    )
