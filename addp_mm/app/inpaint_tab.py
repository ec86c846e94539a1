# Copyright (c) addp_mm contributors. Apache-2.0.
"""The tab "Inpaint"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import gradio as gr
import numpy as np
import torch

from addp_mm.apis import inpaint
from addp_mm.app.example_scenes import example_scene
from addp_mm.app.image_views import gallery
from addp_mm.app.messages import in_words
from addp_mm.app.sampling_controls import checked_seed, sampling_controls, sampling_options, seed_control, step_counter
from addp_mm.app.uploads import fit_to, read_upload, shown, to_tensor
from addp_mm.errors import ConfigError
from addp_mm.generation import token_mask
from addp_mm.generation.figures import enlarge

if TYPE_CHECKING:
    from addp_mm.models.selfsup import ADDP

MAX_SAMPLES = 8
CANVAS = 512
_GREY = 0.5


def image_size(model: ADDP) -> tuple[int, int]:
    """(height, width) of the images that the model generates."""
    stride = model.tokenizer.stride
    return model.latent_size[0] * stride, model.latent_size[1] * stride


def drawn_mask(drawing: dict | None, size: tuple[int, int]) -> torch.Tensor:
    """The drawing as a mask over the pixels of the image.

    Args:
        drawing: Value of the editor: ``layers`` are uint8 (H, W, 4).
        size: (height, width) of the image.

    Returns:
        bool (height, width), True where a pixel is painted, also in part.

    Raises:
        ConfigError: Nothing is painted.
    """
    layers = [np.asarray(layer)[..., 3] for layer in (drawing or {}).get('layers') or []]
    painted = np.zeros(size, bool)
    for alpha in layers:
        painted |= cv2.resize((alpha > 0).astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) > 0
    if not painted.any():
        raise ConfigError('the mask is empty: draw on the image where the model is to generate')
    return torch.from_numpy(painted)


def inpainted(
    model: ADDP,
    progress: Callable,
    image: np.ndarray,
    drawing: dict | None,
    num_samples: int,
    seed: int | None,
    *controls: Any,
) -> list[tuple[np.ndarray, str]]:
    """Inpaint with the values of the tab.

    Returns:
        Images with their titles: what the model sees, then the samples.
    """
    mask = drawn_mask(drawing, image.shape[:2])
    images = to_tensor(image, model.in_channels)
    options = sampling_options(num_samples, *controls)
    count = step_counter(progress, num_samples, options['num_steps'])
    samples = inpaint(
        model,
        images.repeat(num_samples, 1, 1, 1),
        mask.repeat(num_samples, 1, 1),
        checked_seed(seed),
        progress=count,
        **options,
    )
    results = [(sample, f'sample {index + 1}') for index, sample in enumerate(shown(samples.images))]
    return [(seen_by_model(model, images, mask), 'masked'), *results]


def seen_by_model(model: ADDP, images: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """The image with its masked tokens in grey: a token is masked if any of its pixels is."""
    stride = model.tokenizer.stride
    tokens = token_mask(mask[None], stride).view(model.latent_size)
    masked = tokens.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
    return shown(images.masked_fill(masked, _GREY))[0]


def inpaint_tab(model: ADDP, classes: Sequence[str], queue: dict[str, Any]) -> None:
    """Add the tab.

    Args:
        model: The model that generates.
        classes: Names of its classes.
        queue: Arguments of the event that share one queue.
    """
    size = image_size(model)

    def opened(pixels: np.ndarray, changed: str = '') -> tuple:
        image, resized = fit_to(pixels, size)
        return image, canvas(image), changed + resized

    def canvas(image: np.ndarray) -> dict:
        return dict(background=enlarge(image, CANVAS), layers=[], composite=None)

    @in_words
    def upload(path):
        return opened(*read_upload(path))

    def example(index):
        return index + 1, *opened(example_scene(index + 1, max(size)))

    @in_words
    def run(image, drawing, num_samples, seed, progress=gr.Progress(), *controls):  # noqa: B008  # Gradio's way
        return inpainted(model, progress, image, drawing, num_samples, seed, *controls)

    first = fit_to(example_scene(0, max(size)), size)[0]
    with gr.Tab('Inpaint'), gr.Row():
        image, number = gr.State(first), gr.State(0)
        with gr.Column(scale=2, min_width=400):
            editor = gr.ImageEditor(
                canvas(first),
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
        with gr.Column(scale=2, min_width=320):
            with gr.Row():
                samples = gr.Slider(1, MAX_SAMPLES, 5, step=1, label='Samples')
                seed = seed_control()
            controls = sampling_controls(model, classes)
            button = gr.Button('Inpaint', variant='primary')
            results = gallery(3)
        file.upload(upload, file, [image, editor, note], **queue)
        another.click(example, number, [number, image, editor, note], **queue)
        button.click(run, [image, editor, samples, seed, *controls], results, **queue)
