"""What no run of the toys shows of prediction files, of the makers' metrics and of examples."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules.batches import ExampleDataset, Part
from datamodules.stores import ExampleStore, write_examples
from lxmert import LxmertConfig, LxmertForQuestionAnswering, LxmertForVisualReasoning
from lxmert.batch import Batch
from lxmert.callbacks import Examples, PredictionFiles, make_example, official_scores
from lxmert.evaluate import TASKS, ScoringError
from lxmert.explain import explain
from lxmert.files import InputError
from lxmert.objectives.answering import Answering
from lxmert.objectives.base import Result
from lxmert.objectives.image_pair import ImagePair
from lxmert.tokenization import LxmertTokenizer

VQA = ["cat", "dog", "red", "2", "yes", "no"]
ANSWERS = {"gqa": ["cat", "dog", "red"], "nlvr2": ["False", "True"], "vqa": VQA, "vizwiz": VQA, "own": VQA}
NAMES = dict.fromkeys(ANSWERS, "answering") | {"nlvr2": "image_pair"}


def make_learner(task):
    return SimpleNamespace(
        model=SimpleNamespace(config=SimpleNamespace(answers=ANSWERS[task])),
        objectives={NAMES[task]: SimpleNamespace(probabilities=lambda scores: scores.softmax(1))},
    )


def make_data(folder, task, splits, role="test", label=None):
    """What a data module has of these splits: split -> ids; the question of id i asks "is it i?" of image i."""
    parts = []
    for name, ids in splits.items():
        with write_examples(folder / f"{name}.h5", labelled=label is not None) as writer:
            writer.append(
                texts=[f'is it "{i}", é?' for i in ids],
                ids=ids,
                images=[f"Image_{i}" for i in ids],
                labels=[label or {}] * len(ids),
                groups={},
            )
        store = ExampleStore(folder / f"{name}.h5")
        parts.append(Part(store, np.zeros(len(store.table("image")) + 1, np.int64), np.full(99, -1), {}))
    dataset = ExampleDataset(parts, [], LxmertTokenizer(), num_answers=1)
    return SimpleNamespace(
        task=task,
        splits={role: list(splits)},
        datasets={role: dataset},
        scoring_files=lambda split: (
            {"statements": path} if task == "nlvr2" and (path := folder / f"{split}.json").exists() else {}
        ),
    )


def make_trainer(data, batches=1, length=1):
    return SimpleNamespace(
        is_global_zero=True,
        num_test_batches=[batches],
        num_predict_batches=[batches],
        test_dataloaders=[None] * length,
        predict_dataloaders=[None] * length,
        strategy=SimpleNamespace(broadcast=lambda value: value),
        datamodule=data,
    )


def predict(folder, data, places, best, **trainer):
    """Write the files of a prediction of the examples at `places`, with the answers `best`."""
    callback, learner = PredictionFiles(str(folder)), make_learner(data.task)
    trainer = make_trainer(data, **trainer)
    callback.on_predict_start(trainer, learner)
    for start in range(0, len(places), 5):
        batch = SimpleNamespace(example_places=places[start : start + 5])
        results = make_results(data.task, best[start : start + 5])
        callback.on_predict_batch_end(trainer, learner, results, batch, 0)
    callback.on_predict_epoch_end(trainer, learner)


def make_results(task, best):
    """What the learner gives of as many examples, the answers `best` having the highest scores."""
    scores = torch.eye(len(ANSWERS[task]))[best] * 3
    return {"other": Result(), NAMES[task]: Result(predictions={"answer_scores": scores})}


def official_of_a_test(folder, splits, best):
    """What a test of NLVR2 logs of the makers' metrics, whose statements are in `folder`/dev.json."""
    logged, learner = {}, make_learner("nlvr2")
    learner.log = lambda name, value, sync_dist: logged.update({name: value})
    trainer = make_trainer(make_data(folder, "nlvr2", splits))
    callback = PredictionFiles(str(folder))
    batch = SimpleNamespace(example_places=list(range(len(best))))
    callback.on_test_batch_end(trainer, learner, make_results("nlvr2", best), batch, 0)
    callback.on_test_epoch_end(trainer, learner)
    return logged


