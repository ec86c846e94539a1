# Copyright (c) addp_mm contributors. Apache-2.0.
"""Structural similarity of two images, by torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor

from addp_mm.evaluation.batches import stacked
from addp_mm.registry import METRICS

_WINDOW, _SIGMA = 11, 1.5


def structural_similarity(images: Tensor, others: Tensor) -> Tensor:
    """SSIM (Wang et al., IEEE TIP 13(4), 2004, eq. 13): Gaussian window of 11 pixels and sigma 1.5.

    torchmetrics computes the map. As in the paper, the mean is over the positions whose whole
    window is inside the image; torchmetrics' own mean also includes mirrored borders. The channels
    are averaged.

    Args:
        images: (B, C, H, W) in [0, 1]; H and W at least 11.
        others: The same shape.

    Returns:
        (B) in [-1, 1], float64.

    Raises:
        ValueError: The shapes differ or an image is smaller than the window.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    if images.shape != others.shape:
        raise ValueError(f'images {tuple(images.shape)} and {tuple(others.shape)} must have the same shape')
    if min(images.shape[-2:]) < _WINDOW:
        raise ValueError(f'SSIM needs images of at least {_WINDOW} x {_WINDOW} pixels, got {tuple(images.shape[-2:])}')
    _, similarity = structural_similarity_index_measure(
        images.double(), others.double(), sigma=_SIGMA, data_range=1.0, reduction='none', return_full_image=True
    )
    border = _WINDOW // 2
    return similarity[..., border:-border, border:-border].mean((1, 2, 3))


@METRICS.register_module()
class StructuralSimilarity(BaseMetric):
    """Mean over images of :func:`structural_similarity`, at most 1.

    Reads ``image`` and ``reconstruction``, (C, H, W) in [0, 1], of each prediction.
    """

    default_prefix = 'reconstruction'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:  # noqa: ARG002  # mmengine's signature
        """Keep the similarity of each image."""
        for images, reconstructions in stacked(data_samples, 'image', 'reconstruction'):
            self.results.extend(structural_similarity(images, reconstructions).tolist())

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """Average the images."""
        return dict(ssim=float(np.mean(results)))
