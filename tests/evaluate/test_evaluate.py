"""`python -m lxmert.evaluate`: scores, submissions and ensembles, on real and made files."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lxmert.evaluate import TASKS, ScoringError, check_submission
from lxmert.evaluate import ensemble as ensembles
from lxmert.evaluate.__main__ import main
from lxmert.evaluate.ensemble import Scores, average_scores, read_scores, write_scores

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no test data at {DATA}")


def evaluate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lxmert.evaluate.__main__", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def vqa_annotations(path: Path) -> Path:
    questions = [
        {
            "question_id": number,
            "answer_type": kind,
            "question_type": "is [the]",
            "answers": [{"answer": answer, "answer_id": place} for place, answer in enumerate(answers)],
        }
        for number, kind, answers in [(1, "yes/no", ["yes"] * 10), (2, "other", ["red"] * 3 + ["blue"] * 7)]
    ]
    return write(path, {"annotations": questions})


@needs_data
def test_vqa_file_of_another_system_is_scored_from_the_shell(tmp_path: Path) -> None:
    annotations = DATA / "coco10/official/annotations.json"
    predictions = [
        {"question_id": question["question_id"], "answer": question["multiple_choice_answer"]}
        for question in json.loads(annotations.read_text())["annotations"]
    ]
    done = evaluate(
        "vqa", write(tmp_path / "p.json", predictions), annotations, "--json", tmp_path / "scores.json"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(predictions)} examples" in done.stdout
    assert "answer_type: yes/no" in done.stdout
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["task"] == "vqa"
    assert scores["examples"] == len(predictions)
    assert scores["metrics"]["accuracy"] > 95
    assert f"{scores['metrics']['accuracy']:.2f}" in done.stdout


@needs_data
def test_nlvr2_submission_is_scored_from_the_shell(tmp_path: Path) -> None:
    statements = DATA / "nlvr2/dev_400.json"
    rows = [json.loads(line) for line in statements.read_text().splitlines()]
    guesses = write(tmp_path / "guesses.csv", "".join(f"{row['identifier']},True\n" for row in rows))
    subset = write(tmp_path / "balanced.json", "".join(json.dumps(row) + "\n" for row in rows[:10]))
    done = evaluate("nlvr2", guesses, statements, "--balanced", subset, "--json", tmp_path / "scores.json")
    assert (done.returncode, done.stderr) == (0, "")
    metrics = json.loads((tmp_path / "scores.json").read_text())["metrics"]
    assert metrics["accuracy"] == round(sum(row["label"] == "True" for row in rows) / 4, 2)
    assert metrics["balanced/accuracy"] == 10 * sum(row["label"] == "True" for row in rows[:10])


def test_incomplete_predictions_end_with_one_message_and_no_scores(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p.json", [{"question_id": 1, "answer": "yes"}])
    done = evaluate("vqa", predictions, vqa_annotations(tmp_path / "a.json"), "--json", tmp_path / "scores.json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: predictions: no prediction for 1 questions: 2.")
    assert f"predictions: {predictions}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "scores.json").exists()


def gqa_question(answer: str, *, balanced: bool = True, entailed: tuple[str, ...] = ()) -> dict:
    return {
        "question": "What is it made of?",
        "answer": answer,
        "isBalanced": balanced,
        "types": {"structural": "query", "semantic": "attr", "detailed": "directOf"},
        "semantic": [{"operation": "query", "dependencies": [], "argument": "material"}],
        "groups": {"global": "material", "local": None},
        "entailed": list(entailed),
    }


def test_gqa_questions_may_be_a_folder_of_chunks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = {"1": gqa_question("wood", entailed=("2",)), "2": gqa_question("metal", balanced=False)}
    chunks = tmp_path / "all_questions"
    chunks.mkdir()
    for number, (id_, question) in enumerate(questions.items()):
        write(chunks / f"all_questions_{number}.json", {id_: question})
    balanced = write(tmp_path / "balanced.json", {"1": questions["1"]})
    choices = write(tmp_path / "choices.json", {"1": {"valid": ["wood"], "plausible": []}})
    answers = [{"questionId": "1", "prediction": "wood"}, {"questionId": "2", "prediction": "metal"}]
    predictions = write(tmp_path / "p.json", answers)
    expected = {
        "accuracy": 100.0,
        "open": 100.0,
        "validity": 100.0,
        "plausibility": 0.0,
        "consistency": 100.0,
        "distribution": 0.0,
    }
    for questions_path in (balanced, chunks):
        out = tmp_path / "scores.json"
        arguments = [
            "gqa",
            predictions,
            questions_path,
            "--choices",
            choices,
            "--all-questions",
            chunks,
            "--json",
            out,
        ]
        assert main([str(argument) for argument in arguments]) == 0
        assert json.loads(out.read_text())["metrics"] == expected

    assert main(["gqa", str(predictions), str(balanced)]) == 0
    assert "1 predictions for examples outside the given files: 2." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '[{"question_id": 1, "ans',
            "p.json: broken or truncated JSON at line 1, column 21 (character 20): Unterminated string",
        ),
        (
            '[{"question_id": 1,',
            "line 1, column 20 (character 19): Expecting property name",
        ),
        ('[{"question_id": 1, "question_id": 2}]', "p.json: 'question_id' twice in one object"),
        ("{}", "predictions: a dict, expected a list"),
        ('[{"question_id": "1", "answer": "yes"}]', "question_id '1' is a str"),
        ('[{"question_id": 7, "answer": "yes"}]', "1 question ids are not in the annotations: 7"),
        (None, "No such file or directory"),
    ],
)
def test_bad_vqa_files_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    predictions = tmp_path / "p.json"
    if content is not None:
        write(predictions, content)
    assert main(["vqa", str(predictions), str(vqa_annotations(tmp_path / "a.json"))]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert str(predictions) in error


@pytest.mark.parametrize(
    ("predictions", "statements", "message"),
    [
        (
            "dev-1-0-0;True\n",
            '{"identifier": "dev-1-0-0", "label": "True"}\n',
            "p.csv, line 1: 'dev-1-0-0;True'",
        ),
        ("dev-1-0-0,Yes\n", '{"identifier": "dev-1-0-0", "label": "True"}\n', "dev-1-0-0 is predicted 'Yes'"),
        ("\ndev-1-0-0,True\n", "\n[]\n", "a.json, line 2: expected a JSON object"),
        ("dev-1-0-0,True\n", "{\n", "a.json, line 1: broken or truncated JSON"),
    ],
)
def test_bad_nlvr2_lines_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], predictions: str, statements: str, message: str
) -> None:
    files = write(tmp_path / "p.csv", predictions), write(tmp_path / "a.json", statements)
    assert main(["nlvr2", *map(str, files)]) == 1
    assert message in capsys.readouterr().err


def test_bytes_that_are_no_text_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.json").write_bytes(b"\x89PNG\xff")
    assert main(["vqa", str(tmp_path / "p.json"), str(vqa_annotations(tmp_path / "a.json"))]) == 1
    assert "p.json: not UTF-8 text at byte 0" in capsys.readouterr().err


def test_a_group_name_in_brackets_is_printed_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [{"question_id": 1, "answer": "yes"}, {"question_id": 2, "answer": "red"}]
    predictions = write(tmp_path / "p.json", answers)
    assert main(["vqa", str(predictions), str(vqa_annotations(tmp_path / "a.json"))]) == 0
    assert "is [the]" in capsys.readouterr().out


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def test_gqa_questions_that_occur_twice_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = write(tmp_path / "p.json", [{"questionId": "1", "prediction": "wood"}])
    question = json.dumps(gqa_question("wood"))
    twice = write(tmp_path / "twice.json", f'{{"1": {question}, "1": {question}}}')
    assert run("gqa", predictions, twice) == 1
    assert "twice.json: '1' twice in one object" in capsys.readouterr().err
    chunks = tmp_path / "chunks"
    chunks.mkdir()
    for name in ("a", "b"):
        write(chunks / f"{name}.json", {"1": gqa_question("wood")})
    assert run("gqa", predictions, chunks) == 1
    assert "b.json: 1 question ids that another file" in capsys.readouterr().err


def test_gqa_grounding_is_read_from_the_makers_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = gqa_question("wood") | {
        "imageId": "7",
        "annotations": {"question": {"3": "11"}, "answer": {}, "fullAnswer": {}},
    }
    scene = {"width": 10, "height": 10, "objects": {"11": {"x": 0, "y": 0, "w": 5, "h": 10}}}
    predictions = write(tmp_path / "p.json", [{"questionId": "1", "prediction": "wood"}])
    files = [predictions, write(tmp_path / "q.json", {"1": question})]
    boxes = [[0, 0, 0.5, 1, 0.25], [0.5, 0, 1, 1, 0.75]]
    listed = write(tmp_path / "listed.json", [{"questionId": "1", "attention": boxes}])
    keyed = write(tmp_path / "keyed.json", {"1": boxes})
    scenes = write(tmp_path / "scenes.json", {"7": scene})
    for attentions in (listed, keyed):
        out = tmp_path / "scores.json"
        assert run("gqa", *files, "--attentions", attentions, "--scene-graphs", scenes, "--json", out) == 0
        assert json.loads(out.read_text())["metrics"]["grounding"] == 25.0
    capsys.readouterr()
    assert run("gqa", *files, "--attentions", listed) == 1
    assert "needs both --attentions and --scene-graphs" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "{}", '{"1": {"valid": []}}', "[]"])
def test_missing_gqa_choices_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    predictions = write(tmp_path / "p.json", [{"questionId": "1", "prediction": "wood"}])
    choices = tmp_path / "choices.json"
    if content is not None:
        write(choices, content)
    questions = write(tmp_path / "q.json", {"1": gqa_question("wood")})
    assert run("gqa", predictions, questions, "--choices", choices) == 1
    error = capsys.readouterr().err
    assert "choices" in error and "Traceback" not in error and f"choices: {choices}" in error


def test_annotations_of_kindred_data_sets_are_recognised(tmp_path: Path) -> None:
    entries = [{"answer": "a can"}] * 10
    row = {"answer_type": "other", "answers": entries}
    cases = {
        "vqa-cp": ([row | {"question_id": 1, "question_type": "what"}], {"question_id": 1}),
        "ok-vqa": ({"annotations": [row | {"question_id": 1, "question_type": "two"}]}, {"question_id": 1}),
        "vizwiz": ([row | {"image": "a.jpg", "answerable": 1}], {"image": "a.jpg"}),
    }
    scores = {}
    for name, (content, id_) in cases.items():
        files = write(tmp_path / "p.json", [id_ | {"answer": "a can"}]), write(tmp_path / "a.json", content)
        assert run("vqa", *files, "--json", tmp_path / "scores.json") == 0
        scores[name] = json.loads((tmp_path / "scores.json").read_text())["metrics"]["accuracy"]
    # VizWiz normalises the prediction even though the annotators agree.
    assert scores == {"vqa-cp": 100.0, "ok-vqa": 100.0, "vizwiz": 0.0}


def labels(path: Path, name: type = int) -> Path:
    """The LXMERT release's form: question n has the answer "red", half right, and n, right."""
    rows = [
        {"question_id": name(n), "img_id": "i", "sent": "?", "label": {"red": 0.5, str(n): 1}} for n in range(4)
    ]
    return write(path, rows)


