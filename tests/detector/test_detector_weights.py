"""A detector's file, and the published weights of every layout: the same network from each of them."""

import hashlib
import json
import os
import pickle
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from detectors import (
    CONFIG,
    SIZE_MAJOR,
    WRITERS,
    caffe_layer,
    detectron2_arrays,
    exact_anchors,
    field,
    published,
    saved,
    tame,
    write_caffe,
    write_hub,
    write_milvlg,
    write_pickle,
)
from fuzzing import COUNT, VALUES, damaged, survives
from runs import SHARED
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from datamodules.detector import (
    BoxRule,
    Detector,
    DetectorConfig,
    FasterRCNN,
    read_detector,
    write_detector,
)
from datamodules.detector.__main__ import main
from datamodules.detector.network import without_memory
from datamodules.detector.proposals import base_anchors
from datamodules.detector.weights import convert_weights, read_names
from datamodules.detector.weights.arrays import Arrays
from datamodules.detector.weights.layouts import Detectron2, assemble
from lxmert.files import InputError

TRIES = COUNT if COUNT > 40 else 5
VOCABULARIES = SHARED / "vocab"


@pytest.fixture(scope="module")
def layers():
    return published()


@pytest.fixture(scope="module")
def files(layers, tmp_path_factory):
    """A file of each layout with the same weights."""
    folder = tmp_path_factory.mktemp("weights")
    return {name: write(folder / name, layers) for name, write in WRITERS.items()}


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.safetensors"
    write_detector(path, CONFIG, tame(FasterRCNN(CONFIG)).state_dict(), name="tiny", source="made up")
    return path


def converted(source, folder, **options):
    path = folder / "converted.safetensors"
    report = convert_weights(source, path, name="tiny", **options)
    return report, read_detector(path)


# ------------------------------------------------------------------------------------------------ layouts


def as_caffe_runs(layers, image, boxes_of):
    """Map, RPN's probabilities and deltas, features and heads; normalisation is a layer of its own."""

    def convolution(part, x, **options):
        weight, *norm = (torch.from_numpy(array) for array in layers[part])
        gamma, beta, mean, variance = norm
        return F.batch_norm(F.conv2d(x, weight, **options), mean, variance, gamma, beta, eps=1e-5)

    def stage(number, x, stride, dilation=1):
        for block in range(CONFIG.blocks[number - 2]):
            name, step = f"res{number}.{block}", stride if block == 0 else 1
            shortcut = convolution(f"{name}.shortcut", x, stride=step) if block == 0 else x
            x = convolution(f"{name}.conv1", x, stride=step).relu()
            x = convolution(f"{name}.conv2", x, padding=dilation, dilation=dilation).relu()
            x = (convolution(f"{name}.conv3", x) + shortcut).relu()
        return x

    def plain(part, x, call=F.conv2d, **options):
        return call(x, *map(torch.from_numpy, layers[part]), **options)

    x = F.max_pool2d(convolution("stem", image, stride=2, padding=3).relu(), 3, 2, ceil_mode=True)
    feature_map = stage(4, stage(3, stage(2, x, 1), 2), 2)
    hidden = plain("rpn_conv", feature_map, padding=1).relu()
    both = plain("rpn_objectness", hidden)[0].unflatten(0, (2, 12)).softmax(0)  # background, then foreground
    deltas = plain("rpn_deltas", hidden)[0].unflatten(0, (12, 4))
    features = stage(5, boxes_of(feature_map), 1, dilation=2).mean((2, 3))
    scores = plain("object_score", features, F.linear)
    told = torch.cat([features, torch.from_numpy(layers["object_embedding"][0])[scores.argmax(1)]], 1)
    attributes = plain("attribute_score", plain("attribute_hidden", told, F.linear).relu(), F.linear)
    return feature_map, both[1].permute(1, 2, 0), deltas.permute(2, 3, 0, 1), features, scores, attributes


