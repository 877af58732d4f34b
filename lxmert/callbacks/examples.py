"""Examples of an evaluated split with what their answers come of, for the report page and for W&B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from torch import Tensor

from lxmert.batch import Batch
from lxmert.callbacks.pages import write_page
from lxmert.callbacks.predictions import answering
from lxmert.callbacks.wandb_table import log_table, wandb_logger
from lxmert.explain import explain_head
from lxmert.objectives.base import Result
from lxmert.report import RELEVANCE, Example, View, draw_curves


class Examples(Callback):
    """Picks examples spread over an evaluated split, with what words and regions are to their answers.

    They fill the report page after a test and, with the W&B logger, a table after each validation.

    Args:
        page: the HTML page to write.
        count: examples to show.

    Attributes:
        note: how the page's examples are to be read.
    """

    note: str = RELEVANCE

    def __init__(self, page: str, count: int = 24) -> None:
        self.page = Path(page)
        self.count = count
        self.examples: list[Example] = []

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the last pass."""
        self.examples = []

    on_validation_start = on_test_start

    def on_test_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect some of each batch."""
        role = "test" if trainer.testing else "valid"
        num_batches = (trainer.num_test_batches if trainer.testing else trainer.num_val_batches)[0]
        number = len(batch.example_ids)
        wanted = min(-(-self.count // num_batches), self.count - len(self.examples), number)
        if not trainer.is_global_zero or wanted <= 0:
            return
        chosen = torch.linspace(0, number - 1, wanted).long()
        self.examples += self.examples_of(trainer.datamodule, role, pl_module, outputs, batch, chosen)

    def examples_of(
        self, data: Any, role: str, learner: Any, results: dict[str, Result], batch: Batch, chosen: Tensor
    ) -> list[Example]:
        """The `chosen` examples (C,) int64 of a batch of `role` (valid, test)."""
        words, regions = tints(learner, results, batch, chosen)
        return [
            make_example(data, role, learner, results, batch, example, words[place], regions[place])
            for place, example in enumerate(chosen.tolist())
        ]

    def on_validation_batch_end(self, trainer: Any, *arguments: Any, **named: Any) -> None:
        """Collect, if a table will be logged."""
        if wandb_logger(trainer) is not None:
            self.on_test_batch_end(trainer, *arguments, **named)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the table."""
        logger = wandb_logger(trainer)
        if logger is not None and self.examples and not trainer.sanity_checking:
            log_table(logger, self.examples)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the page."""
        if self.examples:
            curves = draw_curves(self.page.parent / "logs" / "metrics.csv")
            write_page(self.page, trainer, curves, self.examples, self.note)


def tints(learner: Any, results: dict[str, Result], batch: Batch, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """What words (C, n, L) and regions (C, n, N) are to the best answers of the C `chosen` examples of n rows.

    From 0 to 1 in each row; of these examples alone, as it takes a backward pass.
    """
    name = answering(results)
    each = batch.num_rows // len(batch.example_ids)  # rows of an example: one for each of its images
    rows = (chosen[:, None] * each + torch.arange(each)).flatten().to(batch.row_sentence.device)
    alone = batch.pair(batch.row_sentence[rows], batch.row_image[rows])
    # As the results have it: computed in another precision, another answer could be the best one.
    best = results[name].predictions["answer_scores"][chosen.to(rows.device)].argmax(1).repeat_interleave(each)
    found = explain_head(learner.model, learner.objectives[name].head, alone, best)
    words, regions = found.words_scaled.cpu(), found.regions_scaled.cpu()
    return words.unflatten(0, (-1, each)), regions.unflatten(0, (-1, each))


def make_example(
    datamodule: Any,
    role: str,
    learner: Any,
    results: dict[str, Result],
    batch: Batch,
    number: int,
    words: Tensor,
    regions: Tensor,
) -> Example:
    """One example of a batch of `role` (valid, test), as the report shows it, with its (n, L) and (n, N) tints."""
    name = answering(results)
    answers = learner.model.config.answers
    each = batch.num_rows // len(batch.example_ids)
    rows = range(number * each, (number + 1) * each)
    scores = results[name].predictions["answer_scores"][number : number + 1]
    best = learner.objectives[name].probabilities(scores)[0].topk(min(5, len(answers)))
    sentence = int(batch.row_sentence[rows[0]])
    tokens = batch.token_mask[sentence].cpu()
    pieces = datamodule.tokenizer.convert_ids_to_tokens(batch.token_ids[sentence].cpu()[tokens].tolist())
    views = []
    for place, row in enumerate(rows):
        image = int(batch.row_image[row])
        real = batch.region_mask[image].cpu()
        views.append(
            View(
                datamodule.picture(batch.image_ids[image]),
                batch.region_boxes[image].cpu()[real].tolist(),
                regions[place][real].tolist(),
            )
        )
    return Example(
        question=datamodule.datasets[role].sentence(batch.example_places[number]),
        words=list(zip(pieces, words.mean(0)[tokens].tolist(), strict=True)),
        views=views,
        predictions=[(answers[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)],
        answers=known_answers(batch, number, answers),
    )


def known_answers(batch: Batch, number: int, answers: list[str]) -> dict[str, float]:
    """The right answers of an example with their scores; none where they are unknown."""
    if "statement" in batch.targets:
        return {answers[int(batch.targets["statement"][number])]: 1.0}
    if "answer_scores" not in batch.targets:
        return {}
    scores = batch.targets["answer_scores"][number].cpu()
    return {answers[i]: float(scores[i]) for i in scores.nonzero().flatten().tolist()}
