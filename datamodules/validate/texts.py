"""Text files: the release's JSON, the makers' JSON, text stores, answer lists, prediction files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.formats import official_gqa, official_vqa
from datamodules.formats.answer_lists import answer_of, answer_problem, read_answer_list
from datamodules.formats.captions import LINES, read_all_captions
from datamodules.formats.checks import Where, is_text, take
from datamodules.formats.json_stream import entries, items, member, outline
from datamodules.formats.official_nlvr2 import IDENTIFIER, take_statement
from datamodules.formats.opening import opened
from datamodules.formats.own import ANSWER_LIST, OwnRows, has_pairs, looks_own
from datamodules.formats.probes import read_probes
from datamodules.formats.referring import Referring, read_referring
from datamodules.formats.release_nlvr2 import image_groups, statement_problem
from datamodules.formats.release_pretrain import read_entry
from datamodules.formats.release_vqa import identifier_of, name_of, question_problem
from datamodules.formats.rows import json_lines, read_rows
from datamodules.formats.visual7w import read_visual7w
from datamodules.formats.visual_genome import take_coco_id, take_image, take_text
from datamodules.stores import ExampleStore
from datamodules.validate.findings import Findings, progress
from lxmert.evaluate import canonical_answer, identifier_problem
from lxmert.files import InputError, parse_json, read_json, shorten

HEAD = 1 << 16  # bytes that tell what a JSON file is
SAMPLE = 200_000  # examples of a text store that are looked at
QUESTIONS = {"train2014": 443_757, "val2014": 214_354, "test2015": 447_793}
ANSWER_LISTS = ("trainval_label2ans.json", "trainval_ans2label.json")
ANSWER_TABLE = "all_ans.json"
Check = Callable[[Path, Findings], None]


class Unknown(ValueError):
    """A file of no kind that we know."""


def check_json(path: Path, found: Findings) -> None:
    """Look into a JSON file of any kind we know.

    Raises:
        Unknown: it is of another kind.
        InputError: it is broken; names the byte.
    """
    head = _head(path).lstrip()
    if head.startswith("["):
        row = next(items(path), None)
        kinds = LISTS
    elif head.startswith("{"):
        if check := _check_of_lines(path, _parsed(head.split("\n", 1)[0])):
            check(path, found)
            return
        kinds, row = _outlined(path)
        for name in row if kinds is MEMBERS else ():
            first = _first_fields(path, name)
            for fields, check in BEGINNINGS:
                if fields & first:
                    check(path, found)
                    return
    else:
        raise Unknown("neither a JSON list nor an object")
    for names, check in kinds:
        if isinstance(row, dict) and names <= set(row):
            check(path, found)
            return
    if check := _check_of_rows(row):
        check(path, found)
        return
    if "ans" in path.stem and isinstance(row, str | int):  # plain texts and numbers may be anything
        (_answer_list if head.startswith("[") else _answer_codes)(path, found)
        return
    raise Unknown(f"JSON of {shorten(row)}" if row is not None else "JSON without content")


def _first_fields(path: Path, name: str) -> set[str]:
    """The fields of the first element of the list `name` of a file."""
    first = next(member(path, name), None)
    return set(first) if isinstance(first, dict) else set()


def _check_of_rows(row: Any) -> Check | None:
    """What looks into a file of one's own or of a maker's, by its first row, whatever the ending."""
    if not isinstance(row, dict):
        return None
    if any(names <= set(row) for names in PROBES):
        return _probes
    if set(row) == HATEFUL_MEMES and type(row["label"]) is int:
        return _hateful_memes
    return check_own if looks_own(row) else None


def _check_of_lines(path: Path, row: Any) -> Check | None:
    """As `_check_of_rows`, of a file with a JSON object a line."""
    if isinstance(row, dict) and {"sentence", "identifier"} <= set(row):
        return _official_statements
    if isinstance(row, dict) and "sentences" in row and path.suffix in LINES:
        return _captions
    return _check_of_rows(row)


def _outlined(path: Path) -> tuple[list[tuple[set[str], Check]], Any]:
    """What a file that is an object is to be recognised by: its lists, or the first of its values."""
    first: Any = None
    lists: dict[str, None] = {}
    for name, value in outline(path):
        first = value if first is None else first
        if isinstance(value, list):
            lists[name] = None
        if any(names <= set(lists) for names, _ in MEMBERS):
            return MEMBERS, lists
        if isinstance(value, dict) and any(names <= set(value) for names, _ in OBJECTS):
            return OBJECTS, value
    return OBJECTS, first


def check_lines(path: Path, found: Findings) -> None:
    """A file of lines: NLVR2's predictions, or JSON of any kind we know.

    Raises:
        Unknown: it is neither.
    """
    with opened(path) as file:
        first = file.readline(HEAD).decode("utf-8-sig", "replace")
    if check := _check_of_lines(path, _parsed(first)):
        check(path, found)
    elif IDENTIFIER.match(first):
        _statement_predictions(path, found)
    else:
        raise Unknown("its first line is neither an object of a form that is known nor identifier,True|False")


def check_own(path: Path, found: Findings, columns: Mapping[str, str] | None = None) -> None:
    """Texts of one's own, whose rows are read as the conversion does.

    Args:
        path: the file.
        found: what is noted.
        columns: what a column is -> its name, of those that are unusual.
    """
    found.kind = "texts of your own"
    rows = _rows(read_rows, path)
    first = next(rows, None)
    if first is None:
        found.wrong("no rows")
        return
    answers = path.parent / ANSWER_LIST
    columns = columns or {}
    pairs = has_pairs(first[1], columns)
    reader = OwnRows(first, columns, read_answer_list(answers) if answers.exists() else None, pairs=pairs)
    found.fact("columns", ", ".join(f"{name} ({role})" for role, name in reader.columns.items()))
    count = 0
    given: Counter[str] = Counter()
    for number, row in enumerate(chain([first], rows)):
        try:
            _, _, image, label, further, _ = reader.read(row, number)
        except InputError as error:
            found.wrong("rows that cannot be used", _short(error, path))
            continue
        count += 1
        found.images |= {image, *further[: len(reader.images) - 1]}
        given.update(dict.fromkeys(label, 1))
    found.fact(f"statements about {len(reader.images)} images" if pairs else "questions", count)
    found.fact("images", len(found.images))
    if reader.labelled:
        found.fact("distinct answers", len(given))
        for answer in [] if pairs else _outside(path.parent, ANSWER_LISTS, given, found, reader.spell):
            found.wrong("answers that are not in the answer list", repr(answer))


def check_of_table(path: Path) -> Check | None:
    """What looks into a CSV or TSV file whose first line names the columns, if it does."""
    with opened(path) as file:
        first = file.readline(HEAD).decode("utf-8-sig", "replace").strip()
    names = first.split("\t" if ".tsv" in path.suffixes else ",")
    return _check_of_rows(dict.fromkeys(name.strip().strip('"') for name in names))


def _head(path: Path) -> str:
    with opened(path) as file:
        return file.read(HEAD).decode("utf-8-sig", "replace")


def _parsed(line: str) -> Any:
    try:
        return parse_json(line.encode(), "the first line")
    except InputError:
        return None


# ------------------------------------------------------------------------------------ reading rows


def _rows(read: Callable[..., Iterator[Any]], path: Path, *arguments: str) -> Iterator[Any]:
    with progress(path) as bar:
        yield from read(path, *arguments, progress=bar.update)


def _checked(
    rows: Iterator[Any], path: Path, what: str, found: Findings, check: Callable[[Any, Where], Any]
) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Where they stand, the rows that pass a check of the conversion, and what it gives."""
    for number, row in enumerate(rows):
        try:
            checked = check(row, (path, what, number))
        except InputError as error:
            found.wrong(f"{what}s that cannot be used", _short(error, path))
        else:
            yield f"{what} {number}", row, checked


