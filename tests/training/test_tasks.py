"""Pre-training and what follows it through train.py: tiny toy worlds up to the makers' scores, real pictures."""

import json

import numpy as np
import pytest
import torch
from runs import NO_PAGE, SHARED, TINY, checkpoint, kill_and_resume, metrics, said, summary, train, weights

from lxmert.evaluate import TASKS, check_submission, read_ids
from lxmert.evaluate import __main__ as evaluate

TOY = ["data.world.train=14", "data.world.minival=5", "data.world.nominival=2", "data.world.test=2"]
WORLD = {
    "toy_pretrain": [*TOY, "data.world.pictures=1"],
    "toy_vqa": [*TOY, "data.world.pictures=1"],
    "toy_gqa": ["data.world.train=16", "data.world.valid=2", "data.world.testdev=4", "data.world.pictures=1"],
    "toy_nlvr2": ["data.world.train=6", "data.world.valid=2", "data.world.test=3", "data.world.pictures=1"],
}

NO_CURVES = "callbacks.curves=null"  # whose curves take as long as the training


def experiment(name):
    """Overrides for a tiny run on a tiny world, which the first run generates."""
    short = ["data.batch_size=16", "trainer.max_epochs=2", "trainer.log_every_n_steps=1"]
    return [f"experiment={name}", *TINY, *WORLD[name], *short]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def pretrained(folder):
    return train(*experiment("toy_pretrain"), folder=folder)


@pytest.fixture(scope="module")
def gqa(folder, pretrained):
    """A run, and what it said."""
    init = f"init={pretrained}/checkpoints/best.ckpt"
    return train(*experiment("toy_gqa"), init, NO_PAGE, folder=folder), said(folder)


@pytest.fixture(scope="module")
def nlvr2(folder, pretrained):
    """A run of two processes, and what it said."""
    init = f"init={pretrained}/checkpoints/best.ckpt"
    return train(*experiment("toy_nlvr2"), init, "trainer.devices=2", folder=folder), said(folder)


# -------------------------------------------------------------------------------------------- pre-training


LOSSES = {"masked_language", "matching", "object", "attribute", "feature", "question_answering"}


def test_pre_training_logs_each_objective_and_leaves_a_page_and_weights(pretrained):
    logged = summary(pretrained)["metrics"]
    for stage in ("train", "val", "test"):
        assert {name.split("/")[2] for name in logged if name.startswith(f"{stage}/loss/")} == LOSSES
        assert logged[f"{stage}/loss"] == pytest.approx(sum(logged[f"{stage}/loss/{n}"] for n in LOSSES), rel=1e-5)
    for name in ("masked_language/perplexity", "matching/accuracy/source/vg", "masked_region/object_accuracy",
                 "masked_region/attribute_accuracy", "masked_region/feature_loss",
                 "question_answering/accuracy/source/gqa", "question_answering/accuracy_as_original"):  # fmt: skip
        assert f"val/{name}" in logged
    assert not [name for name in logged if "source/vqa" in name]  # kept for fine-tuning
    assert set(checkpoint(pretrained, "best")["lxmert_config"]["answers"]) > {"yes", "no", "red"}
    assert "<svg" in (pretrained / "report.html").read_text()
    assert not (pretrained / "predictions").exists()


def test_pre_training_in_two_processes_is_that_of_one(folder, pretrained):
    two = train(*experiment("toy_pretrain"), "trainer.devices=2", NO_CURVES, folder=folder)
    # A loss is a mean over what a process has to find, which the halves of a batch weigh a little differently.
    losses = [[float(row["train/loss"]) for row in metrics(run) if row["train/loss"]] for run in (pretrained, two)]
    assert len(losses[0]) == len(losses[1]) == checkpoint(two)["global_step"]
    assert losses[1] == pytest.approx(losses[0], rel=0.2)
    assert np.mean(losses[1]) == pytest.approx(np.mean(losses[0]), rel=0.02)
    best = f"checkpoint={two}/checkpoints/best.ckpt"
    tested = train(*experiment("toy_pretrain"), "action=test", best, NO_CURVES, folder=folder)
    measured = [
        {name: v for name, v in summary(run)["metrics"].items() if name.startswith("test/") and "loss" not in name}
        for run in (tested, two)
    ]
    assert len(measured[0]) > 15
    assert measured[1] == pytest.approx(measured[0], abs=1e-5, rel=1e-5)


