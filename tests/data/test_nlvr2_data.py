"""NLVR2 data: two rows a statement, which share its sentence and have an image each."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import F, features_of, write_regions, write_rows, write_vocabulary

from datamodules.nlvr2 import Nlvr2DataModule
from datamodules.prepare.__main__ import main as prepare

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
SENTENCES = ["there is one cat", "both are red", "how many dog"]


def statement(split, place, **changes):
    """The `place`th of a split: three sentences, each said of two pairs in turn."""
    pair, sentence = place // 3, place % 3
    stem = f"{split}-{pair // 2}-{pair % 2}"
    return {
        "identifier": f"{stem}-{sentence}",
        "img0": f"{stem}-img0",
        "img1": f"{stem}-img1",
        "sent": SENTENCES[sentence],
        "label": (pair + sentence) % 2,
        "uid": f"nlvr2_{split}_{place}",
        **changes,
    }


TRAIN = [statement("train", i) for i in range(18)]
VALID = [statement("dev", i) for i in range(12)]
TEST = [statement("test1", i) for i in range(9)]


def numbers_of(rows):
    """Each image's number, which its features tell."""
    return {
        image: number
        for number, image in enumerate(dict.fromkeys(i for r in rows for i in (r["img0"], r["img1"])))
    }


@pytest.fixture
def root(tmp_path):
    for split, rows in {"train": TRAIN, "valid": VALID, "test": TEST}.items():
        write_rows(tmp_path / "nlvr2" / f"{split}.json", rows)
        write_regions(tmp_path / "nlvr2_imgfeat" / f"{split}_obj36.tsv", numbers_of(rows))
    write_vocabulary(tmp_path / "vocab.txt")
    return tmp_path


def open_data(root, stage=None, **options):
    data = Nlvr2DataModule(root, root / "vocab.txt", **{"feature_dim": F, "batch_size": 4, **options})
    data.prepare_data(stage)
    data.setup(stage)
    return data


def check_statements(data, batches, source):
    """Each statement of the batches against the source file's; returns the identifiers."""
    expected, numbers, found = {row["identifier"]: row for row in source}, numbers_of(source), []
    for batch in batches:
        assert batch.num_rows == 2 * len(batch.example_ids)
        for e, identifier in enumerate(batch.example_ids):
            want = expected[identifier]
            left, right = 2 * e, 2 * e + 1
            assert batch.row_sentence[left] == batch.row_sentence[right]
            sentence = batch.row_sentence[left]
            tokens = batch.token_ids[sentence][batch.token_mask[sentence]].tolist()
            assert tokens == data.tokenizer(want["sent"])["input_ids"]
            for row, image in ((left, want["img0"]), (right, want["img1"])):
                i = int(batch.row_image[row])
                assert batch.image_ids[i] == image
                features = batch.region_features[i][batch.region_mask[i]].float().numpy()
                np.testing.assert_allclose(features, features_of(numbers[image]), rtol=1e-3)
            if "label" in want:
                assert batch.targets["statement"][e] == want["label"]
            found.append(identifier)
    return found


def test_every_statement_of_every_batch_is_what_the_files_say(root):
    data = open_data(root)
    assert data.answers == ["False", "True"]
    assert len(set(check_statements(data, data.train_dataloader(), TRAIN))) == 16  # 4 batches of 4
    for loader, rows in ((data.val_dataloader(), VALID), (data.test_dataloader(), TEST)):
        assert sorted(check_statements(data, loader, rows)) == [row["identifier"] for row in rows]
    batch = data.datasets["train"][[0]]
    assert set(batch.targets) == {"statement"} and batch.targets["statement"].dtype == torch.int64


def test_a_sentence_and_an_image_are_in_a_batch_once(root):
    data = open_data(root, "fit")
    batch = data.datasets["train"][np.arange(6)]  # three sentences about two pairs
    assert len(batch.token_ids) == 3 and len(batch.region_features) == 4
    assert batch.row_sentence.tolist() == [0, 0, 1, 1, 2, 2] * 2
    assert batch.row_image.tolist() == [0, 1] * 3 + [2, 3] * 3


def test_a_statement_about_the_same_image_twice_or_an_image_on_both_sides_is_no_problem(root):
    same = [statement("train", 0, img1="train-0-0-img0"), statement("train", 3, img0="train-0-0-img1")]
    write_rows(root / "nlvr2" / "train.json", same)
    data = open_data(root, "fit")
    batch = data.datasets["train"][[0, 1]]
    assert [batch.image_ids[i] for i in batch.row_image] == [
        "train-0-0-img0", "train-0-0-img0", "train-0-0-img1", "train-0-1-img1",
    ]  # fmt: skip
    assert data.report()["train"]["images"] == 3


