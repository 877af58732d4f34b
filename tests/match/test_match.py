"""Whether sentences fit pictures: the reference library's numbers, one pair and one masked word at a time."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from folders import write_regions
from safetensors.torch import save_file
from serving import save, write_images

from datamodules.formats.release_tsv import convert_tsv
from lxmert import LxmertForQuestionAnswering, LxmertTokenizer
from lxmert.ask import Asker
from lxmert.files import InputError
from lxmert.match import Matcher
from lxmert.match import matcher as matcher_file
from lxmert.match.__main__ import main
from lxmert.weights import read_weights

WORDS = ["what", "is", "red", "cat", "dog", "a", "on", "there", "the"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
SENTENCES = ["a red cat", "there is a dog on the cat", "dog", "the red dog is red"]


@pytest.fixture(scope="module")
def pair(make_pair, tmp_path_factory):
    """The reference's model, and ours as a matcher."""
    theirs, ours = make_pair("LxmertForPreTraining")
    folder = tmp_path_factory.mktemp("pretrained")
    ours.save_pretrained(folder)
    filling = [f"x{i}" for i in range(ours.config.vocab_size - len(PIECES))]
    LxmertTokenizer({piece: i for i, piece in enumerate([*PIECES, *filling])}).save_pretrained(folder)
    return theirs, Matcher.open(folder)


def picture(matcher, number=5, labels=True):
    generator = torch.Generator().manual_seed(number)
    boxes = torch.rand(number, 2, 2, generator=generator).sort(1).values.flatten(1)
    seen = matcher.asker.see(
        (torch.rand(number, matcher.asker.config.visual_feat_dim, generator=generator), boxes)
    )
    if labels:
        seen.object_ids = torch.arange(number) % 4 - 1  # the first is not known
    return seen


def called(theirs, ids, seen, features=None):
    """The reference's outputs for one sentence and one picture."""
    features = seen.features if features is None else features
    with torch.no_grad():
        return theirs(input_ids=ids[None], visual_feats=features[None], visual_pos=seen.boxes[None])


def ids_of(matcher, sentence):
    return torch.tensor(matcher.asker.tokenizer(sentence)["input_ids"])


def test_matches_are_the_reference_s_logits_of_each_pair_alone(pair, monkeypatch):
    theirs, matcher = pair
    monkeypatch.setattr(matcher_file, "ROWS", 3)  # four rows are two rounds
    seen = picture(matcher)
    for sentence, match in zip(SENTENCES, matcher.match(seen, SENTENCES), strict=True):
        expected = called(theirs, ids_of(matcher, sentence), seen).cross_relationship_score[0]
        np.testing.assert_allclose(match.logits, expected, atol=1e-5)
        assert match.probability == pytest.approx(float(expected.softmax(0)[1]), abs=1e-6)
        assert match.sentence == sentence
    alone = matcher.match(seen, SENTENCES[1])
    np.testing.assert_allclose(alone.logits, matcher.match(seen, SENTENCES)[1].logits, atol=1e-5)


def test_sentences_stay_whole_unless_they_are_to_be_cut(pair):
    theirs, matcher = pair
    matcher.asker.run.max_length = 5
    long, seen = "a red cat is on the red dog", picture(matcher)
    expected = called(theirs, ids_of(matcher, long), seen).cross_relationship_score[0]
    np.testing.assert_allclose(matcher.match(seen, long).logits, expected, atol=1e-5)
    cut = matcher.match(seen, long, max_length=6)
    expected = called(theirs, ids_of(matcher, "a red cat is"), seen).cross_relationship_score[0]
    np.testing.assert_allclose(cut.logits, expected, atol=1e-5)
    assert cut.warnings == ["its last 4 of 8 word pieces are not read"]


@pytest.mark.parametrize("blind", [False, True])
def test_likelihoods_are_the_reference_s_of_each_word_masked_alone(pair, blind, monkeypatch):
    theirs, matcher = pair
    monkeypatch.setattr(matcher_file, "ROWS", 3)  # seven words are three rounds
    seen, sentence = picture(matcher), SENTENCES[1]
    found = matcher.likelihood(seen, sentence, blind=blind)
    ids, logs = ids_of(matcher, sentence), []
    for place in range(1, len(ids) - 1):
        masked = ids.clone()
        masked[place] = PIECES.index("[MASK]")
        features = torch.zeros_like(seen.features) if blind else None
        scores = called(theirs, masked, seen, features).prediction_logits[0, place]
        logs.append(float(scores.log_softmax(0)[ids[place]]))
    np.testing.assert_allclose(found.logs, logs, atol=1e-5)
    assert found.words == sentence.split() and found.total == pytest.approx(sum(logs), abs=1e-4)


