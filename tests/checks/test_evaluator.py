# Copyright (c) addp_mm contributors. Apache-2.0.
"""A detector is judged by the annotations of the pictures that it sees."""

import pytest
from mmengine.config import Config

from addp_mm.checks.runner_cfg import check_evaluator
from addp_mm.config.config_file import ConfigError


def config(ann_file: str, kind: str = 'CocoMetric') -> Config:
    return Config(
        dict(
            val_dataloader=dict(dataset=dict(type='CocoDataset', data_root='data/mine/', ann_file='val.json')),
            val_evaluator=[dict(type='mmdet.DumpDetResults'), dict(type=kind, ann_file=ann_file)],
        )
    )


@pytest.mark.parametrize('kind', ['CocoMetric', 'mmdet.CocoMetric'])
def test_annotations_of_other_pictures_are_refused(kind):
    with pytest.raises(
        ConfigError,
        match=r'val_evaluator reads data/coco/val.json and val_dataloader '
        r'data/mine/val.json.*Set val_evaluator.ann_file=data/mine/val.json',
    ):
        check_evaluator(config('data/coco/val.json', kind), 'val')


def test_the_same_file_by_another_path_passes():
    check_evaluator(config('data/../data/mine/val.json'), 'val')
    check_evaluator(config('data/coco/val.json', 'LVISMetric'), 'val')  # not ours to judge
    check_evaluator(config(None), 'val')  # read from the data set itself
    check_evaluator(Config(dict()), 'test')
