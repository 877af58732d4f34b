"""The makers' rules for scoring VQA, VizWiz, GQA and NLVR2 predictions, as plain functions without torch."""

from lxmert.evaluate.gqa import score_gqa
from lxmert.evaluate.nlvr2 import score_nlvr2
from lxmert.evaluate.scores import GroupScore, ScoreReport, ScoringError
from lxmert.evaluate.vqa import (
    clean_vqa_answer,
    normalise_vqa_answer,
    score_vizwiz,
    score_vqa,
    vizwiz_accuracy,
    vqa_accuracy,
    vqa_soft_scores,
)

__all__ = [
    "GroupScore",
    "ScoreReport",
    "ScoringError",
    "clean_vqa_answer",
    "normalise_vqa_answer",
    "score_gqa",
    "score_nlvr2",
    "score_vizwiz",
    "score_vqa",
    "vizwiz_accuracy",
    "vqa_accuracy",
    "vqa_soft_scores",
]