@pytest.mark.parametrize("name", WRITERS)
def test_weights_of_every_layout_give_what_caffe_computes(name, layers, files, tmp_path):
    report, file = converted(files[name], tmp_path)
    assert file.config == CONFIG == report.config
    network = FasterRCNN(file.config)
    network.load_state_dict(dict(file.state))
    torch.manual_seed(0)
    image = torch.randn(1, 3, 70, 90)
    with torch.no_grad():
        theirs = as_caffe_runs(layers, image, lambda found: F.adaptive_max_pool2d(found, 14).expand(2, -1, -1, -1))
        feature_map = network.backbone(image)
        logits, deltas = network.rpn(feature_map)
        features = network.features(F.adaptive_max_pool2d(feature_map, 14).expand(2, -1, -1, -1))
        ours = (feature_map, logits.sigmoid(), deltas, features, *network.heads(features))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one.flatten(), other.flatten(), rtol=1e-4, atol=1e-5 * other.abs().max())
    assert theirs[0].abs().max() > 0.01


def test_every_layout_gives_the_same_tensors(files, tmp_path):
    states = [converted(path, tmp_path)[1].state for path in files.values()]
    assert states[0].keys() == FasterRCNN(CONFIG).state_dict().keys()
    for state in states[1:]:
        for key, tensor in state.items():
            assert torch.allclose(tensor, states[0][key], rtol=1e-5, atol=1e-6), key


def test_the_report_says_what_was_read_and_what_was_left(files, tmp_path):
    report, file = converted(files["weights.caffemodel"], tmp_path)
    text = str(report)
    assert "Caffe, as published" in text
    assert report.unused == {"bbox_pred": 2, "heatmap_conv1": 2}
    assert report.unknown == {}
    assert report.numbers == sum(p.numel() for p in FasterRCNN(CONFIG).parameters())
    assert hashlib.sha256(files["weights.caffemodel"].read_bytes()).hexdigest() in text
    assert report.sha256 == file.sha256 and report.sha256 in text
    assert "weights.caffemodel, sha256" in file.source
    hub = converted(files["pytorch_model.bin"], tmp_path)[0]
    assert hub.unused.keys() == {"roi_heads.box_predictor.bbox_pred", "num_batches_tracked"}


def test_what_is_not_known_is_said_and_what_changes_a_layer_is_refused(layers, tmp_path):
    arrays = detectron2_arrays(layers)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays | {"extra.weight": np.ones(3, np.float32)}))
    report = converted(tmp_path / "a.pkl", tmp_path)[0]
    assert report.unknown == {"extra": 1}
    assert "NOT KNOWN: extra (1 arrays)" in str(report)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays | {"backbone.stem.conv1.bias": np.ones(3, np.float32)}))
    with pytest.raises(InputError, match=r"backbone\.stem\.conv1\.bias belongs to a layer"):
        converted(tmp_path / "a.pkl", tmp_path)


@pytest.mark.parametrize("batches", [1, 0, 999.5])
def test_caffes_scale_factor_divides_means_and_variances(layers, tmp_path, batches):
    file = converted(write_caffe(tmp_path / "a.caffemodel", layers, batches), tmp_path)[1]
    weight, gamma, beta, mean, variance = layers["res3.0.conv2"]
    mean, variance = (mean, variance) if batches else (0 * mean, 0 * variance)
    scale = gamma / np.sqrt(variance + 1e-5)
    assert np.allclose(file.state["res3.0.conv2.weight"], weight * scale[:, None, None, None], rtol=1e-4)
    assert np.allclose(file.state["res3.0.conv2.bias"], beta - mean * scale, rtol=1e-4, atol=1e-6)


def test_caffes_first_way_to_write_shapes_is_read(layers, files, tmp_path):
    old = converted(write_caffe(tmp_path / "a.caffemodel", layers, old=True), tmp_path)[1]
    assert old.sha256 == converted(files["weights.caffemodel"], tmp_path)[1].sha256


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_protocol_are_read(layers, files, tmp_path, protocol):
    path = write_pickle(tmp_path / "a.pkl", layers, protocol)
    assert converted(path, tmp_path)[1].sha256 == converted(files["weights.pkl"], tmp_path)[1].sha256


