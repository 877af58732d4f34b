"""`python -m lxmert.evaluate` in processes of its own, on real and made files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lxmert.evaluate import main

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no test data at {DATA}")


def evaluate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lxmert.evaluate", *map(str, arguments)]
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
    assert "1 predictions for questions outside the given files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "p.json: not JSON"),
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
        ("dev-1-0-0,True\n", "{\n", "a.json, line 1: not JSON"),
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
    assert "p.json: not a UTF-8 text file" in capsys.readouterr().err


def test_a_group_name_in_brackets_is_printed_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [{"question_id": 1, "answer": "yes"}, {"question_id": 2, "answer": "red"}]
    predictions = write(tmp_path / "p.json", answers)
    assert main(["vqa", str(predictions), str(vqa_annotations(tmp_path / "a.json"))]) == 0
    assert "is [the]" in capsys.readouterr().out
