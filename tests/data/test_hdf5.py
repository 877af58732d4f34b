"""What a store may be made of: its own data, as large as the file can hold, whatever the attributes promise."""

import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
from folders import write_regions

from datamodules.convert import convert_tsv
from datamodules.stores import hdf5
from datamodules.stores import regions as features
from datamodules.stores.hdf5 import StoreError, map_dataset, map_datasets, offsets_of
from datamodules.stores.regions import RegionStore
from datamodules.stores.texts import ExampleStore, write_examples

ROOT = Path(__file__).parents[2]


@pytest.fixture
def regions(tmp_path):
    write_regions(tmp_path / "a.tsv", {f"image{i}": i for i in range(4)})
    return convert_tsv(tmp_path / "a.tsv", tmp_path / "a.h5", progress=False)


@pytest.fixture
def texts(tmp_path):
    with write_examples(tmp_path / "q.h5", groups=("kind",)) as writer:
        writer.append(
            texts=["Is it?", "What?"],
            ids=[1, 2],
            images=["a", "b"],
            labels=[{"yes": 1.0}, {}],
            groups={"kind": ["x", None]},
        )
    return tmp_path / "q.h5"


def external_link(file, name, other):
    file[name] = h5py.ExternalLink(str(other), f"/{name}")


def soft_link(file, name, other):
    file["aside"] = np.zeros(3)
    file[name] = h5py.SoftLink("/aside")


def external_storage(file, name, other):
    file.create_dataset(name, (64,), np.uint8, external=[(str(other), 0, 64)])


def virtual(file, name, other):
    layout = h5py.VirtualLayout((3,), np.uint8)
    layout[:] = h5py.VirtualSource(str(other), name, (3,))
    file.create_virtual_dataset(name, layout)


ELSEWHERE = {
    external_link: "is a link to elsewhere",
    soft_link: "is a link to elsewhere",
    external_storage: "takes its data from other files",
    virtual: "takes its data from other files",
}


@pytest.mark.parametrize("how", ELSEWHERE, ids=lambda how: how.__name__)
@pytest.mark.parametrize("name", ["features", "image_ids"])
def test_a_region_store_whose_data_are_elsewhere_is_refused(tmp_path, regions, how, name):
    other = tmp_path / "other.h5"
    other.write_bytes(regions.read_bytes())
    with h5py.File(regions, "r+") as file:
        del file[name]
        how(file, name, other)
    with pytest.raises(
        StoreError, match=rf"a\.h5: dataset '{name}' {ELSEWHERE[how]}, expected .*\. Delete it and"
    ):
        RegionStore(regions)


@pytest.mark.parametrize("how", ELSEWHERE, ids=lambda how: how.__name__)
def test_a_text_store_never_hands_on_the_bytes_of_another_file(tmp_path, texts, how):
    secret = tmp_path / "secret"
    secret.write_bytes(texts.read_bytes())
    with h5py.File(texts, "r+") as file:
        del file["text/bytes"]
        how(file, "text/bytes", secret)
    with pytest.raises(StoreError, match=rf"q\.h5: dataset 'text/bytes' {ELSEWHERE[how]}"):
        ExampleStore(texts)


def test_a_group_that_is_a_link_is_refused_too(tmp_path, texts):
    (tmp_path / "other.h5").write_bytes(texts.read_bytes())
    with h5py.File(texts, "r+") as file:
        del file["tables"]
        file["tables"] = h5py.ExternalLink("other.h5", "/tables")
    with pytest.raises(StoreError, match=r"q\.h5: dataset 'tables/\w+/\w+' is a link to elsewhere"):
        ExampleStore(texts)


def test_a_plugin_that_compresses_is_named(regions):
    with h5py.File(regions, "r+") as file:
        data = file["boxes"][()]
        del file["boxes"]
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk(data.shape)
        layout.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1,))
        kind, space = h5py.h5t.py_create(data.dtype), h5py.h5s.create_simple(data.shape)
        h5py.h5d.create(file.id, b"boxes", kind, space, layout)
    with pytest.raises(StoreError, match=r"dataset 'boxes' is compressed by a plugin, filter 32001"):
        RegionStore(regions)


@pytest.mark.parametrize("shape", [(2**50, 5), (2**40, 2**40)])
def test_a_shape_is_checked_against_the_file_before_anything_is_allocated(regions, shape):
    with h5py.File(regions, "r+") as file:
        del file["features"]
        file.create_dataset("features", shape, np.float16, chunks=(64, 5))
    with pytest.raises(StoreError, match=r"dataset 'features' is of \d+ bytes, of which the file has 0"):
        RegionStore(regions)


