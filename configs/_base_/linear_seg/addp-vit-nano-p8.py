# Copyright (c) addp_mm contributors. Apache-2.0.
# The ViT that ADDP pre-trained on FashionScenes. The frozen backbone keeps the norm after the
# embedding of pre-training (pre_norm=True).
_base_ = './vit-base-p16.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='addp_mm.ADDPViT',
        arch='nano',
        img_size=64,
        patch_size=8,
        out_type='featmap',
        pre_norm=True,
        frozen_stages=6,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://addp_nano-p8.safetensors', prefix='backbone.'),
    ),
    decode_head=dict(in_channels=[128]),
)
