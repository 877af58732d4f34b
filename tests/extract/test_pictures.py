"""Pictures of every kind, as OpenCV reads them; what is none is named."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from runs import SHARED

from datamodules.detector import read_picture
from datamodules.extract.pictures import find_pictures
from lxmert.files import InputError

MAKE = np.random.default_rng(0)
RGB = Image.fromarray(MAKE.integers(0, 255, (20, 30, 3), dtype=np.uint8)).resize(
    (90, 60), Image.Resampling.BICUBIC
)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def as_opencv(content):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *[("RGB", kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP")],
        *[(mode, "PNG") for mode in ("L", "LA", "RGBA", "P", "1")],
        *[("L", "JPEG"), ("RGBA", "TIFF"), ("RGBA", "WEBP")],
    ],
)
def test_a_picture_of_any_kind_is_what_opencv_reads(mode, kind):
    content = encoded(RGB.convert(mode), kind)
    np.testing.assert_array_equal(read_picture(content), as_opencv(content))


def test_cmyk_is_what_opencv_reads_within_its_rounding():
    content = encoded(RGB.convert("CMYK"), "JPEG")
    assert np.abs(read_picture(content).astype(int) - as_opencv(content)).max() <= 1


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_cameras_rotation_is_applied_as_opencv_does(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    content = encoded(RGB, "JPEG", exif=exif)
    np.testing.assert_array_equal(read_picture(content), as_opencv(content))


def test_sixteen_bits_are_cut_to_eight_as_opencv_does():
    for shape in ((20, 30), (20, 30, 3)):
        content = cv2.imencode(".png", MAKE.integers(0, 65535, shape).astype(np.uint16))[1].tobytes()
        np.testing.assert_array_equal(read_picture(content), as_opencv(content))


def test_a_path_bytes_an_image_and_an_array_are_the_same_picture(tmp_path):
    path = tmp_path / "a picture.png"
    RGB.save(path)
    expected = np.asarray(RGB)[..., ::-1]
    for source in (path, str(path), path.read_bytes(), RGB, np.asarray(RGB)):
        found = read_picture(source)
        assert found.dtype == np.uint8 and found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(not SHARED.exists(), reason="the ten real pictures are not here")
def test_real_photographs_are_what_opencv_reads():
    for path in sorted((SHARED / "coco10" / "images").glob("*.jpg"))[:3]:
        np.testing.assert_array_equal(read_picture(path), cv2.imread(str(path)))


def test_one_pixel_and_a_hundred_million_are_pictures():
    assert read_picture(encoded(Image.new("RGB", (1, 1), "red"), "PNG")).tolist() == [[[0, 0, 255]]]
    assert read_picture(encoded(Image.new("L", (12_000, 9_000)), "JPEG")).shape == (9_000, 12_000, 3)


JPEG, PNG = encoded(RGB, "JPEG"), encoded(RGB, "PNG")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture, or a damaged one; expected one of JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (JPEG[:300], "a damaged picture, or one that was cut off"),
        (JPEG[: len(JPEG) // 2], "a damaged picture, or one that was cut off"),
        (PNG[: len(PNG) // 2], "a damaged picture, or one that was cut off"),
        (encoded(Image.new("1", (30_000, 30_000)), "PNG"), "too large a picture"),
        (encoded(RGB, "GIF", save_all=True, append_images=[RGB.rotate(90)]), "2 pictures in one file"),
        (encoded(Image.new("F", (3, 3)), "TIFF"), "a picture of fractions"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, content, said):
    path = tmp_path / "it.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"it.jpg: {said}"):
        read_picture(path)
    with pytest.raises(InputError, match=f"a picture of {len(content):,} bytes: {said}"):
        read_picture(content)


def test_arrays_that_are_no_pictures_and_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"an array of float64, \(2, 2, 3\); expected uint8"):
        read_picture(np.zeros((2, 2, 3)))
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_picture(tmp_path / "no.jpg")


def test_the_pictures_of_a_folder_and_its_folders_go_by_their_names(tmp_path):
    (tmp_path / "part").mkdir()
    for name in ("b.PNG", "a.jpg", "part/c.jpeg", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    found = find_pictures(tmp_path)
    assert list(found) == ["a", "b", "c"] and found["c"] == tmp_path / "part" / "c.jpeg"
    (tmp_path / "list.txt").write_text("b.PNG\n\npart/c.jpeg\n")
    assert list(find_pictures(tmp_path / "list.txt")) == ["b", "c"]


def test_pictures_that_cannot_be_told_apart_or_lie_elsewhere_are_refused(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    with pytest.raises(InputError, match="no pictures in it"):
        find_pictures(folder)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_pictures(tmp_path / "nowhere")
    (folder / "a.png").write_bytes(b"")
    (folder / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="have one id, a"):
        find_pictures(folder)
    (folder / "a.jpg").unlink()
    (tmp_path / "secret.png").write_bytes(b"")
    (folder / "b.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError, match=r"b.png: a link that leads out of the folder"):
        find_pictures(folder)
    (folder / "list.txt").write_text("a.png\nno.png\n")
    with pytest.raises(FileNotFoundError, match="line 2: there is no picture"):
        find_pictures(folder / "list.txt")
    with pytest.raises(InputError, match="no text; expected a folder"):
        (folder / "list.txt").write_bytes(b"\xff\xfe\xff")
        find_pictures(folder / "list.txt")
