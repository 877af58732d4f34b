"""LxmertConfig: every size and switch of the model, in the reference library's names."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from lxmert.files import Hub, InputError, check_answers, fetch, push, read_json, run_checkpoint, shown, write_text

log = logging.getLogger(__name__)

# What every config of the reference library has besides, and its value there. Kept and written again; nothing here
# reads them.
COMMON = {
    "architectures": None, "bos_token_id": None, "chunk_size_feed_forward": 0, "eos_token_id": None,
    "is_encoder_decoder": False, "name_or_path": "", "pad_token_id": None, "problem_type": None,
    "tie_word_embeddings": True, "transformers_version": None,
}  # fmt: skip
# Written there, and known here from elsewhere.
DERIVED = {"label2id", "model_type", "num_hidden_layers"}
# Of these, what tells of the file alone: of two configs that differ in nothing else, neither has another model.
NOTES = {"architectures", "dtype", "transformers_version"}
# Another number drops what it was the number of.
COUNTED = {"num_qa_labels": "answers", "vocab_size": "vocab_sha256"}
DTYPES = ("float64", "float32", "float16", "bfloat16")
PLAIN_LABELS = ["LABEL_0", "LABEL_1"]  # of a reference's config that names none

# What `hidden_act` may be; lxmert/model.py has their modules.
ACTIVATIONS = (
    "gelu", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "leaky_relu", "linear", "mish",
    "quick_gelu", "relu", "relu6", "sigmoid", "silu", "swish", "tanh",
)  # fmt: skip

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
class Sizes:
    """The fields of an `LxmertConfig`, which explains them."""

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
    gradient_checkpointing: bool = False
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
        if self.hidden_act not in ACTIVATIONS:
            raise InputError(f"hidden_act={shown(self.hidden_act)}; expected one of {', '.join(ACTIVATIONS)}")
        if self.vocab_sha256 is not None and not is_sha256(self.vocab_sha256):
            raise InputError(f"vocab_sha256={shown(self.vocab_sha256)}; expected 64 hexadecimal digits, or null")
        if self.answers is not None:
            check_answers(self.answers, "answers")
            if len(self.answers) != self.num_qa_labels:
                raise InputError(
                    f"{len(self.answers)} answers for num_qa_labels={self.num_qa_labels}; make them equal"
                )


class LxmertConfig(Sizes):
    """Architecture of LXMERT; the defaults are the published model (paper section 3).

    Args:
        vocab_size: word pieces; 30,522 is BERT uncased.
        hidden_size: width D of all three encoders.
        num_attention_heads: heads of every attention; divides `hidden_size`.
        num_qa_labels: outputs of the answer head.
        num_object_labels: classes of the object head (the detector's vocabulary, no background class).
        num_attr_labels: classes of the attribute head.
        intermediate_size: inner width of the feed-forward blocks.
        hidden_act: activation of the feed-forward blocks and heads; one of `ACTIVATIONS`.
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
        gradient_checkpointing: in training, keep what is between the layers alone and compute a layer's inside
            again for its gradient: a third more computing, a fraction of the memory; not in the reference.
        num_images: images that a statement of `LxmertForVisualReasoning` is about; not in the reference.
        mask_token_id: the word piece [MASK], which hides words in pre-training; not in the reference.
        answers: text of each answer label, in label order; not in the reference. It travels with the
            weights so that answer heads are always matched by text. Assigning another `num_qa_labels` drops it.
        vocab_sha256: `LxmertTokenizer.sha256` of the vocabulary that the weights are for; None where it is not
            known; not in the reference. Assigning another `vocab_size` drops it.
        detector: what found the regions that the weights were trained on; None where it is not known; not in the
            reference.
        values: as the reference's configs, it keeps any other value under its name and writes it into
            `config.json`: `num_labels`, `id2label`, `dtype`, or what a program of your own reads. A name that
            neither library knows is reported in one warning, since it may be misspelt.

    Raises:
        InputError: a value of another type or out of its range, sizes that do not fit together, or a value
            called like a method.
    """

    model_type = "lxmert"
    sub_configs: ClassVar[dict[str, Any]] = {}  # the reference's automatic classes look for them

    def __init__(self, *sizes: Any, **values: Any) -> None:
        known = {name: value for name, value in values.items() if name in FIELDS}
        super().__init__(*sizes, **known)
        self.update({name: value for name, value in values.items() if name not in known})

    @property
    def num_hidden_layers(self) -> dict[str, int]:
        """Layers of each encoder, as the reference names them."""
        return {"vision": self.r_layers, "cross_encoder": self.x_layers, "language": self.l_layers}

    @property
    def id2label(self) -> dict[int, str]:
        """Text of each label: those given, else the answers, else the reference's LABEL_0 and LABEL_1."""
        return dict(enumerate(self.__dict__.get("_labels") or self.answers or PLAIN_LABELS))

    @id2label.setter
    def id2label(self, texts: Mapping[Any, str] | None) -> None:
        labels = None if texts is None else _labels_in_order(texts)
        self._labels = None if labels in (self.answers, PLAIN_LABELS) else labels

    @property
    def label2id(self) -> dict[str, int]:
        """`id2label` the other way round."""
        return {text: label for label, text in self.id2label.items()}

    @property
    def num_labels(self) -> int:
        """How many labels `id2label` has; the answer head has `num_qa_labels`."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, number: int) -> None:
        if type(number) is not int or not 1 <= number <= MOST:
            raise InputError(f"num_labels={shown(number)}; expected a whole number of at least 1")
        if number != self.num_labels:
            self._labels = [f"LABEL_{label}" for label in range(number)]

    @property
    def dtype(self) -> Any:
        """The `torch.dtype` of the weights that the config was kept with; None where that is not known."""
        import torch  # the rest needs none

        name = self.__dict__.get("_dtype")
        return None if name is None else getattr(torch, name)

    @dtype.setter
    def dtype(self, value: Any) -> None:
        name = None if value is None else str(value).removeprefix("torch.")
        if name not in (None, *DTYPES):
            raise InputError(f"dtype={shown(value)}; expected one of {', '.join(DTYPES)}")
        self._dtype = name

    torch_dtype = dtype  # its name in version 4 of the reference

    @property
    def use_return_dict(self) -> bool:
        """`return_dict`, as models of version 4 of the reference ask for it."""
        return self.return_dict

    def __setattr__(self, name: str, value: Any) -> None:
        if name in COUNTED and value != getattr(self, name):
            counted = getattr(self, COUNTED[name])
            if counted is not None and (isinstance(counted, str) or len(counted) != value):
                super().__setattr__(COUNTED[name], None)
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in COMMON:
            return COMMON[name]
        raise AttributeError(f"this LxmertConfig has no {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LxmertConfig) or type(other) is not type(self):
            return NotImplemented
        ours, theirs = {**COMMON, **self.to_dict()}, {**COMMON, **other.to_dict()}
        return all(ours.get(name) == theirs.get(name) for name in (ours.keys() | theirs.keys()) - NOTES)

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def update(self, values: Mapping[str, Any]) -> None:
        """Set several values by name, as the constructor takes them.

        Names that begin with an underscore are other libraries' notes and left out, as is what follows from other
        values (`label2id`).

        Raises:
            InputError: a value is out of its range or does not fit another, or is called like a method.
        """
        unknown = set()
        for name in sorted(values, key=lambda name: name == "id2label"):  # goes before num_labels
            if name in DERIVED or str(name).startswith("_"):
                continue
            if not isinstance(name, str) or (name not in SETTABLE and hasattr(LxmertConfig, name)):
                raise InputError(
                    f"{shown(name)} is no name for a value of an LxmertConfig, which has a method of that name; "
                    "call it otherwise"
                )
            if name == "tie_word_embeddings" and values[name] is not True:
                raise InputError(
                    f"tie_word_embeddings={shown(values[name])}; expected true: the masked-language head has the "
                    "word embeddings as its weights"
                )
            super().__setattr__(name, values[name])  # drops nothing: what does not fit is refused below
            if name not in SETTABLE:
                unknown.add(name)
        self.__post_init__()
        if unknown:
            log.warning(
                "LxmertConfig keeps %s, which nothing here reads: misspelt?",
                shown(", ".join(sorted(unknown)), str),
            )

    def replace(self, **values: Any) -> Self:
        """A copy with other values; `dataclasses.replace` would lose those beyond the fields.

        Raises:
            InputError: as of `update`.
        """
        other = copy.deepcopy(self)
        other.update(values)
        return other

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, return_unused_kwargs: bool = False, **changes: Any) -> Any:
        """Build from a mapping.

        Args:
            values: by name, as of the constructor.
            return_unused_kwargs: return the config and those of `changes` that are no values of a config.
            changes: go before `values`. Another number of answers or word pieces drops the texts of the answers or
                the vocabulary's hash.
        """
        known = SETTABLE | DERIVED | values.keys() | _named_by(cls)
        own = {name for name in changes if name in known or not return_unused_kwargs}
        merged = {**values, **{name: changes[name] for name in own}}
        for size, follower in COUNTED.items():
            if size in own and follower not in own and merged[size] != values.get(size):
                merged[follower] = None
        answers, labels = values.get("answers"), values.get("id2label")
        if labels and "id2label" not in own and merged.get("answers") != answers == _labels_in_order(labels):
            del merged["id2label"]  # a file has the answers twice
        config = cls(**merged)
        return (config, {k: v for k, v in changes.items() if k not in own}) if return_unused_kwargs else config

    @classmethod
    def from_file_content(cls, values: Any, where: str, **changes: Any) -> Any:
        """Build from what the file (or the entry of one) called `where` holds; `changes` as of `from_dict`.

        Raises:
            InputError: it is no config; names `where` and the key.
        """
        if not isinstance(values, dict):
            raise InputError(
                f"{where} holds a {type(values).__name__}; expected the fields of an LxmertConfig as an object. "
                "Save or download it again."
            )
        try:
            return cls.from_dict(values, **changes)
        except InputError as error:
            raise InputError(f"{where}: {error}. Mend that value, or save or download it again.") from error

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> Self:
        """Read a `config.json`.

        Raises:
            FileNotFoundError: there is none.
            InputError: it is no JSON file, or no config.
        """
        return cls.from_file_content(read_json(Path(json_file)), str(json_file))

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, return_unused_kwargs: bool = False, **options: Any
    ) -> Any:
        """Read the config in a folder, that of a run too, in a run's checkpoint, or in a hub repository.

        Args:
            name_or_path: one of those, or a JSON file.
            return_unused_kwargs: return the config and the options that are not its values.
            options: those of `lxmert.files.Hub` (`revision`, `cache_dir`, `token`, ...), and values that go before
                those in the file.

        Raises:
            FileNotFoundError: there is none.
            InputError: it cannot be read.
        """
        hub = Hub.take(options)
        path = hub.local(name_or_path)
        checkpoint = path if path.suffix == ".ckpt" else run_checkpoint(path)
        if checkpoint is None or (path / "config.json").is_file():
            file = path if path.is_file() else fetch(name_or_path, ["config.json"], hub)
            values, where = read_json(file), str(file)
        else:
            from lxmert.weights import kept_config  # torch is loaded for this alone

            values, where = kept_config(checkpoint), f"{checkpoint}, lxmert_config"
            if values is None:
                raise InputError(f"{checkpoint} holds no lxmert_config: train.py did not write it")
        return cls.from_file_content(values, where, return_unused_kwargs=return_unused_kwargs, **options)

    def to_dict(self) -> dict[str, Any]:
        """All values, plus what the reference library needs to recognise the model."""
        values = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        if labels := self.__dict__.get("_labels"):
            values["id2label"] = {str(label): text for label, text in enumerate(labels)}
            values["label2id"] = {text: label for label, text in enumerate(labels)}
        if name := self.__dict__.get("_dtype"):
            values["dtype"] = name
        return {"model_type": self.model_type, **copy.deepcopy(values)}

    def to_diff_dict(self) -> dict[str, Any]:
        """What `to_dict` has and the published model's does not."""
        usual = type(self)().to_dict()
        return {
            name: value
            for name, value in self.to_dict().items()
            if name == "model_type" or name not in usual or usual[name] != value
        }

    def to_json_string(self, use_diff: bool = False) -> str:
        """`to_dict` as JSON text; with `use_diff`, `to_diff_dict`."""
        values = self.to_diff_dict() if use_diff else self.to_dict()
        return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def to_json_file(self, json_file_path: str | Path, use_diff: bool = False) -> None:
        """Write `to_json_string` into a file."""
        write_text(Path(json_file_path), self.to_json_string(use_diff))

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **options: Any) -> None:
        """Write `config.json` into a folder.

        Args:
            save_directory: the folder, made where there is none.
            push_to_hub: send it to the hub as well.
            options: `repo_id` and those of `push_to_hub`.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.to_json_file(folder / "config.json")
        if push_to_hub:
            self.push_to_hub(options.pop("repo_id", folder.name), **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Send `config.json` to a hub repository; `options` as of `lxmert.files.push`. Returns its address."""
        return push(self.save_pretrained, repo_id, **options)


