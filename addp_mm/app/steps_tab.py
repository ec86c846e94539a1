# Copyright (c) addp_mm contributors. Apache-2.0.
"""The tab "Steps": the alternation of tokens and pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from addp_mm.apis import generate
from addp_mm.app.computations import Computations
from addp_mm.app.image_generator import ImageGenerator
from addp_mm.app.image_views import picture
from addp_mm.app.sampling_controls import checked_seed, sampling_controls, sampling_options, seed_control, step_counter
from addp_mm.app.uploads import shown
from addp_mm.generation.figures import enlarge, steps_figure, token_map

if TYPE_CHECKING:
    from addp_mm.generation import SamplingStep
    from addp_mm.models.selfsup import ADDP

SIDE = 384


def recorded(
    model: ADDP, progress: Callable, seed: int | None, *controls: Any
) -> tuple[tuple[SamplingStep, ...], np.ndarray]:
    """Generate one image with the values of the tab, and keep its steps.

    Returns:
        The states from the start to the end, and the figure of all of them.
    """
    options = sampling_options(1, *controls)
    count = step_counter(progress, 1, options['num_steps'])
    steps = generate(model, 1, checked_seed(seed), keep_steps=True, progress=count, **options).steps
    return steps, steps_figure(steps, model.latent_size, len(model.tokenizer.codebook))


def drawn(model: ADDP, step: SamplingStep) -> tuple[np.ndarray, np.ndarray, str]:
    """Token map, pixels and a sentence for the state of one image."""
    codes = len(model.tokenizer.codebook)
    tokens = enlarge(token_map(step.ids[0], step.mask[0], model.latent_size, codes), SIDE)
    known, total = int((~step.mask[0]).sum()), step.mask.shape[1]
    when = f'After step {step.index}' if step.index else 'Before the first step'
    return tokens, enlarge(shown(step.images)[0], SIDE), f'{when}: {known} of {total} tokens are known.'


def steps_tab(generator: ImageGenerator, computations: Computations) -> None:
    """Add the tab.

    Args:
        generator: The model that generates.
        computations: Those of all tabs.
    """
    model = generator.model

    def run(progress, seed, *controls):
        steps, overview = recorded(model, progress, seed, *controls)
        last = len(steps) - 1
        return steps, gr.Slider(maximum=last, value=last, interactive=True), *drawn(model, steps[last]), overview

    def show(steps, index):
        return drawn(model, steps[min(int(index), len(steps) - 1)])

    with gr.Tab('Steps'), gr.Row():
        steps = gr.State()
        with gr.Column(scale=1, min_width=280):
            seed = seed_control()
            controls = sampling_controls(generator)
            buttons = computations.buttons('Generate one image')
        with gr.Column(scale=3):
            slider = gr.Slider(0, 1, 0, step=1, label='Step', interactive=False)
            text = gr.Markdown('Generate an image, then move the slider.')
            with gr.Row():
                with gr.Column():
                    gr.Markdown('Tokens (hatched: masked)')
                    tokens = picture()
                with gr.Column():
                    gr.Markdown('Pixels')
                    pixels = picture()
            gr.Markdown('All steps: tokens above pixels')
            overview = picture()
        views = [tokens, pixels, text]
        computations.connect(buttons, run, [seed, *controls], [steps, slider, *views, overview])
        slider.input(
            show, [steps, slider], views, show_progress='hidden', trigger_mode='always_last', api_visibility='private'
        )
