"""Does this detector find in these pictures what a released TSV has of them? And if not, what is probably wrong.

Features of the TSV's own boxes are compared apart from the search for boxes: each tells of another part. Where the
features differ, the picture is prepared in the ways in which ports of the detector do, to see which one the file
has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from datamodules.detector import Detector, read_picture, resize
from datamodules.formats.release_tsv import index_tsv, read_tsv
from datamodules.progress import progress_bar
from datamodules.stores import Index, Regions
from lxmert.files import InputError

SAME_BOX = 0.99  # intersection over union
SAME_FEATURE = 0.01  # largest difference of a number, as a share of the region's largest
DIAGNOSED = 2  # pictures


@dataclass
class Compared:
    """One picture.

    Args:
        image: its id.
        boxes: how many the TSV has.
        found: how many the detector found.
        matched: how many of the TSV's are among them.
        worst: the largest difference of a feature over the matched boxes, as a share of the region's largest
            number.
        given: the same over all of the TSV's boxes, given to the detector instead of searched for.
    """

    image: str
    boxes: int
    found: int
    matched: int
    worst: float
    given: float

    @property
    def matches(self) -> bool:
        """All boxes, and their features."""
        return self.matched == self.boxes == self.found and self.worst <= SAME_FEATURE


@dataclass
class Verdict:
    """Of all pictures.

    Args:
        pictures: one by one.
        causes: what is probably wrong, where they do not match.
    """

    pictures: list[Compared] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)

    @property
    def matches(self) -> bool:
        """Every picture."""
        return all(each.matches for each in self.pictures)


def verify(detector: Detector, pictures: Mapping[str, Path], tsv: Path, progress: bool = True) -> Verdict:
    """Compare a detector with a TSV of the released format.

    Args:
        detector: to be judged.
        pictures: image id -> file.
        tsv: what is right.
        progress: show a bar.

    Raises:
        InputError: none of the pictures is in the TSV, or its features are of another size.
        StoreError: the TSV is broken.
    """
    index = Index()
    with progress_bar(tsv.name, tsv.stat().st_size if tsv.exists() else None, shown=False) as bar:
        index_tsv(tsv, bar, index)
    if index.feature_dim != detector.feature_dim:
        raise InputError(
            f"{tsv}: regions of {index.feature_dim} features; this detector gives {detector.feature_dim}. It is "
            "of another one"
        )
    there = sum(image.decode(errors="replace") in pictures for image in index.image_ids)
    if not there:
        raise InputError(f"{tsv}: none of its {len(index.image_ids)} images is among the {len(pictures)} pictures")
    verdict = Verdict()
    wrong: list[tuple[Path, Regions]] = []
    with progress_bar("compared", there, "picture", shown=progress) as bar:
        for image, regions in zip(index.image_ids, read_tsv(tsv, index, 0), strict=True):
            path = pictures.get(image.decode(errors="replace"))
            if path is None:
                continue
            compared = compare(detector, read_picture(path), regions, path.stem)
            verdict.pictures.append(compared)
            if not compared.matches and len(wrong) < DIAGNOSED:
                wrong.append((path, regions))
            bar.update()
    if wrong:
        verdict.causes = diagnose(detector, wrong, verdict)
    return verdict


def compare(detector: Detector, picture: np.ndarray, regions: Regions, image: str) -> Compared:
    """What a detector finds in a picture beside what a TSV has of it."""
    height, width = picture.shape[:2]
    if (width, height) != tuple(regions.size):
        raise InputError(
            f"{image}: the picture has {width} x {height} pixels, in the TSV {regions.size[0]} x "
            f"{regions.size[1]}: it is another version of it"
        )
    found = detector.detect(picture)
    given = detector.detect(picture, boxes=_inside(regions.boxes, width, height))
    overlaps = overlap(regions.boxes, found.boxes)
    pairs = [(box, int(best)) for box, best in enumerate(overlaps.argmax(1)) if overlaps[box, best] > SAME_BOX]
    ours, theirs = [pair[1] for pair in pairs], [pair[0] for pair in pairs]
    return Compared(
        image,
        len(regions.boxes),
        len(found),
        len(set(ours)),
        difference(found.features[ours], regions.features[theirs]) if pairs else float("nan"),
        difference(given.features, regions.features),
    )


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference of a number, as a share of its region's largest in `theirs`; both (n, F)."""
    largest = np.maximum(theirs.max(1), 1e-6)
    return float((np.abs(ours - theirs).max(1) / largest).max())


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and (m, 4): (n, m)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


# -------------------------------------------------------------------------------------- what is wrong


