"""The toy world: scenes of coloured shapes, their pictures, and what a detector would see in them.

Nothing here is real data. A scene is drawn at random, `render` makes a picture of it, and `detect`
makes region features that look like those of a Faster R-CNN: non-negative, about a third exact
zeros, several overlapping boxes an object, background boxes, labels with confidences, mistakes on
weak boxes. `questions.py` says what there is to ask about a scene; `files.py` writes the files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lxmert.files import InputError

# Six of each: with eight the small model of the demo needs twice the training.
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
COLORS = ("red", "yellow", "green", "blue", "purple", "black")
SIZES = ("small", "large")

# The detector's vocabularies: an object id is a shape, an attribute id a colour, and the last entry of
# each is what background boxes are called.
OBJECT_NAMES = (*SHAPES, "background")
ATTRIBUTE_NAMES = (*COLORS, "pale")

# What is taken for what, by the detector on weak boxes and by annotators.
LOOKALIKES = {
    "circle": ("heart", "square"),
    "square": ("circle", "cross"),
    "triangle": ("heart", "star"),
    "star": ("cross", "triangle"),
    "heart": ("circle", "triangle"),
    "cross": ("star", "square"),
    "red": ("purple", "yellow"),
    "yellow": ("green", "red"),
    "green": ("blue", "yellow"),
    "blue": ("purple", "green"),
    "purple": ("red", "blue"),
    "black": ("blue", "purple"),
}

FEWEST_THINGS, MOST_THINGS = 3, 5
FEWEST_REGIONS = MOST_THINGS + 2
_PICTURE_SIZES = ((224, 224), (248, 200), (200, 248))  # width, height: not square, so that a swap shows
_RGB = {
    "red": (222, 58, 54),
    "yellow": (250, 212, 62),
    "green": (72, 170, 84),
    "blue": (59, 116, 219),
    "purple": (148, 84, 190),
    "black": (52, 54, 62),
}
BACKGROUNDS = ((232, 240, 248), (240, 236, 226), (230, 242, 232), (246, 234, 236), (236, 233, 246))


@dataclass(frozen=True)
class Thing:
    """One object of a scene; x, y and radius in pixels, y downwards, tilt in radians."""

    shape: str
    color: str
    size: str
    x: float
    y: float
    radius: float
    tilt: float

    def outline(self) -> NDArray[np.float64]:
        """(points, 2) pixel corners of the drawn shape."""
        turn = np.array([[math.cos(self.tilt), math.sin(self.tilt)], [-math.sin(self.tilt), math.cos(self.tilt)]])
        return _outlines()[self.shape] @ turn * self.radius + (self.x, self.y)


@dataclass(frozen=True)
class Scene:
    """A picture's content: `things` stand apart from each other on a pale background."""

    image_id: str
    width: int
    height: int
    background: tuple[int, int, int]
    things: tuple[Thing, ...]


class Regions(NamedTuple):
    """What the detector reports for I scenes, N regions each, in the types of the released TSV files."""

    object_ids: NDArray[np.int64]  # (I, N) into OBJECT_NAMES
    object_conf: NDArray[np.float32]  # (I, N)
    attribute_ids: NDArray[np.int64]  # (I, N) into ATTRIBUTE_NAMES
    attribute_conf: NDArray[np.float32]  # (I, N)
    boxes: NDArray[np.float32]  # (I, N, 4) pixels x1 y1 x2 y2
    features: NDArray[np.float32]  # (I, N, F) non-negative


def draw_scenes(image_ids: Sequence[str], rng: Random) -> Iterator[Scene]:
    """One random scene for each image id."""
    for image_id in image_ids:
        width, height = rng.choice(_PICTURE_SIZES)
        background = rng.choice(BACKGROUNDS)
        things = None
        while things is None:
            things = _place(_draw_looks(rng), width, height, rng)
        yield Scene(image_id, width, height, background, things)


