"""Downloading, against a server in a thread that breaks off, lies, and has moved its files."""

import hashlib
import io
import shutil
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import download as module
from datamodules.download import LIST, SETS, main, read_list
from datamodules.hdf5 import StoreError

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; `breaks` is after how many bytes each of the next answers stops."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.breaks, self.asked = {}, [], []
        self.ranges, self.etag, self.content_type, self.length = True, '"1"', "application/octet-stream", None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append((self.path, wanted))
        if self.path not in server.files:
            self.send_error(404)
            return
        content = server.files[self.path]
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range", server.etag) == server.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", server.etag)
        self.send_header("Content-Type", server.content_type)
        self.send_header("Content-Length", str(server.length or len(content) - start))
        self.end_headers()
        stop = server.breaks.pop(0) if server.breaks else len(content)
        self.wfile.write(content[start : start + stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "RETRY_WAITS", (0.0, 0.0))
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


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
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*") if path.is_file())


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
    server, folder = Server(), tmp_path_factory.mktemp("data")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    server.files["/a"], server.breaks, server.ranges = CONTENT[:5000], breaks, ranges
    one = module.Download((f"{server.url}/a",), ("a",), False, None, False, None, "", False, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RETRY_WAITS", ())
        while module.download([one], folder):
            assert not (folder / "a").exists()
    assert (folder / "a").read_bytes() == CONTENT[:5000]
    server.shutdown()
    server.server_close()


def test_a_server_without_ranges_starts_over(server, fetch, tmp_path):
    server.files["/a.json"], server.ranges = CONTENT, False
    server.breaks = [1000]
    assert fetch(bytes=len(CONTENT), sha256=SHA256)[0] == 0
    assert (tmp_path / "data" / "vqa" / "a.json").read_bytes() == CONTENT


def test_a_file_that_has_changed_since_is_not_joined_to_the_old_part(server, fetch, tmp_path):
    server.files["/a.json"] = CONTENT
    server.breaks = [1000, 0, 0]
    assert fetch()[0] == 1
    server.files["/a.json"], server.etag = CONTENT[::-1], '"2"'
    assert fetch()[0] == 0
    assert (tmp_path / "data" / "vqa" / "a.json").read_bytes() == CONTENT[::-1]


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
    monkeypatch.setattr(module, "RETRY_WAITS", (600.0,))
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


# ----------------------------------------------------------------------------------------- the disk


def test_a_full_disk_is_noticed_before_anything_is_fetched(server, fetch, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 24_000_000_000))
    server.files["/a.zip"] = archive(**{"a.json": CONTENT})
    # The archive alone would fit, and what it holds too, but not both.
    code, _, err = fetch(path="a.zip", to=None, unpack=["a.json"], gb=8, unpacked=16.5)
    assert code == 1
    assert "need 24.5 GB or more, and 24.0 GB are free" in err
    assert server.asked == []
    code, _, err = fetch(path="a.zip", to=None, unpack=["a.json"], gb=8, unpacked=15.5)
    assert code == 0, err


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
    assert "cannot be written" in err


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


# ----------------------------------------------------------------------------------------- the list


@pytest.mark.parametrize("name", SETS)
def test_the_list_is_shown_without_asking_a_server(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "urlopen", None)
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
