import base64
import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer

from datamodules.batches.loaders import resume_position
from datamodules.stores.hdf5 import StoreError
from datamodules.stores.regions import RegionStore
from datamodules.vqa import VqaDataModule
from lxmert.batch import Batch
from lxmert.files import InputError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
WORDS = ["what", "is", "red", "cat", "dog", "?", "how", "many", "are", "there"]
F = 5  # feature size of the made-up images


# ------------------------------------------------------------------------------- a made-up data folder


def question(number, image, **changes):
    return {
        "question_id": number,
        "img_id": image,
        "sent": f"how many {['cat', 'dog', 'red'][number % 3]} are there ?",
        "label": {"yes": 1, "no": 0.3} if number % 2 else {"red": 0.6},
        "answer_type": ["yes/no", "other"][number % 2],
        "question_type": ["how many", "what is"][number % 2],
        **changes,
    }


def write_questions(root, split, rows):
    (root / "vqa").mkdir(parents=True, exist_ok=True)
    (root / "vqa" / f"{split}.json").write_text(json.dumps(rows))


def write_regions(root, folder, images, regions=3):
    """A TSV of the release's format; the features of an image are its number and then counting up."""

    def encode(array, dtype):
        return base64.b64encode(np.asarray(array, dtype).tobytes()).decode()

    (root / "mscoco_imgfeat").mkdir(parents=True, exist_ok=True)
    lines = []
    for image in images:
        n = regions + int(image[-1]) % 2
        features = int(image[-3:]) + np.arange(n * F).reshape(n, F) / 100
        ints, floats, boxes = encode(range(n), np.int64), encode([0.5] * n, np.float32), [[1, 2, 30, 40]] * n
        columns = [image, "50", "100", ints, floats, ints, floats, str(n), encode(boxes, np.float32)]
        lines.append("\t".join([*columns, encode(features, np.float32)]) + "\n")
    (root / "mscoco_imgfeat" / f"{folder}_obj36.tsv").write_text("".join(lines))


def image(folder, number):
    return f"COCO_{folder}_{number:012d}"


TRAIN = [question(i, image("train2014", i % 6)) for i in range(22)]
NOMINIVAL = [question(i, image("val2014", i % 4), question_type="is the") for i in range(100, 110)]
MINIVAL = [question(i, image("val2014", 4 + i % 3), label={"yes": 1, "seven": 0.3}) for i in range(200, 213)]
TEST = [{"question_id": i, "img_id": image("test2015", i % 2), "sent": "what is red ?"} for i in range(300, 307)]


@pytest.fixture
def root(tmp_path):
    for split, rows in {"train": TRAIN, "nominival": NOMINIVAL, "minival": MINIVAL, "test": TEST}.items():
        write_questions(tmp_path, split, rows)
    for folder, count in {"train2014": 6, "val2014": 7, "test2015": 2}.items():
        write_regions(tmp_path, folder, [image(folder, i) for i in range(count)])
    write_vocabulary(tmp_path)
    return tmp_path


def write_vocabulary(root):
    (root / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "s", "##s"]))


def open_data(root, stage=None, **options):
    data = VqaDataModule(
        root, root / "vocab.txt", **{"feature_dim": F, "batch_size": 8, "eval_batch_size": 8, **options}
    )
    data.prepare_data(stage)
    data.setup(stage)
    return data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "vqa2"}, "data.task=vqa2; expected one of vqa, vizwiz, gqa, nlvr2"),
        ({"predict": "test,minival,test"}, "data.predict names test twice; name each split once"),
    ],
)
def test_a_task_that_is_none_and_a_split_named_twice_are_refused(root, options, message):
    with pytest.raises(InputError, match=message):
        open_data(root, **options)


@pytest.mark.parametrize("name", ["sub/minival", "/minival", "..", ".", "sub\\minival"])
def test_a_split_whose_name_leads_elsewhere_is_refused_before_anything_is_read(tmp_path, name):
    with pytest.raises(InputError, match=r"^data\.valid names '.*'; expected a file of texts without its folder"):
        VqaDataModule(tmp_path, tmp_path, valid=["minival", name])


def test_a_split_may_be_called_by_a_number(tmp_path):
    data = VqaDataModule(tmp_path, tmp_path, train=2014, valid=[2015, "test"])
    assert (data.splits["train"], data.splits["valid"]) == (["2014"], ["2015", "test"])


