"""LxmertConfig against the reference library's, and its JSON."""

import copy
import json
import logging
import pickle
import string
from dataclasses import asdict, fields

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from lxmert import LxmertConfig
from lxmert.files import InputError

OURS_ALONE = {"gradient_checkpointing", "answers", "detector", "mask_token_id", "num_images", "vocab_sha256"}
SIZES = [
    "vocab_size", "num_qa_labels", "num_object_labels", "num_attr_labels", "intermediate_size",
    "max_position_embeddings", "type_vocab_size", "x_layers", "visual_feat_dim", "visual_pos_dim",
]  # fmt: skip

configs = st.builds(
    lambda heads, width, answers, **values: LxmertConfig(
        num_attention_heads=heads,
        hidden_size=heads * width,
        answers=answers,
        num_qa_labels=len(answers) if answers else 9500,
        **values,
    ),
    heads=st.integers(1, 8),
    width=st.integers(1, 8),
    answers=st.none() | st.lists(st.text(), min_size=1, max_size=5),
    vocab_size=st.integers(1, 100_000),
    hidden_act=st.sampled_from(["gelu", "relu"]),
    hidden_dropout_prob=st.floats(0, 0.99),
    l_layers=st.integers(0, 12),
    x_layers=st.integers(1, 12),
    initializer_range=st.floats(1e-4, 1),
    task_qa=st.booleans(),
    output_attentions=st.booleans(),
)


def test_every_field_of_the_reference_is_there_with_its_default():
    theirs = transformers.LxmertConfig()
    written = set(theirs.to_dict()) - {"transformers_version", "num_hidden_layers", "model_type", "dtype"}
    written -= {"pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings"}
    own = {field.name: field.default for field in fields(LxmertConfig)}
    missing = {name for name in written if name not in own and not hasattr(transformers.PreTrainedConfig(), name)}
    assert not missing
    for name in set(own) - OURS_ALONE:
        assert own[name] == getattr(theirs, name), name
    assert set(own) - OURS_ALONE <= set(dir(theirs))


def test_layers_are_counted_as_the_reference_counts_them():
    layers = {"l_layers": 3, "x_layers": 2, "r_layers": 1}
    ours, theirs = LxmertConfig(**layers), transformers.LxmertConfig(**layers)
    assert ours.num_hidden_layers == theirs.num_hidden_layers
    assert ours.num_hidden_layers == {"language": 3, "cross_encoder": 2, "vision": 1}


@given(configs)
def test_json_and_dictionaries_give_the_same_config_back(config):
    assert LxmertConfig.from_dict(json.loads(config.to_json_string())) == config
    assert LxmertConfig.from_dict(config.to_dict()) == config


@settings(max_examples=10, deadline=None)
@given(configs)
def test_a_saved_config_is_read_back_by_both_libraries(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("config") / "new" / "folders"
    config.save_pretrained(folder)
    assert LxmertConfig.from_pretrained(folder) == config
    assert LxmertConfig.from_json_file(folder / "config.json") == config
    theirs = transformers.AutoConfig.from_pretrained(folder)
    assert isinstance(theirs, transformers.LxmertConfig)
    for name, value in asdict(config).items():
        assert getattr(theirs, name) == value, name


def test_what_the_reference_writes_is_read_without_a_warning(tmp_path, caplog):
    theirs = transformers.LxmertConfig(
        hidden_size=96, num_attention_heads=6, num_qa_labels=3, hidden_dropout_prob=0.25, task_qa=False,
        architectures=["LxmertForQuestionAnswering"], output_hidden_states=True, dtype="float32",
    )  # fmt: skip
    theirs.save_pretrained(tmp_path)
    ours = LxmertConfig.from_pretrained(tmp_path)
    assert not caplog.records
    assert ours == LxmertConfig(
        hidden_size=96, num_attention_heads=6, num_qa_labels=3, hidden_dropout_prob=0.25, task_qa=False,
        output_hidden_states=True,
    )  # fmt: skip
    assert ours.architectures == ["LxmertForQuestionAnswering"] and ours.dtype == torch.float32


def test_unknown_keys_are_reported_in_one_warning(caplog):
    with caplog.at_level(logging.WARNING):
        config = LxmertConfig.from_dict({"l_layers": 2, "hiden_size": 5, "colour": "red", "model_type": "lxmert"})
    assert [record.getMessage() for record in caplog.records] == [
        "LxmertConfig keeps colour, hiden_size, which nothing here reads: misspelt?"
    ]
    assert config != LxmertConfig(l_layers=2) and (config.hiden_size, config.colour) == (5, "red")


def test_values_of_ones_own_are_kept_through_every_round(tmp_path):
    labels = {0: "cat", 1: "dog", 2: "bird"}
    values = {"anything": {"deep": [1, 2]}, "problem_type": "single_label_classification", "l_layers": 2}
    ours = LxmertConfig(**values, id2label=labels, num_labels=3, torch_dtype=torch.float16)
    theirs = transformers.LxmertConfig(**values, id2label=labels, num_labels=3, dtype=torch.float16)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    found = [
        ours, ours.replace(), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)),
        LxmertConfig.from_dict(ours.to_dict()), LxmertConfig.from_dict(theirs.to_dict()),
        LxmertConfig.from_pretrained(tmp_path / "ours"), LxmertConfig.from_pretrained(tmp_path / "theirs"),
        theirs, transformers.LxmertConfig.from_pretrained(tmp_path / "ours"),
    ]  # fmt: skip
    for config in found:
        for name, value in values.items():
            assert getattr(config, name) == value
        assert config.num_labels == 3 and config.id2label == labels
        assert config.dtype == torch.float16
    assert ours.label2id == {"cat": 0, "dog": 1, "bird": 2}
    assert all(config == ours for config in found[:5])


