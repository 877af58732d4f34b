"""Does this detector find in these pictures what a released TSV has of them? And if not, what is probably wrong.

Features of the TSV's own boxes are compared apart from the search for boxes: each tells of another part. Where
they differ, some pictures are looked at again in the ways of the detector's ports, first to find how the TSV's
pictures were prepared, by the features of its boxes, then how its boxes were chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.nn.functional import interpolate
from tqdm import tqdm

from datamodules.detector import BoxRule, Detections, Detector, Resized, overlap, read_picture
from datamodules.formats.release_tsv import index_tsv, read_tsv
from datamodules.progress import progress_bar
from datamodules.stores import Index, Regions
from lxmert.files import InputError

SAME_BOX = 0.99  # intersection over union
SAME_FEATURE = 0.01  # largest difference of a number, as a share of the region's largest
DIAGNOSED = 2  # pictures, of different sizes where there are some
MOST = 0.9  # of the regions; a box kept as float32 may be pooled a cell further
PORTS_SHORT, PORTS_LONG = 800 / 600, 1333 / 1000  # of the published sides


@dataclass
class Compared:
    """One picture.

    Args:
        image: its id.
        boxes: how many the TSV has.
        found: how many the detector found.
        matched: how many of the TSV's are among them.
        worst: the largest difference of a feature over the matched boxes, as a share of the region's largest
            number; NaN without any.
        given: the same of each of the TSV's boxes, given to the detector instead of searched for: (boxes,).
    """

    image: str
    boxes: int
    found: int
    matched: int
    worst: float
    given: np.ndarray

    @property
    def matches(self) -> bool:
        """All boxes, and their features."""
        return self.matched == self.boxes == self.found and self.worst <= SAME_FEATURE


@dataclass(frozen=True)
class Way:
    """A way to look at a picture: the original's, or what ports do instead."""

    exchanged: bool = False
    resizing: str = "OpenCV"
    ports_sides: bool = False
    pixel: int = 1
    rule: BoxRule | None = None

    def __str__(self) -> str:
        told = [
            "red and blue exchanged" * self.exchanged,
            f"resized as {self.resizing} does" * (self.resizing != "OpenCV"),
            "a short side of 800 instead of 600" * self.ports_sides,
            "boxes without the 1 of their last pixel, and up to the border" * (not self.pixel),
            "" if self.rule is None else f"{self.rule} boxes",
        ]
        return ", ".join(filter(None, told)) or "as the original"

    @property
    def changes(self) -> int:
        """In how many respects it is not the original's."""
        return self.exchanged + (self.resizing != "OpenCV") + self.ports_sides + (not self.pixel)


@dataclass
class Tried:
    """What came of a way: of `boxes` of the TSV `matched` are found, or described; `worst` as in `Compared`."""

    way: Way
    searched: bool
    boxes: int = 0
    matched: int = 0
    worst: float = 0.0

    @property
    def matches(self) -> bool:
        """So nearly all that chance cannot be why."""
        return self.matched >= MOST * self.boxes

    def __str__(self) -> str:
        return str(self.way) + ("" if self.searched else ", the TSV's boxes given")


@dataclass
class Verdict:
    """Of all pictures.

    Args:
        pictures: one by one.
        absent: how many images of the TSV have no picture here.
        tried: ways, where they do not match.
        causes: what is probably wrong.
    """

    pictures: list[Compared] = field(default_factory=list)
    absent: int = 0
    tried: list[Tried] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)

    @property
    def matches(self) -> bool:
        """Every picture."""
        return all(each.matches for each in self.pictures)


@dataclass
class Sample:
    """A picture (h, w, 3) and what the TSV has of it."""

    picture: np.ndarray
    regions: Regions


def verify(
    detector: Detector,
    pictures: Mapping[str, Path],
    tsv: Path,
    rule: BoxRule | None = None,
    progress: bool = True,
) -> Verdict:
    """Compare a detector with a TSV of the released format.

    Args:
        detector: to be judged.
        pictures: image id -> file.
        tsv: what is right.
        rule: how many boxes; None: as the detector's file says.
        progress: show bars.

    Raises:
        InputError: none of the pictures is in the TSV, one is of another size there, or its features are.
        StoreError: the TSV is broken.
    """
    index = Index()
    with progress_bar(tsv.name, shown=False) as bar:
        index_tsv(tsv, bar, index)
    if index.feature_dim != detector.feature_dim:
        raise InputError(
            f"{tsv}: regions of {index.feature_dim} features; this detector gives {detector.feature_dim}. It is "
            "of another one"
        )
    ids = [image.decode() for image in index.image_ids]
    there = [image for image in ids if image in pictures]
    if not there:
        raise InputError(
            f"{tsv}: none of its {len(ids)} images, such as {ids[0]}, is among the {len(pictures)} pictures"
        )
    verdict = Verdict(absent=len(ids) - len(there))
    wrong: list[Sample] = []
    with progress_bar("compared", len(there), "picture", shown=progress) as bar:
        for image, regions in zip(ids, read_tsv(tsv, index, 0), strict=True):
            if image not in pictures:
                continue
            sample = Sample(read_picture(pictures[image]), regions)
            compared = compare(detector, sample, image, rule)
            verdict.pictures.append(compared)
            if not compared.matches:
                _keep(wrong, sample)
            bar.update()
    if wrong:
        counts = [each.boxes for each in verdict.pictures]
        rules = {rule or detector.config.box_rule, _rule_of(counts)}
        with progress_bar("ways tried", unit="way", shown=progress) as bar:
            diagnose(detector, wrong, verdict, sorted(rules, key=str), bar)
    return verdict


