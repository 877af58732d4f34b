"""Weights of other projects to ours and back, and the report of what was loaded.

Inside the project parameters have names that say what they are; on disk they have the reference
library's names, so that any LXMERT code reads what is saved here. `reference_name` is the only
translation; every format is first brought to the reference's names.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lxmert.config import LxmertConfig
from lxmert.files import fetch, replacing

log = logging.getLogger(__name__)

WEIGHT_FILES = ["model.safetensors", "pytorch_model.bin"]

# Ours -> reference, applied in order. The learner's and the model's prefixes come first.
RENAMES = [
    (r"^model\.", "lxmert."),
    (r"^objectives\.answering\.head\.", "answer_head."),
    (r"^answer_head\.", "answer_head.logit_fc."),
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


def reference_name(name: str) -> str:
    """The reference library's name of one of our parameters."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


@dataclass
class LoadReport:
    """What loading did, in the reference's names.

    Args:
        source: where the weights came from.
        loaded: parameters taken over.
        missing: parameters that the source does not have; they keep their initial values.
        unexpected: what the source has and the model does not.
        reshaped: (name, shape in the source, shape in the model): left at their initial values.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)

    @property
    def unloaded_encoder(self) -> list[str]:
        """Encoder parameters that were not loaded: the model would start from noise there."""
        names = self.missing + [name for name, _, _ in self.reshaped]
        return [name for name in names if name.startswith("lxmert.")]

    def __str__(self) -> str:
        lines = [f"weights from {self.source}: {len(self.loaded)} tensors loaded"]
        reshaped = [f"{name} {list(there)} -> {list(here)}" for name, there, here in self.reshaped]
        for title, names in (
            ("missing, left at their initial values", self.missing),
            ("of another shape, left at their initial values", reshaped),
            ("unexpected, not used", self.unexpected),
        ):
            if names:
                shown = ", ".join(names[:6]) + (f", ... {len(names) - 6} more" if len(names) > 6 else "")
                lines.append(f"  {len(names)} {title}: {shown}")
        return "\n".join(lines)


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """Weights under the reference's names, from any file or folder that holds an LXMERT.

    Args:
        source: a folder or hub name with `model.safetensors` or `pytorch_model.bin`; a file of the
            original release (`*_LXRT.pth`, `BEST.pth`), with or without `module.` prefixes; or a
            checkpoint of a run (`*.ckpt`).

    Raises:
        FileNotFoundError: nothing of that name, here or on the hub.
        ValueError: the file is not a checkpoint that can be read safely.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        path = fetch(source, WEIGHT_FILES)
    is_safetensors = path.suffix == ".safetensors"
    weights: Any
    try:
        weights = load_file(path) if is_safetensors else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a {'safetensors file' if is_safetensors else 'PyTorch checkpoint'}: "
            f"{error}. Expected a dictionary of tensors, complete and not pickled objects; download or export "
            "it again."
        ) from error
    if isinstance(weights, dict) and "state_dict" in weights:  # a run's checkpoint: our own names
        return {reference_name(name): tensor for name, tensor in weights["state_dict"].items()}
    if not isinstance(weights, dict) or not all(isinstance(item, Tensor) for item in weights.values()):
        raise ValueError(f"{path} does not hold a dictionary of tensors; expected the weights of an LXMERT")
    renamed = {}
    for name, tensor in weights.items():
        new = name
        for pattern, replacement in FOREIGN_RENAMES:
            new = re.sub(pattern, replacement, new)
        renamed[new] = tensor
    renamed.pop("cls.predictions.decoder.weight", None)  # the word embeddings again: the two are tied
    return renamed


def read_answers(source: str | Path) -> list[str] | None:
    """The answer list kept with weights, in label order; None where there is none.

    Args:
        source: a checkpoint of a run, a folder that `save_pretrained` wrote, or a JSON list of answers,
            plain or as the original's `all_ans.json` has them (`[{"ans": ...}]`).
    """
    path = Path(source).expanduser()
    if path.suffix == ".ckpt":
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)["lxmert_config"]["answers"]
    if path.suffix == ".json":
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [entry["ans"] if isinstance(entry, dict) else entry for entry in entries]
    if (path / "config.json").is_file():
        return LxmertConfig.from_pretrained(path).answers
    return None


NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate("one two three four five six seven eight nine ten".split(), start=1)  # noqa: SIM905
}


