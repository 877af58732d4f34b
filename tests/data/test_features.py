"""The region store and its converters: real files, bad files, killed and refused conversions."""

import base64
import errno
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from datamodules.convert import convert_gqa_objects, convert_tsv
from datamodules.convert import convert_npz as convert_npz_of
from datamodules.convert.__main__ import main as command
from datamodules.formats import release_tsv
from datamodules.formats.gqa_objects import GQA_OBJECTS
from datamodules.formats.region_formats import KNOWN
from datamodules.stores import hdf5, region_writer
from datamodules.stores.hdf5 import StoreError, is_current, map_dataset, writing
from datamodules.stores.regions import RegionStore
from lxmert.files import InputError

DATA = Path(__file__).parents[2].parent / "shared" / "data"
TSV, NPZ = DATA / "coco10" / "train2014_obj36.tsv", DATA / "vqa_mini"
needs_tsv = pytest.mark.skipif(not TSV.exists(), reason=f"{TSV} is absent")
needs_npz = pytest.mark.skipif(not NPZ.exists(), reason=f"{NPZ} is absent")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
fork = multiprocessing.get_context("fork")
convert_npz = partial(convert_npz_of, detector="mine")

COLUMNS = ["img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"]
COLUMNS += ["num_boxes", "boxes", "features"]
WIDTH, HEIGHT, DIM = 640, 480, 8


# ---------------------------------------------------------------------------------------- helpers


