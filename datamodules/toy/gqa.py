"""Toy GQA's files: generated scenes and questions in the formats of GQA and of the LXMERT release.

What is asked, and what follows from what: `gqa_questions.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from datamodules.progress import progress_bar
from datamodules.toy.folder import check_sizes, write_whole
from datamodules.toy.gqa_questions import GqaQuestion, Phrase, Step, along, ask
from datamodules.toy.questions import _APART, DIRECTIONS
from datamodules.toy.world import Detector, Scene
from datamodules.toy.writing import question_only_accuracy, write_json, write_scenes, write_vocabulary

VERSION = 1  # raise it whenever the same parameters no longer give the same files
# split: the images that its scenes are among, as in the release
SPLITS = {"train": "vg", "valid": "vg", "testdev": "testdev"}
REGION_FILES = {"vg": "vg_gqa_obj36.tsv", "testdev": "gqa_testdev_obj36.tsv"}
_NEW = 2  # questions at most that are asked only because a balanced one entails them


@dataclass(frozen=True)
class ToyGqaParameters:
    """What the files of toy GQA depend on, and nothing else.

    Attributes:
        train, valid, testdev: scenes of each split.
        questions: balanced questions a scene; those that they entail come on top, unbalanced.
        regions: boxes an image.
        feature_dim: length of a region's feature.
        pictures: how many scenes of each split are rendered.
        seed: of everything. Shapes and colours look as in the toy world of the same seed, so that weights
            pre-trained there understand these features.
    """

    train: int = 3000
    valid: int = 300
    testdev: int = 300
    questions: int = 6
    regions: int = 16
    feature_dim: int = 128
    pictures: int = 50
    seed: int = 1

    def __post_init__(self) -> None:
        check_sizes("toy GQA", self)


def generate(root: Path | str, parameters: ToyGqaParameters | None = None, *, progress: bool = True) -> Path:
    """Write the files of toy GQA into `root`, unless those of the same parameters are there.

    For each SPLIT of train, valid and testdev:

        gqa/SPLIT.json                       the format of the LXMERT release: balanced questions
        gqa/SPLIT_balanced_questions.json    the makers' format: the same questions
        gqa/SPLIT_all_questions.json         those, what they entail, and the same in other words
        gqa/SPLIT_choices.json               valid and plausible answers to the balanced questions
        gqa/SPLIT_sceneGraphs.json           what is where, with the object ids of the annotations
        gqa/testdev_all.json                 all testdev questions in the release's format, for consistency
        vg_gqa_imgfeat/{vg_gqa,gqa_testdev}_obj36.tsv    the release's region features
        images/IMAGE.png                     rendered pictures
        vocab.txt                            the toys' WordPiece vocabulary
        toy.json                             the parameters, and the question-only accuracy on testdev

    The same parameters give the same bytes. The folder appears whole or not at all.

    Raises:
        InputError: an impossible parameter.
        StoreError: `root` cannot be written.
        FileExistsError: `root` holds something else; it is left alone.
    """
    parameters = parameters or ToyGqaParameters()
    detector = Detector(parameters.regions, parameters.feature_dim, parameters.seed)
    made_from = {"toy": "gqa", "version": VERSION, "parameters": asdict(parameters)}
    return write_whole(Path(root), made_from, lambda folder: _write(folder, parameters, detector, progress))


def _write(folder: Path, parameters: ToyGqaParameters, detector: Detector, progress: bool) -> dict[str, Any]:
    for name in ("gqa", "vg_gqa_imgfeat", "images"):
        (folder / name).mkdir()
    guessable: dict[str, list[dict[str, Any]]] = {}
    first = 1
    total = sum(getattr(parameters, split) for split in SPLITS)
    with progress_bar("toy GQA scenes", total, "scene", shown=progress) as bar:
        for order, (split, images) in enumerate(SPLITS.items()):
            files = _SplitFiles()
            rng = Random(f"toy gqa {parameters.seed} {split}")
            numbers = range(first, first + getattr(parameters, split))
            first = numbers.stop
            scenes = write_scenes(
                folder,
                f"vg_gqa_imgfeat/{REGION_FILES[images]}",
                [f"TOY_{images}_{n:012d}" for n in numbers],
                detector,
                rng,
                np.random.default_rng([parameters.seed, 3, order]),
                pictures=parameters.pictures,
                bar=bar,
            )
            for number, scene in zip(numbers, scenes, strict=True):
                files.add(scene, number, parameters.questions, rng)
            files.write(folder / "gqa", split)
            guessable[split] = files.guessable
    write_vocabulary(folder / "vocab.txt")
    accuracy = question_only_accuracy(guessable["train"] + guessable["valid"], guessable["testdev"])
    return {"question_only_accuracy": round(accuracy, 4)}


class _SplitFiles:
    """The text files of one split, scene by scene; the large ones are kept as JSON text."""

    def __init__(self) -> None:
        self.all: dict[str, str] = {}
        self.rows: list[dict[str, Any]] = []
        self.balanced: list[dict[str, Any]] = []
        self.choices: dict[str, dict[str, Any]] = {}
        self.graphs: dict[str, dict[str, Any]] = {}
        # The balanced rows with what a guess can go by where it has never seen the text.
        self.guessable: list[dict[str, Any]] = []

    def add(self, scene: Scene, number: int, questions: int, rng: Random) -> None:
        """Ask this many balanced questions about a scene, and those that come with them."""
        objects = [f"{number}{place:02d}" for place in range(len(scene.things))]
        self.graphs[scene.image_id] = _scene_graph(scene, objects)
        for asked in _related(ask(scene, questions, rng), number, rng):
            question, id_ = asked.question, asked.id
            self.all[id_] = json.dumps(_official(asked, scene.image_id, objects))
            row = {
                "question_id": id_,
                "img_id": scene.image_id,
                "sent": asked.phrase.text,
                "label": {question.answer: 1.0},
            }
            self.rows.append(row)
            if asked.balanced:
                self.balanced.append(row)
                self.choices[id_] = {"valid": question.valid, "plausible": question.plausible}
                kind = f"{question.detailed} {' '.join(sorted(question.plausible))}"
                self.guessable.append({**row, "question_type": kind})

    def write(self, folder: Path, split: str) -> None:
        """Write the files into `folder`."""
        write_json(folder / f"{split}.json", self.balanced)
        if split == "testdev":
            write_json(folder / "testdev_all.json", self.rows)
        (folder / f"{split}_all_questions.json").write_text(_object(self.all), encoding="utf-8")
        questions = {row["question_id"]: self.all[row["question_id"]] for row in self.balanced}
        (folder / f"{split}_balanced_questions.json").write_text(_object(questions), encoding="utf-8")
        write_json(folder / f"{split}_choices.json", self.choices)
        write_json(folder / f"{split}_sceneGraphs.json", self.graphs)


@dataclass
class _Asked:
    """A question in one wording, and the ids of those that its answer settles."""

    id: str
    question: GqaQuestion
    phrase: Phrase
    balanced: bool
    equivalent: list[str] = field(default_factory=list)
    entailed: list[str] = field(default_factory=list)


def _related(balanced: Sequence[tuple[GqaQuestion, int]], number: int, rng: Random) -> list[_Asked]:
    """The balanced questions of scene `number`, each also in other words, and some that follow from them."""
    ids = (f"{number:06d}{k:03d}" for k in count())
    groups: dict[str, list[_Asked]] = {}  # by what is asked, in whatever words
    for question, wording in balanced:
        groups[question.about] = [_Asked(next(ids), question, question.text(wording), balanced=True)]
    for question, wording in balanced:
        others = [other for other in range(len(question.wordings)) if other != wording]
        if others:
            text = question.text(rng.choice(others))
            groups[question.about].append(_Asked(next(ids), question, text, balanced=False))
    following: dict[str, list[str]] = {}
    for question, _ in balanced:
        follows = question.follows()
        new = [other for other in follows if other.about not in groups]
        for other in rng.sample(new, min(len(new), _NEW)):
            text = other.text(rng.randrange(len(other.wordings)))
            groups[other.about] = [_Asked(next(ids), other, text, balanced=False)]
        following[question.about] = [other.about for other in follows]
    for about, group in groups.items():
        same = [asked.id for asked in group]
        settled = [asked.id for other in following.get(about, ()) for asked in groups.get(other, ())]
        for asked in group:
            asked.equivalent = same
            asked.entailed = [id_ for id_ in (*same, *settled) if id_ != asked.id]
    return [asked for group in groups.values() for asked in group]


def _official(asked: _Asked, image_id: str, objects: Sequence[str]) -> dict[str, Any]:
    """An entry of the makers' questions file."""
    question, full_answer = asked.question, asked.question.full_answer
    steps = [
        {
            "operation": step.operation,
            "dependencies": step.dependencies,
            "argument": _argument(step, objects),
        }
        for step in question.program
    ]
    return {
        "semantic": steps,
        "entailed": asked.entailed,
        "equivalent": asked.equivalent,
        "question": asked.phrase.text,
        "imageId": image_id,
        "isBalanced": asked.balanced,
        "groups": {"global": question.group, "local": question.about},
        "answer": question.answer,
        "semanticStr": "->".join(
            f"{step['operation']}: {step['argument']} {list(step['dependencies']) or ''}".rstrip()
            for step in steps
        ),
        "annotations": {
            "answer": {},
            "question": _grounded(asked.phrase, objects),
            "fullAnswer": _grounded(full_answer, objects),
        },
        "types": {
            "detailed": question.detailed,
            "semantic": question.semantic,
            "structural": question.structural,
        },
        "fullAnswer": full_answer.text,
    }


