# Copyright (c) addp_mm contributors. Apache-2.0.
# UperNet on the outputs of four blocks of a ViT-B/16, resized to strides 4, 8, 16 and 32, as in MAE
# and BEiT (arXiv 2111.06377, A.4).
_base_ = './segmentor_addp-vit-base-p16.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        out_indices=(3, 5, 7, 11),
        final_norm=False,
        # windows of sliding inference consist of whole patches, unless an image is smaller than a
        # window
        pad_to_patch=True,
    ),
    neck=dict(type='addp_mm.FourScaleNeck', embed_dims=768, norm_cfg=norm_cfg),
    decode_head=dict(
        type='UPerHead',
        in_channels=[768, 768, 768, 768],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=768,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=768,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
    ),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
