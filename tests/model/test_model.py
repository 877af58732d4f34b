"""The model against the reference library's, and what it does beyond the reference."""

import copy
import itertools
import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.lxmert import modeling_lxmert as reference

from lxmert import LxmertConfig, LxmertForQuestionAnswering, LxmertModel
from lxmert.batch import Batch, Packing
from lxmert.model import OUTPUTS
from lxmert.outputs import Internals, LxmertModelOutput
from lxmert.pretrained import answer_loss

ROWS, TOKENS, REGIONS = 4, 6, 5
LENGTHS, REGION_COUNTS = [6, 2, 4, 1], [3, 5, 1, 4]
# Which side an attention's queries and keys are on.
SIDES = {
    "language_attentions": ("language", "language"),
    "vision_attentions": ("vision", "vision"),
    "cross_encoder_attentions": ("language", "vision"),
    "vision_to_language_attentions": ("vision", "language"),
    "cross_language_attentions": ("language", "language"),
    "cross_vision_attentions": ("vision", "vision"),
}
EXPOSED = ["language_attentions", "vision_attentions", "cross_encoder_attentions"]
SUBSETS = [set(s) for n in (1, 2, 3) for s in itertools.combinations(sorted(OUTPUTS), n)]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def mask_of(lengths: list[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(lengths)[:, None]


def call_of(config, padding=True, region_mask=True, types=True, embeds=False, seed=1) -> dict:
    """Arguments of one call, in the reference's style."""
    make = torch.Generator().manual_seed(seed)
    call = {
        "visual_feats": torch.rand(ROWS, REGIONS, config.visual_feat_dim, generator=make) * 3,
        "visual_pos": torch.rand(ROWS, REGIONS, config.visual_pos_dim, generator=make),
        "attention_mask": mask_of(LENGTHS, TOKENS).long() if padding else None,
        "visual_attention_mask": mask_of(REGION_COUNTS, REGIONS).long() if region_mask else None,
        "token_type_ids": torch.randint(config.type_vocab_size, (ROWS, TOKENS), generator=make) if types else None,
    }
    if embeds:
        call["inputs_embeds"] = torch.randn(ROWS, TOKENS, config.hidden_size, generator=make)
    else:
        call["input_ids"] = torch.randint(1, config.vocab_size, (ROWS, TOKENS), generator=make)
    return call


def real(call: dict) -> dict[str, Tensor]:
    """Masks of the real positions of each side."""
    words, regions = call["attention_mask"], call["visual_attention_mask"]
    ones = torch.ones(ROWS, TOKENS), torch.ones(ROWS, REGIONS)
    return {
        "language": (ones[0] if words is None else words) > 0,
        "vision": (ones[1] if regions is None else regions) > 0,
    }


def assert_close(ours: Tensor, theirs: Tensor, what: str = "", atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-4, msg=lambda text: f"{what}: {text}")


def assert_same_gradients(ours, theirs, prefix: str = "", atol: float = 1e-4) -> None:
    """Every parameter's gradient equals the reference's; a missing one equals a missing or a zero one."""
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    own = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert own.keys() == expected.keys()
    for name, gradient in own.items():
        if gradient is None or expected[name] is None:
            for other in (gradient, expected[name]):
                assert other is None or not other.any(), name
        else:
            assert_close(gradient, expected[name], name, atol)


def weighted_sum(output, masks: dict[str, Tensor]) -> Tensor:
    """A scalar that depends on all real positions of all outputs, on each in a way of its own."""
    total = (output.pooled_output * torch.linspace(-1, 2, output.pooled_output.shape[-1])).sum()
    for side in ("language", "vision"):
        out = output[f"{side}_output"][masks[side]]
        total = total + (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum()
    return total


# Parity with the reference's call


@pytest.mark.parametrize(
    ("padding", "region_mask", "types", "embeds"), list(itertools.product([False, True], repeat=4))
)
def test_outputs_states_and_attentions_equal_the_reference(make_pair, padding, region_mask, types, embeds):
    theirs, ours = make_pair("LxmertModel")
    call = call_of(ours.config, padding, region_mask, types, embeds)
    expected = theirs(**call, output_attentions=True, output_hidden_states=True)
    output = ours(**call, output_attentions=True, output_hidden_states=True)
    masks = real(call)
    assert_close(output.pooled_output, expected.pooled_output, "pooled")
    for side in ("language", "vision"):
        mask = masks[side]
        assert_close(output[f"{side}_output"][mask], expected[f"{side}_output"][mask], side)
        pairs = zip(output[f"{side}_hidden_states"], expected[f"{side}_hidden_states"], strict=True)
        for number, (own, other) in enumerate(pairs):
            assert_close(own[mask], other[mask], f"{side} state {number}")
    for name in EXPOSED:
        mask = masks[SIDES[name][0]]
        for own, other in zip(output[name], expected[name], strict=True):
            assert own.shape == other.shape
            assert_close(own.transpose(1, 2)[mask], other.transpose(1, 2)[mask], name)


@pytest.mark.parametrize("changes", [{"hidden_act": "relu"}, {"l_layers": 0, "r_layers": 0, "x_layers": 1}])
def test_other_activations_and_depths_equal_the_reference(make_pair, changes):
    theirs, ours = make_pair("LxmertModel", **changes)
    call = call_of(ours.config)
    assert_close(ours(**call).pooled_output, theirs(**call).pooled_output)


def test_feature_box_segment_and_position_sizes_come_from_the_config(make_pair):
    changes = {
        "visual_feat_dim": 3, "visual_pos_dim": 6, "type_vocab_size": 5, "max_position_embeddings": TOKENS
    }  # fmt: skip
    theirs, ours = make_pair("LxmertModel", **changes)
    call = call_of(ours.config)
    assert call["token_type_ids"].max() > 1 and call["visual_pos"].shape[-1] == 6
    assert_close(ours(**call).pooled_output, theirs(**call).pooled_output)


@pytest.mark.parametrize(("attentions", "states"), list(itertools.product([False, True], repeat=2)))
def test_a_tuple_is_the_references_tuple(make_pair, attentions, states):
    for name in ("LxmertModel", "LxmertForQuestionAnswering"):
        theirs, ours = make_pair(name)
        call = call_of(ours.config, padding=False, region_mask=False)
        switches = {"output_attentions": attentions, "output_hidden_states": states, "return_dict": False}
        expected, output = theirs(**call, **switches), ours(**call, **switches)
        assert isinstance(output, tuple)
        for own, other in zip(output, expected, strict=True):
            torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-4)


def test_output_fields_have_the_references_names_and_order(make_pair):
    for name in ("LxmertModel", "LxmertForQuestionAnswering"):
        theirs, ours = make_pair(name)
        call = call_of(ours.config)
        switches = {"output_attentions": True, "output_hidden_states": True}
        if name != "LxmertModel":
            switches["labels"] = torch.arange(ROWS)
        expected, output = theirs(**call, **switches), ours(**call, **switches)
        assert list(output) == list(output.keys()) == list(expected.keys())
        assert len(output) == len(output.keys()) == len(output.to_tuple())
        first, second = output[:2]
        assert first is output[0] is output[next(iter(output))] and second is output[1]


def test_the_configs_switches_are_the_defaults_of_a_call(make_pair):
    _, ours = make_pair("LxmertModel")
    other = LxmertModel(
        replace(ours.config, output_attentions=True, output_hidden_states=True, return_dict=False)
    ).eval()
    call = call_of(ours.config)
    assert len(other(**call)) == 8 and len(ours(**call)) == 3
    output = other(**call, output_attentions=False, output_hidden_states=False, return_dict=True)
    assert list(output) == ["language_output", "vision_output", "pooled_output"]


@pytest.mark.parametrize(("dtype", "real_value"), [(torch.bool, 1), (torch.long, 3), (torch.float32, 0.5)])
def test_masks_may_be_of_any_type(make_pair, dtype, real_value):
    _, ours = make_pair("LxmertModel")
    call = call_of(ours.config)
    masks = {name: (call[name] * real_value).to(dtype) for name in ("attention_mask", "visual_attention_mask")}
    assert torch.equal(ours(**{**call, **masks}).pooled_output, ours(**call).pooled_output)


@pytest.mark.parametrize(("padding", "region_mask", "embeds"), list(itertools.product([False, True], repeat=3)))
def test_gradients_of_every_parameter_equal_the_reference(make_pair, padding, region_mask, embeds):
    theirs, ours = make_pair("LxmertModel")
    call = call_of(ours.config, padding, region_mask, embeds=embeds)
    for model in (theirs, ours):
        model.zero_grad()
        weighted_sum(model(**call), real(call)).backward()
    assert_same_gradients(ours, theirs, "model.")


@pytest.mark.parametrize("attentions", [False, True])
@pytest.mark.parametrize("labels", [[1, 0, 6, 3], [2, -100, -100, 5]])
def test_the_answer_loss_scores_and_gradients_equal_the_reference(make_pair, labels, attentions):
    theirs, ours = make_pair("LxmertForQuestionAnswering")
    call = call_of(ours.config)
    results = []
    for model in (theirs, ours):
        model.zero_grad()
        results.append(model(**call, labels=torch.tensor(labels), output_attentions=attentions))
        results[-1].loss.backward()
    assert_close(results[1].question_answering_score, results[0].question_answering_score)
    assert_close(results[1].loss, results[0].loss)
    assert_same_gradients(ours, theirs)


def test_float16_features_give_what_the_reference_gives_for_the_same_values_in_float32(make_pair):
    theirs, ours = make_pair("LxmertForQuestionAnswering")
    call = call_of(ours.config)
    half = call["visual_feats"].half()
    expected = theirs(**{**call, "visual_feats": half.float()}).question_answering_score
    assert_close(ours(**{**call, "visual_feats": half}).question_answering_score, expected)


def test_the_published_size_equals_the_reference(tmp_path):
    torch.manual_seed(0)
    ours = LxmertForQuestionAnswering(LxmertConfig(num_qa_labels=3129)).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    ours.save_pretrained(tmp_path)
    theirs = reference.LxmertForQuestionAnswering.from_pretrained(tmp_path).eval()
    assert sum(parameter.numel() for parameter in ours.parameters()) == 213_930_297
    make = torch.Generator().manual_seed(1)
    call = {
        "input_ids": torch.randint(1000, 30522, (2, 9), generator=make),
        "visual_feats": torch.rand(2, 36, 2048, generator=make) * 2,
        "visual_pos": torch.rand(2, 36, 4, generator=make),
        "attention_mask": mask_of([9, 5], 9),
        "visual_attention_mask": mask_of([36, 30], 36),
        "labels": torch.tensor([17, 3000]),
    }
    results = []
    for model in (theirs, ours):
        results.append(model(**call))
        results[-1].loss.backward()
    assert_close(results[1].question_answering_score, results[0].question_answering_score)
    assert_close(results[1].loss, results[0].loss)
    assert_same_gradients(ours, theirs)


# Batches whose rows share sentences and images

SHARING = {
    "all distinct": ([0, 1, 2, 3], [0, 1, 2, 3]),
    "shared images": ([0, 1, 2, 3], [0, 0, 1, 0]),
    "shared sentences": ([2, 0, 2, 2], [3, 1, 0, 2]),
    "both shared": ([0, 0, 1, 1, 0], [1, 0, 1, 1, 1]),
    "every sentence with every image": ([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]),
    "one row of several sides": ([2], [1]),
}


def shared_batch(config, row_sentence, row_image, padding=True, region_mask=True, **changes) -> Batch:
    call = call_of(config, padding, region_mask)
    masks = real(call)
    values = {
        "token_ids": call["input_ids"],
        "token_mask": masks["language"],
        "token_types": call["token_type_ids"],
        "region_features": call["visual_feats"],
        "region_boxes": call["visual_pos"],
        "region_mask": masks["vision"],
        "row_sentence": torch.tensor(row_sentence),
        "row_image": torch.tensor(row_image),
    }
    return Batch(**{**values, **changes})


def expanded(batch: Batch) -> dict:
    """The reference's call with each row's sentence and image copied out."""
    sentence, image = batch.row_sentence, batch.row_image
    return {
        "input_ids": batch.token_ids[sentence],
        "attention_mask": batch.token_mask[sentence].long(),
        "token_type_ids": None if batch.token_types is None else batch.token_types[sentence],
        "visual_feats": batch.region_features[image],
        "visual_pos": batch.region_boxes[image],
        "visual_attention_mask": batch.region_mask[image].long(),
    }


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize(("padding", "region_mask"), list(itertools.product([False, True], repeat=2)))
def test_shared_sides_give_the_references_outputs_and_gradients_for_expanded_rows(
    make_pair, sharing, padding, region_mask
):
    theirs, ours = make_pair("LxmertModel")
    features = call_of(ours.config)["visual_feats"].requires_grad_()
    batch = shared_batch(ours.config, *SHARING[sharing], padding, region_mask, region_features=features)
    masks = {
        "language": batch.token_mask[batch.row_sentence],
        "vision": batch.region_mask[batch.row_image],
    }
    assert batch.num_rows == len(SHARING[sharing][0])
    inputs = []
    outputs = []
    for model in (theirs, ours):
        model.zero_grad()
        features.grad = None
        outputs.append(model(**expanded(batch)) if model is theirs else model.encode(batch, OUTPUTS))
        weighted_sum(outputs[-1], masks).backward()
        inputs.append(features.grad)
    assert_close(outputs[1].pooled_output, outputs[0].pooled_output)
    for side in ("language", "vision"):
        name = f"{side}_output"
        assert_close(outputs[1][name][masks[side]], outputs[0][name][masks[side]], side)
    assert_close(inputs[1], inputs[0], "gradient of the features", 1e-4)
    assert_same_gradients(ours, theirs, "model.")


def test_states_and_attentions_of_shared_sides_are_per_side_then_per_row(make_pair):
    theirs, ours = make_pair("LxmertModel")
    batch = shared_batch(ours.config, *SHARING["both shared"])
    switches = {"output_attentions": True, "output_hidden_states": True}
    expected = theirs(**expanded(batch), **switches)
    output = ours.encode(batch, {"pooled"}, **switches)
    rows = {"language": batch.row_sentence, "vision": batch.row_image}
    masks = {
        "language": batch.token_mask[batch.row_sentence],
        "vision": batch.region_mask[batch.row_image],
    }
    layers = {"language": ours.config.l_layers, "vision": ours.config.r_layers}
    for side, row in rows.items():
        for number, other in enumerate(expected[f"{side}_hidden_states"]):
            own = output[f"{side}_hidden_states"][number]
            assert len(own) == (ROWS if number < layers[side] else batch.num_rows)
            own = own[row] if number < layers[side] else own
            assert_close(own[masks[side]], other[masks[side]], f"{side} state {number}")
        for own, other in zip(output[f"{side}_attentions"], expected[f"{side}_attentions"], strict=True):
            assert_close(own[row].transpose(1, 2)[masks[side]], other.transpose(1, 2)[masks[side]], side)
    for own, other in zip(output.cross_encoder_attentions, expected.cross_encoder_attentions, strict=True):
        mask = masks["language"]
        assert_close(own.transpose(1, 2)[mask], other.transpose(1, 2)[mask], "cross")


def test_a_gradient_reaches_shared_sentence_embeddings_from_all_their_rows(make_pair):
    theirs, ours = make_pair("LxmertModel")
    embeds = torch.randn(ROWS, TOKENS, ours.config.hidden_size, requires_grad=True)
    batch = shared_batch(ours.config, *SHARING["shared sentences"])
    call = {**expanded(batch), "input_ids": None, "inputs_embeds": embeds[batch.row_sentence]}
    theirs(**call).pooled_output.pow(2).sum().backward()
    expected, embeds.grad = embeds.grad, None
    ours.encode(batch, {"pooled"}, inputs_embeds=embeds).pooled_output.pow(2).sum().backward()
    assert_close(embeds.grad, expected, atol=1e-4)
    assert not embeds.grad[[1, 3]].any()  # sentences that no row asks


def test_segments_default_to_zero(make_pair):
    _, ours = make_pair("LxmertModel")
    batch = shared_batch(ours.config, *SHARING["both shared"], token_types=None)
    zeros = replace(batch, token_types=torch.zeros(ROWS, TOKENS, dtype=torch.long))
    first, second = (ours.encode(b, {"pooled"}).pooled_output for b in (batch, zeros))
    assert torch.equal(first, second)


def test_each_side_is_encoded_once_whatever_the_number_of_rows(make_pair):
    _, ours = make_pair("LxmertModel")
    sizes = []
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
        for layer in (ours.encoder.layer[0], ours.encoder.r_layers[0])
    ]
    ours.encode(shared_batch(ours.config, *SHARING["every sentence with every image"]), {"pooled"})
    for hook in hooks:
        hook.remove()
    assert sizes == [sum(LENGTHS), sum(REGION_COUNTS)]


def test_encoded_once_sides_are_paired_again_and_again(make_pair):
    _, ours = make_pair("LxmertModel")
    batch = shared_batch(ours.config, *SHARING["every sentence with every image"])
    expected = ours.encode(batch, OUTPUTS)
    sentences, images = ours.encode_sentences(batch), ours.encode_images(batch)
    for rows in torch.arange(batch.num_rows).flip(0).split(4):
        pairs = batch.pair(batch.row_sentence[rows], batch.row_image[rows])
        found = ours.encode_rows(pairs, sentences, images, OUTPUTS)
        for name in ("pooled_output", "language_output", "vision_output"):
            assert_close(found[name], expected[name][rows], name)


# Attentions


def reference_attentions(theirs, call: dict) -> tuple[dict[str, list[Tensor]], object]:
    """Every attention of the reference, seen at the dropout that its probabilities go through."""
    record: dict[str, list[Tensor]] = {name: [] for name in SIDES}
    crossed: list[Tensor] = []
    hooks = []

    def watch(attention, into: list[Tensor]) -> None:
        def keep(module, inputs, output):
            inputs[0].retain_grad()
            into.append(inputs[0])

        hooks.append(attention.dropout.register_forward_hook(keep))

    for layer in theirs.encoder.layer:
        watch(layer.attention.self, record["language_attentions"])
    for layer in theirs.encoder.r_layers:
        watch(layer.attention.self, record["vision_attentions"])
    for layer in theirs.encoder.x_layers:
        watch(layer.visual_attention.att, crossed)  # called for words, then for regions
        watch(layer.lang_self_att.self, record["cross_language_attentions"])
        watch(layer.visn_self_att.self, record["cross_vision_attentions"])
    output = theirs(**call)
    for hook in hooks:
        hook.remove()
    record["cross_encoder_attentions"] = crossed[::2]
    record["vision_to_language_attentions"] = crossed[1::2]
    return record, output


@pytest.mark.parametrize(("padding", "region_mask"), list(itertools.product([False, True], repeat=2)))
def test_every_attention_and_its_gradient_equal_the_references(make_pair, padding, region_mask):
    theirs, ours = make_pair("LxmertModel")
    call = call_of(ours.config, padding, region_mask)
    masks = real(call)
    expected, their_output = reference_attentions(theirs, call)
    weighted_sum(their_output, masks).backward()
    output = ours(**call, output_attentions=True)
    for name in SIDES:
        for attention in getattr(output, name):
            attention.retain_grad()
    weighted_sum(output, masks).backward()
    layers = {"language_attentions": ours.config.l_layers, "vision_attentions": ours.config.r_layers}
    for name, (query, key) in SIDES.items():
        mask = masks[query]
        assert len(getattr(output, name)) == layers.get(name, ours.config.x_layers)
        for own, other in zip(getattr(output, name), expected[name], strict=True):
            assert_close(own.transpose(1, 2)[mask], other.transpose(1, 2)[mask], name)
            assert torch.isfinite(own.grad).all() and own.grad.any(), name
            real_keys = masks[key][:, None, None, :].expand_as(own).transpose(1, 2)[mask]
            gradients = [grad.transpose(1, 2)[mask][real_keys] for grad in (own.grad, other.grad)]
            assert_close(*gradients, f"gradient of {name}", 1e-4)
            padded_keys = ~masks[key][:, None, None, :].expand_as(own)
            assert not own[padded_keys].any(), name
            torch.testing.assert_close(own.sum(-1), torch.ones_like(own[..., 0]))


def test_the_path_with_attentions_equals_the_path_without(make_pair):
    _, ours = make_pair("LxmertModel")
    batch = shared_batch(ours.config, *SHARING["both shared"])
    masks = {
        "language": batch.token_mask[batch.row_sentence],
        "vision": batch.region_mask[batch.row_image],
    }
    gradients = []
    outputs = []
    for switch in (False, True):
        ours.zero_grad()
        outputs.append(ours.encode(batch, OUTPUTS, output_attentions=switch))
        weighted_sum(outputs[-1], masks).backward()
        gradients.append([parameter.grad for parameter in ours.parameters()])
    for name in ("pooled_output", "language_output", "vision_output"):
        assert_close(outputs[1][name], outputs[0][name], name)
    for own, other in zip(*gradients, strict=True):
        assert_close(own, other, atol=1e-4)


def test_attentions_are_only_computed_openly_when_asked_for(make_pair, monkeypatch):
    _, ours = make_pair("LxmertModel")
    call = call_of(ours.config)
    calls = []
    sdpa = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **kwargs: calls.append(kwargs) or sdpa(*args, **kwargs),
    )
    ours(**call)
    config = ours.config
    assert len(calls) == config.l_layers + config.r_layers + 4 * config.x_layers
    calls.clear()
    ours(**call, output_attentions=True)
    assert not calls


