# Copyright (c) addp_mm contributors. Apache-2.0.
"""The table of families in docs/timm_backbones.md: PYTHONPATH=tests python -m helpers.timm_table."""

import torch

from addp_mm.models.backbones import TimmBackbone

ROWS = (
    ('AugReg, MAE, CLIP', 'vit_base_patch16_224'),
    ('BEiT v2', 'beitv2_base_patch16_224'),
    ('DeiT III', 'deit3_base_patch16_224'),
    ('DINOv2 with registers', 'vit_base_patch14_reg4_dinov2'),
    ('DINOv3', 'vit_base_patch16_dinov3'),
    ('EVA-02', 'eva02_base_patch14_224'),
    ('SigLIP 2', 'vit_base_patch16_siglip_224'),
    ('Swin', 'swin_tiny_patch4_window7_224'),
    ('Swin V2', 'swinv2_tiny_window8_256'),
    ('ConvNeXt', 'convnext_tiny'),
    ('ConvNeXt with DINOv3 weights', 'convnext_tiny.dinov3_lvd1689m'),
    ('MViTv2', 'mvitv2_tiny'),
    ('Hiera', 'hiera_tiny_224'),
    ('MaxViT', 'maxvit_tiny_tf_224'),
    ('VOLO', 'volo_d1_224'),
    ('', 'volo_d2_224'),
    ('', 'volo_d3_448'),
    ('', 'volo_d4_448'),
    ('', 'volo_d5_512'),
    ('ResNet', 'resnet50'),
)


def table() -> str:
    """Default maps of each model, in Markdown."""
    lines = [
        '| family | for example | `out_indices` | channels | strides | padded to multiples of |',
        '|---|---|---|---|---|---|',
    ]
    for family, model in ROWS:
        with torch.device('meta'):
            backbone = TimmBackbone(model)
        values = (backbone.out_indices, backbone.out_channels, backbone.out_strides)
        columns = [', '.join(map(str, numbers)) for numbers in values]
        padding = backbone.size_divisors[0]
        lines.append(f'| {family} | `{model}` | {" | ".join(columns)} | {"–" if padding == 1 else padding} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    print(table())
