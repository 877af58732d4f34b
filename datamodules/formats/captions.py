"""Captions of images: Karpathy's files (Flickr30k, COCO) and VOLTA's -> text store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.formats.arrays import PICTURES
from datamodules.formats.checks import Where, check_identifier, no_repeat, place_of, take
from datamodules.formats.json_stream import member
from datamodules.formats.opening import Progress
from datamodules.formats.rows import json_lines
from datamodules.progress import progress_bar
from datamodules.stores import writing_rows
from lxmert.files import InputError, shorten

MOST = 5  # captions of an image that count, by the usual protocol; some of COCO's have six or seven
LINES = (".jsonl", ".jsonline", ".jsonlines")  # endings of VOLTA's files


class Captioned(NamedTuple):
    """An image with its captions, (id, text) each."""

    image: str
    captions: list[tuple[int | str, str]]


def convert_captions(source: Path, store: Path, split: str) -> Path:
    """Convert the captions of a split to a text store without labels, one example a caption.

    Args:
        source: see `read_captions`.
        store: where to write.
        split: as of `read_captions`.

    Returns:
        `store`.

    Raises:
        InputError: as of `read_captions`.
        StoreError: the store cannot be written.
    """
    with (
        progress_bar(f"{source.name}, {split}", source.stat().st_size) as bar,
        writing_rows(store, labelled=False, sources=[source]) as written,
    ):
        for image, captions in read_captions(source, split, progress=bar.update):
            for identifier, text in captions:
                written.add(text, identifier, image, {})
    return store


def read_captions(path: Path, split: str, *, progress: Progress | None = None) -> Iterator[Captioned]:
    """The images of a split with their first `MOST` captions, in the order of the file.

    An image is called by its file's name without the ending: 1000092795, COCO_val2014_000000391895.

    Args:
        path: Karpathy's dataset_flickr30k.json or dataset_coco.json, an object with `images`, a list of {filename,
            split, sentences: [{raw, sentid}]}, whose split restval counts as train, as everywhere; captions are
            called by their sentid. Or VOLTA's, one split a file (.jsonl), lines of {img_path, sentences:
            [text]}; captions are called IMAGE#NUMBER. Its lines of COCO have an id in place of a file's name, the
            image's number: that is what the image is called then.
        split: train, val or test; without a meaning for VOLTA's.
        progress: called with the number of bytes read, after each read.

    Raises:
        InputError: an image twice or without captions, a caption without an image or a text, a row of another
            form, no image of the split; names file and row (from 0; in files of lines the line, from 1).
    """
    splits: Counter[str] = Counter()
    for belongs, image in read_all_captions(path, progress=progress):
        splits[belongs or split] += 1
        if (belongs or split) == split:
            yield image
    if not splits[split]:
        there = ", ".join(f"{name} ({count} images)" for name, count in splits.items()) or "none"
        raise InputError(f"{path}: no image of the split {split!r}; there are {there}.")


def read_all_captions(path: Path, *, progress: Progress | None = None) -> Iterator[tuple[str, Captioned]]:
    """The images of all splits, each with the name of its split, empty in VOLTA's files; as `read_captions`."""
    seen: set[Any] = set()
    ids: set[Any] = set()
    for where, row, kind in _rows(path, progress):
        image, belongs, captions = kind(row, where)
        no_repeat(seen, image, where)
        if not captions:
            raise InputError(f"{place_of(where)}: {image} has no captions. Mend or remove that row.")
        for identifier, _ in captions:
            no_repeat(ids, identifier, (path, "caption", identifier))
        yield belongs, Captioned(image, captions)


def _rows(path: Path, progress: Progress | None) -> Iterator[tuple[Where, Any, Any]]:
    """Where each row is, the row, and what reads it."""
    if path.suffix in LINES:
        yield from ((where, row, _volta) for where, row in json_lines(path, progress=progress))
    else:
        for number, row in enumerate(member(path, "images", progress=progress)):
            yield (path, "image", number), row, _karpathy


def _karpathy(row: Any, where: Where) -> tuple[str, str, list[tuple[int | str, str]]]:
    """Image, split and captions."""
    name, split, sentences = take(row, where, filename=str, split=str, sentences=list)
    captions: list[tuple[int | str, str]] = []
    for number, sentence in enumerate(sentences[:MOST]):
        text, identifier = take(sentence, _within(where, number), raw=str, sentid=int)
        captions.append((identifier, text.strip()))
    return _image(name, where), "train" if split == "restval" else split, captions


def _volta(row: Any, where: Where) -> tuple[str, str, list[tuple[int | str, str]]]:
    """Image, no split, and captions."""
    [sentences] = take(row, where, sentences=list)
    if "img_path" in row:
        image = _image(take(row, where, img_path=str)[0], where)
    else:
        image = str(take(row, where, id=int)[0])
    captions: list[tuple[int | str, str]] = []
    for number, text in enumerate(sentences[:MOST]):
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f"{place_of(_within(where, number))} is {shorten(text)}, expected a text. Mend or remove it."
            )
        captions.append((f"{image}#{number}", text.strip()))
    return image, "", captions


def _within(where: Where, number: int) -> Where:
    file, rows, place = where
    return file, f"{rows} {place}, sentence", number


def _image(name: str, where: Where) -> str:
    """An image's id of its file's name; folders before it do not count."""
    last = name.rpartition("/")[2]
    stem = next((last[: -len(ending)] for ending in PICTURES if last.lower().endswith(ending)), last)
    check_identifier(stem, "the image's name", where)
    return stem
