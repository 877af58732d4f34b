"""A run's `logs/metrics.csv` across kills: nothing logged before a checkpoint is lost, and no row is half."""

import csv
from pathlib import Path

import pytest

from lxmert.runs import cut_log
from lxmert.runs import table as table_module
from lxmert.runs.loggers import CsvLogger

ROWS = [{"epoch": 0, "step": step, "train/loss": 0.5 + step} for step in range(12)]


def logger(folder):
    return CsvLogger(str(folder), name="", version="logs")


def rows_of(folder):
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return [{name: cell for name, cell in row.items() if cell} for row in csv.DictReader(file)]


@pytest.fixture
def logged(tmp_path):
    """The folder of a run that has logged `ROWS`, then a validation."""
    made = logger(tmp_path)
    for row in ROWS:
        made.log_metrics({name: value for name, value in row.items() if name != "step"}, row["step"])
    made.save()
    made.log_metrics({"epoch": 0, "val/loss": 2.0}, 11)
    made.save()
    return tmp_path


def test_a_table_that_is_cut_off_anywhere_loses_the_row_alone_in_which_it_was_cut(logged):
    table = logged / "logs" / "metrics.csv"
    content = table.read_bytes()
    whole = rows_of(logged)
    for end in range(len(content)):
        table.write_bytes(content[:end])
        lines = content[:end].count(b"\n")
        cut_log(table, 10**6, validated=True)
        assert table.exists() == bool(lines)
        assert not lines or rows_of(logged) == whole[: lines - 1], end


def test_a_resumed_run_appends_to_the_rows_before_its_checkpoint_without_a_warning(logged, recwarn):
    cut_log(logged / "logs" / "metrics.csv", 5, validated=True)
    resumed = logger(logged)
    for row in (*ROWS[5:], {"epoch": 0, "step": 11, "val/accuracy": 0.25, "val/loss": 2.0}):
        resumed.log_metrics({name: value for name, value in row.items() if name != "step"}, row["step"])
        resumed.save()
    assert [int(row["step"]) for row in rows_of(logged)] == [*range(12), 11]
    assert rows_of(logged)[-1] == {"epoch": "0", "step": "11", "val/accuracy": "0.25", "val/loss": "2.0"}
    assert not [each for each in recwarn if "will be deleted" in str(each.message)]


def test_a_kill_while_a_column_is_added_leaves_the_table_as_it_was(logged, monkeypatch):
    before = (logged / "logs" / "metrics.csv").read_bytes()

    class Killed(BaseException):
        """In place of a signal."""

    def kill(self, rows):
        next(iter(rows))
        raise Killed

    resumed = logger(logged)
    resumed.log_metrics({"val/accuracy": 0.25}, 11)
    monkeypatch.setattr(table_module.csv.DictWriter, "writerows", kill)
    with pytest.raises(Killed):
        resumed.save()
    assert (logged / "logs" / "metrics.csv").read_bytes() == before
    assert [path.name for path in Path(logged / "logs").iterdir()] == ["metrics.csv"]
