# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operators against loops in float64, with empty, huge and non-finite inputs and any strides."""

import math

import numpy as np
import torch
from helpers.strategies import boxes, layouts_of, odd_floats, seeds
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from addp_mm.compat.ops import OPS

thresholds = st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0])


def scores_of(seed, count, levels=None):
    scores = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    return (scores * levels).floor() / levels if levels else scores


def randn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def iou(first, second, offset):
    """Overlap of two boxes in float64; NaN without a union."""
    sides = [max(0.0, min(first[i + 2], second[i + 2]) - max(first[i], second[i]) + offset) for i in (0, 1)]
    inter = sides[0] * sides[1]
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (first, second)]
    union = areas[0] + areas[1] - inter
    return inter / union if union else math.copysign(math.inf, inter) if inter else math.nan


@given(st.data(), boxes(), seeds, thresholds, st.integers(0, 1))
def test_nms_is_a_plain_loop(data, found, seed, threshold, offset):
    scores = scores_of(seed, len(found), data.draw(st.sampled_from([None, 2])))
    kept = OPS['nms'](data.draw(layouts_of(found)), scores, threshold, offset).tolist()
    expected = []
    for index in scores.sort(0, descending=True)[1].tolist():
        overlaps = [iou(found[other].tolist(), found[index].tolist(), offset) for other in expected]
        if not any(overlap > np.float32(threshold) for overlap in overlaps):
            expected.append(index)
    assert kept == expected


@given(boxes(odd=True), seeds, thresholds, st.integers(0, 1))
def test_nms_of_odd_boxes_keeps_each_at_most_once(found, seed, threshold, offset):
    scores = scores_of(seed, len(found))
    kept = OPS['nms'](found, scores, threshold, offset)
    assert len(set(kept.tolist())) == len(kept) <= len(found)
    assert scores[kept].tolist() == sorted(scores[kept].tolist(), reverse=True)
    if len(found):
        assert kept[0] == scores.argmax()


@given(boxes(odd=True), seeds, thresholds, st.integers(0, 2), st.integers(0, 1))
def test_soft_nms_only_lowers_scores(found, seed, threshold, method, offset):
    scores, dets = scores_of(seed, len(found)), torch.full((len(found), 5), -1.0)
    kept = OPS['softnms'](found, scores, dets, threshold, 0.5, 0.05, method, offset)
    assert len(set(kept.tolist())) == len(kept)
    for row, index in zip(dets[: len(kept)], kept.tolist(), strict=True):
        assert torch.equal(row[:4].nan_to_num(nan=7), found[index].nan_to_num(nan=7))
        assert not row[4] > scores[index]
    if len(found):
        assert kept[0] == scores.argmax()
        assert dets[0, 4] == scores.max()


@given(st.data(), boxes(6), boxes(6), st.integers(0, 1), st.integers(0, 1))
def test_overlaps_of_boxes(data, first, second, mode, offset):
    found = torch.full((len(first), len(second)), -1.0)
    OPS['bbox_overlaps'](data.draw(layouts_of(first)), data.draw(layouts_of(second)), found, mode, False, offset)
    for row, one in enumerate(first.tolist()):
        for column, other in enumerate(second.tolist()):
            sides = [max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i]) + offset) for i in (0, 1)]
            inter = sides[0] * sides[1]
            own = (one[2] - one[0] + offset) * (one[3] - one[1] + offset)
            base = own if mode else own + (other[2] - other[0] + offset) * (other[3] - other[1] + offset) - inter
            value = inter / base if base else math.nan if not inter else math.inf
            np.testing.assert_allclose(abs(found[row, column].item()), abs(value), rtol=1e-5)


def bilinear(image, y, x):
    """Value of a map (H, W) at a point, as RoIAlign reads it."""
    height, width = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    below, beside = y - top, x - left
    upper = image[top, left] * (1 - beside) + image[top, right] * beside
    lower = image[bottom, left] * (1 - beside) + image[bottom, right] * beside
    return upper * (1 - below) + lower * below


def loop_roi_align(image, box, bins, ratio, aligned):
    """RoIAlign of one channel and one box, with the mean."""
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (side - shift for side in box)
    tall, wide = y2 - y1, x2 - x1
    if not aligned:
        tall, wide = max(tall, 1.0), max(wide, 1.0)
    result = np.zeros((bins, bins))
    rows, columns = (ratio or math.ceil(side / bins) for side in (tall, wide))
    for i in range(bins):
        for j in range(bins):
            values = [
                bilinear(image, y1 + tall / bins * (i + (a + 0.5) / rows), x1 + wide / bins * (j + (b + 0.5) / columns))
                for a in range(rows)
                for b in range(columns)
            ]
            result[i, j] = sum(values) / max(len(values), 1)
    return result


@given(st.data(), boxes(3), seeds, st.integers(0, 2), st.booleans(), st.integers(1, 3))
def test_roi_align_is_a_plain_loop(data, found, seed, ratio, aligned, bins):
    found = torch.cat([torch.minimum(found[:, :2], found[:, 2:]), torch.maximum(found[:, :2], found[:, 2:])], 1)
    image = randn(seed, 1, 2, data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))).double()
    rois = torch.cat([torch.zeros(len(found), 1), found], 1).double()
    output = torch.full((len(found), 2, bins, bins), -7.0, dtype=torch.float64)
    marks = torch.zeros(0)
    features = data.draw(layouts_of(image))
    OPS['roi_align_forward'](features, rois, output, marks, marks, bins, bins, 1.0, ratio, 1, aligned)
    for result, box in zip(output, found.double().tolist(), strict=True):
        for channel in (0, 1):
            expected = loop_roi_align(image[0, channel].numpy(), box, bins, ratio, aligned)
            np.testing.assert_allclose(result[channel], expected, atol=1e-9)


