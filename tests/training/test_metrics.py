"""The training loop's metrics against the plain scoring rules, on one process and on two."""

from __future__ import annotations

import copy
import json
import math
import pickle
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lxmert.config import LxmertConfig
from lxmert.evaluate import (
    TASKS,
    VIZWIZ_RULE,
    VQA_RULE,
    AnnotatorRule,
    normalise_vqa_answer,
    score_vqa,
    vqa_accuracy,
)
from lxmert.objectives.answering import Answering
from lxmert.objectives.base import Result
from lxmert.objectives.metrics import Auroc, OfficialVqaAccuracy, SoftScoreAccuracy

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no test data at {DATA}")

GROUPS = {"answer_type": ["yes/no", "number", "other"], "question_type": ["is the", "what color", "how many"]}
TEXTS = [
    "yes", "no", "Yes", "yes.", "two", "2", "the cat", "cat", "black/white", "black white", "black, white",
    "1,000", "1000", "dont", "don't", "", " ", "a", "\n", "red\n", "red", "t-shirt", "t shirt", "10.5", "10.",
    "10", "none", "0", "somebody'd", "?", "what?!", "é",
]  # fmt: skip
VOCABULARY = sorted({*TEXTS, *(text.lower() for text in TEXTS), *(f"{text}." for text in TEXTS)})

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")


def no_codes(rows: int) -> dict[str, Tensor]:
    return {group: torch.full((rows,), -1) for group in GROUPS}


def as_floats(means: Mapping[str, Tensor]) -> dict[str, float]:
    return {key: value.item() for key, value in means.items()}


def test_soft_score_accuracy_averages_the_predicted_answers_scores_by_group() -> None:
    metric = SoftScoreAccuracy(GROUPS)
    scores = torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.6, 0.9], [0.0, 0.0, 0.0]])
    codes = {"answer_type": torch.tensor([0, 2, 0]), "question_type": torch.tensor([1, -1, -1])}
    metric.update(torch.tensor([1, 2, 0]), scores, codes)
    metric.update(
        torch.tensor([0]), scores[:1], {"answer_type": torch.tensor([2]), "question_type": torch.tensor([1])}
    )
    assert as_floats(metric.compute()) == pytest.approx(
        {
            "accuracy": (0.3 + 0.9 + 0 + 1) / 4,
            "accuracy/answer_type/yes_no": 0.15,
            "accuracy/answer_type/other": 0.95,
            "accuracy/question_type/what_color": 0.65,
        }
    )
    metric.reset()
    assert metric.compute() == {}


def test_no_rows_give_no_values_and_no_nan() -> None:
    soft, official = SoftScoreAccuracy(GROUPS), OfficialVqaAccuracy(["yes"], ["no"], GROUPS)
    assert soft.compute() == official.compute() == {}
    none = torch.zeros(0, dtype=torch.int64)
    soft.update(none, torch.zeros(0, 5), no_codes(0))
    official.update(none, torch.zeros(0, 10, dtype=torch.int64), no_codes(0))
    soft._computed = official._computed = None
    assert soft.compute() == official.compute() == {}


def test_groups_are_optional() -> None:
    metric = SoftScoreAccuracy()
    metric.update(torch.tensor([0]), torch.tensor([[0.25]]), {})
    assert as_floats(metric.compute()) == {"accuracy": 0.25}


def test_a_missing_grouping_and_clashing_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"group_codes lacks question_type; the batch gives answer_type"):
        SoftScoreAccuracy(GROUPS).update(torch.tensor([0]), torch.ones(1, 1), {"answer_type": torch.tensor([0])})
    with pytest.raises(ValueError, match="under one name: accuracy/type/yes_no"):
        SoftScoreAccuracy({"type": ["yes/no", "yes no"]})


def test_a_code_beyond_its_table_is_an_error_and_not_another_group() -> None:
    codes = {"answer_type": torch.tensor([4]), "question_type": torch.tensor([0])}
    with pytest.raises((IndexError, RuntimeError), match="index"):
        SoftScoreAccuracy(GROUPS).update(torch.tensor([0]), torch.ones(1, 1), codes)


