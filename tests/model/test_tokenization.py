"""LxmertTokenizer against transformers' own, on arbitrary text, with a small and with the real vocabulary."""

import functools
import json
import os
import pickle
import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported
transformers = pytest.importorskip("transformers")

from lxmert import tokenization  # noqa: E402
from lxmert.files import InputError  # noqa: E402
from lxmert.tokenization import LxmertTokenizer, LxmertTokenizerFast  # noqa: E402

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "vocab" / "bert_uncased_vocab.txt"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["what", "is", "the", "cat", "color", "of", "it", "'s", "isn", "n't", "who", "un", "##aff", "##able"]
WORDS += ["red", "Red", "écru", "ecru", "猫"]
LETTERS = [
    *"abcdefghijklmnopqrstuvwxyzABCéßñ0123456789.,?!'\"[]()-#",
    "µ",
    "ж",
    "\u0131",
    "\u0627",
    "한",
    "\u0301",
]
SMALL = [*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
SMALL = list(dict.fromkeys(SMALL))

fragment = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [*WORDS, *SPECIAL, "[mask]", "isn't", "it's", " ", "\u00a0", "\u2028", "\t", "\x00", "x" * 101]
    ),
)
sentence = st.lists(fragment, max_size=8).map("".join) | st.lists(fragment, max_size=8).map(" ".join)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_small(folder: Path) -> Path:
    path = folder / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in SMALL), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["small", "small cased", "real"])
def both(request, tmp_path_factory):
    """Our tokenizer and the reference's, of the same vocabulary and settings."""
    if request.param == "real" and not REAL.exists():
        pytest.skip("BERT's vocabulary (shared/data/vocab/bert_uncased_vocab.txt) is not here")
    path = REAL if request.param == "real" else write_small(tmp_path_factory.mktemp("vocab"))
    options = {"do_lower_case": False, "tokenize_chinese_chars": False} if "cased" in request.param else {}
    return LxmertTokenizer(path, **options), transformers.LxmertTokenizer(str(path), **options)


@pytest.fixture
def small(tmp_path):
    return LxmertTokenizer(write_small(tmp_path))


def as_lists(encoding):
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in encoding.items()}


def assert_same(ours, theirs):
    assert list(ours) == list(theirs)
    assert as_lists(ours) == as_lists(theirs)
    for key in ours:
        assert type(ours[key]) is type(theirs[key])


EVERYTHING = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_length": True}


def test_both_names_are_one_class():
    assert LxmertTokenizerFast is LxmertTokenizer


@quick
@given(first=sentence, second=st.none() | sentence, special=st.booleans())
def test_a_sentence_or_a_pair_equals_transformers(both, first, second, special):
    ours, theirs = both
    options = {"add_special_tokens": special}
    assert_same(ours(first, second, **options, **EVERYTHING), theirs(first, second, **options, **EVERYTHING))
    assert_same(ours(first, second, **options), theirs(first, second, **options))
    assert ours.tokenize(first, second, **options) == theirs.tokenize(first, second, **options)
    assert ours.encode(first, second, **options) == theirs.encode(first, second, **options)


@quick
@given(
    pairs=st.lists(st.tuples(sentence, sentence), min_size=1, max_size=4),
    paired=st.booleans(),
    padding=st.sampled_from([False, True, "longest", "max_length", "do_not_pad"]),
    truncation=st.sampled_from([False, True, "longest_first", "only_first", "do_not_truncate"]),
    max_length=st.integers(3, 30),
    data=st.data(),
)
def test_padding_and_truncation_of_a_batch_equal_transformers(
    both, pairs, paired, padding, truncation, max_length, data
):
    ours, theirs = both
    texts = [first for first, _ in pairs]
    second = [second for _, second in pairs] if paired else None
    options = dict(padding=padding, truncation=truncation, max_length=max_length, **EVERYTHING)
    try:
        expected = theirs(texts, second, **options)
    except Exception as error:
        assert "too short" in str(error)  # only_first cannot shorten the second
        with pytest.raises(ValueError, match="too short"):
            ours(texts, second, **options)
        return
    assert_same(ours(texts, second, **options), expected)
    fills = padding == "max_length" and truncation not in (False, "do_not_truncate")
    if padding in (True, "longest") or fills or len(texts) == 1:
        kind = data.draw(st.sampled_from(["pt", "np"]))
        expected = theirs(texts, second, return_tensors=kind, **options)
        assert_same(ours(texts, second, return_tensors=kind, **options), expected)


