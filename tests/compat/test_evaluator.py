# Copyright (c) addp_mm contributors. Apache-2.0.
"""Metrics of predictions in bfloat16."""

import pytest
import torch

import addp_mm  # noqa: F401


def test_metrics_get_float32_instead_of_bfloat16():
    from mmengine.evaluator import BaseMetric, Evaluator
    from mmengine.structures import BaseDataElement, InstanceData

    class Sum(BaseMetric):
        def process(self, data_batch, data_samples):
            boxes = [sample['pred_instances']['bboxes'].numpy() for sample in data_samples]
            self.results.append(sum(float(array.sum()) for array in boxes))

        def compute_metrics(self, results):
            return dict(sum=sum(results))

    metric = Sum()
    for dtype in (torch.float32, torch.bfloat16):
        sample = BaseDataElement(pred_instances=InstanceData(bboxes=torch.full((1, 4), 0.5, dtype=dtype)))
        Evaluator([metric]).process([sample])
    assert metric.results == [2.0, 2.0]
    with pytest.raises(TypeError):
        Evaluator.process.__wrapped__(Evaluator([metric]), [sample])
