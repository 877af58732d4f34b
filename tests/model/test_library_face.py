"""What code written for the reference library does with a model, its outputs and its config, done with ours."""

import copy
import json
import logging
import pickle

import accelerate
import peft
import pytest
import torch
import transformers
from test_model import ROWS, assert_close, call_of
from torch import nn
from transformers.activations import ACT2FN

import lxmert
from lxmert import (
    LxmertConfig,
    LxmertForPreTraining,
    LxmertForQuestionAnswering,
    LxmertModel,
    LxmertModelOutput,
    LxmertPreTrainedModel,
)
from lxmert.config import ACTIVATIONS
from lxmert.files import InputError
from lxmert.model import activation

NAMES = ["LxmertModel", "LxmertForQuestionAnswering", "LxmertForPreTraining"]
INSIDE = {"output_attentions": True, "output_hidden_states": True}


@pytest.fixture
def config(sizes):
    return LxmertConfig(**sizes)


def said(caplog):
    return [record.getMessage() for record in caplog.records]


# Outputs


@pytest.mark.parametrize("name", NAMES)
def test_an_output_is_the_references_as_dictionary_tuple_and_object(make_pair, name):
    theirs, ours = make_pair(name)
    call = call_of(ours.config, padding=False, region_mask=False)
    expected, output = theirs(**call, **INSIDE), ours(**call, **INSIDE)
    assert isinstance(output, dict) and list(output) == list(expected) == list(dict(output))
    for name, value in output.items():
        assert name in output and output.get(name) is output[name] is getattr(output, name) is value
        for own, other in zip(
            *((each if isinstance(each, tuple) else (each,)) for each in (value, expected[name])), strict=True
        ):
            assert_close(own, other, name)
    assert output.get("loss") is None and "loss" not in output
    for place in (0, 1, -1, -2):
        assert output[place] is output.to_tuple()[place] is list(output.values())[place]
    assert output.vision_to_language_attentions and "vision_to_language_attentions" not in output
    assert "no_such_field" not in output
    with pytest.raises(KeyError):
        output["no_such_field"]


def test_an_output_is_changed_copied_pickled_and_gathered_as_the_references():
    output = LxmertModelOutput(pooled_output=torch.ones(2), language_embeddings=torch.zeros(1))
    output.language_output = torch.zeros(3)
    output["vision_output"] = torch.zeros(4)
    assert list(output) == ["language_output", "vision_output", "pooled_output"]  # whatever came first
    output.vision_output = None
    for other in (output, copy.copy(output), copy.deepcopy(output), pickle.loads(pickle.dumps(output))):
        assert type(other) is LxmertModelOutput and list(other) == ["language_output", "pooled_output"]
        assert torch.equal(other.language_embeddings, torch.zeros(1)) and other.vision_output is None
    # How accelerate and DataParallel make one of several.
    moved = accelerate.utils.recursively_apply(lambda tensor: tensor + 1, output)
    assert type(moved) is LxmertModelOutput and torch.equal(moved.pooled_output, torch.full((2,), 2.0))
    pairs = LxmertModelOutput((name, value) for name, value in output.items())
    assert list(pairs) == list(output)
    with pytest.raises(KeyError, match="no field 'colour'"):
        output["colour"] = 1
    for change in (output.popitem, output.clear, lambda: output.pop("loss"), lambda: output.update({})):
        with pytest.raises(TypeError, match="fields of a LxmertModelOutput are fixed"):
            change()


