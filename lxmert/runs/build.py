"""Configuration to objects: the only place, beside train.py, that knows Hydra."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_object, instantiate
from lightning import Trainer
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lxmert.callbacks import CheckpointFile
from lxmert.config import FIELDS
from lxmert.files import InputError
from lxmert.learner import LxmertLearner
from lxmert.model import Lxmert
from lxmert.runs.resume import settings_of
from lxmert.weights import read_answers

log = logging.getLogger(__name__)

# What a configuration may build: code of these packages, and nothing that they import from elsewhere.
PACKAGES = ("lxmert", "datamodules", "lightning", "torch.optim")
make = partial(instantiate, _convert_="all")  # plain lists and dicts, not OmegaConf's


def build(config: DictConfig, run_id: str | None) -> tuple[Any, LxmertLearner, Trainer]:
    """The data, the learner that fits it, the trainer.

    Args:
        config: the composed configuration.
        run_id: of the run at Weights & Biases.

    Raises:
        InputError: what does not go together, or is not to be built.
    """
    nodes: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check_targets(nodes, (*PACKAGES, *config.packages))
    for name, node in nodes["objective"].items():
        if "_target_" not in node:
            raise InputError(f"objective.{name} is configured but not selected; add it to objective=[...]")
    if nodes["trainer"].get("overfit_batches"):
        raise InputError(
            "trainer.overfit_batches is not for data that orders its own batches. To over-fit some, train on a "
            "small split and validate on it: data.train=minival data.valid=minival trainer.limit_train_batches=10"
        )
    sizes = make(nodes["model"])
    if unknown := sorted(set(nodes["model"]) - FIELDS - {"_target_"}):
        raise InputError(f"model.{unknown[0]} is no setting of the model; expected {', '.join(sorted(FIELDS))}")
    check_device(nodes["trainer"])
    check_compile(config.compile, nodes["trainer"])
    check_length(nodes["data"].get("max_length", 0), sizes.max_position_embeddings)
    datamodule = make(nodes["data"])
    if config.checkpoint and datamodule.has_answers:
        datamodule.model_answers = read_answers(config.checkpoint) or []
    # Before the trainer asks for it: the model's vocabulary and answers are the data's, and what a test
    # needs should be missed before the training, not after it.
    prepare(datamodule, config.action)
    if config.action == "fit":
        prepare_test(datamodule)
    answers = datamodule.answers
    if not answers and datamodule.has_answers:
        raise InputError(
            "there is no answer list: neither labels, nor an answer file in the data folder, nor a checkpoint"
        )
    sizes = sizes.replace(
        vocab_size=len(datamodule.tokenizer),
        mask_token_id=datamodule.tokenizer.mask_token_id,
        vocab_sha256=datamodule.tokenizer.sha256,
        detector=datamodule.detector,
        num_images=datamodule.num_images or sizes.num_images,
        **({"num_qa_labels": len(answers), "answers": answers} if answers else {}),
    )
    learner = LxmertLearner(
        Lxmert(sizes),
        {name: make(node, _partial_=True)(sizes) for name, node in nodes["objective"].items()},
        make(nodes["optimizer"]),
        warmup=config.warmup,
        label_names=datamodule.label_names,
        seed=config.seed,
        task=datamodule.task,
        freeze=nodes["freeze"],
        settings=settings_of(nodes),
        compile_step=config.compile,
    )
    loggers = [make_logger(node, run_id) for node in nodes["logger"].values() if node]
    callbacks = [make(node) for node in nodes["callbacks"].values() if node]
    if not loggers:  # it has nowhere to write
        callbacks = [each for each in callbacks if not isinstance(each, LearningRateMonitor)]
    trainer = make(
        nodes["trainer"],
        default_root_dir=HydraConfig.get().runtime.output_dir,
        logger=loggers,
        callbacks=callbacks,
        enable_progress_bar=any(isinstance(each, ProgressBar) for each in callbacks),
        plugins=[CheckpointFile()],
    )
    several = trainer.num_devices > 1 and isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher)
    if several and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise InputError(
            f"a sweep's jobs cannot start {trainer.num_devices} processes each: they would sweep again. Give a "
            "job one device, or start the processes from outside (hydra/launcher=submitit_slurm)"
        )
    return datamodule, learner, trainer


def open_split(folder: Path, split: str, answers: Sequence[str], overrides: Sequence[str] = ()) -> Any:
    """A split of the data that a run was trained on, opened to be looked at outside of a trainer.

    Args:
        folder: of the run, whose config.yaml tells of the data.
        split: to open, such as minival; it may be any of the data's, labelled or not.
        answers: of the run's model, in label order: what targets are places in.
        overrides: settings of the data that differ now, such as data.root=/other/place.

    Returns:
        A data module: `datasets["test"]`, `test_dataloader()`, `picture(image_id)`.

    Raises:
        FileNotFoundError: there is no config.yaml, or the data's files are not there.
        InputError: a setting that is none of the data's, or what `setup` refuses.
    """
    path = Path(folder).expanduser() / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the folder of a run, outputs/<experiment>/<time>")
    try:
        config = OmegaConf.load(path)
        node: Any = OmegaConf.to_container(config.data, resolve=True)  # type: ignore[union-attr]
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}): put back the run's own"
        ) from error
    for override in overrides:
        name = override.partition("=")[0].removeprefix("data.")
        if not override.startswith(f"data.{name}=") or name not in set(node) - {"_target_"}:
            names = ", ".join(sorted(set(node) - {"_target_"}))
            raise InputError(f"{override}: expected data.<key>=<value> with one of the keys {names}")
        changed: Any = OmegaConf.to_container(OmegaConf.from_dotlist([override]))
        node[name] = changed["data"][name]
    check_targets(node, PACKAGES, "data")
    datamodule = make({**node, "test": [split]})
    datamodule.answers = datamodule.model_answers = list(answers)
    prepare(datamodule, "test")
    return datamodule


def check_device(trainer: Mapping[str, Any]) -> None:
    """Refuse a trainer for a GPU where there is none, before hours of converting files.

    Raises:
        InputError: there is none.
    """
    if trainer.get("accelerator") not in ("gpu", "cuda"):
        return
    if not CUDAAccelerator.is_available() and not MPSAccelerator.is_available():
        raise InputError(
            "trainer=gpu, the default, and trainer=ddp and fsdp want a GPU, and there is none here (nvidia-smi "
            "says what the driver sees). trainer=cpu runs without one"
        )


def check_compile(way: Any, trainer: Mapping[str, Any]) -> None:
    """Refuse to compile what cannot be, or in a way that there is not.

    Raises:
        InputError: an unknown way, CUDA graphs without CUDA, sharded weights, or a CPU without a C++ compiler.
    """
    if way not in (True, False, "cuda_graphs"):
        raise InputError(f"compile={way}; expected false, true or cuda_graphs")
    if way == "cuda_graphs" and (trainer["accelerator"] == "cpu" or not CUDAAccelerator.is_available()):
        raise InputError("compile=cuda_graphs wants a CUDA GPU, and there is none here; true goes without")
    if way == "cuda_graphs" and trainer["accumulate_grad_batches"] > 1:
        raise InputError(
            "compile=cuda_graphs: gradients that are added up over trainer.accumulate_grad_batches="
            f"{trainer['accumulate_grad_batches']} would be overwritten by the next replay; use true"
        )
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if way and trainer["accelerator"] == "cpu" and shutil.which(compiler) is None:
        raise InputError(
            f"compile={way} on a CPU wants a C++ compiler, and there is no {compiler} here; CXX names another"
        )
    if way and str(trainer.get("strategy")).startswith("fsdp"):
        raise InputError("compile with trainer=fsdp is not tried; use trainer=ddp, or compile=false")


def check_length(tokens: int, positions: int) -> None:
    """Refuse sentences that are longer than the model has positions for.

    Raises:
        InputError: they may be.
    """
    if tokens > positions:
        raise InputError(
            f"data.max_length={tokens}: the model has positions for {positions} tokens. Set data.max_length to "
            "that or less; a model that starts from random numbers can have more, "
            f"++model.max_position_embeddings={tokens}"
        )


def make_logger(node: Mapping[str, Any], run_id: str | None) -> Any:
    """The logger of a node; a run that goes on is the same one at Weights & Biases."""
    target = get_object(node["_target_"])
    same_run = isinstance(target, type) and issubclass(target, WandbLogger)
    return make(node, **({"id": run_id, "resume": "allow"} if same_run else {}))


def prepare(datamodule: Any, stage: str) -> None:
    """Convert and open what a stage needs."""
    datamodule.prepare_data(stage)
    datamodule.setup(stage)


def prepare_test(datamodule: Any) -> None:
    """The same for the test after a fit, which goes without one where its files are missing."""
    try:
        prepare(datamodule, "test")
    except FileNotFoundError as error:
        splits = ", ".join(datamodule.splits["test"])
        log.warning("no test of %s will follow the training: %s", splits, error)
        datamodule.splits["test"] = []


def check_targets(node: Any, packages: tuple[str, ...], key: str = "") -> None:
    """Refuse a `_target_` that is not of these packages: a configuration is not to run just any code.

    Raises:
        InputError: names it.
    """
    if isinstance(node, list):
        for number, item in enumerate(node):
            check_targets(item, packages, f"{key}.{number}")
    if not isinstance(node, Mapping):
        return
    for name, item in node.items():
        check_targets(item, packages, f"{key}.{name}" if key else str(name))
    target = node.get("_target_")
    if target is None:
        return

    def allowed(name: str) -> bool:
        return any(f"{name}.".startswith(f"{package}.") for package in packages)

    # What the name leads to decides too: lxmert.runs.folder.subprocess.run is not ours.
    if not allowed(str(target)) or not allowed(get_object(target).__module__):
        raise InputError(
            f"{key}._target_={target} is none of {', '.join(packages)}: nothing else is built from a "
            f"configuration. If you trust it, add its package: 'packages=[{str(target).split('.')[0]}]'"
        )