def canonical_answer(answer: str) -> str:
    """An answer as the pre-training answer table spells it: the original's `AnswerTable.convert_ans`."""
    answer = answer.lower().removesuffix(".")
    for article in ("a ", "an ", "the "):
        answer = answer.removeprefix(article)
    return {"grey": "gray", **NUMBER_WORDS}.get(answer, answer)


def match_answer_head(weights: dict[str, Tensor], theirs: Sequence[str] | None, ours: Sequence[str]) -> int:
    """Rearrange the answer head's last layer, in place, from the answer list `theirs` to `ours`, by text.

    Rows without a match become zero, as in the original's `load_lxmert_qa`. With `theirs` unknown the
    layer is dropped: rows that merely stand in the same place would mean other answers.

    Returns:
        How many of `ours` were found.

    Raises:
        ValueError: `theirs` has not one answer for each row.
    """
    layer = [name for name in weights if name.startswith("answer_head.logit_fc.3.")]
    if theirs is None:
        for name in layer:
            del weights[name]
        return 0
    places = {canonical_answer(answer): place for place, answer in enumerate(theirs)}
    found = {place: places[c] for place, answer in enumerate(ours) if (c := canonical_answer(answer)) in places}
    for name in layer:
        old = weights[name]
        if len(old) != len(theirs):
            raise ValueError(
                f"{len(theirs)} answers for the {len(old)} rows of {name}: the list is another head's"
            )
        weights[name] = old.new_zeros(len(ours), *old.shape[1:])
        weights[name][list(found)] = old[list(found.values())]
    return len(found) if layer else 0


def load_weights(
    module: nn.Module, weights: dict[str, Tensor], source: str, prefix: str = "", allow_missing: bool = False
) -> LoadReport:
    """Copy `weights` into `module` where names and shapes agree, print one report and return it.

    Args:
        module: a model of ours, or a learner.
        weights: under the reference's names, from `read_weights`.
        source: named in the report.
        prefix: put before the module's own names before they are translated.
        allow_missing: go on when encoder weights are missing or of another shape.

    Raises:
        ValueError: encoder weights are missing or of another shape; nothing has been copied then.
    """
    report = LoadReport(source)
    own = {reference_name(prefix + name): tensor for name, tensor in module.state_dict().items()}
    for name, tensor in own.items():
        if name not in weights:
            report.missing.append(name)
        elif weights[name].shape != tensor.shape:
            report.reshaped.append((name, tuple(weights[name].shape), tuple(tensor.shape)))
        else:
            report.loaded.append(name)
    report.unexpected = sorted(set(weights) - set(own))
    if report.unloaded_encoder and not allow_missing:
        raise ValueError(
            f"{report}\n{len(report.unloaded_encoder)} encoder weights would keep random values: the file is "
            "of another architecture or incomplete. Fix the model's config, or allow missing weights if you "
            "mean it."
        )
    with torch.no_grad():
        for name in report.loaded:
            own[name].copy_(weights[name])
    log.log(logging.WARNING if report.missing or report.reshaped else logging.INFO, "%s", report)
    return report


class Pretrained(nn.Module):
    """A model that opens and saves the reference library's folders."""

    config: LxmertConfig
    reference_prefix = ""  # put before own names to translate them; a bare LxmertModel has "model."

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, config: LxmertConfig | None = None, allow_missing: bool = False
    ) -> Self:
        """Open a model from a folder, a hub name or a weights file of the original release.

        Args:
            name_or_path: a folder with `config.json` and `model.safetensors`, a hub repository's name,
                or a weights file (which has no config: the published sizes are assumed).
            config: sizes to use instead of those found.
            allow_missing: go on when encoder weights are missing or of another shape.

        Returns:
            The model, in evaluation mode. One report of what was loaded is logged.
        """
        if config is None:
            is_file = Path(name_or_path).expanduser().is_file()
            config = LxmertConfig() if is_file else LxmertConfig.from_pretrained(name_or_path)
        weights = read_weights(name_or_path)
        model = cls(config)
        load_weights(model, weights, str(name_or_path), cls.reference_prefix, allow_missing)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, readable by the reference library."""
        folder = Path(folder)
        self.config.save_pretrained(folder)
        weights = {}
        for name, tensor in self.state_dict().items():
            name = reference_name(self.reference_prefix + name)
            if self.reference_prefix:  # a bare LxmertModel has no prefix in the reference's files
                name = name.removeprefix("lxmert.")
            weights[name] = tensor.detach().cpu().contiguous()
        with replacing(folder / "model.safetensors") as temporary:
            save_file(weights, temporary, metadata={"format": "pt"})
