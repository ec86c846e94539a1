# Copyright (c) addp_mm contributors. Apache-2.0.
"""The tab "Inpaint"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import gradio as gr
import numpy as np
import torch
from torch.nn import functional as F

from addp_mm.apis import inpaint
from addp_mm.app.computations import Computations
from addp_mm.app.example_scenes import example_scene
from addp_mm.app.image_generator import ImageGenerator
from addp_mm.app.image_views import download_button, gallery, zip_to_download
from addp_mm.app.messages import in_words
from addp_mm.app.sampling_controls import checked_seed, sampling_controls, sampling_options, seed_control, step_counter
from addp_mm.app.uploads import READING, opened, reduce_to, shown, to_tensor
from addp_mm.errors import ConfigError
from addp_mm.generation import AlternatingSampler, SamplingSchedule, TiledInpainter, token_mask
from addp_mm.generation.canvas import add_canvas
from addp_mm.generation.figures import enlarge

if TYPE_CHECKING:
    from gradio.components.image_editor import EditorValue

    from addp_mm.models.selfsup import ADDP

MAX_SAMPLES = 8
#: Tiles of all samples together; more would take a CPU minutes.
MAX_TILES = 500
CANVAS = 512
SIDES = ('Left', 'Top', 'Right', 'Bottom')
_GREY = 0.5


def tile_size(model: ADDP) -> tuple[int, int]:
    """(height, width) of the images that the model generates, which are the tiles of others."""
    stride = model.tokenizer.stride
    return model.latent_size[0] * stride, model.latent_size[1] * stride


def drawn_mask(drawing: dict | None, size: tuple[int, int]) -> np.ndarray:
    """The drawing as a mask over the pixels of the image.

    Args:
        drawing: Value of the editor: ``layers`` are uint8 (H, W, 4).
        size: (height, width) of the image.

    Returns:
        bool (height, width), True where a pixel is painted, also in part.
    """
    painted = np.zeros(size, bool)
    for layer in (drawing or {}).get('layers') or []:
        alpha = (np.asarray(layer)[..., 3] > 0).astype(np.float32)
        painted |= cv2.resize(alpha, size[::-1], interpolation=cv2.INTER_AREA) > 0
    return painted


def inpainted(
    model: ADDP,
    progress: Callable,
    image: np.ndarray,
    drawing: dict | None,
    canvas: Sequence[int],
    num_samples: int,
    seed: int | None,
    *controls: Any,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Inpaint with the values of the tab.

    Args:
        model: The model that generates.
        progress: Of the handler.
        image: uint8 (H, W, 3).
        drawing: See :func:`drawn_mask`.
        canvas: New pixels on the :data:`SIDES`.
        num_samples: Number of samples.
        seed: Seed of all random numbers.
        *controls: Values of the controls of the sampling.

    Returns:
        The image with its masked tokens in grey, and the samples.

    Raises:
        ConfigError: Nothing is to be generated, too much is, or an option is out of its range.
    """
    pixels, painted = add_canvas(image, drawn_mask(drawing, image.shape[:2]), *map(int, canvas))
    if not painted.any():
        raise ConfigError('nothing is to be generated: draw on the image, or add new canvas beside it')
    images, mask = to_tensor(pixels, model.in_channels), torch.from_numpy(painted)
    options = sampling_options(num_samples, *controls)
    count = step_counter(progress, num_samples, options['num_steps'], checked_tiles(model, mask, num_samples))
    samples = inpaint(
        model,
        images.expand(num_samples, -1, -1, -1),
        mask.expand(num_samples, -1, -1),
        checked_seed(seed),
        progress=count,
        **options,
    )
    return seen_by_model(model, images, mask), shown(samples.images)


