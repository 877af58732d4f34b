"""Which foreign file it is, and its arrays; nothing in it is run."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from datamodules.detector.files import FORMAT
from datamodules.detector.weights.arrays import Arrays
from datamodules.detector.weights.caffe import read_caffemodel
from datamodules.detector.weights.layouts import Caffe, Detectron2, Layout, Milvlg
from datamodules.formats.pickles import safe_loads
from lxmert.files import InputError, shown

# The first object of a file of torch.save before 1.6: a magic number, pickled.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_ROI = "roi_heads.box_predictor"
# A name that begins so, and whose file it is then; the first that fits counts.
_OTHERS = (
    ("rpn_conv", "our own: a training checkpoint of a detector; write it with write_detector"),
    ("RCNN_", "jwyang's faster-rcnn.pytorch"),
    ("backbone.body.", "torchvision's, or maskrcnn-benchmark's"),
    ("backbone.fpn_", "a detectron2 model with a feature pyramid"),
    ("backbone.bottom_up.", "a detectron2 model with a feature pyramid"),
    ("module.backbone.", "maskrcnn-benchmark's, as of VinVL and of Pythia"),
    ("neck.", "mmdetection's"),
    ("bert.", "a BERT or an LXMERT, which looks at regions and finds none"),
    ("lxmert.", "an LXMERT, which looks at regions and finds none"),
    ("module.bert.", "an LXMERT of the original release, which looks at regions and finds none"),
    ("model.lxmert.", "a run's checkpoint of an LXMERT, which looks at regions and finds none"),
    ("layer1.", "a ResNet without a detector"),
    ("roi_heads.", "another detectron2 model"),
)
KNOWN = "\n".join(f"  {layout.title}" for layout in (Caffe, Detectron2, Milvlg))


def open_layout(path: Path) -> Layout:
    """The arrays of a file of published weights, and how they are laid out.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is damaged, of another layout, which is named, or holds what could run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        head = file.read(32)
    if head.startswith((b"PK\x03\x04", _OLD_TORCH)):
        return _by_names(path, _tensors(path, _reading(path, "PyTorch", _load_torch)))
    if head.startswith(b"\x80"):
        return _by_names(path, _tensors(path, _reading(path, "detectron2", _load_pickle)))
    if head[8:9] == b"{":
        return _by_names(path, _tensors(path, _reading(path, "safetensors", _load_safetensors)))
    if head.startswith(b"\x89HDF"):
        raise InputError(
            f"{path}: an HDF5 file: a region store or weights of Keras; expected a detector's.\n{KNOWN}"
        )
    if head.startswith((b"<", b"version https://git-lfs", b"name:")):
        begin = shown(head.decode(errors="replace").split()[0])
        raise InputError(
            f"{path}: text that begins with {begin}, expected weights. A web page or the pointer to a large "
            "file has been downloaded in their place, or a network's description: get the weights."
        )
    arrays = Arrays(f"{path} ({Caffe.title})", read_caffemodel(path))
    if "rpn_cls_score:0" not in arrays or "conv1:0" not in arrays:
        raise InputError(f"{path}: weights of Caffe of another network, without conv1 or rpn_cls_score.\n{KNOWN}")
    if "cls_embedding:0" not in arrays:
        _without_attributes(path)
    return Caffe(arrays)


def _reading(path: Path, kind: str, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except (InputError, PermissionError, MemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        if isinstance(error, pickle.UnpicklingError) and ("GLOBAL" in said or "names" in said):
            found = said.partition("GLOBAL ")[2].partition(" ")[0] or said
            raise InputError(
                f"{path}: a pickle that holds other than numbers and names ({shown(found, str)}), which could run "
                "any code and is not opened. Where it was made, save the weights alone."
            ) from error
        raise InputError(
            f"{path}: damaged or cut off, or no file of {kind} ({shown(said or type(error).__name__, str)}). "
            "Get it again."
        ) from error


def _load_torch(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # torch writes checksums and does not compare them
            if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                raise zipfile.BadZipFile("its records are compressed")
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"the record {damaged} is not what its checksum was made of")
    return torch.load(path, map_location="cpu", weights_only=True)


def _load_pickle(path: Path) -> Any:
    return safe_loads(path.read_bytes())


def _load_safetensors(path: Path) -> Any:
    with safe_open(path, "pt") as content:
        if (content.metadata() or {}).get("format") == FORMAT:
            raise InputError(f"{path}: converted already; open it with Detector.open")
        return {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118  not a dict


def _tensors(path: Path, content: Any) -> dict[str, np.ndarray]:
    """The arrays by name of what was read, which may lie one level down."""
    for name in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds {shown(type(content).__name__, str)}; expected arrays by name")
    arrays: dict[str, np.ndarray] = {}
    for name, value in content.items():
        if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized:
            value = (value.float() if value.is_floating_point() else value).detach()
            value = value.numpy() if value.device.type == "cpu" and not value.is_nested else None
        if not isinstance(name, str) or not isinstance(value, np.ndarray | np.generic):
            raise InputError(f"{path}: its entry {shown(name)} is no dense array; expected arrays by name")
        arrays[name] = np.asarray(value)
    return arrays


def _by_names(path: Path, arrays: dict[str, np.ndarray]) -> Layout:
    for layout, embedding in ((Milvlg, "cls_embed"), (Detectron2, "cls_embedding")):
        if f"{_ROI}.{embedding}.weight" in arrays and "backbone.stem.conv1.weight" in arrays:
            found = layout(Arrays(f"{path} ({layout.title})", arrays))
            _check_mode(path, found)
            return found
    if f"{_ROI}.cls_score.weight" in arrays and "roi_heads.res5.0.conv1.weight" in arrays:
        _without_attributes(path)
    for begin, what in _OTHERS:
        if any(name.startswith(begin) for name in arrays):
            raise InputError(f"{path}: the weights of {what}. Expected one of\n{KNOWN}")
    names = ", ".join(shown(name, str) for name in list(arrays)[:3])
    raise InputError(f"{path}: weights of an unknown layout, with names such as {names}. Expected one of\n{KNOWN}")


def _check_mode(path: Path, layout: Layout) -> None:
    """MILVLG's other models have the same names and another meaning."""
    name = "proposal_generator.rpn_head.objectness_logits.weight"
    if layout.pairs and name in layout.arrays and layout.arrays.content[name].shape[:1] == (12,):
        raise InputError(
            f"{path}: a model of bottom-up-attention.pytorch in detectron2's mode, which was trained anew and "
            f"makes other features. Take one whose name begins with bua-caffe. Expected one of\n{KNOWN}"
        )


def _without_attributes(path: Path) -> NoReturn:
    raise InputError(
        f"{path}: a detector without attributes, which LXMERT's were made with. Take the file with attr in its "
        f"name, or one of\n{KNOWN}"
    )
