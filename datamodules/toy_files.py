"""The toy's files: a generated world in the formats of the real releases, with nothing to download.

`generate` writes a folder that looks like a user's LXMERT data folder. What is in the world:
`toy_world.py`; what is asked about it: `toy_questions.py`.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tqdm import tqdm

from datamodules.hdf5 import locked
from datamodules.toy_questions import QUESTION_TYPES, Question, annotate, ask
from datamodules.toy_world import Detector, Regions, Scene, draw_scenes, render

MANIFEST = "toy.json"
VERSION = 1  # raise it whenever the same parameters no longer give the same files
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# split: the image folder that its scenes are in; minival comes first in val2014, as in the released file.
SPLITS = {"train": "train2014", "minival": "val2014", "nominival": "val2014", "test": "test2015"}
_SCENES_AT_ONCE = 500


@dataclass(frozen=True)
class ToyParameters:
    """What the toy's files depend on, and nothing else.

    Attributes:
        train, minival, nominival, test: scenes of each split.
        questions: questions a scene.
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
    regions: int = 16
    feature_dim: int = 128
    pictures: int = 200
    seed: int = 1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name in ("pictures", "seed") else 1
            if value < least:
                raise ValueError(f"the toy's {name} must be at least {least}, not {value}")


def generate(root: Path | str, parameters: ToyParameters | None = None, *, progress: bool = True) -> Path:
    """Write the toy's files into `root`, unless those of the same parameters are there.

        vqa/{train,minival,nominival,test}.json              the format of the LXMERT release
        vqa/v2_mscoco_{train2014,val2014}_annotations.json   the official format, ten answers a question
        mscoco_imgfeat/{train2014,val2014,test2015}_obj36.tsv    the release's region features
        images/<image id>.png                                rendered pictures
        vocab.txt                                            a WordPiece vocabulary of the toy's text
        toy.json                                             the parameters, and the question-only accuracy

    The same parameters give the same bytes. The folder appears whole or not at all: it is written beside
    `root` and moved there at the end.

    Raises:
        ValueError: an impossible parameter.
        StoreError: `root` cannot be written.
        FileExistsError: `root` holds something that is not a toy; it is left alone.
    """
    root, parameters = Path(root), parameters or ToyParameters()
    detector = Detector(parameters.regions, parameters.feature_dim, parameters.seed)
    if is_current(root, parameters):
        return root
    with locked(root):  # processes that wait here find the work done
        if not is_current(root, parameters):
            if root.exists() and not (root / MANIFEST).exists() and any(root.iterdir()):
                raise FileExistsError(
                    f"{root} is not empty and has no {MANIFEST}, so it is not a toy world and is not "
                    "overwritten: give the toy another folder, or empty this one"
                )
            partial, outdated = (root.with_name(f".{root.name}.{end}") for end in ("partial", "outdated"))
            for leftover in (partial, outdated):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            try:
                _write_world(partial, parameters, detector, progress)
                if root.exists():
                    root.replace(outdated)
                partial.replace(root)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                shutil.rmtree(outdated, ignore_errors=True)
    return root


def is_current(root: Path, parameters: ToyParameters) -> bool:
    """Whether `root` holds the whole toy of these parameters."""
    manifest = read_manifest(root)
    return manifest.get("version") == VERSION and manifest.get("parameters") == asdict(parameters)


def read_manifest(root: Path) -> dict[str, Any]:
    """The toy's parameters and what is known of it: `version, parameters, question_only_accuracy`."""
    path = root / MANIFEST
    return json.loads(path.read_text()) if path.exists() else {}


def question_only_accuracy(train: Iterable[dict[str, Any]], valid: Sequence[dict[str, Any]]) -> float:
    """Soft accuracy in 0..1 of the best guess that never looks at the picture.

    For each question text the answer with the highest summed score in `train`; for a text that is not
    there the same by question type, else over all of `train`.

    Args:
        train: rows of a released file (`sent`, `question_type`, `label`) to learn from.
        valid: the same, to score on.
    """
    totals: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in train:
        for key in _guess_keys(row):
            totals[key].update(row["label"])
    best = {key: max(scores, key=lambda answer: scores[answer]) for key, scores in totals.items() if scores}
    guesses = [next((best[key] for key in _guess_keys(row) if key in best), None) for row in valid]
    right = [row["label"].get(guess, 0) for row, guess in zip(valid, guesses, strict=True)]
    return sum(right) / len(right)


