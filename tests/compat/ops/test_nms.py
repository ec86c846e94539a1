# Copyright (c) addp_mm contributors. Apache-2.0.
import numpy as np
import pytest
import torch


def boxes_and_scores(generator, n, size=40.0, levels=None):
    corner = torch.rand(n, 2, generator=generator) * size
    boxes = torch.cat([corner, corner + 1 + torch.rand(n, 2, generator=generator) * size / 2], 1)
    scores = torch.rand(n, generator=generator)
    if levels:
        scores = (scores * levels).floor() / levels
    return boxes, scores


def iou(a, b, offset):
    f = np.float32
    width = max(f(0), f(min(a[2], b[2]) - max(a[0], b[0])) + f(offset))
    height = max(f(0), f(min(a[3], b[3]) - max(a[1], b[1])) + f(offset))
    inter = f(width * height)
    area = [f(f(f(c[2] - c[0]) + f(offset)) * f(f(c[3] - c[1]) + f(offset))) for c in (a, b)]
    with np.errstate(invalid='ignore'):
        return inter / f(f(area[0] + area[1]) - inter)


def loop_nms(boxes, order, threshold, offset=0):
    keep = []
    for i in order:
        if all(not iou(boxes[k], boxes[i], offset) > np.float32(threshold) for k in keep):
            keep.append(i)
    return keep


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('n', [1, 7, 300])
def test_nms_equals_a_plain_loop(mmcv_ops, generator, device, n, offset):
    boxes, scores = boxes_and_scores(generator, n)
    expected = loop_nms(boxes.numpy(), scores.argsort(descending=True).tolist(), 0.3, offset)
    dets, inds = mmcv_ops.nms(boxes.to(device), scores.to(device), 0.3, offset=offset)
    assert inds.tolist() == expected
    assert inds.dtype == torch.long
    assert torch.equal(dets.cpu(), torch.cat([boxes, scores[:, None]], 1)[expected])


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('n', [50, 700])  # short and long sorts may order ties differently
def test_ties_are_ordered_as_by_the_sort_that_mmcv_calls(ext, generator, n, offset):
    boxes, scores = boxes_and_scores(generator, n, levels=4)
    order = scores.sort(0, descending=True)[1].tolist()
    inds = ext.nms(boxes, scores, iou_threshold=0.3, offset=offset)
    assert inds.tolist() == loop_nms(boxes.numpy(), order, 0.3, offset)


@pytest.mark.parametrize('threshold', [0.1, 0.3, 0.6, 0.7])
def test_an_overlap_equal_to_the_threshold_in_float32_survives(ext, threshold):
    # a union of 10 x 1 with an overlap of 10 * threshold: the quotient rounds to float32(threshold)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, 10 * threshold, 1.0]])
    assert iou(*boxes.numpy(), 0) == np.float32(threshold)
    assert len(ext.nms(boxes, torch.tensor([0.9, 0.8]), iou_threshold=threshold, offset=0)) == 2


def test_offset_decides(ext):
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]])
    scores = torch.tensor([0.9, 0.8])
    assert ext.nms(boxes, scores, iou_threshold=0.2, offset=0).tolist() == [0, 1]
    assert ext.nms(boxes, scores, iou_threshold=0.2, offset=1).tolist() == [0]  # 2 of 6 pixels


@pytest.mark.parametrize('offset', [0, 1])
def test_many_blocks(ext, generator, offset):
    boxes, scores = boxes_and_scores(generator, 1300, size=200.0)
    order = scores.sort(0, descending=True)[1].tolist()
    inds = ext.nms(boxes, scores, iou_threshold=0.1, offset=offset)
    assert inds.tolist() == loop_nms(boxes.numpy(), order, 0.1, offset)


@pytest.mark.parametrize('offset', [0, 1])
def test_boxes_of_regions_apart(ext, generator, monkeypatch, offset):
    boxes, scores = boxes_and_scores(generator, 300, size=20.0)
    boxes = boxes.floor() + 40 * torch.randint(5, (300, 1), generator=generator)  # touching ones are there, too
    order = scores.sort(0, descending=True)[1].tolist()
    expected = loop_nms(boxes.numpy(), order, 0.3, offset)
    for part in (1, 64, 10**6):
        monkeypatch.setattr('addp_mm.compat.ops.nms._PART', part)
        assert ext.nms(boxes, scores, iou_threshold=0.3, offset=offset).tolist() == expected


@pytest.mark.parametrize('offset', [0, 1])
def test_regions_end_where_no_box_reaches_the_next(offset):
    from addp_mm.compat.ops.nms import _parts

    starts = np.array([100.0, 0.0, 10.0, 31.0, 1000.0, np.nan, 30.0], dtype=np.float32)
    boxes = np.stack([starts, starts * 0, starts + 20, starts * 0 + 5], axis=1)
    boxes[2, 2] = 30  # the next box starts where this one ends: they share a pixel column if a pixel is added
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('addp_mm.compat.ops.nms._PART', 1)
        parts = [sorted(part.tolist()) for part in _parts(boxes, offset)]
    assert parts == ([[1, 2], [3, 6], [0], [4, 5]] if offset == 0 else [[1, 2, 3, 6], [0], [4, 5]])


