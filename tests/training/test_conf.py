"""Every yaml: composed, bound to the constructors it names, and refused when a key is misspelt."""

import functools
import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import train

ROOT = Path(__file__).parents[2]
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


@functools.cache
def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=list(overrides))
    OmegaConf.set_readonly(config, True)  # several tests look at it
    return config


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
        raise AssertionError(f"{name}: {node['_target_']}: {error}") from error


def test_there_is_something_to_test():
    real = {"pretrain", "vqa", "gqa", "nlvr2", "retrieval"}
    assert real | {f"toy_{name}" for name in real} <= set(EXPERIMENTS)
    assert {"trainer=fsdp", "logger=wandb", "optimizer=adamw", "recipe=paper"} <= set(CHOICES)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_each_experiments_keys_are_its_constructors_parameters(experiment):
    found = dict(nodes(composed(f"experiment={experiment}")))
    assert {"model", "data", "optimizer", "trainer", "callbacks.best"} <= set(found)
    assert any(name.startswith("objective.") for name in found)
    for name, node in found.items():
        bind(name, node)


@pytest.mark.parametrize("choice", CHOICES)
def test_each_choice_composes_and_its_keys_are_its_constructors_parameters(choice):
    experiment = "toy_pretrain" if choice.startswith("recipe=") else "toy_vqa"
    for name, node in nodes(composed(f"experiment={experiment}", choice)):
        bind(name, node)


@pytest.mark.parametrize(
    ("task", "rate", "objective", "splits"),
    [
        ("vqa", 5e-5, "answering", ("train,nominival", "minival", "minival", "test")),
        ("gqa", 1e-5, "answering", ("train,valid", "testdev", "testdev", "submit")),
        ("nlvr2", 5e-5, "image_pair", ("train", "valid", "test", "test")),
    ],
)
def test_the_released_recipe_is_the_default_of_each_task(task, rate, objective, splits):
    config = composed(f"experiment={task}")
    assert config.optimizer["_target_"] == "lxmert.optim.bert_adam"
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.warmup) == (rate, 0.01, 0.1)
    assert list(config.objective) == [objective]
    assert config.callbacks.best.monitor == f"val/{objective}/accuracy"
    assert tuple(config.data[role] for role in ("train", "valid", "test", "predict")) == splits
    assert (config.data.batch_size, config.data.max_length, config.trainer.max_epochs) == (32, 20, 4)
    assert config.trainer.gradient_clip_val == 5.0
    sizes = [config.model[name] for name in ("l_layers", "r_layers", "x_layers", "hidden_size", "visual_feat_dim")]
    assert sizes == [9, 5, 5, 768, 2048]


@pytest.mark.parametrize(("task", "folder"), [("retrieval", "flickr30k"), ("retrieval_coco", "coco")])
def test_retrieval_is_fine_tuned_as_volta_does(task, folder):
    config = composed(f"experiment={task}")
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.warmup) == (2e-5, 1e-4, 0.1)
    assert (config.data.batch_size, config.data.max_length, config.trainer.max_epochs) == (64, 30, 20)
    assert (config.data.folder, config.data.negatives, config.trainer.gradient_clip_val) == (
        folder,
        "options",
        1.0,
    )
    assert config.callbacks.best.monitor == "val/retrieval/accuracy" and list(config.objective) == ["retrieval"]


def test_pretraining_is_the_published_schedule():
    config = composed("experiment=pretrain")
    assert (config.optimizer.lr, config.data.batch_size, config.trainer.max_epochs) == (1e-4, 256, 20)
    assert (config.warmup, config.trainer.gradient_clip_val) == (0.05, 1.0)
    assert list(config.objective) == ["matching", "masked_language", "masked_region", "question_answering"]
    assert (config.callbacks.best.monitor, config.callbacks.best["mode"]) == ("val/loss", "min")
    assert config.callbacks.predictions is None and config.callbacks.examples is None