@quick
@given(text=sentence, max_length=st.integers(2, 12), padding=st.sampled_from([False, "max_length"]))
def test_max_length_alone_acts_as_in_transformers(both, text, max_length, padding):
    ours, theirs = both
    options = {"max_length": max_length, "padding": padding}
    assert_same(ours(text, **options), theirs(text, **options))


@quick
@given(second=sentence, max_length=st.integers(5, 12))
def test_truncating_only_the_second_equals_transformers(both, second, max_length):
    ours, theirs = both
    options = {"truncation": "only_second", "max_length": max_length}
    try:
        expected = theirs("a", second, **options)
    except Exception:
        with pytest.raises(ValueError, match="max_length"):
            ours("a", second, **options)
    else:
        assert_same(ours("a", second, **options), expected)


@quick
@given(
    texts=st.lists(sentence, min_size=1, max_size=3),
    ids=st.lists(st.integers(0, 120), max_size=12),
    skip=st.booleans(),
    clean=st.sampled_from([None, True, False]),
)
def test_decoding_equals_transformers(both, texts, ids, skip, clean):
    ours, theirs = both
    options = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": clean}
    rows = [*ours(texts)["input_ids"], ids]
    assert ours.batch_decode(rows, **options) == theirs.batch_decode(rows, **options)
    for row in rows:
        assert ours.decode(row, **options) == theirs.decode(row, **options)
        assert ours.decode(torch.tensor(row, dtype=torch.int64), **options) == theirs.decode(row, **options)
        tokens = theirs.convert_ids_to_tokens(row, skip_special_tokens=skip)
        assert ours.convert_ids_to_tokens(row, skip_special_tokens=skip) == tokens
        assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
        assert ours.convert_tokens_to_string(tokens) == theirs.convert_tokens_to_string(tokens)


def test_what_a_tokenizer_says_of_itself_equals_transformers(both):
    ours, theirs = both
    for name in SPECIAL:
        field = f"{name[1:-1].lower()}_token"
        assert getattr(ours, field) == getattr(theirs, field) == name
        assert getattr(ours, f"{field}_id") == getattr(theirs, f"{field}_id")
    for field in (
        "vocab_size",
        "all_special_ids",
        "all_special_tokens",
        "model_max_length",
        "padding_side",
        "is_fast",
    ):
        assert getattr(ours, field) == getattr(theirs, field)
    assert len(ours) == len(theirs)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.decode(7) == theirs.decode(7)
    assert ours.convert_ids_to_tokens(7) == theirs.convert_ids_to_tokens(7)
    assert ours.convert_tokens_to_ids("nosuchtoken") == ours.unk_token_id
    for pair in (False, True):
        assert ours.num_special_tokens_to_add(pair) == theirs.num_special_tokens_to_add(pair)


def test_building_from_ids_equals_a_call(small):
    first, second = (small.encode(text, add_special_tokens=False) for text in ("the cat", "who is it"))
    for pair in ((first,), (first, second)):
        called = small(*("the cat", "who is it")[: len(pair)])
        assert small.build_inputs_with_special_tokens(*pair) == called.input_ids
        assert small.create_token_type_ids_from_sequences(*pair) == called.token_type_ids


def test_twenty_tokens_are_cls_the_first_eighteen_pieces_and_sep(both):
    ours, _ = both
    text = "what is the color of the unaffable cat " * 5
    pieces = ours.tokenize(text)
    assert len(pieces) > 18
    ids = ours(text, truncation=True, max_length=20)["input_ids"]
    assert ours.convert_ids_to_tokens(ids) == ["[CLS]", *pieces[:18], "[SEP]"]


