"""A data folder in the LXMERT release's layout, and the stores that its files become."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from datamodules.batches import Places
from datamodules.formats.release_tsv import convert_tsv
from datamodules.layout import Layout
from datamodules.stores import ExampleStore, RegionStore, examples_are_current, is_current, locked
from lxmert.files import InputError

log = logging.getLogger(__name__)

ORIGIN = (
    "They are part of the LXMERT release, https://github.com/airsplay/lxmert, whose README links them. Set "
    "paths.data to the folder that has them."
)
_NO_SPLITS = ("_annotations", "_label2ans", "_ans", "_questions", "_choices", "_sceneGraphs")  # ends of names


def only_itself(source: Path) -> list[Path]:
    """The files that a text store is made from: its source."""
    return [source]


def one_image(store: ExampleStore) -> list[list[str]]:
    """The image ids of a store whose examples have one image."""
    return [store.table("image")]


class ReleaseFolder:
    """One data set's files: texts `<folder>/{split}.json`, regions `<name>_obj36.tsv`.

    Each is converted to a store once; the file is not needed any more then.

    Args:
        root: the data folder.
        stores: folder of the stores; None for `root`/stores.
        folder: of the text files, below both.
        layout: which image is in which region file.
        convert: (file, store) -> makes the text store of a file.
        data_set, toy: for messages, what this is and the experiment that needs no files.
        origin: for messages, where missing files come from.
        sources: a text file -> all files that its store is made from.
        image_columns: a text store -> its image ids, a list for each image of an example.
    """

    def __init__(
        self,
        root: str | Path,
        stores: str | Path | None,
        *,
        folder: str,
        layout: Layout,
        convert: Callable[[Path, Path], object],
        data_set: str,
        toy: str,
        origin: str = ORIGIN,
        sources: Callable[[Path], list[Path]] = only_itself,
        image_columns: Callable[[ExampleStore], list[list[str]]] = one_image,
    ) -> None:
        self.root = Path(root)
        self.stores = Path(stores) if stores else self.root / "stores"
        self.folder, self.layout, self.data_set = folder, layout, data_set
        self.image_columns = image_columns
        self._convert, self._sources, self._toy, self._origin = convert, sources, toy, origin
        self._open: dict[str, RegionStore] = {}

    def text_file(self, name: str) -> Path:
        """A text file, such as `root`/vqa/train.json."""
        return self.root / self.folder / f"{name}.json"

    def text_store(self, split: str) -> Path:
        """The store of a split's texts."""
        return self.stores / self.folder / f"{split}.h5"

    def region_store(self, name: str) -> Path:
        """The store of a region file."""
        return self.stores / f"{name}_obj36.h5"

    def has(self, split: str) -> bool:
        """Whether the texts of a split are there, converted or not."""
        return self.text_file(split).exists() or self.text_store(split).exists()

    def splits(self) -> list[str]:
        """The splits whose texts are there."""
        texts = self.root / self.folder, self.stores / self.folder
        return sorted({*_names_in(texts[0], ".json"), *_names_in(texts[1], ".h5")})

    # ------------------------------------------------------------------------------------ converting

    def prepare(self, splits: Iterable[str], only_texts: Iterable[str] = ()) -> None:
        """Convert what is not current.

        Args:
            splits: those whose texts and regions are needed.
            only_texts: those whose texts are needed.

        Raises:
            FileNotFoundError: files are missing; lists all of them and where they come from.
            InputError: a split that is not there, a row that cannot be used.
            PermissionError: the stores cannot be written.
        """
        missing: dict[Path, str] = {}
        for split in dict.fromkeys([*splits, *only_texts]):
            self._prepare_texts(split, missing)
        for name in self._region_names(splits):
            self._prepare_regions(name, missing)
        if missing:
            lines = "".join(f"\n  {path}: {what}" for path, what in missing.items())
            raise FileNotFoundError(
                f"{len(missing)} file(s) of {self.data_set} are missing:{lines}\n{self._origin} `python train.py "
                f"experiment={self._toy}` needs none."
            )

    def _prepare_texts(self, split: str, missing: dict[Path, str]) -> None:
        source, store = self.text_file(split), self.text_store(split)
        if source.exists():
            sources = self._sources(source)
            convert_once(store, lambda: examples_are_current(store, sources), lambda: self._convert(source, store))
        elif not store.exists():
            if split not in self.layout.splits:
                raise InputError(
                    f"unknown split {split!r}: {source} does not exist. Splits present: {listed(self.splits())}."
                )
            missing[source] = f"texts of the split {split}"

    def _prepare_regions(self, name: str, missing: dict[Path, str]) -> None:
        source, store = self.root / f"{name}_obj36.tsv", self.region_store(name)
        if source.exists():
            convert_once(store, lambda: is_current(store, source), lambda: convert_tsv(source, store))
        elif not store.exists():
            missing[source] = (
                f"regions of the {Path(name).name} images, from {self.layout.archives[name]}"
                if name in self.layout.archives
                else "regions of images whose ids name no image folder, in any file of such a name"
            )

    def _region_names(self, splits: Iterable[str]) -> list[str]:
        """The region files that these splits need; the usual ones of a split that is missing."""
        names: list[str] = []
        for split in splits:
            path = self.text_store(split)
            if not path.exists():
                names += self.layout.splits[split]
                continue
            columns = self.image_columns(ExampleStore(path))
            named = {self.layout.file_of(image) for column in columns for image in column}
            names += [file.name for file in self.layout.files if file.name in named]
            if None in named:  # such images may be anywhere
                names += self._region_names_present() or [f"{self.layout.folders[0]}/*"]
        return list(dict.fromkeys(names))

    def _region_names_present(self) -> list[str]:
        return sorted(
            f"{folder}/{name}"
            for folder in self.layout.folders
            for name in {
                *_names_in(self.root / folder, "_obj36.tsv"),
                *_names_in(self.stores / folder, "_obj36.h5"),
            }
        )

    # --------------------------------------------------------------------------------------- opening

    def open_regions(self, splits: Iterable[str], feature_dim: int) -> Places:
        """Open the region stores of converted splits.

        Raises:
            InputError: regions of another size than `feature_dim`.
        """
        names = self._region_names(splits)
        for name in names:
            if name not in self._open:
                self._open[name] = RegionStore(self.region_store(name))
                self._open[name].check_feature_dim(feature_dim)
        return Places({name: self._open[name] for name in names}, self.layout)

    def picture(self, image_id: str) -> Path | None:
        """The picture of an image, `images/<image_id>.jpg|jpeg|png` or in a folder there; None without one.

        An id is a name: nothing outside the folder images (which may be a link itself) is looked at, neither
        by `..` or an absolute path nor by a link that leads out of it.
        """
        images = self.root / "images"
        for folder in (images, *sorted(images.glob("*/"))):
            for ending in (".jpg", ".jpeg", ".png"):
                path = folder / f"{image_id}{ending}"
                try:
                    if path.is_file() and path.resolve().is_relative_to(images.resolve()):
                        return path
                except (OSError, ValueError):  # what no file can be called: too long, with a NUL
                    return None
        return None


def listed(values: Iterable[str]) -> str:
    """Names as a message shows them."""
    return ", ".join(values) or "none"


def _names_in(folder: Path, ending: str) -> list[str]:
    names = (path.name.removesuffix(ending) for path in folder.glob(f"[!.]*{ending}"))
    return sorted(name for name in names if not name.endswith(_NO_SPLITS))


def convert_once(store: Path, current: Callable[[], bool], convert: Callable[[], object]) -> None:
    """Make `store` with `convert` unless it is `current`.

    One process at a time; a process that had to wait finds the work done.

    Raises:
        PermissionError: the store's folder cannot be written.
    """
    if current():
        return
    check_writable(store.parent)
    with locked(store):
        if not current():
            log.info("Making %s, once.", store)
            convert()


def check_writable(folder: Path) -> None:
    """Make `folder`, and raise PermissionError unless files can be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(
            f"{folder}: stores cannot be written there ({error.strerror}). Set paths.stores to a folder that can "
            "be written, such as paths.stores=$HOME/lxmert_stores."
        ) from error
