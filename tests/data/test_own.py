"""Questions of one's own: any columns, any of the formats, any kind of answer."""

import csv
import gzip
import io
import json

import numpy as np
import pytest
from folders import F, features_of, write_regions, write_vocabulary

from datamodules import vqa
from datamodules.formats.own import convert_own, truth_rows
from datamodules.formats.rows import read_rows
from datamodules.nlvr2 import Nlvr2DataModule
from datamodules.statistics import guess_accuracy
from datamodules.stores import ExampleStore
from datamodules.vqa import VqaDataModule
from lxmert.evaluate.__main__ import main as evaluate
from lxmert.files import InputError

ROWS = [
    {"qid": "a 1", "question": "what is red ?", "image": "kitchen 1.jpg", "answer": "cat"},
    {"qid": "ü/2", "question": 'say "one", or\u2028two\x0c\x85?', "image": "garden/2", "answer": "a red cat"},
    {"qid": "3", "question": "how many,\tthere ?", "image": "猫", "answer": "2"},
    {"qid": "4", "question": "is it\nred ?", "image": "7", "answer": "no"},
]


def table(rows, delimiter, end="\n"):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def lines(rows, end="\n"):
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)


FORMS = {
    "list.json": lambda rows: json.dumps(rows, indent=1),
    "lines.json": lines,
    "lines.jsonl": lines,
    "crlf.jsonl": lambda rows: lines(rows, "\r\n") + "\r\n",
    "table.csv": lambda rows: table(rows, ","),
    "crlf.csv": lambda rows: table(rows, ",", "\r\n"),
    "table.tsv": lambda rows: table(rows, "\t"),
}


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def content_of(store):
    """Everything in a text store, as rows."""
    store = ExampleStore(store)
    read = store.read(np.arange(len(store)))
    answers = iter(zip(read.answers.tolist(), read.scores.tolist(), strict=True))
    labels = [
        {store.table("answers")[a]: s for a, s in (next(answers) for _ in range(n))} for n in read.answer_counts
    ]
    images = [store.table("image")[code] for code in read.image]
    return list(zip(read.ids, read.texts, images, labels, strict=True))


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "bom"])
@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_are_read_in_every_format(tmp_path, form, mark, packed):
    path = written(tmp_path / (form + packed), mark + FORMS[form](ROWS).encode())
    convert_own(path, tmp_path / "store.h5")
    assert content_of(tmp_path / "store.h5") == [
        (row["qid"], row["question"], row["image"], {row["answer"]: 1.0}) for row in ROWS
    ]


TEN = ["red"] * 2 + ["cat"] * 3 + ["dog", "one", "is", "there", "what"]


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ({"label": " cat "}, {"cat": 1.0}),
        ({"label": {"cat": 1, "dog": 0.3}}, {"cat": 1.0, "dog": 0.3}),
        ({"answers": TEN}, {"red": 0.6, "cat": 0.9, "dog": 0.3, "one": 0.3, "is": 0.3, "there": 0.3, "what": 0.3}),
        (
            {"answers": [{"answer": a, "answer_id": i} for i, a in enumerate(TEN)]},
            {"red": 0.6, "cat": 0.9, "dog": 0.3, "one": 0.3, "is": 0.3, "there": 0.3, "what": 0.3},
        ),
        ({"class": 1}, {"dog": 1.0}),
        ({}, {}),
    ],
    ids=["text", "weights", "ten", "makers' ten", "class", "none"],
)
@pytest.mark.parametrize("form", ["list.json", "lines.jsonl", "table.csv"])
def test_an_answer_may_be_of_several_kinds(tmp_path, form, answer, label):
    written(tmp_path / "trainval_label2ans.json", '["cat", "dog"]')
    given = answer
    if form == "table.csv":
        given = {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in answer.items()}
    rows = [{"image": "1", "text": "what ?"} | given] * 2
    store = convert_own(written(tmp_path / form, FORMS[form](rows)), tmp_path / "store.h5")
    [(first, *_, found), (second, *_)] = content_of(store)
    assert (first, second) == (0, 1)  # rows without ids are numbered
    assert found == pytest.approx(label)
    assert ExampleStore(store).labelled == bool(answer)
    assert ExampleStore(store).annotated == ("answers" in answer)


