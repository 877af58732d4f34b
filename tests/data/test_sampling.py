import tracemalloc
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.batches.sampling import BatchSampler

settings = st.fixed_dictionaries(
    {
        "num_examples": st.integers(12, 80),
        "batch_size": st.sampled_from([4, 12]),
        "seed": st.integers(0, 3),
        "shuffle": st.booleans(),
        "drop_last": st.booleans(),
        "rows_per_image": st.sampled_from([1, 3]),
    }
)


def images_of(num_examples, images=7):
    return np.random.default_rng(num_examples).integers(0, images, num_examples)


def sampler_of(settings, **more):
    return BatchSampler(**settings, image=images_of(settings["num_examples"]), **more)


def lists(sampler):
    return [rows.indices.tolist() for rows in sampler]


@given(settings, st.integers(0, 3), st.sampled_from([1, 2, 4]))
def test_several_processes_see_together_what_one_sees(settings, epoch, world_size):
    if settings["num_examples"] // len(sampler_of(settings)) < world_size:
        return
    alone = sampler_of(settings)
    alone.set_epoch(epoch)
    shares = [sampler_of(settings, rank=rank, world_size=world_size) for rank in range(world_size)]
    for share in shares:
        share.set_epoch(epoch)
    together = [list(chain(*parts)) for parts in zip(*map(lists, shares), strict=True)]
    assert together == lists(alone)


@given(settings, st.integers(0, 3), st.integers(0, 100))
def test_a_resumed_pass_is_the_rest_of_the_epoch_and_later_epochs_are_whole(settings, epoch, first):
    whole, resumed = sampler_of(settings), sampler_of(settings, epoch=epoch, first_batch=first)
    assert len(resumed) == len(whole)
    for now in (epoch, epoch + 1):
        whole.set_epoch(now)
        if now > epoch:
            resumed.set_epoch(now)
        assert lists(resumed) == lists(whole)[first if now == epoch else 0 :]


@given(settings)
def test_evaluation_takes_every_example_once_with_an_images_examples_side_by_side(settings):
    settings |= {"shuffle": False, "drop_last": False}
    sampler = sampler_of(settings)
    batches = lists(sampler)
    order = list(chain(*batches))
    assert sorted(order) == list(range(settings["num_examples"]))
    assert (np.diff(sampler.image[order]) >= 0).all()
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= settings["batch_size"] and max(sizes) - min(sizes) <= 1
    assert len(batches) == len(sampler)


@given(settings, st.integers(0, 3))
def test_training_takes_full_batches_without_repeats(settings, epoch):
    settings |= {"shuffle": True, "drop_last": True}
    sampler = sampler_of(settings)
    sampler.set_epoch(epoch)
    order = list(chain(*lists(sampler)))
    assert len(order) == len(set(order)) == len(sampler) * settings["batch_size"]
    assert {len(rows.indices) for rows in sampler} == {settings["batch_size"]}


@given(settings, st.integers(2, 4))
def test_rows_of_an_image_stay_together_up_to_the_limit(settings, together):
    settings |= {"shuffle": True, "drop_last": False, "rows_per_image": together}
    sampler = sampler_of(settings)
    order = sampler.order(0)
    assert sorted(order) == list(range(settings["num_examples"]))
    image = sampler.image[order]
    runs = image[np.r_[True, image[1:] != image[:-1]]]
    for number, count in zip(*np.unique(image, return_counts=True), strict=True):
        assert (runs == number).sum() <= -(-count // together)


def test_groups_of_an_image_are_spread_over_the_epoch():
    sampler = BatchSampler(
        4000, 32, seed=1, shuffle=True, drop_last=True, image=np.repeat(np.arange(500), 8), rows_per_image=2
    )
    image = sampler.image[sampler.order(0)]
    assert (image[0::2] == image[1::2]).all()
    assert len(set(image[:500].tolist())) > 180  # all 8 rows side by side would give 63


def test_epochs_and_seeds_give_other_orders_and_equal_ones_the_same():
    def order(seed, epoch):
        return BatchSampler(100, 10, seed=seed, shuffle=True, drop_last=True).order(epoch).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_an_epoch_costs_one_permutation():
    sampler = BatchSampler(1_000_000, 32, seed=1, shuffle=True, drop_last=True)
    tracemalloc.start()
    count = sum(len(rows.indices) for rows in sampler)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 1_000_000
    assert peak < 1.3 * 8_000_000


def test_rows_tell_epoch_and_batch_and_evaluation_always_the_same_epoch():
    training = BatchSampler(100, 10, seed=1, shuffle=True, drop_last=True, epoch=2, first_batch=3)
    assert [(rows.epoch, rows.batch) for rows in training] == [(2, number) for number in range(3, 10)]
    evaluation = BatchSampler(25, 10, seed=1, shuffle=False, drop_last=False)
    evaluation.set_epoch(5)
    assert [(rows.epoch, rows.batch) for rows in evaluation] == [(0, 0), (0, 1), (0, 2)]


@given(st.integers(0, 5), st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.5]), min_size=60, max_size=60))
def test_weights_say_how_often_an_epoch_holds_an_example(epoch, weights):
    weights = np.array([*weights, 1.0], np.float32)
    sampler = BatchSampler(61, 1, seed=3, shuffle=True, drop_last=True, weights=weights)
    counts = np.bincount(sampler.order(epoch), minlength=61)
    assert counts.sum() == len(sampler)
    assert abs(counts.sum() - weights.sum()) <= 0.5
    assert ((np.floor(weights) <= counts) & (counts <= np.floor(weights) + 2 * (weights % 1 > 0))).all()


def test_a_weight_of_a_half_takes_other_examples_every_epoch_all_of_them_equally_often():
    weights = np.r_[np.full(200, 0.5), np.ones(100)]
    sampler = BatchSampler(300, 10, seed=3, shuffle=True, drop_last=True, weights=weights)
    counts = sum(np.bincount(sampler.order(epoch), minlength=300) for epoch in range(200))
    assert (counts[200:] == 200).all()
    assert abs(counts[:200] - 100).max() < 35  # five standard deviations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 9, "world_size": 2}, "multiple of the 2 processes. Use 8 or 10"),
        ({"batch_size": 0}, "positive"),
        (
            {"batch_size": 200},
            r"100 examples do not make .*Set data.batch_size to 100 or less",
        ),
        ({"num_examples": 3, "batch_size": 8, "world_size": 4, "drop_last": False}, "fewer processes"),
        ({"rows_per_image": 2}, "needs the examples' images"),
        ({"image": np.zeros(5, int)}, "5 entries for 100 examples"),
    ],
)
def test_sizes_that_cannot_be_shared_out_are_refused(changes, message):
    arguments = {"num_examples": 100, "batch_size": 10, "seed": 1, "shuffle": True, "drop_last": True, **changes}
    with pytest.raises(ValueError, match=message):
        BatchSampler(**arguments)
