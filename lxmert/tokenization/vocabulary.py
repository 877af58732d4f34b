"""A tokenizer's tokens: their ids, which are special, which were added, and how a text is brought to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from lxmert.files import shown
from lxmert.tokenization.files import NAMED, NEEDED, check_settings, check_vocab, read_vocab
from lxmert.tokenization.padding import plain

_BUILT_IN = ("unk_token", "sep_token", "cls_token")  # the Rust tokenizer puts them itself


class _Named:
    """A special token of a tokenizer as an attribute: its text (`pad_token`) or its id (`pad_token_id`)."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.is_id = name.removesuffix("_id"), name.endswith("_id")

    def __get__(self, tokenizer: Vocabulary | None, owner: type | None = None) -> Any:
        if tokenizer is None:
            return self
        token = tokenizer._named[self.name]
        return tokenizer._tokenizer.token_to_id(token) if self.is_id and token is not None else token

    def __set__(self, tokenizer: Vocabulary, value: Any) -> None:
        if self.is_id and value is not None:
            value = tokenizer._token_of(value)
        tokenizer._assign(self.name, value)


class Vocabulary:
    """The tokens of `LxmertTokenizer`, which says what the arguments are.

    Args:
        vocab: a vocab.txt, or a dict of piece to id; None holds the special tokens alone.
        named: the special tokens by their names.
        extra: further special tokens.
        added: tokens found in the raw text before it is split.
        do_lower_case: lower-case a text.
        tokenize_chinese_chars: each Chinese character is a word.
        strip_accents: None does as `do_lower_case`.
    """

    SPECIAL_TOKENS_ATTRIBUTES: ClassVar = list(NAMED)

    bos_token, bos_token_id, eos_token, eos_token_id = _Named(), _Named(), _Named(), _Named()
    unk_token, unk_token_id, sep_token, sep_token_id = _Named(), _Named(), _Named(), _Named()
    pad_token, pad_token_id, cls_token, cls_token_id = _Named(), _Named(), _Named(), _Named()
    mask_token, mask_token_id = _Named(), _Named()

    def __init__(
        self,
        vocab: str | Path | dict[str, int] | None,
        named: dict[str, str | AddedToken | None],
        extra: Sequence[str | AddedToken],
        added: Sequence[AddedToken],
        do_lower_case: bool,
        tokenize_chinese_chars: bool,
        strip_accents: bool | None,
    ) -> None:
        check_settings(named | {"extra_special_tokens": extra})
        self.do_lower_case = do_lower_case
        self.tokenize_chinese_chars = tokenize_chinese_chars
        self.strip_accents = strip_accents
        self._named = {name: None if token is None else str(token) for name, token in named.items()}
        self._extra = list(map(str, extra))
        if vocab is None:
            order = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
            vocab = {str(named[name]): i for i, name in enumerate(order)}
        pieces = vocab if isinstance(vocab, dict) else read_vocab(Path(vocab))
        special = [token for token in named.values() if token is not None]
        texts, others = set(map(str, special)), {token.content for token in added}
        check_vocab(pieces, others, list(map(str, special)), "vocab" if pieces is vocab else str(vocab))
        self._tokenizer = Tokenizer(WordPiece(pieces, unk_token=str(named["unk_token"])))
        self._tokenizer.normalizer = normalizers.BertNormalizer(
            handle_chinese_chars=tokenize_chinese_chars, strip_accents=strip_accents, lowercase=do_lower_case
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._tokenizer.decoder = decoders.WordPiece()
        self._tokenizer.add_tokens([as_special(token) for token in special if str(token) not in others])
        self._tokenizer.add_tokens([as_special(token) if token.content in texts else token for token in added])
        self._tokenizer.add_tokens([as_special(token) for token in extra if str(token) not in texts | others])
        self._tokenizer.post_processor = processors.BertProcessing(
            (self.sep_token, self.sep_token_id), (self.cls_token, self.cls_token_id)
        )
        self._changed()

    def _changed(self) -> None:
        """What is made of the tokens is to be made anew."""

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or the ids of several; that of `unk_token` for an unknown one."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        i = self._tokenizer.token_to_id(tokens)
        return self.unk_token_id if i is None else i

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or the tokens of several; None for an unknown id."""
        ids = plain(ids)
        if isinstance(ids, int):
            return self._tokenizer.id_to_token(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else ()
        return [self._tokenizer.id_to_token(i) for i in plain(list(ids)) if i not in skipped]

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

    def get_special_tokens_mask(
        self, token_ids_0: Any, token_ids_1: Any = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 on special tokens, 0 on others.

        Args:
            token_ids_0: ids of a sentence, or of a whole row where `already_has_special_tokens`.
            token_ids_1: ids of the second sentence.
            already_has_special_tokens: else the mask is of `build_inputs_with_special_tokens`.
        """
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError("ids that have their special tokens are one row: give no token_ids_1")
            special = set(self.all_special_ids)
            return [int(i in special) for i in plain(token_ids_0)]
        second = [] if token_ids_1 is None else [0] * len(token_ids_1) + [1]
        return [1, *([0] * len(token_ids_0)), 1, *second]

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many tokens of `max_length` the special tokens take."""
        return 3 if pair else 2

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The special tokens by their names, `extra_special_tokens` left out."""
        return {name: token for name, token in self._named.items() if token is not None}

    @property
    def extra_special_tokens(self) -> list[str]:
        """The special tokens without a name of their own."""
        return list(self._extra)

    @extra_special_tokens.setter
    def extra_special_tokens(self, tokens: Sequence[str | AddedToken] | None) -> None:
        check_settings({"extra_special_tokens": tokens or ()})
        self._extra = [self._in_vocabulary("extra_special_tokens", str(token)) for token in tokens or ()]

    @property
    def extra_special_tokens_ids(self) -> list[int]:
        """Ids of `extra_special_tokens`."""
        return self.convert_tokens_to_ids(self._extra)

    @property
    def all_special_tokens(self) -> list[str]:
        """The special tokens, each once, those with names first."""
        return list(dict.fromkeys([*self.special_tokens_map.values(), *self._extra]))

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of `all_special_tokens`."""
        return self.convert_tokens_to_ids(self.all_special_tokens)

    def _assign(self, name: str, token: str | AddedToken | None) -> None:
        """Make `token` the special token called `name`."""
        text = None
        if token is not None or name in _BUILT_IN:
            text = self._checked(name, token)
            self._in_vocabulary(name, text)
        if text != self._named[name]:
            self._named = self._named | {name: text}
            self._changed()

    def _checked(self, name: str, token: Any) -> str:
        """The text of a token that may be called `name`."""
        check_settings({name: token})
        if name in _BUILT_IN and str(token) != self._named[name]:
            raise ValueError(
                f"{name} cannot be changed: calls would go on putting {self._named[name]}. Open the "
                f"tokenizer with {name}={str(token)!r}"
            )
        return str(token)

    def _in_vocabulary(self, name: str, token: str) -> str:
        if self._tokenizer.token_to_id(token) is None:
            raise ValueError(
                f"{name}: {shown(token)} is not in the vocabulary; tokenizer.add_special_tokens adds it"
            )
        return token

    def _token_of(self, i: Any) -> str:
        token = self._tokenizer.id_to_token(i) if isinstance(i, int) and i >= 0 else None
        if token is None:
            raise ValueError(f"no token has the id {shown(i)}: there are {len(self)}, from 0")
        return token

    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Add tokens, which are found in a text before it is split; ids follow those of the vocabulary.

        A model needs a larger embedding then, and `sha256` is another.

        Args:
            new_tokens: a token or several.
            special_tokens: they are special tokens, also left out of a decoded text.

        Returns:
            How many of them were none before.
        """
        tokens = [new_tokens] if isinstance(new_tokens, str | AddedToken) else list(new_tokens)
        for token in tokens:
            if not isinstance(token, str | AddedToken):
                raise TypeError(f"a token must be a str or an AddedToken, got {shown(token)}")
        add = self._tokenizer.add_special_tokens if special_tokens else self._tokenizer.add_tokens
        count = add(tokens)
        self._changed()
        return count

    def add_special_tokens(
        self,
        special_tokens_dict: dict[str, str | AddedToken | Sequence[str | AddedToken]],
        replace_extra_special_tokens: bool = True,
    ) -> int:
        """Add special tokens and give them their names.

        Args:
            special_tokens_dict: tokens by name: "pad_token", "mask_token", "bos_token", "eos_token", or a list as
                "extra_special_tokens".
            replace_extra_special_tokens: those that were extra special tokens before are no more; else they stay.

        Returns:
            How many were no added tokens before.

        Raises:
            ValueError: a name that is none, one that cannot be changed, or no token. Nothing is added then.
        """
        named: dict[str, Any] = dict(special_tokens_dict)
        if "additional_special_tokens" in named:  # what version 4 calls them
            named["extra_special_tokens"] = named.pop("additional_special_tokens")
        for name, value in named.items():
            if name not in (*NAMED, "extra_special_tokens"):
                raise ValueError(
                    f"no special token is called {name!r}; there are {', '.join(NAMED)} and extra_special_tokens"
                )
            if value is None:
                raise ValueError(f"{name}: None is no token")
            self._checked(name, value)
        tokens: list[AddedToken] = []
        extra = list(self._extra)
        for name, value in named.items():
            if name == "extra_special_tokens":
                new = [token for token in value if replace_extra_special_tokens or str(token) not in extra]
                kept = [] if replace_extra_special_tokens and new else extra
                extra = [*kept, *map(str, new)]
                tokens += map(as_special, new)
            else:
                tokens.append(as_special(value))
        count = self.add_tokens(tokens, special_tokens=True)
        for name, value in named.items():
            if name != "extra_special_tokens":
                self._assign(name, value)
        self._extra = extra
        return count

    def get_vocab(self) -> dict[str, int]:
        """Piece to id, added tokens included."""
        return self._tokenizer.get_vocab()

    @property
    def vocab(self) -> dict[str, int]:
        """Piece to id, added tokens included."""
        return self.get_vocab()

    @property
    def vocab_size(self) -> int:
        """Number of pieces without added tokens."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The added tokens by id, special ones included."""
        return self._tokenizer.get_added_tokens_decoder()

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """Ids of the added tokens, special ones included."""
        return {token.content: i for i, token in sorted(self.added_tokens_decoder.items())}

    def get_added_vocab(self) -> dict[str, int]:
        """Ids of the added tokens, special ones included."""
        return self.added_tokens_encoder

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """A copy of the Rust tokenizer: to look at, and to use by itself."""
        return Tokenizer.from_str(self._tokenizer.to_str())

    @property
    def sha256(self) -> str:
        """What decides the ids of a text, as one hash: the tokens in order, and how a text is brought to them.

        Weights are for one vocabulary: of another with as many pieces they are as good as random.
        """
        ids = self.get_vocab()
        strips = self.do_lower_case if self.strip_accents is None else self.strip_accents
        named = [self._named[name] for name in NEEDED]
        rules = [self.do_lower_case, strips, self.tokenize_chinese_chars, named]
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


def as_special(token: str | AddedToken) -> AddedToken:
    """`token` with its flags, or the usual ones, as a special token."""
    if isinstance(token, str):
        return AddedToken(token, normalized=False, special=True)
    return AddedToken(**{**token.__getstate__(), "special": True})
