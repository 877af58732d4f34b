"""What all preparations share: finding the makers' files, making what is not current, the manifest."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

from datamodules.progress import progress_bar
from datamodules.stores import Source, examples_are_current, sha256_of
from lxmert.files import InputError, read_json, shorten, write_text

Counts = dict[str, int]


def shown(read: Callable[..., Iterator[Any]], path: Path, *arguments: Any) -> Iterator[Any]:
    """What a reader of `json_stream` yields, with a progress bar over the file's bytes."""
    with progress_bar(path.name, path.stat().st_size) as bar:
        yield from read(path, *arguments, progress=bar.update)


FOLDERS = {  # of the makers' files
    "vqa": "vqa",
    "okvqa": "okvqa",
    "vqacp": "vqacp",
    "vizwiz": "vizwiz/official",
    "gqa": "gqa",
    "nlvr2": "nlvr2/official",
    "pretrain": ".",
    "refcoco": "refcoco",
    "refcoco+": "refcoco+",
    "refcocog": "refcocog",
    "visual7w": "visual7w",
}
PAGES = {  # of the makers of what `datamodules.download` does not get
    "okvqa": "https://okvqa.allenai.org/download.html",
    "vqacp": "https://computing.ece.vt.edu/~aish/vqacp",
    "vizwiz": "https://vizwiz.org/tasks-and-datasets/vqa",
    **dict.fromkeys(("refcoco", "refcoco+", "refcocog"), "https://github.com/lichengunc/refer"),
    "visual7w": "https://ai.stanford.edu/~yukez/visual7w",
}


class Preparation:
    """The text stores of one task, made from the makers' files.

    Beside the stores lies manifest.json: for each store its sources (name, size, time, SHA-256) and its
    counts. A store that was made from exactly these sources is kept.

    Args:
        task: names the stores' folder.
        root: the data folder, as for training.
        official: the folder of the makers' files, at any depth; None for where `datamodules.download` puts them.
        stores: where the stores go, as for training; None for `root`/stores.

    Attributes:
        folder: of the stores.
        states: store -> "made" or "kept" by this command.
        notes: what to tell at the end.
    """

    def __init__(self, task: str, root: Path, official: Path | None = None, stores: Path | None = None) -> None:
        self.task, self.root = task, root
        self.official = official or root / FOLDERS[task]
        self.stores = stores or root / "stores"
        self.states: dict[str, str] = {}
        self.notes: list[str] = []
        self.folder = self.stores / ("lxmert" if task == "pretrain" else task)
        self._manifest = self.folder / "manifest.json"
        self._entries: dict[str, Any] = {}
        if self._manifest.exists():
            self._entries = _read_manifest(self._manifest)
        self._stamps = {
            (stamp["name"], stamp["size"], stamp["mtime_ns"]): stamp["sha256"]
            for entry in self._entries.values()
            for stamp in entry["sources"]
        }

    @property
    def counts(self) -> dict[str, Counts]:
        """The counts of the stores made or kept by this command, by store."""
        return {name: self._entries[name]["counts"] for name in self.states}

    def find(self, wanted: Mapping[str, str], further: Mapping[Path, str] | None = None) -> dict[str, Path]:
        """The files or folders of these names, wherever below the official folder they are.

        Args:
            wanted: name -> what it is, for the message.
            further: files of known places that are needed too, and what they are.

        Raises:
            FileNotFoundError: some are missing; lists all of them.
            InputError: a name is there more than once.
        """
        found = self.search(wanted)
        missing = {str(self.official / "**" / name): what for name, what in wanted.items() if name not in found}
        missing |= {str(path): what for path, what in (further or {}).items() if not path.exists()}
        if missing:
            lines = "".join(f"\n  {path}: {what}" for path, what in missing.items())
            download = f"`python -m datamodules.download {self.task}` gets the makers' files"
            origin = f"They are at {PAGES[self.task]}" if self.task in PAGES else download
            raise FileNotFoundError(
                f"{len(missing)} file(s) are missing:{lines}\n{origin}. If you have them, say with --official in "
                "which folder."
            )
        return found

    def search(self, names: Sequence[str] | Mapping[str, str]) -> dict[str, Path]:
        """Those of these files or folders that are there, as `find`."""
        found: dict[str, list[Path]] = defaultdict(list)
        for folder, folders, files in os.walk(self.official):
            for name in {*folders, *files} & set(names):
                found[name].append(Path(folder) / name)
        for name, paths in found.items():
            if len(paths) > 1:
                raise InputError(
                    f"{name} is there {len(paths)} times: {', '.join(map(str, sorted(paths)))}. Remove all but "
                    "one, or say with --official in which folder to look."
                )
        return {name: found[name][0] for name in names if name in found}

    def make(
        self,
        names: Sequence[str],
        sources: Sequence[Path],
        write: Callable[..., Sequence[Counts]],
        beside: Sequence[Path] = (),
    ) -> None:
        """Make stores from the same sources, unless all of them are current.

        Args:
            names: of the stores, without their ending.
            sources: all files that their content depends on.
            write: called with the path of each store; gives the counts of each.
            beside: further files that it makes, each before the stores: these are what tells that it is current.
        """
        paths = [self.folder / f"{name}.h5" for name in names]
        known = all(name in self._entries for name in names) and all(path.exists() for path in beside)
        if known and all(examples_are_current(path, sources) for path in paths):
            self.states |= dict.fromkeys(names, "kept")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        counts = write(*paths)
        stamps = []
        with progress_bar("SHA-256", len(sources), "file") as bar:
            for source in sources:
                stamps.append(asdict(self._stamp(source)))
                bar.update()
        for name, count in zip(names, counts, strict=True):
            self._entries[name] = {"sources": stamps, "counts": count}
        self.states |= dict.fromkeys(names, "made")
        content = {"task": self.task, "stores": self._entries}
        write_text(self._manifest, json.dumps(content, indent=1, allow_nan=False) + "\n")

    def _stamp(self, path: Path) -> Source:
        stamp = Source.of(path)
        key = (stamp.name, stamp.size, stamp.mtime_ns)
        self._stamps[key] = self._stamps.get(key) or sha256_of(path)
        return Source.of(path, self._stamps[key])


def _read_manifest(path: Path) -> dict[str, Any]:
    content = read_json(path)
    stores = content.get("stores") if isinstance(content, dict) else None
    if not isinstance(stores, dict) or not all(map(_is_entry, stores.values())):
        raise InputError(
            f"{path}: expected the sources and counts of the stores beside it, found "
            f"{shorten(content)}. Delete it: the stores are made anew then."
        )
    return stores


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("counts"), dict)
        and all(isinstance(name, str) and type(count) is int for name, count in entry["counts"].items())
        and isinstance(entry.get("sources"), list)
        and all(
            isinstance(stamp, dict)
            and all(type(stamp.get(name)) is kind for name, kind in get_type_hints(Source).items())
            for stamp in entry["sources"]
        )
    )
