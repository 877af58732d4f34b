"""Weights for other projects.

python -m lxmert.checkpoint export --to {reference,original} [--config CONFIG] CKPT OUT
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lxmert.base import kept_with
from lxmert.config import LxmertConfig
from lxmert.files import InputError, replacing, write_text
from lxmert.pretrained import Architecture, architecture_of, heads_of, with_heads
from lxmert.tokenization import LxmertTokenizer
from lxmert.weights.card import model_card
from lxmert.weights.files import (
    answers_beside,
    read_answers,
    read_weights,
    tokenizer_beside,
    tokenizer_with,
    write_folder,
)
from lxmert.weights.load import compare
from lxmert.weights.names import HEADS, WORD_EMBEDDINGS, grouped, is_bert, to_original

# The original appends `_LXRT.pth` to what its --loadLXMERT and --loadLXMERTQA are given, `.pth` to --load.
PRETRAINED = "_LXRT.pth"

Weights = Mapping[str, Tensor]


def export(source: str, out: Path, to: str, config_source: str | None = None) -> str:
    """Write the weights at `source` to `out` for another project.

    Args:
        source: a run's `*.ckpt`, or anything else that `read_weights` reads.
        out: does not exist yet. For "reference" a folder that transformers opens; for "original" a file,
            `*_LXRT.pth` as its pre-training saves or any other `*.pth` as its fine-tuning saves, with the
            answer list, the vocabulary and the model card beside it as `*.answers.json`, `*.tokenizer` and `*.md`.
        to: "reference" or "original".
        config_source: a folder, hub name or `config.json` for weights without a config of their own.

    Returns:
        What was written, in a line.

    Raises:
        FileExistsError: `out`, or one of the files beside it, exists.
        FileNotFoundError: `source` does not.
        OSError: `out` cannot be written.
        InputError: the weights cannot be read, do not fit their config or vocabulary, or have no place in `out`.
    """
    beside = [answers_beside(out), tokenizer_beside(out), out.with_suffix(".md")] if to == "original" else []
    for path in [out, *beside]:
        if path.exists():
            raise FileExistsError(f"{path} exists and is not overwritten; give another OUT, or remove it")
    weights = read_weights(source)
    if is_bert(weights):
        raise InputError(f"{source} is a BERT; only an LXMERT can be exported. Train one from it: init={source}")
    known = ("lxmert.", *(f"{head}." for head in HEADS.values()))
    if homeless := [name for name in weights if not name.startswith(known)]:
        raise InputError(
            f"{source} holds {grouped(homeless)}, which no model of the reference or the original has a place "
            f"for. Weights with the heads {', '.join(sorted(set(HEADS.values())))} can be exported."
        )
    architecture = architecture_of(weights)
    config = config_of(source, config_source, weights)
    untrained = check(weights, architecture, config, source)
    tokenizer = vocabulary_of(source, config)
    if tokenizer:
        config = config.replace(vocab_sha256=tokenizer.sha256)
    answers = config.answers if "answer_head" in heads_of(weights) else None
    names = sorted(heads_of(weights))
    card = model_card(source, out, config.to_dict(), architecture.__name__, names, answers, tokenizer)
    written = original_names(weights, out.name) if to == "original" else weights
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if to == "original":
            write_original(out, written, answers, tokenizer, card)
        else:
            write_reference(out, written, config, architecture, tokenizer, card)
    except OSError as error:
        raise OSError(f"{out} cannot be written: {error}") from error
    line = f"{out}: {architecture.__name__}, {len(weights)} tensors"
    if names:
        line += f", heads {', '.join(names)}"
    if answers:
        line += f", {len(answers)} answers"
    line += f", {len(tokenizer)} word pieces" if tokenizer else "; no vocabulary: none is kept with the weights"
    return line + (f"; never trained and left out: {', '.join(untrained)}" if untrained else "")


def config_of(source: str, config_source: str | None, weights: Weights) -> LxmertConfig:
    """The config given, else the one kept with the weights, with switches and answers as the heads are.

    Raises:
        InputError: there is none, or its answers are another head's.
    """
    config = kept_with(source)[0] if config_source is None else given_config(config_source)
    if config is None:
        raise InputError(
            f"{source} has no config; give one with --config: a config.json, or a folder or hub repository with "
            "one (unc-nlp/lxmert-base-uncased has the published sizes)"
        )
    config = with_heads(config, weights)
    last = weights.get("answer_head.logit_fc.3.bias")
    if last is None:
        return config
    return config.replace(num_qa_labels=len(last), answers=config.answers or read_answers(source))


def vocabulary_of(source: str, config: LxmertConfig) -> LxmertTokenizer | None:
    """The tokenizer kept with the weights, None where there is none.

    Raises:
        InputError: it is not the one that the weights are for.
    """
    tokenizer = tokenizer_with(source)
    if tokenizer and (len(tokenizer) != config.vocab_size or config.vocab_sha256 not in (None, tokenizer.sha256)):
        raise InputError(
            f"the vocabulary beside {source} has {len(tokenizer)} word pieces (SHA-256 {tokenizer.sha256[:12]}); "
            f"its weights are for {config.vocab_size} ({str(config.vocab_sha256)[:12]}). Put back that of the "
            "training, or remove it to export without one"
        )
    return tokenizer


def given_config(name_or_path: str) -> LxmertConfig:
    """The config in a file, a folder or a hub repository."""
    if Path(name_or_path).expanduser().is_file():
        return LxmertConfig.from_json_file(Path(name_or_path).expanduser())
    return LxmertConfig.from_pretrained(name_or_path)


def check(weights: Weights, architecture: type[Architecture], config: LxmertConfig, source: str) -> list[str]:
    """The heads of `architecture` that `weights` lacks altogether: objectives that were never trained.

    Raises:
        InputError: `weights` do not fit the config, or the encoder or a head is not whole.
    """
    report = compare(architecture.shapes(config), weights, source)
    parts = {part_of(name) for name in weights}
    torn = [name for name in report.missing if part_of(name) in parts]
    if report.reshaped or report.unexpected or report.unloaded_encoder or torn:
        raise InputError(f"{report}\nthe weights and their config do not fit; --config gives another config")
    return sorted({part_of(name) for name in report.missing})


def part_of(name: str) -> str:
    """The head or the part of the encoder that a parameter belongs to."""
    return ".".join(name.split(".")[:2])


def original_names(weights: Weights, file: str) -> dict[str, Tensor]:
    """`weights` under the names that the original gives them in a file called `file`.

    Raises:
        InputError: files of that name have no place for the heads there are.
    """
    heads = heads_of(weights)
    if file.endswith(PRETRAINED):
        homeless, other = heads & {"pair_head"}, "*.pth, as for a fine-tuned model"
    elif file.endswith(".pth"):
        homeless, other = heads & {"cls", "obj_predict_head"}, f"*{PRETRAINED}, as for a pre-trained model"
    else:
        raise InputError(f"{file} is no file name of the original's; call OUT *{PRETRAINED} or *.pth")
    if homeless:
        raise InputError(
            f"the original keeps no {', '.join(sorted(homeless))} in a file called {file}; call OUT {other}"
        )
    tensors = {to_original(name, file.endswith(PRETRAINED)): tensor for name, tensor in weights.items()}
    if "cls.predictions.bias" in weights:  # tied to the word embeddings, and stored once with them
        tensors["cls.predictions.decoder.weight"] = weights[WORD_EMBEDDINGS]
    return tensors


def write_original(
    out: Path, weights: Weights, answers: Sequence[str] | None, tokenizer: LxmertTokenizer | None, card: str
) -> None:
    """A file that the original reads; the answers, the vocabulary and the card beside it."""
    with replacing(out) as temporary:
        # In the format that PyTorch before 1.4 reads too: the original was written for 1.0.
        torch.save(dict(weights), temporary, _use_new_zipfile_serialization=False)
    if answers is not None:
        entries = [{"ans": answer} for answer in answers]
        write_text(answers_beside(out), json.dumps(entries, ensure_ascii=False) + "\n")
    if tokenizer:
        tokenizer.save_pretrained(tokenizer_beside(out))
    write_text(out.with_suffix(".md"), card)


def write_reference(
    out: Path,
    weights: Weights,
    config: LxmertConfig,
    architecture: type[Architecture],
    tokenizer: LxmertTokenizer | None,
    card: str,
) -> None:
    """A folder that the reference opens, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        folder = Path(temporary) / out.name
        write_folder(folder, config.to_dict(), weights, architecture.__name__)
        if tokenizer:
            tokenizer.save_pretrained(folder)
        write_text(folder / "README.md", card)
        folder.rename(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Export as the command line says and print a line; 0, or 1 with one message when it is not possible."""
    options = _parser().parse_args(arguments)
    try:
        print(export(options.checkpoint, options.out, options.to, options.config))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lxmert.checkpoint", description="Weights for other projects.")
    command = parser.add_subparsers(required=True).add_parser("export", help="write weights for another project")
    command.add_argument(
        "--to", required=True, choices=["reference", "original"], help="transformers, or the authors' code"
    )
    command.add_argument("--config", help="config.json, folder or hub name; for weights without a config")
    command.add_argument("checkpoint", metavar="CKPT", help="a run's *.ckpt, a folder, hub name or weights file")
    command.add_argument("out", metavar="OUT", type=Path, help="reference: folder; original: *_LXRT.pth or *.pth")
    return parser
