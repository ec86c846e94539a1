# Copyright (c) addp_mm contributors. Apache-2.0.
"""Mistakes of a visitor become messages in the page."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable

import gradio as gr

from addp_mm.errors import UserError


def in_words(handler: Callable) -> Callable:
    """Show a :class:`UserError` or ValueError of a handler as a message in the page.

    The page keeps what it shows: Gradio's own error would cover images, and the drawing. All other
    errors keep their traceback in the terminal; the page only says that there was one.

    Args:
        handler: Function of an event of Gradio.
    """

    @functools.wraps(handler)
    def handle(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except (UserError, ValueError) as error:
            # the page renders HTML, and a message may quote what the visitor sent
            gr.Warning(html.escape(str(error)), duration=None)
            return gr.skip()

    return handle
