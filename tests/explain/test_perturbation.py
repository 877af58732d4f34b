"""The perturbation test and the commands on what a run has trained."""

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import TINY, train
from test_explain import make_batch, make_model, row_alone

from lxmert import LxmertForVisualReasoning
from lxmert.explain import METHODS, ORDERS, REMOVED, Removal, areas, explain, perturb
from lxmert.explain.__main__ import main


@pytest.fixture(scope="module")
def model(sizes):
    return make_model(sizes)


def best(model, batch):
    """The answer of a batch of one row, by the model's attention in the open."""
    encoded = model.lxmert.encode(batch, {"pooled"}, output_attentions=True)
    return int(model.answer_head(encoded.pooled_output).argmax())


def removed_one_by_one(model, batch, row, order, side, direction):
    """The answers that are left, each step a call of its own: written from the specification."""
    alone = row_alone(batch, row)
    found = explain(model, alone, method=order)
    number = alone.token_ids.shape[1] if side == "words" else alone.region_features.shape[1]
    places = range(1, number - 1) if side == "words" else range(number)
    scores = (found.words if side == "words" else found.regions)[0].tolist()
    ranked = sorted(places, key=lambda i: scores[i], reverse=direction == "negative")
    answers = []
    for percent in REMOVED:
        kept = sorted(ranked[: math.floor(len(ranked) * (100 - percent) / 100 + 1e-9)])
        if side == "words":
            part = row_alone(batch, row, tokens=torch.tensor([0, *kept, number - 1]))
        else:
            part = row_alone(batch, row, regions=torch.tensor(kept, dtype=torch.long))
        answers.append(best(model, part))
    return answers


def test_removing_in_batches_gives_the_answers_of_removing_one_by_one(model):
    batch, rows, changed = make_batch(), [0, 1, 2, 3, 4], 0
    truth = torch.arange(7).repeat(5, 1) / 8  # the accuracy tells which answer was given
    found = perturb(model, batch, truth, rows, ["relevancy"])
    for (order, side, direction), curve in found.items():
        for row in rows:
            expected = removed_one_by_one(model, batch, row, order, side, direction)
            assert (8 * curve[row]).tolist() == expected
            changed += len(set(expected)) > 1
    assert changed > 5


def test_of_equally_relevant_and_of_random_order_only_the_seed_and_the_example_decide(model):
    batch, truth = make_batch(), torch.rand(5, 7, generator=torch.Generator().manual_seed(0))
    places = [50, 3, 7, 9, 2]
    whole = perturb(model, batch, truth, places, seed=4)
    assert set(whole) == {
        Removal(o, s, d) for o in ORDERS for s in ("words", "regions") for d in ("positive", "negative")
    }
    rows = torch.tensor([3, 1])
    pair = batch.pair(batch.row_sentence[rows], batch.row_image[rows])
    part = perturb(model, pair, truth[rows], [9, 3], seed=4)
    for removal, curve in whole.items():
        torch.testing.assert_close(part[removal], curve[rows])
    other = perturb(model, batch, truth, places, ["random"], seed=5)
    assert any(not torch.equal(other[removal], whole[removal]) for removal in other)


def test_statements_lose_the_same_words_before_each_of_their_images(sizes):
    model = make_model(sizes, LxmertForVisualReasoning)
    batch = make_batch()
    batch = replace(
        batch,
        region_features=torch.cat([batch.region_features, batch.region_features.flip(1)]),
        region_boxes=torch.cat([batch.region_boxes] * 2),
        region_mask=torch.arange(5) < torch.tensor([2, 5, 5, 1])[:, None],  # of one image all regions go earlier
        region_packing=None,
    ).pair(torch.tensor([0, 0, 2, 2]), torch.tensor([0, 1, 2, 3]))
    truth = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    found = perturb(model, batch, truth, [0, 1])
    second = perturb(model, batch.pair(torch.tensor([2, 2]), torch.tensor([2, 3])), truth[1:], [1])
    for removal, curve in found.items():
        assert curve.shape == (2, 9) and curve.isfinite().all()
        torch.testing.assert_close(second[removal], curve[1:])