@pytest.mark.parametrize("padding", [False, True])
def test_every_hidden_state_is_on_the_way_to_the_outputs(make_pair, padding):
    theirs, ours = make_pair("LxmertForQuestionAnswering")
    call = call_of(ours.config, padding, padding)
    gradients = []
    for model in (ours, theirs):
        output = model(**call, **INSIDE)
        states = [*output.language_hidden_states, *output.vision_hidden_states]
        for state in states:
            state.retain_grad()
        output.question_answering_score.square().sum().backward()
        gradients.append([state.grad for state in states])
        model.zero_grad()
    for own, other in zip(*gradients, strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            real = own.abs().sum(-1) > 0  # the reference's padding has gradients of its own
            assert real.any()
            assert_close(own[real], other[real], atol=1e-4)


# Calls


def test_a_side_of_one_row_goes_with_all_rows_of_the_other(make_pair):
    theirs, ours = make_pair("LxmertModel")
    call = call_of(ours.config)
    for side in (["visual_feats", "visual_pos", "visual_attention_mask"], ["input_ids", "token_type_ids"]):
        few = {name: value[:1] if name in side else value for name, value in call.items()}
        many = {name: value[:1].expand_as(value) if name in side else value for name, value in call.items()}
        if "input_ids" in side:
            few["attention_mask"] = many["attention_mask"] = call["attention_mask"][:1]  # a mask of one row
            expected = theirs(**{**many, "attention_mask": call["attention_mask"][:1].expand(ROWS, -1)})
        else:
            expected = theirs(**many)
        output = ours(**few, **INSIDE)
        assert_close(output.pooled_output, expected.pooled_output)
        assert len(output.pooled_output) == ROWS
    assert len(output.language_hidden_states[0]) == 1, "one sentence is encoded once"
    with pytest.raises(ValueError, match=r"visual_feats has shape \(2, 5, 10\); expected \(4, 5, 10\)"):
        ours(**{**call, "visual_feats": call["visual_feats"][:2]})


@pytest.mark.parametrize("side", ["attention_mask", "token_type_ids"])
def test_one_sentence_of_embeddings_goes_with_masks_and_segments_of_many_rows(make_pair, side):
    theirs, ours = make_pair("LxmertModel")
    call = call_of(ours.config)
    embeds = ours.embeddings.word_embeddings(call.pop("input_ids")[:1]).detach()
    call = {name: call[name] for name in ("visual_feats", "visual_pos", side)}
    expected = theirs(inputs_embeds=embeds.expand(ROWS, -1, -1), **call)
    assert_close(ours(inputs_embeds=embeds, **call).pooled_output, expected.pooled_output)


def test_labels_may_be_a_column(make_pair):
    theirs, ours = make_pair("LxmertForQuestionAnswering")
    call = call_of(ours.config)
    labels = torch.tensor([[1], [3], [-100], [0]])
    assert_close(ours(**call, labels=labels).loss, theirs(**call, labels=labels).loss)
    theirs, ours = make_pair("LxmertForPreTraining")
    for name in ("matched_label", "ans"):
        labels = torch.tensor([[1], [0], [-100], [0]])
        assert_close(ours(**call, **{name: labels}).loss, theirs(**call, **{name: labels}).loss, name)


def test_unknown_arguments_are_told_once(config, caplog):
    model = LxmertForQuestionAnswering(config)
    lxmert.base.warn_unused.cache_clear()
    for _ in range(3):
        model(**call_of(config), num_items_in_batch=3)
    assert said(caplog) == ["LxmertForQuestionAnswering does not use num_items_in_batch"]


def test_masked_lm_labels_are_labels(make_pair):
    _, ours = make_pair("LxmertForPreTraining")
    call = call_of(ours.config)
    labels = torch.where(torch.rand(ROWS, 6) < 0.5, call["input_ids"], -100)
    assert torch.equal(ours(**call, masked_lm_labels=labels).loss, ours(**call, labels=labels).loss)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_the_references(name):
    x = torch.linspace(-6, 6, 200)
    assert_close(activation(name)(x), ACT2FN[name](x), atol=1e-6)


# The model


@pytest.mark.parametrize("name", NAMES)
def test_what_a_model_says_of_itself(make_pair, name):
    theirs, ours = make_pair(name)
    assert ours.device == theirs.device and ours.dtype == theirs.dtype
    for only_trainable in (False, True):
        for exclude_embeddings in (False, True):
            assert ours.num_parameters(only_trainable, exclude_embeddings) == theirs.num_parameters(
                only_trainable, exclude_embeddings
            )
    assert ours.base_model is getattr(ours, "lxmert", ours)
    assert ours.get_input_embeddings().weight.shape == theirs.get_input_embeddings().weight.shape
    assert ours.main_input_name == theirs.main_input_name and ours.base_model_prefix == theirs.base_model_prefix
    assert ours.get_memory_footprint() == sum(4 * each.numel() for each in ours.parameters())
    assert copy.deepcopy(ours).half().dtype == torch.float16
    # The filter by which nearly everyone leaves parameters out of weight decay.
    skipped = [n for n, _ in ours.named_parameters() if any(part in n for part in ("bias", "LayerNorm.weight"))]
    assert set(skipped) <= {n for n, _ in theirs.named_parameters()} and len(skipped) > 20


@pytest.mark.parametrize("name", NAMES)
def test_state_dicts_of_the_reference_fit(make_pair, name):
    theirs, ours = make_pair(name)
    fresh = type(ours)(ours.config).eval()
    assert fresh.load_state_dict(theirs.state_dict()) == fresh.load_state_dict(ours.state_dict())
    call = call_of(ours.config)
    assert torch.equal(fresh(**call)[0], ours(**call)[0])
    other = type(theirs)(theirs.config).eval()
    missing = other.load_state_dict(ours.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert missing.missing_keys == ["cls.predictions.decoder.weight"] * (name == "LxmertForPreTraining")
    assert torch.equal(other(**call)[0], theirs(**call)[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("number", "multiple"), [(70, None), (40, None), (62, 16), (61, None)])
def test_resizing_the_vocabulary_does_what_the_reference_does(make_pair, sizes, name, number, multiple):
    theirs, ours = (copy.deepcopy(model) for model in make_pair(name))
    ours.config.vocab_sha256 = "0" * 64
    expected, found = (
        model.resize_token_embeddings(number, pad_to_multiple_of=multiple) for model in (theirs, ours)
    )
    assert found is ours.get_input_embeddings() and found.weight.shape == expected.weight.shape
    assert ours.config.vocab_size == theirs.config.vocab_size
    assert_close(found.weight, expected.weight, atol=1e-3)  # the reference adds noise to new rows
    assert (ours.config.vocab_sha256 is None) == (number != sizes["vocab_size"])
    call = call_of(ours.config)
    call["input_ids"] = call["input_ids"] % 40
    output = ours(**call)
    if name == "LxmertForPreTraining":
        assert output.prediction_logits.shape[-1] == len(found.weight)
    # The encoders alone: the reference's own head fails on a number that was rounded up.
    assert_close(ours.base_model(**call).pooled_output, theirs.base_model(**call).pooled_output)
    ours.tie_weights()
    assert ours.get_output_embeddings() is None


# Subclasses


class Grounding(LxmertPreTrainedModel):
    def __init__(self, config, classes=3):
        super().__init__(config)
        self.lxmert = LxmertModel(config)
        self.classifier = nn.Linear(config.hidden_size, classes)
        self.post_init()

    def forward(self, **call):
        return self.classifier(self.lxmert(**call).pooled_output)


class WithHead(LxmertModel):
    def __init__(self, config):
        super().__init__(config)
        self.head = nn.Linear(config.hidden_size, 2)

    def forward(self, **call):
        return self.head(super().forward(**call).pooled_output)


@pytest.mark.parametrize("kind", [Grounding, WithHead])
@pytest.mark.parametrize("source", ["LxmertModel", "LxmertForPreTraining"])
def test_a_model_of_ones_own_is_opened_trained_saved_and_opened(make_pair, tmp_path, caplog, kind, source):
    theirs, ours = make_pair(source)
    theirs.save_pretrained(tmp_path / "theirs")
    with caplog.at_level(logging.WARNING):
        model = kind.from_pretrained(tmp_path / "theirs")
    assert "2 missing, left at their initial values" in said(caplog)[0]
    call = call_of(ours.config)
    assert_close(model.base_model.encoder.layer[0].output.dense.weight,
                 ours.base_model.encoder.layer[0].output.dense.weight)  # fmt: skip
    head = model.classifier if kind is Grounding else model.head
    assert head.weight.std() < 0.2 and (kind is WithHead or not head.bias.any())  # post_init's
    model(**call).square().sum().backward()
    model.save_pretrained(tmp_path / "own")
    caplog.clear()
    again = kind.from_pretrained(tmp_path / "own")
    assert not said(caplog) and torch.equal(again(**call), model(**call))
    assert json.loads((tmp_path / "own" / "config.json").read_text())["architectures"] == [kind.__name__]
    # And the encoders are there for the reference.
    read = transformers.LxmertModel.from_pretrained(tmp_path / "own").eval()
    pooled = LxmertModel.forward(again.base_model, **call).pooled_output
    assert_close(read(**call).pooled_output, pooled)


@pytest.mark.parametrize("way", ["opened", "part", "resized", "state_dict"])
def test_initial_weights_are_not_given_to_what_was_opened(config, tmp_path, way):
    model = LxmertForPreTraining(config)
    model.save_pretrained(tmp_path / "whole")

    class Around(LxmertPreTrainedModel):
        def __init__(self, config):
            super().__init__(config)
            if way == "part":
                self.lxmert = LxmertForPreTraining.from_pretrained(tmp_path / "whole").lxmert
            elif way == "state_dict":
                self.lxmert = LxmertModel(config)
                self.lxmert.load_state_dict(model.lxmert.state_dict())
            else:
                self.lxmert = LxmertModel.from_pretrained(tmp_path / "whole")
            if way == "resized":
                self.lxmert.resize_token_embeddings(80, mean_resizing=False)
            self.score = nn.Linear(config.hidden_size, 1)
            self.post_init()

    own = Around(config)
    state = own.lxmert.state_dict()
    for name, tensor in model.lxmert.state_dict().items():
        assert torch.equal(state[name][: len(tensor)], tensor), name
    assert not own.score.bias.any()  # post_init's
    if way in ("opened", "part"):
        own.save_pretrained(tmp_path / "own")
        again = Around.from_pretrained(tmp_path / "own")
        again.init_weights()
        assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in own.state_dict().items())
    fresh = LxmertModel(config)
    before = fresh.pooler.dense.weight.clone()
    fresh.init_weights()
    assert not torch.equal(fresh.pooler.dense.weight, before)


def square_head(model, width):
    model.answer_head.logit_fc[0] = nn.Linear(width, width)
    model.answer_head.logit_fc[2] = nn.LayerNorm(width)
    model.answer_head.logit_fc[3] = nn.Linear(width, model.config.num_qa_labels)


def scaled(model, width):
    model.gamma, model.part = nn.Parameter(torch.rand(width)), nn.Module()
    model.part.beta = nn.Parameter(torch.rand(width))


NAMED_AS_THEY_LIKE = {
    "logit_fc": lambda model, width: setattr(model, "logit_fc", nn.Sequential(nn.Linear(width, width))),
    "pooler": lambda model, width: setattr(model, "pooler", nn.Linear(width, width)),
    "encoder": lambda model, width: setattr(model, "encoder", nn.Linear(width, width)),
    "bert": lambda model, width: setattr(model, "bert", nn.Linear(width, width)),
    "gamma and beta": scaled,
    "square head": square_head,
}


@pytest.mark.parametrize("part", NAMED_AS_THEY_LIKE)
def test_parts_of_a_model_of_ones_own_are_called_as_it_likes(config, tmp_path, caplog, part):
    class Own(LxmertForQuestionAnswering):
        def __init__(self, config):
            super().__init__(config)
            NAMED_AS_THEY_LIKE[part](self, config.hidden_size)

    class Without(LxmertPreTrainedModel):
        def __init__(self, config):
            super().__init__(config)
            self.lxmert = LxmertModel(config)
            NAMED_AS_THEY_LIKE[part](self, config.hidden_size)

    for kind in (Own,) if part == "square head" else (Own, Without):
        own = kind(config)
        own.save_pretrained(tmp_path / kind.__name__)
        again = kind.from_pretrained(tmp_path / kind.__name__)
        assert not said(caplog)
        assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in own.state_dict().items())


BUFFERS = {
    "norm": lambda model, width: setattr(model, "norm", nn.BatchNorm1d(width)),
    "order": lambda model, _: model.register_buffer("order", torch.arange(5)),
    "mask": lambda model, _: model.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1)),
}


