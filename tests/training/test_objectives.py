"""What each pre-training objective hides, its loss by hand and against transformers, its metrics."""

import math
from dataclasses import replace
from types import SimpleNamespace

import lightning
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lxmert.batch import Batch
from lxmert.config import LxmertConfig
from lxmert.files import InputError
from lxmert.heads import answer_loss
from lxmert.learner import LxmertLearner
from lxmert.model import Lxmert
from lxmert.objectives.answering import Answering
from lxmert.objectives.image_pair import ImagePair
from lxmert.objectives.masked_language import MaskedLanguage
from lxmert.objectives.masked_region import MaskedRegion
from lxmert.objectives.matching import Matching
from lxmert.objectives.question_answering import QuestionAnswering
from lxmert.optim import bert_adam
from lxmert.outputs import LxmertModelOutput

SEED, CLS, SEP, MASK = 5, 2, 3, 4
TABLES = {"source": ["mscoco", "vqa"]}
MAKE = {
    "matching": Matching,
    "masked_language": MaskedLanguage,
    "masked_region": MaskedRegion,
    "question_answering": QuestionAnswering,
}


@pytest.fixture
def config(sizes):
    return LxmertConfig(**sizes, mask_token_id=MASK)


def make_batch(config, sentences=6, images=4, length=9, regions=5, ragged_regions=True, seed=1):
    """Sentence s about image s % images; the first half are captions, the others questions."""
    torch.manual_seed(seed)
    lengths = torch.randint(5, length + 1, (sentences,))
    lengths[0] = length
    token_mask = torch.arange(length) < lengths[:, None]
    token_ids = torch.randint(5, 50, (sentences, length)) * token_mask
    token_ids[:, 0] = CLS
    token_ids[torch.arange(sentences), lengths - 1] = SEP
    numbers = torch.randint(2, regions + 1, (images,)) if ragged_regions else torch.full((images,), regions)
    region_mask = torch.arange(regions) < numbers[:, None]
    labelled = torch.arange(sentences) >= sentences // 2
    answers = torch.randint(0, config.num_qa_labels, (sentences, 2)).where(labelled[:, None], -1)
    object_ids = torch.randint(0, config.num_object_labels, (images, regions))
    attribute_ids = torch.randint(0, config.num_attr_labels, (images, regions))
    return Batch(
        token_ids=token_ids,
        token_mask=token_mask,
        region_features=torch.rand(images, regions, config.visual_feat_dim) * region_mask[..., None],
        region_boxes=torch.rand(images, regions, 4),
        region_mask=region_mask,
        row_sentence=torch.arange(sentences),
        row_image=torch.arange(sentences) % images,
        sentence_keys=torch.randint(-(2**62), 2**62, (sentences,)),
        image_keys=torch.randint(-(2**62), 2**62, (images,)),
        image_ids=[str(image) for image in range(images)],
        targets={
            "matched": torch.arange(sentences) % 3 != 1,
            "answer": answers[:, 0],
            "label_answers": answers,
            "label_scores": torch.tensor([1.0, 0.3]).expand(sentences, 2) * labelled[:, None],
            "labelled": labelled,
            "source": labelled.long(),
            "object_ids": object_ids.where(region_mask, -1),
            "object_conf": torch.rand(images, regions) * region_mask,
            "attribute_ids": attribute_ids.where(region_mask, -1),
            "attribute_conf": torch.rand(images, regions) * region_mask,
            "replacement_features": 10 + torch.rand(images, config.visual_feat_dim),
        },
    )


def outputs(config, rows, tokens=1, regions=1):
    """Of a model that nobody asks for more than its shapes."""
    width = config.hidden_size
    return LxmertModelOutput(
        language_output=torch.rand(rows, tokens, width),
        vision_output=torch.rand(rows, regions, width),
        pooled_output=torch.rand(rows, width),
    )


def always(linear, values):
    """Let a layer give `values` whatever it reads."""
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.copy_(torch.as_tensor(values))


def seen_by(layer, call):
    """The number of rows that `layer` reads during `call`."""
    seen = []
    handle = layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[0]))
    call()
    handle.remove()
    return seen


def logs(*probabilities):
    return torch.tensor(probabilities).log()


# ------------------------------------------------------------------------------------ losses by hand


