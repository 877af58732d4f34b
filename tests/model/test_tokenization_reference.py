"""Code written for transformers' tokenizer: the same calls on both, which give the same or which ours refuses."""

import copy
import json
import os
import pickle
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported
transformers = pytest.importorskip("transformers")

from tokenizers import AddedToken  # noqa: E402

from lxmert.files import InputError  # noqa: E402
from lxmert.tokenization import BatchEncoding, LxmertTokenizer  # noqa: E402

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "what",
    "is",
    "the",
    "cat",
    "color",
    "of",
    "it",
    "isn",
    "red",
    "écru",
    "猫",
    "un",
    "aff",
    "able",
    "?",
    "!",
]
VOCAB = [*SPECIAL, *WORDS, *"abcdefghijklmnopqrstuvwxyz'[]", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
VOCAB = {piece: i for i, piece in enumerate(dict.fromkeys([*VOCAB, "##able", "##aff"]))}

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
word = st.sampled_from([*WORDS, *SPECIAL, "unaffable", "cats", "Isn't", "zebra", "ß", "x" * 101, " ", "\x00"])
sentence = st.lists(word | st.text(max_size=6), max_size=8).map(" ".join)
words = st.lists(word | st.text(max_size=6), max_size=6)


def make_both(**options):
    return LxmertTokenizer(VOCAB, **options), transformers.LxmertTokenizer(dict(VOCAB), **options)


@pytest.fixture
def both():
    return make_both()


def as_lists(encoding):
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in encoding.items()}


def assert_same(ours, theirs):
    assert list(ours) == list(theirs)
    assert as_lists(ours) == as_lists(theirs)
    for key in ours:
        assert type(ours[key]) is type(theirs[key])


# ---- calls

FLAGS = st.fixed_dictionaries(
    {},
    optional={
        "add_special_tokens": st.booleans(),
        "return_token_type_ids": st.booleans(),
        "return_attention_mask": st.booleans(),
        "return_special_tokens_mask": st.booleans(),
        "return_offsets_mapping": st.booleans(),
        "return_length": st.booleans(),
        "split_special_tokens": st.booleans(),
    },
)
LENGTHS = st.fixed_dictionaries(
    {"truncation": st.sampled_from([True, False, "longest_first", "only_first", "only_second"])},
    optional={
        "padding": st.sampled_from([True, False, "max_length", "longest", "do_not_pad"]),
        "max_length": st.integers(4, 16),
        "stride": st.integers(0, 3),
        "pad_to_multiple_of": st.sampled_from([None, 2, 8]),
        "padding_side": st.sampled_from([None, "left", "right"]),
        "return_overflowing_tokens": st.booleans(),
        "return_tensors": st.sampled_from([None, "np", "pt"]),
    },
)


@st.composite
def inputs(draw):
    """Texts, pairs or words, one or a batch, and whether they are words."""
    is_words = draw(st.booleans())
    one = words if is_words else sentence
    many = st.lists(one, min_size=1, max_size=4)
    kind = draw(st.sampled_from(["one", "pair", "many", "pairs", "list of pairs"]))
    if kind in ("one", "pair"):
        return draw(one), draw(one) if kind == "pair" else None, is_words
    texts = draw(many)
    if kind == "many":
        return texts, None, is_words
    second = draw(st.lists(one, min_size=len(texts), max_size=len(texts)))
    if kind == "pairs":
        return texts, second, is_words
    return list(zip(texts, second, strict=True)), None, is_words


@pytest.fixture(scope="module")
def of_each_side():
    sides = ("right", "left")
    return {(p, t): make_both(padding_side=p, truncation_side=t) for p in sides for t in sides}


@quick
@given(
    given_text=inputs(),
    flags=FLAGS,
    lengths=LENGTHS,
    sides=st.tuples(st.sampled_from(["right", "left"]), st.sampled_from(["right", "left"])),
)
def test_any_call_gives_the_same_or_is_refused(of_each_side, given_text, flags, lengths, sides):
    (text, pair, is_words), (ours, theirs) = given_text, of_each_side[sides]
    options = {**flags, **lengths, "is_split_into_words": is_words}
    try:
        found = ours(text, pair, **options)
    except ValueError as error:
        message = str(error)
        known = ("cannot truncate", "no effect", "no multiple", "leaves no room", "no tensor of", "stride=")
        assert any(part in message for part in known), message
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of max_length without truncation
        expected = theirs(text, pair, **options)
    assert_same(found, expected)
    for i, (mine, other) in enumerate(zip(found.encodings, expected.encodings, strict=True)):
        assert mine.ids == other.ids and mine.tokens == other.tokens and mine.offsets == other.offsets
        assert found.tokens(i) == expected.tokens(i)
        assert found.word_ids(i) == expected.word_ids(i)
        assert found.sequence_ids(i) == expected.sequence_ids(i)
    assert found.n_sequences == expected.n_sequences