def _keep(wrong: list[Sample], sample: Sample) -> None:
    """Keep a few samples, of different sizes if there are: some sizes hide how they were resized."""
    if len(wrong) < DIAGNOSED:
        wrong.append(sample)
    elif len({each.picture.shape for each in wrong}) == 1 and sample.picture.shape != wrong[0].picture.shape:
        wrong[-1] = sample


def _rule_of(counts: Sequence[int]) -> BoxRule:
    """By which rule there were so many boxes."""
    return (
        BoxRule(max(counts), max(counts))
        if len(set(counts)) == 1
        else BoxRule(min(10, *counts), max(100, *counts))
    )


def compare(detector: Detector, sample: Sample, image: str, rule: BoxRule | None = None) -> Compared:
    """What a detector finds in a picture beside what a TSV has of it."""
    height, width = sample.picture.shape[:2]
    if (width, height) != tuple(sample.regions.size):
        raise InputError(
            f"{image}: the picture has {width} x {height} pixels, in the TSV {sample.regions.size[0]} x "
            f"{sample.regions.size[1]}: it is another version of it"
        )
    found = detector.detect(sample.picture, rule)
    matched, worst = _match(found, sample.regions)
    return Compared(image, len(sample.regions.boxes), len(found), matched, worst, _given(detector, sample))


def _match(found: Detections, regions: Regions) -> tuple[int, float]:
    """How many of the TSV's boxes were found, and the worst difference of their features."""
    overlaps = overlap(regions.boxes, found.boxes)
    pairs = {int(best): box for box, best in enumerate(overlaps.argmax(1)) if overlaps[box, best] > SAME_BOX}
    if not pairs:
        return 0, float("nan")
    return len(pairs), float(difference(found.features[[*pairs]], regions.features[[*pairs.values()]]).max())


def _given(detector: Detector, sample: Sample) -> np.ndarray:
    """The difference of the features of each of the TSV's boxes: (n,)."""
    width, height = sample.regions.size
    # Cut to the picture: ports' boxes reach half a pixel out of it.
    boxes = np.clip(sample.regions.boxes, 0, np.array([width, height] * 2, np.float32))
    return difference(detector.detect(sample.picture, boxes=boxes).features, sample.regions.features)


