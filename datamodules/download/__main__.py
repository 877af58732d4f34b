"""Fetch the data sets and weights: the files of `downloads.yaml`, from the first server that has them.

python -m datamodules.download {vqa,gqa,nlvr2,pretrain,weights} [FILE ...] [--to data] [--list]

A file is written beside its place as `NAME.part` and renamed when its size and hash are right, so what has its
name is whole. A run that ends early is continued by the next from where it was; what is there is not fetched
again.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import logging
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from datamodules.download.fetching import (
    DownloadError,
    Expected,
    NoFile,
    fetch_from,
    is_page,
    looks_like_json,
    part_of,
    remove,
    require_space,
    size_of,
    size_text,
)
from datamodules.download.unpacking import unpack
from datamodules.progress import progress_bar
from datamodules.stores import StoreError, locked, publish, sha256_of
from lxmert.files import InputError, fetch, read_json, write_text

LIST = Path(__file__).with_name("downloads.yaml")
SETS = ("vqa", "gqa", "nlvr2", "pretrain", "weights")
HUB_FILES = (["config.json"], ["vocab.txt"], ["model.safetensors", "pytorch_model.bin"])
RECORD = "downloads.json"  # in the data folder: what was got, with its hash
MOST_UNKNOWN = 4_000_000_000  # bytes of a file whose size the list does not tell
MOST_OF_AN_ERROR = 1 << 16


# ----------------------------------------------------------------------------------------- the list


@dataclass(frozen=True)
class Download:
    """One file of a server.

    Args:
        urls: its addresses, to be tried in order.
        targets: what becomes of it below the data folder: itself, or what is taken out of an archive.
        unpack: whether it is an archive.
        size: bytes; None where unknown.
        exact: whether `size` is to be checked.
        unpacked: bytes of the targets; None where unknown.
        sha256: hexadecimal digest; empty where unknown.
        extra: only fetched when named.
        by_hand: what to do when no server answers; may be empty.
    """

    urls: tuple[str, ...]
    targets: tuple[str, ...]
    unpack: bool
    size: int | None
    exact: bool
    unpacked: int | None
    sha256: str
    extra: bool
    by_hand: str

    @property
    def name(self) -> str:
        """Its name at the servers."""
        return PurePosixPath(urlsplit(self.urls[0]).path).name

    def path(self, folder: Path) -> Path:
        """Where it lies in the data folder while, or once, it is whole."""
        first = folder / self.targets[0]
        return first.with_name(self.name) if self.unpack else first

    def expected(self) -> Expected:
        """What may come: stated sizes are rounded, and some are of two files together."""
        if self.size is None:
            least, most, text = 1, MOST_UNKNOWN, f"1 B to {size_text(MOST_UNKNOWN)}"
        elif self.exact:
            least, most, text = self.size, self.size, f"{self.size:,}"
        else:
            least, most, text = self.size // 10, 2 * self.size, f"about {size_text(self.size)}"
        return Expected(least, most, text, self.name.endswith(".json"), bool(self.sha256))

    def missing(self, folder: Path) -> list[str]:
        """The targets that are not there."""
        return [target for target in self.targets if not (folder / target).exists()]


@dataclass(frozen=True)
class HubRepository:
    """Weights of the Hugging Face hub, which the hub's library fetches into its own cache."""

    name: str
    size: int


def read_list(name: str, path: Path = LIST) -> tuple[list[Download], list[HubRepository]]:
    """The files and hub repositories of the set `name`."""
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    downloads = [
        Download(
            urls=tuple(f"{base}/{entry['path']}" for base in content["servers"][entry["server"]]),
            targets=tuple(entry.get("unpack") or [entry["to"]]),
            unpack="unpack" in entry,
            size=entry.get("bytes") or _bytes(entry.get("gb")),
            exact="bytes" in entry,
            unpacked=_bytes(entry.get("unpacked")),
            sha256=entry.get("sha256", ""),
            extra=entry.get("extra", False),
            by_hand=content.get("by_hand", {}).get(entry["server"], ""),
        )
        for entry in content["files"]
        if name in entry["for"]
    ]
    hub = [
        HubRepository(e["repository"], _bytes(e["gb"]) or 0) for e in content.get("hub", []) if name in e["for"]
    ]
    return downloads, hub


def _bytes(gb: float | None) -> int | None:
    return None if gb is None else int(gb * 1e9)


def choose(downloads: Sequence[Download], patterns: Sequence[str]) -> list[Download]:
    """Those whose name or a target fits one of the patterns; without patterns all but the extra ones.

    Raises:
        DownloadError: a pattern fits nothing.
    """
    if not patterns:
        return [download for download in downloads if not download.extra]
    chosen = []
    for pattern in patterns:
        found = [d for d in downloads if any(fnmatch.fnmatch(name, pattern) for name in (d.name, *d.targets))]
        if not found:
            raise DownloadError(f"no file called {pattern} in this set. --list shows them all.")
        chosen += [download for download in found if download not in chosen]
    return chosen


