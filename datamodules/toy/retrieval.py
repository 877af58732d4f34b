"""Toy retrieval's files: captions of generated scenes, as Karpathy's files have them.

What is said of a scene: `captions.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from datamodules.progress import progress_bar
from datamodules.toy.captions import captions
from datamodules.toy.folder import check_sizes, write_whole
from datamodules.toy.world import Detector
from datamodules.toy.writing import write_json, write_scenes, write_vocabulary

VERSION = 1  # raise it whenever the same parameters no longer give the same files
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ToyRetrievalParameters:
    """What the files of toy retrieval depend on, and nothing else.

    Attributes:
        train, val, test: scenes of each split.
        captions: sentences about a scene.
        regions: boxes an image.
        feature_dim: length of a region's feature.
        pictures: how many scenes of each split are rendered.
        seed: of everything. Shapes and colours look as in the toy world of the same seed, so that weights
            pre-trained there understand these features.
    """

    train: int = 1000
    val: int = 40
    test: int = 40
    captions: int = 5
    regions: int = 16
    feature_dim: int = 128
    pictures: int = 40
    seed: int = 1

    def __post_init__(self) -> None:
        check_sizes("toy retrieval", self)


def generate(root: Path | str, parameters: ToyRetrievalParameters | None = None, *, progress: bool = True) -> Path:
    """Write the files of toy retrieval into `root`, unless those of the same parameters are there.

        captions/dataset_captions.json           Karpathy's format: images with their captions, of all splits
        captions_imgfeat/{train,val,test}.tsv    the release's region features
        images/IMAGE.png                         rendered pictures
        vocab.txt                                the toys' WordPiece vocabulary
        toy.json                                 the parameters

    The same parameters give the same bytes. The folder appears whole or not at all.

    Raises:
        InputError: an impossible parameter.
        StoreError: `root` cannot be written.
        FileExistsError: `root` holds something else; it is left alone.
    """
    parameters = parameters or ToyRetrievalParameters()
    detector = Detector(parameters.regions, parameters.feature_dim, parameters.seed)
    made_from = {"toy": "retrieval", "version": VERSION, "parameters": asdict(parameters)}
    return write_whole(Path(root), made_from, lambda folder: _write(folder, parameters, detector, progress))


def _write(folder: Path, parameters: ToyRetrievalParameters, detector: Detector, progress: bool) -> dict[str, Any]:
    for name in ("captions", "captions_imgfeat", "images"):
        (folder / name).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    sentences = count()
    with progress_bar(
        "toy scenes", sum(getattr(parameters, split) for split in SPLITS), "scene", shown=progress
    ) as bar:
        for order, split in enumerate(SPLITS):
            rng = Random(f"toy retrieval {parameters.seed} {split}")
            words = Random(f"toy retrieval {parameters.seed} {split} sentences")
            scenes = write_scenes(
                folder,
                f"captions_imgfeat/{split}.tsv",
                [f"TOY_{split}_{number:06d}" for number in range(getattr(parameters, split))],
                detector,
                rng,
                np.random.default_rng([parameters.seed, 5, order]),
                pictures=parameters.pictures,
                bar=bar,
            )
            for scene in scenes:
                texts = captions(scene, parameters.captions, words)
                images.append(
                    {
                        "filename": f"{scene.image_id}.png",
                        "imgid": len(images),
                        "split": split,
                        "sentences": [
                            {"raw": text, "tokens": text[:-1].lower().split(), "sentid": next(sentences)}
                            for text in texts
                        ],
                    }
                )
    write_json(folder / "captions" / "dataset_captions.json", {"dataset": "toy captions", "images": images})
    write_vocabulary(folder / "vocab.txt")
    return {}
