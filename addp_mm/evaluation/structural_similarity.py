# Copyright (c) addp_mm contributors. Apache-2.0.
"""Structural similarity of two images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from torch import Tensor

from addp_mm.evaluation.batches import stacked
from addp_mm.registry import METRICS

_WINDOW, _SIGMA = 11, 1.5
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2  # C1 and C2 for values that span 1


def structural_similarity(images: Tensor, others: Tensor) -> Tensor:
    """SSIM (Wang et al., IEEE TIP 13(4), 2004, eq. 13): Gaussian window of 11 pixels and sigma 1.5.

    Only places where the whole window lies within the image count; channels are compared one by one
    and averaged.

    Args:
        images: (B, C, H, W) in [0, 1]; H and W at least 11.
        others: The same shape.

    Returns:
        (B) in [-1, 1], float64.

    Raises:
        ValueError: If the shapes differ or an image is smaller than the window.
    """
    if images.shape != others.shape:
        raise ValueError(f'images {tuple(images.shape)} and {tuple(others.shape)} must have the same shape')
    if min(images.shape[-2:]) < _WINDOW:
        raise ValueError(f'SSIM needs images of at least {_WINDOW} x {_WINDOW} pixels, got {tuple(images.shape[-2:])}')
    # variances are differences of near numbers
    x, y = (batch.double().flatten(0, 1)[:, None] for batch in (images, others))
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x.square()
    variance_y = _blur(y * y) - mean_y.square()
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _LUMINANCE) / (mean_x.square() + mean_y.square() + _LUMINANCE)
    structure = (2 * covariance + _CONTRAST) / (variance_x + variance_y + _CONTRAST)
    return (luminance * structure).mean((1, 2, 3)).unflatten(0, images.shape[:2]).mean(1)


def _blur(x: Tensor) -> Tensor:
    """Gaussian means of (N, 1, H, W) at the places where the window fits."""
    offsets = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    window = window / window.sum()
    return F.conv2d(F.conv2d(x, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))


@METRICS.register_module()
class StructuralSimilarity(BaseMetric):
    """Mean over images of :func:`structural_similarity`, at most 1.

    Reads ``image`` and ``reconstruction``, (C, H, W) in [0, 1], of each prediction.
    """

    default_prefix = 'reconstruction'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for images, reconstructions in stacked(data_samples, 'image', 'reconstruction'):
            self.results.extend(structural_similarity(images, reconstructions).tolist())

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return dict(ssim=float(np.mean(results)))
