"""Image question answering as classification over an answer list (VQA, GQA)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lxmert.batch import Batch
from lxmert.config import LxmertConfig
from lxmert.evaluate import AnnotatorRule
from lxmert.files import InputError
from lxmert.heads import AnswerHead, answer_loss
from lxmert.model import Lxmert
from lxmert.objectives.base import Objective, ObjectiveMetrics, Result, check_smoothing
from lxmert.objectives.metrics import OfficialVqaAccuracy, SoftScoreAccuracy, group_codes
from lxmert.outputs import LxmertModelOutput


class Answering(Objective):
    """Binary cross-entropy on soft answer scores, times the number of answers (the original's VQA loss).

    Reads the targets `answer_scores` (R, A) and, for metrics, `annotator_answers` (R, 10) and the codes
    named by `groups`.

    Args:
        config: sizes and the answer list.
        groups: target codes by which accuracy is also reported apart.
        label_smoothing: s; in training the score y of each of the A answers becomes (1 - s) y + s / A, the rule
            of torch's cross-entropy. (Towards a half, as binary losses are sometimes smoothed, 3,129 wrong answers
            would outweigh the right one.)

    Raises:
        InputError: there is no answer list, or `label_smoothing` is not in [0, 1).
    """

    outputs_needed = frozenset({"pooled"})
    head_name = "answer_head"

    def __init__(self, config: LxmertConfig, groups: Sequence[str] = (), label_smoothing: float = 0.0) -> None:
        super().__init__()
        if config.answers is None:
            raise InputError("answering needs config.answers, the text of each label, to map answers by text")
        check_smoothing("answering", label_smoothing)
        self.answers = config.answers
        self.groups = groups
        self.label_smoothing = label_smoothing
        self.head = AnswerHead(config)

    def forward(self, output: LxmertModelOutput, batch: Batch, model: Lxmert) -> Result:
        """Losses and predictions of one batch."""
        scores = self.head(output.pooled_output).float()  # (R, A); the loss stays in float32 under bf16
        targets = batch.targets.get("answer_scores")
        if targets is not None and self.training and self.label_smoothing:
            targets = targets * (1 - self.label_smoothing) + self.label_smoothing / targets.shape[1]
        losses = {} if targets is None else {"answering": answer_loss(scores, targets)}
        return Result(losses, {"answer_scores": scores.detach()})

    def probabilities(self, scores: Tensor) -> Tensor:
        """(R, A) scores as the probability of each answer, independent of each other."""
        return scores.sigmoid()

    def make_metrics(self, label_names: Mapping[str, Sequence[str]]) -> ObjectiveMetrics:
        """Soft-score accuracy, and the official accuracy where annotators' answers are known; also by split."""
        groups = {name: label_names[name] for name in (*self.groups, "split") if label_names.get(name)}
        annotator_answers = label_names.get("annotator_answers", ())
        return AnsweringMetrics(self.answers, groups, annotator_answers, self.task.rule)


class AnsweringMetrics(ObjectiveMetrics):
    """`accuracy` as the original computes it, `official_accuracy` by the makers' rule; also by group."""

    def __init__(
        self,
        answers: Sequence[str],
        groups: Mapping[str, Sequence[str]],
        annotator_answers: Sequence[str],
        rule: AnnotatorRule,
    ) -> None:
        super().__init__()
        self.groups = list(groups)
        self.soft = SoftScoreAccuracy(groups)
        self.official = (
            OfficialVqaAccuracy(answers, annotator_answers, groups, rule) if annotator_answers else None
        )

    def update(self, result: Result, batch: Batch) -> None:
        """Add a batch."""
        if "answer_scores" not in batch.targets:
            return
        predicted = result.predictions["answer_scores"].argmax(1)
        codes = group_codes(batch, self.groups, predicted)
        self.soft.update(predicted, batch.targets["answer_scores"], codes)
        if self.official is not None and "annotator_answers" in batch.targets:
            self.official.update(predicted, batch.targets["annotator_answers"], codes)
