"""The page, served or as a file of its own: one template, with all that it needs inside."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lxmert.ask import Asker, Reply
from lxmert.explain import METHODS
from lxmert.files import write_text
from lxmert.report import drawing, script_data, source_hash

DRAWN = ("cross_encoder_attentions", "vision_to_language_attentions", "cross_language_attentions")


def describe(name: str, asker: Asker) -> dict[str, Any]:
    """A model, as the page tells of it."""
    return {
        "name": name,
        "kind": type(asker.model).__name__,
        "answers": len(asker.answers),
        "pictures": asker.num_pictures,
        "detector": asker.config.detector,
    }


def drawn(reply: Reply) -> Reply:
    """With those attention maps alone that the page draws."""
    maps = reply.attentions and {name: reply.attentions[name] for name in DRAWN}
    return replace(reply, attentions=maps)


def exchange_of(
    question: str,
    answer: str | None,
    method: str | None,
    kept: Sequence[int] | None,
    images: Sequence[str | None],
    replies: Sequence[Reply],
) -> dict[str, Any]:
    """What was asked and what came of it, as JSON has it; one reply a model."""
    asked = {"images": images, "question": question, "answer": answer, "method": method, "kept": kept}
    return {"asked": asked, "replies": [reply.to_dict() for reply in replies]}


def ways(reply: Reply) -> list[tuple[str, str]]:
    """What a file of a reply can switch to, as (method, answer).

    Each of its answers by its method, and what it explains by the others. Not by attention, which the page has all
    maps of.
    """
    assert reply.method is not None and reply.explained is not None
    drawn_by = [method for method in METHODS if method != "attention"]
    method = reply.method if reply.method in drawn_by else drawn_by[0]
    found = [(method, answer) for answer, _ in reply.answers] + [(each, reply.explained) for each in drawn_by]
    return [each for each in dict.fromkeys(found) if each != (reply.method, reply.explained)]


def every_way(asker: Asker, reply: Reply, regions: Sequence[int] | None = None) -> list[Reply]:
    """The replies to a reply's question by the other `ways` to explain it."""
    pictures = reply.seen if asker.num_pictures > 1 else reply.seen[0]
    top = len(reply.answers)
    return [
        asker.ask(pictures, reply.question, top=top, explain=method, answer=answer, regions=regions)
        for method, answer in ways(reply)
    ]


def served_page() -> tuple[str, str]:
    """The page that asks a server, and its Content-Security-Policy."""
    return _render(None, "", "connect-src 'self'; img-src 'self' data:")


def page_of(
    models: Sequence[Mapping[str, Any]], exchanges: Sequence[Mapping[str, Any]], pictures: Sequence[Path | None]
) -> str:
    """The page as a file that needs nothing but itself.

    Args:
        models: see `describe`.
        exchanges: see `exchange_of`; the first is shown, the others as far as they are clicked on.
        pictures: files of the pictures asked about, None for one that is not at hand.
    """
    data = {
        "live": False,
        "models": models,
        "methods": list(METHODS),
        "exchanges": exchanges,
        "pictures": [None if path is None else data_uri(path) for path in pictures],
    }
    return _render(data, exchanges[0]["asked"]["question"], "img-src data:")[0]


def write_static(
    replies: Reply | Sequence[Reply], path: str | Path, name: str = "model", asker: Asker | None = None
) -> None:
    """Write replies to one question as a page: the one served, without a server.

    Args:
        replies: of one question about the same pictures; the first is shown. Further ones are shown when their
            explained answers are clicked on, or their methods.
        path: HTML file.
        name: of the model.
        asker: what replied; with it the page tells which detector the model was trained on.
    """
    listed = [replies] if isinstance(replies, Reply) else list(replies)
    first = listed[0]
    images = [seen.image_id for seen in first.seen]
    exchanges = [
        exchange_of(each.question, None if not place else each.explained, each.method, None, images, [drawn(each)])
        for place, each in enumerate(listed)
    ]
    unknown = {"name": name, "kind": None, "answers": len(first.scores), "pictures": len(first.seen)}
    model = {**unknown, "detector": None} if asker is None else describe(name, asker)
    write_text(Path(path), page_of([model], exchanges, [seen.picture for seen in first.seen]))


def data_uri(path: Path) -> str | None:
    """A picture inside a page; None where it is gone."""
    if not path.is_file():
        return None
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _render(data: Mapping[str, Any] | None, title: str, sources: str) -> tuple[str, str]:
    here = Path(__file__).parent
    css, js = drawing()
    css += (here / "page.css").read_text("utf-8")
    js += (here / "page.js").read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src {source_hash(js)}; style-src {source_hash(css)}; {sources}; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = Environment(loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("page.html").render(
        title=title, css=css, js=js, data=script_data(data), policy=policy, first=data and data["exchanges"][0]
    )
    return html + "\n", policy
