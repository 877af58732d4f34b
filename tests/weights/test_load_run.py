"""A run's folder is enough by itself: model, tokenizer, answers and probabilities from it alone."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from test_checkpoint import assert_same_weights, save_run

import lxmert
import train
from lxmert import (
    LxmertConfig,
    LxmertForPreTraining,
    LxmertForQuestionAnswering,
    LxmertForVisualReasoning,
    LxmertModel,
    LxmertTokenizer,
    load_run,
    save_run_model,
)
from lxmert.ask import open_checkpoint
from lxmert.files import InputError
from lxmert.learner import config_differences
from lxmert.weights import read_answers, read_vocabulary
from lxmert.weights.export import main

ROOT = Path(__file__).parents[2]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "colo", "##r", "is", "the", "cat", "?", "Red", "é"]
TOKENIZER_FILES = {"vocab.txt", "tokenizer.json", "tokenizer_config.json"}
ANSWERS = ["yes", "no", "", "2", "don't", "crème brûlée", "gray"]


@pytest.fixture
def tokenizer():
    """Cased, so that a rebuilt one with default settings would differ."""
    return LxmertTokenizer({piece: i for i, piece in enumerate(PIECES)}, do_lower_case=False, model_max_length=9)


@pytest.fixture
def make_run(sizes, tokenizer, tmp_path):
    """A run's folder as a run leaves it, and the model in its best checkpoint."""

    def make(architecture=LxmertForQuestionAnswering, probabilities="sigmoid", **changes):
        torch.manual_seed(0)
        values = {"vocab_size": len(PIECES), "visual_feat_dim": 2048, "answers": ANSWERS, **changes}
        model = architecture(LxmertConfig(**{**sizes, **values})).eval()
        folder = tmp_path / "outputs" / "toy_vqa" / "2026-01-02_03.04.05"
        (folder / "checkpoints").mkdir(parents=True)
        save_run_model(folder, model.config, tokenizer, probabilities)
        save_run(folder / "checkpoints" / "best.ckpt", model, "answering")
        (tmp_path / "outputs" / "latest").symlink_to(folder.relative_to(tmp_path / "outputs"))
        return folder, model

    return make


def call(tokenizer, rows=1):
    torch.manual_seed(1)
    words = tokenizer(["what color is the cat ?"] * rows, return_tensors="pt")
    return {
        "input_ids": words.input_ids,
        "visual_feats": torch.rand(rows, 36, 2048),
        "visual_pos": torch.rand(rows, 36, 4),
    }


def test_a_run_folder_gives_model_tokenizer_answers_and_probabilities(make_run, tokenizer, tmp_path):
    folder, model = make_run()
    for place in (folder, str(tmp_path / "outputs" / "latest")):
        run = load_run(place)
        assert type(run.model) is LxmertForQuestionAnswering and not run.model.training
        assert_same_weights(run.model, model)
        assert run.answers == ANSWERS and run.model.config == model.config
        text = "Red colour? é"
        assert run.tokenizer(text) == tokenizer(text) and run.tokenizer.tokenize("Red") == ["Red"]
        assert run.tokenizer.model_max_length == 9
        scores = torch.tensor([[0.0, 2.0, -1.0]])
        assert torch.equal(run.probabilities(scores), scores.sigmoid())
        assert run.label_of("YES") == 0


def test_a_checkpoint_is_of_its_run_also_where_it_is_named_from_inside(make_run, tmp_path, monkeypatch):
    folder, model = make_run(LxmertForQuestionAnswering, "softmax")
    for inside in (folder, folder / "checkpoints"):
        monkeypatch.chdir(inside)
        name = Path("best.ckpt" if inside != folder else "checkpoints/best.ckpt")
        for opened in (load_run(name), open_checkpoint(name)):
            assert opened.reading == "softmax" and opened.answers == ANSWERS
            assert_same_weights(opened.model, model)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        (LxmertForVisualReasoning, {"answers": ["False", "True"], "num_qa_labels": 2}),
        (LxmertForPreTraining, {}),
        (LxmertForPreTraining, {"visual_attr_loss": False}),
    ],
)
def test_the_model_is_of_the_class_of_the_runs_heads(make_run, architecture, changes):
    folder, model = make_run(architecture, "softmax", **changes)
    run = load_run(folder)
    assert type(run.model) is architecture
    assert_same_weights(run.model, model)
    assert run.probabilities(torch.zeros(3, 2)).tolist() == [[0.5, 0.5]] * 3
    assert run.answers == model.config.answers


def test_every_class_opens_a_run_folder(make_run, tokenizer, tmp_path):
    folder, model = make_run(LxmertForPreTraining, "softmax")
    for place in (folder, tmp_path / "outputs" / "latest"):
        assert_same_weights(LxmertForPreTraining.from_pretrained(place), model)
        assert_same_weights(LxmertForQuestionAnswering.from_pretrained(place).lxmert, model.lxmert)
        assert_same_weights(LxmertModel.from_pretrained(str(place)), model.lxmert)
        assert LxmertConfig.from_pretrained(place) == model.config
        assert LxmertTokenizer.from_pretrained(place)("Red") == tokenizer("Red")
        assert read_answers(place) == ANSWERS