@pytest.mark.parametrize("part", BUFFERS)
def test_buffers_of_a_model_of_ones_own_may_be_whole_or_infinite(config, tmp_path, part):
    class Own(LxmertPreTrainedModel):
        def __init__(self, config):
            super().__init__(config)
            self.lxmert = LxmertModel(config)
            BUFFERS[part](self, config.hidden_size)
            self.post_init()

    own = Own(config)
    for buffer in own.buffers():
        buffer.add_(1)
    own.save_pretrained(tmp_path)
    state = Own.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.state_dict().items())
    own.lxmert.pooler.dense.weight.detach()[0, 0] = float("inf")
    own.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"lxmert\.pooler\.dense\.weight holds numbers that are not finite"):
        Own.from_pretrained(tmp_path)


def test_what_a_model_takes_is_given_to_it(make_pair, tmp_path):
    make_pair("LxmertModel")[1].save_pretrained(tmp_path)
    assert Grounding.from_pretrained(tmp_path, classes=5).classifier.out_features == 5
    assert Grounding.from_pretrained(tmp_path, 4).classifier.out_features == 4
    with pytest.raises(TypeError, match="colour"):
        Grounding.from_pretrained(tmp_path, colour="red")


def test_values_of_a_config_of_ones_own_are_the_configs(config, tmp_path):
    class Wide(LxmertConfig):
        def __init__(self, width=7, **sizes):
            super().__init__(**sizes)
            self.width = width

    class Wider(Wide):
        def __init__(self, *, height=2, **more):
            super().__init__(**more)
            self.height = height

    class Own(LxmertPreTrainedModel):
        config_class = Wider

        def __init__(self, config, more=1):
            super().__init__(config)
            self.lxmert = LxmertModel(config)
            self.score = nn.Linear(config.width, config.height + more)

    LxmertModel(config).save_pretrained(tmp_path)
    assert Own.from_pretrained(tmp_path).score.weight.shape == (3, 7)
    own = Own.from_pretrained(tmp_path, width=3, height=4, more=5)
    assert own.score.weight.shape == (9, 3) and own.config.width == 3
    own.save_pretrained(tmp_path)
    assert torch.equal(Own.from_pretrained(tmp_path, more=5).score.weight, own.score.weight)