@quick
@given(texts=st.lists(st.tuples(sentence, sentence), min_size=1, max_size=3), paired=st.booleans())
def test_where_tokens_words_and_characters_lie_equals_transformers(of_each_side, texts, paired):
    ours, theirs = of_each_side["left", "right"]
    first, second = [a for a, _ in texts], [b for _, b in texts] if paired else None
    mine, other = ours(first, second, padding=True), theirs(first, second, padding=True)
    for row in range(len(texts)):
        for place in range(12):
            for name in ("token_to_sequence", "token_to_word", "token_to_chars"):
                assert getattr(mine, name)(row, place) == getattr(other, name)(row, place)
            for name in ("word_to_tokens", "char_to_token", "char_to_word"):
                for sequence in range(1 + paired):
                    args = (row, place, sequence)
                    assert getattr(mine, name)(*args) == getattr(other, name)(*args)
    for word_ in {w for w in mine.word_ids(0) if w is not None and mine.sequence_ids(0)[0] == 0}:
        assert mine.word_to_chars(word_) == other.word_to_chars(word_)
    assert type(mine.word_to_tokens(0)) is type(None) or mine.word_to_tokens(0).start >= 0
    last = len(mine.tokens()) - 1
    assert mine.token_to_word(-1) == mine.token_to_word(0, last) == mine.token_to_word(-len(texts), -1)


@quick
@given(given_text=inputs(), options=st.fixed_dictionaries({"add_special_tokens": st.booleans()}))
def test_encode_and_tokenize_equal_transformers(both, given_text, options):
    (text, pair, is_words), (ours, theirs) = given_text, both
    options = {**options, "is_split_into_words": is_words}
    assert ours.encode(text, pair, **options) == theirs.encode(text, pair, **options)
    if len(ours(text, pair, **options).encodings) == 1:
        assert ours.tokenize(text, pair, **options) == theirs.tokenize(text, pair, **options)


def test_tokenize_refuses_several_sentences_of_which_the_reference_drops_all_but_the_first(both):
    ours, theirs = both
    assert theirs.tokenize(["the cat", "red"]) == ["the", "cat"]
    with pytest.raises(TypeError, match="one sentence"):
        ours.tokenize(["the cat", "red"])


def test_enumerations_of_transformers_are_read(both):
    from transformers.tokenization_utils_base import TruncationStrategy
    from transformers.utils import PaddingStrategy, TensorType

    ours, theirs = both
    options = {
        "padding": PaddingStrategy.MAX_LENGTH,
        "truncation": TruncationStrategy.ONLY_FIRST,
        "return_tensors": TensorType.PYTORCH,
        "max_length": 6,
    }
    assert_same(ours("the red cat is it", **options), theirs("the red cat is it", **options))


def test_what_a_call_returns_follows_model_input_names(both):
    ours, theirs = both
    for tokenizer in both:
        tokenizer.model_input_names = ["input_ids"]
    assert list(ours("cat")) == list(theirs("cat")) == ["input_ids"]
    assert_same(ours("cat", return_attention_mask=True), theirs("cat", return_attention_mask=True))
    ours, theirs = make_both(model_input_names=["input_ids", "attention_mask"])
    assert ours.model_input_names == theirs.model_input_names
    assert_same(ours("cat"), theirs("cat"))


def test_a_row_longer_than_the_model_takes_is_warned_of_once(caplog):
    ours, _ = make_both(model_max_length=4)
    ours("the red cat is", verbose=False)
    ours("the cat")
    assert not caplog.messages
    ours("the red cat is")
    ours("the red cat is")
    assert [message for message in caplog.messages if "6 tokens, more than the 4" in message] == caplog.messages
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 2}, "stride=2 has no effect: give truncation"),
        ({"stride": -1, "truncation": True, "max_length": 9}, "stride must be a number of tokens"),
        ({"stride": 3, "truncation": True, "max_length": 5}, "stride=3 must be less"),
        ({"pad_to_multiple_of": 8}, "no effect: give padding=True"),
        ({"padding_side": "left"}, "no effect: give padding=True"),
        ({"padding_side": "up", "padding": True}, "padding_side must be 'right' or 'left'"),
        ({"pad_to_multiple_of": 0, "padding": True}, "whole number above 0"),
        ({"pad_to_multiple_of": 8, "padding": True, "truncation": True, "max_length": 9}, "no multiple of"),
        ({"return_tensors": "mlx"}, "return_tensors must be"),
    ],
)
def test_options_without_effect_are_refused(both, options, message):
    with pytest.raises(ValueError, match=message):
        both[0]("the cat is red", **options)


def test_a_stride_that_a_pair_leaves_no_room_for_is_a_value_error(both):
    with pytest.raises(ValueError, match=r"cannot truncate to max_length=6.*stride"):
        both[0]("the cat is red", "what is it", truncation=True, max_length=6, stride=2)


