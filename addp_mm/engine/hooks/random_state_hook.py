# Copyright (c) addp_mm contributors. Apache-2.0.
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from addp_mm.datasets.samplers.resumable_sampler import ResumableInfiniteSampler
from addp_mm.datasets.samplers.seeded_samples import seed_cpu
from addp_mm.errors import UserError
from addp_mm.registry import HOOKS

STATE_KEY = 'random_state'


class ResumeError(UserError, ValueError):
    """A config or checkpoint with which a training cannot be resumed exactly."""


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Let an interrupted training go on as if nothing had happened.

    - Before each iteration the global generators of Python, numpy and torch (all devices) are
      seeded from the run's seed, the rank and the iteration. So there is no random state that a
      checkpoint could miss, on whichever rank, and validation or previews between two iterations
      change nothing.
    - Checkpoints hold the seed of the data and how many samples were trained on (``random_state``).
      On resume the sampler starts there at once, where mmengine would load all earlier batches
      again. Another batch size or another number of ranks also goes on after the same sample.

    Random augmentation repeats in data sets that follow :class:`~addp_mm.datasets.SampleIndex`:
    those of this package that read images, and :class:`~addp_mm.datasets.SeededSamples` around any
    other.

    Raises:
        ResumeError: Training is not iteration-based, the sampler is not
            :class:`~addp_mm.datasets.ResumableInfiniteSampler`, or a checkpoint to resume from was
            written without this hook.
    """

    # other hooks draw in the generators' state of their iteration
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._resumed: dict | None = None
        self._start = self._trained = 0

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # load_from brings weights alone; a rollback in the course of a training takes new data
        if not runner._resume or self._trained:
            return
        if STATE_KEY not in checkpoint:
            raise ResumeError(
                'the checkpoint was written without RandomStateHook: it does not say which images were '
                'trained on. Remove the hook from custom_hooks to resume all the same, or start anew'
            )
        self._resumed = checkpoint[STATE_KEY]

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        sampler = getattr(loop.dataloader, 'sampler', None)
        if not isinstance(loop, IterBasedTrainLoop) or not isinstance(sampler, ResumableInfiniteSampler):
            raise ResumeError(
                'RandomStateHook needs train_cfg=dict(by_epoch=False, …) and train_dataloader.sampler='
                f"dict(type='addp_mm.ResumableInfiniteSampler'), got {type(loop).__name__} and "
                f'{type(sampler).__name__}'
            )
        self._each = loop.dataloader.batch_size * dist.get_world_size()
        state = self._resumed
        if state is None:
            return
        if state['size'] != sampler.size:
            runner.logger.warning(
                f'there were {state["size"]} images, now there are {sampler.size}: training goes on '
                'in another order of them'
            )
        self._start = state['trained']
        sampler.start_at(state['seed'], self._start)
        loop.dataloader_iterator = _AfterSkipping(loop.dataloader, loop.iter)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        seed_cpu(runner.seed, dist.get_rank(), runner.iter)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(torch.initial_seed())

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        self._trained += self._each

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        sampler = runner.train_loop.dataloader.sampler
        checkpoint[STATE_KEY] = dict(seed=sampler.seed, size=sampler.size, trained=self._start + self._trained)


class _AfterSkipping:
    """Batches of a loader whose sampler already stands at the right place.

    mmengine's loop asks for as many batches as were trained on and drops them: these are None, at
    no cost. The forks' loop calls ``skip_iter`` instead.
    """

    def __init__(self, loader: DataLoader, skipped: int) -> None:
        self._loader, self._skipped = loader, skipped
        self._batches: Iterator | None = None

    def __iter__(self) -> _AfterSkipping:
        return self

    def skip_iter(self, num_iters: int) -> None:
        self._skipped -= num_iters

    def __next__(self) -> Any:
        if self._skipped:
            self._skipped -= 1
            return None
        if self._batches is None:
            self._batches = iter(self._loader)
        return next(self._batches)
