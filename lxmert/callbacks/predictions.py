"""Prediction files after a test, and the makers' scores of them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch.distributed
from lightning import Callback

from lxmert.batch import Batch
from lxmert.callbacks.answer_table import SHOWN, write_answer_table
from lxmert.evaluate import TASKS, Scores, ScoringError, Task, check_submission, some, write_scores
from lxmert.files import InputError, write_text
from lxmert.objectives.base import Result
from lxmert.objectives.metrics import log_safe

log = logging.getLogger(__name__)


class SplitFiles(Callback, ABC):
    """Writes, after test and predict, what was predicted of each split; adds the makers' metrics.

    The files of a split have as many rows as were read of it, or the run fails.

    Where the makers' own files of a split are in the data folder, its test also logs their metrics as
    `test/official/<metric>`, of several splits each as `test/official/<metric>/split/<split>`; a warning says why
    where these files and the predictions do not go together.

    Args:
        folder: where the files go.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.parts: list[Any] = []

    @abstractmethod
    def rows_of(self, learner: Any, results: dict[str, Result], batch: Batch) -> Rows:
        """What is kept of the predictions of a batch."""

    @abstractmethod
    def write_split(self, split: str, task: Task, known: Iterable[Any], rows: Any, learner: Any) -> Path:
        """Write the files of a split.

        Args:
            split: its name.
            task: the benchmark that the data is of.
            known: what the data knows of each row, as `ExampleDataset.known` of the data modules.
            rows: `rows_of` all of its batches, in the order of `known`.
            learner: that predicted them.

        Returns:
            The submission.
        """

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget a pass that was broken off."""
        self.parts = []

    on_predict_start = on_test_start

    def on_test_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what is predicted of a batch."""
        self.parts.append(self.rows_of(pl_module, outputs, batch))

    on_predict_batch_end = on_test_batch_end

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write, and score by the makers' files."""
        whole = trainer.num_test_batches == [len(trainer.test_dataloaders)]
        for name, value in self._finish(trainer, pl_module, "test", whole).items():
            pl_module.log(f"test/official/{name}", value, sync_dist=True)

    def on_predict_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write."""
        self._finish(
            trainer, pl_module, "predict", trainer.num_predict_batches == [len(trainer.predict_dataloaders)]
        )

    def _finish(self, trainer: Any, learner: Any, role: str, whole: bool) -> dict[str, float]:
        """Write the files on the first process; on all the makers' metrics, or the error that ends the run.

        Args:
            trainer: of the run.
            learner: its learner.
            role: test or predict.
            whole: whether all batches were to be done, and not those alone that `limit_test_batches` allows.
        """
        gathered = gather(self.parts)
        self.parts = []
        scores: dict[str, float] = {}
        problem = ""
        if trainer.is_global_zero:
            try:
                submissions = self._write(trainer.datamodule, learner, role, gathered, whole)
                several = len(trainer.datamodule.splits[role]) > 1
                for split, submission in submissions.items() if role == "test" else ():
                    found = makers_scores(trainer.datamodule, split, submission)
                    scores |= {of_split(name, split): v for name, v in found.items()} if several else found
            except InputError as error:
                problem = str(error)
        problem, scores = trainer.strategy.broadcast((problem, scores))
        if problem:
            raise InputError(problem)
        return scores

    def _write(
        self, data: Any, learner: Any, role: str, gathered: list[list[Rows]], whole: bool
    ) -> dict[str, Path]:
        """Write the files of each split, once it is known that all are complete; split -> its submission."""
        rows = Rows.of([part for parts in gathered for part in parts])
        gathered.clear()
        splits, dataset = data.splits[role], data.datasets[role]
        bounds = np.searchsorted(rows.places, dataset.starts)
        shares = [rows.take(slice(*pair)) for pair in pairwise(bounds)]
        for number, (split, share) in enumerate(zip(splits, shares, strict=True)):
            check_complete(split, share.places, dataset.used(number) if whole else share.places)
        self.folder.mkdir(parents=True, exist_ok=True)
        return {
            split: self.write_split(split, TASKS[data.task], dataset.known(number, share.places), share, learner)
            for number, (split, share) in enumerate(zip(splits, shares, strict=True))
            if len(share.places)  # limit_test_batches may end before a split begins
        }


class PredictionFiles(SplitFiles):
    """The files of answers, three for each split.

    `<split>.json` (NLVR2, Hateful Memes: `.csv`) is what the evaluation server takes, by ascending identifier;
    `<split>_scores.npz` holds `question_id` (n,), `answer` (n, top) indices into `answers` (A,) and
    their `probability` (n, top), best first: what `python -m lxmert.evaluate ensemble` averages;
    `<split>_answers.csv` is to be read: the questions in the order of their file, with the truth and the best
    answers.

    Args:
        folder: where the files go.
        top: answers kept per question in the score file.
    """

    def __init__(self, folder: str, top: int = 32) -> None:
        super().__init__(folder)
        self.top = top

    def rows_of(self, learner: Any, results: dict[str, Result], batch: Batch) -> AnswerRows:
        """Each example's best answers."""
        name = answering(results)
        scores = results[name].predictions["answer_scores"]
        best = scores.topk(min(max(self.top, SHOWN), scores.shape[1])).indices
        probability = learner.objectives[name].probabilities(scores).gather(1, best)
        places = np.array(batch.example_places, np.int64)
        return AnswerRows(places, best.int().cpu().numpy(), probability.cpu().numpy())

    def write_split(self, split: str, task: Task, known: Iterable[Any], rows: AnswerRows, learner: Any) -> Path:
        """Write the three files of a split; the submission."""
        texts = learner.model.config.answers
        table = self.folder / f"{split}_answers.csv"
        names = write_answer_table(table, known, rows.answer, rows.probability, texts)
        ids = [task.id_of(*each) for each in names]
        check_distinct(split, ids, table)
        order = sorted(range(len(ids)), key=ids.__getitem__)
        kept = rows.answer[order, : self.top], rows.probability[order, : self.top]
        scores = Scores(np.array([ids[i] for i in order]), *kept, np.array(texts))
        probabilities = scores.probabilities() if task.probability_key else None
        submission = self.folder / f"{split}{task.suffix}"
        write_text(submission, task.submission_text(scores.best(), probabilities))
        for problem in check_submission(task, task.read_submission(submission), ids):
            log.warning("%s: not valid for %s: %s", submission, task.name, problem)
        named = scores if scores.described_by() is task else replace(scores, task=task.name)
        write_scores(self.folder / f"{split}_scores.npz", named)
        return submission