def _guess_keys(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return ("text", row["sent"]), ("type", row["question_type"]), ("all", "")


def _write_world(folder: Path, parameters: ToyParameters, detector: Detector, progress: bool) -> None:
    for name in ("vqa", "mscoco_imgfeat", "images"):
        (folder / name).mkdir(parents=True)
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    annotations: dict[str, list[dict[str, Any]]] = {"train2014": [], "val2014": []}
    texts: list[str] = []
    number = 0
    total = sum(getattr(parameters, split) for split in SPLITS)
    with tqdm(total=total, desc="toy scenes", unit="scene", disable=not progress) as bar:
        for order, (split, images) in enumerate(SPLITS.items()):
            rng = Random(f"toy {parameters.seed} {split}")
            noise = np.random.default_rng([parameters.seed, 2, order])
            count = getattr(parameters, split)
            numbers = range(number + 1, number + 1 + count)
            number += count
            pictures = parameters.pictures if split == "train" else count
            with (folder / "mscoco_imgfeat" / f"{images}_obj36.tsv").open("ab") as tsv:
                for some in _chunks(numbers, _SCENES_AT_ONCE):
                    scenes = list(draw_scenes([f"TOY_{images}_{n:012d}" for n in some], rng))
                    tsv.writelines(_tsv_rows(scenes, detector.detect(scenes, noise)))
                    for n, scene in zip(some, scenes, strict=True):
                        questions = ask(scene, parameters.questions, rng)
                        texts += [text for question in questions for text in (question.text, question.answer)]
                        answers = annotate(questions, noise)
                        for k, (question, ten) in enumerate(zip(questions, answers, strict=True)):
                            rows[split].append(_row(question, ten, n * 1000 + k, scene.image_id, split))
                            if images in annotations:
                                annotations[images].append(_annotation(question, ten, n * 1000 + k, n))
                        if pictures > 0:
                            render(scene).save(folder / "images" / f"{scene.image_id}.png", compress_level=3)
                            pictures -= 1
                        bar.update()
    for split, those in rows.items():
        (folder / "vqa" / f"{split}.json").write_text(json.dumps(those))
    for images, those in annotations.items():
        official = {
            "info": {"description": "toy: generated scenes, questions and answers, not VQA v2"},
            "task_type": "Open-Ended",
            "data_type": "mscoco",
            "license": {},
            "data_subtype": images,
            "annotations": those,
        }
        (folder / "vqa" / f"v2_mscoco_{images}_annotations.json").write_text(json.dumps(official))
    train_vocabulary([*texts, *QUESTION_TYPES], folder / "vocab.txt")
    manifest = {
        "version": VERSION,
        "parameters": asdict(parameters),
        "question_only_accuracy": round(question_only_accuracy(rows["train"], rows["minival"]), 4),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def train_vocabulary(texts: Iterable[str], path: Path, size: int = 600) -> None:
    """Train a WordPiece vocabulary in BERT's format: one token a line, [PAD] first, continuations as ##x.

    Every letter and digit is in it, alone and as a continuation, so that a question about something else
    than the toy still has tokens. Plurals are spelt as their singular and its ending: what a small model
    learns of "star" then holds for "stars".
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=size, min_frequency=1, show_progress=False)
    texts = [*texts, "? . , ! ' -"]
    doubled = [c * 2 for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    tokenizer.train_from_iterator([*texts, *doubled], trainer)
    # The trainer breaks ties by the order of a hash table, which differs from run to run: among pieces that
    # are not whole words, and in the ids. Whole words and single characters do not depend on it.
    pieces = (tokenizer.pre_tokenizer.pre_tokenize_str(text.lower()) for text in set(texts))
    words = {word for split in pieces for word, _ in split}
    words -= {
        word
        for word in words
        if (word[:-1] in words and word[-1] == "s") or (word[:-2] in words and word[-2:] == "es")
    }
    learned = [t for t in tokenizer.get_vocab() if t in words or len(t.removeprefix("##")) == 1]
    tokens = [*SPECIAL_TOKENS, *sorted(learned, key=lambda t: (len(t.removeprefix("##")) > 1, t))]
    path.write_text("".join(f"{token}\n" for token in tokens))


def _chunks(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def _tsv_rows(scenes: Sequence[Scene], regions: Regions) -> Iterator[bytes]:
    """The ten columns of the released files, CRLF at the end as there."""
    for i, scene in enumerate(scenes):
        ids_to_attributes = [_encode(column[i]) for column in regions[:4]]
        count = str(len(regions.boxes[i])).encode()
        columns = [
            scene.image_id.encode(),
            str(scene.height).encode(),
            str(scene.width).encode(),
            *ids_to_attributes,
            count,
            _encode(regions.boxes[i]),
            _encode(regions.features[i]),
        ]
        yield b"\t".join(columns) + b"\r\n"


def _encode(array: NDArray[Any]) -> bytes:
    return base64.b64encode(np.ascontiguousarray(array).tobytes())


def _row(question: Question, answers: list[str], question_id: int, image_id: str, split: str) -> dict[str, Any]:
    row: dict[str, Any] = {"question_id": question_id, "img_id": image_id, "sent": question.text}
    if split != "test":
        row["label"] = {answer: min(3 * n, 10) / 10 for answer, n in Counter(answers).most_common()}
        row["answer_type"], row["question_type"] = question.answer_type, question.question_type
    return row


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
