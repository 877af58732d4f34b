"""Asking about pictures: answers as the reference gives them one by one, bad input named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import write_regions

from datamodules.formats.release_tsv import convert_tsv
from lxmert import (
    Asker,
    LxmertConfig,
    LxmertForPreTraining,
    LxmertForQuestionAnswering,
    LxmertForVisualReasoning,
    LxmertModel,
    LxmertTokenizer,
)
from lxmert.ask import asker as asker_file
from lxmert.ask.__main__ import main
from lxmert.files import InputError

ROOT = Path(__file__).parents[2]
WORDS = ["what", "is", "red", "cat", "dog", "?", "how", "many", "are", "there", "both", "one"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
ANSWERS = ["yes", "no", "a red cat", "2", "dog", "blue", "left"]
QUESTIONS = ["What is red?", "how many", "is there one red cat ?", "are there both", "what", "what is red?", "dog"]
F = 5


def save(folder, architecture, sizes, **changes):
    """A folder of weights with vocabulary and answers."""
    torch.manual_seed(0)
    values = {"vocab_size": len(PIECES), "visual_feat_dim": F, "answers": ANSWERS, "initializer_range": 0.3}
    model = architecture(LxmertConfig(**{**sizes, **values, **changes})).eval()
    model.save_pretrained(folder)
    LxmertTokenizer({piece: i for i, piece in enumerate(PIECES)}).save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def answering(sizes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("answering")
    save(folder, LxmertForQuestionAnswering, sizes)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    write_regions(folder / "regions.tsv", {"7": 1, "IMG_8": 2})
    convert_tsv(folder / "regions.tsv", folder / "regions.h5", progress=False)
    return folder / "regions.h5"


def regions(seed=0, number=4):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(number, 2, 2, generator=generator).sort(1).values.flatten(1)
    return torch.rand(number, F, generator=generator), boxes


def called(model, tokenizer, question, seen, **options):
    """The model's own call for one question."""
    words = tokenizer(question, return_tensors="pt")
    with torch.no_grad():
        return model(**words, visual_feats=seen[0][None], visual_pos=seen[1][None], **options)


def test_many_questions_get_what_each_gets_from_the_reference_library(make_pair, tmp_path):
    theirs, ours = make_pair("LxmertForQuestionAnswering")
    ours.config.answers = [*ANSWERS]
    ours.save_pretrained(tmp_path)
    filling = [f"x{i}" for i in range(ours.config.vocab_size - len(PIECES))]
    LxmertTokenizer({piece: i for i, piece in enumerate([*PIECES, *filling])}).save_pretrained(tmp_path)
    asker = Asker.open(tmp_path)
    features, boxes = torch.rand(4, ours.config.visual_feat_dim), regions()[1]
    replies = asker.ask((features, boxes), QUESTIONS)
    for question, reply in zip(QUESTIONS, replies, strict=True):
        expected = called(theirs, asker.tokenizer, question, (features, boxes)).question_answering_score[0]
        torch.testing.assert_close(torch.from_numpy(reply.scores), expected, atol=1e-5, rtol=1e-5)
        best = expected.sigmoid().topk(5)
        assert [answer for answer, _ in reply.answers] == [ANSWERS[i] for i in best.indices]
        assert [p for _, p in reply.answers] == pytest.approx(best.values.tolist(), abs=1e-5)
        assert reply.words[0] == "[CLS]" and reply.words[-1] == "[SEP]"


def test_a_picture_is_encoded_once_for_all_its_questions_and_askings(answering, monkeypatch):
    asker, encoded = Asker.open(answering), []
    encode = LxmertModel.encode_images
    monkeypatch.setattr(LxmertModel, "encode_images", lambda *a: encoded.append(1) or encode(*a))
    seen = asker.see(regions())
    alone = [asker.ask(regions(), question).scores for question in QUESTIONS]
    assert len(encoded) == len(QUESTIONS)
    monkeypatch.setattr(asker_file, "AT_ONCE", 3)  # 7 questions are three rounds
    together = asker.ask(seen, QUESTIONS)
    asker.ask(seen, "what")
    assert len(encoded) == len(QUESTIONS) + 1
    for reply, scores in zip(together, alone, strict=True):
        np.testing.assert_allclose(reply.scores, scores, atol=1e-4)
    asker.ask(regions(1), "what")
    np.testing.assert_allclose(asker.ask(seen, "what").scores, together[4].scores, atol=1e-4)


