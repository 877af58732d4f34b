"""The paper's ablations (Tables 3 to 5) on the toy world, as Hydra multiruns.

    python -m benchmarks.ablations cross_layers | initialisation | question_answering | vision_tasks

A table's runs are in `ablations.yaml`: a multirun of the pre-trainings, then one of the fine-tunings that start
from them. Further arguments are overrides for all runs, as for `train.py`. What is finished is kept: an
interrupted table goes on at the first run that is not, and the tables share their pre-trainings. At the end: the
toy's results beside the paper's, as a Markdown table, OUT/TABLE.json and OUT/TABLE.svg.

On a CPU or one GPU: Lightning starts the ranks of several with the same command, and each would sweep anew.
"""

from __future__ import annotations

import argparse
import difflib
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table

import train
from lxmert.files import write_text
from lxmert.report import Line, draw_lines, svg_of

CONF = Path(train.__file__).parent / "conf"
ABLATIONS = Path(__file__).with_suffix(".yaml")
EXPERIMENTS = {"pretraining": "toy_pretrain", "finetuning": "toy_vqa"}
ACCURACY = "test/answering/accuracy"


def main() -> None:
    """Run what is missing of a table, then show it."""
    ablations: Any = OmegaConf.to_container(OmegaConf.load(ABLATIONS))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=ablations["tables"])
    parser.add_argument("overrides", nargs="*", help="of all runs, such as seed=2 (then with a --to of its own)")
    for stage in EXPERIMENTS:
        parser.add_argument(
            f"--{stage}", action="append", default=[], metavar="OVERRIDE", help="of these runs alone"
        )
    parser.add_argument("--to", type=Path, default=Path("outputs/ablations"), metavar="OUT")
    options = parser.parse_intermixed_args()
    folder: Path = options.to.resolve()

    stages = plan(options.table, ablations, folder)
    register(stages)
    for stage, runs in stages.items():
        overrides = [f"experiment={EXPERIMENTS[stage]}", *options.overrides, *getattr(options, stage)]
        if left := unfinished(runs, folder, overrides):
            sweep(left, folder, overrides)
    result = collect(options.table, ablations, folder)
    print_table(result)
    write_text(folder / f"{options.table}.json", json.dumps(result, indent=2) + "\n")
    write_text(folder / f"{options.table}.svg", svg_of(draw(result)))
    print(f"\n{folder / options.table}.json, {folder / options.table}.svg")