@pytest.mark.parametrize("name", [int, str])
@pytest.mark.parametrize("task", ["own", "vqa"])
def test_predictions_are_scored_by_labels_without_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, name: type
) -> None:
    answers = [{"question_id": name(n), "answer": ["red", "1", "blue", "3"][n]} for n in range(4)]
    files = write(tmp_path / "p.json", answers), labels(tmp_path / "own.json", name)
    assert run("check", task, *files) == 0
    assert run(task, *files, "--json", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["metrics"], scores["examples"]) == ({"accuracy": 62.5}, 4)
    assert ("the makers' accuracy needs their annotations" in capsys.readouterr().out) == (task == "vqa")
    other = write(
        tmp_path / "p.json", [row | {"question_id": [str, int][name is str](n)} for n, row in enumerate(answers)]
    )
    assert run("check", task, other, files[1]) == 1
    assert f"4 ids are not {name.__name__}" in capsys.readouterr().out
    assert run(task, other, files[1]) == 1
    assert f"the submission format wants {name.__name__}" in capsys.readouterr().err


def test_text_ids_pass_where_the_annotations_have_them(tmp_path: Path) -> None:
    annotations = json.loads(vqa_annotations(tmp_path / "a.json").read_text())["annotations"]
    rows = [row | {"question_id": f"q{row['question_id']}"} for row in annotations]
    answers = [{"question_id": f"q{n}", "answer": "yes"} for n in (1, 2)]
    files = (
        write(tmp_path / "p.json", answers),
        write(tmp_path / "a.json", {"annotations": rows, "questions": rows}),
    )
    assert run("check", "vqa", *files) == run("vqa", *files, "--json", tmp_path / "scores.json") == 0
    assert json.loads((tmp_path / "scores.json").read_text())["metrics"] == {"accuracy": 50.0}