def _fields(**kinds: type) -> Callable[[Any, Where], list[Any]]:
    return lambda row, where: take(row, where, **kinds)


def _released(path: Path, found: Findings, problem_of: Callable[..., str | None]) -> Iterator[dict[str, Any]]:
    """The rows of a file of the release that can be used, read and checked as the conversion does."""
    rows = read_json(path)
    first = rows[0] if isinstance(rows[0], dict) else {}
    seen: dict[Any, int] = {}
    for number, row in enumerate(rows):
        if problem := problem_of(row, first, seen):
            found.wrong("rows that cannot be used", f"row {number} ({name_of(row)}): {problem}")
            continue
        seen[identifier_of(row)] = number
        yield row


def _repeated(seen: set[Any], value: Any, name: str, where: str, found: Findings) -> None:
    if value in seen:
        found.wrong(f"{name} that is there twice", f"{where}, {value}")
    seen.add(value)


def _known_answers(folder: Path, names: Collection[str]) -> tuple[str, set[str]] | None:
    """The name and answers of an answer list beside the file; None without one that can be read."""
    for name in names:
        if (path := folder / name).is_file():
            try:
                content = read_json(path)
            except InputError:  # it gets a report of its own
                return None
            answers = (
                {answer_of(entry) for entry in content if isinstance(answer_of(entry), str)}
                if isinstance(content, list | dict)
                else set()
            )
            return (name, answers) if answers else None
    return None


