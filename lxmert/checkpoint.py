"""Weights of other projects to ours and back, and the report of what was loaded.

Inside the project parameters have names that say what they are; on disk they have the reference
library's names, so that any LXMERT code reads what is saved here. `reference_name` is the only
translation; every format is first brought to the reference's names.

python -m lxmert.checkpoint export --to {reference,original} CKPT OUT
"""

from __future__ import annotations

import functools
import json
import logging
import pickle
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lxmert.config import LxmertConfig, check_answers
from lxmert.evaluate.spelling import canonical_answer
from lxmert.files import InputError, fetch, read_json, replacing, run_checkpoint, shown, write_text

log = logging.getLogger(__name__)

WEIGHT_FILES = ["model.safetensors", "pytorch_model.bin"]
WEIGHT_SUFFIXES = (".ckpt", ".pth", ".bin", ".safetensors")

WORD_EMBEDDINGS = "lxmert.embeddings.word_embeddings.weight"

# What LXMERT has over a BERT, in the reference's names.
SIGHT = ("lxmert.encoder.visn_fc.", "lxmert.encoder.r_layers.", "lxmert.encoder.x_layers.")

# Ours -> reference, applied in order. The learner's and the model's prefixes come first.
RENAMES = [
    (r"^model\.", "lxmert."),
    (r"^objectives\.(answering|question_answering)\.head\.", "answer_head."),
    (r"^objectives\.image_pair\.head\.", "pair_head."),
    (r"^objectives\.masked_language\.head\.", "mlm_head."),
    (r"^objectives\.matching\.head\.", "matching_head."),
    (r"^objectives\.masked_region\.head\.", "region_head."),
    (r"^(answer|pair)_head\.", r"\1_head.logit_fc."),  # the reference has no head for pairs of images
    (r"^mlm_head\.transform\.", "cls.predictions.transform."),
    (r"^mlm_head\.", "cls.predictions."),
    (r"^matching_head\.", "cls.seq_relationship."),
    (r"^region_head\.transform\.", "obj_predict_head.transform."),
    (r"^region_head\.outputs\.", "obj_predict_head.decoder_dict."),
    (r"\btransform\.0\.", "transform.dense."),
    (r"\btransform\.2\.", "transform.LayerNorm."),
    (r"\bembeddings\.(word|position|token_type)\.", r"embeddings.\1_embeddings."),
    (r"\bembeddings\.norm\.", "embeddings.LayerNorm."),
    (r"\bregion_embedding\.feature\.", "encoder.visn_fc.visn_fc."),
    (r"\bregion_embedding\.feature_norm\.", "encoder.visn_fc.visn_layer_norm."),
    (r"\bregion_embedding\.box\.", "encoder.visn_fc.box_fc."),
    (r"\bregion_embedding\.box_norm\.", "encoder.visn_fc.box_layer_norm."),
    (r"\blanguage_layers\.", "encoder.layer."),
    (r"\bvision_layers\.", "encoder.r_layers."),
    (r"\bcross_layers\.", "encoder.x_layers."),
    (r"\bpooler\.", "pooler.dense."),
    (r"\bcross_attention\.(query|key|value)\.", r"visual_attention.att.\1."),
    (r"\bcross_attention\.", "visual_attention."),
    (r"\blanguage_attention\.", "lang_self_att."),
    (r"\bvision_attention\.", "visn_self_att."),
    (r"\b(attention|lang_self_att|visn_self_att)\.(query|key|value)\.", r"\1.self.\2."),
    (r"\b(attention|visual_attention|lang_self_att|visn_self_att)\.output\.", r"\1.output.dense."),
    (r"\b(attention|visual_attention|lang_self_att|visn_self_att)\.norm\.", r"\1.output.LayerNorm."),
    (r"\blanguage_feed_forward\.up\.", "lang_inter.dense."),
    (r"\blanguage_feed_forward\.down\.", "lang_output.dense."),
    (r"\blanguage_feed_forward\.norm\.", "lang_output.LayerNorm."),
    (r"\bvision_feed_forward\.up\.", "visn_inter.dense."),
    (r"\bvision_feed_forward\.down\.", "visn_output.dense."),
    (r"\bvision_feed_forward\.norm\.", "visn_output.LayerNorm."),
    (r"\bfeed_forward\.up\.", "intermediate.dense."),
    (r"\bfeed_forward\.down\.", "output.dense."),
    (r"\bfeed_forward\.norm\.", "output.LayerNorm."),
]