def test_text_that_is_not_words_is_refused(both):
    ours, _ = both
    for text in ("the cat", ["the", 1], [["the"], "cat"], [["the"], None]):
        with pytest.raises(TypeError, match="list of words"):
            ours(text, is_split_into_words=True)


# ---- pad


def is_ragged(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "O"


ids = st.lists(st.integers(0, 40), max_size=6)


@quick
@given(
    rows=st.lists(ids, min_size=1, max_size=4),
    names=st.sets(st.sampled_from(["attention_mask", "token_type_ids", "special_tokens_mask", "labels"])),
    form=st.sampled_from(["examples", "columns", "encoding", "one"]),
    kind=st.sampled_from([None, "np", "pt"]),
    sides=st.tuples(st.sampled_from(["right", "left"]), st.just("right")),
    options=st.fixed_dictionaries(
        {},
        optional={
            "padding": st.sampled_from([True, False, "longest", "max_length"]),
            "max_length": st.integers(0, 9),
            "pad_to_multiple_of": st.sampled_from([None, 4]),
            "padding_side": st.sampled_from([None, "left", "right"]),
            "return_attention_mask": st.sampled_from([None, True, False]),
            "return_tensors": st.sampled_from([None, "np", "pt"]),
        },
    ),
)
def test_padding_what_is_encoded_equals_transformers(of_each_side, rows, names, form, kind, sides, options):
    def made():  # anew for each: the reference changes what it is given
        examples = [{"input_ids": row, **{n: [1] * len(row) for n in sorted(names - {"labels"})}} for row in rows]
        for example in examples if "labels" in names else ():
            example["labels"] = 1
        if kind == "np":
            examples = [{k: np.array(v, dtype=np.int64) for k, v in e.items()} for e in examples]
        if kind == "pt":
            examples = [{k: torch.tensor(v, dtype=torch.int64) for k, v in e.items()} for e in examples]
        if form == "one":
            return {k: v for k, v in examples[0].items() if k != "labels"}
        if form == "examples":
            return examples
        columns = {k: [e[k] for e in examples] for k in examples[0]}
        return transformers.BatchEncoding(columns) if form == "encoding" else columns

    ours, theirs = of_each_side[sides]
    given_ours = made()
    if form == "encoding":
        given_ours = BatchEncoding(given_ours)
    before = copy.deepcopy(given_ours)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = theirs.pad(made(), **options)
    except Exception:  # ValueError, AttributeError, IndexError, ...
        expected = None
    try:
        found = ours.pad(given_ours, **options)
    except (ValueError, TypeError) as error:
        known = ("no effect", "no tensor of", "leave it out", "give max_length=")
        assert any(part in str(error) for part in known), error
    else:
        if expected is not None and not any(is_ragged(v) for v in expected.values()):
            assert_same(found, expected)
    assert repr(given_ours) == repr(before)


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        ("the cat", {}, TypeError, "give an encoding or a list of encodings, got str"),
        ([], {}, ValueError, "the list is empty"),
        ([{"labels": [1]}], {}, ValueError, "must have input_ids, this has labels"),
        ([{"input_ids": [1]}, {"input_ids": [1], "labels": 1}], {}, ValueError, "example 1 has input_ids, labels"),
        ({"input_ids": [[1], [1, 2]], "labels": [1]}, {}, ValueError, "1 of labels but 2 rows"),
        ([{"input_ids": [1], "attention_mask": [1, 1]}, {"input_ids": [1, 2], "attention_mask": [1, 1]}], {},
         ValueError, "example 0: attention_mask must be a list as long as input_ids"),
        ([{"input_ids": [1]}], {"padding": True, "max_length": 3}, ValueError, "no effect"),
        ([{"input_ids": [1]}], {"padding": "max_length"}, ValueError, "give max_length="),
        ([{"input_ids": [1], "x": "a"}], {"return_tensors": "pt"}, ValueError, "no tensor of x"),
    ],
)  # fmt: skip
def test_what_cannot_be_padded_is_named(both, inputs, options, error, message):
    with pytest.raises(error, match=message):
        both[0].pad(inputs, **options)


# ---- transformers' data collators with our tokenizer


def both_collated(both, make, examples):
    found = []
    for tokenizer in both:
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)
        found.append(make(tokenizer)(copy.deepcopy([dict(e) for e in examples(tokenizer)])))
    return found


TEXTS = ["the red cat", "what color is it ?", "it"]
COLLATORS = {
    "with padding": lambda t: transformers.DataCollatorWithPadding(t, pad_to_multiple_of=4),
    "to a length": lambda t: transformers.DataCollatorWithPadding(t, padding="max_length", max_length=9),
    "np": lambda t: transformers.DataCollatorWithPadding(t, return_tensors="np"),
    "masked words": lambda t: transformers.DataCollatorForLanguageModeling(t, mlm_probability=0.5, seed=1),
    "masked whole words": lambda t: transformers.DataCollatorForLanguageModeling(
        t, mlm_probability=0.5, seed=1, whole_word_mask=True
    ),
    "masked words, np": lambda t: transformers.DataCollatorForLanguageModeling(
        t, mlm_probability=0.5, seed=1, return_tensors="np"
    ),
    "causal": lambda t: transformers.DataCollatorForLanguageModeling(t, mlm=False),
}


