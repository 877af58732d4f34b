"""Files with weights: opening them safely, what is in them under the reference's names, writing them."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lxmert.files import (
    HUB,
    Hub,
    InputError,
    check_answers,
    fetch,
    read_json,
    replacing,
    run_checkpoint,
    run_of,
    shown,
    write_text,
)
from lxmert.tokenization import LxmertTokenizer
from lxmert.weights.names import HEADS, from_foreign, is_bert, reference_names, upgrade
from lxmert.weights.tf_h5 import read_tf_h5

WEIGHT_FILES = ["model.safetensors", "pytorch_model.bin", "tf_model.h5"]
WEIGHT_SUFFIXES = (".ckpt", ".pth", ".bin", ".safetensors", ".h5")


def open_weights(path: Path, whole: bool = True) -> Any:
    """What a weights file holds; nothing in it is run.

    Args:
        path: the file.
        whole: compare all of a PyTorch file with its checksums, which takes half a second a GB; else only
            what is not a tensor.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read, or not safely.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix == ".h5":
        return read_tf_h5(path)
    is_safetensors = path.suffix == ".safetensors"
    try:
        if is_safetensors:
            return load_file(path)
        is_zip = zipfile.is_zipfile(path)  # PyTorch before 1.6, and the original, wrote another format
        if is_zip:
            _check_sums(path, whole)
        # A run's checkpoint also has the optimiser's state, twice its weights: mapped, it is not read.
        mapped = is_zip and path.suffix == ".ckpt"
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except PermissionError:
        raise
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as a {'safetensors file' if is_safetensors else 'PyTorch checkpoint'}: "
            f"{_unreadable(error)}"
        ) from error


def _check_sums(path: Path, whole: bool) -> None:
    """Compare the records of a checkpoint with their checksums, which PyTorch writes and does not read."""
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:
                raise zipfile.BadZipFile(f"its record {record.filename!a} is compressed")
            if whole or record.filename.endswith("/data.pkl"):
                with archive.open(record) as file:
                    while file.read(1 << 20):
                        pass


def _unreadable(error: Exception) -> str:
    """Why a weights file cannot be read, and what to do. PyTorch's own message advises to run what is in it."""
    said = str(error)
    if isinstance(error, pickle.UnpicklingError) and "weights_only" in said.lower().replace(" ", "_"):
        found = re.search(r"(?:nsupported (?:global: )?GLOBAL|add_safe_globals`,? but got) (\S+)", said)
        if found:
            return (
                f"it holds pickled objects other than tensors ({shown(found[1], str)}), which could run any code "
                "and are not opened. Where it was made, save the tensors alone, with "
                "torch.save(model.state_dict(), FILE) or as a safetensors file."
            )
        said = "its pickled part is damaged"
    reason = shown(" ".join(said.split()) or type(error).__name__, str)
    return (
        f"it is damaged or was cut off ({reason}). Expected a dictionary of tensors, complete; download or export "
        "it again."
    )


def weights_file(
    source: str | Path, hub: Hub = HUB, use_safetensors: bool | None = None, variant: str | None = None
) -> Path:
    """The file with the weights of a file, folder, run's folder or hub name; arguments as of `read_weights`.

    Raises:
        FileNotFoundError: nothing of that name, here or on the hub.
    """
    path = hub.local(source)
    if not path.is_dir() and (path.is_file() or path.suffix in WEIGHT_SUFFIXES):
        return path
    names = [name for name in WEIGHT_FILES if use_safetensors in (None, name.endswith(".safetensors"))]
    return run_checkpoint(path) or fetch(source, [_variant(name, variant) for name in names], hub)


def _variant(name: str, variant: str | None) -> str:
    """A file's name with `variant` before its ending."""
    stem, dot, ending = name.rpartition(".")
    return f"{stem}.{variant}{dot}{ending}" if variant else name


