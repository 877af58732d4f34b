"""Pre-training data: sentences, exchanged sentences, drawn answers, region labels."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.convert import convert_tsv
from datamodules.pretrain import PretrainDataModule
from datamodules.stores.hdf5 import StoreError
from datamodules.stores.texts import ExampleStore
from lxmert.evaluate.spelling import canonical_answer, counting_spellings

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
WORDS = ["a", "cat", "dog", "is", "there", "what", "one", "two", "three", "four", "five", "six", "?"]
NUMBERS = ["one", "two", "three", "four", "five", "six"]
F = 6


def image(number, folder="train2014"):
    return f"COCO_{folder}_{number:012d}"


def entry(number, folder="train2014"):
    """Image `number`: two captions and two questions; each sentence names its image."""
    name = NUMBERS[number]
    return {
        "img_id": image(number, folder),
        "sentf": {
            "mscoco": [f"a cat {name}", f"a dog {name}"],
            "vqa": [f"is there a cat {name} ?", f"what is {name} ?"],
        },
        "labelf": {"vqa": [{"Yes.": 1, "no": 0.5}, {"the Grey": 0.3} if number else {}]},
    }


def write_regions(root, folder, numbers, **changes):
    def encode(array, dtype):
        return base64.b64encode(np.asarray(array, dtype).tobytes()).decode()

    (root / "mscoco_imgfeat").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in numbers:
        n = 3 + number % 2
        ids = changes.get("ids", np.arange(n) + number)
        columns = [
            image(number, folder), "50", "100",
            encode(ids, np.int64), encode(np.full(n, 0.5), np.float32),
            encode(ids % 4, np.int64), encode(np.full(n, 0.25), np.float32),
            str(n), encode([[1, 2, 30, 40]] * n, np.float32),
            encode(number + np.arange(n * F).reshape(n, F) / 100, np.float32),
        ]  # fmt: skip
        lines.append("\t".join(columns) + "\n")
    (root / "mscoco_imgfeat" / f"{folder}_obj36.tsv").write_text("".join(lines))


def write_texts(root, split, entries):
    (root / "lxmert").mkdir(parents=True, exist_ok=True)
    (root / "lxmert" / f"{split}.json").write_text(json.dumps(entries))


@pytest.fixture
def root(tmp_path):
    write_texts(tmp_path, "mscoco_train", [entry(n) for n in range(6)])
    write_texts(tmp_path, "mscoco_minival", [entry(n, "val2014") for n in range(3)])
    write_regions(tmp_path, "train2014", range(6))
    write_regions(tmp_path, "val2014", range(3))
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    return tmp_path


def open_data(root, **options):
    options = {
        "train": "mscoco_train", "sources": {"mscoco": 1, "vqa": 1}, "mismatched": 0.5, "feature_dim": F,
        "batch_size": 8, "eval_batch_size": 4,
    } | options  # fmt: skip
    data = PretrainDataModule(root, root / "vocab.txt", **options)
    data.prepare_data("fit")
    data.setup("fit")
    return data


def sentences(data, batch):
    return data.tokenizer.batch_decode(batch.token_ids.tolist(), skip_special_tokens=True)


def rows(data, batch):
    """What each row holds, by its identifier."""
    found = {}
    for r, text in enumerate(sentences(data, batch)):
        i = int(batch.row_image[r])
        found[batch.example_ids[r]] = (
            text, batch.image_ids[i], int(batch.sentence_keys[r]),
            bool(batch.targets["matched"][r]), int(batch.targets["answer"][r]),
        )  # fmt: skip
    return found


def test_rows_labels_and_regions_are_what_the_files_say(root):
    data = open_data(root)
    assert data.answers == ["no", "yes", "gray"]  # spelt as the table, most frequent first
    assert data.report()["mscoco_train"] == {
        "examples": 24, "images": 6, "truncated": 0, "truncated_of": 24, "labels_without_answer": 0,
        "sources": {"mscoco": 12, "vqa": 12},
    }  # fmt: skip
    seen = 0
    for batch in data.train_dataloader():
        targets = batch.targets
        assert len(batch.token_ids) == batch.num_rows == len(targets["matched"])
        for r, text in enumerate(sentences(data, batch)):
            seen += 1
            i, number = int(batch.row_image[r]), int(batch.image_ids[batch.row_image[r]][-1])
            assert (NUMBERS[number] in text.rstrip("?").split()) == bool(targets["matched"][r])
            place = batch.example_ids[r] % 4
            source = data.label_names["source"][targets["source"][r]]
            assert source == ("mscoco" if place < 2 else "vqa")
            assert bool(targets["labelled"][r]) == (source == "vqa")  # also where no answer is left
            labels = {
                data.answers[a]: round(float(s), 3)
                for a, s in zip(targets["label_answers"][r], targets["label_scores"][r], strict=True)
                if a >= 0
            }
            assert labels == [{}, {}, {"yes": 1, "no": 0.5}, {"gray": 0.3} if number else {}][place]
            answer = int(targets["answer"][r])
            assert data.answers[answer] in labels if labels else answer == -1
            n = 3 + number % 2
            assert targets["object_ids"][i].tolist()[:n] == [number + k for k in range(n)]
            assert (targets["object_ids"][i][n:] == -1).all() and (targets["object_conf"][i][n:] == 0).all()
            assert targets["attribute_conf"][i][:n].tolist() == [0.25] * n
            spare = targets["replacement_features"][i].float().numpy()
            assert int(spare[0]) != number and int(spare[0]) in range(6)
            assert batch.region_features[i, 0, 0] == number
    assert seen == 24


def test_half_of_the_sentences_are_exchanged_and_answers_drawn_by_their_scores(root):
    data = open_data(root)
    matched, answers = [], []
    for epoch in range(60):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            matched += batch.targets["matched"].tolist()
            answers += [int(a) for a, s in zip(*map(batch.targets.get, ("answer", "label_scores")), strict=True)
                        if s.sum() > 1]  # fmt: skip
    assert 0.46 < np.mean(matched) < 0.54
    share = np.mean(np.array(answers) == data.answers.index("yes"))
    assert 0.6 < share < 0.73  # of 1 and 0.5


@pytest.mark.parametrize("rows_per_image", [1, 3])
def test_an_example_is_the_same_in_one_process_or_two_with_workers_or_without(root, rows_per_image):
    def epoch(rank=0, world=1, number=2, workers=0):
        data = open_data(root, rows_per_image=rows_per_image, workers=workers)
        data._process = lambda: {"rank": rank, "world_size": world}
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)
        return [(rows(data, batch), dict(zip(batch.image_ids, batch.image_keys.tolist(), strict=True)))
                for batch in loader]  # fmt: skip

    alone = epoch()
    for (whole, images), *halves in zip(alone, epoch(0, 2), epoch(1, 2), strict=True):
        assert halves[0][0] | halves[1][0] == whole
        assert halves[0][1] | halves[1][1] == images
    assert epoch(workers=2) == alone
    assert epoch(number=3) != alone


def test_validation_is_the_same_at_every_pass(root):
    data = open_data(root)
    first, again = (
        [rows(data, batch) for batch in loader] for loader in (data.val_dataloader(), data.val_dataloader())
    )
    assert first == again
    loader = data.val_dataloader()
    loader.sampler.set_epoch(4)
    assert [rows(data, batch) for batch in loader] == first


def test_sources_are_left_out_and_repeated_by_their_weights(root):
    data = open_data(root, sources={"mscoco": 0, "vqa": 2}, batch_size=4)
    counts = {}
    for batch in data.train_dataloader():
        for identifier in batch.example_ids:
            counts[identifier] = counts.get(identifier, 0) + 1
    assert counts == {4 * n + k: 2 for n in range(6) for k in (2, 3)}
    assert sum(batch.num_rows for batch in data.val_dataloader()) == 6  # once each
    assert all("is" in t for b in data.train_dataloader() for t in sentences(data, b))


def test_without_matching_no_sentence_is_exchanged(root):
    data = open_data(root, mismatched=0.0)
    assert all(batch.targets["matched"].all() for batch in data.train_dataloader())


def test_images_without_regions_stop_the_run_or_are_left_out(root):
    write_regions(root, "train2014", [0, 1, 2, 4])
    with pytest.raises(ValueError, match=r"2 of its 6 images have no regions.*03.*05.*missing_images=drop"):
        open_data(root)
    data = open_data(root, missing_images="drop", batch_size=4)
    seen = {image for batch in data.train_dataloader() for image in batch.image_ids}
    assert seen == {image(n) for n in (0, 1, 2, 4)}
    for batch in data.train_dataloader():
        assert not any({"four", "six"} & set(text.rstrip("?").split()) for text in sentences(data, batch))


def test_answers_outside_the_table_are_dropped_and_counted(root):
    (root / "lxmert" / "all_ans.json").write_text(json.dumps([{"ans": "yes", "dsets": ["vqa"]}]))
    data = open_data(root)
    assert data.answers == ["yes"]
    assert data.report()["mscoco_train"]["labels_without_answer"] == 11
    for batch in data.train_dataloader():
        assert set(batch.targets["answer"].tolist()) <= {-1, 0}


@pytest.mark.parametrize(
    ("given", "spelt"),
    [("1 .", "1"), ("The  cat.", "cat"), ("a one", "1"), ("Grey", "gray"), ("an", "an"), ("", ""), ("the ", "")],
)
def test_answers_are_spelt_as_the_original_does(given, spelt):
    assert canonical_answer(given) == spelt


def test_of_an_answer_spelt_twice_the_last_counts_as_in_the_original(root):
    entries = [entry(n) for n in range(6)]
    entries[1]["labelf"]["vqa"][0] = {"the cat": 0.3, "yes": 0.6, "a cat.": 0.9, "Grey": 1.0}
    write_texts(root, "mscoco_train", entries)
    open_data(root)
    store = ExampleStore(root / "stores" / "lxmert" / "mscoco_train.h5")
    labels = [store.read([place]) for place in range(len(store))]
    table = store.table("answers")
    found = [dict(zip([table[a] for a in each.answers], each.scores.tolist(), strict=True)) for each in labels]
    assert {"a cat.": np.float32(0.9), "yes": np.float32(0.6), "Grey": 1.0} in found
    assert not any("the cat" in label for label in found)


@pytest.mark.parametrize(
    ("label", "merged"),
    [
        ({"man": 0.3, "a man": 1}, {"man": 1}),
        ({"a man": 0.3, "man": 1}, {"man": 0.3}),  # the original respells, and so overwrites
        ({"man": 0.3, "A man": 0.6, "the man.": 0.9, "dog": 1}, {"man": 0.9, "dog": 1}),
        ({}, {}),
    ],
)
def test_spellings_of_one_answer_are_merged_as_the_original_does(label, merged):
    original = dict(label)  # its own steps
    for answer in list(original):
        if canonical_answer(answer) != answer:
            original[canonical_answer(answer)] = original.pop(answer)
    assert {spelt: label[answer] for spelt, answer in counting_spellings(label).items()} == merged == original


def test_an_answer_that_an_older_store_has_in_two_spellings_counts_once(root, monkeypatch):
    entries = [entry(n) for n in range(6)]
    entries[1]["labelf"]["vqa"] = [{"yes": 0.3, "Yes.": 1, "no": 0.5}, {"Grey": 0.6, "grey": 1}]
    write_texts(root, "mscoco_train", entries)
    monkeypatch.setattr("datamodules.formats.release_pretrain._once_each", lambda label: label)
    data = open_data(root, mismatched=0)
    dataset = data.datasets["train"]
    place = dataset.parts[0].examples.texts(np.arange(24)).index("is there a cat two ?")
    targets = dataset[[place, place + 1]].targets
    named = [
        {data.answers[a]: round(score, 4) for a, score in zip(*pair, strict=True) if a >= 0}
        for pair in zip(targets["label_answers"].tolist(), targets["label_scores"].tolist(), strict=True)
    ]
    assert named == [{"yes": 1.0, "no": 0.5}, {"gray": 1.0}]
    for guess in targets["label_answers"][:, 0].tolist():  # the score of a guess is 1 at most
        right = targets["label_answers"] == guess
        assert (right * targets["label_scores"]).sum(1).max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e["labelf"]["vqa"].pop(), r"entry 2 \(image .*002\): 1 labels for the 2 sentences of vqa"),
        (lambda e: e["sentf"]["mscoco"].append(""), r"entry 2 .*sentence 2 of mscoco is ''"),
        (
            lambda e: e["labelf"]["vqa"][0].update(no=7),
            r"entry 2 .*0 of vqa: the score of answer 'no' is 7",
        ),
        (lambda e: e["labelf"].update(gqa=[]), r"entry 2 .*labelf has gqa, which sentf does not have"),
        (lambda e: e.update(img_id=image(0)), r"entry 2: .*000 is there a second time"),
        (lambda e: e.pop("sentf"), r"entry 2 .*expected an object with img_id and sentf"),
    ],
)
def test_entries_that_cannot_be_used_are_refused_by_file_entry_and_image(root, change, message):
    entries = [entry(n) for n in range(6)]
    change(entries[2])
    write_texts(root, "mscoco_train", entries)
    with pytest.raises(ValueError, match=message) as error:
        open_data(root)
    assert "mscoco_train.json" in str(error.value)
    assert not list((root / "stores" / "lxmert").glob("*.h5"))


def test_labels_beyond_the_models_are_refused_with_the_image(root):
    write_regions(root, "train2014", [0, 2, 4], ids=np.array([3, 1600, 2]))
    with pytest.raises(StoreError, match=r"000: object ids from 2 to 1600, expected 0 to 1,599, its detector's"):
        open_data(root, missing_images="drop")
    source, store = (root / each / "mscoco_imgfeat" / "train2014_obj36" for each in ("", "stores"))
    convert_tsv(source.with_suffix(".tsv"), store.with_suffix(".h5"), detector="mine", progress=False)
    with pytest.raises(StoreError, match=r"object id 1600 of image COCO_train2014_0+;.*1600 object labels"):
        open_data(root, missing_images="drop")


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"mscoco": 1, "vqa": 1, "vg": 1}, r"data.sources.vg=1, but mscoco_train have no such sentences"),
        ({"mscoco": 1}, r"\+data.sources.vqa=1, or 0 for never"),
        ({"mscoco": 0, "vqa": 0}, "not all of them 0"),
    ],
)
def test_sources_that_do_not_fit_the_files_are_refused(root, sources, message):
    with pytest.raises(ValueError, match=message):
        open_data(root, sources=sources)


@pytest.mark.skipif(not SHARED.exists(), reason="the real files of ../shared/data are not there")
def test_the_real_coco10_files_with_the_released_answer_table(tmp_path):
    for source, target in {
        "coco10/lxmert/coco10.json": "lxmert/coco10.json",
        "vocab/all_ans.json": "lxmert/all_ans.json",
        "coco10/train2014_obj36.tsv": "mscoco_imgfeat/train2014_obj36.tsv",
    }.items():
        (tmp_path / target).parent.mkdir(exist_ok=True)
        (tmp_path / target).symlink_to(SHARED / source)
    (tmp_path / "vocab.txt").symlink_to(SHARED / "vocab" / "bert_uncased_vocab.txt")
    splits = {"train": "coco10", "valid": "coco10", "test": "coco10"}
    data = open_data(tmp_path, feature_dim=2048, **splits)
    assert len(data.answers) == 9500
    assert data.report()["coco10"]["sources"] == {"mscoco": 30, "vqa": 80}
    assert data.report()["coco10"]["labels_without_answer"] == 1
    batch = next(iter(data.train_dataloader()))
    assert torch.isfinite(batch.region_features).all() and batch.targets["replacement_features"].shape[1] == 2048
