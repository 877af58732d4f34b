"""Questions of one's own, with columns of any names -> text store."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from datamodules.formats.answer_lists import normalized, read_answer_list
from datamodules.formats.checks import Identifiers, Where, check_identifier, is_text, label_problem, place_of
from datamodules.formats.release_nlvr2 import ANSWERS as TRUTH
from datamodules.formats.release_nlvr2 import RIGHT, image_groups
from datamodules.formats.rows import Row, is_table, read_rows
from datamodules.progress import progress_bar
from datamodules.stores import ANNOTATORS, writing_rows
from lxmert.evaluate import some, vqa_soft_scores
from lxmert.files import InputError, parse_json, shorten

NORMALIZED = "normalized_answer"  # what a column of answers is that are to be read `normalized`
# What a column is -> what it is called where nobody says.
USUAL_NAMES = {
    "id": ("question_id", "id", "qid", "identifier", "pairID"),
    "image": ("img_id", "image_id", "image", "img", "Flickr30K_ID", "Flikr30kID"),
    "left": ("img0", "left"),
    "right": ("img1", "right"),
    "text": ("sent", "question", "sentence", "text", "sentence2"),
    "answer": ("label", "answer", "answers", "gold_label"),
    "class": ("class",),
    "answer_type": ("answer_type",),
    "question_type": ("question_type",),
}
GROUPS = ("answer_type", "question_type")
OPTIONAL = ("answer", NORMALIZED, "class", *GROUPS)  # columns that a split may lack
ANSWER_LIST = "trainval_label2ans.json"  # beside the text files


def convert_own(
    source: Path, store: Path, columns: Mapping[str, str] | None = None, *, pairs: bool = False
) -> Path:
    """Convert a file of questions to a text store.

    Args:
        source: JSON list, JSON lines, CSV or TSV; see `read_rows`.
        store: where to write.
        columns: what a column is -> its name; those not given have one of their `USUAL_NAMES`. Text and image are
            needed; without an id rows are numbered from 0; without an answer the split is unlabelled.
            An answer is a text; an object of answer -> score above 0 and up to 1; or the ten annotators', whose
            scores are those of VQA and which are stored, too. A normalized_answer is any of these, `normalized`. A
            class is a place (from 0) in the answer list beside the file; without that list the number is the
            answer.
        pairs: rows have a left and a right image, and further ones where there are columns img2, img3, ...; the
            answer is true or false, 1 or 0.

    Returns:
        `store`.

    Raises:
        InputError: columns that are not there or could be several, a row that cannot be used; names file, row
            (from 0; in files of lines the line, from 1) and column.
        StoreError: the store cannot be written.
    """
    answers = source.parent / ANSWER_LIST
    listed = read_answer_list(answers) if answers.exists() else None
    with progress_bar(source.name, source.stat().st_size) as bar:
        rows = read_rows(source, progress=bar.update)
        first = next(rows, None)
        if first is None:
            raise InputError(f"{source}: no rows. Is it the right file?")
        reader = OwnRows(first, columns or {}, listed, pairs=pairs)
        groups = [*image_groups(reader.images), *reader.groups]
        with writing_rows(
            store,
            groups=groups,
            labelled=reader.labelled,
            annotated=reader.annotated,
            sources=[source, *([answers] if listed else [])],
            made_with=made_with(columns or {}, pairs=pairs),
        ) as written:
            for number, row in enumerate(chain([first], rows)):
                written.add(*reader.read(row, number))
    return store


def made_with(columns: Mapping[str, str], *, pairs: bool) -> str:
    """The settings that a store depends on, as it tells them."""
    return json.dumps({"columns": dict(sorted(columns.items())), "pairs": pairs})


def named_columns(texts: Sequence[str]) -> dict[str, str]:
    """The columns that a command line names, WHAT=NAME each.

    Raises:
        InputError: one is of another form.
    """
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, (_, equals, name) in zip(texts, pairs, strict=True) if not equals or not name]:
        raise InputError(f"--columns {wrong[0]}: expected WHAT=NAME, such as text=Frage.")
    return {what: name for what, _, name in pairs}


def truth_rows(source: Path, columns: Mapping[str, str], *, labelled: bool) -> list[dict[str, Any]]:
    """The truth of a file in the release's form: `question_id`, `label`, and types where there are some.

    Args:
        source: as of `convert_own`. Rows that have this form already need no text and no image.
        columns: as of `convert_own`.
        labelled: whether answers are needed.

    Raises:
        InputError: as of `convert_own`, or there are no answers and they are needed.
    """
    rows = list(read_rows(source))
    if not rows:
        raise InputError(f"{source}: no rows. Is it the right file?")
    needed = {"question_id", "label"} if labelled else {"question_id"}
    kept = [row for _, row in rows]
    if not columns and _have(kept, needed) and not (labelled and looks_own(kept[0])):
        return kept
    answers = source.parent / ANSWER_LIST
    listed = read_answer_list(answers) if answers.exists() else None
    reader = OwnRows(rows[0], columns, listed, pairs=has_pairs(rows[0][1], columns))
    if labelled and not reader.labelled:
        there = some(list(rows[0][1]))
        raise InputError(
            f"{source}: no column of answers, only {there}. Give the file that has them, or name the column: "
            "--columns answer=NAME."
        )
    found = []
    for number, row in enumerate(rows):
        _, identifier, _, label, groups, _ = reader.read(row, number)
        types = dict(zip(reader.groups, groups[-len(reader.groups) :], strict=True)) if reader.groups else {}
        found.append({"question_id": identifier, "label": label, **types})
    return found


class OwnRows:
    """Reads the rows of a file whose first row tells its columns.

    Args:
        first: the first row.
        columns: what a column is -> its name.
        answers: the answer list that classes are places in.
        pairs: whether rows have two images or more.

    Attributes:
        images: what the columns of images are.
        columns: what a column is -> its name, all that the file has.
        labelled: whether rows have answers; annotated: whether these are the ten annotators'.
        groups: those of `GROUPS` that the file has.
        spell: an answer of the file -> as it is read.

    Raises:
        InputError: as of `convert_own`.
    """

    def __init__(
        self, first: Row, columns: Mapping[str, str], answers: list[str] | None = None, *, pairs: bool = False
    ) -> None:
        self.images, self.pairs, self.answers = image_roles(first, columns, pairs=pairs), pairs, answers
        self.columns = find_columns(first, columns, self.images)
        self.labelled = "answer" in self.columns or "class" in self.columns
        self.spell: Callable[[str], str] = normalized if NORMALIZED in columns else str.strip
        self.groups = [name for name in GROUPS if name in self.columns]
        self.annotated = "answer" in self.columns and isinstance(self._answer(first), list)
        self._others = {name for role, names in USUAL_NAMES.items() if role not in self.columns for name in names}
        self._others |= {_further(len(self.images))} if pairs else set()
        self._others -= set(first[1])
        self._identifiers = Identifiers()

    def read(self, row: Row, number: int) -> tuple[Any, ...]:
        """A row as `Rows.add` takes it.

        Args:
            row: where it is, and what it is.
            number: how many rows come before it.
        """
        where, fields = row
        if not isinstance(fields, dict) or (missing := [n for n in self.columns.values() if n not in fields]):
            found = f"no {', '.join(missing)}" if isinstance(fields, dict) else f"found {shorten(fields)}"
            raise _problem(where, f"{found}, expected the columns of the first row in all: {self._all()}")
        if more := self._others & fields.keys():
            raise _problem(
                where, f"has {', '.join(sorted(more))}, which the first row has not; give it to all or none"
            )
        text = fields[self.columns["text"]]
        if not is_text(text):
            raise _problem(where, f"{self.columns['text']} is {shorten(text)}, expected a text")
        images = [self._image(where, fields, role) for role in self.images]
        label, ten = self._label(where, row) if self.labelled else ({}, None)
        types = [self._group(where, fields[self.columns[name]], name) for name in self.groups]
        return text, self._identifier(where, fields, number), images[0], label, [*images[1:], *types], ten

    def _all(self) -> str:
        return ", ".join(self.columns.values())

    def _identifier(self, where: Where, fields: Mapping[str, Any], number: int) -> int | str:
        if "id" not in self.columns:
            return number
        name = self.columns["id"]
        return self._identifiers.take(fields[name], name, where)

    def _image(self, where: Where, fields: Mapping[str, Any], role: str) -> str:
        name = self.columns[role]
        value = fields[name]
        image = str(value) if type(value) is int else value
        if isinstance(image, str):
            check_identifier(image, name, where)
            return sys.intern(image)
        hint = (
            ", one of each image; several images are columns left, right, img2, img3"
            if isinstance(value, list)
            else ""
        )
        raise _problem(where, f"{name} is {shorten(value)}, expected an image's id, a text or an integer{hint}")

    def _group(self, where: Where, value: Any, name: str) -> str | None:
        if value is None or value == "":
            return None
        if not is_text(value):
            raise _problem(where, f"{self.columns[name]} is {shorten(value)}, expected a text")
        return sys.intern(value)

    # -------------------------------------------------------------------------------------- answers

    def _answer(self, row: Row) -> Any:
        """The answer as it is meant: in a table, lists and objects are written as JSON."""
        where, fields = row
        value = fields[self.columns["answer"]]
        if is_table(where[0]) and value.startswith(("{", "[")):
            return parse_json(value.encode(errors="surrogatepass"), f"{place_of(where)}: {self.columns['answer']}")
        return value

    def _label(self, where: Where, row: Row) -> tuple[Mapping[str, float], tuple[str, ...] | None]:
        """The soft label, and the ten annotators' answers where these are what is given."""
        if self.pairs:
            name = self.columns.get("answer") or self.columns["class"]
            return {_truth(where, name, row[1][name]): 1.0}, None
        if "class" in self.columns:
            return {self._class(where, row[1][self.columns["class"]]): 1.0}, None
        name, value = self.columns["answer"], self._answer(row)
        if self.annotated != isinstance(value, list):
            raise _problem(
                where,
                f"{name} is {shorten(value)}, and in the first row it is {'' if self.annotated else 'no '}list of "
                "annotators' answers; give all rows the same",
            )
        if isinstance(value, list):
            ten = tuple(sys.intern(self.spell(a)) for each in value if isinstance(a := _said(each), str))
            if len(ten) != ANNOTATORS or len(value) != ANNOTATORS:
                raise _problem(
                    where,
                    f"{name} is {shorten(value)}, expected the answers of {ANNOTATORS} annotators, each a text; "
                    "of more or fewer give an object of answer and score",
                )
            return vqa_soft_scores(ten, set(ten)), ten
        if isinstance(value, dict):
            if problem := label_problem(value):
                raise _problem(where, problem.replace("label", name, 1))
            return self._spelt(value), None
        if not is_text(value):
            hint = "; a class's number is a column class" if isinstance(value, int) else ""
            hint = "; leave the column out where answers are not known" if value in ("", None) else hint
            raise _problem(
                where, f"{name} is {shorten(value)}, expected a text, an object of answer and score, or ten{hint}"
            )
        return {sys.intern(self.spell(value)): 1.0}, None

    def _spelt(self, label: Mapping[str, float]) -> Mapping[str, float]:
        """A label of several answers; of those that are read as one the best score counts."""
        if self.spell is not normalized:
            return label
        scores: dict[str, float] = {}
        for answer, score in label.items():
            scores[normalized(answer)] = max(score, scores.get(normalized(answer), 0.0))
        return scores

    def _class(self, where: Where, value: Any) -> str:
        name = self.columns["class"]
        number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
        if type(number) is not int or not 0 <= number < 2**31:
            raise _problem(where, f"{name} is {shorten(value)}, expected a whole number from 0")
        if self.answers is None:
            return sys.intern(str(number))
        if number >= len(self.answers):
            raise _problem(
                where, f"{name} is {number}, and {ANSWER_LIST} beside the file has {len(self.answers)} answers"
            )
        return self.answers[number]


