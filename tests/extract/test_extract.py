"""Pictures to a store: exact, resumed bit for bit after a kill, and nothing overwritten or left out in silence."""

import errno
import json
import os
import random
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

from datamodules.detector import BoxRule, Detector, FasterRCNN, read_picture, write_detector
from datamodules.extract import extraction
from datamodules.extract.__main__ import main
from datamodules.extract.verify import Way, _Port
from datamodules.formats.release_tsv import convert_tsv
from datamodules.release import own_folder
from datamodules.stores import RegionStore, StoreError, is_current, read_facts, skipped_list
from lxmert.config import detector_difference

ROOT = Path(__file__).parents[2]
SIZES = replace(CONFIG, short_side=64, long_side=106, widths=(4, 8, 8, 16), box_rule=BoxRule(6, 6))
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


def few(pictures, folder):
    photos = folder / "few"
    photos.mkdir()
    for number in range(3):
        shutil.copy(pictures / f"photo_{number:02}.png", photos)
    return photos


def extracted(pictures, out, weights, *more):
    return main([str(pictures), str(out), "--weights", str(weights), *map(str, more)])


def test_the_store_holds_what_the_detector_finds_and_tells_where_it_is_from(whole, weights, pictures):
    store, detector = RegionStore(whole / "out.h5"), Detector.open(weights)
    assert store.contract["detector"] == f"a random one [weights {detector.sha256[:12]}, boxes 6]"
    facts = read_facts(whole / "out.h5")
    assert facts["detector_sha256"] == detector.sha256 and facts["made_with"].startswith("extract 1, torch ")
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


def journal_of(out):
    return out.with_name(f".{out.name}.extraction") / "journal.tsv"


def lines_in(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_an_extraction_killed_again_and_again_ends_with_the_same_store_bit_for_bit(
    whole, weights, pictures, tmp_path
):
    out, kept = tmp_path / "out.h5", tmp_path / "out.tsv"
    command = [sys.executable, "-m", "datamodules.extract", pictures, out, "--weights", weights, "--tsv", kept]
    draw = random.Random()
    for at in (draw.randrange(1, 12), draw.randrange(14, 26)):
        process = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        while process.poll() is None and lines_in(journal_of(out)) < at:
            time.sleep(draw.uniform(0, 0.002))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not out.exists() and not kept.exists()
    done = journal_of(out).read_bytes()
    assert 3 <= done.count(b"\n") < PICTURES
    journal_of(out).write_bytes(done[:-40])  # and its last line was not written to its end
    assert extracted(pictures, out, weights, "--tsv", kept) == 0
    assert out.read_bytes() == (whole / "out.h5").read_bytes()
    assert kept.read_bytes() == (whole / "out.tsv").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} - {".out.h5.lock"} == {"out.h5", "out.tsv"}


@pytest.mark.parametrize("step", ["convert_regions", "_finish"])
def test_one_that_ends_between_its_last_picture_and_its_end_goes_on_too(
    whole, weights, pictures, tmp_path, monkeypatch, step
):
    def stop(*_):
        raise KeyboardInterrupt

    out, kept = tmp_path / "out.h5", tmp_path / "out.tsv"
    monkeypatch.setattr(extraction, step, stop)
    assert extracted(pictures, out, weights, "--tsv", kept) == 130
    assert out.exists() == (step == "_finish") and not kept.exists()
    monkeypatch.undo()
    with monkeypatch.context() as patched:
        patched.setattr(Detector, "detect", stop)  # all is known
        assert extracted(pictures, out, weights, "--tsv", kept) == 0
    assert out.read_bytes() == (whole / "out.h5").read_bytes()
    assert kept.read_bytes() == (whole / "out.tsv").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} - {".out.h5.lock"} == {"out.h5", "out.tsv"}


