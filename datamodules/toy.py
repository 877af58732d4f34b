"""The toys: generated files that then go through the same code as the real ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.pretrain import PretrainDataModule
from datamodules.toy_files import ToyParameters, generate, read_manifest
from datamodules.vqa import VqaDataModule


class ToyVqaDataModule(VqaDataModule):
    """VQA on the toy world: generates its files when they are missing, else a VqaDataModule like any other.

    Args:
        root: the toy's own folder.
        tokenizer: as for VqaDataModule; None for the toy's own vocabulary.
        world: fields of ToyParameters that differ from their defaults; `feature_dim` has its own argument.
        feature_dim: size of a region's feature vector, here also when generating.
        vqa: the other arguments of VqaDataModule.

    Raises:
        TypeError: an unknown key in `world` or `vqa`.
    """

    title = "toy VQA (generated scenes and questions, not VQA v2)"

    def __init__(
        self,
        root: str | Path,
        tokenizer: str | Path | None = None,
        *,
        world: Mapping[str, int] | None = None,
        feature_dim: int = 128,
        **vqa: Any,
    ) -> None:
        super().__init__(root, tokenizer or Path(root) / "vocab.txt", feature_dim=feature_dim, **vqa)
        self.world = ToyParameters(feature_dim=feature_dim, **(world or {}))

    def prepare_data(self, stage: str | None = None) -> None:
        """Generate the toy unless it is there, then convert it as VqaDataModule does."""
        generate(self.root, self.world)
        super().prepare_data(stage)

    def baselines(self) -> dict[str, float]:
        """Soft accuracy on minival of the best guess that never looks at the picture; once generated."""
        return {"best guess from the question alone": float(read_manifest(self.root)["question_only_accuracy"])}


class ToyPretrainDataModule(PretrainDataModule):
    """Pre-training on the toy world of toy VQA: captions, phrases and questions about the same scenes.

    Args:
        root: the toy's own folder.
        tokenizer: as for PretrainDataModule; None for the toy's own vocabulary.
        world: fields of ToyParameters that differ from their defaults; `feature_dim` has its own argument.
        feature_dim: size of a region's feature vector, here also when generating.
        pretrain: the other arguments of PretrainDataModule.

    Raises:
        TypeError: an unknown key in `world` or `pretrain`.
    """

    title = "toy pre-training (generated scenes and sentences)"

    def __init__(
        self,
        root: str | Path,
        tokenizer: str | Path | None = None,
        *,
        world: Mapping[str, int] | None = None,
        feature_dim: int = 128,
        **pretrain: Any,
    ) -> None:
        super().__init__(root, tokenizer or Path(root) / "vocab.txt", feature_dim=feature_dim, **pretrain)
        self.world = ToyParameters(feature_dim=feature_dim, **(world or {}))

    def prepare_data(self, stage: str | None = None) -> None:
        """Generate the toy unless it is there, then convert it as PretrainDataModule does."""
        generate(self.root, self.world)
        super().prepare_data(stage)
