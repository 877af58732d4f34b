"""VQA v2: the makers' questions and annotations -> text stores and the answer list."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.examples import ANNOTATORS, shorten
from datamodules.json_stream import items, member
from datamodules.official.preparation import Counts, Preparation
from datamodules.official.rows import Rows, no_repeat, shown, take, writing_rows
from lxmert.files import write_text
from lxmert.scoring import normalise_vqa_answer, vqa_soft_scores

FOLDERS = {"train": "train2014", "val": "val2014", "test": "test2015"}
GROUPS = ("answer_type", "question_type")
MINIVAL_IMAGES = 5000  # the first of the released val2014 features
LEAST_OCCURRENCES = 9  # of an answer, to be in the list


class Annotation(NamedTuple):
    """What is kept of a question's annotation while its question is looked for."""

    image: int
    groups: tuple[str, str]
    answers: tuple[str, ...]


def prepare_vqa(preparation: Preparation, splits: Sequence[str], minival: Path | None) -> None:
    """Make `vqa/{train,nominival,minival,test}.h5`, and the answer list where there is none.

    The list is `vqa/trainval_label2ans.json` in the data folder; where it is, it is the vocabulary of the soft
    scores. Without `minival` all of val2014 is one split, val.

    Args:
        preparation: of the task "vqa".
        splits: of train, val and test.
        minival: what tells minival's images: the release's minival.json, or val2014's features as a TSV, of
            which the first 5,000 images are taken, as the original code does.

    Raises:
        FileNotFoundError, ValueError: files are missing, broken, or do not belong together.
    """
    wanted = {_questions(split): f"questions of {FOLDERS[split]}" for split in splits}
    labelled = [split for split in splits if split != "test"]
    wanted |= {_annotations(split): f"annotations of {FOLDERS[split]}" for split in labelled}
    chosen = {minival: "the images of minival"} if minival and "val" in splits else {}
    files = preparation.find(wanted, chosen)

    answers = preparation.root / "vqa" / "trainval_label2ans.json"
    if labelled and not answers.exists():
        _make_answers(answers, [files[_annotations(split)] for split in labelled])
        preparation.notes.append(f"{answers}: made from {' and '.join(FOLDERS[split] for split in labelled)}.")
    for split in splits:
        if split == "test":
            questions = files[_questions(split)]
            preparation.make([split], [questions], lambda store, source=questions: [_convert_test(source, store)])
            continue
        sources = [files[_questions(split)], files[_annotations(split)], answers]
        names = [split]
        if split == "val" and minival:
            sources.append(minival)
            names = ["nominival", "minival"]
        elif split == "val":
            preparation.notes.append("val is all of val2014: --minival divides it into nominival and minival.")
        folder = FOLDERS[split]
        preparation.make(names, sources, lambda *stores, f=folder, s=sources: _convert(f, s, stores))


def _questions(split: str) -> str:
    return f"v2_OpenEnded_mscoco_{FOLDERS[split]}_questions.json"


def _annotations(split: str) -> str:
    return f"v2_mscoco_{FOLDERS[split]}_annotations.json"


# ----------------------------------------------------------------------------------------- answers


