"""Weights from and for other projects: folders, the original release's files, reports, failures."""

import json
import logging
import pickle
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.lxmert import modeling_lxmert as reference

import lxmert
from lxmert import (
    LxmertConfig,
    LxmertForPreTraining,
    LxmertForQuestionAnswering,
    LxmertForVisualReasoning,
    LxmertModel,
)
from lxmert.base import kept_with
from lxmert.files import InputError, replacing, write_text
from lxmert.objectives.image_pair import ImagePair
from lxmert.objectives.masked_language import MaskedLanguage
from lxmert.objectives.masked_region import MaskedRegion
from lxmert.objectives.matching import Matching
from lxmert.objectives.question_answering import QuestionAnswering
from lxmert.weights import HEADS, load_weights, match_answer_head, read_answers, read_weights, reference_names
from lxmert.weights import files as weights_files
from lxmert.weights.export import main
from lxmert.weights.names import from_foreign, grouped, to_original

CLASSES = ["LxmertModel", "LxmertForQuestionAnswering", "LxmertForPreTraining"]
TIED = "cls.predictions.decoder.weight"  # the word embeddings once more
ROOT = Path(__file__).parents[2]
ANSWERS = ["yes", "no", "", "2", "don't", "crème brûlée", "gray"]


def renamed(weights: dict, *rules: tuple[str, str]) -> dict:
    for pattern, replacement in rules:
        weights = {re.sub(pattern, replacement, name): tensor for name, tensor in weights.items()}
    return weights


def assert_same_weights(first: torch.nn.Module, second: torch.nn.Module) -> None:
    own, other = first.state_dict(), second.state_dict()
    assert own.keys() == other.keys()
    for name, tensor in own.items():
        assert torch.equal(tensor, other[name]), name


# The reference's folders


@pytest.mark.parametrize("name", CLASSES)
def test_what_the_reference_saves_opens_here_and_goes_back_unchanged(make_reference, tmp_path, name):
    theirs = make_reference(name)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = getattr(lxmert, name).from_pretrained(tmp_path / "theirs")
    assert not ours.training
    ours.save_pretrained(tmp_path / "ours")
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == ["config.json", "model.safetensors"]
    assert load_file(tmp_path / "ours/model.safetensors").keys() == theirs.state_dict().keys() - {TIED}
    back, report = getattr(reference, name).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert_same_weights(back, theirs)
    assert_same_weights(getattr(lxmert, name).from_pretrained(tmp_path / "ours"), ours)


@pytest.mark.parametrize("name", CLASSES)
def test_our_names_are_the_references_at_the_published_size(name):
    with torch.device("meta"):
        ours = getattr(lxmert, name)(LxmertConfig())
        theirs = getattr(reference, name)(transformers.LxmertConfig())
    shapes = {own: tensor.shape for own, tensor in ours.state_dict().items()}
    assert shapes == {other: tensor.shape for other, tensor in theirs.state_dict().items() if other != TIED}


def test_a_folder_with_pytorch_model_bin_opens(make_reference, tmp_path):
    theirs = make_reference("LxmertForQuestionAnswering")
    theirs.config.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    ours = LxmertForQuestionAnswering.from_pretrained(tmp_path)
    assert torch.equal(ours.answer_head.logit_fc[0].weight, theirs.answer_head.logit_fc[0].weight)


def test_a_bare_model_opens_the_encoder_of_a_folder_with_heads(make_reference, tmp_path, caplog):
    theirs = make_reference("LxmertForQuestionAnswering")
    theirs.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        ours = LxmertModel.from_pretrained(tmp_path)
    assert torch.equal(ours.pooler.dense.weight, theirs.lxmert.pooler.dense.weight)
    assert "6 not used: answer_head (6)" in caplog.text


def test_a_bare_folder_opens_with_a_new_answer_head_and_says_so(make_reference, tmp_path, caplog):
    theirs = make_reference("LxmertModel")
    theirs.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        ours = LxmertForQuestionAnswering.from_pretrained(tmp_path)
    assert torch.equal(ours.lxmert.embeddings.word_embeddings.weight, theirs.embeddings.word_embeddings.weight)
    assert "6 missing, left at their initial values: answer_head (6)" in caplog.text


