"""Referring expressions: the makers' files, the boxes in stores and batches, and what is refused."""

import json
import os
import pickle
import re
import struct

import h5py
import numpy as np
import pytest
import torch
from folders import F, write_regions, write_rows, write_vocabulary

from datamodules.formats.refer import read_refer
from datamodules.formats.referring import Referring, convert_referring, read_referring, take_box, write_referring
from datamodules.formats.visual7w import boxes_to_describe, read_visual7w
from datamodules.grounding import GroundingDataModule
from datamodules.prepare import refcoco
from datamodules.prepare.__main__ import main as prepare
from datamodules.stores import ExampleStore, RegionStore, StoreError, write_examples
from datamodules.toy import ToyRefcocoDataModule
from datamodules.toy.refcoco import ToyRefcocoParameters, generate
from datamodules.validate.__main__ import validate
from lxmert.files import InputError

SIZES = {"train": 6, "val": 3, "testA": 2, "testB": 2, "pictures": 0, "regions": 8}  # of the toy
SIZE = {"id": 7, "width": 50, "height": 100}
BOX = [1.5, 2.0, 28.25, 38.0]


def ref(**changes):
    sentences = [{"tokens": ["red", "cat"], "raw": "Red cat!", "sent_id": 11, "sent": "red cat"}]
    sentences.append({"tokens": ["it"], "raw": "the cat", "sent_id": 12, "sent": "the cat"})
    row = {"ref_id": 3, "ann_id": 5, "image_id": 7, "split": "testA", "sentences": sentences, "sent_ids": [11, 12]}
    return row | {"file_name": "COCO_train2014_000000000007_3.jpg", "category_id": 1} | changes


def python2(value):
    """A value as Python 2's pickle of protocol 2 has it, whose texts are byte strings."""
    if isinstance(value, bytes | str):
        content = value if isinstance(value, bytes) else value.encode()
        return b"U" + bytes([len(content)]) + content  # SHORT_BINSTRING
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    return b"}(" + b"".join(python2(key) + python2(each) for key, each in value.items()) + b"u"


@pytest.fixture
def files(tmp_path):
    """REFER's two files, from a list of refs and what of the annotation is otherwise."""

    def write(refs, boxes=(BOX,), images=(SIZE,), content=None):
        annotations = [{"id": 5 + n, "image_id": 7, "bbox": list(box)} for n, box in enumerate(boxes)]
        folder = tmp_path / "refcoco"
        folder.mkdir(exist_ok=True)
        (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2) if content is None else content)
        (folder / "instances.json").write_text(json.dumps({"images": list(images), "annotations": annotations}))
        return folder / "refs(unc).p", folder / "instances.json"

    return write


# ----------------------------------------------------------------------------------- the makers' files


@pytest.mark.parametrize("length", [0, 1, 9, 100])
def test_a_pickle_that_is_cut_off_is_named(files, length):
    with pytest.raises(InputError, match=r"refs\(unc\)\.p: not read \(.*Get it again"):
        read_refer(*files([], content=pickle.dumps([ref()], protocol=2)[:length]))


def test_a_pickle_of_python_2_gives_the_texts_boxes_and_sizes(files):
    row = ref(sentences=[{"raw": "caf\u00e9", "sent_id": 1}, {"raw": b"caf\xe9", "sent_id": 2}])
    read = read_refer(*files([], content=b"\x80\x02" + python2([row]) + b"."))
    image = "COCO_train2014_000000000007"
    assert read == {
        "testA": [Referring(n, image, "caf\u00e9", (1.5, 2.0, 28.25, 38.0), (50, 100)) for n in (1, 2)]
    }
    assert read_refer(*files([ref()]))["testA"][0].text == "Red cat!"  # as it was written