def _make_answers(path: Path, annotations: Sequence[Path]) -> None:
    """Write the list of the answers that enough questions have, most frequent first."""
    counts: Counter[str] = Counter()
    for file in annotations:
        for number, row in enumerate(shown(member, file, "annotations")):
            answer = row.get("multiple_choice_answer") if isinstance(row, dict) else None
            if not isinstance(answer, str):  # it may be blank: one of the 3,129 is the empty text
                raise ValueError(
                    f"{file}: annotation {number}: multiple_choice_answer is {shorten(answer)}, expected a text. "
                    "Get the file again."
                )
            counts[normalise_vqa_answer(answer).replace(",", "")] += 1
    frequent = [answer for answer, count in counts.items() if count >= LEAST_OCCURRENCES]
    if not frequent:
        raise ValueError(
            f"{', '.join(map(str, annotations))}: no answer is given to {LEAST_OCCURRENCES} questions. Put an "
            f"answer list, a JSON list of texts, at {path}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(sorted(frequent, key=lambda answer: (-counts[answer], answer))))


def _read_answers(path: Path) -> set[str]:
    answers = list(items(path))
    if not all(isinstance(answer, str) for answer in answers):
        raise ValueError(f"{path}: expected a JSON list of answer texts.")
    return set(answers)


# ------------------------------------------------------------------------------------------ stores


def _convert_test(questions: Path, store: Path) -> Counts:
    with writing_rows(store, sources=[questions], labelled=False) as rows:
        for question, image, text in _read_questions(questions):
            rows.add(text, question, _image_id("test2015", image), {})
    return rows.counts()


def _convert(folder: str, sources: Sequence[Path], stores: Sequence[Path]) -> list[Counts]:
    """One store of all questions, or two: those of other images, those of the images of minival."""
    questions, annotations, answers, *minival = sources
    vocabulary = _read_answers(answers)
    chosen = _read_minival(minival[0]) if minival else set()
    waiting = _read_annotations(annotations)
    lost: list[int] = []
    outside = [0] * len(stores)
    with ExitStack() as stack:
        written: list[Rows] = [
            stack.enter_context(writing_rows(store, sources=sources, groups=GROUPS, annotated=True))
            for store in stores
        ]
        for question, image, text in _read_questions(questions):
            annotation = waiting.pop(question, None)
            if annotation is None or annotation.image != image:
                lost.append(question)
                continue
            image_id = _image_id(folder, image)
            label = vqa_soft_scores(annotation.answers, vocabulary)
            place = int(image_id in chosen)
            outside[place] += not label
            written[place].add(text, question, image_id, label, annotation.groups, annotation.answers)
        if lost or waiting:
            raise ValueError(
                f"{questions} and {annotations} do not belong together: {_some(lost)} have no annotation of their "
                f"image, {_some(list(waiting))} of the annotations have no question. Get both of the same release."
            )
    return [rows.counts() | {"without answer": n} for rows, n in zip(written, outside, strict=True)]


def _read_questions(path: Path) -> Iterable[tuple[int, int, str]]:
    """(question id, image id, text) of each question."""
    seen: set[int] = set()
    for number, row in enumerate(shown(member, path, "questions")):
        where = (path, "question", number)
        question, image, text = take(row, where, question_id=int, image_id=int, question=str)
        no_repeat(seen, question, where)
        yield question, image, text


def _read_annotations(path: Path) -> dict[int, Annotation]:
    annotations: dict[int, Annotation] = {}
    for number, row in enumerate(shown(member, path, "annotations")):
        where = (path, "annotation", number)
        kinds = {"question_id": int, "image_id": int, "answer_type": str, "question_type": str, "answers": list}
        question, image, answer_type, question_type, answers = take(row, where, **kinds)
        if question in annotations:
            no_repeat(set(annotations), question, where)
        given = [entry.get("answer") if isinstance(entry, dict) else None for entry in answers]
        if len(given) != ANNOTATORS or not all(isinstance(answer, str) for answer in given):
            raise ValueError(
                f"{path}: annotation {number} (question {question}): expected {ANNOTATORS} answers that are "
                f"texts, found {shorten(given)}. Get the file again."
            )
        # The same few answers and types come a million times.
        groups = (sys.intern(answer_type), sys.intern(question_type))
        annotations[question] = Annotation(image, groups, tuple(sys.intern(str(answer)) for answer in given))
    return annotations


def _read_minival(path: Path) -> set[str]:
    """The ids of minival's images."""
    if path.suffix == ".tsv":
        with path.open("rb") as file:
            return {line.split(b"\t", 1)[0].decode() for line in islice(file, MINIVAL_IMAGES)}
    return {take(row, (path, "row", number), img_id=str)[0] for number, row in enumerate(items(path))}


def _image_id(folder: str, image: int) -> str:
    return f"COCO_{folder}_{image:012d}"


def _some(ids: list[Any]) -> str:
    return (
        f"{len(ids)} questions ({', '.join(map(str, ids[:5]))}{', ...' if len(ids) > 5 else ''})" if ids else "0"
    )
