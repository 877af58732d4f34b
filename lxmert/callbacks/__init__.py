"""What happens around a fit: checkpoints, progress, prediction files, pages, tables."""

from lxmert.callbacks.checkpoints import BestCheckpoint, CheckpointFile, LastCheckpoint
from lxmert.callbacks.monitors import MonitorCheck
from lxmert.callbacks.progress import ProgressLines, progress_bar
from lxmert.callbacks.results import (
    Examples,
    LossCurves,
    PredictionFiles,
    Throughput,
    finish_wandb,
    make_example,
    official_scores,
)

__all__ = [
    "BestCheckpoint", "CheckpointFile", "Examples", "LastCheckpoint", "LossCurves", "MonitorCheck",
    "PredictionFiles", "ProgressLines", "Throughput", "finish_wandb", "make_example", "official_scores",
    "progress_bar",
]  # fmt: skip
