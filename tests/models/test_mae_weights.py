# Copyright (c) addp_mm contributors. Apache-2.0.
"""An MAE that mmpretrain trained is a backbone of this package: its encoder becomes ADDPViT."""

import pytest
import torch
from export_weights import main as export
from helpers.recipes import build_recipe, load_recipe
from mmengine.logging import MMLogger

from addp_mm.models.backbones import ADDPViT


@pytest.fixture(scope='module')
def mae():
    """mmpretrain's MAE of the nano config with random weights."""
    from addp_mm.checkpoints.init_weights import init_weights

    torch.manual_seed(0)
    model = build_recipe(load_recipe('pretrain/mae_vit-nano-p8_1xb64-fp32-10k_fashion-scenes-64px.py'))
    init_weights(model)
    for name, parameter in model.named_parameters():
        if name != 'backbone.pos_embed':
            parameter.data.normal_(std=0.05)
    return model.eval()


@pytest.fixture
def report(monkeypatch):
    lines = []
    logger = MMLogger.get_instance('test_mae_weights')
    monkeypatch.setattr(logger, 'handle', lambda record: lines.append((record.levelname, record.msg)))
    return lines


@pytest.mark.parametrize('exported', [False, True], ids=['checkpoint', 'exported encoder'])
def test_the_encoder_is_loaded_without_alarm_and_computes_the_same(mae, tmp_path, report, exported):
    path = tmp_path / 'iter_1.pth'
    torch.save(dict(state_dict=mae.state_dict(), meta={}), path)
    if exported:
        export([str(path), str(tmp_path / 'mae.safetensors'), '--prefix', 'backbone.'])
        path = tmp_path / 'mae.safetensors'
    vit = ADDPViT(
        'nano',
        img_size=64,
        patch_size=8,
        out_type='featmap',
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=str(path)),
    )
    report.clear()
    vit.init_weights()
    ((level, message),) = [line for line in report if 'mmpretrain ViT' in line[1]]
    assert level == 'INFO'
    assert 'missing none' in message
    assert 'left out none' in message
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        raw = mae.extract_feat(images)[0]  # class token and patches
        torch.testing.assert_close(vit.eval()(images)[0].flatten(2).mT, raw[:, 1:], rtol=1e-4, atol=1e-5)


def test_the_encoder_is_the_nano_vit():
    """Sizes of MAE's encoder are those of ADDP's backbone, and the images are normalised alike."""
    cfg = load_recipe('pretrain/mae_vit-nano-p8_1xb64-fp32-10k_fashion-scenes-64px.py')
    addp = load_recipe('pretrain/addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py')
    vit, mae = ADDPViT('nano', img_size=64, patch_size=8), cfg.model.backbone
    assert (mae.arch.embed_dims, mae.arch.num_layers) == (vit.embed_dims, vit.num_layers)
    assert mae.arch.num_heads == vit.blocks[0].attn.num_heads
    assert mae.arch.feedforward_channels == vit.blocks[0].mlp.fc1.out_features
    assert (mae.img_size, mae.patch_size) == (addp.model.backbone.img_size, addp.model.backbone.patch_size)
    same = {key: value for key, value in addp.train_dataloader.items() if key != 'batch_size'}
    assert {key: value for key, value in cfg.train_dataloader.items() if key != 'batch_size'} == same
    fine = load_recipe('cls/addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px.py')
    assert cfg.model.data_preprocessor.mean == fine.data_preprocessor.mean
    assert cfg.model.data_preprocessor.std == fine.data_preprocessor.std
