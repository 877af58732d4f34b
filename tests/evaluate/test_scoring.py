"""The makers' scoring rules against hand-computed cases, a second implementation, and real annotations."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lxmert.evaluate import (
    GroupScore,
    ScoringError,
    average_precision,
    normalise_vqa_answer,
    score_gqa,
    score_labels,
    score_nlvr2,
    score_vizwiz,
    score_vqa,
    vizwiz_accuracy,
    vqa_accuracy,
    vqa_soft_scores,
)
from lxmert.evaluate.vqa import CONTRACTIONS

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no test data at {DATA}")

# The official rule once more, written from its description character by character, as an oracle.

CORRECT_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
    he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't
    must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've
    somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
    something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're
    they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've
    who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll
    y'all'd've you'd you'd've you'll you're you've
"""
NUMBER_WORDS = ["none zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@cache
def reference_normalise(answer: str) -> str:
    text = "".join(" " if character in "\n\t" else character for character in answer).strip()
    windows = list(zip(" " + text[:-1], text, text[1:] + " ", strict=True)) if text else []
    # The text's own ends are no spaces.
    beside_space = {c for i, (left, c, _) in enumerate(windows) if i > 0 and left == " "}
    beside_space |= {c for i, (_, c, right) in enumerate(windows) if i < len(text) - 1 and right == " "}
    has_number = any(left.isdecimal() and c == "," and right.isdecimal() for left, c, right in windows)
    kept = ""
    for character in text:
        if character not in ';/[]"{}()=+\\_-><@`,?!':
            kept += character
        elif not has_number and character not in beside_space:
            kept += " "
    periods_left, without_periods = 32, ""
    for place, character in enumerate(kept):
        if character == "." and periods_left and not kept[place + 1 : place + 2].isdecimal():
            periods_left -= 1
        else:
            without_periods += character
    words = []
    for word in without_periods.lower().split():
        for digit, names in enumerate(NUMBER_WORDS):
            if word in names.split():
                word = str(digit)
        if word in ("a", "an", "the"):
            continue
        spellings = {word[:place] + "'" + word[place:] for place in range(len(word) + 1)}
        words.append(next(iter(spellings & set(CORRECT_CONTRACTIONS.split())), word))
    return " ".join("somebodyd" if word == "somebody'd" else word for word in words)


def reference_accuracy(prediction: str, annotators: list[str]) -> float:
    prediction = prediction.translate({10: " ", 9: " "}).strip()
    annotators = [answer.translate({10: " ", 9: " "}).strip() for answer in annotators]
    if any(answer != annotators[0] for answer in annotators):
        prediction, *annotators = (reference_normalise(answer) for answer in [prediction, *annotators])
    accuracies = []
    for others in combinations(annotators, len(annotators) - 1):
        hits = sum(1 for answer in others if answer == prediction)
        accuracies.append([0.0, 1 / 3, 2 / 3, 1.0][min(hits, 3)])
    return sum(accuracies) / len(accuracies)


PIECES = [
    *";/[]\"{}()=+\\_-><@`,?!.'", " ", "  ", "\n", "\t", "1", "2.5", "1,000", "7,", "none", "Two", "ten", "a",
    "An", "the", "red", "Red", "cat", "dont", "y'alld've", "ows'at", "'ow'sat", "somebody'd", "thats", "é",
    "\u0663,\u0664",
]  # fmt: skip
answers_of_pieces = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)


@settings(max_examples=600, deadline=None)
@given(answers_of_pieces | st.text(max_size=12))
@example("." * 40)
@example("")
def test_normalisation_equals_a_second_implementation(answer: str) -> None:
    assert normalise_vqa_answer(answer) == reference_normalise(answer)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_accuracy_equals_a_second_implementation(data: st.DataObject) -> None:
    pool = data.draw(st.lists(answers_of_pieces, min_size=1, max_size=4))
    annotators = data.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=10))
    prediction = data.draw(st.sampled_from(pool) | answers_of_pieces)
    assert vqa_accuracy(prediction, annotators) == pytest.approx(
        reference_accuracy(prediction, annotators), abs=1e-9
    )


def test_ten_thousand_vqa_predictions_score_as_in_a_second_implementation() -> None:
    random_ = random.Random(0)
    annotations, predictions, expected = [], [], []
    for number in range(10_000):
        pool = ["".join(random_.choices(PIECES, k=random_.randint(0, 4))) for _ in range(3)] + ["red", "the Red."]
        written = random_.choices(pool, k=10)
        types = random_.choice(["yes/no", "number", "other"]), random_.choice(["is the", "what"])
        annotations.append(question(number, written, *types))
        predictions.append({"question_id": number, "answer": random_.choice(pool)})
        expected.append(reference_accuracy(predictions[-1]["answer"], written))
    report = score_vqa(random_.sample(predictions, 10_000), annotations)
    assert report.metrics["accuracy"] == pytest.approx(100 * sum(expected) / 10_000, abs=1e-9)
    for kind in ("answer_type", "question_type"):
        for value, (score, number) in report.groups[kind].items():
            members = [e for e, row in zip(expected, annotations, strict=True) if row[kind] == value]
            assert number == len(members)
            assert score == pytest.approx(100 * sum(members) / number, abs=1e-9)
    assert sum(accuracy not in (0.0, 1.0) for accuracy in expected) > 1_000