# --------------------------------------------------------------------------- the release's own files


def _questions(path: Path, found: Findings) -> None:
    found.kind = "questions of the LXMERT release"
    count = labelled = 0
    answers: Counter[str] = Counter()
    for row in _released(path, found, question_problem):
        count += 1
        found.images.add(row["img_id"])
        labelled += "label" in row
        answers.update(dict.fromkeys(row.get("label", ()), 1))
    found.fact("questions", count)
    found.fact("images", len(found.images))
    found.fact("with labels", labelled)
    if labelled:
        found.fact("distinct answers", len(answers))
        for answer in _outside(path.parent, ANSWER_LISTS, answers, found):
            found.wrong("answers that are not in the answer list", repr(answer))


def _outside(
    folder: Path,
    names: Collection[str],
    answers: Counter[str],
    found: Findings,
    spell: Callable[[str], str] = str,
) -> list[str]:
    """Note and return the answers that are not in the list beside the file, if any, as `spell` reads it."""
    known = _known_answers(folder, names)
    if known is None:
        return []
    listed = set(map(spell, known[1]))
    outside = [answer for answer in answers if answer not in listed]
    given = sum(answers[answer] for answer in outside)
    found.fact(f"answers outside {known[0]}", f"{len(outside):,}, given {given:,} times")
    return outside


def _statements(path: Path, found: Findings) -> None:
    found.kind = "statements of the LXMERT release"
    count = 0
    labels: Counter[Any] = Counter()
    for row in _released(path, found, statement_problem):
        count += 1
        found.images |= {row["img0"], row["img1"]}
        labels.update([row["label"]] if "label" in row else [])
    found.fact("statements", count)
    found.fact("images", len(found.images))
    found.fact("true / false", f"{labels[1]:,} / {labels[0]:,}" if labels else "without labels")


def _pretraining(path: Path, found: Findings) -> None:
    found.kind = "pre-training texts of the LXMERT release"
    sentences: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for number, row in enumerate(_rows(items, path)):
        try:
            for sentence in read_entry(path, number, row):
                sentences[sentence.source] += 1
                answers.update(map(canonical_answer, sentence.label))
        except InputError as error:
            found.wrong("entries that cannot be used", _short(error, path))
            continue
        _repeated(found.images, row["img_id"], "image", f"entry {number}", found)
    found.fact("images", len(found.images))
    found.fact("sentences", sentences.total())
    for source, count in sorted(sentences.items()):
        found.fact(f"sentences of {source}", count)
    if answers:
        found.fact("distinct answers", len(answers))
        # The original drops them too: a fact, not a problem.
        _outside(path.parent, [ANSWER_TABLE], answers, found)


# ------------------------------------------------------------------------------------- makers' files


def _official_questions(path: Path, found: Findings) -> None:
    found.kind = "official questions of VQA v2"
    found.subset = _subset(path)
    images: set[int] = set()
    rows = _checked(_rows(member, path, "questions"), path, "question", found, official_vqa.take_question)
    for where, _, (question, _, image) in rows:
        if question in found.asks:
            found.wrong("question_id that is there twice", f"{where}, {question}")
        found.asks[question] = image
        images.add(image)
    found.images = _coco_images(found.subset, images)
    found.fact("questions", len(found.asks), QUESTIONS.get(found.subset, ""))
    found.fact("images", len(images))


