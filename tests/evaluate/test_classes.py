"""Scores of classes against loops over pairs, and the files that they are read from."""

import json
import random

import numpy as np
import pytest

from lxmert.evaluate import TASKS, ScoringError, area_under_roc, check_submission, score_classes
from lxmert.evaluate.__main__ import main as evaluate


def area_by_pairs(scores, positive):
    """Of all pairs of a positive and a negative, how many are in order; a tie is half."""
    pairs = [(a, b) for a, p in zip(scores, positive, strict=True) if p
             for b, q in zip(scores, positive, strict=True) if not q]  # fmt: skip
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs) if pairs else None


def random_case(number):
    """Up to 40 scores with few values, so that there are ties, and which are positive: some, all or none."""
    draw = random.Random(number)
    size, values = draw.randrange(41), draw.choice((1, 2, 5, 1000))
    share = draw.choice((0.0, 0.1, 0.5, 1.0))
    return [draw.randrange(values) / values for _ in range(size)], [draw.random() < share for _ in range(size)]


def test_the_area_under_the_roc_curve_is_that_of_all_pairs_in_a_thousand_random_cases_with_ties():
    areas = []
    for number in range(3000):
        scores, positive = random_case(number)
        expected = area_by_pairs(scores, positive)
        found = area_under_roc(np.array(scores), np.array(positive, bool))
        assert (found is None) == (expected is None)
        if expected is not None:
            assert abs(found - expected) < 1e-9
            areas.append(found)
    assert len(areas) > 1000 and {0.0, 0.5, 1.0} < set(areas)


def test_accuracy_recall_and_area_are_those_of_loops():
    draw = random.Random(1)
    for classes in (["no", "yes"], ["a", "b", "c"]):
        rows, predictions = [], []
        for number in range(60):
            given = [draw.randrange(1, 5) for _ in classes]
            shares = {name: each / sum(given) for name, each in zip(classes, given, strict=True)}
            rows.append({"question_id": number, "label": {draw.choice(classes): 1.0}})
            best = max(shares, key=shares.__getitem__)
            predictions.append({"question_id": number, "answer": best, "probabilities": shares})
        report = score_classes(predictions, rows)
        truth = [next(iter(row["label"])) for row in rows]
        right = [each["answer"] == name for each, name in zip(predictions, truth, strict=True)]
        assert report.metrics["accuracy"] == pytest.approx(100 * sum(right) / 60, abs=1e-9)
        for name in classes:
            own = [r for r, t in zip(right, truth, strict=True) if t == name]
            assert report.groups["class"][name] == (pytest.approx(100 * sum(own) / len(own)), len(own))
        if len(classes) == 3:
            assert "auroc" not in report.metrics
            continue
        for positive in classes:  # it is the same, whichever of the two is the positive one
            area = area_by_pairs(
                [e["probabilities"][positive] for e in predictions], [t == positive for t in truth]
            )
            assert report.metrics["auroc"] == pytest.approx(100 * area, abs=1e-9)


def test_rows_without_a_class_are_not_scored_whether_predicted_or_not():
    rows = [{"question_id": "a", "label": {"yes": 1.0}}, {"question_id": "b", "label": {"-": 1.0}}]
    rows += [{"question_id": "c", "label": {}}]
    predicted = [{"question_id": id_, "answer": "yes"} for id_ in "abc"]
    for predictions in (predicted, predicted[:1]):
        report = score_classes(predictions, rows)
        assert (report.examples, report.metrics) == (1, {"accuracy": 100.0})
        assert report.notes == ["Not scored: 2 rows without a class."]
    with pytest.raises(ScoringError, match="no row has a class"):
        score_classes(predicted, rows[1:])


LABELS = [{"question_id": n, "label": {name: 1.0}} for n, name in enumerate(("no", "yes"))]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"no": 0.5, "yes": 0.5}, None], r"1 have no probabilities and the others do: 1\."),
        ([{"no": 0.5, "yes": 1.5}, {}], r"probabilities of 0: 1\.5 of 'yes', expected a number from 0 to 1"),
        ([{"no": 0.5, "yes": True}, {}], r"True of 'yes', expected a number"),
        ([0.5, 0.5], r"probabilities of 0: 0\.5, expected an object of class and probability"),
        ([{"no": 0.5}, {"no": 0.4}], r"probabilities of 0 lack 'yes', which the AUROC is by"),
    ],
)
def test_probabilities_that_are_none_are_refused_by_name(given, message):
    predictions = [{"question_id": n, "answer": ("no", "yes")[n]} for n in (0, 1)]
    for each, value in zip(predictions, given, strict=True):
        if value is not None:
            each["probabilities"] = value
    with pytest.raises(ScoringError, match=message):
        score_classes(predictions, LABELS)


