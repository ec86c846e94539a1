# Copyright (c) addp_mm contributors. Apache-2.0.
# Anchors keep their sizes in pixels.
_base_ = ['./retinanet_addp-vit-base-p16_8xb2-bf16-1x_coco.py', '../_base_/models/dinov2_vit-base-p14.py']

model = dict(
    data_preprocessor=dict(pad_size_divisor=28),
    backbone=_base_.baseline,
    bbox_head=dict(anchor_generator=dict(strides=[7, 14, 28, 56, 112], base_sizes=[8, 16, 32, 64, 128])),
)