def test_a_config_is_changed_as_the_references(tmp_path):
    for kind in (LxmertConfig, transformers.LxmertConfig):
        config = kind(num_labels=4)
        assert config.num_labels == 4 and config.id2label[3] == "LABEL_3"
        config.update({"hidden_size": 24, "num_attention_heads": 4, "own": "value"})
        config.num_labels = 2
        assert (config.hidden_size, config.own, config.num_labels) == (24, "value", 2)
        config.to_json_file(tmp_path / "config.json")
        again = kind.from_json_file(tmp_path / "config.json")
        assert again.hidden_size == 24 and again.own == "value"
        assert set(again.to_diff_dict()) >= {"hidden_size", "num_attention_heads", "own", "model_type"}
        assert kind is not LxmertConfig or "l_layers" not in again.to_diff_dict()
        found, unused = kind.from_pretrained(
            tmp_path, return_unused_kwargs=True, num_qa_labels=5, output_attentions=True, colour="red"
        )
        assert (found.num_qa_labels, found.output_attentions, unused) == (5, True, {"colour": "red"})
        assert kind.model_type == "lxmert" and (found.use_return_dict, found.problem_type) == (True, None)
        assert found.tie_word_embeddings and not found.is_encoder_decoder and found.architectures is None


def test_a_changed_number_drops_what_it_counted():
    config = LxmertConfig(num_qa_labels=2, answers=["yes", "no"], vocab_sha256="0" * 64)
    assert config.id2label == {0: "yes", 1: "no"} and config.num_labels == 2
    values = config.to_dict()
    assert LxmertConfig.from_dict(values, num_qa_labels=3).answers is None
    assert LxmertConfig.from_dict(values, num_qa_labels=2).answers == ["yes", "no"]
    assert LxmertConfig.from_dict(values, vocab_size=5).vocab_sha256 is None
    assert LxmertConfig.from_dict(values, vocab_size=30522).vocab_sha256 == "0" * 64
    with pytest.raises(InputError, match="2 answers for num_qa_labels=3"):
        config.replace(num_qa_labels=3)
    assert config.num_qa_labels == 2 and config.answers == ["yes", "no"]
    assert config.replace(num_qa_labels=3, answers=["a", "b", "c"]).answers == ["a", "b", "c"]
    assert config.replace(answers=["a", "b", "c"], num_qa_labels=3).answers == ["a", "b", "c"]
    config.num_qa_labels, config.vocab_size = 2, 30522
    assert config.answers == ["yes", "no"] and config.vocab_sha256 == "0" * 64
    config.num_qa_labels, config.vocab_size = 3, 60
    assert config.answers is None and config.vocab_sha256 is None
    assert LxmertConfig.from_dict(config.to_dict()) == config
    config.answers = ["yes", "no"]
    config.num_qa_labels = 2
    assert config.answers == ["yes", "no"]


class OwnConfig(LxmertConfig):
    model_type = "own"

    def __init__(self, colour="red", **values):
        super().__init__(**values)
        self.colour = colour


