"""Sentences that the vocabulary does not know or that are cut, and a vocabulary that no text can match."""

from __future__ import annotations

import logging
from pathlib import Path

from datamodules.statistics import Sentences
from lxmert.files import InputError, shorten
from lxmert.tokenization import LxmertTokenizer

log = logging.getLogger(__name__)


def check_vocabulary(tokenizer: LxmertTokenizer, given: str | Path) -> None:
    """Warn of pieces that no text can become: those of a cased vocabulary where text is lower-cased."""
    pieces = tokenizer.unreachable()
    if not pieces:
        return
    strips = tokenizer.do_lower_case if tokenizer.strip_accents is None else tokenizer.strip_accents
    changes = ["lower-cased"] * tokenizer.do_lower_case + ["stripped of accents"] * strips
    log.warning(
        "data.tokenizer=%s: %d of its %d word pieces match no text, such as %s: text is %s before. If they "
        "are meant to, put vocab.txt into a folder with a tokenizer_config.json of "
        '{"do_lower_case": false, "strip_accents": false}, and give that folder.',
        *(given, len(pieces), len(tokenizer), ", ".join(map(shorten, pieces[:3])), " and ".join(changes)),
    )


def check_sentences(file: Path, seen: Sentences, max_length: int, training: bool) -> None:
    """Warn where most of a file's sentences are cut, or mostly of unknown words.

    Raises:
        InputError: all sentences to train on are mostly of unknown words.
    """
    if seen.truncated > seen.seen / 2:
        log.warning(
            "%s: %d of the %d sentences looked at have more than data.max_length=%d tokens and lose their end; "
            "the longest has %d. Raise data.max_length to what most of them have.",
            *(file, seen.truncated, seen.seen, max_length, seen.longest),
        )
    if seen.unknown > seen.seen / 2:
        message = (
            f"{file}: most words of {seen.unknown} of the {seen.seen} sentences looked at are unknown to the "
            f"vocabulary, [UNK], such as those of {shorten(seen.example)}. Set data.tokenizer to a vocabulary of "
            "their language and their casing."
        )
        if training and seen.unknown == seen.seen:
            raise InputError(message)
        log.warning("%s", message)