def test_the_answers_travel_with_the_weights(sizes, tmp_path):
    LxmertForQuestionAnswering(LxmertConfig(**sizes, answers=ANSWERS)).save_pretrained(tmp_path)
    assert LxmertForQuestionAnswering.from_pretrained(tmp_path).config.answers == ANSWERS
    assert read_answers(tmp_path) == ANSWERS
    assert reference.LxmertForQuestionAnswering.from_pretrained(tmp_path).num_qa_labels == 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_stay_so_unless_asked_otherwise(make_reference, tmp_path, dtype):
    theirs = make_reference("LxmertModel").to(dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = LxmertModel.from_pretrained(tmp_path / "theirs")
    assert ours.dtype == ours.pooler.dense.weight.dtype == dtype
    assert torch.equal(ours.pooler.dense.weight, theirs.pooler.dense.weight)
    ours.save_pretrained(tmp_path / "ours")
    assert LxmertConfig.from_pretrained(tmp_path / "ours").dtype == dtype
    assert reference.LxmertModel.from_pretrained(tmp_path / "ours").dtype == dtype
    for name in ("dtype", "torch_dtype"):
        for value in (torch.float32, "float32"):
            wide = LxmertModel.from_pretrained(tmp_path / "theirs", **{name: value})
            assert torch.equal(wide.pooler.dense.weight, theirs.pooler.dense.weight.float())
    with pytest.raises(ValueError, match="dtype='int8'; expected 'auto', or a floating-point type"):
        LxmertModel.from_pretrained(tmp_path / "theirs", dtype="int8")


# The original release's files


@pytest.fixture(scope="module")
def pretraining(make_reference):
    """Weights of all heads, under the reference's names."""
    return make_reference("LxmertForPreTraining").state_dict()


ORIGINAL = {
    "pre-trained": [(r"^lxmert\.", "bert.")],
    "pre-trained on several GPUs": [(r"^lxmert\.", "bert."), (r"^", "module.")],
    "with BERT's old layer norm names": [
        (r"^lxmert\.", "module.bert."),
        (r"LayerNorm\.weight$", "LayerNorm.gamma"),
        (r"LayerNorm\.bias$", "LayerNorm.beta"),
    ],
    "fine-tuned": [(r"^lxmert\.", "lxrt_encoder.model.bert."), (r"^answer_head\.", "")],
    "fine-tuned on several GPUs": [
        (r"^lxmert\.", "lxrt_encoder.model.module.bert."),
        (r"^answer_head\.", ""),
    ],
}


@pytest.mark.parametrize("form", ORIGINAL)
def test_files_of_the_original_release_load(pretraining, sizes, tmp_path, form):
    weights = renamed(pretraining, *ORIGINAL[form])
    if form.startswith("fine-tuned"):
        weights = {k: v for k, v in weights.items() if k.startswith(("lxrt_encoder.", "logit_fc."))}
        assert "logit_fc.3.bias" in weights
    else:
        assert any(name.endswith("obj_predict_head.decoder_dict.attr.bias") for name in weights)
    assert not any("lxmert" in name for name in weights)
    path = tmp_path / "Epoch20_LXRT.pth"
    torch.save(weights, path)
    model = LxmertForQuestionAnswering(LxmertConfig(**sizes))
    report = load_weights(model.reference_state(), read_weights(path), str(path))
    assert not report.missing and not report.reshaped
    assert {name.split(".")[0] for name in report.unexpected} == (
        set() if form.startswith("fine-tuned") else {"cls", "obj_predict_head"}
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, pretraining[name]), name


def test_an_original_file_opens_without_a_config_at_the_published_size(monkeypatch, pretraining, sizes, tmp_path):
    path = tmp_path / "BEST.pth"
    torch.save(renamed(pretraining, *ORIGINAL["pre-trained"]), path)
    asked = []
    monkeypatch.setattr(
        LxmertForQuestionAnswering, "config_class", lambda: asked.append("published") or LxmertConfig(**sizes)
    )
    LxmertForQuestionAnswering.from_pretrained(path)
    assert asked == ["published"]
    other = LxmertConfig(**{**sizes, "num_qa_labels": 3})
    model = LxmertForQuestionAnswering.from_pretrained(path, config=other)
    assert asked == ["published"] and model.num_qa_labels == 3


# The project's own runs


def save_run(path: Path, model: torch.nn.Module, answering: str = "question_answering") -> Path:
    """A run's checkpoint with the weights of `model`, as the learner names them, and much else."""
    heads = {**HEADS, answering: "answer_head"}
    parts = {head: f"objectives.{objective}.head" for objective, head in heads.items()} | {"lxmert": "model"}
    parts["answer_head"] = f"objectives.{answering}.head"
    weights = {}
    for name, tensor in model.state_dict().items():
        part = next(part for part in parts if name.startswith(f"{part}."))
        weights[parts[part] + name.removeprefix(part)] = tensor
    weights["metrics.val.answering.soft.total"] = torch.ones(3)
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}}
    torch.save(
        {
            "epoch": 3,
            "state_dict": weights,
            "optimizer_states": [{"state": moments, "param_groups": [{"lr": 1e-4, "params": [0]}]}],
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
            "lxmert_config": model.config.to_dict(),
            "heads": heads,
        },
        path,
    )
    return path


@pytest.fixture
def pretrained(pretraining, sizes):
    """Our model with all heads, every number random."""
    model = LxmertForPreTraining(LxmertConfig(**sizes, answers=ANSWERS)).eval()
    load_weights(model.reference_state(), pretraining, "the reference")
    return model


@pytest.mark.parametrize("answering", ["answering", "question_answering"])
def test_a_runs_checkpoint_loads_into_a_model_with_its_own_sizes(pretrained, tmp_path, answering):
    path = save_run(tmp_path / "best.ckpt", pretrained, answering)
    assert_same_weights(LxmertForPreTraining.from_pretrained(path), pretrained)
    assert kept_with(path)[0] == pretrained.config
    assert read_answers(path) == ANSWERS
    assert read_weights(path).keys() == pretrained.state_dict().keys()


def test_pre_training_goes_on_from_a_model_with_all_heads(pretraining, sizes):
    config = LxmertConfig(**sizes, answers=ANSWERS)
    heads = {
        "masked_language": MaskedLanguage(config),
        "matching": Matching(config),
        "masked_region": MaskedRegion(config),
        "question_answering": QuestionAnswering(config),
    }
    learner = torch.nn.ModuleDict({"model": LxmertModel(config), "objectives": torch.nn.ModuleDict(heads)})
    names = reference_names(learner.state_dict(), HEADS)
    state = {names[name]: tensor for name, tensor in learner.state_dict().items()}
    report = load_weights(state, {k: v for k, v in pretraining.items() if k != TIED}, "the reference")
    assert "\n" not in str(report)
    for name, tensor in state.items():
        assert torch.equal(tensor, pretraining[name]), name


def test_fine_tuning_takes_encoder_and_answers_of_a_pre_training_run_calmly(pretrained, sizes, tmp_path, caplog):
    path = save_run(tmp_path / "last.ckpt", pretrained)
    ours = ["two", "no", "cat"]
    model = LxmertForQuestionAnswering(LxmertConfig(**{**sizes, "num_qa_labels": 3}))
    weights = read_weights(path)
    assert match_answer_head(weights, read_answers(path), ours) == 2
    with caplog.at_level(logging.INFO):
        load_weights(model.reference_state(), weights, "last.ckpt")
    before, after = pretrained.get_qa_logit_layer(), model.get_qa_logit_layer()
    assert torch.equal(after.weight[:2], before.weight[[3, 1]]) and torch.equal(
        after.bias[:2], before.bias[[3, 1]]
    )
    assert not after.weight[2].any() and not after.bias[2]
    assert torch.equal(model.answer_head.logit_fc[0].weight, pretrained.answer_head.logit_fc[0].weight)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "INFO",
            "weights from last.ckpt: 153 tensors loaded\n"
            "  17 not used: cls.predictions (5), cls.seq_relationship (2), obj_predict_head (10)",
        )
    ]


def test_a_target_without_answer_head_takes_the_rest(pretrained, tmp_path):
    weights = read_weights(save_run(tmp_path / "last.ckpt", pretrained))
    assert match_answer_head(weights, ANSWERS[:2], []) == 0
    model = LxmertModel(pretrained.config)
    assert not load_weights(model.reference_state(), weights, "last.ckpt").missing
    assert_same_weights(model, pretrained.lxmert)


def test_two_answer_heads_in_a_run_are_refused(tmp_path):
    name = "head.logit_fc.0.bias"
    weights = {f"objectives.{each}.{name}": torch.ones(2) for each in ("answering", "question_answering")}
    torch.save({"state_dict": weights}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"answer_head.logit_fc.0.bias.*choose one of the objectives"):
        read_weights(tmp_path / "last.ckpt")


