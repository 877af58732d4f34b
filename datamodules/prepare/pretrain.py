"""The pre-training mixture: COCO captions, Visual Genome, VQA and GQA -> text stores (paper, Table 1)."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datamodules.formats.answer_lists import read_answer_list
from datamodules.formats.checks import is_text, no_repeat, take
from datamodules.formats.coco import image_name
from datamodules.formats.json_stream import items, member
from datamodules.formats.visual_genome import take_coco_id, take_image, take_text
from datamodules.prepare.preparation import Counts, Preparation, shown
from datamodules.stores import CHUNK, ExampleStore, Rows, writing_rows
from lxmert.evaluate import canonical_answer, counting_spellings
from lxmert.files import InputError, write_text

STORES = ("mscoco_train", "mscoco_nominival", "mscoco_minival", "vgnococo")
VALIDATION = "mscoco_minival"
SOURCES = ("mscoco", "vg", "vqa", "gqa", "visual7w")  # visual7w: the release's name of Visual Genome's questions
TABLE_SIZE = 9500
CAPTIONS = {"train2014": "captions_train2014.json", "val2014": "captions_val2014.json"}
VISUAL_GENOME = {
    "image_data.json": "images of Visual Genome",
    "region_descriptions.json": "captions of Visual Genome",
    "question_answers.json": "questions of Visual Genome",
}
QUESTION_STORES = ("vqa/train", "vqa/nominival", "vqa/minival", "gqa/train", "gqa/valid", "gqa/testdev")


def prepare_pretrain(preparation: Preparation) -> None:
    """Make `lxmert/{mscoco_train,mscoco_nominival,mscoco_minival,vgnococo}.h5`, and the answer table if need be.

    Sentences of a Visual Genome image that is a COCO image go to that COCO image. Everything about the images
    of VQA's minival is in mscoco_minival, to validate on; what is about an image of GQA's testdev is left out.
    Answers get the spelling of the table, `lxmert/all_ans.json` in the data folder, and those outside it are
    dropped; where there is no table, it is made of the 9,500 most frequent answers of the training stores.

    Args:
        preparation: of the task "pretrain"; its stores include those of VQA, divided by minival, and of GQA.

    Raises:
        FileNotFoundError, InputError: files are missing, broken, or do not belong together.
    """
    wanted = {name: f"captions of COCO {folder}" for folder, name in CAPTIONS.items()}
    questions = {name: preparation.stores / f"{name}.h5" for name in QUESTION_STORES}
    further = {
        path: "`python -m datamodules.prepare vqa --minival FILE`"
        if name.startswith("vqa")
        else "`python -m datamodules.prepare gqa`"
        for name, path in questions.items()
    }
    files = {**preparation.find(wanted | VISUAL_GENOME, further), **questions}
    table = preparation.root / "lxmert" / "all_ans.json"
    places = cache(lambda: Places(files))
    if not table.exists():
        _make_table(table, files, places())
        preparation.notes.append(f"{table}: made of the most frequent answers of the training stores.")
    sources = [*files.values(), table]
    preparation.make(
        STORES, sources, lambda *stores: _write(files, places(), table, stores, sources, preparation.notes)
    )


# ----------------------------------------------------------------------------------- which store


class Sentence(NamedTuple):
    """A sentence with the store and the image that it goes to; `answers` as they are spelt in the source."""

    store: str
    image: str
    source: str
    text: str
    answers: Mapping[str, float]


class Places:
    """Which store and image a sentence goes to, by the image it is about."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files
        minival = set(ExampleStore(files["vqa/minival"]).table("image"))
        self.coco: dict[int, tuple[str, str]] = {}
        for folder, name in CAPTIONS.items():
            for number, row in enumerate(shown(member, files[name], "images")):
                (image,) = take(row, (where := (files[name], "image", number)), id=int)
                if image in self.coco:
                    no_repeat(set(self.coco), image, where)
                image_id = image_name(folder, image)
                training = "mscoco_train" if folder == "train2014" else "mscoco_nominival"
                self.coco[image] = (VALIDATION if image_id in minival else training, image_id)
        if lost := minival - {image_id for _, image_id in self.coco.values()}:
            raise InputError(
                f"{files['vqa/minival']}: {len(lost)} of its images are in none of "
                f"{', '.join(CAPTIONS.values())}, such as {min(lost)}. Use the captions of the same images."
            )
        self.visual_genome: dict[int, tuple[str, str]] = {}
        self.strangers = 0  # images that are said to be of COCO, and are not of its two folders
        path = files["image_data.json"]
        for number, row in enumerate(shown(items, path)):
            where = (path, "image", number)
            image = take_image(row, where)
            if image in self.visual_genome:
                no_repeat(set(self.visual_genome), image, where)
            coco = take_coco_id(row, where)
            self.strangers += coco >= 0 and coco not in self.coco
            self.visual_genome[image] = self.coco.get(coco, ("vgnococo", str(image)))
        # Images of GQA's testdev have ids of their own in the makers' files; should one be of Visual Genome ...
        testdev = ExampleStore(files["gqa/testdev"]).table("image")
        known = (self.visual_genome.get(_number(image)) for image in testdev)
        self.held_out = {*testdev, *(place[1] for place in known if place)}
        self.minival = minival

    def in_training(self, sentence: Sentence) -> bool:
        """Whether a sentence is in a training store."""
        return sentence.store != VALIDATION and sentence.image not in self.held_out

    def of_coco(self, image: int, where: tuple[Path, str, int]) -> tuple[str, str]:
        """Of a COCO image."""
        if image not in self.coco:
            raise InputError(f"{where[0]}: {where[1]} {where[2]}: image {image} is not among the file's images.")
        return self.coco[image]

    def of_visual_genome(self, image: int, where: tuple[Path, str, int | str]) -> tuple[str, str]:
        """Of a Visual Genome image."""
        if image not in self.visual_genome:
            raise InputError(
                f"{where[0]}: {where[1]} {where[2]}: image {image} is not in {self.files['image_data.json']}. "
                "Get both of the same release."
            )
        return self.visual_genome[image]


