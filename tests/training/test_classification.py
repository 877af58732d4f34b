"""Classification: its loss and metrics against torch and loops, its data, a run on the makers' files."""

import csv
import io
import json
import math
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from folders import F, write_regions, write_vocabulary
from omegaconf import OmegaConf
from runs import NO_PAGE, checkpoint, said, summary, train

from datamodules.vqa import VqaDataModule
from lxmert import LxmertConfig, LxmertForQuestionAnswering, load_run
from lxmert.evaluate.__main__ import main as evaluate
from lxmert.files import InputError
from lxmert.learner import LxmertLearner
from lxmert.model import Lxmert
from lxmert.objectives.base import Result
from lxmert.objectives.classification import Classification
from lxmert.objectives.metrics import Auroc
from lxmert.outputs import LxmertModelOutput
from train import initialize_from

CLASSES = ["entailment", "neutral", "contradiction"]


def area_by_pairs(scores, truth):
    """Of all pairs of a positive (1) and a negative (0), how many are in order; a tie is half."""
    pairs = [(a, b) for a, p in zip(scores, truth, strict=True) if p == 1
             for b, q in zip(scores, truth, strict=True) if q == 0]  # fmt: skip
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs) if pairs else None


def make(sizes, classes=CLASSES, **parameters):
    config = LxmertConfig(**{**sizes, "num_qa_labels": len(classes)}, answers=list(classes))
    torch.manual_seed(0)
    return Classification(config, **parameters), config


def losses_of(objective, config, targets):
    """The loss on random states, and the scores that it is of."""
    pooled = torch.rand(len(targets), config.hidden_size)
    result = objective(
        LxmertModelOutput(None, None, pooled), SimpleNamespace(targets={"answer_scores": targets}), None
    )
    return result.losses["classification"], result.predictions["answer_scores"]


# ------------------------------------------------------------------------------------------ the loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_the_loss_is_torchs_cross_entropy_over_the_rows_whose_class_is_known(sizes, smoothing):
    objective, config = make(sizes, label_smoothing=smoothing)
    labels = torch.tensor([2, 0, -100, 1, 1])
    targets = torch.nn.functional.one_hot(labels.clamp(min=0), 3).float() * (labels >= 0)[:, None]
    for training in (True, False):
        loss, scores = losses_of(objective.train(training), config, targets)
        each = torch.nn.CrossEntropyLoss(label_smoothing=smoothing * training)
        torch.testing.assert_close(loss, each(scores, labels))


def test_several_scores_of_a_row_are_its_classes_shares(sizes):
    objective, config = make(sizes)
    targets = torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.6, 0.6], [0.0, 0.0, 0.5]])
    loss, scores = losses_of(objective, config, targets)
    logs = scores.log_softmax(1)
    by_hand = [(logs[0, 0] + 0.3 * logs[0, 1]) / 1.3, (logs[1, 1] + logs[1, 2]) / 2, logs[2, 2]]
    torch.testing.assert_close(loss, -sum(by_hand) / 3)


def test_without_a_known_class_the_loss_is_zero_and_gradients_are_finite(sizes):
    objective, config = make(sizes, label_smoothing=0.1)
    loss, _ = losses_of(objective, config, torch.zeros(3, 3))
    loss.backward()
    assert loss.item() == 0 and all(each.grad.isfinite().all() for each in objective.parameters())


def test_probabilities_add_up_to_one_and_what_is_unlabelled_is_predicted(sizes):
    objective, config = make(sizes)
    output = LxmertModelOutput(None, None, torch.rand(4, config.hidden_size))
    result = objective(output, SimpleNamespace(targets={}), None)
    assert result.losses == {}
    torch.testing.assert_close(objective.probabilities(result.predictions["answer_scores"]).sum(1), torch.ones(4))


def test_a_single_class_and_a_smoothing_that_is_none_are_refused_by_name(sizes):
    with pytest.raises(InputError, match=r"needs two classes or more, and the data has \['yes'\].*data\.classes"):
        make(sizes, ["yes"])
    for smoothing in (-0.1, 1.0, math.nan):
        with pytest.raises(InputError, match=r"objective\.classification\.label_smoothing="):
            make(sizes, label_smoothing=smoothing)


# ------------------------------------------------------------------------------------------ the metrics


