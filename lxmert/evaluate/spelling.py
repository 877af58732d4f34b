"""How the pre-training answer table spells answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate("one two three four five six seven eight nine ten".split(), start=1)  # noqa: SIM905
}


def canonical_answer(answer: str) -> str:
    """An answer as the pre-training answer table spells it: the original's `AnswerTable.convert_ans`."""
    answer = answer.lower()
    if answer.endswith("."):
        answer = answer[:-1].strip()
    for article in ("a ", "an ", "the "):
        if answer.startswith(article):
            answer = answer[len(article) :].strip()
    return {"grey": "gray", **NUMBER_WORDS}.get(answer, answer)


def counting_spellings(answers: Iterable[str], spell: Callable[[str], str] = canonical_answer) -> dict[str, str]:
    """Of a label's answers, the answer table's spelling -> the one whose score counts for it.

    As in the original, which respells a label's answers one after the other: of several spellings of one answer
    the last counts, and the table's own only where there is no other. {"man": .3, "a man": 1} is {"man": 1}.

    Args:
        answers: in the order of the label.
        spell: an answer -> as the table spells it.
    """
    counting: dict[str, str] = {}
    for answer in answers:
        spelt = spell(answer)
        if answer != spelt or spelt not in counting:
            counting[spelt] = answer
    return counting
