# Copyright (c) addp_mm contributors. Apache-2.0.
"""Pictures of label maps: an image with the best class of each position on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from addp_mm.analysis.annotated_images import colours
from addp_mm.checkpoints.atomic_write import write_png
from addp_mm.datasets.readers.load_image import BrokenImageError, LoadImage
from addp_mm.datasets.token_labels.label_map import LabelMap
from addp_mm.datasets.token_labels.stored_maps import StoredMaps
from addp_mm.report.png_name import png_name

_SIDE, _LINE, _IN_LEGEND, _OPACITY = 420, 16, 8, 0.45


def draw_label_map(pixels: np.ndarray, label_map: LabelMap, classes: Sequence[str]) -> Image.Image:
    """An image beside the same image with the best class of each position, and a legend.

    Args:
        pixels: The image, uint8 (H, W, 3), RGB.
        label_map: Its label map.
        classes: Names of the classes; without names their numbers are written.
    """
    image = Image.fromarray(pixels)
    scale = _SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC)
    best = label_map.classes[0].numpy()
    found = Counter(best.flatten().tolist()).most_common()
    palette = dict(zip((number for number, _ in found), colours(len(found)), strict=True))
    cells = np.array([[palette[number] for number in row] for row in best.tolist()], np.uint8)
    coloured = Image.fromarray(cells).resize(size, Image.Resampling.NEAREST)
    page = Image.new('RGB', (2 * size[0] + _LINE, size[1] + _LINE * (min(len(found), _IN_LEGEND) + 1)), 'white')
    page.paste(image, (0, 0))
    page.paste(Image.blend(image, coloured, _OPACITY), (size[0] + _LINE, 0))
    draw = ImageDraw.Draw(page)
    for line, (number, count) in enumerate(found[:_IN_LEGEND]):
        top = size[1] + _LINE // 2 + line * _LINE
        draw.rectangle((4, top + 2, 14, top + 12), fill=palette[number])
        name = classes[number] if number < len(classes) else f'class {number}'
        draw.text((20, top), f'{name}: {count} of {best.size} positions', fill='black')
    return page


def draw_figures(folder: Path, images: Any, names: Sequence[str], classes: Sequence[str], count: int) -> None:
    """Draw the label maps of some images, evenly chosen from the list, into ``folder/figures``.

    Args:
        folder: The complete folder of label maps.
        images: A dataset with ``get_data_info``.
        names: Names of its images.
        classes: Names of the classes.
        count: Number of images; one that cannot be read has no figure.
    """
    maps, load = StoredMaps(folder), LoadImage()
    for index in range(0, len(names), max(1, len(names) // count))[:count]:
        try:
            pixels = load(dict(images.get_data_info(index)))['img'][..., ::-1]
        except (BrokenImageError, OSError):
            continue
        picture = draw_label_map(pixels, maps.read(names[index]), classes)
        write_png(folder / 'figures' / png_name(Path(names[index])), picture)