def test_data_that_were_never_written_are_not_zeros(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("whole", (9,), np.int32)
        file.create_dataset("chunked", (9,), np.int32, chunks=(3,))[:3] = 1
    for name in ("whole", "chunked"):
        with pytest.raises(StoreError, match=f"dataset '{name}' is of 36 bytes, of which the file has"):
            map_dataset(tmp_path / "a.h5", name)


def test_two_datasets_never_share_their_bytes(regions):
    with h5py.File(regions, "r+") as file:
        del file["attribute_ids"]
        file["attribute_ids"] = file["object_ids"]  # a second name of the same data
    with pytest.raises(StoreError, match=r"'(object|attribute)_ids' begins at byte \d+, before the end of"):
        RegionStore(regions)


def test_a_flipped_bit_in_the_structure_of_a_store_is_noticed(regions):
    content = bytearray(regions.read_bytes())
    place = content.index(offsets_of(regions, ["object_ids"])["object_ids"].to_bytes(8, "little"))
    content[place + 1] ^= 0x30  # the column would be read from elsewhere in the file
    regions.write_bytes(content)
    with pytest.raises(StoreError, match=r"a\.h5: .*cannot be read"):
        RegionStore(regions)


def test_texts_in_attributes_lie_where_damage_is_noticed(regions, texts):
    for path, word in ((regions, b"bottom-up"), (texts, b"examples")):
        content = path.read_bytes()
        assert b"GCOL" not in content  # the heap of texts without a length, which has no checksums
        damaged = bytearray(content)
        damaged[content.index(word)] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match="Delete it and convert its source again"):
            RegionStore(path) if path == regions else ExampleStore(path)


def test_a_store_with_attributes_as_h5py_writes_them_is_read_too(regions, texts):
    for path, open_it in ((regions, RegionStore), (texts, ExampleStore)):
        with h5py.File(path, "r+") as file:
            for name, value in list(file.attrs.items()):
                if isinstance(value, bytes):
                    file.attrs[name] = value.decode()
        open_it(path)
    assert RegionStore(regions).contract["source_name"] == "a.tsv"


WRONG = {
    "a step back": ("offsets", 1, 9, "'offsets' does not ascend from 0 to 14"),
    "another end": ("offsets", -1, 2**62, "'offsets' does not ascend from 0 to 14"),
    "another begin": ("offsets", 0, 1, "'offsets' does not ascend"),
    "more regions than the most": (
        "offsets",
        1,
        5,
        "'offsets' tells of 2 to 5 regions an image, its attributes of",
    ),
    "an order of other images": ("id_order", 0, 4, "'id_order' has values from 1 to 4, expected 0 to 3"),
    "an order that does not sort": ("id_order", 0, 1, "'id_order' does not sort the images' ids"),
    "an id twice": ("image_ids", 0, b"image1", "'id_order' does not sort the images' ids"),
    "an empty id": ("image_ids", 0, b"", "each there once and none empty"),
    "an id that is no text": ("image_ids", 3, b"\xff", r"image id b'\\xff' is not UTF-8"),
    "an image without a size": ("image_size", 0, 0, "'image_size' has values from 0 to 100"),
}


