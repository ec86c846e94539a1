# Copyright (c) addp_mm contributors. Apache-2.0.
"""The tab "Segment"."""

from __future__ import annotations

import numpy as np

from addp_mm.app.computations import Computations
from addp_mm.app.dense_predictor import DensePredictor
from addp_mm.app.prediction_tab import Annotated, enlarged, hex_colors, missing_tab, prediction_tab

_OPACITY = np.float32(0.7)


def segmented(predictor: DensePredictor, pixels: np.ndarray) -> tuple[Annotated, str]:
    """Segment an image.

    Args:
        predictor: The segmentor.
        pixels: RGB, uint8 (H, W, 3).

    Returns:
        The image with a mask for each class that was found, and a table of their shares.
    """
    labels = predictor(pixels).pred_sem_seg.data[0].numpy()
    counts = np.bincount(labels.ravel(), minlength=len(predictor.classes))
    order = [int(label) for label in counts.argsort()[::-1] if counts[label]]
    annotations = [(_OPACITY * (labels == label), predictor.classes[label]) for label in order]
    rows = [f'| {predictor.classes[label]} | {counts[label] / labels.size:.1%} |' for label in order]
    return enlarged(pixels, annotations), '\n'.join(['| class | share of the pixels |', '|---|---|', *rows])


def segment_tab(predictor: DensePredictor | None, computations: Computations) -> None:
    """Add the tab.

    Args:
        predictor: The segmentor; None if there is none.
        computations: Those of all tabs.
    """
    if predictor is None:
        missing_tab('Segment', 'a segmentor', 'mmsegmentation')
        return
    colors = dict(zip(predictor.classes, hex_colors(len(predictor.classes)), strict=True))
    prediction_tab('Segment', lambda pixels, _: segmented(predictor, pixels), None, computations, colors)
