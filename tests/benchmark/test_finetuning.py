# Copyright (c) addp_mm contributors. Apache-2.0.
"""Metrics of a test, by title."""

import pytest

from addp_mm.benchmark.finetuning import read_metrics
from addp_mm.benchmark.tasks import TASKS
from addp_mm.report.logs import LogError


def test_metrics_are_in_percent_and_no_detection_is_zero(tmp_path):
    file = tmp_path / 'metrics.json'
    file.write_text('{"coco/bbox_mAP": 0.25, "coco/segm_mAP": 0.125, "coco/bbox_mAP_50": 0.5}')
    assert read_metrics(file, TASKS['det'].metrics) == {'Box AP': 25.0, 'Mask AP': 12.5}
    file.write_text('{}')
    assert read_metrics(file, TASKS['det'].metrics) == {'Box AP': 0.0, 'Mask AP': 0.0}


def test_a_missing_metric_is_named(tmp_path):
    file = tmp_path / 'metrics.json'
    file.write_text('{"aAcc": 1.0}')
    with pytest.raises(LogError, match='has no mIoU; it has aAcc'):
        read_metrics(file, TASKS['seg'].metrics)
