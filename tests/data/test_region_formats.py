"""The formats that region features come in: each is recognised by what is in it, and becomes the same store.

The files are written by other means than the project's (`foreign`).
"""

import contextlib
import json
import os
import pickle
import random
import shutil
import sys
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pytest
from foreign import (
    DIM,
    FORMATS,
    IDS,
    RELEASE,
    SIX,
    Image,
    h5_of_100,
    h5_of_volta,
    h5_own,
    images,
    lmdb_of_mmf,
    mmf,
    npz,
    tsv,
    vinvl,
    write_tsv,
)

from datamodules.convert import convert_tsv
from datamodules.convert.__main__ import main as command
from datamodules.formats.pickles import safe_loads
from datamodules.stores import region_writer
from datamodules.stores.hdf5 import StoreError
from datamodules.stores.regions import RegionStore
from datamodules.validate.__main__ import validate


def run(source, store, *options):
    return command([str(source), str(store), "--detector", "mine", *map(str, options)])


def refusal(capsys, source, store, *options):
    """What the command says when it refuses."""
    assert run(source, store, *options) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "Traceback" not in said and not Path(store).exists()
    return said


def assert_store(path, images, labels=False, sizes=True):
    store = RegionStore(path)
    assert len(store) == len(images)
    numbers = store.require(list(images))
    features, boxes, mask = store.read(numbers)
    found = store.labels(numbers)
    for row, image in enumerate(images.values()):
        n = image.count
        assert mask[row].sum() == n
        np.testing.assert_array_equal(features[row, :n], image.features.astype(np.float16))
        np.testing.assert_allclose(boxes[row, :n], image.fractions, atol=1e-6)
        assert store.image_size([numbers[row]]).tolist() == [[image.width, image.height] if sizes else [1, 1]]
        expected = [image.objects, image.conf, image.attributes, image.conf]
        for got, truth in zip(found, expected if labels else [-1, 0, -1, 0], strict=True):
            np.testing.assert_array_equal(got[row, :n], truth)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_recognised_and_becomes_the_same_store(tmp_path, capsys, name):
    write, called, labels, sizes = FORMATS[name]
    truth = images() if name != "h5 of 36" else {each: Image(seed, 3) for seed, each in enumerate(IDS)}
    source = write(tmp_path, truth)
    assert run(source, tmp_path / "store.h5") == 0
    said = capsys.readouterr().out
    assert f"{source}: {called}" in said and "3 images" in said
    assert_store(tmp_path / "store.h5", truth, labels, sizes)
    assert RegionStore(tmp_path / "store.h5").contract["detector"] == "mine"
    report = next(report for report in validate(source)[0] if report.path == source)
    assert report.problems == [] and report.kind.startswith(called)
    made = (tmp_path / "store.h5").stat().st_mtime_ns
    assert run(source, tmp_path / "store.h5") == 0
    assert (tmp_path / "store.h5").stat().st_mtime_ns == made


def test_grids_become_regions_whose_boxes_are_their_cells(tmp_path):
    (tmp_path / "grids").mkdir()
    grids = {name: np.random.default_rng(n).random((2, 3, DIM)).astype(np.float32) for n, name in enumerate(IDS)}
    for name, grid in grids.items():
        np.save(tmp_path / "grids" / f"{name}.jpg.npy", grid)
    assert run(tmp_path / "grids", tmp_path / "a.h5") == 0
    store = RegionStore(tmp_path / "a.h5")
    features, boxes, _ = store.read(store.require(IDS))
    for row, grid in enumerate(grids.values()):
        np.testing.assert_array_equal(features[row], grid.reshape(6, DIM).astype(np.float16))
    third = 1 / 3
    expected = [[x * third, y / 2, (x + 1) * third, (y + 1) / 2] for y in range(2) for x in range(3)]
    np.testing.assert_allclose(boxes[0], expected, atol=1e-6)


def test_the_folder_of_vinvls_file_and_the_lineidx_beside_it_lead_to_it(tmp_path):
    path = vinvl("three")(tmp_path, images())
    for number, source in enumerate((tmp_path, path.with_suffix(".lineidx"))):
        store = tmp_path / "stores" / f"{number}.h5"
        assert run(source, store) == 0
        assert_store(store, images(), sizes=False)


# ------------------------------------------------------------------------- what the user has to say


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "release"])
def test_what_made_the_features_is_asked_for_where_the_format_does_not_tell(tmp_path, capsys, name):
    source = FORMATS[name][0](tmp_path, images())
    assert command([str(source), str(tmp_path / "a.h5")]) == 1
    said = capsys.readouterr().err
    assert "nothing tells what made the features" in said and "--detector mine" in said


