"""VQA v2 and data sets of its kind: the makers' questions and annotations -> text stores and the answer list."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from datamodules.formats.answer_lists import read_answer_list
from datamodules.formats.checks import check_identifier, no_repeat, take, take_ids
from datamodules.formats.coco import FOLDERS
from datamodules.formats.json_stream import items
from datamodules.formats.official_vqa import (
    Annotation,
    image_of,
    read_rows,
    take_annotation,
    take_question,
    take_ten,
    take_vizwiz_image,
)
from datamodules.prepare.preparation import Counts, Preparation, shown
from datamodules.stores import Rows, writing_rows
from lxmert.evaluate import normalise_vqa_answer, vqa_soft_scores
from lxmert.files import InputError, shorten, write_text

GROUPS = ("answer_type", "question_type")
MINIVAL_IMAGES = 5000  # the first of the released val2014 features
LEAST_OCCURRENCES = 9  # of an answer, to be in the list


@dataclass(frozen=True)
class Makers:
    """How the makers of a data set call its files and what is in them.

    Args:
        splits: split -> its name in those of its files.
        questions, annotations: names of a split's files, {} for the split; VizWiz has one file for both.
        listed: the splits whose answers make the answer list.
        most_given: whether annotations name the answer that most annotators gave.
    """

    splits: Mapping[str, str]
    questions: str
    annotations: str
    listed: tuple[str, ...] = ("train",)
    most_given: bool = True


DATA_SETS = {
    "vqa": Makers(
        dict(zip(("train", "val", "test"), FOLDERS, strict=True)),
        "v2_OpenEnded_mscoco_{}_questions.json",
        "v2_mscoco_{}_annotations.json",
        listed=("train", "val"),
    ),
    "okvqa": Makers(
        {"train": "train2014", "val": "val2014"},
        "OpenEnded_mscoco_{}_questions.json",
        "mscoco_{}_annotations.json",
        most_given=False,
    ),
    "vqacp": Makers(
        {"train": "train", "test": "test"}, "vqacp_v2_{}_questions.json", "vqacp_v2_{}_annotations.json"
    ),
    "vizwiz": Makers({"train": "train", "val": "val", "test": "test"}, "{}.json", "{}.json", most_given=False),
}
UNLABELLED = (("vqa", "test"), ("vizwiz", "test"))  # their answers are on a server


class Question(NamedTuple):
    """A question and its image, as the release calls it."""

    text: str
    identifier: int
    image: str


def prepare_vqa(preparation: Preparation, splits: Sequence[str], minival: Path | None = None) -> None:
    """Make `<task>/<split>.h5`, and the answer list where there is none.

    The list is `<task>/trainval_label2ans.json` in the data folder; where it is, it is the vocabulary of the
    soft scores. It is made from train; VQA v2's, as the original's, from val, too: whichever splits are made, so
    that it is never that of a part.

    Args:
        preparation: of a task in `DATA_SETS`.
        splits: of those that the task has there.
        minival: divides VQA's val into nominival and minival. It tells minival's images: the release's
            minival.json, or val2014's features as a TSV, of which the first 5,000 images are taken, as the
            original code does. Without it all of val2014 is one split, val.

    Raises:
        FileNotFoundError, InputError: files are missing, broken, or do not belong together.
    """
    task, makers = preparation.task, DATA_SETS[preparation.task]
    labelled = [split for split in splits if (task, split) not in UNLABELLED]
    questions = {split: makers.questions.format(makers.splits[split]) for split in splits}
    answers = preparation.root / task / "trainval_label2ans.json"
    listed = makers.listed if labelled and not answers.exists() else ()
    annotations = {split: makers.annotations.format(makers.splits[split]) for split in (*listed, *labelled)}
    wanted = {
        name: f"annotations of {makers.splits[split]}" + (", for the answer list" if split in listed else "")
        for split, name in annotations.items()
    }
    wanted |= {name: f"questions of {makers.splits[split]}" for split, name in questions.items()}
    files = preparation.find(wanted, {minival: "the images of minival"} if minival and "val" in splits else {})

    if listed:
        _make_answers(answers, [files[annotations[split]] for split in listed], makers.most_given)
        preparation.notes.append(f"{answers}: made from {' and '.join(makers.splits[s] for s in listed)}.")
    for split in splits:
        sources, names, folder = [files[questions[split]]], [split], makers.splits[split]
        if split in labelled:
            sources = list(dict.fromkeys([*sources, files[annotations[split]], answers]))
        if task == "vqa" and split == "val" and minival:
            sources.append(minival)
            names = ["nominival", "minival"]
        elif task == "vqa" and split == "val":
            preparation.notes.append("val is all of val2014: --minival divides it into nominival and minival.")
        if task == "vizwiz":
            preparation.make(names, sources, lambda store, s=sources: [_convert_vizwiz(s, store)])
        elif split in labelled:
            preparation.make(names, sources, lambda *stores, f=folder, s=sources: _convert(f, s, stores))
        else:
            preparation.make(names, sources, lambda store, f=folder, s=sources: [_convert_test(f, s[0], store)])


# ----------------------------------------------------------------------------------------- answers


def _make_answers(path: Path, annotations: Sequence[Path], most_given: bool) -> None:
    """Write the list of the answers that enough questions have, most frequent first.

    A question has the answer that most annotators gave, normalised; where annotations do not name it, each that
    an annotator gave, as it is.
    """
    counts: Counter[str] = Counter()
    for file in annotations:
        for number, row in enumerate(shown(read_rows, file, "annotations")):
            if not most_given:
                counts.update(set(take_ten(row, (file, "annotation", number))))
                continue
            answer = row.get("multiple_choice_answer") if isinstance(row, dict) else None
            if not isinstance(answer, str):  # it may be blank: one of the 3,129 is the empty text
                raise InputError(
                    f"{file}: annotation {number}: multiple_choice_answer is {shorten(answer)}, expected a text. "
                    "Get the file again."
                )
            counts[normalise_vqa_answer(answer).replace(",", "")] += 1
    frequent = [answer for answer, count in counts.items() if count >= LEAST_OCCURRENCES]
    if not frequent:
        raise InputError(
            f"{', '.join(map(str, annotations))}: no answer is given to {LEAST_OCCURRENCES} questions. Put an "
            f"answer list, a JSON list of texts, at {path}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(sorted(frequent, key=lambda answer: (-counts[answer], answer))))


# ------------------------------------------------------------------------------------------ stores


def _convert_test(folder: str, questions: Path, store: Path) -> Counts:
    with writing_rows(store, sources=[questions], labelled=False) as rows:
        for question in _read_questions(questions, folder):
            rows.add(*question, {})
    return rows.counts()


def _convert(folder: str, sources: Sequence[Path], stores: Sequence[Path]) -> list[Counts]:
    """One store of all questions, or two: those of other images, those of the images of minival."""
    questions, annotations, answers, *minival = sources
    vocabulary = set(read_answer_list(answers))
    chosen = _read_minival(minival[0]) if minival else set()
    waiting = _read_annotations(annotations, folder)
    lost: list[int] = []
    outside = [0] * len(stores)
    with ExitStack() as stack:
        written: list[Rows] = [
            stack.enter_context(writing_rows(store, sources=sources, groups=GROUPS, annotated=True))
            for store in stores
        ]
        for question in _read_questions(questions, folder):
            image, annotation = waiting.pop(question.identifier, ("", None))
            if annotation is None or image != question.image:
                lost.append(question.identifier)
                continue
            label = vqa_soft_scores(annotation.answers, vocabulary)
            place = int(question.image in chosen)
            outside[place] += not label
            written[place].add(*question, label, annotation.groups, annotation.answers)
        if lost or waiting:
            raise InputError(
                f"{questions} and {annotations} do not belong together: {_some(lost)} have no annotation of their "
                f"image, {_some(list(waiting))} of the annotations have no question. Get both of the same release."
            )
    return [rows.counts() | {"without answer": n} for rows, n in zip(written, outside, strict=True)]


def _convert_vizwiz(sources: Sequence[Path], store: Path) -> Counts:
    """VizWiz has one question an image, whose number becomes the question's id."""
    file, *answers = sources
    vocabulary = set(read_answer_list(answers[0])) if answers else set()
    labelled, outside, seen = bool(answers), 0, set[int]()
    groups = GROUPS[:1] if labelled else ()
    with writing_rows(store, sources=sources, groups=groups, labelled=labelled, annotated=labelled) as rows:
        for number, row in enumerate(shown(items, file)):
            where = (file, "question", number)
            [text], (image, identifier) = take(row, where, question=str), take_vizwiz_image(row, where)
            no_repeat(seen, identifier, where)
            if not labelled:
                rows.add(text, identifier, image, {})
                continue
            types, ten = take(row, where, answer_type=str), take_ten(row, where)
            label = vqa_soft_scores(ten, vocabulary)
            outside += not label
            rows.add(text, identifier, image, label, types, ten)
    return rows.counts() | ({"without answer": outside} if labelled else {})