def measured(objective, scores, targets, splits):
    """The metrics of a pass in batches of seven."""
    metrics = objective.make_metrics({"split": ["easy", "hard"], "answer_type": [], "question_type": []})
    for rows in torch.arange(len(scores)).split(7):
        batch = SimpleNamespace(targets={"answer_scores": targets[rows], "split": splits[rows]})
        metrics.update(Result({}, {"answer_scores": scores[rows]}), batch)
    return {name: value.item() for name, value in metrics.compute().items()}


@pytest.mark.parametrize("classes", [CLASSES, ["no", "yes"]])
def test_metrics_are_those_of_loops_over_the_rows_whose_class_is_known(sizes, classes):
    torch.manual_seed(1)
    labels, splits = torch.randint(-1, len(classes), (60,)), torch.randint(0, 2, (60,))
    targets = torch.nn.functional.one_hot(labels.clamp(min=0), len(classes)).float() * (labels >= 0)[:, None]
    scores = torch.randint(0, 4, (60, len(classes))).float()  # with ties
    found = measured(make(sizes, classes)[0], scores, targets, splits)
    guessed = scores.argmax(1)
    chosen = {"": labels >= 0} | {
        f"/split/{n}": (labels >= 0) & (splits == i) for i, n in enumerate(("easy", "hard"))
    }
    expected = {
        f"accuracy{name}": (guessed == labels)[rows].float().mean().item() for name, rows in chosen.items()
    }
    for code, name in enumerate(classes):
        expected[f"accuracy/class/{name}"] = (guessed == code)[labels == code].float().mean().item()
    if len(classes) == 2:
        positive = scores.softmax(1)[:, 1]
        expected |= {
            f"auroc{n}": area_by_pairs(positive[r].tolist(), labels[r].tolist()) for n, r in chosen.items()
        }
    assert found == pytest.approx(expected, abs=1e-7)


def test_the_auroc_of_a_pass_is_that_of_all_pairs_in_a_thousand_random_cases_with_ties():
    metric, draw, seen = Auroc(), random.Random(0), 0
    for _ in range(1000):
        size = draw.randrange(2, 30)
        scores = torch.tensor([draw.randrange(6) / 7 for _ in range(size)])
        truth = torch.tensor([draw.choice((-1, 0, 0, 1)) for _ in range(size)])
        metric.reset()
        for rows in torch.arange(size).split(draw.randrange(1, 12)):
            metric.update(scores[rows], truth[rows], {})
        found, expected = metric.compute(), area_by_pairs(scores.tolist(), truth.tolist())
        assert found.keys() == ({"auroc"} if expected is not None else set())
        if expected is not None:
            assert abs(found["auroc"].item() - expected) < 1e-9
            seen += 1
    assert seen > 900


# --------------------------------------------------------------------------------------------- the data


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def pairs(labels, image="Flikr30kID", ending=".jpg"):
    """SNLI-VE's rows, the image as one of its two releases calls it."""
    return [
        {
            "pairID": f"{n % 3}.jpg#0r{n}",
            image: f"{n % 3}{ending}",
            "gold_label": label,
            "annotator_labels": [label],
            "sentence1": "is there",
            "sentence2": ["there is one red cat", "many are red"][n % 2],
        }
        for n, label in enumerate(labels)
    ]


def snli_ve(folder, **changes):
    """SNLI-VE's data module, opened as for training."""
    write_regions(folder / "flickr30k_imgfeat" / "any.tsv", {str(n): n for n in range(3)})
    write_vocabulary(folder / "vocab.txt")
    options = {
        "task": "classes", "folder": "snli_ve", "region_folder": "flickr30k_imgfeat", "columns": {},
        "classes": CLASSES, "train": "snli_ve_train", "valid": "snli_ve_dev", "test": "snli_ve_dev",
        "unknown_labels": "stop", "feature_dim": F, **changes,
    }  # fmt: skip
    data = VqaDataModule(folder, folder / "vocab.txt", **options)
    data.prepare_data("fit")
    data.setup("fit")
    return data


