# Copyright (c) addp_mm contributors. Apache-2.0.
# VOLO of the nano ViT's size and resolution, from random weights: neck, heads, schedule and data are
# those of the nano ViT. The neck takes the map of the last stage, of stride 8.
_base_ = './mask-rcnn_addp-vit-nano-p8_from-scratch_1xb16-fp32-300i_fashion-scenes-64px.py'

model = dict(backbone=dict(_delete_=True, type='addp_mm.VOLO', arch='nano', img_size=64, out_indices=3))