def official_mean(rows: Sequence[tuple[str, Sequence[str]]], rule: AnnotatorRule = VQA_RULE) -> float:
    """The official accuracy of (prediction, annotators' answers) rows through the metric, one batch."""
    answers = sorted({prediction for prediction, _ in rows})
    table = sorted({answer for _, annotators in rows for answer in annotators})
    codes = torch.full((len(rows), 10), -1)
    for row, (_, annotators) in enumerate(rows):
        codes[row, : len(annotators)] = torch.tensor([table.index(answer) for answer in annotators])
    metric = OfficialVqaAccuracy(answers, table, rule=rule)
    metric.update(torch.tensor([answers.index(prediction) for prediction, _ in rows]), codes, {})
    return metric.compute()["official_accuracy"].item()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_official_accuracy_equals_the_scorer_for_one_row(data: st.DataObject) -> None:
    pool = data.draw(st.lists(st.sampled_from(TEXTS) | st.text(max_size=5), min_size=1, max_size=3))
    annotators = data.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=10))
    prediction = data.draw(st.sampled_from(pool) | st.sampled_from(TEXTS))
    assert official_mean([(prediction, annotators)]) == pytest.approx(
        vqa_accuracy(prediction, annotators), abs=1e-9
    )


def plain_vizwiz_accuracy(prediction: str, annotators: Sequence[str]) -> float:
    """The rule of VizWiz's makers: the prediction alone is normalised, and each annotator is left out once."""
    scores = []
    for left_out in range(len(annotators)):
        others = [answer for place, answer in enumerate(annotators) if place != left_out]
        scores.append(min(1.0, others.count(normalise_vqa_answer(prediction)) / 3))
    return sum(scores) / len(scores)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_accuracy_of_vizwiz_equals_its_rule_for_one_row(data: st.DataObject) -> None:
    pool = data.draw(st.lists(st.sampled_from(TEXTS) | st.text(max_size=5), min_size=1, max_size=3))
    pool += [normalise_vqa_answer(answer) for answer in pool]
    annotators = data.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=10))
    prediction = data.draw(st.sampled_from(pool))
    expected = plain_vizwiz_accuracy(prediction, annotators)
    assert official_mean([(prediction, annotators)], VIZWIZ_RULE) == pytest.approx(expected, abs=1e-9)


def test_the_rule_is_that_of_the_data_sets_task() -> None:
    config = LxmertConfig(hidden_size=32, num_attention_heads=2, num_qa_labels=1, answers=["the can"])
    official = {}
    for name in ("vqa", "vizwiz"):
        objective = Answering(config)
        objective.task = TASKS[name]
        metrics = objective.make_metrics({"annotator_answers": ["the can"]})
        targets = {"answer_scores": torch.ones(1, 1), "annotator_answers": torch.zeros(1, 10, dtype=torch.int64)}
        metrics.update(Result({}, {"answer_scores": torch.ones(1, 1)}), SimpleNamespace(targets=targets))
        official[name] = as_floats(metrics.compute())["official_accuracy"]
    assert official == {"vqa": 1.0, "vizwiz": 0.0}  # VizWiz normalises the prediction alone


def generated_rows(number: int, seed: int) -> list[tuple[str, list[str]]]:
    random_ = random.Random(seed)
    rows = []
    for _ in range(number):
        pool = random_.sample(TEXTS, random_.randint(1, 4))
        annotators = random_.choices(pool, k=random_.choice([10, 10, 10, 7, 1]))
        if random_.random() < 0.2:  # these agree
            annotators = annotators[:1] * len(annotators)
        rows.append((random_.choice([*pool, annotators[0].lower(), annotators[0] + "."]), annotators))
    return rows