def test_an_ablation_is_the_mean_over_masked_parts_with_and_without_the_other_modality(pair, monkeypatch):
    theirs, matcher = pair
    monkeypatch.setattr(matcher_file, "ROWS", 4)  # five regions are three rounds
    seen, sentence = picture(matcher, 7), SENTENCES[0]
    found = matcher.ablate(seen, sentence)
    ids = ids_of(matcher, sentence)
    masked = ids.clone()
    masked[1:-1] = PIECES.index("[MASK]")
    expected = []
    for text in (ids, masked):
        losses = []
        for place in (seen.object_ids >= 0).nonzero().flatten().tolist():
            features = seen.features.clone()
            features[place] = 0
            with torch.no_grad():
                vision = theirs.lxmert(
                    input_ids=text[None], visual_feats=features[None], visual_pos=seen.boxes[None]
                ).vision_output
                scores = theirs.obj_predict_head(vision)["obj"][0, place]
            losses.append(float(F.cross_entropy(scores, seen.object_ids[place])))
        expected.append(np.mean(losses))
    assert (found.regions, found.regions_alone) == pytest.approx(expected, abs=1e-5)
    for value, blind in ((found.words, False), (found.words_alone, True)):
        assert value == pytest.approx(-matcher.likelihood(seen, sentence, blind=blind).logs.mean(), abs=1e-6)


def test_a_store_s_and_a_pair_s_labels_are_known_or_missed(pair, tmp_path):
    _, matcher = pair
    with pytest.raises(InputError, match="no object labels"):
        matcher.ablate(picture(matcher, labels=False), "a cat")
    write_regions(tmp_path / "regions.tsv", {"7": 1})
    convert_tsv(tmp_path / "regions.tsv", tmp_path / "regions.h5", progress=False)
    save(tmp_path / "model", {**matcher.asker.config.to_dict()}, visual_feat_dim=5)
    opened = Matcher.open(tmp_path / "model", store=tmp_path / "regions.h5")
    seen = opened.asker.see("7")
    assert seen.object_ids.tolist() == opened.asker.eyes.stores[0].labels([0])[0][0].tolist()


def small():
    return {
        "num_qa_labels": 7,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    } | dict.fromkeys(("l_layers", "r_layers", "x_layers"), 1)


def save_without(folder, head):
    """A folder of a pre-trained model that has not this head."""
    save(folder, small())
    kept = {name: each for name, each in read_weights(folder).items() if not name.startswith(head)}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("head", "call", "says"),
    [
        ("cls.predictions", "likelihood", "no masked-language head"),
        ("obj_predict_head", "ablate", "no head that names the objects"),
        ("obj_predict_head.decoder_dict.obj", "ablate", "no head that names the objects"),
    ],
)
def test_heads_that_are_not_there_are_named(tmp_path, head, call, says):
    save_without(tmp_path, head)
    matcher = Matcher.open(tmp_path)
    with pytest.raises(InputError, match=says):
        getattr(matcher, call)(picture(matcher), "what cat")


def test_models_without_a_matching_head_are_refused(tmp_path):
    save(tmp_path / "answering", small(), LxmertForQuestionAnswering)
    save_without(tmp_path / "pretrained", "cls.seq_relationship")
    for folder in tmp_path.iterdir():
        with pytest.raises(InputError, match=r"has no matching head. Use a checkpoint of pre-training"):
            Matcher(Asker.open(folder))


def test_the_command_prints_and_writes_what_python_gives(tmp_path, capsys):
    save(tmp_path / "model", small())
    store, _ = write_images(tmp_path)
    out = tmp_path / "match.json"
    arguments = [str(tmp_path / "model"), "IMG_7", "what cat", "[is] there a dog", "--store", str(store)]
    assert main([*arguments, "--likelihood", "--ablate", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    matcher = Matcher.open(tmp_path / "model", store=store)
    for found, match in zip(json.loads(out.read_text()), matcher.match("IMG_7", arguments[2:4]), strict=True):
        assert found["sentence"] == match.sentence and match.sentence in printed
        assert found["probability"] == pytest.approx(match.probability, abs=1e-6)
        assert f"{match.probability:.3f}" in printed
        assert found["logits"] == pytest.approx({"no": match.logits[0], "fits": match.logits[1]}, abs=1e-6)
        seeing = matcher.likelihood("IMG_7", match.sentence)
        assert found["log_likelihood"]["picture"] == pytest.approx(seeing.total, abs=1e-5)
        assert [word["word"] for word in found["words"]] == seeing.words
        assert found["ablation"] == pytest.approx(vars(matcher.ablate("IMG_7", match.sentence)), abs=1e-5)


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, capsys):
    save(tmp_path / "model", small())
    assert main([str(tmp_path / "model"), "nowhere", "what cat"]) == 1
    assert capsys.readouterr().err.startswith("error: nowhere: no such picture file")
    assert main([str(tmp_path / "model"), "nowhere", "what cat", "--json", "x.txt"]) == 1
    assert "ends in .json" in capsys.readouterr().err