# Reading only some outputs


@pytest.mark.parametrize("reads", SUBSETS, ids=lambda reads: "-".join(sorted(reads)))
def test_what_is_read_does_not_change_when_the_rest_is_left_out(make_pair, reads):
    _, ours = make_pair("LxmertModel")
    batch = shared_batch(ours.config, *SHARING["both shared"])
    names = [f"{read}_output" for read in sorted(reads)]
    gradients = []
    outputs = []
    for asked in (OUTPUTS, reads):
        ours.zero_grad()
        outputs.append(ours.encode(batch, asked))
        sum(
            (outputs[-1][name] * torch.linspace(-1, 1, outputs[-1][name].shape[-1])).sum() for name in names
        ).backward()
        gradients.append({name: parameter.grad for name, parameter in ours.named_parameters()})
    for name in names:
        assert_close(outputs[1][name], outputs[0][name], name)
    assert list(outputs[1]) == [f"{name}_output" for name in ("language", "vision", "pooled") if name in reads]
    for name, gradient in gradients[1].items():
        full = gradients[0][name]
        if gradient is None:
            assert full is None or not full.any(), name
        else:
            assert_close(gradient, full, name, 1e-4)
    unread = {id(parameter) for parameter in ours.unused_parameters(reads)}
    assert unread == {id(parameter) for parameter in ours.parameters() if parameter.grad is None}


