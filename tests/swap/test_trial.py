# Copyright (c) addp_mm contributors. Apache-2.0.
"""A trial finds what does not fit in a config that was written by hand."""

import pytest
import torch
from helpers.hand_swaps import DETECTORS, SEGMENTORS, write_swap
from mmengine.config import Config
from torch import nn

from addp_mm.analysis.batches import scope_of, synthetic_batch
from addp_mm.engine.captured_warnings import captured_warnings
from addp_mm.errors import ConfigError
from addp_mm.swap.channels import wrong_channels
from addp_mm.swap.check import TrialOfCheck, swap_checks
from addp_mm.swap.colours import check_colours, entry_of
from addp_mm.swap.optimizer_check import warn_about_optimizer
from addp_mm.swap.reduce import odd_size, trial_size_of
from addp_mm.swap.trial import TrialError, attempt, try_config, try_swap
from addp_mm.swap.watch import Watched

STRIDES = (8, 16, 32, 64, 128)


def detector(folder, name='retinanet', **model) -> Config:
    base, text = DETECTORS[name]
    cfg = Config.fromfile(write_swap(folder / 'config.py', f'mmdet::{base}', text))
    cfg.merge_from_dict({f'model.{key}': value for key, value in model.items()})
    return cfg


def segmentor(folder, name) -> Config:
    base, text = SEGMENTORS[name]
    return Config.fromfile(write_swap(folder / 'config.py', f'mmseg::{base}', text))


def test_what_a_trial_shows(tmp_path):
    trial = try_config(detector(tmp_path))
    assert trial.img_size == (96, 96)
    assert [channels for channels, _ in trial.maps] == [256] * 5
    assert [stride for _, stride in trial.maps[:3]] == [8, 16, 32]
    assert trial.predicted == ('pred_instances',)
    assert trial.idle == ()
    assert set(trial.losses) == {'loss', 'loss_cls', 'loss_bbox'}
    with torch.random.fork_rng():
        assert try_config(detector(tmp_path)).losses == trial.losses


def test_a_segmentor_takes_images_of_any_size_and_a_crop_of_another(tmp_path):
    cfg = segmentor(tmp_path, 'fcn')
    assert odd_size(cfg, (64, 64)) == (57, 61)
    cfg.model.data_preprocessor.test_cfg = dict(size_divisor=16)
    assert try_config(cfg).maps == ((32, 16.0),) * 4
    cfg.model.data_preprocessor.pop('test_cfg')
    with pytest.raises(TrialError, match='the prediction of images of 57 x 61 px fails: .*is not a multiple of'):
        try_config(cfg)


@pytest.mark.parametrize(
    'model, words',
    [
        ({'neck.scales': (4, 2, 1, 0.5)}, 'bbox_head expects maps of strides 8, 16, 32, 64, 128, and gets 4, 8, 16,'),
        (
            {'neck.in_channels': 16},
            'model.neck.in_channels=16, but the backbone gives 32 channels: set model.neck.in_channels=32. So the '
            'prediction of images of 89 x 93 px fails: RuntimeError',
        ),
        (
            {'bbox_head.in_channels': 8},
            'model.bbox_head.in_channels=8, but the neck gives 256 channels: set model.bbox_head.in_channels=256',
        ),
        (
            {'neck.num_outs': 3},
            'bbox_head expects 5 maps, of stride 8, 16, 32, 64, 128, and the neck gives 3, of stride 8, 16, 32. So the '
            'prediction of images of 89 x 93 px fails: AssertionError',
        ),
        ({'data_preprocessor.pad_size_divisor': 1}, 'the prediction of images .* is not a multiple of the patch'),
        ({'backbone.arch.num_heads': 5}, 'the model cannot be built'),
        ({'backbone.init_cfg': dict(type='addp_mm.Pretrained', checkpoint='/none.pth')}, '/none.pth does not exist'),
    ],
)
def test_a_part_that_does_not_fit_is_named(model, words, tmp_path):
    with pytest.raises(TrialError, match=words):
        try_config(detector(tmp_path, **model))