@given(st.data(), seeds, st.integers(1, 3), st.integers(1, 2), st.integers(0, 2))
def test_deformable_convolution_without_a_shift_is_a_convolution(data, seed, kernel, stride, padding):
    side = data.draw(st.integers(kernel, 7))
    image, weight = randn(seed, 2, 3, side, side), randn(seed + 1 & 2**40, 4, 3, kernel, kernel)
    expected = F.conv2d(image, weight, stride=stride, padding=padding)
    numbers = dict(kW=kernel, kH=kernel, dW=stride, dH=stride, padW=padding, padH=padding, dilationW=1, dilationH=1)
    numbers.update(group=1, deformable_group=1, im2col_step=1)
    offset = torch.zeros(2, 2 * kernel**2, *expected.shape[2:])
    output, buffer = torch.full_like(expected, -7), torch.zeros(0)
    args = data.draw(layouts_of(image)), data.draw(layouts_of(weight)), data.draw(layouts_of(offset))
    OPS['deform_conv_forward'](*args, output, buffer, buffer, **numbers)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    # a point far outside of the map, or nowhere, is zero and spoils no other
    offset[:, :, 0, 0] = data.draw(odd_floats.filter(lambda value: value != 0))
    OPS['deform_conv_forward'](image, weight, offset, output, buffer, buffer, **numbers)
    assert output.flatten(2)[..., 1:].isfinite().all()
    torch.testing.assert_close(output.flatten(2)[..., 1:], expected.flatten(2)[..., 1:], rtol=1e-4, atol=1e-5)


@given(st.data(), seeds, st.sampled_from([1, 3]), st.integers(1, 2), st.integers(1, 3))
def test_carafe_sums_windows(data, seed, kernel, groups, scale):
    features = randn(seed, 1, 2 * groups, data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))).double()
    size = [scale * side for side in features.shape[2:]]
    masks = randn(seed // 2, 1, groups * kernel**2, *size).double()
    output = torch.full((1, 2 * groups, *size), -7.0, dtype=torch.float64)
    OPS['carafe_naive_forward'](
        data.draw(layouts_of(features)), data.draw(layouts_of(masks)), output, kernel, groups, scale
    )
    padded = F.pad(features, [kernel // 2] * 4)[0].numpy()
    for y in range(size[0]):
        for x in range(size[1]):
            window = padded[:, y // scale : y // scale + kernel, x // scale : x // scale + kernel]
            weights = masks[0, :, y, x].numpy().reshape(groups, 1, kernel, kernel)
            expected = (window.reshape(groups, 2, kernel, kernel) * weights).sum((2, 3)).ravel()
            np.testing.assert_allclose(output[0, :, y, x], expected, atol=1e-9)


@given(st.data(), seeds, st.integers(1, 3), st.integers(0, 1))
def test_masked_windows_are_those_of_unfold(data, seed, kernel, padding):
    side = data.draw(st.integers(kernel, 6))
    image, out = randn(seed, 1, 2, side, side), side + 2 * padding - kernel + 1
    at = data.draw(st.lists(st.tuples(*[st.integers(0, out - 1)] * 2), unique=True))
    rows, columns = torch.tensor(at, dtype=torch.long).reshape(-1, 2).T
    found = torch.full((2 * kernel**2, len(at)), -7.0)
    OPS['masked_im2col_forward'](image, rows, columns, found, kernel, kernel, padding, padding)
    assert torch.equal(found, F.unfold(image, kernel, padding=padding)[0][:, rows * out + columns])


@given(st.data(), st.integers(0, 4), st.integers(1, 3), st.sampled_from([0.0, 1.0, 2.0]), st.floats(0, 1, width=32))
def test_focal_loss_in_float64(data, rows, classes, gamma, alpha):
    logits = st.floats(-200, 200, width=32) | st.sampled_from([1e30, -1e30])
    values = data.draw(st.lists(st.lists(logits, min_size=classes, max_size=classes), min_size=rows, max_size=rows))
    given_logits = torch.tensor(values, dtype=torch.float32).reshape(rows, classes)
    target = torch.tensor(data.draw(st.lists(st.integers(-1, classes), min_size=rows, max_size=rows)), dtype=torch.long)
    output = torch.full((rows, classes), -7.0)
    OPS['sigmoid_focal_loss_forward'](data.draw(layouts_of(given_logits)), target, torch.zeros(0), output, gamma, alpha)
    assert output.isfinite().all()
    assert (output >= 0).all()
    exact = given_logits.double()
    is_target = target[:, None] == torch.arange(classes)
    positive = -alpha * exact.neg().sigmoid() ** gamma * F.logsigmoid(exact)
    negative = -(1 - alpha) * exact.sigmoid() ** gamma * F.logsigmoid(-exact)
    expected = torch.where(is_target, positive, negative)
    # beyond, the probability is 0 in float32, and mmcv's loss has its largest value
    near = given_logits.abs() < 16
    # mmcv takes the logarithm of 1 - p, which has the rounding error of p
    rounding = torch.finfo(torch.float32).eps / (-exact.abs()).sigmoid()
    difference = (output.double() - expected).abs()
    assert (difference <= 1e-4 + 1e-4 * expected + 2 * rounding)[near].all()


def test_focal_loss_where_rounding_of_the_probability_counts():
    output, logits = torch.empty(1, 2), torch.tensor([[0.0, 12.0]])
    OPS['sigmoid_focal_loss_forward'](logits, torch.tensor([0]), torch.zeros(0), output, 0.0, 0.0)
    assert abs(output[0, 1].item() - 12) < 0.02