def _other_annotations(path: Path, found: Findings) -> bool:
    """Whether a file's annotations are FOIL's, which are looked into here; Unknown where they are boxes."""
    first = _first_fields(path, "annotations")
    if "bbox" in first:
        raise Unknown("boxes of COCO's images, which are read with the sentences about them")
    if "foil" in first:
        _probes(path, found)
    return "foil" in first


def _official_annotations(path: Path, found: Findings) -> None:
    if _other_annotations(path, found):
        return
    found.kind = "official annotations of VQA v2"
    found.subset = _subset(path)
    images: set[int] = set()
    answers: Counter[str] = Counter()
    without: list[str] = []
    others = 0
    rows = _checked(_rows(member, path, "annotations"), path, "annotation", found, official_vqa.take_annotation)
    for where, row, annotation in rows:
        if annotation.question in found.answers:
            found.wrong("question_id that is there twice", f"{where}, {annotation.question}")
        found.answers[annotation.question] = annotation.image
        images.add(annotation.image)
        others += annotation.groups[0] not in ("yes/no", "number", "other")
        if "multiple_choice_answer" not in row:
            without.append(where)
            continue
        usual = row["multiple_choice_answer"]
        if not isinstance(usual, str):
            found.wrong("multiple_choice_answer that is not a text", f"{where}, {shorten(usual)}")
        answers[usual if isinstance(usual, str) else shorten(usual)] += 1
    if answers:  # OK-VQA has none at all
        found.wrong_all("without multiple_choice_answer", without)
    if others:
        found.fact("answer types other than yes/no, number, other", others, 0)
    found.images = _coco_images(found.subset, images)
    found.fact("annotated questions", len(found.answers), QUESTIONS.get(found.subset, ""))
    found.fact("images", len(images))
    if known := _known_answers(path.parent, ANSWER_LISTS):
        inside = sum(count for answer, count in answers.items() if answer in known[1])
        found.fact(f"usual answer is in {known[0]}", f"{inside / max(answers.total(), 1):.0%}".replace("%", " %"))


def _official_captions(path: Path, found: Findings) -> None:
    if _other_annotations(path, found):
        return
    found.kind = "official captions of COCO"
    names: dict[int, str] = {}
    check = _fields(id=int, file_name=str)
    for where, _, (image, name) in _checked(_rows(member, path, "images"), path, "image", found, check):
        if image in names:
            found.wrong("image that is there twice", f"{where}, {image}")
        names[image] = Path(name).stem
    ids: set[int] = set()
    check = _fields(id=int, image_id=int, caption=str)
    for where, _, (number, image, _) in _checked(
        _rows(member, path, "annotations"), path, "annotation", found, check
    ):
        _repeated(ids, number, "caption id", where, found)
        if image not in names:
            found.wrong("captions of images that the file does not list", f"{where}, {image}")
    found.images = set(names.values())
    found.fact("captions", len(ids))
    found.fact("images", len(names))


def _gqa_questions(path: Path, found: Findings) -> None:
    found.kind = "official questions of GQA"
    ids: set[str] = set()
    answers: Counter[str] = Counter()
    balanced = 0
    without: list[str] = []
    for name, row in _rows(entries, path):
        _repeated(ids, name, "question id", "the file", found)
        try:
            _, image, answer, _ = official_gqa.take_question(
                row, (path, "question", name), isinstance(row, dict) and "answer" in row
            )
        except InputError as error:
            found.wrong("questions that cannot be used", _short(error, path))
            continue
        found.images.add(image)
        balanced += row.get("isBalanced") is True
        if answer is None:
            without.append(name)
        else:
            answers[answer] += 1
    if answers:  # a split for the server has none at all
        found.wrong_all("questions without an answer", without)
    found.fact("questions", len(ids))
    found.fact("balanced", balanced)
    found.fact("images", len(found.images))
    found.fact("with an answer", answers.total())
    # Unbalanced questions have answers that the balanced ones, which make the list, do not have.
    _outside(path.parent, ANSWER_LISTS, answers, found)


def _gqa_choices(path: Path, found: Findings) -> None:
    found.kind = "choices of GQA"
    count = 0
    for name, row in _rows(entries, path):
        count += 1
        lists = [row.get(field) for field in ("valid", "plausible")] if isinstance(row, dict) else [None]
        if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists):
            found.wrong("questions without the lists valid and plausible", f"{name}, {shorten(row)}")
    found.fact("questions", count)


