"""What a model of the toy answers about pictures, seen by the toy's detector, and about the regions of its store.

    python -m benchmarks.toy_pictures outputs/latest

Each question of a split is asked twice: once about its image in the region store, which the toy has made up, and
once about the picture, in which `datamodules/toy/detector.safetensors` finds the regions. Prints the accuracy of
both for each kind of question, and ends with 1 where the pictures' is lower by more than 0.03.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from datamodules.toy.detector import PATH
from lxmert.ask import Asker
from lxmert.runs import load_run
from lxmert.runs.build import open_split

AT_MOST_LOWER = 0.03


def main() -> int:
    """Ask all questions; 0, or 1 where too many answers about pictures are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run of experiment=toy_vqa")
    parser.add_argument("--split", default="minival", help="whose scenes all have pictures (minival)")
    parser.add_argument("--detector", type=Path, default=PATH, help=f"instead of {PATH.name}")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = open_split(options.run, options.split, load_run(options.run).answers)
    asked = defaultdict(list)
    for row in json.loads(data.release.text_file(options.split).read_text(encoding="utf-8")):
        asked[row["img_id"]].append(row)
    names = {name for image in asked for name in data.release.layout.files_of(image, options.split)}
    stores = [data.release.region_store(name) for name in sorted(names)]
    asker = Asker.open(options.run, detector=options.detector, store=stores)

    scores: dict[str, list[list[float]]] = defaultdict(lambda: [[], []])
    seconds = []
    for image, rows in asked.items():
        questions = [row["sent"] for row in rows]
        start = time.process_time()
        seen = asker.see(data.picture(image))
        seconds.append(time.process_time() - start)
        for place, replies in enumerate((asker.ask(image, questions), asker.ask(seen, questions))):
            for row, reply in zip(rows, replies, strict=True):
                for kind in (row["question_type"], "all"):
                    scores[kind][place].append(row["label"].get(reply.answer, 0))

    table = Table(title=f"{options.split}: {len(asked)} images")
    for name in ("question", "number", "store", "picture", "difference"):
        table.add_column(name, justify="left" if name == "question" else "right")
    for kind, both in sorted(scores.items(), key=lambda item: len(item[1][0])):
        store, picture = map(statistics.fmean, both)
        number = f"{len(both[0]):,}"
        table.add_row(kind, number, f"{store:.3f}", f"{picture:.3f}", f"{picture - store:+.3f}")
    Console().print(table)
    print(f"a picture takes {statistics.median(seconds):.3f} s of processor time")
    store, picture = map(statistics.fmean, scores["all"])
    return int(picture < store - AT_MOST_LOWER)


if __name__ == "__main__":
    sys.exit(main())
