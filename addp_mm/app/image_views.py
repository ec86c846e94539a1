# Copyright (c) addp_mm contributors. Apache-2.0.
"""How the page shows images: as PNG, and without the button that sends them to Hugging Face."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

_BUTTONS: list[Any] = ['download', 'fullscreen']


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


def download_button() -> gr.DownloadButton:
    """A button for all images of a result, disabled until there is one."""
    return gr.DownloadButton('Download all (zip of PNG)', interactive=False, size='sm')


def zip_to_download(images: Sequence[np.ndarray], folder: Path) -> gr.DownloadButton:
    """Write images into a new zip file below the folder, and enable the button for it.

    Args:
        images: uint8 (H, W, 3). Image i becomes the PNG file i of six digits.
        folder: For the files to download.
    """
    path = Path(tempfile.mkdtemp(dir=folder)) / 'images.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        for index, image in enumerate(images):
            with archive.open(f'{index:06d}.png', 'w') as file:
                Image.fromarray(image).save(file, 'PNG')
    return gr.DownloadButton(value=str(path), interactive=True)
