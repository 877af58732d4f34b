"""Features kept on the device: batches are those of a run that reads them, to the last bit."""

import pytest
import torch
from lightning import Trainer
from test_nlvr2_data import open_data as open_nlvr2
from test_nlvr2_data import root as nlvr2_root  # noqa: F401 (a fixture)
from test_pretrain_data import open_data as open_pretraining
from test_pretrain_data import root as pretraining_root  # noqa: F401
from test_vqa_data import MINIVAL, write_questions
from test_vqa_data import open_data as open_vqa
from test_vqa_data import root as vqa_root  # noqa: F401

from datamodules.batches import FeatureTable, features
from datamodules.stores import RegionStore
from lxmert.files import InputError

CPU = torch.device("cpu")


def under_a_trainer(data, stage="fit"):
    """The same data module with its features on the device of a trainer, a CPU."""
    data.regions_on_device = True
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.setup(stage)
    return data


def moved(data, batch):
    """A batch as the trainer gives it to the learner."""
    return data.on_after_batch_transfer(batch.to(CPU), 0)


def assert_same(found, expected):
    for name, value in vars(expected).items():
        other = getattr(found, name)
        if name.endswith("packing"):
            assert torch.equal(other.mask, value.mask) and other.full == value.full
        elif name == "targets":
            assert other.keys() == value.keys()
            assert all(torch.equal(other[key], target) for key, target in value.items())
        elif isinstance(value, torch.Tensor):
            assert other.dtype == value.dtype and torch.equal(other, value), name
        else:
            assert other == value, name


def test_questions_of_two_stores_with_varying_regions_have_the_same_batches(vqa_root):  # noqa: F811
    without, data = open_vqa(vqa_root, "fit"), under_a_trainer(open_vqa(vqa_root, "fit", workers=1))
    for name in ("train_dataloader", "val_dataloader"):
        pairs = list(zip(getattr(data, name)(), getattr(without, name)(), strict=True))
        assert len(pairs) > 1 and len({len(batch.region_features) for batch, _ in pairs}) > 0
        for batch, expected in pairs:
            assert batch.region_features.shape == (*expected.region_mask.shape, 1)  # no features from the loader
            assert_same(moved(data, batch), expected)
    assert any(not expected.region_mask.all() for _, expected in pairs)  # padding was looked up too


def test_statements_about_two_images_have_the_same_batches(nlvr2_root):  # noqa: F811
    without, data = open_nlvr2(nlvr2_root, "fit"), under_a_trainer(open_nlvr2(nlvr2_root, "fit"))
    for batch, expected in zip(data.train_dataloader(), without.train_dataloader(), strict=True):
        assert_same(moved(data, batch), expected)


def test_pre_training_has_the_same_batches_and_the_same_replacements(pretraining_root):  # noqa: F811
    options = {"train": "mscoco_train,mscoco_minival", "valid": []}
    without = open_pretraining(pretraining_root, **options)
    data = under_a_trainer(open_pretraining(pretraining_root, **options))
    for batch, expected in zip(data.train_dataloader(), without.train_dataloader(), strict=True):
        assert batch.targets["replacement_features"].shape == (len(batch.image_ids), 1)
        assert expected.targets["replacement_features"].any()
        assert_same(moved(data, batch), expected)


def test_a_store_of_two_roles_and_stages_is_copied_once(vqa_root, monkeypatch):  # noqa: F811
    copied = []
    copy = RegionStore.copy_features

    def note(store, start, out):
        copied.append((store.path.stem, start, len(out)))
        copy(store, start, out)

    monkeypatch.setattr(RegionStore, "copy_features", note)
    monkeypatch.setattr(features, "PIECE", 7 * 2 * 5)  # seven regions of five features
    data = under_a_trainer(open_vqa(vqa_root, "fit"))
    regions = {store.path.stem: store.contract["num_regions"] for store in data.datasets["train"].regions}
    assert regions == {"train2014_obj36": 21, "val2014_obj36": 24}
    assert copied == [(name, start, min(7, n - start)) for name, n in regions.items() for start in range(0, n, 7)]
    copied.clear()
    data.setup("test")  # minival, whose store is there
    assert copied == []
    without = open_vqa(vqa_root, "test")
    for batch, expected in zip(data.test_dataloader(), without.test_dataloader(), strict=True):
        assert_same(moved(data, batch), expected)
    data.prepare_data("predict")
    data.setup("predict")  # test, whose store is not
    assert {name for name, *_ in copied} == {"test2015_obj36"}


def test_who_reads_a_data_set_gets_features_with_a_trainer_or_without(vqa_root):  # noqa: F811
    data = open_vqa(vqa_root, "fit", regions_on_device=True)
    expected = data.datasets["train"][[3, 20]].region_features
    assert expected.dtype == torch.float16 and next(iter(data.train_dataloader())).region_features.shape[2] == 5
    assert torch.equal(under_a_trainer(data).datasets["train"][[3, 20]].region_features, expected)


def test_a_gpu_without_room_is_refused_with_both_sizes_before_anything_is_copied(vqa_root, monkeypatch):  # noqa: F811
    stores = open_vqa(vqa_root, "fit").datasets["train"].regions
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (400, 1_000))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(RegionStore, "copy_features", None)
    with pytest.raises(InputError, match=r"2 store\(s\) take 460 bytes, and cuda:0 has 400 free of its 1,000"):
        FeatureTable(stores, torch.device("cuda", 0))


def test_images_without_regions_are_dropped_from_rows_of_the_table_too(vqa_root):  # noqa: F811
    rows = [*MINIVAL, {**MINIVAL[0], "question_id": 999, "img_id": "COCO_val2014_000000000099"}]
    write_questions(vqa_root, "minival", rows)
    options = {"missing_images": "drop"}
    without, data = (open_vqa(vqa_root, "validate", **options) for _ in range(2))
    under_a_trainer(data, "validate")
    batches = list(zip(data.val_dataloader(), without.val_dataloader(), strict=True))
    for batch, expected in batches:
        assert_same(moved(data, batch), expected)
    assert sum(batch.num_rows for batch, _ in batches) == len(MINIVAL)
