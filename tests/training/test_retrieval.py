"""Retrieval as an objective, by hand; and fine-tuned through train.py on a tiny toy, in one process and in two."""

import json
import math

import numpy as np
import pytest
import torch
from runs import TINY, checkpoint, metrics, summary, train, weights

from datamodules.retrieval import each_other
from lxmert import LxmertForPreTraining, load_run
from lxmert.batch import Batch
from lxmert.callbacks import Rankings
from lxmert.config import LxmertConfig
from lxmert.files import InputError
from lxmert.objectives.retrieval import Retrieval
from lxmert.outputs import LxmertModelOutput
from lxmert.retrieve import __main__ as retrieve
from lxmert.retrieve import ranks_of, summarize


@pytest.fixture
def objective(sizes):
    torch.manual_seed(0)
    made = Retrieval(LxmertConfig(**sizes))
    torch.nn.init.normal_(made.head.weight)
    return made


def batch_of(options, rows):
    return Batch(
        token_ids=torch.ones(1, 2, dtype=torch.int64),
        token_mask=torch.ones(1, 2, dtype=torch.bool),
        region_features=torch.rand(1, 3, 10),
        region_boxes=torch.rand(1, 3, 4),
        region_mask=torch.ones(1, 3, dtype=torch.bool),
        row_sentence=torch.zeros(rows, dtype=torch.int64),
        row_image=torch.zeros(rows, dtype=torch.int64),
        targets={"options": torch.as_tensor(options)},
    )


def result_of(objective, options, rows):
    """What the objective makes of random pooled outputs, and the score of each row."""
    pooled = torch.randn(rows, 24)
    batch = objective.prepare_batch(batch_of(options, rows), 1)
    result = objective(LxmertModelOutput(pooled_output=pooled), batch, None)
    weight, bias = objective.head.weight.detach(), objective.head.bias.detach()
    logits = (pooled @ weight.T + bias).tolist()
    return result, [fits - not_ for not_, fits in logits]


# ----------------------------------------------------------------------------------------- objective


def test_the_loss_of_options_is_the_cross_entropy_of_the_first_among_four(objective):
    options = np.arange(20).reshape(5, 4)
    result, scores = result_of(objective, options, 20)
    losses = [
        math.log(sum(math.exp(scores[4 * e + k]) for k in range(4))) - scores[4 * e]
        for e in range(5)
    ]  # fmt: skip
    assert result.losses["retrieval"].item() == pytest.approx(sum(losses) / 5, abs=1e-5)
    assert result.predictions["option_scores"].flatten().tolist() == pytest.approx(scores, abs=1e-5)


def test_the_loss_of_a_batch_is_that_of_both_directions_without_captions_of_the_same_image(objective):
    images = np.array([7, 3, 7, 5])
    result, scores = result_of(objective, each_other(images), 16)
    grid = np.array(scores).reshape(4, 4)
    losses = []
    for e in range(4):
        others = [f for f in range(4) if f == e or images[f] != images[e]]
        losses += [
            math.log(sum(math.exp(grid[e, f]) for f in others)) - grid[e, e],
            math.log(sum(math.exp(grid[f, e]) for f in others)) - grid[e, e],
        ]
    assert result.losses["retrieval"].item() == pytest.approx(sum(losses) / 8, abs=1e-5)


def test_what_is_no_option_gets_no_gradient(objective):
    pooled = torch.randn(4, 24, requires_grad=True)
    batch = batch_of([[0, 2, -1], [3, -1, -1]], 4)
    objective(LxmertModelOutput(pooled_output=pooled), batch, None).losses["retrieval"].backward()
    assert (pooled.grad[[0, 2]] != 0).any(1).all()
    assert not pooled.grad[[1, 3]].any()  # row 3 has nothing to be told from


def test_accuracy_counts_an_equal_score_as_wrong(objective):
    measured = objective.make_metrics({})
    scores = torch.tensor([[2.0, 1, 0, -1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 2, 0, 0]])
    result, _ = result_of(objective, np.arange(16).reshape(4, 4), 16)
    result.predictions["option_scores"] = scores
    measured.update(result, batch_of(np.arange(16).reshape(4, 4), 16))
    assert {name: float(value) for name, value in measured.compute().items()} == {"accuracy": 0.25}