def _argument(step: Step, objects: Sequence[str]) -> str:
    """As GQA writes it, with the object that is meant, or (-) where no single one is."""
    if step.thing is not None:
        return f"{step.argument} ({objects[step.thing]})"
    return f"{step.argument} (-)" if step.operation == "select" and step.argument != "scene" else step.argument


def _grounded(phrase: Phrase, objects: Sequence[str]) -> dict[str, str]:
    return {tokens: objects[place] for tokens, place in phrase.things.items()}


def _scene_graph(scene: Scene, objects: Sequence[str]) -> dict[str, Any]:
    """An image of the makers' scene graph file."""
    graph = {}
    for thing, id_ in zip(scene.things, objects, strict=True):
        outline = thing.outline()
        (x, y), (right, bottom) = np.floor(outline.min(0)).tolist(), np.ceil(outline.max(0)).tolist()
        graph[id_] = {
            "name": thing.shape,
            "x": int(x),
            "y": int(y),
            "w": int(right - x),
            "h": int(bottom - y),
            "attributes": [thing.color, thing.size],
            "relations": [
                {"name": direction, "object": objects[place]}
                for place, other in enumerate(scene.things)
                for direction in DIRECTIONS
                if along(scene, direction, thing, other) > _APART
            ],
        }
    return {"width": scene.width, "height": scene.height, "objects": graph}


def _object(members: Mapping[str, str]) -> str:
    """A JSON object of members that are JSON text already."""
    return "{" + ", ".join(f"{json.dumps(key)}: {text}" for key, text in members.items()) + "}"
