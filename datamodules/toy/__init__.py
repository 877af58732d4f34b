"""The toy world: made-up pictures with questions, captions and statements about them, in the release's files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.toy.detector import detector_for
    from datamodules.toy.modules import (
        ToyGqaDataModule,
        ToyNlvr2DataModule,
        ToyPretrainDataModule,
        ToyRefcocoDataModule,
        ToyRetrievalDataModule,
        ToySnliVeDataModule,
        ToyVqaDataModule,
    )

__all__ = [
    "ToyGqaDataModule",
    "ToyNlvr2DataModule",
    "ToyPretrainDataModule",
    "ToyRefcocoDataModule",
    "ToyRetrievalDataModule",
    "ToySnliVeDataModule",
    "ToyVqaDataModule",
    "detector_for",
]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: who looks for the detector needs no data modules.
    if name in __all__:
        module = "detector" if name == "detector_for" else "modules"
        return getattr(importlib.import_module(f"datamodules.toy.{module}"), name)
    raise AttributeError(f"module 'datamodules.toy' has no attribute {name!r}")
