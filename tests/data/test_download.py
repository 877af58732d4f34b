"""Downloading, against a server in a thread that breaks off, lies, and has moved its files."""

import hashlib
import io
import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Server, serving

from datamodules.download import __main__ as module
from datamodules.download import fetching
from datamodules.download.__main__ import LIST, SETS, main, read_list
from datamodules.stores.hdf5 import StoreError

CONTENT, OTHER = (b'["%b"]' % random.Random(seed).randbytes(255_998).hex().encode() for seed in (0, 1))  # 512,000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "RETRY_WAITS", (0.0, 0.0))
    monkeypatch.setattr(fetching, "TIMEOUT", 3)
    with serving() as server:
        yield server


@pytest.fixture
def fetch(server, tmp_path, capsys, monkeypatch):
    """Run the command on a list of one file, with the server and a mirror on the same machine."""

    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments, servers=("",), **entry):
        entry = {"for": ["vqa"], "server": "here", "path": "a.json", "to": "vqa/a.json", **entry}
        entry = {key: value for key, value in entry.items() if value is not None}
        bases = [server.url + base for base in servers]
        listing = tmp_path / "list.yaml"
        listing.write_text(yaml.safe_dump({"servers": {"here": bases}, "files": [entry]}))
        code = main(["vqa", "--to", str(tmp_path / "data"), *arguments], listing)
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def archive(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def names(folder):
    """All files but the record of what was got."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*") if path.is_file())
    return sorted(name for name in found if name != module.RECORD)


# ----------------------------------------------------------------------------------------- fetching


def test_a_file_is_fetched_once(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT
    for _ in range(2):
        code, _, _ = fetch(bytes=len(CONTENT), sha256=SHA256)
        assert code == 0
    assert names(tmp_path / "data") == ["vqa/a.json"]
    assert (tmp_path / "data" / "vqa" / "a.json").read_bytes() == CONTENT
    assert server.asked == [("/a.json", None)]


def test_a_broken_connection_is_taken_up_again_where_it_was(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT
    server.breaks = [1000, 50_000, 3]
    assert fetch(bytes=len(CONTENT), sha256=SHA256)[0] == 0
    assert [wanted for _, wanted in server.asked] == [None, "bytes=1000-", "bytes=51000-", "bytes=51003-"]
    assert names(tmp_path / "data") == ["vqa/a.json"]


def test_the_next_run_goes_on_where_the_last_one_stopped(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT
    server.breaks = [1000, 0, 0]
    code, _, err = fetch()
    assert code == 1
    assert "the connection broke at byte 1,000 and could not be taken up again" in err
    assert not (tmp_path / "data" / "vqa" / "a.json").exists()
    assert "1.0 kB of it" in fetch("--list")[1]
    server.asked.clear()
    assert fetch()[0] == 0
    assert server.asked == [("/a.json", "bytes=1000-")]
    assert (tmp_path / "data" / "vqa" / "a.json").read_bytes() == CONTENT


@settings(max_examples=20, deadline=None)
@given(breaks=st.lists(st.integers(0, 3000), max_size=6), ranges=st.booleans())
def test_however_it_is_interrupted_the_file_comes_out_the_same(tmp_path_factory, breaks, ranges):
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch, serving() as server:
        server.files["/a"], server.breaks, server.ranges = CONTENT[:5000], breaks, ranges
        one = module.Download((f"{server.url}/a",), ("a",), False, None, False, None, "", False, "")
        patch.setattr(fetching, "RETRY_WAITS", ())
        while module.download([one], folder):
            assert not (folder / "a").exists()
    assert (folder / "a").read_bytes() == CONTENT[:5000]


def test_a_server_without_ranges_starts_over(server, fetch, tmp_path):
    server.files["/a.json"], server.ranges = CONTENT, False
    server.breaks = [1000]
    assert fetch(bytes=len(CONTENT), sha256=SHA256)[0] == 0
    assert (tmp_path / "data" / "vqa" / "a.json").read_bytes() == CONTENT


def test_a_file_that_has_changed_since_is_not_joined_to_the_old_part(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT
    server.breaks = [1000, 0, 0]
    assert fetch()[0] == 1
    server.files["/a.json"], server.etag = OTHER, '"2"'
    assert fetch()[0] == 0
    assert (tmp_path / "data" / "vqa" / "a.json").read_bytes() == OTHER


def test_a_partial_file_that_turns_out_wrong_is_fetched_anew(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT
    part = tmp_path / "data" / "vqa" / "a.json.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"from somewhere else")
    assert fetch(bytes=len(CONTENT), sha256=SHA256)[0] == 0
    assert names(tmp_path / "data") == ["vqa/a.json"]
    assert [wanted for _, wanted in server.asked] == ["bytes=19-", None]


def test_a_part_that_is_already_whole_is_only_checked_and_renamed(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT
    part = tmp_path / "data" / "vqa" / "a.json.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert fetch(bytes=len(CONTENT), sha256=SHA256)[0] == 0
    assert [wanted for _, wanted in server.asked] == [f"bytes={len(CONTENT)}-"]


# ------------------------------------------------------------------------------ what servers do wrong


def test_the_second_server_is_asked_when_the_first_has_no_such_file(server, fetch, tmp_path):
    server.files["/mirror/a.json"] = CONTENT
    code, _, err = fetch(servers=("/moved", "/mirror"))
    assert code == 0, err
    assert (tmp_path / "data" / "vqa" / "a.json").read_bytes() == CONTENT


def test_when_no_server_has_it_each_one_s_reason_is_told(server, fetch):
    server.files["/mirror/a.json"] = b"short"
    code, _, err = fetch(servers=("/moved", "/mirror", ":1"), bytes=len(CONTENT))
    assert code == 1
    assert f"{server.url}/moved/a.json: 404" in err
    assert f"{server.url}/mirror/a.json: the server has 5 bytes, expected 512,000" in err
    assert f"{server.url}:1/a.json: " in err


def test_a_dead_server_is_passed_over_at_once(server, tmp_path, monkeypatch):
    server.files["/a"] = CONTENT
    dead = Server()
    dead.server_close()
    monkeypatch.setattr(fetching, "RETRY_WAITS", (600.0,))
    one = module.Download((f"{dead.url}/a", f"{server.url}/a"), ("a",), False, None, False, None, "", False, "")
    assert module.download([one], tmp_path) == []
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_wrong_hash_is_refused_and_leaves_nothing(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT[:-1] + b"!"
    code, _, err = fetch(bytes=len(CONTENT), sha256=SHA256)
    assert code == 1
    assert "its SHA-256 is" in err
    assert SHA256 in err
    assert names(tmp_path / "data") == []


def test_a_size_that_only_shows_at_the_end_is_refused(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT[:1000]
    server.length = len(CONTENT)  # announced, and not kept
    code, _, err = fetch(bytes=len(CONTENT))
    assert code == 1
    assert "it is of 1,000 bytes, expected 512,000" in err
    assert not (tmp_path / "data" / "vqa" / "a.json").exists()


def test_a_web_page_in_place_of_the_file_is_refused(server, fetch, tmp_path):
    server.files["/a.json"], server.content_type = b"<html>moved</html>", "text/html; charset=utf-8"
    code, _, err = fetch()
    assert code == 1
    assert "the server answers with a web page" in err
    assert names(tmp_path / "data") == []


def test_one_file_that_fails_does_not_keep_the_others_from_coming(server, tmp_path, capsys):
    server.files["/b.json"] = CONTENT
    entries = [{"for": ["vqa"], "server": "here", "path": f"{name}.json", "to": f"{name}.json"} for name in "ab"]
    (tmp_path / "list.yaml").write_text(
        yaml.safe_dump(
            {"servers": {"here": [server.url]}, "files": entries, "by_hand": {"here": "Ask the author."}}
        )
    )
    assert main(["vqa", "--to", str(tmp_path / "data")], tmp_path / "list.yaml") == 1
    assert names(tmp_path / "data") == ["b.json"]
    err = capsys.readouterr().err
    assert "Ask the author." in err
    assert "run the same command again" in err


def answer(*headers, status="200 OK", body=b"[]"):
    """The bytes of an answer."""
    return ["\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1"), body]


def endless(head):
    yield from head
    yield b"[1"
    while True:
        yield b",1" * 50_000


@pytest.mark.parametrize(
    ("known", "most"),
    [({"bytes": 1000}, 1000), ({"gb": 0.0005}, 1_000_000), ({}, 2_000_000), ({"sha256": SHA256}, 2_000_000)],
)
@pytest.mark.parametrize("chunked", [False, True, "negative"])
def test_a_server_that_does_not_end_is_stopped_at_the_expected_size(
    server, fetch, tmp_path, monkeypatch, known, most, chunked
):
    monkeypatch.setattr(module, "MOST_UNKNOWN", 2_000_000)
    head = answer("Transfer-Encoding: chunked" if chunked else "Content-Type: application/json", body=b"")
    head += [b"-5\r\n" if chunked == "negative" else b"fffffffff\r\n"] if chunked else []
    server.raw["/a.json"] = endless(head)
    code, _, err = fetch(**known)
    assert code == 1
    assert f"the server sends more than {most:,} bytes" in err
    assert server.sent < most + 10_000_000  # what the two sides' buffers hold
    assert names(tmp_path / "data") == []


def test_a_size_far_from_the_stated_one_is_refused_before_anything_is_fetched(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT
    for gb, size in ((0.0001, "100.0 kB"), (0.006, "6.0 MB")):
        code, _, err = fetch(gb=gb)
        assert code == 1
        assert f"the server has 512,000 bytes, expected about {size}" in err
    assert names(tmp_path / "data") == []
    assert fetch(gb=0.0005)[0] == 0


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (answer("Content-Encoding: gzip"), "sends it encoded, Content-Encoding: gzip"),
        (answer("Content-Encoding: br"), "sends it encoded, Content-Encoding: br"),
        (answer("Transfer-Encoding: gzip, chunked"), "sends it encoded, Transfer-Encoding: gzip, chunked"),
        (answer("Content-Type: text/html"), "answers with a web page"),
        (answer("Content-Type: application/xml"), "answers with a web page or a message (application/xml)"),
        (answer(body=b"\n<!doctype html>sorry"), "answers with a web page"),
        (answer(body=b'\xef\xbb\xbf<?xml version="1.0"?><Error/>'), "answers with a web page"),
        (answer(body=b'{"error": "rate limit"}'), "it is an error message"),
        (answer(body=b"Not found"), "it is no JSON, or cut off"),
        (answer(body=b'[{"a": 1}, {"b'), "it is no JSON, or cut off"),
        (answer(body=b""), "it is of 0 bytes, expected 1 B to 4.0 GB"),
        (answer("Content-Length: 0", body=b""), "the server has 0 bytes"),
        (answer(status="204 No Content", body=b""), "answers with status 204"),
        (answer(status="203 Other"), "answers with status 203"),
        (answer("Content-Length: -1"), "tells a length that is none: -1"),
        (answer("Content-Length: 2", "Content-Length: 3"), "tells a length that is none: 2, 3"),
        (answer("Content-Length: ²"), "tells a length that is none: ²"),
        (answer("Content-Length: " + "9" * 5000), "tells a length that is none: 999"),
        (answer("Content-Length: 999999999999999"), "the server has 999,999,999,999,999 bytes"),
        (answer("Content-Range: bytes 5-6/7", status="206 Partial"), "the server sent bytes 5-6/7"),
        (answer("Content-Range: bytes 0--6/7", status="206 Partial"), "the server sent bytes 0--6/7"),
        (answer("Content-Range: bytes 0-9/7", status="206 Partial"), "the server contradicts itself"),
        (answer(status="206 Partial"), "the server sent others"),
        (answer("Location: file:///etc/passwd", status="302 Found"), "302 "),
        (answer("Location: ftp://127.0.0.1/a", status="302 Found"), "sends on to ftp://127.0.0.1/a"),
        (answer("Location: http://[::1/a", status="302 Found"), "Invalid IPv6 URL"),
        (answer("Location: http://a:b/c", status="302 Found"), "nonnumeric port"),
        (answer("Location: /a.json", status="302 Found"), "302 "),
        (answer(status="200 " + "x" * 70_000), "got more than 65536 bytes"),
        (answer(status="999"), "999"),
        (answer(*(f"X-{i}: 1" for i in range(200))), "got more than 100 headers"),
        ([b""], "without response"),
        ([b"SSH-2.0-OpenSSH\r\n"], "SSH-2.0"),
    ],
)
def test_what_is_not_the_file_is_refused_in_words(server, fetch, tmp_path, raw, reason):
    server.raw["/a.json"] = raw
    code, _, err = fetch()
    assert code == 1
    assert reason in err
    assert len(err) < 2000
    assert names(tmp_path / "data") == []


def test_a_message_in_place_of_a_file_that_is_no_json_is_refused(server, fetch, tmp_path):
    server.raw["/a.pth"] = answer("Content-Type: application/problem+json", body=b'{"a": 1}')
    code, _, err = fetch(path="a.pth", to="weights/a.pth")
    assert code == 1
    assert "answers with a web page or a message (application/problem+json)" in err


def test_a_page_that_comes_with_a_redirection_is_not_read(server, fetch):
    server.files["/b.json"] = CONTENT
    server.raw["/a.json"] = endless(answer("Location: /b.json", status="302 Found", body=b""))
    assert fetch()[0] == 0
    assert server.sent < 10_000_000


def test_an_error_page_does_not_cost_the_part_that_was_fetched(server, fetch, tmp_path):
    server.files["/a.json"], server.breaks = CONTENT, [1000, 0, 0]
    assert fetch()[0] == 1
    server.raw["/a.json"] = answer(body=b"<html>down for maintenance</html>")
    assert fetch()[0] == 1
    server.raw.clear()
    server.asked.clear()
    assert fetch()[0] == 0
    assert server.asked == [("/a.json", "bytes=1000-")]
    assert (tmp_path / "data" / "vqa" / "a.json").read_bytes() == CONTENT


def test_a_file_of_another_length_than_before_is_not_joined_to_the_old_part(server, fetch, tmp_path):
    server.files["/a.json"], server.breaks, server.etag = CONTENT, [1000, 0, 0], ""
    assert fetch()[0] == 1
    server.files["/a.json"] = OTHER + b"\n"
    assert fetch()[0] == 0
    assert (tmp_path / "data" / "vqa" / "a.json").read_bytes() == OTHER + b"\n"


@pytest.mark.parametrize(
    "note",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 5000, b'{"url": 1}', b'{"url": URL}',
     b'{"url": URL, "etag": 5, "total": 1}', b'{"url": URL, "etag": "a\\r\\nX: b", "total": null}'],
)  # fmt: skip
def test_a_damaged_note_on_a_partial_file_starts_it_anew(server, fetch, tmp_path, note):
    server.files["/a.json"] = CONTENT
    part = tmp_path / "data" / "vqa" / "a.json.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(OTHER[:1000])
    part.with_name("a.json.part.json").write_bytes(note.replace(b"URL", f'"{server.url}/a.json"'.encode()))
    assert fetch()[0] == 0
    assert server.asked == [("/a.json", None)]
    assert (tmp_path / "data" / "vqa" / "a.json").read_bytes() == CONTENT


# ------------------------------------------------------------------------------------------- record


def recorded(tmp_path):
    return json.loads((tmp_path / "data" / module.RECORD).read_text())


def test_what_was_got_is_recorded_with_its_hash(server, fetch, tmp_path):
    server.files["/mirror/a.json"] = CONTENT
    assert fetch(servers=("/moved", "/mirror"))[0] == 0
    entry = recorded(tmp_path)["vqa/a.json"]
    assert entry.items() >= {"url": f"{server.url}/mirror/a.json", "size": 512_000, "sha256": SHA256}.items()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", entry["time"])


def test_an_archive_and_what_came_out_of_it_are_recorded(server, fetch, tmp_path):
    server.files["/a.zip"] = archive(**{"a.json": CONTENT, "b.json": b"[]"})
    assert fetch(path="a.zip", to=None, unpack=["vqa/a.json", "gqa/b.json"])[0] == 0
    record = recorded(tmp_path)
    assert set(record) == {"vqa/a.zip", "vqa/a.json", "gqa/b.json"}
    assert record["vqa/a.zip"]["sha256"] == hashlib.sha256(server.files["/a.zip"]).hexdigest()
    assert record["vqa/a.json"]["sha256"] == SHA256
    assert record["gqa/b.json"]["size"] == 2
    assert {entry["url"] for entry in record.values()} == {f"{server.url}/a.zip"}


def test_a_file_that_has_changed_since_is_named(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT
    assert fetch()[0] == 0
    file = tmp_path / "data" / "vqa" / "a.json"
    file.write_bytes(CONTENT[:5000])
    code, _, err = fetch()
    assert code == 1
    assert f"{file}: has 5,000 bytes; what was fetched on 2" in err
    assert f"had 512,000 (SHA-256 {SHA256}). Remove it" in err
    assert file.read_bytes() == CONTENT[:5000]
    file.unlink()
    assert fetch()[0] == 0
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"vqa/a.json": {"size": "x"}}', b'{"vqa/a.json": 5}'])
def test_a_damaged_record_is_one_clear_error(server, fetch, tmp_path, content):
    server.files["/a.json"] = CONTENT
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / module.RECORD).write_bytes(content)
    code, _, err = fetch()
    assert code == 1
    assert "downloads.json: " in err
    assert "Remove it to go on" in err
    (tmp_path / "data" / module.RECORD).unlink()
    assert fetch()[0] == 0


# ----------------------------------------------------------------------------------------- the disk


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("inner", [False, True])
def test_a_folder_without_write_permission_is_one_clear_error(server, fetch, tmp_path, capsys, inner):
    server.files["/a.json"] = CONTENT
    (tmp_path / "data" / "vqa").mkdir(parents=True)
    for folder in (*tmp_path.parents, tmp_path):
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    (tmp_path / "data").chmod(0o777 if inner else 0o755)
    fetch("--list")  # writes the list
    os.seteuid(65534)
    try:
        listing = tmp_path / "list.yaml"
        code = main(["vqa", "--to", str(tmp_path / "data")], listing)
    finally:
        os.seteuid(0)
    assert code == 1
    err = capsys.readouterr().err
    assert str(tmp_path / "data" / "vqa" if inner else tmp_path / "data") in err
    assert re.search("cannot be read or written: Permission denied|no permission", err)
    assert names(tmp_path / "data") == []


def test_a_disk_that_fills_up_keeps_the_part_and_says_so(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT
    fetch("--list")  # writes the list
    script = (
        "import resource, signal, sys; from pathlib import Path; from datamodules.download.__main__ import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000,) * 2)\n"
        "sys.exit(main(['vqa', '--to', sys.argv[1]], Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "data"), str(tmp_path / "list.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        "cannot be read or written: File too large. Mend that, or choose another folder with --to" in done.stderr
    )
    assert "Traceback" not in done.stderr
    server.asked.clear()
    assert fetch()[0] == 0
    assert server.asked == [("/a.json", "bytes=100000-")]


def test_a_full_disk_is_noticed_before_anything_is_fetched(server, fetch, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 24_000_000_000))
    server.files["/a.zip"] = archive(**{"a.json": CONTENT})
    # The archive alone would fit, and what it holds too, but not both.
    code, _, err = fetch(path="a.zip", to=None, unpack=["a.json"], gb=8, unpacked=16.5)
    assert code == 1
    assert "need 24.5 GB or more, and 24.0 GB are free" in err
    assert server.asked == []
    assert "expected about 8.0 GB" in fetch(path="a.zip", to=None, unpack=["a.json"], gb=8, unpacked=15.5)[2]
    assert server.asked == [("/a.zip", None)]


def test_a_size_known_only_to_the_server_is_checked_too(server, fetch, monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 1000))
    server.files["/a.json"] = CONTENT
    code, _, err = fetch()
    assert code == 1
    assert "a.json, need 512.0 kB or more, and 1.0 kB are free" in err
    assert names(tmp_path / "data") == []


def test_a_folder_that_is_a_file_is_one_clear_error(fetch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "vqa").write_text("in the way")
    code, _, err = fetch()
    assert code == 1
    assert "cannot be read or written" in err


def test_the_data_folder_may_not_be_a_file(tmp_path):
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(StoreError, match="not a folder"):
        module.download([], tmp_path / "data")


# ----------------------------------------------------------------------------------------- archives


def test_members_are_found_in_whatever_folder_of_the_archive(server, fetch, tmp_path):
    server.files["/a.zip"] = archive(**{"x/y/a.tsv": CONTENT, "b.json": b"[]", "other.json": b"unwanted"})
    assert fetch(path="a.zip", to=None, unpack=["features/a.tsv", "features/more/b.json"])[0] == 0
    assert names(tmp_path / "data") == ["features/a.tsv", "features/more/b.json"]
    assert (tmp_path / "data" / "features" / "a.tsv").read_bytes() == CONTENT


def test_what_is_left_of_an_archive_is_unpacked_without_fetching_it_again(server, fetch, tmp_path):
    server.files["/a.zip"] = archive(**{"a.json": b"[1]", "b.json": b"[2]"})
    assert fetch(path="a.zip", to=None, unpack=["vqa/a.json", "vqa/b.json"])[0] == 0
    folder = tmp_path / "data" / "vqa"
    (folder / "b.json").unlink()
    (folder / "a.zip").write_bytes(server.files["/a.zip"])  # as a run leaves it that is killed while unpacking
    (folder / "b.json.part").write_bytes(b"half")
    server.asked.clear()
    assert fetch(path="a.zip", to=None, unpack=["vqa/a.json", "vqa/b.json"])[0] == 0
    assert server.asked == []
    assert names(tmp_path / "data") == ["vqa/a.json", "vqa/b.json"]


def test_an_archive_that_a_killed_run_had_unpacked_is_removed_and_others_are_not(
    server, fetch, tmp_path, monkeypatch
):
    server.files["/a.zip"] = archive(**{"a.json": b"[1]"})
    path, wanted = tmp_path / "data" / "vqa" / "a.zip", {"path": "a.zip", "to": None, "unpack": ["vqa/a.json"]}
    path.parent.mkdir(parents=True)
    path.with_name("a.json").write_bytes(b"[1]")
    path.write_bytes(server.files["/a.zip"])  # nothing tells that it was fetched
    assert fetch(**wanted)[0] == 0 and path.exists()
    path.unlink()
    path.with_name("a.json").unlink()
    unlink = Path.unlink
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda path, missing_ok=False: stopped(unlink, path))
        assert fetch(**wanted)[0] == 1
    assert names(tmp_path / "data") == ["vqa/a.json", "vqa/a.zip"]
    assert fetch(**wanted)[0] == 0
    assert names(tmp_path / "data") == ["vqa/a.json"]


def stopped(unlink, path):
    if path.suffix == ".zip":
        raise KeyboardInterrupt
    unlink(path, missing_ok=True)


@pytest.mark.parametrize("name", ["../evil.json", "/tmp/evil.json", "x/../../evil.json", "..\\evil.json"])
def test_an_archive_with_a_path_outside_is_refused(server, fetch, tmp_path, name):
    server.files["/a.zip"] = archive(**{"a.json": b"[]", name: b"evil"})
    code, _, err = fetch(path="a.zip", to=None, unpack=["vqa/a.json"])
    assert code == 1
    assert "a path outside of it; nothing was unpacked" in err
    assert not list(tmp_path.rglob("*evil*"))
    assert names(tmp_path / "data") == ["vqa/a.zip"]


def test_a_damaged_archive_is_named_and_removed(server, fetch, tmp_path):
    whole = bytearray(archive(**{"a.json": CONTENT}))
    whole[100] ^= 255
    server.files["/a.zip"] = bytes(whole)
    code, _, err = fetch(path="a.zip", to=None, unpack=["vqa/a.json"])
    assert code == 1
    assert "a.zip: damaged" in err
    assert not (tmp_path / "data" / "vqa" / "a.json").exists()
    assert not (tmp_path / "data" / "vqa" / "a.zip").exists()


def test_something_else_than_an_archive_is_refused(server, fetch):
    server.files["/a.zip"] = b"not found, sorry"
    code, _, err = fetch(path="a.zip", to=None, unpack=["vqa/a.json"])
    assert code == 1
    assert "it is no zip archive, or is damaged" in err


def test_an_archive_without_the_file_says_what_it_holds(server, fetch):
    server.files["/a.zip"] = archive(**{"b.json": b"[]"})
    code, _, err = fetch(path="a.zip", to=None, unpack=["vqa/a.json"])
    assert code == 1
    assert "holds 0 files called a.json, expected one, and b.json" in err


def forged(change, content=CONTENT, method=zipfile.ZIP_DEFLATED):
    """An archive whose directory tells what `change(member)` makes of it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        file.writestr("a.json", content)
        change(file.filelist[0])
    return stream.getvalue()


def resized(size):
    return lambda member: setattr(member, "file_size", size)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (forged(resized(511_999)), "damaged (Bad CRC-32 for file 'a.json')"),
        (forged(resized(512_001)), "damaged (a.json has 512,000 bytes, its header says 512,001)"),
        (forged(lambda member: setattr(member, "CRC", 5)), "damaged (Bad CRC-32 for file 'a.json')"),
        (forged(lambda member: setattr(member, "header_offset", 4_000_000)), "damaged ("),
        (forged(lambda member: setattr(member, "extract_version", 99)), "damaged (zip file version 9.9)"),
    ],
)
def test_an_archive_that_lies_about_itself_is_named_and_removed(server, fetch, tmp_path, content, reason):
    server.files["/a.zip"] = content
    code, _, err = fetch(path="a.zip", to=None, unpack=["vqa/a.json"])
    assert code == 1
    assert f"a.zip: {reason}" in err
    assert [name for name in names(tmp_path / "data") if not name.endswith(".part")] == []


