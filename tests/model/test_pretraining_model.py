"""LxmertForPreTraining against transformers: scores, losses, gradients, files; and without its faults."""

import pytest
import torch
import transformers
from transformers.models.lxmert.modeling_lxmert import LxmertForPreTraining as Reference

from lxmert import LxmertConfig, LxmertForPreTraining

SIZES = {
    "vocab_size": 50, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40, "l_layers": 2,
    "r_layers": 1, "x_layers": 2, "visual_feat_dim": 10, "num_qa_labels": 7, "num_object_labels": 11,
    "num_attr_labels": 5,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2,
}  # fmt: skip
ROWS, WORDS, REGIONS = 4, 6, 5


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The reference, and ours with its weights, carried through its own files."""
    folder = tmp_path_factory.mktemp("reference")
    torch.manual_seed(0)
    theirs = Reference(transformers.LxmertConfig(**SIZES)).eval()
    torch.nn.init.normal_(theirs.cls.predictions.bias)
    theirs.save_pretrained(folder)
    return theirs, LxmertForPreTraining.from_pretrained(folder)


def inputs():
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(ROWS, WORDS, dtype=torch.long)
    mask[1, 4:] = 0
    return {
        "input_ids": torch.randint(1, 50, (ROWS, WORDS), generator=generator),
        "visual_feats": torch.rand(ROWS, REGIONS, 10, generator=generator),
        "visual_pos": torch.rand(ROWS, REGIONS, 4, generator=generator),
        "attention_mask": mask,
    }


def targets():
    generator = torch.Generator().manual_seed(2)
    words = torch.full((ROWS, WORDS), -100)
    words[0, 2], words[1, 1], words[3, 3] = 7, 8, 9
    weights = torch.rand(ROWS, REGIONS, generator=generator)
    return {
        "labels": words,
        "obj_labels": {
            "obj": (torch.randint(0, 11, (ROWS, REGIONS), generator=generator), weights),
            "attr": (torch.randint(0, 5, (ROWS, REGIONS), generator=generator), weights),
            "feat": (torch.rand(ROWS, REGIONS, 10, generator=generator), (weights > 0.5).float()),
        },
        "matched_label": torch.tensor([1, 0, 1, 1]),
        "ans": torch.tensor([3, -100, 0, 6]),
    }


def test_scores_loss_and_every_gradient_equal_the_references(pair):
    theirs, ours = pair
    expected, found = theirs(**inputs(), **targets()), ours(**inputs(), **targets())
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-5, rtol=1e-5)
    real = inputs()["attention_mask"].bool()
    torch.testing.assert_close(
        found.prediction_logits[real], expected.prediction_logits[real], atol=1e-5, rtol=1e-5
    )
    for name in ("cross_relationship_score", "question_answering_score"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)
    theirs.zero_grad()
    ours.zero_grad()
    expected.loss.backward()
    found.loss.backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("task", ["labels", "obj_labels", "matched_label", "ans"])
def test_each_loss_alone_equals_the_references(pair, task):
    theirs, ours = pair
    only = {task: targets()[task]}
    torch.testing.assert_close(
        ours(**inputs(), **only).loss, theirs(**inputs(), **only).loss, atol=1e-5, rtol=1e-5
    )


def test_the_region_loss_is_what_the_original_computes_by_hand(pair):
    _, ours = pair
    labels = targets()["obj_labels"]
    label, weight = labels["obj"]
    scores = ours.obj_predict_head(ours.lxmert(**inputs()).vision_output)["obj"]
    total = 0.0
    for row in range(ROWS):
        for region in range(REGIONS):
            probabilities = scores[row, region].softmax(0)
            total -= weight[row, region] * probabilities[label[row, region]].log()
    expected = total / (ROWS * REGIONS) * 6.67
    zero = {name: (each, torch.zeros_like(weight)) for name, (each, _) in labels.items()}
    found = ours(**inputs(), obj_labels=zero | {"obj": labels["obj"]}).loss
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_what_the_reference_gets_wrong_has_a_defined_loss(pair):
    _, ours = pair
    nothing = {"labels": torch.full((ROWS, WORDS), -100), "ans": torch.full((ROWS,), -1)}
    output = ours(**inputs(), **nothing)
    assert output.loss == 0
    output.loss.backward()
    original = targets()["labels"].where(targets()["labels"] >= 0, -1)  # the original ignores -1
    assert torch.equal(ours(**inputs(), labels=original).loss, ours(**inputs(), labels=targets()["labels"]).loss)
    embedded = inputs()
    embedded["inputs_embeds"] = ours.lxmert.embeddings.word_embeddings(embedded.pop("input_ids"))
    torch.testing.assert_close(ours(**embedded, **targets()).loss, ours(**inputs(), **targets()).loss)


def test_a_region_without_a_label_counts_nothing(pair):
    _, ours = pair
    labels = targets()["obj_labels"]
    label, weight = labels["obj"]
    unknown, unweighted = label.clone(), weight.clone()
    unknown[0, 0], unweighted[0, 0] = -1, 0.0
    first = ours(**inputs(), obj_labels=labels | {"obj": (unknown, weight)}).loss
    second = ours(**inputs(), obj_labels=labels | {"obj": (label, unweighted)}).loss
    torch.testing.assert_close(first, second)


def test_files_go_both_ways(pair, tmp_path):
    theirs, ours = pair
    ours.save_pretrained(tmp_path)
    again = Reference.from_pretrained(tmp_path).eval()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    original = {f"module.{name.replace('lxmert.', 'bert.')}": t for name, t in theirs.state_dict().items()}
    torch.save(original, tmp_path / "Epoch20_LXRT.pth")
    released = LxmertForPreTraining.from_pretrained(tmp_path / "Epoch20_LXRT.pth", config=LxmertConfig(**SIZES))
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, released.state_dict()[name]), name


def test_switched_off_objectives_have_no_heads_and_no_loss():
    config = LxmertConfig(**SIZES, task_qa=False, task_obj_predict=False, task_matched=False, task_mask_lm=False)
    model = LxmertForPreTraining(config)
    assert not any("answer" in name or "region_head" in name for name in model.state_dict())
    output = model(**inputs(), **targets())
    assert output.loss is None and output.question_answering_score is None
    features_only = LxmertForPreTraining(LxmertConfig(**SIZES, visual_obj_loss=False, visual_attr_loss=False))
    only = {"feat": targets()["obj_labels"]["feat"]}
    assert features_only(**inputs(), obj_labels=only).loss > 0
    with pytest.raises(ValueError, match="obj_labels lacks attr, obj"):
        LxmertForPreTraining(LxmertConfig(**SIZES))(**inputs(), obj_labels=only)
    with pytest.raises(ValueError, match="no answer head"):
        model.resize_num_qa_labels(3)
