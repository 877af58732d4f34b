"""Ask a pre-trained model whether sentences fit a picture, and what each tells of the other.

python -m lxmert.match CHECKPOINT PICTURE "a man on a horse" ... --detector WEIGHTS [--likelihood] [--ablate]
python -m lxmert.match CHECKPOINT IMAGE_ID "a man on a horse" ... --store REGIONS.h5 [...]

CHECKPOINT is a run's folder of pre-training or retrieval, a weights file or folder, or a hub name. Prints for each
sentence the probability that it fits and the two logits of the matching head; docs/matching.md explains the rest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lxmert.ask import add_sources, sources_of
from lxmert.files import InputError, write_text
from lxmert.match import Match, Matcher

DIGITS = 6  # of a number in JSON


def main(arguments: Sequence[str] | None = None) -> int:
    """Match once; 0, or 1 with one message."""
    options = _parser().parse_args(arguments)
    try:
        if options.json is not None and (options.json.suffix != ".json" or not options.json.parent.is_dir()):
            raise InputError(f"{options.json}: expected a file that ends in .json, in a folder that is there")
        matcher = Matcher.open(options.checkpoint, **sources_of(options))
        picture = matcher.asker.see(options.picture)
        matches = matcher.match(picture, options.sentences)
        found = [to_dict(match) for match in matches]
        for each, sentence in zip(found, options.sentences, strict=True):
            if options.likelihood:
                seeing, blind = (matcher.likelihood(picture, sentence, blind=blind) for blind in (False, True))
                words = zip(seeing.words, seeing.logs.tolist(), blind.logs.tolist(), strict=True)
                each["log_likelihood"] = {"picture": rounded(seeing.total), "alone": rounded(blind.total)}
                each["words"] = [{"word": w, "picture": rounded(a), "alone": rounded(b)} for w, a, b in words]
            if options.ablate:
                each["ablation"] = {
                    name: rounded(value) for name, value in asdict(matcher.ablate(picture, sentence)).items()
                }
        if options.json is not None:
            write_text(options.json, json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _print(found)
    for warning in dict.fromkeys(said for match in matches for said in match.warnings):
        print(f"warning: {warning}", file=sys.stderr)
    if options.json is not None:
        print(f"written: {options.json}")
    return 0


def to_dict(match: Match) -> dict[str, Any]:
    """As JSON has it."""
    return {
        "sentence": match.sentence,
        "probability": rounded(match.probability),
        "logits": {"no": rounded(match.logits[0]), "fits": rounded(match.logits[1])},
        "warnings": match.warnings,
    }


def rounded(number: Any) -> float:
    """To `DIGITS`."""
    return round(float(number), DIGITS)


def _print(found: Sequence[dict[str, Any]]) -> None:
    table = Table()
    table.add_column("sentence")
    for column in ("fits", "logit no", "logit fits"):
        table.add_column(column, justify="right")
    for each in found:
        logits = each["logits"]
        table.add_row(
            escape(each["sentence"]), f"{each['probability']:.3f}", f"{logits['no']:.2f}", f"{logits['fits']:.2f}"
        )
    console = Console(highlight=False)
    console.print(table)
    for each in found:
        lines = []
        if total := each.get("log_likelihood"):
            lines.append(f"log-likelihood with the picture {total['picture']:.2f}, without {total['alone']:.2f}")
            lines.append("  ".join(f"{w['word']} {w['picture']:.2f} ({w['alone']:.2f})" for w in each["words"]))
        if ablation := each.get("ablation"):
            lines.append(
                f"masked words: {ablation['words']:.3f} nats each with the picture, "
                f"{ablation['words_alone']:.3f} without"
            )
            lines.append(
                f"masked regions' objects: {ablation['regions']:.3f} with the sentence, "
                f"{ablation['regions_alone']:.3f} without"
            )
        if lines:
            console.print("\n  ".join([each["sentence"], *lines]), markup=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lxmert.match", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="what was pre-trained")
    parser.add_argument("picture", metavar="PICTURE", help="a file, or an image id of the store")
    parser.add_argument("sentences", metavar="SENTENCE", nargs="+", help="each in quotation marks")
    add_sources(parser, answers=False)
    parser.add_argument(
        "--likelihood",
        action="store_true",
        help="how likely each word is, given the others: with the picture, and without",
    )
    parser.add_argument(
        "--ablate", action="store_true", help="what is lost of one modality's masked parts without the other"
    )
    parser.add_argument("--json", metavar="OUT.json", type=Path, help="write all of it in numbers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