def test_features_that_could_lie_either_way_are_asked_about(tmp_path, capsys):
    square = {name: Image(number, DIM) for number, name in enumerate(IDS)}
    source = npz(by_region=True)(tmp_path, square)
    said = refusal(capsys, source, tmp_path / "a.h5")
    assert "5 features of 5 regions in every file, which could lie either way" in said and "--features nxF" in said
    assert run(source, tmp_path / "a.h5", "--features", "nxF") == 0
    assert_store(tmp_path / "a.h5", square)
    assert run(source, tmp_path / "b.h5", "--features", "Fxn") == 0
    turned = RegionStore(tmp_path / "b.h5")
    np.testing.assert_array_equal(
        turned.read(turned.require(IDS[:1]))[0][0], square[IDS[0]].features.T.astype(np.float16)
    )


def test_one_file_that_is_not_square_tells_how_the_others_lie(tmp_path):
    some = {"a": Image(0, DIM), "b": Image(1, 3)}
    assert run(npz(by_region=True)(tmp_path, some), tmp_path / "a.h5") == 0
    assert_store(tmp_path / "a.h5", some)


def test_columns_that_are_not_known_are_named_by_the_user(tmp_path, capsys):
    columns = [
        "boxes",
        "more",
        "img_id",
        "img_h",
        "img_w",
        "query",
        "num_boxes",
        "features",
        "objects_id",
        "objects_conf",
    ]
    source = write_tsv(tmp_path / "a.tsv", columns, images())
    said = refusal(capsys, source, tmp_path / "a.h5")
    assert "a TSV of 10 columns, whole numbers in column 4, 5, 7: no layout that is known" in said
    assert "--columns A,B" in said
    named = ",".join("x" if column in ("more", "query") else column for column in columns)
    assert run(source, tmp_path / "a.h5", "--columns", named) == 0
    store = RegionStore(tmp_path / "a.h5")
    assert store.labels(store.require(IDS[:1]))[0].tolist() == [images()[IDS[0]].objects.tolist()]
    for wrong, message in (
        ("img_id,img_w", "0 columns img_h, expected one"),
        (named + ",x", "--columns names 11 columns, its first line has 10"),
        (named.replace(",x,", ",boxes,"), "3 columns boxes, expected one"),
    ):
        assert message in refusal(capsys, source, tmp_path / "b.h5", "--columns", wrong)


@pytest.mark.parametrize(
    ("write", "name", "change", "message"),
    [
        (h5_own, "image_w", lambda data: data[0], "image_w (), expected a number for each image, (3,)"),
        (h5_own, "image_h", lambda data: data[:1], "image_h (1,), expected a number for each image, (3,)"),
        (h5_own, "image_w", lambda data: data[:, None], "image_w (3, 1), expected a number for each image"),
        (h5_own, "num_boxes", lambda data: data - 0.5, "num_boxes float64 (3,), expected 3 whole numbers"),
        (h5_own, "num_boxes", lambda data: data * np.nan, "num_boxes float64 (3,), expected 3 whole numbers"),
        (h5_of_100, "image_bb", lambda data: data[:2], "image_bb (2, 4), expected (T, F) and (T, 4)"),
    ],
)
def test_sizes_counts_and_boxes_of_another_shape_are_named(tmp_path, capsys, write, name, change, message):
    source = write(tmp_path, images())
    with h5py.File(source, "a") as file:
        data = file[name][()]
        del file[name]
        file[name] = change(data)
    assert message in refusal(capsys, source, tmp_path / "a.h5")


def test_counts_may_be_whole_numbers_of_any_kind(tmp_path):
    source = h5_own(tmp_path, images())
    with h5py.File(source, "a") as file:
        counts = file["num_boxes"][()].astype(np.float32)
        del file["num_boxes"]
        file["num_boxes"] = counts
    assert run(source, tmp_path / "a.h5") == 0
    assert_store(tmp_path / "a.h5", images())


def test_ids_that_are_not_in_an_hdf5_file_are_asked_for(tmp_path, capsys):
    source = h5_of_100(tmp_path, images())
    ids = (tmp_path / "train_imgid2idx.pkl").rename(tmp_path / "ids.pkl")
    said = refusal(capsys, source, tmp_path / "a.h5")
    assert "without the images' ids" in said and "train_imgid2idx.pkl, with --ids FILE" in said
    assert run(source, tmp_path / "a.h5", "--ids", ids) == 0
    assert_store(tmp_path / "a.h5", images())
    (tmp_path / "ids.json").write_text(json.dumps({name: row for row, name in enumerate(["9", "25", "30"])}))
    assert run(source, tmp_path / "b.h5", "--ids", tmp_path / "ids.json") == 0
    assert RegionStore(tmp_path / "b.h5").index(["9", "25", "30"]).tolist() == [0, 1, 2]
    (tmp_path / "ids.json").write_text('{"9": 3}')
    assert "in row 3 of 3" in refusal(capsys, source, tmp_path / "c.h5", "--ids", tmp_path / "ids.json")
    (tmp_path / "ids.pkl").write_bytes(pickle.dumps(os.system))
    assert "the pickle names posix.system" in refusal(capsys, source, tmp_path / "c.h5", "--ids", ids)


