"""What every model of the library face can do: be opened, saved and looked at as the reference's."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lxmert.batch import is_recorded
from lxmert.config import LxmertConfig
from lxmert.files import Hub, InputError, push, run_checkpoint, write_text
from lxmert.model import initialize_layer
from lxmert.weights import (
    WEIGHT_SUFFIXES,
    compare,
    in_reference_names,
    kept_config,
    load_weights,
    model_card,
    read_weights,
    refuse_unloaded,
    tokenizer_with,
    write_folder,
)

log = logging.getLogger(__name__)

# Options of the reference's `from_pretrained` and `save_pretrained` that change nothing here: weights are read
# once, nothing in them is run, every attention gives the same numbers, adapters are peft's affair, and one file is
# written, whole.
READING = {"adapter_kwargs", "attn_implementation", "disable_mmap", "from_tf", "low_cpu_mem_usage", "weights_only"}
WRITING = {"max_shard_size", "save_function", "save_original_format", "save_peft_format"}


class _Uninitialized(TorchFunctionMode):
    """Modules made in it keep whatever their memory holds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class LxmertPreTrainedModel(nn.Module):
    """A model that opens and saves the reference library's folders.

    A model of one's own is a subclass: its `__init__` takes the config, makes an `LxmertModel` called `lxmert` and
    what it adds, and calls `self.post_init()`. `from_pretrained` then fills the encoders, and reports that the
    rest starts anew.

    Args:
        config: sizes; kept as `config`.
    """

    config: LxmertConfig
    config_class = LxmertConfig
    base_model_prefix = "lxmert"
    main_input_name = "input_ids"
    # Losses are means over a call's labels: transformers' Trainer has to divide them by its accumulated batches.
    accepts_loss_kwargs = False
    name_or_path = ""

    def __init__(self, config: LxmertConfig, *_: Any, **__: Any) -> None:
        super().__init__()
        self.config = config

    # Opening

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None,
        *model_args: Any,
        config: LxmertConfig | str | Path | None = None,
        allow_missing: bool = False,
        ignore_mismatched_sizes: bool = False,
        dtype: torch.dtype | str = "auto",
        device_map: Any = None,
        state_dict: Mapping[str, Tensor] | None = None,
        output_loading_info: bool = False,
        use_safetensors: bool | None = None,
        variant: str | None = None,
        **options: Any,
    ) -> Any:
        """Open a model from a folder, a hub name, a run or a weights file of the original release.

        Args:
            pretrained_model_name_or_path: a folder with `config.json` and `model.safetensors`, a hub repository's
                name, a run's folder or checkpoint, or a weights file (which has no config: the published sizes
                are assumed).
            model_args: for the model's `__init__`, after the config.
            config: what to use instead of the config found; a config, or where one is.
            allow_missing: go on when encoder weights are missing or of another shape.
            ignore_mismatched_sizes: go on when weights are of another shape.
            dtype: of the weights; "auto": as they are kept.
            device_map: the device to put the model on; "auto": the first accelerator, or the CPU.
            state_dict: weights to use instead of those found.
            output_loading_info: return the model, and the names that were missing, unexpected or of another shape.
            use_safetensors: False reads `pytorch_model.bin` alone, True `model.safetensors` alone.
            variant: of the file's name, `model.<variant>.safetensors`.
            options: those of `lxmert.files.Hub` (`revision`, `cache_dir`, `token`, `subfolder`,
                `local_files_only`, ...), and values that go before the config's (`num_qa_labels=`,
                `output_attentions=`); with `config`, what is left is for the model's `__init__`.

        Returns:
            The model, in evaluation mode. One report of what was loaded is logged.

        Raises:
            FileNotFoundError: nothing of that name, here or on the hub.
            InputError: a file cannot be read, or config and weights do not fit; no memory was taken then.
            TypeError: an option that neither the config nor the model knows.
        """
        dtype = options.pop("torch_dtype", None) or dtype
        options = {name: value for name, value in options.items() if name not in READING}
        hub = Hub.take(options)
        source = "state_dict" if pretrained_model_name_or_path is None else str(pretrained_model_name_or_path)
        kept = None
        if config is None:
            kept, options = kept_with(source, hub, cls.config_class, options)
        sizes = kept or as_config(config, cls.config_class)
        if state_dict is not None:
            weights = in_reference_names(state_dict, source)
        else:
            weights = read_weights(source, hub, use_safetensors=use_safetensors, variant=variant)
        model, report = cls._from_weights(
            sizes, weights, source, allow_missing, bool(kept), ignore_mismatched_sizes, _as_dtype(dtype),
            model_args, options,
        )  # fmt: skip
        model.name_or_path = source
        if device_map is not None:
            model.to(_one_device(device_map))
        if not output_loading_info:
            return model
        return model, {
            "missing_keys": set(report.missing),
            "unexpected_keys": set(report.unexpected),
            "mismatched_keys": set(report.reshaped),
            "error_msgs": [],
        }

    @classmethod
    def from_weights(
        cls,
        config: LxmertConfig,
        weights: Mapping[str, Tensor],
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
        return cls._from_weights(config, weights, source, allow_missing, strict)[0]

    @classmethod
    def _from_weights(
        cls,
        config: LxmertConfig,
        weights: Mapping[str, Tensor],
        source: str,
        allow_missing: bool = False,
        strict: bool = True,
        ignore_mismatched_sizes: bool = False,
        dtype: torch.dtype | None = None,
        model_args: tuple[Any, ...] = (),
        model_options: Mapping[str, Any] | None = None,
    ) -> tuple[Self, Any]:
        """`from_weights`, and the report of what was loaded."""
        options = model_options or {}
        report = compare(cls.shapes(config, *model_args, **options), weights, source)
        if not allow_missing:
            refuse_unloaded(report, other_shapes=not ignore_mismatched_sizes)
            if strict and report.reshaped and not ignore_mismatched_sizes:
                raise InputError(
                    f"{report}\nthe config kept with these weights is another model's. Get both from one place, "
                    "or pass the config= to use. ignore_mismatched_sizes=True goes on without these weights."
                )
        # Random numbers that are overwritten at once would take most of the time.
        with nullcontext() if report.missing or report.reshaped else _Uninitialized():
            model = cls(config, *model_args, **options)
        model.to(dtype or _dtype_of(weights))
        buffers = model._reference_names(dict(model.named_buffers(remove_duplicate=False)))
        go_on = allow_missing or ignore_mismatched_sizes
        load_weights(model.reference_state(), weights, source, go_on, buffers)
        model._keep_weights()
        return model.eval(), report

    @classmethod
    def shapes(cls, config: LxmertConfig, *model_args: Any, **model_options: Any) -> dict[str, Tensor]:
        """`reference_state` of a model of `config` without its memory: for the shapes alone."""
        with torch.device("meta"), _Uninitialized():
            return cls(config, *model_args, **model_options).reference_state()

    @classmethod
    def _from_config(cls, config: LxmertConfig, **options: Any) -> Self:
        """A model with initial weights; transformers' `AutoModel.from_config` calls it so."""
        dtype = options.pop("torch_dtype", None) or options.pop("dtype", None)
        options = {name: value for name, value in options.items() if name not in READING}
        model = cls(config, **options)
        return model if dtype is None else model.to(_as_dtype(dtype))

    # Saving

    def reference_state(self) -> dict[str, Tensor]:
        """Its weights, not copied, under the names they have in the reference's models with heads."""
        return self._reference_names(self.state_dict())

    def _reference_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(state)

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        push_to_hub: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        **options: Any,
    ) -> None:
        """Write `config.json` and `model.safetensors`, readable by the reference library.

        Args:
            save_directory: folder, made where there is none.
            is_main_process: of several processes one writes.
            state_dict: weights to write instead of the model's own, under the model's names.
            push_to_hub: send them to the hub as well; `options` are then those of `push_to_hub`, and `repo_id`.
            safe_serialization: False writes `pytorch_model.bin` instead, and removes a `model.safetensors`, which
                would be opened before it.
            variant: of the file's name, `model.<variant>.safetensors`.
            options: see `push_to_hub`.
        """
        options = {name: value for name, value in options.items() if name not in WRITING}
        if options and not push_to_hub:
            raise TypeError(f"save_pretrained has no option {', '.join(options)}")
        if not is_main_process:
            return
        weights = self._reference_names(self.state_dict() if state_dict is None else state_dict)
        config = {**self.config.to_dict(), "dtype": str(_dtype_of(weights)).removeprefix("torch.")}
        folder = Path(save_directory)
        write_folder(folder, config, weights, type(self).__name__, safe_serialization, variant)
        if push_to_hub:
            self.push_to_hub(options.pop("repo_id", folder.name), **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Send the model to a hub repository: weights, config, a model card, and the vocabulary where it is known.

        It is known where the model was opened from a folder or run that holds it; else push the tokenizer too.

        Args:
            repo_id: owner/name.
            options: as of `lxmert.files.push`: `commit_message`, `private`, `token`, `revision`, `create_pr`.

        Returns:
            The change's address.
        """

        def save(folder: str) -> None:
            self.save_pretrained(folder)
            tokenizer = tokenizer_with(self.name_or_path) if self.name_or_path else None
            if tokenizer:
                tokenizer.save_pretrained(folder)
            heads = sorted({name.split(".")[0] for name in self.reference_state()} - {"lxmert"})
            answers = self.config.answers if "answer_head" in heads else None
            card = model_card(
                self.name_or_path or "a Python program", Path(repo_id), self.config.to_dict(), type(self).__name__,
                heads, answers, tokenizer, opened_as=repo_id,
            )  # fmt: skip
            write_text(Path(folder) / "README.md", card)

        return push(save, repo_id, **options)

    # Looking at it and changing it

    @property
    def base_model(self) -> Any:
        """The encoders, without heads."""
        return getattr(self, self.base_model_prefix, self)

    @property
    def device(self) -> torch.device:
        """Where its first parameter is."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of its first parameter that is of floating point."""
        return next(parameter.dtype for parameter in self.parameters() if parameter.is_floating_point())

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers its parameters are.

        Args:
            only_trainable: count those that get gradients.
            exclude_embeddings: leave out the tables of words, positions and segments.
        """
        tables = {part.weight for part in self.modules() if isinstance(part, nn.Embedding)}
        return sum(
            parameter.numel()
            for parameter in self.parameters()
            if (parameter.requires_grad or not only_trainable) and not (exclude_embeddings and parameter in tables)
        )

    def get_input_embeddings(self) -> nn.Embedding:
        """The word embeddings, (vocab_size, D); the masked-language head has them as its weights too."""
        return self.base_model.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Put other word embeddings in their place."""
        self.base_model.embeddings.word_embeddings = value

    def get_output_embeddings(self) -> None:
        """None: the masked-language head reads the input embeddings and has no layer of its own."""

    def tie_weights(self) -> None:
        """Nothing to do: the masked-language head reads the input embeddings themselves."""

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Give the model another number of word pieces, keeping the first ones; the config follows.

        Args:
            new_num_tokens: how many; None keeps the number.
            pad_to_multiple_of: round it up.
            mean_resizing: new ones begin as the mean of the old ones, as in the reference; else at random.

        Returns:
            The word embeddings.
        """
        old = self.get_input_embeddings()
        number = old.num_embeddings if new_num_tokens is None else new_num_tokens
        number += -number % (pad_to_multiple_of or 1)
        if number == old.num_embeddings:
            return old
        weight, kept = old.weight, min(number, old.num_embeddings)
        new = nn.Embedding(number, old.embedding_dim, old.padding_idx, device=weight.device, dtype=weight.dtype)
        initialize_layer(new, self.config.initializer_range)
        with torch.no_grad():
            if mean_resizing:
                new.weight[kept:] = weight.mean(0)
            new.weight[:kept] = weight[:kept]
        new.weight.requires_grad_(weight.requires_grad)
        self.set_input_embeddings(new)
        self.config.vocab_size = number
        return new

    def get_memory_footprint(self) -> int:
        """Bytes that its parameters and buffers take."""
        return sum(each.numel() * each.element_size() for each in (*self.parameters(), *self.buffers()))

    def check_unused(self, arguments: Mapping[str, Any]) -> None:
        """Say once that a call has arguments that the model does not know."""
        if arguments and not is_recorded():
            warn_unused(type(self).__name__, tuple(arguments))

    # Being made

    def post_init(self) -> None:
        """Give every layer its initial weights, at the end of a subclass's `__init__`.

        A part that was opened, or whose weights `load_state_dict` filled, keeps them, as in the reference.
        """
        filled = {inner for part in self.modules() if hasattr(part, "_filled") for inner in part.modules()}
        self.apply(lambda part: None if part in filled else self._init_weights(part))

    init_weights = post_init

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """As of every module; `post_init` leaves the model alone from then on."""
        found = super().load_state_dict(*args, **options)
        self._keep_weights()
        return found

    def _keep_weights(self) -> None:
        """Keep `post_init` from its parts, also where one is taken out and put into another model."""
        for part in self.modules():
            part._filled = True  # type: ignore[assignment]

    def _init_weights(self, module: nn.Module) -> None:
        """Give one layer its initial weights; a subclass may do otherwise with what it adds."""
        initialize_layer(module, self.config.initializer_range)


@cache
def warn_unused(model: str, names: tuple[str, ...]) -> None:
    """Say once that a model's call has arguments that it does not know."""
    log.warning("%s does not use %s", model, ", ".join(names))


def as_config(config: Any, kind: type[LxmertConfig] = LxmertConfig) -> LxmertConfig:
    """A config of one's own from one, from the reference library's, or from where one is; None: the published."""
    if config is None:
        return kind()
    if isinstance(config, str | Path):
        return kind.from_pretrained(config)
    return copy.deepcopy(config) if isinstance(config, LxmertConfig) else kind.from_dict(config.to_dict())


def kept_with(
    source: str | Path,
    hub: Hub | None = None,
    kind: type[LxmertConfig] = LxmertConfig,
    changes: Mapping[str, Any] | None = None,
) -> tuple[LxmertConfig | None, dict[str, Any]]:
    """The architecture kept with weights: in a run's checkpoint or a folder; None for a bare weights file.

    Args:
        source: a run, a folder, a weights file or a hub name.
        hub: how to get it from the hub.
        kind: the class of the config.
        changes: values that go before those kept.

    Returns:
        The config, and those of `changes` that are no values of it.

    Raises:
        FileNotFoundError: the checkpoint does not exist, or the folder or hub repository has no config.
        InputError: it cannot be read.
    """
    hub, changes = hub or Hub(), dict(changes or {})
    path = run_checkpoint(hub.local(source)) or hub.local(source)
    if path.suffix == ".ckpt":
        values, where = kept_config(path), f"{path}, lxmert_config"
    elif path.is_file() or (path.suffix in WEIGHT_SUFFIXES and not path.is_dir()):
        values, where = None, ""
    else:
        return kind.from_pretrained(source, return_unused_kwargs=True, **vars(hub), **changes)
    if values is None and not changes:
        return None, {}
    return kind.from_file_content({} if values is None else values, where, return_unused_kwargs=True, **changes)


def _as_dtype(dtype: torch.dtype | str) -> torch.dtype | None:
    """A type by its name; None for "auto"."""
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if dtype != "auto" and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ValueError(f"dtype={dtype!r}; expected 'auto', or a floating-point type such as torch.float16")
    return found if isinstance(found, torch.dtype) else None


def _dtype_of(weights: Mapping[str, Tensor]) -> torch.dtype:
    """The one type of all weights; float32 where they are of several."""
    found = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    return found.pop() if len(found) == 1 else torch.float32


def _one_device(device_map: Any) -> torch.device:
    """The device that a `device_map` puts the whole model on."""
    if isinstance(device_map, dict) and len(device_map) == 1:
        device_map = device_map.get("", device_map)
    if device_map == "auto":
        return torch.accelerator.current_accelerator() or torch.device("cpu")
    if isinstance(device_map, dict):
        raise ValueError(f"device_map={device_map}; expected one device: LXMERT fits on one")
    return torch.device(device_map)