@pytest.mark.parametrize(
    'scope, model, inputs, maps, words',
    [
        (
            'mmdet',
            dict(neck=dict(type='FPN', in_channels=[4, 8])),
            [(4, 16)],
            (),
            'model.neck.in_channels=[4, 8], but the backbone gives 4, 16 channels: set model.neck.in_channels=[4, 16]',
        ),
        (
            'mmdet',
            dict(neck=dict(type='addp_mm.FourScaleNeck', embed_dims=8)),
            [(4, 8, 8, 8)],
            (),
            'model.neck.embed_dims=8, but the backbone gives 4, 8 channels: set model.neck.embed_dims=[4, 8, 8, 8]',
        ),
        (
            'mmdet',
            dict(neck=[dict(type='A'), dict(type='FPN', in_channels=[4])]),
            [(4,), (8,)],
            (),
            'model.neck.1.in_channels=4, but model.neck.0 gives 8 channels: set model.neck.1.in_channels=8',
        ),
        (
            'mmdet',
            dict(roi_head=dict(bbox_roi_extractor=dict(out_channels=4))),
            [],
            (8, 8),
            'model.roi_head.bbox_roi_extractor.out_channels=4, but the backbone gives 8 channels: set model.roi_head.'
            'bbox_roi_extractor.out_channels=8',
        ),
        (
            'mmseg',
            dict(decode_head=dict(in_channels=4, in_index=2), auxiliary_head=[dict(in_channels=4)]),
            [],
            (4, 8),
            'model.decode_head.in_index=2, but the backbone gives 2 map(s), counted from 0',
        ),
        (
            'mmseg',
            dict(decode_head=dict(in_channels=[4, 4], in_index=[0, 1])),
            [],
            (4, 8),
            'model.decode_head.in_channels=[4, 4], but the backbone gives 4, 8 channels: set '
            'model.decode_head.in_channels=[4, 8]',
        ),
        (
            'mmpretrain',
            dict(head=dict(in_channels=4)),
            [],
            (8,),
            'model.head.in_channels=4, but the backbone gives 8 channels: set model.head.in_channels=8',
        ),
        ('mmdet', dict(neck=dict(type='DilatedEncoder', in_channels=8)), [(4, 8)], (), None),
        ('mmdet', dict(neck=dict(type='YOLOV3Neck', in_channels=[8, 4])), [(4, 8)], (), None),
        ('mmseg', dict(decode_head=dict(in_channels=8)), [], (4, 8), None),
    ],
)
def test_channels_that_do_not_fit_are_named_with_their_key(scope, model, inputs, maps, words):
    watched = Watched(nn.Identity())
    watched.neck_inputs, watched.shapes = inputs, tuple((1, channels, 2, 2) for channels in maps)
    assert next(wrong_channels(Config(dict(default_scope=scope, model=model)), watched), None) == words


SGD = dict(type='SGD', lr=0.02, momentum=0.9)


@pytest.mark.parametrize(
    'settings, words',
    [
        ({'optim_wrapper.optimizer': SGD}, 'optim_wrapper.optimizer.type is SGD, which seldom trains a transformer'),
        (
            {'optim_wrapper.optimizer': dict(type='AdamW', lr=0.02)},
            'optim_wrapper.optimizer.lr=0.02 is a learning rate of SGD, and too high for AdamW with ADDPViT',
        ),
        ({'optim_wrapper.optimizer': dict(type='AdamW', lr=1e-4)}, None),
        ({'optim_wrapper.optimizer': SGD, 'model.backbone.frozen_stages': 4}, None),
        ({'optim_wrapper.paramwise_cfg': dict(custom_keys=dict(backbone=dict(lr_mult=0.0)))}, None),
        ({'model.backbone': dict(_delete_=True, type='ResNet', depth=18)}, None),
    ],
)
def test_sgd_of_a_transformer_is_warned_about(settings, words, tmp_path):
    cfg = detector(tmp_path)
    cfg.merge_from_dict(settings)
    with captured_warnings() as (logged, _), scope_of(cfg):
        warn_about_optimizer(cfg)
    assert [text[: len(words or '')] for text in logged] == ([words] if words else [])


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save(nn.Conv2d(3, 8, 3).state_dict(), tmp_path / 'other.pth')
    weights = dict(type='addp_mm.Pretrained', checkpoint=str(tmp_path / 'other.pth'))
    with pytest.raises(TrialError, match='other.pth: no weight matches ADDPViT'):
        try_config(detector(tmp_path, **{'backbone.init_cfg': weights}))


def test_a_level_that_no_head_uses_is_refused(tmp_path):
    cfg = segmentor(tmp_path, 'deeplabv3plus')
    cfg.model.data_preprocessor.test_cfg = dict(size_divisor=16)
    cfg.model.neck.scales = (4, 2, 1)  # the heads read the first two
    with pytest.raises(TrialError, match='no loss depends on neck.*: a training on several GPUs stops there'):
        try_config(cfg)


def test_the_layer_decay_of_mmdet_cannot_read_the_backbone(tmp_path):
    cfg = detector(tmp_path)
    cfg.optim_wrapper.constructor = 'LearningRateDecayOptimizerConstructor'
    cfg.optim_wrapper.paramwise_cfg = dict(decay_rate=0.7, decay_type='layer_wise', num_layers=6)
    with pytest.raises(TrialError, match='optimizer cannot be built: .*addp_mm.LayerDecayOptimWrapperConstructor'):
        try_config(cfg)


