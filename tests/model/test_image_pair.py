"""Statements about two images or more: the head, the objective, its metrics and the library class."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lxmert import LxmertConfig, LxmertForVisualReasoning, LxmertModel
from lxmert.batch import Batch
from lxmert.heads import PairHead
from lxmert.learner import config_differences
from lxmert.objectives.base import Result
from lxmert.objectives.image_pair import ImagePair
from lxmert.outputs import LxmertModelOutput

E, TOKENS, REGIONS = 3, 6, 5  # statements
LENGTHS = torch.tensor([6, 3, 5])
REGION_COUNTS = torch.tensor([[5, 2], [1, 4], [5, 5]])


@pytest.fixture
def config(sizes):
    return LxmertConfig(**{**sizes, "num_qa_labels": 2}, answers=["False", "True"])


def randomize(module):
    """Every number random: at their initial 0 and 1 an exchange of two of them would not show."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return module.eval()


@pytest.fixture
def call(config):
    """Arguments of the library class for E statements."""
    make = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.randint(1, config.vocab_size, (E, TOKENS), generator=make),
        "visual_feats": torch.rand(E, 2, REGIONS, config.visual_feat_dim, generator=make) * 3,
        "visual_pos": torch.rand(E, 2, REGIONS, 4, generator=make),
        "attention_mask": torch.arange(TOKENS) < LENGTHS[:, None],
        "visual_attention_mask": torch.arange(REGIONS) < REGION_COUNTS[..., None],
        "token_type_ids": torch.randint(2, (E, TOKENS), generator=make),
    }


def batch_of(call, **targets):
    """These as a data module has them, but the third about the images of the first, the other way round."""
    return Batch(
        token_ids=call["input_ids"],
        token_mask=call["attention_mask"],
        token_types=call["token_type_ids"],
        region_features=call["visual_feats"].flatten(0, 1)[:4],
        region_boxes=call["visual_pos"].flatten(0, 1)[:4],
        region_mask=call["visual_attention_mask"].flatten(0, 1)[:4],
        row_sentence=torch.tensor([0, 0, 1, 1, 2, 2]),
        row_image=torch.tensor([0, 1, 2, 3, 1, 0]),
        targets=targets,
        example_ids=["a", "b", "c"],
    )


def test_the_head_is_the_originals(config):
    head = randomize(PairHead(config))
    pooled = torch.randn(2 * E, config.hidden_size)
    first, _, norm, last = (module for module in head.logit_fc)
    for e in range(E):
        left, right = pooled[2 * e], pooled[2 * e + 1]
        hidden = F.gelu(first.weight @ torch.cat([left, right]) + first.bias)
        hidden = (hidden - hidden.mean()) / (hidden.var(unbiased=False) + 1e-12).sqrt() * norm.weight + norm.bias
        torch.testing.assert_close(head(pooled)[e], last.weight @ hidden + last.bias)
    assert first.weight.shape == (2 * config.hidden_size, 2 * config.hidden_size) and last.weight.shape[0] == 2


def test_the_loss_is_the_cross_entropy_of_each_statement(config):
    objective = randomize(ImagePair(config))
    pooled = torch.randn(2 * E, config.hidden_size)
    truth = torch.tensor([1, 0, 1])
    scores = objective.head(pooled)
    result = objective(LxmertModelOutput(pooled_output=pooled), batch_like(truth), None)
    by_hand = -sum((scores[e, truth[e]].exp() / scores[e].exp().sum()).log() for e in range(E)) / E
    torch.testing.assert_close(result.losses["image_pair"], by_hand)
    torch.testing.assert_close(result.predictions["answer_scores"], scores.detach())
    probabilities = objective.probabilities(scores)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(E))
    assert objective.answers[int(probabilities[0].argmax())] == str(bool(scores[0, 1] > scores[0, 0]))


def batch_like(truth):
    """What the objective reads of a batch."""
    empty = torch.zeros(1, 1, dtype=torch.bool)
    return Batch(
        *(torch.ones(1, 1, dtype=torch.long), ~empty, torch.zeros(1, 1, 1), torch.zeros(1, 1, 4), ~empty),
        row_sentence=torch.zeros(2 * len(truth), dtype=torch.long),
        row_image=torch.zeros(2 * len(truth), dtype=torch.long),
        targets={"statement": truth},
    )


def test_without_truth_values_there_are_scores_and_no_loss(config, call):
    objective, model = randomize(ImagePair(config)), randomize(LxmertModel(config))
    batch = batch_of(call)
    result = objective(model.encode(batch, objective.outputs_needed), batch, model)
    assert result.losses == {} and result.predictions["answer_scores"].shape == (E, 2)
    metrics = objective.make_metrics({})
    metrics.update(result, batch)
    assert metrics.compute() == {}