def test_sixteen_tensors_of_the_last_layer_are_unread_by_question_answering():
    with torch.device("meta"):
        model = LxmertModel(LxmertConfig())
    unread = list(model.unused_parameters({"pooled"}))
    assert (len(unread), sum(parameter.numel() for parameter in unread)) == (16, 7_087_872)


def test_question_answering_computes_the_last_layer_for_cls_alone(make_pair, monkeypatch):
    _, ours = make_pair("LxmertForQuestionAnswering")
    call = call_of(ours.config)
    layer = ours.lxmert.encoder.x_layers[-1]
    seen = {}
    for name in ("lang_output", "visn_output", "visn_self_att"):  # not by hooks: with them all is computed
        plain = getattr(layer, name).forward

        def forward(*inputs, name=name, plain=plain):
            seen[name] = len(output := plain(*inputs))
            return output

        monkeypatch.setattr(getattr(layer, name), "forward", forward)
    ours(**call)
    assert seen == {"lang_output": ROWS}
    ours(**call, output_hidden_states=True)
    assert seen["lang_output"] == sum(LENGTHS) and "visn_self_att" in seen


# Padding


def test_padded_positions_are_zero(make_pair):
    _, ours = make_pair("LxmertModel")
    call = call_of(ours.config)
    output = ours(**call, output_hidden_states=True)
    masks = real(call)
    for side in ("language", "vision"):
        states = output[f"{side}_hidden_states"]
        for state in (output[f"{side}_output"], getattr(output, f"{side}_embeddings"), *states):
            assert not state[~masks[side]].any()
            assert state[masks[side]].any(-1).all()


