"""train.py as a user runs it: real processes on a tiny toy world and on the real coco10 files."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import (
    NO_PAGE,
    SHARED,
    TINY,
    arguments,
    checkpoint,
    environment,
    kill_and_resume,
    latest,
    metrics,
    summary,
    train,
    weights,
)

from lxmert.evaluate.__main__ import main as evaluate


def fresh(*overrides, folder):
    """The folder of a run that a shell started, not a fork; nor are the processes that it starts."""
    command = [sys.executable, *arguments(*overrides, folder=folder)]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return latest(folder)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Overrides for a tiny run on a tiny toy world, which the first run generates."""
    folder = tmp_path_factory.mktemp("toy")
    world = ["data.world.train=40", "data.world.minival=8", "data.world.nominival=4", "data.world.test=4"]
    return folder, ["experiment=toy_vqa", *TINY, *world, "data.batch_size=16", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def toy_run(toy):
    folder, overrides = toy
    return fresh(*overrides, "trainer.max_epochs=2", folder=folder)


def test_a_run_leaves_enough_to_know_it_and_to_do_it_again(toy_run):
    for name in (
        "config.yaml", "environment.json", "summary.json", "report.html", "logs/metrics.csv",
        "checkpoints/best.ckpt", "checkpoints/last.ckpt",
        "predictions/minival.json", "predictions/minival_scores.npz", "predictions/minival_answers.csv",
    ):  # fmt: skip
        assert (toy_run / name).is_file(), name
    logged = summary(toy_run)["metrics"]
    assert {
        "train/loss",
        "val/answering/accuracy",
        "val/answering/official_accuracy",
        "test/answering/accuracy",
    } <= set(logged)
    assert any(name.startswith("val/answering/accuracy/question_type/") for name in logged)
    versions = json.loads((toy_run / "environment.json").read_text())["versions"]
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert "toy" in (toy_run / "config.yaml").read_text()


def test_the_prediction_file_is_a_valid_submission_and_agrees_with_the_scores(toy, toy_run):
    questions = json.loads((toy[0] / "data" / "toy" / "vqa" / "minival.json").read_text())
    predictions = json.loads((toy_run / "predictions" / "minival.json").read_text())
    assert [p["question_id"] for p in predictions] == sorted(q["question_id"] for q in questions)
    assert all(type(p["question_id"]) is int and type(p["answer"]) is str for p in predictions)
    scores = np.load(toy_run / "predictions" / "minival_scores.npz")
    assert [p["answer"] for p in predictions] == scores["answers"][scores["answer"][:, 0]].tolist()
    assert scores["question_id"].tolist() == [p["question_id"] for p in predictions]
    assert (np.diff(scores["probability"], axis=1) <= 0).all()
    labels = {q["question_id"]: q["label"] for q in questions}
    accuracy = np.mean([labels[p["question_id"]].get(p["answer"], 0.0) for p in predictions])
    assert accuracy == pytest.approx(summary(toy_run)["metrics"]["test/answering/accuracy"], abs=1e-6)
    with (toy_run / "predictions" / "minival_answers.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    given = {p["question_id"]: p["answer"] for p in predictions}
    assert [(row["question"], row["answer_1"]) for row in table] == [
        (q["sent"], given[q["question_id"]]) for q in questions
    ]
    assert all(labels[int(row["id"])][row["truth"]] == max(labels[int(row["id"])].values()) for row in table)


def test_what_a_run_measures_is_what_its_prediction_file_scores_without_the_model(toy, toy_run, tmp_path):
    data, predictions = toy[0] / "data" / "toy" / "vqa", str(toy_run / "predictions" / "minival.json")
    minival, out = str(data / "minival.json"), tmp_path / "scores.json"
    annotations = str(data / "v2_mscoco_val2014_annotations.json")  # of nominival, too
    for metric, command in {
        "accuracy": ["own", predictions, minival],
        "official_accuracy": ["vqa", predictions, annotations, "--split", minival],
    }.items():
        assert evaluate([*command, "--json", str(out)]) == 0
        scored = json.loads(out.read_text())["metrics"]["accuracy"]
        assert scored == pytest.approx(100 * summary(toy_run)["metrics"][f"test/answering/{metric}"], abs=0.006)
    assert evaluate(["vqa", predictions, annotations]) == 1


def test_test_predict_and_validate_use_the_checkpoint_and_the_split_they_are_given(toy, toy_run):
    folder, overrides = toy
    best = f"checkpoint={toy_run}/checkpoints/best.ckpt"
    predicted = train(*overrides, "action=predict", "split=test", best, folder=folder)
    assert not list(predicted.rglob("*.ckpt"))  # an evaluation copies no weights
    questions = json.loads((folder / "data" / "toy" / "vqa" / "test.json").read_text())
    assert len(json.loads((predicted / "predictions" / "test.json").read_text())) == len(questions)
    validated = train(*overrides, "action=validate", "split=minival", best, folder=folder)
    assert summary(validated)["metrics"]["val/answering/accuracy"] == pytest.approx(
        summary(toy_run)["metrics"]["test/answering/accuracy"], abs=1e-6
    )


def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(toy, toy_run):
    folder, overrides = toy
    resumed = kill_and_resume(*overrides, NO_PAGE, "trainer.max_epochs=2", folder=folder)
    assert summary(resumed)["resumed_from"]
    assert checkpoint(resumed)["global_step"] == checkpoint(toy_run)["global_step"] == 26
    expected, found = weights(toy_run), weights(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_two_processes_train_as_one_with_the_same_global_batch(toy, toy_run):
    folder, overrides = toy
    still = ["model.hidden_dropout_prob=0", "model.attention_probs_dropout_prob=0", "trainer.max_steps=20"]
    one = train(*overrides, *still, NO_PAGE, "trainer.max_epochs=-1", folder=folder)
    two = fresh(*overrides, *still, "trainer.max_epochs=-1", "trainer.devices=2", folder=folder)
    for name, expected in weights(one).items():
        torch.testing.assert_close(weights(two)[name], expected, atol=1e-5, rtol=1e-5)
    ids = [p["question_id"] for p in json.loads((two / "predictions" / "minival.json").read_text())]
    assert len(ids) == len(set(ids)) == 40
    for name in ("val/answering/accuracy", "val/answering/official_accuracy", "test/answering/accuracy"):
        assert summary(one)["metrics"][name] == pytest.approx(summary(two)["metrics"][name], abs=1e-6)
    losses = [[float(row["train/loss"]) for row in metrics(run) if row["train/loss"]] for run in (one, two)]
    assert len(losses[0]) == len(losses[1]) == 20
    # Two processes log the loss of the first one's half batch unless it is averaged.
    assert losses[0] == pytest.approx(losses[1], abs=1e-5, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["bert_adam", "adamw"])
def test_the_settings_for_a_gpu_train_on_a_cpu_too(toy, optimizer):
    folder, overrides = toy
    gpu = [NO_PAGE, "trainer=gpu", "trainer.accelerator=cpu", f"optimizer={optimizer}", "optimizer.lr=1e-3"]
    run = train(*overrides, *gpu, "trainer.max_epochs=1", "trainer.gradient_clip_val=0.1", folder=folder)
    losses = [float(row["train/loss"]) for row in metrics(run) if row["train/loss"]]
    assert losses[-1] < losses[0]


def test_an_offline_wandb_run_holds_every_logged_metric_and_a_table_of_pictures(toy, toy_run):
    folder, overrides = toy
    run = train(*overrides, "logger=wandb", "trainer.max_epochs=1", folder=folder)
    [file] = run.glob("wandb/offline-run-*/run-*.wandb")
    records = list(wandb_records(file))
    history = {item.key or item.nested_key[0] for record in records for item in record.history.item}
    config = "".join(str(record.config) for record in records if record.HasField("config"))
    logged = {name for row in metrics(run) for name, value in row.items() if value} - {"step", "epoch"}
    assert logged - history == set()
    assert {"train/rows_per_s", "train/data_wait", "val/examples"} <= history
    assert "initializer_range" in config
    [table] = [record.artifact for record in records if record.HasField("artifact")]
    pictures = [Path(item.local_path) for item in table.manifest.contents if item.path.startswith("media/images/")]
    assert pictures and all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def wandb_records(path):
    """The records of an offline run: a log in blocks of 32 KiB, each piece with checksum, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.mark.skipif(not SHARED.exists(), reason="the real files of ../shared/data are not there")
def test_the_real_coco10_files_are_learnt_by_the_same_command(tmp_path):
    data = tmp_path / "data"
    for source, target in {
        "coco10/vqa/train.json": "vqa/train.json",
        "coco10/vqa/minival.json": "vqa/minival.json",
        "coco10/official/annotations.json": "vqa/v2_mscoco_train2014_annotations.json",
        "coco10/train2014_obj36.tsv": "mscoco_imgfeat/train2014_obj36.tsv",
        "coco10/images": "images",
    }.items():
        (data / target).parent.mkdir(parents=True, exist_ok=True)
        (data / target).symlink_to(SHARED / source)
    overrides = [
        "experiment=vqa", "model=toy", "model.visual_feat_dim=2048", "trainer=cpu", "trainer.max_epochs=60",
        "trainer.check_val_every_n_epoch=30", "warmup=0.4",
        f"data.tokenizer={SHARED}/vocab/bert_uncased_vocab.txt", "data.train=[train]", "data.workers=0",
        "data.batch_size=20", "optimizer.lr=1e-3", "data.valid=[train]", "data.test=[minival]",
        "model.hidden_size=64", "model.intermediate_size=128", "model.l_layers=1", "model.x_layers=1",
    ]  # fmt: skip
    run = train(*overrides, folder=tmp_path)
    found = summary(run)["metrics"]
    assert found["val/answering/accuracy"] >= 0.95
    assert found["val/answering/official_accuracy"] >= 0.95
    questions = json.loads((SHARED / "coco10" / "vqa" / "minival.json").read_text())
    predictions = json.loads((run / "predictions" / "minival.json").read_text())
    assert {p["question_id"] for p in predictions} == {q["question_id"] for q in questions}
    assert (run / "report.html").read_text().count("data:image/jpeg") > 0


def test_an_empty_data_folder_says_what_is_missing_and_where_it_comes_from(tmp_path):
    said = train("experiment=vqa", "trainer=cpu", folder=tmp_path, fails=True)
    for part in ("vqa/train.json", "train2014_obj36.tsv", "github.com/airsplay/lxmert", "experiment=toy_vqa"):
        assert part in said


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["experiment=toy_vqa", "trianer.devices=2"], "trianer"),
        (["experiment=toy_vqa", "model.hiden_size=8"], "hiden_size"),
        (["experiment=toy_vqa", "action=evaluate"], "expected one of fit, validate, test, predict"),
        (["experiment=toy_vqa", "action=test"], "needs checkpoint=PATH"),
        (["experiment=toy_vqa", "action=test", "checkpoint=nowhere.ckpt"], "nowhere.ckpt does not exist"),
        (
            ["experiment=toy_vqa", "+objective.matching.weight=2"],
            "objective.matching is configured but not selected",
        ),
    ],
)
def test_a_mistaken_command_gets_one_clear_error(tmp_path, overrides, expected):
    assert expected in train(*overrides, folder=tmp_path, fails=True)


def test_a_checkpoint_of_another_architecture_or_answer_list_is_refused_with_the_difference(toy, toy_run):
    folder, overrides = toy
    best = f"checkpoint={toy_run}/checkpoints/best.ckpt"
    said = train(*overrides, "action=test", best, "model.x_layers=2", folder=folder, fails=True)
    assert "x_layers: 1 in the checkpoint, 2 in this run; set model.x_layers=1" in said
    answers = folder / "data" / "toy" / "vqa" / "trainval_label2ans.json"
    answers.write_text(json.dumps(["yes", "no", "mauve"]))
    try:
        said = train(*overrides, "action=test", best, folder=folder, fails=True)
    finally:
        answers.unlink()
    assert "only in the data (1): ['mauve']" in said
    said = train(*overrides, "split=nowhere", "action=test", best, folder=folder, fails=True)
    assert "unknown split 'nowhere'" in said and "minival" in said


def test_a_run_goes_on_with_no_other_vocabulary_though_as_large(toy, toy_run, tmp_path):
    folder, overrides = toy
    pieces = (toy_run / "vocab.txt").read_text().splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*pieces[:5], *reversed(pieces[5:])]))
    other = [*overrides, f"data.tokenizer={tmp_path}/vocab.txt"]
    for command in (["action=test", f"checkpoint={toy_run}"], [f"resume={toy_run}", "trainer.max_epochs=3"]):
        said = train(*other, *command, folder=folder, fails=True)
        assert f"vocabulary: {len(pieces)} word pieces, SHA-256" in said and "Traceback" not in said
    assert (toy_run / "vocab.txt").read_text().splitlines() == pieces  # nothing of the run was replaced


def test_fine_tuning_starts_from_the_weights_it_is_given(toy, toy_run):
    folder, overrides = toy
    init = f"init={toy_run}/checkpoints/best.ckpt"
    run = train(*overrides, init, NO_PAGE, "optimizer.lr=0", "trainer.max_epochs=1", folder=folder)
    expected = weights(toy_run, "best")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(run).items())
    said = train(*overrides, init, "model.hidden_size=16", folder=folder, fails=True)
    assert "encoder weights would keep random values" in said
