"""The ablations: what their runs change, that a table runs, goes on where it stopped, and is shown."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from benchmarks import ablations

ROOT = Path(__file__).parents[2]
CONTENT = OmegaConf.to_container(OmegaConf.load(ablations.ABLATIONS))
OUT = Path("/out")
TINY = [
    *("model.hidden_size=32", "model.num_attention_heads=2", "model.intermediate_size=64", "model.l_layers=1"),
    *("data.world.train=40", "data.world.minival=8", "data.world.nominival=4", "data.world.test=4"),
    *("data.batch_size=16", "trainer.limit_train_batches=2", "trainer.max_epochs=1", "callbacks.progress=null"),
    *("data.world.pictures=1", "callbacks.examples=null"),
]
EVERY_EPOCH = "++trainer.check_val_every_n_epoch=1"
# Tables 3, 4, 5: VQA minival, GQA testdev, NLVR2 dev.
PAPER = {
    "cross_layers": [(64.6, 55.5, 52.4), (65.8, 56.1, 50.9), (66.4, 56.6, 50.9)],
    "initialisation": [(65.1, 50.0, 50.9), (69.9, 60.0, 74.9)],
    "question_answering": [(68.0, 58.1, None), (68.9, 58.2, 72.4), (69.1, 59.2, None), (69.9, 60.0, 74.9)],
    "vision_tasks": [(66.3, 57.1, 50.9), (69.2, 59.5, 72.9), (69.5, 59.3, 73.5), (69.9, 60.0, 74.9)],
}


@pytest.fixture(scope="module")
def configs():
    """(table, stage) -> run -> the configuration it runs with."""
    composed, found = {}, {}
    with initialize_config_dir(str(ablations.CONF), version_base="1.3"):
        for table in CONTENT["tables"]:
            stages = ablations.plan(table, CONTENT, OUT)
            ablations.register(stages)
            for stage, runs in stages.items():
                for run, changes in runs.items():
                    same = stage, json.dumps({**changes, "init": None})  # composing takes its time
                    if same not in composed:
                        overrides = [f"experiment={ablations.EXPERIMENTS[stage]}", f"+ablation={run}"]
                        composed[same] = compose("train", overrides)
                    config = changed(composed[same], "init", changes.get("init"))
                    found.setdefault((table, stage), {})[run.split("/")[1]] = config
    return found


def changed(config, key, value):
    config = config.copy()
    OmegaConf.update(config, key, value)
    return config


# ------------------------------------------------------------------------------- what the runs are


def test_the_papers_numbers_are_those_of_its_tables():
    scores = {
        name: [tuple(v["paper"].get(task) for task in ("vqa", "gqa", "nlvr2")) for v in table["variants"].values()]
        for name, table in CONTENT["tables"].items()
    }
    assert scores == PAPER


def test_the_first_table_changes_the_number_of_cross_layers_alone(configs):
    assert ("cross_layers", "pretraining") not in configs
    runs = list(configs["cross_layers", "finetuning"].values())
    assert [config.model.x_layers for config in runs] == [1, 2, 3]
    for config in runs:
        assert changed(config, "model.x_layers", 2) == runs[1]
        assert config.init is None and config.data.train == "train,nominival"


def test_pre_trained_and_not_differ_in_their_start_alone(configs):
    scratch, started = configs["initialisation", "finetuning"].values()
    assert (scratch.init, started.init) == (None, "/out/pretraining/full/checkpoints/best.ckpt")
    assert scratch.data.train == "train_tenth"
    assert scratch == changed(started, "init", None)


def test_question_answering_is_left_out_of_pretraining_or_of_the_finetuning_data(configs):
    pretraining = configs["question_answering", "pretraining"]
    full = ["matching", "masked_language", "masked_region", "question_answering"]
    assert {name: list(c.objective) for name, c in pretraining.items()} == {"full": full, "without_qa": full[:3]}
    assert pretraining["full"].data == pretraining["without_qa"].data  # as sentences the questions stay
    runs = configs["question_answering", "finetuning"]
    starts = {name: config.init.split("/")[3] for name, config in runs.items()}
    assert starts == {
        "augmented_without_QA": "without_qa",
        "without_QA": "without_qa",
        "augmented_with_QA": "full",
        "with_QA": "full",
    }
    for name, config in runs.items():
        further = ",gqa_train,gqa_nominival" if name.startswith("augmented") else ""
        assert config.data.train == f"train_tenth{further}"
    # The questions that are added are those that pre-training has answers of.
    sources = pretraining["full"].data.sources
    assert pretraining["full"].data.train == "mscoco_train,mscoco_nominival"
    assert sources.gqa > 0 and sources.vqa == 0


def test_vision_tasks_are_chosen_by_the_losses_of_masked_regions(configs):
    pretraining = configs["vision_tasks", "pretraining"]
    losses = {
        name: config.objective.get("masked_region", {}).get("losses", []) for name, config in pretraining.items()
    }
    assert losses == {
        "without_vision_tasks": [],
        "features": ["feature"],
        "labels": ["object", "attribute"],
        "full": ["object", "attribute", "feature"],
    }
    assert "question_answering" in pretraining["without_vision_tasks"].objective
    starts = [config.init.split("/")[3] for config in configs["vision_tasks", "finetuning"].values()]
    assert starts == ["without_vision_tasks", "features", "labels", "full"]


# ----------------------------------------------------------------------------- running and showing


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A tiny table that has run: its folder, its arguments, and what was printed."""
    folder = tmp_path_factory.mktemp("ablations")
    arguments = ["initialisation", f"paths.data={folder}/data", *TINY, "--to", str(folder / "out")]
    arguments += ["--pretraining", "optimizer.lr=2e-3", "--finetuning", EVERY_EPOCH]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ablations", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out", arguments, done.stdout


