# Copyright (c) addp_mm contributors. Apache-2.0.
import itertools
import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from addp_mm.datasets import ResumableEpochSampler, ResumableInfiniteSampler, SampleIndex, SeedAugmentation
from addp_mm.datasets.samplers.seeded_samples import random_state_of
from addp_mm.randomness import Purpose, seed_process
from addp_mm.registry import DATA_SAMPLERS


class Draws:
    """Each item is its index and a number from each global generator."""

    def __init__(self, transform=False):
        self.transform = SeedAugmentation() if transform else None

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if self.transform:
            self.transform(dict(sample_idx=index))
            return numbers(index)
        with random_state_of(index):
            return numbers(index)


def numbers(index):
    return [int(index), random.random(), np.random.random(), float(torch.rand(()))]  # noqa: NPY002


def first(sampler, count):
    return list(itertools.islice(sampler, count))


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
    later.seed = 4
    later.start_at(13)
    assert first(later, 27) == whole[13:]
    for rank in range(3):
        monkeypatch.setattr('addp_mm.datasets.samplers.resumable_sampler.get_dist_info', lambda rank=rank: (rank, 3))
        sampler = ResumableInfiniteSampler(range(10), seed=4)
        sampler.start_at(13)
        assert first(sampler, 9) == whole[13 + rank :: 3][:9]


@pytest.mark.parametrize('transform', [False, True], ids=['context', 'transform'])
def test_augmentation_depends_on_seed_and_position_alone(transform):
    data = Draws(transform)

    def load(num_workers, start=0, seed=4):
        sampler = ResumableInfiniteSampler(data, seed=seed)
        sampler.start_at(start)
        loader = DataLoader(data, 2, sampler=sampler, num_workers=num_workers, collate_fn=list)
        return sum(itertools.islice(loader, 8 - start // 2), [])

    whole = load(0)
    assert load(1) == whole
    assert load(2) == whole
    assert load(1, start=6) == whole[6:]
    # the same image has other numbers in another epoch and under another seed
    assert all(len({item[kind] for item in whole}) == 16 for kind in (1, 2, 3))
    assert not {item[1] for item in whole} & {item[1] for item in load(0, seed=5)}


def test_loading_does_not_change_the_states_of_the_process():
    data = Draws()
    seed_process(3, Purpose.TRAINING_STEP)
    expected = numbers(0)
    seed_process(3, Purpose.TRAINING_STEP)
    inside = data[SampleIndex(0, 1, 2)]
    assert numbers(0) == expected != inside == data[SampleIndex(0, 1, 2)]
    # a plain index uses the state of the process
    for changed in (data, Draws(transform=True)):
        seed_process(3, Purpose.TRAINING_STEP)
        assert changed[0] == expected


def test_an_index_keeps_its_position_in_other_processes():
    index = pickle.loads(pickle.dumps(SampleIndex(5, 1, 12)))
    assert index == 5
    assert (index.seed, index.position) == (1, 12)
    assert [*range(6)][index] == 5


def epochs_of(seed, count=4, **options):
    sampler = ResumableEpochSampler(range(10), seed=seed, **options)
    for epoch in range(count):
        sampler.set_epoch(epoch)
        yield [*sampler]


def test_epochs_are_orders_of_all_and_no_two_seeds_share_one():
    epochs = [*epochs_of(1), *epochs_of(2)]
    assert all(sorted(epoch) == [*range(10)] for epoch in epochs)
    # mmengine's DefaultSampler repeats the order of seed 1, epoch 1 as that of seed 2, epoch 0
    assert len({tuple(epoch) for epoch in epochs}) == 8
    assert [index.position for epoch in epochs[:4] for index in epoch] == [*range(40)]
    assert [*epochs_of(1, shuffle=False)] == [[*range(10)]] * 4


def test_ranks_share_an_epoch(monkeypatch):
    (whole,) = epochs_of(4, count=1)
    ranks = []
    for rank in range(3):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 3))
        ranks += [next(epochs_of(4)), next(epochs_of(4, round_up=False))]
    assert [len(indices) for indices in ranks[::2]] == [4, 4, 4]
    assert [index for row in zip(*ranks[::2], strict=True) for index in row] == whole + whole[:2]
    assert sorted(sum(ranks[1::2], [])) == [*range(10)]
