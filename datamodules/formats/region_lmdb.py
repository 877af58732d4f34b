"""Region features in LMDB: UNITER's, VOLTA's and MMF's data bases, told by their values.

| value | of |
|---|---|
| msgpack or npz of features, norm_bb | UNITER: n x F, boxes in fractions, no sizes; the key is a file name .npz |
| pickle of img_id, img_h, img_w, boxes, features, objects_id ... in base64 or as arrays | VOLTA, ViLBERT |
| pickle of features, bbox, image_width, image_height | MMF |

`pip install '.[lmdb]'` brings what reads them. Pickles may hold arrays and plain values, nothing else.
"""

from __future__ import annotations

import importlib
import io
import pickle
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pybase64
from tqdm import tqdm

from datamodules.formats.arrays import Archive, image_id_of
from datamodules.formats.pickles import safe_loads
from datamodules.formats.release_tsv import LABEL_COLUMNS
from datamodules.stores import (
    LARGEST_ARRAY,
    LARGEST_NUMBER,
    Handling,
    Index,
    Regions,
    StoreError,
    check_id,
    convert_regions,
    reject,
    sha256_of,
    shown_id,
)
from lxmert.files import InputError

_NO_IMAGES = (b"keys", b"__keys__", b"num_records", b"__len__")
_DTYPES = {"boxes": "<f4", "features": "<f4", "objects_id": "<i8", "attrs_id": "<i8", "objects_conf": "<f4"}
_DTYPES["attrs_conf"] = "<f4"
_OTHERS_NAMES: dict[str, str] = {  # VOLTA's from HDF5, ViLBERT's, MMF's -> the release's
    **{"image_id": "img_id", "image_h": "img_h", "image_w": "img_w"},
    **{"image_height": "img_h", "image_width": "img_w"},
    **{"bbox": "boxes", "obj_id": "objects_id", "obj_conf": "objects_conf"},
    **{"attr_id": "attrs_id", "attr_conf": "attrs_conf"},
}


def convert_lmdb(
    folder: Path,
    store: Path,
    *,
    detector: str,
    progress: bool = True,
    handling: Handling = Handling(),  # noqa: B008  # frozen
) -> Path:
    """Convert an LMDB of region features, the folder with `data.mdb`, to a region store.

    Image sizes are 1 x 1 in the store where the source has none (UNITER's).
    Arguments, result and errors are those of `convert_npz`; InputError also where lmdb is not installed.
    """
    return convert_regions(Path(folder), Path(store), detector, progress, index_lmdb, read_lmdb, handling)


def index_lmdb(source: Path, bar: tqdm, index: Index) -> None:
    """Read every value; keep ids, sizes, counts and keys."""
    seen: set[bytes] = set()
    with _opened(source) as (transaction, entries):
        size = (source / "data.mdb").stat().st_size
        for key, value in transaction.cursor():
            bar.update(size // max(1, entries))
            if bytes(key) in _NO_IMAGES:
                continue
            with index.attempt():
                image_id, regions = _regions(source, bytes(key), value)
                count, dim = regions.features.shape
                if index.feature_dim and dim != index.feature_dim:
                    reject(regions.where, f"{dim} features, expected {index.feature_dim} as in the first image")
                if image_id in seen:
                    reject(regions.where, "another key is of the same image, expected one each")
                seen.add(image_id)
                index.feature_dim = dim
                index.add(image_id, regions.size, count, bytes(key))
    index.sha256 = sha256_of(source)


def read_lmdb(source: Path, index: Index, start: int) -> Generator[Regions, None, None]:
    """Read the images from number `start` on."""
    with _opened(source) as (transaction, _):
        for number in range(start, len(index.counts)):
            key = index.places[number]
            value = transaction.get(key)
            image_id, regions = _regions(source, key, value) if value is not None else (b"", None)
            expected = (index.counts[number], index.feature_dim)
            if regions is None or image_id != index.image_ids[number] or regions.features.shape != expected:
                raise StoreError(f"{source}: changed while it was converted. Run the conversion again.")
            yield regions


@contextmanager
def _opened(source: Path) -> Iterator[tuple[Any, int]]:
    """A transaction that reads, and the number of entries."""
    lmdb = _library("lmdb")
    data = source / "data.mdb"
    if not data.is_file():  # a pipe would be waited for
        raise StoreError(f"{data}: not a file. Check the path.")
    try:
        base = lmdb.open(str(source), readonly=True, lock=False, create=False, readahead=True)
    except lmdb.Error as error:
        raise StoreError(f"{data}: cannot be opened ({error}). Check that the file is whole.") from error
    try:
        needed = (base.info()["last_pgno"] + 1) * base.stat()["psize"]
        if data.stat().st_size < needed:  # reading beyond its end would end the process
            raise StoreError(f"{data}: of {data.stat().st_size} bytes, expected {needed}: it was cut off.")
        with base.begin(buffers=True) as transaction:
            yield transaction, base.stat()["entries"]
    except lmdb.Error as error:
        raise StoreError(f"{data}: cannot be read ({error}). Check that the file is whole.") from error
    finally:
        base.close()


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"LMDB is read with {name}, which is absent. Run `pip install '.[lmdb]'`.") from error


