"""What a call may be given, and how it is given to the Rust tokenizer; errors that name the text or the option."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tokenizers import Encoding, Tokenizer

Words = Sequence[str]
Texts = str | Sequence[str] | Sequence[tuple[str, str]] | Sequence[Words] | Sequence[tuple[Words, Words]]

NO_LIMIT = int(1e30)  # what transformers writes for "no longest length"
LONGEST = 2**24  # tokens of a sentence; the library dies of lengths that no memory holds
TRUNCATIONS = ("longest_first", "only_first", "only_second", "do_not_truncate")
PADDINGS = ("longest", "max_length", "do_not_pad")
SIDES = ("right", "left")


class Setup(NamedTuple):
    """How a call pads and truncates."""

    padding: str
    length: int | None  # that "max_length" pads to
    multiple: int | None
    padding_side: str
    truncation: str
    limit: int | None  # of a row, special tokens included; None where nothing is cut
    stride: int
    truncation_side: str
    splits_special: bool


def choose(name: str, value: bool | str, choices: tuple[str, ...]) -> str:
    """One of `choices`: True is the first, False the last."""
    chosen = choices[0] if value is True else choices[-1] if value is False else value
    if chosen not in choices:
        raise ValueError(f"{name} must be True, False or one of {', '.join(choices)}, got {value!r}")
    return choices[choices.index(chosen)]  # of an enumeration its text


def choose_side(name: str, side: str) -> str:
    """`side` if it is one."""
    if side not in SIDES:
        raise ValueError(f"{name} must be 'right' or 'left', got {side!r}")
    return side


def check_multiple(multiple: int | None) -> int | None:
    """`multiple` if lengths can be one of it."""
    if multiple is not None and (type(multiple) is not int or multiple < 1):
        raise ValueError(f"pad_to_multiple_of must be a whole number above 0, got {multiple!r}")
    return multiple


def check_length(limit: int) -> int:
    """`limit` if a row can be so long."""
    if not hasattr(limit, "__index__") or not 0 <= limit <= LONGEST:
        raise ValueError(
            f"cannot truncate or pad to {'no length' if limit == NO_LIMIT else limit}: "
            "give max_length= here, or model_max_length= to the tokenizer"
        )
    return int(limit)


def rows_of(text: Any, text_pair: Any, is_split_into_words: bool = False) -> tuple[list[Any], bool]:
    """What the Rust tokenizer takes, a text or a pair a row; and whether it was a list of them."""
    one = list | tuple if is_split_into_words else str
    many = isinstance(text, list | tuple) and (
        not is_split_into_words or (bool(text) and isinstance(text[0], list | tuple))
    )
    if isinstance(text, one) and not many and (text_pair is None or isinstance(text_pair, one)):
        return [
            (text, text_pair) if text_pair else text
        ], False  # an empty second text is none, as in transformers
    if many and (text_pair is None or isinstance(text_pair, list | tuple)):
        if not text:
            raise ValueError("no text: the list is empty")
        if text_pair is None:
            return list(text), True
        if len(text) != len(text_pair):
            raise ValueError(f"{len(text)} texts but {len(text_pair)} of text_pair: give one for each text")
        return list(zip(text, text_pair, strict=True)), True
    kind = "a list of words or a list of such lists" if is_split_into_words else "a str or a list of str"
    raise TypeError(
        f"text must be {kind} (text_pair the same, or None), "
        f"got {type(text).__name__} and {type(text_pair).__name__}"
    )


def run(
    encode: Callable[..., list[Encoding]], rows: list[Any], limit: int | None, **options: bool
) -> list[Encoding]:
    """The encodings of `rows`.

    Raises:
        TypeError: a row is no text.
        ValueError: it cannot be truncated so.
    """
    try:
        return encode(rows, **options)
    except TypeError as error:
        raise TypeError(_first_bad(rows, options.get("is_pretokenized", False))) from error
    except Exception as error:  # tokenizers raises no narrower one
        raise ValueError(f"cannot truncate to max_length={limit}: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what Rust's own errors are raised as
            raise
        raise ValueError(f"cannot truncate to max_length={limit}: {error}") from error


def with_overflow(encodings: list[Encoding]) -> list[Encoding]:
    """Each encoding, and what was cut off it, as rows of their own."""
    return [part for encoding in encodings for part in (encoding, *encoding.overflowing)]


def copy_of(tokenizer: Tokenizer, setup: Setup, pad_id: int | None, pad_token: str | None) -> Tokenizer:
    """A Rust tokenizer with the same vocabulary that pads and truncates as `setup` says.

    The vocabulary is shared. Truncation and padding are state of the Rust object: set on the one given they would
    change other threads' calls and the saved file.
    """
    copied = Tokenizer(tokenizer.model)
    copied.normalizer = tokenizer.normalizer
    copied.pre_tokenizer = tokenizer.pre_tokenizer
    copied.post_processor = tokenizer.post_processor
    copied.add_tokens([token for _, token in sorted(tokenizer.get_added_tokens_decoder().items())])
    copied.encode_special_tokens = setup.splits_special
    if setup.limit is not None:
        copied.enable_truncation(
            setup.limit, stride=setup.stride, strategy=setup.truncation, direction=setup.truncation_side
        )
    if setup.padding != "do_not_pad":
        copied.enable_padding(
            pad_id=pad_id,
            pad_token=pad_token,
            length=setup.length,
            pad_to_multiple_of=setup.multiple,
            direction=setup.padding_side,
        )
    return copied


def _first_bad(rows: list[Any], is_split: bool) -> str:
    wanted = "a list of words or a pair of such lists" if is_split else "a str or a pair of str"
    for i, row in enumerate(rows):
        for part in _texts_in(row):
            if not isinstance(part, str):
                return f"text {i} must be {wanted}, got {row!r}"
            if any("\ud800" <= character <= "\udfff" for character in part):
                return f"text {i} is not valid Unicode (it has half a surrogate pair): {part!r}"
    return f"each text must be {wanted}, and all of one kind, got for example {rows[0]!r}"


def _texts_in(row: Any) -> list[Any]:
    return [text for part in row for text in _texts_in(part)] if isinstance(row, list | tuple) else [row]
