"""Captions in Karpathy's and VOLTA's files, the data module of them, and what is wrong with some."""

import json
import re

import numpy as np
import pytest
from folders import F, features_of, write_regions, write_rows, write_vocabulary

from datamodules.batches import neighbours
from datamodules.batches.sampling import Rows
from datamodules.formats.captions import read_captions
from datamodules.retrieval import RetrievalDataModule, each_other
from lxmert.files import InputError

WORDS = ["red cat", "one dog", "both are there", "how many ?", "what is there"]


def karpathy(splits, captions=5, folder=""):
    """An image a split, whose captions say its number."""
    return [
        {
            "filepath": folder,
            "filename": f"{1000 + image}.jpg",
            "imgid": image,
            "split": split,
            "sentences": [
                {"raw": f"{WORDS[k % 5]} {image} {k}\n", "tokens": [], "sentid": 100 * image + k}
                for k in range(captions)
            ],
        }
        for image, split in enumerate(splits)
    ]


def write_karpathy(path, images):
    write_rows(path, {"dataset": "flickr30k", "images": images})
    return path


def volta(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def root(tmp_path):
    """Six images to train on, three to validate on, four to test on."""
    splits = ["train"] * 5 + ["restval"] + ["val"] * 3 + ["test"] * 4
    write_karpathy(tmp_path / "flickr30k" / "dataset_flickr30k.json", karpathy(splits))
    write_regions(tmp_path / "flickr30k_imgfeat" / "all.tsv", {str(1000 + n): n for n in range(len(splits))})
    write_vocabulary(tmp_path / "vocab.txt")
    return tmp_path


def module(root, **settings):
    made = RetrievalDataModule(root, root / "vocab.txt", feature_dim=F, batch_size=6, **settings)
    made.prepare_data()
    made.setup()
    return made


# --------------------------------------------------------------------------------------------- files


def test_karpathys_file_gives_the_images_of_a_split_with_their_first_five_captions(tmp_path):
    images = karpathy(["train", "restval", "test", "train"], captions=7)
    images[2]["filename"] = "COCO_val2014_000000391895.jpg"
    path = write_karpathy(tmp_path / "dataset_coco.json", images)
    train, test = list(read_captions(path, "train")), list(read_captions(path, "test"))
    assert [each.image for each in train] == ["1000", "1001", "1003"]
    assert [each.image for each in test] == ["COCO_val2014_000000391895"]
    assert train[1].captions == [(100 + k, f"{WORDS[k]} 1 {k}") for k in range(5)]


def test_voltas_lines_give_the_same_images_and_texts(tmp_path):
    images = karpathy(["test"] * 3)
    rows = [
        {
            "id": each["imgid"],
            "img_path": f"flickr30k/{each['filename']}",
            "sentences": [s["raw"] for s in each["sentences"]],
        }
        for each in images
    ]
    theirs = list(read_captions(volta(tmp_path / "test_ann.jsonl", rows), "test"))
    ours = list(read_captions(write_karpathy(tmp_path / "dataset.json", images), "test"))
    assert [each.image for each in theirs] == [each.image for each in ours]
    assert [[text for _, text in each.captions] for each in theirs] == [
        [text for _, text in each.captions] for each in ours
    ]
    assert [identifier for identifier, _ in theirs[2].captions] == [f"1002#{k}" for k in range(5)]


def test_voltas_lines_of_coco_call_images_by_their_number(tmp_path):
    path = volta(tmp_path / "test_ann.jsonl", [{"sentences": ["a cat", "a dog"], "id": 391895}])
    [(image, captions)] = read_captions(path, "test")
    assert image == "391895" and captions == [("391895#0", "a cat"), ("391895#1", "a dog")]


def broken(change):
    images = karpathy(["test", "test", "train"])
    change(images)
    return images


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images[1].update(filename="1000.jpg"), "image 1: 1000 is there a second time"),
        (lambda images: images[2].update(filename="1000.jpg"), "image 2: 1000 is there a second time"),
        (lambda images: images[1].pop("filename"), "image 1: filename is None, expected a text as filename"),
        (lambda images: images[1].update(sentences=[]), "image 1: 1001 has no captions"),
        (lambda images: images[1].update(sentences="a cat"), "image 1: sentences is 'a cat', expected a list"),
        (lambda images: images[0]["sentences"][3].update(raw=" "), "image 0, sentence 3: raw is ' ', expected"),
        (lambda images: images[1]["sentences"][0].update(sentid=0), "caption 0: 0 is there a second time"),
        (lambda images: images[1].update(split=None), "image 1: split is None, expected a text"),
        (lambda images: images.clear(), "no image of the split 'test'; there are none"),
        (lambda images: images.__delitem__(slice(2)), r"no image of the split 'test'; .* train \(1 images\)"),
    ],
)  # fmt: skip
def test_a_row_of_karpathys_that_cannot_be_used_is_named(tmp_path, change, message):
    path = write_karpathy(tmp_path / "dataset_flickr30k.json", broken(change))
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: {message}"):
        list(read_captions(path, "test"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"img_path": "a.jpg", "sentences": ["a"]}, "line 2: a is there a second time"),
        ({"img_path": "b.jpg", "sentences": []}, "line 2: b has no captions"),
        ({"img_path": "b.jpg", "sentences": ["a", 3]}, "line 2, sentence 1 is 3, expected a text"),
        ({"sentences": ["a"]}, "line 2: id is None, expected an integer as id"),
        ({"img_path": 7, "sentences": ["a"]}, "line 2: img_path is 7, expected a text as img_path"),
        (["b.jpg"], r"line 2: found \['b.jpg'\]"),
    ],
)
def test_a_line_of_voltas_that_cannot_be_used_is_named(tmp_path, row, message):
    path = volta(tmp_path / "test_ann.jsonl", [{"img_path": "a.jpg", "sentences": ["one"]}, row])
    with pytest.raises(InputError, match=message):
        list(read_captions(path, "test"))


