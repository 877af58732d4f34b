"""From the data modules' batches to the inputs of a call."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from lxmert.batch import Batch


def call_inputs(batch: Batch, length: int | None = None) -> dict[str, np.ndarray]:
    """The inputs of a call for the rows of a batch: a dictionary for `call`, `fit` and `predict`.

    Regions are the batch's own memory where its images are those of its rows, one each; images that rows share
    are repeated, as the reference's call has one for each row.

    Args:
        batch: on the CPU.
        length: tokens of each sentence, padded to that: one shape for all batches, which `fit` and XLA want.

    Raises:
        ValueError: a sentence is longer than `length`.
    """
    tokens = {"input_ids": batch.token_ids, "attention_mask": batch.token_mask}
    if batch.token_types is not None:
        tokens["token_type_ids"] = batch.token_types
    regions = {
        "visual_feats": batch.region_features,
        "visual_pos": batch.region_boxes,
        "visual_attention_mask": batch.region_mask,
    }
    found = {name: _of_rows(tensor, batch.row_sentence) for name, tensor in tokens.items()}
    if length is not None:
        spare = length - batch.token_ids.shape[1]
        if spare < 0:
            raise ValueError(f"sentences of {batch.token_ids.shape[1]} tokens; expected at most length={length}")
        found = {name: np.pad(array, ((0, 0), (0, spare))) for name, array in found.items()}
    return found | {name: _of_rows(tensor, batch.row_image) for name, tensor in regions.items()}


def _of_rows(tensor: Tensor, places: Tensor) -> np.ndarray:
    """(R, ...) of (S, ...) or (I, ...); the same memory where the rows are those that there are."""
    array, wanted = tensor.numpy(), places.numpy()
    own = len(wanted) == len(array) and (wanted == np.arange(len(array))).all()
    return array if own else array[wanted]
