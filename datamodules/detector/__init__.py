"""Faster R-CNN as bottom-up attention runs it in Caffe: from a picture to regions for LXMERT."""

from datamodules.detector.config import STRIDE, BoxRule, DetectorConfig
from datamodules.detector.detector import Detections, Detector
from datamodules.detector.files import DetectorFile, read_detector, write_detector
from datamodules.detector.network import Bottleneck, FasterRCNN
from datamodules.detector.pictures import read_picture
from datamodules.detector.pooling import RegionPool
from datamodules.detector.proposals import anchors, decode, overlap
from datamodules.detector.resizing import Resized, resize
from datamodules.detector.weights import read_names

__all__ = [
    "STRIDE",
    "Bottleneck",
    "BoxRule",
    "Detections",
    "Detector",
    "DetectorConfig",
    "DetectorFile",
    "FasterRCNN",
    "RegionPool",
    "Resized",
    "anchors",
    "decode",
    "overlap",
    "read_detector",
    "read_names",
    "read_picture",
    "resize",
    "write_detector",
]
