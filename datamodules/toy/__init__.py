"""The toy world: made-up pictures with questions, captions and statements about them, in the release's files."""

from datamodules.toy.detector import detector_for
from datamodules.toy.modules import (
    ToyGqaDataModule,
    ToyNlvr2DataModule,
    ToyPretrainDataModule,
    ToyVqaDataModule,
)

__all__ = ["ToyGqaDataModule", "ToyNlvr2DataModule", "ToyPretrainDataModule", "ToyVqaDataModule", "detector_for"]
