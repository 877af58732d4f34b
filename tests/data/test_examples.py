import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.formats.release_vqa import convert_vqa
from datamodules.stores.hdf5 import StoreError
from datamodules.stores.texts import ExampleStore, examples_are_current, write_examples

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
row = st.fixed_dictionaries(
    {
        "img_id": st.sampled_from(["COCO_train2014_1", "COCO_val2014_2", "Bäume"]),
        "sent": text,
        "label": st.dictionaries(st.text(max_size=3), st.sampled_from([0.3, 0.6, 1]), max_size=3),
        "answer_type": st.sampled_from(["yes/no", "other"]),
        "question_type": text,
    }
)


def question(number, **changes):
    return {
        "question_id": number,
        "img_id": "COCO_train2014_000000000001",
        "sent": "What is it?",
        "label": {"cat": 1, "dog": 0.3},
        "answer_type": "other",
        "question_type": "what is",
        **changes,
    }


def annotation(number, answers):
    rows = [{"answer": a, "answer_confidence": "yes", "answer_id": i + 1} for i, a in enumerate(answers)]
    return {"question_id": number, "image_id": 1, "answers": rows, "multiple_choice_answer": "cat"}


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def as_rows(store, indices):
    """What `ExampleStore.read` gives, as the source's rows."""
    got = store.read(np.asarray(indices))
    answers, images = store.table("answers"), store.table("image")
    ends = np.cumsum(got.answer_counts)
    return [
        {
            "question_id": got.ids[i],
            "img_id": images[got.image[i]],
            "sent": got.texts[i],
            "label": {
                answers[code]: pytest.approx(score)
                for code, score in zip(got.answers[end - count : end], got.scores[end - count : end], strict=True)
            },
            **{name: store.table(name)[codes[i]] for name, codes in got.groups.items()},
        }
        for i, (count, end) in enumerate(zip(got.answer_counts, ends, strict=True))
    ]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(row, min_size=1, max_size=8), st.booleans(), st.data())
def test_reading_in_any_order_gives_the_rows_of_the_source(tmp_path, rows, int_ids, data):
    rows = [{"question_id": i if int_ids else f"q{i}", **row} for i, row in enumerate(rows)]
    store = ExampleStore(convert_vqa(write(tmp_path / "q.json", rows), tmp_path / "q.h5"))
    indices = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    assert len(store) == len(rows)
    assert as_rows(store, np.array(indices, int)) == [rows[i] for i in indices]


def test_chunks_are_appended_without_a_seam(tmp_path):
    rows = [question(i, sent=f"Question {i}?", label={f"a{i % 7}": 0.6}) for i in range(25_001)]
    store = ExampleStore(convert_vqa(write(tmp_path / "q.json", rows), tmp_path / "q.h5"))
    indices = [25_000, 0, 10_000, 9_999, 20_000, 19_999]
    assert as_rows(store, indices) == [rows[i] for i in indices]
    assert store.texts(np.arange(9_999, 10_001)) == ["Question 9999?", "Question 10000?"]


def test_a_split_without_labels_and_types_is_a_store_without_them(tmp_path):
    rows = [{"question_id": i, "img_id": "x", "sent": f"{i}?"} for i in range(3)]
    store = ExampleStore(convert_vqa(write(tmp_path / "q.json", rows), tmp_path / "q.h5"))
    got = store.read(np.array([2, 0]))
    assert not store.labelled and store.groups == () and not store.annotated
    assert (got.texts, got.ids, got.annotator_answers) == (["2?", "0?"], [2, 0], None)
    assert got.answer_counts.tolist() == [0, 0]


