"""Pictures as the model sees them: regions of a detector or of a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from datamodules.detector import Detector, read_names, read_picture
from datamodules.layout import find_picture, stem_of
from datamodules.stores import RegionStore
from datamodules.toy import detector_for
from lxmert.config import detector_difference
from lxmert.files import InputError

DIGITS = 6  # of a number in JSON
Names: TypeAlias = tuple[Sequence[str], Sequence[str]]  # of objects, of attributes


@dataclass(eq=False)  # each is itself, however alike
class Seen:
    """One picture's regions.

    Args:
        features: (N, F) float32.
        boxes: (N, 4) float32, x1 y1 x2 y2 as fractions of the picture's width and height.
        size: width and height in pixels; None where not known.
        objects: (name, confidence 0..1) of each region, None for one of which nothing is known.
        attributes: the same.
        picture: its file, to be shown; None where it is not at hand.
        image_id: of a store's image, or a picture file's name; None without.
        detector: what found the regions; None where not known.
        object_ids: (N,) int64, -1 where unknown; None where they all are.
    """

    features: Tensor = field(repr=False)
    boxes: Tensor = field(repr=False)
    size: tuple[int, int] | None = None
    objects: list[tuple[str, float] | None] = field(default_factory=list, repr=False)
    attributes: list[tuple[str, float] | None] = field(default_factory=list, repr=False)
    picture: Path | None = None
    image_id: str | None = None
    detector: str | None = None
    object_ids: Tensor | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.features)

    def name_of(self, region: int) -> str:
        """Attribute and object of a region, "" where neither is known."""
        labels = (column[region] for column in (self.attributes, self.objects) if column)
        return " ".join(label[0] for label in labels if label)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, without features."""
        return {
            "image_id": self.image_id,
            "size": self.size,
            "detector": self.detector,
            "boxes": [[round(side, DIGITS) for side in box] for box in self.boxes.tolist()],
            **{
                kind: [each and {"name": each[0], "confidence": round(each[1], DIGITS)} for each in labels]
                for kind, labels in (("objects", self.objects), ("attributes", self.attributes))
            },
        }