def _regions(source: Path, key: bytes, value: Any) -> tuple[bytes, Regions]:
    """An image's id and regions."""
    where = f"{source}: key {shown_id(key)}"
    if len(value) > LARGEST_ARRAY:
        reject(where, f"a value of {len(value):,} bytes, expected the regions of an image")
    found = _value(value, where)
    if "norm_bb" in found:
        image_id = image_id_of(key.decode(errors="surrogateescape"), ".npz").encode(errors="surrogateescape")
        boxes, fractions, size = found["norm_bb"], True, (1, 1)
    else:
        name = found.get("img_id", key)
        image_id = name if isinstance(name, bytes) else str(name).encode(errors="surrogatepass")
        boxes, fractions = found.get("boxes"), False
        size = (_whole(found.get("img_w"), "width", where), _whole(found.get("img_h"), "height", where))
    where = f"{source}: image {shown_id(image_id)}"
    check_id(image_id, where)
    features, boxes = _array_of(found.get("features"), "features", where), _array_of(boxes, "boxes", where)
    if boxes.ndim == 1 and boxes.size % 4 == 0:  # decoded from base64
        boxes = boxes.reshape(-1, 4)
    if features.ndim == 1 and features.size % len(boxes) == 0:
        features = features.reshape(len(boxes), -1)
    if features.ndim != 2 or boxes.ndim != 2 or len(features) != len(boxes) or boxes.shape[1] < 4:
        reject(where, f"features {features.shape} and boxes {boxes.shape}, expected (n, F) and (n, 4)")
    labels = {label: np.asarray(found[name]) for name, label in LABEL_COLUMNS.items() if name in found}
    for label, values in labels.items():
        if values.shape != (len(boxes),) or values.dtype.kind not in ("iu" if label.endswith("ids") else "fiu"):
            reject(where, f"{label} are {values.dtype} {values.shape}, expected a number for each region")
    features, boxes = (np.array(each, np.float32, order="C") for each in (features, boxes[:, :4]))
    return image_id, Regions(where, size, features, boxes, labels, fractions)


def _value(value: Any, where: str) -> dict[str, Any]:
    """What an image's value holds, by the release's names, arrays decoded."""
    try:
        if value[:2] == b"PK":
            with Archive(io.BytesIO(value)) as archive:
                return archive.read_all(("features", "norm_bb"), dict.fromkeys(("features", "norm_bb"), "f"))
        found = safe_loads(value) if value[:1] == b"\x80" and value[1] < 6 else _msgpack(value)
    except pickle.UnpicklingError as error:
        reject(where, str(error))
    except InputError:
        raise
    except Exception as error:  # of zip archives, numpy's headers and msgpack there are a dozen
        reject(where, f"cannot be read ({error!r:.200}), expected a pickle, npz or msgpack of its regions")
    if not isinstance(found, dict) or any(not isinstance(name, str) for name in found):
        reject(where, "its value is no object of arrays by name, expected features and boxes")
    named = {_OTHERS_NAMES.get(str(name), str(name)): item for name, item in found.items()}
    for name, dtype in _DTYPES.items():
        if isinstance(named.get(name), (str, bytes)):
            named[name] = _decoded(named[name], name, dtype, where)
    return named


def _array_of(value: Any, name: str, where: str) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or 0 in value.shape or not value.ndim:
        reject(where, f"no {name} in its value, expected an array of numbers")
    return value


def _msgpack(value: Any) -> Any:
    msgpack = _library("msgpack")
    return msgpack.unpackb(value, raw=False, strict_map_key=False, object_hook=_array)


def _array(found: dict[Any, Any]) -> Any:
    """The array that msgpack_numpy writes as an object; other objects as they are."""
    plain = {key.decode() if isinstance(key, bytes) else key: item for key, item in found.items()}
    if plain.get("nd") is not True:
        return found
    kind = plain["type"].decode() if isinstance(plain["type"], bytes) else plain["type"]
    dtype = np.dtype(kind)
    if dtype.kind not in "biuf":
        raise TypeError(f"an array of {dtype}")
    return np.frombuffer(plain["data"], dtype).reshape(plain["shape"])


def _decoded(text: str | bytes, name: str, dtype: str, where: str) -> np.ndarray:
    try:
        return np.frombuffer(pybase64.b64decode_as_bytearray(text, validate=True), dtype)
    except ValueError as error:  # binascii.Error is one
        reject(where, f"{name} ({error}), expected base64 of {np.dtype(dtype).name}")


def _whole(value: Any, what: str, where: str) -> int:
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value.item()
    if isinstance(value, (str, bytes)) and value.isdigit() and len(value) < 11:
        value = int(value)
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not 1 <= value <= LARGEST_NUMBER:
        reject(where, f"the image's {what} is {value!r:.40}, expected a whole number above 0")
    return int(value)