@pytest.mark.parametrize("name", COLLATORS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_data_collators_of_transformers_work(name, side):
    options = {}
    if "whole" in name:
        options = {"return_offsets_mapping": True, "padding": "max_length", "max_length": 8}
    ours, theirs = both_collated(
        make_both(padding_side=side), COLLATORS[name], lambda t: [t(text, **options) for text in TEXTS]
    )
    assert_same(ours, theirs)
    assert ours["input_ids"].shape[0] == 3


def test_labels_are_collated_with_the_padding_side(both):
    def examples(tokenizer):
        return [{**tokenizer(text), "labels": tokenizer(text)["attention_mask"]} for text in TEXTS]

    for side in ("right", "left"):
        for tokenizer in both:
            tokenizer.padding_side = side
        ours, theirs = both_collated(both, transformers.DataCollatorForTokenClassification, examples)
        assert_same(ours, theirs)


def test_a_torch_loader_collates_encodings(both):
    ours, _ = both
    loader = torch.utils.data.DataLoader(
        [ours("the red cat"), ours("the red cat")],
        batch_size=2,
    )
    (batch,) = loader
    assert isinstance(batch, BatchEncoding) and len(batch["input_ids"]) == 5


# ---- encodings


def test_an_encoding_is_read_like_the_references(both):
    ours, theirs = (t(["the cats", "red"], ["it", "is it"], padding=True) for t in both)
    assert ours[0].tokens == theirs[0].tokens and len(ours[0:2]) == len(theirs[0:2]) == 2
    assert ours.data["input_ids"] == theirs.data["input_ids"]
    assert (ours | {"labels": 1})["labels"] == 1 and "labels" not in ours
    assert (ours | {"labels": 1}).word_ids(1) == theirs.word_ids(1)
    assert ours.copy().word_ids() == copy.deepcopy(ours).word_ids() == theirs.word_ids()
    assert pickle.loads(pickle.dumps(ours)).word_ids() == theirs.word_ids()
    assert dict(**ours) == dict(**theirs) and ours.is_fast and theirs.is_fast
    plain, other = (b({"input_ids": [[1, 2], [3, 4]]}) for b in (BatchEncoding, transformers.BatchEncoding))
    assert plain[0:1] == other[0:1] and not plain.is_fast and plain.encodings is other.encodings is None
    with pytest.raises(KeyError, match="without encodings"):
        plain[0]
    for ask in (plain.tokens, plain.word_ids, plain.sequence_ids):
        with pytest.raises(ValueError, match="does not know its texts"):
            ask()


@pytest.mark.parametrize("kind", ["pt", "np"])
@pytest.mark.parametrize(
    "data",
    [
        {"a": [[1, 2], [3, 4]], "b": [0.5, 1.0], "c": [True, False], "d": []},
        {"a": [np.array([1.0, 2.0]), np.array([3.0, 4.0])], "b": 3},
        {"a": torch.tensor([1, 2]), "b": [[], []]},
    ],
)
@pytest.mark.parametrize("axis", [False, True])
def test_tensors_of_an_encoding_equal_transformers(data, kind, axis):
    try:
        expected = transformers.BatchEncoding(dict(data)).convert_to_tensors(kind, prepend_batch_axis=axis)
    except ValueError:
        return
    ours = BatchEncoding(dict(data), tensor_type=kind, prepend_batch_axis=axis)
    assert_same(ours, expected)
    assert all(ours[key].dtype == expected[key].dtype and ours[key].shape == expected[key].shape for key in data)


def test_ragged_values_are_no_tensor_and_a_move_is_in_place():
    with pytest.raises(ValueError, match=r"no tensor of labels.*padding=True"):
        BatchEncoding({"input_ids": [[1]], "labels": [[1], [1, 2]]}, tensor_type="pt")
    encoding = BatchEncoding({"input_ids": [[1]], "note": "a"}).convert_to_tensors("np")
    assert encoding["input_ids"].dtype == np.int64
    moved = BatchEncoding({"input_ids": torch.ones(1), "note": "a"})
    assert moved.to("meta") is moved and moved.input_ids.device.type == "meta" and moved["note"] == "a"
    with pytest.raises(TypeError, match="takes a device"):
        moved.to(torch.float16)


# ---- tokens of one's own


def assert_equal_tokenizers(
    ours, theirs, texts=("the zebra [IMG] cats isn't red it", "[MASK] <s> écru"), saved=False
):
    for name in (
        "special_tokens_map", "all_special_tokens", "all_special_ids", "extra_special_tokens", "padding_side",
        "truncation_side", "vocab_size", "vocab", "model_max_length", "max_len_single_sentence",
        "max_len_sentences_pair", "pad_token_type_id", "model_input_names",
        *ours.SPECIAL_TOKENS_ATTRIBUTES, *(f"{name}_id" for name in ours.SPECIAL_TOKENS_ATTRIBUTES),
    ):  # fmt: skip
        assert getattr(ours, name) == getattr(theirs, name), name
    assert len(ours) == len(theirs) and ours.get_added_vocab() == theirs.get_added_vocab()
    flags = [{i: t.__getstate__() for i, t in each.added_tokens_decoder.items()} for each in (ours, theirs)]
    assert flags[0] == flags[1]
    for text in texts:
        options = {"return_special_tokens_mask": True, "return_offsets_mapping": True}
        assert_same(ours([text, "a"], padding=True, **options), theirs([text, "a"], padding=True, **options))
        found = theirs(text).input_ids
        for skip in (True, False):
            assert ours.decode(found, skip_special_tokens=skip) == theirs.decode(found, skip_special_tokens=skip)
            tokens = theirs.convert_ids_to_tokens(found, skip_special_tokens=skip)
            assert ours.convert_ids_to_tokens(found, skip_special_tokens=skip) == tokens
        mask = theirs.get_special_tokens_mask(found, already_has_special_tokens=True)
        assert ours.get_special_tokens_mask(found, already_has_special_tokens=True) == mask


token = st.sampled_from(["zebra", "cat", "the", "[IMG]", "<s>", "isn't", "RED", "two words", "##s", "écru"])
added_token = token | st.builds(
    AddedToken,
    token,
    lstrip=st.booleans(),
    rstrip=st.booleans(),
    single_word=st.booleans(),
    normalized=st.booleans(),
)
change = st.one_of(
    st.tuples(st.just("add_tokens"), st.lists(added_token, max_size=3), st.booleans()),
    st.tuples(
        st.just("add_special_tokens"),
        st.dictionaries(
            st.sampled_from(["pad_token", "mask_token", "bos_token", "eos_token"]), added_token, max_size=2
        ),
        st.booleans(),
    ),
    st.tuples(
        st.just("add_special_tokens"),
        st.builds(lambda tokens: {"extra_special_tokens": tokens}, st.lists(added_token, max_size=3)),
        st.booleans(),
    ),
)


@quick
@given(changes=st.lists(change, max_size=3), texts=st.lists(sentence, min_size=1, max_size=2))
def test_added_tokens_equal_transformers(both, changes, texts):
    ours, theirs = make_both()
    for name, value, flag in changes:
        assert getattr(ours, name)(value, flag) == getattr(theirs, name)(value, flag)
    assert_equal_tokenizers(ours, theirs, [*texts, "the zebra [IMG] two  words <s> RED cats isn't"])


def test_adding_tokens_changes_the_hash_and_a_call_goes_on():
    ours, _ = make_both()
    before, encoding = ours.sha256, ours("the zebra")
    assert ours.add_tokens("zebra") == 1 and ours.sha256 != before
    assert encoding.tokens() == LxmertTokenizer(VOCAB)("the zebra").tokens()  # made before, asked for later
    assert ours.tokenize("the zebra") == ["the", "zebra"]
    assert LxmertTokenizer(VOCAB).sha256 == before


def test_the_hash_is_what_checkpoints_carry():
    assert LxmertTokenizer().sha256 == "6b5d09ef8b5022c1dff1f08e35d86e9852efbf8f73556e59f2f5677f20981dd1"
    assert (
        LxmertTokenizer(VOCAB, do_lower_case=False).sha256
        == "8fa4b8c674857e5182c6c67ff6f2d317565dec6d1e9e4cb6ba5cde84e4c5e044"
    )


@pytest.mark.parametrize("name", ["pad_token", "mask_token"])
def test_an_assigned_special_token_counts(both, name):
    ours, theirs = both
    before = ours.sha256
    for tokenizer in both:
        setattr(tokenizer, name, "cat")
    assert getattr(ours, f"{name}_id") == VOCAB["cat"] and ours.sha256 != before
    assert_equal_tokenizers(ours, theirs)
    for tokenizer in both:
        setattr(tokenizer, f"{name}_id", 9)
    assert_equal_tokenizers(ours, theirs)
    for tokenizer in both:
        setattr(tokenizer, name, None)
    assert getattr(ours, name) is getattr(ours, f"{name}_id") is None
    assert ours.special_tokens_map == theirs.special_tokens_map
    if name == "pad_token":
        for pad in (lambda: ours(["a"], padding=True), lambda: ours.pad({"input_ids": [[1]]})):
            with pytest.raises(ValueError, match="no pad_token"):
                pad()


def test_what_assignment_cannot_do_is_refused_and_nothing_changed(both):
    ours, _ = both
    before = pickle.dumps(ours)
    for name, value, error, message in [
        ("mask_token", "zebra", ValueError, "'zebra' is not in the vocabulary; tokenizer.add_special_tokens"),
        ("mask_token", 5, InputError, "must be a token's text, got 5"),
        ("mask_token_id", 10**6, ValueError, "no token has the id"),
        ("mask_token_id", "cat", ValueError, "no token has the id"),
        ("cls_token", "cat", ValueError, r"cls_token cannot be changed: calls would go on putting \[CLS\]"),
        ("sep_token", "zebra", ValueError, "sep_token cannot be changed"),
        ("unk_token", "cat", ValueError, "unk_token cannot be changed"),
        ("cls_token", None, InputError, "must be a token's text, got None"),
        ("do_lower_case", False, AttributeError, "do_lower_case cannot be changed"),
        ("strip_accents", True, AttributeError, "strip_accents cannot be changed"),
        ("padding_side", "up", InputError, "must be 'right' or 'left'"),
        ("truncation_side", None, InputError, "must be 'right' or 'left'"),
        ("model_max_length", "9", InputError, "must be a number of tokens"),
        ("model_input_names", "input_ids", InputError, "must be a list of names"),
        ("extra_special_tokens", ["zebra"], ValueError, "not in the vocabulary"),
        ("max_len_single_sentence", 3, AttributeError, "max_len_single_sentence|no setter"),
    ]:
        with pytest.raises(error, match=message):
            setattr(ours, name, value)
    for given_tokens, message in [
        ({"cls_token": "zebra"}, r"cls_token cannot be changed.*Open the tokenizer with cls_token='zebra'"),
        ({"pad_token": "zebra", "image_token": "[IMG]"}, "no special token is called 'image_token'"),
        ({"pad_token": "zebra", "mask_token": 3}, "must be a token's text"),
        ({"extra_special_tokens": "zebra"}, "must be a list"),
        ({"bos_token": None}, "None is no token"),
    ]:
        with pytest.raises(ValueError, match=message):
            ours.add_special_tokens(given_tokens)
    with pytest.raises(TypeError, match="must be a str or an AddedToken"):
        ours.add_tokens(["zebra", 3])
    assert pickle.dumps(ours) == before
    ours.cls_token = "[CLS]"  # no change
    ours.model_max_length = None
    assert ours.model_max_length == both[1].model_max_length


def test_a_subclass_may_pad_elsewhere():
    class Left(LxmertTokenizer):
        padding_side = "left"

    assert Left(VOCAB)(["a", "the cat"], padding=True).attention_mask[0] == [0, 1, 1, 1]
    assert Left(VOCAB, padding_side="right").padding_side == "right"
    one, other = Left(VOCAB), Left(VOCAB)
    one.model_input_names.remove("token_type_ids")
    assert "token_type_ids" in other("a") and "token_type_ids" not in one("a")


# ---- files


def changed(tokenizer):
    tokenizer.add_tokens(["zebra", AddedToken("two words", lstrip=True)])
    tokenizer.add_special_tokens({"extra_special_tokens": ["[IMG]"], "bos_token": "<s>"})
    tokenizer.mask_token = "[IMG]"
    return tokenizer


OPTIONS = {"padding_side": "left", "truncation_side": "left", "model_max_length": 7, "do_lower_case": False}


@pytest.mark.parametrize("reader", ["LxmertTokenizer", "BertTokenizerFast", "AutoTokenizer"])
@pytest.mark.parametrize("legacy", [None, False, True])
def test_transformers_opens_what_we_save(tmp_path, reader, legacy):
    ours = changed(make_both(**OPTIONS)[0])
    files = ours.save_pretrained(tmp_path / "saved", legacy_format=legacy)
    assert ("vocab.txt" in [os.path.basename(file) for file in files]) == (legacy is not False)  # noqa: PTH119
    theirs = getattr(transformers, reader).from_pretrained(tmp_path / "saved")
    assert_equal_tokenizers(ours, theirs)
    assert_same(
        ours("the red cat is zebra two words", truncation=True),
        theirs("the red cat is zebra two words", truncation=True),
    )
    again = LxmertTokenizer.from_pretrained(tmp_path / "saved")
    assert_equal_tokenizers(again, theirs)
    assert again.sha256 == ours.sha256
    if legacy is not False:
        (tmp_path / "saved" / "tokenizer.json").unlink()
        assert_equal_tokenizers(LxmertTokenizer.from_pretrained(tmp_path / "saved"), theirs)
        assert_equal_tokenizers(ours, transformers.LxmertTokenizer.from_pretrained(tmp_path / "saved"))


def test_we_open_what_transformers_saves(tmp_path):
    theirs = changed(make_both(**OPTIONS)[1])
    theirs.save_pretrained(tmp_path)
    ours, theirs = (c.from_pretrained(tmp_path) for c in (LxmertTokenizer, transformers.LxmertTokenizer))
    assert_equal_tokenizers(ours, theirs)
    assert ours.padding_side == "left"


def test_the_sides_that_a_call_of_transformers_left_in_tokenizer_json_count(tmp_path):
    _, theirs = make_both()
    theirs.padding_side = theirs.truncation_side = "left"
    theirs(TEXTS, padding=True, truncation=True, max_length=6)
    theirs.save_pretrained(tmp_path)
    again = transformers.LxmertTokenizer.from_pretrained(tmp_path)
    ours = LxmertTokenizer.from_pretrained(tmp_path)
    assert (ours.padding_side, ours.truncation_side) == (again.padding_side, again.truncation_side)
    assert_same(ours(TEXTS, padding=True), again(TEXTS, padding=True))


def write_folder(folder, vocab=VOCAB, **files):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocab), encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


