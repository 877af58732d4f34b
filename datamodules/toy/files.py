"""The toy's files: a generated world in the formats of the real releases, with nothing to download.

`generate` writes a folder that looks like a user's LXMERT data folder. What is in the world:
`world.py`; what is asked about it: `questions.py`; what is said of it: `captions.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from datamodules.progress import progress_bar
from datamodules.toy.captions import captions, phrases
from datamodules.toy.foils import PIECES, foils
from datamodules.toy.folder import check_sizes, write_whole
from datamodules.toy.questions import ANNOTATORS, Question, annotate, ask, ask_relations
from datamodules.toy.world import Detector, Scene
from datamodules.toy.writing import question_only_accuracy, write_json, write_scenes, write_vocabulary

VERSION = 5  # raise it whenever the same parameters no longer give the same files
# split: the image folder that its scenes are in; minival comes first in val2014, as in the released file.
SPLITS = {"train": "train2014", "minival": "val2014", "nominival": "val2014", "test": "test2015"}
# split: its pre-training file; test scenes are not pre-trained on.
PRETRAINING = {"train": "mscoco_train", "minival": "mscoco_minival", "nominival": "mscoco_nominival"}


@dataclass(frozen=True)
class ToyParameters:
    """What the toy's files depend on, and nothing else.

    Attributes:
        train, minival, nominival, test: scenes of each split.
        questions: VQA questions a scene.
        captions: sentences about a scene in its pre-training file.
        phrases: phrases about a part of the scene, there.
        gqa: further questions a scene, under the name of GQA: there, and in files of their own.
        visual7w: up to so many questions a scene about the places and sizes of things, there, under the
            name that the release gives to Visual Genome's; 0 for no such source.
        regions: boxes an image.
        feature_dim: length of a region's feature.
        pictures: how many of the train scenes are rendered; those of the other splits all are.
        seed: of everything.
    """

    train: int = 4000
    minival: int = 400
    nominival: int = 200
    test: int = 200
    questions: int = 5
    captions: int = 3
    phrases: int = 4
    gqa: int = 5
    visual7w: int = 0
    regions: int = 16
    feature_dim: int = 128
    pictures: int = 200
    seed: int = 1

    def __post_init__(self) -> None:
        check_sizes("the toy", self)


def generate(root: Path | str, parameters: ToyParameters | None = None, *, progress: bool = True) -> Path:
    """Write the toy's files into `root`, unless those of the same parameters are there.

        vqa/{train,minival,nominival,test}.json              the format of the LXMERT release
        vqa/train_tenth.json                                 those about the first tenth of the train scenes
        vqa/gqa_{train,minival,nominival}.json               the GQA questions of pre-training, in that format
        vqa/v2_mscoco_{train2014,val2014}_annotations.json   the official format, ten answers a question
        lxmert/mscoco_{train,minival,nominival}.json         the release's pre-training sentences
        mscoco_imgfeat/{train2014,val2014,test2015}_obj36.tsv    the release's region features
        probes/{existence,object,...}.json                   minival's scenes as a probing set, in VALSE's format
        images/<image id>.png                                rendered pictures
        vocab.txt                                            a WordPiece vocabulary, the same for every toy
        toy.json                                             the parameters, and the question-only accuracy

    The same parameters give the same bytes. The folder appears whole or not at all: it is written beside
    `root` and moved there at the end.

    Raises:
        InputError: an impossible parameter.
        StoreError: `root` cannot be written.
        FileExistsError: `root` holds something that is not a toy; it is left alone.
    """
    root, parameters = Path(root), parameters or ToyParameters()
    detector = Detector(parameters.regions, parameters.feature_dim, parameters.seed)
    made_from = {"version": VERSION, "parameters": asdict(parameters)}
    return write_whole(root, made_from, lambda folder: _write_world(folder, parameters, detector, progress))


def _write_world(folder: Path, parameters: ToyParameters, detector: Detector, progress: bool) -> dict[str, Any]:
    for name in ("vqa", "lxmert", "mscoco_imgfeat", "probes", "images"):
        (folder / name).mkdir(parents=True)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    annotations: dict[str, list[dict[str, Any]]] = {"train2014": [], "val2014": []}
    sentences: dict[str, list[dict[str, Any]]] = {split: [] for split in PRETRAINING}
    first = 1
    total = sum(getattr(parameters, split) for split in SPLITS)
    with progress_bar("toy scenes", total, "scene", shown=progress) as bar:
        for order, (split, images) in enumerate(SPLITS.items()):
            rng = Random(f"toy {parameters.seed} {split}")
            words = Random(f"toy {parameters.seed} {split} sentences")
            relating = Random(f"toy {parameters.seed} {split} relations")
            noise = np.random.default_rng([parameters.seed, 2, order])
            numbers = range(first, first + getattr(parameters, split))
            first = numbers.stop
            scenes = write_scenes(
                folder,
                f"mscoco_imgfeat/{images}_obj36.tsv",
                [f"TOY_{images}_{n:012d}" for n in numbers],
                detector,
                rng,
                noise,
                pictures=parameters.pictures if split == "train" else len(numbers),
                bar=bar,
            )
            probed: list[Scene] = []
            for n, scene in zip(numbers, scenes, strict=True):
                probed += [scene] if split == "minival" else []
                questions = ask(scene, parameters.questions, rng)
                answers = annotate(questions, noise)
                for k, (question, ten) in enumerate(zip(questions, answers, strict=True)):
                    rows[split].append(_row(question, ten, n * 1000 + k, scene.image_id, split))
                    if images in annotations:
                        annotations[images].append(_annotation(question, ten, n * 1000 + k, n))
                if split in PRETRAINING:
                    asked = rows[split][-len(questions) :]
                    texts = {row["sent"] for row in asked}
                    more = ask(scene, parameters.gqa, words, without=texts)
                    relations = ask_relations(scene, parameters.visual7w, relating, without=texts)
                    sentences[split].append(_sentences(scene, asked, more, relations, parameters, words))
                    for k, question in enumerate(more, start=n * 1000 + len(asked)):
                        certain = [question.answer] * ANNOTATORS  # GQA has one answer to a question
                        rows[f"gqa_{split}"].append(_row(question, certain, k, scene.image_id, split))
            for piece in PIECES if probed else ():
                examples = foils(probed, piece, Random(f"toy {parameters.seed} probes {piece}"))
                write_json(folder / "probes" / f"{piece}.json", examples)
    tenth = -(-parameters.train // 10) * parameters.questions
    rows["train_tenth"] = rows["train"][:tenth]
    for split, those in rows.items():
        write_json(folder / "vqa" / f"{split}.json", those)
    for split, those in sentences.items():
        write_json(folder / "lxmert" / f"{PRETRAINING[split]}.json", those)
    for images, those in annotations.items():
        official = {
            "info": {"description": "toy: generated scenes, questions and answers, not VQA v2"},
            "task_type": "Open-Ended",
            "data_type": "mscoco",
            "license": {},
            "data_subtype": images,
            "annotations": those,
        }
        write_json(folder / "vqa" / f"v2_mscoco_{images}_annotations.json", official)
    write_vocabulary(folder / "vocab.txt")
    return {"question_only_accuracy": round(question_only_accuracy(rows["train"], rows["minival"]), 4)}


def _row(question: Question, answers: list[str], question_id: int, image_id: str, split: str) -> dict[str, Any]:
    row: dict[str, Any] = {"question_id": question_id, "img_id": image_id, "sent": question.text}
    if split != "test":
        row["label"] = {answer: min(3 * n, 10) / 10 for answer, n in Counter(answers).most_common()}
        row["answer_type"], row["question_type"] = question.answer_type, question.question_type
    return row


def _sentences(
    scene: Scene,
    asked: Sequence[dict[str, Any]],
    more: Sequence[Question],
    relations: Sequence[Question],
    parameters: ToyParameters,
    rng: Random,
) -> dict[str, Any]:
    """An image of a pre-training file.

    `asked` are its VQA rows, which it has too, `more` its GQA questions, `relations` those of visual7w.
    """
    certain = {"gqa": more, **({"visual7w": relations} if parameters.visual7w else {})}
    return {
        "img_id": scene.image_id,
        "sentf": {
            "mscoco": captions(scene, parameters.captions, rng),
            "vg": phrases(scene, parameters.phrases, rng),
            "vqa": [row["sent"] for row in asked],
            **{source: [question.text for question in those] for source, those in certain.items()},
        },
        "labelf": {
            "vqa": [row["label"] for row in asked],
            **{source: [{question.answer: 1.0} for question in those] for source, those in certain.items()},
        },
    }


def _annotation(question: Question, answers: list[str], question_id: int, image: int) -> dict[str, Any]:
    return {
        "question_type": question.question_type,
        "multiple_choice_answer": Counter(answers).most_common(1)[0][0],
        "answers": [
            {"answer": answer, "answer_confidence": "yes", "answer_id": k}
            for k, answer in enumerate(answers, start=1)
        ],
        "image_id": image,
        "answer_type": question.answer_type,
        "question_id": question_id,
    }
