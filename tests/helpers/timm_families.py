# Copyright (c) addp_mm contributors. Apache-2.0.
"""One small model of every family of timm that TimmBackbone is tested on."""

from dataclasses import dataclass, field

import timm
import torch
from timm.models import register_model
from timm.models.mvitv2 import MultiScaleVitCfg, model_cfgs
from timm.models.volo import VOLO
from torch import nn

VIT = dict(embed_dim=32, depth=2, num_heads=2)
SWIN = dict(embed_dim=16, depths=(1, 1, 2, 2), num_heads=(1, 1, 2, 2))
MAXVIT = dict(depths=(1, 1, 1, 1), embed_dim=(32, 32, 32, 32), stem_width=16)


@register_model
def small_volo(img_size: int = 224, in_chans: int = 3, num_classes: int = 1000, drop_path_rate: float = 0, **_) -> VOLO:
    """VOLO with one block a stage; timm's own have no arguments for their sizes."""
    return VOLO(
        layers=[1, 1, 1, 1],
        img_size=img_size,
        in_chans=in_chans,
        num_classes=num_classes,
        drop_path_rate=drop_path_rate,
        embed_dims=[16, 32, 32, 32],
        num_heads=[1, 2, 2, 2],
        stem_hidden_dim=8,
    )


@dataclass(frozen=True)
class Family:
    """A model, and the sizes at which it is compared with timm.

    Attributes:
        model: timm's name.
        kwargs: Arguments that make it small.
        size: Side of the images for which it is built.
        other: (height, width) of other images.
        at_other: Further arguments with which timm builds the same model for ``other``; None if
            timm cannot.
        multiple: Pixels to whose multiples images are padded.
        strides: Strides of the maps by default.
    """

    model: str
    kwargs: dict = field(default_factory=dict)
    size: int = 224
    other: tuple[int, int] = (96, 160)
    at_other: dict | None = field(default_factory=dict)
    multiple: int = 16
    strides: tuple[int, ...] = (16,)


FOUR = (4, 8, 16, 32)
FAMILIES = {
    'augreg': Family('vit_tiny_patch16_224', VIT),
    'mae': Family('vit_base_patch16_224.mae', VIT),
    'beitv2': Family('beitv2_base_patch16_224', VIT, other=(256, 320)),
    'deit3': Family('deit3_small_patch16_224', VIT),
    'dinov2': Family('vit_small_patch14_reg4_dinov2', VIT, 518, (70, 98), multiple=14, strides=(14,)),
    'dinov3': Family('vit_small_patch16_dinov3', dict(embed_dim=64, depth=2, num_heads=2), 256),
    'eva02': Family('eva02_tiny_patch14_224', dict(VIT, embed_dim=48), 224, (70, 98), multiple=14, strides=(14,)),
    'siglip2': Family('vit_base_patch16_siglip_224.v2_webli', VIT),
    'swin': Family('swin_tiny_patch4_window7_224', SWIN, 224, (256, 320), dict(window_size=7), 4, FOUR),
    'swinv2': Family('swinv2_tiny_window8_256', SWIN, 256, (320, 512), dict(window_size=8), 4, FOUR),
    'convnext': Family(
        'convnext_tiny.dinov3_lvd1689m', dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)), 224, (96, 160), None, 32, FOUR
    ),
    'mvitv2': Family('mvitv2_tiny', {}, 224, (128, 128), {}, 32, FOUR),
    'hiera': Family('hiera_tiny_224', dict(stages=(1, 1, 1, 1), embed_dim=16), 224, (96, 160), {}, 32, FOUR),
    'hiera-abswin': Family(
        'hiera_small_abswin_256', dict(stages=(1, 1, 1, 1), embed_dim=16), 256, (96, 160), {}, 32, FOUR
    ),
    'maxvit': Family(
        'maxvit_tiny_tf_224',
        MAXVIT,
        224,
        (224, 448),
        dict(transformer_window_size=(7, 7), transformer_grid_size=(7, 7)),
        224,
        FOUR,
    ),
    'volo': Family('small_volo', {}, 224, (96, 160), {}, 16, (8, 16, 16, 16)),
    'resnet': Family('resnet50', dict(layers=(1, 1, 1, 1), base_width=16), 224, (96, 160), None, 1, FOUR),
}
# MViTv2 has no arguments for its width and depth
SMALL_MVIT = MultiScaleVitCfg(depths=(1, 1, 1, 1), embed_dim=(16, 32, 64, 128), num_heads=1)


def use_small_mvit(monkeypatch) -> None:
    """Let timm build a small MViTv2 under the name of the tiny one."""
    monkeypatch.setitem(model_cfgs, 'mvitv2_tiny', SMALL_MVIT)


def randomise(module: nn.Module, std: float = 0.2) -> None:
    """Give every parameter noise, so that no bias, position or layer scale is zero or one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(std * torch.randn(parameter.shape, generator=generator))


def timm_model(family: Family, num_classes: int = 0, **kwargs) -> nn.Module:
    """timm's model of a family."""
    return timm.create_model(family.model, num_classes=num_classes, **{**family.kwargs, **kwargs}).eval()
