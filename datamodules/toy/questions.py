"""What there is to ask about a toy scene, and how ten simulated annotators answer.

`ask` goes through the kinds of QUESTION_KINDS, `ask_relations` through those of RELATION_KINDS; each kind is one
function that says something about a scene, or None where the scene has nothing of the kind to ask. Phrases
for things ("the red star") come from `name_of`, which only gives names that fit one thing of the scene.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import permutations
from operator import attrgetter
from random import Random
from typing import NamedTuple

import numpy as np

from datamodules.toy.world import COLORS, LOOKALIKES, SHAPES, SIZES, Scene, Thing
from lxmert.files import InputError

ANNOTATORS = 10
ANNOTATOR_ACCURACY = 0.95

# Every word that a question or an answer can have besides numerals and plurals.
WORDS: tuple[str, ...] = (
    *SHAPES,
    *COLORS,
    *SIZES,
    *("thing", "picture", "color", "shape", "size", "yes", "no"),
    *("what", "which", "how", "many", "is", "are", "do", "you", "see", "there", "a", "any", "the", "of", "in"),
    *("and", "or", "same", "as", "than", "more", "larger", "smaller", "to", "left", "right", "above", "below"),
)
# Leading words as in the official annotations; the longest that fits is a question's type.
QUESTION_TYPES = (
    "what color is the",
    "what is the color of the",
    "what shape is the",
    "what is the",
    "is there a",
    "are there any",
    "are there",
    "how many",
    "is the",
    "are the",
    "do you",
    "which",
)
# word: (dx, dy) of the first thing as seen from the second, y downwards
DIRECTIONS = {"to the left of": (-1, 0), "to the right of": (1, 0), "above": (0, -1), "below": (0, 1)}
# What a name may tell of a thing, the shortest names first.
_WAYS = {
    way: attrgetter(*way)
    for way in (("shape",), ("color",), ("color", "shape"), ("size", "shape"), ("size", "color"))
}
_APART = 0.18  # of the picture's side: things closer along an axis are not asked about


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
        text: as a person would write it.
        kind: one of QUESTION_KINDS or RELATION_KINDS.
        answer: the true answer.
        mistakes: what an annotator who errs says instead; never the true answer.
    """

    text: str
    kind: str
    answer: str
    mistakes: tuple[str, ...]

    @property
    def answer_type(self) -> str:
        """One of the official three: yes/no, number, other."""
        if self.answer in ("yes", "no"):
            return "yes/no"
        return "number" if self.answer.isdigit() else "other"

    @property
    def question_type(self) -> str:
        """The longest of QUESTION_TYPES that the text starts with, as in the official annotations."""
        text = self.text.lower()
        fitting = [words for words in QUESTION_TYPES if text.startswith(words + " ")]
        return max(fitting, key=len, default="none of the above")


def ask(scene: Scene, count: int, rng: Random, without: Collection[str] = ()) -> list[Question]:
    """`count` different questions about `scene`, the kinds in the shares of QUESTION_KINDS.

    Args:
        scene: what is asked about.
        count: how many questions.
        rng: decides.
        without: texts of questions that are not to be asked again, in whatever words.

    Raises:
        InputError: so many different questions are not found.
    """
    questions = _ask(QUESTION_KINDS, scene, count, rng, without)
    if len(questions) < count:
        raise InputError(f"there are not {count} different questions to ask about every toy scene; ask fewer")
    return questions


def ask_relations(scene: Scene, count: int, rng: Random, without: Collection[str] = ()) -> list[Question]:
    """Up to `count` different questions about the places and sizes of things, in the shares of RELATION_KINDS.

    As `ask`, but there may be fewer: some scenes have hardly a thing that words tell from the others.
    """
    return _ask(RELATION_KINDS, scene, count, rng, without)