def test_the_embeddings_are_what_the_first_layers_read(make_pair):
    theirs, ours = make_pair("LxmertModel")
    call = call_of(ours.config, padding=False, region_mask=False)
    output = ours(**call, output_hidden_states=True)
    words = theirs.embeddings(call["input_ids"], call["token_type_ids"])
    assert_close(output.language_embeddings, words)
    regions = theirs.encoder.visn_fc(call["visual_feats"], call["visual_pos"])
    assert_close(output.vision_embeddings, regions)


masks = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=5)
)


@given(masks, st.integers(0, 3))
def test_packing_and_padding_are_inverse(rows, extra):
    mask = torch.tensor(rows)
    packing = Packing.of(mask)
    values = torch.randn(*mask.shape, *[2] * extra)
    packed = packing.pack(values)
    assert torch.equal(packed, values[mask])
    padded = packing.pad(packed)
    assert torch.equal(padded[mask], values[mask]) and not padded[~mask].any()
    assert torch.equal(packing.pack(padded), packed)
    assert (packing.index is None) == bool(mask.all())


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_the_first_element_of_each_sequence_is_found_among_the_packed(lengths):
    mask = mask_of(lengths, max(lengths))
    packing = Packing.of(mask)
    places = torch.arange(mask.numel()).view(mask.shape)
    assert torch.equal(packing.first(packing.pack(places)), places[:, 0])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, TOKENS), min_size=ROWS, max_size=ROWS),
    st.lists(st.sets(st.integers(0, REGIONS - 1), min_size=1), min_size=ROWS, max_size=ROWS),
    st.sampled_from([0.0, -1e4, 1e30, math.inf, math.nan]),
    st.integers(0, 60),
)
def test_what_is_masked_never_influences_anything(make_pair, lengths, kept, garbage, word):
    """Regions may be masked anywhere, not only at the end."""
    _, ours = make_pair("LxmertModel")
    call = call_of(ours.config)
    words = mask_of(lengths, TOKENS)
    regions = torch.tensor([[place in row for place in range(REGIONS)] for row in kept])
    call |= {"attention_mask": words, "visual_attention_mask": regions}
    dirty = {
        **call,
        "input_ids": call["input_ids"].masked_fill(~words, word),
        "token_type_ids": call["token_type_ids"].masked_fill(~words, 1),
        "visual_feats": call["visual_feats"].masked_fill(~regions[..., None], garbage).requires_grad_(),
        "visual_pos": call["visual_pos"].masked_fill(~regions[..., None], garbage),
    }
    clean, output = ours(**call), ours(**dirty)
    for name in ("pooled_output", "language_output", "vision_output"):
        assert torch.equal(output[name], clean[name]), name
    weighted_sum(output, {"language": words, "vision": regions}).backward()
    gradient = dirty["visual_feats"].grad
    assert not gradient[~regions].any() and torch.isfinite(gradient).all()
    ours.zero_grad()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 4), st.integers(0, 4))
