# Copyright (c) addp_mm contributors. Apache-2.0.
"""Controls of the sampling that several tabs have, and what they mean for the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from addp_mm.app.image_generator import ImageGenerator
from addp_mm.diffusion.token_space import NO_CLASS
from addp_mm.errors import ConfigError
from addp_mm.generation import Guidance
from addp_mm.generation.guidance import SHAPES
from addp_mm.generation.sampling_schedule import ORDERS, RATIOS
from addp_mm.sampling_options import WORDS

MAX_STEPS = 64
MAX_TEMPERATURE = 12.0
MAX_SEED = 2**32 - 1


def seed_control() -> gr.Number:
    """The seed of all random numbers."""
    return gr.Number(0, label='Seed', info='The same seed gives the same images.', precision=0)


def _info(option: str, more: str = '') -> str:
    """The words of the tools' help, as a sentence."""
    words = WORDS[option]
    return f'{words[0].upper()}{words[1:]}{more and f" ({more})"}.'


def sampling_controls(generator: ImageGenerator) -> list[Any]:
    """Add the controls of steps, draws and classes.

    Args:
        generator: The model that generates.

    Returns:
        The controls, in the order of the arguments of :func:`sampling_options`.
    """
    model, classes, schedule = generator.model, generator.classes, generator.schedule
    rows, columns = model.latent_size
    most = min(rows * columns, MAX_STEPS)
    names = [(classes[k] if k < len(classes) else f'class {k}', k) for k in range(model.num_classes)]
    with gr.Group(visible=bool(names)):
        label = gr.Dropdown([('no class', NO_CLASS), *names], value=NO_CLASS, label='Class')
        scale = gr.Slider(0, 8, 0, step=0.5, label='Guidance', info=_info('guidance', '0: none'))
        shape = gr.Dropdown(list(SHAPES), value='constant', label='Guidance shape', info=_info('guidance_shape'))
    with gr.Accordion('Schedule', open=False):
        steps = gr.Slider(1, most, min(schedule.num_steps, most), step=1, label='Steps', info=_info('steps'))
        ratio = gr.Dropdown(
            list(RATIOS),
            value=schedule.ratio,
            label='Schedule',
            info=_info('schedule', 'you can type it'),
            allow_custom_value=True,
        )
        order = gr.Dropdown(list(ORDERS), value=schedule.order, label='Order', info=_info('order'))
        hottest = max(MAX_TEMPERATURE, schedule.temperature)
        temperature = gr.Slider(
            0, hottest, schedule.temperature, step=0.1, label='Temperature', info=_info('temperature')
        )
        anneal = gr.Checkbox(schedule.anneal, label='Let the temperature fall to zero')
        top_p = gr.Slider(0.01, 1, schedule.top_p, step=0.01, label='Top-p', info=_info('top_p'))
        top_k = gr.Number(schedule.top_k or 0, label='Top-k', info=_info('top_k', '0: all'), precision=0)
    return [steps, ratio, order, temperature, anneal, top_p, top_k, label, scale, shape]


def sampling_options(
    num_images: int,
    steps: int,
    ratio: str,
    order: str,
    temperature: float,
    anneal: bool,
    top_p: float,
    top_k: int | None,
    label: int,
    scale: float,
    shape: str,
) -> dict[str, Any]:
    """Arguments of :func:`addp_mm.apis.generate` and ``inpaint`` for the values of the controls.

    Args:
        num_images: Number of images, which all get the class.
        steps: ``num_steps``.
        ratio: See :class:`~addp_mm.generation.SamplingSchedule`.
        order: See there.
        temperature: See there.
        anneal: See there.
        top_p: See there.
        top_k: See there; 0 or None is no limit.
        label: The class; -1 is "no class".
        scale: Scale of the guidance.
        shape: Shape of the guidance.

    Raises:
        ConfigError: There is a guidance without a class.
    """
    options: dict[str, Any] = dict(
        num_steps=int(steps), ratio=ratio, order=order, temperature=temperature, anneal=anneal, top_p=top_p
    )
    options['top_k'] = int(top_k) if top_k else None
    if scale and label == NO_CLASS:
        raise ConfigError('Guidance needs a class, towards which it guides: choose one, or set Guidance to 0')
    if label != NO_CLASS:
        options.update(labels=[label] * num_images, guidance=Guidance(scale, shape))
    return options


def checked_seed(seed: int | None) -> int:
    """The seed of the control.

    Raises:
        ConfigError: The field is empty, or the number is outside its range.
    """
    if seed is None or not 0 <= seed <= MAX_SEED:
        raise ConfigError(f'Seed must be a whole number from 0 to {MAX_SEED}')
    return int(seed)


def step_counter(progress: Callable, num_images: int, num_steps: int, num_tiles: int = 1) -> Callable[[int], None]:
    """A ``progress`` for the API that moves the page's progress bar.

    Args:
        progress: Of the handler.
        num_images: Images of the run.
        num_steps: Steps of each tile.
        num_tiles: Tiles of each image. Defaults to 1.
    """
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        steps = done // num_images
        tile = f'Tile {-(-steps // num_steps)} of {num_tiles}' if num_tiles > 1 else None
        progress((steps, num_steps * num_tiles), desc=tile, unit='steps')

    return count
