# Copyright (c) addp_mm contributors. Apache-2.0.
"""Resume a training with the random numbers and data of an uninterrupted one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from addp_mm.datasets.samplers.resumable_sampler import ResumableInfiniteSampler
from addp_mm.errors import UserError
from addp_mm.randomness import Purpose, seed_process
from addp_mm.registry import HOOKS

STATE_KEY = 'random_state'


class ResumeError(UserError, ValueError):
    """A checkpoint from which a training cannot be resumed exactly."""


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Make a resumed training draw the random numbers of an uninterrupted one.

    - Before each iteration it seeds the global generators of Python, numpy and torch (all devices)
      from the run's seed, the rank and the iteration. Noise levels, masks, dropout, code restarts
      and RoI sampling draw from them. So no random state has to be saved, and validation or
      previews between two iterations do not change the training.
    - Checkpoints hold the seeds of the run and of the sampler (``random_state``), and with
      :class:`~addp_mm.datasets.ResumableInfiniteSampler` the number of samples that were trained
      on. On resume that sampler starts there at once; mmengine would load all earlier batches
      again. After a change of the batch size or of the number of ranks, training continues after
      the same sample.

    Random augmentation also repeats in the datasets of this package that read images or ids, and
    in other datasets whose pipeline starts with :class:`~addp_mm.datasets.SeedAugmentation`.

    Raises:
        ResumeError: A checkpoint to resume from was written without this hook, and the sampler is
            :class:`~addp_mm.datasets.ResumableInfiniteSampler`.
    """

    # runs first: other hooks draw from the generators of their iteration
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._loaded: dict | None = None
        self._seed = self._start = self._trained = 0

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the state of a checkpoint until training starts."""
        self._loaded = checkpoint.get(STATE_KEY)

    def before_train(self, runner: Runner) -> None:
        """Set the sampler to the position of the checkpoint."""
        sampler = _sampler(runner)
        endless = isinstance(sampler, ResumableInfiniteSampler)
        self._seed = runner.seed
        if not runner.iter:  # a checkpoint without iterations has weights only (load_from)
            return
        if self._loaded is None:
            message = 'the checkpoint was written without RandomStateHook'
            if endless:
                raise ResumeError(
                    f'{message}: it does not contain the position in the data. Set '
                    'default_hooks.random_state=None to start at the first sample, or start the training again'
                )
            runner.logger.warning(f'{message}: the resumed training will not equal an uninterrupted one')
            return
        self._seed = self._loaded.get('run_seed', runner.seed)
        if 'seed' in self._loaded:
            sampler.seed = self._loaded['seed']
        if endless:
            self._resume_data(runner, sampler, self._loaded)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the process."""
        seed_process(self._seed, Purpose.TRAINING_STEP, dist.get_rank(), runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Count the samples."""
        self._trained += runner.train_dataloader.batch_sampler.batch_size * dist.get_world_size()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the seeds of the run and the sampler, and the position in the data."""
        sampler = _sampler(runner)
        state = checkpoint[STATE_KEY] = dict(run_seed=self._seed)
        if hasattr(sampler, 'seed'):
            state['seed'] = sampler.seed
        if isinstance(sampler, ResumableInfiniteSampler):
            state.update(size=sampler.size, trained=self._start + self._trained)

    def _resume_data(self, runner: Runner, sampler: ResumableInfiniteSampler, state: dict) -> None:
        if state.get('size') != sampler.size:
            runner.logger.warning(
                f'the dataset had {state.get("size")} samples and now has {sampler.size}: training continues in '
                'another order of the samples'
            )
        self._start = state['trained']
        sampler.start_at(self._start)
        loop = runner.train_loop
        loop.dataloader_iterator = _AfterSkipping(loop.dataloader, loop.iter)


def _sampler(runner: Runner) -> Any:
    # a batch sampler, such as mmdet's, contains the sampler
    return runner.train_dataloader.batch_sampler.sampler


class _AfterSkipping:
    """Batches of a loader whose sampler is already at the right position.

    mmengine's loop reads all batches that were trained on and drops them: here they are None and
    cost nothing. The forks' loop calls ``skip_iter`` instead.
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
