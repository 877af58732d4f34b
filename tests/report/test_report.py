"""The page that a run leaves: scores, curves, examples; and the published losses beside ours."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.batches.dataset import ExampleDataset, Part
from datamodules.stores.texts import ExampleStore, write_examples
from lxmert.callbacks import LossCurves
from lxmert.files import InputError
from lxmert.report.curves import ORIGINAL, PUBLISHED_LOSSES, draw_curves, draw_losses, read_losses, read_metrics
from lxmert.report.page import Example, View, write_report
from lxmert.report.scores import score_table
from lxmert.tokenization import LxmertTokenizer

PRETRAINING = {
    "train/loss": 3.0,
    "val/loss": 9.0,
    "val/loss/matching": 0.6,
    "val/masked_language/accuracy": 0.3,
    "val/masked_language/perplexity": 20.5,
    "val/matching/accuracy": 0.8,
    "val/matching/accuracy/source/vqa": 0.7,
    "val/question_answering/accuracy": 0.4,
}


def write_table(path, rows):
    """A run's logs/metrics.csv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["epoch", "step", *sorted({key for row in rows for key in row} - {"epoch", "step"})]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def page(tmp_path):
    """The body of a page: `page(metrics, example, ...)`."""

    def write(metrics, *examples):
        write_report(tmp_path / "report.html", metrics, "title", "", examples)
        return (tmp_path / "report.html").read_text().split("<body>")[1]

    return write


# ------------------------------------------------------------------------------------------------ scores


def test_a_single_objective_has_a_row_for_all_and_one_for_each_group():
    columns, rows = score_table(
        {
            "train/loss": 1.0,
            "lr-BertAdam": 0.1,
            "val/answering/accuracy": 0.6,
            "val/answering/accuracy/answer_type/yes_no": 0.8,
            "val/answering/official_accuracy": 0.5,
            "val/loss/answering": 4.0,
        }
    )
    assert columns == ["accuracy", "official_accuracy"]
    assert rows == {"all": {"accuracy": 0.6, "official_accuracy": 0.5}, "answer type: yes no": {"accuracy": 0.8}}


def test_the_objectives_of_pre_training_do_not_overwrite_each_other():
    columns, rows = score_table(PRETRAINING)
    assert columns == ["accuracy", "perplexity"]
    assert rows == {
        "masked language": {"accuracy": 0.3, "perplexity": 20.5},
        "matching": {"accuracy": 0.8},
        "matching, source: vqa": {"accuracy": 0.7},
        "question answering": {"accuracy": 0.4},
    }


def test_a_test_comes_before_a_validation_and_the_makers_metrics_have_rows_of_their_own():
    _, rows = score_table(
        {
            "val/image_pair/accuracy": 0.4,
            "test/image_pair/accuracy": 0.5,
            "test/official/accuracy": 0.5,
            "test/official/consistency": 0.1,
            "test/official/accuracy/subset/balanced": 0.6,
            "test/official/consistency/subset/balanced": 0.2,
        }
    )
    assert rows == {
        "image pair": {"accuracy": 0.5},
        "official": {"accuracy": 0.5, "consistency": 0.1},
        "official, subset: balanced": {"accuracy": 0.6, "consistency": 0.2},
    }


def test_numbers_among_the_groups_are_in_their_order():
    names = [f"test/official/accuracy/words/{n}" for n in (10, 9, 11)]
    assert list(score_table(dict.fromkeys(names, 0.5))[1])[1:] == ["words: 9", "words: 10", "words: 11"]


def test_what_was_not_measured_is_left_blank_and_names_are_text(page):
    html = page(PRETRAINING | {"val/matching/accuracy/source/<b>": 0.1})
    assert "nan" not in html and "<b>" not in html and "source: &lt;b&gt;" in html
    [row] = re.findall(r"<tr><td>matching</td>.*?</tr>", html, re.S)
    assert re.findall(r"<td class='number'>(.*?)</td>", row) == ["0.800", ""]
    assert "width:160px" in row