def difference(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """The largest difference of a number, as a share of its region's largest in `theirs`; both (n, F): (n,)."""
    largest = np.maximum(theirs.max(1), 1e-6)
    return np.abs(ours - theirs).max(1) / largest


# -------------------------------------------------------------------------------------- what is wrong


class _Port(Detector):
    """A detector that looks at pictures in another way."""

    def __init__(self, detector: Detector, way: Way) -> None:
        self.__dict__ |= detector.__dict__
        self.way, self.pixel = way, way.pixel
        if way.ports_sides:
            short, long = detector.config.short_side * PORTS_SHORT, detector.config.long_side * PORTS_LONG
            self.config = replace(detector.config, short_side=round(short), long_side=round(long))

    def prepare(self, picture: np.ndarray) -> Resized:
        if self.way.exchanged:
            picture = picture[..., ::-1]
        image, scale = super().prepare(picture)
        mean, (height, width) = np.array(self.config.pixel_mean, np.float32), image.shape[1:]
        if self.way.resizing == "torch's interpolate":
            plain = torch.from_numpy(picture - mean).permute(2, 0, 1)[None]
            image = interpolate(plain, (height, width), mode="bilinear", align_corners=False)[0].numpy()
        elif self.way.resizing == "Pillow":
            whole = Image.fromarray(np.ascontiguousarray(picture))
            resized = np.asarray(whole.resize((width, height), Image.Resampling.BILINEAR))
            image = np.ascontiguousarray((resized - mean).transpose(2, 0, 1))
        return Resized(image, scale)


RESIZINGS = ("OpenCV", "torch's interpolate", "Pillow")
PREPARED = sorted(
    (Way(*each) for each in product((False, True), RESIZINGS, (False, True))), key=lambda w: w.changes
)


def diagnose(
    detector: Detector, wrong: Sequence[Sample], verdict: Verdict, rules: Sequence[BoxRule], bar: tqdm
) -> None:
    """Find out, into `verdict`, what probably keeps the detector from finding what the TSV has.

    Args:
        detector: as it is.
        wrong: pictures that do not match.
        verdict: of all pictures.
        rules: for the number of boxes.
        bar: moves by a way each.
    """
    bar.total = len(PREPARED)
    prepared = [_try(detector, way, wrong, False, bar) for way in PREPARED]
    fitting = [tried for tried in prepared if tried.matches]
    plain = prepared[0]
    best = plain if plain.matches else min(fitting or prepared, key=lambda tried: (-tried.matched, tried.worst))
    verdict.tried += prepared
    if not best.matches:
        verdict.causes.append(
            "other weights (the 36-box and the 10-100 model are two files), or badly converted ones: features of "
            "the TSV's own boxes do not match, however the picture is prepared"
        )
        verdict.causes += _of_border(detector, wrong)
        return
    if best is not plain:
        verdict.causes.append(f"the TSV was made with {best.way}: so, features of its own boxes match")
    ways = [replace(best.way, pixel=pixel, rule=rule) for pixel in (1, 0) for rule in rules]
    bar.total += len(ways)
    searched = [_try(detector, way, wrong, True, bar) for way in ways]
    verdict.tried += searched
    found = max(searched, key=lambda tried: tried.matched)
    if found.matches and (found is not searched[0] or best is plain):
        verdict.causes.append(f"the TSV's boxes are found with: {found.way}")
    elif not found.matches:
        verdict.causes.append(
            "weights and preparation of the pictures are right, and what differs is which boxes are chosen, in "
            "none of the ways tried; ports write boxes that were moved by their class"
        )
        verdict.causes += _of_border(detector, wrong)


def _try(detector: Detector, way: Way, wrong: Sequence[Sample], searched: bool, bar: tqdm) -> Tried:
    """Search for the TSV's boxes in a way, or describe them so."""
    port, tried = _Port(detector, way), Tried(way, searched)
    for sample in wrong:
        tried.boxes += len(sample.regions.boxes)
        if searched:
            found = port.detect(sample.picture, way.rule)
            tried.boxes += max(0, len(found) - len(sample.regions.boxes))  # which the TSV has not
            matched, worst = _match(found, sample.regions)
        else:
            differences = _given(port, sample)
            matched, worst = int((differences <= SAME_FEATURE).sum()), float(differences.max())
        tried.matched += matched
        tried.worst = max(tried.worst, worst)
    bar.update()
    return tried


def _of_border(detector: Detector, wrong: Sequence[Sample]) -> list[str]:
    """What the TSV's boxes tell of who made them."""
    for sample in wrong:
        scale = detector.prepare(sample.picture).scale
        last = np.round(np.array(sample.regions.size) * scale) - 1
        if (sample.regions.boxes[:, 2:] * scale - last).max() > 0.01:
            return [
                "a port made the TSV (detectron2, the hub's): its boxes reach the border of the resized picture, "
                "a pixel further than the original lets them"
            ]
    return []


# ----------------------------------------------------------------------------------------- the tables


def print_verdict(verdict: Verdict) -> bool:
    """Print what was compared, and whether it matches; returns that."""
    console = Console(highlight=False)
    console.width = max(console.width, 110)  # in a file too, names are not cut
    columns = ("picture", "boxes", "found", "the same", "features of those", "features of the TSV's boxes", "")
    table = _table("against the TSV", columns)
    for each in verdict.pictures:
        said = "match" if each.matches else "no match"
        numbers = (str(each.boxes), str(each.found), str(each.matched), f"{each.worst:.4f}")
        table.add_row(each.image, *numbers, f"{each.given.max():.4f}", said)
    console.print(table)
    console.print(
        f"the same: intersection over union above {SAME_BOX}; features: the largest difference of a number, as a "
        f"share of its region's largest, at most {SAME_FEATURE}",
        soft_wrap=True,
    )
    if verdict.absent:
        console.print(f"{verdict.absent} more images of the TSV have no picture here")
    matching = sum(each.matches for each in verdict.pictures)
    console.print(f"{'match' if verdict.matches else 'NO MATCH'}: {matching} of {len(verdict.pictures)} pictures")
    if verdict.tried:
        table = _table("tried on some that do not match", ("way", "boxes", "the same", "features", ""))
        for tried in verdict.tried:
            told = (str(tried.boxes), str(tried.matched), f"{tried.worst:.4f}")
            table.add_row(str(tried), *told, "match" if tried.matches else "")
        console.print(table)
    for cause in verdict.causes:
        console.print(f"  probably: {cause}.", soft_wrap=True)
    return verdict.matches


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("picture", "way", "") else "right")
    return table