@pytest.mark.parametrize("answer", ["[none]", "{", "[]"])
def test_a_text_in_json_is_an_answer_whatever_it_begins_with(tmp_path, answer):
    rows = [{"question": "what ?", "image": 1, "answer": each} for each in ("cat", answer)]
    for name, content in (("list.json", json.dumps(rows)), ("lines.jsonl", lines(rows))):
        store = convert_own(written(tmp_path / name, content), tmp_path / f"{name}.h5")
        assert ExampleStore(store).table("answers") == ["cat", answer]


def test_a_class_is_a_number_where_there_is_no_list(tmp_path):
    path = written(tmp_path / "a.csv", "image,text,class\n1,what ?,12\n")
    assert content_of(convert_own(path, tmp_path / "store.h5"))[0][3] == {"12": 1.0}


GOOD = {"id": 1, "image": 5, "text": "what ?", "answer": "cat"}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"id": 1}, "row 1: 1 is there a second time"),
        ({"id": "2"}, "row 1: id is '2', expected an integer as in the first row"),
        ({"id": " x "}, "row 1: id is ' x ', expected an integer"),
        ({"image": 1.5}, "row 1: image is 1.5, expected an image's id, a text or an integer"),
        ({"image": ["a", "b"]}, "several images are columns left, right, img2, img3"),
        ({"image": "a\nb"}, "row 1: image is 'a\\nb', expected a text without blanks at its ends"),
        ({"text": "  "}, "row 1: text is '  ', expected a text"),
        ({"answer": ""}, "leave the column out where answers are not known"),
        ({"answer": None}, "leave the column out where answers are not known"),
        ({"answer": 3}, "a class's number is a column class"),
        ({"answer": ["cat", "dog"]}, "in the first row it is no list of annotators' answers"),
        ({"answer": {"cat": 2}}, "the score of answer 'cat' is 2, expected a number above 0 and up to 1"),
        ({"answer": True}, "row 1: answer is True, expected a text"),
        ({"answer_type": "number"}, "row 1: has answer_type, which the first row has not"),
        ({"id": 2, "text": None}, "row 1: text is None, expected a text"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, second, message):
    path = written(tmp_path / "a.json", json.dumps([GOOD, {**GOOD, "id": 2, **second}]))
    with pytest.raises(InputError) as raised:
        convert_own(path, tmp_path / "store.h5")
    assert message in str(raised.value) and f"{path}: row 1" in str(raised.value)
    assert not (tmp_path / "store.h5").exists()


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.csv", "", {}, "empty, expected the names of the columns"),
        ("a.csv", "text,image\n", {}, "no rows"),
        (
            "a.csv",
            "text;image\nwhat ?;1\n",
            {},
            "one column, 'text;image'; expected several, with a comma between",
        ),
        (
            "a.csv",
            "text,image\nwhat, now ?,1\n",
            {},
            "line 2: 3 fields, expected 2 as in the first line: text, image",
        ),
        ("a.csv", "text,text,image\n", {}, "two columns are called 'text'"),
        ("a.tsv", 'text\timage\n"stop" is ?\t1\n', {}, "line 2: 'tab' expected after '\"'"),
        ("a.csv", b"text,image\n\xff,1\n", {}, "not UTF-8"),
        ("a.csv", "words,image\nwhat ?,1\n", {}, "no column is the text: expected sent or question or"),
        ("a.csv", "text,question,image\na,b,1\n", {}, "question and text could both be the text"),
        ("a.csv", "text,image\na,1\n", {"text": "words"}, "no column 'words', which data.columns.text names"),
        (
            "a.csv",
            "text,image,answer\na,1,b\n",
            {"answer": "reply"},
            "no column 'reply', which data.columns.answer",
        ),
        ("a.csv", "text,image\na,1\n", {"words": "text"}, "data.columns.words: expected one of id, image, text"),
        ("a.csv", "text,image,answer,class\na,1,b,2\n", {}, "answer and class could both be the answer"),
        ("a.csv", "text,image,class\na,1,-1\n", {}, "class is '-1', expected a whole number from 0"),
        ("a.json", "[]", {}, "no rows"),
        ("a.json", "[1]", {}, "row 0: found 1, expected an object"),
        ("a.jsonl", '{"text": "a", "image": 1}\n{"text": "a", ', {}, "line 2: broken or truncated JSON"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, name, content, columns, message):
    path = written(tmp_path / name, content)
    with pytest.raises(InputError) as raised:
        convert_own(path, tmp_path / "store.h5", columns)
    assert message in str(raised.value)


