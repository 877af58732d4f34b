"""Ask a trained model about a picture.

python -m lxmert.ask CHECKPOINT PICTURE "what is the man holding?" --detector WEIGHTS
python -m lxmert.ask CHECKPOINT IMAGE_ID "what is the man holding?" --store REGIONS.h5
python -m lxmert.ask CHECKPOINT LEFT RIGHT "there are two dogs in all" ...    (a model of statements about two)

CHECKPOINT is a run's folder, such as outputs/latest, a weights file or folder, or a hub name. Prints the best
answers with their probabilities; `--explain OUT.html` writes a page that shows which words and regions led to the
first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lxmert.ask import Asker, Reply, add_sources, sources_of
from lxmert.explain import METHODS
from lxmert.files import InputError, write_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask once; 0, or 1 with one message."""
    options = _parser().parse_args(arguments)
    try:
        if len(options.asked) < 2:
            raise InputError("expected a picture and a question, the question in quotation marks")
        for path, ending in ((options.explain, ".html"), (options.json, ".json")):
            if path is not None and (path.suffix != ending or not path.parent.is_dir()):
                raise InputError(f"{path}: expected a file that ends in {ending}, in a folder that is there")
        asker = Asker.open(options.checkpoint, **sources_of(options))
        *pictures, question = options.asked
        if asker.num_pictures == 1 and len(pictures) > 1:
            raise InputError(
                f"{len(pictures)} pictures; this model is asked about one. Put the question in quotes"
            )
        wanted = options.method if options.explain or options.answer else None
        reply = asker.ask(
            pictures[0] if asker.num_pictures == 1 else pictures,
            question,
            top=options.top,
            explain=wanted,
            answer=options.answer,
            attentions=options.explain is not None,
        )
        if options.explain is not None:
            from lxmert.serve import every_way, write_static

            write_static([reply, *every_way(asker, reply)], options.explain, options.checkpoint, asker)
        if options.json is not None:
            write_text(options.json, json.dumps(reply.to_dict(), indent=2, ensure_ascii=False) + "\n")
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _print(reply)
    for path in filter(None, (options.explain, options.json)):
        print(f"written: {path}")
    return 0


def _print(reply: Reply) -> None:
    console = Console(markup=False, highlight=False)
    table = Table(title=reply.question, title_justify="left")
    table.add_column("answer")
    table.add_column("probability", justify="right")
    for text, probability in reply.answers:
        table.add_row(text, f"{probability:.3f}")
    if reply.answers:
        console.print(table)
    if reply.fits is not None:
        console.print(f"sentence and picture fit: {reply.fits:.3f}")
    for guess in reply.guesses:
        words = ", ".join(f"{word} {probability:.3f}" for word, probability in guess.words)
        console.print(f"[MASK] at {guess.place}: {words}")
    if reply.region_scores is not None and reply.word_scores is not None:
        console.print(f"what led to {reply.explained!r} ({reply.method}):")
        tinted = list(zip(reply.words, reply.word_scores, strict=True))[1:-1]
        console.print("  words: " + "  ".join(f"{word} {score:.2f}" for word, score in tinted), soft_wrap=True)
        for place, (scores, seen) in enumerate(zip(reply.region_scores, reply.seen, strict=True)):
            strongest = sorted(range(len(seen)), key=lambda number: -scores[number])[:5]
            named = (f"{number} {seen.name_of(number)} {scores[number]:.2f}" for number in strongest)
            which = f" of picture {place + 1}" if len(reply.seen) > 1 else ""
            console.print(f"  regions{which}: " + ", ".join(named), soft_wrap=True)
    for warning in reply.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lxmert.ask", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="what was trained")
    parser.add_argument(
        "asked",
        metavar="PICTURE QUESTION",
        nargs="+",
        help="a file, or an image id of the store; then the question",
    )
    add_sources(parser)
    parser.add_argument("--top", type=int, default=5, help="answers to print (5)")
    parser.add_argument("--answer", help="explain this one, not the best")
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help=f"of explaining ({METHODS[0]})")
    parser.add_argument("--explain", metavar="OUT.html", type=Path, help="write a page that shows why")
    parser.add_argument("--json", metavar="OUT.json", type=Path, help="write all of it in numbers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