# Other projects -> reference. `module.` is DataParallel's; `lxrt_encoder.model.` is how the original
# saves fine-tuned models; gamma and beta are BERT's first PyTorch release.
FOREIGN_RENAMES = [
    (r"^(module\.)+", ""),
    (r"^lxrt_encoder\.model\.", ""),
    (r"^(module\.)+", ""),
    (r"^bert\.", "lxmert."),
    (r"^logit_fc\.", "answer_head.logit_fc."),
    (r"^(embeddings|encoder|pooler)\.", r"lxmert.\1."),
    (r"\bgamma$", "weight"),
    (r"\bbeta$", "bias"),
]


@functools.cache
def reference_name(name: str) -> str:
    """The reference library's name of one of our parameters."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def renamed(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Tensors of a model or learner of ours under the reference's names; `prefix` is put before ours first.

    Raises:
        InputError: two of them would have the same name.
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = reference_name(prefix + name)
        if new in weights:
            raise InputError(
                f"{name} and another parameter are both {new} in the reference: a run may have one answer head; "
                "choose one of the objectives answering and question_answering"
            )
        weights[new] = tensor
    return weights


def is_bert(weights: Iterable[str]) -> bool:
    """Whether `weights`, in the reference's names, are a BERT's: language layers and nothing that sees."""
    layers = [name for name in weights if name.startswith("lxmert.encoder.")]
    foreign = (*SIGHT, "obj_predict_head.", "answer_head.", "pair_head.")
    return bool(layers) and not any(name.startswith(foreign) for name in weights)


def grouped(names: Iterable[str]) -> str:
    """Names in few words: parts and layers with their number of tensors, a single tensor in full."""
    groups: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        depth = 3 if name.startswith("lxmert.encoder.") else 2 if parts[0] in ("lxmert", "cls") else 1
        groups.setdefault(".".join(parts[:depth]), []).append(name)
    words = []
    for group, members in groups.items():
        inner = {name.removeprefix(f"{group}.").split(".")[0] for name in members}
        layers = "+".join(map(str, sorted(int(part) for part in inner if part.isdigit())))
        several = f"{group}{'.' if layers else ''}{layers} ({len(members)})"
        words.append(shown(several if len(members) > 1 else members[0], str))
    return ", ".join(words[:12]) + (f", ... {len(words) - 12} more" if len(words) > 12 else "")


@dataclass
class LoadReport:
    """What loading did, in the reference's names.

    Args:
        source: where the weights came from.
        bert: the source is a BERT: what LXMERT adds to it is rightly missing.
        loaded: parameters taken over.
        missing: parameters that the source does not have; they keep their initial values.
        unexpected: what the source has and the model does not.
        reshaped: (name, shape in the source, shape in the model): left at their initial values.
    """

    source: str
    bert: bool = False
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)

    @property
    def unloaded_encoder(self) -> list[str]:
        """Encoder parameters that the source should have and were not loaded: they would be noise."""
        names = self.missing + [name for name, _, _ in self.reshaped]
        added = SIGHT if self.bert else ()
        return [name for name in names if name.startswith("lxmert.") and not name.startswith(added)]

    @property
    def other_vocabulary(self) -> str:
        """A sentence on the source's vocabulary where it is another than the model's, else nothing."""
        for name, there, here in self.reshaped:
            if name == WORD_EMBEDDINGS and len(there) == len(here) and there[0] != here[0]:
                return (
                    f"Its word embeddings are of another vocabulary, {there[0]} word pieces and not {here[0]}: "
                    "use the vocabulary the weights were trained with. "
                )
        return ""

    def __str__(self) -> str:
        kind = " (a BERT)" if self.bert else ""
        lines = [f"weights from {self.source}{kind}: {len(self.loaded)} tensors loaded"]
        if self.missing:
            lines.append(f"  {len(self.missing)} missing, left at their initial values: {grouped(self.missing)}")
        if self.reshaped:
            each = [f"{name} {list(there)} -> {list(here)}" for name, there, here in self.reshaped[:6]]
            if len(self.reshaped) > 6:
                each.append(f"... {len(self.reshaped) - 6} more")
            lines.append(
                f"  {len(self.reshaped)} of another shape, left at their initial values: {', '.join(each)}"
            )
        if self.unexpected:
            lines.append(f"  {len(self.unexpected)} not used: {grouped(self.unexpected)}")
        return "\n".join(lines)


def compare(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str) -> LoadReport:
    """What of `weights` fits a model's parameters `own`; both under the reference's names.

    Raises:
        InputError: what the model would take over are no real numbers.
    """
    report = LoadReport(source, is_bert(weights))
    for name, tensor in own.items():
        if name not in weights:
            report.missing.append(name)
        elif not weights[name].is_floating_point():
            raise InputError(
                f"{source}: {name} is of type {weights[name].dtype}; expected floating-point numbers. Save the "
                "weights as such, or get the file again."
            )
        elif weights[name].shape != tensor.shape:
            report.reshaped.append((name, tuple(weights[name].shape), tuple(tensor.shape)))
        else:
            report.loaded.append(name)
    report.unexpected = sorted(set(weights) - set(own))
    return report


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


def weights_file(source: str | Path) -> Path:
    """The file with the weights of a file, folder, run's folder or hub name.

    Raises:
        FileNotFoundError: nothing of that name, here or on the hub.
    """
    path = Path(source).expanduser()
    if not path.is_dir() and (path.is_file() or path.suffix in WEIGHT_SUFFIXES):
        return path
    return run_checkpoint(path) or fetch(source, WEIGHT_FILES)


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """Weights under the reference's names, from any file or folder that holds an LXMERT or a BERT.

    Args:
        source: a folder or hub name with `model.safetensors` or `pytorch_model.bin`, of an LXMERT or a
            BERT; a file of the original release (`*_LXRT.pth`, `BEST.pth`), with or without `module.`
            prefixes; or a checkpoint of a run (`*.ckpt`), of which the model and its objectives count, or
            the run's folder.

    Raises:
        FileNotFoundError: nothing of that name, here or on the hub.
        InputError: the file is not a checkpoint that can be read safely.
    """
    path = weights_file(source)
    content = open_weights(path)
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
    return renamed(weights) if is_run else from_foreign(weights, str(path))


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


def from_foreign(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Weights of another project under the reference's names.

    Raises:
        InputError: two of them would have the same name.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        new = name
        for pattern, replacement in FOREIGN_RENAMES:
            new = re.sub(pattern, replacement, new)
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
    if first is not None and first.ndim == 2 and first.shape[0] == first.shape[1]:
        # It reads two pooled outputs side by side: the original calls NLVR2's head like an answer head.
        return {re.sub(r"^answer_head\.", "pair_head.", name): tensor for name, tensor in found.items()}
    if is_bert(found):
        # Of the shape of the matching head, but it tells whether sentences follow each other, and its
        # classes are the other way round.
        old, new = r"^cls\.seq_relationship\.", "cls.next_sentence."
        return {re.sub(old, new, name): tensor for name, tensor in found.items()}
    return found


def read_config(source: str | Path) -> LxmertConfig | None:
    """The architecture kept with weights: in a run's checkpoint or a folder; None for a bare weights file.

    Raises:
        FileNotFoundError: the checkpoint does not exist, or the folder or hub repository has no config.
        InputError: it cannot be read.
    """
    path = run_checkpoint(source) or Path(source).expanduser()
    if path.is_dir() or (path.suffix not in WEIGHT_SUFFIXES and not path.is_file()):
        return LxmertConfig.from_pretrained(source)
    if path.suffix != ".ckpt":
        return None
    content = open_weights(path, whole=False)
    values = content.get("lxmert_config") if isinstance(content, dict) else None
    return None if values is None else LxmertConfig.from_file_content(values, f"{path}, lxmert_config")


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
        run = read_config(path)
        return None if run is None else run.answers
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
    values = read_json(config)  # it may be a BERT's
    answers = values.get("answers") if isinstance(values, dict) else None
    return None if answers is None else check_answers(answers, f"{config}: answers")


def answers_beside(weights: Path) -> Path:
    """Where the answer list of an exported weights file is."""
    return weights.with_suffix(".answers.json")


def match_answer_head(weights: dict[str, Tensor], theirs: Sequence[str] | None, ours: Sequence[str]) -> int:
    """Rearrange the answer head's last layer, in place, from the answer list `theirs` to `ours`, by text.

    The same text comes first, then the same spelling in the pre-training answer table. Rows without a
    match become zero, as in the original's `load_lxmert_qa`. With either list unknown or empty the layer
    is dropped: rows that merely stand in the same place would mean other answers.

    Returns:
        How many of `ours` were found.

    Raises:
        InputError: `theirs` has not one answer for each row.
    """
    layer = [name for name in weights if name.startswith("answer_head.logit_fc.3.")]
    if not theirs or not ours:
        for name in layer:
            del weights[name]
        return 0
    exact = {answer: place for place, answer in enumerate(theirs)}
    spelt = {canonical_answer(answer): place for place, answer in enumerate(theirs)}
    places = [exact.get(answer, spelt.get(canonical_answer(answer))) for answer in ours]
    found = {place: old for place, old in enumerate(places) if old is not None}
    for name in layer:
        old = weights[name]
        rows = old.shape[0] if old.ndim else 0
        if rows != len(theirs):
            raise InputError(f"{len(theirs)} answers for the {rows} rows of {name}: the list is another head's")
        weights[name] = old.new_zeros(len(ours), *old.shape[1:])
        weights[name][list(found)] = old[list(found.values())]
    return len(found) if layer else 0


def load_weights(
    module: nn.Module, weights: dict[str, Tensor], source: str, prefix: str = "", allow_missing: bool = False
) -> LoadReport:
    """Copy `weights` into `module` where names and shapes agree, print one report and return it.

    A BERT fills the embeddings, the language layers, the pooler and the masked-language head; what sees
    keeps its initial values.

    Args:
        module: a model of ours, or a learner.
        weights: under the reference's names, from `read_weights`.
        source: named in the report.
        prefix: put before the module's own names before they are translated.
        allow_missing: go on when encoder weights are missing or of another shape.

    Raises:
        InputError: encoder weights are missing, of another shape or no numbers; nothing has been copied then.
    """
    own = renamed(module.state_dict(), prefix)
    report = compare(own, weights, source)
    if not allow_missing:
        refuse_unloaded(report)
    for name in report.loaded:
        if not weights[name].sum(dtype=torch.float32).isfinite():  # a tenth of the time of looking at each
            raise InputError(
                f"{source}: {name} holds numbers that are not finite (NaN or infinite): the training that wrote "
                "it diverged, or the file is damaged. Use an earlier checkpoint, or get the file again."
            )
    with torch.no_grad():
        for name in report.loaded:
            own[name].copy_(weights[name])
    log.log(logging.WARNING if report.missing or report.reshaped else logging.INFO, "%s", report)
    return report


def refuse_unloaded(report: LoadReport) -> None:
    """Raise InputError where encoder weights are missing or of another shape."""
    if report.unloaded_encoder:
        raise InputError(
            f"{report}\n{len(report.unloaded_encoder)} encoder weights would keep random values: the file is "
            f"of another architecture or incomplete. {report.other_vocabulary}Fix the model's config, or allow "
            "missing weights if you mean it."
        )


class _Uninitialized(TorchFunctionMode):
    """Modules made in it keep whatever their memory holds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def shapes_of(architecture: type[Pretrained], config: LxmertConfig) -> dict[str, Tensor]:
    """A model's parameters under the reference's names, without memory: for their shapes alone."""
    with torch.device("meta"), _Uninitialized():
        model = architecture(config)  # type: ignore[call-arg]
    return renamed(model.state_dict(), model.reference_prefix)


