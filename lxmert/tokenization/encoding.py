"""BatchEncoding: what a call returns, and where its tokens, words and characters lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Encoding


class CharSpan(NamedTuple):
    """From the first character to the one after the last."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """From the first token to the one after the last."""

    start: int
    end: int


class BatchEncoding(dict[str, Any]):
    """What a tokenizer call returns: a dict whose keys are attributes too.

    A row is an entry of `input_ids`: a text, or with `return_overflowing_tokens` a part of one. The methods about
    tokens, words and characters take the row first and may leave it out for row 0; words are counted from 0
    within a text (by its spaces and punctuation, or as given with `is_split_into_words`), characters too.

    Args:
        data: lists, arrays or tensors by name.
        encoding: the `tokenizers` encodings of the rows, or a function of no arguments that makes them.
        tensor_type: "pt" or "np": `convert_to_tensors`.
        prepend_batch_axis: as there.
        n_sequences: texts a row, 1 or 2; None: as the encodings say.
    """

    # Of the class, so that a copy that is not filled yet has them.
    _encodings: list[Encoding] | None = None
    _encode: Callable[[], list[Encoding]] | None = None
    _n_sequences: int | None = None

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encoding: Encoding | Sequence[Encoding] | Callable[[], list[Encoding]] | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
        n_sequences: int | None = None,
    ) -> None:
        super().__init__(data or {})
        if isinstance(encoding, Encoding):
            self._encodings = [encoding]
        elif callable(encoding):
            self._encode = encoding
        elif encoding is not None:
            self._encodings = list(encoding)
        self._n_sequences = n_sequences
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getitem__(self, key: Any) -> Any:
        """The value of a name; the encoding(s) of a row or slice; of a slice, without encodings, every value's."""
        if isinstance(key, str):
            return super().__getitem__(key)
        if self.is_fast:
            return self._all(f"[{key}]")[key]
        if isinstance(key, slice):
            return {name: value[key] for name, value in self.items()}
        raise KeyError(f"{key!r}: without encodings the keys are {', '.join(self)}, or a slice")

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getitem__(name)
        except KeyError:
            raise AttributeError(f"this encoding has no {name!r}, only {', '.join(self)}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {"_encodings": self.encodings, "_n_sequences": self._n_sequences}

    def __copy__(self) -> BatchEncoding:
        copied = BatchEncoding(self)
        copied.__dict__.update(self.__dict__)
        return copied

    copy = __copy__

    def __or__(self, other: Mapping[str, Any]) -> BatchEncoding:  # type: ignore[override]
        copied = self.copy()
        copied.update(other)
        return copied

    @property
    def data(self) -> dict[str, Any]:
        """The encoding itself, which is a dict."""
        return self

    @property
    def is_fast(self) -> bool:
        """Whether it knows its rows' encodings: it comes from a call and not from `pad`."""
        return self._encodings is not None or self._encode is not None

    @property
    def encodings(self) -> list[Encoding] | None:
        """The `tokenizers` encoding of each row; None where there are none."""
        # A call makes ids alone, a quarter faster; the rest is made when somebody asks.
        if self._encodings is None and self._encode is not None:
            self._encodings = self._encode()
        return self._encodings

    @property
    def n_sequences(self) -> int | None:
        """Texts a row: 1, or 2 of a pair; None where it is not known."""
        if self._n_sequences is None and self.encodings:
            self._n_sequences = self.encodings[0].n_sequences
        return self._n_sequences

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row."""
        return self._all("tokens()")[batch_index].tokens

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """The word of each token of a row; None of special tokens and padding."""
        return self._all("word_ids()")[batch_index].word_ids

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """The text of each token of a row, 0 or 1; None of special tokens and padding."""
        return self._all("sequence_ids()")[batch_index].sequence_ids

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The text of a token, 0 or 1; None of special tokens and padding."""
        encoding, token = self._at("token_to_sequence()", batch_or_token_index, token_index)
        return encoding.token_to_sequence(_from_start(token, encoding))

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The word of a token."""
        encoding, token = self._at("token_to_word()", batch_or_token_index, token_index)
        return encoding.token_to_word(_from_start(token, encoding))

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """The characters of a token in its text."""
        encoding, token = self._at("token_to_chars()", batch_or_token_index, token_index)
        span = encoding.token_to_chars(_from_start(token, encoding))
        return None if span is None else CharSpan(*span)

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """The tokens of a word of text `sequence_index`."""
        encoding, word = self._at("word_to_tokens()", batch_or_word_index, word_index)
        span = encoding.word_to_tokens(word, sequence_index)
        return None if span is None else TokenSpan(*span)

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """The characters of a word in text `sequence_index`."""
        encoding, word = self._at("word_to_chars()", batch_or_word_index, word_index)
        span = encoding.word_to_chars(word, sequence_index)
        return None if span is None else CharSpan(*span)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The token of a character of text `sequence_index`; None of a space."""
        encoding, character = self._at("char_to_token()", batch_or_char_index, char_index)
        return encoding.char_to_token(character, sequence_index)

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The word of a character of text `sequence_index`; None of a space."""
        encoding, character = self._at("char_to_word()", batch_or_char_index, char_index)
        return encoding.char_to_word(character, sequence_index)

    def _all(self, asked: str) -> list[Encoding]:
        encodings = self.encodings
        if not encodings:
            raise ValueError(f"{asked}: this encoding does not know its texts, it is not from a tokenizer's call")
        return encodings

    def _at(self, asked: str, first: int, second: int | None) -> tuple[Encoding, int]:
        row, place = (0, first) if second is None else (first, second)
        return self._all(asked)[row], place

    def convert_to_tensors(
        self, tensor_type: str | None = None, prepend_batch_axis: bool = False
    ) -> BatchEncoding:
        """Make every value a tensor ("pt") or an array ("np"), in place; None changes nothing.

        Args:
            tensor_type: "pt" or "np".
            prepend_batch_axis: of shape (1, ...).

        Raises:
            ValueError: another type, or rows of unequal lengths.
        """
        if check_tensor_type(tensor_type) is None:
            return self
        for name, value in self.items():
            try:
                self[name] = _tensor([value] if prepend_batch_axis else value, tensor_type == "pt")
            except (ValueError, TypeError, RuntimeError) as error:
                raise ValueError(
                    f"no tensor of {name}: its rows are of unequal lengths, or it holds what is no number; give "
                    f"padding=True, or leave it out ({error})"
                ) from error
        return self

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> BatchEncoding:
        """Move every tensor to `device`, in place.

        Raises:
            TypeError: `device` is none: ids are whole numbers and stay so.
        """
        if not isinstance(device, torch.device | str | int):
            raise TypeError(f"to() takes a device, got {device!r}: token ids have one type, int64")
        for name, value in self.items():
            if torch.is_tensor(value):
                self[name] = value.to(device, non_blocking=non_blocking)
        return self


def check_tensor_type(tensor_type: str | None) -> str | None:
    """`tensor_type` if it is one."""
    if tensor_type not in (None, "pt", "np"):
        raise ValueError(f"return_tensors must be 'pt', 'np' or None, got {tensor_type!r}")
    return tensor_type


def _tensor(value: Any, is_torch: bool) -> Any:
    if isinstance(value, torch.Tensor if is_torch else np.ndarray):
        return value
    array = np.array(value)  # first: torch.tensor is four times slower at nested lists
    if not array.size:
        array = array.astype(np.int64)
    if not is_torch:
        return array
    of_arrays = isinstance(value, list) and bool(value) and isinstance(value[0], np.ndarray)
    return torch.from_numpy(array) if of_arrays or array.dtype.kind in "iub" else torch.tensor(value)


def _from_start(token: int, encoding: Encoding) -> int:
    return token + len(encoding) if token < 0 else token