def test_boxes_without_area(ext):
    boxes = torch.tensor([[3.0, 3.0, 3.0, 3.0]] * 3)
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert ext.nms(boxes, scores, iou_threshold=0.5, offset=0).tolist() == [0, 1, 2]  # 0 / 0 is not above the threshold
    assert ext.nms(boxes, scores, iou_threshold=0.5, offset=1).tolist() == [0]


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_nms_in_other_dtypes(ext, generator, dtype, offset):
    boxes, scores = boxes_and_scores(generator, 60)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    order = scores.sort(0, descending=True)[1].tolist()
    inds = ext.nms(boxes, scores, iou_threshold=0.3, offset=offset)
    assert inds.tolist() == loop_nms(boxes.float().numpy(), order, 0.3, offset)


def test_max_num_and_score_threshold(mmcv_ops, generator):
    boxes, scores = boxes_and_scores(generator, 80)
    _, everything = mmcv_ops.nms(boxes, scores, 0.5)
    _, few = mmcv_ops.nms(boxes, scores, 0.5, max_num=3)
    assert few.tolist() == everything[:3].tolist()
    _, above = mmcv_ops.nms(boxes, scores, 0.5, score_threshold=0.5)
    assert above.tolist() == [i for i in everything.tolist() if scores[i] > 0.5]


def test_batched_nms_keeps_classes_apart(mmcv_ops):
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0]] * 4)
    scores, classes = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 1, 1])
    dets, keep = mmcv_ops.batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.5))
    assert keep.tolist() == [0, 2]
    assert dets.shape == (2, 5)
    _, keep = mmcv_ops.batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.5, class_agnostic=True))
    assert keep.tolist() == [0]


@pytest.mark.parametrize('offset', [0, 1])
def test_empty_nms(mmcv_ops, offset):
    dets, inds = mmcv_ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, offset=offset)
    assert dets.shape == (0, 5)
    assert inds.shape == (0,)
    assert inds.dtype == torch.long


def test_nms_under_autocast(ext, generator):
    boxes, scores = boxes_and_scores(generator, 60)
    expected = ext.nms(boxes, scores, iou_threshold=0.3, offset=1)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(ext.nms(boxes, scores, iou_threshold=0.3, offset=1), expected)


def loop_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    f = np.float32
    left = [[*map(f, box), f(score), i] for i, (box, score) in enumerate(zip(boxes, scores, strict=True))]
    i = 0
    while i < len(left):
        best = i
        for k in range(i + 1, len(left)):
            if left[best][4] < left[k][4]:
                best = k
        left[i], left[best] = left[best], left[i]
        k = i + 1
        while k < len(left):
            overlap = iou(left[i], left[k], offset)
            weight = f(1)
            if method == 'gaussian':
                weight = np.exp(-f(overlap * overlap) / f(sigma))
            elif overlap >= f(threshold):
                weight = f(0) if method == 'naive' else f(1) - overlap
            left[k][4] = f(left[k][4] * weight)
            if left[k][4] < f(min_score):
                left[k] = left[-1]
                left.pop()
            else:
                k += 1
        i += 1
    return np.array([row[:5] for row in left], dtype=f).reshape(-1, 5), [row[5] for row in left]


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize('levels', [None, 5])
def test_soft_nms_equals_a_plain_loop(mmcv_ops, generator, method, offset, levels):
    boxes, scores = boxes_and_scores(generator, 120, levels=levels)
    rows, order = loop_soft_nms(boxes.numpy(), scores.numpy(), 0.3, 0.5, 0.1, method, offset)
    dets, inds = mmcv_ops.soft_nms(boxes, scores, 0.3, 0.5, 0.1, method, offset)
    assert inds.tolist() == order
    assert 0 < len(order) < 120
    np.testing.assert_allclose(dets.numpy(), rows, rtol=1e-5)


def unusual_boxes(generator):
    """Boxes and scores with NaN, Inf and boxes without area, between usual ones."""
    boxes, scores = boxes_and_scores(generator, 60, size=20.0)
    boxes[5:15, 2:] = boxes[5:15, :2]
    boxes[10:15] = boxes[10]
    boxes[20, 0], boxes[21, 3], boxes[22], boxes[23, 2] = torch.nan, torch.nan, torch.nan, torch.inf
    scores[22], scores[30], scores[31], scores[32] = 0.99, torch.nan, torch.nan, -torch.inf
    return boxes, scores