def test_a_result_has_attributes_and_moves_to_a_device(small):
    encoding = small(["the cat", "red"], padding=True, return_tensors="pt", return_length=True)
    assert encoding.input_ids is encoding["input_ids"]
    assert encoding.input_ids.dtype == torch.int64
    moved = encoding.to("meta")
    assert moved.attention_mask.device.type == "meta"
    assert list(moved) == list(encoding)
    with pytest.raises(AttributeError, match="no 'labels', only input_ids"):
        encoding.labels  # noqa: B018
    assert pickle.loads(pickle.dumps(small("cat"))) == small("cat")


def test_no_call_changes_a_later_one(small):
    before = small("what is the color of the cat"), small._tokenizer.to_str()
    small("what is the color of the cat", truncation=True, max_length=3)
    small(["the cat"], padding="max_length", max_length=50)
    assert (small("what is the color of the cat"), small._tokenizer.to_str()) == before


def test_threads_share_a_tokenizer(small):
    text = "what is the color of the cat " * 3
    expected = {n: small(text, truncation=True, max_length=n, padding="max_length") for n in range(2, 40)}
    with ThreadPoolExecutor(8) as pool:
        lengths = list(expected) * 20
        found = pool.map(lambda n: small(text, truncation=True, max_length=n, padding="max_length"), lengths)
        assert all(result == expected[n] for n, result in zip(lengths, found, strict=True))


def test_a_pickled_tokenizer_is_the_same(both):
    ours, _ = both
    copy = pickle.loads(pickle.dumps(ours))
    text = "Isn't the [MASK] écru 猫 unaffable?"
    assert copy(text, **EVERYTHING) == ours(text, **EVERYTHING)
    assert copy.do_lower_case == ours.do_lower_case


# ---- files


TEXT = "Red écru isn't the [MASK] 猫 ÉCRU?"


@pytest.mark.parametrize(
    "options", [{}, {"do_lower_case": False}, {"strip_accents": False, "model_max_length": 9}]
)
@pytest.mark.parametrize("reader", ["LxmertTokenizer", "BertTokenizerFast", "AutoTokenizer"])
def test_transformers_reads_what_we_save(tmp_path, options, reader):
    ours = LxmertTokenizer(write_small(tmp_path), **options)
    folder = tmp_path / "saved"
    files = ours.save_pretrained(folder)
    assert sorted(Path(file).name for file in files) == sorted(file.name for file in folder.iterdir())
    theirs = getattr(transformers, reader).from_pretrained(folder)
    assert_same(ours(TEXT, **EVERYTHING), theirs(TEXT, **EVERYTHING))
    assert_same(ours(TEXT, TEXT), theirs(TEXT, TEXT))
    assert theirs.model_max_length == ours.model_max_length
    assert theirs.mask_token_id == ours.mask_token_id
    (folder / "tokenizer.json").unlink()  # vocab.txt and the settings are enough
    theirs = transformers.LxmertTokenizer.from_pretrained(folder)
    assert_same(ours(TEXT, **EVERYTHING), theirs(TEXT, **EVERYTHING))


@pytest.mark.parametrize(
    "options", [{}, {"do_lower_case": False}, {"strip_accents": False, "model_max_length": 9}]
)
def test_we_read_what_transformers_saves(tmp_path, options):
    theirs = transformers.LxmertTokenizer(str(write_small(tmp_path)), **options)
    theirs.save_pretrained(tmp_path / "saved")
    for ours in (
        LxmertTokenizer.from_pretrained(tmp_path / "saved"),
        LxmertTokenizer.from_pretrained(tmp_path / "saved" / "tokenizer.json"),
    ):
        assert_same(ours(TEXT, **EVERYTHING), theirs(TEXT, **EVERYTHING))
        assert ours.do_lower_case == theirs.do_lower_case
    assert LxmertTokenizer.from_pretrained(tmp_path / "saved").model_max_length == theirs.model_max_length