def test_a_model_none_of_whose_names_fit_is_refused(make_pair, tmp_path):
    class Elsewhere(LxmertPreTrainedModel):
        def __init__(self, config):
            super().__init__(config)
            self.trunk = LxmertModel(config)

    make_pair("LxmertModel")[1].save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no weight has the name of one of the model's"):
        Elsewhere.from_pretrained(tmp_path)


# Looking in from outside


WATCHED = [
    "embeddings.word_embeddings", "embeddings", "encoder.visn_fc", "encoder.layer.0",
    "encoder.layer.1.output.dense", "encoder.r_layers.0.attention.self.query", "encoder.x_layers.0.lang_inter",
    "pooler",
]  # fmt: skip


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("name", WATCHED)
def test_hooks_see_what_they_see_in_the_reference(make_pair, name, padding):
    call, seen = {}, []
    for model in make_pair("LxmertModel"):
        call = call or call_of(model.config, padding, padding)

        def keep(module, arguments, output):
            seen.append(output[0] if isinstance(output, tuple) else output)

        handle = model.get_submodule(name).register_forward_hook(keep)
        plain = model(**call).pooled_output
        handle.remove()
        assert_close(plain, model(**call).pooled_output)
    theirs, ours = seen
    assert ours.shape == theirs.shape
    if ours.ndim == 3:
        side = "visual_attention_mask" if "visn" in name or "r_layers" in name else "attention_mask"
        mask = torch.ones(ours.shape[:2]) if call[side] is None else call[side]
        ours, theirs = ours[mask > 0], theirs[mask > 0]
    assert_close(ours, theirs)


