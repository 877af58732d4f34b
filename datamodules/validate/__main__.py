"""Look into data files and report on them: `python -m datamodules.validate PATH`.

PATH is the experiment of a data set of your own (own/experiment/mine.yaml), for its texts by its columns and its
regions; or a file or a folder: region files (stores, and what becomes one), texts (the LXMERT release's, the
makers', captions, probing sets, stores), answer lists and predictions. The report has counts, and statistics
beside those of the original release. It ends with the problems: broken or repeated rows, answers outside the
list, boxes in another unit, features unlike the original's; in a folder that has regions also images without
them. Texts are read whole, regions by a sample.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from yaml import YAMLError

from datamodules.formats.captions import LINES
from datamodules.formats.own import ANSWER_LIST
from datamodules.formats.region_formats import NotConvertible, recognise
from datamodules.formats.rows import ENDINGS as TEXTS
from datamodules.layout import spellings
from datamodules.stores import open_store, read_attribute
from datamodules.validate.findings import Findings
from datamodules.validate.regions import check_gqa_objects, check_region_store, check_regions
from datamodules.validate.texts import (
    Unknown,
    check_json,
    check_lines,
    check_of_table,
    check_own,
    check_text_store,
)
from lxmert.files import InputError

ENDINGS = (*dict.fromkeys((*TEXTS, *LINES)), ".h5", ".hdf5")
EXPERIMENTS = (".yaml", ".yml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; 0, or 1 when there are problems."""
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.validate", description="Look into data files and report on them."
    )
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="a file, a folder of files, or the experiment of your own data"
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="of an experiment: paths.data (data)")
    options = parser.parse_args(arguments)
    path: Path = options.path
    if not path.exists():
        print(f"error: {path}: no such file or folder. Check the path.", file=sys.stderr)
        return 1
    try:
        reports, others = validate(path, options.data)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _print(options.data if path.suffix in EXPERIMENTS else path, reports, others)
    return 1 if not reports or any(report.problems for report in reports) else 0


def validate(path: Path, data: Path = Path("data")) -> tuple[list[Findings], list[Path]]:
    """What is found in a file, in all files of a folder that could be ours, or in those of an experiment.

    Args:
        path: of either; an experiment is a yaml.
        data: the data folder of an experiment.

    Returns:
        Reports of the files, and the files that are of no kind we know. A file that was named itself is always
        reported on.

    Raises:
        InputError: the experiment is not of data of one's own, or its texts are not there.
    """
    reports, others = [], []
    if path.is_dir() and (found := _check_folder(path)):
        reports.append(found)
    experiment = path.suffix in EXPERIMENTS
    files = own_files(path, data) if experiment else dict.fromkeys(_files(path))
    for file, columns in files.items():
        found = Findings(file)
        try:
            _check(file, found) if columns is None else check_own(file, found, columns)
        except Unknown as error:
            if file != path:
                others.append(file)
                continue
            found.wrong(f"of no kind that is known here ({error})")
        except (InputError, OSError) as error:
            found.wrong(str(error).removeprefix(f"{file}: "))
        reports.append(found)
    if path.is_dir() or experiment:
        _check_together(reports)
    if experiment:  # a data set's own files, any of which may have any of its images
        _check_once(reports)
    return reports, others


def own_files(experiment: Path, data: Path) -> dict[Path, Mapping[str, str] | None]:
    """The files of a data set of one's own: texts, each with its columns, an answer list, regions.

    Raises:
        InputError: as of `validate`.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(experiment))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"{experiment}: no YAML: {error}") from error
    given = content.get("data") if isinstance(content, dict) else None
    if not isinstance(given, dict) or not isinstance(given.get("folder"), str):
        raise InputError(f"{experiment}: no data.folder; expected what `python -m datamodules.init` writes.")
    from datamodules.release import own_folder  # torch is loaded for this alone

    folder, columns = given["folder"], {what: name for what, name in (given.get("columns") or {}).items() if name}
    release = own_folder(data, None, folder, given.get("region_folder", f"{folder}_imgfeat"), columns)
    if not release.splits():
        raise InputError(f"{data / folder}: no texts. Where paths.data is another folder, name it with --data.")
    files: dict[Path, Mapping[str, str] | None] = {}
    for split in release.splits():
        text = release.text_file(split)
        files |= {text: columns} if text.exists() else {release.text_store(split): None}
    regions = [(data / f"{name}.tsv", release.region_store(name)) for name in release.region_files()]
    further = [data / folder / ANSWER_LIST, *(file if file.exists() else store for file, store in regions)]
    return files | {file: None for file in further if file.exists()}


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
    elif suffix in (".csv", ".tsv") and (check := check_of_table(file)):
        check(file, found)
    elif suffix in (".h5", ".hdf5"):
        _check_store(file, found)
    elif suffix == ".tsv":
        check_regions(recognise(file), file, found)
    elif suffix == ".json":
        check_json(file, found)
    elif suffix in (*LINES, ".csv", ".txt"):
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
            spelt = zip(*spellings(sorted(report.images)), strict=True)
            lost = [image for image, *others in spelt if not regions & {image, *others}]
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


def _check_once(reports: Sequence[Findings]) -> None:
    """Images that are asked about and that two files have regions of."""
    asked = {name for report in reports for names in spellings(sorted(report.images)) for name in names}
    seen: set[str] = set()
    for report in reports:
        report.wrong_all(
            "images that another file has regions of too", sorted(report.region_images & seen & asked)
        )
        seen |= report.region_images


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
