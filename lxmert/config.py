"""LxmertConfig: every size and switch of the model, in the reference library's names."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lxmert.files import InputError, check_answers, fetch, read_json, run_checkpoint, shown, write_text

log = logging.getLogger(__name__)

# Written by the reference library into every config.json; they say nothing about the model itself.
FOREIGN_KEYS = {
    "_name_or_path", "architectures", "chunk_size_feed_forward", "dtype", "id2label", "is_encoder_decoder",
    "label2id", "model_type", "num_hidden_layers", "problem_type", "torch_dtype", "transformers_version",
    "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings",
}  # fmt: skip

# The smallest value of each size; the two single-modality encoders may have no layers.
LEAST = {
    "vocab_size": 1, "hidden_size": 1, "num_attention_heads": 1, "num_qa_labels": 1, "num_object_labels": 1,
    "num_attr_labels": 1, "intermediate_size": 1, "max_position_embeddings": 1, "type_vocab_size": 1,
    "l_layers": 0, "r_layers": 0, "x_layers": 1, "visual_feat_dim": 1, "visual_pos_dim": 1, "mask_token_id": 0,
    "num_images": 1,
}  # fmt: skip
# Far above any model; what a damaged file asks for is found out in no time, and sizes multiply without overflow.
MOST, MOST_LAYERS = 2**22, 100


@dataclass
class LxmertConfig:
    """Architecture of LXMERT; the defaults are the published model (paper section 3).

    Args:
        vocab_size: word pieces; 30,522 is BERT uncased.
        hidden_size: width D of all three encoders.
        num_attention_heads: heads of every attention; divides `hidden_size`.
        num_qa_labels: outputs of the answer head.
        num_object_labels: classes of the object head (the detector's vocabulary, no background class).
        num_attr_labels: classes of the attribute head.
        intermediate_size: inner width of the feed-forward blocks.
        hidden_act: activation of the feed-forward blocks and heads; "gelu" or "relu".
        hidden_dropout_prob: dropout after embeddings, attention outputs and feed-forward blocks.
        attention_probs_dropout_prob: dropout on attention probabilities.
        max_position_embeddings: longest sentence, in tokens.
        type_vocab_size: segments.
        initializer_range: standard deviation of the initial weights. 0.02 suits width 768; a small
            model hardly learns with it (width 96 wants about 0.08).
        l_layers: language layers.
        x_layers: cross-modality layers.
        r_layers: object-relationship layers.
        visual_feat_dim: size F of a region's feature vector.
        visual_pos_dim: numbers that describe a box: x1 y1 x2 y2, as fractions of the image's sides.
        visual_loss_normalizer: factor on the three region losses in pre-training.
        task_matched: pre-train sentence-image matching.
        task_mask_lm: pre-train masked language modelling.
        task_obj_predict: pre-train the region objectives.
        task_qa: pre-train image question answering.
        visual_obj_loss: among the region objectives, object labels.
        visual_attr_loss: among the region objectives, attribute labels.
        visual_feat_loss: among the region objectives, feature regression.
        output_attentions: whether `forward` returns attentions when the call does not say.
        output_hidden_states: whether `forward` returns hidden states when the call does not say.
        return_dict: whether `forward` returns an output object (else a tuple) when the call does not say.
        num_images: images that a statement of `LxmertForVisualReasoning` is about; not in the reference.
        mask_token_id: the word piece [MASK], which hides words in pre-training; not in the reference.
        answers: text of each answer label, in label order; not in the reference. It travels with the
            weights so that answer heads are always matched by text.
        vocab_sha256: `LxmertTokenizer.sha256` of the vocabulary that the weights are for; None where it is not
            known; not in the reference.
        detector: what found the regions that the weights were trained on; None where it is not known; not in the
            reference.

    Raises:
        InputError: a value of another type, out of its range, or sizes that do not fit together.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_attention_heads: int = 12
    num_qa_labels: int = 9500
    num_object_labels: int = 1600
    num_attr_labels: int = 400
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    l_layers: int = 9
    x_layers: int = 5
    r_layers: int = 5
    visual_feat_dim: int = 2048
    visual_pos_dim: int = 4
    visual_loss_normalizer: float = 6.67
    task_matched: bool = True
    task_mask_lm: bool = True
    task_obj_predict: bool = True
    task_qa: bool = True
    visual_obj_loss: bool = True
    visual_attr_loss: bool = True
    visual_feat_loss: bool = True
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True
    num_images: int = 2
    mask_token_id: int = 103
    answers: list[str] | None = None
    vocab_sha256: str | None = None
    detector: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_value(field.name, str(field.type), getattr(self, field.name))
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads="
                f"{self.num_attention_heads}; change one of them"
            )
        if self.hidden_act not in ("gelu", "relu"):
            raise InputError(f"hidden_act={shown(self.hidden_act)}; expected 'gelu' or 'relu'")
        if self.vocab_sha256 is not None and not is_sha256(self.vocab_sha256):
            raise InputError(f"vocab_sha256={shown(self.vocab_sha256)}; expected 64 hexadecimal digits, or null")
        if self.answers is not None:
            check_answers(self.answers, "answers")
            if len(self.answers) != self.num_qa_labels:
                raise InputError(
                    f"{len(self.answers)} answers for num_qa_labels={self.num_qa_labels}; make them equal"
                )

    @property
    def num_hidden_layers(self) -> dict[str, int]:
        """Layers of each encoder, as the reference names them."""
        return {"vision": self.r_layers, "cross_encoder": self.x_layers, "language": self.l_layers}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LxmertConfig:
        """Build from a mapping; keys that mean nothing here are reported in one warning."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(map(str, set(values) - known - FOREIGN_KEYS))
        if unknown:
            log.warning("LxmertConfig: unknown keys are not used: %s", shown(", ".join(unknown), str))
        return cls(**{key: value for key, value in values.items() if key in known})

    @classmethod
    def from_file_content(cls, values: Any, where: str) -> LxmertConfig:
        """Build from what the file (or the entry of one) called `where` holds.

        Raises:
            InputError: it is no config; names `where` and the key.
        """
        if not isinstance(values, dict):
            raise InputError(
                f"{where} holds a {type(values).__name__}; expected the fields of an LxmertConfig as an object. "
                "Save or download it again."
            )
        try:
            return cls.from_dict(values)
        except InputError as error:
            raise InputError(f"{where}: {error}. Mend that value, or save or download it again.") from error

    @classmethod
    def from_json_file(cls, path: str | Path) -> LxmertConfig:
        """Read a `config.json`.

        Raises:
            FileNotFoundError: there is none.
            InputError: it is no JSON file, or no config.
        """
        return cls.from_file_content(read_json(Path(path)), str(path))

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> LxmertConfig:
        """Read the config in a folder, that of a run too, in a run's checkpoint, or in a hub repository.

        Raises:
            FileNotFoundError: there is none.
            InputError: it cannot be read.
        """
        path = Path(name_or_path).expanduser()
        checkpoint = path if path.suffix == ".ckpt" else run_checkpoint(path)
        if checkpoint is None or (path / "config.json").is_file():
            return cls.from_json_file(fetch(name_or_path, ["config.json"]))
        from lxmert.weights import kept_config  # torch is loaded for this alone

        values = kept_config(checkpoint)
        if values is None:
            raise InputError(f"{checkpoint} holds no lxmert_config: train.py did not write it")
        return cls.from_file_content(values, f"{checkpoint}, lxmert_config")

    def to_dict(self) -> dict[str, Any]:
        """All fields, plus what the reference library needs to recognise the model."""
        return {"model_type": "lxmert", **asdict(self)}

    def to_json_string(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` into `folder`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder) / "config.json", self.to_json_string())


def is_sha256(value: Any) -> bool:
    """Whether `value` is what such a hash is written as."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _check_value(name: str, kind: str, value: Any) -> None:
    """Refuse a value that is not of its field's type, or out of its range."""
    if kind == "int":
        least, most = LEAST[name], MOST_LAYERS if name.endswith("_layers") else MOST
        if type(value) is not int or value < least:
            raise InputError(f"{name}={shown(value)}; expected a whole number of at least {least}")
        if value > most:
            raise InputError(f"{name}={shown(value)}; expected a whole number of at most {most}")
    elif kind == "float":
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name.endswith("_prob") and not (number and 0 <= value < 1):
            raise InputError(f"{name}={shown(value)}; expected a probability below 1")
        if not (number and 0 <= value <= MOST):
            raise InputError(f"{name}={shown(value)}; expected a number from 0 to {MOST}")
    elif kind == "bool" and type(value) is not bool:
        raise InputError(f"{name}={shown(value)}; expected true or false")
