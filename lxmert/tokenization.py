"""LxmertTokenizer: BERT's WordPiece tokenizer on the `tokenizers` library, called as in transformers.

LXMERT splits sentences as BERT does (paper, section 2.1). `LxmertTokenizerFast` is the same class. Results equal
those of transformers 5's `LxmertTokenizer`; what that accepts and ignores or mends in silence (a vocabulary
without special tokens, truncation without a length, ...) is an error here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from lxmert.files import InputError, is_unicode, read_json, shown, write_text

Texts = str | Sequence[str] | Sequence[tuple[str, str]]

_NO_LIMIT = int(1e30)  # what transformers writes for "no longest length"
_LONGEST = 2**24  # tokens of a sentence; the library dies of lengths that no memory holds
_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
_SPECIAL = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_SETTINGS = (*_SPECIAL, "do_lower_case", "tokenize_chinese_chars", "strip_accents", "model_max_length")
_SWITCHES = ("do_lower_case", "tokenize_chinese_chars", "clean_up_tokenization_spaces")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_TRUNCATIONS = ("longest_first", "only_first", "only_second", "do_not_truncate")
_PADDINGS = ("longest", "max_length", "do_not_pad")
_ENGLISH_SPACING = [(f" {mark}", mark) for mark in ".?!,"] + [(" ' ", "'")]
_ENGLISH_SPACING += [(f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")]


class BatchEncoding(dict[str, Any]):
    """What a tokenizer call returns: a dict whose keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"this encoding has no {name!r}, only {', '.join(self)}") from None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> BatchEncoding:
        """The encoding with every tensor on `device`."""
        moved = {k: v.to(device, non_blocking=non_blocking) for k, v in self.items() if torch.is_tensor(v)}
        return BatchEncoding(self | moved)