def plan(table: str, ablations: Mapping[str, Any], folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The runs of a table: stage -> run, which is also its folder below `folder` -> what it changes.

    Args:
        table: which.
        ablations: content of `ablations.yaml`.
        folder: of all tables.
    """
    pretraining, finetuning = {}, {}
    for name, variant in ablations["tables"][table]["variants"].items():
        finetuning[f"{table}/{name}"] = changes = dict(variant["finetuning"])
        if start := variant.get("pretraining"):
            pretraining[f"pretraining/{start}"] = ablations["pretraining"][start]
            changes["init"] = str(folder / "pretraining" / start / "checkpoints" / "best.ckpt")
    return {"pretraining": pretraining, "finetuning": finetuning}


def register(stages: Mapping[str, Mapping[str, dict[str, Any]]]) -> None:
    """Make the runs known to Hydra, as choices of a group `ablation`."""
    store = ConfigStore.instance()
    store.store("root_schema", train.Root)
    for runs in stages.values():
        for run, changes in runs.items():
            group, name = run.split("/")
            store.store(name, changes, group=f"ablation/{group}", package="_global_")


def unfinished(runs: Iterable[str], folder: Path, overrides: Sequence[str]) -> list[str]:
    """The runs that have left no summary, or one that is older than the weights they start from.

    Raises:
        SystemExit: a finished run had another configuration than it would have now.
    """
    left = []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for run in runs:
            config = compose("train", [*overrides, f"+ablation={run}", "resume=auto"])
            summary = folder / run / "summary.json"
            if not summary.exists() or (
                config.init and Path(config.init).stat().st_mtime > summary.stat().st_mtime
            ):
                left.append(run)
                continue
            then = (folder / run / ".hydra" / "config.yaml").read_text().splitlines()
            changes = [
                line for line in difflib.ndiff(then, OmegaConf.to_yaml(config).splitlines()) if line[0] in "-+"
            ]
            if changes:
                raise SystemExit(
                    f"{folder / run} was run with another configuration: remove it, or name another folder with "
                    "--to. Then (-) and now (+):\n" + "\n".join(changes[:10])
                )
    return left


def sweep(runs: Sequence[str], folder: Path, overrides: Sequence[str]) -> None:
    """One multirun of train.py over the runs, one after the other; ends the program when one fails."""
    for run in runs:
        if (folder / run / "summary.json").exists():  # of older weights: it is not to go on
            shutil.rmtree(folder / run)
    sys.argv = [
        train.__file__,
        "--multirun",
        f"--config-path={CONF}",
        *overrides,
        f"+ablation={','.join(runs)}",
        f"hydra.sweep.dir={folder}",
        "hydra.sweep.subdir=${hydra:runtime.choices.ablation}",
        "hydra.sweeper.max_batch_size=1",  # the first failure ends it
        "hydra.output_subdir=.hydra",  # what `unfinished` compares with
        "resume=auto",  # a run that was killed
    ]
    train.main()


def collect(table: str, ablations: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What came out, in percent as in the paper, with what belongs to it."""
    content, variants, guess = ablations["tables"][table], {}, 0.0
    for name, variant in content["variants"].items():
        summary = read_summary(folder / table / name)
        [guess] = summary["baselines"].values()
        seconds = {"finetuning": summary["seconds"]}
        if start := variant.get("pretraining"):
            seconds["pretraining"] = read_summary(folder / "pretraining" / start)["seconds"]
        variants[name.replace("_", " ")] = {
            "toy_vqa": round(100 * summary["metrics"][ACCURACY], 1),
            "paper": variant["paper"],
            "seconds": seconds,
        }
    return {"title": content["title"], "toy_vqa_from_the_text_alone": round(100 * guess, 1), "variants": variants}


def read_summary(run: Path) -> dict[str, Any]:
    """What a finished run left."""
    return json.loads((run / "summary.json").read_text())


def print_table(result: Mapping[str, Any]) -> None:
    """Print accuracies and minutes, in Markdown."""
    table = Table(box=box.MARKDOWN, show_edge=True)
    table.add_column("", no_wrap=True)
    for column in ("toy VQA", "paper, VQA v2", "minutes of pre-training", "and of fine-tuning"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, variant in result["variants"].items():
        minutes = [variant["seconds"].get(stage) for stage in ("pretraining", "finetuning")]
        spelt = ["" if m is None else f"{m / 60:.1f}" for m in minutes]
        table.add_row(name, f"{variant['toy_vqa']:.1f}", f"{variant['paper']['vqa']:.1f}", *spelt)
    console = Console(width=120)
    console.print(f"{result['title']}: accuracy in percent on the minival questions", highlight=False)
    console.print(table)
    guess = result["toy_vqa_from_the_text_alone"]
    console.print(f"best guess from the text alone, on the toy: {guess:.1f}", highlight=False)


def draw(result: Mapping[str, Any]) -> Figure:
    """Toy and paper side by side; the two scales have nothing to do with each other."""
    names, variants = list(result["variants"]), list(result["variants"].values())
    figure = Figure(figsize=(9, 1.4 + 0.45 * len(names)), layout="constrained")
    figure.suptitle(result["title"])
    toy, paper = figure.subplots(1, 2, sharey=True)
    for axis, title, values in (
        (toy, "toy VQA (generated, not VQA v2)", [variant["toy_vqa"] for variant in variants]),
        (paper, "paper: VQA v2 minival", [variant["paper"]["vqa"] for variant in variants]),
    ):
        points = list(zip(values, range(len(names)), strict=True))
        draw_lines(axis, [Line("", points, {"linestyle": "", "marker": "o"})], title=title, xlabel="accuracy (%)")
        for value, place in points:
            axis.annotate(f"{value:.1f}", (value, place), (0, 6), textcoords="offset points", ha="center")
        axis.margins(x=0.15, y=0.3)
    toy.axvline(result["toy_vqa_from_the_text_alone"], color="grey", linestyle="--", label="from the text alone")
    toy.legend(fontsize="small")
    toy.set_yticks(range(len(names)), names)
    toy.invert_yaxis()
    return figure


if __name__ == "__main__":
    main()
