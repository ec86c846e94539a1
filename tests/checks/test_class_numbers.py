# Copyright (c) addp_mm contributors. Apache-2.0.
"""Numbers of classes that must be the same in one config."""

import pytest
from mmengine.config import Config

from addp_mm.checks.class_numbers import check_class_numbers
from addp_mm.config.config_file import load_config
from addp_mm.engine.captured_warnings import captured_warnings
from addp_mm.errors import ConfigError

DEIT = 'mmpretrain::deit/deit-base_16xb64_in1k.py'
RESNET = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
MASK_RCNN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
CASCADE = 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
PANOPTIC = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py'
UPERNET = 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
STDC = 'mmseg::stdc/stdc1_4xb12-80k_cityscapes-512x1024.py'
SAN = 'mmseg::san/san-vit-b16_voc12aug-640x640.py'
SEG_QUERIES = 'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py'


def changed(name: str, **values) -> Config:
    cfg = load_config(name)
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in values.items()})
    return cfg


@pytest.mark.parametrize(
    'name, values, words',
    [
        (DEIT, dict(model__head__num_classes=10), 'model.head.num_classes=10, but data_preprocessor.num_classes=1000'),
        (
            DEIT,
            dict(model__head__loss__num_classes=7),
            'model.head.num_classes=1000, but model.head.loss.num_classes=7',
        ),
        (
            MASK_RCNN,
            dict(model__roi_head__mask_head__num_classes=3),  # fails at a box of class 3
            'model.roi_head.bbox_head.num_classes=80, but model.roi_head.mask_head.num_classes=3',
        ),
        (
            CASCADE,
            {'model__roi_head__bbox_head__1__num_classes': 3},
            'model.roi_head.bbox_head.0.num_classes=80, but model.roi_head.bbox_head.1.num_classes=3',
        ),
        (
            PANOPTIC,
            dict(model__panoptic_head__num_stuff_classes=1),
            'model.panoptic_head.num_stuff_classes=1, but model.panoptic_fusion_head.num_stuff_classes=53',
        ),
        (
            SEG_QUERIES,
            dict(model__decode_head__num_classes=4),
            'model.decode_head.loss_cls.class_weight has 151 numbers, but model.decode_head.num_classes=4 and one '
            'class for no object: give it 5 numbers',
        ),
        (
            UPERNET,
            dict(model__decode_head__loss_decode__class_weight=[1.0, 2.0]),
            'model.decode_head.loss_decode.class_weight has 2 numbers',
        ),
    ],
)
def test_numbers_that_differ_are_named_with_their_keys(name, values, words):
    with pytest.raises(ConfigError) as caught:
        check_class_numbers(changed(name, **values))
    assert words in str(caught.value)


def test_label_maps_of_the_pipeline_have_the_classes_of_the_head():
    cfg = load_config('cls/volo-d1_token-label_8xb128-bf16-coslr-300e_in1k-224px')
    check_class_numbers(cfg)
    cfg.model.head.num_classes = 10
    with pytest.raises(ConfigError, match=r'model.head.num_classes=10, but train_dataloader.dataset.pipeline.\d+.num'):
        check_class_numbers(cfg)


@pytest.mark.parametrize(
    'name, values',
    [
        (RESNET, dict(model__head__num_classes=10)),  # its labels are numbers, which need no number of classes
        (  # one mask for all classes
            MASK_RCNN,
            dict(model__roi_head__mask_head__class_agnostic=True, model__roi_head__mask_head__num_classes=1),
        ),
        *((name, {}) for name in (DEIT, MASK_RCNN, CASCADE, PANOPTIC, UPERNET, STDC, SAN, SEG_QUERIES)),
    ],
)
def test_numbers_that_may_differ(name, values):
    with captured_warnings() as (logged, _):
        check_class_numbers(changed(name, **values))
    assert logged == []


@pytest.mark.parametrize(
    'name, key, words',
    [
        (
            UPERNET,
            'model__decode_head__num_classes',
            'model.decode_head.num_classes=3, but model.auxiliary_head.num_classes=150',
        ),
        (
            MASK_RCNN,
            'model__roi_head__bbox_head__num_classes',
            'model.roi_head.bbox_head.num_classes=3, but model.roi_head.mask_head.num_classes=80',
        ),
    ],
)
def test_a_part_with_classes_that_are_not_used_is_warned_about(name, key, words):
    with captured_warnings() as (logged, _):
        check_class_numbers(changed(name, **{key: 3}))
    assert logged == [f'config: {words}: they are mostly the same number of classes, that of your data']


@pytest.mark.parametrize('cfg', [{}, dict(model=None), dict(default_scope='mmseg', model=dict(type='X'))])
def test_configs_without_heads(cfg):
    check_class_numbers(Config(cfg))