def test_regions_that_are_left_out_are_as_if_they_had_never_been_there(answering):
    asker = Asker.open(answering)
    features, boxes = regions(number=6)
    kept = np.array([5, 0, 2])
    without = asker.ask((features, boxes), "what is red?", regions=kept, explain="relevancy")
    np.testing.assert_allclose(
        without.scores, asker.ask((features[kept], boxes[kept]), "what is red?").scores, atol=1e-4
    )
    assert len(without.region_scores[0]) == 6 and not without.region_scores[0][[1, 3, 4]].any()


def test_an_image_id_of_a_store_is_its_regions_with_their_labels(answering, store, tmp_path):
    asker = Asker.open(answering, store=store, pictures=tmp_path)
    (tmp_path / "IMG_8.png").write_bytes(b"")
    seen = asker.see("IMG_8")
    assert seen.picture == tmp_path / "IMG_8.png" and seen.size == (100, 50) and seen.image_id == "IMG_8"
    assert seen.objects == [("object 0", 0.5), ("object 1", 0.5), ("object 2", 0.5)]
    reply = asker.ask("IMG_8", "what is red?")
    np.testing.assert_array_equal(reply.scores, asker.ask((seen.features, seen.boxes), "what is red?").scores)
    (tmp_path / "objects_vocab.txt").write_text("cat,kitten\ndog\n")
    (tmp_path / "attributes_vocab.txt").write_text("red\nblue\ngreen")
    named = Asker.open(answering, store=store, names=tmp_path).see("7")
    assert [named.name_of(i) for i in range(4)] == [
        "red cat",
        "blue dog",
        "green object 2",
        "attribute 3 object 3",
    ]


def test_attentions_and_explanations_are_of_each_questions_own_words(answering):
    asker = Asker.open(answering)
    seen = regions()
    replies = asker.ask(seen, QUESTIONS, attentions=True, explain="relevancy")
    for question, reply in zip(QUESTIONS, replies, strict=True):
        alone = asker.ask(seen, question, attentions=True, explain="relevancy")
        length = len(reply.words)
        assert reply.explained == reply.answer and reply.word_scores.shape == (length,)
        np.testing.assert_allclose(reply.word_scores, alone.word_scores, atol=1e-5)
        np.testing.assert_allclose(reply.region_scores[0], alone.region_scores[0], atol=1e-5)
        expected = called(asker.model, asker.tokenizer, question, seen, output_attentions=True)
        for name, layers in reply.attentions.items():
            for layer, theirs in zip(layers, getattr(expected, name), strict=True):
                np.testing.assert_allclose(layer, theirs[0].numpy(), atol=1e-4)
    other = asker.ask(seen, "what is red?", explain="gradcam", answer="blue")
    assert other.explained == "blue" and other.method == "gradcam"
    assert (plain := asker.ask(seen, "dog", answer="BLUE")).explained == "blue" and plain.method == "relevancy"
    assert len(repr(other)) < 1000
    content = json.loads(json.dumps(other.to_dict(), allow_nan=False))
    assert content["pictures"][0]["region_scores"] and content["answers"][0]["answer"] == other.answer


def test_a_statement_is_judged_of_its_two_pictures(sizes, tmp_path):
    model = save(tmp_path, LxmertForVisualReasoning, sizes, answers=None)
    asker = Asker.open(tmp_path)
    left, right = regions(0, 4), regions(1, 3)
    reply = asker.ask([left, right], ["what is red?", "dog"], explain="relevancy", attentions=True)[0]
    features, boxes = torch.zeros(1, 2, 4, F), torch.zeros(1, 2, 4, 4)
    mask = torch.tensor([[[1, 1, 1, 1], [1, 1, 1, 0]]])
    for place, (f, b) in enumerate((left, right)):
        features[0, place, : len(f)], boxes[0, place, : len(f)] = f, b
    words = asker.tokenizer("what is red?", return_tensors="pt")
    with torch.no_grad():
        logits = model(words.input_ids, features, boxes, visual_attention_mask=mask).logits[0]
    np.testing.assert_allclose(reply.scores, logits.numpy(), atol=1e-4)
    assert sorted(text for text, _ in reply.answers) == ["False", "True"]
    assert sum(p for _, p in reply.answers) == pytest.approx(1)
    assert [len(scores) for scores in reply.region_scores] == [4, 3]
    assert reply.attentions["cross_encoder_attentions"][0].shape == (2, 4, 6, 4)
    with pytest.raises(InputError, match="1 pictures; this model's statements are about 2"):
        asker.ask("a.jpg", "dog")