def test_the_masked_language_loss_is_the_mean_over_the_hidden_words(config):
    config = replace(config, vocab_size=5)
    objective = MaskedLanguage(config)
    objective.head.bias.data = logs(0.1, 0.2, 0.2, 0.1, 0.4)
    blank = SimpleNamespace(embeddings=SimpleNamespace(word_embeddings=torch.nn.Embedding(5, config.hidden_size)))
    torch.nn.init.zeros_(blank.embeddings.word_embeddings.weight)
    batch = make_batch(config, sentences=2, images=2, length=5)
    found = {
        "masked_language/positions": torch.tensor([1, 3, 7]),
        "masked_language/labels": torch.tensor([0, 4, 1]),
    }
    batch = replace(batch, targets=batch.targets | found)
    result = objective(outputs(config, 2, tokens=5), batch, blank)
    expected = -(math.log(0.1) + math.log(0.4) + math.log(0.2)) / 3
    assert result.losses["masked_language"].item() == pytest.approx(expected, rel=1e-6)
    metrics = objective.make_metrics(TABLES)
    metrics.update(result, batch)
    values = metrics.compute()
    assert values["accuracy"] == pytest.approx(1 / 3)
    assert values["perplexity"] == pytest.approx(math.exp(expected), rel=1e-6)
    assert values["perplexity/source/mscoco"] == pytest.approx((0.1 * 0.4) ** (-1 / 2), rel=1e-6)
    assert values["accuracy/source/vqa"] == 0


def test_the_matching_loss_is_the_mean_over_rows(config):
    objective = Matching(config)
    always(objective.head, logs(0.25, 0.75))
    batch = make_batch(config, sentences=6)
    batch.targets["matched"] = torch.tensor([True, False, True, True, False, False])
    result = objective(outputs(config, 6), batch, None)
    expected = -(3 * math.log(0.75) + 3 * math.log(0.25)) / 6
    assert result.losses["matching"].item() == pytest.approx(expected, rel=1e-6)
    metrics = objective.make_metrics(TABLES)
    metrics.update(result, batch)
    values = metrics.compute()
    assert values["accuracy"] == 0.5
    assert (values["accuracy/source/mscoco"], values["accuracy/source/vqa"]) == (
        pytest.approx(2 / 3),
        pytest.approx(1 / 3),
    )


def region_batch(config):
    """Two images of 2 and 3 regions; three rows, two of the second image. Hidden: one region of each image."""
    batch = make_batch(config, sentences=3, images=2, regions=3)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    targets = batch.targets | {
        "object_ids": torch.tensor([[0, 1, -1], [1, -1, 0]]),
        "object_conf": torch.tensor([[0.5, 1.0, 0.0], [0.25, 0.7, 1.0]]),
        "attribute_ids": torch.tensor([[1, 0, -1], [0, 0, 1]]),
        "attribute_conf": torch.tensor([[0.1, 0.2, 0.0], [0.3, 0.4, 0.5]]),
        # Region 1 of image 0 in row 0; region 2 of image 1 in rows 1 and 2.
        "masked_region/places": torch.tensor([1, 5, 8]),
        "masked_region/features": torch.tensor([[[9, 9], [3, 1.5], [9, 9]], [[9, 9], [9, 9], [1, 1]]]),
    }
    images = torch.tensor([0, 1, 1])
    return Batch(
        batch.token_ids, batch.token_mask, batch.region_features[..., :2], batch.region_boxes, mask,
        batch.row_sentence, images, targets=targets,
    )  # fmt: skip


def region_objective(config, **parameters):
    objective = MaskedRegion(
        replace(config, num_object_labels=2, num_attr_labels=2, visual_feat_dim=2), **parameters
    )
    always(objective.head.decoder_dict["obj"], logs(0.2, 0.8))
    if "attr" in objective.head.decoder_dict:
        always(objective.head.decoder_dict["attr"], logs(0.6, 0.4))
    always(objective.head.decoder_dict["feat"], [1.0, 1.0])
    return objective


def test_region_losses_of_the_released_code_weigh_all_labels_by_confidence(config):
    result = region_objective(config)(outputs(config, 3, regions=3), region_batch(config), None)
    real = 2 + 3 + 3
    label = -(0.5 * math.log(0.2) + math.log(0.8) + 2 * (0.25 * math.log(0.8) + math.log(0.2)))
    attribute = -(0.1 * math.log(0.4) + 0.2 * math.log(0.6) + 2 * (0.7 * math.log(0.6) + 0.5 * math.log(0.4)))
    feature = (1.5 + 0.5 * 0.5**2) / 2  # smooth L1 of 2 and of 0.5; the other hidden region is found exactly
    for name, total in (("object", label), ("attribute", attribute), ("feature", feature)):
        assert result.losses[name].item() == pytest.approx(total / real / 0.15, rel=1e-5), name


