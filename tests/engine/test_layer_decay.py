# Copyright (c) addp_mm contributors. Apache-2.0.
import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from torch import nn

import addp_mm  # noqa: F401

RATE, LR, DECAY = 0.5, 0.1, 0.2
ARCH = dict(embed_dims=16, num_layers=4, num_heads=2)
VIT = dict(type='addp_mm.ADDPViT', arch=ARCH, img_size=32, patch_size=8)


def build(scope, cfg):
    init_default_scope(scope)
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(cfg)


def classifier():
    return build(
        'mmpretrain',
        dict(
            type='ImageClassifier',
            backbone=dict(VIT, out_type='avg_featmap'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
        ),
    )


def self_supervised():
    return build(
        'mmpretrain',
        dict(
            type='MAE',
            backbone=dict(
                type='MAEViT',
                arch=dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32),
                img_size=32,
                patch_size=8,
            ),
            neck=dict(
                type='MAEPretrainDecoder',
                num_patches=16,
                patch_size=8,
                embed_dim=16,
                decoder_embed_dim=16,
                decoder_depth=1,
                decoder_num_heads=2,
            ),
            head=dict(type='MAEPretrainHead', patch_size=8, loss=dict(type='PixelReconstructionLoss', criterion='L2')),
        ),
    )


def detector():
    return build(
        'mmdet',
        dict(
            type='RetinaNet',
            data_preprocessor=dict(type='DetDataPreprocessor', mean=[0.0, 0, 0], std=[255.0, 255, 255]),
            backbone=dict(
                VIT, with_cls_token=False, window_size=2, global_blocks=(3,), use_rel_pos=True, out_type='featmap'
            ),
            neck=dict(
                type='FPN', in_channels=[16], out_channels=16, num_outs=2, norm_cfg=dict(type='GN', num_groups=2)
            ),
            bbox_head=dict(
                type='RetinaHead',
                num_classes=2,
                in_channels=16,
                feat_channels=16,
                stacked_convs=1,
                anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[8, 16]),
            ),
        ),
    )


def segmentor():
    return build(
        'mmseg',
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', mean=[0.0], std=[255.0]),
            backbone=dict(VIT, out_type='featmap'),
            decode_head=dict(
                type='FCNHead', in_channels=16, channels=8, num_classes=2, num_convs=1, norm_cfg=dict(type='BN')
            ),
        ),
    )


def depth_by_hand(name):
    """Layers of a ViT with 4 blocks: 0 embedding, 1 to 4 blocks, 5 final norm and the rest."""
    if not name.startswith('backbone.'):
        return 5
    name = name[len('backbone.') :]
    if name.startswith(('blocks.', 'layers.')):
        return 1 + int(name.split('.')[1])
    return 0 if name.startswith(('patch_embed', 'pos_embed', 'cls_token')) else 5


def optim_wrapper(model, **paramwise_cfg):
    return build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=LR, weight_decay=DECAY),
            constructor='addp_mm.LayerDecayOptimWrapperConstructor',
            paramwise_cfg=paramwise_cfg,
        ),
    )


def table(model, wrapper):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }


@pytest.mark.slow
@pytest.mark.parametrize('make', [classifier, self_supervised, detector, segmentor])
def test_rates_and_decays_of_every_parameter(make):
    model = make()
    norms = {
        f'{name}.{own}'
        for name, part in model.named_modules()
        if type(part).__name__ in ('LayerNorm', 'GroupNorm', 'BatchNorm2d')
        for own in ('weight', 'bias')
    }
    embeddings = ('cls_token', 'pos_embed', 'rel_pos_h', 'rel_pos_w', 'mask_token')
    expected = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            free = name in norms or name.endswith('.bias') or name.split('.')[-1].endswith(embeddings)
            expected[name] = (LR * RATE ** (5 - depth_by_hand(name)), 0.0 if free else DECAY)
    wrapper = optim_wrapper(
        model, layer_decay_rate=RATE, norm_decay_mult=0.0, bias_decay_mult=0.0, embed_decay_mult=0.0
    )
    got = table(model, wrapper)
    assert got.keys() == expected.keys()
    for name, (rate, decay) in expected.items():
        assert got[name] == (pytest.approx(rate), pytest.approx(decay)), name
    assert len({rate for rate, _ in expected.values()}) == 6
    assert len({decay for _, decay in expected.values()}) == 2


