"""LXMERT (Tan & Bansal, EMNLP 2019): model, objectives and training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lxmert.ask import Asker
    from lxmert.base import LxmertPreTrainedModel
    from lxmert.config import LxmertConfig
    from lxmert.match import Matcher
    from lxmert.outputs import (
        LxmertForPreTrainingOutput,
        LxmertForQuestionAnsweringOutput,
        LxmertForVisualReasoningOutput,
        LxmertModelOutput,
    )
    from lxmert.pretrained import (
        LxmertForPreTraining,
        LxmertForQuestionAnswering,
        LxmertForVisualReasoning,
        LxmertModel,
    )
    from lxmert.runs.load import TrainedRun, load_run, save_run_model
    from lxmert.tokenization import LxmertTokenizer, LxmertTokenizerFast

__all__ = [
    "Asker",
    "LxmertConfig",
    "LxmertForPreTraining",
    "LxmertForPreTrainingOutput",
    "LxmertForQuestionAnswering",
    "LxmertForQuestionAnsweringOutput",
    "LxmertForVisualReasoning",
    "LxmertForVisualReasoningOutput",
    "LxmertModel",
    "LxmertModelOutput",
    "LxmertPreTrainedModel",
    "LxmertTokenizer",
    "LxmertTokenizerFast",
    "Matcher",
    "TrainedRun",
    "load_run",
    "save_run_model",
]

_MODULES = ("config", "outputs", "base", "pretrained", "tokenization", "runs.load", "ask", "match")


def __getattr__(name: str) -> Any:
    # Loaded when asked for: scoring a file needs no torch.
    if name in __all__:
        for module in _MODULES:
            found = getattr(importlib.import_module(f"lxmert.{module}"), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module 'lxmert' has no attribute {name!r}")
