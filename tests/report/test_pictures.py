"""Image ids are names: the picture of one is in the folder images, or there is none."""

import pytest

from datamodules.vqa import VqaDataModule


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    (root / "images" / "a").mkdir(parents=True)
    for path in ("images/one.png", "images/a/two.jpg", "outside.png", "../elsewhere.png"):
        (root / path).touch()
    return VqaDataModule(root, root / "vocab.txt")


def test_an_id_may_name_a_picture_or_one_in_a_folder(data):
    images = data.root / "images"
    assert data.picture("one") == images / "one.png"
    assert data.picture("two") == images / "a" / "two.jpg"
    assert data.picture("a/two") == images / "a" / "two.jpg"


@pytest.mark.parametrize("image_id", ["../outside", "../../elsewhere", "a/../../outside", "a/../../../elsewhere"])
def test_an_id_does_not_climb_out_of_the_folder(data, image_id):
    assert data.picture(image_id) is None


def test_an_absolute_id_names_no_picture(data):
    assert (data.root / "outside.png").exists()
    assert data.picture(str(data.root / "outside")) is None


def test_a_link_that_leads_out_is_not_followed(data):
    images = data.root / "images"
    (images / "link.png").symlink_to(data.root / "outside.png")
    (images / "folder").symlink_to(data.root)
    (images / "inner.png").symlink_to(images / "one.png")
    assert data.picture("link") is None and data.picture("outside") is None
    assert data.picture("folder/outside") is None
    assert data.picture("inner") == images / "inner.png"


def test_the_folder_itself_may_be_a_link(data, tmp_path):
    (data.root / "images").rename(tmp_path / "pictures")
    (data.root / "images").symlink_to(tmp_path / "pictures")
    assert data.picture("one") == data.root / "images" / "one.png"
    assert data.picture("../outside") is None


@pytest.mark.parametrize("image_id", ["*", "on?", "[o]ne", "**/two", "", ".", "one\0", "x" * 5000, "\ud800"])
def test_an_id_that_is_no_name_of_a_file_has_no_picture(data, image_id):
    assert data.picture(image_id) is None
