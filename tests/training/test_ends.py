"""Every way in which a run ends or goes on: what it leaves, what it says, its exit status."""

import json
import os
import re
import shutil
import signal

import pytest
import torch
from runs import (
    NO_PAGE,
    TINY,
    checkpoint,
    latest,
    metrics,
    said,
    start,
    stopped,
    summary,
    train,
    weights,
)

from train import folder_or_exit, main

WORLD = ["data.world.train=40", "data.world.minival=8", "data.world.nominival=4", "data.world.test=4",
         "data.world.pictures=1"]  # fmt: skip
TOY = ["experiment=toy_vqa", *TINY, *WORLD, "data.batch_size=16", "data.eval_batch_size=12"]
# Values in between, as users have them: 13 steps an epoch, logged at every third, saved at every fourth.
USUAL = [*TOY, "trainer.log_every_n_steps=3", "callbacks.last.every_n_train_steps=4", "trainer.max_epochs=2"]
BARE = [*USUAL, NO_PAGE]
STEPS = 13


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ends")


@pytest.fixture(scope="module")
def whole(folder):
    """An uninterrupted run."""
    return train(*USUAL, folder=folder)


def same_run(expected, found):
    """Whether two runs have learnt, kept and predicted the same, bit for bit."""
    for name in ("last", "best"):
        one, other = checkpoint(expected, name), checkpoint(found, name)
        assert one["global_step"] == other["global_step"], name
        assert all(torch.equal(tensor, other["state_dict"][key]) for key, tensor in one["state_dict"].items())
        assert_equal(one["optimizer_states"], other["optimizer_states"])
        assert_equal(one["lr_schedulers"], other["lr_schedulers"])
    assert (expected / "predictions/minival.json").read_text() == (found / "predictions/minival.json").read_text()
    one, other = (
        {name: value for name, value in summary(run)["metrics"].items() if name not in TIMES}
        for run in (expected, found)
    )
    assert one == other
    assert logged(expected) == logged(found)


TIMES = ("train/rows_per_s", "train/data_wait")


def logged(run):
    """What was logged, but for times: (step, name, value), each once."""
    rows = [
        (int(row["step"]), name, value)
        for row in metrics(run)
        for name, value in row.items()
        if value and name not in ("step", "epoch", *TIMES)
    ]
    assert len(rows) == len(set(rows))
    return sorted(rows)