def write_square(folder):
    folder.mkdir()
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    for number in range(3):
        np.savez(folder / f"{number}.npz", x=x + number, bbox=[[0, 0, 5, 5]] * 4, image_w=10, image_h=10)
    return folder


def write_rows_and_ids(folder):
    for name, ids in (("one", IDS), ("two", IDS[::-1])):
        (folder / f"{name}.json").write_text(json.dumps({image: row for row, image in enumerate(ids)}))
    return h5_of_100(folder, images())


@contextlib.contextmanager
def stopped_at_the_third():
    """A conversion gets a KeyboardInterrupt at its third image."""
    columns, done = region_writer.Regions.columns, []

    def stop(self, *arguments):
        done.append(self)
        if len(done) == 3:
            raise KeyboardInterrupt
        return columns(self, *arguments)

    with mock.patch.object(region_writer.Regions, "columns", stop):
        yield


SAID = {
    "columns": (
        lambda folder: write_tsv(folder / "a.tsv", RELEASE, images()),
        [[], ["--columns", ",".join({"objects_id": "attrs_id", "attrs_id": "x"}.get(c, c) for c in RELEASE)]],
    ),
    "order": (
        lambda folder: write_square(folder / "square"),
        [["--features", "nxF"], ["--features", "Fxn"]],
    ),
    "ids": (write_rows_and_ids, [["--ids", "one.json"], ["--ids", "two.json"], []]),
}


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("name", SAID)
def test_what_the_user_says_of_a_source_decides_whether_its_store_is_current(
    tmp_path, monkeypatch, caplog, name, killed
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(region_writer, "_IMAGES_PER_NOTE", 1)
    caplog.set_level("INFO")
    write, ways = SAID[name]
    source = write(tmp_path)
    for number, way in enumerate(ways):
        assert run(source, tmp_path / f"{number}.h5", "--boxes", "clip", *way) == 0
    wanted = [(tmp_path / f"{number}.h5").read_bytes() for number in range(len(ways))]
    assert len(set(wanted)) == len(ways)
    for way, made in zip(ways[1:] + ways[:1], wanted[1:] + wanted[:1], strict=True):
        if killed:
            other = next(other for other in ways if other != way)
            with stopped_at_the_third(), pytest.raises(KeyboardInterrupt):
                run(source, tmp_path / "killed.h5", "--boxes", "clip", *other)
            assert run(source, tmp_path / "killed.h5", "--boxes", "clip", *way) == 0
            assert (tmp_path / "killed.h5").read_bytes() == made
            (tmp_path / "killed.h5").unlink()
        else:
            assert run(source, tmp_path / "0.h5", "--boxes", "clip", *way) == 0
            assert (tmp_path / "0.h5").read_bytes() == made and "kept" not in caplog.text
    caplog.clear()
    assert run(source, tmp_path / "0.h5", "--boxes", "clip", *ways[0]) == 0
    assert "0.h5: kept, as it is current" in caplog.text


def test_other_ids_beside_a_file_make_another_store_and_a_store_that_tells_none_stays(tmp_path):
    source, ids = h5_of_100(tmp_path, images()), tmp_path / "train_imgid2idx.pkl"
    assert run(source, tmp_path / "a.h5") == 0
    with h5py.File(tmp_path / "a.h5", "a") as file:  # as stores were that tell of no file beside
        del file.attrs["ids_beside_sha256"]
    before = (tmp_path / "a.h5").read_bytes()
    assert run(source, tmp_path / "a.h5") == 0
    assert (tmp_path / "a.h5").read_bytes() == before
    assert run(source, tmp_path / "b.h5") == 0
    ids.write_bytes(pickle.dumps({image: row for row, image in enumerate(["9", "25", "30"])}))
    assert run(source, tmp_path / "b.h5") == 0
    assert RegionStore(tmp_path / "b.h5").index(["9", "25", "30"]).tolist() == [0, 1, 2]


def test_another_chunk_of_gqa_makes_another_store_also_in_the_middle_and_old_stores_stay(
    tmp_path, capsys, monkeypatch
):
    source = tmp_path / "gqa"
    source.mkdir()
    infos = {str(n): {"width": 9, "height": 9, "objectsNum": 2, "idx": n, "file": 0} for n in range(3)}
    (source / "gqa_objects_info.json").write_text(json.dumps(infos))

    def chunk(value):
        with h5py.File(source / "gqa_objects_0.h5", "w") as file:
            file["features"] = np.full((3, 2, DIM), value, np.float32)
            file["bboxes"] = np.tile(np.array([0, 0, 5, 5], np.float32), (3, 2, 1))
        os.utime(source / "gqa_objects_0.h5", ns=(value, value))

    def values(store):
        return np.unique(RegionStore(store).features[:]).tolist()

    chunk(1)
    assert run(source, tmp_path / "a.h5") == 0
    shutil.copy(tmp_path / "a.h5", tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "a") as file:  # as stores were that tell of no chunks
        del file.attrs["chunks_sha256"]
    columns = region_writer.Regions.columns

    def change(self, *arguments):
        os.utime(source / "gqa_objects_0.h5", ns=(5, 5))
        return columns(self, *arguments)

    monkeypatch.setattr(region_writer, "_IMAGES_PER_NOTE", 1)
    with stopped_at_the_third(), pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "b.h5")
    monkeypatch.setattr(region_writer.Regions, "columns", change)
    capsys.readouterr()
    assert "changed while it was converted" in refusal(capsys, source, tmp_path / "c.h5")
    monkeypatch.undo()
    chunk(2)
    for name, wanted in (("a", 2.0), ("b", 2.0), ("old", 1.0)):
        assert run(source, tmp_path / f"{name}.h5") == 0
        assert values(tmp_path / f"{name}.h5") == [wanted]
    (source / "gqa_objects_0.h5").unlink()  # a source that is gone leaves its store
    assert run(source, tmp_path / "a.h5") == 0


