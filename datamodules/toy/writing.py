"""What the toys write alike: scenes with their regions and pictures, the vocabulary, the best guess."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from string import ascii_lowercase, digits
from typing import Any

import numpy as np
from tqdm import tqdm

from datamodules.formats.release_tsv import tsv_line
from datamodules.toy import captions, gqa_questions, questions, statements
from datamodules.toy.questions import plural
from datamodules.toy.world import Detector, Scene, draw_scenes, render

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# All toy tasks share one vocabulary, whatever the world's size, so that weights move between them.
WORDS = frozenset((*questions.WORDS, *captions.WORDS, *gqa_questions.WORDS, *statements.WORDS))
SCENES_AT_ONCE = 500


def write_scenes(
    folder: Path,
    regions: str,
    images: Sequence[str],
    detector: Detector,
    rng: Random,
    noise: np.random.Generator,
    *,
    pictures: int,
    bar: tqdm,
    at_once: int = SCENES_AT_ONCE,
) -> Iterator[Scene]:
    """Draw scenes one after the other, and write what is seen of them.

    Each is given out before those that follow it by `at_once` or more are drawn: what the caller draws from `rng`
    and `noise` comes between.

    Args:
        folder: the toy's.
        regions: the region file below it, which the regions of these scenes are added to.
        images: the scenes' image ids.
        detector: finds the regions.
        rng: draws the scenes.
        noise: the detector's.
        pictures: how many of the scenes are rendered, as `images/<image id>.png`.
        bar: moves by a scene each.
        at_once: scenes drawn and detected together.
    """
    with (folder / regions).open("ab") as tsv:
        for start in range(0, len(images), at_once):
            scenes = list(draw_scenes(images[start : start + at_once], rng))
            columns = detector.detect(scenes, noise)
            for number, scene in enumerate(scenes):
                arrays = (column[number] for column in columns)
                tsv.write(tsv_line(scene.image_id, scene.width, scene.height, *arrays))
            for number, scene in enumerate(scenes, start):
                if number < pictures:
                    render(scene).save(folder / "images" / f"{scene.image_id}.png", compress_level=3)
                yield scene
                bar.update()


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content), encoding="utf-8")


def question_only_accuracy(train: Iterable[dict[str, Any]], valid: Sequence[dict[str, Any]]) -> float:
    """Soft accuracy in 0..1 of the best guess that never looks at the picture.

    For each question text the answer with the highest summed score in `train`; for a text that is not
    there the same by question type, else over all of `train`.

    Args:
        train: rows of a released file (`sent`, `question_type`, `label`) to learn from.
        valid: the same, to score on.
    """
    totals: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in train:
        for key in _guess_keys(row):
            totals[key].update(row["label"])
    best = {key: max(scores, key=lambda answer: scores[answer]) for key, scores in totals.items() if scores}
    guesses = [next((best[key] for key in _guess_keys(row) if key in best), None) for row in valid]
    right = [row["label"].get(guess, 0) for row, guess in zip(valid, guesses, strict=True)]
    return sum(right) / len(right)


def _guess_keys(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return ("text", row["sent"]), ("type", row["question_type"]), ("all", "")


def write_vocabulary(path: Path) -> None:
    """Write the toys' WordPiece vocabulary in BERT's format: one token a line, [PAD] first, continuations as ##x.

    Every letter and digit is in it, alone and as a continuation, so that a question about something else
    than the toy still has tokens. Plurals are spelt as their singular and its ending: what a small model
    learns of "star" then holds for "stars".
    """
    characters = ascii_lowercase + digits
    singular = set(WORDS) - {plural(word) for word in WORDS if len(word) > 1}  # "as" is no plural of "a"
    letters = [*characters, *(f"##{c}" for c in characters), *"?.,!'-"]
    tokens = [*SPECIAL_TOKENS, *sorted(letters), *sorted(singular.difference(letters))]
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
