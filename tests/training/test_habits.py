"""What many do in training, each chosen by one line: frozen parts, averaged weights, early stopping, loggers."""

import sqlite3

import pytest
import torch
from runs import TINY, checkpoint, kill_and_resume, metrics, summary, train, weights

from lxmert.callbacks.averaging import AveragedWeights
from lxmert.files import InputError
from lxmert.weights import HEADS, read_weights, reference_names


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Overrides for a tiny run, 13 steps an epoch, on a tiny toy world, which the first run generates."""
    folder = tmp_path_factory.mktemp("toy")
    world = ["data.world.train=40", "data.world.minival=8", "data.world.nominival=4", "data.world.test=4"]
    return folder, ["experiment=toy_vqa", *TINY, *world, "data.batch_size=16", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def averaged(toy):
    folder, overrides = toy
    return train(*overrides, "callbacks=ema", "trainer.max_epochs=2", folder=folder)


class Learner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.learnt = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        self.frozen = torch.nn.Parameter(torch.tensor([5.0]), requires_grad=False)


class Loop:
    strategy = None
    global_step = 0


def test_the_average_is_that_of_its_formula():
    learner, loop, ema = Learner(), Loop(), AveragedWeights(decay=0.6)
    ema.on_fit_start(loop, learner)
    ema.on_train_start(loop, learner)
    expected, averages = learner.learnt.detach().clone(), []
    for step in range(1, 30):
        with torch.no_grad():
            learner.learnt += torch.tensor([0.5, step])
        ema.on_train_batch_end(loop, learner, None, None, 0)  # gradients are accumulated: no step yet
        assert torch.equal(ema.average["learnt"], expected)
        loop.global_step = step
        ema.on_train_batch_end(loop, learner, None, None, 0)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * learner.learnt.detach()
        torch.testing.assert_close(ema.average["learnt"], expected)
        expected = ema.average["learnt"].clone()
        averages.append(decay)
    assert averages[0] == 2 / 11 and averages[-1] == 0.6
    assert list(ema.average) == ["learnt"]


def saved(ema, learner):
    """The average and the weights in a checkpoint."""
    content = {"state_dict": learner.state_dict()}
    ema.on_save_checkpoint(None, learner, content)
    assert set(content["state_dict"]) == {"learnt", "frozen"} and set(content["trained_weights"]) == {"learnt"}
    return content["state_dict"]["learnt"].tolist(), content["trained_weights"]["learnt"].tolist()


def test_validation_and_checkpoints_have_the_average_and_training_the_weights():
    learner, loop, ema = Learner(), Loop(), AveragedWeights(decay=0.5)
    ema.on_fit_start(loop, learner)
    with torch.no_grad():
        learner.learnt.zero_()
    in_training = saved(ema, learner)
    ema.on_validation_start(loop, learner)
    assert learner.learnt.tolist() == [1.0, -2.0]
    assert saved(ema, learner) == in_training  # where a validation was interrupted
    ema.on_validation_epoch_end(loop, learner)
    assert learner.learnt.tolist() == [0.0, 0.0]
    assert saved(ema, learner) == in_training == ([1.0, -2.0], [0.0, 0.0])


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(InputError, match=r"callbacks\.ema\.decay="):
        AveragedWeights(decay=decay)


def test_the_average_is_validated_kept_as_best_and_tested(toy, averaged):
    folder, overrides = toy
    kept = checkpoint(averaged, "best")
    trained = kept["trained_weights"]
    assert set(trained) < set(kept["state_dict"])
    assert any(not torch.equal(kept["state_dict"][name], tensor) for name, tensor in trained.items())
    measured = summary(averaged)["metrics"]
    accuracies = [float(row["val/answering/accuracy"] or 0) for row in metrics(averaged)]
    assert measured["test/answering/accuracy"] == pytest.approx(max(accuracies))
    # Without the callback, as whoever gets the checkpoint uses it, the same is measured.
    again = train(*overrides, "action=validate", f"checkpoint={averaged}/checkpoints/best.ckpt", folder=folder)
    assert summary(again)["metrics"]["val/loss"] == pytest.approx(measured["test/loss"], rel=1e-6)


def test_a_killed_run_resumes_to_the_average_and_the_weights_of_an_uninterrupted_one(toy, averaged):
    folder, overrides = toy
    resumed = kill_and_resume(*overrides, "callbacks=ema", "trainer.max_epochs=2", folder=folder)
    for key in ("state_dict", "trained_weights"):
        expected, found = checkpoint(averaged)[key], checkpoint(resumed)[key]
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_what_starts_from_a_checkpoint_starts_from_the_average(averaged):
    path = averaged / "checkpoints" / "best.ckpt"
    state = checkpoint(averaged, "best")["state_dict"]
    own = {new: state[name] for name, new in reference_names(state, HEADS).items()}
    found = read_weights(path)
    assert found and all(torch.equal(tensor, own[name]) for name, tensor in found.items())


def test_averaging_of_sharded_weights_is_refused(toy):
    from lightning.pytorch.strategies import FSDPStrategy

    loop = Loop()
    loop.strategy = FSDPStrategy()
    with pytest.raises(InputError, match=r"callbacks=ema .* trainer=fsdp"):
        AveragedWeights(decay=0.9).setup(loop, Learner(), "fit")


# A rate of zero: no validation is better than the first.
STILL = [
    "trainer.limit_train_batches=2",
    "optimizer.lr=0",
    "callbacks=early_stopping",
    "callbacks.early_stopping.patience=2",
]


def epochs_of(run):
    return [int(row["epoch"]) for row in metrics(run) if row["val/answering/accuracy"]]


def test_training_ends_when_patience_does_also_if_it_was_interrupted(toy):
    folder, overrides = toy
    whole = train(*overrides, *STILL, "trainer.max_epochs=6", folder=folder)
    assert epochs_of(whole) == [0, 1, 2]
    begun = train(*overrides, *STILL, "trainer.max_epochs=2", folder=folder)
    assert epochs_of(begun) == [0, 1]
    resume = f"resume={begun}/checkpoints/last.ckpt"
    resumed = train(*overrides, *STILL, "trainer.max_epochs=6", resume, folder=folder)
    assert epochs_of(resumed) == [2]  # one validation counted before, one after
    assert checkpoint(resumed)["global_step"] == checkpoint(whole)["global_step"] == 6


def test_habits_go_together(toy):
    folder, overrides = toy
    both = ["callbacks=[ema,early_stopping]", "callbacks.early_stopping.patience=1"]
    others = ["optimizer.layer_decay=0.9", "objective.answering.label_smoothing=0.1"]
    run = train(*overrides, *both, *others, "optimizer=adamw", "trainer.max_epochs=1", folder=folder)
    assert "trained_weights" in checkpoint(run)
    rates = {name for name in metrics(run)[0] if name.startswith("lr-")}
    # one language, one vision, one cross-modality layer
    assert rates == {f"lr-AdamW/depth_{depth}{end}" for depth in range(4) for end in ("", "_undecayed")}


def test_a_frozen_part_keeps_its_weights_on_two_processes_too(toy):
    folder, overrides = toy
    frozen = ("model.embeddings", "model.encoder.layer")
    run = train(
        *overrides, f"freeze=[{','.join(frozen)}]", "trainer.max_epochs=1", "trainer.devices=2", folder=folder
    )
    biases = {name: tensor for name, tensor in weights(run).items() if name.endswith(".bias")}
    untouched = {name for name, tensor in biases.items() if not tensor.any()}  # all begin at zero
    assert untouched >= {name for name in biases if name.startswith(frozen)}
    assert "model.encoder.r_layers.0.attention.self.query.bias" in biases.keys() - untouched
    assert len([name for name in untouched if name.startswith(frozen)]) > 5


def test_a_tensorboard_run_holds_every_logged_metric(toy):
    pytest.importorskip("tensorboard", reason="pip install '.[tensorboard]' to test logger=tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, overrides = toy
    run = train(*overrides, "logger=tensorboard", "trainer.max_epochs=1", folder=folder)
    files = [EventAccumulator(str(path)).Reload() for path in run.glob("logs/events.*")]
    scalars = {name: events.Scalars(name) for events in files for name in events.Tags()["scalars"]}
    logged = {name for row in metrics(run) for name, value in row.items() if value} - {"step", "epoch"}
    assert logged - set(scalars) == set()
    expected = [float(row["train/loss"]) for row in metrics(run) if row["train/loss"]]
    assert [event.value for event in scalars["train/loss"]] == pytest.approx(expected)
    assert "initializer_range" in (run / "logs" / "hparams.yaml").read_text()


def test_an_mlflow_run_holds_every_logged_metric_in_a_local_database(toy):
    pytest.importorskip("mlflow", reason="pip install '.[mlflow]' to test logger=mlflow")
    folder, overrides = toy
    run = train(*overrides, "logger=mlflow", "trainer.max_epochs=1", folder=folder)
    with sqlite3.connect(folder / "outputs" / "mlflow.db") as database:
        recorded = {name for (name,) in database.execute("select key from metrics")}
        losses = [
            value
            for (value,) in database.execute("select value from metrics where key = 'train/loss' order by step")
        ]
        settings = dict(database.execute("select key, value from params"))
        [(status, experiment)] = database.execute(
            "select status, e.name from runs join experiments e on e.experiment_id = runs.experiment_id"
        )
    logged = {name for row in metrics(run) for name, value in row.items() if value} - {"step", "epoch"}
    assert logged - recorded == set()
    expected = [float(row["train/loss"]) for row in metrics(run) if row["train/loss"]]
    assert losses == pytest.approx(expected)
    assert settings["optimizer/lr"] == "0.001" and (status, experiment) == ("FINISHED", "toy_vqa")
    assert not (folder / "mlruns").exists()
