# Copyright (c) addp_mm contributors. Apache-2.0.
"""Measure generated images while a generative model is trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from addp_mm.engine.loops.generation_val_loop import GenerationValLoop, ImageNumbers
from addp_mm.errors import ConfigError, first_few
from addp_mm.evaluation.compare_images import check_scores
from addp_mm.evaluation.generation_scores import FEWEST
from addp_mm.registry import HOOKS


@HOOKS.register_module()
class GenerationMetricHook(Hook):
    """Gives a pre-training a validation by generated images, in one line of its config.

    It puts :class:`~addp_mm.engine.loops.GenerationValLoop` with a
    :class:`~addp_mm.evaluation.GenerationMetric` into a run without validation. All that mmengine
    does with a validation works: the log, the visualizer, EMA, ``save_best`` and a schedule that
    watches a metric.

    Args:
        interval: Iterations between validations, or epochs in a training by epochs; the last one
            validates, too.
        reference: Folder of images or .npz file; see
            :class:`~addp_mm.evaluation.reference.Reference`.
        num_images: Images to generate. Defaults to 1000.
        extractor: See :class:`~addp_mm.evaluation.GenerationMetric`. Defaults to None: FID's
            Inception.
        scores: See :class:`~addp_mm.evaluation.GenerationMetric`. Defaults to ('fid', ).
        sampler: See :class:`~addp_mm.engine.loops.GenerationValLoop`. Defaults to None.
        guidance: See :class:`~addp_mm.engine.loops.GenerationValLoop`. Defaults to None.
        batch_size: Images that each process generates together. Defaults to 64.
        seed: Seed of the images. Defaults to 0.
        img_size: Side to which the images of the reference are resized. Defaults to None.
        kid_subset_size: Images in a subset of KID. Defaults to 1000.
        cache_dir: Folder of the reference's cached features. Defaults to None:
            ``~/.cache/addp_mm/features``.

    Raises:
        ConfigError: An option is out of its range, or the config has a validation already.

    Example:
        >>> validation = dict(type='addp_mm.GenerationMetricHook', interval=1000, reference='val')
        >>> custom_hooks = [dict(type='addp_mm.GenerativePretrainHook'), validation]
    """

    # before the hooks that look for a validation
    priority = 'VERY_HIGH'
    # read by addp_mm.checks.save_best, which may run before this hook
    adds_validation = True

    def __init__(
        self,
        interval: int,
        reference: str | None = None,
        num_images: int = 1000,
        extractor: dict | str | None = None,
        scores: Sequence[str] = ('fid',),
        sampler: dict | None = None,
        guidance: dict | None = None,
        batch_size: int = 64,
        seed: int = 0,
        img_size: int | None = None,
        kid_subset_size: int = 1000,
        cache_dir: str | None = None,
    ) -> None:
        if min(interval, num_images, batch_size) < 1:
            raise ConfigError(
                'GenerationMetricHook: interval, num_images and batch_size must be at least 1; got '
                f'{interval}, {num_images} and {batch_size}'
            )
        self.scores = check_scores(scores)
        few = [f'{score} at least {FEWEST[score]}' for score in self.scores if num_images < FEWEST[score]]
        if few:
            raise ConfigError(f'GenerationMetricHook: num_images={num_images} is too few: {first_few(few)}')
        if reference is None and self.scores != ('is',):
            raise ConfigError('GenerationMetricHook needs a reference: a folder of images, or a .npz file')
        if reference is not None and not os.path.exists(reference):
            raise ConfigError(
                f'GenerationMetricHook: reference={reference} does not exist. Give a folder of images, or a .npz file'
            )
        self.interval, self.num_images, self.batch_size = interval, num_images, batch_size
        self.sampler, self.guidance, self.seed = sampler, guidance, seed
        self.metric = dict(
            type='addp_mm.GenerationMetric',
            scores=self.scores,
            reference=reference,
            extractor=extractor,
            img_size=img_size,
            kid_subset_size=kid_subset_size,
            cache_dir=cache_dir,
        )

    def before_train(self, runner: Runner) -> None:
        """Build the validation."""
        loop: Any = runner.train_loop
        if runner.val_loop is not None:
            raise ConfigError(
                'GenerationMetricHook cannot add a second validation: set val_dataloader, val_cfg and val_evaluator to '
                'None, or remove the hook'
            )
        numbers = ImageNumbers(self.num_images, getattr(loop.dataloader.dataset, 'metainfo', None))
        in_order = dict(type='mmengine.DefaultSampler', shuffle=False)
        dataloader = dict(batch_size=self.batch_size, num_workers=0, dataset=numbers, sampler=in_order)
        # mmengine has no public way to set the loop of a runner, and no other to set its interval
        runner._val_loop = GenerationValLoop(  # noqa: SLF001
            runner, dataloader, self.metric, self.sampler, self.guidance, self.seed
        )
        loop.val_interval, loop.dynamic_milestones, loop.dynamic_intervals = self.interval, [0], [self.interval]
