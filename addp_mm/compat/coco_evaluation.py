# Copyright (c) addp_mm contributors. Apache-2.0.
"""Objects without a mask in pycocotools, predictions of unknown classes in mmdet's CocoMetric."""

import tempfile
from pathlib import Path
from typing import Any

from addp_mm.compat.importing import replace_method


def patch_cocoeval(module: Any) -> bool:
    """Leave objects that are marked with ``no_mask`` out of the scores of masks.

    Predictions that match the mask of such an object count neither as right nor as wrong. Its box
    counts as any other. :mod:`addp_mm.checks.coco_repairs` sets the mark.

    Args:
        module: ``pycocotools.cocoeval``.

    Returns:
        True: pycocotools has no such mark.
    """
    replace_method(module.COCOeval, '_prepare', _make_prepare)
    return True


def _make_prepare(original):

    def _prepare(self):
        original(self)
        if self.params.iouType == 'segm':
            for objects in self._gts.values():
                for one in objects:
                    if one.get('no_mask'):
                        one['ignore'] = 1

    return _prepare


def patch_coco_metric(module: Any) -> bool:
    """Leave out predictions of classes that the annotation file lacks.

    A model may have more classes than the data. CocoMetric looks up the category of each predicted
    label, and fails on the first one that has none.

    Args:
        module: ``mmdet.evaluation.metrics.coco_metric``.

    Returns:
        Whether it fails.
    """
    import numpy as np

    metric = object.__new__(module.CocoMetric)
    metric.cat_ids = []
    unknown = dict(img_id=1, labels=np.array([0]), bboxes=np.zeros((1, 4)), scores=np.ones(1))
    with tempfile.TemporaryDirectory() as folder:
        try:
            metric.results2json([unknown], str(Path(folder) / 'results'))
        except IndexError:
            replace_method(module.CocoMetric, 'results2json', _make_results2json)
            return True
        except (AttributeError, KeyError, TypeError):
            return False  # the metric of another version reads other values
    return False


def _make_results2json(original):

    def results2json(self, results, outfile_prefix):
        classes = len(self.cat_ids)
        unknown = sum(int((result['labels'] >= classes).sum()) for result in results)
        if unknown:
            from logging import WARNING

            from mmengine.logging import print_log

            print_log(
                f'CocoMetric: {unknown} predictions of classes that the data lack are left out; the data have '
                f'{classes} classes. Set num_classes={classes} in the heads of the model.',
                'current',
                WARNING,
            )
            results = [_of_known_classes(result, classes) for result in results]
        return original(self, results, outfile_prefix)

    return results2json


def _of_known_classes(result: dict, classes: int) -> dict:
    known = result['labels'] < classes
    kept = {key: result[key][known] for key in ('labels', 'bboxes', 'scores', 'mask_scores') if key in result}
    if 'masks' in result:
        kept['masks'] = [mask for mask, keep in zip(result['masks'], known, strict=True) if keep]
    return {**result, **kept}
