"""Steps of a few sizes, as one graph, in bfloat16, and with activations computed again."""

import copy
import functools
import itertools
import shutil
from dataclasses import replace

import pytest
import torch
import torch._dynamo
import torch._dynamo.testing
from functorch.compile import nop
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import TINY, checkpoint, kill_and_resume, metrics, train, weights
from test_objectives import MAKE, SEED, learner_of, make_batch, prepared
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.nn.parallel import DistributedDataParallel

from benchmarks.operations import Counted
from datamodules.toy import ToyPretrainDataModule, ToyVqaDataModule
from lxmert.config import LxmertConfig
from lxmert.files import InputError
from lxmert.learner import LxmertLearner
from lxmert.model import Lxmert
from lxmert.objectives.answering import Answering
from lxmert.objectives.image_pair import ImagePair
from lxmert.objectives.region_choice import RegionChoice
from lxmert.objectives.shapes import BARE, LEVELS, Shapes, compiled, with_features
from lxmert.optim import bert_adam
from lxmert.runs.build import check_compile

WITH_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="a CPU's kernels want g++")
DIMENSIONS = {
    "vocab_size": 61, "hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 40, "l_layers": 1,
    "r_layers": 1, "x_layers": 1, "visual_feat_dim": 10, "num_object_labels": 11, "num_attr_labels": 5,
    "mask_token_id": 4, "num_qa_labels": 7, "answers": list("abcdefg"), "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def config():
    return LxmertConfig(**DIMENSIONS)


def pretraining(config, **changes):
    learner = learner_of(replace(config, **changes), MAKE, masked_region={"rate": 0.3})
    learner.objectives["masked_language"].rate = 0.3
    return learner.train()


def tuning(config, objective, **changes):
    torch.manual_seed(0)
    config = replace(config, **changes)
    model, objectives = Lxmert(config), {"task": objective(config)}
    return LxmertLearner(
        model, objectives, lambda named: bert_adam(named, 1e-3), warmup=0.1, label_names={}, seed=SEED
    ).train()


def asked(config, seed, sentences=12, images=4, **options):
    """A batch of every task: pre-training's targets, answers, statements about two images, boxes."""
    batch = make_batch(config, sentences=sentences, images=images, seed=seed, **options)
    scores = torch.rand(sentences, config.num_qa_labels)
    more = {"answer_scores": scores, "statement": torch.arange(sentences // 2) % 2}
    more |= {"box": 10 + 50 * torch.rand(sentences, 4), "image_size": torch.full((images, 2), 100.0)}
    return replace(batch, targets=batch.targets | more)


def measured(learner, batches, tokens=9, regions=5):
    """The shapes of these batches, and the batches filled up."""
    shapes = Shapes(tokens, regions, learner.objectives.values())
    ready = [prepared(learner, shapes.lengthen(batch)) for batch in batches]
    shapes.measure(ready)
    return shapes, [with_features(shapes.fill(batch)) for batch in ready]


def step(learner, batch, losses_of=None):
    """Losses and gradients."""
    learner.zero_grad()
    losses = (losses_of or learner._compute_losses)(batch)
    sum(losses.values()).backward()
    gradients = {name: each.grad.clone() for name, each in learner.named_parameters() if each.grad is not None}
    return {name: loss.detach() for name, loss in losses.items()}, gradients


def assert_same(found, expected, tolerance=1e-6):
    """Losses, and gradients against the size of each; those of key biases are noise around 0."""
    for name, loss in expected[0].items():
        torch.testing.assert_close(found[0][name], loss, rtol=tolerance, atol=tolerance, msg=name)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        if not name.endswith("key.bias"):
            atol = tolerance * max(1.0, float(gradient.abs().max()))
            torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=atol, msg=name)


def sizes_of(batch):
    """The shapes of all that a compiled step may read."""
    batch = replace(batch, **BARE)
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    tensors |= {name: getattr(batch, name).index for name in ("token_packing", "row_token_packing")}
    tensors |= {name: getattr(batch, name).index for name in ("region_packing", "row_region_packing")}
    tensors |= {name: each for name, each in batch.targets.items() if name.startswith("masked") or "/" in name}
    return tuple(sorted((name, each.shape) for name, each in tensors.items() if each is not None))


# ------------------------------------------------------------------------------------------------ few sizes


LEARNERS = {
    "pretrain": pretraining,
    "vqa": lambda config, **changes: tuning(config, Answering, **changes),
    "nlvr2": lambda config, **changes: tuning(config, ImagePair, **changes),
    "refcoco": lambda config, **changes: tuning(config, RegionChoice, **changes),
}


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(sorted(LEARNERS)),
    st.booleans(),
    st.lists(st.integers(2, 8), min_size=1, max_size=4),
    st.integers(0, 4),
    st.integers(0, 3),
)
def test_a_filled_batch_has_the_losses_and_gradients_of_the_exact_one(task, ragged, images, words, boxes):
    learner = LEARNERS[task](LxmertConfig(**DIMENSIONS | {"x_layers": 2}))
    batches = [
        asked(learner.model.config, seed, images=number, ragged_regions=ragged)
        for seed, number in enumerate(images)
    ]
    _, filled = measured(learner, batches, 9 + words, 5 + boxes)
    for batch, full in zip(batches, filled, strict=True):
        assert full.token_ids.shape[1] == 9 + words and full.region_mask.shape[1] == 5 + boxes
        assert_same(step(learner, full), step(learner, prepared(learner, batch)))
    assert len({sizes_of(batch) for batch in filled}) <= 2


def test_batches_beyond_the_first_levels_find_room_at_a_later_one(config):
    learner = pretraining(config)
    shapes, _ = measured(learner, [asked(config, seed, length=5) for seed in range(3)])
    assert len(shapes.levels) == LEVELS
    assert all(a[name] <= b[name] for a, b in itertools.pairwise(shapes.levels) for name in a)
    long = prepared(learner, shapes.lengthen(asked(config, 9, length=9)))
    full = with_features(shapes.fill(long))
    assert shapes.levels[0]["token_packing"] < int(long.token_mask.sum()) <= len(full.token_packing.index)
    assert_same(step(learner, full), step(learner, prepared(learner, asked(config, 9, length=9))))


def test_what_has_room_nowhere_stays_as_it_is(config):
    learner = pretraining(config)
    shapes, _ = measured(learner, [asked(config, 0, sentences=6)])
    wide = prepared(learner, shapes.lengthen(asked(config, 1, sentences=24)))
    assert shapes.fill(wide) is wide


@pytest.mark.parametrize("kind", [ToyVqaDataModule, ToyPretrainDataModule])
def test_an_epoch_of_the_toy_has_few_sets_of_sizes_on_each_of_two_processes(toy_data, kind):
    data, learner = toy_data(kind)
    shapes = Shapes(data.max_length, data.most_regions, learner.objectives.values())
    shapes.measure([prepared(learner, shapes.lengthen(batch)) for batch in data.sample()])
    seen, exact = set(), set()
    for batch in data.train_dataloader():
        exact.add(sizes_of(prepared(learner, batch)))
        seen.add(sizes_of(with_features(shapes.fill(prepared(learner, shapes.lengthen(batch))))))
    assert len(seen) <= 3 < len(exact)


@pytest.fixture(scope="module")
def toy_data(tmp_path_factory, config):
    """Of a class of data module: the data, and a learner for it."""
    folder = tmp_path_factory.mktemp("toy")

    def make(kind):
        world = {"train": 150, "minival": 4, "nominival": 4, "test": 4}
        options = {}
        if kind is ToyPretrainDataModule:
            sources = {"mscoco": 0.2, "vg": 0.2, "gqa": 2.1, "vqa": 0, "visual7w": 0}
            options = {
                "sources": sources, "mismatched": 0.5, "train": "mscoco_train", "valid": "mscoco_minival",
            }  # fmt: skip
        place = folder / kind.__name__
        data = kind(place, place / "vocab.txt", world=world, batch_size=24, **options)
        data.prepare_data("fit")
        data.setup("fit")
        ours = replace(
            config, vocab_size=len(data.tokenizer), visual_feat_dim=data.feature_dim,
            num_qa_labels=len(data.answers), answers=data.answers, num_object_labels=64, num_attr_labels=64,
        )  # fmt: skip
        return data, pretraining(ours) if kind is ToyPretrainDataModule else tuning(ours, Answering)

    return make


# ------------------------------------------------------------------------------------------------ one graph


@pytest.mark.parametrize(
    ("task", "half"),
    [("nlvr2", False), ("pretrain", False), ("pretrain", True), ("vqa", True), ("refcoco", False)],
)
def test_a_step_is_one_graph_for_all_batches_of_a_size(config, task, half):
    learner = LEARNERS[task](config)
    if half:
        learner.compute_in(torch.bfloat16)
    _, batches = measured(learner, [asked(config, seed, images=4 + seed % 2) for seed in range(4)])
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    graph = torch.compile(learner._compute_losses, fullgraph=True, dynamic=False, backend=counter)
    for batch in batches:
        expected = step(learner, batch)
        found = step(learner, batch, lambda batch: graph(replace(batch, **BARE)))
        assert_same(found, expected, 1e-6 if not half else 0.05)
    assert counter.frame_count == len({sizes_of(batch) for batch in batches})  # fullgraph: no break within


def test_answers_that_count_from_half_of_the_training_on_cost_one_graph_more(config):
    learner = pretraining(config)
    learner.objectives["question_answering"].start = 0.5
    _, [batch] = measured(learner, [asked(config, 0)])
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    graph = torch.compile(learner._compute_losses, fullgraph=True, dynamic=False, backend=counter)
    losses = []
    for progress in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9):
        learner.objectives["question_answering"].advance(progress)
        losses.append(float(graph(replace(batch, **BARE))["question_answering"]))
    assert losses[:3] == [0, 0, 0] and losses[3] == losses[4] == losses[5] > 0
    assert counter.frame_count == 2


