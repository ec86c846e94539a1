# Copyright (c) addp_mm contributors. Apache-2.0.
"""Backbones by name: how to build them, their weights, colours and learning rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from addp_mm.errors import suggest
from addp_mm.swap.plan import SwapError
from addp_mm.swap.recipes import CONVNEXT, SWIN, VIT_B, VIT_L, VOLO, Recipes
from addp_mm.swap.zoo_entry import HALF, IMAGENET, Colours, ZooEntry, windows_of

TIMM_SCHEME = 'timm:'


def _pretrained(checkpoint: str, **options: Any) -> dict:
    return dict(type='addp_mm.Pretrained', checkpoint=checkpoint, **options)


def _vit(name: str, arch: str, checkpoint: str, colours: Colours = IMAGENET, **options: Any) -> ZooEntry:
    """A plain ViT whose weights ``addp_mm.ADDPViT`` takes."""
    windows = windows_of(24 if arch == 'large' else 12, 'use_rel_pos_table' in options)
    backbone = dict(type='addp_mm.ADDPViT', arch=arch, **options, init_cfg=_pretrained(checkpoint))
    return ZooEntry(name, backbone, colours, VIT_L if arch == 'large' else VIT_B, windows)


def _timm(name: str, model: str, recipes: Recipes | None, colours: Colours = IMAGENET) -> ZooEntry:
    return ZooEntry(name, dict(type='addp_mm.TimmBackbone', model=model, pretrained=True), colours, recipes)


def _volo(arch: str, accuracy: str) -> ZooEntry:
    checkpoint = f'https://github.com/sail-sg/volo/releases/download/volo_1/{arch}_224_{accuracy}.pth.tar'
    return ZooEntry(
        f'volo_{arch}', dict(type='addp_mm.VOLO', arch=arch, init_cfg=_pretrained(checkpoint)), recipes=VOLO
    )


# Top-1 accuracy on ImageNet, which is a part of the names of the files.
_VOLO_FILES = {'d1': '84.2', 'd2': '85.2', 'd3': '85.4', 'd4': '85.7', 'd5': '86.10'}
_CLIP: Colours = ((122.771, 116.746, 104.094), (68.501, 66.632, 70.323))
_DINOV2: dict[str, Any] = dict(img_size=518, patch_size=14, layer_scale_init=1e-5)
_BEITV2: dict[str, Any] = dict(use_abs_pos=False, use_rel_pos_table=True, layer_scale_init=0.1)
_META = 'https://dl.fbaipublicfiles.com'
_ENTRIES = (
    _vit('addp_b', 'base', 'hf://Changyao/ADDP/addp-vit-base-16.pth'),
    _vit('addp_l', 'large', 'hf://Changyao/ADDP/addp-vit-large-16.pth'),
    ZooEntry(
        'addp_nano',
        dict(
            type='addp_mm.ADDPViT',
            arch='nano',
            patch_size=8,
            pre_norm=True,
            init_cfg=_pretrained('addp_mm://addp_nano-p8.safetensors', prefix='backbone.'),
        ),
    ),
    _vit('mae_b', 'base', f'{_META}/mae/pretrain/mae_pretrain_vit_base.pth'),
    _vit('mae_l', 'large', f'{_META}/mae/pretrain/mae_pretrain_vit_large.pth'),
    _vit(
        'beitv2_b',
        'base',
        'https://github.com/addf400/files/releases/download/BEiT-v2/beitv2_base_patch16_224_pt1k.pth',
        **_BEITV2,
    ),
    _vit('deit3_b', 'base', f'{_META}/deit/deit_3_base_224_1k.pth', layer_scale_init=1e-6),
    _vit('augreg_b', 'base', 'hf://timm/vit_base_patch16_224.augreg_in21k/model.safetensors', HALF),
    _vit('dinov2_s', 'small', f'{_META}/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth', **_DINOV2),
    _vit('dinov2_b', 'base', f'{_META}/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth', **_DINOV2),
    _vit('dinov2_l', 'large', f'{_META}/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth', **_DINOV2),
    _timm('dinov3_s', 'vit_small_patch16_dinov3.lvd1689m', VIT_B),
    _timm('dinov3_b', 'vit_base_patch16_dinov3.lvd1689m', VIT_B),
    _timm('dinov3_l', 'vit_large_patch16_dinov3.lvd1689m', VIT_L),
    _timm('dinov3_convnext_t', 'convnext_tiny.dinov3_lvd1689m', CONVNEXT),
    _timm('dinov3_convnext_s', 'convnext_small.dinov3_lvd1689m', CONVNEXT),
    _timm('dinov3_convnext_b', 'convnext_base.dinov3_lvd1689m', CONVNEXT),
    _timm('eva02_b', 'eva02_base_patch14_224.mim_in22k', VIT_B, _CLIP),
    _timm('siglip2_b', 'vit_base_patch16_siglip_512.v2_webli', VIT_B, HALF),
    _timm('swin_t', 'swin_tiny_patch4_window7_224.ms_in1k', SWIN),
    _timm('swin_s', 'swin_small_patch4_window7_224.ms_in1k', SWIN),
    _timm('swin_b', 'swin_base_patch4_window7_224.ms_in22k', SWIN),
    _timm('convnext_t', 'convnext_tiny.fb_in1k', CONVNEXT),
    _timm('convnext_s', 'convnext_small.fb_in1k', CONVNEXT),
    _timm('convnext_b', 'convnext_base.fb_in22k', CONVNEXT),
    _timm('mvitv2_t', 'mvitv2_tiny.fb_in1k', SWIN),
    _timm('hiera_b', 'hiera_base_224.mae', SWIN),
    _timm('maxvit_t', 'maxvit_tiny_tf_224.in1k', SWIN),
    *(_volo(arch, accuracy) for arch, accuracy in _VOLO_FILES.items()),
    _timm('resnet50', 'resnet50.tv_in1k', None),
    _timm('resnet101', 'resnet101.tv_in1k', None),
)
ZOO: Mapping[str, ZooEntry] = {entry.name: entry for entry in _ENTRIES}


def find_backbone(name: str) -> ZooEntry:
    """Find a backbone by its name.

    Args:
        name: A name of ``ZOO``, ``timm:MODEL`` with a model of timm, or the path of a checkpoint of
            an ADDPViT, alone or in ADDP, a classifier, a detector or a segmentor.

    Raises:
        SwapError: There is no such backbone. The message has similar names.
    """
    if name in ZOO:
        return ZOO[name]
    if name.startswith(TIMM_SCHEME):
        from addp_mm.swap.timm_entry import timm_entry  # timm is imported for its models only

        return timm_entry(name, name.removeprefix(TIMM_SCHEME))
    if name.endswith(('.pth', '.pt', '.bin', '.safetensors', '.tar')) or '://' in name:
        from addp_mm.swap.checkpoint_entry import checkpoint_entry

        return checkpoint_entry(name)
    raise SwapError(
        f'there is no backbone {name!r}{suggest(name, ZOO) or "."} The zoo has {", ".join(ZOO)}. Or give timm:MODEL '
        'with any model of timm, or the path of a checkpoint of addp_mm.ADDPViT (.pth or .safetensors)'
    )