FIELDS = frozenset(field.name for field in fields(Sizes))
SETTABLE = FIELDS | COMMON.keys() | {"id2label", "num_labels", "dtype", "torch_dtype"}


def _named_by(kind: type[LxmertConfig]) -> set[str]:
    """The values that the `__init__` of a config of one's own, or of one that it is made from, has by name."""
    configs = [part for part in kind.__mro__ if issubclass(part, LxmertConfig)]
    found = [each for part in configs for each in inspect.signature(part).parameters.values()]
    return {each.name for each in found if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}


def _labels_in_order(texts: Mapping[Any, str]) -> list[str]:
    """The texts of labels 0, 1, ..., whose numbers JSON writes as texts."""
    try:
        labels = {int(label): text for label, text in texts.items()}
    except (AttributeError, TypeError, ValueError):
        labels = {}
    if sorted(labels) != list(range(len(texts) or 1)):
        raise InputError(f"id2label={shown(texts)}; expected the text of each label 0, 1, ... as an object")
    return check_answers([labels[label] for label in range(len(labels))], "id2label")


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


def detector_difference(trained_on: str | None, used: str | None) -> str:
    """What is said where weights were trained on another detector's regions than are used; otherwise nothing.

    A detector is told as NAME or, where its weights were at hand, as "NAME [weights 0123456789ab, boxes 36]"; what
    one of both leaves open is no difference.
    """
    if not trained_on or not used or trained_on == used:
        return ""
    (name, known), (other, here) = _detector_parts(trained_on), _detector_parts(used)
    if name == other and all(known[key] == here[key] for key in known.keys() & here.keys()):
        return ""
    return (
        f"was trained on regions of {trained_on!r}, and these are of {used!r}: features of another detector, or "
        "of another port of it, mean something else to the model. Convert features of the same one, or train on "
        "these."
    )


def _detector_parts(told: str) -> tuple[str, dict[str, str]]:
    """The name, and what else is known of it."""
    found = re.fullmatch(r"(.*) \[((?:\w+ [^,\]]+(?:, )?)+)\]", told)
    if not found:
        return told, {}
    return found[1], dict(part.split(" ", 1) for part in found[2].split(", "))  # type: ignore[misc]
