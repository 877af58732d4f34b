"""From stores to batches: the order of the examples, and reading them."""

from datamodules.batches.dataset import ExampleDataset, Part, distinct, translation
from datamodules.batches.features import FeatureTable
from datamodules.batches.loaders import ExampleLoader, TrainLoader, loader_options, resume_position
from datamodules.batches.neighbours import nearest_images
from datamodules.batches.places import Places
from datamodules.batches.sampling import BatchSampler, Rows

__all__ = [
    "BatchSampler",
    "ExampleDataset",
    "ExampleLoader",
    "FeatureTable",
    "Part",
    "Places",
    "Rows",
    "TrainLoader",
    "distinct",
    "loader_options",
    "nearest_images",
    "resume_position",
    "translation",
]
