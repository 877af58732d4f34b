"""The toys: generated files that then go through the same code as the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar

from datamodules.base import Tokenizer
from datamodules.gqa import GqaDataModule
from datamodules.grounding import GroundingDataModule
from datamodules.nlvr2 import Nlvr2DataModule
from datamodules.pretrain import PretrainDataModule
from datamodules.retrieval import RetrievalDataModule
from datamodules.toy import files, gqa, nlvr2, refcoco, retrieval, snli_ve
from datamodules.toy.detector import detector_name
from datamodules.toy.folder import read_manifest
from datamodules.vqa import VqaDataModule


class OwnVocabulary(Tokenizer):
    """The argument `tokenizer` of a toy: None, its default, is the toy's own vocabulary."""

    def __get__(self, module: Any, owner: type) -> Any:
        return None if module is None else super().__get__(module, owner)

    def __set__(self, module: Any, vocabulary: str | Path | None) -> None:
        super().__set__(module, vocabulary or Path(module.root) / "vocab.txt")


@dataclass(eq=False, repr=False)
class Generated:
    """Generates the toy's files when they are missing; for the rest a data module like any other.

    Args, beside those of the data module:
        root: the toy's own folder.
        tokenizer: as for the data module; None for the toys' own vocabulary.
        world: the fields of `parameters` that differ from their defaults; `feature_dim` has its own argument.
        feature_dim: size of a region's feature vector, here also when generating.

    Raises:
        TypeError: an unknown key in `world`.
    """

    root: str | Path
    tokenizer: OwnVocabulary = OwnVocabulary()
    _: KW_ONLY
    world: Mapping[str, int] | None = None
    feature_dim: int = 128

    parameters: ClassVar[Callable[..., Any]]
    generate: ClassVar[Callable[..., Path]]

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        self.made_of = self.parameters(feature_dim=self.feature_dim, **(self.world or {}))
        self.release.detector = detector_name(self.made_of.feature_dim, self.made_of.seed)  # type: ignore[attr-defined]

    def prepare_data(self, stage: str | None = None) -> None:
        """Generate the toy unless it is there, then convert it as the data module does."""
        self.generate(self.root, self.made_of)
        super().prepare_data(stage)  # type: ignore[misc]

    def baselines(self) -> dict[str, float]:
        """Accuracy on the validation split of the best guess that never looks at the picture."""
        return {"best guess from the text alone": float(read_manifest(Path(self.root))["question_only_accuracy"])}


@dataclass(eq=False, repr=False)
class ToyVqaDataModule(Generated, VqaDataModule):
    """VQA on the toy world."""

    title = "toy VQA (generated scenes and questions, not VQA v2)"
    parameters = files.ToyParameters
    generate = staticmethod(files.generate)


@dataclass(eq=False, repr=False)
class ToyPretrainDataModule(Generated, PretrainDataModule):
    """Pre-training on the world of toy VQA: captions, phrases and questions about the same scenes."""

    title = "toy pre-training (generated scenes and sentences)"
    parameters = files.ToyParameters
    generate = staticmethod(files.generate)

    def baselines(self) -> dict[str, float]:
        """None: a guess has no accuracy in pre-training."""
        return {}


@dataclass(eq=False, repr=False)
class ToyGqaDataModule(Generated, GqaDataModule):
    """GQA on generated scenes, with all that the makers' metrics need."""

    title = "toy GQA (generated scenes and questions, not GQA)"
    parameters = gqa.ToyGqaParameters
    generate = staticmethod(gqa.generate)


@dataclass(eq=False, repr=False)
class ToyNlvr2DataModule(Generated, Nlvr2DataModule):
    """NLVR2 on generated pairs of scenes."""

    title = "toy NLVR2 (generated scenes and statements, not NLVR2)"
    parameters = nlvr2.ToyNlvr2Parameters
    generate = staticmethod(nlvr2.generate)


@dataclass(eq=False, repr=False)
class ToySnliVeDataModule(Generated, VqaDataModule):
    """SNLI-VE on generated scenes."""

    title = "toy SNLI-VE (generated scenes and hypotheses, not SNLI-VE)"
    parameters = snli_ve.ToySnliVeParameters
    generate = staticmethod(snli_ve.generate)

    def baselines(self) -> dict[str, float]:
        """As of data of one's own: `classes` may be two of the three."""
        return VqaDataModule.baselines(self)


@dataclass(eq=False, repr=False)
class ToyRefcocoDataModule(Generated, GroundingDataModule):
    """RefCOCO on generated scenes; with `folder` visual7w, Visual7W pointing."""

    title = "toy RefCOCO (generated scenes and expressions, not RefCOCO)"
    parameters = refcoco.ToyRefcocoParameters
    generate = staticmethod(refcoco.generate)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folder == "visual7w":
            self.title = "toy pointing (generated scenes and expressions, not Visual7W)"

    def baselines(self) -> dict[str, float]:
        """Accuracy on the validation split of guesses that do not look at the picture."""
        return read_manifest(Path(self.root))["guesses"][self.folder]


@dataclass(eq=False, repr=False)
class ToyRetrievalDataModule(Generated, RetrievalDataModule):
    """Retrieval of generated scenes by their captions."""

    title = "toy retrieval (generated scenes and captions, not Flickr30k)"
    parameters = retrieval.ToyRetrievalParameters
    generate = staticmethod(retrieval.generate)

    def baselines(self) -> dict[str, float]:
        """None: a guess is as good as there are images."""
        return {}