def test_a_cut_off_or_damaged_gzip_file_is_named(tmp_path):
    packed = gzip.compress(table(ROWS * 100, ",").encode())
    for content in (packed[:-9], packed[:40] + b"\0" + packed[41:]):
        path = tmp_path / "a.csv.gz"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.csv\.gz: damaged or cut off where gzip made it"):
            list(read_rows(path))


def test_a_bar_counts_the_bytes_of_the_packed_file(tmp_path):
    path = written(tmp_path / "a.json.gz", json.dumps(ROWS * 1000))
    counts = []
    assert len(list(read_rows(path, progress=counts.append))) == 4000
    assert sum(counts) == path.stat().st_size


# -------------------------------------------------------------------------------- in the data module


def own(root, **options):
    write_vocabulary(root / "vocab.txt")
    arguments = {"folder": "mine", "region_folder": "mine_imgfeat", "columns": {}, "feature_dim": F}
    arguments |= {"train": "train", "valid": [], "test": [], "predict": []} | options
    data = VqaDataModule(root, root / "vocab.txt", **arguments)
    data.prepare_data("fit")
    data.setup("fit")
    return data


def features(data, place):
    """The first feature of the image of an example, which tells its number."""
    return float(data.datasets["train"][[place]].region_features[0, 0, 0])


def test_released_ids_mean_nothing_in_a_data_set_of_ones_own(tmp_path):
    ids = ["1", "COCO_train2014_000000000009", "n123", "01235", "4567.jpg"]
    rows = [{"text": "what ?", "image": image, "answer": "cat"} for image in [*ids, "kitchen.JPG"]]
    written(tmp_path / "mine" / "train.csv", table(rows, ","))
    write_regions(tmp_path / "mine_imgfeat" / "some name.tsv", {image: n for n, image in enumerate(ids)})
    write_regions(tmp_path / "mine_imgfeat" / "more.tsv", {"kitchen": 9})
    write_regions(tmp_path / "vg_gqa_imgfeat" / "vg_gqa_obj36.tsv", {"1": 30, "01235": 31})
    write_regions(tmp_path / "mscoco_imgfeat" / "train2014_obj36.tsv", {ids[1]: 32})
    data = own(tmp_path)
    assert [features(data, place) for place in range(6)] == [0, 1, 2, 3, 4, 9]


def test_an_image_is_found_by_its_id_before_it_is_without_its_ending(tmp_path):
    rows = [{"text": "what ?", "image": image, "answer": "cat"} for image in ("a.jpg", "a", "b.png")]
    written(tmp_path / "mine" / "train.csv", table(rows, ","))
    write_regions(tmp_path / "mine_imgfeat" / "a.tsv", {"a": 1, "b": 2})
    write_regions(tmp_path / "mine_imgfeat" / "b.tsv", {"a.jpg": 3})
    data = own(tmp_path)
    assert [features(data, place) for place in range(3)] == [3, 1, 2]
    np.testing.assert_allclose(features_of(3)[0, 0], 3)


def splits(root, **images):
    """A text of each of these images, by split."""
    for split, names in images.items():
        rows = [{"text": f"what {split} ?", "image": name, "answer": "cat"} for name in names]
        written(root / "mine" / f"{split}.csv", table(rows, ","))