def _scene_graphs(path: Path, found: Findings) -> None:
    found.kind = "scene graphs of GQA"
    objects = 0
    for name, row in _rows(entries, path):
        found.images.add(name)
        if isinstance(row, dict) and isinstance(row.get("objects"), dict):
            objects += len(row["objects"])
        else:
            found.wrong("images without an object of objects", f"{name}, {shorten(row)}")
    found.fact("images", len(found.images))
    found.fact("objects", objects)


def _gqa_infos(path: Path, found: Findings) -> None:
    found.kind = "object features of GQA, which image is where"
    found.region_images = {name for name, _ in _rows(entries, path)}
    found.fact("images", len(found.region_images))


def _official_statements(path: Path, found: Findings) -> None:
    found.kind = "official statements of NLVR2"
    ids: set[str] = set()
    labels: Counter[str] = Counter()
    for where, row in _rows(json_lines, path):
        try:
            statement = take_statement(row, where)
        except InputError as error:
            found.wrong("lines that cannot be used", _short(error, path))
            continue
        _repeated(ids, statement.identifier, "identifier", f"line {where[2]}", found)
        found.images |= {statement.left, statement.right}
        labels[statement.label] += 1
    found.fact("statements", len(ids))
    found.fact("images", len(found.images))
    found.fact("true / false", f"{labels['True']:,} / {labels['False']:,}")


def _visual_genome_images(path: Path, found: Findings) -> None:
    found.kind = "images of Visual Genome"
    ids: set[int] = set()
    coco = 0
    for where, row, image in _checked(_rows(items, path), path, "image", found, take_image):
        _repeated(ids, image, "image_id", where, found)
        try:
            coco += take_coco_id(row, (path, "image", image)) >= 0
        except InputError as error:
            found.wrong("images that cannot be used", _short(error, path))
    found.images = set(map(str, ids))
    found.fact("images", len(ids), 108_077)
    found.fact("of which also of COCO", coco)


def _visual_genome_regions(path: Path, found: Findings) -> None:
    found.kind = "region descriptions of Visual Genome"
    _visual_genome(path, found, "regions", "phrase", "phrases")


def _visual_genome_questions(path: Path, found: Findings) -> None:
    found.kind = "questions of Visual Genome"
    _visual_genome(path, found, "qas", "question", "questions")


def _visual_genome(path: Path, found: Findings, name: str, field: str, plural: str) -> None:
    ids: set[int] = set()
    count = blank = 0

    def check(row: Any, where: Where) -> tuple[int, list[Any]]:
        return take_image(row, where), take(row, where, **{name: list})[0]

    for where, _, (image, parts) in _checked(_rows(items, path), path, "row", found, check):
        _repeated(ids, image, "image id", where, found)
        for part in parts:
            count += 1
            try:
                blank += not is_text(take_text(part, (path, name, image), field))
            except InputError as error:
                found.wrong(f"{name} that cannot be used", _short(error, path))
    found.images = set(map(str, ids))
    found.fact("images", len(ids), 108_077)
    found.fact(plural, count)
    if blank:
        found.fact("blank ones, left out", blank)


def _subset(path: Path) -> str:
    """The `data_subtype` of an official VQA file, which names its image folder; empty where it is far inside."""
    named = re.search(r'"data_subtype"\s*:\s*"([^"]+)"', _head(path))
    return named[1].replace("test-dev", "test") if named else ""


def _coco_images(subset: str, images: set[int]) -> set[str]:
    """Ids as in COCO_train2014_000000458752, without the data set's name, which the files do not tell."""
    return {f"{subset}_{image:012d}" for image in images} if subset else set()


def _captions(path: Path, found: Findings) -> None:
    found.kind = "captions by image, VOLTA's" if path.suffix in LINES else "captions by image, Karpathy's"
    splits: Counter[str] = Counter()
    count = 0
    for split, (image, captions) in _rows(read_all_captions, path):
        found.images.add(image)
        splits[split] += 1
        count += len(captions)
    found.fact("captions, at most five an image", count)
    found.fact("images", len(found.images))
    if "" not in splits:
        found.fact("images by split", ", ".join(f"{name} {number:,}" for name, number in splits.items()))


