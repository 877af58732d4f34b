"""Nothing is trained on nonsense in silence: what is refused, what is said once; and good data gets no word."""

import json
import logging

import pytest
from folders import F, write_regions, write_rows, write_vocabulary
from lightning import Trainer

from datamodules.formats.answer_lists import normalized, spelt_alike
from datamodules.nlvr2 import Nlvr2DataModule
from datamodules.stores.texts import ExampleStore, write_examples
from datamodules.vqa import VqaDataModule
from lxmert.files import InputError


def question(number, image, **changes):
    """One that differs from all others, of one image."""
    words = ["red", "cat", "dog", "many", "there", "both", "one", "how"]
    sent = f"is {words[number % 8]} {words[number // 8 % 8]} {words[number // 64]} ?"
    row = {"question_id": number, "img_id": f"COCO_train2014_{image:012d}", "sent": sent, "label": {"yes": 1}}
    return row | {"answer_type": "other", "question_type": "is", **changes}


TRAIN = [question(n, n % 4) for n in range(16)]
VALID = [question(100 + n, 4 + n % 2) for n in range(8)]


@pytest.fixture
def root(tmp_path):
    write_vocabulary(tmp_path / "vocab.txt")
    write_regions(
        tmp_path / "mscoco_imgfeat/train2014_obj36.tsv", {VALID[0]["img_id"][:-1] + str(n): n for n in range(6)}
    )
    return tmp_path


def fit(root, train=TRAIN, valid=VALID, **options):
    """The data of a fit on these rows."""
    write_rows(root / "vqa/train.json", train)
    write_rows(root / "vqa/minival.json", valid)
    options = {"train": "train", "valid": "minival", "test": [], "batch_size": 4, "feature_dim": F, **options}
    data = VqaDataModule(root, root / "vocab.txt", **options)
    data.prepare_data("fit")
    data.setup("fit")
    return data


@pytest.fixture
def warned(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [message for message in caplog.messages if not caplog.records[0].name.startswith("lightning")]


def test_good_data_is_read_without_a_word(root, warned):
    data = fit(root)
    data.setup("fit")
    assert warned() == []


@pytest.mark.parametrize("role", ["valid", "test"])
def test_a_split_that_the_processes_cannot_share_is_refused_before_the_training(root, monkeypatch, role):
    write_rows(root / "vqa/test.json", VALID[:1])
    data = fit(root, valid=VALID[:1] if role == "valid" else VALID, test="test" if role == "test" else "minival")
    data.prepare_data("test")
    data.setup("test")
    monkeypatch.setattr(data, "_process", lambda: {"rank": 0, "world_size": 2})
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(InputError, match=rf"^data\.{role}=\w+: 1 examples do not make batches .* for 2 process"):
        data.setup("fit")


# ------------------------------------------------------------------------------------------------ answers


def test_an_answer_list_that_no_label_is_in_is_refused(root):
    write_rows(root / "vqa/trainval_label2ans.json", ["YES", "no"])
    with pytest.raises(
        InputError, match=r"train\.json: 16 of 16 labels are not among the 2 answers: such as \['yes'"
    ):
        fit(root)


def test_validation_answers_that_are_all_unseen_are_refused(root):
    with pytest.raises(
        InputError, match=r"minival\.json: 8 of 8 labels .*Every answer would be wrong.*data\.valid"
    ):
        fit(root, valid=[row | {"label": {"no": 1}} for row in VALID])


def test_labels_that_are_mostly_no_answers_are_said_with_numbers(root, warned):
    fit(root, valid=[row | {"label": {"no": 1} if n else {"yes": 1}} for n, row in enumerate(VALID)])
    (said,) = warned()
    assert (
        "7 of 8 labels are not among the 1 answers: such as ['no'], where the answers are such as ['yes']" in said
    )


def test_unlabelled_splits_and_predictions_need_no_known_answer(root, warned):
    write_rows(root / "vqa/test.json", [row | {"label": {"no": 1}} for row in VALID])
    data = fit(root, predict="test")
    data.prepare_data("predict")
    data.setup("predict")
    assert warned() == []


def test_splits_that_cannot_be_scored_are_refused_and_such_a_test_alone_is_not(root):
    unlabelled = [{key: value for key, value in row.items() if key != "label"} for row in VALID]
    write_rows(root / "vqa/test.json", unlabelled)
    data = fit(root, test="test")
    data.prepare_data("test")
    data.setup("test")
    assert "answer_scores" not in data.datasets["test"][[0]].targets
    data = fit(root, test="minival,test")
    data.prepare_data("test")
    with pytest.raises(
        InputError, match=r"vqa/test\.json: no labels to score by\. Leave test out of data\.test, and"
    ):
        data.setup("test")
    with pytest.raises(
        InputError, match=r"vqa/minival\.json: .* Leave minival out of data\.valid, and predict it"
    ):
        fit(root, valid=unlabelled)


def test_answers_that_differ_in_capitals_and_spaces_are_said_once(root, warned):
    spellings = ["Yes", "yes", " yes", "no"]
    data = fit(root, train=[row | {"label": {spellings[n % 4]: 1}} for n, row in enumerate(TRAIN)])
    data.setup("fit")
    (said,) = warned()
    assert said.startswith(
        "3 answers differ from another in capitals, blanks or marks at the end alone, such as "
        "[' yes', 'Yes', 'yes']"
    )
    assert spelt_alike(["a  b", "A b", "ab", "c"]) == [["a  b", "A b"]]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (" Yes. ", "yes"),
        ("Stop  the\tCAR!?", "stop the car"),
        ("3.5", "3.5"),
        ("c++ ", "c++"),
        ("?", "?"),
        ("E\u0301te\u0301", "\u00e9t\u00e9"),
        ("a . .", "a"),
    ],
)
def test_an_answer_normalized_is_so_already(answer, expected):
    assert normalized(answer) == normalized(expected) == expected


