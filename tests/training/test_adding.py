"""How many files it takes to add something, each from a folder outside of the project, trained by train.py."""

import json
import os
import subprocess
import sys

import pytest
from folders import F, write_regions, write_rows, write_vocabulary
from runs import ROOT, environment, latest, metrics, summary, train

from lxmert.evaluate.__main__ import main as evaluate
from lxmert.evaluate.ensemble import read_scores
from lxmert.weights import read_weights
from lxmert.weights.export import main as export

TINY = [
    "trainer=cpu", "model.hidden_size=8", "model.num_attention_heads=2", "model.intermediate_size=12",
    "model.l_layers=1", "model.r_layers=1", "model.x_layers=1", f"model.visual_feat_dim={F}",
    "trainer.max_epochs=2", "trainer.log_every_n_steps=3", "data.batch_size=4", "data.workers=0",
]  # fmt: skip
IMAGES = ["kitchen 1", "garden/2", "3"]
OWN_DATA = """# @package _global_
# Own questions about own pictures.
defaults:
  - override /data: vqa
  - override /objective: [answering]
data:
  folder: mine
  region_folder: mine_imgfeat
  train: train
  valid: valid
  test: valid
"""
TASK = """# @package _global_
# SNLI-VE: whether a picture entails a sentence.
defaults:
  - override /data: vqa
  - override /objective: [answering, length]
data:
  _target_: snli_ve.SnliVeDataModule
  folder: snli_ve
  region_folder: flickr_imgfeat
  train: train
  valid: valid
  test: valid
"""
TASK_MODULE = """
from dataclasses import dataclass

from datamodules.layout import Layout
from datamodules.release import ReleaseFolder
from datamodules.stores.texts import write_examples
from datamodules.vqa import VqaDataModule
from lxmert.files import read_json


def convert(source, store):
    rows = read_json(source)
    with write_examples(store, sources=[source]) as writer:
        writer.append(
            texts=[row["sentence2"] for row in rows],
            ids=[row["pairID"] for row in rows],
            images=[row["Flickr30K_ID"] for row in rows],
            labels=[{row["gold_label"]: 1.0} for row in rows],
            groups={},
        )


@dataclass(eq=False, repr=False)
class SnliVeDataModule(VqaDataModule):
    def release_folder(self):
        return ReleaseFolder(
            self.root,
            self.stores,
            folder=self.folder,
            layout=Layout((), (self.region_folder,), {}),
            convert=convert,
            data_set="SNLI-VE",
            toy="toy_vqa",
        )
"""
OBJECTIVE = "length:\n  _target_: length.Length\n"
OBJECTIVE_MODULE = '''
import torch
from torch import nn

from lxmert.objectives.base import Objective, ObjectiveMetrics, Result
from lxmert.objectives.metrics import GroupedMean


class Length(Objective):
    """How many words a sentence has."""

    outputs_needed = frozenset({"pooled"})
    head_name = "length_head"

    def __init__(self, config):
        super().__init__()
        self.head = nn.Linear(config.hidden_size, 1)

    def forward(self, output, batch, model):
        lengths = batch.token_mask.sum(1)[batch.row_sentence]
        errors = (self.head(output.pooled_output).squeeze(1).float() - lengths).abs()
        return Result({"length": errors.mean()}, {"errors": errors.detach()})

    def make_metrics(self, label_names):
        return LengthMetrics()


class LengthMetrics(ObjectiveMetrics):
    def __init__(self):
        super().__init__()
        self.error = GroupedMean("error")

    def update(self, result, batch):
        errors = result.predictions["errors"]
        self.error.update(errors, torch.ones_like(errors, dtype=torch.bool), {})
'''


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    write_vocabulary(tmp_path / "data" / "vocab.txt")
    return tmp_path


def test_a_data_set_in_a_known_format_takes_one_yaml(folder):
    write(folder / "own" / "experiment" / "mine.yaml", OWN_DATA)
    write_regions(folder / "data" / "mine_imgfeat" / "all_obj36.tsv", {name: i for i, name in enumerate(IMAGES)})
    for split, number in (("train", 20), ("valid", 7)):
        rows = [
            {
                "question_id": i,
                "img_id": IMAGES[i % 3],
                "sent": "what is red ?",
                "label": {["cat", "dog"][i % 2]: 1.0},
            }
            for i in range(number)
        ]
        write_rows(folder / "data" / "mine" / f"{split}.json", rows)
    tokenizer = f"data.tokenizer={folder}/data/vocab.txt"
    run = train(
        "experiment=mine", tokenizer, *TINY, "data.task=own", "--config-dir", f"{folder}/own", folder=folder
    )
    measured = summary(run)
    assert measured["data"]["valid"]["examples"] == 7 and "test/answering/accuracy" in measured["metrics"]
    predictions, labels = run / "predictions" / "valid.json", folder / "data" / "mine" / "valid.json"
    assert len(json.loads(predictions.read_text())) == 7
    assert evaluate(["check", "own", str(predictions), str(labels)]) == 0
    assert evaluate(["own", str(predictions), str(labels), "--json", str(folder / "scores.json")]) == 0
    scored = json.loads((folder / "scores.json").read_text())["metrics"]["accuracy"]
    assert scored == pytest.approx(100 * measured["metrics"]["test/answering/accuracy"], abs=0.006)
    assert read_scores(run / "predictions" / "valid_scores.npz").described_by().name == "own"


def test_a_task_takes_two_files_and_an_objective_two_and_the_rest_asks_them(folder, capsys):
    own, data = folder / "own", folder / "data"
    write(own / "experiment" / "entails.yaml", TASK)
    write(own / "snli_ve.py", TASK_MODULE)
    write(own / "objective" / "length.yaml", OBJECTIVE)
    write(own / "length.py", OBJECTIVE_MODULE)
    write_regions(data / "flickr_imgfeat" / "flickr_obj36.tsv", {f"{i}.jpg": i for i in range(3)})
    answers = ["entailment", "neutral", "contradiction"]
    for split, number in (("train", 20), ("valid", 7)):
        rows = [
            {
                "pairID": f"{i}.jpg#r{i}", "Flickr30K_ID": f"{i % 3}.jpg", "gold_label": answers[i % 3],
                "sentence2": "there is one red cat" if i % 2 else "many are red",
            }
            for i in range(number)
        ]  # fmt: skip
        write_rows(data / "snli_ve" / f"{split}.json", rows)
    command = [
        sys.executable, str(ROOT / "train.py"), "--config-dir", str(own), "experiment=entails", *TINY,
        "packages=[snli_ve,length]", f"data.tokenizer={data}/vocab.txt", f"paths.data={data}",
        f"paths.outputs={folder}/outputs",
    ]  # fmt: skip
    variables = environment(folder) | {"PYTHONPATH": os.pathsep.join([str(own), str(ROOT)])}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    run = latest(folder)
    measured = summary(run)["metrics"]
    assert {"test/loss/length", "test/length/error", "test/answering/accuracy"} <= set(measured)
    assert any(row.get("train/loss/length") for row in metrics(run))
    assert {row["question_id"] for row in json.loads((run / "predictions" / "valid.json").read_text())} == {
        f"{i}.jpg#r{i}" for i in range(7)
    }
    weights = read_weights(run / "checkpoints" / "best.ckpt")
    assert {"length_head.weight", "length_head.bias", "answer_head.logit_fc.3.bias"} <= set(weights)
    assert (
        export(["export", "--to", "reference", str(run / "checkpoints" / "best.ckpt"), str(folder / "out")]) == 1
    )
    assert "length_head (2), which no model of the reference" in capsys.readouterr().err
