# Copyright (c) addp_mm contributors. Apache-2.0.
"""A CocoMetric of mmdet without the fault stays as it is."""

from helpers.modules import module_with

from addp_mm.compat.coco_evaluation import patch_coco_metric


def test_a_coco_metric_without_the_fault_stays():
    class CocoMetric:
        def results2json(self, results, outfile_prefix):
            return {}

    assert not patch_coco_metric(module_with(CocoMetric=CocoMetric))
