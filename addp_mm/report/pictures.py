# Copyright (c) addp_mm contributors. Apache-2.0.
"""Pictures as HTML and SVG that carry their own pixels, with boxes, masks and label maps drawn on them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from addp_mm.report.logs import LogError

CLASS_COLOURS = (
    '#e6194b',
    '#3cb44b',
    '#ffc800',
    '#0082c8',
    '#f58230',
    '#b04ad8',
    '#2fd0d0',
    '#f032e6',
    '#a8d11e',
    '#fa90a8',
)
SAME_PLACE = 0.5
FONT = 3.9  # of a label, where the picture's longer side is 64
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Instance:
    """A garment: class index from 0, box (x, y, w, h) in pixels, bool mask (H, W), and the score of a prediction."""

    label: int
    box: Box
    mask: np.ndarray
    score: float | None = None


def rgb(colour: str) -> np.ndarray:
    """``'#ff0000'`` as float array (3,)."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=float)


def data_uri(picture: Image.Image | np.ndarray) -> str:
    """The picture as a PNG, or as a WebP of near the same look where that is much smaller."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    encoded = {}
    for kind, options in (('png', dict(optimize=True)), ('webp', dict(quality=92, method=6))):
        buffer = io.BytesIO()
        image.convert('RGB').save(buffer, kind, **options)
        encoded[kind] = buffer.getvalue()
    kind = 'webp' if 3 * len(encoded['webp']) < len(encoded['png']) and len(encoded['png']) > 100_000 else 'png'
    return f'data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}'


def img(picture: Image.Image | np.ndarray, alt: str, kind: str = '') -> str:
    """An ``<img>`` element; ``kind`` is its CSS class."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    return (
        f'<img class="{escape(kind)}" src="{data_uri(image)}" width="{image.width}" height="{image.height}" '
        f'alt="{escape(alt)}">'
    )


def decode_mask(segmentation: Mapping) -> np.ndarray:
    """A COCO run-length mask, compressed or not, as bool (H, W)."""
    from pycocotools import mask as coco_mask

    height, width = segmentation['size']
    if isinstance(segmentation['counts'], list):
        segmentation = coco_mask.frPyObjects(dict(segmentation), height, width)
    return coco_mask.decode(segmentation).astype(bool)


def read_json(path: Path):
    """A JSON file that an earlier step wrote; LogError names it where it is missing."""
    if not Path(path).is_file():
        raise LogError(f'{path} is missing: the step that writes it has not run, or has failed')
    return json.loads(Path(path).read_text())


def true_instances(annotations: Mapping, image_id: int) -> list[Instance]:
    """Instances of an image in COCO annotations with categories 1, 2, …"""
    return [
        Instance(a['category_id'] - 1, tuple(a['bbox']), decode_mask(a['segmentation']))
        for a in annotations['annotations']
        if a['image_id'] == image_id
    ]


def found_instances(predictions: Sequence[Mapping], image_id: int, count: int) -> list[Instance]:
    """The ``count`` surest instances of an image in COCO results, each at a place of its own, the surest first.

    A detector may name a place several times, by other classes. Here the surest name takes the
    place: what overlaps a surer box by an IoU above ``SAME_PLACE`` is left out. Fewer than
    ``count`` come back where no more were found.
    """
    kept: list[Instance] = []
    for found in sorted((p for p in predictions if p['image_id'] == image_id), key=lambda p: -p['score']):
        if len(kept) == count:
            break
        box = _box_of(found)
        if all(_iou(box, other.box) <= SAME_PLACE for other in kept):
            kept.append(Instance(found['category_id'] - 1, box, decode_mask(found['segmentation']), found['score']))
    return kept


