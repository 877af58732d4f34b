"""Text stores from the files that the makers of the data sets publish, without the LXMERT release's texts.

python -m datamodules.prepare {vqa,okvqa,vqacp,vizwiz,gqa,nlvr2,pretrain,refcoco,refcoco+,refcocog,visual7w}
                              [ROOT] [--official FOLDER] [--stores FOLDER]

Prepare vqa and gqa before pretrain, which is made of them, too. A store that was made from the same files is
kept; `manifest.json` beside the stores tells what they were made from.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from datamodules.prepare.gqa import MAKERS as GQA_SPLITS
from datamodules.prepare.gqa import prepare_gqa
from datamodules.prepare.nlvr2 import BY_DEFAULT, prepare_nlvr2
from datamodules.prepare.nlvr2 import MAKERS as NLVR2_SPLITS
from datamodules.prepare.preparation import Preparation
from datamodules.prepare.pretrain import prepare_pretrain
from datamodules.prepare.refcoco import DIVIDED, DIVISIONS, KNOWN, POINTING, prepare_refer, prepare_visual7w
from datamodules.prepare.vqa import DATA_SETS as VQA_KIND
from datamodules.prepare.vqa import prepare_vqa
from lxmert.files import InputError

TASKS = {
    "vqa": (
        lambda preparation, options: prepare_vqa(preparation, options.splits, options.minival),
        VQA_KIND["vqa"].splits,
    ),
    **{
        name: (lambda preparation, options: prepare_vqa(preparation, options.splits), VQA_KIND[name].splits)
        for name in ("okvqa", "vqacp", "vizwiz")
    },
    "gqa": (lambda preparation, options: prepare_gqa(preparation, options.splits, options.all), GQA_SPLITS),
    "nlvr2": (lambda preparation, options: prepare_nlvr2(preparation, options.splits), NLVR2_SPLITS),
    "pretrain": (lambda preparation, options: prepare_pretrain(preparation), ()),
    **{
        name: (lambda preparation, options: prepare_refer(preparation, options.splits, options.division), KNOWN)
        for name in DIVIDED
    },
    "visual7w": (lambda preparation, options: prepare_visual7w(preparation, options.splits), POINTING),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare one task and print what there is; 0, or 1 with one message when the files cannot be used."""
    options = _parser().parse_args(arguments)
    prepare, _ = TASKS[options.task]
    try:
        preparation = Preparation(options.task, options.root, options.official, options.stores)
        prepare(preparation, options)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _print(preparation)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.prepare", description="Text stores from the makers' own files."
    )
    tasks = parser.add_subparsers(dest="task", required=True)
    for name, (_, splits) in TASKS.items():
        task = tasks.add_parser(name)
        task.add_argument("root", type=Path, nargs="?", default=Path("data"), help="the data folder (data)")
        task.add_argument("--official", type=Path, help="where the makers' files are, at any depth")
        task.add_argument("--stores", type=Path, help="where the stores go (ROOT/stores)")
        if splits:
            usual = None if name in DIVIDED else list(BY_DEFAULT if name == "nlvr2" else splits)
            task.add_argument("--splits", nargs="+", choices=list(splits), default=usual)
        if name == "vqa":
            what = (
                "the release's minival.json, or val2014's features as TSV: divides val into nominival and minival"
            )
            task.add_argument("--minival", type=Path, metavar="FILE", help=what)
        if name in DIVIDED:
            what = f"who divided the data into splits ({DIVIDED[name][0]})"
            task.add_argument("--division", choices=DIVISIONS, help=what)
        if name == "gqa":
            task.add_argument("--all", action="store_true", help="also the unbalanced questions, for consistency")
    return parser


def _print(preparation: Preparation) -> None:
    counts = preparation.counts
    table = Table(title=f"{preparation.task}: {preparation.folder}", title_justify="left")
    table.add_column("")
    for store in counts:
        table.add_column(store, justify="right", overflow="fold")
    for name in dict.fromkeys(name for count in counts.values() for name in count):
        table.add_row(name, *(f"{count[name]:,}" if name in count else "" for count in counts.values()))
    table.add_row("", *preparation.states.values())
    console = Console()
    console.print(table)
    for note in preparation.notes:
        console.print(note, highlight=False, markup=False)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