def _probes(path: Path, found: Findings) -> None:
    found.kind = "sentences to tell apart"
    probes = read_probes(path)
    found.images = {image for probe in probes for image in probe.images}
    found.fact("examples that count", len(probes))
    found.fact("images", len(found.images))
    found.fact("pieces", ", ".join(dict.fromkeys(probe.piece for probe in probes)))


def _hateful_memes(path: Path, found: Findings) -> None:
    check_own(path, found, {"class": "label"})
    found.kind = "Hateful Memes"


# --------------------------------------------------------------------- answer lists and predictions


def _answer_table(path: Path, found: Findings) -> None:
    found.kind = "answer table of pre-training"
    answers: dict[str, int] = {}
    sources: Counter[str] = Counter()
    for number, entry in enumerate(_rows(items, path)):
        if problem := answer_problem(entry, answers):
            found.wrong("answers that cannot be used", f"answer {number}: {problem}")
            continue
        answers[answer_of(entry)] = number
        sources.update(entry.get("dsets", []) if isinstance(entry, dict) else [])
    found.fact("answers", len(answers), 9500)
    for name, count in sorted(sources.items()):
        found.fact(f"of {name}", count)


def _answer_list(path: Path, found: Findings) -> None:
    found.kind = "answer list"
    answers: dict[str, int] = {}
    for number, entry in enumerate(_rows(items, path)):
        if problem := answer_problem(entry, answers):
            found.wrong("answers that cannot be used", f"answer {number}: {problem}")
        else:
            answers[answer_of(entry)] = number
    found.fact("answers", len(answers), _answer_count(path))


def _answer_codes(path: Path, found: Findings) -> None:
    found.kind = "answer list, with each answer's number"
    answers: set[str] = set()
    numbers: set[int | str] = set()
    for answer, number in _rows(entries, path):
        _repeated(answers, answer, "answer", "the file", found)
        _repeated(numbers, number if type(number) is int else shorten(number), "number", repr(answer), found)
    if numbers != set(range(len(numbers))):
        found.wrong("numbers other than 0, 1, 2 ... without gaps")
    found.fact("answers", len(answers), _answer_count(path))


def _answer_count(path: Path) -> int | str:
    return next((n for name, n in {"vqa": 3129, "gqa": 1842}.items() if name in str(path.parent.name)), "")


def _vqa_predictions(path: Path, found: Findings) -> None:
    found.kind = "predictions for VQA v2"
    _predictions(path, found, "question_id", int, "answer")


def _gqa_predictions(path: Path, found: Findings) -> None:
    found.kind = "predictions for GQA"
    _predictions(path, found, "questionId", str, "prediction")


def _predictions(path: Path, found: Findings, id_name: str, id_type: type, answer: str) -> None:
    ids: set[Any] = set()
    answers: Counter[str] = Counter()
    for number, row in enumerate(_rows(items, path)):
        value = row.get(id_name) if isinstance(row, dict) else None
        if identifier_problem(value, id_type):
            what = "an integer" if id_type is int else "a text"
            found.wrong(f"{id_name} that is not {what}, as the server expects", f"row {number}, {shorten(value)}")
            continue
        _repeated(ids, value, id_name, f"row {number}", found)
        if isinstance(row.get(answer), str):
            answers[row[answer]] += 1
        else:
            found.wrong(f"{answer} that is not a text", f"row {number}, {shorten(row.get(answer))}")
    found.fact("predictions", len(ids))
    found.fact("distinct answers", len(answers))


def _statement_predictions(path: Path, found: Findings) -> None:
    found.kind = "predictions for NLVR2"
    ids: set[str] = set()
    labels: Counter[str] = Counter()
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, 1):
            identifier, _, label = line.strip().partition(",")
            if not identifier and not label:
                continue
            if not IDENTIFIER.fullmatch(identifier.strip()) or label.strip() not in ("True", "False"):
                found.wrong(
                    "lines other than identifier,True or identifier,False", f"line {number}, {shorten(line)}"
                )
                continue
            _repeated(ids, identifier.strip(), "identifier", f"line {number}", found)
            labels[label.strip()] += 1
    found.fact("predictions", len(ids))
    found.fact("true / false", f"{labels['True']:,} / {labels['False']:,}")