def test_more_padding_changes_nothing(make_pair, more_tokens, more_regions):
    _, ours = make_pair("LxmertModel")
    call = call_of(ours.config)
    wide = {
        name: torch.nn.functional.pad(call[name], (0, more_tokens))
        for name in ("input_ids", "attention_mask", "token_type_ids")
    } | {
        "visual_feats": torch.nn.functional.pad(call["visual_feats"], (0, 0, 0, more_regions)),
        "visual_pos": torch.nn.functional.pad(call["visual_pos"], (0, 0, 0, more_regions)),
        "visual_attention_mask": torch.nn.functional.pad(call["visual_attention_mask"], (0, more_regions)),
    }
    narrow, output = ours(**call), ours(**wide)
    assert_close(output.pooled_output, narrow.pooled_output)
    assert_close(output.language_output[:, :TOKENS], narrow.language_output)
    assert_close(output.vision_output[:, :REGIONS], narrow.vision_output)


def test_a_batch_moves_with_everything_in_it(make_pair):
    _, ours = make_pair("LxmertModel")
    targets = {"answer_scores": torch.rand(5, 7)}
    batch = shared_batch(
        ours.config, *SHARING["both shared"], targets=targets, example_ids=[1, 2, 3, 4, 5], image_ids=["a"]
    )
    moved = batch.to("meta")
    for each in fields(Batch):
        value, before = getattr(moved, each.name), getattr(batch, each.name)
        if isinstance(value, Tensor):
            assert value.device.type == "meta", each.name
        elif isinstance(value, Packing):
            assert (value.mask.device.type, value.index.device.type) == ("meta", "meta")
            assert value.index.shape == before.index.shape
        elif each.name != "targets":
            assert value == before
    assert moved.targets["answer_scores"].device.type == "meta"


