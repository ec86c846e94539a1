# Copyright (c) addp_mm contributors. Apache-2.0.
"""Resume a training with the random numbers and data of an uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from addp_mm.datasets.samplers.resumable_sampler import ResumableInfiniteSampler
from addp_mm.datasets.samplers.seeded_batches import SeededBatches
from addp_mm.engine.unwrap import is_resuming
from addp_mm.errors import UserError
from addp_mm.randomness import Purpose, seed_after_rollback, seed_process
from addp_mm.registry import HOOKS

STATE_KEY = 'random_state'
_NOT_EXACT = 'the resumed training will not equal an uninterrupted one'


class ResumeError(UserError, ValueError):
    """A checkpoint from which a training cannot be resumed exactly."""


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Make a resumed training draw the random numbers of an uninterrupted one, on the same data.

    It works with every dataset and sampler of the OpenMMLab packages, in training by iterations
    and by epochs:

    - Before each iteration it seeds the global generators of Python, numpy and torch (all devices)
      from the run's seed, the rank and the iteration. Noise levels, masks, dropout, mixup, code
      restarts and RoI sampling draw from them. So no random state has to be saved, and validation
      or previews between two iterations do not change the training.
    - Before each sample it seeds the process that loads the sample, from the run's seed and the
      sample's position in training.
    - On resume the training continues with the next batch, also in the middle of an epoch. No
      sample of the earlier batches is loaded; mmengine would load all of them again.
    - Checkpoints hold the seeds and the position (``random_state``). After a change of the batch
      size or of the number of ranks, training continues after the same sample with
      :class:`~addp_mm.datasets.ResumableInfiniteSampler`, and near it with other samplers.
    - After a rollback of :class:`~addp_mm.engine.hooks.TrainingGuardHook`, training by iterations
      goes on with the next batch, and an iteration that is repeated has the random numbers of its
      first try. By epochs, a new seed follows from that of the run: the epoch that is repeated has
      another order, other augmentation and other random numbers.

    Raises:
        ResumeError: A checkpoint to resume from was written without this hook, and the sampler is
            :class:`~addp_mm.datasets.ResumableInfiniteSampler`.
    """

    # runs first: other hooks draw from the generators of their iteration
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._loaded: dict | None = None
        self._batches: SeededBatches | None = None
        self._went_back = False
        self._seed = self._start = self._trained = self._done = 0
        self._used = 0  # batches of the epoch, or of the whole training, also those before a rollback

    @property
    def seed(self) -> int:
        """Seed of the run, from which those of its iterations follow."""
        return self._seed

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the state of a checkpoint until training starts."""
        self._loaded = checkpoint.get(STATE_KEY)
        self._went_back = is_resuming(runner)  # unless training is about to start

    def before_train(self, runner: Runner) -> None:
        """Set the sampler to the position of the checkpoint."""
        loader, loop = runner.train_dataloader, runner.train_loop
        state = self._state_of_resume(runner)
        self._went_back = False
        self._seed = _of_first_rank(state.get('run_seed', runner.seed))
        if not _has_batches(loader):
            if runner.iter:
                runner.logger.warning(f'{_NOT_EXACT}: its data have no batch sampler with indices')
            return
        endless, batches = hasattr(loop, 'dataloader_iterator'), loader.batch_sampler
        if isinstance(batches, SeededBatches):  # of an earlier train() of this process
            batches = batches.batches
        self._batches = SeededBatches(batches, self._seed, endless)
        if 'seed' in state:
            self._batches.sampler.seed = state['seed']
        self._done = self._position(runner, state) if runner.iter else 0
        # DataLoader refuses a new batch sampler because an iterator would not see it: none runs yet
        object.__setattr__(loader, 'batch_sampler', self._batches)
        if endless:
            self._batches.start_at(0, self._done)
            loop.dataloader_iterator = _AfterSkipping(loader, loop.iter)
        self._used = self._done

    def before_train_epoch(self, runner: Runner) -> None:
        """Start an epoch of the data, at its first batch or after those of the checkpoint."""
        if self._batches is None or self._batches.endless:
            return
        loop = runner.train_loop
        vars(loop).pop('run_iter', None)  # of an epoch that a rollback has ended
        if self._went_back:
            self._change_seeds(runner)
        done, self._done = self._done, 0
        self._used = done
        self._batches.start_at(runner.epoch, done)
        if done:
            loop.run_iter = partial(_run_numbered, loop.run_iter, done)

    def after_train_epoch(self, runner: Runner) -> None:
        """Number the batches of the next epoch from 0."""
        if self._batches is not None and not self._batches.endless:
            self._used = 0  # of the next epoch, also in a checkpoint of the validation
        vars(runner.train_loop).pop('run_iter', None)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the process."""
        seed_process(self._seed, Purpose.TRAINING_STEP, dist.get_rank(), runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Count the batches and samples."""
        self._used += 1
        self._trained += _samples_a_step(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the seeds of the run and the sampler, and the position in the data."""
        state = checkpoint[STATE_KEY] = dict(run_seed=self._seed)
        if self._batches is None:
            return
        state['size'] = len(runner.train_dataloader.dataset)
        if hasattr(self._batches.sampler, 'seed'):
            state['seed'] = self._batches.sampler.seed
        if _starts_anywhere(self._batches.batches):
            state['trained'] = self._start + self._trained
            return
        state.update(batches=self._used, batch=_samples_a_step(runner))

    def _change_seeds(self, runner: Runner) -> None:
        """Give the epoch that is repeated after a rollback other batches and random numbers."""
        assert self._batches is not None
        self._went_back = False
        self._seed = self._batches.seed = seed_after_rollback(self._seed)
        if hasattr(self._batches.sampler, 'seed'):
            self._batches.sampler.seed = seed_after_rollback(self._batches.sampler.seed)
        # not 0 if the run has been resumed in the middle of this epoch
        self._done = self._position(runner, self._loaded or {})

    def _state_of_resume(self, runner: Runner) -> dict:
        if not runner.iter:  # a checkpoint without iterations has weights only (load_from)
            return {}
        if self._loaded is not None:
            return self._loaded
        message = 'the checkpoint was written without RandomStateHook'
        loader = runner.train_dataloader
        if _has_batches(loader) and _starts_anywhere(loader.batch_sampler):
            raise ResumeError(
                f'{message}: it does not contain the position in the data. Set '
                'default_hooks.random_state=None to start at the first sample, or start the training again'
            )
        runner.logger.warning(f'{message}: the resumed training will not equal an uninterrupted one')
        return {}

    def _position(self, runner: Runner, state: dict) -> int:
        """Number of batches to skip. A sampler that can start anywhere is set instead."""
        loop, batches, now = runner.train_loop, self._batches, _samples_a_step(runner)
        assert batches is not None
        anywhere = _starts_anywhere(batches.batches)
        if state and anywhere != ('trained' in state):
            runner.logger.warning(f'{_NOT_EXACT}: it had another sampler')
        size = len(runner.train_dataloader.dataset)
        if state.get('size', size) != size:
            runner.logger.warning(
                f'the dataset had {state["size"]} samples and now has {size}: training continues in another order of '
                'the samples. Were files added or removed?'
            )
        if anywhere:
            self._start = state.get('trained', loop.iter * now)
            batches.sampler.start_at(self._start)
            return 0
        # checkpoints of earlier versions do not hold the number
        passed = 0 if batches.endless else loop.epoch * len(batches)
        done, before = state.get('batches', max(loop.iter - passed, 0)), state.get('batch', now)
        if before == now:
            return done
        runner.logger.warning(
            f'{_NOT_EXACT}: a step had {before} samples of all ranks and now has {now}. It continues near '
            'the same sample'
        )
        return done * before // now


def _of_first_rank(seed: int) -> int:
    # ranks have seeds of their own with randomness.diff_rank_seed; a checkpoint holds one of them
    seeds = [seed]
    dist.broadcast_object_list(seeds)
    return seeds[0]


def _has_batches(loader: Any) -> bool:
    has_indices = not isinstance(getattr(loader, 'dataset', None), IterableDataset)
    return has_indices and getattr(getattr(loader, 'batch_sampler', None), 'sampler', None) is not None


def _starts_anywhere(batches: Any) -> bool:
    # other batch samplers hold samples back
    return isinstance(batches.sampler, ResumableInfiniteSampler) and type(batches) is BatchSampler


def _samples_a_step(runner: Runner) -> int:
    size = getattr(getattr(runner.train_dataloader, 'batch_sampler', None), 'batch_size', None) or 1
    # mmdet's batch sampler of several datasets has a size for each
    return (sum(size) if isinstance(size, Sequence) else size) * dist.get_world_size()


def _run_numbered(run_iter: Callable, first: int, idx: int, data_batch: Any) -> None:
    """Run an iteration of an epoch that was resumed after ``first`` batches."""
    run_iter(first + idx, data_batch)


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
