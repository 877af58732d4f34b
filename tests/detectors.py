"""Small detectors with random weights, and the files that the published weights come in, made from them."""

import io
import pickle

import numpy as np
import torch

from datamodules.detector import DetectorConfig, FasterRCNN

# Different numbers everywhere, so that no two can be confused without a shape error.
CONFIG = DetectorConfig(
    stem_width=3,
    blocks=(2, 1, 3, 2),
    widths=(2, 4, 5, 7),
    rpn_width=6,
    objects=9,
    attributes=8,
    embedding_width=4,
    attribute_width=11,
)
BRANCHES = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
ANCHORS = 12
# Of Caffe's anchors, ratio by ratio, each one's place where detectron2 goes size by size.
SIZE_MAJOR = [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]


def tame(network, seed=0):
    """Give `network` random weights with which its numbers stay near 1 and its proposals near their anchors."""
    torch.manual_seed(seed)
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
            torch.nn.init.normal_(module.bias, std=0.1)
            if name == "stem":
                module.weight.data /= 64  # of grey levels
            if name.endswith("conv3"):  # or each block doubles its input
                module.weight.data *= 0.2
    torch.nn.init.normal_(network.object_embedding.weight)
    for name in ("rpn_objectness", "rpn_deltas"):
        module = getattr(network, name)
        module.weight.data *= 0.1
        module.bias.data *= 0.5
    return network.requires_grad_(False).eval()


def published(config=CONFIG, seed=0):
    """Weights as Caffe keeps them: layer -> arrays; gamma, beta, mean, variance after a convolution's weight."""
    make = np.random.default_rng(seed)

    def random(*shape):
        return make.normal(0, 0.3, shape).astype(np.float32)

    layers = {}
    for name, parameter in FasterRCNN(config).named_parameters():
        if name.startswith(("stem", "res")) and name.endswith("weight"):
            n = len(parameter)
            gamma, variance = make.uniform(0.5, 1.5, (2, n)).astype(np.float32)
            layers[name.removesuffix(".weight")] = [
                random(*parameter.shape),
                gamma,
                random(n),
                random(n),
                variance,
            ]
        elif name.startswith("rpn_objectness"):  # background, then foreground
            layers.setdefault("rpn_objectness", []).append(random(2 * ANCHORS, *parameter.shape[1:]))
        elif not name.startswith(("stem", "res")):
            layers.setdefault(name.rpartition(".")[0], []).append(random(*parameter.shape))
    regression = 4 * (config.objects + 1)
    layers["bbox_pred"] = [random(regression, config.feature_dim), random(regression)]
    return layers


# Caffe


def varint(number):
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array, old=False):
    array = np.asarray(array, "<f4")
    if old:
        sides = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(varint(i << 3) + varint(side) for i, side in enumerate(sides, 1))
    else:
        shape = field(7, field(1, b"".join(map(varint, array.shape))))
    return shape + field(5, array.tobytes())


def caffe_layer(name, *arrays, old=False):
    blobs = b"".join(field(7, blob(array, old)) for array in arrays)
    return field(100, field(1, name.encode()) + field(2, b"Layer") + blobs + varint(10 << 3) + varint(1))


def caffe_names(part):
    if part == "stem":
        return "conv1", "bn_conv1", "scale_conv1"
    stage, block, branch = part.split(".")
    block = "abc"[int(block)] if stage in ("res2", "res5") or block == "0" else f"b{block}"
    return tuple(f"{kind}{stage[3:]}{block}_{BRANCHES[branch]}" for kind in ("res", "bn", "scale"))


def write_caffe(path, layers, batches=2.5, old=False):
    """A .caffemodel; `batches` is the factor by which means and variances are kept too large."""
    names = {
        **{"rpn_conv": "rpn_conv/3x3", "rpn_objectness": "rpn_cls_score", "rpn_deltas": "rpn_bbox_pred"},
        **{"object_score": "cls_score", "object_embedding": "cls_embedding", "attribute_hidden": "fc_attr"},
        **{"attribute_score": "attr_score", "bbox_pred": "bbox_pred"},
    }
    content = field(1, b"network") + caffe_layer("data")
    for part, arrays in layers.items():
        if part in names:
            content += caffe_layer(names[part], *arrays, old=old)
        else:
            conv, bn, scale = caffe_names(part)
            weight, gamma, beta, mean, variance = arrays
            content += caffe_layer(conv, weight, old=old)
            content += caffe_layer(bn, mean * batches, variance * batches, [batches], old=old)
            content += caffe_layer(scale, gamma, beta, old=old)
    content += caffe_layer("heatmap_conv1", np.zeros((2, 3)), np.zeros(2), old=old)
    path.write_bytes(content)
    return path