def test_region_losses_of_the_paper_are_over_hidden_regions_alone(config):
    objective = region_objective(
        config, losses=["object", "feature"], label_weight="masked", feature_loss="l2", zeroed=1, replaced=0
    )
    result = objective(outputs(config, 3, regions=3), region_batch(config), None)
    label = -(math.log(0.8) + 2 * math.log(0.2))
    assert set(result.losses) == {"object", "feature"}
    assert result.losses["object"].item() == pytest.approx(label / 8 / 0.15, rel=1e-5)
    assert result.losses["feature"].item() == pytest.approx((2**2 + 0.5**2) / 2 / 8 / 0.15, rel=1e-5)


@pytest.mark.parametrize("label_weight", ["confidence", "masked"])
def test_region_metrics_are_over_hidden_regions_of_known_label(config, label_weight):
    objective, batch = region_objective(config, label_weight=label_weight), region_batch(config)
    metrics = objective.make_metrics(TABLES)
    metrics.update(objective(outputs(config, 3, regions=3), batch, None), batch)
    values = metrics.compute()
    assert values["object_accuracy"] == pytest.approx(1 / 3)  # says 1; the labels are 1, 0, 0
    assert values["attribute_accuracy"] == pytest.approx(1 / 3)  # says 0; the labels are 0, 1, 1
    assert values["feature_loss"] == pytest.approx((1.5 + 0.125) / 2 / 3)
    metrics.reset()
    batch.targets["object_ids"][1] = -1
    metrics.update(objective(outputs(config, 3, regions=3), batch, None), batch)
    assert metrics.compute()["object_accuracy"] == 1


def test_guesses_about_hidden_regions_are_the_same_whichever_regions_the_head_runs_on(config):
    batch = make_batch(config, sentences=12)
    everywhere, there = MaskedRegion(config, rate=0.5), MaskedRegion(config, rate=0.5, label_weight="masked")
    there.load_state_dict(everywhere.state_dict())
    batch = everywhere.hide(everywhere.prepare_batch(batch, SEED))
    output = outputs(config, 12, regions=5)
    found, expected = everywhere(output, batch, None).predictions, there(output, batch, None).predictions
    assert len(set(expected["object"].tolist())) > 1 and batch.row_region_packing.index is not None
    for name in ("object", "attribute", "feature"):
        torch.testing.assert_close(found[name], expected[name])


def answer_batch(config):
    batch = make_batch(config, sentences=6)
    targets = {
        "matched": torch.tensor([True, True, True, True, False, True]),
        "answer": torch.tensor([-1, 0, 1, -1, 1, 1]),
        "label_answers": torch.tensor([[-1, -1], [0, 1], [1, -1], [-1, -1], [1, -1], [1, -1]]),
        "label_scores": torch.tensor([[0, 0], [1, 0.3], [0.9, 0], [0, 0], [0.6, 0], [1, 0]]),
        "labelled": torch.tensor([False, True, True, True, True, True]),
        "source": torch.tensor([0, 1, 1, 1, 1, 1]),
    }
    return replace(batch, targets=batch.targets | targets)


def answer_objective(config, **parameters):
    objective = QuestionAnswering(replace(config, num_qa_labels=2, answers=["no", "yes"]), **parameters)
    always(objective.head.logit_fc[-1], logs(0.2, 0.8))
    return objective


def test_the_answer_loss_is_the_mean_over_answered_rows_that_kept_their_sentence(config):
    objective = answer_objective(config).train()
    batch = objective.prepare_batch(answer_batch(config), SEED)
    result = objective(outputs(config, 6), batch, None)
    expected = -(math.log(0.2) + 2 * math.log(0.8)) / 3
    assert result.losses["question_answering"].item() == pytest.approx(expected, rel=1e-6)
    without = answer_batch(config)
    del without.targets["matched"]
    result = objective(outputs(config, 6), objective.prepare_batch(without, SEED), None)
    expected = -(math.log(0.2) + 3 * math.log(0.8)) / 4
    assert result.losses["question_answering"].item() == pytest.approx(expected, rel=1e-6)