@pytest.mark.parametrize("other_disk", [False, True])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_one_that_ends_while_its_tsv_gets_its_place_still_has_it(
    whole, weights, pictures, tmp_path, monkeypatch, other_disk, moment
):
    """A kill runs no clean-up, so what is looked at is what lies there at that moment."""
    out, kept, killed = tmp_path / "out.h5", tmp_path / "out.tsv", tmp_path / "killed"
    replace_file = Path.replace

    def replaced(path, target):
        if path.parent.name == extraction.WHOLE and Path(target) == kept and other_disk:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        if Path(target) != kept:
            return replace_file(path, target)
        if moment == "before":
            shutil.copytree(tmp_path, killed, ignore=shutil.ignore_patterns("*.lock"))
        replace_file(path, target)
        if moment == "after":
            shutil.copytree(tmp_path, killed, ignore=shutil.ignore_patterns("*.lock"))

    monkeypatch.setattr(Path, "replace", replaced)
    assert extracted(pictures, out, weights, "--tsv", kept) == 0
    assert kept.read_bytes() == (whole / "out.tsv").read_bytes() and is_current(out, kept)
    monkeypatch.undo()
    assert extracted(pictures, killed / "out.h5", weights, "--tsv", killed / "out.tsv") == 0
    assert (killed / "out.tsv").read_bytes() == (whole / "out.tsv").read_bytes()
    assert not journal_of(killed / "out.h5").parent.exists()


