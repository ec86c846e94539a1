# Copyright (c) addp_mm contributors. Apache-2.0.
"""The page: its tabs, and how it is served."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from addp_mm.app.computations import Computations, stoppable
from addp_mm.app.dense_predictor import DensePredictor
from addp_mm.app.detect_tab import detect_tab
from addp_mm.app.generate_tab import generate_tab
from addp_mm.app.image_generator import ImageGenerator
from addp_mm.app.inpaint_tab import inpaint_tab
from addp_mm.app.own_origin import OwnOrigin
from addp_mm.app.segment_tab import segment_tab
from addp_mm.app.steps_tab import steps_tab

CSS = 'footer { display: none !important; }'
# Fonts that every system has: Gradio's own come from the network.
THEME: dict[str, Any] = dict(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace'])
# Images of visitors are removed after a day; Gradio looks every hour.
_CLEANING = (3600, 86400)
# visitors whose images are kept in memory; the oldest are forgotten
_MAX_VISITORS = 32


@dataclass(frozen=True)
class PageModels:
    """The models behind the tabs.

    Attributes:
        generator: For Generate, Inpaint and Steps.
        detector: For Detect. Defaults to None.
        segmentor: For Segment. Defaults to None.
        class_generator: For Generate, if it is another model. Defaults to None.
    """

    generator: ImageGenerator
    detector: DensePredictor | None = None
    segmentor: DensePredictor | None = None
    class_generator: ImageGenerator | None = None


def build_page(models: PageModels, folder: Path, max_queue: int, computations: Computations) -> gr.Blocks:
    """Build the page.

    Args:
        models: The models behind the tabs.
        folder: For files to download.
        max_queue: Requests that wait at most; the next one gets a message.
        computations: Those of all tabs. The models work for one visitor at a time.
    """
    with gr.Blocks(title='addp_mm', analytics_enabled=False, delete_cache=_CLEANING) as page:
        gr.Markdown('# addp_mm\nADDP generates images by alternating between tokens and pixels.')
        generate_tab(models.class_generator or models.generator, folder, computations)
        inpaint_tab(models.generator, folder, computations)
        detect_tab(models.detector, computations)
        segment_tab(models.segmentor, computations)
        steps_tab(models.generator, computations)
        page.unload(computations.leave)
    return page.queue(max_size=max_queue)


@contextmanager
def served(models: PageModels, host: str, port: int, max_upload_mb: int, max_queue: int) -> Iterator[gr.Blocks]:
    """Serve the page, in another thread, until the block ends.

    Args:
        models: The models behind the tabs.
        host: Address to listen at.
        port: Port to listen at.
        max_upload_mb: Largest file that can be uploaded, in megabytes.
        max_queue: See :func:`build_page`.

    Yields:
        The running page.

    Raises:
        OSError: The port is used already, or there is no such address.
    """
    computations = Computations()
    of_tabs = (models.generator, models.class_generator, models.detector, models.segmentor)
    with stoppable([each.model for each in of_tabs if each]), tempfile.TemporaryDirectory(prefix='addp_app_') as folder:
        page = build_page(models, Path(folder), max_queue, computations)
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=f'{max_upload_mb}mb',
            footer_links=[],
            state_session_capacity=_MAX_VISITORS,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            theme=gr.themes.Default(**THEME),
            css=CSS,
            app_kwargs=dict(middleware=[Middleware(OwnOrigin, listens_at=host, max_bytes=(max_upload_mb + 1) * 10**6)]),
        )
        try:
            yield page
        finally:
            computations.close()
            page.close(verbose=False)
