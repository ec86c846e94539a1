# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmdet's CocoMetric with the matching and accumulation of faster-coco-eval."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from unittest.mock import patch

from mmdet.evaluation import CocoMetric
from mmdet.evaluation.metrics import coco_metric
from mmengine.logging import print_log

from addp_mm.registry import METRICS


@METRICS.register_module()
class FastCocoMetric(CocoMetric):
    """COCO's scores in C++ (faster-coco-eval), equal to those of pycocotools.

    It takes the arguments of mmdet's CocoMetric and gives the same values under the same names.
    mmdet itself computes ``proposal_fast``, and ``use_mp_eval`` has no effect. If faster-coco-eval
    cannot be imported, pycocotools computes the scores, and the log says so.
    """

    def evaluate(self, size: int) -> dict:
        """Scores of all processed images.

        Args:
            size: Number of images of the dataset.

        Returns:
            The values by name, as from CocoMetric.
        """
        with self._evaluator():
            return super().evaluate(size)

    def _evaluator(self) -> AbstractContextManager:
        """Context in which ``compute_metrics`` of mmdet finds the fast evaluator."""
        try:
            from addp_mm.evaluation.fast_coco_eval import coco_evaluator
        except ImportError as error:
            print_log(
                'FastCocoMetric: pycocotools computes the scores, because faster-coco-eval cannot be imported '
                f"({error}). They are the same, and take longer. To install it: pip install 'addp_mm[fast-coco]'",
                'current',
                logging.INFO,
            )
            return nullcontext()
        return patch.multiple(coco_metric, COCOeval=coco_evaluator, COCOevalMP=coco_evaluator)