@pytest.mark.parametrize("experiment", ["pretrain", "toy_pretrain"])
def test_the_two_recipes_differ_where_paper_and_released_code_do(experiment):
    released, paper = composed(f"experiment={experiment}"), composed(f"experiment={experiment}", "recipe=paper")
    region = released.objective.masked_region
    assert (list(region.losses), region.label_weight) == (["object", "attribute", "feature"], "confidence")
    assert (region.feature_loss, region.zeroed, region.replaced) == ("smooth_l1", 0.8, 0.1)
    assert released.objective.question_answering.start == 0
    if experiment == "pretrain":  # the toy is too short for an optimiser without bias correction
        assert released.optimizer["_target_"] == "lxmert.optim.bert_adam"
    region = paper.objective.masked_region
    assert (list(region.losses), region.label_weight) == (["object", "feature"], "masked")
    assert (region.feature_loss, region.zeroed, region.replaced) == ("l2", 1.0, 0.0)
    assert paper.objective.question_answering.start == 0.5
    assert (paper.optimizer["_target_"], paper.optimizer.weight_decay) == ("lxmert.optim.adamw", 0.0)
    assert paper.optimizer.lr == released.optimizer.lr
    assert paper.data == released.data and paper.trainer == released.trainer


@pytest.mark.parametrize("recipe", ["released", "paper"])
def test_objectives_are_chosen_on_the_command_line(recipe):
    def chosen(names):
        return composed("experiment=pretrain", f"objective=[{names}]", f"recipe={recipe}")

    ablation = chosen("masked_language,masked_region")
    assert list(ablation.objective) == ["masked_language", "masked_region"]
    assert ablation.data.mismatched == 0  # without the objective nothing is exchanged
    assert list(chosen("masked_language").objective) == ["masked_language"]  # no half node of the recipe's
    for names in ("matching", "masked_language,matching"):
        assert chosen(names).data.mismatched == 0.5
    assert composed("experiment=pretrain", "data.mismatched=0.3").data.mismatched == 0.3
    assert composed("experiment=toy_pretrain").data.mismatched == 0.1
    assert composed("experiment=toy_pretrain", "objective=[masked_language]").data.mismatched == 0


@pytest.mark.parametrize("name", ["vqa", "gqa", "nlvr2", "pretrain", "retrieval"])
def test_the_toy_overlays_change_data_model_and_schedule_alone(name):
    real, toy = composed(f"experiment={name}"), composed(f"experiment=toy_{name}")
    assert toy.objective == real.objective and toy.callbacks == real.callbacks and toy.logger == real.logger
    short = "lxmert.optim.bert_adam" if name == "vqa" else "lxmert.optim.adamw"
    assert toy.optimizer["_target_"] == short
    assert toy.trainer.accelerator == "cpu" and toy.data.workers == 0
    assert toy.data["_target_"].startswith("datamodules.toy.") and toy.data.root != real.data.root


def test_the_toys_whose_weights_move_between_them_have_one_model_and_one_kind_of_regions():
    toys = [composed(f"experiment=toy_{name}") for name in ("pretrain", "vqa", "gqa", "nlvr2", "retrieval")]
    for toy in toys:
        assert toy.model == toys[0].model
        assert (toy.data.world.regions, toy.data.world.seed) == (
            toys[0].data.world.regions,
            toys[0].data.world.seed,
        )
    assert toys[0].data.root == toys[1].data.root and toys[0].data.world == toys[1].data.world
    assert len({toy.data.root for toy in toys}) == 4  # a toy's folder holds one toy


@pytest.mark.parametrize("toy", ["", "toy_"])
@pytest.mark.parametrize("name", ["vqa", "gqa", "nlvr2", "pretrain", "retrieval"])
def test_the_data_configs_leave_none_of_a_data_modules_arguments_out(toy, name):
    data = composed(f"experiment={toy}{name}").data
    assert set(data) - {"_target_"} == set(inspect.signature(get_object(data["_target_"])).parameters)


def test_a_misspelt_root_key_in_an_overlay_is_refused(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ntrianer: {devices: 2}\n")
    with pytest.raises((HydraException, OmegaConfBaseException), match="trianer"):
        composed(f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine")


def test_the_command_without_an_experiment_lists_them(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(SystemExit) as ended:
        train.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in EXPERIMENTS)
