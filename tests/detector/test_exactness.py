"""Each step of the detector against loops written from what Caffe does, and pinned numbers."""

import base64
import csv
import math
import sys

import cv2
import numpy as np
import pytest
import torch
from detectors import CONFIG, tame
from hypothesis import given
from hypothesis import strategies as st
from runs import SHARED
from torch import nn

from datamodules.detector import BoxRule, DetectorConfig, DetectorFile, FasterRCNN
from datamodules.detector.detector import Detector
from datamodules.detector.network import without_memory
from datamodules.detector.pooling import RegionPool, bins, to_cells
from datamodules.detector.proposals import anchors, base_anchors, decode, overlap, propose, suppress
from datamodules.detector.resizing import resize
from datamodules.detector.selection import confidences, select
from datamodules.detector.winograd import WinogradConv
from lxmert.files import InputError

f32 = np.float32
COCO = SHARED / "coco10"


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# ------------------------------------------------------------------------------------------------ resizing


@pytest.mark.parametrize(
    "height, width",
    [
        (427, 640),
        (640, 407),
        (360, 640),
        (480, 640),
        (333, 500),
        (900, 1200),
        (150, 1000),
        (37, 23),
        (7, 10),
        (1, 1),
    ],
)
def test_resizing_is_that_of_opencv(height, width):
    config = DetectorConfig()
    picture = noise(height, width, 3)
    ours, scale = resize(picture, config)
    centred = picture.astype(f32) - np.array([[[102.9801, 115.9465, 122.7717]]], f32)
    theirs = cv2.resize(centred, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    assert ours.shape == (3, *theirs.shape[:2])
    assert np.abs(ours.transpose(1, 2, 0) - theirs).max() < 1e-4  # of 255 grey levels


def test_the_short_side_becomes_600_unless_the_long_one_would_be_above_1000():
    for (height, width), wanted in {
        **{(480, 640): (600, 800), (640, 480): (800, 600), (427, 640): (600, 899), (100, 1000): (100, 1000)},
        **{(1, 1): (600, 600), (300, 500): (600, 1000), (300, 501): (599, 1000)},
    }.items():
        image, scale = resize(np.zeros((height, width, 3), np.uint8), DetectorConfig())
        assert image.shape[1:] == wanted
        assert scale in (600 / min(height, width), 1000 / max(height, width))


def test_a_picture_of_108_megapixels_is_resized_without_being_copied():
    one_pixel = np.broadcast_to(np.array([10, 20, 30], np.uint8), (9000, 12000, 3))
    image, _ = resize(one_pixel, DetectorConfig())
    assert image.shape == (3, 600, 800)
    assert np.allclose(image[:, 300, 400], np.array([10, 20, 30]) - DetectorConfig().pixel_mean, atol=1e-4)


# ----------------------------------------------------------------------------------------------- proposals


def test_the_anchors_are_those_of_the_original():
    assert base_anchors(DetectorConfig()).tolist() == [
        [-38, -16, 53, 31], [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
        [-24, -24, 39, 39], [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
        [-14, -36, 29, 51], [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
    ]  # fmt: skip
    found = anchors(DetectorConfig(), 3, 5)
    for y, x, a in [(0, 0, 0), (2, 4, 11), (1, 3, 7)]:
        assert (
            found[(y * 5 + x) * 12 + a].tolist()
            == (base_anchors(DetectorConfig())[a] + np.array([x, y, x, y]) * 16).tolist()
        )


def literal_decode(box, delta):
    w, h = box[2] - box[0] + f32(1), box[3] - box[1] + f32(1)
    cx, cy = box[0] + f32(0.5) * w, box[1] + f32(0.5) * h
    cx, cy = delta[0] * w + cx, delta[1] * h + cy
    w, h = np.exp(delta[2]) * w, np.exp(delta[3]) * h
    return [cx - f32(0.5) * w, cy - f32(0.5) * h, cx + f32(0.5) * w, cy + f32(0.5) * h]


def literal_iou(a, b):
    w = max(f32(0), min(a[2], b[2]) - max(a[0], b[0]) + f32(1))
    h = max(f32(0), min(a[3], b[3]) - max(a[1], b[1]) + f32(1))
    areas = [(c[2] - c[0] + f32(1)) * (c[3] - c[1] + f32(1)) for c in (a, b)]
    return (w * h) / (areas[0] + areas[1] - w * h)


def literal_nms(boxes, order, threshold):
    suppressed, kept = set(), []
    for place, i in enumerate(order):
        if i in suppressed:
            continue
        kept.append(i)
        for j in order[place + 1 :]:
            if float(literal_iou(boxes[i], boxes[j])) >= threshold:
                suppressed.add(j)
    return kept


def literal_proposals(logits, deltas, h, w, height, width, scale, config):
    """Section by section as the original's proposal layer goes."""
    found = []
    for y in range(h):
        for x in range(w):
            for a, anchor in enumerate(base_anchors(config)):
                number = (y * w + x) * config.anchors + a
                box = literal_decode(anchor + np.array([16 * x, 16 * y] * 2, f32), deltas[number])
                box = [
                    max(f32(0), min(c, f32(most)))
                    for c, most in zip(box, [width - 1, height - 1] * 2, strict=True)
                ]
                if min(box[2] - box[0] + f32(1), box[3] - box[1] + f32(1)) >= f32(16 * scale):
                    found.append((logits[number], box))
    found.sort(key=lambda each: -each[0])
    boxes = np.array([box for _, box in found[: config.proposals_scored]], f32).reshape(-1, 4)
    kept = literal_nms(boxes, range(len(boxes)), config.proposal_overlap)
    return boxes[kept[: config.proposals]]


@pytest.mark.parametrize("scale, scored, most", [(0.4, 6000, 300), (1.25, 100, 300), (2.0, 6000, 7)])
def test_proposals_are_those_of_the_literal_loops(scale, scored, most):
    config = DetectorConfig(proposals_scored=scored, proposals=most)
    make = np.random.default_rng(3)
    h, w, height, width = 4, 6, 64, 90
    logits = make.normal(size=h * w * 12).astype(f32)
    deltas = make.normal(0, 0.4, (h * w * 12, 4)).astype(f32)
    ours = propose(torch.from_numpy(logits), torch.from_numpy(deltas), (h, w), (height, width), scale, config)
    theirs = literal_proposals(logits, deltas, h, w, height, width, scale, config)
    assert 0 < len(theirs) <= most
    assert np.allclose(ours.numpy(), theirs, atol=1e-4)
    assert len(ours) == len(theirs)


def test_stretching_is_not_limited():
    wide = decode(torch.tensor([[0.0, 0, 15, 15]]), torch.tensor([[0.0, 0, 9, 200]]))
    assert wide[0, 2] - wide[0, 0] == pytest.approx(16 * math.exp(9), rel=1e-5)
    assert wide[0, 3] == math.inf
    logits, deltas = torch.zeros(12), torch.full((12, 4), 200.0)
    assert len(propose(logits, deltas, (1, 1), (600, 600), 1.0, DetectorConfig())) <= 1


whole_boxes = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=25
).map(lambda found: np.array([(x, y, x + w, y + h) for x, y, w, h in found], f32))


@given(whole_boxes, st.sampled_from([0.3, 0.5, 0.7, 0.0, 1.0]))
def test_suppression_is_that_of_the_literal_loop(boxes, threshold):
    assert suppress(boxes, threshold, len(boxes)).tolist() == literal_nms(boxes, range(len(boxes)), threshold)


def test_an_overlap_that_is_the_threshold_suppresses():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 4]], f32)  # half of the first
    assert overlap(boxes[0], boxes).tolist() == [1, 0.5]
    assert suppress(boxes, 0.5, 9).tolist() == [0]
    assert suppress(boxes, 0.50001, 9).tolist() == [0, 1]