def test_answer_accuracy_is_over_matched_rows_and_the_originals_over_all_labelled_ones(config):
    objective = answer_objective(config).eval()
    batch = objective.prepare_batch(answer_batch(config), SEED)
    metrics = objective.make_metrics(TABLES)
    metrics.update(objective(outputs(config, 6), batch, None), batch)
    values = metrics.compute()
    assert values["accuracy"] == pytest.approx((0.3 + 0.9 + 1) / 3)
    # Row 3, whose answers are all unknown, is wrong; row 4 scores by its own question's answers.
    assert values["accuracy_as_original"] == pytest.approx((0.3 + 0.9 + 0 + 0.6 + 1) / 5)
    assert values["accuracy/source/vqa"] == values["accuracy"]
    assert "accuracy/source/mscoco" not in values


def test_the_answer_loss_counts_from_its_start_on_and_always_in_evaluation(config):
    objective = answer_objective(config, start=0.5)

    def loss(progress):
        objective.advance(progress)
        return objective(outputs(config, 6), objective.prepare_batch(answer_batch(config), SEED), None).losses[
            "question_answering"
        ]

    objective.train()
    early = loss(0.49)
    assert early == 0
    early.backward()
    assert all(p.grad is not None and not p.grad.any() for p in objective.parameters())  # DDP waits for each
    assert loss(0.5) > 0
    objective.eval()
    assert loss(0.0) > 0


# ------------------------------------------------------------------------------------ transformers


def learner_of(config, names, seed=0, **parameters):
    torch.manual_seed(seed)
    objectives = {name: MAKE[name](config, **parameters.get(name, {})) for name in names}
    return LxmertLearner(
        Lxmert(config), objectives, lambda named: bert_adam(named, 1e-3), warmup=0.1, label_names=TABLES, seed=SEED
    )


def prepared(learner, batch):
    """The batch as it comes to the learner's `forward`."""
    return learner.on_before_batch_transfer(batch, 0)


@pytest.mark.parametrize("label_weight", ["confidence", "masked"])
def test_losses_and_gradients_equal_the_references_on_the_same_masked_inputs(make_pair, config, label_weight):
    theirs, ours = make_pair("LxmertForPreTraining")
    learner = learner_of(config, MAKE, masked_region={"label_weight": label_weight, "rate": 0.4})
    learner.model.load_state_dict(ours.lxmert.state_dict())
    heads = {
        "matching": ours.cls.seq_relationship,
        "masked_language": ours.cls.predictions,
        "masked_region": ours.obj_predict_head,
        "question_answering": ours.answer_head,
    }
    for name, head in heads.items():
        learner.objectives[name].head.load_state_dict(head.state_dict())
    # Sentences and images shared by rows; all regions real, as the reference averages over padding.
    batch = make_batch(config, sentences=6, images=3, ragged_regions=False)
    pairs = {"row_sentence": torch.tensor([3, 1, 1, 0, 2, 3]), "row_image": torch.tensor([0, 0, 1, 1, 2, 2])}
    batch = replace(batch, **pairs, row_token_packing=None)
    learner.train()
    learner.objectives["masked_language"].rate = 0.4
    seen = prepared(learner, batch)
    losses = {name: loss for result in learner(seen).values() for name, loss in result.losses.items()}
    features = learner.objectives["masked_region"].hide(seen).region_features

    image, rows = seen.row_image, len(seen.row_image)
    words = torch.full((rows, seen.token_ids.shape[1]), -100)
    words.view(-1)[seen.targets["masked_language/positions"]] = seen.targets["masked_language/labels"]
    hidden = torch.zeros(rows, seen.region_mask.shape[1])
    hidden.view(-1)[seen.targets["masked_region/places"]] = 1
    assert 0 < hidden.sum() < hidden.numel() and (words >= 0).sum() > 3

    def weight(name):
        return batch.targets[f"{name}_conf"][image] if label_weight == "confidence" else hidden

    answers = seen.targets["answer"].where(seen.targets["matched"] & (seen.targets["answer"] >= 0), -100)
    given = {
        "masked_language": {"labels": words},
        "matching": {"matched_label": seen.targets["matched"].long()},
        "question_answering": {"ans": answers},
    }
    labels = {
        "obj": (batch.targets["object_ids"][image], weight("object")),
        "attr": (batch.targets["attribute_ids"][image], weight("attribute")),
        "feat": (batch.region_features[image], hidden),
    }

    def reference(**labels):
        return theirs(
            input_ids=seen.token_ids[seen.row_sentence],
            visual_feats=features[image],
            visual_pos=seen.region_boxes[image],
            attention_mask=seen.token_mask[seen.row_sentence].long(),
            **labels,
        ).loss

    for name, label in given.items():
        torch.testing.assert_close(losses[name], reference(**label), atol=1e-5, rtol=1e-5)
    scale = 6.67 * 0.4  # the reference's constant for our 1 / rate
    for name, key in (("object", "obj"), ("attribute", "attr"), ("feature", "feat")):
        alone = {other: (label, weight * (other == key)) for other, (label, weight) in labels.items()}
        torch.testing.assert_close(losses[name] * scale, reference(obj_labels=alone), atol=1e-5, rtol=1e-5)

    theirs.zero_grad()
    reference(**{key: value for label in given.values() for key, value in label.items()}).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    torch.stack([losses[name] for name in given]).sum().backward()
    for name, parameter in learner.model.named_parameters(prefix="lxmert"):
        expected = gradients[name]
        if expected is None:  # the last layer's vision side, which only the region losses read
            assert parameter.grad is None or not parameter.grad.any(), name
        else:
            torch.testing.assert_close(parameter.grad, expected, atol=1e-5, rtol=1e-4, msg=name)


