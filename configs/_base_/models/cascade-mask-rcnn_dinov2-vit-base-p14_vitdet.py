# Copyright (c) addp_mm contributors. Apache-2.0.
# ViTDet's Cascade Mask R-CNN on DINOv2. Images are padded to 896 x 896, which is 64 x 64 patches
# of 14 px. Strides are 14/16 of those of the recipe for patches of 16 px.
_base_ = ['./cascade-mask-rcnn_addp-vit-base-p16_vitdet.py', './dinov2_vit-base-p14.py']

model = dict(
    data_preprocessor=dict(pad_size_divisor=896),
    backbone=_base_.baseline,
    rpn_head=dict(anchor_generator=dict(strides=[3.5, 7, 14, 28, 56])),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=[3.5, 7, 14, 28]),
        mask_roi_extractor=dict(featmap_strides=[3.5, 7, 14, 28]),
    ),
)
