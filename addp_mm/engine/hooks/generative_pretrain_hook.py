# Copyright (c) addp_mm contributors. Apache-2.0.
"""Checks and previews of a generative pre-training."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from addp_mm.engine.hooks.frozen_components import check_equal_on_all_ranks, check_loaded
from addp_mm.engine.hooks.generation_preview import GenerationPreview
from addp_mm.engine.unwrap import bare_model
from addp_mm.registry import HOOKS


@HOOKS.register_module()
class GenerativePretrainHook(Hook):
    """Monitor the pre-training of a model such as :class:`~addp_mm.models.selfsup.ADDP`.

    - Before training it checks that the frozen tokenizer and predictor are loaded, and equal on all
      ranks.
    - After each iteration it logs the loss by mask ratio (``loss_at_ratio_…``).
    - Every ``preview_interval`` iterations, and at the end, rank 0 sends a grid of generated images
      and the alternating steps of the first of them to the visualizer. All previews of a run start
      from the same noise, so that they can be compared. With an EMAHook the averaged weights draw,
      as in the checkpoints. Previews change neither the random numbers of training nor the modes of
      the modules.

    Args:
        num_level_bins: Bins of the mask ratio by which the loss is logged. Defaults to 5.
        preview_interval: Iterations between previews; 0: no previews. Defaults to 1000.
        preview_images: Images of the grid. Defaults to 16.
        sampler: Arguments of :class:`~addp_mm.generation.SamplingSchedule`. Defaults to None: 12
            steps, or one for each token if there are fewer.

    Raises:
        ValueError: An option is out of its range.
    """

    # before LoggerHook
    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        num_level_bins: int = 5,
        preview_interval: int = 1000,
        preview_images: int = 16,
        sampler: dict | None = None,
    ) -> None:
        if num_level_bins < 1 or preview_interval < 0 or preview_images < 1:
            raise ValueError(
                'preview_interval must not be negative, num_level_bins and preview_images at least 1; '
                f'got {preview_interval}, {num_level_bins} and {preview_images}'
            )
        self.num_level_bins = num_level_bins
        self.preview: GenerationPreview | None = None
        if preview_interval:
            self.preview = GenerationPreview(preview_interval, preview_images, sampler)

    def before_train(self, runner: Runner) -> None:
        """Check the frozen components and the sampler's options."""
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

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Log the loss by mask ratio."""
        loss, ratio = torch.stack([outputs['loss'].float(), outputs['mask_ratio'].float()]).tolist()
        if math.isfinite(loss):
            runner.message_hub.update_scalar(f'train/{self._bin_name(runner, ratio)}', loss)

    def _bin_name(self, runner: Runner, ratio: float) -> str:
        ratios = bare_model(runner).schedule.ratios
        low, high = float(ratios.min()), float(ratios.max())
        width = (high - low) / self.num_level_bins
        index = min(int((ratio - low) / width), self.num_level_bins - 1) if width else 0
        return f'loss_at_ratio_{low + index * width:.2f}-{low + (index + 1) * width:.2f}'
