# Copyright (c) addp_mm contributors. Apache-2.0.
"""Draw boxes, masks and label maps on images of a dataset."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from addp_mm.datasets.readers.read_image import read_image

Colour = tuple[int, int, int]
_SIDE = 420  # pixels of the longer side of a drawn image
_OPACITY = 0.45
_IGNORED: Colour = (70, 70, 70)


@dataclass(frozen=True)
class Sample:
    """An image with its annotations.

    Attributes:
        title: Name of the image.
        content: Returns the bytes of the image file.
        classes: Names of the classes.
        palette: Colours of the classes.
        objects: Label, box and ``segmentation`` of each object, as in a COCO file. Defaults to ().
        labels: Returns the label map, (H, W), in which ``ignore_index`` is no class. Defaults to
            None.
        labels_of_image: Classes of the whole image. Defaults to ().
        ignore_index: Label of pixels that are not counted. Defaults to 255.
    """

    title: str
    content: Callable[[], bytes]
    classes: Sequence[str] = ()
    palette: Sequence[Colour] = ()
    objects: Sequence[tuple[int, Sequence[float], Any]] = ()
    labels: Callable[[], np.ndarray] | None = None
    labels_of_image: Sequence[int] = ()
    ignore_index: int = 255


@dataclass(frozen=True)
class Drawn:
    """A drawn sample.

    Attributes:
        title: Name of the image.
        image: The image with its annotations.
        legend: Text and colour of each class in the image.
    """

    title: str
    image: Image.Image
    legend: list[tuple[str, Colour]]


def colours(count: int) -> list[Colour]:
    """Colours that differ from their neighbours: hues at the golden angle."""
    hues = (0.61803398875 * index % 1 for index in range(count))
    shades = (
        colorsys.hsv_to_rgb(hue, 0.85 if index % 2 else 0.65, 0.95 if index % 3 else 0.75)
        for index, hue in enumerate(hues)
    )
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in shades]


def shown_pixels(content: bytes) -> np.ndarray:
    """An image file as RGB for people, uint8 (H, W, 3).

    Values without a known range are scaled to their own range. Of several bands, the first three
    are shown, or the first one if there are two.

    Raises:
        ValueError: It is not an image.
    """
    stored = read_image(content)
    if stored.ordinary:
        try:
            return stored.rgb()
        except ValueError:
            pass
    bands = stored.values[..., : 3 if stored.num_channels >= 3 else 1].astype(np.float64)
    low, high = np.nanmin(bands), np.nanmax(bands)
    scaled = np.nan_to_num((bands - low) / max(high - low, 1e-12)) * 255
    return np.broadcast_to(scaled, (*scaled.shape[:2], 3)).astype(np.uint8)


def draw(sample: Sample) -> Drawn:
    """Draw a sample. Small images are enlarged.

    Raises:
        ValueError: The image cannot be read.
        OSError: The image cannot be read.
    """
    image = Image.fromarray(shown_pixels(sample.content()))
    scale = _SIDE / max(image.size)
    if scale > 1:
        scale = max(1, int(scale))  # whole pixels
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    resample = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    drawn = image.resize(size, resample).convert('RGBA')
    if sample.labels is not None:
        return _with_labels(sample, drawn)
    for label, box, segmentation in sample.objects:
        colour = _colour(sample, label)
        drawn = _with_mask(drawn, segmentation, colour, scale)
        left, top, width, height = (scale * number for number in box)
        corner = max(left, left + width), max(top, top + height)  # a negative width must not stop the drawing
        ImageDraw.Draw(drawn).rectangle((left, top, *corner), outline=colour, width=2)
    found = Counter(label for label, _, _ in sample.objects)
    legend = [_entry(sample, label, count) for label, count in sorted(found.items())]
    return Drawn(sample.title, drawn, [*legend, *(_entry(sample, label) for label in sample.labels_of_image)])


def _entry(sample: Sample, label: int, count: int = 1) -> tuple[str, Colour]:
    name = sample.classes[label] if 0 <= label < len(sample.classes) else 'not among the classes'
    return (f'{count} × {name}' if count > 1 else name), _colour(sample, label)


def _colour(sample: Sample, label: int) -> Colour:
    return sample.palette[label] if 0 <= label < len(sample.palette) else _IGNORED


def _with_mask(image: Image.Image, segmentation: Any, colour: Colour, scale: float) -> Image.Image:
    """Blend the mask of an object with an image; a mask that cannot be read is left out."""
    mask = Image.new('L', image.size)
    if isinstance(segmentation, Mapping):
        from pycocotools import mask as coco_mask

        height, width = segmentation['size']
        whole = isinstance(segmentation['counts'], list)
        encoded = coco_mask.frPyObjects(segmentation, height, width) if whole else segmentation
        decoded = Image.fromarray(255 * coco_mask.decode(encoded))
        mask = decoded.resize(image.size, Image.Resampling.NEAREST)
    else:
        for polygon in segmentation or ():
            if isinstance(polygon, Sequence) and len(polygon) >= 6:
                points = [(scale * x, scale * y) for x, y in zip(polygon[::2], polygon[1::2], strict=False)]
                ImageDraw.Draw(mask).polygon(points, fill=255)
    mask = mask.point(lambda value: round(_OPACITY * value))
    return Image.composite(Image.new('RGBA', image.size, (*colour, 255)), image, mask)


def _with_labels(sample: Sample, image: Image.Image) -> Drawn:
    """Blend a label map with an image."""
    labels = sample.labels() if sample.labels else np.zeros((1, 1), np.uint8)
    table = np.tile(np.array(_IGNORED, np.uint8), (256, 1))
    for label, colour in enumerate(sample.palette[:256]):
        table[label] = colour
    table[sample.ignore_index % 256] = _IGNORED
    overlay = Image.fromarray(table[labels]).resize(image.size, Image.Resampling.NEAREST).convert('RGBA')
    present = [int(label) for label in np.unique(labels)]
    legend = [_entry(sample, label) for label in present if label != sample.ignore_index]
    if sample.ignore_index in present:
        legend.append(('ignored', _IGNORED))
    return Drawn(sample.title, Image.blend(image, overlay, _OPACITY), legend)
