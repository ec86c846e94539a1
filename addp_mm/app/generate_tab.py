# Copyright (c) addp_mm contributors. Apache-2.0.
"""The tab "Generate"."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from PIL import Image

from addp_mm.apis import generate
from addp_mm.app.image_views import gallery
from addp_mm.app.messages import in_words
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


def write_zip(images: Sequence[np.ndarray], folder: Path) -> str:
    """Write images as PNG files into a new zip file below the folder; return its path."""
    path = Path(tempfile.mkdtemp(dir=folder)) / 'generated.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        for index, image in enumerate(images):
            with archive.open(f'{index:06d}.png', 'w') as file:
                Image.fromarray(image).save(file, 'PNG')
    return str(path)


def generate_tab(model: ADDP, classes: Sequence[str], folder: Path, queue: dict[str, Any]) -> None:
    """Add the tab.

    Args:
        model: The model that generates.
        classes: Names of its classes.
        folder: For the files to download.
        queue: Arguments of the event that share one queue.
    """

    @in_words
    def run(num_images, seed, progress=gr.Progress(), *controls):  # noqa: B008  # Gradio's way
        images = generated(model, progress, num_images, seed, *controls)
        return images, gr.DownloadButton(value=write_zip(images, folder), interactive=True)

    with gr.Tab('Generate'), gr.Row():
        with gr.Column(scale=1, min_width=280):
            number = gr.Slider(1, MAX_IMAGES, 8, step=1, label='Images')
            seed = seed_control()
            controls = sampling_controls(model, classes)
            button = gr.Button('Generate', variant='primary')
        with gr.Column(scale=3):
            images = gallery(4)
            download = gr.DownloadButton('Download all (zip of PNG)', interactive=False, size='sm')
        button.click(run, [number, seed, *controls], [images, download], **queue)
