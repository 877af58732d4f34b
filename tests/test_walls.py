"""Who may import what: the boundaries that keep model, data and command line apart."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("lxmert/**/*.py"), *ROOT.glob("datamodules/**/*.py"), ROOT / "train.py"])


class Import(NamedTuple):
    file: str  # relative to the project
    line: int
    module: str  # absolute, dotted; `from a import b` counts as a.b

    def of(self, package: str) -> bool:
        return f"{self.module}.".startswith(f"{package}.")

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports_in(file: Path) -> Iterator[Import]:
    """Every import, those inside functions too."""
    name = file.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            yield from (Import(name, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *filter(None, [node.module])])
            yield from (Import(name, node.lineno, f"{module}.{alias.name}") for alias in node.names)


IMPORTS = [found for file in FILES for found in imports_in(file)]


def within(*places: str) -> list[Import]:
    """The imports of files and folders (which end in /)."""
    return [i for i in IMPORTS if any(i.file == p or (p.endswith("/") and i.file.startswith(p)) for p in places)]


def refuse(wrong: list[Import], rule: str) -> None:
    assert not wrong, "\n".join([rule, *map(str, wrong)])


def test_the_imports_are_found():
    assert {i.file for i in within("lxmert/")} > {"lxmert/model.py", "lxmert/tokenization/tokenizer.py"}
    assert any(i.of("torch") for i in within("lxmert/model.py"))
    assert any(i.of("lxmert.batch") for i in within("datamodules/"))


def test_lxmert_never_imports_datamodules_or_the_command_line_commands_excepted():
    commands = (
        *(f"lxmert/{room}/__main__.py" for room in ("evaluate", "explain", "retrieve")),
        *("lxmert/ask/", "lxmert/serve/", "lxmert/probe/"),
    )
    found = [i for i in within("lxmert/") if not i.file.startswith(commands)]
    wrong = [i for i in found if i.of("datamodules") or i.of("train")]
    refuse(wrong, "lxmert/ must know nothing of files and data sets:")


# From the ground up: a file imports from its own place and from those before it. A room is one place.
ORDER = {
    "lxmert": [
        *("files", "hash_random", "batch", "outputs", "finite", "tokenization", "optim", "evaluate", "weights"),
        *("config", "casting", "model", "heads", "base", "pretrained", "tensorflow", "explain", "objectives"),
        *("report", "retrieve", "learner", "callbacks", "runs", "explain.__main__", "ask", "match", "probe"),
        *("serve", "ask.__main__", "retrieve.__main__"),
        *("weights.export", "checkpoint", "__init__"),
    ],
    "datamodules": [
        *("progress", "stores", "formats", "detector", "layout", "batches", "release", "statistics", "sense"),
        *("base", "vqa", "gqa", "nlvr2", "grounding", "pretrain", "retrieval", "toy"),
        *("prepare", "validate", "download", "convert", "extract", "init", "__init__"),
    ],
}
SIDEWAYS = {
    "prepare",
    "validate",
    "download",
    "convert",
    "extract",
    "init",
    "vqa",
    "gqa",
    "nlvr2",
    "grounding",
    "pretrain",
    "retrieval",
}  # know none of each other


def place_of(module: str) -> tuple[int, str]:
    """Where in `ORDER` a module is, and its name there."""
    package, _, rest = module.partition(".")
    names = ORDER[package]
    name = max((name for name in names if f"{rest}.".startswith(f"{name}.")), key=len, default="__init__")
    return names.index(name), name


def modules_imported() -> dict[str, dict[str, Import]]:
    """Of each file of ours, the files of ours that it imports."""
    known = {module_of(file) for file in FILES}
    found: dict[str, dict[str, Import]] = {name: {} for name in known}
    for each in IMPORTS:
        parent = each.module.rpartition(".")[0]
        target = each.module if each.module in known else parent
        if target in known and target != (own := module_of(ROOT / each.file)):
            found[own][target] = each
    return found


def test_files_import_from_those_below_them():
    wrong = []
    for own, targets in modules_imported().items():
        for target, each in targets.items():
            if own != "train" and own.split(".")[0] == target.split(".")[0]:
                (here, name), (there, other) = place_of(own), place_of(target)
                if there > here or (name != other and {name, other} <= SIDEWAYS):
                    wrong.append(each)
    refuse(wrong, "upwards, or from one command or data module to another:")


def test_no_files_import_each_other_in_a_circle():
    imported = modules_imported()
    left = dict(imported)
    while free := [name for name, targets in left.items() if not left.keys() & targets.keys()]:
        left = {name: targets for name, targets in left.items() if name not in free}
    assert not left, f"a circle among {sorted(left)}"


def test_few_files_lie_outside_of_the_rooms():
    assert len(list((ROOT / "lxmert").glob("*.py"))) <= 15
    assert len(list((ROOT / "datamodules").glob("*.py"))) <= 12


def test_datamodules_know_nothing_of_the_model():
    allowed = (
        "lxmert.batch",
        "lxmert.tokenization",
        "lxmert.hash_random",
        "lxmert.evaluate.spelling",
        "lxmert.files",
        "lxmert.evaluate",
    )
    wrong = [i for i in within("datamodules/") if i.of("lxmert") and not any(i.of(a) for a in allowed)]
    refuse(wrong, "datamodules/ may import from lxmert only what knows no model:")
    refuse([i for i in within("datamodules/") if i.of("train")], "datamodules/ must not import train.py:")


def test_what_prepares_and_what_validates_share_formats_and_know_nothing_of_each_other():
    wrong = [i for i in within("datamodules/validate/") if i.of("datamodules.prepare")]
    wrong += [i for i in within("datamodules/prepare/") if i.of("datamodules.validate")]
    refuse(wrong, "what both know of a format belongs into datamodules/formats/:")


def test_objectives_never_import_each_other_or_the_learner():
    allowed = ("lxmert.objectives.base", "lxmert.objectives.metrics")
    wrong = [
        i
        for i in within("lxmert/objectives/")
        if i.of("lxmert.learner") or (i.of("lxmert.objectives") and not any(i.of(a) for a in allowed))
    ]
    refuse(wrong, f"an objective may import of its kind only {' and '.join(allowed)}, and never the learner:")


def test_the_model_knows_no_training_framework():
    plain = ["model", "heads", "pretrained", "checkpoint", "config", "batch", "outputs", "files"]
    rooms = ["lxmert/objectives/", "lxmert/evaluate/", "lxmert/tokenization/"]
    places = [*(f"lxmert/{name}.py" for name in plain), *rooms]
    frameworks = ("lightning", "pytorch_lightning", "hydra", "lxmert.learner")
    wrong = [i for i in within(*places) if any(i.of(f) for f in frameworks)]
    refuse(wrong, "plain torch here, no Lightning, no Hydra, no learner:")


def test_hydra_stays_in_the_command_line_and_one_module_that_builds():
    users = {i.file for i in IMPORTS if i.of("hydra")} - {"train.py"}
    assert users == {"lxmert/runs/build.py"}
    wrong = [i for i in IMPORTS if i.of("hydra") and i.file in users]
    assert len(users) <= 1, "\n".join(["Hydra belongs in train.py and one build module:", *map(str, wrong)])
    refuse([i for i in wrong if i.file.startswith("datamodules/")], "no data set may read the config:")


def test_h5py_stays_in_the_store_files():
    stores = [f"datamodules/stores/{name}.py" for name in ("hdf5", "regions", "texts")]
    stores.append("lxmert/weights/tf_h5.py")  # TensorFlow's weights are such a file
    wrong = [i for i in IMPORTS if i.of("h5py") and i.file not in stores]
    refuse(wrong, f"h5py only in {', '.join(stores)}:")


def test_wandb_stays_in_the_callbacks():
    wrong = [i for i in IMPORTS if i.of("wandb") and not i.file.startswith("lxmert/callbacks/")]
    refuse(wrong, "wandb only in lxmert/callbacks/:")


def test_keras_stays_in_its_room():
    wrong = [i for i in IMPORTS if not i.file.startswith("lxmert/tensorflow/")]
    names = ("keras", "tensorflow", "optree", "jax", "lxmert.tensorflow")
    refuse([i for i in wrong if any(map(i.of, names))], "Keras only in lxmert/tensorflow/, which nobody imports:")


def test_nobody_who_imports_lxmert_gets_keras():
    code = "import lxmert, sys; [getattr(lxmert, n) for n in lxmert.__all__]; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# Formats and objectives are used one at a time: of these rooms each file is a door.
ROOMS = [
    *("lxmert/weights", "lxmert/evaluate", "lxmert/report", "lxmert/callbacks", "lxmert/runs", "lxmert/ask"),
    *("lxmert/tokenization", "lxmert/explain", "lxmert/serve", "lxmert/retrieve"),
    "lxmert/tensorflow",
    *("datamodules/stores", "datamodules/batches", "datamodules/sense", "datamodules/detector"),
]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_entered_through_its_init(room):
    files = {module_of(file) for file in (ROOT / room).glob("[!_]*.py")}
    inside = files - {"lxmert.runs.build", "lxmert.weights.export"}  # Hydra, for train.py alone; a command
    free = (f"{room}/", "lxmert/__init__.py")  # which loads a file when one of its names is asked for
    wrong = [i for i in IMPORTS if any(map(i.of, inside)) and not i.file.startswith(free)]
    refuse(wrong, f"what {room}/ is for is in its __init__:")


def test_the_report_is_imported_without_drawing_or_torch():
    code = "import lxmert.report, sys; sys.exit(bool({'matplotlib', 'torch', 'lightning'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# Run in an empty folder with the names of our modules; other libraries come first, so that what shows is ours.
IMPORT_ALL = """
import importlib, sys, threading, time
import torch, lightning, hydra, torchmetrics, numpy, h5py, tokenizers, safetensors, huggingface_hub, keras