# -------------------------------------------------------------------------------------- sentences


def _captions(files: Mapping[str, Path], places: Places) -> Iterator[Sentence]:
    for name in CAPTIONS.values():
        for number, row in enumerate(shown(member, files[name], "annotations")):
            where = (files[name], "annotation", number)
            (image,) = take(row, where, image_id=int)
            yield Sentence(*places.of_coco(image, where), "mscoco", take_text(row, where, "caption"), {})


def _regions(files: Mapping[str, Path], places: Places) -> Iterator[Sentence]:
    path = files["region_descriptions.json"]
    for number, row in enumerate(shown(items, path)):
        where = (path, "image", number)
        image, (regions,) = take_image(row, where), take(row, where, regions=list)
        store, image_id = places.of_visual_genome(image, where)
        for region in regions:
            yield Sentence(store, image_id, "vg", take_text(region, where, "phrase"), {})


def _visual_genome_questions(files: Mapping[str, Path], places: Places) -> Iterator[Sentence]:
    path = files["question_answers.json"]
    for number, row in enumerate(shown(items, path)):
        where = (path, "image", number)
        image, (questions,) = take_image(row, where), take(row, where, qas=list)
        store, image_id = places.of_visual_genome(image, where)
        for question in questions:
            answer = take_text(question, where, "answer")
            yield Sentence(store, image_id, "visual7w", take_text(question, where, "question"), {answer: 1.0})


def _vqa(files: Mapping[str, Path], places: Places) -> Iterator[Sentence]:
    where_is = {image_id: place for place, image_id in places.coco.values()}
    for name in ("vqa/train", "vqa/nominival", "vqa/minival"):
        for number, (text, image, label) in enumerate(_stored(files[name])):
            if image not in where_is:
                raise InputError(
                    f"{files[name]}: example {number}: {image} is no image of {', '.join(CAPTIONS.values())}."
                )
            yield Sentence(where_is[image], image, "vqa", text, label)