def test_two_processes_have_every_statement_once_with_both_of_its_rows(root):
    found = []
    for rank in range(2):
        data = open_data(root, "validate", eval_batch_size=4)
        data._process = lambda rank=rank: {"rank": rank, "world_size": 2}
        found += check_statements(data, data.val_dataloader(), VALID)
    assert sorted(found) == [row["identifier"] for row in VALID]


def test_a_data_set_crosses_to_another_process(root):
    data = open_data(root, "fit")
    copy = pickle.loads(pickle.dumps(data.datasets["train"]))
    assert check_statements(data, [copy[[7, 2]]], TRAIN) == [TRAIN[7]["identifier"], TRAIN[2]["identifier"]]


def test_hidden_statements_are_predicted_without_targets(root):
    hidden = [{k: v for k, v in statement("test2", i).items() if k != "label"} for i in range(6)]
    write_rows(root / "nlvr2" / "hidden.json", hidden)
    write_regions(root / "nlvr2_imgfeat" / "hidden_obj36.tsv", numbers_of(hidden))
    data = open_data(root, "predict", predict="hidden")
    batches = list(data.predict_dataloader())
    assert batches[0].targets == {}
    assert sorted(check_statements(data, batches, hidden)) == [row["identifier"] for row in hidden]
    with pytest.raises(ValueError, match=r"hidden\.json: no labels to train on"):
        open_data(root, "fit", train="train,hidden")


@pytest.mark.parametrize("side", ["img0", "img1"])
def test_statements_lacking_the_regions_of_either_image_stop_the_run_or_are_left_out(root, side):
    lost = VALID[4][side]
    write_regions(
        root / "nlvr2_imgfeat" / "valid_obj36.tsv", {i: n for i, n in numbers_of(VALID).items() if i != lost}
    )
    with pytest.raises(ValueError, match=rf"1 of its 8 images have no regions .*{lost}.*missing_images=drop"):
        open_data(root, "validate")
    data = open_data(root, "validate", missing_images="drop")
    kept = [row["identifier"] for row in VALID if row[side] != lost]
    assert len(kept) == 9
    assert sorted(check_statements(data, data.val_dataloader(), VALID)) == kept


def test_an_image_without_regions_on_both_sides_is_counted_once(root):
    write_rows(
        root / "nlvr2" / "train.json",
        [*TRAIN, statement("train", 18, img0="train-9-9-img0", img1="train-9-9-img0")],
    )
    with pytest.raises(ValueError, match=r"1 of its 13 images have no regions"):
        open_data(root, "fit")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[3].update(label=2), "label is 2, expected 0 or 1"),
        (lambda rows: rows[3].update(label=1.0), "label is 1.0, expected 0 or 1"),
        (lambda rows: rows[3].update(label="True"), "label is 'True', expected 0 or 1"),
        (lambda rows: rows[3].update(label=[1]), r"label is \[1\], expected 0 or 1"),
        (lambda rows: rows[3].pop("label"), "has no label and row 0 has one"),
        (lambda rows: rows[0].pop("label"), "has a label and row 0 has none"),
        (lambda rows: rows[3].pop("img1"), "img1 is None, expected a text"),
        (lambda rows: rows[3].update(sent=""), "sent is '', expected a text"),
        (lambda rows: rows[3].update(identifier="train-0-0-1"), "duplicate identifier, first used in row 1"),
        (lambda rows: rows.__setitem__(3, "true"), "expected an object, found 'true'"),
    ],
)
def test_statements_that_cannot_be_used_are_refused_by_file_row_and_identifier(root, change, message):
    rows = [dict(row) for row in TRAIN]
    change(rows)
    write_rows(root / "nlvr2" / "train.json", rows)
    with pytest.raises(ValueError, match=rf"train\.json: row \d \(.*\): {message}\. Mend or remove that row"):
        open_data(root, "fit")
    assert not (root / "stores" / "nlvr2" / "train.h5").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(TRAIN)[:300], r"broken or truncated JSON at line 1, .*character"),
        ("{}", "expected a JSON list of statements, found {}"),
        ("[]", r"expected a JSON list of statements, found \[\]"),
    ],
)
def test_what_is_no_list_of_statements_is_refused_by_file(root, content, message):
    (root / "nlvr2" / "train.json").write_text(content)
    with pytest.raises(ValueError, match=rf"train\.json: {message}"):
        open_data(root, "fit")


def test_all_missing_files_are_listed_with_their_origin(tmp_path):
    write_vocabulary(tmp_path / "vocab.txt")
    with pytest.raises(FileNotFoundError) as error:
        open_data(tmp_path)
    said = str(error.value)
    for split, archive in {
        "train": "train_obj36.zip (21 GB)",
        "valid": "valid_obj36.zip",
        "test": "test_obj36.zip",
    }.items():
        assert str(tmp_path / "nlvr2" / f"{split}.json") in said
        assert str(tmp_path / "nlvr2_imgfeat" / f"{split}_obj36.tsv") in said and archive in said
    assert "experiment=toy_nlvr2` needs none" in said