# ------------------------------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None, path: Path = LIST) -> int:
    """Fetch what is missing, or list it; 0 when everything is there, 1 with what failed, and why."""
    options = _parser().parse_intermixed_args(arguments)  # FILEs may follow options
    try:
        downloads, hub = read_list(options.set, path)
        if options.list:
            listed = choose(downloads, options.files) if options.files else downloads
            _print_list(options.set, listed, [] if options.files else hub, options.to)
            return 0
        failures = download(choose(downloads, options.files), options.to)
        failures += [] if options.files else _fetch_hub(hub)
    except (DownloadError, StoreError) as error:
        failures = [str(error)]
    except KeyboardInterrupt:
        failures = ["stopped"]
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if failures:
        print("What was fetched is kept: run the same command again to go on.", file=sys.stderr)
    return 1 if failures else 0


def download(downloads: Sequence[Download], folder: Path) -> list[str]:
    """Fetch what is missing of these into the data folder.

    One process at a time; another one waits and then finds the files there.

    Returns:
        What could not be had, as messages; the others are fetched nevertheless.

    Raises:
        DownloadError: too little free disk space, or a damaged record of former downloads.
        StoreError: the folder cannot be written.
    """
    failures = []
    with locked(folder / "download"), _disk_errors(folder):
        record = _read_record(folder)
        failures += [problem for one in downloads for problem in _changed(one, folder, record)]
        for one in downloads:
            archive = one.path(folder)
            # A run killed before it had removed what it had unpacked. Others' archives are not ours to remove.
            if one.unpack and not one.missing(folder) and archive.relative_to(folder).as_posix() in record:
                archive.unlink(missing_ok=True)
        missing = [one for one in downloads if one.missing(folder)]
        _check_space(missing, folder)
        for number, one in enumerate(missing, 1):
            try:
                with _disk_errors(folder):
                    _get(one, folder, f"{number}/{len(missing)} {one.name}")
            except DownloadError as error:
                failures.append(str(error))
    return failures


def _fetch_hub(repositories: Sequence[HubRepository]) -> list[str]:
    failures = []
    for repository in repositories:
        try:
            for names in HUB_FILES:
                fetch(repository.name, names)
        except FileNotFoundError as error:
            failures.append(str(error))
    return failures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.download", description="Fetch the files of a data set, or weights."
    )
    parser.add_argument("set", choices=SETS)
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="only these, by a name of --list; * and ? stand for other letters"
    )
    parser.add_argument("--to", type=Path, default=Path("data"), metavar="FOLDER", help="the data folder (data)")
    parser.add_argument("--list", action="store_true", help="show files and sizes; asks no server")
    return parser


def _print_list(title: str, downloads: Sequence[Download], hub: Sequence[HubRepository], folder: Path) -> None:
    table = Table(title=f"{title}, into {folder}")
    for column in ("file", "fetched as", "size", "unpacked", "here", "from"):
        table.add_column(column, justify="right" if column in ("size", "unpacked") else "left", overflow="fold")
    for one in downloads:
        more = f" and {len(one.targets) - 1} more" if len(one.targets) > 1 else ""
        hosts = dict.fromkeys(urlsplit(url).hostname or "" for url in one.urls)
        table.add_row(
            one.targets[0] + more + (" (only when named)" if one.extra else ""),
            one.name,
            size_text(one.size),
            size_text(one.unpacked) if one.unpack else "",
            _state(one, folder),
            ", ".join(hosts),
        )
    for repository in hub:
        table.add_row(repository.name, "the hub's cache", size_text(repository.size), "", "", "huggingface.co")
    table.add_section()
    counted = [one for one in downloads if not one.extra]
    table.add_row(
        "together",
        "",
        size_text(sum(one.size or 0 for one in counted) + sum(repository.size for repository in hub)),
        size_text(sum(one.unpacked or 0 for one in counted if one.unpack)),
        "",
        f"{sum(one.size is None for one in counted)} of unknown size not counted",
    )
    console = Console()
    console.print(table)
    for text in dict.fromkeys(one.by_hand for one in downloads if one.by_hand):
        console.print(text, highlight=False)


def _state(one: Download, folder: Path) -> str:
    missing = len(one.missing(folder))
    if not missing:
        return "yes"
    if missing < len(one.targets):
        return f"{len(one.targets) - missing} of {len(one.targets)}"
    if one.path(folder).exists():
        return "not unpacked"
    part = size_of(part_of(one.path(folder)))
    return f"{size_text(part)} of it" if part else "no"


# --------------------------------------------------------------------------------------- disk space


