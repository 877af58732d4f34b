"""Choosing regions: loss and metrics against loops, what padding changes, the scorer, and runs from end to end."""

import functools
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import TINY, said, summary, train

from lxmert.batch import Batch
from lxmert.callbacks.predictions import Rows
from lxmert.callbacks.regions import RegionExamples, RegionRows, make_region_example
from lxmert.config import LxmertConfig
from lxmert.evaluate import __main__ as evaluate
from lxmert.evaluate import box_iou, check_submission, score_regions
from lxmert.evaluate.scores import ScoringError
from lxmert.evaluate.tasks import REFCOCO
from lxmert.files import InputError
from lxmert.learner import LxmertLearner, objective_differences
from lxmert.model import Lxmert
from lxmert.objectives.region_choice import RegionChoice, RegionChoiceMetrics, overlap
from lxmert.objectives.shapes import Shapes, with_features
from lxmert.optim import adamw
from lxmert.outputs import LxmertModelOutput
from lxmert.report import write_report

CONFIG = LxmertConfig(
    vocab_size=30, hidden_size=16, num_attention_heads=2, intermediate_size=24, l_layers=1, r_layers=1, x_layers=2,
    visual_feat_dim=6, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.2,
)  # fmt: skip


def make_batch(seed=0, rows=7, images=3, regions=5, others=0):
    """Images with two to `regions` regions; the boxes meant are near some of these, so that all overlaps occur."""
    make = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=make)

    corners = uniform(images, regions, 2) * 0.6
    boxes = torch.cat([corners, corners + 0.05 + 0.3 * uniform(images, regions, 2)], -1)
    mask = torch.arange(regions) < 2 + torch.arange(images)[:, None] * (regions - 2) // max(images - 1, 1)
    size = torch.tensor([[200.0, 100.0], [50.0, 80.0], [640.0, 480.0]])[torch.arange(images) % 3]
    row_image = torch.arange(rows) % images

    def meant(which):
        near = boxes[row_image, which] * size[row_image].repeat(1, 2)
        near[:, :2] += 3 * uniform(rows, 2)
        return torch.cat([near[:, :2], near[:, 2:] - near[:, :2]], 1)

    targets = {"box": meant(0), "image_size": size}
    if others:
        targets["others"] = torch.cat([meant(1)] * others, 1)
    return Batch(
        token_ids=torch.randint(5, 30, (rows, 4), generator=make),
        token_mask=torch.ones(rows, 4, dtype=torch.bool),
        region_features=uniform(images, regions, 6) * mask[..., None],
        region_boxes=boxes * mask[..., None],
        region_mask=mask,
        row_sentence=torch.arange(rows),
        row_image=row_image,
        targets=targets,
    )


def forward(batch, seed=0):
    torch.manual_seed(seed)
    model, objective = Lxmert(CONFIG), RegionChoice(CONFIG)
    batch = objective.prepare_batch(batch, 0)
    return objective, objective(model.encode(batch, {"vision"}), batch, model)


def naive_iou(box, other):
    """Of x1, y1, x2, y2 in pixels, each side a pixel longer."""
    width = min(box[2], other[2]) - max(box[0], other[0]) + 1
    height = min(box[3], other[3]) - max(box[1], other[1]) + 1
    both = max(width, 0) * max(height, 0)
    areas = [(each[2] - each[0] + 1) * (each[3] - each[1] + 1) for each in (box, other)]
    return both / (sum(areas) - both)


