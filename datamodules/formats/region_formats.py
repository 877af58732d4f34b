"""Which format region features are in, by what is in them; and why some that are known cannot be converted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from datamodules.formats.arrays import PICTURES
from datamodules.formats.gqa_objects import GQA_OBJECTS, index_gqa, read_gqa, reading_gqa
from datamodules.formats.npy import index_npy, read_npy
from datamodules.formats.npz import NpzReader, npz_names
from datamodules.formats.region_h5 import H5Reader, h5_names, has_rows, is_grouped
from datamodules.formats.region_lmdb import index_lmdb, read_lmdb
from datamodules.formats.release_tsv import index_tsv, read_tsv
from datamodules.formats.tsv_layouts import LAYOUTS, tsv_layout
from datamodules.formats.vinvl import index_vinvl, is_vinvl, read_vinvl
from datamodules.stores import BOTTOM_UP_ATTENTION, Index, Regions
from lxmert.files import InputError

GQA_INFO = "gqa_objects_info.json"
_HDF5 = (".h5", ".hdf5", ".hdf")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".zst")
_WEIGHTS = (".pth", ".pt", ".pkl", ".pickle", ".caffemodel", ".safetensors", ".bin", ".ckpt")
KNOWN = (  # name, what it looks like; for help and messages
    ("regions of the LXMERT release", "a TSV of ten columns"),
    ("other TSV of bottom-up-attention", "6, 7, 8, 9 or 13 columns, any that --columns or the first line name"),
    ("VinVL", "a TSV of 2 or 3 columns, or the folder with its features.tsv or predictions.tsv"),
    ("object features of GQA", f"a folder with {GQA_INFO}"),
    ("npz files", "a folder of IMAGE.jpg.npz with x, bbox, image_w, image_h, or UNITER's features, norm_bb"),
    ("npy files", "a folder of IMAGE.npy, grids (H, W, F), or MMF's with IMAGE_info.npy"),
    ("LMDB of UNITER, VOLTA or MMF", "a folder with data.mdb"),
    (
        "HDF5 of bottom-up-attention-vqa or VOLTA",
        "image_features, image_bb, spatial_features, or a group an image",
    ),
)


class NotConvertible(InputError):
    """Region features, or what is taken for them, in a form that is known and of no use here."""


@dataclass(frozen=True)
class RegionFormat:
    """What region features are, and what reads them.

    Args:
        name: of the format.
        source: what a store of them is made from.
        index, read: what `convert_regions` takes.
        detector: what made them, where the format tells.
        reading: as of `convert_regions`.
    """

    name: str
    source: Path
    index: Callable[[Path, tqdm, Index], None]
    read: Callable[[Path, Index, int], Generator[Regions, None, None]]
    detector: str | None = None
    reading: Callable[[Path], Mapping[str, str]] = lambda _: {}


@dataclass(frozen=True)
class Hints:
    """What the user says about a source that does not tell itself.

    Args:
        columns: the names of a TSV's columns.
        features: the order of an npz's features, nxF or Fxn.
        ids: the file of the ids of an HDF5 file.
    """

    columns: tuple[str, ...] = ()
    features: str = ""
    ids: Path | None = None


def recognise(source: Path, hints: Hints = Hints()) -> RegionFormat:
    """The format of a file or folder.

    Raises:
        InputError: there is none, it is of no format that is known, or of one that cannot be converted.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder. Check the path, or get the features first.")
    found = _folder(source, hints) if source.is_dir() else _file(source, hints)
    for hint, kind in (("columns", "TSV"), ("features", "npz"), ("ids", "HDF5")):
        if getattr(hints, hint) and kind not in found.name:
            raise InputError(f"{source}: {found.name}; --{hint} is for {kind} files. Leave it out.")
    return found


def _folder(source: Path, hints: Hints) -> RegionFormat:
    names = sorted(path.name for path in source.iterdir())
    if GQA_INFO in names:
        info = source / GQA_INFO
        return RegionFormat("object features of GQA", info, index_gqa, read_gqa, GQA_OBJECTS, reading_gqa)
    if "data.mdb" in names:
        return RegionFormat("LMDB of region features", source, index_lmdb, read_lmdb)
    for name in ("features.tsv", "predictions.tsv"):
        if name in names and is_vinvl(source / name):
            return _vinvl(source / name)
    if any(name.endswith(".npz") for name in names):
        return _npz(source, hints)
    if any(name.endswith(".npy") for name in names):
        name = "MMF's npy files" if any(name.endswith("_info.npy") for name in names) else "npy files"
        return RegionFormat(name, source, index_npy, read_npy)
    if any(name.lower().endswith(PICTURES) for name in names):
        _refuse(source, "pictures", "a detector has to look at them first (`python -m datamodules.extract`)")
    inside = [name for name in names if name.endswith((".tsv", *_HDF5))]
    if inside:
        shown = ", ".join(inside[:5])
        _refuse(source, f"a folder of {shown}", "each file makes a store of its own: name one of them")
    raise InputError(_unknown(source))


