"""A run at Weights & Biases: its table of examples, its end."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from lxmert.report import Example


def log_table(logger: WandbLogger, examples: Sequence[Example]) -> None:
    """Log `examples` as the table `val/examples`: picture with boxes, question, answers, prediction."""
    import wandb

    rows = []
    for example in examples:
        annotated = []
        for view in example.views:
            boxes = [
                {"position": placed(box), "class_id": 0, "scores": {"relevancy": tint}}
                for box, tint in zip(view.boxes, view.tints, strict=True)
            ]
            picture = Image.open(view.picture) if view.picture else Image.new("RGB", (320, 240), "lightgray")
            overlay = {"regions": {"box_data": boxes, "class_labels": {0: "region"}}}
            if view.frames:
                frames = [{"position": placed(each.box), "class_id": n} for n, each in enumerate(view.frames)]
                names = {n: each.name for n, each in enumerate(view.frames)}
                overlay["frames"] = {"box_data": frames, "class_labels": names}
            annotated.append(wandb.Image(picture, boxes=overlay))
        answers = ", ".join(f"{answer} ({score:.1f})" for answer, score in example.answers.items())
        prediction, probability = example.predictions[0]
        rows.append([*annotated, example.question, answers, prediction, probability])
    count = len(examples[0].views)
    several = ["left picture", "right picture", *(f"picture {number}" for number in range(3, count + 1))]
    pictures = several if count > 1 else ["picture"]
    logger.log_table(
        "val/examples", columns=[*pictures, "question", "answers", "prediction", "probability"], data=rows
    )


def placed(box: Sequence[float]) -> dict[str, float]:
    """A box x1 y1 x2 y2, fractions of the picture's sides, as W&B has it."""
    return dict(zip(("minX", "minY", "maxX", "maxY"), box, strict=True))


def wandb_logger(trainer: Trainer) -> WandbLogger | None:
    """The run's W&B logger, if it has one."""
    return next((logger for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)


def finish_wandb(failed: bool) -> None:
    """End this process's W&B run, if it has one: the next job of a sweep has its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=int(failed))