# -------------------------------------------------------------------------------------------- rows


def _read_questions(path: Path, folder: str) -> Iterator[Question]:
    seen: set[int] = set()
    for number, row in enumerate(shown(read_rows, path, "questions")):
        where = (path, "question", number)
        identifier, text, _ = take_question(row, where)
        no_repeat(seen, identifier, where)
        yield Question(text, identifier, image_of(row, where, folder))


def _read_annotations(path: Path, folder: str) -> dict[int, tuple[str, Annotation]]:
    """The image, as the release calls it, and the annotation of each question."""
    annotations: dict[int, tuple[str, Annotation]] = {}
    for number, row in enumerate(shown(read_rows, path, "annotations")):
        where = (path, "annotation", number)
        annotation = take_annotation(row, where)
        if annotation.question in annotations:
            no_repeat(set(annotations), annotation.question, where)
        annotations[annotation.question] = (image_of(row, where, folder), annotation)
    return annotations


def _read_minival(path: Path) -> set[str]:
    """The ids of minival's images."""
    if path.suffix == ".tsv":
        with path.open("rb") as file:
            names = [line.split(b"\t", 1)[0].decode("utf-8", "replace") for line in islice(file, MINIVAL_IMAGES)]
        for number, name in enumerate(names):
            check_identifier(name, "the image", (path, "row", number))
        return set(names)
    return {take_ids(row, (path, "row", number), "img_id")[0] for number, row in enumerate(items(path))}


def _some(ids: Sequence[int]) -> str:
    """How many questions these are, and the first few."""
    listed = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
    return f"{len(ids)} questions ({listed})" if ids else "0"
