# Copyright (c) addp_mm contributors. Apache-2.0.
"""Hooks that make a tiny training fail, and one that records it."""

import math

import pytest
import torch
from mmengine.hooks import Hook

from addp_mm.diffusion import NoiseDraw
from addp_mm.randomness import generator_from_process


class Recorder(Hook):
    """Records the level of each iteration, a number of its masks' noise, and the loss."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.levels, self.losses, self.learning_rates = {}, {}, {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        with torch.random.fork_rng(devices=[]):
            noise = NoiseDraw.sample(runner.model.schedule, generator_from_process())
        number = torch.rand((), generator=noise.generator)
        self.levels.setdefault(runner.iter, []).append((noise.level, float(number)))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses[runner.iter] = outputs['loss'].item()
        assert outputs['mask_ratio'].item() == pytest.approx(self.levels[runner.iter][-1][0].ratio)
        self.learning_rates[runner.iter] = runner.optim_wrapper.get_lr()['lr'][0]


class Poison(Hook):
    """Sets a weight to NaN before each of the given iterations, once."""

    def __init__(self, *iterations):
        self.iterations = set(iterations)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter in self.iterations:
            self.iterations.remove(runner.iter)
            with torch.no_grad():
                runner.model.head.fc.weight.fill_(math.nan)
