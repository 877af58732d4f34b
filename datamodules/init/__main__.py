"""Look at a data set of one's own, say what is there, and write the experiment that trains on it.

python -m datamodules.init data/mine [--columns text=Frage] [--vocabulary] [--into own/experiment/mine.yaml]

Texts are data/mine/SPLIT.{json,jsonl,csv,tsv}, each also .gz; regions data/mine_imgfeat/*.tsv or stores in
data/stores/mine_imgfeat/*.h5. Both are converted as training would, and kept for it. See docs/own_data.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.formats.own import find_columns, has_pairs, image_roles, named_columns
from datamodules.formats.rows import read_rows
from datamodules.init.vocabulary import SIZE, write_vocabulary
from datamodules.release import ReleaseFolder, own_folder
from datamodules.stores import ExampleStore, RegionStore
from lxmert.files import InputError, write_text

BEGINNINGS = {"train": ("train",), "valid": ("val", "dev"), "test": ("test",)}  # of the usual names of splits
_AT_ONCE = 10_000


@dataclass
class Found:
    """What is there: a data set's name, files, columns, images an example, splits, size of a region's features."""

    name: str
    release: ReleaseFolder
    columns: Mapping[str, str]
    num_images: int
    splits: dict[str, ExampleStore]
    feature_dim: int | None = None

    def roles(self) -> dict[str, list[str]]:
        """The splits to train, validate, test and predict on, by their names."""
        labelled = [split for split, store in self.splits.items() if store.labelled]
        train, valid, test = (
            [split for split in labelled if split.lower().startswith(usual)] for usual in BEGINNINGS.values()
        )
        unlabelled = [split for split in self.splits if split not in labelled]
        return {
            "train": train or (labelled if len(labelled) == 1 and not valid + test else []),
            "valid": valid,
            "test": test or valid,
            "predict": unlabelled or test or valid,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the experiment; 0, or 1 with one message when the data set cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.init", description="Write the experiment of a data set of your own."
    )
    parser.add_argument("folder", type=Path, help="of the texts, in the data folder: data/mine")
    parser.add_argument(
        "--columns", nargs="+", default=[], metavar="WHAT=NAME", help="such as text=Frage image=Bild"
    )
    parser.add_argument("--stores", type=Path, help="folder of the stores, paths.stores (data/stores)")
    parser.add_argument(
        "--vocabulary",
        nargs="?",
        type=int,
        const=SIZE,
        metavar="PIECES",
        help=f"make FOLDER/vocab.txt of the training texts, of at most so many word pieces ({SIZE}); without it "
        "the tokenizer is that of bert-base-uncased, which released weights need",
    )
    parser.add_argument("--into", type=Path, help="the experiment (own/experiment/NAME.yaml)")
    options = parser.parse_args(arguments)
    try:
        found = look(options.folder, options.stores, named_columns(options.columns))
        say(found)
        path = options.into or Path("own", "experiment", f"{found.name}.yaml")
        if path.exists():
            raise InputError(f"{path}: it is there already. Remove it, or name another with --into.")
        vocabulary = options.folder / "vocab.txt"
        if options.vocabulary and vocabulary.exists():  # weights may have been trained with it
            raise InputError(
                f"{vocabulary}: it is there already, and is used without --vocabulary. Remove it for a new one."
            )
        if options.vocabulary:
            train = [found.splits[split] for split in found.roles()["train"]]
            texts = (text for store in train for text in _texts(store))
            print(f"{vocabulary}: {write_vocabulary(vocabulary, texts, options.vocabulary):,} word pieces")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, experiment(found, vocabulary if vocabulary.exists() else None))
    except (InputError, OSError) as error:
        here = "\n  Here --columns WHAT=NAME says it." if "data.columns." in str(error) else ""
        print(f"error: {error}{here}", file=sys.stderr)
        return 1
    root = found.release.root
    data = "" if root == Path("data").absolute() else f" paths.data={root}"
    print(f"{path}: written. Train with\n")
    print(f"  python train.py experiment={path.stem}{data} --config-dir {path.parent.parent}")
    return 0


def look(folder: Path, stores: Path | None = None, columns: Mapping[str, str] | None = None) -> Found:
    """Find and convert a data set's texts and regions.

    Args:
        folder: of the texts.
        stores: folder of the stores; None for `stores` beside `folder`.
        columns: what a column is -> its name, where that is unusual.

    Raises:
        InputError: there are none, or they cannot be used.
        OSError: they cannot be read, or the stores not be written.
    """
    folder = folder.absolute()
    columns = columns or {}
    release = own_folder(folder.parent, stores, folder.name, f"{folder.name}_imgfeat", columns)
    names = release.splits()
    if not names:
        raise InputError(
            f"{folder}: no texts, SPLIT with {' or '.join(release.endings)}. Put train.csv and valid.csv there, "
            "with the columns question, image, answer (docs/own_data.md)."
        )
    first = next(read_rows(release.text_file(names[0])), None)
    if first is None:
        raise InputError(f"{release.text_file(names[0])}: no rows. Remove it, or fill it.")
    if pairs := has_pairs(first[1], columns):
        release = own_folder(folder.parent, stores, folder.name, f"{folder.name}_imgfeat", columns, pairs=True)
    images = image_roles(first, columns, pairs=pairs)
    find_columns(first, columns, images)  # before anything is converted
    release.prepare([], only_texts=names)
    found = Found(
        folder.name,
        release,
        columns,
        len(images),
        {name: ExampleStore(release.text_store(name)) for name in names},
    )
    if release.region_files():
        release.prepare(names)
        found.feature_dim = RegionStore(release.region_store(release.region_files()[0])).feature_dim
    return found


def say(found: Found) -> None:
    """Print what was found."""
    roles = found.roles()
    for split, store in found.splits.items():
        uses = [role for role, splits in roles.items() if split in splits]
        images = [image for column in found.release.image_columns(store) for image in column]
        what = "questions" if found.num_images == 1 else f"statements about {found.num_images} images"
        facts = [
            f"{len(store):,} {what}",
            f"{len(set(images)):,} images",
        ]
        if found.feature_dim:
            places = found.release.open_regions([split], found.feature_dim).of(images, split)
            lost = sorted({image for image, place in zip(images, places, strict=True) if place < 0})
            facts += (
                [f"{len(lost):,} of them without regions, such as {lost[0]}"] if lost else ["all with regions"]
            )
        facts.append(f"{len(store.table('answers')):,} answers" if store.labelled else "no answers")
        unused = "nothing: add it to data.train if it is to be trained on"
        print(f"{split}: {', '.join(facts)}; to {' and '.join(uses) or unused}")
    if found.feature_dim:
        print(f"regions: {found.feature_dim} features each")
    else:
        regions = found.release.stores / f"{found.name}_imgfeat" / "all.h5"
        print("regions: none yet. Make them with\n")
        print(f"  python -m datamodules.convert FEATURES {regions} --detector NAME\n")
    if not roles["train"]:
        raise InputError(
            f"{found.release.root / found.name}: no split to train on: expected one with answers whose name "
            f"begins with train, found {', '.join(found.splits)}. Rename the file of one, or give it answers."
        )


def experiment(found: Found, vocabulary: Path | None) -> str:
    """The experiment's yaml."""
    data: dict[str, object] = {"folder": found.name, **found.roles()}
    data |= {"columns": dict(found.columns)} if found.columns else {}
    data |= {"tokenizer": f"${{paths.data}}/{found.name}/vocab.txt"} if vocabulary else {}
    lines = ["# @package _global_"]
    several = found.num_images > 1
    about = f"Statements about {found.num_images} pictures each" if several else "Questions about pictures"
    lines += [f"# {about}: {found.name}.", "defaults:", f"  - {'own_pairs' if several else 'own'}", "data:"]
    lines += [f"  {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in data.items()]  # JSON is YAML
    lines += ["model:", f"  visual_feat_dim: {found.feature_dim}"] if found.feature_dim else []
    return "".join(f"{line}\n" for line in lines)


def _texts(store: ExampleStore) -> Iterator[str]:
    for start in range(0, len(store), _AT_ONCE):
        yield from store.texts(np.arange(start, min(start + _AT_ONCE, len(store))))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