def test_the_best_checkpoint_comes_before_the_last(make_run):
    folder, model = make_run()
    other = LxmertForQuestionAnswering(model.config)
    save_run(folder / "checkpoints" / "last.ckpt", other, "answering")
    assert_same_weights(load_run(folder).model, model)
    (folder / "checkpoints" / "best.ckpt").unlink()
    assert_same_weights(load_run(folder).model, other)
    (folder / "checkpoints" / "last.ckpt").unlink()
    for read in (load_run, LxmertModel.from_pretrained, read_answers):
        with pytest.raises(FileNotFoundError, match=r"checkpoints holds neither best.ckpt nor last.ckpt"):
            read(folder)


def test_an_older_run_is_told_what_it_lacks_and_made_whole_as_told(make_run, tokenizer, tmp_path):
    folder, model = make_run()
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    assert LxmertConfig.from_pretrained(folder) == model.config  # the checkpoint has it
    assert_same_weights(LxmertForQuestionAnswering.from_pretrained(folder), model)
    with pytest.raises(FileNotFoundError, match=r"a run from before they were kept\. Copy the tokenizer"):
        LxmertTokenizer.from_pretrained(folder)
    with pytest.raises(FileNotFoundError, match=r"lacks vocab.txt, config.json, run.json: .* Add them") as error:
        load_run(folder)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    advice = re.search(r"(folder = .*?), or 'softmax'", str(error.value))[1]
    exec(advice, {"lxmert": lxmert, "TOKENIZER": tmp_path / "tokenizer"})
    run = load_run(folder)
    assert_same_weights(run.model, model)
    assert run.tokenizer("Red") == tokenizer("Red") and run.answers == ANSWERS


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} is no folder of a training: it has no checkpoints/"):
        load_run(tmp_path)


def test_a_run_whose_parts_do_not_fit_is_refused(make_run, tokenizer):
    folder, _ = make_run()
    (folder / "run.json").write_text('{"probabilities": ["sigmoid"]}')
    with pytest.raises(InputError, match=r"run.json: probabilities is \['sigmoid'\]; expected one of sigmoid"):
        load_run(folder)
    LxmertTokenizer().save_pretrained(folder)
    with pytest.raises(InputError, match=f"vocabulary has 5 word pieces and its model {len(PIECES)}: put back"):
        load_run(folder)
    with pytest.raises(InputError, match="probabilities='relu'; expected one of sigmoid, softmax"):
        save_run_model(folder, LxmertConfig(), tokenizer, "relu")


# The vocabulary travels


def with_vocabulary(make_run, tokenizer):
    """A run as they are since its checkpoint tells its vocabulary."""
    return make_run(vocab_sha256=tokenizer.sha256)


def other_vocabulary(**settings):
    pieces = [*PIECES[:5], *reversed(PIECES[5:])]
    return LxmertTokenizer({piece: i for i, piece in enumerate(pieces)}, **{"do_lower_case": False, **settings})


