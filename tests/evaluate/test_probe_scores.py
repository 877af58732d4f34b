"""Scores on probing sets against loops over examples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lxmert.evaluate import grouped, means_of, score_foils, score_likelihoods, score_quadruples


@settings(max_examples=1000)
@given(st.lists(st.lists(st.integers(-2, 2), min_size=4, max_size=4), min_size=1, max_size=10))
def test_foils_are_counted_as_the_makers_script_counts_them(rows):
    logits = np.array(rows, np.float32).reshape(-1, 2, 2)
    caption_fits = foil_found = above = 0
    for caption, foil in logits:
        caption_fits += caption[0] < caption[1]
        foil_found += foil[0] >= foil[1]
        above += caption[1] > foil[1]
    found = score_foils(logits)
    assert found["p_c"] == pytest.approx(100 * caption_fits / len(rows), abs=1e-9)
    assert found["p_f"] == pytest.approx(100 * foil_found / len(rows), abs=1e-9)
    assert found["accuracy"] == pytest.approx(50 * (caption_fits + foil_found) / len(rows), abs=1e-9)
    assert found["acc_r"] == pytest.approx(100 * above / len(rows), abs=1e-9)
    fits = [float(logit[1] - logit[0]) for pair in logits for logit in pair]
    more = sum(a > b for a, b in zip(fits[::2], fits[1::2], strict=True))
    assert found["pairwise_accuracy"] == pytest.approx(100 * more / len(rows), abs=1e-9)
    won = sum((a > b) + (a == b) / 2 for a in fits[::2] for b in fits[1::2])
    assert found["auroc"] == pytest.approx(100 * won / len(rows) ** 2, abs=1e-9)


@settings(max_examples=1000)
@given(st.lists(st.lists(st.integers(-2, 2), min_size=4, max_size=4), min_size=1, max_size=10))
def test_quadruples_are_right_where_every_comparison_is(rows):
    text = image = group = 0
    for c0_i0, c0_i1, c1_i0, c1_i1 in rows:
        by_text = c0_i0 > c1_i0 and c1_i1 > c0_i1
        by_image = c0_i0 > c0_i1 and c1_i1 > c1_i0
        text, image, group = text + by_text, image + by_image, group + (by_text and by_image)
    expected = {"text": text, "image": image, "group": group}
    found = score_quadruples(np.array(rows, float).reshape(-1, 2, 2))
    assert found == pytest.approx({name: 100 * count / len(rows) for name, count in expected.items()}, abs=1e-9)


def test_equal_likelihoods_are_not_right():
    assert score_likelihoods(np.array([[-1.0, -2.0], [-2.0, -1.0], [-3.0, -3.0], [-1.0, -9.0]])) == {
        "pairwise_accuracy": 50.0
    }


def test_the_mean_is_over_pieces_whatever_their_sizes_and_of_what_all_have():
    assert means_of({"a": {"x": 1.0, "y": 2.0}, "b": {"x": 3.0}}) == {"x": 2.0}
    assert {name: places.tolist() for name, places in grouped(["b", "a", "b"]).items()} == {"b": [0, 2], "a": [1]}