def test_a_folder_whose_files_change_places_or_are_older_makes_another_store_and_old_stores_stay(tmp_path):
    source = tmp_path / "grids"
    source.mkdir()

    def write(name, value, time):
        np.save(source / f"{name}.npy", np.full((1, 1, DIM), value, np.float32))
        os.utime(source / f"{name}.npy", ns=(time, time))

    def values():
        store = RegionStore(tmp_path / "a.h5")
        return [store.read(store.require([name]))[0][0, 0, 0].item() for name in "ab"]

    write("a", 1, 10)
    write("b", 2, 20)
    assert run(source, tmp_path / "a.h5") == 0 and values() == [1, 2]
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["source_mtime_ns"] = 20  # as stores were that told the newest time
    made = (tmp_path / "a.h5").stat().st_ino
    assert run(source, tmp_path / "a.h5") == 0 and (tmp_path / "a.h5").stat().st_ino == made
    write("a", 2, 20)
    write("b", 1, 10)
    assert run(source, tmp_path / "a.h5") == 0 and values() == [2, 1]
    write("b", 3, 5)
    assert run(source, tmp_path / "a.h5") == 0 and values() == [2, 3]


def test_nothing_but_a_store_of_a_conversion_is_overwritten(tmp_path, capsys):
    source = write_tsv(tmp_path / "a.tsv", SIX, images())
    assert run(source, tmp_path / "mine.h5") == 0
    rows = h5_of_100(tmp_path, images())
    with h5py.File(tmp_path / "texts.h5", "w") as file:
        file.attrs["format"] = "examples"
    (tmp_path / "notes.txt").write_text("mine")
    shutil.copy(tmp_path / "mine.h5", tmp_path / "extracted.h5")
    with h5py.File(tmp_path / "extracted.h5", "a") as file:
        file.attrs["detector_sha256"] = "0" * 64
    assert run(source, tmp_path / "extracted.h5") == 0  # it is of this source, which is all that is asked for
    (tmp_path / "b.tsv").write_bytes(source.read_bytes())
    for read, store, message in (
        (source, source, "is the source itself"),
        (rows, rows, "is the source itself"),
        (source, rows, "is there already, no region store"),
        (source, tmp_path / "texts.h5", "is there already, no region store"),
        (source, tmp_path / "notes.txt", "is there already, no region store"),
        (tmp_path / "b.tsv", tmp_path / "extracted.h5", "is there already, extracted from pictures"),
    ):
        before = store.read_bytes()
        assert run(read, store) == 1
        said = capsys.readouterr().err
        assert f"{store}: {message}" in said and "Give the store another name" in said
        assert store.read_bytes() == before
    assert run(tmp_path / "b.tsv", tmp_path / "mine.h5") == 0  # as ever
    assert RegionStore(tmp_path / "mine.h5").contract["source_name"] == "b.tsv"


def test_an_option_of_another_format_is_refused(tmp_path, capsys):
    source = tsv(SIX)(tmp_path, images())
    assert "--features is for npz files" in refusal(capsys, source, tmp_path / "a.h5", "--features", "nxF")
    assert "--ids is for HDF5 files" in refusal(capsys, source, tmp_path / "a.h5", "--ids", "x")


# --------------------------------------------------------------------------- what cannot be converted


def folder_of(name, content=b"x"):
    def write(folder):
        (folder / "some").mkdir()
        (folder / "some" / name).write_bytes(content)
        return folder / "some"

    return write


def file_of(name, content=b"x"):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def hdf5_of(**datasets):
    def write(folder):
        with h5py.File(folder / "a.h5", "w") as file:
            for name, value in datasets.items():
                file[name] = value
        return folder / "a.h5"

    return write


