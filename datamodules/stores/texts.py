"""The text store: sentences with their ids, images, answers and types, in columns of one HDF5 file.

There is no Python object per example: nine million sentences cost what their bytes cost, and all
processes share the memory-mapped pages. A column of strings is its UTF-8 bytes one after the other
(`<name>/bytes`, uint8) and where each string starts (`<name>/offsets`, one more than strings, int64);
repeated values are int32 codes into a table of strings (`tables/<name>`), -1 where unknown:

    text, id                       strings; attribute id_type says whether ids were int or str
    image                          (n,) codes into tables/image
    answer/offsets, code, score    the answers of example i are offsets[i]:offsets[i + 1]
    groups/<name>                  (n,) codes into tables/<name>, such as answer_type
    annotator_answers              (n, 10) codes into tables/annotator_answers
    numbers/<name>                 (n, k) float32, such as a box; attribute numbers: k by name, absent without any
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datamodules.stores.hdf5 import (
    LIBVER,
    REMAKE,
    Column,
    Source,
    StoreError,
    check_codes,
    check_column,
    check_offsets,
    is_current,
    map_dataset,
    map_datasets,
    open_store,
    read_attribute,
    read_attributes,
    sha256_of,
    write_attributes,
    writing,
)
from lxmert.files import parse_json, shorten

VERSION = 1
ANNOTATORS = 10  # answers per question in VQA v2


# ---------------------------------------------------------------------------------------- reading


@dataclass
class Examples:
    """Some examples of a store, R of them, in the order they were asked for.

    Args:
        texts: R sentences.
        ids: R identifiers, int or str as in the source.
        image: (R,) codes into the store's table "image".
        answer_counts: (R,) answers of each example.
        answers: (sum of answer_counts,) codes into the table "answers".
        scores: float32 beside `answers`.
        groups: name -> (R,) codes into the table of that name, -1 where unknown.
        annotator_answers: (R, 10) codes into the table "annotator_answers", None where unknown to the
            whole store.
        numbers: name -> (R, k) float32.
    """

    texts: list[str]
    ids: list[Any]
    image: np.ndarray
    answer_counts: np.ndarray
    answers: np.ndarray
    scores: np.ndarray
    groups: dict[str, np.ndarray]
    annotator_answers: np.ndarray | None
    numbers: dict[str, np.ndarray]


class ExampleStore:
    """Reads a text store. Pickles as its path, and maps the file anew in each process.

    Opening checks that the file is what it says: every dataset's place, type and shape, the order of offsets,
    and codes against their tables; 0.2 s for nine million examples. Not the texts and scores, which
    `python -m datamodules.validate` looks into; texts that are damaged are refused when they are read.

    Args:
        path: the HDF5 file.

    Raises:
        StoreError: not a text store of this version, or damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with open_store(self.path) as file:
            kind = tuple(str(read_attribute(file, name)) for name in ("format", "version"))
            if kind != ("examples", str(VERSION)):
                raise StoreError(f"{self.path}: not a text store of version {VERSION}. {REMAKE}")
            kinds = {"examples": int, "labelled": bool, "annotated": bool, "groups": str, "id_type": str}
            facts = read_attributes(file, kinds)
            numbers = read_attribute(file, "numbers") if "numbers" in file.attrs else "{}"
        self.num_examples: int = facts["examples"]
        self.labelled: bool = facts["labelled"]  # whether the source gives answers at all
        self.annotated: bool = facts["annotated"]  # whether the ten answers of some are known
        self.groups = _group_names(self.path, facts["groups"])
        self.numbers = _widths(self.path, numbers)  # name -> how many an example has
        self._int_ids = facts["id_type"] == "int"
        if self.num_examples < 0 or facts["id_type"] not in ("int", "str"):
            raise StoreError(
                f"{self.path}: its attributes tell of {self.num_examples} examples with ids of type "
                f"{shorten(facts['id_type'])}, expected 0 or more, int or str. {REMAKE}"
            )
        self._check()

    def __len__(self) -> int:
        return self.num_examples

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map is a copy of its bytes: send the header alone.
        return {key: value for key, value in vars(self).items() if key not in ("_mapped", "_columns")}

    def table(self, name: str) -> list[str]:
        """The strings that the codes of column `name` stand for ("image", "answers", a group ...)."""
        return self._strings(f"tables/{name}").all()

    def column(self, name: str) -> np.ndarray:
        """A whole memory-mapped column: "image", "answer/code", "groups/answer_type" ..."""
        column = self._mapped.get(name)
        return np.asarray(map_dataset(self.path, name) if column is None else column)

    def texts(self, indices: np.ndarray) -> list[str]:
        """The sentences at `indices`."""
        return self._columns.text.take(indices)

    def hashes(self, name: str) -> np.ndarray:
        """(n,) uint64 of the strings of the column "text" or "id"; of two that differ, alike once in 2 ** 50."""
        return self._strings(name).hashes()

    def image_codes(self, indices: np.ndarray) -> np.ndarray:
        """The codes of their images."""
        return self._columns.image[indices]

    def read(self, indices: np.ndarray) -> Examples:
        """The examples at `indices`, (R,) integers in 0..len-1, in any order, repeats allowed."""
        columns = self._columns
        ids = columns.id.take(indices)
        counts, flat = _spans(columns.answer_offsets, indices)
        return Examples(
            texts=columns.text.take(indices),
            ids=self._whole(ids) if self._int_ids else ids,
            image=columns.image[indices],
            answer_counts=counts,
            answers=columns.answer[flat],
            scores=columns.score[flat],
            groups={name: column[indices] for name, column in columns.groups.items()},
            annotator_answers=columns.annotators[indices] if columns.annotators is not None else None,
            numbers={name: column[indices] for name, column in columns.numbers.items()},
        )

    def _whole(self, ids: list[str]) -> list[int]:
        try:
            return [int(i) for i in ids]
        except ValueError as error:
            raise StoreError(
                f"{self.path}: an id is no whole number, as all should be ({error}). {REMAKE}"
            ) from None

    @cached_property
    def _mapped(self) -> dict[str, Column]:
        return map_datasets(self.path, [*_parts(("text", "id"), _STRINGS), *self._flat, *self._tables])

    @property
    def _flat(self) -> list[str]:
        named = [*(f"groups/{name}" for name in self.groups), *(f"numbers/{name}" for name in self.numbers)]
        return [*("image", "answer/offsets", "answer/code", "answer/score"), *named, *self._annotators]

    @property
    def _annotators(self) -> list[str]:
        return ["annotator_answers"] if self.annotated else []

    @property
    def _tables(self) -> list[str]:
        names = dict.fromkeys(["image", "answers", *self.groups, *self._annotators])
        return _parts([f"tables/{name}" for name in names], _STRINGS)

    @cached_property
    def _columns(self) -> _Columns:
        return _Columns(
            text=self._strings("text"),
            id=self._strings("id"),
            image=self.column("image"),
            answer_offsets=self.column("answer/offsets"),
            answer=self.column("answer/code"),
            score=self.column("answer/score"),
            groups={name: self.column(f"groups/{name}") for name in self.groups},
            annotators=self.column("annotator_answers") if self.annotated else None,
            numbers={name: self.column(f"numbers/{name}") for name in self.numbers},
        )

    def _strings(self, name: str) -> _Strings:
        return _Strings(self.path, name, self.column(f"{name}/bytes"), self.column(f"{name}/offsets"))

    # ------------------------------------------------------------------------------------ checking

    def _check(self) -> None:
        """Raise StoreError unless the datasets fit the number of examples, their tables and one another."""
        n = self.num_examples
        for name in ("text", "id"):
            self._check_strings(name, n)
        answers = self._mapped["answer/code"].shape[:1]
        check_column(self.path, "answer/code", self._mapped["answer/code"], np.int32, answers)
        check_column(self.path, "answer/score", self._mapped["answer/score"], np.float32, answers)
        check_column(self.path, "answer/offsets", self._mapped["answer/offsets"], np.int64, (n + 1,))
        check_offsets(self.path, "answer/offsets", self.column("answer/offsets"), *answers)
        self._check_codes("answer/code", "answers", answers, least=0)
        self._check_codes("image", "image", (n,), least=0)
        for name in self.groups:
            self._check_codes(f"groups/{name}", name, (n,))
        for name in self._annotators:
            self._check_codes(name, name, (n, ANNOTATORS))
        for name, width in self.numbers.items():
            self._check_numbers(f"numbers/{name}", (n, width))

    def _check_codes(self, name: str, table: str, shape: tuple[int, ...], least: int = -1) -> None:
        texts = math.prod(self._mapped[f"tables/{table}/offsets"].shape) - 1
        self._check_strings(f"tables/{table}", max(texts, 0))
        check_column(self.path, name, self._mapped[name], np.int32, shape)
        check_codes(self.path, name, self.column(name), least, texts)

    def _check_numbers(self, name: str, shape: tuple[int, int]) -> None:
        check_column(self.path, name, self._mapped[name], np.float32, shape)
        strange = np.flatnonzero(~np.isfinite(self.column(name)).all(1))
        if len(strange):
            raise StoreError(
                f"{self.path}: dataset '{name}' holds no number for example {strange[0]}, expected some. {REMAKE}"
            )

    def _check_strings(self, name: str, count: int) -> None:
        texts, offsets = (self._mapped[part] for part in _parts([name], _STRINGS))
        check_column(self.path, f"{name}/offsets", offsets, np.int64, (count + 1,))
        check_column(self.path, f"{name}/bytes", texts, np.uint8, texts.shape[:1] or (0,))
        check_offsets(self.path, f"{name}/offsets", self.column(f"{name}/offsets"), len(texts))