class Shell:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize("harm", [Shell(), [ref(), Shell()], ref(split=Shell()), os.system, np.float64])
def test_a_pickle_that_would_run_code_is_refused_before_it_does(files, harm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"refs\(unc\)\.p: not read \(the pickle names .*Get it again"):
        read_refer(*files(harm))
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("refs", "message"),
    [
        ({"a": 1}, "expected REFER's list of refs"),
        ([ref(ann_id="5")], r"ref 0: ann_id is '5', expected an integer"),
        ([ref(sentences=[{"sent_id": 1, "raw": " "}])], r"ref_id 3: raw is ' ', expected a text"),
        ([ref(), ref(ref_id=4)], r"sent_id 11: 11 is there a second time"),
        ([ref(ann_id=99)], r"ref_id 3: its annotation 99 of image 7 is not in .*instances\.json"),
        ([ref(image_id=8)], r"ref_id 3: its annotation 5 of image 8 is not in"),
    ],
)
def test_refs_that_cannot_be_used_are_named(files, refs, message):
    with pytest.raises(InputError, match=message):
        read_refer(*files(refs))


@pytest.mark.parametrize(
    "box", [[30, 2, 22, 38], [1, 63, 20, 39], [-2, 2, 20, 30], [1, 2, 0, 30], [1, 2, 3], ["a", 2, 3, 4]]
)
def test_a_box_outside_of_its_picture_is_named_with_its_ref_and_numbers(files, box):
    paths, numbers = files([ref()], boxes=[box]), re.escape(str(box))
    with pytest.raises(
        InputError, match=rf"refs\(unc\)\.p: ref_id 3: box (is )?{numbers}.*(of 50 x 100 pixels|expected x, y)"
    ):
        read_refer(*paths)


def test_a_box_a_pixel_out_is_cut_at_the_edges():
    where = ("file", "row", 0)
    assert take_box([-1, -0.5, 52, 101], where, (50, 100)) == (0, 0, 50, 100)
    assert take_box([-1, 2, 30, 40], where, None) == (0, 2, 29, 40)
    assert take_box([0.1, 0.2, 29.7, 33.3], where, (50, 100)) == (0.1, 0.2, 29.7, 33.3)
    with pytest.raises(InputError, match="above 0"):
        take_box([-1, 2, 1, 40], where, None)  # nothing would be left of it
    for box in (
        [50, 2, 1, 40],
        [50.5, 2, 0.4, 40],
        [2, 100, 9, 1],
        [2, 100.5, 9, 0.5],
        [2, -1, 9, 1],
        [2, 2, 0, 9],
    ):
        with pytest.raises(InputError, match="above 0 within its picture of 50 x 100 pixels"):
            take_box(box, where, (50, 100))
    assert take_box([49.5, 99.5, 1, 1], where, (50, 100)) == (49.5, 99.5, 0.5, 0.5)
    with pytest.raises(InputError, match=r"is .*nan.*, expected x, y"):
        take_box([1, 2, float("nan"), 40], where, None)


def pointing(**question):
    boxes = [{"box_id": n, "x": 10 * n - 11, "y": 1, "width": 9, "height": 30, "name": "any"} for n in range(1, 5)]
    question = {"qa_id": 1, "question": "Which cat is red?", "answer": 3, "multiple_choices": [1, 2, 4]} | question
    image = {"image_id": 9, "filename": "v7w_9.jpg", "split": "val", "qa_pairs": [question]}
    return {"dataset": "visual7w", "images": [image], "boxes": boxes}


def test_visual7w_gives_the_right_box_and_the_others(tmp_path):
    path = tmp_path / "dataset_v7w_pointing.json"
    path.write_text(json.dumps(pointing()))
    [row] = read_visual7w(path)["val"]
    others = ((0, 1, 8, 30), (9, 1, 9, 30), (29, 1, 9, 30))  # the first began at -1
    assert row == Referring(1, "v7w_9", "Which cat is red?", (19, 1, 9, 30), None, others)
    assert boxes_to_describe([row, row]) == {
        "v7w_9": [[19, 1, 28, 31], [0, 1, 8, 31], [9, 1, 18, 31], [29, 1, 38, 31]]
    }
    assert [found.kind for found in validate(path)[0]] == ["Visual7W's pointing questions"]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"answer": 8}, "qa_id 1: 8 is the id of no box"),
        ({"multiple_choices": [1, 3]}, r"qa_id 1: multiple_choices is \[1, 3\], expected wrong boxes"),
        ({"multiple_choices": ["1"]}, "qa_id 1: '1' is the id of no box"),
    ],
)
def test_pointing_questions_without_their_boxes_are_named(tmp_path, question, message):
    path = tmp_path / "dataset_v7w_pointing.json"
    path.write_text(json.dumps(pointing(**question)))
    with pytest.raises(InputError, match=message):
        read_visual7w(path)


