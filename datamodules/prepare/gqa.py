"""GQA: the makers' questions -> text stores and the answer list."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datamodules.formats.checks import no_repeat, take
from datamodules.formats.json_stream import entries
from datamodules.formats.official_gqa import TYPES, take_question
from datamodules.prepare.preparation import Counts, Preparation, shown
from datamodules.stores import writing_rows
from lxmert.files import InputError, write_text

MAKERS = {"train": "train", "valid": "val", "testdev": "testdev", "submit": "submission"}
LABELLED = ("train", "valid", "testdev")
LISTED = ("train", "valid")  # whose answers make the answer list


def prepare_gqa(preparation: Preparation, splits: Sequence[str], unbalanced: bool) -> None:
    """Make `gqa/{train,valid,testdev,submit}.h5`, and the answer list where there is none.

    The first three are the balanced questions; submit is all questions of the makers' submission file, without
    answers. The list is `gqa/trainval_label2ans.json` in the data folder: the answers to the balanced questions
    of train and valid, both where one of them is made.

    Args:
        preparation: of the task "gqa".
        splits: of train, valid, testdev and submit.
        unbalanced: also make `{train,valid,testdev}_all.h5` of all questions, which consistency needs, with the
            group "balanced" (yes or no). The 14 million of train_all take 1.5 GB of memory.

    Raises:
        FileNotFoundError, InputError: files are missing, broken or have a question twice.
    """
    stores = {split: f"{MAKERS[split]}_{'all' if split == 'submit' else 'balanced'}_questions" for split in splits}
    if unbalanced:
        stores |= {f"{split}_all": f"{MAKERS[split]}_all_questions" for split in splits if split in LABELLED}
    answers = preparation.root / "gqa" / "trainval_label2ans.json"
    listed: dict[str, str] = {}
    if set(LISTED) & set(splits) and not answers.exists():
        listed = {
            f"{MAKERS[split]}_balanced_questions.json": f"questions of {split}, for the answer list"
            for split in LISTED
        }
    folders = [name for name in stores.values() if preparation.search([name])]  # a folder of chunks is no .json
    wanted = {
        name if name in folders else f"{name}.json": f"questions of {store}" for store, name in stores.items()
    }
    files = preparation.find(wanted | listed)
    for store, name in stores.items():
        source = files[name] if name in folders else files[f"{name}.json"]
        chunks = _chunks(source)
        groups = () if store == "submit" else (*TYPES, "balanced") if store.endswith("_all") else TYPES
        preparation.make([store], chunks, lambda path, c=chunks, g=groups: [_convert(c, path, g)])
        if store in ("train", "valid") and preparation.states[store] == "made":
            _check_choices(preparation, store, chunks)
    if listed:
        _make_answers(answers, [files[name] for name in listed])
        preparation.notes.append(f"{answers}: made from the balanced questions of {' and '.join(LISTED)}.")


def _chunks(source: Path) -> list[Path]:
    """The file itself, or the files of a folder by their numbers."""
    if source.is_file():
        return [source]
    files = sorted(source.glob("*.json"), key=lambda file: [int(n) for n in re.findall(r"\d{1,9}", file.stem)])
    if not files:
        raise InputError(f"{source}: no .json file in this folder. Get GQA's questions again.")
    return files


def _convert(chunks: Sequence[Path], store: Path, groups: Sequence[str]) -> Counts:
    seen: set[str] = set()
    with writing_rows(store, sources=chunks, groups=groups, labelled=bool(groups)) as rows:
        for identifier, question, where in _read(chunks):
            no_repeat(seen, identifier, where)
            text, image, answer, values = take_question(question, where, labelled=bool(groups))
            if "balanced" in groups:
                values.append("yes" if take(question, where, isBalanced=bool)[0] else "no")
            rows.add(text, identifier, image, {} if answer is None else {answer: 1.0}, values)
    return rows.counts()


def _read(chunks: Sequence[Path]) -> Iterator[tuple[str, Any, tuple[Path, str, str]]]:
    """Id, question and where it is, of each question of all chunks."""
    for file in chunks:
        for identifier, question in shown(entries, file):
            yield identifier, question, (file, "question", identifier)


def _make_answers(path: Path, files: Sequence[Path]) -> None:
    """Write the list of all answers of these questions, most frequent first."""
    counts = Counter(take(question, where, answer=str)[0] for _, question, where in _read(files))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(sorted(counts, key=lambda answer: (-counts[answer], answer))))


def _check_choices(preparation: Preparation, store: str, chunks: Sequence[Path]) -> None:
    """Note which balanced questions have no choices: those cannot be scored for validity and plausibility."""
    name = f"{MAKERS[store]}_choices.json"
    there = preparation.search([name])
    if name not in there:
        preparation.notes.append(f"{name} is not there: no validity and plausibility of {store}.")
        return
    chosen = {identifier for identifier, _ in shown(entries, there[name])}
    without = [identifier for identifier, _, _ in _read(chunks) if identifier not in chosen]
    if without:
        preparation.notes.append(
            f"{there[name]}: {len(without):,} questions of {store} have no choices, the first being {without[0]}."
        )