# ------------------------------------------------------------------------------------------------- pooling


def literal_bins(length, size=14):
    step = f32(length) / f32(size)
    return [(math.floor(f32(p) * step), math.ceil(f32(p + 1) * step)) for p in range(size)]


def test_bins_are_counted_in_float32():
    other = {}
    for length in range(1, 64):
        begin, end = bins(torch.tensor([0]), torch.tensor([length - 1]), 14, 1000)
        found = list(zip(begin[0].tolist(), end[0].tolist(), strict=True))
        assert found == literal_bins(length)
        exact = [(p * length // 14, -(-(p + 1) * length // 14)) for p in range(14)]
        if found != exact:
            other[length] = [(p, a, b) for p, (a, b) in enumerate(zip(found, exact, strict=True)) if a != b]
    assert other == {57: [(13, (52, 58), (52, 57))], 62: [(7, (30, 36), (31, 36))]}


def test_cells_are_rounded_as_c_does():
    pixels = torch.tensor([0, 7.99, 8, 23.9, 24, 40, 56, 799, -8, -7.9, 7.9999995])
    assert to_cells(pixels, 16).tolist() == [0, 0, 1, 1, 2, 3, 4, 50, -1, 0, 0]


def literal_pool(feature_map, box, size, stride=16):
    channels, height, width = feature_map.shape
    left, top, right, bottom = (math.floor(c / stride + 0.5) for c in box.tolist())
    rows = literal_bins(max(bottom - top + 1, 1), size)
    columns = literal_bins(max(right - left + 1, 1), size)
    found = np.zeros((channels, size, size), f32)
    for p, (y0, y1) in enumerate(rows):
        for q, (x0, x1) in enumerate(columns):
            y0c, y1c = (min(max(y + top, 0), height) for y in (y0, y1))
            x0c, x1c = (min(max(x + left, 0), width) for x in (x0, x1))
            if y1c > y0c and x1c > x0c:
                found[:, p, q] = feature_map[:, y0c:y1c, x0c:x1c].max((1, 2))
    return found


@pytest.mark.parametrize("height, width, size", [(38, 50, 14), (38, 63, 14), (62, 57, 14), (9, 13, 7), (1, 3, 4)])
def test_pooling_is_that_of_the_literal_loop(height, width, size):
    make = np.random.default_rng(height)
    feature_map = make.normal(size=(3, height, width)).astype(f32)
    corners = make.uniform(0, 1, (40, 2, 2)) * (width * 16 - 1, height * 16 - 1)
    boxes = np.sort(corners, axis=1).reshape(-1, 4)
    # The whole picture ends one cell beyond the map; a point has a cell.
    boxes = np.vstack([boxes, [0, 0, width * 16 - 1, height * 16 - 1], [20, 8, 20, 8]]).astype(f32)
    ours = RegionPool(torch.from_numpy(feature_map)[None], size, 16)(torch.from_numpy(boxes))
    for box, found in zip(boxes, ours.numpy(), strict=True):
        assert np.array_equal(found, literal_pool(feature_map, box, size))


def test_a_bin_beyond_the_map_is_empty():
    pooled = RegionPool(torch.ones(1, 1, 2, 2), 14, 16)(torch.tensor([[31.0, 0, 31, 31], [0.0, 0, 15, 15]]))
    assert pooled[0].sum() == 0  # 31 / 16 is rounded to the third cell of two
    assert pooled[1].min() == 1


def test_pooling_passes_gradients_to_the_maxima_alone():
    feature_map = torch.randn(1, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[0.0, 0, 111, 95], [17, 33, 60, 90]])
    assert torch.autograd.gradcheck(lambda each: RegionPool(each, 3, 16)(boxes), feature_map)


# ------------------------------------------------------------------------------------------------- network


def test_the_map_has_the_original_size_and_pools_beyond_the_last_whole_window():
    network = FasterRCNN(CONFIG)
    sizes = {(600, 800): (38, 50), (600, 899): (38, 57), (600, 1000): (38, 63), (593, 601): (37, 38)}
    for (height, width), wanted in sizes.items():
        stem = [(side + 6 - 7) // 2 + 1 for side in (height, width)]
        pooled = [math.ceil((side - 3) / 2) + 1 for side in stem]  # Caffe's pooling rounds up
        assert tuple(math.ceil(side / 4) for side in pooled) == wanted
        found = without_memory(CONFIG).backbone(torch.empty(1, 3, height, width, device="meta")).shape
        assert found == (1, CONFIG.widths[2] * 4, *wanted)
    x = torch.arange(4.0)[None, None, None].expand(1, 1, 4, 4)
    assert network.res2[0].shortcut is not None
    assert torch.nn.functional.max_pool2d(x, 3, 2, ceil_mode=True).shape == (1, 1, 2, 2)


def test_the_attribute_head_is_told_the_best_class_even_if_it_is_background():
    network = tame(FasterRCNN(CONFIG))
    network.object_embedding.weight.normal_(0, 5)
    network.object_score.bias[0] = 100
    features = torch.rand(4, CONFIG.feature_dim)
    scores, attributes = network.heads(features)
    assert (scores.argmax(1) == 0).all()
    assert torch.equal(attributes, network.heads(features, torch.zeros(4, dtype=torch.long))[1])
    assert not torch.allclose(attributes, network.heads(features, torch.ones(4, dtype=torch.long))[1])


def test_the_first_convolution_of_a_block_has_the_stride_and_the_last_stage_is_dilated():
    network = FasterRCNN(DetectorConfig(blocks=(1, 1, 1, 3)))
    strides = {name: module.stride for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    two = {name for name, stride in strides.items() if stride == (2, 2)}
    assert two == {"stem", "res3.0.conv1", "res3.0.shortcut", "res4.0.conv1", "res4.0.shortcut"}
    assert all(block.conv2.dilation == block.conv2.padding == (2, 2) for block in network.res5)
    assert network.config.feature_dim == 2048


@pytest.mark.parametrize("dilation, size", [(2, 14), (1, 5), (2, 7), (1, 8), (3, 8), (2, 1), (4, 3)])
def test_winograds_convolution_is_the_direct_one(dilation, size):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, padding=dilation, dilation=dilation).requires_grad_(False)
    x = torch.randn(2, 3, size, size)
    assert torch.allclose(WinogradConv(conv, size)(x), conv(x), atol=2e-5)


def test_a_wide_detector_computes_the_same_with_winograds_convolution():
    config = DetectorConfig(blocks=(1, 1, 1, 2), widths=(2, 2, 2, 256), expansion=1, roi_size=7)
    network = tame(FasterRCNN(config))
    wide = Detector(DetectorFile("wide", config, network.state_dict())).network
    assert all(isinstance(block.conv2, WinogradConv) for block in wide.res5)
    pooled = torch.rand(3, 2, 7, 7)
    assert torch.allclose(wide.features(pooled), network.features(pooled), rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------------------------- selection


def literal_confidences(boxes, probabilities, threshold):
    best = np.zeros(len(boxes))
    for c in range(probabilities.shape[1]):
        order = np.argsort(-probabilities[:, c], kind="stable").tolist()
        for i in literal_nms(boxes, order, threshold):
            best[i] = max(best[i], probabilities[i, c])
    return best


@given(whole_boxes, st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_selection_is_that_of_a_loop_over_classes(boxes, seed, classes):
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(classes + 1), len(boxes))[:, 1:].astype(f32)
    ours = confidences(boxes, probabilities, 0.3)
    assert np.array_equal(ours, literal_confidences(boxes, probabilities, 0.3).astype(f32))


def test_as_many_boxes_as_the_rule_says():
    sure = np.array([0.1, 0.9, 0.2, 0.0, 0.5, 0.3], f32)
    assert select(sure, BoxRule(4, 4), 0.2).tolist() == [1, 2, 4, 5]  # just as many: in their order
    assert select(sure, BoxRule(3, 3), 0.2).tolist() == [1, 4, 5]  # too many: the best first
    assert select(sure, BoxRule(5, 5), 0.2).tolist() == [1, 4, 5, 2, 0]  # too few
    assert select(sure, BoxRule(1, 6), 0.2).tolist() == [1, 2, 4, 5]
    assert select(sure, BoxRule(1, 2), 0.2).tolist() == [1, 4]
    assert select(sure, BoxRule(5, 6), 0.2).tolist() == [1, 4, 5, 2, 0]
    assert select(sure, BoxRule(36, 36), 0.2).tolist() == [1, 4, 5, 2, 0, 3]  # all there are


def test_a_box_rule_is_read_and_written():
    assert [str(BoxRule.parse(text)) for text in ("36", "10-100", "5-5")] == ["36", "10-100", "5"]
    for wrong in ("", "0", "100-10", "1-2-3", "-1", "x", "1e3", "9999999"):
        with pytest.raises(InputError, match="box rule"):
            BoxRule.parse(wrong)


# --------------------------------------------------------------------------------------------- all together


@pytest.fixture(scope="module")
def detector():
    config = DetectorConfig(
        **{"stem_width": 4, "blocks": (1, 1, 1, 1), "widths": (4, 4, 4, 6), "rpn_width": 8, "objects": 9},
        **{"attributes": 8, "embedding_width": 4, "attribute_width": 11, "short_side": 96, "long_side": 160},
        **{
            "proposals_scored": 200,
            "proposals": 40,
            "proposal_overlap": 0.9,
            "roi_size": 5,
            "box_rule": BoxRule(12, 12),
        },
    )
    return Detector(DetectorFile("tiny", config, tame(FasterRCNN(config)).state_dict()))


def test_a_picture_goes_through_all_steps_as_through_the_loops(detector):
    config, network = detector.config, detector.network
    picture = noise(70, 100, 3)
    image, scale = resize(picture, config)
    feature_map = network.backbone(torch.from_numpy(image)[None])
    logits, deltas = (each.numpy() for each in network.rpn(feature_map))
    regions = literal_proposals(logits, deltas, *feature_map.shape[2:], *image.shape[1:], scale, config)
    assert 12 < len(regions) <= 40
    pooled = [literal_pool(feature_map[0].numpy(), box, config.roi_size) for box in regions]
    features = network.res5(torch.from_numpy(np.stack(pooled))).mean((2, 3))
    scores = network.object_score(features)
    told = torch.cat([features, network.object_embedding.weight[scores.argmax(1)]], 1)
    attributes = network.attribute_score(network.attribute_hidden(told).relu()).softmax(1)[:, 1:].numpy()
    objects = scores.softmax(1)[:, 1:].numpy()
    boxes = regions / f32(scale)
    sure = literal_confidences(boxes, objects, 0.3)
    kept = np.flatnonzero(sure >= 0.2)
    kept = kept if len(kept) == 12 else np.argsort(-sure, kind="stable")[:12]

    found = detector.detect(picture)
    assert (len(found), found.size) == (12, (100, 70))
    assert np.allclose(found.boxes, boxes[kept], atol=1e-3)
    assert np.allclose(found.features, features.numpy()[kept], atol=1e-5)
    assert found.features.min() >= 0
    assert found.labels["object_ids"].tolist() == objects[kept].argmax(1).tolist()
    assert np.allclose(found.labels["object_conf"], objects[kept].max(1), atol=1e-6)
    assert found.labels["attribute_ids"].tolist() == attributes[kept].argmax(1).tolist()
    assert np.allclose(found.labels["attribute_conf"], attributes[kept].max(1), atol=1e-6)


def test_given_boxes_are_described_all_and_in_their_order(detector):
    picture = noise(70, 100, 3)
    found = detector.detect(picture)
    boxes = found.boxes[::-1]
    given_boxes = detector.detect(picture, BoxRule(1, 1), boxes=boxes)
    assert np.array_equal(given_boxes.boxes, boxes)
    assert np.allclose(given_boxes.features, found.features[::-1], atol=1e-5)
    assert given_boxes.labels["object_ids"].tolist() == found.labels["object_ids"][::-1].tolist()


def test_a_picture_is_detected_alike_every_time_and_by_any_rule(detector):
    picture = noise(50, 200, 3)
    first, again = (detector.detect(picture, BoxRule.parse("3-20")) for _ in range(2))
    assert 3 <= len(first) <= 20
    assert np.array_equal(first.features, again.features)
    assert np.array_equal(first.boxes, again.boxes)


@pytest.mark.parametrize("height, width", [(1, 1), (15, 90), (9, 9)])
def test_a_picture_that_is_smaller_than_any_proposal_is_its_one_region(detector, height, width):
    found = detector.detect(noise(height, width, 3))
    assert len(found) == 1
    assert found.boxes[0, :2].tolist() == [0, 0]
    assert (found.boxes[0, 2:] <= (width, height)).all()
    assert (found.boxes[0, 2:] > (width - 1.1, height - 1.1)).all()


def test_what_cannot_be_looked_at_is_refused(detector):
    with pytest.raises(InputError, match=r"3000 x 10 pixels is too long and thin: resized to 160 x 1"):
        detector.detect(np.zeros((10, 3000, 3), np.uint8))
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="expected uint8"):
            detector.detect(wrong)
    for box in ([0, 0, 101, 5], [5, 0, 4, 5], [-1, 0, 4, 5], [0, 0, math.nan, 5]):
        with pytest.raises(InputError, match=r"box 1 is .* of a picture of 100 x 70"):
            detector.detect(noise(70, 100, 3), boxes=np.array([[0, 0, 5, 5], box]))
    with pytest.raises(InputError, match="one box or more"):
        detector.detect(noise(70, 100, 3), boxes=np.zeros((0, 4)))


# ------------------------------------------------------------------------------------------- real regions


@pytest.mark.skipif(not COCO.exists(), reason="the ten real pictures' regions are not here")
def test_released_regions_are_as_these_rules_make_them():
    csv.field_size_limit(sys.maxsize)
    names = ["img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf", "num_boxes"]
    with (COCO / "train2014_obj36.tsv").open() as file:
        rows = list(csv.DictReader(file, [*names, "boxes", "features"], delimiter="\t"))
    assert len(rows) == 10
    unordered = 0
    for row in rows:
        height, width = int(row["img_h"]), int(row["img_w"])
        boxes, features, sure = (
            np.frombuffer(base64.b64decode(row[name]), f32) for name in ("boxes", "features", "objects_conf")
        )
        boxes, features = boxes.reshape(36, 4), features.reshape(36, 2048)
        image, scale = resize(np.zeros((height, width, 3), np.uint8), DetectorConfig())
        resized = boxes * f32(scale)
        # Clipped to the last pixel of the resized picture, and not to its side.
        assert resized.max(0)[2:] == pytest.approx([image.shape[2] - 1, image.shape[1] - 1], abs=1e-3)
        assert (resized[:, 2:] - resized[:, :2] + 1).min() >= 16 * scale - 1e-3
        between = overlap(resized, resized)[~np.eye(36, dtype=bool)]
        assert 0.3 < between.max() < 0.7  # suppressed among proposals, not again among all classes together
        assert len(select(np.ones(36, f32), BoxRule(), 0.2)) == 36
        unordered += (np.diff(sure) > 0).any()
        assert features.min() == 0
        assert 0.2 < (features == 0).mean() < 0.4
    assert unordered == 10  # ordered by a confidence that is not the one written
