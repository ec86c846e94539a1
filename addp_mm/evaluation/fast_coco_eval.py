# Copyright (c) addp_mm contributors. Apache-2.0.
"""The evaluator of faster-coco-eval with the conventions of pycocotools."""

from __future__ import annotations

import logging
from typing import Any

from faster_coco_eval import COCOeval_faster
from mmengine.logging import print_log
from pycocotools.cocoeval import COCOeval


class FastCOCOeval(COCOeval_faster):
    """Matches and accumulates in C++, and is otherwise pycocotools' ``COCOeval``.

    Args:
        ground_truth: Annotations, a ``COCO`` of pycocotools.
        predictions: Predictions, as ``COCO.loadRes`` returns them.
        iou_type: 'bbox' or 'segm'.
    """

    def __init__(self, ground_truth: Any, predictions: Any, iou_type: str) -> None:
        super().__init__(ground_truth, predictions, iou_type, print_function=print)

    def _prepare(self) -> None:
        super()._prepare()
        if self.params.iouType == 'segm':
            # as addp_mm.compat.coco_evaluation does for pycocotools
            for one in self.cocoGt.anns.values():
                if one.get('no_mask'):
                    one['ignore'] = 1

    def summarize(self) -> None:
        """Print the table and set ``stats``.

        Both are pycocotools', whose AP is that of 100 detections. faster-coco-eval takes the
        largest number of detections, which is 1000 in mmdet.
        """
        COCOeval.summarize(self)


def coco_evaluator(ground_truth: Any, predictions: Any, iou_type: str) -> Any:
    """The fast evaluator, or that of pycocotools for ids that C++ does not take.

    Args:
        ground_truth: See :class:`FastCOCOeval`.
        predictions: See :class:`FastCOCOeval`.
        iou_type: See :class:`FastCOCOeval`.
    """
    other = next((one for one in (*ground_truth.imgs, *ground_truth.cats) if not isinstance(one, int)), None)
    if other is None:
        return FastCOCOeval(ground_truth, predictions, iou_type)
    print_log(
        f'FastCocoMetric: pycocotools computes the scores, because ids of images or categories are not whole numbers '
        f'({other!r}). They are the same, and take longer',
        'current',
        logging.INFO,
    )
    return COCOeval(ground_truth, predictions, iou_type)
