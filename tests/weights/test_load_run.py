"""A run's folder is enough by itself: model, tokenizer, answers and probabilities from it alone."""

import re
from pathlib import Path

import pytest
import torch
from test_checkpoint import assert_same_weights, save_run

import lxmert
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
from lxmert.files import InputError
from lxmert.weights import read_answers

ROOT = Path(__file__).parents[2]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "colo", "##r", "is", "the", "cat", "?", "Red", "é"]
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


def test_the_example_of_the_documentation_runs(make_run, monkeypatch, tmp_path, capsys):
    make_run()
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    example = next(block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "load_run" in block)
    inputs = call(LxmertTokenizer())
    exec(example, {"features": inputs["visual_feats"], "boxes": inputs["visual_pos"]})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and {line.split()[-1] for line in lines} & set(["yes", "no", "2", "gray"])
