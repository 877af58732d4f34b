"""Published weights in their makers' layouts -> a detector's file."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datamodules.detector.config import BoxRule, DetectorConfig
from datamodules.detector.files import write_detector
from datamodules.detector.weights.layouts import assemble
from datamodules.detector.weights.opening import KNOWN, open_layout
from datamodules.stores import BOTTOM_UP_ATTENTION
from lxmert.files import InputError

__all__ = ["KNOWN", "Report", "convert_weights", "read_names"]

# The lists of bottom-up attention, data/genome/1600-400-20: their hash -> what they are.
_PUBLISHED = {
    "d985096938db111f585a311ff0a2ee9092fbc325c3a619ac9622e57e5389722f": "objects_vocab.txt",
    "19981b5a288f284c576545a21de78634f1a78c26b6949f7acf12b924739fdc66": "attributes_vocab.txt",
}


@dataclass(frozen=True)
class Report:
    """What was read of a file of weights, and what was left.

    Attributes:
        source: the file.
        source_sha256: its hash.
        layout: whose file it is.
        config: sizes.
        arrays: read.
        numbers: weights of the detector that they became.
        unused: arrays that features do not need, by layer: how many.
        unknown: likewise, of those that nothing is known of.
        names: of each list of names, what it is.
        sha256: the detector's hash.
    """

    source: Path
    source_sha256: str
    layout: str
    config: DetectorConfig
    arrays: int
    numbers: int
    unused: dict[str, int]
    unknown: dict[str, int]
    names: tuple[str, ...]
    sha256: str

    def __str__(self) -> str:
        config = self.config
        lines = [
            f"{self.source}: {self.layout}",
            f"  sha256 of the file {self.source_sha256}",
            f"  read: {self.arrays:,} arrays -> {self.numbers:,} weights; blocks {config.blocks}, "
            f"{config.objects:,} object and {config.attributes:,} attribute classes, "
            f"{config.feature_dim:,} features a region",
            *(f"  left out, not needed: {layer} ({count} arrays)" for layer, count in self.unused.items()),
            *(f"  left out, NOT KNOWN: {layer} ({count} arrays)" for layer, count in self.unknown.items()),
            *(f"  names: {name}" for name in self.names),
            f"  sha256 of the detector {self.sha256}",
        ]
        return "\n".join(lines)


def convert_weights(
    source: Path,
    path: Path,
    *,
    objects: Path | None = None,
    attributes: Path | None = None,
    rule: BoxRule | None = None,
    name: str | None = None,
) -> Report:
    """Write a detector's file from published weights.

    Args:
        source: a file of one of the layouts in `KNOWN`.
        path: of the detector's file.
        objects: the list of object names; None: the file will have none.
        attributes: likewise.
        rule: how many boxes a picture has; None: 36, as in LXMERT's released features.
        name: what region stores call the detector; None: as the release, where the sizes are its own.

    Raises:
        FileNotFoundError: a file is not there.
        InputError: the weights are of another layout, damaged or incomplete, or a list does not fit; or `path` is
            the source itself.
    """
    if source.exists() and path.exists() and path.samefile(source):
        raise InputError(f"{path}: is the published weights themselves. Give the detector's file another name.")
    layout = open_layout(source)
    config, state = assemble(layout)
    config = replace(config, box_rule=rule or config.box_rule)
    left = layout.arrays.left()
    if name is None and replace(config, box_rule=BoxRule()) != DetectorConfig():
        raise InputError(
            f"{source}: blocks {config.blocks}, {config.objects} object and {config.attributes} attribute "
            "classes: not the sizes of the detector of LXMERT's release. Give it a name of its own: --name NAME"
        )
    lists = [
        (list_path, read_names(list_path)) if list_path else (None, ()) for list_path in (objects, attributes)
    ]
    digest = _sha256(source)
    sha256 = write_detector(
        path,
        config,
        state,
        name=name or BOTTOM_UP_ATTENTION,
        object_names=lists[0][1],
        attribute_names=lists[1][1],
        source=f"{source.name}, sha256 {digest}, {layout.title}",
    )
    return Report(
        source=source,
        source_sha256=digest,
        layout=layout.title,
        config=config,
        arrays=len(layout.arrays.read),
        numbers=sum(tensor.numel() for tensor in state.values()),
        unused=_by_layer(name for name, unused in left.items() if unused),
        unknown=_by_layer(name for name, unused in left.items() if not unused),
        names=tuple(_about(list_path, names) for list_path, names in lists if list_path),
        sha256=sha256,
    )


def _by_layer(names: Iterable[str]) -> dict[str, int]:
    """Layer -> how many arrays; the counters of all normalisations together."""
    counter = "num_batches_tracked"
    return Counter(counter if name.endswith(f".{counter}") else re.sub(r"[.:]\w+$", "", name) for name in names)


def read_names(path: Path) -> tuple[str, ...]:
    """The names of a list of one class a line, of which the first of several, with commas between, counts.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: no text, or an empty name.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}; expected a name a line") from error
    names = tuple(line.split(",")[0].strip() for line in text.removesuffix("\n").split("\n"))
    for number, name in enumerate(names, 1):
        if not name:
            raise InputError(f"{path}: line {number} is empty; expected the name of a class on each line")
    return names


def _about(path: Path, names: Sequence[str]) -> str:
    known = _PUBLISHED.get(_sha256(path))
    return f"{len(names):,} of {path}, " + (f"the published {known}" if known else "not the published list")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
