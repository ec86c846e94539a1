# Copyright (c) addp_mm contributors. Apache-2.0.
"""Computations of visitors: one at a time, and each can be stopped."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import gradio as gr
from torch import nn

from addp_mm.app.messages import in_words

_QUEUE: dict[str, Any] = dict(concurrency_limit=1, concurrency_id='models', api_visibility='private')
_STOP: ContextVar[threading.Event | None] = ContextVar('stop', default=None)


class StoppedError(Exception):
    """The visitor has stopped the computation, or has left."""


class Computations:
    """The computations of all visitors, in one queue.

    A computation ends when a visitor stops it, closes or reloads the page, or when the page closes.
    """

    def __init__(self) -> None:
        self._stops: defaultdict[str | None, set[threading.Event]] = defaultdict(set)

    def buttons(self, title: str) -> tuple[gr.Button, gr.Button]:
        """Add a button that starts a computation, and one that stops it.

        Args:
            title: Title of the first one.
        """
        with gr.Row():
            return gr.Button(title, variant='primary', scale=3), gr.Button('Stop', scale=1, min_width=80)

    def connect(self, buttons: Sequence[gr.Button], compute: Callable, inputs: Sequence, outputs: Sequence) -> None:
        """Say what the buttons start and stop.

        Args:
            buttons: From :meth:`buttons`.
            compute: From a function that shows the progress, and the values of the inputs, to the
                values of the outputs. It runs in a thread.
            inputs: Components.
            outputs: Components.
        """
        start, stop = buttons
        event = start.click(self._stoppable(in_words(compute)), inputs, outputs, **_QUEUE)
        stop.click(None, cancels=[event])

    def leave(self, request: gr.Request) -> None:
        """Stop the computations of a visitor who has left."""
        for stop in list(self._stops.get(request.session_hash, ())):
            stop.set()

    def close(self) -> None:
        """Stop all computations."""
        for stops in list(self._stops.values()):
            for stop in list(stops):
                stop.set()

    def _stoppable(self, compute: Callable) -> Callable:
        async def handle(request: gr.Request, progress=gr.Progress(), *values):  # noqa: B008  # Gradio's way
            stop = threading.Event()
            self._stops[request.session_hash].add(stop)
            _STOP.set(stop)
            thread = asyncio.ensure_future(asyncio.to_thread(compute, progress, *values))
            try:
                return await asyncio.shield(thread)
            except StoppedError:
                return gr.skip()
            except asyncio.CancelledError:
                stop.set()
                # the next one in the queue starts when this one has ended
                await asyncio.gather(thread, return_exceptions=True)
                return gr.skip()  # the page keeps its results
            finally:
                self._stops[request.session_hash].discard(stop)
                if not self._stops[request.session_hash]:
                    del self._stops[request.session_hash]

        return handle


@contextmanager
def stoppable(models: Sequence[nn.Module]) -> Iterator[None]:
    """Within the block, a computation that is to stop ends at the next layer of a model.

    Args:
        models: Those that the computations call.
    """
    layers = [layer for model in models for layer in model.modules()]
    hooks = [layer.register_forward_pre_hook(_stop_if_asked) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _stop_if_asked(layer: nn.Module, inputs: Any) -> None:  # noqa: ARG001  # a hook gets these
    stop = _STOP.get()
    if stop is not None and stop.is_set():
        raise StoppedError
