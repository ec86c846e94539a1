# Copyright (c) addp_mm contributors. Apache-2.0.
# Features for Fréchet distances without Inception: the shipped ADDP ViT, 128 features, at 64 px.
# These distances are not FID.
extractor = dict(
    type='addp_mm.BackboneFeatures',
    name='addp-vit-nano-p8',
    backbone=dict(
        type='addp_mm.ADDPViT',
        arch='nano',
        img_size=64,
        patch_size=8,
        out_type='avg_featmap',
        pre_norm=True,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://addp_nano-p8.safetensors', prefix='backbone.'),
    ),
)
