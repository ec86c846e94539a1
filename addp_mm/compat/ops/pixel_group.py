# Copyright (c) addp_mm contributors. Apache-2.0.
"""Pixel aggregation of PAN (Wang et al., https://arxiv.org/abs/1908.05900)."""

import numpy as np
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .fallback import computed_on_cpu
from .region_growing import LabelMap


@mmcv_op
@computed_on_cpu
def pixel_group(
    score: Tensor,
    mask: Tensor,
    embedding: Tensor,
    kernel_label: Tensor,
    kernel_contour: Tensor,
    kernel_region_num: int,
    distance_threshold: float,
) -> list[list[float]]:
    """Grow text kernels over pixels whose embedding is close to the kernel's mean.

    Args:
        score: (H, W) probability of text.
        mask: (H, W) bool: pixels of text.
        embedding: (H, W, C).
        kernel_label: (H, W) integers, 1 to ``kernel_region_num`` - 1; 0 for none.
        kernel_contour: (H, W): not 0 for pixels of kernels from which they grow.
        kernel_region_num: Number of labels, 0 included.
        distance_threshold: Largest distance of embeddings, exclusive.

    Returns:
        For each label: the mean score, the number of pixels, and x and y of each pixel, row by row.
        Label 0 and labels without a pixel have two zeros.

    Raises:
        ValueError: A label is ``kernel_region_num`` or larger.
    """
    labels, scores = kernel_label.cpu().numpy(), score.cpu().double().numpy()
    if labels.size and labels.max() >= kernel_region_num:
        raise ValueError(f'pixel_group: kernel_label has {labels.max()}, but kernel_region_num is {kernel_region_num}')
    vectors = embedding.cpu().to(compute_dtype(embedding)).numpy().reshape(-1, embedding.shape[2])
    grown = LabelMap(labels)
    seeds = np.flatnonzero(grown.padded((labels > 0) & (kernel_contour.cpu().numpy() != 0)))
    means = _means(vectors, labels.ravel(), kernel_region_num).astype(vectors.dtype)
    # the compiled operator has the threshold in float32 and squares it there
    limit = np.float32(distance_threshold) ** 2

    def is_close(pixels: np.ndarray, offers: np.ndarray) -> np.ndarray:
        far = vectors[grown.without_border(pixels)] - means[offers]
        return ~(np.einsum('pc,pc->p', far, far) >= limit)  # NaN is close, as in mmcv

    grown.grow(seeds, grown.padded(mask.cpu().numpy() != 0), columns_first=True, accepts=is_close)
    return _instances(grown.values(), scores, kernel_region_num)


def _means(vectors: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Mean vectors (count, C) of labels (P,), from (P, C); 0 for labels without a pixel."""
    inside = labels > 0
    owners, kept = labels[inside], vectors[inside]
    sums = [np.bincount(owners, weights=column, minlength=count) for column in kept.T]
    return np.stack(sums, axis=1) / np.maximum(np.bincount(owners, minlength=count), 1)[:, None]


def _instances(labels: np.ndarray, scores: np.ndarray, count: int) -> list[list[float]]:
    rows, columns = np.nonzero(labels > 0)
    owners = labels[rows, columns]
    numbers = np.bincount(owners, minlength=count)
    sums = np.bincount(owners, weights=scores[rows, columns], minlength=count)
    order = owners.argsort(kind='stable')
    points = np.stack([columns, rows], axis=1)[order]
    groups = np.split(points, np.cumsum(numbers)[:-1])
    return [
        [float(total / max(number, 1)), float(number), *group.ravel().astype(float).tolist()]
        for total, number, group in zip(sums, numbers, groups, strict=True)
    ]