@pytest.mark.parametrize(("image", "ending"), [("Flikr30kID", ".jpg"), ("Flickr30K_ID", "")])
def test_snli_ve_is_read_as_its_makers_publish_it_without_undecided_pairs(tmp_path, caplog, image, ending):
    for split in ("train", "dev"):
        labels = ["neutral", "-", "contradiction", "entailment", "entailment"]
        lines(tmp_path / "snli_ve" / f"snli_ve_{split}.jsonl", pairs(labels, image, ending))
    with pytest.raises(
        InputError, match=r"train\.jsonl: the labels of 1 of its 5 .* '0?1?.*data\.unknown_labels=drop"
    ):
        snli_ve(tmp_path)
    data = snli_ve(tmp_path, unknown_labels="drop")
    assert (
        "the labels of 1 of its 5 examples, such as ['-'] of '1.jpg#0r1', are none of the 3 classes" in caplog.text
    )
    assert data.answers == CLASSES
    [batch] = data.val_dataloader()
    truth = dict(zip(batch.example_ids, batch.targets["answer_scores"].argmax(1).tolist(), strict=True))
    assert truth == {"0.jpg#0r0": 1, "2.jpg#0r2": 2, "0.jpg#0r3": 0, "1.jpg#0r4": 0}
    assert data.report()["snli_ve_dev"]["examples"] == 4
    assert sorted(batch.image_ids) == ["0", "1", "2"]
    assert data.baselines() == {"best guess from the text alone": 0.5}  # of the rows that are used