class Backbone(nn.Module):
    """Three depths: stem, one block, norm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(2, 2)
        self.block = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)

    def get_layer_depth(self, param_name, prefix=''):
        assert param_name.startswith(prefix)
        return ('stem', 'block', 'norm').index(param_name[len(prefix) :].split('.')[0]), 3


class Model(nn.Module):
    def __init__(self, backbone=None):
        super().__init__()
        self.backbone = backbone or Backbone()
        self.head = nn.Linear(2, 2)
        self.register_buffer('mean', torch.zeros(2))


RATES = {'backbone.stem': LR / 4, 'backbone.block': LR / 2, 'backbone.norm': LR, 'head': LR}


def test_one_group_for_each_pair_and_none_lost():
    model = Model()
    wrapper = optim_wrapper(model, layer_decay_rate=RATE, norm_decay_mult=0.0)
    got = table(model, wrapper)
    assert {name.rpartition('.')[0]: rate for name, (rate, _) in got.items()} == RATES
    assert [group['lr_scale'] for group in wrapper.optimizer.param_groups] == [0.25, 0.5, 1.0, 1.0]
    assert wrapper.optimizer.param_groups[0]['param_names'] == ['backbone.stem.weight', 'backbone.stem.bias']


def test_inside_wrappers(monkeypatch):
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    model = Model()
    parallel = nn.Module()
    parallel.module = model
    assert set(table(model, optim_wrapper(parallel, layer_decay_rate=RATE)).values()) == {
        (rate, DECAY) for rate in RATES.values()
    }
    inner = nn.Module()
    inner.module = Backbone()
    model = Model(inner)
    got = table(model, optim_wrapper(model, layer_decay_rate=RATE))
    assert {name.rpartition('.')[0].replace('module.', ''): rate for name, (rate, _) in got.items()} == RATES


def test_under_distributed_data_parallel(tmp_path):
    torch.distributed.init_process_group(
        'gloo', store=torch.distributed.FileStore(str(tmp_path / 's'), 1), rank=0, world_size=1
    )
    try:
        model = Model()
        wrapper = optim_wrapper(MMDistributedDataParallel(model, device_ids=[0]), layer_decay_rate=RATE)
        assert {name.rpartition('.')[0]: rate for name, (rate, _) in table(model, wrapper).items()} == RATES
    finally:
        torch.distributed.destroy_process_group()


def test_frozen_and_shared_parameters():
    model = Model()
    model.backbone.stem.requires_grad_(False)
    model.other = model.head
    got = table(model, optim_wrapper(model, layer_decay_rate=RATE))
    assert sorted({name.rpartition('.')[0] for name in got}) == ['backbone.block', 'backbone.norm', 'head']


def test_custom_keys_have_precedence_and_multiply_the_layers_rate():
    model = Model()
    got = table(
        model,
        optim_wrapper(
            model,
            layer_decay_rate=RATE,
            bias_decay_mult=0.0,
            flat_decay_mult=0.25,
            custom_keys={'stem': dict(lr_mult=2.0), 'stem.bias': dict(decay_mult=0.5), 'head': dict(lr_mult=10.0)},
        ),
    )
    assert got['backbone.stem.weight'] == (pytest.approx(LR / 2), DECAY)
    assert got['backbone.stem.bias'] == (pytest.approx(LR / 4), pytest.approx(DECAY / 2))
    assert got['head.bias'] == (pytest.approx(LR * 10), 0.0)
    assert got['backbone.norm.weight'] == (pytest.approx(LR), pytest.approx(DECAY / 4))


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match='has unknown keys layer_decay; it takes'):
        optim_wrapper(Model(), layer_decay=RATE)
    with pytest.raises(ValueError, match='layer_decay_rate=65 is not in'):
        optim_wrapper(Model(), layer_decay_rate=65)
    with pytest.raises(NotImplementedError, match='Model has no backbone with get_layer_depth'):
        optim_wrapper(Model(nn.Linear(2, 2)), layer_decay_rate=RATE)