# ------------------------------------------------------------------------------------------- batches


def test_a_caption_has_four_options_and_the_first_alone_is_right(root):
    data = module(root)
    dataset = data.datasets["train"]
    assert len(dataset) == 30 and data.report()["train"]["images"] == 6  # those of restval are trained on
    wrong_images = set()
    for epoch in range(30):
        batch = dataset[Rows(np.arange(0, 30, 5), epoch)]
        assert batch.targets["options"].tolist() == np.arange(24).reshape(6, 4).tolist()
        assert len(batch.example_ids) == 6 and batch.num_rows == 24
        texts = [dataset.tokenizer.decode(ids, skip_special_tokens=True) for ids in batch.token_ids]
        for e in range(6):
            rows = [
                (texts[batch.row_sentence[r]], int(batch.image_ids[batch.row_image[r]]) - 1000)
                for r in range(4 * e, 4 * e + 4)
            ]
            own = rows[0]
            assert own[0].startswith("red cat") and own[1] == e
            assert rows[1][1] == e and batch.row_sentence[4 * e + 1] != batch.row_sentence[4 * e]
            assert rows[2][0] == own[0] and rows[2][1] != e
            assert rows[3][1] == e and batch.row_sentence[4 * e + 3] != batch.row_sentence[4 * e]
            wrong_images.add((e, rows[2][1]))
    assert wrong_images == {(a, b) for a in range(6) for b in range(6) if a != b}  # any other image may be drawn


