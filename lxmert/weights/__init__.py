"""Weights of ours and of others: their names, files, loading, moving an answer head; export is a command."""

from lxmert.weights.card import model_card
from lxmert.weights.files import (
    WEIGHT_SUFFIXES,
    answers_beside,
    in_reference_names,
    kept_config,
    open_weights,
    read_answers,
    read_detector,
    read_vocabulary,
    read_weights,
    tokenizer_beside,
    tokenizer_with,
    write_folder,
)
from lxmert.weights.load import LoadReport, compare, load_weights, refuse_unloaded
from lxmert.weights.names import HEADS, is_bert, reference_names, upgrade
from lxmert.weights.tf_h5 import is_transposed, torch_name, write_tf_h5
from lxmert.weights.transfer import match_answer_head

__all__ = [
    "HEADS", "WEIGHT_SUFFIXES", "LoadReport", "answers_beside", "compare", "in_reference_names", "is_bert",
    "is_transposed", "kept_config", "load_weights", "match_answer_head", "model_card", "open_weights",
    "read_answers", "read_detector", "read_vocabulary", "read_weights", "reference_names", "refuse_unloaded",
    "tokenizer_beside", "tokenizer_with", "torch_name", "upgrade", "write_folder", "write_tf_h5",
]  # fmt: skip