SPLIT = {  # of each task: predictions of a part, the truth of more, the questions of the part, and what it scores
    "vqa": (
        [{"question_id": 2, "answer": "blue"}],
        None,
        [{"question_id": 2, "img_id": "COCO_val2014_1", "sent": "?"}],
        100.0,
    ),
    "vizwiz": (
        [{"image": "b.jpg", "answer": "can"}],
        [{"image": f"{n}.jpg", "answers": [{"answer": "can"}] * 10, "answer_type": "other"} for n in "abc"],
        [{"image": "b.jpg", "question": "?"}],
        100.0,
    ),
    "gqa": (
        [{"questionId": "2", "prediction": "metal"}],
        {"1": gqa_question("wood"), "2": gqa_question("metal")},
        [{"question_id": "2", "img_id": "7", "sent": "?"}],
        100.0,
    ),
    "nlvr2": (
        "test2-0-1-0,True\n",
        "".join(f'{{"identifier": "test2-0-{n}-0", "label": "True"}}\n' for n in range(3)),
        [{"identifier": "test2-0-1-0"}],
        100.0,
    ),
    "own": (
        [{"question_id": "b", "answer": "red"}],
        [{"question_id": n, "label": {"red": 0.5}} for n in "abc"],
        [{"question_id": "b", "img_id": "7", "sent": "?"}],
        50.0,
    ),
    "refcoco": (
        [{"id": "b", "box": [0, 0, 8, 8]}],
        [{"id": n, "box": [0, 0, 9, 9]} for n in "abc"],
        [{"id": "b", "box": [0, 0, 9, 9]}],
        100.0,
    ),
}


