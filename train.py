"""Train, evaluate or predict: `python train.py experiment=vqa`."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
import time
import warnings
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import MISSING, DictConfig, OmegaConf

from lxmert.callbacks import (
    BestCheckpoint,
    EarlyStopping,
    Interrupted,
    Interrupts,
    LastCheckpoint,
    check_averaging,
    finish_wandb,
)
from lxmert.config import detector_difference
from lxmert.files import InputError, run_checkpoint
from lxmert.finite import NotFiniteError
from lxmert.learner import LxmertLearner
from lxmert.runs import (
    RunFolder,
    compare_settings,
    cut_log,
    environment_of,
    link_latest,
    print_results,
    read_state,
    run_folder,
    save_run_model,
    settings_of,
    whole_checkpoint,
    write_summary,
)
from lxmert.runs.build import build
from lxmert.weights import (
    kept_config,
    load_weights,
    match_answer_head,
    read_answers,
    read_detector,
    read_vocabulary,
    read_weights,
)

log = logging.getLogger(__name__)

CONF = Path(__file__).parent / "conf"
HYDRA_VALUES = (
    "--config-dir",
    "-cd",
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--cfg",
    "-c",
    "--package",
    "-p",
)
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
    compile: Any = False
    freeze: list[str] = field(default_factory=list)
    seed: int = 0
    packages: list[str] = field(default_factory=list)


def run(config: DictConfig) -> float | None:
    """Do what `action` says; returns the value of the metric that chooses the best checkpoint, for sweeps."""
    interrupts, first = Interrupts(), not getattr(rank_zero_only, "rank", 0)
    folder = Path(HydraConfig.get().runtime.output_dir)
    check(config)
    if config.split:
        config.data[SPLIT_KEYS[config.action]] = [config.split]
    resume = config.resume or ("auto" if int(os.environ.get("SLURM_RESTART_COUNT", 0)) else None)
    source = checkpoint_of(resume, folder)
    opened = RunFolder(folder, goes_on=goes_on(resume, folder)) if first else None
    failed = True
    trainer: Trainer | None = None
    # Lightning's tips and hardware lines would hide the news, and the first process tells what all of them would.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.disable(logging.NOTSET if first else logging.WARNING)
    interrupts.install()
    try:
        state = read_state(source) if source else None
        if state:  # before anything of the run that goes on is touched
            nodes: Any = OmegaConf.to_container(config, resolve=True)
            compare_settings(state.get("settings", {}), settings_of(nodes))
            check_averaging(state, nodes["callbacks"])
        if opened:
            opened.write_start(config, HydraConfig.get().runtime.choices["experiment"])
        with warnings.catch_warnings():
            # About Lightning's own use of torch, and about the learner's hook being the one that it uses.
            about = ".*(LeafSpec|on_before_batch_transfer|does not have many workers|than the logging interval)"
            warnings.filterwarnings("ignore", message=about, module="lightning.*")
            seed_everything(config.seed, verbose=False)
            if state and first:
                cut_log(
                    folder / "logs/metrics.csv", state["global_step"], validated=not state.get("validation_due")
                )
            del state
            datamodule, learner, trainer = build(config, environment_of(folder).get("id"))
            if opened:
                # Once all processes are there, of which each may have been told of `latest`, the run before.
                outputs = Path(config.paths.outputs)
                trainer.callbacks.append(LambdaCallback(setup=lambda *_, **__: link_latest(folder, outputs)))  # type: ignore[attr-defined]
            value = act(config, folder, datamodule, learner, trainer, source, interrupts)
            failed = False
            return value
    except Interrupted as signal:
        if trainer is None or trainer.state.fn != "fit":
            log.warning("stopped by signal %d; the same command with resume=%s goes on", signal.signum, folder)
        raise
    finally:
        interrupts.remove()
        if failed and trainer is not None:
            end_other_processes(trainer)
        finish_wandb(failed)
        if opened:
            opened.close()


def act(
    config: DictConfig,
    folder: Path,
    datamodule: Any,
    learner: LxmertLearner,
    trainer: Trainer,
    source: Path | None,
    interrupts: Interrupts,
) -> float | None:
    """Fit and test, or what else `action` says, and write the summary."""
    began = time.time()
    best = next((each for each in trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)), None)
    last = next((each for each in trainer.checkpoint_callbacks if isinstance(each, LastCheckpoint)), None)
    if last:
        last.interrupts = interrupts
    for logger in trainer.loggers:
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    value, fitted = None, {}
    if config.action == "fit":
        if source:  # before what is kept of the run that goes on is replaced
            learner.on_load_checkpoint({"lxmert_config": kept_config(source)})
        if trainer.is_global_zero:
            reading = "sigmoid" if "answering" in learner.objectives else "softmax"
            model = learner.model.config
            save_run_model(folder, model, datamodule.tokenizer, reading, datamodule.max_length)
        if config.init and not source:
            initialize_from(learner, config.init, config.init_answers or config.init)
        trainer.fit(learner, datamodule, ckpt_path=source, weights_only=True)
        for each in trainer.early_stopping_callbacks:
            if each.stopped_epoch or (isinstance(each, EarlyStopping) and each.is_over):  # type: ignore[attr-defined]
                log.warning("stopped early: %s has stood still", each.monitor)  # type: ignore[attr-defined]
        fitted = (last.metrics if last else {}) | dict(trainer.callback_metrics)
        used = (best.best_model_path if best else "") or (str(last.path) if last and last.path.exists() else "")
        if best and best.best_model_score is not None:
            value = float(best.best_model_score)
        if used and datamodule.splits["test"]:
            trainer.test(learner, datamodule, ckpt_path=used, weights_only=True, verbose=False)
    else:
        used, key = config.checkpoint, SPLIT_KEYS[config.action]
        if not datamodule.splits[key]:
            raise InputError(f"action={config.action} has no split: name one with split=, or some with data.{key}")
        options = {"return_predictions": False} if config.action == "predict" else {"verbose": False}
        getattr(trainer, config.action)(learner, datamodule, ckpt_path=used, weights_only=True, **options)
    metrics = {name: float(each) for name, each in (fitted | dict(trainer.callback_metrics)).items()}
    if trainer.is_global_zero:
        baselines = {} if config.action == "predict" else datamodule.baselines()  # no scores to stand beside
        facts: dict[str, Any] = {"checkpoint": used or None, "resumed_from": str(source) if source else None}
        facts |= {"steps": trainer.global_step, "seconds": round(time.time() - began, 1)}
        facts |= {"data": datamodule.report(), "baselines": baselines}
        write_summary(folder, config.action, metrics, facts)
        print_results(folder, metrics, baselines, datamodule.title)
    return metrics.get(best.monitor) if value is None and best and best.monitor else value


def checkpoint_of(resume: str | None, folder: Path) -> Path | None:
    """The file that a fit goes on from; `last` and `auto` look into the run's own folder.

    Raises:
        FileNotFoundError: there is none, and `auto` was not asked for.
    """
    if resume is None:
        return None
    if resume == "auto" and not list(folder.glob("checkpoints/*.ckpt")):
        return None
    if resume in ("last", "auto"):
        return whole_checkpoint(folder)
    return whole_checkpoint(Path(resume)) if Path(resume).is_dir() else Path(resume)


def goes_on(resume: str | None, folder: Path) -> bool:
    """Whether the run in `folder` goes on, rather than a new one starting there."""
    return resume in ("last", "auto") or (bool(resume) and Path(str(resume)).resolve() == folder.resolve())


def end_other_processes(trainer: Trainer, seconds: float = 3) -> None:
    """End the processes that this one started and that wait for it; most have failed as it did."""
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return
    until = time.monotonic() + seconds
    while any(each.poll() is None for each in launcher.procs) and time.monotonic() < until:
        time.sleep(0.05)
    for each in launcher.procs:
        each.kill()


def initialize_from(learner: LxmertLearner, source: str, answers: str) -> None:
    """Start `learner` from the weights at `source`; its answer head by the texts that `answers` holds.

    Raises:
        InputError: the weights cannot be read or do not fit, or are for another vocabulary.
    """
    weights, vocabulary = read_weights(source), read_vocabulary(source)
    own = learner.model.config.vocab_sha256
    if vocabulary and own and vocabulary != own:
        raise InputError(
            f"init={source} is for another vocabulary (SHA-256 {vocabulary[:12]}) than data.tokenizer's "
            f"({own[:12]}): the pieces, their order, or how words are cased differ. Use that of its "
            "training, which a run's folder and an export have: data.tokenizer=FOLDER"
        )
    if difference := detector_difference(read_detector(source), learner.model.config.detector):
        log.warning("init=%s %s", source, difference)
    if "answer_head" in learner.heads().values():
        ours = learner.model.config.answers or []
        matched = match_answer_head(weights, read_answers(answers), ours)
        log.info("answer head: %d of %d answers found by text in %s", matched, len(ours), answers)
    load_weights(learner.reference_state(), weights, source)


def check(config: DictConfig) -> None:
    """Reject what does not go together before anything is loaded; a run's folder becomes its best checkpoint.

    Raises:
        InputError: an unknown action or key, or a key that the action does not use or lacks.
        FileNotFoundError: a file that is named and not there.
    """
    known = [each.name for each in fields(Root)]
    if unknown := [str(key) for key in config if key not in known]:
        raise InputError(f"there is no root key {', '.join(unknown)}; the keys are {', '.join(known)}")
    if config.action not in ACTIONS:
        raise InputError(f"action={config.action}; expected one of {', '.join(ACTIONS)}")
    if config.action == "fit" and (config.checkpoint or config.split):
        raise InputError(
            "checkpoint= and split= are for validate, test and predict; fitting uses resume=, init=, data.*"
        )
    if config.action != "fit" and not config.checkpoint:
        raise InputError(f"action={config.action} needs checkpoint=PATH, the folder of a run or a *.ckpt in it")
    if config.action != "fit" and (config.resume or config.init):
        raise InputError(f"resume= and init= are for fitting; action={config.action} uses checkpoint=")
    if config.init_answers and not config.init:
        raise InputError("init_answers= names the answers of init=, which is not given")
    for key in ("checkpoint", "resume", "init", "init_answers"):
        if config[key] and config[key] not in ("last", "auto") and Path(config[key]).exists():
            config[key] = str(Path(config[key]).resolve())  # outputs/latest soon is this run's
    if config.checkpoint and Path(config.checkpoint).is_dir():
        found = run_checkpoint(config.checkpoint)
        if found is None:
            raise FileNotFoundError(
                f"checkpoint={config.checkpoint} is a folder without checkpoints/; expected that of a run, "
                "outputs/<experiment>/<time>, or a *.ckpt in it"
            )
        config.checkpoint = str(found)
    for key in ("checkpoint", "resume"):
        named = key == "resume" and config[key] in ("last", "auto")
        if config[key] and not named and not Path(config[key]).exists():
            raise FileNotFoundError(f"{key}={config[key]} does not exist")
    if config.checkpoint and kept_config(Path(config.checkpoint)) is None:
        raise InputError(
            f"checkpoint={config.checkpoint} holds weights and is no checkpoint of a run. To test weights: init= "
            "with optimizer.lr=0 trainer.max_epochs=1 trainer.limit_train_batches=1, a step of length 0"
        )


def usage() -> str:
    """The experiments, a line each, and what to write behind one."""
    lines = [
        textwrap.fill(first_sentence(path), 110, initial_indent=f"  {path.stem:<18} ", subsequent_indent=" " * 21)
        for path in sorted((CONF / "experiment").glob("*.yaml"))
    ]
    return "\n".join(
        [
            "python train.py experiment=NAME [key=value ...]",
            "",
            "Experiments (those of your own: --config-dir FOLDER, with FOLDER/experiment/NAME.yaml):",
            *lines,
            "",
            "Some keys: trainer=cpu|gpu|ddp|fsdp  trainer.devices=8  init=WEIGHTS  resume=last|auto|RUN|FILE.ckpt",
            "  action=test checkpoint=FILE.ckpt  paths.data=FOLDER  logger=wandb  data.batch_size=32",
            "All of them, with their values: python train.py experiment=NAME --cfg job. Sweeps: --multirun.",
        ]
    )


def first_sentence(path: Path) -> str:
    """What the comment at the head of an experiment's yaml says first; its commands are indented further."""
    comment = path.read_text(encoding="utf-8").split("\n# ", 1)[1].split("\n#   ")[0].split("\n\n")[0]
    lines = [line.removeprefix("# ") for line in f"# {comment}".splitlines() if line.startswith("# ")]
    return " ".join(lines).split(". ")[0].rstrip(".")


