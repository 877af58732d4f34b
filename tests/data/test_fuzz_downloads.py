"""Damaged answers, notes, records and archives: the file comes whole, or does not come, and a message says why."""

import hashlib
import io
import json
import os
import random
import shutil
import socket
import zipfile
import zlib

import pytest
from fuzzing import damaged, mistaken_json, survives
from servers import serving

from datamodules.download import __main__ as module
from datamodules.download import fetching
from lxmert.files import InputError

CONTENT = json.dumps([random.Random(0).randbytes(8).hex() for _ in range(300)]).encode()
PART = 1000


class Sent:
    """The bytes of a file, read when they are asked for."""

    def __init__(self, file):
        self.file = file

    def __iter__(self):
        yield self.file.read_bytes()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "RETRY_WAITS", (0.0,))
    monkeypatch.setattr(fetching, "TIMEOUT", 2)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # thousands of files in a few seconds
    with serving() as server:
        find = socket.getaddrinfo

        def nowhere_else(host, port, *more, **options):
            if host != "127.0.0.1" or (port != server.server_port and 0 <= port < 1 << 16):
                raise socket.gaierror("nowhere else")
            return find(host, port, *more, **options)

        monkeypatch.setattr(socket, "getaddrinfo", nowhere_else)
        server.files["/a.json"] = CONTENT
        yield server


def entry(server, hashed, size=None):
    digest = hashlib.sha256(CONTENT).hexdigest() if hashed else ""
    return module.Download(
        (f"{server.url}/a.json",), ("a.json",), False, size, bool(size), None, digest, False, ""
    )


def fetch(one, folder):
    """The content of the file, fetched; InputError, and no file, where it cannot be had."""
    failures = module.download([one], folder)
    if failures:
        assert not (folder / "a.json").exists()
        raise InputError("\n".join(failures))
    return (folder / "a.json").read_bytes()


def answer(*headers, status="200 OK", body=CONTENT):
    head = [f"HTTP/1.1 {status}", 'ETag: "1"', "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(head).encode() + body


def chunks(content, size=400):
    blocks = (content[i : i + size] for i in range(0, len(content), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks) + b"0\r\n\r\n"


ANSWERS = {
    "whole": answer(f"Content-Length: {len(CONTENT)}"),
    "without a length": answer("Connection: close"),
    "in chunks": answer("Transfer-Encoding: chunked", body=chunks(CONTENT)),
    "the rest": answer(
        f"Content-Range: bytes {PART}-{len(CONTENT) - 1}/{len(CONTENT)}",
        f"Content-Length: {len(CONTENT) - PART}",
        status="206 Partial Content",
        body=CONTENT[PART:],
    ),
    "elsewhere": answer("Location: {}/b.json", "Content-Length: 0", status="302 Found", body=b""),
}


def head_damaged(content, chance):
    """The status line and the headers alone: most of an answer is its body."""
    head, end, body = content.partition(b"\r\n\r\n")
    return damaged(head + end, chance) + body


def any_part_damaged(content, chance):
    return (damaged if chance.random() < 0.5 else head_damaged)(content, chance)


def any_damage(content, chance):
    return (damaged if chance.random() < 0.5 else mistaken_json)(content, chance)


@pytest.mark.parametrize("kind", ANSWERS)
def test_damaged_answers(server, tmp_path, kind):
    file, folder = tmp_path / "answer", tmp_path / "data"
    file.write_bytes(ANSWERS[kind].replace(b"{}", server.url.encode()))
    server.raw["/a.json"], server.files["/b.json"] = Sent(file), CONTENT
    kinds = [entry(server, hashed=True), entry(server, False, len(CONTENT)), entry(server, False)]

    def read(_):
        one = kinds[zlib.crc32(file.read_bytes()) % 3]
        shutil.rmtree(folder, ignore_errors=True)
        if kind == "the rest":
            folder.mkdir()
            (folder / "a.json.part").write_bytes(CONTENT[:PART])
            note = {"url": one.urls[0], "etag": '"1"', "total": len(CONTENT)}
            (folder / "a.json.part.json").write_text(json.dumps(note))
        content = fetch(one, folder)
        assert not one.sha256 or content == CONTENT
        assert not one.exact or len(content) == len(CONTENT)

    survives(read, file, any_part_damaged)


def test_damaged_notes_on_partial_files(server, tmp_path):
    kinds, note = [entry(server, hashed=False), entry(server, hashed=True)], tmp_path / "a.json.part.json"
    note.write_text(json.dumps({"url": kinds[0].urls[0], "etag": '"1"', "total": len(CONTENT)}))

    def read(_):
        one = kinds[zlib.crc32(note.read_bytes()) % 2]
        (tmp_path / "a.json").unlink(missing_ok=True)
        # Where the hash is known, what came from elsewhere is found out in the end.
        (tmp_path / "a.json.part").write_bytes(b"?" * PART if one.sha256 else CONTENT[:PART])
        assert fetch(one, tmp_path) == CONTENT

    survives(read, note, any_damage)


def test_damaged_records(server, tmp_path):
    one = entry(server, hashed=False)
    fetch(one, tmp_path)

    def read(_):
        if failures := module.download([one], tmp_path):
            raise InputError("\n".join(failures))

    survives(read, tmp_path / module.RECORD, any_damage)
    assert (tmp_path / "a.json").read_bytes() == CONTENT


def test_damaged_archives(server, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as content:
        content.writestr("readme.txt", b"Read me.")
        content.writestr("folder/a.json", CONTENT, zipfile.ZIP_DEFLATED)
        content.writestr("folder/inner/b.json", CONTENT, zipfile.ZIP_STORED)
    archive = tmp_path / "a.zip"
    archive.write_bytes(stream.getvalue())
    targets = ("a.json", "b.json")
    one = module.Download((f"{server.url}/a.zip",), targets, True, None, False, None, "", False, "")

    def read(_):
        for target in targets:
            (tmp_path / target).unlink(missing_ok=True)
        failures = module.download([one], tmp_path)
        for target in targets:  # one of them may come out when the other is damaged
            if not failures or (tmp_path / target).exists():
                assert (tmp_path / target).read_bytes() == CONTENT
        if failures:
            raise InputError("\n".join(failures))

    survives(read, archive, damaged)
