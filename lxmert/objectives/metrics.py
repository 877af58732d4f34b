"""Scores of the training loop, summed on the device and over processes.

Each metric averages one score per row, over all rows and within groups of them (answer types, question
types, ...); but `Auroc`, which compares rows. The scoring rules themselves are in `lxmert.evaluate`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lxmert.batch import Batch
from lxmert.evaluate import VQA_RULE, AnnotatorRule, area_under_roc
from lxmert.files import InputError


class _GroupedMean(Metric):
    """The mean of a score per row, over all rows and over the rows of each group value.

    Args:
        groups: name of a grouping -> its values; a row's code is the place of its value among them.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    name: str

    total: Tensor
    count: Tensor

    def __init__(self, groups: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = {group: list(values) for group, values in (groups or {}).items()}
        self.keys = log_names(self.name, self.groups)
        zeros = torch.zeros(len(self.keys), dtype=torch.float64)
        self.add_state("total", zeros, dist_reduce_fx="sum")
        self.add_state("count", zeros.clone(), dist_reduce_fx="sum")

    def compute(self) -> dict[str, Tensor]:
        """Means by log name, 0-dimensional float64, of the groups that occurred; empty before any row."""
        seen = self.count.tolist()
        means = self.total / self.count
        return {key: means[slot] for slot, key in enumerate(self.keys) if seen[slot] > 0}

    def _add(self, scores: Tensor, counted: Tensor, group_codes: Mapping[str, Tensor]) -> None:
        """Take in scores (R,) of the rows that are `counted` (R,) bool."""
        absent = [group for group in self.groups if group not in group_codes]
        if absent:
            raise InputError(
                f"group_codes lacks {', '.join(absent)}; the batch gives {', '.join(group_codes) or 'none'}"
            )
        count = counted.double()
        scores = torch.where(counted, scores.double(), 0)
        totals, counts = [scores.sum(0, keepdim=True)], [count.sum(0, keepdim=True)]
        for group, values in self.groups.items():
            codes = group_codes[group]
            # Unknown values fall into a last place that is cut off: selecting rows would wait for a GPU.
            slots = torch.where(codes < 0, len(values), codes)
            empty = count.new_zeros(len(values) + 1)
            totals.append(empty.index_add(0, slots, scores)[:-1])
            counts.append(empty.index_add(0, slots, count)[:-1])
        # Not in place: a module cast to bfloat16 casts these sums, and the addition casts them back.
        self.total = self.total + torch.cat(totals)
        self.count = self.count + torch.cat(counts)


class GroupedMean(_GroupedMean):
    """The mean of scores that the caller computes.

    Logs `<name>` and `<name>/<group>/<value>`.

    Args:
        name: what is averaged.
        groups: name of a grouping -> its values, for means within groups.

    Raises:
        InputError: two groups would share a log name.
    """

    def __init__(self, name: str, groups: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        self.name = name
        super().__init__(groups, **kwargs)

    def update(self, scores: Tensor, counted: Tensor, group_codes: Mapping[str, Tensor]) -> None:
        """Take in scores (M,) as far as they are `counted` (M,) bool; `group_codes` are (M,) int64, -1 unknown."""
        self._add(scores, counted, group_codes)


class Perplexity(GroupedMean):
    """The exponential of the mean cross-entropy of all words of a pass; `update` takes cross-entropies.

    Logs `perplexity` and `perplexity/<group>/<value>`.

    Args:
        groups: name of a grouping -> its values, for perplexities within groups.
    """

    higher_is_better = False

    def __init__(self, groups: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        super().__init__("perplexity", groups, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """Perplexities by log name, of the groups that occurred; empty before any word."""
        return {key: mean.exp() for key, mean in super().compute().items()}


class Auroc(Metric):
    """The area under the ROC curve of scores of two classes, equal to `lxmert.evaluate`'s `area_under_roc`.

    Logs `auroc` and `auroc/<group>/<value>`, each in 0..1, where both classes occurred. Each row is kept until the
    end of the pass, 4 bytes and 8 for its class and each grouping: the area is exact, and that of all processes'
    rows together.

    Args:
        groups: name of a grouping -> its values, for areas within groups.

    Raises:
        InputError: two groups would share a log name.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    scores: list[Tensor]
    codes: list[Tensor]

    def __init__(self, groups: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = {group: list(values) for group, values in (groups or {}).items()}
        self.keys = log_names("auroc", self.groups)
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("codes", [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Start anew, with no rows: processes gather what each has, and one that had none must have that."""
        super().reset()
        self.scores.append(torch.zeros(0, device=self.device))
        self.codes.append(torch.zeros(0, 1 + len(self.groups), dtype=torch.int64, device=self.device))

    def update(self, scores: Tensor, truth: Tensor, group_codes: Mapping[str, Tensor]) -> None:
        """Take in one batch.

        Args:
            scores: (R,) float, the higher the more likely the positive class.
            truth: (R,) int64, 1 where the class is the positive one, 0 the other, -1 unknown.
            group_codes: each grouping's (R,) int64 codes, -1 where unknown.
        """
        self.scores.append(scores.float())
        self.codes.append(torch.stack([truth, *(group_codes[group] for group in self.groups)], 1))

    def compute(self) -> dict[str, Tensor]:
        """Areas by log name, 0-dimensional float64, where both classes occurred."""
        scores, codes = dim_zero_cat(self.scores).cpu().numpy(), dim_zero_cat(self.codes).cpu().numpy()
        known = codes[:, 0] >= 0
        chosen = [known]
        for place, values in enumerate(self.groups.values(), 1):
            chosen += [known & (codes[:, place] == code) for code in range(len(values))]
        areas = (area_under_roc(scores[rows], codes[rows, 0] == 1) for rows in chosen)
        named = zip(self.keys, areas, strict=True)
        return {
            key: torch.tensor(area, dtype=torch.float64, device=self.device)
            for key, area in named
            if area is not None
        }


class SoftScoreAccuracy(_GroupedMean):
    """The soft score of the predicted answer, averaged: the original's validation metric.

    Logs `accuracy` and `accuracy/<group>/<value>`, each in 0..1.

    Args:
        groups: name of a grouping -> its values, for scores within groups.

    Raises:
        InputError: two groups would share a log name.
    """

    name = "accuracy"

    def update(self, predicted: Tensor, scores: Tensor, group_codes: Mapping[str, Tensor]) -> None:
        """Take in one batch.

        Args:
            predicted: (R,) int64 answer indices.
            scores: (R, A) soft scores of all answers.
            group_codes: each grouping's (R,) int64 codes, -1 where unknown.

        Raises:
            InputError: a grouping has no codes.
        """
        score = scores.gather(1, predicted[:, None]).squeeze(1)
        self._add(score, torch.ones_like(predicted, dtype=torch.bool), group_codes)


class OfficialVqaAccuracy(_GroupedMean):
    """The accuracy by annotators' answers and a rule of `lxmert.evaluate`, equal to its `accuracy`, averaged.

    Logs `official_accuracy` and `official_accuracy/<group>/<value>`, each in 0..1. Rows without any
    annotators' answer have no official accuracy and are not counted.

    Args:
        answers: the answer vocabulary that predictions index.
        annotator_answers: the distinct answers that annotators wrote, which the codes index.
        groups: name of a grouping -> its values, for scores within groups.
        rule: how the two are compared.

    Raises:
        InputError: two groups would share a log name.
    """

    name = "official_accuracy"

    def __init__(
        self,
        answers: Sequence[str],
        annotator_answers: Sequence[str],
        groups: Mapping[str, Sequence[str]] | None = None,
        rule: AnnotatorRule = VQA_RULE,
        **kwargs: Any,
    ) -> None:
        super().__init__(groups, **kwargs)
        self.answers = list(answers)
        self.annotator_answers = list(annotator_answers)
        self.rule = rule
        self._identities: tuple[Tensor, Tensor] | None = None

    def update(self, predicted: Tensor, annotator_codes: Tensor, group_codes: Mapping[str, Tensor]) -> None:
        """Take in one batch.

        Args:
            predicted: (R,) int64 answer indices.
            annotator_codes: (R, 10) int64 codes of the annotators' answers, -1 where missing.
            group_codes: each grouping's (R,) int64 codes, -1 where unknown.

        Raises:
            InputError: a grouping has no codes.
        """
        answered = annotator_codes >= 0
        number = answered.sum(1)
        # Missing codes look up the predicted answer: any valid place will do, since `answered` hides it.
        places = torch.where(answered, annotator_codes + len(self.answers), predicted[:, None])
        agreed, disagreed = self._tables(predicted.device)

        written = agreed[places]
        lowest = written.masked_fill(~answered, len(agreed)).amin(1)
        highest = written.masked_fill(~answered, -1).amax(1)
        same = [(table[places] == table[predicted][:, None]) & answered for table in (agreed, disagreed)]
        matches = torch.where(lowest == highest, same[0].sum(1), same[1].sum(1)).double()

        # Leaving out one of the `matches` annotators who gave the answer leaves one match fewer.
        without_one = ((matches - 1).clamp(min=0) / 3).clamp(max=1)
        with_all = (matches / 3).clamp(max=1)
        accuracy = (matches * without_one + (number - matches) * with_all) / number.clamp(min=1)
        self._add(accuracy, number > 0, group_codes)

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Two (A + T,) int64: how each answer, then each annotators' answer, is spelt where these agree and not.

        Equal numbers mean equal texts. Computed at the first batch: the annotators' table of VQA v2 has
        hundreds of thousands of texts.
        """
        if self._identities is None:
            self._identities = (self._spelt(*self.rule.agreed), self._spelt(*self.rule.disagreed))
        agreed, disagreed = self._identities
        self._identities = (agreed.to(device), disagreed.to(device))
        return self._identities

    def _spelt(self, spell: Callable[[str], str], spell_theirs: Callable[[str], str]) -> Tensor:
        return _identities([*map(spell, self.answers), *map(spell_theirs, self.annotator_answers)])


def group_codes(batch: Batch, groups: Iterable[str], like: Tensor) -> dict[str, Tensor]:
    """A batch's codes of these groups, shaped as `like`; all unknown (-1) of a group that its data has not."""
    return {name: batch.targets.get(name, torch.full_like(like, -1)) for name in groups}


def _identities(texts: Sequence[str]) -> Tensor:
    """(len(texts),) int64, equal where the texts are equal."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(text, len(numbers)) for text in texts], dtype=torch.int64)


def log_names(metric: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """What a metric is logged as: of all rows, then of each value of each group in their order.

    Raises:
        InputError: two of them would be alike.
    """
    names = [metric]
    for group, values in groups.items():
        names += [f"{metric}/{log_safe(group)}/{log_safe(value)}" for value in values]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"two groups would be logged under one name: {', '.join(repeated)}; rename one of them")
    return names


def log_safe(name: str) -> str:
    """`yes/no` to `yes_no`: loggers take a slash for a folder."""
    return re.sub(r"[\s/]+", "_", name) or "empty"