def test_an_image_that_two_region_files_have_is_refused_by_the_names_of_both(tmp_path):
    splits(tmp_path, train=["1", "2"], valid=["a/2.jpg", "3"])
    write_regions(tmp_path / "mine_imgfeat" / "train.tsv", {"1": 1, "2": 2, "4": 4})
    write_regions(tmp_path / "mine_imgfeat" / "valid.tsv", {"3": 5, "4": 6})
    data = own(tmp_path, valid="valid")  # 4 is asked about by none
    assert [features(data, place) for place in range(2)] == [1, 2]
    write_regions(tmp_path / "mine_imgfeat" / "valid.tsv", {"2": 5, "3": 6, "4": 7})
    stores = r"stores/mine_imgfeat/train\.h5 and in .*stores/mine_imgfeat/valid\.h5"
    for train, split in (("train", "train"), ("valid", "valid")):
        with pytest.raises(InputError, match=rf"^1 images of {split}, such as '2', are in .*{stores}"):
            own(tmp_path, train=train)


@pytest.mark.parametrize(
    ("train", "valid"),
    [
        (["1.jpg", "1.png"], ["2"]),
        (["1.jpg"], ["1.png"]),
        (["train/1.jpg", "2"], ["valid/1.jpg"]),
        (["train/1", "2"], ["valid/1"]),
    ],
)
def test_two_pictures_that_would_have_the_same_regions_are_refused(tmp_path, train, valid):
    splits(tmp_path, train=train, valid=valid)
    write_regions(tmp_path / "mine_imgfeat" / "all.tsv", {"1": 1, "2": 2})
    message = rf"^'{train[0]}' and '({'|'.join([*train, *valid])})', an image of (train|valid), would both"
    with pytest.raises(InputError, match=rf"{message} have the regions of '1' in .*all\.h5"):
        own(tmp_path, valid="valid")


def test_an_image_may_be_spelt_with_its_folder_and_ending_or_without_them(tmp_path):
    splits(tmp_path, train=["img/1.jpg", "2"], valid=["1", "2.PNG"], test=["x/img/1", "2"])
    write_regions(tmp_path / "mine_imgfeat" / "all.tsv", {"1": 1, "2": 2})
    data = own(tmp_path, valid="valid", test="test")
    data.prepare_data("test")
    data.setup("test")
    assert [features(data, place) for place in range(2)] == [1, 2]


def test_a_store_is_made_again_when_other_columns_or_answers_are_meant(tmp_path):
    rows = [{"text": "what ?", "image": "1", "short": "cat", "long": "a cat", "class": 1}]
    written(tmp_path / "mine" / "train.json", json.dumps(rows))
    write_regions(tmp_path / "mine_imgfeat" / "a.tsv", {"1": 1})
    assert own(tmp_path, columns={"answer": "short"}).answers == ["cat"]
    assert own(tmp_path, columns={"answer": "long"}).answers == ["a cat"]
    assert own(tmp_path).answers == ["1"]
    written(tmp_path / "mine" / "trainval_label2ans.json", '["cat", "dog"]')
    data = own(tmp_path)
    assert data.datasets["train"][[0]].targets["answer_scores"].tolist() == [[0, 1]]


def test_texts_of_a_split_in_two_formats_are_refused(tmp_path):
    for name in ("train.csv", "train.jsonl"):
        written(tmp_path / "mine" / name, "")
    with pytest.raises(InputError, match=r"train\.jsonl and train\.csv are both the texts of train"):
        own(tmp_path)


