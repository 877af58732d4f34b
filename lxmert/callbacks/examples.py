"""Examples of an evaluated split with what the model looked at, for the report page and for W&B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from lxmert.batch import Batch
from lxmert.callbacks.pages import write_page
from lxmert.callbacks.predictions import answering
from lxmert.callbacks.wandb_table import log_table, wandb_logger
from lxmert.objectives.base import Result
from lxmert.report import Example, View, draw_curves


class Examples(Callback):
    """Picks examples spread over an evaluated split, with the attention that led to their answers.

    They fill the report page after a test and, with the W&B logger, a table after each validation.

    Args:
        page: the HTML page to write.
        count: examples to show.
    """

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
        chosen = torch.linspace(0, number - 1, wanted).long().tolist()
        encoded = pl_module.model.encode(batch, pl_module.outputs_needed, output_attentions=True)
        attentions = encoded.cross_encoder_attentions
        looked_at = attentions[-1].float().mean(1)[:, 0].cpu()  # (R, N): what [CLS] sees in the last layer
        self.examples += [
            make_example(trainer.datamodule, role, pl_module, outputs, batch, example, looked_at)
            for example in chosen
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
            write_page(self.page, trainer, draw_curves(self.page.parent / "logs" / "metrics.csv"), self.examples)


def make_example(
    datamodule: Any,
    role: str,
    learner: Any,
    results: dict[str, Result],
    batch: Batch,
    number: int,
    attention: torch.Tensor,
) -> Example:
    """One example of a batch of `role` (valid, test), as the report shows it; `attention` is (R, N)."""
    name = answering(results)
    answers = learner.model.config.answers
    each = batch.num_rows // len(batch.example_ids)  # rows of an example: one for each of its images
    rows = range(number * each, (number + 1) * each)
    scores = results[name].predictions["answer_scores"][number : number + 1]
    best = learner.objectives[name].probabilities(scores)[0].topk(min(5, len(answers)))
    views = []
    for row in rows:
        image = int(batch.row_image[row])
        regions = batch.region_mask[image].cpu()
        views.append(
            View(
                datamodule.picture(batch.image_ids[image]),
                batch.region_boxes[image].cpu()[regions].tolist(),
                attention[row][regions].tolist(),
            )
        )
    return Example(
        question=datamodule.datasets[role].sentence(batch.example_places[number]),
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
