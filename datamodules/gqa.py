"""GQA in the LXMERT release's files."""

from __future__ import annotations

from pathlib import Path

from datamodules.base import ExampleDataModule
from datamodules.formats.release_vqa import convert_vqa
from datamodules.layout import COCO, GQA_TESTDEV, VG_GQA, VISUAL_GENOME, Layout
from datamodules.release import ReleaseFolder

RELEASED_SPLITS = {
    "train": ["train", "valid"],
    "valid": ["testdev"],
    "test": ["testdev"],
    "predict": ["submit"],
}
LAYOUT = Layout(
    files=(*COCO, *VISUAL_GENOME),
    folders=("vg_gqa_imgfeat",),
    splits={
        "train": [VG_GQA],
        "valid": [VG_GQA],
        "testdev": [GQA_TESTDEV],
        "submit": [VG_GQA],  # the original reads testdev's file for testdev alone
    },
)


class GqaDataModule(ExampleDataModule):
    """Compositional questions about images, one answer each.

    `root` is a data folder as the LXMERT release lays it out:

        gqa/{split}.json                                question_id (a string), img_id, sent, label {answer: 1.0}
        vg_gqa_imgfeat/{vg_gqa,gqa_testdev}_obj36.tsv   regions; not needed any more once converted
        gqa/trainval_label2ans.json                     optional: the answers, a list
        gqa/{split}_balanced_questions.json             optional: the makers' questions, and with them
        gqa/{split}_{all_questions,choices}.json        optional: their own metrics after a test

    Batches have the target answer_scores (R, A) over `answers`, absent for splits without labels.

    Its arguments are those of ExampleDataModule.
    """

    title = "GQA"
    task = "gqa"
    released_splits = RELEASED_SPLITS

    def release_folder(self) -> ReleaseFolder:
        """GQA's files."""
        return ReleaseFolder(
            self.root,
            self.stores,
            folder="gqa",
            layout=LAYOUT,
            convert=convert_vqa,
            data_set="GQA",
            toy="toy_gqa",
        )

    def scoring_files(self, split: str) -> dict[str, Path]:
        """The makers' questions and choices of a split, as far as they are there; nothing without the questions.

        `<split>_all`, a split of all questions and not of the balanced ones alone, has the files of `<split>`,
        and all questions too: consistency needs their predictions.
        """
        name = split.removesuffix("_all")
        files = {"questions": f"{name}_balanced_questions.json", "choices": f"{name}_choices.json"}
        if name != split:
            files["all_questions"] = f"{name}_all_questions.json"
        paths = {what: self.release.root / "gqa" / file for what, file in files.items()}
        there = {what: path for what, path in paths.items() if path.exists()}
        return there if "questions" in there else {}