@pytest.fixture
def statements(tmp_path):
    """The makers' file of four statements."""
    rows = [{"identifier": f"dev-0-{pair}-0", "label": str(pair == 1)} for pair in range(4)]
    (tmp_path / "dev.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "dev.json"


def test_files_of_other_statements_are_warned_of_and_cost_no_other_result(tmp_path, statements, caplog):
    assert official_of_a_test(tmp_path, {"dev": ["dev-0-0-0", "dev-0-1-0"]}, [0, 1]) == {}
    assert (tmp_path / "dev.csv").exists()
    [message] = caplog.messages
    assert "dev.csv is not scored by the makers' rules" in message and str(statements) in message
    assert "no prediction for 2 statements: dev-0-2-0, dev-0-3-0" in message
    with pytest.raises(ScoringError):
        official_scores(TASKS["nlvr2"], tmp_path / "dev.csv", {"statements": statements})


def test_of_two_splits_at_once_each_has_the_makers_metrics_of_its_own(tmp_path, statements):
    every = [f"dev-0-{pair}-0" for pair in range(4)]
    found = official_of_a_test(tmp_path, {"dev": every, "train": every[:2]}, [0, 1, 0, 1, 1, 1])
    assert found.pop("test/official/accuracy/split/dev") == 0.75  # of train there is no file
    assert list(found) == ["test/official/consistency/split/dev"]
    assert (
        tmp_path / "dev.csv"
    ).read_text() == "dev-0-0-0,False\ndev-0-1-0,True\ndev-0-2-0,False\ndev-0-3-0,True\n"
    assert (tmp_path / "train.csv").read_text() == "dev-0-0-0,True\ndev-0-1-0,True\n"
    assert official_of_a_test(tmp_path, {"dev": every}, [0, 1, 0, 1])["test/official/accuracy"] == 0.75


# ------------------------------------------------------------------------------------- rows read, rows written


def written(folder, task, split):
    """The rows of the three files of a split: entries, ids of the scores, rows of the table."""
    with (folder / f"{split}_answers.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    rows = TASKS[task].read_submission(folder / f"{split}{TASKS[task].suffix}")
    return rows, np.load(folder / f"{split}_scores.npz"), table


@pytest.mark.parametrize(
    ("task", "ids", "first"),
    [
        ("vqa", [12, 3, 4], {"question_id": 3, "answer": "dog"}),
        ("vqa", ["q12", "q3", "q4"], {"question_id": "q12", "answer": "cat"}),
        ("own", ["q12", "q3", "q4"], {"question_id": "q12", "answer": "cat"}),
        ("gqa", ["12", "3", "4"], {"questionId": "12", "prediction": "cat"}),
        ("vizwiz", [12, 3, 4], {"image": "Image_12.jpg", "answer": "cat"}),
    ],
)
def test_two_splits_with_the_same_ids_lose_no_row(tmp_path, caplog, task, ids, first):
    data = make_data(tmp_path, task, {"val": ids, "test": ids[:2]}, "predict", {"cat": 0.3, "dog": 1.0})
    predict(tmp_path, data, [4, 1, 3, 0, 2], [2, 1, 2, 0, 1])  # in the order that a sampler may give them
    for split, best in {"val": ["cat", "dog", "dog"], "test": ["red", "red"]}.items():
        rows, scores, table = written(tmp_path, task, split)
        assert len(rows) == len(scores["question_id"]) == len(table) == len(best)
        assert (
            [row[TASKS[task].id_key] for row in rows]
            == scores["question_id"].tolist()
            == sorted(TASKS[task].id_of(i, f"Image_{i}") for i in ids[: len(best)])
        )
        by_id = {row[TASKS[task].id_key]: row[TASKS[task].answer_key] for row in rows}
        for id_, answer, row in zip(ids, best, table, strict=False):
            assert by_id[TASKS[task].id_of(id_, f"Image_{id_}")] == answer == row["answer_1"]
            assert (row["id"], row["image"], row["question"]) == (str(id_), f"Image_{id_}", f'is it "{id_}", é?')
            assert row["truth"] == "dog" and float(row["probability_1"]) > float(row["probability_2"])
            assert (row["answer_5"] == row["probability_5"] == "") == (task == "gqa")  # of three answers
    assert written(tmp_path, task, "val")[0][0] == first
    assert caplog.messages == []  # no server is told of where there is none, and word ids are as good


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([0, 1, 2, 3], "test: 2 rows were read and 1 predicted: 1 of them not at all, 0 twice"),
        ([0, 1, 2, 2, 3, 4], "val: 3 rows were read and 4 predicted: 0 of them not at all, 1 twice"),
        ([0, 1, 1, 3, 4], "val: 3 rows were read and 3 predicted: 1 of them not at all, 1 twice"),
    ],
)
def test_a_run_whose_rows_are_not_those_read_fails_and_writes_nothing(tmp_path, places, message):
    data = make_data(tmp_path, "vqa", {"val": [1, 2, 3], "test": [1, 2]}, "predict")
    with pytest.raises(InputError, match=message):
        predict(tmp_path / "out", data, places, [0] * len(places))
    assert not (tmp_path / "out").exists()


