"""How the pre-training answer table spells answers."""

from __future__ import annotations

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
