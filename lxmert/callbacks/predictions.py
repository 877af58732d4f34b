"""Prediction files after a test, and the makers' scores of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed
from lightning import Callback

from lxmert.batch import Batch
from lxmert.evaluate import TASKS, ScoringError, Task, check_submission
from lxmert.files import replacing, write_text
from lxmert.objectives.base import Result
from lxmert.objectives.metrics import log_safe

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
        task = TASKS[trainer.datamodule.task]
        self.folder.mkdir(parents=True, exist_ok=True)
        name = "+".join(splits)
        submission = self.folder / f"{name}{task.suffix}"
        write_text(submission, task.submission_text({ids[i]: texts[answers[i, 0]] for i in order}))
        for problem in check_submission(task, task.read_submission(submission), ids):
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
        """Collect each example's best answers."""
        name = answering(outputs)
        scores = outputs[name].predictions["answer_scores"]
        best = scores.topk(min(self.top, scores.shape[1])).indices
        probability = pl_module.objectives[name].probabilities(scores).gather(1, best)
        self.parts.append((batch.example_ids, best.int().cpu().numpy(), probability.cpu().numpy()))

    on_predict_batch_end = on_test_batch_end

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write, and score by the makers' files."""
        splits = trainer.datamodule.splits["test"]
        submission = self._write(trainer, pl_module, splits)
        files = trainer.datamodule.scoring_files(splits[0]) if len(splits) == 1 else {}
        scores: dict[str, float] = {}
        if files and submission:
            try:
                scores = official_scores(TASKS[trainer.datamodule.task], submission, files)
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


def official_scores(task: Task, submission: Path, files: Mapping[str, Path]) -> dict[str, float]:
    """The makers' metrics of a submission by name, in 0..1 (GQA's distribution is what it is).

    Those of a part are called `<metric>/<kind>/<part>`, such as accuracy/structural/query or
    consistency/subset/balanced.

    Args:
        task: whose.
        submission: the file.
        files: the makers' files by what they are, as `scoring_files` of the data module names them.

    Raises:
        ScoringError: the files are not of these predictions, or damaged.
    """
    further = {name: path for name, path in files.items() if name != task.truth[0]}
    report = task.score(submission, files[task.truth[0]], further, None)
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
