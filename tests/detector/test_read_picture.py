"""Pictures are read as OpenCV reads them, and what is none is said to be none."""

import io
import random
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from runs import SHARED

from datamodules.detector import read_picture
from lxmert.files import InputError

NUMBERS = np.random.default_rng(0)
RGB = np.kron(NUMBERS.integers(0, 256, (5, 7, 3), np.uint8), np.ones((6, 6, 1), np.uint8))
SIZE = RGB.shape[:2]
ORIENTATION = 0x0112


def coded(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def cv2_coded(array):
    return cv2.imencode(".png", array)[1].tobytes()


def turned(kind, orientation, **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return coded(Image.fromarray(RGB), kind, exif=exif, **options)


def kinds():
    plain = Image.fromarray(RGB)
    grey, alpha = plain.convert("L"), Image.fromarray(NUMBERS.integers(0, 256, SIZE, np.uint8))
    palette = plain.quantize(16)
    wide = NUMBERS.integers(0, 65536, (*SIZE, 4), np.uint16)
    xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    return {
        "JPEG": coded(plain, "JPEG"),
        "JPEG without subsampling": coded(plain, "JPEG", quality=95, subsampling=0),
        "progressive JPEG": coded(plain, "JPEG", progressive=True),
        "grey JPEG": coded(grey, "JPEG"),
        "CMYK JPEG": coded(plain.convert("CMYK"), "JPEG", quality=95),
        "JPEG turned by XMP alone": coded(plain, "JPEG", xmp=xmp),
        "JPEG with damaged EXIF": coded(plain, "JPEG", exif=b"Exif\0\0MM and no more"),
        "PNG": coded(plain, "PNG"),
        "one pixel": coded(plain.crop((0, 0, 1, 1)), "PNG"),
        "grey PNG": coded(grey, "PNG"),
        "grey PNG with alpha": coded(Image.merge("LA", (grey, alpha)), "PNG"),
        "PNG with alpha": coded(Image.merge("RGBA", (*plain.split(), alpha)), "PNG"),
        "PNG with a transparent colour": coded(plain, "PNG", transparency=tuple(map(int, RGB[0, 0]))),
        "palette": coded(palette, "PNG"),
        "palette of two bits": coded(plain.quantize(4), "PNG", bits=2),
        "palette with a transparent colour": coded(palette, "PNG", transparency=3),
        "palette with transparencies": coded(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "one bit": coded(plain.convert("1"), "PNG"),
        "16 bits of grey": cv2_coded(wide[..., 0]),
        "16 bits": cv2_coded(wide[..., :3]),
        "16 bits with alpha": cv2_coded(wide),
        "WebP": coded(plain, "WEBP", quality=80),
        "turned WebP": turned("WEBP", 6, lossless=True),
        "BMP": coded(plain, "BMP"),
        "GIF": coded(palette, "GIF"),
        "TIFF": coded(plain, "TIFF"),
        "PPM": coded(plain, "PPM"),
        **{f"{kind} turned {way}": turned(kind, way) for kind in ("JPEG", "PNG") for way in range(1, 9)},
    }


KINDS = kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_what_opencv_reads(kind):
    expected = cv2.imdecode(np.frombuffer(KINDS[kind], np.uint8), cv2.IMREAD_COLOR)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_picture(KINDS[kind]), expected)


@pytest.mark.skipif(not SHARED.exists(), reason="the ten real pictures are not here")
def test_photographs_are_what_opencv_reads():
    for path in sorted((SHARED / "coco10" / "images").glob("*.jpg")):
        np.testing.assert_array_equal(read_picture(path), cv2.imread(str(path)))


def test_a_file_its_bytes_an_image_and_an_array_are_one_picture(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(KINDS["PNG"])
    for source in (path, str(path), KINDS["PNG"], Image.open(path), RGB):
        read = read_picture(source)
        assert read.flags.c_contiguous
        np.testing.assert_array_equal(read, RGB[..., ::-1])


def test_an_image_that_was_turned_upright_is_not_turned_again():
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(KINDS["JPEG turned 6"])))
    np.testing.assert_array_equal(read_picture(upright), read_picture(KINDS["JPEG turned 6"]))


def test_a_phones_picture_with_a_preview_is_its_first():
    plain = Image.fromarray(RGB)
    content = coded(plain, "MPO", save_all=True, append_images=[plain.resize((8, 8))])
    np.testing.assert_array_equal(read_picture(content), read_picture(KINDS["JPEG"]))


def frames(kind):
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    return coded(pictures[0], kind, save_all=True, append_images=pictures[1:])


def bomb(side):
    """A PNG that says it has side x side pixels."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "not a picture"),
        (b"<html>not found</html>", "not a picture"),
        (KINDS["JPEG"][:20], "not a picture"),
        (KINDS["JPEG"][:-200], "damaged picture, or one that was cut off"),
        (KINDS["PNG"][:-40], "damaged picture, or one that was cut off"),
        (bomb(20_000), "too large a picture"),
        (bomb(50_000), "too large a picture"),
        (bomb(1_000), "damaged picture"),
        (frames("GIF"), "2 pictures in one file"),
        (frames("PNG"), "2 pictures in one file"),
        (frames("WEBP"), "2 pictures in one file"),
        (coded(Image.fromarray(NUMBERS.random(SIZE, np.float32)), "TIFF"), "fractions"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_what_is_no_picture_is_one_clear_error(tmp_path, content, said):
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        read_picture(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_an_image_that_was_cut_off_is_an_error_as_its_file_is():
    with pytest.raises(InputError, match="the picture: a damaged picture"):
        read_picture(Image.open(io.BytesIO(KINDS["JPEG"][:-200])))


@pytest.mark.parametrize("array", [RGB[..., 0], RGB / 255, RGB[:0], np.zeros((4, 4, 4), np.uint8)])
def test_an_array_that_is_no_rgb_picture_is_refused(array):
    with pytest.raises(InputError, match=r"expected uint8, \(height, width, 3\)"):
        read_picture(array)


def test_a_file_that_is_not_there_is_named(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    for name in ("x.jpg", "folder.jpg"):
        with pytest.raises(FileNotFoundError, match=name):
            read_picture(tmp_path / name)


def test_damaged_files_raise_nothing_else():
    warnings.simplefilter("error")
    draw = random.Random(0)
    read = refused = 0
    for content in KINDS.values():
        for _ in range(25):
            damaged = bytearray(content)
            if draw.random() < 0.3:
                del damaged[draw.randrange(len(damaged)) :]
            else:
                for _ in range(draw.choice((1, 3, 10))):
                    most = draw.choice((60, len(damaged)))  # the header is hit as often as all the rest
                    damaged[draw.randrange(min(len(damaged), most))] = draw.randrange(256)
            try:
                assert read_picture(bytes(damaged)).shape[2] == 3
                read += 1
            except InputError:
                refused += 1
    assert read > 100 and refused > 100


def test_a_picture_of_108_million_pixels_is_read():
    content = coded(Image.new("L", (12_000, 9_000), 7), "JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read_picture(content)
    assert picture.shape == (9_000, 12_000, 3)
    assert (picture[::1000, ::1000] == 7).all()
