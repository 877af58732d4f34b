"""Which pictures there are, and what they are called."""

from __future__ import annotations

from pathlib import Path

from datamodules.detector import ENDINGS
from datamodules.stores import ImageError, check_id
from lxmert.files import InputError, shown


def find_pictures(source: Path) -> dict[str, Path]:
    """Image id -> picture, in the order of the ids: a picture's name without its ending is its id.

    Args:
        source: a folder, of which the pictures in it and in its folders count; a text file with a path a line,
            relative to that file; or a picture.

    Raises:
        FileNotFoundError: there is no such file or folder, or a listed picture is missing.
        InputError: no picture, two of one id, an id that is none, or a link that leads out of the folder.
    """
    if source.is_dir():
        paths = [path for path in (*source.iterdir(), *source.glob("[!.]*/*")) if path.suffix.lower() in ENDINGS]
        paths = [path for path in paths if not path.name.startswith(".") and (path.is_symlink() or path.is_file())]
        for path in paths:
            if not path.resolve().is_relative_to(source.resolve()) or not path.is_file():
                raise InputError(
                    f"{path}: a link that leads out of the folder, or nowhere. Put the picture itself there, or "
                    "give a text file with the pictures' paths instead of the folder."
                )
    elif source.suffix.lower() in ENDINGS and source.is_file():
        paths = [source]
    elif source.is_file():
        paths = _listed(source)
    else:
        raise FileNotFoundError(f"{source}: there is no such folder, nor a file that lists pictures")
    if not paths:
        raise InputError(f"{source}: no pictures in it; expected files that end in {', '.join(ENDINGS)}")
    found: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: (path.stem.encode(errors="surrogateescape"), path)):
        try:
            check_id(path.stem.encode(errors="surrogateescape"), str(path))
        except ImageError as error:
            name = shown(path.name.encode(errors="surrogateescape"))
            raise InputError(f"{path.parent}: a picture called {name}: {error.what}. Rename it.") from error
        if path.stem in found:
            raise InputError(
                f"{path} and {found[path.stem]} have one id, {path.stem}: a picture's name without its ending. "
                "Rename one, or take it out."
            )
        found[path.stem] = path
    return found


def _listed(source: Path) -> list[Path]:
    try:
        lines = source.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source}: no text; expected a folder, or a text file with a picture's path a line"
        ) from error
    paths = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            path = source.parent / line.strip()
            if not path.is_file():
                raise FileNotFoundError(f"{source}: line {number}: there is no picture {path}")
            paths.append(path)
    return paths
