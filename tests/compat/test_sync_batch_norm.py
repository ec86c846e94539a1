# Copyright (c) addp_mm contributors. Apache-2.0.
"""``sync_bn`` keeps what the batch norms of a model compute."""

import copy

import pytest
import torch
from helpers.timm_families import MAXVIT, randomise
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from timm.layers import BatchNormAct2d
from torch import nn

from addp_mm.compat import distributed
from addp_mm.compat.sync_batch_norm import SyncBatchNormError
from addp_mm.models.backbones import TimmBackbone

MODELS = {
    'resnet18d': dict(channels=(8, 8, 16, 16)),
    'regnety_002': {},
    'efficientnet_b0': {},
    'maxvit_tiny_tf_224': MAXVIT,
}


@pytest.fixture(autouse=True)
def as_with_an_accelerator(monkeypatch):
    monkeypatch.setattr(distributed, 'device_kind', lambda: 'cuda')


def original(function):
    while hasattr(function, '__wrapped__'):
        function = function.__wrapped__
    return function


@pytest.mark.parametrize('name', MODELS)
def test_outputs_stay_the_same(name):
    backbone = TimmBackbone(name, model_kwargs=MODELS[name]).eval()
    randomise(backbone)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = [out.clone() for out in backbone(image)]
        converted = convert_sync_batchnorm(copy.deepcopy(backbone), 'torch').eval()
        norms = [module for module in converted.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        assert norms
        assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
        assert all(map(torch.equal, converted(image), before))
        reverted = revert_sync_batchnorm(converted).eval()
        assert not any(isinstance(module, nn.SyncBatchNorm) for module in reverted.modules())
        assert all(map(torch.equal, reverted(image), before))
    assert list(reverted.state_dict()) == list(backbone.state_dict())


def test_mmengine_alone_leaves_out_the_activation(monkeypatch):
    layer, x = BatchNormAct2d(2).eval(), torch.full((1, 2, 1, 1), -1.0)
    alone = original(convert_sync_batchnorm)(layer, 'torch').eval()
    assert layer(x.clone()).tolist() == convert_sync_batchnorm(layer, 'torch').eval()(x.clone()).tolist()
    assert layer(x.clone()).max() == 0
    assert alone(x).max() < -0.9


def test_frozen_norms_stay_frozen():
    backbone = TimmBackbone('resnet18', model_kwargs=dict(channels=(8, 8, 16, 16)), frozen_stages=1)
    converted = convert_sync_batchnorm(backbone, 'torch').train()
    assert isinstance(converted.timm_model.bn1, nn.SyncBatchNorm)
    assert not converted.timm_model.bn1.training
    assert not converted.timm_model.layer1[0].bn1.training
    assert converted.timm_model.layer2[0].bn1.training


def test_mmcvs_norm_cannot_have_the_activation():
    with pytest.raises(SyncBatchNormError, match=r"the activation of timm's BatchNormAct2d: write sync_bn='torch'"):
        convert_sync_batchnorm(nn.Sequential(BatchNormAct2d(2)), 'mmcv')


class Doubled(nn.BatchNorm1d):
    """A batch norm that does more."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_other_norms_are_named(monkeypatch):
    lines = []
    monkeypatch.setattr('mmengine.logging.print_log', lambda text, **_: lines.append(text))
    convert_sync_batchnorm(nn.Sequential(Doubled(2), nn.BatchNorm1d(2)), 'torch')
    [line] = lines
    assert f'{Doubled.__module__}.Doubled by a plain batch norm' in line
