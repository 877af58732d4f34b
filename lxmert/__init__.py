"""LXMERT (Tan & Bansal, EMNLP 2019): model, objectives and training."""

from lxmert.config import LxmertConfig
from lxmert.model import LxmertModel
from lxmert.outputs import LxmertForPreTrainingOutput, LxmertForQuestionAnsweringOutput, LxmertModelOutput
from lxmert.pretrained import LxmertForPreTraining, LxmertForQuestionAnswering
from lxmert.tokenization import LxmertTokenizer, LxmertTokenizerFast

__all__ = [
    "LxmertConfig",
    "LxmertForPreTraining",
    "LxmertForPreTrainingOutput",
    "LxmertForQuestionAnswering",
    "LxmertForQuestionAnsweringOutput",
    "LxmertModel",
    "LxmertModelOutput",
    "LxmertTokenizer",
    "LxmertTokenizerFast",
]
