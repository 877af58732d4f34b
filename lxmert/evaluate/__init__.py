"""The makers' rules for scoring VQA, VizWiz, GQA, NLVR2 and RefCOCO predictions, plain functions without torch."""

from lxmert.evaluate.ensemble import Scores, write_scores
from lxmert.evaluate.gqa import score_gqa
from lxmert.evaluate.labels import label_problem, score_labels
from lxmert.evaluate.nlvr2 import score_nlvr2
from lxmert.evaluate.refcoco import box_iou, score_regions
from lxmert.evaluate.scores import GroupScore, ScoreReport, ScoringError, identifier_problem, some
from lxmert.evaluate.spelling import canonical_answer, counting_spellings
from lxmert.evaluate.submissions import check_submission, read_ids
from lxmert.evaluate.tasks import TASKS, Task
from lxmert.evaluate.vizwiz import VIZWIZ_RULE, average_precision, score_vizwiz, vizwiz_accuracy
from lxmert.evaluate.vqa import (
    VQA_RULE,
    AnnotatorRule,
    clean_vqa_answer,
    normalise_vqa_answer,
    score_vqa,
    vqa_accuracy,
    vqa_soft_scores,
)

__all__ = [
    "TASKS",
    "VIZWIZ_RULE",
    "VQA_RULE",
    "AnnotatorRule",
    "GroupScore",
    "ScoreReport",
    "Scores",
    "ScoringError",
    "Task",
    "average_precision",
    "box_iou",
    "canonical_answer",
    "check_submission",
    "clean_vqa_answer",
    "counting_spellings",
    "identifier_problem",
    "label_problem",
    "normalise_vqa_answer",
    "read_ids",
    "score_gqa",
    "score_labels",
    "score_nlvr2",
    "score_regions",
    "score_vizwiz",
    "score_vqa",
    "some",
    "vizwiz_accuracy",
    "vqa_accuracy",
    "vqa_soft_scores",
    "write_scores",
]