def test_contraction_table_is_the_official_one() -> None:
    # Digest of the official table without its entries of no effect: capitals, words mapped to themselves.
    digest = hashlib.sha256(json.dumps(sorted(CONTRACTIONS.items())).encode()).hexdigest()
    assert digest == "853d25c89947b7f6d41f6c5f81b2d6c3119927f4b16f557fc1b03af6ef45605e"


@pytest.mark.parametrize(
    ("answer", "normalised"),
    [
        ("  On\tthe\ntable ", "on table"),
        ("black/white", "black white"),
        ("black /white/red", "black whitered"),  # one slash beside a space: all slashes go
        ("x-/y-z", "x y z"),  # the slash turns into a space only after the hyphen is judged
        ("t-shirt, red", "t shirt red"),  # the comma is beside a space, the hyphen is not
        ("black,white", "black white"),
        ("1,000-2,000", "10002000"),  # a comma between digits: every symbol goes
        ("what?!", "what"),
        ("'quoted'", "'quoted'"),  # apostrophes, colons and the like are no punctuation here
        ("10:30", "10:30"),
        ("st. john", "st john"),
        ("2.5", "2.5"),
        ("5.", "5"),  # the mistyped look-behind: a period after a digit goes too
        (".5", ".5"),
        ("." * 40 + "x", "." * 8 + "x"),  # a flag in the place of the count: 32 periods go
        ("None", "0"),
        ("Ten of them", "10 of them"),
        ("eleven", "eleven"),
        ("a man and an apple", "man and apple"),
        ("a", ""),
        ("dont", "don't"),
        ("Thats it", "that's it"),
        ("im", "im"),  # officially only as "Im", which lower case never shows
        ("lets", "lets"),
        ("somebody'd", "somebodyd"),
        ("whod've", "who'd've"),
        ("who'dve", "who'd've"),
        ("", ""),
    ],
)
def test_normalises_by_rule(answer: str, normalised: str) -> None:
    assert normalise_vqa_answer(answer) == normalised


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_matches_of_ten_give_the_known_accuracies(matches: int, accuracy: float) -> None:
    answers = ["cat"] * matches + [f"other {place}" for place in range(10 - matches)]
    assert vqa_accuracy("cat", answers) == pytest.approx(accuracy, abs=1e-12)


def test_agreeing_annotators_are_taken_at_their_word() -> None:
    assert vqa_accuracy("stop", ["STOP"] * 10) == 0.0
    assert vqa_accuracy("STOP\n", [" STOP"] * 10) == 1.0
    assert vqa_accuracy("stop", ["STOP"] * 9 + ["halt"]) == 1.0


def test_fewer_than_ten_annotators_are_scored_by_leaving_each_out() -> None:
    assert vqa_accuracy("cat", ["cat", "dog", "cow"]) == pytest.approx((0 + 1 / 3 + 1 / 3) / 3)
    assert vqa_accuracy("cat", ["cat"]) == 0.0
    with pytest.raises(ScoringError, match="without annotators' answers"):
        vqa_accuracy("cat", [])


def test_soft_scores_count_raw_answers_of_the_vocabulary() -> None:
    annotators = ["cat"] * 4 + ["dog"] * 3 + ["cow", "Cow", "pig"]
    assert vqa_soft_scores(annotators, {"cat", "dog", "cow"}) == {"cat": 1.0, "dog": 0.9, "cow": 0.3}
    assert vqa_soft_scores(["net", "net"], {"net": 0}) == {"net": 0.6}


@given(
    st.lists(st.sampled_from(["red", "blue", "two", "4"]), min_size=10, max_size=10).filter(
        lambda a: len(set(a)) > 1
    )
)
def test_soft_scores_are_the_accuracies_of_answers_already_normal(annotators: list[str]) -> None:
    annotators = ["2" if answer == "two" else answer for answer in annotators]
    for answer, score in vqa_soft_scores(annotators, set(annotators)).items():
        assert vqa_accuracy(answer, annotators) == pytest.approx(score, abs=1e-9)


def question(question_id: int, answers: list[str], answer_type: str, question_type: str) -> dict:
    return {
        "question_id": question_id,
        "answer_type": answer_type,
        "question_type": question_type,
        "answers": [{"answer": answer, "answer_id": place + 1} for place, answer in enumerate(answers)],
    }


QUESTIONS = [
    question(1, ["yes"] * 8 + ["no"] * 2, "yes/no", "is the"),
    question(2, ["two"] * 3 + ["3"] * 7, "number", "how many"),
    question(3, ["red"] * 1 + ["blue"] * 9, "other", "what color"),
    question(4, ["no"] * 10, "yes/no", "is the"),
]


def answers(**given_: str) -> list[dict]:
    return [{"question_id": int(key[1:]), "answer": answer} for key, answer in given_.items()]


def test_vqa_is_scored_overall_and_by_type() -> None:
    report = score_vqa(answers(q4="no", q1="no", q2="2", q3="Red."), QUESTIONS)
    assert report.examples == 4
    assert report.metrics == {"accuracy": 70.0}
    assert report.groups == {
        "answer_type": {"number": (90.0, 1), "other": (30.0, 1), "yes/no": (80.0, 2)},
        "question_type": {"how many": (90.0, 1), "is the": (80.0, 2), "what color": (30.0, 1)},
    }
    assert report.to_dict()["groups"]["answer_type"]["yes/no"] == {"score": 80.0, "examples": 2}


