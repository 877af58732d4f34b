"""train.py and the training step on a GPU, where there is one."""

import pytest
import torch
from runs import TINY, checkpoint, kill_and_resume, metrics, summary, train, weights
from test_objectives import MAKE, config, learner_of, make_batch, prepared  # noqa: F401 (config is a fixture)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

STILL = ["model.hidden_dropout_prob=0", "model.attention_probs_dropout_prob=0"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    world = ["data.world.train=40", "data.world.minival=8", "data.world.nominival=4", "data.world.test=4"]
    return folder, [*TINY, *STILL, *world, "data.batch_size=16", "trainer.log_every_n_steps=1"]


def losses(run):
    return [float(row["train/loss"]) for row in metrics(run) if row["train/loss"]]


@pytest.fixture(scope="module")
def on_cpu(toy):
    folder, overrides = toy
    return train("experiment=toy_vqa", *overrides, "trainer.max_epochs=2", folder=folder)


@pytest.mark.parametrize(
    ("trainer", "tolerance"),
    [
        (["trainer=gpu", "trainer.precision=32-true"], 1e-3),
        (["trainer=gpu"], 0.05),  # bfloat16 has eight bits
        (["trainer=gpu", "data.workers=2"], 0.05),
        (["trainer=gpu", "compile=true"], 0.05),
        (["trainer=gpu", "compile=cuda_graphs"], 0.05),
        (["trainer=gpu", "compile=true", "model.gradient_checkpointing=true"], 0.05),
        (["trainer=gpu", "trainer.precision=32-true", "data.regions_on_device=true", "data.workers=1"], 1e-3),
        (["trainer=ddp", "trainer.devices=1", "trainer.precision=32-true"], 1e-3),
        (["trainer=fsdp", "trainer.devices=1", "trainer.precision=32-true"], 1e-3),
    ],
    ids=[
        *("float32", "bfloat16", "workers", "compiled", "CUDA graphs", "computed again", "regions on it", "ddp"),
        "fsdp",
    ],
)
def test_a_gpu_learns_what_a_cpu_learns(toy, on_cpu, trainer, tolerance):
    folder, overrides = toy
    run = train("experiment=toy_vqa", *overrides, *trainer, "trainer.max_epochs=2", folder=folder)
    assert losses(run) == pytest.approx(losses(on_cpu), rel=tolerance)
    # What was trained on a GPU is tested on a CPU.
    best = f"checkpoint={run}/checkpoints/best.ckpt"
    tested = train("experiment=toy_vqa", *overrides, "action=test", best, folder=folder)
    name = "test/answering/accuracy"
    assert summary(tested)["metrics"][name] == pytest.approx(summary(run)["metrics"][name], abs=0.05)


def test_a_killed_run_resumes_on_a_gpu(toy):
    folder, overrides = toy
    overrides = ["experiment=toy_vqa", *overrides, "trainer=gpu", "trainer.max_epochs=2"]
    whole = train(*overrides, folder=folder)
    resumed = kill_and_resume(*overrides, folder=folder)
    assert checkpoint(resumed)["global_step"] == checkpoint(whole)["global_step"]
    for name, expected in weights(whole).items():  # a GPU adds in no fixed order
        torch.testing.assert_close(weights(resumed)[name], expected, atol=1e-3, rtol=1e-2, msg=name)


def test_pre_training_runs_on_a_gpu_and_its_weights_are_fine_tuned_on_a_cpu(toy):
    folder, overrides = toy
    run = train("experiment=toy_pretrain", *overrides, "trainer=gpu", "trainer.max_epochs=2", folder=folder)
    assert losses(run)[-1] < losses(run)[0]
    init = f"init={run}/checkpoints/best.ckpt"
    train("experiment=toy_vqa", *overrides, init, "trainer.max_epochs=1", folder=folder)


def test_the_losses_of_a_gpu_are_those_of_a_cpu(config):  # noqa: F811
    learner = learner_of(config, MAKE).eval()
    batch = prepared(learner, make_batch(config))
    expected = {name: loss for result in learner(batch).values() for name, loss in result.losses.items()}
    moved = batch.pin_memory().to("cuda", non_blocking=True)
    found = {name: loss for r in learner.cuda()(moved).values() for name, loss in r.losses.items()}
    for name, loss in expected.items():
        torch.testing.assert_close(found[name].cpu(), loss, atol=1e-3, rtol=1e-3, msg=name)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_a_training_step_never_waits_for_the_gpu(config, half):  # noqa: F811
    learner = learner_of(config, MAKE).cuda().train()
    if half:
        learner.compute_in(torch.bfloat16)
    batches = [prepared(learner, make_batch(config, seed=seed)) for seed in (1, 2)]

    def step(batch):
        batch = batch.pin_memory().to("cuda", non_blocking=True)
        results = learner(batch)
        torch.stack([loss for result in results.values() for loss in result.losses.values()]).sum().backward()

    step(batches[0])  # the first initialises libraries, which waits
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(batches[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