def _ask(kinds: _Kinds, scene: Scene, count: int, rng: Random, without: Collection[str]) -> list[Question]:
    shares = [share for _, share in kinds.values()]
    questions: dict[str, Question] = {}
    for kind in rng.choices(list(kinds), shares, k=10 * count + 100):
        if len(questions) == count:
            break
        for _ in range(5):  # before giving the place to another kind, which would shift the shares
            asked = kinds[kind][0](scene, rng)
            if (
                asked
                and asked.wordings[0] not in questions
                and not any(text in without for text in asked.wordings)
            ):
                mistakes = asked.mistakes or _mistakes(asked.answer)
                questions[asked.wordings[0]] = Question(rng.choice(asked.wordings), kind, asked.answer, mistakes)
                break
    return list(questions.values())


def annotate(questions: Sequence[Question], rng: np.random.Generator) -> list[list[str]]:
    """Ten answers to each question; an annotator is right with probability ANNOTATOR_ACCURACY."""
    right = rng.random((len(questions), ANNOTATORS)) < ANNOTATOR_ACCURACY
    pick = rng.random(right.shape)
    return [
        [q.answer if ok else q.mistakes[int(p * len(q.mistakes))] for ok, p in zip(oks, ps, strict=True)]
        for q, oks, ps in zip(questions, right.tolist(), pick.tolist(), strict=True)
    ]


def plural(noun: str) -> str:
    """Star as stars, cross as crosses."""
    return noun + ("es" if noun.endswith("s") else "s")


def matches(thing: Thing, fields: dict[str, str]) -> bool:
    """Whether the thing has these attributes, such as {"color": "red", "shape": "star"}."""
    return all(getattr(thing, name) == value for name, value in fields.items())


def describe(fields: dict[str, str], many: bool = False) -> str:
    """{"color": "red", "shape": "star"} as "red star" or "red stars"; "thing" where the shape is not told."""
    noun = fields.get("shape", "thing")
    words = [fields.get("size"), fields.get("color"), plural(noun) if many else noun]
    return " ".join(word for word in words if word)


def name_of(scene: Scene, thing: Thing, hidden: str = "") -> str | None:
    """The shortest description that fits this thing of the scene and no other, without telling `hidden`."""
    for way, look in _WAYS.items():
        if hidden not in way and [look(other) for other in scene.things].count(look(thing)) == 1:
            return describe({field: getattr(thing, field) for field in way})
    return None


def _named_things(scene: Scene, hidden: str = "") -> list[tuple[Thing, str]]:
    return [(thing, name) for thing in scene.things if (name := name_of(scene, thing, hidden))]


def _plainest(named: list[tuple[Thing, str]], rng: Random) -> list[tuple[Thing, str]]:
    """Mostly those with the fewest words in their names: nobody says "the large star" of the only star."""
    fewest = min(len(name.split()) for _, name in named)
    return named if rng.random() < 0.15 else [pair for pair in named if len(pair[1].split()) == fewest]


class _Asked(NamedTuple):
    """What a kind has to ask about a scene.

    Attributes:
        wordings: texts that ask the same.
        answer: the true answer.
        mistakes: what erring annotators say; empty for the usual confusions.
    """

    wordings: tuple[str, ...]
    answer: str
    mistakes: tuple[str, ...] = ()


class _Axis(NamedTuple):
    """Left to right, or downwards.

    Attributes:
        way: (dx, dy), y downwards.
        answers: where a thing is that lies at the axis' beginning, and at its end.
        places: these two as one asks for a thing's place.
        sides: these two as one asks on which side of another thing it is.
    """

    way: tuple[int, int]
    answers: tuple[str, str]
    places: str
    sides: str

    def ask(self, wordings: tuple[str, ...], along: float) -> _Asked:
        """What is asked in these words about something at `along`, negative towards the beginning."""
        first, last = self.answers
        return _Asked(wordings, first, (last,)) if along < 0 else _Asked(wordings, last, (first,))


_AXES = (
    _Axis((1, 0), ("left", "right"), "to the left or to the right", "to the left or to the right of"),
    _Axis((0, 1), ("above", "below"), "above or below", "above or below"),
)


