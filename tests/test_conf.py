"""Every yaml: composed, bound to the constructors it names, and refused when a key is misspelt."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import train

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").rglob("*.yaml"))
CHOICES = sorted(
    f"{path.parent.relative_to(CONF)}={path.stem}"
    for path in CONF.rglob("*/*.yaml")
    if path.parent.name not in ("experiment", "objective") and path.stem != "base"
)


@pytest.fixture(autouse=True)
def schema():
    ConfigStore.instance().store("root_schema", train.Root)


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def nodes(config, name=""):
    """Every node with a `_target_`, by its path."""
    if isinstance(config, DictConfig):
        if "_target_" in config:
            yield name, OmegaConf.to_container(config, resolve=False)
        for key in config:
            if not OmegaConf.is_interpolation(config, key) and not OmegaConf.is_missing(config, key):
                yield from nodes(config[key], f"{name}.{key}".lstrip("."))


def bind(name, node):
    target = get_object(node["_target_"])
    arguments = {key: value for key, value in node.items() if not key.startswith("_")}
    try:
        inspect.signature(target).bind_partial(**arguments)
    except TypeError as error:
        raise AssertionError(f"{name}: {error}") from error


def test_there_is_something_to_test():
    assert {"vqa", "toy_vqa"} <= set(EXPERIMENTS)
    assert {"trainer=fsdp", "logger=wandb", "optimizer=adamw"} <= set(CHOICES)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_each_experiments_keys_are_its_constructors_parameters(experiment):
    found = dict(nodes(composed(f"experiment={experiment}")))
    assert {"model", "data", "objective.answering", "optimizer", "trainer", "callbacks.best"} <= set(found)
    for name, node in found.items():
        bind(name, node)


@pytest.mark.parametrize("choice", CHOICES)
def test_each_choice_composes_and_its_keys_are_its_constructors_parameters(choice):
    for name, node in nodes(composed("experiment=toy_vqa", choice)):
        bind(name, node)


def test_the_released_recipe_is_the_default_of_vqa():
    config = composed("experiment=vqa")
    assert config.optimizer["_target_"] == "lxmert.optim.bert_adam"
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.warmup) == (5e-5, 0.01, 0.1)
    assert (config.data.batch_size, config.data.max_length, config.trainer.max_epochs) == (32, 20, 4)
    assert config.trainer.gradient_clip_val == 5.0
    sizes = [config.model[name] for name in ("l_layers", "r_layers", "x_layers", "hidden_size", "visual_feat_dim")]
    assert sizes == [9, 5, 5, 768, 2048]


def test_the_toy_overlay_changes_data_model_and_schedule_alone():
    real, toy = composed("experiment=vqa"), composed("experiment=toy_vqa")
    assert toy.objective == real.objective and toy.callbacks == real.callbacks and toy.logger == real.logger
    assert toy.optimizer["_target_"] == real.optimizer["_target_"]


def test_a_misspelt_root_key_in_an_overlay_is_refused(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ntrianer: {devices: 2}\n")
    with pytest.raises((HydraException, OmegaConfBaseException), match="trianer"):
        composed(f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine")


def test_the_command_without_an_experiment_lists_them():
    done = subprocess.run([sys.executable, str(ROOT / "train.py")], capture_output=True, text=True)
    assert done.returncode != 0
    assert all(name in done.stderr for name in EXPERIMENTS)
