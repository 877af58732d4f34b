"""The original's optimiser and schedule, against an independent writing of its rule."""

import pytest
import torch

from lxmert.optim import adamw, bert_adam, linear_warmup_decay


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