class Respelling(VqaDataModule):
    def spell_answer(self, answer):
        return answer.lower().rstrip(".")


def test_two_spellings_of_one_answer_give_it_one_score(root):
    write_questions(root, "train", [row | {"label": {"Yes": 0.3, "yes.": 1, "no": 0.6}} for row in TRAIN])
    data = Respelling(root, root / "vocab.txt", feature_dim=F, batch_size=8, train="train")
    data.prepare_data("fit")
    data.setup("fit")
    assert data.answers == ["yes", "no"]
    assert data.datasets["train"][[0, 1]].targets["answer_scores"].tolist() == [[1, pytest.approx(0.6)]] * 2


def remove(root, *names):
    for name in names:
        (root / name).unlink()


def rows_of(data, batch):
    """A batch as (id, sentence's tokens, image, region features, answers) of each row."""
    rows = []
    for r, (s, i) in enumerate(zip(batch.row_sentence.tolist(), batch.row_image.tolist(), strict=True)):
        scores = batch.targets["answer_scores"][r] if "answer_scores" in batch.targets else torch.zeros(0)
        rows.append(
            {
                "id": batch.example_ids[r],
                "tokens": batch.token_ids[s][batch.token_mask[s]].tolist(),
                "image": batch.image_ids[i],
                "features": batch.region_features[i][batch.region_mask[i]].float().numpy(),
                "label": {
                    data.answers[a]: round(scores[a].item(), 4) for a in scores.nonzero().flatten().tolist()
                },
            }
        )
    return rows


def check_rows(data, batches, source, answers=None):
    """Each batch row against its row of the source file; returns the ids in order."""
    expected, ids = {row["question_id"]: row for row in source}, []
    for batch in batches:
        assert isinstance(batch, Batch)
        for row in rows_of(data, batch):
            want = expected[row["id"]]
            label = {a: s for a, s in want.get("label", {}).items() if answers is None or a in answers}
            assert row["tokens"] == data.tokenizer(want["sent"])["input_ids"]
            assert row["image"] == want["img_id"]
            assert row["label"] == label
            number = int(want["img_id"][-3:])
            n = 3 + number % 2
            np.testing.assert_allclose(row["features"], number + np.arange(n * F).reshape(n, F) / 100, rtol=1e-3)
            ids.append(row["id"])
    return ids


# ---------------------------------------------------------------------------------------------- batches


def test_every_row_of_every_batch_is_what_the_files_say(root):
    data = open_data(root)
    assert data.answers == ["no", "red", "yes"]  # 16 questions each, so by text
    train = check_rows(data, data.train_dataloader(), TRAIN + NOMINIVAL)
    valid = check_rows(data, data.val_dataloader(), MINIVAL, data.answers)
    predict = check_rows(data, data.predict_dataloader(), TEST)
    assert len(set(train)) == 32 and {type(i) for i in train} == {int}
    assert sorted(valid) == [row["question_id"] for row in MINIVAL]
    assert sorted(predict) == [row["question_id"] for row in TEST]


def test_a_sentence_and_an_image_are_in_a_batch_once(root):
    data = open_data(root)
    batch = data.datasets["train"][np.arange(32)]
    assert len(batch.token_ids) == 3 and len(batch.region_features) == 10
    assert batch.row_sentence.tolist() == [row["question_id"] % 3 for row in TRAIN + NOMINIVAL]
    assert batch.region_features.dtype == torch.float16
    alone = data.datasets["train"][[2, 25, 0, 1 + 6]]
    assert alone.row_image.tolist() == [0, 1, 2, 3]  # distinct images keep the order of the rows


def test_batches_are_padded_on_the_right_whatever_the_tokenizer_does_elsewhere(root):
    write_questions(root, "minival", [*MINIVAL, question(250, image("val2014", 4), sent="red")])
    data = open_data(root, "validate")
    data.tokenizer.padding_side = "left"
    batch = data.datasets["valid"][[0, 13]]
    assert batch.token_mask[1].tolist() == [True] * 3 + [False] * (batch.token_ids.shape[1] - 3)
    assert (batch.token_ids[:, 0] == data.tokenizer.cls_token_id).all()


