"""The region store: the detected boxes of every image, read a whole batch at a time.

Layout (HDF5): the regions of all images one after the other, `offsets` telling which are whose.
    features (T, F) float16      boxes (T, 4) float32, x1 y1 x2 y2 as fractions of width and height
    object_ids, attribute_ids (T,) int32, -1 unknown      object_conf, attribute_conf (T,) float32
    offsets (n + 1,) int64       image_ids (n,) bytes     image_size (n, 2) int32, width and height
    id_order (n,) int64, the order that sorts `image_ids`
The file's attributes are the contract: where the features come from and what they look like.
"""

from __future__ import annotations

import mmap
import sys
import warnings
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.stores.hdf5 import (
    REMAKE,
    Column,
    LazyDataset,
    StoreError,
    check_codes,
    check_column,
    check_offsets,
    has_dataset,
    map_datasets,
    open_store,
    read_attribute,
    read_attributes,
)
from lxmert.files import InputError, check_answers, parse_json

FORMAT_VERSION = 1
BOX_CONVENTION = "x1 y1 x2 y2, fractions of the image's width and height"
UNKNOWN_LABEL = -1

OF_REGIONS = ("features", "boxes", "object_ids", "object_conf", "attribute_ids", "attribute_conf")
_DATASETS = (*OF_REGIONS, "offsets", "image_ids", "image_size", "id_order")
_CONTRACT = {
    **{"feature_dim": int, "box_convention": str, "detector": str},
    **{"source_name": str, "source_size": int, "source_mtime_ns": int, "source_sha256": str},
    **{"num_images": int, "num_regions": int, "min_regions": int, "max_regions": int},
}
# What a store may tell beside its contract: of the detector that was run, and of the pictures.
FACTS = (
    *("detector_sha256", "object_names", "attribute_names"),
    *("pictures_sha256", "given_boxes_sha256", "made_with"),
)
_AT_ONCE = 1 << 20  # ids compared


