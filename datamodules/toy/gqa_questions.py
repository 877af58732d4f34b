"""What toy GQA asks about a scene: the question in several wordings, its program, its answer, and what follows.

Each kind of question is one function that says something about things of the scene ("is the star red?"), and
its `follows` says which other questions are settled by its answer. `ask` draws questions about a scene;
`gqa.py` writes them down. Phrases for things come from `questions.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from random import Random
from typing import NamedTuple

from datamodules.toy.questions import (
    _APART,
    DIRECTIONS,
    _named_things,
    _plainest,
    describe,
    matches,
    plural,
)
from datamodules.toy.world import BACKGROUNDS, COLORS, LOOKALIKES, SHAPES, SIZES, Scene, Thing
from lxmert.files import InputError

# Every word that a question or an answer can have.
WORDS: tuple[str, ...] = (
    *SHAPES,
    *(plural(shape) for shape in SHAPES),
    *COLORS,
    *SIZES,
    *("thing", "things", "background", "color", "shape", "yes", "no"),
    *("what", "which", "is", "are", "do", "you", "see", "there", "a", "any", "the", "of"),
    *("and", "or", "both", "either", "same", "as", "larger", "smaller"),
    *("to", "left", "right", "above", "below"),
)
VALUES = {"color": COLORS, "shape": SHAPES}
_FORWARD = ("to the left of", "above")
OPPOSITES = dict(zip(DIRECTIONS, ("to the right of", "to the left of", "below", "above"), strict=True))
BACKGROUND_COLORS = dict(zip(BACKGROUNDS, ("blue", "yellow", "green", "red", "purple"), strict=True))


class Phrase(NamedTuple):
    """A text, and which of its tokens (between spaces) name which thing of the scene.

    `things` maps "2" or, for tokens 2 and 3, "2:4" to a place in `scene.things`.
    """

    text: str
    things: dict[str, int]


class Step(NamedTuple):
    """One operation of a program.

    Attributes:
        operation: such as "select", "filter color" or "query".
        argument: what it is about.
        dependencies: places of the earlier steps whose results it takes.
        thing: the place in `scene.things` of the one thing that it finds, if there is one.
    """

    operation: str
    argument: str
    dependencies: tuple[int, ...] = ()
    thing: int | None = None


class Named(NamedTuple):
    """Something that a question speaks of: a name that fits it alone, what is true of it, its place in the scene.

    The background has a colour alone and no place among the things.
    """

    name: str
    looks: dict[str, str]
    place: int | None

    @property
    def told(self) -> dict[str, str]:
        """What the name itself tells, but for the size."""
        words = self.name.split()
        return {field: self.looks[field] for field in VALUES if self.looks.get(field) in words}

    @property
    def sized(self) -> bool:
        """Whether the name tells the size."""
        return self.name.split()[0] in SIZES


@dataclass(frozen=True)
class GqaQuestion:
    """A question about a scene.

    Attributes:
        wordings: templates of texts that ask the same.
        names: what stands in place of their {0}, {1}.
        answer: the true answer.
        answer_sentence: template of a sentence with the answer.
        program: the steps that lead to it.
        structural, semantic, detailed: the types, as GQA has them.
        about: what is asked of what (GQA's local group): different for any two questions about a scene.
        follows: makes the questions whose answers are settled by this one's.
        group: of answers that compete with each other (GQA's global group); None for yes and no.
        valid: answers of the right kind.
        plausible: those among them that could be true.
    """

    wordings: tuple[str, ...]
    names: tuple[Named, ...]
    answer: str
    answer_sentence: str
    program: tuple[Step, ...]
    structural: str
    semantic: str
    detailed: str
    about: str
    follows: Callable[[], list[GqaQuestion]]
    group: str | None = None
    valid: tuple[str, ...] = ("yes", "no")
    plausible: tuple[str, ...] = ("yes", "no")

    def text(self, wording: int) -> Phrase:
        """The question in one of its wordings."""
        return _say(self.wordings[wording], *self.names)

    @property
    def full_answer(self) -> Phrase:
        """The answer as a sentence."""
        return _say(self.answer_sentence, *self.names)


def ask(scene: Scene, count: int, rng: Random) -> list[tuple[GqaQuestion, int]]:
    """`count` different questions about `scene`, each with the number of the wording to ask it in.

    The kinds are in the shares of QUESTION_KINDS.

    Raises:
        InputError: so many different questions are not found.
    """
    kinds, shares = list(QUESTION_KINDS), [share for _, share in QUESTION_KINDS.values()]
    questions: dict[str, tuple[GqaQuestion, int]] = {}
    for kind in rng.choices(kinds, shares, k=10 * count + 100):
        if len(questions) == count:
            return list(questions.values())
        for _ in range(5):  # before giving the place to another kind, which would shift the shares
            question = QUESTION_KINDS[kind][0](scene, rng)
            if question is not None and question.about not in questions:
                questions[question.about] = question, rng.randrange(len(question.wordings))
                break
    raise InputError(f"there are not {count} different questions to ask about every toy scene; ask fewer")


def along(scene: Scene, direction: str, one: Thing, other: Thing) -> float:
    """How far the one is in that direction from the other, in shares of the picture's side."""
    dx, dy = DIRECTIONS[direction]
    return dx * (one.x - other.x) / scene.width + dy * (one.y - other.y) / scene.height


# ------------------------------------------------------------------- one function a kind of question


def query(scene: Scene, the: Named, what: str) -> GqaQuestion:
    """The colour or the shape of something."""
    value = the.looks[what]
    foil = _foil(the, what)
    wordings = {
        "color": ("What color is the {0}?", "What is the color of the {0}?"),
        "shape": ("What shape is the {0}?", "What is the {0}?"),
    }[what]
    return GqaQuestion(
        wordings=wordings,
        names=(the,),
        answer=value,
        answer_sentence=f"The {{0}} is {_article(what)}{value}.",
        program=_then(_select(the), "query", _operand(what)),
        structural="query",
        semantic=_semantic(the, what),
        detailed=f"{what}Query",
        group=what,
        about=f"{the.name}-{what}",
        valid=VALUES[what],
        plausible=_possible(the, what),
        follows=lambda: [
            verify(scene, the, what, value),
            verify(scene, the, what, foil),
            choose(scene, the, what, foil),
            *_presence(scene, the, {what: value}),
        ],
    )


def verify(scene: Scene, the: Named, what: str, value: str) -> GqaQuestion:
    """Whether something has this colour or shape."""
    truth = the.looks[what] == value
    wordings = {
        "color": (f"Is the {{0}} {value}?", f"Is the color of the {{0}} {value}?"),
        "shape": (f"Is the {{0}} a {value}?",),
    }[what]

    def follows() -> list[GqaQuestion]:
        if truth:
            others = [query(scene, the, what), verify(scene, the, what, _foil(the, what))]
            return [*others, *_presence(scene, the, {what: value})]
        # The name fits one thing alone, so no thing of that name has the other look.
        absent = [] if the.place is None or the.sized else [exists(scene, {**the.told, what: value})]
        return [*absent, *_presence(scene, the, {})]

    return GqaQuestion(
        wordings=wordings,
        names=(the,),
        answer=_yes(truth),
        answer_sentence=f"{_yes(truth).title()}, the {{0}} is {_article(what)}{the.looks[what]}.",
        program=_then(_select(the), f"verify {_operand(what)}", value),
        structural="verify",
        semantic=_semantic(the, what),
        detailed=f"{what}Verify",
        about=f"{the.name}-{value}",
        follows=follows,
    )


def choose(scene: Scene, the: Named, what: str, foil: str) -> GqaQuestion:
    """Whether something has its own colour or shape, or another one."""
    value = the.looks[what]
    a, (one, other) = _article(what), sorted((value, foil))
    wordings = (
        f"Is the {{0}} {a}{one} or {a}{other}?",
        f"Is the {{0}} {a}{other} or {a}{one}?",
        f"Which {what} is the {{0}}, {one} or {other}?",
        f"Which {what} is the {{0}}, {other} or {one}?",
    )
    return GqaQuestion(
        wordings=wordings,
        names=(the,),
        answer=value,
        answer_sentence=f"The {{0}} is {a}{value}.",
        program=_then(_select(the), f"choose {_operand(what)}", f"{one}|{other}"),
        structural="choose",
        semantic=_semantic(the, what),
        detailed=f"{what}Choose",
        group=what,
        about=f"{the.name}-{one}|{other}",
        valid=VALUES[what],
        plausible=(one, other),
        follows=lambda: [
            query(scene, the, what),
            verify(scene, the, what, value),
            verify(scene, the, what, foil),
            *_presence(scene, the, {what: value}),
        ],
    )


def exists(scene: Scene, fields: dict[str, str]) -> GqaQuestion:
    """Whether the scene has a thing of this shape, this colour, or both."""
    one, truth = _mention(scene, fields)
    several = Named(plural(one.name), one.looks, one.place)

    def follows() -> list[GqaQuestion]:
        if truth and len(fields) == 2:
            return [exists(scene, {field: value}) for field, value in fields.items()]
        if len(fields) == 2:
            return []
        [(field, value)] = fields.items()
        other = {field: LOOKALIKES[value][0]}
        if truth:
            return [logical(scene, "or", fields, other)]
        more = {"color": scene.things[0].color, "shape": scene.things[0].shape, **fields}
        return [exists(scene, more), logical(scene, "and", fields, other)]

    return GqaQuestion(
        wordings=(
            "Is there a {0}?",
            "Are there any {1}?",
            "Do you see a {0}?",
        ),
        names=(one, several),
        answer=_yes(truth),
        answer_sentence="Yes, there is a {0}." if truth else "No, there is no {0}.",
        program=_then(_select(one), "exist", "?"),
        structural="verify",
        semantic="attr" if "color" in fields else "obj",
        detailed="existAttr" if "color" in fields else "exist",
        about=f"{one.name}-exist",
        follows=follows,
    )


def logical(scene: Scene, word: str, one: dict[str, str], other: dict[str, str]) -> GqaQuestion:
    """Whether the scene has the one thing `and`, or `or`, the other."""
    one, other = sorted((one, other), key=describe)
    (first, has_first), (second, has_second) = _mention(scene, one), _mention(scene, other)
    found = has_first, has_second
    truth = all(found) if word == "and" else any(found)
    before = "Yes, there is a " if truth else "No, there is no "
    slots = (" and a " if truth else " and no ").join(f"{{{k}}}" for k in (0, 1) if found[k] == truth)

    def follows() -> list[GqaQuestion]:
        if truth != (word == "and"):  # "no, not both" and "yes, one of them" leave it open which
            return []
        return [exists(scene, one), exists(scene, other), logical(scene, "or" if truth else "and", one, other)]

    return GqaQuestion(
        wordings=(
            f"Is there a {{0}} {word} a {{1}}?",
            f"Is there a {{1}} {word} a {{0}}?",
            f"Is there {'both' if word == 'and' else 'either'} a {{0}} {word} a {{1}}?",
        ),
        names=(first, second),
        answer=_yes(truth),
        answer_sentence=f"{before}{slots}.",
        program=_join(_then(_select(first), "exist", "?"), _then(_select(second), "exist", "?"), Step(word, "")),
        structural="logical",
        semantic="attr" if "color" in {**one, **other} else "obj",
        detailed=f"exist{word.title()}",
        about=f"{first.name}-{word}-{second.name}",
        follows=follows,
    )


def same_color(scene: Scene, one: Named, other: Named) -> GqaQuestion:
    """Whether two things have the same colour."""
    one, other = sorted((one, other))
    colors = one.looks["color"], other.looks["color"]
    truth = colors[0] == colors[1]
    return GqaQuestion(
        wordings=(
            "Are the {0} and the {1} the same color?",
            "Is the {0} the same color as the {1}?",
            "Is the {1} the same color as the {0}?",
        ),
        names=(one, other),
        answer=_yes(truth),
        answer_sentence=(
            f"Yes, the {{0}} and the {{1}} are both {colors[0]}."
            if truth
            else f"No, the {{0}} is {colors[0]} and the {{1}} is {colors[1]}."
        ),
        program=_join(_select(one), _select(other), Step("same color", "")),
        structural="compare",
        semantic="attr",
        detailed="sameColor",
        about=f"{one.name}-{other.name}-color",
        follows=lambda: [*_presence(scene, one, {}), *_presence(scene, other, {})],
    )


def larger(scene: Scene, word: str, one: Named, other: Named) -> GqaQuestion:
    """Which of two things, named by their shapes, is `larger` or `smaller`; their sizes differ."""
    one, other = sorted((one, other))
    wanted = "large" if word == "larger" else "small"
    answer = (one if one.looks["size"] == wanted else other).name
    return GqaQuestion(
        wordings=(
            f"Which is {word}, the {{0}} or the {{1}}?",
            f"Which is {word}, the {{1}} or the {{0}}?",
        ),
        names=(one, other),
        answer=answer,
        answer_sentence=f"The {{{int(answer == other.name)}}} is {word}.",
        program=_join(_select(one), _select(other), Step(f"choose {word}", "")),
        structural="compare",
        semantic="attr",
        detailed="comparativeChoose",
        group="shape",
        about=f"{one.name}-{other.name}-{word}",
        valid=SHAPES,
        plausible=(one.name, other.name),
        follows=lambda: [
            larger(scene, "smaller" if word == "larger" else "larger", one, other),
            *_presence(scene, one, {}),
            *_presence(scene, other, {}),
        ],
    )


def relation(scene: Scene, direction: str, one: Named, other: Named) -> GqaQuestion:
    """Whether one thing is in that direction from another; they are apart along it."""
    if direction not in _FORWARD:  # the same question the other way round
        direction, one, other = OPPOSITES[direction], other, one
    truth = along(scene, direction, _thing(scene, one), _thing(scene, other)) > 0
    actual = direction if truth else OPPOSITES[direction]
    argument = f"{other.name},{direction},s"
    return GqaQuestion(
        wordings=(
            f"Is the {{0}} {direction} the {{1}}?",
            f"Is the {{1}} {OPPOSITES[direction]} the {{0}}?",
        ),
        names=(one, other),
        answer=_yes(truth),
        answer_sentence=f"{_yes(truth).title()}, the {{0}} is {actual} the {{1}}.",
        program=_then(_select(one), "verify rel", argument, other.place),
        structural="verify",
        semantic="rel",
        detailed="relVerify",
        about=f"{one.name}-{direction}-{other.name}",
        follows=lambda: [
            relation(scene, OPPOSITES[direction], one, other),
            *_presence(scene, one, {}),
            *_presence(scene, other, {}),
        ],
    )


# ----------------------------------------------------------------------------- what is asked of a scene


def _draw_query(what: str) -> Callable[[Scene, Random], GqaQuestion | None]:
    def draw(scene: Scene, rng: Random) -> GqaQuestion | None:
        the = _draw_named(scene, what, rng)
        return the and query(scene, the, what)

    return draw


def _draw_verify(what: str) -> Callable[[Scene, Random], GqaQuestion | None]:
    def draw(scene: Scene, rng: Random) -> GqaQuestion | None:
        the = _draw_named(scene, what, rng)
        return the and verify(scene, the, what, the.looks[what] if rng.random() < 0.5 else _other(the, what, rng))

    return draw


def _draw_choose(what: str) -> Callable[[Scene, Random], GqaQuestion | None]:
    def draw(scene: Scene, rng: Random) -> GqaQuestion | None:
        the = _draw_named(scene, what, rng)
        return the and choose(scene, the, what, _other(the, what, rng))

    return draw


def _draw_background(scene: Scene, rng: Random) -> GqaQuestion:
    the = Named("background", {"color": BACKGROUND_COLORS[scene.background]}, None)
    other = _other(the, "color", rng)
    return rng.choice(
        (
            lambda: query(scene, the, "color"),
            lambda: verify(scene, the, "color", rng.choice((the.looks["color"], other))),
            lambda: choose(scene, the, "color", other),
        )
    )()


def _draw_exists(scene: Scene, rng: Random) -> GqaQuestion | None:
    way = rng.choices((("shape",), ("color",), ("color", "shape")), (0.4, 0.35, 0.25))[0]
    fields = _draw_fields(scene, way, rng.random() < 0.5, rng)
    return exists(scene, fields) if fields else None


def _draw_logical(word: str) -> Callable[[Scene, Random], GqaQuestion | None]:
    def draw(scene: Scene, rng: Random) -> GqaQuestion | None:
        way = rng.choices((("shape",), ("color",), ("color", "shape")), (0.5, 0.3, 0.2))[0]
        # Yes and no are even, and one side alone rarely tells which.
        both = word == "and"
        found = rng.choice([(both, both)] * 3 + [(True, False), (False, True), (not both, not both)])
        for _ in range(10):  # to give up where the same is drawn twice would upset that
            one, other = (_draw_fields(scene, way, truth, rng) for truth in found)
            if one and other and one != other:
                return logical(scene, word, one, other)
        return None

    return draw


def _draw_same(scene: Scene, rng: Random) -> GqaQuestion | None:
    pairs: dict[bool, list[tuple[Named, Named]]] = {True: [], False: []}
    for one, other in permutations(_all_named(scene, "color"), 2):
        pairs[one.looks["color"] == other.looks["color"]].append((one, other))
    if not all(pairs.values()):  # to ask of such a scene would make one of the answers the usual one
        return None
    return same_color(scene, *rng.choice(pairs[rng.random() < 0.5]))


def _draw_larger(scene: Scene, rng: Random) -> GqaQuestion | None:
    named = [the for the in _all_named(scene, "size") if the.name in SHAPES]
    pairs = [pair for pair in permutations(named, 2) if pair[0].looks["size"] != pair[1].looks["size"]]
    return larger(scene, rng.choice(("larger", "smaller")), *rng.choice(pairs)) if pairs else None


def _draw_relation(scene: Scene, rng: Random) -> GqaQuestion | None:
    direction = rng.choice(list(DIRECTIONS))
    apart = [
        (one, other)
        for one, other in permutations(_all_named(scene), 2)
        if abs(along(scene, direction, _thing(scene, one), _thing(scene, other))) > _APART
    ]
    return relation(scene, direction, *rng.choice(apart)) if apart else None


QUESTION_KINDS: dict[str, tuple[Callable[[Scene, Random], GqaQuestion | None], float]] = {
    "query color": (_draw_query("color"), 0.19),
    "query shape": (_draw_query("shape"), 0.12),
    "verify color": (_draw_verify("color"), 0.09),
    "verify shape": (_draw_verify("shape"), 0.06),
    "choose color": (_draw_choose("color"), 0.10),
    "choose shape": (_draw_choose("shape"), 0.06),
    "exists": (_draw_exists, 0.16),
    "and": (_draw_logical("and"), 0.05),
    "or": (_draw_logical("or"), 0.05),
    "background": (_draw_background, 0.05),
    "same color": (_draw_same, 0.03),
    "larger": (_draw_larger, 0.02),
    "relation": (_draw_relation, 0.02),
}


# ------------------------------------------------------------------------------------------- phrases


def _all_named(scene: Scene, hidden: str = "") -> list[Named]:
    """What of the scene has a name of its own that does not tell `hidden`."""
    return [_named(scene, thing, name) for thing, name in _named_things(scene, hidden)]


def _draw_named(scene: Scene, hidden: str, rng: Random) -> Named | None:
    named = _named_things(scene, hidden)
    return _named(scene, *rng.choice(_plainest(named, rng))) if named else None


def _named(scene: Scene, thing: Thing, name: str) -> Named:
    looks = {"color": thing.color, "shape": thing.shape, "size": thing.size}
    return Named(name, looks, scene.things.index(thing))


def _thing(scene: Scene, the: Named) -> Thing:
    assert the.place is not None, f"the {the.name} is no thing"
    return scene.things[the.place]


def _mention(scene: Scene, fields: dict[str, str]) -> tuple[Named, bool]:
    """Things of this description, with a place only where it fits one alone; whether there are any."""
    places = [place for place, thing in enumerate(scene.things) if matches(thing, fields)]
    return Named(describe(fields), fields, places[0] if len(places) == 1 else None), bool(places)


def _draw_fields(scene: Scene, way: tuple[str, ...], truth: bool, rng: Random) -> dict[str, str] | None:
    """A description in these fields that fits something of the scene, or nothing."""
    thing = rng.choice(scene.things)
    fields = {field: getattr(thing, field) for field in way}
    if not truth:
        # Change one field alone: an absent "red star" often has a red thing or a star beside it.
        field = rng.choice(way)
        absent = [v for v in VALUES[field] if not any(matches(t, {**fields, field: v}) for t in scene.things)]
        if not absent:
            return None
        fields[field] = rng.choice(absent)
    return fields


def _say(template: str, *mentions: Named) -> Phrase:
    """The template with names in place of {0} and {1}, and where in it they stand."""
    things: dict[str, int] = {}
    longer = 0
    for token, number in _slots(template):
        named = mentions[number]
        start, words = token + longer, named.name.count(" ") + 1
        if named.place is not None:
            things[str(start) if words == 1 else f"{start}:{start + words}"] = named.place
        longer += words - 1
    return Phrase(template.format(*[named.name for named in mentions]), things)


@cache
def _slots(template: str) -> tuple[tuple[int, int], ...]:
    """Which tokens of a template hold which mention."""
    tokens = enumerate(template.split())
    return tuple((place, int(token[token.index("{") + 1])) for place, token in tokens if "{" in token)


def _select(the: Named) -> tuple[Step, ...]:
    """The steps that find what a name says."""
    first, *others = _select_by(the.name)
    return (first._replace(thing=the.place), *others)


@cache
def _select_by(name: str) -> tuple[Step, ...]:
    *adjectives, noun = name.split()
    if noun == "background":
        return (Step("select", "scene"),)
    filters = (("filter size" if word in SIZES else "filter color", word) for word in adjectives)
    return (Step("select", noun), *(Step(*step, (place,)) for place, step in enumerate(filters)))


def _then(steps: tuple[Step, ...], operation: str, argument: str, thing: int | None = None) -> tuple[Step, ...]:
    """A program, and one step more that takes its result."""
    return (*steps, Step(operation, argument, (len(steps) - 1,), thing))


def _join(first: tuple[Step, ...], second: tuple[Step, ...], last: Step) -> tuple[Step, ...]:
    """Two programs one after the other, and a last step that takes the results of both."""
    moved = [s._replace(dependencies=tuple(d + len(first) for d in s.dependencies)) for s in second]
    return (*first, *moved, last._replace(dependencies=(len(first) - 1, len(first) + len(second) - 1)))


def _presence(scene: Scene, the: Named, more: dict[str, str]) -> list[GqaQuestion]:
    """Whether there is what a name speaks of, which a question about it takes for granted."""
    if the.place is None:
        return []
    known = {**the.told, **more}
    return [exists(scene, fields) for fields in ((known, the.told) if more else (known,)) if fields]


def _possible(the: Named, what: str) -> tuple[str, ...]:
    """The looks that it could have: no background is black."""
    return VALUES[what] if the.place is not None else tuple(BACKGROUND_COLORS.values())


def _foil(the: Named, what: str) -> str:
    """A look that it does not have but could be taken for."""
    return next(value for value in LOOKALIKES[the.looks[what]] if value in _possible(the, what))


def _other(the: Named, what: str, rng: Random) -> str:
    return rng.choice([value for value in _possible(the, what) if value != the.looks[what]])


def _semantic(the: Named, what: str) -> str:
    if the.place is None:
        return "global"
    return "attr" if what == "color" else "cat"


def _operand(what: str) -> str:
    # GQA calls what a thing is its name.
    return "name" if what == "shape" else what


def _article(what: str) -> str:
    return "a " if what == "shape" else ""


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"
