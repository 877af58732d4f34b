"""Pictures to a region store, one by one; what is found waits in a TSV until all are done.

That TSV, of the release's format, is the journal: a picture is done when its line is whole. It lies in a hidden
folder beside the store, and becomes the TSV that was asked for, or goes, when the store is there. Killed at any
moment, an extraction goes on after the last whole line, and what comes out is the same, bit for bit.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from tqdm import tqdm

from datamodules.detector import BoxRule, Detections, Detector, read_picture
from datamodules.formats.release_tsv import index_tsv, read_tsv, tsv_line
from datamodules.progress import progress_bar
from datamodules.stores import (
    Handling,
    ImageError,
    Index,
    Regions,
    RegionStore,
    clear_write_errors,
    convert_regions,
    is_current,
    locked,
    read_facts,
)
from lxmert.files import InputError, read_json, replacing, shown, write_text

log = logging.getLogger(__name__)

READ_AHEAD = 2  # pictures; a large one has hundreds of MB
EVERY = 60.0  # seconds between lines of a log
WHOLE = "whole"  # folder of a complete journal
VERSION = 1  # of what is done with a picture: another one gives other numbers


@dataclass
class Extraction:
    """What is to be done.

    Args:
        pictures: image id -> file, in the order of the store.
        title: what the pictures are together, for the store.
        detector: finds or describes regions.
        rule: how many boxes; None: as the detector's file says.
        boxes: image id -> boxes (n, 4) in pixels to describe, instead of finding any.
        skip: leave out pictures that cannot be used, and list them; else stop at the first.
    """

    pictures: Mapping[str, Path]
    title: str
    detector: Detector
    rule: BoxRule | None = None
    boxes: Mapping[str, np.ndarray] | None = None
    skip: bool = False
    failed: list[ImageError] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the store says made its features: the detector, its weights, its boxes."""
        return self.detector.told("given" if self.boxes is not None else self.rule)

    def facts(self) -> dict[str, str]:
        """What the store tells beside its contract."""
        return {
            "detector_sha256": self.detector.sha256,
            "object_names": json.dumps(self.detector.object_names),
            "attribute_names": json.dumps(self.detector.attribute_names),
            "pictures_sha256": self._digest(self.stamps()),
            "given_boxes_sha256": "" if self.boxes is None else self._digest(self._plain_boxes()),
            "made_with": f"extract {VERSION}, torch {torch.__version__} on {self.detector.device.type}, "
            f"numpy {np.__version__}, pillow {PIL.__version__}",
        }

    def stamps(self) -> dict[str, list[int]]:
        """Size and time of change of each picture that is there."""
        found = {}
        for image, path in self.pictures.items():
            with suppress(FileNotFoundError):
                stat = path.stat()
                found[image] = [stat.st_size, stat.st_mtime_ns]
        return found

    def _plain_boxes(self) -> dict[str, Any]:
        return {image: boxes.tolist() for image, boxes in (self.boxes or {}).items() if image in self.pictures}

    @staticmethod
    def _digest(values: Any) -> str:
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def extract(work: Extraction, store: Path, tsv: Path | None = None, progress: bool = True) -> Path:
    """Make a region store of pictures, or go on with making it.

    Args:
        work: pictures and detector.
        store: the file to make. One that is there and is of the same pictures and detector is kept.
        tsv: the same in the released format; None for none.
        progress: show how far it is.

    Returns:
        `store`.

    Raises:
        InputError: a picture that cannot be used, an unfinished extraction of other settings, a store or TSV of
            something else in the way.
        StoreError: a full disk, no permission.
    """
    if work.boxes is not None and (missing := [image for image in work.pictures if image not in work.boxes]):
        raise InputError(
            f"no boxes are given for {len(missing)} of the {len(work.pictures)} pictures, the first being "
            f"{', '.join(missing[:3])}: give some for each, or take these pictures out"
        )
    folder = store.with_name(f".{store.name}.extraction")
    with locked(store), clear_write_errors(store):
        if not _is_done(work, store):
            if tsv is not None and tsv.exists():
                raise InputError(
                    f"{tsv} is there already, and nothing is overwritten. Give another file, or remove it."
                )
            journal = _journal(folder)
            done, stamps = _resume(work, journal, folder / "note.json")
            with journal.open("ab") as file:
                for image, line in _lines(work, done, progress):
                    file.write(line)
                    file.flush()
                    done.add(image)
            if not done:
                shutil.rmtree(folder)
                raise InputError(
                    f"{work.title}: none of its {len(work.pictures)} pictures can be used: {work.failed[0]}"
                )
            _check_pictures(done, stamps, work.stamps(), journal)
            _assemble(work, journal, store, tsv.name if tsv else work.title, progress)
        _finish(store, folder, tsv)
    return store


