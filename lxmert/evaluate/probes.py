"""Scores on probing sets: how well a model tells sentences that fit a picture from foils."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from lxmert.evaluate.classes import area_under_roc


def score_foils(logits: np.ndarray) -> dict[str, float]:
    """What the matching head makes of captions and foils, in percent, as VALSE's makers measure LXMERT.

    Args:
        logits: (n, 2, 2) float: of each example's caption and foil, those of not fitting and of fitting.

    Returns:
        `pairwise_accuracy`: the caption fits more probably than the foil; `acc_r`: its logit of fitting alone is
        above the foil's, which is what their script compares;
        `p_c` and `p_f`: of captions that fit more than not, and of foils that do not;
        `accuracy`: the mean of both; `auroc`: by the probability of fitting, over all captions and foils.
    """
    margins = logits[..., 1].astype(np.float64) - logits[..., 0]
    captions, foils = margins[:, 0], margins[:, 1]
    fits, found = float((captions > 0).mean()), float((foils <= 0).mean())
    return {
        "pairwise_accuracy": 100 * float((captions > foils).mean()),
        "acc_r": 100 * float((logits[:, 0, 1] > logits[:, 1, 1]).mean()),
        "accuracy": 100 * (fits + found) / 2,
        "p_c": 100 * fits,
        "p_f": 100 * found,
        "auroc": 100 * (area_under_roc(margins.ravel(), np.tile([True, False], len(margins))) or 0.0),
    }


def score_likelihoods(scores: np.ndarray) -> dict[str, float]:
    """`pairwise_accuracy`, in percent: how often the caption scores above its foil.

    Args:
        scores: (n, 2) float: of caption and foil.
    """
    return {"pairwise_accuracy": 100 * float((scores[:, 0] > scores[:, 1]).mean())}


def score_quadruples(scores: np.ndarray) -> dict[str, float]:
    """Winoground's scores, in percent; of equal scores none is right.

    Args:
        scores: (n, 2, 2) float: how well sentence s fits image i, at [:, s, i]; sentence k belongs to image k.

    Returns:
        `text`: for both images their own sentence scores higher; `image`: for both sentences their own image
        does; `group`: both.
    """
    own, other = np.diagonal(scores, axis1=1, axis2=2), np.stack([scores[:, 1, 0], scores[:, 0, 1]], 1)
    text, image = (own > other).all(1), (own > other[:, ::-1]).all(1)
    return {
        "text": 100 * float(text.mean()),
        "image": 100 * float(image.mean()),
        "group": 100 * float((text & image).mean()),
    }


def means_of(pieces: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean over pieces of each metric that all of them have, as VALSE's makers average."""
    values: dict[str, list[float]] = defaultdict(list)
    for metrics in pieces.values():
        for name, value in metrics.items():
            values[name].append(value)
    return {name: float(np.mean(found)) for name, found in values.items() if len(found) == len(pieces)}


def grouped(names: Sequence[str]) -> dict[str, np.ndarray]:
    """Each name -> the places that have it, in the order of their first ones."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return {name: np.array(found) for name, found in places.items()}
