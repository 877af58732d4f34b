"""Fixtures that several test files share."""

import functools

import pytest
from hypothesis import HealthCheck, settings

# What is slow on a busy machine is no fault.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files that start runs take longest: first, so that no process is left with one when the others have ended.
    items.sort(key=lambda item: not {"train", "start", "stopped"} & vars(item.module).keys())


# Different numbers everywhere, so that no two dimensions can be confused without a shape error.
SIZES = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "num_qa_labels": 7,
    "num_object_labels": 9,
    "num_attr_labels": 5,
    "max_position_embeddings": 16,
    "l_layers": 2,
    "r_layers": 1,
    "x_layers": 2,
    "visual_feat_dim": 10,
    "visual_pos_dim": 4,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.fixture(scope="session")
def sizes() -> dict:
    """Sizes of a tiny model, for either library's LxmertConfig."""
    return dict(SIZES)


@pytest.fixture(scope="session")
def make_reference():
    """Build a tiny model of the reference library: `make_reference("LxmertModel", hidden_act="relu")`.

    All of its parameters are random, biases and layer norms too: at their initial 0 and 1 an exchange
    of two of them would not show.
    """

    # Not above: the process that hands the tests out to others imports this file too.
    import torch
    import transformers
    from transformers.models.lxmert import modeling_lxmert as reference

    def make(name: str, **changes):
        torch.manual_seed(0)
        model = getattr(reference, name)(transformers.LxmertConfig(**{**SIZES, **changes}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.2)
                if parameter.ndim == 1:
                    parameter.add_(0.5)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def make_pair(make_reference, tmp_path_factory):
    """Build (reference, ours) with the same weights, ours opened from what the reference saved."""
    import lxmert

    @functools.cache
    def make(name: str, **changes):
        theirs = make_reference(name, **changes)
        folder = tmp_path_factory.mktemp(name)
        theirs.save_pretrained(folder)
        return theirs, getattr(lxmert, name).from_pretrained(folder)

    return make