def test_tokens_added_in_transformers_are_kept(tmp_path):
    theirs = transformers.LxmertTokenizer(str(write_small(tmp_path)))
    theirs.add_tokens(["[IMG]"], special_tokens=True)
    theirs.add_tokens(["two words"])
    theirs.save_pretrained(tmp_path / "saved")
    ours = LxmertTokenizer.from_pretrained(tmp_path / "saved")
    text = "the [IMG] two words [img]"
    assert_same(ours(text, padding=True, return_tensors="pt"), theirs(text, padding=True, return_tensors="pt"))
    assert (len(ours), ours.vocab_size) == (len(theirs), theirs.vocab_size)
    ids = theirs(text).input_ids
    assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
    ours.save_pretrained(tmp_path / "again")
    assert LxmertTokenizer.from_pretrained(tmp_path / "again")(text) == ours(text)
    assert transformers.LxmertTokenizer.from_pretrained(tmp_path / "again")(text).input_ids == ids


def test_a_file_a_folder_and_a_dict_give_the_same_tokenizer(tmp_path):
    path = write_small(tmp_path)
    text = "Isn't it unaffable?"
    expected = LxmertTokenizer({piece: i for i, piece in enumerate(SMALL)})(text)
    assert LxmertTokenizer(str(path))(text) == expected
    assert LxmertTokenizer.from_pretrained(path)(text) == expected
    assert LxmertTokenizer.from_pretrained(str(tmp_path))(text) == expected
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert LxmertTokenizer(path)(text) == expected


def test_settings_of_older_files_and_of_the_call_are_kept(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SMALL, "<s>"]), encoding="utf-8")
    config = {
        "do_lower_case": False,
        "clean_up_tokenization_spaces": True,
        "never_split": None,
        "model_max_length": 512,
    }
    config["cls_token"] = {"__type": "AddedToken", "content": "<s>", "lstrip": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    ours = LxmertTokenizer.from_pretrained(tmp_path)
    theirs = transformers.LxmertTokenizer.from_pretrained(tmp_path)
    assert ours.tokenize("Red isn't", add_special_tokens=True)[:2] == ["<s>", "Red"]
    assert_same(ours("Red isn't"), theirs("Red isn't"))
    assert ours.decode(ours.encode("isn't")) == theirs.decode(theirs.encode("isn't"))
    lower = LxmertTokenizer.from_pretrained(tmp_path, do_lower_case=True, model_max_length=5)
    assert lower.tokenize("Red") == ["red"]
    assert len(lower("what is the cat's color", truncation=True)["input_ids"]) == 5


def test_a_cased_tokenizer_json_stays_cased_without_its_config(tmp_path):
    cased = LxmertTokenizer(write_small(tmp_path), do_lower_case=False)
    cased.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer_config.json").unlink()
    assert LxmertTokenizer.from_pretrained(tmp_path / "saved").tokenize("Red") == ["Red"]


def test_save_vocabulary_writes_the_file_it_was_opened_from(tmp_path):
    path = write_small(tmp_path)
    (written,) = LxmertTokenizer(path).save_vocabulary(tmp_path / "new" / "folder", filename_prefix="toy")
    assert Path(written) == tmp_path / "new" / "folder" / "toy-vocab.txt"
    assert Path(written).read_bytes() == path.read_bytes()
    assert [file.name for file in Path(written).parent.iterdir()] == ["toy-vocab.txt"]


def test_a_hub_name_is_read_from_the_cache(tmp_path, monkeypatch):
    import huggingface_hub

    def fake(name, allow_patterns, **options):
        assert (name, options.pop("revision")) == ("some/model", "v1")
        asked.append(options)
        assert not any("safetensors" in pattern or "*" in pattern for pattern in allow_patterns)
        return str(tmp_path)

    asked = []
    write_small(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    assert len(LxmertTokenizer.from_pretrained("some/model", revision="v1")) == len(SMALL)
    options = {"cache_dir": "c", "token": "t", "local_files_only": True, "force_download": True}
    opened = LxmertTokenizer.from_pretrained("some/model", revision="v1", **options)
    assert asked[1] == options and not asked[0]["token"]
    assert opened.name_or_path == opened.init_kwargs["name_or_path"] == "some/model"
    assert "t" not in opened.init_kwargs.values()
    (tmp_path / "inner").mkdir()
    (tmp_path / "vocab.txt").rename(tmp_path / "inner" / "vocab.txt")
    for place in (tmp_path, "some/model"):
        assert len(LxmertTokenizer.from_pretrained(place, revision="v1", subfolder="inner")) == len(SMALL)


# ---- bad input


@pytest.mark.parametrize("name", ["no/such-model", "no/such/folder", "../missing", "missing.txt"])
def test_a_name_that_is_nothing_says_what_was_looked_for(name):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer .*no such file or folder.*hub.*Give a vocab\.txt"):
        LxmertTokenizer.from_pretrained(name)


def test_a_folder_without_a_tokenizer_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer\.json nor vocab\.txt"):
        LxmertTokenizer.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="from_pretrained"):
        LxmertTokenizer(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"cat\ndog\n", r"no special token \[UNK\], \[SEP\], \[PAD\], \[CLS\], \[MASK\]"),
        ("\n".join([*SPECIAL, "cat", "dog", "cat"]).encode(), "lines 6 and 8 hold the same piece 'cat'"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_bad_vocabulary_file_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "vocab.txt").write_bytes(content)
    for open_it in (LxmertTokenizer, LxmertTokenizer.from_pretrained):
        with pytest.raises(ValueError, match=rf"vocab\.txt: .*{message}"):
            open_it(tmp_path / "vocab.txt")


def test_a_bad_vocabulary_dict_is_refused():
    with pytest.raises(ValueError, match="empty"):
        LxmertTokenizer({})
    with pytest.raises(ValueError, match="ids must be 0 to 5"):
        LxmertTokenizer({**{token: i for i, token in enumerate(SPECIAL)}, "cat": 9})
    with pytest.raises(ValueError, match=r"no special token <s>"):
        LxmertTokenizer({token: i for i, token in enumerate(SPECIAL)}, cls_token="<s>")
    with pytest.raises(ValueError, match="line break"):
        LxmertTokenizer({token: i for i, token in enumerate([*SPECIAL, "a\nb"])}).save_vocabulary("unused")
    assert LxmertTokenizer().get_vocab() == {token: i for i, token in enumerate(SPECIAL)}


def test_bad_json_files_are_refused_by_name(tmp_path):
    write_small(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: broken or truncated JSON"):
        LxmertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"padding_side": "up"}', encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"tokenizer_config\.json: padding_side must be 'right' or 'left', got 'up'"
    ):
        LxmertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"}}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a BERT tokenizer: model.type must be 'WordPiece'"):
        LxmertTokenizer.from_pretrained(tmp_path / "tokenizer.json")


