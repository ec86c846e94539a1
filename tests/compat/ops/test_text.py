# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operators that group pixels into lines of text."""

from collections import deque

import numpy as np
import pytest
import torch

STEPS = {'columns': [(0, -1), (0, 1), (-1, 0), (1, 0)], 'rows': [(-1, 0), (1, 0), (0, -1), (0, 1)]}


def text_maps(seed, height=14, width=17, labels=4):
    """Kernels that are single pixels, lines and touching blocks, in a mask with holes."""
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < 0.8
    kernels = np.zeros((height, width), np.int32)
    for label in range(1, labels):
        y, x = rng.integers(0, height - 2), rng.integers(0, width - 3)
        kernels[y : y + 2, x : x + rng.integers(1, 4)] = label
    return rng, mask, kernels


def loop_pixel_group(score, mask, vectors, kernels, contour, count, threshold):
    labels, (height, width) = kernels.copy(), kernels.shape
    means = [vectors[kernels == label].mean(0) if (kernels == label).any() else None for label in range(count)]
    queue = deque((y, x) for y, x in np.argwhere((kernels > 0) & contour))
    while queue:
        y, x = queue.popleft()
        for down, right in STEPS['columns']:
            row, column = y + down, x + right
            if not (0 <= row < height and 0 <= column < width and mask[row, column]) or labels[row, column] > 0:
                continue
            if np.linalg.norm(vectors[row, column] - means[labels[y, x]]) < threshold:
                labels[row, column] = labels[y, x]
                queue.append((row, column))
    groups = [[0.0, 0.0]]
    for label in range(1, count):
        rows, columns = np.nonzero(labels == label)
        mean = float(score[rows, columns].mean()) if len(rows) else 0.0
        groups.append([mean, len(rows), *np.stack([columns, rows], 1).ravel()])
    return groups


@pytest.mark.parametrize('seed', range(6))
def test_pixel_group(mmcv_ops, seed):
    rng, mask, kernels = text_maps(seed)
    score = rng.random(mask.shape).astype(np.float32)
    vectors = rng.normal(size=(*mask.shape, 3)).astype(np.float32)
    contour = (rng.random(mask.shape) < 0.9).astype(np.uint8)
    found = mmcv_ops.pixel_group(score, mask, vectors, kernels, contour, 5, 1.5)
    expected = loop_pixel_group(score, mask, vectors.astype(float), kernels, contour > 0, 5, 1.5)
    assert [row[1:] for row in found] == [row[1:] for row in expected]
    assert [row[0] for row in found] == pytest.approx([row[0] for row in expected], abs=1e-6)
    assert found[4] == [0, 0]  # a label without a pixel
    assert all(type(value) is float for row in found for value in row)


def test_pixels_without_a_distance_are_close(mmcv_ops):
    vectors = np.array([[[0.0], [np.nan], [9.0]]], np.float32)
    label, mask = np.array([[1, 0, 0]], np.int32), np.ones((1, 3), np.uint8)
    found = mmcv_ops.pixel_group(np.ones((1, 3), np.float32), mask, vectors, label, label.astype(np.uint8), 2, 1.0)
    assert found == [[0, 0], [1, 2, 0, 0, 1, 0]]


def test_pixel_group_refuses_labels_that_it_has_no_group_for(mmcv_ops):
    flat, label = np.zeros((2, 2), np.float32), np.full((2, 2), 3, np.int32)
    with pytest.raises(ValueError, match='kernel_label has 3, but kernel_region_num is 3'):
        mmcv_ops.pixel_group(flat, flat > 0, flat[..., None], label, label.astype(np.uint8), 3, 1.0)


def test_pixel_group_of_a_map_without_kernels(mmcv_ops):
    flat = np.zeros((2, 3), np.float32)
    labels = np.zeros((2, 3), np.int32)
    assert mmcv_ops.pixel_group(flat, flat == 0, flat[..., None], labels, labels, 2, 1.0) == [[0, 0], [0, 0]]


def loop_contour_expand(kernels, labels, smallest):
    height, width = labels.shape
    labels = labels.copy()
    for label in np.unique(labels):
        if (labels == label).sum() < smallest:
            labels[labels == label] = 0
    queue = deque((y, x) for y, x in np.argwhere(labels > 0))
    while queue:
        y, x = queue.popleft()
        for down, right in STEPS['rows']:
            row, column = y + down, x + right
            if 0 <= row < height and 0 <= column < width and kernels[0, row, column] and labels[row, column] == 0:
                labels[row, column] = labels[y, x]
                queue.append((row, column))
    return labels.tolist()


@pytest.mark.parametrize('smallest', [0, 3])
@pytest.mark.parametrize('seed', range(4))
def test_contour_expand(mmcv_ops, seed, smallest):
    rng, mask, labels = text_maps(seed)
    middle = mask & (rng.random(mask.shape) < 0.6)
    kernels = np.stack([mask, middle | (labels > 0), labels > 0]).astype(np.uint8)
    found = mmcv_ops.contour_expand(kernels, labels, smallest, 4)
    assert found == loop_contour_expand(kernels, labels, smallest)
    as_tensors = mmcv_ops.contour_expand(torch.from_numpy(kernels), torch.from_numpy(labels), smallest, 4)
    assert as_tensors == found


def test_contour_expand_of_one_kernel_or_none(mmcv_ops):
    labels = np.array([[0, 1], [2, 0]], np.int32)
    assert mmcv_ops.contour_expand(np.ones((1, 2, 2), np.uint8), labels, 1, 3) == labels.tolist()
    assert mmcv_ops.contour_expand(np.ones((2, 0, 3), np.uint8), np.zeros((0, 3), np.int32), 1, 3) == []
