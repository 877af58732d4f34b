"""The toy's detector: what it finds in pictures of scenes that it has not seen, and who finds it."""

import copy
from random import Random

import numpy as np
import pytest
import torch

from datamodules.detector import Detector, FasterRCNN, overlap
from datamodules.detector.resizing import resize
from datamodules.stores import RegionStore
from datamodules.toy import ToyVqaDataModule, detector_for, world
from datamodules.toy.detector import PATH, detector_name
from datamodules.toy.train_detector import CONFIG, SCALE, batches, folded, initialised, losses, main, prepare
from datamodules.toy.world import ATTRIBUTE_NAMES, BACKGROUNDS, OBJECT_NAMES, as_arrays, draw_scenes, render
from lxmert.ask import Eyes

SCENES = 60


@pytest.fixture(scope="module")
def seen():
    """Of each scene of the toy's minival: codes and boxes of its things, what was detected, overlaps of both."""
    detector = Detector.open(PATH)
    found = []
    for scene in draw_scenes([""] * SCENES, Random("toy 1 minival")):
        detections = detector.detect(np.asarray(render(scene))[..., ::-1].copy())
        *codes, boxes = (array[0, : len(scene.things)] for array in as_arrays([scene]))
        ground = np.full(len(boxes), BACKGROUNDS.index(scene.background))
        found.append(((*codes, ground), detections, overlap(detections.boxes, boxes.astype(np.float32))))
    return found


def cosine(one, other):
    return (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)


def test_a_picture_has_sixteen_regions(seen):
    assert {len(detections) for _, detections, _ in seen} == {16}


def test_nearly_all_things_have_a_region(seen):
    best = np.concatenate([overlaps.max(0) for *_, overlaps in seen])
    assert (best > 0.5).mean() >= 0.99
    assert best.mean() >= 0.8


def test_a_things_region_is_called_by_its_shape_and_colour(seen):
    right = []
    for (shape, color, *_), detections, overlaps in seen:
        labels, best = detections.labels, overlaps.argmax(0)
        right.append([labels["object_ids"][best] == shape, labels["attribute_ids"][best] == color])
    shapes, colors = np.concatenate(right, 1).mean(1)
    assert shapes >= 0.97 and colors >= 0.97


def test_a_things_features_are_those_that_the_stores_make_up(seen):
    looks = world.Detector()
    alike = [
        cosine(looks.expect(np.full(len(codes[0]), 0.93), *codes), detections.features[overlaps.argmax(0)])
        for codes, detections, overlaps in seen
    ]
    assert np.concatenate(alike).mean() >= 0.9


def test_regions_beside_the_things_look_like_background(seen):
    looks = world.Detector()
    alike, sure = [], []
    for codes, detections, overlaps in seen:
        beside = overlaps.max(1) < 0.2
        pale = looks.expect(np.zeros(1), *(code[:1] for code in codes))
        alike.append(cosine(pale, detections.features[beside]))
        sure.append(detections.labels["object_ids"][beside] == OBJECT_NAMES.index("background"))
    assert np.concatenate(alike).mean() >= 0.9
    assert np.concatenate(sure).mean() >= 0.9


def test_it_is_small_and_names_what_it_sees():
    detector = Detector.open(PATH)
    assert PATH.stat().st_size <= 1 << 20
    assert (detector.object_names, detector.attribute_names) == (OBJECT_NAMES, ATTRIBUTE_NAMES)
    assert detector.name == detector_name()


def test_what_was_trained_on_a_toy_finds_it_and_nothing_else_does(tmp_path):
    size = dict.fromkeys(("train", "minival", "nominival", "test", "questions"), 2)
    data = ToyVqaDataModule(tmp_path / "toy", stores=tmp_path / "stores", world={**size, "pictures": 0})
    data.prepare_data()
    data.setup("test")
    assert detector_for(data.detector) == PATH
    store = RegionStore(data.release.region_store("mscoco_imgfeat/val2014_obj36"))
    assert store.contract["detector"] == detector_name()
    assert detector_for(f"{detector_name()} [weights 0123456789ab, boxes 16]") == PATH  # as extraction names it
    others = [None, "", detector_name(seed=2), detector_name(feature_dim=64), "bottom-up-attention"]
    assert [detector_for(name) for name in others] == [None] * len(others)


def test_a_model_of_the_toy_looks_at_pictures_with_it():
    scene = next(draw_scenes(["scene"], Random("one scene")))
    seen = Eyes(128, detector_name()).see(render(scene))
    names = {seen.name_of(region) for region in range(len(seen))}
    assert {f"{thing.color} {thing.shape}" for thing in scene.things} <= names
    assert Eyes(128, "another").detector is None


def test_training_sees_pictures_as_detection_does():
    for scene in list(draw_scenes([""] * 6, Random("sizes"))):
        trained = prepare([scene]).images[0]
        detected = resize(np.asarray(render(scene))[..., ::-1], CONFIG).image
        assert trained.shape == detected.shape
        np.testing.assert_allclose(trained, detected, atol=0.01)  # of 255


def test_normalisation_is_folded_into_the_convolutions():
    scenes, looks, network = next(batches("some scenes")), world.Detector(), initialised()
    losses(network, scenes, looks, np.random.default_rng(0))  # moves the statistics
    plain = folded(copy.deepcopy(network))
    network.eval()
    pooled = torch.rand(4, 96, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(
            plain.backbone(scenes.images), network.backbone(scenes.images), atol=1e-3, rtol=1e-3
        )
        features = network.features(pooled)
        torch.testing.assert_close(plain.features(pooled), SCALE * features)
        for one, other in zip(plain.heads(SCALE * features), network.heads(features), strict=True):
            torch.testing.assert_close(one, other)
    assert plain.state_dict().keys() == FasterRCNN(CONFIG).state_dict().keys()


def test_training_writes_a_detector_and_tells_its_errors(tmp_path, capsys):
    assert main([str(tmp_path / "detector.safetensors"), "--steps", "2"]) == 0
    assert Detector.open(tmp_path / "detector.safetensors").name == detector_name()
    assert "features" in capsys.readouterr().out
    assert main([str(tmp_path / "none" / "detector.safetensors")]) == 1
    assert "no such folder" in capsys.readouterr().err