# ------------------------------------------------------------------------------------------- preparing


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    parameters = ToyRefcocoParameters(**SIZES, feature_dim=F)
    return generate(tmp_path_factory.mktemp("toy") / "toy", parameters, progress=False)


def test_prepared_stores_hold_what_the_rows_say_and_are_kept(toy, tmp_path, capsys):
    command = ["refcoco", str(tmp_path), "--official", str(toy / "refcoco"), "--stores", str(tmp_path / "s")]
    assert prepare(command) == 0
    for split in ("train", "val", "testA", "testB"):
        rows = json.loads((toy / "refcoco" / f"{split}.json").read_text())
        assert json.loads((tmp_path / "s" / "refcoco" / f"{split}_truth.json").read_text()) == rows
        store = ExampleStore(tmp_path / "s" / "refcoco" / f"{split}.h5")
        found = store.read(np.arange(len(store)))
        assert found.ids == [row["id"] for row in rows] and found.texts == [row["sent"] for row in rows]
        np.testing.assert_array_equal(found.numbers["box"], np.array([row["box"] for row in rows], np.float32))
        assert found.numbers["size"].tolist() == [row["size"] for row in rows]
    assert prepare(command) == 0 and "kept" in capsys.readouterr().out
    assert prepare([*command, "--division", "google"]) == 1
    assert "refs(google).p: the expressions" in capsys.readouterr().err


def test_a_split_that_the_makers_have_not_is_named(toy, tmp_path, capsys):
    (tmp_path / "refcocog").mkdir()
    for name, copy in (("refs(unc).p", "refs(umd).p"), ("instances.json", "instances.json")):
        (tmp_path / "refcocog" / copy).write_bytes((toy / "refcoco" / name).read_bytes())
    assert prepare(["refcocog", str(tmp_path)]) == 1
    assert "no split test, only train, val, testA, testB. Choose some with --splits" in capsys.readouterr().err
    assert prepare(["refcocog", str(tmp_path), "--splits", "val"]) == 0


def test_another_division_has_the_splits_that_its_file_has(files, tmp_path, capsys):
    splits = ("train", "val", "test")
    sentences = [[{"raw": "a cat", "sent_id": number}] for number in range(3)]
    path, _ = files([ref(split=split, sentences=each) for split, each in zip(splits, sentences, strict=True)])
    path.rename(path.with_name("refs(google).p"))
    command = ["refcoco", str(tmp_path), "--division", "google"]
    assert prepare([*command, "--splits", "test"]) == 0
    assert prepare(command) == 0
    assert sorted(path.stem for path in (tmp_path / "stores" / "refcoco").glob("*.h5")) == sorted(splits)
    assert prepare([*command, "--splits", "testA"]) == 1
    assert "no split testA, only train, val, test." in capsys.readouterr().err