MASK = {"content": "[MASK]", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
BEYOND = {str(len(VOCAB)): {**MASK, "content": "[IMG]", "special": True, "lstrip": False}}


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"padding_side": "left", "truncation_side": "left", "max_len": 6}},
        {"added_tokens": {"zebra": len(VOCAB), "[IMG]": len(VOCAB) + 1}},
        {
            "added_tokens": {"zebra": len(VOCAB), "[IMG]": len(VOCAB) + 1},
            "special_tokens_map": {"additional_special_tokens": ["[IMG]"], "mask_token": MASK},
        },
        {"special_tokens_map": {"mask_token": MASK}},
        {"special_tokens_map": {"mask_token": "cat"}, "tokenizer_config": {"mask_token": "[MASK]"}},
        {
            "special_tokens_map": {"mask_token": "cat"},
            "tokenizer_config": {"mask_token": "[MASK]", "added_tokens_decoder": BEYOND},
        },
        {"tokenizer_config": {"additional_special_tokens": ["[IMG]"], "extra_special_tokens": {}}},
        {"tokenizer_config": {"extra_special_tokens": ["[IMG]"], "added_tokens_decoder": BEYOND}},
        {"tokenizer_config": {"model_input_names": ["input_ids"], "split_special_tokens": True}},
        {"tokenizer_config": {"mask_token": {"__type": "AddedToken", **MASK}, "never_split": None, "x": 1}},
    ],
)
def test_folders_of_older_versions_open_as_in_transformers(tmp_path, files):
    folder = write_folder(tmp_path, **files)
    ours, theirs = (c.from_pretrained(folder) for c in (LxmertTokenizer, transformers.LxmertTokenizer))
    assert_equal_tokenizers(ours, theirs)


