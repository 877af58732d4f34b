"""`tf_model.h5`: names both ways, bit for bit there and back, and what is refused."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import lxmert
from lxmert import LxmertConfig, LxmertForPreTraining, LxmertForQuestionAnswering, LxmertModel
from lxmert.files import InputError
from lxmert.weights import is_transposed, read_weights, torch_name, write_tf_h5
from lxmert.weights.tf_h5 import h5_path

WRITTEN = Path(__file__).parents[2].parent / "shared" / "data" / "tensorflow"  # by the reference itself
MODELS = {"LxmertModel": "tf_lxmert_model", "LxmertForPreTraining": "tf_lxmert_for_pre_training"}


@pytest.fixture
def model(sizes):
    torch.manual_seed(0)
    model = LxmertForPreTraining(LxmertConfig(**sizes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


@pytest.fixture
def file(model, tmp_path):
    write_tf_h5(tmp_path / "tf_model.h5", model.reference_state(), "tf_lxmert_for_pre_training")
    model.config.save_pretrained(tmp_path)
    return tmp_path / "tf_model.h5"


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("torchs", "tensorflows"),
    [
        ("lxmert.embeddings.word_embeddings.weight", "lxmert/embeddings/word_embeddings/weight"),
        ("lxmert.embeddings.position_embeddings.weight", "lxmert/embeddings/position_embeddings/embeddings"),
        ("lxmert.embeddings.LayerNorm.bias", "lxmert/embeddings/LayerNorm/beta"),
        ("lxmert.encoder.visn_fc.box_layer_norm.weight", "lxmert/encoder/visn_fc/box_layer_norm/gamma"),
        ("lxmert.encoder.layer.11.output.dense.weight", "lxmert/encoder/layer_._11/output/dense/kernel"),
        (
            "lxmert.encoder.x_layers.1.visual_attention.att.query.bias",
            "lxmert/encoder/x_layers_._1/visual_attention/att/query/bias",
        ),
        ("cls.predictions.bias", "cls/predictions/bias"),
        ("obj_predict_head.decoder_dict.obj.weight", "obj_predict_head/decoder_dict.obj/kernel"),
        ("answer_head.logit_fc.2.weight", "answer_head/logit_fc_._2/gamma"),
        ("answer_head.logit_fc.3.weight", "answer_head/logit_fc_._3/kernel"),
    ],
)
def test_names_are_the_references(torchs, tensorflows):
    assert h5_path(torchs) == tensorflows
    assert torch_name(tensorflows) == torchs


def test_every_name_of_the_published_model_goes_there_and_back():
    state = LxmertForPreTraining.shapes(LxmertConfig())
    paths = [h5_path(name) for name in state]
    assert len(set(paths)) == len(state) > 400
    assert [torch_name(path) for path in paths] == list(state)
    without_dots = [path.replace("_._", "_").replace("decoder_dict.", "decoder_dict_") for path in paths]
    assert [torch_name(path) for path in without_dots] == list(state)
    assert sum(map(is_transposed, paths)) == sum(
        tensor.ndim == 2 and "_embeddings" not in name for name, tensor in state.items()
    )


@pytest.mark.parametrize(("name", "folder"), [("LxmertModel", "model"), ("LxmertForPreTraining", "pretraining")])
def test_what_the_reference_wrote_is_written_again_to_the_last_byte(tmp_path, name, folder):
    if not WRITTEN.exists():
        pytest.skip("the reference's tf_model.h5 (shared/data/tensorflow) are not here")
    model = getattr(lxmert, name).from_pretrained(WRITTEN / folder)
    write_tf_h5(tmp_path / "tf_model.h5", model.reference_state(), MODELS[name])
    assert (tmp_path / "tf_model.h5").read_bytes() == (WRITTEN / folder / "tf_model.h5").read_bytes()


def test_the_order_of_the_weights_does_not_change_the_file(model, file, tmp_path):
    backwards = dict(reversed(model.reference_state().items()))
    write_tf_h5(tmp_path / "again.h5", backwards, "tf_lxmert_for_pre_training")
    assert (tmp_path / "again.h5").read_bytes() == file.read_bytes()


def test_the_file_is_as_keras_lays_it_out(model, file):
    with h5py.File(file) as written:
        assert list(written.attrs["layer_names"]) == ["lxmert", "cls", "obj_predict_head", "answer_head"]
        heads = list(written["cls"].attrs["weight_names"])
        assert heads[0] == "tf_lxmert_for_pre_training/cls/predictions/bias:0"
        assert heads[5] == "tf_lxmert_for_pre_training/lxmert/embeddings/word_embeddings/weight:0"
        kernel = written["answer_head/tf_lxmert_for_pre_training/answer_head/logit_fc_._0/kernel:0"]
        np.testing.assert_array_equal(kernel[()], model.answer_head.logit_fc[0].weight.detach().numpy().T)


def test_the_pytorch_classes_open_a_folder_that_has_it_alone(model, file, caplog):
    with caplog.at_level("WARNING"):
        assert_same(LxmertForPreTraining.from_pretrained(file.parent).state_dict(), model.state_dict())
    assert not caplog.records
    answering = LxmertForQuestionAnswering.from_pretrained(file, config=model.config)  # the file itself
    assert_same(answering.state_dict(), {k: model.state_dict()[k] for k in answering.state_dict()})


def test_safetensors_go_before_it(model, file, sizes):
    other = LxmertModel(LxmertConfig(**sizes)).eval()
    other.save_pretrained(file.parent)
    assert_same(LxmertModel.from_pretrained(file.parent).state_dict(), other.state_dict())


def test_names_of_fixed_length_and_in_pieces_are_read(model, file):
    """As older versions wrote them, and for models with more names than an attribute holds."""
    with h5py.File(file, "r+") as written:
        names = [name.encode() for name in written["lxmert"].attrs["weight_names"]]
        del written["lxmert"].attrs["weight_names"]
        written["lxmert"].attrs["weight_names0"] = np.array(names[:50], dtype="S")
        written["lxmert"].attrs["weight_names1"] = np.array(names[50:], dtype="S")
    assert_same(read_weights(file), model.reference_state())


def test_half_precision_is_read_as_it_is(model, tmp_path):
    half = {name: tensor.half() for name, tensor in model.reference_state().items()}
    write_tf_h5(tmp_path / "half.h5", half, "tf_lxmert_for_pre_training")
    assert_same(read_weights(tmp_path / "half.h5"), half)


BIAS = "cls/tf_lxmert_for_pre_training/cls/predictions/bias:0"


def link_elsewhere(file, other):
    del file[BIAS]
    file[BIAS] = h5py.ExternalLink(other, BIAS)


def link_within(file, other):
    del file[BIAS]
    file[BIAS] = h5py.SoftLink("/cls")


def store_elsewhere(file, other):
    del file[BIAS]
    file.create_dataset(BIAS, (61,), "f4", external=[(other, 0, 244)])


def show_another_file(file, other):
    del file[BIAS]
    layout = h5py.VirtualLayout((61,), "f4")
    layout[:] = h5py.VirtualSource(other, BIAS, (61,))
    file.create_virtual_dataset(BIAS, layout)


def claim_more_than_there_is(file, other):
    del file[BIAS]
    file.create_dataset(BIAS, (2**40,), "f4", chunks=(2**20,))


def hold_whole_numbers(file, other):
    del file[BIAS]
    file[BIAS] = np.arange(61)


def hold_a_group(file, other):
    del file[BIAS]
    file.create_group(BIAS)


def lack_one(file, other):
    del file[BIAS]


def disagree(file, other):
    file["cls/tf_lxmert_for_pre_training/lxmert/embeddings/LayerNorm/gamma:0"][0] = 7


def hold_an_optimizer(file, other):
    file["lxmert"].attrs["weight_names"] = ["Adam/iteration:0"]


def have_no_names(file, other):
    del file.attrs["layer_names"]


def name_with_numbers(file, other):
    file.attrs["layer_names"] = [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (link_elsewhere, "is a link to elsewhere"),
        (link_within, "is a link to elsewhere"),
        (store_elsewhere, "has its numbers in another file"),
        (show_another_file, "has its numbers in another file"),
        (claim_more_than_there_is, "of which the file has"),
        (hold_whole_numbers, "is int64; expected floating-point numbers"),
        (hold_a_group, "is a group; expected floating-point numbers"),
        (lack_one, "and does not hold it"),
        (disagree, "twice, with other numbers"),
        (hold_an_optimizer, "is no weight of an LXMERT"),
        (have_no_names, "has no attribute layer_names"),
        (name_with_numbers, "expected names of weights"),
    ],
)
def test_other_files_are_refused_in_our_words(file, tmp_path, change, message):
    other = shutil.copy(file, tmp_path / "other.h5")
    with h5py.File(file, "r+") as written:
        change(written, str(other))
    with pytest.raises(InputError, match=message) as caught:
        read_weights(file)
    assert str(file) in str(caught.value)


def test_a_file_that_was_cut_off_is_refused(file):
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"tf_model\.h5.* it is damaged or was cut off"):
        LxmertForPreTraining.from_pretrained(file.parent)


def test_a_weight_of_no_known_part_is_not_written(tmp_path):
    with pytest.raises(InputError, match="pair_head"):
        write_tf_h5(tmp_path / "tf_model.h5", {"pair_head.logit_fc.0.weight": torch.ones(2, 2)}, "tf_lxmert_model")
    assert not list(tmp_path.iterdir())