def find_columns(first: Row, given: Mapping[str, str], images: tuple[str, ...]) -> dict[str, str]:
    """What each column is -> its name in the file, of those that are there; a normalized_answer as the answer.

    Args:
        first: the first row.
        given: what a column is -> its name, as the configuration has it.
        images: what the columns of images are, as `image_roles` says.

    Raises:
        InputError: a column that is given is not there, or one that is not given is missing or could be several.
    """
    where, fields = first
    if not isinstance(fields, dict):
        raise _problem(where, f"found {shorten(fields)}, expected an object of columns and values")
    answer = NORMALIZED if NORMALIZED in given and images == ("image",) else "answer"
    known = ("id", *images, "text", answer, "class", *GROUPS)
    if unknown := [role for role in given if role not in known]:
        raise InputError(f"data.columns.{unknown[0]}: expected one of {', '.join(known)}.")
    there = some(list(fields))
    columns: dict[str, str] = {}
    for role in known:
        usual = [name for name in _usual_names(role) if name in fields]
        names = [given[role]] if role in given else usual
        if role in given and given[role] not in fields:
            if role in OPTIONAL and not usual:  # as in a split whose answers are not known
                continue
            raise InputError(
                f"{place_of(where)}: no column {shorten(given[role])}, which data.columns.{role} names. There "
                f"are {there}."
            )
        if len(names) > 1:
            raise InputError(
                f"{place_of(where)}: {' and '.join(names)} could both be the {role}. Say which, such as "
                f"data.columns.{role}={names[0]}."
            )
        if names:
            columns["answer" if role == answer else role] = names[0]
    if {"answer", "class"} <= columns.keys():
        if (answer in given) == ("class" in given):
            raise InputError(
                f"{place_of(where)}: {columns['answer']} and {columns['class']} could both be the answer. Say "
                f"which: data.columns.{answer}={columns['answer']} or data.columns.class={columns['class']}."
            )
        del columns["class" if answer in given else "answer"]
    if missing := [role for role in (*images, "text") if role not in columns]:
        raise InputError(
            f"{place_of(where)}: no column is the {missing[0]}: expected {' or '.join(_usual_names(missing[0]))}, "
            f"or data.columns.{missing[0]}=NAME. There are {there}."
        )
    return columns