@pytest.mark.parametrize("task", SPLIT)
def test_a_split_of_a_larger_file_is_scored_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    predictions, truth, questions, accuracy = SPLIT[task]
    larger = vqa_annotations(tmp_path / "a.json") if truth is None else write(tmp_path / "a.json", truth)
    files = write(tmp_path / "p.json", predictions), larger
    part, out = write(tmp_path / "q.json", questions), tmp_path / "scores.json"
    assert run(task, *files) == 1 and "no prediction for" in capsys.readouterr().err
    assert run(task, *files, "--split", part, "--json", out) == 0
    scores = json.loads(out.read_text())
    assert (scores["examples"], scores["metrics"]["accuracy"]) == (1, accuracy)
    assert scores["notes"][-1] == f"On the 1 ids of {part} alone."
    key = next(iter(questions[0]))
    strange = write(tmp_path / "q.json", [*questions, {key: [0, "zz"][isinstance(questions[0][key], str)]}])
    assert run(task, *files, "--split", strange) == 1
    assert "annotations: 1 ids of the split are not in it" in capsys.readouterr().err


# -------------------------------------------------------------------------------------- submissions

QUESTIONS = {
    "vizwiz": [{"image": f"VizWiz_test_{n:08d}.jpg", "question": "what?"} for n in (1, 2, 3)],
    "own": [{"question_id": n, "img_id": "7", "sent": "what?", "label": {}} for n in ("1", "b", "c")],
    "classes": [{"pairID": n, "Flickr30K_ID": "7", "sentence2": "so"} for n in ("1", "b", "c")],
    "hateful_memes": "".join(json.dumps({"id": n, "img": f"img/{n}.png", "text": "so"}) + "\n" for n in (1, 2, 3)),
    "vqa": {"questions": [{"question_id": n, "image_id": 1, "question": "what?"} for n in (1, 2, 3)]},
    "gqa": {n: {"question": "what?"} for n in ("1", "2", "3")},
    "nlvr2": "".join(json.dumps({"identifier": f"dev-{n}-0-0"}) + "\n" for n in (1, 2, 3)),
    "refcoco": [{"id": n, "img_id": "7", "sent": "it", "box": [0, 0, 9, 9]} for n in (1, 2, 3)],
}
RELEASED = {
    "vizwiz": QUESTIONS["vizwiz"],
    "own": QUESTIONS["own"],
    "classes": QUESTIONS["own"],
    "hateful_memes": QUESTIONS["hateful_memes"],
    "vqa": [{"question_id": n, "img_id": "COCO_train2014_1", "sent": "what?"} for n in (1, 2, 3)],
    "gqa": [{"question_id": n, "img_id": "7", "sent": "what?"} for n in ("1", "2", "3")],
    "nlvr2": [{"identifier": f"dev-{n}-0-0", "uid": f"nlvr2_dev_{n}", "sent": "so"} for n in (1, 2, 3)],
    "refcoco": QUESTIONS["refcoco"],
}
VALID = {
    "vizwiz": {f"VizWiz_test_{n:08d}.jpg": "can" for n in (3, 1, 2)},
    "own": {"b": "yes", "1": "", "c": "no"},
    "classes": {"b": "yes", "1": "maybe", "c": "no"},
    "hateful_memes": {3: "0", 1: "1", 2: "0"},
    "vqa": {1: "yes", 3: "", 2: "no"},
    "gqa": {"1": "yes", "3": "", "2": "no"},
    "nlvr2": {"dev-1-0-0": "True", "dev-3-0-0": "False", "dev-2-0-0": "True"},
    "refcoco": {1: [0, 0, 9, 9], 3: [1.5, 2, 3, 4], 2: [0, 0, 1, 1]},
}