@pytest.mark.parametrize(
    ("entry", "most"), [({}, "100.0 MB"), ({"unpacked": 0.0001}, "200.0 kB"), ({"unpacked": 0.1}, "200.0 MB")]
)
def test_a_zip_bomb_is_not_unpacked(server, fetch, tmp_path, entry, most):
    server.files["/a.zip"] = forged(resized(3_000_000_000))
    code, _, err = fetch(path="a.zip", to=None, unpack=["vqa/a.json"], **entry)
    assert code == 1
    assert f"would take 3.0 GB, expected at most {most}; nothing was unpacked" in err
    assert names(tmp_path / "data") == ["vqa/a.zip"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda member: setattr(member, "external_attr", (stat.S_IFLNK | 0o777) << 16), "a link"),
        (lambda member: setattr(member, "external_attr", stat.S_IFIFO << 16), "neither a file nor a folder"),
    ],
)
def test_an_archive_with_a_link_is_refused(server, fetch, tmp_path, change, fault):
    server.files["/a.zip"] = forged(change, b"/etc/passwd")
    code, _, err = fetch(path="a.zip", to=None, unpack=["vqa/a.json"])
    assert code == 1
    assert f"holds 'a.json', {fault}; nothing was unpacked" in err
    assert names(tmp_path / "data") == ["vqa/a.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["a.json", "b.json"])
def test_an_archive_with_a_name_twice_is_refused(server, fetch, tmp_path, name):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for member in ("a.json", name, name):
            file.writestr(member, b"[]")
    server.files["/a.zip"] = stream.getvalue()
    code, _, err = fetch(path="a.zip", to=None, unpack=["vqa/a.json"])
    assert code == 1
    assert f"holds '{name}', the same name twice; nothing was unpacked" in err


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (forged(lambda member: None, method=zipfile.ZIP_LZMA), "compressed by method 14, which is not known here"),
        (forged(lambda member: setattr(member, "compress_type", 9)), "compressed by method 9, which is not known"),
        (forged(lambda member: setattr(member, "flag_bits", 1)), "encrypted"),
    ],
)
def test_an_archive_of_another_kind_is_kept_for_other_programs(server, fetch, tmp_path, content, problem):
    server.files["/a.zip"] = content
    code, _, err = fetch(path="a.zip", to=None, unpack=["vqa/a.json"])
    assert code == 1
    assert f"a.zip: holds a.json {problem}" in err
    assert f"Unpack it by hand as {tmp_path / 'data' / 'vqa' / 'a.json'}" in err
    assert names(tmp_path / "data") == ["vqa/a.zip"]


