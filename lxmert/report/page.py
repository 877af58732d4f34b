"""The page a run ends with: scores, curves, and examples with what the model looked at."""

from __future__ import annotations

import base64
import math
import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from lxmert.files import write_text
from lxmert.report.curves import columns_of, finish, points_of, read_metrics, svg_of

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1180px; color: #1d2733 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem } .note { color: #5b6875 }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 1rem }
.card { border: 1px solid #d8dee5; border-radius: 8px; padding: .7rem } .wrong { border-color: #d9822b }
.views { display: flex; gap: .4rem; align-items: flex-start }
.picture { position: relative; flex: 1; background: #eef1f4; min-height: 9rem }
.picture img { width: 100%; display: block }
.box { position: absolute; box-sizing: border-box; border: 3px solid #e4003a }
.question { font-weight: 600; margin: .5rem 0 .3rem }
.bar { background: #3f7fbf; height: .6rem; display: inline-block; vertical-align: middle; border-radius: 2px }
.right .mark { color: #1a8754 } .wrong .mark { color: #c05f00 }
table { border-collapse: collapse } th { text-align: left; padding-right: .8rem }
td { padding: .1rem .8rem .1rem 0 } td.number { text-align: right }
"""


@dataclass
class View:
    """A picture and where the model looked.

    Args:
        picture: file, or None when it is not at hand.
        boxes: regions, x1 y1 x2 y2 as fractions of the picture's sides.
        attention: of [CLS] on each region in the last cross-modality layer, mean over heads; sums to 1.
    """

    picture: Path | None
    boxes: list[list[float]]
    attention: list[float]


@dataclass
class Example:
    """A question with its picture, its answers and what the model said.

    Args:
        question: text.
        views: its picture; NLVR2 has two, left and right.
        predictions: (answer, probability), best first.
        answers: soft score of each right answer; empty when unknown.
    """

    question: str
    views: list[View]
    predictions: list[tuple[str, float]]
    answers: dict[str, float]


def write_report(
    page: Path, metrics: Mapping[str, float], title: str, curves: str, examples: Sequence[Example] = ()
) -> None:
    """Write a page that needs nothing but itself.

    Args:
        page: HTML file.
        metrics: by logged name.
        title: what was evaluated.
        curves: SVG of the training; may be empty.
        examples: shown as cards.
    """
    shown = [
        "<h2>Examples</h2><p class='note'>Boxes: the regions that [CLS] attends to most in the last "
        "cross-modality layer, stronger where it looks more. Beside each answer: its probability; below, the "
        "human answers with their soft scores.</p>",
        "<div class='grid'>" + "".join(card(example) for example in examples) + "</div>",
    ]
    body = [
        f"<h1>{escape(title)}</h1>",
        html_scores(metrics),
        f"<h2>Training</h2>{curves}" if curves else "",
        *(shown if examples else []),
    ]
    write_text(
        page,
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<style>{STYLE}</style><body>{''.join(body)}</body></html>\n",
    )


def score_table(metrics: Mapping[str, float]) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Metrics of the last evaluation as a table: by what is measured across, by group down.

    With several objectives, each has rows of its own.

    Args:
        metrics: by logged name, `<stage>/<objective>/<metric>[/<group>/<value>]`; others are left out.

    Returns:
        The metrics' names, and for "all" (with several objectives, for each) and each "<group>: <value>" its
        values by metric. Test comes before validation when both are there.
    """
    stage = "test" if any(name.startswith("test/") for name in metrics) else "val"
    ordered = sorted(
        metrics, key=lambda name: re.sub(r"\d+", lambda number: number[0].zfill(9), name)
    )  # 9 before 10
    named = [(name.split("/"), metrics[name]) for name in ordered]
    kept = [
        (parts, value) for parts, value in named if len(parts) > 2 and parts[0] == stage and parts[1] != "loss"
    ]
    several = len({parts[1] for parts, _ in kept}) > 1
    rows: dict[str, dict[str, float]] = {} if several else {"all": {}}
    for (_, objective, metric, *group), value in kept:
        row = ": ".join(part.replace("_", " ") for part in group) or "all"
        if several:
            name = objective.replace("_", " ")
            row = f"{name}, {row}" if group else name
        rows.setdefault(row, {})[metric] = value
    return sorted({metric for values in rows.values() for metric in values}), rows


def html_scores(metrics: Mapping[str, float]) -> str:
    """The score table; accuracies get a bar."""
    columns, rows = score_table(metrics)
    head = "".join(f"<th>{escape(column.replace('_', ' '))}</th>" for column in columns)
    body = ""
    for name, values in rows.items():
        shown = [f"{values[column]:.3f}" if column in values else "" for column in columns]
        cells = "".join(f"<td class='number'>{value}</td>" for value in shown)
        body += f"<tr><td>{escape(name)}</td>{cells}<td>{bar(values.get('accuracy', 0.0), 200)}</td></tr>"
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def bar(share: float, pixels: int) -> str:
    """A bar of `share` (0..1) of so many pixels; none for what is no number."""
    width = pixels * min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    return f"<span class='bar' style='width:{width:.0f}px'></span>"


def card(example: Example) -> str:
    """One example."""
    best = example.predictions[0][0]
    score = example.answers.get(best, 0.0)
    verdict = "" if not example.answers else "right" if score >= 0.5 else "wrong"
    rows = "".join(
        f"<tr><td>{escape(answer)}</td><td>{bar(probability, 100)} {probability:.2f}</td></tr>"
        for answer, probability in example.predictions
    )
    human = ", ".join(f"{escape(answer)} {score:.1f}" for answer, score in example.answers.items())
    mark = {"right": "✓", "wrong": "✗", "": ""}[verdict]
    return (
        f"<div class='card {verdict}'><div class='views'>{''.join(map(draw_view, example.views))}</div>"
        f"<div class='question'>{escape(example.question)} <span class='mark'>{mark}</span></div>"
        f"<table>{rows}</table><div class='note'>{human}</div></div>"
    )


def draw_view(view: View) -> str:
    """A picture with the five regions that the model looked at most, those alone that it looked at."""
    seen = [pair for pair in zip(view.attention, view.boxes, strict=True) if 0 < pair[0] < math.inf]
    strongest = sorted(seen, reverse=True)[:5]
    top = strongest[0][0] if strongest else 1.0
    boxes = "".join(
        f"<div class='box' style='left:{100 * x1:.1f}%;top:{100 * y1:.1f}%;width:{100 * (x2 - x1):.1f}%;"
        f"height:{100 * (y2 - y1):.1f}%;opacity:{weight / top:.2f}' title='attention {weight:.2f}'></div>"
        for weight, (x1, y1, x2, y2) in reversed(strongest)
    )
    return f"<div class='picture'>{embed(view.picture)}{boxes}</div>"


def embed(picture: Path | None) -> str:
    """The picture inside the page."""
    if picture is None or not picture.is_file():
        return "<div style='padding-top:75%'></div>"
    kind = mimetypes.guess_type(picture.name)[0]
    data = base64.b64encode(picture.read_bytes()).decode("ascii")
    return f"<img alt='' src='data:{kind};base64,{data}'>"


def draw_curves(table: Path) -> str:
    """Losses and validation accuracy by step, as SVG; nothing when the log holds neither."""
    rows = read_metrics(table)
    # <stage>/<objective>/accuracy, not that of a group
    accuracies = [name for name in columns_of(rows) if re.fullmatch(r"val/[^/]+/accuracy", name)]
    panels = {"loss": {"training loss": "train/loss", "validation loss": "val/loss"}}
    panels |= {name: {"validation accuracy": name} for name in accuracies}
    found = {}
    for panel, curves in panels.items():
        points = {label: points_of(rows, "step", name) for label, name in curves.items()}
        if any(points.values()):
            found[panel] = {label: each for label, each in points.items() if each}
    if not found:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.8), layout="constrained")
    for axis, drawn in zip(figure.subplots(1, len(found), squeeze=False)[0], found.values(), strict=True):
        for label, each in drawn.items():
            axis.plot(*zip(*each, strict=True), marker="o" if len(each) < 30 else None, markersize=3, label=label)
        axis.set(title=", ".join(drawn), xlabel="step")
        finish(axis)
        if len(drawn) > 1:
            axis.legend(fontsize="small")
    return svg_of(figure)
