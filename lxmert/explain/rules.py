"""From attention maps and their gradients to what each word and region is to an answer.

The rules of Chefer, Gur and Wolf (ICCV 2021), and three that they compare with. Nothing here knows the model.

Shapes: R rows, L tokens, N regions, H heads. In a matrix (R, L, N) each word's line tells of the regions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Maps:
    """A tensor for each attention that [CLS] of the last layer can be reached through, zero on padding.

    Of the last cross-modality layer that is the words' side alone. Attentions and gradients are (R, H, ., .), what
    rules make of them (R, ., .).

    Args:
        word_mask: (R, L) bool, True on real tokens.
        region_mask: (R, N) bool.
        language: of l_layers, (L, L).
        vision: of r_layers, (N, N).
        language_to_vision: of x_layers, (L, N): words look at regions.
        vision_to_language: of x_layers - 1, (N, L).
        cross_language: of x_layers, (L, L).
        cross_vision: of x_layers - 1, (N, N).
    """

    word_mask: Tensor
    region_mask: Tensor
    language: Sequence[Tensor]
    vision: Sequence[Tensor]
    language_to_vision: Sequence[Tensor]
    vision_to_language: Sequence[Tensor]
    cross_language: Sequence[Tensor]
    cross_vision: Sequence[Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        for name in KINDS:
            yield from getattr(self, name)

    def like(self, tensors: Iterable[Tensor]) -> Maps:
        """Other tensors, in the order of these."""
        rest = iter(tensors)
        layers: dict[str, Any] = {name: [next(rest) for _ in getattr(self, name)] for name in KINDS}
        return replace(self, **layers)

    def visible(self) -> Maps:
        """These in float32, with zeros where there is padding."""
        words, regions = self.word_mask, self.region_mask
        masks = {
            "language": (words, words), "vision": (regions, regions), "language_to_vision": (words, regions),
            "vision_to_language": (regions, words), "cross_language": (words, words),
            "cross_vision": (regions, regions),
        }  # fmt: skip

        def clear(each: Tensor, lines: Tensor, columns: Tensor) -> Tensor:
            return each.float().masked_fill(~(lines[:, None, :, None] & columns[:, None, None, :]), 0)

        layers: dict[str, Any] = {
            name: [clear(each, *sides) for each in getattr(self, name)] for name, sides in masks.items()
        }
        return replace(self, **layers)


KINDS = (
    "language", "vision", "language_to_vision", "vision_to_language", "cross_language", "cross_vision",
)  # fmt: skip


class Relevance(NamedTuple):
    """What a rule says; line 0 is what counts for an answer, which is read off [CLS].

    words: (R, L, L) of each word to each word, 0 of the first to itself.
    regions: (R, L, N) of each region to each word.
    """

    words: Tensor
    regions: Tensor


Rule = Callable[[Maps, Maps | None], Relevance]


def relevancy(attentions: Maps, gradients: Maps | None) -> Relevance:
    """Attention, weighted by its gradient, carried through all layers (equations 5 to 11).

    Lines in which nothing has been mixed yet are left zero where the published code divides zero by zero.

    Args:
        attentions: (R, H, ., .), after the softmax.
        gradients: of the answer's score (not its probability), of the same shapes.
    """
    assert gradients is not None
    pairs = zip(attentions, gradients, strict=True)
    mixes = attentions.like((each * gradient).clamp(min=0).mean(1) for each, gradient in pairs)
    words, regions = identity(mixes.word_mask), identity(mixes.region_mask)
    word_region = torch.zeros_like(mixes.language_to_vision[0])
    region_word = word_region.mT
    for mix in mixes.language:
        words, word_region = words + mix @ words, word_region + mix @ word_region
    for mix in mixes.vision:
        regions, region_word = regions + mix @ regions, region_word + mix @ region_word
    for number, to_region in enumerate(mixes.language_to_vision):
        is_last = number + 1 == len(mixes.language_to_vision)
        own_words, own_regions = normalized(words), normalized(regions)
        more_word_region = own_words.mT @ to_region @ own_regions
        more_words = to_region @ region_word
        if not is_last:
            to_word, within = mixes.vision_to_language[number], mixes.cross_vision[number]
            regions = regions + to_word @ word_region
            region_word = region_word + own_regions.mT @ to_word @ own_words
            regions, region_word = regions + within @ regions, region_word + within @ region_word
        words, word_region = words + more_words, word_region + more_word_region
        mix = mixes.cross_language[number]
        words, word_region = words + mix @ words, word_region + mix @ word_region
    return Relevance(without_first(words), word_region)


def gradcam(attentions: Maps, gradients: Maps | None) -> Relevance:
    """Attention of the last layer, each head weighted by the mean of its gradient, where the sum is positive."""
    assert gradients is not None

    def weigh(attention: Tensor, gradient: Tensor, lines: Tensor, columns: Tensor) -> Tensor:
        places = (lines.sum(1) * columns.sum(1))[:, None, None, None]
        weight = gradient.sum((2, 3), keepdim=True) / places
        return (attention * weight).mean(1).clamp(min=0)

    words, regions = attentions.word_mask, attentions.region_mask
    return Relevance(
        without_first(weigh(attentions.cross_language[-1], gradients.cross_language[-1], words, words)),
        weigh(attentions.language_to_vision[-1], gradients.language_to_vision[-1], words, regions),
    )


def rollout(attentions: Maps, gradients: Maps | None = None) -> Relevance:
    """Attention multiplied through the layers of each side, each with its residual; across, the last layer alone.

    Abnar and Zuidema (ACL 2020), as Chefer et al. use it on two modalities. Reads no gradients.
    """
    mixes = attentions.like(each.mean(1) for each in attentions)
    *before, last = mixes.cross_language
    words = multiplied([*mixes.language, *before], mixes.word_mask)
    regions = multiplied([*mixes.vision, *mixes.cross_vision], mixes.region_mask)
    return Relevance(
        without_first(multiplied([*mixes.language, *before, last], mixes.word_mask)),
        words.mT @ mixes.language_to_vision[-1] @ regions,
    )


def attention(attentions: Maps, gradients: Maps | None = None) -> Relevance:
    """Attention of the last layer, the mean over heads. Reads no gradients."""
    words, regions = attentions.cross_language[-1], attentions.language_to_vision[-1]
    return Relevance(without_first(words.mean(1)), regions.mean(1))


def identity(mask: Tensor) -> Tensor:
    """(R, n) bool -> (R, n, n) float32."""
    return torch.eye(mask.shape[1], device=mask.device).repeat(len(mask), 1, 1)


def normalized(matrix: Tensor) -> Tensor:
    """What (R, n, n) adds to the identity with lines that sum to 1, and the identity."""
    eye = torch.eye(matrix.shape[-1], device=matrix.device)
    added = matrix - eye
    total = added.sum(-1, keepdim=True)
    return torch.where(total == 0, 0, added / total) + eye


def multiplied(mixes: Sequence[Tensor], mask: Tensor) -> Tensor:
    """The product of all layers' matrices, the last one leftmost, each with its residual and lines of sum 1."""
    product = eye = identity(mask)
    for mix in mixes:
        whole = mix + eye
        product = whole / whole.sum(-1, keepdim=True) @ product
    return product


def without_first(words: Tensor) -> Tensor:
    """(R, L, L) with 0 of the first word to itself, which would outshine all others."""
    words = words.clone()
    words[:, 0, 0] = 0
    return words


RULES: dict[str, Rule] = {
    "relevancy": relevancy,
    "gradcam": gradcam,
    "rollout": rollout,
    "attention": attention,
}
WITH_GRADIENTS = frozenset({"relevancy", "gradcam"})
