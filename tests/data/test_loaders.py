"""How batches come from loader processes: without features, which a thread of this process reads."""

import multiprocessing
import threading
from itertools import islice

import numpy as np
import pytest
import torch
from test_device_regions import assert_same
from test_vqa_data import open_data
from test_vqa_data import root as vqa_root  # noqa: F401 (a fixture)

from datamodules.batches.loaders import Ahead, finished, packed
from datamodules.stores import StoredFeatures


def test_a_batch_crosses_processes_in_one_piece_and_without_its_features(vqa_root):  # noqa: F811
    dataset = open_data(vqa_root, "fit").datasets["train"]
    sent = packed(dataset.by_row()[[0, 3, 25]])
    assert sent.dtype == torch.uint8
    batch = finished(sent, dataset.by_row(), pinned=False)
    assert_same(batch, dataset[[0, 3, 25]])
    batch.region_boxes.zero_()  # its memory is its own
    features = batch.region_features.numpy().tobytes()
    assert features not in sent.numpy().tobytes()
    assert features in packed(dataset[[0, 3, 25]]).numpy().tobytes()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pass_that_ended_early_leaves_nothing_to_the_next(vqa_root, workers):  # noqa: F811
    loader = open_data(vqa_root, "fit", workers=workers).val_dataloader()
    whole = list(loader)
    assert len(whole) == 2
    for ended in (1, 0):
        assert len(list(islice(loader, ended))) == ended
        again = list(loader)
        assert len(again) == len(whole)
        for batch, expected in zip(again, whole, strict=True):
            assert_same(batch, expected)


def look_at_one(loader):
    next(iter(loader))


def test_a_process_ends_in_the_middle_of_a_pass(vqa_root):  # noqa: F811
    loader = open_data(vqa_root, "fit", workers=1).train_dataloader()
    process = multiprocessing.get_context("fork").Process(target=look_at_one, args=(loader,))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_batches_are_read_one_ahead_in_order_and_an_error_comes_where_it_happened():
    read, asked = [], threading.Event()

    def work(number):
        read.append(number)
        if number == 3:
            asked.wait(10)
            raise ValueError("no third")
        return number

    batches = Ahead(iter(range(1, 6)), work)
    assert [next(batches), next(batches)] == [1, 2]
    asked.set()
    for _ in range(2):
        with pytest.raises(ValueError, match="no third"):
            next(batches)
    batches.close()
    assert read == [1, 2, 3]
    assert list(Ahead(iter([7, 8]), lambda number: number)) == [7, 8]


def test_features_of_several_stores_are_what_each_store_reads_and_zero_in_the_padding(vqa_root):  # noqa: F811
    stores = open_data(vqa_root, "fit").datasets["train"].regions
    features = StoredFeatures(stores)
    wanted = [(1, 2), (0, 5), (1, 2), (0, 0), (1, 6)]  # stores and images, in any order, twice
    rows = torch.zeros(
        6, 5, 1, dtype=torch.int64
    )  # more places than any image has regions; the last image is none
    for place, (number, image) in enumerate(wanted):
        own, _, mask = stores[number].read_rows([image], features.first_rows[number])
        rows[place, : mask.shape[1]] = own[0]
    found = features.look_up(rows)
    for place, (number, image) in enumerate(wanted):
        expected = stores[number].read([image])[0][0]
        assert torch.equal(found[place, : len(expected)], expected)
        assert not found[place, len(expected) :].any()
    assert not found[5].any() and found.dtype == torch.float16
    one = torch.tensor([[[int(rows[0, 2])]], [[int(rows[3, 1])]]])  # as of replacements
    assert np.array_equal(features.look_up(one)[:, 0], torch.stack([found[0, 2], found[3, 1]]))
    assert features.look_up(rows[:0]).shape == (0, 5, 5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 1])
def test_where_there_is_a_gpu_batches_are_in_page_locked_memory(vqa_root, workers):  # noqa: F811
    data = open_data(vqa_root, "fit", workers=workers)
    for batch, expected in zip(data.val_dataloader(), open_data(vqa_root, "fit").val_dataloader(), strict=True):
        assert all(tensor.is_pinned() for tensor in vars(batch).values() if isinstance(tensor, torch.Tensor))
        assert_same(batch, expected)
