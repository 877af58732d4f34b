"""The page a run ends with: scores, curves, and examples with what their answers come of."""

from __future__ import annotations

import base64
import math
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lxmert.files import write_text
from lxmert.report.inlined import drawing, script_data, source_hash
from lxmert.report.scores import score_table

RELEVANCE = (
    "Red frames: the regions that are relevant to the best answer, stronger where they are more so; below the "
    "question, its word pieces in the same way. Beside each answer: its probability; below, the human answers "
    "with their soft scores. Click a region to tell it from others."
)


@dataclass
class Frame:
    """A box that a picture shows with its name.

    Args:
        name: such as "chosen".
        box: x1 y1 x2 y2 as fractions of the picture's sides.
        dashed: how it is drawn: what is right, beside what is not.
    """

    name: str
    box: list[float]
    dashed: bool = False


@dataclass
class View:
    """A picture and what its regions are to the answer.

    Args:
        picture: file, or None when it is not at hand.
        boxes: regions, x1 y1 x2 y2 as fractions of the picture's sides.
        tints: of each region, 0 to 1: how relevant it is to the best answer (`lxmert.explain`).
        frames: what was to be found in it, and what was.
        label: what stands below it.
    """

    picture: Path | None
    boxes: list[list[float]]
    tints: list[float]
    frames: list[Frame] = field(default_factory=list)
    label: str = ""

    @property
    def found(self) -> bool:
        """Whether the picture is there."""
        return self.picture is not None and self.picture.is_file()

    def data_uri(self) -> str:
        """The picture inside a page."""
        assert self.picture is not None
        kind = mimetypes.guess_type(self.picture.name)[0]
        return f"data:{kind};base64,{base64.b64encode(self.picture.read_bytes()).decode('ascii')}"


@dataclass
class Example:
    """A question with its picture, its answers and what the model said.

    Args:
        question: text.
        views: its pictures; NLVR2 has two, left and right.
        predictions: (answer, probability), best first.
        answers: soft score of each right answer; empty when unknown.
        words: the word pieces of the question, each with its tint, 0 to 1, as `View.tints`.
    """

    question: str
    views: list[View]
    predictions: list[tuple[str, float]]
    answers: dict[str, float]
    words: list[tuple[str, float]] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """Of the best prediction: "right" (soft score 0.5 or more) or "wrong"; "" where no answer is known."""
        if not self.answers:
            return ""
        return "right" if self.answers.get(self.predictions[0][0], 0.0) >= 0.5 else "wrong"

    @property
    def sentences(self) -> bool:
        """Whether its answers are too long to stand beside their bars."""
        return any(len(answer) > 24 for answer, _ in self.predictions)

    def numbers(self) -> dict[str, Any]:
        """What is drawn, beside the texts; 0 for what is no number."""
        return {
            "views": [
                {
                    "boxes": [[round(clamped(side), 4) for side in box] for box in view.boxes],
                    "tints": [round(clamped(tint), 3) for tint in view.tints],
                    "frames": [
                        {"name": each.name, "box": [round(clamped(s), 4) for s in each.box], "dashed": each.dashed}
                        for each in view.frames
                    ],
                }
                for view in self.views
            ],
            "words": [round(clamped(tint), 3) for _, tint in self.words],
            "answers": [round(clamped(probability), 4) for _, probability in self.predictions],
        }


@dataclass
class Facts:
    """What a page says beside the scores.

    Args:
        lines: what -> the fact: the command, the learning rate, how large the splits are.
        sizes: row of the score table -> how many examples it is over.
        confusions: (right answer, the model's, how often), the most frequent first.
    """

    lines: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    confusions: Sequence[tuple[str, str, int]] = ()


def write_report(
    page: Path,
    metrics: Mapping[str, float],
    title: str,
    curves: str,
    examples: Sequence[Example] = (),
    facts: Facts | None = None,
    note: str = RELEVANCE,
) -> None:
    """Write a page that needs nothing but itself.

    Args:
        page: HTML file.
        metrics: by logged name.
        title: what was evaluated.
        curves: SVG of the training; may be empty.
        examples: shown as cards.
        facts: what else is known.
        note: how the cards are to be read.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clamped"] = clamped
    columns, rows = score_table(metrics)
    css, drawn = drawing()
    js = drawn + (Path(__file__).parent / "page.js").read_text("utf-8")
    html = environment.get_template("page.html").render(
        title=title,
        columns=columns,
        rows=rows,
        curves=curves,
        examples=examples,
        facts=facts or Facts(),
        sizes={row: size_of(row, facts.sizes) for row in rows} if facts else {},
        note=note,
        css=css,
        js=js,
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {source_hash(js)}",
        numbers=script_data([example.numbers() for example in examples]),
        pictures_found=any(view.found for example in examples for view in example.views),
    )
    write_text(page, html + "\n")


def size_of(row: str, sizes: Mapping[str, int]) -> int:
    """How many examples a row of the score table is over; with several objectives, each has rows of its own."""
    group = row.rpartition(", ")[2]
    return sizes.get(group, 0) if ": " in group else sizes.get("all", 0)


def clamped(share: float) -> float:
    """Into 0..1; 0 for what is no number."""
    return min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