def test_scores_are_rounded_where_they_are_written() -> None:
    report = score_vqa(answers(q1="yes", q2="9", q3="9"), QUESTIONS[:3])
    assert report.metrics == {"accuracy": pytest.approx(100 / 3, abs=1e-9)}
    assert report.to_dict()["metrics"] == {"accuracy": 33.33}


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (answers(q1="yes", q2="2", q3="red"), "no prediction for 1 questions: 4"),
        (
            answers(q1="yes", q2="2", q3="red", q4="no", q9="no"),
            "1 question ids are not in the annotations: 9",
        ),
        (
            [*answers(q1="yes"), *answers(q1="no")],
            r"predictions\[1\]: question_id 1 is answered a second time",
        ),
        (
            [{"question_id": "1", "answer": "yes"}],
            r"predictions\[0\]: question_id '1' is a str; .* wants int",
        ),
        ([{"question_id": True, "answer": "yes"}], r"predictions\[0\]: question_id True is a bool"),
        (
            [{"question_id": 1, "answer": 2}],
            r"predictions\[0\]: answer of question_id 1 is 2, a int; .* a string",
        ),
        ([{"question_id": 1}], r"predictions\[0\]: .* expected {\"question_id\": int, \"answer\": str}"),
        ({"1": "yes"}, "predictions: a dict, expected a list"),
    ],
)
def test_bad_vqa_predictions_are_refused_by_name(predictions: list[dict], message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        score_vqa(predictions, QUESTIONS)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([], "expected the list under `annotations`"),
        ([{"question_id": 1, "answers": []}], r"annotations\[0\]: .* lacks answer_type, question_type"),
        (
            [question(1, [], "other", "what")],
            r"annotations\[0\]: answers of question_id 1 are \[\], expected",
        ),
        ([QUESTIONS[0], QUESTIONS[0]], r"annotations\[1\]: question_id 1 occurs a second time"),
    ],
)
def test_bad_vqa_annotations_are_refused_by_name(annotations: list[dict], message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        score_vqa(answers(q1="yes"), annotations)


@needs_data
@pytest.mark.parametrize(
    "path", ["vqa_mini/v2_mscoco_train2014_annotations.json", "coco10/official/annotations.json"]
)
def test_real_annotations_score_as_in_a_second_implementation(path: str) -> None:
    annotations = json.loads((DATA / path).read_text())["annotations"]
    for pick in ("most common", "least common"):
        predictions, expected = [], []
        for annotation in annotations:
            written = [entry["answer"] for entry in annotation["answers"]]
            answer = Counter(written).most_common()[0 if pick == "most common" else -1][0]
            predictions.append({"question_id": annotation["question_id"], "answer": answer})
            expected.append(reference_accuracy(answer, written))
        report = score_vqa(predictions, annotations)
        assert report.metrics["accuracy"] == pytest.approx(100 * sum(expected) / len(expected), abs=1e-9)
        assert report.metrics["accuracy"] > 0
        assert sum(group.examples for group in report.groups["question_type"].values()) == len(annotations)


@needs_data
def test_soft_scores_of_official_annotations_are_the_released_labels() -> None:
    annotations = json.loads((DATA / "coco10/official/annotations.json").read_text())["annotations"]
    written = {a["question_id"]: [entry["answer"] for entry in a["answers"]] for a in annotations}
    rows = [
        row
        for split in ("train", "minival")
        for row in json.loads((DATA / f"coco10/vqa/{split}.json").read_text())
    ]
    assert len(rows) == len(written) > 50
    for row in rows:
        everything = set(written[row["question_id"]])
        assert vqa_soft_scores(written[row["question_id"]], everything) == pytest.approx(row["label"])


def vizwiz_row(name: str, answers: list[str], answer_type: str = "other") -> dict:
    return {
        "image": name,
        "question": "What is this?",
        "answers": [{"answer": answer, "answer_confidence": "yes"} for answer in answers],
        "answer_type": answer_type,
        "answerable": 1,
    }


def test_vizwiz_normalises_the_prediction_alone() -> None:
    rows = [
        vizwiz_row("a.jpg", ["the can"] * 10),
        vizwiz_row("b.jpg", ["Can"] * 2 + ["can"] * 8, "unanswerable"),
        vizwiz_row("c.jpg", ["can"] * 10),
    ]
    predictions = [
        {"image": name, "answer": answer}
        for name, answer in [("a.jpg", "the can"), ("b.jpg", "Can"), ("c.jpg", "A can.")]
    ]
    report = score_vizwiz(predictions, rows)
    assert report.metrics["accuracy"] == pytest.approx(200 / 3)
    assert report.groups == {"answer_type": {"other": (50.0, 2), "unanswerable": (100.0, 1)}}
    with pytest.raises(ScoringError, match=r"no prediction for 1 questions: c\.jpg"):
        score_vizwiz(predictions[:2], rows)
    with pytest.raises(ScoringError, match=r"1 images are not in the annotations: c\.jpg"):
        score_vizwiz(predictions, rows[:2])
    with pytest.raises(ScoringError, match=r"annotations\[3\]: image a\.jpg occurs a second time"):
        score_vizwiz(predictions, [*rows, rows[0]])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_vizwiz_accuracy_equals_a_second_implementation(data: st.DataObject) -> None:
    pool = data.draw(st.lists(answers_of_pieces, min_size=1, max_size=4))
    annotators = data.draw(
        st.lists(st.sampled_from([*pool, *map(reference_normalise, pool)]), min_size=1, max_size=10)
    )
    prediction = data.draw(st.sampled_from(pool))
    accuracies = []
    for left_out in range(len(annotators)):
        others = annotators[:left_out] + annotators[left_out + 1 :]
        accuracies.append(min(1, others.count(reference_normalise(prediction)) / 3))
    expected = sum(accuracies) / len(accuracies)
    assert vizwiz_accuracy(prediction, annotators) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 0.25, 0.5, 0.75, 1]), st.booleans()), min_size=1, max_size=12))
