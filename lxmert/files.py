"""Finding files by path or hub name, and writing them whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def fetch(name_or_path: str | Path, names: Sequence[str]) -> Path:
    """The first of `names` found in a folder, or in the hub repository called `name_or_path`.

    Raises:
        FileNotFoundError: neither has any of them.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise FileNotFoundError(f"{folder} holds none of {', '.join(names)}")

    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    failure: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(str(name_or_path), name))
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
