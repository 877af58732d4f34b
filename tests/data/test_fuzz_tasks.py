"""Damaged files of probing sets, captions, expressions, classes: one clear message, soon and in little memory."""

import contextlib
import io
import json
import pickle
from pathlib import Path

import pytest
from fuzzing import COUNT, damaged, mistaken_json, survives

from datamodules.formats.captions import read_captions
from datamodules.formats.own import truth_rows
from datamodules.formats.probes import read_probes
from datamodules.formats.refer import read_refer
from datamodules.formats.referring import read_referring
from datamodules.formats.visual7w import read_visual7w
from lxmert.evaluate.__main__ import main as evaluate
from lxmert.files import InputError

TRIES = COUNT if COUNT > 40 else 3
REFS = [
    {
        "ref_id": n, "ann_id": 10 + n, "image_id": 20 + n, "split": "train", "category_id": 1, "sent_ids": [n],
        "file_name": f"COCO_train2014_{20 + n:012d}_{n}.jpg",
        "sentences": [{"sent_id": n, "sent": "the cat", "raw": "the cat", "tokens": ["the", "cat"]}],
    }
    for n in range(4)
]  # fmt: skip
INSTANCES = {
    "images": [{"id": 20 + n, "width": 100, "height": 80} for n in range(4)],
    "annotations": [{"id": 10 + n, "image_id": 20 + n, "bbox": [1, 2, 30.5, 40]} for n in range(4)],
}
LABELS = [{"question_id": n, "label": {"yes" if n % 2 else "no": 1.0}} for n in range(4)]
BOXES = [{"id": n, "img_id": "a", "sent": "the cat", "box": [1, 2, 30, 40], "size": [100, 80]} for n in range(4)]
FILES = {
    "valse.json": {
        f"noun_{n}": {"image_file": f"{n}.jpg", "caption": "a cat", "foil": "a dog", "mturk": {"caption": 3}}
        for n in range(4)
    },
    "foil.json": {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(3)],
        "annotations": [
            {"image_id": n, "id": n, "foil_id": n, "foil": bool(f), "caption": "a cat"}
            for n in range(3)
            for f in (0, 1)
        ],
    },
    "winoground.jsonl": [
        {"id": n, "image_0": "a", "image_1": "b", "caption_0": "x y", "caption_1": "y x", "tag": "Noun"}
        for n in range(3)
    ],
    "dataset_flickr30k.json": {
        "dataset": "flickr30k",
        "images": [
            {"filename": f"{n}.jpg", "imgid": n, "split": "train", "sentences": [{"raw": f"cat {n}", "sentid": n}]}
            for n in range(4)
        ],
    },
    "train_ann.jsonl": [{"id": str(n), "img_path": f"{n}.jpg", "sentences": ["a cat", "b"]} for n in range(3)],
    "refs(unc).p": REFS,
    "instances.json": INSTANCES,
    "pointing.json": {
        "images": [
            {
                "split": "train", "filename": f"v7w_{n}.jpg",
                "qa_pairs": [{"qa_id": n, "question": "which?", "answer": 1, "multiple_choices": [2, 3]}],
            }
            for n in range(3)
        ],
        "boxes": [{"box_id": n, "x": 1, "y": 2, "width": 3, "height": 4} for n in range(4)],
    },
    "referring.json": BOXES,
    "boxes.json": [{"id": n, "box": [1, 2, 30, 40], "score": 0.5} for n in range(4)],
    "snli_ve.jsonl": [
        {"pairID": f"{n}", "Flikr30kID": f"{n}.jpg", "sentence2": "so", "gold_label": "neutral"} for n in range(4)
    ],
    "labels.json": LABELS,
    "classes.json": [
        {"question_id": n, "answer": "no", "probabilities": {"no": 0.7, "yes": 0.3}} for n in range(4)
    ],
    "memes.jsonl": [{"id": n, "img": f"img/{n}.png", "label": n % 2, "text": "so"} for n in range(4)],
    "memes.csv": "id,proba,label\n" + "".join(f"{n},0.3,0\n" for n in range(4)),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for name, content in FILES.items():
        path = folder / name
        if name.endswith(".p"):
            path.write_bytes(pickle.dumps(content, 2))
        elif name.endswith(".jsonl"):
            path.write_text("".join(f"{json.dumps(row)}\n" for row in content))
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def scored(task, predictions, truth):
    """`python -m lxmert.evaluate`, which must end with one message."""

    def read(path):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = evaluate([task, str(path.parent / predictions), str(path.parent / truth)])
        if code:
            raise InputError(said.getvalue().partition("\n  ")[0])

    return read


READERS = {
    **{f"probes {name}": (name, read_probes) for name in ("valse.json", "foil.json", "winoground.jsonl")},
    **{
        f"captions {name}": (name, lambda path: list(read_captions(path, "train")))
        for name in ("dataset_flickr30k.json", "train_ann.jsonl")
    },
    "refer": ("refs(unc).p", lambda path: read_refer(path, path.parent / "instances.json")),
    "instances": ("instances.json", lambda path: read_refer(path.parent / "refs(unc).p", path)),
    "visual7w": ("pointing.json", read_visual7w),
    "referring": ("referring.json", read_referring),
    "snli-ve": ("snli_ve.jsonl", lambda path: truth_rows(path, {}, labelled=True)),
    "boxes": ("boxes.json", scored("refcoco", "boxes.json", "referring.json")),
    "boxes' truth": ("referring.json", scored("refcoco", "boxes.json", "referring.json")),
    "classes": ("classes.json", scored("classes", "classes.json", "labels.json")),
    "classes' truth": ("labels.json", scored("classes", "classes.json", "labels.json")),
    "memes": ("memes.csv", scored("hateful_memes", "memes.csv", "memes.jsonl")),
    "memes' truth": ("memes.jsonl", scored("hateful_memes", "memes.csv", "memes.jsonl")),
}
NO_JSON = (".p", ".csv")


@pytest.mark.parametrize(
    ("reader", "change"),
    [
        (reader, change)
        for reader, (name, _) in READERS.items()
        for change in (damaged, mistaken_json)
        if change is damaged or not name.endswith(NO_JSON)
    ],
)
def test_a_damaged_file_of_a_task_is_refused_in_words(root, reader, change):
    name, read = READERS[reader]
    survives(read, Path(root / name), change, TRIES)
