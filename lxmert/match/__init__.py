"""Whether sentences fit pictures: `Matcher`, and `python -m lxmert.match`."""

from lxmert.match.matcher import Ablation, Likelihood, Match, Matcher

__all__ = ["Ablation", "Likelihood", "Match", "Matcher"]
