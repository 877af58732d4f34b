"""VQA v2 in the LXMERT release's files, and data sets of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.base import convert_once
from datamodules.formats.release_vqa import convert_vqa
from datamodules.release import ReleaseDataModule, split_names
from datamodules.stores.texts import examples_are_current
from lxmert.files import InputError

ANNOTATED_FOLDERS = ("train2014", "val2014", "test2015")
SPLIT_REGIONS = {
    "train": ["mscoco_imgfeat/train2014"],
    "nominival": ["mscoco_imgfeat/val2014"],
    "minival": ["mscoco_imgfeat/val2014"],
    "test": ["mscoco_imgfeat/test2015"],
}
RELEASED = "vqa"  # the folder of the release; what lies in others is not part of it
RELEASED_SPLITS = {
    "train": ["train", "nominival"],
    "valid": ["minival"],
    "test": ["minival"],
    "predict": ["test"],
}


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
        root: the data folder.
        tokenizer: as for ReleaseDataModule.
        test_only: splits that are refused for training and validation, as those of a data set that has none
            to select a model on. Without validation the last weights are tested.
        folder: of the text files and their stores.
        region_folder: of the region files of images whose ids name none.
        release: the other arguments of ReleaseDataModule.

    Raises:
        InputError: a split of `test_only` to train or validate on.
    """

    title = "VQA"
    data_set = "VQA v2"
    toy = "toy_vqa"
    task = "vqa"
    answer_file = "trainval_label2ans.json"
    released_splits = RELEASED_SPLITS

    def __init__(
        self,
        root: str | Path,
        tokenizer: str | Path,
        *,
        test_only: str | Sequence[str] = (),
        folder: str = RELEASED,
        region_folder: str = "mscoco_imgfeat",
        **release: Any,
    ) -> None:
        self.folder, self.region_folders = folder, (region_folder,)
        self.split_regions = SPLIT_REGIONS if folder == RELEASED else {}
        if folder != RELEASED:
            self.title = self.data_set = folder
            self.origin = "They are not part of the LXMERT release: docs/data.md says what makes them."
        super().__init__(root, tokenizer, **release)
        self.tables = {"answer_type": [], "question_type": [], "annotator_answers": []}
        held_out = split_names(test_only)
        for role in ("train", "valid"):
            for split in self.splits[role]:
                if split in held_out:
                    raise InputError(
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
