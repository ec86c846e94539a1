# Copyright (c) addp_mm contributors. Apache-2.0.
"""The tab "Generate"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from addp_mm.apis import generate
from addp_mm.app.computations import Computations
from addp_mm.app.image_generator import ImageGenerator
from addp_mm.app.image_views import download_button, gallery, zip_to_download
from addp_mm.app.sampling_controls import checked_seed, sampling_controls, sampling_options, seed_control, step_counter
from addp_mm.app.uploads import shown

if TYPE_CHECKING:
    from addp_mm.models.selfsup import ADDP

MAX_IMAGES = 16


def generated(model: ADDP, progress: Callable, num_images: int, seed: int | None, *controls: Any) -> list:
    """Generate images with the values of the tab; uint8 (H, W, 3) each."""
    options = sampling_options(num_images, *controls)
    count = step_counter(progress, num_images, options['num_steps'])
    return shown(generate(model, num_images, checked_seed(seed), progress=count, **options).images)


def generate_tab(generator: ImageGenerator, folder: Path, computations: Computations) -> None:
    """Add the tab.

    Args:
        generator: The model that generates.
        folder: For the files to download.
        computations: Those of all tabs.
    """
    model = generator.model

    def run(progress, num_images, seed, *controls):
        images = generated(model, progress, num_images, seed, *controls)
        return images, zip_to_download(images, folder)

    with gr.Tab('Generate'), gr.Row():
        with gr.Column(scale=1, min_width=280):
            number = gr.Slider(1, MAX_IMAGES, 8, step=1, label='Images')
            seed = seed_control()
            controls = sampling_controls(generator)
            buttons = computations.buttons('Generate')
        with gr.Column(scale=3):
            images = gallery(4)
            download = download_button()
        computations.connect(buttons, run, [number, seed, *controls], [images, download])