@pytest.mark.parametrize("questions", [QUESTIONS, RELEASED], ids=["makers", "released"])
@pytest.mark.parametrize("task", TASKS)
def test_a_written_submission_is_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, questions: dict
) -> None:
    probabilities = {id_: {str(answer): 0.75, "1": 0.25} for id_, answer in VALID[task].items()}
    predictions = write(tmp_path / "p", TASKS[task].submission_text(VALID[task], probabilities))
    assert run("check", task, predictions, write(tmp_path / "q", questions[task])) == 0
    assert f"valid for {task}, 3 ids answered" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "content", "problems"),
    [
        ("vqa", {"1": "yes"}, ["a dict, expected a list of"]),
        (
            "vqa",
            [
                {"question_id": "1", "answer": "yes"},
                {"question_id": 2, "answer": 2},
                {"question_id": 9, "answer": "no"},
                {"question_id": 9, "answer": "no"},
                {"id": 3},
            ],
            [
                '1 entries are not {"question_id": int, "answer": str}: [4]: {\'id\': 3}',
                "1 ids are not int (the server refuses the file): '1'",
                "1 answers are not a string: 2 for 2",
                "1 ids are answered more than once: 9",
                "1 ids are not of this split: 9",
                "1 ids are not answered: 3",
            ],
        ),
        (
            "gqa",
            [{"questionId": n, "prediction": "yes"} for n in (1, 2, 3)],
            ["3 ids are not str (the server scores 0): 1, 2, 3"],
        ),
        ("gqa", [], ["3 ids are not answered: 1, 2, 3"]),
        (
            "nlvr2",
            "identifier,label\ndev-1-0-0,true\ndev-2-0-0;True\n\ndev-3-0-0,False",
            [
                "2 entries are not identifier,True|False: line 3: 'dev-2-0-0;True', line 4: ''",
                "2 answers are not True or False: 'label' for identifier, 'true' for dev-1-0-0",
                "1 ids are not of this split: identifier",
                "1 ids are not answered: dev-2-0-0",
            ],
        ),
    ],
)
def test_what_a_server_would_object_to_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, content: object, problems: list[str]
) -> None:
    predictions, questions = write(tmp_path / "p", content), write(tmp_path / "q", QUESTIONS[task])
    assert run("check", task, predictions, questions) == 1
    title, *lines = capsys.readouterr().out.splitlines()
    assert f"not valid for {task}, 3 ids expected:" in title
    assert len(lines) == len(problems)
    for line, problem in zip(lines, problems, strict=True):
        assert line.startswith(f"  {problem}")