# ------------------------------------------------------------------------------------------------ curves


@pytest.mark.parametrize("objective", ["answering", "image_pair"])
def test_training_loss_and_validation_accuracy_are_drawn_of_whatever_objective(tmp_path, objective):
    rows = [
        {"epoch": 0, "step": 9, "train/loss": 3.0},
        {"epoch": 0, "step": 9, f"val/{objective}/accuracy": 0.25, f"val/{objective}/accuracy/answer_type/a": 0.9},
    ]
    svg = draw_curves(write_table(tmp_path / "metrics.csv", rows))
    assert svg.startswith("<svg") and "training loss" in svg
    assert svg.count("<!-- validation accuracy -->") == 1  # none of the groups


def test_without_anything_logged_nothing_is_drawn(tmp_path):
    for name, rows in {"empty": [], "none": [{"epoch": 0, "step": 1, "lr": 0.1}]}.items():
        table = write_table(tmp_path / f"{name}.csv", rows)
        assert draw_curves(table) == draw_losses(table) == ""
    assert draw_curves(tmp_path / "nowhere.csv") == draw_losses(tmp_path / "nowhere.csv", ORIGINAL) == ""


@pytest.fixture
def losses(tmp_path):
    """Two epochs, the first with two logged steps."""
    return write_table(
        tmp_path / "logs" / "metrics.csv",
        [
            {"epoch": 0, "step": 1, "train/loss": 9.0, "train/loss/matching": 0.8, "train/rows_per_s": 5.0},
            {"epoch": 0, "step": 2, "train/loss": 7.0, "train/loss/matching": 0.6},
            {"epoch": 0, "step": 2, "val/loss": 6.0, "val/loss/matching": 0.5, "val/matching/accuracy": 0.9},
            {"epoch": 1, "step": 3, "train/loss": 5.0, "train/loss/matching": 0.4},
            {"epoch": 1, "step": 3, "test/loss": 1.0, "test/loss/matching": 0.1},
            {"step": 3, "lr-BertAdam": 1e-4},
        ],
    )


def test_losses_are_means_by_epoch_of_training_and_validation(losses):
    found = read_losses(losses)
    assert found["train"] == {"total": {0: 8.0, 1: 5.0}, "matching": {0: pytest.approx(0.7), 1: 0.4}}
    assert found["val"] == {"total": {0: 6.0}, "matching": {0: 0.5}}


def test_each_loss_has_a_panel_and_the_originals_runs_are_drawn_on_demand(losses):
    def drawn(svg):
        """The texts of a drawing, which matplotlib leaves as comments above their outlines."""
        return [text.strip() for text in re.findall(r"<!--(.*?)-->", svg, re.S)]

    alone, compared = draw_losses(losses), draw_losses(losses, ORIGINAL)
    for svg in (alone, compared):
        assert {"total", "matching", "training", "validation"} <= set(drawn(svg))
        assert not {"object", "masked language"} & set(drawn(svg))
    labels = {f"original {run.name}, {stage}" for run in ORIGINAL for stage in ("training", "validation")}
    assert labels <= set(drawn(compared)) and not any("original" in text for text in drawn(alone))


def test_published_losses_that_are_not_known_are_refused_before_training(tmp_path):
    with pytest.raises(InputError, match=r"callbacks\.curves\.published=orignal; expected original, or null"):
        LossCurves(str(tmp_path / "report.html"), "orignal")


@pytest.mark.parametrize("run", ORIGINAL, ids=[run.name for run in ORIGINAL])
def test_the_published_losses_add_up_to_their_total(run):
    for values in (*run.train.values(), *run.valid.values()):
        total, *parts = values
        assert len(parts) in (0, len(PUBLISHED_LOSSES) - 1)
        if parts:
            assert sum(parts) == pytest.approx(total, abs=0.012)  # as rounded where they were posted


