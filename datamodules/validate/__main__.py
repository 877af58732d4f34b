"""Look into data files and report on them: `python -m datamodules.validate PATH`.

PATH is a file or a folder: region files (stores, and what becomes one), texts (the LXMERT release's, the makers',
stores), answer lists and predictions. The report has counts, and statistics beside those of the original release.
It ends with the problems: broken or repeated rows, answers outside the list, boxes in another unit, features
unlike the original's; in a folder that has regions also images without them. Texts are read whole, regions by a
sample.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datamodules.formats.region_formats import NotConvertible, recognise
from datamodules.formats.rows import ENDINGS as TEXTS
from datamodules.stores import open_store, read_attribute
from datamodules.validate.findings import Findings
from datamodules.validate.regions import check_gqa_objects, check_region_store, check_regions
from datamodules.validate.texts import (
    Unknown,
    check_json,
    check_lines,
    check_own,
    check_text_store,
    looks_like_table,
)
from lxmert.files import InputError

ENDINGS = (*TEXTS, ".h5", ".hdf5")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; 0, or 1 when there are problems."""
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.validate", description="Look into data files and report on them."
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a file, or a folder of files")
    path: Path = parser.parse_args(arguments).path
    if not path.exists():
        print(f"error: {path}: no such file or folder. Check the path.", file=sys.stderr)
        return 1
    reports, others = validate(path)
    _print(path, reports, others)
    return 1 if not reports or any(report.problems for report in reports) else 0


def validate(path: Path) -> tuple[list[Findings], list[Path]]:
    """What is found in a file, or in all files of a folder that could be ours.

    Returns:
        Reports of the files, and the files that are of no kind we know. A file that was named itself is always
        reported on.
    """
    reports, others = [], []
    if path.is_dir() and (found := _check_folder(path)):
        reports.append(found)
    for file in _files(path):
        found = Findings(file)
        try:
            _check(file, found)
        except Unknown as error:
            if file != path:
                others.append(file)
                continue
            found.wrong(f"of no kind that is known here ({error})")
        except (InputError, OSError) as error:
            found.wrong(str(error).removeprefix(f"{file}: "))
        reports.append(found)
    if path.is_dir():
        _check_together(reports)
    return reports, others


def _check_folder(path: Path) -> Findings | None:
    """The report on a folder that is regions as a whole, such as npz files or an LMDB."""
    found = Findings(path)
    try:
        form = recognise(path)
        if form.source != path:
            return None  # a file in it, which is reported on by itself
    except InputError:
        return None
    try:
        check_regions(form, path, found)
    except (InputError, OSError) as error:
        found.wrong(str(error).removeprefix(f"{path}: "))
    return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    inside = (file for file in path.rglob("*") if file.name.endswith(ENDINGS) and file.is_file())
    return sorted(file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts))


def _check(file: Path, found: Findings) -> None:
    suffix = Path(file.name.removesuffix(".gz")).suffix
    if file.stat().st_size == 0:
        found.wrong("empty file")
    elif suffix in (".csv", ".tsv") and looks_like_table(file):
        check_own(file, found)
    elif suffix in (".h5", ".hdf5"):
        _check_store(file, found)
    elif suffix == ".tsv":
        check_regions(recognise(file), file, found)
    elif suffix == ".json":
        check_json(file, found)
    elif suffix in (".jsonl", ".csv", ".txt"):
        check_lines(file, found)
    else:
        raise Unknown(f"expected one of {', '.join(ENDINGS)}")


def _check_store(file: Path, found: Findings) -> None:
    with open_store(file) as store:
        names, kind, form = set(store), read_attribute(store, "kind"), read_attribute(store, "format")
    if str(kind) == "regions":
        check_region_store(file, found)
    elif str(form) == "examples":
        check_text_store(file, found)
    elif {"features", "bboxes"} <= names:
        check_gqa_objects(file, found)
    else:
        _check_foreign(file, found)


def _check_foreign(file: Path, found: Findings) -> None:
    """An HDF5 file that is none of ours."""
    try:
        form = recognise(file)
    except NotConvertible:
        raise
    except InputError as error:
        raise Unknown("HDF5, but neither a region store nor a text store nor region features") from error
    check_regions(form, file, found)


def _check_together(reports: Sequence[Findings]) -> None:
    """What only shows when the files are seen side by side."""
    regions = set().union(*(report.region_images for report in reports))
    if regions:
        # Official VQA files do not tell the name before train2014_000000458752.
        regions |= {image.partition("_")[2] for image in regions}
        for report in reports:
            lost = sorted(report.images - regions)
            report.wrong_all(f"images without regions in this folder (of {len(report.images):,})", lost)
    asked: dict[str, dict[int, int]] = {}
    answered: dict[str, dict[int, int]] = {}
    for report in reports:
        asked.setdefault(report.subset, {}).update(report.asks)
        answered.setdefault(report.subset, {}).update(report.answers)
    for report in reports:
        ask, answer = asked[report.subset], answered[report.subset]
        if ask and answer:
            report.wrong_all("annotations without a question", sorted(report.answers.keys() - ask.keys()))
            report.wrong_all("questions without an annotation", sorted(report.asks.keys() - answer.keys()))
            others = [question for question, image in report.asks.items() if answer.get(question, image) != image]
            report.wrong_all("questions whose annotation is of another image", others)


def _print(path: Path, reports: Sequence[Findings], others: Sequence[Path]) -> None:
    console = Console()
    table = Table(title=escape(str(path)))
    for title in ("file", "what", "found", "original"):
        table.add_column(title, overflow="fold")
    for report in reports:
        facts = [("", "kind", report.kind or "not recognised", ""), *(("", *fact) for fact in report.facts)]
        facts[0] = (_name(report.path, path), *facts[0][1:])
        for row in facts:
            table.add_row(*map(escape, row))
        table.add_section()
    if reports:
        console.print(table)
    if others:
        names = ", ".join(_name(file, path) for file in others[:5]) + (", ..." if len(others) > 5 else "")
        console.print(f"{len(others):,} other file(s), of no kind that is known here: {names}", markup=False)
    problems = [f"{_name(report.path, path)}: {problem}" for report in reports for problem in report.problems]
    if not reports:
        problems = [f"no files of a kind that is known here ({', '.join(ENDINGS)})"]
    console.print(f"{len(problems)} problem(s)" if problems else "no problems", style="bold")
    for problem in problems:
        console.print(f"- {problem}", markup=False, highlight=False)


def _name(file: Path, path: Path) -> str:
    return file.name if file == path else str(file.relative_to(path))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
