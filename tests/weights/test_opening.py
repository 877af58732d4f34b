"""from_pretrained, save_pretrained and push_to_hub as code written for the reference library calls them."""

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub.errors import EntryNotFoundError
from transformers.models.lxmert import modeling_lxmert as reference

from lxmert import LxmertConfig, LxmertForQuestionAnswering, LxmertModel, LxmertTokenizer
from lxmert.files import InputError

ANSWERS = ["yes", "no", "2", "gray", "cat", "dog", "left"]


@pytest.fixture
def model(sizes):
    torch.manual_seed(0)
    return LxmertForQuestionAnswering(LxmertConfig(**sizes, answers=ANSWERS)).eval()


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def same(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_values_of_the_config_are_changed_on_the_way(folder):
    found = LxmertForQuestionAnswering.from_pretrained(
        folder, output_attentions=True, hidden_dropout_prob=0.25, return_dict=False,
        id2label=dict(enumerate(ANSWERS)), label2id={answer: label for label, answer in enumerate(ANSWERS)},
    )  # fmt: skip
    assert found.config.output_attentions and found.config.hidden_dropout_prob == 0.25
    assert not found.config.return_dict and found.config.answers == ANSWERS


def test_another_number_of_answers_is_refused_or_starts_anew_as_in_the_reference(folder, model):
    with pytest.raises(InputError, match=r"answer_head.logit_fc.3.weight \[7, 48\] -> \[3, 48\]"):
        LxmertForQuestionAnswering.from_pretrained(folder, num_qa_labels=3)
    with pytest.raises(RuntimeError, match="mismatch"):
        reference.LxmertForQuestionAnswering.from_pretrained(folder, num_qa_labels=3)
    torch.manual_seed(0)
    found, info = LxmertForQuestionAnswering.from_pretrained(
        folder, num_qa_labels=3, ignore_mismatched_sizes=True, output_loading_info=True
    )
    _, expected = reference.LxmertForQuestionAnswering.from_pretrained(
        folder, num_qa_labels=3, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert found.num_qa_labels == 3 and found.config.answers is None
    assert found.answer_head.logit_fc[3].weight.std() < 0.1  # initial
    assert torch.equal(found.answer_head.logit_fc[0].weight, model.answer_head.logit_fc[0].weight)
    for name in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert info[name] == set(expected[name]), name
    again = LxmertForQuestionAnswering.from_pretrained(folder, num_qa_labels=7)
    assert again.config.answers == ANSWERS and same(again, model)


def test_texts_of_labels_are_kept_and_are_the_answers_where_there_are_none(model, tmp_path):
    def saved(config):
        LxmertForQuestionAnswering(config).save_pretrained(tmp_path)
        return json.loads((tmp_path / "config.json").read_text())

    texts = dict(enumerate("abc"))
    written = saved(model.config.replace(id2label=texts))
    assert written["id2label"] == {"0": "a", "1": "b", "2": "c"} and written["label2id"]["c"] == 2
    found = LxmertConfig.from_pretrained(tmp_path)
    assert found.id2label == texts and found.answers == ANSWERS
    assert saved(model.config.replace(num_labels=3))["id2label"]["6"] == "left"
    # Other answers: the texts of the old ones go.
    others = [f"answer {label}" for label in range(12)]
    saved(model.config.replace(answers=others, num_qa_labels=12))
    found = LxmertConfig.from_pretrained(tmp_path, answers=ANSWERS, num_qa_labels=7)
    assert saved(found)["id2label"]["3"] == "gray"
    assert LxmertConfig.from_pretrained(tmp_path, num_qa_labels=3).num_labels == 2  # the reference's


def test_other_sizes_of_the_encoder_are_refused_unless_they_are_to_be_ignored(folder):
    with pytest.raises(InputError, match="encoder weights would keep random values"):
        LxmertModel.from_pretrained(folder, max_position_embeddings=20)
    found, info = LxmertModel.from_pretrained(
        folder, max_position_embeddings=20, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert found.embeddings.position_embeddings.num_embeddings == 20
    assert len(info["mismatched_keys"]) == 1 and len(info["unexpected_keys"]) == 6
    with pytest.raises(InputError, match="encoder weights would keep random values"):  # missing, not mismatched
        LxmertModel.from_pretrained(folder, l_layers=3, ignore_mismatched_sizes=True)


def test_a_config_is_an_object_a_path_or_the_references(folder, model, tmp_path):
    theirs = transformers.LxmertConfig.from_pretrained(folder)
    for config in (model.config, str(folder), folder / "config.json", theirs):
        found = LxmertForQuestionAnswering.from_pretrained(folder, config=config)
        assert same(found, model) and found.config == model.config and found.config is not config
    with pytest.raises(TypeError, match="colour"):
        LxmertForQuestionAnswering.from_pretrained(folder, colour="red")


def test_what_changes_nothing_is_taken(folder, model):
    found = LxmertForQuestionAnswering.from_pretrained(
        folder, low_cpu_mem_usage=True, attn_implementation="sdpa", trust_remote_code=True, weights_only=True,
        local_files_only=True, force_download=False, revision="main", token=None, use_safetensors=True,
        cache_dir="nowhere", device_map="cpu",
    )  # fmt: skip
    assert same(found, model) and found.device == torch.device("cpu") and found.name_or_path == str(folder)
    assert LxmertForQuestionAnswering.from_pretrained(folder, device_map={"": "meta"}).device.type == "meta"
    with pytest.raises(ValueError, match="expected one device"):
        LxmertForQuestionAnswering.from_pretrained(folder, device_map={"lxmert": 0, "answer_head": 1})


def test_weights_may_be_given(folder, model):
    state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    found = LxmertForQuestionAnswering.from_pretrained(folder, state_dict=state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.state_dict().items())
    bare = LxmertModel.from_pretrained(None, config=model.config, state_dict=model.lxmert.state_dict())
    assert same(bare, model.lxmert)
    found = LxmertForQuestionAnswering.from_pretrained(None, config=model.config, state_dict=state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.state_dict().items())


def test_the_file_is_chosen(model, tmp_path):
    changed = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "part", state_dict=changed, safe_serialization=False)
    model.save_pretrained(save_directory=tmp_path / "part")
    model.save_pretrained(tmp_path / "part", state_dict={n: t + 2 for n, t in changed.items()}, variant="fp16")
    assert sorted(path.name for path in (tmp_path / "part").iterdir()) == [
        "config.json", "model.fp16.safetensors", "model.safetensors", "pytorch_model.bin"
    ]  # fmt: skip
    bias = model.answer_head.logit_fc[3].bias
    for options, plus in (({}, 0), ({"use_safetensors": False}, 1), ({"variant": "fp16"}, 3)):
        for kind in (LxmertForQuestionAnswering, reference.LxmertForQuestionAnswering):
            found = kind.from_pretrained(tmp_path, subfolder="part", **options)
            assert torch.equal(found.answer_head.logit_fc[3].bias, bias + plus), (kind, options)
    with pytest.raises(TypeError, match="no option colour"):
        model.save_pretrained(tmp_path / "other", colour="red")
    with pytest.raises(FileNotFoundError, match=r"none of model\.bf16\.safetensors, pytorch_model\.bf16\.bin"):
        LxmertForQuestionAnswering.from_pretrained(tmp_path / "part", variant="bf16")


def test_what_was_saved_last_is_opened(model, tmp_path):
    bias = model.answer_head.logit_fc[3].bias
    for plus, options in enumerate(
        [{}, {"safe_serialization": False}, {}, {"variant": "a"}, {"variant": "a", "safe_serialization": False}]
    ):
        state = {name: tensor + plus for name, tensor in model.state_dict().items()}
        model.save_pretrained(tmp_path, state_dict=state, **options)
        found = LxmertForQuestionAnswering.from_pretrained(tmp_path, variant=options.get("variant"))
        assert torch.equal(found.answer_head.logit_fc[3].bias, bias + plus), options
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "model.safetensors", "pytorch_model.bin", "pytorch_model.a.bin"
    }  # fmt: skip


def test_a_saved_tuple_of_a_bare_model_has_its_names(model, tmp_path):
    bare = model.lxmert
    bare.save_pretrained(tmp_path, state_dict={name: tensor * 2 for name, tensor in bare.state_dict().items()})
    found = reference.LxmertModel.from_pretrained(tmp_path)
    assert torch.equal(found.pooler.dense.weight, bare.pooler.dense.weight * 2)


# The hub, of which the project's part is what it asks for and what it sends


def test_what_is_asked_of_the_hub(folder, model, monkeypatch):
    asked = []

    def download(repository, file, **options):
        asked.append((repository, file, options))
        if not (folder / file).exists():
            raise EntryNotFoundError("no such file")
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    options = {
        "revision": "v2", "cache_dir": "here", "token": "secret", "subfolder": "part", "local_files_only": True,
        "force_download": True,
    }  # fmt: skip
    found = LxmertForQuestionAnswering.from_pretrained("owner/name", num_qa_labels=7, **options)
    assert same(found, model) and found.name_or_path == "owner/name"
    assert LxmertConfig.from_pretrained("owner/name", **options) == model.config
    assert asked == [("owner/name", file, options) for file in ("config.json", "model.safetensors", "config.json")]
    asked.clear()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model.bin cannot be read as a PyTorch checkpoint"):
        LxmertForQuestionAnswering.from_pretrained("owner/name")
    usual = {**dict.fromkeys(options, None), "local_files_only": False, "force_download": False}
    assert [file for _, file, each in asked if each == usual] == [
        "config.json", "model.safetensors", "pytorch_model.bin"
    ]  # fmt: skip


@pytest.fixture
def sent(monkeypatch):
    """What goes to the hub: calls, and the files of an upload."""
    calls = []

    class Api:
        def __init__(self, token=None):
            calls.append(token)

        def create_repo(self, repo_id, **options):
            calls.append(options)
            return SimpleNamespace(repo_id=f"me/{repo_id}" if "/" not in repo_id else repo_id)

        def upload_folder(self, *, folder_path, **options):
            calls.append(options)
            calls.append({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})
            return SimpleNamespace(commit_url="https://hub/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return calls


def test_a_model_is_sent_with_its_card_and_its_vocabulary(folder, sent):
    tokenizer = LxmertTokenizer()
    tokenizer.save_pretrained(folder)
    model = LxmertForQuestionAnswering.from_pretrained(folder)
    address = model.push_to_hub("me/cats", commit_message="first", private=True, token="secret", revision="next")
    token, made, options, files = sent
    assert address == "https://hub/commit/1" and token == "secret" and made == {"private": True, "exist_ok": True}
    assert options == {
        "repo_id": "me/cats", "commit_message": "first", "commit_description": None, "revision": "next",
        "create_pr": False,
    }  # fmt: skip
    assert set(files) == {
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"
    }  # fmt: skip
    card = files["README.md"].decode()
    assert 'from_pretrained("me/cats")' in card and "7: yes, no, 2, gray" in card
    assert json.loads(files["config.json"])["answers"] == ANSWERS


def test_the_card_of_a_class_of_ones_own_imports_what_there_is(sent, sizes):
    class Own(LxmertModel):
        pass

    Own(LxmertConfig(**sizes)).push_to_hub("me/lxmert-v1.5")
    card = sent[3]["README.md"].decode()
    assert "# lxmert-v1.5\n" in card
    assert "from lxmert import LxmertTokenizer\n\nmodel = Own.from_pretrained" in card


def test_saving_sends_too_where_asked(model, sent, tmp_path):
    model.save_pretrained(tmp_path / "cats", push_to_hub=True, commit_message="first")
    assert (tmp_path / "cats" / "model.safetensors").is_file()
    assert sent[2]["repo_id"] == "me/cats" and set(sent[3]) == {"README.md", "config.json", "model.safetensors"}
    sent.clear()
    model.config.save_pretrained(tmp_path / "cats", push_to_hub=True, repo_id="you/dogs")
    assert sent[2]["repo_id"] == "you/dogs" and set(sent[3]) == {"config.json"}
    sent.clear()
    model.config.push_to_hub("you/dogs", create_pr=True)
    assert sent[2]["create_pr"]