def test_coded_targets_are_consistent_across_splits(root):
    data = open_data(root, "fit")
    codes = data.label_names["question_type"].copy()
    sources = {row["question_id"]: row for row in TRAIN + NOMINIVAL + MINIVAL}
    data.setup("test")
    assert data.label_names["question_type"][: len(codes)] == codes
    for role in ("train", "valid", "test"):
        batch = data.datasets[role][np.arange(len(data.datasets[role]))]
        for name in ("question_type", "answer_type"):
            texts = [data.label_names[name][code] for code in batch.targets[name]]
            assert texts == [sources[i][name] for i in batch.example_ids]


def test_ten_answers_are_there_where_they_are_known(root):
    ten = ["yes", "no", "2 cats", *["red"] * 7]
    rows = [
        {"question_id": row["question_id"], "answers": [{"answer": a, "answer_id": k} for k, a in enumerate(ten)]}
        for row in TRAIN[1:]
    ]
    (root / "vqa" / "v2_mscoco_train2014_annotations.json").write_text(json.dumps({"annotations": rows}))
    data = open_data(root)
    answers = data.datasets["train"][[0, 1, 25]].targets["annotator_answers"]
    table = [*data.label_names["annotator_answers"], None]
    assert [[table[code] for code in row] for row in answers] == [[None] * 10, ten, [None] * 10]
    assert "annotator_answers" not in data.datasets["valid"][[0]].targets
    assert {split: facts["annotated"] for split, facts in data.report().items()}["train"]


def test_a_split_without_labels_is_predicted_without_targets(root):
    remove(root, "vqa/train.json", "vqa/nominival.json", "vqa/minival.json")
    remove(root, "mscoco_imgfeat/train2014_obj36.tsv", "mscoco_imgfeat/val2014_obj36.tsv")
    data = open_data(root, "predict")
    batches = list(data.predict_dataloader())
    assert data.answers == [] and batches[0].targets == {}
    assert check_rows(data, batches, TEST)


def test_long_questions_lose_their_end_as_in_the_original_and_are_counted(root):
    words = ["cat", "dog", "red"] * 7
    long = [question(250 + n, image("val2014", 4), sent=" ".join(words[:n])) for n in (21, 18)]
    write_questions(root, "minival", [*MINIVAL, *long])
    data = open_data(root, "validate")
    batch = data.datasets["valid"][[13, 0]]
    vocabulary = data.tokenizer.get_vocab()
    assert batch.token_ids[0].tolist() == [vocabulary[t] for t in ["[CLS]", *words[:18], "[SEP]"]]
    assert batch.token_ids.shape == (2, 20)
    assert data.datasets["valid"][[0]].token_ids.shape[1] < 10  # padded to the batch's longest
    assert data.report()["minival"]["truncated"] == 1


def test_the_report_counts_and_is_logged_once(root, caplog):
    caplog.set_level("INFO")
    data = open_data(root)
    expected = {"examples": 13, "images": 3, "truncated": 0, "truncated_of": 13}
    expected |= {"labels_without_answer": 13, "annotated": False}
    assert data.report()["minival"] == expected
    data.setup("validate")
    assert sum("minival: examples 13" in message for message in caplog.messages) == 1


def test_of_many_sentences_only_a_sample_is_looked_at_for_their_length(root, monkeypatch):
    monkeypatch.setattr("datamodules.statistics.TRUNCATION_SAMPLE", 5)
    facts = open_data(root).report()["minival"]
    assert (facts["examples"], facts["truncated_of"]) == (13, 5)


def test_answers_come_from_the_list_file_by_text(root):
    (root / "vqa" / "trainval_label2ans.json").write_text(json.dumps(["seven", "no", "yes"]))
    data = open_data(root)
    assert data.answers == ["seven", "no", "yes"]
    assert check_rows(data, data.val_dataloader(), MINIVAL)
    assert check_rows(data, data.train_dataloader(), TRAIN + NOMINIVAL, data.answers)
    assert data.report()["train"]["labels_without_answer"] == 11


