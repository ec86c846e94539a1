# Copyright (c) addp_mm contributors. Apache-2.0.
"""Misspelt arguments inside a config file are found before anything is built."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext
from addp_mm.checks.unknown_arguments import check_config
from addp_mm.config.config_file import ConfigError, load_config

pytestmark = pytest.mark.slow
DETECTION = Path(__file__).parents[2] / 'configs/det/mask-rcnn_addp-vit-nano-p8_coco-style_fashion-scenes.py'

NANO_CLASSIFIER = 'addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px'


@pytest.fixture(scope='module')
def detection() -> Config:
    return load_config(str(DETECTION))


def check(cfg: Config, path: Path) -> None:
    cfg.dump(path)
    with DefaultScope.overwrite_default_scope('mmdet'):
        check_config(load_config(str(path)))


def test_a_detection_config_passes(detection, tmp_path):
    check(detection, tmp_path / 'right.py')


@pytest.mark.parametrize(
    'where, right, wrong',
    [
        ('train_dataloader.dataset.pipeline.1', 'with_mask', 'with_maks'),
        ('train_dataloader.dataset.pipeline.2', 'keep_ratio', 'keep_ratoi'),
        ('val_dataloader.dataset.pipeline.3', 'meta_keys', 'meta_kesy'),
        ('train_dataloader.dataset', 'ann_file', 'ann_flie'),
        ('model.train_cfg.rpn.assigner', 'pos_iou_thr', 'pos_iuo_thr'),
        ('model.train_cfg.rcnn.sampler', 'pos_fraction', 'pos_fractoin'),
        ('model.roi_head.bbox_head.bbox_coder', 'target_stds', 'target_stsd'),
        ('model.neck', 'out_channels', 'out_chanels'),
    ],
)
def test_a_misspelt_key_of_a_file_is_named(detection, tmp_path, where, right, wrong):
    cfg = Config(detection.to_dict())
    node = cfg
    for part in where.split('.'):
        node = node[int(part)] if part.isdigit() else node[part]
    node[wrong] = node.pop(right, 256)
    with pytest.raises(
        ConfigError, match=rf'config: {where}\.{wrong} is not an argument of \S+; did you mean .*{right}'
    ):
        check(cfg, tmp_path / 'wrong.py')


@pytest.mark.parametrize(
    'where, kind, taken',
    [
        ('train_dataloader.dataset.pipeline.3', 'RandomFlip', 'direction, prob, swap_seg_labels'),
        ('default_hooks.timer', 'IterTimerHook', 'no arguments'),
        ('optim_wrapper.optimizer', 'SGD', 'dampening'),
        ('val_evaluator', 'CocoMetric', 'ann_file'),
    ],
)
def test_an_argument_that_a_stock_class_does_not_have_is_named(detection, tmp_path, where, kind, taken):
    """No argument has a similar name."""
    cfg = Config(detection.to_dict())
    cfg.setdefault('default_hooks', {}).setdefault('timer', dict(type='IterTimerHook'))
    node = cfg
    for part in where.split('.'):
        node = node[int(part)] if part.isdigit() else node[part]
    node.umbrella = 3
    with pytest.raises(
        ConfigError, match=rf'config: {where}\.umbrella is not an argument of {kind}; it takes .*{taken}'
    ):
        check(cfg, tmp_path / 'wrong.py')


@pytest.mark.parametrize(
    'option, key, entry',
    [
        ('custom_hooks=[EMAHook]', 'custom_hooks', 'EMAHook'),
        ('param_scheduler=[(1,2)]', 'param_scheduler', r'\(1, 2\)'),
        ('visualizer.vis_backends=[LocalVisBackend]', r'visualizer\.vis_backends', 'LocalVisBackend'),
    ],
)
def test_an_entry_that_is_not_a_dict_is_named(option, key, entry):
    cfg = load_config(str(DETECTION), [option])
    with pytest.raises(ConfigError, match=rf'config: {key} contains .?{entry}.*Give dicts, .* with {key}\.0\.KEY'):
        check_config(cfg)


def test_hooks_are_a_list():
    check_config(load_config(NANO_CLASSIFIER, ['custom_hooks=[dict(type=EMAHook, momentum=0.1)]']))
    with pytest.raises(ConfigError, match='custom_hooks must be a list'):
        check_config(load_config(NANO_CLASSIFIER, ['custom_hooks=dict(type=EMAHook)']))


@pytest.mark.parametrize(
    'option, message',
    [
        ('model.backbone.type=ADDPVit', r"type='ADDPVit' is not registered; did you mean addp_mm\.ADDPViT"),
        ('model.backbone.type=ADDPViT', r"type='ADDPViT' is not registered; did you mean addp_mm\.ADDPViT"),
        ('optim_wrapper.optimizer.type=AdamWW', r"optimizer\.type='AdamWW' is not registered; did you mean AdamW"),
        ('model.backbone.init_cfg.type=TruncNormel', r"backbone\.init_cfg\.type='TruncNormel' .* mean TruncNormal"),
        ('model.backbone.init_cfg=[dict(type=Xx)]', r"backbone\.init_cfg\.0\.type='Xx' is not registered"),
        (
            'model.head.init_cfg=dict(type=Normal,override=dict(type=Normall,name=fc))',
            r"head\.init_cfg\.override\.type='Normall' is not registered; did you mean .*Normal",
        ),
        ('model.backbone.act_cfg.type=GELUU', r"backbone\.act_cfg\.type='GELUU' .* did you mean GELU"),
        ('model.type=Umbrella', r"model\.type='Umbrella' is not registered\. Correct the name"),
        ('model.head.loss.type=Umbrella', r"model\.head\.loss\.type='Umbrella' is not registered"),
        ('model.data_preprocessor.type=Umbrella', r"model\.data_preprocessor\.type='Umbrella'"),
        ('default_hooks.timer.type=Umbrella', r"default_hooks\.timer\.type='Umbrella'"),
        ('custom_hooks=[dict(type=Umbrella)]', r"custom_hooks\.0\.type='Umbrella'"),
        ('custom_hooks=[dict(type=EMAHok)]', r"custom_hooks\.0\.type='EMAHok' .* did you mean EMAHook"),
        ('optim_wrapper.type=Umbrella', r"optim_wrapper\.type='Umbrella'"),
        ('optim_wrapper.optimizer.type=Umbrella', r"optim_wrapper\.optimizer\.type='Umbrella'"),
        ('optim_wrapper.constructor=Umbrella', r"optim_wrapper\.constructor='Umbrella'"),
        ('param_scheduler=[dict(type=Umbrella)]', r"param_scheduler\.0\.type='Umbrella'"),
        ('train_dataloader.sampler.type=Umbrella', r"train_dataloader\.sampler\.type='Umbrella'"),
        ('train_dataloader.dataset.type=Umbrella', r"train_dataloader\.dataset\.type='Umbrella'"),
        ('train_dataloader.dataset.pipeline.0.type=Umbrella', r"dataset\.pipeline\.0\.type='Umbrella'"),
        ('train_dataloader.collate_fn=dict(type=Umbrella)', r"train_dataloader\.collate_fn\.type='Umbrella'"),
        ('val_evaluator=[dict(type=Umbrella)]', r"val_evaluator\.0\.type='Umbrella'"),
        ('visualizer.type=Umbrella', r"visualizer\.type='Umbrella'"),
        ('visualizer.vis_backends.0.type=Umbrella', r"visualizer\.vis_backends\.0\.type='Umbrella'"),
        ('train_cfg.type=Umbrella', r"train_cfg\.type='Umbrella'"),
        ('log_processor=dict(type=Umbrella)', r"log_processor\.type='Umbrella'"),
        ('runner_type=FlexibleRuner', r"runner_type='FlexibleRuner' is not registered; did you mean FlexibleRunner"),
    ],
)
def test_a_misspelt_type_is_refused_before_anything_is_built(option, message):
    with pytest.raises(ConfigError, match=message):
        check_config(load_config(NANO_CLASSIFIER, [option]))
