"""LXMERT in Keras: the reference's TensorFlow classes, on TensorFlow, JAX or PyTorch by KERAS_BACKEND."""

from lxmert.tensorflow.batches import call_inputs
from lxmert.tensorflow.outputs import (
    TFLxmertForPreTrainingOutput,
    TFLxmertForQuestionAnsweringOutput,
    TFLxmertModelOutput,
)
from lxmert.tensorflow.pretrained import TFLxmertForPreTraining, TFLxmertForQuestionAnswering, TFLxmertModel

__all__ = [
    "TFLxmertForPreTraining",
    "TFLxmertForPreTrainingOutput",
    "TFLxmertForQuestionAnswering",
    "TFLxmertForQuestionAnsweringOutput",
    "TFLxmertModel",
    "TFLxmertModelOutput",
    "call_inputs",
]