def test_a_vocabulary_is_known_by_its_pieces_their_order_and_their_casing(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert LxmertTokenizer.from_pretrained(tmp_path).sha256 == tokenizer.sha256
    (tmp_path / "tokenizer.json").unlink()
    assert LxmertTokenizer.from_pretrained(tmp_path).sha256 == tokenizer.sha256
    vocab = tokenizer.get_vocab()
    others = [LxmertTokenizer(vocab), LxmertTokenizer(vocab, do_lower_case=False, strip_accents=True)]
    others += [LxmertTokenizer(vocab, False, tokenize_chinese_chars=False), other_vocabulary()]
    assert len({each.sha256 for each in [tokenizer, *others]}) == 5
    assert LxmertTokenizer(vocab, do_lower_case=False, strip_accents=False).sha256 == tokenizer.sha256


def test_a_checkpoint_of_another_vocabulary_of_the_same_size_is_refused(sizes, tokenizer):
    ours, theirs = tokenizer.sha256, other_vocabulary().sha256
    config = LxmertConfig(**{**sizes, "vocab_sha256": ours}).to_dict()
    (line,) = config_differences({**config, "vocab_sha256": theirs}, config)
    assert f"61 word pieces, SHA-256 {theirs[:12]} in the checkpoint, 61 word pieces, SHA-256 {ours[:12]}" in line
    assert "data.tokenizer=" in line
    (line,) = config_differences({**config, "vocab_sha256": theirs, "vocab_size": 60}, config)
    assert line.startswith("vocabulary: 60 word pieces")
    for known in (config, {**config, "vocab_sha256": None}, {k: v for k, v in config.items() if "sha" not in k}):
        assert not config_differences(known, config)


@pytest.mark.parametrize("source", ["outputs/latest", "outputs/latest/checkpoints/best.ckpt", "out", "BEST.pth"])
def test_weights_for_another_vocabulary_start_no_run(make_run, tokenizer, tmp_path, source):
    _, model = with_vocabulary(make_run, tokenizer)
    run = str(tmp_path / "outputs/latest")
    assert main(["export", "--to", "reference", run, str(tmp_path / "out")]) == 0
    assert main(["export", "--to", "original", run, str(tmp_path / "BEST.pth")]) == 0
    assert read_vocabulary(tmp_path / source) == tokenizer.sha256
    config = replace(model.config, vocab_sha256=other_vocabulary().sha256)
    learner = SimpleNamespace(heads=dict, model=SimpleNamespace(config=config))
    with pytest.raises(InputError, match=f"init={tmp_path / source} is for another vocabulary .*data.tokenizer="):
        train.initialize_from(learner, str(tmp_path / source), "")
    config.vocab_sha256 = tokenizer.sha256
    learner.reference_state = model.reference_state
    train.initialize_from(learner, str(tmp_path / source), "")


def test_a_run_whose_vocabulary_was_exchanged_is_refused(make_run, tokenizer, tmp_path, capsys):
    folder, _ = with_vocabulary(make_run, tokenizer)
    assert load_run(folder).tokenizer.sha256 == tokenizer.sha256
    other_vocabulary().save_pretrained(folder)
    with pytest.raises(InputError, match=r"not that of its model's training .*: put back vocab\.txt"):
        load_run(folder)
    assert main(["export", "--to", "reference", str(folder), str(tmp_path / "out")]) == 1
    assert "Put back that of the training" in capsys.readouterr().err


def test_an_export_has_the_vocabulary_the_answers_and_a_card(make_run, tokenizer, tmp_path, capsys):
    folder, _ = with_vocabulary(make_run, tokenizer)
    path = folder / "checkpoints/best.ckpt"
    content = torch.load(path, weights_only=True)
    data = {"_target_": "datamodules.vqa.VqaDataModule", "root": "/home/me/data", "train": "train,nominival"}
    optimizer = {"_target_": "lxmert.optim.BertAdam", "_partial_": True, "lr": 5e-5}
    settings = {"data": data, "optimizer": optimizer, "objective": {"answering": {}}, "init": "a|b.pth"}
    torch.save({**content, "settings": settings, "global_step": 77}, path)
    scores = {"val/answering/accuracy": 0.69901, "val/answering/accuracy/group/what is": 0.1, "train/loss": 1}
    (folder / "summary.json").write_text(json.dumps({"metrics": scores}))
    (folder / "environment.json").write_text('{"experiment": "vqa"}')

    assert main(["export", "--to", "reference", str(path), str(tmp_path / "ours")]) == 0
    assert capsys.readouterr().out.endswith(f", 7 answers, {len(PIECES)} word pieces\n")
    files = {each.name for each in (tmp_path / "ours").iterdir()}
    assert files == {"README.md", "config.json", "model.safetensors", *TOKENIZER_FILES}
    text = "Red colour? é"
    assert LxmertTokenizer.from_pretrained(tmp_path / "ours")(text) == tokenizer(text)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert theirs(text)["input_ids"] == tokenizer(text)["input_ids"]
    config = json.loads((tmp_path / "ours/config.json").read_text())
    assert config["id2label"]["5"] == "crème brûlée" and config["label2id"]["crème brûlée"] == 5
    assert config["vocab_sha256"] == tokenizer.sha256
    card = (tmp_path / "ours/README.md").read_text()
    for part in (
        "LxmertForQuestionAnswering: LXMERT of 2 language", "| vqa |", "train train,nominival", "a\\|b.pth",
        "| answering |", "lr 5e-05", "| 77 |", "val/answering/accuracy 0.6990 |", "| 7: yes, no, , 2, don't",
        f"SHA-256 {tokenizer.sha256}", "cased",
    ):  # fmt: skip
        assert part in card, part
    assert "/home/me" not in card
    example = re.search(r"```python\n(.*?)```", card, re.S)[1].replace('("ours")', f'("{tmp_path}/ours")')
    opened = {}
    exec(example, opened)
    assert opened["model"].num_qa_labels == 7

    assert main(["export", "--to", "original", str(folder), str(tmp_path / "BEST.pth")]) == 0
    assert {each.name for each in (tmp_path / "BEST.tokenizer").iterdir()} == TOKENIZER_FILES
    card = (tmp_path / "BEST.md").read_text()
    assert "--load BEST`" in card and "| vqa |" in card
    (tmp_path / "BEST.pth").unlink()
    assert main(["export", "--to", "original", str(folder), str(tmp_path / "BEST.pth")]) == 1
    assert "BEST.answers.json exists and is not overwritten" in capsys.readouterr().err


def test_the_example_of_the_documentation_runs(make_run, monkeypatch, tmp_path, capsys):
    make_run()
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    example = next(block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "load_run" in block)
    inputs = call(LxmertTokenizer())
    exec(example, {"features": inputs["visual_feats"], "boxes": inputs["visual_pos"]})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and {line.split()[-1] for line in lines} & set(["yes", "no", "2", "gray"])
