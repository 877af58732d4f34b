"""Which image's regions are in which file: `<name>_obj36.tsv` below the data folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class RegionFile:
    """A region file of the release.

    Args:
        name: where it is, below the data folder and without its ending `_obj36.tsv`.
        images: a pattern that its image ids have, and those of the layout's other files have not.
        archive: what the release distributes it in.
    """

    name: str
    images: str
    archive: str


COCO = (
    RegionFile("mscoco_imgfeat/train2014", "train2014", "train2014_obj36.zip (17 GB)"),
    RegionFile("mscoco_imgfeat/val2014", "val2014", "val2014_obj36.zip (8 GB)"),
    RegionFile("mscoco_imgfeat/test2015", "test2015", "test2015_obj36.zip (16 GB)"),
)
VISUAL_GENOME = (
    RegionFile("vg_gqa_imgfeat/vg_gqa", r"^\d+$", "vg_gqa_obj36.zip (30 GB)"),
    RegionFile("vg_gqa_imgfeat/gqa_testdev", r"^n\d+$", "gqa_testdev_obj36.zip"),
)
NLVR2 = (
    RegionFile("nlvr2_imgfeat/train", r"^train-.*-img[01]$", "train_obj36.zip (21 GB)"),
    RegionFile("nlvr2_imgfeat/valid", r"^dev-.*-img[01]$", "valid_obj36.zip (1.6 GB)"),
    RegionFile("nlvr2_imgfeat/test", r"^test1-.*-img[01]$", "test_obj36.zip (1.6 GB)"),
)


@dataclass(frozen=True)
class Layout:
    """The region files of one data set.

    Args:
        files: those that image ids name.
        folders: where the regions may be of images whose ids name none of them; any file there.
        splits: the released splits and the files that each needs, to name what is missing.
    """

    files: tuple[RegionFile, ...]
    folders: tuple[str, ...]
    splits: Mapping[str, Sequence[str]]

    def file_of(self, image_id: str) -> str | None:
        """The file that an id names, such as mscoco_imgfeat/train2014 for COCO_train2014_000000458752."""
        found = self._pattern.search(image_id)
        return self.files[found.lastindex - 1].name if found and found.lastindex else None

    @cached_property
    def archives(self) -> dict[str, str]:
        """File name -> what the release distributes it in."""
        return {file.name: file.archive for file in self.files}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:  # one search for all files: start-up asks this of every image
        return re.compile("|".join(f"({file.images})" for file in self.files))
