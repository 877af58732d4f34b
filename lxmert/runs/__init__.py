"""A run: built from a configuration (`build`), its folder, going on with it, opening what it has trained."""

from lxmert.runs.folder import RunFolder, link_latest, print_results, run_folder, write_summary
from lxmert.runs.load import TrainedRun, load_run, save_run_model, usable
from lxmert.runs.resume import compare_settings, environment_of, read_state, settings_of, whole_checkpoint
from lxmert.runs.table import cut_log

__all__ = [
    "RunFolder",
    "TrainedRun",
    "compare_settings",
    "cut_log",
    "environment_of",
    "link_latest",
    "load_run",
    "print_results",
    "read_state",
    "run_folder",
    "save_run_model",
    "settings_of",
    "usable",
    "whole_checkpoint",
    "write_summary",
]  # fmt: skip
