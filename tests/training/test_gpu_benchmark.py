"""The GPU's benchmark, as far as a CPU can go through it."""

import math
import re
from itertools import islice

import pytest
import torch
from runs import checkpoint, train

from benchmarks import gpu, inference
from benchmarks.pretraining_data import write_set

CPU = torch.device("cpu")


def test_every_kind_of_case_is_measured_at_tiny_sizes(monkeypatch, capsys):
    for name, few in (("SECONDS", 0.0), ("ROUNDS", 2), ("BATCHES", 1)):
        monkeypatch.setattr(gpu, name, few)
    titles = []
    for case in islice(gpu.cases((4, 8, 12), tiny=True, device=CPU), 3):
        assert gpu.EAGER in case.ways and gpu.THEIRS in case.ways
        case.ways = {name: make for name, make in case.ways.items() if name in (gpu.THEIRS, gpu.EAGER)}
        found = gpu.measure(case, math.inf, CPU)
        gpu.table(case, found, None)
        titles.append((case.title, case.rows))
        for each in found.values():
            assert len(each.speeds) == gpu.ROUNDS and min(each.speeds) > 0 and each.operations > 0
        assert found[gpu.EAGER].operations < found[gpu.THEIRS].operations
    assert titles == [("pre-training step", 8), ("VQA step", 4), ("inference, 4 questions an image", 12)]
    assert "transformers" in capsys.readouterr().out


def test_what_the_time_does_not_allow_is_named(capsys):
    case = next(gpu.cases((4, 8, 12), tiny=True, device=CPU))
    assert gpu.measure(case, -math.inf, CPU) == {}
    assert "pre-training step, 8 rows, compiled: left out" in capsys.readouterr().out


@pytest.mark.parametrize("on_device", [False, True])
def test_the_whole_of_it_trains_through_the_data_modules(tmp_path, on_device):
    write_set(tmp_path / "data", 200, inference.REGIONS, 16)
    run = train(*gpu.overrides(tmp_path / "data", 16, on_device, True, CPU), folder=tmp_path)
    assert checkpoint(run)["global_step"] == 12
    assert re.fullmatch(
        r"[\d,]+ rows/s \(.*\), \d+% of the time without data", gpu.throughput(run / "logs/metrics.csv")
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "there is no GPU" in capsys.readouterr().err