def assert_equal(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_equal(first, second)
    else:
        assert one == other


# ---------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        (["trainer.max_steps=15", "trainer.max_epochs=-1"], 15),
        (["trainer.limit_train_batches=5", "trainer.max_epochs=1"], 5),
        (["trainer.max_steps=2"], 2),
        (["trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2"], 3 * STEPS),
        (["trainer.max_time='00:00:00:01'", "trainer.max_epochs=1000"], None),
        (["trainer.limit_val_batches=0"], 2 * STEPS),
        (["data.valid=[]"], 2 * STEPS),
        (["trainer.fast_dev_run=true"], 1),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_the_last_step_of_every_fit_is_kept_tested_and_summed_up(folder, whole, overrides, steps):
    run = train(*USUAL, *overrides, folder=folder)
    found = summary(run)
    assert checkpoint(run)["global_step"] == found["steps"] > 0 and steps in (None, found["steps"])
    assert found["checkpoint"].startswith(str(run)) and 0 <= found["metrics"]["test/answering/accuracy"] <= 1
    assert not list((run / "checkpoints").glob(".*"))


def test_a_fit_without_a_logger_and_with_early_stopping_ends_well(folder, whole):
    stop = (
        "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, "
        "monitor: val/answering/accuracy, patience: 0, mode: min}"
    )
    run = train(*USUAL, "~logger.csv", stop, "trainer.max_epochs=5", folder=folder)
    assert checkpoint(run)["global_step"] == 2 * STEPS and summary(run)["metrics"]
    assert not (run / "logs").exists()


def test_nan_stops_the_run_with_the_batch_and_leaves_the_last_good_weights(folder, whole):
    message = train(*BARE, "optimizer.lr=1e6", "warmup=0", "trainer.max_epochs=20", folder=folder, fails=True)
    for part in (
        "is not finite",
        "losses: answering",
        r"examples: \d+, \d+",
        r"images: \w+, \w+",
        "last good checkpoint",
    ):
        assert re.search(part, message), message
    for path in (latest(folder) / "checkpoints").glob("*.ckpt"):
        assert all(torch.isfinite(tensor).all() for tensor in weights(latest(folder), path.stem).values())


def test_json_files_hold_null_where_a_number_is_not_finite():
    from lxmert.runs.folder import json_text

    assert json.loads(json_text({"a": [float("nan"), 1.5], "b": {"c": float("inf")}})) == {
        "a": [None, 1.5],
        "b": {"c": None},
    }


# ------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(("by", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_says_how_to_go_on_and_the_run_goes_on_bit_for_bit(folder, whole, by, status):
    assert stopped(*USUAL, folder=folder, at="step 1 of 26", by=by) == status
    run = latest(folder)
    text = said(folder)
    assert by.name in text and f"go on with resume={run}" in text and not (run / "summary.json").exists()
    assert train(*USUAL, "resume=last", folder=folder) == run
    same_run(whole, run)
    assert "resumed_from" in summary(run)


@pytest.mark.parametrize("at", ["step 4 of 26", "step 5 of 26"])
def test_the_values_of_the_step_that_a_run_was_stopped_after_are_logged(folder, at):
    each = [*BARE, "trainer.log_every_n_steps=1"]
    assert stopped(*each, folder=folder, at=at) == 143
    steps = checkpoint(latest(folder))["global_step"]
    rows = [int(row["step"]) for row in metrics(latest(folder)) if row.get("train/loss")]
    assert rows == list(range(steps))


def test_validations_come_after_whole_steps_and_a_run_stopped_in_one_goes_on_bit_for_bit(folder):
    between = [
        *BARE,
        "trainer.accumulate_grad_batches=2",
        "trainer.val_check_interval=5",
        "data.eval_batch_size=1",
    ]
    expected = train(*between, folder=folder)
    assert "validations come every 4 batches" in said(folder)
    assert stopped(*between, folder=folder, at="validation after step 4") == 143
    run = latest(folder)
    train(*between, f"resume={run}", folder=folder)
    same_run(expected, run)


def test_a_run_that_stopped_early_is_over_unless_more_patience_is_asked_for(folder):
    patient = [*BARE, "callbacks=early_stopping", "trainer.max_epochs=9", "optimizer.lr=0"]
    expected = train(*patient, "callbacks.early_stopping.patience=1", folder=folder)
    assert checkpoint(expected)["global_step"] == 2 * STEPS and "stopped early" in said(folder)
    run = folder / "outputs" / "stopped_early"
    shutil.copytree(expected, run)
    (run / "summary.json").unlink()
    train(*patient, "callbacks.early_stopping.patience=1", f"resume={run}", folder=folder)
    assert "stopped early" in said(folder)
    same_run(expected, run)
    train(*patient, "callbacks.early_stopping.patience=3", f"resume={run}", folder=folder)
    assert checkpoint(run)["global_step"] == 4 * STEPS


def test_a_copied_run_keeps_its_own_best(folder, whole):
    one, two = (folder / "outputs" / name for name in ("one", "two"))
    shutil.copytree(whole, one)
    train(*BARE, f"resume={one}", folder=folder)  # its best is the file in its own folder
    shutil.copytree(one, two)
    (one / "checkpoints" / "best.ckpt").write_text("a later one")
    best = (two / "checkpoints" / "best.ckpt").read_bytes()
    train(*BARE, f"resume={two}", folder=folder)
    assert (two / "checkpoints" / "best.ckpt").read_bytes() == best


def test_a_run_killed_in_its_test_is_summed_up_as_the_uninterrupted_one(folder, whole):
    run = folder / "outputs" / "copy"
    shutil.copytree(whole, run)
    (run / "summary.json").unlink()  # what the end of a run adds
    shutil.rmtree(run / "predictions")
    train(*USUAL, f"resume={run}", folder=folder)
    same_run(whole, run)


def test_a_signal_within_a_validation_repeats_the_validation_alone(folder, whole):
    slow = ["data.eval_batch_size=1"]
    expected = train(*BARE, *slow, folder=folder)
    assert stopped(*BARE, *slow, folder=folder, at="validation after step 13") == 143
    run = latest(folder)
    state = checkpoint(run)
    assert state["global_step"] == STEPS and state["validation_due"]
    train(*BARE, *slow, f"resume={run}", folder=folder)
    same_run(expected, run)


def test_a_signal_in_the_last_validation_is_no_lost_validation_either(folder, whole):
    slow = ["data.eval_batch_size=1"]
    assert stopped(*BARE, *slow, folder=folder, at="validation after step 26") == 143
    run = latest(folder)
    assert checkpoint(run)["global_step"] == 2 * STEPS and checkpoint(run)["validation_due"]
    train(*BARE, *slow, f"resume={run}", folder=folder)
    assert (run / "predictions/minival.json").read_text() == (whole / "predictions/minival.json").read_text()
    assert summary(run)["metrics"]["val/answering/accuracy"] == summary(whole)["metrics"]["val/answering/accuracy"]


def test_a_requeued_slurm_job_goes_on_in_its_folder(folder, whole, tmp_path):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $@ > {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    job = {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    status = stopped(*BARE, folder=folder, at="step 1 of 26", by=signal.SIGUSR1, variables=job)
    assert status == 128 + signal.SIGUSR1 and (tmp_path / "asked").read_text() == "requeue 77\n"
    assert "SLURM starts the job again" in said(folder)
    run = latest(folder)
    assert run.name == "slurm-77-0"
    assert train(*BARE, folder=folder, variables=job | {"SLURM_RESTART_COUNT": "1"}) == run
    same_run(whole, run)


# ------------------------------------------------------------------------------------------ going on


def test_auto_starts_goes_on_and_starts_again(folder, whole):
    command = [*USUAL, "seed=3", "resume=auto", "logger=wandb"]
    assert stopped(*command, folder=folder, at="step 1 of 26") == 143
    first = latest(folder)
    assert train(*command, folder=folder) == first  # goes on
    ids = {path.stem for path in first.glob("wandb/offline-run-*/*.wandb")}
    assert len(list(first.glob("wandb/offline-run-*"))) == 2 and len(ids) == 1
    assert train(*command, folder=folder) != first  # that one has ended


def test_a_resumed_run_with_other_settings_is_refused_with_the_difference(folder, whole):
    assert stopped(*BARE, folder=folder, at="step 1 of 26") == 143
    run = latest(folder)
    kept = [run / name for name in ("config.yaml", "environment.json", "checkpoints/last.ckpt")]
    before = [path.read_bytes() for path in kept]
    message = train(*BARE, "optimizer.lr=1e-5", "data.batch_size=20", f"resume={run}", folder=folder, fails=True)
    assert before == [path.read_bytes() for path in kept]
    assert "optimizer.lr: 0.001 in the checkpoint, 1e-05 now" in message
    assert "data.batch_size: 16 in the checkpoint, 20 now" in message and "init=" in message
    longer = train(*BARE, "trainer.max_epochs=3", f"resume={run}", folder=folder)
    assert checkpoint(longer)["global_step"] == 3 * STEPS
    assert "trainer.max_epochs was 2 until here and is 3 from here on" in said(folder)
    rates = [float(row["lr-BertAdam"]) for row in metrics(longer) if row.get("lr-BertAdam")]
    assert max(rates[2:]) > 0 and rates[-1] == pytest.approx(1e-3 * (1 / 39) / 0.6, rel=1e-3)


def test_a_run_that_starts_from_anothers_file_has_a_folder_and_a_best_of_its_own(folder, whole):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    file = f"resume={whole}/checkpoints/last.ckpt"
    run = train(*BARE, "trainer.max_epochs=3", file, folder=folder)
    assert run != whole and checkpoint(run)["global_step"] == 3 * STEPS
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert summary(run)["checkpoint"].startswith(str(run))


def test_a_torn_checkpoint_is_named_and_the_newest_whole_one_used(folder, whole):
    assert stopped(*BARE, folder=folder, at="validation after step 26") in (143, 0)
    run = latest(folder)
    last = run / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    train(*BARE, f"resume={run}", folder=folder)
    assert "last.ckpt cannot be read" in said(folder) and "Going on from" in said(folder)
    same_run(whole, run)
    for name in ("last", "best"):
        path = run / f"checkpoints/{name}.ckpt"
        path.write_bytes(path.read_bytes()[:-30])
    message = train(*BARE, f"resume={run}", folder=folder, fails=True)
    assert "No checkpoint of this run is whole" in message


def test_a_missing_checkpoint_to_resume_is_said(folder, tmp_path):
    message = train(*USUAL, "resume=last", folder=tmp_path, fails=True)
    assert "nothing to resume" in message


# ------------------------------------------------------------------------------------------- folders


def test_nothing_of_another_run_or_of_the_user_is_overwritten(folder, whole):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file() and path.suffix != ".log"}
    message = train(*USUAL, f"hydra.run.dir={whole}", folder=folder, fails=True)
    assert "holds another run already" in message and "resume=auto" in message
    test = ["action=test", f"checkpoint={whole}/checkpoints/best.ckpt", f"hydra.run.dir={whole}"]
    assert "holds another run already" in train(*USUAL, *test, folder=folder, fails=True)
    assert before == {p: p.read_bytes() for p in whole.rglob("*") if p.is_file() and p.suffix != ".log"}


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    from lxmert.runs import folder as run

    monkeypatch.setattr(run.time, "strftime", lambda pattern: "now")
    folders = [run.new_folder(tmp_path / "toy_vqa") for _ in range(3)]
    assert [os.path.basename(each) for each in folders] == ["now", "now_2", "now_3"]  # noqa: PTH119


def test_outputs_that_can_be_no_folder_end_the_command_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        SystemExit, match=r"file/below/toy: a run's files cannot be written there \(Not a directory\)"
    ):
        folder_or_exit(str(tmp_path / "file" / "below"), "toy", None)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(SystemExit, match="InputError: torchrun starts processes that do not know of each other"):
        folder_or_exit(str(tmp_path), "toy", None)


def test_a_run_that_is_going_on_keeps_its_folder(tmp_path):
    from lxmert.files import InputError
    from lxmert.runs.folder import RunFolder

    first = RunFolder(tmp_path, goes_on=False)
    with pytest.raises(InputError, match="going on"):
        RunFolder(tmp_path, goes_on=True)
    first.close()
    RunFolder(tmp_path, goes_on=True).close()


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_latest_is_right_for_any_folder_and_resume_finds_it(folder, whole, place, tmp_path):
    chosen = folder / "outputs" / "mine" if place == "inside" else tmp_path / "elsewhere"
    run = train(*BARE, "trainer.max_steps=3", f"hydra.run.dir={chosen}", folder=folder)
    assert run == chosen.resolve()
    assert train(*BARE, "trainer.max_steps=5", "resume=last", folder=folder) == run
    assert checkpoint(run)["global_step"] == 5


def test_a_sweep_keeps_to_the_outputs_each_job_apart_and_returns_its_metric(folder, whole):
    process = start(*USUAL, "seed=1,2", "trainer.max_steps=3", "logger=wandb", "-m", folder=folder)
    process.join()
    assert process.exitcode == 0, said(folder)
    assert not (folder / "multirun").exists()
    second = latest(folder)
    assert second.name == "1" and second.parents[1] == folder / "outputs" / "sweeps"
    jobs = [second.parent / name for name in "01"]
    ids = [json.loads((job / "environment.json").read_text())["id"] for job in jobs]
    assert len(set(ids)) == 2
    for job, name in zip(jobs, ids, strict=True):
        assert summary(job)["steps"] == 3
        [wandb] = job.glob("wandb/offline-run-*/*.wandb")
        assert wandb.stem == f"run-{name}"
    message = start(*USUAL, "seed=1,2", "trainer.devices=2", "-m", folder=folder)
    message.join()
    assert message.exitcode != 0 and "a sweep's jobs cannot start 2 processes" in " ".join(said(folder).split())


# ------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["callbacks.best.monitor=val/answring/accuracy"], "Did you mean val/answering/accuracy"),
        (["callbacks.best.monitor=val/loss"], "of which the lowest is the best.*add callbacks.best.mode=min"),
        (["+thaw=encoder"], "there is no root key thaw"),
        (["warmup=500"], "warmup=500.*expected the share of steps"),
        (["warmup=1"], "warmup=1.*expected the share of steps"),
        (
            ["trainer.max_epochs=-1", "trainer.max_time='00:01:00:00'"],
            "this training has none: set trainer.max_ep",
        ),
        (["init_answers=nowhere.json"], "init_answers= names the answers of init="),
        (
            ["trainer.accumulate_grad_batches=2", "trainer.val_check_interval='00:00:01:00'"],
            "validates in between: from there a resumed run would be another one",
        ),
        (["trainer.overfit_batches=2"], "data.train=minival data.valid=minival"),
        (["+callbacks.mine._target_=os.system"], "nothing else is built from a configuration"),
        (["+callbacks.mine._target_=lxmert.runs.folder.subprocess.run"], "nothing else is built"),
        (["data.batch_size=15", "trainer.devices=2"], "multiple of the 2 processes. Use 14 or 16"),
        (["resume=nowhere"], "resume=nowhere does not exist"),
    ],
)
def test_a_mistake_is_refused_before_the_first_step_in_one_message(folder, whole, overrides, expected):
    message = train(*USUAL, *overrides, folder=folder, fails=True)
    assert re.search(expected, message) and "Traceback" not in message
    assert not list(latest(folder).glob("checkpoints/*.ckpt")) or latest(folder) == whole


