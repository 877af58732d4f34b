"""Scores on the disk: a matrix that is filled in place, by several processes, and gone on with after a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lxmert.files import InputError, read_json, replacing, shorten, write_text
from lxmert.retrieve.ranks import blocks
from lxmert.retrieve.scoring import Collection


@dataclass(frozen=True)
class ScoreFile:
    """`<name>.npy`, (C, I) float32, NaN where there is no score yet, and `<name>.json`, what it is of.

    The latter has `captions` and `images`, the ids, `image_of`, the place of each caption's image, and a
    `fingerprint` of weights, captions, images and candidates.

    Args:
        path: of the matrix.
        about: of the description.
    """

    path: Path
    about: Path

    @classmethod
    def make(
        cls,
        folder: Path,
        name: str,
        collection: Collection,
        weights: str,
        candidates: Sequence[np.ndarray] | None = None,
        *,
        anew: bool = False,
    ) -> ScoreFile:
        """The one that is there, to go on with, or a new one.

        Args:
            folder: made where it does not exist.
            name: of both files.
            collection: what is scored.
            weights: fingerprint of the model.
            candidates: of each caption the places of the images that it is scored with, -inf with others; None:
                with all.
            anew: replace scores of other weights, captions, images or candidates.

        Raises:
            InputError: such scores are there.
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file = cls(folder / f"{name}.npy", folder / f"{name}.json")
        chosen = None if candidates is None else [each.tolist() for each in candidates]
        facts = {
            "fingerprint": hashlib.sha256(repr((weights, collection.fingerprint(), chosen)).encode()).hexdigest(),
            "captions": collection.caption_ids,
            "images": collection.image_ids,
            "image_of": collection.image_of.tolist(),
        }
        shape = len(collection.caption_ids), len(collection.image_ids)
        if file.about.exists() or file.path.exists():
            found = read_json(file.about) if file.about.exists() else None
            if isinstance(found, dict) and found.get("fingerprint") == facts["fingerprint"]:
                if file.path.exists() and file.open().shape == shape:
                    return file
            elif not anew:
                raise InputError(
                    f"{file.path} has scores of other weights, captions, images or candidates. Choose another "
                    "folder, or remove it."
                )
            file.path.unlink(missing_ok=True)
        write_text(file.about, json.dumps(facts) + "\n")
        # By ordinary writes: a full disk is an error here, and later the end of the process.
        empty = np.broadcast_to(np.float32(np.nan), shape)
        with replacing(file.path) as temporary, temporary.open("wb") as written:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(written, header)
            for rows in blocks(empty):
                block = np.array(empty[rows])
                if candidates is not None:
                    block[:] = -np.inf
                    for row, chosen_images in zip(block, candidates[rows], strict=True):
                        row[chosen_images] = np.nan
                written.write(block.tobytes())
        return file

    def open(self) -> np.memmap:
        """The matrix, to be read and filled in.

        Raises:
            InputError: it is damaged.
        """
        try:
            np.lib.format.open_memmap(self.path, "r")  # opened to write, what was cut off becomes zeros
            return np.lib.format.open_memmap(self.path, "r+")
        except ValueError as error:
            raise InputError(f"{self.path}: {error}. Remove it, and its scores are computed again.") from error


def fingerprint_of(*parts: Mapping[str, Tensor]) -> str:
    """SHA-256 of the weights of several modules, each by name."""
    found = hashlib.sha256()
    for weights in parts:
        for name, tensor in sorted(weights.items()):
            found.update(name.encode())
            found.update(tensor.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()


def read_candidates(path: Path, collection: Collection, *, count_missed: bool = False) -> list[np.ndarray]:
    """Of each caption the places of the images that a cheaper model has chosen.

    Args:
        path: a JSON object of caption id -> list of image ids; of further captions, too.
        collection: the captions and images.
        count_missed: take captions whose own image is not among theirs, to be ranked last, as in published
            numbers.

    Raises:
        InputError: a caption without candidates, an image that is none of the collection's, one twice; a caption
            whose own image is not among them.
        OSError: it cannot be read.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: expected an object of caption id -> list of image ids, found {shorten(content)}."
        )
    places = {image: place for place, image in enumerate(collection.image_ids)}
    candidates: list[np.ndarray] = []
    missed: list[Any] = []
    for caption, own in zip(collection.caption_ids, collection.image_of.tolist(), strict=True):
        named = content.get(str(caption))
        if not isinstance(named, list) or not named:
            raise InputError(
                f"{path}: the candidates of caption {caption} are {shorten(named)}, expected a list of image ids."
            )
        if unknown := [image for image in named if not isinstance(image, str) or image not in places]:
            raise InputError(
                f"{path}: caption {caption} has the candidate {shorten(unknown[0])}, which is no image of the "
                f"split, such as {collection.image_ids[0]}."
            )
        if len(set(named)) < len(named):
            raise InputError(f"{path}: caption {caption} has an image twice among its candidates. Keep one.")
        candidates.append(np.array([places[image] for image in named]))
        if own not in candidates[-1]:
            missed.append(caption)
    if missed and not count_missed:
        raise InputError(
            f"{path}: the own image of {len(missed)} of {len(candidates)} captions is not among their candidates, "
            f"first of {', '.join(map(str, missed[:5]))}. With --count-missed they are ranked last; else add them."
        )
    return candidates
