"""Why an answer: what each word and region is to it, and how well that holds when they are taken away."""

from lxmert.explain.explanation import METHODS, Explanation, explain, explain_head

__all__ = ["METHODS", "Explanation", "explain", "explain_head"]
