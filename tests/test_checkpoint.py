"""Weights from and for other projects: folders, the original release's files, reports, failures."""

import logging
import pickle
import re
import stat
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.lxmert import modeling_lxmert as reference

import lxmert
import lxmert.checkpoint
from lxmert import LxmertConfig, LxmertForQuestionAnswering, LxmertModel
from lxmert.checkpoint import load_weights, match_answer_head, read_answers, read_weights, reference_name
from lxmert.files import replacing, write_text

CLASSES = ["LxmertModel", "LxmertForQuestionAnswering"]


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
    assert load_file(tmp_path / "ours/model.safetensors").keys() == theirs.state_dict().keys()
    back, report = getattr(reference, name).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert_same_weights(back, theirs)
    assert_same_weights(getattr(lxmert, name).from_pretrained(tmp_path / "ours"), ours)


@pytest.mark.parametrize("name", CLASSES)
def test_our_names_are_a_bijection_onto_the_references_at_the_published_size(name):
    with torch.device("meta"):
        ours = getattr(lxmert, name)(LxmertConfig())
        theirs = getattr(reference, name)(transformers.LxmertConfig())
    prefix = ours.reference_prefix
    shapes = {}
    for own, tensor in ours.state_dict().items():
        translated = reference_name(prefix + own)
        if prefix:
            assert translated.startswith("lxmert.")
            translated = translated.removeprefix("lxmert.")
        assert translated not in shapes, f"{translated} stands for two of our parameters"
        shapes[translated] = tensor.shape
    assert shapes == {other: tensor.shape for other, tensor in theirs.state_dict().items()}


def test_a_folder_with_pytorch_model_bin_opens(make_reference, tmp_path):
    theirs = make_reference("LxmertForQuestionAnswering")
    theirs.config.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    ours = LxmertForQuestionAnswering.from_pretrained(tmp_path)
    assert torch.equal(ours.answer_head[0].weight, theirs.answer_head.logit_fc[0].weight)


def test_a_bare_model_opens_the_encoder_of_a_folder_with_heads(make_reference, tmp_path, caplog):
    theirs = make_reference("LxmertForQuestionAnswering")
    theirs.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        ours = LxmertModel.from_pretrained(tmp_path)
    assert torch.equal(ours.pooler.weight, theirs.lxmert.pooler.dense.weight)
    assert "6 unexpected, not used: answer_head.logit_fc.0.bias" in caplog.text


def test_a_bare_folder_opens_with_a_new_answer_head_and_says_so(make_reference, tmp_path, caplog):
    theirs = make_reference("LxmertModel")
    theirs.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        ours = LxmertForQuestionAnswering.from_pretrained(tmp_path)
    assert torch.equal(ours.lxmert.embeddings.word.weight, theirs.embeddings.word_embeddings.weight)
    assert "6 missing, left at their initial values: answer_head.logit_fc.0.weight" in caplog.text


def test_the_answers_travel_with_the_weights(sizes, tmp_path):
    answers = ["yes", "no", "", "2", "don't", "crème brûlée", "grey"]
    LxmertForQuestionAnswering(LxmertConfig(**sizes, answers=answers)).save_pretrained(tmp_path)
    assert LxmertForQuestionAnswering.from_pretrained(tmp_path).config.answers == answers
    assert reference.LxmertForQuestionAnswering.from_pretrained(tmp_path).num_qa_labels == 7


def test_weights_of_half_precision_become_the_models_precision(make_reference, tmp_path):
    theirs = make_reference("LxmertModel")
    theirs.half().save_pretrained(tmp_path)
    ours = LxmertModel.from_pretrained(tmp_path)
    assert ours.pooler.weight.dtype == torch.float32
    assert torch.equal(ours.pooler.weight, theirs.pooler.dense.weight.float())


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
    report = load_weights(model, read_weights(path), str(path))
    assert not report.missing and not report.reshaped
    assert {name.split(".")[0] for name in report.unexpected} == (
        set() if form.startswith("fine-tuned") else {"cls", "obj_predict_head"}
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, pretraining[reference_name(name)]), name


