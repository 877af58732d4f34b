"""Names of parameters: how the reference, runs, the original and others call the same weights.

The reference's names are the common ones: the model's modules bear them, and every format is first brought to
them. A run's checkpoint has the learner's: the encoders' behind `model.` in place of `lxmert.`, a head's behind
`objectives.<objective>.head.` in place of the name that its objective gives it. No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lxmert.files import InputError, shown

WORD_EMBEDDINGS = "lxmert.embeddings.word_embeddings.weight"
# What LXMERT has over a BERT.
SIGHT = ("lxmert.encoder.visn_fc.", "lxmert.encoder.r_layers.", "lxmert.encoder.x_layers.")

# Heads of the objectives here; a checkpoint tells those of its own run.
HEADS = {
    "answering": "answer_head",
    "question_answering": "answer_head",
    "classification": "answer_head",
    "image_pair": "pair_head",  # the reference has no head for pairs of images
    "masked_language": "cls.predictions",
    "matching": "cls.seq_relationship",
    "masked_region": "obj_predict_head",
}

# The original's names -> the reference's, behind the prefixes that others put before them. `module.` is
# DataParallel's; `lxrt_encoder.model.` is how the original saves fine-tuned models, which share one name for the
# head; gamma and beta are BERT's first PyTorch release.
FOREIGN = [
    (r"^(module\.)+", ""),
    (r"^lxrt_encoder\.model\.", ""),
    (r"^(module\.)+", ""),
    (r"^bert\.", "lxmert."),
    (r"^logit_fc\.", "answer_head.logit_fc."),
    (r"^(embeddings|encoder|pooler)\.", r"lxmert.\1."),
    (r"\bgamma$", "weight"),
    (r"\bbeta$", "bias"),
]

# Modules had names of their own until their checkpoints told their heads -> the present names.
BEFORE = [
    (r"\bembeddings\.(word|position|token_type)\.", r"embeddings.\1_embeddings."),
    (r"\bembeddings\.norm\.", "embeddings.LayerNorm."),
    (r"\bregion_embedding\.feature\.", "encoder.visn_fc.visn_fc."),
    (r"\bregion_embedding\.feature_norm\.", "encoder.visn_fc.visn_layer_norm."),
    (r"\bregion_embedding\.box\.", "encoder.visn_fc.box_fc."),
    (r"\bregion_embedding\.box_norm\.", "encoder.visn_fc.box_layer_norm."),
    (r"\bregion_embedding\.", "encoder.visn_fc."),
    (r"\blanguage_layers\.", "encoder.layer."),
    (r"\bvision_layers\.", "encoder.r_layers."),
    (r"\bcross_layers\.", "encoder.x_layers."),
    (r"\bpooler\.(?!dense)", "pooler.dense."),
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
    (r"^(objectives\.(answering|question_answering|image_pair)\.head)\.(\d)\.", r"\1.logit_fc.\3."),
    (r"\bhead\.transform\.0\.", "head.transform.dense."),
    (r"\bhead\.transform\.2\.", "head.transform.LayerNorm."),
    (r"\bhead\.outputs\.", "head.decoder_dict."),
]


def reference_names(names: Iterable[str], heads: Mapping[str, str]) -> dict[str, str]:
    """The reference's name of each parameter of a learner; without two alike, so that it can be inverted.

    Args:
        names: of the learner's parameters.
        heads: objective -> what its head is called, as `HEADS`.

    Raises:
        InputError: a name is of no part that is known, or two would be the same.
    """
    found: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name in names:
        new = _reference_name(name, heads)
        if new in owners:
            raise InputError(
                f"{owners[new]} and {name} are both {new} in the reference: a run may have one answer head; "
                "choose one of the objectives answering, question_answering and classification"
            )
        owners[new] = name
        found[name] = new
    return found


def _reference_name(name: str, heads: Mapping[str, str]) -> str:
    part, _, rest = name.partition(".")
    if part == "model" and rest:
        return f"lxmert.{rest}"
    objective, _, rest = rest.partition(".head.")
    if part == "objectives" and rest and objective in heads:
        return f"{heads[objective]}.{rest}"
    raise InputError(
        f"{shown(name, str)} is the name of no weight that is known here; expected model.* and "
        f"objectives.<objective>.head.* of {', '.join(sorted(heads))}. An objective of your own names its head in "
        "`head_name`."
    )


def from_foreign(name: str) -> str:
    """The reference's name of a parameter of the original's, of a BERT, or of the reference itself."""
    for pattern, replacement in FOREIGN:
        name = re.sub(pattern, replacement, name)
    return name


def to_original(name: str, pretrained: bool) -> str:
    """The original's name, in its files of pre-trained or of fine-tuned models; `from_foreign` goes back."""
    if name.startswith("lxmert."):
        return ("bert." if pretrained else "lxrt_encoder.model.bert.") + name.removeprefix("lxmert.")
    return name if pretrained else name.removeprefix("answer_head.").removeprefix("pair_head.")


def upgrade(state: Any) -> Any:
    """A run's checkpoint with present names, in place; anything else as it is."""
    if not isinstance(state, dict) or "lxmert_config" not in state or "heads" in state:
        return state
    for part in ("state_dict", "trained_weights"):
        if isinstance(state.get(part), dict):
            state[part] = {_upgraded(name): tensor for name, tensor in state[part].items()}
    settings = state.get("settings")
    if isinstance(settings, dict) and isinstance(settings.get("freeze"), list):
        settings["freeze"] = [_upgraded(f"{pattern}.").removesuffix(".") for pattern in settings["freeze"]]
    return state


def _upgraded(name: Any) -> Any:
    if isinstance(name, str):
        for pattern, replacement in BEFORE:
            name = re.sub(pattern, replacement, name)
    return name


def is_bert(names: Iterable[str]) -> bool:
    """Whether `names` are a BERT's: language layers and nothing that sees."""
    names = list(names)
    layers = [name for name in names if name.startswith("lxmert.encoder.")]
    foreign = (*SIGHT, "obj_predict_head.", "answer_head.", "pair_head.")
    return bool(layers) and not any(name.startswith(foreign) for name in names)


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