def test_files_of_old_torch_and_safetensors_are_read(layers, files, tmp_path):
    wanted = converted(files["pytorch_model.bin"], tmp_path)[1].sha256
    content = torch.load(files["pytorch_model.bin"], weights_only=True)
    torch.save(content, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    save_file(content, tmp_path / "new.safetensors")
    assert {converted(tmp_path / name, tmp_path)[1].sha256 for name in ("old.bin", "new.safetensors")} == {wanted}


def test_anchors_are_put_into_caffes_order_by_what_the_file_says_they_are(layers, tmp_path):
    for order, boxes in (
        (SIZE_MAJOR, None),
        (SIZE_MAJOR, exact_anchors()),
        (SIZE_MAJOR, base_anchors(DetectorConfig())[np.argsort(SIZE_MAJOR)]),  # rounded, and around another centre
        (range(12), exact_anchors(range(12))),
        ([5, 0, 11, 3, 2, 1, 4, 10, 9, 8, 7, 6], exact_anchors([5, 0, 11, 3, 2, 1, 4, 10, 9, 8, 7, 6])),
    ):
        arrays = detectron2_arrays(layers, cell_anchors=boxes, order=list(order))
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays))
        state = converted(tmp_path / "a.pkl", tmp_path)[1].state
        assert np.allclose(state["rpn_deltas.weight"], layers["rpn_deltas"][0])
        both = layers["rpn_objectness"][0]
        assert np.allclose(state["rpn_objectness.weight"], both[12:] - both[:12], atol=1e-6)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(detectron2_arrays(layers, cell_anchors=exact_anchors() * 2)))
    with pytest.raises(InputError, match="not the anchors of the published model"):
        converted(tmp_path / "a.pkl", tmp_path)


@pytest.mark.skipif(not SHARED.exists(), reason="the shapes of the Hub's file are not here")
def test_the_hubs_file_has_all_arrays_in_the_shapes_expected():
    shapes = json.loads((SHARED / "detector" / "hf_layout_shapes.json").read_text())
    content = {name: np.broadcast_to(np.float32(1), shape) for name, shape in shapes.items()}
    content["proposal_generator.anchor_generator.cell_anchors.0"] = exact_anchors()
    arrays = Arrays("shapes", content)
    config, state = assemble(Detectron2(arrays))
    assert config == DetectorConfig()
    assert {name: tuple(array.shape) for name, array in state.items()} == {
        name: tuple(parameter.shape) for name, parameter in without_memory(config).state_dict().items()
    }
    left = {re.sub(r".*\.", "", name) for name, unused in arrays.left().items() if unused}
    assert all(arrays.left().values())
    assert left == {"num_batches_tracked", "weight", "bias"}  # the last two of bbox_pred


# ----------------------------------------------------------------------------------------- what is refused


class Malice:
    def __reduce__(self):
        return os.system, ("touch /tmp/never",)


OTHERS = {
    "jwyang": {"RCNN_base.0.weight": 1, "RCNN_rpn.RPN_Conv.weight": 1},
    "torchvision": {"backbone.body.conv1.weight": 1, "rpn.head.conv.weight": 1},
    "feature pyramid": {"backbone.fpn_lateral2.weight": 1, "roi_heads.box_head.fc1.weight": 1},
    "VinVL": {"module.backbone.body.stem.conv1.weight": 1},
    "LXMERT of the original release": {"module.bert.embeddings.word_embeddings.weight": 1},
    "run's checkpoint of an LXMERT": {
        "state_dict": {"model.lxmert.embeddings.word_embeddings.weight": torch.ones(1)}
    },
    "finds none": {"lxmert.embeddings.word_embeddings.weight": 1},
    "ResNet without a detector": {"conv1.weight": 1, "layer1.0.conv1.weight": 1},
    "unknown layout, with names such as a, b": {"a": 1, "b": 1},
}


