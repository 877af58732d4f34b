"""LxmertTokenizer: sentences to WordPiece ids and back."""

from __future__ import annotations

import copy
import functools
import json
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, normalizers, trainers
from tokenizers.models import WordPiece

from lxmert.files import Hub, InputError, push, shown, write_text
from lxmert.tokenization.encoding import BatchEncoding, check_tensor_type
from lxmert.tokenization.files import (
    SETTINGS,
    check_settings,
    find,
    known_settings,
)
from lxmert.tokenization.padding import as_columns, as_rows, kind_of, pad_rows, plain
from lxmert.tokenization.texts import (
    NO_LIMIT,
    PADDINGS,
    TRUNCATIONS,
    Setup,
    Texts,
    check_length,
    check_multiple,
    choose,
    choose_side,
    copy_of,
    rows_of,
    run,
    with_overflow,
)
from lxmert.tokenization.vocabulary import Vocabulary

log = logging.getLogger(__name__)

_FIXED = ("do_lower_case", "tokenize_chinese_chars", "strip_accents")
_MOST_COPIES = 32
_ENGLISH_SPACING = [(f" {mark}", mark) for mark in ".?!,"] + [(" ' ", "'")]
_ENGLISH_SPACING += [(f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")]


class LxmertTokenizer(Vocabulary):
    """Sentences to WordPiece ids and back.

    `LxmertTokenizerFast` is this class. No call changes a later one, threads may share a tokenizer, and it can be
    copied and pickled. `padding_side`, `truncation_side`, `model_max_length`, `clean_up_tokenization_spaces`,
    `split_special_tokens` and `model_input_names` may be assigned later, and so may `pad_token` and `mask_token`
    (or their ids) to another token of the vocabulary; what else decides the ids may not.

    Args:
        vocab: a vocab.txt (one piece a line, its id the line number from 0), or a dict of piece to id; None
            holds the special tokens alone.
        do_lower_case: lower-case the text (and strip its accents, unless `strip_accents` says otherwise).
        unk_token, sep_token, pad_token, cls_token, mask_token: special tokens; each must be in `vocab` or
            `added_tokens`.
        tokenize_chinese_chars: each Chinese character is a word.
        strip_accents: None does as `do_lower_case`.
        model_max_length: where to truncate when a call asks for truncation without `max_length`.
        clean_up_tokenization_spaces: whether `decode` joins English contractions ("isn ' t").
        padding_side: "right" (None) or "left", where padding goes.
        truncation_side: "right" (None) or "left", where tokens are cut off.
        split_special_tokens: a special token within a text is text.
        model_input_names: which of token_type_ids and attention_mask a call returns unless told; None: both.
        bos_token, eos_token: other special tokens; nothing here uses them.
        extra_special_tokens: further special tokens, added where `vocab` does not have them.
        added_tokens: tokens found in the raw text before it is split; ids follow those of `vocab`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the vocabulary is empty, repeats a piece, skips an id or lacks a special token, or a setting is
            of another type.
    """

    vocab_files_names: ClassVar = {"vocab_file": "vocab.txt", "tokenizer_file": "tokenizer.json"}
    padding_side = truncation_side = "right"
    model_input_names: Sequence[str] = ("input_ids", "token_type_ids", "attention_mask")
    is_fast = True
    pad_token_type_id = 0

    def __init__(
        self,
        vocab: str | Path | dict[str, int] | None = None,
        do_lower_case: bool = True,
        unk_token: str | AddedToken = "[UNK]",
        sep_token: str | AddedToken = "[SEP]",
        pad_token: str | AddedToken = "[PAD]",
        cls_token: str | AddedToken = "[CLS]",
        mask_token: str | AddedToken = "[MASK]",
        tokenize_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        *,
        model_max_length: int | None = None,
        clean_up_tokenization_spaces: bool = False,
        padding_side: str | None = None,
        truncation_side: str | None = None,
        split_special_tokens: bool = False,
        model_input_names: Sequence[str] | None = None,
        bos_token: str | AddedToken | None = None,
        eos_token: str | AddedToken | None = None,
        extra_special_tokens: Sequence[str | AddedToken] = (),
        added_tokens: Sequence[AddedToken] = (),
    ) -> None:
        named = {
            "bos_token": bos_token, "eos_token": eos_token, "unk_token": unk_token, "sep_token": sep_token,
            "pad_token": pad_token, "cls_token": cls_token, "mask_token": mask_token,
        }  # fmt: skip
        self.model_max_length = NO_LIMIT if model_max_length is None else model_max_length
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        # None: as the class says, which a subclass may.
        self.padding_side = self.padding_side if padding_side is None else padding_side
        self.truncation_side = self.truncation_side if truncation_side is None else truncation_side
        self.split_special_tokens = split_special_tokens
        self.model_input_names = self.model_input_names if model_input_names is None else model_input_names
        self.name_or_path = ""
        self.deprecation_warnings: dict[str, bool] = {}  # what was warned of already, as collators expect it
        super().__init__(
            vocab, named, extra_special_tokens, added_tokens, do_lower_case, tokenize_chinese_chars, strip_accents
        )
        self.init_kwargs: dict[str, Any] = {
            name: getattr(self, name) for name in SETTINGS
        } | self.special_tokens_map

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        use_fast: bool = True,
        **settings: Any,
    ) -> LxmertTokenizer:
        """Open a vocab.txt, a tokenizer.json, a folder holding either, or a model on the Hugging Face hub.

        In a folder tokenizer.json goes before vocab.txt, and tokenizer_config.json before both.

        Args:
            pretrained_model_name_or_path: file, folder or hub name such as "unc-nlp/lxmert-base-uncased".
            use_fast: without a meaning: there is one class.
            settings: those of `lxmert.files.Hub` (`revision`, `cache_dir`, `token`, `subfolder`, ...), and
                constructor arguments that go before those in the files. Others are kept in `init_kwargs`, with a
                warning.

        Raises:
            FileNotFoundError: neither a path nor a hub model that can be reached or is in the cache.
            InputError: a file cannot be read, or asks for what this tokenizer does not do.
            TypeError: an argument of another class of tokenizer, which would be missed.
        """
        hub = Hub.take(settings)
        settings, unknown = known_settings(settings)
        if unknown:
            log.warning(
                "%s.from_pretrained: %s: no such setting, kept in init_kwargs", cls.__name__, ", ".join(unknown)
            )
        source, arguments, added, other = find(pretrained_model_name_or_path, hub)
        try:
            tokenizer = cls(**{**arguments, "added_tokens": [added[i] for i in sorted(added)], **settings})
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
        for i, added_token in added.items():
            if tokenizer._tokenizer.token_to_id(added_token.content) != i:
                raise InputError(
                    f"{source}: added token {shown(added_token.content)} has id {i}: ids of added tokens must "
                    "follow those of the vocabulary without gaps; get the file again"
                )
        tokenizer.name_or_path = str(pretrained_model_name_or_path)
        tokenizer.init_kwargs |= other | unknown | {"name_or_path": tokenizer.name_or_path}
        return tokenizer

    def _changed(self) -> None:
        self._copies: dict[Setup, Tokenizer] = {}
        self._in_text = _within_text(list(self.special_tokens_map.values()))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and name in self.__dict__:
            raise AttributeError(
                f"{name} cannot be changed: it decides the ids of a text. Open the tokenizer with {name}={value!r}"
            )
        if name in SETTINGS:
            check_settings({name: value})
            if name == "model_input_names":
                value = list(value)  # not the class's
            if name == "model_max_length":
                value = NO_LIMIT if value is None else int(value)
        super().__setattr__(name, value)

    def __copy__(self) -> LxmertTokenizer:
        return copy.deepcopy(self)  # else tokens added to one would be the other's too, unnoticed

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_copies": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __call__(
        self,
        text: Texts,
        text_pair: Any = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        split_special_tokens: bool | None = None,
    ) -> BatchEncoding:
        """Token ids of a sentence, a pair of sentences, or a list of either.

        Args:
            text: a str, or a list of str or of pairs of str.
            text_pair: the second sentence(s), as many as in `text`.
            add_special_tokens: [CLS] text [SEP], or [CLS] text [SEP] text_pair [SEP].
            padding: True or "longest" (to the batch's longest), "max_length", False or "do_not_pad".
            truncation: True or "longest_first" (a pair loses tokens where it is longer), "only_first",
                "only_second", False or "do_not_truncate". None truncates when only `max_length` is given.
                With 20 it is the original's: [CLS], the first 18 pieces, [SEP].
            max_length: tokens, special ones included; left out, `model_max_length`.
            stride: tokens that a part shares with the one before it, where truncation makes parts.
            is_split_into_words: a sentence is a list of words, each split into pieces by itself.
            pad_to_multiple_of: padded lengths are multiples of it.
            padding_side: "right" or "left"; None: as the tokenizer's.
            return_tensors: "pt", "np", or None for lists.
            return_token_type_ids: also token_type_ids (S, L), 1 in the second sentence of a pair. None: as
                `model_input_names`.
            return_attention_mask: also attention_mask (S, L), 0 on padding. None: as `model_input_names`.
            return_overflowing_tokens: what truncation cuts off follows as rows of its own;
                overflow_to_sample_mapping (S,) says of which sentence a row is.
            return_special_tokens_mask: also special_tokens_mask (S, L), 1 on special tokens and padding.
            return_offsets_mapping: also offset_mapping (S, L, 2), first and last + 1 character of each token.
            return_length: also length (S,), padding included.
            verbose: warn once of rows longer than `model_max_length`.
            split_special_tokens: a special token within a text is text; None: as the tokenizer's.

        Returns:
            input_ids (S, L) int64 and the above. As lists, without S for a single `text` (except length, and
            except where its parts are returned).

        Raises:
            TypeError: text is not text.
            ValueError: an unknown choice, one without effect, a missing or too short length, or tensors of unequal
                lengths.
        """
        check_tensor_type(return_tensors)
        rows, is_batch = rows_of(text, text_pair, is_split_into_words)
        setup = self._setup(
            padding, truncation, max_length, stride, pad_to_multiple_of, padding_side, split_special_tokens
        )
        limit = setup.limit
        tokenizer = self._copy(setup)
        options = {"add_special_tokens": add_special_tokens, "is_pretokenized": is_split_into_words}
        whole: Any = functools.partial(run, tokenizer.encode_batch, rows, limit, **options)
        needs_whole = return_overflowing_tokens or return_offsets_mapping or is_split_into_words
        # Fast: ids and masks alone.
        encodings = whole() if needs_whole else run(tokenizer.encode_batch_fast, rows, limit, **options)
        samples = []
        if return_overflowing_tokens:
            samples = [i for i, encoding in enumerate(encodings) for _ in range(1 + len(encoding.overflowing))]
            encodings = with_overflow(encodings)
        lengths = [len(encoding) for encoding in encodings]
        longest = max(lengths)
        if limit is not None and longest > limit:
            raise ValueError(f"max_length={limit} leaves no room for the special tokens: 2, or 3 in a pair")
        if verbose and limit is None and setup.length is None and max_length is None:
            self._warn_of(longest)

        if return_token_type_ids is None:
            return_token_type_ids = "token_type_ids" in self.model_input_names
        if return_attention_mask is None:
            return_attention_mask = "attention_mask" in self.model_input_names
        fields = [("input_ids", "ids", True)]
        fields += [("token_type_ids", "type_ids", return_token_type_ids)]
        fields += [("attention_mask", "attention_mask", return_attention_mask)]
        fields += [("special_tokens_mask", "special_tokens_mask", return_special_tokens_mask)]
        fields += [("offset_mapping", "offsets", return_offsets_mapping)]
        result: dict[str, Any] = {
            key: [getattr(e, name) for e in encodings] for key, name, wanted in fields if wanted
        }
        if return_tensors is None and not is_batch and not return_overflowing_tokens:
            result = {key: value[0] for key, value in result.items()}
        result |= {"length": lengths} if return_length else {}
        result |= {"overflow_to_sample_mapping": samples} if return_overflowing_tokens else {}
        if return_tensors is not None:
            if min(lengths) != longest:
                raise ValueError(f"no tensor of {min(lengths)} to {longest} tokens: give padding=True")
            # numpy first: torch.tensor is four times slower at nested lists.
            result = {key: np.array(value, dtype=np.int64) for key, value in result.items()}
            if return_tensors == "pt":
                result = {key: torch.from_numpy(value) for key, value in result.items()}
        return BatchEncoding(result, encodings if needs_whole else whole)

    def _setup(
        self,
        padding: bool | str,
        truncation: bool | str | None,
        max_length: int | None,
        stride: int,
        multiple: int | None,
        padding_side: str | None,
        splits_special: bool | None,
    ) -> Setup:
        """What these options of a call come to."""
        padding = choose("padding", padding, PADDINGS)
        if truncation is None:
            if max_length is not None and padding == "longest":
                raise ValueError(f"max_length={max_length} has no effect: give truncation=True as well")
            truncation = max_length is not None and padding == "do_not_pad"
        truncation = choose("truncation", truncation, TRUNCATIONS)
        if truncation != "do_not_truncate" and max_length is None and self.model_max_length == NO_LIMIT:
            warn_no_length()
            truncation = "do_not_truncate"
        truncates, pads = truncation != "do_not_truncate", padding != "do_not_pad"
        if not hasattr(stride, "__index__") or stride < 0:
            raise ValueError(f"stride must be a number of tokens, got {stride!r}")
        if stride and not truncates:
            raise ValueError(f"stride={stride} has no effect: give truncation= and max_length= as well")
        if (multiple is not None or padding_side is not None) and not pads:
            raise ValueError("pad_to_multiple_of and padding_side have no effect: give padding=True as well")
        side = self.padding_side if padding_side is None else choose_side("padding_side", padding_side)
        limit = None
        if truncates or padding == "max_length":
            limit = check_length(self.model_max_length if max_length is None else max_length)
        if stride and limit is not None and stride >= limit - 2:
            raise ValueError(f"stride={stride} must be less than max_length={limit} without the special tokens")
        if pads and truncates and limit is not None and limit % (check_multiple(multiple) or 1):
            raise ValueError(
                f"max_length={limit} is no multiple of pad_to_multiple_of={multiple}: give one that is"
            )
        if pads:
            self._check_pad_token()
        return Setup(
            padding=padding,
            length=limit if padding == "max_length" else None,
            multiple=check_multiple(multiple),
            padding_side=side,
            truncation=truncation,
            limit=limit if truncates else None,
            stride=stride,
            truncation_side=self.truncation_side,
            splits_special=self.split_special_tokens if splits_special is None else splits_special,
        )

    def _copy(self, setup: Setup) -> Tokenizer:
        # Made once for the same options: it is 30 microseconds, more with many added tokens, and what an encoding
        # is asked for later is made by a copy that no change of this tokenizer reaches.
        copies = self._copies
        copied = copies.get(setup)
        if copied is None:
            if len(copies) >= _MOST_COPIES:
                copies = self._copies = {}
            copied = copies[setup] = copy_of(self._tokenizer, setup, self.pad_token_id, self.pad_token)
        return copied

    def _check_pad_token(self) -> None:
        if self.pad_token is None:
            raise ValueError("no pad_token to pad with: assign one, tokenizer.pad_token = '[PAD]'")

    def _warn_of(self, length: int) -> None:
        key = "sequence-length-is-longer-than-the-specified-maximum"  # as the reference calls it
        if 0 < self.model_max_length < length and not self.deprecation_warnings.get(key):
            log.warning(
                "a row of %d tokens, more than the %d of this tokenizer's model_max_length: give truncation=True",
                length,
                self.model_max_length,
            )
            self.deprecation_warnings[key] = True

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Bring encodings to one length: what data collators call.

        Args:
            encoded_inputs: an encoding (or a dict like one) of a row or of several, or a list of encodings of a
                row. input_ids, token_type_ids, attention_mask and special_tokens_mask are padded, others kept.
            padding: True or "longest", "max_length", False or "do_not_pad".
            max_length: of "max_length", `model_max_length` when left out. Longer rows stay as they are.
            pad_to_multiple_of: lengths are multiples of it.
            padding_side: "right" or "left"; None: as the tokenizer's.
            return_attention_mask: make one where there is none. None: as `model_input_names`.
            return_tensors: "pt" or "np"; None: of what `encoded_inputs` is made.
            verbose: without a meaning, nothing is warned of.

        Raises:
            TypeError: no encodings.
            ValueError: encodings without input_ids, of different names or lengths, or options without effect.
        """
        check_tensor_type(return_tensors)
        main = self.model_input_names[0]
        columns = as_columns(encoded_inputs, main)
        wants_mask = "attention_mask" in self.model_input_names
        wants_mask = wants_mask if return_attention_mask is None else return_attention_mask
        if columns[main] is None or len(columns[main]) == 0:
            return BatchEncoding(columns | ({"attention_mask": []} if return_attention_mask else {}))
        if kind := kind_of(columns[main]):
            columns = {name: plain(value) for name, value in columns.items()}
            return_tensors = return_tensors or kind
        if "attention_mask" in columns and not wants_mask:
            raise ValueError(
                "these encodings have an attention_mask: leave it out, or give return_attention_mask=True"
            )
        padding = choose("padding", padding, PADDINGS)
        if padding == "longest" and max_length is not None:
            raise ValueError(f"max_length={max_length} has no effect: give padding='max_length' as well")
        multiple = check_multiple(pad_to_multiple_of)
        if padding == "do_not_pad" and (multiple or padding_side):
            raise ValueError("pad_to_multiple_of and padding_side have no effect: give padding=True as well")
        side = self.padding_side if padding_side is None else choose_side("padding_side", padding_side)

        is_row = not isinstance(columns[main][0], list | tuple)
        rows = [columns] if is_row else as_rows(columns, len(columns[main]))
        length = None
        if padding != "do_not_pad":
            self._check_pad_token()
            longest = max(len(row[main]) for row in rows)
            wanted = self.model_max_length if max_length is None else max_length
            length = longest if padding == "longest" else check_length(wanted)
            length = -(-length // (multiple or 1)) * (multiple or 1)
        if wants_mask:
            rows = [{**row, "attention_mask": row.get("attention_mask", [1] * len(row[main]))} for row in rows]
        fills = {"attention_mask": 0, "token_type_ids": self.pad_token_type_id, "special_tokens_mask": 1}
        padded = pad_rows(rows, main, {main: self.pad_token_id, **fills}, length, side)
        result = padded[0] if is_row else {name: [row[name] for row in padded] for name in padded[0]}
        return BatchEncoding(result, tensor_type=return_tensors)

    def as_typed(self, texts: list[str]) -> list[str]:
        """Sentences as people wrote them, for a call: a special token within them is one only as in the original.

        There "[MASK]" between spaces is the token, and "[MASK]?" or "a[SEP]" is text, spelt in pieces. A call
        without this finds special tokens anywhere, as the reference library does.

        Returns:
            The sentences, with a space after the "[" of what is text: its pieces are the same.
        """
        if self._in_text is None or not self._has_special("\n".join(texts)):  # seldom any: all at once
            return texts
        clean = normalizers.BertNormalizer(
            handle_chinese_chars=self.tokenize_chinese_chars, strip_accents=False, lowercase=False
        )
        return [
            self._in_text.sub(_spelt, clean.normalize_str(text)) if self._has_special(text) else text
            for text in texts
        ]

    def _has_special(self, text: str) -> bool:
        return any(token in text for token in self._named.values() if token is not None)

    def encode(self, text: Texts, text_pair: Any = None, **options: Any) -> Any:
        """The `input_ids` of a call."""
        return self(text, text_pair, **options)["input_ids"]

    def tokenize(
        self,
        text: str | Sequence[str],
        pair: str | Sequence[str] | None = None,
        add_special_tokens: bool = False,
        **options: Any,
    ) -> list[str]:
        """The pieces of a sentence, or of a pair one after the other; options as of a call.

        Raises:
            TypeError: several sentences, or an option that a call does not have.
        """
        encoding = self(
            text,
            pair,
            add_special_tokens=add_special_tokens,
            **{"return_offsets_mapping": True, "verbose": False} | options,
        )
        if len(encoding.encodings or ()) != 1:
            raise TypeError("tokenize takes one sentence, or with is_split_into_words=True the list of its words")
        return encoding.tokens()

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """The text of one id, of a sequence of ids, or (as a list) of several sequences.

        Args:
            token_ids: int, list, list of lists, array or tensor, or an encoding; ids outside the vocabulary give
                no text.
            skip_special_tokens: leave out [CLS], [SEP], padding and the other special tokens.
            clean_up_tokenization_spaces: also join English contractions; None: as the tokenizer was told.
        """
        ids = plain(token_ids["input_ids"] if isinstance(token_ids, dict) else token_ids)
        if isinstance(ids, int):
            ids = [ids]
        nested = bool(ids) and not isinstance(ids[0], int)
        try:
            texts = self._tokenizer.decode_batch(ids if nested else [ids], skip_special_tokens=skip_special_tokens)
        except OverflowError as error:
            raise ValueError(
                f"token ids must not be negative: put pad_token_id ({self.pad_token_id}) for ignored labels"
            ) from error
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        if clean_up_tokenization_spaces:
            texts = list(map(self.clean_up_tokenization, texts))
        return texts if nested else texts[0]

    def batch_decode(self, sequences: Any, **options: Any) -> list[str]:
        """`decode` of several sequences; always a list."""
        if not isinstance(sequences, dict) and len(sequences) == 0:
            return []
        texts = self.decode(sequences, **options)
        return [texts] if isinstance(texts, str) else texts

    @staticmethod
    def clean_up_tokenization(text: str) -> str:
        """`text` with English contractions and punctuation joined: "isn ' t" becomes "isn't"."""
        for spaced, joined in _ENGLISH_SPACING:
            text = text.replace(spaced, joined)
        return text

    @property
    def max_len_single_sentence(self) -> int:
        """Tokens of a sentence within `model_max_length`."""
        return self.model_max_length - self.num_special_tokens_to_add()

    @property
    def max_len_sentences_pair(self) -> int:
        """Tokens of two sentences within `model_max_length`."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} tokens, do_lower_case={self.do_lower_case})"

    def save_vocabulary(self, save_directory: str | Path, filename_prefix: str | None = None) -> tuple[str]:
        """Write `[filename_prefix-]vocab.txt` (without added tokens) and return its path."""
        vocab = self._tokenizer.get_vocab(with_added_tokens=False)
        pieces = sorted(vocab, key=vocab.__getitem__)
        if broken := [piece for piece in pieces if "\n" in piece or "\r" in piece]:
            raise InputError(f"a vocab.txt cannot hold the piece {broken[0]!r}: it has a line break")
        path = Path(save_directory) / (f"{filename_prefix}-vocab.txt" if filename_prefix else "vocab.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(f"{piece}\n" for piece in pieces))
        return (str(path),)

    def save_pretrained(
        self,
        save_directory: str | Path,
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
        **hub: Any,
    ) -> tuple[str, ...]:
        """Write tokenizer_config.json, vocab.txt and tokenizer.json, which transformers opens too.

        Args:
            save_directory: the folder, made where there is none.
            legacy_format: False leaves out vocab.txt, the older format.
            filename_prefix: of each file's name, with a hyphen.
            push_to_hub: upload it as well, with `hub` as of the method `push_to_hub`; `repo_id` is the folder's
                name unless given.
            hub: for that.

        Returns:
            The paths of the files.
        """
        if hub and not push_to_hub:
            raise TypeError(f"save_pretrained: {', '.join(hub)} without push_to_hub=True")
        config: dict[str, Any] = {"tokenizer_class": "LxmertTokenizer"} | self.special_tokens_map
        config |= {key: getattr(self, key) for key in SETTINGS}
        if self._extra:
            config["extra_special_tokens"] = self._extra
        config["added_tokens_decoder"] = {
            str(i): token.__getstate__() for i, token in sorted(self.added_tokens_decoder.items())
        }
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        saved = () if legacy_format is False else self.save_vocabulary(folder, filename_prefix)
        start = f"{filename_prefix}-" if filename_prefix else ""
        files = folder / f"{start}tokenizer_config.json", folder / f"{start}tokenizer.json"
        write_text(files[0], json.dumps(config, indent=2) + "\n")
        write_text(files[1], self._tokenizer.to_str(pretty=True))
        if push_to_hub:
            self.push_to_hub(**{"repo_id": folder.name, **hub})
        return (*saved, *map(str, files))

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Send the tokenizer's files to a repository of the Hugging Face hub, made where there is none.

        Args:
            repo_id: "owner/name", or "name" of one's own.
            options: as of `lxmert.files.push`: `commit_message`, `private`, `token`, `revision`, `create_pr`.

        Returns:
            The change's address.
        """
        return push(self.save_pretrained, repo_id, **options)

    def train_new_from_iterator(
        self,
        text_iterator: Iterable[str] | Iterable[list[str]],
        vocab_size: int,
        length: int | None = None,
        new_special_tokens: Sequence[str | AddedToken] | None = None,
        special_tokens_map: dict[str, str] | None = None,
        **options: Any,
    ) -> LxmertTokenizer:
        """A tokenizer of the same settings whose vocabulary is learnt from texts.

        Args:
            text_iterator: texts, or lists of them.
            vocab_size: how many pieces.
            length: how many texts, for the progress bar.
            new_special_tokens: further special tokens.
            special_tokens_map: other texts of special tokens, by those of today.
            options: of `tokenizers.trainers.WordPieceTrainer`.
        """
        names = special_tokens_map or {}
        named = {name: names.get(token, token) for name, token in self.special_tokens_map.items()}
        special = [token for _, token in sorted(self.added_tokens_decoder.items()) if token.special]
        kept = [AddedToken(**{**token.__getstate__(), "content": names.get(token.content, token.content)})
                for token in special]  # fmt: skip
        extra = [*self._extra, *map(str, new_special_tokens or ())]
        learner = Tokenizer(WordPiece(unk_token=named["unk_token"]))
        learner.normalizer, learner.pre_tokenizer = self._tokenizer.normalizer, self._tokenizer.pre_tokenizer
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size, special_tokens=[*kept, *(new_special_tokens or ())], **options
        )
        learner.train_from_iterator(text_iterator, trainer=trainer, length=length)
        arguments: dict[str, Any] = {name: getattr(self, name) for name in SETTINGS} | named
        return type(self)(
            learner.get_vocab(with_added_tokens=False), **arguments, extra_special_tokens=extra,
            added_tokens=kept,
        )  # fmt: skip


LxmertTokenizerFast = LxmertTokenizer


@functools.cache
def warn_no_length() -> None:
    """Say once that nothing is truncated, as in the reference."""
    log.warning(
        "truncation has no effect without a length: give max_length= to the call, or model_max_length= to the "
        "tokenizer. The model has 512 positions"
    )


def _within_text(tokens: Sequence[str]) -> re.Pattern[str] | None:
    """Finds the special tokens in a text; group 1 is one that stands alone.

    Of those that begin with punctuation, as all of BERT's do: others cannot be spelt in pieces by a space.
    """
    names = "|".join(re.escape(token) for token in tokens if re.match(r"[!-/:-@\[-`{-~].", token))
    return re.compile(rf"((?<!\S)(?:{names})(?!\S))|{names}") if names else None


def _spelt(token: re.Match[str]) -> str:
    return token[0] if token[1] else f"{token[0][0]} {token[0][1:]}"
