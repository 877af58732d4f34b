"""The original's optimiser and schedule, against an independent writing of its rule; who learns how fast."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from lxmert.config import LxmertConfig
from lxmert.files import InputError
from lxmert.learner import LxmertLearner
from lxmert.model import Lxmert
from lxmert.objectives.answering import Answering
from lxmert.objectives.image_pair import ImagePair
from lxmert.objectives.masked_language import MaskedLanguage
from lxmert.objectives.masked_region import MaskedRegion
from lxmert.objectives.matching import Matching
from lxmert.objectives.question_answering import QuestionAnswering
from lxmert.optim import adamw, bert_adam, freeze, linear_warmup_decay, scale_in_step


def original_rule(parameters, gradients, lr, steps):
    """No bias correction, decay on every parameter, eps outside the root."""
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    for step in range(steps):
        for i, parameter in enumerate(parameters):
            gradient = gradients[step][i]
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient**2
            update = first[i] / (second[i].sqrt() + 1e-6) + 0.01 * parameter
            parameter -= lr * update


def test_bert_adam_follows_the_originals_rule_for_50_steps():
    torch.manual_seed(0)
    theirs = [0.02 * torch.randn(13, 7), 0.02 * torch.randn(7)]  # weights of BERT's size
    ours = [torch.nn.Parameter(p.clone()) for p in theirs]
    gradients = [[torch.randn_like(p) for p in theirs] for _ in range(50)]
    optimizer = bert_adam([(str(i), p) for i, p in enumerate(ours)], lr=1e-4)
    for step in gradients:
        for parameter, gradient in zip(ours, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    original_rule(theirs, gradients, 1e-4, 50)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.detach(), expected, atol=1e-6, rtol=0)


def test_bert_adam_goes_on_exactly_after_its_state_is_saved_and_loaded():
    def train(optimizer, parameter, steps):
        for step in steps:
            parameter.grad = torch.full_like(parameter, float(step))
            optimizer.step()

    whole, parts = (torch.nn.Parameter(torch.ones(5)) for _ in range(2))
    train(bert_adam([("w", whole)], lr=1e-2), whole, range(6))
    first = bert_adam([("w", parts)], lr=1e-2)
    train(first, parts, range(3))
    second = bert_adam([("w", parts)], lr=1e-2)
    second.load_state_dict(first.state_dict())
    train(second, parts, range(3, 6))
    assert torch.equal(whole, parts)


def test_adamw_spares_biases_and_layer_norms_from_decay():
    layer = torch.nn.Linear(3, 3)
    optimizer = adamw(layer.named_parameters(), lr=1.0, weight_decay=0.5)
    bias = layer.bias.detach().clone()
    weight = layer.weight.detach().clone()
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(layer.bias.detach(), bias)
    torch.testing.assert_close(layer.weight.detach(), weight * 0.5)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.0), (5, 0.5), (10, 1.0), (55, 0.5), (100, 0.0), (120, 0.0)])
def test_the_schedule_rises_over_the_warmup_and_falls_to_zero(step, factor):
    assert linear_warmup_decay(step, 100, 0.1) == pytest.approx(factor)


@pytest.fixture
def learner(sizes):
    config = LxmertConfig(**{**sizes, "r_layers": 2, "l_layers": 3}, answers=[str(i) for i in range(7)])
    objectives = {"answering": Answering(config), "masked_language": MaskedLanguage(config)}
    return LxmertLearner(Lxmert(config), objectives, bert_adam, warmup=0.5, label_names={}, seed=0)


# Three language, two vision, two cross-modality layers.
RATES = {
    "objectives.answering.head.logit_fc.0.weight": 1.0,
    "model.pooler.dense.weight": 1.0,
    "model.encoder.x_layers.1.visual_attention.att.query.weight": 0.5,
    "model.encoder.x_layers.0.visn_inter.dense.bias": 0.25,
    "model.encoder.layer.2.attention.output.LayerNorm.weight": 0.125,
    "model.encoder.layer.0.attention.self.key.weight": 0.5**5,
    "model.embeddings.word_embeddings.weight": 0.5**6,
    "model.encoder.r_layers.1.output.dense.weight": 0.125,
    "model.encoder.r_layers.0.output.dense.weight": 0.5**4,
    "model.encoder.visn_fc.box_fc.weight": 0.5**5,
}


def rates_of(optimizer, learner):
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    return {name: rates[id(parameter)] for name, parameter in learner.named_parameters() if id(parameter) in rates}


@pytest.mark.parametrize("make", [bert_adam, adamw])
def test_each_layer_learns_slower_than_the_one_above_it_by_the_layer_decay(learner, make):
    optimizer = make(learner.named_parameters(), lr=2e-3, layer_decay=0.5)
    rates = rates_of(optimizer, learner)
    assert {name: rates[name] / 2e-3 for name in RATES} == pytest.approx(RATES)
    learnt = [name for name, parameter in learner.named_parameters() if parameter.requires_grad]
    assert set(rates) == set(learnt)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(learnt)


@pytest.mark.parametrize("make", [bert_adam, adamw])
def test_the_schedule_keeps_the_ratio_of_the_layers_rates(learner, make):
    optimizer = make(learner.named_parameters(), lr=2e-3, layer_decay=0.5)
    schedule = LambdaLR(optimizer, lambda step: linear_warmup_decay(step, 10, 0.5))
    for step in range(1, 10):
        optimizer.step()
        schedule.step()
        rates, factor = rates_of(optimizer, learner), linear_warmup_decay(step, 10, 0.5)
        assert {name: rates[name] for name in RATES} == pytest.approx(
            {name: 2e-3 * factor * rate for name, rate in RATES.items()}
        )


@pytest.mark.parametrize(("make", "suffixes"), [(bert_adam, [""]), (adamw, ["", "_undecayed"])])
def test_rates_are_logged_by_depth_and_without_a_layer_decay_as_ever(learner, make, suffixes):
    groups = make(learner.named_parameters(), lr=1e-3, layer_decay=0.9).param_groups
    assert [group["name"] for group in groups] == [f"depth_{d}{suffix}" for d in range(7) for suffix in suffixes]
    groups = make(learner.named_parameters(), lr=1e-3).param_groups
    assert len(groups) == len(suffixes) and not any("name" in group for group in groups)


def test_depths_are_those_of_the_whole_model_whatever_is_frozen(learner):
    freeze(learner, ["model.encoder.x_layers", "model.encoder.layer.2"])
    rates = rates_of(bert_adam(learner.named_parameters(), lr=1.0, layer_decay=0.5), learner)
    assert rates["model.encoder.layer.1.attention.self.key.weight"] == 0.5**4
    assert rates["model.encoder.r_layers.1.attention.self.key.weight"] == 0.5**3
    assert not any(name.startswith(("model.encoder.x_layers", "model.encoder.layer.2")) for name in rates)


@pytest.mark.parametrize("layer_decay", [0, -0.1, 1.1, float("nan")])
def test_a_layer_decay_that_is_none_is_refused(learner, layer_decay):
    with pytest.raises(InputError, match=r"optimizer\.layer_decay=.*above 0 and at most 1"):
        bert_adam(learner.named_parameters(), lr=1e-3, layer_decay=layer_decay)


def test_a_layer_decay_of_parameters_that_are_not_a_learners_is_refused(learner):
    with pytest.raises(InputError, match=r"model\.encoder.x_layers\.0"):
        adamw(learner.model.named_parameters(), lr=1e-3, layer_decay=0.9)


def test_adamw_tells_biases_and_norms_by_their_names_as_shards_have_no_shape(sizes):
    config = LxmertConfig(**sizes, answers=[str(i) for i in range(7)])
    makes = [Answering, ImagePair, MaskedLanguage, MaskedRegion, Matching, QuestionAnswering]
    objectives = torch.nn.ModuleDict({make.__name__: make(config) for make in makes})
    whole = torch.nn.ModuleDict({"model": Lxmert(config), "objectives": objectives})
    parameters = dict(whole.named_parameters())
    flat = [
        (f"_fsdp_wrapped_module.{name}", torch.nn.Parameter(p.data.flatten())) for name, p in parameters.items()
    ]
    decayed, others = adamw(flat, lr=1e-3, weight_decay=0.1).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    chosen = {id(parameter) for parameter in decayed["params"]}
    assert [id(parameter) in chosen for _, parameter in flat] == [p.ndim > 1 for p in parameters.values()]


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        ([], set()),
        (["model.embeddings"], {"model.embeddings"}),
        (["model.encoder.layer.1"], {"model.encoder.layer.1"}),
        (["model.encoder.layer.[01]"], {"model.encoder.layer.0", "model.encoder.layer.1"}),
        (["model.encoder.?_layers", "model.encoder.layer", "objectives.answering.head"], {
            "model.encoder.layer", "model.encoder.r_layers", "model.encoder.x_layers", "objectives.answering.head",
        }),
        (["model.pooler.dense.weight"], {"model.pooler.dense.weight"}),
    ],
)  # fmt: skip
def test_parameters_are_frozen_by_the_beginning_of_their_names(learner, patterns, frozen):
    before = {name for name, parameter in learner.named_parameters() if not parameter.requires_grad}
    freeze(learner, patterns)
    after = {name for name, parameter in learner.named_parameters() if not parameter.requires_grad}
    expected = {
        name for name, _ in learner.named_parameters() if any(f"{name}.".startswith(f"{part}.") for part in frozen)
    }
    assert after == before | expected


def test_an_end_of_a_name_is_a_pattern_too(learner):
    freeze(learner, ["*.bias"])
    for name, parameter in learner.named_parameters():
        assert not (name.endswith(".bias") and parameter.requires_grad)
    assert learner.model.embeddings.word_embeddings.weight.requires_grad


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["model.encodr.layer"], r"model.encodr.layer fits no parameter; did you mean model.encoder.layer"),
        (["model.pooler", "model.encoder.layer.9"], r"model.encoder.layer.9 fits no parameter; did you mean"),
        (["zzz"], r"zzz fits no parameter; the parts are model.embeddings, .*objectives.masked_language"),
        (["model.language"], r"model.language fits no parameter"),  # no half names
        (["*"], r"freeze=\['\*'\] leaves nothing to learn"),
    ],
)
def test_a_pattern_without_effect_is_refused(learner, patterns, message):
    with pytest.raises(InputError, match=message):
        freeze(learner, patterns)


# ------------------------------------------------------------------------------------------------ clipping


@pytest.mark.parametrize("make", [bert_adam, adamw])
@pytest.mark.parametrize("most", [0.5, 1e6, None])
def test_clipping_within_a_fused_step_is_clipping_before_it(make, most):
    def trained(within):
        torch.manual_seed(0)
        layers = [torch.nn.Parameter(torch.randn(7, 5)) for _ in range(3)]
        optimizer = make([(str(number), each) for number, each in enumerate(layers)], 1e-2)
        for number in range(1, 12):
            for each in layers:
                each.grad = number * torch.randn(7, 5)
            norm = torch.nn.utils.get_total_norm([each.grad for each in layers])
            if within:
                assert scale_in_step(optimizer, norm, most)
            elif most:
                torch.nn.utils.clip_grads_with_norm_(layers, most, norm)
            optimizer.step()
        return torch.stack([each.detach() for each in layers])

    torch.testing.assert_close(trained(True), trained(False), rtol=0, atol=2e-6)


@pytest.mark.parametrize("make", [bert_adam, adamw])
def test_a_step_of_gradients_that_are_not_finite_changes_nothing_and_the_next_one_does(make):
    layer = torch.nn.Parameter(torch.ones(3))
    optimizer = make([("layer", layer)], 1e-2)

    def step(gradient):
        layer.grad = torch.tensor(gradient)
        scale_in_step(optimizer, torch.nn.utils.get_total_norm([layer.grad]), 1.0)
        optimizer.step()
        return layer.detach().clone()

    before = step([1.0, 2.0, 3.0])
    assert torch.equal(step([1.0, math.nan, 3.0]), before)
    assert torch.equal(step([math.inf, 1.0, 3.0]), before)
    after = step([1.0, 2.0, 3.0])
    assert (after < before).all() and after.isfinite().all()


def test_an_optimiser_that_is_not_fused_is_left_to_its_caller():
    layer = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([layer], 0.1)
    layer.grad = torch.ones(3)
    assert not scale_in_step(optimizer, torch.tensor(2.0), 1.0)
    optimizer.step()
    assert torch.equal(layer.detach(), torch.full((3,), 0.9))