@pytest.mark.parametrize("what", OTHERS)
def test_weights_of_another_layout_are_named(what, tmp_path):
    content = {name: torch.ones(1) if value == 1 else value for name, value in OTHERS[what].items()}
    (tmp_path / "a.pth").write_bytes(saved(content))
    with pytest.raises(InputError, match=f"(?s){what}.*Expected one of.*Caffe"):
        converted(tmp_path / "a.pth", tmp_path)


def test_other_models_of_the_same_projects_are_named(layers, tmp_path):
    arrays = detectron2_arrays(layers)
    without = {name: array for name, array in arrays.items() if "attr" not in name and "cls_embedding" not in name}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(without))
    with pytest.raises(InputError, match="without attributes"):
        converted(tmp_path / "a.pkl", tmp_path)
    bare = {part: array for part, array in layers.items() if part not in ("object_embedding", "attribute_score")}
    with pytest.raises(InputError, match="without attributes"):
        converted(write_caffe(tmp_path / "a.caffemodel", bare), tmp_path)
    anew = torch.load(write_milvlg(tmp_path / "a.pth", layers), weights_only=True)["model"]
    name = "proposal_generator.rpn_head.objectness_logits.weight"
    (tmp_path / "a.pth").write_bytes(saved(anew | {name: anew[name][:12]}))
    with pytest.raises(InputError, match="in detectron2's mode"):
        converted(tmp_path / "a.pth", tmp_path)


def test_what_is_no_weights_at_all_is_named(own, tmp_path):
    for content, what in (
        (b"<!DOCTYPE html><html>", "begins with '<!DOCTYPE'"),
        (b"version https://git-lfs.github.com/spec/v1", "pointer to a large file"),
        (b'name: "ResNet-101"\nlayer {', "network's description"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"", "no layer with weights"),
        (field(2, b"x"), "before 2015"),
        (caffe_layer("conv1", np.ones((2, 3))), "of another network"),
        (saved([1, 2]), "holds list"),
        (saved({"a": 1}), "its entry 'a' is no dense array"),
        (pickle.dumps({"model": {}}), "holds dict"),
    ):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(InputError, match=what):
            converted(tmp_path / "a", tmp_path)
    with pytest.raises(InputError, match="converted already"):
        converted(own, tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        converted(tmp_path / "nothing", tmp_path)


@pytest.mark.parametrize("save", [saved, pickle.dumps])
def test_a_pickle_that_would_run_something_is_refused(save, tmp_path):
    (tmp_path / "a").write_bytes(save({"model": {"backbone.stem.conv1.weight": Malice()}}))
    with pytest.raises(InputError, match=r"(?s)system.*could run any code and is not opened"):
        converted(tmp_path / "a", tmp_path)


@pytest.mark.parametrize("write", [write_caffe, write_pickle, write_hub, write_milvlg])
@pytest.mark.parametrize("part", ["stem", "res4.2.conv2", "res5.0.shortcut", "rpn_objectness", "attribute_score"])
def test_a_wrong_shape_is_named(write, part, layers, tmp_path):
    wrong = layers | {part: [np.repeat(layers[part][0], 2, axis=1), *layers[part][1:]]}
    with pytest.raises(InputError, match=r"(weight|:0) is \d+ x .*; expected"):
        converted(write(tmp_path / "a", wrong), tmp_path)
    assert list(tmp_path.glob("*.safetensors")) == []


def test_missing_arrays_and_numbers_that_are_none_are_named(layers, tmp_path):
    arrays = detectron2_arrays(layers)
    name = "backbone.res3.0.conv2.norm.running_var"
    for change, message in (
        ({name: None}, rf"{name} \(4\) is missing"),
        ({name: -arrays[name]}, r"res3\.0\.conv2\.weight holds numbers that are not finite"),
        ({name: arrays[name].astype(np.int64)}, f"{name} holds int64; expected floating-point"),
    ):
        changed = {key: array for key, array in (arrays | change).items() if array is not None}
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(changed))
        with pytest.raises(InputError, match=message):
            converted(tmp_path / "a.pkl", tmp_path)


