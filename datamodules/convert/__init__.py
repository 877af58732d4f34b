"""Region features in foreign formats -> region store."""

from datamodules.formats.gqa_objects import convert_gqa_objects
from datamodules.formats.npz import convert_npz
from datamodules.formats.release_tsv import convert_tsv

__all__ = ["convert_gqa_objects", "convert_npz", "convert_tsv"]