@torch._dynamo.config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=False, optimize_ddp=True)  # left so
def test_a_step_that_computes_its_layers_again_is_one_graph_too(config, monkeypatch):
    learner = tuning(config, Answering, gradient_checkpointing=True)
    learner.compute_in(torch.bfloat16)
    shapes = Shapes(9, 5, learner.objectives.values())
    ready = [prepared(learner, shapes.lengthen(asked(config, seed, images=4 + seed))) for seed in range(2)]
    shapes.measure(ready)
    batch = shapes.fill(replace(ready[0], region_features=ready[0].region_features.half()))
    assert len(batch.region_features) < len(batch.region_mask)
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    graph = compiled(learner._compute_losses, recomputed=True)
    expected = step(learner, with_features(batch))
    with torch.autocast("cpu", torch.bfloat16):  # as Lightning has it around a step
        assert_same(step(learner, batch, graph), expected, 0.05)


# ------------------------------------------------------------------------------------------------ bfloat16


def test_in_bfloat16_weights_and_gradients_stay_float32_and_losses_are_close(config):
    exact, half = pretraining(config), pretraining(config)
    half.compute_in(torch.bfloat16)
    batch = prepared(exact, asked(config, 0))
    expected, found = step(exact, batch), step(half, batch)
    assert {each.dtype for each in half.parameters()} == {torch.float32}
    assert {each.dtype for each in found[1].values()} == {torch.float32}
    assert all(type(each) is torch.nn.Parameter for each in half.parameters())
    assert found[1].keys() == expected[1].keys()
    for name, loss in expected[0].items():
        torch.testing.assert_close(found[0][name], loss, rtol=0.05, atol=0.05)
    for name, gradient in expected[1].items():
        if gradient.any() and not name.endswith("key.bias"):
            difference = float((found[1][name] - gradient).norm() / gradient.norm())
            assert difference < 0.1, (name, difference)