def test_rows_without_regions_and_those_beyond_a_limit_are_not_expected(tmp_path):
    data = make_data(tmp_path, "vqa", {"val": [1, 2, 3], "test": [1, 2]}, "predict")
    data.datasets["predict"].weights = np.array([1, 0, 1, 1, 1], np.float32)
    predict(tmp_path, data, [0, 2, 3, 4], [0] * 4)
    assert [len(written(tmp_path, "vqa", split)[0]) for split in ("val", "test")] == [2, 2]
    predict(tmp_path / "limited", data, [0, 2], [0, 1], batches=1, length=2)
    assert len(written(tmp_path / "limited", "vqa", "val")[0]) == 2
    assert not (tmp_path / "limited" / "test.json").exists()


def test_an_id_twice_in_one_split_ends_the_run_and_the_table_has_all_rows(tmp_path):
    data = make_data(tmp_path, "vqa", {"val": [7, 7, 8]}, "predict")
    with pytest.raises(InputError, match=r"val: 1 ids are of several rows: 7\. .*val_answers.csv has all rows"):
        predict(tmp_path, data, [0, 1, 2], [0, 1, 2])
    assert not (tmp_path / "val.json").exists()
    assert len((tmp_path / "val_answers.csv").read_text().splitlines()) == 4


# ------------------------------------------------------------------------------------------------ examples


def make_batch(rows_of_each):
    """Two examples of one or two rows, each about images of its own; image 1 has a region less."""
    rows = 2 * rows_of_each
    return Batch(
        token_ids=torch.tensor([[2, 10, 3], [2, 11, 3]]),
        token_mask=torch.ones(2, 3, dtype=torch.bool),
        region_features=torch.zeros(rows, 3, 4),
        region_boxes=torch.arange(rows * 12).view(rows, 3, 4).float(),
        region_mask=torch.arange(3) < torch.tensor([3, 2, 3, 3][:rows])[:, None],
        row_sentence=torch.arange(2).repeat_interleave(rows_of_each),
        row_image=torch.arange(rows).flip(0),
        targets={"statement": torch.tensor([1, 0])} if rows_of_each == 2 else {"answer_scores": torch.eye(2, 3)},
        example_ids=["a", "a"],  # of two splits
        example_places=[7, 8],
        image_ids=[f"image{n}" for n in range(rows)],
    )


