# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the tabs "Detect" and "Segment" have in common: an image, and its annotated copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gradio as gr
import numpy as np

from addp_mm.app.computations import Computations
from addp_mm.app.example_scenes import example_scene
from addp_mm.app.image_views import picture
from addp_mm.app.messages import in_words
from addp_mm.app.uploads import READING, opened
from addp_mm.generation.figures import code_colors, enlarge

SIDE = 512
#: An image and its annotations: masks of its size with their labels.
Annotated = tuple[np.ndarray, list[tuple[np.ndarray, str]]]


def enlarged(pixels: np.ndarray, masks: Sequence[tuple[np.ndarray, str]]) -> Annotated:
    """Enlarge a small image and its masks by a whole factor, so that the page shows them sharply.

    Args:
        pixels: uint8 (H, W, 3).
        masks: Masks (H, W) with their labels, from 0 to 1.
    """
    image = enlarge(pixels, SIDE)
    factor = len(image) // len(pixels)
    return image, [(mask.repeat(factor, 0).repeat(factor, 1), label) for mask, label in masks]


def hex_colors(count: int) -> list[str]:
    """Different colours for the classes, as the page takes them."""
    return [f'#{red:02x}{green:02x}{blue:02x}' for red, green, blue in code_colors(count)]


def prediction_tab(
    title: str,
    predict: Callable[[np.ndarray, float], tuple[Annotated, str]],
    threshold: float | None,
    computations: Computations,
    color_map: dict[str, str] | None = None,
) -> None:
    """Add a tab that annotates an image.

    Args:
        title: Title of the tab, a verb.
        predict: From RGB, uint8 (H, W, 3), and the least score to the annotated image and a text.
        threshold: The least score at the start; None if there is no such control.
        computations: Those of all tabs.
        color_map: Colours of labels. Defaults to None: Gradio's.
    """

    @in_words
    def upload(path):
        image, note = opened(path)
        return image, enlarge(image, SIDE), note

    def example(index):
        image = example_scene(index + 1)
        return index + 1, image, enlarge(image, SIDE), ''

    def run(progress, image, least):  # noqa: ARG001  # one image has no steps
        return predict(image, least)

    with gr.Tab(title), gr.Row():
        image, number = gr.State(example_scene(0)), gr.State(0)
        with gr.Column(scale=1, min_width=280):
            preview = picture(enlarge(example_scene(0), SIDE), 'Image', height=320)
            note = gr.Markdown()
            with gr.Row():
                another = gr.Button('Another example')
                file = gr.UploadButton('Upload an image', type='filepath')
            least = gr.Slider(0, 1, threshold or 0, step=0.05, label='Least score', visible=threshold is not None)
            buttons = computations.buttons(title)
        with gr.Column(scale=2):
            result = gr.AnnotatedImage(label='Prediction', format='png', height=560, color_map=color_map)
            text = gr.Markdown()
        file.upload(upload, file, [image, preview, note], **READING)
        another.click(example, number, [number, image, preview, note], **READING)
        computations.connect(buttons, run, [image, least], [result, text])


def missing_tab(title: str, model: str, package: str) -> None:
    """Add a tab that says which package it needs.

    Args:
        title: Title of the tab.
        model: What is missing, for example 'a detector'.
        package: The package of the model.
    """
    with gr.Tab(title):
        gr.Markdown(
            f'### This tab needs {model}\n'
            f'{package} runs it, and is not installed. Stop the command in the terminal, install {package}, and start '
            "it again:\n\n```bash\npip install 'addp_mm[openmmlab]'\naddp app\n```"
        )
