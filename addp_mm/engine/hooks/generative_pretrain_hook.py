# Copyright (c) addp_mm contributors. Apache-2.0.
from __future__ import annotations

import math

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from addp_mm.engine.hooks.checkpoint_rollback import RollBack, RunCheckpoints, check_can_roll_back, on_rollback, restore
from addp_mm.engine.hooks.frozen_parts import check_equal_on_all_ranks, check_loaded
from addp_mm.engine.hooks.loss_guard import LossGuard, TrainingCollapsed
from addp_mm.engine.hooks.noise_streams import NoiseStreams
from addp_mm.engine.hooks.previews import evaluating, show
from addp_mm.engine.hooks.weight_guard import saves_now, spoilt_weight
from addp_mm.engine.strategies.sharded import is_sharded, whole_outside_of_units
from addp_mm.engine.unwrap import bare_model
from addp_mm.generation import AlternatingSampler, figures
from addp_mm.registry import HOOKS

STATE_KEY = 'generative_pretrain'


@HOOKS.register_module()
class GenerativePretrainHook(Hook):
    """The loop of generative pre-training around a model such as :class:`~addp_mm.models.selfsup.ADDP`.

    - Before training it checks that the frozen tokenizer and predictor are loaded, and equal on all
      ranks.
    - Before each iteration it draws the noise level and the source of the masks (``model.noise``)
      from ``model.schedule``, by a stream of its own for each rank. Checkpoints hold the streams of
      all ranks.
    - After each iteration it logs the level (``noise_step``; the model logs its ratios) and the
      loss by level (``loss_at_ratio_…``).
    - A loss that is not finite, or has collapsed, on any rank, or weights that are not finite and
      would be saved now, stop training or take it back to the last good checkpoint of this run
      (model, optimizer, schedulers, counters, streams; the data go on), before anything is saved.
    - Every ``preview_interval`` iterations, and at the end, rank 0 sends a grid of generated images
      and the alternating steps of the first of them to the visualizer. Previews have a seed of
      their own and leave the training's random streams and the modules' modes alone.

    Args:
        seed: Seed of the noise streams; rank r uses ``seed + r``.
        on_failure: 'stop' raises an error, 'rollback' goes back first, at most ``max_rollbacks``
            times.
        max_rollbacks: Rollbacks of a whole run, resumed parts included.
        guard: Arguments of :class:`~addp_mm.engine.hooks.LossGuard`, which says when a loss has
            collapsed.
        num_level_bins: Bins of the mask ratio over which the loss is logged.
        preview_interval: Iterations between previews; 0 for none.
        preview_images: Images of the grid.
        preview_seed: Seed of the previews: the same noise each time, so that pictures compare.
        sampler: Arguments of :class:`~addp_mm.generation.AlternatingSampler` other than model and
            grid.

    Raises:
        ValueError: If an option lies outside its range.
    """

    # before LoggerHook and ParamSchedulerHook, so that a failed iteration is neither logged,
    # counted nor saved
    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        seed: int = 0,
        on_failure: str = 'stop',
        max_rollbacks: int = 3,
        guard: dict | None = None,
        num_level_bins: int = 5,
        preview_interval: int = 1000,
        preview_images: int = 16,
        preview_seed: int = 0,
        sampler: dict | None = None,
    ) -> None:
        if on_failure not in ('stop', 'rollback'):
            raise ValueError(f"on_failure must be 'stop' or 'rollback', got {on_failure!r}")
        if max_rollbacks < 0 or num_level_bins < 1 or preview_interval < 0 or preview_images < 1:
            raise ValueError(
                'max_rollbacks and preview_interval must not be negative, num_level_bins and '
                f'preview_images at least 1; got {max_rollbacks}, {preview_interval}, '
                f'{num_level_bins} and {preview_images}'
            )
        self.on_failure, self.max_rollbacks = on_failure, max_rollbacks
        self.guard = LossGuard(**(guard or {}))
        self.num_level_bins = num_level_bins
        self.preview_interval, self.preview_images = preview_interval, preview_images
        self.preview_seed = preview_seed
        self.sampler = dict(num_steps=12) if sampler is None else dict(sampler)
        self.streams = NoiseStreams(seed, dist.get_world_size())
        self.rollbacks = 0
        self._tried: set[str] = set()
        self._checkpoints: RunCheckpoints | None = None

    def before_train(self, runner: Runner) -> None:
        model = bare_model(runner)
        if not hasattr(model, 'unloaded_parts'):
            raise TypeError(
                f'{type(model).__name__} has no frozen tokenizer and predictor; GenerativePretrainHook '
                'belongs into the config of an ADDP pre-training alone'
            )
        check_loaded(model)
        check_equal_on_all_ranks(model.frozen_parts)
        if self.preview_interval:
            # a mistake in the sampler's options shows now, not at the first preview
            self._build_sampler(model)
        self._checkpoints = None
        if self.on_failure == 'rollback':
            check_can_roll_back(runner)
            on_rollback(runner, self._roll_back)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        # not earlier: CheckpointHook, whose turn comes later, sets its folder before training too
        self._checkpoints = self._checkpoints or RunCheckpoints(runner)
        model = bare_model(runner)
        model.noise = self.streams.draw(model.schedule, dist.get_rank())
        # the model uses its noise up
        self.level = model.noise.level

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        loss = outputs['loss'].item()
        self._check(runner, loss, batch_idx)
        runner.message_hub.update_scalar('train/noise_step', self.level.step)
        runner.message_hub.update_scalar(f'train/{self._bin_name(runner)}', loss)
        if self.preview_interval and (
            self.every_n_train_iters(runner, self.preview_interval) or self.is_last_train_iter(runner)
        ):
            self._preview(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint[STATE_KEY] = dict(streams=self.streams.state(), guard=self.guard.state(), rollbacks=self.rollbacks)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # a checkpoint that only starts another run (load_from) brings weights, not the course of
        # its own training
        if STATE_KEY not in checkpoint or not runner._resume:
            return
        state = checkpoint[STATE_KEY]
        saved, wanted = self.streams.load(state['streams']), dist.get_world_size()
        if saved != wanted:
            runner.logger.warning(
                f'the checkpoint holds the noise streams of {saved} rank(s), this run has {wanted}: '
                'ranks without a saved stream start from their seed'
            )
        self.guard.load(state['guard'])
        self.rollbacks = max(self.rollbacks, state['rollbacks'])

    def _bin_name(self, runner: Runner) -> str:
        ratios = bare_model(runner).schedule.ratios
        low, high = float(ratios.min()), float(ratios.max())
        width = (high - low) / self.num_level_bins
        index = min(int((self.level.ratio - low) / width), self.num_level_bins - 1) if width else 0
        return f'loss_at_ratio_{low + index * width:.2f}-{low + (index + 1) * width:.2f}'

    def _check(self, runner: Runner, loss: float, batch_idx: int) -> None:
        """Judge the mean loss of all ranks, and weights about to be saved; every rank comes to the same end."""
        gathered = torch.stack(dist.all_gather(torch.tensor([loss, self.level.ratio], dtype=torch.float64)))
        gathered = gathered.tolist()
        reason = self.guard.check(sum(value for value, _ in gathered) / len(gathered))
        if reason is None and saves_now(self, runner, batch_idx):
            name = spoilt_weight(runner.model)
            reason = name and f'{name} is not finite after this step, though the loss before it was'
        if reason is None:
            return
        broken = [rank for rank, (value, _) in enumerate(gathered) if not math.isfinite(value)]
        where = ', '.join(
            f'mask ratio {gathered[rank][1]:.3f} on rank {rank}' for rank in broken or range(len(gathered))
        )
        failure = f'training failed at iteration {runner.iter + 1} ({where}): {reason}'
        if self.on_failure == 'stop':
            raise TrainingCollapsed(f'{failure}. {self._advice()}')
        raise RollBack(failure)

    def _advice(self) -> str:
        path = next(self._checkpoints.good(), None)
        start = (
            f'The last good checkpoint is {path}: resume from it'
            if path
            else f'{self._checkpoints.folder} holds no good checkpoint of this run: restart'
        )
        changes = ['a lower learning rate', 'stronger gradient clipping']
        if self.on_failure == 'stop':
            changes.append("on_failure='rollback'")
        return f'{start} with {", ".join(changes[:-1])} or {changes[-1]}'

    def _roll_back(self, runner: Runner, failure: str) -> None:
        if self.rollbacks >= self.max_rollbacks:
            raise TrainingCollapsed(f'{failure}; {self.rollbacks} rollback(s) did not help. {self._advice()}')
        path = self._checkpoints.choose(self._tried)
        if path is None:
            raise TrainingCollapsed(
                f'{failure}; there is no good checkpoint yet to go back to. Lower the learning '
                'rate, or save checkpoints more often'
            )
        self.rollbacks += 1
        self._tried.add(path)
        restore(runner, path)
        runner.logger.warning(f'{failure}; went back to {path} (rollback {self.rollbacks} of {self.max_rollbacks})')

    def _build_sampler(self, model: nn.Module) -> AlternatingSampler:
        return AlternatingSampler(model, model.latent_size, **self.sampler)

    def _preview(self, runner: Runner) -> None:
        # a sharded model runs on all ranks at once or not at all
        if not dist.is_main_process() and not is_sharded(runner.model):
            return
        model = bare_model(runner)
        with evaluating(model), whole_outside_of_units(runner.model):
            sampler = self._build_sampler(model)
            samples = sampler.run(
                self.preview_images, torch.Generator().manual_seed(self.preview_seed), keep_steps=True
            )
        if not dist.is_main_process():
            return
        codebook_size = len(model.tokenizer.codebook)
        show(runner, 'generated', figures.image_grid(list(figures.to_uint8(samples.images))))
        show(runner, 'alternating_steps', figures.steps_figure(samples.steps, sampler.grid_size, codebook_size))
