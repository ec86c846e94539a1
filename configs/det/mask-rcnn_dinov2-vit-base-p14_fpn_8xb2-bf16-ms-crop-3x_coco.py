# Copyright (c) addp_mm contributors. Apache-2.0.
# Anchors keep their sizes in pixels, 32 to 512.
_base_ = ['./mask-rcnn_addp-vit-base-p16_fpn_8xb2-bf16-ms-crop-3x_coco.py', '../_base_/models/dinov2_vit-base-p14.py']

model = dict(
    data_preprocessor=dict(pad_size_divisor=28),
    backbone=_base_.baseline,
    rpn_head=dict(anchor_generator=dict(strides=[3.5, 7, 14, 28, 56], base_sizes=[4, 8, 16, 32, 64])),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=[3.5, 7, 14, 28]),
        mask_roi_extractor=dict(featmap_strides=[3.5, 7, 14, 28]),
    ),
)
