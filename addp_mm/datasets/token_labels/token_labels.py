# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read the soft labels of the tokens of a view from the label map of its image."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from addp_mm.datasets.token_labels.label_map import LOGIT, LabelMap


def token_labels(label_map: LabelMap, view: np.ndarray, grid: tuple[int, int], num_classes: int) -> Tensor:
    """Soft labels of a view and of its tokens (token labelling, arXiv 2104.10858).

    The map is read by RoI-align: bilinearly at several points of each token, whose mean is taken.
    A point outside the image has equal probabilities; this happens only in rotated, sheared or
    translated views.

    Args:
        label_map: The map of the whole image.
        view: (3, 3); see :mod:`addp_mm.datasets.token_labels.view`.
        grid: Rows and columns of tokens in the view.
        num_classes: Number C of classes.

    Returns:
        float32 (C, 1 + rows * columns): the label of the whole view, then those of the tokens, row
        by row. Each column has the sum 1.

    Example:
        >>> label_map = LabelMap(torch.full((1, 14, 14), 0.9), torch.full((1, 14, 14), 3))
        >>> labels = token_labels(label_map, np.eye(3), (14, 14), num_classes=11)
        >>> labels.shape, labels[3, 0].item(), labels[0, 0].item()
        (torch.Size([11, 197]), 0.9, 0.01)
    """
    size = label_map.scores.shape[1], label_map.scores.shape[2]
    weights = torch.cat([sampling_weights(view, (1, 1), size), sampling_weights(view, grid, size)])
    if label_map.kind == LOGIT:
        present, logits = _scatter(label_map, label_map.scores)
        labels = logits.new_zeros(num_classes, len(weights))
        labels[present] = logits @ weights.T
        return labels.softmax(0)
    others = num_classes - len(label_map.scores)
    rest = (1 - label_map.scores.sum(0)).clamp(min=0) / others if others else label_map.scores[0] * 0
    present, above_rest = _scatter(label_map, label_map.scores - rest)
    outside = 1 - weights.sum(1)
    labels = (weights @ rest.flatten() + outside / num_classes).repeat(num_classes, 1)
    labels[present] += above_rest @ weights.T
    return labels / labels.sum(0)  # half precision leaves sums that are not exactly 1


def _scatter(label_map: LabelMap, values: Tensor) -> tuple[Tensor, Tensor]:
    """The classes that a map has, (P,), and their values at all positions, (P, h * w); else 0."""
    present, rows = label_map.classes.flatten(1).unique(return_inverse=True)
    dense = values.new_zeros(len(present), rows.shape[1])
    return present, dense.scatter_(0, rows, values.flatten(1))


def sampling_weights(view: np.ndarray, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The share of each position of a map in each cell of a view.

    A cell has as many points in a direction as it covers positions of the map, at least one, as in
    RoI-align. Points within half a position of the edge have the value at the edge.

    Args:
        view: (3, 3); see :mod:`addp_mm.datasets.token_labels.view`.
        grid: Rows and columns of cells in the view.
        size: Rows and columns of the map.

    Returns:
        float32 (cells, positions), both row by row. The sum of a row is 1; it is less if the cell
        has points outside the image.
    """
    (rows, columns), (height, width) = grid, size
    scale = np.array([[width], [height]])
    # the length of one cell in positions of the map, along the columns and along the rows
    along_x, along_y = np.linalg.norm(scale * view[:2, :2], axis=0) / (columns, rows)
    points_x, points_y = (max(1, math.ceil(length - 1e-6)) for length in (along_x, along_y))
    x = (np.arange(columns * points_x) + 0.5) / (columns * points_x)
    y = (np.arange(rows * points_y) + 0.5) / (rows * points_y)
    points = np.stack([*np.meshgrid(x, y), np.ones((len(y), len(x)))]).reshape(3, -1)
    (at_x, at_y) = (view @ points)[:2]
    inside = (np.abs(at_x - 0.5) <= 0.5 + 1e-9) & (np.abs(at_y - 0.5) <= 0.5 + 1e-9)
    cell = np.arange(rows * columns).reshape(rows, columns).repeat(points_y, 0).repeat(points_x, 1).reshape(-1)
    weights = np.zeros(rows * columns * height * width)
    share = inside / (points_x * points_y)
    for position_y, weight_y in _neighbours(at_y, height):
        for position_x, weight_x in _neighbours(at_x, width):
            at = (cell * height + position_y) * width + position_x
            weights += np.bincount(at, share * weight_y * weight_x, len(weights))
    return torch.from_numpy(weights).float().view(rows * columns, height * width)


def _neighbours(points: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two positions on both sides of each point, in 0 to ``count`` - 1, and their weights."""
    at = np.clip(points * count - 0.5, 0, count - 1)
    lower = np.floor(at).astype(int)
    upper = np.minimum(lower + 1, count - 1)
    return [(lower, 1 - (at - lower)), (upper, at - lower)]