_STRINGS = ("bytes", "offsets")


def _parts(names: Iterable[str], parts: Sequence[str]) -> list[str]:
    return [f"{name}/{part}" for name in names for part in parts]


def _group_names(path: Path, text: str) -> tuple[str, ...]:
    names = parse_json(text.encode(), f"{path}: its attribute groups")
    usable = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    if not usable or len(set(names)) < len(names) or any(len(name) > 100 or "/" in name for name in names):
        raise StoreError(f"{path}: its attribute groups is {shorten(text)}, expected a list of names. {REMAKE}")
    return tuple(names)


def _widths(path: Path, text: str) -> dict[str, int]:
    widths = parse_json(text.encode(), f"{path}: its attribute numbers")
    usable = isinstance(widths, dict) and all(type(width) is int and width > 0 for width in widths.values())
    if not usable or any(not 0 < len(name) <= 100 or "/" in name for name in widths):
        raise StoreError(
            f"{path}: its attribute numbers is {shorten(text)}, expected name: how many an example has. {REMAKE}"
        )
    return widths


@dataclass
class _Columns:
    text: _Strings
    id: _Strings
    image: np.ndarray
    answer_offsets: np.ndarray
    answer: np.ndarray
    score: np.ndarray
    groups: dict[str, np.ndarray]
    annotators: np.ndarray | None
    numbers: dict[str, np.ndarray]