def test_a_byte_order_mark_is_no_part_of_the_first_piece(tmp_path):
    path = write_small(tmp_path)
    expected = LxmertTokenizer(path)("what is the cat")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert LxmertTokenizer(path)("what is the cat") == expected
    assert LxmertTokenizer.from_pretrained(path).pad_token_id == 0


@pytest.mark.parametrize("blank", ["", "  ", "\t"])
@pytest.mark.parametrize("line", [7, len(SMALL)])
def test_a_blank_line_in_a_vocabulary_is_named(tmp_path, blank, line):
    lines = [*SMALL]
    lines.insert(line, blank)
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in lines), encoding="utf-8")
    with pytest.raises(InputError, match=rf"vocab\.txt: line {line + 1} is blank; expected a piece on each line"):
        LxmertTokenizer(tmp_path / "vocab.txt")


TOKEN = {"id": 0, "content": "[PAD]", "special": True}


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("tokenizer_config.json", [], "must hold a JSON object, got list"),
        ("tokenizer_config.json", {"do_lower_case": "false"}, "do_lower_case must be true or false, got 'false'"),
        ("tokenizer_config.json", {"do_lower_case": 0}, "do_lower_case must be true or false, got 0"),
        ("tokenizer_config.json", {"strip_accents": "no"}, "strip_accents must be true, false or null, got 'no'"),
        ("tokenizer_config.json", {"model_max_length": "512"}, "model_max_length must be a number of tokens"),
        ("tokenizer_config.json", {"model_max_length": -1}, "model_max_length must be a number of tokens, got -1"),
        ("tokenizer_config.json", {"model_max_length": True}, "model_max_length must be a number of tokens"),
        ("tokenizer_config.json", {"model_max_length": 10**400}, "model_max_length must be a number of tokens"),
        ("tokenizer_config.json", {"cls_token": 5}, "cls_token must be a token's text, got 5"),
        ("tokenizer_config.json", {"cls_token": {"text": "[CLS]"}}, "cls_token must be a token's text, got None"),
        ("tokenizer_config.json", {"added_tokens_decoder": [TOKEN]}, "added_tokens_decoder must be an object"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"x": TOKEN}},
            "added_tokens_decoder: id 'x'; expected",
        ),
        ("tokenizer_config.json", {"added_tokens_decoder": {"0": "[PAD]"}}, "added_tokens_decoder: '.PAD.'; expe"),
        ("special_tokens_map.json", {"mask_token": None}, "mask_token must be a token's text, got None"),
        ("tokenizer.json", {"model": []}, r"model.type must be 'WordPiece', got None"),
        ("tokenizer.json", {"model.vocab": ["cat"]}, "model.vocab must be an object of piece to id"),
        ("tokenizer.json", {"model.vocab": {"cat": "0"}}, "piece .cat. with id .0.; expected a text"),
        ("tokenizer.json", {"model.vocab": {"cat": False}}, "piece .cat. with id False; expected"),
        ("tokenizer.json", {"model.vocab": {"": 0}}, "piece .. with id 0; expected a text"),
        ("tokenizer.json", {"model.unk_token": 1}, "unk_token must be a token's text, got 1"),
        ("tokenizer.json", {"normalizer.lowercase": None}, "do_lower_case must be true or false, got None"),
        ("tokenizer.json", {"added_tokens": {"0": TOKEN}}, "added_tokens must be a list"),
        ("tokenizer.json", {"added_tokens": [TOKEN, TOKEN]}, "added_tokens: id 0; expected a whole number, each"),
        ("tokenizer.json", {"added_tokens": [TOKEN | {"id": -1}]}, "added_tokens: id -1; expected"),
        ("tokenizer.json", {"added_tokens": [TOKEN | {"lstrip": 1}]}, "added_tokens: .*expected an object with"),
        (
            "tokenizer.json",
            {"added_tokens": [TOKEN | {"colour": True}]},
            "added_tokens: .*expected an object with",
        ),
    ],
)
def test_a_value_of_another_type_in_a_tokenizers_file_is_named(small, tmp_path, file, change, message):
    folder = tmp_path / "saved"
    small.save_pretrained(folder)
    values = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    for key, value in change.items() if isinstance(change, dict) else ():
        *parts, last = key.split(".")
        (values[parts[0]] if parts else values)[last] = value
    if file == "tokenizer.json":
        (folder / "tokenizer_config.json").unlink()  # what it says would go before
    (folder / file).write_text(json.dumps(values if isinstance(change, dict) else change))
    with pytest.raises(InputError, match=rf"{folder / file}: .*{message}") as error:
        LxmertTokenizer.from_pretrained(folder)
    assert len(str(error.value)) < 1000