def test_pre_training_heads_tell_whether_both_fit_and_guess_hidden_words(sizes, tmp_path):
    model = save(tmp_path, LxmertForPreTraining, sizes)
    asker = Asker.open(tmp_path)
    reply = asker.ask(regions(), "what [MASK] red ?", top=3)
    output = called(model, asker.tokenizer, "what [MASK] red ?", regions())
    assert reply.fits == pytest.approx(output.cross_relationship_score[0].softmax(0)[1].item(), abs=1e-5)
    best = output.prediction_logits[0, 2].softmax(-1).topk(3)
    assert [guess.place for guess in reply.guesses] == [2]
    assert reply.guesses[0].words == [
        (PIECES[i], pytest.approx(p, abs=1e-5)) for i, p in zip(best.indices, best.values.tolist(), strict=True)
    ]
    assert sum(p for _, p in asker.ask(regions(), "red", top=99).answers) == pytest.approx(1, abs=1e-5)
    assert asker.ask(regions(), "red").guesses == []
    for typed in ("what[MASK]red?", "what [mask], red?"):
        assert [guess.place for guess in asker.ask(regions(), typed).guesses] == [2]


def test_pre_training_without_answers_still_tells_what_fits_and_guesses(sizes, tmp_path):
    save(tmp_path, LxmertForPreTraining, sizes, task_qa=False, answers=None)
    reply = (asker := Asker.open(tmp_path)).ask(regions(), "what is [MASK]?")
    assert reply.answers == [] and reply.answer == "" and 0 < reply.fits < 1 and reply.guesses[0].place == 3
    with pytest.raises(InputError, match="has no answer head"):
        asker.ask(regions(), "what is red?", explain="relevancy")


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("", "is no question"),
        (["dog", 3], "3 is no question"),
        (None, "None is no question; expected a text, or a list"),
        ("???", "no word of it is in the model's vocabulary"),
        ("[CLS] [SEP] [PAD]", "no word of it is in the model's vocabulary"),
        ("\ud800", "is no question"),
        ("dog" * 1000, "a question of 3,000 characters; expected 2,000 or fewer"),
        ("何色ですか", "no word of it is in the model's vocabulary. It may be in a language"),
    ],
)
def test_what_is_no_question_is_refused(answering, question, said):
    with pytest.raises(InputError, match=said):
        Asker.open(answering).ask(regions(), question)


@pytest.mark.parametrize(
    ("picture", "options", "said"),
    [
        ("nowhere.jpg", {}, "no such picture file, nor an image id of .*regions.h5"),
        (ROOT / "README.md", {}, "there is no detector to find its regions with"),
        ((torch.rand(3, F + 1), torch.rand(3, 4)), {}, r"features \(3, 6\) and boxes \(3, 4\); expected \(N, 5\)"),
        ((torch.rand(3, F), torch.rand(3, 4) * 300), {}, "as fractions of the picture's width and height"),
        ((torch.rand(0, F), torch.rand(0, 4)), {}, "0 regions"),
        ((torch.full((3, F), torch.nan), torch.rand(3, 4)), {}, "finite features"),
        (("a", "b"), {}, "2 pictures; this model is asked about one"),
        (["7"], {}, "1 pictures; this model is asked about one"),
        (None, {}, "a picture of type NoneType; expected a file's path"),
        (torch.zeros(3, 4, 4), {}, "a picture of type Tensor"),
        ("7", {"top": 0}, "top=0; expected how many answers"),
        ("7", {"top": "5"}, "top='5'"),
        ("7", {"regions": [True] * 4}, "expected a list of region numbers"),
        ("7", {"regions": 3}, "expected a list of region numbers"),
        ("7", {"regions": []}, "no region is left to look at"),
        ("7", {"regions": [0, 9]}, "expected numbers from 0 to 3"),
        ("7", {"answer": "bleu", "explain": "relevancy"}, "'bleu' is none of the model's 7 answers, such as blue"),
        ("7", {"explain": "magic"}, "magic"),
    ],
)
def test_what_cannot_be_asked_about_is_named(answering, store, picture, options, said):
    with pytest.raises((InputError, FileNotFoundError), match=said):
        Asker.open(answering, store=store).ask(picture, "what is red?", **options)


