"""Pictures of any usual kind, as OpenCV's `imread` would give them: upright, three channels, blue first."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lxmert.files import InputError, shown

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


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
        return _pixels(source, "the picture")
    where = f"a picture of {len(source):,} bytes" if isinstance(source, bytes) else str(source)
    path: Any = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
    if isinstance(path, Path) and not path.is_file():
        raise FileNotFoundError(f"{where}: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice as much is refused
            with Image.open(path, formats=FORMATS) as image:
                return _pixels(image, where)
    except UnidentifiedImageError as error:
        raise InputError(
            f"{where}: not a picture, or a damaged one; expected one of {', '.join(FORMATS)}"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{where}: too large a picture ({error}). Make it smaller.") from error
    except PermissionError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{where}: a damaged picture, or one that was cut off ({shown(error, str)}). Get it again."
        ) from error  # Pillow's decoders raise all of these


def _pixels(image: Image.Image, where: str) -> np.ndarray:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a phone's JPEG, whose others are previews
        raise InputError(f"{where}: {frames} pictures in one file; expected one. Save the one that is meant.")
    image.load()  # what was cut off shows here
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits of grey, in whatever mode Pillow has for them
        grey = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2)
    if upright.mode == "F":
        raise InputError(
            f"{where}: a picture of fractions, expected numbers from 0 to 255. Save it as PNG or JPEG."
        )
    return np.ascontiguousarray(np.asarray(upright.convert("RGB"))[..., ::-1])
