"""The model card beside exported weights: what they are, how they were made, how they are opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lxmert.files import InputError, read_json, run_checkpoint
from lxmert.tokenization import LxmertTokenizer
from lxmert.weights.files import open_weights

IN_TRANSFORMERS = ("LxmertModel", "LxmertForPreTraining", "LxmertForQuestionAnswering")
HERE = (*IN_TRANSFORMERS, "LxmertForVisualReasoning")


def model_card(
    source: str,
    out: Path,
    config: Mapping[str, Any],
    architecture: str,
    heads: Sequence[str],
    answers: Sequence[str] | None,
    tokenizer: LxmertTokenizer | None,
    opened_as: str | None = None,
) -> str:
    """A page in Markdown.

    Args:
        source: where the weights are from; of a run, its checkpoint also tells how they were made.
        out: the folder or the `*.pth` that they were written to.
        config: their sizes, as `LxmertConfig.to_dict` gives them.
        architecture: their class.
        heads: what they have beside the encoders.
        answers: of the answer head.
        tokenizer: of their vocabulary, where that is known.
        opened_as: what they are opened by, if not the name of `out`.
    """
    rows = {
        "model": f"{architecture}: LXMERT of {config['l_layers']} language, {config['r_layers']} region and "
        f"{config['x_layers']} cross-modality layers, width {config['hidden_size']}",
        "heads": ", ".join(heads) or "none",
        **_training(source),
        "images": f"regions with {config['visual_feat_dim']} features each; boxes x1 y1 x2 y2 as fractions of the "
        "image's sides",
        "words": _words(tokenizer, config),
        "answers": _list(answers),
        "exported from": source,
    }
    table = "".join(f"| {name} | {_cell(text)} |\n" for name, text in rows.items() if text)
    title = out.stem if out.suffix == ".pth" else out.name
    return f"{_FRONT}# {title}\n\n| | |\n|---|---|\n{table}\n{_opening(out, architecture, opened_as or out.name)}"


_FRONT = "---\nlibrary_name: transformers\ntags: [lxmert, visual-question-answering]\n---\n\n"


def _opening(out: Path, architecture: str, name: str) -> str:
    if out.suffix == ".pth":
        option = "--loadLXMERT" if out.name.endswith("_LXRT.pth") else "--load"
        stem = out.name.removesuffix("_LXRT.pth").removesuffix(".pth")
        return (
            f"For the original code, which has BERT's uncased vocabulary: `{option} {stem}`. Here: "
            f"`python train.py experiment=vqa init={out.name}`, with `data.tokenizer={out.stem}.tokenizer` where "
            "the vocabulary is another.\n"
        )
    library = "transformers" if architecture in IN_TRANSFORMERS else "lxmert"
    names = [architecture] if architecture in HERE else []  # a class of one's own is elsewhere
    return (
        f"```python\nfrom {library} import {', '.join([*names, 'LxmertTokenizer'])}\n\n"
        f'model = {architecture}.from_pretrained("{name}")\n'
        f'tokenizer = LxmertTokenizer.from_pretrained("{name}")\n```\n'
    )


def _training(source: str) -> dict[str, str]:
    """How a run made its weights, as its checkpoint and the files beside it tell; nothing of other weights."""
    path = run_checkpoint(source) or Path(source).expanduser()
    kept = open_weights(path, whole=False) if path.suffix == ".ckpt" else {}
    settings = kept.get("settings")
    if not isinstance(settings, dict):
        return {}
    data, optimizer = (dict(settings.get(name) or {}) for name in ("data", "optimizer"))
    told = {name: data[name] for name in ("_target_", "folder", "train", "batch_size") if name in data}
    folder = path.absolute().parent.parent
    metrics = _read(folder / "summary.json").get("metrics")
    scores = {
        name: value
        for name, value in (metrics if isinstance(metrics, dict) else {}).items()
        if name.count("/") < 3 and name.startswith(("val/", "test/")) and isinstance(value, int | float)
    }
    optimizer.pop("_partial_", None)
    return {
        "experiment": str(_read(folder / "environment.json").get("experiment") or ""),
        "started from": str(settings.get("init") or "random numbers"),
        "data": _pairs(told),
        "objectives": ", ".join(settings.get("objective") or {}),
        "optimiser": _pairs(optimizer),
        "steps": str(kept.get("global_step")),
        "scores of its run": _pairs({name: f"{value:.4f}" for name, value in scores.items()}),
    }


def _read(path: Path) -> dict[str, Any]:
    """A file that a run may have left; nothing where it is missing or damaged: the card does without."""
    try:
        content = read_json(path)
    except (OSError, InputError):
        return {}
    return content if isinstance(content, dict) else {}


def _words(tokenizer: LxmertTokenizer | None, config: Mapping[str, Any]) -> str:
    if tokenizer is None:
        return f"{config['vocab_size']} word pieces, not kept with the weights"
    cased = "lower-cased" if tokenizer.do_lower_case else "cased"
    return f"{len(tokenizer)} word pieces, {cased}; SHA-256 {tokenizer.sha256}"


def _list(answers: Sequence[str] | None) -> str:
    if not answers:
        return ""
    more = ", ... (all: `answers` and `id2label` in config.json)" if len(answers) > 8 else ""
    return f"{len(answers)}: {', '.join(answers[:8])}{more}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(str(value) if name == "_target_" else f"{name} {value}" for name, value in values.items())


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
