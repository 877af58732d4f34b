"""What the version before the rooms left is read and continued: checkpoints, stores, prediction files.

`fixtures/before_rooms.tar.xz` was written by commit 7bce676 with `experiment=vqa` on a made-up folder of the
release's files: a run that SIGTERM stopped after step 12 of 30, its stores, and what that commit made of it when
it went on (last.npz, best.npz: weights under the reference's names; predictions/); checkpoints of toy_pretrain
and toy_nlvr2 with their weights.
"""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import said, train

from lxmert.evaluate.__main__ import main as evaluate
from lxmert.evaluate.ensemble import read_scores
from lxmert.files import InputError
from lxmert.runs import compare_settings
from lxmert.weights import read_weights

SETTINGS = [
    "experiment=vqa", "trainer=cpu", "data.train=train", "data.valid=minival", "data.test=minival",
    "data.batch_size=4", "model.hidden_size=8", "model.num_attention_heads=2", "model.intermediate_size=12",
    "model.l_layers=1", "model.r_layers=1", "model.x_layers=1", "model.visual_feat_dim=5", "optimizer=adamw",
    "optimizer.lr=0.01", "trainer.max_epochs=3", "callbacks.last.every_n_train_steps=3",
    "trainer.log_every_n_steps=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(Path(__file__).parents[1] / "fixtures" / "before_rooms.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def assert_weights(path, expected):
    found, expected = read_weights(path), np.load(expected)
    assert set(found) == set(expected.files)
    for name, tensor in found.items():  # the last bits are another processor's
        if name.endswith(
            "key.bias"
        ):  # a softmax takes it out: its gradient is noise, which the optimiser enlarges
            continue
        np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_stopped_run_goes_on_from_its_checkpoint_and_stores(before):
    tokenizer = f"data.tokenizer={before}/data/vocab.txt"
    assert train(*SETTINGS, tokenizer, f"resume={before}/run", folder=before) == before / "run", said(before)
    assert "convert" not in said(before)
    for name in ("last", "best"):
        assert_weights(before / "run" / "checkpoints" / f"{name}.ckpt", before / f"{name}.npz")
    found, expected = before / "run" / "predictions", before / "predictions"
    assert (found / "minival.json").read_bytes() == (expected / "minival.json").read_bytes()
    scores, known = (read_scores(folder / "minival_scores.npz") for folder in (found, expected))
    np.testing.assert_allclose(scores.probability, known.probability, rtol=1e-4)


@pytest.mark.parametrize("name", ["toy_pretrain", "toy_nlvr2"])
def test_heads_are_read_from_checkpoints(before, name):
    found, expected = read_weights(before / f"{name}.ckpt"), np.load(before / f"{name}.npz")
    assert set(found) == set(expected.files)
    assert all(torch.equal(found[each], torch.from_numpy(expected[each])) for each in found)


def test_prediction_files_are_read(before):
    predictions, questions = before / "predictions" / "minival.json", before / "data" / "vqa" / "minival.json"
    assert evaluate(["check", "vqa", str(predictions), str(questions)]) == 0


def test_statements_of_before_their_folders_had_keys_are_the_same_data():
    data = {"_target_": "datamodules.nlvr2.Nlvr2DataModule", "train": "train"}
    now = {"data": {**data, "folder": "nlvr2", "region_folder": "nlvr2_imgfeat"}, "warmup": 0.1}
    compare_settings({"data": data, "warmup": 0.1}, now)
    with pytest.raises(InputError, match=r"data\.folder: nlvr2 in the checkpoint, mine now"):
        compare_settings({"data": data, "warmup": 0.1}, {**now, "data": {**now["data"], "folder": "mine"}})