# ------------------------------------------------------------------------------------ what gets a gradient


def step(learner, batch):
    """Losses of a training step, after their gradients."""
    learner.train()
    results = learner(prepared(learner, batch))
    losses = {name: loss for result in results.values() for name, loss in result.losses.items()}
    torch.stack(list(losses.values())).sum().backward()
    return losses


@pytest.mark.parametrize(
    "names",
    [["masked_language"], ["matching"], ["masked_region"], ["question_answering"], ["masked_language", "matching"],
     ["masked_language", "masked_region"], list(MAKE)],
    ids=lambda names: "+".join(names),
)  # fmt: skip
def test_every_trainable_parameter_gets_a_gradient_whatever_is_learned(config, names):
    learner = learner_of(config, names)
    step(learner, make_batch(config))
    waiting = {name for name, p in learner.named_parameters() if p.requires_grad and p.grad is None}
    assert not waiting, "DDP would wait for these"
    assert all(p.grad is None for p in learner.parameters() if not p.requires_grad)


@pytest.mark.parametrize("label_weight", ["confidence", "masked"])
def test_with_nothing_hidden_and_nothing_answered_every_gradient_is_finite(config, label_weight):
    learner = learner_of(
        config, MAKE, masked_language={"rate": 0.0}, masked_region={"rate": 1e-12, "label_weight": label_weight}
    )
    batch = make_batch(config)
    batch.targets["answer"].fill_(-1)
    losses = step(learner, batch)
    assert losses["masked_language"] == losses["question_answering"] == losses["feature"] == 0
    assert all(p.grad.isfinite().all() for p in learner.parameters() if p.requires_grad)
    learner.eval()
    seen = prepared(learner, batch)
    for name, result in learner(seen).items():
        metrics = learner.objectives[name].make_metrics(TABLES)
        metrics.update(result, seen)
        assert all(value.isfinite() for value in metrics.compute().values())


def test_losses_are_float32_under_bfloat16(config):
    learner = learner_of(config, MAKE)
    with torch.autocast("cpu", torch.bfloat16):
        losses = step(learner, make_batch(config))
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(loss.isfinite() for loss in losses.values())


# ------------------------------------------------------------------------------------ what is hidden


def near(number, total, share):
    """Within five standard deviations of a binomial."""
    return abs(number - total * share) < 5 * math.sqrt(total * share * (1 - share))


def test_words_are_hidden_in_the_shares_of_bert(config):
    config = replace(config, vocab_size=1000)
    batch = make_batch(config, sentences=4000, images=1, length=12)
    seen = MaskedLanguage(config).prepare_batch(batch, SEED)
    inner = batch.token_mask & (batch.token_ids != CLS)
    inner[torch.arange(4000), batch.token_mask.sum(1) - 1] = False
    places, words = seen.targets["masked_language/positions"], seen.targets["masked_language/labels"]
    assert inner.flatten()[places].all()  # neither [CLS], [SEP] nor padding
    assert torch.equal(batch.token_ids.flatten()[places], words)
    assert near(len(places), int(inner.sum()), 0.15)
    put = seen.token_ids.flatten()[places]
    other = (put != MASK) & (put != words)
    assert near(int((put == MASK).sum()), len(places), 0.8)
    assert near(int((put == words).sum()), len(places), 0.1)
    assert near(int(other.sum()), len(places), 0.1)
    # From the whole vocabulary: evenly spread, special entries too.
    assert near(int((put[other] < 500).sum()), int(other.sum()), 0.5)
    unseen = torch.ones(batch.token_ids.numel(), dtype=torch.bool)
    unseen[places] = False
    assert torch.equal(seen.token_ids.flatten()[unseen], batch.token_ids.flatten()[unseen])