def test_the_area_of_a_constant_is_itself_and_of_a_fall_a_half():
    assert areas(torch.full((2, 9), 0.3)).tolist() == pytest.approx([0.3, 0.3])
    assert float(areas(1 - torch.tensor(REMOVED) / 100)) == pytest.approx(0.5)


# ----------------------------------------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    world = ["data.world.train=40", "data.world.minival=8", "data.world.nominival=4", "data.world.test=4"]
    short = ["trainer=cpu", "trainer.max_steps=3", "data.batch_size=16"]
    return train("experiment=toy_vqa", *TINY, *world, *short, folder=folder)


def export(run, split, *options):
    """What the command writes as lines."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        assert main(["export", str(run), "--split", split, "--out", str(out), *options]) == 0
        return [json.loads(line) for line in out.read_text().splitlines()]


def test_the_perturbation_of_a_run_is_printed_and_written(run, tmp_path, capsys):
    out = tmp_path / "new" / "found.json"
    command = ["perturb", str(run), "--split", "minival", "--count", "9", "--methods", "gradcam", "rollout"]
    assert main([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "minival, 9 examples" in printed and "rollout" in printed and str(out.name) in printed
    content = json.loads(out.read_text())
    assert (content["split"], content["examples"], content["seed"]) == ("minival", 9, 0)
    curves = {tuple(each[k] for k in ("order", "side", "direction")): each for each in content["curves"]}
    assert len(curves) == 12 and {order for order, _, _ in curves} == {"gradcam", "rollout", "random"}
    whole = {each["accuracy"][0] for each in curves.values()}
    assert len(whole) == 1  # nothing is removed yet
    for (order, side, direction), each in curves.items():
        curve = torch.tensor(each["accuracy"])
        assert each["area"] == pytest.approx(float(areas(curve)), abs=1e-2)
        if order != "random":
            less = each["area"] - curves["random", side, direction]["area"]
            assert each["less_random"] == pytest.approx(less, abs=1e-2)


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_every_example_of_a_split_is_exported(run, tmp_path, capsys, suffix):
    out = tmp_path / f"out.{suffix}"
    assert main(["export", str(run), "--split", "minival", "--out", str(out)]) == 0
    text = out.read_text()
    entries = json.loads(text) if suffix == "json" else [json.loads(line) for line in text.splitlines()]
    assert f"{len(entries)} examples" in capsys.readouterr().out
    questions = json.loads((run.parents[2] / "data/toy/vqa/minival.json").read_text())
    assert [each["id"] for each in entries] == [each["question_id"] for each in questions]
    assert [each["question"] for each in entries] == [each["sent"] for each in questions]
    for each, question in zip(entries, questions, strict=True):
        [image] = each["images"]
        assert image["image_id"] == question["img_id"] and 0 < each["probability"] < 1
        assert len(image["words"]) == len(each["pieces"]) and each["pieces"][0] == "[CLS]"
        assert len(image["regions"]) == len(image["boxes"]) > 1 and max(image["regions"]) > 0
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_any_answer_of_the_list_can_be_exported(run):
    entries = export(run, "minival", "--answer", "red", "--method", "gradcam")
    assert {each["answer"] for each in entries} == {"red"} and {each["method"] for each in entries} == {"gradcam"}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["export", "RUN", "--split", "minival", "--out", "OUT.json", "--answer", "rad"], "'rad' is none of"),
        (["export", "RUN", "--split", "minival", "--out", "OUT.csv"], "expected a name that ends in .json"),
        (["export", "RUN", "--split", "nowhere", "--out", "OUT.json"], "nowhere"),
        (["perturb", "OUT", "--split", "minival"], "is no folder of a training"),
    ],
)
def test_what_a_command_cannot_do_is_said_in_one_message_and_leaves_no_file(
    run, tmp_path, capsys, command, message
):
    named = [each.replace("RUN", str(run)).replace("OUT", str(tmp_path / "out")) for each in command]
    assert main(named) == 1
    [line, *_] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert list(tmp_path.iterdir()) == []


def test_methods_are_named_once():
    assert (*METHODS, "random") == ORDERS
