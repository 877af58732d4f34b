"""A tokenizer's files and settings: read, checked, found on the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken

from lxmert.files import Hub, InputError, is_unicode, read_json, shown
from lxmert.tokenization.texts import SIDES

FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
NEEDED = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
NAMED = ("bos_token", "eos_token", *NEEDED)
SETTINGS = (
    *("do_lower_case", "tokenize_chinese_chars", "strip_accents", "model_max_length"),
    *(
        "clean_up_tokenization_spaces",
        "padding_side",
        "truncation_side",
        "model_input_names",
        "split_special_tokens",
    ),
)
_SWITCHES = ("do_lower_case", "tokenize_chinese_chars", "clean_up_tokenization_spaces", "split_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_INSTEAD = {
    "vocab_file": "give the path as vocab=",
    "tokenizer_file": "give the path to LxmertTokenizer.from_pretrained",
    "tokenizer_object": "save it, and give the path to LxmertTokenizer.from_pretrained",
    "gguf_file": "give a vocab.txt or a tokenizer.json",
    "use_auth_token": "it is called token= now",
    "proxies": "set HTTPS_PROXY in the environment",
}


class Found(NamedTuple):
    """What a tokenizer's files say."""

    source: Path  # the file with the vocabulary
    arguments: dict[str, Any]  # of the constructor, without added tokens
    added: dict[int, AddedToken]
    other: dict[str, Any]  # what tokenizer_config.json says that is no argument


def find(name_or_path: str | Path, hub: Hub) -> Found:
    """Read a vocab.txt, a tokenizer.json, a folder or a hub model; errors as of `from_pretrained`."""
    path = Path(name_or_path).expanduser()
    if path.is_file():
        files = {"tokenizer.json" if path.suffix == ".json" else "vocab.txt": path}
    else:
        folder = hub.local(name_or_path) if path.is_dir() else _download(str(name_or_path), hub)
        files = {name: folder / name for name in FILES if (folder / name).is_file()}
        if "tokenizer.json" not in files and "vocab.txt" not in files:
            is_run = (folder / "checkpoints").is_dir()
            raise FileNotFoundError(
                f"{folder} ({name_or_path}) holds neither tokenizer.json nor vocab.txt: "
                + ("it is a run from before they were kept. C" if is_run else "c")
                + "opy the tokenizer's files there, or give the path of a vocab.txt"
            )
    config = _read_settings(files["tokenizer_config.json"]) if "tokenizer_config.json" in files else {}
    named_there = _read_settings(files["special_tokens_map.json"]) if "special_tokens_map.json" in files else {}
    source = files.get("tokenizer.json") or files["vocab.txt"]
    found = _read_tokenizer_json(source) if "tokenizer.json" in files else {"vocab": read_vocab(source)}
    of_json = found.pop("added_tokens", {})
    if "added_tokens_decoder" in config:
        added = config.pop("added_tokens_decoder")
    else:  # the older files count only without it, as in transformers
        special = set(map(str, config.get("extra_special_tokens", ())))
        config |= named_there
        special |= {str(config[key]) for key in NAMED if config.get(key) is not None}
        older = _read_added_tokens(files["added_tokens.json"], special) if "added_tokens.json" in files else {}
        added = older | of_json
        config.pop("added_tokens_decoder", None)
    arguments = found | {
        key: config.pop(key) for key in (*NAMED, *SETTINGS, "extra_special_tokens") if key in config
    }
    return Found(source, arguments, added, config)


