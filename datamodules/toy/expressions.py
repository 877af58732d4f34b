"""What one would call a thing of a toy scene, so that nobody takes another for it.

Each kind of expression is one function that finds a thing, and words that fit it and no other thing of the scene,
mostly with things of its shape or colour beside it. Only words that the other toys have too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from datamodules.toy.questions import _APART, DIRECTIONS, describe, matches, name_of
from datamodules.toy.world import Scene, Thing

Found = tuple[int, str]  # the thing's place in the scene, and the words
_WAYS = (("shape",), ("color",), ("color", "shape"), ("size", "shape"), ("size", "color"))
# of the outermost thing of its kind: direction of DIRECTIONS -> the words, about "star"
_SIDES = {
    "to the left of": ("the {} to the left", "the left {}"),
    "to the right of": ("the {} to the right", "the right {}"),
    "above": ("the {} above",),
    "below": ("the {} below",),
}


def refer(scene: Scene, count: int, rng: Random) -> list[Found]:
    """Up to `count` different expressions, the kinds in the shares of EXPRESSION_KINDS where the scene allows."""
    kinds, shares = list(EXPRESSION_KINDS), [share for _, share in EXPRESSION_KINDS.values()]
    found: dict[str, Found] = {}
    for kind in rng.choices(kinds, shares, k=10 * count):
        if len(found) == count:
            break
        for _ in range(10):  # before giving the place to another kind, which would shift the shares
            fitting = EXPRESSION_KINDS[kind][0](scene, rng)
            if fitting and (text := fitting[1].removeprefix("the ")) not in found:
                found[text] = fitting
                break
    return list(found.values())


def _name(scene: Scene, rng: Random) -> Found | None:
    named = [(place, name) for place, thing in enumerate(scene.things) if (name := name_of(scene, thing))]
    if not named:
        return None
    place, name = rng.choice(named)
    return place, f"{rng.choice(('the ', 'the ', ''))}{name}"


def _side(scene: Scene, rng: Random) -> Found | None:
    words, alike = _some_alike(scene, rng)
    direction = rng.choice(list(_SIDES))
    far = sorted(alike, key=lambda place: _along(scene, scene.things[place], direction))
    if len(alike) < 2 or not _is_apart(scene, far[-1], far[-2], direction):
        return None
    return far[-1], rng.choice(_SIDES[direction]).format(words)


def _relation(scene: Scene, rng: Random) -> Found | None:
    words, alike = _some_alike(scene, rng)
    if len(alike) < 2:
        return None
    fitting = []
    for landmark, thing in enumerate(scene.things):
        name = None if landmark in alike else name_of(scene, thing)
        for direction in DIRECTIONS if name else ():
            there = [place for place in alike if _is_apart(scene, place, landmark, direction)]
            elsewhere = [place for place in alike if _is_apart(scene, landmark, place, direction)]
            if len(there) == 1 and len(there) + len(elsewhere) == len(alike):
                fitting.append((there[0], f"the {words} {direction} the {name}"))
    return rng.choice(fitting) if fitting else None


EXPRESSION_KINDS: dict[str, tuple[Callable[[Scene, Random], Found | None], float]] = {
    "name": (_name, 0.5),
    "side": (_side, 0.2),
    "relation": (_relation, 0.3),
}


def _some_alike(scene: Scene, rng: Random) -> tuple[str, Sequence[int]]:
    """A look of some thing in words, and the places of all things that have it."""
    thing, way = rng.choice(scene.things), rng.choice(_WAYS)
    fields = {field: getattr(thing, field) for field in way}
    return describe(fields), [place for place, other in enumerate(scene.things) if matches(other, fields)]


def _along(scene: Scene, thing: Thing, direction: str) -> float:
    dx, dy = DIRECTIONS[direction]
    return dx * thing.x / scene.width + dy * thing.y / scene.height


def _is_apart(scene: Scene, one: int, other: int, direction: str) -> bool:
    """Whether one thing is clearly beyond the other that way."""
    first, second = (_along(scene, scene.things[place], direction) for place in (one, other))
    return first - second > _APART