def test_accuracy_counts_statements_over_batches_and_starts_anew(config):
    metrics = ImagePair(config).make_metrics({})
    for truth, scores in (([1, 0, 1], [[0, 1], [2, 1], [3, -3]]), ([0], [[1, 2]])):
        objective = ImagePair(config)
        objective.head = nn.Identity()  # pooled rows of one number: a statement's scores are its two
        pooled = torch.tensor(scores, dtype=torch.float)
        batch = batch_like(torch.tensor(truth))
        metrics.update(objective(LxmertModelOutput(pooled_output=pooled), batch, None), batch)
    assert {name: float(value) for name, value in metrics.compute().items()} == {"accuracy": 0.5}
    metrics.reset()
    assert metrics.compute() == {}


def test_accuracy_is_told_by_group_and_a_batch_without_the_group_counts_in_all(config):
    metrics = ImagePair(config).make_metrics({"answer_type": [], "split": ["easy", "hard"]})
    scores = torch.tensor([[0.0, 1], [0, 1], [0, 1]])
    for truth, codes in (([1, 0, 1], [0, 0, 1]), ([0, 0, 0], None)):
        batch = batch_like(torch.tensor(truth))
        if codes:
            batch.targets["split"] = torch.tensor(codes)
        metrics.update(Result({}, {"answer_scores": scores}), batch)
    expected = {"accuracy": 2 / 6, "accuracy/split/easy": 1 / 2, "accuracy/split/hard": 1.0}
    assert {name: float(value) for name, value in metrics.compute().items()} == pytest.approx(expected)


def test_left_and_right_are_told_apart_and_the_truth_is_learnt(config, call):
    """The first and the third statement, made alike, differ in nothing but the order of their images."""
    torch.manual_seed(0)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        call[name][2] = call[name][0]
    batch = batch_of(call, statement=torch.tensor([1, 0, 0]))
    model, objective = LxmertModel(replace(config, initializer_range=0.2)), ImagePair(config)
    optimizer = torch.optim.Adam([*model.parameters(), *objective.parameters()], 3e-3)
    losses = []
    for _ in range(40):
        result = objective(model.encode(batch, objective.outputs_needed), batch, model)
        optimizer.zero_grad()
        result.losses["image_pair"].backward()
        optimizer.step()
        losses.append(float(result.losses["image_pair"].detach()))
    assert losses[0] > 0.4 and losses[-1] < 0.05
    assert result.predictions["answer_scores"].argmax(1).tolist() == [1, 0, 0]


def test_the_loss_stays_in_float32_under_bfloat16(config):
    objective = randomize(ImagePair(config))
    with torch.autocast("cpu", torch.bfloat16):
        result = objective(
            LxmertModelOutput(pooled_output=torch.randn(6, config.hidden_size)),
            batch_like(torch.ones(3).long()),
            None,
        )
    assert result.losses["image_pair"].dtype == result.predictions["answer_scores"].dtype == torch.float32


# ------------------------------------------------------------------------------------ the library class


@pytest.fixture
def reasoning(config):
    return randomize(LxmertForVisualReasoning(config))


def swapped(call):
    """The call whose third statement is about the images of the first, the other way round."""
    images = {name: call[name].clone() for name in ("visual_feats", "visual_pos", "visual_attention_mask")}
    for tensor in images.values():
        tensor[2] = tensor[0].flip(0)
    return call | images


def test_the_class_gives_the_objectives_scores_loss_and_gradients(config, reasoning, call):
    objective = ImagePair(config)
    objective.head.load_state_dict(reasoning.pair_head.state_dict())
    model = LxmertModel(config).eval()
    model.load_state_dict(reasoning.lxmert.state_dict())
    truth = torch.tensor([1, 0, 1])
    batch = batch_of(call, statement=truth)
    expected = objective(model.encode(batch, objective.outputs_needed), batch, model)
    found = reasoning(**swapped(call), labels=truth)
    torch.testing.assert_close(found.logits, expected.predictions["answer_scores"])
    torch.testing.assert_close(found.loss, expected.losses["image_pair"])
    expected.losses["image_pair"].backward()
    found.loss.backward()
    for (name, one), other in zip(model.named_parameters(), reasoning.lxmert.parameters(), strict=True):
        for gradient, same in ((one.grad, other.grad), (other.grad, one.grad)):
            assert gradient is not None or same is None or not same.any(), name
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("masks", [True, False])
def test_the_class_equals_the_references_encoder_run_on_each_image(make_pair, call, masks):
    theirs, ours = make_pair("LxmertModel")
    reasoning = randomize(LxmertForVisualReasoning(ours.config))
    reasoning.lxmert.load_state_dict(ours.state_dict())
    if not masks:
        for name in ("attention_mask", "visual_attention_mask", "token_type_ids"):
            call[name] = None
    sides = []
    for side in (0, 1):
        images = {k: v[:, side] for k, v in call.items() if k.startswith("visual") and v is not None}
        words = {k: v for k, v in call.items() if not k.startswith("visual")}
        sides.append(theirs(**images, **words).pooled_output)
    expected = nn.Sequential(*reasoning.pair_head.logit_fc)(torch.cat(sides, 1))
    torch.testing.assert_close(reasoning(**call).logits, expected, atol=1e-5, rtol=1e-4)


