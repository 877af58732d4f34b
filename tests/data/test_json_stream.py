import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.formats.json_stream import entries, items, member, outline
from lxmert.files import InputError, read_json

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(['"', "\\", "]", "𝄞"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
layouts = st.fixed_dictionaries(
    {
        "indent": st.sampled_from([None, 0, 2, 40]),
        "ensure_ascii": st.booleans(),
        "separators": st.sampled_from([None, (",", ":"), (" ,\r\n ", "\t: ")]),
    }
)
chunks = st.integers(1, 40)
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@relaxed
@given(st.lists(values, max_size=6), layouts, chunks)
def test_any_list_is_read_as_the_whole_would_be(tmp_path, content, layout, chunk):
    path = tmp_path / "list.json"
    path.write_bytes(json.dumps(content, **layout).encode())
    read = 0

    def progress(size):
        nonlocal read
        read += size

    assert list(items(path, chunk=chunk, progress=progress)) == content
    assert read == path.stat().st_size


@relaxed
@given(st.dictionaries(texts, values, max_size=6), layouts, chunks)
def test_any_object_is_read_as_the_whole_would_be(tmp_path, content, layout, chunk):
    path = tmp_path / "object.json"
    path.write_bytes(json.dumps(content, **layout).encode())
    assert list(entries(path, chunk=chunk)) == list(content.items())


@relaxed
@given(st.dictionaries(texts, values, max_size=4), st.lists(values, max_size=4), layouts, chunks, st.booleans())
def test_a_member_is_found_between_any_others(tmp_path, others, wanted, layout, chunk, first):
    content = {"annotations": wanted, **others} if first else {**others, "annotations": wanted, "licenses": []}
    path = tmp_path / "object.json"
    path.write_bytes(json.dumps(content, **layout).encode())
    assert list(member(path, "annotations", chunk=chunk)) == wanted


@relaxed
@given(st.lists(values, min_size=1, max_size=4), layouts, chunks, st.data())
def test_a_file_cut_off_anywhere_is_refused_at_its_end(tmp_path, content, layout, chunk, data):
    whole = json.dumps(content, **layout).encode()
    end = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path / "list.json"
    path.write_bytes(whole[:end])
    with pytest.raises(ValueError, match=r"list\.json") as error:
        list(items(path, chunk=chunk))
    if "not UTF-8" not in str(error.value):
        place = int(re.search(r"byte ([\d,]+) of", str(error.value))[1].replace(",", ""))
        assert place <= end


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("text", "byte", "what"),
    [
        ('["ä", 1 2]', 9, "expected , "),
        ('["ä", 1, nul', 10, "expected a value"),
        ('["ä", 1,]', 9, "expected a value"),
        ('["ä", 1}', 8, "expected , or ]"),
        ('["ä", "b]  ', 7, "Unterminated string"),
        ('["ä"', 5, "cut off"),
        ('["ä"] []', 7, "expected nothing more"),
        ('{"ä": 1}', 0, "expected a JSON list"),
        ("", 0, "expected a JSON list"),
        ('[{"ä" 1}]', 7, "Expecting ':' delimiter"),
        ('["ä\x01"]', 4, "Invalid control character"),
        ('["ä", ' + "1 " * 50 + "]", 9, "expected , "),
    ],
)
def test_the_message_tells_the_byte_and_what_is_wrong_there(tmp_path, text, byte, what, chunk):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode())
    with pytest.raises(ValueError) as error:
        list(items(path, chunk=chunk))
    message = str(error.value)
    assert message.startswith(f"{path}: broken JSON at byte {byte} of {len(text.encode())}: ")
    assert what in message and message.endswith("et the file again.")


def test_bytes_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'["abc", "\xff"]')
    for chunk in (1, 4, 100):
        with pytest.raises(ValueError, match=r"a\.json: not UTF-8 text at byte 9"):
            list(items(path, chunk=chunk))


def test_a_member_that_is_not_there_or_no_list_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"info": {}, "questions": []}')
    with pytest.raises(ValueError, match="no list 'annotations', only info, questions"):
        list(member(path, "annotations"))
    with pytest.raises(ValueError, match="byte 9 of 29: expected a list as 'info'"):
        list(member(path, "info"))


def test_what_is_cut_off_behind_the_member_is_noticed(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"annotations": [1], "licenses": [{"id"')
    with pytest.raises(ValueError, match="cut off"):
        list(member(path, "annotations"))


def test_the_buffer_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{"number": i, "text": "x" * 90} for i in range(20_000)]))
    stream = items(path, chunk=1 << 12)
    sizes = [len(stream.gi_frame.f_locals["reader"].text) for _ in stream]
    assert len(sizes) == 20_000 and max(sizes) < 1 << 14


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('[1, "a", NaN]', "NaN is no JSON value"),
        ('[1, {"a": -Infinity}]', "-Infinity is no JSON value"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        ('[1, "\\ud83d"]', "half a surrogate pair"),
        ('[1, "\\ud83d\\ude00", "\\ude00"]', "half a surrogate pair"),
        ("[1, " + "9" * 5000 + "]", "4300 digits"),
        ('{"a": 1', "expected a JSON list"),
    ],
)
def test_the_stream_refuses_what_the_whole_reader_refuses(tmp_path, text, what, chunk):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=what):
        list(items(path, chunk=chunk))
    with pytest.raises(InputError, match=r"a\.json"):
        read_json(path)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_a_mark_of_byte_order_is_passed_and_pairs_of_surrogates_are_read(tmp_path, chunk):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf["\\ud83d\\ude00", "\\\\ud83d", 1]')
    assert list(items(path, chunk=chunk)) == read_json(path) == ["😀", "\\ud83d", 1]


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"questions": [1], "questions": [2]}')
    with pytest.raises(InputError, match="'questions' is there twice"):
        list(member(path, "questions"))


@relaxed
@given(st.dictionaries(texts, values, max_size=6), layouts, chunks)
def test_an_outline_has_all_but_what_is_in_lists(tmp_path, content, layout, chunk):
    path = tmp_path / "object.json"
    path.write_bytes(json.dumps(content, **layout).encode())
    expected = [(name, [] if isinstance(value, list) else value) for name, value in content.items()]
    assert list(outline(path, chunk=chunk)) == expected


@pytest.mark.parametrize("content", ['[1, {"a": [{"b": 1, "c": 2, "b": 3}]}]', '[{"b": 1, "b": 1}]'])
@pytest.mark.parametrize(
    "read", [read_json, lambda path: list(items(path)), lambda path: list(items(path, chunk=3))]
)
def test_a_name_twice_in_one_object_is_refused(tmp_path, content, read):
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"list\.json: .*'b' twice in one object\. Mend"):
        read(path)
