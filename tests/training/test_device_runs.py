"""Runs whose features are on the device: what they learn and predict is what they would without."""

import pytest
import torch
from runs import TINY, checkpoint, kill_and_resume, metrics, train, weights

from lxmert.runs.resume import compare_settings

WORLD = ["data.world.train=20", "data.world.minival=5", "data.world.nominival=4", "data.world.test=4"]
ON_DEVICE = "data.regions_on_device=true"
TIMES = ("train/rows_per_s", "train/data_wait")


def command(experiment, *more):
    options = [
        "data.world.pictures=1",
        "data.batch_size=16",
        "trainer.log_every_n_steps=1",
        "trainer.max_epochs=2",
    ]
    return [f"experiment={experiment}", *TINY, *WORLD, *options, *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("device")


@pytest.fixture(scope="module")
def run(folder):
    return train(*command("toy_vqa", "data.workers=1"), folder=folder)


def logged(run):
    """What a run logged of its losses and scores."""
    told = ("train/", "val/", "test/")
    rows = [{k: v for k, v in row.items() if k.startswith(told) and k not in TIMES} for row in metrics(run)]
    assert any(row["train/loss"] for row in rows)
    return rows


def assert_same_run(found, expected):
    assert checkpoint(found)["global_step"] == checkpoint(expected)["global_step"] > 3
    learnt = weights(expected)
    assert weights(found).keys() == learnt.keys()
    assert all(torch.equal(weights(found)[name], value) for name, value in learnt.items())
    assert logged(found) == logged(expected)
    for path in (expected / "predictions").glob("*.json"):
        assert (found / "predictions" / path.name).read_bytes() == path.read_bytes()


def test_a_run_with_its_features_on_the_device_is_the_one_without_to_the_last_bit(folder, run):
    assert (run / "predictions" / "minival.json").is_file()
    assert_same_run(train(*command("toy_vqa", "data.workers=1", ON_DEVICE), folder=folder), run)


def test_so_it_is_on_two_processes(folder):
    options = command("toy_vqa", "trainer.devices=2")
    assert_same_run(train(*options, ON_DEVICE, folder=folder), train(*options, folder=folder))


def test_so_it_is_after_a_kill(folder, run):
    assert_same_run(kill_and_resume(*command("toy_vqa"), ON_DEVICE, folder=folder), run)


def test_so_it_is_in_pre_training_whose_hidden_regions_are_hidden_on_the_device(folder):
    options = command("toy_pretrain")
    assert_same_run(train(*options, ON_DEVICE, folder=folder), train(*options, folder=folder))


def test_a_run_may_go_on_with_or_without_it():
    before = {"data": {"batch_size": 16}}  # older checkpoints do not know the setting
    compare_settings(before, {"data": {"batch_size": 16, "regions_on_device": True}})
    compare_settings({"data": {"regions_on_device": True}}, {"data": {"regions_on_device": False}})