def test_only_the_first_five_missing_ids_are_shown_with_their_number() -> None:
    assert check_submission(TASKS["vqa"], [], range(100)) == ["100 ids are not answered: 0, 1, 2, 3, 4, ..."]


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("vqa", {}, "q: no questions; expected the makers' questions of vqa"),
        ("vqa", [{"id": 1}], "q: question 0 is {'id': 1}, expected an object with question_id"),
        ("gqa", '{"1": {}, "1": {}}', "q: '1' twice in one object"),
        ("nlvr2", [{"identifier": "a"}] * 2, "q: 1 ids occur twice: a"),
        ("nlvr2", '{"identifier": "a"}\n{"identi', "q, line 2: broken or truncated JSON"),
    ],
)
def test_bad_questions_of_a_split_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, content: object, message: str
) -> None:
    predictions = write(tmp_path / "p", TASKS[task].submission_text(VALID[task]))
    assert run("check", task, predictions, write(tmp_path / "q", content)) == 1
    assert message in capsys.readouterr().err


@needs_data
def test_a_submission_for_real_files_is_valid(tmp_path: Path) -> None:
    questions = DATA / "coco10/official/questions.json"
    ids = [row["question_id"] for row in json.loads(questions.read_text())["questions"]]
    assert (
        run(
            "check",
            "vqa",
            write(tmp_path / "p", TASKS["vqa"].submission_text(dict.fromkeys(ids, "yes"))),
            questions,
        )
        == 0
    )
    statements = DATA / "nlvr2/dev_400.json"
    rows = [json.loads(line) for line in statements.read_text().splitlines()]
    text = TASKS["nlvr2"].submission_text({row["identifier"]: row["label"] for row in rows})
    assert run("check", "nlvr2", write(tmp_path / "p.csv", text), statements) == 0


# ---------------------------------------------------------------------------------------- ensembles


def scores_of(listed: dict, answers: list[str] | None = None) -> Scores:
    """A score file's content from question id -> {answer: probability}, as long a list for every question."""
    texts = answers or sorted({text for row in listed.values() for text in row})
    ranked = [sorted(row.items(), key=lambda item: -item[1]) for row in listed.values()]
    return Scores(
        np.array(list(listed)),
        np.array([[texts.index(text) for text, _ in row] for row in ranked], np.int32),
        np.array([[probability for _, probability in row] for row in ranked], np.float32),
        np.array(texts),
    )


def test_scores_are_averaged_by_question_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = scores_of({7: {"red": 0.5, "blue": 0.25}, 5: {"yes": 0.75, "no": 0.5}}, ["no", "yes", "blue", "red"])
    second = scores_of({5: {"no": 1.0, "yes": 0.5}, 7: {"green": 0.625, "blue": 0.375}})
    for name, scores in (("a", first), ("b", second)):
        write_scores(tmp_path / f"{name}_scores.npz", scores)
    out = tmp_path / "both.json"
    assert run("ensemble", tmp_path / "a_scores.npz", tmp_path / "b_scores.npz", "--out", out) == 0
    assert "2 score files, 2 questions" in capsys.readouterr().out
    # 7: green 0.3125, blue 0.3125 (first named first), red 0.25. 5: no 0.75, yes 0.625.
    assert json.loads(out.read_text()) == [
        {"question_id": 7, "answer": "blue"},
        {"question_id": 5, "answer": "no"},
    ]
    averaged = read_scores(tmp_path / "both_scores.npz")
    assert averaged.question_id.tolist() == [7, 5]
    assert averaged.answers[averaged.answer].tolist() == [["blue", "green"], ["no", "yes"]]
    assert averaged.probability.tolist() == [[0.3125, 0.3125], [0.75, 0.625]]
    before = (tmp_path / "a_scores.npz").read_bytes()
    files = tmp_path / "a_scores.npz", tmp_path / "b_scores.npz"
    assert run("ensemble", *files, "--out", tmp_path / "a.json") == 1
    assert "a_scores.npz is to be averaged, and --out" in capsys.readouterr().err
    assert (tmp_path / "a_scores.npz").read_bytes() == before and not (tmp_path / "a.json").exists()