def make_image(name, count=3, dim=DIM, seed=0):
    """One image as the TSV's columns hold it, arrays not yet encoded."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2)), axis=1) * [WIDTH, HEIGHT]
    return {
        "img_id": name,
        "img_h": HEIGHT,
        "img_w": WIDTH,
        "objects_id": rng.integers(0, 1600, count),
        "objects_conf": rng.random(count, np.float32),
        "attrs_id": rng.integers(0, 400, count),
        "attrs_conf": rng.random(count, np.float32),
        "num_boxes": count,
        "boxes": corners.reshape(count, 4).astype(np.float32),
        "features": rng.gamma(1, 1, (count, dim)).astype(np.float32),
    }


def encode(value):
    if isinstance(value, bytes):
        return value
    return base64.b64encode(value.tobytes()) if isinstance(value, np.ndarray) else str(value).encode()


def write_tsv(path, images, end=b"\n"):
    path.write_bytes(b"".join(b"\t".join(encode(image[c]) for c in COLUMNS) + end for image in images))
    return path


def make_store(folder, counts, dim=DIM):
    images = [make_image(f"image{i}", count, dim, seed=i) for i, count in enumerate(counts)]
    return convert_tsv(write_tsv(folder / "a.tsv", images), folder / "a.h5", progress=False)


def chunked_copy(store, path):
    """The same store with compressed chunks, which cannot be mapped."""
    with h5py.File(store) as old, h5py.File(path, "w") as new:
        new.attrs.update(old.attrs)
        for name, data in old.items():
            new.create_dataset(name, data=data[()], chunks=True, compression="gzip")
    return path


def oracle(store, images):
    """What `read` must give, by plain h5py."""
    with h5py.File(store) as file:
        offsets = file["offsets"][()]
        spans = [slice(offsets[i], offsets[i + 1]) for i in images]
        most = max(span.stop - span.start for span in spans)
        features = np.zeros((len(spans), most, file["features"].shape[1]), np.float16)
        boxes = np.zeros((len(spans), most, 4), np.float32)
        mask = np.zeros((len(spans), most), bool)
        for i, span in enumerate(spans):
            count = span.stop - span.start
            features[i, :count], boxes[i, :count] = file["features"][span], file["boxes"][span]
            mask[i, :count] = True
    return features, boxes, mask


def assert_reads_as(store, path, images):
    for got, expected in zip(store.read(images), oracle(path, images), strict=True):
        np.testing.assert_array_equal(got.numpy(), expected, strict=True)


def left_in(folder):
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


# ------------------------------------------------------------------------------------- real files


@needs_tsv
def test_the_real_tsv_is_converted_exactly_but_for_fp16(tmp_path):
    store = RegionStore(convert_tsv(TSV, tmp_path / "coco10.h5", progress=False))
    rows = [line.rstrip().split(b"\t") for line in TSV.read_bytes().splitlines()]
    images = store.require([row[0].decode() for row in rows])
    features, boxes, mask = store.read(images)
    labels = store.labels(images)

    def column(number, dtype):
        return np.stack([np.frombuffer(base64.b64decode(row[number]), dtype) for row in rows])

    truth = column(9, np.float32).reshape(10, 36, 2048)
    np.testing.assert_array_equal(features.numpy(), truth.astype(np.float16))
    real = truth > 1e-3
    assert np.mean(np.abs(features.numpy().astype(np.float32) - truth)[real] / truth[real]) < 3e-4
    size = np.array([[float(row[2]), float(row[1])] * 2 for row in rows], np.float32)
    np.testing.assert_array_equal(boxes.numpy(), column(8, np.float32).reshape(10, 36, 4) / size[:, None])
    assert mask.all() and (store.image_size(images).numpy() == size[:, :2]).all()
    for got, (number, dtype) in zip(labels, [(3, "<i8"), (4, "<f4"), (5, "<i8"), (6, "<f4")], strict=True):
        np.testing.assert_array_equal(got.numpy(), column(number, dtype))
    assert store.contract["num_images"] == 10 and store.feature_dim == 2048
    assert store.contract["source_name"] == TSV.name
    assert store.contract["source_sha256"] == hdf5.sha256_of(TSV)


@needs_npz
def test_a_real_folder_of_npz_is_converted_with_its_variable_counts(tmp_path):
    store = RegionStore(convert_npz(NPZ, tmp_path / "mini.h5", progress=False))
    ids = ["COCO_train2014_000000458752", "COCO_train2014_000000262146"]
    features, boxes, mask = store.read(store.require(ids))
    assert mask.sum(1).tolist() == [34, 26]
    for i, name in enumerate(ids):
        source = np.load(NPZ / f"{name}.jpg.npz")
        count = int(source["num_bbox"])
        np.testing.assert_array_equal(features[i, :count].numpy(), source["x"].T.astype(np.float16))
        width, height = np.float32(source["image_w"]), np.float32(source["image_h"])
        np.testing.assert_array_equal(boxes[i, :count].numpy(), source["bbox"] / np.array([width, height] * 2))
        assert not features[i, count:].any() and not boxes[i, count:].any()
    object_ids, object_conf, _, _ = store.labels([0, 1])
    assert (object_ids == -1).all() and (object_conf == 0).all()


# ---------------------------------------------------------------------------------------- reading


@given(
    counts=st.lists(st.integers(1, 7), min_size=1, max_size=12),
    picks=st.lists(st.integers(0, 10**6), min_size=1, max_size=20),
)
@settings(max_examples=25, deadline=None)
def test_any_images_in_any_order_read_as_plain_h5py_reads_them(tmp_path_factory, counts, picks):
    folder = tmp_path_factory.mktemp("store")
    path = make_store(folder, counts)
    images = np.array([pick % len(counts) for pick in picks])
    assert_reads_as(RegionStore(path), path, images)
    assert_reads_as(RegionStore(chunked_copy(path, folder / "chunked.h5")), path, images)
    shutil.rmtree(folder)


@pytest.mark.parametrize("counts", [[4] * 6, [4, 1, 3, 2, 4, 4]], ids=["uniform", "variable"])
def test_labels_are_padded_with_minus_one_and_zero(tmp_path, counts):
    path = make_store(tmp_path, counts)
    images = [2, 0, 1]
    object_ids, object_conf, attribute_ids, attribute_conf = RegionStore(path).labels(images)
    for i, image in enumerate(images):
        truth, count = make_image("", counts[image], seed=image), counts[image]
        np.testing.assert_array_equal(object_ids[i, :count], truth["objects_id"])
        np.testing.assert_array_equal(object_conf[i, :count], truth["objects_conf"])
        np.testing.assert_array_equal(attribute_ids[i, :count], truth["attrs_id"])
        np.testing.assert_array_equal(attribute_conf[i, :count], truth["attrs_conf"])
        assert (object_ids[i, count:] == -1).all() and not attribute_conf[i, count:].any()
    assert object_ids.dtype == torch.int64 and object_conf.dtype == torch.float32


def test_features_lie_on_whole_pages(tmp_path):
    path = make_store(tmp_path, [36] * 3, dim=2048)
    with h5py.File(path) as file:
        assert file["features"].id.get_offset() % 4096 == 0


def test_ids_are_found_whatever_their_order_and_length(tmp_path):
    store = RegionStore(make_store(tmp_path, [1] * 25))
    assert store.index(["image24", "image3", "no", "image24x", "", "é", "image0"]).tolist() == [
        24,
        3,
        -1,
        -1,
        -1,
        -1,
        0,
    ]
    assert store.index([]).tolist() == []
    with pytest.raises(StoreError, match=r"a\.h5: no regions of 2 .*: no, nor\. .*a\.tsv"):
        store.require(["image3", "no", "nor", "no"])
    with pytest.raises(StoreError, match=r"a\.h5: no image number -1"):
        store.read(np.array([0, -1]))


def test_an_empty_batch_reads_as_nothing(tmp_path):
    features, boxes, mask = RegionStore(make_store(tmp_path, [2, 2])).read([])
    assert features.shape == (0, 0, DIM) and boxes.shape == (0, 0, 4) and mask.shape == (0, 0)


def test_batches_that_are_kept_never_share_memory(tmp_path):
    path = make_store(tmp_path, [3, 3, 3, 3])
    store = RegionStore(path)
    order = [[i % 4, (i + 1) % 4] for i in range(20)]
    for images, (features, _, _) in zip(order, [store.read(images) for images in order], strict=True):
        np.testing.assert_array_equal(features, oracle(path, images)[0])


@pytest.mark.parametrize(
    "keep",
    [
        lambda features: features[0, 1:],
        lambda features: features.numpy()[0],
        lambda features: features.untyped_storage(),
        lambda features: features.view(torch.int16).T.detach(),
    ],
    ids=["slice", "numpy", "storage", "reinterpreted"],
)
@pytest.mark.filterwarnings("ignore:The use of `x.T`")
def test_a_view_keeps_its_buffer_from_being_used_again(tmp_path, keep):
    store = RegionStore(make_store(tmp_path, [3, 3, 3, 3]))

    def read_and_keep():
        features = store.read([0, 1])[0]
        return features.data_ptr(), keep(features)

    address, kept = read_and_keep()
    for _ in range(10):
        assert store.read([2, 3])[0].data_ptr() != address
    del kept
    assert address in {store.read([2, 3])[0].data_ptr() for _ in range(4)}


def test_a_loop_uses_a_few_buffers_again(tmp_path):
    store = RegionStore(make_store(tmp_path, [3, 3, 3, 3]))
    addresses, previous = set(), None
    for _ in range(50):
        features = store.read([0, 1])[0]
        addresses.add(features.data_ptr())
        previous = features
    assert previous is not None and len(addresses) == 2


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="cannot empty the page cache of a file here")
@pytest.mark.parametrize("counts", [[36] * 40, [36, 10, 20, 1] * 10], ids=["uniform", "variable"])
def test_a_cold_file_reads_the_same_and_is_read_ahead(tmp_path, counts):
    path = make_store(tmp_path, counts, dim=512)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    store = RegionStore(path)
    images = np.random.default_rng(0).permutation(len(counts))
    first = [tensor.clone() for tensor in store.read(images)]
    store.read(images)
    assert not store._cold
    for got, expected in zip(first, oracle(path, images), strict=True):
        np.testing.assert_array_equal(got, expected)


class Batches(Dataset):
    def __init__(self, store):
        self.store = store

    def __len__(self):
        return len(self.store)

    def __getitems__(self, images):
        return self.store.read(np.array(images)), images


@pytest.mark.parametrize("chunked", [False, True], ids=["mapped", "chunked"])
def test_two_workers_read_rightly_after_their_parent_has_read(tmp_path, chunked):
    path = make_store(tmp_path, [2, 5, 3, 4] * 8)
    store = RegionStore(chunked_copy(path, tmp_path / "chunked.h5") if chunked else path)
    held = store.read([0, 1])
    loader = DataLoader(
        Batches(store),
        batch_size=4,
        shuffle=True,
        num_workers=2,
        collate_fn=lambda x: x,
        multiprocessing_context="fork",
    )
    seen = []
    for _ in range(2):
        for tensors, images in loader:
            seen += images
            for got, expected in zip(tensors, oracle(path, images), strict=True):
                np.testing.assert_array_equal(got, expected)
            assert_reads_as(store, path, images)
    assert sorted(seen) == sorted(list(range(32)) * 2)
    np.testing.assert_array_equal(held[0], oracle(path, [0, 1])[0])


def test_a_pickled_store_carries_no_data_and_reads_the_same(tmp_path):
    path = make_store(tmp_path, [50] * 40)
    store = RegionStore(path)
    store.read(range(40))
    data = pickle.dumps(store)
    assert len(data) < 2000
    assert_reads_as(pickle.loads(data), path, [3, 1])


@needs_linux
def test_memory_does_not_grow_with_the_number_of_images_read(tmp_path):
    store = RegionStore(make_store(tmp_path, [36] * 1000, dim=512))  # 37 MB of features

    def anonymous():
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

    for _ in range(5):
        store.read(range(50))
    before = anonymous()
    for start in range(0, 1000, 50):
        store.read(range(start, start + 50))
    assert anonymous() - before < 4_000  # kB


# ------------------------------------------------------------------------------- sources, good and bad


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_line_ends_and_a_missing_last_one_make_no_difference(tmp_path, end):
    images = [make_image(f"image{i}", seed=i) for i in range(3)]
    source = write_tsv(tmp_path / "b.tsv", images, end)
    source.write_bytes(source.read_bytes()[: -len(end)])
    path = convert_tsv(source, tmp_path / "b.h5", progress=False)
    assert_reads_as(RegionStore(path), make_store(tmp_path, [3, 3, 3]), [2, 0, 1])


def bad(column, change):
    def damage(image):
        image[column] = change(image[column])

    return damage


def put(value, *place):
    def change(array):
        array = array.copy()
        array[place] = value
        return array

    return change


BAD_ROWS = {
    "a NaN feature": (bad("features", put(np.nan, 2, 5)), "feature 5 of region 2 is nan"),
    "an infinite feature": (bad("features", put(np.inf, 0, 1)), "feature 1 of region 0 is inf"),
    "a feature beyond fp16": (
        bad("features", put(-65536, 1, 0)),
        "feature 0 of region 1 is -65536.0, expected",
    ),
    "a NaN box": (bad("boxes", put(np.nan, 1, 2)), "box 1 is"),
    "a box beyond the width": (bad("boxes", put(WIDTH * 1.0001, 1, 2)), "an image 640 wide"),
    "a box before 0": (bad("boxes", put(-0.1, 1, 0)), "box 1 is [-0.1"),
    "x2 before x1": (bad("boxes", lambda b: b[:, [2, 1, 0, 3]]), "expected pixels x1 <= x2"),
    "height and width swapped": (lambda i: i.update(img_h=10_000, img_w=48), "an image 48 wide"),
    "a negative object id": (bad("objects_id", put(-1, 0)), "object ids from -1"),
    "a negative attribute id": (bad("attrs_id", put(-7, 0)), "attribute ids from -7"),
    "an infinite confidence": (
        bad("attrs_conf", put(np.inf, 0)),
        "attribute confidences hold NaN or infinity",
    ),
    "another feature size": (bad("features", lambda f: f[:, :-1]), "features has 112 base64 characters"),
    "a missing box": (bad("boxes", lambda b: b[:-1]), "boxes has 44 base64 characters, expected 64"),
    "a missing object": (
        bad("objects_id", lambda o: o[:-1]),
        "objects_id has 24 base64 characters, expected 32",
    ),
    "a count that is wrong": (bad("num_boxes", lambda n: n + 1), "for 4 boxes"),
    "no boxes": (bad("num_boxes", lambda n: 0), "num_boxes is '0', expected a whole number above 0"),
    "a height that is no number": (bad("img_h", lambda h: "tall"), "img_h is 'tall'"),
    "an id that was there before": (bad("img_id", lambda i: "good"), "line 1 is of the same image"),
    "characters that are not base64": (
        bad("features", lambda f: b"*" * 128),
        "expected base64 of 3 x 8 float32",
    ),
    "boxes in fractions": (
        bad("boxes", lambda b: b / np.float32(700)),
        "boxes in fractions of the image, expected pixels",
    ),
    "a width beyond all numbers": (
        lambda i: i.update(img_w=b"9" * 5000),
        "img_w is '99999999999999999999', expected",
    ),
    "an absurd count": (bad("num_boxes", lambda n: 2**31 - 1), "objects_id has 32 base64 characters, expected"),
    "a NaN for a count": (bad("num_boxes", lambda n: "NaN"), "num_boxes is 'NaN', expected a whole number"),
    "null for a column": (bad("objects_conf", lambda c: b"null"), "objects_conf has 4 base64 characters"),
    "an eleventh column": (
        bad("features", lambda f: base64.b64encode(f.tobytes()) + b"\tmore"),
        "features has 133 base64 characters, expected 128",
    ),
    "float64 features": (
        bad("features", lambda f: f.astype(np.float64)),
        "features has 256 base64 characters",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_is_refused_by_file_line_and_image(tmp_path, damage, message):
    images = [make_image("good", seed=1), make_image("broken", seed=2), make_image("last", seed=3)]
    damage(images[1])
    source = write_tsv(tmp_path / "bad.tsv", images)
    with pytest.raises(StoreError) as caught:
        convert_tsv(source, tmp_path / "bad.h5", progress=False)
    text = str(caught.value)
    assert text.startswith(f"{source}: line 2, image {images[1]['img_id']}: ") and message in text
    assert "Mend or remove this row" in text
    assert left_in(tmp_path) == ["bad.tsv"]


@pytest.mark.parametrize(
    ("image_id", "message"),
    [
        (b"good\0", r"img_id holds b'\x00', expected no control characters"),
        (b"\xef\xbb\xbfgood", r"img_id holds b'\xef\xbb\xbf'"),
        (b"go\rod", r"img_id holds b'\r'"),
        (b"\xff\xfe", r"img_id is b'\xff\xfe', expected UTF-8 text"),
        (b"x" * 10_000, "img_id is of 10,000 bytes, expected at most 255"),
        (b"", "img_id is empty"),
    ],
)
def test_an_id_that_the_store_could_not_keep_is_refused(tmp_path, image_id, message):
    images = [make_image("good"), make_image(image_id)]
    with pytest.raises(StoreError) as caught:
        convert_tsv(write_tsv(tmp_path / "a.tsv", images), tmp_path / "a.h5", progress=False)
    assert str(caught.value).startswith(f"{tmp_path / 'a.tsv'}: line 2, image ") and message in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_byte_order_mark_at_the_begin_of_a_file_is_no_part_of_the_first_id(tmp_path):
    source = write_tsv(tmp_path / "a.tsv", [make_image("first"), make_image("second", seed=1)])
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    path = convert_tsv(source, tmp_path / "b.h5", progress=False)
    assert RegionStore(path).image_ids.tolist() == [b"first", b"second"]
    np.testing.assert_array_equal(RegionStore(path).read([0])[0][0], make_image("")["features"].astype(np.float16))


def test_an_id_asked_for_is_never_cut_to_one_that_is_there(tmp_path):
    store = RegionStore(make_store(tmp_path, [1, 2]))
    assert store.index(["image1\0", "image1", "image10", "\ud800", "image1" + "x" * 10**6]).tolist() == [
        *(-1, 1, -1, -1, -1)
    ]


@pytest.mark.parametrize("convert_it", [convert_tsv, convert_npz, convert_gqa_objects])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, convert_it):
    folder = tmp_path / "folder"
    folder.mkdir()
    pipe = {convert_tsv: "a.tsv", convert_npz: "a.npz", convert_gqa_objects: "gqa_objects_info.json"}[convert_it]
    os.mkfifo(folder / pipe)
    source = folder / pipe if convert_it is convert_tsv else folder
    with pytest.raises(StoreError, match=rf"{pipe}: not a file\. Check the path"):
        convert_it(source, tmp_path / "a.h5", progress=False)


def test_a_folder_for_a_tsv_and_a_source_without_permission_are_named(tmp_path, monkeypatch):
    with pytest.raises(StoreError, match=r"not a file\. Check the path"):
        convert_tsv(tmp_path, tmp_path / "a.h5", progress=False)
    source = write_tsv(tmp_path / "a.tsv", [make_image("image")])

    def refuse(path, *arguments, **more):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        StoreError, match=r"a\.tsv: cannot be read \(Permission denied\)\. Check its owner and mode"
    ):
        convert_tsv(source, tmp_path / "a.h5", progress=False)


def test_a_box_within_the_tolerance_of_the_original_is_taken(tmp_path):
    image = make_image("edge")
    image["boxes"] = np.array([[-0.9e-5 * WIDTH, 0, WIDTH * (1 + 0.9e-5), HEIGHT]] * 3, np.float32)
    source = write_tsv(tmp_path / "a.tsv", [image])
    boxes = RegionStore(convert_tsv(source, tmp_path / "a.h5", progress=False)).read([0])[1]
    assert boxes[0, 0].tolist() == pytest.approx([-0.9e-5, 0, 1.000009, 1], abs=1e-7)


def test_lines_longer_than_the_buffer_and_cut_by_it_are_read_whole(tmp_path, monkeypatch):
    images = [make_image(f"image{i}", count=1 + 5 * i % 9, seed=i) for i in range(30)]
    source = write_tsv(tmp_path / "a.tsv", images, b"\r\n")
    truth = convert_tsv(source, tmp_path / "a.h5", progress=False).read_bytes()
    for block in (1, 100, 777):
        monkeypatch.setattr(release_tsv, "_BLOCK", block)
        assert convert_tsv(source, tmp_path / f"{block}.h5", progress=False).read_bytes() == truth
    monkeypatch.setattr(release_tsv, "_LONGEST_LINE", 100)
    with pytest.raises(StoreError, match=r"a\.tsv: a line of 100 bytes or more, not a TSV of regions"):
        convert_tsv(source, tmp_path / "b.h5", progress=False)


@pytest.mark.parametrize(
    ("keep", "message"),
    [(-40, "features has"), (60, "columns, expected 10"), (3, "image las: 1 columns, expected 10")],
)
def test_a_truncated_last_line_is_refused(tmp_path, keep, message):
    source = write_tsv(tmp_path / "bad.tsv", [make_image("good"), make_image("last")])
    first, last = source.read_bytes().splitlines(keepends=True)
    source.write_bytes(first + last[:keep])
    with pytest.raises(StoreError) as caught:
        convert_tsv(source, tmp_path / "bad.h5", progress=False)
    assert str(caught.value).startswith(f"{source}: line 2, image las") and message in str(caught.value)
    assert left_in(tmp_path) == ["bad.tsv"]


def test_empty_headed_and_missing_files_are_refused(tmp_path):
    (tmp_path / "empty.tsv").touch()
    (tmp_path / "headed.tsv").write_text("\t".join(COLUMNS) + "\n")
    for name, message in [
        ("empty", "the file is empty"),
        ("headed", "line 1, image img_id: img_h is"),
        ("no", "no such"),
    ]:
        with pytest.raises(StoreError, match=rf"{name}\.tsv: {message}"):
            convert_tsv(tmp_path / f"{name}.tsv", tmp_path / "a.h5", progress=False)


def write_npz(folder, name, **changes):
    image = make_image(name, count=4)
    content = {
        "x": image["features"].T,
        "bbox": image["boxes"],
        "num_bbox": 4,
        "image_w": WIDTH,
        "image_h": HEIGHT,
    }
    content |= changes
    np.savez(folder / f"{name}.npz", **{key: value for key, value in content.items() if value is not None})


BAD_NPZ = {
    "a transposed matrix": ({"x": np.ones((4, DIM), np.float32)}, r"x is of shape (4, 8), expected (8, 4)"),
    "another feature size": (
        {"x": np.ones((DIM + 1, 4), np.float32)},
        r"x is of shape (9, 4), expected (8, 4)",
    ),
    "a wrong count": ({"num_bbox": 5}, "bbox is of shape (4, 4), expected (5, 4)"),
    "no boxes": ({"bbox": None}, "expected an npz file with bbox, num_bbox, image_w, image_h"),
    "no size": ({"image_w": 0}, "4 boxes on 0 x 480 pixels"),
    "a NaN": ({"x": np.full((DIM, 4), np.nan, np.float32)}, "feature 0 of region 0 is nan"),
    "boxes outside": ({"bbox": np.full((4, 4), 700, np.float32)}, "an image 640 wide"),
    "short labels": ({"objects_id": np.ones(3, np.int64)}, "object_ids is of shape (3,), expected (4,)"),
    "complex features": ({"x": np.ones((DIM, 4), np.complex64)}, "x.npy holds complex64, expected numbers"),
    "ids that are texts": (
        {"objects_id": np.array(["a"] * 4)},
        "objects_id.npy holds <U1, expected whole numbers",
    ),
    "ids that are NaN": (
        {"objects_id": np.full(4, np.nan)},
        "objects_id.npy holds float64, expected whole numbers",
    ),
    "a count that is NaN": ({"num_bbox": np.nan}, "num_bbox.npy holds float64, expected whole numbers"),
    "a size in pieces": ({"image_w": 0.5}, "image_w.npy holds float64, expected whole numbers"),
    "a list of counts": ({"num_bbox": [4]}, "num_bbox is of shape (1,), expected ()"),
    "an absurd size": ({"image_h": 2**40}, "4 boxes on 640 x 1099511627776 pixels"),
    "a pickled object": ({"x": np.array([None])}, "x.npy holds object, expected numbers"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_NPZ.values(), ids=BAD_NPZ.keys())
def test_a_bad_npz_is_refused_by_file_and_image(tmp_path, changes, message):
    folder = tmp_path / "features"
    folder.mkdir()
    write_npz(folder, "good.jpg")
    write_npz(folder, "other.jpg", **changes)
    with pytest.raises(StoreError) as caught:
        convert_npz(folder, tmp_path / "a.h5", progress=False)
    assert str(caught.value).startswith(f"{folder / 'other.jpg.npz'}: image other: ")
    assert message in str(caught.value)
    assert left_in(tmp_path) == ["features"]


def bomb(path, shape, content):
    """An npz file whose features promise a shape and unpack to `content`."""
    image = make_image("", count=4)
    arrays = {"bbox": image["boxes"], "num_bbox": 4, "image_w": WIDTH, "image_h": HEIGHT}
    np.savez(path, **arrays)
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(b"\x93NUMPY\x01\x00" + bytes([118, 0]) + header.encode())
        for _ in range(content // 10**6):
            member.write(bytes(10**6))


@pytest.mark.parametrize(
    ("shape", "content"),
    [((10**6, 34), 136 * 10**6), ((2**40, 4), 10**6), ((2**62, 2**62), 0), ((DIM, 4), 10**6)],
    ids=[
        "one that keeps its promise",
        "a promise beyond memory",
        "a promise beyond counting",
        "more than promised",
    ],
)
def test_an_archive_is_measured_before_it_is_unpacked(tmp_path, shape, content):
    folder = tmp_path / "features"
    folder.mkdir()
    bomb(folder / "a.npz", shape, content)
    tracemalloc.start()
    with pytest.raises(
        StoreError, match=r"a\.npz: image a: .*x\.npy unpacks to \d+ bytes, expected its header's \d+"
    ):
        convert_npz(folder, tmp_path / "a.h5", progress=False)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_cut_off_npz_a_double_image_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(StoreError, match=r"no \.npz files"):
        convert_npz(tmp_path, tmp_path / "a.h5", progress=False)
    write_npz(tmp_path, "a.jpg", objects_id=np.arange(4), objects_conf=np.ones(4))
    store = RegionStore(convert_npz(tmp_path, tmp_path / "a.h5", progress=False))
    assert store.labels([0])[0].tolist() == [[0, 1, 2, 3]] and store.labels([0])[2].tolist() == [[-1] * 4]
    write_npz(tmp_path, "a.png")
    with pytest.raises(StoreError, match=r"a\.png\.npz: image a: a\.jpg\.npz is of the same image"):
        convert_npz(tmp_path, tmp_path / "a.h5", progress=False)
    (tmp_path / "a.png.npz").write_bytes((tmp_path / "a.jpg.npz").read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"a\.png\.npz: image a: cannot be read"):
        convert_npz(tmp_path, tmp_path / "a.h5", progress=False)
    assert len(RegionStore(tmp_path / "a.h5")) == 1


def write_gqa(folder, counts, places=8, dim=DIM):
    """GQA's object features: images spread over two chunks, what is beyond objectsNum left as garbage."""
    folder.mkdir(exist_ok=True)
    images = {str(100 - i): make_image(str(100 - i), places, dim, seed=i) for i in range(len(counts))}
    info = {
        name: {"width": WIDTH, "height": HEIGHT, "objectsNum": count, "idx": i // 2, "file": i % 2}
        for i, (name, count) in enumerate(zip(images, counts, strict=True))
    }
    for file in range(2):
        rows = [image for i, image in enumerate(images.values()) if i % 2 == file]
        for image, count in zip(rows, counts[file::2], strict=True):
            image["features"][count:], image["boxes"][count:] = np.nan, -1
        with h5py.File(folder / f"gqa_objects_{file}.h5", "w") as chunk:
            chunk["features"] = np.stack([image["features"] for image in rows])
            chunk["bboxes"] = np.stack([image["boxes"] for image in rows])
    (folder / "gqa_objects_info.json").write_text(json.dumps(info))
    return images, info


def test_object_features_of_gqa_are_converted_with_their_counts(tmp_path):
    counts = [3, 8, 1, 5, 2]
    images, _ = write_gqa(tmp_path / "objects", counts)
    path = convert_gqa_objects(tmp_path / "objects", tmp_path / "a.h5", progress=False)
    store = RegionStore(path)
    features, boxes, mask = store.read(store.require(list(images)))
    assert mask.sum(1).tolist() == counts
    for i, (image, count) in enumerate(zip(images.values(), counts, strict=True)):
        np.testing.assert_array_equal(features[i, :count], image["features"][:count].astype(np.float16))
        expected = image["boxes"][:count] / np.array([WIDTH, HEIGHT] * 2, np.float32)
        np.testing.assert_array_equal(boxes[i, :count], expected)
    assert (store.labels(range(5))[0] == -1).all() and store.contract["detector"] == GQA_OBJECTS
    made = path.stat().st_mtime_ns
    convert_gqa_objects(tmp_path / "objects", path, progress=False)
    assert path.stat().st_mtime_ns == made
    write_gqa(tmp_path / "objects", [2] * 5)
    assert RegionStore(convert_gqa_objects(tmp_path / "objects", path, progress=False)).read([0])[2].shape == (
        1,
        2,
    )


def test_an_interrupted_conversion_of_gqa_goes_on(tmp_path, monkeypatch):
    write_gqa(tmp_path / "objects", [3, 8, 1, 5, 2, 4, 4])
    truth = convert_gqa_objects(tmp_path / "objects", tmp_path / "b.h5", progress=False).read_bytes()
    monkeypatch.setattr(region_writer, "_IMAGES_PER_NOTE", 1)
    real, calls = os.pwrite, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 30:  # in the fifth image: the second chunk
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_gqa_objects(tmp_path / "objects", tmp_path / "a.h5", progress=False)
    calls.clear()
    path = convert_gqa_objects(tmp_path / "objects", tmp_path / "a.h5", progress=False)
    assert len(calls) == 3 * 6 and path.read_bytes() == truth


BAD_GQA = {
    "a count beyond the boxes": ({"objectsNum": 9}, {}, "image 99: idx 0 and objectsNum 9, expected less than 2"),
    "a row beyond the chunk": ({"idx": 2}, {}, "image 99: idx 2 and objectsNum 3"),
    "a place taken twice": ({"idx": 1}, {}, "is in the same place"),
    "no boxes": ({"objectsNum": 0}, {}, "image 99: {'width': 640"),
    "a width that is no number": ({"width": "640"}, {}, "expected counts width, height, objectsNum, idx, file"),
    "a width beyond all numbers": ({"width": 10**400}, {}, "image 99: {'width': 1000"),
    "features that are whole numbers": ({}, {"features": np.ones((2, 8, DIM), int)}, "features int64 and bboxes"),
    "a chunk elsewhere": (
        {},
        {"features": h5py.ExternalLink("gqa_objects_0.h5", "/features")},
        "is a link to els",
    ),
    "a chunk that is not there": ({"file": 7}, {}, "gqa_objects_7.h5: cannot be read"),
    "a NaN": (
        {},
        {"features": np.full((2, 8, DIM), np.nan, np.float32)},
        "image 99: feature 0 of region 0 is nan",
    ),
    "boxes outside": ({"width": 5}, {}, "in an image 5 wide"),
    "another feature size": ({}, {"features": np.ones((2, 8, DIM + 1), np.float32)}, "chunk 1 has 9 features"),
    "boxes that do not fit": (
        {},
        {"bboxes": np.ones((2, 7, 4), np.float32)},
        "bboxes (2, 7, 4), expected (n, 100",
    ),
    "no boxes in the chunk": ({}, {"bboxes": None}, "gqa_objects_1.h5: cannot be read"),
}


@pytest.mark.parametrize(("info", "content", "message"), BAD_GQA.values(), ids=BAD_GQA.keys())
def test_bad_object_features_of_gqa_are_refused_by_file_and_image(tmp_path, info, content, message):
    folder = tmp_path / "objects"
    _, infos = write_gqa(folder, [3] * 4)
    infos["99"] |= info
    (folder / "gqa_objects_info.json").write_text(json.dumps(infos))
    with h5py.File(folder / "gqa_objects_1.h5", "a") as chunk:
        for name, array in content.items():
            del chunk[name]
            if array is not None:
                chunk[name] = array
    with pytest.raises(StoreError) as caught:
        convert_gqa_objects(folder, tmp_path / "a.h5", progress=False)
    assert message in str(caught.value) and str(folder) in str(caught.value)
    assert left_in(tmp_path) == ["objects"]


def test_an_image_that_the_facts_of_gqa_name_twice_is_refused(tmp_path):
    write_gqa(tmp_path / "objects", [3] * 4)
    info = tmp_path / "objects" / "gqa_objects_info.json"
    text = info.read_text()
    info.write_text(text[:-1] + ', "99": {"width": 1, "height": 1, "objectsNum": 1, "idx": 0, "file": 0}}')
    with pytest.raises(InputError, match=r"gqa_objects_info\.json: '99' twice in one object"):
        convert_gqa_objects(tmp_path / "objects", tmp_path / "a.h5", progress=False)
    info.write_text(text.replace('"99"', '"9\\u0000"'))
    with pytest.raises(StoreError, match=r"image '9\\x00': img_id holds b'\\x00'"):
        convert_gqa_objects(tmp_path / "objects", tmp_path / "a.h5", progress=False)


def test_a_cut_off_chunk_and_a_cut_off_info_of_gqa_are_refused(tmp_path):
    folder = tmp_path / "objects"
    with pytest.raises(StoreError, match=r"gqa_objects_info\.json: no such file"):
        convert_gqa_objects(folder, tmp_path / "a.h5", progress=False)
    write_gqa(folder, [3] * 4)
    chunk, info = folder / "gqa_objects_1.h5", folder / "gqa_objects_info.json"
    chunk.write_bytes(chunk.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"gqa_objects_1\.h5: cannot be read"):
        convert_gqa_objects(folder, tmp_path / "a.h5", progress=False)
    info.write_text(info.read_text()[:50])
    with pytest.raises(InputError, match=r"gqa_objects_info\.json: broken or truncated JSON at line 1, column"):
        convert_gqa_objects(folder, tmp_path / "a.h5", progress=False)


# ------------------------------------------------------------------------- killed, full, forbidden, twice


# ------------------------------------------------------------------------------------- the command


def test_the_command_recognises_each_format_and_says_which(tmp_path, capsys):
    write_gqa(tmp_path / "objects", [3, 8, 1])
    (tmp_path / "npz").mkdir()
    write_npz(tmp_path / "npz", "a.jpg")
    write_tsv(tmp_path / "a.tsv", [make_image("a"), make_image("b")])
    for source, what, images in (
        ("a.tsv", "regions of the LXMERT release", 2),
        ("npz", "bottom-up-attention npz files", 1),
        ("objects", "object features of GQA", 3),
    ):
        store = tmp_path / "stores" / f"{source}.h5"
        named = ["--detector", "mine"] if source == "npz" else []
        assert command([str(tmp_path / source), str(store), *named]) == 0
        said = capsys.readouterr().out
        assert f"{source}: {what}\n" in said and f"{images} images" in said
        assert len(RegionStore(store)) == images
    assert RegionStore(store).contract["detector"] == GQA_OBJECTS


def test_the_command_writes_the_detector_that_it_is_told(tmp_path):
    source, store = write_tsv(tmp_path / "a.tsv", [make_image("a")]), tmp_path / "a.h5"
    assert command([str(source), str(store), "--detector", "VinVL"]) == 0
    assert RegionStore(store).contract["detector"] == "VinVL"


@pytest.mark.parametrize("name", ["absent", "empty", "a.json", "bad.tsv"])
def test_the_command_says_in_one_message_what_it_cannot_convert(tmp_path, name, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "bad.tsv").write_text("a\tb\n")
    assert command([str(tmp_path / name), str(tmp_path / "a.h5")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / name}: ") and "Traceback" not in said
    if name in ("empty", "a.json"):
        assert all(f"{known}: {looks}" in said for known, looks in KNOWN)
    assert not (tmp_path / "a.h5").exists()


def start(function, *arguments):
    process = fork.Process(target=function, args=arguments, kwargs={"progress": False})
    process.start()
    return process


@needs_linux
def test_a_conversion_killed_at_any_moment_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    images = [make_image(f"image{i}", count=1 + i % 7, dim=256, seed=i) for i in range(1500)]
    source = write_tsv(tmp_path / "a.tsv", images)
    monkeypatch.setattr(region_writer, "_IMAGES_PER_NOTE", 16)
    truth = convert_tsv(source, tmp_path / "b.h5", progress=False).read_bytes()
    store, note = tmp_path / "a.h5", tmp_path / ".a.h5.partial.json"
    done = []
    for _ in range(4):
        process = start(convert_tsv, source, store)
        before = note.stat().st_mtime_ns if note.exists() else 0
        while process.is_alive() and not (note.exists() and note.stat().st_mtime_ns != before):
            time.sleep(0.001)
        time.sleep(random.random() * 0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if store.exists():
            break
        done.append(json.loads(note.read_text())["done"])
    assert done and done == sorted(done)
    if not store.exists():
        written = []
        real = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda *a: (written.append(a), real(*a))[1])
        convert_tsv(source, store, progress=False)
        assert len(written) == 6 * (len(images) - done[-1])
    assert store.read_bytes() == truth
    assert left_in(tmp_path) == ["a.h5", "a.tsv", "b.h5"]


def test_an_unfinished_store_of_a_changed_source_is_begun_anew(tmp_path, monkeypatch):
    images = [make_image(f"image{i}", seed=i) for i in range(8)]
    source, store = write_tsv(tmp_path / "a.tsv", images), tmp_path / "a.h5"
    monkeypatch.setattr(region_writer, "_IMAGES_PER_NOTE", 2)
    real, calls = os.pwrite, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_tsv(source, store, progress=False)
    assert ".a.h5.partial" in left_in(tmp_path)
    images[0]["features"] = images[0]["features"] + 1
    write_tsv(source, images)
    calls += [()] * 100
    convert_tsv(source, store, progress=False)
    np.testing.assert_array_equal(RegionStore(store).read([0])[0][0], images[0]["features"].astype(np.float16))
    assert left_in(tmp_path) == ["a.h5", "a.tsv"]


NOTES = [
    *("", "{", "[]", "null", "7", '"text"', "\ufeff{}", "{}", '{"contract": {}}', "\0" * 100, "[" * 10_000),
    *(None, {"done": -1}, {"done": 10**6}, {"done": "4"}, {"done": True}, {"size": 1}, {"contract": []}),
]


@pytest.mark.parametrize("change", NOTES, ids=lambda change: str(change)[:20])
def test_a_damaged_note_of_an_unfinished_store_begins_it_anew(tmp_path, monkeypatch, change):
    images = [make_image(f"image{i}", seed=i) for i in range(8)]
    source, store = write_tsv(tmp_path / "a.tsv", images), tmp_path / "a.h5"
    truth = convert_tsv(source, tmp_path / "b.h5", progress=False).read_bytes()
    monkeypatch.setattr(region_writer, "_IMAGES_PER_NOTE", 2)
    real, calls = os.pwrite, []

    def counted(*arguments):
        calls.append(arguments)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", counted)
    with pytest.raises(KeyboardInterrupt):
        convert_tsv(source, store, progress=False)
    note, partial = tmp_path / ".a.h5.partial.json", tmp_path / ".a.h5.partial"
    if change is None:  # the unfinished store itself
        partial.write_bytes(bytes(partial.stat().st_size))
    else:
        noted = json.loads(note.read_text())
        note.write_text(change if isinstance(change, str) else json.dumps(noted | change))
    calls[:] = [()] * 100
    convert_tsv(source, store, progress=False)
    assert len(calls) == 100 + 6 * 8 and store.read_bytes() == truth
    assert left_in(tmp_path) == ["a.h5", "a.tsv", "b.h5"]


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    source = write_tsv(tmp_path / "a.tsv", [make_image(f"image{i}") for i in range(4)])
    real, calls = os.pwrite, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreError, match=r"a\.h5: cannot write into .*: the disk is full\. Free some space"):
        convert_tsv(source, tmp_path / "a.h5", progress=False)
    assert left_in(tmp_path) == ["a.tsv"]


def test_too_little_space_is_found_before_anything_is_written(tmp_path, monkeypatch):
    source = write_tsv(tmp_path / "a.tsv", [make_image("image")])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))
    with pytest.raises(StoreError, match=r"a\.h5: cannot write into .*GB needed, 0\.00 GB free"):
        convert_tsv(source, tmp_path / "a.h5", progress=False)
    assert left_in(tmp_path) == ["a.tsv"]