def test_a_checkpoint_of_another_lightning_project_is_named(tmp_path):
    torch.save({"state_dict": {"net.weight": torch.ones(2)}, "epoch": 1}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last.ckpt holds no LXMERT: none of its 1 tensors is called model"):
        read_weights(tmp_path / "last.ckpt")


# A head on two images


@pytest.fixture
def reasoning(pretrained):
    """Our model for statements about two images, every number random."""
    torch.manual_seed(1)
    model = LxmertForVisualReasoning(replace(pretrained.config, num_qa_labels=2, answers=["False", "True"])).eval()
    model.lxmert.load_state_dict(pretrained.lxmert.state_dict())
    with torch.no_grad():
        for parameter in model.pair_head.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("encoder", ["lxrt_encoder.model.bert.", "lxrt_encoder.model.module.bert."])
def test_the_originals_nlvr2_file_gives_the_head_on_two_images(pretraining, reasoning, tmp_path, encoder):
    weights = {k: v for k, v in pretraining.items() if k.startswith("lxmert.")}
    weights = renamed(weights, (r"^lxmert\.", encoder))
    weights |= {name: tensor for name, tensor in reasoning.pair_head.state_dict().items()}
    torch.save(weights, tmp_path / "BEST.pth")
    opened = LxmertForVisualReasoning.from_pretrained(tmp_path / "BEST.pth", config=reasoning.config)
    assert_same_weights(opened, reasoning)
    objectives = torch.nn.ModuleDict({"image_pair": ImagePair(reasoning.config)})
    learner = torch.nn.ModuleDict({"model": LxmertModel(reasoning.config), "objectives": objectives})
    names = reference_names(learner.state_dict(), HEADS)
    state = {names[name]: tensor for name, tensor in learner.state_dict().items()}
    assert "\n" not in str(load_weights(state, read_weights(tmp_path / "BEST.pth"), "BEST.pth"))
    assert_same_weights(objectives["image_pair"].head, reasoning.pair_head)


# BERT


BERT_SIZES = {
    "vocab_size": 61, "hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 40,
    "max_position_embeddings": 16, "num_hidden_layers": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def bert():
    """A BERT with both of its heads, every number random."""
    torch.manual_seed(2)
    model = transformers.BertForPreTraining(transformers.BertConfig(**BERT_SIZES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


BERT_FORMS = {
    "with heads": [],
    "the bare model": [(r"^bert\.", "")],
    "old layer norm names": [(r"LayerNorm\.weight$", "LayerNorm.gamma"), (r"LayerNorm\.bias$", "LayerNorm.beta")],
}


@pytest.mark.parametrize("form", BERT_FORMS)
def test_a_bert_fills_language_layers_pooler_and_masked_language_head(bert, sizes, tmp_path, caplog, form):
    weights = renamed(bert.state_dict(), *BERT_FORMS[form])
    if form == "the bare model":
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("cls.")}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    model = LxmertForPreTraining(LxmertConfig(**sizes))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with caplog.at_level(logging.INFO):
        report = load_weights(model.reference_state(), read_weights(tmp_path), "bert")
    theirs = bert.state_dict()
    theirs = renamed({k: v for k, v in theirs.items() if "seq_relationship" not in k}, (r"^bert\.", "lxmert."))
    taken = set()
    for name, tensor in model.state_dict().items():
        reference_own = name
        from_bert = reference_own in theirs and (form != "the bare model" or reference_own.startswith("lxmert."))
        assert torch.equal(tensor, theirs[reference_own] if from_bert else before[name]), name
        taken |= {reference_own} if from_bert else set()
    assert set(report.loaded) == taken and len(taken) == 5 + 2 * 16 + 2 + (0 if form == "the bare model" else 5)
    assert len(caplog.records) == 1
    lines = str(report).splitlines()
    assert lines[0].startswith("weights from bert (a BERT):")
    assert "lxmert.encoder.visn_fc (8), lxmert.encoder.r_layers.0 (16), lxmert.encoder.x_layers.0+1 (" in lines[1]
    assert "lxmert.encoder.layer.2+3 (32)" in lines[2]
    assert ("cls.next_sentence (2)" in lines[2]) == (form != "the bare model")


def test_a_berts_folder_opens_as_an_lxmert(bert, tmp_path):
    bert.save_pretrained(tmp_path)
    model = LxmertModel.from_pretrained(tmp_path, config=LxmertConfig(**LXMERT_OF_BERT))
    assert torch.equal(model.embeddings.word_embeddings.weight, bert.bert.embeddings.word_embeddings.weight)
    assert read_answers(tmp_path) is None


LXMERT_OF_BERT = {name: size for name, size in BERT_SIZES.items() if name != "num_hidden_layers"} | {"l_layers": 4}


def test_a_bert_with_too_few_layers_fails(bert, tmp_path):
    bert.save_pretrained(tmp_path)
    config = LxmertConfig(**LXMERT_OF_BERT | {"l_layers": 5})
    with pytest.raises(ValueError, match=r"(?s)lxmert.encoder.layer.4 \(16\).*\n16 encoder weights would keep"):
        LxmertModel.from_pretrained(tmp_path, config=config)


def test_a_bert_of_another_vocabulary_fails_and_says_so(bert, tmp_path):
    bert.save_pretrained(tmp_path)
    config = LxmertConfig(**LXMERT_OF_BERT | {"vocab_size": 77})
    with pytest.raises(
        ValueError, match=r"(?s)word_embeddings.weight \[61, 24\] -> \[77, 24\].*another vocabulary, 61"
    ):
        LxmertModel.from_pretrained(tmp_path, config=config)


def test_an_lxmert_that_lost_its_vision_is_no_bert(pretraining, sizes):
    blind = {k: v for k, v in pretraining.items() if not re.search(r"visn_fc|r_layers|x_layers", k)}
    model = LxmertForQuestionAnswering(LxmertConfig(**sizes))
    with pytest.raises(ValueError, match="encoder weights would keep random values"):
        load_weights(model.reference_state(), blind, "somewhere")


# Export


def export(to: str, source: Path, out: Path, *options: str) -> None:
    assert main(["export", "--to", to, *options, str(source), str(out)]) == 0


def failed_export(capsys, to: str, source: Path, out: Path, *options: str) -> str:
    files = sorted(out.parent.rglob("*"))
    assert main(["export", "--to", to, *options, str(source), str(out)]) == 1
    assert sorted(out.parent.rglob("*")) == files, "something was left behind"
    return capsys.readouterr().err


def test_a_pre_training_run_goes_to_the_reference_and_back_exactly(pretrained, pretraining, tmp_path, capsys):
    run = save_run(tmp_path / "last.ckpt", pretrained)
    export("reference", run, tmp_path / "new/folder")
    assert capsys.readouterr().out == (
        f"{tmp_path}/new/folder: LxmertForPreTraining, 170 tensors, heads answer_head, cls, obj_predict_head, "
        "7 answers; no vocabulary: none is kept with the weights\n"
    )
    assert sorted(path.name for path in (tmp_path / "new").rglob("*")) == [
        "README.md", "config.json", "folder", "model.safetensors"
    ]  # fmt: skip
    back = LxmertForPreTraining.from_pretrained(tmp_path / "new/folder")
    assert_same_weights(back, pretrained)
    assert back.config == pretrained.config
    theirs, report = reference.LxmertForPreTraining.from_pretrained(
        tmp_path / "new/folder", output_loading_info=True
    )
    assert not any(report.values()), report
    assert theirs.config.architectures == ["LxmertForPreTraining"]
    assert [theirs.config.id2label[label] for label in range(7)] == ANSWERS and theirs.config.label2id["2"] == 3
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, pretraining[name]), name

    call = {
        "input_ids": torch.randint(1, 61, (3, 5)),
        "visual_feats": torch.rand(3, 4, 10),
        "visual_pos": torch.rand(3, 4, 4),
    }
    with torch.no_grad():
        ours, other = pretrained(**call), theirs.eval()(**call)
    for score in ("prediction_logits", "cross_relationship_score", "question_answering_score"):
        torch.testing.assert_close(ours[score], other[score], atol=1e-5, rtol=1e-5)


def test_a_fine_tuned_run_goes_to_the_reference_and_back_exactly(sizes, tmp_path):
    trained = LxmertForQuestionAnswering(LxmertConfig(**sizes, answers=ANSWERS))
    export("reference", save_run(tmp_path / "best.ckpt", trained, "answering"), tmp_path / "out")
    back = LxmertForQuestionAnswering.from_pretrained(tmp_path / "out")
    assert_same_weights(back, trained)
    assert back.config == trained.config
    theirs, report = reference.LxmertForQuestionAnswering.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report.values()) and theirs.config.architectures == ["LxmertForQuestionAnswering"]
    assert torch.equal(theirs.answer_head.logit_fc[3].weight, trained.get_qa_logit_layer().weight)


def test_a_pre_training_run_goes_to_the_original_and_back_exactly(pretrained, pretraining, tmp_path):
    run, out = save_run(tmp_path / "last.ckpt", pretrained), tmp_path / "Epoch20_LXRT.pth"
    export("original", run, out)
    saved = torch.load(out, weights_only=True)
    assert saved.keys() == {re.sub(r"^lxmert\.", "bert.", name) for name in pretraining}
    tied = saved[TIED], saved["bert.embeddings.word_embeddings.weight"]
    assert tied[0].data_ptr() == tied[1].data_ptr()
    back = LxmertForPreTraining.from_pretrained(out, config=pretrained.config)
    assert_same_weights(back, pretrained)
    assert json.loads((tmp_path / "Epoch20_LXRT.answers.json").read_text())[5] == {"ans": "crème brûlée"}
    assert read_answers(out) == ANSWERS


@pytest.mark.parametrize("objective", ["answering", "image_pair"])
def test_a_fine_tuned_run_goes_to_the_original_and_back_exactly(sizes, reasoning, tmp_path, objective):
    answering = LxmertForQuestionAnswering(LxmertConfig(**sizes, answers=ANSWERS))
    trained = {"answering": answering, "image_pair": reasoning}[objective]
    run = save_run(tmp_path / "best.ckpt", trained, "answering")
    export("original", run, tmp_path / "BEST.pth")
    names = torch.load(tmp_path / "BEST.pth", weights_only=True).keys()
    assert {name for name in names if not name.startswith("lxrt_encoder.model.bert.")} == {
        f"logit_fc.{layer}.{kind}" for layer in (0, 2, 3) for kind in ("weight", "bias")
    }
    assert_same_weights(type(trained).from_pretrained(tmp_path / "BEST.pth", config=trained.config), trained)
    assert read_answers(tmp_path / "BEST.pth") == (ANSWERS if objective == "answering" else None)


def test_an_nlvr2_run_goes_to_the_references_folder_and_back_exactly(reasoning, tmp_path):
    export("reference", save_run(tmp_path / "best.ckpt", reasoning), tmp_path / "folder")
    back = LxmertForVisualReasoning.from_pretrained(tmp_path / "folder")
    assert_same_weights(back, reasoning)
    assert back.config == reasoning.config
    theirs, report = reference.LxmertModel.from_pretrained(tmp_path / "folder", output_loading_info=True)
    assert not report["missing_keys"] and all(name.startswith("pair_head.") for name in report["unexpected_keys"])
    assert torch.equal(theirs.pooler.dense.weight, reasoning.lxmert.pooler.dense.weight)


@pytest.mark.parametrize(
    ("objective", "switches", "left_out"),
    [
        ("matching", {"task_matched"}, "cls.predictions"),
        ("masked_region", {"task_obj_predict"}, "cls.predictions, cls.seq_relationship"),
    ],
)
def test_a_run_with_few_objectives_exports_what_it_trained(
    pretrained, tmp_path, capsys, objective, switches, left_out
):
    run = save_run(tmp_path / "last.ckpt", pretrained)
    content = torch.load(run, weights_only=True)
    content["state_dict"] = {
        name: tensor
        for name, tensor in content["state_dict"].items()
        if name.startswith(("model.", f"objectives.{objective}.")) and ".decoder_dict.attr." not in name
    }
    torch.save(content, run)
    export("reference", run, tmp_path / "folder")
    assert capsys.readouterr().out.endswith(f"; never trained and left out: {left_out}\n")
    config = LxmertConfig.from_pretrained(tmp_path / "folder")
    tasks = {"task_mask_lm", "task_matched", "task_obj_predict", "task_qa"}
    assert {task for task in tasks if getattr(config, task)} == switches
    assert config.visual_obj_loss and config.visual_attr_loss == (objective != "masked_region")
    export("original", run, tmp_path / "small_LXRT.pth")
    assert read_weights(tmp_path / "small_LXRT.pth").keys() == read_weights(run).keys()


def test_the_originals_file_goes_to_the_reference_with_a_config_and_the_answers_beside_it(
    pretrained, tmp_path, capsys
):
    export("original", save_run(tmp_path / "last.ckpt", pretrained), tmp_path / "a_LXRT.pth")
    message = failed_export(capsys, "reference", tmp_path / "a_LXRT.pth", tmp_path / "folder")
    assert "error: " in message and "a_LXRT.pth has no config; give one with --config" in message
    pretrained.config.answers = None
    pretrained.config.save_pretrained(tmp_path)
    export("reference", tmp_path / "a_LXRT.pth", tmp_path / "folder", "--config", str(tmp_path / "config.json"))
    back = LxmertForPreTraining.from_pretrained(tmp_path / "folder")
    assert_same_weights(back, pretrained)
    assert back.config.answers == ANSWERS


@pytest.mark.parametrize(
    ("to", "name", "message"),
    [
        ("reference", "there", "there exists and is not overwritten"),
        ("original", "there_LXRT.pth", "there_LXRT.pth exists and is not overwritten"),
        ("original", "old_LXRT.pth", "old_LXRT.answers.json exists and is not overwritten"),
        ("original", "BEST.pth", r"no cls, obj_predict_head in a file called BEST.pth; call OUT \*_LXRT.pth"),
        ("original", "weights.bin", r"weights.bin is no file name of the original's; call OUT \*_LXRT.pth or"),
        ("reference", "there/file/out", "there/file/out cannot be written: .*Not a directory|File exists"),
    ],
)
def test_an_export_that_cannot_be_written_says_why_and_leaves_nothing(
    pretrained, tmp_path, capsys, to, name, message
):
    run = save_run(tmp_path / "last.ckpt", pretrained)
    (tmp_path / "there").mkdir()
    for file in ("there/file", "there_LXRT.pth", "old_LXRT.answers.json"):
        (tmp_path / file).write_text("mine")
    error = failed_export(capsys, to, run, tmp_path / name)
    assert re.fullmatch(f"error: .*({message}).*\n", error), error


def test_a_head_on_two_images_has_no_place_in_a_pre_training_file(reasoning, tmp_path, capsys):
    error = failed_export(capsys, "original", save_run(tmp_path / "best.ckpt", reasoning), tmp_path / "a_LXRT.pth")
    assert "the original keeps no pair_head in a file called a_LXRT.pth; call OUT *.pth" in error


def test_a_full_disk_leaves_no_half_export(pretrained, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    run = save_run(tmp_path / "last.ckpt", pretrained)
    monkeypatch.setattr(weights_files, "save_file", full)
    assert "folder cannot be written: [Errno 28]" in failed_export(capsys, "reference", run, tmp_path / "folder")
    monkeypatch.setattr(torch, "save", full)
    assert "a_LXRT.pth cannot be written" in failed_export(capsys, "original", run, tmp_path / "a_LXRT.pth")


def test_an_export_refuses_what_is_not_whole_or_no_lxmert(bert, pretrained, tmp_path, capsys):
    bert.save_pretrained(tmp_path / "bert")
    message = failed_export(capsys, "reference", tmp_path / "bert", tmp_path / "out")
    assert "bert is a BERT; only an LXMERT can be exported" in message
    assert f"there is no file {tmp_path}/nothing.ckpt" in failed_export(
        capsys, "reference", tmp_path / "nothing.ckpt", tmp_path / "out"
    )
    run = save_run(tmp_path / "last.ckpt", pretrained)
    content = torch.load(run, weights_only=True)
    lost = content["state_dict"].pop("objectives.question_answering.head.logit_fc.2.bias")
    torch.save(content, run)
    message = failed_export(capsys, "original", run, tmp_path / "a_LXRT.pth")
    assert "1 missing, left at their initial values: answer_head.logit_fc.2.bias" in message
    content["state_dict"]["objectives.question_answering.head.logit_fc.2.bias"] = lost
    del content["lxmert_config"]
    torch.save(content, run)
    assert "last.ckpt has no config" in failed_export(capsys, "original", run, tmp_path / "a_LXRT.pth")


def test_the_command_exports(pretrained, tmp_path):
    run = save_run(tmp_path / "last.ckpt", pretrained)
    command = [sys.executable, "-m", "lxmert.checkpoint", "export", "--to", "original", str(run)]
    out = tmp_path / "a_LXRT.pth"
    done = subprocess.run([*command, str(out)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith(f"{out}: LxmertForPreTraining"), done.stderr
    assert read_weights(out).keys() == read_weights(run).keys()


# What a report says


def test_the_report_lists_what_was_loaded_missing_unexpected_and_reshaped(pretraining, sizes, caplog):
    weights = dict(pretraining)
    del weights["answer_head.logit_fc.0.bias"]
    model = LxmertForQuestionAnswering(LxmertConfig(**{**sizes, "num_qa_labels": 3}))
    before = model.get_qa_logit_layer().weight.clone()
    with caplog.at_level(logging.INFO):
        report = load_weights(model.reference_state(), weights, "somewhere")
    assert report.missing == ["answer_head.logit_fc.0.bias"]
    assert report.reshaped == [
        ("answer_head.logit_fc.3.weight", (7, 48), (3, 48)),
        ("answer_head.logit_fc.3.bias", (7,), (3,)),
    ]
    own = set(model.state_dict())
    assert set(report.loaded) == own - {
        name for name in own if name.endswith(("_fc.0.bias", "_fc.3.weight", "_fc.3.bias"))
    }
    assert report.unexpected == sorted(
        name for name in pretraining if name.startswith(("cls.", "obj_predict_head."))
    )
    assert not report.unloaded_encoder
    assert torch.equal(model.get_qa_logit_layer().weight, before)
    assert [record.getMessage() for record in caplog.records] == [str(report)]
    lines = str(report).splitlines()
    assert lines[0] == f"weights from somewhere: {len(report.loaded)} tensors loaded"
    assert lines[1] == "  1 missing, left at their initial values: answer_head.logit_fc.0.bias"
    assert "2 of another shape" in lines[2] and "answer_head.logit_fc.3.weight [7, 48] -> [3, 48]" in lines[2]
    assert lines[3:] == ["  18 not used: cls.predictions (6), cls.seq_relationship (2), obj_predict_head (10)"]


def test_a_complete_load_is_reported_in_one_line(pretraining, sizes):
    model = LxmertForQuestionAnswering(LxmertConfig(**sizes))
    weights = {name: tensor for name, tensor in model.state_dict().items()}
    assert "\n" not in str(load_weights(model.reference_state(), weights, "somewhere"))


@pytest.mark.parametrize("damage", ["missing", "reshaped"])
def test_missing_encoder_weights_fail_before_anything_is_copied(pretraining, sizes, tmp_path, damage):
    name = "lxmert.encoder.x_layers.1.visn_self_att.self.key.weight"
    weights = dict(pretraining)
    if damage == "missing":
        del weights[name]
    else:
        weights[name] = torch.zeros(48, 12)  # as many numbers as the model's (24, 24)
    model = LxmertForQuestionAnswering(LxmertConfig(**sizes))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"(?s)weights from there.*visn_self_att.*1 encoder weights would keep"):
        load_weights(model.reference_state(), weights, "there")
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())

    report = load_weights(model.reference_state(), weights, "there", allow_missing=True)
    assert report.unloaded_encoder == [name]
    for key, tensor in model.state_dict().items():
        expected = before[key] if key == name else pretraining[key]
        assert torch.equal(tensor, expected), key


def test_a_folder_of_another_architecture_fails_unless_told_otherwise(make_reference, sizes, tmp_path):
    make_reference("LxmertModel").save_pretrained(tmp_path)
    deeper = LxmertConfig(**{**sizes, "l_layers": 3})
    with pytest.raises(ValueError, match=r"16 missing.*\n16 encoder weights .* another architecture"):
        LxmertModel.from_pretrained(tmp_path, config=deeper)
    model = LxmertModel.from_pretrained(tmp_path, config=deeper, allow_missing=True)
    assert len(model.encoder.layer) == 3


def test_a_report_names_parts_in_few_words():
    layers = [f"lxmert.encoder.layer.{n}.output.dense.{kind}" for n in (10, 9, 11) for kind in ("weight", "bias")]
    assert (
        grouped([*layers, "lxmert.pooler.dense.bias"])
        == "lxmert.encoder.layer.9+10+11 (6), lxmert.pooler.dense.bias"
    )
    assert grouped(f"other{n}" for n in range(20)).endswith("other11, ... 8 more")


def test_weights_of_something_else_are_refused(sizes, tmp_path):
    path = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="0 tensors loaded"):
        LxmertModel.from_pretrained(path, config=LxmertConfig(**sizes))


@pytest.mark.parametrize(
    ("size", "value", "differs"),
    [
        ("vocab_size", 4_000_000, "word_embeddings.weight [61, 24] -> [4000000, 24]"),
        ("intermediate_size", 2**22, "intermediate.dense.weight [40, 24] -> [4194304, 24]"),
        ("num_qa_labels", 2**22, "answer_head.logit_fc.3.weight [7, 48] -> [4194304, 48]"),
        ("l_layers", 100, "lxmert.encoder.layer.2+3+4"),
    ],
)
def test_sizes_that_the_weights_do_not_have_are_found_before_memory_is_taken(
    sizes, tmp_path, monkeypatch, size, value, differs
):
    LxmertForQuestionAnswering(LxmertConfig(**sizes)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {size: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = []

    def watched(self, config):
        made.append(str(torch.empty(0).device))  # where the context that it is made in puts tensors
        start(self, config)

    start = LxmertForQuestionAnswering.__init__
    monkeypatch.setattr(LxmertForQuestionAnswering, "__init__", watched)
    with pytest.raises(InputError, match=re.escape(differs)):
        LxmertForQuestionAnswering.from_pretrained(tmp_path)
    assert made == ["meta"]


def test_a_head_of_other_sizes_than_the_config_beside_it_is_refused(pretrained, sizes, tmp_path, caplog):
    pretrained.save_pretrained(tmp_path)
    LxmertConfig(**{**sizes, "num_qa_labels": 3}).save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"logit_fc.3.bias \[7\] -> \[3\].*\n.*another model's. Get both from one"
    ):
        LxmertForPreTraining.from_pretrained(tmp_path)
    config = LxmertConfig.from_pretrained(tmp_path)
    model = LxmertForPreTraining.from_pretrained(tmp_path, config=config)  # another head is wanted
    assert model.num_qa_labels == 3 and "2 of another shape" in caplog.text
    assert_same_weights(model.lxmert, pretrained.lxmert)


# What is no weights


ODD = {
    "sparse": (lambda each: each.to_sparse(), "is sparse"),
    "nested": (lambda each: torch.nested.nested_tensor([each, each]), "is a nested tensor"),
    "quantised": (lambda each: torch.quantize_per_tensor(each, 0.1, 0, torch.qint8), "is quantised"),
    "without numbers": (lambda each: each.to("meta"), "is without numbers, on the device meta"),
    "larger than its file": (lambda each: torch.zeros(1).expand(24, 24), "more numbers than the file holds"),
    "nothing": (lambda each: None, "is of type NoneType"),
    "a list": (lambda each: [each], "is of type list"),
    "complex": (lambda each: each.to(torch.complex64), "is of type torch.complex64; expected floating-point"),
    "whole numbers": (lambda each: each.to(torch.int64), "is of type torch.int64; expected floating-point"),
    "NaN": (lambda each: each.index_fill(0, torch.tensor(3), float("nan")), "not finite"),
    "infinite": (lambda each: each.index_fill(0, torch.tensor(3), float("-inf")), "not finite"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("file", ["pytorch_model.bin", "best.ckpt"])
def test_what_is_no_dense_finite_tensor_of_floats_is_named(pretrained, tmp_path, kind, file):
    change, message = ODD[kind]
    if file == "best.ckpt":
        path, name = save_run(tmp_path / file, pretrained), "model.pooler.dense.weight"
    else:
        path, name = tmp_path / file, "lxmert.pooler.dense.weight"
        torch.save({own: each for own, each in pretrained.state_dict().items()}, path)
    content = torch.load(path, weights_only=True)
    weights = content.get("state_dict", content)
    weights[name] = change(weights[name])
    torch.save(content, path)
    with pytest.raises(InputError, match=rf"{file}.*pooler(.dense)?.weight.*{message}"):
        LxmertForPreTraining.from_pretrained(path, config=pretrained.config)


@pytest.mark.parametrize(
    "name",
    ["lxmert.embeddings.word_embeddings.weight", "answer_head.logit_fc.0.weight", "lxmert.pooler.dense.bias"],
)
def test_a_single_number_where_a_matrix_is_expected_is_of_another_shape(pretraining, sizes, tmp_path, name):
    LxmertConfig(**sizes).save_pretrained(tmp_path)
    torch.save(pretraining | {name: torch.tensor(0.5)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=rf"1 of another shape.*{name} \[\] -> \[\d"):
        LxmertForPreTraining.from_pretrained(tmp_path)


def test_whole_numbers_that_no_model_reads_do_not_matter(pretrained, tmp_path):
    weights = {own: each for own, each in pretrained.state_dict().items()}
    torch.save(weights | {"lxmert.embeddings.position_ids": torch.arange(16)}, tmp_path / "a.pth")
    back = LxmertForPreTraining.from_pretrained(tmp_path / "a.pth", config=pretrained.config)
    assert_same_weights(back, pretrained)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({0: torch.zeros(2)}, "a key is 0; expected"),
        ({("a", "b"): torch.zeros(2)}, r"a key is \('a', 'b'\); expected"),
        ({"state_dict": {1: torch.zeros(2)}}, "a key is 1; expected"),
        ({"state_dict": [torch.zeros(2)]}, "does not hold a dictionary of tensors; expected"),
        ({"bert.pooler.dense.bias": torch.zeros(2), "module.bert.pooler.dense.bias": torch.ones(2)}, "are both"),
    ],
)
def test_a_state_dict_without_plain_names_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(InputError, match=f"other.pth.*{message}"):
        read_weights(tmp_path / "other.pth")


def test_a_run_whose_config_is_none_is_named(pretrained, tmp_path):
    run = save_run(tmp_path / "last.ckpt", pretrained)
    content = torch.load(run, weights_only=True)
    readers = [kept_with, LxmertConfig.from_pretrained, LxmertForPreTraining.from_pretrained]
    for wrong, message in (
        ([1], "lxmert_config holds a list"),
        (content["lxmert_config"] | {"l_layers": "2"}, "lxmert_config: l_layers='2'; expected a whole number"),
        (content["lxmert_config"] | {"answers": [1] * 7}, r"lxmert_config: answers\[0\] is 1; expected the text"),
    ):
        torch.save(content | {"lxmert_config": wrong}, run)
        for read in [*readers, read_answers] if "answers" in message else readers:
            with pytest.raises(InputError, match=f"last.ckpt, {message}"):
                read(run)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"yes": 0}', r"the answer list is \{'yes': 0\}; expected a list"),
        ('["yes", 2]', r"the answer list\[1\] is 2; expected the text"),
        ('["yes", null]', r"the answer list\[1\] is None; expected the text"),
        ('[{"ans": "yes"}, {"answer": "no"}]', r"the answer list\[1\] is None; expected the text"),
        ('[["yes"]]', r"the answer list\[0\] is \['yes'\]; expected the text"),
        ('["yes", ', "broken or truncated JSON"),
        ('["\\ud800"]', "a text holds half a surrogate pair"),
    ],
)
def test_an_answer_list_of_something_else_is_named_with_its_place(tmp_path, content, message):
    (tmp_path / "all_ans.json").write_text(content)
    with pytest.raises(InputError, match=rf"{tmp_path}/all_ans.json: {message}"):
        read_answers(tmp_path / "all_ans.json")
    if not content.startswith("{"):
        (tmp_path / "config.json").write_text(f'{{"answers": {content}}}')
        if "ans" not in content:
            with pytest.raises(InputError, match=rf"{tmp_path}/config.json"):
                read_answers(tmp_path)


