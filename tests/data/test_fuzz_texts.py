"""Damaged texts, answer lists, predictions and score files: one clear message, soon and in little memory."""

import contextlib
import io
import json
import random
import shutil

import numpy as np
import pytest
from fuzzing import COUNT, damaged, mistaken_json, survives

from datamodules.formats.answer_lists import read_answer_list
from datamodules.formats.own import convert_own
from datamodules.formats.release_nlvr2 import convert_nlvr2
from datamodules.formats.release_pretrain import convert_pretraining
from datamodules.formats.release_vqa import convert_vqa
from datamodules.prepare.gqa import prepare_gqa
from datamodules.prepare.nlvr2 import prepare_nlvr2
from datamodules.prepare.preparation import Preparation
from datamodules.prepare.pretrain import prepare_pretrain
from datamodules.prepare.vqa import prepare_vqa
from datamodules.stores.texts import ExampleStore
from datamodules.validate.__main__ import validate
from lxmert.evaluate import TASKS, check_submission, read_ids
from lxmert.evaluate import __main__ as evaluate
from lxmert.evaluate.ensemble import Scores, average_scores, read_scores, write_scores
from lxmert.files import InputError

TRIES = COUNT if COUNT > 40 else 1  # the suite tries few of each: there are over a hundred readers and damages
TEN = ("cat", "cat", "dog", "cat.", "cat", "Cat", "a cat", "dog", "dog", "bird")
IDS = range(1000, 10_000, 1000)
ANNOTATIONS = [
    {
        "question_id": n,
        "image_id": n // 1000,
        "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": i} for i, a in enumerate(TEN, 1)],
        "multiple_choice_answer": "cat",
        "answer_type": "other",
        "question_type": "what is",
    }
    for n in IDS
]
RELEASE_VQA = [
    {
        "question_id": n,
        "img_id": f"COCO_train2014_{n // 1000:012d}",
        "sent": "What is it?",
        "label": {"cat": 0.9, "dog": 0.3},
        "answer_type": "other",
        "question_type": "what is",
    }
    for n in IDS
]
GQA = {
    f"0{n}": {
        "question": "Is the cat red?",
        "answer": "yes",
        "fullAnswer": "Yes, it is.",
        "imageId": str(n),
        "isBalanced": True,
        "types": {"structural": "verify", "semantic": "attr", "detailed": "existAttrC"},
        "groups": {"global": "color", "local": None},
        "semantic": [{"operation": "select", "dependencies": [], "argument": "cat (1)"}],
        "entailed": [f"0{n}"],
        "annotations": {"question": {"2": "1"}, "answer": {}, "fullAnswer": {"0:2": "1"}},
    }
    for n in range(1, 4)
}
LINES = [
    {"identifier": f"dev-{n}-0-0", "sentence": "One is red.", "label": "True", "synset": "a"} for n in range(4)
]
FILES = {
    "release/vqa.json": RELEASE_VQA,
    "release/gqa.json": [
        {"question_id": f"0{n}", "img_id": str(n), "sent": "Is it red?", "label": {"yes": 1.0}} for n in range(4)
    ],
    "release/nlvr2.json": [
        {
            "identifier": f"dev-{n}-0-0",
            "img0": f"dev-{n}-0-img0",
            "img1": f"dev-{n}-0-img1",
            "sent": "Red.",
            "label": 1,
        }
        for n in range(4)
    ],
    "release/pretrain.json": [
        {
            "img_id": f"COCO_val2014_{n:012d}",
            "sentf": {"mscoco": ["A cat."], "vqa": ["Is it red?", "What is it?"]},
            "labelf": {"vqa": [{"yes": 1.0}, {"cat": 0.3, "dog": 0.6}]},
        }
        for n in range(3)
    ],
    "vqa/v2_OpenEnded_mscoco_train2014_questions.json": {
        "info": {},
        "data_subtype": "train2014",
        "questions": [{"image_id": n // 1000, "question": "What is it?", "question_id": n} for n in IDS],
    },
    "vqa/v2_mscoco_train2014_annotations.json": {
        "info": {},
        "data_subtype": "train2014",
        "annotations": ANNOTATIONS,
    },
    "vqa/v2_mscoco_val2014_annotations.json": {"data_subtype": "val2014", "annotations": ANNOTATIONS[:1]},
    "vizwiz/train.json": [
        {
            "image": f"VizWiz_train_0000000{n}.jpg",
            "question": "What is it?",
            "answer_type": "other",
            "answerable": n % 2,
            **ten,
        }
        for n in range(9)
        for ten in [{"answers": ANNOTATIONS[0]["answers"]}]
    ],
    "vqacp/vqacp_v2_train_questions.json": [
        {"question_id": n, "image_id": 1, "question": "What is it?", "coco_split": "train2014"} for n in IDS
    ],
    "vqacp/vqacp_v2_train_annotations.json": [
        row | {"image_id": 1, "coco_split": "train2014"} for row in ANNOTATIONS
    ],
    "gqa/train_balanced_questions.json": GQA,
    "gqa/val_balanced_questions.json": {"09": GQA["01"]},
    "gqa/train_choices.json": {n: {"valid": ["yes", "no"], "plausible": ["yes"]} for n in GQA},
    "gqa/train_sceneGraphs.json": {
        str(n): {
            "width": 100,
            "height": 50,
            "objects": {"1": {"name": "cat", "x": 1, "y": 2, "w": 30, "h": 20, "attributes": [], "relations": []}},
        }
        for n in range(1, 4)
    },
    "nlvr2/dev.json": "".join(json.dumps(line) + "\n" for line in LINES),
    "lists/trainval_label2ans.json": ["cat", "dog", "yes"],
    "lists/trainval_ans2label.json": {"cat": 0, "dog": 1},
    "lists/all_ans.json": [{"ans": "cat", "dsets": ["vqa"]}, {"ans": "dog", "dsets": ["vqa", "gqa"]}],
    "predictions/vqa.json": [{"question_id": n, "answer": "cat"} for n in IDS],
    "predictions/gqa.json": [{"questionId": n, "prediction": "yes"} for n in GQA],
    "predictions/nlvr2.csv": "".join(f"{line['identifier']},True\n" for line in LINES),
    "predictions/vizwiz.json": [
        {"image": f"VizWiz_train_0000000{n}.jpg", "answer": "cat", "answerable": n / 8} for n in range(9)
    ],
    "predictions/attentions.json": [{"questionId": n, "attention": [[0, 0, 0.5, 1, 1.0]]} for n in GQA],
    "captions/captions_train2014.json": {
        "images": [{"id": n, "file_name": f"COCO_train2014_{n:012d}.jpg"} for n in range(1, 10)],
        "annotations": [{"id": n, "image_id": n, "caption": "A cat."} for n in range(1, 10)],
    },
    "vg/image_data.json": [
        {"image_id": n, "url": "", "width": 4, "height": 3, "coco_id": n if n < 3 else None} for n in range(1, 5)
    ],
    "vg/region_descriptions.json": [{"id": n, "regions": [{"phrase": "a cat"}]} for n in range(1, 5)],
    "vg/question_answers.json": [
        {"id": n, "qas": [{"question": "What is it?", "answer": "A cat."}]} for n in range(1, 5)
    ],
}


FILES |= {
    "own/train.csv": "id,image,text,answer,question_type\n"
    + "".join(f"{n},k {n % 3},what is {n} ?,cat,what\n" for n in range(9)),
    "own/train.jsonl": "".join(
        json.dumps({"id": n, "image": n % 3, "text": "what ?", "answer": {"cat": 0.3}}) + "\n" for n in range(9)
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Good files of every kind, and the stores that the pre-training mixture is made of."""
    root = tmp_path_factory.mktemp("texts")
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    scores = Scores(
        np.arange(3),
        np.array([[0, 1]] * 3, np.int32),
        np.array([[0.5, 0.25]] * 3, np.float32),
        np.array(["a", "b"]),
    )
    write_scores(root / "predictions/vqa_scores.npz", scores)
    np.savez(root / "predictions/plain_scores.npz", **vars(scores))
    mixture = root / "mixture"
    for folder in ("vqa", "gqa", "captions", "vg"):
        shutil.copytree(root / folder, mixture / folder)
    images = [{"id": n, "file_name": f"COCO_val2014_{n:012d}.jpg"} for n in (20, 21)]
    caption = {"images": images, "annotations": []}
    (mixture / "captions/captions_val2014.json").write_text(json.dumps(caption))
    for store, images in {
        "vqa/train": ["COCO_train2014_000000000001"],
        "vqa/nominival": ["COCO_val2014_000000000021"],
        "vqa/minival": ["COCO_val2014_000000000020"],
        "gqa/train": ["3"],
        "gqa/valid": ["4"],
        "gqa/testdev": ["n1"],
    }.items():
        rows = [{"question_id": 1, "img_id": image, "sent": "What?", "label": {"cat": 1.0}} for image in images]
        (root / "rows.json").write_text(json.dumps(rows))
        convert_vqa(root / "rows.json", mixture / "stores" / f"{store}.h5")
    return root


def quietly(read):
    """`read` without bars and tables."""

    def silent(path):
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return read(path)

    return silent


def converted(convert):
    """Convert a file, and read all of the store."""

    def read(path):
        folder = path.parent / "stores"
        shutil.rmtree(folder, ignore_errors=True)
        store = ExampleStore(convert(path, folder / "a.h5"))
        store.read(np.arange(len(store)))

    return read


def prepared(task, prepare):
    def read(path):
        folder = path.parent / "prepared"
        shutil.rmtree(folder, ignore_errors=True)
        prepare(Preparation(task, folder, path.parent, folder))

    return read


def scored(*arguments, beside=""):
    """`python -m lxmert.evaluate`, which must end with one message."""

    def read(path):
        out = path.parent / "out.json"
        options = [str(path) if a == "FILE" else str(path.parents[1] / a) if "/" in a else a for a in arguments]
        options += ["--json", str(out)] if arguments[0] in TASKS else []
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = evaluate.main(options)
        if code:
            raise InputError(said.getvalue().partition("\n  ")[0] if said.getvalue() else "objections")
        if out.exists():
            json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"{name} written"))
            out.unlink()

    return read


def ensemble(path):
    average_scores({"a": read_scores(path), "b": read_scores(path)}).best()


def checked(task, questions):
    def read(path):
        check_submission(
            TASKS[task], TASKS[task].read_submission(path), read_ids(TASKS[task], path.parents[1] / questions)
        )

    return read


def seen(path):
    """Look into a file; a report that is not in the project's own words raises by itself."""
    for report in validate(path)[0]:
        assert sum(map(len, report.problems)) < 20_000


GQA_FILES = ("predictions/gqa.json", "gqa/train_balanced_questions.json")
GQA_MORE = (
    *("--choices", "gqa/train_choices.json", "--all-questions", "gqa/train_balanced_questions.json"),
    *("--attentions", "predictions/attentions.json", "--scene-graphs", "gqa/train_sceneGraphs.json"),
)


def gqa_with(name):
    return scored("gqa", *("FILE" if name == file else file for file in (*GQA_FILES, *GQA_MORE)))


VQA_TRUTH = "vqa/v2_mscoco_train2014_annotations.json"
READERS = {
    "release vqa": ("release/vqa.json", converted(convert_vqa)),
    "release gqa": ("release/gqa.json", converted(convert_vqa)),
    "release nlvr2": ("release/nlvr2.json", converted(convert_nlvr2)),
    "release pretrain": ("release/pretrain.json", converted(convert_pretraining)),
    "release annotations": (
        VQA_TRUTH,
        converted(
            lambda path, store: convert_vqa(path.parents[1] / "release/vqa.json", store, {"train2014": path})
        ),
    ),
    "makers vqa questions": (
        "vqa/v2_OpenEnded_mscoco_train2014_questions.json",
        prepared("vqa", lambda p: prepare_vqa(p, ["train"])),
    ),
    "makers vqa annotations": (VQA_TRUTH, prepared("vqa", lambda p: prepare_vqa(p, ["train"]))),
    "makers vizwiz": ("vizwiz/train.json", prepared("vizwiz", lambda p: prepare_vqa(p, ["train"]))),
    "makers vqacp questions": (
        "vqacp/vqacp_v2_train_questions.json",
        prepared("vqacp", lambda p: prepare_vqa(p, ["train"])),
    ),
    "makers gqa questions": (
        "gqa/train_balanced_questions.json",
        prepared("gqa", lambda p: prepare_gqa(p, ["train"], False)),
    ),
    "makers gqa choices": ("gqa/train_choices.json", prepared("gqa", lambda p: prepare_gqa(p, ["train"], False))),
    "makers nlvr2": ("nlvr2/dev.json", prepared("nlvr2", lambda p: prepare_nlvr2(p, ["valid"]))),
    "own table": ("own/train.csv", converted(convert_own)),
    "own lines": ("own/train.jsonl", converted(convert_own)),
    "answer list": ("lists/trainval_label2ans.json", read_answer_list),
    "answer table": ("lists/all_ans.json", read_answer_list),
    "vqa predictions": ("predictions/vqa.json", scored("vqa", "FILE", VQA_TRUTH)),
    "vqa truth": (VQA_TRUTH, scored("vqa", "predictions/vqa.json", "FILE")),
    "vizwiz predictions": ("predictions/vizwiz.json", scored("vqa", "FILE", "vizwiz/train.json")),
    "vizwiz truth": ("vizwiz/train.json", scored("vqa", "predictions/vizwiz.json", "FILE")),
    "vizwiz answerability": (
        "predictions/vizwiz.json",
        scored("vizwiz", "predictions/vizwiz.json", "vizwiz/train.json", "--answerability", "FILE"),
    ),
    "labels": ("release/vqa.json", scored("own", "predictions/vqa.json", "FILE")),
    "split": ("release/vqa.json", scored("vqa", "predictions/vqa.json", VQA_TRUTH, "--split", "FILE")),
    **{f"gqa score {file}": (file, gqa_with(file)) for file in (*GQA_FILES, *GQA_MORE) if "/" in file},
    "nlvr2 predictions": ("predictions/nlvr2.csv", scored("nlvr2", "FILE", "nlvr2/dev.json")),
    "nlvr2 truth": ("nlvr2/dev.json", scored("nlvr2", "predictions/nlvr2.csv", "FILE")),
    "vqa submission": (
        "predictions/vqa.json",
        checked("vqa", "vqa/v2_OpenEnded_mscoco_train2014_questions.json"),
    ),
    "nlvr2 submission": ("predictions/nlvr2.csv", checked("nlvr2", "nlvr2/dev.json")),
    "ids of vqa": ("release/vqa.json", lambda path: read_ids(TASKS["vqa"], path)),
    "ids of nlvr2": ("release/nlvr2.json", lambda path: read_ids(TASKS["nlvr2"], path)),
    **{f"validate {name}": (name, seen) for name in FILES},
}


@pytest.mark.parametrize("change", [damaged, mistaken_json])
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_text_file_is_refused_in_words(root, reader, change):
    name, read = READERS[reader]
    if change is mistaken_json and name.endswith(".csv"):
        pytest.skip("no JSON")
    survives(quietly(read), root / name, change, TRIES)


@pytest.mark.parametrize("name", ["vqa_scores.npz", "plain_scores.npz"])
def test_a_damaged_score_file_is_refused_in_words(root, name):
    survives(ensemble, root / "predictions" / name, damaged, TRIES)


@pytest.mark.parametrize("change", [damaged, mistaken_json])
@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("captions", "vg"))])
def test_a_damaged_file_of_the_mixture_is_refused_in_words(root, name, change):
    mixture = root / "mixture"

    def read(path):
        shutil.rmtree(mixture / "stores/lxmert", ignore_errors=True)
        shutil.rmtree(mixture / "lxmert", ignore_errors=True)
        prepare_pretrain(Preparation("pretrain", mixture))

    survives(quietly(read), mixture / name, change, TRIES)


# Beside what the report does not read, and what is only a part of what is converted.
ALONE = [name for name in READERS if name.split()[0] in ("release", "makers", "own", "answer")]
for other in ("release annotations", "makers vizwiz", "makers vqacp questions", "makers gqa choices"):
    ALONE.remove(other)


@pytest.mark.parametrize("name", ALONE)
def test_what_conversion_refuses_the_report_names_and_nothing_else(root, name):
    file, read = READERS[name]
    path = root / "alike" / file
    shutil.copytree((root / file).parent, path.parent, dirs_exist_ok=True)
    good = path.read_bytes()
    for seed in range(min(max(TRIES, 20), 100)):
        chance = random.Random(seed)
        mistaken = seed % 2 and path.suffix != ".csv"
        path.write_bytes((mistaken_json if mistaken else damaged)(good, chance))
        try:
            quietly(read)(path)
            refused = ""
        except InputError as error:
            refused = str(error)
        for made in ("stores", "prepared"):
            shutil.rmtree(path.parent / made, ignore_errors=True)
        reports = [report for each in (path, path.parent) for report in quietly(validate)(each)[0]]
        problems = [problem for report in reports for problem in report.problems]
        assert bool(refused) == bool(problems), (seed, refused, problems)