def npz_of(**arrays):
    def write(folder):
        (folder / "some").mkdir()
        np.savez(folder / "some" / "a.npz", **arrays)
        return folder / "some"

    return write


def npy_of(shape):
    def write(folder):
        (folder / "some").mkdir()
        np.save(folder / "some" / "a.npy", np.ones(shape, np.float32))
        return folder / "some"

    return write


def store_itself(folder):
    return convert_tsv(write_tsv(folder / "a.tsv", RELEASE, images()), folder / "a.h5", progress=False)


def without_features(folder):
    line = json.dumps({"image_w": 5, "image_h": 5, "objects": [{"rect": [0, 0, 1, 1], "class": "cat"}]})
    (folder / "predictions.tsv").write_text(f"a\t{line}\n")
    return folder / "predictions.tsv"


NOT_CONVERTED = {
    "pictures": (folder_of("a.JPG"), "recognised as pictures, which cannot be converted: a detector has to look"),
    "a folder of TSV files": (folder_of("a.tsv"), "a folder of a.tsv, which cannot be converted: each file makes"),
    "weights": (
        file_of("a.pth"),
        "a file of torch, caffe or pickle, which cannot be converted: reading it may run",
    ),
    "an archive": (file_of("a.zip"), "an archive, which cannot be converted: unpack it"),
    "one npz": (file_of("a.npz"), "one .npz file, which cannot be converted: there is one for each image"),
    "a region store": (store_itself, "a region store, which cannot be converted: it is what conversion makes"),
    "a chunk of GQA": (hdf5_of(features=[1.0], bboxes=[1.0]), "one chunk of GQA's object features, which cannot"),
    "patches in HDF5": (hdf5_of(features=np.ones((2, 3, 4)), image_id=[1, 2]), "HDF5 of features without boxes"),
    "captioning HDF5": (hdf5_of(**{"9_features": [1.0], "9_boxes": [1.0]}), "HDF5 of captioning features"),
    "boxes without sizes": (
        hdf5_of(features=np.ones((2, 3, 4)), boxes=np.ones((2, 3, 4)), image_id=[1, 2]),
        "boxes in pixels (boxes) without the images' sizes",
    ),
    "npz without boxes": (npz_of(feat=np.ones((3, 4))), "npz files of features without boxes, which cannot"),
    "other npz": (npz_of(scores=np.ones((3, 4))), "npz files of scores, which cannot be converted"),
    "CLIP's patches": (npy_of((50, 8)), "(n, F) features without boxes, and no a_info.npy beside"),
    "a grid (F, H, W)": (
        npy_of((2048, 14, 14)),
        "a grid of 2048 x 14 cells, expected (H, W, F): perhaps it is (F",
    ),
    "VinVL without features": (without_features, "objects without features, expected rect and feature of each"),
    "anything": (file_of("a.json", b"{}"), "no region features that we know. These are known:"),
}


@pytest.mark.parametrize(("write", "message"), NOT_CONVERTED.values(), ids=NOT_CONVERTED.keys())
def test_what_is_known_and_of_no_use_is_named_with_the_reason(tmp_path, capsys, write, message):
    said = refusal(capsys, write(tmp_path), tmp_path / "stores" / "a.h5")
    assert message in said
    assert "get it again" not in said.lower()


def test_another_layout_in_the_place_of_the_releases_is_called_by_its_name(tmp_path):
    source = tsv(SIX)(tmp_path, images())
    with pytest.raises(
        StoreError, match="six-column TSV of bottom-up-attention, expected regions of the LXMERT"
    ) as e:
        convert_tsv(source, tmp_path / "a.h5", progress=False)
    assert "python -m datamodules.convert SOURCE STORE --detector NAME" in str(e.value)


