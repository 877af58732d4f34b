"""Answer lists: the files that tell which answers there are, in which order; what differs in spelling alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lxmert.files import InputError, read_json, shorten


def read_answer_list(path: Path) -> list[str]:
    """The answers of a JSON list of texts, or of the pre-training table, a list of {"ans", "dsets"}.

    Raises:
        InputError: another form, no answers, or one that is there twice; names the file and the place.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: expected a JSON list of answer texts, found {shorten(entries)}.")
    first: dict[str, int] = {}
    for number, entry in enumerate(entries):
        if problem := answer_problem(entry, first):
            raise InputError(f"{path}: answer {number}: {problem}. Mend or remove it.")
        first[answer_of(entry)] = number
    return list(first)


def answer_problem(entry: Any, first: dict[str, int]) -> str | None:
    """What is wrong with an entry of an answer list, if anything; `first`: the answers before it, and where."""
    answer = answer_of(entry)
    if not isinstance(answer, str):
        return f"expected a JSON list of answer texts, found {shorten(entry)}"
    sources = entry.get("dsets", []) if isinstance(entry, dict) else []
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        return f"its sources, dsets, are {shorten(sources)}, expected a list of texts"
    if answer in first:
        return f"the answer {shorten(answer)} is there twice, first as answer {first[answer]}"
    return None


def answer_of(entry: Any) -> Any:
    """The answer of an entry: the pre-training table tells each answer's sources, too."""
    return entry.get("ans") if isinstance(entry, dict) else entry


def normalized(answer: str) -> str:
    """An answer in lower case, with one blank between words and without .,;:!? at its end."""
    text = " ".join(unicodedata.normalize("NFC", answer.lower()).split())
    return text.rstrip(" .,;:!?") or text


def spelt_alike(answers: Iterable[str]) -> list[list[str]]:
    """The answers that are the same one `normalized`, such as "Yes", "yes" and "yes."."""
    groups: dict[str, list[str]] = {}
    for answer in answers:
        groups.setdefault(normalized(answer), []).append(answer)
    return [group for group in groups.values() if len(group) > 1]