def test_ten_thousand_predictions_score_as_by_the_scorer() -> None:
    rows = generated_rows(10_000, seed=0)
    accuracies = [vqa_accuracy(prediction, annotators) for prediction, annotators in rows]
    assert official_mean(rows) == pytest.approx(math.fsum(accuracies) / len(rows), abs=1e-9)
    assert 0.2 < sum(accuracies) / len(rows) < 0.8


def test_agreeing_annotators_are_taken_at_their_word() -> None:
    assert official_mean([("stop", ["STOP"] * 10)]) == 0.0
    assert official_mean([("STOP\n", [" STOP"] * 10)]) == 1.0
    assert official_mean([("stop", ["STOP"] * 9 + ["halt"])]) == 1.0


def test_missing_answers_may_stand_anywhere_and_rows_without_any_do_not_count() -> None:
    metric = OfficialVqaAccuracy(["cat", "the Dog"], ["cat", "dog", "DOG"], {"kind": ["a", "b"]})
    codes = torch.full((3, 10), -1)
    codes[0, [2, 5, 9]] = torch.tensor([0, 0, 1])
    codes[1, [0, 9]] = torch.tensor([1, 2])
    metric.update(torch.tensor([0, 1, 0]), codes, {"kind": torch.tensor([0, 0, 1])})
    expected = [vqa_accuracy("cat", ["cat", "cat", "dog"]), vqa_accuracy("the Dog", ["dog", "DOG"])]
    assert as_floats(metric.compute()) == pytest.approx(
        {"official_accuracy": sum(expected) / 2, "official_accuracy/kind/a": sum(expected) / 2}, abs=1e-12
    )


def test_tables_are_spelt_once_and_only_when_needed() -> None:
    calls: list[str] = []
    counted = VQA_RULE._replace(disagreed=(lambda text: calls.append(text) or text,) * 2)
    metric = OfficialVqaAccuracy(["yes", "no"], ["yes"], rule=counted)
    assert calls == []
    for _ in range(3):
        metric.update(torch.tensor([0]), torch.zeros(1, 10, dtype=torch.int64), {})
    metric.reset()
    metric.update(torch.tensor([0]), torch.zeros(1, 10, dtype=torch.int64), {})
    assert calls == ["yes", "no", "yes"]


def test_sums_stay_exact_when_the_module_around_is_cast_to_bfloat16() -> None:
    module = torch.nn.ModuleDict({"metric": SoftScoreAccuracy()}).to(torch.bfloat16)
    scores = torch.full((1000, 1), 1.0)
    for _ in range(3):
        module["metric"].update(torch.zeros(1000, dtype=torch.int64), scores, {})
    module["metric"].update(torch.zeros(1, dtype=torch.int64), torch.zeros(1, 1), {})
    mean = module["metric"].compute()["accuracy"]
    assert mean.dtype == torch.float64
    assert mean.item() == 3000 / 3001


def test_metrics_survive_copying_and_pickling() -> None:
    rows = generated_rows(50, seed=3)
    metric = official_metric()
    update_official(metric, rows, rows)
    for twin in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert as_floats(twin.compute()) == as_floats(metric.compute())


def official_metric() -> OfficialVqaAccuracy:
    return OfficialVqaAccuracy(VOCABULARY, TEXTS, GROUPS)


def update_official(
    metric: OfficialVqaAccuracy, rows: Sequence[tuple[str, Sequence[str]]], everything: Sequence
) -> None:
    codes = torch.full((len(rows), 10), -1)
    for place, (_, annotators) in enumerate(rows):
        codes[place, : len(annotators)] = torch.tensor([TEXTS.index(answer) for answer in annotators])
    places = torch.tensor([everything.index(row) for row in rows], dtype=torch.int64)
    groups = {"answer_type": places % 3, "question_type": places % 4 - 1}
    metric.update(torch.tensor([VOCABULARY.index(p) for p, _ in rows], dtype=torch.int64), codes, groups)