@pytest.mark.parametrize(("task", "images"), [("nlvr2", [[3, 2], [1, 0]]), ("gqa", [[1], [0]])])
def test_an_example_shows_its_pictures_boxes_tints_and_answers(task, images):
    batch, each = make_batch(len(images[0])), len(images[0])
    words, regions = torch.rand(2, each, 3), torch.rand(2, each, 3)
    pieces = {2: "[CLS]", 3: "[SEP]", 10: "what", 11: "is"}
    datamodule = SimpleNamespace(
        picture=lambda image: f"{image}.png",
        tokenizer=SimpleNamespace(convert_ids_to_tokens=lambda ids: [pieces[i] for i in ids]),
        datasets={"test": SimpleNamespace(sentence=lambda place: f"What is <{'ab'[place - 7]}>?")},
    )
    answers, results = ANSWERS[task], make_results(task, [1, 0])
    for number in (0, 1):
        tints = words[number], regions[number]
        example = make_example(datamodule, "test", make_learner(task), results, batch, number, *tints)
        assert example.question == f"What is <{'ab'[number]}>?"
        assert [word for word, _ in example.words] == ["[CLS]", ["what", "is"][number], "[SEP]"]
        assert [tint for _, tint in example.words] == words[number].mean(0).tolist()
        assert [view.picture for view in example.views] == [f"image{i}.png" for i in images[number]]
        for place, (view, image) in enumerate(zip(example.views, images[number], strict=True)):
            real = 2 if image == 1 else 3
            assert view.boxes == batch.region_boxes[image][:real].tolist()
            assert view.tints == regions[number][place][:real].tolist()
        assert example.predictions[0][0] == answers[1 - number]
        truth = answers[1 - number] if task == "nlvr2" else answers[number]
        assert example.answers == {truth: 1.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("task", ["nlvr2", "gqa"])
def test_a_test_collects_what_explains_its_best_answers(sizes, task, dtype):
    torch.manual_seed(1)
    kind, objective = {
        "nlvr2": (LxmertForVisualReasoning, ImagePair), "gqa": (LxmertForQuestionAnswering, Answering)
    }[task]  # fmt: skip
    answers = ANSWERS[task]
    config = LxmertConfig(**{
        **sizes, "visual_feat_dim": 4, "num_qa_labels": len(answers), "answers": answers, "initializer_range": 0.3
    })  # fmt: skip
    model = kind(config).to(dtype)
    learned = objective(config)
    learned.head = model.pair_head if task == "nlvr2" else model.answer_head
    learner = SimpleNamespace(model=model.lxmert, objectives={NAMES[task]: learned})
    batch = make_batch(2 if task == "nlvr2" else 1)
    batch.region_features.normal_()
    batch.region_boxes.uniform_()
    trainer = make_trainer(None)
    trainer.testing = True
    trainer.datamodule = SimpleNamespace(
        picture=lambda image: None,
        tokenizer=SimpleNamespace(convert_ids_to_tokens=lambda ids: [f"piece {i}" for i in ids]),
        datasets={"test": SimpleNamespace(sentence=lambda place: f"question {place}")},
    )
    examples = Examples("page.html", count=2)
    with torch.inference_mode():  # as Lightning tests
        results = {NAMES[task]: learned(model.lxmert.encode(batch, {"pooled"}), batch, model.lxmert)}
        examples.on_test_batch_end(trainer, learner, results, batch, 0)
    best = results[NAMES[task]].predictions["answer_scores"].argmax(1).repeat_interleave(batch.num_rows // 2)
    found = explain(model, batch, best)
    views = [view for example in examples.examples for view in example.views]
    for row, view in enumerate(views):
        real = found.region_mask[row]
        assert view.tints == found.regions_scaled[row][real].tolist()
        assert max(view.tints) == 1 and len(view.tints) == len(view.boxes)
    for number, example in enumerate(examples.examples):
        ids = [2, 10 + number, 3]
        tints = found.words_scaled.unflatten(0, (2, -1))[number].mean(0)
        assert example.words == [(f"piece {i}", tint) for i, tint in zip(ids, tints.tolist(), strict=True)]
    assert len(views) == batch.num_rows