def outer(content, chance):
    """Damage where names, shapes and lengths are, and not in the numbers, which tell nothing of it."""
    place = chance.randrange(0, max(len(content) - 400, 1))
    return content[:place] + damaged(content[place : place + 400], chance) + content[place + 400 :]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("change", [damaged, outer])
def test_damaged_weights_are_refused_in_our_words(name, change, layers, tmp_path):
    path = WRITERS[name](tmp_path / name, layers)
    survives(lambda source: converted(source, tmp_path), path, change, TRIES)


# ------------------------------------------------------------------------------------- names, file, command


@pytest.mark.skipif(not VOCABULARIES.exists(), reason="the published lists of names are not here")
def test_the_published_lists_are_recognised_and_their_first_synonym_counts(files, tmp_path):
    objects, attributes = (VOCABULARIES / f"{kind}_vocab.txt" for kind in ("objects", "attributes"))
    names = read_names(objects)
    assert (len(names), len(read_names(attributes))) == (1600, 400)
    assert names[0] == objects.read_text().split("\n")[0].split(",")[0]
    assert any("," in line for line in objects.read_text().split("\n"))
    with pytest.raises(InputError, match="1600 object names for a detector of 9 object classes"):
        converted(files["weights.pkl"], tmp_path, objects=objects)
    layers = published(replace(CONFIG, objects=1600, attributes=400))
    report, file = converted(
        write_pickle(tmp_path / "a.pkl", layers), tmp_path, objects=objects, attributes=attributes
    )
    assert file.object_names == names
    assert all("the published" in about for about in report.names)