def test_another_caption_is_never_one_of_the_same_image(root):
    data = module(root)
    dataset = data.datasets["train"]
    own, drawn, similar = np.arange(30) // 5, set(), set()
    for epoch in range(40):
        others, images, alike = dataset._draw(Rows(np.arange(30), epoch), own)
        assert (others // 5 != own).all() and (images != own).all()
        assert (alike // 5 == dataset.nearest[own, 0]).all()  # of so few images the nearest alone
        drawn |= set(others.tolist())
        similar |= set(zip(own.tolist(), alike.tolist(), strict=True))
    assert drawn == set(range(30)) and len(similar) == 6 * 5


def test_what_a_caption_is_told_from_depends_on_seed_epoch_and_caption_alone(root):
    dataset = module(root).datasets["train"]
    whole = dataset._draw(Rows(np.arange(30), 3), np.arange(30) // 5)
    part = dataset._draw(Rows(np.arange(7, 30), 3), np.arange(7, 30) // 5)  # another process's share
    assert all((a[7:] == b).all() for a, b in zip(whole, part, strict=True))
    later = dataset._draw(Rows(np.arange(30), 4), np.arange(30) // 5)
    assert (whole[0] != later[0]).any() and (whole[1] != later[1]).any()


def test_validation_has_the_same_options_at_each_pass(root):
    data = module(root, negatives="batch")  # of training alone
    loader = data.val_dataloader()
    once, again = (
        [(b.row_sentence.tolist(), b.image_ids, b.row_image.tolist()) for b in loader] for _ in range(2)
    )
    assert once == again and sum(len(rows) for rows, *_ in once) == 4 * 15


def test_all_captions_of_a_batch_meet_all_of_its_images(root):
    dataset = module(root, negatives="batch").datasets["train"]
    places = np.array([0, 5, 6, 12])  # two captions of one image
    batch = dataset[Rows(places)]
    assert batch.num_rows == 16 and len(batch.image_ids) == 3
    texts = [dataset.sentence(place) for place in places]
    known = [dataset.tokenizer(text)["input_ids"] for text in texts]
    for row in range(16):
        sentence = batch.row_sentence[row]
        assert batch.token_ids[sentence][batch.token_mask[sentence]].tolist() == known[row // 4]
        assert batch.image_ids[batch.row_image[row]] == str(1000 + places[row % 4] // 5)
    images = [1000, 1001, 1001, 1002]
    options = batch.targets["options"].tolist()
    for number, (own, *others) in enumerate(options):
        of = number % 4
        assert own == of * 5
        wrong = [f for f in range(4) if images[f] != images[of]]
        expected = [of * 4 + f if number < 4 else f * 4 + of for f in wrong]
        assert sorted(row for row in others if row >= 0) == sorted(expected)


def test_a_batch_of_one_image_has_nothing_to_tell_apart():
    assert each_other(np.array([3, 3])).tolist() == [[0, -1], [3, -1], [0, -1], [3, -1]]


def test_nearest_images_are_those_with_the_most_similar_mean_features(root, monkeypatch):
    monkeypatch.setattr(neighbours, "AT_ONCE", 2)
    data = module(root)
    dataset = data.datasets["train"]
    means = np.array([features_of(n).astype(np.float16).astype(np.float32).mean(0) for n in range(6)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    likeness = means @ means.T - 2 * np.eye(6)
    monkeypatch.setattr(neighbours, "NEAREST", 3)
    found = neighbours._nearest(neighbours._mean_features(dataset.regions, dataset.pool), 3)
    for image, others in enumerate(found.tolist()):
        assert len({image, *others}) == 4
        assert sorted(likeness[image][others]) == pytest.approx(sorted(likeness[image])[-3:], abs=1e-6)
    file = data.release.stores / "flickr30k" / "train_nearest.npz"
    kept = file.read_bytes()
    assert neighbours.nearest_images(file, dataset.regions, dataset.pool).tolist() == dataset.nearest.tolist()
    assert file.read_bytes() == kept
    with monkeypatch.context() as patched:  # where nothing can be written, what is current is read
        patched.setattr(neighbours, "locked", None)
        assert neighbours.nearest_images(file, dataset.regions, dataset.pool).tolist() == dataset.nearest.tolist()
    fewer = neighbours.nearest_images(file, dataset.regions, dataset.pool[:4])  # of other images: made again
    assert len(fewer) == 4 and file.read_bytes() != kept
    for damage in (kept[:-40], kept.replace(b"nearest", b"dearest"), b"", b"\x93NUMPY"):
        file.write_bytes(damage)
        assert neighbours.nearest_images(file, dataset.regions, dataset.pool).tolist() == dataset.nearest.tolist()
        assert file.read_bytes() == kept


def test_the_nearest_of_equally_near_ones_are_the_first():
    chance = np.random.default_rng(0)
    for kept in (1, 2, 5, 8):
        likeness = chance.integers(0, 4, (60, 9)).astype(np.float32)
        likeness[np.arange(9), np.arange(9)] = -np.inf
        expected = np.argsort(-likeness, axis=1, kind="stable")[:, :kept]
        assert neighbours._highest(likeness, kept).tolist() == expected.tolist()


# ----------------------------------------------------------------------------------------- all pairs


def test_the_captions_of_a_split_are_numbered_with_their_images(root):
    data = module(root)
    found = data.captions_of("test", 0)
    assert found.image_ids == ["1009", "1010", "1011", "1012"]
    assert found.image_of.tolist() == [image for image in range(4) for _ in range(5)]
    assert found.caption_ids[:6] == [900, 901, 902, 903, 904, 1000]
    batch = found.batch(np.array([7, 2]), np.array([3, 1]))
    assert batch.image_ids == ["1012", "1010"]
    np.testing.assert_allclose(batch.region_features[0, :3], features_of(12)[:3], atol=1e-2)
    told = [data.tokenizer(found.texts[c])["input_ids"] for c in (7, 2)]
    assert [ids[mask].tolist() for ids, mask in zip(batch.token_ids, batch.token_mask, strict=True)] == told


def test_captions_whose_image_has_no_regions_are_refused_or_left_out(root):
    write_regions(
        root / "flickr30k_imgfeat" / "all.tsv", {str(1000 + n): n for n in range(13) if n not in (0, 10)}
    )
    with pytest.raises(InputError, match=r"1 of its 6 images have no\s+regions in .*1000"):
        module(root)
    data = module(root, missing_images="drop")
    found = data.captions_of("test", 0)
    assert found.image_ids == ["1009", "1011", "1012"] and len(found.texts) == 15
    assert found.image_of.tolist() == [image for image in range(3) for _ in range(5)]
    assert data.datasets["train"].pool.tolist() == [0, 1, 2, 3, 4]
    options = next(iter(data.train_dataloader()))
    assert "1000" not in options.image_ids


# ---------------------------------------------------------------------------------------- bad input


def test_several_caption_files_of_a_split_are_refused(root):
    volta(root / "flickr30k" / "val_ann.jsonl", [{"img_path": "1006.jpg", "sentences": ["a cat"]}])
    with pytest.raises(InputError, match=r"are all the captions of val\. Leave one"):
        module(root)


def test_of_the_files_of_karpathys_archive_that_of_the_folders_name_counts(root):
    for name in ("coco", "flickr8k"):
        write_karpathy(root / "flickr30k" / f"dataset_{name}.json", karpathy(["test"] * 2))
    assert len(module(root).captions_of("test", 0).image_ids) == 4
    (root / "flickr30k" / "dataset_flickr30k.json").unlink()
    with pytest.raises(InputError, match=r"dataset_coco\.json.*dataset_flickr8k\.json are all the captions"):
        module(root)


def test_voltas_files_are_found_by_their_split_which_it_calls_valid(root):
    (root / "flickr30k" / "dataset_flickr30k.json").unlink()
    for split, images in {"train": range(6), "valid": range(6, 9), "test": range(9, 13)}.items():
        rows = [{"img_path": f"{1000 + n}.jpg", "sentences": [f"red cat {n}"]} for n in images]
        volta(root / "flickr30k" / f"{split}_ann.jsonl", rows)
    assert module(root).captions_of("test", 0).caption_ids == ["1009#0", "1010#0", "1011#0", "1012#0"]


def test_missing_captions_are_named_with_where_they_come_from(root):
    (root / "flickr30k" / "dataset_flickr30k.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"(?s)dataset_flickr30k.json: texts of the split .*docs/retrieval.md"
    ):
        module(root)


@pytest.mark.parametrize(
    ("settings", "message"), [({"negatives": "hard"}, "data.negatives=hard; expected one of")]
)
def test_other_negatives_are_refused(root, settings, message):
    with pytest.raises(InputError, match=message):
        module(root, **settings)


def test_captions_of_one_image_are_refused(root):
    write_karpathy(
        root / "flickr30k" / "dataset_flickr30k.json", karpathy(["train", "train", "val", "test", "test"])
    )
    with pytest.raises(InputError, match=r"captions of 1 image\(s\); retrieval wants two or more"):
        module(root)
