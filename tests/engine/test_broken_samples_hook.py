# Copyright (c) addp_mm contributors. Apache-2.0.
"""The hook that watches the data of a run, and what the tools set for it."""

import logging
from types import SimpleNamespace

import pytest
from helpers.faulty_data import COUNT, Scenes, WatchedDataset, break_scenes, collate, write_scenes
from torch.utils.data import DataLoader, Dataset, IterableDataset

from addp_mm.engine.hooks import BrokenSamplesHook
from addp_mm.errors import ConfigError


class Mosaic(Dataset):
    """Each item is made of two samples, and none has a name."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return [self.dataset[index], self.dataset[(index + 5) % COUNT]]


class Endless(IterableDataset):
    def __iter__(self):
        return iter(range(10))


def runner_of(folder, dataset, val=None):
    loader = DataLoader(dataset, collate_fn=collate)
    val_loop = val and SimpleNamespace(dataloader=DataLoader(val), bank_dataloader=DataLoader(val))
    return SimpleNamespace(
        work_dir=str(folder), train_dataloader=loader, val_loop=val_loop, logger=logging.getLogger('test')
    )


@pytest.fixture
def scenes(tmp_path):
    folder = write_scenes(tmp_path / 'scenes')
    return folder, break_scenes(folder)


def test_training_replaces_and_validation_does_not(scenes, tmp_path):
    folder, _ = scenes
    runner = runner_of(tmp_path, Scenes(folder), Scenes(folder))
    sampler = runner.train_dataloader.sampler
    (tmp_path / 'broken_samples.txt').write_text('"of an earlier run"\tx\n')
    hook = BrokenSamplesHook(sample_seconds=2)
    hook.before_train(runner)
    data = runner.train_dataloader.dataset
    assert isinstance(data, WatchedDataset)
    assert data.broken.allowed == 10
    assert data.seconds == 2
    assert runner.train_dataloader.sampler is sampler
    assert data[9]['img'].shape == (5, 6, 3)
    assert len(data.broken.read()) == 1
    for loader in (runner.val_loop.dataloader, runner.val_loop.bank_dataloader):
        assert loader.dataset.broken is None
    hook.before_train(runner)  # of a second train()
    hook.before_val(runner)
    assert runner.train_dataloader.dataset is data
    assert not isinstance(runner.val_loop.dataloader.dataset.watched, WatchedDataset)


def test_a_dataset_that_mixes_samples_replaces_those_inside(scenes, tmp_path, caplog):
    folder, reasons = scenes
    runner = runner_of(tmp_path, Mosaic(Scenes(folder)))
    hook = BrokenSamplesHook(sample_seconds=2)
    hook.before_train(runner)
    first, second = runner.train_dataloader.dataset[4]
    assert not {int(one['img'][0, 0, 0]) for one in (first, second)} & set(reasons)
    found = (tmp_path / 'broken_samples.txt').read_text()
    assert f'{folder}/04.png' in found
    assert f'{folder}/09.png' in found
    with caplog.at_level('WARNING'):
        hook.after_train(runner)
    assert '2 broken samples were replaced by others' in caplog.text


def test_data_without_indices_stay_as_they_are(tmp_path):
    runner = runner_of(tmp_path, Endless())
    hook = BrokenSamplesHook()
    hook.before_train(runner)
    assert isinstance(runner.train_dataloader.dataset, Endless)
    hook.after_train(runner)


@pytest.mark.parametrize('options', [dict(max_broken_share=1.1), dict(max_broken_share=-1), dict(sample_seconds=-1)])
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(ConfigError, match=r'default_hooks\.broken_samples: max_broken_share must be from 0 to 1'):
        BrokenSamplesHook(**options)
