# Copyright (c) addp_mm contributors. Apache-2.0.
"""A detector is evaluated with the annotations of its own images."""

import pytest
from mmengine.config import Config

from addp_mm.checks.evaluators import check_evaluator
from addp_mm.config.config_file import ConfigError


def config(ann_file: str, kind: str = 'CocoMetric') -> Config:
    return Config(
        dict(
            val_dataloader=dict(dataset=dict(type='CocoDataset', data_root='data/mine/', ann_file='val.json')),
            val_evaluator=[dict(type='mmdet.DumpDetResults'), dict(type=kind, ann_file=ann_file)],
        )
    )


@pytest.mark.parametrize('kind', ['CocoMetric', 'mmdet.CocoMetric'])
def test_annotations_of_other_images_are_refused(kind):
    with pytest.raises(
        ConfigError,
        match=r'val_evaluator reads data/coco/val.json, but val_dataloader reads '
        r'data/mine/val.json.*Set val_evaluator.ann_file=data/mine/val.json',
    ):
        check_evaluator(config('data/coco/val.json', kind), 'val')


def test_the_same_file_by_another_path_passes():
    check_evaluator(config('data/../data/mine/val.json'), 'val')
    check_evaluator(config('data/coco/val.json', 'OtherMetric'), 'val')  # an unknown class
    check_evaluator(config(None), 'val')  # the annotations are read from the dataset
    check_evaluator(Config(dict()), 'test')
