"""Pictures to a store: exact, resumed bit for bit after a kill, and nothing overwritten or left out in silence."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detectors import CONFIG, tame
from PIL import Image

import datamodules.detector.detector as used
from datamodules.detector import BoxRule, Detector, FasterRCNN, read_picture, write_detector
from datamodules.detector.resizing import Resized
from datamodules.extract.__main__ import main
from datamodules.extract.pictures import find_pictures
from datamodules.formats.release_tsv import convert_tsv
from datamodules.stores import RegionStore, read_facts, skipped_list
from lxmert.config import detector_difference
from lxmert.files import InputError

ROOT = Path(__file__).parents[2]
SIZES = replace(CONFIG, short_side=96, long_side=160, widths=(4, 8, 8, 16), box_rule=BoxRule(6, 6))
PICTURES = 30


def save(path, seed=0, config=SIZES):
    names = {"object_names": [f"thing {i}" for i in range(9)], "attribute_names": [f"so {i}" for i in range(8)]}
    write_detector(path, config, tame(FasterRCNN(config), seed).state_dict(), name="a random one", **names)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights") / "detector.safetensors")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures") / "photos"
    folder.mkdir()
    make = np.random.default_rng(0)
    for number in range(PICTURES):
        small = Image.fromarray(make.integers(0, 255, (7, 9, 3), dtype=np.uint8))
        small.resize((120 + number, 90), Image.Resampling.BICUBIC).save(folder / f"photo_{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def whole(weights, pictures, tmp_path_factory):
    """An uninterrupted extraction: store and TSV."""
    folder = tmp_path_factory.mktemp("whole")
    command = [str(pictures), str(folder / "out.h5"), "--weights", str(weights)]
    assert main([*command, "--tsv", str(folder / "out.tsv")]) == 0
    return folder


def extracted(pictures, out, weights, *more):
    return main([str(pictures), str(out), "--weights", str(weights), *map(str, more)])


def test_the_store_holds_what_the_detector_finds_and_tells_where_it_is_from(whole, weights, pictures):
    store, detector = RegionStore(whole / "out.h5"), Detector.open(weights)
    assert store.contract["detector"] == f"a random one [weights {detector.sha256[:12]}, boxes 6]"
    facts = read_facts(whole / "out.h5")
    assert facts["detector_sha256"] == detector.sha256 and facts["made_with"].startswith("torch ")
    assert store.names == (list(detector.object_names), list(detector.attribute_names))
    for number, image in enumerate(store.image_ids.tolist()):
        found = detector.detect(read_picture(pictures / f"{image.decode()}.png"))
        features, boxes, _ = store.read([number])
        n, sides = len(found), np.array([*found.size, *found.size], np.float32)
        torch.testing.assert_close(features[0, :n], torch.from_numpy(found.features).half())
        torch.testing.assert_close(boxes[0, :n], torch.from_numpy(found.boxes / sides))
        ids, sure = store.labels([number])[:2]
        assert ids[0, :n].tolist() == found.labels["object_ids"].tolist()
        torch.testing.assert_close(sure[0, :n], torch.from_numpy(found.labels["object_conf"]))
        assert store.image_size([number])[0].tolist() == list(found.size)
    assert number == PICTURES - 1


def test_the_tsv_is_converted_to_the_same_regions(whole, tmp_path):
    convert_tsv(whole / "out.tsv", tmp_path / "again.h5", detector="x", progress=False)
    ours, again = RegionStore(whole / "out.h5"), RegionStore(tmp_path / "again.h5")
    everything = range(PICTURES)
    for one, other in zip(ours.read(everything), again.read(everything), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("tsv", [False, True])
def test_a_killed_extraction_goes_on_to_the_same_store_bit_for_bit(whole, weights, pictures, tmp_path, tsv):
    out, kept = tmp_path / "out.h5", tmp_path / "out.tsv"
    journal = kept if tsv else tmp_path / ".out.h5.extraction" / "photos.tsv"
    more = ["--tsv", str(kept)] if tsv else []
    command = [
        sys.executable,
        "-m",
        "datamodules.extract",
        str(pictures),
        str(out),
        "--weights",
        str(weights),
        *more,
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = journal.read_bytes()
    assert not out.exists() and 3 <= done.count(b"\n") < PICTURES
    journal.write_bytes(done[:-40])  # and its last line was not written to its end
    assert extracted(pictures, out, weights, *more) == 0
    names = {path.name for path in tmp_path.iterdir()} - {".out.h5.lock"}
    assert names == ({"out.h5", "out.tsv"} if tsv else {"out.h5"})
    if tsv:
        assert out.read_bytes() == (whole / "out.h5").read_bytes()
        assert kept.read_bytes() == (whole / "out.tsv").read_bytes()
    else:  # the source has another name
        uninterrupted = tmp_path / "again" / "out.h5"
        assert extracted(pictures, uninterrupted, weights) == 0
        assert out.read_bytes() == uninterrupted.read_bytes()


def started(pictures, tmp_path, weights, lines=4):
    """An extraction that was killed after some pictures, made by hand: out, journal."""
    out, tsv = tmp_path / "begun.h5", tmp_path / "begun.tsv"
    broken = pictures / f"photo_{lines:02}.png"
    content, stat = broken.read_bytes(), broken.stat()
    broken.write_bytes(b"no picture")
    assert extracted(pictures, out, weights, "--tsv", tsv) == 1
    broken.write_bytes(content)
    os.utime(broken, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert tsv.read_bytes().count(b"\n") == lines and not out.exists()
    return out, tsv


def test_what_has_changed_since_it_began_is_named_and_nothing_is_lost(weights, pictures, tmp_path, capsys):
    photos = tmp_path / "photos"
    shutil.copytree(pictures, photos)
    out, tsv = started(photos, tmp_path, weights)
    before = tsv.read_bytes()
    others = save(tmp_path / "others.safetensors", seed=1)
    assert extracted(photos, out, others, "--tsv", tsv) == 1
    assert "unfinished extraction with other settings: detector was" in capsys.readouterr().err
    assert extracted(photos, out, weights, "--tsv", tsv, "--boxes", "2-8") == 1
    assert "boxes 2-8" in capsys.readouterr().err
    (photos / "photo_01.png").rename(tmp_path / "photo_01.png")
    assert extracted(photos, out, weights, "--tsv", tsv) == 1
    assert "the picture of photo_01 was removed since the extraction began. Remove" in capsys.readouterr().err
    shutil.copy(photos / "photo_02.png", photos / "photo_01.png")
    assert extracted(photos, out, weights, "--tsv", tsv) == 1
    assert "the picture of photo_01 was changed" in capsys.readouterr().err
    assert tsv.read_bytes() == before
    (tmp_path / "photo_01.png").replace(photos / "photo_01.png")
    shutil.copy(photos / "photo_02.png", photos / "zzz_new.png")  # more are welcome
    assert extracted(photos, out, weights, "--tsv", tsv) == 0
    assert len(RegionStore(out)) == PICTURES + 1 and tsv.read_bytes().startswith(before)


def test_a_store_that_is_there_is_kept_and_never_overwritten(whole, weights, pictures, tmp_path, capsys):
    shutil.copy(whole / "out.h5", tmp_path / "out.h5")
    before = (tmp_path / "out.h5").stat().st_mtime_ns
    assert extracted(pictures, tmp_path / "out.h5", weights) == 0
    for more in (["--boxes", "3"], ["--tsv", tmp_path / "late.tsv"]):
        assert extracted(pictures, tmp_path / "out.h5", weights, *more) == 1
        assert "Remove it" in (said := capsys.readouterr().err) or "or remove it" in said
    assert (tmp_path / "out.h5").stat().st_mtime_ns == before
    (tmp_path / "mine.tsv").write_text("mine")
    assert extracted(pictures, tmp_path / "new.h5", weights, "--tsv", tmp_path / "mine.tsv") == 1
    assert "is there already, and nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / "mine.tsv").read_text() == "mine"


def test_a_broken_picture_is_named_or_left_out_and_listed(weights, pictures, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(pictures / "photo_00.png", photos / "good.png")
    (photos / "bad.jpg").write_bytes(b"no picture")
    Image.new("RGB", (3000, 2)).save(photos / "thin.png")
    assert extracted(photos, tmp_path / "out.h5", weights) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {photos / 'bad.jpg'}: not a picture") and "--on-error skip" in said
    assert extracted(photos, tmp_path / "out.h5", weights, "--on-error", "skip") == 0
    assert RegionStore(tmp_path / "out.h5").image_ids.tolist() == [b"good"]
    listed = skipped_list(tmp_path / "out.h5").read_text().splitlines()
    assert [line.split(":")[0] for line in listed] == [str(photos / "bad.jpg"), str(photos / "thin.png")]
    (photos / "good.png").unlink()
    assert extracted(photos, tmp_path / "none.h5", weights, "--on-error", "skip") == 1
    assert "none of its 2 pictures can be used" in capsys.readouterr().err


def test_given_boxes_are_described_in_their_order(weights, pictures, tmp_path, capsys):
    photos, file = tmp_path / "photos", tmp_path / "boxes.json"
    photos.mkdir()
    shutil.copy(pictures / "photo_03.png", photos / "one.png")
    given = [[5, 6, 70, 80], [0, 0, 123, 90], [5, 6, 70.5, 80]]
    file.write_text(json.dumps({"one": given, "other": [[0, 0, 1, 1]]}))
    assert extracted(photos, tmp_path / "out.h5", weights, "--given-boxes", file) == 0
    store = RegionStore(tmp_path / "out.h5")
    torch.testing.assert_close(store.read([0])[1][0] * torch.tensor([123, 90, 123, 90]), torch.tensor(given))
    expected = Detector.open(weights).detect(read_picture(photos / "one.png"), boxes=np.array(given, np.float32))
    torch.testing.assert_close(store.read([0])[0][0], torch.from_numpy(expected.features).half())
    assert store.contract["detector"].endswith("boxes given]")
    for content, said in (
        ([1], "expected an object"),
        ({"one": []}, "image one: .*; expected a list of one box or more"),
        ({"one": [[1, 2, 3]]}, "image one: box 0 is .1, 2, 3."),
        ({"one": [[1, 2, 3, "4"]]}, "image one: box 0 is"),
        ({"two": given}, "no boxes are given for 1 of the 1 pictures, the first being one"),
        ({"one": [[0, 0, 500, 10]]}, "box 0 is .*; expected x1 y1 x2 y2 in pixels of a picture of 123 x 90"),
    ):
        file.write_text(json.dumps(content))
        assert extracted(photos, tmp_path / f"new{len(said)}.h5", weights, "--given-boxes", file) == 1
        error = capsys.readouterr().err
        assert re.search(said, error), error


def test_weights_that_are_none_and_pictures_that_are_not_there_are_named(weights, pictures, tmp_path, capsys):
    (tmp_path / "other.safetensors").write_bytes(b"something else")
    for arguments, said in (
        ((pictures, tmp_path / "a.h5", tmp_path / "no.safetensors"), "there is no detector"),
        ((pictures, tmp_path / "a.h5", tmp_path / "other.safetensors"), "no safetensors file"),
        ((tmp_path / "no", tmp_path / "a.h5", weights), "there is no such folder"),
        ((pictures, tmp_path / "a.h5", weights, "--boxes", "many"), "box rule 'many'"),
    ):
        assert extracted(*arguments) == 1
        assert said in capsys.readouterr().err


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


# -------------------------------------------------------------------------------------------- verify


def few(pictures, folder):
    photos = folder / "few"
    photos.mkdir()
    for number in range(3):
        shutil.copy(pictures / f"photo_{number:02}.png", photos)
    return photos


def verified(capsys, photos, tsv, weights):
    status = main([str(photos), str(tsv), "--weights", str(weights), "--verify"])
    return status, " ".join(capsys.readouterr().out.split())


def test_the_same_detector_matches_its_own_tsv(whole, weights, pictures, tmp_path, capsys):
    status, said = verified(capsys, few(pictures, tmp_path), whole / "out.tsv", weights)
    assert status == 0 and "match: 3 of 3 pictures" in said and "probably" not in said


def test_what_a_tsv_was_made_with_is_found_out(weights, pictures, tmp_path, capsys, monkeypatch):
    photos = few(pictures, tmp_path)
    exchanged = tmp_path / "exchanged"
    exchanged.mkdir()
    for path in photos.iterdir():
        Image.fromarray(np.asarray(Image.open(path))[..., ::-1].copy()).save(exchanged / path.name)
    assert extracted(exchanged, tmp_path / "rgb.h5", weights, "--tsv", tmp_path / "rgb.tsv") == 0
    status, said = verified(capsys, photos, tmp_path / "rgb.tsv", weights)
    assert status == 1 and "NO MATCH: 0 of 3" in said
    assert "probably: the TSV was made with red and blue exchanged" in said

    assert extracted(photos, tmp_path / "more.h5", weights, "--tsv", tmp_path / "more.tsv", "--boxes", "2-30") == 0
    status, said = verified(capsys, photos, tmp_path / "more.tsv", weights)
    assert status == 1 and "features of the TSV's own boxes match" in said and "boxes a picture, and the" in said

    others = save(tmp_path / "others.safetensors", seed=1)
    assert extracted(photos, tmp_path / "own.h5", weights, "--tsv", tmp_path / "own.tsv") == 0
    status, said = verified(capsys, photos, tmp_path / "own.tsv", others)
    assert status == 1 and "probably: features of the TSV's own boxes do not match, however the picture" in said

    def by_torch(picture, config):
        image, scale = resize(picture, config)
        plain = torch.from_numpy(picture - np.array(config.pixel_mean, np.float32)).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(plain, image.shape[1:], mode="bilinear")[0]
        return Resized(resized.numpy(), scale)

    make = np.random.default_rng(0)
    for path in photos.iterdir():  # in noise a part of a pixel is much
        Image.fromarray(make.integers(0, 255, (85, 121, 3), dtype=np.uint8)).save(path)

    resize = used.resize
    monkeypatch.setattr(used, "resize", by_torch)
    assert extracted(photos, tmp_path / "port.h5", weights, "--tsv", tmp_path / "port.tsv") == 0
    monkeypatch.setattr(used, "resize", resize)
    status, said = verified(capsys, photos, tmp_path / "port.tsv", weights)
    assert status == 1 and "made with the picture resized by torch's interpolate" in said


def test_a_tsv_of_something_else_cannot_be_verified(whole, weights, pictures, tmp_path, capsys):
    photos = few(pictures, tmp_path)
    (photos / "photo_00.png").rename(photos / "unknown.png")
    (photos / "photo_01.png").unlink()
    (photos / "photo_02.png").unlink()
    assert main([str(photos), str(whole / "out.tsv"), "--weights", str(weights), "--verify"]) == 1
    assert "none of its 30 images is among the 1 pictures" in capsys.readouterr().err
    Image.open(photos / "unknown.png").resize((50, 50)).save(photos / "photo_05.png")
    assert main([str(photos), str(whole / "out.tsv"), "--weights", str(weights), "--verify"]) == 1
    assert "the picture has 50 x 50 pixels, in the TSV 125 x 90" in capsys.readouterr().err


def test_stores_of_other_weights_or_boxes_are_another_detectors():
    name = "a detector, of two words"
    ours = f"{name} [weights 0123456789ab, boxes 36]"
    for same in (None, "", ours, name, f"{name} [weights 0123456789ab]", f"{name} [boxes 36]"):
        assert detector_difference(ours, same) == "" and detector_difference(same, ours) == ""
    theirs = f"{name} [weights ffffffffffff, boxes 36]", f"{name} [weights 0123456789ab, boxes 10-100]"
    for other in ("another", *theirs):
        assert "features of another detector" in detector_difference(ours, other)
        assert repr(other) in detector_difference(other, ours)
