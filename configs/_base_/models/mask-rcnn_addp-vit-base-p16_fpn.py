# Copyright (c) addp_mm contributors. Apache-2.0.
# mmdet's Mask R-CNN and FPN on the outputs of four blocks of the ViT, resized to strides 4, 8, 16
# and 32 (arXiv 2111.11429).
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', './vitdet_addp-vit-base-p16.py']

model = dict(
    backbone=dict(_delete_=True, out_indices=(2, 5, 8, 11), **_base_.backbone),
    neck=[
        dict(type='addp_mm.FourScaleNeck', embed_dims=768, norm_cfg=_base_.norm_cfg),
        dict(type='FPN', in_channels=[768, 768, 768, 768], out_channels=256, num_outs=5),
    ],
)