def render(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, smooth edges by drawing three times larger and averaging."""
    scale = 3
    pale = np.array(scene.background, dtype=np.float64)
    # Whole rows of one tone: PNG stores such a gradient in almost nothing.
    rows = np.linspace(pale + (255 - pale) * 0.6, pale * 0.95, scene.height).astype(np.uint8)
    column = Image.fromarray(rows[:, None])
    canvas = column.resize((scene.width * scale, scene.height * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    for thing in scene.things:
        outline, centre, fill = thing.outline() * scale, np.array([thing.x, thing.y]) * scale, _RGB[thing.color]
        shadow = outline + np.array([0.06, 0.12]) * thing.radius * scale
        inner = centre + (outline - centre) * (1 - 2.2 / thing.radius)
        for polygon, color, shade in ((shadow, scene.background, 0.86), (outline, fill, 0.68), (inner, fill, 1.0)):
            draw.polygon([tuple(point) for point in polygon], fill=tuple(int(c * shade) for c in color))
    return canvas.reduce(scale)


class Detector:
    """Stands in for a Faster R-CNN; what a shape or a colour looks like in its features is fixed by `seed`.

    Args:
        regions: boxes an image; at least FEWEST_REGIONS.
        feature_dim: F.
        seed: of the embeddings of shapes, colours and sizes, not of the noise.

    Raises:
        InputError: too few regions to show every object of a scene and some background.
    """

    def __init__(self, regions: int = 16, feature_dim: int = 128, seed: int = 1) -> None:
        if regions < FEWEST_REGIONS:
            raise InputError(f"a toy image needs at least {FEWEST_REGIONS} regions, not {regions}")
        self.regions = regions
        rng = np.random.default_rng([seed, 1])
        shape, color, size, background = (
            rng.standard_normal((count, feature_dim), dtype=np.float32)
            for count in (len(SHAPES), len(COLORS), len(SIZES), len(BACKGROUNDS))
        )
        self._looks = (shape[:, None, None] + color[None, :, None] + 0.8 * size[None, None]) / math.sqrt(2.64)
        self._backgrounds = background * 0.7

    def detect(self, scenes: Sequence[Scene], rng: np.random.Generator) -> Regions:
        """The regions of `scenes`, in no particular order within an image, as in the released files."""
        images = np.arange(len(scenes))[:, None]
        counts = np.array([len(scene.things) for scene in scenes])[:, None]
        shape_of, color_of, size_of, tight = as_arrays(scenes)

        # The first regions are the things themselves, seen well, then one of background; the others fall on
        # things (seen less well) or on background.
        slot = np.broadcast_to(np.arange(self.regions), (len(scenes), self.regions))
        thing = np.where(slot < counts, slot, rng.integers(0, counts, slot.shape))
        is_background = (slot == counts) | ((slot > counts) & (rng.random(slot.shape) < 0.4))
        quality = np.where(slot < counts, rng.uniform(0.85, 1.0, slot.shape), rng.uniform(0.45, 0.8, slot.shape))
        order = rng.permuted(slot, axis=1)
        thing, is_background, quality = (np.take_along_axis(a, order, 1) for a in (thing, is_background, quality))

        shape, color, size = (table[images, thing] for table in (shape_of, color_of, size_of))
        ground = np.array([BACKGROUNDS.index(scene.background) for scene in scenes])[:, None]
        share = np.where(is_background, 0.0, quality).astype(np.float32)[..., None]
        content = self._content(share, shape, color, size, ground)
        noise = rng.standard_normal(content.shape, dtype=np.float32)
        features = _as_features(content + 0.3 * noise)

        sides = np.array([(scene.width, scene.height) for scene in scenes])[:, None]
        boxes = np.where(
            is_background[..., None],
            _background_boxes(slot.shape, sides, rng),
            _jitter(tight[images, thing], quality, sides, rng),
        ).astype(np.float32)

        mistaken = rng.random((2, *slot.shape)) < 0.4 * np.clip(0.8 - quality, 0, None)
        second = rng.integers(0, 2, (2, *slot.shape))
        object_ids = np.where(mistaken[0], _lookalike_ids(SHAPES)[shape, second[0]], shape)
        attribute_ids = np.where(mistaken[1], _lookalike_ids(COLORS)[color, second[1]], color)
        sureness = np.where(is_background, 0.3, 0.95 * quality) * rng.uniform(0.6, 1.0, slot.shape)
        doubt = np.where(mistaken, 0.6, 1.0)
        return Regions(
            np.where(is_background, len(SHAPES), object_ids),
            (sureness * doubt[0]).astype(np.float32),
            np.where(is_background, len(COLORS), attribute_ids),
            (sureness * doubt[1] * rng.uniform(0.5, 0.9, slot.shape)).astype(np.float32),
            boxes,
            features,
        )

    def expect(
        self, share: NDArray, shape: NDArray, color: NDArray, size: NDArray, ground: NDArray
    ) -> NDArray[np.float32]:
        """The features of regions without their noise.

        Args:
            share: (...,) 0..1, the quality of a region: how much of it is its thing, and not background.
            shape: (...,) code of the thing's shape.
            color: (...,) of its colour.
            size: (...,) of its size.
            ground: (...,) of the scene's background.

        Returns:
            (..., F) non-negative.
        """
        return _as_features(self._content(share.astype(np.float32)[..., None], shape, color, size, ground))

    def _content(
        self, share: NDArray, shape: NDArray, color: NDArray, size: NDArray, ground: NDArray
    ) -> NDArray[np.float32]:
        return 0.3 + (share * self._looks[shape, color, size] + (1 - share) * self._backgrounds[ground])


def _as_features(content: NDArray[np.float32]) -> NDArray[np.float32]:
    return 4 * np.maximum(content, 0)


def _draw_looks(rng: Random) -> list[tuple[str, str, str]]:
    """(shape, color, size) of each thing; looks repeat often enough that there is something to count."""
    looks: list[tuple[str, str, str]] = []
    for _ in range(rng.randint(FEWEST_THINGS, MOST_THINGS)):
        shape = rng.choice(looks)[0] if looks and rng.random() < 0.3 else rng.choice(SHAPES)
        if looks and rng.random() < 0.25:
            color = rng.choice(looks)[1]
        elif rng.random() < 0.1:  # a shape's favourite colour: questions alone give some answers away
            color = COLORS[SHAPES.index(shape)]
        else:
            color = rng.choice(COLORS)
        looks.append((shape, color, rng.choice(SIZES)))
    return looks


def _place(
    looks: Sequence[tuple[str, str, str]], width: int, height: int, rng: Random
) -> tuple[Thing, ...] | None:
    """Things with those looks at random places without overlap; None if no room was found."""
    things: list[Thing] = []
    for shape, color, size in looks:
        radius = rng.uniform(31, 36) if size == "large" else rng.uniform(16, 20)
        for _ in range(30):
            x, y = rng.uniform(radius + 4, width - radius - 4), rng.uniform(radius + 4, height - radius - 4)
            if all(math.hypot(x - o.x, y - o.y) > radius + o.radius + 2 for o in things):
                things.append(Thing(shape, color, size, x, y, radius, rng.uniform(-0.18, 0.18)))
                break
        else:
            return None
    return tuple(things)


def as_arrays(scenes: Sequence[Scene]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Shape, colour and size codes (I, MOST_THINGS) and tight boxes (I, MOST_THINGS, 4); 0 where none."""
    codes = np.zeros((3, len(scenes), MOST_THINGS), dtype=np.int64)
    boxes = np.zeros((len(scenes), MOST_THINGS, 4))
    for i, scene in enumerate(scenes):
        for j, thing in enumerate(scene.things):
            codes[:, i, j] = SHAPES.index(thing.shape), COLORS.index(thing.color), SIZES.index(thing.size)
            outline = thing.outline()
            boxes[i, j] = (*outline.min(0), *outline.max(0))
    return codes[0], codes[1], codes[2], boxes


def _jitter(
    boxes: NDArray[np.float64],
    quality: NDArray[np.float64],
    sides: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Boxes moved and stretched the more the lower their quality, kept inside the image."""
    worse = (1 - quality)[..., None]
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + size * (0.5 + 0.35 * worse * rng.uniform(-1, 1, size.shape))
    half = size / 2 * np.exp(0.5 * worse * rng.uniform(-1, 1.4, size.shape))
    return np.concatenate([np.maximum(centre - half, 0), np.minimum(centre + half, sides)], -1)


def _background_boxes(
    shape: tuple[int, ...], sides: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    size = sides * rng.uniform(0.3, 0.9, (*shape, 2))
    corner = (sides - size) * rng.random((*shape, 2))
    return np.concatenate([corner, corner + size], -1)


def _lookalike_ids(names: tuple[str, ...]) -> NDArray[np.int64]:
    return np.array([[names.index(other) for other in LOOKALIKES[name]] for name in names])


@cache
def _outlines() -> dict[str, NDArray[np.float64]]:
    """Corners of each shape within the unit circle, y downwards."""

    def ring(points: int, start: float = -90.0, radii: tuple[float, ...] = (1.0,)) -> NDArray[np.float64]:
        angle = np.radians(start + np.arange(points) * 360 / points)
        return np.stack([np.cos(angle), np.sin(angle)], 1) * np.resize(radii, points)[:, None]

    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    heart = np.stack(
        [
            16 * np.sin(t) ** 3,
            -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t) - 2.5,
        ],
        1,
    )
    arm = np.array([(-0.36, -1), (0.36, -1), (0.36, -0.36)])  # of a cross; the other three by quarter turns
    quarter = np.array([(0, 1), (-1, 0)])
    cross = np.concatenate([arm @ np.linalg.matrix_power(quarter, turns) for turns in range(4)])
    return {
        "circle": ring(48) * 0.95,
        "square": ring(4, start=-45.0),
        "triangle": ring(3),
        "star": ring(10, radii=(1.0, 0.45)),
        "heart": heart / 17,
        "cross": cross * 0.92,
    }
