"""What TensorFlow alone has: `tf.function`, XLA, SavedModel, `tf.data`. `make test-tensorflow` runs it."""

import os

import numpy as np
import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when Keras is imported

import keras
from test_twins import SIZES, SMALL, L, N, R, batch, inputs, labels, of_keras

import lxmert
from lxmert import LxmertConfig
from lxmert import tensorflow as twins
from lxmert.tensorflow import call_inputs

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow is in an environment of its own: make test-tensorflow", allow_module_level=True)

import tensorflow as tf


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    pytorchs = lxmert.LxmertForPreTraining(LxmertConfig(**SIZES | {"l_layers": 1, "x_layers": 1}))
    pytorchs.save_pretrained(folder := tmp_path_factory.mktemp("model"))
    return twins.TFLxmertForPreTraining.from_pretrained(folder)


def signature(given):
    """Of inputs with any number of rows, tokens and regions."""
    free = {name: [None, None, *array.shape[2:]] for name, array in given.items()}
    return {name: tf.TensorSpec(free[name], array.dtype, name=name) for name, array in given.items()}


def small_model(initializer_range=0.02):
    config = LxmertConfig(**SIZES | SMALL | {"initializer_range": initializer_range})
    return twins.TFLxmertForQuestionAnswering(config)


def fewer(given):
    """The same with fewer rows, tokens and regions."""
    return {name: array[:2, : (N if "visual" in name else L) - 1] for name, array in given.items()}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "XLA"])
def test_a_graph_gives_what_eager_calls_give(model, compiled):
    given = inputs()
    call = tf.function(model, jit_compile=compiled)
    found = call(given)
    assert type(found) is twins.TFLxmertForPreTrainingOutput
    assert_same(found, model(given))


def test_one_graph_takes_any_number_of_rows_tokens_and_regions(model):
    given = inputs()
    call = tf.function(model).get_concrete_function(signature(given))
    for each in (given, fewer(given)):
        tensors = {name: tf.constant(array) for name, array in each.items()}
        assert_same(call(tensors), model(each))


def test_gradients_of_a_graph_are_those_of_eager_calls(model):
    given = inputs() | of_keras(labels("LxmertForPreTraining"))

    def gradients():
        with tf.GradientTape() as tape:
            loss = model(given).loss
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_weights)]

    for found, expected in zip(tf.function(gradients)(), gradients(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_saved_model_serves_without_our_classes(model, tmp_path):
    given = inputs()
    model.export(tmp_path / "served", input_signature=[signature(given)], verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    for each in (given, fewer(given)):
        found = served.serve({name: tf.constant(array) for name, array in each.items()})
        assert_same(found, model(each))


def test_fit_takes_a_generator_of_the_data_modules_batches():
    keras.utils.set_random_seed(0)
    model = small_model(initializer_range=0.2)
    model.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    answers = np.eye(7, dtype="float32")[:R]

    def examples():
        for _ in range(60):
            yield call_inputs(batch(), length=8), answers

    losses = model.fit(examples(), steps_per_epoch=10, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2


def test_fit_takes_a_data_set_of_tensorflow():
    keras.utils.set_random_seed(0)
    model = small_model(initializer_range=0.2)
    model.compile("sgd", jit_compile=False)
    given = inputs(rows=4) | {"labels": np.array([0, 1, 1, 0])}
    losses = model.fit(tf.data.Dataset.from_tensor_slices(given).batch(2), epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_half_precision_scales_its_loss():
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small_model()
        model.compile("sgd", jit_compile=False)
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    expected = float(model(inputs() | {"labels": np.arange(R)}).loss)
    loss = model.fit(inputs(), np.arange(R), verbose=0).history["loss"][0]
    np.testing.assert_allclose(loss, expected, rtol=0.01)
