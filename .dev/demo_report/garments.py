# Copyright (c) addp_mm contributors. Apache-2.0.
"""The part of the demo that generates garments of given classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from addp_mm.benchmark.step import Step
from addp_mm.datasets.fashion.fashion_mnist import CLASSES
from addp_mm.report.page import Figure, Section
from demo_report.drawings import Cell, scene_grid
from demo_report.generation import SAMPLING, SHORT_SAMPLING
from demo_report.parts import ASSETS, Part, Setting, commands, open_rgb

CONFIG = Path('configs/pretrain/addp_vit-nano-p8_class-cond_2xb16-fp32-4k_fashion-scenes-64px.py')
# ADDP loads the other two files by the checkpoints of its config.
WEIGHTS = tuple(
    ASSETS / f'{name}.safetensors'
    for name in ('addp_nano-p8_class-cond', 'token-predictor_nano-p8_class-cond', 'vq-tokenizer_nano-p8')
)
GUIDANCE = '1'
ROWS = 4
_CELL_INCHES = 0.95


def generated_garments(setting: Setting) -> Part:
    """Garments of each class, with guidance."""
    out = setting.folder / 'garments'
    rows = 1 if setting.short else ROWS
    options = ('--classes', 'all', '--guidance', GUIDANCE, '--num-images', str(rows * len(CLASSES)))
    step = Step(
        'garments',
        'Generate garments of each class',
        (
            'tools/generate.py',
            str(CONFIG),
            str(WEIGHTS[0]),
            *('--out', str(out), *options, '--grid', '0', '--show-steps', '0'),
            *(SHORT_SAMPLING if setting.short else SAMPLING),
        ),
        (out / f'images/{rows * len(CLASSES) - 1:06d}.png',),
        WEIGHTS,
        folder=out,
        configs=(CONFIG,),
    )

    def section() -> Section:
        # the tool gives the images all classes in turn
        cells = [Cell(np.asarray(open_rgb(out / f'images/{index:06d}.png'))) for index in range(rows * len(CLASSES))]
        grid = [cells[start : start + len(CLASSES)] for start in range(0, len(cells), len(CLASSES))]
        caption = (
            f'{len(cells)} images of one garment, without selection: the class of each column was given. '
            f'Classifier-free guidance of scale {GUIDANCE} makes the class clearer.'
        )
        figure = Figure(caption, commands([step]), [scene_grid(CLASSES, grid, inches=_CELL_INCHES)])
        text = 'These weights were trained with classes, so that you choose what is generated.'
        return Section('Garments by class', [figure], text)

    return Part([step], section)