# --------------------------------------------------------------------------------------- text stores


def check_text_store(path: Path, found: Findings) -> None:
    """All images, answers and scores; texts and ids of about `SAMPLE` examples, evenly spaced."""
    found.kind = "text store"
    store = ExampleStore(path)
    images, answers = store.table("image"), store.table("answers")
    further = image_groups(store.groups)
    found.images = {*images, *(image for name in further for image in store.table(name))}
    found.fact("examples", len(store))
    found.fact("images", len(found.images))
    found.fact("distinct answers", len(answers) if store.labelled else "without labels")
    for name in sorted(set(store.groups) - {*further}):
        found.fact(f"distinct {name}", len(store.table(name)))
    if store.annotated:
        found.fact("annotators' answers", "known")
    scores = store.column("answer/score")
    if len(scores) and not (scores.min() > 0 and scores.max() <= 1):
        found.wrong("scores outside 0 to 1", f"{scores.min():.3g} to {scores.max():.3g}")
    sample = np.unique(np.linspace(0, len(store) - 1, min(SAMPLE, len(store))).astype(np.int64))
    found.fact("examples looked into", f"{len(sample):,} of {len(store):,}")
    ids: set[Any] = set()
    for start in range(0, len(sample), 20_000):
        rows = sample[start : start + 20_000]
        examples = store.read(rows)
        for number, identifier, text in zip(rows, examples.ids, examples.texts, strict=True):
            _repeated(ids, identifier, "id", f"example {number}", found)
            if not is_text(text):
                found.wrong("empty texts", f"example {number}, {identifier}")


# --------------------------------------------------------------------------------- sentences with boxes


def _referring(path: Path, found: Findings) -> None:
    found.kind = "sentences with the boxes of what they mean"
    _tell_referring(read_referring(path), found)


def _visual7w(path: Path, found: Findings) -> None:
    found.kind = "Visual7W's pointing questions"
    splits = read_visual7w(path)
    found.fact("questions by split", ", ".join(f"{name} {len(rows):,}" for name, rows in splits.items()))
    _tell_referring([row for rows in splits.values() for row in rows], found)


def _tell_referring(rows: Sequence[Referring], found: Findings) -> None:
    found.images = {row.image for row in rows}
    found.fact("sentences", len(rows))
    found.fact("images", len(found.images))


def _short(error: InputError, path: Path) -> str:
    """An error's message without what the report says anyway."""
    return re.sub(
        r"\.( Mend or remove that \w+\.| Get the file again\.)?$", "", str(error).removeprefix(f"{path}: ")
    )


PROBES = ({"caption", "foil"}, {"caption_0", "caption_1"})
HATEFUL_MEMES = {"id", "img", "label", "text"}
# What the first element of an object's list has -> what the file is.
BEGINNINGS: list[tuple[set[str], Check]] = [({"qa_pairs", "box_id"}, _visual7w), ({"sentences"}, _captions)]
# What the first row has, or which list the object has -> what the file is.
LISTS: list[tuple[set[str], Check]] = [
    ({"question_id", "img_id", "sent"}, _questions),
    ({"img0", "img1", "sent"}, _statements),
    ({"img_id", "sent", "box"}, _referring),
    ({"img_id", "sent", "size"}, _referring),  # to predict
    ({"img_id", "sentf"}, _pretraining),
    ({"question_id", "answer"}, _vqa_predictions),
    ({"questionId", "prediction"}, _gqa_predictions),
    ({"ans"}, _answer_table),
    ({"regions"}, _visual_genome_regions),
    ({"qas"}, _visual_genome_questions),
    ({"coco_id"}, _visual_genome_images),
]
MEMBERS: list[tuple[set[str], Check]] = [
    ({"questions"}, _official_questions),
    ({"annotations"}, _official_annotations),
    ({"images"}, _official_captions),
]
OBJECTS: list[tuple[set[str], Check]] = [
    ({"question", "imageId"}, _gqa_questions),
    ({"valid", "plausible"}, _gqa_choices),
    ({"caption", "foil", "mturk"}, _probes),
    ({"objects", "width", "height"}, _scene_graphs),
    ({"objectsNum", "idx", "file"}, _gqa_infos),
]