class _Strings:
    """A mapped column of strings."""

    def __init__(self, path: Path, name: str, texts: np.ndarray, offsets: np.ndarray) -> None:
        self.path, self.name, self.bytes, self.offsets = path, name, texts, offsets

    def take(self, indices: np.ndarray) -> list[str]:
        lengths, flat = _spans(self.offsets, indices)
        gathered = self.bytes[flat].tobytes()
        ends = np.cumsum(lengths)
        try:
            return [
                gathered[start:end].decode()
                for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True)
            ]
        except UnicodeDecodeError as error:
            raise StoreError(
                f"{self.path}: {shorten(error.object)} in dataset '{self.name}/bytes' is not UTF-8 text. {REMAKE}"
            ) from error

    def all(self) -> list[str]:
        return self.take(np.arange(len(self.offsets) - 1))

    def hashes(self) -> np.ndarray:
        """(n,) uint64: polynomials modulo 2 ** 64, of which the running sums of a flat column hold all."""
        offsets = np.array(self.offsets)  # in the file they may lie where a search would copy them each time
        result = np.empty(len(offsets) - 1, np.uint64)
        longest = int(np.diff(offsets).max(initial=0))
        powers, inverse = (_powers(base, _HASHED_AT_ONCE + longest) for base in (_BASE, pow(_BASE, -1, 2**64)))
        start = 0
        while start < len(result):
            first = offsets[start]
            end = min(int(np.searchsorted(offsets, first + _HASHED_AT_ONCE)), len(result))
            places = offsets[start : end + 1] - first
            sums = np.zeros(places[-1] + 1, np.uint64)
            letters = _LETTERS[self.bytes[first : first + places[-1]]]
            np.cumsum(letters * powers[: len(letters)], out=sums[1:])
            result[start:end] = np.diff(sums[places]) * inverse[places[:-1]]
            start = end
        return result


