"""What a pre-trained model makes of the examples of a probing set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from datamodules.formats.probes import Probe
from lxmert.ask import Seen
from lxmert.evaluate import grouped, means_of, score_foils, score_likelihoods, score_quadruples, some
from lxmert.files import InputError, shorten
from lxmert.match import Matcher

# By what sentences are compared: the matching head; how likely they are beside the picture, and without it.
WAYS = ("matching", "likelihood", "text")
AT_ONCE = 16  # examples


@dataclass
class Probed:
    """One example's scores.

    Args:
        probe: the example.
        seen: its pictures.
        scores: (2, P) float32 for two sentences and P pictures, higher where they fit better; ...
        logits: ... by the matching head the difference of these (2, P, 2): not fitting, fitting. None otherwise.
        equal: cut to the same word pieces.
    """

    probe: Probe
    seen: tuple[Seen, ...]
    scores: np.ndarray
    logits: np.ndarray | None
    equal: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "id": self.probe.id,
            "piece": self.probe.piece,
            "images": list(self.probe.images),
            "sentences": list(self.probe.sentences),
            "scores": np.round(self.scores.astype(np.float64), 6).tolist(),
        } | ({} if self.logits is None else {"logits": np.round(self.logits.astype(np.float64), 6).tolist()})


def probe(
    matcher: Matcher, probes: Sequence[Probe], by: str = WAYS[0], *, max_length: int | None = None
) -> Iterator[Probed]:
    """Score examples, in their order.

    Args:
        matcher: a pre-trained model and what its pictures come from.
        probes: examples.
        by: one of `WAYS`.
        max_length: word pieces to cut sentences to; None: they stay whole.

    Raises:
        InputError: before any is scored: images that neither a store nor the folder of pictures has, sentences of
            which no word is known, examples of one picture and of two.
    """
    if by not in WAYS:
        raise InputError(f"by={by}; expected one of {', '.join(WAYS)}")
    if len({len(each.images) for each in probes}) > 1:
        raise InputError("some examples have one picture and some two; score their files apart")
    for each in probes:
        try:
            matcher.tokens(each.sentences, max_length)
        except InputError as error:
            raise InputError(f"example {shorten(each.id)} of {shorten(each.piece)}: {error}") from error
    names = dict.fromkeys(name for each in probes for name in each.images)
    found = {name: matcher.asker.eyes.find(name) for name in names}
    if missing := [name for name, place in found.items() if place is None]:
        raise InputError(
            f"{len(missing)} of the {len(names)} images have no regions: {some(missing, 5)}. Name the region "
            "store that has them (--store), or a detector and the folder of the pictures (--detector, --pictures)"
        )
    scored: Callable[..., Iterator[Probed]] = _by_matching if by == "matching" else _by_likelihood
    for start in range(0, len(probes), AT_ONCE):
        part = probes[start : start + AT_ONCE]
        seen = {name: matcher.asker.see(found[name]) for each in part for name in each.images}
        yield from scored(matcher, part, seen, by, max_length)


def _by_matching(
    matcher: Matcher, probes: Sequence[Probe], seen: dict[str, Seen], by: str, max_length: int | None
) -> Iterator[Probed]:
    """All rows of these examples at once: each sentence with each picture of its example."""
    sentences = list(dict.fromkeys(text for each in probes for text in each.sentences))
    tokens, _ = matcher.tokens(sentences, max_length)
    of_sentence = {text: place for place, text in enumerate(sentences)}
    of_image = {name: place for place, name in enumerate(seen)}
    rows = [
        (of_sentence[text], of_image[name]) for each in probes for text in each.sentences for name in each.images
    ]
    row_sentence, row_image = torch.tensor(rows).T
    logits = matcher.logits(list(seen.values()), tokens, row_sentence, row_image).numpy()
    start = 0
    for each in probes:
        pictures = len(each.images)
        these = logits[start : start + 2 * pictures].reshape(2, pictures, 2)
        start += 2 * pictures
        one, other = (tokens["input_ids"][of_sentence[text]] for text in each.sentences)
        pair = tuple(seen[name] for name in each.images)
        yield Probed(each, pair, these[..., 1] - these[..., 0], these, torch.equal(one, other))


def _by_likelihood(
    matcher: Matcher, probes: Sequence[Probe], seen: dict[str, Seen], by: str, max_length: int | None
) -> Iterator[Probed]:
    for each in probes:
        pair = tuple(seen[name] for name in each.images)
        found = [
            [matcher.likelihood(one, text, blind=by == "text", max_length=max_length) for one in pair]
            for text in each.sentences
        ]
        scores = np.array([[likelihood.total for likelihood in row] for row in found])
        yield Probed(each, pair, scores, None, found[0][0].words == found[1][0].words)


def summary(results: Sequence[Probed]) -> dict[str, dict[str, float]]:
    """The metrics of each piece, in percent; with several pieces also of "mean", their mean."""
    pieces = {}
    for piece, places in grouped([each.probe.piece for each in results]).items():
        these = [results[place] for place in places]
        pieces[piece] = _metrics(these)
    return pieces | ({"mean": means_of(pieces)} if len(pieces) > 1 else {})


def _metrics(results: Sequence[Probed]) -> dict[str, float]:
    if len(results[0].seen) > 1:
        return score_quadruples(np.stack([each.scores for each in results]))
    logits = [each.logits[:, 0] for each in results if each.logits is not None]
    return (
        score_foils(np.stack(logits))
        if logits
        else score_likelihoods(np.stack([e.scores for e in results])[..., 0])
    )