class Refused(CompactHydraException):
    """What a user can mend: shown without the way through the code."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def start(config: DictConfig) -> float | None:
    """Run with the composed configuration."""
    try:
        return run(config)
    except (InputError, NotFiniteError, FileNotFoundError, FileExistsError, PermissionError) as error:
        raise Refused(f"{type(error).__name__}: {error}") from error


def options_first(arguments: list[str]) -> list[str]:
    """A command's options, then its overrides: what it or Lightning adds to these may not be parted from them."""
    if {"--info", "-i"} & set(arguments):  # whose value may be left out
        return arguments
    options: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in HYDRA_VALUES:
            options += [argument, *islice(rest, 1)]
        else:
            (options if argument.startswith("-") else overrides).append(argument)
    return [*options, *overrides]


def folder_or_exit(*arguments: Any) -> str:
    """`run_folder`; what is wrong with it ends the command in one line, before Hydra could wrap it in its own."""
    try:
        return run_folder(*arguments)
    except (InputError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def main() -> None:
    """Entry point, also of the installed command `lxmert-train`."""
    asked = {"-h", "--help"} & set(sys.argv[1:])
    chosen = any(argument.split("=")[0].lstrip("+") == "experiment" for argument in sys.argv[1:])
    if not chosen and (asked or not any(argument.startswith("-") for argument in sys.argv[1:])):
        print(usage(), file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    sys.argv[1:] = options_first(sys.argv[1:])
    # Tokenizer threads and forked data workers do not go together.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    ConfigStore.instance().store("root_schema", Root)
    OmegaConf.register_new_resolver("run_folder", folder_or_exit, use_cache=True, replace=True)
    start()


if __name__ == "__main__":
    main()
