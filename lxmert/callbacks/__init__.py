"""What happens around a fit: checkpoints, progress, prediction files, pages, tables."""

from lxmert.callbacks.averaging import AveragedWeights, check_averaging
from lxmert.callbacks.checkpoints import BestCheckpoint, CheckpointFile, LastCheckpoint
from lxmert.callbacks.examples import Examples, make_example
from lxmert.callbacks.interrupts import Interrupted, Interrupts
from lxmert.callbacks.loss_curves import LossCurves
from lxmert.callbacks.monitors import MonitorCheck
from lxmert.callbacks.predictions import PredictionFiles, official_scores
from lxmert.callbacks.progress import ProgressLines, progress_bar
from lxmert.callbacks.rankings import Rankings
from lxmert.callbacks.regions import RegionExamples, RegionFiles
from lxmert.callbacks.stopping import EarlyStopping
from lxmert.callbacks.throughput import Throughput
from lxmert.callbacks.wandb_table import finish_wandb

__all__ = [
    "AveragedWeights", "BestCheckpoint", "CheckpointFile", "EarlyStopping", "Examples", "Interrupted",
    "Interrupts", "LastCheckpoint", "LossCurves", "MonitorCheck", "PredictionFiles", "ProgressLines", "Rankings",
    "RegionExamples", "RegionFiles", "Throughput",
    "check_averaging", "finish_wandb", "make_example", "official_scores", "progress_bar",
]  # fmt: skip
