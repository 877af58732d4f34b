"""`tf_model.h5`, as the reference's TensorFlow classes write it: names both ways, reader, writer; no TensorFlow.

The names in it are paths of Keras variables; lxmert/tensorflow/ gives its variables the same, less the dots.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import torch
from torch import Tensor

from lxmert.files import InputError, replacing, shown

# Of these a layer norm's weights are called gamma and beta.
_NORM = re.compile(r"(LayerNorm|_layer_norm|\blogit_fc\.2)$")
_LEAVES = {"gamma": "weight", "beta": "bias", "kernel": "weight", "embeddings": "weight", "weight": "weight"}

# Siblings in the order in which the reference makes its variables.
_ORDER = [
    *("lxmert", "cls", "obj_predict_head", "answer_head", "predictions", "seq_relationship"),
    *("embeddings", "encoder", "pooler", "word_embeddings", "token_type_embeddings", "position_embeddings"),
    *("visn_fc", "visn_layer_norm", "box_fc", "box_layer_norm", "layer", "x_layers", "r_layers"),
    *("attention", "visual_attention", "lang_self_att", "visn_self_att", "intermediate"),
    *("lang_inter", "lang_output", "visn_inter", "visn_output", "self", "att", "query", "key", "value", "output"),
    *("dense", "LayerNorm", "logit_fc", "weight", "bias", "transform", "decoder_dict", "attr", "feat", "obj"),
]

# What reads these files asks for the version that wrote them; the format has not changed since 2.0.
_ATTRIBUTES = {"backend": b"tensorflow", "keras_version": b"2.21.0"}
_ASCII = h5py.string_dtype("ascii")


def h5_path(name: str) -> str:
    """Where a `tf_model.h5` has a weight, below the model's name, for its PyTorch name; `torch_name` goes back.

    `lxmert.encoder.layer.0.output.dense.weight` is `lxmert/encoder/layer_._0/output/dense/kernel`.
    """
    place, _, leaf = name.rpartition(".")
    if _NORM.search(place):
        leaf = {"weight": "gamma", "bias": "beta"}[leaf]
    elif leaf == "weight":
        is_table = place.endswith("_embeddings")
        leaf = "weight" if place.endswith("word_embeddings") else "embeddings" if is_table else "kernel"
    place = re.sub(r"(?<!\bdecoder_dict)\.(?!\d)", "/", place)
    return f"{re.sub(r'[.](?=[0-9])', '_._', place)}/{leaf}"


def torch_name(path: str) -> str:
    """The PyTorch name of a weight, for its path in a `tf_model.h5` or that of the variable in lxmert/tensorflow/.

    The latter have no dots, which Keras on PyTorch does not allow: `layer_0` for `layer_._0`.

    Raises:
        ValueError: a variable of no kind that a model has.
    """
    place, _, leaf = path.rpartition("/")
    if leaf not in _LEAVES and leaf != "bias":
        raise ValueError(f"{path!a} is no weight of a model; expected .../{', .../'.join([*_LEAVES, 'bias'])}")
    place = re.sub(r"(\bdecoder_dict)_|_(?:\._)?(?=\d+(?:/|$))", r"\1.", place)
    return f"{place.replace('/', '.')}.{_LEAVES.get(leaf, leaf)}"


def is_transposed(path: str) -> bool:
    """Whether the weight at such a path is its PyTorch parameter transposed."""
    return path.endswith("/kernel")


def read_tf_h5(path: Path) -> dict[str, Tensor]:
    """The weights in a `tf_model.h5` under the reference's PyTorch names, in PyTorch's orientation.

    Raises:
        InputError: it is damaged, or holds what Keras does not write: links, other files' data, other types.
    """
    try:
        # "best-effort": file systems without locks (some network ones) work too.
        with h5py.File(path, "r", locking="best-effort") as file:
            return _read(file, path)
    except (InputError, PermissionError):
        raise
    except Exception as error:  # what h5py raises over a damaged file is any of a dozen
        raise InputError(
            f"{path} cannot be read as a TensorFlow weights file (tf_model.h5): it is damaged or was cut off "
            f"({shown(' '.join(str(error).split()) or type(error).__name__, str)}). Download or save it again."
        ) from error


def _read(file: h5py.File, path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for layer in _names_in(file, "layer_names", path):
        for written in _names_in(_follow(file, layer, path), "weight_names", path):
            # MODEL/lxmert/...:0; what comes first is the name that the model had.
            inner = written.removesuffix(":0").partition("/")[2]
            try:
                name = torch_name(inner)
            except ValueError as error:
                raise InputError(
                    f"{path}: {shown(written, str)} in {shown(layer, str)} is no weight of an LXMERT. Get the "
                    "file that from_pretrained reads, not an optimiser's state."
                ) from error
            tensor = _tensor(_follow(file, f"{layer}/{written}", path), f"{path}: {shown(written, str)}", path)
            tensor = tensor.t().contiguous() if is_transposed(inner) and tensor.ndim == 2 else tensor
            # The head of words has the embeddings once more.
            if name in found and not torch.equal(found[name], tensor):
                raise InputError(
                    f"{path} holds {shown(written, str)} twice, with other numbers. Save or download it again."
                )
            found[name] = tensor
    return found


def _names_in(group: h5py.Group | h5py.Dataset, attribute: str, path: Path) -> Iterator[str]:
    """Names in an attribute of `group`, or in its numbered pieces, as Keras cuts those over 64 kB."""
    keys = [attribute] if attribute in group.attrs else []
    while keys[:1] != [attribute] and f"{attribute}{len(keys)}" in group.attrs:
        keys.append(f"{attribute}{len(keys)}")
    if not keys:
        raise InputError(
            f"{path} has no attribute {attribute} in {group.name}: it is no file of Keras' weights. Expected a "
            "tf_model.h5 as the reference's save_pretrained writes it."
        )
    for key in keys:
        values = group.attrs[key]
        for value in values if getattr(values, "ndim", 0) == 1 else [values]:
            if not isinstance(value, str | bytes):
                raise InputError(f"{path}: {key} of {group.name} holds {shown(value)}; expected names of weights")
            yield value.decode("ascii") if isinstance(value, bytes) else value


def _follow(file: h5py.File, name: str, path: Path) -> h5py.Group | h5py.Dataset:
    """What `name` stands for, through nothing that leads out of the file."""
    found: h5py.Group | h5py.Dataset = file
    for part in name.split("/"):
        if not isinstance(found, h5py.Group) or not found.id.links.exists(part.encode()):
            raise InputError(
                f"{path} names {shown(name, str)} and does not hold it: it was cut off. Download or save it again."
            )
        if found.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise InputError(
                f"{path}: {shown(name, str)} is a link to elsewhere, which is not followed. Expected the numbers "
                "themselves: save the file again."
            )
        found = found[part]
    return found


def _tensor(dataset: h5py.Group | h5py.Dataset, where: str, path: Path) -> Tensor:
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or dataset.dtype.kind != "f":
        kind = dataset.dtype if isinstance(dataset, h5py.Dataset) else "a group"
        raise InputError(f"{where} is {kind}; expected floating-point numbers. Save the file again.")
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{where} has its numbers in another file, which is not opened. Save them in this one.")
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > stored or stored > path.stat().st_size:
        raise InputError(
            f"{where} is of {dataset.nbytes} bytes, of which the file has {stored}. Download or save it again; "
            "compressed files are not read."
        )
    values = dataset[()]
    return torch.from_numpy(values.astype(values.dtype.newbyteorder("="), copy=False))


def write_tf_h5(path: Path, weights: Mapping[str, Tensor], model: str) -> None:
    """Write a `tf_model.h5` that the reference's TensorFlow classes read; atomically.

    Args:
        path: the file.
        weights: under the reference's PyTorch names, on any device.
        model: what the reference calls the model, such as `tf_lxmert_for_pre_training`.

    Raises:
        InputError: a weight of no known part.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(weights, key=_place):
        groups.setdefault(name.partition(".")[0], []).append(name)
    if "cls" in groups:  # which reads the word embeddings, and so lists the layer that holds them
        words = [name for name in groups["cls"] if name.startswith("cls.predictions.")]
        embeddings = [name for name in groups.get("lxmert", []) if name.startswith("lxmert.embeddings.")]
        groups["cls"] = [*words, *embeddings, *(name for name in groups["cls"] if name not in words)]
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        _write_names(file, "layer_names", list(groups))
        for key, value in _ATTRIBUTES.items():
            file.attrs[key] = value
        for layer in sorted(groups):
            group = file.create_group(layer)
            paths = {f"{model}/{h5_path(name)}:0": name for name in groups[layer]}
            _write_names(group, "weight_names", list(paths))
            for place, name in paths.items():
                tensor = weights[name].detach().cpu()
                tensor = tensor.t() if is_transposed(place.removesuffix(":0")) else tensor
                group.create_dataset(place, data=tensor.contiguous().numpy())
        file.create_group("top_level_model_weights").attrs["weight_names"] = []


def _write_names(group: h5py.Group, attribute: str, names: list[str]) -> None:
    group.attrs.create(attribute, [name.encode() for name in names], dtype=_ASCII)


def _place(name: str) -> list[int]:
    """Where among the others the reference's TensorFlow classes have a weight."""
    places = []
    for part in name.split("."):
        if not part.isdigit() and part not in _ORDER:
            raise InputError(f"{shown(name, str)} is of no part that the reference's TensorFlow classes have")
        places.append(int(part) if part.isdigit() else _ORDER.index(part))
    return places