def _iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes (x, y, w, h)."""
    sides = [
        min(a + length_a, b + length_b) - max(a, b)
        for a, length_a, b, length_b in zip(one[:2], one[2:], other[:2], other[2:], strict=True)
    ]
    shared = max(sides[0], 0.0) * max(sides[1], 0.0)
    union = one[2] * one[3] + other[2] * other[3] - shared
    return shared / union if union > 0 else 0.0


def _box_of(prediction: Mapping) -> Box:
    if 'bbox' in prediction:
        return tuple(prediction['bbox'])
    ys, xs = np.nonzero(decode_mask(prediction['segmentation']))
    if not len(xs):
        return 0.0, 0.0, 0.0, 0.0
    return float(xs.min()), float(ys.min()), float(np.ptp(xs)) + 1, float(np.ptp(ys)) + 1


def draw_instances(image: Image.Image, instances: Sequence[Instance], classes: Sequence[str]) -> str:
    """An SVG of the greyed image: masks tinted and boxes outlined by class, with its name and the score in percent."""
    pixels, plain = _greyed(image), np.asarray(image.convert('RGB'), dtype=float)
    for instance in reversed(instances):
        tint = rgb(CLASS_COLOURS[instance.label % len(CLASS_COLOURS)])
        pixels = np.where(instance.mask[..., None], 0.4 * plain.mean(-1, keepdims=True) + 0.6 * tint, pixels)
    width, height = image.size
    names = ', '.join(classes[instance.label] for instance in instances) or 'nothing'
    unit = max(width, height) / 64
    boxes, labels, taken = [], [], []
    for instance in instances:
        x, y, w, h = (round(float(value), 1) for value in instance.box)
        colour = CLASS_COLOURS[instance.label % len(CLASS_COLOURS)]
        boxes.append(
            f'<rect class="box" x="{x}" y="{y}" width="{w}" height="{h}" stroke="{colour}" '
            f'stroke-width="{0.7 * unit:g}"/>'
        )
        text = classes[instance.label] + ('' if instance.score is None else f' {100 * instance.score:.0f}')
        plate = _free_plate(text, (x, y, w, h), (width, height), unit, taken)
        taken.append(plate)
        labels.append(_label(text, colour, plate, unit))
    boxes, labels = boxes[::-1], labels[::-1]  # the first of the instances on top
    return (
        f'<svg class="scene" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(names)}">'
        f'<image href="{data_uri(pixels.round().astype(np.uint8))}" width="{width}" height="{height}"/>'
        f'{"".join(boxes)}{"".join(labels)}</svg>'
    )


def _free_plate(text: str, box: Box, size: tuple[int, int], unit: float, taken: Sequence[Box]) -> Box:
    """Where the plate of ``text`` lies: at the corner of its box where it hides least of the plates before it."""
    x, y, w, h = box
    long, high = 0.56 * FONT * unit * len(text) + unit, FONT * unit + 0.7 * unit
    places = [(left, top) for top in (y - high, y + h) for left in (x, x + w - long)]
    plates = [
        (max(0.0, min(left, size[0] - long)), max(0.0, min(top, size[1] - high)), long, high) for left, top in places
    ]
    return min(plates, key=lambda plate: sum(_iou(plate, other) for other in taken))


def _label(text: str, colour: str, plate: Box, unit: float) -> str:
    """A plate (x, y, w, h) of a colour with ``text`` on it."""
    left, top, long, high = plate
    size = FONT * unit
    ink = '#000' if rgb(colour) @ (0.299, 0.587, 0.114) > 140 else '#fff'
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{long:.1f}" height="{high:.1f}" fill="{colour}"/>'
        f'<text x="{left + 0.5 * unit:.1f}" y="{top + size - 0.3 * unit:.1f}" font-size="{size:.1f}" fill="{ink}" '
        f'textLength="{long - unit:.1f}" lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
    )


def _greyed(image: Image.Image) -> np.ndarray:
    """The image without colour and half as strong, float (H, W, 3): what tints stand out from."""
    grey = np.asarray(image.convert('RGB'), dtype=float).mean(-1, keepdims=True).repeat(3, axis=-1)
    return 0.45 * grey + 0.55 * 232


def draw_label_map(image: Image.Image, labels: np.ndarray) -> np.ndarray:
    """The image with garments tinted by class and the rest greyed.

    Args:
        image: The scene.
        labels: uint8 (H, W) as in ADE20K's files: 0 unlabelled, 1 background, then the classes.

    Returns:
        uint8 (H, W, 3).
    """
    grey = np.asarray(image.convert('RGB'), dtype=float).mean(-1, keepdims=True)
    palette = np.stack([rgb(colour) for colour in CLASS_COLOURS])
    tints = palette[np.maximum(labels.astype(int) - 2, 0) % len(palette)]
    garment = (labels >= 2)[..., None]
    return np.where(garment, 0.4 * grey + 0.6 * tints, _greyed(image)).round().astype(np.uint8)


def legend(classes: Sequence[str]) -> str:
    """The classes with their colours."""
    items = (
        f'<li><i style="background:{CLASS_COLOURS[index % len(CLASS_COLOURS)]}"></i>{escape(name)}</li>'
        for index, name in enumerate(classes)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def rows(heads: Sequence[str], examples: Sequence[Sequence[str]]) -> str:
    """Examples below each other, one picture for each of ``heads``; pictures are HTML."""
    lines = (
        ''.join(f'<div><span>{escape(head)}</span>{cell}</div>' for head, cell in zip(heads, cells, strict=True))
        for cells in examples
    )
    return ''.join(f'<div class="row">{line}</div>' for line in lines)
