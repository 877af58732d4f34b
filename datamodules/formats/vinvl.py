"""VinVL's TSV files: an image id and its regions, in one of three forms.

| columns | of |
|---|---|
| id, number of regions, base64 of float32 (n, F + 6) | the released features.tsv |
| id, JSON with num_boxes and features, the same base64 | feature.tsv of the tasks |
| id, JSON with image_w, image_h and objects, each with rect in pixels and feature in base64 | predictions.tsv |

The last six numbers of a region are x1 y1 x2 y2 and width and height, in fractions. The `.lineidx` beside is not
needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pybase64
from tqdm import tqdm

from datamodules.formats.release_tsv import Line, indexed_lines, tsv_lines
from datamodules.stores import (
    BOM,
    LARGEST_NUMBER,
    LONGEST_ID,
    Handling,
    Index,
    Regions,
    StoreError,
    check_file,
    check_id,
    convert_regions,
    reject,
    shown_id,
)
from lxmert.files import InputError, parse_json

_POSITION = 6
_TOLERANCE = 1e-3


def convert_vinvl(
    source: Path,
    store: Path,
    *,
    detector: str,
    progress: bool = True,
    handling: Handling = Handling(),  # noqa: B008  # frozen
) -> Path:
    """Convert one of VinVL's TSV files to a region store.

    Image sizes are those of `predictions.tsv`; the other files have none: 1 x 1 in the store. Labels are unknown.
    Arguments, result and errors are those of `convert_npz`.
    """
    return convert_regions(Path(source), Path(store), detector, progress, index_vinvl, read_vinvl, handling)


def is_vinvl(path: Path) -> bool:
    """Whether the first line of a file is of one of the three forms."""
    with path.open("rb") as file:
        head = file.read(1 << 12).removeprefix(BOM).lstrip(b"\r\n")
    fields = head.partition(b"\n")[0].split(b"\t")
    if len(fields) == 2:
        return fields[1].lstrip().startswith(b"{")
    return len(fields) == 3 and fields[1].isdigit()


def index_vinvl(source: Path, bar: tqdm, index: Index) -> None:
    """Read every line; keep ids, counts and places."""
    check_file(source)
    digest, place = hashlib.sha256(), 0
    lines_of: dict[bytes, int] = {}
    with source.open("rb", buffering=0) as file:
        for number, line in enumerate(tsv_lines(file, source), 1):
            digest.update(line.content)
            bar.update(len(line.content))
            if not line.is_blank:
                with index.attempt():
                    image_id, regions = _regions(line, source, number)
                    count, dim = regions.features.shape
                    if index.feature_dim and dim != index.feature_dim:
                        reject(regions.where, f"{dim} features, expected {index.feature_dim} as in the first line")
                    if image_id in lines_of:
                        before = f"line {lines_of[image_id]} is of the same image, expected one line each"
                        reject(regions.where, before, "images that are there twice")
                    index.feature_dim = dim
                    lines_of[image_id] = number
                    index.add(image_id, regions.size, count, (place, number))
            place += len(line.content)
    if not index.counts and not index.skipped:
        raise StoreError(f"{source}: the file is empty, expected a line for each image. Check the path.")
    index.sha256 = digest.hexdigest()


def read_vinvl(source: Path, index: Index, start: int) -> Generator[Regions, None, None]:
    """Read the images from number `start` on."""
    for image, number, line in indexed_lines(source, index, start):
        image_id, regions = _regions(line, source, number)
        if (image_id, *regions.features.shape) != (index.image_ids[image], index.counts[image], index.feature_dim):
            raise StoreError(f"{source}: changed while it was converted. Run the conversion again.")
        yield regions


def _regions(line: Line, source: Path, number: int) -> tuple[bytes, Regions]:
    fields = bytes(line.content).rstrip(b"\r\n").split(b"\t")
    image_id = fields[0].removeprefix(BOM) if number == 1 else fields[0]
    where = f"{source}: line {number}, image {shown_id(image_id[: LONGEST_ID + 1]) or '(no id)'}"
    check_id(image_id, where)
    if len(fields) == 3:
        count = int(fields[1]) if fields[1].isdigit() and len(fields[1]) < 10 else 0
        return image_id, _with_positions(fields[2], count, where)
    if len(fields) != 2:
        reject(where, f"{len(fields)} columns, expected 2 or 3; the line may be truncated")
    try:
        found = parse_json(fields[1], where)
    except InputError as error:
        reject(where, str(error).removeprefix(f"{where}: ").strip(" ."))
    if isinstance(found, dict) and isinstance(found.get("objects"), list):
        return image_id, _detections(found, where)
    if not isinstance(found, dict) or "features" not in found:
        reject(where, "no features and no objects in its JSON, expected one of these")
    return image_id, _with_positions(found["features"], found.get("num_boxes"), where)


def _with_positions(text: Any, count: Any, where: str) -> Regions:
    """Regions whose features end with their positions."""
    if type(count) is not int or not 1 <= count <= LARGEST_NUMBER:
        reject(where, f"its number of regions is {count!r:.40}, expected 1 or more")
    values = _floats(text, where)
    if len(values) % count or len(values) // count <= _POSITION:
        reject(where, f"{len(values)} numbers for {count} regions, expected F + {_POSITION} of each")
    rows = values.reshape(count, -1)
    features, boxes, sides = rows[:, :-_POSITION], rows[:, -6:-2], rows[:, -2:]
    with np.errstate(invalid="ignore"):
        fits = np.abs(boxes[:, 2:] - boxes[:, :2] - sides) <= _TOLERANCE
        fits |= np.abs(boxes[:, 2:] - boxes[:, :2] - sides[:, ::-1]) <= _TOLERANCE  # height before width
    if not fits.all():
        what = f"a region's last six numbers are {rows[~fits.all(1)][0, -6:].tolist()}"
        reject(where, f"{what}, expected its box in fractions x1 y1 x2 y2 and its width and height")
    features, boxes = (np.array(each, np.float32, order="C") for each in (features, boxes))
    return Regions(where, (1, 1), features, boxes, fractions=True)


def _detections(found: dict[str, Any], where: str) -> Regions:
    """Regions of the detector's own output, where it was told to write features."""
    width, height = found.get("image_w"), found.get("image_h")
    if any(type(side) is not int or not 1 <= side <= LARGEST_NUMBER for side in (width, height)):
        reject(where, f"image_w and image_h are {width!r:.30} and {height!r:.30}, expected whole numbers above 0")
    objects = found["objects"]
    if not objects or any(not isinstance(each, dict) or "feature" not in each for each in objects):
        reject(where, "objects without features, expected rect and feature of each: have the detector write them")
    features = [_floats(each["feature"], where) for each in objects]
    if len({len(each) for each in features}) != 1 or not len(features[0]):
        reject(where, "features of several lengths, expected the same of each object")
    try:
        boxes = np.array([each["rect"] for each in objects], np.float32).reshape(len(objects), 4)
    except (KeyError, TypeError, ValueError, OverflowError):
        reject(where, "objects without rect, expected x1 y1 x2 y2 in pixels of each")
    return Regions(where, (cast(int, width), cast(int, height)), np.stack(features), boxes)


def _floats(text: Any, where: str) -> np.ndarray:
    try:
        return np.frombuffer(pybase64.b64decode_as_bytearray(text, validate=True), "<f4")
    except (ValueError, TypeError) as error:  # binascii.Error is one
        reject(where, f"features ({error!s:.100}), expected base64 of float32")