# Files that cannot be read


class Trap:
    """An object whose unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model_LXRT.pth", "last.ckpt", "pytorch_model.bin"])
@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_file_with_pickled_objects_is_refused_and_runs_no_code(tmp_path, name, plain_pickle):
    path, proof = tmp_path / name, tmp_path / "proof"
    content = {"bert.pooler.dense.bias": torch.zeros(3), "trap": Trap(proof)}
    if plain_pickle:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=f"{path} cannot be read as a PyTorch checkpoint") as error:
        read_weights(tmp_path if name == "pytorch_model.bin" else path)
    assert re.search(r"holds pickled objects other than tensors \(.*save the tensors alone", str(error.value))
    assert "weights_only" not in str(error.value)
    assert not proof.exists()
    torch.load(path, weights_only=False) if not plain_pickle else pickle.loads(path.read_bytes())
    assert proof.exists(), "the trap itself must work"


@pytest.mark.parametrize("name", ["model_LXRT.pth", "model.safetensors"])
@pytest.mark.parametrize("kept", [0, 5, 0.5])
def test_a_truncated_file_is_named(tmp_path, name, kept):
    path = tmp_path / name
    save = save_file if name.endswith("safetensors") else torch.save
    save({"pooler.dense.weight": torch.rand(50, 50)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    with pytest.raises(ValueError, match=f"{path} cannot be read as a .*download or export it again"):
        read_weights(path)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"model": {"a": torch.zeros(2)}}, {"epoch": 3}])
def test_a_file_that_holds_no_weights_is_named(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth does not hold a dictionary of tensors"):
        read_weights(tmp_path / "other.pth")


def test_a_folder_without_weights_is_named(tmp_path):
    LxmertConfig().save_pretrained(tmp_path)  # the published size: fails before a model is built
    message = f"{tmp_path} holds none of model.safetensors, pytorch_model.bin"
    with pytest.raises(FileNotFoundError, match=message):
        LxmertModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "best.ckpt"])
def test_a_checkpoint_with_a_wrong_checksum_is_refused(pretrained, tmp_path, name):
    path = save_run(tmp_path / name, pretrained)
    content = bytearray(path.read_bytes())
    number = pretrained.lxmert.pooler.dense.weight.detach().numpy().tobytes()
    place = bytes(content).index(number)
    content[place + 40] ^= 1  # one bit of one weight
    path.write_bytes(content)
    torch.load(path, weights_only=True)  # PyTorch does not see it
    with pytest.raises(InputError, match=rf"{name} cannot be read .*damaged or was cut off \(Bad CRC-32"):
        read_weights(path)
    content[place + 40] ^= 1
    place = bytes(content).index("crème".encode())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"Bad CRC-32 for file .*/data.pkl"):
        kept_with(path.rename(tmp_path / "text.ckpt"))


def test_a_safetensors_header_that_promises_more_than_the_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"pooler.dense.bias": torch.zeros(4)}, path)
    content = path.read_bytes()
    for wrong in (b"\xff" * 8 + content[8:], content.replace(b"[4]", b"[9]"), content.replace(b",16]", b",99]")):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match=f"{path} cannot be read as a safetensors file: it is damaged"):
            read_weights(path)


# The hub


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """The hub's cache, empty and without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("name", ["unc-nlp/lxmert-base-uncased", "/no/such/folder", "no such name", "a/b/c"])
def test_a_name_that_is_nowhere_says_what_to_do(offline, name):
    for load in (LxmertConfig.from_pretrained, LxmertModel.from_pretrained, read_weights):
        with pytest.raises(FileNotFoundError, match=f"{name} is no folder.*Pass an existing folder, or check"):
            load(name)


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
def test_a_cached_hub_name_opens_without_a_network(offline, make_reference, form):
    commit = "0" * 40
    repository = offline / "models--someone--lxmert"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    theirs = make_reference("LxmertModel")
    theirs.save_pretrained(snapshot)
    if form == "pytorch_model.bin":  # as older repositories have it
        (snapshot / "model.safetensors").unlink()
        torch.save(theirs.state_dict(), snapshot / form)
    ours = LxmertModel.from_pretrained("someone/lxmert")
    assert torch.equal(ours.pooler.dense.weight, theirs.pooler.dense.weight)


