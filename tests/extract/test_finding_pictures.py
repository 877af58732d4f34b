"""Which pictures there are, and what they are called."""

import pytest

from datamodules.extract.pictures import find_pictures
from lxmert.files import InputError


def test_the_pictures_of_a_folder_and_its_folders_go_by_their_names(tmp_path):
    (tmp_path / "part").mkdir()
    for name in ("b.PNG", "a.jpg", "part/c.jpeg", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    found = find_pictures(tmp_path)
    assert list(found) == ["a", "b", "c"] and found["c"] == tmp_path / "part" / "c.jpeg"
    (tmp_path / "list.txt").write_text("b.PNG\n\npart/c.jpeg\n")
    assert list(find_pictures(tmp_path / "list.txt")) == ["b", "c"]
    assert list(find_pictures(tmp_path / "a.jpg")) == ["a"]


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
    (tmp_path / "secret.png").unlink()
    with pytest.raises(InputError, match=r"b.png: a link that leads .* nowhere"):
        find_pictures(folder)
    (folder / "b.png").unlink()
    (folder / "b.png").symlink_to("a.png")
    assert list(find_pictures(folder)) == ["a", "b"]
    (folder / "elsewhere").symlink_to(tmp_path)
    (tmp_path / "c.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"elsewhere/c.png: a link that leads out of the folder"):
        find_pictures(folder)
    (folder / "list.txt").write_text("a.png\nno.png\n")
    with pytest.raises(FileNotFoundError, match="line 2: there is no picture"):
        find_pictures(folder / "list.txt")
    with pytest.raises(InputError, match="no text; expected a folder"):
        (folder / "list.txt").write_bytes(b"\xff\xfe\xff")
        find_pictures(folder / "list.txt")


@pytest.mark.parametrize("name", ["with\ttab", "with\nline", "\udcff\udcfe"])
def test_a_picture_whose_name_is_no_id_is_to_be_renamed(tmp_path, name):
    (tmp_path / f"{name}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a picture called b'.*\.png': img_id .*\. Rename it\.") as error:
        find_pictures(tmp_path)
    assert str(error.value).isprintable()
