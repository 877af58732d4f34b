"""Experiments as they are but in size, on several processes; stopped, and gone on with on more of them."""

import json
import signal

import pytest
import torch
from runs import NO_PAGE, ROOT, checkpoint, latest, metrics, said, start, stopped, summary, train, weights

SIZES = [
    "model.hidden_size=32",
    "model.num_attention_heads=2",
    "model.intermediate_size=64",
    "model.l_layers=1",
    "model.x_layers=1",
    "data.world.pictures=1",
]
VQA = ["data.world.train=20", "data.world.minival=9", "data.world.nominival=4", "data.world.test=4"]
WORLD = {
    "toy_vqa": [*VQA, "data.batch_size=12"],
    "toy_gqa": [
        "data.world.train=12",
        "data.world.valid=5",
        "data.world.testdev=7",
        "data.batch_size=12",
        NO_PAGE,
    ],
    "toy_nlvr2": ["data.world.train=8", "data.world.valid=5", "data.world.test=5", "data.batch_size=12", NO_PAGE],
    "toy_snli_ve": [
        "data.world.train=30",
        "data.world.dev=12",
        "data.world.test=12",
        "data.batch_size=12",
        NO_PAGE,
    ],
    "toy_refcoco": [
        "data.world.train=18",
        "data.world.val=6",
        "data.world.testA=5",
        "data.world.testB=4",
        "data.batch_size=12",
        NO_PAGE,
    ],
    "toy_visual7w": [
        "data.world.train=12",
        "data.world.val=5",
        "data.world.testA=3",
        "data.batch_size=6",
        NO_PAGE,
    ],
    "toy_retrieval": ["data.world.train=20", "data.world.val=6", "data.world.test=7", "data.batch_size=12"],
    "toy_pretrain": [*VQA, "data.batch_size=18", "callbacks.curves=null"],
}
TIMES = ["trainer.log_every_n_steps=3", "trainer.max_epochs=2", "callbacks.last.every_n_train_steps=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


def test_no_experiment_on_a_toy_is_left_out():
    there = {path.stem for path in (ROOT / "conf" / "experiment").glob("toy_*.yaml")}
    assert there == {*WORLD, "toy_pretrain_long"}  # which is toy_pretrain with more epochs


@pytest.mark.parametrize("experiment", WORLD)
def test_an_experiment_is_stopped_on_two_processes_and_goes_on_with_three(folder, experiment):
    command = [f"experiment={experiment}", *SIZES, *WORLD[experiment], *TIMES]
    one = train(*command, folder=folder)
    two = [*command, "trainer.devices=2"]
    assert stopped(*two, folder=folder, at="epoch 1, step 3 of") == 143, said(folder)
    run = latest(folder)
    assert run != one and 3 <= checkpoint(run)["global_step"] < checkpoint(one)["global_step"]
    assert train(*command, "trainer.devices=3", "resume=last", folder=folder) == run
    assert "trained by 2 process(es) up to here, goes on with 3" in said(folder)
    noted = json.loads((run / "environment.json").read_text())  # what began it is kept
    assert "trainer.devices=2" in noted["command"]
    assert ["trainer.devices=3" in each for each in noted["gone_on_by"]] == [True]
    assert checkpoint(run)["global_step"] == checkpoint(one)["global_step"]
    if experiment == "toy_pretrain":  # whose losses are means over what each process has to find
        return
    for name, expected in weights(one).items():  # without dropout, three processes add up what one does
        if not name.endswith(".key.bias"):  # a softmax takes it out: its gradient is noise, which AdamW enlarges
            torch.testing.assert_close(weights(run)[name], expected, atol=2e-4, rtol=1e-3, msg=name)
    expected, found = (
        [(row["step"], row["train/loss"]) for row in metrics(r) if row["train/loss"]] for r in (one, run)
    )
    assert [step for step, _ in expected] == [step for step, _ in found]
    for (_, first), (_, second) in zip(expected, found, strict=True):
        assert float(first) == pytest.approx(float(second), rel=1e-3)
    expected, found = (summary(r)["metrics"] for r in (one, run))
    assert expected.keys() == found.keys()
    for name in ("val/loss", "test/loss"):  # of rows that the processes do not share evenly
        assert found[name] == pytest.approx(expected[name], rel=2e-3)


def test_the_settings_of_long_jobs_work_together_on_two_processes(folder):
    command = ["experiment=toy_vqa", *SIZES, *WORLD["toy_vqa"], *TIMES, "trainer.accumulate_grad_batches=3"]
    command += ["trainer.val_check_interval=0.5", "data.workers=1", "optimizer.lr=1e-4"]
    command += ["data.test=[nominival,minival]"]
    runs = [train(*command, f"trainer.devices={count}", folder=folder) for count in (1, 2)]
    for run in runs:  # 10 batches by threes, of which one is left over
        assert checkpoint(run)["global_step"] == 2 * 4
    # After whole steps: every 3 batches, where half an epoch would be 5.
    assert len([row for row in metrics(runs[0]) if row.get("val/loss")]) == 2 * 3
    for name, expected in weights(runs[0]).items():
        if not name.endswith(".key.bias"):
            torch.testing.assert_close(weights(runs[1])[name], expected, atol=2e-4, rtol=1e-3, msg=name)
    for split, scenes in {"nominival": 4, "minival": 9}.items():  # of each split a file with all of its rows
        questions = json.loads((folder / "data" / "toy" / "vqa" / f"{split}.json").read_text())
        assert len(questions) == 5 * scenes
        for run in runs:
            rows = json.loads((run / "predictions" / f"{split}.json").read_text())
            assert [row["question_id"] for row in rows] == sorted(row["question_id"] for row in questions)


def test_latest_is_the_run_before_to_every_process(folder):
    command = ["experiment=toy_vqa", *SIZES, *WORLD["toy_vqa"], *TIMES, "trainer.devices=2", NO_PAGE]
    run = train(*command, "trainer.max_epochs=1", folder=folder)
    before = folder / "outputs" / "latest"
    tested = train(*command, "action=test", f"checkpoint={before}", folder=folder)
    assert tested != run and summary(tested)["checkpoint"] == str(run / "checkpoints" / "best.ckpt")
    (folder / "outputs" / "latest").unlink()
    before.symlink_to(run)
    started = train(*command, f"init={before}", f"data.tokenizer={before}", folder=folder)
    assert started not in (run, tested) and "tensors loaded" in said(folder)


def test_nan_on_two_processes_ends_both_with_one_clear_error(folder):
    command = ["experiment=toy_vqa", *SIZES, *WORLD["toy_vqa"], *TIMES, "optimizer.lr=1e6", "warmup=0"]
    process = start(*command, "trainer.devices=2", "trainer.max_epochs=20", folder=folder)
    process.join(120)
    assert process.exitcode not in (0, None)
    assert "is not finite" in said(folder)


def test_ctrl_c_reaches_every_process_and_they_stop_after_the_same_step(folder):
    command = ["experiment=toy_vqa", *SIZES, *WORLD["toy_vqa"], *TIMES, "trainer.devices=2"]
    status = stopped(*command, folder=folder, at="epoch 1, step 2 of", by=signal.SIGINT, group=True)
    assert status == 130 and "go on with resume=" in said(folder) and "ERROR" not in said(folder)
    assert checkpoint(latest(folder))["global_step"] >= 2