def test_a_statement_is_encoded_once_for_its_two_images(reasoning, call):
    output = reasoning(**call, output_hidden_states=True, output_attentions=True)
    config = reasoning.config
    language = output.language_hidden_states
    assert [len(states) for states in language] == [E] * config.l_layers + [2 * E] * config.x_layers
    assert len(output.vision_hidden_states[0]) == 2 * E
    assert output.cross_encoder_attentions[0].shape == (2 * E, config.num_attention_heads, TOKENS, REGIONS)
    assert reasoning(**call).language_hidden_states is None


def test_negative_labels_are_ignored_and_nothing_left_is_a_loss_of_zero(reasoning, call):
    some = reasoning(**call, labels=torch.tensor([1, -100, -1])).loss
    torch.testing.assert_close(some, F.cross_entropy(reasoning(**call).logits[:1], torch.tensor([1])))
    assert reasoning(**call, labels=torch.full((E,), -1)).loss == 0
    assert reasoning(**call).loss is None


def test_a_tuple_is_given_on_demand(reasoning, call):
    loss, logits = reasoning(**call, labels=torch.ones(E).long(), return_dict=False)
    assert loss.ndim == 0 and logits.shape == (E, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda call: call.update(visual_feats=call["visual_feats"][:, 0]),
            r"visual_feats \(3, 5, 10\).*expected",
        ),
        (lambda call: call.update(visual_feats=call["visual_feats"][:, :1]), r"visual_feats \(3, 1, 5, 10\)"),
        (lambda call: call.update(visual_pos=call["visual_pos"][:, :, :4]), r"visual_pos \(3, 2, 4, 4\)"),
        (
            lambda call: call.update(input_ids=call["input_ids"][:2]),
            r"input_ids \(2, 6\), .*\(statements, tokens\)",
        ),
        (lambda call: call.update(attention_mask=call["attention_mask"][:, :4]), "attention_mask has shape"),
    ],
)
def test_a_call_that_does_not_fit_together_says_what_was_expected(reasoning, call, change, message):
    change(call)
    with pytest.raises(ValueError, match=message):
        reasoning(**call)


# ---------------------------------------------------------------------------------------- three images


def test_three_images_are_read_side_by_side_by_the_objective_and_the_class(config, call):
    config = replace(config, num_images=3)
    reasoning, objective = randomize(LxmertForVisualReasoning(config)), ImagePair(config)
    objective.head.load_state_dict(reasoning.pair_head.state_dict())
    assert reasoning.pair_head.logit_fc[0].weight.shape == (3 * config.hidden_size, 3 * config.hidden_size)
    for name in ("visual_feats", "visual_pos", "visual_attention_mask"):
        call[name] = torch.cat([call[name], call[name][:, :1].roll(1, 0)], 1)  # the left image of another one
    found = reasoning(**call, labels=torch.tensor([0, 1, 1]))
    words = {name: value for name, value in call.items() if not name.startswith("visual")}
    sides = [
        reasoning.lxmert(
            **words, **{k: v[:, side] for k, v in call.items() if k.startswith("visual")}
        ).pooled_output
        for side in range(3)
    ]
    expected = nn.Sequential(*reasoning.pair_head.logit_fc)(torch.cat(sides, 1))
    torch.testing.assert_close(found.logits, expected, atol=1e-5, rtol=1e-4)
    batch = Batch(
        *(call["input_ids"], call["attention_mask"]),
        *(call[name].flatten(0, 1) for name in ("visual_feats", "visual_pos", "visual_attention_mask")),
        row_sentence=torch.arange(E).repeat_interleave(3),
        row_image=torch.arange(3 * E),
        token_types=call["token_type_ids"],
        targets={"statement": torch.tensor([0, 1, 1])},
    )
    result = objective(reasoning.lxmert.encode(batch, objective.outputs_needed), batch, reasoning.lxmert)
    torch.testing.assert_close(result.predictions["answer_scores"], found.logits.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.losses["image_pair"], found.loss)
    with pytest.raises(ValueError, match=r"expected \(statements, tokens\), \(statements, 3, regions, features\)"):
        reasoning(**{**call, "visual_feats": call["visual_feats"][:, :2]})


def test_a_checkpoint_of_two_images_is_refused_for_three_also_one_that_does_not_tell(config):
    saved, three = config.to_dict(), replace(config, num_images=3).to_dict()
    old = {name: value for name, value in saved.items() if name != "num_images"}
    for each in (saved, old):
        assert config_differences(each, saved) == []
        (line,) = config_differences(each, three)
        assert line.startswith("2 images a statement in the checkpoint, 3 in the data")