def naive(batch, scores):
    """Loss, and for each row the chosen region, whether it is right, its overlap, what is in reach, and chance."""
    total, rows = 0.0, []
    for row, image in enumerate(batch.row_image.tolist()):
        width, height = batch.targets["image_size"][image].tolist()
        regions = [
            [side * (width, height)[k % 2] for k, side in enumerate(box.tolist())]
            for box in batch.region_boxes[image][batch.region_mask[image]]
        ]
        given = batch.targets["box"][row].tolist() + (
            batch.targets["others"][row].tolist() if "others" in batch.targets else []
        )
        given = [(x, y, x + w, y + h) for x, y, w, h in zip(*[iter(given)] * 4, strict=True)]
        ious = [naive_iou(region, given[0]) for region in regions]
        labels, allowed = ious, list(range(len(regions)))
        if len(given) > 1:
            of = [max(range(len(regions)), key=lambda n, g=g: naive_iou(regions[n], g)) for g in given]
            labels, allowed = [float(n == of[0]) for n in range(len(regions))], sorted(set(of))
        for n in allowed:
            score = scores[row][n].item()
            total += math.log1p(math.exp(-score)) * labels[n] + math.log1p(math.exp(score)) * (1 - labels[n])
        best = max(allowed, key=lambda n: scores[row][n].item())  # of equal ones the first
        hits = [n for n in allowed if labels[n] > 0.5]
        near = any(ious[n] > 0.5 for n in hits)
        rows.append((best, labels[best] > 0.5, ious[best], near, len(hits) / len(allowed)))
    return total / len(rows), rows


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 600), min_size=8, max_size=8))
def test_the_overlap_of_two_boxes_is_that_of_the_scorer_and_of_a_loop(numbers):
    boxes = [[*numbers[i : i + 2], numbers[i] + numbers[i + 2], numbers[i + 1] + numbers[i + 3]] for i in (0, 4)]
    expected = naive_iou(*boxes)
    one, other = torch.tensor(boxes, dtype=torch.float64)
    assert overlap(one[None], other[None]).item() == pytest.approx(expected, abs=1e-9)
    assert box_iou(numbers[:4], numbers[4:]) == pytest.approx(expected, abs=1e-9)
    assert box_iou(numbers[:4], numbers[:4]) == pytest.approx(1)


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_choice_are_those_of_a_loop_over_rows_and_regions(seed, others):
    batch = make_batch(seed, others=others)
    objective, result = forward(batch, seed)
    torch.manual_seed(seed)  # another model of the same seed gives the head's inputs
    states = Lxmert(CONFIG).encode(batch, {"vision"}).vision_output
    loss, rows = naive(batch, objective.head(states))
    assert result.losses["region_choice"].item() == pytest.approx(loss, rel=1e-5)
    assert result.predictions["region"].tolist() == [row[0] for row in rows]
    for row, image in enumerate(batch.row_image.tolist()):
        chosen = batch.region_boxes[image, result.predictions["region"][row]]
        assert torch.equal(result.predictions["box"][row], chosen)


@pytest.mark.parametrize("others", [0, 2])
def test_metrics_are_those_of_a_loop_with_ties_padding_and_splits(others):
    objective = RegionChoice(CONFIG)
    metrics = objective.make_metrics({"split": ["testA", "testB"]})
    assert isinstance(metrics, RegionChoiceMetrics)
    found = []
    for seed in range(4):
        batch = make_batch(seed, rows=11, others=others)
        split = torch.arange(11) % 2
        batch = replace(batch, targets=batch.targets | {"split": split})
        scores = torch.randint(
            -1, 2, (11, 5), generator=torch.Generator().manual_seed(seed)
        ).float()  # mostly ties
        objective.head = torch.nn.Identity()
        result = objective(LxmertModelOutput(vision_output=scores), batch, None)
        metrics.update(result, batch)
        loss, rows = naive(batch, scores)
        assert result.losses["region_choice"].item() == pytest.approx(loss, rel=1e-5)
        assert result.predictions["region"].tolist() == [row[0] for row in rows]
        found += [(code, *row[1:]) for code, row in zip(split.tolist(), rows, strict=True)]
    values = {name: value.item() for name, value in metrics.compute().items()}
    for place, name in enumerate(("accuracy", "iou", "reachable", "chance"), 1):
        assert values.pop(name) == pytest.approx(np.mean([row[place] for row in found]))
        for code, split in enumerate(("testA", "testB")):
            expected = np.mean([row[place] for row in found if row[0] == code])
            assert values.pop(f"{name}/split/{split}") == pytest.approx(expected)
    assert not values
    assert 0 < np.mean([row[1] for row in found]) < 1


@pytest.mark.parametrize("others", [0, 2])
def test_padding_and_filling_up_change_neither_loss_nor_gradients(others):
    batch = make_batch(5, others=others)
    objective, result = forward(batch)
    result.losses["region_choice"].backward()
    expected = [parameter.grad.clone() for parameter in objective.parameters()]
    shapes = Shapes(7, 9, [objective])
    longer = shapes.lengthen(batch)
    shapes.measure([longer])
    shapes.levels = [{name: size + 3 for name, size in shapes.levels[0].items()}]
    filled = with_features(shapes.fill(longer))
    assert filled.region_mask.shape == (6, 9) and filled.targets["image_size"].shape == (6, 2)
    objective, result = forward(filled)
    result.losses["region_choice"].backward()
    assert result.losses["region_choice"].item() == pytest.approx(
        forward(batch)[1].losses["region_choice"].item(), rel=1e-5
    )
    for parameter, gradient in zip(objective.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)