def test_arguments_of_from_pretrained_go_before_the_files(tmp_path, caplog):
    folder = write_folder(tmp_path, tokenizer_config={"padding_side": "right", "model_max_length": 5})
    options = {
        "padding_side": "left", "truncation_side": "left", "model_max_length": 6, "pad_token": "cat",
        "use_fast": True, "trust_remote_code": False, "extra_special_tokens": ["[IMG]"],
    }  # fmt: skip
    ours, theirs = (c.from_pretrained(folder, **options) for c in (LxmertTokenizer, transformers.LxmertTokenizer))
    assert_equal_tokenizers(ours, theirs)
    assert not [m for m in caplog.messages if "no such setting" in m]
    assert ours.name_or_path == theirs.name_or_path == str(folder)
    assert ours.init_kwargs["padding_side"] == theirs.init_kwargs["padding_side"] == "left"
    ours = LxmertTokenizer.from_pretrained(folder, do_basic_tokenize=True, colour="red")
    assert ours.init_kwargs["colour"] == "red"
    assert [m for m in caplog.messages if "do_basic_tokenize, colour: no such setting" in m] == caplog.messages[
        -1:
    ]
    ours.save_pretrained(tmp_path / "saved")
    assert "colour" not in json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    for name, value, message in [
        ("vocab_file", "vocab.txt", "give the path as vocab="),
        ("use_auth_token", "secret", "called token= now"),
        ("image_token", "[IMG]", r"extra_special_tokens=\['\[IMG\]'\]"),
        ("proxies", {}, "HTTPS_PROXY"),
    ]:
        with pytest.raises(TypeError, match=message):
            LxmertTokenizer.from_pretrained(folder, **{name: value})