def _assemble(work: Extraction, journal: Path, store: Path, name: str, progress: bool) -> None:
    """Make the store of the journal, which is called `name` in it, as the TSV is that it may become."""
    # What is made of the same pictures is to be the same: a store keeps the time of its source.
    newest = max(mtime for _, mtime in work.stamps().values())
    os.utime(journal, ns=(newest, newest))
    whole = journal.parent / WHOLE / name
    whole.parent.mkdir()
    journal.rename(whole)

    def index(source: Path, bar: tqdm, index: Index) -> None:
        index_tsv(source, bar, index)
        index.skipped += work.failed

    handling = Handling(skip=work.skip)
    convert_regions(whole, store, work.name, progress, index, read_tsv, handling, work.facts())


def _finish(store: Path, folder: Path, tsv: Path | None) -> None:
    """Give the journal of a complete store its place, where it is wanted, and take the rest away.

    Raises:
        InputError: there is no journal any more, and no TSV of this store.
    """
    if tsv is not None and not (tsv.exists() and is_current(store, tsv)):
        whole = folder / WHOLE / tsv.name
        if tsv.exists() or not whole.exists():
            what = "is not of" if tsv.exists() else "is not there, and a TSV is made only together with"
            raise InputError(f"{tsv} {what} {store}, which is complete. Remove it, or do without --tsv.")
        tsv.parent.mkdir(parents=True, exist_ok=True)
        with clear_write_errors(tsv):
            try:
                whole.replace(tsv)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                with replacing(tsv) as temporary:  # on another disk: what is killed before its end begins again
                    shutil.copy2(whole, temporary)
    if folder.exists():
        shutil.rmtree(folder)


def _is_done(work: Extraction, store: Path) -> bool:
    """Whether `store` is there and what is asked for.

    Raises:
        InputError: it is something else.
    """
    if not store.exists():
        return False
    there, wanted = read_facts(store), work.facts()
    same = ("detector_sha256", "pictures_sha256", "given_boxes_sha256")
    if RegionStore(store).contract["detector"] == work.name and all(there.get(key) == wanted[key] for key in same):
        return True
    raise InputError(
        f"{store} is there already, of other pictures or another detector, and nothing is overwritten. Give "
        "another file, or remove it."
    )