def test_every_weight_that_learns_gets_a_gradient():
    optimizer = functools.partial(adamw, lr=1e-3)
    learner = LxmertLearner(
        Lxmert(CONFIG), {"a": RegionChoice(CONFIG)}, optimizer, warmup=0, label_names={}, seed=0
    )
    sum(learner._compute_losses(make_batch()).values()).backward()
    learnt = {name: parameter.grad for name, parameter in learner.named_parameters() if parameter.requires_grad}
    assert all(gradient is not None for gradient in learnt.values())  # DDP would wait for it
    assert {
        "objectives.a.head.logit_fc.0.weight",
        "model.encoder.x_layers.1.visn_output.dense.weight",
    } <= learnt.keys()


def test_without_a_box_there_is_a_choice_and_no_loss():
    torch.manual_seed(0)
    objective, batch = RegionChoice(CONFIG), make_batch()
    vision = torch.randn(7, 5, CONFIG.hidden_size)
    known = objective(LxmertModelOutput(vision_output=vision), batch, None)
    batch.targets.pop("box")
    found = objective(LxmertModelOutput(vision_output=vision), batch, None)
    assert not found.losses and known.losses and found.predictions.keys() == {"scores", "region", "box"}
    for name, expected in found.predictions.items():
        torch.testing.assert_close(expected, known.predictions[name])


def test_a_checkpoint_of_other_objectives_is_refused_in_words():
    (line,) = objective_differences({"matching": "cls.seq_relationship"}, {"region_choice": "choice_head"})
    assert line.startswith("objectives: matching in the checkpoint, region_choice in this run") and "init=" in line
    assert (
        objective_differences({"answering": "a"}, {"answering": "a"})
        == objective_differences(None, {"x": "y"})
        == []
    )


def test_data_that_does_not_say_what_is_meant_is_refused():
    batch = replace(make_batch(), targets={})
    with pytest.raises(InputError, match="region_choice needs the target image_size"):
        RegionChoice(CONFIG).prepare_batch(batch, 0)


# ------------------------------------------------------------------------------------------- scoring

TRUTH = [
    {"id": 1, "box": [0, 0, 9, 9]},
    {"id": 2, "box": [50, 50, 20, 10], "others": [[52, 50, 20, 10], [0, 0, 5, 5]]},
]


@pytest.mark.parametrize(
    ("boxes", "accuracy"),
    [
        ([[0, 0, 9, 9], [50, 50, 20, 10]], 100),
        ([[0, 0, 9, 4], [51, 50, 20, 10]], 50),  # half of it: 0.5 and no more; as near to one of the others
        (
            [[5, 5, 9, 9], [52, 50, 20, 10]],
            0,
        ),  # the second is one of the others, though it overlaps by more than 0.5
    ],
)
def test_a_box_is_right_that_overlaps_by_more_than_half_and_none_of_the_others_more(boxes, accuracy):
    report = score_regions([{"id": n, "box": box} for n, box in enumerate(boxes, 1)], TRUTH)
    ious = [naive_iou(*((x, y, x + w, y + h) for x, y, w, h in (box, row["box"])))
            for box, row in zip(boxes, TRUTH, strict=True)]  # fmt: skip
    assert report.metrics == pytest.approx({"accuracy": accuracy, "iou": 100 * np.mean(ious)})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1, "box": [0, 0, 1, 1]}], "no prediction for 1 sentences: 2"),
        ([{"id": n, "box": [0, 0, 1, 1]} for n in (1, 2, 3)], "1 ids are not in the annotations: 3"),
        ([{"id": n, "box": [0, 0, 1, 1]} for n in (1, 1)], "id 1 is there a second time"),
        ([{"id": 1, "box": [0, 0, 1]}], r"box of 1 is \[0, 0, 1\]"),
        ([{"id": "1", "box": [0, 0, 1, 1]}], "id is '1', expected an integer"),
        ({"1": [0, 0, 1, 1]}, "expected a list"),
    ],
)
def test_predictions_that_cannot_be_scored_are_refused(rows, message):
    with pytest.raises(ScoringError, match=message):
        score_regions(rows, TRUTH)


def test_a_file_of_boxes_is_checked_as_a_submission():
    rows = [{"id": 1, "box": [0, 0, 1, 1]}, {"id": 2, "box": "red"}]
    assert check_submission(REFCOCO, rows[:1], [1]) == []
    assert check_submission(REFCOCO, rows, [1, 2]) == [
        "1 answers are not a box [x, y, width, height]: 'red' for 2"
    ]


# --------------------------------------------------------------------------------------- rows, examples


def test_rows_of_all_processes_come_together_by_their_place():
    parts = [RegionRows(np.array(places), np.array(places)[:, None] * np.ones(4), np.array(places) / 10)
             for places in ([3, 0], [2], [1])]  # fmt: skip
    whole = Rows.of(parts)
    assert whole.places.tolist() == [0, 1, 2, 3] and whole.box[:, 3].tolist() == [0, 1, 2, 3]
    assert whole.take(slice(1, 3)).score.tolist() == [0.1, 0.2]


