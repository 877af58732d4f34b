"""What nine million sentences would cost: measured on a few thousand, by how much each further one adds."""

import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.pretraining_data import open_data, write_set
from datamodules import statistics
from datamodules.batches.sampling import stable_order

SIZES = (360, 1440)  # images of the two sets
BYTES_A_SENTENCE = 40  # 0.36 GB of nine million, their mapped files aside


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A converted set of each size."""
    made = []
    for images in SIZES:
        folder = tmp_path_factory.mktemp("set")
        write_set(folder, images)
        open_data(folder).prepare_data("fit")
        made.append(folder)
    return made


def test_the_generated_set_has_the_published_mix_of_sentences(folders):
    data = open_data(folders[0])
    data.setup("fit")
    found = dict.fromkeys(data.label_names["source"], 0)
    for facts in data.report().values():
        for source, count in facts["sources"].items():
            found[source] += count
    thousands = {
        "mscoco": 617,
        "vg": 5390,
        "vqa": 658,
        "gqa": 1070,
        "visual7w": 1440,
    }  # Table 1, of 180,000 images
    for source, count in found.items():
        assert 0.9 < count / (thousands[source] * SIZES[0] / 180) < 1.1, source


@pytest.mark.parametrize("rows_per_image", [1, 4])
def test_a_sentence_more_costs_a_few_bytes_of_memory_to_start_an_epoch(folders, rows_per_image, monkeypatch):
    monkeypatch.setattr(statistics, "TRUNCATION_SAMPLE", 500)  # its cost does not grow, and tracing makes it slow
    peaks, sentences = [], []
    for folder in folders:
        data = open_data(folder, rows_per_image)
        assert data.tokenizer  # made here, as tracing makes it slow
        gc.collect()
        tracemalloc.start()
        data.setup("fit")
        loader = data.train_dataloader()
        tracemalloc.reset_peak()  # opening makes much that does not grow, at these sizes the most of all
        iter(loader.sampler)  # makes the epoch's order
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sentences.append(len(data.datasets["train"]))
    added = (peaks[1] - peaks[0]) / (sentences[1] - sentences[0])
    assert 0 < added < BYTES_A_SENTENCE


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-1, 2**31 - 1)) | st.lists(st.integers(-1, 3)), st.sampled_from([np.int32, np.int64]))
def test_the_fast_order_is_the_stable_sorts(values, dtype):
    values = np.array(values, dtype)
    assert stable_order(values).tolist() == np.argsort(values, kind="stable").tolist()
