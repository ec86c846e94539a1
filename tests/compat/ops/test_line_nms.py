# Copyright (c) addp_mm contributors. Apache-2.0.
"""Suppression of lanes against a plain loop."""

import pytest
import torch

ROWS = 72


def lanes(generator, count, dtype=torch.float32):
    """Lanes in three bundles, of different first rows and lengths."""
    boxes = torch.zeros(count, 5 + ROWS, dtype=torch.float64)
    boxes[:, 2] = torch.rand(count, generator=generator) * 0.5
    boxes[:, 4] = torch.randint(0, 60, (count,), generator=generator)
    bundle = torch.randint(0, 3, (count, 1), generator=generator) * 100
    boxes[:, 5:] = (
        bundle + torch.rand(count, 1, generator=generator) * 40 + torch.rand(count, ROWS, generator=generator)
    )
    return boxes.to(dtype)


def is_near(one, other, threshold):
    rows = []
    for lane in (one, other):
        first = int(lane[2] * (ROWS - 1) + 0.5)
        rows.append(set(range(first, min(first + int(lane[4]), ROWS))))
    shared = rows[0] & rows[1]
    return bool(shared) and sum(abs(one[5 + r] - other[5 + r]) for r in shared) / len(shared) < threshold


def loop(boxes, scores, threshold, top_k):
    keep, owner, removed = [], [0] * len(boxes), set()
    order = sorted(range(len(boxes)), key=lambda i: -scores[i])
    for rank, index in enumerate(order):
        if index in removed or len(keep) == top_k:
            continue
        keep.append(index)
        for other in order[rank:]:
            if other == index or is_near(boxes[index], boxes[other], threshold):
                removed.add(other)
                owner[other] = len(keep)
    return keep, owner


@pytest.mark.parametrize('top_k', [3, 100])
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.float64])
def test_line_nms(ext, generator, device, dtype, top_k):
    boxes, scores = lanes(generator, 40, dtype), torch.rand(40, generator=generator)
    keep, number, owner = ext.line_nms_forward(boxes.to(device), scores.to(device), 15.0, top_k)
    expected, owners = loop(boxes.tolist(), scores.tolist(), 15.0, top_k)
    assert number.item() == len(expected)
    assert 3 <= len(expected) < 40
    assert keep.tolist() == expected + [0] * (40 - len(expected))
    assert owner.tolist() == owners
    assert keep.dtype == owner.dtype == number.dtype == torch.int64


def test_the_threshold_is_exclusive_and_lanes_without_rows_stay(ext):
    boxes = torch.zeros(5, 5 + ROWS)
    boxes[:, 4] = 10
    boxes[1, 5:] = 2  # as far as the threshold
    boxes[2, 5:] = 1.9  # near the first and the second
    boxes[3, 4] = 0  # no row
    boxes[4, 2] = torch.nan
    keep, number, owner = ext.line_nms_forward(boxes, torch.arange(5, 0, -1.0), 2.0, 5)
    assert (keep[:number].tolist(), owner.tolist()) == ([0, 1, 3, 4], [1, 2, 2, 3, 4])


def test_line_nms_of_no_lane(ext):
    keep, number, owner = ext.line_nms_forward(torch.zeros(0, 5 + ROWS), torch.zeros(0), 2.0, 5)
    assert (len(keep), number.item(), len(owner)) == (0, 0, 0)