def test_a_hook_on_what_is_not_needed_is_called(make_pair):
    _, ours = make_pair("LxmertForQuestionAnswering")
    seen = []
    handle = ours.lxmert.encoder.x_layers[-1].visn_output.register_forward_hook(
        lambda *given: seen.append(given[2])
    )
    ours(**call_of(ours.config))
    handle.remove()
    assert [tuple(output.shape) for output in seen] == [(ROWS, 5, 24)]


def test_a_hook_that_changes_a_word_changes_that_word(make_pair):
    results = []
    for model in make_pair("LxmertForQuestionAnswering"):
        call = call_of(model.config)

        def hide(module, arguments, output):
            output = output[0] if isinstance(output, tuple) else output
            return torch.cat([output[:, :1], torch.zeros_like(output[:, 1:2]), output[:, 2:]], 1)

        handle = model.lxmert.embeddings.register_forward_hook(hide)
        results.append(model(**call).question_answering_score)
        handle.remove()
    assert_close(*results)


class Shifted(LxmertModel):
    def forward(self, *arguments, **options):
        output = super().forward(*arguments, **options)
        output.pooled_output = output.pooled_output + 1
        return output


@pytest.mark.parametrize("name", ["LxmertForQuestionAnswering", "LxmertForPreTraining"])
def test_heads_call_whatever_stands_below_them(make_pair, name):
    model = copy.deepcopy(make_pair(name)[1])
    call = call_of(model.config)
    seen = []
    handle = model.lxmert.register_forward_hook(lambda module, arguments, output: seen.append(output))
    before = model(**call)
    handle.remove()
    assert len(seen) == 1 and list(seen[0]) == ["language_output", "vision_output", "pooled_output"]
    expected = model.answer_head(seen[0].pooled_output + 1)
    for change in ("class", "forward"):
        other = copy.deepcopy(model)
        if change == "class":
            other.lxmert = Shifted(model.config)
            other.load_state_dict(model.state_dict())
            other.eval()
        else:
            plain = other.lxmert.forward

            def forward(*arguments, plain=plain, **options):
                output = plain(*arguments, **options)
                return LxmertModelOutput({**output, "pooled_output": output.pooled_output + 1})

            other.lxmert.forward = forward
        assert_close(other(**call).question_answering_score, expected)
        assert not torch.allclose(expected, before.question_answering_score)