@pytest.mark.parametrize(("name", "place", "value", "message"), WRONG.values(), ids=WRONG.keys())
def test_opening_a_region_store_finds_values_that_cannot_be(regions, name, place, value, message):
    with h5py.File(regions, "r+") as file:
        file[name][place] = value
    with pytest.raises(StoreError, match=message):
        RegionStore(regions)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("feature_dim", "5", "its attribute feature_dim is '5', expected a whole number"),
        ("feature_dim", 6, r"'features' is float16 \(14, 5\), expected float16 \(14, 6\)"),
        ("num_images", np.nan, "its attribute num_images is nan, expected a whole number"),
        ("num_images", -4, "its attributes tell of -4 images"),
        ("num_images", 2**62, "its attributes tell of 4611686018427387904 images with 3 to 4 of 14 regions"),
        ("num_images", 5, r"'image_ids' is \|S6 \(4,\), expected \|S6 \(5,\)"),
        ("detector", 7, "its attribute detector is 7, expected a text"),
        ("detector", "\udcff", "its attribute detector is '.*', expected a text"),
        ("source_name", None, "its attribute source_name is absent"),
        ("kind", [1, 2], "not a region store"),
    ],
)
def test_opening_a_region_store_checks_the_types_of_its_attributes_first(regions, name, value, message):
    with h5py.File(regions, "r+") as file:
        del file.attrs[name]
        if isinstance(value, str):
            raw = np.array(value.encode(errors="surrogateescape"), h5py.string_dtype("utf-8", None))
            file.attrs[name] = raw
        elif value is not None:
            file.attrs[name] = value
    with pytest.raises(StoreError, match=message):
        RegionStore(regions)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("text/offsets", [0, 9, 11], "'text/offsets' is .*does not ascend|does not ascend from 0 to 11"),
        ("image", [0, 2], "'image' has values from 0 to 2, expected 0 to 1"),
        ("image", [-1, 0], "'image' has values from -1 to 0"),
        ("answer/code", [1], "'answer/code' has values from 1 to 1, expected 0 to 0"),
        ("groups/kind", [0, -2], "'groups/kind' has values from -2 to 0, expected -1 to 0"),
        ("answer/offsets", [0, 1, 7], "'answer/offsets' does not ascend from 0 to 1"),
    ],
)
def test_opening_a_text_store_finds_values_that_cannot_be(texts, name, value, message):
    value = [0, 12, 11] if name == "text/offsets" else value
    with h5py.File(texts, "r+") as file:
        file[name][...] = value
    with pytest.raises(StoreError, match=message):
        ExampleStore(texts)


def test_texts_and_ids_that_are_damaged_are_refused_when_they_are_read(texts):
    with h5py.File(texts, "r+") as file:
        file["text/bytes"][0] = 0xFF
        file["id/bytes"][1] = ord("x")
    store = ExampleStore(texts)
    with pytest.raises(StoreError, match=r"q\.h5: b'\\xffs it\?' in dataset 'text/bytes' is not UTF-8"):
        store.texts(np.array([0]))
    assert store.texts(np.array([1])) == ["What?"]
    with pytest.raises(StoreError, match=r"q\.h5: an id is no whole number"):
        store.read(np.array([1]))


def test_all_datasets_of_a_store_are_one_open_file(regions):
    def files():
        return len(list(Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    before = files()
    store = RegionStore(regions)
    store.read(range(4))
    assert files() <= before + 1
    assert all(isinstance(column, np.memmap) for column in map_datasets(regions, ["features", "boxes"]).values())


def limited(files, script, *arguments):
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        preexec_fn=limit,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_too_few_open_files_end_in_a_message(regions, texts):
    script = """
        import os, sys
        from datamodules.stores.texts import ExampleStore
        from datamodules.stores.regions import RegionStore
        from datamodules.stores.hdf5 import allow_open_files
        from lxmert.files import InputError

        def told(function, *arguments):
            try:
                function(*arguments)
            except InputError as error:
                print(error)

        told(allow_open_files, 0)
        told(allow_open_files, 4)
        RegionStore(sys.argv[1]).read([0])
        held = []
        while True:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        told(RegionStore, sys.argv[1])
        told(ExampleStore, sys.argv[2])
    """
    done = limited(64, script, regions, texts)
    assert done.returncode == 0, done.stderr
    workers, *stores = done.stdout.splitlines()
    assert workers.startswith("4 loader workers need some 72 open files, this process may have 64. Allow it more")
    assert [line.partition(": ")[0] for line in stores] == [str(regions), str(texts)]
    assert all("this process has too many open files. Allow it more" in line for line in stores)


def test_a_low_limit_of_open_files_is_raised_where_the_system_allows_it():
    script = """
        import resource
        from datamodules.stores.hdf5 import allow_open_files
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 400))
        allow_open_files(4)
        print(resource.getrlimit(resource.RLIMIT_NOFILE))
    """
    assert limited(400, script).stdout == "(72, 400)\n"


def test_reading_and_converting_do_without_what_only_unix_has(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delattr("mmap.MADV_WILLNEED", raising=False)
    monkeypatch.delattr("os.pwrite", raising=False)
    write_regions(tmp_path / "a.tsv", {f"image{i}": i for i in range(4)})
    store = RegionStore(convert_tsv(tmp_path / "a.tsv", tmp_path / "b.h5", progress=False))
    assert store._cold
    numbers = store.read(range(4))[0][:, 0, 0].tolist()
    assert numbers == [0, 1, 2, 3] and features.blocks_read() == 0
    hdf5.allow_open_files(1000)
