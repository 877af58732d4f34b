"""What people would say of a toy scene: sentences about the picture and phrases about a part of it.

The words are those of `questions.py`, so that what is learnt from captions holds for questions. All
that is said is true: a name fits one thing alone, a number is the exact number, and things are only said
to be left of or above each other where they are clearly apart. What is said of two things is said as
often the other way round, and presence as often as absence, so that the words alone tell nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from operator import attrgetter
from random import Random
from typing import NamedTuple

from datamodules.toy.questions import DIRECTIONS, describe, matches, name_of
from datamodules.toy.world import COLORS, SHAPES, SIZES, Scene, Thing
from lxmert.files import InputError

_NUMBERS = ("no", "one", "two", "three", "four", "five")
# Every word that a sentence can have besides numerals and plurals.
WORDS: tuple[str, ...] = (
    *SHAPES,
    *COLORS,
    *SIZES,
    *_NUMBERS,
    *("thing", "picture", "color", "size"),
    *("a", "the", "and", "of", "in", "is", "are", "not", "there", "same", "as"),
    *("than", "more", "fewer", "larger", "smaller", "to", "left", "right", "above", "below"),
)

_Kind = Callable[[Scene, Random], str | None]  # None where the scene has nothing of the kind to tell
_DIRECTIONS = tuple(DIRECTIONS.items())
_APART = 0.18  # of the picture's side, as for the questions
_GROUPED_BY = (("shape",), ("color",), ("color", "shape"), ("size", "shape"))
_LONG_NAMES = (*_GROUPED_BY, ("size", "color", "shape"))
_VALUES = {"shape": SHAPES, "color": COLORS, "size": SIZES}


def captions(scene: Scene, count: int, rng: Random) -> list[str]:
    """`count` different sentences about the picture, such as "Two hearts and a black cross.".

    Raises:
        InputError: so many different ones are not found.
    """
    return [f"{text[0].upper()}{text[1:]}." for text in _tell(_CAPTIONS, scene, count, rng)]


def phrases(scene: Scene, count: int, rng: Random) -> list[str]:
    """`count` different phrases about a part of the picture, such as "the heart is above a small cross".

    Raises:
        InputError: so many different ones are not found.
    """
    return _tell(_PHRASES, scene, count, rng)


def _tell(kinds: dict[_Kind, float], scene: Scene, count: int, rng: Random) -> list[str]:
    texts: dict[str, None] = {}  # a set that keeps its order
    for _ in range(10 * count + 20):
        [kind] = rng.choices(list(kinds), list(kinds.values()))
        if text := kind(scene, rng):
            texts[text] = None
        if len(texts) == count:
            return list(texts)
    raise InputError(f"there are not {count} different things to say of every toy scene; let fewer be said")


class _Part(NamedTuple):
    """One thing, or all things of a look, with words that fit these alone."""

    words: str  # without article or number
    things: tuple[Thing, ...]


def _named(scene: Scene, hidden: str = "") -> list[_Part]:
    """Each thing that has a name, as for the questions."""
    return [_Part(name, (thing,)) for thing in scene.things if (name := name_of(scene, thing, hidden))]


def _groups(scene: Scene, way: Sequence[str]) -> list[_Part]:
    """All things, by what `way` tells of them."""
    look = attrgetter(*way)
    groups: dict[object, list[Thing]] = {}
    for thing in scene.things:
        groups.setdefault(look(thing), []).append(thing)
    return [
        _Part(describe({field: getattr(group[0], field) for field in way}, len(group) > 1), tuple(group))
        for group in groups.values()
    ]


def _counted(part: _Part, rng: Random) -> str:
    """Such as "a star", "one star", "two stars", "2 stars"."""
    number = len(part.things)
    if number == 1:
        return f"{rng.choice(('a', 'a', 'one', '1'))} {part.words}"
    return f"{rng.choice((_NUMBERS[number], str(number)))} {part.words}"


def _listed(parts: Sequence[_Part], rng: Random) -> str:
    *first, last = (_counted(part, rng) for part in parts)
    return f"{', '.join(first)} and {last}" if first else last


def _list(scene: Scene, rng: Random) -> str:
    parts = _groups(scene, rng.choice(_GROUPED_BY))
    return _listed(rng.sample(parts, min(len(parts), 4)), rng)


def _there_are(scene: Scene, rng: Random) -> str:
    parts = _groups(scene, rng.choice(_GROUPED_BY))
    some = rng.sample(parts, min(len(parts), rng.randint(1, 2)))
    verb = "is" if len(some[0].things) == 1 else "are"
    return f"there {verb} {_listed(some, rng)} in the picture"


def _apart(scene: Scene, parts: Sequence[_Part], rng: Random) -> tuple[_Part, str, _Part] | None:
    direction, (dx, dy) = rng.choice(_DIRECTIONS)
    sides = [[dx * t.x / scene.width + dy * t.y / scene.height for t in part.things] for part in parts]
    ends = [(min(side), max(side)) for side in sides]
    apart = [(i, j) for i, j in permutations(range(len(parts)), 2) if ends[i][0] - ends[j][1] > _APART]
    if not apart:
        return None
    i, j = rng.choice(apart)
    return parts[i], direction, parts[j]


def _picture_relation(scene: Scene, rng: Random) -> str | None:
    if (found := _apart(scene, _named(scene) + _groups(scene, rng.choice(_LONG_NAMES)), rng)) is None:
        return None
    one, direction, other = found
    start = "there is " if len(one.things) == 1 and rng.random() < 0.3 else ""
    return f"{start}{_counted(one, rng)} {direction} {_counted(other, rng)}"


def _thing_relation(scene: Scene, rng: Random) -> str | None:
    single = [part for part in _groups(scene, rng.choice(_LONG_NAMES)) if len(part.things) == 1]
    if (found := _apart(scene, _named(scene) + single, rng)) is None:
        return None
    one, direction, other = found
    form = rng.choice(("the {} is {} the {}", "the {} is {} the {}", "a {} {} a {}", "the {} {} the {}"))
    return form.format(one.words, direction, other.words)


def _thing(scene: Scene, rng: Random) -> str:
    thing = rng.choice(scene.things)
    way = rng.choice((("color", "shape"), ("size", "shape"), ("size", "color", "shape")))
    return f"a {describe({field: getattr(thing, field) for field in way})}"


def _attribute(scene: Scene, rng: Random) -> str | None:
    what = rng.choice(("color", "color", "shape", "size"))
    parts = _named(scene, hidden=what)
    if not parts:
        return None
    part = rng.choice(parts)
    value = getattr(part.things[0], what)
    if what == "color" and rng.random() < 0.3:
        return f"the color of the {part.words} is {value}"
    return f"the {part.words} is {'a ' if what == 'shape' else ''}{value}"


def _size_comparison(scene: Scene, rng: Random) -> str | None:
    size, word = rng.choice((("large", "larger"), ("small", "smaller")))
    pairs = [
        (one.words, other.words)
        for one, other in permutations(_named(scene, hidden="size"), 2)
        if one.things[0].size == size != other.things[0].size
    ]
    if not pairs:
        return None
    one, other = rng.choice(pairs)
    return f"the {one} is {word} than the {other}"


def _sameness(scene: Scene, rng: Random) -> str | None:
    what = rng.choice(("color", "size"))
    pairs: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for a, b in permutations(_named(scene, hidden=what), 2):
        pairs[getattr(a.things[0], what) == getattr(b.things[0], what)].append((a.words, b.words))
    if not (pairs[True] and pairs[False]):
        return None
    same = rng.random() < 0.5
    one, other = rng.choice(pairs[same])
    no = "" if same else " not"
    return rng.choice(
        (f"the {one} and the {other} are{no} the same {what}", f"the {one} is{no} the same {what} as the {other}")
    )


def _count(scene: Scene, rng: Random) -> str:
    groups: dict[int, list[dict[str, str]]] = {}
    for name in ("shape", "color"):
        numbers = Counter(getattr(thing, name) for thing in scene.things)
        for value in _VALUES[name]:
            groups.setdefault(numbers[value], []).append({name: value})
    groups[len(scene.things)] = [*groups.get(len(scene.things), []), {}]
    number = rng.choice(list(groups))
    what = describe(rng.choice(groups[number]), many=number != 1)
    numeral = rng.choice((_NUMBERS[number], str(number), str(number)))
    form = rng.choice(("{} {}", "there {verb} {} {}", "there {verb} {} {} in the picture"))
    return form.format(numeral, what, verb="is" if number == 1 else "are")


def _more(scene: Scene, rng: Random) -> str | None:
    name = rng.choice(("shape", "color"))
    counts = Counter(getattr(thing, name) for thing in scene.things)
    word, sign = rng.choice((("more", 1), ("fewer", -1)))
    pairs = [(a, b) for a, b in permutations(counts, 2) if sign * (counts[a] - counts[b]) > 0]
    if not pairs:
        return None
    one, other = (describe({name: value}, many=True) for value in rng.choice(pairs))
    return f"{rng.choice(('', 'there are '))}{word} {one} than {other}"


def _existence(scene: Scene, rng: Random) -> str:
    way = rng.choices((("shape",), ("color",), ("color", "shape")), (0.4, 0.4, 0.2))[0]
    thing = rng.choice(scene.things)
    fields = {name: getattr(thing, name) for name in way}
    truth = rng.random() < 0.5
    while not truth and any(matches(other, fields) for other in scene.things):
        # As for the questions: what is absent often has something like it beside.
        name = rng.choice(way)
        fields[name] = rng.choice(_VALUES[name])
    form = rng.choice(("there is {} {}", "there is {} {} in the picture", "{} {} in the picture"))
    return form.format("a" if truth else "no", describe(fields))


# kind: its share
_CAPTIONS: dict[_Kind, float] = {_list: 0.3, _there_are: 0.2, _picture_relation: 0.4, _existence: 0.1}
_PHRASES: dict[_Kind, float] = {
    _thing: 0.1,
    _attribute: 0.2,
    _thing_relation: 0.3,
    _size_comparison: 0.08,
    _sameness: 0.08,
    _count: 0.1,
    _more: 0.08,
    _existence: 0.06,
}
