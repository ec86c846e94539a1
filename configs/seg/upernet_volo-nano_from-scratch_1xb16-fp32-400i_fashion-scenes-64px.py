# Copyright (c) addp_mm contributors. Apache-2.0.
# VOLO of the nano ViT's size and resolution, from random weights: heads, schedule and data are those
# of the nano ViT. The neck takes the maps of all stages, and makes a pyramid of stride 2 to 16 too.
_base_ = './upernet_addp-vit-nano-p8_from-scratch_1xb16-fp32-400i_fashion-scenes-64px.py'

channels = [64, 128, 128, 128]
model = dict(
    backbone=dict(_delete_=True, type='addp_mm.VOLO', arch='nano', img_size=64, final_norm=False),
    neck=dict(embed_dims=channels, strides=(4, 8, 8, 8)),
    decode_head=dict(in_channels=channels),
)