def test_a_config_that_fails_as_its_original_does_is_not_refused(tmp_path, monkeypatch):
    def fail(cfg, *_):
        raise TrialError(f'{cfg.cause} of 57 x 61 px' if cfg.odd else f'{cfg.cause} of 64 x 64 px')

    monkeypatch.setattr('addp_mm.swap.trial.try_config', fail)
    before, same, other = (Config(dict(cause=cause, odd=odd)) for cause, odd in (('a', 0), ('a', 1), ('b', 0)))
    assert try_swap(before, same, (64, 64), 32) == (None, 'a of 57 x 61 px')
    with pytest.raises(TrialError, match='b of 64'):
        try_swap(before, other, (64, 64), 32)


def test_the_size_of_a_trial_serves_the_queries_of_a_two_stage_detr(tmp_path):
    cfg = detector(tmp_path, 'dino')
    height, width = trial_size_of(cfg, (64, 64), 32)
    assert sum((height // stride) * (width // stride) for stride in (8, 16, 32, 64)) >= 100
    assert height % 32 == width % 32 == 0


def test_maps_and_gradients_are_watched():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head, self.spare = nn.Conv2d(3, 4, 8, 8), nn.Conv2d(4, 1, 1), nn.Linear(1, 1)

    model = Model()
    with Watched(model) as watched:
        model.head(model.backbone(torch.zeros(2, 3, 32, 16))).sum().backward()
    assert watched.height == 32
    assert watched.maps == ((4, 8.0),)
    assert watched.idle == ('spare.weight', 'spare.bias')


@pytest.mark.parametrize(
    'checkpoint, settings, words',
    [
        ('hf://Changyao/ADDP/addp-vit-base-16.pth', {}, None),
        (
            'hf://Changyao/ADDP/addp-vit-base-16.pth',
            dict(bgr_to_rgb=False),
            'set model.data_preprocessor.bgr_to_rgb=True',
        ),
        (
            'hf://timm/vit_base_patch16_224.augreg_in21k/model.safetensors',
            {},
            r'augreg_b .*mean=\[127.5, 127.5, 127.5\] and .*std=\[127.5, 127.5, 127.5\] \(now \[123.675,',
        ),
        ('own.pth', dict(bgr_to_rgb=False, mean=[0] * 3), None),
        ('hf://Changyao/ADDP/addp-vit-base-16.pth', dict(mean=[123.675]), r'data_preprocessor\.mean='),
    ],
)
def test_colours_of_the_weights(checkpoint, settings, words, tmp_path):
    cfg = detector(tmp_path, **{'backbone.init_cfg': dict(type='addp_mm.Pretrained', checkpoint=checkpoint)})
    cfg.model.data_preprocessor.update(settings)
    if words is None:
        check_colours(cfg)
    else:
        with pytest.raises(ConfigError, match=words):
            check_colours(cfg)
        cfg.model.backbone.in_channels = 4  # such images have no order of colours
        check_colours(cfg)


@pytest.mark.parametrize(
    'init_cfg, known',
    [
        (dict(type='addp_mm.Pretrained', checkpoint='work_dirs/mine/epoch_12.pth'), None),
        ([dict(type='Kaiming', layer='Conv2d')], None),
        (
            dict(type='addp_mm.Pretrained', checkpoint='hf://timm/resnet18.a1_in1k/model.safetensors'),
            'resnet18.a1_in1k',
        ),
    ],
)
def test_colours_of_weights_that_init_cfg_names(init_cfg, known):
    entry = entry_of(dict(type='addp_mm.TimmBackbone', model='resnet18', init_cfg=init_cfg))
    assert (entry and entry.name) == (known and f'timm:{known}')


@pytest.mark.parametrize('classes', [1, 2, 3])
def test_a_segmentor_of_few_classes(tmp_path, classes):
    cfg = segmentor(tmp_path, 'upernet')
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.update(num_classes=classes)
    labels = synthetic_batch(cfg, 1, (32, 32))['data_samples'][0].gt_sem_seg.data
    assert labels.unique().tolist() == list(range(classes))


def test_weights_left_over_from_the_original_backbone_are_found(tmp_path):
    cfg = segmentor(tmp_path, 'upernet')
    cfg.model.pretrained = 'open-mmlab://resnet50_v1c'
    check = next(one for one in swap_checks(cfg, TrialOfCheck(cfg)) if one.name == 'checkpoints')
    with pytest.raises(ConfigError, match='set model.pretrained=None'):
        check.run()


def test_a_silent_assertion_shows_its_line():
    def fail() -> None:
        raise AssertionError  # pytest rewrites assert statements

    with pytest.raises(TrialError, match='AssertionError: raise AssertionError'):
        attempt('it fails', fail)


def test_a_check_runs_all_of_them(tmp_path):
    cfg = detector(tmp_path)
    trial = TrialOfCheck(cfg)
    names = [check.name for check in swap_checks(cfg, trial)]
    assert names[-4:] == ['optimizer of the backbone', 'colours', 'checkpoints', 'trial']
    assert 'numbers of classes' in names