def _ask_color(scene: Scene, rng: Random) -> _Asked | None:
    named = _named_things(scene, hidden="color")
    if not named:
        return None
    thing, name = rng.choice(_plainest(named, rng))
    return _Asked((f"What color is the {name}?", f"What is the color of the {name}?"), thing.color)


def _ask_shape(scene: Scene, rng: Random) -> _Asked | None:
    named = _named_things(scene, hidden="shape")
    if not named:
        return None
    thing, name = rng.choice(_plainest(named, rng))
    return _Asked((f"What shape is the {name}?", f"What is the {name}?"), thing.shape)


def _ask_size(scene: Scene, rng: Random) -> _Asked | None:
    named = _named_things(scene, hidden="size")
    if not named:
        return None
    thing, name = rng.choice(_plainest(named, rng))
    other = SIZES[1 - SIZES.index(thing.size)]
    return _Asked((f"What size is the {name}?", f"Is the {name} small or large?"), thing.size, (other,))


def _ask_existence(scene: Scene, rng: Random) -> _Asked | None:
    way = rng.choices((("shape",), ("color",), ("color", "shape")), (0.4, 0.4, 0.2))[0]
    thing = rng.choice(scene.things)
    fields = {name: getattr(thing, name) for name in way}
    truth = rng.random() < 0.5
    while not truth and any(matches(other, fields) for other in scene.things):
        # Change one attribute alone: an absent "red star" often has a red thing or a star beside it.
        name = rng.choice(way)
        fields[name] = rng.choice(SHAPES if name == "shape" else COLORS)
    one, several = describe(fields), describe(fields, many=True)
    wordings = (
        f"Is there a {one}?",
        f"Is there a {one} in the picture?",
        f"Do you see a {one}?",
        f"Are there any {several}?",
        f"Are there any {several} in the picture?",
    )
    return _Asked(wordings, "yes" if truth else "no")


def _ask_count(scene: Scene, rng: Random) -> _Asked | None:
    groups: dict[int, list[dict[str, str]]] = {}
    for name, values in (("shape", SHAPES), ("color", COLORS)):
        for value in values:
            fields = {name: value}
            groups.setdefault(sum(matches(t, fields) for t in scene.things), []).append(fields)
    groups[len(scene.things)] = [*groups.get(len(scene.things), []), {}]
    weights = {0: 0.2, 1: 0.35, 2: 0.35, 3: 0.35}
    number = rng.choices(list(groups), [weights.get(n, 0.08) for n in groups])[0]
    what = describe(rng.choice(groups[number]), many=True)
    return _Asked((f"How many {what} are there?", f"How many {what} are in the picture?"), str(number))


def _ask_relation(scene: Scene, rng: Random) -> _Asked | None:
    direction, way = rng.choice(list(DIRECTIONS.items()))
    apart = _pairs_apart(scene, way)
    if not apart:
        return None
    one, other, along = rng.choice(apart)  # each pair is there both ways round: yes and no are even
    return _Asked((f"Is the {one} {direction} the {other}?",), "yes" if along > 0 else "no")


def _ask_side_of_picture(scene: Scene, rng: Random) -> _Asked | None:
    axis = rng.choice(_AXES)
    apart = [
        (name, along)
        for thing, name in _named_things(scene)
        if abs(along := _along(scene, thing, axis.way) - 0.5) > _APART / 2
    ]
    if not apart:
        return None
    name, along = rng.choice(apart)
    return axis.ask((f"Is the {name} {axis.places}?", f"Is the {name} {axis.places} in the picture?"), along)


def _ask_side_of_thing(scene: Scene, rng: Random) -> _Asked | None:
    axis = rng.choice(_AXES)
    apart = _pairs_apart(scene, axis.way)
    if not apart:
        return None
    one, other, along = rng.choice(apart)
    return axis.ask((f"Is the {one} {axis.sides} the {other}?",), along)


def _pairs_apart(scene: Scene, way: tuple[int, int]) -> list[tuple[str, str, float]]:
    """Names of two things and how far the first is beyond the second that way, each pair both ways round."""
    return [
        (one, other, along)
        for (a, one), (b, other) in permutations(_named_things(scene), 2)
        if abs(along := _along(scene, a, way) - _along(scene, b, way)) > _APART
    ]