def checked_tiles(model: ADDP, mask: torch.Tensor, num_samples: int) -> int:
    """Number of tiles of each sample.

    Raises:
        ConfigError: All samples together need more than :data:`MAX_TILES`.
    """
    one_step = AlternatingSampler(model, model.latent_size, SamplingSchedule(1))
    (tiles,) = TiledInpainter(one_step, model.tokenizer.stride).plan(mask[None])
    if len(tiles) * num_samples > MAX_TILES:
        height, width = tile_size(model)
        raise ConfigError(
            f'this needs {len(tiles)} tiles of {width} x {height} pixels for each of {num_samples} samples, '
            f'{len(tiles) * num_samples} in all; the page generates at most {MAX_TILES}: draw on a smaller part, take '
            'fewer samples or a smaller image, or use addp inpaint in a terminal, which has no limit'
        )
    return len(tiles)


def seen_by_model(model: ADDP, images: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """The image with its masked tokens in grey: a token is masked if any of its pixels is."""
    stride = model.tokenizer.stride
    height, width = mask.shape
    padded = F.pad(mask[None], (0, -width % stride, 0, -height % stride))
    tokens = token_mask(padded, stride).view(-1, padded.shape[2] // stride)
    masked = tokens.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
    return shown(images.masked_fill(masked[:height, :width], _GREY))[0]


def editor_value(image: np.ndarray) -> EditorValue:
    """The value of the editor with this image and no drawing."""
    return dict(background=reduce_to(enlarge(image, CANVAS), 2 * CANVAS)[0], layers=[], composite=None)


def inpaint_tab(generator: ImageGenerator, folder: Path, computations: Computations) -> None:
    """Add the tab.

    Args:
        generator: The model that generates.
        folder: For the files to download.
        computations: Those of all tabs.
    """
    model = generator.model
    size = tile_size(model)
    first = example_scene(0, max(size))

    @in_words
    def upload(path):
        image, note = opened(path)
        return image, editor_value(image), note

    def example(index):
        image = example_scene(index + 1, max(size))
        return index + 1, image, editor_value(image), ''

    def run(progress, image, drawing, left, top, right, bottom, num_samples, seed, *controls):
        canvas = (left, top, right, bottom)
        masked, samples = inpainted(model, progress, image, drawing, canvas, num_samples, seed, *controls)
        titled = [(masked, 'masked'), *((sample, f'sample {k}') for k, sample in enumerate(samples, 1))]
        return titled, zip_to_download(samples, folder)

    with gr.Tab('Inpaint'), gr.Row():
        image, number = gr.State(first), gr.State(0)
        with gr.Column(scale=2, min_width=400):
            editor = gr.ImageEditor(
                editor_value(first),
                label='Draw where the model is to generate',
                type='numpy',
                sources=(),
                transforms=(),
                layers=False,
                height=480,
                brush=gr.Brush(default_size=60, colors=['#e6194b'], color_mode='fixed'),
            )
            note = gr.Markdown()
            with gr.Row():
                another = gr.Button('Another example')
                file = gr.UploadButton('Upload an image', type='filepath')
            canvas = canvas_controls(size, model.tokenizer.stride)
        with gr.Column(scale=2, min_width=320):
            with gr.Row():
                samples = gr.Slider(1, MAX_SAMPLES, 5, step=1, label='Samples')
                seed = seed_control()
            controls = sampling_controls(generator)
            buttons = computations.buttons('Inpaint')
            results = gallery(3)
            download = download_button()
        file.upload(upload, file, [image, editor, note], **READING)
        another.click(example, number, [number, image, editor, note], **READING)
        computations.connect(buttons, run, [image, editor, *canvas, samples, seed, *controls], [results, download])


def canvas_controls(size: tuple[int, int], stride: int) -> list[gr.Slider]:
    """Add a slider for each of the :data:`SIDES`: pixels of new canvas.

    Args:
        size: (height, width) of a tile.
        stride: Side of a token in pixels, on which the seams are best.
    """
    height, width = size
    with gr.Accordion('Outpaint: new canvas beside the image', open=False), gr.Row():
        return [
            gr.Slider(0, 2 * most, 0, step=stride, label=f'{side} (pixels)', min_width=160)
            for side, most in zip(SIDES, (width, height, width, height), strict=True)
        ]
