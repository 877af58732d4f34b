"""The page that a run leaves: its scores, curves and examples. matplotlib is loaded where something is drawn."""

from lxmert.report.curves import PUBLISHED, Line, draw_curves, draw_lines, draw_losses, svg_of
from lxmert.report.inlined import drawing, script_data, source_hash
from lxmert.report.page import RELEVANCE, Example, Facts, Frame, View, write_report
from lxmert.report.scores import score_table

__all__ = [
    "PUBLISHED", "RELEVANCE", "Example", "Facts", "Frame", "Line", "View", "draw_curves", "draw_lines",
    "draw_losses", "drawing", "score_table", "script_data", "source_hash", "svg_of", "write_report",
]  # fmt: skip