def test_lmdb_says_what_to_install(tmp_path, capsys, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr("datamodules.formats.region_lmdb.importlib.import_module", absent)
    assert "Run `pip install '.[lmdb]'`" in refusal(capsys, folder_of("data.mdb")(tmp_path), tmp_path / "a.h5")


def test_an_lmdb_that_is_cut_off_or_no_lmdb_is_refused(tmp_path, capsys):
    source = lmdb_of_mmf(tmp_path, {str(n): Image(n, 30) for n in range(30)})
    whole = (source / "data.mdb").read_bytes()
    (source / "data.mdb").write_bytes(whole[: len(whole) // 2])
    assert "it was cut off" in refusal(capsys, source, tmp_path / "a.h5")
    (source / "data.mdb").write_bytes(b"x" * 10_000)
    assert "cannot be opened" in refusal(capsys, source, tmp_path / "a.h5")


# ------------------------------------------------------------------------------------ bad images


def test_boxes_in_fractions_are_refused_where_pixels_are_expected(tmp_path, capsys):
    some = images()
    for image in some.values():
        image.boxes = image.fractions
    for number, write in enumerate((tsv(SIX), npz(), mmf, h5_of_volta)):
        said = refusal(capsys, write(tmp_path, some), tmp_path / "stores" / f"{number}.h5")
        assert "boxes in fractions of the image, expected pixels" in said


def test_width_and_height_exchanged_are_recognised(tmp_path, capsys):
    some = images()
    for image in some.values():
        image.boxes[0], (image.width, image.height) = [0, 0, 600, 400], (480, 640)
    said = refusal(capsys, tsv(SIX)(tmp_path, some), tmp_path / "a.h5")
    assert "boxes that fit when width and height are exchanged" in said


def test_a_box_a_hair_outside_is_moved_to_the_border_on_demand(tmp_path, capsys):
    some = images()
    some[IDS[1]].boxes[0] = [-2, 3, 642.5, 400]
    source = tsv(RELEASE)(tmp_path, some)
    said = refusal(capsys, source, tmp_path / "a.h5")
    assert "line 2, image küche 1: boxes outside the image" in said and "`--boxes clip` moves boxes" in said
    assert run(source, tmp_path / "a.h5", "--boxes", "clip") == 0
    store = RegionStore(tmp_path / "a.h5")
    np.testing.assert_allclose(store.read(store.require(IDS[1:2]))[1][0, 0], [0, 3 / 480, 1, 400 / 480])
    assert store.image_ids.tolist() == [name.encode() for name in IDS]
    some[IDS[1]].boxes[0] = [-2, 3, 700, 400]
    said = refusal(capsys, tsv(RELEASE)(tmp_path, some), tmp_path / "b.h5", "--boxes", "clip")
    assert "boxes outside the image" in said and "--boxes clip" not in said.replace("`--on-error", "")


def spoil_features(image):
    image.features[1, 2] = np.nan


def spoil_boxes(image):
    image.boxes = image.boxes[:, [2, 3, 0, 1]]


@pytest.mark.parametrize("spoil", [spoil_features, spoil_boxes])
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "h5 of 36"])
def test_bad_images_are_left_out_on_demand_and_listed(tmp_path, capsys, name, spoil):
    some, good = images(), images()
    spoil(some[IDS[1]])
    source, store = FORMATS[name][0](tmp_path, some), tmp_path / "stores" / "a.h5"
    assert IDS[1] in refusal(capsys, source, store)
    assert any(report.problems for report in validate(source)[0])
    assert run(source, store, "--on-error", "skip") == 0
    assert "1 images were left out, see" in capsys.readouterr().out
    (line,) = store.with_name("a.h5.skipped.txt").read_text(encoding="utf-8").splitlines()
    assert IDS[1] in line and str(source) in line and "Mend" not in line
    del good[IDS[1]]
    assert_store(store, good, *FORMATS[name][2:])


def test_lines_whose_structure_is_wrong_are_left_out_too_and_the_rest_is_as_without_them(tmp_path):
    some = {f"image{n}": Image(n) for n in range(6)}
    lines = tsv(RELEASE)(tmp_path, some).read_bytes().splitlines(keepends=True)
    source, store = tmp_path / "bad.tsv", tmp_path / "bad.h5"
    source.write_bytes(
        b"".join([b"x\ty\n", lines[0], lines[1], lines[1], lines[2][:200] + b"\n", *lines[3:], b"end"])
    )
    with pytest.raises(StoreError, match="line 1, image x: 2 columns, expected 10"):
        convert_tsv(source, store, progress=False)
    convert_tsv(source, store, progress=False, handling=region_writer.Handling(skip=True))
    reasons = store.with_name("bad.h5.skipped.txt").read_text().splitlines()
    assert [reason.split(": ")[1] for reason in reasons] == [
        "line 1, image x",
        "line 4, image image1",
        "line 5, image image2",
        "line 9, image end",
    ]
    del some["image2"]
    assert_store(store, some, labels=True)
    source.write_bytes(b"".join(lines))
    convert_tsv(source, store, progress=False)
    assert not store.with_name("bad.h5.skipped.txt").exists()


def test_bad_images_of_gqa_are_left_out_wherever_they_are_bad(tmp_path):
    some = {f"{n}": Image(n, 3) for n in range(4)}
    spoil_features(some["2"])
    info = {name: {"width": 640, "height": 480, "objectsNum": 3, "idx": int(name), "file": 0} for name in some}
    info["0"]["objectsNum"], info["1"]["width"] = 4, "640"
    (tmp_path / "gqa_objects_info.json").write_text(json.dumps(info))
    with h5py.File(tmp_path / "gqa_objects_0.h5", "w") as file:
        file["features"] = np.stack([image.features for image in some.values()])
        file["bboxes"] = np.stack([image.boxes for image in some.values()])
    assert run(tmp_path, tmp_path / "a.h5", "--on-error", "skip") == 0
    reasons = (tmp_path / "a.h5.skipped.txt").read_text().splitlines()
    assert len(reasons) == 3
    for reason, part in zip(reasons, ("expected counts", "idx 0 and objectsNum 4", "is nan"), strict=True):
        assert part in reason
    assert_store(tmp_path / "a.h5", {"3": some["3"]})


def test_a_pictures_ending_is_no_part_of_an_id_and_is_taken_off_once(tmp_path):
    for number, write in enumerate((npz(".npz"), mmf)):
        (tmp_path / str(number)).mkdir()
        source = write(tmp_path / str(number), images(["a.JPG", "b.jpg.png", "c.jpeg", "d.gif", "e", "f.svg"]))
        assert run(source, tmp_path / f"{number}.h5") == 0
        expected = [b"a", b"b.jpg", b"c", b"d", b"e", b"f.svg"]
        assert RegionStore(tmp_path / f"{number}.h5").image_ids.tolist() == expected


def test_facts_without_their_features_are_not_passed_over(tmp_path, capsys):
    source = mmf(tmp_path, images())
    (source / f"{IDS[2]}.npy").unlink()
    assert "image a.b c_info: cannot be read" in refusal(capsys, source, tmp_path / "a.h5")


def test_an_empty_file_and_one_that_is_absent_are_named(tmp_path, capsys):
    (tmp_path / "a.tsv").touch()
    assert "a.tsv: the file is empty" in refusal(capsys, tmp_path / "a.tsv", tmp_path / "a.h5")
    assert "b.tsv: no such file or folder" in refusal(capsys, tmp_path / "b.tsv", tmp_path / "a.h5")


def test_a_first_line_that_is_damaged_leaves_the_layout_known(tmp_path, capsys):
    source = tsv(SIX)(tmp_path, images())
    source.write_bytes(b"cut\t64\n" + source.read_bytes())
    assert "line 1, image cut: 2 columns, expected 6" in refusal(capsys, source, tmp_path / "a.h5")
    assert run(source, tmp_path / "a.h5", "--on-error", "skip") == 0
    assert_store(tmp_path / "a.h5", images())


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", [name for name in FORMATS if name == "release" or "TSV" in FORMATS[name][1]])
def test_blank_lines_are_passed_over(tmp_path, name, end):
    write, _, labels, sizes = FORMATS[name]
    source = write(tmp_path, images())
    with_blanks = end + source.read_bytes().replace(b"\n", b"\n" + end) + end
    source.write_bytes(with_blanks)
    assert next(report for report in validate(source)[0] if report.path == source).problems == []
    assert run(source, tmp_path / "a.h5") == 0
    assert_store(tmp_path / "a.h5", images(), labels, sizes)


def test_a_store_that_left_images_out_is_made_again_without(tmp_path, capsys):
    some = images()
    spoil_boxes(some[IDS[1]])
    source, store = tsv(SIX)(tmp_path, some), tmp_path / "a.h5"
    assert run(source, store, "--on-error", "skip") == 0
    assert run(source, store) == 1  # as it was, and its list beside
    assert len(RegionStore(store)) == 2 and store.with_name("a.h5.skipped.txt").exists()
    tsv(SIX)(tmp_path, images())
    assert run(source, store) == 0
    assert len(RegionStore(store)) == 3 and not store.with_name("a.h5.skipped.txt").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="names elsewhere are text")