def diagnose(detector: Detector, wrong: list[tuple[Path, Regions]], verdict: Verdict) -> list[str]:
    """What probably keeps the detector from finding what the TSV has, the surest first."""
    causes = []
    tried = {way: max(_prepared(detector, way, *each) for each in wrong) for way in WAYS}
    best = min(tried, key=lambda way: tried[way])
    if max(each.given for each in verdict.pictures) <= SAME_FEATURE:
        causes.append(
            "the network, its weights and the pictures are right, since features of the TSV's own boxes match: "
            "what differs is which boxes are chosen"
        )
        causes += _of_boxes(detector, wrong)
    elif tried[best] <= SAME_FEATURE and best != AS_IT_IS:
        causes.append(
            f"the TSV was made with {best}: so prepared, features of its boxes match ({tried[best]:.4f})"
        )
    else:
        causes.append(
            "features of the TSV's own boxes do not match, however the picture is prepared ("
            + ", ".join(f"{way} {value:.3f}" for way, value in tried.items())
            + "): these are other weights (the 36-box and the 10-100 model are two files), or badly converted ones"
        )
        causes += _of_boxes(detector, wrong)
    return causes


def _of_boxes(detector: Detector, wrong: list[tuple[Path, Regions]]) -> list[str]:
    """What the TSV's boxes tell of the way in which they were chosen."""
    found = []
    rule = detector.config.box_rule
    counts = sorted({len(regions.boxes) for _, regions in wrong})
    if any(not rule.fewest <= count <= rule.most for count in counts):
        numbers = ", ".join(map(str, counts))
        found.append(f"the TSV has {numbers} boxes a picture, and the detector's rule is {rule}: 36 or 10-100")
    for path, regions in wrong:
        scale = resize(read_picture(path), detector.config).scale
        beyond = regions.boxes[:, 2:] * scale - (np.round(np.array(regions.size) * scale) - 1)
        if beyond.max() > 0.01:
            found.append(
                "boxes of the TSV reach the border of the resized picture, one pixel further than Caffe's code "
                "lets them: it was made by a port (detectron2, the hub's)"
            )
            break
    return found


AS_IT_IS = "the picture as Caffe's code prepares it"
WAYS = {
    AS_IT_IS: (False, "ours", 1.0),
    "red and blue exchanged": (True, "ours", 1.0),
    "the picture resized by torch's interpolate": (False, "interpolate", 1.0),
    "the picture resized by Pillow": (False, "pillow", 1.0),
    "a short side of 800 pixels, as ports have by default": (False, "ours", 800 / 600),
}


def _prepared(detector: Detector, way: str, path: Path, regions: Regions) -> float:
    """The largest difference of features of the TSV's boxes, the picture being prepared in one of `WAYS`."""
    exchanged, resizing, larger = WAYS[way]
    config = replace(
        detector.config,
        short_side=round(detector.config.short_side * larger),
        long_side=round(detector.config.long_side * larger),
    )
    picture = read_picture(path)
    picture = np.ascontiguousarray(picture[..., ::-1]) if exchanged else picture
    image, scale = resize(picture, config)
    mean = np.array(config.pixel_mean, np.float32)
    tensor = torch.from_numpy(image)[None]
    height, width = image.shape[1:]
    if resizing == "interpolate":
        plain = torch.from_numpy(picture - mean).permute(2, 0, 1)[None]
        tensor = F.interpolate(plain, (height, width), mode="bilinear", align_corners=False)
    elif resizing == "pillow":
        resized = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
        tensor = torch.from_numpy(resized - mean).permute(2, 0, 1)[None]
    boxes = _inside(regions.boxes, *regions.size) * scale
    return difference(_described(detector, tensor, boxes), regions.features)


@torch.inference_mode()
def _described(detector: Detector, tensor: Tensor, boxes: np.ndarray) -> np.ndarray:
    """Features of boxes in a prepared picture (1, 3, H, W)."""
    feature_map = detector.network.backbone(tensor.float().to(detector.device))
    regions = torch.from_numpy(boxes.astype(np.float32)).to(detector.device)
    return detector.network.describe(feature_map, regions).cpu().numpy()


def _inside(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes cut to the picture: ports' reach half a pixel out of it."""
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))


# ----------------------------------------------------------------------------------------- the table


def print_verdict(verdict: Verdict) -> bool:
    """Print what was compared, and whether it matches; returns that."""
    console = Console(highlight=False)
    console.width = max(console.width, 110)  # in a file too, names are not cut
    table = Table(title="against the TSV", title_justify="left")
    columns = ("picture", "boxes", "found", "the same", "features of those", "features of the TSV's boxes", "")
    for column in columns:
        table.add_column(column, justify="left" if column in ("picture", "") else "right")
    for each in verdict.pictures:
        said = "match" if each.matches else "no match"
        numbers = (str(each.boxes), str(each.found), str(each.matched), f"{each.worst:.4f}", f"{each.given:.4f}")
        table.add_row(each.image, *numbers, said)
    console.print(table)
    console.print(
        f"the same: intersection over union above {SAME_BOX}; features: the largest difference of a number, as a "
        f"share of its region's largest, at most {SAME_FEATURE}",
        soft_wrap=True,
    )
    matching = sum(each.matches for each in verdict.pictures)
    console.print(f"{'match' if verdict.matches else 'NO MATCH'}: {matching} of {len(verdict.pictures)} pictures")
    for cause in verdict.causes:
        console.print(f"  probably: {cause}.", soft_wrap=True)
    return verdict.matches