def test_a_missing_split_and_missing_texts_are_named_with_the_formats_there_could_be(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no texts of mine, neither .*\{\.json,\.jsonl,\.csv,"):
        own(tmp_path)
    written(tmp_path / "mine" / "other.csv", table(ROWS, ","))
    with pytest.raises(InputError, match=r"unknown split 'train': .*or \.csv or .* Splits present: other"):
        own(tmp_path)


def test_the_guess_from_the_text_alone_is_made_once(tmp_path, monkeypatch):
    rows = [
        {"text": "what ?", "image": 1, "answer": answer, "id": n} for n, answer in enumerate(("cat", "cat", "dog"))
    ]
    for split in ("train", "valid"):
        written(tmp_path / "mine" / f"{split}.json", json.dumps(rows))
    write_regions(tmp_path / "mine_imgfeat" / "a.tsv", {"1": 1})
    data, guesses = own(tmp_path, valid="valid"), []
    monkeypatch.setattr(vqa, "guess_accuracy", lambda *splits: guesses.append(1) or guess_accuracy(*splits))
    for _ in ("page", "summary"):
        assert data.baselines() == {"best guess from the text alone": pytest.approx(2 / 3)}
    assert len(guesses) == 1


@pytest.mark.parametrize("answer", [["true", "False"], [1, 0], [True, False]])
def test_pairs_have_two_images_and_are_true_or_false(tmp_path, answer):
    rows = [
        {"text": "both red", "left": "a", "right": "b", "answer": answer[0]},
        {"text": "one cat", "left": "b", "right": "a.jpg", "answer": answer[1]},
    ]
    written(tmp_path / "mine" / "train.jsonl", lines(rows))
    write_regions(tmp_path / "mine_imgfeat" / "a.tsv", {"a": 1, "b": 2})
    write_vocabulary(tmp_path / "vocab.txt")
    data = Nlvr2DataModule(
        tmp_path,
        tmp_path / "vocab.txt",
        folder="mine",
        region_folder="mine_imgfeat",
        columns={},
        feature_dim=F,
        train="train",
        valid=[],
        test=[],
        predict=[],
    )
    assert data.num_images is None
    data.prepare_data("fit")
    data.setup("fit")
    assert data.num_images == 2
    batch = data.datasets["train"][[0, 1]]
    assert batch.targets["statement"].tolist() == [1, 0]
    found = [float(batch.region_features[i, 0, 0]) for i in batch.row_image]
    assert found == [1, 2, 2, 1]


def statements(root, train, valid=None, **options):
    """The data module of statements about images a, b, c and d, whose features tell 1, 2, 3 and 4."""
    for split, rows in {"train": train, "valid": valid}.items():
        if rows:
            written(root / "mine" / f"{split}.jsonl", lines(rows))
    write_regions(root / "mine_imgfeat" / "a.tsv", {"a": 1, "b": 2, "c": 3, "d": 4})
    write_vocabulary(root / "vocab.txt")
    arguments = {"folder": "mine", "region_folder": "mine_imgfeat", "columns": {}, "feature_dim": F}
    arguments |= {"train": "train", "valid": "valid" if valid else [], "test": [], "predict": []} | options
    data = Nlvr2DataModule(root, root / "vocab.txt", **arguments)
    data.prepare_data("fit")
    data.setup("fit")
    return data


FOUR = {"text": "all are red", "left": "a", "right": "b", "img2": "c", "img3": "d", "answer": 1}


def test_a_statement_has_as_many_images_as_there_are_columns_of_them(tmp_path):
    rows = [FOUR, {**FOUR, "left": "d", "img3": "c.jpg", "answer": 0, "text": "one cat"}, {**FOUR, "img2": "lost"}]
    data = statements(tmp_path, rows, missing_images="drop")
    assert data.num_images == 4 and data.label_names == {"answer_type": [], "question_type": []}
    dataset = data.datasets["train"]
    assert dataset.weights.tolist() == [1, 1, 0]  # the third image of the last one has no regions
    batch = dataset[[1, 0]]
    assert batch.row_sentence.tolist() == [0] * 4 + [1] * 4
    assert [float(batch.region_features[i, 0, 0]) for i in batch.row_image] == [4, 2, 3, 3, 1, 2, 3, 4]
    assert next(dataset.known(0, np.array([1]))).images == ["d b c c.jpg"]


def test_columns_of_images_may_have_names_of_ones_own_and_a_gap_is_told_of(tmp_path):
    rows = [{"text": "all red", "front": "a", "side": "b", "back": "c", "answer": True}]
    columns = {"left": "front", "right": "side", "img2": "back"}
    store = convert_own(written(tmp_path / "a.json", lines(rows)), tmp_path / "a.h5", columns, pairs=True)
    store = ExampleStore(store)
    assert store.groups == ("right", "img2") and store.table("img2") == ["c"]
    with pytest.raises(InputError, match=r"img3 is there and img2 is not\. .* \+data\.columns\.img2=NAME"):
        gap = {name: value for name, value in FOUR.items() if name != "img2"}
        convert_own(written(tmp_path / "b.json", lines([gap])), tmp_path / "b.h5", pairs=True)
    with pytest.raises(InputError, match=r"line 2: has img2, which the first row has not"):
        two, three = (
            {name: FOUR[name] for name in names} for names in (("left", "right"), ("left", "right", "img2"))
        )
        rows = [row | {"text": "red", "answer": 1} for row in (two, three)]
        convert_own(written(tmp_path / "c.jsonl", lines(rows)), tmp_path / "c.h5", pairs=True)


def test_splits_whose_statements_have_not_as_many_images_are_refused(tmp_path):
    three = {name: value for name, value in FOUR.items() if name != "img3"}
    with pytest.raises(
        InputError, match=r"train\.jsonl has 4, .*valid\.jsonl has 3\. Give all files as many columns"
    ):
        statements(tmp_path, [FOUR], [three])


# ---------------------------------------------------------------------------------- normalized answers


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Yes. ", {"yes": 1.0}),
        ({"Yes": 0.3, "yes": 0.6, "No!": 1}, {"yes": 0.6, "no": 1.0}),
        (["Red", "red.", "RED", *["x"] * 7], {"red": 0.9, "x": 1.0}),
    ],
    ids=["text", "object", "ten"],
)
def test_normalized_answers_are_read_alike_whatever_their_kind(tmp_path, answer, label):
    path = written(tmp_path / "a.json", json.dumps([{"text": "what ?", "image": 1, "answer": answer}]))
    store = convert_own(path, tmp_path / "store.h5", {"normalized_answer": "answer"})
    assert content_of(store)[0][3] == pytest.approx(label)
    assert truth_rows(path, {"normalized_answer": "answer"}, labelled=True)[0]["label"] == pytest.approx(label)


