"""Finding files by path or hub name, reading JSON, writing files whole or not at all; what is wrong with one."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")  # may be one: JSON can spell what no text can hold
_TEXT_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)')
_PAIR_OR_HALF = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]|(\\u[dD][89a-fA-F])")


class InputError(ValueError):
    """A file, a row or a setting that cannot be used: something a user can mend.

    The message names the file, the row or key, what was expected, and how to mend it.
    """


@dataclass(frozen=True)
class Hub:
    """Which version of a hub repository is meant, and how it is got, in the hub library's words.

    Args:
        revision: branch, tag or commit.
        cache_dir: where downloads are kept; None: the hub library's place.
        token: for repositories that are not public; True: the one that `hf auth login` kept.
        subfolder: folder within the repository, or within a folder on this machine.
        local_files_only: take what has been downloaded already.
        force_download: download again.
    """

    revision: str | None = None
    cache_dir: str | Path | None = None
    token: str | bool | None = None
    subfolder: str = ""
    local_files_only: bool = False
    force_download: bool = False

    @classmethod
    def take(cls, options: dict[str, Any]) -> Hub:
        """The hub's part of a call's options, which is taken out of them.

        So is what has a meaning in the reference library alone: no code of a repository is ever run here, and the
        hub library's version is the one installed.
        """
        for name in ("trust_remote_code", "code_revision", "resume_download"):
            options.pop(name, None)
        for name in [name for name in options if name.startswith("_")]:  # the reference's talk with itself
            del options[name]
        found = {field.name: options.pop(field.name) for field in fields(cls) if field.name in options}
        return cls(**{name: value for name, value in found.items() if value is not None})

    def local(self, name_or_path: str | Path) -> Path:
        """The path meant by `name_or_path`, if it is one."""
        return Path(name_or_path).expanduser() / self.subfolder

    def download(self, name: str, file: str) -> Path:
        """A file of the hub repository `name`; errors as of the hub library."""
        from huggingface_hub import hf_hub_download

        options = {field.name: getattr(self, field.name) for field in fields(self)}
        return Path(hf_hub_download(name, file, **{**options, "subfolder": self.subfolder or None}))


HUB = Hub()


def push(
    save: Callable[[str], Any],
    repo_id: str,
    *,
    commit_message: str | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Send files to a hub repository, which is made where there is none.

    It wants a token, or `hf auth login` before.

    Args:
        save: writes the files into the folder that it is given.
        repo_id: owner/name.
        commit_message: of the change.
        commit_description: of the change.
        private: whether a new repository is private.
        token: as of `Hub`.
        revision: branch to change.
        create_pr: propose the change instead of making it.

    Returns:
        The change's address.
    """
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        save(folder)
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        change = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message or "Upload LXMERT",
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
        )
    return str(change.commit_url)


def fetch(name_or_path: str | Path, names: Sequence[str], hub: Hub = HUB) -> Path:
    """The first of `names` found in a folder, or in the hub repository called `name_or_path`.

    Raises:
        FileNotFoundError: neither has any of them.
    """
    folder = hub.local(name_or_path)
    if folder.is_dir():
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise FileNotFoundError(f"{folder} holds none of {', '.join(names)}")

    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    failure: Exception | None = None
    for name in names:
        try:
            return hub.download(str(name_or_path), name)
        except LocalEntryNotFoundError as error:  # offline: a later name may still be in the cache
            failure = error
        except EntryNotFoundError:
            continue
        except (HFValidationError, HfHubHTTPError, OSError) as error:
            failure = error
            break
    if failure is None:
        raise FileNotFoundError(f"the hub repository {name_or_path} holds none of {', '.join(names)}")
    raise FileNotFoundError(
        f"{name_or_path} is no folder on this machine, and the Hugging Face hub did not give its "
        f"{' or '.join(names)} ({type(failure).__name__}). Pass an existing folder, or check the name and the "
        "network."
    ) from failure