def test_ids_without_an_image_folder_are_looked_for_in_all_files(root):
    write_questions(root, "custom", [question(i, f"mine{i % 2 + 3:03d}") for i in range(5)])
    write_regions(root, "mine", ["mine004"])
    write_regions(root, "others", ["mine003"])
    data = open_data(root, "fit", train="custom", valid=())
    batch = data.datasets["train"][np.arange(5)]
    assert [batch.image_ids[i] for i in batch.row_image] == [f"mine{i % 2 + 3:03d}" for i in range(5)]
    assert batch.region_features[:, 0, 0].tolist() == [3, 4]


def test_workers_read_the_same_batches(root):
    here, there = open_data(root), open_data(root, workers=2)
    for a, b in zip(here.train_dataloader(), there.train_dataloader(), strict=True):
        assert a.example_ids == b.example_ids
        assert torch.equal(a.region_features, b.region_features)
        assert torch.equal(a.targets["answer_scores"], b.targets["answer_scores"])
    assert pickle.loads(pickle.dumps(here.datasets["train"]))[[3]].example_ids == [3]


def test_loaders_leave_the_global_random_generator_alone(root):
    data = open_data(root)
    before = torch.get_rng_state()
    next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    assert torch.equal(torch.get_rng_state(), before)


def test_converted_stores_serve_without_their_sources(root):
    open_data(root)
    stores = {path: path.stat().st_mtime_ns for path in root.glob("stores/*/*.h5")}
    assert len(stores) == 7
    remove(root, "mscoco_imgfeat/train2014_obj36.tsv", "vqa/train.json")
    data = open_data(root)
    assert len(set(check_rows(data, data.train_dataloader(), TRAIN + NOMINIVAL))) == 32
    assert {path: path.stat().st_mtime_ns for path in stores} == stores  # nothing was converted again


def test_a_changed_question_file_is_converted_again(root):
    open_data(root)
    write_questions(root, "minival", MINIVAL[:5])
    assert len(open_data(root).datasets["valid"]) == 5


def test_a_picture_is_found_by_its_exact_id(root):
    (root / "images" / "val2014").mkdir(parents=True)
    (root / "images" / "a1.png").touch()
    (root / "images" / "val2014" / "a12.jpg").touch()
    data = VqaDataModule(root, root / "vocab.txt")
    assert data.picture("a1") == root / "images" / "a1.png"
    assert data.picture("a12") == root / "images" / "val2014" / "a12.jpg"
    assert data.picture("a") is None


# ---------------------------------------------------------------------------------------------- bad input


def test_all_missing_files_are_listed_with_their_origin(tmp_path):
    write_vocabulary(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        open_data(tmp_path)
    said = str(error.value)
    for name in ("vqa/train.json", "vqa/nominival.json", "vqa/minival.json", "vqa/test.json"):
        assert str(tmp_path / name) in said
    for folder, size in {"train2014": "17 GB", "val2014": "8 GB", "test2015": "16 GB"}.items():
        assert str(tmp_path / "mscoco_imgfeat" / f"{folder}_obj36.tsv") in said
        assert f"{folder}_obj36.zip ({size})" in said
    assert "https://github.com/airsplay/lxmert" in said
    assert "experiment=toy_vqa` needs none" in said


def test_a_stage_asks_for_its_own_files_only(root):
    remove(root, "vqa/test.json", "mscoco_imgfeat/test2015_obj36.tsv")
    open_data(root, "fit")
    with pytest.raises(FileNotFoundError, match=r"2 file\(s\)"):
        open_data(root, "predict")


def test_an_unknown_split_is_refused_with_those_present(root):
    with pytest.raises(
        ValueError, match=r"unknown split 'trian'.*Splits present: minival, nominival, test, train\."
    ):
        open_data(root, train="trian,nominival")


def test_images_without_regions_are_refused_by_count_name_and_file(root):
    write_questions(root, "minival", [*MINIVAL, *(question(900 + i, image("val2014", 50 + i)) for i in range(7))])
    with pytest.raises(ValueError) as error:
        open_data(root)
    said = str(error.value)
    assert "7 of its 10 images have no regions in" in said and "val2014_obj36.h5" in said
    assert image("val2014", 50) in said and image("val2014", 54) in said and image("val2014", 55) not in said


def test_a_wrong_feature_size_is_refused(root):
    with pytest.raises(ValueError, match=rf"val2014_obj36\.h5: regions have {F} features, the model expects 2048"):
        open_data(root, "validate", feature_dim=2048)


def test_training_on_a_split_without_labels_is_refused(root):
    with pytest.raises(ValueError, match=r"test\.json: no labels to train on"):
        open_data(root, train="train,test")
    with pytest.raises(ValueError, match="names no split to train on"):
        open_data(root, "fit", train=())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "broken or truncated JSON"),
        ('{"yes": 1}', "expected a JSON list"),
        ('["yes", "no", "yes"]', "'yes' is there twice"),
    ],
)
def test_a_bad_answer_list_is_refused(root, content, message):
    (root / "vqa" / "trainval_label2ans.json").write_text(content)
    with pytest.raises(ValueError, match=rf"trainval_label2ans\.json: .*{message}"):
        open_data(root)