def test_data_without_options_is_refused(objective):
    batch = batch_of([[0]], 1)
    batch.targets.clear()
    with pytest.raises(InputError, match="retrieval needs the target `options`"):
        objective.prepare_batch(batch, 1)


# -------------------------------------------------------------------------------------------- train.py


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("retrieval")


def fitted(folder, *more):
    world = [
        f"data.world.{key}={value}" for key, value in {"train": 16, "val": 5, "test": 7, "pictures": 7}.items()
    ]
    short = ["data.batch_size=16", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "data.world.captions=3"]
    return train("experiment=toy_retrieval", *TINY, *world, *short, *more, folder=folder)


@pytest.fixture(scope="module")
def one(folder):
    return fitted(folder)


def test_a_fit_ends_with_all_captions_against_all_images(folder, one):
    logged = summary(one)["metrics"]
    assert {"val/retrieval/accuracy", "test/retrieval/accuracy", "train/loss/retrieval"} <= set(logged)
    about = json.loads((one / "predictions" / "test_scores.json").read_text())
    scores, image_of = np.load(one / "predictions" / "test_scores.npy"), np.array(about["image_of"])
    assert scores.shape == (21, 7) and np.isfinite(scores).all()
    file = json.loads((folder / "data/toy_retrieval/captions/dataset_captions.json").read_text())
    own = {
        sentence["sentid"]: image["filename"].removesuffix(".png")
        for image in file["images"]
        if image["split"] == "test"
        for sentence in image["sentences"]
    }
    named = {caption: about["images"][image] for caption, image in zip(about["captions"], image_of, strict=True)}
    assert named == own
    for way, values in summarize(ranks_of(scores, image_of)).items():
        for name, value in values.items():
            share = value / 100 if name.startswith("recall") else value
            assert logged[f"test/retrieval/{way}/{name}"] == pytest.approx(share, rel=1e-5)
    rankings = json.loads((one / "predictions" / "test_rankings.json").read_text())
    assert len(rankings["images"]) == 21 and len(rankings["texts"]) == 7
    page = (one / "report.html").read_text()
    assert page.count("<div class='card") == 21 and "the five that fit it best" in page and "its own" in page
    assert page.count("data:image/png") == 21 * 6


def test_what_was_fine_tuned_opens_as_a_model_with_a_matching_head_and_ranks_the_same(folder, one, tmp_path):
    model = load_run(one).model
    assert isinstance(model, LxmertForPreTraining) and model.config.task_matched and not model.config.task_qa
    data = folder / "data"
    arguments = [
        one,
        data / "toy_retrieval/captions/dataset_captions.json",
        "--out",
        tmp_path / "out",
        "--rows",
        5,
    ]
    arguments += ["--store", data / "stores/toy_retrieval/captions_imgfeat/test.h5"]
    assert retrieve.main([str(each) for each in arguments]) == 0
    ours, theirs = (np.load(path) for path in (tmp_path / "out/scores.npy", one / "predictions/test_scores.npy"))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_nothing_is_predicted_and_that_is_said(tmp_path):
    with pytest.raises(InputError, match="captions and images are ranked, not predicted: take action=test"):
        Rankings(str(tmp_path), str(tmp_path / "report.html")).on_predict_start(None, None)


def test_two_processes_train_and_rank_as_one_does(folder, one):
    two = fitted(folder, "trainer.devices=2", "callbacks.rankings.rows=10")
    for name, expected in weights(one).items():
        assert name != "objectives.retrieval.head.bias" or not expected.any()  # it is not learnt
        if not name.endswith(".key.bias"):  # a softmax takes it out: its gradient is noise, which AdamW enlarges
            torch.testing.assert_close(weights(two)[name], expected, atol=2e-4, rtol=1e-3, msg=name)
    losses = [[float(row["train/loss"]) for row in metrics(run) if row["train/loss"]] for run in (one, two)]
    assert len(losses[0]) == checkpoint(one)["global_step"] == 6 and losses[1] == pytest.approx(
        losses[0], rel=1e-3
    )
    found = [np.load(run / "predictions" / "test_scores.npy") for run in (one, two)]
    np.testing.assert_allclose(*found, atol=2e-3)
    measured = [
        {name: value for name, value in summary(run)["metrics"].items() if name.startswith("test/retrieval/")}
        for run in (one, two)
    ]
    assert len(measured[0]) == 11 and measured[0].keys() == measured[1].keys()