def image_roles(first: Row, given: Mapping[str, str], *, pairs: bool) -> tuple[str, ...]:
    """What the columns of a row's images are: image; or left and right, then img2, img3 and so on.

    Args:
        first: the first row.
        given: what a column is -> its name, as the configuration has it.
        pairs: whether rows have two images or more.

    Raises:
        InputError: a number is left out.
    """
    where, fields = first
    there = {*given, *(map(str, fields) if isinstance(fields, dict) else ())}
    further = set(image_groups(there)) - {RIGHT, _further(1)} if pairs else set()
    expected = [_further(number) for number in range(2, 2 + len(further))]
    if missing := [name for name in expected if name not in further]:
        raise InputError(
            f"{place_of(where)}: {min(further - {*expected})} is there and {missing[0]} is not. Images are left "
            f"and right (img0 and img1), then img2, img3 and so on: call the next one {missing[0]}, or say "
            f"+data.columns.{missing[0]}=NAME."
        )
    return ("left", "right", *expected) if pairs else ("image",)


def _further(place: int) -> str:
    """What an image is called that has so many before it."""
    return f"img{place}"


def _usual_names(role: str) -> tuple[str, ...]:
    return USUAL_NAMES.get("answer" if role == NORMALIZED else role, (role,))


def looks_own(fields: Any) -> bool:
    """Whether a row has the columns of `USUAL_NAMES` that are needed."""
    return isinstance(fields, dict) and all(
        any(name in fields for name in USUAL_NAMES[role])
        for role in ("text", *(("left", "right") if has_pairs(fields) else ("image",)))
    )