def test_average_precision_equals_a_second_implementation(scores: list[tuple[float, bool]]) -> None:
    total = sum(truth for _, truth in scores)
    assume(total)
    area = recall = 0.0
    for least in sorted({score for score, _ in scores}, reverse=True):
        called = [truth for score, truth in scores if score >= least]
        area += (sum(called) / total - recall) * sum(called) / len(called)
        recall = sum(called) / total
    assert average_precision(scores) == pytest.approx(area)


def test_vizwiz_answerability_is_that_of_the_questions_without_an_answer() -> None:
    rows = [vizwiz_row(f"{n}.jpg", ["can"] * 10) | {"answerable": int(n > 1)} for n in range(4)]
    predictions = [{"image": row["image"], "answer": "can"} for row in rows]
    # The second is taken for answerable: precision 1 at recall 1/2, then 2 of 3; one of one called, of two.
    surely = [{"image": f"{n}.jpg", "answerable": score} for n, score in enumerate([0.25, 0.75, 0.6, 1])]
    metrics = score_vizwiz(predictions, rows, surely).metrics
    assert metrics["answerability/average_precision"] == pytest.approx(100 * (1 / 2 + 1 / 2 * 2 / 3))
    assert metrics["answerability/f1"] == pytest.approx(100 * 2 * 1 / (1 + 2))
    for changes, message in (
        ([*surely[:3]], "no prediction for 1 images' answerability: 3.jpg"),
        ([*surely, surely[0]], r"answerability\[4\]: image 0.jpg is there a second time"),
        (
            [{"image": "0.jpg", "answerable": 2}],
            r"answerability\[0\]: .* expected {\"image\": str, \"answerable\": 0..1}",
        ),
    ):
        with pytest.raises(ScoringError, match=message):
            score_vizwiz(predictions, rows, changes)
    with pytest.raises(ScoringError, match="every question can be answered"):
        score_vizwiz(predictions, [row | {"answerable": 1} for row in rows], surely)
    with pytest.raises(ScoringError, match=r"answerable of image 0.jpg is None, expected 0 or 1"):
        score_vizwiz(predictions, [row | {"answerable": None} for row in rows], surely)


# ------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize("name", [int, str])
def test_labels_give_the_soft_score_of_each_answer(name: type) -> None:
    rows = [
        {"question_id": name(1), "label": {"cat": 1, "dog": 0.3}, "answer_type": "other"},
        {"question_id": name(2), "label": {"cat": 0.6}, "answer_type": "yes/no"},
        {"question_id": name(3), "label": {}, "answer_type": "other"},
    ]
    predictions = [
        {"question_id": name(n), "answer": answer} for n, answer in [(3, "cat"), (1, "dog"), (2, "cat")]
    ]
    report = score_labels(predictions, rows)
    assert report.metrics == {"accuracy": pytest.approx(30.0)}
    assert report.groups == {"answer_type": {"other": (pytest.approx(15.0), 2), "yes/no": (60.0, 1)}}
    assert score_labels(predictions, [*rows[:2], {"question_id": name(3), "label": {"cat": 0.9}}]).groups == {}
    for changes, message in (
        ([], "labels: found "),
        ([*rows, rows[0]], r"labels\[3\]: question_id 1 occurs a second time"),
        (rows[:2], "1 question ids are not in the annotations: 3"),
        ([*rows, rows[0] | {"question_id": name(4)}], "no prediction for 1 questions: 4"),
        ([{"question_id": name(1)}], r"labels\[0\]: .* expected a list of"),
        ([rows[0] | {"label": {"cat": 2}}], r"labels\[0\] \(question 1\): the score of answer 'cat' is 2"),
        ([rows[0], rows[1] | {"question_id": 1.5}], r"labels\[1\]: question_id is 1.5, expected"),
    ):
        with pytest.raises(ScoringError, match=message):
            score_labels(predictions, changes)


def test_ok_vqa_annotations_are_scored_as_those_of_vqa() -> None:
    entries = [
        {"answer_id": place, "raw_answer": "racing", "answer": "race", "answer_confidence": "yes"}
        for place in range(10)
    ]
    row = {"image_id": 5, "answer_type": "other", "question_type": "four", "question_id": 51, "answers": entries}
    report = score_vqa([{"question_id": 51, "answer": "race"}], [row | {"confidence": 3}])
    assert report.metrics == {"accuracy": 100.0}


def gqa_question(answer: str, structural: str, **changes: object) -> dict:
    return {
        "question": "What is it made of?",
        "answer": answer,
        "isBalanced": True,
        "types": {"structural": structural, "semantic": "attr", "detailed": "directOf"},
        "semantic": [
            {"operation": "select", "dependencies": [], "argument": "table (7)"},
            {"operation": "query", "dependencies": [0], "argument": "material"},
        ],
        "groups": {"global": "material", "local": "06-table"},
        "entailed": [],
    } | changes


