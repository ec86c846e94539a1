# Copyright (c) addp_mm contributors. Apache-2.0.
import itertools
import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from addp_mm.datasets import ResumableInfiniteSampler, SampleIndex, SeededSamples
from addp_mm.datasets.samplers.resumable_sampler import RandomOrder
from addp_mm.datasets.samplers.seeded_samples import random_state_of, seed_cpu
from addp_mm.registry import DATA_SAMPLERS


class Draws:
    """Each item is its index and a number from each global generator."""

    metainfo = dict(classes=('a',))

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return [int(index), random.random(), np.random.random(), float(torch.rand(()))]  # noqa: NPY002


def first(sampler, count):
    return list(itertools.islice(sampler, count))


@pytest.mark.parametrize('size', [1, 2, 3, 10, 64, 65, 1000])
def test_orders_are_permutations(size):
    orders = [[RandomOrder(size, seed)[place] for place in range(size)] for seed in range(3)]
    assert all(sorted(order) == [*range(size)] for order in orders)
    assert size < 10 or len({tuple(order) for order in orders}) == 3


def test_all_places_of_an_order_are_equally_likely():
    counts = np.zeros((7, 7))
    for seed in range(2000):
        order = RandomOrder(7, seed)
        for place in range(7):
            counts[place, order[place]] += 1
    # mean 286, standard deviation 16
    assert np.abs(counts - 2000 / 7).max() < 5 * 16


def test_an_order_of_a_hundred_million_takes_no_memory_and_no_time():
    order = RandomOrder(10**8, 3)
    found = {order[place] for place in range(1000)}
    assert len(found) == 1000
    assert max(found) > 9e7
    assert len(pickle.dumps(order)) < 1000


def test_each_epoch_is_another_order_of_all():
    indices = first(ResumableInfiniteSampler(range(10), seed=1), 30)
    epochs = [indices[k : k + 10] for k in (0, 10, 20)]
    assert all(sorted(epoch) == [*range(10)] for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert first(ResumableInfiniteSampler(range(4), shuffle=False), 6) == [0, 1, 2, 3, 0, 1]
    with pytest.raises(ValueError, match='empty'):
        ResumableInfiniteSampler([])


def test_it_starts_anywhere_and_ranks_share_the_order(monkeypatch):
    whole = first(ResumableInfiniteSampler(range(10), seed=4), 40)
    later = DATA_SAMPLERS.build(dict(type='addp_mm.ResumableInfiniteSampler', dataset=range(10), seed=9))
    later.start_at(4, 13)
    assert first(later, 27) == whole[13:]
    for rank in range(3):
        monkeypatch.setattr('addp_mm.datasets.samplers.resumable_sampler.get_dist_info', lambda rank=rank: (rank, 3))
        sampler = ResumableInfiniteSampler(range(10), seed=4)
        sampler.start_at(4, 13)
        assert first(sampler, 9) == whole[13 + rank :: 3][:9]


def test_augmentation_depends_on_seed_and_place_alone():
    data = SeededSamples(Draws())
    assert data.metainfo == Draws.metainfo
    assert len(data) == 10

    def load(num_workers, start=0, seed=4):
        sampler = ResumableInfiniteSampler(data, seed=seed)
        sampler.start_at(seed, start)
        loader = DataLoader(data, 2, sampler=sampler, num_workers=num_workers, collate_fn=list)
        return sum(itertools.islice(loader, 8 - start // 2), [])

    whole = load(0)
    assert load(1) == whole
    assert load(2) == whole
    assert load(1, start=6) == whole[6:]
    # the same image in another epoch, or under another seed, is drawn anew
    assert all(len({item[kind] for item in whole}) == 16 for kind in (1, 2, 3))
    assert not {item[1] for item in whole} & {item[1] for item in load(0, seed=5)}


def test_loading_leaves_the_states_of_the_process_alone():
    data = SeededSamples(Draws())
    seed_cpu(3)
    expected = Draws()[0]
    seed_cpu(3)
    inside = data[SampleIndex(0, 1, 2)]
    assert Draws()[0] == expected != inside == data[SampleIndex(0, 1, 2)]
    # a plain index goes on with the state of the process
    seed_cpu(3)
    with random_state_of(7):
        assert Draws()[0] == expected


def test_an_index_keeps_its_place_in_other_processes():
    index = pickle.loads(pickle.dumps(SampleIndex(5, 1, 12)))
    assert index == 5
    assert (index.seed, index.position) == (1, 12)
    assert [*range(6)][index] == 5
