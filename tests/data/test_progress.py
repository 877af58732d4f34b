"""Progress: a bar where it can be drawn, lines in a log elsewhere."""

import io
import logging
import sys

import pytest

from datamodules.progress import LARGE, MANY, progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_no_bar_and_two_lines_of_what_takes_long(capsys, caplog):
    caplog.set_level(logging.INFO)
    with progress_bar("a.tsv", LARGE) as bar:
        bar.update(LARGE)
        assert bar.n == LARGE
    with progress_bar("a.tsv", MANY, "image", done=5) as bar:
        assert bar.n == 5
    assert caplog.messages == ["a.tsv: 50,000,000 bytes", "a.tsv: done", "a.tsv: 10,000 images", "a.tsv: done"]
    caplog.clear()
    with progress_bar("small", LARGE - 1), progress_bar("unknown"), progress_bar("hidden", LARGE, shown=False):
        pass
    assert caplog.messages == []
    assert "".join(capsys.readouterr()) == ""


@pytest.mark.parametrize("shown", [True, False])
def test_a_terminal_gets_a_bar_unless_it_is_not_wanted(monkeypatch, caplog, shown):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar("a.tsv", LARGE, shown=shown) as bar:
        bar.update(LARGE)
    assert ("a.tsv: 100%" in sys.stderr.getvalue()) == shown
    assert caplog.messages == []