def test_an_ensemble_writes_the_submission_of_its_task(tmp_path: Path) -> None:
    for name, listed in {
        "gqa": {"02": {"wood": 1.0}, "01": {"metal": 0.5}},
        "nlvr2": {"dev-1-0-0": {"True": 0.25, "False": 0.75}, "dev-1-1-0": {"True": 0.5, "False": 0.0}},
    }.items():
        write_scores(tmp_path / "a.npz", scores_of(listed))
        assert run("ensemble", tmp_path / "a.npz", "--out", tmp_path / name) == 0
    assert TASKS["gqa"].read_submission(tmp_path / "gqa") == [
        {"questionId": "02", "prediction": "wood"},
        {"questionId": "01", "prediction": "metal"},
    ]
    assert (tmp_path / "nlvr2").read_text() == "dev-1-0-0,False\ndev-1-1-0,True\n"


def test_a_score_file_names_its_task_where_its_ids_do_not_tell_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = scores_of({"b": {"wood": 1.0}, "a": {"metal": 0.5}})
    for task in ("", "vizwiz", "own"):
        write_scores(tmp_path / f"{task}.npz", replace(scores, task=task))
        assert ("task" in np.load(tmp_path / f"{task}.npz")) == bool(task)
        assert run("ensemble", *[tmp_path / f"{task}.npz"] * 2, "--out", tmp_path / "out.json") == 0
        written = TASKS[task or "gqa"].submission_text({"b": "wood", "a": "metal"})
        assert (tmp_path / "out.json").read_text() == written
        assert read_scores(tmp_path / "out_scores.npz").described_by() is TASKS[task or "gqa"]
    assert run("ensemble", tmp_path / ".npz", tmp_path / "own.npz", "--out", tmp_path / "out.json") == 0
    assert read_scores(tmp_path / "out_scores.npz").task == "own"  # one of the files tells it
    assert run("ensemble", tmp_path / "own.npz", tmp_path / "vizwiz.npz", "--out", tmp_path / "x") == 1
    assert "of several tasks" in capsys.readouterr().err
    np.savez(tmp_path / "a.npz", **vars(scores) | {"task": np.array(["own", "vqa"])})
    with pytest.raises(ScoringError, match="expected one of vqa, vizwiz, gqa, nlvr2"):
        read_scores(tmp_path / "a.npz")


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_an_average_equals_one_by_hand(data: st.DataObject) -> None:
    texts = ["", "a", "b", "c", "red", "2"]
    files = []
    for _ in range(data.draw(st.integers(1, 3))):
        width = data.draw(st.integers(1, 4))
        row = st.dictionaries(st.sampled_from(texts), st.integers(0, 64), min_size=width, max_size=width)
        ids = data.draw(st.permutations([3, 1, 20, 7]))
        files.append({id_: {text: n / 64 for text, n in data.draw(row).items()} for id_ in ids})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensembles, "BLOCK", 3)
        averaged = average_scores({str(n): scores_of(file) for n, file in enumerate(files)})
    assert averaged.question_id.tolist() == list(files[0])
    top = max(len(row) for file in files for row in file.values())
    for place, id_ in enumerate(averaged.question_id.tolist()):
        expected = {t: sum(f[id_].get(t, 0) for f in files) / len(files) for f in files for t in f[id_]}
        got = dict(
            zip(
                averaged.answers[averaged.answer[place]].tolist(),
                averaged.probability[place].tolist(),
                strict=True,
            )
        )
        assert len(got) == top
        assert got == pytest.approx({text: expected[text] for text in got}, abs=1e-6)
        assert sorted(got.values(), reverse=True) == list(got.values())
        assert min(got.values()) >= sorted(expected.values(), reverse=True)[top - 1] - 1e-6