# detectron2's names


def backbone_arrays(layers, counted):
    """The convolutions under detectron2's names, with the counter of trained batches or without."""
    found = {}
    for part, arrays in layers.items():
        if part.startswith(("stem", "res")):
            name = {"s": "backbone.stem.conv1", "5": f"roi_heads.{part}"}.get(part[0 if part == "stem" else 3])
            name = name or f"backbone.{part}"
            ends = ["weight", *(f"norm.{end}" for end in ("weight", "bias", "running_mean", "running_var"))]
            found |= {f"{name}.{end}": array for end, array in zip(ends, arrays, strict=True)}
            if counted:
                found[f"{name}.norm.num_batches_tracked"] = np.int64(0)
    return found


def named(layers, names):
    return {
        f"{name}.{end}": array
        for part, name in names.items()
        for end, array in zip(("weight", "bias"), layers[part], strict=False)
    }


def detectron2_arrays(layers, counted=False, cell_anchors=None, order=SIZE_MAJOR):
    """As the converter of py-bottom-up-attention left them: background last, one logit an anchor, size by size."""
    changed = dict(layers)
    place = np.argsort(order)  # which of Caffe's anchors is the first of theirs, the second, ...
    changed["rpn_objectness"] = [(array[ANCHORS:] - array[:ANCHORS])[place] for array in layers["rpn_objectness"]]
    changed["rpn_deltas"] = [
        array.reshape(ANCHORS, 4, *array.shape[1:])[place].reshape(array.shape) for array in layers["rpn_deltas"]
    ]
    for part in ("object_score", "object_embedding", "attribute_score"):
        changed[part] = [np.concatenate([array[1:], array[:1]]) for array in layers[part]]
    changed["bbox_pred"] = [array[4:] for array in layers["bbox_pred"]]
    names = {
        **{"rpn_conv": "proposal_generator.rpn_head.conv"},
        **{"rpn_objectness": "proposal_generator.rpn_head.objectness_logits"},
        **{"rpn_deltas": "proposal_generator.rpn_head.anchor_deltas"},
        **{"object_score": "roi_heads.box_predictor.cls_score", "bbox_pred": "roi_heads.box_predictor.bbox_pred"},
        **{"object_embedding": "roi_heads.box_predictor.cls_embedding"},
        **{"attribute_hidden": "roi_heads.box_predictor.fc_attr"},
        **{"attribute_score": "roi_heads.box_predictor.attr_score"},
    }
    found = backbone_arrays(layers, counted) | named(changed, names)
    if cell_anchors is not None:
        found["proposal_generator.anchor_generator.cell_anchors.0"] = cell_anchors
    return found


def exact_anchors(order=SIZE_MAJOR):
    """(12, 4) anchors around 0, not rounded, as detectron2 has them."""
    sides = [(64 * 2**s / np.sqrt(r), 64 * 2**s * np.sqrt(r)) for r in (0.5, 1, 2) for s in range(4)]
    boxes = np.array([(-w / 2, -h / 2, w / 2, h / 2) for w, h in sides], np.float32)
    return boxes[np.argsort(order)]


def write_pickle(path, layers, protocol=2):
    path.write_bytes(pickle.dumps({"model": detectron2_arrays(layers), "__author__": "x"}, protocol))
    return path


def write_hub(path, layers):
    arrays = detectron2_arrays(layers, counted=True, cell_anchors=exact_anchors())
    torch.save({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, path)
    return path


def write_milvlg(path, layers):
    names = {
        **{"rpn_conv": "proposal_generator.rpn_head.conv"},
        **{"rpn_objectness": "proposal_generator.rpn_head.objectness_logits"},
        **{"rpn_deltas": "proposal_generator.rpn_head.anchor_deltas"},
        **{"object_score": "roi_heads.box_predictor.cls_score", "bbox_pred": "roi_heads.box_predictor.bbox_pred"},
        **{"object_embedding": "roi_heads.box_predictor.cls_embed"},
        **{"attribute_hidden": "roi_heads.box_predictor.attr_linear1"},
        **{"attribute_score": "roi_heads.box_predictor.attr_linear2"},
    }
    arrays = backbone_arrays(layers, False) | named(layers, names)
    torch.save({"model": {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}}, path)
    return path


WRITERS = {
    "weights.caffemodel": write_caffe,
    "weights.pkl": write_pickle,
    "pytorch_model.bin": write_hub,
    "weights.pth": write_milvlg,
}


def saved(content):
    """What torch.save makes of `content`."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()