class LxmertTokenizer:
    """Sentences to WordPiece ids and back.

    No call changes a later one, threads may share a tokenizer, and it can be pickled.

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
        added_tokens: tokens found in the raw text before it is split; ids follow those of `vocab`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the vocabulary is empty, repeats a piece, skips an id or lacks a special token, or a setting is
            of another type.
    """

    model_input_names = ("input_ids", "token_type_ids", "attention_mask")
    padding_side = truncation_side = "right"
    is_fast = True

    def __init__(
        self,
        vocab: str | Path | dict[str, int] | None = None,
        do_lower_case: bool = True,
        unk_token: str = "[UNK]",
        sep_token: str = "[SEP]",
        pad_token: str = "[PAD]",
        cls_token: str = "[CLS]",
        mask_token: str = "[MASK]",
        tokenize_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        *,
        model_max_length: int | None = None,
        clean_up_tokenization_spaces: bool = False,
        added_tokens: Sequence[AddedToken] = (),
    ) -> None:
        _check_settings(
            {
                "do_lower_case": do_lower_case, "tokenize_chinese_chars": tokenize_chinese_chars,
                "clean_up_tokenization_spaces": clean_up_tokenization_spaces, "strip_accents": strip_accents,
                "model_max_length": model_max_length, "unk_token": unk_token, "sep_token": sep_token,
                "pad_token": pad_token, "cls_token": cls_token, "mask_token": mask_token,
            }
        )  # fmt: skip
        self.unk_token, self.sep_token, self.pad_token = unk_token, sep_token, pad_token
        self.cls_token, self.mask_token = cls_token, mask_token
        self.do_lower_case = do_lower_case
        self.tokenize_chinese_chars = tokenize_chinese_chars
        self.strip_accents = strip_accents
        self.model_max_length = _NO_LIMIT if model_max_length is None else int(model_max_length)
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        self.all_special_tokens = [unk_token, sep_token, pad_token, cls_token, mask_token]

        if vocab is None:
            vocab = {t: i for i, t in enumerate((pad_token, unk_token, cls_token, sep_token, mask_token))}
        pieces = vocab if isinstance(vocab, dict) else _read_vocab(Path(vocab))
        added = {token.content for token in added_tokens}
        _check_vocab(pieces, added, self.all_special_tokens, "vocab" if pieces is vocab else str(vocab))
        self._tokenizer = Tokenizer(WordPiece(pieces, unk_token=unk_token))
        self._tokenizer.normalizer = normalizers.BertNormalizer(
            handle_chinese_chars=tokenize_chinese_chars, strip_accents=strip_accents, lowercase=do_lower_case
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._tokenizer.decoder = decoders.WordPiece()
        new = [AddedToken(t, normalized=False, special=True) for t in self.all_special_tokens if t not in added]
        self._tokenizer.add_tokens([*new, *added_tokens])
        ids = self._tokenizer.get_vocab()
        self._in_text = _within_text(self.all_special_tokens)
        self.all_special_ids = [ids[token] for token in self.all_special_tokens]
        self.unk_token_id, self.sep_token_id, self.pad_token_id = self.all_special_ids[:3]
        self.cls_token_id, self.mask_token_id = self.all_special_ids[3:]
        self._tokenizer.post_processor = processors.BertProcessing(
            (sep_token, self.sep_token_id), (cls_token, self.cls_token_id)
        )

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, revision: str | None = None, **settings: Any
    ) -> LxmertTokenizer:
        """Open a vocab.txt, a tokenizer.json, a folder holding either, or a model on the Hugging Face hub.

        In a folder tokenizer.json goes before vocab.txt, and tokenizer_config.json before both.

        Args:
            name_or_path: file, folder or hub name such as "unc-nlp/lxmert-base-uncased".
            revision: branch, tag or commit of the hub model.
            settings: constructor arguments that go before those in the files.

        Raises:
            FileNotFoundError: neither a path nor a hub model that can be reached or is in the cache.
            InputError: a file cannot be read, or asks for what this tokenizer does not do.
        """
        path = Path(name_or_path).expanduser()
        if path.is_file():
            files = {"tokenizer.json" if path.suffix == ".json" else "vocab.txt": path}
        else:
            folder = path if path.is_dir() else _download(str(name_or_path), revision)
            files = {name: folder / name for name in _FILES if (folder / name).is_file()}
            if "tokenizer.json" not in files and "vocab.txt" not in files:
                is_run = (folder / "checkpoints").is_dir()
                raise FileNotFoundError(
                    f"{folder} ({name_or_path}) holds neither tokenizer.json nor vocab.txt: "
                    + ("it is a run from before they were kept. C" if is_run else "c")
                    + "opy the tokenizer's files there, or give the path of a vocab.txt"
                )
        config: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            config |= _read_settings(files[name]) if name in files else {}
        source = files.get("tokenizer.json") or files["vocab.txt"]
        if "tokenizer.json" in files:
            found = _read_tokenizer_json(source)
        else:
            found = {"vocab": _read_vocab(source), "added_tokens": config.get("added_tokens_decoder", {})}
        added: dict[int, AddedToken] = found.pop("added_tokens")
        found |= {key: config[key] for key in (*_SETTINGS, "clean_up_tokenization_spaces") if key in config}
        try:
            tokenizer = cls(**{**found, "added_tokens": [added[i] for i in sorted(added)], **settings})
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
        for i, token in added.items():
            if tokenizer._tokenizer.token_to_id(token.content) != i:
                raise InputError(
                    f"{source}: added token {shown(token.content)} has id {i}: ids of added tokens must "
                    "follow those of the vocabulary without gaps; get the file again"
                )
        return tokenizer

    def __call__(
        self,
        text: Texts,
        text_pair: str | Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool = True,
        return_attention_mask: bool = True,
        return_offsets_mapping: bool = False,
        return_special_tokens_mask: bool = False,
        return_length: bool = False,
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
            return_tensors: "pt", "np", or None for lists.
            return_token_type_ids: also token_type_ids (S, L), 1 in the second sentence of a pair.
            return_attention_mask: also attention_mask (S, L), 0 on padding.
            return_offsets_mapping: also offset_mapping (S, L, 2), first and last + 1 character of each token.
            return_special_tokens_mask: also special_tokens_mask (S, L), 1 on special tokens and padding.
            return_length: also length (S,), padding included.

        Returns:
            input_ids (S, L) int64 and the above. As lists, without S for a single `text` (except length).

        Raises:
            TypeError: text is not text.
            ValueError: an unknown choice, a missing or too short length, or tensors of unequal lengths.
        """
        if return_tensors not in (None, "pt", "np"):
            raise ValueError(f"return_tensors must be 'pt', 'np' or None, got {return_tensors!r}")
        rows = _rows_of(text, text_pair)
        tokenizer, limit = self._set_to(padding, truncation, max_length)
        encode = tokenizer.encode_batch if return_offsets_mapping else tokenizer.encode_batch_fast
        try:
            encodings = encode(rows, add_special_tokens=add_special_tokens)
        except TypeError as error:
            raise TypeError(_first_bad(rows)) from error
        except Exception as error:  # tokenizers raises no narrower one
            raise ValueError(f"cannot truncate to max_length={limit}: {error}") from error
        lengths = [len(encoding) for encoding in encodings]
        if limit is not None and max(lengths) > limit:
            raise ValueError(f"max_length={limit} leaves no room for the special tokens: 2, or 3 in a pair")

        fields = [("input_ids", "ids", True)]
        fields += [("token_type_ids", "type_ids", return_token_type_ids)]
        fields += [("attention_mask", "attention_mask", return_attention_mask)]
        fields += [("special_tokens_mask", "special_tokens_mask", return_special_tokens_mask)]
        fields += [("offset_mapping", "offsets", return_offsets_mapping)]
        result = {key: [getattr(e, name) for e in encodings] for key, name, wanted in fields if wanted}
        if return_tensors is None:
            if isinstance(text, str):
                result = {key: value[0] for key, value in result.items()}
            return BatchEncoding(result | ({"length": lengths} if return_length else {}))
        if min(lengths) != max(lengths):
            raise ValueError(f"no tensor of {min(lengths)} to {max(lengths)} tokens: give padding=True")
        result |= {"length": lengths} if return_length else {}
        # numpy first: torch.tensor is four times slower at nested lists.
        arrays = {key: np.array(value, dtype=np.int64) for key, value in result.items()}
        if return_tensors == "np":
            return BatchEncoding(arrays)
        return BatchEncoding({key: torch.from_numpy(value) for key, value in arrays.items()})

    def _set_to(
        self, padding: bool | str, truncation: bool | str | None, max_length: int | None
    ) -> tuple[Tokenizer, int | None]:
        """A Rust tokenizer that pads and truncates so, and the longest it may return."""
        padding = _choose("padding", padding, _PADDINGS)
        if truncation is None:
            if max_length is not None and padding == "longest":
                raise ValueError(f"max_length={max_length} has no effect: give truncation=True as well")
            truncation = max_length is not None and padding == "do_not_pad"
        truncation = _choose("truncation", truncation, _TRUNCATIONS)
        truncates = truncation != "do_not_truncate"
        if not truncates and padding == "do_not_pad":
            return self._tokenizer, None
        limit = self.model_max_length if max_length is None else max_length
        if (truncates or padding == "max_length") and not 0 <= limit <= _LONGEST:
            raise ValueError(
                f"cannot truncate or pad to {'no length' if limit == _NO_LIMIT else limit}: "
                "give max_length= here, or model_max_length= to the tokenizer"
            )
        # A copy of 30 microseconds that shares the vocabulary. Truncation and padding are state of the Rust
        # object: set on our own one they would change other threads' calls and the saved file.
        tokenizer = Tokenizer(self._tokenizer.model)
        tokenizer.normalizer = self._tokenizer.normalizer
        tokenizer.pre_tokenizer = self._tokenizer.pre_tokenizer
        tokenizer.post_processor = self._tokenizer.post_processor
        tokenizer.add_tokens([token for _, token in sorted(self._tokenizer.get_added_tokens_decoder().items())])
        if truncates:
            tokenizer.enable_truncation(limit, strategy=truncation)
        if padding != "do_not_pad":
            length = limit if padding == "max_length" else None
            tokenizer.enable_padding(pad_id=self.pad_token_id, pad_token=self.pad_token, length=length)
        return tokenizer, limit if truncates else None

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
        return any(token in text for token in self.all_special_tokens)

    def encode(self, text: str, text_pair: str | None = None, **options: Any) -> Any:
        """The `input_ids` of a call."""
        return self(text, text_pair, **options)["input_ids"]

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """The pieces of a sentence, or of a pair one after the other."""
        rows = _rows_of(text, pair)
        try:
            return self._tokenizer.encode_batch(rows, add_special_tokens=add_special_tokens)[0].tokens
        except TypeError as error:
            raise TypeError(_first_bad(rows)) from error

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """The text of one id, of a sequence of ids, or (as a list) of several sequences.

        Args:
            token_ids: int, list, list of lists, array or tensor; ids outside the vocabulary give no text.
            skip_special_tokens: leave out [CLS], [SEP], padding and the other special tokens.
            clean_up_tokenization_spaces: also join English contractions; None: as the tokenizer was told.
        """
        ids = _plain(token_ids)
        if isinstance(ids, int):
            ids = [ids]
        ids = [_plain(item) for item in ids]
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
            for spaced, joined in _ENGLISH_SPACING:
                texts = [text.replace(spaced, joined) for text in texts]
        return texts if nested else texts[0]

    def batch_decode(self, sequences: Any, **options: Any) -> list[str]:
        """`decode` of several sequences; always a list."""
        texts = self.decode(sequences, **options)
        return [texts] if isinstance(texts, str) else texts

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or the ids of several; that of `unk_token` for an unknown one."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        i = self._tokenizer.token_to_id(tokens)
        return self.unk_token_id if i is None else i

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or the tokens of several; None for an unknown id."""
        ids = _plain(ids)
        if isinstance(ids, int):
            return self._tokenizer.id_to_token(ids)
        skipped = self.all_special_ids if skip_special_tokens else []
        return [self._tokenizer.id_to_token(i) for i in map(_plain, ids) if i not in skipped]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text that the pieces spell."""
        return self._tokenizer.decoder.decode(tokens)

    def build_inputs_with_special_tokens(self, ids: list[int], pair_ids: list[int] | None = None) -> list[int]:
        """[CLS] ids [SEP], or [CLS] ids [SEP] pair_ids [SEP]."""
        second = [] if pair_ids is None else [*pair_ids, self.sep_token_id]
        return [self.cls_token_id, *ids, self.sep_token_id, *second]

    def create_token_type_ids_from_sequences(self, ids: list[int], pair_ids: list[int] | None = None) -> list[int]:
        """The segment of each token of `build_inputs_with_special_tokens`: 0 the first, 1 the second."""
        return [0] * (len(ids) + 2) + [1] * (0 if pair_ids is None else len(pair_ids) + 1)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many tokens of `max_length` the special tokens take."""
        return 3 if pair else 2

    def get_vocab(self) -> dict[str, int]:
        """Piece to id, added tokens included."""
        return self._tokenizer.get_vocab()

    @property
    def vocab_size(self) -> int:
        """Number of pieces without added tokens."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    @property
    def sha256(self) -> str:
        """What decides the ids of a text, as one hash: the tokens in order, and how a text is brought to them.

        Weights are for one vocabulary: of another with as many pieces they are as good as random.
        """
        ids = self.get_vocab()
        strips = self.do_lower_case if self.strip_accents is None else self.strip_accents
        rules = [self.do_lower_case, strips, self.tokenize_chinese_chars, self.all_special_tokens]
        content = json.dumps([sorted(ids, key=ids.__getitem__), rules])
        return hashlib.sha256(content.encode()).hexdigest()

    def unreachable(self) -> list[str]:
        """The pieces that no text can become: "Cat" or "é" where text is lower-cased and loses its accents."""
        bring = normalizers.BertNormalizer(
            clean_text=False,
            handle_chinese_chars=False,
            strip_accents=self.strip_accents,
            lowercase=self.do_lower_case,
        )
        pieces = self._tokenizer.get_vocab(with_added_tokens=False)
        added = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        return [
            piece
            for piece in sorted(pieces, key=pieces.__getitem__)
            if not (piece.isascii() and piece == piece.lower())  # quickly told of most
            and piece not in added
            and bring.normalize_str(piece) != piece
        ]

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

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

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write tokenizer_config.json, vocab.txt and tokenizer.json, which transformers opens too.

        Returns:
            The paths of the files.
        """
        config = {key: getattr(self, key) for key in (*_SETTINGS, "clean_up_tokenization_spaces")}
        config = {"tokenizer_class": "LxmertTokenizer"} | config
        folder = Path(save_directory)
        saved = self.save_vocabulary(folder)  # makes the folder
        write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
        write_text(folder / "tokenizer.json", self._tokenizer.to_str(pretty=True))
        return (*saved, str(folder / "tokenizer_config.json"), str(folder / "tokenizer.json"))


LxmertTokenizerFast = LxmertTokenizer


def _within_text(tokens: Sequence[str]) -> re.Pattern[str] | None:
    """Finds the special tokens in a text; group 1 is one that stands alone.

    Of those that begin with punctuation, as all of BERT's do: others cannot be spelt in pieces by a space.
    """
    names = "|".join(re.escape(token) for token in tokens if re.match(r"[!-/:-@\[-`{-~].", token))
    return re.compile(rf"((?<!\S)(?:{names})(?!\S))|{names}") if names else None


def _spelt(token: re.Match[str]) -> str:
    return token[0] if token[1] else f"{token[0][0]} {token[0][1:]}"


def _plain(ids: Any) -> Any:
    return ids.tolist() if hasattr(ids, "tolist") else ids


def _choose(name: str, value: bool | str, choices: tuple[str, ...]) -> str:
    chosen = choices[0] if value is True else choices[-1] if value is False else value
    if chosen not in choices:
        raise ValueError(f"{name} must be True, False or one of {', '.join(choices)}, got {value!r}")
    return chosen


def _rows_of(text: Any, text_pair: Any) -> list[Any]:
    if isinstance(text, str) and (text_pair is None or isinstance(text_pair, str)):
        return [(text, text_pair) if text_pair else text]  # an empty second sentence is none, as in transformers
    if isinstance(text, (list, tuple)) and (text_pair is None or isinstance(text_pair, (list, tuple))):
        if not text:
            raise ValueError("no text: the list is empty")
        if text_pair is None:
            return list(text)
        if len(text) != len(text_pair):
            raise ValueError(f"{len(text)} texts but {len(text_pair)} of text_pair: give one for each text")
        return list(zip(text, text_pair, strict=True))
    raise TypeError(
        "text must be a str or a list of str (text_pair the same, or None), "
        f"got {type(text).__name__} and {type(text_pair).__name__}"
    )


def _first_bad(rows: list[Any]) -> str:
    for i, row in enumerate(rows):
        parts = row if isinstance(row, (list, tuple)) else [row]
        for part in parts:
            if not isinstance(part, str):
                return f"text {i} must be a str or a pair of str, got {row!r}"
            if any("\ud800" <= character <= "\udfff" for character in part):
                return f"text {i} is not valid Unicode (it has half a surrogate pair): {part!r}"
    return f"texts must be str or pairs of str, and all of one kind, got for example {rows[0]!r}"


def _check_settings(settings: dict[str, Any]) -> None:
    """Refuse a constructor argument of another type than it must have."""
    for key, value in settings.items():
        if key in _SWITCHES and not isinstance(value, bool):
            raise InputError(f"{key} must be true or false, got {shown(value)}")
        if key == "strip_accents" and value is not None and not isinstance(value, bool):
            raise InputError(f"{key} must be true, false or null, got {shown(value)}")
        if key in _SPECIAL and not (isinstance(value, str) and value and is_unicode(value)):
            raise InputError(f"{key} must be a token's text, got {shown(value)}")
        if key == "model_max_length" and value is not None and not _is_length(value):
            raise InputError(f"{key} must be a number of tokens, got {shown(value)}")


def _is_length(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < 10**40
        and value == int(value)
    )


def _check_vocab(vocab: dict[str, int], added: set[str], special: list[str], name: str) -> None:
    if not vocab:
        raise InputError(f"{name}: the vocabulary is empty")
    for piece, i in vocab.items():
        if not isinstance(piece, str) or not piece or not is_unicode(piece) or type(i) is not int:
            raise InputError(
                f"{name}: piece {shown(piece)} with id {shown(i)}; expected a text and a whole number"
            )
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise InputError(f"{name}: ids must be 0 to {len(vocab) - 1}, each once")
    if missing := [token for token in special if token not in vocab and token not in added]:
        raise InputError(
            f"{name}: no special token {shown(', '.join(missing), str)} in the vocabulary of {len(vocab)}: "
            "add it, or say how it is called there (cls_token=, ...)"
        )


def _read_vocab(path: Path) -> dict[str, int]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such vocab.txt; folders and hub names: LxmertTokenizer.from_pretrained"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")  # a byte order mark is no part of the first piece
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}; get the file again") from error
    if not text.strip():
        return {}
    vocab: dict[str, int] = {}
    for i, line in enumerate(text.removesuffix("\n").split("\n")):
        if not line.strip(" \t"):
            raise InputError(
                f"{path}: line {i + 1} is blank; expected a piece on each line, whose number is its id. Get the "
                "file again; if the line does not belong there, remove it"
            )
        if line in vocab:
            raise InputError(
                f"{path}: lines {vocab[line] + 1} and {i + 1} hold the same piece {shown(line)}: remove one"
            )
        vocab[line] = i
    return vocab


