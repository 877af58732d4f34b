"""What no run of the toys shows of prediction files, of the makers' metrics and of examples."""

import json
from types import SimpleNamespace

import pytest
import torch

from lxmert.batch import Batch
from lxmert.callbacks import PredictionFiles, make_example, official_scores
from lxmert.evaluate import TASKS, ScoringError
from lxmert.objectives.base import Result

ANSWERS = {"gqa": ["cat", "dog", "red"], "nlvr2": ["False", "True"]}
NAMES = {"gqa": "answering", "nlvr2": "image_pair"}


def make_learner(task):
    return SimpleNamespace(
        model=SimpleNamespace(config=SimpleNamespace(answers=ANSWERS[task])),
        objectives={NAMES[task]: SimpleNamespace(probabilities=lambda scores: scores.softmax(1))},
    )


def make_results(task, best):
    """What the learner gives of as many examples, the answers `best` having the highest scores."""
    scores = torch.eye(len(ANSWERS[task]))[best] * 3
    return {"other": Result(), NAMES[task]: Result(predictions={"answer_scores": scores})}


def official_of_a_test(folder, splits, ids, best):
    """What a test of NLVR2 logs of the makers' metrics, whose statements are in `folder`/dev.json."""
    logged, learner = {}, make_learner("nlvr2")
    learner.log = lambda name, value, sync_dist: logged.update({name: value})
    trainer = SimpleNamespace(
        is_global_zero=True,
        strategy=SimpleNamespace(broadcast=lambda value: value),
        datamodule=SimpleNamespace(
            task="nlvr2",
            splits={"test": splits},
            scoring_files=lambda split: {"statements": folder / f"{split}.json"},
        ),
    )
    callback = PredictionFiles(str(folder))
    callback.on_test_batch_end(trainer, learner, make_results("nlvr2", best), SimpleNamespace(example_ids=ids), 0)
    callback.on_test_epoch_end(trainer, learner)
    return logged


@pytest.fixture
def statements(tmp_path):
    """The makers' file of four statements."""
    rows = [{"identifier": f"dev-0-{pair}-0", "label": str(pair == 1)} for pair in range(4)]
    (tmp_path / "dev.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "dev.json"


def test_files_of_other_statements_are_warned_of_and_cost_no_other_result(tmp_path, statements, caplog):
    assert official_of_a_test(tmp_path, ["dev"], ["dev-0-0-0", "dev-0-1-0"], [0, 1]) == {}
    assert (tmp_path / "dev.csv").exists()
    [message] = caplog.messages
    assert "dev.csv is not scored by the makers' rules" in message and str(statements) in message
    assert "no prediction for 2 statements: dev-0-2-0, dev-0-3-0" in message
    with pytest.raises(ScoringError):
        official_scores(TASKS["nlvr2"], tmp_path / "dev.csv", {"statements": statements})


def test_two_splits_at_once_have_no_makers_file(tmp_path, statements):
    every = [f"dev-0-{pair}-0" for pair in range(4)]
    assert official_of_a_test(tmp_path, ["dev", "train"], every, [0, 1, 0, 1]) == {}
    assert (tmp_path / "dev+train.csv").exists()
    assert official_of_a_test(tmp_path, ["dev"], every, [0, 1, 0, 1])["test/official/accuracy"] == 0.75


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
    batch = make_batch(len(images[0]))
    attention = torch.rand(batch.num_rows, 3)
    datamodule = SimpleNamespace(
        picture=lambda image: f"{image}.png",
        datasets={"test": SimpleNamespace(sentence=lambda example: f"What is <{example}>?")},
    )
    answers, results = ANSWERS[task], make_results(task, [1, 0])
    for number in (0, 1):
        example = make_example(datamodule, "test", make_learner(task), results, batch, number, attention)
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
