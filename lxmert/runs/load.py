"""A run's folder as a model to use: what is kept beside its checkpoints, and opening it.

checkpoints/best.ckpt, last.ckpt   weights, sizes, answers
config.json                        sizes, and the answers in label order
vocab.txt, tokenizer.json, tokenizer_config.json
run.json                           how answer scores become probabilities, where sentences were cut
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lxmert.base import LxmertPreTrainedModel
from lxmert.config import LxmertConfig
from lxmert.files import InputError, read_json, run_checkpoint, shown, write_text
from lxmert.pretrained import architecture_of, with_heads
from lxmert.tokenization import LxmertTokenizer
from lxmert.weights import read_weights

PROBABILITIES = ("sigmoid", "softmax")
MAX_LENGTH = 20  # of the released code, for all tasks


@dataclass
class TrainedRun:
    """What a run has trained.

    Args:
        model: in evaluation mode; its class is that of the heads it has: LxmertForQuestionAnswering,
            LxmertForVisualReasoning (NLVR2), LxmertForPreTraining, or LxmertModel without any.
        tokenizer: of the run's vocabulary and settings.
        answers: text of each answer label, in label order; empty where the run has none.
        reading: "sigmoid" (each answer for itself) or "softmax" (one answer is right).
        max_length: tokens of a sentence, [CLS] and [SEP] included, to which training cut.
    """

    model: LxmertPreTrainedModel
    tokenizer: LxmertTokenizer
    answers: list[str]
    reading: str
    max_length: int = MAX_LENGTH

    def probabilities(self, scores: Tensor) -> Tensor:
        """Answer scores (..., A) of the model as probabilities, as the run's objective reads them."""
        return scores.sigmoid() if self.reading == "sigmoid" else scores.softmax(-1)

    def label_of(self, answer: str) -> int:
        """The label of an answer; upper and lower case are the same where that leaves one answer.

        Raises:
            InputError: the model has no such answer.
        """
        if answer in self.answers:
            return self.answers.index(answer)
        lowered = [each.casefold() for each in self.answers]
        if lowered.count(answer.casefold()) == 1:
            return lowered.index(answer.casefold())
        near = difflib.get_close_matches(answer, self.answers, 3) or self.answers[:3]
        raise InputError(
            f"{shown(answer)} is none of the model's {len(self.answers):,} answers, such as {', '.join(near)}"
        )


def save_run_model(
    folder: str | Path,
    config: LxmertConfig,
    tokenizer: LxmertTokenizer,
    probabilities: str,
    max_length: int = MAX_LENGTH,
) -> None:
    """Write what a run's checkpoints lack for `load_run`: vocabulary, config.json, run.json; the last one last.

    Args:
        folder: of the run; made where it does not exist.
        config: of the model, with its answers.
        tokenizer: of the run's data.
        probabilities: "sigmoid" or "softmax", how the objective reads answer scores.
        max_length: tokens to which its data cuts sentences.

    Raises:
        InputError: `probabilities` is neither.
    """
    if probabilities not in PROBABILITIES:
        raise InputError(f"probabilities={shown(probabilities)}; expected one of {', '.join(PROBABILITIES)}")
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    write_text(
        Path(folder) / "run.json", json.dumps({"probabilities": probabilities, "max_length": max_length}) + "\n"
    )


def usable(device: str | torch.device) -> torch.device:
    """The device of that name.

    Raises:
        InputError: it is none, or not in this machine.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # torch's, of a build without CUDA
        raise InputError(
            f"device {device}: {str(error).splitlines()[0]}. Use cpu, or cuda where there is a GPU"
        ) from error
    return found


def load_run(folder: str | Path) -> TrainedRun:
    """Open what a run has trained: `load_run("outputs/latest")`.

    Args:
        folder: of a run, `outputs/<experiment>/<time>`; of its checkpoints best.ckpt counts, else last.ckpt.
            Or one of its checkpoints.

    Raises:
        FileNotFoundError: it is no run's folder, has no checkpoint yet, or lacks what newer runs keep.
        InputError: a file in it cannot be read.
    """
    folder = Path(folder).expanduser()
    checkpoint = folder if folder.is_file() else run_checkpoint(folder)
    if checkpoint == folder:
        folder = folder.absolute().parent.parent
    if checkpoint is None:
        summary = read_json(folder / "summary.json") if (folder / "summary.json").is_file() else {}
        used = summary.get("checkpoint") if isinstance(summary, dict) else None
        raise FileNotFoundError(
            f"{folder} is no folder of a training: it has no checkpoints/; expected outputs/<experiment>/<time>"
            + (f". It evaluated {used}: give the folder of that" if used else ", or outputs/latest")
        )
    kept = ("vocab.txt", "config.json", "run.json")
    if missing := [name for name in kept if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}: it is a run from before they were kept, or they were removed. "
            "Add them once, with the tokenizer that its config.yaml names under data: folder = "
            f"{str(folder)!r}; lxmert.save_run_model(folder, lxmert.LxmertConfig.from_pretrained(folder), "
            "lxmert.LxmertTokenizer.from_pretrained(TOKENIZER), 'sigmoid'), or 'softmax' where one answer is "
            "right (NLVR2, pre-training)."
        )
    tokenizer = LxmertTokenizer.from_pretrained(folder)
    config = LxmertConfig.from_pretrained(checkpoint)
    if len(tokenizer) != config.vocab_size:
        raise InputError(
            f"{folder}: its vocabulary has {len(tokenizer)} word pieces and its model {config.vocab_size}: put "
            "back the vocabulary of the training"
        )
    if config.vocab_sha256 not in (None, tokenizer.sha256):
        raise InputError(
            f"{folder}: its vocabulary (SHA-256 {tokenizer.sha256[:12]}) is not that of its model's training "
            f"({str(config.vocab_sha256)[:12]}): put back vocab.txt, tokenizer.json and tokenizer_config.json of "
            "the training"
        )
    weights = read_weights(checkpoint)
    model = architecture_of(weights).from_weights(with_heads(config, weights), weights, str(checkpoint))
    return TrainedRun(model, tokenizer, config.answers or [], *_read_reading(folder / "run.json"))


def _read_reading(path: Path) -> tuple[str, int]:
    content = read_json(path)
    reading = content.get("probabilities") if isinstance(content, dict) else None
    if reading not in PROBABILITIES:
        raise InputError(
            f"{path}: probabilities is {shown(reading)}; expected one of {', '.join(PROBABILITIES)}. Mend it."
        )
    max_length = content.get("max_length", MAX_LENGTH)  # older runs do not tell
    if not isinstance(max_length, int) or max_length < 3:
        raise InputError(
            f"{path}: max_length is {shown(max_length)}; expected a number of tokens, 3 or more. Mend it."
        )
    return reading, max_length