def test_the_makers_files_of_a_split_are_found_as_far_as_they_are_there(root):
    data = Nlvr2DataModule(root, root / "vocab.txt")
    write_rows(root / "nlvr2" / "official" / "balanced_dev.json", {})
    assert data.scoring_files("valid") == {}  # a subset alone is not the split
    write_rows(root / "nlvr2" / "official" / "dev.json", {})
    assert {what: path.name for what, path in data.scoring_files("valid").items()} == {
        "statements": "dev.json", "balanced": "balanced_dev.json",
    }  # fmt: skip
    assert data.scoring_files("test") == {}
    write_rows(root / "nlvr2" / "official" / "test1.json", {})
    assert data.scoring_files("test")["statements"].name == "test1.json"


@pytest.mark.skipif(not SHARED.exists(), reason="the real files of ../shared/data are not there")
def test_real_statements_come_through_with_their_labels(root):
    lines = (SHARED / "nlvr2" / "dev_400.json").read_text().splitlines()
    rows = []
    for place, line in enumerate(lines):
        real = json.loads(line)
        stem = real["identifier"].rpartition("-")[0]
        rows.append({
            "identifier": real["identifier"], "img0": f"{stem}-img0", "img1": f"{stem}-img1",
            "sent": real["sentence"], "label": int(real["label"] == "True"), "uid": f"nlvr2_valid_{place}",
        })  # fmt: skip
    write_rows(root / "nlvr2" / "valid.json", rows)
    write_regions(root / "nlvr2_imgfeat" / "valid_obj36.tsv", numbers_of(rows))
    data = Nlvr2DataModule(root, SHARED / "vocab" / "bert_uncased_vocab.txt", feature_dim=F, max_length=99)
    data.prepare_data("validate")
    data.setup("validate")
    assert sorted(check_statements(data, data.val_dataloader(), rows)) == sorted(row["identifier"] for row in rows)


def test_the_makers_file_and_the_releases_give_the_same_batches(root, tmp_path_factory):
    makers = tmp_path_factory.mktemp("makers")
    write_vocabulary(makers / "vocab.txt")
    for split, rows in (("train", TRAIN), ("dev", VALID)):
        lines = [
            {"identifier": r["identifier"], "sentence": r["sent"], "label": str(bool(r["label"]))} for r in rows
        ]
        path = makers / "nlvr2" / "official" / f"{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for split, rows in (("train", TRAIN), ("valid", VALID)):
        write_regions(makers / "nlvr2_imgfeat" / f"{split}_obj36.tsv", numbers_of(rows))
    assert prepare(["nlvr2", str(makers), "--splits", "train", "valid"]) == 0
    ours, theirs = (
        [
            batch
            for data in [open_data(folder, "fit")]
            for load in (data.train_dataloader, data.val_dataloader)
            for batch in load()
        ]
        for folder in (root, makers)
    )
    assert len(ours) == len(theirs) >= 5
    for one, other in zip(ours, theirs, strict=True):
        assert one.example_ids == other.example_ids and one.image_ids == other.image_ids
        for name, value in vars(one).items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == getattr(other, name).dtype and torch.equal(value, getattr(other, name)), name
        assert one.targets.keys() == other.targets.keys()
        assert all(torch.equal(value, other.targets[name]) for name, value in one.targets.items())


def test_the_second_test_split_goes_all_the_way(root):
    """From the makers' file, whose identifiers begin with test2, to a batch and the makers' files for scoring."""
    lines = [statement("test2", i) for i in range(6)]
    made = [
        {"identifier": row["identifier"], "sentence": row["sent"], "label": ["False", "True"][row["label"]]}
        for row in lines
    ]
    official = root / "nlvr2" / "official" / "test2.json"
    official.parent.mkdir()
    official.write_text("".join(json.dumps(row) + "\n" for row in made))
    assert prepare(["nlvr2", str(root), "--splits", "test2"]) == 0
    write_regions(root / "nlvr2_imgfeat" / "test2_obj36.tsv", numbers_of(lines))
    data = open_data(root, "test", test="test2")
    assert sorted(check_statements(data, data.test_dataloader(), lines)) == [row["identifier"] for row in lines]
    assert data.scoring_files("test2") == {"statements": official}
    dataset = data.datasets["test"]
    [known] = dataset.known(0, dataset.used(0))
    assert known.images == [f"{row['img0']} {row['img1']}" for row in lines]
    assert known.answers == [row["label"] for row in made] and known.texts == [row["sent"] for row in lines]
