"""Probing sets scored: every number as one pair alone gives it."""

import json

import numpy as np
import pytest
from serving import IMAGES, save, write_images

from datamodules.formats.probes import Probe
from lxmert.files import InputError
from lxmert.match import Matcher
from lxmert.probe import probe, probing, summary
from lxmert.probe.__main__ import main

SMALL = {"num_qa_labels": 7, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8} | dict.fromkeys(
    ("l_layers", "r_layers", "x_layers"), 1
)
FOILS = [
    Probe("0", "nouns", ("IMG_7.png",), ("there is a cat", "there is a dog")),
    Probe("1", "colours", ("IMG/8 é.png",), ("what", "red")),
    Probe("2", "nouns", ("IMG_7",), ("is there a dog what", "there is a cat")),
    Probe("3", "nouns", ("IMG_9",), ("there is a dog", "what dog")),
    Probe("4", "colours", ("IMG_9",), ("red", "what")),
]
PAIRS = [
    Probe("a", "all", ("IMG_7", "IMG_9"), ("there is a cat", "there is a dog")),
    Probe("b", "all", ("IMG_9", "IMG_7"), ("red", "what")),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A model, a region store and its pictures."""
    folder = tmp_path_factory.mktemp("probes")
    save(folder / "model", SMALL)
    return folder / "model", *write_images(folder)


@pytest.fixture(scope="module")
def matcher(places):
    return Matcher.open(places[0], store=places[1])


def alone(matcher, each):
    """(2, P, 2): the matching head's logits of each sentence with each picture."""
    found = [
        [matcher.match(image.removesuffix(".png"), text).logits for image in each.images]
        for text in each.sentences
    ]
    return np.array(found)


@pytest.mark.parametrize("probes", [FOILS, PAIRS])
def test_examples_get_the_logits_of_each_pair_alone(matcher, probes, monkeypatch):
    monkeypatch.setattr(probing, "AT_ONCE", 2)  # five examples are three rounds
    results = list(probe(matcher, probes))
    assert [each.probe for each in results] == probes
    for each in results:
        np.testing.assert_allclose(each.logits, alone(matcher, each.probe), atol=1e-5)
        np.testing.assert_allclose(each.scores, each.logits[..., 1] - each.logits[..., 0], atol=1e-6)
        assert not each.equal


@pytest.mark.parametrize("by", ["likelihood", "text"])
def test_sentences_are_compared_by_likelihood_with_and_without_the_picture(matcher, by):
    results = list(probe(matcher, FOILS[:3], by))
    for each in results:
        for score, text in zip(each.scores[:, 0], each.probe.sentences, strict=True):
            image = each.probe.images[0].removesuffix(".png")
            assert score == pytest.approx(matcher.likelihood(image, text, blind=by == "text").total, abs=1e-5)
    assert {*summary(results)["nouns"]} == {"pairwise_accuracy"}


def test_the_summary_is_of_each_piece_and_their_mean(matcher):
    results = list(probe(matcher, FOILS))
    found = summary(results)
    assert list(found) == ["nouns", "colours", "mean"]
    right = {"nouns": [], "colours": []}
    for each in results:
        caption, foil = np.diff(alone(matcher, each.probe)[:, 0])[:, 0]
        right[each.probe.piece].append(100 * (caption > foil))
    means = {piece: np.mean(values) for piece, values in right.items()}
    assert {piece: found[piece]["pairwise_accuracy"] for piece in means} == pytest.approx(means)
    assert found["mean"]["pairwise_accuracy"] == pytest.approx(np.mean(list(means.values())))
    assert {*summary(list(probe(matcher, PAIRS)))["all"]} == {"text", "image", "group"}


@pytest.mark.parametrize(
    ("more", "max_length", "message"),
    [
        (PAIRS, None, "some examples have one picture and some two"),
        ([Probe("z", "nouns", ("IMG_7",), ("дом", "red"))], None, "example 'z' of 'nouns': 'дом': no word of it"),
        ([], 2, "cut to 2 word pieces; expected 3 or more"),
        ([], 0, "cut to 0 word pieces; expected 3 or more"),
    ],
)
def test_what_cannot_be_scored_is_said_before_anything_is(matcher, more, max_length, message):
    with pytest.raises(InputError, match=message):
        next(probe(matcher, [*FOILS, *more], max_length=max_length))


def test_missing_images_are_named_before_anything_is_scored(matcher):
    missing = [
        Probe("x", "nouns", ("nowhere.jpg",), ("red", "what")),
        Probe("y", "nouns", ("gone",), ("red", "what")),
    ]
    with pytest.raises(InputError, match=r"2 of the 6 images have no regions: nowhere.jpg, gone. Name the region"):
        next(probe(matcher, [*FOILS, *missing]))


def test_the_command_writes_scores_and_a_page(places, tmp_path, capsys):
    model, store, pictures = places
    rows = [
        {"image": each.images[0], "caption": each.sentences[0], "foil": each.sentences[1], "piece": each.piece}
        for each in FOILS
    ]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    out, page = tmp_path / "probes.json", tmp_path / "probes.html"
    arguments = [str(model), str(tmp_path / "mine.json"), "--store", str(store), "--pictures", str(pictures)]
    assert main([*arguments, "--json", str(out), "--page", str(page), "--max-length", "3"]) == 0
    written = json.loads(out.read_text())
    assert [(each["id"], each["sentences"]) for each in written["examples"]] == [
        (each.id, list(each.sentences)) for each in FOILS
    ]
    # Of three word pieces, [CLS] and [SEP] among them, one word is left.
    assert written["notes"] == ["1 examples' sentences are the same after the cut: raise --max-length."]
    assert written["notes"][0] in capsys.readouterr().out.replace("\n", " ")
    assert {*written["metrics"]} == {"nouns", "colours", "mean"}
    html = page.read_text()
    assert html.count("class='card") == len(FOILS) and html.count("data:image/png") == 3  # IMG_9 has no picture
    assert all(text in html for each in FOILS for text in each.sentences)
    assert len(IMAGES) == 3
    assert main([*arguments[:2], "--store", str(store), "--page", "x.txt"]) == 1
    assert "ends in .html" in capsys.readouterr().err
    (tmp_path / "taken.json").mkdir()
    assert main([*arguments, "--json", str(tmp_path / "taken.json")]) == 1
    assert "error: " in capsys.readouterr().err