# ---------------------------------------------------------------------------------------------- sentences


def test_sentences_of_unknown_words_are_refused_or_said(root, warned):
    foreign = {"sent": "wo ist der rote Hund ?"}
    with pytest.raises(
        InputError, match=r"train\.json: most words of 16 of the 16 .*unknown to .*data\.tokenizer"
    ):
        fit(root, train=[row | foreign for row in TRAIN])
    fit(
        root,
        valid=[row | foreign for row in VALID],
        train=[row | (foreign if n else {}) for n, row in enumerate(TRAIN)],
    )
    train, valid = warned()
    assert "train.json: most words of 15 of the 16 sentences" in train and "'wo ist der rote Hund ?'" in train
    assert "minival.json: most words of 8 of the 8 sentences" in valid


def test_sentences_that_are_mostly_cut_are_said(root, warned):
    fit(root, max_length=5)
    said = warned()
    assert len(said) == 2 and "16 of the 16 sentences looked at have more than data.max_length=5 tokens" in said[0]
    assert "the longest has 7" in said[0]
    with pytest.raises(InputError, match=r"data\.max_length=2; expected 3 or more"):
        fit(root, max_length=2)


def test_a_cased_vocabulary_that_is_read_uncased_is_said_with_what_mends_it(root, warned):
    with (root / "vocab.txt").open("a") as file:
        file.write("\nParis\n##É\n##s")
    fit(root)
    (said,) = warned()
    assert (
        "2 of its 20 word pieces match no text, such as 'Paris', '##É': text is lower-cased and stripped of"
        in said
    )
    folder = root / "tokenizer"
    folder.mkdir()
    (folder / "vocab.txt").write_bytes((root / "vocab.txt").read_bytes())
    (folder / "tokenizer_config.json").write_text(said[said.index("{") : said.index("}") + 1])
    data = VqaDataModule(root, folder)
    assert data.tokenizer.tokenize("Paris") == ["Paris"] and len(warned()) == 1


def test_a_special_token_in_a_question_is_read_as_in_the_original(root):
    sents = {"sent": "is [MASK] red ?"}, {"sent": "is [MASK]? red ?"}
    data = fit(root, train=[*TRAIN, question(200, 0, **sents[0]), question(201, 0, **sents[1])])
    mask = data.tokenizer.mask_token_id
    batch = data.datasets["train"][[16, 17]]
    assert (batch.token_ids == mask).sum(1).tolist() == [1, 0]


# ------------------------------------------------------------------------------------------------- splits