def test_frozen_weights_get_no_gradient_in_bfloat16(config):
    learner = pretraining(config)
    learner.compute_in(torch.bfloat16)
    frozen = learner.model.encoder.layer[0]
    for parameter in [*frozen.parameters(), learner.model.encoder.x_layers[0].visual_attention.att.key.weight]:
        parameter.requires_grad_(False)
    _, gradients = step(learner, prepared(learner, asked(config, 0)))
    names = {name for name, each in learner.named_parameters() if each.requires_grad}
    assert gradients.keys() == names
    assert gradients["model.embeddings.word_embeddings.weight"].any()  # beyond what is frozen
    assert gradients["model.encoder.x_layers.0.visual_attention.att.value.weight"].any()  # beside it


def test_a_step_in_bfloat16_starts_half_the_operations_of_autocast(config):
    learner = pretraining(config, l_layers=9, r_layers=5, x_layers=5)
    batch = prepared(learner, asked(config, 0, ragged_regions=False))
    half = copy.deepcopy(learner)
    half.compute_in(torch.bfloat16)
    counts = []
    for each, autocast in ((learner, True), (half, False)):
        with Counted() as counted, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            sum(each._compute_losses(batch).values()).backward()
        counts.append(sum(counted.counts.values()))
    assert counts[1] < 0.6 * counts[0] and counts[1] <= 1800


@pytest.mark.parametrize("experiment", ["toy_vqa", "toy_nlvr2"])
def test_a_run_in_bfloat16_ends_with_its_page_and_float32_weights(tmp_path, experiment):
    splits = ("minival", "nominival") if experiment == "toy_vqa" else ("valid",)
    world = [f"data.world.{split}=8" for split in ("train", "test", *splits)]
    overrides = [f"experiment={experiment}", *TINY, *world, "data.batch_size=16", "trainer.max_epochs=1"]
    run = train(*overrides, "trainer.precision=bf16-mixed", folder=tmp_path)
    assert (run / "report.html").is_file()
    assert {each.dtype for each in weights(run).values() if each.is_floating_point()} <= {
        torch.float32,
        torch.float64,
    }


def test_what_autocast_is_asked_for_makes_no_difference_to_a_step_in_bfloat16(config):
    learner = pretraining(config)
    learner.compute_in(torch.bfloat16)
    batch = prepared(learner, asked(config, 0))
    plain = step(learner, batch)
    with torch.autocast("cpu", torch.bfloat16):
        within = step(learner, batch)
    assert_same(within, plain, 0)


