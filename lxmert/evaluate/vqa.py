"""VQA v2: the official answer normalisation and accuracy, and the soft scores LXMERT trains on.

The rules are those of the official evaluation code (GT-Vision-Lab/VQA, vqaEval.py), slips included, so
that a score here is the score there. OK-VQA and VQA-CP have the same annotations and the same rules; VizWiz has
others (vizwiz.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

from lxmert.evaluate.scores import (
    Id,
    ScoreReport,
    ScoringError,
    id_type_of,
    identifier_problem,
    index_predictions,
    percent,
    refuse_unknown,
    require_all,
    score_groups,
    some,
)
from lxmert.files import shorten

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
# The official pattern also means to spare a period that follows a digit, but mistypes that half.
STRIPPED_PERIOD = re.compile(r"\.(?!\d)")
# The official call passes a regular expression flag, worth 32, where the number of substitutions goes.
MOST_STRIPPED_PERIODS = 32
ARTICLES = {"a", "an", "the"}
NUMBERS = {
    **{"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"},
    **{"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"},
}


def _contractions() -> dict[str, str]:
    """Misspelt -> correct: each contraction with any one of its apostrophes forgotten."""
    stems = {  # ending -> what it follows
        "n't": "ai are ca could did do does had has have is might must need ought sha should was were wo would",
        "n't've": "could had might should would",
        "'ve": "could might must not should they we what where who would you",
        "'d": "he how it someone something there they where who you",
        "'d've": "he it she somebody someone something there they we who y'all you",
        "'ll": "how it somebody someone something they what who why y'all you",
        "'s": "he how somebody someone that there what when where who why",
        "'re": "there they what why you",
        "": "ma'am o'clock y'all 'ow's'at 'twas",
    }
    table = {}
    for ending, words in stems.items():
        for correct in (word + ending for word in words.split()):
            for place in (match.start() for match in re.finditer("'", correct)):
                table[correct[:place] + correct[place + 1 :]] = correct
    # The one entry that goes the wrong way officially.
    table["somebody'd"] = "somebodyd"
    return table


CONTRACTIONS = _contractions()


def clean_vqa_answer(answer: str) -> str:
    """The answer without line breaks, tabs and outer spaces: all that is done to it when annotators agree."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def normalise_vqa_answer(answer: str) -> str:
    """The answer as the official VQA evaluation compares it when annotators disagree.

    Punctuation, then periods, then lower case, number words, articles and contractions. A symbol that stands
    next to a space anywhere in the answer is deleted everywhere in it, one that does not becomes a space;
    a comma between digits makes every symbol deleted.
    """
    original = clean_vqa_answer(answer)
    has_number_comma = DIGIT_COMMA_DIGIT.search(original) is not None
    text = original
    for symbol in PUNCTUATION:
        # Officially tested on the original, while `text` changes.
        deleted = has_number_comma or f"{symbol} " in original or f" {symbol}" in original
        text = text.replace(symbol, "" if deleted else " ")
    text = STRIPPED_PERIOD.sub("", text, count=MOST_STRIPPED_PERIODS)
    numbered = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in numbered if word not in ARTICLES)


class AnnotatorRule(NamedTuple):
    """How an answer is compared with those of the annotators: by spellings, of (the answer, each of theirs).

    Args:
        agreed: where all annotators wrote the same, spelt so.
        disagreed: where they did not.
    """

    agreed: tuple[Callable[[str], str], Callable[[str], str]]
    disagreed: tuple[Callable[[str], str], Callable[[str], str]]

    def accuracy(self, prediction: str, annotator_answers: Sequence[str]) -> float:
        """The accuracy of one answer, in 0..1.

        Each annotator in turn is left out; three others who gave the predicted answer make it right, one or two
        a third or two thirds; the mean of that.

        Raises:
            ScoringError: there are no annotators' answers.
        """
        agree = len(set(map(self.agreed[1], annotator_answers))) == 1
        spell, spell_theirs = self.agreed if agree else self.disagreed
        return _leave_one_out(spell(prediction), list(map(spell_theirs, annotator_answers)))


VQA_RULE = AnnotatorRule(
    agreed=(clean_vqa_answer, clean_vqa_answer), disagreed=(normalise_vqa_answer, normalise_vqa_answer)
)


def vqa_accuracy(prediction: str, annotator_answers: Sequence[str]) -> float:
    """The official accuracy of one answer, in 0..1: answers are normalised only when the annotators disagree.

    Raises:
        ScoringError: there are no annotators' answers.
    """
    return VQA_RULE.accuracy(prediction, annotator_answers)


