"""Ranks against counting by hand, ties among them, and the numbers that are made of ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lxmert.files import InputError
from lxmert.retrieve import TOLERANCE, Ranks, ranks, ranks_of, summarize


def naive(scores, image_of):
    """Ranks and their numbers by the definition, one pair after the other."""
    captions, images = scores.shape
    of_images = [
        1 + sum(scores[c][i] >= scores[c][image_of[c]] for i in range(images) if i != image_of[c])
        for c in range(captions)
    ]
    of_texts = []
    for i in range(images):
        best = max(scores[c][i] for c in range(captions) if image_of[c] == i)
        of_texts.append(1 + sum(scores[c][i] >= best for c in range(captions) if image_of[c] != i))
    return of_images, of_texts


def numbers(found):
    ordered = sorted(found)
    half = len(ordered) // 2
    median = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    recall = {f"recall_at_{k}": 100 * sum(rank <= k for rank in found) / len(found) for k in (1, 5, 10)}
    return {**recall, "median_rank": median, "mean_rank": sum(found) / len(found)}


@st.composite
def cases(draw):
    """A matrix with few different scores, and the image of each caption; no image is without."""
    images = draw(st.integers(1, 8))
    more = draw(st.lists(st.integers(0, images - 1), max_size=12))
    image_of = draw(st.permutations([*range(images), *more]))
    seed, values = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 9))
    scores = np.random.default_rng(seed).integers(0, values, (len(image_of), images))
    return scores.astype(np.float32), np.array(image_of)


@settings(max_examples=1000)
@given(case=cases(), at_once=st.integers(1, 60))
def test_ranks_and_recalls_are_those_counted_pair_by_pair(case, at_once):
    scores, image_of = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "AT_ONCE", at_once)
        found = ranks_of(scores, image_of, tolerance=0)
    of_images, of_texts = naive(scores, image_of)
    assert (found.images.tolist(), found.texts.tolist()) == (of_images, of_texts)
    told = summarize(found)
    assert told["image_retrieval"] == pytest.approx(numbers(of_images), abs=1e-9)
    assert told["text_retrieval"] == pytest.approx(numbers(of_texts), abs=1e-9)


def test_who_scores_all_pairs_alike_is_last():
    found = ranks_of(np.zeros((6, 3), np.float32), np.array([0, 0, 1, 1, 2, 2]))
    assert found.images.tolist() == [3] * 6
    assert found.texts.tolist() == [5] * 3  # behind the four captions of other images


def test_rounding_does_not_decide_between_equal_scores():
    image_of = np.array([0, 1])
    scores = np.array([[1, 1 - 0.9 * TOLERANCE], [0, 5]], np.float64)
    assert ranks_of(scores, image_of).images.tolist() == [2, 1]
    scores[0, 1] = 1 - 1.1 * TOLERANCE
    assert ranks_of(scores, image_of).images.tolist() == [1, 1]


def test_pairs_that_are_no_candidates_stand_behind_and_a_missed_image_is_last():
    none = -np.inf
    scores = np.array([[2, 1, none], [none, 0, 1], [1, 2, none]], np.float32)
    found = ranks_of(scores, np.array([0, 1, 2]))
    assert found.images.tolist() == [1, 2, 3]  # the third caption's image was not among its candidates
    assert found.texts.tolist() == [1, 3, 3]


def test_ranks_of_an_unfinished_matrix_are_refused():
    scores = np.zeros((2, 2), np.float32)
    scores[1, 0] = np.nan
    with pytest.raises(InputError, match="1 of 4 pairs have no score yet"):
        ranks_of(scores, np.array([0, 1]))


def test_the_median_of_an_even_number_of_ranks_lies_between_two():
    told = summarize(Ranks(np.array([1, 2, 5, 40]), np.array([1])))
    assert told["image_retrieval"]["median_rank"] == 3.5
    assert told["text_retrieval"] == {
        "recall_at_1": 100, "recall_at_5": 100, "recall_at_10": 100, "median_rank": 1, "mean_rank": 1,
    }  # fmt: skip