def read_weights(
    source: str | Path, hub: Hub = HUB, *, use_safetensors: bool | None = None, variant: str | None = None
) -> dict[str, Tensor]:
    """Weights under the reference's names, from any file or folder that holds an LXMERT or a BERT.

    Args:
        source: a folder or hub name with `model.safetensors`, `pytorch_model.bin` or TensorFlow's `tf_model.h5`,
            of an LXMERT or a BERT, or such a file; a file of the original release (`*_LXRT.pth`, `BEST.pth`),
            with or without `module.` prefixes; or a checkpoint of a run (`*.ckpt`), of which the model and its
            objectives count, or the run's folder.
        hub: how to get it from the hub.
        use_safetensors: True and False read the one or the other file alone.
        variant: of the file's name in a folder: `model.<variant>.safetensors`.

    Raises:
        FileNotFoundError: nothing of that name, here or on the hub.
        InputError: the file is not a checkpoint that can be read safely.
    """
    path = weights_file(source, hub, use_safetensors, variant)
    content = upgrade(open_weights(path))
    is_run = isinstance(content, dict) and "state_dict" in content
    weights = content["state_dict"] if is_run else content
    if not isinstance(weights, dict) or not weights:
        raise InputError(f"{path} does not hold a dictionary of tensors; expected the weights of an LXMERT")
    if numbered := [name for name in weights if not isinstance(name, str)]:
        raise InputError(
            f"{path} does not hold a dictionary of tensors by name: a key is {shown(numbered[0])}; expected the "
            "weights of an LXMERT"
        )
    if is_run:
        own = {name: each for name, each in weights.items() if name.startswith(("model.", "objectives."))}
        if not own:
            raise InputError(
                f"{path} holds no LXMERT: none of its {len(weights)} tensors is called model.*; expected a "
                "checkpoint that train.py wrote"
            )
        weights = own
    for name, tensor in weights.items():
        if problem := _problem(tensor):
            raise InputError(
                f"{path} does not hold a dictionary of tensors: its entry {shown(name)} is {problem}; expected "
                "the weights of an LXMERT, each a dense tensor. Save them as such, or get the file again."
            )
    if not is_run:
        return in_reference_names(weights, str(path))
    try:
        names = reference_names(weights, content.get("heads") or HEADS)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return {names[name]: tensor for name, tensor in weights.items()}


def _problem(tensor: Any) -> str:
    """What keeps an entry of a state dict from being weights in memory; nothing if it is in order."""
    if not isinstance(tensor, Tensor):
        return f"of type {type(tensor).__name__}"
    if tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided:
        return "a nested tensor" if tensor.is_nested else "quantised" if tensor.is_quantized else "sparse"
    if tensor.device.type != "cpu":
        return f"without numbers, on the device {tensor.device.type}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"of shape {list(tensor.shape)}, more numbers than the file holds"
    return ""


