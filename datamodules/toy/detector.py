"""The detector of toy pictures: where it is, and what region stores call it."""

from __future__ import annotations

from pathlib import Path

PATH = Path(__file__).with_name("detector.safetensors")


def detector_name(feature_dim: int = 128, seed: int = 1) -> str:
    """What the region stores of a toy give as their detector.

    Args:
        feature_dim: F of the toy.
        seed: of the toy, which decides what a shape or a colour looks like in its features.
    """
    return f"toy world, {feature_dim} features, seed {seed}"


def detector_for(name: str | None) -> Path | None:
    """The file of the detector that a region store or a checkpoint names, where it is shipped.

    Args:
        name: of the store's contract or the model's configuration; what `datamodules.extract` adds in brackets of
            weights and boxes does not count.

    Returns:
        That of toy pictures where `name` is a toy of the default size and seed, else None: other toys look
        different to their models, and detectors of photographs are not ours to ship.
    """
    return PATH if name is not None and name.partition(" [")[0] == detector_name() else None
