# Copyright (c) addp_mm contributors. Apache-2.0.
"""Numbers that no training can use are refused."""

import re

import pytest

from addp_mm.checks.config_numbers import check_numbers
from addp_mm.config.config_file import ConfigError, load_config

NANO_CLASSIFIER = 'addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px'


@pytest.mark.parametrize(
    'option, message',
    [
        ('train_cfg.max_iters=abc', 'train_cfg.max_iters must be a number, now 300'),
        ('train_dataloader.batch_size=0', 'train_dataloader.batch_size must be a whole number of at least 1, got 0'),
        (
            'train_dataloader.batch_size=1.5',
            'train_dataloader.batch_size must be a whole number of at least 1, got 1.5',
        ),
        ('train_dataloader.num_workers=-1', 'train_dataloader.num_workers must be a whole number of at least 0'),
        ('optim_wrapper.optimizer.lr=abc', 'optim_wrapper.optimizer.lr must be a number, now 0.001'),
        ('optim_wrapper.optimizer.lr=nan', 'optim_wrapper.optimizer.lr must be a number of at least 0, got nan'),
        ('train_cfg.max_iters=True', 'train_cfg.max_iters must be a whole number of at least 1, got True'),
        ('train_cfg.max_iters=1e-3', 'train_cfg.max_iters must be a whole number of at least 1, got 0.001'),
        (
            'train_cfg.val_interval=0',
            'To train without validation: val_dataloader=None val_cfg=None val_evaluator=None',
        ),
        ('train_cfg.val_interval=-1', 'train_cfg.val_interval must be a whole number of at least 1, got -1'),
        ('default_hooks.logger.interval=0', 'default_hooks.logger.interval must be a whole number of at least 1'),
        ('default_hooks.checkpoint.interval=0', 'got 0. To save only at the end: -1'),
        ('randomness.seed=-1', 'randomness.seed must be a whole number of at least 0, got -1'),
        ('randomness.seed=4294967296', 'randomness.seed must be at most 4294967295, got 4294967296'),
    ],
)
def test_words_and_impossible_numbers_are_refused(option, message):
    check_numbers(load_config(NANO_CLASSIFIER))
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_numbers(load_config(NANO_CLASSIFIER, [option]))
