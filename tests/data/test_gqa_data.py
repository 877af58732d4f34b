"""GQA data: questions with text ids, images of two region files, the makers' files beside them."""

import json
from pathlib import Path

import numpy as np
import pytest
from folders import F, features_of, write_regions, write_rows, write_vocabulary

from datamodules import gqa, nlvr2, pretrain
from datamodules.gqa import GqaDataModule

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
IMAGES = {f"{2370000 + number}": number for number in range(5)}
NEW_IMAGES = {f"n{number}": number for number in range(10, 13)}


def question(number, images, **changes):
    image = list(images)[number % len(images)]
    answer = ["cat", "dog", "cat", "red"][number % 4]
    sentence = f"what is {['red', 'one', 'there'][number % 3]} ?"
    return {"question_id": f"{number:08d}", "img_id": image, "sent": sentence, "label": {answer: 1.0}, **changes}


TRAIN = [question(i, IMAGES) for i in range(17)]
VALID = [question(i, IMAGES, label={"dog": 1.0}) for i in range(100, 107)]
TESTDEV = [question(i, NEW_IMAGES, label={"cat" if i % 2 else "seldom": 1.0}) for i in range(200, 209)]
SUBMIT = [{k: v for k, v in question(i, NEW_IMAGES).items() if k != "label"} for i in range(300, 305)]


@pytest.fixture
def root(tmp_path):
    for split, rows in {"train": TRAIN, "valid": VALID, "testdev": TESTDEV, "submit": SUBMIT}.items():
        write_rows(tmp_path / "gqa" / f"{split}.json", rows)
    write_regions(tmp_path / "vg_gqa_imgfeat" / "vg_gqa_obj36.tsv", IMAGES)
    write_regions(tmp_path / "vg_gqa_imgfeat" / "gqa_testdev_obj36.tsv", NEW_IMAGES)
    write_vocabulary(tmp_path / "vocab.txt")
    return tmp_path


def open_data(root, stage=None, **options):
    data = GqaDataModule(root, root / "vocab.txt", **{"feature_dim": F, "batch_size": 8, **options})
    data.prepare_data(stage)
    data.setup(stage)
    return data


def check_rows(data, batches, source):
    """Each row of the batches against the source file's; returns the ids."""
    expected, ids = {row["question_id"]: row for row in source}, []
    numbers = IMAGES | NEW_IMAGES
    for batch in batches:
        for r, identifier in enumerate(batch.example_ids):
            want, i = expected[identifier], int(batch.row_image[r])
            tokens = batch.token_ids[batch.row_sentence[r]][batch.token_mask[batch.row_sentence[r]]]
            assert tokens.tolist() == data.tokenizer(want["sent"])["input_ids"]
            assert batch.image_ids[i] == want["img_id"]
            found = batch.region_features[i][batch.region_mask[i]].float().numpy()
            np.testing.assert_allclose(found, features_of(numbers[want["img_id"]]), rtol=1e-3)
            if "answer_scores" in batch.targets:
                scores = batch.targets["answer_scores"][r].tolist()
                assert {a: s for a, s in zip(data.answers, scores, strict=True) if s} == {
                    a: s for a, s in want["label"].items() if a in data.answers
                }
            ids.append(identifier)
    return ids


def test_every_row_of_every_batch_is_what_the_files_say(root):
    data = open_data(root)
    assert data.answers == ["dog", "cat", "red"]  # 4 + 7, 9 and 4 questions of train and valid
    assert len(set(check_rows(data, data.train_dataloader(), TRAIN + VALID))) == 24
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert sorted(check_rows(data, loader, TESTDEV)) == [row["question_id"] for row in TESTDEV]
    batches = list(data.predict_dataloader())
    assert sorted(check_rows(data, batches, SUBMIT)) == [row["question_id"] for row in SUBMIT]
    assert batches[0].targets == {}
    assert data.report()["testdev"]["labels_without_answer"] == 5  # "seldom"


def test_the_answer_list_of_the_release_decides_where_it_is_there(root):
    (root / "gqa" / "trainval_label2ans.json").write_text(json.dumps(["seldom", "cat"]))
    data = open_data(root)
    assert data.answers == ["seldom", "cat"]
    assert check_rows(data, data.val_dataloader(), TESTDEV)
    assert data.report()["testdev"]["labels_without_answer"] == 0


@pytest.mark.skipif(not SHARED.exists(), reason="the real files of ../shared/data are not there")
def test_the_real_answer_list_is_read(root):
    (root / "gqa" / "trainval_label2ans.json").symlink_to(SHARED / "vocab" / "gqa_trainval_label2ans.json")
    data = open_data(root, "test")
    assert len(data.answers) == 1842
    assert data.datasets["test"][[1]].targets["answer_scores"].argmax() == data.answers.index("cat")


