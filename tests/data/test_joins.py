"""The makers' files through `datamodules.prepare`, and the release's files, become the same batches."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from folders import F, write_regions, write_rows, write_vocabulary

from datamodules.gqa import GqaDataModule
from datamodules.nlvr2 import Nlvr2DataModule
from datamodules.prepare.__main__ import main as prepare
from datamodules.pretrain import LAYOUT, PretrainDataModule
from datamodules.stores.hdf5 import StoreError
from datamodules.stores.texts import ExampleStore
from datamodules.validate.__main__ import validate
from datamodules.vqa import VqaDataModule

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
WORDS = ["what", "is", "red", "cat", "dog"]
real = pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not there: no real files to try")


def sentence(number):
    return f"{WORDS[number % 5]} is {WORDS[number % 3]} {number}?"


def opened(module, root, **options):
    write_vocabulary(root / "vocab.txt")
    data = module(root, root / "vocab.txt", **{"feature_dim": F, "workers": 0, **options})
    data.prepare_data()
    data.setup()
    return data


def all_of(data, role):
    return data.datasets[role][np.arange(len(data.datasets[role]))]


def assert_same(made, released, also=()):
    """Every field of two batches, bit for bit; `also` are targets that only the first may have."""
    for field in dataclasses.fields(released):
        one, two = getattr(made, field.name), getattr(released, field.name)
        if field.name == "targets":
            assert set(one) == {*two, *also}
            assert all(torch.equal(one[name], two[name]) for name in two)
        elif isinstance(two, torch.Tensor):
            assert one.dtype == two.dtype and torch.equal(one, two), field.name
        elif isinstance(two, list):
            assert one == two and [type(i) for i in one] == [type(i) for i in two], field.name


# --------------------------------------------------------------------------------------------- NLVR2


def made_statements(split, count):
    return [
        {"identifier": f"{split}-{n // 4}-{n % 2}-{n % 3}", "sentence": sentence(n), "label": str(n % 3 > 0)}
        for n in {f"{n // 4}-{n % 2}-{n % 3}": n for n in range(count)}.values()
    ]


def write_nlvr2(root, statements):
    """Both folders: the makers' files in one, the release's in the other, the same regions in both."""
    for split, (file, rows) in statements.items():
        path = root / "makers" / "nlvr2" / "official" / f"{file}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        released = []
        for place, row in enumerate(rows):
            stem = row["identifier"].rpartition("-")[0]
            released.append({
                "identifier": row["identifier"], "img0": f"{stem}-img0", "img1": f"{stem}-img1",
                "sent": row["sentence"], "label": int(row["label"] == "True"), "uid": f"nlvr2_{split}_{place}",
            })  # fmt: skip
        write_rows(root / "release" / "nlvr2" / f"{split}.json", released)
        images = {row[side]: None for row in released for side in ("img0", "img1")}
        numbers = {image: number for number, image in enumerate(images)}
        for folder in ("makers", "release"):
            write_regions(root / folder / "nlvr2_imgfeat" / f"{split}_obj36.tsv", numbers)


def check_nlvr2(root, **options):
    assert prepare(["nlvr2", str(root / "makers")]) == 0
    made, released = (opened(Nlvr2DataModule, root / name, **options) for name in ("makers", "release"))
    for role in ("train", "valid", "test"):
        batch = all_of(released, role)
        assert_same(all_of(made, role), batch)
        assert len(set(batch.image_ids)) > 1 and 0 < batch.targets["statement"].float().mean() < 1
    assert {p for report in validate(root / "makers")[0] for p in report.problems} == set()


STATEMENTS = {
    "train": ("train", made_statements("train", 40)),
    "valid": ("dev", made_statements("dev", 20)),
    "test": ("test1", made_statements("test1", 20)),
}


def test_nlvr2_is_the_same_from_the_makers_and_from_the_release(tmp_path):
    write_nlvr2(tmp_path, STATEMENTS)
    check_nlvr2(tmp_path)


@real
def test_real_statements_are_the_same_from_the_makers_and_from_the_release(tmp_path):
    dev, test1 = (
        [json.loads(line) for line in (SHARED / "nlvr2" / f"{name}_400.json").read_text().splitlines()]
        for name in ("dev", "test1")
    )
    write_nlvr2(tmp_path, {**STATEMENTS, "valid": ("dev", dev), "test": ("test1", test1)})
    check_nlvr2(tmp_path)


def test_stores_whose_right_image_has_its_old_name_are_refused_and_made_again(tmp_path):
    write_nlvr2(tmp_path, STATEMENTS)
    root = tmp_path / "makers"
    assert prepare(["nlvr2", str(root)]) == 0
    store = root / "stores" / "nlvr2" / "train.h5"
    with h5py.File(store, "r+") as file:
        file.move("groups/right", "groups/image1")
        file.move("tables/right", "tables/image1")
        file.attrs["groups"] = json.dumps(["image1"])
    with pytest.raises(
        StoreError, match=r"train\.h5: it has no right images.*python -m datamodules\.prepare nlvr2"
    ):
        opened(Nlvr2DataModule, root)
    store.unlink()
    assert prepare(["nlvr2", str(root)]) == 0
    assert ExampleStore(store).groups == ("right",)
    check_nlvr2(tmp_path)


# ----------------------------------------------------------------------------------------------- VQA

ANSWERS = ["yes", "cat", "2", "red", ""]
FOLDERS = {"train": "train2014", "val": "val2014", "test": "test2015"}
MINIVAL = (21, 22)  # images


def ten_of(number):
    return [ANSWERS[(number + (k * k) % 7) % 5] if k % 4 else f"other {k}" for k in range(10)]


def vqa_label(ten):
    """As the release has it: an answer that 1, 2, 3, 4 or more gave scores .3, .6, .9, 1."""
    counts = Counter(answer for answer in ten if answer in ANSWERS)
    return {answer: [0, 0.3, 0.6, 0.9, 1][min(count, 4)] for answer, count in counts.items()}


def write_vqa(root):
    images = {"train": range(1, 7), "val": range(20, 25), "test": range(40, 42)}
    released = {"train": [], "nominival": [], "minival": [], "test": []}
    for split, folder in FOLDERS.items():
        asked, answered = [], []
        for image in images[split]:
            for number in (image * 1000, image * 1000 + 1):
                types = {"answer_type": ["other", "yes/no"][number % 2], "question_type": f"kind {image % 3}"}
                asked.append({"image_id": image, "question": sentence(number), "question_id": number})
                entries = [{"answer": a, "answer_id": k} for k, a in enumerate(ten_of(number))]
                answered.append({
                    "question_id": number, "image_id": image, "answers": entries,
                    "multiple_choice_answer": ten_of(number)[1], **types,
                })  # fmt: skip
                row = {"question_id": number, "img_id": f"COCO_{folder}_{image:012d}", "sent": sentence(number)}
                if split != "test":
                    row |= {"label": vqa_label(ten_of(number)), **types}
                where = ("minival" if image in MINIVAL else "nominival") if split == "val" else split
                released[where].append(row)
        write_rows(root / f"makers/vqa/v2_OpenEnded_mscoco_{folder}_questions.json", {"questions": asked})
        for side in ("makers", "release"):
            if split != "test":
                path = root / side / "vqa" / f"v2_mscoco_{folder}_annotations.json"
                write_rows(path, {"annotations": answered[::-1]})
            numbers = {f"COCO_{folder}_{image:012d}": image for image in images[split]}
            write_regions(root / side / "mscoco_imgfeat" / f"{folder}_obj36.tsv", numbers)
    for split, rows in released.items():
        write_rows(root / "release" / "vqa" / f"{split}.json", rows)
    for side in ("makers", "release"):
        write_rows(root / side / "vqa" / "trainval_label2ans.json", ANSWERS)
    arguments = ["vqa", str(root / "makers"), "--minival", str(root / "release" / "vqa" / "minival.json")]
    assert prepare(arguments) == 0
    return released


def test_vqa_is_the_same_from_the_makers_and_from_the_release(tmp_path):
    released = write_vqa(tmp_path)
    made, other = (opened(VqaDataModule, tmp_path / name) for name in ("makers", "release"))
    for role in ("train", "valid", "test", "predict"):
        assert_same(all_of(made, role), all_of(other, role))
    assert made.label_names == other.label_names
    assert all_of(made, "train").example_ids == [
        r["question_id"] for s in ("train", "nominival") for r in released[s]
    ]
    assert (all_of(made, "train").targets["annotator_answers"] >= 0).all()
    assert all_of(made, "train").targets["answer_scores"].count_nonzero() > 30


# ----------------------------------------------------------------------------------------------- GQA


def write_gqa(root):
    files = {
        "train": "train_balanced",
        "valid": "val_balanced",
        "testdev": "testdev_balanced",
        "submit": "submission_all",
    }
    released = {}
    for split, name in files.items():
        images = ["n1", "n2"] if split in ("testdev", "submit") else ["1", "2", "3"]
        rows, released[split] = {}, []
        for number in range(7):
            identifier, image, answer = f"0{len(split)}{number}", images[number % len(images)], ANSWERS[number % 4]
            rows[identifier] = {"question": sentence(number), "imageId": image, "isBalanced": split != "submit"}
            row = {"question_id": identifier, "img_id": image, "sent": sentence(number)}
            if split != "submit":
                rows[identifier] |= {"answer": answer, "types": {"structural": "query", "semantic": None}}
                row["label"] = {answer: 1.0}
            released[split].append(row)
        write_rows(root / "makers" / "gqa" / f"{name}_questions.json", rows)
        write_rows(root / "release" / "gqa" / f"{split}.json", released[split])
    for side in ("makers", "release"):
        write_rows(root / side / "gqa" / "trainval_label2ans.json", ANSWERS[:3])
        write_regions(root / side / "vg_gqa_imgfeat" / "vg_gqa_obj36.tsv", {"1": 1, "2": 2, "3": 3})
        write_regions(root / side / "vg_gqa_imgfeat" / "gqa_testdev_obj36.tsv", {"n1": 4, "n2": 5})
    assert prepare(["gqa", str(root / "makers")]) == 0
    return released


def test_gqa_is_the_same_from_the_makers_and_from_the_release(tmp_path):
    write_gqa(tmp_path)
    made, other = (opened(GqaDataModule, tmp_path / name) for name in ("makers", "release"))
    for role in ("train", "valid", "test"):
        assert_same(all_of(made, role), all_of(other, role), also=("structural", "semantic", "detailed"))
    assert_same(all_of(made, "predict"), all_of(other, "predict"))
    assert all_of(made, "train").targets["answer_scores"].count_nonzero() == 12


# -------------------------------------------------------------------------------------- pre-training

TABLE = ["cat", "yes", "2", "red", "gray"]
COCO_OF = {1: 3, 2: 21, 3: None}  # of the images of Visual Genome


def write_mixture(root):
    vqa, gqa = write_vqa(root), write_gqa(root)
    makers, entries = root / "makers", {name: {} for name in LAYOUT.splits}

    def add(image, source, text, label=None):
        split = {"train2014": "mscoco_train", "val2014": "mscoco_nominival"}.get(
            image.split("_")[-2:][0], "vgnococo"
        )
        if image in [f"COCO_val2014_{number:012d}" for number in MINIVAL]:
            split = "mscoco_minival"
        entry = entries[split].setdefault(image, {"img_id": image, "sentf": {}, "labelf": {}})
        entry["sentf"].setdefault(source, []).append(text)
        if label is not None:
            entry["labelf"].setdefault(source, []).append(label)

    place = {
        n: "3" if c is None else f"COCO_{'train' if c < 20 else 'val'}2014_{c:012d}" for n, c in COCO_OF.items()
    }
    for folder, numbers in (("train2014", range(1, 7)), ("val2014", range(20, 25))):
        captions = [{"id": n, "image_id": n, "caption": f"red cat {n}."} for n in numbers]
        write_rows(makers / "coco" / f"captions_{folder}.json", {
            "images": [{"id": n} for n in numbers], "annotations": captions,
        })  # fmt: skip
        for number in numbers:
            add(f"COCO_{folder}_{number:012d}", "mscoco", f"red cat {number}.")
    write_rows(makers / "vg/image_data.json", [{"image_id": n, "coco_id": c} for n, c in COCO_OF.items()])
    write_rows(makers / "vg/region_descriptions.json", [
        {"id": n, "regions": [{"phrase": f"dog {n}"}, {"phrase": " "}]} for n in COCO_OF
    ])  # fmt: skip
    asked = [("what is it?", "A Cat."), ("is it red?", "grey"), ("how many?", "Two."), ("who?", "unheard of")]
    write_rows(makers / "vg/question_answers.json", [
        {"id": n, "qas": [{"question": f"{q} {n}", "answer": a} for q, a in asked]} for n in COCO_OF
    ])  # fmt: skip
    for n, image in place.items():
        add(image, "vg", f"dog {n}")
        for question, answer in asked:
            add(image, "visual7w", f"{question} {n}", {answer: 1})
    for rows in (vqa["train"], vqa["nominival"], vqa["minival"]):
        for row in rows:
            add(row["img_id"], "vqa", row["sent"], row["label"])
    for rows in (gqa["train"], gqa["valid"]):
        for row in rows:
            add(place[int(row["img_id"])], "gqa", row["sent"], row["label"])
    for split, images in entries.items():
        write_rows(root / "release" / "lxmert" / f"{split}.json", list(images.values()))
    for side in ("makers", "release"):
        write_rows(root / side / "lxmert" / "all_ans.json", [{"ans": a, "dsets": []} for a in TABLE])
    assert prepare(["pretrain", str(makers)]) == 0


def sentences_of(data, role):
    """What there is of every row but what is drawn for it: its answer, its partner, another image's region."""
    batch = all_of(data, role)
    rows = []
    for r, (s, i) in enumerate(zip(batch.row_sentence.tolist(), batch.row_image.tolist(), strict=True)):
        answers, scores = (batch.targets[name][r] for name in ("label_answers", "label_scores"))
        rows.append((
            batch.image_ids[i],
            data.label_names["source"][batch.targets["source"][r]],
            batch.token_ids[s][batch.token_mask[s]].tolist(),
            sorted((a, v) for a, v in zip(answers.tolist(), scores.tolist(), strict=True) if a >= 0),
            batch.targets["labelled"][r].item(),
            batch.region_features[i][batch.region_mask[i]].tolist(),
            batch.region_boxes[i][batch.region_mask[i]].tolist(),
            *(batch.targets[name][i].tolist() for name in ("object_ids", "object_conf")),
        ))  # fmt: skip
    return sorted(rows)


def test_pre_training_is_the_same_from_the_makers_and_from_the_release(tmp_path):
    write_mixture(tmp_path)
    sources = dict.fromkeys(("mscoco", "vg", "vqa", "gqa", "visual7w"), 1)
    made, other = (opened(PretrainDataModule, tmp_path / name, sources=sources) for name in ("makers", "release"))
    for role in ("train", "valid"):
        assert sentences_of(made, role) == sentences_of(other, role)
    found = [row[1] for row in sentences_of(made, "train")]
    assert set(found) == set(sources) and len(found) > 40
    assert made.answers == other.answers == TABLE