def update_soft(metric: SoftScoreAccuracy, rows: Tensor) -> None:
    scores = torch.rand(1000, 7, generator=torch.Generator().manual_seed(0))[rows]
    metric.update(rows % 7, scores, {"answer_type": rows % 3, "question_type": rows % 4 - 1})


def update_auroc(metric: Auroc, rows: Tensor) -> None:
    scores = torch.randint(0, 20, (1000,), generator=torch.Generator().manual_seed(0))[rows] / 19
    metric.update(scores, rows // 3 % 3 - 1, {"answer_type": rows % 3, "question_type": rows % 4 - 1})


def all_metrics(rows: Sequence, share: Sequence[Sequence[int]]) -> dict[str, float]:
    """All metrics over the batches of row places in `share`."""
    soft, official, auroc = SoftScoreAccuracy(GROUPS), official_metric(), Auroc(GROUPS)
    for batch in share:
        update_auroc(auroc, torch.tensor(batch, dtype=torch.int64))
        update_soft(soft, torch.tensor(batch, dtype=torch.int64))
        update_official(official, [rows[place] for place in batch], rows)
    return as_floats(soft.compute()) | as_floats(official.compute()) | as_floats(auroc.compute())


# Rows 0 to 169 against 170 to 199 in batches of 37 and less, then everything against nothing.
SHARES = [
    [
        [list(range(start, min(start + 37, end))) for start in range(0, end, 37)],
        [list(range(end, 200))][: 200 - end],
    ]
    for end in (170, 200)
]


def distributed_worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        means = [all_metrics(generated_rows(200, seed=5), shares[rank]) for shares in SHARES]
        Path(folder, f"{rank}.json").write_text(json.dumps(means))
    finally:
        dist.destroy_process_group()


def test_two_processes_with_uneven_shares_agree_with_one(tmp_path: Path) -> None:
    alone = all_metrics(generated_rows(200, seed=5), [list(range(200))])
    torch.multiprocessing.spawn(distributed_worker, (str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        for means in json.loads((tmp_path / f"{rank}.json").read_text()):
            assert list(means) == list(alone)
            assert means == pytest.approx(alone, abs=1e-12)
    assert len(alone) == 21


@needs_data
@pytest.mark.parametrize(
    "path", ["vqa_mini/v2_mscoco_train2014_annotations.json", "coco10/official/annotations.json"]
)
def test_real_annotations_score_as_by_the_official_scorer(path: str) -> None:
    annotations = json.loads((DATA / path).read_text())["annotations"]
    written = [[entry["answer"] for entry in annotation["answers"]] for annotation in annotations]
    table = sorted({answer for answers in written for answer in answers})
    types = {name: sorted({annotation[name] for annotation in annotations}) for name in GROUPS}
    metric = OfficialVqaAccuracy(table, table, types)
    predicted = torch.tensor([table.index(answers[-1]) for answers in written])
    codes = torch.tensor([[table.index(answer) for answer in answers] for answers in written])
    groups = {
        name: torch.tensor([values.index(annotation[name]) for annotation in annotations])
        for name, values in types.items()
    }
    for batch in torch.arange(len(annotations)).split(16):
        metric.update(predicted[batch], codes[batch], {name: code[batch] for name, code in groups.items()})

    predictions = [
        {"question_id": annotation["question_id"], "answer": answers[-1]}
        for annotation, answers in zip(annotations, written, strict=True)
    ]
    report = score_vqa(predictions, annotations)
    expected = {"official_accuracy": report.metrics["accuracy"]}
    for name, values in report.groups.items():
        for value, group in values.items():
            expected[f"official_accuracy/{name}/{value.replace(' ', '_').replace('/', '_')}"] = group.score
    means = as_floats(metric.compute())
    # The report is rounded to two decimals of a percent.
    assert {key: 100 * mean for key, mean in means.items()} == pytest.approx(expected, abs=0.005 + 1e-9)
    exact = [vqa_accuracy(answers[-1], answers) for answers in written]
    assert means["official_accuracy"] == pytest.approx(sum(exact) / len(exact), abs=1e-9)