def test_an_archive_that_lay_there_is_checked_like_one_that_was_fetched(server, fetch, tmp_path):
    there = tmp_path / "data" / "vqa" / "a.zip"
    there.parent.mkdir(parents=True)
    there.write_bytes(archive(**{"a.json": OTHER}))
    expected = hashlib.sha256(archive(**{"a.json": CONTENT})).hexdigest()
    code, _, err = fetch(path="a.zip", to=None, unpack=["vqa/a.json"], sha256=expected)
    assert code == 1
    assert f"a.zip: its SHA-256 is {hashlib.sha256(there.read_bytes()).hexdigest()}, expected {expected}" in err
    assert names(tmp_path / "data") == ["vqa/a.zip"]


# ----------------------------------------------------------------------------------------- the list


@pytest.mark.parametrize("name", SETS)
def test_the_list_is_shown_without_asking_a_server(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fetching, "build_opener", None)
    monkeypatch.setattr(module, "fetch", None)
    monkeypatch.setenv("COLUMNS", "200")
    assert main([name, "--list", "--to", str(tmp_path / "data")]) == 0
    output = capsys.readouterr().out
    downloads, hub = read_list(name)
    for one in downloads:
        assert one.targets[0] in output
        assert one.name in output
    for repository in hub:
        assert repository.name in output
    assert "together" in output
    assert not (tmp_path / "data").exists()