# -------------------------------------------------------------------------------------------------- page


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / "left.png", tmp_path / "right.jpg"]
    for path, color in zip(paths, ("red", "blue"), strict=True):
        Image.new("RGB", (8, 6), color).save(path)
    return paths


TINTS = [0.05, 0.3, 0.1, 0.2, 0.05, 0.25, 0.04]


def view(picture=None, tints=TINTS):
    return View(picture, [[0.1 * n, 0, 0.1 * n + 0.1, 0.5] for n in range(7)], tints)


def example(*views, answers=()):
    return Example("what ?", views, [("cat", 0.6), ("a<b", 0.4)], dict(answers))


def test_a_page_needs_nothing_but_itself(tmp_path, pictures):
    shown = Example("is <this> red ?", [view(p) for p in pictures], [("True", 0.9), ("False", 0.1)], {"True": 1.0})
    write_report(tmp_path / "report.html", PRETRAINING, "toy & more: valid", "<svg>curve</svg>", [shown])
    html = (tmp_path / "report.html").read_text()
    assert html.count("src='data:image/png;base64,") == html.count("src='data:image/jpeg;base64,") == 1
    assert not re.search(r"(src|href)='(?!data:)", html)
    assert "toy &amp; more: valid" in html and "is &lt;this&gt; red ?" in html
    assert html.index("<div class='curves'><svg>curve</svg>") < html.index("<h2>Examples</h2>")


def test_a_page_without_examples_or_curves_has_no_headings_for_them(tmp_path):
    write_report(tmp_path / "report.html", PRETRAINING, "pre-training", "")
    html = (tmp_path / "report.html").read_text()
    assert "<table>" in html and "Examples" not in html and "Training" not in html
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_line_tells_where_pictures_would_come_from_when_none_is_found(page, pictures, tmp_path):
    note = "No pictures were found"
    assert note in page({}, example(view()), example(view(tmp_path / "gone.jpg")))
    assert note not in page({}, example(view()), example(view(pictures[0])))
    assert note not in page({})


def test_a_narrow_window_has_margins_and_nothing_to_scroll_sideways_but_wide_tables(tmp_path):
    write_report(tmp_path / "report.html", PRETRAINING, "title", "<svg width='720pt'></svg>")
    html = (tmp_path / "report.html").read_text()
    assert "<meta name='viewport' content='width=device-width" in html and "padding: 0 1rem" in html
    assert "svg { max-width: 100%" in html and "minmax(min(260px, 100%), 1fr)" in html
    assert re.search(r"<div class='wide'>\s*<table>", html) and ".wide { overflow-x: auto" in html


def numbers_of(html):
    """What the cards are drawn from."""
    [text] = re.findall(r"<script type='application/json' id='numbers'>(.*?)</script>", html, re.S)
    return json.loads(text)


def test_a_card_is_drawn_from_its_boxes_tints_and_probabilities(page):
    html = page(
        {}, Example("what ?", [view(), view()], [("cat", 0.6), ("dog", 0.4)], {}, [("[CLS]", 0.0), ("what", 1.0)])
    )
    [card] = numbers_of(html)
    assert [side["tints"] for side in card["views"]] == [TINTS, TINTS]
    assert card["views"][0]["boxes"][3] == pytest.approx([0.3, 0, 0.4, 0.5])
    assert card["answers"] == [0.6, 0.4] and card["words"] == [0.0, 1.0]
    assert "<img" not in html and html.count("<div class='picture'></div>") == 2  # pictures that are not there


def test_without_a_script_a_card_is_text(page):
    html = page({}, Example("redder?", [view()], [("yes", 0.5)], {"yes": 1.0}, [("red", 1.0), ("##der", 0.5)]))
    assert "redder? <span class='mark'>✓" in html and "yes 1.0" in html
    assert re.findall(r"<span class='word'>(.*?)</span>", html) == ["red", "##der"]
    assert "<span class='text'>yes</span><span></span><span class='number'>0.500</span>" in html