def test_an_answer_list_is_read_as_normalized_answers_are_and_so_are_predictions_scored(tmp_path, capsys):
    rows = [{"text": "what ?", "image": "1", "answer": a, "id": n} for n, a in enumerate(("Cat", "dog.", "cat"))]
    path = written(tmp_path / "mine" / "train.json", json.dumps(rows))
    written(tmp_path / "mine" / "trainval_label2ans.json", '["Dog", "dog", "CAT!"]')
    write_regions(tmp_path / "mine_imgfeat" / "a.tsv", {"1": 1})
    data = own(tmp_path, columns={"normalized_answer": "answer"})
    assert data.answers == ["dog", "cat"]
    assert data.datasets["train"][[0, 1, 2]].targets["answer_scores"].tolist() == [[0, 1], [1, 0], [0, 1]]
    predictions = written(
        tmp_path / "p.json",
        json.dumps([{"question_id": n, "answer": a} for n, a in enumerate(("CAT", "cat", "cat"))]),
    )
    for columns, expected in ((["--columns", "normalized_answer=answer"], 66.67), ([], 33.33)):
        assert evaluate(["own", str(predictions), str(path), *columns, "--json", str(tmp_path / "s.json")]) == 0
        assert json.loads((tmp_path / "s.json").read_text())["metrics"]["accuracy"] == expected
        noted = "differ in capitals, blanks or marks at the end" in " ".join(capsys.readouterr().out.split())
        assert noted == (not columns)


@pytest.mark.parametrize(
    ("columns", "pairs", "message"),
    [
        ({"normalized_answer": "reply"}, False, "no column 'reply', which data.columns.normalized_answer names"),
        ({"normalized_answer": "answer", "answer": "answer"}, False, "data.columns.answer: expected one of id"),
        ({"normalized_answer": "answer"}, True, "data.columns.normalized_answer: expected one of id, left"),
    ],
)
def test_a_column_of_normalized_answers_takes_the_place_of_that_of_answers(tmp_path, columns, pairs, message):
    row = {"text": "what ?", "image": 1, "left": 1, "right": 2, "answer": "1", "label": "1"}
    with pytest.raises(InputError) as raised:
        convert_own(written(tmp_path / "a.json", json.dumps([row])), tmp_path / "a.h5", columns, pairs=pairs)
    assert message in str(raised.value)