# Predicted: a right, b wrong, c right, d right, e wrong; f and g are not balanced.
GQA = {
    "a": gqa_question("wood", "query", entailed=["a", "f", "g"]),
    "b": gqa_question("wood", "query", entailed=["f"]),
    "c": gqa_question("metal", "query"),
    "d": gqa_question(
        "yes",
        "verify",
        question="Is there a table?",
        entailed=["g"],
        groups={"global": None, "local": None},
        semantic=[
            {"operation": "select", "dependencies": [], "argument": "table (7)"},
            {"operation": "exist", "dependencies": [0], "argument": "?"},
        ],
    ),
    "e": gqa_question(
        "color",
        "compare",
        types={"structural": "compare", "semantic": "attr", "detailed": "twoCommon"},
        groups={"global": None, "local": None},
    ),
    "f": gqa_question("yes", "verify", isBalanced=False),
    "g": gqa_question("no", "verify", isBalanced=False),
}
GQA_PREDICTIONS = {"a": "wood", "b": "metal", "c": "metal", "d": "yes", "e": "shape", "f": "yes", "g": "yes"}
GQA_CHOICES = {
    "a": {"valid": ["wood", "metal"], "plausible": ["wood"]},
    "b": {"valid": ["wood", "metal"], "plausible": ["wood"]},
    "c": {"valid": ["wood", "metal"], "plausible": ["metal"]},
    "d": {"valid": ["yes", "no"], "plausible": ["yes", "no"]},
}


def gqa_predictions(**changes: str) -> list[dict]:
    return [{"questionId": key, "prediction": value} for key, value in (GQA_PREDICTIONS | changes).items()]


def test_gqa_metrics_equal_hand_computed_ones() -> None:
    report = score_gqa(gqa_predictions(), GQA, choices=GQA_CHOICES, all_questions=GQA)
    assert report.examples == 5
    assert report.to_dict()["metrics"] == {
        "accuracy": 60.0,  # a, c, d of a to e
        "binary": 50.0,  # d of d, e
        "open": 66.67,  # a, c of a, b, c
        "validity": 100.0,  # e asks what two things share: the kinds of attribute are its choices
        "plausibility": 80.0,  # not b
        "consistency": 25.0,  # a entails f (right) and g (wrong), d entails g; b is wrong and does not count
        # one group: wood 2 true, 1 predicted; metal 1 true, 2 predicted: (1/2 + 1/1) / 100
        "distribution": 0.01,
    }
    assert report.groups["structural"] == {
        "compare": (0.0, 1),
        "query": (pytest.approx(200 / 3), 3),
        "verify": (100.0, 1),
    }
    assert report.groups["semantic"] == {"attr": (60.0, 5)}
    assert report.groups["detailed"] == {"directOf": (75.0, 4), "twoCommon": (0.0, 1)}
    assert report.groups["steps"] == {"1": (100.0, 1), "2": (50.0, 4)}
    assert report.groups["words"] == {"4": (100.0, 1), "5": (50.0, 4)}
    assert report.notes == []


def test_gqa_distribution_weighs_groups_by_their_size() -> None:
    questions = {f"x{i}": gqa_question("wood", "query") for i in range(30)}
    questions |= {
        f"y{i}": gqa_question("red", "query", groups={"global": "color", "local": None}) for i in range(10)
    }
    predictions = [{"questionId": key, "prediction": "blue"} for key in questions]
    # Nothing predicted right: chi-square 30 and 10, so (30 * 30 + 10 * 10) / 40 / 100.
    assert score_gqa(predictions, questions).metrics["distribution"] == 0.25


def test_gqa_words_and_steps_are_ordered_as_numbers() -> None:
    questions = {str(n): gqa_question("wood", "query", question="word " * n) for n in (10, 9, 2)}
    predictions = [{"questionId": key, "prediction": "wood"} for key in questions]
    assert list(score_gqa(predictions, questions).groups["words"]) == ["2", "9", "10"]


def test_gqa_leaves_out_what_its_files_do_not_tell() -> None:
    balanced = {id_: question for id_, question in GQA.items() if question["isBalanced"]}
    report = score_gqa(gqa_predictions(), balanced)
    assert sorted(report.metrics) == ["accuracy", "binary", "distribution", "open"]
    assert report.notes == ["Ignored as officially: 2 predictions for examples outside the given files: f, g."]


def test_gqa_answers_must_be_equal_to_the_letter() -> None:
    assert score_gqa(gqa_predictions(a="Wood"), GQA).metrics["accuracy"] == 40.0