def test_any_word_piece_may_take_a_words_place(config):
    config = replace(config, vocab_size=8)
    batch = make_batch(config, sentences=2000, images=1)
    seen = MaskedLanguage(config).prepare_batch(batch, SEED)
    put = seen.token_ids.flatten()[seen.targets["masked_language/positions"]]
    assert set(put[put != seen.targets["masked_language/labels"]].tolist()) == set(range(8))


def test_regions_are_hidden_in_the_originals_shares_and_boxes_never(config):
    batch = make_batch(config, sentences=2, images=3000, regions=8)
    before = batch.region_features.clone()
    boxes = batch.region_boxes.clone()
    batch = replace(batch, row_image=torch.arange(3000), row_sentence=torch.zeros(3000, dtype=torch.long))
    objective = MaskedRegion(config)
    seen = objective.hide(objective.prepare_batch(batch, SEED))
    places = seen.targets["masked_region/places"]
    chosen = torch.zeros(3000 * 8, dtype=torch.bool)
    chosen[places] = True
    assert batch.region_mask.flatten()[places].all()
    assert near(len(places), int(batch.region_mask.sum()), 0.15)
    now, was = seen.region_features.flatten(0, 1), before.flatten(0, 1)
    assert torch.equal(now[~chosen], was[~chosen])
    spare = batch.targets["replacement_features"].repeat_interleave(8, 0)
    zero, kept = (now[chosen] == 0).all(1), (now[chosen] == was[chosen]).all(1)
    other = (now[chosen] == spare[chosen]).all(1)
    assert (zero | kept | other).all()
    for number, share in ((zero, 0.8), (other, 0.1), (kept, 0.1)):
        assert near(int(number.sum()), len(places), share)
    assert torch.equal(seen.targets["masked_region/features"], before)
    assert torch.equal(seen.region_boxes, boxes)


def test_the_paper_makes_every_hidden_region_zero(config):
    batch = make_batch(config, images=50, sentences=50)
    del batch.targets["replacement_features"]
    objective = MaskedRegion(config, zeroed=1.0, replaced=0.0)
    seen = objective.hide(objective.prepare_batch(batch, SEED))
    assert not seen.region_features.flatten(0, 1)[seen.targets["masked_region/places"]].any()


def test_rows_of_one_image_or_sentence_share_what_is_hidden(config):
    batch = make_batch(config, sentences=2, images=2)
    rows = torch.tensor([0, 0, 1]), torch.tensor([1, 0, 1])
    shared = replace(
        batch, row_sentence=rows[0], row_image=rows[1], row_token_packing=None, row_region_packing=None
    )
    objective = MaskedRegion(config, rate=0.5)
    seen = MaskedLanguage(config, rate=0.6).prepare_batch(objective.prepare_batch(shared, SEED), SEED)
    words = torch.zeros(3, 9, dtype=torch.bool)
    words.view(-1)[seen.targets["masked_language/positions"]] = True
    assert torch.equal(words[0], words[1]) and words[0].any()
    assert torch.equal(batch.token_ids[rows[0]][words], seen.targets["masked_language/labels"])
    regions = torch.zeros(3, 5, dtype=torch.bool)
    regions.view(-1)[seen.targets["masked_region/places"]] = True
    assert torch.equal(regions[0], regions[2]) and regions[0].any()


def part(batch, sentences, images, length):
    """Some sentences and images of a batch, in that order, with another padding, one row a sentence."""
    index, picture = torch.tensor(sentences), torch.tensor(images)
    size = batch.token_ids.shape[1]
    rows = len(sentences)
    return Batch(
        torch.nn.functional.pad(batch.token_ids[index], (0, length - size)),
        torch.nn.functional.pad(batch.token_mask[index], (0, length - size)),
        batch.region_features[picture].clone(),
        batch.region_boxes[picture],
        batch.region_mask[picture],
        torch.arange(rows),
        torch.arange(rows) % len(images),
        targets={"replacement_features": batch.targets["replacement_features"][picture]},
        sentence_keys=batch.sentence_keys[index],
        image_keys=batch.image_keys[picture],
    )