def run_checkpoint(name_or_path: str | Path) -> Path | None:
    """The checkpoint that stands for a run's folder: `checkpoints/best.ckpt`, else `last.ckpt`.

    Returns:
        Its path; None where `name_or_path` is no folder with `checkpoints` in it.

    Raises:
        FileNotFoundError: the run has left neither.
    """
    folder = Path(name_or_path).expanduser() / "checkpoints"
    if not folder.is_dir():
        return None
    for name in ("best.ckpt", "last.ckpt"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds neither best.ckpt nor last.ckpt: this run has saved no weights yet")


def run_of(checkpoint: str | Path) -> Path:
    """The run's folder that a checkpoint lies in; of anything else its own path."""
    path = Path(checkpoint).expanduser().absolute()  # whose folders have names, also where it is named from inside
    return path.parents[1] if path.parent.name == "checkpoints" else path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp files are private; a result file follows the user's umask like any other.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """A whole JSON file, in UTF-8 with or without a byte order mark.

    Raises:
        InputError: no JSON, cut off, nested too deeply, or holding a name twice in one object, of which Python
            keeps the last, or what is no JSON value or no text (NaN, half a surrogate pair); names the file
            and the place.
        OSError: it cannot be read.
    """
    return parse_json(path.read_bytes(), str(path))


def parse_json(content: bytes, where: str) -> Any:
    """The value of a JSON text, `where` naming it; errors as of `read_json`."""
    if content.startswith(b"\x1f\x8b"):
        raise InputError(f"{where}: compressed by gzip, expected JSON. Unpack it: gunzip {where}")
    try:
        text = content.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=refuse_repeats, parse_constant=refuse_constant)
        check_characters(text, value)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text[: error.pos].strip().endswith("}"):
            raise InputError(
                f"{where}: an object follows another at line {error.lineno}: JSON lines, expected one JSON value. "
                "Put them into a list, [..., ...]. Data of your own may be JSON lines: experiment=own."
            ) from error
        raise InputError(
            f"{where}: broken or truncated JSON at line {error.lineno}, column {error.colno} (character "
            f"{error.pos}): {error.msg}. If the file ends there, it was cut off: get it again."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text at byte {error.start}. Get the file again.") from error
    except RecursionError as error:
        raise InputError(f"{where}: nested too deeply for a file of this kind. Get the file again.") from error
    except _ConstantError as error:
        place = next(found.start(1) for found in _TEXT_OR_CONSTANT.finditer(text) if found[1])
        line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
        raise InputError(
            f"{where}: at line {line}, column {column}: {error}. Mend or remove that value."
        ) from error
    except ValueError as error:  # a name twice, half a character, a number of thousands of digits
        raise InputError(f"{where}: {error}. Mend or remove that value.") from error
    return value


def is_unicode(text: str) -> bool:
    """Whether a file can hold `text`: it has no half of a surrogate pair."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def shown(value: Any, show: Callable[[Any], str] = repr) -> str:
    """A value as messages show it: at most 200 characters of what `show` makes of it."""
    try:
        text = show(value)
    except ValueError:  # a number of thousands of digits
        return f"a number of too many digits to be shown ({type(value).__name__})"
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= 200 else f"{text[:200]}..."


def shorten(value: Any, most: int = 80) -> str:
    """A value as Python writes it, cut for an error message."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; a number of thousands of digits
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= most else f"{text[:most]}..."


def check_answers(answers: Any, where: str) -> list[str]:
    """`answers` if it is a list of texts.

    Raises:
        InputError: it is not; names `where` and the entry.
    """
    if not isinstance(answers, list):
        raise InputError(f"{where} is {shown(answers)}; expected a list of answer texts, in label order")
    for place, answer in enumerate(answers):
        if not isinstance(answer, str) or not is_unicode(answer):
            raise InputError(f"{where}[{place}] is {shown(answer)}; expected the text of an answer")
    return answers


def refuse_constant(name: str) -> Any:
    """What JSON readers call for NaN and Infinity."""
    raise _ConstantError(f"{name} is no JSON value; expected a number")


class _ConstantError(ValueError):
    """NaN or Infinity, which Python's reader takes for numbers."""


def refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What JSON readers call for an object that may have no name twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} twice in one object")
    return content


def check_characters(text: str, value: Any) -> None:
    """Raise ValueError when a value of this JSON text holds half a surrogate pair, which is no character."""
    if not may_hold_halves(text):
        return
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ValueError(f"a text holds half a surrogate pair, {half!a}, which is no character") from error


def may_hold_halves(text: str) -> bool:
    """Whether a JSON text spells a half of a surrogate pair without its other half."""
    return bool(_HALF_CHARACTER.search(text)) and any(pair[1] for pair in _PAIR_OR_HALF.finditer(text))