@pytest.mark.parametrize(
    ("answers", "verdict", "mark"),
    [
        ({"cat": 1.0}, "right", "✓"),
        ({"cat": 0.3, "dog": 0.9}, "wrong", "✗"),
        ({"dog": 1.0}, "wrong", "✗"),
        ({}, "", ""),
    ],
)
def test_a_card_tells_right_from_wrong_where_it_is_known(page, answers, verdict, mark):
    html = page({}, example(view(), answers=answers))
    assert f"<div class='card {verdict}'>" in html and f"<span class='mark'>{mark}</span>" in html
    assert numbers_of(html)[0]["answers"] == [0.6, 0.4] and "a&lt;b" in html
    assert all(f"{answer} {score:.1f}" in html for answer, score in answers.items())


def test_the_page_of_the_loss_curves_is_written_after_each_validation(losses):
    class Logger:
        saved = 0

        def save(self):
            self.saved += 1

    class Data:
        title = "toy pre-training"
        splits = {"valid": ["minival"], "test": ["test"]}  # noqa: RUF012
        datasets = {"valid": range(1234), "test": range(7)}  # noqa: RUF012

        def report():
            return {"minival": {"examples": 1234, "images": 99}}

        def group_sizes(role):
            return {"answer_type": {"yes/no": 12}}

        def baselines():
            return {"best guess from the text alone": 0.25}

    class Trainer:
        is_global_zero, sanity_checking, testing = True, False, False
        loggers = [Logger()]  # noqa: RUF012
        callback_metrics = PRETRAINING
        datamodule = Data

    page = Path(losses).parents[1] / "report.html"
    curves = LossCurves(str(page), "original")
    curves.on_validation_end(Trainer, None)
    html = page.read_text()
    assert "<h1>toy pre-training: minival</h1>" in html and "original #22, from BERT, training" in html
    assert "1,234 examples, 99 images" in html and "accuracy 0.250" in html
    assert Trainer.loggers[0].saved == 1
    Trainer.testing = True
    curves.on_test_end(Trainer, None)
    assert "<h1>toy pre-training: test</h1>" in page.read_text()
    page.unlink()
    Trainer.is_global_zero = False
    curves.on_validation_end(Trainer, None)
    assert not page.exists()


# --------------------------------------------------------------------------- short runs and odd contents


def titles(svg):
    return [text.strip() for text in re.findall(r"<!--(.*?)-->", svg, re.S)]


def test_ten_steps_have_curves(tmp_path):
    rows = [{"epoch": 0, "step": n, "train/loss": 3.0 - n / 10, "train/loss/matching": 0.7} for n in range(10)]
    rows += [{"epoch": 0, "step": 9, "val/loss": 2.0, "val/loss/matching": 0.6, "val/answering/accuracy": 0.25}]
    table = write_table(tmp_path / "metrics.csv", rows)
    svg = draw_curves(table)
    assert {"training loss, validation loss", "validation accuracy", "step"} <= set(titles(svg))
    losses = read_losses(table, "step")
    assert losses["train"]["total"] == {n: pytest.approx(3.0 - n / 10) for n in range(10)}
    assert losses["val"]["total"] == {9: 2.0}
    assert "step" in titles(draw_losses(table)) and "epoch" not in titles(draw_losses(table))
    assert "epoch" in titles(draw_losses(table, ORIGINAL))  # theirs are by epoch


def test_one_validation_alone_is_drawn(tmp_path):
    table = write_table(tmp_path / "metrics.csv", [{"epoch": 0, "step": 9, "val/loss": 2.0}])
    assert "validation loss" in titles(draw_curves(table))
    assert "total" in titles(draw_losses(table))


def test_rows_without_epochs_are_drawn_by_step(tmp_path):
    table = tmp_path / "metrics.csv"
    table.write_text("step,train/loss\n0,3.0\n1,2.0\n")
    assert "training loss" in titles(draw_curves(table)) and "total" in titles(draw_losses(table))
    table.write_text("epoch,train/loss\n0,3.0\n1,2.0\n")  # and what has no step by epoch
    assert draw_curves(table) == "" and "total" in titles(draw_losses(table))


