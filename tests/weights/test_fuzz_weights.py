"""Damaged configs, tokenizers, weights and answer lists: one error in the project's words, or read."""

import io
import json
import struct
import zipfile

import pytest
import torch
from fuzzing import COUNT, VALUES, damaged, mistaken, mistaken_json, survives
from test_checkpoint import save_run

from lxmert import LxmertConfig, LxmertForQuestionAnswering, LxmertTokenizer, load_run, save_run_model
from lxmert.weights import read_answers, write_tf_h5

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnop", "##a", "cat", "é"]
ANSWERS = ["yes", "no", "", "2", "don't", "crème brûlée", "gray"]
SIZES = {
    "vocab_size": len(PIECES), "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "l_layers": 1,
    "r_layers": 1, "x_layers": 1, "visual_feat_dim": 4, "max_position_embeddings": 8,
    "num_qa_labels": len(ANSWERS), "num_object_labels": 3, "num_attr_labels": 2,
}  # fmt: skip
TRIES = COUNT if COUNT > 40 else 2  # each is a fork of all of PyTorch, and there are many files


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LxmertForQuestionAnswering(LxmertConfig(**SIZES, answers=ANSWERS)).eval()


@pytest.fixture
def tokenizer():
    return LxmertTokenizer({piece: i for i, piece in enumerate(PIECES)})


@pytest.fixture
def folder(model, tmp_path):
    """As the reference has it."""
    model.save_pretrained(tmp_path)
    return tmp_path


def opened(folder):
    """Opens the model in a folder, whichever of its files was changed."""
    return lambda _: LxmertForQuestionAnswering.from_pretrained(folder)


def whole(found):
    """The sizes of a model are its config's, and its numbers are numbers."""
    assert found.num_qa_labels == found.get_qa_logit_layer().out_features
    assert all(tensor.isfinite().all() for tensor in found.state_dict().values())
    assert LxmertConfig.from_dict(json.loads(found.config.to_json_string())) == found.config


def usable(found):
    """A tokenizer's calls work."""
    found.decode(found("a cat é [MASK] zzz")["input_ids"])
    found(["a", "b c"], padding=True, truncation=True, max_length=4, return_tensors="pt")
    assert sorted(found.get_vocab().values()) == list(range(len(found)))


def texts(answers):
    """An answer list holds texts."""
    assert answers is None or all(answer.encode() is not None for answer in answers)


@pytest.mark.parametrize("change", [damaged, mistaken_json])
def test_a_config_beside_weights(folder, change):
    survives(opened(folder), folder / "config.json", change, TRIES, verify=whole)


@pytest.mark.parametrize("change", [damaged, mistaken_json])
@pytest.mark.parametrize("form", ["plain", "of the original"])
def test_an_answer_list(tmp_path, change, form):
    path = tmp_path / "all_ans.json"
    path.write_text(json.dumps(ANSWERS if form == "plain" else [{"ans": each, "dsets": []} for each in ANSWERS]))
    survives(read_answers, path, change, TRIES, verify=texts)


@pytest.mark.parametrize("change", [damaged, mistaken_json])
def test_answers_in_any_config(folder, change):
    survives(lambda _: read_answers(folder), folder / "config.json", change, TRIES, verify=texts)


# Tokenizers


def mistaken_lines(content, chance):
    """A vocabulary with a line removed, doubled, blank, or one that no vocabulary has."""
    lines = content.decode().splitlines()
    place = chance.randrange(len(lines))
    lines[place : place + 1] = chance.choice([[], [lines[place]] * 2, [""], ["  "], ["\ufeff"], ["\0"], ["a b"]])
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.mark.parametrize("change", [damaged, mistaken_lines])
def test_a_vocabulary(tokenizer, tmp_path, change):
    tokenizer.save_vocabulary(tmp_path)
    for read in (LxmertTokenizer, LxmertTokenizer.from_pretrained):
        survives(read, tmp_path / "vocab.txt", change, TRIES, verify=usable)


@pytest.mark.parametrize("change", [damaged, mistaken_json])
@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
)
def test_a_tokenizers_files(tokenizer, tmp_path, change, name):
    tokenizer.save_pretrained(tmp_path)
    token = {"content": "[CLS]", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    named = {"cls_token": token, "mask_token": "[MASK]", "additional_special_tokens": ["[IMG]", "zebra"]}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(named))
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["added_tokens_decoder"]  # else the older files do not count
    if name != "tokenizer.json":
        (tmp_path / "added_tokens.json").write_text(
            json.dumps({"[IMG]": len(tokenizer), "zebra": len(tokenizer) + 1})
        )
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(config | {"extra_special_tokens": ["[IMG]", token]})
    )

    def read(_):
        return LxmertTokenizer.from_pretrained(tmp_path)

    survives(read, tmp_path / name, change, TRIES, verify=usable)
    if name != "tokenizer.json":
        (tmp_path / "tokenizer.json").unlink()
        if name == "tokenizer_config.json":
            config["added_tokens_decoder"] = {"2": token | {"special": True}}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        survives(read, tmp_path / name, change, TRIES, verify=usable)