class RegionStore:
    """Regions by image number, straight from the page cache.

    Opening checks that the file is what it says: every dataset's place, type and shape, and the values of those
    that have one for each image. Not those of the regions themselves, features, boxes and labels, which
    `python -m datamodules.validate` looks into. A store may be pickled, and crosses a fork: each process maps
    the file at its first read. Nothing of the file becomes resident memory of its own.

    Args:
        path: a file made by `python -m datamodules.convert`, or by the functions behind it.

    Attributes:
        path: the file.
        feature_dim: F, the size of a region's feature vector.
        contract: feature_dim, box_convention, detector, source_name, source_size,
            source_mtime_ns, source_sha256, num_images, num_regions, min_regions, max_regions.

    Raises:
        StoreError: no such file, a damaged one, or one of another kind or format version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.contract: dict[str, Any] = _read_contract(self.path)
        self.feature_dim: int = self.contract["feature_dim"]
        self._buffers = Buffers()
        self._cold = True
        self._check()

    def __len__(self) -> int:
        return self.contract["num_images"]

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("path", "contract", "feature_dim")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._buffers = Buffers()
        self._cold = True

    @cached_property
    def names(self) -> tuple[list[str], list[str]]:
        """What the object ids and the attribute ids mean, as far as the store tells."""
        facts = read_facts(self.path)
        objects, attributes = (
            _read_names(facts.get(f"{kind}_names", "[]"), f"{self.path}: {kind}_names")
            for kind in ("object", "attribute")
        )
        return objects, attributes

    # ------------------------------------------------------------------------------- which images

    @cached_property
    def image_ids(self) -> np.ndarray:
        """(n,) bytes, in the order of the source."""
        return np.asarray(self._mapped["image_ids"])

    def index(self, ids: Sequence[str]) -> np.ndarray:
        """The numbers of the images with these ids: (len(ids),) int64, -1 where absent."""
        if not len(ids):
            return np.empty(0, np.int64)
        width = self.image_ids.itemsize
        encoded = [name.encode(errors="surrogatepass") for name in ids]
        # numpy would cut off what is too long, and NULs at the end; no image has the empty id.
        wanted = np.array([b"" if len(name) > width or b"\0" in name else name for name in encoded], f"S{width}")
        places = np.searchsorted(self.image_ids, wanted, sorter=self._id_order).clip(max=len(self) - 1)
        images = self._id_order[places]
        return np.where(self.image_ids[images] == wanted, images, -1)

    def require(self, ids: Sequence[str]) -> np.ndarray:
        """As `index`, but raises StoreError naming the ids that the store does not have."""
        images = self.index(ids)
        if (images < 0).any():
            absent = list(dict.fromkeys(name for name, image in zip(ids, images, strict=True) if image < 0))
            shown = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
            raise StoreError(
                f"{self.path}: no regions of {len(absent)} of the images asked for: {shown}. Convert a "
                f"feature file that has them (this store was made from {self.contract['source_name']})."
            )
        return images

    def check_feature_dim(self, expected: int) -> None:
        """Raise StoreError unless the store's feature vectors have the size the model expects."""
        if self.feature_dim != expected:
            raise StoreError(
                f"{self.path}: regions have {self.feature_dim} features, the model expects {expected}. Set "
                f"model.visual_feat_dim={self.feature_dim}, or convert features of size {expected} "
                f"(these come from {self.contract['source_name']})."
            )

    def check_labels(self, sizes: Mapping[str, int]) -> None:
        """Raise StoreError unless all labels are below the number that the model has.

        Args:
            sizes: "object_ids" and "attribute_ids" -> how many there are.
        """
        for name, size in sizes.items():
            labels = np.asarray(self._mapped[name])
            lowest, place = int(labels.argmin()), int(labels.argmax())
            if labels[lowest] < UNKNOWN_LABEL:
                check_codes(self.path, name, labels, UNKNOWN_LABEL, size)
            if labels[place] >= size:
                image = self.image_ids[np.searchsorted(self._offsets, place, side="right") - 1].decode()
                what = name.removesuffix("_ids")
                raise StoreError(
                    f"{self.path}: {what} id {labels[place]} of image {image}; the model has {size} {what} labels "
                    f"(0 to {size - 1}). These regions (from {self.contract['source_name']}) come from a detector "
                    f"with another vocabulary: set the model's number of {what} labels to its size."
                )

    # ------------------------------------------------------------------------------------ reading

    def read(self, images: np.ndarray | Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The regions of I images, given by number, in that order; repeats are allowed.

        Returns:
            features (I, N, F) float16, boxes (I, N, 4) float32 and mask (I, N) bool, N being the most
            regions among these images. Padding is zero, False in the mask.

        Raises:
            StoreError: a number that is not an image of this store (`index` gives -1 where absent).
        """
        rows = _Rows(self, images)
        features = self._buffers.take((*rows.mask.shape, self.feature_dim), np.float16)
        before = blocks_read()
        if self._cold:
            self.read_ahead(rows.starts, rows.counts)
        self._gather("features", rows, features, 0)
        # A cold file is read 25 times faster with its pages asked for beforehand, a warm one a third
        # slower. Whether this read waited for the disk tells how to do the next; it costs one system
        # call, and follows a file that enters the page cache or is pushed out of it.
        self._cold = blocks_read() > before
        boxes = self._gather("boxes", rows, torch.empty(*rows.mask.shape, 4), 0)
        return features, boxes, rows.mask

    def read_rows(self, images: np.ndarray | Sequence[int], first: int) -> tuple[Tensor, Tensor, Tensor]:
        """As `read`, but where the features are and not what they are.

        Args:
            images: as of `read`.
            first: the row of this store's first region in a table of several stores' features.

        Returns:
            rows (I, N, 1) int64 in that table, boxes (I, N, 4) float32 and mask (I, N) bool. Padding is zero.
        """
        rows = _Rows(self, images)
        places = np.where(rows.real, rows.starts[:, None] + np.arange(rows.real.shape[1]) + first, 0)
        boxes = self._gather("boxes", rows, torch.empty(*rows.mask.shape, 4), 0)
        return torch.from_numpy(places)[..., None], boxes, rows.mask

    def copy_features(self, start: int, out: Tensor) -> None:
        """The features of regions `start` to `start + n` into `out` (n, F) float16."""
        out.numpy()[:] = self.features[start : start + len(out)]

    def labels(self, images: np.ndarray | Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the detector says of each region of I images.

        Returns:
            object_ids int64, object_conf float32, attribute_ids int64, attribute_conf float32, each
            (I, N); -1 and 0 where unknown and in padding.
        """
        rows = _Rows(self, images)
        shape = rows.mask.shape
        ids = [
            self._gather(name, rows, torch.empty(shape, dtype=torch.int32), UNKNOWN_LABEL).long()
            for name in ("object_ids", "attribute_ids")
        ]
        conf = [self._gather(name, rows, torch.empty(shape), 0) for name in ("object_conf", "attribute_conf")]
        return ids[0], conf[0], ids[1], conf[1]

    def pick_rows(self, images: np.ndarray | Sequence[int], fraction: np.ndarray) -> np.ndarray:
        """(I,) int64: of each image one of the store's regions, the one at `fraction` (I,) of the image's."""
        images = self._checked(images)
        counts = self._offsets[images + 1] - self._offsets[images]
        return self._offsets[images] + (fraction * counts).astype(np.int64)

    def image_size(self, images: np.ndarray | Sequence[int]) -> Tensor:
        """(I, 2) int64: the width and height in pixels of I images."""
        images = self._checked(images)
        return torch.from_numpy(self._image_size[images].astype(np.int64))

    def _gather(self, name: str, rows: _Rows, out: Tensor, fill: float) -> Tensor:
        """The rows of one dataset into `out` (I, N, ...), `fill` in the padding."""
        source = self._columns[name]
        if not len(out):
            return out
        if isinstance(source, LazyDataset):
            for image, (start, end) in enumerate(zip(rows.starts, rows.starts + rows.counts, strict=True)):
                out[image, : end - start] = torch.from_numpy(source[start:end])
        elif self._uniform:
            torch.index_select(
                source.view(len(self), -1), 0, torch.from_numpy(rows.images), out=out.view(len(out), -1)
            )
        else:
            torch.index_select(source, 0, rows.flat, out=out.view(-1, *source.shape[1:]))
        if rows.padding is not None:
            out.view(-1, *out.shape[2:]).index_fill_(0, rows.padding, fill)
        return out

    def read_ahead(self, starts: np.ndarray, counts: np.ndarray) -> None:
        """Ask the kernel for the pages of the features of `counts` regions from each of `starts` on, all at once.

        Windows takes no such hint.
        """
        features = self._mapped["features"]
        if not isinstance(features, np.memmap) or not hasattr(mmap, "MADV_WILLNEED"):
            return
        pages: Any = features._mmap  # type: ignore[attr-defined]  # of the whole file
        first = features.ctypes.data - np.frombuffer(pages, np.uint8).ctypes.data
        row = features[0].nbytes
        for start, count in zip((first + starts * row).tolist(), (counts * row).tolist(), strict=True):
            page = start - start % mmap.PAGESIZE
            pages.madvise(mmap.MADV_WILLNEED, page, start - page + count)

    def _checked(self, images: np.ndarray | Sequence[int]) -> np.ndarray:
        images = np.ascontiguousarray(images, dtype=np.int64)
        wrong = images[(images < 0) | (images >= len(self))]
        if len(wrong):
            raise StoreError(
                f"{self.path}: no image number {wrong[0]} among its {len(self)}. index() gives -1 for an id "
                "that is not in the store; require() names such ids."
            )
        return images

    # ------------------------------------------------------------------------------------- mapped

    @cached_property
    def features(self) -> Column:
        """(T, F) float16: those of all images one after the other, mapped, or read as far as they are sliced."""
        column = self._mapped["features"]
        return column if isinstance(column, LazyDataset) else np.asarray(column)  # slices of a memmap take longer

    @property
    def _uniform(self) -> bool:
        return self.contract["min_regions"] == self.contract["max_regions"]

    @cached_property
    def _offsets(self) -> np.ndarray:
        return np.asarray(self._mapped["offsets"])

    @cached_property
    def _id_order(self) -> np.ndarray:
        return np.asarray(self._mapped["id_order"])

    @cached_property
    def _image_size(self) -> np.ndarray:
        return np.asarray(self._mapped["image_size"])

    @cached_property
    def _mapped(self) -> dict[str, Column]:
        return map_datasets(self.path, _DATASETS)

    @cached_property
    def _columns(self) -> dict[str, Tensor | LazyDataset]:
        def tensor(name: str) -> Tensor | LazyDataset:
            column = self._mapped[name]
            return column if isinstance(column, LazyDataset) else torch.from_numpy(column)

        with warnings.catch_warnings():
            # torch warns of a read-only array; nothing here writes to these tensors or hands them out.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return {name: tensor(name) for name in OF_REGIONS}

    # ------------------------------------------------------------------------------------ checking

    def _check(self) -> None:
        """Raise StoreError unless the datasets fit the contract and one another."""
        images, regions, width = (self.contract[name] for name in ("num_images", "num_regions", "feature_dim"))
        least, most = self.contract["min_regions"], self.contract["max_regions"]
        if not (1 <= least <= most and 1 <= images <= regions and width >= 1):
            raise StoreError(
                f"{self.path}: its attributes tell of {images} images with {least} to {most} of {regions} regions "
                f"of {width} features, expected 1 or more of each. {REMAKE}"
            )
        ids = self._mapped["image_ids"]
        check_column(self.path, "image_ids", ids, np.dtype((np.bytes_, ids.dtype.itemsize)), (images,))
        for name, (dtype, shape) in {
            "features": (np.float16, (regions, width)),
            "boxes": (np.float32, (regions, 4)),
            **dict.fromkeys(("object_ids", "attribute_ids"), (np.int32, (regions,))),
            **dict.fromkeys(("object_conf", "attribute_conf"), (np.float32, (regions,))),
            "offsets": (np.int64, (images + 1,)),
            "image_size": (np.int32, (images, 2)),
            "id_order": (np.int64, (images,)),
        }.items():
            check_column(self.path, name, self._mapped[name], dtype, shape)
        check_offsets(self.path, "offsets", self._offsets, regions, least=1)
        counts = np.diff(self._offsets)
        if (counts.min(), counts.max()) != (least, most):
            raise StoreError(
                f"{self.path}: dataset 'offsets' tells of {counts.min()} to {counts.max()} regions an image, its "
                f"attributes of {least} to {most}. {REMAKE}"
            )
        check_codes(self.path, "image_size", self._image_size, 1, 1 << 31)
        self._check_ids()

    def _check_ids(self) -> None:
        """Raise StoreError unless `id_order` sorts the ids, and each is a text and there once."""
        ids, order = self.image_ids, self._id_order
        check_codes(self.path, "id_order", order, 0, len(ids))
        for start in range(0, len(ids), _AT_ONCE):
            ordered = ids[order[start : start + _AT_ONCE + 1]]
            if not ordered[0] or not (ordered[1:] > ordered[:-1]).all():
                raise StoreError(
                    f"{self.path}: dataset 'id_order' does not sort the images' ids, each there once and none "
                    f"empty. {REMAKE}"
                )
        if ids.view(np.uint8).max() > 127:
            try:
                np.strings.decode(ids, "utf-8")
            except UnicodeDecodeError as error:
                raise StoreError(f"{self.path}: image id {error.object!r} is not UTF-8 text. {REMAKE}") from error


def read_facts(path: Path) -> dict[str, str]:
    """What a store tells beside its contract; see `FACTS`."""
    with open_store(path) as file:
        found = {name: read_attribute(file, name) for name in FACTS}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _read_names(text: str, where: str) -> list[str]:
    try:
        names = parse_json(text.encode(errors="replace"), where)
        return check_answers(names, where)  # texts in order, too
    except InputError as error:
        raise StoreError(f"{where}: no list of names. {REMAKE}") from error


def _read_contract(path: Path) -> dict[str, Any]:
    with open_store(path) as file:
        missing = [name for name in _DATASETS if not has_dataset(file, name)]
        if missing or str(read_attribute(file, "kind")) != "regions":
            raise StoreError(
                f"{path}: not a region store (without {', '.join(missing) or 'its contract'}). Convert the "
                "features with `python -m datamodules.convert`."
            )
        version = read_attributes(file, {"format_version": int})["format_version"]
        if version != FORMAT_VERSION:
            raise StoreError(f"{path}: format version {version}, expected {FORMAT_VERSION}. {REMAKE}")
        return read_attributes(file, _CONTRACT)


class _Rows:
    """Which regions a batch of images takes, as a padded (I, N) table."""

    def __init__(self, store: RegionStore, images: np.ndarray | Sequence[int]) -> None:
        self.images = store._checked(images)
        self.starts = store._offsets[self.images]
        self.counts = store._offsets[self.images + 1] - self.starts
        number = np.arange(self.counts.max(initial=0))
        self.real = number < self.counts[:, None]
        self.mask = torch.from_numpy(self.real)
        self.padding = None if self.real.all() else torch.from_numpy(np.flatnonzero(~self.real))
        if not store._uniform:
            # Padding repeats an image's last region, which is in the processor's cache already.
            flat = self.starts[:, None] + np.minimum(number, self.counts[:, None] - 1)
            self.flat = torch.from_numpy(flat.ravel())


class Buffers:
    """Memory for tensors, used again once nobody holds the tensor, or a view of it, any more.

    Fresh memory is cleared by the kernel page by page, which costs five times the copying. Each
    tensor stands on a numpy view of its own, which its storage holds; when that view has been freed,
    no tensor can reach the memory. Taking a buffer out of the queue keeps other threads from it. Another process
    gets none of them.
    """

    def __init__(self) -> None:
        # One in use, one being filled, and what a loop that looks ahead holds. A caller that keeps
        # more gets fresh memory, of which the queue forgets all but the newest.
        self._queue: deque[tuple[np.ndarray, weakref.ref]] = deque(maxlen=4)

    def __reduce__(self) -> tuple[type[Buffers], tuple[()]]:
        return Buffers, ()

    def take(self, shape: tuple[int, ...], dtype: Any) -> Tensor:
        """An uninitialised tensor that shares memory with no other one in use."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        memory = None
        for _ in range(len(self._queue)):
            candidate, user = self._queue.popleft()
            if user() is not None:
                self._queue.append((candidate, user))
            elif len(candidate) >= size:
                memory = candidate
                break
        if memory is None:
            memory = np.empty(size, np.uint8)
        view = memory[:size].view(dtype).reshape(shape)
        self._queue.append((memory, weakref.ref(view)))
        return torch.from_numpy(view)


def blocks_read() -> int:
    """Blocks this process has had read from disk so far; always 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    import resource  # here, as Windows has no such module

    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock
