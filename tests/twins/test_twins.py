"""The Keras classes against the PyTorch ones and the reference's recorded outputs, on whichever backend Keras has.

`make test` runs this on PyTorch, `make test-tensorflow` on TensorFlow; KERAS_BACKEND=jax works too.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when Keras is imported

import keras
from keras import ops

import lxmert
from lxmert import LxmertConfig
from lxmert import tensorflow as twins
from lxmert.batch import Batch
from lxmert.config import ACTIVATIONS
from lxmert.files import InputError
from lxmert.model import activation as torch_activation
from lxmert.tensorflow import call_inputs
from lxmert.tensorflow.model import activation

BACKEND = keras.backend.backend()
COMPILED = "auto" if BACKEND == "jax" else False  # compiling takes longer here than what is compiled
RECORDED = Path(__file__).parents[2].parent / "shared" / "data" / "tensorflow"  # of the reference itself
NAMES = ["LxmertModel", "LxmertForQuestionAnswering", "LxmertForPreTraining"]
# Different numbers everywhere, so that no two dimensions can be confused without a shape error.
SIZES = {
    "vocab_size": 61, "hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 40, "num_qa_labels": 7,
    "num_object_labels": 9, "num_attr_labels": 5, "max_position_embeddings": 16, "l_layers": 2, "r_layers": 1,
    "x_layers": 2, "visual_feat_dim": 10, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
SMALL = {"l_layers": 0, "r_layers": 0, "x_layers": 1}  # for `fit`: TensorFlow traces each weight's update
R, L, N = 3, 6, 5  # rows, tokens, regions


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Build (PyTorch's, Keras') with the same weights, all of them random; Keras' opened from a folder."""
    made = {}

    def build(name, **changes):
        key = (name, *changes.items())
        if key not in made:
            torch.manual_seed(0)
            model = getattr(lxmert, name)(LxmertConfig(**{**SIZES, **changes})).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.normal_(0.5 if parameter.ndim == 1 else 0, 0.2)
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            made[key] = model, getattr(twins, f"TF{name}").from_pretrained(folder)
        return made[key]

    return build


def inputs(rows=R, padding=True):
    """Of a call, as arrays; with padding in both sides, of different lengths."""
    random = np.random.default_rng(0)
    made = {
        "input_ids": random.integers(1, 61, (rows, L)),
        "visual_feats": random.normal(size=(rows, N, 10)).astype("float32"),
        "visual_pos": random.random((rows, N, 4)).astype("float32"),
        "token_type_ids": random.integers(0, 2, (rows, L)),
    }
    made["input_ids"][0, 2] = 0  # [PAD] where the mask says that it is real
    if padding:
        made["attention_mask"] = (np.arange(L) < random.integers(2, L + 1, (rows, 1))).astype("int64")
        made["visual_attention_mask"] = (np.arange(N) < random.integers(1, N + 1, (rows, 1))).astype("float32")
        made["attention_mask"][0], made["visual_attention_mask"][0] = 1, 1
    return made


def labels(name):
    """Of a call, some of them ignored: the PyTorch class' names."""
    if name == "LxmertForQuestionAnswering":
        return {"labels": np.array([3, -100, 6])}
    random = np.random.default_rng(1)
    weights = random.random((R, N)).astype("float32")
    return {
        "labels": np.where(random.random((R, L)) < 0.5, random.integers(0, 61, (R, L)), -100),
        "obj_labels": {
            "obj": (np.where(random.random((R, N)) < 0.5, random.integers(0, 9, (R, N)), -100), weights),
            "attr": (random.integers(0, 5, (R, N)), weights),
            "feat": (random.normal(size=(R, N, 10)).astype("float32") * 3, weights),
        },
        "matched_label": np.array([0, 1, -1]),
        "ans": random.random((R, 7)).astype("float32"),
    }


def tensors(tree):
    """The same with PyTorch's tensors."""
    if isinstance(tree, dict):
        return {name: tensors(each) for name, each in tree.items()}
    return tuple(map(tensors, tree)) if isinstance(tree, tuple) else torch.from_numpy(tree)


def of_keras(given):
    """Labels under the names that Keras' class of pre-training has."""
    return {"masked_lm_labels" if n == "labels" and "ans" in given else n: each for n, each in given.items()}


def array(tensor):
    return ops.convert_to_numpy(tensor)


def gradients(model, loss_of):
    """name -> the gradient of `loss_of(model)` under the reference's names, in PyTorch's orientation."""
    weights = model.named_weights()
    if BACKEND == "torch":
        model.zero_grad()
        loss_of(model).backward()
        found = {name: weight.value.grad for name, weight in weights.items()}
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = loss_of(model)
        values = [weight.value for weight in weights.values()]
        each = [None if g is None else tf.convert_to_tensor(g) for g in tape.gradient(loss, values)]
        found = dict(zip(weights, each, strict=True))
    else:
        import jax

        def loss_with(values):
            with keras.StatelessScope(list(zip(weights.values(), values, strict=True))):
                return loss_of(model)

        found = dict(zip(weights, jax.grad(loss_with)([w.value for w in weights.values()]), strict=True))
    found = {name: None if each is None else array(each) for name, each in found.items()}
    turned = {name for name, weight in weights.items() if weight.path.endswith("/kernel")}
    return {name: each.T if each is not None and name in turned else each for name, each in found.items()}


def compare_outputs(found, expected, mask=None):
    """Every field that both have; attentions on real rows alone, as ours give padding none that means anything."""
    names = [name for name in found if name in expected.keys()]  # noqa: SIM118
    assert len(names) == len(found) and names
    for name in names:
        ours, theirs = found[name], expected[name]
        pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
        for one, other in pairs:
            one, other = array(one), other.detach().numpy()
            if name.endswith("attentions") and mask is not None:
                real = mask["visual_attention_mask" if name == "vision_attentions" else "attention_mask"] != 0
                one, other = (each.swapaxes(1, 2)[real] for each in (one, other))
            np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_the_pytorch_class(make, name, padding):
    pytorchs, kerass = make(name)
    given = inputs(padding=padding)
    shown = {"output_attentions": True, "output_hidden_states": True}
    with torch.no_grad():
        expected = pytorchs(**tensors(given), **shown)
    found = kerass(**given, **shown)
    assert len(found.language_hidden_states) == 4 and len(found.cross_encoder_attentions) == 2
    compare_outputs(found, expected, given if padding else None)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_pytorch(name):
    x = torch.linspace(-6, 6, 200)
    found = ops.convert_to_numpy(activation(name, ops.convert_to_tensor(x.numpy())))
    np.testing.assert_allclose(found, torch_activation(name)(x).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "changes"), [*((name, {}) for name in NAMES), ("LxmertForPreTraining", {"hidden_act": "relu"})]
)
def test_losses_and_all_gradients_are_those_of_the_pytorch_class(make, name, changes):
    pytorchs, kerass = make(name, **changes)
    given = inputs()
    if name == "LxmertModel":

        def loss_of(model, given=given):
            output = model(**given)
            fields = (output.language_output, output.vision_output, output.pooled_output)
            weighted = [(field * field * field).sum() for field in fields] if model is pytorchs else None
            return sum(weighted) if weighted else sum(ops.sum(field * field * field) for field in fields)
    else:
        given |= labels(name)

        def loss_of(model, given=given):
            return model(**given).loss

    pytorchs.zero_grad()
    expected = loss_of(pytorchs, tensors(given))
    expected.backward()
    given = of_keras(given)
    np.testing.assert_allclose(array(loss_of(kerass, given)), expected.detach().numpy(), rtol=1e-5)
    found = gradients(kerass, lambda model: loss_of(model, given))
    known = {"lxmert." * (name == "LxmertModel") + n: p.grad for n, p in pytorchs.named_parameters()}
    assert found.keys() == known.keys()
    for each, gradient in known.items():
        if gradient is None:  # the last layer's vision side, which answers do not read
            assert found[each] is None or not found[each].any(), each
            continue
        scale = max(1.0, gradient.abs().max().item())
        np.testing.assert_allclose(found[each] / scale, gradient.numpy() / scale, atol=1e-4, err_msg=each)
    tables = [f"lxmert.embeddings.{table}_embeddings.weight" for table in ("position", "token_type")]
    assert not any(found[table][0].any() for table in tables)  # entry 0 is not learnt


@pytest.mark.parametrize(
    ("name", "folder"), [("TFLxmertModel", "model"), ("TFLxmertForPreTraining", "pretraining")]
)
def test_outputs_are_those_that_the_reference_recorded(name, folder):
    if not RECORDED.exists():
        pytest.skip("the reference's recorded outputs (shared/data/tensorflow) are not here")
    model, recorded = (
        getattr(twins, name).from_pretrained(RECORDED / folder),
        np.load(RECORDED / folder / "io.npz"),
    )
    names = ("input_ids", "visual_feats", "visual_pos", "attention_mask", "token_type_ids")
    given = {each: recorded[f"in/{each}"] for each in names}
    output = model(**given, output_attentions=True, output_hidden_states=True)
    real = given["attention_mask"] != 0
    compared = 0
    for key in recorded.files:
        _, _, place = key.partition("out/")
        field, _, number = place.partition("/")
        if not place or place.startswith("loss"):
            continue
        found, expected = array(output[field][int(number)] if number else output[field]), recorded[key]
        if field.startswith(("cross_enc", "language_att")):
            found, expected = (each.swapaxes(1, 2) for each in (found, expected))
        if found.shape[:2] == real.shape:
            found, expected = found[real], expected[real]
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=key)
        compared += 1
    assert compared == 15


def test_single_losses_are_those_that_the_reference_recorded():
    if not RECORDED.exists():
        pytest.skip("the reference's recorded outputs (shared/data/tensorflow) are not here")
    folder = RECORDED / "pretraining"
    model, recorded = twins.TFLxmertForPreTraining.from_pretrained(folder), np.load(folder / "io.npz")
    names = ("input_ids", "visual_feats", "visual_pos", "attention_mask", "token_type_ids")
    given = {each: recorded[f"in/{each}"] for each in names}
    regions = {}
    for name in ("obj", "attr", "feat"):
        label, weight = (recorded[f"in/obj_labels/{name}/{i}"] for i in (0, 1))
        # The reference multiplies the mean loss by the mean weight, where its PyTorch class weighs each region.
        regions[name] = label, np.full_like(weight, weight.mean())
    for key, label in {
        "matched": {"matched_label": recorded["in/matched_label"]},
        "ans": {"ans": recorded["in/ans"]},
        "obj": {"obj_labels": regions},
    }.items():
        loss = array(model(**given, **label).loss)
        np.testing.assert_allclose(loss, recorded[f"out/loss_{key}"], rtol=1e-6, err_msg=key)


# Calls


def test_a_dictionary_a_list_and_names_are_the_same_call(make):
    _, model = make("LxmertModel")
    given = inputs(padding=False)
    expected = array(model(**given).pooled_output)
    ids = given["input_ids"], given["visual_feats"], given["visual_pos"], None, None, given["token_type_ids"]
    for found in (model(given), model(list(ids)), model(*ids)):
        np.testing.assert_array_equal(array(found.pooled_output), expected)


def test_a_tuple_has_the_fields_that_are_set_in_order(make):
    _, model = make("LxmertForPreTraining")
    output = model(inputs(), output_hidden_states=True)
    assert list(output) == [
        *("prediction_logits", "cross_relationship_score", "question_answering_score"),
        *("language_hidden_states", "vision_hidden_states"),
    ]
    assert output.loss is None and output[1] is output["cross_relationship_score"] is output.to_tuple()[1]
    found = model(inputs(), return_dict=False)
    assert isinstance(found, tuple) and len(found) == 3
    np.testing.assert_array_equal(array(found[1]), array(output[1]))


def test_words_may_be_given_as_vectors(make):
    pytorchs, kerass = make("LxmertModel")
    given = inputs()
    del given["input_ids"]
    given["inputs_embeds"] = np.random.default_rng(2).normal(size=(R, L, 24)).astype("float32")
    with torch.no_grad():
        expected = pytorchs(**tensors(given))
    compare_outputs(kerass(**given), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": None}, "pass either input_ids or inputs_embeds"),
        ({"visual_feats": None}, "LXMERT needs region features"),
        ({"visual_pos": np.ones((R, N + 1, 4), "float32")}, "visual_pos has shape"),
        (
            {"visual_attention_mask": np.ones((R, L))},
            r"mask has shape \(3, 6\); expected \(3, 5\)",
        ),
        (
            {"input_ids": np.ones((R, 17), "int64"), "token_type_ids": None},
            "17 tokens; .* 16 positions",
        ),
        ({"input_ids": np.ones((R,), "int64")}, "expected \\(rows, tokens\\)"),
        ({"visual_feats": np.ones((R, 0, 10)), "visual_pos": np.ones((R, 0, 4))}, "0 regions a row"),
        ({"labels": np.ones(R)}, "unknown inputs labels"),
    ],
)
def test_inputs_that_do_not_fit_are_named(make, change, message):
    _, model = make("LxmertModel")
    with pytest.raises(ValueError, match=message):
        model(inputs(padding=False) | change)


def test_an_input_given_twice_is_refused(make):
    _, model = make("LxmertModel")
    given = inputs()
    with pytest.raises(ValueError, match="visual_pos given twice"):
        model(given, visual_pos=given["visual_pos"])
    with pytest.raises(ValueError, match="a list of 11 inputs"):
        model([given["input_ids"]] * 11)


def test_what_stands_on_padding_is_not_seen_and_its_output_is_zero(make):
    _, model = make("LxmertModel")
    given = inputs()
    expected = model(**given)
    hidden = given["visual_attention_mask"] == 0
    given["visual_feats"][hidden], given["visual_pos"][hidden] = np.nan, np.inf
    given["input_ids"][given["attention_mask"] == 0] = 9
    found = model(**given)
    for name in ("language_output", "vision_output", "pooled_output"):
        np.testing.assert_array_equal(array(found[name]), array(expected[name]))
    assert hidden.any() and not array(found.vision_output)[hidden].any()
    assert not array(found.language_output)[given["attention_mask"] == 0].any()


def test_losses_of_ignored_labels_are_zero(make):
    _, model = make("LxmertForPreTraining")
    nothing = {
        "masked_lm_labels": np.full((R, L), -100),
        "matched_label": np.full(R, -1),
        "ans": np.full(R, -100),
    }
    assert float(array(model(inputs() | nothing).loss)) == 0


def test_region_labels_that_lack_a_name_are_refused(make):
    _, model = make("LxmertForPreTraining")
    given = labels("LxmertForPreTraining")["obj_labels"]
    del given["attr"]
    with pytest.raises(ValueError, match="obj_labels lacks attr"):
        model(inputs(), obj_labels=given)


def test_answer_labels_of_another_shape_are_refused(make):
    _, model = make("LxmertForQuestionAnswering")
    with pytest.raises(ValueError, match=r"labels of shape \(3, 6\)"):
        model(inputs(), labels=np.ones((R, 6), "float32"))


def test_switches_leave_heads_and_losses_out(make):
    off = {"task_qa": False, "task_obj_predict": False, "task_matched": False}
    pytorchs, kerass = make("LxmertForPreTraining", **off)
    given = inputs() | labels("LxmertForPreTraining")
    with torch.no_grad():
        expected = pytorchs(**tensors(given))
    found = kerass(**of_keras(given))
    assert found.question_answering_score is None
    np.testing.assert_allclose(array(found.loss), expected.loss.numpy(), rtol=1e-5)
    _, kerass = make("LxmertForPreTraining", visual_attr_loss=False)
    assert "obj_predict_head.decoder_dict.attr.bias" not in kerass.named_weights()


def test_dropout_acts_in_training_alone(make):
    _, model = make("LxmertModel", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    given = inputs()
    first, again, one, other = (
        array(model(given, training=training).pooled_output) for training in (False, False, True, True)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(one - other).max() > 1e-3 < np.abs(one - first).max()


# Files


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", NAMES)
def test_weights_go_there_and_back_to_the_last_bit(make, tmp_path, name):
    pytorchs, kerass = make(name)
    kerass.save_pretrained(tmp_path, tf_h5=True)
    for file in ("model.safetensors", "tf_model.h5"):
        assert_same(type(pytorchs).from_pretrained(tmp_path).reference_state(), pytorchs.reference_state())
        assert_same(type(kerass).from_pretrained(tmp_path).reference_state(), pytorchs.reference_state())
        (tmp_path / file).unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    kerass.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_what_pytorch_opens_opens_here(make, tmp_path):
    pytorchs, _ = make("LxmertForPreTraining")
    state = pytorchs.reference_state()
    torch.save(
        {f"module.{n.replace('lxmert.', 'bert.')}": each for n, each in state.items()}, tmp_path / "a_LXRT.pth"
    )
    run = {n.replace("lxmert.", "model."): each for n, each in state.items() if n.startswith("lxmert.")}
    config = pytorchs.config
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    torch.save(
        {"state_dict": run, "lxmert_config": config.to_dict(), "heads": {}}, tmp_path / "run/checkpoints/last.ckpt"
    )
    assert_same(
        twins.TFLxmertForPreTraining.from_pretrained(tmp_path / "a_LXRT.pth", config=config).reference_state(),
        state,
    )
    found = twins.TFLxmertModel.from_pretrained(tmp_path / "run")
    assert_same(found.reference_state(), {n: each for n, each in state.items() if n.startswith("lxmert.")})


def test_missing_encoder_weights_are_refused(make, tmp_path):
    pytorchs, kerass = make("LxmertModel")
    kerass.save_pretrained(tmp_path)
    state = {n: each for n, each in pytorchs.state_dict().items() if "x_layers.1" not in n}
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="encoder weights would keep random values"):
        twins.TFLxmertModel.from_pretrained(tmp_path)
    assert twins.TFLxmertModel.from_pretrained(tmp_path, allow_missing=True).config == kerass.config


def test_keras_own_files_bring_a_model_back(make, tmp_path):
    _, model = make("LxmertForPreTraining")
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = type(model)(model.config)
    assert not torch.equal(*(each.reference_state()["lxmert.pooler.dense.weight"] for each in (fresh, model)))
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert_same(fresh.reference_state(), model.reference_state())
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(model) and again.config == model.config
    assert_same(again.reference_state(), model.reference_state())


def test_a_new_model_begins_as_bert_begins():
    model = twins.TFLxmertForPreTraining(LxmertConfig(**{**SIZES, "hidden_size": 64, "initializer_range": 0.05}))
    state = model.reference_state()
    expected = lxmert.LxmertForPreTraining(model.config).reference_state()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert abs(state[name].std(correction=0) - tensor.std(correction=0)) < 0.02, name
        assert state[name].mean().round(decimals=1) == tensor.mean().round(decimals=1), name
    assert not state["lxmert.embeddings.word_embeddings.weight"][0].any()


# Training


def accuracy(labels, scores):
    """(R,) soft score of each best guess."""
    return ops.take_along_axis(labels, ops.argmax(scores, axis=-1)[:, None], axis=-1)[:, 0]


@pytest.mark.parametrize("where", ["beside", "among"])
def test_fit_learns_answers_from_labels_beside_and_among_the_inputs(where):
    keras.utils.set_random_seed(0)
    model = twins.TFLxmertForQuestionAnswering(LxmertConfig(**SIZES | SMALL | {"initializer_range": 0.2}))
    given, answers = inputs(rows=8), np.eye(7, dtype="float32")[np.arange(8) % 7]
    among = where == "among"
    model.compile(keras.optimizers.Adam(3e-3), metrics=[] if among else [accuracy], jit_compile=COMPILED)
    x, y = (given | {"labels": answers}, None) if among else (given, answers)
    losses = model.fit(x, y, batch_size=4, epochs=8, verbose=0).history
    assert losses["loss"][-1] < losses["loss"][0] / 2
    if not among:
        scores = model.predict(given, batch_size=4, verbose=0)["question_answering_score"]
        np.testing.assert_allclose(scores, array(model(given).question_answering_score), atol=1e-4)
        right = (scores.argmax(1) == answers.argmax(1)).mean()
        assert model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] == right > 1 / 2


def test_fit_pretrains(make):
    _, opened = make("LxmertForPreTraining", **SMALL)
    model = twins.TFLxmertForPreTraining.from_config(opened.get_config())
    model.set_weights(opened.get_weights())
    model.compile(keras.optimizers.Adam(3e-3), jit_compile=COMPILED)
    x = inputs() | of_keras(labels("LxmertForPreTraining"))
    first = float(array(model(x).loss))
    losses = model.fit(x, epochs=4, batch_size=R, verbose=0).history["loss"]
    assert abs(losses[0] - first) < 1e-3 * first and losses[-1] < first


def test_fit_without_labels_or_with_what_it_cannot_weigh_says_so(make):
    _, model = make("LxmertForQuestionAnswering", **SMALL)
    output = model(inputs())
    with pytest.raises(ValueError, match="no labels to learn from"):
        model.compute_loss(inputs(), None, output)
    with pytest.raises(ValueError, match="knows no sample_weight"):
        model.compute_loss(inputs(), np.arange(R), output, sample_weight=np.ones(R))
    with pytest.raises(ValueError, match="return_dict is False"):
        twins.TFLxmertForQuestionAnswering(LxmertConfig(**SIZES, return_dict=False)).compute_loss(y_pred=(1,))
    with pytest.raises(ValueError, match="takes its labels among the inputs"):
        make("LxmertForPreTraining")[1].compute_loss(y=1, y_pred=make("LxmertForPreTraining")[1](inputs()))


def test_a_compiled_loss_goes_before_the_models_own(make):
    _, model = make("LxmertForQuestionAnswering", **SMALL)
    model.compile("sgd", loss="mse", jit_compile=COMPILED)
    given, answers = inputs(), np.ones((R, 7), "float32")
    expected = ((array(model(given).question_answering_score) - 1) ** 2).mean()
    np.testing.assert_allclose(model.evaluate(given, answers, verbose=0), expected, rtol=1e-4)


def test_mixed_precision_computes_in_half_and_learns_in_single(make):
    _, opened = make("LxmertForQuestionAnswering", **SMALL)
    expected = array(opened(inputs()).question_answering_score)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = type(opened)(opened.config)
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(opened.get_weights())
    output = model(inputs(), labels=np.arange(R))
    scores = ops.cast(output.question_answering_score, "float32")
    assert keras.backend.standardize_dtype(output.question_answering_score.dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(output.loss.dtype) == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    np.testing.assert_allclose(array(scores), expected, atol=0.1 * np.abs(expected).max())
    model.compile("sgd", jit_compile=COMPILED)
    assert np.isfinite(model.fit(inputs(), np.arange(R), verbose=0).history["loss"]).all()


# Batches of the data modules


def batch(row_image=(0, 1, 2)):
    images = max(row_image) + 1
    return Batch(
        token_ids=torch.tensor([[2, 5, 3, 0], [2, 6, 7, 3], [2, 5, 6, 3]]),
        token_mask=torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]]).bool(),
        region_features=torch.rand(images, N, 10).half(),
        region_boxes=torch.rand(images, N, 4),
        region_mask=torch.ones(images, N, dtype=torch.bool),
        row_sentence=torch.arange(3),
        row_image=torch.tensor(row_image),
    )


def test_a_batch_is_converted_without_a_copy_of_its_regions(make):
    pytorchs, kerass = make("LxmertModel")
    one = batch()
    given = call_inputs(one, length=8)
    assert np.shares_memory(given["visual_feats"], one.region_features.numpy())
    assert np.shares_memory(given["visual_pos"], one.region_boxes.numpy())
    assert given["input_ids"].shape == (3, 8) and not given["attention_mask"][:, 4:].any()
    with torch.no_grad():
        expected = pytorchs.encode(one, {"pooled"}).pooled_output
    np.testing.assert_allclose(array(kerass(given).pooled_output), expected.numpy(), atol=1e-5)


def test_images_that_rows_share_are_repeated(make):
    pytorchs, kerass = make("LxmertModel")
    one = batch((1, 0, 1))
    given = call_inputs(one)
    assert np.shares_memory(given["input_ids"], one.token_ids.numpy())
    with torch.no_grad():
        expected = pytorchs.encode(one, {"pooled"}).pooled_output
    np.testing.assert_allclose(array(kerass(given).pooled_output), expected.numpy(), atol=1e-5)


def test_sentences_longer_than_the_length_are_refused():
    with pytest.raises(ValueError, match="sentences of 4 tokens; expected at most length=3"):
        call_inputs(batch(), length=3)