class Untouchable(list):
    def fail(self, *_):
        raise AssertionError("reads sys.argv at import")
    __getitem__ = __iter__ = __len__ = fail

def settings():
    return torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), threading.active_count()

names, sys.argv = sys.argv[1:], Untouchable()
for name in names:
    seed, before, start = torch.get_rng_state(), settings(), time.process_time()
    try:
        importlib.import_module(name)
        assert torch.equal(seed, torch.get_rng_state()), "draws or seeds random numbers at import"
        assert settings() == before, "changes torch or starts a thread at import"
        assert not torch.cuda.is_initialized(), "starts CUDA at import"
        assert time.process_time() - start < 5, "takes over 5 s of processor time to import"
    except BaseException as error:
        sys.exit(f"{name}: {type(error).__name__}: {error}")
"""


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_nothing_runs_at_import(tmp_path):
    command = [sys.executable, "-c", IMPORT_ALL, *map(module_of, FILES)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "KERAS_BACKEND": "torch"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", f"importing prints: {done.stdout}"
    assert list(tmp_path.iterdir()) == [], "importing writes files"


def statements_that_run(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements at the top of a module that do more than import, define, name and document."""
    harmless = (
        ast.Import,
        ast.ImportFrom,
        ast.FunctionDef,
        ast.ClassDef,
        ast.Assign,
        ast.AnnAssign,
        ast.AugAssign,
    )
    for node in tree.body:
        constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        guarded = isinstance(node, ast.If) and ast.unparse(node.test) in (
            "__name__ == '__main__'",
            "TYPE_CHECKING",
        )
        if not (isinstance(node, harmless) or constant or guarded):
            yield node


@pytest.mark.parametrize("file", [f for f in FILES if f.name != "train.py"], ids=lambda f: module_of(f))
def test_a_module_only_imports_and_defines(file):
    found = list(statements_that_run(ast.parse(file.read_text(encoding="utf-8"))))
    name = file.relative_to(ROOT)
    assert not found, "\n".join(f"{name}:{n.lineno} runs at import: {ast.unparse(n)[:80]}" for n in found)


def test_a_broken_wall_is_named_with_file_and_line():
    wrong = Import("lxmert/model.py", 7, "datamodules.vqa.VqaDataModule")
    assert wrong.of("datamodules")
    assert not wrong.of("data")
    with pytest.raises(AssertionError, match=r"lxmert/model\.py:7 imports datamodules\.vqa"):
        refuse([wrong], "rule")