class Eyes:
    """Turns pictures into regions.

    Args:
        feature_dim: what the model expects.
        trained_on: the detector of the model's training, as its checkpoint tells it; None where not known.
        detector: file of a detector's weights; None for the toy's, where the model was trained on the toy.
        stores: region stores, for image ids.
        pictures: folder of the stores' pictures, to be shown.
        names: folder with `objects_vocab.txt` and `attributes_vocab.txt`, what a store's object and attribute ids
            mean; None for those of the detector.
        device: where the detector runs.

    Raises:
        InputError: features of another size than the model expects, or a file that is none of its kind.
    """

    def __init__(
        self,
        feature_dim: int,
        trained_on: str | None = None,
        *,
        detector: str | Path | None = None,
        stores: Sequence[str | Path] = (),
        pictures: str | Path | None = None,
        names: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.feature_dim, self.trained_on = feature_dim, trained_on
        self.pictures = None if pictures is None else Path(pictures).expanduser()
        self.stores = [RegionStore(Path(store).expanduser()) for store in stores]
        for store in self.stores:
            store.check_feature_dim(feature_dim)
        path = Path(detector).expanduser() if detector is not None else detector_for(trained_on)
        self.detector = None if path is None else Detector.open(path, device)
        if self.detector is not None and self.detector.feature_dim != feature_dim:
            raise InputError(
                f"{path}: this detector gives {self.detector.feature_dim} features a region, the model expects "
                f"{feature_dim}. Use the detector that the model was trained on"
            )
        self._given_names = None if names is None else _read_names(Path(names).expanduser())

    def _names(self, store: RegionStore | None = None) -> Names:
        """What object and attribute ids mean: as it was given, or as the store tells, or as the detector does."""
        if self._given_names is not None:
            return self._given_names
        if store is not None and any(store.names):
            return store.names
        found = self.detector
        return ([], []) if found is None else (found.object_names, found.attribute_names)

    def see(self, picture: Any) -> Seen:
        """The regions of a picture.

        Args:
            picture: a file's path, its bytes, a PIL image, an RGB array (h, w, 3); an image id of a store; a pair
                features (N, F), boxes (N, 4) as fractions; or what this function gave.

        Raises:
            FileNotFoundError: no such file, and no store has an image of that id.
            InputError: no picture, no detector to look at it with, or features and boxes that do not fit.
        """
        if isinstance(picture, Seen):
            return picture
        if isinstance(picture, tuple | list):
            return self._given(picture)
        if not isinstance(picture, str | Path | bytes | Image | np.ndarray):
            raise InputError(
                f"a picture of type {type(picture).__name__}; expected a file's path, its bytes, a PIL image, an "
                "RGB array, an image id of a store, or a pair (features, boxes)"
            )
        if isinstance(picture, str) and (found := self._stored(picture)):
            return found
        path = Path(picture).expanduser() if isinstance(picture, str | Path) else None
        if path is not None and not path.is_file():
            stores = ", ".join(str(store.path) for store in self.stores)
            where = f", nor an image id of {stores}" if stores else "; for an image id, name the store it is in"
            raise FileNotFoundError(f"{path}: no such picture file{where}")
        if self.detector is None:
            raise InputError(
                f"{'a picture' if path is None else path}: there is no detector to find its regions with. Name "
                "the weights of one (--detector), or ask about an image of a region store (--store)"
            )
        return self._detected(picture if path is None else path)

    def find(self, name: str) -> str | Path | None:
        """What `see` takes of an image of that name, with or without the ending of a picture; None without one.

        An image of the stores, or else, where there is a detector, a file in the folder of pictures.
        """
        stem = stem_of(name)
        stored = next((id_ for id_ in (name, stem) for store in self.stores if store.index([id_])[0] >= 0), None)
        if stored is None and self.detector is not None and self.pictures is not None:
            return find_picture(self.pictures, stem)
        return stored

    def warning(self, seen: Seen) -> str:
        """What is to be said where regions are of another detector than the model was trained on."""
        different = detector_difference(self.trained_on, seen.detector)
        return f"The model {different}" if different else ""

    def _detected(self, picture: Any) -> Seen:
        assert self.detector is not None
        found = self.detector.detect(read_picture(picture))
        width, height = found.size
        boxes = torch.from_numpy(found.boxes).float() / torch.tensor([width, height, width, height])
        objects, attributes = self._names()
        return Seen(
            torch.from_numpy(found.features).float(),
            boxes,
            (width, height),
            _named("object", objects, found.labels["object_ids"], found.labels["object_conf"]),
            _named("attribute", attributes, found.labels["attribute_ids"], found.labels["attribute_conf"]),
            picture if isinstance(picture, Path) else None,
            picture.stem if isinstance(picture, Path) else None,
            self.detector.told(),
            torch.as_tensor(found.labels["object_ids"]).long(),
        )

    def _stored(self, image_id: str) -> Seen | None:
        """An image of the first store that has it."""
        for store in self.stores:
            number = int(store.index([image_id])[0])
            if number < 0:
                continue
            features, boxes, _ = store.read([number])
            objects, object_conf, attributes, attribute_conf = store.labels([number])
            object_names, attribute_names = self._names(store)
            width, height = store.image_size([number])[0].tolist()
            return Seen(
                features[0].float(),
                boxes[0].clone(),
                (width, height) if width > 1 or height > 1 else None,
                _named("object", object_names, objects[0], object_conf[0]),
                _named("attribute", attribute_names, attributes[0], attribute_conf[0]),
                find_picture(self.pictures, image_id) if self.pictures else None,
                image_id,
                str(store.contract["detector"]),
                objects[0],
            )
        return None

    def _given(self, pair: Sequence[Any]) -> Seen:
        """Features and boxes as they are."""
        if len(pair) != 2:
            raise InputError(f"{len(pair)} things for one picture; expected its features (N, F) and boxes (N, 4)")
        try:
            features, boxes = (torch.as_tensor(part).detach().float().cpu() for part in pair)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"a pair of {' and '.join(type(part).__name__ for part in pair)} for one picture; expected its "
                f"features (N, {self.feature_dim}) and boxes (N, 4)"
            ) from error
        if features.ndim != 2 or features.shape[1] != self.feature_dim or boxes.shape != (len(features), 4):
            raise InputError(
                f"features {tuple(features.shape)} and boxes {tuple(boxes.shape)}; expected "
                f"(N, {self.feature_dim}) and (N, 4)"
            )
        if not len(features) or not features.isfinite().all() or not ((boxes >= 0) & (boxes <= 1)).all():
            raise InputError(
                f"{len(features)} regions with boxes from {boxes.min() if len(boxes) else 0:.3g} to "
                f"{boxes.max() if len(boxes) else 0:.3g}; expected one or more, finite features, and boxes x1 y1 "
                "x2 y2 as fractions of the picture's width and height, from 0 to 1"
            )
        return Seen(features, boxes)


def _read_names(folder: Path) -> Names:
    return read_names(folder / "objects_vocab.txt"), read_names(folder / "attributes_vocab.txt")


def _named(kind: str, names: Sequence[str], ids: Any, confidences: Any) -> list[tuple[str, float] | None]:
    """Each id's name, or its number where it has none."""
    numbers, sure = np.asarray(ids).tolist(), np.asarray(confidences).tolist()
    return [
        None if number < 0 else (names[number] if number < len(names) else f"{kind} {number}", float(confidence))
        for number, confidence in zip(numbers, sure, strict=True)
    ]
