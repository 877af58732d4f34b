"""Prediction files, the makers' metrics after a test, and examples as the page shows them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lxmert.batch import Batch
from lxmert.callbacks import PredictionFiles, make_example, official_scores
from lxmert.evaluate import ScoringError
from lxmert.objectives.base import Result

ANSWERS = {"gqa": ["cat", "dog", "red"], "nlvr2": ["False", "True"], "vqa": ["yes", "no"]}
NAMES = {"gqa": "answering", "nlvr2": "image_pair", "vqa": "answering"}


def question(answer, *, balanced=True, entailed=()):
    return {
        "question": "what is it?", "answer": answer, "isBalanced": balanced, "entailed": list(entailed),
        "types": {"structural": "query", "semantic": "obj", "detailed": "categoryThis"},
        "groups": {"global": "animal", "local": "1"},
        "semantic": [{"operation": "select", "dependencies": [], "argument": "cat (1)"}],
    }  # fmt: skip


class Run:
    """A test of `task` by PredictionFiles: what is logged, and the files."""

    def __init__(self, folder, task, files=None):
        self.logged = {}
        self.folder, name = folder, NAMES[task]
        self.learner = SimpleNamespace(
            model=SimpleNamespace(config=SimpleNamespace(answers=ANSWERS[task])),
            objectives={name: SimpleNamespace(probabilities=lambda scores: scores.softmax(1))},
            log=lambda name, value, sync_dist: self.logged.update({name: value}),
        )
        self.trainer = SimpleNamespace(
            is_global_zero=True,
            strategy=SimpleNamespace(broadcast=lambda value: value),
            datamodule=SimpleNamespace(
                task=task, splits={"test": ["dev"]}, scoring_files=lambda split: files or {}
            ),
        )
        self.callback, self.name = PredictionFiles(str(folder), top=2), name

    def test(self, *batches):
        for number, (ids, best) in enumerate(batches):
            scores = torch.eye(len(self.learner.model.config.answers))[best] * 3
            results = {"other": Result(), self.name: Result(predictions={"answer_scores": scores})}
            batch = SimpleNamespace(example_ids=ids)
            self.callback.on_test_batch_end(self.trainer, self.learner, results, batch, number)
        self.callback.on_test_epoch_end(self.trainer, self.learner)
        return self.logged


@pytest.mark.parametrize(
    ("task", "ids", "name", "content"),
    [
        ("vqa", [7, 30, 4], "dev.json",
         '[{"question_id": 4, "answer": "yes"}, {"question_id": 7, "answer": "no"}, '
         '{"question_id": 30, "answer": "yes"}]\n'),
        ("gqa", ["07", "30", "04"], "dev.json",
         '[{"questionId": "04", "prediction": "cat"}, {"questionId": "07", "prediction": "dog"}, '
         '{"questionId": "30", "prediction": "cat"}]\n'),
        ("nlvr2", ["dev-0-1-0", "dev-1-0-0", "dev-0-0-0"], "dev.csv",
         "dev-0-0-0,False\ndev-0-1-0,True\ndev-1-0-0,False\n"),
    ],
)  # fmt: skip
def test_each_task_has_the_file_that_its_server_takes_and_its_scores(tmp_path, task, ids, name, content):
    logged = Run(tmp_path, task).test((ids[:2], [1, 0]), (ids[2:], [0]))
    assert logged == {}  # the makers' files are not there
    assert (tmp_path / name).read_text() == content
    scores = np.load(tmp_path / "dev_scores.npz")
    assert scores["question_id"].tolist() == sorted(ids)
    assert scores["answers"].tolist() == ANSWERS[task]
    assert scores["answer"][:, 0].tolist() == [0, 1, 0] and scores["probability"].shape == (3, 2)


def test_gqa_is_scored_by_the_makers_files(tmp_path):
    questions = {"1": question("cat", entailed=["2"]), "2": question("dog", balanced=False), "3": question("red")}
    files = {
        "questions": {key: value for key, value in questions.items() if value["isBalanced"]},
        "choices": {key: {"valid": ["cat", "dog"], "plausible": ["dog"]} for key in ("1", "3")},
        "all_questions": questions,
    }
    paths = {}
    for what, content in files.items():
        paths[what] = tmp_path / f"{what}.json"
        paths[what].write_text(json.dumps(content))
    logged = Run(tmp_path, "gqa", paths).test((["1", "2", "3"], [0, 0, 1]))  # 1 right, 2 and 3 wrong
    name = "test/official/"
    assert logged[f"{name}accuracy"] == logged[f"{name}open"] == 0.5
    assert (logged[f"{name}validity"], logged[f"{name}plausibility"], logged[f"{name}consistency"]) == (1, 0.5, 0)
    assert logged[f"{name}accuracy/structural/query"] == 0.5 and f"{name}binary" not in logged
    # "cat" as often as it is right, "red" never instead of once: chi-square 1, which the makers divide by 100.
    assert logged[f"{name}distribution"] == pytest.approx(0.01)


STATEMENTS = [{"identifier": f"dev-0-{pair}-0", "label": str(pair == 1)} for pair in range(4)]


def write_statements(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_nlvr2_is_scored_by_the_makers_files_and_on_their_subsets(tmp_path):
    files = {"statements": write_statements(tmp_path / "dev.json", STATEMENTS)}
    files["balanced"] = write_statements(tmp_path / "balanced_dev.json", STATEMENTS[:2])
    ids = [row["identifier"] for row in STATEMENTS]
    assert Run(tmp_path, "nlvr2", files).test((ids, [0, 1, 0, 1])) == {
        "test/official/accuracy": 0.75,
        "test/official/consistency": 0,
        "test/official/accuracy/subset/balanced": 1,
        "test/official/consistency/subset/balanced": 1,
    }


def test_files_of_other_statements_are_warned_of_and_cost_no_other_result(tmp_path, caplog):
    files = {"statements": write_statements(tmp_path / "dev.json", STATEMENTS)}
    assert Run(tmp_path, "nlvr2", files).test((["dev-0-0-0", "dev-0-1-0"], [0, 1])) == {}
    assert (tmp_path / "dev.csv").exists()
    [message] = caplog.messages
    assert "dev.csv is not scored by the makers' rules" in message and str(files["statements"]) in message
    assert "no prediction for 2 statements: dev-0-2-0, dev-0-3-0" in message
    with pytest.raises(ScoringError):
        official_scores("nlvr2", tmp_path / "dev.csv", files)


def test_two_splits_at_once_have_no_makers_file(tmp_path):
    run = Run(tmp_path, "nlvr2", {"statements": write_statements(tmp_path / "dev.json", STATEMENTS)})
    run.trainer.datamodule.splits["test"] = ["dev", "train"]
    assert run.test((["dev-0-0-0"], [0])) == {}
    assert (tmp_path / "dev+train.csv").exists()


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
        example_ids=["a", "b"],
        image_ids=[f"image{n}" for n in range(rows)],
    )


@pytest.mark.parametrize(("task", "images"), [("nlvr2", [[3, 2], [1, 0]]), ("gqa", [[1], [0]])])
def test_an_example_shows_its_pictures_boxes_attention_and_answers(task, images):
    batch, run = make_batch(len(images[0])), Run("", task)
    attention = torch.rand(batch.num_rows, 3)
    datamodule = SimpleNamespace(
        picture=lambda image: f"{image}.png",
        datasets={"test": SimpleNamespace(sentence=lambda example: f"What is <{example}>?")},
    )
    answers = ANSWERS[task]
    results = {NAMES[task]: Result(predictions={"answer_scores": torch.eye(len(answers))[[1, 0]] * 2})}
    for number in (0, 1):
        example = make_example(datamodule, "test", run.learner, results, batch, number, attention)
        assert example.question == f"What is <{'ab'[number]}>?"
        assert [view.picture for view in example.views] == [f"image{i}.png" for i in images[number]]
        for place, (view, image) in enumerate(zip(example.views, images[number], strict=True)):
            real = 2 if image == 1 else 3
            row = number * len(images[0]) + place
            assert view.boxes == batch.region_boxes[image][:real].tolist()
            assert view.attention == attention[row][:real].tolist()
        assert example.predictions[0][0] == answers[1 - number]
        truth = answers[1 - number] if task == "nlvr2" else answers[number]
        assert example.answers == {truth: 1.0}
