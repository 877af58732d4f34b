"""Moving an answer head from one answer list to another, by text."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lxmert.evaluate import canonical_answer
from lxmert.files import InputError


def match_answer_head(weights: dict[str, Tensor], theirs: Sequence[str] | None, ours: Sequence[str]) -> int:
    """Rearrange the answer head's last layer, in place, from the answer list `theirs` to `ours`, by text.

    The same text comes first, then the same spelling in the pre-training answer table. Rows without a
    match become zero, as in the original's `load_lxmert_qa`. With either list unknown or empty the layer
    is dropped: rows that merely stand in the same place would mean other answers.

    Returns:
        How many of `ours` were found.

    Raises:
        InputError: `theirs` has not one answer for each row.
    """
    layer = [name for name in weights if name.startswith("answer_head.logit_fc.3.")]
    if not theirs or not ours:
        for name in layer:
            del weights[name]
        return 0
    exact = {answer: place for place, answer in enumerate(theirs)}
    spelt = {canonical_answer(answer): place for place, answer in enumerate(theirs)}
    places = [exact.get(answer, spelt.get(canonical_answer(answer))) for answer in ours]
    found = {place: old for place, old in enumerate(places) if old is not None}
    for name in layer:
        old = weights[name]
        rows = old.shape[0] if old.ndim else 0
        if rows != len(theirs):
            raise InputError(f"{len(theirs)} answers for the {rows} rows of {name}: the list is another head's")
        weights[name] = old.new_zeros(len(ours), *old.shape[1:])
        weights[name][list(found)] = old[list(found.values())]
    return len(found) if layer else 0