def test_sizes_and_their_sum_are_shown(server, fetch):
    _, output, _ = fetch("--list", path="a.zip", to=None, unpack=["x/a.tsv"], gb=17, unpacked=32.7)
    assert output.count("17.0 GB") == 2  # the file and the sum
    assert output.count("32.7 GB") == 2


def test_only_the_files_that_are_named_are_fetched(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT
    assert fetch("vqa/*.json", extra=True)[0] == 0
    assert names(tmp_path / "data") == ["vqa/a.json"]
    code, _, err = fetch("nonsense.zip")
    assert code == 1
    assert "no file called nonsense.zip" in err


def test_an_extra_file_has_to_be_named(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT
    assert fetch(extra=True)[0] == 0
    assert names(tmp_path / "data") == []
    assert "(only when named)" in fetch("--list", extra=True)[1]


def test_hub_weights_go_through_the_hub_s_own_library(tmp_path, capsys, monkeypatch):
    (tmp_path / "list.yaml").write_text(
        yaml.safe_dump(
            {"servers": {}, "files": [], "hub": [{"for": ["weights"], "repository": "a/model", "gb": 0.9}]}
        )
    )
    asked = []
    monkeypatch.setattr(module, "fetch", lambda name, names: asked.append((name, names)))
    assert main(["weights", "--to", str(tmp_path)], tmp_path / "list.yaml") == 0
    assert asked[-1] == ("a/model", ["model.safetensors", "pytorch_model.bin"])

    def offline(name, names):
        raise FileNotFoundError(f"{name} is no folder, and the hub did not give it")

    monkeypatch.setattr(module, "fetch", offline)
    assert main(["weights", "--to", str(tmp_path)], tmp_path / "list.yaml") == 1
    assert "a/model is no folder" in capsys.readouterr().err


def test_every_entry_of_the_list_is_well_formed():
    content = yaml.safe_load(LIST.read_text())
    known = {"for", "server", "path", "to", "unpack", "bytes", "gb", "unpacked", "sha256", "extra"}
    targets = []
    for entry in content["files"]:
        assert set(entry) <= known, entry
        assert ("to" in entry) != ("unpack" in entry), entry
        assert set(entry["for"]) <= set(SETS)
        assert not {"bytes", "gb"} <= set(entry)
        assert entry["path"].endswith(".zip") == ("unpack" in entry)
        assert len(entry.get("sha256", "0" * 64)) == 64
        targets += entry.get("unpack") or [entry["to"]]
    assert len(targets) == len(set(targets))
    assert all(read_list(name)[0] for name in SETS)
    for name in SETS:
        for one in read_list(name)[0]:
            assert all(url.startswith(("http://", "https://")) for url in one.urls)
