"""What toy NLVR2 states about two pictures.

Each kind of statement is one function that draws a statement about things of some pictures; `state` keeps
those that are true of half of the given pairs of pictures, so that the text alone tells nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from datamodules.toy.questions import describe, plural
from datamodules.toy.world import COLORS, SHAPES, Scene
from lxmert.files import InputError

# Every word that a statement can have.
WORDS: tuple[str, ...] = (
    *SHAPES,
    *(plural(shape) for shape in SHAPES),
    *COLORS,
    *("thing", "things", "picture", "pictures", "left", "right"),
    *("the", "a", "one", "two", "three", "four", "at", "least", "only", "both", "neither", "more", "than"),
    *("has", "have", "show", "shows", "does", "not", "there", "are", "and", "in", "total"),
)
NUMBERS = {2: "two", 3: "three", 4: "four"}
_WAYS = (("shape",), ("color",), ("color", "shape"))
# How often a thing is spoken of as "star", "red thing" or "red star".
_WEIGHTS = {(0, False): 0.45, (1, True): 0.3, (1, False): 0.25}

Counts = Counter[str]  # how many things of a picture fit "star", "red thing", "red star"


class Statement(NamedTuple):
    """A statement about two pictures, and whether it holds for what is in the left and in the right one."""

    text: str
    holds: Callable[[Counts, Counts], bool]


def count_things(scene: Scene) -> Counts:
    """How many things of the scene fit each description that statements use."""
    return Counter(
        describe({field: getattr(thing, field) for field in way}) for thing in scene.things for way in _WAYS
    )


def state(pairs: Sequence[tuple[Scene, Scene]], count: int, rng: Random) -> list[tuple[str, list[bool]]]:
    """`count` different statements with their truth for each pair; each is true of half of the pairs.

    The kinds are in the shares of STATEMENT_KINDS as far as the pictures allow.

    Args:
        pairs: an even number of pairs of pictures, left and right.
        count: how many statements.
        rng: decides.

    Raises:
        InputError: so many different statements are not found.
    """
    counted = [(count_things(left), count_things(right)) for left, right in pairs]
    kinds, shares = list(STATEMENT_KINDS), [share for _, share in STATEMENT_KINDS.values()]
    found: dict[str, list[bool]] = {}
    for kind in rng.choices(kinds, shares, k=10 * count + 100):
        if len(found) == count:
            return list(found.items())
        for _ in range(40):  # before giving the place to another kind, which would shift the shares
            statement = STATEMENT_KINDS[kind][0](rng.choice(counted), rng)
            truths = [statement.holds(left, right) for left, right in counted]
            if 2 * sum(truths) == len(truths) and statement.text not in found:
                found[statement.text] = truths
                break
    raise InputError(f"there are not {count} different statements to make about every toy set; make fewer")


# ------------------------------------------------------------------ one function a kind of statement


def _left(pair: tuple[Counts, Counts], rng: Random) -> Statement:
    a = _something(pair[0], rng)
    return Statement(f"The left picture {_has(rng)} a {a}.", lambda left, right: left[a] > 0)


def _right(pair: tuple[Counts, Counts], rng: Random) -> Statement:
    a = _something(pair[1], rng)
    return Statement(f"The right picture {_has(rng)} a {a}.", lambda left, right: right[a] > 0)


def _both(pair: tuple[Counts, Counts], rng: Random) -> Statement:
    a = _something(pair[0], rng)
    return Statement(f"Both pictures {_have(rng)} a {a}.", lambda left, right: left[a] > 0 and right[a] > 0)


def _one(pair: tuple[Counts, Counts], rng: Random) -> Statement:
    a = _something(rng.choice(pair), rng)
    return Statement(f"At least one picture {_has(rng)} a {a}.", lambda left, right: left[a] > 0 or right[a] > 0)


def _neither(pair: tuple[Counts, Counts], rng: Random) -> Statement:
    a = _something(rng.choice(pair), rng)
    return Statement(f"Neither picture {_has(rng)} a {a}.", lambda left, right: left[a] == right[a] == 0)


def _only(pair: tuple[Counts, Counts], rng: Random) -> Statement:
    a = _something(rng.choice(pair), rng)
    return Statement(f"Only one picture {_has(rng)} a {a}.", lambda left, right: (left[a] > 0) != (right[a] > 0))


def _not(pair: tuple[Counts, Counts], rng: Random) -> Statement:
    first, second = rng.sample((0, 1), 2)
    a, sides = _something(pair[first], rng), ("left", "right")
    return Statement(
        f"The {sides[first]} picture {_has(rng)} a {a} and the {sides[second]} picture does not.",
        lambda *counts: counts[first][a] > 0 and counts[second][a] == 0,
    )


def _two(pair: tuple[Counts, Counts], rng: Random) -> Statement:
    a, b, verb = _something(pair[0], rng), _something(pair[1], rng), _has(rng)
    return Statement(
        f"The left picture {verb} a {a} and the right picture {verb} a {b}.",
        lambda left, right: left[a] > 0 and right[b] > 0,
    )


def _more(pair: tuple[Counts, Counts], rng: Random) -> Statement:
    first, second = rng.sample((0, 1), 2)
    a, sides = _something(pair[first], rng), ("left", "right")
    return Statement(
        f"The {sides[first]} picture {_has(rng)} more {plural(a)} than the {sides[second]} picture.",
        lambda *counts: counts[first][a] > counts[second][a],
    )


def _total(pair: tuple[Counts, Counts], rng: Random) -> Statement:
    a, number = _something(rng.choice(pair), rng), rng.choice(list(NUMBERS))
    return Statement(
        f"There are {NUMBERS[number]} {plural(a)} in total.", lambda left, right: left[a] + right[a] == number
    )


STATEMENT_KINDS: dict[str, tuple[Callable[[tuple[Counts, Counts], Random], Statement], float]] = {
    "left": (_left, 0.15),
    "right": (_right, 0.15),
    "both": (_both, 0.15),
    "one": (_one, 0.15),
    "neither": (_neither, 0.10),
    "not": (_not, 0.10),
    "two": (_two, 0.10),
    "only": (_only, 0.04),
    "more": (_more, 0.04),
    "total": (_total, 0.02),
}


def _something(picture: Counts, rng: Random) -> str:
    """A description of something in the picture: mostly a shape or a colour alone."""
    return rng.choices(list(picture), [_WEIGHTS[name.count(" "), name.endswith("thing")] for name in picture])[0]


def _has(rng: Random) -> str:
    return rng.choice(("has", "shows"))


def _have(rng: Random) -> str:
    return rng.choice(("have", "show"))
