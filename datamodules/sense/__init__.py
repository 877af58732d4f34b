"""What can hardly be meant so: refused where nothing could be learnt, else said once, with numbers."""

from datamodules.sense.answers import check_answers, check_spelling, report_unknown
from datamodules.sense.sentences import check_sentences, check_vocabulary
from datamodules.sense.splits import Split, compare_splits

__all__ = [
    "Split",
    "check_answers",
    "check_sentences",
    "check_spelling",
    "check_vocabulary",
    "compare_splits",
    "report_unknown",
]