def test_a_source_whose_name_is_no_text_is_converted_once(tmp_path):
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tsv"))
    write_tsv(source, RELEASE, images())
    for _ in range(2):
        convert_tsv(source, tmp_path / "a.h5", detector="mine", progress=False)
        assert RegionStore(tmp_path / "a.h5").contract["source_name"] == "caf\\xe9.tsv"
    made = (tmp_path / "a.h5").stat().st_mtime_ns
    convert_tsv(source, tmp_path / "a.h5", detector="mine", progress=False)
    assert (tmp_path / "a.h5").stat().st_mtime_ns == made


def test_a_source_without_a_good_image_makes_no_store(tmp_path, capsys):
    some = images()
    for image in some.values():
        spoil_features(image)
    said = refusal(capsys, tsv(SIX)(tmp_path, some), tmp_path / "a.h5", "--on-error", "skip")
    assert "no image in it can be used. The first: " in said


@pytest.mark.parametrize(
    "name", ["npz, F x n", "VinVL, three columns", "h5 of 100", "LMDB of MMF", "nine columns"]
)
def test_an_interrupted_conversion_goes_on_whether_it_skips_or_not(tmp_path, monkeypatch, name):
    some = {f"image{n}": Image(n) for n in range(8)}
    spoil_features(some["image2"])
    source = FORMATS[name][0](tmp_path, some)
    assert run(source, tmp_path / "truth.h5", "--on-error", "skip") == 0
    monkeypatch.setattr(region_writer, "_IMAGES_PER_NOTE", 1)
    real, calls = os.pwrite, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 6 * 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "a.h5", "--on-error", "skip")
    calls.clear()
    monkeypatch.setattr(os, "pwrite", lambda *a: (calls.append(a), real(*a))[1])
    assert run(source, tmp_path / "a.h5", "--on-error", "skip") == 0
    assert len(calls) == 6 * 4  # three of seven were done
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "truth.h5").read_bytes()


