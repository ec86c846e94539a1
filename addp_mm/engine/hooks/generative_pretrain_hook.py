# Copyright (c) addp_mm contributors. Apache-2.0.
"""Checks, failure handling and previews of a generative pre-training."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner

from addp_mm.engine.hooks.checkpoint_rollback import (
    RollBackError,
    RunCheckpoints,
    check_can_roll_back,
    on_rollback,
    restore,
)
from addp_mm.engine.hooks.failures import LossGuard, TrainingCollapsedError, non_finite_weight, saves_now
from addp_mm.engine.hooks.frozen_components import check_equal_on_all_ranks, check_loaded
from addp_mm.engine.hooks.generation_preview import GenerationPreview
from addp_mm.engine.unwrap import bare_model, is_resuming
from addp_mm.registry import HOOKS

STATE_KEY = 'generative_pretrain'


@HOOKS.register_module()
class GenerativePretrainHook(Hook):
    """Monitor the pre-training of a model such as :class:`~addp_mm.models.selfsup.ADDP`.

    - Before training it checks that the frozen tokenizer and predictor are loaded, and equal on all
      ranks.
    - After each iteration it logs the loss by mask ratio (``loss_at_ratio_…``).
    - It stops training, or takes it back to the last good checkpoint of this run, if the loss is
      non-finite or has collapsed on any rank, or if non-finite weights would be saved now. A
      rollback restores model, optimizer, schedulers and counters; the data continue. Nothing is
      saved before.
    - Every ``preview_interval`` iterations, and at the end, rank 0 sends a grid of generated images
      and the alternating steps of the first of them to the visualizer. All previews of a run start
      from the same noise, so that they can be compared. With an EMAHook the averaged weights draw,
      as in the checkpoints. Previews change neither the random numbers of training nor the modes of
      the modules.

    Args:
        on_failure: 'stop' raises an error; 'rollback' goes back at most ``max_rollbacks`` times,
            then raises the error. Defaults to 'stop'.
        max_rollbacks: Rollbacks of a whole run, including those before a resume. Defaults to 3.
        guard: Arguments of :class:`~addp_mm.engine.hooks.LossGuard`, which detects a collapsed
            loss. Defaults to None: its defaults.
        num_level_bins: Bins of the mask ratio by which the loss is logged. Defaults to 5.
        preview_interval: Iterations between previews; 0: no previews. Defaults to 1000.
        preview_images: Images of the grid. Defaults to 16.
        sampler: Arguments of :class:`~addp_mm.generation.SamplingSchedule`. Defaults to None: 12
            steps, or one for each token if there are fewer.

    Raises:
        ValueError: An option is out of its range.
    """

    # Runs before LoggerHook and ParamSchedulerHook, so that a failed iteration is neither logged,
    # counted nor saved.
    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        on_failure: str = 'stop',
        max_rollbacks: int = 3,
        guard: dict | None = None,
        num_level_bins: int = 5,
        preview_interval: int = 1000,
        preview_images: int = 16,
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
        self.preview: GenerationPreview | None = None
        if preview_interval:
            self.preview = GenerationPreview(preview_interval, preview_images, sampler)
        self.rollbacks = 0
        self._tried: set[str] = set()
        self._checkpoints: Any = None  # a RunCheckpoints after the first iteration

    def before_train(self, runner: Runner) -> None:
        """Check the frozen components, the sampler's options and the checkpoint settings."""
        model = bare_model(runner)
        if not hasattr(model, 'unloaded_components'):
            raise TypeError(
                f'{type(model).__name__} has no frozen tokenizer and predictor; GenerativePretrainHook '
                'belongs in the config of an ADDP pre-training only'
            )
        check_loaded(model)
        check_equal_on_all_ranks(model.frozen_components)
        if self.preview is not None and self.preview not in runner.hooks:
            runner.register_hook(self.preview)
        self._checkpoints = None
        if self.on_failure == 'rollback':
            check_can_roll_back(runner)
            on_rollback(runner, self._roll_back)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """List the checkpoints in the folder at the first iteration."""
        # not in before_train, where CheckpointHook sets its folder after this hook
        self._checkpoints = self._checkpoints or RunCheckpoints(runner)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Check the loss, and log it by mask ratio."""
        loss, ratio = torch.stack([outputs['loss'].float(), outputs['mask_ratio'].float()]).tolist()
        self._check(runner, loss, ratio, batch_idx)
        runner.message_hub.update_scalar(f'train/{self._bin_name(runner, ratio)}', loss)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the running mean of the loss and the number of rollbacks."""
        checkpoint[STATE_KEY] = dict(guard=self.guard.state(), rollbacks=self.rollbacks)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Continue from the stored values on resume; ``load_from`` loads weights only."""
        if STATE_KEY not in checkpoint or not is_resuming(runner):
            return
        state = checkpoint[STATE_KEY]
        self.guard.load(state['guard'])
        self.rollbacks = max(self.rollbacks, state['rollbacks'])

    def _bin_name(self, runner: Runner, ratio: float) -> str:
        ratios = bare_model(runner).schedule.ratios
        low, high = float(ratios.min()), float(ratios.max())
        width = (high - low) / self.num_level_bins
        index = min(int((ratio - low) / width), self.num_level_bins - 1) if width else 0
        return f'loss_at_ratio_{low + index * width:.2f}-{low + (index + 1) * width:.2f}'

    def _check(self, runner: Runner, loss: float, ratio: float, batch_idx: int) -> None:
        """Check the mean loss of all ranks, and weights that will be saved now, on all ranks."""
        mean = torch.tensor(loss, dtype=torch.float64)
        dist.all_reduce(mean, 'mean')
        reason = self.guard.check(mean.item())
        if reason is None and saves_now(self, runner, batch_idx):
            name = non_finite_weight(runner.model)
            reason = name and f'{name} is not finite after this step, though the loss before it was'
        if reason is None:
            return
        gathered = torch.stack(dist.all_gather(torch.tensor([loss, ratio], dtype=torch.float64))).tolist()
        broken = [rank for rank, (value, _) in enumerate(gathered) if not math.isfinite(value)]
        where = ', '.join(
            f'mask ratio {gathered[rank][1]:.3f} on rank {rank}' for rank in broken or range(len(gathered))
        )
        failure = f'training failed at iteration {runner.iter + 1} ({where}): {reason}'
        if self.on_failure == 'stop':
            raise TrainingCollapsedError(f"{failure}. {self._advice()}, or set on_failure='rollback'")
        raise RollBackError(failure)

    def _advice(self) -> str:
        path = next(self._checkpoints.good(), None)
        start = (
            f'The last good checkpoint is {path}: resume from it'
            if path
            else f'{self._checkpoints.folder} has no good checkpoint of this run: restart'
        )
        return f'{start} with a lower learning rate or stronger gradient clipping'

    def _roll_back(self, runner: Runner, failure: str) -> None:
        if self.rollbacks >= self.max_rollbacks:
            raise TrainingCollapsedError(f'{failure}; {self.rollbacks} rollback(s) did not help. {self._advice()}')
        path = self._checkpoints.choose(self._tried)
        if path is None:
            raise TrainingCollapsedError(
                f'{failure}; there is no good checkpoint yet to go back to. Lower the learning '
                'rate, or save checkpoints more often'
            )
        self.rollbacks += 1
        self._tried.add(path)
        restore(runner, path)
        runner.logger.warning(f'{failure}; went back to {path} (rollback {self.rollbacks} of {self.max_rollbacks})')