def left_of(table, *overrides):
    """The fine-tunings that would run."""
    folder, (name, data, *_), _ = table
    stages = ablations.plan(name, CONTENT, folder)
    ablations.register(stages)
    return ablations.unfinished(
        stages["finetuning"], folder, ["experiment=toy_vqa", data, *TINY, EVERY_EPOCH, *overrides]
    )


def test_a_table_ends_with_the_toys_accuracies_beside_the_papers(table):
    folder, _, said = table
    result = json.loads((folder / "initialisation.json").read_text())
    assert list(result["variants"]) == ["from scratch", "pre-trained"]
    for name, variant in result["variants"].items():
        summary = json.loads((folder / "initialisation" / name.replace(" ", "_") / "summary.json").read_text())
        assert variant["toy_vqa"] == round(100 * summary["metrics"]["test/answering/accuracy"], 1)
        [row] = [line for line in said.splitlines() if line.startswith(f"| {name} ")]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1:3] == [f"{variant['toy_vqa']:.1f}", str(variant["paper"]["vqa"])]
    assert list(result["variants"]["from scratch"]["seconds"]) == ["finetuning"]
    assert "toy VQA" in said and "<svg" in (folder / "initialisation.svg").read_text()


def test_finetuning_starts_from_its_pretraining_and_each_stage_has_its_overrides(table):
    folder = table[0]
    pretrained, started, scratch = (
        OmegaConf.load(folder / run / "config.yaml")
        for run in ("pretraining/full", "initialisation/pre-trained", "initialisation/from_scratch")
    )
    assert pretrained.optimizer.lr == 2e-3 != started.optimizer.lr
    assert Path(started.init).samefile(folder / "pretraining" / "full" / "checkpoints" / "best.ckpt")
    assert scratch.init is None
    log = (folder / "initialisation" / "pre-trained" / "train.log").read_text()
    assert "answers found by text" in log and "answer head: 0 of" not in log


def test_a_finished_table_is_shown_without_running_anything(table, monkeypatch, capsys):
    _, arguments, said = table
    monkeypatch.setattr(ablations, "sweep", lambda *_: pytest.fail("runs again"))
    monkeypatch.setattr(sys, "argv", ["ablations", *arguments])
    ablations.main()
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")] == [
        line for line in said.splitlines() if line.startswith("|")
    ]


def test_what_has_no_summary_or_older_weights_runs_again(table):
    folder = table[0]
    assert left_of(table) == []
    weights = folder / "pretraining" / "full" / "checkpoints" / "best.ckpt"
    times = weights.stat()
    os.utime(weights)
    assert left_of(table) == ["initialisation/pre-trained"]
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    summary = folder / "initialisation" / "from_scratch" / "summary.json"
    content = summary.read_text()
    summary.unlink()
    assert left_of(table) == ["initialisation/from_scratch"]
    summary.write_text(content)


def test_results_of_another_configuration_are_not_mixed_in(table):
    with pytest.raises(SystemExit) as refused:
        left_of(table, "seed=2")
    message = str(refused.value)
    assert "initialisation/from_scratch was run with another configuration" in message
    assert "--to" in message and "- seed: 9595" in message and "+ seed: 2" in message
