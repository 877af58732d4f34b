"""LXMERT (Tan & Bansal, EMNLP 2019): model, objectives and training."""

from lxmert.config import LxmertConfig
from lxmert.model import LxmertModel
from lxmert.outputs import LxmertForQuestionAnsweringOutput, LxmertModelOutput
from lxmert.pretrained import LxmertForQuestionAnswering

__all__ = [
    "LxmertConfig",
    "LxmertForQuestionAnswering",
    "LxmertForQuestionAnsweringOutput",
    "LxmertModel",
    "LxmertModelOutput",
]
