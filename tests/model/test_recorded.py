"""Calls that are recorded and replayed: compiled, exported, traced, ONNX; equal to plain calls of any padding."""

import io
import warnings

import numpy as np
import onnxruntime
import pytest
import torch

import lxmert
from lxmert import LxmertConfig

ONE_CALL = ["input_ids", "visual_feats", "visual_pos", "attention_mask", "visual_attention_mask"]
MODELS = ["LxmertModel", "LxmertForQuestionAnswering", "LxmertForPreTraining"]
SHAPES = [(3, 6, 5), (2, 9, 7), (5, 4, 2)]


@pytest.fixture(scope="module")
def models(sizes):
    torch.manual_seed(0)
    config = LxmertConfig(**{**sizes, "l_layers": 1, "x_layers": 1, "initializer_range": 0.3})
    return {name: getattr(lxmert, name)(config).eval() for name in (*MODELS, "LxmertForVisualReasoning")}


def call_of(config, rows, tokens, regions, padding):
    make = torch.Generator().manual_seed(rows)
    call = {
        "input_ids": torch.randint(1, config.vocab_size, (rows, tokens), generator=make),
        "visual_feats": torch.rand(rows, regions, config.visual_feat_dim, generator=make),
        "visual_pos": torch.rand(rows, regions, 4, generator=make),
        "attention_mask": torch.ones(rows, tokens, dtype=torch.long),
        "visual_attention_mask": torch.ones(rows, regions, dtype=torch.long),
    }
    if padding:
        call["attention_mask"][0, tokens // 2 :] = 0
        call["visual_attention_mask"][-1, 1:] = 0
    return call


def any_size(call):
    """Its tensors' dynamic dimensions: rows, and tokens or regions."""
    rows = torch.export.Dim("rows", min=2, max=64)
    tokens, regions = torch.export.Dim("tokens", min=2, max=16), torch.export.Dim("regions", min=2, max=100)
    return {name: {0: rows, 1: regions if name.startswith("visual") else tokens} for name in call}


def assert_replays(model, replay):
    """`replay` gives what `model` gives, with and without padding, in every shape."""
    for shape in SHAPES:
        for padding in (False, True):
            call = call_of(model.config, *shape, padding)
            with torch.no_grad():
                expected, found = model(**call), replay(call)
            if not isinstance(found, dict):
                found = dict(zip(expected, found, strict=True))
            assert list(found) == list(expected)
            for name in expected:
                ours = torch.as_tensor(found[name])
                torch.testing.assert_close(ours, expected[name], atol=1e-5, rtol=1e-4, msg=f"{shape} {name}")


def test_a_compiled_model_has_no_break_and_takes_other_padding(models):
    model = models["LxmertForPreTraining"]  # the others are parts of it
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=True)
    assert_replays(model, lambda call: compiled(**call))
    call = call_of(model.config, *SHAPES[0], True)
    with torch.no_grad():
        inside = compiled(**call, output_attentions=True, output_hidden_states=True)
        expected = model(**call, output_attentions=True, output_hidden_states=True)
    assert type(inside) is type(expected) and list(inside) == list(expected)
    torch.testing.assert_close(inside.language_embeddings, expected.language_embeddings)


def test_a_compiled_model_trains_as_the_model_does(models):
    model = models["LxmertForQuestionAnswering"]
    call = {**call_of(model.config, *SHAPES[0], True), "labels": torch.tensor([1, 2, 3])}
    gradients = []
    for each in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        each(**call).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    model.zero_grad()
    for name, gradient in gradients[0].items():
        # What is left out of a plain call gets no gradient, and in a whole one none that is not zero.
        other = gradients[1][name]
        if gradient is None or other is None:
            assert all(each is None or not each.any() for each in (gradient, other)), name
        else:
            torch.testing.assert_close(other, gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_an_exported_model_takes_other_padding_and_sizes(models):
    model = models["LxmertForPreTraining"]
    call = call_of(model.config, *SHAPES[0], padding=False)
    exported = torch.export.export(model, (), call, dynamic_shapes=any_size(call))
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    buffer.seek(0)
    replay = torch.export.load(buffer).module()
    assert_replays(model, lambda call: replay(**call))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_traced_model_takes_other_padding_and_sizes(models, name, rows):
    model = models[name]
    call = call_of(model.config, rows, 6, 5, padding=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, example_kwarg_inputs=call, strict=False)
    assert_replays(model, lambda call: traced(**call))


@pytest.mark.parametrize("dynamo", [False, True])
def test_an_onnx_file_gives_the_models_scores(models, tmp_path, dynamo):
    model = models["LxmertForQuestionAnswering"]
    call = call_of(model.config, *SHAPES[0], padding=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            torch.onnx.export(
                model, (), tmp_path / "model.onnx", kwargs=call, dynamic_shapes=any_size(call), dynamo=True,
                verbose=False,
            )  # fmt: skip
        else:
            axes = {name: {0: "rows", 1: dims[1].__name__} for name, dims in any_size(call).items()}
            torch.onnx.export(
                model, (), tmp_path / "model.onnx", kwargs=call, input_names=ONE_CALL, dynamic_axes=axes,
                dynamo=False,
            )  # fmt: skip
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [each.name for each in session.get_inputs()] == ONE_CALL
    assert_replays(model, lambda call: session.run(None, {name: np.asarray(each) for name, each in call.items()}))


def test_a_model_of_two_images_compiles(models):
    model = models["LxmertForVisualReasoning"]
    call = call_of(model.config, 3, 6, 5, True)
    for name in ("visual_feats", "visual_pos", "visual_attention_mask"):
        call[name] = torch.stack([call[name], call[name].flip(0)], 1)
    with torch.no_grad():
        found, expected = torch.compile(model, fullgraph=True, backend="eager")(**call), model(**call)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-4)