def limited_conversion(source, store, progress):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        convert_tsv(source, store, progress=progress)
    except StoreError as error:
        Path(f"{store}.txt").write_text(str(error))


def test_a_file_that_the_system_refuses_to_grow_leaves_nothing(tmp_path):
    source = write_tsv(tmp_path / "a.tsv", [make_image(f"image{i}", dim=1024) for i in range(50)])
    process = start(limited_conversion, source, tmp_path / "a.h5")
    process.join()
    assert "a.h5: cannot write into" in (tmp_path / "a.h5.txt").read_text()
    assert left_in(tmp_path) == ["a.h5.txt", "a.tsv"]


def test_a_folder_without_write_permission_is_named(tmp_path, monkeypatch):
    source = write_tsv(tmp_path / "a.tsv", [make_image("image")])
    with pytest.raises(StoreError, match=r"cannot write into .*a\.tsv: .* is a file, not a folder"):
        convert_tsv(source, source / "a.h5", progress=False)

    def refuse(path, *arguments):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(region_writer, "allocate", refuse)
    with pytest.raises(StoreError, match=rf"a\.h5: cannot write into {tmp_path}: no permission"):
        convert_tsv(source, tmp_path / "a.h5", progress=False)
    assert left_in(tmp_path) == ["a.tsv"]


