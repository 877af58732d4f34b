"""GQA's questions, as their makers publish them: question id -> question."""

from __future__ import annotations

from typing import Any

from datamodules.formats.checks import Where, check_identifier, is_text, place_of, take, take_ids
from lxmert.files import InputError, shorten

TYPES = ("structural", "semantic", "detailed")  # of a question


def take_question(question: Any, where: Where, labelled: bool) -> tuple[str, str, str | None, list[str | None]]:
    """Text, image, answer and types of a question; no answer and no types where none are asked for."""
    check_identifier(where[2], "question id", where)
    [text], [image] = take(question, where, question=str), take_ids(question, where, "imageId")
    if not labelled:
        return text, image, None, []
    answer, types = take(question, where, answer=str, types=dict)
    values = [types.get(name) for name in TYPES]
    for name, value in zip(TYPES, values, strict=True):
        if value is not None and not is_text(value):
            raise InputError(
                f"{place_of(where)}: its type {name} is {shorten(value)}, expected a text or null. Mend or remove "
                "that row."
            )
    return text, image, answer, values