def test_score_files_of_other_questions_are_refused_by_name(tmp_path: Path) -> None:
    first = scores_of({n: {"yes": 1.0} for n in range(9)})
    other = scores_of({n: {"yes": 1.0} for n in (*range(2), 10)})
    with pytest.raises(
        ScoringError, match=r"b: not about the questions of a\. It lacks 7 \(2, 3, 4, 5, 6, \.\.\.\)"
    ):
        average_scores({"a": first, "b": other})
    with pytest.raises(ScoringError, match=r"has 1 others \(10\)"):
        average_scores({"a": first, "b": other})
    with pytest.raises(ScoringError, match="b: question ids are <U1, not as in a"):
        average_scores({"a": first, "b": scores_of({"1": {"yes": 1.0}})})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": None}, "not a score file"),
        ({"answers": np.array(["a", None])}, "not a score file"),
        ({"answers": np.array(["a", "a"])}, "an answer text occurs twice"),
        ({"answers": np.array([1, 2])}, "of another kind"),
        ({"answer": np.array([[0], [2]])}, "indices outside the list of 2 answers"),
        ({"answer": np.zeros((2, 2), int)}, "do not fit"),
        ({"answer": np.array([[0, 0]] * 2), "probability": np.ones((2, 2))}, "the same answer twice"),
        ({"probability": np.array([[1.0], [np.nan]])}, "NaN or infinity"),
        ({"question_id": np.array([5, 5])}, "question ids occur twice: 5"),
        ({"question_id": np.array([5.0, 6.0])}, "expected numbers|of another kind than integers or texts"),
        ({"question_id": np.array(["a ", "b"])}, "question_id 'a ': expected a text without blanks"),
        ({"probability": np.array([[1j], [1j]])}, "expected numbers or texts"),
        ({"probability": np.array([[1], [1]])}, "of another kind than fractions"),
        ({"probability": np.array([[1.0], [2.0]])}, "not in 0 to 1"),
        ({"answer": np.array([[True], [False]])}, "expected numbers or texts"),
        ({"answer": np.array([0, 1])}, "of another kind than integers"),
    ],
)
def test_bad_score_files_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    content = vars(scores_of({5: {"a": 1.0}, 6: {"b": 1.0}})) | changes
    path = tmp_path / "a.npz"
    np.savez(path, allow_pickle=True, **{name: array for name, array in content.items() if array is not None})
    with pytest.raises(ScoringError, match=f"{path}: .*{message}"):
        read_scores(path)


def test_what_is_no_score_file_ends_with_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.npz", "text")
    assert run("ensemble", path, "--out", tmp_path / "out.json") == 1
    assert f"error: {path}: not a score file" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_an_array_that_is_not_of_the_size_its_header_says_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_scores(path, scores_of({5: {"a": 1.0}, 6: {"b": 1.0}}))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for size in (b"(9999999999, 1)", b"(1, 1)"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                old, new = b"(2, 1), }" + b" " * (len(size) - 6), size + b", }"
                changed = content.replace(old, new) if name == "answer.npy" else content
                archive.writestr(name, changed)
        with pytest.raises(ScoringError, match=r"answer\.npy holds \d+ bytes, its header says"):
            read_scores(path)


@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
def test_own_truth_is_read_as_training_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    rows = [{"qid": "a 1", "Bild": 1, "question": "wo ?", "Antwort": "ja"}]
    rows += [{"qid": "ü/2", "Bild": 2, "question": "was ?", "Antwort": "nein"}]
    lines = ["qid,Bild,question,Antwort", "a 1,1,wo ?,ja", "ü/2,2,was ?, nein "]
    content = {"csv": "\n".join(lines), "jsonl": "\n".join(map(json.dumps, rows)), "json": json.dumps(rows)}[form]
    truth, out = tmp_path / f"truth.{form}", tmp_path / "scores.json"
    truth.write_text(content)
    predictions = write(tmp_path / "p.json", [{"question_id": row["qid"], "answer": "ja"} for row in rows])
    columns = ["--columns", "image=Bild", "answer=Antwort"]
    assert run("own", predictions, truth, "--json", out, *columns) == 0
    assert json.loads(out.read_text())["metrics"] == {"accuracy": 50.0}
    assert run("check", "own", predictions, truth, *columns) == 0
    assert "2 ids answered" in capsys.readouterr().out
    assert run("own", predictions, truth, "--columns", "image=Bild", "answer=Wort") == 1
    assert "no column of answers, only qid, Bild, question, Antwort" in capsys.readouterr().err