@settings(max_examples=25, deadline=None)
@given(
    sentences=st.lists(st.integers(0, 11), min_size=1, max_size=8),
    images=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    longer=st.integers(0, 4),
)
def test_what_is_hidden_of_an_example_does_not_depend_on_its_batch(sentences, images, longer):
    config = LxmertConfig(vocab_size=61, visual_feat_dim=10, hidden_size=24, num_attention_heads=4)
    whole = make_batch(config, sentences=12, images=6)
    words = MaskedLanguage(config, rate=0.5)
    regions = MaskedRegion(config, losses=["feature"], rate=0.5)
    some = part(whole, sentences, images, 9 + longer)
    all_seen = regions.hide(words.prepare_batch(regions.prepare_batch(whole, SEED), SEED))
    seen = regions.hide(words.prepare_batch(regions.prepare_batch(some, SEED), SEED))
    assert torch.equal(seen.token_ids[:, :9], all_seen.token_ids[torch.tensor(sentences)])
    assert torch.equal(seen.region_features, all_seen.region_features[torch.tensor(images)])
    other = words.prepare_batch(whole, SEED + 1)
    assert not torch.equal(other.token_ids, all_seen.token_ids)


# ------------------------------------------------------------------------------------ heads run where read


def test_heads_run_only_where_their_loss_reads_them(config):
    learner = learner_of(config, MAKE)
    batch = make_batch(config, sentences=60, images=30)
    seen = prepared(learner.train(), batch)
    heads = {name: objective.head for name, objective in learner.objectives.items()}

    def run():
        learner(seen)

    words, regions = seen.targets["masked_language/positions"], seen.targets["masked_region/places"]
    real = int(seen.region_mask[seen.row_image].sum())
    assert seen.row_region_packing.index is not None and len(regions) < real / 3
    assert seen_by(heads["masked_language"].transform, run) == [len(words)]
    assert seen_by(heads["masked_region"].transform, run) == [real]
    assert seen_by(heads["masked_region"].decoder_dict["obj"], run) == [real]
    assert seen_by(heads["masked_region"].decoder_dict["attr"], run) == [real]
    assert seen_by(heads["masked_region"].decoder_dict["feat"], run) == [len(regions)]
    answered = (batch.targets["answer"] >= 0) & batch.targets["matched"]
    assert seen_by(heads["question_answering"], run) == [int(answered.sum())]
    seen = prepared(learner.eval(), batch)  # the original's accuracy asks about exchanged sentences too
    assert seen_by(heads["question_answering"], run) == [int(batch.targets["labelled"].sum())]


def test_labels_of_hidden_regions_alone_need_the_head_there_alone(config):
    learner = learner_of(config, ["masked_region"], masked_region={"label_weight": "masked"})
    seen = prepared(learner, make_batch(config, sentences=60, images=30))
    head, hidden = learner.objectives["masked_region"].head, [len(seen.targets["masked_region/places"])]
    for layer in (head.transform, *head.decoder_dict.values()):
        assert seen_by(layer, lambda: learner(seen)) == hidden


def test_a_loss_that_is_not_chosen_has_no_layer(config):
    head = MaskedRegion(config, losses=["feature"]).head
    assert list(head.decoder_dict) == ["feat"]


# ------------------------------------------------------------------------------------ errors and the learner


def test_data_that_lacks_what_an_objective_reads_is_refused_by_name(config):
    batch = make_batch(config)
    bare = replace(batch, targets={}, sentence_keys=None, image_keys=None)
    for name, missing in (
        ("matching", "matched"),
        ("masked_language", "sentence_keys"),
        ("masked_region", "image_keys"),
        ("question_answering", "answer"),
    ):
        with pytest.raises(ValueError, match=rf"{name} needs .*{missing}.*\n?.*drop {name}"):
            MAKE[name](config).prepare_batch(bare, SEED)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"losses": ["objects"]}, r"losses: objects; expected object, attribute, feature"),
        ({"losses": []}, r"losses: nothing"),
        ({"label_weight": "all"}, r"label_weight: all; expected confidence, masked"),
        ({"feature_loss": "l1"}, r"feature_loss: l1; expected smooth_l1, l2"),
        ({"zeroed": 0.8, "replaced": 0.3}, r"zeroed=0.8, replaced=0.3"),
        ({"rate": 0}, r"rate=0"),
    ],
)
def test_an_unknown_choice_is_refused_by_name(config, parameters, message):
    with pytest.raises(ValueError, match=message):
        MaskedRegion(config, **parameters)


