# Copyright (c) addp_mm contributors. Apache-2.0.
"""Weights for images of three channels in models for other numbers of channels."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checks.checkpoint_fit import check_checkpoint_fit
from addp_mm.models.backbones import ADDPViT
from addp_mm.models.layers.adapt_channels import adapt_input_channels
from addp_mm.models.pretrained import Pretrained

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2)


def vit(in_channels=3, **options) -> ADDPViT:
    return ADDPViT(ARCH, img_size=32, patch_size=8, in_channels=in_channels, **options).eval()


def saved(tmp_path, module: nn.Module) -> str:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    torch.save(dict(state_dict=module.state_dict()), tmp_path / 'rgb.pth')
    return str(tmp_path / 'rgb.pth')


@pytest.mark.parametrize('old, new', [(3, 1), (3, 2), (3, 4), (3, 6), (3, 10), (1, 3), (4, 3)])
def test_kernels_are_added_up_or_repeated_and_scaled(old, new):
    weight = torch.randn(5, old, 2, 3, dtype=torch.float64)
    adapted = adapt_input_channels(weight, new)
    assert adapted.shape == (5, new, 2, 3)
    for k in range(new):
        expected = sum(weight[:, c] for c in range(old)) if new == 1 else weight[:, k % old] * old / new
        torch.testing.assert_close(adapted[:, k], expected)
    assert adapt_input_channels(weight.half(), new).dtype == torch.float16


def test_it_is_timms_rule():
    manipulate = pytest.importorskip('timm.models._manipulate')
    weight = torch.randn(5, 3, 4, 4)
    for channels in (1, 2, 3, 4, 6, 13):
        torch.testing.assert_close(
            adapt_input_channels(weight, channels), manipulate.adapt_input_conv(channels, weight)
        )


@pytest.mark.parametrize('options', [{}, dict(pre_norm=True), dict(out_type='featmap')])
def test_a_grey_model_gives_what_the_rgb_model_gives_for_the_image_in_all_channels(tmp_path, options):
    rgb, grey = vit(**options), vit(1, **options)
    Pretrained(saved(tmp_path, rgb), adapt_in_channels=True)(grey)
    image = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(grey(image)[0], rgb(image.repeat(1, 3, 1, 1))[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('copies', [2, 3])
def test_a_model_of_repeated_channels_gives_what_the_rgb_model_gives(tmp_path, copies):
    rgb, many = vit(), vit(3 * copies)
    Pretrained(saved(tmp_path, rgb), adapt_in_channels=True)(many)
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(many(image.repeat(1, copies, 1, 1))[0], rgb(image)[0], atol=1e-5, rtol=1e-5)


def test_without_the_option_the_error_names_it(tmp_path):
    path = saved(tmp_path, vit())
    model = vit(4)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=r'images of 3 channels.*takes 4.*adapt_in_channels=True'):
        Pretrained(path)(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_log_says_what_was_adapted(tmp_path, caplog):
    path = saved(tmp_path, vit())
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        Pretrained(path, adapt_in_channels=True)(vit(4))
    finally:
        logger.removeHandler(caplog.handler)
    assert 'patch_embed.projection.weight (16, 3, 8, 8) -> (16, 4, 8, 8)' in caplog.text


def test_channels_patches_and_positions_together(tmp_path):
    path = saved(tmp_path, vit())
    model = ADDPViT(ARCH, img_size=64, patch_size=16, in_channels=4).eval()
    with pytest.raises(CheckpointError, match='resize_patch=True'):
        Pretrained(path, adapt_in_channels=True)(model)
    Pretrained(path, adapt_in_channels=True, resize_patch=True)(model)
    assert model(torch.rand(1, 4, 64, 64))[0].isfinite().all()


def test_a_width_that_differs_too_is_not_a_matter_of_channels(tmp_path):
    path = saved(tmp_path, vit())
    other = ADDPViT(dict(ARCH, embed_dims=32), img_size=32, patch_size=8, in_channels=4)
    with pytest.raises(CheckpointError, match='does not fit ADDPViT'):
        Pretrained(path, adapt_in_channels=True)(other)


SIZES = dict(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2)
LAYOUTS = {
    'timm': (SIZES, {}, {}, ''),
    'mae': (dict(SIZES, num_classes=0), dict(mask_token=(1, 1, 8), decoder_pos_embed=(1, 17, 8)), {}, 'model'),
    'dinov2': (dict(SIZES, num_classes=0, init_values=0.1), dict(mask_token=(1, 16)), dict(layer_scale_init=0.1), ''),
}


@pytest.mark.parametrize('kind', LAYOUTS)
def test_layouts_of_other_projects(tmp_path, kind):
    """timm's own ViT, with the additional weights of the project's files."""
    vision_transformer = pytest.importorskip('timm.models.vision_transformer')
    sizes, additional, options, key = LAYOUTS[kind]
    state = {
        name: torch.randn_like(w) * 0.2
        for name, w in vision_transformer.VisionTransformer(**sizes).state_dict().items()
    }
    state |= {name: torch.randn(shape) for name, shape in additional.items()}
    path = str(tmp_path / 'theirs.pth')
    torch.save({key: state} if key else state, path)
    rgb, grey = vit(**options), vit(1, **options)
    Pretrained(path)(rgb)
    with pytest.raises(CheckpointError, match='adapt_in_channels=True'):
        Pretrained(path)(grey)
    Pretrained(path, adapt_in_channels=True)(grey)
    image = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(grey(image)[0], rgb(image.repeat(1, 3, 1, 1))[0], atol=1e-5, rtol=1e-5)


def test_a_resnet_of_another_package(tmp_path):
    from mmpretrain.models import ResNet

    rgb, grey = ResNet(18), ResNet(18, in_channels=1)
    path = saved(tmp_path, rgb)
    with pytest.raises(CheckpointError, match='conv1.weight is made for images of 3 channels'):
        Pretrained(path)(grey)
    Pretrained(path, adapt_in_channels=True)(grey)
    torch.testing.assert_close(grey.conv1.weight, rgb.conv1.weight.sum(1, keepdim=True))
    assert torch.equal(grey.layer4[1].bn2.weight, rgb.layer4[1].bn2.weight)


def segmentor(in_channels, init_cfg=None):
    from mmseg.registry import MODELS

    backbone = dict(
        type='addp_mm.ADDPViT', arch=ARCH, img_size=32, patch_size=8, out_type='featmap', in_channels=in_channels
    )
    head = dict(type='FCNHead', in_channels=16, channels=8, num_convs=1, num_classes=4, norm_cfg=dict(type='BN'))
    cfg = Config(dict(type='EncoderDecoder', backbone=backbone, decode_head=head, init_cfg=init_cfg))
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg)
        model.init_weights()
    return model


def test_load_from_names_the_way_that_works(tmp_path):
    """The weights of a whole segmentor, for images of four channels."""
    rgb = segmentor(3)
    path = saved(tmp_path, rgb)
    logger = MMLogger.get_current_instance()
    with pytest.raises(CheckpointError, match=r'model\.init_cfg=.*adapt_in_channels=True\) instead of load_from'):
        check_checkpoint_fit(torch.load(path), segmentor(4), path, logger, complete=False)
    with pytest.raises(CheckpointError, match='Use the config that the checkpoint was trained with$'):
        check_checkpoint_fit(torch.load(path), segmentor(4), path, logger, complete=True)
    four = segmentor(4, dict(type='addp_mm.Pretrained', checkpoint=path, adapt_in_channels=True))
    for name, weight in rgb.state_dict().items():
        if name == 'backbone.patch_embed.projection.weight':
            weight = weight[:, [0, 1, 2, 0]] * 0.75
        torch.testing.assert_close(four.state_dict()[name], weight)