def test_the_ten_answers_stand_beside_their_questions(tmp_path):
    source = write(tmp_path / "q.json", [question(i) for i in (7, 8, 9)])
    ten = [[f"{n} {k}" for k in range(10)] for n in (9, 7)]
    files = {
        "train2014": write(
            tmp_path / "train.json", {"annotations": [annotation(9, ten[0]), annotation(7, ten[1])]}
        ),
        "val2014": write(tmp_path / "val.json", "not needed: no image of val2014"),
    }
    store = ExampleStore(convert_vqa(source, tmp_path / "q.h5", files))
    table = [*store.table("annotator_answers"), None]
    got = store.read(np.arange(3)).annotator_answers
    assert [[table[code] for code in row] for row in got] == [ten[1], [None] * 10, ten[0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sent": ""}, "row 1 (question 5): empty question"),
        ({"sent": " \n"}, "row 1 (question 5): empty question"),
        ({"sent": None}, "row 1 (question 5): empty question"),
        ({"img_id": 17}, "row 1 (question 5): img_id is 17, expected a text"),
        ({"question_id": 4}, "row 1 (question 4): duplicate question_id, first used in row 0"),
        ({"question_id": "5"}, "of one type in the whole file"),
        ({"label": {"cat": 0}}, "row 1 (question 5): the score of answer 'cat' is 0, expected"),
        ({"label": {"cat": 1.2}}, "the score of answer 'cat' is 1.2"),
        ({"label": {"cat": float("nan")}}, "NaN is no JSON value"),
        ({"label": {"cat": True}}, "the score of answer 'cat' is True, expected a number"),
        ({"label": {"cat": True}}, "the score of answer 'cat' is True"),
        ({"label": [["cat", 1]]}, "label is [['cat', 1]], expected an object"),
        ({"answer_type": None}, "answer_type is None"),
    ],
)
def test_a_bad_row_is_refused_by_file_row_and_question(tmp_path, change, message):
    source = write(tmp_path / "q.json", [question(4), question(5, **change)])
    with pytest.raises(ValueError) as error:
        convert_vqa(source, tmp_path / "q.h5")
    assert message in str(error.value) and str(source) in str(error.value)
    assert not (tmp_path / "q.h5").exists()


@pytest.mark.parametrize("key", list(question(1)))
def test_a_row_without_a_field_that_others_have_is_refused(tmp_path, key):
    rows = [question(4), question(5)]
    del rows[1][key]
    with pytest.raises(ValueError, match=rf"q\.json: row 1 .*{key} missing"):
        convert_vqa(write(tmp_path / "q.json", rows), tmp_path / "q.h5")


def test_a_label_that_the_first_row_does_not_have_is_refused(tmp_path):
    rows = [question(4), question(5)]
    del rows[0]["label"]
    with pytest.raises(ValueError, match="has label, which row 0 does not have"):
        convert_vqa(write(tmp_path / "q.json", rows), tmp_path / "q.h5")


@pytest.mark.parametrize("content", [{}, [], ["text"], [[1]]])
def test_what_is_not_a_list_of_questions_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"q\.json: .*expected"):
        convert_vqa(write(tmp_path / "q.json", content), tmp_path / "q.h5")


def test_truncated_json_is_refused_with_its_position(tmp_path):
    source = write(tmp_path / "q.json", [question(i) for i in range(9)])
    source.write_text(source.read_text()[:400])
    with pytest.raises(
        ValueError, match=r"q\.json: broken or truncated JSON at line 1, column \d+ \(character \d+\)"
    ):
        convert_vqa(source, tmp_path / "q.h5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "broken JSON at byte 0 of 2: expected a JSON object with a list 'annotations'"),
        ({"annotations": [annotation(4, ["cat"] * 9)]}, r"annotation 0 \(question 4\): expected 10 answers"),
        ({"annotations": [annotation(4, ["cat"] * 9 + [3])]}, r"annotation 0 \(question 4\): expected 10 answers"),
        ({"annotations": [{"question_id": 4}]}, "annotation 0: answers is None, expected a list"),
    ],
)
def test_bad_annotations_are_refused(tmp_path, content, message):
    source = write(tmp_path / "q.json", [question(4)])
    with pytest.raises(ValueError, match=rf"a\.json: {message}"):
        convert_vqa(source, tmp_path / "q.h5", {"train2014": write(tmp_path / "a.json", content)})