def test_snli_ve_is_scored_from_its_makers_files(tmp_path, capsys):
    truth, predictions, out = tmp_path / "snli_ve_dev.jsonl", tmp_path / "p.json", tmp_path / "scores.json"
    labels = ["entailment", "neutral", "-", "contradiction"]
    rows = [
        {
            "pairID": f"7.jpg#0r{n}",
            "Flikr30kID": "7.jpg",
            "sentence1": "so",
            "sentence2": "and",
            "gold_label": name,
        }
        for n, name in enumerate(labels)
    ]
    truth.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    answers = {row["pairID"]: "neutral" for row in rows if row["gold_label"] != "-"}
    predictions.write_text(TASKS["classes"].submission_text(answers, {id_: {"neutral": 1.0} for id_ in answers}))
    assert evaluate(["classes", str(predictions), str(truth), "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert (report["metrics"], report["examples"]) == ({"accuracy": 33.33}, 3)
    assert report["groups"]["class"]["neutral"] == {"score": 100.0, "examples": 1}
    assert evaluate(["check", "classes", str(predictions), str(truth)]) == 0, capsys.readouterr().out


# ------------------------------------------------------------------------------------- Hateful Memes

MEMES = [{"id": n, "img": f"img/{n}.png", "label": int(n in (7, 13)), "text": "so"} for n in (42, 7, 9, 13)]
TABLE = "id,proba,label\n7,0.5,1\n9,0.5,0\n13,0.75,1\n42,0.25,0\n"


@pytest.fixture
def memes(tmp_path):
    path = tmp_path / "dev_seen.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in MEMES))
    return path


def test_hateful_memes_is_scored_from_the_table_that_its_challenge_takes(tmp_path, memes):
    task = TASKS["hateful_memes"]
    answers, given = {7: "1", 9: "0", 13: "1", 42: "0"}, {7: 0.5, 9: 0.5, 13: 0.75, 42: 0.25}
    table, out = tmp_path / f"p{task.suffix}", tmp_path / "scores.json"
    table.write_text(task.submission_text(answers, {id_: {"1": p, "0": 1 - p} for id_, p in given.items()}))
    assert table.read_text() == TABLE
    assert evaluate(["check", "hateful_memes", str(table), str(memes)]) == 0
    assert evaluate(["hateful_memes", str(table), str(memes), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["metrics"] == {"accuracy": 100.0, "auroc": 87.5}  # of 4 pairs one is a tie
    part = tmp_path / "part.jsonl"
    part.write_text("".join(f"{json.dumps(row)}\n" for row in MEMES[:2]))
    assert evaluate(["hateful_memes", str(table), str(memes), "--split", str(part)]) == 1  # of ids that it lacks


def test_the_area_of_hateful_memes_is_by_the_probability_and_not_by_the_label(tmp_path, memes):
    table, out = tmp_path / "p.csv", tmp_path / "scores.json"
    table.write_text("label,id,proba\r\n0,7,0.3\r\n0,9,0.3\r\n1,13,0.3\r\n0,42,0.1\r\n")  # in any order
    assert evaluate(["hateful_memes", str(table), str(memes), "--json", str(out)]) == 0
    scores = {7: 0.3, 9: 0.3, 13: 0.3, 42: 0.1}
    expected = area_by_pairs(list(scores.values()), [id_ in (7, 13) for id_ in scores])
    assert json.loads(out.read_text())["metrics"] == {"accuracy": 75.0, "auroc": 100 * expected}


def test_what_the_challenge_would_object_to_is_listed(tmp_path, memes):
    table = tmp_path / "p.csv"
    table.write_text("id,proba,label\n7,1.5,1\n9,much,0\n13,0.5,hateful\nx,0.5,0\n42;0.5;1\n")
    task = TASKS["hateful_memes"]
    assert check_submission(task, task.read_submission(table), [row["id"] for row in MEMES]) == [
        "1 entries are not id,proba,label: [4]: '42;0.5;1'",
        "1 ids are not int (no match): 'x'",
        "1 answers are not 0 or 1: 'hateful' for 13",
        "2 probabilities are none: 1.5 of '1', expected a number from 0 to 1 for 7, nan of '1', expected a number "
        "from 0 to 1 for 9",
        "1 ids are not of this split: x",
        "1 ids are not answered: 42",
    ]


@pytest.mark.parametrize(
    ("table", "rows", "message"),
    [
        ("7,0.5,1\n", MEMES, "predictions: '7,0.5,1', expected id,proba,label, and these names in line 1"),
        ("id,proba,label\n7,0.5,1\n", MEMES, "no prediction for 3 questions: 42, 9, 13"),
        (TABLE.replace("0.75", "nan"), MEMES, "probabilities of 13: nan of '1'"),
        (TABLE, [{**MEMES[0], "label": "0"}], "the label of 42 is '0', not 0 or 1"),
        (TABLE, [{"img": "img/1.png", "text": "so"}], "the label of None is None, not 0 or 1"),
    ],
)
def test_bad_files_of_hateful_memes_are_named(tmp_path, capsys, table, rows, message):
    predictions, truth = tmp_path / "p.csv", tmp_path / "truth.jsonl"
    predictions.write_text(table)
    truth.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert evaluate(["hateful_memes", str(predictions), str(truth)]) == 1
    assert message in capsys.readouterr().err