@pytest.mark.parametrize("step", ["write_rows", "write_referring"])
def test_a_store_and_its_truth_are_of_the_same_files_after_a_stop(files, tmp_path, monkeypatch, step):
    splits = ("train", "val", "testA", "testB")

    def write(text):
        sentences = [[{"raw": text, "sent_id": number}] for number in range(4)]
        files([ref(split=split, sentences=each) for split, each in zip(splits, sentences, strict=True)])

    def stop(path, *arguments):
        if path.name.startswith("testB"):
            raise KeyboardInterrupt
        return whole(path, *arguments)

    write("an old cat")
    assert prepare(["refcoco", str(tmp_path)]) == 0
    write("a new red cat")
    whole = getattr(refcoco, step)
    monkeypatch.setattr(refcoco, step, stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(["refcoco", str(tmp_path)])
    monkeypatch.setattr(refcoco, step, whole)
    assert prepare(["refcoco", str(tmp_path)]) == 0
    for split in splits:
        truth = json.loads((tmp_path / "stores" / "refcoco" / f"{split}_truth.json").read_text())
        store = ExampleStore(tmp_path / "stores" / "refcoco" / f"{split}.h5")
        assert [row["sent"] for row in truth] == store.texts(np.array([0])) == ["a new red cat"]


def test_what_lies_beside_stores_is_made_again_when_it_is_not_there(files, tmp_path, capsys):
    files([ref(split="val")])
    (tmp_path / "visual7w").mkdir()
    (tmp_path / "visual7w" / "dataset_v7w_pointing.json").write_text(json.dumps(pointing()))
    for task, lost in (("refcoco", "val_truth.json"), ("visual7w", "val_truth.json"), ("visual7w", "boxes.json")):
        command, path = [task, str(tmp_path), "--splits", "val"], tmp_path / "stores" / task / lost
        assert prepare(command) == 0
        before = path.read_text()
        path.unlink()
        capsys.readouterr()
        assert prepare(command) == 0 and path.read_text() == before
        assert prepare(command) == 0 and "kept" in capsys.readouterr().out


def test_pointing_questions_leave_the_boxes_to_describe(tmp_path):
    (tmp_path / "visual7w").mkdir()
    (tmp_path / "visual7w" / "dataset_v7w_pointing.json").write_text(json.dumps(pointing()))
    assert prepare(["visual7w", str(tmp_path), "--splits", "val"]) == 0
    boxes = json.loads((tmp_path / "stores" / "visual7w" / "boxes.json").read_text())
    assert boxes == {"v7w_9": [[19, 1, 28, 31], [0, 1, 8, 31], [9, 1, 18, 31], [29, 1, 38, 31]]}


# --------------------------------------------------------------------------------------------- batches


def test_each_row_of_a_batch_has_its_box_and_its_picture_s_size(toy):
    data = ToyRefcocoDataModule(toy, world=SIZES, feature_dim=F, test=["val", "testB"], eval_batch_size=5)
    data.prepare_data()
    data.setup()
    assert data.answers == [] and data.baselines().keys() == {
        "best guess from the text alone", "any thing of the picture"
    }  # fmt: skip
    splits = [json.loads((toy / "refcoco" / f"{split}.json").read_text()) for split in ("val", "testB")]
    expected = {row["id"]: (row, code) for code, rows in enumerate(splits) for row in rows}
    seen = []
    for batch in pickle.loads(pickle.dumps(list(data.test_dataloader()))):
        assert "answer_scores" not in batch.targets
        for row, identifier in enumerate(batch.example_ids):
            wanted, split = expected[identifier]
            image = batch.row_image[row]
            assert batch.image_ids[image] == wanted["img_id"] and batch.targets["split"][row] == split
            assert batch.targets["box"][row].tolist() == np.float32(wanted["box"]).tolist()
            assert batch.targets["image_size"][image].tolist() == wanted["size"]
            seen.append(identifier)
    assert sorted(seen) == sorted(expected)
    assert data.scoring_files("val") == {"truth": toy / "refcoco" / "val.json"}


@pytest.fixture
def own(tmp_path):
    """A data set of one's own, of pictures of 100 x 50 pixels (`write_regions`), from its rows."""

    def open_data(rows, **options):
        write_rows(tmp_path / "mine" / "train.json", rows)
        write_regions(tmp_path / "mine_imgfeat" / "any.tsv", {"a": 1, "b": 2})
        write_vocabulary(tmp_path / "vocab.txt")
        data = GroundingDataModule(tmp_path, tmp_path / "vocab.txt", train="train", valid=[], test=[], predict=[],
                                   folder="mine", region_folder="mine_imgfeat", feature_dim=F, batch_size=2,
                                   **options)  # fmt: skip
        data.prepare_data("fit")
        data.setup("fit")
        return data

    return open_data


def row(identifier, image="a", **changes):
    return {"id": identifier, "img_id": image, "sent": "the red cat", "box": [1, 2, 29, 38]} | changes


def test_rows_of_one_s_own_have_boxes_to_choose_among(own):
    data = own([row("x", others=[[5, 6, 7, 8], [1, 1, 2, 2]]), row("y", "b", others=[[1, 1, 2, 2], [5, 6, 7, 8]])])
    [batch] = data.train_dataloader()
    wanted = {"x": [5, 6, 7, 8, 1, 1, 2, 2], "y": [1, 1, 2, 2, 5, 6, 7, 8]}
    assert batch.targets["others"].tolist() == [wanted[each] for each in batch.example_ids]
    assert batch.targets["box"].dtype == batch.targets["image_size"].dtype == torch.float32
    assert batch.targets["image_size"].tolist() == [[100, 50]] * 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1), row(2, box=[80, 2, 25, 38])], r"1 of 2 examples .*, the first 2: \[80, 2, 25, 38\] .*100 x 50"),
        ([row(1), row(2, others=[[1, 2, 3, 4]])], "the row with id 2 has other fields than the first"),
        ([row(1, size=[200, 100])], r"1 of 1 examples .*a picture of 200 x 100 pixels, .* one of 100 x 50"),
        ([row(1, size=[0, 200])], r"row 0: size is \[0, 200\]"),
        ([row(1), row(1)], "row 1: 1 is there a second time"),
        ([row(1), row("1")], "row 1: id is '1', expected an integer as in the first row"),
        ([row("b"), row(1)], "row 1: id is 1, expected a text"),
        ([row(1, box=[1, 2, 3])], r"row 0: box is \[1, 2, 3\], expected x, y, width and height"),
        ([row(1, "c")], "1 of its 1 images have no regions"),
    ],
)
def test_rows_that_do_not_go_with_their_pictures_are_named(own, rows, message):
    with pytest.raises(InputError, match=message):
        own(rows)


