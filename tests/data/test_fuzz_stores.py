"""Damaged stores and damaged sources of stores: words soon, and never data that the checks could see are wrong.

Two kinds of damage: to the bytes, and to the structure, a dataset, link, attribute or array that is not what it
should be. `LXMERT_FUZZ=2000 pytest tests/test_fuzz_stores.py` for the long run.
"""

import json
import math
import zipfile
from functools import partial

import h5py
import numpy as np
import pytest
from folders import write_regions
from foreign import FORMATS, images
from fuzzing import COUNT, VALUES, damaged, mistaken_json
from fuzzing import survives as survives_many

from datamodules.convert import convert_gqa_objects, convert_tsv
from datamodules.convert import convert_npz as convert_npz_of
from datamodules.formats.region_formats import recognise
from datamodules.formats.release_vqa import convert_vqa
from datamodules.stores.region_writer import convert_regions
from datamodules.stores.regions import RegionStore
from datamodules.stores.texts import ExampleStore
from datamodules.validate.__main__ import validate
from datamodules.validate.findings import Findings
from datamodules.validate.regions import check_gqa_objects, check_region_store
from datamodules.validate.texts import check_text_store
from lxmert.files import InputError

survives = partial(survives_many, count=max(COUNT // 4, 1) if COUNT <= 40 else COUNT)
convert_npz = partial(convert_npz_of, detector="mine")
IMAGES = [f"image{i}" for i in range(6)]


# ------------------------------------------------------------------------------------ good files


@pytest.fixture
def tsv(tmp_path):
    path = tmp_path / "a.tsv"
    write_regions(path, {name: i for i, name in enumerate(IMAGES)})
    return path


@pytest.fixture
def regions(tmp_path, tsv):
    return convert_tsv(tsv, tmp_path / "a.h5", progress=False)


@pytest.fixture
def texts(tmp_path):
    rows = [
        {
            "question_id": i,
            "img_id": f"image{i % 3}",
            "sent": f"Is it {'é' * i}?",
            "label": {"yes": 1, "no": 0.3} if i % 2 else {},
            "answer_type": ["yes/no", "other"][i % 2],
            "question_type": "is it",
        }
        for i in range(6)
    ]
    answers = [{"answer": f"{i}", "answer_id": i, "answer_confidence": "yes"} for i in range(10)]
    ten = {"annotations": [{"question_id": 3, "image_id": 1, "answers": answers}]}
    for name, content in (("q.json", rows), ("ten.json", ten)):
        (tmp_path / name).write_text(json.dumps(content))
    return convert_vqa(tmp_path / "q.json", tmp_path / "q.h5", {"image0": tmp_path / "ten.json"})


def arrays_of(number, count):
    rng = np.random.default_rng(number)
    return {
        "x": rng.random((5, count)).astype(np.float32),
        "bbox": np.array([[1, 2, 30, 40]] * count, np.float32),
        "num_bbox": np.array(count),
        "image_w": np.array(100),
        "image_h": np.array(50),
        "objects_id": np.arange(count),
        "objects_conf": np.ones(count, np.float32),
    }


@pytest.fixture
def npz(tmp_path):
    folder = tmp_path / "npz"
    folder.mkdir()
    for i in range(2):
        np.savez_compressed(folder / f"image{i}.npz", **arrays_of(i, 3 + i))
    return folder / "image0.npz"


@pytest.fixture
def chunk(tmp_path):
    folder = tmp_path / "objects"
    folder.mkdir()
    info = {f"{i}": {"width": 100, "height": 50, "objectsNum": 2 + i, "idx": i, "file": 0} for i in range(4)}
    (folder / "gqa_objects_info.json").write_text(json.dumps(info))
    with h5py.File(folder / "gqa_objects_0.h5", "w") as file:
        file["features"] = np.random.default_rng(0).random((4, 8, 5), np.float32)
        file["bboxes"] = np.array([[[1, 2, 30, 40]] * 8] * 4, np.float32)
    return folder / "gqa_objects_0.h5"


# --------------------------------------------------------------------------------------- readers


def rows_of_regions(path):
    check_region_store(path, Findings(path))
    store = RegionStore(path)
    images = range(len(store))
    store.check_labels({"object_ids": 2**31, "attribute_ids": 2**31})
    return [
        *(store.image_ids.tolist(), store.index(IMAGES), store.image_size(images), *store.read(images)),
        *store.labels(images),
    ]


def rows_of_texts(path):
    check_text_store(path, Findings(path))
    store = ExampleStore(path)
    rows = np.arange(len(store))
    read = store.read(rows)
    tables = [store.table(name) for name in ("image", "answers", *store.groups, "annotator_answers")]
    return [
        *(read.texts, read.ids, store.texts(rows), store.groups, *tables, store.labelled),
        *(read.image, read.answer_counts, read.answers, read.scores, *read.groups.values()),
        read.annotator_answers,
    ]


def converted(convert, source, store):
    store.unlink(missing_ok=True)
    return rows_of_regions(convert(source, store, progress=False))


def equal(found, expected):
    return all(np.array_equal(a, b, equal_nan=False) for a, b in zip(found, expected, strict=True))


# ---------------------------------------------------------------------------------------- damage


def pieces(path):
    """Where the data of a store lie: whatever else of it is changed, the data are what they were."""
    found = []

    def add(_, item):
        if isinstance(item, h5py.Dataset) and item.size:
            found.append(slice(item.id.get_offset(), item.id.get_offset() + item.nbytes))

    with h5py.File(path) as file:
        file.visititems(add)
    return found


def right_unless_its_data_are_hit(path, read):
    """A `verify` for damaged bytes: read are the good values wherever the data themselves are as they were."""
    good, expected, where = path.read_bytes(), read(path), pieces(path)

    def verify(found):
        now = path.read_bytes()
        if all(now[piece] == good[piece] for piece in where):
            assert equal(found, expected), "read other data than were written"

    return verify


class MistakenStore:
    """Changes one thing in the structure of an HDF5 file; `changed_data` tells whether other data may be right."""

    def __init__(self, path):
        self.path = path.with_name("mistaken.h5")
        self.other = path.with_name("other.h5")
        self.other.write_bytes(path.read_bytes())
        self.changed_data = False

    def __call__(self, content, chance):
        self.changed_data = False
        self.path.write_bytes(content)
        with h5py.File(self.path, "r+") as file:
            names = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            if file.attrs and chance.random() < 0.25:
                self.attribute(file, chance.choice(sorted(file.attrs)), chance)
            else:
                name = chance.choice(names)
                how = (self.dtype, self.shape, self.value, self.link, self.layout, self.absurd)
                chance.choice(how)(file, name, chance)
        return self.path.read_bytes()

    def attribute(self, file, name, chance):
        value = chance.choice([*VALUES, [1, 2], [b"x"], 1 + 2j, h5py.Empty("f"), "absent"])
        self.changed_data = name in ("groups", "labelled", "annotated", "id_type")  # these say how to read
        del file.attrs[name]
        if value != "absent":
            try:
                file.attrs[name] = value
            except (TypeError, ValueError, OverflowError):
                file.attrs[name] = repr(value)[:100]

    def dtype(self, file, name, chance):
        data = file[name][()]
        del file[name]
        kind = chance.choice(["i1", ">i4", "u4", "f2", "f4", "f8", "c8", "?", "S3", "S0", "V8", "i4,f4", "text"])
        if kind == "text":
            file.create_dataset(name, data.shape, h5py.string_dtype())
        elif kind in ("V8", "i4,f4", "S0"):
            file.create_dataset(name, data.shape, np.dtype(kind if kind != "S0" else "S1"))
        else:
            try:
                file[name] = data.astype(kind)
            except (ValueError, TypeError):
                file[name] = np.zeros(data.shape, kind)

    def shape(self, file, name, chance):
        self.changed_data = name.startswith("tables/")  # an empty text more at the end of one is none of ours
        data = np.array(file[name][()])
        del file[name]
        if not data.shape:
            file[name] = chance.choice([data[None], h5py.Empty(data.dtype), np.array([data, data])])
            return
        file[name] = chance.choice(
            [
                lambda: data[:-1],
                lambda: np.concatenate([data, data[-1:]]),
                lambda: data[None],
                lambda: data[..., None],
                lambda: data.reshape(-1)[0],
                lambda: data[:0],
                lambda: data.T,
                lambda: h5py.Empty(data.dtype),
            ]
        )()

    def value(self, file, name, chance):
        self.changed_data = True
        data = np.array(file[name][()])
        place = tuple(chance.randrange(size) for size in data.shape)
        values = [-(2**63), -(2**31), -2, -1, 0, 1, 7, 2**31 - 1, 2**62, 2**63 - 1]
        with np.errstate(over="ignore"):
            value = np.array(chance.choice(values)).astype(data.dtype) if data.dtype.kind != "S" else b"\xff"
        data[place] = value
        file[name][...] = data

    def link(self, file, name, chance):
        others: list[str] = []
        file.visititems(lambda name, item: others.append(name) if isinstance(item, h5py.Dataset) else None)
        other = file[chance.choice(others)]
        data = file[name]
        shape, dtype = data.shape, data.dtype
        del file[name]
        how = chance.randrange(7)
        if how == 0:
            file[name] = h5py.SoftLink(f"/{other.name}")
        elif how == 1:
            file[name] = h5py.ExternalLink(self.other.name, f"/{name}")
        elif how == 2:
            file[name] = other
        elif how == 3:
            file.create_group(name)
        elif how == 4:
            size = math.prod(shape) * dtype.itemsize
            file.create_dataset(name, shape, dtype, external=[(str(self.other), 0, size)])
        elif how == 5:
            layout = h5py.VirtualLayout(shape, dtype)
            if shape:
                layout[:] = h5py.VirtualSource(str(self.other), name, shape)
            file.create_virtual_dataset(name, layout)

    def layout(self, file, name, chance):
        """The same data stored in another way, which is none of the reader's business; or by a plugin."""
        data = np.array(file[name][()])
        del file[name]
        if 0 in data.shape or not data.shape:
            file[name] = data
        elif chance.random() < 0.5:
            options = chance.choice([{"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True}])
            file.create_dataset(name, data=data, chunks=True, **options)
        else:
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_chunk(data.shape)
            layout.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1, 2))
            kind, space = h5py.h5t.py_create(data.dtype), h5py.h5s.create_simple(data.shape)
            h5py.h5d.create(file.require_group("/").id, name.encode(), kind, space, layout)
            file[name][...] = data

    def absurd(self, file, name, chance):
        """More than any file can hold, of which nothing is written."""
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
        larger = (chance.choice([2**33, 2**50, 2**60]), *shape[1:])
        file.create_dataset(name, larger, dtype, chunks=(64, *shape[1:]), maxshape=(None, *shape[1:]))


def right_unless_changed(mistake, expected):
    def verify(found):
        if not mistake.changed_data:
            assert equal(found, expected), "read other data than were written"

    return verify


def mistaken_arrays(content, chance, path):
    """An npz file with one array that is not what it should be."""
    path.write_bytes(content)
    with np.load(path) as file:
        arrays = dict(file)
    name = chance.choice(sorted(arrays))
    array = arrays.pop(name)
    how = chance.randrange(6)
    if how == 0:
        arrays[name] = np.array(chance.choice([v for v in VALUES if not isinstance(v, list)]))
    elif how == 1:
        kinds = ["f2", ">f4", "f8", "c8", "?", "S3", "U3", "u8", "O", "i4,f4", "M8[s]"]
        arrays[name] = np.zeros(array.shape, chance.choice(kinds))
    elif how == 2:
        arrays[name] = chance.choice([array[None], array.T, array.reshape(-1)[:0], array.reshape(-1)[0]])
    elif how == 3:
        arrays[name] = array.copy()
        values = [np.nan, np.inf, -1, 0, 2**31, 2**62]
        place = tuple(chance.randrange(size) for size in array.shape)
        with np.errstate(all="ignore"):
            arrays[name][place] = np.array(chance.choice(values)).astype(array.dtype)
    np.savez_compressed(path, **arrays)
    if how == 4:  # a header that promises more than there is
        with zipfile.ZipFile(path, "a") as archive:
            shape = chance.choice([(2**40,), (2**62, 2**62), (-1,), (3, 10**30)])
            header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + bytes([118, 0]) + header.encode() + b"1234")
    return path.read_bytes()


# ----------------------------------------------------------------------------------------- tests


def test_a_region_store_with_damaged_bytes_is_refused_or_read_rightly(regions):
    verify = right_unless_its_data_are_hit(regions, rows_of_regions)
    survives(rows_of_regions, regions, damaged, verify=verify)


def test_a_region_store_of_another_structure_is_refused_or_read_rightly(regions):
    change = MistakenStore(regions)
    survives(rows_of_regions, regions, change, verify=right_unless_changed(change, rows_of_regions(regions)))


def test_a_text_store_with_damaged_bytes_is_refused_or_read_rightly(texts):
    survives(rows_of_texts, texts, damaged, verify=right_unless_its_data_are_hit(texts, rows_of_texts))


def test_a_text_store_of_another_structure_is_refused_or_read_rightly(texts):
    change = MistakenStore(texts)
    survives(rows_of_texts, texts, change, verify=right_unless_changed(change, rows_of_texts(texts)))


def test_a_damaged_tsv_is_judged_alike_by_its_conversion_and_its_report(tsv):
    def judged(path):
        (report,) = validate(path)[0]
        try:
            converted(convert_tsv, path, path.with_name("b.h5"))
        except InputError:
            assert report.problems, "conversion refuses what the report finds good"
            raise
        refused = ("cannot be used", "twice", "boxes", "NaN", "empty")
        assert not any(word in problem for problem in report.problems for word in refused), report.problems

    survives(judged, tsv, damaged)


@pytest.mark.parametrize("change", [damaged, "mistaken"])
def test_a_damaged_npz_file_is_refused_or_converted(npz, change):
    def mistaken(content, chance):
        return mistaken_arrays(content, chance, npz.with_name("mistaken"))

    def read(path):
        return converted(convert_npz, path.parent, path.parent.with_name("b.h5"))

    survives(read, npz, change if callable(change) else mistaken)


@pytest.mark.parametrize("change", [damaged, mistaken_json])
def test_damaged_facts_of_gqas_object_features_are_refused_or_converted(chunk, change):
    info = chunk.with_name("gqa_objects_info.json")
    survives(lambda path: converted(convert_gqa_objects, path.parent, path.with_name("b.h5")), info, change)


@pytest.mark.parametrize("kind", ["bytes", "structure"])
def test_damaged_object_features_of_gqa_are_refused_or_converted(chunk, kind):
    change = damaged if kind == "bytes" else MistakenStore(chunk)

    def read(path):
        check_gqa_objects(path, Findings(path))
        return converted(convert_gqa_objects, path.parent, path.with_name("b.h5"))

    verify = right_unless_its_data_are_hit(chunk, read)
    if kind == "structure":
        verify = None
    survives(read, chunk, change, verify=verify)


FOREIGN = ["six columns", "npz with info", "npz of UNITER", "npy of MMF", "VinVL, objects", "VinVL, three columns"]


@pytest.mark.parametrize("name", FOREIGN)
def test_damaged_bytes_of_other_projects_files_are_judged_alike_by_conversion_and_report(tmp_path, name):
    source = FORMATS[name][0](tmp_path, images())
    file = source if source.is_file() else max(source.iterdir())

    def judged(path):
        report = next(report for report in validate(source)[0] if report.path == source)
        try:
            converted_as(recognise(source), tmp_path / "made")
        except InputError:
            assert report.problems, "conversion refuses what the report finds good"
            raise
        assert not report.problems, report.problems

    survives(judged, file, damaged)


@pytest.mark.parametrize("name", ["h5 of 36", "h5 of 100", "h5 of one's own", "h5 of VOLTA"])
@pytest.mark.parametrize("kind", ["bytes", "structure"])
def test_damaged_hdf5_of_other_projects_is_refused_or_converted(tmp_path, name, kind):
    source = FORMATS[name][0](tmp_path, images())

    def read(path):
        return converted_as(recognise(path), tmp_path / "made")

    change = damaged if kind == "bytes" else MistakenStore(source)
    survives(read, source, change)


def converted_as(known, store):
    store.unlink(missing_ok=True)
    return rows_of_regions(convert_regions(known.source, store, "mine", False, known.index, known.read))