def _check_space(missing: Sequence[Download], folder: Path) -> None:
    """An archive is removed once it is unpacked, so what counts is the highest sum on the way."""
    kept = peak = 0
    for one in missing:
        part, whole = size_of(part_of(one.path(folder))), size_of(one.path(folder))
        fetched = 0 if whole else max((one.size or 0) - part, 0)
        # An archive's content is no smaller than the archive.
        content = (one.unpacked or one.size or whole) if one.unpack else 0
        peak = max(peak, kept + fetched + content)
        kept += content - part - whole if one.unpack else fetched
    require_space(folder, peak, f"{len(missing)} file(s), unpacked")


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # those of the network have become messages by then
        where = error.filename or folder
        raise DownloadError(
            f"{where}: cannot be read or written: {error.strerror or error}. Mend that, or choose another folder "
            "with --to."
        ) from error


# ---------------------------------------------------------------------------------------- one file


def _get(one: Download, folder: Path, title: str) -> None:
    """Fetch one file, check it, unpack it; what a former run has done of this is not done again."""
    path = one.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _fetch(one, folder, path, title)
    elif problem := _problem(path, one):
        raise DownloadError(f"{path}: {problem}. Remove it, and it is fetched.")
    if one.unpack:
        missing = [folder / target for target in one.missing(folder)]
        archive = path.relative_to(folder).as_posix()
        url = _read_record(folder).get(archive, {"url": archive})["url"]
        for file in unpack(path, missing, one.unpacked, title):
            _record(folder, file.path, url, file.size, file.sha256)
            publish(file.part, file.path)
        path.unlink()


def _fetch(one: Download, folder: Path, path: Path, title: str) -> None:
    part, reasons = part_of(path), []
    for url in one.urls:
        # A partial file may be of something else than the server has now. When it does not come out right,
        # that is found out by fetching all of it.
        for start_anew in (False, True):
            if start_anew:
                remove(part)
            before = size_of(part)
            try:
                with progress_bar(title) as bar:
                    fetch_from(url, part, one.expected(), bar)
                if problem := _problem(part, one):
                    remove(part)
                    raise NoFile(problem)
            except NoFile as reason:
                reasons.append(f"\n  {url}: {reason}")
                if not before or size_of(part):
                    break
                continue
            _record(folder, path, url, size_of(part), one.sha256 or sha256_of(part))
            publish(part, path)
            remove(part)
            return
    raise DownloadError(
        f"{path}: no server gave it:{''.join(reasons)}" + (f"\n{one.by_hand}" if one.by_hand else "")
    )


def _problem(path: Path, one: Download) -> str | None:
    """What is wrong with a fetched file."""
    expected, size = one.expected(), size_of(path)
    with path.open("rb") as file:
        if is_page(file.read(100)):
            return "it is a web page or an error message"
    if objection := expected.objection(size):
        return f"it is of {objection}"
    if one.sha256 and (found := sha256_of(path)) != one.sha256:
        return f"its SHA-256 is {found}, expected {one.sha256}"
    if one.unpack and not zipfile.is_zipfile(path):
        return "it is no zip archive, or is damaged"
    if expected.json and not looks_like_json(path):
        return "it is no JSON, or cut off"
    return "it is an error message" if expected.json and _is_error(path) else None


def _is_error(path: Path) -> bool:
    """Whether a JSON file is what servers send with status 200 when something is wrong."""
    if size_of(path) > MOST_OF_AN_ERROR:
        return False
    try:
        content = read_json(path)
    except InputError:  # JSON lines are none as a whole
        return False
    return isinstance(content, dict) and bool({"error", "errors", "message", "detail"} & content.keys())


# --------------------------------------------------------------------------------------- the record


def _record(folder: Path, path: Path, url: str, size: int, sha256: str) -> None:
    """Write down what was got, before it has its name: a record without a file does no harm."""
    entry = {"url": url, "size": size, "sha256": sha256, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    record = _read_record(folder) | {path.relative_to(folder).as_posix(): entry}
    write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        record = read_json(path) if path.exists() else {}
        problem = None if isinstance(record, dict) and all(map(_is_entry, record.values())) else (
            f"{path}: expected an object of files, each with url, size, sha256 and time."
        )  # fmt: skip
    except InputError as error:
        problem = str(error)
    if problem:
        raise DownloadError(
            f"{problem} Remove it to go on: what was fetched so far is kept, and no longer compared with it."
        )
    return record


def _is_entry(entry: Any) -> bool:
    kinds = {"url": str, "size": int, "sha256": str, "time": str}
    return isinstance(entry, dict) and all(type(entry.get(key)) is kind for key, kind in kinds.items())


def _changed(one: Download, folder: Path, record: dict[str, Any]) -> list[str]:
    """What has another size than what was fetched."""
    found = []
    for target in set(one.targets) & record.keys():
        file, was = folder / target, record[target]
        if file.is_file() and size_of(file) != was["size"]:
            found.append(
                f"{file}: has {size_of(file):,} bytes; what was fetched on {was['time'][:10]} had {was['size']:,} "
                f"(SHA-256 {was['sha256']}). Remove it, and the next run fetches it again."
            )
    return found


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