def known_settings(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is given to `from_pretrained`: arguments of the constructor, and what means nothing here."""
    settings = _renamed(settings)
    known = {key: settings.pop(key) for key in (*NAMED, *SETTINGS, "extra_special_tokens") if key in settings}
    for key, value in settings.items():
        if key in _INSTEAD:
            raise TypeError(f"no {key} here: {_INSTEAD[key]}")
        if key.endswith("_token") and isinstance(value, str | AddedToken):
            raise TypeError(f"no special token is called {key} here: give extra_special_tokens=[{str(value)!r}]")
    return known, settings


def check_settings(settings: dict[str, Any]) -> None:
    """Refuse a constructor argument of another type than it must have."""
    for key, value in settings.items():
        if key in _SWITCHES and not isinstance(value, bool):
            raise InputError(f"{key} must be true or false, got {shown(value)}")
        if key == "strip_accents" and value is not None and not isinstance(value, bool):
            raise InputError(f"{key} must be true, false or null, got {shown(value)}")
        if key in NEEDED and not _is_token(value):
            raise InputError(f"{key} must be a token's text, got {shown(value)}")
        if key in ("bos_token", "eos_token") and value is not None and not _is_token(value):
            raise InputError(f"{key} must be a token's text or null, got {shown(value)}")
        if key == "extra_special_tokens" and not (isinstance(value, list | tuple) and all(map(_is_token, value))):
            raise InputError(f"{key} must be a list of tokens' texts, got {shown(value)}")
        if key == "model_max_length" and value is not None and not _is_length(value):
            raise InputError(f"{key} must be a number of tokens, got {shown(value)}")
        if key in ("padding_side", "truncation_side") and value not in SIDES:
            raise InputError(f"{key} must be 'right' or 'left', got {shown(value)}")
        if key == "model_input_names" and not (
            isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value)
        ):
            raise InputError(f"{key} must be a list of names such as input_ids, got {shown(value)}")


def check_vocab(vocab: dict[str, int], added: set[str], special: list[str], name: str) -> None:
    """Refuse a vocabulary that is empty, skips an id or lacks a special token."""
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


def read_vocab(path: Path) -> dict[str, int]:
    """The pieces of a vocab.txt and their ids."""
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


def _is_token(value: Any) -> bool:
    return isinstance(value, str | AddedToken) and bool(str(value)) and is_unicode(str(value))


def _is_length(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < 10**40
        and value == int(value)
    )


def _renamed(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by the names of today: older files have `additional_special_tokens` and `max_len`."""
    settings = dict(settings)
    for old, new in (("additional_special_tokens", "extra_special_tokens"), ("max_len", "model_max_length")):
        if old in settings:
            value = settings.pop(old)
            if settings.get(new) in (None, {}, []):
                settings[new] = value
    if settings.get("extra_special_tokens") in (None, {}):  # as transformers wrote it where there are none
        settings.pop("extra_special_tokens", None)
    return settings


def _read_object(path: Path) -> dict[str, Any]:
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: must hold a JSON object, got {type(data).__name__}; fetch or write it again")
    return data


def _read_settings(path: Path) -> dict[str, Any]:
    """What a tokenizer_config.json or special_tokens_map.json says, `added_tokens_decoder` by id."""
    data = _renamed(_read_object(path))
    for key in NAMED:
        if isinstance(data.get(key), dict):
            data[key] = _special_token(data[key], f"{path}: {key}")
    if isinstance(data.get("extra_special_tokens"), list):
        data["extra_special_tokens"] = [
            _special_token(token, f"{path}: extra_special_tokens") if isinstance(token, dict) else token
            for token in data["extra_special_tokens"]
        ]
    _in_file(path, data)
    if "added_tokens_decoder" in data:
        tokens = data["added_tokens_decoder"]
        if not isinstance(tokens, dict):
            raise InputError(
                f"{path}: added_tokens_decoder must be an object, got {shown(tokens)}; get the file again"
            )
        data["added_tokens_decoder"] = _added_tokens(
            [(int(i) if i.isascii() and i.isdigit() and len(i) < 10 else i, token) for i, token in tokens.items()],
            f"{path}: added_tokens_decoder",
        )
    return data


def _special_token(token: dict[str, Any], where: str) -> AddedToken:
    if not isinstance(token.get("content"), str):
        raise InputError(f"{where} must be a token's text, got {shown(token.get('content'))}. Mend it.")
    return _added_token(token | {"special": True}, where)


def _added_token(token: Any, where: str) -> AddedToken:
    flags = token if isinstance(token, dict) else {}
    flags = {key: value for key, value in flags.items() if key not in ("id", "__type")}
    content = flags.pop("content", None)
    wrong = sorted(key for key, value in flags.items() if key not in _FLAGS or not isinstance(value, bool))
    if not isinstance(content, str) or not content or wrong:
        raise InputError(
            f"{where}: {shown(token)}; expected an object with the token's text as content, and true or false "
            f"for {', '.join(_FLAGS)}. Get the file again."
        )
    return AddedToken(content, **flags)


def _added_tokens(tokens: Sequence[tuple[Any, Any]], where: str) -> dict[int, AddedToken]:
    """Added tokens by id, from the pairs of id and description in the file `where`."""
    found: dict[int, AddedToken] = {}
    for i, token in tokens:
        if type(i) is not int or not 0 <= i < 2**31 or i in found:
            raise InputError(f"{where}: id {shown(i)}; expected a whole number, each once. Get the file again.")
        found[i] = _added_token(token, where)
    return found


def _read_added_tokens(path: Path, special: set[str]) -> dict[int, AddedToken]:
    """The added tokens of an added_tokens.json, which older versions of transformers wrote beside vocab.txt."""
    tokens = [
        (i, {"content": token, "normalized": token not in special, "special": token in special})
        for token, i in _read_object(path).items()
    ]
    return _added_tokens(tokens, str(path))


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
    for part in (
        "padding",
        "truncation",
    ):  # left there by a call before it was saved, and obeyed as in transformers
        if isinstance(data.get(part), dict) and isinstance(data[part].get("direction"), str):
            settings[f"{part}_side"] = data[part]["direction"].lower()
    _in_file(path, settings)
    pairs = [(token.get("id") if isinstance(token, dict) else None, token) for token in tokens]
    return settings | {"vocab": model["vocab"], "added_tokens": _added_tokens(pairs, f"{path}: added_tokens")}


def _in_file(path: Path, settings: dict[str, Any]) -> None:
    """`check_settings` of what `path` holds."""
    try:
        check_settings(settings)
    except InputError as error:
        raise InputError(f"{path}: {error}. Mend it, or get the file again.") from error


def _download(name: str, hub: Hub) -> Path:
    """The folder of a hub model's tokenizer files, downloaded or in the cache."""
    import huggingface_hub  # costs half a second, and most runs have the files

    patterns = [f"{hub.subfolder}/{file}" if hub.subfolder else file for file in FILES]
    options = {name: value for name, value in vars(hub).items() if name != "subfolder"}
    try:
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
            raise ValueError("not the form of a hub name (owner/model)")
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, **options)) / hub.subfolder
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"no tokenizer {name!r}: no such file or folder in {Path.cwd()}, and the Hugging Face hub did not "
            f"give it ({' '.join(str(error).split())}). Give a vocab.txt, a tokenizer.json or their folder, "
            "or connect to the internet once to download it"
        ) from error