# ---------------------------------------------------------------------------------------- pickles


def test_a_pickle_may_hold_arrays_and_plain_values_and_nothing_else():
    good = {
        "a": np.arange(6.0).reshape(2, 3).T,
        "b": [1, "x", b"y", None],
        "c": np.float32(2),
        "d": np.array({"e": 1}),
    }
    for protocol in range(6):
        found = safe_loads(pickle.dumps(good, protocol))
        np.testing.assert_array_equal(found["a"], good["a"])
        assert found["b"] == good["b"] and found["c"] == 2 and found["d"].item() == {"e": 1}
    for bad in (os.system, Path("x"), np.random.default_rng(), np.array(["2020-01-01"], "M8[D]")):
        with pytest.raises(pickle.UnpicklingError):
            safe_loads(pickle.dumps(bad))
    for text in (b"cnumpy\nndarray\n(I1000000000000\ntR.", b"cbuiltins\neval\n(V1\ntR.", b"\x80", b""):
        with pytest.raises(pickle.UnpicklingError):
            safe_loads(text)


def test_a_pickle_whose_parts_contain_themselves_or_stand_for_more_than_there_is_is_refused():
    deep, loop, shared, chained = [], [], [1] * 10, [[]]
    for _ in range(100):
        deep = [deep]
        chained.append([chained[-1]])  # each one is seen before what it lies in
    loop.append({"a": (loop,)})
    for _ in range(12):
        shared = [shared] * 10
    array = np.empty(2, object)
    array[0] = shared  # numpy itself would go through all of it
    for bad in (deep, loop, shared, chained, array):
        with pytest.raises(pickle.UnpicklingError, match="containers"):
            safe_loads(pickle.dumps(bad))
    text = ["the man"] * 9
    assert safe_loads(pickle.dumps([text, text, (text, {"a": text})]))[2][1] == {"a": text}


# ---------------------------------------------------------------- one verdict of conversion and report


def mutated(content, chance):
    """`content` with one of its bytes, or a stretch of them, changed; most often within arrays."""
    place = chance.randrange(len(content))
    kind = chance.randrange(4)
    if kind == 0:
        return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
    if kind == 1:
        return (
            content[:place] + chance.choice([b"/////", b"AAAAA", b"8P//", b"\t", b"\n", b"-1"]) + content[place:]
        )
    if kind == 2:
        return content[:place] + content[place + chance.choice([1, 4, 60]) :]
    return content[:place] + chance.randbytes(8) + content[place + 8 :]


def spoilt(image, chance):
    """Change one thing about an image."""
    where = chance.choice(["features", "boxes", "objects", "attributes", "conf", "width", "height"])
    if where in ("width", "height"):
        setattr(image, where, chance.choice([0, 1, 2, 100, 479, 641, 10**6]))
        return
    array = getattr(image, where)
    place = tuple(chance.randrange(size) for size in array.shape)
    values = [-(2**31), -7, -1, 0, 399, 400, 1599, 1600, 2**31 - 1, 2**40]
    if array.dtype.kind == "f":
        values = [np.nan, np.inf, -np.inf, -0.004, -1, 0, 0.5, 1, 479, 480, 480.004, 640, 642, 65504, 65520, 1e30]
    array[place] = chance.choice(values)


def verdicts(source, store, detector):
    """Whether the report finds problems, and whether conversion refuses, with what they say."""
    problems = [problem for report in validate(source)[0] for problem in report.problems]
    named = ["--detector", detector] if detector else []
    refused = command([str(source), str(store), *named]) == 1
    return problems, refused


@pytest.mark.parametrize(
    ("name", "tries"),
    [("release", 60), ("six columns", 40), ("npz, F x n", 40), ("h5 of VOLTA", 30), ("npy of MMF", 30)],
)
def test_the_report_finds_problems_if_and_only_if_conversion_refuses(tmp_path, capsys, name, tries):
    counted = {True: 0, False: 0}
    for seed in range(tries):
        chance = random.Random(f"{name} {seed}")
        some = images()
        spoilt(some[chance.choice(IDS)], chance)
        (tmp_path / str(seed)).mkdir()
        source = FORMATS[name][0](tmp_path / str(seed), some)
        if source.is_file() and source.suffix == ".tsv" and chance.random() < 0.5:
            source.write_bytes(mutated(source.read_bytes(), chance))
        problems, refused = verdicts(source, tmp_path / f"{seed}.h5", "" if name == "release" else "mine")
        said = capsys.readouterr().err
        assert bool(problems) == refused, f"seed {seed}: {problems}, {said}"
        counted[refused] += 1
    assert min(counted.values()) > tries / 10, counted