def test_hooks_on_what_is_never_called_are_told_of(config, caplog):
    model = LxmertForPreTraining(config)
    for part in (model.lxmert.encoder, model.cls):
        part.register_forward_hook(lambda *_: None)
        assert f"hooks on {type(part).__name__} are never called" in said(caplog)[-1]


def test_small_habits(make_pair):
    theirs, ours = (copy.deepcopy(model) for model in make_pair("LxmertForQuestionAnswering"))
    call = call_of(ours.config, padding=False)
    words = torch.rand(ROWS, 6, 24)
    assert_close(ours.lxmert.pooler(words), theirs.lxmert.pooler(words))
    assert_close(
        ours.loss(torch.ones(2, 3), torch.zeros(2).long()), theirs.loss(torch.ones(2, 3), torch.zeros(2).long())
    )
    for model in (ours, theirs):
        model.answer_head.logit_fc[3] = nn.Linear(48, 3)
        model.num_qa_labels = 3
        assert model(**call, labels=torch.tensor([0, 1, 2, 0])).question_answering_score.shape == (ROWS, 3)
    assert ours.config.num_qa_labels == 3
    layers = [model.lxmert.encoder.layer[0] for model in (ours, theirs)]
    assert layers[0].attention.self.num_attention_heads == layers[1].attention.self.num_attention_heads
    assert all(hasattr(layer.intermediate, "intermediate_act_fn") for layer in layers)


@pytest.mark.parametrize("attentions", [False, True])
def test_dropout_is_switched_off_through_its_modules(config, attentions):
    torch.manual_seed(0)
    model = LxmertModel(config.replace(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)).train()
    call = call_of(config)
    assert not torch.equal(*(model(**call, output_attentions=attentions).pooled_output for _ in range(2)))
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    assert torch.equal(*(model(**call, output_attentions=attentions).pooled_output for _ in range(2)))


def test_a_quantized_model_runs(make_pair):
    model = copy.deepcopy(make_pair("LxmertForQuestionAnswering")[1])
    call = call_of(model.config)
    small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert_close(small(**call)[0], model(**call)[0], atol=0.5)


# Other libraries


def test_auto_classes_open_it(make_pair, tmp_path, monkeypatch):
    from transformers.models.auto import configuration_auto, modeling_auto

    _, ours = make_pair("LxmertForQuestionAnswering")
    ours.save_pretrained(tmp_path)
    for mapping in (configuration_auto.CONFIG_MAPPING, modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING):
        monkeypatch.setattr(mapping, "_extra_content", dict(mapping._extra_content))
    transformers.AutoConfig.register("lxmert", LxmertConfig, exist_ok=True)
    transformers.AutoModelForQuestionAnswering.register(LxmertConfig, LxmertForQuestionAnswering, exist_ok=True)
    found = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path, output_attentions=True)
    assert type(found) is LxmertForQuestionAnswering and found.config.output_attentions
    made = transformers.AutoModelForQuestionAnswering.from_config(found.config)
    assert type(made) is LxmertForQuestionAnswering


