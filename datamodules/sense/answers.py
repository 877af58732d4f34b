"""Labels that are no answers, and answers that are the same one spelt in several ways."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from datamodules.batches import Part
from datamodules.formats.answer_lists import spelt_alike
from datamodules.statistics import known_labels
from lxmert.files import InputError, shorten

log = logging.getLogger(__name__)


def check_spelling(answers: Iterable[str]) -> None:
    """Warn of answers that are spelt in several ways."""
    groups = spelt_alike(answers)
    if groups:
        log.warning(
            "%d answers differ from another in capitals, blanks or marks at the end alone, such as %s: they are "
            "learnt and scored as different ones. Spell them alike in the labels, and in the answer list where "
            "there is one; of data of your own, data.columns.normalized_answer=NAME reads them alike.",
            *(sum(map(len, groups)), "; ".join(shorten(group) for group in groups[:3])),
        )


def check_answers(parts: Sequence[Part], answers: Sequence[str], role: str, where: str, needed: bool) -> None:
    """Warn where most labels of a data set are not among the answers.

    Args:
        parts: of the data set; those without labels do not count.
        answers: the answer list.
        role: what the data set is for: "train", "valid" or "test".
        where: the files with the labels and that of the answers, for messages.
        needed: nothing is learnt of an example without a known label.

    Raises:
        InputError: none is: every accuracy would be 0, and the best checkpoint any.
    """
    labels = known = 0
    strange: list[str] = []
    for part in parts:
        counts = known_labels(part.examples, np.arange(len(part.examples)), part.answers)
        labels, known = labels + counts[0], known + counts[1]
        table = part.examples.table("answers")
        strange += [table[code] for code in np.flatnonzero(part.answers[:-1] < 0)[:3].tolist()]
    if known >= labels / 2:
        return
    message = (
        f"{where}: {labels - known} of {labels} labels are not among the {len(answers)} answers: such as "
        f"{shorten(strange[:3])}, where the answers are such as {shorten(list(answers[:3]))}."
    )
    if known == 0 and needed:
        lost = "Nothing can be learnt" if role == "train" else "Every answer would be wrong"
        raise InputError(
            f"{message} {lost}. Use the answer list of these labels, spelt as they are, or other splits for "
            f"data.{role}."
        )
    log.warning("%s They count as wrong, and nothing is learnt of them.", message)


def report_unknown(part: Part, places: np.ndarray, answers: Sequence[str], file: Path, unknown: str) -> None:
    """Tell of the examples at `places` of `file`, none of whose labels is among the answers.

    Raises:
        InputError: `unknown`, what is to become of them, is not "drop".
    """
    if not len(places):
        return
    read, table = part.examples.read(places[:3]), part.examples.table("answers")
    strange = list(dict.fromkeys(table[code] for code in read.answers.tolist()))
    message = (
        f"{file}: the labels of {len(places)} of its {len(part.examples)} examples, such as {shorten(strange)} of "
        f"{shorten(read.ids[0])}, are none of the {len(answers)} classes {shorten(list(answers))}."
    )
    if unknown != "drop":
        raise InputError(
            f"{message} Mend these labels; name all classes, data.classes=[A,B,C] (without it they are those of "
            "the training splits or of the answer list); or leave such examples out: data.unknown_labels=drop."
        )
    log.warning("%s They are left out.", message)
