# Copyright (c) addp_mm contributors. Apache-2.0.
"""Parts of the demo that generate images with the shipped weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from addp_mm.benchmark.step import Step
from addp_mm.generation.figures import image_grid
from addp_mm.report.figures import image_picture
from addp_mm.report.page import Figure, Section
from demo_report.parts import ADDP_WEIGHTS, GENERATOR_WEIGHTS, Part, Setting, commands, open_rgb

PRETRAIN_CONFIG = Path('configs/pretrain/addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py')
# The published schedule is for 256 tokens; these weights have 64.
SAMPLING = ('--steps', '8', '--schedule', 'power:3.1', '--order', 'halton', '--top-p', '0.69')
SHORT_SAMPLING = ('--steps', '4', *SAMPLING[2:])
GRID_COLUMNS = 8
# Scenes of the validation split, and the options for a part of each: the lower half of a shirt, and
# the upper half of trousers, which the scene cuts off.
EDITS = {
    'inpaint': ('Inpaint a scene', '000015', ('--box', '8,40,32,24')),
    'outpaint': ('Continue a scene beyond its edge', '000013', ('--outpaint', '0,32,0,0')),
}


def generated_scenes(setting: Setting) -> Part:
    """Scenes from noise, beside real ones."""
    out = setting.folder / 'samples'
    options = ('--num-images', '4', *SHORT_SAMPLING) if setting.short else ('--num-images', '64', *SAMPLING)
    step = Step(
        'generate',
        'Generate scenes',
        ('tools/generate.py', str(PRETRAIN_CONFIG), str(ADDP_WEIGHTS), '--out', str(out), *options),
        (out / 'grid.png', out / 'steps.png'),
        GENERATOR_WEIGHTS,
        folder=out,
        configs=(PRETRAIN_CONFIG,),
    )

    def section() -> Section:
        paths = setting.scene_files('train')[: GRID_COLUMNS**2]
        real = Image.fromarray(image_grid([np.asarray(open_rgb(path)) for path in paths], GRID_COLUMNS))
        grids = Figure(
            f'Left: scenes that ADDP generated, without selection. Right: the first {len(paths)} scenes of the '
            'training data (FashionScenes: photographs of garments, in colour, on plain backgrounds).',
            commands([step, setting.scenes]),
            [
                image_picture(open_rgb(out / 'grid.png'), 'grid of generated scenes', 'Generated'),
                image_picture(real, 'grid of training scenes', 'Training data'),
            ],
        )
        strip = image_picture(open_rgb(out / 'steps.png'), 'token maps above images, from all masked to none')
        steps = Figure(
            'The first scene, step by step. Above: its tokens, one colour for each code; masked positions are '
            'hatched. Below: the pixels that the tokenizer decodes at this step, which are the input of the next one.',
            commands([step]),
            [strip],
        )
        text = (
            'Generation starts with all tokens masked. At each step the transformer sees the current pixels, predicts '
            'the tokens, and keeps some of them: here the next ones of a Halton sequence, which are far apart.'
        )
        return Section('Generated scenes', [grids, steps], text)

    return Part([step], section)


def edited_scenes(setting: Setting) -> Part:
    """Scenes of which a part is generated again, and scenes that are continued."""
    out = setting.folder / 'edits'
    steps = []
    for name, (title, scene, edit) in EDITS.items():
        scene = '000001' if setting.short else scene
        options = (*edit, '--num-samples', '4', *(SHORT_SAMPLING if setting.short else SAMPLING))
        image = setting.data_root / f'scenes/val/{scene}.png'
        where = (str(image), '--out', str(out / name))
        steps.append(
            Step(
                name,
                title,
                ('tools/inpaint.py', str(PRETRAIN_CONFIG), str(ADDP_WEIGHTS), *where, *options),
                (out / name / f'figures/{scene}.png',),
                GENERATOR_WEIGHTS,
                (setting.scenes,),
                out / name,
                (PRETRAIN_CONFIG,),
            )
        )
    captions = (
        'A part of a scene is hidden and generated again. From left to right: the scene, the hidden part in white, and '
        'four samples. All other pixels stay as they are.',
        'The same beyond the upper edge of a scene, which cuts off a garment.',
    )

    def section() -> Section:
        figures = [
            Figure(caption, commands([step]), [image_picture(open_rgb(step.outputs[0]), step.title)])
            for step, caption in zip(steps, captions, strict=True)
        ]
        text = 'The same weights fill in hidden parts of images that no training has seen.'
        return Section('Inpainting', figures, text)

    return Part(steps, section)