@pytest.mark.parametrize("others", [{}, {"others": [[1, 1, 2, 2]]}])
def test_splits_with_other_numbers_of_boxes_to_choose_among_are_not_mixed(own, tmp_path, others):
    write_rows(tmp_path / "mine" / "b.json", [row("y", **others)])
    data = own([row("x", others=[[5, 6, 7, 8], [1, 1, 2, 2]])])
    for role in ("valid", "test", "predict"):
        data.splits |= {"valid": [], "test": [], "predict": []} | {role: ["train", "b"]}
        stage = {"valid": "validate"}.get(role, role)
        data.prepare_data(stage)
        with pytest.raises(
            InputError, match=rf"^data\.{role}: .*train\.json has 2 others, .*b\.json has [01] others"
        ):
            data.setup(stage)


def test_a_file_without_boxes_is_predicted_and_nothing_else(own, tmp_path):
    rows = [{"id": n, "img_id": "ab"[n % 2], "sent": "the red cat"} for n in range(3)]
    with pytest.raises(InputError, match="no boxes of what its sentences mean"):
        own(rows)
    data = GroundingDataModule(tmp_path, tmp_path / "vocab.txt", train=[], valid=[], test=[], predict="train",
                               folder="mine", region_folder="mine_imgfeat", feature_dim=F)  # fmt: skip
    data.prepare_data("predict")
    data.setup("predict")
    [batch] = data.predict_dataloader()
    assert "box" not in batch.targets and batch.targets["image_size"].tolist() == [[100, 50]] * 2
    with pytest.raises(InputError, match="row 0: others without a box"):
        write_rows(tmp_path / "mine" / "ask.json", [{**rows[0], "others": [[1, 2, 3, 4]]}])
        convert_referring(tmp_path / "mine" / "ask.json", tmp_path / "ask.h5")