def _journal(folder: Path) -> Path:
    """The journal in its folder, which is made; out of what a run left that was killed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    journal, whole = folder / "journal.tsv", folder / WHOLE
    if whole.exists():
        for path in whole.iterdir():
            path.replace(journal)
        whole.rmdir()
    return journal


def _resume(work: Extraction, journal: Path, note: Path) -> tuple[set[str], dict[str, list[int]]]:
    """The images that an unfinished extraction has done, none in a new one, and the stamps of all that there are.

    A line cut off at its end is removed.

    Raises:
        InputError: it is of other settings, or a picture that is done has changed.
    """
    settings = {"detector": work.name, **work.facts()}
    settings.pop("pictures_sha256")
    stamps = work.stamps()
    done: set[str] = set()
    if journal.exists():
        again = _again(journal)
        before = _read_note(note, again)
        for key, value in settings.items():
            if before["settings"].get(key) != value:
                raise InputError(
                    f"{journal} is of an unfinished extraction with other settings: {key} was "
                    f"{shown(before['settings'].get(key))} and is {shown(value)} now. {again}, or go on as before."
                )
        done = _whole_lines(journal)
        _check_pictures(done, before["stamps"], stamps, journal)
        log.info("goes on: %s of %s pictures are done", f"{len(done):,}", f"{len(stamps):,}")
    write_text(note, json.dumps({"settings": settings, "stamps": stamps}))
    return done, stamps


def _check_pictures(done: set[str], before: Mapping[str, Any], now: Mapping[str, Any], journal: Path) -> None:
    """Raise InputError unless the pictures of what is in the journal are as they were when they were read."""
    for image in sorted(done):
        if now.get(image) != before.get(image):
            what = "changed" if image in now else "removed"
            raise InputError(f"the picture of {image} was {what} since the extraction began. {_again(journal)}.")


def _again(journal: Path) -> str:
    return f"Remove the folder {journal.parent} to start again"


def _read_note(note: Path, again: str) -> dict[str, dict[str, Any]]:
    try:
        before = read_json(note)
    except FileNotFoundError:
        before = None
    if not isinstance(before, dict) or not all(
        isinstance(before.get(key), dict) for key in ("settings", "stamps")
    ):
        raise InputError(f"{note} does not tell what {note.parent} is of. {again}.")
    return before


def _whole_lines(journal: Path) -> set[str]:
    """The images of the whole lines; what follows the last is cut off."""
    done, end = set(), 0
    with journal.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\r\n"):
                break
            done.add(line.split(b"\t", 1)[0].decode())
            end += len(line)
        file.truncate(end)
    return done


def _lines(work: Extraction, done: set[str], progress: bool) -> Iterator[tuple[str, bytes]]:
    """Each picture that is not done: its id and line."""
    left = [(image, path) for image, path in work.pictures.items() if image not in done]
    start = told = time.monotonic()
    total, before = len(work.pictures), len(done)
    bar = progress_bar(f"{work.title}: regions", total, "picture", done=before, shown=progress)
    with bar as shown_bar, ThreadPoolExecutor(1) as reader:
        for number, (image, path, reading) in enumerate(_read_ahead(left, reader), 1):
            try:
                boxes = None if work.boxes is None else work.boxes[image]
                found = work.detector.detect(reading.result(), work.rule, boxes)
                _check(found, path)
            except torch.OutOfMemoryError as error:
                raise InputError(
                    f"{path}: the memory of {work.detector.device} is full. What is done is kept: start again "
                    "when others have left it, or on another --device."
                ) from error
            except (InputError, OSError) as error:
                reason = _reason(error, path)
                if not work.skip:
                    raise InputError(
                        f"{path}: {reason}. What is done is kept: mend or remove the picture and start again, or "
                        "leave such pictures out (--on-error skip)."
                    ) from error
                work.failed.append(ImageError(str(path), reason))
            else:
                yield image, _line(image, found)
            shown_bar.update()
            now = time.monotonic()
            if progress and not sys.stderr.isatty() and now - told > EVERY:  # a log has no bar
                told, rate = now, number / (now - start)
                minutes = (len(left) - number) / rate / 60
                log.info(
                    "%s of %s pictures, %.3g a second, %.0f minutes left", before + number, total, rate, minutes
                )


def _check(found: Detections, path: Path) -> None:
    """Raise ImageError where a store would not take what was found."""
    Regions(str(path), found.size, found.features, found.boxes, found.labels).columns()


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, ImageError):
        return error.what
    return str(error).removeprefix(f"{path}: ").rstrip(".")


def _read_ahead(
    pictures: list[tuple[str, Path]], reader: ThreadPoolExecutor
) -> Iterator[tuple[str, Path, Future[np.ndarray]]]:
    """The pictures, the next ones being decoded meanwhile."""
    rest = iter(pictures)
    waiting = [(image, path, reader.submit(read_picture, path)) for image, path in islice(rest, READ_AHEAD)]
    while waiting:
        yield waiting.pop(0)
        waiting += [(image, path, reader.submit(read_picture, path)) for image, path in islice(rest, 1)]


def _line(image: str, found: Detections) -> bytes:
    labels = (found.labels[name] for name in ("object_ids", "object_conf", "attribute_ids", "attribute_conf"))
    arrays = (*labels, found.boxes, found.features)
    return tsv_line(image, *found.size, *arrays)
