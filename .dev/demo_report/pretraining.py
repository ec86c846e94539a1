# Copyright (c) addp_mm contributors. Apache-2.0.
"""The part of the demo that continues the pre-training."""

from __future__ import annotations

import math

from addp_mm.benchmark.step import Step
from addp_mm.report.figures import image_picture, line_charts
from addp_mm.report.logs import read_curve, read_previews
from addp_mm.report.page import Figure, Section
from demo_report.generation import PRETRAIN_CONFIG
from demo_report.parts import ADDP_WEIGHTS, GENERATOR_WEIGHTS, ROOT, Part, Setting, commands

ITERS = 50
CHANCE = math.log(512)  # the loss if all codes are equally likely
COLOURS = ('#14708c', '#b8692a')


def pretraining(setting: Setting) -> Part:
    """A few more iterations of the pre-training, from the shipped weights."""
    folder = setting.folder / 'pretrain'
    iters = 4 if setting.short else ITERS
    options = [
        f'load_from={ADDP_WEIGHTS}',
        f'train_cfg.max_iters={iters}',
        f'train_dataloader.dataset.data_root={setting.data_root}/',
        'optim_wrapper.optimizer.lr=1e-4',
        f'custom_hooks.0.preview_interval={iters}',
        f'default_hooks.logger.interval={max(1, iters // 25)}',
    ]
    if setting.short:
        options.append('train_dataloader.batch_size=8')
    step = Step(
        'pretrain',
        'Continue the pre-training of ADDP',
        ('tools/train.py', str(PRETRAIN_CONFIG), '--work-dir', str(folder), '--cfg-options', *options),
        (folder / f'iter_{iters}.pth',),
        GENERATOR_WEIGHTS,
        (setting.scenes,),
        folder,
        (PRETRAIN_CONFIG,),
    )

    def section() -> Section:
        number, preview = read_previews(ROOT / folder, 'generated')[-1]
        curve = read_curve(ROOT / folder)
        lines = {'this training': curve, 'a model that knows nothing': [(curve[0][0], CHANCE), (curve[-1][0], CHANCE)]}
        figure = Figure(
            'Left: images that the pre-training generates while it runs (also shown in TensorBoard). Right: the loss, '
            'soft cross entropy on masked tokens, mean of each logging interval. Each iteration samples its own noise '
            'level, so the loss varies.',
            commands([step]),
            [
                image_picture(preview, 'generated images', f'After {number:,} iterations'),
                line_charts({'Pre-training loss': lines}, 'iteration', dict(zip(lines, COLOURS, strict=True))),
            ],
        )
        text = f'The demo continues the pre-training from the shipped weights, for {iters} iterations.'
        return Section('Pre-training', [figure], text)

    return Part([step], section)
