"""VQA v2 in the LXMERT release's files, and data sets of its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path

from datamodules.base import ExampleDataModule, split_names
from datamodules.formats.answer_lists import normalized
from datamodules.formats.checks import is_text
from datamodules.formats.own import NORMALIZED
from datamodules.formats.release_vqa import convert_vqa
from datamodules.layout import COCO, COCO_FOLDER, VISUAL_GENOME, Layout
from datamodules.release import ORIGIN, ReleaseFolder, own_folder
from datamodules.statistics import guess_accuracy
from lxmert.files import InputError

ANNOTATED_FOLDERS = ("train2014", "val2014", "test2015")
SPLIT_REGIONS = {
    "train": ["mscoco_imgfeat/train2014_obj36"],
    "nominival": ["mscoco_imgfeat/val2014_obj36"],
    "minival": ["mscoco_imgfeat/val2014_obj36"],
    "test": ["mscoco_imgfeat/test2015_obj36"],
}
RELEASED = "vqa"  # the folder of the release; what lies in others is not part of it
RELEASED_SPLITS = {
    "train": ["train", "nominival"],
    "valid": ["minival"],
    "test": ["minival"],
    "predict": ["test"],
}


@dataclass(eq=False, repr=False)
class VqaDataModule(ExampleDataModule):
    """Questions about images, with soft answer scores.

    `root` is a data folder as the LXMERT release lays it out, with the names of this class's splits:

        vqa/{split}.json                                  questions
        mscoco_imgfeat/{train2014,...}_obj36.tsv          regions; not needed any more once converted
        vqa/trainval_label2ans.json                       optional: the answers, a list
        vqa/v2_mscoco_{train2014,...}_annotations.json    optional: official annotations, ten answers each
        images/                                           optional: pictures, to look at

    Other data sets have text files of these names and formats, or stores that `datamodules.prepare` made, in a
    `folder` of their own: OK-VQA, VQA-CP v2, VizWiz. With `columns` texts are one's own: JSON list, JSON lines,
    CSV or TSV, each also .gz, as `convert_own` reads them.

    Batches have the targets answer_scores (R, A) over `answers`; answer_type, question_type (R,) and
    annotator_answers (R, 10), codes into `label_names`, -1 where unknown. Splits without labels have no
    answer_scores.

    Args, beside those of ExampleDataModule:
        task: whose rules and formats are the data's: vqa, also of VQA-CP and OK-VQA; vizwiz; own.
        test_only: splits that are refused for training and validation, as those of a data set that has none
            to select a model on. Without validation the last weights are tested.
        folder: of the text files and their stores.
        region_folder: of the region files. In the release's, mscoco_imgfeat, COCO's and Visual Genome's ids name
            their file; in another, any file may have any image.
        columns: for texts of one's own, what a column is -> its name, such as {text: Frage}; those that are left
            out, or None, have usual names. None in place of all for the release's format.
        classes: the answers in their order, where one of a few classes is right; None for those of the list file
            or of the labels. Of two, the last one is the positive.

    Raises:
        InputError: a split of `test_only` to train or validate on; a class that is no text or there twice.
    """

    title = "VQA"
    released_splits = RELEASED_SPLITS

    _: KW_ONLY
    task: str = "vqa"
    test_only: str | Sequence[str] = ()
    folder: str = RELEASED
    region_folder: str = COCO_FOLDER
    columns: Mapping[str, str | None] | None = None
    classes: Sequence[str | int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(isinstance(each, bool) for each in self.classes or ()):
            raise InputError(
                f"data.classes={list(self.classes or ())}; expected texts. YAML reads yes, no, on, off, true "
                'and false as truth values. Write them in quotes, spelt as the labels are: ["no", "yes"]; on a '
                """command line 'data.classes=["true","false"]'."""
            )
        self.answers = list(map(str, self.classes or ()))  # on a command line, [0,1] are numbers
        if len(set(self.answers)) < len(self.answers) or not all(map(is_text, self.answers)):
            raise InputError(f"data.classes={list(self.classes or ())}; expected texts, each once")
        if self.folder != RELEASED and self.title == VqaDataModule.title:
            self.title = self.folder
        self.label_names = {"answer_type": [], "question_type": [], "annotator_answers": []}
        held_out = split_names(self.test_only)
        for role in ("train", "valid"):
            for split in self.splits[role]:
                if split in held_out:
                    raise InputError(
                        f"data.{role} names {split}, which is for testing only (data.test_only): nothing may be "
                        "learnt or selected on it. Test a checkpoint on it with action=test; data.valid=[] "
                        "trains without validation and tests the last weights."
                    )

    def release_folder(self) -> ReleaseFolder:
        """The files of VQA v2, or of the data set in another folder."""
        if self.columns is not None:
            return own_folder(self.root, self.stores, self.folder, self.region_folder, self.columns)
        released = self.folder == RELEASED
        other = "They are not part of the LXMERT release: docs/data.md says what makes them."
        return ReleaseFolder(
            self.root,
            self.stores,
            folder=self.folder,
            layout=Layout(
                (*COCO, *VISUAL_GENOME) if self.region_folder == COCO_FOLDER else (),
                (self.region_folder,),
                SPLIT_REGIONS if released else {},
            ),
            convert=lambda source, store: convert_vqa(source, store, _annotations(source)),
            data_set="VQA v2" if released else self.folder,
            toy="toy_vqa",
            origin=ORIGIN if released else other,
            sources=lambda source: [source, *_annotations(source).values()],
        )

    def baselines(self) -> dict[str, float]:
        """Of data of one's own, whose words alone may tell the answer; once trained and validated."""
        if self.columns is None or not {"train", "valid"} <= self.datasets.keys() or not self._labelled("valid"):
            return {}
        return {"best guess from the text alone": self._best_guess}

    @cached_property
    def _best_guess(self) -> float:  # asked for by the page and by the summary
        train, valid = (
            [(self._examples[split], rows) for split, rows in self._used(role)] for role in ("train", "valid")
        )
        return guess_accuracy(train, valid)

    def answer_splits(self, stage: str | None) -> list[str]:
        """The splits whose labels are the answers; none where `classes` are."""
        return [] if self.classes else super().answer_splits(stage)

    def read_answers(self, path: Path) -> list[str]:
        """The answers of the list file, read as those of the labels are."""
        answers = super().read_answers(path)
        if not (self.columns or {}).get(NORMALIZED):
            return answers
        return list(dict.fromkeys(map(normalized, answers)))

    def _labelled(self, role: str) -> bool:
        return all(self._examples[split].labelled for split in self.splits[role])

    def prepare_data(self, stage: str | None = None) -> None:
        """As ExampleDataModule; FileNotFoundError also when the folder of another data set has no splits."""
        if self.folder != RELEASED and not self.release.splits():
            texts, stores = self.release.root / self.folder, self.release.stores / self.folder
            raise FileNotFoundError(
                f"there are no texts of {self.folder}, neither {stores}/*.h5 nor {texts}/*"
                f"{{{','.join(self.release.endings)}}}. `python -m datamodules.prepare {{okvqa,vqacp,vizwiz}}` "
                "makes stores of the makers' files; experiment=own reads CSV and JSON of one's own "
                "(docs/own_data.md)."
            )
        super().prepare_data(stage)


def _annotations(source: Path) -> dict[str, Path]:
    """The official annotations beside a text file, by the image folder that they cover."""
    files = {name: source.parent / f"v2_mscoco_{name}_annotations.json" for name in ANNOTATED_FOLDERS}
    return {name: file for name, file in files.items() if file.exists()}
