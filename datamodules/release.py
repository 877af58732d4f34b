"""A data folder in the LXMERT release's layout, and the stores that its files become."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from datamodules.batches import Places
from datamodules.formats.own import ANSWER_LIST, convert_own, made_with
from datamodules.formats.release_nlvr2 import RIGHT, image_groups
from datamodules.formats.release_tsv import convert_tsv
from datamodules.formats.rows import ENDINGS
from datamodules.layout import Layout, find_picture
from datamodules.stores import (
    BOTTOM_UP_ATTENTION,
    ExampleStore,
    RegionStore,
    StoreError,
    examples_are_current,
    is_current,
    locked,
)
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


def several_images(store: ExampleStore) -> list[list[str]]:
    """The left and the right images' ids, and those of further ones.

    Raises:
        StoreError: the store names the right images otherwise, as one from before they had one name.
    """
    if RIGHT not in store.groups:
        raise StoreError(
            f"{store.path}: it has no right images: an older version made it. Delete it, then make it again "
            "with `python -m datamodules.prepare nlvr2`."
        )
    return [store.table("image"), *map(store.table, image_groups(store.groups))]


class ReleaseFolder:
    """One data set's files: texts `<folder>/{split}.json`, regions `<name>.tsv`.

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
        endings: those that a text file may have.
        made_with: settings that text stores depend on beside their sources.

    Attributes:
        detector: what made the region files, as the stores made of them tell; the release's unless it is changed.
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
        endings: Sequence[str] = (".json",),
        made_with: str = "",
    ) -> None:
        self.root = Path(root)
        self.stores = Path(stores) if stores else self.root / "stores"
        self.folder, self.layout, self.data_set = folder, layout, data_set
        self.image_columns, self.endings, self._made_with = image_columns, endings, made_with
        self._convert, self._sources, self._toy, self._origin = convert, sources, toy, origin
        self._open: dict[str, RegionStore] = {}
        self._used: dict[str, np.ndarray] = {}  # of `Places`
        self.detector = BOTTOM_UP_ATTENTION

    def answer_list(self, name: str) -> Path:
        """The answer list, such as `root`/vqa/trainval_label2ans.json."""
        return self.root / self.folder / f"{name}.json"

    def text_file(self, split: str) -> Path:
        """A split's text file, such as `root`/vqa/train.json, whether it is there or not.

        Raises:
            InputError: it is there in two formats.
        """
        paths = [self.root / self.folder / f"{split}{ending}" for ending in self.endings]
        found = [path for path in paths if path.exists()]
        if len(found) > 1:
            raise InputError(f"{found[0]} and {found[1].name} are both the texts of {split}. Remove one.")
        return found[0] if found else paths[0]

    def text_store(self, split: str) -> Path:
        """The store of a split's texts."""
        return self.stores / self.folder / f"{split}.h5"

    def region_store(self, name: str) -> Path:
        """The store of a region file."""
        return self.stores / f"{name}.h5"

    def has(self, split: str) -> bool:
        """Whether the texts of a split are there, converted or not."""
        return self.text_file(split).exists() or self.text_store(split).exists()

    def splits(self) -> list[str]:
        """The splits whose texts are there."""
        texts = self.root / self.folder, self.stores / self.folder
        files = (name for ending in self.endings for name in _names_in(texts[0], ending))
        return sorted({*files, *_names_in(texts[1], ".h5")})

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
            convert_once(
                store,
                lambda: examples_are_current(store, sources, self._made_with),
                lambda: self._convert(source, store),
            )
        elif not store.exists():
            if split not in self.layout.splits:
                raise InputError(
                    f"unknown split {split!r}: no {source.with_name(split)} with {' or '.join(self.endings)}. "
                    f"Splits present: {listed(self.splits())}."
                )
            missing[source] = f"texts of the split {split}"

    def _prepare_regions(self, name: str, missing: dict[Path, str]) -> None:
        source, store = self.root / f"{name}.tsv", self.region_store(name)
        if source.exists():
            convert_once(
                store,
                lambda: is_current(store, source),
                lambda: convert_tsv(source, store, detector=self.detector),
            )
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
            named = {self.layout.files_of(image, split) for column in columns for image in column}
            wanted = {name for files in named for name in [n for n in files if self._has_regions(n)] or files[:1]}
            names += [file.name for file in self.layout.files if file.name in wanted]
            if () in named:  # such images may be anywhere
                names += self.region_files() or [f"{self.layout.folders[0]}/*"]
        return list(dict.fromkeys(names))

    def _has_regions(self, name: str) -> bool:
        return (self.root / f"{name}.tsv").exists() or self.region_store(name).exists()

    def region_files(self) -> list[str]:
        """The region files of the layout's folders that are there, without their endings.

        The release's all end in _obj36 before that; one's own have any name.
        """
        ending = "_obj36" if self.layout.files else ""
        return sorted(
            f"{folder}/{name}{ending}"
            for folder in self.layout.folders
            for name in {
                *_names_in(self.root / folder, f"{ending}.tsv"),
                *_names_in(self.stores / folder, f"{ending}.h5"),
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
        return Places({name: self._open[name] for name in names}, self.layout, self._used)

    @property
    def detectors(self) -> list[str]:
        """What found the regions of the opened stores."""
        return sorted({str(store.contract["detector"]) for store in self._open.values()})

    def picture(self, image_id: str) -> Path | None:
        """The picture of an image in the folder images; see `find_picture`."""
        return find_picture(self.root / "images", image_id)


def own_folder(
    root: str | Path,
    stores: str | Path | None,
    folder: str,
    region_folder: str,
    columns: Mapping[str, str | None],
    *,
    pairs: bool = False,
) -> ReleaseFolder:
    """A data set of one's own: texts as `convert_own` reads them, regions in any file of `region_folder`.

    Args:
        root: the data folder.
        stores: folder of the stores; None for `root`/stores.
        folder: of the texts, below both.
        region_folder: of the regions, below both.
        columns: of the texts, as of `convert_own`; None for one that has a usual name.
        pairs: whether a text has two images or more.
    """
    named = {what: name for what, name in columns.items() if name is not None}

    def sources(source: Path) -> list[Path]:
        return [path for path in (source, source.parent / ANSWER_LIST) if path.exists()]

    return ReleaseFolder(
        root,
        stores,
        folder=folder,
        layout=Layout((), (region_folder,), {}),
        convert=lambda source, store: convert_own(source, store, named, pairs=pairs),
        data_set=folder,
        toy="toy_nlvr2" if pairs else "toy_vqa",
        origin="docs/own_data.md says what makes them.",
        sources=sources,
        image_columns=several_images if pairs else one_image,
        endings=ENDINGS,
        made_with=made_with(named, pairs=pairs),
    )


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
