"""Files and examples of chosen regions, in place of those of answers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lxmert.batch import Batch
from lxmert.callbacks.examples import Examples
from lxmert.callbacks.predictions import Rows, SplitFiles, check_distinct
from lxmert.evaluate import Task
from lxmert.files import write_text
from lxmert.objectives.base import Result
from lxmert.report import Example, Frame, View

HIT = 0.5  # intersection over union of what is right
SHOWN = 3  # regions beside a picture
NOTE = (
    "Orange: the region that was chosen; blue and dashed: what the sentence means; red: the regions with the "
    "highest scores, which are below it; under these, the regions that are right, with their intersection over "
    "union. Click a region for its number."
)


class RegionFiles(SplitFiles):
    """One file for each split, `<split>.json`: `[{"id", "box": [x, y, width, height], "score"}]` by ascending id.

    Boxes are in pixels, scores from 0 to 1; `python -m lxmert.evaluate refcoco` measures it.
    """

    def rows_of(self, learner: Any, results: dict[str, Result], batch: Batch) -> RegionRows:
        """The chosen box of each row."""
        found = choosing(results).predictions
        sides = batch.targets["image_size"][batch.row_image].repeat(1, 2)
        score = found["scores"].amax(1).sigmoid()
        places = np.array(batch.example_places, np.int64)
        return RegionRows(places, (found["box"].float() * sides).cpu().numpy(), score.cpu().numpy())

    def write_split(self, split: str, task: Task, known: Iterable[Any], rows: RegionRows, learner: Any) -> Path:
        """Write the file of a split."""
        ids = [id_ for block in known for id_ in block.ids]
        check_distinct(split, ids)
        boxes = rows.box.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        # Thousandths of a pixel, so that no rounding decides whether a box is right.
        found = zip(ids, boxes.round(3).tolist(), rows.score.astype(np.float64).round(6).tolist(), strict=True)
        entries = [{"id": id_, "box": box, "score": score} for id_, box, score in sorted(found)]
        path = self.folder / f"{split}.json"
        write_text(path, json.dumps(entries, allow_nan=False) + "\n")
        return path


@dataclass
class RegionRows(Rows):
    """(n, 4) boxes x1 y1 x2 y2 in pixels, and (n,) their scores from 0 to 1."""

    box: np.ndarray
    score: np.ndarray


class RegionExamples(Examples):
    """Picks examples spread over an evaluated split, with the region that was chosen and what is meant."""

    note = NOTE

    def examples_of(
        self, data: Any, role: str, learner: Any, results: dict[str, Result], batch: Batch, chosen: Tensor
    ) -> list[Example]:
        """The `chosen` examples (C,) int64 of a batch of `role` (valid, test)."""
        found = choosing(results).predictions
        return [make_region_example(data, role, found, batch, row) for row in chosen.tolist()]


def make_region_example(data: Any, role: str, found: dict[str, Tensor], batch: Batch, row: int) -> Example:
    """A row of a batch of `role`, as the report shows it; `found` is what `RegionChoice` predicts."""
    image = int(batch.row_image[row])
    real = batch.region_mask[image]
    scores, labels, ious = (found[name][row, real].cpu() for name in ("scores", "labels", "ious"))
    scores = scores.sigmoid()
    best = scores.topk(min(SHOWN, len(scores))).indices.tolist()
    tints = [float(score) if region in best else 0.0 for region, score in enumerate(scores)]
    boxes = batch.region_boxes[image, real].cpu()
    x, y, width, height = (batch.targets["box"][row] / batch.targets["image_size"][image].repeat(2)).tolist()
    frames = [Frame("meant", [x, y, x + width, y + height], dashed=True), Frame("chosen", boxes[best[0]].tolist())]
    right = (labels > HIT).nonzero().flatten().tolist()
    return Example(
        question=data.datasets[role].sentence(batch.example_places[row]),
        views=[View(data.picture(batch.image_ids[image]), boxes.tolist(), tints, frames)],
        predictions=[(f"box {region}", float(scores[region])) for region in best],
        answers={f"box {region}": float(ious[region]) for region in sorted(right, key=lambda r: -ious[r])},
    )


def choosing(results: dict[str, Result]) -> Result:
    """Of the objective that chooses regions."""
    return next(result for result in results.values() if "region" in result.predictions)