@pytest.mark.parametrize(
    ("left_out", "files", "message"),
    [
        ("b", {}, "no prediction for 1 balanced questions: b"),
        ("g", {"all_questions": GQA}, "no prediction for 1 of all questions, which consistency asks for: g"),
        ("", {"choices": {}}, "choices: no 'valid' answers for question a"),
        ("", {"all_questions": {"a": GQA["a"]}}, "question a entails f, g, which the file lacks"),
    ],
)
def test_incomplete_gqa_files_are_refused_by_name(left_out: str, files: dict, message: str) -> None:
    predictions = [row for row in gqa_predictions() if row["questionId"] != left_out]
    with pytest.raises(ScoringError, match=message):
        score_gqa(predictions, GQA, **files)


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ({}, "expected an object of question id"),
        ({"a": {"question": "What?"}}, "'a'.* lacks answer, isBalanced"),
        ({"a": gqa_question("wood", "query", types={})}, "'a'.* expected types structural"),
        ({"f": GQA["f"]}, "none of the questions is balanced"),
    ],
)
def test_bad_gqa_questions_are_refused_by_name(questions: dict, message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        score_gqa(gqa_predictions(), questions)


def test_gqa_ids_are_strings() -> None:
    with pytest.raises(ScoringError, match="questionId 7 is a int; the submission format wants str"):
        score_gqa([{"questionId": 7, "prediction": "wood"}], GQA)


def reference_gqa(predictions: dict, questions: dict, choices: dict, scenes: dict, attentions: dict) -> dict:
    """The makers' rules question by question, written from their description."""
    lists: dict[str, list[float]] = {}
    gold: dict[str, dict[str, int]] = {}
    given_: dict[str, dict[str, int]] = {}
    for id_, question in questions.items():
        if not question["isBalanced"]:
            continue
        predicted = predictions[id_]
        right = 1.0 if predicted == question["answer"] else 0.0
        kind = question["types"]["structural"]
        steps = 0
        for step in question["semantic"]:
            text = step["operation"] + ": " + step["argument"]
            if "exist" not in text and "query: name" not in text and "choose name" not in text:
                steps += 1
        binary = kind in ("verify", "choose", "compare", "logical")
        common = ["color", "material", "shape"] if "Common" in question["types"]["detailed"] else None
        filed = {
            "accuracy": right,
            "binary" if binary else "open": right,
            "validity": float(predicted in (common or choices[id_]["valid"])),
            "plausibility": float(predicted in (common or choices[id_]["plausible"])),
            f"structural {kind}": right,
            f"semantic {question['types']['semantic']}": right,
            f"detailed {question['types']['detailed']}": right,
            f"steps {steps}": right,
            f"words {len(question['question'].split())}": right,
        }
        for name, value in filed.items():
            lists.setdefault(name, []).append(value)
        others = [other for other in question["entailed"] if other != id_]
        if right and others:
            hits = [1.0 if predictions[other] == questions[other]["answer"] else 0.0 for other in others]
            lists.setdefault("consistency", []).append(sum(hits) / len(hits))
        if question["groups"]["global"] is not None:
            for counts, answer in ((gold, question["answer"]), (given_, predicted)):
                answers_ = counts.setdefault(question["groups"]["global"], {})
                answers_[answer] = answers_.get(answer, 0) + 1
        lists.setdefault("grounding", []).append(reference_grounding(question, scenes, attentions[id_]))
    result = {name: 100 * sum(values) / len(values) for name, values in lists.items()}
    weighted, number = 0.0, 0
    for group, counts in gold.items():
        chi = 0.0
        for answer, count in counts.items():
            chi += (given_[group].get(answer, 0) - count) ** 2 / count
        weighted += chi * sum(counts.values())
        number += sum(counts.values())
    return result | {"distribution": weighted / number / 100}


def reference_grounding(question: dict, scenes: dict, attention: list[list[float]]) -> float:
    scene = scenes[question["imageId"]]
    mentioned = list(question["annotations"]["question"].values())
    mentioned += list(question["annotations"]["fullAnswer"].values())
    total = 0.0
    for object_id in mentioned:
        place = scene["objects"][object_id]
        left, right = place["x"] / scene["width"], (place["x"] + place["w"]) / scene["width"]
        top, bottom = place["y"] / scene["height"], (place["y"] + place["h"]) / scene["height"]
        for x0, y0, x1, y1, weight in attention:
            wide, high = min(x1, right) - max(x0, left), min(y1, bottom) - max(y0, top)
            if wide > 0 and high > 0:
                total += weight * wide * high / ((x1 - x0) * (y1 - y0))
    return total


def generated_gqa(number: int) -> tuple[dict, dict, dict, dict, dict]:
    """Questions, predictions, choices, scene graphs and attentions as their makers lay them out."""
    random_ = random.Random(1)
    texts = ["wood", "metal", "yes", "no", "", "left", "Left", "color", "dark blue", "on top of", "2", "it's"]
    operations = [
        ("select", "table (1)"),
        ("query", "name"),
        ("query", "color"),
        ("exist", "?"),
        ("choose name", "a|b"),
    ]
    scenes = {
        str(image): {
            "width": random_.randint(200, 640),
            "height": random_.randint(200, 480),
            "objects": {
                str(o): {
                    "x": random_.randint(0, 90),
                    "y": random_.randint(0, 90),
                    "w": o * 30,
                    "h": 40,
                    "name": "cup",
                }
                for o in range(1, 4)
            },
        }
        for image in range(20)
    }
    questions, predictions, choices, attentions = {}, {}, {}, {}
    for place in range(number):
        id_ = f"{place:08d}"
        steps = random_.choices(operations, k=random_.randint(1, 5))
        questions[id_] = {
            "question": " ".join(["word"] * random_.randint(3, 12)) + "?",
            "answer": random_.choice(texts),
            "imageId": random_.choice(list(scenes)),
            "isBalanced": random_.random() < 0.8,
            "types": {
                "structural": random_.choice(["query", "verify", "choose", "compare", "logical"]),
                "semantic": random_.choice(["attr", "cat", "global", "obj", "rel"]),
                "detailed": random_.choice(["twoCommon", "relS", "existC"]),
            },
            "semantic": [{"operation": o, "dependencies": [], "argument": a} for o, a in steps],
            "groups": {"global": random_.choice([None, "material", "color"]), "local": None},
            "entailed": [f"{random_.randrange(number):08d}" for _ in range(random_.randint(0, 3))] + [id_],
            "annotations": {
                "question": {"2": random_.choice("123")},
                "answer": {},
                "fullAnswer": {"0": random_.choice("123"), "3:5": random_.choice("123")},
            },
        }
        predictions[id_] = random_.choice([questions[id_]["answer"], *texts])
        choices[id_] = {"valid": random_.sample(texts, 5), "plausible": random_.sample(texts, 3)}
        boxes = [[random_.random() / 2, random_.random() / 2] for _ in range(4)]
        attentions[id_] = [[x, y, x + random_.random() / 2 + 0.01, y + 0.3, 0.25] for x, y in boxes]
    return questions, predictions, choices, scenes, attentions


def test_ten_thousand_gqa_predictions_score_as_in_a_second_implementation() -> None:
    questions, predictions, choices, scenes, attentions = generated_gqa(10_000)
    report = score_gqa(
        [{"questionId": id_, "prediction": answer} for id_, answer in predictions.items()],
        questions,
        choices=choices,
        all_questions=questions,
        attentions=attentions,
        scene_graphs=scenes,
    )
    got = dict(report.metrics)
    for kind, values in report.groups.items():
        got |= {f"{kind} {value}": group.score for value, group in values.items()}
    assert got == pytest.approx(reference_gqa(predictions, questions, choices, scenes, attentions), abs=1e-9)
    assert all(0 < got[name] < 100 for name in ("consistency", "grounding", "validity", "distribution"))


GROUNDED = gqa_question(
    "wood",
    "query",
    imageId="7",
    annotations={"question": {"3": "11"}, "answer": {"0": "99"}, "fullAnswer": {"1": "11", "5": "12"}},
)
SCENES = {
    "7": {
        "width": 200,
        "height": 100,
        "objects": {"11": {"x": 0, "y": 0, "w": 100, "h": 100}, "12": {"x": 100, "y": 50, "w": 100, "h": 50}},
    }
}


def grounding(attention: object, question: dict = GROUNDED, scenes: dict = SCENES) -> float:
    report = score_gqa(
        [{"questionId": "a", "prediction": "wood"}],
        {"a": question},
        attentions={"a": attention},  # type: ignore[dict-item]
        scene_graphs=scenes,
    )
    return report.metrics["grounding"]


def test_grounding_equals_hand_computed_ones() -> None:
    # Object 11 is the left half, mentioned twice, 12 the lower right quarter; the short answer's do not count.
    assert grounding([[0, 0, 0.5, 1, 1.0]]) == pytest.approx(200)
    assert grounding([[0.25, 0, 0.75, 1, 0.6], [0.5, 0, 1, 0.5, 0.4]]) == pytest.approx(60 * (0.5 * 2 + 0.25))
    assert grounding([[0.2, 0.2, 0.2, 0.4, 1.0]]) == 0  # a box without area
    whole = GROUNDED | {
        "annotations": {"question": {}, "answer": {}, "fullAnswer": {}},
        "semantic": [{"operation": "select", "dependencies": [], "argument": "scene"}],
    }
    assert grounding([[0.5, 0.5, 1, 1, 0.3], [0, 0, 1, 1, 0.7]], whole) == pytest.approx(100)
    assert grounding([[0.5, 0.5, 1, 1, 1.0]], whole | {"semantic": []}) == 0


def test_bad_attention_is_refused_by_name() -> None:
    for attention in ([[0, 0, 1, 1]], [[1, 0, 0, 1, 1.0]], [], ["a"], None, [[0, 0, float("nan"), 1, 1]]):
        with pytest.raises(ScoringError, match="attentions: those of question a are"):
            grounding(attention)
    with pytest.raises(ScoringError, match="no image '7' for question a"):
        grounding([[0, 0, 1, 1, 1]], scenes={})
    with pytest.raises(ScoringError, match="image 7 has no object '12'"):
        grounding([[0, 0, 1, 1, 1]], scenes={"7": SCENES["7"] | {"objects": {"11": SCENES["7"]["objects"]["11"]}}})
    with pytest.raises(ScoringError, match="attentions: none for 1 balanced questions: a"):
        score_gqa([{"questionId": "a", "prediction": "wood"}], {"a": GROUNDED}, attentions={}, scene_graphs=SCENES)


def test_gqa_ood_files_share_one_prediction_file() -> None:
    questions, predictions, *_ = generated_gqa(300)
    balanced = {id_: question for id_, question in questions.items() if question["isBalanced"]}
    ids = list(balanced)
    head, tail = ({id_: balanced[id_] for id_ in half} for half in (ids[::2], ids[1::2]))
    rows = [{"questionId": id_, "prediction": answer} for id_, answer in predictions.items()]
    accuracy = {name: score_gqa(rows, part) for name, part in (("all", balanced), ("head", head), ("tail", tail))}
    counted = {name: report.metrics["accuracy"] * report.examples for name, report in accuracy.items()}
    assert counted["all"] == pytest.approx(counted["head"] + counted["tail"])
    assert accuracy["head"].notes


STATEMENTS = [
    {"identifier": "dev-1-0-0", "label": "True"},
    {"identifier": "dev-1-1-0", "label": "False"},
    {"identifier": "dev-1-0-1", "label": "True"},
    {"identifier": "dev-2-0-0", "label": "False"},
]


def labels(*values: str) -> list[dict]:
    return [
        {"identifier": row["identifier"], "label": value} for row, value in zip(STATEMENTS, values, strict=False)
    ]


def test_nlvr2_consistency_wants_every_pair_of_a_sentence_right() -> None:
    report = score_nlvr2(labels("True", "True", "true", "False"), STATEMENTS)
    assert report.examples == 4
    # Sentences: (1, 0) over two pairs, one wrong; (1, 1); (2, 0).
    assert report.to_dict()["metrics"] == {"accuracy": 75.0, "consistency": 66.67}


def test_nlvr2_subsets_are_scored_on_their_own_statements() -> None:
    report = score_nlvr2(
        labels("True", "True", "True", "False"),
        STATEMENTS,
        balanced=STATEMENTS[:1],
        unbalanced=STATEMENTS[1:],
    )
    assert report.to_dict()["metrics"] == {
        "accuracy": 75.0,
        "consistency": 66.67,
        "balanced/accuracy": 100.0,
        "balanced/consistency": 100.0,
        "unbalanced/accuracy": 66.67,
        "unbalanced/consistency": 66.67,
    }


@pytest.mark.parametrize(
    ("predictions", "statements", "message"),
    [
        (labels("True", "True"), STATEMENTS, "no prediction for 2 statements: dev-1-0-1, dev-2-0-0"),
        (labels("yes"), STATEMENTS[:1], "dev-1-0-0 is predicted 'yes', expected True or False"),
        (labels("True") * 2, STATEMENTS[:1], "answered a second time"),
        (labels("True"), STATEMENTS[:1] * 2, r"annotations\[1\]: dev-1-0-0 occurs a second time"),
        (labels("True"), [{"identifier": "dev-1-0-0"}], r"annotations\[0\]: label of dev-1-0-0 is None"),
        (
            labels("True"),
            [{"identifier": "dev-1"}],
            r"annotations\[0\]: identifier 'dev-1', expected split-set",
        ),
        (labels("True"), [], "annotations: no statements"),
    ],
)
def test_bad_nlvr2_files_are_refused_by_name(
    predictions: list[dict], statements: list[dict], message: str
) -> None:
    with pytest.raises(ScoringError, match=message):
        score_nlvr2(predictions, statements)


def test_nlvr2_predictions_for_other_statements_are_ignored_as_officially() -> None:
    report = score_nlvr2(labels("True", "True"), STATEMENTS[:1])
    assert report.metrics == {"accuracy": 100.0, "consistency": 100.0}
    assert report.notes == [
        "Ignored as officially: 1 predictions for examples outside the given files: dev-1-1-0."
    ]


def test_ten_thousand_nlvr2_predictions_score_as_in_a_second_implementation() -> None:
    random_ = random.Random(2)
    statements = [
        {"identifier": f"dev-{image_set}-{pair}-{sentence}", "label": random_.choice(["True", "False"])}
        for image_set in range(1_250)
        for pair in range(4)
        for sentence in range(2)
    ]
    predictions = {
        row["identifier"]: random_.choice([row["label"], row["label"].lower(), "False"]) for row in statements
    }
    hits, consistent = 0, {}
    for row in statements:
        parts = row["identifier"].split("-")
        parts[2] = ""
        right = predictions[row["identifier"]].lower() == row["label"].lower()
        hits += right
        consistent["-".join(parts)] = consistent.get("-".join(parts), True) and right
    shuffled = random_.sample(list(predictions.items()), 10_000)
    report = score_nlvr2([{"identifier": i, "label": label} for i, label in shuffled], statements)
    assert report.examples == 10_000 and len(consistent) == 2_500
    assert report.metrics["accuracy"] == pytest.approx(hits / 100, abs=1e-9)
    assert report.metrics["consistency"] == pytest.approx(100 * sum(consistent.values()) / 2_500, abs=1e-9)


@needs_data
@pytest.mark.parametrize("split", ["dev", "test1"])
def test_real_nlvr2_statements_score_as_counted(split: str) -> None:
    rows = [json.loads(line) for line in (DATA / f"nlvr2/{split}_400.json").read_text().splitlines()]
    perfect = score_nlvr2(rows, rows)
    assert perfect.examples == 400
    assert perfect.metrics == {"accuracy": 100.0, "consistency": 100.0}

    always_true = [{"identifier": row["identifier"], "label": "True"} for row in rows]
    sentences: dict[str, set[str]] = {}
    for row in rows:
        place = row["identifier"].split("-")
        sentences.setdefault(f"{place[1]} {place[3]}", set()).add(row["label"])
    report = score_nlvr2(always_true, rows)
    assert report.metrics["accuracy"] == pytest.approx(sum(row["label"] == "True" for row in rows) / 4)
    consistent = sum(seen == {"True"} for seen in sentences.values())
    assert report.metrics["consistency"] == pytest.approx(100 * consistent / len(sentences), abs=1e-9)
    assert 0 < report.metrics["consistency"] < report.metrics["accuracy"]


def test_a_group_score_carries_its_size() -> None:
    assert score_vqa(answers(q1="yes"), QUESTIONS[:1]).groups["answer_type"]["yes/no"] == GroupScore(100.0, 1)