def _along(scene: Scene, thing: Thing, way: tuple[int, int]) -> float:
    """How far a thing is that way, in parts of the picture's side."""
    return way[0] * thing.x / scene.width + way[1] * thing.y / scene.height


def _ask_comparison(scene: Scene, rng: Random) -> _Asked | None:
    ways = [_ask_same, _ask_larger, _ask_more]
    rng.shuffle(ways)
    return next((asked for way in ways if (asked := way(scene, rng))), None)


def _ask_same(scene: Scene, rng: Random) -> _Asked | None:
    what = rng.choice(("color", "size"))
    pairs: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for (a, one), (b, other) in permutations(_named_things(scene, hidden=what), 2):
        pairs[getattr(a, what) == getattr(b, what)].append((one, other))
    if not (pairs[True] and pairs[False]):  # else the answer would hang on what scenes are like
        return None
    truth = rng.random() < 0.5
    one, other = rng.choice(pairs[truth])
    wordings = (f"Are the {one} and the {other} the same {what}?", f"Is the {one} the same {what} as the {other}?")
    return _Asked(wordings, "yes" if truth else "no")


def _ask_larger(scene: Scene, rng: Random) -> _Asked | None:
    pairs = [
        (a, one, b, other)
        for (a, one), (b, other) in permutations(_named_things(scene, hidden="size"), 2)
        if a.size != b.size
    ]
    if not pairs:
        return None
    a, one, b, other = rng.choice(pairs)
    if one == a.shape and other == b.shape:
        larger, smaller = (a.shape, b.shape) if a.size == "large" else (b.shape, a.shape)
        word, right, wrong = rng.choice((("larger", larger, smaller), ("smaller", smaller, larger)))
        return _Asked((f"Which is {word}, the {one} or the {other}?",), right, (wrong,))
    word, size = rng.choice((("larger", "large"), ("smaller", "small")))
    return _Asked((f"Is the {one} {word} than the {other}?",), "yes" if a.size == size else "no")


def _ask_more(scene: Scene, rng: Random) -> _Asked | None:
    name = rng.choice(("shape", "color"))
    counts = {value: sum(getattr(t, name) == value for t in scene.things) for value in SHAPES + COLORS}
    present = [value for value in counts if counts[value]]
    pairs = [(a, b) for a, b in permutations(present, 2) if counts[a] != counts[b]]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    one, other = (describe({name: value}, many=True) for value in (a, b))
    return _Asked((f"Are there more {one} than {other}?",), "yes" if counts[a] > counts[b] else "no")


def _mistakes(answer: str) -> tuple[str, ...]:
    if answer in ("yes", "no"):
        return ("no",) if answer == "yes" else ("yes",)
    if answer.isdigit():
        return tuple(str(n) for n in (int(answer) - 1, int(answer) + 1) if n >= 0)
    return LOOKALIKES[answer]


# name: what asks, its share
_Kinds = dict[str, tuple[Callable[[Scene, Random], _Asked | None], float]]

QUESTION_KINDS: _Kinds = {
    "color": (_ask_color, 0.28),
    "shape": (_ask_shape, 0.18),
    "existence": (_ask_existence, 0.24),
    "counting": (_ask_count, 0.12),
    "relation": (_ask_relation, 0.09),
    "comparison": (_ask_comparison, 0.09),
}
# Places and sizes, of one thing and of two. Those of one are the step between naming and relating, without
# which relations are hardly learnt: docs/pretraining.md
RELATION_KINDS: _Kinds = {
    "side of the picture": (_ask_side_of_picture, 0.35),
    "side of a thing": (_ask_side_of_thing, 0.15),
    "relation": (_ask_relation, 0.15),
    "size": (_ask_size, 0.15),
    "larger": (_ask_larger, 0.1),
    "same": (_ask_same, 0.1),
}