def test_an_original_file_opens_without_a_config_at_the_published_size(monkeypatch, pretraining, sizes, tmp_path):
    path = tmp_path / "BEST.pth"
    torch.save(renamed(pretraining, *ORIGINAL["pre-trained"]), path)
    asked = []
    monkeypatch.setattr(
        lxmert.checkpoint, "LxmertConfig", lambda: asked.append("published") or LxmertConfig(**sizes)
    )
    LxmertForQuestionAnswering.from_pretrained(path)
    assert asked == ["published"]
    other = LxmertConfig(**{**sizes, "num_qa_labels": 3})
    model = LxmertForQuestionAnswering.from_pretrained(path, config=other)
    assert asked == ["published"] and model.num_qa_labels == 3


def test_a_runs_checkpoint_loads_into_a_model(sizes, tmp_path):
    trained = LxmertForQuestionAnswering(LxmertConfig(**sizes))
    names = {"lxmert.": "model.", "answer_head.": "objectives.answering.head."}
    weights = {
        re.sub(r"^(lxmert|answer_head)\.", lambda match: names[match[0]], name): tensor
        for name, tensor in trained.state_dict().items()
    }
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "best.ckpt")
    model = LxmertForQuestionAnswering.from_pretrained(tmp_path / "best.ckpt", config=trained.config)
    assert_same_weights(model, trained)


# What a report says


def test_the_report_lists_what_was_loaded_missing_unexpected_and_reshaped(pretraining, sizes, caplog):
    weights = dict(pretraining)
    del weights["answer_head.logit_fc.0.bias"]
    model = LxmertForQuestionAnswering(LxmertConfig(**{**sizes, "num_qa_labels": 3}))
    before = model.get_qa_logit_layer().weight.clone()
    with caplog.at_level(logging.INFO):
        report = load_weights(model, weights, "somewhere")
    assert report.missing == ["answer_head.logit_fc.0.bias"]
    assert report.reshaped == [
        ("answer_head.logit_fc.3.weight", (7, 48), (3, 48)),
        ("answer_head.logit_fc.3.bias", (7,), (3,)),
    ]
    own = {reference_name(name) for name in model.state_dict()}
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
    assert lines[3].startswith(f"  {len(report.unexpected)} unexpected, not used: cls.")
    assert lines[3].endswith(f"... {len(report.unexpected) - 6} more")


def test_a_complete_load_is_reported_in_one_line(pretraining, sizes):
    model = LxmertForQuestionAnswering(LxmertConfig(**sizes))
    weights = {reference_name(name): tensor for name, tensor in model.state_dict().items()}
    assert "\n" not in str(load_weights(model, weights, "somewhere"))


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
        load_weights(model, weights, "there")
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())

    report = load_weights(model, weights, "there", allow_missing=True)
    assert report.unloaded_encoder == [name]
    for key, tensor in model.state_dict().items():
        expected = before[key] if reference_name(key) == name else pretraining[reference_name(key)]
        assert torch.equal(tensor, expected), key


def test_a_folder_of_another_architecture_fails_unless_told_otherwise(make_reference, sizes, tmp_path):
    make_reference("LxmertModel").save_pretrained(tmp_path)
    deeper = LxmertConfig(**{**sizes, "l_layers": 3})
    with pytest.raises(ValueError, match=r"16 missing.*\n16 encoder weights .* another architecture"):
        LxmertModel.from_pretrained(tmp_path, config=deeper)
    model = LxmertModel.from_pretrained(tmp_path, config=deeper, allow_missing=True)
    assert len(model.language_layers) == 3


def test_weights_of_something_else_are_refused(sizes, tmp_path):
    path = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="0 tensors loaded"):
        LxmertModel.from_pretrained(path, config=LxmertConfig(**sizes))


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
    with pytest.raises(ValueError, match=f"{path} cannot be read as a PyTorch checkpoint"):
        read_weights(tmp_path if name == "pytorch_model.bin" else path)
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
    assert torch.equal(ours.pooler.weight, theirs.pooler.dense.weight)


# Saving


def test_a_failed_save_leaves_the_old_file_and_nothing_else(sizes, tmp_path, monkeypatch):
    model = LxmertModel(LxmertConfig(**sizes))
    model.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def half(weights, path, metadata):
        Path(path).write_bytes(before[: len(before) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lxmert.checkpoint, "save_file", half)
    with torch.no_grad():
        model.pooler.bias.fill_(3)
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


VOCABULARIES = Path(__file__).parents[1].parent / "shared" / "data" / "vocab"


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