def test_an_example_shows_the_chosen_box_and_the_one_that_is_meant(tmp_path):
    batch = replace(make_batch(1, rows=2, images=1, regions=4), example_places=[0, 1], image_ids=["<i>"])
    _, result = forward(batch)
    result.predictions["scores"][0, :2] = torch.tensor([5.0, -torch.inf])
    data = SimpleNamespace(
        picture=lambda name: None, datasets={"test": SimpleNamespace(sentence=lambda place: "the <b> cat")}
    )
    example = make_region_example(data, "test", result.predictions, batch, 0)
    meant, chosen = example.views[0].frames
    assert (meant.name, meant.dashed, chosen.name, chosen.dashed) == ("meant", True, "chosen", False)
    x, y, width, height = batch.targets["box"][0].tolist()
    assert meant.box == pytest.approx([x / 200, y / 100, (x + width) / 200, (y + height) / 100], abs=1e-6)
    assert chosen.box == pytest.approx(batch.region_boxes[0, 0].tolist())
    assert example.predictions[0] == ("box 0", pytest.approx(1 / (1 + math.exp(-5))))
    right = {f"box {n}": iou for n, iou in enumerate(result.predictions["ious"][0].tolist()) if iou > 0.5}
    assert example.answers == pytest.approx(right)
    assert example.verdict == ("right" if "box 0" in right else "wrong" if right else "")
    write_report(tmp_path / "page.html", {}, "title", "", [example], note=RegionExamples.note)
    html = (tmp_path / "page.html").read_text()
    assert '"name": "meant"' in html or '"name":"meant"' in html
    assert "Orange: the region that was chosen" in html and "the &lt;b&gt; cat" in html


# --------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A fit of the toy and its test, in a folder of its own, and the overrides of its world."""
    folder = tmp_path_factory.mktemp("regions")
    world = [
        f"data.world.{split}={count}" for split, count in {"train": 24, "val": 6, "testA": 5, "testB": 4}.items()
    ]
    overrides = ["experiment=toy_refcoco", *TINY, *world, "data.world.pictures=1", "data.batch_size=12"]
    return folder, overrides, train(*overrides, "trainer.max_epochs=2", folder=folder)


def test_a_run_leaves_boxes_of_each_split_that_the_scorer_measures_as_it_did(run, tmp_path):
    folder, _, done = run
    measured = summary(done)["metrics"]
    for split in ("val", "testA", "testB"):
        truth, file = (
            folder / "data" / "toy_refcoco" / "refcoco" / f"{split}.json",
            done / "predictions" / f"{split}.json",
        )
        rows, expected = (json.loads(path.read_text()) for path in (file, truth))
        assert [row["id"] for row in rows] == sorted(row["id"] for row in expected)
        assert all(0 < row["score"] < 1 and row.keys() == {"id", "box", "score"} for row in rows)
        assert evaluate.main(["refcoco", str(file), str(truth), "--json", str(tmp_path / "scores.json")]) == 0
        scores = json.loads((tmp_path / "scores.json").read_text())["metrics"]
        for name in ("accuracy", "iou"):
            assert measured[f"test/official/{name}/split/{split}"] * 100 == pytest.approx(scores[name], abs=0.01)
            assert measured[f"test/region_choice/{name}/split/{split}"] * 100 == pytest.approx(
                scores[name], abs=0.02
            )
    assert measured["test/region_choice/reachable"] == 1 > measured["test/region_choice/chance"] > 0
    assert measured["val/loss"] < 8  # 16 regions' cross-entropy where nothing is known: 16 log 2
    assert summary(done)["baselines"].keys() == {"best guess from the text alone", "any thing of the picture"}
    html = (done / "report.html").read_text()
    assert html.count("<div class='card") == 24 and "Orange: the region that was chosen" in html


def test_two_processes_choose_as_one_did(run):
    folder, overrides, done = run
    best = f"checkpoint={done}/checkpoints/best.ckpt"
    again = train(*overrides, "action=test", best, "trainer.devices=2", "callbacks.examples=null", folder=folder)
    for split in ("val", "testA", "testB"):
        one, two = (json.loads((each / "predictions" / f"{split}.json").read_text()) for each in (done, again))
        assert [row["id"] for row in one] == [row["id"] for row in two]
        for name in ("box", "score"):
            np.testing.assert_allclose([row[name] for row in two], [row[name] for row in one], atol=2e-3)
    assert "not valid" not in said(folder)