def test_where_regions_do_not_tell_how_large_pictures_are_the_rows_do(own, monkeypatch):
    monkeypatch.setattr(
        RegionStore, "image_size", lambda self, images: torch.ones(len(images), 2, dtype=torch.int64)
    )
    data = own([row(1, size=[100, 50]), row(2, "b", size=[90, 60])])
    [batch] = data.train_dataloader()
    assert dict(zip(batch.image_ids, batch.targets["image_size"].tolist(), strict=True)) == {
        "a": [100, 50],
        "b": [90, 60],
    }
    with pytest.raises(InputError, match=r"of 1 of 1 examples the regions do not tell .*Give \"size\""):
        own([row(1)], stores=data.release.root / "others")


def test_what_is_left_out_of_the_makers_files_is_told(toy, tmp_path, capsys, caplog):
    (tmp_path / "refcoco").mkdir()
    (tmp_path / "refcoco" / "instances.json").write_bytes((toy / "refcoco" / "instances.json").read_bytes())
    refs = pickle.loads((toy / "refcoco" / "refs(unc).p").read_bytes())
    lost = len(refs[0]["sentences"])
    refs[0]["split"], refs[1]["sentences"] = "trian", []
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    assert prepare(["refcoco", str(tmp_path)]) == 0
    assert f"{lost} sentences of a split trian are left out" in capsys.readouterr().out.replace("\n", " ")
    assert f"1 of its {len(refs)} refs have no sentences; they are left out" in caplog.text


def test_texts_that_are_missing_are_told_with_what_makes_them(tmp_path):
    write_vocabulary(tmp_path / "vocab.txt")
    data = GroundingDataModule(tmp_path, tmp_path / "vocab.txt", folder="refcoco+")
    with pytest.raises(FileNotFoundError, match=r"texts of the split train(.|\n)*datamodules\.prepare refcoco\+"):
        data.prepare_data("fit")


# ---------------------------------------------------------------------------------- numbers in stores


def test_a_store_without_numbers_is_as_before(tmp_path):
    with write_examples(tmp_path / "old.h5") as writer:
        writer.append(texts=["a"], ids=[1], images=["i"], labels=[{}], groups={})
    with h5py.File(tmp_path / "old.h5") as file:
        assert "numbers" not in file.attrs and "numbers" not in file
    assert ExampleStore(tmp_path / "old.h5").numbers == {}


def test_numbers_of_a_store_are_read_by_place_and_checked_when_it_is_opened(tmp_path):
    rng = np.random.default_rng(0)
    boxes = rng.random((30, 4)).astype(np.float32) * 40 + 1
    rows = [Referring(n, "i", "text", tuple(box), (100, 100)) for n, box in enumerate(boxes.tolist())]
    path = tmp_path / "store.h5"
    write_referring(path, rows, [])
    places = np.array([7, 0, 29, 7])
    np.testing.assert_array_equal(ExampleStore(path).read(places).numbers["box"], boxes[places])
    for damage, message in (
        (
            lambda file: file["numbers/box"].write_direct(np.full((30, 4), np.nan, np.float32)),
            "no number for example 0",
        ),
        (lambda file: file.attrs.modify("numbers", '{"box": 5, "size": 2}'), "numbers/box"),
        (lambda file: file.attrs.modify("numbers", '{"box": -4}'), "its attribute numbers"),
        (lambda file: file.attrs.modify("numbers", '["box"]'), "its attribute numbers"),
        (lambda file: file.__delitem__("numbers/size"), "numbers/size"),
    ):
        write_referring(path, rows, [])
        with h5py.File(path, "r+") as file:
            damage(file)
        with pytest.raises(StoreError, match=message):
            ExampleStore(path)


def test_a_file_of_rows_reads_back(tmp_path):
    rows = [
        row("x", others=[[5.0, 6.0, 7.0, 8.0]], size=[50, 100]),
        row("y", others=[[1, 1, 2, 2]], size=[50, 100]),
    ]
    write_rows(tmp_path / "rows.json", rows)
    assert [each.to_row() for each in read_referring(tmp_path / "rows.json")] == [
        {**each, "box": tuple(each["box"]), "others": tuple(map(tuple, each["others"])), "size": (50, 100)}
        for each in rows
    ]
    [found], _ = validate(tmp_path / "rows.json")
    assert found.kind == "sentences with the boxes of what they mean" and not found.problems