def test_a_damaged_region_store_is_refused_by_name(root):
    open_data(root)
    store = root / "stores" / "mscoco_imgfeat" / "val2014_obj36.h5"
    store.write_bytes(store.read_bytes()[:2000])
    with pytest.raises(StoreError, match=r"val2014_obj36\.h5.*convert"):
        open_data(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without permission")
def test_a_folder_without_write_permission_is_refused_and_another_one_serves(root):
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        root.rename(data)
        for path in (Path(folder), data):
            path.chmod(0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match=r"stores/vqa: stores cannot be written .*Set paths\.stores"):
                open_data(data)
            with tempfile.TemporaryDirectory() as elsewhere:
                assert len(open_data(data, stores=elsewhere).datasets["valid"]) == 13
        finally:
            os.seteuid(0)


def test_current_stores_need_no_write_permission(root, monkeypatch):
    open_data(root)
    monkeypatch.setattr("datamodules.release.check_writable", lambda folder: pytest.fail("asked for permission"))
    assert len(open_data(root).datasets["valid"]) == 13


# ------------------------------------------------------------------------------------------- real files


@pytest.fixture(scope="module")
def coco10(tmp_path_factory):
    if not SHARED.is_dir():
        pytest.skip(f"needs the real files in {SHARED}")
    root = tmp_path_factory.mktemp("coco10")
    links = {
        "vqa/train.json": "coco10/vqa/train.json",
        "vqa/minival.json": "coco10/vqa/minival.json",
        "vqa/v2_mscoco_train2014_annotations.json": "coco10/official/annotations.json",
        "mscoco_imgfeat/train2014_obj36.tsv": "coco10/train2014_obj36.tsv",
        "images": "coco10/images",
    }
    for name, target in links.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(SHARED / target)
    data = VqaDataModule(root, SHARED / "vocab" / "bert_uncased_vocab.txt", train="train")
    data.prepare_data("fit")
    data.setup("fit")
    return root, data


def test_real_questions_regions_and_answers_come_through(coco10):
    root, data = coco10
    store = RegionStore(root / "stores" / "mscoco_imgfeat" / "train2014_obj36.h5")
    for split, role, loader in (("train", "train", None), ("minival", "valid", data.val_dataloader())):
        source = {row["question_id"]: row for row in json.loads((root / "vqa" / f"{split}.json").read_text())}
        batches = list(loader) if loader else [data.datasets[role][np.arange(60)]]
        rows = [row for batch in batches for row in rows_of(data, batch)]
        assert {row["id"] for row in rows} == set(source)
        for row in rows:
            want = source[row["id"]]
            assert (
                data.tokenizer.decode(row["tokens"], skip_special_tokens=True)
                == want["sent"].lower().replace("?", " ?")
                or row["tokens"] == data.tokenizer(want["sent"])["input_ids"]
            )
            assert row["label"] == {a: s for a, s in want["label"].items() if a in data.answers}
            features, _, _ = store.read(store.index([want["img_id"]]))
            np.testing.assert_array_equal(row["features"], features[0].float())
            assert data.picture(want["img_id"]).name == f"{want['img_id']}.jpg"
    assert data.report()["train"] == {
        "examples": 60,
        "images": 10,
        "truncated": 0,
        "truncated_of": 60,
        "labels_without_answer": 0,
        "annotated": True,
    }


def test_real_annotators_agree_with_the_soft_scores(coco10):
    _, data = coco10
    batch = data.datasets["train"][np.arange(60)]
    for row, ten in enumerate(batch.targets["annotator_answers"].tolist()):
        answers = [data.label_names["annotator_answers"][code] for code in ten]
        for answer, score in zip(data.answers, batch.targets["answer_scores"][row].tolist(), strict=True):
            assert score == pytest.approx(min(0.3 * answers.count(answer), 1))


# ---------------------------------------------------------------------------------------- after a kill

RESUME = """
import json, os, signal, sys, warnings
from pathlib import Path
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from datamodules.vqa import VqaDataModule

root, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
# Only now: a loader whose position is not restored would be announced by this warning.
warnings.filterwarnings("error", message=".*dataloader is not resumable.*")


class Recorder(LightningModule):
    def __init__(self, path, kill_at):
        super().__init__()
        self.path, self.kill_at = path, kill_at
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        with self.path.open("a") as file:
            file.write(json.dumps([self.current_epoch, batch_idx, batch.example_ids]) + "\\n")
        if self.global_step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return (self.weight - len(batch.example_ids)).square().sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def train(name, checkpoint, workers=0, kill_at=None, resume=None, validate=1):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    folder = root / name
    data = VqaDataModule(root, root / "vocab.txt", feature_dim=5, batch_size=6, workers=workers, rows_per_image=2)
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=3, limit_val_batches=validate, num_sanity_val_steps=0,
        use_distributed_sampler=False, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, save_last=True, **checkpoint)],
    )
    trainer.fit(Recorder(folder.with_suffix(".jsonl"), kill_at), data, ckpt_path=resume)
    os._exit(0)


assert train("whole", {"every_n_train_steps": 3}) == 0
whole = root.joinpath("whole.jsonl").read_text().splitlines()
assert len(whole) == 15, whole
for name, (workers, checkpoint, kill_at, saved, validate) in cases.items():
    status = train(f"killed {name}", checkpoint, workers, kill_at=kill_at, validate=validate)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (name, status)
    last = root / f"killed {name}" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == saved, name
    assert train(f"resumed {name}", checkpoint, workers, resume=last, validate=validate) == 0, name
    resumed = root.joinpath(f"resumed {name}.jsonl").read_text().splitlines()
    assert resumed == whole[saved:], (name, resumed, whole)
print("resumed", len(cases))
"""

# What was saved when: loader processes, how checkpoints are made, the step of the kill, the step of the last
# checkpoint, validation batches. 32 examples make 5 batches an epoch. The uninterrupted run has no workers.
SAVED = {
    "in an epoch": (0, {"every_n_train_steps": 3}, 4, 3, 1),
    "in the second epoch": (2, {"every_n_train_steps": 3}, 8, 6, 1),
    "after the last step of an epoch": (0, {"every_n_train_steps": 5}, 8, 5, 1),
    "after the last step, without validation": (2, {"every_n_train_steps": 5}, 13, 10, 0),
    "after an epoch": (2, {"every_n_epochs": 1, "save_on_train_epoch_end": True}, 7, 5, 1),
    "after a validation": (0, {"every_n_epochs": 1, "save_on_train_epoch_end": False}, 12, 10, 1),
}


def test_after_kill_9_training_goes_on_with_the_batches_that_were_left(root):
    run = subprocess.run(
        [sys.executable, "-c", RESUME, root, json.dumps(SAVED)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert run.stdout.endswith(f"resumed {len(SAVED)}\n"), run.stdout + run.stderr


def test_an_epochs_end_is_not_resumed_with_max_steps():
    trainer = Trainer(accelerator="cpu", max_steps=9, logger=False, enable_checkpointing=False)
    assert resume_position(trainer) == (0, 0)
    epoch = trainer.fit_loop.epoch_progress.current
    epoch.started = epoch.processed = 1  # as in a checkpoint that on_train_epoch_end saved
    with pytest.raises(ValueError, match=r"Set trainer\.max_epochs instead"):
        resume_position(trainer)
    epoch.completed = 1
    assert resume_position(trainer) == (1, 0)


def test_resuming_with_another_order_of_the_data_is_refused(root):
    data = open_data(root)
    state = data.train_dataloader().state_dict()
    data.train_dataloader().load_state_dict(state)
    with pytest.raises(ValueError, match="batch_size was 8, is 4"):
        open_data(root, batch_size=4).train_dataloader().load_state_dict(state)