# Training


def test_dropout_works_in_training_alone_and_attentions_are_recorded_before_it(sizes):
    torch.manual_seed(0)
    for changes in (
        {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.0},
        {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.5},
    ):
        model = LxmertModel(LxmertConfig(**{**sizes, **changes, "initializer_range": 0.2}))
        call = call_of(model.config)
        for attentions in (False, True):
            first, second = (model(**call, output_attentions=attentions) for _ in range(2))
            assert not torch.allclose(first.pooled_output, second.pooled_output)
        for name in SIDES:
            for attention in getattr(first, name):
                torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))
        model.eval()
        assert torch.equal(model(**call).pooled_output, model(**call).pooled_output)


def test_initial_weights_are_berts(sizes):
    torch.manual_seed(0)
    changes = {"hidden_size": 96, "intermediate_size": 200, "initializer_range": 0.05, "num_qa_labels": 300}
    model = LxmertForQuestionAnswering(LxmertConfig(**{**sizes, **changes}))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            # padding_idx=0 zeroes the first entry of the three embedding tables
            drawn = parameter[1:] if "_embeddings." in name else parameter
            assert drawn.std().item() == pytest.approx(0.05, rel=0.15), name
            assert bool(parameter[0].any()) != ("_embeddings." in name), name
        else:
            is_norm = name.lower().endswith("norm.weight") or name == "answer_head.logit_fc.2.weight"
            assert torch.equal(parameter, torch.full_like(parameter, is_norm)), name


