"""VQA v2 in the LXMERT release's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from datamodules.base import convert_once
from datamodules.examples import convert_vqa, examples_are_current
from datamodules.release import ReleaseDataModule

ANNOTATED_FOLDERS = ("train2014", "val2014", "test2015")


class VqaDataModule(ReleaseDataModule):
    """Questions about images, with soft answer scores.

    `root` is a data folder as the LXMERT release lays it out, with the names of this class's splits:

        vqa/{split}.json                                  questions
        mscoco_imgfeat/{train2014,...}_obj36.tsv          regions; not needed any more once converted
        vqa/trainval_label2ans.json                       optional: the answers, a list
        vqa/v2_mscoco_{train2014,...}_annotations.json    optional: official annotations, ten answers each
        images/                                           optional: pictures, to look at

    Batches have the targets answer_scores (R, A) over `answers`; answer_type, question_type (R,) and
    annotator_answers (R, 10), codes into `tables`, -1 where unknown. Splits without labels have no
    answer_scores.

    Args:
        root, tokenizer, stores, batch_size, eval_batch_size, max_length, workers, seed, rows_per_image,
            feature_dim, missing_images: see ReleaseDataModule.
        train, valid, test, predict: splits, a list or separated by commas.
    """

    title = "VQA"
    data_set = "VQA v2"
    toy = "toy_vqa"
    task = "vqa"
    folder = "vqa"
    answer_file = "trainval_label2ans.json"
    split_regions: ClassVar = {
        "train": ["mscoco_imgfeat/train2014"],
        "nominival": ["mscoco_imgfeat/val2014"],
        "minival": ["mscoco_imgfeat/val2014"],
        "test": ["mscoco_imgfeat/test2015"],
    }
    region_folders = ("mscoco_imgfeat",)

    def __init__(
        self,
        root: str | Path,
        tokenizer: str | Path,
        *,
        train: str | Sequence[str] = ("train", "nominival"),
        valid: str | Sequence[str] = ("minival",),
        test: str | Sequence[str] = ("minival",),
        predict: str | Sequence[str] = ("test",),
        stores: str | Path | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 256,
        max_length: int = 20,
        workers: int = 0,
        seed: int = 9595,
        rows_per_image: int = 1,
        feature_dim: int = 2048,
        missing_images: str = "stop",
    ) -> None:
        super().__init__(
            root,
            tokenizer,
            splits={"train": train, "valid": valid, "test": test, "predict": predict},
            stores=stores,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            max_length=max_length,
            workers=workers,
            seed=seed,
            rows_per_image=rows_per_image,
            feature_dim=feature_dim,
            missing_images=missing_images,
        )
        self.tables = {"answer_type": [], "question_type": [], "annotator_answers": []}

    def convert_examples(self, split: str, source: Path, store: Path) -> None:
        """Make the text store of a split, with the official annotations that are there."""
        files = {name: source.parent / f"v2_mscoco_{name}_annotations.json" for name in ANNOTATED_FOLDERS}
        annotations = {name: file for name, file in files.items() if file.exists()}
        convert_once(
            store,
            lambda: examples_are_current(store, [source, *annotations.values()]),
            lambda: convert_vqa(source, store, annotations),
        )