@pytest.mark.parametrize(
    ("layout", "split", "image", "names"),
    [
        (gqa.LAYOUT, "train", "2370799", ["vg_gqa_imgfeat/vg_gqa"]),
        (gqa.LAYOUT, "testdev", "n161313", ["vg_gqa_imgfeat/gqa_testdev", "vg_gqa_imgfeat/vg_gqa"]),
        (gqa.LAYOUT, "submit", "n161313", ["vg_gqa_imgfeat/vg_gqa", "vg_gqa_imgfeat/gqa_testdev"]),
        (gqa.LAYOUT, "train", "COCO_val2014_000000262148", ["mscoco_imgfeat/val2014"]),
        (gqa.LAYOUT, "testdev", "TOY_testdev_000000000001", []),
        (gqa.LAYOUT, "train", "train-10171-0-img1", []),
        (pretrain.LAYOUT, "vgnococo", "2370799", ["vg_gqa_imgfeat/vg_gqa"]),
        (pretrain.LAYOUT, "mscoco_train", "COCO_train2014_000000458752", ["mscoco_imgfeat/train2014"]),
        (nlvr2.LAYOUT, "train", "train-10171-0-img1", ["nlvr2_imgfeat/train"]),
        (nlvr2.LAYOUT, "valid", "dev-850-0-img0", ["nlvr2_imgfeat/valid"]),
        (nlvr2.LAYOUT, "test", "test1-0-1-img1", ["nlvr2_imgfeat/test"]),
        (nlvr2.LAYOUT, "test", "test2-0-1-img1", []),
        (nlvr2.LAYOUT, "valid", "2370799", []),
    ],
)
def test_an_image_id_tells_its_region_files_in_each_data_set(layout, split, image, names):
    assert list(layout.files_of(image, split)) == [f"{name}_obj36" for name in names]


def test_the_images_of_submit_are_in_the_file_of_visual_genome(root):
    moved = {image: number + 20 for image, number in NEW_IMAGES.items()}
    write_regions(root / "vg_gqa_imgfeat" / "vg_gqa_obj36.tsv", IMAGES | moved)
    data = open_data(root)
    assert data.datasets["valid"][[0]].region_features[0, 0, 0] == 12  # testdev has a file of its own
    assert data.datasets["predict"][[0]].region_features[0, 0, 0] == 30
    (root / "vg_gqa_imgfeat" / "gqa_testdev_obj36.tsv").unlink()
    (root / "stores" / "vg_gqa_imgfeat" / "gqa_testdev_obj36.h5").unlink()
    assert open_data(root, "predict").datasets["predict"][[0]].region_features[0, 0, 0] == 30


def test_all_missing_files_are_listed_with_their_origin(tmp_path):
    write_vocabulary(tmp_path / "vocab.txt")
    with pytest.raises(FileNotFoundError) as error:
        open_data(tmp_path)
    said = str(error.value)
    for name in ("train", "valid", "testdev", "submit"):
        assert str(tmp_path / "gqa" / f"{name}.json") in said
    assert "vg_gqa_obj36.zip (30 GB)" in said and "gqa_testdev_obj36.zip" in said
    assert "GQA" in said and "experiment=toy_gqa` needs none" in said


def test_the_makers_files_are_not_taken_for_splits(root):
    for name in ("testdev_balanced_questions", "testdev_all_questions", "train_choices", "train_sceneGraphs"):
        write_rows(root / "gqa" / f"{name}.json", {})
    with pytest.raises(ValueError, match=r"Splits present: submit, testdev, train, valid\."):
        open_data(root, train="trian")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows[3].update(question_id=rows[1]["question_id"]),
            r"row 3 .*duplicate question_id, .* row 1",
        ),
        (lambda rows: rows[3].update(label=["cat"]), r"row 3 \(question '00000003'\): label is \['cat'\]"),
        (lambda rows: rows[3].update(sent=" "), r"row 3 .*empty question"),
        (lambda rows: rows[3].pop("img_id"), r"row 3 .*img_id missing"),
        (lambda rows: rows[3].pop("label"), r"row 3 .*label missing"),
    ],
)
def test_rows_that_cannot_be_used_are_refused_by_file_row_and_question(root, change, message):
    rows = [dict(row) for row in TRAIN]
    change(rows)
    write_rows(root / "gqa" / "train.json", rows)
    with pytest.raises(ValueError, match=rf"train\.json: {message}"):
        open_data(root, "fit")
    assert not (root / "stores" / "gqa" / "train.h5").exists()


def test_a_truncated_file_is_refused_with_the_place(root):
    file = root / "gqa" / "testdev.json"
    file.write_text(file.read_text()[:500])
    with pytest.raises(ValueError, match=r"testdev\.json: broken or truncated .* \(character \d+\)"):
        open_data(root, "test")


def test_the_makers_files_of_a_split_are_found_as_far_as_they_are_there(root):
    data = GqaDataModule(root, root / "vocab.txt")
    write_rows(root / "gqa" / "testdev_choices.json", {})
    assert data.scoring_files("testdev") == {}  # choices alone score nothing
    write_rows(root / "gqa" / "testdev_balanced_questions.json", {})
    names = {what: path.name for what, path in data.scoring_files("testdev").items()}
    assert names == {"questions": "testdev_balanced_questions.json", "choices": "testdev_choices.json"}
    assert data.scoring_files("submit") == {}
    write_rows(root / "gqa" / "testdev_all_questions.json", {})
    assert data.scoring_files("testdev").keys() == names.keys()
    found = data.scoring_files("testdev_all")
    assert {what: path.name for what, path in found.items()} == names | {
        "all_questions": "testdev_all_questions.json"
    }