def test_soft_scores_are_trained_as_the_original_trains_them():
    scores = torch.tensor([[0.0, 2.0], [-1.0, 0.5]])
    labels = torch.tensor([[0.3, 1.0], [0.0, 0.6]])
    chance = 1 / (1 + torch.exp(-scores))
    by_hand = -(labels * chance.log() + (1 - labels) * (1 - chance).log()).sum(1).mean()
    torch.testing.assert_close(answer_loss(scores, labels), by_hand)
    torch.testing.assert_close(answer_loss(scores, labels.half()), by_hand, atol=1e-3, rtol=1e-3)


def test_soft_labels_reach_the_loss_through_the_model(make_pair):
    _, ours = make_pair("LxmertForQuestionAnswering")
    labels = torch.rand(ROWS, ours.num_qa_labels)
    output = ours(**call_of(ours.config), labels=labels)
    torch.testing.assert_close(output.loss, answer_loss(output.question_answering_score, labels))


def test_a_batch_without_any_label_has_no_loss_and_no_gradient_instead_of_nan():
    scores = torch.randn(2, 3, requires_grad=True)
    loss = answer_loss(scores, torch.tensor([-100, -100]))
    loss.backward()
    assert loss.item() == 0 and not scores.grad.any()


@pytest.mark.parametrize("number", [4, 11])
def test_resizing_the_answer_head_keeps_the_first_labels_as_the_reference_does(make_pair, sizes, number):
    theirs, ours = make_pair("LxmertForQuestionAnswering")
    model = LxmertForQuestionAnswering(LxmertConfig(**sizes, answers=list("abcdefg")))
    model.load_state_dict(ours.state_dict())
    call = call_of(model.config)
    layer = model.resize_num_qa_labels(number)
    kept = min(number, 7)
    assert layer is model.get_qa_logit_layer() and layer.out_features == number
    assert model.num_qa_labels == model.config.num_qa_labels == number and model.config.answers is None
    scores = model.eval()(**call).question_answering_score
    assert scores.shape == (ROWS, number)
    assert_close(scores[:, :kept], theirs(**call).question_answering_score[:, :kept])


@pytest.mark.parametrize("number", [None, 7])
def test_resizing_to_the_present_number_changes_nothing(sizes, number):
    model = LxmertForQuestionAnswering(LxmertConfig(**sizes, answers=list("abcdefg")))
    layer = model.get_qa_logit_layer()
    assert model.resize_num_qa_labels(number) is layer
    assert model.config.answers == list("abcdefg")


# Precision and devices


