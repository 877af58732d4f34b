"""VQA v2 in the LXMERT release's files, and data sets of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from datamodules.base import convert_once
from datamodules.examples import convert_vqa, examples_are_current
from datamodules.release import ReleaseDataModule

ANNOTATED_FOLDERS = ("train2014", "val2014", "test2015")
RELEASED = "vqa"  # the folder of the release; what lies in others is not part of it


class VqaDataModule(ReleaseDataModule):
    """Questions about images, with soft answer scores.

    `root` is a data folder as the LXMERT release lays it out, with the names of this class's splits:

        vqa/{split}.json                                  questions
        mscoco_imgfeat/{train2014,...}_obj36.tsv          regions; not needed any more once converted
        vqa/trainval_label2ans.json                       optional: the answers, a list
        vqa/v2_mscoco_{train2014,...}_annotations.json    optional: official annotations, ten answers each
        images/                                           optional: pictures, to look at

    Other data sets have text files of these names and formats, or stores that `datamodules.prepare` made, in a
    `folder` of their own: OK-VQA, VQA-CP v2, VizWiz, one's own.

    Batches have the targets answer_scores (R, A) over `answers`; answer_type, question_type (R,) and
    annotator_answers (R, 10), codes into `tables`, -1 where unknown. Splits without labels have no
    answer_scores.

    Args:
        root, tokenizer, stores, batch_size, eval_batch_size, max_length, workers, seed, rows_per_image,
            feature_dim, missing_images: see ReleaseDataModule.
        train, valid, test, predict: splits, a list or separated by commas.
        test_only: splits that are refused for training and validation, as those of a data set that has none
            to select a model on. Without validation the last weights are tested.
        folder: of the text files and their stores.
        region_folder: of the region files of images whose ids name none.

    Raises:
        ValueError: a split of `test_only` to train or validate on.
    """

    title = "VQA"
    data_set = "VQA v2"
    toy = "toy_vqa"
    task = "vqa"
    answer_file = "trainval_label2ans.json"
    split_regions: ClassVar = {
        "train": ["mscoco_imgfeat/train2014"],
        "nominival": ["mscoco_imgfeat/val2014"],
        "minival": ["mscoco_imgfeat/val2014"],
        "test": ["mscoco_imgfeat/test2015"],
    }

    def __init__(
        self,
        root: str | Path,
        tokenizer: str | Path,
        *,
        train: str | Sequence[str] = ("train", "nominival"),
        valid: str | Sequence[str] = ("minival",),
        test: str | Sequence[str] = ("minival",),
        predict: str | Sequence[str] = ("test",),
        test_only: str | Sequence[str] = (),
        folder: str = RELEASED,
        region_folder: str = "mscoco_imgfeat",
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
        self.folder, self.region_folders = folder, (region_folder,)  # type: ignore[misc]
        if folder != RELEASED:
            self.title, self.data_set = folder, folder  # type: ignore[misc]
            self.split_regions = {}  # type: ignore[misc]
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
        held_out = [name.strip() for name in (test_only.split(",") if isinstance(test_only, str) else test_only)]
        for role in ("train", "valid"):
            for split in self.splits[role]:
                if split in held_out:
                    raise ValueError(
                        f"data.{role} names {split}, which is for testing only (data.test_only): nothing may be "
                        "learnt or selected on it. Test a checkpoint on it with action=test; data.valid=[] "
                        "trains without validation and tests the last weights."
                    )

    def prepare_data(self, stage: str | None = None) -> None:
        """As ReleaseDataModule; FileNotFoundError also when the folder of another data set has no splits."""
        texts, stores = self.root / self.folder, self.stores / self.folder
        if self.folder != RELEASED and not self._names_in(texts, ".json") and not self._names_in(stores, ".h5"):
            raise FileNotFoundError(
                f"there are no texts of {self.data_set}, neither {stores}/*.h5 nor {texts}/*.json. "
                f"`python -m datamodules.prepare {{okvqa,vqacp,vizwiz}}` makes stores of the makers' files; files "
                f"of the release's format (docs/data.md) are converted."
            )
        super().prepare_data(stage)

    def convert_examples(self, split: str, source: Path, store: Path) -> None:
        """Make the text store of a split, with the official annotations that are there."""
        files = {name: source.parent / f"v2_mscoco_{name}_annotations.json" for name in ANNOTATED_FOLDERS}
        annotations = {name: file for name, file in files.items() if file.exists()}
        convert_once(
            store,
            lambda: examples_are_current(store, [source, *annotations.values()]),
            lambda: convert_vqa(source, store, annotations),
        )
