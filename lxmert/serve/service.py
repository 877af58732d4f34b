"""What the page asks for, without the way it comes by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from lxmert.ask import Asker, Reply
from lxmert.explain import METHODS
from lxmert.files import InputError, shorten, shown
from lxmert.serve.gallery import Gallery
from lxmert.serve.page import describe, drawn, exchange_of, page_of, ways

MOST_LISTED = 200  # entries of one answer
TOP = 5


@dataclass(frozen=True)
class Asked:
    """One question of the page.

    Args:
        images: ids.
        question: text.
        answer: to be explained; None for each model's best.
        method: of explaining.
        kept: numbers of the regions that are looked at; None for all.
    """

    images: tuple[str, ...]
    question: str
    answer: str | None = None
    method: str = METHODS[0]
    kept: tuple[int, ...] | None = None

    @classmethod
    def from_json(cls, content: Any) -> Asked:
        """As the page sends it.

        Raises:
            InputError: it is something else.
        """
        if not isinstance(content, dict):
            raise InputError(f"{shorten(content)}; expected a JSON object with images and question")
        kinds = {"images": list, "question": str, "answer": str | None, "method": str, "kept": list | None}
        if unknown := sorted(set(content) - set(kinds)):
            raise InputError(f"{shorten(unknown)}: unknown keys; expected {', '.join(kinds)}")
        if missing := {"images", "question"} - set(content):
            raise InputError(f"{', '.join(sorted(missing))} missing; expected images and question")
        for key, value in content.items():
            if not isinstance(value, kinds[key]):  # type: ignore[arg-type]
                raise InputError(f"{key}={shorten(value)} is of the wrong type")
        if not all(isinstance(each, str) for each in content["images"]):
            raise InputError(f"images={shorten(content['images'])}; expected image ids")
        kept = content.get("kept")
        if kept is not None and not all(type(each) is int for each in kept):
            raise InputError(f"kept={shorten(kept)}; expected numbers of regions")
        if content.get("method", METHODS[0]) not in METHODS:
            raise InputError(f"method={shown(content['method'])}; expected one of {', '.join(METHODS)}")
        return cls(
            tuple(content["images"]),
            content["question"],
            content.get("answer"),
            content.get("method", METHODS[0]),
            None if kept is None else tuple(kept),
        )


class Service:
    """One model, or two to be compared, and the pictures they are asked about. Safe to use from many threads.

    Args:
        askers: by the names they are shown by.
        gallery: the pictures, seen by the first one's eyes.

    Raises:
        InputError: the models are asked about different things, or one cannot be asked.
    """

    def __init__(self, askers: Mapping[str, Asker], gallery: Gallery) -> None:
        self.askers, self.gallery = dict(askers), gallery
        self._lock = Lock()  # of the models and the stores
        for asker in self.askers.values():
            asker.check_answers(METHODS[0])
        (first, reference), *others = self.askers.items()
        for name, asker in others:
            mine, its = ((each.num_pictures, each.config.visual_feat_dim) for each in (reference, asker))
            if mine != its:
                raise InputError(
                    f"{first} is asked about {mine[0]} picture(s) of {mine[1]} features a region, {name} about "
                    f"{its[0]} of {its[1]}: they cannot stand side by side"
                )

    def start(self) -> dict[str, Any]:
        """What the page knows from the start."""
        return {
            "live": True,
            "models": [describe(name, asker) for name, asker in self.askers.items()],
            "methods": list(METHODS),
            "total": len(self.gallery.entries),
            "first": list(self.gallery.entries[0]),
        }

    def images(self, start: int = 0, count: int = 1, like: str = "") -> dict[str, Any]:
        """Some of the entries, in order; with `like` of those with that text in an id."""
        entries: Sequence[tuple[str, ...]] = self.gallery.entries
        if like:
            entries = [entry for entry in entries if any(like in image_id for image_id in entry)]
        chosen = entries[max(start, 0) : max(start, 0) + min(max(count, 0), MOST_LISTED)]
        return {"total": len(entries), "entries": [list(entry) for entry in chosen]}

    def look(self, images: Sequence[str]) -> dict[str, Any]:
        """The regions of pictures, and what a split asks about them.

        Raises:
            FileNotFoundError: none of this name.
            InputError: too few or too many, or a file that is no picture.
        """
        with self._lock:
            self._check(images)
            pictures = [self._shown(self.gallery.see(image_id).to_dict()) for image_id in images]
        known = self.gallery.questions.get(tuple(images), ())
        return {
            "pictures": pictures,
            "place": self.gallery.places.get(tuple(images)),
            "questions": [{"question": question, "answer": answer} for question, answer in known],
        }

    def ask(self, asked: Asked) -> dict[str, Any]:
        """The exchange: what was asked, and each model's reply.

        Raises:
            FileNotFoundError: no image of this name.
            InputError: as of `Asker.ask`.
        """
        with self._lock:
            return self._exchange(asked, self._ask(asked))

    def page(self, asked: Asked) -> str:
        """The page as a file of its own, with the other `ways` to explain the first model's answers."""
        with self._lock:
            replies = self._ask(asked)
            others = [replace(asked, method=method, answer=answer) for method, answer in ways(replies[0])]
            exchanges = [self._exchange(asked, replies)]
            exchanges += [self._exchange(other, self._ask(other, maps=False)) for other in others]
            models = [describe(name, asker) for name, asker in self.askers.items()]
            return page_of(models, exchanges, [self.gallery.picture(image_id) for image_id in asked.images])

    def _check(self, images: Sequence[str]) -> None:
        if len(images) != self.gallery.each:
            raise InputError(f"{len(images)} images; this model is asked about {self.gallery.each}")

    def _ask(self, asked: Asked, maps: bool = True) -> list[Reply]:
        self._check(asked.images)
        seen = [self.gallery.see(image_id) for image_id in asked.images]
        replies = []
        for name, asker in self.askers.items():
            known = asked.answer is None or asked.answer in asker.answers
            if not known and len(self.askers) == 1:
                raise InputError(f"{shown(asked.answer)} is none of the model's {len(asker.answers)} answers")
            try:
                reply = asker.ask(
                    seen if asker.num_pictures > 1 else seen[0],
                    asked.question,
                    top=TOP,
                    explain=asked.method,
                    answer=asked.answer if known else None,
                    attentions=maps,
                    regions=asked.kept,
                )
            except InputError as error:
                raise InputError(f"{name}: {error}" if len(self.askers) > 1 else str(error)) from error
            if not known:
                reply.warnings.append(
                    f"{shown(asked.answer)} is none of its {len(asker.answers)} answers: its best one is explained"
                )
            replies.append(drawn(reply))
        return replies

    def _exchange(self, asked: Asked, replies: Sequence[Reply]) -> dict[str, Any]:
        exchange = exchange_of(asked.question, asked.answer, asked.method, asked.kept, asked.images, replies)
        for reply in exchange["replies"]:
            reply["pictures"] = [self._shown(each) for each in reply["pictures"]]
        return exchange

    def _shown(self, picture: dict[str, Any]) -> dict[str, Any]:
        return {**picture, "found": self.gallery.picture(picture["image_id"]) is not None}


def to_json(content: Any) -> str:
    """For the page: no NaN, which browsers do not read."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False)
