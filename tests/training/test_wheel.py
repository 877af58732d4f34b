"""The wheel, installed and used outside of the repository, with an experiment of one's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import TINY, environment, latest, summary

pytest.importorskip("hatchling", reason="a wheel is built without the network where hatchling is installed")

ROOT = Path(__file__).parents[2]
MINE = """# @package _global_
# An experiment of one's own.
defaults:
  - toy_vqa

data:
  batch_size: 16
  world: {train: 16, minival: 4, nominival: 2, test: 2, pictures: 0}
trainer:
  max_epochs: 1
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that the wheel is installed in, and the environment of commands that find it there first."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*command, "--target", str(folder), str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    variables = environment(folder)
    return folder, variables | {"PYTHONPATH": os.pathsep.join([str(folder), variables.get("PYTHONPATH", "")])}


def run(site, folder, *command):
    """What a command of the installed package prints in `folder`."""
    done = subprocess.run([sys.executable, *command], cwd=folder, env=site[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_installed_command_trains_an_experiment_of_ones_own(site, tmp_path):
    assert run(site, tmp_path, "-c", "import lxmert; print(*lxmert.__path__)").strip() == str(site[0] / "lxmert")
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(MINE)
    run(site, tmp_path, str(site[0] / "bin" / "lxmert-train"), "--config-dir", "own", "experiment=mine", *TINY)
    found = latest(tmp_path)
    assert found.parent.name == "mine" and summary(found)["steps"] > 0
    assert "<h2>Examples</h2>" in (found / "report.html").read_text()


def test_the_installed_package_has_the_toys_detector(site, tmp_path):
    code = "from datamodules.toy.detector import PATH; print(PATH, PATH.stat().st_size)"
    assert run(site, tmp_path, "-c", code).startswith(str(site[0] / "datamodules" / "toy"))


def test_the_installed_package_knows_what_to_download(site, tmp_path):
    assert "vqa, into data" in run(site, tmp_path, "-m", "datamodules.download", "vqa", "--list")
