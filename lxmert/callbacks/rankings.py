"""Retrieval after a test: all captions of a split against all of its images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.pytorch.strategies import FSDPStrategy

from lxmert.callbacks.pages import write_page
from lxmert.callbacks.predictions import of_split
from lxmert.files import InputError
from lxmert.report import Example, draw_curves
from lxmert.retrieve import (
    NOTE,
    ScoreFile,
    fingerprint_of,
    found_examples,
    ranks_of,
    score_pairs,
    summarize,
    write_results,
)

log = logging.getLogger(__name__)


class Rankings(Callback):
    """Scores each caption of a tested split with each of its images, every process its share.

    Logs `test/retrieval/image_retrieval/recall_at_1` and so on (`lxmert.retrieve.summarize`; recalls in 0..1), of
    several splits each as `.../split/<split>`. Writes `<split>_scores.npy` and `.json` (`ScoreFile`),
    `<split>_rankings.json` (`write_results`), and the report page. A test of some of its batches alone does not
    score.

    Args:
        folder: where the files go.
        page: the HTML page to write.
        rows: pairs that are scored at once.
    """

    def __init__(self, folder: str, page: str, rows: int = 1024) -> None:
        if rows < 1:
            raise InputError(
                f"callbacks.rankings.rows={rows}; expected how many pairs to score at once, 1 or more"
            )
        self.folder, self.page, self.rows = Path(folder), Path(page), rows
        self.examples: list[Example] = []

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """InputError: nothing is predicted."""
        raise InputError(
            "captions and images are ranked, not predicted: take action=test, or python -m lxmert.retrieve"
        )

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Score, write and log."""
        self.examples = []
        if trainer.num_test_batches != [len(trainer.test_dataloaders)]:
            log.info("part of a split alone is tested: its captions are not scored with all images")
            return
        if isinstance(trainer.strategy, FSDPStrategy):
            log.warning(
                "captions are not scored with all images where weights are sharded: python -m lxmert.retrieve "
                "does it, of the run's folder"
            )
            return
        splits = trainer.datamodule.splits["test"]
        for number, split in enumerate(splits):
            for name, value in self._score(trainer, pl_module, number, split).items():
                told = of_split(name, split) if len(splits) > 1 else name
                pl_module.log(f"test/retrieval/{told}", value, sync_dist=True)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the page."""
        if self.examples:
            curves = draw_curves(self.page.parent / "logs" / "metrics.csv")
            write_page(self.page, trainer, curves, self.examples, NOTE)

    def _score(self, trainer: Any, learner: Any, number: int, split: str) -> dict[str, float]:
        """Metrics of a split, on every process."""
        data, strategy, head = trainer.datamodule, trainer.strategy, learner.objectives["retrieval"].head
        collection = data.captions_of("test", number)
        file = None
        if trainer.is_global_zero:
            weights = fingerprint_of(learner.model.state_dict(), head.state_dict())
            file = ScoreFile.make(self.folder, f"{split}_scores", collection, weights, anew=True)
            pairs = len(collection.caption_ids) * len(collection.image_ids)
            log.info("scoring %s pairs of %s, to %s", f"{pairs:,}", split, file.path)
        file = strategy.broadcast(file)
        scores, share = file.open(), (trainer.global_rank, trainer.world_size)
        score_pairs(learner.model, head, collection, scores, rows=self.rows, share=share)
        scores.flush()
        strategy.barrier()
        found: dict[str, float] = {}
        if trainer.is_global_zero:
            for name, values in summarize(ranks_of(scores, collection.image_of)).items():
                for metric, value in values.items():
                    found[f"{name}/{metric}"] = value / 100 if metric.startswith("recall") else value
            write_results(self.folder / f"{split}_rankings.json", collection, scores)
            self.examples += found_examples(collection, scores, data.picture)
        return strategy.broadcast(found)