def test_words_that_are_unknown_or_beyond_what_training_read_are_told(answering):
    asker = Asker.open(answering)
    long = asker.ask(regions(), " ".join(["red"] * 30))
    assert len(long.words) == 16  # as many positions as the model has
    assert long.warnings == ["its last 16 of 30 word pieces are not read: training cut there too"]
    [said] = asker.ask(regions(), "welche farbe red").warnings
    assert said.startswith("2 of its 3 word pieces are not in the model's vocabulary")
    [said] = asker.ask(regions(), "[MASK] red").warnings
    assert said.startswith("this model has no head that guesses words")


def test_words_that_fall_into_letters_are_told(sizes, tmp_path):
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*PIECES, *letters, *(f"##{letter}" for letter in letters)]
    save(tmp_path, LxmertForQuestionAnswering, sizes, vocab_size=len(pieces))
    LxmertTokenizer({piece: i for i, piece in enumerate(pieces)}).save_pretrained(tmp_path)
    asker = Asker.open(tmp_path)
    [said] = asker.ask(regions(), "is there one zebra?").warnings
    assert said.startswith("4 of its 9 word pieces are single letters")
    assert asker.ask(regions(), "is there one cat?").warnings == []


def test_regions_of_another_detector_are_told(sizes, store, tmp_path):
    save(tmp_path, LxmertForQuestionAnswering, sizes, detector="another one")
    [said] = Asker.open(tmp_path, store=store).ask("7", "dog").warnings
    assert said.startswith("The model was trained on regions of 'another one'")


def test_models_and_lists_that_cannot_answer_are_named(sizes, answering, store, tmp_path):
    save(tmp_path / "bare", LxmertModel, sizes)
    with pytest.raises(InputError, match=r"\(LxmertModel\) has no answer head"):
        Asker.open(tmp_path / "bare").ask(regions(), "dog")
    save(tmp_path / "silent", LxmertForQuestionAnswering, sizes, answers=None)
    with pytest.raises(InputError, match="the texts of this model's 7 answers are not known"):
        Asker.open(tmp_path / "silent").ask(regions(), "dog")
    (tmp_path / "list.json").write_text(json.dumps(ANSWERS[:6]))
    with pytest.raises(InputError, match=r"6 answers; the answer head of .* has 7"):
        Asker.open(tmp_path / "silent", answers=tmp_path / "list.json")
    (tmp_path / "list.json").write_text(json.dumps(ANSWERS))
    assert Asker.open(tmp_path / "silent", answers=tmp_path / "list.json").ask(regions(), "dog").answer in ANSWERS
    save(tmp_path / "wide", LxmertForQuestionAnswering, sizes, visual_feat_dim=F + 1)
    with pytest.raises(InputError, match="regions have 5 features, the model expects 6"):
        Asker.open(tmp_path / "wide", store=store)
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES[:-1]))
    weights = answering / "model.safetensors"
    with pytest.raises(InputError, match="16 word pieces, and the model has 17"):
        Asker.open(answering, tokenizer=tmp_path / "vocab.txt")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "weights.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(InputError):  # not of the published sizes
        Asker.open(tmp_path / "alone" / "weights.safetensors")


def test_the_command_prints_answers_writes_numbers_and_says_what_is_wrong(answering, store, tmp_path, capsys):
    command = [str(answering), "7", "what is red?", "--store", str(store)]
    assert main([*command, "--json", str(tmp_path / "out.json"), "--explain", str(tmp_path / "out.html")]) == 0
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "out.json").read_text())
    assert len(content["answers"]) == 5 and "what led to" in printed
    for each in content["answers"]:
        assert f"{each['answer']}" in printed and f"{each['probability']:.3f}" in printed
    assert "<html" in (tmp_path / "out.html").read_text() and content["attentions"]
    for arguments, said in (
        ([str(answering), "7"], "expected a picture and a question"),
        ([*command[:1], "no", "dog", *command[3:]], "no such picture file"),
        (["/nowhere", "7", "dog"], "/nowhere"),
        ([*command[:1], "7", "8", "dog", *command[3:]], "2 pictures; this model is asked about one"),
        (
            [*command, "--explain", "/nowhere/out.html"],
            "/nowhere/out.html: expected a file that ends in .html, in",
        ),
        ([*command, "--json", "out.txt"], "out.txt: expected a file that ends in .json"),
        ([*command, "--device", "gpu"], "device gpu: "),
    ):
        assert main(arguments) == 1
        assert said in capsys.readouterr().err


def test_it_is_a_command_of_its_own(answering, store):
    command = [sys.executable, "-m", "lxmert.ask", str(answering), "7", "dog", "--store", str(store)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "probability" in done.stdout, done.stderr
