# Copyright (c) addp_mm contributors. Apache-2.0.
"""With RandomStateHook, any sampler goes on at the next batch and loads nothing twice."""

import mmdet.datasets.samplers  # noqa: F401
import mmpretrain.datasets.samplers  # noqa: F401
import pytest
import torch
from helpers.any_training import SAMPLERS, LoggedSamples, settings_of, train
from torch.utils.data import ConcatDataset


def tensors(value):
    return [tensor for part in value.values() for tensor in (tensors(part) if isinstance(part, dict) else [part])]


@pytest.mark.parametrize('stop', [2, 6, 8])  # within the first epoch, at its end, and in the second
@pytest.mark.parametrize('name', SAMPLERS)
def test_a_resume_equals_the_uninterrupted_run_and_reads_nothing_again(tmp_path, name, stop):
    by_epoch, loader = settings_of(name)
    length = 3 if by_epoch else 15
    whole = train(tmp_path / 'whole', loader, by_epoch, length)
    resumed = train(tmp_path / 'resumed', settings_of(name)[1], by_epoch, length, tmp_path / f'whole/iter_{stop}.pth')
    assert resumed['trained'] == whole['trained'][stop:]
    assert resumed['numbers'] == whole['numbers'][stop:]
    for kind in ('weights', 'moments'):
        pairs = zip(tensors(whole[kind]), tensors(resumed[kind]), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    seen = {sample[-1] for batch in whole['trained'][:stop] for sample in batch}
    assert len(seen) == 2 * stop  # every sample has numbers of its own
    assert not seen & {float(torch.tensor(number)) for number in resumed['read']}
    ahead = 2 * 2 * loader.get('num_workers', 0) * 2 if not by_epoch else 0
    assert 0 <= len(resumed['read']) - 2 * (len(whole['trained']) - stop) <= ahead


def test_a_repeated_dataset_has_other_numbers_at_each_repeat(tmp_path):

    def repeated(log):
        return ConcatDataset([LoggedSamples(log, size=4)] * 3)

    whole = train(tmp_path, dict(sampler=dict(type='DefaultSampler')), True, 2, dataset=repeated)
    numbers = {tuple(sample[1:]) for batch in whole['trained'] for sample in batch}
    assert len(numbers) == 24


def test_the_number_of_workers_does_not_change_the_samples(tmp_path):
    runs = [
        train(tmp_path / str(workers), dict(sampler=dict(type='DefaultSampler'), num_workers=workers), True, 1)
        for workers in (0, 1, 2)
    ]
    assert runs[0]['trained'] == runs[1]['trained'] == runs[2]['trained']


def test_another_batch_size_continues_near_the_same_sample(tmp_path):
    loader = dict(sampler=dict(type='DefaultSampler', shuffle=False))
    train(tmp_path, loader, True, 1)
    resumed = train(tmp_path / 'larger', dict(loader, batch_size=4), True, 1, tmp_path / 'iter_2.pth')
    assert [[int(sample[0]) for sample in batch] for batch in resumed['trained']] == [[4, 5, 6, 7], [8, 9, 10, 11]]