# Weights


def mistaken_header(content, chance):
    """A safetensors file with a mistake in its header."""
    length = struct.unpack("<Q", content[:8])[0]
    if not chance.randrange(8):
        return struct.pack("<Q", chance.choice([0, 1, length - 1, length + 1, 2**31, 2**40, 2**63])) + content[8:]
    header = mistaken_json(content[8 : 8 + length], chance)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def mistaken_pickle(content, chance):
    """A PyTorch file with damage in its pickle and the checksum of the damaged one."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    place = next(name for name in records if name.endswith("/data.pkl"))
    records[place] = damaged(records[place], chance)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, record in records.items():
            archive.writestr(name, record)
    return file.getvalue()


def mistaken_tensor(tensor, chance):
    """What may stand where weights should."""
    kinds = [
        lambda: tensor.to_sparse(),
        lambda: tensor.to(torch.complex64),
        lambda: tensor.to(chance.choice([torch.int64, torch.bool, torch.float16, torch.float64, torch.uint8])),
        lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda: tensor.to("meta"),
        lambda: torch.nested.nested_tensor([tensor.flatten(), tensor.flatten()]),
        lambda: tensor[:0],
        lambda: tensor.flatten()[0].clone(),
        lambda: torch.zeros(1).expand(2**20, 2**20),
        lambda: torch.full_like(tensor, chance.choice([float("nan"), float("inf")])),
        lambda: {"inner": tensor},
        lambda: [tensor],
        lambda: chance.choice(VALUES),
    ]
    return chance.choice(kinds)()


def mistaken_weights(content, chance):
    """A PyTorch file with one of its entries mistaken, removed or renamed."""
    found = torch.load(io.BytesIO(content), weights_only=True)
    weights = found.get("state_dict", found)
    name = chance.choice(list(weights))
    kind = chance.randrange(6 if weights is found else 8)
    if kind < 4:
        weights[name] = mistaken_tensor(weights[name], chance)
    elif kind == 4:
        weights[chance.choice([0, None, ("a", 1), "", "\ud800", "x" * 10_000, 1.5, name + "."])] = weights.pop(
            name
        )
    elif kind == 5:
        found = chance.choice([found, [found], {}, weights[name], None, {"state_dict": weights[name]}])
    elif kind == 6:
        found["lxmert_config"] = mistaken(found["lxmert_config"], chance)
    else:
        found[chance.choice(["state_dict", "lxmert_config"])] = chance.choice(VALUES)
    file = io.BytesIO()
    torch.save(found, file)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("change", [damaged, mistaken_header])
def test_a_safetensors_file(folder, change):
    survives(
        lambda _: LxmertForQuestionAnswering.from_pretrained(folder), folder / "model.safetensors", change, TRIES
    )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("change", [damaged, mistaken_pickle, mistaken_weights])
def test_a_file_of_pytorch(model, folder, change):
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(model.reference_state(), path)
    survives(opened(folder), path, change, TRIES, verify=whole)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("change", [damaged, mistaken_weights])
def test_a_file_of_the_originals_time(model, folder, change):
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(model.reference_state(), path, _use_new_zipfile_serialization=False)
    survives(opened(folder), path, change, TRIES)


def test_a_file_of_tensorflow(model, folder):
    (folder / "model.safetensors").unlink()
    path = folder / "tf_model.h5"
    write_tf_h5(path, model.reference_state(), "tf_lxmert_for_question_answering")
    survives(opened(folder), path, damaged, TRIES, verify=whole)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("change", [damaged, mistaken_pickle, mistaken_weights])
def test_a_checkpoint_of_a_run(model, tokenizer, tmp_path, change):
    save_run_model(tmp_path, model.config, tokenizer, "sigmoid")
    (tmp_path / "checkpoints").mkdir()
    path = save_run(tmp_path / "checkpoints" / "best.ckpt", model, "answering")
    survives(lambda _: load_run(tmp_path), path, change, TRIES, verify=lambda run: whole(run.model))
