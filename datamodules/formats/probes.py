"""Probing sets: a picture, a sentence that fits it and one that does not; or two pictures and two sentences.

VALSE (Parcalabescu et al., ACL 2022), FOIL-COCO (Shekhar et al., ACL 2017) and Winoground (Thrush et al., CVPR
2022) in their makers' files, and one's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.formats.checks import Where, check_identifier, is_text, no_repeat, place_of, take, take_ids
from datamodules.formats.coco import take_image
from datamodules.formats.json_stream import entries, member, outline
from datamodules.formats.rows import first_mark, read_rows
from lxmert.files import InputError, shorten

AGREEING = 2  # of three annotators who chose the caption and not the foil: VALSE's valid examples
IMAGE = ("image_file", "image")  # one's own, as VALSE calls it or plainly
IMAGES = (*IMAGE, "image_0", "image_1")


@dataclass(frozen=True)
class Probe:
    """What a model is to tell apart.

    Args:
        id: of the example.
        piece: the part of the set that it belongs to.
        images: one, whose sentences are a caption and its foil; or two.
        sentences: two. Of two images each has its own.
    """

    id: str
    piece: str
    images: tuple[str, ...]
    sentences: tuple[str, str]


def read_probes(path: Path) -> list[Probe]:
    """The examples of a file.

    Args:
        path: VALSE's object of id -> example, of which those are taken that two of three annotators found valid;
            FOIL's annotations; Winoground's JSON lines; or rows (`read_rows`) with caption, foil, image and, if
            there are several, piece.

    Raises:
        InputError: none of these, or a row that cannot be used; names file and row.
        FileNotFoundError: it is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".json" and first_mark(path) == "{":
        names = [name for name, value in outline(path) if isinstance(value, list)]
        probes = list(_foil(path) if "annotations" in names else _valse(path))
    else:
        probes = list(_rows(path))
    if not probes:
        raise InputError(f"{path}: no example to use. Is it the right file?")
    return probes


def _valse(path: Path) -> Iterator[Probe]:
    for id_, row in entries(path):
        where = (path, "example", id_)
        [votes] = take(row, where, mturk=dict)
        [agreeing] = take(votes, where, caption=int)
        if agreeing < AGREEING:
            continue
        caption = row.get("caption")
        if isinstance(caption, list) and caption:  # of some pieces, whose first is meant
            row = {**row, "caption": caption[0]}
        yield _pair(row, where, id_, _piece(row, "linguistic_phenomena", path))


def _foil(path: Path) -> Iterator[Probe]:
    """Each foil with the caption that it was made of, which has the same id."""
    files = {}
    for number, row in enumerate(member(path, "images")):
        where = (path, "image", number)
        [image] = take(row, where, id=int)
        files[image] = take_ids(row, where, "file_name")[0]
    captions: dict[int, str] = {}
    foils: list[tuple[Where, int, int, int, str]] = []
    for number, row in enumerate(member(path, "annotations")):
        where = (path, "annotation", number)
        false, id_, text = take(row, where, foil=bool, id=int, caption=str)
        if false:
            foils.append((where, id_, take(row, where, foil_id=int)[0], take_image(row, where), text))
        else:
            captions[id_] = text
    for where, id_, foil_id, image, text in foils:
        if id_ not in captions or image not in files:
            lacking = f"no caption with foil false has its id {id_}" if image in files else f"no image {image}"
            raise InputError(f"{place_of(where)}: {lacking}. Mend or remove that row.")
        yield Probe(f"{id_}/{foil_id}", path.stem, (files[image],), (captions[id_], text))


def _rows(path: Path) -> Iterator[Probe]:
    seen: set[Any] = set()
    for number, (where, row) in enumerate(read_rows(path)):
        if isinstance(row, dict):  # images may be called by numbers, as examples may
            row |= {name: str(row[name]) for name in IMAGES if type(row.get(name)) is int}
        given = row.get("id", number) if isinstance(row, dict) else number
        id_ = given if isinstance(given, str) else str(given)
        check_identifier(id_, "id", where)
        no_repeat(seen, id_, where)
        if isinstance(row, dict) and "caption_0" in row:
            images = tuple(take_ids(row, where, "image_0", "image_1"))
            one, other = take(row, where, caption_0=str, caption_1=str)
            yield Probe(id_, _piece(row, "collapsed_tag", path), images, (one, other))
        else:
            yield _pair(row, where, id_, _piece(row, "piece", path))


def _piece(row: Any, name: str, path: Path) -> str:
    """The part of the set that a row names; else that of its file."""
    piece = row.get(name) if isinstance(row, dict) else None
    return str(piece) if is_text(piece) else path.stem


def _pair(row: Any, where: Where, id_: str, piece: str) -> Probe:
    if isinstance(row, dict) and not {"caption", "foil"} <= row.keys():
        raise InputError(
            f"{place_of(where)}: it has {shorten(', '.join(map(str, row)))}; expected caption, foil and image, or "
            "what the makers of VALSE, FOIL or Winoground have. Mend the columns' names."
        )
    caption, foil = take(row, where, caption=str, foil=str)
    named = next((name for name in IMAGE if name in row), IMAGE[0])
    if caption == foil:
        raise InputError(
            f"{place_of(where)}: caption and foil are both {shorten(caption)}. Mend or remove that row."
        )
    return Probe(id_, piece, tuple(take_ids(row, where, named)), (caption, foil))