@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning', 'ignore:divide by zero:RuntimeWarning')
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize('first_is_nan', [False, True])
def test_soft_nms_of_unusual_boxes_equals_a_plain_loop(mmcv_ops, generator, method, offset, first_is_nan):
    boxes, scores = unusual_boxes(generator)
    if first_is_nan:
        scores[0] = torch.nan
    rows, order = loop_soft_nms(boxes.numpy(), scores.numpy(), 0.3, 0.5, 0.1, method, offset)
    dets, inds = mmcv_ops.soft_nms(boxes, scores, 0.3, 0.5, 0.1, method, offset)
    assert inds.tolist() == order
    np.testing.assert_allclose(dets.numpy(), rows, rtol=1e-5)


@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning', 'ignore:divide by zero:RuntimeWarning')
@pytest.mark.parametrize('offset', [0, 1])
def test_nms_of_unusual_boxes_equals_a_plain_loop(ext, generator, offset):
    boxes, scores = unusual_boxes(generator)
    order = scores.sort(0, descending=True)[1].tolist()
    inds = ext.nms(boxes, scores, iou_threshold=0.3, offset=offset)
    assert inds.tolist() == loop_nms(boxes.numpy(), order, 0.3, offset)


@pytest.mark.parametrize('boxes_dtype', [torch.float32, torch.float64, torch.float16, torch.int64])
@pytest.mark.parametrize('scores_dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('name', ['nms', 'soft_nms'])
def test_boxes_and_scores_of_two_dtypes(mmcv_ops, generator, name, boxes_dtype, scores_dtype):
    boxes, scores = boxes_and_scores(generator, 60)
    boxes, scores = boxes.round().to(boxes_dtype), scores.to(scores_dtype)
    _, expected = getattr(mmcv_ops, name)(boxes.double(), scores.double(), 0.3)
    _, inds = getattr(mmcv_ops, name)(boxes, scores, 0.3)
    assert inds.tolist() == expected.tolist()


def test_nms_of_boxes_in_another_memory_order(mmcv_ops, generator):
    boxes, scores = boxes_and_scores(generator, 60)
    strided, every_second = boxes.t().contiguous().t(), torch.stack([scores, scores], 1)[:, 0]
    assert not strided.is_contiguous()
    for name in ('nms', 'soft_nms'):
        expected = getattr(mmcv_ops, name)(boxes, scores, 0.3)
        for got, wanted in zip(getattr(mmcv_ops, name)(strided, every_second, 0.3), expected, strict=True):
            assert torch.equal(got, wanted)


def test_soft_nms_keeps_the_best_of_the_rest_with_any_score(mmcv_ops):
    dets, inds = mmcv_ops.soft_nms(
        torch.tensor([[0.0, 0.0, 1.0, 1.0], [5.0, 5.0, 6.0, 6.0]]), torch.tensor([0.1, 0.2]), min_score=0.5
    )
    assert inds.tolist() == [1]
    assert dets.shape == (1, 5)


def test_empty_soft_nms(mmcv_ops):
    dets, inds = mmcv_ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5)
    assert inds.shape == (0,)
    assert inds.dtype == torch.long


def test_nms_match_equals_a_plain_loop(mmcv_ops, generator):
    boxes, scores = boxes_and_scores(generator, 60)
    order, taken, expected = scores.argsort(descending=True).tolist(), set(), []
    for i in order:
        if i in taken:
            continue
        taken.add(i)
        hits = [k for k in order if k not in taken and iou(boxes[i].numpy(), boxes[k].numpy(), 0) >= np.float32(0.3)]
        taken.update(hits)
        expected.append([i, *hits])
    groups = mmcv_ops.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.3)
    assert [group.tolist() for group in groups] == expected
    assert mmcv_ops.nms_match(torch.zeros(0, 5), 0.3) == []


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('mode', ['iou', 'iof'])
@pytest.mark.parametrize('offset', [0, 1])
def test_bbox_overlaps(mmcv_ops, generator, aligned, mode, offset):
    first, _ = boxes_and_scores(generator, 6)
    second, _ = boxes_and_scores(generator, 6 if aligned else 4)
    expected = torch.zeros(6, len(second))
    for i, a in enumerate(first.tolist()):
        for k, b in enumerate(second.tolist()):
            width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
            height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
            areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
            inter = width * height
            expected[i, k] = inter / (areas[0] if mode == 'iof' else sum(areas) - inter)
    ious = mmcv_ops.bbox_overlaps(first, second, mode, aligned, offset)
    torch.testing.assert_close(ious, expected.diagonal() if aligned else expected)
    half = mmcv_ops.bbox_overlaps(first.bfloat16(), second.bfloat16(), mode, aligned, offset)
    exact = mmcv_ops.bbox_overlaps(first.bfloat16().float(), second.bfloat16().float(), mode, aligned, offset)
    assert torch.equal(half, exact.bfloat16())


def test_empty_bbox_overlaps(mmcv_ops):
    assert mmcv_ops.bbox_overlaps(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
