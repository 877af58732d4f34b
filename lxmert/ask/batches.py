"""Pictures and sentences as a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lxmert.ask.seeing import Seen
from lxmert.batch import Batch


def batch_of(pictures: Sequence[Seen], tokens: Any, row_sentence: Tensor, row_image: Tensor) -> Batch:
    """The rows that pair these pictures and sentences, on the CPU.

    Args:
        pictures: I of them, of any number of regions.
        tokens: S sentences as the tokenizer gives them, padded at the right: input_ids, attention_mask (S, L).
        row_sentence: (R,) int64, of each row the place of its sentence ...
        row_image: (R,) int64: ... and of its picture.
    """
    most = max(len(each) for each in pictures)
    features = torch.zeros(len(pictures), most, pictures[0].features.shape[1])
    boxes, mask = torch.zeros(len(pictures), most, 4), torch.zeros(len(pictures), most, dtype=torch.bool)
    for place, each in enumerate(pictures):
        features[place, : len(each)], boxes[place, : len(each)] = each.features, each.boxes
        mask[place, : len(each)] = True
    return Batch(
        token_ids=tokens["input_ids"],
        token_mask=tokens["attention_mask"].bool(),
        region_features=features,
        region_boxes=boxes,
        region_mask=mask,
        row_sentence=row_sentence,
        row_image=row_image,
    )