def test_killed_pre_training_resumes_to_the_weights_of_an_uninterrupted_run(folder, pretrained):
    resumed = kill_and_resume(*experiment("toy_pretrain"), NO_CURVES, folder=folder)
    assert summary(resumed)["resumed_from"]
    expected, found = weights(pretrained), weights(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    left = [row for row in metrics(pretrained) if row["train/loss/masked_language"]]
    gone_on = [row for row in metrics(resumed) if row["train/loss/masked_language"]]
    assert len(gone_on) == len(left) > 0
    for before, after in zip(left[-len(gone_on) :], gone_on, strict=True):
        assert all(before[f"train/loss/{name}"] == after[f"train/loss/{name}"] for name in LOSSES)


@pytest.mark.skipif(not SHARED.exists(), reason="the real files of ../shared/data are not there")
def test_every_loss_falls_on_real_captions_questions_and_regions(tmp_path):
    data = tmp_path / "data"
    for name in ("lxmert", "mscoco_imgfeat"):
        (data / name).mkdir(parents=True)
    (data / "mscoco_imgfeat" / "train2014_obj36.tsv").symlink_to(SHARED / "coco10" / "train2014_obj36.tsv")
    entries = json.loads((SHARED / "coco10" / "lxmert" / "coco10.json").read_text())
    # All 33 sentences of three pictures in each batch: of ten pictures, matching needs many more steps.
    (data / "lxmert" / "coco10.json").write_text(json.dumps(entries[:3]))
    run = train(
        "experiment=pretrain", "recipe=released", "trainer=cpu", "trainer.max_epochs=80", "data.batch_size=33",
        "trainer.log_every_n_steps=1", "trainer.check_val_every_n_epoch=80", "optimizer=adamw", "warmup=0.1",
        "optimizer.lr=3e-3", "model=toy", "model.hidden_size=48", "model.intermediate_size=96", "model.l_layers=1",
        "model.x_layers=1", "model.initializer_range=0.2", "model.visual_feat_dim=2048",
        "model.num_object_labels=1600", "model.num_attr_labels=400", "data.train=coco10", "data.valid=coco10",
        "data.test=coco10", "data.sources.vg=0", "data.sources.gqa=0", "data.sources.visual7w=0", "data.workers=0",
        NO_CURVES, f"data.tokenizer={SHARED}/vocab/bert_uncased_vocab.txt",
        folder=tmp_path,
    )  # fmt: skip
    for name in LOSSES:
        values = [float(row[f"train/loss/{name}"]) for row in metrics(run) if row[f"train/loss/{name}"]]
        first, last = np.mean(values[:10]), np.mean(values[-15:])
        assert last < 0.85 * first, (name, first, last)
        assert name != "matching" or last < 0.67  # a guess has 0.693
    assert summary(run)["metrics"]["val/question_answering/accuracy"] > 0.5


# ------------------------------------------------------------------------------------------ from pre-training


def test_vqa_starts_from_pre_training_with_its_answers_matched_by_text(folder, pretrained):
    init = f"init={pretrained}/checkpoints/best.ckpt"
    run = train(*experiment("toy_vqa"), init, NO_PAGE, "optimizer.lr=0", "trainer.max_epochs=1", folder=folder)
    check_transfer(pretrained, run, said(folder))


def check_transfer(pretrained, run, text):
    """One report, of everything loaded; after training with a rate of zero every number is the pre-trained one."""
    assert text.count("tensors loaded") == 1 and "missing" not in text
    before, after = weights(pretrained, "best"), weights(run)
    theirs = checkpoint(pretrained, "best")["lxmert_config"]["answers"]
    ours = checkpoint(run)["lxmert_config"]["answers"]
    matched = [answer for answer in ours if answer in theirs]
    assert f"answer head: {len(matched)} of {len(ours)} answers found by text" in text and len(matched) > 5
    assert theirs[: len(ours)] != ours  # by place they would be other answers
    for name, tensor in after.items():
        old = before[name.replace(".answering.", ".question_answering.")]
        if name.startswith("objectives.answering.head.logit_fc.3."):
            rows = [old[theirs.index(a)] if a in theirs else torch.zeros_like(old[0]) for a in ours]
            old = torch.stack(rows)
        assert torch.equal(tensor, old), name


def test_gqa_starts_from_pre_training_with_its_answers_matched_by_text(gqa):
    run, text = gqa
    assert text.count("tensors loaded") == 1 and "missing" not in text
    answers = checkpoint(run)["lxmert_config"]["answers"]
    assert f"answer head: {len(answers)} of {len(answers)} answers found by text" in text


def test_nlvr2_starts_from_pre_training_with_a_new_head(pretrained, nlvr2):
    _, text = nlvr2
    assert text.count("tensors loaded") == 1 and "answer head" not in text  # of two processes the first tells
    assert "6 missing, left at their initial values: pair_head (6)" in text
    assert "lxmert." not in text[text.index("6 missing") : text.index("not used")]


# ------------------------------------------------------------------------------------------ submissions, scores


def scores_of(arguments, out):
    """What `python -m lxmert.evaluate` gives, by the names that a run logs and as shares."""
    assert evaluate.main([*map(str, arguments), "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    scores = {}
    for name, value in report["metrics"].items():
        subset, _, metric = name.rpartition("/")
        scores[f"{metric}/subset/{subset}" if subset else metric] = value / (
            1 if metric == "distribution" else 100
        )
    for kind, groups in report["groups"].items():
        scores |= {f"accuracy/{kind}/{value}": group["score"] / 100 for value, group in groups.items()}
    return scores


def official(run):
    logged = summary(run)["metrics"]
    return {
        name.removeprefix("test/official/"): v for name, v in logged.items() if name.startswith("test/official/")
    }


def test_gqa_is_scored_as_its_makers_do_from_a_valid_submission(folder, gqa, tmp_path):
    run, _ = gqa
    data = folder / "data" / "toy_gqa" / "gqa"
    submission = run / "predictions" / "testdev_all.json"
    ids = [row["questionId"] for row in json.loads(submission.read_text())]
    assert ids == sorted(ids) == np.load(run / "predictions" / "testdev_all_scores.npz")["question_id"].tolist()
    for questions in ("testdev_all_questions.json", "testdev_all.json"):
        assert (
            check_submission(
                TASKS["gqa"], TASKS["gqa"].read_submission(submission), read_ids(TASKS["gqa"], data / questions)
            )
            == []
        )
    found = official(run)
    expected = scores_of(
        ["gqa", submission, data / "testdev_balanced_questions.json", "--choices", data / "testdev_choices.json",
         "--all-questions", data / "testdev_all_questions.json"],
        tmp_path / "scores.json",
    )  # fmt: skip
    assert {"accuracy", "binary", "open", "validity", "plausibility", "consistency", "distribution"} <= set(found)
    assert any(name.startswith("accuracy/structural/") for name in found)
    assert found.pop("distribution") == pytest.approx(expected.pop("distribution"), abs=0.006)  # of two decimals
    assert found == pytest.approx(expected, abs=1e-4)


def test_gqa_balanced_questions_alone_are_predicted_to_the_same_score(folder, gqa):
    run, _ = gqa
    best = f"checkpoint={run}/checkpoints/best.ckpt"
    predicted = train(*experiment("toy_gqa"), "action=predict", best, folder=folder)
    submission = predicted / "predictions" / "testdev.json"
    data = folder / "data" / "toy_gqa" / "gqa"
    ids = read_ids(TASKS["gqa"], data / "testdev_balanced_questions.json")
    rows = TASKS["gqa"].read_submission(submission)
    assert check_submission(TASKS["gqa"], rows, ids) == []
    questions = json.loads((data / "testdev_balanced_questions.json").read_text())
    accuracy = np.mean([row["prediction"] == questions[row["questionId"]]["answer"] for row in rows])
    assert official(run)["accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_nlvr2_is_scored_as_its_makers_do_from_a_valid_submission(folder, nlvr2, tmp_path):
    run, _ = nlvr2
    data = folder / "data" / "toy_nlvr2" / "nlvr2"
    submission = run / "predictions" / "test.csv"
    order = [line.split(",")[0] for line in submission.read_text().splitlines()]
    assert order == sorted(order) == np.load(run / "predictions" / "test_scores.npz")["question_id"].tolist()
    for statements in ("official/test1.json", "test.json"):
        ids = read_ids(TASKS["nlvr2"], data / statements)
        assert check_submission(TASKS["nlvr2"], TASKS["nlvr2"].read_submission(submission), ids) == []
    found = official(run)
    expected = scores_of(
        ["nlvr2", submission, data / "official" / "test1.json", "--balanced",
         data / "official" / "balanced_test1.json", "--unbalanced", data / "official" / "unbalanced_test1.json"],
        tmp_path / "scores.json",
    )  # fmt: skip
    assert {"accuracy", "consistency", "accuracy/subset/balanced", "consistency/subset/unbalanced"} <= set(found)
    assert found == pytest.approx(expected, abs=1e-4)
    assert summary(run)["metrics"]["test/image_pair/accuracy"] == pytest.approx(found["accuracy"], abs=1e-6)


def test_one_process_tests_as_two_did(folder, nlvr2):
    run, _ = nlvr2
    best = f"checkpoint={run}/checkpoints/best.ckpt"
    tested = train(*experiment("toy_nlvr2"), "action=test", best, NO_PAGE, folder=folder)
    assert official(tested) == pytest.approx(official(run), abs=1e-6)
    one, two = (np.load(each / "predictions" / "test_scores.npz") for each in (tested, run))
    assert one["question_id"].tolist() == two["question_id"].tolist()
    assert one["answers"].tolist() == ["False", "True"]
    by_text = [np.take_along_axis(each["probability"], each["answer"].argsort(1), 1) for each in (one, two)]
    np.testing.assert_allclose(*by_text, atol=1e-5)


def test_the_page_of_a_statement_shows_both_of_its_pictures(folder, nlvr2):
    run, _ = nlvr2
    html = (run / "report.html").read_text()
    assert html.count("<div class='card") == 24
    assert html.count("<div class='picture'>") == 48
    assert "validation accuracy" in html and "best guess from the text alone" in html
    assert "official, subset: balanced" in html