def test_a_class_of_validation_that_training_lacks_ends_the_run_by_name(tmp_path):
    lines(tmp_path / "snli_ve" / "snli_ve_train.jsonl", pairs(["yes", "no", "no"]))
    lines(tmp_path / "snli_ve" / "snli_ve_dev.jsonl", pairs(["no", "maybe", "yes"]))
    with pytest.raises(
        InputError,
        match=r"dev\.jsonl: the labels of 1 of its 3 examples, such as \['maybe'\] of '1\.jpg#0r1', are none of "
        r"the 2 classes \['no', 'yes'\]\..*data\.classes=",
    ):
        snli_ve(tmp_path, classes=None)
    data = snli_ve(tmp_path, classes=None, unknown_labels=None)  # as questions have it, whose answers are many
    assert data.answers == ["no", "yes"]
    [batch] = data.val_dataloader()
    assert batch.targets["answer_scores"].sum().item() == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["a", "b", "a"]}, r"data\.classes=\['a', 'b', 'a'\]; expected texts, each once"),
        ({"classes": ["a", ""]}, r"expected texts, each once"),
        ({"classes": OmegaConf.to_container(OmegaConf.create("[no, yes]"))}, r'in quotes, .* \["no", "yes"\]'),
        ({"unknown_labels": "ignore"}, r"data\.unknown_labels=ignore; expected stop, drop or null"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        VqaDataModule(tmp_path, tmp_path / "vocab.txt", **changes)


def test_an_image_with_a_folder_is_found_by_its_name_where_it_is_one_image(tmp_path):
    rows = pairs(["neutral"] * 3)
    for split in ("train", "dev"):
        lines(
            tmp_path / "snli_ve" / f"snli_ve_{split}.jsonl",
            [{**r, "Flikr30kID": f"img/{r['Flikr30kID']}"} for r in rows],
        )
    assert snli_ve(tmp_path).datasets["valid"].images.tolist() == [0, 1, 2]
    rows = [{**row, "Flikr30kID": f"{'ab'[n % 2]}/1.jpg"} for n, row in enumerate(rows)]
    for split in ("train", "dev"):
        lines(tmp_path / "snli_ve" / f"snli_ve_{split}.jsonl", rows)
    with pytest.raises(InputError, match=r"2 of its 2 images have no regions.*a/1\.jpg, b/1\.jpg"):
        snli_ve(tmp_path)


# ---------------------------------------------------------------------------------------------- a run

TINY = [
    "trainer=cpu", "model.hidden_size=8", "model.num_attention_heads=2", "model.intermediate_size=12",
    "model.l_layers=1", "model.r_layers=1", "model.x_layers=1", f"model.visual_feat_dim={F}",
    "trainer.max_epochs=2", "trainer.log_every_n_steps=3", "data.batch_size=4", "data.workers=0",
    "optimizer=adamw",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Hateful Memes' files, made up."""
    folder = tmp_path_factory.mktemp("memes")
    write_regions(folder / "data" / "hateful_memes_imgfeat" / "any.tsv", {str(n): n for n in range(9)})
    write_vocabulary(folder / "data" / "vocab.txt")
    for split, numbers in {"train": range(13), "dev_seen": range(20, 29), "test_seen": range(30, 35)}.items():
        rows = [
            {"id": n, "img": f"img/{n % 9}.png", "label": int(n % 3 == 0), "text": ["there is", "how many"][n % 2]}
            for n in numbers
        ]
        for row in rows if split == "test_seen" else ():
            del row["label"]
        lines(folder / "data" / "hateful_memes" / f"{split}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def command(folder):
    return ["experiment=hateful_memes", *TINY, f"data.tokenizer={folder}/data/vocab.txt"]


@pytest.fixture(scope="module")
def run(folder, command):
    return train(*command, folder=folder)


def test_hateful_memes_is_learnt_scored_shown_and_submitted_from_the_makers_files(folder, run):
    told = summary(run)["metrics"]
    assert {"test/classification/accuracy/class/1", "val/classification/auroc"} <= set(told)
    table = run / "predictions" / "dev_seen.csv"
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [int(row["id"]) for row in rows] == list(range(20, 29))
    truth = [int(int(row["id"]) % 3 == 0) for row in rows]
    area = area_by_pairs([float(row["proba"]) for row in rows], truth)
    assert told["test/classification/auroc"] == pytest.approx(area, abs=1e-6)
    assert all((float(row["proba"]) > 0.5) == (row["label"] == "1") for row in rows)
    memes = folder / "data" / "hateful_memes" / "dev_seen.jsonl"
    assert evaluate(["check", "hateful_memes", str(table), str(memes)]) == 0
    assert evaluate(["hateful_memes", str(table), str(memes), "--json", str(folder / "scores.json")]) == 0
    scored = json.loads((folder / "scores.json").read_text())["metrics"]
    assert scored["auroc"] == pytest.approx(100 * area, abs=0.006)
    assert scored["accuracy"] == pytest.approx(100 * told["test/classification/accuracy"], abs=0.006)
    assert (run / "report.html").read_text().count("<div class='card") == 9
    assert json.loads((run / "run.json").read_text())["probabilities"] == "softmax"
    opened = load_run(run)
    assert isinstance(opened.model, LxmertForQuestionAnswering) and opened.answers == ["0", "1"]
    best = np.load(run / "predictions" / "dev_seen_scores.npz")["probability"]
    np.testing.assert_allclose(best.sum(1), 1, atol=1e-6)
    assert checkpoint(run, "best")["heads"] == {"classification": "answer_head"}


@pytest.fixture
def sorted_dev(folder):
    """Of dev_seen, whose first batch then has one class alone."""
    path = folder / "data" / "hateful_memes" / "dev_seen.jsonl"
    before = path.read_text()

    def write(*labels):
        rows = [json.loads(line) for line in before.splitlines()]
        lines(path, sorted((row for row in rows if row["label"] in labels), key=lambda row: -row["label"]))

    yield write
    path.write_text(before)


def test_a_first_batch_of_one_class_says_nothing_against_monitoring_the_auroc(folder, command, sorted_dev):
    sorted_dev(0, 1)
    once = train(*command, "data.eval_batch_size=3", NO_PAGE, folder=folder)
    assert 0 <= summary(once)["metrics"]["val/classification/auroc"] <= 1


def test_a_validation_of_one_class_alone_cannot_be_monitored_by_its_auroc(folder, command, sorted_dev):
    sorted_dev(0)
    told = train(*command, NO_PAGE, folder=folder, fails=True)
    assert "monitors 'val/classification/auroc', which the rows of this validation do not measure" in told
    assert "Traceback" not in said(folder)
    train(*command, NO_PAGE, "callbacks.best.monitor=val/loss", "callbacks.best.mode=min", folder=folder)


def test_labels_that_a_checkpoint_does_not_have_are_refused(folder, command, run):
    used = ["action=test", f"checkpoint={run}", "data.classes=[0,1,2]", NO_PAGE]
    told = train(*command, *used, folder=folder, fails=True)
    assert (
        "answers: 2 in the checkpoint, 3 in the data; only in the checkpoint (0): []; only in the data (1): ['2']"
        in told
    )
    assert "Traceback" not in said(folder)


def test_weights_of_another_run_keep_the_classes_of_the_same_name(run):
    saved = checkpoint(run, "best")
    old = LxmertConfig.from_dict(saved["lxmert_config"])
    config = replace(old, answers=["2", "1"], num_qa_labels=2)
    learner = LxmertLearner(
        Lxmert(config),
        {"classification": Classification(config)},
        torch.optim.AdamW,
        warmup=0,
        label_names={},
        seed=0,
    )
    path = str(run / "checkpoints" / "best.ckpt")
    initialize_from(learner, path, path)
    name = "objectives.classification.head.logit_fc.3.weight"
    theirs, ours = saved["state_dict"][name], learner.state_dict()[name]
    assert torch.equal(ours[1], theirs[1]) and ours[0].abs().sum() == 0
    with pytest.raises(InputError, match=r"answers: 2 in the checkpoint, 2 in the data; only in the .*\['0'\]"):
        learner.on_load_checkpoint(saved)