def test_examples_of_validation_that_are_trained_on_are_counted(root, warned):
    repeated = [row | {"question_id": 300 + n} for n, row in enumerate(TRAIN[:3])]
    other_image = question(400, 4, sent=TRAIN[0]["sent"])
    other_words = question(401, 0, sent="is one one one ?")
    fit(root, valid=[*VALID, *repeated, other_image, other_words])
    (said,) = warned()
    assert (
        "minival.json: 3 of its 13 examples are trained on too, with the same sentence and image, such as " in said
    )
    assert TRAIN[0]["sent"] in said


def test_a_split_to_train_and_validate_on_is_said(root, warned):
    write_rows(root / "vqa/both.json", TRAIN)
    data = VqaDataModule(
        root, root / "vocab.txt", train="both", valid="both", test=[], feature_dim=F, batch_size=4
    )
    data.prepare_data("fit")
    data.setup("fit")
    (said,) = warned()
    assert "both.json: 16 of its 16 examples are trained on too" in said


def test_ids_of_two_splits_are_counted_but_for_those_that_number_the_images_or_the_rows(root, warned):
    rows = [row | {"question_id": n} for n, row in enumerate(VALID)]
    fit(root, train=[row | {"question_id": 15 - n} for n, row in enumerate(TRAIN)], valid=rows)
    (said,) = warned()
    assert "train.json and " in said and "minival.json share 8 ids, such as 7." in said
    fit(root, train=TRAIN, valid=rows)

    def numbered(rows):
        return [row | {"question_id": int(row["img_id"][-1]), "sent": f"is {n}"} for n, row in enumerate(rows)]

    fit(root, train=numbered(TRAIN[:4]), valid=numbered(TRAIN[:4]), batch_size=2, max_length=30)
    assert not any("share" in message for message in warned()[1:])


def test_pairs_of_images_are_compared_by_both(tmp_path, warned):
    write_vocabulary(tmp_path / "vocab.txt")
    write_regions(
        tmp_path / "nlvr2_imgfeat/train_obj36.tsv", {f"train-{n}-img{k}": n for n in range(4) for k in "01"}
    )

    def row(name, left, right, sent="both are red"):
        return {"identifier": name, "img0": left, "img1": right, "sent": sent, "label": 1, "uid": name}

    train = [row(f"train-{n}", f"train-{n}-img0", f"train-{n}-img1") for n in range(4)]
    write_rows(tmp_path / "nlvr2/train.json", train)
    write_rows(
        tmp_path / "nlvr2/valid.json",
        [
            row("v-0", "train-0-img0", "train-0-img1"),
            row("v-1", "train-0-img0", "train-1-img1"),
            row("v-2", "train-1-img0", "train-1-img1", "one is red"),
        ],
    )
    data = Nlvr2DataModule(tmp_path, tmp_path / "vocab.txt", test=[], feature_dim=F, batch_size=2)
    data.prepare_data("fit")
    data.setup("fit")
    assert [m for m in warned() if "1 of its 3 examples are trained on too" in m]


def test_the_hashes_of_strings_are_equal_where_they_are(tmp_path):
    texts = ["", "a", "ab", "ba", "b", "é", "a" * 200_000, "ab", "", "a" * 200_000, "a" * 199_999 + "b", "aa"]
    n = len(texts)
    with write_examples(tmp_path / "s.h5") as writer:
        writer.append(texts=texts, ids=[*range(n)], images=["i"] * n, labels=[{}] * n, groups={})
    store = ExampleStore(tmp_path / "s.h5")
    for name, values in (("text", texts), ("id", [*range(n)])):
        hashes = store.hashes(name).tolist()
        assert [[a == b for b in hashes] for a in hashes] == [[a == b for b in values] for a in values]


# ----------------------------------------------------------------------------------------- dropped examples


def test_dropped_examples_are_counted_and_left_out_of_the_report(root, warned):
    lost = [question(500 + n, 9, label={"maybe": 1}) for n in range(5)]
    with pytest.raises(
        InputError, match=r"1 of its 5 images have no regions.*5 of its 21 examples need them.*drop"
    ):
        fit(root, train=[*TRAIN, *lost])
    data = fit(root, train=[*TRAIN, *lost], missing_images="drop")
    assert "5 of its 21 examples need them. They are left out." in warned()[0]
    facts = data.report()["train"]
    assert (facts["examples"], facts["images"], facts["truncated_of"]) == (16, 4, 16)
    assert json.dumps(facts)