def has_pairs(fields: Any, columns: Mapping[str, str] | None = None) -> bool:
    """Whether a row has two images or more; `columns` as of `convert_own`."""
    given = set(columns or ())
    usual = {
        role for role in ("image", "left") if isinstance(fields, dict) and set(USUAL_NAMES[role]) & set(fields)
    }
    return bool(given & {"left"} or image_groups(given)) or ("left" in usual and "image" not in given | usual)


def _have(rows: Sequence[Any], names: set[str]) -> bool:
    return all(isinstance(row, dict) and names <= row.keys() for row in rows)


def _truth(where: Where, name: str, value: Any) -> str:
    """The answer of a row with two images or more."""
    says = {"true": TRUTH[1], "1": TRUTH[1], "false": TRUTH[0], "0": TRUTH[0]}
    found = says.get(str(value).strip().lower()) if isinstance(value, bool | int | str) else None
    if found is None:
        raise _problem(where, f"{name} is {shorten(value)}, expected true or false, or 1 or 0")
    return found


def _said(entry: Any) -> Any:
    """The answer of an annotator, a text or, as the makers of VQA write it, an object with `answer`."""
    return entry.get("answer") if isinstance(entry, dict) else entry


def _problem(where: Where, what: str) -> InputError:
    return InputError(f"{place_of(where)}: {what}. Mend or remove that row.")