@pytest.mark.parametrize("attentions", [False, True])
def test_bfloat16_autocast_stays_close(make_pair, attentions):
    _, ours = make_pair("LxmertForQuestionAnswering")
    call = call_of(ours.config)
    call["visual_feats"] = call["visual_feats"].half()
    expected = ours(**call).question_answering_score
    ours.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        output = ours(**call, labels=torch.arange(ROWS), output_attentions=attentions)
    output.loss.backward()
    difference = (output.question_answering_score.float() - expected).norm() / expected.norm()
    assert 0 < difference < 0.03
    gradients = [parameter.grad for parameter in ours.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    ours.zero_grad()


def test_a_bfloat16_model_runs(make_pair):
    _, ours = make_pair("LxmertModel")
    model = LxmertModel(ours.config).eval()
    model.load_state_dict(ours.state_dict())
    call = call_of(model.config)
    expected = ours(**call).pooled_output
    output = model.to(torch.bfloat16)(**call).pooled_output
    assert output.dtype == torch.bfloat16
    assert (output.float() - expected).abs().max() < 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_cpu_gives(make_pair):
    _, ours = make_pair("LxmertModel")
    model = LxmertModel(ours.config).eval()
    model.load_state_dict(ours.state_dict())
    batch = shared_batch(ours.config, *SHARING["both shared"])
    expected = ours.encode(batch, OUTPUTS)
    moved = batch.pin_memory().to("cuda", non_blocking=True)
    output = model.cuda().encode(moved, OUTPUTS)
    for name in ("pooled_output", "language_output", "vision_output"):
        assert_close(output[name].cpu(), expected[name], name, 1e-3)
    with torch.autocast("cuda", torch.bfloat16):
        output = model.encode(moved, {"pooled"}, output_attentions=True)
    assert (output.pooled_output.float().cpu() - expected.pooled_output).abs().max() < 0.1


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_ids": None}, "pass either input_ids or inputs_embeds"),
        ({"inputs_embeds": torch.zeros(ROWS, TOKENS, 24)}, "pass either input_ids or inputs_embeds"),
        ({"visual_feats": None}, "pass visual_feats and visual_pos"),
        ({"visual_pos": None}, "pass visual_feats and visual_pos"),
        ({"input_ids": torch.ones(6, dtype=torch.long)}, r"token shape \(6,\); expected \(rows, tokens\)"),
        ({"input_ids": torch.ones(ROWS, 17, dtype=torch.long)}, "17 tokens; the model has 16 positions"),
        ({"visual_feats": torch.rand(ROWS, REGIONS, 9)}, r"visual_feats has shape \(4, 5, 9\); .*4, 5, 10"),
        ({"visual_feats": torch.rand(3, REGIONS, 10)}, r"visual_feats has shape \(3, 5, 10\); .*4, 5, 10"),
        ({"visual_feats": torch.rand(ROWS, 10)}, r"visual_feats has shape \(4, 10\)"),
        ({"visual_pos": torch.rand(ROWS, REGIONS, 5)}, r"visual_pos has shape \(4, 5, 5\); .*4, 5, 4"),
        ({"visual_pos": torch.rand(ROWS, 6, 4)}, r"visual_pos has shape \(4, 6, 4\); .*4, 5, 4"),
        ({"attention_mask": torch.ones(ROWS, 5)}, r"attention_mask has shape \(4, 5\); .*4, 6"),
        ({"visual_attention_mask": torch.ones(ROWS, 6)}, r"visual_attention_mask .*\(4, 6\); .*4, 5"),
        ({"token_type_ids": torch.ones(ROWS, 1).long()}, r"token_type_ids has shape \(4, 1\); .*4, 6"),
        (
            {"input_ids": None, "inputs_embeds": torch.zeros(ROWS, TOKENS, 1)},
            r"inputs_embeds has shape \(4, 6, 1\); .*4, 6, 24",
        ),
        (
            {"visual_feats": torch.rand(ROWS, 0, 10), "visual_pos": torch.rand(ROWS, 0, 4),
             "visual_attention_mask": None},
            "6 tokens and 0 regions a row",
        ),
        ({"attention_mask": mask_of([6, 0, 1, 1], TOKENS)}, r"hides the first token .* pad .* on the right"),
        ({"attention_mask": mask_of(LENGTHS, TOKENS).flip(1)}, r"hides the first token"),
        ({"visual_attention_mask": mask_of([5, 0, 1, 1], REGIONS)}, "hides all regions of a row"),
    ],
)  # fmt: skip
def test_a_bad_call_says_what_is_wrong(make_pair, changes, message):
    for name in ("LxmertModel", "LxmertForQuestionAnswering"):
        _, ours = make_pair(name)
        with pytest.raises(ValueError, match=message):
            ours(**{**call_of(ours.config), **changes})


@pytest.mark.parametrize("reads", [set(), {"pooled", "words"}])
def test_reading_an_unknown_output_says_which_ones_there_are(make_pair, reads):
    _, ours = make_pair("LxmertModel")
    with pytest.raises(ValueError, match=r"outputs_needed=.*expected some of \['language', 'pooled', 'vision'\]"):
        ours.encode(shared_batch(ours.config, [0], [0]), reads)


@pytest.mark.parametrize(
    "labels", [torch.rand(4), torch.ones(4, 7).long(), torch.ones(3).long(), torch.rand(4, 6)]
)
def test_labels_that_are_neither_indices_nor_soft_scores_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels of shape .*expected \(4,\) class indices or \(4, 7\) soft"):
        answer_loss(torch.zeros(4, 7), labels)


def test_internals_name_every_attention_that_the_model_has():
    names = {field.name for field in fields(Internals) if field.name.endswith("attentions")}
    assert names == set(SIDES)
    assert not LxmertModelOutput()


# ---------------------------------------------------------------------------------------------------- boxes


def test_boxes_in_pixels_are_said_once(sizes, caplog):
    model = LxmertForQuestionAnswering(LxmertConfig(**sizes)).eval()
    words, features, boxes = torch.randint(5, 60, (2, 4)), torch.rand(2, 3, 10), torch.rand(2, 3, 4)
    with torch.no_grad():
        for _ in range(2):
            model(words, features, boxes * 640)
        assert len(caplog.records) == 1
        assert "seem to be pixels; the model expects x1 y1 x2 y2 as fractions" in caplog.text
        caplog.clear()
        other = copy.deepcopy(model)
        other.lxmert._boxes_seen = False
        other(words, features, boxes * 1.001)  # beyond the edge by a rounding error
        other(words, features, boxes * 640)  # looked at once: each look would wait for a GPU
    assert not caplog.records


def test_boxes_are_not_looked_at_where_a_call_is_recorded(sizes, caplog, monkeypatch):
    model = LxmertModel(LxmertConfig(**sizes)).eval()
    call = torch.randint(5, 60, (2, 4)), torch.rand(2, 3, 10), torch.rand(2, 3, 4) * 640
    with torch.no_grad():
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            model(*call)
        assert not model._boxes_seen and not caplog.records
        model(*call)
        assert model._boxes_seen and len(caplog.records) == 1