@pytest.mark.parametrize("action", ["test", "predict"])
def test_an_action_without_a_split_is_refused(folder, whole, action):
    command = [*BARE, f"action={action}", f"checkpoint={whole}", f"data.{action}=[]"]
    message = train(*command, folder=folder, fails=True)
    assert f"action={action} has no split: name one with split=, or some with data.{action}" in message


def test_a_misspelt_monitor_is_told_where_no_batch_is_validated_first(folder, whole):
    options = [
        "trainer.num_sanity_val_steps=0",
        "callbacks.best.monitor=val/answering/acc",
        "trainer.max_epochs=1",
    ]
    message = train(*BARE, *options, folder=folder, fails=True)
    assert "Did you mean val/answering/accuracy" in message and "Traceback" not in message


def test_a_split_without_what_is_monitored_can_be_validated(folder, whole):
    monitor = "callbacks.best.monitor=val/answering/accuracy/answer_type/number"
    run = train(*BARE, "action=validate", f"checkpoint={whole}", monitor, "trainer.limit_val_batches=1",
                "data.eval_batch_size=1", folder=folder)  # fmt: skip
    assert "val/answering/accuracy" in summary(run)["metrics"]


def test_the_usual_options_of_the_trainer_need_no_plus(folder, whole):
    options = ["trainer.precision=bf16-mixed", "trainer.strategy=auto", "trainer.val_check_interval=0.5",
               "trainer.max_time='00:01:00:00'", "trainer.profiler=simple", "trainer.deterministic=true",
               "trainer.max_steps=7"]  # fmt: skip
    run = train(*BARE, *options, folder=folder)
    assert checkpoint(run)["global_step"] == 7