def test_a_log_is_told_how_far_it_is(weights, pictures, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(extraction, "EVERY", 0.0)
    caplog.set_level("INFO")
    assert extracted(few(pictures, tmp_path), tmp_path / "out.h5", weights) == 0
    assert re.search(r"2 of 3 pictures, [0-9.]+ a second, 0 minutes left", caplog.text)


def test_training_takes_the_tsv_in_a_data_folder_for_what_the_store_was_made_of(whole):
    assert is_current(whole / "out.h5", whole / "out.tsv")


def test_training_on_ones_own_data_reads_the_store_by_the_pictures_names(whole, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.csv").write_text("question,image,answer\nis it?,photo_03.png,yes\n")
    (tmp_path / "stores" / "mine_imgfeat").mkdir(parents=True)
    shutil.copy(whole / "out.h5", tmp_path / "stores" / "mine_imgfeat" / "boxes.h5")
    release = own_folder(tmp_path, None, "mine", "mine_imgfeat", {})
    release.prepare(["train"])
    places = release.open_regions(["train"], 64)
    assert release.detectors == [RegionStore(whole / "out.h5").contract["detector"]]
    assert places.of(["photo_03.png", "photo_04.webp", "photo_3"], "train").tolist() == [3, 4, -1]
    again = own_folder(tmp_path, None, "mine", "mine_imgfeat", {})
    with pytest.raises(StoreError, match="regions have 64 features, the model expects 2048"):
        again.open_regions(["train"], 2048)


def started(pictures, tmp_path, weights, lines=4):
    """An extraction that stopped after some pictures: out, its journal."""
    out = tmp_path / "begun.h5"
    broken = pictures / f"photo_{lines:02}.png"
    content, stat = broken.read_bytes(), broken.stat()
    broken.write_bytes(b"no picture")
    assert extracted(pictures, out, weights) == 1
    broken.write_bytes(content)
    os.utime(broken, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert lines_in(journal_of(out)) == lines and not out.exists()
    return out, journal_of(out)


def test_what_has_changed_since_it_began_is_named_and_nothing_is_lost(weights, pictures, tmp_path, capsys):
    photos = tmp_path / "photos"
    shutil.copytree(pictures, photos)
    out, journal = started(photos, tmp_path, weights)
    before = journal.read_bytes()
    others = save(tmp_path / "others.safetensors", seed=1)
    assert extracted(photos, out, others) == 1
    assert "unfinished extraction with other settings: detector was" in capsys.readouterr().err
    assert extracted(photos, out, weights, "--boxes", "2-8") == 1
    assert "boxes 2-8" in capsys.readouterr().err
    (photos / "photo_01.png").rename(tmp_path / "photo_01.png")
    assert extracted(photos, out, weights) == 1
    assert "the picture of photo_01 was removed since the extraction began. Remove" in capsys.readouterr().err
    shutil.copy(photos / "photo_02.png", photos / "photo_01.png")
    assert extracted(photos, out, weights) == 1
    assert "the picture of photo_01 was changed" in capsys.readouterr().err
    assert journal.read_bytes() == before
    note = journal.with_name("note.json")
    content = note.read_text()
    note.write_text("[]")
    assert extracted(photos, out, weights) == 1
    assert "note.json does not tell what" in capsys.readouterr().err
    note.write_text(content.replace("torch ", "torch 1."))
    assert extracted(photos, out, weights) == 1
    assert "made_with was 'extract 1, torch 1." in capsys.readouterr().err
    note.write_text(content)
    (tmp_path / "photo_01.png").replace(photos / "photo_01.png")
    shutil.copy(photos / "photo_02.png", photos / "zzz_new.png")  # more are welcome
    assert extracted(photos, out, weights) == 0
    assert len(RegionStore(out)) == PICTURES + 1
    assert not journal.parent.exists()


@pytest.mark.parametrize("what", ["changed", "removed"])
def test_a_picture_that_changes_while_others_are_looked_at_is_named(
    weights, pictures, tmp_path, monkeypatch, capsys, what
):
    photos, out = few(pictures, tmp_path), tmp_path / "out.h5"
    detect, seen = Detector.detect, []

    def detected(*arguments):
        seen.append(arguments)
        if len(seen) == 3:
            (photos / "photo_00.png").unlink()
            if what == "changed":
                shutil.copy(pictures / "photo_09.png", photos / "photo_00.png")
        return detect(*arguments)

    monkeypatch.setattr(Detector, "detect", detected)
    for _ in range(2):
        assert extracted(photos, out, weights) == 1
        said = capsys.readouterr().err
        assert f"the picture of photo_00 was {what} since the extraction began. Remove the folder" in said
        assert not out.exists() and lines_in(journal_of(out)) == 3


def test_a_store_that_is_there_is_kept_and_never_overwritten(whole, weights, pictures, tmp_path, capsys):
    shutil.copy(whole / "out.h5", tmp_path / "out.h5")
    before = (tmp_path / "out.h5").stat().st_mtime_ns
    assert extracted(pictures, tmp_path / "out.h5", weights) == 0
    (tmp_path / "mine.tsv").write_text("mine")
    for more, said in (
        (["--boxes", "3"], "is there already, of other pictures or another detector"),
        (["--tsv", tmp_path / "late.tsv"], "a TSV is made only together with"),
        (["--tsv", tmp_path / "mine.tsv"], "mine.tsv is not of"),
    ):
        assert extracted(pictures, tmp_path / "out.h5", weights, *more) == 1
        assert said in capsys.readouterr().err
    shutil.copy2(whole / "out.tsv", tmp_path / "out.tsv")
    assert extracted(pictures, tmp_path / "out.h5", weights, "--tsv", tmp_path / "out.tsv") == 0
    assert (tmp_path / "out.h5").stat().st_mtime_ns == before
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
    for _ in range(2):
        assert extracted(photos, tmp_path / "out.h5", weights, "--on-error", "skip") == 0
        assert "2 pictures were left out, see" in capsys.readouterr().out
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
    assert "boxes of 1 images that are not among the pictures" in capsys.readouterr().out
    store = RegionStore(tmp_path / "out.h5")
    torch.testing.assert_close(store.read([0])[1][0] * torch.tensor([123, 90, 123, 90]), torch.tensor(given))
    expected = Detector.open(weights).detect(read_picture(photos / "one.png"), boxes=np.array(given, np.float32))
    torch.testing.assert_close(store.read([0])[0][0], torch.from_numpy(expected.features).half())
    assert store.contract["detector"].endswith("boxes given]")
    for number, (content, said) in enumerate(
        (
            ([1], "expected an object"),
            ({"one": []}, "image one: .*; expected a list of one box or more"),
            ({"one": [[1, 2, 3]]}, "image one: box 0 is .1, 2, 3."),
            ({"one": [[1, 2, 3, "4"]]}, "image one: box 0 is"),
            ({"one": [[1, 2, 3, 10**400]]}, "image one: box 0 is .*; no picture is so large"),
            (
                {"one": [[0.1, 0.2, 0.5, 0.9]]},
                "one.png: boxes in fractions of the image, expected pixels.*--on-error",
            ),
            ({"two": given}, "no boxes are given for 1 of the 1 pictures, the first being one"),
            ({"one": [[0, 0, 500, 10]]}, "box 0 is .*; expected x1 y1 x2 y2 in pixels of a picture of 123 x 90"),
        )
    ):
        file.write_text(json.dumps(content))
        assert extracted(photos, tmp_path / f"new{number}.h5", weights, "--given-boxes", file) == 1
        error = capsys.readouterr().err
        assert re.search(said, error), error


def test_a_store_and_a_tsv_are_not_taken_for_each_other(weights, pictures, tmp_path, capsys):
    assert extracted(pictures, tmp_path / "out.tsv", weights) == 1
    assert "expected the store to make, a name in .h5; --tsv FILE" in capsys.readouterr().err
    assert extracted(pictures, tmp_path / "out.h5", weights, "--verify") == 1
    assert "a store, expected a TSV of the released format" in capsys.readouterr().err


def test_weights_that_are_none_and_pictures_that_are_not_there_are_named(weights, pictures, tmp_path, capsys):
    (tmp_path / "other.safetensors").write_bytes(b"something else")
    for arguments, said in (
        ((pictures, tmp_path / "a.h5", tmp_path / "no.safetensors"), "there is no detector"),
        ((pictures, tmp_path / "a.h5", tmp_path / "other.safetensors"), "no safetensors file"),
        ((tmp_path / "no", tmp_path / "a.h5", weights), "there is no such folder"),
        ((pictures, tmp_path / "a.h5", weights, "--boxes", "many"), "box rule 'many'"),
        ((pictures, tmp_path / "a.h5", weights, "--device", "cuda:77"), "error: --device cuda:77: "),
        ((pictures, tmp_path / "a.h5", weights, "--device", "toaster"), "error: --device toaster: "),
    ):
        assert extracted(*arguments) == 1
        assert said in capsys.readouterr().err
    for options in (["--boxes", "3", "--given-boxes", "x"], ["--verify", "--tsv", "x"]):
        with pytest.raises(SystemExit):
            extracted(pictures, tmp_path / "a.h5", weights, *options)


def test_numbers_that_a_store_cannot_hold_are_the_pictures_error_and_not_the_stores(
    weights, pictures, tmp_path, capsys, monkeypatch
):
    detect = Detector.detect

    def overflowing(self, *arguments):
        found = detect(self, *arguments)
        found.features[1, 2] = np.inf
        return found

    monkeypatch.setattr(Detector, "detect", overflowing)
    assert extracted(pictures, tmp_path / "out.h5", weights) == 1
    said = capsys.readouterr().err
    assert f"{pictures / 'photo_00.png'}: feature 2 of region 1 is inf, expected" in said
    assert "datamodules" not in said  # the advice of another command


# -------------------------------------------------------------------------------------------- verify


def verified(capsys, photos, tsv, weights):
    status = main([str(photos), str(tsv), "--weights", str(weights), "--verify"])
    return status, " ".join(capsys.readouterr().out.split())


def test_the_same_detector_matches_its_own_tsv(whole, weights, pictures, tmp_path, capsys):
    status, said = verified(capsys, few(pictures, tmp_path), whole / "out.tsv", weights)
    assert status == 0 and "match: 3 of 3 pictures" in said and "probably" not in said
    assert "27 more images of the TSV have no picture here" in said


def tsv_of_a_port(photos, folder, weights, way, monkeypatch, *more):
    """The TSV that a detector makes that looks at pictures in another way."""
    detect = Detector.detect

    def as_the_port(self, *given):
        found = detect(_Port(self, way), *given)
        return replace(found, boxes=found.boxes.clip(0, [*found.size, *found.size]).astype(np.float32))

    with monkeypatch.context() as patched:
        patched.setattr(Detector, "detect", as_the_port)
        assert extracted(photos, folder / "port.h5", weights, "--tsv", folder / "port.tsv", *more) == 0
    return folder / "port.tsv"


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Pictures in which a part of a pixel is much."""
    folder, make = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for number, size in enumerate([(85, 121), (85, 121), (131, 78)]):
        Image.fromarray(make.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"noise_{number}.png")
    return folder


@pytest.mark.parametrize(
    "way",
    [
        Way(exchanged=True),
        Way(resizing="torch's interpolate"),
        Way(resizing="Pillow"),
        Way(ports_sides=True),
        Way(exchanged=True, resizing="torch's interpolate"),  # as the hub's
    ],
    ids=str,
)
def test_how_the_pictures_of_a_tsv_were_prepared_is_found_out(way, weights, noise, tmp_path, capsys, monkeypatch):
    status, said = verified(capsys, noise, tsv_of_a_port(noise, tmp_path, weights, way, monkeypatch), weights)
    assert status == 1 and "NO MATCH" in said
    assert f"probably: the TSV was made with {way}: so, features of its own boxes match." in said
    assert f"probably: the TSV's boxes are found with: {way}" not in said.replace(f"{way}, 6 boxes", "")


def test_how_the_boxes_of_a_tsv_were_chosen_is_found_out(weights, noise, tmp_path, capsys, monkeypatch):
    tsv = tsv_of_a_port(noise, tmp_path, weights, Way(), monkeypatch, "--boxes", "9")
    status, said = verified(capsys, noise, tsv, weights)
    assert status == 1 and "probably: the TSV's boxes are found with: 9 boxes." in said
    assert main([str(noise), str(tsv), "--weights", str(weights), "--verify", "--boxes", "9"]) == 0

    (tmp_path / "ports").mkdir()
    tsv = tsv_of_a_port(noise, tmp_path / "ports", weights, Way(pixel=0), monkeypatch)
    status, said = verified(capsys, noise, tsv, weights)
    assert status == 1
    assert "the TSV's boxes are found with: boxes without the 1 of their last pixel, and up to the border" in said


def test_other_weights_and_moved_boxes_are_told_of(whole, weights, pictures, noise, tmp_path, capsys, monkeypatch):
    others = save(tmp_path / "others.safetensors", seed=1)
    status, said = verified(capsys, few(pictures, tmp_path), whole / "out.tsv", others)
    assert status == 1 and "probably: other weights" in said

    middle = {path.stem: [[30, 30, 60, 55], [10, 20, 50, 60]] for path in noise.iterdir()}
    (tmp_path / "middle.json").write_text(json.dumps(middle))
    tsv = tsv_of_a_port(noise, tmp_path, weights, Way(), monkeypatch, "--given-boxes", tmp_path / "middle.json")
    status, said = verified(capsys, noise, tsv, weights)
    assert status == 1 and "probably: weights and preparation of the pictures are right, and what differs" in said


def test_a_tsv_of_something_else_cannot_be_verified(whole, weights, pictures, tmp_path, capsys):
    photos = few(pictures, tmp_path)
    (photos / "photo_00.png").rename(photos / "unknown.png")
    (photos / "photo_01.png").unlink()
    (photos / "photo_02.png").unlink()
    assert main([str(photos), str(whole / "out.tsv"), "--weights", str(weights), "--verify"]) == 1
    assert "none of its 30 images, such as photo_00, is among the 1 pictures" in capsys.readouterr().err
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