def test_a_config_of_ones_own(tmp_path):
    OwnConfig("blue", l_layers=3).save_pretrained(tmp_path)
    config = OwnConfig.from_pretrained(tmp_path)
    assert (config.colour, config.l_layers, config.model_type) == ("blue", 3, "own")
    assert config.replace(l_layers=4).colour == "blue" and config != config.replace(colour="red")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"to_dict": 5}, "'to_dict' is no name for a value of an LxmertConfig, which has a method"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False; expected true: the masked-language head"),
        ({"id2label": {0: "a", 2: "b"}}, "id2label=.*; expected the text of each label 0, 1"),
        ({"id2label": ["a", "b"]}, "id2label=.*; expected the text of each label"),
        ({"id2label": {"0": 5}}, r"id2label\[0\] is 5; expected the text of an answer"),
        ({"num_labels": 0}, "num_labels=0; expected a whole number of at least 1"),
        ({"dtype": "int8"}, "dtype='int8'; expected one of float64, float32, float16, bfloat16"),
    ],
)
def test_values_that_cannot_be_kept_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        LxmertConfig(**values)
    with pytest.raises(InputError, match=f"here: {message}"):
        LxmertConfig.from_file_content(values, "here")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 100, "num_attention_heads": 12}, "hidden_size=100 is not a multiple of .*=12"),
        ({"hidden_act": "softplus"}, "hidden_act='softplus'; expected one of gelu, gelu_fast"),
        ({"l_layers": -1}, "l_layers=-1; .* at least 0"),
        ({"r_layers": -2}, "r_layers=-2; .* at least 0"),
        ({"hidden_size": "768"}, "hidden_size='768'; expected a whole number of at least 1"),
        ({"num_attention_heads": 0}, "num_attention_heads=0; expected a whole number of at least 1"),
        ({"vocab_size": 1.5}, "vocab_size=1.5; expected a whole number"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob=1.0; expected a probability below 1"),
        ({"attention_probs_dropout_prob": -0.1}, "attention_probs_dropout_prob=-0.1; expected a probability"),
        ({"answers": ["yes", "no"]}, "2 answers for num_qa_labels=9500; make them equal"),
        *(({name: 0}, f"{name}=0; expected a whole number of at least 1") for name in SIZES),
        ({"hidden_size": True, "num_attention_heads": 1}, "hidden_size=True; expected a whole number"),
        ({"l_layers": None}, "l_layers=None; expected a whole number"),
        ({"vocab_size": 2**63}, f"vocab_size={2**63}; expected a whole number of at most 4194304"),
        ({"vocab_size": 10**5000}, "vocab_size=a number of too many digits to be shown"),
        ({"x_layers": 101}, "x_layers=101; expected a whole number of at most 100"),
        ({"mask_token_id": "[MASK]"}, r"mask_token_id='\[MASK\]'; expected a whole number of at least 0"),
        ({"hidden_dropout_prob": float("nan")}, "hidden_dropout_prob=nan; expected a probability below 1"),
        ({"hidden_dropout_prob": "0.1"}, "hidden_dropout_prob='0.1'; expected a probability below 1"),
        ({"attention_probs_dropout_prob": [0.1]}, r"attention_probs_dropout_prob=\[0.1\]; expected a probability"),
        ({"initializer_range": float("inf")}, "initializer_range=inf; expected a number from 0 to 4194304"),
        ({"initializer_range": -0.02}, "initializer_range=-0.02; expected a number from 0"),
        ({"visual_loss_normalizer": None}, "visual_loss_normalizer=None; expected a number from 0"),
        ({"task_qa": 1}, "task_qa=1; expected true or false"),
        ({"return_dict": "false"}, "return_dict='false'; expected true or false"),
        ({"hidden_act": ["gelu"]}, r"hidden_act=\['gelu'\]; expected one of"),
        ({"answers": "yes"}, "answers is 'yes'; expected a list of answer texts"),
        ({"answers": ["yes", 2], "num_qa_labels": 2}, r"answers\[1\] is 2; expected the text of an answer"),
        ({"answers": [["yes"]], "num_qa_labels": 1}, r"answers\[0\] is \['yes'\]; expected the text"),
        ({"answers": ["\ud800"], "num_qa_labels": 1}, r"answers\[0\] is '\\ud800'; expected the text"),
    ],
)
def test_values_that_do_not_fit_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        LxmertConfig(**values)
    with pytest.raises(InputError, match=message):
        LxmertConfig.from_dict(values)


def test_a_config_file_with_a_wrong_value_is_named_with_its_key(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"l_layers": 2, "hidden_size": "768"}')
    with pytest.raises(InputError, match=rf"^{path}: hidden_size='768'; expected a whole number.*Mend that value"):
        LxmertConfig.from_pretrained(tmp_path)
    path.write_text('{"hidden_dropout_prob": NaN}')
    with pytest.raises(InputError, match=rf"^{path}: at line 1, column 25: NaN is no JSON value"):
        LxmertConfig.from_pretrained(tmp_path)
    path.write_bytes(b'\xef\xbb\xbf{"l_layers": 2}')  # a byte order mark
    assert LxmertConfig.from_pretrained(tmp_path).l_layers == 2


@given(st.text(string.printable, max_size=20).filter(lambda text: not text.strip().startswith("{")))
@settings(max_examples=20, deadline=None)
def test_a_file_that_is_no_config_is_named(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("bad") / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad\d+/config.json(: broken or truncated JSON|: at line| holds a)"):
        LxmertConfig.from_json_file(path)


def test_a_folder_without_a_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds none of config.json"):
        LxmertConfig.from_pretrained(tmp_path)
