"""Train, evaluate or predict: `python train.py experiment=vqa`."""

from __future__ import annotations

import logging
import os
import time
import warnings
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import MISSING, DictConfig, OmegaConf

from lxmert.checkpoint import load_weights, match_answer_head, read_answers, read_weights
from lxmert.learner import LxmertLearner
from lxmert.model import LxmertModel
from lxmert.run import link_latest, newest_checkpoint, print_results, write_start, write_summary

log = logging.getLogger(__name__)

ACTIONS = ("fit", "validate", "test", "predict")
SPLIT_KEYS = {"validate": "valid", "test": "test", "predict": "predict"}


@dataclass
class Root:
    """The root keys. yaml overlays with any other are rejected; conf/train.yaml explains each."""

    model: Any = MISSING
    data: Any = MISSING
    objective: Any = field(default_factory=dict)
    recipe: Any = field(default_factory=dict)
    optimizer: Any = MISSING
    trainer: Any = MISSING
    logger: Any = MISSING
    callbacks: Any = MISSING
    paths: dict[str, str] = field(default_factory=dict)
    action: str = "fit"
    checkpoint: str | None = None
    split: str | None = None
    init: str | None = None
    init_answers: str | None = None
    resume: str | None = None
    warmup: float = 0.1
    seed: int = 0


def build(config: DictConfig) -> tuple[Any, LxmertLearner, Trainer]:
    """The only place where configuration becomes objects: data, the learner that fits it, the trainer."""
    nodes: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    make = partial(instantiate, _convert_="all")  # plain lists and dicts, not OmegaConf's
    for name, node in nodes["objective"].items():
        if "_target_" not in node:
            raise ValueError(f"objective.{name} is configured but not selected; add it to objective=[...]")
    datamodule = make(nodes["data"])
    # Before the trainer asks for it: the model's vocabulary and answers are the data's, and what a test
    # needs should be missed before the training, not after it.
    for stage in ("fit", "test") if config.action == "fit" else (config.action,):
        datamodule.prepare_data(stage)
        datamodule.setup(stage)
    # Unlabelled data has no answers of its own.
    answers = datamodule.answers or (read_answers(config.checkpoint) if config.checkpoint else None)
    if not answers:
        raise ValueError(
            "there is no answer list: neither labels, nor an answer file in the data folder, nor a checkpoint"
        )
    if not datamodule.splits["valid"] and nodes["callbacks"].get("last_of_epoch"):
        nodes["callbacks"]["last_of_epoch"]["save_on_train_epoch_end"] = True  # no validation to save after
    sizes = replace(
        make(nodes["model"]),
        vocab_size=len(datamodule.tokenizer),
        mask_token_id=datamodule.tokenizer.mask_token_id,
        num_qa_labels=len(answers),
        answers=answers,
    )
    learner = LxmertLearner(
        LxmertModel(sizes),
        {name: make(node, _partial_=True)(sizes) for name, node in nodes["objective"].items()},
        make(nodes["optimizer"]),
        warmup=config.warmup,
        tables=datamodule.tables,
        seed=config.seed,
    )
    trainer = make(
        nodes["trainer"],
        default_root_dir=HydraConfig.get().runtime.output_dir,
        logger=[make(node) for node in nodes["logger"].values() if isinstance(node, dict)],
        callbacks=[make(node) for node in nodes["callbacks"].values() if node],
    )
    return datamodule, learner, trainer


def run(config: DictConfig) -> dict[str, float]:
    """Do what `action` says; returns the metrics by their logged names."""
    began = time.time()
    folder = Path(HydraConfig.get().runtime.output_dir)
    check(config)
    if config.split:
        config.data[SPLIT_KEYS[config.action]] = [config.split]
    resume = newest_checkpoint(folder) if config.resume == "last" else config.resume
    seed_everything(config.seed, verbose=False)
    # Lightning's tips and hardware lines, and warnings about its own use of torch and about the learner's
    # hook being the one that it uses, would hide the news.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if getattr(rank_zero_only, "rank", 0):  # the first process tells what all of them would
        logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*(LeafSpec|on_before_batch_transfer)", module="lightning.*")
    datamodule, learner, trainer = build(config)
    if trainer.is_global_zero:
        write_start(folder, config)
        link_latest(folder)
    for logger in trainer.loggers:
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]

    if config.action == "fit":
        if config.init and not resume:
            initialize_from(learner, config.init, config.init_answers or config.init)
        trainer.fit(learner, datamodule, ckpt_path=resume, weights_only=True)
        fitted = dict(trainer.callback_metrics)
        best, last = trainer.checkpoint_callbacks[0], trainer.checkpoint_callbacks[-1]
        used = best.best_model_path or last.best_model_path  # type: ignore[attr-defined]
        trainer.test(learner, datamodule, ckpt_path=used, weights_only=True, verbose=False)
    else:
        fitted = {}
        used = config.checkpoint
        action = getattr(trainer, config.action)
        options = {"return_predictions": False} if config.action == "predict" else {"verbose": False}
        action(learner, datamodule, ckpt_path=used, weights_only=True, **options)
    metrics = {name: float(value) for name, value in (fitted | dict(trainer.callback_metrics)).items()}

    if trainer.is_global_zero:
        facts = {"checkpoint": str(used), "resumed_from": resume, "seconds": round(time.time() - began, 1)}
        facts |= {"data": datamodule.report(), "baselines": datamodule.baselines()}
        write_summary(folder, config.action, metrics, facts)
        print_results(folder, metrics, datamodule.baselines(), datamodule.title)
    return metrics


def initialize_from(learner: LxmertLearner, source: str, answers: str) -> None:
    """Start `learner` from the weights at `source`; its answer head by the texts that `answers` holds."""
    weights = read_weights(source)
    if any("answering" in name for name in learner.objectives):
        ours = learner.model.config.answers or []
        matched = match_answer_head(weights, read_answers(answers), ours)
        log.info("answer head: %d of %d answers found by text in %s", matched, len(ours), answers)
    load_weights(learner, weights, source)


def check(config: DictConfig) -> None:
    """Reject what does not go together before anything is loaded.

    Raises:
        ValueError: an unknown action, or a key that the action does not use or lacks.
    """
    if config.action not in ACTIONS:
        raise ValueError(f"action={config.action}; expected one of {', '.join(ACTIONS)}")
    if config.action == "fit" and (config.checkpoint or config.split):
        raise ValueError(
            "checkpoint= and split= are for validate, test and predict; fitting uses resume=, init=, data.*"
        )
    if config.action != "fit" and not config.checkpoint:
        raise ValueError(f"action={config.action} needs checkpoint=PATH, the checkpoints/best.ckpt of a run")
    if config.action != "fit" and (config.resume or config.init):
        raise ValueError(f"resume= and init= are for fitting; action={config.action} uses checkpoint=")
    for key in ("checkpoint", "resume"):
        if config[key] and config[key] != "last" and not Path(config[key]).exists():
            raise FileNotFoundError(f"{key}={config[key]} does not exist")


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> None:
    """Entry point."""
    run(config)


if __name__ == "__main__":
    # Tokenizer threads and forked data workers do not go together.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    ConfigStore.instance().store("root_schema", Root)
    main()