@dataclass
class Rows:
    """Predictions of n rows: their places in the data set; in subclasses, what was predicted, (n, ...) each."""

    places: np.ndarray

    @classmethod
    def of(cls, parts: list[Self]) -> Self:
        """All of these, of one class, by ascending place."""
        kind = type(parts[0])
        joined = kind(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(kind)))
        return joined.take(np.argsort(joined.places, kind="stable"))

    def take(self, which: np.ndarray | slice) -> Self:
        """Some of them."""
        return type(self)(*(getattr(self, each.name)[which] for each in fields(self)))


@dataclass
class AnswerRows(Rows):
    """(n, top) indices of the best answers, and their probabilities."""

    answer: np.ndarray
    probability: np.ndarray


def check_complete(split: str, predicted: np.ndarray, read: np.ndarray) -> None:
    """Refuse predictions that are not one for each row.

    Args:
        split: for the message.
        predicted: places of the rows that were predicted, ascending.
        read: places of the rows of the split.

    Raises:
        InputError: rows are missing, or there twice.
    """
    twice = int((predicted[1:] == predicted[:-1]).sum())
    missing = len(np.setdiff1d(read, predicted))
    if twice or missing:
        raise InputError(
            f"{split}: {len(read):,} rows were read and {len(predicted):,} predicted: {missing:,} of them not at "
            f"all, {twice:,} twice. Nothing was written. Whatever shares out the rows among processes must give "
            "each to one: the data module's own sampler does, with trainer.use_distributed_sampler=false."
        )


def check_distinct(split: str, ids: Sequence[Any], table: Path | None = None) -> None:
    """InputError where several rows of a split have one id; `table` is a file that has all rows."""
    if repeated := [id_ for id_, count in Counter(ids).items() if count > 1]:
        elsewhere = f"; {table} has all rows" if table else ""
        raise InputError(
            f"{split}: {len(repeated)} ids are of several rows: {some(repeated, 5)}. A submission has one answer "
            f"an id, so none was written{elsewhere}. Give each of them an id of its own."
        )


def makers_scores(data: Any, split: str, submission: Path) -> dict[str, float]:
    """The makers' metrics of a split's submission; none, and a warning, where their files are of another one."""
    files = data.scoring_files(split)
    try:
        return official_scores(TASKS[data.task], submission, files) if files else {}
    except ScoringError as error:  # what else the run has measured is not to be lost
        given = "".join(f"\n  {what}: {path}" for what, path in files.items())
        log.warning("%s is not scored by the makers' rules: %s%s", submission, error, given)
        return {}


def of_split(name: str, split: str) -> str:
    """The name of a metric of one of several splits: accuracy/binary/yes is accuracy/split/SPLIT/binary/yes."""
    metric, *group = name.split("/")
    return "/".join([metric, "split", log_safe(split), *group])


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
