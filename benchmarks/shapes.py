"""How many sets of sizes the batches of pre-training have, as they are and as a compiled step gets them.

    python -m benchmarks.shapes [--batches 35000]

The generated set of `benchmarks.pretraining_data`, 9.2 million sentences, with the published objectives and
batches of 256 rows. A set of sizes is a compilation; what fills a batch up is computed for nothing. It fails
above 8.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.pretraining_data import open_data, write_set
from lxmert import LxmertConfig
from lxmert.batch import Batch, Packing
from lxmert.objectives.base import Objective
from lxmert.objectives.masked_language import MaskedLanguage
from lxmert.objectives.masked_region import MaskedRegion
from lxmert.objectives.matching import Matching
from lxmert.objectives.question_answering import QuestionAnswering
from lxmert.objectives.shapes import BARE, Shapes, with_features

MOST = 8  # the goal


def main() -> int:
    """Go through a part of an epoch and print; 1 where there are too many sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=180_000)
    parser.add_argument("--batches", type=int, default=8_000, help="an epoch has 35,000")
    parser.add_argument("--folder", type=Path, help="keep the set there, or use the one that is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        write_set(folder, options.images)
        counts = {rows_per_image: count(folder, rows_per_image, options.batches) for rows_per_image in (1, 4)}
    return 0 if max(counts.values()) <= MOST else 1


def count(folder: Path, rows_per_image: int, batches: int) -> int:
    """The sets of sizes of the first epoch's batches; what they are is printed."""
    data = open_data(folder, rows_per_image)
    data.prepare_data("fit")
    data.setup("fit")
    config = LxmertConfig(
        hidden_size=12, num_attention_heads=1, intermediate_size=12, visual_feat_dim=data.feature_dim
    )
    objectives: list[Objective] = [
        make(config) for make in (Matching, MaskedLanguage, MaskedRegion, QuestionAnswering)
    ]
    shapes = Shapes(data.max_length, data.most_regions, objectives)

    def prepared(batch: Batch) -> Batch:
        batch = shapes.lengthen(batch)
        for objective in objectives:
            batch = objective.prepare_batch(batch, seed=0)
        return batch

    shapes.measure([prepared(batch) for batch in data.sample()])
    exact: Counter[tuple] = Counter()
    fixed: Counter[tuple] = Counter()
    real = places = number = 0
    start = time.perf_counter()
    for number, rows in enumerate(data.train_dataloader().sampler, 1):
        batch = prepared(data.datasets["train"].read(rows))
        exact[tuple(shapes.sizes(batch).items())] += 1
        full = with_features(replace(shapes.fill(batch), **BARE))
        fixed[sizes_of(full)] += 1
        real += shapes.sizes(batch)["row_token_packing"]
        places += len(full.row_token_packing.index)  # type: ignore[arg-type]
        if number == batches:
            break
    shares = ", ".join(f"{share / number:.3%}" for _, share in fixed.most_common())
    speed = number * 256 / (time.perf_counter() - start)
    print(
        f"rows_per_image={rows_per_image}: {number:,} batches, {len(exact):,} sets of sizes as they are, "
        f"{len(fixed)} filled up ({shares}), {places / real - 1:.1%} more words computed; {speed:,.0f} rows/s"
    )
    return len(fixed)


def sizes_of(batch: Batch) -> tuple:
    """The shapes of all tensors of a batch."""
    tensors = {**vars(batch), **batch.targets}
    found = [(name, tuple(each.shape)) for name, each in tensors.items() if isinstance(each, torch.Tensor)]
    packings = [(name, each.index) for name, each in vars(batch).items() if isinstance(each, Packing)]
    found += [(name, tuple(index.shape)) for name, index in packings if index is not None]
    return tuple(sorted(found))


if __name__ == "__main__":
    sys.exit(main())