# Saving


def test_a_failed_save_leaves_the_old_file_and_nothing_else(sizes, tmp_path, monkeypatch):
    model = LxmertModel(LxmertConfig(**sizes))
    model.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def half(weights, path, metadata):
        Path(path).write_bytes(before[: len(before) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights_files, "save_file", half)
    with torch.no_grad():
        model.pooler.dense.bias.fill_(3)
    with pytest.raises(OSError, match="No space left"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "config.json"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("ne")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_saved_files_have_the_permissions_of_any_new_file(sizes, tmp_path):
    LxmertModel(LxmertConfig(**sizes)).save_pretrained(tmp_path)
    (tmp_path / "any").touch()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_saving_over_an_opened_folder_works(sizes, tmp_path):
    model = LxmertModel(LxmertConfig(**sizes))
    model.save_pretrained(tmp_path)
    again = LxmertModel.from_pretrained(tmp_path)
    again.save_pretrained(tmp_path)
    assert_same_weights(LxmertModel.from_pretrained(tmp_path), model)


# Answer heads


VOCABULARIES = ROOT.parent / "shared" / "data" / "vocab"


def head(rows):
    return {
        "answer_head.logit_fc.3.weight": torch.arange(rows * 2.0).view(rows, 2) + 1,
        "answer_head.logit_fc.3.bias": torch.arange(float(rows)) + 1,
    }


def test_an_answer_head_is_moved_to_another_answer_list_by_text():
    weights = head(3)
    assert match_answer_head(weights, ["gray", "2", "dog"], ["the dog", "cat", "Two", "grey."]) == 3
    assert weights["answer_head.logit_fc.3.weight"].tolist() == [[5, 6], [0, 0], [3, 4], [1, 2]]
    assert weights["answer_head.logit_fc.3.bias"].tolist() == [3, 0, 2, 1]


def test_the_same_text_comes_before_the_same_spelling():
    weights, answers = head(4), ["2", "two", "The dog.", "dog"]
    assert match_answer_head(weights, answers, answers) == 4
    assert all(torch.equal(tensor, head(4)[name]) for name, tensor in weights.items())


def test_an_answer_head_of_unknown_answers_is_not_loaded_by_place():
    weights = head(2)
    assert match_answer_head(weights, None, ["yes", "no"]) == 0
    assert not weights


def test_an_answer_list_of_another_head_is_refused():
    with pytest.raises(ValueError, match="3 answers for the 2 rows"):
        match_answer_head(head(2), ["a", "b", "c"], ["a"])


@pytest.mark.skipif(not VOCABULARIES.exists(), reason="the released answer lists of ../shared/data are not there")
@pytest.mark.parametrize(("task", "found", "of"), [("vqa", 3124, 3129), ("gqa", 1736, 1842)])
def test_the_released_answer_lists_match_as_published(task, found, of):
    theirs = read_answers(VOCABULARIES / "all_ans.json")
    ours = read_answers(VOCABULARIES / f"{task}_trainval_label2ans.json")
    assert (len(theirs), len(ours)) == (9500, of)
    assert match_answer_head(head(9500), theirs, ours) == found


# Names


@pytest.mark.parametrize(
    "name", ["LxmertForPreTraining", "LxmertForQuestionAnswering", "LxmertForVisualReasoning"]
)
def test_names_go_to_the_original_and_to_runs_and_back(name, sizes):
    own = set(getattr(lxmert, name)(LxmertConfig(**sizes)).state_dict())
    for pretrained in (True, False) if name == "LxmertForQuestionAnswering" else (name == "LxmertForPreTraining",):
        there = {to_original(each, pretrained): each for each in own}
        assert len(there) == len(own)
        # NLVR2's head has the name of an answer head there; its shape tells.
        back = {
            from_foreign(other).replace("answer_head", "pair_head" if "Visual" in name else "answer_head")
            for other in there
        }
        assert back == own
    heads = {head: f"objectives.{objective}.head" for objective, head in HEADS.items()} | {"lxmert": "model"}
    runs = {
        next(new + each.removeprefix(old) for old, new in heads.items() if each.startswith(f"{old}."))
        for each in own
    }
    names = reference_names(runs, HEADS)
    assert set(names) == runs and set(names.values()) == own


@pytest.mark.parametrize(
    "name", ["model", "encoder.layer.0.bias", "objectives.mine.head.weight", "objectives.matching.scale"]
)
def test_a_name_of_no_part_that_is_known_is_refused(name):
    with pytest.raises(
        InputError, match=rf"{re.escape(name)} is the name of no weight .*names its head in `head_name`"
    ):
        reference_names(["model.pooler.dense.bias", name], HEADS)


def test_a_head_without_a_place_there_is_never_left_out_in_silence(pretrained, tmp_path, capsys):
    run = save_run(tmp_path / "last.ckpt", pretrained)
    content = torch.load(run, weights_only=True)
    content["heads"]["mine"] = "my_head"
    content["state_dict"]["objectives.mine.head.weight"] = torch.ones(2)
    torch.save(content, run)
    assert "my_head.weight" in read_weights(run)
    for to, out in (("reference", "folder"), ("original", "a_LXRT.pth")):
        message = failed_export(capsys, to, run, tmp_path / out)
        assert "last.ckpt holds my_head.weight, which no model of the reference or the original" in message
        assert not (tmp_path / out).exists()
