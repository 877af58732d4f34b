"""Region features in foreign formats -> region store."""

from datamodules.formats.gqa_objects import convert_gqa_objects
from datamodules.formats.npy import convert_npy
from datamodules.formats.npz import convert_npz
from datamodules.formats.region_h5 import convert_h5
from datamodules.formats.region_lmdb import convert_lmdb
from datamodules.formats.release_tsv import convert_tsv
from datamodules.formats.vinvl import convert_vinvl

__all__ = [
    "convert_gqa_objects",
    "convert_h5",
    "convert_lmdb",
    "convert_npy",
    "convert_npz",
    "convert_tsv",
    "convert_vinvl",
]
