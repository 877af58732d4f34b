"""Image and text retrieval by a matching head: scoring all pairs, ranks, files; `python -m lxmert.retrieve`."""

from lxmert.retrieve.ranks import TOLERANCE, Ranks, ranks_of, summarize
from lxmert.retrieve.results import NOTE, found_examples, write_results
from lxmert.retrieve.scorefile import ScoreFile, fingerprint_of, read_candidates
from lxmert.retrieve.scoring import Collection, score_pairs

__all__ = [
    "NOTE",
    "TOLERANCE",
    "Collection",
    "Ranks",
    "ScoreFile",
    "fingerprint_of",
    "found_examples",
    "ranks_of",
    "read_candidates",
    "score_pairs",
    "summarize",
    "write_results",
]