def test_truncation_without_a_length_does_nothing_and_says_so_once(small, caplog):
    tokenization.tokenizer.warn_no_length.cache_clear()
    for _ in range(2):
        assert small("a cat is", truncation=True) == small("a cat is")
    assert ["truncation has no effect without a length" in text for text in caplog.messages] == [True]


def test_a_longest_length_that_no_memory_holds_is_refused(small):
    with pytest.raises(ValueError, match=f"cannot truncate or pad to {2**40}: give max_length"):
        small("a", padding="max_length", max_length=2**40)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((None,), {}, TypeError, "got NoneType"),
        (({"text": "a"},), {}, TypeError, "got dict"),
        ((b"a",), {}, TypeError, "got bytes"),
        ((np.array(["a"]),), {}, TypeError, "got ndarray"),
        (([],), {}, ValueError, "empty"),
        ((["a", None],), {}, TypeError, "text 1 must be a str or a pair of str, got None"),
        ((["a", "\ud800"],), {}, TypeError, "text 1 is not valid Unicode"),
        ((["a", "b"], "c"), {}, TypeError, "list and str"),
        ((["a", "b"], ["c"]), {}, ValueError, "2 texts but 1 of text_pair"),
        ((["a", "b c"],), {"return_tensors": "pt"}, ValueError, "no tensor of 3 to 4 tokens"),
        (("a",), {"return_tensors": "tf"}, ValueError, "return_tensors must be"),
        (("a",), {"padding": "max_length"}, ValueError, "give max_length="),
        (("a",), {"truncation": "first"}, ValueError, "truncation must be True, False or one of longest_first"),
        (("a",), {"padding": "left"}, ValueError, "padding must be True, False or one of longest"),
        (("a",), {"truncation": True, "max_length": -1}, ValueError, "cannot truncate or pad to -1"),
        (("a",), {"truncation": True, "max_length": 1}, ValueError, "no room for the special tokens"),
        (("a", "b"), {"truncation": True, "max_length": 2}, ValueError, "no room for the special tokens"),
        (("a",), {"padding": True, "max_length": 3}, ValueError, "give truncation=True"),
        (("a cat is",), {"truncation": "only_second", "max_length": 4}, ValueError, "max_length=4"),
        (("a",), {"bogus": 1}, TypeError, "bogus"),
    ],
)
def test_bad_calls_raise_one_clear_error(small, arguments, options, error, message):
    with pytest.raises(error, match=message):
        small(*arguments, **options)