def _read_object(path: Path) -> dict[str, Any]:
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: must hold a JSON object, got {type(data).__name__}; fetch or write it again")
    return data


def _read_settings(path: Path) -> dict[str, Any]:
    """What a tokenizer_config.json or special_tokens_map.json says, special tokens as texts.

    `added_tokens_decoder`, where it has one, by id.
    """
    data = _read_object(path)
    for side in ("padding_side", "truncation_side"):
        if data.get(side, "right") != "right":
            raise InputError(f"{path}: {side} must be 'right', got {shown(data[side])}")
    for key in _SPECIAL:
        if isinstance(data.get(key), dict):
            data[key] = data[key].get("content")
    _in_file(path, data)
    tokens = data.get("added_tokens_decoder", {})
    if not isinstance(tokens, dict):
        raise InputError(
            f"{path}: added_tokens_decoder must be an object, got {shown(tokens)}; get the file again"
        )
    data["added_tokens_decoder"] = _added_tokens(
        [(int(i) if i.isascii() and i.isdigit() and len(i) < 10 else i, token) for i, token in tokens.items()],
        f"{path}: added_tokens_decoder",
    )
    return data


def _added_tokens(tokens: Sequence[tuple[Any, Any]], where: str) -> dict[int, AddedToken]:
    """Added tokens by id, from the pairs of id and description in the file `where`."""
    found: dict[int, AddedToken] = {}
    for i, token in tokens:
        flags = token if isinstance(token, dict) else {}
        flags = {key: value for key, value in flags.items() if key not in ("id", "__type")}
        content = flags.pop("content", None)
        wrong = sorted(key for key, value in flags.items() if key not in _FLAGS or not isinstance(value, bool))
        if type(i) is not int or not 0 <= i < 2**31 or i in found:
            raise InputError(f"{where}: id {shown(i)}; expected a whole number, each once. Get the file again.")
        if not isinstance(content, str) or not content or wrong:
            raise InputError(
                f"{where}: {shown(token)}; expected an object with the token's text as content, and true or false "
                f"for {', '.join(_FLAGS)}. Get the file again."
            )
        found[i] = AddedToken(content, **flags)
    return found


