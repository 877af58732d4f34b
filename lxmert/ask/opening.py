"""Opening whatever holds a trained model: a run's folder, a file or folder of weights, a hub name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lxmert.config import LxmertConfig
from lxmert.files import HUB, InputError, fetch, run_of
from lxmert.pretrained import LxmertForQuestionAnswering, LxmertForVisualReasoning, architecture_of, with_heads
from lxmert.runs import TrainedRun, load_run
from lxmert.tokenization import LxmertTokenizer
from lxmert.weights import read_answers, read_weights, tokenizer_with

WORDS = "lxmert.embeddings.word_embeddings.weight"
STATEMENT = ["False", "True"]  # labels of a model of statements that has no list of its own


def open_checkpoint(
    checkpoint: str | Path, tokenizer: str | Path | None = None, answers: str | Path | None = None
) -> TrainedRun:
    """A trained model with what is needed to ask it.

    Of a run's folder everything is known. Of other weights, answer scores are read as the published recipes train
    them: each answer for itself (sigmoid) by a model with an answer head alone, as for VQA and GQA; one answer is
    right (softmax) where there are the heads of pre-training, and for statements.

    Args:
        checkpoint: a run's folder, or a checkpoint in it; a folder or hub name with config.json and weights; a
            weights file such as the original's BEST.pth.
        tokenizer: where the weights have none beside them: vocab.txt, a folder or a hub name.
        answers: where they have no answer list: a JSON list, such as the release's trainval_label2ans.json.

    Raises:
        FileNotFoundError: nothing of that name.
        InputError: it cannot be read, no tokenizer or answers are known, or they do not fit the model.
    """
    is_run = (run_of(checkpoint) / "run.json").is_file()
    run = load_run(checkpoint) if is_run else _open_weights(checkpoint, tokenizer)
    if answers is not None:
        run.answers = read_answers(answers) or []
    if isinstance(run.model, LxmertForVisualReasoning):
        run.answers = run.answers or STATEMENT
    head = outputs_of(run)
    if run.answers and head and len(run.answers) != head:
        raise InputError(
            f"{answers or checkpoint}: {len(run.answers)} answers; the answer head of {checkpoint} has {head}. "
            "Give the answer list of its training"
        )
    return run


def outputs_of(run: TrainedRun) -> int:
    """How many answers the model's head scores; 0 without one."""
    if isinstance(run.model, LxmertForVisualReasoning):
        return len(STATEMENT)
    head: Any = getattr(run.model, "answer_head", None)
    return 0 if head is None else head.logit_fc[-1].out_features


def _open_weights(source: str | Path, vocabulary: str | Path | None) -> TrainedRun:
    weights = read_weights(source)
    kind = architecture_of(weights)
    model = kind.from_weights(with_heads(_config_of(source, weights), weights), weights, str(source))
    config = model.config
    tokenizer = LxmertTokenizer.from_pretrained(vocabulary) if vocabulary else _tokenizer_of(source)
    if len(tokenizer) != config.vocab_size:
        raise InputError(
            f"{vocabulary or source}: a vocabulary of {len(tokenizer)} word pieces, and the model has "
            f"{config.vocab_size}. Give that of its training as the tokenizer"
        )
    reading = "sigmoid" if kind is LxmertForQuestionAnswering else "softmax"
    return TrainedRun(model, tokenizer, read_answers(source) or [], reading)


def _config_of(source: str | Path, weights: Mapping[str, Tensor]) -> LxmertConfig:
    """Of weights; those of a file alone have the published sizes, their own number of word pieces and answers."""
    path = Path(source).expanduser()
    if not path.is_file() or path.suffix == ".ckpt":
        return LxmertConfig.from_pretrained(source)
    told = {"vocab_size": WORDS, "num_qa_labels": "answer_head.logit_fc.3.weight"}
    return LxmertConfig(**{key: len(weights[name]) for key, name in told.items() if name in weights})


def _tokenizer_of(source: str | Path) -> LxmertTokenizer:
    if found := tokenizer_with(source):
        return found
    if not Path(source).expanduser().exists():
        fetch(source, ["tokenizer.json", "vocab.txt"], HUB)
        return LxmertTokenizer.from_pretrained(source)
    raise InputError(
        f"{source} has no vocabulary with it. Name the tokenizer of its training: a vocab.txt, its folder, or a "
        "hub name such as bert-base-uncased"
    )
