"""Score files: what a model gives each question's best answers, and the average of several models.

A score file is an .npz with question_id (n,) int or str, answer (n, top) indices into answers (A,), and their
probability (n, top), best first; and with the name of the task, where ids and answers do not tell it (`task_of`).
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lxmert.evaluate.scores import ScoringError, identifier_problem, some
from lxmert.evaluate.tasks import TASKS, Task, task_of
from lxmert.files import replacing, shorten

# Questions averaged at once: some 100 MB for a few files, whatever the split.
BLOCK = 16_384
MOST_UNPACKED = 1100  # bytes that a packed byte can become

ARRAYS = {  # kinds of numpy, dimensions, and both in words
    "question_id": ("iuU", 1, "integers or texts (n,)"),
    "answer": ("iu", 2, "integers (n, top)"),
    "probability": ("f", 2, "fractions (n, top)"),
    "answers": ("U", 1, "texts (A,)"),
}


@dataclass(frozen=True)
class Scores:
    """The content of a score file; `answers` are texts, `task` is empty where the rest tells it."""

    question_id: np.ndarray
    answer: np.ndarray
    probability: np.ndarray
    answers: np.ndarray
    task: str = ""

    def described_by(self) -> Task:
        """The task that they are of."""
        told = task_of(self.question_id.dtype.kind == "U", set(self.answers.tolist()))
        return TASKS[self.task] if self.task else told

    def best(self) -> dict[int | str, str]:
        """The first answer of each question."""
        return dict(zip(self.question_id.tolist(), self.answers[self.answer[:, 0]].tolist(), strict=True))

    def probabilities(self) -> dict[int | str, dict[str, float]]:
        """The probability of each answer of each question, best first."""
        rows = zip(
            self.question_id.tolist(), self.answers[self.answer].tolist(), self.probability.tolist(), strict=True
        )
        return {id_: dict(zip(answers, given, strict=True)) for id_, answers, given in rows}


def read_scores(path: Path) -> Scores:
    """A score file.

    Raises:
        ScoringError: not such a file, or its arrays do not fit each other.
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            arrays = {name: _read_array(file, f"{name}.npy") for name in ARRAYS}
            scores = Scores(**arrays, task=_read_task(file))
    except (ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise ScoringError(
            f"{path}: not a score file ({shorten(str(error))}), expected an .npz of question_id, answer, "
            "probability and answers. Write the file anew."
        ) from error
    problem = _problem(scores)
    if problem:
        raise ScoringError(f"{path}: {problem}. Write the file anew.")
    return scores


def _read_task(archive: zipfile.ZipFile) -> str:
    if "task.npy" not in archive.namelist():
        return ""
    task = _read_array(archive, "task.npy")
    if task.dtype.kind != "U" or task.size != 1 or not _are_characters(task) or task.item() not in ("", *TASKS):
        raise ValueError(f"its task is {task.tolist()}, expected one of {', '.join(TASKS)}")
    return str(task.item())


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an .npz; ValueError where its size or type, looked at before it is unpacked, are off."""
    member = archive.getinfo(name)
    if member.header_offset < 0:
        raise ValueError(f"{name} is said to be before the file's beginning")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed in another way than numpy packs")
    if member.file_size > MOST_UNPACKED * member.compress_size:
        raise ValueError(f"{name} says it unpacks to {member.file_size:,} bytes, of {member.compress_size:,}")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"{name} is an array of version {version}")
        shape, in_columns, dtype = read_header[version](file)
        if dtype.kind not in "iufU" or not all(size >= 0 for size in shape):
            raise ValueError(f"{name} is an array {shape} of {dtype}, expected numbers or texts")
        size = math.prod(shape) * dtype.itemsize
        if size != member.file_size - file.tell():
            raise ValueError(f"{name} holds {member.file_size - file.tell():,} bytes, its header says {size:,}")
        content = file.read(size)
    if len(content) != size:
        raise ValueError(f"{name} is cut off")
    array = np.ndarray(shape, dtype, content, order="F" if in_columns else "C")
    return np.ascontiguousarray(array.astype(dtype.newbyteorder("="), copy=False))


def write_scores(path: Path, scores: Scores) -> None:
    """Write a score file atomically."""
    content = {name: value for name, value in vars(scores).items() if name in ARRAYS or value}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **content)


def average_scores(files: Mapping[str, Scores]) -> Scores:
    """The mean probability of each answer of each question over `files`, matched by question and text.

    An answer that a file does not list for a question counts as 0 there. As many answers are kept as the
    longest list has; of equal ones, that which the first files name earlier comes first.

    Args:
        files: name, for messages -> scores; at least one.

    Raises:
        ScoringError: the files are not about the same questions, or not of the same task.
    """
    first, *_ = files.values()
    tasks = {scores.task: name for name, scores in files.items() if scores.task}
    if len(tasks) > 1:
        told = ", ".join(f"{name} of {task}" for task, name in tasks.items())
        raise ScoringError(f"the score files are of several tasks: {told}. Average files of one split.")
    orders = [_same_order(*item, *next(iter(files.items()))) for item in files.items()]
    texts: dict[str, int] = {}
    translations = [
        np.array([texts.setdefault(text, len(texts)) for text in scores.answers.tolist()])
        for scores in files.values()
    ]
    top = max(scores.answer.shape[1] for scores in files.values())
    parts = []
    for start in range(0, len(first.question_id), BLOCK):
        answers, probabilities = [], []
        for scores, order, translation in zip(files.values(), orders, translations, strict=True):
            rows = order[start : start + BLOCK]
            answers.append(translation[scores.answer[rows]])
            probabilities.append(scores.probability[rows].astype(np.float64) / len(files))
        parts.append(_best_sums(np.concatenate(answers, 1), np.concatenate(probabilities, 1), top))
    return Scores(
        first.question_id,
        np.concatenate([answer for answer, _ in parts]).astype(np.int32),
        np.concatenate([probability for _, probability in parts]).astype(np.float32),
        np.array(list(texts)),
        next(iter(tasks), ""),
    )


def _problem(scores: Scores) -> str | None:
    for name, (kinds, dimensions, expected) in ARRAYS.items():
        array = getattr(scores, name)
        if array.dtype.kind not in kinds or array.ndim != dimensions:
            return f"{name} is {array.dtype} {array.shape}, of another kind than {expected}"
        if array.dtype.kind == "U" and not _are_characters(array):
            return f"{name} holds what is no character"
    number, shape = len(scores.question_id), scores.answer.shape
    if shape != scores.probability.shape or shape[0] != number or 0 in shape:
        return f"{number} questions, answer {shape} and probability {scores.probability.shape} do not fit"
    kind = str if scores.question_id.dtype.kind == "U" else int
    for id_ in scores.question_id.tolist():
        if problem := identifier_problem(id_, kind):
            return f"question_id {shorten(id_)}: {problem}"
    if scores.answer.min() < 0 or scores.answer.max() >= len(scores.answers):
        return f"answer has indices outside the list of {len(scores.answers)} answers"
    if not np.isfinite(scores.probability).all():
        return "probability holds NaN or infinity"
    if scores.probability.min() < 0 or scores.probability.max() > 1.001:  # of half precision, too
        return (
            f"probability is from {scores.probability.min():.3g} to {scores.probability.max():.3g}, not in 0 to 1"
        )
    if len(np.unique(scores.answers)) < len(scores.answers):
        return "an answer text occurs twice in answers"
    if (np.diff(np.sort(scores.answer, 1), axis=1) == 0).any():
        return "a question lists the same answer twice"
    ids, counts = np.unique(scores.question_id, return_counts=True)
    if (counts > 1).any():
        return f"question ids occur twice: {some(ids[counts > 1].tolist(), 5)}"
    return None


def _are_characters(texts: np.ndarray) -> bool:
    codes = np.frombuffer(texts.tobytes(), np.uint32)
    return not ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))).any()


def _same_order(name: str, scores: Scores, first_name: str, first: Scores) -> np.ndarray:
    """Where in `scores` each question of `first` is."""
    kinds = [ids.dtype.kind == "U" for ids in (scores.question_id, first.question_id)]
    if kinds[0] != kinds[1]:
        raise ScoringError(f"{name}: question ids are {scores.question_id.dtype}, not as in {first_name}")
    absent = np.setdiff1d(first.question_id, scores.question_id).tolist()
    added = np.setdiff1d(scores.question_id, first.question_id).tolist()
    if absent or added:
        raise ScoringError(
            f"{name}: not about the questions of {first_name}. It lacks {len(absent)} ({some(absent, 5)}) and has "
            f"{len(added)} others ({some(added, 5)}). Average files of one split."
        )
    order = np.empty(len(first.question_id), np.int64)
    order[np.argsort(first.question_id)] = np.argsort(scores.question_id)
    return order


def _best_sums(answer: np.ndarray, probability: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top` answers of each row with the largest sums of probability over their repeats."""
    order = np.argsort(answer, axis=1, kind="stable")
    answer, probability = np.take_along_axis(answer, order, 1), np.take_along_axis(probability, order, 1)
    new = np.ones(answer.shape, bool)
    new[:, 1:] = answer[:, 1:] != answer[:, :-1]
    sums = np.full(answer.shape, -1.0)  # repeats come last
    sums[new] = np.add.reduceat(probability.ravel(), np.flatnonzero(new))
    best = np.argsort(-sums, axis=1, kind="stable")[:, :top]
    return np.take_along_axis(answer, best, 1), np.take_along_axis(sums, best, 1)