class Batches(torch.utils.data.Dataset):
    """Fresh batches, as a data module reads them."""

    def __init__(self, config):
        self.config = config

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return make_batch(self.config, seed=index)


def test_the_learner_hides_in_every_stage_and_logs_the_sum_of_the_losses(config, tmp_path):
    learner = learner_of(config, MAKE, question_answering={"start": 0.5})
    loader = DataLoader(Batches(config), batch_size=None)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, log_every_n_steps=1, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(learner, loader, loader)
    assert learner.objectives["question_answering"].started
    metrics = dict(trainer.callback_metrics)
    trainer.test(learner, loader, verbose=False)
    metrics |= trainer.callback_metrics
    names = ["matching", "masked_language", "object", "attribute", "feature", "question_answering"]
    for stage in ("train", "val", "test"):
        total = sum(metrics[f"{stage}/loss/{name}"] for name in names)
        torch.testing.assert_close(metrics[f"{stage}/loss"], total, atol=1e-4, rtol=1e-5)
    assert metrics["val/loss"] == metrics["test/loss"]  # the same words and regions are hidden again
    assert {"val/masked_language/perplexity/source/vqa", "val/masked_region/object_accuracy"} <= set(metrics)
    assert {"val/matching/accuracy", "val/question_answering/accuracy_as_original"} <= set(metrics)


def answering_result(config, targets, training=True, **parameters):
    """Loss of the answering objective on its own scores, and these scores."""
    objective = Answering(replace(config, answers=[str(i) for i in range(config.num_qa_labels)]), **parameters)
    batch = SimpleNamespace(targets={"answer_scores": targets})
    result = objective.train(training)(outputs(config, rows=len(targets)), batch, None)
    return result.losses["answering"].detach(), result.predictions["answer_scores"]


def test_smoothed_answer_scores_are_mixed_with_the_same_share_of_every_answer(config):
    targets = torch.rand(5, config.num_qa_labels)
    loss, scores = answering_result(config, targets, label_smoothing=0.2)
    mixed = 0.8 * targets + 0.2 / config.num_qa_labels
    each = mixed * scores.sigmoid().log() + (1 - mixed) * (1 - scores.sigmoid()).log()
    torch.testing.assert_close(loss, -each.sum(1).mean())
    soft = torch.nn.functional.cross_entropy(scores, targets, label_smoothing=0.2)
    torch.testing.assert_close(torch.nn.functional.cross_entropy(scores, mixed), soft)  # torch's own mixture


def test_labels_are_smoothed_in_training_alone(config):
    targets = torch.rand(5, config.num_qa_labels)
    loss, scores = answering_result(config, targets, training=False, label_smoothing=0.2)
    torch.testing.assert_close(loss, answer_loss(scores, targets))
    loss, scores = answering_result(config, targets)
    torch.testing.assert_close(loss, answer_loss(scores, targets))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_a_smoothed_statement_has_the_loss_of_torchs_cross_entropy(config, smoothing):
    objective = ImagePair(config, label_smoothing=smoothing)
    labels = torch.tensor([1, 0, 0])
    batch = SimpleNamespace(targets={"statement": labels})
    pairs = outputs(config, rows=6)
    result = objective(pairs, batch, None)
    scores = result.predictions["answer_scores"]
    expected = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(scores, labels)
    torch.testing.assert_close(result.losses["image_pair"].detach(), expected)
    right, wrong = (
        scores.log_softmax(1)[torch.arange(3), labels],
        scores.log_softmax(1)[torch.arange(3), 1 - labels],
    )
    by_hand = -((1 - smoothing / 2) * right + smoothing / 2 * wrong).mean()
    torch.testing.assert_close(expected, by_hand)
    evaluated = objective.eval()(pairs, batch, None).losses["image_pair"].detach()
    torch.testing.assert_close(evaluated, torch.nn.CrossEntropyLoss()(scores, labels))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_a_smoothing_that_is_none_is_refused_by_name(config, smoothing):
    config = replace(config, answers=[str(i) for i in range(config.num_qa_labels)])
    for name, make in (("image_pair", ImagePair), ("answering", Answering)):
        with pytest.raises(InputError, match=rf"objective\.{name}\.label_smoothing="):
            make(config, label_smoothing=smoothing)
