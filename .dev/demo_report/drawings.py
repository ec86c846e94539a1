# Copyright (c) addp_mm contributors. Apache-2.0.
"""Draws scenes with boxes, masks and label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image
from torchvision.ops import box_convert, nms

from addp_mm.report.figures import Picture, figure_picture

CLASS_COLOURS = [to_hex(colour) for colour in colormaps['tab10'].colors]
# The background is grey.
CLASS_COLOURS[7] = '#000000'
# If two boxes have a larger intersection over union, only the one with the higher score is drawn.
MAX_IOU = 0.5
_MIN_LUMA_OF_BLACK_TEXT = 0.55
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Instance:
    """A garment.

    Args:
        label: Index of the class, from 0.
        box: (x, y, w, h) in pixels.
        mask: bool (H, W).
        score: Score of a detection, from 0 to 1. Defaults to None.
    """

    label: int
    box: Box
    mask: np.ndarray
    score: float | None = None


@dataclass(frozen=True)
class Cell:
    """A scene in a grid: pixels of shape (H, W, 3), and the instances whose boxes are drawn."""

    pixels: np.ndarray
    instances: Sequence[Instance] = ()


def colour_of(label: int) -> str:
    """Colour of a class."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def decode_mask(segmentation: Mapping) -> np.ndarray:
    """A COCO run-length mask, compressed or not, as bool of shape (H, W)."""
    from pycocotools import mask as coco_mask

    height, width = segmentation['size']
    if isinstance(segmentation['counts'], list):
        segmentation = coco_mask.frPyObjects(dict(segmentation), height, width)
    return coco_mask.decode(segmentation).astype(bool)


def true_instances(annotations: Mapping, image_id: int) -> list[Instance]:
    """Instances of an image in COCO annotations with categories 1, 2, and so on."""
    return [
        Instance(a['category_id'] - 1, tuple(a['bbox']), decode_mask(a['segmentation']))
        for a in annotations['annotations']
        if a['image_id'] == image_id
    ]


def detected_instances(predictions: Sequence[Mapping], image_id: int, min_score: float) -> list[Instance]:
    """The detections of an image, without duplicates.

    Args:
        predictions: COCO results with ``bbox`` and ``segmentation``.
        image_id: Id of the image.
        min_score: Detections with a lower score are left out.

    Returns:
        Instances by descending score. No two overlap by an IoU above :data:`MAX_IOU`.
    """
    found = [p for p in predictions if p['image_id'] == image_id and p['score'] >= min_score]
    if not found:
        return []
    boxes = box_convert(torch.tensor([p['bbox'] for p in found], dtype=torch.float), 'xywh', 'xyxy')
    kept = nms(boxes, torch.tensor([p['score'] for p in found]), MAX_IOU)
    return [
        Instance(p['category_id'] - 1, tuple(p['bbox']), decode_mask(p['segmentation']), p['score'])
        for p in (found[index] for index in kept)
    ]


def instance_cell(image: Image.Image, instances: Sequence[Instance]) -> Cell:
    """A scene with its instances; the first one is on top."""
    labels = np.full((image.height, image.width), -1)
    for instance in reversed(instances):
        labels[instance.mask] = instance.label
    return Cell(tinted(image, labels), instances)


def tinted(image: Image.Image, labels: np.ndarray) -> np.ndarray:
    """Tint an image by class, and fade the other pixels.

    Args:
        image: The scene.
        labels: Index of the class of each pixel, below 0 for none; shape (H, W).

    Returns:
        uint8 (H, W, 3).
    """
    grey = np.asarray(image.convert('RGB'), dtype=float).mean(-1, keepdims=True)
    palette = 255 * np.array([to_rgb(colour) for colour in CLASS_COLOURS])
    garments = 0.4 * grey + 0.6 * palette[np.maximum(labels, 0) % len(palette)]
    return np.where((labels >= 0)[..., None], garments, 0.45 * grey + 0.55 * 232).round().astype(np.uint8)


def scene_grid(
    heads: Sequence[str], rows: Sequence[Sequence[Cell]], classes: Sequence[str] = (), inches: float = 2.5
) -> Picture:
    """Draw scenes in a grid, with a legend of the classes.

    Args:
        heads: Titles of the columns.
        rows: A cell for each of ``heads``.
        classes: Names of the classes. Defaults to (): no legend.
        inches: Side of a cell. Defaults to 2.5.
    """
    below = 0.7 if classes else 0.3
    figure = Figure((len(heads) * inches, len(rows) * inches + below), layout='constrained')
    axes = figure.subplots(len(rows), len(heads), squeeze=False)
    for row, cells in zip(axes, rows, strict=True):
        for ax, cell in zip(row, cells, strict=True):
            ax.imshow(cell.pixels, interpolation='none')
            ax.set_axis_off()
            for instance in reversed(cell.instances):
                _draw_box(ax, instance, classes)
    for ax, head in zip(axes[0], heads, strict=True):
        ax.set_title(head, fontsize=10, loc='left')
    handles = [Patch(color=colour_of(label), label=name) for label, name in enumerate(classes)]
    if classes:
        figure.legend(handles=handles, loc='outside lower left', ncols=5, fontsize=8, frameon=False)
    return figure_picture(figure, f'{len(rows)} scenes; columns: {", ".join(heads)}')


def _draw_box(ax, instance: Instance, classes: Sequence[str]) -> None:
    x, y, w, h = instance.box
    colour = colour_of(instance.label)
    # the centre of the first pixel is at 0
    ax.add_patch(Rectangle((x - 0.5, y - 0.5), w, h, fill=False, edgecolor=colour, linewidth=1.2))
    score = '' if instance.score is None else f' {100 * instance.score:.0f}'
    dark = np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) < _MIN_LUMA_OF_BLACK_TEXT
    at_right_edge = x > 0.7 * ax.get_xlim()[1]
    ax.text(
        x + w if at_right_edge else x,
        max(y, 4),
        f'{classes[instance.label]}{score}',
        fontsize=7.5,
        color='white' if dark else 'black',
        verticalalignment='bottom',
        horizontalalignment='right' if at_right_edge else 'left',
        bbox=dict(facecolor=colour, edgecolor='none', pad=0.8),
        clip_on=True,
    )