def test_processes_that_convert_the_same_file_at_once_make_one_store(tmp_path):
    images = [make_image(f"image{i}", seed=i) for i in range(300)]
    source = write_tsv(tmp_path / "a.tsv", images)
    processes = [start(convert_tsv, source, tmp_path / "a.h5") for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert left_in(tmp_path) == ["a.h5", "a.tsv"]
    expected = np.stack([image["features"] for image in images]).astype(np.float16)
    np.testing.assert_array_equal(RegionStore(tmp_path / "a.h5").read(range(300))[0], expected)


def test_a_store_is_kept_until_its_source_changes(tmp_path):
    path = make_store(tmp_path, [2, 3])
    source, made = tmp_path / "a.tsv", path.stat().st_mtime_ns
    convert_tsv(source, path, progress=False)
    os.utime(source)
    assert is_current(path, source)
    convert_tsv(source, path, progress=False)
    assert path.stat().st_mtime_ns == made
    write_tsv(source, [make_image("new")])
    assert not is_current(path, source)
    convert_tsv(source, path, progress=False)
    assert RegionStore(path).index(["new"]).tolist() == [0]
    source.unlink()
    assert is_current(path, source) and not is_current(tmp_path / "no.h5", source)


# ------------------------------------------------------------------------------------- bad stores


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path):
    path = make_store(tmp_path, [20] * 20)
    content = path.read_bytes()
    for damaged in (content[:-1000], content[:100], b"text", b""):
        path.write_bytes(damaged)
        for use in (RegionStore, lambda p: is_current(p, tmp_path / "a.tsv")):
            with pytest.raises(StoreError, match=r"a\.h5: not a complete HDF5 store .* Delete it and convert"):
                use(path)
    with h5py.File(path, "w") as file:
        file["features"] = np.zeros(3)
    with pytest.raises(StoreError, match=r"a\.h5: not a region store \(without boxes"):
        RegionStore(path)
    path.write_bytes(content)
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(StoreError, match=r"a\.h5: format version 99, expected 1"):
        RegionStore(path)
    with pytest.raises(StoreError, match=r"no\.h5: no such store"):
        RegionStore(tmp_path / "no.h5")


