"""What messages tell users to set is there to be set."""

import ast
import re
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

import train
from lxmert.config import LxmertConfig
from lxmert.files import InputError
from lxmert.learner import config_differences
from lxmert.runs import build

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
FILES = sorted([*ROOT.glob("lxmert/**/*.py"), *ROOT.glob("datamodules/**/*.py"), ROOT / "train.py"])
GROUPS = ("data", "model", "trainer", "optimizer", "callbacks", "objective", "logger", "recipe", "paths", "hydra")
KEY = re.compile(rf"(?<![\w./-])(\+*)((?:{'|'.join(GROUPS)})(?:\.(?:[A-Za-z_]\w*|\{{\}}))+)")
# Other things of such names: a tokenizer.json's part, a model's method, a parameter, a file of LMDB.
NO_KEYS = {"model.vocab", "model.state_dict", "model.encoder.x_layers", "data.mdb"}
# Of other programs, of Hydra, and those that the evaluation makes of its files' names.
FLAGS = {
    "--cfg",
    "--multirun",
    "--config-dir",
    "--loadLXMERT",
    "--load",
    "--loadLXMERTQA",
    "--scene-graphs",
    "--attentions",
}


def messages():
    """(file and line, text) of every text of the code with a space in it, but docstrings; {} is filled in."""
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        told = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}  # docstrings
        joined = [n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr)]
        told |= {id(part) for n in joined for part in n.values}
        for n in ast.walk(tree):
            text = n.value if isinstance(n, ast.Constant) and isinstance(n.value, str) else ""
            if isinstance(n, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in n.values)
            if " " in text and id(n) not in told:
                yield f"{file.relative_to(ROOT)}:{n.lineno}", text


MESSAGES = list(messages())


@pytest.fixture(scope="module")
def known():
    """Every key of every experiment, dotted, and what a choice of a group adds."""
    ConfigStore.instance().store("root_schema", train.Root)
    keys = set()
    experiments = [f"experiment={path.stem}" for path in (CONF / "experiment").glob("*.yaml")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for overrides in [[each] for each in experiments] + [["experiment=vqa", "callbacks=[ema,early_stopping]"]]:
            composed = compose("train", overrides, return_hydra_config=True)
            keys |= keys_of(OmegaConf.to_container(composed, resolve=False))
    return keys


def keys_of(node, name=""):
    found = {name} if name else set()
    for key, value in node.items() if isinstance(node, dict) else ():
        found |= keys_of(value, f"{name}.{key}".lstrip("."))
    return found


def test_every_option_that_a_message_names_exists(known):
    found, wrong = 0, []
    for place, text in MESSAGES:
        for plus, key in KEY.findall(text):
            found += 1
            fixed = key.split(".{}")[0]
            parent = fixed.rpartition(".")[0] if plus else fixed
            if key not in NO_KEYS and parent not in known:
                wrong.append(f"{place}: {key}")
    assert found > 40 and not wrong, "\n".join(wrong)


def test_every_choice_of_a_group_that_a_message_names_exists():
    wrong, found = [], 0
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    for place, text in MESSAGES:
        for group, choice in re.findall(rf"(?<![\w./-])({'|'.join(groups)})=([a-z_]+)", text):
            found += 1
            if not (CONF / group / f"{choice}.yaml").exists():
                wrong.append(f"{place}: {group}={choice}")
    assert found > 10 and not wrong, "\n".join(wrong)


def test_every_flag_that_a_message_names_exists():
    given = set(FLAGS)
    for file in FILES:
        for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == "add_argument":
                given |= {a.value for a in n.args if isinstance(a, ast.Constant)}
    named = {(place, flag) for place, text in MESSAGES for flag in re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", text)}
    assert named and not [each for each in named if each[1] not in given]


def test_a_difference_of_configs_names_an_option_that_a_run_takes(known):
    config = LxmertConfig(answers=["yes", "no"], num_qa_labels=2).to_dict()
    listed = {key.removeprefix("model.") for key in known if key.startswith("model.")}
    for key, value in config.items():
        for line in config_differences({**config, key: "another"}, config, listed):
            for plus, option in KEY.findall(line):
                assert (option in known) != bool(plus), line
                of_data = option in ("data.tokenizer", "data.classes")
                assert of_data or option.partition(".")[2] in config, (key, value)


def test_more_tokens_than_the_model_has_positions_are_refused():
    with pytest.raises(InputError, match=r"data\.max_length=600: the model has positions for 512 tokens"):
        build.check_length(600, LxmertConfig().max_position_embeddings)
    build.check_length(512, 512)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose("train", ["experiment=toy_vqa", "++model.max_position_embeddings=600"])  # as the message says


def test_a_run_for_a_gpu_where_there_is_none_is_told_of_the_cpu(monkeypatch):
    for accelerator in (build.CUDAAccelerator, build.MPSAccelerator):
        monkeypatch.setattr(accelerator, "is_available", staticmethod(lambda: False))
    with pytest.raises(InputError, match=r"trainer=gpu, the default, .* there is none here .* trainer=cpu"):
        build.check_device({"accelerator": "gpu"})
    build.check_device({"accelerator": "cpu"})


def test_the_checkpoint_of_a_runs_folder_is_its_best(tmp_path):
    def checked(path):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", ["experiment=toy_vqa", "action=test", f"checkpoint={path}"])
        train.check(config)
        return config.checkpoint

    with pytest.raises(FileNotFoundError, match="is a folder without checkpoints/; expected that of a run"):
        checked(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds neither best\.ckpt nor last\.ckpt"):
        checked(tmp_path)
    for name in ("last.ckpt", "best.ckpt"):
        torch.save({"lxmert_config": {}}, tmp_path / "checkpoints" / name)
        assert checked(tmp_path) == str(tmp_path / "checkpoints" / name)
    with pytest.raises(FileNotFoundError, match="checkpoint=last does not exist"):
        checked("last")
    torch.save({"weight": torch.ones(1)}, tmp_path / "BEST.pth")
    with pytest.raises(InputError, match=r"BEST\.pth holds weights and is no checkpoint of a run.*init="):
        checked(tmp_path / "BEST.pth")
