"""Image question answering in pre-training (paper section 3.1.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from lxmert.batch import Batch
from lxmert.config import LxmertConfig
from lxmert.files import InputError
from lxmert.heads import AnswerHead, index_loss
from lxmert.model import Lxmert
from lxmert.objectives.base import Objective, ObjectiveMetrics, Result, source_groups
from lxmert.objectives.metrics import GroupedMean
from lxmert.outputs import LxmertModelOutput


class QuestionAnswering(Objective):
    """Cross-entropy on one answer of each question, mean over the questions that count; 0 if there are none.

    Reads the targets `answer` (R,), -1 where there is none, and `matched` (R,) bool: the answer of a row whose
    sentence was exchanged is void (without the target every row matches). Metrics read `labelled` (R,) bool,
    `label_answers` (R, K) and `label_scores` (R, K). `prepare_batch` adds `question_answering/rows` (Q,), those
    that the head runs on, and `question_answering/answers` (Q,), -1 where void.

    Args:
        config: sizes.
        start: the fraction of all training steps from which the loss counts. In evaluation it always does, so
            that `val/loss` means the same in every epoch.
    """

    outputs_needed = frozenset({"pooled"})
    head_name = "answer_head"
    lists: ClassVar = {"question_answering/rows": 0, "question_answering/answers": -1}

    def __init__(self, config: LxmertConfig, start: float = 0.0) -> None:
        super().__init__()
        self.start, self.started = start, True
        self.head = AnswerHead(config)

    def advance(self, progress: float) -> None:
        """See whether the loss counts yet."""
        self.started = progress >= self.start

    def prepare_batch(self, batch: Batch, seed: int) -> Batch:
        """Hide nothing; note the rows to answer: in training those whose answer counts, else all labelled ones.

        Raises:
            InputError: the batch has no answers.
        """
        if "answer" not in batch.targets:
            raise InputError(
                "question_answering needs the target `answer`; this data module gives none. Use data=pretrain, or "
                "drop question_answering from objective=[...] (fine-tuning has objective=[answering])"
            )
        answers = batch.targets["answer"]
        if "matched" in batch.targets:
            answers = answers.where(batch.targets["matched"], -1)
        answered = answers >= 0 if self.training else batch.targets["labelled"]
        rows = answered.nonzero().squeeze(1)
        targets = {"question_answering/rows": rows, "question_answering/answers": answers[rows]}
        return replace(batch, targets={**batch.targets, **targets})

    def forward(self, output: LxmertModelOutput, batch: Batch, model: Lxmert) -> Result:
        """Loss, and the best guess for each of the Q rows."""
        rows = batch.targets["question_answering/rows"]
        scores = self.head(cast(Tensor, output.pooled_output).index_select(0, rows)).float()  # (Q, A)
        loss = index_loss(scores, batch.targets["question_answering/answers"])
        if self.training and not self.started:
            loss = loss * 0  # not left out: DDP waits for the head's gradient
        return Result({"question_answering": loss}, {"answers": scores.detach().argmax(1)})

    def make_metrics(self, label_names: Mapping[str, Sequence[str]]) -> ObjectiveMetrics:
        """Soft-score accuracy on matched rows and the original's way of counting, by source too."""
        return QuestionAnsweringMetrics(source_groups(label_names))


class QuestionAnsweringMetrics(ObjectiveMetrics):
    """The soft score of the guessed answer among those of the row's own question, also by group.

    `accuracy` is over matched rows with a known answer. `accuracy_as_original` compares with published logs: it
    is over all labelled rows, and so about half as high. A row whose sentence was exchanged is scored against
    its own question's answers all the same, and a row whose answers are all unknown counts as wrong.
    """

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.groups = list(groups)
        self.matched = GroupedMean("accuracy", groups)
        self.original = GroupedMean("accuracy_as_original", groups)

    def update(self, result: Result, batch: Batch) -> None:
        """Add a batch."""
        rows, guessed = batch.targets["question_answering/rows"], result.predictions["answers"]
        right = batch.targets["label_answers"][rows] == guessed[:, None]  # padding, -1, is never guessed
        scores = (right * batch.targets["label_scores"][rows]).sum(1)
        codes = {name: batch.targets[name][rows] for name in self.groups}
        self.matched.update(scores, batch.targets["question_answering/answers"] >= 0, codes)
        self.original.update(scores, torch.ones_like(rows, dtype=torch.bool), codes)