def _npz(source: Path, hints: Hints) -> RegionFormat:
    arrays = set(npz_names(source))
    if arrays and not arrays & {"x", "bbox", "norm_bb"}:
        shown = ", ".join(sorted(arrays))[:200]
        what = "npz files of features without boxes" if arrays & {"features", "feat"} else f"npz files of {shown}"
        _refuse(
            source,
            what,
            "LXMERT needs a box for each feature: write x, bbox, image_w and image_h, or grids as IMAGE.npy "
            "(H, W, F), whose cells are their boxes",
        )
    name = "npz files of UNITER" if "norm_bb" in arrays else "bottom-up-attention npz files"
    reader = NpzReader(hints.features)
    return RegionFormat(name, source, reader.index, reader.read, reading=reader.reading)


def _file(source: Path, hints: Hints) -> RegionFormat:
    ending = source.suffix.lower()
    if ending == ".lineidx":
        return recognise(source.with_suffix(".tsv"), hints)
    with source.open("rb") as file:
        head = file.read(1 << 16)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _hdf5(source, hints)
    if source.name == "data.mdb":
        return recognise(source.parent, hints)
    if source.name == GQA_INFO:
        return recognise(source.parent, hints)
    if ending in (".npz", ".npy"):
        _refuse(source, f"one {ending} file", "there is one for each image: name the folder")
    if ending in _ARCHIVES:
        _refuse(source, "an archive", "unpack it, and name what was in it")
    if ending in _WEIGHTS:
        _refuse(
            source,
            "a file of torch, caffe or pickle",
            "reading it may run what it says. Write its arrays as npz files with x, bbox, image_w, image_h",
        )
    if ending in PICTURES:
        _refuse(source, "a picture", "a detector has to look at it first (`python -m datamodules.extract`)")
    if ending != ".tsv" and b"\t" not in head:
        raise InputError(_unknown(source))
    if not hints.columns and is_vinvl(source):
        return _vinvl(source)
    layout = tsv_layout(source, hints.columns)
    index, read = partial(index_tsv, layout=layout), partial(read_tsv, layout=layout)
    detector = BOTTOM_UP_ATTENTION if layout == LAYOUTS[0] else None
    return RegionFormat(layout.name, source, index, read, detector, lambda _: layout.said())


def _hdf5(source: Path, hints: Hints) -> RegionFormat:
    names = h5_names(source)
    if {"offsets", "features", "image_ids", "object_ids"} <= names:
        _refuse(source, "a region store", "it is what conversion makes; use it as it is")
    if {"features", "bboxes"} == names:
        _refuse(source, "one chunk of GQA's object features", f"name its folder, with {GQA_INFO} in it")
    reader = H5Reader(hints.ids)
    if has_rows(names):
        return RegionFormat(
            "HDF5 of bottom-up-attention features", source, reader.index, reader.read, reading=reader.reading
        )
    if is_grouped(source, names):
        return RegionFormat("HDF5 of VOLTA, a group an image", source, reader.index, reader.read)
    if any(name.endswith("_features") for name in names) and any(name.endswith("_boxes") for name in names):
        _refuse(
            source, "HDF5 of captioning features", "there are no image sizes for its boxes, ID_boxes in pixels"
        )
    if {"features", "image_features"} & names:
        _refuse(
            source,
            "HDF5 of features without boxes, such as grids or patches",
            "LXMERT needs a box for each feature: write grids as IMAGE.npy (H, W, F), whose cells are their boxes",
        )
    shown = ", ".join(sorted(names)[:8]) or "nothing"
    raise InputError(f"{source}: HDF5 of {shown}: no region features that are known.{_listed()}")


def _vinvl(source: Path) -> RegionFormat:
    return RegionFormat("VinVL's TSV", source, index_vinvl, read_vinvl)


def _refuse(source: Path, what: str, why: str) -> NoReturn:
    raise NotConvertible(f"{source}: recognised as {what}, which cannot be converted: {why}.")


def _unknown(source: Path) -> str:
    return f"{source}: no region features that we know.{_listed()}"


def _listed() -> str:
    return " These are known:" + "".join(f"\n  {name}: {looks}" for name, looks in KNOWN)
