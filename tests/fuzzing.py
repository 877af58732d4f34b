"""Damaged files for every reader: what it says of them must be the project's own words, soon and in little memory.

`LXMERT_FUZZ=2000 pytest tests/test_fuzz_*.py` (`make fuzz`) tries that many of each file; the suite tries a few.
"""

import gc
import json
import multiprocessing
import os
import random
import resource
import signal
import traceback
from pathlib import Path

from lxmert.files import InputError

COUNT = int(os.environ.get("LXMERT_FUZZ", 10))
SECONDS, MEMORY = 5, 1 << 30  # of its processor's time: a busy machine is no fault
HANGING = 60  # seconds
TOGETHER = 20  # tries of a process: forking takes longer than most of them
TOKENS = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"-1", b"0", b"1e999", b"NaN", b"null", b"[]", b"{}", b'"', b"[" * 2000,
    b'{"a":' * 2000, b"9" * 400, b"\\ud800", b"\t", b"\r\n", b"\n\n", b",", b"../../etc/passwd", b"true",
    b"A" * 5000,
]  # fmt: skip
VALUES = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", " ",
    "\0", "x\0", "\ufeffx", "\ud800", "../../etc/passwd", "/etc/passwd", "x" * 5000, [], [[]], [None], {},
    {"": None}, {"a": {"b": []}}, "NaN", "1",
]  # fmt: skip


def damaged(content, chance):
    """`content` with one to three things wrong with its bytes."""
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(content) + 1)
        length = min(chance.choice([1, 1, 2, 4, 8, 64, 512]), len(content) - place)
        kind = chance.randrange(7)
        if kind == 0 and length:
            flipped = content[place] ^ (1 << chance.randrange(8))
            content = content[:place] + bytes([flipped]) + content[place + 1 :]
        elif kind == 1:
            content = content[:place] + content[place + length :]
        elif kind == 2:
            content = content[:place] + content[place : place + length] * 2 + content[place + length :]
        elif kind == 3:
            content = content[:place] + chance.choice(TOKENS) + content[place:]
        elif kind == 4:
            content = content[:place]
        elif kind == 5:
            content = content[:place] + chance.randbytes(length) + content[place + length :]
        else:
            content = content[:place] + chance.choice(TOKENS) + content[place + length :]
    return content


def mistaken(value, chance):
    """A copy of a JSON value with one of its parts replaced, removed, doubled or renamed."""
    value = json.loads(json.dumps(value))
    places = list(_places(value))
    if not places:
        return chance.choice(VALUES)
    holder, key = chance.choice(places)
    kind = chance.randrange(5)
    if kind < 3:
        holder[key] = chance.choice(VALUES)
    elif isinstance(holder, list):
        if kind == 3:
            del holder[key]
        else:
            holder.insert(key, holder[key])
    elif kind == 3:
        del holder[key]
    else:
        holder[chance.choice(["", "x", key + " ", "\ud800"])] = holder.pop(key)
    return value


def mistaken_json(content, chance):
    """Bytes of a JSON file (or of JSON lines) with one part mistaken."""
    try:
        return json.dumps(mistaken(json.loads(content), chance)).encode("utf-8", "surrogatepass")
    except ValueError:
        lines = content.splitlines()
        place = chance.randrange(len(lines))
        lines[place] = json.dumps(mistaken(json.loads(lines[place]), chance)).encode("utf-8", "surrogatepass")
        return b"\n".join(lines)


def _places(value):
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(inner):
        yield value, key
        yield from _places(item)


def survives(read, file, change, count=COUNT, accepts=(), verify=None):
    """Try `read(path)` on `count` changed copies of `file`, each at the path that it has.

    Args:
        read: reads the file; may raise InputError, and nothing else.
        file: a good file, which `read` reads; it is put back at the end.
        change: (content, random.Random) -> changed content; `damaged`, `mistaken_json` or one's own.
        accepts: further error classes that are the project's own words here, such as FileNotFoundError.
        verify: what must hold of what was read when nothing was raised; raises AssertionError if not.
    """
    file = Path(file)
    good = file.read_bytes()
    read(file)
    seeds = list(range(count))
    failures = []
    context = multiprocessing.get_context("fork")
    try:
        while seeds and len(failures) < 5:
            # Processes of their own: their memory is limited, and one that hangs or dies is found out.
            results, told = context.Pipe(duplex=False)
            child = context.Process(
                target=_try_all, args=(read, file, good, change, seeds[:TOGETHER], accepts, verify, told)
            )
            child.start()
            told.close()
            try:
                while True:
                    seed, failure = results.recv()
                    seeds.remove(seed)
                    failures += [f"seed {seed}: {failure}"] if failure else []
            except EOFError:
                child.join()
            if child.exitcode:
                failures.append(f"seed {seeds.pop(0)}: died")
    finally:
        file.write_bytes(good)
    assert not failures, "\n".join(failures)


def _try_all(read, file, good, change, seeds, accepts, verify, told):
    gc.freeze()  # what a try leaves must not count against the next: collecting it is to be quick
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for late in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(late, _too_slow)
    for seed in seeds:
        file.unlink(missing_ok=True)  # what is still open or mapped is another file, to `change` too
        content = change(good, random.Random(f"{file.name} {seed}"))
        file.unlink(missing_ok=True)
        file.write_bytes(content)
        told.send((seed, _try(read, file, accepts, verify)))
        gc.collect()


def _try(read, file, accepts, verify):
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(HANGING)
    try:
        found = read(file)
        if verify is not None:
            verify(found)
    except (InputError, *accepts) as error:
        return None if len(str(error)) < 5000 else f"a message of {len(str(error))} characters"
    except BaseException:
        return traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    return None


def _too_slow(*_):
    raise TimeoutError(f"took more than {SECONDS} s of its processor's time, or {HANGING} s")
