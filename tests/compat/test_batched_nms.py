# Copyright (c) addp_mm contributors. Apache-2.0.
"""The patch of batched_nms: half precision keeps the boxes that float32 keeps."""

import pytest
import torch
from helpers.modules import module_with

from addp_mm.compat.batched_nms import patch_batched_nms


def many_boxes(count: int, classes: int = 3):
    """Boxes on a grid of 8 px, with scores that bfloat16 and float16 hold exactly, and classes."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 60, (count, 2), generator=generator).float() * 8
    boxes = torch.cat([corner, corner + 8 * torch.randint(1, 6, (count, 2), generator=generator)], 1)
    scores = torch.randint(1, 256, (count,), generator=generator) / 256
    return boxes, scores, torch.randint(classes, (count,), generator=generator)


def apart(boxes, scores, classes, nms, number):
    """The boxes that each class keeps, best first, by one call of nms for each class."""
    kept = []
    for label in range(int(classes.max()) + 1):
        own = torch.where(classes == label)[0]
        dets, inds = nms(boxes[own], scores[own])
        kept += list(zip(dets[:, 4].tolist(), own[inds].tolist(), strict=True))
    return sorted(kept, reverse=True)[:number] if number > 0 else sorted(kept, reverse=True)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('kind', ['nms', 'soft_nms'])
@pytest.mark.parametrize('split', [1, 100000])
@pytest.mark.parametrize('half', ['scores', 'boxes', 'both'])
def test_batched_nms_in_half_precision_is_that_of_float32(dtype, kind, split, half):
    import mmcv.ops

    boxes, scores, classes = many_boxes(300)
    options = dict(iou_threshold=0.4) if kind == 'nms' else dict(iou_threshold=0.4, min_score=0.05)
    expected = apart(boxes, scores, classes, lambda *args: getattr(mmcv.ops, kind)(*args, **options), 0)
    assert 30 < len(expected) < 300
    dets, keep = mmcv.ops.batched_nms(
        boxes.to(dtype) if half != 'scores' else boxes,
        scores.to(dtype) if half != 'boxes' else scores,
        classes,
        dict(type=kind, split_thr=split, **options),
    )
    assert sorted(keep.tolist()) == sorted(index for _, index in expected)
    assert dets.dtype == (dtype if half == 'both' else torch.float32)
    wanted = torch.tensor([score for score, _ in expected]).to(dets.dtype)
    torch.testing.assert_close(dets[:, 4], wanted)
    assert torch.equal(dets[:, :4].float(), boxes[keep])


def test_batched_nms_of_ten_thousand_boxes():
    """10,001 boxes are more than mmcv's threshold, from which it treats the classes one by one."""
    import mmcv.ops

    boxes, scores, classes = many_boxes(10001)
    cfg = dict(type='nms', iou_threshold=0.4, max_num=50)
    expected, order = mmcv.ops.batched_nms(boxes, scores, classes, cfg)
    assert len(order) == 50
    for dtype in (torch.bfloat16, torch.float16):
        dets, keep = mmcv.ops.batched_nms(boxes, scores.to(dtype), classes, cfg)
        assert torch.equal(dets, expected)
        assert torch.equal(keep, order)


def test_eighty_classes_do_not_overflow_float16():
    import mmcv.ops

    # the boxes of class 79 are moved by 79 * 1000 pixels; float16 ends at 65504
    boxes = torch.tensor([[0.0, 0.0, 999.0, 999.0]] * 2).half()
    scores, classes = torch.tensor([0.5, 0.25]).half(), torch.tensor([79, 79])
    _, keep = mmcv.ops.batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.5))
    assert keep.tolist() == [0]


def test_batched_nms_of_nothing_of_integers_and_without_nms():
    import mmcv.ops

    cfg = dict(type='nms', iou_threshold=0.5)
    empty, none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    assert mmcv.ops.batched_nms(empty, torch.zeros(0), none, None)[0].shape == (0, 5)
    boxes = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 5]])
    dets, keep = mmcv.ops.batched_nms(boxes, torch.tensor([0.5, 0.25]), torch.tensor([0, 0]), cfg)
    assert keep.tolist() == [0]
    assert dets.tolist() == [[0.0, 0.0, 4.0, 4.0, 0.5]]


def test_batched_nms_without_the_fault_stays():

    def batched_nms(boxes, scores, idxs, nms_cfg, class_agnostic=False):
        return boxes, idxs

    module = module_with(batched_nms=batched_nms, nms=None)
    assert not patch_batched_nms(module)
    assert module.batched_nms is batched_nms