def test_lora_trains_saves_and_merges(make_pair, tmp_path):
    _, ours = make_pair("LxmertForQuestionAnswering")
    model = copy.deepcopy(ours)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["answer_head"])
    )
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert any("encoder.layer.0.attention.self.query.lora_A" in name for name in trained)
    assert any("encoder.x_layers.1.visual_attention.att.value.lora_B" in name for name in trained)
    assert any("answer_head.modules_to_save" in name for name in trained)
    call = call_of(ours.config)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = adapted(**call, labels=torch.arange(ROWS)).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    adapted.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(copy.deepcopy(ours), tmp_path)
    expected = adapted.eval()(**call).question_answering_score
    assert torch.equal(again.eval()(**call).question_answering_score, expected)
    assert_close(again.merge_and_unload()(**call).question_answering_score, expected)


class Examples(torch.utils.data.Dataset):
    def __init__(self, config):
        call = call_of(config)
        self.rows = [
            {**{name: value[row] for name, value in call.items()}, "labels": torch.tensor(row)}
            for row in range(ROWS)
        ]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        return self.rows[row]


def test_transformers_trainer_trains_evaluates_saves_and_goes_on(make_pair, tmp_path):
    model = copy.deepcopy(make_pair("LxmertForQuestionAnswering")[1])
    options = {
        "output_dir": str(tmp_path), "max_steps": 4, "save_steps": 2, "logging_steps": 3, "learning_rate": 0.01,
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "report_to": [], "use_cpu": True,
        "disable_tqdm": True, "seed": 1,
    }  # fmt: skip
    data = Examples(model.config)
    start = copy.deepcopy(model)
    trainer = transformers.Trainer(
        model=model, args=transformers.TrainingArguments(**options), train_dataset=data, eval_dataset=data,
        compute_metrics=lambda found: {"right": (found.predictions.argmax(-1) == found.label_ids).mean()},
    )  # fmt: skip
    assert not trainer.model_accepts_loss_kwargs
    trainer.train()
    scores = trainer.evaluate()
    assert 0 <= scores["eval_right"] <= 1 and scores["eval_loss"] > 0
    assert trainer.predict(data).predictions.shape == (ROWS, model.config.num_qa_labels)
    # What it saves can be gone on from, and opened with the config.
    other = transformers.Trainer(model=start, args=transformers.TrainingArguments(**options), train_dataset=data)
    other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    opened = LxmertForQuestionAnswering.from_pretrained(tmp_path / "checkpoint-4", config=model.config)
    for name, tensor in opened.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
        assert_close(start.state_dict()[name], tensor, name)


def test_accelerate_saves_and_loads(make_pair, tmp_path):
    model = copy.deepcopy(make_pair("LxmertForPreTraining")[1])
    accelerator = accelerate.Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    accelerator.backward(prepared(**call_of(model.config), matched_label=torch.ones(ROWS).long()).loss)
    optimizer.step()
    accelerator.save_state(tmp_path / "state")
    before = copy.deepcopy(prepared.state_dict())
    with torch.no_grad():
        next(prepared.parameters()).add_(1)
    accelerator.load_state(tmp_path / "state")
    assert all(torch.equal(tensor, before[name]) for name, tensor in prepared.state_dict().items())
    unwrapped = accelerator.unwrap_model(prepared)
    unwrapped.save_pretrained(
        tmp_path / "folder", is_main_process=accelerator.is_main_process, save_function=accelerator.save,
        state_dict=accelerator.get_state_dict(prepared),
    )  # fmt: skip
    opened = LxmertForPreTraining.from_pretrained(tmp_path / "folder")
    assert all(torch.equal(tensor, before[name]) for name, tensor in opened.state_dict().items())
    unwrapped.save_pretrained(tmp_path / "none", is_main_process=False)
    assert not (tmp_path / "none").exists()
