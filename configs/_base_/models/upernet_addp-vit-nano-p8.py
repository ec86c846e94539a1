# Copyright (c) addp_mm contributors. Apache-2.0.
# UperNet with 48 channels on the outputs of blocks 2, 3, 4 and 6, resized to strides 2, 4, 8 and
# 16.
_base_ = './upernet_addp-vit-base-p16.py'

norm_cfg = dict(type='BN')
model = dict(
    data_preprocessor=dict(size=(64, 64), test_cfg=dict(size_divisor=16)),
    backbone=dict(
        _delete_=True,
        type='addp_mm.ADDPViT',
        arch='nano',
        img_size=64,
        patch_size=8,
        out_indices=(1, 2, 4, 5),
        out_type='featmap',
        pre_norm=True,
        final_norm=False,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://addp_nano-p8.safetensors', prefix='backbone.'),
    ),
    neck=dict(embed_dims=128, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=[128, 128, 128, 128], channels=48, num_classes=11, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=128, channels=48, num_classes=11, norm_cfg=norm_cfg),
    test_cfg=dict(_delete_=True, mode='whole'),
)