def _leave_one_out(prediction: str, answers: Sequence[str]) -> float:
    if not answers:
        raise ScoringError("annotations: a question without annotators' answers has no accuracy")
    matches = answers.count(prediction)
    return sum(min((matches - (answer == prediction)) / 3, 1.0) for answer in answers) / len(answers)


def vqa_soft_scores(annotator_answers: Sequence[str], vocabulary: Container[str]) -> dict[str, float]:
    """The soft label of a question: 0.3, 0.6, 0.9 and 1 for an answer of one, two, three and more annotators.

    Answers are taken as written, not normalised, as in the labels of the original release; those outside
    `vocabulary` (pass a set or dict) are left out.
    """
    counts = Counter(answer for answer in annotator_answers if answer in vocabulary)
    return {answer: {1: 0.3, 2: 0.6, 3: 0.9}.get(count, 1.0) for answer, count in counts.items()}


def score_vqa(predictions: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]) -> ScoreReport:
    """Score a submission as the official VQA script does.

    Args:
        predictions: `{"question_id": int, "answer": str}`, one for every question of the split; the ids are texts
            where those of the annotations are.
        annotations: the `annotations` list of the official annotation file, of VQA v2 or OK-VQA, or all of the
            file of VQA-CP.

    Returns:
        `metrics["accuracy"]` and the groups `answer_type` and `question_type`.

    Raises:
        ScoringError: a malformed, repeated, unknown or missing prediction (the script refuses the file, too),
            or malformed annotations.
    """
    id_type = id_type_of(annotations, "question_id")
    predicted = index_predictions(predictions, "question_id", id_type, "answer")
    questions = index_annotations(annotations, "question_id", id_type, ("answer_type", "question_type"))
    return score_answers(predicted, questions, "question ids", VQA_RULE, ("answer_type", "question_type"))


def score_answers(
    predicted: Mapping[Id, str],
    questions: Mapping[Id, Mapping[str, Any]],
    what: str,
    rule: AnnotatorRule,
    kinds: Sequence[str],
) -> ScoreReport:
    """Score answers by `rule`, overall and by each of `kinds`; `what` the ids are, for messages."""
    refuse_unknown(predicted, questions, what)
    require_all(predicted, questions, "questions")
    scores = {
        id_: rule.accuracy(predicted[id_], [entry["answer"] for entry in question["answers"]])
        for id_, question in questions.items()
    }
    groups = {
        kind: score_groups((question[kind], scores[id_]) for id_, question in questions.items()) for kind in kinds
    }
    return ScoreReport(len(scores), {"accuracy": percent(list(scores.values()))}, groups)


def index_annotations(
    annotations: Sequence[Mapping[str, Any]], id_key: str, id_type: type, kinds: Sequence[str]
) -> dict[Any, Mapping[str, Any]]:
    """The annotations by id, checked; ScoringError where one lacks its id, its answers or one of `kinds`."""
    if not isinstance(annotations, Sequence) or isinstance(annotations, str) or not annotations:
        raise ScoringError("annotations: expected the list under `annotations` of the official annotation file")
    fields = (id_key, "answers", *kinds)
    questions: dict[Any, Mapping[str, Any]] = {}
    for place, question in enumerate(annotations):
        absent = [name for name in fields if name not in question] if isinstance(question, Mapping) else fields
        if absent:
            raise ScoringError(f"annotations[{place}]: {shorten(question)} lacks {', '.join(absent)}")
        id_, answers = question[id_key], question["answers"]
        if problem := identifier_problem(id_, id_type):
            raise ScoringError(f"annotations[{place}]: {id_key} is {shorten(id_)}, {problem}")
        for kind in kinds:
            if not isinstance(question[kind], str):
                raise ScoringError(
                    f"annotations[{place}]: {kind} of {id_key} {shorten(id_)} is {shorten(question[kind])}, "
                    "expected a text"
                )
        if not isinstance(answers, list | tuple) or not answers or not all(map(_is_answer, answers)):
            raise ScoringError(
                f"annotations[{place}]: answers of {id_key} {shorten(id_)} "
                f'are {shorten(answers)}, expected a list of {{"answer": str}}'
            )
        if id_ in questions:
            raise ScoringError(f"annotations[{place}]: {id_key} {some([id_])} occurs a second time")
        questions[id_] = question
    return questions


def _is_answer(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("answer"), str)