def in_reference_names(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Weights of another project under the reference's names.

    Where some already stand behind `lxmert.`, all are the reference's or a model's of one's own, whose parts have
    any names (`pooler`, `logit_fc`, `gamma`).

    Raises:
        InputError: two of them would have the same name.
    """
    found: dict[str, Tensor] = {}
    is_foreign = not any(name.startswith("lxmert.") for name in weights)
    for name, tensor in weights.items():
        new = from_foreign(name) if is_foreign else name
        if new in found:
            raise InputError(
                f"{source}: {shown(name)} and another entry are both {shown(new)} in the reference; keep the one "
                "that is meant"
            )
        found[new] = tensor
    found.pop("cls.predictions.decoder.weight", None)  # the word embeddings again: the two are tied
    bias = found.pop("cls.predictions.decoder.bias", None)
    if bias is not None:
        found.setdefault("cls.predictions.bias", bias)
    first = found.get("answer_head.logit_fc.0.weight")
    if is_foreign and first is not None and first.ndim == 2 and first.shape[0] == first.shape[1]:
        # It reads two pooled outputs side by side: the original calls NLVR2's head like an answer head.
        return {re.sub(r"^answer_head\.", "pair_head.", name): tensor for name, tensor in found.items()}
    if is_bert(found):
        # Of the shape of the matching head, but it tells whether sentences follow each other, and its
        # classes are the other way round.
        old, new = r"^cls\.seq_relationship\.", "cls.next_sentence."
        return {re.sub(old, new, name): tensor for name, tensor in found.items()}
    return found


def kept_config(checkpoint: Path) -> Any:
    """The values of the config in a run's checkpoint; None where there is none.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read.
    """
    content = open_weights(checkpoint, whole=False)
    return content.get("lxmert_config") if isinstance(content, dict) else None


def read_answers(source: str | Path) -> list[str] | None:
    """The answer list kept with weights, in label order; None where there is none.

    Args:
        source: a checkpoint of a run or its folder, a folder or hub repository with `config.json`, a weights
            file with its `*.answers.json` beside it, or a JSON list of answers, plain or as the original's
            `all_ans.json` has them (`[{"ans": ...}]`).

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read, or holds no answers.
    """
    path = run_checkpoint(source) or Path(source).expanduser()
    if path.suffix == ".ckpt":
        values = kept_config(path)
        return None if values is None else _answers_in(values, f"{path}, lxmert_config")
    if path.is_file() and path.suffix != ".json":
        path = answers_beside(path)
        if not path.exists():
            return None
    if path.suffix == ".json":
        entries = read_json(path)
        if isinstance(entries, list):
            entries = [entry.get("ans") if isinstance(entry, dict) else entry for entry in entries]
        return check_answers(entries, f"{path}: the answer list")
    try:
        config = fetch(source, ["config.json"])
    except FileNotFoundError:
        return None
    return _answers_in(read_json(config), str(config))


def _answers_in(config: Any, where: str) -> list[str] | None:
    """The answers in what should be a config; it may be a BERT's."""
    answers = config.get("answers") if isinstance(config, dict) else None
    return None if answers is None else check_answers(answers, f"{where}: answers")


def tokenizer_with(source: str | Path) -> LxmertTokenizer | None:
    """The tokenizer kept with weights; None where there is none.

    Args:
        source: a run's folder or a checkpoint in it, a folder with a vocabulary, or a weights file with its
            `*.tokenizer` beside it. Nothing is fetched from the hub.

    Raises:
        InputError: it cannot be read.
    """
    path = Path(source).expanduser()
    if path.is_file():
        path = run if ((run := run_of(path)) / "run.json").is_file() else tokenizer_beside(path)
    there = any((path / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
    return LxmertTokenizer.from_pretrained(path) if there else None


def read_vocabulary(source: str | Path) -> str | None:
    """`LxmertTokenizer.sha256` of the vocabulary that weights are for; None where it is not known.

    Args:
        source: as of `read_answers`. What the weights' config says goes before a vocabulary beside them.
    """
    if found := _config_of(source).get("vocab_sha256"):
        return str(found)
    tokenizer = tokenizer_with(source)
    return tokenizer.sha256 if tokenizer else None


def read_detector(source: str | Path) -> str | None:
    """What found the regions that weights were trained on, None where not known; `source` as `read_answers`."""
    found = _config_of(source).get("detector")
    return None if found is None else str(found)


def _config_of(source: str | Path) -> dict[str, Any]:
    """The config that goes with weights; empty where there is none."""
    path = run_checkpoint(source) or Path(source).expanduser()
    config: Any = None
    if path.suffix == ".ckpt":
        config = kept_config(path)
    elif not path.is_file():
        with suppress(FileNotFoundError):
            config = read_json(fetch(source, ["config.json"]))
    return config if isinstance(config, dict) else {}


def tokenizer_beside(weights: Path) -> Path:
    """Where the folder with the vocabulary of an exported weights file is."""
    return weights.with_suffix(".tokenizer")


def answers_beside(weights: Path) -> Path:
    """Where the answer list of an exported weights file is."""
    return weights.with_suffix(".answers.json")


def write_folder(
    folder: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    architecture: str,
    safe: bool = True,
    variant: str | None = None,
) -> None:
    """Write `config.json` and `model.safetensors` as the reference library has them.

    Args:
        folder: made where it does not exist.
        config: the sizes, and the answers, as `LxmertConfig.to_dict` gives them. Without texts of labels the
            answers are written a second time as id2label and label2id, where the reference's tools look for them.
        weights: under the reference's names.
        architecture: the class they belong to. A bare LxmertModel's names have no prefix in its files.
        safe: else `pytorch_model.bin`; `model.safetensors`, which would be read before it, is removed.
        variant: of the file's name, `model.<variant>.safetensors`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "lxmert." if all(name.startswith("lxmert.") for name in weights) else ""
    tensors = {name.removeprefix(prefix): tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    values: dict[str, Any] = {**config, "architectures": [architecture]}
    labels = config.get("id2label") or {}
    if config.get("answers") and all(text.startswith("LABEL_") for text in labels.values()):  # they tell nothing
        values["id2label"] = {str(label): answer for label, answer in enumerate(config["answers"])}
        values["label2id"] = {answer: label for label, answer in enumerate(config["answers"])}
    write_text(folder / "config.json", json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    with replacing(folder / _variant(WEIGHT_FILES[0 if safe else 1], variant)) as temporary:
        if safe:
            save_file(tensors, temporary, metadata={"format": "pt"})
        else:
            torch.save(tensors, temporary)
    if not safe:
        (folder / _variant(WEIGHT_FILES[0], variant)).unlink(missing_ok=True)
