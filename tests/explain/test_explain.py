"""Explanations: numbers of the published code, and what must hold of any."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from runs import SHARED

from lxmert import (
    LxmertConfig,
    LxmertForPreTraining,
    LxmertForQuestionAnswering,
    LxmertForVisualReasoning,
    LxmertModel,
)
from lxmert.batch import Batch
from lxmert.explain import METHODS, explain
from lxmert.explain.rules import RULES, Maps
from lxmert.files import InputError

VECTORS = SHARED / "explain" / "relevancy_vectors.json"
THEIRS = {"relevancy": "ours", "gradcam": "attn_gradcam", "rollout": "rollout", "attention": "raw_attention"}
KINDS = {
    "language": "language.{}", "vision": "vision.{}", "language_to_vision": "cross.{}.text_to_image",
    "vision_to_language": "cross.{}.image_to_text", "cross_language": "cross.{}.text_self",
    "cross_vision": "cross.{}.image_self",
}  # fmt: skip


# ------------------------------------------------------------------------------- the published code's numbers


@pytest.fixture(scope="module")
def vectors():
    if not VECTORS.is_file():
        pytest.skip(f"{VECTORS} is not here: numbers of the published code")
    return json.loads(VECTORS.read_text())


def recorded(vectors, what):
    found = {each["name"]: torch.tensor(each[what]) for each in vectors["maps_for_argmax"]}

    def layers(pattern):
        return [
            found[pattern.format(n)].reshape(-1, *found[pattern.format(n)].shape[-3:])
            for n in range(9)
            if pattern.format(n) in found
        ]

    here = torch.ones(1, 6, dtype=torch.bool), torch.ones(1, 4, dtype=torch.bool)
    return Maps(*here, **{kind: layers(pattern) for kind, pattern in KINDS.items()})


@pytest.mark.parametrize("method", METHODS)
def test_recorded_maps_give_the_published_codes_relevance(vectors, method):
    attentions, gradients = recorded(vectors, "attention"), recorded(vectors, "gradient")
    words, regions = RULES[method](attentions, gradients)
    expected = vectors["relevancy"][THEIRS[method]]
    torch.testing.assert_close(words[0], torch.tensor(expected["R_t_t"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(regions[0], torch.tensor(expected["R_t_i"]), atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def published(vectors):
    names = set(LxmertConfig().to_dict())
    sizes = LxmertConfig(**{key: value for key, value in vectors["config"].items() if key in names})
    model = LxmertForQuestionAnswering(sizes).eval()
    model.load_state_dict({name: torch.tensor(value) for name, value in vectors["state_dict"].items()})
    inputs = {name: torch.tensor(value) for name, value in vectors["inputs"].items()}
    batch = Batch(
        token_ids=inputs["input_ids"],
        token_mask=inputs["attention_mask"].bool(),
        token_types=inputs["token_type_ids"],
        region_features=inputs["visual_feats"],
        region_boxes=inputs["visual_pos"],
        region_mask=torch.ones(1, 4, dtype=torch.bool),
        row_sentence=torch.tensor([0]),
        row_image=torch.tensor([0]),
    )
    return model, batch


@pytest.mark.parametrize("answer", [None, 2])
@pytest.mark.parametrize("method", METHODS)
def test_a_model_is_explained_as_the_published_code_explains_it(vectors, published, method, answer):
    model, batch = published
    found = explain(model, batch, None if answer is None else torch.tensor([answer]), method)
    name = THEIRS[method] + ("_index2" if answer and method in ("relevancy", "gradcam") else "")
    expected = vectors["relevancy"][name]
    torch.testing.assert_close(found.words, torch.tensor(expected["R_t_t"])[:1], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.regions, torch.tensor(expected["R_t_i"])[:1], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.scores, torch.tensor(vectors["logits"]), atol=1e-5, rtol=0)
    assert found.answers.tolist() == [vectors["argmax"] if answer is None else answer]


# ------------------------------------------------------------------------------------ properties of any model


def make_model(sizes, kind=LxmertForQuestionAnswering, **changes):
    torch.manual_seed(3)
    options = {"initializer_range": 0.3, "hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5}
    return kind(LxmertConfig(**{**sizes, **options, **changes})).eval()


@pytest.fixture(scope="module")
def model(sizes):
    return make_model(sizes)


def make_batch(seed=0, types=True):
    """Five rows of three sentences and two images, all of different lengths."""
    make = torch.Generator().manual_seed(seed)
    mask = torch.arange(6) < torch.tensor([6, 3, 5])[:, None]
    return Batch(
        token_ids=torch.randint(4, 61, (3, 6), generator=make) * mask,
        token_mask=mask,
        token_types=torch.randint(0, 2, (3, 6), generator=make) if types else None,
        region_features=torch.randn(2, 5, 10, generator=make),
        region_boxes=torch.rand(2, 5, 2, 2, generator=make).sort(2).values.flatten(2),
        region_mask=torch.arange(5) < torch.tensor([3, 5])[:, None],
        row_sentence=torch.tensor([0, 1, 2, 0, 1]),
        row_image=torch.tensor([0, 1, 1, 1, 0]),
    )


def row_alone(batch, row, tokens=None, regions=None):
    """A row as a batch of its own, without padding."""
    sentence, image = batch.row_sentence[row], batch.row_image[row]
    tokens = torch.arange(int(batch.token_mask[sentence].sum())) if tokens is None else tokens
    regions = torch.arange(int(batch.region_mask[image].sum())) if regions is None else regions
    return Batch(
        token_ids=batch.token_ids[sentence][None, tokens],
        token_mask=torch.ones(1, len(tokens), dtype=torch.bool),
        token_types=None if batch.token_types is None else batch.token_types[sentence][None, tokens],
        region_features=batch.region_features[image][None, regions],
        region_boxes=batch.region_boxes[image][None, regions],
        region_mask=torch.ones(1, len(regions), dtype=torch.bool),
        row_sentence=torch.tensor([0]),
        row_image=torch.tensor([0]),
    )


def alike(found, expected, **tolerance):
    tolerance = tolerance or {"atol": 2e-6, "rtol": 1e-5}
    for name in ("words", "regions", "scores", "words_scaled", "regions_scaled"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **tolerance)
    assert found.answers.tolist() == expected.answers.tolist()


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_share_sides_and_padding_are_explained_as_each_alone(model, method):
    batch = make_batch()
    answers = torch.tensor([3, 0, 6, 1, 2])
    found = explain(model, batch, answers, method)
    assert found.words.shape == (5, 6) and found.regions.shape == (5, 5)
    assert found.regions.std() > 1e-3 and found.words.std() > 1e-3  # there is something to be alike
    for row in range(5):
        alone = explain(model, row_alone(batch, row), answers[row : row + 1], method)
        tokens, regions = alone.words.shape[1], alone.regions.shape[1]
        for whole, part, size in (
            (found.words, alone.words, tokens),
            (found.regions, alone.regions, regions),
            (found.words_scaled, alone.words_scaled, tokens),
            (found.regions_scaled, alone.regions_scaled, regions),
        ):
            # What is scaled to 0..1 has its rounding stretched.
            torch.testing.assert_close(whole[row, :size], part[0], atol=2e-5, rtol=1e-4)
            assert not whole[row, size:].any()


@pytest.mark.parametrize("method", METHODS)
def test_regions_in_another_order_have_their_relevance_in_that_order(model, method):
    batch, order = make_batch(), torch.tensor([3, 0, 4, 1, 2])
    found = explain(model, row_alone(batch, 2), method=method)
    moved = explain(model, row_alone(batch, 2, regions=order), method=method)
    torch.testing.assert_close(moved.regions, found.regions[:, order], atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(moved.words, found.words, atol=2e-6, rtol=1e-4)


def test_the_best_answer_is_explained_unless_another_is_asked_for(model):
    batch = make_batch()
    best = explain(model, batch)
    assert best.answers.tolist() == best.scores.argmax(1).tolist()
    alike(explain(model, batch, best.answers), best)
    other = explain(model, batch, best.scores.argmin(1))
    assert (other.regions - best.regions).abs().max() > 1e-3


def test_what_has_no_gradient_has_no_relevance(sizes):
    model = make_model(sizes)
    torch.nn.init.zeros_(model.answer_head.logit_fc[3].weight)
    for method in ("relevancy", "gradcam"):
        found = explain(model, make_batch(), method=method)
        assert not found.words.any() and not found.regions.any()
        assert not found.words_scaled.any() and not found.regions_scaled.any()


def test_one_region_and_one_cross_layer_are_enough(sizes):
    model = make_model(sizes, x_layers=1)
    for method in METHODS:
        found = explain(model, row_alone(make_batch(), 0, regions=torch.tensor([1])), method=method)
        assert found.regions.isfinite().all() and found.words.isfinite().all()
        assert not found.regions_scaled.any()  # nothing to compare with


# --------------------------------------------------------------------------------- the model and its callers


@pytest.mark.parametrize("frozen", [False, True])
def test_the_model_is_left_as_it_was(sizes, frozen):
    model = make_model(sizes).requires_grad_(not frozen)
    model.train()
    model.lxmert.pooler.eval()
    expected = explain(copy.deepcopy(model).eval().requires_grad_(True), make_batch())
    if not frozen:
        model.answer_head.logit_fc[0].bias.grad = torch.ones(48)
    modes = {name: part.training for name, part in model.named_modules()}
    gradients = {name: each.grad for name, each in model.named_parameters()}
    batch = make_batch()
    alike(explain(model, batch), expected)
    assert {name: part.training for name, part in model.named_modules()} == modes
    assert all(each.grad is gradients[name] for name, each in model.named_parameters())
    assert {each.requires_grad for each in model.parameters()} == {not frozen}
    assert not batch.region_features.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", METHODS)
def test_callers_may_have_switched_gradients_off(model, mode, method):
    expected = explain(model, make_batch(), method=method)
    with mode():
        # Of a batch and answers that were made there, too.
        found = explain(model, make_batch(), expected.answers + 0, method)
        assert not torch.is_grad_enabled()
    alike(found, expected)
    assert torch.is_grad_enabled() and not found.regions.requires_grad


def test_a_callers_autocast_changes_nothing(model):
    expected = explain(model, make_batch())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        model.lxmert.encode(make_batch(), {"pooled"})  # autocast keeps copies of the weights
        alike(explain(model, make_batch(), expected.answers), expected)


def test_features_of_half_precision_are_explained(model):
    batch = make_batch()
    half = replace(batch, region_features=batch.region_features.half())
    assert (explain(model, half).regions - explain(model, batch).regions).abs().max() < 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_are_explained_in_float32(sizes, dtype):
    model = make_model(sizes, initializer_range=0.15)
    batch = row_alone(make_batch(), 3)
    expected = explain(model, batch, torch.tensor([1]))
    found = explain(model.to(dtype), batch, torch.tensor([1]))
    assert found.regions.dtype == found.words.dtype == found.scores.dtype == torch.float32
    torch.testing.assert_close(found.regions_scaled, expected.regions_scaled, atol=0.15, rtol=0)


def test_wrapped_and_compiled_models_are_explained(model):
    batch, expected = make_batch(), explain(model, make_batch())
    alike(explain(torch.compile(model, backend="eager"), batch), expected)
    compiled = copy.deepcopy(model)
    for layer in compiled.lxmert.encoder.x_layers:
        layer.compile(backend="aot_eager")
    alike(explain(compiled, batch), expected)
    wrapper = torch.nn.Module()
    wrapper.module = model
    alike(explain(wrapper, batch), expected)


def test_a_pre_training_model_is_explained_by_its_answer_head(sizes, model):
    other = make_model(sizes, LxmertForPreTraining)
    other.load_state_dict(model.state_dict(), strict=False)
    alike(explain(other, make_batch()), explain(model, make_batch()))


def test_the_images_of_a_statement_share_its_answer(sizes):
    model, batch = make_model(sizes, LxmertForVisualReasoning), make_batch()
    batch = replace(
        batch,
        region_features=torch.cat([batch.region_features, batch.region_features.flip(1) * 0.5]),
        region_boxes=torch.cat([batch.region_boxes] * 2),
        region_mask=torch.ones(4, 5, dtype=torch.bool),
        region_packing=None,
    ).pair(torch.tensor([0, 0, 2, 2]), torch.tensor([0, 1, 2, 3]))
    answers = torch.tensor([1, 1, 0, 0])
    found = explain(model, batch, answers)
    call = {
        "input_ids": batch.token_ids[[0, 2]],
        "attention_mask": batch.token_mask[[0, 2]],
        "token_type_ids": batch.token_types[[0, 2]],
        "visual_feats": batch.region_features.view(2, 2, 5, 10),
        "visual_pos": batch.region_boxes.view(2, 2, 5, 4),
    }
    torch.testing.assert_close(found.scores[::2], model(**call).logits.detach(), atol=1e-5, rtol=1e-5)
    assert found.answers.tolist() == [1, 1, 0, 0]
    assert (found.regions[0] - found.regions[1]).abs().max() > 1e-4  # each image has maps of its own
    second = explain(model, batch.pair(torch.tensor([2, 2]), torch.tensor([2, 3])), answers[2:])
    torch.testing.assert_close(second.regions, found.regions[2:], atol=2e-6, rtol=1e-4)
    with pytest.raises(InputError, match="2 rows of an example share one answer"):
        explain(model, batch, torch.tensor([1, 0, 0, 0]))


# ------------------------------------------------------------------------------------------------- bad input


def test_a_model_without_an_answer_head_is_refused_by_name(sizes):
    for model in (
        make_model(sizes, LxmertModel),
        make_model(sizes, LxmertForPreTraining, task_qa=False),
    ):
        with pytest.raises(InputError, match=f"{type(model).__name__} has no answer head"):
            explain(model, make_batch())


@pytest.mark.parametrize(
    ("answers", "method", "message"),
    [
        ([0, 1, 2, 3, 7], "relevancy", "answer 7: the model has the answers 0 to 6"),
        ([0, -1, 2, 3, 4], "relevancy", "answer -1: the model has the answers 0 to 6"),
        ([0], "relevancy", r"answers of shape \(1,\).*expected \(5,\)"),
        ([0.0] * 5, "relevancy", "expected .5,. labels"),
        ([0] * 5, "lime", "method='lime'; expected one of relevancy, gradcam, rollout, attention"),
    ],
)
def test_what_cannot_be_explained_is_refused(model, answers, method, message):
    with pytest.raises(InputError, match=message):
        explain(model, make_batch(), torch.tensor(answers), method)
