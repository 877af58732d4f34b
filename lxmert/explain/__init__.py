"""Why an answer: what each word and region is to it, and how well that holds when they are taken away."""

from lxmert.explain.explanation import METHODS, Explanation, explain, explain_head
from lxmert.explain.perturbation import ORDERS, REMOVED, Removal, areas, perturb

__all__ = [
    "METHODS", "ORDERS", "REMOVED", "Explanation", "Removal", "areas", "explain", "explain_head", "perturb",
]  # fmt: skip
