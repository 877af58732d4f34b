"""Pictures of any usual kind, as OpenCV's `imread` would give them: upright, three channels, blue first."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from lxmert.files import InputError, shown

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")


def read_picture(source: str | Path | bytes | Image.Image | np.ndarray) -> np.ndarray:
    """A picture as the detector takes it.

    Grey becomes three equal channels, transparency is dropped, a palette looked up, 16 bits cut to 8, CMYK
    converted; the camera's rotation (EXIF) is applied, as OpenCV does.

    Args:
        source: a file, its bytes, a PIL image, or an RGB array (h, w, 3) uint8.

    Returns:
        (h, w, 3) uint8, blue, green, red.

    Raises:
        FileNotFoundError: no such file.
        InputError: no picture, a damaged or cut off one, an animation, or one of more pixels than Pillow opens.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise InputError(
                f"a picture is an array of {source.dtype}, {source.shape}; expected uint8, (height, width, 3), "
                "red, green, blue"
            )
        return np.ascontiguousarray(source[..., ::-1])
    if isinstance(source, Image.Image):
        with _clear_errors("the picture"):
            return _pixels(source, "the picture")
    where = f"a picture of {len(source):,} bytes" if isinstance(source, bytes) else str(source)
    path: Any = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
    if isinstance(path, Path) and not path.is_file():
        raise FileNotFoundError(f"{where}: there is no such file")
    with _clear_errors(where), Image.open(path, formats=FORMATS) as image:
        return _pixels(image, where)


@contextmanager
def _clear_errors(where: str) -> Iterator[None]:
    """Turn whatever Pillow's decoders raise over a file into one InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd tags, and of half as many pixels as are refused
            yield
    except (InputError, PermissionError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"{where}: not a picture, or a damaged one; expected one of {', '.join(FORMATS)}"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{where}: too large a picture ({error}). Make it smaller.") from error
    except Exception as error:  # OSError, SyntaxError, ValueError, struct.error, ...
        raise InputError(
            f"{where}: a damaged picture, or one that was cut off ({shown(error, str)}). Get it again."
        ) from error


def _pixels(image: Image.Image, where: str) -> np.ndarray:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a phone's JPEG, whose others are previews
        raise InputError(f"{where}: {frames} pictures in one file; expected one. Save the one that is meant.")
    image.load()  # what was cut off shows here
    turned = _orientation(image)
    if image.mode.startswith("I"):  # 16 bits of grey, in whatever mode Pillow has for them
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        pixels = np.repeat(grey[..., None], 3, 2)
    elif image.mode == "CMYK":
        pixels = _from_inks(np.asarray(image))
    elif image.mode == "F":
        raise InputError(
            f"{where}: a picture of fractions, expected numbers from 0 to 255. Save it as PNG or JPEG."
        )
    else:
        # A palette with transparency is looked up with it, or Pillow warns.
        plain = image.convert("RGBA") if image.mode in ("P", "PA") else image
        pixels = np.asarray(plain.convert("RGB"))[..., ::-1]
    return np.ascontiguousarray(_TURNS[turned](pixels))


def _from_inks(inks: np.ndarray) -> np.ndarray:
    """Cyan, magenta, yellow, black (h, w, 4) to blue, green, red, in OpenCV's whole numbers."""
    pixels = np.empty((*inks.shape[:2], 3), np.uint8)
    for start in range(0, len(inks), 256):  # a large picture needs no memory of its size in wider numbers
        ink = inks[start : start + 256].astype(np.uint16)
        black = 255 - ink[..., 3:]
        pixels[start : start + 256] = black - (ink[..., 2::-1] * black >> 8)
    return pixels


def _orientation(image: Image.Image) -> int:
    """The camera's, 1 to 8, of EXIF alone: in XMP, which Pillow reads too, OpenCV does not look."""
    try:
        exif = Image.Exif()
        exif.load(image.info.get("exif") or b"")
        found = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged: taken for none, as OpenCV does
        return 1
    return found if found in _TURNS else 1


_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}