def test_a_damaged_chunk_is_reported_when_it_is_read(tmp_path):
    path = chunked_copy(make_store(tmp_path, [20] * 20, dim=64), tmp_path / "chunked.h5")
    with h5py.File(path) as file:
        chunk = file["features"].id.get_chunk_info(0)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    with pytest.raises(StoreError, match=r"chunked\.h5: dataset 'features' cannot be read .* convert its source"):
        RegionStore(path).read([0])


def test_another_feature_size_is_refused_with_the_remedy(tmp_path):
    store = RegionStore(make_store(tmp_path, [2]))
    store.check_feature_dim(DIM)
    with pytest.raises(StoreError, match=r"a\.h5: regions have 8 features, the model expects 2048\. Set"):
        store.check_feature_dim(2048)


def test_a_file_held_by_a_writer_is_called_busy_not_damaged(tmp_path):
    path = make_store(tmp_path, [2])
    script = "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        writer.stdout.readline()
        with pytest.raises(StoreError, match=r"a\.h5: another process is writing it\. Try again"):
            RegionStore(path)
        writer.communicate(b"\n")
    assert len(RegionStore(path)) == 1


# ------------------------------------------------------------------------------- hdf5.py by itself


def test_map_dataset_maps_what_is_contiguous_and_reads_the_rest(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["plain"] = np.arange(10)
        file["none"] = np.zeros((0, 3), np.float32)
        file.create_dataset("chunked", data=np.arange(10), chunks=(3,), compression="gzip")
    plain, chunked = map_dataset(tmp_path / "a.h5", "plain"), map_dataset(tmp_path / "a.h5", "chunked")
    assert isinstance(plain, np.memmap) and plain.tolist() == list(range(10))
    assert not plain.flags.writeable
    assert map_dataset(tmp_path / "a.h5", "none").shape == (0, 3)
    assert chunked[2:4].tolist() == [2, 3] and np.asarray(chunked).tolist() == list(range(10))
    assert pickle.loads(pickle.dumps(chunked))[[1, 5]].tolist() == [1, 5]
    with pytest.raises(StoreError, match=r"a\.h5: no dataset 'other'"):
        map_dataset(tmp_path / "a.h5", "other")


def test_writing_replaces_only_when_all_went_well(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with writing(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    with pytest.raises(RuntimeError), writing(path) as temporary:
        temporary.write_text("second")
        raise RuntimeError
    assert path.read_text() == "first" and left_in(path.parent) == ["a.txt"]


def test_an_unreadable_source_is_not_called_a_write_error(tmp_path):
    with pytest.raises(PermissionError), writing(tmp_path / "a.txt"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "source.json"))