_BASE = 0x9E3779B97F4A7C15  # any odd number
_LETTERS = np.random.default_rng(0).integers(1, 2**64, 256, np.uint64)  # what a byte counts
_HASHED_AT_ONCE = 1 << 16  # bytes: what a processor has at hand


def _powers(base: int, most: int) -> np.ndarray:
    """(most + 1,) powers of `base` modulo 2 ** 64, from 0 on."""
    powers = np.full(most + 1, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, out=powers)


def _spans(offsets: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (R,) of the spans `indices` of a flattened column, and the flat places of all they hold."""
    starts = offsets[indices]
    lengths = offsets[np.asarray(indices) + 1] - starts
    before = np.cumsum(lengths) - lengths
    return lengths, np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)


# ---------------------------------------------------------------------------------------- writing


@contextmanager
def write_examples(
    path: Path | str,
    *,
    groups: Sequence[str] = (),
    numbers: Mapping[str, int] | None = None,
    labelled: bool = True,
    annotated: bool = False,
    sources: Sequence[Path] = (),
    made_with: str = "",
) -> Iterator[ExampleWriter]:
    """Write a text store in constant memory (plus the tables of distinct values), atomically.

    Args:
        path: the store.
        groups: names of the groups that `append` will be given.
        numbers: names of the numbers that it will be given, and how many of each an example has.
        labelled: whether the source gives answers.
        annotated: whether the ten annotators' answers are known.
        sources: the files it is made from; the first is the store's stamp.
        made_with: settings that it depends on beside its sources.

    Raises:
        StoreError: disk full, no permission.
    """
    path = Path(path)
    with writing(path) as temporary:
        folder = path.with_name(f".{path.name}.columns")
        shutil.rmtree(folder, ignore_errors=True)  # left by a process that was killed
        folder.mkdir()
        try:
            writer = ExampleWriter(folder, groups, annotated, numbers or {})
            yield writer
            writer.close()
            with h5py.File(temporary, "w", libver=LIBVER) as file:
                writer.assemble(file)
                facts = {"format": "examples", "version": VERSION, "labelled": labelled, "annotated": annotated}
                facts |= {"numbers": json.dumps(dict(numbers))} if numbers else {}
                write_attributes(file, facts | {"groups": json.dumps(list(groups)), "made_with": made_with})
                if sources:
                    stamp = Source.of(sources[0], sha256_of(sources[0])).attributes()
                    write_attributes(file, stamp | {"further_sources": _stamps(sources[1:])})
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class ExampleWriter:
    """Appends examples to the columns of a store; made by `write_examples`."""

    def __init__(self, folder: Path, groups: Sequence[str], annotated: bool, numbers: Mapping[str, int]) -> None:
        strings = ("text", "id")
        self.dtypes: dict[str, type] = {
            "image": np.int32,
            "answer/code": np.int32,
            "answer/score": np.float32,
        }
        self.dtypes |= {f"groups/{name}": np.int32 for name in groups}
        self.dtypes |= {"annotator_answers": np.int32} if annotated else {}
        self.dtypes |= {f"numbers/{name}": np.float32 for name in numbers}
        self._widths = {f"numbers/{name}": width for name, width in numbers.items()}
        self._widths |= {"annotator_answers": ANNOTATORS}
        self.dtypes |= {f"{name}/bytes": np.uint8 for name in strings}
        self.dtypes |= {f"{name}/offsets": np.int64 for name in (*strings, "answer")}
        self.tables: dict[str, dict[str, int]] = {name: {} for name in ("image", "answers", *groups)}
        self.tables |= {"annotator_answers": {}} if annotated else {}
        self.count = 0
        self.id_type = "int"
        self._paths = {name: folder / name.replace("/", "-") for name in self.dtypes}
        self._files = {name: path.open("wb") for name, path in self._paths.items()}
        self._ends = dict.fromkeys((*strings, "answer"), 0)
        for name in self._ends:
            self._write(f"{name}/offsets", [0])

    def append(
        self,
        *,
        texts: Sequence[str],
        ids: Sequence[int] | Sequence[str],
        images: Sequence[str],
        labels: Sequence[Mapping[str, float]],
        groups: Mapping[str, Sequence[str | None]],
        annotator_answers: Sequence[Sequence[str] | None] | None = None,
        numbers: Mapping[str, Sequence[Sequence[float]]] | None = None,
    ) -> None:
        """Append a chunk of examples: lists of equal length; None stands for an unknown value."""
        self.count += len(texts)
        self.id_type = "int" if all(isinstance(i, int) for i in ids) and self.id_type == "int" else "str"
        self._write_strings("text", texts)
        self._write_strings("id", [str(i) for i in ids])
        self._write("image", self._codes("image", images))
        self._write_offsets("answer", [len(label) for label in labels])
        self._write("answer/code", self._codes("answers", [answer for label in labels for answer in label]))
        self._write("answer/score", [score for label in labels for score in label.values()])
        for name, values in groups.items():
            self._write(f"groups/{name}", self._codes(name, values))
        if annotator_answers is not None:
            nobody = [None] * ANNOTATORS
            answers = [answer for ten in annotator_answers for answer in (ten or nobody)]
            self._write("annotator_answers", self._codes("annotator_answers", answers))
        for name, numerals in (numbers or {}).items():
            self._write(f"numbers/{name}", numerals)

    def close(self) -> None:
        """Flush the columns to disk."""
        for file in self._files.values():
            file.close()

    def assemble(self, file: h5py.File) -> None:
        """Copy the finished columns and the tables into the store, each contiguous."""
        for name, path in self._paths.items():
            dtype = np.dtype(self.dtypes[name])
            size = path.stat().st_size // dtype.itemsize
            width = self._widths.get(name)
            shape = (size // width, width) if width else (size,)
            dataset = file.create_dataset(name, shape, dtype)
            step = 1 << 20
            with path.open("rb") as column:
                for start in range(0, shape[0], step):
                    rows = min(step, shape[0] - start)
                    piece = np.fromfile(column, dtype, rows * (size // shape[0]))
                    dataset[start : start + rows] = piece.reshape(rows, *shape[1:])
        for name, table in self.tables.items():
            encoded = [text.encode() for text in table]
            file[f"tables/{name}/bytes"] = np.frombuffer(b"".join(encoded), np.uint8)
            file[f"tables/{name}/offsets"] = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        write_attributes(file, {"examples": self.count, "id_type": self.id_type})

    def _codes(self, name: str, values: Sequence[str | None]) -> list[int]:
        table = self.tables[name]
        return [-1 if value is None else table.setdefault(value, len(table)) for value in values]

    def _write_strings(self, name: str, texts: Sequence[str]) -> None:
        encoded = [text.encode() for text in texts]
        self._files[f"{name}/bytes"].write(b"".join(encoded))
        self._write_offsets(name, [len(text) for text in encoded])

    def _write_offsets(self, name: str, lengths: Sequence[int]) -> None:
        ends = self._ends[name] + np.cumsum(lengths, dtype=np.int64)
        self._write(f"{name}/offsets", ends)
        if len(ends):
            self._ends[name] = int(ends[-1])

    def _write(self, name: str, values: Any) -> None:
        self._files[name].write(np.asarray(values, self.dtypes[name]).tobytes())


def examples_are_current(store: Path, sources: Sequence[Path], made_with: str = "") -> bool:
    """Whether `store` was made from exactly these files as they are now, so set; see `hdf5.is_current`.

    The first is the question file, which may have been removed since; the others must be as they were.

    Raises:
        StoreError: the store is damaged.
    """
    if not is_current(store, sources[0]):
        return False
    if not sources[0].exists():
        return True
    with open_store(store) as file:
        same = "made_with" not in file.attrs or read_attribute(file, "made_with") == made_with
        return same and read_attribute(file, "further_sources") == _stamps(sources[1:])


def _stamps(sources: Sequence[Path]) -> str:
    return json.dumps([asdict(Source.of(source)) for source in sources])


# ----------------------------------------------------------------- the questions of the LXMERT release