def test_a_last_step_of_fewer_batches_weighs_them_as_the_others(folder, whole):
    """13 batches by fours: the last step has one, whose gradient Lightning would divide by four."""
    still = [*BARE, "trainer.max_epochs=1", "optimizer.lr=0", "trainer.log_every_n_steps=1"]
    runs = [train(*still, f"trainer.accumulate_grad_batches={each}", folder=folder) for each in (1, 4)]
    assert [checkpoint(run)["global_step"] for run in runs] == [13, 4]
    one, four = ([float(row["train/grad_norm"]) for row in metrics(r) if row["train/grad_norm"]] for r in runs)
    assert four[3] == pytest.approx(one[12], rel=1e-4)


def test_a_fit_without_the_files_of_its_test_says_so_and_goes_without(caplog):
    from types import SimpleNamespace

    from lxmert.runs.build import prepare_test

    def missing(stage):
        raise FileNotFoundError("1 file(s) of NLVR2 are missing")

    data = SimpleNamespace(prepare_data=missing, splits={"test": ["test"]})
    prepare_test(data)
    assert data.splits["test"] == [] and "no test of test will follow the training: 1 file" in caplog.text


def test_the_page_of_experiments_is_shown_without_one(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "toy_nlvr2" in said and len(said.splitlines()) < 60
