"""GQA in the LXMERT release's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from datamodules.base import convert_once
from datamodules.examples import convert_vqa, examples_are_current
from datamodules.release import ReleaseDataModule


class GqaDataModule(ReleaseDataModule):
    """Compositional questions about images, one answer each.

    `root` is a data folder as the LXMERT release lays it out:

        gqa/{split}.json                                question_id (a string), img_id, sent, label {answer: 1.0}
        vg_gqa_imgfeat/{vg_gqa,gqa_testdev}_obj36.tsv   regions; not needed any more once converted
        gqa/trainval_label2ans.json                     optional: the answers, a list
        gqa/{split}_balanced_questions.json             optional: the makers' questions, and with them
        gqa/{split}_{all_questions,choices}.json        optional: their own metrics after a test

    Batches have the target answer_scores (R, A) over `answers`, absent for splits without labels.

    Args:
        root, tokenizer, stores, batch_size, eval_batch_size, max_length, workers, seed, rows_per_image,
            feature_dim, missing_images: see ReleaseDataModule.
        train, valid, test, predict: splits, a list or separated by commas.
    """

    title = "GQA"
    data_set = "GQA"
    toy = "toy_gqa"
    task = "gqa"
    folder = "gqa"
    answer_file = "trainval_label2ans.json"
    split_regions: ClassVar = {
        "train": ["vg_gqa_imgfeat/vg_gqa"],
        "valid": ["vg_gqa_imgfeat/vg_gqa"],
        "testdev": ["vg_gqa_imgfeat/gqa_testdev"],
        "submit": ["vg_gqa_imgfeat/gqa_testdev"],
    }
    region_folders = ("vg_gqa_imgfeat",)

    def __init__(
        self,
        root: str | Path,
        tokenizer: str | Path,
        *,
        train: str | Sequence[str] = ("train", "valid"),
        valid: str | Sequence[str] = ("testdev",),
        test: str | Sequence[str] = ("testdev",),
        predict: str | Sequence[str] = ("submit",),
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

    def convert_examples(self, split: str, source: Path, store: Path) -> None:
        """Make the text store of a split."""
        convert_once(store, lambda: examples_are_current(store, [source]), lambda: convert_vqa(source, store))

    def scoring_files(self, split: str) -> dict[str, Path]:
        """The makers' questions and choices of a split, as far as they are there; nothing without the questions.

        `<split>_all`, a split of all questions and not of the balanced ones alone, has the files of `<split>`,
        and all questions too: consistency needs their predictions.
        """
        name = split.removesuffix("_all")
        files = {"questions": f"{name}_balanced_questions.json", "choices": f"{name}_choices.json"}
        if name != split:
            files["all_questions"] = f"{name}_all_questions.json"
        paths = {what: self.root / "gqa" / file for what, file in files.items()}
        there = {what: path for what, path in paths.items() if path.exists()}
        return there if "questions" in there else {}
