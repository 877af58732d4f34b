"""The pre-training texts of the LXMERT release -> text store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.formats.checks import is_text, label_problem, no_repeat
from datamodules.formats.json_stream import items
from datamodules.progress import progress_bar
from datamodules.stores import writing_rows
from lxmert.evaluate import canonical_answer, counting_spellings, identifier_problem
from lxmert.files import InputError, shorten

_canonical = lru_cache(1 << 16)(canonical_answer)  # the same answers come a million times


class Sentence(NamedTuple):
    """A sentence of an image; `label` is empty for captions."""

    text: str
    image: str
    source: str
    label: Mapping[str, float]


def convert_pretraining(source: Path, store: Path) -> Path:
    """Convert a pre-training file of the LXMERT release to a text store, one example a sentence.

    The file is a JSON list of `{img_id, sentf: {source: [sentence]}, labelf: {source: [{answer: score}]}}`,
    labels lined up with the sentences; sources without labels are captions. It is read image by image.
    Examples get their number in the file as identifier and the group "source". Of a label's answers that the
    answer table spells alike one counts, as in the original's `LXMERTDataset` (`counting_spellings`).

    Raises:
        InputError: an entry that cannot be used, naming file, entry (from 0) and image.
        StoreError: the store cannot be written.
    """
    with (
        progress_bar(source.name, source.stat().st_size) as bar,
        writing_rows(store, groups=["source"], sources=[source]) as written,
    ):
        images: set[str] = set()
        for number, entry in enumerate(items(source, progress=bar.update)):
            for each in read_entry(source, number, entry):
                written.add(each.text, len(written), each.image, each.label, [each.source])
            no_repeat(images, entry["img_id"], (source, "entry", number))
    return store


def read_entry(source: Path, number: int, entry: Any) -> Iterator[Sentence]:
    """The sentences of an entry, checked; see `convert_pretraining`."""

    def problem(what: str) -> InputError:
        image = entry.get("img_id") if isinstance(entry, dict) else None
        return InputError(f"{source}: entry {number} (image {shown(image)}): {what}. Mend or remove that entry.")

    if not isinstance(entry, dict) or not is_text(entry.get("img_id")) or not isinstance(entry.get("sentf"), dict):
        raise problem(f"expected an object with img_id and sentf, found {shorten(entry)}")
    if what := identifier_problem(entry["img_id"], str):
        raise problem(f"img_id is {shorten(entry['img_id'])}, {what}")
    labels = entry.get("labelf", {})
    if not isinstance(labels, dict):
        raise problem(f"labelf is {shorten(labels)}, expected an object of sources with their labels")
    if stray := sorted(set(labels) - set(entry["sentf"])):
        raise problem(f"labelf has {', '.join(map(shown, stray))}, which sentf does not have")
    for name, sentences in entry["sentf"].items():
        if what := identifier_problem(name, str):
            raise problem(f"sentf has the source {shorten(name)}, {what}")
        if not isinstance(sentences, list):
            raise problem(f"the sentences of {shown(name)} are {shorten(sentences)}, expected a list of texts")
        given = labels.get(name, [{}] * len(sentences))
        if not isinstance(given, list):
            raise problem(f"the labels of {shown(name)} are {shorten(given)}, expected a list, one a sentence")
        if len(given) != len(sentences):
            raise problem(
                f"{len(given)} labels for the {len(sentences)} sentences of {shown(name)}; they go by position"
            )
        for place, (sentence, label) in enumerate(zip(sentences, given, strict=True)):
            if not is_text(sentence):
                raise problem(f"sentence {place} of {shown(name)} is {shorten(sentence)}, expected a text")
            if what := label_problem(label):
                raise problem(f"sentence {place} of {shown(name)}: {what}")
            yield Sentence(sentence, entry["img_id"], name, _once_each(label))


def _once_each(label: Mapping[str, float]) -> Mapping[str, float]:
    """A label with one spelling of each answer."""
    if len(label) < 2:
        return label
    return {answer: label[answer] for answer in counting_spellings(label, _canonical).values()}


def shown(name: Any) -> str:
    """A name as a message shows it: without quotes, and not too much of it."""
    return name[:80] if isinstance(name, str) else shorten(name)
