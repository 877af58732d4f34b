"""Every command and line of configuration in the pages on training composes."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

import train

ROOT = Path(__file__).parents[2]
SETTING = re.compile(r"^[\w.@+/~]+=\S")  # key=value


PLUGINS = {
    "joblib": "hydra_joblib_launcher",
    "submitit": "hydra_submitit_launcher",
    "optuna": "hydra_optuna_sweeper",
}


def installed(plugin):
    """Whether Hydra has one of its plugins."""
    try:
        return importlib.util.find_spec(f"hydra_plugins.{plugin}") is not None
    except ModuleNotFoundError:
        return False


def table(page, column):
    """The code spans of one column of a page's tables, below the heading that names the experiment."""
    experiment = "vqa"
    for line in (ROOT / "docs" / page).read_text().splitlines():
        if found := re.match(r"## .*`experiment=(\w+)`", line):
            experiment = found[1]
        cells = re.split(r"(?<!\\)\|", line)
        if line.startswith("| ") and len(cells) > column:
            for span in re.findall(r"`([^`]+)`", cells[column]):
                if SETTING.match(span):
                    chosen = [] if "experiment=" in span else [f"experiment={experiment}"]
                    yield [*chosen, *shlex.split(span)]


def commands(page):
    """The arguments of every `python train.py` in a page's code blocks."""
    blocks = re.findall(r"```\w*\n(.*?)```", (ROOT / "docs" / page).read_text(), re.S)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if "python train.py" in line:
            yield shlex.split(line.split("python train.py")[1], comments=True)


LINES = [
    *table("original.md", 2),
    *table("training.md", 1),
    *(command for page in ("original.md", "training.md", "sweeps.md") for command in commands(page)),
]


@pytest.fixture(autouse=True)
def schema():
    ConfigStore.instance().store("root_schema", train.Root)


def test_the_pages_have_lines():
    assert len(LINES) > 50
    assert ["experiment=pretrain", "objective.masked_region.rate=0.15"] in LINES


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_each_line_composes(line):
    overrides = [each for each in line if not each.startswith("--")]
    for name in PLUGINS:
        if any(re.match(rf"hydra/\w+={name}", each) for each in overrides) and not installed(PLUGINS[name]):
            pytest.skip(f"pip install '.[sweeps]' to test hydra with {name}")
    if "--multirun" in line:  # a list or an interval is one value for each job
        overrides = [re.sub(r"=interval\(([^,]+),.*\)$", r"=\1", each) for each in overrides]
        overrides = [re.sub(r"=([\w.-]+),.*$", r"=\1", each) for each in overrides]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        compose("train", overrides=overrides)
