"""The toys: generated files that then go through the same code as the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from datamodules.gqa import GqaDataModule
from datamodules.nlvr2 import Nlvr2DataModule
from datamodules.pretrain import PretrainDataModule
from datamodules.toy import files, gqa, nlvr2
from datamodules.toy.folder import read_manifest
from datamodules.vqa import VqaDataModule


class Generated:
    """Generates the toy's files when they are missing; for the rest a data module like any other.

    Args:
        root: the toy's own folder.
        tokenizer: as for the data module; None for the toys' own vocabulary.
        world: the fields of `parameters` that differ from their defaults; `feature_dim` has its own argument.
        feature_dim: size of a region's feature vector, here also when generating.
        arguments: the other arguments of the data module.

    Raises:
        TypeError: an unknown key in `world` or `arguments`.
    """

    root: Path
    parameters: ClassVar[type]
    generate: ClassVar[Callable[..., Path]]

    def __init__(
        self,
        root: str | Path,
        tokenizer: str | Path | None = None,
        *,
        world: Mapping[str, int] | None = None,
        feature_dim: int = 128,
        **arguments: Any,
    ) -> None:
        tokenizer = tokenizer or Path(root) / "vocab.txt"
        super().__init__(root, tokenizer, feature_dim=feature_dim, **arguments)  # type: ignore[call-arg]
        self.world = self.parameters(feature_dim=feature_dim, **(world or {}))

    def prepare_data(self, stage: str | None = None) -> None:
        """Generate the toy unless it is there, then convert it as the data module does."""
        self.generate(self.root, self.world)
        super().prepare_data(stage)  # type: ignore[misc]

    def baselines(self) -> dict[str, float]:
        """Accuracy on the validation split of the best guess that never looks at the picture."""
        return {"best guess from the text alone": float(read_manifest(self.root)["question_only_accuracy"])}


class ToyVqaDataModule(Generated, VqaDataModule):
    """VQA on the toy world."""

    title = "toy VQA (generated scenes and questions, not VQA v2)"
    parameters = files.ToyParameters
    generate = staticmethod(files.generate)


class ToyPretrainDataModule(Generated, PretrainDataModule):
    """Pre-training on the world of toy VQA: captions, phrases and questions about the same scenes."""

    title = "toy pre-training (generated scenes and sentences)"
    parameters = files.ToyParameters
    generate = staticmethod(files.generate)

    def baselines(self) -> dict[str, float]:
        """None: a guess has no accuracy in pre-training."""
        return {}


class ToyGqaDataModule(Generated, GqaDataModule):
    """GQA on generated scenes, with all that the makers' metrics need."""

    title = "toy GQA (generated scenes and questions, not GQA)"
    parameters = gqa.ToyGqaParameters
    generate = staticmethod(gqa.generate)


class ToyNlvr2DataModule(Generated, Nlvr2DataModule):
    """NLVR2 on generated pairs of scenes."""

    title = "toy NLVR2 (generated scenes and statements, not NLVR2)"
    parameters = nlvr2.ToyNlvr2Parameters
    generate = staticmethod(nlvr2.generate)