# ------------------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_activations_that_are_computed_again_give_the_same_gradients_with_dropout(config, half):
    learner = pretraining(config, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    if half:
        learner.compute_in(torch.bfloat16)
    batch = prepared(learner, asked(config, 0))

    def kept(again):
        """Losses and gradients, and the bytes that the backward pass finds."""
        learner.model.config.gradient_checkpointing = again
        memory = []
        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: memory.append(tensor.nbytes) or tensor, lambda tensor: tensor
        ):
            losses = learner._compute_losses(batch)
        learner.zero_grad()
        sum(losses.values()).backward()
        return {name: loss.detach() for name, loss in losses.items()}, {
            name: each.grad.clone() for name, each in learner.named_parameters() if each.grad is not None
        }, sum(memory)  # fmt: skip

    whole, again = kept(False), kept(True)
    assert_same(again[:2], whole[:2], 0)
    assert again[2] < whole[2] / 2


# ------------------------------------------------------------------------------------------------ processes


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_gradients_of_a_compiled_step_are_sent_while_the_rest_is_computed(config, tmp_path, monkeypatch, half):
    monkeypatch.setattr(torch.distributed, "_DEFAULT_FIRST_BUCKET_BYTES", 10_000)  # of a megabyte
    learner = tuning(config, Answering)
    if half:
        learner.compute_in(torch.bfloat16)
    batch = replace(prepared(learner, asked(config, 0)), **BARE)
    expected = step(learner, batch)
    events = []

    def of_the_backward_pass(graph, _):
        def run(*inputs):
            events.append("computed")
            return graph(*inputs)

        return make_boxed_func(run)

    class Losses(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.learner = learner

        def forward(self, batch):
            return graph(batch)

    graph = torch.compile(
        learner._compute_losses, fullgraph=True, dynamic=False,
        backend=aot_autograd(fw_compiler=nop, bw_compiler=of_the_backward_pass),
    )  # fmt: skip

    def send(state, bucket):
        events.append("sent")
        sent = torch.futures.Future()
        sent.set_result(bucket.buffer())
        return sent

    torch._dynamo.reset()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(Losses(), bucket_cap_mb=0.02)
        wrapped.register_comm_hook(None, send)
        step(learner, batch, wrapped)  # DDP makes its buckets by the order in which gradients came first
        events.clear()
        found = step(learner, batch, wrapped)
    finally:
        torch.distributed.destroy_process_group()
    assert_same(found, expected, 0.05 if half else 1e-6)
    assert events.count("sent") > 3 and events.count("computed") > 3
    assert events.index("sent") < len(events) - 1 - events[::-1].index("computed")


@pytest.fixture(scope="module")
def compiled_run(tmp_path_factory):
    """The folder of a toy, the settings of a compiled training on two processes, and its run."""
    folder = tmp_path_factory.mktemp("compiled")
    world = ["data.world.train=40", "data.world.minival=8", "data.world.nominival=4", "data.world.test=4"]
    overrides = [
        "experiment=toy_vqa", *TINY, *world, "data.batch_size=32", "trainer.max_epochs=2", "trainer.devices=2",
        "trainer.log_every_n_steps=3", "compile=true", "model.hidden_dropout_prob=0.1",
    ]  # fmt: skip
    return folder, overrides, train(*overrides, folder=folder)


@WITH_COMPILER
def test_a_compiled_training_learns_on_two_processes(compiled_run):
    _, _, run = compiled_run
    losses = [float(row["train/loss"]) for row in metrics(run) if row["train/loss"]]
    assert len(losses) == 4 and losses[-1] < losses[0] / 2


@WITH_COMPILER
def test_a_compiled_training_that_is_killed_goes_on_to_the_same_weights(compiled_run):
    folder, overrides, run = compiled_run
    resumed = kill_and_resume(*overrides, folder=folder)
    assert checkpoint(resumed)["global_step"] == checkpoint(run)["global_step"]
    for name, expected in weights(run).items():
        assert torch.equal(weights(resumed)[name], expected), name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["compile=maybe"], "compile=maybe; expected false, true or cuda_graphs"),
        (["compile=cuda_graphs"], "compile=cuda_graphs wants a CUDA GPU"),
        (["compile=true", "trainer.strategy=fsdp"], "compile with trainer=fsdp"),
    ],
)
def test_what_cannot_be_compiled_is_refused(tmp_path, overrides, message):
    assert message in train("experiment=toy_vqa", *overrides, folder=tmp_path, fails=True)


def test_without_a_compiler_a_cpu_says_so(monkeypatch):
    trainer = {"accelerator": "cpu", "accumulate_grad_batches": 1}
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="there is no no-such-compiler here"):
        check_compile(True, trainer)
    check_compile(False, trainer)
    check_compile(True, trainer | {"accelerator": "gpu"})
