"""REFER's files of RefCOCO, RefCOCO+ and RefCOCOg, as https://github.com/lichengunc/refer distributes them.

`refs(unc).p`, a pickle of Python 2: a list of {ref_id, ann_id, image_id, split, sentences: [{sent_id, raw, ...}]};
`instances.json`, COCO's images (id, width, height) and annotations (id, image_id, bbox). The fields are those that
REFER's refer.py reads; all images are COCO's of train2014, as there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from datamodules.formats.checks import Where, no_repeat, place_of, take
from datamodules.formats.coco import image_name
from datamodules.formats.json_stream import member
from datamodules.formats.pickles import safe_loads
from datamodules.formats.referring import Box, Referring, take_box, take_size
from lxmert.files import InputError, shorten

log = logging.getLogger(__name__)


def read_refer(
    refs: Path, instances: Path, read: Callable[[Path, str], Iterator[Any]] = member
) -> dict[str, list[Referring]]:
    """The expressions of each split, in the order of the file; a sentence's id is REFER's `sent_id`.

    The text is `raw`, as the annotator wrote it (VOLTA reads that, too).

    Args:
        refs: the pickle.
        instances: the JSON file.
        read: as `member`, for who shows how far it is.

    Raises:
        InputError: a pickle that is damaged or names code to run, a row that cannot be used, an annotation or
            image that is not there, a box outside of its picture.
    """
    rows = list(enumerate(_read_pickle(refs)))
    found: list[tuple[Where, int, int, str, list[Any]]] = []
    for number, row in rows:
        ref, annotation, image, split, sentences = take(
            row, (refs, "ref", number), ref_id=int, ann_id=int, image_id=int, split=str, sentences=list
        )
        found.append(((refs, "ref_id", ref), annotation, image, split, sentences))
    boxes, sizes = _read_instances(instances, read, {each[1] for each in found}, {each[2] for each in found})
    splits: dict[str, list[Referring]] = {}
    seen: set[int] = set()
    if silent := sum(not sentences for *_, sentences in found):
        log.warning("%s: %d of its %d refs have no sentences; they are left out", refs, silent, len(found))
    for where, annotation, image, split, sentences in found:
        if annotation not in boxes or boxes[annotation][0] != image or image not in sizes:
            raise InputError(
                f"{place_of(where)}: its annotation {annotation} of image {image} is not in {instances}. Get both "
                "files of the same data set."
            )
        box = take_box(boxes[annotation][1], where, sizes[image])
        for sentence in sentences:
            identifier, text = take(sentence, where, sent_id=int, raw=str)
            no_repeat(seen, identifier, (refs, "sent_id", identifier))
            splits.setdefault(split, []).append(
                Referring(identifier, image_name("train2014", image), text, box, sizes[image])
            )
    return splits


def _read_pickle(path: Path) -> list[Any]:
    try:
        # Of Python 2, whose str are bytes.
        content = _texts(safe_loads(path.read_bytes(), encoding="bytes"))
    except UnpicklingError as error:
        raise InputError(
            f"{path}: not read ({error}): expected REFER's refs, a pickle of lists, dicts, numbers and texts "
            "alone. Get it again from its makers."
        ) from error
    if not isinstance(content, list) or not content:
        raise InputError(f"{path}: {shorten(content)}, expected REFER's list of refs. Is it the right file?")
    return content


def _texts(value: Any) -> Any:
    """With texts in place of bytes: UTF-8, and Latin-1 where they are not."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin1")
    if isinstance(value, list | tuple):
        return [_texts(each) for each in value]
    if isinstance(value, dict):
        return {_texts(key): _texts(each) for key, each in value.items()}
    return value


def _read_instances(
    path: Path, read: Callable[[Path, str], Iterator[Any]], annotations: set[int], images: set[int]
) -> tuple[dict[int, tuple[int, Box]], dict[int, tuple[int, int]]]:
    """The images and boxes of these annotations, the sizes of these images, as far as they are there."""
    boxes, sizes = {}, {}
    for number, row in enumerate(read(path, "annotations")):
        identifier, image = take(row, (path, "annotation", number), id=int, image_id=int)
        if identifier in annotations:
            boxes[identifier] = image, row.get("bbox")
    for number, row in enumerate(read(path, "images")):
        where = (path, "image", number)
        identifier, *size = take(row, where, id=int, width=int, height=int)
        if identifier in images:
            sizes[identifier] = take_size(size, where)
    return boxes, sizes
