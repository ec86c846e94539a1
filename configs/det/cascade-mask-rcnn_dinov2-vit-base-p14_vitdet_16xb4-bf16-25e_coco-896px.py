# Copyright (c) addp_mm contributors. Apache-2.0.
# 896 px, so that the ViT sees 64 x 64 tokens as those with patches of 16 px do.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_addp-vit-base-p16_vitdet.py',
    '../_base_/models/dinov2_vit-base-p14.py',
    '../_base_/datasets/coco_lsj-896px.py',
    '../_base_/schedules/vitdet_25e.py',
    '../_base_/det_runtime.py',
]
custom_imports = dict(imports=['addp_mm'])

model = dict(
    data_preprocessor=dict(pad_size_divisor=896),
    backbone=_base_.baseline,
    rpn_head=dict(anchor_generator=dict(strides=[3.5, 7, 14, 28, 56])),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=[3.5, 7, 14, 28]),
        mask_roi_extractor=dict(featmap_strides=[3.5, 7, 14, 28]),
    ),
)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