def test_negative_ids_are_explained(small):
    with pytest.raises(ValueError, match=r"put pad_token_id \(0\) for ignored labels"):
        small.decode([5, -100])


# ------------------------------------------------------- special tokens that somebody typed into a question


@functools.cache
def without_special_tokens(tokenizer):
    plain = pickle.loads(pickle.dumps(tokenizer))
    plain.split_special_tokens = True  # it finds none: all is text
    return plain


def as_the_original(tokenizer, text):
    """Pieces by the original's rules: of the words between spaces, a special token's name is that token."""
    plain = without_special_tokens(tokenizer)
    kept = [c for c in text if c in "\t\n\r" or not unicodedata.category(c).startswith("C")]
    clean = "".join(" " if c in "\t\n\r" or unicodedata.category(c) == "Zs" else c for c in kept)
    if tokenizer.tokenize_chinese_chars:
        clean = re.sub("([\u4e00-\u9fff])", r" \1 ", clean)
    return [p for word in clean.split() for p in ([word] if word in SPECIAL else plain.tokenize(word))]


parts = st.sampled_from([*WORDS, *SPECIAL, "[mask]", *" \u00a0\u2028\t\x00?é猫["])


@quick
@given(text=st.lists(parts, max_size=8).map("".join))
def test_special_tokens_in_a_question_are_special_where_they_were_in_the_original(both, text):
    ours, _ = both
    (typed,) = ours.as_typed([text])
    assert ours.tokenize(typed) == as_the_original(ours, text)


def test_a_special_token_that_touches_something_is_text(small):
    texts = ["what is [MASK]?", "what is [MASK] ?", "is it red[SEP]", "[[CLS]]", "[MASK][MASK]", "猫[MASK]"]
    pieces = [" ".join(small.tokenize(text)) for text in small.as_typed(texts)]
    mask = "[ m ##a ##s ##k ]"
    assert pieces == [
        f"what is {mask} ?", "what is [MASK] ?", "is it red [ s ##e ##p ]", "[ [ c ##l ##s ] ]", f"{mask} {mask}",
        "猫 [MASK]",
    ]  # fmt: skip
    assert small.tokenize(texts[0]) == ["what", "is", "[MASK]", "?"]  # a call alone does as the reference
    untouched = ["what is it?", "[mask]"]
    assert small.as_typed(untouched) is untouched
