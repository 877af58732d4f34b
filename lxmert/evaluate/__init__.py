"""The makers' rules for scoring predictions of VQA, VizWiz, GQA, NLVR2, classes, boxes, without torch."""

from lxmert.evaluate.classes import area_under_roc, score_classes
from lxmert.evaluate.ensemble import Scores, write_scores
from lxmert.evaluate.gqa import score_gqa
from lxmert.evaluate.labels import label_problem, score_labels
from lxmert.evaluate.nlvr2 import score_nlvr2
from lxmert.evaluate.probes import (
    grouped,
    means_of,
    score_foils,
    score_likelihoods,
    score_quadruples,
)
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
    "area_under_roc",
    "average_precision",
    "box_iou",
    "canonical_answer",
    "check_submission",
    "clean_vqa_answer",
    "counting_spellings",
    "grouped",
    "identifier_problem",
    "label_problem",
    "means_of",
    "normalise_vqa_answer",
    "read_ids",
    "score_classes",
    "score_foils",
    "score_gqa",
    "score_labels",
    "score_likelihoods",
    "score_nlvr2",
    "score_quadruples",
    "score_regions",
    "score_vizwiz",
    "score_vqa",
    "some",
    "vizwiz_accuracy",
    "vqa_accuracy",
    "vqa_soft_scores",
    "write_scores",
]
