# Copyright (c) addp_mm contributors. Apache-2.0.
"""How the page shows images: as PNG, and without the button that sends them to Hugging Face."""

from __future__ import annotations

from typing import Any

import gradio as gr

_BUTTONS = ['download', 'fullscreen']


def gallery(columns: int) -> gr.Gallery:
    """A gallery of results.

    Args:
        columns: Images in a row.
    """
    return gr.Gallery(
        show_label=False,
        columns=columns,
        object_fit='contain',
        height='auto',
        format='png',
        interactive=False,
        buttons=_BUTTONS,
    )


def picture(value: Any = None, label: str | None = None, **options: Any) -> gr.Image:
    """One image.

    Args:
        value: The image at the start. Defaults to None.
        label: Its title. Defaults to None: no title, which would cover a corner.
        **options: More arguments of ``gr.Image``.
    """
    return gr.Image(
        value, label=label, show_label=label is not None, format='png', interactive=False, buttons=_BUTTONS, **options
    )
