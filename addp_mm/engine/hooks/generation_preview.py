# Copyright (c) addp_mm contributors. Apache-2.0.
"""Show generated images while a generative model is trained."""

from __future__ import annotations

import math
from typing import Any

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner

from addp_mm.engine.averages import averaged_weights
from addp_mm.engine.hooks.previews import evaluating, show
from addp_mm.engine.strategies.sharded import is_sharded, whole_outside_of_units
from addp_mm.engine.unwrap import bare_model
from addp_mm.generation import AlternatingSampler, SamplingSchedule, figures
from addp_mm.randomness import Purpose, torch_generator

_NUM_STEPS = 12


class GenerationPreview(Hook):
    """The previews of :class:`~addp_mm.engine.hooks.GenerativePretrainHook`, which adds this hook.

    With an EMAHook the averaged weights draw, as in the checkpoints. A class-conditional model
    shows its classes in turn, without guidance.

    Args:
        interval: Iterations between previews; the last iteration also shows one.
        num_images: Images of the grid.
        sampler: Arguments of :class:`~addp_mm.generation.SamplingSchedule`. None: 12 steps, or one
            for each token if there are fewer.
    """

    # after EMAHook, and before checkpoints are saved
    priority = 'LOW'

    def __init__(self, interval: int, num_images: int, sampler: dict | None) -> None:
        self.interval, self.num_images, self.sampler = interval, num_images, sampler

    def before_train(self, runner: Runner) -> None:
        """Find an error in the sampler's options before the first preview."""
        self._build_sampler(bare_model(runner))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Show a preview when it is due."""
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self._show(runner)

    def _build_sampler(self, model: Any) -> AlternatingSampler:
        options = self.sampler
        if options is None:
            options = dict(num_steps=min(_NUM_STEPS, math.prod(model.latent_size)))
        return AlternatingSampler(model, model.latent_size, SamplingSchedule.of(options))

    def _show(self, runner: Runner) -> None:
        # a sharded model must run on all ranks at once
        if not dist.is_main_process() and not is_sharded(runner.model):
            return
        model = bare_model(runner)
        with averaged_weights(runner), evaluating(model), whole_outside_of_units(runner.model):
            sampler, generator = self._build_sampler(model), torch_generator(runner.seed, Purpose.PREVIEW)
            classes = sampler.num_classes
            labels = [index % classes for index in range(self.num_images)] if classes else None
            samples = sampler.run(self.num_images, generator, keep_steps=True, labels=labels)
        if not dist.is_main_process():
            return
        codebook_size = len(model.tokenizer.codebook)
        show(runner, 'generated', figures.image_grid(list(figures.to_uint8(samples.images))))
        show(runner, 'alternating_steps', figures.steps_figure(samples.steps, model.latent_size, codebook_size))
