"""Classification of sentence-image pairs, of whose classes one is right (SNLI-VE, Hateful Memes, one's own)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lxmert.batch import Batch
from lxmert.config import LxmertConfig
from lxmert.files import InputError
from lxmert.heads import AnswerHead
from lxmert.model import Lxmert
from lxmert.objectives.base import Objective, ObjectiveMetrics, Result, check_smoothing
from lxmert.objectives.metrics import Auroc, GroupedMean, group_codes
from lxmert.outputs import LxmertModelOutput

MOST_TOLD = 20  # classes whose accuracy is told of each


class Classification(Objective):
    """Softmax cross-entropy over the classes, mean over the rows whose class is known; 0 if there are none.

    The paper has no such task: the head is that of its question answering, so that a model is used, shown and
    exported as one that answers. Reads the target `answer_scores` (R, C); a row's scores are its classes' shares,
    and one without any does not count.

    Args:
        config: sizes; `answers` are the C classes.
        groups: target codes by which metrics are also reported apart.
        label_smoothing: s; in training the share y of each class becomes (1 - s) y + s / C, torch's rule.

    Raises:
        InputError: there are no two classes, or `label_smoothing` is not in [0, 1).
    """

    outputs_needed = frozenset({"pooled"})
    head_name = "answer_head"

    def __init__(self, config: LxmertConfig, groups: Sequence[str] = (), label_smoothing: float = 0.0) -> None:
        super().__init__()
        if len(config.answers or ()) < 2:
            raise InputError(
                f"classification needs two classes or more, and the data has {config.answers}. Name them: "
                "data.classes=[no,yes]"
            )
        check_smoothing("classification", label_smoothing)
        self.classes: list[str] = list(config.answers or ())
        self.groups = groups
        self.label_smoothing = label_smoothing
        self.head = AnswerHead(config)

    def forward(self, output: LxmertModelOutput, batch: Batch, model: Lxmert) -> Result:
        """Loss, and scores (R, C)."""
        scores = self.head(output.pooled_output).float()  # the loss stays in float32 under bf16
        targets = batch.targets.get("answer_scores")
        losses = {} if targets is None else {"classification": self._loss(scores, targets)}
        return Result(losses, {"answer_scores": scores.detach()})

    def _loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        known = targets.sum(1) > 0
        shares = targets / targets.sum(1, keepdim=True).where(known[:, None], 1)
        if self.training and self.label_smoothing:
            shares = shares * (1 - self.label_smoothing) + self.label_smoothing / shares.shape[1]
        losses = -(shares * scores.log_softmax(1)).sum(1)
        return losses.where(known, 0).sum() / known.sum().clamp(min=1)

    def probabilities(self, scores: Tensor) -> Tensor:
        """(R, C) scores as the probabilities of the classes, which add up to 1."""
        return scores.softmax(1)

    def make_metrics(self, label_names: Mapping[str, Sequence[str]]) -> ObjectiveMetrics:
        """Accuracy, also by class and by group; of two classes the AUROC, with the last one as the positive."""
        groups = {name: label_names[name] for name in (*self.groups, "split") if label_names.get(name)}
        return ClassificationMetrics(self.classes, groups)


class ClassificationMetrics(ObjectiveMetrics):
    """`accuracy`, by `class` each one's recall, also by group; of two classes `auroc`, also by group.

    A guess is as right as the label's score of it says. Rows whose class is unknown do not count; the class of a
    row with several is that of the best score, of equal ones the first.
    """

    def __init__(self, classes: Sequence[str], groups: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.groups = list(groups)
        by_class = {"class": classes} if len(classes) <= MOST_TOLD else {}
        self.accuracy = GroupedMean("accuracy", {**groups, **by_class})
        self.auroc = Auroc(groups) if len(classes) == 2 else None

    def update(self, result: Result, batch: Batch) -> None:
        """Add a batch."""
        if "answer_scores" not in batch.targets:
            return
        scores, targets = result.predictions["answer_scores"], batch.targets["answer_scores"]
        best, known = targets.argmax(1), targets.sum(1) > 0
        codes = group_codes(batch, self.groups, best)
        right = targets.gather(1, scores.argmax(1, keepdim=True)).squeeze(1)
        self.accuracy.update(right, known, {**codes, "class": best})
        if self.auroc is not None:
            self.auroc.update(scores.softmax(1)[:, 1], torch.where(known, best, -1), codes)
