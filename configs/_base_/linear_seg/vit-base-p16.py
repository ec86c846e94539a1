# Copyright (c) addp_mm contributors. Apache-2.0.
# DINOv2's linear protocol (arXiv 2304.07193) on a plain ViT-B/16: the backbone is frozen, and batch
# norm and a 1x1 convolution classify the patch tokens of the last block, after the final norm.
_base_ = '../models/segmentor_addp-vit-base-p16.py'

model = dict(
    backbone=dict(
        out_indices=-1,
        drop_path_rate=0.0,
        frozen_stages=12,
        pad_to_patch=True,  # an image smaller than a window consists of whole patches too
    ),
    decode_head=dict(
        type='addp_mm.LinearSegHead',
        in_channels=[768],
        num_classes=150,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
