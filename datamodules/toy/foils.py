"""Sentences about a toy scene, each beside one that differs in little and does not hold: a probing set like VALSE.

What fits and what does not are drawn alike, so that the words alone tell next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from datamodules.toy.questions import DIRECTIONS, describe, matches, name_of
from datamodules.toy.world import COLORS, SHAPES, Scene

Pair = tuple[str, str]  # what holds, and what does not
_NUMBERS = ("no", "one", "two", "three")
_APART = 0.18  # of the picture's side, as for the captions
_OPPOSITES = dict(zip(DIRECTIONS, ("to the right of", "to the left of", "below", "above"), strict=True))


def foils(scenes: Sequence[Scene], piece: str, rng: Random) -> dict[str, dict[str, Any]]:
    """An example of `piece` about each scene that allows one, by id, as VALSE's files have them."""
    examples: dict[str, dict[str, Any]] = {}
    for scene in scenes:
        if (pair := PIECES[piece](scene, rng)) is not None:
            examples[f"{piece}_{len(examples)}"] = {
                "dataset": "toy: generated scenes, not VALSE",
                "original_split": "minival",
                "linguistic_phenomena": piece,
                "image_file": f"{scene.image_id}.png",
                "caption": pair[0],
                "foil": pair[1],
                "mturk": {"caption": 3, "foil": 0, "other": 0},
            }
    return examples


def _existence(scene: Scene, rng: Random) -> Pair:
    """Whether there is a thing of a shape or a colour."""
    kind, values = rng.choice((("shape", SHAPES), ("color", COLORS)))
    there = {getattr(thing, kind) for thing in scene.things}
    present = rng.random() < 0.5
    value = rng.choice([each for each in values if (each in there) == present] or values)
    said = describe({kind: value})
    true, false = (f"there is {word} {said} in the picture" for word in ("a", "no"))
    return (true, false) if value in there else (false, true)


def _color(scene: Scene, rng: Random) -> Pair | None:
    return _exchanged(scene, "color", COLORS, rng)


def _object(scene: Scene, rng: Random) -> Pair | None:
    return _exchanged(scene, "shape", SHAPES, rng)


def _exchanged(scene: Scene, what: str, values: Sequence[str], rng: Random) -> Pair | None:
    """A thing, and one with another colour or shape that is not there."""
    thing = rng.choice(scene.things)
    fields = {"color": thing.color, "shape": thing.shape}
    others = [{**fields, what: value} for value in values]
    absent = [each for each in others if not any(matches(one, each) for one in scene.things)]
    if not absent:
        return None
    true, false = (f"there is a {describe(each)} in the picture" for each in (fields, rng.choice(absent)))
    return true, false


def _number(scene: Scene, rng: Random) -> Pair | None:
    """How many there are, and one more or one fewer: of two numbers each is the right one as often."""
    kind, values = rng.choice((("shape", SHAPES), ("color", COLORS)))
    counts = {value: sum(matches(thing, {kind: value}) for thing in scene.things) for value in values}
    fewer, step = rng.choice((0, 1, 2)), rng.choice((0, 1))
    right = [value for value, count in counts.items() if count == fewer + step]
    if not right:
        return None
    fields = {kind: rng.choice(right)}
    true, false = (
        f"there {'is' if n == 1 else 'are'} {_NUMBERS[n]} {describe(fields, many=n != 1)}"
        for n in (fewer + step, fewer + 1 - step)
    )
    return true, false


def _swap(scene: Scene, rng: Random) -> Pair | None:
    """Two things, and their colours exchanged, where neither is there then."""
    pairs = [(a, b) for a in scene.things for b in scene.things if a.color != b.color and a.shape != b.shape]
    rng.shuffle(pairs)
    for a, b in pairs:
        crossed = ({"color": b.color, "shape": a.shape}, {"color": a.color, "shape": b.shape})
        if not any(matches(thing, fields) for thing in scene.things for fields in crossed):
            true = ({"color": a.color, "shape": a.shape}, {"color": b.color, "shape": b.shape})
            said = [f"a {describe(one)} and a {describe(other)}" for one, other in (true, crossed)]
            return said[0], said[1]
    return None


def _relation(scene: Scene, rng: Random) -> Pair | None:
    """Where a thing is of another, and the opposite."""
    named = [(thing, name) for thing in scene.things if (name := name_of(scene, thing))]
    direction, (dx, dy) = rng.choice(list(DIRECTIONS.items()))
    apart = [
        (one, other)
        for a, one in named
        for b, other in named
        if dx * (a.x - b.x) / scene.width + dy * (a.y - b.y) / scene.height > _APART
    ]
    if not apart:
        return None
    one, other = rng.choice(apart)
    return f"the {one} is {direction} the {other}", f"the {one} is {_OPPOSITES[direction]} the {other}"


PIECES: dict[str, Callable[[Scene, Random], Pair | None]] = {
    "existence": _existence, "object": _object, "color": _color, "number": _number, "swap": _swap,
    "relation": _relation,
}  # fmt: skip