def _read_tokenizer_json(path: Path) -> dict[str, Any]:
    """Constructor arguments; `added_tokens` by id."""
    data = _read_object(path)
    expected: dict[str, dict[str, Any]] = {
        "model": {"type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
        "normalizer": {"type": "BertNormalizer", "clean_text": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
    }
    for part, wanted in expected.items():
        if not isinstance(data.get(part), dict):
            data[part] = {}
        for key, value in wanted.items():
            if (got := data[part].get(key)) != value:
                raise InputError(
                    f"{path}: not a BERT tokenizer: {part}.{key} must be {value!r}, got {shown(got)}; "
                    "give a vocab.txt to use its vocabulary alone"
                )
    model, normalizer, tokens = data["model"], data["normalizer"], data.get("added_tokens", [])
    if not isinstance(model.get("vocab"), dict):
        raise InputError(f"{path}: model.vocab must be an object of piece to id; get the file again")
    if not isinstance(tokens, list):
        raise InputError(f"{path}: added_tokens must be a list, got {shown(tokens)}; get the file again")
    settings = {
        "unk_token": model.get("unk_token", "[UNK]"),
        "do_lower_case": normalizer.get("lowercase"),
        "tokenize_chinese_chars": normalizer.get("handle_chinese_chars"),
        "strip_accents": normalizer.get("strip_accents"),
    }
    _in_file(path, settings)
    pairs = [(token.get("id") if isinstance(token, dict) else None, token) for token in tokens]
    return settings | {"vocab": model["vocab"], "added_tokens": _added_tokens(pairs, f"{path}: added_tokens")}


def _in_file(path: Path, settings: dict[str, Any]) -> None:
    """`_check_settings` of what `path` holds."""
    try:
        _check_settings(settings)
    except InputError as error:
        raise InputError(f"{path}: {error}. Mend it, or get the file again.") from error


def _download(name: str, revision: str | None) -> Path:
    import huggingface_hub  # costs half a second, and most runs have the files

    try:
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
            raise ValueError("not the form of a hub name (owner/model)")
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(_FILES)))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"no tokenizer {name!r}: no such file or folder in {Path.cwd()}, and the Hugging Face hub did not "
            f"give it ({' '.join(str(error).split())}). Give a vocab.txt, a tokenizer.json or their folder, "
            "or connect to the internet once to download it"
        ) from error
