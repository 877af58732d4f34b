"""Which image's regions are in which file: `<name>.tsv` below the data folder, `<name>.h5` among the stores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from datamodules.formats.arrays import PICTURES


@dataclass(frozen=True)
class RegionFile:
    """A region file of the release.

    Args:
        name: where it is, below the data folder and without its ending.
        images: a pattern that its image ids have, and those of the layout's other files have not.
        archive: what the release distributes it in.
        also: another file that may have some of these images.
    """

    name: str
    images: str
    archive: str
    also: str | None = None


COCO_FOLDER = "mscoco_imgfeat"
COCO = (
    RegionFile("mscoco_imgfeat/train2014_obj36", "train2014", "train2014_obj36.zip (17 GB)"),
    RegionFile("mscoco_imgfeat/val2014_obj36", "val2014", "val2014_obj36.zip (8 GB)"),
    RegionFile("mscoco_imgfeat/test2015_obj36", "test2015", "test2015_obj36.zip (16 GB)"),
)
VG_GQA, GQA_TESTDEV = "vg_gqa_imgfeat/vg_gqa_obj36", "vg_gqa_imgfeat/gqa_testdev_obj36"
VISUAL_GENOME = (
    RegionFile(VG_GQA, r"^\d+$", "vg_gqa_obj36.zip (30 GB)"),
    RegionFile(GQA_TESTDEV, r"^n\d+$", "gqa_testdev_obj36.zip", also=VG_GQA),
)
NLVR2 = (
    RegionFile("nlvr2_imgfeat/train_obj36", r"^train-.*-img[01]$", "train_obj36.zip (21 GB)"),
    RegionFile("nlvr2_imgfeat/valid_obj36", r"^dev-.*-img[01]$", "valid_obj36.zip (1.6 GB)"),
    RegionFile("nlvr2_imgfeat/test_obj36", r"^test1-.*-img[01]$", "test_obj36.zip (1.6 GB)"),
)


@dataclass(frozen=True)
class Layout:
    """The region files of one data set.

    Args:
        files: those that image ids name; none for a data set of one's own.
        folders: where the regions may be of images whose ids name no file; any file there.
        splits: the released splits and the files that each needs: to name what is missing, and those of two files
            that may have an image are looked in first that the split needs.
    """

    files: tuple[RegionFile, ...]
    folders: tuple[str, ...]
    splits: Mapping[str, Sequence[str]]

    def files_of(self, image_id: str, split: str) -> tuple[str, ...]:
        """The files that an id names, such as mscoco_imgfeat/train2014_obj36 for COCO_train2014_000000458752.

        In the order in which they are looked in for images of that split; none where the id names none.
        """
        found = self._pattern.search(image_id) if self.files else None
        if found is None or found.lastindex is None:
            return ()
        file = self.files[found.lastindex - 1]
        if file.also is None:
            return (file.name,)
        return (file.also, file.name) if file.also in self.splits.get(split, ()) else (file.name, file.also)

    @cached_property
    def archives(self) -> dict[str, str]:
        """File name -> what the release distributes it in."""
        return {file.name: file.archive for file in self.files}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:  # one search for all files: start-up asks this of every image
        return re.compile("|".join(f"({file.images})" for file in self.files))


def stem_of(image_id: str) -> str:
    """An image's id without the ending of a picture."""
    return next((image_id[: -len(e)] for e in PICTURES if image_id.lower().endswith(e)), image_id)


def spellings(images: Sequence[str]) -> list[list[str]]:
    """The ways in which regions may call these images, the nearest first.

    As they are; without the ending of a picture; and without their folder too, where that is one image: texts
    often say kitchen.jpg or img/kitchen.jpg where features say kitchen.
    """
    stems = [stem_of(image) for image in images]
    bare = [stem.rpartition("/")[2] for stem in stems]
    return [list(images), stems, *([bare] if len(set(bare)) == len(bare) else [])]


def find_picture(images: Path, image_id: str) -> Path | None:
    """The picture of an image, `images/<image_id>.jpg|jpeg|png` or in a folder there; None without one.

    An id is a name: nothing outside the folder (which may be a link itself) is looked at, neither by `..` or an
    absolute path nor by a link that leads out of it.
    """
    for folder in (images, *sorted(images.glob("*/"))):
        for ending in (".jpg", ".jpeg", ".png"):
            path = folder / f"{image_id}{ending}"
            try:
                if path.is_file() and path.resolve().is_relative_to(images.resolve()):
                    return path
            except (OSError, ValueError):  # what no file can be called: too long, with a NUL
                return None
    return None
