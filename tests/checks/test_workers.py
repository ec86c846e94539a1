# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options of worker processes in data loaders without workers."""

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader

from addp_mm.checks.workers import check_workers
from addp_mm.errors import ConfigError

ZEROS = torch.zeros(2)


@pytest.mark.parametrize('option', [dict(persistent_workers=True), dict(prefetch_factor=2)])
@pytest.mark.parametrize('name', ['train_dataloader', 'val_dataloader', 'test_dataloader'])
def test_options_that_torch_refuses_are_named(option, name):
    with pytest.raises(ValueError, match='num_workers'):
        DataLoader(ZEROS, num_workers=0, **option)
    (key,) = option
    for workers in (dict(num_workers=0), {}):
        with pytest.raises(ConfigError, match=rf'config: {name}\.{key}=.*num_workers is 0'):
            check_workers(Config({name: workers | option}))


@pytest.mark.parametrize(
    'loader',
    [
        dict(num_workers=0, persistent_workers=False, prefetch_factor=None),
        dict(num_workers=2, persistent_workers=True, prefetch_factor=2),
        dict(batch_size=1),
        None,
    ],
)
def test_loaders_that_torch_builds_pass(loader):
    DataLoader(ZEROS, **(loader or {}))
    check_workers(Config(dict(train_dataloader=loader)))