def test_lists_of_names_are_checked(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes(b"cat,kitty\ndog\n")
    assert read_names(path) == ("cat", "dog")
    for content, message in ((b"cat\n\ndog", "line 2 is empty"), (b"", "line 1"), (b"\xff\xfe", "not UTF-8")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_names(path)


def test_the_command_converts_and_says_what_it_read(files, tmp_path, capsys):
    out = tmp_path / "folder" / "out.safetensors"
    (tmp_path / "objects.txt").write_text("\n".join(f"thing {i},x" for i in range(9)))
    source = str(files["weights.pth"])
    options = ["--name", "tiny", "--boxes", "10-100", "--objects", str(tmp_path / "objects.txt")]
    assert main([source, str(out), *options]) == 0
    said = capsys.readouterr().out
    assert "MILVLG" in said and "not the published list" in said and f"{out}: written" in said
    detector = Detector.open(out)
    assert (detector.name, detector.config.box_rule) == ("tiny", BoxRule(10, 100))
    assert detector.object_names[8] == "thing 8" and detector.attribute_names == ()
    assert detector.sha256 in said
    assert main([source, str(out)]) == 1
    assert "not the sizes of the detector of LXMERT's release. Give it a name" in capsys.readouterr().err
    assert main([source, str(out), "--boxes", "many"]) == 1
    assert "box rule 'many'" in capsys.readouterr().err
    before = files["weights.pth"].read_bytes()
    assert main([source, source, "--name", "tiny"]) == 1
    assert "is the published weights themselves" in capsys.readouterr().err
    assert files["weights.pth"].read_bytes() == before


def test_a_file_is_read_as_it_was_written(own):
    file = read_detector(own)
    assert (file.config, file.name, file.source) == (CONFIG, "tiny", "made up")
    network = tame(FasterRCNN(CONFIG))
    assert all(torch.equal(file.state[key], tensor) for key, tensor in network.state_dict().items())
    assert file.sha256 == Detector.open(own).sha256


def test_half_precision_is_kept_in_the_file_and_computed_in_float32(tmp_path):
    state = {key: tensor.half() for key, tensor in tame(FasterRCNN(CONFIG)).state_dict().items()}
    write_detector(tmp_path / "a.safetensors", CONFIG, state, name="half")
    assert load_file(tmp_path / "a.safetensors")["stem.weight"].dtype == torch.float16
    assert Detector.open(tmp_path / "a.safetensors").network.stem.weight.dtype == torch.float32


def test_the_hash_is_of_all_that_decides_over_the_features(tmp_path):
    state = tame(FasterRCNN(CONFIG)).state_dict()
    path = tmp_path / "a.safetensors"
    first = write_detector(path, CONFIG, state, name="a")
    assert write_detector(path, CONFIG, state, name="b", object_names=list("abcdefghi")) == first
    assert write_detector(path, replace(CONFIG, confidence=0.3), state, name="a") != first
    assert write_detector(path, CONFIG, state | {"stem.bias": state["stem.bias"] + 1}, name="a") != first


def test_what_does_not_fit_is_not_written(tmp_path):
    state = tame(FasterRCNN(CONFIG)).state_dict()
    path = tmp_path / "a.safetensors"
    for change, options, message in (
        ({"stem.bias": None}, {}, r"the weights stem\.bias \(3,\) are missing"),
        ({"x": torch.ones(2)}, {}, r"the weights x \(2,\) belong to no part"),
        ({"stem.bias": torch.ones(2)}, {}, r"stem\.bias is \(2,\); expected \(3,\)"),
        ({"stem.bias": torch.full((3,), torch.nan)}, {}, "not finite"),
        ({"stem.bias": torch.ones(3, dtype=torch.int32)}, {}, r"torch\.int32; expected float32"),
        ({}, {"object_names": ["a"]}, "1 object names for a detector of 9"),
        ({}, {"name": " "}, "needs a name"),
        ({}, {"source": "\ud800"}, "must be text"),
    ):
        changed = {key: tensor for key, tensor in (state | change).items() if tensor is not None}
        with pytest.raises(InputError, match=message):
            write_detector(path, CONFIG, changed, **{"name": "a", **options})
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change, message",
    [
        ({"widths": (1, 2, 3)}, "widths is .*; expected four whole numbers"),
        ({"objects": 0}, "objects is 0"),
        ({"confidence": 1.5}, "confidence is 1.5; expected a number from 0 to 1"),
        ({"pixel_mean": (1, 2, float("nan"))}, "pixel_mean"),
        ({"short_side": 2000}, "short_side 2000 is above long_side 1000"),
        ({"anchor_scales": ()}, "anchor_scales"),
        ({"proposals": True}, "proposals is True"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(CONFIG, **change)


def test_a_configuration_is_read_as_it_was_written():
    config = replace(CONFIG, box_rule=BoxRule(10, 100), anchor_scales=(1.5, 3))
    values = json.loads(json.dumps(config.to_dict()))
    assert DetectorConfig.from_dict(values) == config
    for change in ({"x": 1}, {"box_rule": 36}, {"blocks": "1111"}):
        with pytest.raises(InputError, match="detector configuration: "):
            DetectorConfig.from_dict(values | change)
    del values["objects"]
    with pytest.raises(InputError, match="objects is missing"):
        DetectorConfig.from_dict(values)


def test_a_file_of_another_kind_is_not_opened(files, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no detector"):
        Detector.open(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"no safetensors file.*python -m datamodules\.detector"):
        Detector.open(files["weights.pth"])
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"no detector's: its format is None"):
        Detector.open(tmp_path / "a.safetensors")


def header_mistaken(content, chance):
    """A mistake in what the file says of itself."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    metadata = header["__metadata__"]
    kind = chance.randrange(4)
    name = chance.choice(list(metadata))
    if kind == 0:
        del metadata[name]
    elif kind == 1:
        metadata[name] = str(chance.choice(VALUES)).encode(errors="replace").decode()
    elif kind == 2:
        config = json.loads(metadata["config"])
        config[chance.choice(list(config))] = chance.choice(VALUES)
        metadata["config"] = json.dumps(config)
    else:
        tensor = header[chance.choice([key for key in header if key != "__metadata__"])]
        tensor[chance.choice(list(tensor))] = chance.choice(VALUES)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


@pytest.mark.parametrize("change", [damaged, header_mistaken])
def test_a_damaged_file_is_refused_in_our_words(own, change):
    good = read_detector(own)

    def verify(found):
        assert all(torch.equal(found.state[key], tensor) for key, tensor in good.state.items())

    survives(read_detector, own, change, 4 * TRIES, verify=verify)