def _gqa(files: Mapping[str, Path], places: Places) -> Iterator[Sentence]:
    for name in ("gqa/train", "gqa/valid"):
        for number, (text, image, label) in enumerate(_stored(files[name])):
            where = (files[name], "example", number)
            place = places.of_visual_genome(_number(image), where)
            yield Sentence(*place, "gqa", text, label)


def _number(image: str) -> int:
    """A Visual Genome image's, -1 of another."""
    return int(image) if image.isdecimal() and len(image) < 19 else -1


def _stored(path: Path) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Text, image and label of each example of a text store."""
    store = ExampleStore(path)
    images, answers = store.table("image"), store.table("answers")
    for start in range(0, len(store), CHUNK):
        read = store.read(np.arange(start, min(start + CHUNK, len(store))))
        pairs = iter(zip(read.answers.tolist(), read.scores.tolist(), strict=True))
        for text, image, count in zip(read.texts, read.image.tolist(), read.answer_counts.tolist(), strict=True):
            yield (
                text,
                images[image],
                {answers[code]: score for code, score in (next(pairs) for _ in range(count))},
            )


# ------------------------------------------------------------------------------- table and stores


def _make_table(path: Path, files: Mapping[str, Path], places: Places) -> None:
    """Write the most frequent answers of the training stores, as the release does: [{ans, dsets}]."""
    counts: Counter[str] = Counter()
    sources: dict[str, set[str]] = defaultdict(set)
    for sentence in chain(*(read(files, places) for read in QUESTIONS)):
        if places.in_training(sentence):
            for answer in {canonical_answer(answer) for answer in sentence.answers} - {""}:
                counts[answer] += 1
                sources[answer].add(sentence.source)
    frequent = sorted(counts, key=lambda answer: (-counts[answer], answer))[:TABLE_SIZE]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps([{"ans": answer, "dsets": sorted(sources[answer])} for answer in frequent]))


def _write(
    files: Mapping[str, Path],
    places: Places,
    table: Path,
    stores: Sequence[Path],
    sources: Sequence[Path],
    notes: list[str],
) -> list[Counts]:
    answers = set(read_answer_list(table))
    counts = {name: dict.fromkeys([*SOURCES, "answers dropped", "blank", "held out"], 0) for name in STORES}
    with ExitStack() as stack:
        rows: dict[str, Rows] = {
            name: stack.enter_context(writing_rows(store, sources=sources, groups=["source"]))
            for name, store in zip(STORES, stores, strict=True)
        }
        for sentence in chain(*(read(files, places) for read in (_captions, _regions, *QUESTIONS))):
            count, store = counts[sentence.store], rows[sentence.store]
            if not is_text(sentence.text):
                count["blank"] += 1
            elif sentence.image in places.held_out:
                count["held out"] += 1
            else:
                count[sentence.source] += 1
                given = counting_spellings(sentence.answers)
                label = {spelt: sentence.answers[each] for spelt, each in given.items() if spelt in answers}
                count["answers dropped"] += len(given) - len(label)
                store.add(sentence.text, len(store), sentence.image, label, [sentence.source])
        for store in rows.values():
            store.flush()
        _check_apart(rows, places)
    notes.append(
        f"Nothing about the {len(rows[VALIDATION].images):,} images of {VALIDATION} or the "
        f"{len(places.held_out):,} of GQA testdev is in the other stores."
    )
    if places.strangers:
        notes.append(
            f"{places.strangers:,} images of Visual Genome have a coco_id of neither folder: in vgnococo."
        )
    return [rows[name].counts() | counts[name] for name in STORES]


def _check_apart(rows: Mapping[str, Rows], places: Places) -> None:
    """Check, by the images that were written, that nothing is trained on that is validated on."""
    validated_on = rows[VALIDATION].images | places.minival | places.held_out
    for name in STORES:
        if name != VALIDATION and (both := rows[name].images & validated_on):
            raise InputError(f"{name}: {len(both)} images are also validated on, such as {min(both)}.")


QUESTIONS: tuple[Callable[[Mapping[str, Path], Places], Iterator[Sentence]], ...] = (
    _vqa,
    _gqa,
    _visual_genome_questions,
)
