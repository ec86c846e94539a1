# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that the metrics of a config read the annotations of the evaluated images."""

import os

from mmengine.config import Config
from mmengine.registry import METRICS

from addp_mm.checks.coco_use import reads_coco
from addp_mm.checks.type_lookup import is_kind
from addp_mm.config.config_file import ConfigError


def check_evaluator(cfg: Config, split: str) -> None:
    """Check that a CocoMetric reads the annotation file of the dataset that it evaluates.

    If both files have the same image ids, mmdet would compute an AP from the wrong boxes.

    Args:
        cfg: The whole config.
        split: 'val' or 'test'.

    Raises:
        ConfigError: The two files differ.
    """
    dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}
    evaluators = cfg.get(f'{split}_evaluator') or []
    if not dataset.get('ann_file') or not reads_coco(dataset):
        return  # data for panoptic segmentation have a file of instances beside their own
    wanted = os.path.join(dataset.get('data_root') or '', dataset['ann_file'])
    for metric in [evaluators] if isinstance(evaluators, dict) else evaluators:
        given = metric.get('ann_file')
        if not given or not is_kind(metric.get('type'), METRICS, 'mmdet.evaluation', 'CocoMetric'):
            continue
        if os.path.realpath(wanted) != os.path.realpath(given):
            raise ConfigError(
                f'{split}_evaluator reads {given}, but {split}_dataloader reads {wanted}: the metric would '
                f'use annotations of other images. Set {split}_evaluator.ann_file={wanted}'
            )