def test_a_log_that_a_killed_run_left_is_drawn_as_far_as_it_goes(tmp_path):
    table = tmp_path / "metrics.csv"
    table.write_text(
        "epoch,step,train/loss\n0,0,3.0\n0,1,nan\n0,2,inf\n0,3,2.5,9,9\n0,,2.0\n"
        "epoch,step,lr,train/loss,val/answering/accuracy\n1,4,0.1,2.0,\n1,5,,,0.5\n1,6,0.1,so\n1,7\n\x00\n"
    )
    rows = read_metrics(table)
    nan = pytest.approx(float("nan"), nan_ok=True)
    assert [row.get("train/loss") for row in rows[:5]] == [3.0, nan, nan, 2.5, 2.0]
    assert rows[5] == {"epoch": 1, "step": 4, "lr": 0.1, "train/loss": 2.0}
    assert rows[6:9] == [
        {"epoch": 1, "step": 5, "val/answering/accuracy": 0.5}, {"epoch": 1, "step": 6, "lr": 0.1},
        {"epoch": 1, "step": 7},
    ]  # fmt: skip
    assert {"training loss", "validation accuracy"} <= set(titles(draw_curves(table)))
    assert "total" in titles(draw_losses(table))


def test_losses_that_are_never_numbers_are_not_drawn(tmp_path):
    rows = [{"epoch": n, "step": n, "train/loss": "nan", "val/loss": "inf"} for n in range(3)]
    table = write_table(tmp_path / "metrics.csv", rows)
    assert draw_curves(table) == draw_losses(table) == ""


def test_tints_that_are_no_numbers_tint_nothing(page):
    html = page({}, example(view(tints=[0.0, 0.5, float("nan"), 0.25, -1.0, float("inf"), 2.0])))
    assert numbers_of(html)[0]["views"][0]["tints"] == [0, 0.5, 0, 0.25, 0, 0, 1]


MARKUP = "<b>x</b> & [bold]y[/bold] '\""


def test_markup_anywhere_is_shown_as_text(page):
    metrics = {f"val/answering/accuracy/answer_type/{MARKUP.replace('/', '|')}": 0.5}
    html = page(metrics, Example(MARKUP, [view()], [(MARKUP, 0.5)], {MARKUP: 1.0}, [(MARKUP, 0.5)]))
    assert "<b>" not in html and html.count("&lt;b&gt;") == 5
    assert html.count("[bold]y") == 5 and html.count("&amp;") == 5


def test_scores_that_are_no_numbers_have_no_bar(page, tmp_path):
    metrics = {"val/answering/accuracy": float("nan")}
    html = page(metrics, Example("?", [view(tmp_path / "gone.jpg")], [("cat", float("nan"))], {}))
    assert html.count("width:0px") == 1 and "nanpx" not in html
    assert numbers_of(html)[0]["answers"] == [0] and "<img" not in html  # the picture is no longer there


def test_a_question_is_given_as_it_was_written(tmp_path):
    texts = ["Is the <b>Écru</b> cat's hat Red?", "no\u00efve?", "A", ""]
    parts = []
    for place, ids in enumerate([[12, 1], [1, 12]]):  # the ids of two splits may be the same
        with write_examples(tmp_path / f"{place}.h5") as writer:
            writer.append(
                texts=texts[2 * place : 2 * place + 2], ids=ids, images=["i", "i"], labels=[{}, {}], groups={}
            )
        store = ExampleStore(tmp_path / f"{place}.h5")
        parts.append(Part(store, np.zeros(2, np.int64), np.array([-1]), {}))
    data = ExampleDataset(parts, [], LxmertTokenizer(), num_answers=1)
    assert [data.sentence(place) for place in range(4)] == texts
