# Copyright (c) addp_mm contributors. Apache-2.0.
"""Names that numpy has removed, and the metrics that use them."""

import numpy as np
import pytest
from helpers.modules import module_with

from addp_mm.compat.numpy_names import patch_numpy_names


def test_numpy_names_are_those_of_old_numpy():
    module = module_with(np=np)
    removed = {name for name in ('in1d', 'float') if name not in dir(np)}
    assert patch_numpy_names(module) == bool(removed)
    assert module.np.arange is np.arange
    if 'in1d' in removed:
        assert module.np.in1d([[1, 2], [3, 4]], [2, 3]).tolist() == [False, True, True, False]
        assert module.np.in1d([1, 2], [2], invert=True).tolist() == [True, False]
    if 'float' in removed:
        assert np.array([True]).astype(module.np.float).dtype == np.float64


def test_retrieval_recall_and_average_precision():
    from mmpretrain.evaluation.metrics import RetrievalAveragePrecision, RetrievalRecall

    predicted, wanted = [[3, 1, 7, 5], [2, 4, 6, 0]], [[7, 9], [2, 0]]
    found = [[index in goal for index in row] for row, goal in zip(predicted, wanted, strict=True)]
    # mmpretrain shortens the lists that it gets
    recalls = RetrievalRecall.calculate(predicted.copy(), wanted, topk=(1, 3), pred_indices=True, target_indices=True)
    for k, recall in zip((1, 3), recalls, strict=True):
        assert float(recall) == 100 * sum(any(row[:k]) for row in found) / 2
    precisions = [
        sum(sum(row[: i + 1]) / (i + 1) for i, hit in enumerate(row) if hit) / len(goal)
        for row, goal in zip(found, wanted, strict=True)
    ]
    average = RetrievalAveragePrecision.calculate(predicted, wanted, topk=4, pred_indices=True, target_indices=True)
    assert float(average) == pytest.approx(100 * sum(precisions) / 2)


def test_the_video_metric_accumulates():
    """One video of two frames, with one object that is found exactly: AP 1."""
    from mmdet.evaluation.functional import YTVIS, YTVISeval

    box = [0.0, 0.0, 4.0, 4.0]
    track = dict(bboxes=[box, box], areas=[16.0, 16.0], category_id=1, video_id=1, iscrowd=0)
    truth = YTVIS()
    truth.dataset = dict(
        videos=[dict(id=1, width=8, height=8, length=2)],
        categories=[dict(id=1, name='garment')],
        annotations=[dict(track, id=1, segmentations=[mask_of(box), mask_of(box)])],
    )
    truth.createIndex()
    found = truth.loadRes([dict(video_id=1, category_id=1, score=0.9, segmentations=[mask_of(box), mask_of(box)])])
    evaluation = YTVISeval(truth, found, 'segm')
    evaluation.params.vidIds, evaluation.params.catIds = [1], [1]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, 0, 0, -1]
    np.testing.assert_allclose(precision, 1)


def mask_of(box) -> dict:
    from pycocotools import mask

    left, top, width, height = (int(side) for side in box)
    pixels = np.zeros((8, 8), np.uint8, order='F')
    pixels[top : top + height, left : left + width] = 1
    return mask.encode(pixels)