class Pretrained(nn.Module):
    """A model that opens and saves the reference library's folders."""

    config: LxmertConfig
    reference_prefix = ""  # put before own names to translate them; a bare LxmertModel has "model."

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, config: LxmertConfig | None = None, allow_missing: bool = False
    ) -> Self:
        """Open a model from a folder, a hub name, a run or a weights file of the original release.

        Args:
            name_or_path: a folder with `config.json` and `model.safetensors`, a hub repository's name,
                a run's folder or checkpoint, or a weights file (which has no config: the published sizes
                are assumed).
            config: sizes to use instead of those found.
            allow_missing: go on when encoder weights are missing or of another shape.

        Returns:
            The model, in evaluation mode. One report of what was loaded is logged.

        Raises:
            FileNotFoundError: nothing of that name, here or on the hub.
            InputError: a file cannot be read, or config and weights do not fit; no memory was taken then.
        """
        kept = read_config(name_or_path) if config is None else None
        weights = read_weights(name_or_path)
        return cls.from_weights(
            config or kept or LxmertConfig(), weights, str(name_or_path), allow_missing, bool(kept)
        )

    @classmethod
    def from_weights(
        cls,
        config: LxmertConfig,
        weights: dict[str, Tensor],
        source: str,
        allow_missing: bool = False,
        strict: bool = True,
    ) -> Self:
        """The model of `config` with `weights` as `read_weights` gives them, in evaluation mode.

        Args:
            config: sizes.
            weights: under the reference's names.
            source: named in the report and in errors.
            allow_missing: go on when encoder weights are missing or of another shape.
            strict: the config is that of the weights, so that heads may not be of another shape either.

        Raises:
            InputError: config and weights do not fit; no memory was taken for the model.
        """
        report = compare(shapes_of(cls, config), weights, source)
        if not allow_missing:
            refuse_unloaded(report)
            if strict and report.reshaped:
                raise InputError(
                    f"{report}\nthe config kept with these weights is another model's. Get both from one place, "
                    "or pass the config= to use."
                )
        # Random numbers that are overwritten at once would take most of the time.
        with nullcontext() if report.missing or report.reshaped else _Uninitialized():
            model = cls(config)  # type: ignore[call-arg]
        load_weights(model, weights, source, cls.reference_prefix, allow_missing)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, readable by the reference library."""
        weights = renamed(self.state_dict(), self.reference_prefix)
        write_folder(Path(folder), self.config, weights, type(self).__name__)


def write_folder(folder: Path, config: LxmertConfig, weights: Mapping[str, Tensor], architecture: str) -> None:
    """Write `config.json` and `model.safetensors` as the reference library has them.

    Args:
        folder: made where it does not exist.
        config: the sizes, and the answers.
        weights: under the reference's names.
        architecture: the class they belong to. A bare LxmertModel's names have no prefix in its files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "lxmert." if all(name.startswith("lxmert.") for name in weights) else ""
    tensors = {name.removeprefix(prefix): tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    values = config.to_dict() | {"architectures": [architecture]}
    write_text(folder / "config.json", json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    with replacing(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


if __name__ == "__main__":
    from lxmert.weights.export import main

    sys.exit(main())
