# Copyright (c) addp_mm contributors. Apache-2.0.
"""The tab "Detect"."""

from __future__ import annotations

import numpy as np

from addp_mm.app.computations import Computations
from addp_mm.app.dense_predictor import DensePredictor
from addp_mm.app.prediction_tab import Annotated, enlarged, missing_tab, prediction_tab

_OPACITY = np.float32(0.7)


def detected(predictor: DensePredictor, pixels: np.ndarray, least: float) -> tuple[Annotated, str]:
    """Detect objects in an image.

    Args:
        predictor: The detector, with or without masks.
        pixels: RGB, uint8 (H, W, 3).
        least: Objects with a lower score are left out.

    Returns:
        The image with the masks of the objects, or with their boxes; and a table.
    """
    found = predictor(pixels).pred_instances
    found = found[found.scores >= least]
    found = found[found.scores.argsort(descending=True)]
    names = [predictor.classes[label] for label in found.labels.tolist()]
    scores, boxes = found.scores.tolist(), found.bboxes.round().long().tolist()
    masks = [np.asarray(mask) for mask in found.masks] if 'masks' in found else [box_mask(box, pixels) for box in boxes]
    labels = [f'{name} {score:.2f} ({index})' for index, (name, score) in enumerate(zip(names, scores, strict=True), 1)]
    annotations = [(_OPACITY * mask, label) for mask, label in zip(masks, labels, strict=True)]
    rows = [
        f'| {index} | {name} | {score:.2f} | {" ".join(map(str, box))} |'
        for index, (name, score, box) in enumerate(zip(names, scores, boxes, strict=True), 1)
    ]
    head = ['| | class | score | box: left top right bottom (pixels) |', '|---|---|---|---|']
    text = '\n'.join([*head, *rows]) if rows else f'No object has a score of at least {least:.2f}.'
    return enlarged(pixels, annotations), text


def box_mask(box: list[int], pixels: np.ndarray) -> np.ndarray:
    """The area of a box (left, top, right, bottom) as a mask (H, W)."""
    left, top, right, bottom = (max(0, side) for side in box)
    mask = np.zeros(pixels.shape[:2], bool)
    mask[top:bottom, left:right] = True
    return mask


def detect_tab(predictor: DensePredictor | None, computations: Computations) -> None:
    """Add the tab.

    Args:
        predictor: The detector; None if there is none.
        computations: Those of all tabs.
    """
    if predictor is None:
        missing_tab('Detect', 'a detector', 'mmdet')
        return
    prediction_tab('Detect', lambda pixels, least: detected(predictor, pixels, least), 0.3, computations)