def test_a_failed_conversion_leaves_the_old_store_and_nothing_else(tmp_path):
    source, store = write(tmp_path / "q.json", [question(4)]), tmp_path / "stores" / "q.h5"
    convert_vqa(source, store)
    before = store.read_bytes()
    (store.parent / ".q.h5.columns").mkdir()  # what a killed conversion leaves
    with pytest.raises(RuntimeError), write_examples(store) as writer:
        writer.append(texts=["a"], ids=[1], images=["i"], labels=[{}], groups={})
        raise RuntimeError
    assert store.read_bytes() == before
    assert {path.name for path in store.parent.iterdir()} <= {"q.h5", ".q.h5.lock"}


def test_a_store_is_current_until_a_source_changes(tmp_path):
    source, store = write(tmp_path / "q.json", [question(4)]), tmp_path / "q.h5"
    annotations = tmp_path / "a.json"
    assert not examples_are_current(store, [source])
    convert_vqa(source, store)
    assert examples_are_current(store, [source])
    write(annotations, {"annotations": [annotation(4, ["cat"] * 10)]})
    assert not examples_are_current(store, [source, annotations])
    convert_vqa(source, store, {"train2014": annotations})
    assert examples_are_current(store, [source, annotations])
    write(source, [question(4), question(5)])
    assert not examples_are_current(store, [source, annotations])
    source.unlink()
    assert examples_are_current(store, [source, annotations])


@pytest.mark.parametrize("damage", ["truncated", "garbage", "another kind"])
def test_a_damaged_store_is_refused_by_name(tmp_path, damage):
    store = convert_vqa(write(tmp_path / "q.json", [question(4)]), tmp_path / "q.h5")
    if damage == "another kind":
        import h5py

        with h5py.File(store, "w") as file:
            file.attrs["format"] = "pictures"
    else:
        store.write_bytes(store.read_bytes()[:1000] if damage == "truncated" else b"garbage" * 100)
    with pytest.raises(StoreError, match=r"q\.h5: not a .*Delete it and convert its source again"):
        ExampleStore(store)


def test_a_store_crosses_pickle_and_fork_without_its_data(tmp_path):
    rows = [question(i, sent="word " * 50) for i in range(1000)]
    store = ExampleStore(convert_vqa(write(tmp_path / "q.json", rows), tmp_path / "q.h5"))
    assert as_rows(store, [3]) == [rows[3]]
    pickled = pickle.dumps(store)
    assert len(pickled) < 2000
    assert as_rows(pickle.loads(pickled), [999]) == [rows[999]]
    child = os.fork()
    if child == 0:
        os._exit(0 if as_rows(store, [5, 4]) == [rows[5], rows[4]] else 1)
    assert os.waitpid(child, 0)[1] == 0


MEMORY = """
import sys
import numpy as np
from datamodules.stores.texts import ExampleStore, write_examples

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

with write_examples(sys.argv[1], groups=("source",)) as writer:
    for start in range(0, 300_000, 5_000):
        ids = range(start, start + 5_000)
        writer.append(texts=[f"What is the colour of the thing number {i}?" for i in ids], ids=ids,
            images=[f"image {i % 100}" for i in ids], labels=[{"red": 1.0, f"{i % 50}": 0.3} for i in ids],
            groups={"source": ["vqa"] * len(ids)})
        if start == 5_000:
            early = anonymous()
written = anonymous()
store = ExampleStore(sys.argv[1])
random = np.random.default_rng(0)
store.read(random.integers(0, len(store), 256))
before = anonymous()
for _ in range(500):
    indices = random.integers(0, len(store), 256)
    examples = store.read(indices)
    assert examples.ids == indices.tolist()
    assert examples.texts[7] == f"What is the colour of the thing number {indices[7]}?"
print(written - early, anonymous() - before, anonymous() - written)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's memory counters")
def test_300_000_sentences_are_written_and_read_in_constant_memory(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "big.h5"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert run.returncode == 0, run.stderr
    writing, reading, opened = map(int, run.stdout.split())  # KiB
    size = (tmp_path / "big.h5").stat().st_size // 1024
    assert size > 20_000
    assert max(writing, reading, opened) < 8_000