def test_a_prefix_of_the_files_names(tmp_path):
    ours, theirs = make_both()
    mine = ours.save_pretrained(tmp_path / "ours", filename_prefix="toy")
    their = theirs.save_pretrained(tmp_path / "theirs", filename_prefix="toy")
    names = [{os.path.basename(f) for f in files} for files in (mine, their)]  # noqa: PTH119
    assert names[0] == names[1] | {"toy-vocab.txt"} and names[0] == {f.name for f in (tmp_path / "ours").iterdir()}
    with pytest.raises(TypeError, match="repo_id without push_to_hub"):
        ours.save_pretrained(tmp_path / "ours", repo_id="a/b")


def test_pushing_uploads_the_files(tmp_path, monkeypatch):
    import huggingface_hub

    calls = []

    class Fake:
        def __init__(self, token):
            calls.append(("token", token))

        def create_repo(self, repo_id, **options):
            calls.append((repo_id, options))
            return type("Url", (), {"repo_id": f"me/{repo_id}"})

        def upload_folder(self, folder_path, **options):
            assert LxmertTokenizer.from_pretrained(folder_path).sha256 == ours.sha256
            calls.append(options)
            return SimpleNamespace(commit_url="commit")

    monkeypatch.setattr(huggingface_hub, "HfApi", Fake)
    ours, _ = make_both()
    assert ours.push_to_hub("toy", private=True, token="t", commit_message="m", revision="r") == "commit"
    assert calls[:2] == [("token", "t"), ("toy", {"private": True, "exist_ok": True})]
    assert calls[2] == {
        "repo_id": "me/toy", "commit_message": "m", "commit_description": None, "revision": "r", "create_pr": False
    }  # fmt: skip
    ours.save_pretrained(tmp_path / "named", push_to_hub=True, token="t")
    assert calls[4][0] == "named" and (tmp_path / "named" / "vocab.txt").exists()


def test_a_copy_keeps_sides_and_added_tokens():
    ours, theirs = map(changed, make_both(**OPTIONS))
    ours(TEXTS, padding=True)
    for made in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), copy.copy(ours)):
        assert_equal_tokenizers(made, theirs)
        assert made.sha256 == ours.sha256
        made.add_tokens("lion")
        made.padding_side = "right"
        assert made.tokenize("lion") == ["lion"]
        assert_equal_tokenizers(ours, theirs)


def test_auto_tokenizer_opens_it_when_registered(tmp_path):
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

    class Config(transformers.PreTrainedConfig):
        model_type = "lxmert-of-this-project"

    changed(make_both(**OPTIONS)[0]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": None}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": Config.model_type}))
    transformers.AutoConfig.register(Config.model_type, Config)
    transformers.AutoTokenizer.register(Config, LxmertTokenizer)
    try:
        found = transformers.AutoTokenizer.from_pretrained(tmp_path)
    finally:
        TOKENIZER_MAPPING._extra_content.pop(Config)
        transformers.models.auto.configuration_auto.CONFIG_MAPPING._extra_content.pop(Config.model_type)
    assert type(found) is LxmertTokenizer and found.padding_side == "left"


def test_a_tokenizer_learnt_from_texts_equals_transformers():
    texts = ["the red cat is here", "the cats are red", "who is it ? the cat"] * 3
    options = {"new_special_tokens": ["[IMG]"], "special_tokens_map": {"[MASK]": "<mask>"}}
    ours, theirs = make_both(padding_side="left")
    for tokenizer in (ours, theirs):
        tokenizer.add_tokens("zebra")
    ours, theirs = (t.train_new_from_iterator([texts], 200, **options) for t in (ours, theirs))
    assert set(ours.vocab) == set(theirs.vocab)  # ids of equally frequent pieces are by chance, in both
    assert ours.all_special_tokens == theirs.all_special_tokens
    assert ours.all_special_ids == theirs.all_special_ids
    assert ours.get_added_vocab() == theirs.get_added_vocab()
    text = "the red <mask> cat [IMG] is zebra, who ?"
    assert ours.tokenize(text, add_special_tokens=True) == theirs.tokenize(text, add_special_tokens=True)
    assert "zebra" not in ours.vocab and "cats" in ours.vocab
    assert ours.padding_side == "left" and ours.mask_token == "<mask>"


# ---- what the reference lets be


def test_no_call_changes_a_later_one_and_threads_share():
    ours, _ = make_both()
    text = "what is the color of the unaffable cat"
    options = [
        {"truncation": True, "max_length": n, "padding": "max_length", "padding_side": side, "stride": n % 3,
         "return_overflowing_tokens": True, "return_tensors": kind}
        for n in range(6, 30) for side in ("left", "right") for kind in (None, "np")
    ]  # fmt: skip
    before, state = ours(text), ours._tokenizer.to_str()
    expected = [as_lists(make_both()[0](text, **each)) for each in options]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: as_lists(ours(text, **options[i])), list(range(len(options))) * 4))
    assert found == expected * 4
    assert (ours(text), ours._tokenizer.to_str()) == (before, state)
    ours.backend_tokenizer.no_padding()
    ours.backend_tokenizer.add_tokens(["zebra"])
    assert len(ours) == len(VOCAB)


def test_what_version_5_no_longer_has_is_no_attribute(both):
    for name in ("encode_plus", "batch_encode_plus", "prepare_for_model"):
        for tokenizer in both:
            assert not hasattr(tokenizer, name)
    with pytest.raises(TypeError, match="text_target"):
        both[0]("the cat", text_target="red")
